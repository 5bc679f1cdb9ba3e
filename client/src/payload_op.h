/*
 * payload_op.h - what a caller says of a payload, as the op that the daemon gets.
 */
#ifndef KITHI_CLIENT_PAYLOAD_OP_H
#define KITHI_CLIENT_PAYLOAD_OP_H

#include <kith/kith.h>

#include "shm/base/error.h"
#include "shm/payload/payload.h"
#include "shm/wire/op.h"

/*
 * Type and payload of op, whose bytes are put into out. 0, KITH_E_PAYLOAD with a sentence of err (may be NULL), -EINVAL, -ENOMEM. text NULL
 * is no payload: of REPLACE alone.
 */
int kithi_payload_op(enum kith_payload_change how, const char *text, unsigned char out[KITHI_PAYLOAD_MAX],
                     struct kithi_op *op, struct kithi_errmsg *err);

#endif
