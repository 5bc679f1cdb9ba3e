/*
 * test_checkpointer.c - does a checkpoint come by itself when the log has grown, and when time has passed; does it give way to
 * writes; do writes wait for one that too much is kept for?
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "server/base/log.h"
#include "tests/unit/server/writer/peer.h"
#include "tests/unit/server/writer/served.h"

#define DIM         256u
#define PATIENCE_MS 20000u

static struct served served;
static struct peer peer;

static void begin(int64_t wal_mib, int64_t age_s)
{
    struct kithi_errmsg err = { .text = "" };
    kithi_log_set_level(KITHI_LOG_ERROR);
    served_init(&served);
    served.options.checkpoint_wal_mib = wal_mib;
    served.options.checkpoint_age_s = age_s;
    if (served_start(&served, &err))
        fail_msg("%s", err.text);
    peer_open(&peer, served.run.path);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, NULL), 0);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
}

/* One that nothing brings but a request, and that copies so many MiB a second beside writes. */
static void begin_slow(int64_t mib_s)
{
    kithi_log_set_level(KITHI_LOG_ERROR);
    served_init(&served);
    served.options.checkpoint_wal_mib = 1 << 20;
    served.options.checkpoint_mib_s = mib_s;
    assert_int_equal(served_start(&served, NULL), 0);
    peer_open(&peer, served.run.path);
}

static void end(void)
{
    peer_close(&peer);
    assert_int_equal(served_stop(&served), 0);
    served_fini(&served);
}

static void write_some(void)
{
    static float value;
    assert_int_equal(peer_write(&peer, "d", 0, 100, DIM, ++value, NULL), 0); /* 100 KiB of log */
}

/* Wait until there were n, and that it holds all that was written. */
static void await_checkpoints(uint64_t n)
{
    uint64_t by_ms = test_now_ms() + PATIENCE_MS;
    while (peer_stat(&peer, "checkpoints") < n && test_now_ms() < by_ms)
        test_nap();
    assert_int_equal(peer_stat(&peer, "checkpoints"), n);
    assert_in_range(peer_stat(&peer, "checkpoint_epoch"), 1, peer_stat(&peer, "epoch"));
}

static void a_log_that_has_grown_brings_one(void **state)
{
    (void)state;
    begin(1, 0);
    for (unsigned i = 0; i < 8; i++)
        write_some();
    assert_int_equal(peer_stat(&peer, "checkpoints"), 0);
    for (unsigned i = 0; i < 4; i++)
        write_some();
    await_checkpoints(1);
    /* It is counted from there on. */
    assert_true(peer_stat(&peer, "checkpoint_log_bytes") < 1u << 20);
    end();
}

static void time_with_a_change_brings_one(void **state)
{
    (void)state;
    begin(0, 1);
    for (uint64_t n = 1; n <= 2; n++) {
        write_some();
        await_checkpoints(n);
        assert_int_equal(peer_stat(&peer, "checkpoint_epoch"), peer_stat(&peer, "epoch"));
    }
    end();
}

/* While peer has always some writes waiting, the next of which is number *at. */
static void checkpoint_beside_writes(struct peer *asking, unsigned *at)
{
    enum { DEPTH = 32, EACH = 50, DIM_SMALL = 16 };
    struct peer_reply r;
    struct pollfd fd = { .fd = asking->fd, .events = POLLIN };
    unsigned waiting = 0;
    bool sent = false;
    do {
        for (; waiting < DEPTH; waiting++, ++*at)
            peer_send_write(&peer, "e", *at * EACH, EACH, DIM_SMALL, (float)*at);
        if (!sent)
            peer_send_frame(asking, KITHI_FRAME_CHECKPOINT, asking->uid, sizeof asking->uid, 0);
        sent = true;
        assert_true(peer_reply(&peer, &r));
        assert_int_equal(r.reply.status, 0);
        waiting--;
    } while (poll(&fd, 1, 0) == 0);
    assert_true(peer_reply(asking, &r));
    assert_int_equal(r.reply.status, 0);
    for (; waiting; waiting--)
        assert_true(peer_reply(&peer, &r));
}

/* Beside writes, of its own or of another collection, a copy keeps to its line. */
static void it_gives_way_to_writes(void **state)
{
    enum { LIVE = 4000, EACH = 50, DIM_SMALL = 16, TRIES = 5, RATE_MIB = 4 };
    struct peer asking;
    unsigned at = 0;
    (void)state;
    begin_slow(RATE_MIB);
    peer_open(&asking, served.run.path);
    assert_int_equal(peer_create(&peer, "small", DIM_SMALL, 0, NULL), 0);
    assert_int_equal(peer_create(&peer, "other", DIM_SMALL, 0, NULL), 0);
    assert_int_equal(peer_use(&asking, "small", NULL), 0);
    for (unsigned i = 0; i < LIVE; i += EACH)
        assert_int_equal(peer_write(&asking, "d", i, EACH, DIM_SMALL, (float)i, NULL), 0);
    for (unsigned own = 0; own < 2; own++) {
        assert_int_equal(peer_use(&peer, own ? "small" : "other", NULL), 0);
        bool kept = false;
        /* A test that is not given a processor for long leaves it without writes. */
        for (unsigned i = 0; i < TRIES && !kept; i++) {
            assert_int_equal(peer_write(&asking, "d", i, 1, DIM_SMALL, (float)own, NULL), 0);
            checkpoint_beside_writes(&asking, &at);
            kept = peer_stat(&asking, "checkpoint_ms") >=
                   peer_stat(&asking, "checkpoint_bytes") * 900 / (RATE_MIB << 20);
        }
        assert_true(kept);
    }
    peer_close(&asking);
    end();
}

