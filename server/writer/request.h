/*
 * request.h - one request of a client, from its last byte until it is answered.
 *
 * The body stays until then: the ops of a write point into it, and so do the jobs that insert them.
 */
#ifndef KITHI_WRITER_REQUEST_H
#define KITHI_WRITER_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/error.h"
#include "shm/wire/frame.h"
#include "shm/wire/op.h"

struct kithi_backup;
struct kithi_collection;
struct kithi_session;

struct kithi_request {
    struct kithi_request *next; /* in the one list it is in */
    struct kithi_session *session;
    struct kithi_frame frame;
    unsigned char *body; /* frame.len bytes, 8-byte aligned */

    /* A write (pipeline.c). */
    struct kithi_collection *collection;
    struct kithi_op *ops; /* frame.count of them */
    uint64_t seq;         /* order of arrival in its collection */
    uint64_t refuse_ms;   /* when waiting for room ends; 0: it has not begun */
    uint32_t upserts;     /* of its ops; the rest are deletes and changes of payloads */
    uint32_t
        merges; /* of those: ops that merge. What they make of the payloads is staged and logged in their place: */
    struct kithi_merged *merged;
    uint32_t found;
    struct kithi_written
        *written; /* the answer's, with a bit behind it for each op (frame.h); NULL: no op is a delete */
    uint8_t durability; /* enum kithi_durability */
    bool answered;      /* before it was done: it asked for no more */
    bool unchanged;     /* it changes nothing, and is answered once what it saw is published */

    /* A write that is published: its own. A flush, or a write that changed nothing, once what it saw is visible: answered
     * when this one is durable. */
    uint64_t epoch;

    /* A flush (pipeline.c). */
    uint64_t waits_for; /* writes before it that are not answered */

    /* A back-up (backup.c), once its checkpoint is there. */
    struct kithi_backup *backup;
};

struct kithi_answer {
    int status;
    uint32_t item; /* UINT32_MAX: none */
    uint64_t epoch;
    uint32_t found;
    uint32_t count; /* of the reply's frame: items listed */
    const void *text;
    size_t text_len;
};

#define KITHI_NO_ITEM UINT32_MAX

/* Queue the reply and free the request. */
void kithi_request_answer(struct kithi_request *r, const struct kithi_answer *a);
/* Queue the reply of a write whose body is still needed; kithi_request_free() ends it. */
void kithi_request_reply(struct kithi_request *r, const struct kithi_answer *a);
void kithi_request_free(struct kithi_request *r);
/* The same for a refusal. */
void kithi_request_refuse(struct kithi_request *r, uint32_t item, const struct kithi_errmsg *err);

#endif
