/*
 * payload.h - reading the payload of a slot as of an epoch. [P18 payload], the readers' half.
 */
#ifndef KITHI_GRAPH_PAYLOAD_H
#define KITHI_GRAPH_PAYLOAD_H

#include "shm/graph/view.h"

/* A version: what its reference leads to. */
struct kithi_payload_blob {
    struct kithi_blob *blob;
    struct kithi_payload_head *head;
    unsigned char *bytes;
    uint32_t capacity; /* of bytes */
};

/* false: ref leads nowhere. Of its words nothing is checked. */
bool kithi_view_payload_blob(const struct kithi_view *v, uint32_t ref, struct kithi_payload_blob *out);

enum kithi_payload_seen {
    KITHI_PAYLOAD_NONE,  /* the slot has none at the epoch */
    KITHI_PAYLOAD_FOUND, /* of one piece */
    KITHI_PAYLOAD_AGAIN, /* it was refilled, or the slot was, or makes no sense: begin again with another view */
};

/*
 * Copy the payload that the view's epoch sees of slot, whose birth then was `birth`, into out (KITHI_PAYLOAD_BYTES bytes). Bytes are
 * of one version, and nothing else is said of them. Wait-free; the steps have a bound.
 */
enum kithi_payload_seen kithi_view_payload(const struct kithi_view *v, uint32_t slot, uint64_t birth,
                                           void *out, uint32_t *out_len);

/*
 * The reference of the version that an epoch sees, 0 where there is none; false where that cannot be told. For whoever knows that what the
 * epoch sees is not freed meanwhile.
 */
bool kithi_view_payload_ref(const struct kithi_view *v, uint32_t slot, uint64_t epoch, uint32_t *out_ref);

#endif
