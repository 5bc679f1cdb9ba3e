/*
 * test_postings.c - postings lead to everything that fulfils a filter, at each epoch that a reader may still see, whatever becomes of
 * payloads, slots, terms and owners; and bytes that anybody made lead to an end.
 */
#include "shm/postings/postings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/index/copy.h"
#include "server/index/enlarge.h"
#include "server/index/index_priv.h"
#include "shm/graph/match.h"
#include "shm/graph/payload.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM     2u
#define IDS     60u
#define OPS_MAX 8u
#define FIELDS  16u /* of random_payload() */

static const char *const texts[] = {
    "lang = \"L1\"",
    "lang in (\"L1\", \"L3\", \"nobody\")",
    "n = 5",
    "n < 10",
    "n > 5 and n <= 8",
    "n >= 40 and lang = \"L2\"",
    "tags = \"t1\"",
    "tags in (\"t0\", \"t2\") or n = 3",
    "flag = true",
    "exists(rare)",
    "exists(of)",
    "lang != \"L1\"",
    "n not in (1, 2, 3)",
    "prefix(lang, \"L\")",
    "lang >= \"L5\"",
    "(lang = \"L1\" or wide > 0) and n < 30",
    "score < 0.25",
    "wide >= 4611686018427387904",
    "of.n = 3",
    "mixed = 3",
    "mixed = \"x\" and n < 25",
    "many = 5",
    "not lang = \"L1\" and n = 7",
    "not lang = \"L1\"",
    "nowhere = 1",
    "n != 5",
    "n not in (1, 2, 3) and flag != true",
    "lang not in (\"L1\", \"L2\")",
    "prefix(lang, \"L3\")",
    "lang < \"L3\"",
    "lang > \"L3\" and lang <= \"L5\"",
    "not (lang = \"L1\" or not n = 7)",
    "not (not lang = \"L2\" and not n < 3)",
    "title = \"abcdef3\"",
    "title != \"abcde\"",
    "title != \"abcdef3\"",
    "title not in (\"abcde\", \"abcdef3\", \"a\")",
    "prefix(title, \"\")",
    "prefix(title, \"ab\")",
    "prefix(title, \"abcde\")",
    "prefix(title, \"abcdef\")",
    "title < \"abcdef3\"",
    "title <= \"abcde\"",
    "title < \"abcde\"",
    "title > \"abcde\"",
    "title > \"abcdef\"",
    "title >= \"abd\"",
    "title > \"\\u0000\"",
};
#define TEXTS (sizeof texts / sizeof *texts)
/* Of them those that few values decide: once everything has rested, candidates are the matches. */
#define EXACT 8u

static struct kithi_filter *filters[TEXTS];
static struct kithi_candidates candidates;
static struct test_rand r;

/* ---- payloads ---- */

/* A text with at most one number; the number as %lld. */
static size_t KITHI_PRINTF(4, 5) add(char *out, size_t cap, size_t at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    at += (size_t)vsnprintf(out + at, cap - at, fmt, ap);
    va_end(ap);
    return at;
}

static struct kithi_payload random_payload(void)
{
    char json[2048] = "{\"always\":1";
    size_t at = strlen(json), cap = sizeof json;
    if (test_rand_below(&r, 8))
        at = add(json, cap, at, ",\"lang\":\"L%u\"", test_rand_below(&r, 7));
    if (test_rand_below(&r, 8))
        at = add(json, cap, at, ",\"n\":%u", test_rand_below(&r, 50));
    if (test_rand_below(&r, 2))
        at = add(json, cap, at, ",\"tags\":[\"t%u\",\"x\",\"t0\"]", test_rand_below(&r, 4));
    if (test_rand_below(&r, 2))
        at = add(json, cap, at, ",\"flag\":%s", test_rand_below(&r, 2) ? "true" : "false");
    if (test_rand_below(&r, 10) == 0)
        at = add(json, cap, at, ",\"rare\":1");
    /* Strings that are a head, begin with one, or stand beside one in their order. */
    static const char *const titles[] = { "",
                                          "a",
                                          "ab",
                                          "abc",
                                          "abcd",
                                          "abcdd~",
                                          "abcde",
                                          "abcdef",
                                          "abcdef3",
                                          "abcdef34",
                                          "abcdf",
                                          "abd",
                                          "b",
                                          "\\u0000",
                                          "ab\\u0000",
                                          "abcde\\u0000",
                                          "\xc3\xbf\xc3\xbf\xc3\xbf" };
    if (test_rand_below(&r, 4))
        at = add(json, cap, at, ",\"title\":\"%s\"",
                 titles[test_rand_below(&r, sizeof titles / sizeof *titles)]);
    if (test_rand_below(&r, 2))
        at = add(json, cap, at, ",\"wide\":%lld", (long long)(test_rand_u64(&r) >> test_rand_below(&r, 40)));
    if (test_rand_below(&r, 2))
        at = add(json, cap, at, ",\"score\":0.%06u", test_rand_below(&r, 1000000));
    if (test_rand_below(&r, 3) == 0)
        at = add(json, cap, at, ",\"of\":{\"n\":%u,\"deep\":{\"er\":[]}}", test_rand_below(&r, 5));
    switch (test_rand_below(&r, 8)) {
    case 0: at = add(json, cap, at, ",\"mixed\":%u", test_rand_below(&r, 5)); break;
    case 1: at = add(json, cap, at, ",\"mixed\":\"x\""); break;
    case 2: at = add(json, cap, at, ",\"mixed\":null"); break;
    case 3: at = add(json, cap, at, ",\"mixed\":{\"a\":1}"); break;
    default: break;
    }
    if (test_rand_below(&r, 12) == 0) {
        at = add(json, cap, at, ",\"many\":[%u", test_rand_below(&r, 100));
        for (uint32_t i = 0; i < 70; i++)
            at = add(json, cap, at, ",%u", test_rand_below(&r, 100));
        at = add(json, cap, at, "]");
    }
    (void)add(json, cap, at, "}");
    return test_payload(json);
}

