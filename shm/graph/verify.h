/*
 * verify.h - does a segment keep every structural rule of FORMAT.md? Runs on a live segment: what
 * looks wrong is looked at again, after the writer had time to go on, before it counts.
 */
#ifndef KITHI_GRAPH_VERIFY_H
#define KITHI_GRAPH_VERIFY_H

#include "shm/map/map.h"

/* Called for each violation: which rule ("row-link", ...), and a sentence with the numbers. */
typedef void kithi_verify_fn(void *arg, const char *rule, const char *text);

struct kithi_verify_report {
    uint64_t epoch;             /* snapshot of the counts */
    uint64_t violation_count;   /* all, also those beyond what the caller prints */
    uint64_t live_count;        /* visible records */
    uint64_t link_count;        /* links at level 0 */
    uint64_t unreachable_count; /* visible slots that no walk from the entry point reaches; not a violation */
    uint64_t level_histogram[16];   /* linked slots by top level */
    uint64_t degree_histogram[129]; /* linked slots by level-0 degree */
};

/*
 * Check everything. Returns 0 (look at violation_count), KITHI_E_MOVED, or -ENOMEM. Needs memory
 * for a few bits and words a slot. Read-only; may run while the writer works.
 */
int kithi_verify(const struct kithi_map *map, kithi_verify_fn *report, void *arg,
                 struct kithi_verify_report *out);

#define KITHI_VERIFY_PATIENCE_MS 1000u

/*
 * The same with another patience: how long what looks wrong may go on looking wrong before it counts.
 * 0 when no writer runs: it is looked at once more, without waiting.
 */
int kithi_verify_within(const struct kithi_map *map, uint32_t patience_ms, kithi_verify_fn *report, void *arg,
                        struct kithi_verify_report *out);

/* The same, and -ECANCELED soon after *stop has become true. */
int kithi_verify_until(const struct kithi_map *map, uint32_t patience_ms, const _Atomic bool *stop,
                       kithi_verify_fn *report, void *arg, struct kithi_verify_report *out);

#endif
