/*
 * test_cli.c - kith, the command line, against a real kithd: the contract that scripts are written
 * against, and bad input on the command line, with message and exit status. Its files are in test_cli_files.c,
 * what surrounds it in test_cli_surroundings.c.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/layout/header.h"
#include "tests/proc/cli.h"

static void single_vectors_are_put_found_and_deleted(void **state)
{
    (void)state;
    expect_ok(
        KITH("--json", "create", "one", "--dim", "2", "--metric", "l2", "--m", "8", "--ef-construction",
             "50"),
        "{\"name\":\"one\",\"dim\":2,\"metric\":\"l2\",\"m\":8,\"ef_construction\":50,"
        "\"quantization\":\"auto\",\"keep\":\"f32\",\"max_vectors\":16777216,\"fixed\":false,\"index\":\"auto\"}\n");
    expect_ok(KITH("--json", "put", "one", "a", "--vector", "[1, 2.5]"), "{\"id\":\"a\",\"epoch\":1}\n");
    expect_ok(KITH("put", "one", "--vector=[3,4]", "b", "--json"), "{\"id\":\"b\",\"epoch\":2}\n");
    expect_ok(KITH("get", "one", "a"), "[1,2.5]\n");
    expect_ok(KITH("--json", "get", "one", "b"),
              "{\"id\":\"b\",\"vector\":[3,4],\"epoch\":2,\"decoded\":false}\n");
    expect_ok(KITH("count", "one"), "2\n");
    expect_ok(KITH("--json", "count", "one"), "{\"count\":2}\n");
    expect_ok(KITH("--json", "search", "one", "--vector", "[1,2.5]", "-k", "5"),
              "{\"query\":0,\"hits\":[{\"id\":\"a\",\"distance\":0},{\"id\":\"b\",\"distance\":6.25}]}\n");
    expect_ok(KITH("--json", "search", "one", "--like", "b", "-k1"),
              "{\"query\":0,\"hits\":[{\"id\":\"a\",\"distance\":6.25}]}\n");
    expect_ok(KITH("--json", "search", "one", "--vector", "[3,4]", "-k", "1", "--exact"),
              "{\"query\":0,\"hits\":[{\"id\":\"b\",\"distance\":0}]}\n");
    expect_ok(KITH("--json", "put", "one", "a", "--vector", "[7,7]", "--durability", "durable"),
              "{\"id\":\"a\",\"epoch\":3}\n");
    expect(KITH("put", "one", "a", "--vector", "[7,7]", "--durability", "some"), 2, "",
           "--durability is durable, applied or none, not \"some\"");
    expect_ok(KITH("get", "one", "a"), "[7,7]\n");
    expect_ok(KITH("--json", "delete", "one", "a", "--durability", "applied"),
              "{\"id\":\"a\",\"epoch\":4}\n");
    expect_says(KITH("--json", "put", "one", "z", "--vector", "[9,9]", "--durability", "applied"),
                "{\"id\":\"z\",\"epoch\":5,\"durable_epoch\":", NULL);
    expect_ok(KITH("--json", "delete", "one", "z"), "{\"id\":\"z\",\"epoch\":6}\n");
    expect_ok(KITH("count", "one"), "1\n");
    expect_ok(KITH("put", "one", "--vector", "[0,0]", "--", "--odd"), "put --odd, epoch 7\n");
    expect_ok(KITH("get", "one", "--", "--odd"), "[0,0]\n");
    expect_says(KITH("search", "one", "--vector", "[1,1]"), "DISTANCE", "--odd", NULL);
    expect_verified("one");
    expect_ok(KITH("--json", "drop", "one"), "{\"name\":\"one\",\"dropped\":true}\n");
}

/* Put another entry point into the header of a segment; the one before. */
static uint64_t swap_entry(const char *name, uint64_t entry)
{
    int fd = open(test_daemon_segment(&daemon_, name), O_RDWR | O_CLOEXEC);
    const off_t at = offsetof(struct kithi_header, entry);
    uint64_t before = 0;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &before, sizeof before, at), sizeof before);
    assert_int_equal(pwrite(fd, &entry, sizeof entry, at), sizeof entry);
    close(fd);
    return before;
}

