/*
 * test_snapshot.c - reading at a snapshot through a handle, and scrolling: what was visible comes back whatever was written
 * since, or an error does. The writer is kithi_index in this process, driven by hand; no daemon runs.
 */
#include <kith/kith.h>

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/solo.h"
#include "tests/support/tmp.h"

enum { DIM = 4, COUNT = 100, K = 10, QUERIES = 20 };

/* A run directory with a collection "c": id i has i in every place, at first. */
struct world {
    struct test_dir run;
    struct test_solo writer;
    kith *index;
    kith_results *r;
};

static void fill(float *v, float x)
{
    for (int i = 0; i < DIM; i++)
        v[i] = x;
}

static void put(struct test_solo *t, int number, float x)
{
    char id[16];
    float v[DIM];
    fill(v, x);
    snprintf(id, sizeof id, "%d", number);
    assert_int_equal(test_solo_put(t, id, v), 0);
}

static void make_writer(struct test_solo *t, const struct test_dir *run, const char *name, int count)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4096);
    struct test_dir folder = { 0 };
    assert_true(snprintf(folder.path, sizeof folder.path, "%s/%s", run->path, name) <
                (int)sizeof folder.path);
    assert_int_equal(mkdir(folder.path, 0750), 0);
    test_solo_open_in(t, &g, &folder);
    for (int i = 0; i < count; i++)
        put(t, i, (float)i);
}

static kith *open_in(const struct test_dir *run)
{
    struct kith_error err = { 0 };
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    o.run_dir = run->path;
    o.error = &err;
    if (kith_open("c", &o, &index) < 0)
        fail_msg("%s", err.text);
    return index;
}

static void world_make(struct world *w)
{
    test_dir_make_shm(&w->run);
    make_writer(&w->writer, &w->run, "c", COUNT);
    w->index = open_in(&w->run);
    w->r = kith_results_new();
    assert_non_null(w->r);
}

static void world_remove(struct world *w)
{
    kith_results_free(w->r);
    kith_close(w->index);
    test_solo_close(&w->writer);
    test_dir_remove(&w->run);
}

/* Ids and distances of a search, as text. */
static void search(kith *index, kith_results *r, const struct kith_snapshot *at, bool exact, float x,
                   char out[512])
{
    float q[DIM];
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    fill(q, x);
    opts.exact = exact;
    opts.at = *at;
    int n = kith_search(index, q, DIM, K, &opts, r);
    if (n < 0)
        fail_msg("%s", kith_strerror(n));
    assert_int_equal(kith_results_info(r, &info), 0);
    assert_true(at->epoch == 0 || info.epoch == at->epoch);
    int len = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < (uint32_t)n; i++)
        len += snprintf(out + len, (size_t)(512 - len), "%s:%g ", kith_results_id(r, i),
                        (double)kith_results_distance(r, i));
}

/* Half of the vectors go elsewhere, some go, many come, right where the queries are. */
static void change_everything(struct test_solo *t)
{
    for (int i = 0; i < COUNT / 2; i++)
        put(t, i, 1000.0f + (float)i);
    for (int i = COUNT / 2; i < COUNT / 2 + 10; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(test_solo_delete(t, id), 0);
    }
    for (int i = 0; i < 600; i++)
        put(t, COUNT + i, (float)(i % COUNT) + 0.25f);
}

/* Every way of reading at it returns code. */
static void all_say(const struct world *w, const struct kith_snapshot *at, int code)
{
    float q[DIM], v[DIM];
    uint64_t count;
    size_t failed = 9;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    struct kith_scroll_opts scroll = KITH_SCROLL_OPTS_INIT;
    kith_results *const out[] = { w->r };
    fill(q, 1);
    opts.at = scroll.at = *at;
    for (opts.exact = 0; opts.exact < 2; opts.exact++) {
        assert_int_equal(kith_search(w->index, q, DIM, K, &opts, w->r), code);
        assert_int_equal(kith_results_count(w->r), 0);
        assert_int_equal(kith_search_batch(w->index, q, DIM, 1, K, &opts, out, &failed), code);
        assert_int_equal(failed, 0);
        assert_int_equal(kith_search_id(w->index, "70", K, &opts, w->r), code);
    }
    /* One that is found as it was is no lie, so it may be; that one is not there, nobody could say. */
    assert_int_equal(kith_get_at(w->index, at, "nobody", v, DIM), code);
    assert_int_equal(kith_exists_at(w->index, at, "nobody"), code);
    assert_int_equal(kith_count_at(w->index, at, &count), code);
    assert_int_equal(kith_scroll(w->index, NULL, &scroll, w->r), code);
    assert_int_equal(kith_results_count(w->r), 0);
    assert_null(kith_results_cursor(w->r));
}

