/*
 * backup.h - giving a back-up (server/checkpoint/backup.h) to a client, piece by piece.
 *
 *     BACKUP ----> checkpointer: a checkpoint of what is visible --> helper: opened, groups after it found --> answered
 *     BACKUP_NEXT --> helper: the next piece is read and checked --> answered with its bytes
 *
 * Pieces and not a descriptor: what is read is compared with its checksum on the way, a client in another container or
 * under another security label gets it all the same, and no path or file of the data directory leaves kithd.
 *
 * Files are held open from the first answer on, so that checkpoints and logs that are removed meanwhile are still read;
 * between the checkpoint and that, no other checkpoint of the collection begins.
 */
#ifndef KITHI_WRITER_BACKUP_H
#define KITHI_WRITER_BACKUP_H

#include "server/writer/request.h"

/* Pieces that a connection may have under way: so many of them, about 1 MiB each, are in memory. */
#define KITHI_BACKUP_AHEAD 4u

struct kithi_backup;
struct kithi_daemon;

/* One for the request of a session, which frees it when it ends; NULL without memory. */
struct kithi_backup *kithi_backup_new(struct kithi_daemon *d);
/* None of its requests is unanswered, or the loop has ended. Accepts NULL. */
void kithi_backup_free(struct kithi_backup *b);

/* A checkpoint that holds what the request (r->backup) is to hold is durable, and the newest one. */
void kithi_backup_open(struct kithi_collection *c, struct kithi_request *r);

/* Answer with the next piece, or with no bytes at the end. */
void kithi_backup_next(struct kithi_backup *b, struct kithi_request *r);

#endif
