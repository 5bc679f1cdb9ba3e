/*
 * test_relayout.c - a collection is asked for another layout, or a fresh segment: what is answered, what is refused, and what
 * goes on meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/writer/collection.h"
#include "shm/postings/postings.h"
#include "tests/unit/server/writer/peer.h"
#include "tests/unit/server/writer/served.h"

#define DIM         4u
#define COUNT       600u
#define EACH        50u
#define PATIENCE_MS 60000u

static struct served served;
static struct peer peer;
static bool runs;

/* What was answered last, and what came of it. */
static struct peer_reply r;
static struct kithi_altered done;

static void start(void)
{
    assert_int_equal(served_start(&served, NULL), 0);
    peer_open(&peer, served.run.path);
    runs = true;
}

static void stop(void)
{
    runs = false;
    peer_close(&peer);
    assert_int_equal(served_stop(&served), 0);
}

/* Every test has a daemon of its own, with a collection in it. */
static int begin(void **state)
{
    (void)state;
    kithi_log_set_level(KITHI_LOG_ERROR);
    served_init(&served);
    setenv("KITH_HOLD", served.run.path, 1);
    /* What was replaced is given back soon, so that tests go on. */
    setenv("KITH_FAULT",
           "old-grace-short:1,old-grace-short:2,old-grace-short:3,old-grace-short:4,old-grace-short:5,"
           "old-grace-short:6,old-grace-short:7,old-grace-short:8",
           1);
    start();
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, NULL), 0);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    for (unsigned i = 0; i < COUNT; i += EACH)
        assert_int_equal(peer_write(&peer, "d", i, EACH, DIM, (float)(i * i), NULL), 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    if (runs)
        stop();
    served_fini(&served);
    unsetenv("KITH_HOLD");
    unsetenv("KITH_FAULT");
    return 0;
}

static struct kithi_alter as_it_is(void)
{
    struct kithi_alter a = { .m = KITHI_AS_IS,
                             .ef_construction = KITHI_AS_IS,
                             .quantization = KITHI_AS_IS,
                             .keep = KITHI_AS_IS,
                             .slot_max = KITHI_AS_IS };
    memcpy(a.uid, peer.uid, sizeof a.uid);
    return a;
}

static struct kithi_alter anew(void)
{
    struct kithi_alter a = as_it_is();
    a.anew = 1;
    return a;
}

/* The status; what came of it in `done`. */
static int alter(const struct kithi_alter *a)
{
    int status = peer_call(&peer, KITHI_FRAME_ALTER, a, sizeof *a, 0, &r);
    if (status == 0) {
        assert_int_equal(r.reply.text_len, sizeof done);
        memcpy(&done, r.text, sizeof done);
    }
    return status;
}

