/*
 * reader.h - a collection of a live kithd, opened as any program opens it, as an engine of a curve.
 */
#ifndef KITH_BENCH_READER_H
#define KITH_BENCH_READER_H

#include <kith/kith.h>

#include "bench/common/curve.h"
#include "bench/common/daemon.h"

struct bench_reader {
    kith *index;
    kith_results *results;
    uint32_t dim;
    struct kith_stats stats; /* when it was opened */
};

/*
 * Attach, with all pages present. Fills *out_engine, build_seconds excepted; it refers to r. Its name says
 * what auto has chosen.
 */
void bench_reader_open(struct bench_reader *r, const struct bench_daemon *d,
                       const struct bench_config *config, struct bench_engine *out_engine);
void bench_reader_close(struct bench_reader *r);

#endif
