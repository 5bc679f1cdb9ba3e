/*
 * tmp.h - directories that a test makes and leaves nothing of; waiting with a deadline.
 */
#ifndef KITHI_TEST_TMP_H
#define KITHI_TEST_TMP_H

#include <stdbool.h>
#include <stdint.h>

#define TEST_PATH_SIZE 256

struct test_dir {
    char path[TEST_PATH_SIZE];
    bool mounted;
};

/* Below $TMPDIR or /tmp. Ends the program when that fails. */
void test_dir_make(struct test_dir *d);
/* The same on a tmpfs: below /dev/shm, or like the above when there is none. */
void test_dir_make_shm(struct test_dir *d);
/*
 * A tmpfs of its own, of the given size, mounted there. False where mounting is not permitted, after a
 * message that says so; d is then an ordinary directory.
 */
bool test_dir_mount(struct test_dir *d, uint64_t bytes);
/* Mount d once more at a directory of its own, read-only. False as above. */
bool test_dir_bind_read_only(const struct test_dir *d, struct test_dir *out);
/* Unmount, remove everything. Accepts what was never made. What is left is removed at exit. */
void test_dir_remove(struct test_dir *d);

/* path "d/name" in a static buffer; four can be used at a time. */
const char *test_path(const struct test_dir *d, const char *name);

/* CLOCK_MONOTONIC */
uint64_t test_now_ms(void);
uint64_t test_now_ns(void);
/* Sleep for the time between two looks at a condition: a millisecond. */
void test_nap(void);

/* Bytes of PATH in memory or on disk: blocks, not size. */
uint64_t test_file_blocks(const char *path);

/* Print and exit 1: for what is not the test's subject. */
void test_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