/* It is refused with that status, and this is in the reason. */
static void assert_refused(const struct kithi_alter *a, int status, const char *text)
{
    assert_int_equal(alter(a), status);
    if (strstr(r.text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, r.text);
}

static struct kithi_opened opened(void)
{
    struct peer_reply reply;
    struct kithi_opened o;
    assert_int_equal(peer_use(&peer, "docs", &reply), 0);
    memcpy(&o, reply.text, sizeof o);
    return o;
}

static bool stats_say(const char *text)
{
    struct peer_reply reply;
    assert_int_equal(peer_call(&peer, KITHI_FRAME_STATS, peer.uid, sizeof peer.uid, 0, &reply), 0);
    return strstr(reply.text, text) != NULL;
}

static void await_stats(const char *text)
{
    for (uint64_t by_ms = test_now_ms() + PATIENCE_MS; !stats_say(text); test_nap())
        if (test_now_ms() > by_ms)
            fail_msg("the statistics never said %s", text);
}

static void optimize_and_alter_are_answered_when_they_are_done(void **state)
{
    (void)state;
    struct kithi_alter a = anew();
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.done, KITHI_ALTER_COPIED);
    assert_int_equal(done.live, COUNT);
    assert_int_equal(done.generation, 2);
    assert_int_equal(r.reply.epoch, COUNT / EACH);
    assert_true(done.bytes_before > 0 && done.bytes_after > 0);

    a = as_it_is();
    a.quantization = KITHI_QUANTIZATION_BITS;
    a.keep = KITHI_KEEP_F16;
    a.m = 8;
    a.ef_construction = 50;
    a.slot_max = COUNT + 100;
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.done, KITHI_ALTER_COPIED);
    assert_int_equal(done.generation, 3);
    struct kithi_opened o = opened();
    assert_int_equal(o.quantization, KITHI_QUANTIZATION_BITS);
    assert_int_equal(o.layout, KITHI_QUANTIZATION_BITS);
    assert_int_equal(o.keep, KITHI_KEEP_F16);
    assert_int_equal(o.m, 8);
    assert_int_equal(o.ef_construction, 50);
    assert_int_equal(o.slot_max, COUNT + 100);
    assert_int_equal(peer_stat(&peer, "live"), COUNT);
    assert_true(stats_say("\"relayout\":{\"state\":\"ending\"") ||
                stats_say("\"relayout\":{\"state\":\"resting\""));
    assert_true(stats_say("\"count\":2,\"failures\":0"));

    /* It was so already. */
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.done, KITHI_ALTER_NOTHING);
    assert_int_equal(done.generation, 3);
    a = as_it_is();
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.done, KITHI_ALTER_NOTHING);

    /* Settings last, and so does the segment. */
    stop();
    start();
    assert_int_equal(opened().m, 8);
    assert_int_equal(peer_stat(&peer, "live"), COUNT);
    for (unsigned i = 0; i < COUNT; i += EACH)
        assert_int_equal(peer_write(&peer, "d", i, EACH, DIM, (float)i, NULL), 0);
}

/* The request with a text behind it. */
static int alter_index(struct kithi_alter a, const char *text)
{
    static unsigned char body[sizeof a + 4096];
    memset(body, 0, sizeof body);
    a.index_len = (uint16_t)strlen(text);
    memcpy(body, &a, sizeof a);
    memcpy(body + sizeof a, text, strlen(text));
    int status = peer_call(&peer, KITHI_FRAME_ALTER, body, sizeof a + (strlen(text) + 7) / 8 * 8, 0, &r);
    if (status == 0)
        memcpy(&done, r.text, sizeof done);
    return status;
}

/* What the segment says is declared. */
static void assert_declared(const char *want)
{
    char path[TEST_PATH_SIZE + 64], text[KITHI_DECLARED_TEXT_MAX + 1];
    struct kithi_declared d;
    struct kithi_errmsg err;
    struct kithi_map map;
    struct kithi_view v;
    snprintf(path, sizeof path, "%s/docs/segment", served.run.path);
    assert_int_equal(kithi_map_attach_path(path, false, &map, &err), 0);
    kithi_view_begin(&map, &v);
    assert_true(kithi_postings_declared(&v, &d) && kithi_declared_print(&d, text));
    kithi_map_detach(&map);
    assert_string_equal(text, want);
}

static void an_index_is_another_without_a_copy(void **state)
{
    (void)state;
    assert_declared("auto");
    assert_int_equal(alter_index(as_it_is(), "lang:keyword,n:float"), 0);
    assert_int_equal(done.done, KITHI_ALTER_SETTINGS);
    assert_int_equal(done.generation, 1);
    assert_declared("lang:keyword,n:number");
    assert_int_equal(alter_index(as_it_is(), " lang:keyword,n:number"), 0);
    assert_int_equal(done.done, KITHI_ALTER_NOTHING);
    /* It lasts: over a start, in a copy, and beside another layout. */
    stop();
    start();
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_declared("lang:keyword,n:number");
    struct kithi_alter a = anew();
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.done, KITHI_ALTER_COPIED);
    assert_declared("lang:keyword,n:number");
    a = as_it_is();
    a.m = 8;
    assert_int_equal(alter_index(a, "none"), 0);
    assert_int_equal(done.done, KITHI_ALTER_COPIED);
    assert_declared("none");
    a = as_it_is(); /* what is larger is the same segment, grown */
    a.slot_max = 2 * opened().slot_max;
    assert_int_equal(alter_index(a, "lang:bool"), 0);
    assert_declared("lang:bool");
    assert_int_equal(alter_index(as_it_is(), "auto"), 0);
    assert_declared("auto");
    /* What is none is refused, and so is a request that is not as long as it says. */
    assert_int_equal(alter_index(as_it_is(), "lang:text"), KITHI_E_PARAMETER);
    assert_non_null(strstr(r.text, "a type is keyword"));
    a = as_it_is();
    a.index_len = 8;
    assert_int_equal(alter(&a), KITHI_E_PROTOCOL);
    assert_declared("auto");
}

