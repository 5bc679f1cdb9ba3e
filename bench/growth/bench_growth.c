/*
 * bench_growth.c - what happens to rate, memory and building while a collection grows, and what that says
 * about sizes that do not fit this machine.
 *
 * Every size is a set of its own with exact neighbours of its own, and the rate is taken at one recall: at a
 * fixed ef a larger set would look cheaper than it is.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/machine.h"
#include "bench/common/reader.h"
#include "bench/peers/peers.h"

#define RECALL     0.95
#define QUERY_MAX  500u
#define FIT_FROM   100000u /* below that much of a set is in the caches: another line */
#define FIT_POINTS 3u

static const uint32_t usual_ef[] = { 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 400 };
static const double far_sizes[] = { 1e7, 1e8 };
#define FAR_COUNT (sizeof(far_sizes) / sizeof(far_sizes[0]))

struct point {
    double qps; /* NaN: the widest ef does not reach the recall */
    double bytes_per_vector;
    double rate; /* vectors a second while building */
    double qps_min;
    double qps_max;
};

struct growth {
    struct bench_options opts;
    char names[BENCH_ENGINE_MAX][40];
    unsigned engine_count;
    struct point points[BENCH_SIZE_MAX][BENCH_ENGINE_MAX];
};

static void measure(struct growth *g, const struct bench_daemon *d, const struct bench_set *set,
                    struct point *out)
{
    const struct bench_options *o = &g->opts;
    struct bench_engine engines[BENCH_ENGINE_MAX];
    struct bench_reader readers[BENCH_CONFIG_MAX];
    struct bench_peer peers[BENCH_PEER_MAX];
    unsigned configs = o->config_count;
    for (unsigned i = 0; i < configs; i++) {
        bench_daemon_create(d, set, o, &o->configs[i]);
        double seconds = bench_daemon_load(d, set, &o->configs[i]);
        bench_daemon_settle(d);
        bench_reader_open(&readers[i], d, &o->configs[i], &engines[i]);
        engines[i].build_seconds = seconds;
    }
    unsigned peer_count = bench_peers_open(set, o, peers, engines + configs);
    g->engine_count = configs + peer_count;

    bench_daemon_pin(d, o->daemon_cpu);
    struct bench_curve curve;
    bench_curve_measure(set, o, engines, g->engine_count, &curve);
    double *v = bench_alloc(sizeof(double) * o->rounds);
    for (unsigned i = 0; i < g->engine_count; i++) {
        for (unsigned r = 0; r < o->rounds; r++)
            v[r] = bench_curve_qps_at(&curve, i, r, RECALL);
        memcpy(g->names[i], engines[i].name, sizeof(g->names[i]));
        out[i] = (struct point){
            .qps = bench_median(v, o->rounds),
            .bytes_per_vector = engines[i].bytes_per_vector,
            .rate = set->base_count / engines[i].build_seconds,
            .qps_min = v[0],
            .qps_max = v[o->rounds - 1],
        };
        fprintf(stderr, "bench: %u vectors, %s: %.0f searches/s, %.0f bytes a vector, built at %.0f/s\n",
                set->base_count, g->names[i], out[i].qps, out[i].bytes_per_vector, out[i].rate);
    }
    free(v);
    bench_curve_free(&curve);
    bench_peers_close(peers, peer_count);
    for (unsigned i = 0; i < configs; i++) {
        bench_reader_close(&readers[i]);
        bench_daemon_drop(d, &o->configs[i]);
    }
}

static void print_points(const struct growth *g)
{
    printf("| vectors |");
    for (unsigned i = 0; i < g->engine_count; i++)
        printf(" %s: QPS | bytes a vector | built, vectors/s |", g->names[i]);
    printf("\n|---:|");
    for (unsigned i = 0; i < g->engine_count; i++)
        printf("---:|---:|---:|");
    printf("\n");
    for (uint32_t s = 0; s < g->opts.size_count; s++) {
        printf("| %u |", g->opts.sizes[s]);
        for (unsigned i = 0; i < g->engine_count; i++) {
            const struct point *p = &g->points[s][i];
            if (isnan(p->qps))
                printf(" not reached |");
            else
                printf(" %.0f |", p->qps);
            printf(" %.0f | %.0f |", p->bytes_per_vector, p->rate);
        }
        printf("\n");
    }
}

/* A straight line through the logarithms, by least squares: a rate of 2^at at 1 vector, times 2^slope a doubling. */
struct line {
    double at;
    double slope;
    double worst;  /* largest factor between a point and the line */
    unsigned from; /* first size that counted */
};

static struct line fit(const struct growth *g, unsigned engine)
{
    struct line l = { 0 };
    unsigned n = g->opts.size_count;
    while (l.from + FIT_POINTS < n && g->opts.sizes[l.from] < FIT_FROM)
        l.from++;
    double count = n - l.from;
    double sx = 0;
    double sy = 0;
    double sxx = 0;
    double sxy = 0;
    for (unsigned s = l.from; s < n; s++) {
        double x = log2(g->opts.sizes[s]);
        double y = log2(g->points[s][engine].qps);
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
    }
    l.slope = (count * sxy - sx * sy) / (count * sxx - sx * sx);
    l.at = (sy - l.slope * sx) / count;
    l.worst = 1;
    for (unsigned s = l.from; s < n; s++) {
        double off = log2(g->points[s][engine].qps) - (l.at + l.slope * log2(g->opts.sizes[s]));
        l.worst = fmax(l.worst, exp2(fabs(off)));
    }
    return l;
}

