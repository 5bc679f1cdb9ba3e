/*
 * tree.h - a made-up /proc, /sys and /etc: files below a directory, which KITH_DOCTOR_ROOT can name.
 */
#ifndef KITHI_TEST_TREE_H
#define KITHI_TEST_TREE_H

#include "tests/support/tmp.h"

/* The file d/path ("/proc/meminfo") with this text; directories above it are made. */
void test_tree_write(const struct test_dir *d, const char *path, const char *text);
/* A directory, and those above it. */
void test_tree_mkdir(const struct test_dir *d, const char *path);
void test_tree_remove(const struct test_dir *d, const char *path);

#endif