static void random_group(struct test_solo *t)
{
    struct kithi_op ops[OPS_MAX];
    struct kithi_payload payloads[OPS_MAX];
    char ids[OPS_MAX][8];
    float vectors[OPS_MAX][DIM];
    uint32_t n = 1 + test_rand_below(&r, OPS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(ids[i], sizeof ids[i], "%u", test_rand_below(&r, IDS));
        test_rand_floats(&r, vectors[i], DIM);
        payloads[i] = random_payload();
        uint32_t what = test_rand_below(&r, 8);
        ops[i] = what == 0 ? test_delete(ids[i]) : test_upsert(ids[i], vectors[i], DIM);
        if (what >= 4)
            ops[i] = (struct kithi_op){ .type = KITHI_OP_SET, .id = ids[i], .id_len = ops[i].id_len };
        if (what == 0 || what == 1)
            continue; /* keeps the payload */
        if (what < 4)
            ops[i].flags = KITHI_OP_PAYLOAD;
        ops[i].payload = payloads[i].bytes;
        ops[i].payload_len = payloads[i].len;
    }
    assert_int_equal(test_solo_commit(t, ops, n), 0);
    for (uint32_t i = 0; i < n; i++)
        test_payload_free(&payloads[i]);
}

/* ---- what readers see ---- */

static bool is_candidate(uint32_t slot)
{
    return kithi_candidates_next(&candidates, slot) == slot;
}

/* For a view begun a while ago, perhaps. Returns whether postings said anything. */
static bool check_view(const struct kithi_view *v, bool exact)
{
    static unsigned char payload[KITHI_PAYLOAD_BYTES];
    bool any = false;
    for (size_t i = 0; i < TEXTS; i++) {
        struct kithi_match_bounds bounds;
        uint64_t matches = 0;
        kithi_postings_bounds(v, filters[i], &bounds);
        int rc = kithi_candidates_find(v, filters[i], &candidates);
        assert_true(rc >= 0);
        assert_int_equal(candidates.known, rc);
        assert_true(bounds.least == 0 && bounds.most <= v->slots_used);
        any |= rc == 1;
        if (strncmp(texts[i], "not lang = \"L1\"", 16) == 0)
            assert_int_equal(rc, 0); /* what is not so is never known */
        for (uint32_t slot = 0; slot < v->slots_used; slot++) {
            struct kithi_filter_look look = { 0 };
            struct kithi_payload p = { .bytes = payload };
            uint64_t birth;
            if (!kithi_view_visible(v, kithi_view_record(v, slot), &birth))
                continue;
            enum kithi_payload_seen seen = kithi_view_payload(v, slot, birth, payload, &p.len);
            if (seen == KITHI_PAYLOAD_AGAIN)
                continue; /* it has gone: so old is the view */
            if (seen == KITHI_PAYLOAD_NONE)
                p.len = 0;
            rc = kithi_filter_eval(filters[i], &p, &look);
            /* Types that do not go together are found, but where another condition, joined by `and`, has spared the look at them. */
            if (rc < 0 && strstr(texts[i], " and "))
                continue;
            matches += rc != 0;
            if (rc != 0 && !is_candidate(slot))
                fail_msg("%s: slot %u fulfils it at epoch %llu and is no candidate", texts[i], slot,
                         (unsigned long long)v->epoch);
        }
        if (bounds.known && bounds.most < matches)
            fail_msg("%s: %llu fulfil it, %llu at most", texts[i], (unsigned long long)matches,
                     (unsigned long long)bounds.most);
        /* A field that no payload has yet may be one beyond those that are kept: nothing is known of it. */
        bool whole = candidates.fields == (UINT64_C(1) << filters[i]->field_count) - 1;
        if (exact && i < EXACT && candidates.known && whole && candidates.count != matches)
            fail_msg("%s: %llu fulfil it, %llu are candidates", texts[i], (unsigned long long)matches,
                     (unsigned long long)candidates.count);
    }
    return any;
}

static bool check_now(const struct test_solo *t, bool exact)
{
    struct kithi_view v;
    kithi_view_begin(test_solo_map(t), &v);
    return check_view(&v, exact);
}

static void begin(struct test_solo *t)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4000);
    test_solo_open(t, &g);
}

/* Sweep until postings are whole and everything has rested. */
static void settle(struct test_solo *t)
{
    for (unsigned i = 0; i < 8 || t->ix->old_payloads.count; i++)
        (void)test_solo_sweep(t, 1000);
    test_solo_settle(t);
    assert_true(kithi_postings_whole(atomic_load(&test_solo_header(t)->postings)));
}

/* ---- the tests ---- */

static void candidates_hold_every_match_of_each_view(void **state)
{
    (void)state;
    enum { OLD = 6 };
    struct test_solo t;
    struct kithi_view old[OLD];
    uint32_t fresh = 0, stale = 0;
    begin(&t);
    for (unsigned i = 0; i < (test_long() ? 4000 : 300); i++) {
        kithi_view_begin(test_solo_map(&t), &old[i % OLD]);
        random_group(&t);
        if (i < OLD)
            continue;
        (void)test_solo_sweep(&t, 20 + test_rand_below(&r, 200));
        assert_true(check_now(&t, false));
        for (uint32_t n = 0; n < OLD; n++) {
            if (kithi_postings_fresh(&old[n])) {
                (void)check_view(&old[n], false); /* there may have been no field yet */
                fresh++;
            } else {
                assert_false(check_view(&old[n], false));
                stale++;
            }
        }
        if (i % 50 == 49) {
            settle(&t);
            assert_true(check_now(&t, true));
            assert_true(test_solo_clean(&t));
            kithi_view_begin(test_solo_map(&t), &old[i % OLD]);
        }
    }
    assert_true(fresh > 50 && stale > 50);
    test_solo_close(&t);
}

static void a_moment_in_the_past_is_not_asked_of_postings(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_view v;
    begin(&t);
    for (unsigned i = 0; i < 10; i++)
        random_group(&t);
    const struct kithi_moment at = { 1, atomic_load(&test_solo_header(&t)->timeline) };
    assert_int_equal(kithi_view_begin_at(test_solo_map(&t), &at, &v), 0);
    assert_int_equal(kithi_candidates_find(&v, filters[0], &candidates), 0);
    assert_int_equal(kithi_candidates_next(&candidates, 0), 0);
    test_solo_close(&t);
}

