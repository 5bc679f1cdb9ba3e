/*
 * bare.h - a made-up system without a file, for tests that write into it what they need: one for each test, or for all of a
 * program.
 */
#ifndef KITHI_TEST_DOCTOR_BARE_H
#define KITHI_TEST_DOCTOR_BARE_H

#include "tests/unit/tools/doctor/found.h"

static struct test_dir tree;

static inline int set_up(void **state)
{
    (void)state;
    test_dir_make(&tree);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&tree);
    return 0;
}

#endif