/* The number behind key, in what begins at after. */
static uint64_t number_of(const char *json, const char *after, const char *key)
{
    char name[40];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *at = strstr(json, after);
    at = at != NULL ? strstr(at, name) : NULL;
    if (at == NULL)
        fail_msg("no %s behind %s in %s", key, after, json);
    return strtoull(at + strlen(name), NULL, 10);
}

/* Every byte of a collection's memory is accounted for, by the daemon's own figures and by the file system's. */
static void expect_accounted(const char *name)
{
    static const char *const parts[] = { "live", "dead", "resting", "pending", "free", "slack" };
    char path[2 * TEST_PATH_SIZE];
    struct result r = KITH("--json", "stats", name);
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        sum += number_of(r.out, "\"memory\":", parts[i]);
    assert_int_equal(number_of(r.out, "\"memory\":", "taken"), sum);
    assert_int_equal(number_of(r.out, "{\"name\"", "bytes_taken"), sum);
    snprintf(path, sizeof path, "%s/%s/segment", run_path, name);
    assert_int_equal(number_of(r.out, "\"memory\":", "file"), sum + number_of(r.out, "\"memory\":", "ahead"));
    assert_int_equal(number_of(r.out, "\"memory\":", "file"), test_file_blocks(path));
    assert_int_equal(number_of(r.out, "\"memory\":", "next"), 0);
    assert_int_equal(number_of(r.out, "\"region\":\"records\"", "live"),
                     64 * number_of(r.out, "{\"name\"", "live"));
    done(&r);
}

