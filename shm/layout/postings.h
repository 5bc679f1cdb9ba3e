/*
 * postings.h - which slots have which values in their payloads: fields, terms, and sets of slots.
 *
 *   region dict                  region postings: cells of 16 bytes, in blocks of 1, 2, 4, ... 2048 cells
 *   +-------------------+
 *   | field 0: path     |        page (2048 B)             directory             containers
 *   |   pages[64]  -----+----->  | term | term | ... |
 *   +-------------------+           low, high
 *   | field 1           |           directory ---------->  | word | word |
 *   | ...               |                                     chunk, count, ref -->  | u16 u16 u16 |  or a bitmap
 *   +-------------------+
 *
 * A term is an interval of keys of one kind, and the slots that have a value in it, or had one a while ago. A key is a number that
 * has the order of the values; of strings it has that of their first five bytes, and a keyed hash of the rest. Terms of a field do not overlap, but for those that are about to go, so
 * a field of few values has one term for each, and one of many values has wider ones. Slots of a term are in chunks of 65536; a chunk's
 * container is an array of their low halves, in no order and with repetitions, or a bitmap.
 *
 * All of it is a hint, an upper bound for what each epoch sees; [P19 postings] in PROTOCOL.md is why.
 */
#ifndef KITHI_LAYOUT_POSTINGS_H
#define KITHI_LAYOUT_POSTINGS_H

#include <stddef.h>

#include "shm/base/compiler.h"

#define KITHI_POSTINGS_FIELDS     64u  /* of a collection */
#define KITHI_POSTINGS_PATH       232u /* bytes of a field's path */
#define KITHI_POSTINGS_PAGES      64u  /* of a field */
#define KITHI_POSTINGS_PAGE_TERMS 64u
#define KITHI_POSTINGS_TERMS      (KITHI_POSTINGS_PAGES * KITHI_POSTINGS_PAGE_TERMS)
#define KITHI_POSTINGS_CELL       16u /* bytes */
#define KITHI_POSTINGS_CLASSES                                                                               \
    12u /* a block of class c has 16 << c bytes: a directory of all chunks is the largest */
#define KITHI_POSTINGS_PAGE_CLASS 7u
#define KITHI_POSTINGS_BITMAP     9u     /* the class of a bitmap; containers below are arrays */
#define KITHI_POSTINGS_ARRAY_MAX  2048u  /* slots of an array */
#define KITHI_POSTINGS_CHUNK      65536u /* slots of a chunk */
#define KITHI_POSTINGS_CHUNKS     4096u  /* of all slots that there can be */

enum kithi_postings_state { /* of a field; the numbers are format */
                            KITHI_POSTINGS_UNUSED = 0,
                            KITHI_POSTINGS_KEPT = 1,
                            KITHI_POSTINGS_GIVEN_UP = 2, /* memory was short: it has no terms */
};

/* What the values of a field were declared to be (postings/declared.h); the numbers are format. */
enum kithi_declared_type {
    KITHI_DECLARED_ANY = 0, /* nothing was declared */
    KITHI_DECLARED_KEYWORD = 1,
    KITHI_DECLARED_INTEGER = 2,
    KITHI_DECLARED_NUMBER = 3,
    KITHI_DECLARED_BOOL = 4,
};

enum kithi_term_kind { /* the numbers are format; the first are those of enum kithi_filter_kind */
                       KITHI_TERM_NONE = 0, /* no term */
                       KITHI_TERM_STRING = 1,
                       KITHI_TERM_NUMBER = 2,
                       KITHI_TERM_BOOL = 3,
                       KITHI_TERM_OTHER = 4,  /* objects, empty arrays */
                       KITHI_TERM_MANY = 5,   /* arrays that are too long to have a term for each element */
                       KITHI_TERM_MISFIT = 6, /* of another type than the field was declared with */
                       KITHI_TERM_KIND_COUNT = 7,
};

struct kithi_postings_term {
    _Atomic uint64_t low;       /*  0..7  keys: from here */
    _Atomic uint64_t high;      /*  8..15 to here */
    _Atomic uint64_t directory; /* 16..23 kithi_block_pack() */
    _Atomic uint32_t count;     /* 24..27 slots, each once */
    _Atomic uint32_t kind;      /* 28..31 enum kithi_term_kind; stored last */
};
_Static_assert(sizeof(struct kithi_postings_term) == 32, "format");
_Static_assert(sizeof(struct kithi_postings_term) * KITHI_POSTINGS_PAGE_TERMS ==
                   KITHI_POSTINGS_CELL << KITHI_POSTINGS_PAGE_CLASS,
               "a page is a block");

struct kithi_postings_field {
    _Atomic uint32_t state;                       /*   0..3   enum kithi_postings_state; stored last */
    uint32_t path_len;                            /*   4..7   bytes */
    _Atomic uint32_t term_end;                    /*   8..11  places of terms that were ever used */
    uint32_t declared;                            /*  12..15  enum kithi_declared_type */
    _Atomic uint32_t pages[KITHI_POSTINGS_PAGES]; /*  16..271 first cell + 1 */
    unsigned char path[KITHI_POSTINGS_PATH];      /* 272..503 dotted */
    uint8_t reserved1[8];                         /* 504..511 0 */
};
_Static_assert(sizeof(struct kithi_postings_field) == 512, "format");
_Static_assert(offsetof(struct kithi_postings_field, path) == 272, "format");

/* A block: first cell + 1 (bits 0..31), class (32..35). 0: there is none. */
static inline uint64_t kithi_block_pack(uint32_t ref, unsigned class)
{
    return ref | (uint64_t) class << 32;
}
static inline uint32_t kithi_block_ref(uint64_t word)
{
    return (uint32_t)word;
}
static inline unsigned kithi_block_class(uint64_t word)
{
    return (unsigned)(word >> 32 & 15);
}

/* A word of a directory: a block, and which chunk it has (bits 36..47), and how many places of an array are used (48..63). */
static inline uint64_t kithi_container_pack(uint32_t ref, unsigned class, uint32_t chunk, uint32_t count)
{
    return kithi_block_pack(ref, class) | (uint64_t)chunk << 36 | (uint64_t)count << 48;
}
static inline uint32_t kithi_container_chunk(uint64_t word)
{
    return (uint32_t)(word >> 36 & (KITHI_POSTINGS_CHUNKS - 1));
}
static inline uint32_t kithi_container_count(uint64_t word)
{
    return (uint32_t)(word >> 48);
}

/*
 * The header's word [P19 postings]: generation (bits 32..63), era (1..31), and whether the postings are whole (0). An era ends before anything
 * that rested goes.
 */
#define KITHI_POSTINGS_ERAS 0x7fffffffu
static inline uint64_t kithi_postings_pack(uint32_t generation, uint32_t era, bool whole)
{
    return (uint64_t)generation << 32 | (uint64_t)(era & KITHI_POSTINGS_ERAS) << 1 | whole;
}
static inline uint32_t kithi_postings_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}
static inline uint32_t kithi_postings_era(uint64_t word)
{
    return (uint32_t)word >> 1;
}
static inline bool kithi_postings_whole(uint64_t word)
{
    return word & 1;
}

#endif
