/*
 * bench_log.c - what the log alone lets through: requests that cost the index next to nothing, 64 in flight, through a
 * live kithd; beside it, in turns, the disk's own pace: a write of the mean group's size and an fdatasync, again and
 * again, by fio where that is installed, and by this program.
 *
 * Loads: `delete`, a vector a request, of a collection filled before; `upsert`, of 1,000 ids of 4 dimensions; the latter also
 * with less than durability asked for, and one request at a time, for what an answer takes. One kithd
 * uses io_uring, another one threads. Groups, writes and bytes are those that kithd counts.
 *
 * The disk alone is also asked what it costs that space was never written: the log's own kind of write (past the page
 * cache, durable at once) into space that is allocated only, and into space that was written before. And what it saves
 * that the ring knows file and buffer: such writes by kithd's own loop, with and without.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/histogram.h"
#include "bench/common/machine.h"
#include "server/base/io.h"

#define IN_FLIGHT  64u
#define DIM        4u
#define IDS        1000u   /* of the load `upsert` */
#define DELETES    100000u /* of the load `delete`, at most */
#define FILL_BATCH 500u
#define BLOCK      4096u
#define FILE_BYTES (64u << 20) /* as the log's files */

#define LOADS      8u
#define DISK_LOADS 2u /* of them, the first ones: beside the disk */
enum { IO_URING, IO_THREADS, IOS };
enum { DISK_FIO, DISK_PAIRS, DISK_WRITTEN, DISK_UNWRITTEN, DISK_RING, DISK_REGISTERED, DISKS };

static const struct load {
    const char *name;
    bool deletes;
    enum kith_durability durability;
    unsigned in_flight;
} loads[LOADS] = {
    { "delete", true, KITH_DURABILITY_DURABLE, IN_FLIGHT },
    { "upsert", false, KITH_DURABILITY_DURABLE, IN_FLIGHT },
    { "upsert, applied", false, KITH_DURABILITY_APPLIED, IN_FLIGHT },
    { "upsert, none", false, KITH_DURABILITY_NONE, IN_FLIGHT },
    { "delete, one at a time", true, KITH_DURABILITY_DURABLE, 1 },
    { "upsert, one at a time", false, KITH_DURABILITY_DURABLE, 1 },
    { "upsert, applied, one at a time", false, KITH_DURABILITY_APPLIED, 1 },
    { "upsert, none, one at a time", false, KITH_DURABILITY_NONE, 1 },
};

#define COLLECTION "log"

static const char *const io_names[] = { "uring", "threads" };
static const char *const disk_names[] = {
    "fio: write and fdatasync",
    "write and fdatasync",
    "O_DIRECT, RWF_DSYNC, space written before",
    "O_DIRECT, RWF_DSYNC, space never written",
    "by io_uring, space written before",
    "the same, buffer registered",
};

/* What one turn came to. */
struct turn {
    double groups_s, requests_s;
    double requests; /* of a group */
    double bytes;    /* of a group in the log's file */
    double writes;   /* each with a flush, of a group */
    double p50_ms, p99_ms;
};

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % below);
}

static void draw_vector(float v[DIM])
{
    for (unsigned i = 0; i < DIM; i++)
        v[i] = (float)draw(1u << 20) / (float)(1u << 20);
}

/* ---- kithd ---- */

static uint64_t counter(const char *json, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(json, quoted);
    if (!at)
        bench_die("kithd tells no %s", key);
    return strtoull(at + strlen(quoted), NULL, 10);
}

struct counters {
    uint64_t groups, writes, bytes;
};

static struct counters counters_of(kith *k, const char *io)
{
    char *json = NULL;
    char named[32];
    int r = kith_daemon_stats(k, &json);
    if (r < 0)
        bench_die("statistics: %s", kith_strerror(r));
    snprintf(named, sizeof named, "\"io\":\"%s\"", io);
    if (!strstr(json, named))
        bench_die("kithd was to use %s, and does not", io);
    struct counters c = { counter(json, "wal_groups"), counter(json, "wal_writes"),
                          counter(json, "wal_bytes") };
    free(json);
    return c;
}