static void views_have_the_keys_of_the_manual(void **state)
{
    (void)state;
    create("views", "3", "ip");
    expect_says(KITH("put", "views", "x", "--vector", "[1,2,3]"), "epoch 1", NULL);
    expect_says(
        KITH("--json", "list"),
        "{\"name\":\"views\",\"count\":1,\"dim\":3,\"metric\":\"ip\",\"quantization\":\"none\",\"keep\":\"f32\",",
        "\"bytes_taken\":", "\"epoch\":1,\"state\":\"served\"}", NULL);
    expect_says(KITH("list"), "views", "METRIC", NULL);
    expect_ok(KITH("stats", "--ready"), "ready\n");
    expect_ok(KITH("stats", "--alive"), "ready\n");
    expect_ok(KITH("--json", "stats", "--ready", "views"),
              "{\"ready\":true,\"served\":1,\"coming\":0,\"collections\":[{\"name\":\"views\","
              "\"state\":\"served\"}],\"refused\":0}\n");
    expect_says(
        KITH("--json", "stats", "views"),
        "{\"name\":\"views\",\"live\":1,\"dim\":3,\"metric\":\"ip\",\"m\":16,",
        "\"ef_construction\":200,\"quantization\":\"none\",\"quantization_wanted\":\"auto\",",
        "\"keep\":\"f32\",\"keep_wanted\":\"f32\",\"undecided\":true,\"code_bits\":0,\"decoded\":false,",
        "\"level_max\":", "\"epoch\":1,", "\"generation\":1,", "\"dead\":0,", "\"resting\":0,", "\"free\":0,",
        "\"slots\":1,", "\"slots_max\":16777216,",
        "\"bytes_taken\":", "\"bytes_per_vector\":", "\"bytes_reserved\":", "\"huge_bytes\":0,",
        "\"huge_wanted_bytes\":0,", "\"daemon\":true,\"state\":\"served\",",
        "\"daemon_stats\":{\"name\":\"views\",\"epoch\":1,", "\"sync_us_below_pow2\":[",
        "\"version\":\"0.1.0\",\"data_dir\":\"/", "/data\",\"recall\":{",
        "},\"readers\":{\"alive\":0,\"gone\":0,", "\"latency_ns\":[],\"list\":[]}}}\n", NULL);
    expect_says(KITH("stats", "views"), "daemon answers", "yes", "huge pages", "in the file", "SLACK", NULL);
    expect_accounted("views");
    expect_says(
        KITH("--json", "inspect", "views"), "{\"name\":\"views\",\"uid\":\"", "\"format\":5,",
        "\"quantization\":\"none\",\"keep\":\"f32\",\"code_bits\":0,\"vector_bytes\":12,\"code_bytes\":12,",
        "\"row\":{\"bytes\":128,\"links\":128,\"blocks\":0,\"block_bytes\":0,\"signs\":0},",
        "\"generation\":1,", "\"durable_epoch\":1,", "\"timeline\":", "\"unlinked\":0,", "\"reused\":0,",
        "\"moved\":false,", "\"dropped\":false,", "\"commits\":1,", "\"sweeps\":0,",
        "\"entry\":{\"slot\":0,\"level\":", "\"id_table\":{\"area\":0,\"capacity\":",
        "\"filled\":1,\"rebuilds\":0}", "\"notes\":{\"epoch\":1,\"live\":1,\"slots\":0,\"condemned\":false},",
        "\"regions\":[{\"region\":\"header\",\"offset\":0,\"used\":65536,\"taken\":65536,\"reserved\":65536,\"live\":65536,\"dead\":0",
        "\"postings\":{\"whole\":true,\"declared\":false,\"generation\":1,\"era\":0,\"fields\":[]},",
        "\"levels\":[", "\"degrees\":[1]}", NULL);
    expect_says(KITH("inspect", "views"), "REGION", "RESERVED", "LEVEL", "LINKS", "entry point",
                "epoch 1, 0 slots of an open group", NULL);
    expect_says(KITH("verify", "views"), "every rule holds", NULL);
    expect_says(KITH("--json", "verify", "views"),
                "{\"name\":\"views\",\"clean\":true,\"epoch\":1,\"live\":1,\"links\":0,\"unreachable\":0,"
                "\"violations\":0",
                NULL);
    expect_says(KITH("verify", "views", "--reach"), "views: epoch 1, 1 vectors, 1 of them reached", NULL);
    expect_ok(KITH("--json", "verify", "--reach", "views"),
              "{\"name\":\"views\",\"clean\":true,\"epoch\":1,\"live\":1,\"unreachable\":0,\"from_above\":0,"
              "\"first\":[]}\n");
    /* Of what no link leads to the daemon would hear in time. */
    assert_int_equal(kill(daemon_.pid, SIGSTOP), 0);
    uint64_t entry = swap_entry("views", 0);
    struct result r = KITH("--json", "verify", "--reach", "views");
    expect(r, 1,
           "{\"name\":\"views\",\"clean\":false,\"epoch\":1,\"live\":1,\"unreachable\":1,\"from_above\":0,"
           "\"first\":[{\"slot\":0,\"id\":\"x\",\"from_above\":false}]}\n",
           "reaches 1 vectors");
    r = KITH("verify", "--reach", "views");
    expect(
        r, 1,
        "unreachable: slot 0, id \"x\"\nviews: epoch 1, 1 vectors, 0 of them reached from the entry point\n",
        "links them anew");
    assert_int_equal(swap_entry("views", entry), 0);
    assert_int_equal(kill(daemon_.pid, SIGCONT), 0);
    expect_says(KITH("verify", "views", "--reach"), "1 of them reached", NULL);
    /* Readers take the path of a segment as well. */
    expect_ok(KITH("count", test_daemon_segment(&daemon_, "views")), "1\n");
    expect_says(KITH("verify", test_daemon_segment(&daemon_, "views")), "every rule holds", NULL);
    drop("views");
    expect_ok(KITH("list"), "no collections\n");
    expect_ok(KITH("--json", "list"), "");
}

