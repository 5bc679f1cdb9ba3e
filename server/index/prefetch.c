/*
 * prefetch.c - trying out prefetch distances on the live segment. See prefetch.h.
 *
 * First the row's with the code's as it was, then the code's with the best of those. Settings take turns, a few
 * queries each, so that none of them finds the caches warmer than another; of several rounds the quickest
 * counts, for what makes a search slower than that is not the setting's.
 */
#include "server/index/prefetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/index/index_priv.h"
#include "shm/graph/scan.h"
#include "shm/graph/search.h"

#define VECTOR_MIN 1024u
#define QUERY_MAX  96u
#define QUERY_TURN 8u
#define TURN_MAX   (QUERY_MAX / QUERY_TURN)
#define ROUNDS     3u
#define BUDGET_NS  100000000u /* of CPU time for each of the two; a round that has begun is finished */
#define SEARCH_K   10u
#define SEARCH_EF  64u
#define ASIDE      0.1f /* queries lie so far on the way from one vector to another */
/* What was there stays unless something is so much better. */
#define MARGIN 0.98

static const uint32_t lines_tried[] = { 1, 2, 4, 8, 16, 32, 64 };
enum { TRIED = sizeof lines_tried / sizeof lines_tried[0] };

struct measuring {
    struct kithi_map map;
    const _Atomic bool *cancel;
    struct kithi_scratch scratch;
    struct kithi_results results;
    float *queries;
    uint32_t query_count;
};

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Points near vectors from all over the segment. */
static int make_queries(struct measuring *m)
{
    const uint32_t dim = m->map.geometry.dim;
    struct kithi_scan scan;
    struct kithi_item item;
    uint32_t n = 0;
    kithi_scan_begin(&m->map, &scan);
    for (; n < QUERY_MAX; n++) {
        uint32_t from = (uint32_t)((uint64_t)n * scan.view.slots_used / QUERY_MAX);
        if (scan.next < from)
            scan.next = from;
        if (kithi_scan_next(&scan, &item, m->queries + (size_t)n * dim) != 1)
            break;
    }
    m->query_count = n / QUERY_TURN * QUERY_TURN;
    for (uint32_t i = 0; i < m->query_count; i++) {
        float *q = m->queries + (size_t)i * dim, *other = m->queries + (size_t)((i + 1) % n) * dim;
        for (uint32_t j = 0; j < dim; j++)
            q[j] = (1 - ASIDE) * q[j] + ASIDE * other[j];
    }
    return m->query_count ? 0 : KITHI_E_NOT_FOUND;
}

static int run_turn(struct measuring *m, uint32_t turn, uint64_t *out_ns)
{
    const struct kithi_search_params p = { .k = SEARCH_K, .ef = SEARCH_EF };
    uint64_t began = cpu_ns();
    for (uint32_t i = turn * QUERY_TURN; i < (turn + 1) * QUERY_TURN; i++) {
        int rc =
            kithi_search(&m->map, &m->scratch, m->queries + (size_t)i * m->map.geometry.dim, &p, &m->results);
        if (rc < 0)
            return rc;
    }
    *out_ns = cpu_ns() - began;
    return atomic_load_explicit(m->cancel, memory_order_relaxed) ? -ECANCELED : 0;
}

/*
 * Try *setting (of m->map) with each number of lines up to most, against what it is now (entry TRIED). Leaves the
 * best in it; times of a search before and after.
 */
static int try_lines(struct measuring *m, uint32_t *setting, uint32_t most, double *out_before_us,
                     double *out_us)
{
    uint64_t least[TRIED + 1][TURN_MAX], ns, began = cpu_ns();
    uint32_t now = *setting, tried = 0;
    memset(least, 0xff, sizeof least);
    while (tried < TRIED && (tried == 0 || lines_tried[tried - 1] < most))
        tried++;
    for (uint32_t r = 0; r < ROUNDS && (r == 0 || cpu_ns() - began < BUDGET_NS); r++) {
        for (uint32_t turn = 0; turn < m->query_count / QUERY_TURN; turn++) {
            for (uint32_t i = 0; i <= tried; i++) {
                *setting = i < tried ? lines_tried[i] : now;
                int rc = run_turn(m, turn, &ns);
                if (rc < 0)
                    return rc;
                least[i][turn] = ns < least[i][turn] ? ns : least[i][turn];
            }
        }
    }
    double us[TRIED + 1];
    uint32_t best = tried;
    for (uint32_t i = tried + 1; i-- > 0;) {
        uint64_t sum = 0;
        for (uint32_t turn = 0; turn < m->query_count / QUERY_TURN; turn++)
            sum += least[i][turn];
        us[i] = (double)sum / 1000.0 / m->query_count;
        if (us[i] < (best == tried ? MARGIN : 1.0) * us[best])
            best = i;
    }
    *setting = best < tried ? lines_tried[best] : now;
    *out_before_us = us[tried];
    *out_us = us[best];
    return 0;
}

static int measure(struct measuring *m, struct kithi_prefetch *out)
{
    struct kithi_view v;
    double unused, *before = &out->before_us;
    uint64_t ns;
    kithi_view_begin(&m->map, &v);
    m->map.prefetch_row = v.prefetch_row;
    m->map.prefetch_code = v.prefetch_code;
    int rc = v.slots_used < VECTOR_MIN ? KITHI_E_NOT_FOUND : make_queries(m);
    /* Memory is set aside, and pages are mapped, before the clock runs. */
    for (uint32_t turn = 0; turn < m->query_count / QUERY_TURN && rc == 0; turn++)
        rc = run_turn(m, turn, &ns);
    if (rc == 0 && v.bits_width) { /* whole rows are read only where there are codes in them */
        rc = try_lines(m, &m->map.prefetch_row, v.row_stride / KITHI_CACHE_LINE, before, &out->after_us);
        before = &unused;
    }
    if (rc == 0)
        rc = try_lines(m, &m->map.prefetch_code, v.code_stride / KITHI_CACHE_LINE, before, &out->after_us);
    out->row = m->map.prefetch_row;
    out->code = m->map.prefetch_code;
    return rc;
}

int kithi_prefetch_measure(const char *path, const _Atomic bool *cancel, struct kithi_prefetch *out,
                           struct kithi_errmsg *err)
{
    struct measuring m = { .cancel = cancel };
    struct kithi_prefetch p = { 0 };
    int rc = kithi_map_attach_path(path, false, &m.map, err);
    if (rc < 0)
        return rc;
    kithi_scratch_init(&m.scratch);
    kithi_results_init(&m.results);
    m.queries = malloc((size_t)QUERY_MAX * m.map.geometry.dim * sizeof *m.queries);
    rc = m.queries ? measure(&m, &p) : -ENOMEM;
    if (rc < 0)
        kithi_error_set(err, rc, "prefetch distances could not be measured: %s", kithi_error_text(rc));
    else
        *out = p;
    free(m.queries);
    kithi_results_fini(&m.results);
    kithi_scratch_fini(&m.scratch);
    kithi_map_detach(&m.map);
    return rc;
}

void kithi_prefetch_publish(struct kithi_index *ix, const struct kithi_prefetch *p)
{
    /* Relaxed: hints that readers clamp; nothing depends on them. */
    atomic_store_explicit(&ix->header->prefetch_row, p->row, memory_order_relaxed);
    atomic_store_explicit(&ix->header->prefetch_code, p->code, memory_order_relaxed);
}
