/*
 * order.c - see order.h.
 *
 * From the entry point the graph is gone through breadth first, but only until a block is full: slots that lead to each
 * other. What the block leads to besides is put on a stack, and the next block begins with what was put there last, so that it lies
 * beside its neighbours, too. Without blocks, breadth first all through, the layers of the walk soon hold a thousand
 * slots between any two that lead to each other.
 *
 * The blocks are given in another order than they were found, each from another region than the one before. What is copied goes into
 * a graph that grows: if it came region after region, the first vectors of each would find only those of others to be linked with, and
 * of 400,000 vectors (sift-grocery, bits) recall@10 at ef 64 and 128 was 0.9740 and 0.9930 instead of the 0.9778 and 0.9953 of those that were
 * written one by one. With the blocks apart it is 0.9771 and 0.9947, beside 0.9781 and 0.9948 of that run.
 *
 * Trusts nothing: a link is compared with the limits of the view, and each slot is placed once.
 */
#include "server/index/order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"

/*
 * Slots of a block. With one graph of 400,000 vectors (sift-grocery, bits, huge pages) whose slots were put into several orders,
 * the links that lead into the same 2 MiB of rows, and half of the searches take (kith bench --threads 1, ef 64 and 128):
 *
 *     as they were written     0.5 %    61 us   111 us
 *     by chance                0.3 %    67 us   127 us
 *     breadth first            4.8 %    63 us   122 us
 *     blocks of 64            11.6 %    63 us   106 us
 *     blocks of 256           13.5 %    59 us   102 us
 *
 * on a machine with other work, so that a few percent either way say nothing.
 */
#define BLOCK 256u
/* Of one piece: some milliseconds. */
#define STEP_SLOTS 8192u

struct kithi_order {
    struct kithi_view view; /* of the beginning */
    uint32_t *slots;        /* the order; those from head to tail are to be expanded, */
    uint32_t head, tail;
    uint32_t block_end;     /* and placed up to here before the next block */
    uint32_t *stack, depth; /* where blocks may begin; a slot is there once */
    uint64_t *placed, *stacked;
    uint32_t stride; /* in blocks as they were found, from one that is given to the next */
    uint32_t rest;   /* slots below were asked whether they are placed, once the stack was empty */
};

static bool has(const uint64_t *bits, uint32_t slot)
{
    return bits[slot / 64] >> (slot % 64) & 1;
}

static void set(uint64_t *bits, uint32_t slot)
{
    bits[slot / 64] |= UINT64_C(1) << (slot % 64);
}

static void place(struct kithi_order *o, uint32_t slot)
{
    set(o->placed, slot);
    o->slots[o->tail++] = slot;
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* About the golden part of n, so that few steps come by everywhere, and without a common divisor, so that n steps do so once. */
static uint32_t stride(uint32_t n)
{
    uint32_t s = (uint32_t)(UINT64_C(618) * n / 1000) | 1;
    while (common_divisor(s, n) > 1)
        s++;
    return s;
}

int kithi_order_new(const struct kithi_index *ix, struct kithi_order **out, struct kithi_errmsg *err)
{
    struct kithi_order *o = calloc(1, sizeof *o);
    if (o) {
        kithi_view_begin(&ix->map, &o->view);
        size_t n = o->view.slots_used;
        o->slots = malloc((n + 1) * sizeof *o->slots);
        o->stack = malloc((n + 1) * sizeof *o->stack);
        o->placed = calloc(n / 64 + 1, sizeof *o->placed);
        o->stacked = calloc(n / 64 + 1, sizeof *o->stacked);
    }
    if (!o || !o->slots || !o->stack || !o->placed || !o->stacked) {
        kithi_order_free(o);
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    }
    uint32_t entry = kithi_entry_link(atomic_load_explicit(&ix->header->entry, memory_order_acquire)) - 1;
    if (entry < o->view.slots_used) {
        set(o->stacked, entry);
        o->stack[o->depth++] = entry;
    }
    o->stride = stride(o->view.slots_used / BLOCK);
    *out = o;
    return 0;
}

bool kithi_order_is_done(const struct kithi_order *o)
{
    return o->tail == o->view.slots_used;
}

static void expand(struct kithi_order *o, uint32_t slot)
{
    const kithi_link *row = kithi_view_row(&o->view, slot);
    for (uint32_t i = 0; i < o->view.link_count0; i++) {
        /* Relaxed: a number that is judged by the limit, and by nothing that it leads to. */
        uint32_t other = atomic_load_explicit(&row[i], memory_order_relaxed) - 1;
        if (other >= o->view.slots_used || has(o->placed, other))
            continue;
        if (o->tail < o->block_end) {
            place(o, other);
        } else if (!has(o->stacked, other)) {
            set(o->stacked, other);
            o->stack[o->depth++] = other;
        }
    }
}

void kithi_order_job(struct kithi_order *o)
{
    for (uint32_t n = 0; n < STEP_SLOTS && !kithi_order_is_done(o); n++) {
        if (o->head < o->tail) {
            expand(o, o->slots[o->head++]);
        } else if (o->depth) {
            uint32_t slot = o->stack[--o->depth];
            if (!has(o->placed, slot)) {
                place(o, slot);
                o->block_end = o->view.slots_used - o->head > BLOCK ? o->head + BLOCK : o->view.slots_used;
            }
        } else {
            /* What nothing led to: each begins a block, and so on. */
            while (has(o->placed, o->rest))
                o->rest++;
            place(o, o->rest);
            o->block_end = o->tail + BLOCK < o->view.slots_used ? o->tail + BLOCK : o->view.slots_used;
        }
    }
}

uint32_t kithi_order_total(const struct kithi_order *o)
{
    return o->view.slots_used;
}

uint32_t kithi_order_slot(const struct kithi_order *o, uint32_t i)
{
    uint32_t blocks = o->view.slots_used / BLOCK, block = i / BLOCK;
    if (block < blocks)
        block = (uint32_t)((uint64_t)block * o->stride % blocks);
    return o->slots[block * BLOCK + i % BLOCK];
}

void kithi_order_free(struct kithi_order *o)
{
    if (!o)
        return;
    free(o->slots);
    free(o->stack);
    free(o->placed);
    free(o->stacked);
    free(o);
}