static void what_was_visible_is_found_again_until_it_is_gone(void **state)
{
    (void)state;
    struct world w;
    struct kith_snapshot s, now = KITH_SNAPSHOT_INIT;
    static char before[QUERIES][512], text[512];
    world_make(&w);
    assert_int_equal(kith_snapshot(w.index, &s), 0);
    assert_int_equal(s.epoch, kith_epoch(w.index));
    assert_int_equal(s.timeline, kith_timeline(w.index));
    for (int i = 0; i < QUERIES; i++)
        search(w.index, w.r, &now, true, 5.0f * (float)i + 0.1f, before[i]);
    change_everything(&w.writer);

    for (int i = 0; i < QUERIES; i++) {
        float x = 5.0f * (float)i + 0.1f;
        search(w.index, w.r, &s, true, x, text);
        assert_string_equal(text, before[i]);
        search(w.index, w.r, &s, false, x, text);
        assert_string_equal(text, before[i]);
        search(w.index, w.r, &now, true, x, text);
        assert_string_not_equal(text, before[i]);
    }
    float queries[QUERIES][DIM], v[DIM];
    kith_results *out[QUERIES];
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.at = s;
    for (int i = 0; i < QUERIES; i++) {
        fill(queries[i], 5.0f * (float)i + 0.1f);
        out[i] = kith_results_new();
        assert_non_null(out[i]);
    }
    assert_int_equal(kith_search_batch(w.index, queries[0], DIM, QUERIES, K, &opts, out, NULL), 0);
    for (int i = 0; i < QUERIES; i++) {
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        assert_int_equal(kith_results_count(out[i]), K);
        assert_int_equal(strncmp(before[i], kith_results_id(out[i], 0), kith_results_id_len(out[i], 0)), 0);
        kith_results_info(out[i], &info);
        assert_int_equal(info.epoch, s.epoch);
        kith_results_free(out[i]);
    }
    assert_int_equal(kith_search_id(w.index, "20", 2, &opts, w.r), 2);
    assert_true(kith_results_distance(w.r, 0) == DIM && kith_results_distance(w.r, 1) == DIM);
    for (int i = 0; i < COUNT + 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(kith_exists_at(w.index, &s, id), i < COUNT);
        assert_int_equal(kith_get_at(w.index, &s, id, v, DIM), i < COUNT ? 0 : KITH_E_NOT_FOUND);
        assert_true(i >= COUNT || v[DIM - 1] == (float)i);
    }
    uint64_t count = 0;
    assert_int_equal(kith_count_at(w.index, &s, &count), 0);
    assert_int_equal(count, COUNT);
    assert_int_equal(kith_count_at(w.index, NULL, &count), 0);
    assert_int_equal(count, COUNT - 10 + 600);

    /* Unlinked, and not yet used again: only what needs no finder can be answered. */
    while (atomic_load(&test_solo_header(&w.writer)->unlinked) <= s.epoch)
        test_solo_sweep(&w.writer, 150);
    assert_int_equal(kith_search(w.index, queries[0], DIM, K, &opts, w.r), KITH_E_STALE);
    assert_int_equal(kith_get_at(w.index, &s, "55", v, DIM), KITH_E_STALE); /* which was deleted */
    search(w.index, w.r, &s, true, 0.1f, text);
    assert_string_equal(text, before[0]);
    test_solo_settle(&w.writer);
    all_say(&w, &s, KITH_E_STALE);
    assert_int_equal(kith_snapshot(w.index, &s), 0);
    search(w.index, w.r, &s, false, 0.1f, text);
    assert_int_equal(kith_count_at(w.index, &s, &count), 0);
    assert_int_equal(count, COUNT - 10 + 600);
    world_remove(&w);
}

