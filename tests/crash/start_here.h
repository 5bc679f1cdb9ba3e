/*
 * start_here.h - a start of kithd in the calling thread, without its helpers and its loop: for tests that count operations, or
 * do nothing but start.
 */
#ifndef KITHI_TEST_START_HERE_H
#define KITHI_TEST_START_HERE_H

#include "server/writer/daemon.h"

/* Bring back the collections of a daemon that was just set up, in the order of their names, and serve them. What a start says. */
int test_start_here(struct kithi_daemon *d, struct kithi_errmsg *err);

#endif
