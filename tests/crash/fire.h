/*
 * fire.h - a kithd under fire (tests/support/workload.h) that is started with a fault, dies, and is started again: what the tests
 * of one such death after the other share.
 */
#ifndef KITHI_TEST_CRASH_FIRE_H
#define KITHI_TEST_CRASH_FIRE_H

#include "tests/support/daemon.h"
#include "tests/support/rand.h"
#include "tests/support/workload.h"

#define FIRE_DIM      24u
#define FIRE_DEATH_MS 60000u

extern struct test_daemon kithd;
extern struct workload work;
extern struct test_rand r;

/* Of the group of tests: the workload is loaded and rests; it saw no error. */
int fire_set_up(void **state);
int fire_tear_down(void **state);

/* After `what` the collection holds what it should; fails the test otherwise. */
void fire_check(const char *what);

/* Start it anew, without waiting, to die (or fail) at this passage of a point of server/base/fault.h. */
void fire_start_with_fault(const char *point, uint32_t passage);
/* Wait for the daemon's own end there; its status. */
int fire_wait_for_death(const char *point);
/* Start it without a fault. */
void fire_start_again(void);

#endif
