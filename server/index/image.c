/*
 * image.c - copying an index out. See image.h.
 *
 * Records come first, each read inside its birth window, and tell which slots finders may lead to. A link to any
 * other slot is left out: it is to a slot that was free then, and is not part of the image. So an image has links to
 * slots that it holds only, some of them dead or not born yet, which restoring hands on as a sweep does.
 *
 * Nothing that a slot of the epoch refers to goes away meanwhile: its upper rows and its blob are freed with it, and it is
 * not freed ([P11 image]). Nor is a version of its payload that was replaced since: a record is copied with that of the epoch.
 */
#include "server/index/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/base/bytes.h"
#include "shm/graph/payload.h"
#include "shm/sync/slotbytes.h"

#define CHUNK_BYTES (1u << 20) /* about */
#define PAGE        4096u
#define TRIES       4u /* a record that is being refilled as often as that is none of the epoch */

struct kithi_image {
    struct kithi_index *ix;
    struct kithi_image_shape shape;
    struct kithi_map map;   /* of the beginning: the index may go on in a larger segment meanwhile */
    struct kithi_view view; /* the same */
    uint64_t *linked;       /* bitmap by slot: as its record was copied. Chunks share no word */
};

/* ---- how much ---- */

static uint64_t whole_chunk(uint64_t unit)
{
    uint64_t a = unit, b = PAGE;
    while (b) { /* the greatest common divisor */
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    uint64_t least = unit / a * PAGE;
    return least < CHUNK_BYTES ? CHUNK_BYTES / least * least : least;
}

static bool put_region(const struct kithi_layout *l, struct kithi_image_shape *shape, unsigned region,
                       uint64_t items)
{
    uint64_t unit = l->unit[region];
    if (l->size[region] == 0)
        return true;
    shape->regions[region].bytes = items * unit;
    shape->regions[region].chunk = (uint32_t)whole_chunk(unit);
    return items * unit <= l->size[region];
}

int kithi_image_regions(const struct kithi_geometry *g, const struct kithi_layout *l,
                        struct kithi_image_shape *shape, struct kithi_errmsg *err)
{
    memset(shape->regions, 0, sizeof shape->regions);
    bool fits = shape->slots <= g->slot_max && shape->live <= shape->slots;
    fits = put_region(l, shape, KITHI_REGION_RECORDS, shape->slots) && fits;
    fits = put_region(l, shape, KITHI_REGION_ROWS, shape->slots) && fits;
    fits = put_region(l, shape, KITHI_REGION_UPPER, shape->uppers) && fits;
    if (l->row_code == 0) /* else codes stand in rows */
        fits = put_region(l, shape, KITHI_REGION_CODES, shape->slots) && fits;
    fits = put_region(l, shape, KITHI_REGION_VECTORS, shape->slots) && fits;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        fits = put_region(l, shape, kithi_blob_region(c), shape->blobs[c]) && fits;
    return fits ? 0
                : kithi_error_set(err, KITHI_E_CORRUPT,
                                  "%u slots with %u upper rows are more than the collection has room for",
                                  shape->slots, shape->uppers);
}

/* ---- beginning and end ---- */

int kithi_image_begin(struct kithi_index *ix, struct kithi_image **out, struct kithi_errmsg *err)
{
    KITHI_ASSERT(!kithi_index_census_due(ix));
    struct kithi_image *image = calloc(1, sizeof *image);
    if (image)
        image->linked = calloc(((size_t)ix->slots_used + 63) / 64 + 1, sizeof *image->linked);
    if (!image || !image->linked) {
        free(image);
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    }
    struct kithi_image_shape *s = &image->shape;
    image->ix = ix;
    image->map = ix->map;
    kithi_view_begin(&image->map, &image->view);
    /*
     * Versions since may lie in memory that is taken at any moment, also of one chunk. Whoever finds the reference of one by acquire
     * has the memory, too: it was taken before the version was filled, and that before the record led to it. The ceilings of
     * the layout are within the mapping, so they are limit enough.
     */
    memcpy(image->view.blob_limit, image->map.layout.blob_max, sizeof image->view.blob_limit);
    s->epoch = ix->epoch;
    s->timeline =
        atomic_load_explicit(&ix->header->timeline, memory_order_relaxed); /* this thread stored it */
    s->live = ix->live;
    s->slots = ix->slots_used;
    s->uppers = ix->upper_used;
    memcpy(s->blobs, ix->blob_used, sizeof s->blobs);
    /* What an index has in use it has memory for, within its ceilings. */
    int rc = kithi_image_regions(&ix->map.geometry, &ix->map.layout, s, NULL);
    KITHI_ASSERT(rc == 0);
    ix->imaged = true;
    ix->image_epoch = s->epoch;
    *out = image;
    return 0;
}

const struct kithi_image_shape *kithi_image_shape(const struct kithi_image *image)
{
    return &image->shape;
}

void kithi_image_end(struct kithi_image *image)
{
    if (!image)
        return;
    image->ix->imaged = false;
    free(image->linked);
    free(image);
}

uint32_t kithi_image_held(const struct kithi_index *ix)
{
    return ix->imaged
               ? ix->dead.count + ix->sweep.slots_doomed.count + ix->resting.count + ix->old_payloads.count
               : 0;
}

/* ---- copying ---- */

/* Word by word: what is of the epoch may die meanwhile, and half an epoch is another one. */
static void copy_words(const struct kithi_record *from, struct kithi_record *to)
{
#define COPY(field)                                                                                          \
    atomic_store_explicit(&to->field, atomic_load_explicit(&from->field, memory_order_relaxed),              \
                          memory_order_relaxed)
    COPY(death);
    COPY(linked);
    COPY(prev);
    COPY(upper);
    COPY(norm);
    COPY(meta);
    COPY(id[0]);
    COPY(id[1]);
    COPY(id[2]);
#undef COPY
}

/*
 * A record of one piece, or one of nobody. False: of a slot of the epoch it cannot be told which payload it had, which only a damaged segment
 * brings about: the version of the epoch, and all that have replaced it, are there to the end, each born before anything led to it, so
 * that they are found at the first try. What died at the epoch or before may be freed meanwhile; then its birth is another one, too.
 */
static bool copy_record(struct kithi_image *image, uint32_t slot, struct kithi_record *to)
{
    const struct kithi_record *r = kithi_view_record(&image->view, slot);
    const uint64_t epoch = image->shape.epoch;
    bool known = true;
    for (unsigned i = 0; i < TRIES; i++) {
        /* [P2 birth] as for readers: a slot of the epoch keeps its birth; one that is being refilled may change it. */
        uint64_t birth = kithi_birth_begin(r);
        uint32_t payload = 0;
        copy_words(r, to);
        /* That of the epoch, which is held like its slot; a later version may be beyond the image. Of a slot that is not of the epoch any. */
        bool found = kithi_view_payload_ref(&image->view, slot, epoch, &payload);
        atomic_store_explicit(&to->payload, found ? payload : 0, memory_order_relaxed);
        if (!kithi_birth_same(r, birth))
            continue;
        if (!atomic_load_explicit(&to->linked, memory_order_relaxed))
            break;
        known = found || birth == 0 || birth > epoch;
        if (!known)
            continue;
        atomic_store_explicit(&to->birth, birth, memory_order_relaxed);
        image->linked[slot / 64] |= UINT64_C(1) << (slot % 64);
        return true;
    }
    memset(to, 0, sizeof *to);
    return known;
}

static bool is_linked(const struct kithi_image *image, uint32_t link)
{
    uint32_t slot = link - 1;
    return slot < image->shape.slots && (image->linked[slot / 64] >> (slot % 64) & 1);
}

/*
 * Links, and what stands behind them in the row. [P10 place] A place that leads to the same slot before and after its code was
 * copied has the code of that slot: the writer empties a place before it changes the code. Other half: kithi_row_put().
 */
static void copy_links(const struct kithi_image *image, const kithi_link *links, uint32_t count,
                       const unsigned char *rest, size_t rest_len, unsigned char *to, unsigned char *to_rest)
{
    uint32_t before[2 * KITHI_M_MAX];
    for (uint32_t i = 0; i < count; i++)
        before[i] = atomic_load_explicit(&links[i], memory_order_acquire);
    if (rest_len)
        kithi_slot_load(to_rest, rest, rest_len);
    atomic_thread_fence(memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
        if (link != before[i] || !is_linked(image, link))
            link = 0;
        memcpy(to + i * sizeof link, &link, sizeof link);
    }
}

static void copy_row(const struct kithi_image *image, uint32_t slot, unsigned char *to)
{
    const struct kithi_view *v = &image->view;
    const struct kithi_layout *l = &v->map->layout;
    const unsigned char *row = (const unsigned char *)kithi_view_row(v, slot);
    size_t links = v->link_count0 * sizeof(kithi_link), head = l->row_code ? l->row_code : l->row_stride;
    memset(to + links, 0, head - links);
    copy_links(image, kithi_view_row(v, slot), v->link_count0, row + head, l->row_stride - head, to,
               to + head);
}

static void copy_upper(const struct kithi_image *image, uint32_t number, unsigned char *to)
{
    const struct kithi_view *v = &image->view;
    const struct kithi_upper *u = kithi_view_upper(v, number);
    memset(to, 0, v->upper_stride);
    uint32_t head[2] = { atomic_load_explicit(&u->owner, memory_order_relaxed),
                         atomic_load_explicit(&u->up, memory_order_relaxed) };
    memcpy(to, head, sizeof head);
    copy_links(image, u->links, v->link_count, NULL, 0, to + sizeof *u, NULL);
}

int kithi_image_copy(struct kithi_image *image, unsigned region, uint64_t off, uint32_t len, void *to)
{
    const struct kithi_map *map = image->view.map;
    uint32_t unit = map->layout.unit[region], first = (uint32_t)(off / unit), count = len / unit;
    unsigned char *out = to;
    switch (region) {
    case KITHI_REGION_RECORDS:
        for (uint32_t i = 0; i < count; i++)
            if (!copy_record(image, first + i, (struct kithi_record *)to + i))
                return KITHI_E_CORRUPT;
        break;
    case KITHI_REGION_ROWS:
        for (uint32_t i = 0; i < count; i++)
            copy_row(image, first + i, out + (size_t)i * unit);
        break;
    case KITHI_REGION_UPPER:
        for (uint32_t i = 0; i < count; i++)
            copy_upper(image, first + i, out + (size_t)i * unit);
        break;
    default: kithi_slot_load(out, map->base + map->layout.off[region] + off, len); break;
    }
    return 0;
}