/* As long as nothing goes, nothing ends it. */
static void additions_leave_a_snapshot_alone(void **state)
{
    (void)state;
    struct world w;
    struct kith_snapshot s;
    char before[512], text[512];
    world_make(&w);
    assert_int_equal(kith_snapshot(w.index, &s), 0);
    search(w.index, w.r, &s, true, 50.1f, before);
    for (int i = 0; i < 3000; i++) { /* all of them nearer to the query */
        put(&w.writer, COUNT + i, 50.1f + (float)(i % 100) / 1000);
        if (i % 500 == 0)
            test_solo_sweep(&w.writer, 1000);
    }
    search(w.index, w.r, &s, false, 50.1f, text);
    assert_string_equal(text, before);
    search(w.index, w.r, &s, true, 50.1f, text);
    assert_string_equal(text, before);
    world_remove(&w);
}

/* The entry point is gone and nobody that it sees is linked from the living: it is said, or all of it is found. */
static void a_snapshot_of_what_was_all_deleted_is_whole_or_stale(void **state)
{
    (void)state;
    struct world w;
    struct kith_snapshot s;
    float q[DIM];
    world_make(&w);
    assert_int_equal(kith_snapshot(w.index, &s), 0);
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.at = s;
    fill(q, 50);
    for (int i = 0; i < COUNT; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(test_solo_delete(&w.writer, id), 0);
        if (i % 10 == 0 || i == COUNT - 1)
            assert_int_equal(kith_search(w.index, q, DIM, COUNT, &opts, w.r), COUNT);
    }
    for (int i = 0; i < 300; i++) {
        put(&w.writer, 1000 + i, (float)i);
        int n = kith_search(w.index, q, DIM, COUNT, &opts, w.r);
        assert_true(n == COUNT || n == KITH_E_STALE);
    }
    world_remove(&w);
}

static void other_timelines_and_later_epochs_are_refused(void **state)
{
    (void)state;
    struct world w;
    struct kith_snapshot s, t;
    float v[DIM];
    world_make(&w);
    assert_int_equal(kith_snapshot(NULL, &s), -EINVAL);
    assert_int_equal(kith_snapshot(w.index, NULL), -EINVAL);
    assert_int_equal(kith_snapshot(w.index, &s), 0);
    t = s;
    t.timeline++;
    all_say(&w, &t, KITH_E_STALE);
    t = s;
    t.epoch++;
    all_say(&w, &t, KITH_E_EPOCH);
    put(&w.writer, 7, 7);
    assert_int_equal(kith_get_at(w.index, &t, "7", v, DIM), 0);
    t = (struct kith_snapshot)KITH_SNAPSHOT_INIT;
    assert_int_equal(kith_exists_at(w.index, &t, "7"), 1);
    assert_int_equal(kith_exists_at(w.index, &s, "7"), 1);
    world_remove(&w);
}

/* Epoch 0 is not "now", but the moment at which there was nothing. */
static void a_snapshot_of_nothing_stays_one_of_nothing(void **state)
{
    (void)state;
    struct world w;
    struct kith_snapshot s;
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    uint64_t count = 1;
    test_dir_make_shm(&w.run);
    make_writer(&w.writer, &w.run, "c", 0);
    kithi_index_set_timeline(w.writer.ix, 7);
    w.index = open_in(&w.run);
    w.r = kith_results_new();
    assert_int_equal(kith_snapshot(w.index, &s), 0);
    assert_int_equal(s.epoch, 0);
    for (int i = 0; i < COUNT; i++)
        put(&w.writer, i, (float)i);
    assert_int_equal(kith_count_at(w.index, &s, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(kith_exists_at(w.index, &s, "3"), 0);
    opts.at = s;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), 0);
    assert_null(kith_results_cursor(w.r));
    char text[512];
    search(w.index, w.r, &s, false, 3, text);
    assert_string_equal(text, "");
    world_remove(&w);
}