static kith *collection(const struct bench_daemon *d)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_error error = { 0 };
    kith *k = NULL;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.m = 2;
    create.ef_construction = 4;
    create.run_dir = opts.run_dir = d->run_dir;
    create.error = &error;
    int r = kith_create(COLLECTION, &create);
    if (r == 0)
        r = kith_open(COLLECTION, &opts, &k);
    if (r < 0)
        bench_die("%s: %s", COLLECTION, error.text[0] ? error.text : kith_strerror(r));
    return k;
}

static void fill(kith *k, uint32_t count)
{
    kith_batch *b = kith_batch_new(k);
    for (uint32_t i = 0; i < count; i++) {
        char id[16];
        float v[DIM];
        snprintf(id, sizeof id, "%u", i);
        draw_vector(v);
        int r = kith_batch_upsert(b, id, v, DIM);
        if (r == 0 && (kith_batch_count(b) == FILL_BATCH || i + 1 == count)) {
            r = kith_batch_commit(b, NULL);
            kith_batch_clear(b);
        }
        if (r < 0)
            bench_die("filling: %s", kith_strerror(r));
    }
    kith_batch_free(b);
}

/* Requests by one connection, so many at a time, for so many seconds, or until there is nothing left to delete. */
static struct turn kithd_turn(const struct bench_daemon *d, const char *io, const struct load *load,
                              double seconds)
{
    struct bench_histogram *h = calloc(1, sizeof *h);
    uint64_t sent_ns[IN_FLIGHT], sent = 0, answered = 0;
    kith *k = collection(d);
    kith_pipe *pipe = NULL;
    kith_batch *b = kith_batch_new(k);
    fill(k, load->deletes ? DELETES : IDS);
    if (!h || !b || kith_pipe_open(k, load->in_flight, &pipe) < 0 ||
        kith_batch_set_durability(b, load->durability) < 0)
        bench_die("a pipe cannot be opened");
    const struct counters before = counters_of(k, io);
    const uint64_t begin = bench_now_ns(), end = begin + (uint64_t)(seconds * 1e9);
    const uint64_t most = load->deletes ? DELETES : UINT64_MAX;
    uint64_t now = begin;
    uint64_t free_tokens[IN_FLIGHT], free_count = load->in_flight;
    for (unsigned i = 0; i < load->in_flight; i++)
        free_tokens[i] = i;
    while ((now < end && sent < most) || answered < sent) {
        while (now < end && sent < most && free_count > 0) {
            char id[16];
            float v[DIM];
            uint64_t token = free_tokens[--free_count];
            kith_batch_clear(b);
            snprintf(id, sizeof id, "%u", load->deletes ? (unsigned)sent : draw(IDS));
            draw_vector(v);
            int r = load->deletes ? kith_batch_delete(b, id) : kith_batch_upsert(b, id, v, DIM);
            sent_ns[token] = bench_now_ns();
            if (r == 0)
                r = kith_pipe_submit(pipe, b, token);
            if (r < 0)
                bench_die("request %" PRIu64 ": %s", sent, kith_strerror(r));
            sent++;
        }
        uint64_t token;
        int status;
        int r = kith_pipe_next(pipe, -1, &token, &status, NULL);
        if (r != 1 || status < 0)
            bench_die("answer: %s", kith_strerror(r < 0 ? r : status));
        now = bench_now_ns();
        bench_histogram_add(h, now - sent_ns[token]);
        free_tokens[free_count++] = token;
        answered++;
    }
    const double s = (double)(bench_now_ns() - begin) / 1e9;
    const struct counters after = counters_of(k, io);
    const double groups = (double)(after.groups - before.groups);
    struct turn t = {
        .groups_s = groups / s,
        .requests_s = (double)answered / s,
        .requests = (double)answered / groups,
        .bytes = (double)(after.bytes - before.bytes) / groups,
        .writes = (double)(after.writes - before.writes) / groups,
        .p50_ms = (double)bench_histogram_at(h, 0.5) / 1e6,
        .p99_ms = (double)bench_histogram_at(h, 0.99) / 1e6,
    };
    free(h);
    kith_batch_free(b);
    kith_pipe_close(pipe);
    kith_close(k);
    struct kith_error error = { 0 };
    if (kith_drop(COLLECTION, d->run_dir, &error) < 0)
        bench_die("drop: %s", error.text);
    return t;
}

/* ---- the disk ---- */

