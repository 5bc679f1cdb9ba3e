/*
 * view.c - beginning a view, and the rarer ways from a number to a pointer.
 */
#include "shm/graph/view.h"

#include "shm/base/error.h"
#include "shm/base/id.h"
#include "shm/kernel/bits.h"
#include "shm/sync/slotbytes.h"

/* Cache lines of a row and a code that are asked for ahead until the writer has measured: the hardware's own
 * prefetcher follows from there. */
#define PREFETCH_ROW  12u
#define PREFETCH_CODE 8u

/* [P5 taken] acquire: the bytes below were allocated before the word was stored. */
static uint64_t items_taken(const struct kithi_map *m, const struct kithi_header *h, unsigned region)
{
    uint64_t taken = atomic_load_explicit(&h->taken[region], memory_order_acquire);
    if (taken > m->layout.size[region])
        taken = m->layout.size[region];
    return taken / m->layout.unit[region];
}

static uint32_t min32(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* Relaxed: a hint, made harmless by what it is compared with. */
static uint32_t lines(const _Atomic uint32_t *word, uint32_t tried, uint32_t by_default, uint32_t stride)
{
    uint32_t n = tried ? tried : atomic_load_explicit(word, memory_order_relaxed);
    uint32_t most = stride / KITHI_CACHE_LINE;
    if (n == 0)
        n = by_default;
    return n < most ? n : most;
}

void kithi_view_begin(const struct kithi_map *map, struct kithi_view *out)
{
    const struct kithi_header *h = kithi_map_header(map);
    struct kithi_view v = { .map = map, .header = h };

    /* [P9 emptied] acquire: who begins after a batch was counted finds no way to it any more. */
    v.emptied = atomic_load_explicit(&h->emptied, memory_order_acquire);

    /* [P19 postings] acquire: who begins in an era finds the epoch of every group that was published before it. Other half: store_state(). */
    v.postings = atomic_load_explicit(&h->postings, memory_order_acquire);

    /* [P1 commit] acquire: every birth and death <= epoch is final, and so is everything that
     * was taken to fill those slots: load the epoch first, the limits after it. */
    v.epoch = atomic_load_explicit(&h->epoch, memory_order_acquire);

    uint64_t slots = map->geometry.slot_max;
    slots = min32(slots, items_taken(map, h, KITHI_REGION_RECORDS));
    slots = min32(slots, items_taken(map, h, KITHI_REGION_ROWS));
    if (map->layout.size[KITHI_REGION_VECTORS])
        slots = min32(slots, items_taken(map, h, KITHI_REGION_VECTORS));
    slots = min32(slots, items_taken(map, h, KITHI_REGION_DOUBT) * 64);
    if (map->layout.size[KITHI_REGION_CODES])
        slots = min32(slots, items_taken(map, h, KITHI_REGION_CODES));
    v.slot_limit = (uint32_t)slots;
    v.slots_used = min32(slots, atomic_load_explicit(&h->slots_used, memory_order_acquire));
    v.upper_limit = min32(map->layout.upper_max, items_taken(map, h, KITHI_REGION_UPPER));
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        v.blob_limit[c] = min32(map->layout.blob_max[c], items_taken(map, h, kithi_blob_region(c)));
    v.cell_limit = min32(UINT32_MAX, items_taken(map, h, KITHI_REGION_POSTINGS));
    v.field_limit = (uint32_t)items_taken(map, h, KITHI_REGION_DICT); /* as few as the layout has */
    v.link_count0 = 2 * map->geometry.m;
    v.link_count = map->geometry.m;
    v.row_stride = map->layout.row_stride;
    v.row_blocks = map->layout.row_blocks;
    v.bits_width = map->layout.bits_width;
    v.bits_stride = kithi_bits_block_size(v.bits_width);
    v.kept = kithi_geometry_kept(&map->geometry);
    v.walked = kithi_geometry_walked(&map->geometry);
    v.vector_stride = map->layout.vector_stride;
    v.code_stride = map->layout.code_stride;
    v.upper_stride = map->layout.upper_stride;
    v.prefetch_row = lines(&h->prefetch_row, map->prefetch_row, PREFETCH_ROW, v.row_stride);
    v.prefetch_code = lines(&h->prefetch_code, map->prefetch_code, PREFETCH_CODE, v.code_stride);
    v.records = map->base + map->layout.off[KITHI_REGION_RECORDS];
    v.rows = map->base + map->layout.off[KITHI_REGION_ROWS];
    v.vectors = map->base + map->layout.off[KITHI_REGION_VECTORS];
    v.codes = v.vectors;
    if (map->layout.size[KITHI_REGION_CODES])
        v.codes = map->base + map->layout.off[KITHI_REGION_CODES];
    if (map->layout.row_code)
        v.codes = v.rows + map->layout.row_code;
    if (!map->layout.size[KITHI_REGION_VECTORS]) {
        v.vectors = v.codes;
        v.vector_stride = v.code_stride;
    }
    v.doubt = map->base + map->layout.off[KITHI_REGION_DOUBT];
    v.upper = map->base + map->layout.off[KITHI_REGION_UPPER];
    *out = v;
}

int kithi_view_begin_at(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_view *out)
{
    kithi_view_begin(map, out);
    if (kithi_moment_is_now(at))
        return 0;
    /* Relaxed: it stands for itself, and does not change while a segment has its name. */
    if (atomic_load_explicit(&out->header->timeline, memory_order_relaxed) != at->timeline)
        return KITHI_E_STALE;
    if (at->epoch > out->epoch)
        return KITHI_E_EPOCH;
    /* [P17 merged] relaxed: stored before the epoch that was acquired above, if it is one of those that matter. */
    if (at->epoch >= atomic_load_explicit(&out->header->merged_from, memory_order_relaxed) &&
        at->epoch < atomic_load_explicit(&out->header->merged_to, memory_order_relaxed))
        return KITHI_E_STALE;
    /* Limits of now cover every slot that an earlier epoch shows. */
    out->pinned = true;
    out->past = at->epoch < out->epoch;
    out->epoch = at->epoch;
    return 0;
}

/* Copied before it is decoded: the bytes may change meanwhile, and the copy is what is judged. */
static void decode(enum kithi_codec codec, const unsigned char *code, uint32_t dim, float *out)
{
    alignas(64) unsigned char copy[sizeof(struct kithi_code_head) + KITHI_DIM_MAX * sizeof(float)];
    kithi_slot_load(copy, code, kithi_code_size(codec, dim));
    kithi_code_decode(codec, copy, dim, out);
}

void kithi_view_decode_vector(const struct kithi_view *v, uint32_t slot, float *out)
{
    decode(v->kept, kithi_view_vector(v, slot), v->map->geometry.dim, out);
}

void kithi_view_decode_code(const struct kithi_view *v, uint32_t slot, float *out)
{
    decode(v->walked, kithi_view_code(v, slot), v->map->geometry.dim, out);
}

kithi_link *kithi_view_links(const struct kithi_view *v, uint32_t slot, unsigned level, uint32_t *out_count)
{
    if (level == 0) {
        *out_count = v->link_count0;
        return kithi_view_row(v, slot);
    }
    *out_count = v->link_count;
    if (level > KITHI_LEVEL_MAX)
        return NULL;
    /* Acquire along the chain: an upper row is filled before the word that leads to it. */
    uint32_t ref = atomic_load_explicit(&kithi_view_record(v, slot)->upper, memory_order_acquire);
    for (unsigned at = 1;; at++) {
        if (ref == 0 || ref > v->upper_limit)
            return NULL;
        struct kithi_upper *u = kithi_view_upper(v, ref - 1);
        if (at == level)
            return u->links;
        ref = atomic_load_explicit(&u->up, memory_order_acquire);
    }
}

struct kithi_blob *kithi_view_blob(const struct kithi_view *v, uint64_t ref, uint32_t *out_capacity)
{
    unsigned class = (unsigned)(ref >> 56);
    uint64_t number = ref & UINT64_C(0xffffffffffffff);
    if (class >= KITHI_BLOB_CLASS_COUNT || number == 0 || number > v->blob_limit[class])
        return NULL;
    const struct kithi_layout *l = &v->map->layout;
    *out_capacity = l->blob_stride[class] - (uint32_t)sizeof(struct kithi_blob);
    return (struct kithi_blob *)(void *)(v->map->base + l->off[kithi_blob_region(class)] +
                                         (number - 1) * l->blob_stride[class]);
}

size_t kithi_view_id(const struct kithi_view *v, uint32_t slot, char *out)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    uint32_t len = kithi_meta_id_len(atomic_load_explicit(&r->meta, memory_order_relaxed));
    if (len == 0 || len > KITHI_ID_MAX)
        return 0;
    uint64_t words[3];
    for (unsigned i = 0; i < 3; i++)
        words[i] = atomic_load_explicit(&r->id[i], memory_order_relaxed);
    if (len <= KITHI_ID_INLINE) {
        memcpy(out, words, len);
        return len;
    }
    uint32_t capacity;
    const struct kithi_blob *b = kithi_view_blob(v, words[0], &capacity);
    if (!b || len > capacity)
        return 0;
    kithi_slot_load(out, b->bytes, len);
    return len;
}
