/*
 * cpu.c - which kernel set this process uses. Asks the CPU, and the operating system
 * through it (a set counts only when its registers are saved on a context switch).
 *
 * Built without instruction flags: the one file of this folder, with scalar.c and floats.c,
 * that runs everywhere.
 */
#include <stdlib.h>
#include <string.h>

#include "shm/kernel/distance_priv.h"

static bool always(void)
{
    return true;
}

#if defined(__x86_64__) && !KITHI_TSAN
static bool has_avx512(void)
{
    __builtin_cpu_init(); /* the host may call us from a constructor, before libgcc's own */
    return __builtin_cpu_supports("avx512f");
}

static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

/* Best first; the last one runs on every CPU. */
static const struct {
    const struct kithi_kernel *set;
    bool (*can_run)(void);
} candidates[] = {
#if KITHI_TSAN
    { &kithi_kernel_tsan, always },
#else
#if defined(__x86_64__)
    { &kithi_kernel_avx512, has_avx512 },
    { &kithi_kernel_avx2, has_avx2 },
#elif defined(__aarch64__)
    { &kithi_kernel_neon, always }, /* part of the base architecture */
#endif
    { &kithi_kernel_scalar, always },
#endif
};

enum { CANDIDATE_COUNT = sizeof candidates / sizeof candidates[0] };

const struct kithi_kernel *kithi_kernel_named(const char *name)
{
    for (size_t i = 0; i < CANDIDATE_COUNT; i++) {
        if (strcmp(candidates[i].set->name, name) == 0) {
            return candidates[i].can_run() ? candidates[i].set : NULL;
        }
    }
    return NULL;
}

static const struct kithi_kernel *choose(void)
{
    const char *wish = getenv("KITH_KERNEL");
    const struct kithi_kernel *set = wish ? kithi_kernel_named(wish) : NULL;
    for (size_t i = 0; !set; i++) {
        if (candidates[i].can_run())
            set = candidates[i].set;
    }
    return set;
}

const struct kithi_kernel *kithi_kernel_pick(void)
{
    static _Atomic(const struct kithi_kernel *) picked;

    /* Relaxed: the sets are constants of the program, nothing is published with the pointer. */
    const struct kithi_kernel *set = atomic_load_explicit(&picked, memory_order_relaxed);
    if (KITHI_LIKELY(set != NULL))
        return set;

    /* The first pick stays, even if another thread changes the environment meanwhile. */
    const struct kithi_kernel *mine = choose(), *first = NULL;
    bool won = atomic_compare_exchange_strong_explicit(&picked, &first, mine, memory_order_relaxed,
                                                       memory_order_relaxed);
    return won ? mine : first;
}
