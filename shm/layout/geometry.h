/*
 * geometry.h - where everything lies in a segment, computed and never read.
 *
 * A segment's layout is a function of eight numbers. Both sides compute it from them, attach
 * compares the sum, and no offset that stands in shared memory is ever believed.
 */
#ifndef KITHI_LAYOUT_GEOMETRY_H
#define KITHI_LAYOUT_GEOMETRY_H

#include <stdint.h>

#include "shm/base/error.h"
#include "shm/kernel/codec.h"
#include "shm/kernel/distance.h"

#define KITHI_M_MIN                   2u
#define KITHI_M_MAX                   64u
#define KITHI_M_DEFAULT               16u
#define KITHI_EF_CONSTRUCTION_DEFAULT 200u
#define KITHI_EF_CONSTRUCTION_MAX     65536u
#define KITHI_SLOT_MAX_DEFAULT        (1u << 24)
#define KITHI_SLOT_MAX_LIMIT          (1u << 28) /* beams keep two flag bits beside a slot number */
#define KITHI_LEVEL_MAX               15u        /* top level of any slot */
#define KITHI_REGION_ALIGN            (2u << 20) /* so that huge pages can back a region */

/* The numbers are format: they index the header's taken[] words. */
enum kithi_region {
    KITHI_REGION_HEADER = 0,
    KITHI_REGION_RECORDS = 1, /* one struct kithi_record a slot */
    KITHI_REGION_ROWS = 2,    /* one level-0 row a slot */
    KITHI_REGION_VECTORS = 3, /* one kept vector a slot, padded to the stride */
    KITHI_REGION_DOUBT = 4,   /* one bit a slot */
    KITHI_REGION_UPPER = 5,   /* rows of the levels above 0 */
    KITHI_REGION_IDS0 = 6,    /* the id table lives in one of two areas */
    KITHI_REGION_IDS1 = 7,
    KITHI_REGION_BLOB0 = 8, /* one region for each size class of blobs */
    KITHI_REGION_BLOB1 = 9,
    KITHI_REGION_BLOB2 = 10,
    KITHI_REGION_BLOB3 = 11,
    KITHI_REGION_CODES = 12,    /* codes that the walk reads, where they are not the vectors themselves */
    KITHI_REGION_DICT = 13,     /* fields of payloads that have postings (postings.h) */
    KITHI_REGION_POSTINGS = 14, /* their terms, and the slots of each */
    KITHI_REGION_WRITER = 15,   /* reserved: what a later writer wants to find again */
    KITHI_REGION_BLOB4 = 16,    /* larger classes of blobs */
    KITHI_REGION_BLOB5 = 17,
    KITHI_REGION_BLOB6 = 18,
    KITHI_REGION_BLOB7 = 19,
    KITHI_REGION_COUNT = 20,
};

#define KITHI_BLOB_CLASS_COUNT 8u
#define KITHI_BLOB_CLASSES_OLD 4u /* of segments up to version 2; the largest of them takes the longest id */
#define KITHI_PAYLOAD_BYTES    65536u /* the longest payload */

/* Where blobs of a class lie. */
static inline unsigned kithi_blob_region(unsigned class)
{
    return class < KITHI_BLOB_CLASSES_OLD ? KITHI_REGION_BLOB0 + class
                                          : KITHI_REGION_BLOB4 + (class - KITHI_BLOB_CLASSES_OLD);
}

/* The other way round; KITHI_BLOB_CLASS_COUNT: it has no blobs. */
static inline unsigned kithi_region_blob_class(unsigned region)
{
    if (region >= KITHI_REGION_BLOB0 && region <= KITHI_REGION_BLOB3)
        return region - KITHI_REGION_BLOB0;
    if (region >= KITHI_REGION_BLOB4 && region <= KITHI_REGION_BLOB7)
        return KITHI_BLOB_CLASSES_OLD + (region - KITHI_REGION_BLOB4);
    return KITHI_BLOB_CLASS_COUNT;
}

