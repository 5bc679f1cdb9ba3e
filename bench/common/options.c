/*
 * options.c - the command line that the benchmarks share.
 */
#include "bench/common/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"

enum {
    OPT_CPU = 256,
    OPT_DAEMON_CPU,
    OPT_CPU_TIME,
    OPT_PEERS,
    OPT_NO_PEER,
    OPT_PEER_INDEX,
    OPT_EF,
    OPT_KEEP,
    OPT_QUERIES,
    OPT_SIZES,
    OPT_JSON,
    OPT_SVG,
    OPT_CHILD,
    OPT_ORDER,
    OPT_FRESH_ORDER,
    OPT_TURNOVERS,
    OPT_REBUILD,
    OPT_WINDOW,
    OPT_RATE,
    OPT_NO_RATES,
    OPT_OPTIMIZE,
    OPT_HELP
};

static const struct option long_options[] = {
    { "k", required_argument, NULL, 'k' },
    { "m", required_argument, NULL, 'm' },
    { "ef-construction", required_argument, NULL, 'c' },
    { "ef", required_argument, NULL, OPT_EF },
    { "quantization", required_argument, NULL, 'q' },
    { "keep", required_argument, NULL, OPT_KEEP },
    { "queries", required_argument, NULL, OPT_QUERIES },
    { "sizes", required_argument, NULL, OPT_SIZES },
    { "rounds", required_argument, NULL, 'r' },
    { "threads", required_argument, NULL, 't' },
    { "readers", required_argument, NULL, 'n' },
    { "seconds", required_argument, NULL, 's' },
    { "cpu", required_argument, NULL, OPT_CPU },
    { "daemon-cpu", required_argument, NULL, OPT_DAEMON_CPU },
    { "cpu-time", no_argument, NULL, OPT_CPU_TIME },
    { "peers", required_argument, NULL, OPT_PEERS },
    { "no-peer", no_argument, NULL, OPT_NO_PEER },
    { "peer-index", required_argument, NULL, OPT_PEER_INDEX },
    { "json", required_argument, NULL, OPT_JSON },
    { "svg", required_argument, NULL, OPT_SVG },
    { "child", no_argument, NULL, OPT_CHILD },
    { "order", required_argument, NULL, OPT_ORDER },
    { "fresh-order", required_argument, NULL, OPT_FRESH_ORDER },
    { "turnovers", required_argument, NULL, OPT_TURNOVERS },
    { "rebuild", required_argument, NULL, OPT_REBUILD },
    { "window", no_argument, NULL, OPT_WINDOW },
    { "rate", required_argument, NULL, OPT_RATE },
    { "no-rates", no_argument, NULL, OPT_NO_RATES },
    { "optimize", no_argument, NULL, OPT_OPTIMIZE },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

/* By the numbers of enum kith_quantization and enum kith_keep. */
static const char *const quantizations[] = { "none", "f16", "sq8", "bits", "auto" };
static const char *const keeps[] = { "f32", "f16", "none" };
/* By the numbers of enum bench_fresh_order. */
static const char *const fresh_orders[] = { "came", "slots", "random" };
#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

static const char help[] =
    "  SET                     a folder of $KITH_BENCH_DATA with base.fvecs, query.fvecs, gt.ivecs and\n"
    "                          perhaps a file `metric`; without it, or \"generated\": made-up vectors\n"
    "      --queries NAME      query_NAME.fvecs and gt_NAME.ivecs of the set instead\n"
    "  -k, --k N               neighbours asked for (10)\n"
    "  -m, --m N               links a level (16)\n"
    "  -c, --ef-construction N breadth of insertion (200)\n"
    "  -q, --quantization LIST of the collections: none,f16,sq8,bits,auto, each perhaps with what it\n"
    "                          keeps, as in sq8-none (%s)\n"
    "      --keep KEEP         what they keep where the list does not say: f32, f16 or none (f32)\n"
    "      --ef LIST           breadths of search, rising, comma-separated\n"
    "      --sizes LIST        vectors, rising, of bench_growth and bench_ceiling (10000,100000,400000,1000000); the last of them of bench_churn\n"
    "  -r, --rounds N          interleaved rounds; medians of them are shown (%u)\n"
    "  -t, --threads N         threads that build (2)\n"
    "  -n, --readers N         reader processes of bench_mixed (4)\n"
    "  -s, --seconds S         length of a phase of bench_mixed or bench_scaling, of the window of bench_churn (%.0f)\n"
    "      --cpu N             CPU of the timed reader (the last one)\n"
    "      --daemon-cpu N      CPU of kithd and the loader beside a timed reader (the first one)\n"
    "      --cpu-time          rates by CPU time instead of time: on a machine that others use\n"
    "      --peers LIST        what to compare with: hnswlib,hnswlib-replace,faiss,faiss-sq8 (%s)\n"
    "      --no-peer           Kith alone\n"
    "      --peer-index FILE   keep the index of hnswlib in FILE between runs, that of PEER in FILE.PEER\n"
    "      --order LIST        of bench_churn, what is replaced: random, clusters (random,clusters)\n"
    "      --fresh-order ORDER of bench_churn, in which a fresh collection takes the rows: came, as the\n"
    "                          changed one got them; slots, as it holds them; random (came)\n"
    "      --turnovers N       of bench_churn: the live set is replaced so often (10)\n"
    "      --rebuild PERCENT   of bench_churn: FAISS is built anew after so much of it was replaced (100)\n"
    "      --window            bench_churn: a sliding window instead of turnovers\n"
    "      --rate N            of the window: vectors inserted, and as many deleted, a second (1000)\n"
    "      --optimize          of bench_search: beside each configuration the same after kith optimize\n"
    "      --no-rates          of bench_churn: rates and latencies are shown and not judged, as on a busy machine\n"
    "      --json FILE         write one object for each point measured\n"
    "      --svg FILE          plot the curves, with gnuplot\n";

static long number(const char *name, const char *text, long min, long max)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *text == 0 || *end || v < min || v > max) {
        fprintf(stderr, "bench: %s takes a number from %ld to %ld, not \"%s\"\n", name, min, max, text);
        exit(2);
    }
    return v;
}

