/*
 * bench_search.c - recall and rate of one reader through the mapped segments of a live kithd: a collection
 * for every configuration, and the peers, in one run.
 *
 * kithd builds with all CPUs. Before a search is timed it is pinned to a CPU that the reader does not use.
 */
#include <stdio.h>
#include <string.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/reader.h"
#include "bench/common/report.h"
#include "bench/peers/peers.h"

/* What the options ask for, and with --optimize before each of it the same, to be laid out anew once it is loaded. */
static unsigned configurations(const struct bench_options *opts, struct bench_config *out, bool *anew)
{
    unsigned n = 0;
    for (unsigned i = 0; i < opts->config_count; i++) {
        if (opts->optimize) {
            if (n + 2 > BENCH_CONFIG_MAX)
                bench_die("--optimize: at most %u configurations", BENCH_CONFIG_MAX / 2);
            anew[n] = true;
            out[n] = opts->configs[i];
            size_t len = strlen(out[n].name);
            snprintf(out[n++].name + len, sizeof out->name - len, "-optimized");
        }
        anew[n] = false;
        out[n++] = opts->configs[i];
    }
    return n;
}

static void optimize(const struct bench_daemon *d, const struct bench_config *config)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    struct kith_error error;
    kith *index;
    opts.run_dir = d->run_dir;
    int rc = kith_open(config->name, &opts, &index);
    if (rc < 0)
        bench_die("open %s: %s", config->name, kith_strerror(rc));
    if (kith_optimize(index, &info, &error) < 0)
        bench_die("optimize %s: %s", config->name, error.text);
    printf("%s: laid out anew in %.1f s, writes held up for %.1f ms\n", config->name,
           (double)info.took_ms / 1e3, (double)info.held_us / 1e3);
    kith_close(index);
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto,none", "hnswlib,faiss", 7, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_search [OPTIONS] [SET]: recall and rate of one reader of a live kithd",
                        &defaults, &opts);
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(&opts, &set);

    struct bench_engine engines[BENCH_ENGINE_MAX];
    struct bench_reader readers[BENCH_CONFIG_MAX];
    struct bench_config configs[BENCH_CONFIG_MAX];
    bool anew[BENCH_CONFIG_MAX];
    unsigned n = configurations(&opts, configs, anew);
    for (unsigned i = 0; i < n; i++) {
        const struct bench_config *config = &configs[i];
        bench_daemon_create(&daemon, &set, &opts, config);
        double seconds = bench_daemon_load(&daemon, &set, config);
        if (anew[i])
            optimize(&daemon, config);
        bench_daemon_settle(&daemon);
        bench_reader_open(&readers[i], &daemon, config, &engines[i]);
        engines[i].build_seconds = seconds;
        printf("%s: %u vectors in %.1f s by %u threads, %.0f a second; huge pages for %.0f of %.0f MiB\n",
               engines[i].name, set.base_count, seconds, opts.threads, set.base_count / seconds,
               (double)readers[i].stats.huge_bytes / (1u << 20),
               (double)readers[i].stats.huge_wanted_bytes / (1u << 20));
        fflush(stdout);
    }
    struct bench_peer peers[BENCH_PEER_MAX];
    unsigned peer_count = bench_peers_open(&set, &opts, peers, engines + n);
    bench_daemon_pin(&daemon, opts.daemon_cpu);
    printf("kithd is pinned to CPU %d, the reader to CPU %d.\n", opts.daemon_cpu, opts.cpu);

    struct bench_curve curve;
    bench_curve_measure(&set, &opts, engines, n + peer_count, &curve);
    bench_report(&set, &opts, engines, &curve);

    bench_curve_free(&curve);
    bench_peers_close(peers, peer_count);
    for (unsigned i = 0; i < n; i++)
        bench_reader_close(&readers[i]);
    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return 0;
}
