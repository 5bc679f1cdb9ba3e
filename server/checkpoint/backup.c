/*
 * backup.c - encodes and judges the header of backup.h. Knows no files.
 */
#include "server/checkpoint/backup.h"

#include <inttypes.h>
#include <string.h>

#include "server/checkpoint/format.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"

#define CRC_OFF   (KITHI_BACKUP_BLOCK - 4)
#define NAME_OFF  96u
#define INDEX_OFF 160u
#define BYTES_MAX (UINT64_C(1) << 50) /* so that sums of them do not wrap */

_Static_assert(KITHI_BACKUP_BLOCK == KITHI_CHECKPOINT_BLOCK, "a checkpoint's offsets stay aligned");

void kithi_backup_header_encode(void *out, const struct kithi_backup_header *h)
{
    uint8_t *p = out;
    const uint32_t words[] = { h->wanted, h->keep, h->chosen, h->quantization, h->code_bits, h->fixed };
    memset(p, 0, KITHI_BACKUP_BLOCK);
    kithi_put64(p, KITHI_BACKUP_MAGIC);
    kithi_put16(p + 8, KITHI_BACKUP_VERSION);
    memcpy(p + 16, h->uid, 16);
    kithi_put64(p + 32, h->epoch);
    kithi_put64(p + 40, h->last_epoch);
    kithi_put64(p + 48, h->checkpoint_bytes);
    kithi_put64(p + 56, h->log_bytes);
    kithi_put64(p + 64, h->created_ns);
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        kithi_put32(p + 72 + 4 * i, words[i]);
    memcpy(p + NAME_OFF, h->name, strnlen(h->name, KITHI_NAME_MAX));
    memcpy(p + INDEX_OFF, h->index, strnlen(h->index, KITHI_DECLARED_TEXT_MAX));
    kithi_put32(p + CRC_OFF, kithi_crc32c(0, p, CRC_OFF));
}

/* Numbers that go together? */
static bool is_possible(const struct kithi_backup_header *h)
{
    bool lengths = h->checkpoint_bytes % KITHI_BACKUP_BLOCK == 0 && h->checkpoint_bytes < BYTES_MAX &&
                   h->checkpoint_bytes >= 2 * KITHI_BACKUP_BLOCK && /* its header and its table */
                   h->log_bytes % KITHI_BACKUP_BLOCK == 0 && h->log_bytes < BYTES_MAX;
    /* Each group takes a block at least. */
    bool epochs = h->epoch <= h->last_epoch && h->last_epoch < UINT64_MAX / 2 &&
                  (h->last_epoch - h->epoch) <= h->log_bytes / KITHI_BACKUP_BLOCK &&
                  (h->last_epoch > h->epoch) == (h->log_bytes > 0);
    bool codes = h->wanted <= KITHI_QUANTIZATION_AUTO && h->keep <= KITHI_KEEP_NONE && h->chosen <= 1 &&
                 h->quantization < KITHI_QUANTIZATION_AUTO &&
                 (h->chosen || h->wanted == KITHI_QUANTIZATION_AUTO);
    struct kithi_declared declared;
    return lengths && epochs && codes && kithi_declared_read(h->index, &declared, NULL) == 0 &&
           h->fixed <= 1 && kithi_name_valid(h->name, strlen(h->name));
}

int kithi_backup_header_decode(const void *buf, uint64_t size, struct kithi_backup_header *out,
                               struct kithi_errmsg *err)
{
    const uint8_t *p = buf;
    struct kithi_backup_header h;
    if (size >= KITHI_BACKUP_BLOCK && kithi_get64(p) == KITHI_CHECKPOINT_MAGIC)
        return kithi_error_set(
            err, KITHI_E_FORMAT,
            "this is a checkpoint of a data directory and not a back-up; back-ups are made by kith "
            "checkpoint NAME --to FILE");
    if (size < 8 || kithi_get64(p) != KITHI_BACKUP_MAGIC)
        return kithi_error_set(
            err, KITHI_E_FORMAT,
            "this is not a back-up: it does not begin as the files do that kith checkpoint NAME --to "
            "FILE writes");
    if (size < KITHI_BACKUP_BLOCK)
        return kithi_error_set(err, KITHI_E_TRUNCATED,
                               "the back-up has %" PRIu64
                               " bytes, and its header alone takes %u: it was cut off",
                               size, KITHI_BACKUP_BLOCK);
    if (kithi_get32(p + CRC_OFF) != kithi_crc32c(0, p, CRC_OFF))
        return kithi_error_set(
            err, KITHI_E_CORRUPT,
            "the back-up is damaged: bytes 0 to %u, its header, do not match their checksum",
            KITHI_BACKUP_BLOCK);
    if (kithi_get16(p + 8) != KITHI_BACKUP_VERSION || kithi_get32(p + 12) != 0)
        return kithi_error_set(
            err, KITHI_E_VERSION,
            "the back-up is of version %u, flags %08x, and this kithd reads version %u; restore it "
            "with the kithd that wrote it, or a later one",
            kithi_get16(p + 8), kithi_get32(p + 12), KITHI_BACKUP_VERSION);
    memset(&h, 0, sizeof h);
    memcpy(h.uid, p + 16, 16);
    h.epoch = kithi_get64(p + 32);
    h.last_epoch = kithi_get64(p + 40);
    h.checkpoint_bytes = kithi_get64(p + 48);
    h.log_bytes = kithi_get64(p + 56);
    h.created_ns = kithi_get64(p + 64);
    h.wanted = kithi_get32(p + 72);
    h.keep = kithi_get32(p + 76);
    h.chosen = kithi_get32(p + 80);
    h.quantization = kithi_get32(p + 84);
    h.code_bits = kithi_get32(p + 88);
    h.fixed = kithi_get32(p + 92);
    memcpy(h.name, p + NAME_OFF, KITHI_NAME_MAX);
    memcpy(h.index, p + INDEX_OFF, KITHI_DECLARED_TEXT_MAX);
    if (!is_possible(&h))
        return kithi_error_set(err, KITHI_E_CORRUPT,
                               "the back-up's header checks, and its numbers are impossible");
    if (kithi_backup_size(&h) != size)
        return kithi_error_set(err, KITHI_E_TRUNCATED,
                               "the back-up has %" PRIu64 " bytes and should have %" PRIu64 ": %s", size,
                               kithi_backup_size(&h),
                               size < kithi_backup_size(&h) ? "it was cut off, or not copied to its end"
                                                            : "something was added to it");
    *out = h;
    return 0;
}
