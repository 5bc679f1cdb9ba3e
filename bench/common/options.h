/*
 * options.h - the command line that the benchmarks share.
 *
 *   bench_x [OPTIONS] [SET]
 *
 * Each program prints its own list of what it heeds; an option it does not heed changes nothing.
 */
#ifndef KITH_BENCH_OPTIONS_H
#define KITH_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define BENCH_EF_MAX     32
#define BENCH_K_MAX      100u /* true neighbours that the sets come with */
#define BENCH_CONFIG_MAX 12u
#define BENCH_PEER_MAX   4u
#define BENCH_SIZE_MAX   16u

/* In which order bench_churn's fresh collection takes its rows. */
enum bench_fresh_order {
    BENCH_FRESH_CAME,  /* as the changed one got them */
    BENCH_FRESH_SLOTS, /* as the changed one holds them */
    BENCH_FRESH_RANDOM,
};

/* One way to store a collection. */
struct bench_config {
    char name
        [24]; /* "sq8", "sq8-none": quantization, and keep where it is not f32; names the collection, too */
    uint32_t quantization; /* enum kith_quantization */
    uint32_t keep;         /* enum kith_keep */
};

struct bench_options {
    const char *set;     /* a set of $KITH_BENCH_DATA, or "generated" */
    const char *queries; /* NULL: the usual ones; "ood": query_ood.fvecs and gt_ood.ivecs of the set */
    uint32_t k;
    uint32_t m;
    uint32_t ef_construction;
    uint32_t ef[BENCH_EF_MAX]; /* rising */
    uint32_t ef_count;
    bool ef_given; /* by --ef: measure all of them */
    struct bench_config configs[BENCH_CONFIG_MAX];
    unsigned config_count; /* at least 1 */
    char peers[BENCH_PEER_MAX][16];
    unsigned peer_count;
    uint32_t sizes[BENCH_SIZE_MAX]; /* of bench_growth, rising */
    uint32_t size_count;
    bool sizes_given; /* by --sizes */
    unsigned rounds;
    unsigned threads; /* of a build */
    unsigned readers;
    double seconds;
    int cpu;                /* of the timed reader */
    int daemon_cpu;         /* of kithd and the loader while a reader is timed */
    bool cpu_time;          /* divide by CPU time, not by time: for machines that others use */
    const char *peer_index; /* file to keep the peers' indexes in between runs; NULL: none */
    const char *json;       /* file for the points; NULL: none */
    const char *svg;        /* file for the plot; NULL: none */
    bool child;             /* of bench_attach: this process is the one to measure */
    bool optimize;          /* of bench_search: beside each configuration the same, laid out anew */
    /* Of bench_churn. */
    bool random, clusters; /* what is replaced: drawn by chance, nearest to a vector drawn by chance */
    enum bench_fresh_order fresh_order;
    unsigned turnovers;
    unsigned
        rebuild; /* percent of the live set after whose replacement a peer that cannot delete is built anew */
    bool window; /* the sliding window instead */
    unsigned rate; /* of it: vectors inserted and as many deleted, a second */
    bool no_rates; /* what depends on the machine's speed is shown and not judged */
};

/* "sq8"; "unknown" for a number that is none of enum kith_quantization. */
const char *bench_quantization_name(uint32_t quantization);

/* What a program takes where the command line says nothing. */
struct bench_defaults {
    const char *configs; /* as after --quantization */
    const char *peers;   /* as after --peers */
    unsigned rounds;
    double seconds;
};

/*
 * Parse or exit: 0 after --help, 2 after a wrong option. purpose is the first line of --help.
 */
void bench_options_parse(int argc, char **argv, const char *purpose, const struct bench_defaults *defaults,
                         struct bench_options *out);

#endif
