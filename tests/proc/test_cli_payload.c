/*
 * test_cli_payload.c - payloads at the command line, against a real kithd: given, shown, changed, loaded, exported, and named where they
 * are none.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/support/daemon.h"

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

static const char *file(const char *name, const char *text)
{
    static char path[TEST_PATH_SIZE + 64];
    snprintf(path, sizeof path, "%s/%s", d.data.path, name);
    if (text != NULL) {
        FILE *f = fopen(path, "wbe");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
    }
    return path;
}

static void payloads_are_given_shown_and_changed(void **state)
{
    (void)state;
    expect(tool("create c --dim 2 --metric l2"), 0, "created");
    expect(
        tool(
            "put c a --vector '[1,2]' --payload '{\"z\":1.0,\"lang\":\"AAA\",\"n\":{\"x\":9007199254740993}}'"),
        0, "put a");
    expect(tool("put c b --vector '[1,3]'"), 0, "put b");
    expect(tool("payload c a"), 0, "{\"lang\":\"AAA\",\"n\":{\"x\":9007199254740993},\"z\":1.0}\n");
    expect(tool("payload c b"), 0, "null\n");
    expect(tool("payload c a --fields n.x"), 0, "{\"n\":{\"x\":9007199254740993}}\n");
    expect(tool("--json payload c b"), 0, "{\"id\":\"b\",\"payload\":null,\"epoch\":2}");
    expect(tool("get c a --payload"), 0, "[1,2]\n{\"lang\"");
    expect(tool("get c a"), 0, "[1,2]\n");
    assert_null(strstr(out, "lang"));
    expect(tool("--json get c a --fields lang,nothing"), 0, "\"payload\":{\"lang\":\"AAA\"}");

    expect(tool("payload c a --merge '{\"n\":{\"x\":null,\"y\":[1,2]},\"new\":true}'"), 0,
           "changed, epoch 3");
    expect(tool("payload c a"), 0, "{\"lang\":\"AAA\",\"n\":{\"y\":[1,2]},\"new\":true,\"z\":1.0}\n");
    expect(tool("payload c a --remove n.y,new,not.there"), 0, "changed");
    expect(tool("payload c a"), 0, "{\"lang\":\"AAA\",\"n\":{},\"z\":1.0}\n");
    expect(tool("put c a --vector '[5,5]'"), 0, "put a"); /* which keeps it */
    expect(tool("payload c a"), 0, "{\"lang\":\"AAA\",\"n\":{},\"z\":1.0}\n");
    expect(tool("payload c b --set '{\"k\":\"v\"}'"), 0, "changed");

    expect(tool("search c --vector '[5,5]' -k 2 --payload"), 0, "a   {\"lang\":\"AAA\",\"n\":{},\"z\":1.0}");
    expect(tool("--json search c --vector '[5,5]' -k 2 --fields k"), 0,
           "\"id\":\"b\",\"distance\":20,\"payload\":{\"k\":\"v\"}");
    expect(tool("--json search c --like a -k 1 --payload"), 0,
           "[{\"id\":\"b\",\"distance\":20,\"payload\":{\"k\":\"v\"}}]");
    expect(tool("--json search c --vector '[5,5]' -k 2"), 0, "\"distance\":20}");
    expect(tool("--json scroll c --payload"), 0, "{\"id\":\"b\",\"payload\":{\"k\":\"v\"}}");
    expect(tool("scroll c --vectors --payload"), 0, "b\t[1,3]\t{\"k\":\"v\"}");
    expect(tool("--json stats c"), 0, "\"payloads\":2");
    expect(tool("--json inspect c"), 0, "\"payloads\":2,");
    expect(tool("verify c"), 0, "every rule holds");
    expect(tool("wal c --records"), 0, "set-payload b payload ");

    expect(tool("payload c b --at 6"), 0, "{\"k\":\"v\"}\n");
    expect(tool("payload c b --set null"), 0, "changed");
    expect(tool("payload c b"), 0, "null\n");
    expect(tool("put c a --vector '[5,5]' --payload null"), 0, "put a");
    expect(tool("payload c a"), 0, "null\n");
    expect(tool("--json stats c"), 0, "\"payloads\":0");
}

