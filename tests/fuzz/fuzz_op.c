/*
 * fuzz_op.c - the changes in the body of a write, as the daemon decodes them from the socket and recovery from the log:
 * what is accepted lies within the buffer and means what its bytes say, the rest is refused.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/writer/merge.h"
#include "shm/base/error.h"
#include "shm/base/id.h"
#include "shm/kernel/distance.h"
#include "shm/layout/geometry.h"
#include "shm/wire/op.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "a promise is broken: %s\n", what);
        abort();
    }
}

static bool within(const unsigned char *buf, size_t len, const void *p, size_t n)
{
    const unsigned char *q = p;
    return q >= buf && n <= len && (size_t)(q - buf) <= len - n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* An exact copy, aligned as the daemon's buffers are. */
    unsigned char *buf = aligned_alloc(8, (size + 8) / 8 * 8);
    unsigned char *again = malloc(kithi_op_size_with(KITHI_ID_MAX, KITHI_DIM_MAX, KITHI_PAYLOAD_BYTES));
    check(buf && again, "memory");
    memcpy(buf, data, size);
    for (size_t at = 0; at < size;) {
        struct kithi_op op;
        int64_t step = kithi_op_decode(buf + at, size - at, &op);
        if (step < 0) {
            check(step == KITHI_E_PROTOCOL, "one error for all that is no change");
            break;
        }
        check(step >= (int64_t)KITHI_OP_HEADER && step % 8 == 0 && (size_t)step <= size - at, "it fits");
        if (kithi_op_is_known(op.type)) {
            check(op.id_len <= KITHI_ID_MAX && within(buf + at, (size_t)step, op.id, op.id_len),
                  "the id is inside");
            check((op.type != KITHI_OP_UPSERT) == (op.vector == NULL), "upserts have vectors, others none");
            check(op.payload_len <= KITHI_PAYLOAD_BYTES && (op.payload_len == 0) == (op.payload == NULL) &&
                      (!op.payload || within(buf + at, (size_t)step, op.payload, op.payload_len)),
                  "the payload is inside");
            struct kithi_errmsg err;
            int rc = kithi_merge_check(&op, NULL, &err);
            check(rc == 0 || ((rc == KITHI_E_PAYLOAD || rc == KITHI_E_FILTER) && err.text[0]),
                  "what is wrong with a payload is said");
            if (op.vector) {
                check(within(buf + at, (size_t)step, op.vector, op.dim * sizeof(float)),
                      "the vector is inside");
                (void)kithi_floats_finite(op.vector, op.dim);
            }
            (void)kithi_id_valid(op.id, op.id_len);
            /* Encoded again it has the same size, and decodes to the same. */
            struct kithi_op twin;
            size_t len = kithi_op_put(again, &op);
            check(len == (size_t)step && kithi_op_decode(again, len, &twin) == step,
                  "encoding and decoding agree");
            check(twin.type == op.type && twin.id_len == op.id_len && twin.dim == op.dim &&
                      twin.flags == op.flags && twin.payload_len == op.payload_len,
                  "a change stays what it is");
        } else {
            check(op.flags & KITHI_OP_SKIPPABLE, "an unknown change is skipped only when it says so");
        }
        at += (size_t)step;
    }
    free(again);
    free(buf);
    return 0;
}
