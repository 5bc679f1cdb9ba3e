/*
 * write.c - the handle's own connection: single writes, batches, flush. And checkpoints, over one of their own.
 *
 * A connection is made at the first write and made again when the daemon was restarted. A
 * request that did not leave whole cannot have been carried out, so it is sent once more over
 * the new connection; one that did and got no answer is KITH_E_UNKNOWN_OUTCOME.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/src/admin_priv.h"
#include "client/src/handle_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/payload_op.h"
#include "shm/base/id.h"
#include "shm/wire/op.h"

/* What the daemon says, 0 or an error. A collection that it does not have any more was replaced, for this handle. */
static int status_of(const struct kithi_answer *answer)
{
    int status = answer->head.status;
    return status == KITHI_E_NO_COLLECTION ? KITHI_E_REPLACED : status < 0 ? status : 0;
}

int kithi_handle_connect(struct kith *index, struct kithi_conn *conn, uint32_t patience_ms,
                         struct kithi_opened *out)
{
    struct kithi_answer answer;
    struct kithi_opened opened;
    uint64_t padded[(KITHI_NAME_MAX + 8) / 8] = { 0 };

    if (!index->run_dir)
        return KITHI_E_RUN_DIR;
    int rc = kithi_conn_open(conn, index->run_dir, patience_ms, NULL);
    if (rc < 0)
        return rc;
    size_t len = strlen(index->name);
    memcpy(padded, index->name, len);
    struct iovec body = { .iov_base = padded, .iov_len = (len + 7) / 8 * 8 };
    rc = kithi_conn_call(conn, KITHI_FRAME_OPEN, 0, &body, 1, &answer);
    if (rc == KITHI_E_UNKNOWN_OUTCOME)
        rc = KITHI_E_NO_DAEMON; /* nothing was asked for yet */
    if (rc == 0)
        rc = status_of(&answer);
    if (rc == 0 && answer.head.text_len < sizeof opened)
        rc = KITHI_E_PROTOCOL;
    if (rc == 0) {
        memcpy(&opened, answer.text, sizeof opened);
        if (memcmp(opened.uid, index->uid, sizeof opened.uid) != 0)
            rc = KITHI_E_REPLACED;
    }
    if (rc < 0)
        kithi_conn_close(conn);
    else if (out)
        *out = opened;
    return rc;
}

/* A request of this collection over the handle's connection; durability is of a write. Under write_lock. */
static int request(struct kith *index, uint16_t type, enum kith_durability durability, uint32_t count,
                   const void *ops, size_t len, struct kithi_answer *out)
{
    struct kithi_conn *conn = &index->conn;
    struct iovec body[2] = { { .iov_base = index->uid, .iov_len = sizeof index->uid },
                             { .iov_base = (void *)(uintptr_t)ops, .iov_len = len } };
    if (kithi_conn_is_open(conn) && conn->pid != getpid()) {
        /* The parent's socket. Its buffers may have been left in the middle of a change: not freed. */
        close(conn->fd);
        kithi_conn_init(conn);
    }
    for (;;) {
        bool fresh = !kithi_conn_is_open(conn);
        int rc = fresh ? kithi_handle_connect(index, conn, 0, NULL) : 0;
        if (rc == 0 && type == KITHI_FRAME_WRITE)
            rc = kithi_conn_write(conn, (enum kithi_durability)durability, count, body, 2, out);
        else if (rc == 0)
            rc = kithi_conn_call(conn, type, count, body, 2, out);
        if (rc != KITHI_E_NO_DAEMON || fresh)
            return rc;
    }
}

int kithi_commit_fill(struct kith_commit *out, int rc, const struct kithi_answer *answer)
{
    struct kith_commit c = { .failed_item = UINT32_MAX };
    if (rc == 0) {
        rc = status_of(answer);
        c.epoch = answer->head.epoch;
        c.found = answer->head.found;
        c.durable_epoch = c.epoch;
        struct kithi_written written;
        if (rc == 0 && answer->head.text_len >= sizeof written) {
            memcpy(&written, answer->text, sizeof written);
            c.durable_epoch = written.durable_epoch;
            c.lag_ms = written.lag_ms;
        }
        if (rc < 0) {
            c.failed_item = answer->head.item;
            size_t len = answer->head.text_len;
            if (len > sizeof c.error.text - 1)
                len = sizeof c.error.text - 1;
            memcpy(c.error.text, answer->text, len);
        }
    }
    c.error.code = rc;
    if (rc < 0 && c.error.text[0] == '\0')
        strncpy(c.error.text, kithi_error_text(rc), sizeof c.error.text - 1);
    if (out && kithi_opts_out(out, &c, sizeof c, KITHI_COMMIT_FIRST) < 0 && rc == 0)
        rc = -EINVAL;
    return rc;
}