static void ids_are_scrolled_through_and_earlier_epochs_looked_at(void **state)
{
    (void)state;
    char cursor[64] = "", ids[64] = "";
    create("pages", "2", "l2");
    for (int i = 1; i <= 5; i++) {
        char id[8], vector[16];
        snprintf(id, sizeof id, "%c", 'a' + i - 1);
        snprintf(vector, sizeof vector, "[%d,0]", i);
        expect(KITH("put", "pages", id, "--vector", vector), 0, NULL, "");
    }
    /* Two ids at a time, whatever their order is. */
    for (int page = 0; page < 3; page++) {
        struct result r = cursor[0] ? KITH("--json", "scroll", "pages", "--limit", "2", "--cursor", cursor)
                                    : KITH("--json", "scroll", "pages", "--limit", "2");
        char *at = r.out;
        assert_int_equal(r.status, 0);
        for (; strncmp(at, "{\"id\":\"", 7) == 0; at = strchr(at, '\n') + 1)
            strncat(ids, at + 7, 1);
        assert_int_equal(strncmp(at, "{\"cursor\":", 10), 0);
        if (page < 2)
            snprintf(cursor, sizeof cursor, "%.48s", at + 11);
        else
            assert_string_equal(at, "{\"cursor\":null,\"count\":1,\"epoch\":5}\n");
        done(&r);
    }
    assert_int_equal(strlen(ids), 5);
    char text[64] = "";
    for (int i = 0; i < 5; i++)
        snprintf(text + strlen(text), 4, "%c\n", ids[i]);
    expect_ok(KITH("scroll", "pages"), text);
    text[2] = '\0';
    expect(KITH("scroll", "pages", "--limit", "1"), 0, text, "there are more: --cursor ");
    snprintf(text, sizeof text, "{\"id\":\"%c\",\"vector\":[%d,0]}\n", ids[0], ids[0] - 'a' + 1);
    expect_says(KITH("--json", "scroll", "pages", "--vectors"), text,
                "{\"cursor\":null,\"count\":5,\"epoch\":5}", NULL);
    snprintf(text, sizeof text, "%c\t[%d,0]\n", ids[0], ids[0] - 'a' + 1);
    expect_says(KITH("scroll", "pages", "--vectors"), text, NULL);
    expect_fail(KITH("scroll", "pages", "--cursor", "nonsense"), 1,
                "\"pages\": not a cursor of this collection");
    create("others", "2", "l2");
    expect_fail(KITH("scroll", "others", "--cursor", cursor), 1, "not a cursor of this collection");
    expect_fail(KITH("scroll", "pages", "--limit", "0"), 2, "--limit takes a whole number");
    expect_fail(KITH("scroll"), 2, "give one name");
    expect_ok(KITH("scroll", "others"), "");

    /* As it was when c was put. */
    expect_ok(KITH("count", "pages", "--at", "3"), "3\n");
    expect_ok(KITH("--json", "search", "pages", "--vector", "[9,0]", "-k", "1", "--at", "3"),
              "{\"query\":0,\"hits\":[{\"id\":\"c\",\"distance\":36}]}\n");
    expect_ok(KITH("--json", "search", "pages", "--like", "a", "-k", "1", "--at", "2", "--exact"),
              "{\"query\":0,\"hits\":[{\"id\":\"b\",\"distance\":1}]}\n");
    expect_ok(KITH("--json", "get", "pages", "c", "--at", "3"),
              "{\"id\":\"c\",\"vector\":[3,0],\"epoch\":3,\"decoded\":false}\n");
    expect_fail(KITH("get", "pages", "d", "--at", "3"), 1, "no such id");
    expect_says(KITH("--json", "scroll", "pages", "--at", "1"),
                "{\"id\":\"a\"}\n{\"cursor\":null,\"count\":1,\"epoch\":1}", NULL);
    expect_says(KITH("--json", "export", "pages", test_path(&files, "at.jsonl"), "--at", "2"),
                "\"exported\":2,\"epoch\":2,", NULL);
    expect_fail(KITH("count", "pages", "--at", "9"), 1, "is not visible yet");
    expect_fail(KITH("export", "pages", test_path(&files, "at.jsonl"), "--at", "9"), 1, "is not visible yet");
    expect_fail(KITH("search", "pages", "--like", "a", "--at", "0"), 2, "--at takes the number of an epoch");
    /* Once what it saw is unlinked, it is no more. */
    expect(KITH("delete", "pages", "a"), 0, NULL, "");
    for (uint64_t until = test_now_ms() + 60000;; test_nap()) {
        struct result r = KITH("--json", "search", "pages", "--vector", "[9,0]", "--at", "3");
        bool is_stale = r.status == 1;
        if (is_stale && strstr(r.err, "not all there any more") == NULL)
            fail_msg("%s", r.err);
        done(&r);
        if (is_stale)
            break;
        assert_true(test_now_ms() < until);
    }
    expect_ok(KITH("count", "pages", "--at", "6"), "4\n");
    drop("others");
    drop("pages");
}

