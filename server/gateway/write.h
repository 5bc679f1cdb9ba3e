/*
 * write.h - batches that libkith sends to kithd, whoever asked for them.
 *
 * What was handed over may be applied although nobody says so (kithd dies, or its log fails), and is then answered with outcome_unknown,
 * never as a failure. All other refusals come before anything was done, but a delete by filter that failed in the middle.
 */
#ifndef KITHI_GATEWAY_WRITE_H
#define KITHI_GATEWAY_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "server/gateway/rest.h"

int kithi_write_commit(kith_batch *batch, enum kith_durability wait, struct kith_commit *done);

/* As kithi_rest_end(), of a commit; list: what its items are called, "points", or NULL. */
enum kithi_next kithi_write_end(struct kithi_request *r, struct kithi_handle *handle, int rc,
                                const struct kith_commit *done, const char *list);

/* Refuse for what libkith says of a point before anything was sent. where: "points[3]"; payload: its text, or "". */
void kithi_write_refuse_point(struct kithi_request *r, int rc, const char *where, kith *index, size_t len,
                              const char *payload);

/* Delete by a filter; refused with what was done when it fails in the middle. What libkith says. */
int kithi_write_delete_filter(struct kithi_request *r, kith *index, const char *filter, uint64_t *out_count,
                              struct kith_commit *done);

#endif