static void what_auto_has_chosen_is_only_noted_when_it_is_asked_for(void **state)
{
    (void)state;
    struct kithi_alter a = as_it_is();
    a.quantization = KITHI_QUANTIZATION_AUTO; /* which leaves few vectors plain */
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.done, KITHI_ALTER_SETTINGS);
    assert_int_equal(opened().quantization, KITHI_QUANTIZATION_AUTO);
    assert_int_equal(opened().undecided, 1);
    for (unsigned i = 0; i < 2 * KITHI_RELAYOUT_MIN; i += EACH)
        assert_int_equal(peer_write(&peer, "more", i, EACH, DIM, (float)(i % 97), NULL), 0);
    for (uint64_t by_ms = test_now_ms() + PATIENCE_MS; opened().undecided; test_nap())
        assert_true(test_now_ms() < by_ms);
    await_stats("\"relayout\":{\"state\":\"resting\"");
    /* Asked for once more it measures once more. */
    assert_int_equal(alter(&a), 0);
    assert_true(done.done == KITHI_ALTER_SETTINGS || done.done == KITHI_ALTER_COPIED);
    assert_int_equal(opened().quantization, KITHI_QUANTIZATION_AUTO);
    assert_int_equal(opened().undecided, 0);
    await_stats("\"relayout\":{\"state\":\"resting\"");
    a = as_it_is();
    a.quantization = opened().layout;
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.done, KITHI_ALTER_SETTINGS);
    assert_int_equal(opened().quantization, a.quantization);
}

static void what_cannot_be_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    struct kithi_opened before = opened();
    struct kithi_alter a = as_it_is();
    a.slot_max = COUNT - 1;
    assert_refused(&a, KITHI_E_PARAMETER, "max-vectors is 599, and \"docs\" has 600 vectors");
    a.slot_max = KITHI_SLOT_MAX_LIMIT + 1;
    assert_refused(&a, KITHI_E_PARAMETER, "it must be 1 to");
    a = as_it_is();
    a.m = 65;
    assert_refused(&a, KITHI_E_PARAMETER, "m is 65; it must be 2 to 64");
    a = as_it_is();
    a.ef_construction = 0;
    assert_int_equal(alter(&a), KITHI_E_PARAMETER);
    a = as_it_is();
    a.quantization = 9;
    assert_int_equal(alter(&a), KITHI_E_UNSUPPORTED);
    a = as_it_is();
    a.keep = KITHI_KEEP_F16; /* it has no codes */
    assert_refused(&a, KITHI_E_PARAMETER, "without quantization vectors are kept as f32");
    struct kithi_opened after = opened();
    assert_memory_equal(&before, &after, sizeof before);
    assert_true(stats_say("\"count\":0,\"failures\":0"));
}

#ifdef KITH_FAULT_POINTS

static void hold(bool on)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/copy-docs", served.run.path);
    if (on)
        fclose(fopen(path, "we"));
    else
        assert_int_equal(unlink(path), 0);
}

/* The environment is set while no thread reads it. */
static void start_again_with(const char *faults)
{
    stop();
    setenv("KITH_FAULT", faults, 1);
    start();
}

static bool is_answered(const struct peer *p)
{
    struct pollfd fd = { .fd = p->fd, .events = POLLIN };
    return poll(&fd, 1, 0) > 0;
}

