/*
 * place.h - data and run directories in a known state, copied anew for each run.
 */
#ifndef KITHI_TEST_FAIL_PLACE_H
#define KITHI_TEST_FAIL_PLACE_H

#include <stdbool.h>

#include "tests/support/tmp.h"

/* Copy a tree: files with their holes and modes, of a segment with the memory that it has taken. Ends the program on failure. */
void place_copy(const char *from, const char *to);
/* Remove what is in it. */
void place_empty(const char *path);

/* Beside what a killed kithd left of "main": what it leaves when it dies in other moments. */
void place_leave(const char *data, const char *run);

/* Are only files there that a kithd that serves has? False after a message that names another. */
bool place_tidy(const char *data, const char *run);

#endif
