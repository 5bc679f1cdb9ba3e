/*
 * bits_priv.h - the parts of bits.h that every kernel set has its own version of.
 *
 * bits.c reaches them through the set that was picked (distance.h). Most of it is written once, in bits_vec.h;
 * only the estimate is different code in each.
 */
#ifndef KITHI_KERNEL_BITS_PRIV_H
#define KITHI_KERNEL_BITS_PRIV_H

#include "shm/kernel/bits.h"
#include "shm/kernel/distance_priv.h"

enum {
    KITHI_BITS_F1 = 0, /* places in a block, in bytes */
    KITHI_BITS_F2 = 128,
    KITHI_BITS_CODES = 256,
    KITHI_BITS_HALF = 16 /* neighbours in the low half of the bytes */
};

#define KITHI_BITS_SET(name)                                                                                 \
    kithi_bits_estimate_fn kithi_bits_estimate_##name;                                                       \
    kithi_bits_rotate_fn kithi_bits_rotate_##name;                                                           \
    kithi_bits_table_fn kithi_bits_table_##name;                                                             \
    kithi_bits_measure_fn kithi_bits_measure_##name

#if KITHI_TSAN
KITHI_BITS_SET(tsan);
#else
KITHI_BITS_SET(scalar);
#if defined(__x86_64__)
KITHI_BITS_SET(avx2);
KITHI_BITS_SET(avx512);
KITHI_BITS_SET(avx512vbmi);
#elif defined(__aarch64__)
KITHI_BITS_SET(neon);
#endif
#endif

#endif
