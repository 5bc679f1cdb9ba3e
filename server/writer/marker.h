/*
 * marker.h - the file `ahead` in a collection's data directory: some epoch may be visible before it is durable.
 *
 *   ABSENT --somebody asks for less than durable--> MAKING (helper) --synced--> THERE --clean stop--> ABSENT
 *      ^                                               |
 *      +------------------ it cannot be made ----------+
 *
 * Until it is there, writes that asked for less are durable all the same. A start that finds it and has no segment to adopt
 * knows that visible epochs may be lost, and takes another timeline; with the segment nothing is lost.
 */
#ifndef KITHI_WRITER_MARKER_H
#define KITHI_WRITER_MARKER_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/io.h"
#include "shm/base/error.h"

#define KITHI_MARKER_NAME "ahead"

enum kithi_marker_state {
    MARKER_ABSENT,
    MARKER_MAKING,
    MARKER_THERE,
};

struct kithi_collection;

struct kithi_marker {
    enum kithi_marker_state state;
    uint64_t again_ms; /* it could not be made: not before then */
    struct kithi_errmsg err;
    struct kithi_io_op op;
};

void kithi_marker_init(struct kithi_marker *m, struct kithi_collection *c);

/*
 * A start looks whether it is there; then it is so for good on return: whoever made it may have died between its rename and the
 * sync of the directory, and what relies on it could outlive its name. 0, or -errno where it cannot be looked at or synced. Blocks.
 */
int kithi_marker_look(struct kithi_collection *c, struct kithi_errmsg *err);

/* True when it is there; else it is being made, on a helper thread. */
bool kithi_marker_want(struct kithi_collection *c, uint64_t now_ms);

/* Everything visible is durable, or on another timeline: it goes. Blocks; one that stays is harmless. */
void kithi_marker_clear(struct kithi_collection *c);

#endif
