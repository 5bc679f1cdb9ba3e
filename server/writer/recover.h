/*
 * recover.h - start-up: bring back every collection of the data directory.
 */
#ifndef KITHI_WRITER_RECOVER_H
#define KITHI_WRITER_RECOVER_H

#include "server/writer/daemon.h"

/*
 * Finish what a predecessor left half done, adopt or rebuild every segment, replay the logs, open
 * them for writing. The first collection that cannot be brought back ends this, with err filled and
 * nothing of it destroyed. -ECANCELED when told to stop.
 */
int kithi_recover(struct kithi_daemon *d, struct kithi_errmsg *err);

#endif
