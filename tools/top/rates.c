/*
 * rates.c - see rates.h.
 */
#include "tools/top/rates.h"

#include <math.h>

/* What counters grew by. Those of a liar among the readers may shrink: that is no growth. */
static double grown(double before, double now)
{
    return now > before ? now - before : 0;
}

static double per(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

/* Counters of two looks belong together when kithd did not start in between. */
static bool same_life(const struct kithi_top_collection *c)
{
    return c->looks > 1 && c->before.daemon && c->now.daemon && c->now.up_ms >= c->before.up_ms;
}

/* Where the part (0..1) of the syncs in between stays below, in microseconds. */
static double flush_us(const struct kithi_top_collection *c, double part)
{
    double all = 0, seen = 0;
    for (uint32_t i = 0; i < KITHI_TOP_SYNC_BUCKETS; i++)
        all += grown(c->before.sync[i], c->now.sync[i]);
    for (uint32_t i = 0; all > 0 && i < KITHI_TOP_SYNC_BUCKETS; i++) {
        double n = grown(c->before.sync[i], c->now.sync[i]);
        if (n > 0 && seen + n >= all * part) {
            double from = i ? ldexp(1, (int)i - 1) : 0, to = ldexp(1, (int)i);
            return from + (to - from) * (all * part - seen) / n;
        }
        seen += n;
    }
    return NAN;
}

static double latency_us(const struct kithi_top_collection *c, double part)
{
    double all = 0, seen = 0;
    for (uint32_t i = 0; i < KITHI_BOARD_BUCKETS; i++)
        all += grown(c->before.latency[i], c->now.latency[i]);
    for (uint32_t i = 0; all > 0 && i < KITHI_BOARD_BUCKETS; i++) {
        double n = grown(c->before.latency[i], c->now.latency[i]);
        seen += n;
        if (n > 0 && seen >= all * part)
            return (double)(kithi_board_bucket_ns(i) + kithi_board_bucket_ns(i + 1)) / 2e3;
    }
    return NAN;
}

void kithi_top_rates(const struct kithi_top_collection *c, struct kithi_top_rates *out)
{
    const struct kithi_top_look *a = &c->before, *b = &c->now;
    *out = (struct kithi_top_rates){ NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN,
                                     NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN };
    if (c->looks < 2)
        return;
    out->seconds = (double)(b->taken_ns - a->taken_ns) / 1e9;
    if (!same_life(c))
        return;
    if (b->up_ms > a->up_ms)
        out->seconds = (b->up_ms - a->up_ms) / 1e3;
    double groups = grown(a->groups, b->groups), ops = grown(a->ops, b->ops);
    out->groups = per(groups, out->seconds);
    out->ops = per(ops, out->seconds);
    out->bytes = per(grown(a->op_bytes, b->op_bytes), out->seconds);
    out->refused = per(grown(a->refused, b->refused), out->seconds);
    out->ops_per_group = per(ops, groups);
    out->flush_p50_us = flush_us(c, 0.5);
    out->flush_p99_us = flush_us(c, 0.99);
    if (a->attached && b->attached && a->generation == b->generation)
        out->sweeps = per(grown((double)a->sweeps, (double)b->sweeps), out->seconds);
    out->repaired = per(grown(a->repaired, b->repaired), out->seconds);
    if (!a->counted || !b->counted)
        return;
    double searches = grown(a->searches, b->searches);
    out->searches = per(searches, out->seconds);
    out->failures = per(grown(a->failures, b->failures), out->seconds);
    out->restarts = per(grown(a->restarts, b->restarts), out->seconds);
    out->expansions = per(grown(a->expansions, b->expansions), searches);
    out->lag = per(grown(a->lag, b->lag), searches);
    out->p50_us = latency_us(c, 0.5);
    out->p99_us = latency_us(c, 0.99);
    out->p999_us = latency_us(c, 0.999);
}

void kithi_top_reader_rates(const struct kithi_top_collection *c, const struct kithi_top_reader *r,
                            struct kithi_top_reader_rates *out)
{
    struct kithi_top_rates all;
    const struct kithi_top_reader *before = NULL;
    *out = (struct kithi_top_reader_rates){ NAN, NAN, NAN };
    kithi_top_rates(c, &all);
    if (!same_life(c))
        return;
    /* A slot has another reader once its first one is gone. */
    for (uint32_t i = 0; i < c->before.reader_count && !before; i++) {
        const struct kithi_top_reader *p = &c->before.readers[i];
        if (p->slot == r->slot && p->pid == r->pid && p->opened == r->opened)
            before = p;
    }
    if (!before)
        return;
    double searches = grown(before->searches, r->searches);
    out->searches = per(searches, all.seconds);
    out->expansions = per(grown(before->expansions, r->expansions), searches);
    out->lag = per(grown(before->lag, r->lag), searches);
}