static void print_fit(const struct growth *g)
{
    printf("\nA straight line through the logarithms, and what it says of sizes that were not measured:\n\n"
           "| | fitted from | QPS a doubling | point farthest off |");
    for (size_t i = 0; i < FAR_COUNT; i++)
        printf(" QPS at %.0fM | memory at %.0fM |", far_sizes[i] / 1e6, far_sizes[i] / 1e6);
    printf("\n|---|---:|---:|---:|");
    for (size_t i = 0; i < FAR_COUNT; i++)
        printf("---:|---:|");
    printf("\n");
    for (unsigned i = 0; i < g->engine_count; i++) {
        struct line l = fit(g, i);
        double bytes = g->points[g->opts.size_count - 1][i].bytes_per_vector;
        printf("| %s | %u | %.3f | %.0f %% |", g->names[i], g->opts.sizes[l.from], exp2(l.slope),
               (l.worst - 1) * 100);
        for (size_t f = 0; f < FAR_COUNT; f++)
            printf(" %.0f | %.1f GiB |", exp2(l.at + l.slope * log2(far_sizes[f])),
                   bytes * far_sizes[f] / (1u << 30));
        printf("\n");
    }
    printf(
        "\nMemory is that of a vector in the largest set. The line knows only caches and memory as large as "
        "these sets met; address translation costs more beyond them.\n");
}

static void json_number(FILE *f, const char *key, double v)
{
    if (isnan(v))
        fprintf(f, ", \"%s\": null", key);
    else
        fprintf(f, ", \"%s\": %.6g", key, v);
}

static void write_json(const struct growth *g, const struct bench_set *set, const char *machine)
{
    FILE *f = fopen(g->opts.json, "w");
    if (!f)
        bench_die("%s: %s", g->opts.json, strerror(errno));
    const char *separator = "[\n";
    for (uint32_t s = 0; s < g->opts.size_count; s++) {
        for (unsigned i = 0; i < g->engine_count; i++) {
            const struct point *p = &g->points[s][i];
            fprintf(f,
                    "%s{\"set\": \"%s\", \"vectors\": %u, \"dim\": %u, \"engine\": \"%s\", \"recall\": %.2f",
                    separator, set->name, g->opts.sizes[s], set->dim, g->names[i], RECALL);
            json_number(f, "qps", p->qps);
            json_number(f, "qps_min", p->qps_min);
            json_number(f, "qps_max", p->qps_max);
            json_number(f, "bytes_per_vector", p->bytes_per_vector);
            json_number(f, "build_rate", p->rate);
            fprintf(f, ", \"rounds\": %u, \"machine\": \"%s\"}", g->opts.rounds, machine);
            separator = ",\n";
        }
    }
    fprintf(f, "\n]\n");
    if (fclose(f) != 0)
        bench_die("%s: %s", g->opts.json, strerror(errno));
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 5, 0 };
    static struct growth g;
    bench_options_parse(argc, argv,
                        "bench_growth [OPTIONS] [SET]: rate at recall 0.95, memory and building by size",
                        &defaults, &g.opts);
    if (!g.opts.ef_given) {
        g.opts.ef_count = 0;
        for (size_t i = 0; i < sizeof(usual_ef) / sizeof(usual_ef[0]); i++) {
            if (usual_ef[i] >= g.opts.k)
                g.opts.ef[g.opts.ef_count++] = usual_ef[i];
        }
    }
    g.opts.peer_index = NULL; /* of another set at every size */
    struct bench_set whole;
    bench_set_open(&g.opts, &whole);
    for (uint32_t s = 0; s < g.opts.size_count; s++) {
        struct bench_daemon daemon;
        struct bench_set set;
        bench_set_resize(&whole, g.opts.sizes[s], QUERY_MAX, &set);
        bench_daemon_start(&daemon, g.opts.threads);
        measure(&g, &daemon, &set, g.points[s]);
        bench_daemon_stop(&daemon);
        bench_set_close(&set);
    }

    char machine[512];
    bench_machine(machine, sizeof(machine));
    printf("\n%s, %u dimensions, k = %u, searches at recall %.2f by one reader on CPU %d, medians of %u "
           "rounds%s, built by %u threads\n%s\n",
           whole.name, whole.dim, g.opts.k, RECALL, g.opts.cpu, g.opts.rounds,
           g.opts.cpu_time ? ", by CPU time" : "", g.opts.threads, machine);
    if (strcmp(whole.name, "generated") != 0)
        printf("Above %u vectors: drawn rows with noise are added.\n", whole.base_count);
    printf("\n");
    print_points(&g);
    print_fit(&g);
    if (g.opts.json)
        write_json(&g, &whole, machine);
    bench_set_close(&whole);
    return 0;
}