static void deletes_tell_of_ids_that_are_not_there(void **state)
{
    (void)state;
    create("gone", "2", "l2");
    expect(KITH("put", "gone", "a", "--vector", "[1,2]"), 0, NULL, "");
    expect(KITH("put", "gone", "b", "--vector", "[1,2]"), 0, NULL, "");
    expect(KITH("--json", "delete", "gone", "nobody", "a", "no one", "b", "a"), 1,
           "{\"id\":\"a\",\"epoch\":3}\n{\"id\":\"b\",\"epoch\":4}\n", "id \"no one\": no such id");
    expect_count("gone", "0\n");
    drop("gone");
}

static void collections_are_laid_out_in_another_way_and_anew(void **state)
{
    (void)state;
    float rows[ROWS][DIM];
    make_rows(rows);
    const char *path = write_fvecs("laid.fvecs", rows, ROWS);
    expect(KITH("create", "laid", "--dim", "6", "--metric", "l2", "--quantization", "none"), 0, NULL, "");
    expect(KITH("load", "laid", path), 0, NULL, "");
    expect_says(
        KITH("--json", "alter", "laid", "--quantization", "bits", "--keep", "f16", "--m", "8",
             "--ef-construction", "60", "--max-vectors", "700"),
        "{\"name\":\"laid\",\"done\":\"copied\",\"live\":600,\"epoch\":",
        ",\"generation\":2,\"bytes_before\":", ",\"bytes_after\":", ",\"ms\":", ",\"held_us\":", NULL);
    expect_says(KITH("--json", "stats", "laid"), "\"m\":8,\"ef_construction\":60,\"quantization\":\"bits\",",
                "\"keep\":\"f16\",", "\"slots_max\":700,", "\"undecided\":false,",
                "\"relayout\":{\"state\":\"", "\"count\":1,\"failures\":0,", NULL);
    expect_ok(KITH("alter", "laid", "--m", "8"), "laid is laid out so already: nothing was done\n");
    expect_says(KITH("--json", "alter", "laid", "--max-vectors", "700"), "\"done\":\"nothing\"", NULL);
    expect_says(KITH("--json", "search", "laid", "--like", "0", "-k", "3"), "\"hits\":[{\"id\":", NULL);
    expect_verified("laid");
    /* The second segment is given back before the third comes. */
    expect_says(KITH("optimize", "laid"), "laid: 600 vectors laid out anew in ", "writes waited for ",
                "memory taken: ", NULL);
    expect_count("laid", "600\n");
    expect_verified("laid");
    expect_fail(
        KITH("alter", "laid", "--max-vectors", "599"), 1,
        "max-vectors is 599, and \"laid\" has 600 vectors: ask for at least as many, or delete some first");
    expect_fail(KITH("alter", "laid", "--quantization", "none"), 1,
                "without quantization vectors are kept as f32");
    expect_fail(KITH("alter", "laid", "--m", "65"), 2, "--m");
    expect_fail(KITH("alter", "laid", "--quantization", "pq"), 2,
                "--quantization is none, f16, sq8, bits or auto");
    expect_fail(KITH("alter", "laid", "--keep", "f64"), 2, "--keep is f32, f16 or none");
    expect_fail(KITH("alter", "laid"), 2, "say what shall be another");
    expect_fail(KITH("alter", "laid", "--dim", "7"), 2, "the dimension of a collection is for ever");
    expect_fail(KITH("alter", "laid", "--metric", "ip"), 2, "the metric of a collection is for ever");
    expect_fail(KITH("alter"), 2, "give one name");
    expect_fail(KITH("optimize"), 2, "give one name");
    expect_fail(KITH("optimize", "nothing"), 1, "nothing");
    drop("laid");
}

