/*
 * failing.h - the k-th call of the test's own thread fails.
 *
 * For errors that nothing but a lack of memory or a broken disk leads to: a test does the same thing for k = 1, 2, ... until k
 * is beyond the last call, and asserts each time what its caller is promised. Programs that use it are linked by
 * kith_test_failing() (tools/cmake/KithTest.cmake), which leads the calls below here: those of the thread that asked, in code that
 * is linked statically. What glibc does within a call, and what other threads do, neither fails nor counts.
 */
#ifndef KITHI_TEST_FAILING_H
#define KITHI_TEST_FAILING_H

#include <stdbool.h>
#include <stdint.h>

enum test_way {
    TEST_FAILS, /* for want of memory or of descriptors, by an error of the disk, because it is full */
    TEST_FAILS_OTHERWISE, /* as a system does that has not got this, or a file that was cut off meanwhile: often there is a way on */
    TEST_LASTS,       /* as the first, and so does the same call from then on */
    TEST_INTERRUPTED, /* by a signal, or half of it was done: whoever calls goes on. Only such calls count */
};
#define TEST_WAYS 4

/* Let the k-th call from now on fail (1: the next one). */
void test_failing_begin(uint64_t k, enum test_way way);

/* From here on no call fails. True when one did. */
bool test_failing_end(void);

/* Call fn whenever this thread has opened a file, to let something happen right then; NULL: no more. */
void test_failing_on_open(void (*fn)(void));

/* What failed last, as "fsync: Input/output error": for messages. */
const char *test_failing_what(void);

#endif
