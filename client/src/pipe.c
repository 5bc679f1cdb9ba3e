/*
 * pipe.c - batches sent ahead of their answers, over a socket of their own.
 *
 *   FREE --submit--> GATHERED --> SENT --answer arrives--> ANSWERED --kith_pipe_next--> FREE
 *             \___ no answer waits to be taken ___/
 *
 * Answers come many at a time, those of a group of kithd's, and a caller with its places full submits again after each of them.
 * What it submits until the last of them is taken leaves by one call, up to 64 KiB: a call each would wake kithd for each.
 *
 * A place keeps the caller's token from submit to next. The tag of a request is the number of
 * its place in the low half and a serial number in the high half, so that an answer that was
 * never asked for is noticed.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/src/handle_priv.h"
#include "client/src/opts_priv.h"

#define DEPTH_MAX  4096u
#define GATHER_MAX (64u << 10) /* bytes that wait at most; a larger request never does */

struct place {
    uint64_t tag; /* 0: not on its way */
    uint64_t token;
    int status;
    uint32_t count; /* items of the batch */
    struct kith_commit commit;
    struct kithi_items items;
};

struct kith_pipe {
    struct kith *index;
    struct kithi_conn conn;
    struct place *places;
    uint32_t *free;     /* stack of places */
    uint32_t *answered; /* ring of places, oldest at answered_at */
    uint32_t depth, free_count, answered_at, answered_count;
    uint32_t serial;
    uint32_t taken; /* place of the answer that was taken last; UINT32_MAX: none, or it is in use again */
    bool taking;    /* kith_pipe_next found answers, of which some are left */
    unsigned char *gathered;          /* requests; NULL until the first one */
    size_t gathered_at, gathered_len; /* those bytes of it have not left yet */
    int broken; /* error that every further call returns; 0 while the connection is good */
};

static void finish(kith_pipe *p, uint32_t number, const struct kithi_answer *answer)
{
    struct place *at = &p->places[number];
    at->tag = 0;
    at->commit.struct_size = sizeof at->commit;
    at->status = kithi_commit_fill(&at->commit, 0, answer);
    at->items.count = 0;
    if (at->status == 0) /* without memory nothing is known of items, and the commit is what it is */
        (void)kithi_items_note(&at->items, at->count, answer);
    if (at->status == 0 && at->commit.lag_ms == 0) /* what asked for less may not be visible yet */
        kithi_handle_expect(p->index, answer->head.epoch);
    p->answered[(p->answered_at + p->answered_count++) % p->depth] = number;
}

/* Take the answers that are there. 0, or the error that broke the connection. */
static int drain(kith_pipe *p)
{
    struct kithi_answer answer;
    int rc;
    while ((rc = kithi_conn_receive(&p->conn, false, &answer)) == 1) {
        uint32_t number = (uint32_t)answer.tag;
        if (answer.tag == 0 || number >= p->depth || p->places[number].tag != answer.tag) {
            /* The daemon's last words before it closes, or no answer to anything. */
            rc = answer.tag == 0 && answer.head.status < 0 ? answer.head.status : KITHI_E_PROTOCOL;
            break;
        }
        finish(p, number, &answer);
    }
    return rc;
}

/* The connection is lost with rc: say so now and from now on. */
static int break_pipe(kith_pipe *p, int rc)
{
    p->broken = kithi_conn_is_gone(rc) ? KITHI_E_UNKNOWN_OUTCOME : rc;
    return p->broken;
}

/* Send all of iov, taking answers while the socket is full. 0, or the error that broke the connection. */
static int send_all(kith_pipe *p, struct iovec *iov, int n)
{
    size_t sent = 0;
    int rc;
    while ((rc = kithi_conn_send(&p->conn, &iov, &n, false, &sent)) == 0) {
        struct pollfd fd = { .fd = p->conn.fd, .events = POLLIN | POLLOUT };
        if (poll(&fd, 1, -1) < 0 && errno != EINTR) {
            rc = -errno;
            break;
        }
        if ((fd.revents & POLLIN) && (rc = drain(p)) < 0)
            break;
    }
    if (rc < 0 && kithi_conn_is_gone(rc)) {
        int last_words = drain(p);
        if (last_words < 0 && !kithi_conn_is_gone(last_words))
            rc = last_words;
    }
    return rc < 0 ? rc : 0;
}

static struct iovec gathered_piece(const kith_pipe *p)
{
    return p->gathered_len ? (struct iovec){ .iov_base = p->gathered + p->gathered_at,
                                             .iov_len = p->gathered_len - p->gathered_at }
                           : (struct iovec){ 0 };
}

/* As much as there is room for, without waiting. 0, or the error that broke the connection. */
static int send_gathered(kith_pipe *p)
{
    struct iovec piece = gathered_piece(p), *iov = &piece;
    int n = 1;
    size_t sent = 0;
    if (piece.iov_len == 0)
        return 0;
    int rc = kithi_conn_send(&p->conn, &iov, &n, false, &sent);
    p->gathered_at += sent;
    if (rc == 1)
        p->gathered_at = p->gathered_len = 0;
    return rc < 0 ? rc : 0;
}

/* Let a request wait for others. False: it has to leave now. */
static bool gather(kith_pipe *p, const struct iovec *pieces, int n, size_t len)
{
    if (!p->taking || p->answered_count == 0 || p->gathered_len + len > GATHER_MAX)
        return false;
    if (!p->gathered && !(p->gathered = malloc(GATHER_MAX)))
        return false;
    for (int i = 0; i < n; i++) {
        memcpy(p->gathered + p->gathered_len, pieces[i].iov_base, pieces[i].iov_len);
        p->gathered_len += pieces[i].iov_len;
    }
    return true;
}

