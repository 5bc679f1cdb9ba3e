/*
 * backup.h - the bytes of a back-up: a checkpoint, and what has to be replayed on it, in one file.
 *
 *      0 +--------------------------------------------------+
 *        | header, 4096 bytes: what the collection is, and  |
 *        | how much follows                                 |
 *   4096 +--------------------------------------------------+
 *        | a checkpoint, byte for byte (format.h)           |
 *        +--------------------------------------------------+
 *        | the groups of the log (server/wal/format.h) from |
 *        | the epoch after the checkpoint's to the last one |
 *        +--------------------------------------------------+
 *
 * A checkpoint alone is whole only with the groups that were committed while it was copied (CHECKPOINT.md, C8), so these
 * are here as well. Everything is a multiple of 4096 bytes long, and every byte is under a checksum: the header by its own, the rest as
 * where it comes from. The header's words are little-endian.
 */
#ifndef KITHI_CHECKPOINT_BACKUP_H
#define KITHI_CHECKPOINT_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/error.h"
#include "shm/base/id.h"
#include "shm/postings/declared.h"

#define KITHI_BACKUP_VERSION 1u
#define KITHI_BACKUP_BLOCK   4096u
#define KITHI_BACKUP_MAGIC   UINT64_C(0x3150554b4248544b) /* "KTHBKUP1" */

/* The first 4096 bytes.
 *
 *    0..7    magic                     16..31   uid of the collection that it is of
 *    8..9    version                   32..39   epoch of the checkpoint
 *   10..11   zero                      40..47   last epoch: of the last group, or the checkpoint's
 *   12..15   incompatible flags        48..55   bytes of the checkpoint
 *   56..63   bytes of groups           64..71   CLOCK_REALTIME in ns
 *   72..75   quantization, as it was asked for (enum kithi_quantization, AUTO among them)
 *   76..79   keep, as it was asked for
 *   80..83   1: the layout of new segments is settled; 0: AUTO has still to choose
 *   84..87   quantization of new segments; 0 when it is not settled
 *   88..91   code_bits of new segments
 *   92..95   1: the collection keeps its ceiling (kith create --fixed); 0: it grows. Was zero before it was defined, which says
 *            that it grows; a kithd from then restores files that have a 1 all the same, as a collection that grows
 *   96..159  name that the collection had, padded with zeros
 *  160..2207 which fields have postings (shm/postings/declared.h), padded with zeros; none: auto. Was zero before it was defined; a
 *            kithd from then restores such files all the same, as auto
 * 2208..4091 zero                    4092..4095 crc32c of bytes 0..4091
 */
struct kithi_backup_header {
    uint8_t uid[16];
    uint64_t epoch, last_epoch;
    uint64_t checkpoint_bytes, log_bytes;
    uint64_t created_ns;
    uint32_t wanted, keep;
    uint32_t chosen, quantization, code_bits;
    uint32_t fixed;
    char name[KITHI_NAME_MAX + 1];
    char index[KITHI_DECLARED_TEXT_MAX + 1];
};

static inline uint64_t kithi_backup_size(const struct kithi_backup_header *h)
{
    return KITHI_BACKUP_BLOCK + h->checkpoint_bytes + h->log_bytes;
}

/* Write a header: KITHI_BACKUP_BLOCK bytes at out. */
void kithi_backup_header_encode(void *out, const struct kithi_backup_header *h);

/*
 * Judge the first KITHI_BACKUP_BLOCK bytes of a file that has size bytes (of a shorter one: those that are there, then zeros).
 * 0; KITHI_E_FORMAT: it is no back-up; KITHI_E_VERSION: of a later version; KITHI_E_CORRUPT: the header is damaged;
 * KITHI_E_TRUNCATED: the file is shorter, or longer, than the header says.
 */
int kithi_backup_header_decode(const void *buf, uint64_t size, struct kithi_backup_header *out,
                               struct kithi_errmsg *err);

#endif
