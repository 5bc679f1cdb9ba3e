/*
 * rates.h - what happened between two looks at a collection. NAN: unknown, because there was only one look, nobody who
 * counts, or nothing to divide by; JSON says null, people see a dash.
 */
#ifndef KITHI_TOOLS_TOP_RATES_H
#define KITHI_TOOLS_TOP_RATES_H

#include "tools/top/look.h"

struct kithi_top_rates {
    double seconds;
    double groups, ops, bytes, refused; /* a second */
    double ops_per_group;
    double flush_p50_us, flush_p99_us;   /* of a sync; estimated within powers of two */
    double sweeps, repaired;             /* a second */
    double searches, failures, restarts; /* a second */
    double p50_us, p99_us, p999_us;
    double expansions, lag; /* a search */
};

void kithi_top_rates(const struct kithi_top_collection *c, struct kithi_top_rates *out);

/* Of one reader, now being r: searches a second, rows a search, groups behind. */
struct kithi_top_reader_rates {
    double searches, expansions, lag;
};
void kithi_top_reader_rates(const struct kithi_top_collection *c, const struct kithi_top_reader *r,
                            struct kithi_top_reader_rates *out);

#endif