int kith_pipe_open(kith *index, uint32_t depth, kith_pipe **out)
{
    if (!index || !out)
        return -EINVAL;
    if (depth < 1 || depth > DEPTH_MAX)
        return KITHI_E_PARAMETER;
    int rc = -ENOMEM;
    kith_pipe *p = calloc(1, sizeof *p);
    if (!p)
        return rc;
    kithi_conn_init(&p->conn);
    p->index = index;
    p->depth = depth;
    p->taken = UINT32_MAX;
    p->places = calloc(depth, sizeof *p->places);
    p->free = calloc(depth, sizeof *p->free);
    p->answered = calloc(depth, sizeof *p->answered);
    if (!p->places || !p->free || !p->answered)
        goto out;
    while (p->free_count < depth) {
        p->free[p->free_count] = p->free_count;
        p->free_count++;
    }
    rc = kithi_handle_connect(index, &p->conn, 0, NULL);
    if (rc < 0)
        goto out;
    *out = p;
    p = NULL;
out:
    kith_pipe_close(p);
    return rc;
}

void kith_pipe_close(kith_pipe *p)
{
    if (!p)
        return;
    if (!p->broken && p->conn.pid == getpid())
        (void)send_gathered(p); /* it was submitted; as far as there is room */
    kithi_conn_close(&p->conn);
    free(p->gathered);
    for (uint32_t i = 0; p->places && i < p->depth; i++)
        kithi_items_fini(&p->places[i].items);
    free(p->places);
    free(p->free);
    free(p->answered);
    free(p);
}

int kith_pipe_found(const kith_pipe *p, uint32_t item)
{
    return p && p->taken != UINT32_MAX ? kithi_items_found(&p->places[p->taken].items, item) : -EINVAL;
}

uint32_t kith_pipe_pending(const kith_pipe *p)
{
    return p->depth - p->free_count;
}

int kith_pipe_submit(kith_pipe *p, kith_batch *b, uint64_t token)
{
    if (!p || !b || b->index != p->index || b->count == 0)
        return -EINVAL;
    if (p->conn.pid != getpid())
        return -EBADF;
    if (p->broken)
        return KITHI_E_NO_DAEMON;
    if (p->free_count == 0)
        return -EAGAIN;

    uint32_t number = p->free[p->free_count - 1];
    struct kithi_frame frame =
        kithi_conn_frame(&p->conn, KITHI_FRAME_WRITE, b->count, sizeof p->index->uid + b->len);
    if (++p->serial == 0)
        p->serial = 1;
    frame.tag = (uint64_t)p->serial << 32 | number;
    frame.flags = (uint16_t)b->durability;
    struct iovec pieces[] = { gathered_piece(p),
                              { .iov_base = &frame, .iov_len = sizeof frame },
                              { .iov_base = p->index->uid, .iov_len = sizeof p->index->uid },
                              { .iov_base = b->ops, .iov_len = b->len } };
    if (!gather(p, pieces + 1, 3, sizeof frame + sizeof p->index->uid + b->len)) {
        p->gathered_at = p->gathered_len = 0;
        int rc = send_all(p, pieces, 4);
        if (rc < 0) {
            /* A part of a request is not carried out. What was submitted before has its own answer or none. */
            break_pipe(p, rc);
            return kithi_conn_is_gone(rc) ? KITHI_E_NO_DAEMON : rc;
        }
    }
    p->free_count--;
    p->places[number].tag = frame.tag;
    p->places[number].token = token;
    p->places[number].count = b->count;
    if (p->taken == number)
        p->taken = UINT32_MAX;
    return 0;
}

static int take(kith_pipe *p, uint64_t *out_token, int *out_status, struct kith_commit *out)
{
    uint32_t number = p->answered[p->answered_at];
    const struct place *at = &p->places[number];
    if (out && kithi_opts_out(out, &at->commit, sizeof at->commit, KITHI_COMMIT_FIRST) < 0)
        return -EINVAL;
    p->answered_at = (p->answered_at + 1) % p->depth;
    p->answered_count--;
    p->free[p->free_count++] = number;
    p->taken = number;
    p->taking = p->answered_count > 0;
    if (!p->taking) {
        int rc = send_gathered(p);
        if (rc < 0)
            break_pipe(p, rc);
    }
    if (out_token)
        *out_token = at->token;
    if (out_status)
        *out_status = at->status;
    return 1;
}

int kith_pipe_next(kith_pipe *p, int timeout_ms, uint64_t *out_token, int *out_status,
                   struct kith_commit *out)
{
    if (!p)
        return -EINVAL;
    if (p->conn.pid != getpid())
        return -EBADF;
    uint64_t end = timeout_ms < 0 ? UINT64_MAX : kithi_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        if (p->answered_count > 0)
            return take(p, out_token, out_status, out);
        if (p->broken)
            return p->broken;
        if (kith_pipe_pending(p) == 0)
            return 0;
        int rc = send_gathered(p); /* what there was no room for */
        if (rc == 0 || kithi_conn_is_gone(rc)) {
            int heard = drain(p);
            rc = heard < 0 ? heard : rc;
        }
        if (rc < 0) {
            break_pipe(p, rc);
            continue;
        }
        if (p->answered_count > 0)
            continue;
        uint64_t now = kithi_now_ns();
        if (now >= end)
            return 0;
        uint64_t left_ms = end == UINT64_MAX ? UINT64_MAX : (end - now + 999999u) / 1000000u;
        struct pollfd fd = { .fd = p->conn.fd, .events = p->gathered_len ? POLLIN | POLLOUT : POLLIN };
        if (poll(&fd, 1, left_ms > INT32_MAX ? -1 : (int)left_ms) < 0 && errno != EINTR)
            return -errno;
    }
}
