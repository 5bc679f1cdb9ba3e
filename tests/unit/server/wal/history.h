/*
 * history.h - groups whose content follows from their epoch, for the tests of the log: what
 * is written can be told from anything else that is read.
 */
#ifndef KITHI_TEST_WAL_HISTORY_H
#define KITHI_TEST_WAL_HISTORY_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/io.h"
#include "server/wal/append.h"
#include "server/wal/scan.h"

static const uint8_t history_uid[16] = { 0x6b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

/* Bytes of group `epoch` in the history of that salt: one block in the file, but up to 20 KB for every fifth.
 * Room for seven ops at least. */
static inline size_t history_len(uint64_t epoch, uint64_t salt)
{
    uint64_t z = (epoch * 0x9e3779b97f4a7c15u) ^ (salt * 0xbf58476d1ce4e5b9u);
    z = (z ^ (z >> 29)) * 0x94d049bb133111ebu;
    z ^= z >> 32;
    return 8 * (14 + (size_t)(epoch % 5 == 0 ? z % 2500 : z % 120));
}

static inline void history_fill(uint8_t *out, uint64_t epoch, uint64_t salt)
{
    size_t len = history_len(epoch, salt);
    uint64_t z = epoch * 0x9e3779b97f4a7c15u + salt;
    for (size_t i = 0; i < len; i += 8, z = z * 6364136223846793005u + 1442695040888963407u)
        memcpy(out + i, &z, 8);
}

struct history {
    uint64_t salt;
    const uint64_t *salts; /* by epoch, instead of salt; may be NULL */
    uint64_t first, last;  /* delivered; first 0: none */
    uint64_t groups;
    bool wrong; /* something was delivered that was never written, or out of order */
};

static inline int history_group(void *arg, const struct kithi_wal_group *g)
{
    struct history *h = arg;
    uint64_t salt = h->salts ? h->salts[g->epoch] : h->salt;
    size_t len = history_len(g->epoch, salt);
    uint8_t *want = malloc(len);
    history_fill(want, g->epoch, salt);
    if (g->len != len || memcmp(g->ops, want, len) != 0 || g->n_ops != g->epoch % 7 + 1 ||
        (h->last && g->epoch != h->last + 1))
        h->wrong = true;
    free(want);
    if (!h->first)
        h->first = g->epoch;
    h->last = g->epoch;
    h->groups++;
    return 0;
}

static inline int history_scan(const char *dir, uint64_t salt, uint64_t after, uint64_t known,
                               struct history *h, struct kithi_wal_report *report, struct kithi_errmsg *err)
{
    struct kithi_wal_scan_opts o = {
        .dir = dir, .after_epoch = after, .known_durable_epoch = known, .fn = history_group, .arg = h
    };
    memcpy(o.uid, history_uid, 16);
    *h = (struct history){ .salt = salt, .salts = h->salts };
    *report = (struct kithi_wal_report){ 0 };
    *err = (struct kithi_errmsg){ 0 };
    return kithi_wal_scan(&o, report, err);
}

static inline int history_open(struct kithi_io *io, const char *dir, uint64_t file_size,
                               const struct kithi_wal_report *report, struct kithi_wal **out,
                               struct kithi_errmsg *err)
{
    struct kithi_wal_open_opts o = { .dir = dir, .timeline = 77, .file_size = file_size, .report = report };
    memcpy(o.uid, history_uid, 16);
    return kithi_wal_open(io, &o, out, err);
}

struct history_ack {
    uint64_t acked; /* groups durable */
    int failed;     /* groups that ended with an error, all after the acked ones */
    bool disorder;
};

static inline void history_done(void *arg, int status)
{
    struct history_ack *a = arg;
    if (status == 0 && a->failed)
        a->disorder = true;
    if (status == 0)
        a->acked++;
    else if (status == KITHI_E_LOG_FAILED)
        a->failed++;
    else
        a->disorder = true;
}

static inline int history_append(struct kithi_wal *wal, uint64_t epoch, uint64_t salt, struct history_ack *a)
{
    size_t len = history_len(epoch, salt), part = len / 16 * 8;
    uint8_t *bytes = malloc(len);
    history_fill(bytes, epoch, salt);
    struct iovec v[2] = { { bytes, part }, { bytes + part, len - part } };
    int r = kithi_wal_append(wal, epoch, v, 2, (uint32_t)(epoch % 7 + 1), history_done, a);
    free(bytes);
    return r;
}

/* A life of the log in dir: the next `count` groups behind those of report, each by a write of its own. 0 or the error. */
static inline int history_live(const char *dir, uint64_t salt, uint64_t file_size,
                               const struct kithi_wal_report *report, uint64_t count,
                               struct kithi_errmsg *err)
{
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct history_ack a = { 0 };
    int r = kithi_io_open(KITHI_IO_THREADS, &io, err);
    if (r == 0)
        r = history_open(io, dir, file_size, report, &wal, err);
    for (uint64_t i = 1; i <= count && r == 0; i++) {
        while ((r = history_append(wal, report->last_epoch + i, salt, &a)) == -EBUSY)
            kithi_io_run(io, 10000);
        while (r == 0 && kithi_wal_busy(wal))
            kithi_io_run(io, 10000);
    }
    if (r == 0 && (a.acked != count || a.failed))
        r = KITHI_E_LOG_FAILED;
    kithi_wal_close(wal);
    kithi_io_free(io);
    return r;
}

#endif
