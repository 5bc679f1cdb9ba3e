/*
 * header.h - the first page of a segment: identity, publication words, marks, limits.
 *
 *      0 +------------------------------------------------------+
 *        | identity: written once, before the magic             |
 *    256 +------------------------------------------------------+
 *        | publication: stored at every commit                  |
 *    320 +------------------------------------------------------+
 *        | marks and switches: what a slow reader may have lost |
 *    384 +------------------------------------------------------+
 *        | finders: entry point, id table, slots used           |
 *    448 +------------------------------------------------------+
 *        | taken[20]: bytes of each region that have memory     |
 *    608 +------------------------------------------------------+
 *        | tallies: for people, nothing relies on them          |
 *   1024 +------------------------------------------------------+
 *        | recall curves (curve.h), ledger (ledger.h), reserved |
 *   4096 +------------------------------------------------------+
 *        | notes for the next owner (notes.h)                   |
 *  65536 +------------------------------------------------------+
 */
#ifndef KITHI_LAYOUT_HEADER_H
#define KITHI_LAYOUT_HEADER_H

#include <stddef.h>

#include "shm/base/compiler.h"
#include "shm/layout/geometry.h"

#define KITHI_SEGMENT_MAGIC  UINT64_C(0x0147455348544b89) /* reads wrong when byte-swapped */
#define KITHI_FORMAT_VERSION 5u
#define KITHI_HEADER_SIZE    65536u     /* bytes of the header's region */
#define KITHI_MARK_ALL       UINT64_MAX /* a mark that sends every search to a newer generation */

struct kithi_header {
    _Atomic uint64_t magic;   /*   0..7   [P0 ready] stored last: 0 = being built */
    uint32_t version;         /*   8..11  KITHI_FORMAT_VERSION */
    uint32_t header_size;     /*  12..15  KITHI_HEADER_SIZE: the region, this struct and what is reserved */
    uint64_t incompat_flags;  /*  16..23  unknown bit: refuse to attach */
    uint64_t compat_flags;    /*  24..31  unknown bit: ignore */
    uint8_t uid[16];          /*  32..47  of the collection, random */
    uint8_t hash_key[16];     /*  48..63  of the id table */
    uint32_t dim;             /*  64..67  */
    uint32_t metric;          /*  68..71  enum kithi_metric */
    uint32_t m;               /*  72..75  */
    uint32_t ef_construction; /*  76..79  */
    uint32_t quantization;    /*  80..83  enum kithi_quantization */
    uint32_t slot_max;        /*  84..87  */
    uint64_t generation;      /*  88..95  rises with every segment file of the collection */
    uint64_t layout_sum;      /*  96..103 of kithi_geometry_layout() */
    uint64_t created_ns;      /* 104..111 CLOCK_REALTIME */
    uint32_t keep;            /* 112..115 enum kithi_keep */
    uint32_t code_bits;       /* 116..119 bits an element of neighbour codes */
    uint8_t reserved0[136];   /* 120..255 zero */

    alignas(64) _Atomic uint64_t epoch; /* 256..263 [P1 commit] last visible group */
    _Atomic uint64_t live;              /* 264..271 vectors visible at about that epoch */
    _Atomic uint64_t durable_epoch;     /* 272..279 last group known to be on disk */
    _Atomic uint64_t timeline;          /* 280..287 changes when visible epochs were lost */
    _Atomic uint32_t wake;              /* 288..291 futex: bumped at commit, move, adoption, drop */
    uint8_t reserved1[28];              /* 292..319 zero */

    alignas(64) _Atomic uint64_t unlinked; /* 320..327 [P3 unlinked] highest death that finders may miss */
    _Atomic uint64_t reused;               /* 328..335 [P4 reused] highest death whose slot was refilled */
    _Atomic uint32_t moved;                /* 336..339 [P6 moved] 1: attach by name again */
    _Atomic uint32_t dropped;              /* 340..343 1: the collection was dropped */
    _Atomic uint64_t emptied;              /* 344..351 [P9 emptied] batches whose rows were emptied */
    _Atomic uint64_t merged_from;          /* 352..359 [P17 merged] epochs from here ... */
    _Atomic uint64_t merged_to;            /* 360..367 ... and before this were never visible; 0: none */
    _Atomic uint64_t postings;             /* 368..375 [P19 postings] see postings.h */
    uint8_t reserved2[8];                  /* 376..383 zero */

