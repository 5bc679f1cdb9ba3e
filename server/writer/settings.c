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
#include "server/base/fault.h"
#include "server/writer/files.h"

#define SETTINGS_VERSION 1

/* What is wanted becomes a geometry; unchecked. */
static void lay_out(struct kithi_settings *s)
{
    s->chosen = s->wanted != KITHI_QUANTIZATION_AUTO;
    kithi_geometry_want(&s->geometry, s->wanted, s->keep);
}

static int random_bytes(void *out, size_t len, struct kithi_errmsg *err)
{
    if (getrandom(out, len, 0) == (ssize_t)len) {
        return 0;
    }
    int status = errno ? -errno : -EIO;
    return kithi_error_set(err, status, "the system gives no random numbers: %s", strerror(-status));
}

int kithi_settings_fork(struct kithi_settings *s, struct kithi_errmsg *err)
{
    uint64_t timeline;
    int status = random_bytes(&timeline, sizeof timeline, err);
    if (!status) {
        s->timeline = timeline >> 1; /* the configuration's integers are signed */
    }
    return status;
}

int kithi_settings_new(struct kithi_settings *out, const char *name, const struct kithi_geometry *asked,
                       struct kithi_errmsg *err)
{
    struct kithi_settings s = { .wanted = asked->quantization, .keep = asked->keep, .geometry = *asked };
    lay_out(&s);
    int status = kithi_geometry_check(&s.geometry, err);
    if (status) {
        return status;
    }
    status = random_bytes(s.uid, sizeof s.uid, err);
    if (!status) {
        status = random_bytes(s.hash_key, sizeof s.hash_key, err);
    }
    if (!status) {
        status = kithi_settings_fork(&s, err);
    }
    if (status) {
        return status;
    }
    snprintf(s.name, sizeof s.name, "%s", name);
    *out = s;
    return 0;
}

void kithi_settings_choose(struct kithi_settings *s, uint32_t quantization)
{
    s->chosen = true;
    kithi_geometry_want(&s->geometry, quantization, s->keep);
}

int kithi_settings_alter(struct kithi_settings *s, const struct kithi_alter *a, struct kithi_errmsg *err)
{
    struct kithi_geometry *g = &s->geometry;
    uint32_t slot_max = g->slot_max;
    bool codes = false;
    bool anew = a->quantization == KITHI_QUANTIZATION_AUTO && s->chosen;
    if (a->quantization != KITHI_AS_IS && (a->quantization != s->wanted || anew)) {
        s->wanted = a->quantization;
        codes = true;
    }
    if (a->keep != KITHI_AS_IS && a->keep != s->keep) {
        s->keep = a->keep;
        codes = true;
    }
    if (codes) {
        lay_out(s);
    }
    g->m = a->m != KITHI_AS_IS ? a->m : g->m;
    g->ef_construction = a->ef_construction != KITHI_AS_IS ? a->ef_construction : g->ef_construction;
    g->slot_max = a->slot_max != KITHI_AS_IS ? a->slot_max : g->slot_max;
    if (s->slot_most < slot_max) {
        s->slot_most = slot_max;
    }
    if (s->slot_most <= g->slot_max) {
        s->slot_most = 0;
    }
    return kithi_geometry_check(g, err);
}

int kithi_settings_index(struct kithi_settings *s, const void *text, size_t len, struct kithi_errmsg *err)
{
    char copy[KITHI_DECLARED_TEXT_MAX + 1];
    struct kithi_declared d;
    if (len > KITHI_DECLARED_TEXT_MAX || memchr(text, 0, len)) {
        return kithi_error_set(err, KITHI_E_PARAMETER, "index: its text has up to %u bytes, and no NUL",
                               KITHI_DECLARED_TEXT_MAX);
    }
    memcpy(copy, text, len);
    copy[len] = 0;
    int status = kithi_declared_read(copy, &d, err);
    if (status) {
        return status;
    }
    kithi_declared_print(&d, s->index);
    if (d.automatic) {
        s->index[0] = 0;
    }
    return 0;
}

bool kithi_settings_same(const struct kithi_settings *a, const struct kithi_settings *b)
{
    return !strcmp(a->index, b->index) && a->wanted == b->wanted && a->keep == b->keep &&
           a->chosen == b->chosen && memcmp(&a->geometry, &b->geometry, sizeof a->geometry) == 0;
}

uint32_t kithi_settings_highest(const struct kithi_settings *s)
{
    return s->slot_most > s->geometry.slot_max ? s->slot_most : s->geometry.slot_max;
}

