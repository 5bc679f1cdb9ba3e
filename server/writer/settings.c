/*
 * settings.c - reading and writing collection.conf. See settings.h.
 */
#include "server/writer/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "server/base/conf.h"
#include "server/writer/files.h"

#define SETTINGS_VERSION 1

int kithi_settings_new(struct kithi_settings *out, const char *name, const struct kithi_geometry *geometry)
{
    struct kithi_settings s = { .geometry = *geometry };
    if (getrandom(s.uid, sizeof s.uid, 0) != (ssize_t)sizeof s.uid ||
        getrandom(s.hash_key, sizeof s.hash_key, 0) != (ssize_t)sizeof s.hash_key ||
        getrandom(&s.timeline, sizeof s.timeline, 0) != (ssize_t)sizeof s.timeline) {
        return errno ? -errno : -EIO;
    }
    s.timeline >>= 1; /* the configuration's integers are signed */
    snprintf(s.name, sizeof s.name, "%s", name);
    *out = s;
    return 0;
}

void kithi_uid_text(const uint8_t uid[16], char out[33])
{
    for (unsigned i = 0; i < 16; i++) {
        snprintf(out + (size_t)2 * i, 3, "%02x", uid[i]);
    }
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int hex_read(const char *path, const char *key, const char *text, uint8_t out[16],
                    struct kithi_errmsg *err)
{
    bool good = strlen(text) == 32;
    for (unsigned i = 0; good && i < 16; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        good = high >= 0 && low >= 0;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return good ? 0 : kithi_error_set(err, KITHI_E_FORMAT, "%s: %s is not 32 hexadecimal digits", path, key);
}

static int metric_read(const char *path, const char *text, uint32_t *out, struct kithi_errmsg *err)
{
    for (uint32_t m = KITHI_METRIC_L2; m <= KITHI_METRIC_IP; m++) {
        if (!strcmp(text, kithi_metric_name(m))) {
            *out = m;
            return 0;
        }
    }
    return kithi_error_set(err, KITHI_E_FORMAT, "%s: unknown metric \"%s\"", path, text);
}

int kithi_settings_read(const char *dir, struct kithi_settings *out, struct kithi_errmsg *err)
{
    struct kithi_settings s = { 0 };
    char path[KITHI_PATH_MAX], uid[64], hash_key[64], metric[16], quantization[16];
    int64_t version = 0, dim = 0, m = 0, ef = 0, slot_max = 0, timeline = 0, generation = 0;
    const struct kithi_conf_key keys[] = {
        { "version", KITHI_CONF_INTEGER, &version, 0, 1, INT32_MAX, NULL, true },
        { "name", KITHI_CONF_STRING, s.name, sizeof s.name, 0, 0, NULL, true },
        { "uid", KITHI_CONF_STRING, uid, sizeof uid, 0, 0, NULL, true },
        { "hash_key", KITHI_CONF_STRING, hash_key, sizeof hash_key, 0, 0, NULL, true },
        { "timeline", KITHI_CONF_INTEGER, &timeline, 0, 0, INT64_MAX, NULL, true },
        { "generation", KITHI_CONF_INTEGER, &generation, 0, 0, INT64_MAX, NULL, true },
        { "dim", KITHI_CONF_INTEGER, &dim, 0, 0, UINT32_MAX, NULL, true },
        { "metric", KITHI_CONF_STRING, metric, sizeof metric, 0, 0, NULL, true },
        { "m", KITHI_CONF_INTEGER, &m, 0, 0, UINT32_MAX, NULL, true },
        { "ef_construction", KITHI_CONF_INTEGER, &ef, 0, 0, UINT32_MAX, NULL, true },
        { "quantization", KITHI_CONF_STRING, quantization, sizeof quantization, 0, 0, NULL, true },
        { "slot_max", KITHI_CONF_INTEGER, &slot_max, 0, 0, UINT32_MAX, NULL, true },
    };
    int status = kithi_path(path, err, "%s/%s", dir, KITHI_SETTINGS_NAME);
    if (!status) {
        status = kithi_conf_read(path, keys, sizeof keys / sizeof keys[0], err);
    }
    if (status) {
        return status;
    }
    if (version != SETTINGS_VERSION) {
        return kithi_error_set(err, KITHI_E_VERSION, "%s: version %" PRId64 ", this kithd reads %d", path,
                               version, SETTINGS_VERSION);
    }
    if (!kithi_name_valid(s.name, strlen(s.name))) {
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: \"%s\" is not a collection name", path, s.name);
    }
    if (strcmp(quantization, "none")) {
        return kithi_error_set(err, KITHI_E_UNSUPPORTED, "%s: quantization \"%s\" is not in this version",
                               path, quantization);
    }
    status = hex_read(path, "uid", uid, s.uid, err);
    if (!status) {
        status = hex_read(path, "hash_key", hash_key, s.hash_key, err);
    }
    if (!status) {
        status = metric_read(path, metric, &s.geometry.metric, err);
    }
    if (status) {
        return status;
    }
    s.timeline = (uint64_t)timeline;
    s.generation = (uint64_t)generation;
    s.geometry.dim = (uint32_t)dim;
    s.geometry.m = (uint32_t)m;
    s.geometry.ef_construction = (uint32_t)ef;
    s.geometry.slot_max = (uint32_t)slot_max;
    status = kithi_geometry_check(&s.geometry, err);
    if (status) {
        return status;
    }
    *out = s;
    return 0;
}

int kithi_settings_write(const char *dir, const struct kithi_settings *s, struct kithi_errmsg *err)
{
    char text[1024], uid[33], hash_key[33];
    const struct kithi_geometry *g = &s->geometry;
    kithi_uid_text(s->uid, uid);
    kithi_uid_text(s->hash_key, hash_key);
    int n = snprintf(text, sizeof text,
                     "# What this collection is. Written by kithd; the log and the segment repeat it.\n"
                     "version = %d\n"
                     "name = \"%s\"\n"
                     "uid = \"%s\"\n"
                     "hash_key = \"%s\"\n"
                     "timeline = %" PRIu64 "\n"
                     "generation = %" PRIu64 "\n"
                     "dim = %u\n"
                     "metric = \"%s\"\n"
                     "m = %u\n"
                     "ef_construction = %u\n"
                     "quantization = \"none\"\n"
                     "slot_max = %u\n",
                     SETTINGS_VERSION, s->name, uid, hash_key, s->timeline, s->generation, g->dim,
                     kithi_metric_name(g->metric), g->m, g->ef_construction, g->slot_max);
    return kithi_file_replace(dir, KITHI_SETTINGS_NAME, text, (size_t)n, 0600, err);
}