static int disk_file(const struct bench_daemon *d, bool direct, bool written)
{
    char path[400];
    void *zeros = NULL;
    snprintf(path, sizeof path, "%s/pairs", d->data_dir);
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (direct ? O_DIRECT : 0), 0600);
    if (fd < 0 || fallocate(fd, 0, 0, FILE_BYTES) != 0 || posix_memalign(&zeros, BLOCK, 1u << 20) != 0)
        bench_die("%s: %s", path, strerror(errno));
    memset(zeros, 0, 1u << 20);
    for (uint64_t off = 0; written && off < FILE_BYTES; off += 1u << 20)
        if (pwrite(fd, zeros, 1u << 20, (off_t)off) != 1 << 20)
            bench_die("%s: %s", path, strerror(errno));
    if (fsync(fd) != 0)
        bench_die("%s: %s", path, strerror(errno));
    free(zeros);
    return fd;
}

static void ring_done(struct kithi_io_op *op, int result)
{
    *(int *)op->arg = result;
}

/* One write by kithd's own loop; its result. */
static ssize_t ring_write(struct kithi_io *io, int fd, const void *buf, size_t size, uint64_t off)
{
    int result = INT32_MIN;
    struct kithi_io_op op = { .done = ring_done, .arg = &result };
    kithi_io_write_durable(io, &op, fd, buf, size, off);
    while (result == INT32_MIN && kithi_io_run(io, -1) >= 0)
        ;
    return result;
}

/* Writes a second, each durable before the next, and the CPU time of one in *out_us. A file is written from its beginning to its end once. */
static double disk_turn(const struct bench_daemon *d, unsigned kind, size_t size, double seconds,
                        double *out_us)
{
    const bool direct = kind != DISK_PAIRS, ring = kind == DISK_RING || kind == DISK_REGISTERED;
    struct kithi_io *io = NULL;
    struct kithi_errmsg err;
    uint64_t cpu = 0;
    void *buf = NULL;
    if (posix_memalign(&buf, BLOCK, size) != 0)
        bench_die("out of memory");
    memset(buf, 0x5a, size);
    if (ring && kithi_io_open(KITHI_IO_URING, &io, &err) < 0)
        bench_die("%s", err.text);
    if (kind == DISK_REGISTERED)
        kithi_io_register_memory(io, buf, size);
    uint64_t count = 0, spent = 0;
    int fd = -1;
    for (uint64_t off = 0; spent < (uint64_t)(seconds * 1e9); off += size) {
        if (fd < 0 || off + size > FILE_BYTES) {
            if (fd >= 0 && ring)
                kithi_io_close(io, fd);
            else if (fd >= 0)
                close(fd);
            fd = disk_file(d, direct, kind != DISK_UNWRITTEN);
            off = 0;
        }
        struct iovec v = { buf, size };
        uint64_t begin = bench_now_ns(), cpu_begin = bench_cpu_ns();
        ssize_t n = ring     ? ring_write(io, fd, buf, size, off)
                    : direct ? pwritev2(fd, &v, 1, (off_t)off, RWF_DSYNC)
                             : pwrite(fd, buf, size, (off_t)off);
        if (n != (ssize_t)size || (!direct && fdatasync(fd) != 0))
            bench_die("writing beside kithd's data: %s", strerror(errno));
        spent += bench_now_ns() - begin;
        cpu += bench_cpu_ns() - cpu_begin;
        count++;
    }
    if (ring)
        kithi_io_close(io, fd);
    else
        close(fd);
    if (kind == DISK_REGISTERED)
        kithi_io_unregister_memory(io, buf);
    kithi_io_free(io);
    free(buf);
    *out_us = (double)cpu / (double)count / 1e3;
    return (double)count / ((double)spent / 1e9);
}

/* The same by fio; 0 where it is not installed. */
static double fio_turn(const struct bench_daemon *d, size_t size, double seconds)
{
    char command[1200], line[4096];
    snprintf(command, sizeof command,
             "fio --name=pairs --filename='%s/fio' --rw=write --bs=%zu --size=%u --overwrite=1 --fdatasync=1 "
             "--ioengine=psync --time_based --runtime=%.0f --minimal 2>/dev/null",
             d->data_dir, size, FILE_BYTES, seconds < 1 ? 1 : seconds);
    FILE *f = popen(command, "r");
    double iops = 0;
    while (f && fgets(line, sizeof line, f)) {
        char *at = line;
        for (unsigned field = 1; field < 49 && at; field++) /* terse version 3: of writes */
            at = strchr(at, ';') ? strchr(at, ';') + 1 : NULL;
        if (line[0] == '3' && at)
            iops = strtod(at, NULL);
    }
    if (f)
        pclose(f);
    return iops;
}

