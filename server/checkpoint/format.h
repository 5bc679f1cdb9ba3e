/*
 * format.h - the bytes of a checkpoint: an image of a segment's regions (server/index/image.h), and their checksums.
 *
 *      0 +--------------------------------------------------+
 *        | header, 4096 bytes: what is here, and how much   |
 *   4096 +--------------------------------------------------+
 *        | region after region, by number: its bytes in use,|
 *        | zeros up to a multiple of 4096                   |
 *        +--------------------------------------------------+
 *        | table: a checksum for each chunk of a region     |
 *        +--------------------------------------------------+
 *
 * Header and table are little-endian words; regions are in the segment's own order (shm/FORMAT.md). A region is cut
 * into chunks of the size that the header says; a chunk's checksum covers its padding, too. Whatever is not in the header
 * follows from it. CHECKPOINT.md has the rules that go with these bytes.
 */
#ifndef KITHI_CHECKPOINT_FORMAT_H
#define KITHI_CHECKPOINT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/layout/geometry.h"

#define KITHI_CHECKPOINT_VERSION     2u    /* 1, of segments of version 2, is read, too */
#define KITHI_CHECKPOINT_BLOCK       4096u /* of header, regions, table and O_DIRECT */
#define KITHI_CHECKPOINT_MAGIC       UINT64_C(0x3154504b4348544b) /* "KTHCKPT1" */
#define KITHI_CHECKPOINT_TABLE_MAGIC 0x5443484bu                  /* "KHCT" */
#define KITHI_CHECKPOINT_CHUNK_MAX   (64u << 20)

struct kithi_checkpoint_region {
    uint64_t bytes; /* 0: not here */
    uint32_t chunk; /* bytes of a chunk, a multiple of 4096 */
};

/* The first 4096 bytes.
 *
 *    0..7    magic                     16..31   uid of the collection
 *    8..9    version                   32..39   epoch of the image
 *   10..11   zero                      40..47   timeline
 *   12..15   incompatible flags        48..55   vectors visible at the epoch
 *   56..63   CLOCK_REALTIME in ns      64..71   sum of the segment's layout
 *   72..103  geometry: dim, metric, m, ef_construction, quantization, keep, code_bits, slot_max
 *  104..107  version of the segment format                108..111  slots
 *  112..115  upper rows                                   116..147  blobs, by class
 *  148..191  zero
 *  192..511  for each of 20 regions: u64 bytes, u32 chunk, u32 zero
 *  512..4091 zero                     4092..4095  crc32c of bytes 0..4091
 *
 * Version 1 had 4 classes and 16 regions, and zeros behind them.
 */
struct kithi_checkpoint_header {
    uint8_t uid[16];
    uint64_t epoch, timeline, live, created_ns, layout_sum;
    struct kithi_geometry geometry;
    uint32_t segment_version;
    uint32_t slots, uppers;
    uint32_t blobs[KITHI_BLOB_CLASS_COUNT];
    struct kithi_checkpoint_region regions[KITHI_REGION_COUNT];
};

enum kithi_checkpoint_verdict {
    KITHI_CHECKPOINT_OK,
    KITHI_CHECKPOINT_BAD,     /* not a header, or one with a wrong checksum or impossible numbers */
    KITHI_CHECKPOINT_NEWER,   /* of a later version, or with flags that we do not know */
    KITHI_CHECKPOINT_FOREIGN, /* of another collection */
};

/* Write a header: KITHI_CHECKPOINT_BLOCK bytes at out. */
void kithi_checkpoint_header_encode(void *out, const struct kithi_checkpoint_header *h);

/* Judge KITHI_CHECKPOINT_BLOCK bytes; uid NULL: of any collection. *out is filled for OK and FOREIGN. */
enum kithi_checkpoint_verdict kithi_checkpoint_header_decode(const void *buf, const uint8_t uid[16],
                                                             struct kithi_checkpoint_header *out);

/* Where everything is, as it follows from a header. */
struct kithi_checkpoint_plan {
    uint32_t chunk_count;
    uint32_t chunk_max;                     /* bytes of the longest one, padded */
    uint32_t first[KITHI_REGION_COUNT + 1]; /* number of each region's first chunk */
    uint64_t file_off[KITHI_REGION_COUNT];  /* of each region */
    uint64_t table_off, table_size;
    uint64_t file_size;
};

/* false: the header's regions are impossible. */
bool kithi_checkpoint_plan(const struct kithi_checkpoint_header *h, struct kithi_checkpoint_plan *out);

struct kithi_checkpoint_chunk {
    unsigned region;
    uint64_t off;  /* in the region */
    uint32_t len;  /* bytes in use */
    uint32_t size; /* with padding */
    uint64_t file_off;
};
/* i < chunk_count */
struct kithi_checkpoint_chunk kithi_checkpoint_chunk_at(const struct kithi_checkpoint_header *h,
                                                        const struct kithi_checkpoint_plan *plan, uint32_t i);

/* The table with its checksums, a u32 for each chunk.
 *
 *    0..3    magic                      8..23   uid of the collection
 *    4..7    number of checksums       24..31   epoch of the image
 *   32..35   crc32c of the whole table, padding included, with zeros here
 *   36..39   zero
 *   40..47   last epoch that was visible when the copy ended: the log reaches it, or has lost what was durable
 *   48..63   zero
 *   64..     checksums, zeros up to a multiple of 4096
 */
void kithi_checkpoint_table_encode(void *out, const struct kithi_checkpoint_header *h,
                                   const struct kithi_checkpoint_plan *plan, const uint32_t *sums,
                                   uint64_t end_epoch);

/* plan->table_size bytes; false: they are not this header's table. The checksums are then at *out_sums, in buf. */
bool kithi_checkpoint_table_decode(void *buf, const struct kithi_checkpoint_header *h,
                                   const struct kithi_checkpoint_plan *plan, const uint32_t **out_sums,
                                   uint64_t *out_end_epoch);

#endif
