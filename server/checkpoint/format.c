/*
 * format.c - encodes and judges the bytes of format.h. Knows no files.
 */
#include "server/checkpoint/format.h"

#include <string.h>

#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/layout/header.h"

#define CRC_OFF     (KITHI_CHECKPOINT_BLOCK - 4)
#define REGIONS_OFF 192u
#define TABLE_HEAD  64u
#define TABLE_CRC   32u
#define TABLE_END   40u

void kithi_checkpoint_header_encode(void *out, const struct kithi_checkpoint_header *h)
{
    uint8_t *p = out;
    const struct kithi_geometry *g = &h->geometry;
    const uint32_t words[] = { g->dim,          g->metric, g->m,         g->ef_construction,
                               g->quantization, g->keep,   g->code_bits, g->slot_max };
    memset(p, 0, KITHI_CHECKPOINT_BLOCK);
    kithi_put64(p, KITHI_CHECKPOINT_MAGIC);
    /* One of before, which gets another uid, stays what it is. */
    kithi_put16(p + 8, h->segment_version == 2 ? 1 : KITHI_CHECKPOINT_VERSION);
    memcpy(p + 16, h->uid, 16);
    kithi_put64(p + 32, h->epoch);
    kithi_put64(p + 40, h->timeline);
    kithi_put64(p + 48, h->live);
    kithi_put64(p + 56, h->created_ns);
    kithi_put64(p + 64, h->layout_sum);
    for (unsigned i = 0; i < 8; i++)
        kithi_put32(p + 72 + 4 * i, words[i]);
    kithi_put32(p + 104, h->segment_version);
    kithi_put32(p + 108, h->slots);
    kithi_put32(p + 112, h->uppers);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        kithi_put32(p + 116 + 4 * c, h->blobs[c]);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        kithi_put64(p + REGIONS_OFF + 16 * r, h->regions[r].bytes);
        kithi_put32(p + REGIONS_OFF + 16 * r + 8, h->regions[r].chunk);
    }
    kithi_put32(p + CRC_OFF, kithi_crc32c(0, p, CRC_OFF));
}

enum kithi_checkpoint_verdict kithi_checkpoint_header_decode(const void *buf, const uint8_t uid[16],
                                                             struct kithi_checkpoint_header *out)
{
    const uint8_t *p = buf;
    struct kithi_checkpoint_plan plan;
    if (kithi_get64(p) != KITHI_CHECKPOINT_MAGIC || kithi_get32(p + CRC_OFF) != kithi_crc32c(0, p, CRC_OFF))
        return KITHI_CHECKPOINT_BAD;
    uint32_t version = kithi_get16(p + 8);
    if (version < 1 || version > KITHI_CHECKPOINT_VERSION || kithi_get32(p + 12) != 0)
        return KITHI_CHECKPOINT_NEWER;
    memset(out, 0, sizeof *out);
    memcpy(out->uid, p + 16, 16);
    out->epoch = kithi_get64(p + 32);
    out->timeline = kithi_get64(p + 40);
    out->live = kithi_get64(p + 48);
    out->created_ns = kithi_get64(p + 56);
    out->layout_sum = kithi_get64(p + 64);
    out->geometry = (struct kithi_geometry){ .dim = kithi_get32(p + 72),
                                             .metric = kithi_get32(p + 76),
                                             .m = kithi_get32(p + 80),
                                             .ef_construction = kithi_get32(p + 84),
                                             .quantization = kithi_get32(p + 88),
                                             .keep = kithi_get32(p + 92),
                                             .code_bits = kithi_get32(p + 96),
                                             .slot_max = kithi_get32(p + 100) };
    out->segment_version = kithi_get32(p + 104);
    out->slots = kithi_get32(p + 108);
    out->uppers = kithi_get32(p + 112);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        out->blobs[c] = kithi_get32(p + 116 + 4 * c);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        out->regions[r].bytes = kithi_get64(p + REGIONS_OFF + 16 * r);
        out->regions[r].chunk = kithi_get32(p + REGIONS_OFF + 16 * r + 8);
    }
    if (!kithi_checkpoint_plan(out, &plan))
        return KITHI_CHECKPOINT_BAD;
    /* Regions of another segment format are bytes that nobody here can read, but those of versions 2 to 4: items are the same. In version 2
     * no record has a payload, and postings (versions 4 and 5) are in no checkpoint. */
    bool known = version == 1 ? out->segment_version == 2
                              : out->segment_version >= 3 && out->segment_version <= KITHI_FORMAT_VERSION;
    if (!known)
        return KITHI_CHECKPOINT_NEWER;
    return uid && memcmp(out->uid, uid, 16) != 0 ? KITHI_CHECKPOINT_FOREIGN : KITHI_CHECKPOINT_OK;
}