/* One is under way, held before it copies. */
static void ask_and_hold(struct peer *asking, struct kithi_alter *a)
{
    hold(true);
    peer_open(asking, served.run.path);
    assert_int_equal(peer_use(asking, "docs", NULL), 0);
    peer_send_frame(asking, KITHI_FRAME_ALTER, a, sizeof *a, 0);
    await_stats("\"relayout\":{\"state\":\"copying\"");
}

static void all_else_goes_on_while_a_copy_is_made(void **state)
{
    (void)state;
    struct peer asking;
    struct kithi_alter a = anew();
    ask_and_hold(&asking, &a);
    assert_int_equal(peer_write(&peer, "d", 0, EACH, DIM, 7, NULL), 0);
    assert_int_equal(peer_write(&peer, "new", 0, EACH, DIM, 8, NULL), 0);
    assert_int_equal(peer_write(&peer, "d", EACH, EACH, 0, 0, NULL), 0);
    assert_int_equal(peer_call(&peer, KITHI_FRAME_CHECKPOINT, peer.uid, 16, 0, &r), 0);
    assert_true(stats_say("\"changes_left\":200")); /* 50 died and were born, 50 were born, 50 died */
    /* Another one is refused, and says how far the first is. */
    assert_refused(&a, -EBUSY, "is being built already (optimize, copying, 0 % of the slots done)");
    assert_false(is_answered(&asking));
    hold(false);
    assert_true(peer_reply(&asking, &r));
    assert_int_equal(r.reply.status, 0);
    memcpy(&done, r.text, sizeof done);
    assert_int_equal(done.live, COUNT);
    assert_int_equal(done.done, KITHI_ALTER_COPIED);
    assert_int_equal(r.reply.epoch, COUNT / EACH + 3);
    assert_int_equal(peer_stat(&peer, "live"), COUNT);
    /* The checkpoint is of the segment before: the next one does not wait for a change. */
    await_stats("\"checkpoints\":2");
    peer_close(&asking);
}

static void a_client_that_leaves_and_a_stop_leave_a_whole_collection(void **state)
{
    (void)state;
    struct peer asking;
    struct kithi_alter a = anew();
    ask_and_hold(&asking, &a);
    peer_close(&asking); /* it goes on all the same */
    hold(false);
    await_stats("\"count\":1,\"failures\":0");
    await_stats("\"relayout\":{\"state\":\"resting\"");

    a.anew = 0;
    a.quantization = KITHI_QUANTIZATION_SQ8;
    ask_and_hold(&asking, &a);
    assert_int_equal(peer_write(&peer, "d", 0, EACH, DIM, 9, NULL), 0);
    stop();
    assert_true(peer_reply(&asking, &r));
    assert_int_equal(r.reply.status, KITHI_E_SHUTDOWN);
    assert_non_null(strstr(r.text, "stands in the configuration, and its next start does it"));
    peer_close(&asking);
    hold(false);
    start();
    assert_int_equal(opened().quantization, KITHI_QUANTIZATION_SQ8);
    await_stats("\"count\":1,\"failures\":0");
    assert_int_equal(peer_stat(&peer, "live"), COUNT);
}

static void a_drop_ends_it(void **state)
{
    (void)state;
    struct peer asking;
    struct kithi_alter a = anew();
    ask_and_hold(&asking, &a);
    assert_int_equal(peer_drop(&peer, "docs", NULL), 0);
    assert_true(peer_reply(&asking, &r));
    assert_int_equal(r.reply.status, KITHI_E_NO_COLLECTION);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, NULL), 0);
    hold(false);
    peer_close(&asking);
}

/* What fails once settings were written leaves those before. */
static void a_copy_that_fails_leaves_the_settings_before(void **state)
{
    (void)state;
    struct kithi_opened before = opened();
    struct kithi_alter a = as_it_is();
    a.m = 20;
    start_again_with("copy-no-space,copy-ask-no-space:3");
    assert_refused(&a, KITHI_E_NO_SPACE, "no room for the copy");
    struct kithi_opened after = opened();
    assert_memory_equal(&before, &after, sizeof before);
    assert_refused(&a, KITHI_E_NO_SPACE, "no room for two generations"); /* beforehand */
    start_again_with("old-grace-short");
    after = opened();
    assert_memory_equal(&before, &after, sizeof before);
    assert_true(stats_say("\"relayout\":{\"state\":\"resting\""));
    assert_int_equal(alter(&a), 0);
    assert_int_equal(opened().m, 20);
}