static void a_back_up_is_a_file_and_a_collection_again(void **state)
{
    (void)state;
    char file[TEST_PATH_SIZE + 16], line[2 * TEST_PATH_SIZE];
    snprintf(file, sizeof file, "%s/kept.kith", files.path);
    create("kept", "2", "l2");
    expect(KITH("put", "kept", "a", "--vector", "[1,2]"), 0, NULL, "");
    expect(KITH("put", "kept", "b", "--vector", "[3,4]"), 0, NULL, "");
    expect_fail(KITH("checkpoint"), 2, "give one name");
    expect_fail(KITH("checkpoint", "kept", "--force"), 2, "--to");
    expect_fail(KITH("checkpoint", "kept", "--to"), 2, "needs a value");
    expect_fail(KITH("checkpoint", "gone", "--to", file), 1, "gone");
    assert_int_not_equal(access(file, F_OK), 0);
    expect_says(KITH("checkpoint", "kept", "--to", file), "back-up of kept: epoch 2, ", file, NULL);
    expect_fail(KITH("checkpoint", "kept", "--to", file), 1, "--force replaces a file");
    snprintf(line, sizeof line, "{\"name\":\"kept\",\"file\":\"%s\",\"epoch\":2,\"bytes\":", file);
    expect_says(KITH("--json", "checkpoint", "kept", "--to", file, "--force"), line, NULL);

    expect_fail(KITH("restore", "kept2"), 2, "the file of a back-up");
    expect_fail(KITH("restore", "kept", file), 1, "a collection \"kept\" exists");
    expect_fail(KITH("restore", "not/a-name", file), 1, "not/a-name");
    expect_fail(KITH("restore", "kept2", "/nowhere.kith"), 1, "/nowhere.kith");
    expect_fail(KITH("restore", "kept2", write_text("text.kith", "no back-up\n")), 1,
                "this is not a back-up");
    expect_ok(KITH("restore", "kept2", file), "restored kept2: 2 vectors, epoch 2\n");
    expect_ok(KITH("get", "kept2", "b"), "[3,4]\n");
    expect_ok(KITH("drop", "kept2"), "dropped kept2\n");
    snprintf(line, sizeof line,
             "{\"name\":\"kept2\",\"file\":\"%s\",\"live\":2,\"epoch\":2,\"timeline\":", file);
    expect_says(KITH("--json", "restore", "kept2", file), line, NULL);
    expect_ok(KITH("drop", "kept2"), "dropped kept2\n");
    expect_ok(KITH("drop", "kept"), "dropped kept\n");
}

