/*
 * build.h - putting a filter together: by the parser, and by callers who have no text.
 *
 * Conditions are added one after the other; kithi_filter_join() makes one of all that were added since a mark. What has no
 * room, or is no field, is remembered as the first of what is wrong, and told at the end.
 */
#ifndef KITHI_FILTER_BUILD_H
#define KITHI_FILTER_BUILD_H

#include "shm/filter/filter.h"

struct kithi_filter_build {
    uint32_t node_count, literal_count, field_count, text_len;
    const char *wrong; /* NULL while all is well */
    struct kithi_filter_node nodes[KITHI_FILTER_NODE_MAX];
    struct kithi_filter_literal literals[KITHI_FILTER_LITERAL_MAX];
    struct kithi_filter_field fields[KITHI_FILTER_FIELD_MAX];
    char text[KITHI_FILTER_TEXT_MAX];
};

/* On the heap, some 150 KiB; NULL: out of memory. To be freed by kithi_filter_end(), or free(). */
struct kithi_filter_build *kithi_filter_begin(void);

/* Where the next node will be. */
static inline uint32_t kithi_filter_mark(const struct kithi_filter_build *b)
{
    return b->node_count;
}

/* Literals of the condition that follows; all of one kind. */
void kithi_filter_add_string(struct kithi_filter_build *b, const char *text, size_t len);
void kithi_filter_add_integer(struct kithi_filter_build *b, int64_t v);
void kithi_filter_add_number(struct kithi_filter_build *b, double v);
void kithi_filter_add_bool(struct kithi_filter_build *b, bool v);

/* A condition on a field, with the literals that were added since the one before. */
void kithi_filter_add(struct kithi_filter_build *b, enum kithi_filter_op op, const char *path,
                      size_t path_len);

/* All that another filter says. */
void kithi_filter_add_filter(struct kithi_filter_build *b, const struct kithi_filter *f);

/* What was added since the mark, one condition or more, all of them (AND), any (OR), or not (NOT, of one). */
void kithi_filter_join(struct kithi_filter_build *b, enum kithi_filter_op op, uint32_t mark);

/* The filter, which is one condition by now. Frees b. 0, KITHI_E_FILTER and *out_why (may be NULL), or -ENOMEM. */
int kithi_filter_end(struct kithi_filter_build *b, struct kithi_filter **out, const char **out_why);

#endif
