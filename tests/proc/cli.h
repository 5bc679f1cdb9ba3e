/*
 * cli.h - kith, the command line, run against a kithd of the test's own: what it prints and how it exits is compared
 * with what it should. For the tests of commands (test_cli*.c), each of which has a daemon for all its tests.
 */
#ifndef KITHI_TEST_PROC_CLI_H
#define KITHI_TEST_PROC_CLI_H

#include <stddef.h>

#include "tests/support/daemon.h"

enum { ROWS = 600, DIM = 6 }; /* of make_rows() */

extern struct test_daemon daemon_;
extern struct test_dir files;             /* for what commands read and write */
extern char run_path[TEST_PATH_SIZE + 8]; /* that KITH() names; the daemon's */

struct result {
    int status; /* exit status; 128 + the signal that ended it */
    char *out, *err;
};

/* Run the program at argv[0] to its end; r is given back by done(), or by what takes it as an argument. */
void run_argv(struct result *r, const char *const argv[]);
/* kith --run RUN ARGS..., NULL-terminated. */
struct result run_kith(const char *first, ...);
#define KITH(...) run_kith(__VA_ARGS__, NULL)
void done(struct result *r);

/* The status, all of stdout (NULL: anything), a part of stderr (NULL: anything, "": nothing is there). */
void expect(struct result r, int status, const char *out, const char *err);
/* It worked: this on stdout, nothing on stderr. */
void expect_ok(struct result r, const char *out);
/* It did not: nothing on stdout, this in the message. */
void expect_fail(struct result r, int status, const char *err);
/* It worked, and each of these is somewhere in the output; NULL-terminated. */
void expect_says(struct result r, ...);

void create(const char *name, const char *dim, const char *metric);
void drop(const char *name);
void expect_count(const char *name, const char *count);
void expect_verified(const char *name);

/* Files of that name in `files`; their path, in a buffer of test_path(). */
const char *write_file(const char *name, const void *bytes, size_t len);
const char *write_text(const char *name, const char *text);
const char *write_fvecs(const char *name, float rows[][DIM], size_t n);
/* ROWS rows of small whole numbers, so that every format holds them exactly. */
void make_rows(float rows[ROWS][DIM]);

/* Of the group of tests: start the daemon, stop it. */
int set_up(void **state);
int tear_down(void **state);

#endif
