/*
 * format.h - the bytes of a log file: its header, and the header before every group.
 *
 * Little-endian. WAL.md has the rules that go with them. Every checksum covers every byte
 * that it stands for, padding included, so that no flipped bit goes unseen.
 *
 *      0 +-----------------------------------------------+
 *        | file header, 4096 bytes                       |
 *   4096 +-----------------------------------------------+  every group begins at a
 *        | group: header 128 | ops | zeros up to 4096    |  multiple of 4096
 *        +-----------------------------------------------+
 *        | group ...                                     |
 *        +-----------------------------------------------+
 *        | not yet used: zeros, or in a recycled file a  |
 *        | block of zeros, and then groups of old files  |
 *        +-----------------------------------------------+
 */
#ifndef KITHI_WAL_FORMAT_H
#define KITHI_WAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_WAL_VERSION      2u          /* 1, without payloads, is read, too */
#define KITHI_WAL_BLOCK        4096u       /* unit of files, groups and O_DIRECT */
#define KITHI_WAL_FILE_MAGIC   0x4657484bu /* "KHWF" */
#define KITHI_WAL_GROUP_MAGIC  0x4757484bu /* "KHWG" */
#define KITHI_WAL_GROUP_HEADER 128u
#define KITHI_WAL_PAYLOAD_MAX  (64u << 20) /* bytes of ops in a group */

/* The first 4096 bytes of a file.
 *
 *    0..3    magic                     8..23   uid of the collection
 *    4..5    version                  24..31   file number
 *    6..7    zero                     32..39   epoch of the first group
 *   48..51   incompatible flags       40..47   timeline when the file was made
 *   52..55   zero                     56..63   bytes of the file, preallocated
 *   64..71   bytes on their way       72..75   1: the space is recycled
 *   76..4091 zero                   4092..4095 crc32c of bytes 0..4091
 */
struct kithi_wal_file_header {
    uint8_t uid[16];
    uint64_t number; /* rises from file to file by a step that nobody can foresee, 1 to 2^32 */
    uint64_t first_epoch;
    uint64_t timeline;
    uint64_t size;      /* durable before the file gets its name: a shorter file was cut off later */
    uint64_t write_max; /* bytes that are on their way together, behind the first write; 0: any number */
    bool recycled;      /* groups of lower numbers may stand where none of this one was written yet */
};

/* The first 128 bytes of a group.
 *
 *    0..3    magic                     8..23   uid of the collection
 *    4..5    version                  24..31   file number: a group belongs to one file only
 *    6..7    zero                     32..39   epoch
 *   56..59   bytes of ops             40..47   highest epoch known durable when it was written
 *   60..63   number of ops            48..55   timeline
 *   64..67   crc32c of ops and padding
 *   68..71   incompatible flags
 *   72..123  zero
 *  124..127  crc32c of bytes 0..123
 */
struct kithi_wal_group_header {
    uint8_t uid[16];
    uint64_t number;
    uint64_t epoch;
    uint64_t durable_epoch;
    uint64_t timeline;
    uint32_t len; /* bytes of ops */
    uint32_t n_ops;
    uint32_t crc; /* of ops and padding */
};

/* What bytes are. The order is the one in which they are tested. */
enum kithi_wal_verdict {
    KITHI_WAL_OK,
    KITHI_WAL_EMPTY,   /* all zeros where a header would be */
    KITHI_WAL_BAD,     /* not a header, or one with a wrong checksum */
    KITHI_WAL_NEWER,   /* a good header of a later version, or with flags we do not know */
    KITHI_WAL_FOREIGN, /* a good header of another collection */
    KITHI_WAL_STALE,   /* a good header of another file */
};

/* Bytes that a group with len bytes of ops takes in a file. */
static inline uint64_t kithi_wal_group_size(uint64_t len)
{
    const uint64_t unit = KITHI_WAL_BLOCK;
    return (KITHI_WAL_GROUP_HEADER + len + unit - 1) & ~(unit - 1);
}

/* Write a file header: KITHI_WAL_BLOCK bytes at out. */
void kithi_wal_file_header_encode(void *out, const struct kithi_wal_file_header *h);

/* Judge KITHI_WAL_BLOCK bytes. *out is filled for OK, NEWER (number and epoch may then mean
 * something else) and FOREIGN. */
enum kithi_wal_verdict kithi_wal_file_header_decode(const void *buf, const uint8_t uid[16],
                                                    struct kithi_wal_file_header *out);

/* Write a group header: KITHI_WAL_GROUP_HEADER bytes at out. */
void kithi_wal_group_header_encode(void *out, const struct kithi_wal_group_header *h);

/* Judge KITHI_WAL_GROUP_HEADER bytes; number is that of the file they are in. */
enum kithi_wal_verdict kithi_wal_group_header_decode(const void *buf, const uint8_t uid[16], uint64_t number,
                                                     struct kithi_wal_group_header *out);

/* A group as a whole: header and payload in the first size bytes of buf. BAD also when the
 * group does not fit into them or its payload has the wrong checksum. */
enum kithi_wal_verdict kithi_wal_group_decode(const void *buf, size_t size, const uint8_t uid[16],
                                              uint64_t number, struct kithi_wal_group_header *out);

#endif
