/*
 * rights.h - what a peer may do, from its credentials on the socket. Process ids mean nothing here:
 * across containers both sides may be process 1.
 */
#ifndef KITHI_WRITER_RIGHTS_H
#define KITHI_WRITER_RIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "shm/base/error.h"

struct kithi_rights_policy {
    uid_t owner;        /* and root: may everything */
    gid_t read_group;   /* may list, open, stats; KITHI_NO_GROUP: nobody else */
    gid_t write_group;  /* may also write, flush, create, drop */
    char read_name[64]; /* as given, for messages */
    char write_name[64];
};

struct kithi_rights {
    bool read;
    bool write;
};

/* A group by name or number. 0 or -ENOENT with err filled. */
int kithi_rights_group(const char *name, gid_t *out_gid, struct kithi_errmsg *err);

/* Is this kithd's own user, or root? */
bool kithi_rights_own(const struct kithi_rights_policy *p, uid_t uid);

/* Decide from a user and its groups. */
struct kithi_rights kithi_rights_decide(const struct kithi_rights_policy *p, uid_t uid, gid_t gid,
                                        const gid_t *groups, size_t n);

/* Ask the kernel who is at the other end of fd, and decide. -errno when it does not say. */
int kithi_rights_of_peer(const struct kithi_rights_policy *p, int fd, struct kithi_rights *out,
                         uid_t *out_uid);

/* Fill err with what is missing; returns KITHI_E_DENIED. */
int kithi_rights_denied(const struct kithi_rights_policy *p, bool write, const char *what,
                        struct kithi_errmsg *err);

#endif