/* A replay makes one group of several: no segment has ever shown what lay between them. */
static void epochs_that_a_replay_went_past_are_refused(void **state)
{
    (void)state;
    struct world w;
    struct kith_snapshot s, t;
    uint64_t count = 0;
    world_make(&w);
    assert_int_equal(kith_snapshot(w.index, &s), 0);
    for (unsigned round = 0; round < 2; round++) {
        struct kithi_op ops[3];
        struct kithi_group_result result;
        char ids[3][16];
        float v[DIM];
        uint64_t epoch = kithi_index_epoch(w.writer.ix);
        fill(v, 1000);
        for (uint32_t i = 0; i < 3; i++) {
            snprintf(ids[i], sizeof ids[i], "r%u-%u", round, i);
            ops[i] = test_upsert(ids[i], v, DIM);
        }
        assert_int_equal(kithi_group_add(w.writer.ix, ops, 3, &result, NULL), 0);
        test_solo_jobs(&w.writer);
        kithi_group_merged(w.writer.ix, epoch + 1, epoch + 3);
        kithi_group_publish(w.writer.ix, epoch + 3, w.writer.now_ms);
        t = s;
        t.epoch = epoch + 3;
        assert_int_equal(kith_count_at(w.index, &t, &count), 0);
        assert_int_equal(count, COUNT + 3 * (round + 1));
        for (t.epoch = epoch + 1; t.epoch < epoch + 3; t.epoch++)
            all_say(&w, &t, KITH_E_STALE);
    }
    assert_int_equal(kith_count_at(w.index, &s, &count), 0);
    assert_int_equal(count, COUNT);
    world_remove(&w);
}

struct threads {
    struct world *w;
    struct kith_snapshot at;
    _Atomic int bad;
};

static void *read_at(void *arg)
{
    struct threads *t = arg;
    kith_results *r = kith_results_new();
    float q[DIM];
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.at = t->at;
    for (int i = 0; r && i < 300; i++) {
        fill(q, (float)(i % COUNT));
        char id[16];
        snprintf(id, sizeof id, "%d", i % COUNT);
        int n = kith_search(t->w->index, q, DIM, 1, &opts, r);
        if (n != 1 || strcmp(kith_results_id(r, 0), id) != 0 || kith_exists_at(t->w->index, &t->at, id) != 1)
            atomic_fetch_add(&t->bad, 1);
    }
    kith_results_free(r);
    return NULL;
}

static void a_snapshot_is_a_value_for_threads_and_children(void **state)
{
    (void)state;
    struct world w;
    pthread_t thread[3];
    world_make(&w);
    struct threads t = { .w = &w };
    assert_int_equal(kith_snapshot(w.index, &t.at), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, read_at, &t), 0);
    change_everything(&w.writer);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct threads mine = { .w = &w, .at = t.at };
        read_at(&mine);
        _exit(atomic_load(&mine.bad) != 0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(atomic_load(&t.bad), 0);
    world_remove(&w);
}

/* Put the other writer's segment in the place of the collection's. */
static void switch_to(struct world *w, struct test_solo *next)
{
    char from[2 * TEST_PATH_SIZE], to[2 * TEST_PATH_SIZE];
    snprintf(from, sizeof from, "%s", next->path);
    snprintf(to, sizeof to, "%s", w->writer.path);
    assert_int_equal(rename(from, to), 0);
    kithi_index_mark_moved(w->writer.ix);
}

static void the_marks_of_a_new_generation_say_whether_a_snapshot_goes_on(void **state)
{
    (void)state;
    for (int lost = 0; lost < 2; lost++) {
        struct world w;
        struct test_solo next;
        struct kith_snapshot s;
        char text[512];
        world_make(&w);
        assert_int_equal(kith_snapshot(w.index, &s), 0);
        put(&w.writer, 3, 500);
        /* The same, as it would be copied with its epochs; what died before epoch 90 was not. */
        make_writer(&next, &w.run, "next", COUNT);
        put(&next, 3, 500);
        struct kithi_header *h = test_solo_header(&next);
        atomic_store(&h->timeline, s.timeline);
        atomic_store(&h->unlinked, lost ? s.epoch + 1 : 90);
        atomic_store(&h->reused, lost ? s.epoch + 1 : 90);
        switch_to(&w, &next);
        if (lost) {
            all_say(&w, &s, KITH_E_STALE);
        } else {
            search(w.index, w.r, &s, false, 3.1f, text);
            assert_int_equal(strncmp(text, "3:", 2), 0);
            struct kith_search_info info = KITH_SEARCH_INFO_INIT;
            kith_results_info(w.r, &info);
            assert_int_equal(info.generation_changed, 1);
            struct kith_snapshot old = { .epoch = 80, .timeline = s.timeline };
            all_say(&w, &old, KITH_E_STALE);
        }
        test_solo_close(&next);
        world_remove(&w);
    }
}