static void what_is_no_payload_is_named(void **state)
{
    (void)state;
    char *large = malloc(1u << 17);
    assert_non_null(large);
    expect(tool("payload c a --set '{\"a\":tru}'"), 2, "byte 6");
    expect(tool("payload c a --set '[1]'"), 2, "payload");
    expect(tool("payload c a --set '{\"a.b\":1}'"), 2, "dot");
    expect(tool("payload c a --set '{\"\":1}'"), 2, "byte");
    expect(tool("payload c a --set '{\"a\":1,\"a\":2}'"), 2, "byte");
    expect(tool("payload c a --set '{\"a\":[1,\"x\"]}'"), 2, "byte");
    expect(tool("payload c a --set '{\"a\":9223372036854775808}'"), 2, "byte");
    expect(tool("put c a --vector '[1,1]' --payload '{'"), 2, "--payload");
    expect(tool("payload c a --merge 5"), 2, "payload");
    expect(tool("payload c a --remove a..b"), 2, "field");
    expect(tool("payload c a --merge '{}' --set '{}'"), 2, "give one of");
    expect(tool("payload c a --merge '{}' --at 3"), 2, "for showing");
    expect(tool("payload c a --durability none"), 2, "for changing");
    expect(tool("payload c nobody --set '{}'"), 1, "no such id");
    expect(tool("payload c nobody"), 1, "no such id");
    expect(tool("search c --vector '[1,1]' --fields a..b"), 2, "field");
    /* Each of two merges is a payload, both together are none. */
    snprintf(large, 1u << 17, "{\"id\":\"a\",\"vector\":[1,1],\"payload\":{\"a\":\"%0*d\"}}\n", 40000, 7);
    expect(tool("load c '%s'", file("large.jsonl", large)), 0, "loaded 1");
    snprintf(large, 1u << 17, "{\"b\":\"%0*d\"}", 40000, 8);
    expect(tool("payload c a --merge \"$(cat '%s')\"", file("large.json", large)), 1,
           "larger than 65536 bytes");
    expect(tool("payload c a --fields b"), 0, "{}\n");
    snprintf(large, 1u << 17, "{\"b\":\"%0*d\"}", 70000, 8);
    expect(tool("payload c a --set \"$(cat '%s')\"", file("large.json", large)), 2, "64 KiB");
    free(large);
}

