/*
 * cpu.c - which kernel set this process uses. Asks the CPU, and the operating system
 * through it (a set counts only when its registers are saved on a context switch).
 *
 * Built without instruction flags, like all files of this folder that are not a set: it runs everywhere.
 */
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "shm/kernel/distance_priv.h"

static bool always(void)
{
    return true;
}

#if defined(__x86_64__) && !KITHI_TSAN
static bool has_f16c(void) /* clang 14 has no name for it */
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
    __builtin_cpu_init(); /* the host may call us from a constructor, before libgcc's own */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512vbmi(void)
{
    return has_avx512vnni() && __builtin_cpu_supports("avx512vbmi");
}
#elif defined(__aarch64__) && !KITHI_TSAN
static bool has_dotprod(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
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
    { &kithi_kernel_avx512vbmi, has_avx512vbmi },
    { &kithi_kernel_avx512vnni, has_avx512vnni },
    { &kithi_kernel_avx512, has_avx512 },
    { &kithi_kernel_avx2, has_avx2 },
#elif defined(__aarch64__)
    { &kithi_kernel_neondot, has_dotprod },
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
