/*
 * merge.h - what a write's merges make of payloads: the same write with a payload set in the place of each, which is staged,
 * logged and replayed like any other. So no log has to be read by the rules of a merge, and merges of many clients are done one after
 * the other, in the order in which they become visible: none is lost. A delete under a condition likewise becomes a delete, or nothing: whatever was
 * written before it, by whomever, the condition is asked of that.
 */
#ifndef KITHI_WRITER_MERGE_H
#define KITHI_WRITER_MERGE_H

#include "server/index/index.h"
#include "server/writer/request.h"

/* Ops whose payloads are whole; they point into bytes. */
struct kithi_merged {
    struct kithi_op *ops;
    unsigned char *bytes; /* of the ops, as they are logged; 8-byte aligned */
    size_t len;
};

/*
 * Is the payload of an op one: of a REMOVE a list of dotted paths (u16 length and bytes each), of a DELETE_IF a filter, of others the bytes of an object? 0, KITHI_E_PAYLOAD, or
 * KITHI_E_FILTER. A filter that is as `before` (may be NULL), an op that has been checked, need not be looked at again.
 */
int kithi_merge_check(const struct kithi_op *op, const struct kithi_op *before, struct kithi_errmsg *err);

/*
 * Fill r->merged, on what is staged before r. Anew each time that r is staged: what is there may have changed. 0, -ENOMEM, KITHI_E_PAYLOAD (a
 * merge makes a payload too large), KITHI_E_TOO_LARGE: all of them together are larger than a write may be; *out_item is the op, where it
 * is one.
 */
int kithi_merge_make(struct kithi_index *ix, struct kithi_request *r, uint32_t *out_item,
                     struct kithi_errmsg *err);

void kithi_merge_free(struct kithi_merged *m); /* accepts NULL */

#endif
