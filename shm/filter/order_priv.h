/*
 * order_priv.h - how values are ordered, for lists and for evaluation.
 */
#ifndef KITHI_FILTER_ORDER_PRIV_H
#define KITHI_FILTER_ORDER_PRIV_H

#include <stdint.h>

static inline int kithi_order_integers(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static inline int kithi_order_doubles(double a, double b)
{
    return (a > b) - (a < b);
}

/* Exactly, whatever their sizes: not every integer of 64 bits is a double. */
static inline int kithi_order_mixed(int64_t a, double b)
{
    if (b >= 0x1p63)
        return -1;
    if (b < -0x1p63)
        return 1;
    if (!(b == b))
        return 0; /* a NaN of bytes that nobody checked */
    int64_t whole = (int64_t)b;
    if (a != whole)
        return a < whole ? -1 : 1;
    return kithi_order_doubles((double)whole, b);
}

#endif
