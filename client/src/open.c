/*
 * open.c - opening and closing a collection: from a name to a checked, mapped segment.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "client/src/condition_priv.h"
#include "client/src/handle_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/rundir_priv.h"
#include "shm/base/id.h"

/* While waiting for a collection: first soon, then seldom. */
#define WAIT_FIRST_NS UINT64_C(1000000)
#define WAIT_MAX_NS   UINT64_C(50000000)

/*
 * What a path says about the collection it belongs to: .../<run directory>/<name>/segment. A path
 * of another form is opened all the same, only without a daemon to write to.
 */
static int name_from_path(struct kith *index, const char *path, const char *run_dir)
{
    int rc = -ENOMEM;
    const char *name = NULL, *slash = strrchr(path, '/');
    char *dir = strndup(path, (size_t)(slash - path)), *real = NULL;
    if (!dir)
        goto out;
    real = realpath(*dir ? dir : "/", NULL);
    char *last = real ? strrchr(real, '/') : NULL;
    if (last && strcmp(slash + 1, "segment") == 0 && kithi_name_valid(last + 1, strlen(last + 1))) {
        *last = '\0';
        name = last + 1;
        if (!run_dir)
            run_dir = *real ? real : "/";
    }
    index->segment = strdup(path);
    index->name = strdup(name ? name : path);
    if (name)
        index->run_dir = strdup(run_dir);
    if (index->segment && index->name && (index->run_dir || !name))
        rc = 0;
out:
    free(dir);
    free(real);
    return rc;
}

static int name_paths(struct kith *index, const char *name, const char *run_dir, struct kithi_errmsg *err)
{
    int rc;
    if (strchr(name, '/')) {
        rc = name_from_path(index, name, run_dir);
    } else if (!kithi_name_valid(name, strlen(name))) {
        return kithi_error_set(err, KITHI_E_NAME, "'%.80s' is %s", name, kithi_error_text(KITHI_E_NAME));
    } else {
        run_dir = kithi_run_dir(run_dir);
        index->name = strdup(name);
        index->run_dir = strdup(run_dir);
        rc = kithi_path_join(run_dir, name, "segment", &index->segment);
        if (!index->name || !index->run_dir)
            rc = -ENOMEM;
    }
    return rc < 0 ? kithi_error_set(err, rc, "out of memory") : 0;
}

/* There is no segment. Say what that means for what the caller gave. */
static int say_missing(const struct kith *index, bool by_path, struct kithi_errmsg *err)
{
    struct stat st;
    if (by_path)
        return kithi_error_set(
            err, KITHI_E_NO_COLLECTION,
            "there is no segment %s (a slash makes it the path of a segment; names have none)",
            index->segment);
    char *dir = strndup(index->segment, (size_t)(strrchr(index->segment, '/') - index->segment));
    bool half = dir && lstat(dir, &st) == 0;
    free(dir);
    if (half)
        return kithi_error_set(
            err, KITHI_E_NO_COLLECTION,
            "the segment of collection '%s' is missing: there is no %s; start kithd again, which "
            "builds it anew from the log",
            index->name, index->segment);
    return kithi_error_set(err, KITHI_E_NO_COLLECTION,
                           "there is no collection '%s' in %s; see 'kith list', or create it", index->name,
                           index->run_dir);
}

static int attach_once(struct kith *index, bool by_path, struct kithi_map *map, struct kithi_errmsg *err)
{
    if (!by_path) {
        int rc = kithi_run_dir_check(index->run_dir, err);
        if (rc < 0)
            return rc;
    }
    int rc = kithi_map_attach_path(index->segment, false, map, err);
    if (rc == KITHI_E_NO_COLLECTION)
        say_missing(index, by_path, err);
    else if (rc == -EACCES)
        kithi_error_set(err, rc, "your user may not read %s; it must be in the read group of kithd",
                        index->segment);
    return rc;
}

/* Attach; while what is missing may still come, try again until wait_ms have passed. */
static int attach_wait(struct kith *index, bool by_path, uint32_t wait_ms, struct kithi_map *map,
                       struct kithi_errmsg *err)
{
    uint64_t end = kithi_now_ns() + (uint64_t)wait_ms * 1000000u, pause = WAIT_FIRST_NS;
    for (;;) {
        int rc = attach_once(index, by_path, map, err);
        if (wait_ms == 0 ||
            (rc != KITHI_E_NO_COLLECTION && rc != KITHI_E_NOT_SEGMENT && rc != KITHI_E_RUN_DIR))
            return rc;
        uint64_t now = kithi_now_ns();
        if (now >= end) {
            char why[300];
            strncpy(why, err->text, sizeof why - 1);
            why[sizeof why - 1] = '\0';
            return kithi_error_set(err, KITHI_E_TIMEOUT, "waited %u ms: %s", wait_ms, why);
        }
        if (pause > end - now)
            pause = end - now;
        struct timespec t = { .tv_sec = (time_t)(pause / 1000000000u),
                              .tv_nsec = (long)(pause % 1000000000u) };
        nanosleep(&t, NULL);
        pause = pause * 2 < WAIT_MAX_NS ? pause * 2 : WAIT_MAX_NS;
    }
}

int kith_open(const char *name, const struct kith_open_opts *opts, kith **out)
{
    static _Atomic uint64_t numbers;
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    struct kithi_errmsg err = { 0 };
    struct kith *index = NULL;
    struct kithi_generation *g = NULL;

    if (!name || !out)
        return -EINVAL;
    if (opts && kithi_opts_in(&o, opts, sizeof o, offsetof(struct kith_open_opts, counters)) < 0)
        return -EINVAL;
    if (o.counters > KITH_COUNTERS_OFF || o.reserved != 0)
        return -EINVAL;

    int rc = -ENOMEM;
    index = calloc(1, sizeof *index);
    g = calloc(1, sizeof *g);
    if (!index || !g) {
        kithi_error_set(&err, rc, "out of memory");
        goto out;
    }
    kithi_conn_init(&index->conn);
    atomic_init(&index->bitmaps.left, kithi_bitmap_bytes);
    index->number = 1 + atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed);
    rc = name_paths(index, name, o.run_dir, &err);
    if (rc < 0)
        goto out;
    rc = attach_wait(index, strchr(name, '/') != NULL, o.attach_wait_ms, &g->map, &err);
    if (rc < 0)
        goto out;
    memcpy(index->uid, g->map.uid, sizeof index->uid);
    index->geometry = g->map.geometry;
    if (o.prefault)
        kithi_map_prefault(&g->map);
    if (o.counters == KITH_COUNTERS_AUTO)
        kithi_board_open(&index->board, index->segment, index->uid);
    atomic_init(&index->current, g);
    g = NULL;
    *out = index;
    index = NULL;
    rc = 0;
out:
    free(g);
    kith_close(index);
    return kithi_report(o.error, &err, rc);
}

void kith_close(kith *index)
{
    if (!index)
        return;
    kithi_calls_fini(index);
    kithi_board_close(&index->board);
    kithi_conn_close(&index->conn);
    free(index->write_buf);
    free(index->payload_buf);
    free(index->name);
    free(index->segment);
    free(index->run_dir);
    free(index);
}

uint32_t kith_dim(const kith *index)
{
    return index->geometry.dim;
}

enum kith_metric kith_metric_of(const kith *index)
{
    return (enum kith_metric)index->geometry.metric;
}

const char *kith_name(const kith *index)
{
    return index->name;
}
