/*
 * order.h - the slots of an index in an order in which neighbours in the graph lie near each other, and whose beginning is from
 * everywhere: for a copy whose rows and vectors shall lie so, and which is linked as it grows (copy.h).
 *
 *     kithi_order_new(ix, &order, &err)                     owner
 *     while (!kithi_order_is_done(order))
 *         kithi_order_job(order)                            any thread, one piece at a time; groups and sweeps go on
 *     kithi_order_slot(order, 0 .. kithi_order_total() - 1)
 *     kithi_order_free(order)
 *
 * Every slot that was in use when it began is in it once, whatever links do meanwhile: what no link leads to comes last.
 */
#ifndef KITHI_INDEX_ORDER_H
#define KITHI_INDEX_ORDER_H

#include "server/index/index.h"

struct kithi_order;

/* 0 or -ENOMEM. Needs 8 bytes a slot. */
int kithi_order_new(const struct kithi_index *ix, struct kithi_order **out, struct kithi_errmsg *err);
bool kithi_order_is_done(const struct kithi_order *o);
/* A piece of some milliseconds. */
void kithi_order_job(struct kithi_order *o);

/* Slots that are in it once it is done. */
uint32_t kithi_order_total(const struct kithi_order *o);
uint32_t kithi_order_slot(const struct kithi_order *o, uint32_t i);

/* Accepts NULL. */
void kithi_order_free(struct kithi_order *o);

#endif
