/*
 * writer.h - rows of a set into a collection and out of it, as fast as kithd takes them. The id is the row number.
 */
#ifndef KITH_BENCH_WRITER_H
#define KITH_BENCH_WRITER_H

#include <kith/kith.h>

#include "bench/common/daemon.h"

struct bench_writer {
    const struct bench_set *set;
    kith *index;
    kith_pipe *pipe;
    kith_batch *batch;
    char path[400]; /* of the segment */
};

/* What is behind in a collection. */
struct bench_backlog {
    uint64_t dead;    /* and still linked */
    uint64_t resting; /* and unlinked */
    uint64_t free;
    uint64_t bytes; /* of the segment that are taken */
    uint64_t live;
};

void bench_writer_open(struct bench_writer *w, const struct bench_daemon *d, const struct bench_set *set,
                       const struct bench_config *config);
void bench_writer_close(struct bench_writer *w);
/* Returns the seconds from the first byte to the last answer. */
double bench_writer_insert(struct bench_writer *w, const uint32_t *rows, uint32_t n);
double bench_writer_remove(struct bench_writer *w, const uint32_t *rows, uint32_t n);

void bench_writer_backlog(struct bench_writer *w, struct bench_backlog *out);
/* Wait until nothing dead is linked any more. */
void bench_writer_await_repair(struct bench_writer *w);
/* The same of those that died before, while others go on dying. */
void bench_writer_await_repair_of(struct bench_writer *w, uint64_t died_ns);
/* And until no place rests, and kithd has looked whether the graph leads to everything. */
void bench_writer_await_rest(struct bench_writer *w);
/* Live vectors that no walk from the entry point comes to, as kith verify --reach counts them. */
uint64_t bench_writer_unreachable(const struct bench_writer *w);
/* The rows that are live, in the order of the slots that hold them; returns how many, most at the most. */
uint32_t bench_writer_slots(const struct bench_writer *w, uint32_t *out_rows, uint32_t most);
/* Links of a row in the mean, and the share of rows with an empty place before a link: at level 0, of live slots. */
void bench_writer_links(const struct bench_writer *w, double *out_links, double *out_gapped);
/* The number behind "key": in what kithd says. */
double bench_writer_told(struct bench_writer *w, const char *key);

#endif