/* Returns how many numbers the list holds. */
static uint32_t parse_rising(const char *name, char *list, uint32_t *out, uint32_t max, long limit)
{
    uint32_t n = 0;
    for (char *rest, *item = strtok_r(list, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        uint32_t v = (uint32_t)number(name, item, 1, limit);
        if (n == max || (n > 0 && v <= out[n - 1])) {
            fprintf(stderr, "bench: %s takes at most %u rising numbers\n", name, max);
            exit(2);
        }
        out[n++] = v;
    }
    return n;
}

/* The number of word in words, as the library counts them. */
static uint32_t number_of(const char *word, const char *const words[], uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(word, words[i]) == 0)
            return i;
    }
    fprintf(stderr, "bench: \"%s\" is not one of", word);
    for (uint32_t i = 0; i < n; i++)
        fprintf(stderr, " %s", words[i]);
    fputc('\n', stderr);
    exit(2);
}

static void parse_configs(struct bench_options *o, const char *text, const char *keep_default)
{
    char list[256];
    snprintf(list, sizeof(list), "%s", text);
    for (char *rest, *item = strtok_r(list, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        if (o->config_count == BENCH_CONFIG_MAX)
            bench_die("at most %u quantizations in a run", BENCH_CONFIG_MAX);
        struct bench_config *c = &o->configs[o->config_count++];
        char *dash = strchr(item, '-');
        const char *keep = dash ? dash + 1 : keep_default;
        if (dash)
            *dash = 0;
        c->quantization = number_of(item, quantizations, LENGTH(quantizations));
        c->keep = number_of(keep, keeps, LENGTH(keeps));
        snprintf(c->name, sizeof(c->name), "%s%s%s", item, c->keep ? "-" : "", c->keep ? keep : "");
    }
    if (o->config_count == 0)
        bench_die("--quantization names none");
}

static void parse_peers(struct bench_options *o, const char *text)
{
    char list[128];
    snprintf(list, sizeof(list), "%s", text);
    for (char *rest, *item = strtok_r(list, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        if (o->peer_count == BENCH_PEER_MAX)
            bench_die("at most %u peers in a run", BENCH_PEER_MAX);
        snprintf(o->peers[o->peer_count++], sizeof(o->peers[0]), "%s", item);
    }
}

static void parse_order(struct bench_options *o, const char *text)
{
    static const char *const orders[] = { "random", "clusters" };
    char list[64];
    snprintf(list, sizeof(list), "%s", text);
    o->random = o->clusters = false;
    for (char *rest, *item = strtok_r(list, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        bool clusters = number_of(item, orders, LENGTH(orders)) == 1;
        *(clusters ? &o->clusters : &o->random) = true;
    }
}

const char *bench_quantization_name(uint32_t quantization)
{
    return quantization < LENGTH(quantizations) ? quantizations[quantization] : "unknown";
}

/* A search is never narrower than k. */
static void drop_narrow_ef(struct bench_options *o)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < o->ef_count; i++) {
        if (o->ef[i] >= o->k)
            o->ef[kept++] = o->ef[i];
    }
    o->ef_count = kept;
    if (kept == 0)
        bench_die("no ef of the list is as large as k = %u", o->k);
}

void bench_options_parse(int argc, char **argv, const char *purpose, const struct bench_defaults *defaults,
                         struct bench_options *out)
{
    *out = (struct bench_options){
        .set = "generated",
        .k = 10,
        .m = 16,
        .ef_construction = 200,
        .ef = { 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 400, 600, 1000 },
        .ef_count = 18,
        .sizes = { 10000, 100000, 400000, 1000000 },
        .size_count = 4,
        .rounds = defaults->rounds,
        .threads = 2,
        .readers = 4,
        .seconds = defaults->seconds,
        .turnovers = 10,
        .rebuild = 100,
        .rate = 1000,
        .cpu = bench_cpu(-1),
        .daemon_cpu = bench_cpu(0),
    };
    const char *configs = defaults->configs;
    const char *peers = defaults->peers;
    const char *keep = "f32";
    int opt;
    while ((opt = getopt_long(argc, argv, "k:m:c:q:r:t:n:s:", long_options, NULL)) != -1) {
        switch (opt) {
        case 'k': out->k = (uint32_t)number("-k", optarg, 1, BENCH_K_MAX); break;
        case 'm': out->m = (uint32_t)number("-m", optarg, 2, 64); break;
        case 'c': out->ef_construction = (uint32_t)number("-c", optarg, 1, 65536); break;
        case 'q': configs = optarg; break;
        case 'r': out->rounds = (unsigned)number("-r", optarg, 1, 1000); break;
        case 't': out->threads = (unsigned)number("-t", optarg, 1, 64); break;
        case 'n': out->readers = (unsigned)number("-n", optarg, 1, 64); break;
        case 's': out->seconds = (double)number("-s", optarg, 1, 86400); break;
        case OPT_EF:
            out->ef_count = parse_rising("--ef", optarg, out->ef, BENCH_EF_MAX, 1048576);
            out->ef_given = true;
            break;
        case OPT_KEEP: keep = optarg; break;
        case OPT_QUERIES: out->queries = optarg; break;
        case OPT_SIZES:
            out->size_count = parse_rising("--sizes", optarg, out->sizes, BENCH_SIZE_MAX, 16000000);
            out->sizes_given = true;
            break;
        case OPT_CPU: out->cpu = (int)number("--cpu", optarg, 0, 1023); break;
        case OPT_DAEMON_CPU: out->daemon_cpu = (int)number("--daemon-cpu", optarg, 0, 1023); break;
        case OPT_CPU_TIME: out->cpu_time = true; break;
        case OPT_PEERS: peers = optarg; break;
        case OPT_NO_PEER: peers = ""; break;
        case OPT_PEER_INDEX: out->peer_index = optarg; break;
        case OPT_JSON: out->json = optarg; break;
        case OPT_SVG: out->svg = optarg; break;
        case OPT_CHILD: out->child = true; break;
        case OPT_ORDER: parse_order(out, optarg); break;
        case OPT_FRESH_ORDER:
            out->fresh_order = (enum bench_fresh_order)number_of(optarg, fresh_orders, LENGTH(fresh_orders));
            break;
        case OPT_TURNOVERS: out->turnovers = (unsigned)number("--turnovers", optarg, 1, 1000); break;
        case OPT_REBUILD: out->rebuild = (unsigned)number("--rebuild", optarg, 1, 1000); break;
        case OPT_WINDOW: out->window = true; break;
        case OPT_NO_RATES: out->no_rates = true; break;
        case OPT_OPTIMIZE: out->optimize = true; break;
        case OPT_RATE: out->rate = (unsigned)number("--rate", optarg, 10, 1000000); break;
        case OPT_HELP:
            printf("%s\n", purpose);
            printf(help, defaults->configs, defaults->rounds, defaults->seconds, defaults->peers);
            exit(0);
        default: exit(2);
        }
    }
    if (argc - optind > 1) {
        fprintf(stderr, "bench: one SET at a time\n");
        exit(2);
    }
    if (optind < argc)
        out->set = argv[optind];
    parse_configs(out, configs, keep);
    parse_peers(out, peers);
    if (!out->random && !out->clusters)
        out->random = out->clusters = true;
    drop_narrow_ef(out);
}
