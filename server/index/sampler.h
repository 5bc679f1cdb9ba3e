/*
 * sampler.h - how well searches of a live segment find: some of its own vectors are searched for with several ef, and what is
 * found is compared with every vector there is. The curve of that is published in the header for all readers
 * (shm/layout/curve.h).
 *
 * A vector that is searched for is left out of its own search, as if it were not there: neither found nor walked through. Found by
 * itself it would be at the heart of its neighbours at once, which no other query is (recall at ef 32 of a set whose
 * held-out queries have 0.907: 0.955 with it, 0.897 without). Rows that led to it get heirs, as they would have other links in a graph without it
 * (shm/graph/walk.c); without these it misses up to three times as much as other queries like the vectors do. bench/README.md has how far that is
 * from what such queries find.
 *
 * Threads. Whoever measures owns the sampler meanwhile; it reads the segment through a mapping of its own, as any reader does. One
 * thread, the index's owner, publishes.
 */
#ifndef KITHI_INDEX_SAMPLER_H
#define KITHI_INDEX_SAMPLER_H

#include "server/index/index.h"
#include "shm/graph/recall.h"

#define KITHI_SAMPLER_K      10u
#define KITHI_SAMPLER_K_MOST 100u
/* Results that a curve rests on: the last so many. With a recall of 0.95 they tell it to about 0.006. */
#define KITHI_SAMPLER_WINDOW 1024u
/* Vectors that are compared with all others in one pass over these. */
#define KITHI_SAMPLER_BATCH 8u
/* Fewer results are no curve. */
#define KITHI_SAMPLER_LEAST 64u
/* Collections of fewer vectors have none: what is chosen without one finds everything in them. */
#define KITHI_SAMPLER_VECTORS 256u

struct kithi_sampler;

/* Called between pieces of work of a millisecond or so, to sleep as long as it likes. False: come to an end. */
typedef bool kithi_sampler_pause(void *arg);

int kithi_sampler_new(struct kithi_sampler **out, struct kithi_errmsg *err);
/* Accepts NULL. */
void kithi_sampler_free(struct kithi_sampler *s);

/*
 * Measure with one batch of vectors of the segment at path. age is any number that rises with the collection's changes, for
 * kithi_sampler_expire(). Returns the results that were added; KITHI_E_NOT_FOUND: too few vectors; -ECANCELED; what attaching
 * and searching say, KITHI_E_MOVED among it.
 */
int kithi_sampler_measure(struct kithi_sampler *s, const char *path, uint64_t age, kithi_sampler_pause *pause,
                          void *arg, struct kithi_errmsg *err);

/* Forget results that were measured at an age below this. */
void kithi_sampler_expire(struct kithi_sampler *s, uint64_t age);
/* Forget all of them: there is another segment. */
void kithi_sampler_forget(struct kithi_sampler *s);
/* Unmap the segment, and give memory back, until the next measurement. */
void kithi_sampler_rest(struct kithi_sampler *s);

uint32_t kithi_sampler_count(const struct kithi_sampler *s);
/* The curve of that number (curve.h) of all results; count 0 without results of it. */
void kithi_sampler_curve(const struct kithi_sampler *s, unsigned number, struct kithi_recall_curve *out);

/* [P15 curve] Publish it; the owner. */
void kithi_curve_publish(struct kithi_index *ix, unsigned number, const struct kithi_recall_curve *c);

#endif
