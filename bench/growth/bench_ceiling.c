/*
 * bench_ceiling.c - what a collection that begins with room for a thousand vectors, and grows with what is written, costs
 * whoever writes and searches meanwhile.
 *
 * One process writes batches, each after the answer to the one before, and notes how long each took; another one
 * searches for vectors that are there. What the daemon says of each growth is taken from its log.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/histogram.h"
#include "bench/common/machine.h"

#define NAME       "growing"
#define FIRST      1000u /* slots */
#define BATCH      64u
#define GROWTH_MAX 64u
#define AFTER_NS   20000000u /* behind the switch */

struct shared {
    _Atomic uint32_t written;
    _Atomic bool stop;
    _Atomic uint64_t searches, failed;
    struct bench_histogram latency;
};

struct growth {
    uint64_t at_ns; /* when the writer saw it */
    uint64_t from, to, live, copy_ms, hold_us, copied;
    uint64_t longest_ns;
};

struct batch {
    uint64_t end_ns, ns;
};

static void create(const struct bench_daemon *d, const struct bench_set *set, const struct bench_options *o)
{
    struct kith_error error = { 0 };
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    opts.dim = set->dim;
    opts.metric = set->metric;
    opts.m = o->m;
    opts.ef_construction = o->ef_construction;
    opts.quantization = o->configs[0].quantization;
    opts.keep = o->configs[0].keep;
    opts.max_vectors = FIRST;
    opts.run_dir = d->run_dir;
    opts.error = &error;
    if (kith_create(NAME, &opts) < 0)
        bench_die("%s", error.text);
}

static kith *attach(const struct bench_daemon *d)
{
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    opts.run_dir = d->run_dir;
    opts.error = &error;
    if (kith_open(NAME, &opts, &index) < 0)
        bench_die("%s", error.text);
    return index;
}

static void read_all(struct shared *s, const struct bench_daemon *d, const struct bench_set *set, uint32_t k)
{
    kith *index = attach(d);
    kith_results *results = kith_results_new();
    uint64_t random = 88172645463325252u;
    while (!atomic_load(&s->stop)) {
        uint32_t written = atomic_load(&s->written);
        if (written < k)
            continue;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint64_t began = bench_now_ns();
        int n = kith_search(index, bench_set_base(set, random % written), set->dim, k, NULL, results);
        bench_histogram_add(&s->latency, bench_now_ns() - began);
        atomic_fetch_add(&s->searches, 1);
        if (n != (int)k)
            atomic_fetch_add(&s->failed, 1);
    }
    kith_results_free(results);
    kith_close(index);
}

/* What the log says of growths, in their order. */
static unsigned read_log(const struct bench_daemon *d, struct growth *out)
{
    char path[320], line[1024];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/kithd.log", d->data_dir);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f) && n < GROWTH_MAX) {
        const char *at = strstr(line, "event=growth ");
        unsigned long long from, to, live, copied, copy_ms, hold_us;
        if (!at || !(at = strstr(at, "from=")) ||
            sscanf(
                at,
                "from=%llu to=%llu generation=%*u epoch=%*u live=%llu copied_bytes=%llu copy_ms=%llu hold_us=%llu",
                &from, &to, &live, &copied, &copy_ms, &hold_us) != 6)
            continue;
        out[n].from = from;
        out[n].to = to;
        out[n].live = live;
        out[n].copied = copied;
        out[n].copy_ms = copy_ms;
        out[n++].hold_us = hold_us;
    }
    if (f)
        fclose(f);
    return n;
}