static void payloads_are_loaded_and_exported(void **state)
{
    (void)state;
    expect(tool("create l --dim 1 --metric l2"), 0, "created");
    expect(tool("load l '%s'", file("good.jsonl", "{\"id\":\"x\",\"vector\":[1],\"payload\":{\"i\":1}}\n"
                                                  "{\"payload\":{\"i\":2},\"id\":\"y\",\"vector\":[2]}\n"
                                                  "{\"id\":\"z\",\"vector\":[3],\"payload\":null}\n")),
           0, "loaded 3");
    expect(tool("scroll l --payload"), 0, "y\t{\"i\":2}");
    expect(tool("load l '%s'", file("keep.jsonl", "{\"id\":\"x\",\"vector\":[7]}\n")), 0, "loaded 1");
    expect(tool("payload l x"), 0, "{\"i\":1}\n");
    /* What is before the line that is wrong is in, and the line is named. */
    expect(
        tool("load l '%s'", file("bad.jsonl", "{\"id\":\"p\",\"vector\":[1],\"payload\":{\"i\":3}}\n"
                                              "{\"id\":\"q\",\"vector\":[1],\"payload\":{\"i\":[1,{}]}}\n")),
        1, "bad.jsonl: line 2, byte");
    expect(tool("payload l p"), 0, "{\"i\":3}\n");
    expect(tool("get l q"), 1, "no such id");

    expect(tool("export l '%s'", file("all.jsonl", NULL)), 0, "exported 4");
    expect(tool("create again --dim 1 --metric l2"), 0, "created");
    expect(tool("load again '%s'", file("all.jsonl", NULL)), 0, "loaded 4");
    expect(tool("--json scroll again --payload"), 0, "{\"id\":\"p\",\"payload\":{\"i\":3}}");
    expect(tool("payload again z"), 0, "null\n");

    /* Beside a file without places for them. */
    expect(tool("export l '%s'", file("all.fvecs", NULL)), 0, "exported 4");
    char vectors[TEST_PATH_SIZE + 64];
    snprintf(vectors, sizeof vectors, "%s", file("all.fvecs", NULL));
    expect(tool("load again '%s' --payload '%s'", vectors,
                file("meta.jsonl", "{\"m\":0}\n{\"m\":1}\nnull\n{\"m\":3}\n")),
           0, "loaded 4");
    expect(tool("payload again 1"), 0, "{\"m\":1}\n");
    expect(tool("payload again 2"), 0, "null\n");
    expect(tool("load again '%s' --payload '%s'", vectors, file("meta.jsonl", "{\"m\":0}\n{\"m\":1,}\n")), 1,
           "meta.jsonl: line 2, byte 8");
    expect(tool("load again '%s' --payload '%s'", vectors, file("meta.jsonl", "{\"m\":0}\n\n\n")), 1,
           "ends after 1 payloads");
    expect(
        tool("load again '%s' --payload '%s'", vectors, file("meta.jsonl", "null\nnull\nnull\nnull\nnull\n")),
        1, "has more lines");
    expect(tool("load again '%s' --payload '%s'", vectors,
                file("meta.jsonl", "{\"m\":4}\nnull\nnull\nnull\n\n \r\n")),
           0, "loaded 4");
    expect(tool("payload again 0"), 0, "{\"m\":4}\n");
    expect(
        tool("load again '%s' --payload '%s'", vectors, file("meta.jsonl", "null\n\n\nnull\nnull\nnull\n")),
        1, "meta.jsonl: line 2: is empty");
    expect(tool("load again '%s' --payload '%s'", file("all.jsonl", NULL), "x.jsonl"), 2, "does not go with");
    expect(tool("load again '%s' --payload '%s'", vectors, "x.txt"), 1, "payloads are read from .jsonl");
}

/* Until kith answers with that: what is made between groups takes a moment. */
static void await(const char *args, const char *text)
{
    for (uint64_t by_ms = test_now_ms() + 20000;; test_nap()) {
        if (tool("%s", args) == 0 && strstr(out, text) != NULL)
            return;
        if (test_now_ms() > by_ms)
            fail_msg("\"%s\" is never in: %s", text, out);
    }
}

