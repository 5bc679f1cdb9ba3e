/*
 * census.h - the look at every record that an adoption leaves for later (server/index/census.c), between other things.
 *
 *   adopted --> served; each turn looks at some records --> over: sweeps, checkpoints and new layouts may begin
 *                 |
 *                 +-- a record makes no sense --> the segment is condemned, kithd leaves with status 1
 *
 * What was acknowledged is in the log, so a condemned segment loses nothing: the next start does not adopt it, builds one
 * from checkpoint and log beside it, and readers of the condemned one move over.
 */
#ifndef KITHI_WRITER_CENSUS_H
#define KITHI_WRITER_CENSUS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/error.h"

struct kithi_collection;

/* Look at some more. True while there is more to look at; *out_ms says when the next turn is wanted. */
bool kithi_census_turn(struct kithi_collection *c, uint64_t now_ms, uint64_t *out_ms);

/* Look at everything that is left. 0, KITHI_E_CORRUPT or -ENOMEM. */
int kithi_census_finish(struct kithi_collection *c, struct kithi_errmsg *err);

#endif
