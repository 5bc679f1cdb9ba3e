/*
 * geometry.c - the layout function. A change here is a change of format.
 */
#include "shm/layout/geometry.h"

#include <string.h>

#include "shm/base/bytes.h"
#include "shm/kernel/bits.h"
#include "shm/layout/blob.h"
#include "shm/layout/header.h"
#include "shm/layout/ids.h"
#include "shm/layout/postings.h"
#include "shm/layout/record.h"
#include "shm/layout/row.h"

static const uint32_t blob_strides[KITHI_BLOB_CLASS_COUNT] = { 64, 128, 256, 576, 1024, 4096, 16384, 65600 };
_Static_assert(576 >= sizeof(struct kithi_blob) + 511, "an old class takes the longest id");
_Static_assert(65600 >= sizeof(struct kithi_blob) + sizeof(struct kithi_payload_head) + KITHI_PAYLOAD_BYTES,
               "the largest class takes the longest payload");
/*
 * One slot in so many may have a blob of a class. Only address space is taken for them, but mappings of it add up: with 16 million slots these
 * are 16 to 40 GiB a class, more than the memory of most machines, and every one of 65536 slots may have the largest.
 */
static const uint32_t blob_shares[KITHI_BLOB_CLASS_COUNT] = { 1, 1, 1, 1, 1, 2, 8, 32 };
#define BLOB_FLOOR 65536u
/* Classes that take ids have room for as many payloads beside one of each slot. */
#define ID_CLASSES 4u
/* Versions that were replaced rest for a while: room for a quarter more, and for so many where there are few. */
#define BLOB_SPARE 4096u
/* Postings have so many bytes a slot, and for a few large fields where there are few: a ceiling, memory is used as far as values differ. */
#define POSTINGS_SHARE 64u
#define POSTINGS_FLOOR (16u << 20)
/* A payload's reference is of so many (blob.h). */
#define BLOB_MOST 0x1fffffffu

const char *kithi_region_name(unsigned region)
{
    static const char *const names[KITHI_REGION_COUNT] = {
        "header", "records", "rows",  "vectors", "doubt",    "upper",  "ids0",  "ids1",  "blob0", "blob1",
        "blob2",  "blob3",   "codes", "dict",    "postings", "writer", "blob4", "blob5", "blob6", "blob7"
    };
    return region < KITHI_REGION_COUNT ? names[region] : "?";
}

const char *kithi_metric_name(uint32_t metric)
{
    switch (metric) {
    case KITHI_METRIC_L2: return "l2";
    case KITHI_METRIC_COSINE: return "cosine";
    case KITHI_METRIC_IP: return "ip";
    default: return "?";
    }
}

const char *kithi_quantization_name(uint32_t quantization)
{
    static const char *const names[] = { "none", "f16", "sq8", "bits", "auto" };
    return quantization < sizeof names / sizeof *names ? names[quantization] : "?";
}

const char *kithi_keep_name(uint32_t keep)
{
    static const char *const names[] = { "f32", "f16", "none" };
    return keep < sizeof names / sizeof *names ? names[keep] : "?";
}

uint32_t kithi_geometry_code_bits(uint32_t dim)
{
    /* The error of an estimate falls with the square root of the bits: below this a second one an element pays
     * (bench_core: sift-grocery, 128-d, 12 % more searches a second at recall 0.95; mlnotes, 384-d, 13 % fewer). */
    return dim <= 256 ? 2 : 1;
}

void kithi_geometry_want(struct kithi_geometry *g, uint32_t quantization, uint32_t keep)
{
    bool plain = quantization == KITHI_QUANTIZATION_AUTO;
    g->quantization = plain ? KITHI_QUANTIZATION_NONE : quantization;
    g->keep = plain && keep <= KITHI_KEEP_NONE ? KITHI_KEEP_F32 : keep;
    g->code_bits = quantization == KITHI_QUANTIZATION_BITS ? kithi_geometry_code_bits(g->dim) : 0;
}

enum kithi_codec kithi_geometry_walked(const struct kithi_geometry *g)
{
    switch (g->quantization) {
    case KITHI_QUANTIZATION_F16: return KITHI_CODEC_F16;
    case KITHI_QUANTIZATION_SQ8:
    case KITHI_QUANTIZATION_BITS: return KITHI_CODEC_SQ8;
    default: return KITHI_CODEC_F32;
    }
}

enum kithi_codec kithi_geometry_kept(const struct kithi_geometry *g)
{
    switch (g->keep) {
    case KITHI_KEEP_F16: return KITHI_CODEC_F16;
    case KITHI_KEEP_NONE: return kithi_geometry_walked(g);
    default: return KITHI_CODEC_F32;
    }
}

