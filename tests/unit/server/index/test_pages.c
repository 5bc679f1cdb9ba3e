/*
 * test_pages.c - huge pages are asked for where memory is taken whole, change nothing that anybody reads,
 * and are done without where the kernel refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "shm/graph/account.h"
#include "shm/graph/search.h"
#include "tests/support/child.h"
#include "tests/support/solo.h"

#define BLOCK     KITHI_REGION_ALIGN
#define DIM       4096u /* 16 KiB a vector: */
#define PER_BLOCK 128u
#define VECTORS   (4 * PER_BLOCK + 16) /* four blocks of vectors, and a part of one */
#define WAIT_MS   60000u

static struct test_solo solo;

/* Points of a grid, so that the graph finds each. */
static void vector_of(uint32_t i, float *v)
{
    for (uint32_t d = 0; d < DIM; d++)
        v[d] = (float)(d % 2 ? i / 23 : i % 23);
}

static void fill(uint32_t from, uint32_t to)
{
    static float v[DIM];
    for (uint32_t i = from; i < to; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, v);
        assert_int_equal(test_solo_put(&solo, id, v), 0);
    }
}

static int set_up(void **state)
{
    (void)state;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 10000);
    g.m = 4; /* the graph is not what is tested */
    g.ef_construction = 16;
    unsetenv("KITH_FAULT");
    test_solo_open(&solo, &g);
    fill(0, VECTORS);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_solo_close(&solo);
    return 0;
}

/* One round; returns its jobs. */
static uint32_t ask(uint32_t *out_wait_ms)
{
    uint32_t n = kithi_pages_begin(solo.ix, solo.now_ms, out_wait_ms);
    for (uint32_t i = 0; i < n; i++)
        kithi_pages_job(solo.ix, i);
    if (n)
        kithi_pages_end(solo.ix, solo.now_ms);
    return n;
}

static struct kithi_pages_state now(void)
{
    struct kithi_pages_state s;
    kithi_pages_state(solo.ix, &s);
    return s;
}

/* Ask for everything, or leave the test where the kernel says no. */
static void ask_for_all(void)
{
    uint32_t wait_ms;
    while (ask(&wait_ms)) {
    }
    struct kithi_pages_state s = now();
    if (s.huge_bytes < s.wanted_bytes) {
        print_message("skipped: this kernel gives no huge pages here: %s\n", kithi_error_text(s.refusal));
        skip();
    }
}

/* Bytes that the mapping around at maps by huge pages, or -1 when the system does not say. */
static long huge_mapped(const void *at)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512];
    bool inside = false;
    long kib, found = -1;
    while (f && fgets(line, sizeof line, f)) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2)
            inside = (uintptr_t)at >= begin && (uintptr_t)at < end;
        else if (inside && sscanf(line, "ShmemPmdMapped: %ld kB", &kib) == 1)
            found = kib * 1024;
    }
    if (f)
        fclose(f);
    return found;
}

/* Ask for everything, or leave the test where nothing comes of it: an emulator may say yes to anything. What writer and
 * reader then map of the vectors by huge pages. */
static void ask_for_all_in_earnest(long *out_writer, long *out_reader)
{
    struct kithi_map map;
    struct kithi_errmsg err;
    ask_for_all();
    size_t at = test_solo_map(&solo)->layout.off[KITHI_REGION_VECTORS];
    assert_int_equal(kithi_map_attach_path(solo.path, false, &map, &err), 0);
    kithi_map_prefault(&map);
    *out_writer = huge_mapped(test_solo_map(&solo)->base + at);
    *out_reader = huge_mapped(map.base + at);
    kithi_map_detach(&map);
    if (*out_writer <= 0 && *out_reader <= 0) {
        print_message("skipped: an emulator grants huge pages, or hides them in /proc/self/smaps\n");
        skip();
    }
}

static void a_block_is_asked_for_once_it_is_taken_whole(void **state)
{
    (void)state;
    struct test_solo small;
    struct kithi_geometry g = test_geometry(4, KITHI_METRIC_L2, 1000);
    uint32_t wait_ms = 1;
    float v[4] = { 1 };
    test_solo_open(&small, &g);
    assert_int_equal(test_solo_put(&small, "a", v), 0);
    assert_int_equal(kithi_pages_begin(small.ix, 0, &wait_ms), 0);
    assert_int_equal(wait_ms, UINT32_MAX);
    assert_int_equal(test_solo_header(&small)->tally_huge_wanted, 0);
    test_solo_close(&small);

    assert_int_equal(ask(&wait_ms), 4);
    assert_int_equal(now().wanted_bytes, 4 * BLOCK);
    if (!now().refusal)
        assert_int_equal(ask(&wait_ms), 0);
    fill(VECTORS, 5 * PER_BLOCK);
    solo.now_ms += 1000;
    assert_int_equal(ask(&wait_ms), now().refusal ? 5 : 1);
    assert_int_equal(now().wanted_bytes, 5 * BLOCK);
    assert_true(test_solo_clean(&solo));
}

