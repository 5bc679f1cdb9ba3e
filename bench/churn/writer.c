/*
 * writer.c - see writer.h.
 */
#include "bench/churn/writer.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"
#include "shm/base/id.h"
#include "shm/graph/reach.h"
#include "shm/graph/view.h"

/* As `kith load` does it. */
#define DEPTH   8u
#define BATCH   256u
#define BYTES   (1u << 20)
#define WAIT_NS UINT64_C(600000000000)

void bench_writer_open(struct bench_writer *w, const struct bench_daemon *d, const struct bench_set *set,
                       const struct bench_config *config)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    *w = (struct bench_writer){ .set = set };
    opts.run_dir = d->run_dir;
    int rc = kith_open(config->name, &opts, &w->index);
    if (rc == 0)
        rc = kith_pipe_open(w->index, DEPTH, &w->pipe);
    if (rc < 0)
        bench_die("%s: %s", config->name, kith_strerror(rc));
    w->batch = kith_batch_new(w->index);
    if (!w->batch)
        bench_die("out of memory");
    snprintf(w->path, sizeof(w->path), "%s/%s/segment", d->run_dir, config->name);
}

void bench_writer_close(struct bench_writer *w)
{
    kith_batch_free(w->batch);
    kith_pipe_close(w->pipe);
    kith_close(w->index);
}

static void take_answer(struct bench_writer *w)
{
    uint64_t token;
    int status;
    struct kith_commit commit = { .struct_size = sizeof(commit) };
    int rc = kith_pipe_next(w->pipe, -1, &token, &status, &commit);
    if (rc < 0)
        bench_die("write: %s", kith_strerror(rc));
    if (rc > 0 && status < 0)
        bench_die("write: %s", commit.error.text[0] ? commit.error.text : kith_strerror(status));
    if (rc > 0 && token > 0 && commit.found != token)
        bench_die("%u of %u deleted ids were there", commit.found, (unsigned)token);
}

static double write_rows(struct bench_writer *w, const uint32_t *rows, uint32_t n, bool insert)
{
    uint32_t fit = (uint32_t)(BYTES / (w->set->dim * sizeof(float)));
    uint32_t most = fit < BATCH && insert ? fit : BATCH;
    uint64_t begin = bench_now_ns();
    for (uint32_t i = 0; i < n;) {
        uint32_t count = 0;
        kith_batch_clear(w->batch);
        for (; count < most && i < n; i++, count++) {
            char id[16];
            snprintf(id, sizeof(id), "%u", rows[i]);
            int rc = insert ? kith_batch_upsert(w->batch, id, bench_set_base(w->set, rows[i]), w->set->dim)
                            : kith_batch_delete(w->batch, id);
            if (rc < 0)
                bench_die("row %u: %s", rows[i], kith_strerror(rc));
        }
        while (kith_pipe_pending(w->pipe) >= DEPTH)
            take_answer(w);
        int rc = kith_pipe_submit(w->pipe, w->batch, insert ? 0 : count);
        if (rc < 0)
            bench_die("write: %s", kith_strerror(rc));
    }
    while (kith_pipe_pending(w->pipe) > 0)
        take_answer(w);
    return (double)(bench_now_ns() - begin) / 1e9;
}

double bench_writer_insert(struct bench_writer *w, const uint32_t *rows, uint32_t n)
{
    return write_rows(w, rows, n, true);
}

double bench_writer_remove(struct bench_writer *w, const uint32_t *rows, uint32_t n)
{
    return write_rows(w, rows, n, false);
}

void bench_writer_backlog(struct bench_writer *w, struct bench_backlog *out)
{
    struct kith_stats s = KITH_STATS_INIT;
    int rc = kith_stats(w->index, &s);
    if (rc < 0)
        bench_die("statistics: %s", kith_strerror(rc));
    *out = (struct bench_backlog){
        .dead = s.dead_count,
        .resting = s.resting_count,
        .free = s.free_count,
        .bytes = s.bytes_taken,
        .live = s.live_count,
    };
}

/* Whether kithd says "key":true. */
static bool says(struct bench_writer *w, const char *key)
{
    char *json = NULL, text[40];
    int rc = kith_daemon_stats(w->index, &json);
    if (rc < 0)
        bench_die("statistics: %s", kith_strerror(rc));
    snprintf(text, sizeof(text), "\"%s\":true", key);
    bool yes = strstr(json, text) != NULL;
    free(json);
    return yes;
}

