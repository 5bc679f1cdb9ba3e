/*
 * test_checkpointer.c - does a checkpoint come by itself when the log has grown, and when time has passed?
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_that_has_grown_brings_one),
        cmocka_unit_test(time_with_a_change_brings_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