static void asking_takes_no_memory(void **state)
{
    (void)state;
    uint64_t before = test_file_blocks(solo.path);
    ask_for_all();
    assert_int_equal(test_file_blocks(solo.path), before);
}

static void writer_and_reader_map_what_was_granted_by_huge_pages(void **state)
{
    (void)state;
    long writer, reader;
    ask_for_all_in_earnest(&writer, &reader);
    assert_int_equal(writer, 4 * BLOCK);
    assert_int_equal(reader, 4 * BLOCK);
}

struct watch {
    atomic_uint rounds; /* that the reader has been through */
    atomic_bool enough;
};

static bool finds(const struct kithi_map *map, struct kithi_scratch *scratch, struct kithi_results *results,
                  uint32_t i)
{
    static float q[DIM];
    char id[16];
    struct kithi_search_params p = { .k = 1, .ef = 64 };
    snprintf(id, sizeof id, "%u", i);
    vector_of(i, q);
    return kithi_search(map, scratch, q, &p, results) == 1 && results->hits[0].distance == 0 &&
           strcmp(results->ids + results->hits[0].id_off, id) == 0;
}

/* Another process: every vector is its own nearest neighbour, whatever pages it is on. */
static int reader(void *arg)
{
    struct watch *w = arg;
    struct kithi_map map;
    struct kithi_scratch scratch;
    struct kithi_results results;
    struct kithi_errmsg err;
    if (kithi_map_attach_path(solo.path, false, &map, &err) < 0)
        return 2;
    kithi_scratch_init(&scratch);
    kithi_results_init(&results);
    int status = 0;
    while (!atomic_load(&w->enough) && status == 0) {
        for (uint32_t i = 0; i < VECTORS && status == 0; i += 37)
            status = finds(&map, &scratch, &results, i) ? 0 : 1;
        atomic_fetch_add(&w->rounds, 1);
    }
    kithi_results_fini(&results);
    kithi_scratch_fini(&scratch);
    kithi_map_detach(&map);
    return status;
}

static void wait_for_round(struct watch *w, const struct test_child *child)
{
    uint64_t until = test_now_ms() + WAIT_MS;
    for (unsigned seen = atomic_load(&w->rounds); atomic_load(&w->rounds) < seen + 2; test_nap())
        if (!test_child_running(child) || test_now_ms() > until)
            fail_msg("the reader has stopped");
}

static void contents_stay_while_others_search(void **state)
{
    (void)state;
    const struct kithi_layout *l = &test_solo_map(&solo)->layout;
    size_t len = 4 * BLOCK;
    unsigned char *before = malloc(len), *after = malloc(len);
    struct watch *w = test_shared(sizeof *w);
    struct test_child child;
    uint32_t wait_ms;
    int fd = open(solo.path, O_RDONLY | O_CLOEXEC);
    assert_non_null(before);
    assert_non_null(after);
    assert_int_equal(pread(fd, before, len, (off_t)l->off[KITHI_REGION_VECTORS]), len);
    test_child_start(&child, "reader", reader, w);
    wait_for_round(w, &child);
    while (ask(&wait_ms)) {
    }
    wait_for_round(w, &child);
    atomic_store(&w->enough, true);
    assert_int_equal(test_child_wait(&child, WAIT_MS), 0);
    assert_int_equal(pread(fd, after, len, (off_t)l->off[KITHI_REGION_VECTORS]), len);
    assert_memory_equal(before, after, len);
    assert_memory_equal(before, test_solo_map(&solo)->base + l->off[KITHI_REGION_VECTORS], len);
    assert_true(test_solo_clean(&solo));
    close(fd);
    free(before);
    free(after);
}