static void await(struct bench_writer *w, bool rest)
{
    uint64_t end = bench_now_ns() + WAIT_NS;
    struct bench_backlog b;
    while (bench_writer_backlog(w, &b), b.dead || (rest && (b.resting || !says(w, "audit_rests")))) {
        if (bench_now_ns() > end)
            bench_die("%llu vectors are dead and linked, %llu places rest, for ten minutes",
                      (unsigned long long)b.dead, (unsigned long long)b.resting);
        poll(NULL, 0, rest ? 20 : 1);
    }
}

void bench_writer_await_repair(struct bench_writer *w)
{
    await(w, false);
}

void bench_writer_await_repair_of(struct bench_writer *w, uint64_t died_ns)
{
    uint64_t end = bench_now_ns() + WAIT_NS;
    while (bench_writer_told(w, "repair_oldest_ms") * 1e6 > (double)(bench_now_ns() - died_ns)) {
        if (bench_now_ns() > end)
            bench_die("dead vectors are linked for ten minutes");
        poll(NULL, 0, 1);
    }
}

void bench_writer_await_rest(struct bench_writer *w)
{
    await(w, true);
}

static void attach(const struct bench_writer *w, struct kithi_map *out)
{
    struct kithi_errmsg err = { .text = "" };
    *out = (struct kithi_map){ 0 };
    if (kithi_map_attach_path(w->path, false, out, &err) < 0)
        bench_die("%s: %s", w->path, err.text);
}

uint64_t bench_writer_unreachable(const struct bench_writer *w)
{
    struct kithi_map map;
    struct kithi_reach_report report = { 0 };
    attach(w, &map);
    int rc = kithi_reach_prove(&map, 0, NULL, NULL, NULL, &report);
    kithi_map_detach(&map);
    if (rc < 0)
        bench_die("%s: %s", w->path, kith_strerror(rc));
    return report.unreachable_count;
}

uint32_t bench_writer_slots(const struct bench_writer *w, uint32_t *out_rows, uint32_t most)
{
    struct kithi_map map;
    struct kithi_view v;
    uint32_t n = 0;
    attach(w, &map);
    kithi_view_begin(&map, &v);
    for (uint32_t slot = 0; slot < v.slots_used && n < most; slot++) {
        char id[KITHI_ID_MAX + 1];
        uint64_t birth;
        if (!kithi_view_visible(&v, kithi_view_record(&v, slot), &birth))
            continue;
        id[kithi_view_id(&v, slot, id)] = 0;
        out_rows[n++] = (uint32_t)strtoul(id, NULL, 10);
    }
    kithi_map_detach(&map);
    return n;
}

void bench_writer_links(const struct bench_writer *w, double *out_links, double *out_gapped)
{
    struct kithi_map map;
    struct kithi_view v;
    uint64_t rows = 0, links = 0, gapped = 0;
    attach(w, &map);
    kithi_view_begin(&map, &v);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        const kithi_link *row = kithi_view_row(&v, slot);
        bool empty = false, has_gap = false;
        uint64_t birth;
        if (!kithi_view_visible(&v, kithi_view_record(&v, slot), &birth))
            continue;
        for (uint32_t i = 0; i < v.link_count0; i++) {
            bool full = atomic_load_explicit(&row[i], memory_order_relaxed) != 0; /* a hint, as any link */
            links += full;
            has_gap |= full && empty;
            empty |= !full;
        }
        gapped += has_gap;
        rows++;
    }
    *out_links = rows ? (double)links / (double)rows : 0;
    *out_gapped = rows ? (double)gapped / (double)rows : 0;
    kithi_map_detach(&map);
}

double bench_writer_told(struct bench_writer *w, const char *key)
{
    char *json = NULL, name[40];
    int rc = kith_daemon_stats(w->index, &json);
    if (rc < 0)
        bench_die("statistics: %s", kith_strerror(rc));
    snprintf(name, sizeof(name), "\"%s\":", key);
    const char *at = strstr(json, name);
    if (!at)
        bench_die("kithd says nothing of %s: %s", key, json);
    double value = strtod(at + strlen(name), NULL);
    free(json);
    return value;
}