#ifdef KITH_FAULT_POINTS

/* The first line of this event in the log; false: none yet. */
static bool logged(const char *path, const char *event, char *out, size_t size)
{
    FILE *f = fopen(path, "re");
    bool found = false;
    assert_non_null(f);
    while (!found && fgets(out, (int)size, f))
        found = strstr(out, event) != NULL;
    fclose(f);
    return found;
}

static bool is_answered(const struct peer *p)
{
    struct pollfd fd = { .fd = p->fd, .events = POLLIN };
    return poll(&fd, 1, 0) > 0;
}

/* Slots that die while an image is taken are kept for it; with too many of them writes wait for its end, and then go on. */
static void writes_wait_for_an_image_that_too_many_die_under(void **state)
{
    enum { LIVE = 1000, DIM_SMALL = 4, EACH = 20, HELD = 4096, SLOW_MS = 200000 };
    char path[PATH_MAX], hold[PATH_MAX], line[1024];
    struct peer asking, other;
    struct peer_reply r;
    (void)state;
    served_init(&served);
    kithi_log_set_level(KITHI_LOG_INFO);
    snprintf(path, sizeof path, "%s/log", served.run.path);
    snprintf(hold, sizeof hold, "%s/checkpoint-docs", served.run.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    kithi_log_set_fd(fd);
    setenv("KITH_HOLD", served.run.path, 1);
    assert_int_equal(served_start(&served, NULL), 0);
    peer_open(&peer, served.run.path);
    peer_open(&asking, served.run.path);
    peer_open(&other, served.run.path);
    assert_int_equal(peer_create(&peer, "docs", DIM_SMALL, 0, NULL), 0);
    assert_int_equal(peer_create(&peer, "other", DIM_SMALL, 0, NULL), 0);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_int_equal(peer_use(&asking, "docs", NULL), 0);
    assert_int_equal(peer_use(&other, "other", NULL), 0);
    for (unsigned i = 0; i < LIVE; i += EACH)
        assert_int_equal(peer_write(&peer, "d", i, EACH, DIM_SMALL, (float)i, NULL), 0);

    fclose(fopen(hold, "we"));
    peer_send_frame(&asking, KITHI_FRAME_CHECKPOINT, asking.uid, 16, 0);
    uint64_t by_ms = test_now_ms() + SLOW_MS;
    while (!strstr((peer_call(&peer, KITHI_FRAME_STATS, peer.uid, 16, 0, &r), r.text),
                   "\"checkpoint_running\":true"))
        assert_true(test_now_ms() < by_ms);
    unsigned answered = 0;
    bool waits = false;
    for (bool slowed = false; !slowed;) {
        peer_send_write(&peer, "d", answered * EACH % LIVE, EACH, DIM_SMALL, (float)answered + 2);
        while (!is_answered(&peer) && !slowed) {
            slowed = logged(path, "event=checkpoint-slows", line, sizeof line);
            assert_true(test_now_ms() < by_ms);
            test_nap();
        }
        waits = !is_answered(&peer);
        if (!waits) {
            assert_true(peer_reply(&peer, &r));
            assert_int_equal(r.reply.status, 0);
            answered++;
        }
    }
    /* As many as the bound lets die, and one group at the most beyond. */
    assert_in_range(answered, HELD / EACH, HELD / EACH + 1);
    const char *held = strstr(line, " held=");
    assert_non_null(strstr(line, "level=warn "));
    assert_non_null(strstr(line, " name=docs "));
    assert_non_null(strstr(line, " msg=\"writes wait until"));
    assert_non_null(held);
    assert_in_range(strtoul(held + 6, NULL, 10), HELD + 1, HELD + EACH);

    /* It waits, and nothing but it. */
    memcpy(asking.uid, peer.uid, sizeof asking.uid);
    if (!waits)
        peer_send_write(&peer, "d", 0, EACH, DIM_SMALL, -1);
    uint64_t epoch = LIVE / EACH + answered;
    struct peer stats;
    peer_open(&stats, served.run.path);
    assert_int_equal(peer_use(&stats, "docs", NULL), 0);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(peer_write(&other, "o", i, 1, DIM_SMALL, 1, NULL), 0);
        assert_int_equal(peer_stat(&stats, "epoch"), epoch);
    }
    while (peer_stat(&stats, "waiting") != 1)
        assert_true(test_now_ms() < by_ms);
    assert_int_equal(peer_stat(&stats, "epoch"), epoch);
    assert_false(is_answered(&peer));
    assert_false(is_answered(&asking));

    assert_int_equal(unlink(hold), 0);
    assert_true(peer_reply(&asking, &r));
    assert_int_equal(r.reply.status, 0);
    assert_int_equal(r.reply.epoch, LIVE / EACH);
    assert_true(peer_reply(&peer, &r));
    assert_int_equal(r.reply.status, 0);
    assert_int_equal(r.reply.epoch, epoch + 1);
    for (unsigned i = 0; i < 20; i++) /* and they go on */
        assert_int_equal(peer_write(&peer, "d", i * EACH % LIVE, EACH, DIM_SMALL, (float)i, NULL), 0);
    assert_int_equal(peer_stat(&peer, "live"), LIVE);
    assert_int_equal(peer_call(&peer, KITHI_FRAME_CHECKPOINT, peer.uid, 16, 0, &r), 0);
    peer_close(&asking);
    peer_close(&other);
    peer_close(&stats);
    unsetenv("KITH_HOLD");
    end();
    kithi_log_set_fd(2);
    close(fd);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_that_has_grown_brings_one),
        cmocka_unit_test(time_with_a_change_brings_one),
        cmocka_unit_test(it_gives_way_to_writes),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(writes_wait_for_an_image_that_too_many_die_under),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