static void a_refusal_is_followed_by_rarer_and_rarer_passes(void **state)
{
    (void)state;
    uint32_t wait_ms;
    setenv("KITH_FAULT",
           "collapse-refused:1,collapse-refused:2,collapse-refused:3,"
           "collapse-refused:4,collapse-refused:5,collapse-refused:6,collapse-refused:8",
           1);
    /* Three in a row end the pass: the fourth block is not tried. */
    assert_int_equal(ask(&wait_ms), 4);
    assert_int_equal(now().huge_bytes, 0);
    assert_int_equal(now().wanted_bytes, 4 * BLOCK);
    assert_int_equal(now().refusal, -ENOMEM);
    assert_int_equal(ask(&wait_ms), 0);
    assert_int_equal(wait_ms, 1000);
    solo.now_ms += 999;
    assert_int_equal(ask(&wait_ms), 0);
    assert_int_equal(wait_ms, 1);
    solo.now_ms += 1;
    assert_int_equal(ask(&wait_ms), 4);
    assert_int_equal(ask(&wait_ms), 0);
    assert_int_equal(wait_ms, 2000);
    assert_true(finds(test_solo_map(&solo), &solo.scratch, &solo.results, 5));
    fill(VECTORS, VECTORS + 1);

    /* One refusal among successes leaves one block for the pass after. */
    solo.now_ms += 2000;
    assert_int_equal(ask(&wait_ms), 4);
    unsetenv("KITH_FAULT");
    assert_int_equal(ask(&wait_ms), 0);
    if (now().huge_bytes == 0) {
        print_message("skipped: this kernel gives no huge pages here: %s\n", kithi_error_text(now().refusal));
        skip();
    }
    assert_int_equal(now().huge_bytes, 3 * BLOCK);
    assert_int_equal(now().refusal, -ENOMEM);
    assert_int_equal(wait_ms, 4000);
    solo.now_ms += 4000;
    assert_int_equal(ask(&wait_ms), 4);
    assert_int_equal(now().huge_bytes, 4 * BLOCK);
    assert_int_equal(now().refusal, 0);
    assert_int_equal(ask(&wait_ms), 0);
    assert_int_equal(wait_ms, UINT32_MAX);
}

static void an_adopted_segment_is_asked_for_from_its_begin(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    uint32_t wait_ms;
    uint64_t huge = 0;
    for (unsigned life = 0; life < 2; life++) {
        assert_int_equal(ask(&wait_ms), 4);
        assert_true(now().huge_bytes >= huge);
        huge = now().huge_bytes;
        test_solo_leave(&solo);
        assert_int_equal(test_solo_adopt(&solo, &err), 0);
        assert_int_equal(now().huge_bytes, huge);
    }
}

static void small_pages_can_be_asked_for(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    uint32_t wait_ms = 1;
    test_solo_leave(&solo);
    solo.tuning.small_pages = true;
    assert_int_equal(test_solo_adopt(&solo, &err), 0);
    assert_int_equal(ask(&wait_ms), 0);
    assert_int_equal(wait_ms, UINT32_MAX);
    assert_int_equal(now().wanted_bytes, 4 * BLOCK);
    assert_int_equal(now().huge_bytes, 0);
}

static void retiring_a_segment_gives_huge_pages_back(void **state)
{
    (void)state;
    uint32_t wait_ms;
    while (ask(&wait_ms)) {
    }
    assert_true(test_file_blocks(solo.path) > 4 * BLOCK);
    assert_int_equal(kithi_segment_retire(solo.path), 0);
    assert_int_equal(test_file_blocks(solo.path), KITHI_HEADER_SIZE);
}

/* Ask while one more vector is staged, as the daemon does. */
static void ask_while_inserting(uint32_t i)
{
    static float v[DIM];
    char id[16];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    uint32_t wait_ms;
    snprintf(id, sizeof id, "%u", i);
    vector_of(i, v);
    struct kithi_op op = test_upsert(id, v, DIM);
    assert_int_equal(kithi_group_add(solo.ix, &op, 1, &result, &err), 0);
    while (ask(&wait_ms)) {
    }
    test_solo_jobs(&solo);
    test_solo_publish(&solo);
}

/* Every byte of the file, filled ahead or not. */
static void assert_accounted(void)
{
    struct kithi_account a;
    kithi_account_read(test_solo_map(&solo), (uint64_t)sysconf(_SC_PAGESIZE), &a);
    assert_int_equal(a.all.taken + a.all.ahead, test_file_blocks(solo.path));
}

static uint64_t taken_vectors(void)
{
    return atomic_load(&test_solo_header(&solo)->taken[KITHI_REGION_VECTORS]);
}

