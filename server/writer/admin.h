/*
 * admin.h - requests about collections: create, drop, list, open, stats.
 */
#ifndef KITHI_WRITER_ADMIN_H
#define KITHI_WRITER_ADMIN_H

#include "server/writer/daemon.h"
#include "server/writer/request.h"

/* Each takes the request over and answers it, now or later. */
void kithi_admin_create(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_drop(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_list(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_open(struct kithi_daemon *d, struct kithi_request *r);
void kithi_admin_stats(struct kithi_daemon *d, struct kithi_request *r);
/* The second half of it, once the readers' boards were looked at (boards.c). */
void kithi_admin_stats_answer(const struct kithi_collection *c, struct kithi_request *r);

/* Go on with what waits. */
void kithi_admin_turn(struct kithi_daemon *d);

#endif