/* ---- the table ---- */

struct columns {
    struct turn *turns[IOS][LOADS];
    double *disk[DISK_LOADS][DISKS];
    double *cpu_us[DISK_LOADS][DISKS]; /* of this program's thread, for a write */
};

static double of_turns(const struct turn *t, unsigned rounds, size_t field)
{
    double *v = bench_alloc(sizeof(double) * rounds);
    for (unsigned r = 0; r < rounds; r++)
        memcpy(&v[r], (const char *)&t[r] + field, sizeof v[r]);
    double m = bench_median(v, rounds);
    free(v);
    return m;
}

#define OF(turns, rounds, field) of_turns(turns, rounds, offsetof(struct turn, field))

/* Median of a/b round by round, with its ends. */
static double ratio(const double *a, const double *b, unsigned rounds, double *out_min, double *out_max)
{
    double *v = bench_alloc(sizeof(double) * rounds);
    for (unsigned r = 0; r < rounds; r++)
        v[r] = b[r] > 0 ? a[r] / b[r] : 0;
    double m = bench_median(v, rounds);
    *out_min = v[0];
    *out_max = v[rounds - 1];
    free(v);
    return m;
}

static double groups_ratio(const struct turn *t, const double *disk, unsigned rounds, double *out_min,
                           double *out_max)
{
    double *groups = bench_alloc(sizeof(double) * rounds);
    for (unsigned r = 0; r < rounds; r++)
        groups[r] = t[r].groups_s;
    double m = ratio(groups, disk, rounds, out_min, out_max);
    free(groups);
    return m;
}

