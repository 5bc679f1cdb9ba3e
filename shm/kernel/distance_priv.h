/*
 * distance_priv.h - the kernel sets that a build may contain, for the files of this folder.
 *
 * Every set is built with its own instruction flags (shm/CMakeLists.txt), and may have functions of a set that
 * asks the CPU for less. Nothing but cpu.c, which asks first, may call into one.
 */
#ifndef KITHI_KERNEL_DISTANCE_PRIV_H
#define KITHI_KERNEL_DISTANCE_PRIV_H

#include "shm/base/compiler.h"
#include "shm/kernel/distance.h"

/* The bodies of a set are written once for both metrics and specialised by a constant `dot`:
 * true sums products, false sums squared differences. That only pays when inlined. */
#define KITHI_KERNEL_INLINE static inline __attribute__((always_inline))

/* Plain and vector loads are data races in the eyes of ThreadSanitizer, and right so: its
 * builds hold the set with atomic loads and no other. */
#if KITHI_TSAN
extern const struct kithi_kernel kithi_kernel_tsan;
#else
extern const struct kithi_kernel kithi_kernel_scalar;
#if defined(__x86_64__)
extern const struct kithi_kernel kithi_kernel_avx2;
extern const struct kithi_kernel kithi_kernel_avx512;
extern const struct kithi_kernel kithi_kernel_avx512vnni;
extern const struct kithi_kernel kithi_kernel_avx512vbmi;
#elif defined(__aarch64__)
extern const struct kithi_kernel kithi_kernel_neon;
extern const struct kithi_kernel kithi_kernel_neondot;
#endif
#endif

#endif
