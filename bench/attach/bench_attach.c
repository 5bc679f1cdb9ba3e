/*
 * bench_attach.c - what attaching costs: time, private memory, page tables.
 *
 * Memory is measured in a process of its own, begun by exec, that holds nothing but libkith and
 * one query at a time: Private_Dirty of all mappings and Private_Clean of all but the segment,
 * from /proc/self/smaps, after a thousand searches.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"

#define SEARCHES 1000u
#define ATTACHES 101u
#define EF       100u

struct memory {
    long private_kib;
    long table_kib;   /* page tables of the process */
    long segment_kib; /* segment pages that it has mapped */
};

/* The kithi segment is the only mapping whose path ends so. */
static int is_segment(const char *line)
{
    const char *end = strstr(line, "/segment");
    return end && (end[8] == '\n' || end[8] == 0);
}

static struct memory measure(void)
{
    struct memory m = { 0, 0, 0 };
    char line[1024];
    int segment = 0;
    long kib;
    unsigned long from;
    unsigned long to;
    FILE *f = fopen("/proc/self/smaps", "r");
    if (!f)
        bench_die("/proc/self/smaps: %s", strerror(errno));
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            segment = is_segment(line);
        else if (sscanf(line, "Private_Dirty: %ld", &kib) == 1)
            m.private_kib += kib;
        else if (sscanf(line, "Private_Clean: %ld", &kib) == 1)
            m.private_kib += segment ? 0 : kib;
        else if (segment && sscanf(line, "Rss: %ld", &kib) == 1)
            m.segment_kib += kib;
    }
    fclose(f);
    f = fopen("/proc/self/status", "r");
    if (!f)
        bench_die("/proc/self/status: %s", strerror(errno));
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "VmPTE: %ld", &kib) == 1)
            m.table_kib = kib;
    }
    fclose(f);
    return m;
}

static kith *attach(const char *run_dir, const struct bench_config *config, unsigned prefault)
{
    kith *index;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run_dir;
    opts.prefault = prefault;
    int rc = kith_open(config->name, &opts, &index);
    if (rc < 0)
        bench_die("open: %s", kith_strerror(rc));
    return index;
}

/* The measured process: bench_attach --child, KITH_RUN set, queries as floats on standard input. */
static int child(const struct bench_config *config)
{
    struct memory before = measure();
    kith *index = attach(NULL, config, 0);
    struct memory attached = measure();
    uint32_t dim = kith_dim(index);
    float *query = bench_alloc(sizeof(float) * dim);
    kith_results *results = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = EF;
    unsigned searches = 0;
    while (fread(query, sizeof(float), dim, stdin) == dim) {
        int rc = kith_search(index, query, dim, 10, &opts, results);
        if (rc < 0)
            bench_die("search: %s", kith_strerror(rc));
        searches++;
    }
    struct memory searched = measure();
    kith_close(index);
    index = attach(NULL, config, 1);
    struct memory prefaulted = measure();
    kith_close(index);

    printf("| moment | private KiB | page tables KiB | segment mapped KiB |\n|---|---:|---:|---:|\n");
    printf("| before attaching | %ld | %ld | %ld |\n", before.private_kib, before.table_kib,
           before.segment_kib);
    printf("| attached | %ld | %ld | %ld |\n", attached.private_kib, attached.table_kib,
           attached.segment_kib);
    printf("| after %u searches, ef %u | %ld | %ld | %ld |\n", searches, EF, searched.private_kib,
           searched.table_kib, searched.segment_kib);
    printf("| with prefault | %ld | %ld | %ld |\n", prefaulted.private_kib, prefaulted.table_kib,
           prefaulted.segment_kib);
    kith_results_free(results);
    free(query);
    return 0;
}

static void run_child(const char *self, const struct bench_daemon *d, const struct bench_config *config,
                      const struct bench_set *set)
{
    char command[4200];
    setenv("KITH_RUN", d->run_dir, 1);
    snprintf(command, sizeof(command), "'%s' --child --quantization '%s'", self, config->name);
    fflush(NULL);
    FILE *f = popen(command, "w");
    if (!f)
        bench_die("popen: %s", strerror(errno));
    size_t n = set->query_count < SEARCHES ? set->query_count : SEARCHES;
    fwrite(set->query, sizeof(float) * set->dim, n, f);
    if (pclose(f) != 0)
        bench_die("the measured process failed");
}

struct attach_times {
    double open_us;
    double search_us; /* the first search, which faults in what it touches */
    double close_us;
};

static struct attach_times time_attach(const struct bench_daemon *d, const struct bench_config *config,
                                       const struct bench_set *set, unsigned prefault)
{
    double open_us[ATTACHES];
    double search_us[ATTACHES];
    double close_us[ATTACHES];
    kith_results *results = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = EF;
    for (unsigned i = 0; i < ATTACHES; i++) {
        uint64_t begin = bench_now_ns();
        kith *index = attach(d->run_dir, config, prefault);
        uint64_t opened = bench_now_ns();
        int rc = kith_search(index, bench_set_query(set, i % set->query_count), set->dim, 10, &opts, results);
        uint64_t searched = bench_now_ns();
        kith_close(index);
        uint64_t closed = bench_now_ns();
        if (rc < 0)
            bench_die("search: %s", kith_strerror(rc));
        open_us[i] = (double)(opened - begin) / 1e3;
        search_us[i] = (double)(searched - opened) / 1e3;
        close_us[i] = (double)(closed - searched) / 1e3;
    }
    kith_results_free(results);
    return (struct attach_times){ bench_median(open_us, ATTACHES), bench_median(search_us, ATTACHES),
                                  bench_median(close_us, ATTACHES) };
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 1, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv, "bench_attach [OPTIONS] [SET]: time and memory of an attached reader",
                        &defaults, &opts);
    if (opts.child)
        return child(&opts.configs[0]);
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len < 0)
        bench_die("/proc/self/exe: %s", strerror(errno));
    self[len] = 0;

    const struct bench_config *config = &opts.configs[0];
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(&opts, &set);
    bench_daemon_create(&daemon, &set, &opts, config);
    bench_daemon_load(&daemon, &set, config);
    printf("\n%s: %u x %u, quantization %s; medians of %u\n\n", set.name, set.base_count, set.dim,
           config->name, ATTACHES);
    printf("| | attach us | first search us | detach us |\n|---|---:|---:|---:|\n");
    for (unsigned prefault = 0; prefault < 2; prefault++) {
        struct attach_times t = time_attach(&daemon, config, &set, prefault);
        printf("| %s | %.0f | %.0f | %.0f |\n", prefault ? "with prefault" : "without", t.open_us,
               t.search_us, t.close_us);
    }
    printf("\n");
    run_child(self, &daemon, config, &set);
    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return 0;
}