/* The same check before anything is sent, so that a bad struct never hides a done commit. */
static int commit_check(struct kith_commit *out)
{
    struct kith_commit none = { .failed_item = UINT32_MAX };
    return out ? kithi_opts_out(out, &none, sizeof none, KITHI_COMMIT_FIRST) : 0;
}

/* Of the payload, where there is one, text and how. Under write_lock. */
static int encode_payload(struct kith *index, enum kith_payload_change how, const char *text,
                          struct kithi_op *op)
{
    if (!index->payload_buf) {
        /* Which has also room for nothing but a vector. */
        unsigned char *whole = realloc(
            index->write_buf, kithi_op_size_with(KITHI_ID_MAX, index->geometry.dim, KITHI_PAYLOAD_MAX));
        if (!whole)
            return -ENOMEM;
        index->write_buf = whole;
        index->payload_buf = malloc(KITHI_PAYLOAD_MAX);
    }
    return index->payload_buf ? kithi_payload_op(how, text, index->payload_buf, op, NULL) : -ENOMEM;
}

/* op without its id; with payloaded, the payload is text, by how. */
static int write_one(struct kith *index, const char *id, struct kithi_op *op, bool payloaded,
                     enum kith_payload_change how, const char *text, uint64_t *out_epoch, uint32_t *out_found)
{
    struct kithi_answer answer;
    size_t id_len = strnlen(id, KITHI_ID_MAX + 1);
    uint64_t epoch = 0;
    enum kith_durability durability =
        (enum kith_durability)atomic_load_explicit(&index->durability, memory_order_relaxed);
    if (!kithi_id_valid(id, id_len))
        return KITHI_E_ID;

    kithi_lock(&index->write_lock);
    int rc = 0;
    if (!index->write_buf)
        index->write_buf = malloc(kithi_op_size(KITHI_ID_MAX, index->geometry.dim));
    if (!index->write_buf)
        rc = -ENOMEM;
    if (rc == 0 && payloaded) {
        uint8_t type = op->type;
        rc = encode_payload(index, how, text, op);
        op->type = type == KITHI_OP_UPSERT ? type : op->type;
    }
    if (rc == 0) {
        op->id = id;
        op->id_len = (uint16_t)id_len;
        size_t len = kithi_op_put(index->write_buf, op);
        rc = request(index, KITHI_FRAME_WRITE, durability, 1, index->write_buf, len, &answer);
    }
    if (rc == 0) {
        rc = status_of(&answer);
        epoch = answer.head.epoch;
        if (rc == 0 && out_epoch)
            *out_epoch = epoch;
        *out_found = answer.head.found;
    }
    kithi_unlock(&index->write_lock);
    if (rc == 0 && durability != KITH_DURABILITY_NONE)
        kithi_handle_expect(index, epoch);
    return rc;
}

int kith_set_durability(kith *index, enum kith_durability durability)
{
    if (!index || (unsigned)durability > KITH_DURABILITY_NONE)
        return -EINVAL;
    atomic_store_explicit(&index->durability, durability, memory_order_relaxed);
    return 0;
}

int kith_upsert(kith *index, const char *id, const float *vector, size_t len, uint64_t *out_epoch)
{
    uint32_t found;
    if (!index || !id)
        return -EINVAL;
    int rc = kithi_vector_check(index, vector, len);
    struct kithi_op op = { .type = KITHI_OP_UPSERT, .dim = (uint32_t)len, .vector = vector };
    return rc < 0 ? rc : write_one(index, id, &op, false, KITH_PAYLOAD_REPLACE, NULL, out_epoch, &found);
}

int kith_upsert_payload(kith *index, const char *id, const float *vector, size_t len, const char *payload,
                        uint64_t *out_epoch)
{
    uint32_t found;
    if (!index || !id)
        return -EINVAL;
    int rc = kithi_vector_check(index, vector, len);
    struct kithi_op op = {
        .type = KITHI_OP_UPSERT, .flags = KITHI_OP_PAYLOAD, .dim = (uint32_t)len, .vector = vector
    };
    return rc < 0 ? rc : write_one(index, id, &op, true, KITH_PAYLOAD_REPLACE, payload, out_epoch, &found);
}

int kith_set_payload(kith *index, const char *id, enum kith_payload_change how, const char *text,
                     uint64_t *out_epoch)
{
    uint32_t found;
    struct kithi_op op = { .type = KITHI_OP_SET };
    if (!index || !id)
        return -EINVAL;
    int rc = write_one(index, id, &op, true, how, text, out_epoch, &found);
    return rc == 0 && found == 0 ? KITHI_E_NOT_FOUND : rc;
}

