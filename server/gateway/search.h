/*
 * search.h - one search, whoever asked for it: what it is, how it is carried out, and who writes its answer down.
 *
 * Scores: l2: the squared distance, smaller is nearer; cosine: the cosine; ip: the dot product; of both larger is nearer. A
 * score_threshold keeps what is at least as near.
 */
#ifndef KITHI_GATEWAY_SEARCH_H
#define KITHI_GATEWAY_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "server/gateway/rest.h"

#define KITHI_SEARCH_TOP_K        10u /* unless it says another */
#define KITHI_SEARCH_BATCH_BESIDE 64u /* searches of a batch that are no more than a wide one */

struct kithi_search {
    const float *vector;
    size_t len;
    const char *like; /* an id, instead of a vector */
    uint32_t k, ef;
    double recall, threshold;
    bool exact, with_vector, has_threshold;
    char *filter;
    struct kithi_rest_fields fields;
    uint64_t deadline_ms;
    struct kithi_rest_moment moment;
    int form; /* of payloads; the writer's own */
};

struct kithi_search_hit {
    uint32_t number; /* from 0 */
    const char *id;
    size_t id_len;
    float score;
    const char *payload; /* NULL: it has none, or none is wanted */
    const float *vector; /* NULL: none is wanted */
    uint32_t dim;
};

struct kithi_search_summary {
    uint64_t us, epoch, timeline;
    bool partial;
    const char *notice; /* or NULL */
};

/* How an answer is written: begin, hits from the nearest on, end. What was written is cut off again when the search is begun anew. */
struct kithi_search_writer {
    void (*begin)(struct kithi_text *out);
    void (*hit)(struct kithi_text *out, const struct kithi_search *q, const struct kithi_search_hit *hit);
    void (*end)(struct kithi_text *out, const struct kithi_search_summary *summary);
};

/* Does it take too long to be beside others? */
bool kithi_search_is_wide(const struct kithi_search *q);

/*
 * Carry it out and append its answer to that of the request, or a refusal. until_ns: 0, or when to stop with what there is. The request's own
 * deadline stops it, too: its client has had its answer then, and the thread is wanted. hits is for its use. 0, also when it refused;
 * or what libkith says, with error.
 */
int kithi_search_run(struct kithi_request *r, kith *index, const struct kithi_search *q, uint64_t until_ns,
                     kith_results *hits, const struct kithi_search_writer *writer, struct kith_error *error);

void kithi_search_refuse_late(struct kithi_request *r);

/* The first look of one that waits for an epoch (request->await): without reading it again. KITHI_DONE: go on, or it is refused. */
enum kithi_next kithi_search_waiting(struct kithi_request *r);
/* When deadline_ms is over; 0: there is none. */
uint64_t kithi_search_until(const struct kithi_request *r, uint64_t deadline_ms);

/* Where in the request libkith's error is at home, and its sentence. */
void kithi_search_place(int rc, const char *where, char *out, size_t size);
const char *kithi_search_text(int rc, kith *index, const struct kithi_search *q,
                              const struct kith_error *error, char *out, size_t size);

#endif