/* ---- scrolling ---- */

static void a_scroll_gives_every_id_once_with_its_vector(void **state)
{
    (void)state;
    struct world w;
    uint8_t seen[COUNT] = { 0 };
    char cursor[64] = "";
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    world_make(&w);
    opts.limit = 7;
    opts.vectors = 1;
    kith *mine = w.index;
    do {
        int n = kith_scroll(mine, cursor[0] ? cursor : NULL, &opts, w.r);
        assert_true(n >= 0 && n <= 7);
        assert_int_equal(kith_results_count(w.r), n);
        for (uint32_t i = 0; i < (uint32_t)n; i++) {
            int number = atoi(kith_results_id(w.r, i));
            seen[number]++;
            assert_true(kith_results_vector(w.r, i)[DIM - 1] == (float)number);
            assert_true(isnan(kith_results_distance(w.r, i)));
        }
        assert_null(kith_results_vector(w.r, (uint32_t)n));
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        assert_int_equal(kith_results_info(w.r, &info), 0);
        assert_int_equal(info.epoch, kith_epoch(w.index));
        const char *next = kith_results_cursor(w.r);
        assert_true(!next || strlen(next) == 48);
        snprintf(cursor, sizeof cursor, "%s", next ? next : "");
        if (mine != w.index)
            kith_close(mine);
        mine = open_in(&w.run); /* a cursor belongs to nobody */
    } while (cursor[0]);
    kith_close(mine);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(seen[i], 1);

    /* The cursor of the results that the next page goes to. */
    const char *own = NULL;
    uint32_t all = 0;
    do {
        int n = kith_scroll(w.index, own, &opts, w.r);
        assert_true(n >= 0);
        all += (uint32_t)n;
        own = kith_results_cursor(w.r);
    } while (own);
    assert_int_equal(all, COUNT);

    /* Without options it is one page, without vectors. */
    assert_int_equal(kith_scroll(w.index, NULL, NULL, w.r), COUNT);
    assert_null(kith_results_cursor(w.r));
    assert_null(kith_results_vector(w.r, 0));
    /* A search into the same results leaves nothing of a page. */
    opts.limit = 10;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), 10);
    assert_non_null(kith_results_cursor(w.r));
    char text[512];
    search(w.index, w.r, &opts.at, false, 1, text);
    assert_null(kith_results_cursor(w.r));
    assert_null(kith_results_vector(w.r, 0));
    world_remove(&w);
}

