/*
 * alter.c - another layout for a collection, or its segment built anew: asked of the daemon, and waited for.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "client/src/admin_priv.h"
#include "client/src/handle_priv.h"
#include "client/src/opts_priv.h"

_Static_assert((int)KITH_ALTER_NOTHING == (int)KITHI_ALTER_NOTHING &&
                   (int)KITH_ALTER_SETTINGS == (int)KITHI_ALTER_SETTINGS &&
                   (int)KITH_ALTER_COPIED == (int)KITHI_ALTER_COPIED && KITH_AS_IS == KITHI_AS_IS,
               "the public numbers are those of the protocol");

/* What came of it, in the daemon's words or ours. */
static int judge(const struct kith *index, int rc, const struct kithi_answer *answer,
                 struct kith_alter_info *info, struct kithi_errmsg *err)
{
    struct kithi_altered a;
    if (rc == -EAGAIN)
        return kithi_error_set(
            err, KITHI_E_TIMEOUT,
            "the daemon of %.150s gives no sign of life for %u ms: it is stopped, or hangs. Whether it goes on with "
            "what was asked is unknown; kith stats tells once it answers",
            index->run_dir, kithi_admin_answer_ms);
    if (rc == KITHI_E_PROTOCOL)
        return kithi_error_set(err, KITHI_E_UNSUPPORTED,
                               "this kithd is older and does not know how to optimize or alter a collection");
    if (rc == KITHI_E_UNKNOWN_OUTCOME)
        return kithi_error_set(
            err, rc,
            "the daemon went away before it answered; kith stats tells how the collection is "
            "laid out once it is back");
    if (rc < 0)
        return kithi_error_set(err, rc, "%s", kithi_error_text(rc));
    rc = answer->head.status == KITHI_E_NO_COLLECTION ? KITHI_E_REPLACED : answer->head.status;
    if (rc < 0 && answer->head.text_len == 0)
        return kithi_error_set(err, rc, "%s", kithi_error_text(rc));
    if (rc < 0)
        return kithi_error_set(err, rc, "%.*s", (int)answer->head.text_len, answer->text);
    if (answer->head.text_len < sizeof a)
        return kithi_error_set(err, KITHI_E_PROTOCOL, "the daemon's answer makes no sense");
    memcpy(&a, answer->text, sizeof a);
    *info = (struct kith_alter_info){ .epoch = answer->head.epoch,
                                      .generation = a.generation,
                                      .live_count = a.live,
                                      .bytes_before = a.bytes_before,
                                      .bytes_after = a.bytes_after,
                                      .took_ms = a.took_ms,
                                      .held_us = a.held_us,
                                      .done = a.done };
    return 0;
}

/* text: of an index, or NULL. */
static int ask(struct kith *index, struct kithi_alter *alter, const char *text, struct kith_alter_info *out,
               struct kith_error *error)
{
    unsigned char padded[KITHI_DECLARED_TEXT_MAX + 1];
    struct iovec body[2] = { { .iov_base = alter, .iov_len = sizeof *alter } };
    struct kithi_errmsg err = { 0 };
    struct kithi_answer answer;
    struct kithi_conn conn;
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    /* Before anything is done, so that a bad struct never hides what was. */
    if (out && kithi_opts_out(out, &info, sizeof info, sizeof info) < 0)
        return -EINVAL;
    kithi_conn_init(&conn);
    int rc = text ? kithi_index_part(text, padded, &body[1], &alter->index_len, &err) : 0;
    const bool asks = rc == 0;
    if (asks)
        rc = kithi_handle_connect(index, &conn, kithi_admin_hello_ms, NULL);
    if (!asks) {
        ; /* it has been said */
    } else if (rc == -EAGAIN) {
        rc = kithi_error_set(
            &err, KITHI_E_TIMEOUT,
            "the daemon of %.200s has not answered for %u ms: it is stopped, or hangs; nothing "
            "was asked of it",
            index->run_dir, kithi_admin_hello_ms);
    } else if (rc < 0) {
        kithi_error_set(&err, rc, "%s", kithi_error_text(rc));
    } else {
        kithi_conn_patience(&conn, kithi_admin_answer_ms / 2);
        rc = kithi_conn_call_slow(&conn, KITHI_FRAME_ALTER, body, text ? 2 : 1, &answer);
        rc = judge(index, rc, &answer, &info, &err);
    }
    kithi_conn_close(&conn);
    if (rc == 0 && out)
        kithi_opts_out(out, &info, sizeof info, sizeof info);
    return kithi_report(error, &err, rc);
}

int kith_alter(kith *index, const struct kith_alter_opts *opts, struct kith_alter_info *out)
{
    struct kith_alter_opts o;
    if (!index || !opts || kithi_opts_in(&o, opts, sizeof o, offsetof(struct kith_alter_opts, index)) < 0 ||
        o.reserved)
        return -EINVAL;
    struct kithi_alter alter = { .m = o.m ? o.m : KITHI_AS_IS,
                                 .ef_construction = o.ef_construction ? o.ef_construction : KITHI_AS_IS,
                                 .quantization = o.quantization,
                                 .keep = o.keep,
                                 .slot_max = o.max_vectors ? o.max_vectors : KITHI_AS_IS };
    memcpy(alter.uid, index->uid, sizeof alter.uid);
    return ask(index, &alter, o.index, out, o.error);
}

int kith_optimize(kith *index, struct kith_alter_info *out, struct kith_error *error)
{
    struct kithi_alter alter = { .anew = 1,
                                 .m = KITHI_AS_IS,
                                 .ef_construction = KITHI_AS_IS,
                                 .quantization = KITHI_AS_IS,
                                 .keep = KITHI_AS_IS,
                                 .slot_max = KITHI_AS_IS };
    if (!index)
        return -EINVAL;
    memcpy(alter.uid, index->uid, sizeof alter.uid);
    return ask(index, &alter, NULL, out, error);
}