    alignas(64) _Atomic uint64_t entry; /* 384..391 level << 32 | slot + 1; 0: the graph is empty */
    _Atomic uint64_t id_table;          /* 392..399 [P7 id table] see ids.h; 0: no table yet */
    _Atomic uint64_t slots_used;        /* 400..407 slots below this were used at least once */
    uint8_t reserved3[40];              /* 408..447 zero */

    _Atomic uint64_t taken[KITHI_REGION_COUNT]; /* 448..607 [P5 taken] bytes; beyond are holes */

    _Atomic uint64_t tally_dead;                         /* 608..615 dead, still linked */
    _Atomic uint64_t tally_resting;                      /* 616..623 unlinked, not yet free */
    _Atomic uint64_t tally_free;                         /* 624..631 free for reuse */
    _Atomic uint64_t tally_upper;                        /* 632..639 upper rows in use */
    _Atomic uint64_t tally_blob[KITHI_BLOB_CLASS_COUNT]; /* 640..703 blobs in use, by class */
    _Atomic uint64_t tally_ids;                          /* 704..711 id-table places that are not empty */
    _Atomic uint64_t tally_commits;                      /* 712..719 groups since this segment was made */
    _Atomic uint64_t tally_sweeps;                       /* 720..727 passes that unlinked dead slots */
    _Atomic uint64_t tally_huge; /* 728..735 of those below: the writer asked for huge pages and got them */
    _Atomic uint64_t tally_huge_wanted;   /* 736..743 bytes in blocks that huge pages can back */
    _Atomic uint64_t tally_payloads;      /* 744..751 payloads that vectors have, not empty ones */
    _Atomic uint64_t tally_payload_bytes; /* 752..759 bytes in them */
    _Atomic uint64_t tally_versions;      /* 760..767 payloads that were replaced and rest */
    _Atomic uint64_t tally_cells;         /* 768..775 cells of postings that were ever used, ... */
    _Atomic uint64_t tally_cells_free;    /* 776..783 ... of them those that are free again, ... */
    _Atomic uint64_t tally_cells_resting; /* 784..791 ... and those that were replaced and rest */
    _Atomic uint32_t declared;            /* 792..795 1: the fields that have postings were declared */
    _Atomic uint32_t tally_fields;        /* 796..799 fields with postings */
    _Atomic uint32_t tally_given_up;      /* 800..803 fields that were given up, for want of memory */
    uint32_t reserved5;                   /* 804..807 zero */
    _Atomic uint64_t tally_misfits; /* 808..815 values of payloads that are of another type than declared */
    uint8_t reserved4[200];         /* 816..1015 zero */
    _Atomic uint32_t prefetch_row;  /* 1016..1019 lines of a row worth a prefetch; 0: unknown */
    _Atomic uint32_t prefetch_code; /* 1020..1023 the same of a code; measured here by the writer */
    /* 1024..1983: curve.h; 1984..2367: ledger.h; to 4095: reserved, zero */
    /* 4096..65535: notes.h, for the owner's successor */
};
_Static_assert(offsetof(struct kithi_header, epoch) == 256, "owns its cache line");
_Static_assert(offsetof(struct kithi_header, unlinked) == 320, "owns its cache line");
_Static_assert(offsetof(struct kithi_header, entry) == 384, "owns its cache line");
_Static_assert(offsetof(struct kithi_header, taken) == 448, "format");
_Static_assert(offsetof(struct kithi_header, tally_dead) == 608, "format");
_Static_assert(sizeof(struct kithi_header) == 1024, "header size is format");

/* The entry point is one word, so that slot and level always belong together. */
static inline uint64_t kithi_entry_pack(uint32_t slot, uint32_t level)
{
    return (uint64_t)level << 32 | (slot + 1u);
}
static inline uint32_t kithi_entry_link(uint64_t entry)
{
    return (uint32_t)entry;
}
static inline uint32_t kithi_entry_level(uint64_t entry)
{
    return (uint32_t)(entry >> 32);
}

#endif
