/*
 * start.h - the collections that are coming back after a start, while the daemon serves those that are whole.
 *
 *   WAITING --a thread takes it--> COMING --whole--> handed to the loop --> in the daemon's list: served
 *                                    |
 *                                    +--cannot be brought back--> kithd leaves with status 1
 *                                    +--told to stop--> dropped: nothing of it is lost
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
 * name from here on, and may be asked for. A configuration that cannot be read ends the start.
 */
int kithi_start_begin(struct kithi_daemon *d, struct kithi_errmsg *err);

/* Begin to bring them back. */
int kithi_start_go(struct kithi_daemon *d, struct kithi_errmsg *err);

/* Take over those that are whole; end the start when all are. */
void kithi_start_turn(struct kithi_daemon *d);

/* Let the threads end, whatever they are at, and drop what they had. */
void kithi_start_fini(struct kithi_daemon *d);

/* Collections that are not served yet. */
size_t kithi_start_count(const struct kithi_daemon *d);

/* 0: no such collection is coming back; KITHI_E_STARTING with err saying how far it is. */
int kithi_start_find(const struct kithi_daemon *d, const char *name, struct kithi_errmsg *err);
int kithi_start_find_uid(const struct kithi_daemon *d, const uint8_t uid[16], struct kithi_errmsg *err);

/* Names of collections that are not served yet, one after the other: call with *at = 0 first. NULL: that was all. */
const char *kithi_start_next(const struct kithi_daemon *d, size_t *at);

/*
 * What a probe wants to know, as JSON: of all collections, or of one. *out is malloc'd, *out_missing the number of them that are not
 * served. KITHI_E_NO_COLLECTION, -ENOMEM.
 */
int kithi_start_status(const struct kithi_daemon *d, const char *name, char **out, uint32_t *out_missing,
                       struct kithi_errmsg *err);

#endif
