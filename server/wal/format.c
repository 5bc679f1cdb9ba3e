/*
 * format.c - encodes and judges the headers of format.h. Knows no files.
 */
#include "server/wal/format.h"

#include <string.h>

#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/base/compiler.h"
#include "shm/wire/op.h"

#define FILE_CRC_OFF  (KITHI_WAL_BLOCK - 4)
#define GROUP_CRC_OFF (KITHI_WAL_GROUP_HEADER - 4)

static bool all_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static void seal(uint8_t *p, size_t crc_off)
{
    kithi_put32(p + crc_off, kithi_crc32c(0, p, crc_off));
}

/* What file and group headers have in common. The checksum has its place for good, so that a
 * later version can be told from damage. */
static enum kithi_wal_verdict judge(const uint8_t *p, size_t crc_off, uint32_t magic, size_t flags_off,
                                    const uint8_t uid[16])
{
    if (kithi_get32(p) != magic)
        return all_zero(p, crc_off + 4) ? KITHI_WAL_EMPTY : KITHI_WAL_BAD;
    if (kithi_get32(p + crc_off) != kithi_crc32c(0, p, crc_off))
        return KITHI_WAL_BAD;
    uint32_t version = kithi_get16(p + 4);
    if (version < 1 || version > KITHI_WAL_VERSION || kithi_get32(p + flags_off) != 0)
        return KITHI_WAL_NEWER;
    return memcmp(p + 8, uid, 16) != 0 ? KITHI_WAL_FOREIGN : KITHI_WAL_OK;
}

void kithi_wal_file_header_encode(void *out, const struct kithi_wal_file_header *h)
{
    uint8_t *p = out;
    memset(p, 0, KITHI_WAL_BLOCK);
    kithi_put32(p, KITHI_WAL_FILE_MAGIC);
    kithi_put16(p + 4, KITHI_WAL_VERSION);
    memcpy(p + 8, h->uid, 16);
    kithi_put64(p + 24, h->number);
    kithi_put64(p + 32, h->first_epoch);
    kithi_put64(p + 40, h->timeline);
    kithi_put64(p + 56, h->size);
    kithi_put64(p + 64, h->write_max);
    kithi_put32(p + 72, h->recycled);
    seal(p, FILE_CRC_OFF);
}

enum kithi_wal_verdict kithi_wal_file_header_decode(const void *buf, const uint8_t uid[16],
                                                    struct kithi_wal_file_header *out)
{
    const uint8_t *p = buf;
    enum kithi_wal_verdict verdict = judge(p, FILE_CRC_OFF, KITHI_WAL_FILE_MAGIC, 48, uid);
    if (verdict == KITHI_WAL_EMPTY || verdict == KITHI_WAL_BAD)
        return verdict;
    memcpy(out->uid, p + 8, 16);
    out->number = kithi_get64(p + 24);
    out->first_epoch = kithi_get64(p + 32);
    out->timeline = kithi_get64(p + 40);
    out->size = kithi_get64(p + 56);
    out->write_max = kithi_get64(p + 64);
    out->recycled = kithi_get32(p + 72) & 1;
    return verdict;
}

void kithi_wal_group_header_encode(void *out, const struct kithi_wal_group_header *h)
{
    uint8_t *p = out;
    memset(p, 0, KITHI_WAL_GROUP_HEADER);
    kithi_put32(p, KITHI_WAL_GROUP_MAGIC);
    kithi_put16(p + 4, KITHI_WAL_VERSION);
    memcpy(p + 8, h->uid, 16);
    kithi_put64(p + 24, h->number);
    kithi_put64(p + 32, h->epoch);
    kithi_put64(p + 40, h->durable_epoch);
    kithi_put64(p + 48, h->timeline);
    kithi_put32(p + 56, h->len);
    kithi_put32(p + 60, h->n_ops);
    kithi_put32(p + 64, h->crc);
    seal(p, GROUP_CRC_OFF);
}

enum kithi_wal_verdict kithi_wal_group_header_decode(const void *buf, const uint8_t uid[16], uint64_t number,
                                                     struct kithi_wal_group_header *out)
{
    const uint8_t *p = buf;
    enum kithi_wal_verdict verdict = judge(p, GROUP_CRC_OFF, KITHI_WAL_GROUP_MAGIC, 68, uid);
    if (verdict == KITHI_WAL_EMPTY || verdict == KITHI_WAL_BAD)
        return verdict;
    memcpy(out->uid, p + 8, 16);
    out->number = kithi_get64(p + 24);
    out->epoch = kithi_get64(p + 32);
    out->durable_epoch = kithi_get64(p + 40);
    out->timeline = kithi_get64(p + 48);
    out->len = kithi_get32(p + 56);
    out->n_ops = kithi_get32(p + 60);
    out->crc = kithi_get32(p + 64);
    if (verdict != KITHI_WAL_OK)
        return verdict;
    if (out->number != number)
        return KITHI_WAL_STALE;
    if (out->len == 0 || out->len > KITHI_WAL_PAYLOAD_MAX || out->len % 8 != 0 || out->n_ops == 0 ||
        out->n_ops > out->len / KITHI_OP_HEADER)
        return KITHI_WAL_BAD;
    return KITHI_WAL_OK;
}

enum kithi_wal_verdict kithi_wal_group_decode(const void *buf, size_t size, const uint8_t uid[16],
                                              uint64_t number, struct kithi_wal_group_header *out)
{
    if (size < KITHI_WAL_GROUP_HEADER)
        return KITHI_WAL_BAD;
    enum kithi_wal_verdict verdict = kithi_wal_group_header_decode(buf, uid, number, out);
    if (verdict != KITHI_WAL_OK)
        return verdict;
    uint64_t whole = kithi_wal_group_size(out->len);
    if (whole > size)
        return KITHI_WAL_BAD;
    const uint8_t *ops = (const uint8_t *)buf + KITHI_WAL_GROUP_HEADER;
    return kithi_crc32c(0, ops, whole - KITHI_WAL_GROUP_HEADER) == out->crc ? KITHI_WAL_OK : KITHI_WAL_BAD;
}
