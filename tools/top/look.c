/*
 * look.c - see look.h.
 */
#include "tools/top/look.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/src/json.h"
#include "tools/out.h"
#include "tools/ready.h"

/* ---- what kithd says ---- */

struct number {
    const char *name;
    size_t off;
};

#define LOOK(member)                                                                                         \
    {                                                                                                        \
#member, offsetof(struct kithi_top_look, member)                                                     \
    }
#define READER(member)                                                                                       \
    {                                                                                                        \
#member, offsetof(struct kithi_top_reader, member)                                                   \
    }

static const struct number NUMBERS[] = {
    LOOK(up_ms),
    LOOK(durable_epoch),
    LOOK(waiting),
    LOOK(requests),
    LOOK(refused),
    LOOK(groups),
    LOOK(ops),
    LOOK(op_bytes),
    LOOK(sync_us_max),
    LOOK(workers),
    LOOK(checkpoint_epoch),
    LOOK(checkpoint_time),
    LOOK(checkpoints),
    LOOK(checkpoint_failures),
    LOOK(checkpoint_log_bytes),
    LOOK(repair_waiting),
    LOOK(repair_running),
    LOOK(repair_oldest_ms),
    LOOK(repaired),
};

static const struct number READERS[] = {
    LOOK(alive),    LOOK(gone),       LOOK(strange),  LOOK(untimed), LOOK(searches),
    LOOK(failures), LOOK(expansions), LOOK(restarts), LOOK(lag),     LOOK(lag_max),
};

static const struct number ONE_READER[] = {
    READER(slot),     READER(uid),        READER(pid), READER(opened),  READER(epoch),  READER(searches),
    READER(failures), READER(expansions), READER(lag), READER(lag_max), READER(p50_ns), READER(p99_ns),
};

/* The member's value, if it is in the table. */
static bool take_number(struct kithi_json *j, const struct number *table, size_t n, void *to)
{
    for (size_t i = 0; i < n; i++) {
        if (kithi_json_key_is(j, table[i].name)) {
            double v;
            if (kithi_json_double(j, &v) == 0)
                memcpy((char *)to + table[i].off, &v, sizeof v);
            return true;
        }
    }
    return false;
}

/* A string into a fixed place, cut off where it ends. */
static void take_text(struct kithi_json *j, char *out, size_t size)
{
    char text[256];
    size_t len;
    if (kithi_json_string(j, text, sizeof text, &len) < 0)
        return;
    len = len < size - 1 ? len : size - 1;
    memcpy(out, text, len);
    out[len] = '\0';
}

static void take_sync(struct kithi_json *j, double *out)
{
    uint32_t i = 0;
    kithi_json_array(j);
    while (kithi_json_element(j) == 1) {
        double v;
        if (kithi_json_double(j, &v) == 0 && i < KITHI_TOP_SYNC_BUCKETS)
            out[i++] = v;
    }
}

static void take_latency(struct kithi_json *j, double *out)
{
    kithi_json_array(j);
    while (kithi_json_element(j) == 1) {
        double pair[2] = { 0 };
        uint32_t n = 0;
        kithi_json_array(j);
        while (kithi_json_element(j) == 1) {
            if (n < 2)
                kithi_json_double(j, &pair[n++]);
            else
                kithi_json_skip(j);
        }
        if (n == 2 && pair[0] >= 0 && pair[0] < 1e15)
            out[kithi_board_bucket((uint64_t)pair[0])] += pair[1];
    }
}

static void take_list(struct kithi_json *j, struct kithi_top_look *out)
{
    kithi_json_array(j);
    while (kithi_json_element(j) == 1) {
        struct kithi_top_reader r = { 0 };
        kithi_json_object(j);
        while (kithi_json_member(j) == 1) {
            if (take_number(j, ONE_READER, sizeof ONE_READER / sizeof *ONE_READER, &r))
                continue;
            if (kithi_json_key_is(j, "program"))
                take_text(j, r.program, sizeof r.program);
            else
                kithi_json_skip(j);
        }
        if (out->reader_count < KITHI_TOP_READERS)
            out->readers[out->reader_count++] = r;
    }
}

static void take_readers(struct kithi_json *j, struct kithi_top_look *out)
{
    if (kithi_json_peek(j) != KITHI_JSON_OBJECT) {
        kithi_json_skip(j);
        return;
    }
    out->counted = true;
    kithi_json_object(j);
    while (kithi_json_member(j) == 1) {
        if (take_number(j, READERS, sizeof READERS / sizeof *READERS, out))
            continue;
        if (kithi_json_key_is(j, "latency_ns"))
            take_latency(j, out->latency);
        else if (kithi_json_key_is(j, "list"))
            take_list(j, out);
        else
            kithi_json_skip(j);
    }
}

