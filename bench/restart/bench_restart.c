/*
 * bench_restart.c - what a checkpoint costs, and how soon a collection is there again: cold from a checkpoint, cold from the
 * log, and warm, with the segment that a killed kithd left.
 *
 * Cold: kithd is killed, the segment removed, kithd started; the time ends when a search in this process, which looks for
 * the segment again and again, gives its first answer. Beside it the same checkpoint is read from beginning to end with
 * O_DIRECT, in turns. Warm: kithd is killed and started; the time ends with the acknowledgement of a write.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/machine.h"

#define READ_BYTES (4u << 20)
#define PATIENCE_S 600.0

struct collection {
    struct bench_daemon daemon;
    struct bench_set set;
    const struct bench_options *opts;
    const struct bench_config *config;
};

static double seconds_since(uint64_t begin)
{
    return (double)(bench_now_ns() - begin) / 1e9;
}

static int attach(const struct collection *c, kith **out)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = c->daemon.run_dir;
    return kith_open(c->config->name, &opts, out);
}

/* Seconds from now until a search is answered by a segment that is attached anew. */
static double until_searched(const struct collection *c, uint64_t begin)
{
    kith_results *r = kith_results_new();
    kith *k = NULL;
    while (attach(c, &k) < 0 ||
           kith_search(k, bench_set_query(&c->set, 0), c->set.dim, c->opts->k, NULL, r) <= 0) {
        kith_close(k);
        k = NULL;
        if (seconds_since(begin) > PATIENCE_S)
            bench_die("%s does not come back", c->config->name);
        poll(NULL, 0, 1);
    }
    double s = seconds_since(begin);
    kith_close(k);
    kith_results_free(r);
    return s;
}

/* Seconds from now until a write is acknowledged. */
static double until_acked(const struct collection *c, uint64_t begin)
{
    kith *k;
    int rc = attach(c, &k);
    if (rc < 0)
        bench_die("%s: %s", c->config->name, kith_strerror(rc));
    while ((rc = kith_upsert(k, "0", bench_set_base(&c->set, 0), c->set.dim, NULL)) < 0) {
        if (seconds_since(begin) > PATIENCE_S)
            bench_die("a write: %s", kith_strerror(rc));
        poll(NULL, 0, 1);
    }
    double s = seconds_since(begin);
    kith_close(k);
    return s;
}

static void lose_segment(const struct collection *c)
{
    char path[400];
    snprintf(path, sizeof(path), "%s/%s/segment", c->daemon.run_dir, c->config->name);
    if (unlink(path) != 0)
        bench_die("%s: %s", path, strerror(errno));
}

static void checkpoint_path(const struct collection *c, uint64_t epoch, char out[400])
{
    snprintf(out, 400, "%s/data/%s/checkpoint-%020" PRIu64, c->daemon.data_dir, c->config->name, epoch);
}

static uint64_t checkpoint(const struct collection *c)
{
    struct kith_error error = { 0 };
    uint64_t epoch = 0;
    kith *k;
    int rc = attach(c, &k);
    if (rc == 0)
        rc = kith_checkpoint(k, &epoch, &error);
    if (rc < 0)
        bench_die("checkpoint: %s", error.text[0] ? error.text : kith_strerror(rc));
    kith_close(k);
    return epoch;
}

/* Read a file from beginning to end, past the page cache; its bytes in *out_bytes. */
static double plain_read(const char *path, uint64_t *out_bytes)
{
    void *buf = NULL;
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || posix_memalign(&buf, 4096, READ_BYTES) != 0)
        bench_die("%s: %s", path, strerror(errno));
    uint64_t begin = bench_now_ns();
    *out_bytes = 0;
    for (ssize_t n; (n = read(fd, buf, READ_BYTES)) > 0;)
        *out_bytes += (uint64_t)n;
    double s = seconds_since(begin);
    close(fd);
    free(buf);
    return s;
}

struct rounds {
    double *plain, *cold, *warm, *taken;
};