/* An owner makes them anew; until they are whole they say nothing, also to those who began before. */
static void an_owner_makes_postings_anew(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_view before;
    begin(&t);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 30; i++) {
            random_group(&t);
            (void)test_solo_sweep(&t, 60);
        }
        kithi_view_begin(test_solo_map(&t), &before);
        test_solo_leave(&t);
        assert_int_equal(round % 2 ? test_solo_adopt(&t, &err) : test_solo_adopt_only(&t, &err), 0);
        assert_false(check_now(&t, false));
        before.map = test_solo_map(&t);
        before.header = test_solo_header(&t);
        assert_false(kithi_postings_fresh(&before));
        random_group(&t); /* published while there is something to be made still */
        assert_false(check_now(&t, false));
        (void)test_solo_sweep(&t, 1);
        assert_true(check_now(&t, false));
        assert_false(kithi_postings_fresh(&before));
        assert_int_equal(test_solo_census(&t, &err), 0);
        settle(&t);
        assert_true(check_now(&t, true));
        assert_true(test_solo_clean(&t));
    }
    test_solo_close(&t);
}

static void a_larger_segment_makes_them_anew(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_index *next;
    struct kithi_enlarge *e;
    char path[3 * TEST_PATH_SIZE];
    begin(&t);
    for (unsigned i = 0; i < 100; i++)
        random_group(&t);
    struct kithi_index_identity id = t.identity;
    id.geometry.slot_max *= 2;
    snprintf(path, sizeof path, "%s.next", t.path);
    assert_int_equal(kithi_index_create(path, &id, 2, &t.tuning, &next, &err), 0);
    assert_int_equal(kithi_enlarge_new(&test_solo_map(&t)->geometry, next, &e, &err), 0);
    assert_int_equal(kithi_enlarge_begin(e, t.ix, &err), 0);
    for (uint32_t n; (n = kithi_enlarge_collect(e, 100)) != 0 && !kithi_enlarge_is_near(e);) {
        for (uint32_t i = 0; i < n; i++)
            kithi_enlarge_job(e, i);
        random_group(&t);
    }
    assert_true(check_now(&t, false));
    assert_int_equal(kithi_enlarge_finish(e, &err), 0);
    assert_false(kithi_postings_whole(atomic_load(&kithi_map_header(kithi_index_map(next))->postings)));
    kithi_enlarge_swap(e);
    assert_false(check_now(&t, false));
    random_group(&t);
    settle(&t);
    assert_true(check_now(&t, true));
    kithi_enlarge_end(e);
    kithi_index_close(next);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* ---- what was declared ---- */

/* Types that the values of random_payload() have, and some that they have not. */
static const char *const declarations[] = {
    "auto",
    "lang:keyword,n:integer,tags:keyword,flag:bool,title:keyword,of.n:number,mixed:integer",
    "lang:integer,n:bool,tags:number,flag:keyword,score:integer,many:keyword,title:bool,of:number,wide:number",
    "none",
    "of.n:integer,many:integer,mixed:keyword,score:float,nobody:keyword",
};
#define DECLARATIONS (sizeof declarations / sizeof *declarations)

static uint32_t fields_kept(const struct test_solo *t)
{
    struct kithi_field_seen seen;
    struct kithi_view v;
    uint32_t kept = 0;
    kithi_view_begin(test_solo_map(t), &v);
    for (uint32_t i = 0; kithi_postings_field(&v, i, &seen); i++)
        kept += seen.state == KITHI_POSTINGS_KEPT;
    return kept;
}

/* Whatever is declared, and whatever types values have: the same is found; while postings are made anew, without them. */
static void what_is_declared_does_not_change_what_is_found(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_view before, v;
    struct kithi_declared seen;
    char text[KITHI_DECLARED_TEXT_MAX + 1];
    begin(&t);
    for (size_t round = 0; round < 3 * DECLARATIONS; round++) {
        const char *declaration = declarations[round % DECLARATIONS];
        for (unsigned i = 0; i < 20; i++) {
            random_group(&t);
            (void)test_solo_sweep(&t, 60);
        }
        kithi_view_begin(test_solo_map(&t), &before);
        assert_int_equal(kithi_index_declare(t.ix, "lang:what", &err), KITHI_E_PARAMETER);
        assert_true(kithi_postings_fresh(&before)); /* nothing was done */
        assert_int_equal(kithi_index_declare(t.ix, declaration, &err), 0);
        if (round % 2) { /* the next owner is told again */
            test_solo_leave(&t);
            assert_int_equal(test_solo_adopt(&t, &err), 0);
            assert_int_equal(kithi_index_declare(t.ix, declaration, &err), 0);
            before.map = test_solo_map(&t);
            before.header = test_solo_header(&t);
        }
        if (round > 0) { /* it was auto at first */
            assert_false(kithi_postings_fresh(&before));
            assert_false(check_now(&t, false));
        }
        random_group(&t);
        for (unsigned i = 0; i < 10; i++) {
            (void)test_solo_sweep(&t, 60);
            random_group(&t);
            (void)check_now(&t, false);
        }
        settle(&t);
        assert_int_equal(check_now(&t, strcmp(declaration, "auto") == 0), strcmp(declaration, "none") != 0);
        assert_true(test_solo_clean(&t));
        kithi_view_begin(test_solo_map(&t), &v);
        assert_true(kithi_postings_declared(&v, &seen) && kithi_declared_print(&seen, text));
        if (strstr(declaration, "float") == NULL)
            assert_string_equal(text, declaration);
        assert_int_equal(atomic_load(&test_solo_header(&t)->tally_fields), fields_kept(&t));
    }
    test_solo_close(&t);
}

static void put_payload(struct test_solo *t, const char *id, const char *json)
{
    float zero[DIM] = { 0 };
    struct kithi_payload p = test_payload(json);
    struct kithi_op op = test_upsert(id, zero, DIM);
    op.flags = KITHI_OP_PAYLOAD;
    op.payload = p.bytes;
    op.payload_len = p.len;
    assert_int_equal(test_solo_commit(t, &op, 1), 0);
    test_payload_free(&p);
}

/* Slots that a filter leads to. */
static uint64_t count_of(const struct test_solo *t, const char *fmt, ...) KITHI_PRINTF(2, 3);

static void values_of_another_type_are_counted(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    assert_int_equal(kithi_index_declare(t.ix, "lang:keyword,n:integer", NULL), 0);
    put_payload(&t, "1", "{\"lang\":\"de\",\"n\":1}");
    put_payload(&t, "2", "{\"lang\":5,\"n\":2}");
    put_payload(&t, "3", "{\"lang\":{\"a\":1},\"n\":2.5,\"other\":1}");
    put_payload(&t, "4", "{\"lang\":[\"de\",\"en\"],\"n\":[]}");
    put_payload(&t, "5", "{\"lang\":[1,2],\"n\":null}");
    settle(&t);
    assert_int_equal(atomic_load(&test_solo_header(&t)->tally_misfits), 3 + 1);
    assert_int_equal(count_of(&t, "lang = \"de\""), 2 + 3); /* the misfits are looked at, too */
    assert_int_equal(count_of(&t, "lang = \"fr\""), 3);
    assert_int_equal(count_of(&t, "exists(lang)"), 5);
    assert_int_equal(count_of(&t, "n >= 2"), 3); /* 2, 2.5, and the array without elements */
    put_payload(&t, "2", "{\"lang\":\"fr\",\"n\":2}");
    settle(&t);
    assert_int_equal(atomic_load(&test_solo_header(&t)->tally_misfits), 2 + 1);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* ---- bitmaps ---- */

/* What bitmaps take is charged, level by level; without room for one nothing is known, and no more is true of what one was joined with. */
static void bitmaps_are_charged(void **state)
{
    (void)state;
    enum { LEVEL = (4000 / 64 + 1) * 8 };
    struct kithi_bitmap_budget budget;
    struct kithi_candidates c = { .budget = &budget }, all_of = { 0 };
    struct kithi_filter *f;
    struct kithi_view v;
    struct test_solo t;
    const char *text = "n < 30 and (lang = \"L1\" or n < 10)";
    begin(&t);
    for (unsigned i = 0; i < 30; i++)
        random_group(&t);
    settle(&t);
    kithi_view_begin(test_solo_map(&t), &v);
    const uint64_t level = (v.slots_used / 64 + 1) * 8;
    assert_true(level <= LEVEL);
    assert_int_equal(kithi_filter_parse(text, strlen(text), &f, NULL), 0);
    assert_int_equal(kithi_candidates_find(&v, f, &all_of), 1);
    for (uint64_t levels = 0; levels < 5; levels++) {
        uint64_t all = (levels + 1) * level - 1; /* a byte is missing for one more */
        atomic_store(&budget.left, all);
        assert_int_equal(kithi_candidates_find(&v, f, &c), levels > 0);
        assert_int_equal(atomic_load(&budget.left), all - c.capacity * 8);
        assert_true(c.capacity * 8 == (levels < 3 ? levels : 3) * level);
        /* Twice what there is already costs nothing. */
        assert_int_equal(kithi_candidates_find(&v, f, &c), levels > 0);
        assert_int_equal(atomic_load(&budget.left), all - c.capacity * 8);
        /* Also where `or` had no room for its second part. */
        for (uint32_t slot = 0; levels > 0 && slot < v.slots_used; slot++)
            assert_true(kithi_candidates_next(&all_of, slot) != slot ||
                        kithi_candidates_next(&c, slot) == slot);
        assert_int_equal(c.count == all_of.count, levels > 2);
        kithi_candidates_fini(&c);
        assert_int_equal(atomic_load(&budget.left), all);
        assert_ptr_equal(c.budget, &budget);
    }
    kithi_candidates_fini(&all_of);
    kithi_filter_free(f);
    test_solo_close(&t);
}

/* ---- many values ---- */

static uint64_t count_of(const struct test_solo *t, const char *fmt, ...)
{
    struct kithi_filter *f;
    struct kithi_view v;
    char text[100];
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert_int_equal(kithi_filter_parse(text, (size_t)len, &f, NULL), 0);
    kithi_view_begin(test_solo_map(t), &v);
    assert_int_equal(kithi_candidates_find(&v, f, &candidates), 1);
    kithi_filter_free(f);
    return candidates.count;
}

/* A field of any number of values has no more terms than there are places, and narrow ones still, whatever order they come in. */
static void many_values_share_terms(void **state)
{
    (void)state;
    enum { MANY = 9000, GROUP = 300 };
    static struct kithi_op ops[GROUP];
    static char ids[GROUP][16];
    static struct kithi_payload payloads[GROUP];
    struct kithi_geometry g = test_geometry(1, KITHI_METRIC_L2, 70000);
    struct test_solo t;
    struct kithi_view v;
    struct kithi_field_seen seen;
    float zero = 0;
    g.m = 2;
    g.ef_construction = 2;
    test_solo_open(&t, &g);
    for (uint32_t round = 0; round < 3;
         round++) /* the second and third rounds change what the first one has put */
        for (uint32_t at = 0; at < MANY; at += GROUP) {
            for (uint32_t i = 0; i < GROUP; i++) {
                char json[100];
                uint32_t n = at + i, mixed = (uint32_t)(n * 7919u % MANY);
                snprintf(ids[i], sizeof ids[i], "%u", n);
                snprintf(json, sizeof json, "{\"rises\":%u,\"jumps\":%u,\"name\":\"name %u\",\"of\":%u}",
                         round * MANY + n, mixed, n, n % 3);
                payloads[i] = test_payload(json);
                ops[i] = test_upsert(ids[i], &zero, 1);
                if (round)
                    ops[i] = (struct kithi_op){ .type = KITHI_OP_SET, .id = ids[i], .id_len = ops[i].id_len };
                else
                    ops[i].flags = KITHI_OP_PAYLOAD;
                ops[i].payload = payloads[i].bytes;
                ops[i].payload_len = payloads[i].len;
            }
            assert_int_equal(test_solo_commit(&t, ops, GROUP), 0);
            for (uint32_t i = 0; i < GROUP; i++)
                test_payload_free(&payloads[i]);
            (void)test_solo_sweep(&t, 50);
        }
    settle(&t);
    kithi_view_begin(test_solo_map(&t), &v);
    for (uint32_t i = 0; kithi_postings_field(&v, i, &seen); i++) {
        assert_int_equal(seen.state, KITHI_POSTINGS_KEPT);
        assert_true(seen.terms <= KITHI_POSTINGS_TERMS);
        assert_true(seen.slots >= MANY && seen.slots <= MANY + MANY / 10);
    }
    for (uint32_t n = 0; n < MANY; n += 977) {
        uint64_t most = MANY / 50;
        assert_in_range(count_of(&t, "jumps = %u", n), 1, most);
        assert_in_range(count_of(&t, "name = \"name %u\"", n), 1, most);
        assert_in_range(count_of(&t, "jumps < %u", n + 1), n + 1, n + 1 + most);
        /* Of values that rise, many come between two eras, and share a term then. */
        assert_in_range(count_of(&t, "rises >= %u", 2 * MANY + n), MANY - n, MANY - n + MANY / 20);
    }
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* More slots than a chunk has: bitmaps, and a second chunk. */
static void slots_beyond_a_chunk_are_found(void **state)
{
    (void)state;
    enum { MANY = 68000, GROUP = 1000 };
    static struct kithi_op ops[GROUP];
    static char ids[GROUP][16];
    struct kithi_geometry g = test_geometry(1, KITHI_METRIC_L2, MANY + 1000);
    struct kithi_payload payloads[5];
    struct test_solo t;
    float zero = 0;
    g.m = 2;
    g.ef_construction = 1;
    test_solo_open(&t, &g);
    for (uint32_t i = 0; i < 5; i++) {
        char json[40];
        snprintf(json, sizeof json, "{\"fifth\":%u,\"all\":true}", i);
        payloads[i] = test_payload(json);
    }
    for (uint32_t at = 0; at < MANY; at += GROUP) {
        for (uint32_t i = 0; i < GROUP; i++) {
            snprintf(ids[i], sizeof ids[i], "%u", at + i);
            ops[i] = test_upsert(ids[i], &zero, 1);
            ops[i].flags = KITHI_OP_PAYLOAD;
            ops[i].payload = payloads[(at + i) % 5].bytes;
            ops[i].payload_len = payloads[(at + i) % 5].len;
        }
        assert_int_equal(test_solo_commit(&t, ops, GROUP), 0);
    }
    assert_int_equal(count_of(&t, "fifth = %u", 3), MANY / 5);
    assert_int_equal(count_of(&t, "all = true and fifth <= %u", 1), MANY / 5 * 2);
    struct kithi_op gone[] = { test_delete("67999"), test_delete("3") };
    assert_int_equal(test_solo_commit(&t, gone, 2), 0);
    settle(&t);
    assert_int_equal(count_of(&t, "all = true and fifth < %u", 5), MANY - 2);
    assert_int_equal(count_of(&t, "fifth = %u", 3), MANY / 5 - 1);
    /* Two bytes for each slot of a sparse set, a bit for each of a dense one, and no more than twice that. */
    struct kithi_field_seen seen;
    struct kithi_view v;
    kithi_view_begin(test_solo_map(&t), &v);
    for (uint32_t i = 0; kithi_postings_field(&v, i, &seen); i++)
        assert_true(seen.bytes < 2 * (seen.terms * (8192 + 64) + 2 * 2500 * seen.terms));
    for (uint32_t i = 0; i < 5; i++)
        test_payload_free(&payloads[i]);
    test_solo_close(&t);
}

/* ---- turns ---- */

enum { LISTS = 15, ELEMENTS = 64, VERSIONS = 60 };

/* Lists of so many values in all, and one value of its own. */
static void set_lists(struct test_solo *t, uint32_t own)
{
    static char json[16384];
    size_t at = add(json, sizeof json, 0, "{\"own\":%u", own);
    for (uint32_t i = 0; i < LISTS; i++) {
        at = add(json, sizeof json, at, ",\"list%u\":[0", i);
        for (uint32_t n = 1; n < ELEMENTS; n++)
            at = add(json, sizeof json, at, ",%u", n);
        at = add(json, sizeof json, at, "]");
    }
    (void)add(json, sizeof json, at, "}");
    struct kithi_payload p = test_payload(json);
    struct kithi_op op = {
        .type = KITHI_OP_SET, .id = "a", .id_len = 1, .payload = p.bytes, .payload_len = p.len
    };
    assert_int_equal(test_solo_commit(t, &op, 1), 0);
    test_payload_free(&p);
}

/* Forget what has rested. Returns the work of all turns; none has more than a turn and one payload more. */
static uint64_t forget(struct test_solo *t, uint64_t one, uint32_t *out_turns)
{
    uint64_t work = 0;
    uint32_t wait_ms;
    t->now_ms += 10000;
    *out_turns = 0;
    do {
        assert_int_equal(kithi_sweep_begin(t->ix, t->now_ms, &wait_ms), 0);
        assert_true(kithi_postings_work(t->ix) < KITHI_POSTINGS_TURN + one);
        work += kithi_postings_work(t->ix);
        ++*out_turns;
    } while (t->ix->old_payloads.count && wait_ms == 1);
    assert_int_equal(t->ix->old_payloads.count, 0);
    return work;
}

/* What a version costs as it goes: its terms, and those of later versions until one has them all. */
static void old_versions_are_forgotten_in_turns(void **state)
{
    (void)state;
    const uint64_t terms = LISTS * ELEMENTS + 1;
    struct test_solo t;
    uint32_t turns;
    float zero[DIM] = { 0 };
    begin(&t);
    assert_int_equal(test_solo_put(&t, "a", zero), 0);
    for (uint32_t i = 0; i <= VERSIONS; i++)
        set_lists(&t, 7);
    uint64_t work = forget(&t, 3 * terms, &turns);
    assert_in_range(work, VERSIONS * terms, VERSIONS * 2 * terms);
    assert_in_range(turns, work / KITHI_POSTINGS_TURN, VERSIONS);
    for (uint32_t i = 1; i <= VERSIONS; i++)
        set_lists(&t, 100 + i);
    work = forget(&t, (VERSIONS + 3) * terms, &turns);
    assert_in_range(work, VERSIONS * terms, (uint64_t)VERSIONS * (VERSIONS + 5) / 2 * terms);
    assert_true(turns > 10);
    settle(&t);
    assert_int_equal(count_of(&t, "own >= %u", 0), 1);
    assert_int_equal(count_of(&t, "own = %u", 100 + VERSIONS), 1);
    assert_int_equal(count_of(&t, "own < %u", 100 + VERSIONS), 0);
    assert_int_equal(count_of(&t, "list3 = %u", ELEMENTS - 1), 1);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void replace_fast(struct test_solo *t, uint32_t versions, uint32_t *number)
{
    uint32_t turns;
    for (uint32_t i = 0; i < versions; i++) {
        char json[40];
        snprintf(json, sizeof json, "{\"n\":%u}", ++*number);
        struct kithi_payload p = test_payload(json);
        struct kithi_op op = {
            .type = KITHI_OP_SET, .id = "a", .id_len = 1, .payload = p.bytes, .payload_len = p.len
        };
        assert_int_equal(test_solo_commit(t, &op, 1), 0);
        test_payload_free(&p);
    }
    (void)forget(t, 1000, &turns);
}

static uint32_t terms_of_first(const struct test_solo *t)
{
    struct kithi_field_seen seen;
    struct kithi_view v;
    kithi_view_begin(test_solo_map(t), &v);
    assert_true(kithi_postings_field(&v, 0, &seen));
    return seen.terms;
}

/* Versions that come faster than they can be looked at leave terms behind, which go as soon as these have gone; the slot's next owner keeps his. */
static void terms_of_versions_that_come_too_fast_go(void **state)
{
    (void)state;
    struct test_solo t;
    float zero[DIM] = { 0 };
    uint32_t number = 0;
    begin(&t);
    assert_int_equal(test_solo_put(&t, "a", zero), 0);
    uint32_t generation = kithi_postings_generation(atomic_load(&test_solo_header(&t)->postings));
    for (unsigned round = 0; round < 5; round++) {
        replace_fast(&t, 500, &number);
        assert_int_equal(count_of(&t, "n = %u", number), 1);
    }
    settle(&t);
    assert_true(kithi_postings_is_clean(t.ix));
    assert_int_equal(terms_of_first(&t), 1);
    assert_int_equal(count_of(&t, "n = %u", number), 1);
    assert_int_equal(count_of(&t, "n < %u", number), 0);
    /* So they do where the slot goes meanwhile, and another vector takes it. */
    replace_fast(&t, 500, &number);
    struct kithi_op gone = test_delete("a");
    assert_int_equal(test_solo_commit(&t, &gone, 1), 0);
    for (unsigned i = 0; i < 8; i++)
        (void)test_solo_sweep(&t, 1000);
    put_payload(&t, "b", "{\"n\":1}");
    settle(&t);
    assert_int_equal(terms_of_first(&t), 1);
    assert_int_equal(count_of(&t, "n = %u", 1), 1);
    /* No note was lost, so nothing was made anew. */
    assert_int_equal(kithi_postings_generation(atomic_load(&test_solo_header(&t)->postings)), generation);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* As many terms as a payload can have. */
static void all_terms_of_a_large_payload_go(void **state)
{
    (void)state;
    struct test_solo t;
    static char json[65536];
    begin(&t);
    for (uint32_t own = 0; own < 2; own++) {
        size_t at = add(json, sizeof json, 0, "{\"own\":%u", own);
        for (uint32_t i = 1; i < KITHI_POSTINGS_FIELDS; i++) {
            at = add(json, sizeof json, at, ",\"f%u\":[0", i);
            for (uint32_t n = 1; n < KITHI_TERMS_ELEMENTS; n++)
                at = add(json, sizeof json, at, ",%u", own * 100 + n);
            at = add(json, sizeof json, at, "]");
        }
        (void)add(json, sizeof json, at, "}");
        put_payload(&t, "a", json);
    }
    settle(&t);
    struct kithi_field_seen seen;
    struct kithi_view v;
    kithi_view_begin(test_solo_map(&t), &v);
    uint32_t terms = 0;
    assert_int_equal(fields_kept(&t), KITHI_POSTINGS_FIELDS);
    for (uint32_t i = 0; kithi_postings_field(&v, i, &seen); i++)
        terms += seen.terms;
    assert_int_equal(terms, 1 + (KITHI_POSTINGS_FIELDS - 1) * KITHI_TERMS_ELEMENTS);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

enum { MANY = 3000, NUMBERS = 20 };

/* So many vectors with so many values each; and their end. */
static void fill(struct test_solo *t)
{
    float zero[DIM] = { 0 };
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, MANY + 100);
    g.m = 2;
    g.ef_construction = 2;
    test_solo_open(t, &g);
    for (uint32_t i = 0; i < MANY; i++) {
        char json[1024] = "{\"all\":1", id[16];
        size_t at = strlen(json);
        for (uint32_t n = 1; n < NUMBERS; n++)
            at = add(json, sizeof json, at, ",\"n%u\":[%u]", n, i % 50 + n);
        (void)add(json, sizeof json, at, "}");
        snprintf(id, sizeof id, "%u", i);
        struct kithi_payload p = test_payload(json);
        struct kithi_op op = test_upsert(id, zero, DIM);
        op.flags = KITHI_OP_PAYLOAD;
        op.payload = p.bytes;
        op.payload_len = p.len;
        assert_int_equal(test_solo_commit(t, &op, 1), 0);
        test_payload_free(&p);
    }
}

/* Slots that die at once come free in as many turns as they have values for. */
static void the_dead_are_freed_in_turns(void **state)
{
    (void)state;
    struct test_solo t;
    uint32_t wait_ms, turns = 0, resting = MANY;
    fill(&t);
    for (uint32_t i = 0; i < MANY; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_delete(&t, id), 0);
    }
    assert_true(test_solo_sweep(&t, 10000) > 0);
    assert_int_equal(t.ix->resting.count, MANY);
    t.now_ms += 10000;
    while (t.ix->resting.count) {
        assert_int_equal(kithi_sweep_begin(t.ix, t.now_ms, &wait_ms), 0);
        assert_true(t.ix->resting.count < resting);
        assert_true(resting - t.ix->resting.count <= KITHI_POSTINGS_TURN / NUMBERS + 1);
        assert_true(!t.ix->resting.count || wait_ms == 1);
        resting = t.ix->resting.count;
        turns++;
    }
    assert_true(turns > MANY * NUMBERS / KITHI_POSTINGS_TURN);
    assert_int_equal(count_of(&t, "all = %d", 1), 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* Postings are made anew in as many turns as there are values for, not slots. */
static void postings_are_made_anew_in_turns(void **state)
{
    (void)state;
    struct test_solo t;
    uint32_t turns = 1;
    fill(&t);
    kithi_postings_restart(t.ix);
    for (; kithi_postings_rebuild(t.ix, UINT32_MAX); turns++)
        assert_in_range(kithi_postings_work(t.ix), KITHI_POSTINGS_TURN, KITHI_POSTINGS_TURN + 1000);
    assert_in_range(turns, MANY * NUMBERS / KITHI_POSTINGS_TURN, MANY);
    assert_int_equal(count_of(&t, "all = %d", 1), MANY);
    assert_int_equal(count_of(&t, "n7 = %d", 7), MANY / 50);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* ---- what fails, and who dies ---- */

#ifdef KITH_FAULT_POINTS
/* In a child: faults are of a process. */
static int in_child(const char *fault, void (*run)(void *arg), void *arg)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("KITH_FAULT", fault, 1);
        run(arg);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void write_on(void *arg)
{
    struct test_solo *t = arg;
    struct kithi_errmsg err;
    if (test_solo_adopt(t, &err) < 0)
        test_die("%s", err.text);
    for (unsigned i = 0; i < 60; i++) {
        random_group(t);
        (void)test_solo_sweep(t, 40 + i % 100);
    }
}

static void die_at(const char *point, unsigned least)
{
    struct test_solo t;
    unsigned deaths = 0;
    begin(&t);
    for (unsigned n = 1; n < 60; n += 1 + n / 2) {
        struct kithi_errmsg err;
        struct kithi_map map;
        struct kithi_view v;
        char fault[64];
        test_solo_leave(&t);
        snprintf(fault, sizeof fault, "%s:%u", point, n);
        (void)test_rand_u64(&r); /* else every child does the same */
        int status = in_child(fault, write_on, &t);
        deaths += WIFSIGNALED(status) != 0;
        if (!WIFSIGNALED(status))
            assert_int_equal(WEXITSTATUS(status), 0);
        /* Nobody owns the segment: readers go on. */
        assert_int_equal(kithi_map_attach_path(t.path, false, &map, &err), 0);
        kithi_view_begin(&map, &v);
        (void)check_view(&v, false);
        if (n % 2)
            test_solo_forget_notes(&t);
        if (test_solo_adopt(&t, &err) < 0)
            fail_msg("%s: %s", fault, err.text);
        assert_false(kithi_postings_fresh(&v));
        kithi_map_detach(&map);
        settle(&t);
        struct kithi_field_seen seen;
        kithi_view_begin(test_solo_map(&t), &v);
        assert_int_equal(check_now(&t, true),
                         kithi_postings_field(&v, 0, &seen)); /* there may be no payload yet */
        assert_true(test_solo_clean(&t));
    }
    assert_true(deaths >= least);
    test_solo_close(&t);
}

static void a_death_at_any_step_leaves_upper_bounds(void **state)
{
    (void)state;
    die_at("crash-after-postings", 5);
    die_at("crash-after-payload", 5);
    die_at("crash-before-epoch", 5);
    die_at("crash-after-era", 5);
    die_at("crash-in-rebuild", 4);
    die_at("crash-after-restart", 1);
    die_at("crash-after-freeing", 4);
}

/* Of fields that are not given up. */
static uint64_t cells_kept(const struct test_solo *t)
{
    const struct kithi_map *map = test_solo_map(t);
    const struct kithi_postings_field *fields =
        (const void *)(map->base + map->layout.off[KITHI_REGION_DICT]);
    struct kithi_field_seen seen;
    struct kithi_view v;
    uint64_t cells = 0;
    kithi_view_begin(map, &v);
    for (uint32_t i = 0; kithi_postings_field(&v, i, &seen); i++) {
        uint32_t pages =
            (atomic_load(&fields[i].term_end) + KITHI_POSTINGS_PAGE_TERMS - 1) / KITHI_POSTINGS_PAGE_TERMS;
        if (seen.state == KITHI_POSTINGS_KEPT)
            cells += ((uint64_t)pages << KITHI_POSTINGS_PAGE_CLASS) +
                     (seen.bytes - seen.terms * sizeof(struct kithi_postings_term)) / KITHI_POSTINGS_CELL;
    }
    return cells;
}

static void write_short_of_memory(void *arg)
{
    struct test_solo *t = arg;
    struct kithi_field_seen seen;
    struct kithi_view v;
    uint32_t kept = 0;
    write_on(t);
    settle(t);
    (void)check_now(t, false);
    kithi_view_begin(test_solo_map(t), &v);
    for (uint32_t i = 0; kithi_postings_field(&v, i, &seen); i++)
        kept += seen.state == KITHI_POSTINGS_KEPT;
    if (kept == FIELDS || !test_solo_clean(t))
        test_die("no field was given up, or some should have been");
    /* What a field had that was given up is free again. */
    const struct kithi_header *h = test_solo_header(t);
    uint64_t busy = atomic_load(&h->tally_cells) - atomic_load(&h->tally_cells_free) -
                    atomic_load(&h->tally_cells_resting);
    if (busy != cells_kept(t))
        test_die("%llu cells of postings are in use, and fields have %llu", (unsigned long long)busy,
                 (unsigned long long)cells_kept(t));
    if (atomic_load(&h->tally_given_up) == 0 || atomic_load(&h->tally_fields) != kept)
        test_die("what was given up is not told");
}

/* A field that cannot be kept is given up, and says so; nothing else is refused. */
static void without_memory_a_field_is_given_up(void **state)
{
    (void)state;
    for (unsigned n = 2; n < 300; n += 1 + n / 3) {
        struct test_solo t;
        char fault[64];
        begin(&t);
        test_solo_leave(&t);
        snprintf(fault, sizeof fault, "postings-no-space:%u", n);
        (void)test_rand_u64(&r);
        int status = in_child(fault, write_short_of_memory, &t);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("%s: %x", fault, (unsigned)status);
        test_solo_close(&t);
    }
}
#endif

/* ---- bytes of nobody ---- */

static void hostile_bytes_lead_to_an_end(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_map map;
    begin(&t);
    for (unsigned i = 0; i < 100; i++)
        random_group(&t);
    settle(&t);
    test_solo_leave(&t);
    assert_int_equal(kithi_map_attach_path(t.path, true, &map, &err), 0);
    struct kithi_header *h = kithi_map_header(&map);
    unsigned char *dict = map.base + map.layout.off[KITHI_REGION_DICT];
    unsigned char *postings = map.base + map.layout.off[KITHI_REGION_POSTINGS];
    size_t dict_bytes = atomic_load(&h->taken[KITHI_REGION_DICT]);
    size_t bytes = atomic_load(&h->taken[KITHI_REGION_POSTINGS]);
    unsigned char *good = malloc(dict_bytes + bytes);
    assert_true(good && bytes > 10000);
    memcpy(good, dict, dict_bytes);
    memcpy(good + dict_bytes, postings, bytes);
    for (unsigned round = 0; round < (test_long() ? 3000 : 200); round++) {
        struct kithi_view v;
        struct kithi_field_seen seen;
        memcpy(dict, good, dict_bytes);
        memcpy(postings, good + dict_bytes, bytes);
        uint32_t words = 1 + test_rand_below(&r, round % 3 == 0 ? 4000 : 30);
        for (uint32_t i = 0; i < words; i++) {
            uint64_t word = test_rand_u64(&r) >> test_rand_below(&r, 64);
            bool in_dict = test_rand_below(&r, 4) == 0;
            unsigned char *to = in_dict ? dict : postings;
            size_t at = test_rand_u64(&r) % ((in_dict ? dict_bytes : bytes) / 8) * 8;
            if (i % 2 && word) /* a reference that leads somewhere */
                word = (1 + word % (bytes / KITHI_POSTINGS_CELL)) | test_rand_u64(&r) << 32;
            if (i % 7 == 0) /* the largest directory, everywhere, and full */
                word = 1 | UINT64_C(11) << 32;
            memcpy(to + at, &word, sizeof word);
        }
        kithi_view_begin(&map, &v);
        for (size_t i = 0; i < TEXTS; i++) {
            struct kithi_match_bounds bounds;
            kithi_postings_bounds(&v, filters[i], &bounds);
            assert_true(bounds.most <= v.slots_used);
            assert_true(kithi_candidates_find(&v, filters[i], &candidates) >= 0);
            uint64_t n = 0;
            for (uint32_t slot = 0; (slot = kithi_candidates_next(&candidates, slot)) != UINT32_MAX; slot++) {
                assert_true(slot < v.slots_used);
                n++;
            }
            assert_true(n <= v.slots_used);
        }
        for (uint32_t i = 0; i < 2 * KITHI_POSTINGS_FIELDS; i++)
            if (kithi_postings_field(&v, i, &seen))
                assert_true(seen.path_len <= KITHI_POSTINGS_PATH);
    }
    /* More fields than there are, and none that has memory. */
    atomic_store(&h->taken[KITHI_REGION_DICT], UINT64_MAX);
    struct kithi_view v;
    kithi_view_begin(&map, &v);
    (void)kithi_candidates_find(&v, filters[0], &candidates);
    atomic_store(&h->taken[KITHI_REGION_DICT], 0);
    atomic_store(&h->taken[KITHI_REGION_POSTINGS], 0);
    kithi_view_begin(&map, &v);
    assert_int_equal(kithi_candidates_find(&v, filters[0], &candidates), 0);
    free(good);
    kithi_map_detach(&map);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_hold_every_match_of_each_view),
        cmocka_unit_test(a_moment_in_the_past_is_not_asked_of_postings),
        cmocka_unit_test(an_owner_makes_postings_anew),
        cmocka_unit_test(a_larger_segment_makes_them_anew),
        cmocka_unit_test(what_is_declared_does_not_change_what_is_found),
        cmocka_unit_test(values_of_another_type_are_counted),
        cmocka_unit_test(bitmaps_are_charged),
        cmocka_unit_test(many_values_share_terms),
        cmocka_unit_test(slots_beyond_a_chunk_are_found),
        cmocka_unit_test(old_versions_are_forgotten_in_turns),
        cmocka_unit_test(terms_of_versions_that_come_too_fast_go),
        cmocka_unit_test(all_terms_of_a_large_payload_go),
        cmocka_unit_test(the_dead_are_freed_in_turns),
        cmocka_unit_test(postings_are_made_anew_in_turns),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_death_at_any_step_leaves_upper_bounds),
        cmocka_unit_test(without_memory_a_field_is_given_up),
#endif
        cmocka_unit_test(hostile_bytes_lead_to_an_end),
    };
    test_rand_init(&r);
    for (size_t i = 0; i < TEXTS; i++) {
        struct kithi_errmsg err;
        if (kithi_filter_parse(texts[i], strlen(texts[i]), &filters[i], &err) < 0)
            test_die("%s", err.text);
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < TEXTS; i++)
        kithi_filter_free(filters[i]);
    kithi_candidates_fini(&candidates);
    return failed;
}
