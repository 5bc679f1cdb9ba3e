/*
 * fuzz_wal.c - hostile bytes as a log file: the group decoder alone, then a whole scan, then
 * the ops of what was delivered; then what a salvage would keep. Nothing may be read beyond the input.
 *
 * Random bytes hardly ever have a right checksum, so the first byte of the input chooses
 * whether headers and groups are sealed before they are read (1), and whether blocks of zeros are holes of the file (2).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/wal/format.h"
#include "server/wal/salvage.h"
#include "server/wal/scan.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/wire/op.h"
#include "tests/fuzz/memory_file.h"

#define NAME "00000000000000000001.wal"

static const uint8_t uid[16] = { 1, 2, 3, 4 };
static const char dir[] = MEMORY_DIR;

/* Make identities and checksums right, so that what lies behind their check is reached. */
static void seal(uint8_t *p, size_t len)
{
    for (size_t off = 0; off + KITHI_WAL_BLOCK <= len; off += KITHI_WAL_BLOCK) {
        uint8_t *b = p + off;
        size_t crc = off == 0 ? KITHI_WAL_BLOCK - 4 : KITHI_WAL_GROUP_HEADER - 4;
        kithi_put32(b, off == 0 ? KITHI_WAL_FILE_MAGIC : KITHI_WAL_GROUP_MAGIC);
        kithi_put32(b + 4, KITHI_WAL_VERSION);
        memcpy(b + 8, uid, 16);
        kithi_put64(b + 24, 1);
        kithi_put32(b + (off == 0 ? 48 : 68), 0);
        if (off == 0)
            kithi_put64(b + 32, 1);
        uint64_t size = off == 0 ? 0 : kithi_wal_group_size(kithi_get32(b + 56));
        if (off > 0 && off + size <= len)
            kithi_put32(b + 64, kithi_crc32c(0, b + KITHI_WAL_GROUP_HEADER, size - KITHI_WAL_GROUP_HEADER));
        kithi_put32(b + crc, kithi_crc32c(0, b, crc));
        if (off > 0 && off + size <= len)
            off += size - KITHI_WAL_BLOCK; /* a group's blocks are its own */
    }
}

static int on_group(void *arg, const struct kithi_wal_group *g)
{
    uint64_t *sum = arg;
    const uint8_t *p = g->ops;
    size_t left = g->len;
    while (left > 0) {
        struct kithi_op op;
        int64_t n = kithi_op_decode(p, left, &op);
        if (n <= 0)
            break;
        bool known = kithi_op_is_known(op.type); /* others are skipped unread */
        for (size_t i = 0; known && i < op.id_len; i++)
            *sum += (uint8_t)op.id[i];
        if (known && op.vector)
            for (uint32_t i = 0; i < op.dim; i++)
                *sum += op.vector[i] > 0;
        for (uint32_t i = 0; known && i < op.payload_len; i++)
            *sum += ((const uint8_t *)op.payload)[i];
        p += n;
        left -= (size_t)n;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > (1u << 20))
        return 0;
    bool sealed = data[0] & 1, holes = data[0] & 2;
    data++;
    size--;
    uint8_t *copy = malloc(size ? size : 1); /* its own allocation, so that an over-read is seen */
    memcpy(copy, data, size);
    if (sealed)
        seal(copy, size);

    struct kithi_wal_group_header h;
    kithi_wal_group_decode(copy, size, uid, 1, &h);
    if (size > KITHI_WAL_BLOCK)
        kithi_wal_group_decode(copy + KITHI_WAL_BLOCK, size - KITHI_WAL_BLOCK, uid, 1, &h);

    memory_file_set(NAME, copy, size, holes);
    uint64_t sum = 0;
    struct kithi_wal_report report;
    struct kithi_errmsg err;
    struct kithi_wal_scan_opts o = { .dir = dir, .fn = on_group, .arg = &sum };
    memcpy(o.uid, uid, 16);
    int r = kithi_wal_scan(&o, &report, &err);
    if (r > 0 || (r < 0 && err.code != r))
        abort();
    /* A salvage keeps no more groups than a scan would read, and no more bytes than there are. */
    struct kithi_wal_plan plan;
    int p = kithi_wal_plan(dir, uid, NULL, NULL, &plan, &err);
    if (p > 0 || (p < 0 && err.code != p) || (r == 0 && plan.groups > report.groups) ||
        plan.bytes > size + 2 * KITHI_WAL_BLOCK)
        abort();
    kithi_wal_plan_fini(&plan);
    uint64_t epoch = size > 0 ? data[size - 1] : 0;
    p = kithi_wal_plan_after(dir, uid, epoch, NULL, NULL, &plan, &err);
    if (p > 0 || (p < 0 && err.code != p) ||
        (p == 0 &&
         (plan.last_epoch < epoch || plan.groups != plan.last_epoch - epoch || plan.file_count == 0)))
        abort();
    kithi_wal_plan_fini(&plan);
    if (memory_file_open_count() != 0)
        abort();
    free(copy);
    return 0;
}
