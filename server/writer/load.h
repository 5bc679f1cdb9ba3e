/*
 * load.h - the newest good checkpoint of a collection into a segment: the first half of a cold start.
 */
#ifndef KITHI_WRITER_LOAD_H
#define KITHI_WRITER_LOAD_H

#include "server/writer/collection.h"

/*
 * Remove what an earlier run left unfinished, and note which checkpoints are there and begin well, for what is written
 * later (kithi_checkpointer_found()). Their content is read when it is needed.
 */
void kithi_load_look(struct kithi_collection *c);

/*
 * Build segment.next from the newest checkpoint that is whole, damaged ones being told of and passed over. 1: c->index
 * is that segment, at the checkpoint's epoch, for the log after it to be replayed on; 0: there is none;
 * KITHI_E_NO_SPACE, -ENOMEM, -ECANCELED when told to stop, -errno. Either way the log has to reach *out_end_epoch, which
 * was durable, as one of the checkpoints says: one that was passed over says it by its name. On a thread of the start; c is in no
 * list.
 */
int kithi_load_checkpoint(struct kithi_collection *c, uint64_t *out_end_epoch, struct kithi_errmsg *err);

/*
 * The same with the checkpoint of epoch and no other. 0, or what is wrong with it. Also for a collection that is made apart
 * (collection.h).
 */
int kithi_load_one(struct kithi_collection *c, uint64_t epoch, uint64_t *out_end_epoch,
                   struct kithi_errmsg *err);

#endif
