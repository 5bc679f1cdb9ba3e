/*
 * refused.h - collections that cannot be brought back: their log is damaged, or something of them is of a later version.
 *
 * Another start would come to the same, so that leaving for it would help nobody: the others are served, and of this one the daemon
 * says why it is not. Nothing of it was changed: its files are as they were, readers of its segment go on, and the next start tries again.
 * A kithd that has nothing else to serve leaves all the same (start.h).
 *
 * Threads: the loop's, but for kithi_refused_fits().
 */
#ifndef KITHI_WRITER_REFUSED_H
#define KITHI_WRITER_REFUSED_H

#include "server/writer/daemon.h"
#include "shm/base/id.h"

struct kithi_refused {
    struct kithi_refused *next;
    char name[KITHI_NAME_MAX + 1];
    uint8_t uid[16];         /* zeros: its configuration cannot be read */
    struct kithi_errmsg why; /* as the start found it */
};

/* Is this status a collection's own fault, and one that lasts? What the system lacks at the moment is neither. */
bool kithi_refused_fits(int status);

/* uid may be NULL. 0 or -ENOMEM. */
int kithi_refused_add(struct kithi_daemon *d, const char *name, const uint8_t *uid, int status,
                      const char *why);

/* 0: it is none of them; or why it is, with err saying so. */
int kithi_refused_find(const struct kithi_daemon *d, const char *name, struct kithi_errmsg *err);
int kithi_refused_find_uid(const struct kithi_daemon *d, const uint8_t uid[16], struct kithi_errmsg *err);

void kithi_refused_fini(struct kithi_daemon *d);

#endif