/* Settings that cannot be written are as they were; those that cannot be undone stand, and the next start does what they say. */
static void settings_are_those_of_the_configuration_whatever_fails(void **state)
{
    (void)state;
    struct kithi_opened before = opened();
    struct kithi_alter a = as_it_is();
    a.m = 20;
    start_again_with("settings-write-eio:1,settings-write-eio:2,settings-write-eio:4,copy-no-space");
    assert_int_equal(alter(&a), -EIO);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_true(stats_say("\"failures\":1"));
    struct kithi_opened after = opened();
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(alter(&a), -EIO);
    /* Written, and not undone. */
    assert_int_equal(alter(&a), KITHI_E_NO_SPACE);
    start_again_with("old-grace-short");
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    await_stats("\"count\":1,\"failures\":0");
    assert_int_equal(opened().m, 20);
}

/* What could not be removed when its time was over keeps nobody from the next segment for good, nor until all is copied. */
static void an_old_segment_that_was_left_is_removed_first(void **state)
{
    (void)state;
    char path[PATH_MAX];
    unsigned refused = 0;
    int status;
    struct kithi_alter a = anew();
    start_again_with(
        "old-grace-short:1,old-grace-short:2,old-unlink-eio:1,old-unlink-eio:2,old-unlink-eio:3");
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_int_equal(alter(&a), 0);
    while ((status = alter(&a)) != 0) {
        assert_true(++refused <= 3);
        assert_int_equal(status, -EIO);
        assert_non_null(strstr(r.text, "segment.old, the segment before"));
    }
    assert_true(refused > 0);
    assert_int_equal(peer_stat(&peer, "live"), COUNT);
    snprintf(path, sizeof path, "%s/docs/segment.old", served.run.path);
    for (uint64_t by_ms = test_now_ms() + PATIENCE_MS; access(path, F_OK) == 0; test_nap())
        assert_true(test_now_ms() < by_ms);
}

/* A ceiling that was lowered does not keep a start from replaying what was there under the one before. */
static void a_lower_ceiling_is_no_end_of_the_log(void **state)
{
    (void)state;
    char path[PATH_MAX];
    assert_int_equal(peer_write(&peer, "d", 100, COUNT - 100, 0, 0, NULL), 0);
    struct kithi_alter a = as_it_is();
    a.slot_max = 120;
    assert_int_equal(alter(&a), 0);
    assert_int_equal(done.live, 100);
    assert_int_equal(opened().slot_max, 120);
    stop();
    /* All that a start has is the log. */
    snprintf(path, sizeof path, "rm -f %s/docs/checkpoint-* %s/docs/segment*", served.data.path,
             served.run.path);
    assert_int_equal(system(path), 0);
    start();
    assert_int_equal(opened().slot_max, 120);
    assert_int_equal(peer_stat(&peer, "live"), 100);
    await_stats("\"count\":1,\"failures\":0"); /* and it gets that ceiling again */
}

#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(optimize_and_alter_are_answered_when_they_are_done),
        TEST(an_index_is_another_without_a_copy),
        TEST(what_auto_has_chosen_is_only_noted_when_it_is_asked_for),
        TEST(what_cannot_be_is_refused_and_changes_nothing),
#ifdef KITH_FAULT_POINTS
        TEST(all_else_goes_on_while_a_copy_is_made),
        TEST(a_client_that_leaves_and_a_stop_leave_a_whole_collection),
        TEST(a_drop_ends_it),
        TEST(a_copy_that_fails_leaves_the_settings_before),
        TEST(settings_are_those_of_the_configuration_whatever_fails),
        TEST(an_old_segment_that_was_left_is_removed_first),
        TEST(a_lower_ceiling_is_no_end_of_the_log),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