static void find_longest(struct growth *g, const struct batch *batches, uint32_t n)
{
    uint64_t from = g->at_ns - (g->copy_ms + 1) * 1000000 - AFTER_NS;
    for (uint32_t i = 0; i < n; i++)
        if (batches[i].end_ns >= from && batches[i].end_ns - batches[i].ns <= g->at_ns + AFTER_NS &&
            batches[i].ns > g->longest_ns)
            g->longest_ns = batches[i].ns;
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "none", "", 1, 60 };
    struct bench_options opts;
    bench_options_parse(
        argc, argv, "bench_ceiling [OPTIONS] [SET]: growth from --max-vectors 1000 to the last of --sizes",
        &defaults, &opts);
    uint32_t total = opts.sizes[opts.size_count - 1] / BATCH * BATCH, batch_count = 0, failed = 0;
    struct bench_set whole, set;
    struct bench_daemon daemon;
    bench_set_open(&opts, &whole);
    bench_set_resize(&whole, total, 1, &set);
    bench_daemon_start(&daemon, opts.threads);
    create(&daemon, &set, &opts);

    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        bench_die("out of memory");
    pid_t reader = fork();
    if (reader == 0) {
        read_all(s, &daemon, &set, opts.k);
        _exit(0);
    }

    static struct growth growths[GROWTH_MAX];
    static struct bench_histogram latency;
    struct batch *batches = bench_alloc((total / BATCH + 1) * sizeof *batches);
    kith *index = attach(&daemon);
    kith_batch *b = kith_batch_new(index);
    unsigned seen = 0;
    uint64_t generation = 0, began = bench_now_ns();
    for (uint32_t at = 0; at < total; at += BATCH) {
        struct kith_commit commit = KITH_COMMIT_INIT;
        kith_batch_clear(b);
        for (uint32_t i = at; i < at + BATCH; i++) {
            char id[16];
            snprintf(id, sizeof id, "%u", i);
            if (kith_batch_upsert(b, id, bench_set_base(&set, i), set.dim) < 0)
                bench_die("out of memory");
        }
        uint64_t sent = bench_now_ns();
        int rc = kith_batch_commit(b, &commit);
        uint64_t now = bench_now_ns();
        if (rc < 0) {
            fprintf(stderr, "bench: %s\n", commit.error.text);
            failed++;
        }
        batches[batch_count++] = (struct batch){ now, now - sent };
        bench_histogram_add(&latency, now - sent);
        atomic_store(&s->written, at + BATCH);
        struct kith_stats stats = KITH_STATS_INIT;
        if (kith_stats(index, &stats) == 0 && stats.generation != generation) {
            if (generation && seen < GROWTH_MAX)
                growths[seen++].at_ns = now;
            generation = stats.generation;
        }
    }
    double seconds = (double)(bench_now_ns() - began) / 1e9;
    atomic_store(&s->stop, true);
    waitpid(reader, NULL, 0);

    char machine[512];
    bench_machine(machine, sizeof machine);
    unsigned logged = read_log(&daemon, growths), n = logged < seen ? logged : seen;
    printf(
        "\n%s: %u x %u, quantization %s, %u insertion threads, one reader (k = %u); one writer, %u vectors a batch, each durable before "
        "the next\n%s\n\n",
        set.name, total, set.dim, opts.configs[0].name, opts.threads, opts.k, BATCH, machine);
    printf(
        "| from | to | vectors | copied MiB | copy ms | hold ms | longest write ms |\n|---:|---:|---:|---:|---:|---:|---:|\n");
    for (unsigned i = 0; i < n; i++) {
        struct growth *g = &growths[i];
        find_longest(g, batches, batch_count);
        printf("| %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %.1f | %" PRIu64 " | %.2f | %.1f |\n", g->from,
               g->to, g->live, (double)g->copied / (1 << 20), g->copy_ms, (double)g->hold_us / 1e3,
               (double)g->longest_ns / 1e6);
    }
    printf(
        "\nWrites: %.0f vectors/s, %u failed; a batch p50 %.1f ms, p99 %.1f ms, longest %.1f ms. Searches: %llu, %llu failed; p50 %.0f us, "
        "p99 %.0f us, longest %.1f ms. %u growths, %u seen between two batches.\n",
        total / seconds, failed, (double)bench_histogram_at(&latency, 0.5) / 1e6,
        (double)bench_histogram_at(&latency, 0.99) / 1e6, (double)latency.max / 1e6,
        (unsigned long long)atomic_load(&s->searches), (unsigned long long)atomic_load(&s->failed),
        (double)bench_histogram_at(&s->latency, 0.5) / 1e3,
        (double)bench_histogram_at(&s->latency, 0.99) / 1e3, (double)s->latency.max / 1e6, logged, seen);
    bool good = failed == 0 && atomic_load(&s->failed) == 0;
    kith_batch_free(b);
    kith_close(index);
    free(batches);
    bench_set_close(&set);
    bench_set_close(&whole);
    bench_daemon_stop(&daemon);
    return good ? 0 : 1;
}
