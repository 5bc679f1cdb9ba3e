/*
 * fail.h - what the test that makes calls fail (crash_fail.c) and the library that it puts before kithd's others
 * (shim.c) share: one page of memory, in a file that KITH_TEST_FAIL names.
 *
 *   crash_fail            fork, exec             kithd
 *      |  LD_PRELOAD=shim  ----------------->      |  open, pwrite, malloc, ... -> shim -> libc, jemalloc, liburing
 *      |                                           |                                |
 *      +--------- struct fail_control: armed, which call is to fail <---------------+ count, what failed
 *
 * Calls are counted while their class is armed; the one with the number `at` fails in one of the ways that its call may
 * fail in (shim.c has the table), and what comes after it as `mode` says.
 */
#ifndef KITHI_TEST_FAIL_H
#define KITHI_TEST_FAIL_H

#include <stdatomic.h>
#include <stdint.h>

enum fail_class {
    FAIL_SYSTEM, /* system calls, and what io_uring completes */
    FAIL_MEMORY, /* allocations */
    FAIL_CLASS_COUNT,
};

enum fail_mode {
    FAIL_ONCE,
    FAIL_SAME, /* and this call from then on */
    FAIL_ALL,  /* and from then on everything whose failure may last */
    FAIL_MODE_COUNT,
};

#define FAIL_SHORT       (-1) /* instead of an error: less than was asked for */
#define FAIL_PATH_SIZE   256u
#define FAIL_NAME_SIZE   32u
#define FAIL_ENVIRONMENT "KITH_TEST_FAIL"

struct fail_control {
    _Atomic uint32_t armed; /* bits 1 << class */
    _Atomic uint32_t begin; /* armed with these once main() reads its options */
    _Atomic uint32_t
        tiny_log; /* log files of the full size are refused with ENOSPC: kithd makes do with 1 MiB */
    _Atomic uint32_t backwards; /* CLOCK_REALTIME goes back by an hour whenever it is read */
    uint32_t what, mode, way;
    uint64_t at;                    /* 0: none fails */
    char only[FAIL_NAME_SIZE];      /* count calls of this name alone; "": of all */
    char only_path[FAIL_NAME_SIZE]; /* and with this in their path */
    _Atomic uint64_t count[FAIL_CLASS_COUNT];
    _Atomic uint64_t failed;    /* calls that did */
    _Atomic uint64_t errors[4]; /* a bit for each errno among them */

    /* The first of them; stored before `failed` is. */
    uint32_t call;
    int32_t error;               /* FAIL_SHORT, or an errno */
    uint32_t ways;               /* in how many ways it may fail */
    char name[FAIL_NAME_SIZE];   /* "open" */
    char path[FAIL_PATH_SIZE];   /* "" when it has none */
    char object[FAIL_NAME_SIZE]; /* of the caller: "kithd" */
    uint64_t caller;             /* and where in it */
};

#endif
