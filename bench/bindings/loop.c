/*
 * loop.c - the loop in C that a call from another language is compared with: loaded by calls.py into its own process, so that both are called on the
 * same handle, pages and query. Its results are read as the other side reads them.
 */
#include <stdint.h>

#include <kith/kith.h>

#include "bench/common/clock.h"

/* CPU nanoseconds of the thread a search, over n of them; read: with all ids and distances copied out. Negative: an error of kith.h. */
KITH_API double bench_loop(kith *index, const float *query, size_t dim, uint32_t k,
                           const struct kith_search_opts *opts, kith_results *r, uint32_t n, int read);
double bench_loop(kith *index, const float *query, size_t dim, uint32_t k,
                  const struct kith_search_opts *opts, kith_results *r, uint32_t n, int read)
{
    float distances[1024];
    char ids[32768];
    uint64_t begin = bench_cpu_ns();
    for (uint32_t i = 0; i < n; i++) {
        int rc = kith_search(index, query, dim, k, opts, r);
        if (rc < 0)
            return rc;
        if (!read)
            continue;
        kith_results_distances(r, distances, sizeof distances / sizeof *distances);
        kith_results_ids(r, ids, sizeof ids);
        __asm__ volatile("" : : "r"(distances), "r"(ids) : "memory");
    }
    return (double)(bench_cpu_ns() - begin) / n;
}
