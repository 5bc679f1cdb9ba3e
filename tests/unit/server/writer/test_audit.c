/*
 * test_audit.c - does kithd find by itself what no link leads to, link it anew, and rest?
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <limits.h>
#include <stdio.h>

#include "server/base/log.h"
#include "server/writer/collection.h"
#include "shm/graph/reach.h"
#include "tests/unit/server/writer/peer.h"
#include "tests/unit/server/writer/served.h"

#define DIM         4u
#define COUNT       400u
#define EACH        50u
#define PATIENCE_MS 60000u
#define LOOKS       200u

static struct served served;
static struct peer peer;

static void begin(void)
{
    kithi_log_set_level(KITHI_LOG_ERROR);
    served_init(&served);
    assert_int_equal(served_start(&served, NULL), 0);
    peer_open(&peer, served.run.path);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, NULL), 0);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(peer_write(&peer, "d", i, 1, DIM, (float)(i * i), NULL), 0);
}

static void unmap(void);

static void end(void)
{
    unmap();
    peer_close(&peer);
    assert_int_equal(served_stop(&served), 0);
    served_fini(&served);
}

static bool rests(void)
{
    struct peer_reply r;
    assert_int_equal(peer_call(&peer, KITHI_FRAME_STATS, peer.uid, sizeof peer.uid, 0, &r), 0);
    return strstr(r.text, "\"audit_rests\":true") != NULL;
}

static void await_rest(void)
{
    uint64_t by_ms = test_now_ms() + PATIENCE_MS;
    while (!rests()) {
        assert_true(test_now_ms() < by_ms);
        test_nap();
    }
    assert_int_equal(peer_stat(&peer, "audit_epoch"), peer_stat(&peer, "epoch"));
}

/* A mapping of the test's own, which it may write to: links are changed in it while the daemon is idle. */
static struct kithi_map own;

static const struct kithi_map *map(void)
{
    char path[PATH_MAX];
    if (own.base)
        return &own;
    snprintf(path, sizeof path, "%s/docs/segment", served.run.path);
    assert_int_equal(kithi_map_attach_path(path, true, &own, NULL), 0);
    return &own;
}

static void unmap(void)
{
    kithi_map_detach(&own);
    memset(&own, 0, sizeof own);
}

static uint64_t unreachable(void)
{
    struct kithi_reach_report report;
    assert_int_equal(kithi_reach_prove(map(), 0, NULL, NULL, NULL, &report), 0);
    return report.unreachable_count;
}

/* Take away every link to slot, at all levels. */
static void cut(uint32_t slot)
{
    struct kithi_view v;
    kithi_view_begin(map(), &v);
    for (uint32_t i = 0; i < v.slots_used; i++) {
        for (unsigned level = 0; level <= KITHI_LEVEL_MAX; level++) {
            uint32_t count;
            kithi_link *links = kithi_view_links(&v, i, level, &count);
            for (uint32_t j = 0; links && j < count; j++)
                if (atomic_load(&links[j]) == slot + 1)
                    atomic_store(&links[j], 0);
        }
    }
}

static uint32_t not_the_entry(uint32_t slot)
{
    struct kithi_view v;
    kithi_view_begin(map(), &v);
    return kithi_entry_link(atomic_load(&v.header->entry)) == slot + 1 ? slot + 1 : slot;
}

static void what_is_unreachable_is_counted_and_linked_anew(void **state)
{
    (void)state;
    begin();
    await_rest();
    uint64_t found = peer_stat(&peer, "unreachable_found"), relinked = peer_stat(&peer, "relinked");
    assert_int_equal(unreachable(), 0);
    assert_int_equal(peer_stat(&peer, "unreachable"), 0);

    uint32_t slots[] = { not_the_entry(10), not_the_entry(200), not_the_entry(333) };
    for (unsigned i = 0; i < 3; i++)
        cut(slots[i]);
    uint64_t lost = unreachable();
    assert_true(lost >= 3);
    assert_true(rests()); /* nobody has written since */
    assert_int_equal(peer_write(&peer, "d", 0, 1, DIM, 0.5f, NULL), 0);
    await_rest();
    assert_int_equal(unreachable(), 0);
    assert_int_equal(peer_stat(&peer, "unreachable"), 0);
    assert_true(peer_stat(&peer, "unreachable_found") >= found + 3);
    assert_true(peer_stat(&peer, "relinked") >= relinked + 1);
    assert_int_equal(peer_stat(&peer, "live"), COUNT);
    end();
}

static void an_idle_daemon_stays_idle(void **state)
{
    (void)state;
    begin();
    await_rest();
    uint64_t audits = peer_stat(&peer, "audits"), samples = peer_stat(&peer, "samples");
    for (unsigned i = 0; i < LOOKS; i++) {
        assert_true(rests());
        test_nap();
    }
    assert_int_equal(peer_stat(&peer, "audits"), audits);
    assert_int_equal(peer_stat(&peer, "samples"), samples);
    end();
}

static void beside_writes_samples_are_drawn(void **state)
{
    (void)state;
    begin();
    uint64_t by_ms = test_now_ms() + PATIENCE_MS;
    for (unsigned i = 0; peer_stat(&peer, "samples") < 3; i++) {
        assert_int_equal(peer_write(&peer, "e", i * EACH % 2000, EACH, DIM, (float)i, NULL), 0);
        assert_true(test_now_ms() < by_ms);
    }
    await_rest();
    assert_int_equal(unreachable(), 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_unreachable_is_counted_and_linked_anew),
        cmocka_unit_test(an_idle_daemon_stays_idle),
        cmocka_unit_test(beside_writes_samples_are_drawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