static void exit_status_two_is_bad_usage(void **state)
{
    (void)state;
    struct result r;
    const char *program = getenv("KITH_TEST_KITH");
    run_argv(&r, (const char *[]){ program, NULL });
    expect_fail(r, 2, "which command?");
    expect_fail(KITH("frobnicate"), 2, "there is no command frobnicate");
    expect_fail(KITH("search", "x", "--vector", "[1]", "--filter", "a = "), 2,
                "kith search: filter: expected a value\n  a = \n      ^\n");
    expect_fail(KITH("search", "x", "--vector", "[1]", "--strict"), 2, "--strict goes with --filter");
    expect_fail(KITH("count", "x", "--filter", "a ="), 2, "expected a value");
    expect_fail(KITH("scroll", "x", "--filter", "= a"), 2, "expected a field");
    expect_fail(KITH("delete", "x", "--filter", "(a = 1"), 2, "expected 'and', 'or' or ')'");
    expect_fail(KITH("delete", "x", "y", "--filter", "a = 1"), 2, "either ids or --filter");
    expect_fail(KITH("create", "x", "--dim", "2", "--metric", "l2", "--quantization", "pq"), 2, "not \"pq\"");
    expect_fail(KITH("create", "x", "--dim", "2", "--metric", "l2", "--keep", "f64"), 2, "f32, f16 or none");
    expect_fail(KITH("create", "x", "--metric", "l2"), 2, "--dim is missing");
    expect_fail(KITH("create", "x", "--dim", "2"), 2, "--metric is missing");
    expect_fail(KITH("create", "x", "--dim", "2", "--metric", "hamming"), 2, "l2, cosine or ip");
    expect_fail(KITH("create", "--dim", "2", "--metric", "l2"), 2, "give one name");
    expect_fail(KITH("create", "x", "--dim", "0", "--metric", "l2"), 2,
                "--dim takes a whole number from 1 to 4096");
    expect_fail(KITH("create", "x", "--dim", "4097", "--metric", "l2"), 2, "from 1 to 4096");
    expect_fail(KITH("create", "x", "--dim", "2x", "--metric", "l2"), 2, "not \"2x\"");
    expect_fail(KITH("create", "x", "--dim", "2", "--metric", "l2", "--m", "1"), 2, "from 2 to 64");
    expect_fail(KITH("create", "x", "--dim", "2", "--metric", "l2", "--m", "65"), 2, "from 2 to 64");
    expect_fail(KITH("create", "x", "--di", "2", "--metric", "l2"), 2, "there is no option --di");
    expect_fail(KITH("count"), 2, "give one name");
    expect_fail(KITH("count", "a", "b"), 2, "usage: kith [--run DIR] [--json] count NAME");
    expect_fail(KITH("search", "x"), 2, "one of --vector, --like and --queries");
    expect_fail(KITH("search", "x", "--like", "a", "--vector", "[1]"), 2, "one of");
    expect_fail(KITH("search", "x", "--like", "a", "-k", "0"), 2, "-k takes a whole number from 1 to 65536");
    expect_fail(KITH("search", "x", "--like", "a", "-k", "65537"), 2, "from 1 to 65536");
    expect_fail(KITH("search", "x", "--like", "a", "-k", "-1"), 2, "not \"-1\"");
    expect_fail(KITH("search", "x", "--like", "a", "-k", "20", "--ef", "10"), 2, "--ef 10 is below -k 20");
    expect_fail(KITH("search", "x", "--like"), 2, "--like needs a value");
    expect_fail(KITH("bench", "x", "--queries", "q.fvecs"), 2, "--truth is missing");
    expect_fail(KITH("bench", "x", "--queries", "q", "--truth", "t", "--ef", "100,5"), 2,
                "--ef 5 is below -k 10");
    expect_fail(KITH("bench", "x", "--queries", "q", "--truth", "t", "--ef", "100,"), 2, "commas");
    expect_fail(KITH("export", "x", "a.csv"), 2, ".jsonl, .fvecs and .npy");
    run_argv(&r, (const char *[]){ program, "--run", NULL });
    expect_fail(r, 2, "--run needs a directory");
    run_argv(&r, (const char *[]){ program, "--frob", NULL });
    expect_fail(r, 2, "there is no option --frob");
}

static void help_and_version_are_answered(void **state)
{
    (void)state;
    expect_says(KITH("--help"), "usage: kith [--run DIR] [--json] COMMAND", "Exit status", NULL);
    expect_says(KITH("--version"), "kith 0.1.0\n", NULL);
    expect_says(KITH("load", "--help"), "load NAME FILE [--ids FILE]", NULL);
}