int kith_payload_check(enum kith_payload_change how, const char *text, struct kith_error *error)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_op op;
    unsigned char *bytes = malloc(KITHI_PAYLOAD_MAX);
    int rc = bytes ? kithi_payload_op(how, text, bytes, &op, &err) : -ENOMEM;
    free(bytes);
    return rc < 0 ? kithi_report(error, &err, rc) : 0;
}

int kith_delete(kith *index, const char *id, uint64_t *out_epoch)
{
    uint32_t found;
    if (!index || !id)
        return -EINVAL;
    struct kithi_op op = { .type = KITHI_OP_DELETE };
    int rc = write_one(index, id, &op, false, KITH_PAYLOAD_REPLACE, NULL, out_epoch, &found);
    return rc == 0 && found == 0 ? KITHI_E_NOT_FOUND : rc;
}

int kith_batch_commit(kith_batch *b, struct kith_commit *out)
{
    struct kithi_answer answer = { .head = { .item = UINT32_MAX } };
    if (!b || commit_check(out) < 0)
        return -EINVAL;
    if (b->count == 0) {
        /* Nobody is asked: the segment says how far the log is, as it does to those who wait for it. */
        struct kithi_written seen = { 0 };
        seen.durable_epoch = kithi_handle_durable(b->index, &answer.head.epoch);
        answer.text = (const char *)&seen;
        answer.head.text_len = sizeof seen;
        return kithi_commit_fill(out, 0, &answer);
    }
    kithi_lock(&b->index->write_lock);
    b->items.count = 0;
    int rc = request(b->index, KITHI_FRAME_WRITE, b->durability, b->count, b->ops, b->len, &answer);
    rc = kithi_commit_fill(out, rc, &answer);
    if (rc == 0) /* without memory nothing is known of items, and the commit is what it is */
        (void)kithi_items_note(&b->items, b->count, &answer);
    kithi_unlock(&b->index->write_lock);
    if (rc == 0 && b->durability != KITH_DURABILITY_NONE)
        kithi_handle_expect(b->index, answer.head.epoch);
    return rc;
}

/* The handle shows what was answered with an epoch, which the caller may want, too. */
static int hand_over(kith *index, int rc, const struct kith_commit *c, uint64_t *out_epoch)
{
    if (rc == 0 && out_epoch)
        *out_epoch = c->epoch;
    if (rc == 0)
        kithi_handle_expect(index, c->epoch);
    return rc;
}

int kith_flush(kith *index, uint64_t *out_epoch)
{
    struct kithi_answer answer;
    struct kith_commit c = KITH_COMMIT_INIT;
    if (!index)
        return -EINVAL;
    kithi_lock(&index->write_lock);
    int rc = request(index, KITHI_FRAME_FLUSH, KITH_DURABILITY_DURABLE, 0, NULL, 0, &answer);
    rc = kithi_commit_fill(&c, rc, &answer);
    kithi_unlock(&index->write_lock);
    return hand_over(index, rc, &c, out_epoch);
}

/* A checkpoint takes as long as the disk, so that a bound on that would be wrong; a daemon that lives answers meanwhile. */
int kith_checkpoint(kith *index, uint64_t *out_epoch, struct kith_error *error)
{
    struct kithi_answer answer;
    struct kithi_conn conn;
    struct kithi_errmsg late = { 0 };
    struct kith_commit c = KITH_COMMIT_INIT;
    if (!index)
        return -EINVAL;
    kithi_conn_init(&conn);
    int rc = kithi_handle_connect(index, &conn, kithi_admin_hello_ms, NULL);
    if (rc == -EAGAIN) {
        rc = kithi_error_set(
            &late, KITHI_E_TIMEOUT,
            "the daemon of %.200s has not answered for %u ms: it is stopped, or hangs; nothing "
            "was asked of it",
            index->run_dir, kithi_admin_hello_ms);
    } else if (rc == 0) {
        struct iovec body = { .iov_base = index->uid, .iov_len = sizeof index->uid };
        kithi_conn_patience(&conn, kithi_admin_answer_ms / 2);
        rc = kithi_conn_call_slow(&conn, KITHI_FRAME_CHECKPOINT, &body, 1, &answer);
        if (rc == -EAGAIN)
            rc = kithi_error_set(
                &late, KITHI_E_TIMEOUT,
                "the daemon of %.150s gives no sign of life for %u ms: it is stopped, or hangs. "
                "Whether it will write the checkpoint is unknown; ask again once it answers",
                index->run_dir, kithi_admin_answer_ms);
    }
    rc = kithi_commit_fill(&c, rc, &answer);
    kithi_conn_close(&conn);
    if (rc < 0 && error)
        *error = c.error;
    return late.code ? kithi_report(error, &late, rc) : hand_over(index, rc, &c, out_epoch);
}