enum kithi_quantization { /* the numbers are format */
                          KITHI_QUANTIZATION_NONE = 0,
                          KITHI_QUANTIZATION_F16 = 1,
                          KITHI_QUANTIZATION_SQ8 = 2,
                          KITHI_QUANTIZATION_BITS =
                              3, /* sq8, and one-bit codes of the neighbours in each row */
                          KITHI_QUANTIZATION_AUTO =
                              4, /* of a collection, never of a segment: it chooses one above */
};

enum kithi_keep { /* the numbers are format: what answers are scored by and vectors are given back from */
                  KITHI_KEEP_F32 = 0,
                  KITHI_KEEP_F16 = 1,
                  KITHI_KEEP_NONE = 2, /* the codes alone */
};

/* What a segment is; fixed for its life. */
struct kithi_geometry {
    uint32_t dim;             /* 1..4096 */
    uint32_t metric;          /* enum kithi_metric */
    uint32_t m;               /* 2..64 links a level; level 0 has 2m */
    uint32_t ef_construction; /* 1..65536 */
    uint32_t quantization;    /* enum kithi_quantization, not AUTO */
    uint32_t keep;            /* enum kithi_keep; F32 without quantization */
    uint32_t code_bits;       /* bits an element of neighbour codes: 1 or 2; 0 unless BITS */
    uint32_t slot_max;        /* 1..2^28 */
};

struct kithi_layout {
    uint64_t off[KITHI_REGION_COUNT];  /* bytes from the segment base, multiples of 2 MiB */
    uint64_t size[KITHI_REGION_COUNT]; /* bytes of address space; memory is taken up to taken[] */
    uint64_t total;                    /* bytes of the file */
    uint64_t sum;                      /* all of the above folded together */
    uint32_t row_stride;               /* bytes of a level-0 row */
    uint32_t row_code;                 /* where the slot's own code stands in its row: bytes; 0: not there */
    uint32_t row_blocks;               /* where its neighbour codes begin: bytes */
    uint32_t bits_width;               /* signs of a neighbour code; 0: rows have none */
    uint32_t vector_stride;            /* bytes of a kept vector */
    uint32_t code_stride;              /* bytes of a code; that of a vector when the walk reads those */
    uint32_t upper_stride;             /* bytes of an upper row */
    uint32_t upper_max;                /* upper rows */
    uint32_t id_capacity_max;          /* entries of the largest id table, a power of two */
    uint32_t blob_stride[KITHI_BLOB_CLASS_COUNT];
    uint32_t blob_max[KITHI_BLOB_CLASS_COUNT]; /* blobs */
    uint32_t unit[KITHI_REGION_COUNT];         /* bytes of one item of a region; 1 where it has no items */
};

/* "header", "records", ...; never NULL. */
const char *kithi_region_name(unsigned region);

/* "l2", "cosine", "ip", or "?" */
const char *kithi_metric_name(uint32_t metric);

/* "none", "f16", "sq8", "bits", "auto", or "?" */
const char *kithi_quantization_name(uint32_t quantization);

/* "f32", "f16", "none", or "?" */
const char *kithi_keep_name(uint32_t keep);

/* Bits an element that neighbour codes get where nobody says: 1 or 2. */
uint32_t kithi_geometry_code_bits(uint32_t dim);

/*
 * Give g the codes that somebody wants who knows AUTO, too: one that has not chosen yet begins plain. Numbers that
 * are unknown stay as they are, for kithi_geometry_check() to name.
 */
void kithi_geometry_want(struct kithi_geometry *g, uint32_t quantization, uint32_t keep);

/* The codec of kept vectors, and the one that the walk reads; the same: there is one region for both. */
enum kithi_codec kithi_geometry_kept(const struct kithi_geometry *g);
enum kithi_codec kithi_geometry_walked(const struct kithi_geometry *g);

/* 0, or KITHI_E_PARAMETER / KITHI_E_UNSUPPORTED with a sentence that names the number and its range. */
int kithi_geometry_check(const struct kithi_geometry *g, struct kithi_errmsg *err);

/* The layout of a checked geometry. */
void kithi_geometry_layout(const struct kithi_geometry *g, struct kithi_layout *out);
/* The least ceiling of slots under which a layout has so many blobs of a class; 0: none has. */
uint32_t kithi_geometry_slots_for(unsigned class, uint64_t blobs);

#endif
