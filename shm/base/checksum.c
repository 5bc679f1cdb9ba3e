/*
 * checksum.c - CRC-32C, eight bytes a step where the CPU has an instruction for it (SSE4.2, ARMv8 CRC), of long data
 * in three places at a time; a byte a step by table elsewhere.
 */
#include "shm/base/checksum.h"

#include <stdbool.h>

#include "shm/base/bytes.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <stdatomic.h>
#include <sys/auxv.h>
#endif

/* The reflected polynomial is 0x82f63b78. The checksum is linear, so the entry of a byte is the
 * sum (xor) of the entries of its bits, and eight constants are the whole table. */
#define BIT(i, b, entry) ((((i) >> (b)) & 1u) ? (entry) : 0u)
#define T1(i)                                                                                                \
    (BIT(i, 0, 0xf26b8303u) ^ BIT(i, 1, 0xe13b70f7u) ^ BIT(i, 2, 0xc79a971fu) ^ BIT(i, 3, 0x8ad958cfu) ^     \
     BIT(i, 4, 0x105ec76fu) ^ BIT(i, 5, 0x20bd8edeu) ^ BIT(i, 6, 0x417b1dbcu) ^ BIT(i, 7, 0x82f63b78u))
#define T4(i)  T1(i), T1((i) + 1u), T1((i) + 2u), T1((i) + 3u)
#define T16(i) T4(i), T4((i) + 4u), T4((i) + 8u), T4((i) + 12u)
#define T64(i) T16(i), T16((i) + 16u), T16((i) + 32u), T16((i) + 48u)

static const uint32_t table[256] = { T64(0u), T64(64u), T64(128u), T64(192u) };

uint32_t kithi_crc32c_table(uint32_t crc, const void *data, size_t len)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (; len; len--)
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    return ~crc;
}

#if defined(__x86_64__) || defined(__aarch64__)

#define STRETCH 4096u

/*
 * What STRETCH bytes of zeros make of a register with bit b alone set. A register moves on linearly, so this tells what they
 * make of any. (Bit by bit with the table; the test compares sums of all lengths with it.)
 */
static const uint32_t over_stretch[32] = {
    0xc2a5b65eu, 0x80a71a4du, 0x04a2426bu, 0x094484d6u, 0x128909acu, 0x25121358u, 0x4a2426b0u, 0x94484d60u,
    0x2d7cec31u, 0x5af9d862u, 0xb5f3b0c4u, 0x6e0b1779u, 0xdc162ef2u, 0xbdc02b15u, 0x7e6c20dbu, 0xfcd841b6u,
    0xfc5cf59du, 0xfd559dcbu, 0xff474d67u, 0xfb62ec3fu, 0xf329ae8fu, 0xe3bf2befu, 0xc292212fu, 0x80c834afu,
    0x047c1fafu, 0x08f83f5eu, 0x11f07ebcu, 0x23e0fd78u, 0x47c1faf0u, 0x8f83f5e0u, 0x1aeb9d31u, 0x35d73a62u,
};

static uint32_t skip_stretch(uint32_t c)
{
    uint32_t sum = 0;
    for (unsigned b = 0; b < 32; b++)
        sum ^= over_stretch[b] & (0u - (c >> b & 1u));
    return sum;
}

#endif

#if defined(__x86_64__)

static bool has_instruction(void)
{
    return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const unsigned char *p,
                                                                 size_t len)
{
    uint64_t c = (uint32_t)~crc;
    /* A step waits three cycles for the one before it, so three stretches take hardly longer than one. */
    for (; len >= 3 * STRETCH; p += 3 * STRETCH, len -= 3 * STRETCH) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < STRETCH; i += 8) {
            c = _mm_crc32_u64(c, kithi_get64(p + i));
            second = _mm_crc32_u64(second, kithi_get64(p + STRETCH + i));
            third = _mm_crc32_u64(third, kithi_get64(p + 2 * STRETCH + i));
        }
        c = skip_stretch(skip_stretch((uint32_t)c) ^ (uint32_t)second) ^ third;
    }
    for (; len >= 8; p += 8, len -= 8)
        c = _mm_crc32_u64(c, kithi_get64(p));
    uint32_t c32 = (uint32_t)c;
    if (len >= 4) {
        c32 = _mm_crc32_u32(c32, kithi_get32(p));
        p += 4;
        len -= 4;
    }
    for (; len; len--)
        c32 = _mm_crc32_u8(c32, *p++);
    return ~c32;
}

#elif defined(__aarch64__)

static bool has_instruction(void)
{
    /* getauxval walks a list, so its answer is kept. Relaxed: every thread finds the same. */
    static _Atomic int known; /* 0 not asked, 1 no, 2 yes */
    int k = atomic_load_explicit(&known, memory_order_relaxed);
    if (!k) {
        k = getauxval(AT_HWCAP) & HWCAP_CRC32 ? 2 : 1;
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return k == 2;
}

/* By assembler, because gcc and clang disagree on how to name the feature in an attribute and
 * on when <arm_acle.h> declares the intrinsics. */
#define CRC_STEP(insn, crc, v) __asm__(".arch_extension crc\n\t" insn : "+r"(crc) : "r"(v))

static uint32_t by_instruction(uint32_t crc, const unsigned char *p, size_t len)
{
    crc = ~crc;
    /* A step waits some cycles for the one before it, so three stretches take hardly longer than one. */
    for (; len >= 3 * STRETCH; p += 3 * STRETCH, len -= 3 * STRETCH) {
        uint32_t second = 0, third = 0;
        for (size_t i = 0; i < STRETCH; i += 8) {
            CRC_STEP("crc32cx %w0, %w0, %x1", crc, kithi_get64(p + i));
            CRC_STEP("crc32cx %w0, %w0, %x1", second, kithi_get64(p + STRETCH + i));
            CRC_STEP("crc32cx %w0, %w0, %x1", third, kithi_get64(p + 2 * STRETCH + i));
        }
        crc = skip_stretch(skip_stretch(crc) ^ second) ^ third;
    }
    for (; len >= 8; p += 8, len -= 8)
        CRC_STEP("crc32cx %w0, %w0, %x1", crc, kithi_get64(p));
    if (len >= 4) {
        CRC_STEP("crc32cw %w0, %w0, %w1", crc, kithi_get32(p));
        p += 4;
        len -= 4;
    }
    for (; len; len--)
        CRC_STEP("crc32cb %w0, %w0, %w1", crc, (uint32_t)*p++);
    return ~crc;
}

#else

static bool has_instruction(void)
{
    return false;
}

static uint32_t by_instruction(uint32_t crc, const unsigned char *p, size_t len)
{
    return kithi_crc32c_table(crc, p, len);
}

#endif

uint32_t kithi_crc32c(uint32_t crc, const void *data, size_t len)
{
    return has_instruction() ? by_instruction(crc, data, len) : kithi_crc32c_table(crc, data, len);
}