static void bad_ids_names_and_vectors_are_refused(void **state)
{
    (void)state;
    char long_id[513], long_name[66];
    memset(long_id, 'x', sizeof long_id);
    long_id[512] = '\0';
    memset(long_name, 'n', sizeof long_name);
    long_name[65] = '\0';
    create("bad", "2", "cosine");
    expect_fail(KITH("create", "bad", "--dim", "2", "--metric", "l2"), 1, "exists");
    expect_fail(KITH("create", "a/b", "--dim", "2", "--metric", "l2"), 1, "not a collection name");
    expect_fail(KITH("create", "-x", "--dim", "2", "--metric", "l2"), 2, "there is no option -x");
    expect_fail(KITH("create", ".x", "--dim", "2", "--metric", "l2"), 1, "not a collection name");
    expect_fail(KITH("create", long_name, "--dim", "2", "--metric", "l2"), 1, "not a collection name");
    static const char *const COMMANDS[] = { "count", "stats", "inspect", "verify", "drop" };
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        expect_fail(KITH(COMMANDS[i], "nowhere"), 1, "nowhere");
    expect_fail(KITH("put", "nowhere", "a", "--vector", "[1,2]"), 1, "nowhere");
    expect_fail(KITH("put", "bad", "", "--vector", "[1,2]"), 1, "not an id");
    expect_fail(KITH("put", "bad", long_id, "--vector", "[1,2]"), 1, "1 to 511 bytes");
    expect_fail(KITH("put", "bad", "\xff\xfe", "--vector", "[1,2]"), 1, "not an id");
    expect_fail(KITH("put", "bad", "a", "--vector", "[1,2,3]"), 1, "has 3 dimensions, the collection has 2");
    expect_fail(KITH("put", "bad", "a", "--vector", "[0,0]"), 1, "zero vector");
    expect_fail(KITH("put", "bad", "a", "--vector", "[1,NaN]"), 2, "byte 4");
    expect_fail(KITH("put", "bad", "a", "--vector", "[1,1e60]"), 2, "byte 4");
    expect_fail(KITH("put", "bad", "a", "--vector", "1,2"), 2, "JSON array");
    expect_fail(KITH("put", "bad", "a"), 2, "--vector is missing");
    expect_fail(KITH("put", "a/b", "x", "--vector", "[1,2]"), 1, "names have none");
    expect_fail(KITH("export", "nope", test_path(&files, "x.jsonl")), 1, "there is no collection 'nope' in ");
    expect_fail(KITH("get", "bad", "a"), 1, "no such id");
    expect_fail(KITH("get", "bad", "\x1b[2J"), 1, "id \"\\u001b[2J\"");
    expect_fail(KITH("search", "bad", "--like", "a", "--like=b"), 2, "--like is given twice");
    expect_fail(KITH("count", "bad", "--run", "x"), 2, "--run is given twice");
    expect_fail(KITH("search", "bad", "--like", "a"), 1, "no such id");
    expect_fail(KITH("search", "bad", "--vector", "[1]"), 1, "has 1 dimensions, the collection has 2");
    expect_fail(KITH("search", "bad", "--vector", "[0,0]"), 1, "zero vector");
    expect_says(KITH("search", "bad", "--vector", "[1,1]", "-k", "1000"), "no hits", NULL);
    long_id[511] = '\0';
    expect(KITH("put", "bad", long_id, "--vector", "[1,2]"), 0, NULL, "");
    expect_ok(KITH("get", "bad", long_id), "[1,2]\n");
    expect(KITH("delete", "bad", "a", long_id), 1, NULL, "id \"a\": no such id");
    expect_count("bad", "0\n");
    expect_verified("bad");
    drop("bad");
}

static void results_that_cannot_be_written_are_an_error(void **state)
{
    (void)state;
    char *argv[] = { getenv("KITH_TEST_KITH"), (char[]){ "--help" }, NULL };
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        int full = open("/dev/full", O_WRONLY);
        dup2(full, STDOUT_FILENO);
        full = open("/dev/null", O_WRONLY);
        dup2(full, STDERR_FILENO);
        execv(argv[0], argv);
        _exit(126);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_vectors_are_put_found_and_deleted),
        cmocka_unit_test(views_have_the_keys_of_the_manual),
        cmocka_unit_test(ids_are_scrolled_through_and_earlier_epochs_looked_at),
        cmocka_unit_test(deletes_tell_of_ids_that_are_not_there),
        cmocka_unit_test(collections_are_laid_out_in_another_way_and_anew),
        cmocka_unit_test(a_back_up_is_a_file_and_a_collection_again),
        cmocka_unit_test(exit_status_two_is_bad_usage),
        cmocka_unit_test(help_and_version_are_answered),
        cmocka_unit_test(bad_ids_names_and_vectors_are_refused),
        cmocka_unit_test(results_that_cannot_be_written_are_an_error),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
