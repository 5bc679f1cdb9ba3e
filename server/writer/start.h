/*
 * start.h - the collections that are coming back after a start, while the daemon serves those that are whole.
 *
 *   WAITING --a thread takes it--> COMING --whole--> handed to the loop --> in the daemon's list: served
 *    ^ ^                             | | |                                                            |
 *    | |                             | | +--told to stop--> dropped: nothing of it is lost            |
 *    | |                             | +----cannot be brought back--> REFUSED (refused.h), or kithd leaves |
 *    | +--its segment is condemned---+                                                                |
 *    +----its segment is condemned, and all that was under way with it has ended----------------------+
 *
 * The last two, once each in a process (census.h), are all that an ordinary start does, for this collection alone: what is served
 * beside it goes on. Its condemned segment is not adopted but replaced, and its readers move over.
 *
 * REFUSED: for a reason that is this collection's alone and lasts, such as a damaged log, while there are others. kithd leaves with status 1
 * if that is true of all of them, and for reasons that another start may not find again, such as a lack of memory.
 *
 * What a crash leaves is what recovery begins with: every step of it may be the last (recover.h).
 *
 * Order: collections whose segment is there come first, since that is taken over at once; then the others, the smaller
 * first, so that few wait for a large one. Small ones come back several at a time, because what they wait for is the disk's
 * answer to a few syncs each; of large ones, which use all workers and the whole disk by themselves, one at a time.
 *
 * Threads: the loop's calls everything here.
 */
#ifndef KITHI_WRITER_START_H
#define KITHI_WRITER_START_H

#include "server/writer/daemon.h"

/*
 * Finish what a predecessor left half created or half dropped, and list what is to be brought back. What is listed is known by
 * name from here on, and may be asked for. A configuration that cannot be read has its collection refused, or ends the start if there is no other.
 */
int kithi_start_begin(struct kithi_daemon *d, struct kithi_errmsg *err);

/* Begin to bring back what is listed. */
int kithi_start_go(struct kithi_daemon *d, struct kithi_errmsg *err);

/*
 * c is served, and its segment condemned: once nothing is under way with it any more, c is closed and gone from the list, and
 * comes back. Before that nothing happens. It is c's turn, which its completions bring.
 */
void kithi_start_anew(struct kithi_daemon *d, struct kithi_collection *c);

/* Take over those that are whole; end the start when all are. */
void kithi_start_turn(struct kithi_daemon *d);

/* Let the threads end, whatever they are at, and drop what they had. */
void kithi_start_fini(struct kithi_daemon *d);

/* Collections that a thread brings back, or will. */
size_t kithi_start_count(const struct kithi_daemon *d);

/* 0: no such collection is coming back, or about to, or refused; KITHI_E_STARTING with err saying how far it is; or why it is refused. */
int kithi_start_find(const struct kithi_daemon *d, const char *name, struct kithi_errmsg *err);
int kithi_start_find_uid(const struct kithi_daemon *d, const uint8_t uid[16], struct kithi_errmsg *err);

/* Names of collections, coming back or refused, that are neither served nor in the daemon's list, one after the other: call with *at = 0 first. NULL: that was all. */
const char *kithi_start_next(const struct kithi_daemon *d, size_t *at);

/*
 * What a probe wants to know, as JSON: of all collections, or of one. *out is malloc'd, *out_missing the number of them that are not
 * served. KITHI_E_NO_COLLECTION, -ENOMEM.
 */
int kithi_start_status(const struct kithi_daemon *d, const char *name, char **out, uint32_t *out_missing,
                       struct kithi_errmsg *err);

#endif
