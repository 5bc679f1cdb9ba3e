/*
 * test_filter.c - filters against a real kithd, at the command line and by the library: searched, counted, scrolled and deleted by, made
 * without text, and named where they are none.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <kith/kith.h>

#include "tests/support/daemon.h"

enum { MANY = 3000 };

static struct test_daemon d;
static char out[1u << 18]; /* stdout and stderr of the last command */

/* kith --run RUN <args>, by the shell. Returns the exit status. */
static int __attribute__((format(printf, 1, 2))) tool(const char *fmt, ...)
{
    char args[2048], line[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    snprintf(line, sizeof line, "timeout -s KILL 60 '%s' --run '%s/run' %s 2>&1", getenv("KITH_TEST_KITH"),
             d.run.path, args);
    FILE *p = popen(line, "r");
    if (p == NULL)
        test_die("popen: %s", strerror(errno));
    size_t n = fread(out, 1, sizeof out - 1, p);
    out[n] = '\0';
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void expect(int status, int wanted, const char *text)
{
    if (status != wanted)
        fail_msg("status %d, not %d: %s", status, wanted, out);
    if (strstr(out, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, out);
}

static kith *open_it(void)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    char run[TEST_PATH_SIZE + 8];
    snprintf(run, sizeof run, "%s/run", d.run.path);
    opts.run_dir = run;
    assert_int_equal(kith_open("c", &opts, &index), 0);
    return index;
}

/* i at (i, 0), with n = i, lang by i % 4, and tags; every tenth without a payload. */
static void fill(void)
{
    kith *index = open_it();
    kith_batch *batch = kith_batch_new(index);
    static const char *const langs[] = { "AAA", "BBB", "CCC", "DDD" };
    for (int i = 0; i < MANY; i++) {
        char id[16], payload[128];
        float v[2] = { (float)i, 0 };
        snprintf(id, sizeof id, "%d", i);
        snprintf(payload, sizeof payload,
                 "{\"n\":%d,\"lang\":\"%s\",\"tags\":[\"t%d\"],\"in side\":{\"x\":%d.5}}", i, langs[i % 4],
                 i % 7, i);
        assert_int_equal(kith_batch_upsert_payload(batch, id, v, 2, i % 10 ? payload : NULL), 0);
        if (kith_batch_count(batch) == 500) {
            struct kith_commit commit = KITH_COMMIT_INIT;
            assert_int_equal(kith_batch_commit(batch, &commit), 0);
            kith_batch_clear(batch);
        }
    }
    kith_batch_free(batch);
    kith_close(index);
}

static void commands_take_filters(void **state)
{
    (void)state;
    expect(tool("create c --dim 2 --metric l2"), 0, "created");
    fill();
    expect(tool("search c --vector '[100,0]' -k 3 --filter 'lang = \"BBB\"'"), 0, "1.000000  101\n");
    expect(tool("--json search c --vector '[101,0]' -k 2 --filter 'lang = \"BBB\" and n < 120 and n >= 101'"),
           0, "\"hits\":[{\"id\":\"101\",\"distance\":0},{\"id\":\"105\",\"distance\":16}]}");
    expect(
        0, 0,
        "\"plan\":\"scan\",\"plan_reason\":\"few\",\"evaluated\":5,\"matched\":5,\"indexed\":true,\"share\":");
    expect(tool("--json search c --vector '[101,0]' -k 2 --filter 'n >= 0'"), 0,
           "\"plan\":\"walk\",\"plan_reason\":\"many\"");
    expect(tool("--json search c --vector '[101,0]' -k 2 --filter 'n >= 0' --exact"), 0,
           "\"plan\":\"scan\",\"plan_reason\":\"given\"");
    expect(tool("--json search c --like 101 -k 2 --filter 'tags = \"t4\" and \"in side\".x > 200'"), 0,
           "\"hits\":[{\"id\":\"207\",\"distance\":11236},{\"id\":\"214\",\"distance\":12769}]}");
    expect(tool("count c --filter 'lang in (\"AAA\", \"CCC\")'"), 0, "1200\n");
    expect(tool("--json count c --filter 'not exists(lang)'"), 0, "{\"count\":300}\n");
    expect(tool("count c --filter 'n < 0'"), 0, "0\n");
    expect(tool("scroll c --filter 'n < 20 and prefix(lang, \"B\")'"), 0, "");
    for (int i = 1; i < 20; i += 4) {
        char line[16];
        snprintf(line, sizeof line, "%d\n", i);
        expect(0, 0, line);
    }
    assert_int_equal(strlen(out), 2 + 2 + 2 + 3 + 3); /* and nobody else */
}

static void the_plan_of_a_filter_is_explained(void **state)
{
    (void)state;
    kith *index = open_it();
    struct kith_explanation e = KITH_EXPLANATION_INIT;
    struct kith_error error = { 0 };
    expect(tool("--json explain c --filter 'lang = \"BBB\"'"), 0, "{\"epoch\":");
    expect(0, 0, "\"vectors\":3000,\"matches\":");
    expect(0, 0, "\"exact\":false,\"indexed\":true,\"looks\":");
    expect(0, 0, "\"k\":10,\"ef\":100,\"plan\":\"");
    expect(0, 0, "\"scan_cost\":");
    expect(tool("explain c --filter 'n >= 0' -k 2 --ef 50"), 0, " of 3,000 vectors match (");
    expect(0, 0, "walk  150  ");
    expect(0, 0, "so many match that a walk meets them");
    expect(0, 0, "postings leave ");
    expect(tool("explain c --filter 'not n >= 5'"), 0, "postings do not know the condition");
    expect(tool("--json explain c --filter 'n < 0'"), 0, "\"walk_cost\":null");
    expect(0, 0, "\"plan\":\"scan\",\"plan_reason\":\"few\"");
    expect(tool("explain c"), 2, "give --filter");
    expect(tool("explain c --filter 'n < 5 and'"), 2, "expected a field");
    expect(tool("explain c --filter 'n < 5' -k 10 --ef 5"), 2, "--ef 5 is below -k 10");

    assert_int_equal(kith_explain(index, "n < 1500", 10, 0, &e, &error), 0);
    assert_int_equal(e.vectors, MANY);
    assert_true(e.low <= 1350 && 1350 <= e.high && e.low <= e.matches && e.matches <= e.high);
    assert_true(e.scan_cost > 0 && e.epoch > 0 && !e.exact);
    assert_true(e.indexed && e.looks >= e.matches && e.looks < MANY);
    assert_int_equal(kith_explain(index, "not n < 1500", 10, 0, &e, &error), 0);
    assert_true(!e.indexed && e.looks == MANY);
    assert_int_equal(kith_explain(index, "n <", 10, 0, &e, &error), KITH_E_FILTER);
    assert_int_equal(error.code, KITH_E_FILTER);
    assert_int_equal(kith_explain(index, "n < 1", 0, 0, &e, NULL), KITH_E_K);
    assert_int_equal(kith_explain(index, "n < 1", 10, 9, &e, NULL), KITH_E_EF);
    assert_int_equal(kith_explain(index, NULL, 10, 0, &e, NULL), -EINVAL);
    kith_close(index);
}

static void values_of_a_field_are_counted(void **state)
{
    (void)state;
    kith *index = open_it();
    kith_facet *f = NULL;
    struct kith_facet_opts opts = KITH_FACET_OPTS_INIT;
    struct kith_facet_info info = KITH_FACET_INFO_INIT;
    struct kith_filter_value v;
    struct kith_error error = { 0 };
    uint64_t n;
    expect(tool("facet c lang"), 0, "       750  \"BBB\"\n");
    expect(0, 0, "       750  \"DDD\"\n       600  \"AAA\"\n       600  \"CCC\"\n");
    expect(
        tool("--json facet c lang --filter 'n < 8'"), 0,
        "\"field\":\"lang\",\"vectors\":7,\"with\":7,\"distinct\":4,\"other\":0,\"values\":[{\"value\":\"BBB\","
        "\"count\":2},{\"value\":\"CCC\",\"count\":2},{\"value\":\"DDD\",\"count\":2},{\"value\":\"AAA\",\"count\":1}]}");
    expect(tool("facet c n --limit 2"), 0, "         1  1\n         1  2\n");
    expect(0, 0, "2698 more values");
    expect(tool("--json facet c 'in side.x' --filter 'n = 7'"), 0, "{\"value\":7.5,\"count\":1}");
    expect(tool("facet c nobody"), 0, "none of 3000 vectors has a value in nobody");
    expect(tool("facet c a..b"), 2, "a key is empty");
    expect(tool("facet c"), 2, "give one name and one field");
    expect(tool("facet c lang --filter 'lang > 5'"), 1, "field \"lang\" holds a string");

    opts.deadline_ns = 1; /* long ago */
    assert_int_equal(kith_facet_of(index, "tags", &opts, &f), KITH_E_TIMEOUT);
    opts.deadline_ns = 0;
    opts.filter = "n < 8 and tags = \"t1\"";
    opts.error = &error;
    assert_int_equal(kith_facet_of(index, "tags", &opts, &f), 0);
    assert_int_equal(kith_facet_count(f), 1);
    assert_int_equal(kith_facet_value(f, 0, &v, &n), 0);
    assert_int_equal(v.type, KITH_FILTER_STRING);
    assert_string_equal(v.string, "t1");
    assert_int_equal(n, 1);
    assert_int_equal(kith_facet_value(f, 1, &v, &n), -EINVAL);
    assert_int_equal(kith_facet_info(f, &info), 0);
    assert_true(info.vectors == 1 && info.with == 1 && info.distinct == 1 && info.other == 0);
    kith_facet_free(f);
    kith_facet_free(NULL);
    opts.limit = 65537;
    assert_int_equal(kith_facet_of(index, "tags", &opts, &f), KITH_E_PARAMETER);
    opts.limit = 0;
    opts.filter = "n <";
    assert_int_equal(kith_facet_of(index, "tags", &opts, &f), KITH_E_FILTER);
    assert_int_equal(kith_facet_of(index, ".", NULL, &f), KITH_E_PAYLOAD);
    kith_close(index);
}

static void what_is_wrong_with_a_filter_is_said(void **state)
{
    (void)state;
    expect(tool("search c --vector '[1,1]' --filter 'n < 5 and'"), 2,
           "kith search: filter: expected a field\n  n < 5 and\n           ^\n");
    expect(
        tool("count c --filter 'n = \"5\"'"), 1,
        "kith count: filter: field \"n\" holds an integer in a payload, and the filter compares it with a string\n");
    expect(tool("search c --vector '[1,1]' --filter 'lang > 5'"), 1, "field \"lang\" holds a string");
    expect(tool("scroll c --filter 'lang > 5'"), 1, "field \"lang\" holds a string");
    expect(tool("delete c --filter 'lang > 5'"), 1, "field \"lang\" holds a string");
    expect(tool("search c --vector '[1,1]' --filter 'm = 5'"), 0,
           "kith search: filter: no payload that was looked at has a field \"m\"\n");
    expect(0, 0, "no hits\n");
    expect(tool("--json search c --vector '[1,1]' --filter 'm = 5'"), 0,
           "\"notice\":\"filter: no payload that was looked at has a field \\\"m\\\"\"");
    expect(tool("search c --vector '[1,1]' --filter 'm = 5 or n = 3' --strict"), 1, "has a field \"m\"");
    expect(tool("search c --vector '[1,1]' --filter 'n = 3' --strict"), 0, "3");
}

static void the_library_takes_filters_of_any_make(void **state)
{
    (void)state;
    kith *index = open_it();
    kith_results *r = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    struct kith_error error = { 0 };
    float q[2] = { 50.2f, 0 };
    uint64_t count;

    static const char *const fields[] = { "lang" }, *const strings[] = { "CCC" };
    kith_filter *map, *few, *in, *both, *not, *parsed;
    const struct kith_filter_value limit = { .type = KITH_FILTER_INTEGER, .integer = 60 };
    const struct kith_filter_value tags[] = { { .type = KITH_FILTER_STRING, .string = "t1" },
                                              { .type = KITH_FILTER_STRING, .string = "t0" } };
    assert_int_equal(kith_filter_equals(fields, strings, 1, &map, &error), 0);
    assert_int_equal(kith_filter_compare("n", KITH_FILTER_LT, &limit, &few, &error), 0);
    assert_int_equal(kith_filter_in("tags", tags, 2, &in, &error), 0);
    const kith_filter *const all[] = { map, few, in };
    assert_int_equal(kith_filter_all(all, 3, &both, &error), 0);
    assert_string_equal(kith_filter_text(both), "lang = \"CCC\" and n < 60 and tags in (\"t0\", \"t1\")");
    assert_int_equal(kith_filter_not(both, &not, &error), 0);
    assert_int_equal(kith_filter_parse(kith_filter_text(not ), &parsed, &error), 0);
    assert_string_equal(kith_filter_text(parsed), kith_filter_text(not ));
    assert_int_equal(kith_filter_test(both, "{\"lang\":\"CCC\",\"n\":1,\"tags\":[\"t1\"]}", &error), 1);
    assert_int_equal(kith_filter_test(not, "{\"lang\":\"CCC\",\"n\":1,\"tags\":[\"t1\"]}", &error), 0);
    assert_int_equal(kith_filter_test(not, NULL, &error), 1);
    assert_int_equal(kith_filter_test(both, "{\"lang\":3}", &error), KITH_E_FILTER);
    assert_non_null(strstr(error.text, "field \"lang\" holds an integer"));
    assert_int_equal(kith_filter_compare("a..b", KITH_FILTER_LT, &limit, &parsed, &error), KITH_E_FILTER);
    assert_non_null(strstr(error.text, "a key is empty"));

    opts.filter = kith_filter_text(both);
    opts.error = &error;
    for (int round = 0; round < 3; round++) { /* compiled, and known */
        assert_int_equal(kith_search(index, q, 2, 10, &opts, r), 3);
        assert_string_equal(kith_results_id(r, 0), "42");
        assert_string_equal(kith_results_id(r, 1), "22");
        assert_string_equal(kith_results_id(r, 2), "14");
        assert_null(kith_results_notice(r));
        assert_int_equal(kith_results_info(r, &info), 0);
        assert_int_equal(info.plan, KITH_PLAN_SCAN);
        assert_int_equal(info.ef, 0);
    }
    kith_results *const batch[] = { r };
    assert_int_equal(kith_search_batch(index, q, 2, 1, 10, &opts, batch, NULL), 0);
    assert_int_equal(kith_results_count(r), 3);
    assert_int_equal(kith_search(index, q, 2, 10, NULL, r), 10);
    assert_int_equal(kith_results_info(r, &info), 0);
    assert_int_equal(info.plan, KITH_PLAN_NONE);
    opts.filter = "n = ";
    assert_int_equal(kith_search(index, q, 2, 10, &opts, r), KITH_E_FILTER);
    assert_int_equal(error.code, KITH_E_FILTER);
    opts.filter = "m = 1";
    opts.strict = 1;
    assert_int_equal(kith_search(index, q, 2, 10, &opts, r), KITH_E_FILTER);
    assert_int_equal(kith_results_count(r), 0);
    /* More filters than are kept, each right. */
    opts.strict = 0;
    for (int i = 0; i < 40; i++) {
        char text[32], id[16];
        int n = i % 20 * 3 + 1;
        snprintf(text, sizeof text, "n = %d", n);
        snprintf(id, sizeof id, "%d", n);
        opts.filter = text;
        assert_int_equal(kith_search(index, q, 2, 10, &opts, r), n % 10 ? 1 : 0);
        if (n % 10)
            assert_string_equal(kith_results_id(r, 0), id);
    }
    assert_int_equal(kith_count_filter(index, kith_filter_text(not ), NULL, &count, &error), 0);
    assert_int_equal(count, MANY - 3);
    struct kith_count_opts counting = KITH_COUNT_OPTS_INIT;
    assert_int_equal(kith_count_with(index, &counting, &count), 0);
    assert_int_equal(count, MANY);
    counting.filter = kith_filter_text(not );
    counting.deadline_ns = 1; /* long ago */
    assert_int_equal(kith_count_with(index, &counting, &count), KITH_E_TIMEOUT);
    counting.deadline_ns = UINT64_MAX;
    assert_int_equal(kith_count_with(index, &counting, &count), 0);
    assert_int_equal(count, MANY - 3);
    assert_int_equal(kith_count_with(index, NULL, &count), -EINVAL);
    kith_filter_free(map);
    kith_filter_free(few);
    kith_filter_free(in);
    kith_filter_free(both);
    kith_filter_free(not );
    kith_filter_free(parsed);
    kith_filter_free(NULL);
    kith_results_free(r);
    kith_close(index);
}

static void what_fulfils_a_filter_is_deleted(void **state)
{
    (void)state;
    expect(tool("delete c --filter 'n >= 1000 and lang != \"AAA\"'"), 0, "deleted 1400 vectors, epoch ");
    expect(tool("count c"), 0, "1600\n");
    expect(tool("count c --filter 'n >= 1000'"), 0, "400\n");
    expect(tool("--json delete c --filter 'n < 0'"), 0, "{\"deleted\":0,\"epoch\":0}");
    expect(tool("verify c"), 0, "every rule holds");
}

/* ---- deleting beside a writer ---- */

/* Writers change less than half of what is there, however slow the deletes beside them are. */
enum { PRESENT = 2000, BATCH = 40, BATCHES = 12, ROUNDS = 6, WRITERS = 2 };

struct changer {
    kith *index;
    unsigned seed;
    _Atomic unsigned batches; /* that were committed */
    bool kept[PRESENT];       /* ids whose change was acknowledged, and which were there */
};

static void name_of(int number, char id[16])
{
    snprintf(id, 16, "r%d", number);
}

/* Changes what others are about to delete, a batch of ids at a time. */
static void *change(void *arg)
{
    struct changer *w = arg;
    kith_batch *batch = kith_batch_new(w->index);
    for (unsigned n = 0; n < BATCHES; n++) {
        int numbers[BATCH];
        struct kith_commit commit = KITH_COMMIT_INIT;
        kith_batch_clear(batch);
        for (int i = 0; i < BATCH; i++) {
            char id[16];
            numbers[i] = (int)((unsigned)rand_r(&w->seed) % PRESENT);
            name_of(numbers[i], id);
            if (kith_batch_set_payload(batch, id, KITH_PAYLOAD_REPLACE, "{\"state\":\"kept\"}") != 0)
                test_die("no room for a change");
        }
        if (kith_batch_commit(batch, &commit) != 0)
            test_die("a change: %s", commit.error.text);
        for (int i = 0; i < BATCH; i++)
            w->kept[numbers[i]] |= kith_batch_found(batch, (uint32_t)i) == 1;
        atomic_fetch_add(&w->batches, 1);
    }
    kith_batch_free(batch);
    return NULL;
}

static void put_all(kith *index)
{
    kith_batch *batch = kith_batch_new(index);
    struct kith_commit commit = KITH_COMMIT_INIT;
    for (int i = 0; i < PRESENT; i++) {
        const float v[] = { (float)i, 1 };
        char id[16];
        name_of(i, id);
        assert_int_equal(kith_batch_upsert_payload(batch, id, v, 2, "{\"state\":\"old\"}"), 0);
    }
    assert_int_equal(kith_batch_commit(batch, &commit), 0);
    kith_batch_free(batch);
}

/* What was changed so that it fulfils the filter no more, before its turn to be deleted came, stays: each change that was acknowledged. */
static void what_is_changed_meanwhile_is_not_deleted(void **state)
{
    (void)state;
    static struct changer w[WRITERS];
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    char run[TEST_PATH_SIZE + 8];
    kith *index = NULL;
    uint64_t met = 0;
    expect(tool("create race --dim 2 --metric l2 --m 4 --ef-construction 10 --quantization none"), 0,
           "created");
    snprintf(run, sizeof run, "%s/run", d.run.path);
    opts.run_dir = run;
    assert_int_equal(kith_open("race", &opts, &index), 0);
    assert_int_equal(kith_set_durability(index, KITH_DURABILITY_APPLIED), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t threads[WRITERS];
        uint64_t deleted = 0, count = 0, kept = 0;
        struct kith_error error = { 0 };
        put_all(index);
        for (unsigned i = 0; i < WRITERS; i++) {
            w[i] = (struct changer){ .index = NULL, .seed = 10 * round + i };
            assert_int_equal(kith_open("race", &opts, &w[i].index), 0);
            assert_int_equal(kith_set_durability(w[i].index, KITH_DURABILITY_APPLIED), 0);
            assert_int_equal(pthread_create(&threads[i], NULL, change, &w[i]), 0);
        }
        for (unsigned i = 0; i < WRITERS; i++) {
            const uint64_t by_ms = test_now_ms() + 30000;
            while (!atomic_load(&w[i].batches) && test_now_ms() < by_ms)
                nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
        }
        if (kith_delete_filter(index, "state = \"old\"", &deleted, NULL, &error) != 0)
            fail_msg("%s", error.text);
        for (unsigned i = 0; i < WRITERS; i++) {
            pthread_join(threads[i], NULL);
            kith_close(w[i].index);
        }
        for (unsigned i = 0; i < PRESENT; i++)
            kept += w[0].kept[i] || w[1].kept[i];
        assert_int_equal(kith_count_filter(index, "state = \"kept\"", NULL, &count, NULL), 0);
        assert_int_equal(count, kept);
        assert_int_equal(kith_count_filter(index, "state = \"old\"", NULL, &count, NULL), 0);
        assert_int_equal(count, 0);
        assert_int_equal(deleted + kept, PRESENT);
        met += kept > 0 && deleted > 0;
        assert_int_equal(kith_delete_filter(index, "exists(state)", &deleted, NULL, NULL), 0);
        assert_int_equal(deleted, kept);
    }
    assert_int_equal(met, ROUNDS); /* both had something to do */
    kith_close(index);
    expect(tool("verify race"), 0, "every rule holds");
    /* The log has what became of them, and no condition. */
    expect(tool("wal race --records | grep -c ' delete r'"), 0, "");
    expect(tool("wal race --records | grep -c 'delete-if'"), 1, "0\n");
}

int main(void)
{
    if (getenv("KITH_TEST_KITH") == NULL)
        test_die("KITH_TEST_KITH does not name the program; run this test through ctest, or set it");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_take_filters),
        cmocka_unit_test(the_plan_of_a_filter_is_explained),
        cmocka_unit_test(values_of_a_field_are_counted),
        cmocka_unit_test(what_is_wrong_with_a_filter_is_said),
        cmocka_unit_test(the_library_takes_filters_of_any_make),
        cmocka_unit_test(what_fulfils_a_filter_is_deleted),
        cmocka_unit_test(what_is_changed_meanwhile_is_not_deleted),
    };
    test_daemon_init(&d);
    if (test_daemon_start(&d) < 0)
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_daemon_fini(&d);
    return rc;
}
