/*
 * log_place.c - see log_place.h.
 */
#include "tools/log_place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/src/json.h"
#include "server/wal/salvage.h"
#include "shm/base/id.h"

/* The member data_dir of what a daemon says of itself; false: it has none that is an absolute path. */
static bool read_data_dir(const char *text, char out[KITHI_LOG_PATH])
{
    struct kithi_json j;
    size_t len = 0;
    kithi_json_init(&j);
    kithi_json_begin(&j, text, strlen(text));
    bool more = kithi_json_object(&j) == 0;
    while (more && kithi_json_member(&j) == 1) {
        if (kithi_json_key_is(&j, "data_dir") && kithi_json_peek(&j) == KITHI_JSON_STRING)
            kithi_json_string(&j, out, KITHI_LOG_PATH - 1, &len);
        else
            kithi_json_skip(&j);
    }
    bool good = kithi_json_finish(&j) == 0 && len > 0 && out[0] == '/';
    kithi_json_fini(&j);
    out[good ? len : 0] = '\0';
    return good;
}

static int ask_daemon(const struct kithi_tool *t, const char *name, char out[KITHI_LOG_PATH])
{
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    char *text = NULL;
    opts.run_dir = t->run_dir;
    opts.error = &error;
    int rc = kith_open(name, &opts, &index);
    if (rc != 0)
        return kithi_tool_fail(t, "%s; to read a log without a kithd, say where it is: --data DIR",
                               error.text[0] != '\0' ? error.text : kith_strerror(rc));
    rc = kith_daemon_stats(index, &text);
    kith_close(index);
    bool known = rc == 0 && read_data_dir(text, out);
    free(text);
    if (known)
        return KITHI_TOOL_OK;
    return kithi_tool_fail(t, "\"%s\": %s; say where the data directory is: --data DIR", name,
                           rc != 0 ? "no kithd answers that could say where its log is"
                                   : "this kithd does not say where its data directory is");
}

static int cannot_look(const struct kithi_tool *t, const char *what, const char *path, int e)
{
    return kithi_tool_fail(t, "%s %s cannot be read: %s%s", what, path, strerror(e),
                           e == EACCES || e == EPERM ? "; run this as the user that kithd runs as" : "");
}

int kithi_log_find(const struct kithi_tool *t, const char *name, const char *data,
                   struct kithi_log_place *out)
{
    struct kithi_errmsg err = { 0 };
    struct stat st;
    memset(out, 0, sizeof *out);
    out->name = name;
    if (!kithi_name_valid(name, strlen(name)))
        return kithi_tool_fail_with(t, name, KITHI_E_NAME, "");
    if (data != NULL) {
        if (strlen(data) >= sizeof out->data)
            return kithi_tool_fail(t, "--data is longer than a path may be");
        memcpy(out->data, data, strlen(data) + 1);
    } else {
        int status = ask_daemon(t, name, out->data);
        if (status != KITHI_TOOL_OK)
            return status;
    }
    if (stat(out->data, &st) != 0 && errno == ENOENT)
        return kithi_tool_fail(t, "there is no data directory %s%s", out->data,
                               data != NULL
                                   ? "; give the --data that kithd is started with"
                                   : " here; if kithd runs in a container, say where it is: --data DIR");
    if (stat(out->data, &st) != 0)
        return cannot_look(t, "the data directory", out->data, errno);
    if (!S_ISDIR(st.st_mode))
        return kithi_tool_fail(t, "%s is not a directory; give the --data that kithd is started with",
                               out->data);
    int n = snprintf(out->collection, sizeof out->collection, "%s/%s", out->data, name);
    int m = snprintf(out->wal, sizeof out->wal, "%s/%s/" KITHI_WAL_DIR, out->data, name);
    if (n >= (int)sizeof out->collection || m >= (int)sizeof out->wal)
        return kithi_tool_fail(t, "%s: the path is too long", out->data);
    if (stat(out->collection, &st) != 0 && errno == ENOENT)
        return kithi_tool_fail(t, "there is no collection \"%s\" in the data directory %s", name, out->data);
    if (stat(out->collection, &st) != 0)
        return cannot_look(t, "the collection's directory", out->collection, errno);
    int rc = kithi_settings_read(out->collection, &out->settings, &err);
    if (rc == -EACCES)
        return cannot_look(t, "the collection's directory", out->collection, EACCES);
    if (rc < 0)
        return kithi_tool_fail(t, "%s%s; without it nobody knows whose log this is: restore it from a copy",
                               rc == -ENOENT ? out->collection : err.text,
                               rc == -ENOENT ? "/" KITHI_SETTINGS_NAME " is missing" : "");
    if (strcmp(out->settings.name, name) != 0)
        return kithi_tool_fail(t,
                               "%s/" KITHI_SETTINGS_NAME " is for a collection \"%s\"; give its directory "
                               "that name",
                               out->collection, out->settings.name);
    return KITHI_TOOL_OK;
}

bool kithi_log_ops(const struct kithi_wal_group *g, kithi_log_op_fn *fn, void *arg, size_t *out_at)
{
    uint32_t n = 0;
    size_t at = 0;
    while (at < g->len) {
        struct kithi_op op = { 0 };
        int64_t step = kithi_op_decode((const char *)g->ops + at, g->len - at, &op);
        if (step <= 0 || ++n > g->n_ops) {
            *out_at = at;
            return false;
        }
        if (fn != NULL)
            fn(arg, &op);
        at += (size_t)step;
    }
    return true;
}
