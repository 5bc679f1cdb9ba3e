/*
 * facet.h - the values of a field and how many vectors have each, counted at one snapshot by a pass over all payloads.
 *
 * A table holds so many different values and so many bytes of strings at most. What it holds is counted exactly; values that came when it was full
 * are not told apart, and their number is in `other`.
 */
#ifndef KITHI_GRAPH_FACET_H
#define KITHI_GRAPH_FACET_H

#include "shm/graph/match.h"

#define KITHI_FACET_VALUES 65536u
#define KITHI_FACET_BYTES  (16u << 20) /* of strings, with a NUL behind each */

struct kithi_facet_entry {
    enum kithi_payload_type type; /* BOOL, INT64, DOUBLE or STRING; a double that is an integer is one */
    uint32_t len;                 /* of a STRING */
    union {
        int64_t integer; /* of BOOL (0 or 1) and INT64 */
        double number;
        uint64_t off; /* of a STRING: in the table's text */
    };
    uint64_t count;
    uint32_t last; /* slot + 1 that was counted last, as an array counts each of its values once */
};

struct kithi_facet {
    uint32_t value_max; /* KITHI_FACET_VALUES at most; set before the pass */
    struct kithi_facet_entry
        *entries; /* most frequent first; then booleans, integers, numbers, strings, rising */
    uint32_t count, capacity;
    uint32_t *places; /* set of entries, open addressing; number + 1; 0 is empty */
    uint32_t place_mask;
    char *text;
    size_t text_len, text_capacity;
    uint64_t epoch;
    uint64_t vectors; /* that are visible, and fulfil the condition */
    uint64_t with;    /* of them, those that have a value in the field */
    uint64_t
        other; /* values of vectors that the table had no room for, an array's as often as it holds them */
};

/* An empty table. */
void kithi_facet_init(struct kithi_facet *f, uint32_t value_max);
void kithi_facet_fini(struct kithi_facet *f);

/*
 * Count at a moment. path is a dotted path; payload has room for KITHI_PAYLOAD_MAX bytes; c NULL: all vectors. As kithi_match_count(), and
 * -ENOMEM. null, objects and empty arrays are no values.
 */
int kithi_facet_count(const struct kithi_map *map, const struct kithi_moment *at, const char *path,
                      size_t path_len, unsigned char *payload, struct kithi_condition *c,
                      uint64_t deadline_ns, struct kithi_facet *f);

#endif
