/*
 * asked.c - what a daemon says about itself, asked with patience for a second an answer and three in all.
 *
 * The library's calls are about one collection, or wait for as long as it takes; this has to learn of a daemon without
 * collections, and of one that is stopped. So it speaks the few frames itself (shm/wire/frame.h): HELLO, LIST, then OPEN
 * and STATS of each collection, and, if any is still coming back after a start, LIST once more for how far it is.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/src/json.h"
#include "shm/wire/frame.h"
#include "tools/doctor/doctor_priv.h"

#define ANSWER_MS  1000u
#define ALL_MS     3000u
#define ANSWER_MAX (1u << 20) /* bytes of an answer; the longest is a list of names */

struct talk {
    int fd;
    uint64_t tag, end_us;
    unsigned char *answer; /* body of the last one */
    size_t len;
};

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* Read exactly len bytes before end_us. */
static int receive(int fd, void *to, size_t len, uint64_t end_us)
{
    for (size_t got = 0; got < len;) {
        uint64_t now = now_us();
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int rc = now < end_us ? poll(&p, 1, (int)((end_us - now) / 1000) + 1) : 0;
        if (rc == 0)
            return KITHI_E_TIMEOUT;
        ssize_t n = rc < 0 ? -1 : recv(fd, (unsigned char *)to + got, len - got, MSG_DONTWAIT);
        if (n == 0)
            return KITHI_E_NO_DAEMON;
        if (n > 0)
            got += (size_t)n;
        else if (errno != EINTR && errno != EAGAIN)
            return errno == ECONNRESET ? KITHI_E_NO_DAEMON : -errno;
    }
    return 0;
}