static void the_next_step_of_a_region_that_grows_is_filled_before_it_is_taken(void **state)
{
    (void)state;
    enum { LARGE = 8 * PER_BLOCK + 40 }; /* grows by a block at once, and has room for a while */
    uint32_t next = LARGE;
    long writer, reader;
    fill(VECTORS, LARGE);
    ask_for_all_in_earnest(&writer, &reader);
    /* Large, but nothing says that it grows. */
    uint64_t before = test_file_blocks(solo.path), taken = taken_vectors();
    ask_while_inserting(next++);
    assert_int_equal(test_file_blocks(solo.path), before);

    while (taken_vectors() == taken)
        fill(next, next + 1), next++;
    ask_for_all();
    before = test_file_blocks(solo.path), taken = taken_vectors();
    uint32_t wait_ms;
    assert_int_equal(ask(&wait_ms), 0); /* nor without insertions */
    assert_int_equal(test_file_blocks(solo.path), before);
    ask_while_inserting(next++);
    uint64_t filled = test_file_blocks(solo.path);
    assert_int_equal(filled, before + taken / 8 / BLOCK * BLOCK);
    assert_accounted();
    /* Whoever adopts the segment knows of it. */
    struct kithi_errmsg err;
    test_solo_leave(&solo);
    assert_int_equal(test_solo_adopt(&solo, &err), 0);
    assert_int_equal(test_file_blocks(solo.path), filled);
    assert_accounted();
    assert_int_equal(taken_vectors(), taken); /* it is nobody's yet */
    ask_while_inserting(next++);
    assert_int_equal(test_file_blocks(solo.path), filled); /* one step */

    /* It is taken without another page for the vectors, and counts as huge then. */
    while (taken_vectors() == taken)
        fill(next, next + 1), next++;
    assert_true(test_file_blocks(solo.path) < filled + BLOCK);
    assert_accounted();
    ask_for_all();
    assert_int_equal(now().huge_bytes, now().wanted_bytes);
    assert_accounted();
    for (uint32_t i = 0; i < next; i += 97)
        assert_true(finds(test_solo_map(&solo), &solo.scratch, &solo.results, i));
    assert_true(test_solo_clean(&solo));
}

#ifdef KITH_FAULT_POINTS
static void what_cannot_be_filled_ahead_is_taken_as_ever(void **state)
{
    (void)state;
    uint32_t next = VECTORS;
    long writer, reader;
    fill(next, 8 * PER_BLOCK + 40);
    ask_for_all_in_earnest(&writer, &reader);
    ask_while_inserting(next = 8 * PER_BLOCK + 40);
    uint64_t taken = taken_vectors();
    for (next++; taken_vectors() == taken; next++)
        fill(next, next + 1);
    setenv("KITH_FAULT", "collapse-refused", 1);
    taken = taken_vectors();
    ask_while_inserting(next++);
    assert_accounted(); /* nothing is left of what could not be filled */
    for (; taken_vectors() == taken; next++)
        fill(next, next + 1);
    unsetenv("KITH_FAULT");
    ask_while_inserting(next++); /* not again at once */
    solo.now_ms += 10000;
    uint64_t before = test_file_blocks(solo.path);
    ask_while_inserting(next++);
    assert_true(test_file_blocks(solo.path) >= before + BLOCK);
    assert_accounted();
    for (uint32_t i = 0; i < next; i += 97)
        assert_true(finds(test_solo_map(&solo), &solo.scratch, &solo.results, i));
    assert_true(test_solo_clean(&solo));
}
#endif

#define PAGES_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAGES_TEST(a_block_is_asked_for_once_it_is_taken_whole),
        PAGES_TEST(asking_takes_no_memory),
        PAGES_TEST(writer_and_reader_map_what_was_granted_by_huge_pages),
        PAGES_TEST(contents_stay_while_others_search),
        PAGES_TEST(a_refusal_is_followed_by_rarer_and_rarer_passes),
        PAGES_TEST(an_adopted_segment_is_asked_for_from_its_begin),
        PAGES_TEST(small_pages_can_be_asked_for),
        PAGES_TEST(the_next_step_of_a_region_that_grows_is_filled_before_it_is_taken),
#ifdef KITH_FAULT_POINTS
        PAGES_TEST(what_cannot_be_filled_ahead_is_taken_as_ever),
#endif
        PAGES_TEST(retiring_a_segment_gives_huge_pages_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
