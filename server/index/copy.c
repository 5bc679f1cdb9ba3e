/*
 * copy.c - copying one index into another. See copy.h.
 *
 * Vectors are inserted as if they came anew: whatever the graph had suffered by deletions is left behind, and
 * each layout gets the graph that building with its own codes gives. Every copy is born at the epoch of the
 * original, which is the only one that readers of the new segment will ever have asked for; so all parts of the
 * copy are published as that one epoch, and the marks begin at it: what died before was not copied.
 */
#include "server/index/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/scan.h"

/* A part is staged in the owner's thread, some milliseconds long, ... */
#define PART_MAX   2048u
#define PART_BYTES (4u << 20) /* of vectors */
/* ... and no shorter than gives all workers something to do. */
#define PART_MIN 128u

struct kithi_copy {
    struct kithi_index *from, *to;
    struct kithi_scan scan;
    uint32_t part;  /* vectors in a full part */
    float *vectors; /* of the part at hand, which the staged group points to */
    char *ids;      /* KITHI_ID_MAX + 1 bytes each */
    struct kithi_op *ops;
};

int kithi_copy_begin(struct kithi_index *from, struct kithi_index *to, struct kithi_copy **out,
                     struct kithi_errmsg *err)
{
    const uint32_t dim = from->map.geometry.dim;
    KITHI_ASSERT(dim == to->map.geometry.dim && from->map.geometry.metric == to->map.geometry.metric);
    KITHI_ASSERT(kithi_group_job_count(kithi_group_open(from)) == 0);
    KITHI_ASSERT(to->slots_used == 0 && from->sealed == 0 && !from->sweep.running);
    struct kithi_copy *c = calloc(1, sizeof *c);
    if (c) {
        size_t part = PART_BYTES / (dim * sizeof(float));
        part = part < PART_MIN ? PART_MIN : part > PART_MAX ? PART_MAX : part;
        c->from = from;
        c->to = to;
        c->part = (uint32_t)part;
        c->vectors = malloc(part * dim * sizeof *c->vectors);
        c->ids = malloc(part * (KITHI_ID_MAX + 1));
        c->ops = malloc(part * sizeof *c->ops);
    }
    if (!c || !c->vectors || !c->ids || !c->ops) {
        kithi_copy_end(c);
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    }
    kithi_scan_begin(&from->map, &c->scan);
    *out = c;
    return 0;
}

void kithi_copy_end(struct kithi_copy *c)
{
    if (!c)
        return;
    free(c->vectors);
    free(c->ids);
    free(c->ops);
    free(c);
}

/* Everything is in its place: the new header says what the old one does. */
static void finish(struct kithi_copy *c, uint64_t now_ms)
{
    const struct kithi_header *from = c->from->header;
    struct kithi_header *to = c->to->header;
    if (c->to->epoch != c->from->epoch)
        kithi_publish_group(c->to, c->from->epoch, c->from->epoch, now_ms); /* there was nothing to copy */
    /* Relaxed: nobody reads this segment before it is in its place. */
    atomic_store_explicit(&to->durable_epoch,
                          atomic_load_explicit(&from->durable_epoch, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&to->timeline, atomic_load_explicit(&from->timeline, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&to->unlinked, c->from->epoch, memory_order_relaxed);
    atomic_store_explicit(&to->reused, c->from->epoch, memory_order_relaxed);
}

int kithi_copy_stage(struct kithi_copy *c, uint64_t now_ms, struct kithi_errmsg *err)
{
    const uint32_t dim = c->from->map.geometry.dim;
    struct kithi_group_result result;
    struct kithi_item item;
    uint32_t n = 0;
    int rc = 1;
    if (kithi_group_job_count(kithi_group_open(c->to))) {
        kithi_publish_group(c->to, c->from->epoch, c->from->epoch, now_ms);
        KITHI_FAULT_CRASH("crash-in-copy");
    }
    while (n < c->part) {
        float *vector = c->vectors + (size_t)n * dim;
        char *id = c->ids + (size_t)n * (KITHI_ID_MAX + 1);
        rc = kithi_scan_next(&c->scan, &item, vector);
        if (rc != 1)
            break;
        memcpy(id, item.id, item.id_len);
        c->ops[n++] = (struct kithi_op){
            .type = KITHI_OP_UPSERT, .id_len = (uint16_t)item.id_len, .dim = dim, .id = id, .vector = vector
        };
    }
    if (rc < 0)
        return kithi_error_set(err, rc, "the segment changed while it was copied: %s", kithi_error_text(rc));
    if (n == 0) {
        finish(c, now_ms);
        return 0;
    }
    rc = KITHI_FAULT("copy-no-space")
             ? kithi_error_set(err, KITHI_E_NO_SPACE, "no room for the copy: a test wants it so")
             : kithi_group_add(c->to, c->ops, n, &result, err);
    return rc < 0 ? rc : (int)kithi_group_job_count(kithi_group_open(c->to));
}
