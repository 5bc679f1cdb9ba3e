/*
 * admin.h - requests about collections: create, drop, list, open, stats.
 */
#ifndef KITHI_WRITER_ADMIN_H
#define KITHI_WRITER_ADMIN_H

#include "server/writer/daemon.h"
#include "server/writer/request.h"
#include "shm/base/id.h"

/* Each takes the request over and answers it, now or later. */
void kithi_admin_create(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_drop(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_list(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_open(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_stats(struct kithi_daemon *d, struct kithi_request *r);
/* The second half of it, once the readers' boards were looked at (boards.c). */
void kithi_admin_stats_answer(const struct kithi_collection *c, struct kithi_request *r);

/* Queue the last step of a restore: kithi_revive_place() is called when it is its turn, and calls kithi_admin_placed() when it
 * is done. false: no memory. */
bool kithi_admin_place(struct kithi_daemon *d, struct kithi_revive *v);
void kithi_admin_placed(struct kithi_daemon *d);

/* The name in a body of len bytes at p, zero-padded to 8. 0, KITHI_E_NAME or KITHI_E_PROTOCOL. */
int kithi_admin_name(const unsigned char *p, size_t len, size_t name_len, char out[KITHI_NAME_MAX + 1],
                     struct kithi_errmsg *err);

/* Go on with what waits. */
void kithi_admin_turn(struct kithi_daemon *d);

#endif