int kithi_top_parse(const char *json, size_t len, struct kithi_top_look *out)
{
    struct kithi_json j;
    kithi_json_init(&j);
    kithi_json_begin(&j, json, len);
    kithi_json_object(&j);
    while (kithi_json_member(&j) == 1) {
        if (take_number(&j, NUMBERS, sizeof NUMBERS / sizeof *NUMBERS, out))
            continue;
        if (kithi_json_key_is(&j, "sync_us_below_pow2"))
            take_sync(&j, out->sync);
        else if (kithi_json_key_is(&j, "checkpoint_running"))
            kithi_json_bool(&j, &out->checkpoint_running);
        else if (kithi_json_key_is(&j, "sweeping"))
            kithi_json_bool(&j, &out->sweeping);
        else if (kithi_json_key_is(&j, "version"))
            take_text(&j, out->version, sizeof out->version);
        else if (kithi_json_key_is(&j, "io"))
            take_text(&j, out->io, sizeof out->io);
        else if (kithi_json_key_is(&j, "readers"))
            take_readers(&j, out);
        else
            kithi_json_skip(&j);
    }
    out->daemon = kithi_json_finish(&j) == 0;
    kithi_json_fini(&j);
    return out->daemon ? 0 : KITH_E_PROTOCOL;
}

/* ---- what the segment says ---- */

/* Relaxed: figures for people, each right by itself. */
static uint64_t word(const _Atomic uint64_t *w)
{
    return atomic_load_explicit(w, memory_order_relaxed);
}

static void look_at_header(struct kithi_top_collection *c)
{
    struct kithi_top_look *l = &c->now;
    struct stat st;
    struct kithi_errmsg err = { .text = "" };
    /* By name each time, so that a newer generation is seen whatever became of the old one. */
    if (c->map.base && (stat(c->path, &st) < 0 || st.st_dev != c->map.dev || st.st_ino != c->map.ino))
        kithi_map_detach(&c->map);
    if (!c->map.base) {
        int rc = kithi_map_attach_path(c->path, false, &c->map, &err);
        if (rc != 0) {
            snprintf(c->problem, sizeof c->problem, "%s",
                     rc == KITHI_E_NO_COLLECTION ? "the collection is gone" : err.text);
            c->map = (struct kithi_map){ 0 };
            return;
        }
    }
    const struct kithi_header *h = kithi_map_header(&c->map);
    l->attached = true;
    l->epoch = word(&h->epoch);
    l->live = word(&h->live);
    l->dead = word(&h->tally_dead);
    l->resting = word(&h->tally_resting);
    l->free = word(&h->tally_free);
    l->sweeps = word(&h->tally_sweeps);
    l->generation = c->map.generation;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t taken = word(&h->taken[r]), size = c->map.layout.size[r];
        l->bytes += taken < size ? taken : size;
    }
}

static int ask_daemon(struct kithi_top_collection *c, const struct kithi_tool *t)
{
    char *text = NULL;
    int rc = 0;
    if (!c->index) {
        struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
        opts.run_dir = t->run_dir;
        opts.counters = KITH_COUNTERS_OFF;
        rc = kith_open(c->name, &opts, &c->index);
    }
    if (rc == 0)
        rc = kith_daemon_stats(c->index, &text);
    if (rc == 0)
        rc = kithi_top_parse(text, strlen(text), &c->now);
    free(text);
    if (rc == KITH_E_REPLACED) { /* another one has the name, or will have: the next look opens that */
        kith_close(c->index);
        c->index = NULL;
    }
    return rc;
}

bool kithi_top_look(struct kithi_top_collection *c, const struct kithi_tool *t, bool ask)
{
    c->before = c->now;
    c->looks++;
    memset(&c->now, 0, sizeof c->now);
    c->problem[0] = '\0';
    int rc = ask ? ask_daemon(c, t) : KITH_E_NO_DAEMON;
    c->now.taken_ns = kithi_tool_now_ns(); /* after the daemon's answer, which may have been waited for */
    look_at_header(c);
    c->now.starting = rc == KITH_E_STARTING;
    if (ask && rc != 0 && !c->now.attached &&
        !strchr(c->name, '/')) { /* a segment that is still being built, or will not be */
        struct kithi_ready_state state = { .name = "" };
        char *json = NULL;
        const char *at;
        c->now.starting = kith_readiness(c->name, t->run_dir, &json, NULL) == 1;
        at = json;
        if (c->now.starting && at && kithi_ready_next(&at, &state) && state.reason[0] != '\0') {
            c->now.starting = false;
            snprintf(c->problem, sizeof c->problem, "kithd does not serve it: %.360s", state.reason);
        }
        free(json);
    }
    if (c->now.starting)
        snprintf(c->problem, sizeof c->problem, "kithd is bringing it back");
    else if (rc != 0 && c->now.attached && rc != KITH_E_NO_DAEMON)
        snprintf(c->problem, sizeof c->problem, "%s", kith_strerror(rc));
    return rc != KITH_E_TIMEOUT;
}

int kithi_top_collection_init(struct kithi_top_collection *c, const struct kithi_tool *t, const char *name)
{
    memset(c, 0, sizeof *c);
    c->name = strdup(name);
    if (strchr(name, '/'))
        c->path = strdup(name);
    else if (asprintf(&c->path, "%s/%s/segment", kithi_tool_run_dir(t, NULL), name) < 0)
        c->path = NULL;
    if (c->name && c->path)
        return 0;
    kithi_top_collection_fini(c);
    return -ENOMEM;
}

void kithi_top_collection_fini(struct kithi_top_collection *c)
{
    kith_close(c->index);
    kithi_map_detach(&c->map);
    free(c->name);
    free(c->path);
    memset(c, 0, sizeof *c);
}