static int check_codes(const struct kithi_geometry *g, struct kithi_errmsg *err)
{
    if (g->quantization > KITHI_QUANTIZATION_BITS)
        return kithi_error_set(err, KITHI_E_UNSUPPORTED,
                               "quantization %u is not in this version; use none, f16, sq8, bits or auto",
                               g->quantization);
    if (g->keep > KITHI_KEEP_NONE)
        return kithi_error_set(err, KITHI_E_UNSUPPORTED,
                               "keep %u is not in this version; use f32, f16 or none", g->keep);
    if (g->quantization == KITHI_QUANTIZATION_NONE && g->keep != KITHI_KEEP_F32)
        return kithi_error_set(err, KITHI_E_PARAMETER,
                               "without quantization vectors are kept as f32; for less memory use "
                               "quantization f16, sq8 or bits with keep %s",
                               kithi_keep_name(g->keep));
    bool bits = g->quantization == KITHI_QUANTIZATION_BITS;
    if (bits ? g->code_bits < 1 || g->code_bits > 2 : g->code_bits != 0)
        return kithi_error_set(err, KITHI_E_PARAMETER, "%u bits an element do not go with quantization %s",
                               g->code_bits, kithi_quantization_name(g->quantization));
    return 0;
}

int kithi_geometry_check(const struct kithi_geometry *g, struct kithi_errmsg *err)
{
    if (g->dim < 1 || g->dim > KITHI_DIM_MAX)
        return kithi_error_set(err, KITHI_E_PARAMETER, "dim is %u; it must be 1 to %u", g->dim,
                               KITHI_DIM_MAX);
    if (g->metric < KITHI_METRIC_L2 || g->metric > KITHI_METRIC_IP)
        return kithi_error_set(err, KITHI_E_PARAMETER, "metric %u is unknown; use l2, cosine or ip",
                               g->metric);
    if (g->m < KITHI_M_MIN || g->m > KITHI_M_MAX)
        return kithi_error_set(err, KITHI_E_PARAMETER, "m is %u; it must be %u to %u", g->m, KITHI_M_MIN,
                               KITHI_M_MAX);
    if (g->ef_construction < 1 || g->ef_construction > KITHI_EF_CONSTRUCTION_MAX)
        return kithi_error_set(err, KITHI_E_PARAMETER, "ef_construction is %u; it must be 1 to %u",
                               g->ef_construction, KITHI_EF_CONSTRUCTION_MAX);
    int rc = check_codes(g, err);
    if (rc < 0)
        return rc;
    if (g->slot_max < 1 || g->slot_max > KITHI_SLOT_MAX_LIMIT)
        return kithi_error_set(err, KITHI_E_PARAMETER, "max-vectors is %u; it must be 1 to %u", g->slot_max,
                               KITHI_SLOT_MAX_LIMIT);
    return 0;
}

/* Codes begin on a cache line; short ones share a line without crossing its end. */
static uint32_t code_stride(enum kithi_codec codec, uint32_t dim)
{
    uint32_t bytes = kithi_code_size(codec, dim), stride = 4;
    if (bytes > 32)
        return (uint32_t)kithi_round_up(bytes, KITHI_CACHE_LINE);
    while (stride < bytes)
        stride *= 2;
    return stride;
}

static uint32_t pow2_at_least(uint64_t n)
{
    uint64_t p = KITHI_IDS_CAPACITY_MIN;
    while (p < n)
        p *= 2;
    return (uint32_t)p;
}

static uint32_t blobs_of(unsigned class, uint64_t slots)
{
    uint64_t n = slots / blob_shares[class], least = slots < BLOB_FLOOR ? slots : BLOB_FLOOR;
    n = n > least ? n : least;
    n += n / 4 + BLOB_SPARE + (class < ID_CLASSES ? slots : 0);
    return (uint32_t)(n < BLOB_MOST ? n : BLOB_MOST);
}