bool kithi_settings_may_lay(const struct kithi_settings *s, const struct kithi_geometry *g)
{
    return g->dim == s->geometry.dim && g->metric == s->geometry.metric && kithi_geometry_check(g, NULL) == 0;
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

/* The number from first to last whose name is text. */
static int name_read(const char *path, const char *key, const char *text, const char *(*name_of)(uint32_t),
                     uint32_t first, uint32_t last, uint32_t *out, struct kithi_errmsg *err)
{
    for (uint32_t i = first; i <= last; i++) {
        if (!strcmp(text, name_of(i))) {
            *out = i;
            return 0;
        }
    }
    return kithi_error_set(err, KITHI_E_FORMAT, "%s: unknown %s \"%s\"", path, key, text);
}

/* The codes: what was asked for, and what AUTO has chosen, if it has. */
static int codes_read(const char *path, const char *quantization, const char *keep, const char *layout,
                      int64_t code_bits, struct kithi_settings *s, struct kithi_errmsg *err)
{
    uint32_t chosen = KITHI_QUANTIZATION_NONE;
    int status = name_read(path, "quantization", quantization, kithi_quantization_name,
                           KITHI_QUANTIZATION_NONE, KITHI_QUANTIZATION_AUTO, &s->wanted, err);
    if (!status) {
        status =
            name_read(path, "keep", keep, kithi_keep_name, KITHI_KEEP_F32, KITHI_KEEP_NONE, &s->keep, err);
    }
    if (!status) {
        lay_out(s);
    }
    if (!status && layout[0]) {
        status = name_read(path, "layout", layout, kithi_quantization_name, KITHI_QUANTIZATION_NONE,
                           KITHI_QUANTIZATION_BITS, &chosen, err);
        if (!status && s->chosen && chosen != s->wanted) {
            status =
                kithi_error_set(err, KITHI_E_FORMAT, "%s: layout \"%s\" does not go with quantization \"%s\"",
                                path, layout, quantization);
        }
        if (!status) {
            kithi_settings_choose(s, chosen);
        }
    }
    if (!status && s->geometry.code_bits) {
        s->geometry.code_bits = (uint32_t)code_bits;
    }
    return status;
}

int kithi_settings_read(const char *dir, struct kithi_settings *out, struct kithi_errmsg *err)
{
    struct kithi_settings s = { 0 };
    char path[KITHI_PATH_MAX], uid[64], hash_key[64], metric[16];
    char quantization[16], keep[16] = "f32", layout[16] = "", index[KITHI_DECLARED_TEXT_MAX + 1] = "";
    int64_t fixed = 0, code_bits = 1, version = 0, dim = 0, m = 0, ef = 0, slot_max = 0, timeline = 0,
            generation = 0, slot_most = 0;
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
        { "keep", KITHI_CONF_STRING, keep, sizeof keep, 0, 0, NULL, false },
        { "layout", KITHI_CONF_STRING, layout, sizeof layout, 0, 0, NULL, false },
        { "code_bits", KITHI_CONF_INTEGER, &code_bits, 0, 0, UINT32_MAX, NULL, false },
        { "slot_max", KITHI_CONF_INTEGER, &slot_max, 0, 0, UINT32_MAX, NULL, true },
        { "fixed", KITHI_CONF_INTEGER, &fixed, 0, 0, 1, NULL, false },
        { "index", KITHI_CONF_STRING, index, sizeof index, 0, 0, NULL, false },
        { "slot_most", KITHI_CONF_INTEGER, &slot_most, 0, 0, KITHI_SLOT_MAX_LIMIT, NULL, false },
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
    status = hex_read(path, "uid", uid, s.uid, err);
    if (!status) {
        status = hex_read(path, "hash_key", hash_key, s.hash_key, err);
    }
    if (!status) {
        status = name_read(path, "metric", metric, kithi_metric_name, KITHI_METRIC_L2, KITHI_METRIC_IP,
                           &s.geometry.metric, err);
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
    s.fixed = fixed != 0;
    s.slot_most = (uint32_t)slot_most;
    if (kithi_settings_index(&s, index, strlen(index), err)) {
        char why[sizeof err->text];
        snprintf(why, sizeof why, "%s", err ? err->text : "");
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: %.400s", path, why);
    }
    status = codes_read(path, quantization, keep, layout, code_bits, &s, err);
    if (!status) {
        status = kithi_geometry_check(&s.geometry, err);
    }
    if (status) {
        return status;
    }
    *out = s;
    return 0;
}

/* Each byte of an index may be one that is written as two. */
#define INDEX_LINE_MAX (2 * KITHI_DECLARED_TEXT_MAX + 16)

/* Nothing for auto: kithd that knows no index reads settings without. */
static void index_line(const char *index, char out[INDEX_LINE_MAX])
{
    size_t at = 0;
    out[0] = 0;
    if (!index[0]) {
        return;
    }
    at = (size_t)snprintf(out, INDEX_LINE_MAX, "index = \"");
    for (; *index; index++) { /* no control character is among them */
        if (*index == '"' || *index == '\\') {
            out[at++] = '\\';
        }
        out[at++] = *index;
    }
    memcpy(out + at, "\"\n", 3);
}

int kithi_settings_write(const char *dir, const struct kithi_settings *s, struct kithi_errmsg *err)
{
    char text[1024 + INDEX_LINE_MAX], index[INDEX_LINE_MAX], uid[33], hash_key[33], layout[64] = "",
                                                                                    most[64] = "";
    const struct kithi_geometry *g = &s->geometry;
    kithi_uid_text(s->uid, uid);
    kithi_uid_text(s->hash_key, hash_key);
    if (s->chosen) {
        snprintf(layout, sizeof layout, "layout = \"%s\"\ncode_bits = %u\n",
                 kithi_quantization_name(g->quantization), g->code_bits);
    }
    if (s->slot_most > g->slot_max) { /* kithd that knows of no other ceiling reads settings without */
        snprintf(most, sizeof most, "slot_most = %u\n", s->slot_most);
    }
    index_line(s->index, index);
    int n =
        snprintf(text, sizeof text,
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
                 "quantization = \"%s\"\n"
                 "keep = \"%s\"\n"
                 "%s"
                 "slot_max = %u\n"
                 "%s%s%s",
                 SETTINGS_VERSION, s->name, uid, hash_key, s->timeline, s->generation, g->dim,
                 kithi_metric_name(g->metric), g->m, g->ef_construction, kithi_quantization_name(s->wanted),
                 kithi_keep_name(s->keep), layout, g->slot_max, most, s->fixed ? "fixed = 1\n" : "", index);
    if (KITHI_FAULT("settings-write-eio")) {
        return kithi_error_set(err, -EIO, "cannot write %s/%s: %s", dir, KITHI_SETTINGS_NAME, strerror(EIO));
    }
    return kithi_file_replace(dir, KITHI_SETTINGS_NAME, text, (size_t)n, 0600, err);
}
