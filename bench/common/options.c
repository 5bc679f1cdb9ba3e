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

enum { OPT_CPU = 256, OPT_CPU_TIME, OPT_NO_PEER, OPT_PEER_INDEX, OPT_EF, OPT_CHILD, OPT_HELP };

static const struct option long_options[] = {
    { "k", required_argument, NULL, 'k' },
    { "m", required_argument, NULL, 'm' },
    { "ef-construction", required_argument, NULL, 'c' },
    { "ef", required_argument, NULL, OPT_EF },
    { "rounds", required_argument, NULL, 'r' },
    { "threads", required_argument, NULL, 't' },
    { "readers", required_argument, NULL, 'n' },
    { "seconds", required_argument, NULL, 's' },
    { "cpu", required_argument, NULL, OPT_CPU },
    { "cpu-time", no_argument, NULL, OPT_CPU_TIME },
    { "no-peer", no_argument, NULL, OPT_NO_PEER },
    { "peer-index", required_argument, NULL, OPT_PEER_INDEX },
    { "child", no_argument, NULL, OPT_CHILD },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "  SET                     a folder of $KITH_BENCH_DATA with base.fvecs, query.fvecs, gt.ivecs and\n"
    "                          perhaps a file `metric`; without it, or \"generated\": made-up vectors\n"
    "  -k, --k N               neighbours asked for (10)\n"
    "  -m, --m N               links a level (16)\n"
    "  -c, --ef-construction N breadth of insertion (200)\n"
    "      --ef LIST           breadths of search, rising, comma-separated\n"
    "  -r, --rounds N          interleaved rounds; medians of them are shown (5)\n"
    "  -t, --threads N         threads that build (2)\n"
    "  -n, --readers N         reader processes of bench_mixed (4)\n"
    "  -s, --seconds S         length of each phase of bench_mixed (60)\n"
    "      --cpu N             CPU of the timed reader (the last one)\n"
    "      --cpu-time          rates by CPU time instead of time: on a machine that others use\n"
    "      --no-peer           Kith alone\n"
    "      --peer-index FILE   keep the peer's index in FILE between runs\n";

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

static void parse_ef(struct bench_options *o, char *list)
{
    o->ef_count = 0;
    for (char *rest, *item = strtok_r(list, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        uint32_t ef = (uint32_t)number("--ef", item, 1, 1048576);
        if (o->ef_count == BENCH_EF_MAX || (o->ef_count > 0 && ef <= o->ef[o->ef_count - 1])) {
            fprintf(stderr, "bench: --ef takes at most %d rising numbers\n", BENCH_EF_MAX);
            exit(2);
        }
        o->ef[o->ef_count++] = ef;
    }
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

void bench_options_parse(int argc, char **argv, const char *purpose, struct bench_options *out)
{
    *out = (struct bench_options){
        .set = "generated",
        .k = 10,
        .m = 16,
        .ef_construction = 200,
        .ef = { 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 400 },
        .ef_count = 16,
        .rounds = 5,
        .threads = 2,
        .readers = 4,
        .seconds = 60,
        .cpu = -1,
        .peer = true,
    };
    int opt;
    while ((opt = getopt_long(argc, argv, "k:m:c:r:t:n:s:", long_options, NULL)) != -1) {
        switch (opt) {
        case 'k': out->k = (uint32_t)number("-k", optarg, 1, BENCH_K_MAX); break;
        case 'm': out->m = (uint32_t)number("-m", optarg, 2, 64); break;
        case 'c': out->ef_construction = (uint32_t)number("-c", optarg, 1, 65536); break;
        case 'r': out->rounds = (unsigned)number("-r", optarg, 1, 1000); break;
        case 't': out->threads = (unsigned)number("-t", optarg, 1, 64); break;
        case 'n': out->readers = (unsigned)number("-n", optarg, 1, 64); break;
        case 's': out->seconds = (double)number("-s", optarg, 1, 86400); break;
        case OPT_EF: parse_ef(out, optarg); break;
        case OPT_CPU: out->cpu = (int)number("--cpu", optarg, 0, 1023); break;
        case OPT_CPU_TIME: out->cpu_time = true; break;
        case OPT_NO_PEER: out->peer = false; break;
        case OPT_PEER_INDEX: out->peer_index = optarg; break;
        case OPT_CHILD: out->child = true; break;
        case OPT_HELP: printf("%s\n%s", purpose, help); exit(0);
        default: exit(2);
        }
    }
    if (out->child)
        return;
    if (argc - optind > 1) {
        fprintf(stderr, "bench: one SET at a time\n");
        exit(2);
    }
    if (optind < argc)
        out->set = argv[optind];
    drop_narrow_ef(out);
}
