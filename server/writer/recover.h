/*
 * recover.h - bringing a collection of the data directory back, from what its last owner left.
 *
 * Runs on threads of a start (start.h), for several collections at a time: whoever brings one back owns it, and hands it to the
 * loop when it is whole.
 */
#ifndef KITHI_WRITER_RECOVER_H
#define KITHI_WRITER_RECOVER_H

#include <stdatomic.h>

#include "server/writer/collection.h"

enum kithi_recover_step {
    RECOVER_WAITING,   /* for its turn */
    RECOVER_ADOPTING,  /* its segment is looked at, and taken over if it can be */
    RECOVER_LOADING,   /* a checkpoint is read: done and total are bytes */
    RECOVER_REPLAYING, /* done and total are epochs of the log; there may be more than total */
    RECOVER_OPENING,   /* readers may search it; the log is made ready for writing */
};

/* Stored by whoever brings it back, read by the loop: each word for itself, as figures for people. */
struct kithi_recover_progress {
    _Atomic uint32_t step;
    _Atomic uint64_t done, total;
};

/* Finish what a predecessor left half created or half dropped in the data directory. Before anything is served. */
int kithi_recover_clear(struct kithi_daemon *d, struct kithi_errmsg *err);

/* Read the configuration of the collection in this directory; what to do about one that cannot be read is in err. */
int kithi_recover_settings(const struct kithi_daemon *d, const char *name, struct kithi_settings *out,
                           struct kithi_errmsg *err);

/*
 * Adopt its segment or build it anew, replay the log, open that for writing. 0: *out is whole, and in no list. Else err is
 * filled, nothing of it is destroyed, and *out, which may be NULL, is to be freed in the loop's thread. -ECANCELED when
 * the daemon was told to stop.
 */
int kithi_recover(struct kithi_daemon *d, const struct kithi_settings *settings,
                  struct kithi_recover_progress *progress, struct kithi_collection **out,
                  struct kithi_errmsg *err);

/* How far it is. Does nothing for a collection that is not being brought back. */
void kithi_recover_tell(const struct kithi_collection *c, enum kithi_recover_step step, uint64_t done,
                        uint64_t total);

/* Wait while a test holds this point (fault.h), or until told to stop. */
void kithi_recover_hold(const struct kithi_collection *c, const char *point);

/*
 * Replay the log of c after the epoch of its index, to end_epoch at least, which was durable, and open it for writing. 0,
 * KITHI_E_LOG_DAMAGED, KITHI_E_NO_SPACE, -ECANCELED, -errno. Also for a collection that is made apart (collection.h).
 */
int kithi_recover_log(struct kithi_collection *c, uint64_t end_epoch, struct kithi_errmsg *err);

#endif