static void what_is_no_cursor_of_the_collection_is_refused(void **state)
{
    (void)state;
    struct world w;
    struct test_solo other;
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    char good[64], bad[64];
    world_make(&w);
    opts.limit = 10;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), 10);
    snprintf(good, sizeof good, "%s", kith_results_cursor(w.r));
    static const char *const texts[] = { "",
                                         "1",
                                         "next",
                                         "0x12",
                                         "000000000000000000000000000000000000000000000000",
                                         "ffffffffffffffffffffffffffffffffffffffffffffffff" };
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(kith_scroll(w.index, texts[i], &opts, w.r), KITH_E_CURSOR);
        assert_int_equal(kith_results_count(w.r), 0);
        assert_null(kith_results_cursor(w.r));
    }
    for (unsigned i = 0; i < 48; i++) {
        snprintf(bad, sizeof bad, "%s", good);
        bad[i] = bad[i] == '0' ? '1' : '0';
        assert_int_equal(kith_scroll(w.index, bad, &opts, w.r), KITH_E_CURSOR);
        bad[i] = '\0'; /* cut off */
        assert_int_equal(kith_scroll(w.index, bad, &opts, w.r), KITH_E_CURSOR);
        bad[i] = 'G';
        assert_int_equal(kith_scroll(w.index, bad, &opts, w.r), KITH_E_CURSOR);
    }
    memcpy(bad, good, 48);
    memcpy(bad + 48, "0", 2);
    assert_int_equal(kith_scroll(w.index, bad, &opts, w.r), KITH_E_CURSOR);
    assert_true(strstr(kith_strerror(KITH_E_CURSOR), "cursor") != NULL);
    assert_int_equal(kith_scroll(w.index, good, &opts, w.r), 10);

    /* Of a collection that differs in nothing but its uid. */
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4096);
    struct test_dir folder = { 0 };
    assert_true(snprintf(folder.path, sizeof folder.path, "%s/o", w.run.path) < (int)sizeof folder.path);
    assert_int_equal(mkdir(folder.path, 0750), 0);
    test_solo_open_in(&other, &g, &folder);
    put(&other, 1, 1);
    test_solo_header(&other)->uid[3] ^= 1;
    kith *index = NULL;
    assert_int_equal(kith_open(other.path, NULL, &index), 0);
    assert_int_equal(kith_scroll(index, good, &opts, w.r), KITH_E_CURSOR);
    assert_int_equal(kith_scroll(index, NULL, &opts, w.r), 1);
    kith_close(index);
    test_solo_close(&other);

    opts.limit = 65537;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), KITH_E_PARAMETER);
    opts.limit = 65536;
    opts.vectors = 1;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), COUNT);
    opts.vectors = 2;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), -EINVAL);
    opts.vectors = 0;
    opts.payloads = 2;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), -EINVAL);
    assert_int_equal(kith_scroll(NULL, NULL, NULL, w.r), -EINVAL);
    assert_int_equal(kith_scroll(w.index, NULL, NULL, NULL), -EINVAL);
    world_remove(&w);
}

static void a_scroll_goes_on_in_the_next_generation(void **state)
{
    (void)state;
    struct world w;
    struct test_solo next;
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    uint8_t seen[COUNT] = { 0 };
    char cursor[64];
    world_make(&w);
    make_writer(&next, &w.run, "next", 0);
    for (int i = COUNT; i-- > 0;)
        put(&next, i, (float)i);
    for (int i = 0; i < 2000; i++) /* a larger table */
        put(&next, 10000 + i, 5);
    opts.limit = 30;
    assert_int_equal(kith_scroll(w.index, NULL, &opts, w.r), 30);
    bool more = true;
    for (bool first = true; more; first = false) {
        for (uint32_t i = 0; i < kith_results_count(w.r); i++) {
            int number = atoi(kith_results_id(w.r, i));
            if (number < COUNT)
                seen[number]++;
        }
        more = kith_results_cursor(w.r) != NULL;
        if (!more)
            break;
        snprintf(cursor, sizeof cursor, "%s", kith_results_cursor(w.r));
        if (first)
            switch_to(&w, &next);
        assert_true(kith_scroll(w.index, cursor, &opts, w.r) >= 0);
    }
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(seen[i], 1);
    test_solo_close(&next);
    world_remove(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_visible_is_found_again_until_it_is_gone),
        cmocka_unit_test(additions_leave_a_snapshot_alone),
        cmocka_unit_test(a_snapshot_of_what_was_all_deleted_is_whole_or_stale),
        cmocka_unit_test(other_timelines_and_later_epochs_are_refused),
        cmocka_unit_test(a_snapshot_of_nothing_stays_one_of_nothing),
        cmocka_unit_test(epochs_that_a_replay_went_past_are_refused),
        cmocka_unit_test(a_snapshot_is_a_value_for_threads_and_children),
        cmocka_unit_test(the_marks_of_a_new_generation_say_whether_a_snapshot_goes_on),
        cmocka_unit_test(a_scroll_gives_every_id_once_with_its_vector),
        cmocka_unit_test(what_is_no_cursor_of_the_collection_is_refused),
        cmocka_unit_test(a_scroll_goes_on_in_the_next_generation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