bool kithi_checkpoint_plan(const struct kithi_checkpoint_header *h, struct kithi_checkpoint_plan *out)
{
    uint64_t at = KITHI_CHECKPOINT_BLOCK, count = 0;
    memset(out, 0, sizeof *out);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        const struct kithi_checkpoint_region *region = &h->regions[r];
        out->first[r] = (uint32_t)count;
        out->file_off[r] = at;
        if (region->bytes == 0)
            continue;
        if (region->chunk == 0 || region->chunk % KITHI_CHECKPOINT_BLOCK ||
            region->chunk > KITHI_CHECKPOINT_CHUNK_MAX || region->bytes > UINT64_C(1) << 48)
            return false;
        uint64_t padded = kithi_round_up(region->bytes, KITHI_CHECKPOINT_BLOCK);
        uint32_t longest = region->chunk < padded ? region->chunk : (uint32_t)padded;
        out->chunk_max = longest > out->chunk_max ? longest : out->chunk_max;
        count += (padded + region->chunk - 1) / region->chunk;
        at += padded;
        if (count > UINT32_MAX / 2)
            return false;
    }
    out->first[KITHI_REGION_COUNT] = out->chunk_count = (uint32_t)count;
    out->table_off = at;
    out->table_size = kithi_round_up(TABLE_HEAD + 4 * count, KITHI_CHECKPOINT_BLOCK);
    out->file_size = at + out->table_size;
    return true;
}

struct kithi_checkpoint_chunk kithi_checkpoint_chunk_at(const struct kithi_checkpoint_header *h,
                                                        const struct kithi_checkpoint_plan *plan, uint32_t i)
{
    struct kithi_checkpoint_chunk c = { 0 };
    while (i >= plan->first[c.region + 1])
        c.region++;
    const struct kithi_checkpoint_region *region = &h->regions[c.region];
    c.off = (uint64_t)(i - plan->first[c.region]) * region->chunk;
    c.len = region->bytes - c.off < region->chunk ? (uint32_t)(region->bytes - c.off) : region->chunk;
    c.size = (uint32_t)kithi_round_up(c.len, KITHI_CHECKPOINT_BLOCK);
    c.file_off = plan->file_off[c.region] + c.off;
    return c;
}

void kithi_checkpoint_table_encode(void *out, const struct kithi_checkpoint_header *h,
                                   const struct kithi_checkpoint_plan *plan, const uint32_t *sums,
                                   uint64_t end_epoch)
{
    uint8_t *p = out;
    memset(p, 0, plan->table_size);
    kithi_put32(p, KITHI_CHECKPOINT_TABLE_MAGIC);
    kithi_put32(p + 4, plan->chunk_count);
    memcpy(p + 8, h->uid, 16);
    kithi_put64(p + 24, h->epoch);
    kithi_put64(p + TABLE_END, end_epoch);
    memcpy(p + TABLE_HEAD, sums, plan->chunk_count * sizeof *sums);
    kithi_put32(p + TABLE_CRC, kithi_crc32c(0, p, plan->table_size));
}

bool kithi_checkpoint_table_decode(void *buf, const struct kithi_checkpoint_header *h,
                                   const struct kithi_checkpoint_plan *plan, const uint32_t **out_sums,
                                   uint64_t *out_end_epoch)
{
    uint8_t *p = buf;
    uint32_t crc = kithi_get32(p + TABLE_CRC);
    if (kithi_get32(p) != KITHI_CHECKPOINT_TABLE_MAGIC || kithi_get32(p + 4) != plan->chunk_count ||
        memcmp(p + 8, h->uid, 16) != 0 || kithi_get64(p + 24) != h->epoch)
        return false;
    kithi_put32(p + TABLE_CRC, 0);
    bool good = kithi_crc32c(0, p, plan->table_size) == crc;
    kithi_put32(p + TABLE_CRC, crc);
    *out_end_epoch = kithi_get64(p + TABLE_END);
    *out_sums = (const uint32_t *)(const void *)(p + TABLE_HEAD);
    return good;
}
