/*
 * revive.h - bringing back a collection from a back-up (server/checkpoint/backup.h) that a client sends, under a new name, uid
 * and timeline, while everything else goes on.
 *
 *   RESTORE       header judged --helper--> .creating-<uid>/ with room for all of it
 *   RESTORE_DATA  written to checkpoint-<epoch> and wal/<epoch + 1>.wal in there, as they come
 *   RESTORE_END   --thread--> every checksum compared, made this collection's own, synced; then loaded and replayed as a
 *                 cold start does, into the run directory's .creating-<uid>/
 *                 --admin's turn, helper--> both renamed to the name, synced; served, answered
 *
 * Bytes, and not a descriptor of the client's file: reading somebody else's file may block for ever (a file system in user
 * space, one over the network), and it may change while it is read. Nothing of it is trusted before it is here and has been checked.
 *
 * Until the rename in the data directory nothing exists: a crash leaves what a start removes. After it, what lies there is a
 * collection whose segment is built by the next start, if not by this one.
 */
#ifndef KITHI_WRITER_REVIVE_H
#define KITHI_WRITER_REVIVE_H

#include "server/writer/daemon.h"
#include "server/writer/request.h"

struct kithi_revive;

/*
 * A RESTORE: *slot becomes what the connection sends its back-up to, or r is refused and *slot stays NULL. The session frees
 * it when it ends; after RESTORE_END it ends by itself.
 */
void kithi_revive_begin(struct kithi_daemon *d, struct kithi_revive **slot, struct kithi_request *r);
void kithi_revive_data(struct kithi_revive *v, struct kithi_request *r);
/* r is answered at the end of it all, and v is no longer the session's; false: it came too early, and is refused. */
bool kithi_revive_end(struct kithi_revive *v, struct kithi_request *r);
/* The connection has ended before RESTORE_END, and no request is unanswered; or the loop has. Removes what is there. Accepts NULL. */
void kithi_revive_abandon(struct kithi_revive *v);

/* Have those that are past RESTORE_END stop what they are at. */
void kithi_revive_stop(struct kithi_daemon *d);

/* The loop has ended: wait for their threads, forget them. */
void kithi_revive_fini(struct kithi_daemon *d);

/* All is loaded: the turn to put it in its place, from admin's queue. */
void kithi_revive_place(struct kithi_revive *v);

#endif