static void fields_are_indexed_as_they_were_declared(void **state)
{
    (void)state;
    expect(tool("create ix --dim 2 --metric l2 --index 'lang:text'"), 2, "a type is keyword");
    expect(tool("create ix --dim 2 --metric l2 --index 'lang:keyword,chars:integer'"), 0,
           "index lang:keyword,chars:integer");
    for (unsigned i = 0; i < 40; i++)
        expect(tool("put ix id%u --vector '[1,%u]' --payload '{\"lang\":\"l%u\",\"chars\":%u,\"of\":%u}'", i,
                    i, i % 4, i, i % 2),
               0, "put");
    expect(tool("put ix odd --vector '[1,99]' --payload '{\"lang\":7,\"chars\":1.5}'"), 0, "put");
    await("stats ix", "2 values are of another type");
    await("--json stats ix",
          "\"index\":\"lang:keyword,chars:integer\",\"index_fields\":2,\"index_given_up\":0,"
          "\"index_misfits\":2,\"index_whole\":true");
    expect(tool("inspect ix"), 0, "keyword   lang");
    expect(tool("--json inspect ix"), 0, "\"declared\":true");
    expect(tool("--json inspect ix"), 0, "{\"field\":\"chars\",\"type\":\"integer\",\"kept\":true");
    /* Conditions on what is declared are known; the misfit is looked at, and told as without postings. */
    await("explain ix --filter 'chars > 35'", "postings leave 5 payloads");
    expect(tool("count ix --filter 'chars > 35'"), 0, "4");
    expect(tool("count ix --filter 'lang = \"l1\"'"), 1, "holds an integer in a payload");
    expect(tool("explain ix --filter 'of = 1'"), 0, "1 of its 1 fields have no postings");
    expect(tool("count ix --filter 'of = 1'"), 0, "20");
    expect(tool("delete ix odd"), 0, "");
    expect(tool("count ix --filter 'lang = \"l1\"'"), 0, "10");

    /* Another one, while it is searched; it lasts. */
    expect(tool("alter ix --index 'lang:keyword,,'"), 2, "the name of a field is missing");
    expect(tool("alter ix --index of:integer"), 0, "filters look at payloads until then");
    await("--json stats ix",
          "\"index\":\"of:integer\",\"index_fields\":1,\"index_given_up\":0,\"index_misfits\":0,"
          "\"index_whole\":true");
    await("explain ix --filter 'of = 1'", "postings leave 20 payloads");
    expect(tool("explain ix --filter 'chars > 35'"), 0, "postings do not know the condition");
    expect(tool("--json alter ix --index of:integer"), 0, "\"done\":\"nothing\"");
    char backup[TEST_PATH_SIZE + 64];
    snprintf(backup, sizeof backup, "%s", file("ix.backup", NULL));
    expect(tool("checkpoint ix --to '%s'", backup), 0, "");
    test_daemon_kill(&d);
    assert_int_equal(test_daemon_start(&d), 0);
    await("--json stats ix",
          "\"index\":\"of:integer\",\"index_fields\":1,\"index_given_up\":0,\"index_misfits\":0,"
          "\"index_whole\":true");
    expect(tool("restore ix2 '%s'", backup), 0, "");
    await("--json stats ix2", "\"index\":\"of:integer\"");
    expect(tool("count ix2 --filter 'of = 1'"), 0, "20");
    expect(tool("optimize ix"), 0, "laid out anew");
    await("explain ix --filter 'of = 1'", "postings leave 20 payloads");
    expect(tool("alter ix --index none"), 0, "");
    await("inspect ix", "--index none");
    expect(tool("count ix --filter 'of = 1'"), 0, "20");
    expect(tool("alter ix --index auto"), 0, "");
    await("explain ix --filter 'of = 1 and chars > 35'", "postings leave ");
    await("--json stats ix", "\"index\":\"auto\"");
    expect(tool("verify ix"), 0, "every rule holds");
}

#ifdef KITH_FAULT_POINTS
/* A kithd that dies while it is told of another index has the one before, or the one that was asked for once that is written down. */
static void a_death_leaves_one_index_or_the_other(void **state)
{
    (void)state;
    static const char *const points[][2] = { { "crash-before-choice", "\"index\":\"auto\"" },
                                             { "crash-after-choice",
                                               "\"index\":\"lang:keyword\",\"index_fields\":1" } };
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        int status = 0;
        assert_int_equal(test_daemon_stop(&d), 0);
        snprintf(d.fault, sizeof d.fault, "%s", points[i][0]);
        assert_int_equal(test_daemon_start(&d), 0);
        expect(tool("alter ix --index lang:keyword"), 1, "went away");
        for (uint64_t by_ms = test_now_ms() + 20000; test_daemon_alive(&d, &status); test_nap())
            if (test_now_ms() > by_ms)
                fail_msg("kithd never came to %s", points[i][0]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        d.fault[0] = '\0';
        assert_int_equal(test_daemon_start(&d), 0);
        await("--json stats ix", points[i][1]);
        await("--json stats ix", "\"index_whole\":true");
        expect(tool("count ix --filter 'lang = \"l1\"'"), 0, "10");
        expect(tool("verify ix"), 0, "every rule holds");
    }
}
#endif

int main(void)
{
    if (getenv("KITH_TEST_KITH") == NULL)
        test_die("KITH_TEST_KITH does not name the program; run this test through ctest, or set it");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(payloads_are_given_shown_and_changed),
        cmocka_unit_test(what_is_no_payload_is_named),
        cmocka_unit_test(payloads_are_loaded_and_exported),
        cmocka_unit_test(fields_are_indexed_as_they_were_declared),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_death_leaves_one_index_or_the_other),
#endif
    };
    test_daemon_init(&d);
    if (test_daemon_start(&d) < 0)
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_daemon_fini(&d);
    return rc;
}