static double median(double *v, unsigned n)
{
    return bench_median(v, n);
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 7, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv, "bench_restart [OPTIONS] [SET]: checkpoints, cold and warm starts",
                        &defaults, &opts);
    struct collection c = { .opts = &opts, .config = &opts.configs[0] };
    bench_set_open(&opts, &c.set);
    bench_daemon_start(&c.daemon, opts.threads);
    bench_daemon_create(&c.daemon, &c.set, &opts, c.config);
    double load_s = bench_daemon_load(&c.daemon, &c.set, c.config);

    struct rounds r = { bench_alloc(sizeof(double) * opts.rounds), bench_alloc(sizeof(double) * opts.rounds),
                        bench_alloc(sizeof(double) * opts.rounds),
                        bench_alloc(sizeof(double) * opts.rounds) };
    uint64_t bytes = 0, epoch;
    char path[400];
    for (unsigned i = 0; i < opts.rounds; i++) {
        bench_daemon_settle(&c.daemon);
        (void)until_acked(&c, bench_now_ns()); /* so that there is something new */
        uint64_t begin = bench_now_ns();
        epoch = checkpoint(&c);
        r.taken[i] = seconds_since(begin);
        checkpoint_path(&c, epoch, path);
        r.plain[i] = plain_read(path, &bytes);

        bench_daemon_kill(&c.daemon);
        lose_segment(&c);
        begin = bench_now_ns();
        bench_daemon_again(&c.daemon);
        r.cold[i] = until_searched(&c, begin);
        (void)until_acked(&c, begin);

        bench_daemon_kill(&c.daemon);
        begin = bench_now_ns();
        bench_daemon_again(&c.daemon);
        r.warm[i] = until_acked(&c, begin);
    }
    double plain = median(r.plain, opts.rounds), cold = median(r.cold, opts.rounds),
           mib = (double)bytes / (1 << 20);
    double taken = median(r.taken, opts.rounds), warm = median(r.warm, opts.rounds);
    char machine[512];
    bench_machine(machine, sizeof(machine));
    printf(
        "\n%s: %u x %u, quantization %s, checkpoint of %.0f MiB; medians of %u rounds, lowest and highest\n\n",
        c.set.name, c.set.base_count, c.set.dim, c.config->name, mib, opts.rounds);
    printf("| | ms | MiB/s | to plain reading |\n|---|---:|---:|---:|\n");
    printf("| reading the checkpoint, O_DIRECT | %.0f (%.0f - %.0f) | %.0f | 1.00 |\n", plain * 1e3,
           r.plain[0] * 1e3, r.plain[opts.rounds - 1] * 1e3, mib / plain);
    printf("| cold start, until the first search is answered | %.0f (%.0f - %.0f) | %.0f | %.2f |\n",
           cold * 1e3, r.cold[0] * 1e3, r.cold[opts.rounds - 1] * 1e3, mib / cold, plain / cold);
    printf("| warm start, until the first write is acknowledged | %.0f (%.0f - %.0f) | | |\n", warm * 1e3,
           r.warm[0] * 1e3, r.warm[opts.rounds - 1] * 1e3);
    printf("| writing a checkpoint, nobody else at work | %.0f (%.0f - %.0f) | %.0f | |\n", taken * 1e3,
           r.taken[0] * 1e3, r.taken[opts.rounds - 1] * 1e3, mib / taken);
    printf("| loading the set | %.0f | | |\n", load_s * 1e3);
    if (opts.json) {
        FILE *f = fopen(opts.json, "w");
        if (!f)
            bench_die("%s: %s", opts.json, strerror(errno));
        fprintf(
            f,
            "[{\"set\": \"%s\", \"quantization\": \"%s\", \"vectors\": %u, \"bytes\": %" PRIu64
            ", \"plain_s\": %.6f, \"cold_s\": %.6f, \"warm_s\": %.6f, \"checkpoint_s\": %.6f, \"load_s\": %.6f, "
            "\"rounds\": %u, \"machine\": \"%s\"}]\n",
            c.set.name, c.config->name, c.set.base_count, bytes, plain, cold, median(r.warm, opts.rounds),
            taken, load_s, opts.rounds, machine);
        if (fclose(f) != 0)
            bench_die("%s: %s", opts.json, strerror(errno));
    }
    free(r.plain);
    free(r.cold);
    free(r.warm);
    free(r.taken);
    bench_set_close(&c.set);
    bench_daemon_stop(&c.daemon);
    return 0;
}
