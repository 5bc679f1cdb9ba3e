/*
 * row.h - a slot's links: slot + 1 of each neighbour, 0 for an empty place.
 *
 * A level-0 row is 2m words. Every place is loaded and stored as a relaxed atomic and
 * replaced by itself, never moved: any mixture of old and new is usable, and no link that
 * survives a change is absent for a moment. The rows of a slot's upper levels are a chain,
 * lowest level first, that begins at the record's `upper`.
 */
#ifndef KITHI_LAYOUT_ROW_H
#define KITHI_LAYOUT_ROW_H

#include "shm/base/compiler.h"

typedef _Atomic uint32_t kithi_link;

struct kithi_upper {
    _Atomic uint32_t owner; /* 0..3 slot + 1; 0: free */
    _Atomic uint32_t up;    /* 4..7 upper row + 1 of the same slot one level higher; 0: the top */
    kithi_link links[];     /* 8..  m places */
};
_Static_assert(sizeof(struct kithi_upper) == 8, "upper row head is format");

#endif
