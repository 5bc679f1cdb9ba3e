/*
 * ahead.h - what a segment shows and its log lacks.
 *
 * Writes that did not ask for durability are visible before they are in the log. When kithd dies in between and the segment
 * is still there, the next one adopts it with epochs that the log does not have, and writes them to the log from here, before it goes on:
 * the log never has a gap.
 */
#ifndef KITHI_INDEX_AHEAD_H
#define KITHI_INDEX_AHEAD_H

#include "server/index/index.h"

/* What a group of one epoch changed, as far as it lasts: bytes of shm/wire/op.h. */
struct kithi_ahead_group {
    void *ops;
    size_t len;
    uint32_t op_count;
};

struct kithi_ahead {
    uint64_t first_epoch; /* of groups[0]; each next one has the next epoch */
    uint32_t group_count;
    struct kithi_ahead_group *groups;
};

/*
 * Groups after_epoch + 1 to the index's epoch, from the records of an index that was just adopted: reads all of them, once.
 * Applied to the state of after_epoch in their order they give the state of the index's epoch; what lies between is not what
 * was there between (a version that was replaced again is not there any more). Where the kept form of a vector is a code, the op
 * has the decoded one. A group of which nothing lasts has one op that changes nothing. 0 or -ENOMEM.
 */
int kithi_ahead_collect(struct kithi_index *ix, uint64_t after_epoch, struct kithi_ahead *out,
                        struct kithi_errmsg *err);
void kithi_ahead_fini(struct kithi_ahead *a);

#endif
