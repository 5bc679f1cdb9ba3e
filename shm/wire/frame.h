/*
 * frame.h - requests and replies on kithd's Unix socket.
 *
 * A connection is a stream of frames in both directions; requests may be pipelined, and
 * replies come in the order in which requests finish, matched by `tag`. All words are
 * little-endian. Every frame begins with this header, then `len` bytes of body:
 *
 *    0 +-----------------------------------------------+
 *      | u32 magic "KTH1" | u32 len (body bytes, <= 32 MiB, multiple of 8)
 *    8 | u16 type | u16 flags | u32 count              |
 *   16 | u64 tag: chosen by the client, echoed         |
 *      +-----------------------------------------------+
 *
 * Bodies, requests (count = 0 where not said):
 *   HELLO   u32 protocol version, u32 zero. First frame of a connection; later, a question for a sign of life
 *   CREATE  struct kithi_create (below), then the name, then the text of the index, if there is one (postings/declared.h; both padded)
 *   DROP    name                     (names are zero-padded to 8 bytes)
 *   LIST    nothing: names; or u32 form, u32 bytes of a name, then the name. Form 1 (states): JSON, how far
 *           kithd's start is with that collection, or with all when the name has no bytes; `found` of
 *           the reply is the number of them that are not served yet
 *   OPEN    name                     -> uid and geometry of the collection
 *   WRITE   16 bytes uid, then `count` ops (op.h): applied whole or not at all. flags: enum kithi_durability; those of
 *           every other request are 0
 *   FLUSH   16 bytes uid: answered when all that was accepted before is durable and visible
 *   STATS   16 bytes uid             -> JSON text of the daemon's own view
 *   CHECKPOINT  16 bytes uid: answered when a checkpoint of what is visible now is durable; epoch is its epoch
 *   BACKUP  16 bytes uid: as CHECKPOINT; then it can be read, one on a connection -> struct kithi_backup_begun; epoch is the
 *           last one that it holds
 *   BACKUP_NEXT  nothing -> the next bytes of the back-up, none at its end
 *   ALTER   struct kithi_alter (below), then the text of the index, if there is one, padded: answered when the collection is laid out so -> struct kithi_altered; epoch is the one
 *           that the new segment began with
 *   RESTORE struct kithi_restore (below), then the name: begins to bring back a collection under it, one on a connection
 *   RESTORE_DATA  the next bytes of the back-up, a multiple of 8, from byte 4096 of it on
 *   RESTORE_END   nothing: answered when the collection is there, durable and served; epoch is what it holds
 *
 * A collection that is still coming back after a start of kithd is in the list, and is answered with
 * KITH_E_STARTING everywhere else.
 *
 * Reply: type REPLY, count = number of items (LIST), body:
 *    0 | i32 status (0, KITH_E_*, -errno) | u32 item: index of the op that failed, or UINT32_MAX
 *    8 | u64 epoch at which the write is, or will be, visible
 *   16 | u32 found: how many deletes found their id | u32 text_len
 *   24 | text: error sentence, or the answer (LIST: one name a line; STATS: JSON; OPEN: struct
 *      | kithi_opened; WRITE with flags, or of which a delete found nothing: struct kithi_written, then
 *      | a bit for each op, bit i % 8 of byte i / 8: it was such a delete), zero-padded to 8
 *
 * Bytes that are not a frame, or a frame larger than the limit, are answered with one REPLY
 * that says so (tag 0 when the header was unreadable) and the connection is closed.
 */
#ifndef KITHI_WIRE_FRAME_H
#define KITHI_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define KITHI_FRAME_MAGIC  0x3148544bu /* "KTH1" */
#define KITHI_FRAME_MAX    (32u << 20) /* bytes of body */
#define KITHI_WIRE_VERSION 2u
#define KITHI_LIST_STATES  1u /* a form of LIST */

enum kithi_frame_type {
    KITHI_FRAME_HELLO = 1,
    KITHI_FRAME_CREATE = 2,
    KITHI_FRAME_DROP = 3,
    KITHI_FRAME_LIST = 4,
    KITHI_FRAME_OPEN = 5,
    KITHI_FRAME_WRITE = 6,
    KITHI_FRAME_FLUSH = 7,
    KITHI_FRAME_STATS = 8,
    KITHI_FRAME_CHECKPOINT = 9,
    KITHI_FRAME_BACKUP = 10,
    KITHI_FRAME_BACKUP_NEXT = 11,
    KITHI_FRAME_RESTORE = 12,
    KITHI_FRAME_RESTORE_DATA = 13,
    KITHI_FRAME_RESTORE_END = 14,
    KITHI_FRAME_ALTER = 15,
    KITHI_FRAME_REPLY = 128,
};

/* What an answered write is. What each promises stands in kith.h. */
enum kithi_durability {
    KITHI_DURABILITY_DURABLE = 0,
    KITHI_DURABILITY_APPLIED = 1,
    KITHI_DURABILITY_NONE = 2,
};

struct kithi_frame {
    uint32_t magic; /*  0..3  */
    uint32_t len;   /*  4..7  body bytes */
    uint16_t type;  /*  8..9  */
    uint16_t flags; /* 10..11 */
    uint32_t count; /* 12..15 */
    uint64_t tag;   /* 16..23 */
};
_Static_assert(sizeof(struct kithi_frame) == 24, "frame header is format");

struct kithi_reply {
    int32_t status;    /*  0..3  */
    uint32_t item;     /*  4..7  */
    uint64_t epoch;    /*  8..15 */
    uint32_t found;    /* 16..19 */
    uint32_t text_len; /* 20..23 */
};
_Static_assert(sizeof(struct kithi_reply) == 24, "reply head is format");

