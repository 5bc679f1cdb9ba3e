/*
 * child.h - roles of a test in processes of their own: started, waited for with a deadline,
 * their output shown when they fail.
 *
 * A role is a function; the child is forked, runs it and exits with its value. What parent and children
 * share lies in memory of test_shared(). A child dies with its parent.
 */
#ifndef KITHI_TEST_CHILD_H
#define KITHI_TEST_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef int test_role_fn(void *arg);

struct test_child {
    pid_t pid; /* 0: none */
    char name[32];
};

/* Zeroed memory that parent and children share; never freed. */
void *test_shared(size_t size);

/* Fork; the child runs role(arg). The parent must have one thread. */
void test_child_start(struct test_child *c, const char *name, test_role_fn *role, void *arg);

/*
 * Wait until it has ended, at most timeout_ms; a child that takes longer is killed. Returns its exit status,
 * or -1 (killed, died of a signal), after a message that says which.
 */
int test_child_wait(struct test_child *c, uint64_t timeout_ms);

/* True while it runs; its status stays for test_child_wait(). */
bool test_child_running(const struct test_child *c);

#endif