static void print(const struct columns *c, unsigned rounds, bool fio, FILE *json)
{
    const unsigned reference = fio ? DISK_FIO : DISK_PAIRS;
    double min, max;
    char machine[512];
    bench_machine(machine, sizeof machine);
    printf(
        "| load, kithd by | groups/s | to %s (rounds) | requests a group | requests/s | flushes a group | bytes "
        "of changes a group | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        disk_names[reference]);
    if (json)
        fprintf(json, "[\n");
    for (unsigned load = 0; load < LOADS; load++)
        for (unsigned io = 0; io < IOS; io++) {
            const struct turn *t = c->turns[io][load];
            double m = 0;
            printf("| %s, %s | %.0f | ", loads[load].name, io_names[io], OF(t, rounds, groups_s));
            if (load < DISK_LOADS) {
                m = groups_ratio(t, c->disk[load][reference], rounds, &min, &max);
                printf("%.2f (%.2f - %.2f)", m, min, max);
            }
            printf(" | %.1f | %.0f | %.3f | %.0f | %.3f | %.2f |\n", OF(t, rounds, requests),
                   OF(t, rounds, requests_s), OF(t, rounds, writes), OF(t, rounds, bytes),
                   OF(t, rounds, p50_ms), OF(t, rounds, p99_ms));
            if (json)
                fprintf(
                    json,
                    "{\"load\": \"%s\", \"io\": \"%s\", \"groups_s\": %.1f, \"to\": \"%s\", \"ratio\": %.4f, "
                    "\"requests_a_group\": %.2f, \"requests_s\": %.1f, \"flushes_a_group\": %.4f, "
                    "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"rounds\": %u, \"machine\": \"%s\"}%s",
                    loads[load].name, io_names[io], OF(t, rounds, groups_s), disk_names[reference], m,
                    OF(t, rounds, requests), OF(t, rounds, requests_s), OF(t, rounds, writes),
                    OF(t, rounds, p50_ms), OF(t, rounds, p99_ms), rounds, machine,
                    load + 1 < LOADS || io + 1 < IOS ? ",\n" : "\n]\n");
        }
    printf("\n| the disk alone, at the size of a group | delete: writes/s | to %s (rounds) | CPU us a write "
           "| upsert: writes/s | to %s (rounds) | CPU us a write |\n|---|---:|---:|---:|---:|---:|---:|\n",
           disk_names[reference], disk_names[reference]);
    for (unsigned k = fio ? 0 : DISK_PAIRS; k < DISKS; k++) {
        printf("| %s ", disk_names[k]);
        for (unsigned load = 0; load < DISK_LOADS; load++) {
            double *copy = bench_alloc(sizeof(double) * rounds);
            memcpy(copy, c->disk[load][k], sizeof(double) * rounds);
            double m = ratio(c->disk[load][k], c->disk[load][reference], rounds, &min, &max);
            printf("| %.0f | %.2f (%.2f - %.2f) ", bench_median(copy, rounds), m, min, max);
            memcpy(copy, c->cpu_us[load][k], sizeof(double) * rounds);
            if (k == DISK_FIO)
                printf("| ");
            else
                printf("| %.1f ", bench_median(copy, rounds));
            free(copy);
        }
        printf("|\n");
    }
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "none", "", 5, 2 };
    struct bench_options opts;
    bench_options_parse(
        argc, argv, "bench_log [OPTIONS]: groups a second where only the log has work, beside the disk alone",
        &defaults, &opts);
    struct bench_daemon daemons[IOS];
    for (unsigned io = 0; io < IOS; io++) {
        setenv("KITH_IO", io_names[io], 1);
        bench_daemon_start(&daemons[io], opts.threads);
    }
    unsetenv("KITH_IO");
    struct columns c;
    for (unsigned load = 0; load < LOADS; load++) {
        for (unsigned io = 0; io < IOS; io++)
            c.turns[io][load] = bench_alloc(sizeof(struct turn) * opts.rounds);
        for (unsigned k = 0; load < DISK_LOADS && k < DISKS; k++) {
            c.disk[load][k] = bench_alloc(sizeof(double) * opts.rounds);
            c.cpu_us[load][k] = bench_alloc(sizeof(double) * opts.rounds);
        }
    }
    bool fio = true;
    for (unsigned r = 0; r < opts.rounds; r++)
        for (unsigned load = 0; load < LOADS; load++) {
            size_t size = BLOCK;
            for (unsigned i = 0; i < IOS; i++) {
                unsigned io = (i + r) % IOS;
                struct turn *t = &c.turns[io][load][r];
                *t = kithd_turn(&daemons[io], io_names[io], &loads[load], opts.seconds);
                if (i == 0) /* header and ops, up to a whole block */
                    size = ((size_t)t->bytes + 128 + BLOCK - 1) / BLOCK * BLOCK;
                fprintf(
                    stderr,
                    "bench: round %u: %s, %s: %.0f groups/s of %.1f requests, %.3f flushes and %.0f bytes each, "
                    "p50 %.2f ms, p99 %.2f ms\n",
                    r + 1, loads[load].name, io_names[io], t->groups_s, t->requests, t->writes, t->bytes,
                    t->p50_ms, t->p99_ms);
                if (i == 0 && load < DISK_LOADS) { /* the disk in between */
                    for (unsigned k = 0; k < DISKS; k++) {
                        unsigned turn = (k + r) % DISKS;
                        c.disk[load][turn][r] =
                            turn == DISK_FIO
                                ? fio_turn(&daemons[0], size, opts.seconds)
                                : disk_turn(&daemons[0], turn, size, opts.seconds, &c.cpu_us[load][turn][r]);
                        fprintf(stderr, "bench: round %u: %s of %zu bytes: %.0f/s\n", r + 1, disk_names[turn],
                                size, c.disk[load][turn][r]);
                    }
                    fio = fio && c.disk[load][DISK_FIO][r] > 0;
                }
            }
        }
    for (unsigned io = IOS; io-- > 0;) /* the later one's keeper holds the earlier one's leash, too */
        bench_daemon_stop(&daemons[io]);
    FILE *json = NULL;
    if (opts.json && !(json = fopen(opts.json, "w")))
        bench_die("%s cannot be written", opts.json);
    printf(
        "\n%u requests in flight where no other number is told, one connection, medians of %u interleaved rounds of %.1f s%s\n\n",
        IN_FLIGHT, opts.rounds, opts.seconds, fio ? "" : "; fio is not installed");
    print(&c, opts.rounds, fio, json);
    if (json && fclose(json) != 0)
        bench_die("%s cannot be written", opts.json);
    return 0;
}
