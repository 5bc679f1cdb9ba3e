/*
 * marker.c - see marker.h.
 */
#include "server/writer/marker.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/writer/collection.h"
#include "server/writer/files.h"

#define AGAIN_MS 60000u

static int make_call(void *arg)
{
    struct kithi_collection *c = arg;
    return kithi_file_replace(c->data_dir, KITHI_MARKER_NAME, "", 0, 0600, &c->marker.err);
}

static void make_done(struct kithi_io_op *op, int status)
{
    struct kithi_collection *c = op->arg;
    c->marker.state = status ? MARKER_ABSENT : MARKER_THERE;
    c->daemon->again = true;
    if (status) {
        c->marker.again_ms = kithi_now_ms() + AGAIN_MS;
        kithi_log(
            KITHI_LOG_WARN, "not-ahead",
            "name=%s status=%s msg=%s; until it can be made every write is durable before it is visible",
            c->settings.name, kithi_error_name(status), c->marker.err.text);
    }
}

void kithi_marker_init(struct kithi_marker *m, struct kithi_collection *c)
{
    m->op = (struct kithi_io_op){ .done = make_done, .arg = c };
}

int kithi_marker_look(struct kithi_collection *c, struct kithi_errmsg *err)
{
    char path[KITHI_PATH_MAX];
    c->marker.state = MARKER_ABSENT;
    int status = kithi_path(path, err, "%s/%s", c->data_dir, KITHI_MARKER_NAME);
    if (status) {
        return status;
    }
    if (access(path, F_OK)) {
        int e = errno;
        /* It may be there, and say that something is lost; or not, and then nothing may be ahead of the log. */
        return e == ENOENT ? 0 : kithi_error_set(err, -e, "cannot look at %s: %s", path, strerror(e));
    }
    c->marker.state = MARKER_THERE;
    if (KITHI_FAULT("marker-sync-eio")) {
        return kithi_error_set(err, -EIO, "cannot sync %s: %s", c->data_dir, kithi_error_text(-EIO));
    }
    return kithi_dir_sync(c->data_dir, err);
}

bool kithi_marker_want(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_marker *m = &c->marker;
    if (m->state == MARKER_ABSENT && now_ms >= m->again_ms) {
        m->state = MARKER_MAKING;
        kithi_io_call(c->daemon->io, &m->op, make_call);
    }
    return m->state == MARKER_THERE;
}

void kithi_marker_clear(struct kithi_collection *c)
{
    char path[KITHI_PATH_MAX];
    if (c->marker.state != MARKER_THERE || kithi_path(path, NULL, "%s/%s", c->data_dir, KITHI_MARKER_NAME)) {
        return;
    }
    if (!unlink(path) || errno == ENOENT) {
        c->marker.state = MARKER_ABSENT;
        (void)kithi_dir_sync(c->data_dir, NULL);
    }
}
