/*
 * writer.c - see writer.h.
 */
#include "bench/churn/writer.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"
#include "shm/graph/reach.h"

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

uint64_t bench_writer_unreachable(const struct bench_writer *w)
{
    struct kithi_map map = { 0 };
    struct kithi_errmsg err = { .text = "" };
    struct kithi_reach_report report = { 0 };
    int rc = kithi_map_attach_path(w->path, false, &map, &err);
    if (rc < 0)
        bench_die("%s: %s", w->path, err.text);
    rc = kithi_reach_prove(&map, 0, NULL, NULL, NULL, &report);
    kithi_map_detach(&map);
    if (rc < 0)
        bench_die("%s: %s", w->path, kith_strerror(rc));
    return report.unreachable_count;
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