uint32_t kithi_geometry_slots_for(unsigned class, uint64_t blobs)
{
    uint32_t low = 1, high = KITHI_SLOT_MAX_LIMIT;
    if (blobs_of(class, high) < blobs)
        return 0;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (blobs_of(class, mid) >= blobs)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static uint64_t fold(uint64_t sum, uint64_t v)
{
    sum ^= v;
    sum *= UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ (sum >> 29);
}

void kithi_geometry_layout(const struct kithi_geometry *g, struct kithi_layout *out)
{
    struct kithi_layout l;
    memset(&l, 0, sizeof l);
    uint64_t slots = g->slot_max;
    enum kithi_codec kept = kithi_geometry_kept(g), walked = kithi_geometry_walked(g);
    l.vector_stride = code_stride(kept, g->dim);
    l.code_stride = code_stride(walked, g->dim);
    l.row_stride = (uint32_t)kithi_round_up(2u * g->m * sizeof(uint32_t), KITHI_CACHE_LINE);
    if (g->quantization == KITHI_QUANTIZATION_BITS) {
        /* All that an expansion reads, in the order in which it is read: links, the slot's own code, its neighbours'. */
        uint32_t blocks = (2u * g->m + KITHI_BITS_PLACES - 1) / KITHI_BITS_PLACES;
        l.bits_width = kithi_bits_width(g->dim, g->code_bits);
        l.row_code = l.row_stride;
        l.row_blocks =
            l.row_code + (uint32_t)kithi_round_up(kithi_code_size(walked, g->dim), KITHI_CACHE_LINE);
        l.row_stride = l.row_blocks + blocks * kithi_bits_block_size(l.bits_width);
        l.code_stride = l.row_stride;
    }
    l.upper_stride = (uint32_t)kithi_round_up(sizeof(struct kithi_upper) + g->m * sizeof(uint32_t), 8);
    /* A slot has 1/(m-1) upper rows on average; the rest is for luck. A drawn level that finds no
     * upper row left is lowered, so running out costs nothing but a little speed. */
    l.upper_max = (uint32_t)(slots / (g->m - 1) + slots / 16 + 64);
    l.id_capacity_max = pow2_at_least(2 * slots);
    memcpy(l.blob_stride, blob_strides, sizeof blob_strides);

    uint32_t *unit = l.unit;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        unit[r] = 1;
    unit[KITHI_REGION_RECORDS] = sizeof(struct kithi_record);
    unit[KITHI_REGION_ROWS] = l.row_stride;
    unit[KITHI_REGION_VECTORS] = l.vector_stride;
    unit[KITHI_REGION_CODES] = l.row_code ? 1 : l.code_stride;
    unit[KITHI_REGION_DOUBT] = sizeof(uint64_t);
    unit[KITHI_REGION_UPPER] = l.upper_stride;
    unit[KITHI_REGION_IDS0] = unit[KITHI_REGION_IDS1] = sizeof(uint64_t);
    unit[KITHI_REGION_DICT] = sizeof(struct kithi_postings_field);
    unit[KITHI_REGION_POSTINGS] = KITHI_POSTINGS_CELL;

    l.size[KITHI_REGION_HEADER] = KITHI_HEADER_SIZE;
    l.size[KITHI_REGION_RECORDS] = slots * unit[KITHI_REGION_RECORDS];
    l.size[KITHI_REGION_ROWS] = slots * l.row_stride;
    l.size[KITHI_REGION_VECTORS] = l.row_code && walked == kept ? 0 : slots * l.vector_stride;
    l.size[KITHI_REGION_CODES] = l.row_code || walked == kept ? 0 : slots * l.code_stride;
    l.size[KITHI_REGION_DOUBT] = (slots + 63) / 64 * 8;
    l.size[KITHI_REGION_UPPER] = (uint64_t)l.upper_max * l.upper_stride;
    l.size[KITHI_REGION_IDS0] = l.size[KITHI_REGION_IDS1] = (uint64_t)l.id_capacity_max * 8;
    l.size[KITHI_REGION_DICT] = KITHI_POSTINGS_FIELDS * sizeof(struct kithi_postings_field);
    l.size[KITHI_REGION_POSTINGS] = POSTINGS_FLOOR + slots * POSTINGS_SHARE;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) {
        l.blob_max[c] = blobs_of(c, slots);
        unit[kithi_blob_region(c)] = blob_strides[c];
        l.size[kithi_blob_region(c)] = (uint64_t)l.blob_max[c] * blob_strides[c];
    }

    uint64_t sum = fold(KITHI_FORMAT_VERSION, slots);
    sum = fold(sum, (uint64_t)g->dim << 32 | g->m);
    sum = fold(sum, (uint64_t)g->quantization << 32 | g->keep << 8 | g->code_bits);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        l.off[r] = l.total;
        l.total += kithi_round_up(l.size[r], KITHI_REGION_ALIGN);
        sum = fold(fold(fold(sum, l.off[r]), l.size[r]), unit[r]);
    }
    l.sum = sum;
    *out = l;
}