/* What a new collection shall be; m, ef_construction and slot_max of 0 take the default. */
struct kithi_create {
    uint32_t dim;             /*  0..3  1..4096 */
    uint32_t metric;          /*  4..7  enum kithi_metric */
    uint32_t m;               /*  8..11 links a level, 2..64; level 0 has 2m */
    uint32_t ef_construction; /* 12..15 */
    uint32_t quantization;    /* 16..19 enum kithi_quantization, AUTO among them */
    uint32_t slot_max; /* 20..23 ceiling of vectors, dead ones included; KITHI_CREATE_FIXED beside it */
    uint16_t name_len; /* 24..25 */
    uint16_t
        index_len; /* 26..27 0: auto. A kithd that knows no index takes both for one number, and refuses it */
    uint32_t keep; /* 28..31 enum kithi_keep */
};
/* The ceiling is the last word; else it is where the collection begins, and it grows. A kithd that knows no growth refuses it. */
#define KITHI_CREATE_FIXED 0x80000000u
_Static_assert(sizeof(struct kithi_create) == 32, "create body is format");

/* Answer to OPEN. */
struct kithi_opened {
    uint8_t uid[16];          /*  0..15 */
    uint32_t dim;             /* 16..19 */
    uint32_t metric;          /* 20..23 */
    uint32_t m;               /* 24..27 */
    uint32_t ef_construction; /* 28..31 */
    uint32_t quantization;    /* 32..35 enum kithi_quantization, as it was asked for */
    uint32_t slot_max;        /* 36..39 */
    uint32_t keep;            /* 40..43 enum kithi_keep, as it was asked for */
    uint32_t layout;          /* 44..47 what it is now: the same, or what AUTO has chosen; NONE before that */
    uint32_t code_bits;       /* 48..51 bits an element of neighbour codes; 0: there are none */
    uint32_t undecided;       /* 52..55 1: AUTO that has still to choose */
};
_Static_assert(sizeof(struct kithi_opened) == 56, "open body is format");

/* Answer to a WRITE that asked for less than durable, or of which a delete found nothing. */
struct kithi_written {
    uint64_t durable_epoch; /*  0..7  the last epoch that was durable when this was answered */
    uint32_t
        lag_ms; /*  8..11 writes stop getting ahead of the log once it is behind for so long; durable ones: 0 */
    uint32_t reserved; /* 12..15 zero */
};
_Static_assert(sizeof(struct kithi_written) == 16, "written body is format");

#define KITHI_AS_IS UINT32_MAX /* what is not to be changed */

/* Another layout for a collection, or its segment built anew. */
struct kithi_alter {
    uint8_t uid[16];          /*  0..15 */
    uint16_t anew;            /* 16..17 1: build it anew, even when nothing else is to be changed; else 0 */
    uint16_t index_len;       /* 18..19 bytes of the text behind it; 0: the index stays as it is */
    uint32_t m;               /* 20..23 this and the rest: as in struct kithi_create, or KITHI_AS_IS */
    uint32_t ef_construction; /* 24..27 */
    uint32_t quantization;    /* 28..31 */
    uint32_t keep;            /* 32..35 */
    uint32_t slot_max;        /* 36..39 */
};
_Static_assert(sizeof(struct kithi_alter) == 40, "alter body is format");

enum kithi_alter_done {
    KITHI_ALTER_NOTHING = 0,  /* it was so already */
    KITHI_ALTER_SETTINGS = 1, /* what was asked for is noted; the segment was so already */
    KITHI_ALTER_COPIED = 2,   /* there is another segment */
};

/* Answer to ALTER. */
struct kithi_altered {
    uint64_t generation;   /*  0..7  of the segment that there is now */
    uint64_t live;         /*  8..15 */
    uint64_t bytes_before; /* 16..23 memory of the segment before, and of this one */
    uint64_t bytes_after;  /* 24..31 */
    uint64_t took_ms;      /* 32..39 */
    uint64_t held_us;      /* 40..47 for which writes waited */
    uint32_t done;         /* 48..51 enum kithi_alter_done */
    uint32_t reserved;     /* 52..55 zero */
};
_Static_assert(sizeof(struct kithi_altered) == 56, "altered body is format");

/* Answer to BACKUP. */
struct kithi_backup_begun {
    uint64_t bytes; /* 0..7  that BACKUP_NEXT will give in all */
    uint64_t live;  /* 8..15 vectors in its checkpoint */
};
_Static_assert(sizeof(struct kithi_backup_begun) == 16, "backup body is format");

#define KITHI_RESTORE_HEAD      4096u      /* bytes of a back-up that RESTORE itself carries */
#define KITHI_RESTORE_PIECE_MAX (1u << 20) /* bytes that a RESTORE_DATA carries at most */

struct kithi_restore {
    uint64_t size;                    /*  0..7    bytes of the back-up in all */
    uint32_t name_len;                /*  8..11 */
    uint32_t reserved;                /* 12..15   0 */
    uint8_t head[KITHI_RESTORE_HEAD]; /* 16..4111 its first bytes; zeros behind the end of a shorter one */
};
_Static_assert(sizeof(struct kithi_restore) == 4112, "restore body is format");

/* Answer to RESTORE_END. */
struct kithi_restored {
    uint64_t live;     /*  0..7 */
    uint64_t timeline; /*  8..15 */
};
_Static_assert(sizeof(struct kithi_restored) == 16, "restored body is format");

#endif
