/*
 * census.h - the look at every record that an adoption leaves for later (server/index/census.c), between other things.
 *
 *   adopted --> served; each turn looks at some records --> over: sweeps, checkpoints and new layouts may begin
 *                 |
 *                 +-- a record makes no sense --> the segment is condemned: nothing new is begun with it
 *                       |
 *                       +-- what is under way has ended --> the collection comes back as at a start (start.h)
 *                       +-- the second time in this process --> kithd leaves with status 1
 *
 * What was acknowledged is in the log, so a condemned segment loses nothing: it is not adopted again, another one is built
 * from checkpoint and log beside it, and readers, who have gone on in the condemned one, move over. From the moment in which it
 * is condemned until the collection is back, writes are refused with KITHI_E_STARTING. A segment that was built needs no
 * census: the second time is one that should not be, so going round once more would be no help.
 */
#ifndef KITHI_WRITER_CENSUS_H
#define KITHI_WRITER_CENSUS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/error.h"

struct kithi_collection;

/*
 * Look at some more. True while there is more to look at, and for good once the segment is condemned; *out_ms says when the
 * next turn is wanted.
 */
bool kithi_census_turn(struct kithi_collection *c, uint64_t now_ms, uint64_t *out_ms);

/* Look at everything that is left, before the collection is served. 0, KITHI_E_CORRUPT: it is condemned; -ENOMEM. */
int kithi_census_finish(struct kithi_collection *c, struct kithi_errmsg *err);

#endif
