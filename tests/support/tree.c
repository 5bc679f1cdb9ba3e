/*
 * tree.c - see tree.h.
 */
#include "tests/support/tree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void full_path(const struct test_dir *d, const char *path, char out[2 * TEST_PATH_SIZE])
{
    snprintf(out, 2 * TEST_PATH_SIZE, "%s%s", d->path, path);
}

/* Directories for all components but the last one. */
static void make_above(char *full)
{
    for (char *slash = full; (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        if (mkdir(full, 0755) < 0 && errno != EEXIST)
            test_die("%s: %s", full, strerror(errno));
        *slash = '/';
    }
}

void test_tree_write(const struct test_dir *d, const char *path, const char *text)
{
    char full[2 * TEST_PATH_SIZE];
    full_path(d, path, full);
    make_above(full);
    FILE *f = fopen(full, "we");
    if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0)
        test_die("%s: %s", full, strerror(errno));
}

void test_tree_mkdir(const struct test_dir *d, const char *path)
{
    char full[2 * TEST_PATH_SIZE];
    full_path(d, path, full);
    make_above(full);
    if (mkdir(full, 0755) < 0 && errno != EEXIST)
        test_die("%s: %s", full, strerror(errno));
}

void test_tree_remove(const struct test_dir *d, const char *path)
{
    char full[2 * TEST_PATH_SIZE];
    full_path(d, path, full);
    if (remove(full) < 0)
        test_die("%s: %s", full, strerror(errno));
}