/* One request and its answer; the reply's status when that is no success. */
static int ask(struct talk *t, uint16_t type, const void *body, size_t len, struct kithi_reply *out)
{
    struct {
        struct kithi_frame head;
        uint64_t body[(KITHI_NAME_MAX + 8) / 8];
    } request = { .head = { .magic = KITHI_FRAME_MAGIC,
                            .len = (uint32_t)(len + 7) / 8 * 8,
                            .type = type,
                            .tag = ++t->tag } };
    struct kithi_frame head;
    if (len > 0)
        memcpy(request.body, body, len);
    size_t size = sizeof head + request.head.len;
    if (send(t->fd, &request, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
        return errno == EAGAIN ? KITHI_E_TIMEOUT : errno == EPIPE ? KITHI_E_NO_DAEMON : -errno;

    uint64_t end = now_us() + ANSWER_MS * 1000u;
    end = end < t->end_us ? end : t->end_us;
    int rc = receive(t->fd, &head, sizeof head, end);
    if (rc != 0)
        return rc;
    if (head.magic != KITHI_FRAME_MAGIC || head.type != KITHI_FRAME_REPLY || head.len < sizeof *out ||
        head.len > ANSWER_MAX || (head.tag != t->tag && head.tag != 0))
        return KITHI_E_PROTOCOL;
    free(t->answer);
    t->answer = malloc(head.len + 1u);
    if (t->answer == NULL)
        return -ENOMEM;
    rc = receive(t->fd, t->answer, head.len, end);
    if (rc != 0)
        return rc;
    memcpy(out, t->answer, sizeof *out);
    if (out->text_len > head.len - sizeof *out)
        return KITHI_E_PROTOCOL;
    memmove(t->answer, t->answer + sizeof *out, out->text_len);
    t->len = out->text_len;
    t->answer[t->len] = '\0';
    return out->status < 0 ? out->status : head.tag == t->tag ? 0 : KITHI_E_PROTOCOL;
}

static int connect_to(const char *run_dir, int *out_fd)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    int n = snprintf(to.sun_path, sizeof to.sun_path, "%s/kithd.sock", run_dir);
    if (n < 0 || (size_t)n >= sizeof to.sun_path)
        return KITHI_E_RUN_DIR;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    struct timeval patience = { .tv_sec = ANSWER_MS / 1000 };
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* connecting, too */
    int rc;
    do
        rc = connect(fd, (const struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
    while (rc == -EINTR);
    if (rc == 0) {
        *out_fd = fd;
        return 0;
    }
    close(fd);
    switch (rc) {
    case -ENOENT:
    case -ENOTDIR:
    case -ECONNREFUSED: return KITHI_E_NO_DAEMON;
    case -EACCES:
    case -EPERM: return KITHI_E_DENIED;
    case -EAGAIN: return KITHI_E_TIMEOUT; /* nobody takes up what waits there */
    default: return rc;
    }
}

static enum kithi_yes yes_of(bool value)
{
    return value ? KITHI_YES : KITHI_YES_NO;
}

/* A string member, or nothing when it is null or too long. */
static void take_text(struct kithi_json *j, char *out, size_t size)
{
    size_t len = 0;
    if (kithi_json_peek(j) != KITHI_JSON_STRING) {
        kithi_json_skip(j);
        return;
    }
    if (kithi_json_string(j, out, size - 1, &len) != 0)
        len = 0;
    out[len] = '\0';
}

void kithi_asked_take(struct kithi_asked *a, const char *json, size_t len)
{
    struct kithi_json j;
    struct kithi_asked said = { .direct = KITHI_YES_UNKNOWN };
    bool direct = false;
    kithi_json_init(&j);
    kithi_json_begin(&j, json, len);
    if (kithi_json_object(&j) == 0)
        while (kithi_json_member(&j) == 1) {
            if (kithi_json_key_is(&j, "version")) {
                take_text(&j, said.version, sizeof said.version);
            } else if (kithi_json_key_is(&j, "io")) {
                take_text(&j, said.io, sizeof said.io);
            } else if (kithi_json_key_is(&j, "data_dir")) {
                take_text(&j, said.data, sizeof said.data);
            } else if (kithi_json_key_is(&j, "wal_direct") && kithi_json_peek(&j) == KITHI_JSON_BOOL) {
                if (kithi_json_bool(&j, &direct) == 0)
                    said.direct = yes_of(direct);
            } else {
                kithi_json_skip(&j);
            }
        }
    if (kithi_json_finish(&j) == 0) {
        memcpy(a->version, said.version, sizeof a->version);
        memcpy(a->io, said.io, sizeof a->io);
        if (said.data[0] == '/') /* another one begins where kithd was started */
            memcpy(a->data, said.data, sizeof a->data);
        a->direct = said.direct;
    }
    kithi_json_fini(&j);
}

/* One element of "collections": how far it is, when it is still coming back. */
static void take_state(struct kithi_json *j, struct kithi_seen_list *list)
{
    char name[KITHI_NAME_MAX + 1] = "", state[16] = "", unit[8] = "";
    double done = 0, total = 0, percent = 0;
    if (kithi_json_object(j) != 0)
        return;
    while (kithi_json_member(j) == 1) {
        bool number = kithi_json_peek(j) == KITHI_JSON_NUMBER;
        if (kithi_json_key_is(j, "name"))
            take_text(j, name, sizeof name);
        else if (kithi_json_key_is(j, "state"))
            take_text(j, state, sizeof state);
        else if (kithi_json_key_is(j, "unit"))
            take_text(j, unit, sizeof unit);
        else if (number && kithi_json_key_is(j, "done"))
            kithi_json_double(j, &done);
        else if (number && kithi_json_key_is(j, "total"))
            kithi_json_double(j, &total);
        else if (number && kithi_json_key_is(j, "percent"))
            kithi_json_double(j, &percent);
        else
            kithi_json_skip(j);
    }
    for (size_t i = 0; i < list->count; i++) {
        struct kithi_seen *c = &list->items[i];
        if (!c->coming || strcmp(c->name, name) != 0)
            continue;
        if (strcmp(state, "served") == 0) { /* since it was asked for */
            c->coming = false;
            c->answered = true;
        } else if (strcmp(unit, "bytes") == 0) {
            snprintf(c->how_far, sizeof c->how_far, "%s, %.0f %% of %.1f MiB", state, percent,
                     total / 1048576);
        } else if (strcmp(unit, "groups") == 0) {
            snprintf(c->how_far, sizeof c->how_far, "%s, %.0f of at least %.0f groups", state, done, total);
        } else {
            snprintf(c->how_far, sizeof c->how_far, "%s", state);
        }
    }
}

void kithi_asked_take_states(struct kithi_seen_list *list, const char *json, size_t len)
{
    struct kithi_json j;
    kithi_json_init(&j);
    kithi_json_begin(&j, json, len);
    if (kithi_json_object(&j) == 0)
        while (kithi_json_member(&j) == 1) {
            if (!kithi_json_key_is(&j, "collections") || kithi_json_array(&j) != 0)
                kithi_json_skip(&j);
            else
                while (kithi_json_element(&j) == 1)
                    take_state(&j, list);
        }
    kithi_json_fini(&j);
}

/* How far are those that are not served yet? Only a kithd that knows this question has said of any that it is not. */
static void ask_states(struct talk *t, struct kithi_seen_list *list)
{
    const uint32_t form[2] = { KITHI_LIST_STATES, 0 };
    struct kithi_reply reply;
    bool any = false;
    for (size_t i = 0; i < list->count; i++)
        any |= list->items[i].coming;
    if (any && ask(t, KITHI_FRAME_LIST, form, sizeof form, &reply) == 0)
        kithi_asked_take_states(list, (const char *)t->answer, t->len);
}

/* What a start could not bring back, and serves the others without (server/writer/refused.h). */
static bool is_refusal(int status)
{
    return status == KITHI_E_LOG_DAMAGED || status == KITHI_E_VERSION || status == KITHI_E_FORMAT ||
           status == KITHI_E_CORRUPT || status == KITHI_E_NOT_SEGMENT || status == -ENOENT;
}

/* One collection. What is not answered in time stays as it is. */
static void ask_of(struct talk *t, struct kithi_asked *a, struct kithi_seen *c)
{
    struct kithi_reply reply;
    struct kithi_opened opened;
    int rc = ask(t, KITHI_FRAME_OPEN, c->name, strlen(c->name), &reply);
    if (rc == 0 && t->len >= sizeof opened.uid) {
        memcpy(opened.uid, t->answer, sizeof opened.uid);
        rc = ask(t, KITHI_FRAME_STATS, opened.uid, sizeof opened.uid, &reply);
        if (rc == 0)
            kithi_asked_take(a, (const char *)t->answer, t->len);
    } else if (is_refusal(rc)) {
        c->refused = rc;
        snprintf(c->why, sizeof c->why, "%s", (const char *)t->answer);
    }
    c->answered = rc == 0;
    c->coming = rc == KITHI_E_STARTING;
}

/* The answer to LIST: a name a line. */
static void take_names(const struct talk *t, struct kithi_seen_list *list)
{
    for (const char *at = (const char *)t->answer, *end = at + t->len; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop != NULL ? stop : end) - at);
        if (kithi_name_valid(at, len))
            kithi_seen_get(list, at, len)->listed = true;
        at += len + 1;
    }
}

void kithi_asked_ask(struct kithi_asked *a, const char *run_dir, struct kithi_seen_list *list)
{
    struct talk t = { .fd = -1, .end_us = now_us() + ALL_MS * 1000u };
    struct kithi_reply reply;
    struct ucred peer;
    socklen_t len = sizeof peer;
    uint32_t hello[2] = { KITHI_WIRE_VERSION, 0 };
    memset(a, 0, sizeof *a);

    a->status = connect_to(run_dir, &t.fd);
    if (a->status != 0)
        return;
    if (getsockopt(t.fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0) {
        a->connected = true;
        a->pid = peer.pid;
        a->uid = peer.uid;
    }
    uint64_t begin = now_us();
    a->status = ask(&t, KITHI_FRAME_HELLO, hello, sizeof hello, &reply);
    a->took_us = now_us() - begin;
    if (a->status == 0) {
        a->status = ask(&t, KITHI_FRAME_LIST, NULL, 0, &reply);
        if (a->status == 0)
            take_names(&t, list);
    }
    if (a->status < 0 && t.answer != NULL && t.len > 0)
        snprintf(a->text, sizeof a->text, "%s", (const char *)t.answer);
    /* The socket of a kithd that was killed outlives it for a moment, and takes connections. */
    if (a->status == KITHI_E_NO_DAEMON)
        a->connected = false;
    for (size_t i = 0; a->status == 0 && i < list->count && now_us() < t.end_us; i++)
        ask_of(&t, a, &list->items[i]);
    if (a->status == 0)
        ask_states(&t, list);
    free(t.answer);
    close(t.fd);
}
