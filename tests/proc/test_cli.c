/*
 * test_cli.c - kith, the command line, against a real kithd: the contract that scripts are written
 * against, and every bad input that it can show, with message and exit status.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/layout/header.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

enum { ARG_MAX_COUNT = 24, ROWS = 600, DIM = 6 };

static struct test_daemon daemon_;
static struct test_dir files;
static char run_path[TEST_PATH_SIZE + 8];

struct result {
    int status; /* exit status; 128 + the signal that ended it */
    char *out, *err;
};

static char *read_file(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (f == NULL || fstat(fileno(f), &st) != 0)
        test_die("%s: %s", path, strerror(errno));
    char *text = calloc(1, (size_t)st.st_size + 1);
    if (text == NULL || fread(text, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        test_die("%s: cannot be read", path);
    fclose(f);
    return text;
}

static void run_argv(struct result *r, const char *const argv[])
{
    /* Not test_path(), whose few buffers the arguments may be in. */
    char out[TEST_PATH_SIZE + 8], err[TEST_PATH_SIZE + 8];
    snprintf(out, sizeof out, "%s/stdout", files.path);
    snprintf(err, sizeof err, "%s/stderr", files.path);
    pid_t pid = fork();
    if (pid < 0)
        test_die("fork: %s", strerror(errno));
    if (pid == 0) {
        int o = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600),
            e = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(o, STDOUT_FILENO);
        dup2(e, STDERR_FILENO);
        alarm(60); /* a command that hangs fails the test */
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(126);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r->out = read_file(out);
    r->err = read_file(err);
}

static void done(struct result *r)
{
    free(r->out);
    free(r->err);
}

/* kith --run RUN ARGS..., NULL-terminated. */
static struct result run_kith(const char *first, ...)
{
    struct result r;
    const char *argv[ARG_MAX_COUNT] = { getenv("KITH_TEST_KITH"), "--run", run_path };
    size_t n = 3;
    va_list ap;
    va_start(ap, first);
    for (const char *arg = first; arg != NULL && n + 1 < ARG_MAX_COUNT; arg = va_arg(ap, const char *))
        argv[n++] = arg;
    va_end(ap);
    run_argv(&r, argv);
    return r;
}

#define KITH(...) run_kith(__VA_ARGS__, NULL)

static void expect(struct result r, int status, const char *out, const char *err)
{
    if (r.status != status || (out != NULL && strcmp(r.out, out) != 0) ||
        (err != NULL && (*err == '\0' ? *r.err != '\0' : strstr(r.err, err) == NULL)))
        fail_msg("status %d (wanted %d)\nstdout: %s\n wanted: %s\nstderr: %s\n wanted: %s", r.status, status,
                 r.out, out != NULL ? out : "anything", r.err, err != NULL ? err : "anything");
    if (status != 0 && *r.err == '\0')
        fail_msg("failed without a word");
    done(&r);
}

/* It worked: this on stdout, nothing on stderr. */
static void expect_ok(struct result r, const char *out)
{
    expect(r, 0, out, "");
}

/* It did not: nothing on stdout, this in the message. */
static void expect_fail(struct result r, int status, const char *err)
{
    expect(r, status, "", err);
}

/* It worked, and each of these is somewhere in the output. */
static void expect_says(struct result r, ...)
{
    va_list ap;
    va_start(ap, r);
    for (const char *text; (text = va_arg(ap, const char *)) != NULL;)
        if (r.status != 0 || strstr(r.out, text) == NULL)
            fail_msg("status %d, \"%s\" is not in: %s%s", r.status, text, r.out, r.err);
    va_end(ap);
    done(&r);
}

static const char *write_file(const char *name, const void *bytes, size_t len)
{
    const char *path = test_path(&files, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(bytes, 1, len, f) != len || fclose(f) != 0)
        test_die("%s: %s", path, strerror(errno));
    return path;
}

static const char *write_text(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

/* ROWS rows of small whole numbers, so that every format holds them exactly. */
static void make_rows(float rows[ROWS][DIM])
{
    struct test_rand r;
    test_rand_seed(&r, 7);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < DIM; j++)
            rows[i][j] = (float)(test_rand_below(&r, 200) + 1);
}

static const char *write_fvecs(const char *name, float rows[][DIM], size_t n)
{
    const int32_t dim = DIM;
    const char *path = test_path(&files, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL)
        test_die("%s: %s", path, strerror(errno));
    for (size_t i = 0; i < n; i++) {
        fwrite(&dim, 4, 1, f);
        fwrite(rows[i], sizeof(float), DIM, f);
    }
    fclose(f);
    return path;
}

static void create(const char *name, const char *dim, const char *metric)
{
    struct result r = KITH("create", name, "--dim", dim, "--metric", metric);
    expect(r, 0, NULL, "");
}

static void drop(const char *name)
{
    struct result r = KITH("drop", name);
    expect(r, 0, NULL, "");
}

static void expect_count(const char *name, const char *count)
{
    expect_ok(KITH("count", name), count);
}

static void expect_verified(const char *name)
{
    expect_says(KITH("verify", name, "--json"), "\"clean\":true", "\"violations\":0,\"first\":[]", NULL);
}

/* ---- the contract ------------------------------------------------------------------------ */

static void single_vectors_are_put_found_and_deleted(void **state)
{
    (void)state;
    expect_ok(KITH("--json", "create", "one", "--dim", "2", "--metric", "l2", "--m", "8", "--ef-construction",
                   "50"),
              "{\"name\":\"one\",\"dim\":2,\"metric\":\"l2\",\"m\":8,\"ef_construction\":50,"
              "\"quantization\":\"auto\",\"keep\":\"f32\",\"max_vectors\":16777216,\"fixed\":false}\n");
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
        KITH("--json", "inspect", "views"), "{\"name\":\"views\",\"uid\":\"", "\"format\":2,",
        "\"quantization\":\"none\",\"keep\":\"f32\",\"code_bits\":0,\"vector_bytes\":12,\"code_bytes\":12,",
        "\"row\":{\"bytes\":128,\"links\":128,\"blocks\":0,\"block_bytes\":0,\"signs\":0},",
        "\"generation\":1,", "\"durable_epoch\":1,", "\"timeline\":", "\"unlinked\":0,", "\"reused\":0,",
        "\"moved\":false,", "\"dropped\":false,", "\"commits\":1,", "\"sweeps\":0,",
        "\"entry\":{\"slot\":0,\"level\":", "\"id_table\":{\"area\":0,\"capacity\":",
        "\"filled\":1,\"rebuilds\":0}", "\"notes\":{\"epoch\":1,\"live\":1,\"slots\":0,\"condemned\":false},",
        "\"regions\":[{\"region\":\"header\",\"offset\":0,\"used\":65536,\"taken\":65536,\"reserved\":65536,\"live\":65536,\"dead\":0",
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

static void exit_status_two_is_bad_usage_or_not_in_this_version(void **state)
{
    (void)state;
    struct result r;
    const char *program = getenv("KITH_TEST_KITH");
    run_argv(&r, (const char *[]){ program, NULL });
    expect_fail(r, 2, "which command?");
    expect_fail(KITH("frobnicate"), 2, "there is no command frobnicate");
    expect_fail(KITH("search", "x", "--vector", "[1]", "--filter", "a = 1"), 2,
                "--filter is not in this version");
    expect_fail(KITH("put", "x", "a", "--vector", "[1]", "--payload", "{}"), 2,
                "--payload is not in this version");
    expect_fail(KITH("load", "x", "a.fvecs", "--payload", "p"), 2, "--payload is not in this version");
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

/* ---- files ------------------------------------------------------------------------------- */

static void every_format_loads_the_same_vectors(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    const int32_t dim = DIM;
    char header[128], jsonl[TEST_PATH_SIZE], fvecs[TEST_PATH_SIZE], bvecs[TEST_PATH_SIZE],
        npy[TEST_PATH_SIZE], ids[TEST_PATH_SIZE];
    make_rows(rows);
    snprintf(fvecs, sizeof fvecs, "%s", write_fvecs("v.fvecs", rows, ROWS));
    snprintf(bvecs, sizeof bvecs, "%s", test_path(&files, "v.bvecs"));
    snprintf(npy, sizeof npy, "%s", test_path(&files, "v.npy"));
    snprintf(jsonl, sizeof jsonl, "%s", test_path(&files, "v.jsonl"));
    snprintf(ids, sizeof ids, "%s", test_path(&files, "v.ids"));
    FILE *b = fopen(bvecs, "wb"), *n = fopen(npy, "wb"), *j = fopen(jsonl, "wb"), *i_ = fopen(ids, "wb");
    assert_true(b != NULL && n != NULL && j != NULL && i_ != NULL);
    int len = snprintf(header, sizeof header,
                       "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }\n", ROWS, DIM);
    fwrite("\x93NUMPY\x01\x00", 1, 8, n);
    fputc(len, n);
    fputc(0, n);
    fwrite(header, 1, (size_t)len, n);
    for (size_t i = 0; i < ROWS; i++) {
        fwrite(&dim, 4, 1, b);
        fwrite(rows[i], sizeof(float), DIM, n);
        fprintf(j, "{\"id\":%zu,\"vector\":[", i);
        for (size_t k = 0; k < DIM; k++) {
            fputc((int)rows[i][k], b);
            fprintf(j, "%s%g", k > 0 ? "," : "", (double)rows[i][k]);
        }
        fprintf(j, "]}\n");
        fprintf(i_, "name %zu\n", i);
    }
    assert_true(fclose(b) == 0 && fclose(n) == 0 && fclose(j) == 0 && fclose(i_) == 0);

    char want[256] = "[", *at = want + 1;
    for (size_t k = 0; k < DIM; k++)
        at += sprintf(at, "%s%g", k > 0 ? "," : "", (double)rows[431][k]);
    strcpy(at, "]\n");
    const char *const paths[] = { fvecs, bvecs, npy, jsonl };
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        create("formats", "6", "l2");
        expect_says(KITH("--json", "load", "formats", paths[p]), "{\"name\":\"formats\",\"file\":\"",
                    "\"read\":600,\"loaded\":600,", "\"seconds\":", "\"rate\":", "\"error\":null}\n", NULL);
        expect_count("formats", "600\n");
        expect_ok(KITH("get", "formats", "431"), want);
        expect_verified("formats");
        drop("formats");
    }
    create("formats", "6", "l2");
    expect_says(KITH("load", "formats", fvecs, "--ids", ids), "loaded 600 vectors in ", NULL);
    expect_ok(KITH("get", "formats", "name 431"), want);
    /* Loading it again replaces every vector. */
    expect_says(KITH("load", "formats", fvecs, "--ids", ids), "loaded 600 vectors", NULL);
    expect_count("formats", "600\n");
    expect_verified("formats");
    drop("formats");
}

static void what_is_exported_loads_again(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    static const char *const SUFFIXES[] = { "jsonl", "fvecs", "npy" };
    make_rows(rows);
    create("from", "6", "l2");
    expect_says(KITH("load", "from", write_fvecs("e.fvecs", rows, ROWS)), "loaded 600", NULL);
    expect_says(KITH("put", "from", "odd \"id\" \xc3\xa4", "--vector", "[0.1,-0.2,3e-9,4,5,6]"), "epoch",
                NULL);
    struct result given = KITH("get", "from", "odd \"id\" \xc3\xa4");
    for (size_t i = 0; i < sizeof SUFFIXES / sizeof *SUFFIXES; i++) {
        char name[32], path[TEST_PATH_SIZE], ids[TEST_PATH_SIZE];
        snprintf(name, sizeof name, "out.%s", SUFFIXES[i]);
        snprintf(path, sizeof path, "%s", test_path(&files, name));
        snprintf(ids, sizeof ids, "%s", test_path(&files, "out.ids"));
        unlink(ids);
        expect_says(KITH("--json", "export", "from", path), "{\"name\":\"from\",\"file\":\"",
                    i == 0 ? "\"ids_file\":null," : "\"ids_file\":\"", "\"exported\":601,\"epoch\":", NULL);
        create("to", "6", "l2");
        if (i == 0)
            expect_says(KITH("load", "to", path), "loaded 601", NULL);
        else
            expect_says(KITH("load", "to", path, "--ids", ids), "loaded 601", NULL);
        expect_count("to", "601\n");
        expect_ok(KITH("get", "to", "odd \"id\" \xc3\xa4"), given.out);
        drop("to");
    }
    done(&given);
    drop("from");
    expect_fail(KITH("export", "from", test_path(&files, "none.npy")), 1, "from");
    assert_int_equal(access(test_path(&files, "none.npy"), F_OK), -1);
    assert_int_equal(access(test_path(&files, "none.npy.partial"), F_OK), -1);
}

/* ---- codes ------------------------------------------------------------------------------- */

static void every_quantization_with_everything_kept(void **state)
{
    (void)state;
    static const struct {
        const char *quantization, *keep, *decoded;
    } ALL[] = {
        { "none", "f32", NULL },   { "f16", "f32", NULL },  { "f16", "f16", "f16" },
        { "f16", "none", "f16" },  { "sq8", "f32", NULL },  { "sq8", "f16", "f16" },
        { "sq8", "none", "sq8" },  { "bits", "f32", NULL }, { "bits", "f16", "f16" },
        { "bits", "none", "sq8" },
    };
    static float rows[ROWS][DIM];
    static const char *const METRICS[] = { "l2", "cosine", "ip" };
    char data[TEST_PATH_SIZE], text[200], file[TEST_PATH_SIZE];
    make_rows(rows);
    snprintf(data, sizeof data, "%s", write_fvecs("codes.fvecs", rows, ROWS));
    snprintf(file, sizeof file, "%s", test_path(&files, "codes.jsonl"));
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++) {
        const char *decoded = ALL[i].decoded;
        snprintf(text, sizeof text, "quantization %s, keep %s\n", ALL[i].quantization, ALL[i].keep);
        expect_says(KITH("create", "codes", "--dim", "6", "--metric", METRICS[i % 3], "--quantization",
                         ALL[i].quantization, "--keep", ALL[i].keep),
                    text, NULL);
        expect(KITH("load", "codes", data), 0, NULL, "");
        expect_verified("codes");
        snprintf(
            text, sizeof text,
            "\"quantization\":\"%s\",\"quantization_wanted\":\"%s\",\"keep\":\"%s\",\"keep_wanted\":\"%s\","
            "\"undecided\":false,\"code_bits\":%u,\"decoded\":%s,",
            ALL[i].quantization, ALL[i].quantization, ALL[i].keep, ALL[i].keep,
            strcmp(ALL[i].quantization, "bits") ? 0 : kithi_geometry_code_bits(DIM),
            decoded ? "true" : "false");
        expect_says(KITH("--json", "stats", "codes"), text, NULL);
        snprintf(text, sizeof text, "values decoded from %s codes", decoded ? decoded : "");
        if (decoded)
            expect_says(KITH("stats", "codes"), text, NULL);
        snprintf(text, sizeof text, "\"quantization\":\"%s\",\"keep\":\"%s\"", ALL[i].quantization,
                 ALL[i].keep);
        expect_says(KITH("--json", "list"), text, NULL);
        expect_says(KITH("--json", "inspect", "codes"), text, NULL);
        expect_says(KITH("inspect", "codes"), ALL[i].quantization, ALL[i].keep,
                    strcmp(ALL[i].quantization, "bits")
                        ? "128 B: links"
                        : "704 B: links, the code, 1 x 512 B for neighbours with 64 signs",
                    NULL);

        /* Whoever is given decoded values is told. */
        snprintf(text, sizeof text, "values are decoded from %s codes", decoded ? decoded : "");
        expect(KITH("get", "codes", "431"), 0, NULL, decoded ? text : "");
        expect(KITH("export", "codes", file), 0, NULL, decoded ? text : "");
        snprintf(text, sizeof text, "\"decoded\":%s}\n", decoded ? "true" : "false");
        expect_says(KITH("--json", "get", "codes", "431"), text, NULL);
        expect_says(KITH("--json", "export", "codes", file), text, NULL);
        drop("codes");
    }

    /* A daemon that starts again finds the same. */
    expect(
        KITH("create", "codes", "--dim", "6", "--metric", "l2", "--quantization", "bits", "--keep", "none"),
        0, NULL, "");
    expect(KITH("load", "codes", data), 0, NULL, "");
    assert_int_equal(test_daemon_stop(&daemon_), 0);
    assert_int_equal(test_daemon_start(&daemon_), 0);
    expect_says(KITH("--json", "stats", "codes"), "\"live\":600,", "\"generation\":1,",
                "\"quantization\":\"bits\",\"quantization_wanted\":\"bits\",\"keep\":\"none\"", NULL);
    expect_verified("codes");
    drop("codes");
}

/* By the command itself, which asks no daemon. */
static void codes_that_do_not_go_together_are_bad_usage(void **state)
{
    (void)state;
    static const char *const KEEP[] = { "f16", "none" };
    for (size_t i = 0; i < 2; i++) {
        char text[100];
        struct result r;
        snprintf(text, sizeof text,
                 "--keep %s needs codes: use --quantization f16, sq8, bits or auto, or --keep f32", KEEP[i]);
        expect_fail(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--quantization", "none",
                         "--keep", KEEP[i]),
                    2, text);
        run_argv(&r, (const char *[]){ getenv("KITH_TEST_KITH"), "--run", test_path(&files, "no-such-run"),
                                       "create", "codes", "--dim", "2", "--metric", "l2", "--keep", KEEP[i],
                                       "--quantization=none", NULL });
        expect_fail(r, 2, text);
        /* auto will choose one that goes with it. */
        expect(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--keep", KEEP[i]), 0, NULL, "");
        snprintf(text, sizeof text, "\"keep\":\"f32\",\"keep_wanted\":\"%s\"", KEEP[i]);
        expect_says(KITH("--json", "stats", "codes"), text, NULL);
        expect_says(KITH("stats", "codes"), "auto has still to choose", "until auto has chosen", NULL);
        drop("codes");
    }
    expect_ok(KITH("list"), "no collections\n");

    /* Names that are none. */
    static const char *const WRONG[] = { "F16", "f32", "sq", "bits2" };
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++)
        expect_fail(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--quantization", WRONG[i]), 2,
                    "--quantization is none, f16, sq8, bits or auto");
    static const char *const UNKEPT[] = { "sq8", "auto", "F32", "bits" };
    for (size_t i = 0; i < sizeof UNKEPT / sizeof *UNKEPT; i++)
        expect_fail(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--keep", UNKEPT[i]), 2,
                    "--keep is f32, f16 or none");
}

static void a_wrong_line_is_named_and_all_before_it_is_kept(void **state)
{
    (void)state;
    static const struct {
        const char *bad, *text;
    } cases[] = {
        { "{\"id\":\"x\",\"vector\":[1,2,}", "line 501, byte " },
        { "{\"id\":\"x\",\"vector\":[1,2,3]}", "line 501: has 3 dimensions, the collection has 2" },
        { "{\"id\":\"\",\"vector\":[1,2]}", "line 501, byte " },
        { "{\"vector\":[1,2]}", "line 501: has no \"id\"" },
        { "{\"id\":\"x\",\"vector\":[0,0]}", "line 501: a zero vector has no direction" },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *path = test_path(&files, "bad.jsonl");
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        for (int i = 1; i <= 700; i++) {
            if (i == 501)
                fprintf(f, "%s\n", cases[c].bad);
            else
                fprintf(f, "{\"id\":%d,\"vector\":[1,%d]}\n", i, i);
        }
        assert_int_equal(fclose(f), 0);
        create("lines", "2", "cosine");
        struct result r = KITH("--json", "load", "lines", path);
        if (r.status != 1 || strstr(r.err, cases[c].text) == NULL ||
            strstr(r.err, "500 vectors were loaded") == NULL || strstr(r.out, "\"loaded\":500,") == NULL ||
            strstr(r.out, "\"error\":\"") == NULL)
            fail_msg("status %d, stdout %s, stderr %s", r.status, r.out, r.err);
        done(&r);
        expect_count("lines", "500\n");
        expect_verified("lines");
        drop("lines");
    }
}

static void wrong_vector_files_are_refused(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    make_rows(rows);
    create("files", "6", "l2");
    write_fvecs("cut.fvecs", rows, 10);
    assert_int_equal(truncate(test_path(&files, "cut.fvecs"), 10 * (4 + DIM * 4) - 1), 0);
    expect_fail(KITH("load", "files", test_path(&files, "cut.fvecs")), 1,
                "row 9: the file ends in the middle");
    expect_count("files", "9\n");
    FILE *f = fopen(write_fvecs("mixed.fvecs", rows, 10), "ab");
    const int32_t five = 5;
    assert_non_null(f);
    fwrite(&five, 4, 1, f);
    fwrite(rows[0], 4, 5, f);
    fclose(f);
    expect_fail(KITH("load", "files", test_path(&files, "mixed.fvecs")), 1,
                "row 10: has 5 dimensions, the collection has 6");
    rows[3][2] = NAN;
    expect_fail(KITH("load", "files", write_fvecs("nan.fvecs", rows, 10)), 1,
                "row 3: a vector holds NaN or infinity");
    expect_fail(KITH("load", "files", test_path(&files, "none.fvecs")), 1, "none.fvecs: cannot be opened");
    expect_fail(KITH("load", "files", write_text("v.txt", "1 2 3")), 1,
                "are read from .fvecs, .bvecs, .npy and .jsonl");
    char ids[TEST_PATH_SIZE];
    rows[3][2] = 1;
    snprintf(ids, sizeof ids, "%s", write_text("short.ids", "a\nb\n"));
    expect_fail(KITH("load", "files", write_fvecs("ten.fvecs", rows, 10), "--ids", ids), 1,
                "ends after 2 ids");
    expect_ok(KITH("count", "files"), "12\n");
    snprintf(ids, sizeof ids, "%s", write_text("long.ids", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n"));
    expect(KITH("load", "files", test_path(&files, "ten.fvecs"), "--ids", ids), 1, NULL,
           "has more lines than");
    snprintf(ids, sizeof ids, "%s", write_text("bad.ids", "a\n\xff\n"));
    expect_fail(KITH("load", "files", test_path(&files, "ten.fvecs"), "--ids", ids), 1,
                "bad.ids: line 2: not an id");
    snprintf(ids, sizeof ids, "%s", write_text("some.ids", "a\n"));
    expect_fail(KITH("load", "files", write_text("x.jsonl", ""), "--ids", ids), 2,
                "--ids does not go with a .jsonl file");
    expect_says(KITH("--json", "load", "files", write_text("none.jsonl", "")),
                "\"loaded\":0,\"epoch\":", "\"first_missing\":null,\"error\":null}", NULL);
    expect_verified("files");
    drop("files");
}

static void a_full_collection_says_so_and_keeps_what_was_acknowledged(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    make_rows(rows);
    expect(KITH("create", "full", "--dim", "6", "--metric", "l2", "--max-vectors", "300", "--fixed"), 0, NULL,
           "");
    struct result r = KITH("--json", "load", "full", write_fvecs("full.fvecs", rows, ROWS));
    unsigned long loaded = 0;
    const char *at = strstr(r.out, "\"loaded\":");
    if (r.status != 1 || at == NULL || strstr(r.err, "--max-vectors") == NULL ||
        strstr(r.out, "\"first_missing\":256,") == NULL ||
        strstr(r.err, "the first that is missing is ") == NULL)
        fail_msg("status %d, stdout %s, stderr %s", r.status, r.out, r.err);
    loaded = strtoul(at + strlen("\"loaded\":"), NULL, 10);
    done(&r);
    char count[32];
    snprintf(count, sizeof count, "%lu\n", loaded);
    expect_count("full", count);
    assert_true(loaded > 0 && loaded <= 300);
    expect_verified("full");
    drop("full");
}

static void bench_counts_recall_as_the_contract_says(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    enum { QUERIES = 20, K = 5 };
    int32_t truth[QUERIES][K + 1];
    char queries[TEST_PATH_SIZE], path[TEST_PATH_SIZE], ids[TEST_PATH_SIZE];
    make_rows(rows);
    create("bench", "6", "l2");
    FILE *f = fopen(test_path(&files, "b.ids"), "wb");
    assert_non_null(f);
    for (size_t i = 0; i < ROWS; i++)
        fprintf(f, "id-%zu\n", i);
    fclose(f);
    snprintf(ids, sizeof ids, "%s", test_path(&files, "b.ids"));
    expect_says(KITH("load", "bench", write_fvecs("b.fvecs", rows, ROWS), "--ids", ids), "loaded", NULL);
    /* Truth by counting, for each query, the K nearest rows. */
    for (size_t q = 0; q < QUERIES; q++) {
        bool taken[ROWS] = { false };
        truth[q][0] = K;
        for (size_t k = 1; k <= K; k++) {
            size_t best = ROWS;
            float best_distance = INFINITY;
            for (size_t i = 0; i < ROWS; i++) {
                float d = 0;
                for (size_t j = 0; j < DIM; j++)
                    d += (rows[i][j] - rows[q][j]) * (rows[i][j] - rows[q][j]);
                if (!taken[i] && d < best_distance) {
                    best = i;
                    best_distance = d;
                }
            }
            taken[best] = true;
            truth[q][k] = (int32_t)best;
        }
    }
    snprintf(queries, sizeof queries, "%s", write_fvecs("q.fvecs", rows, QUERIES));
    snprintf(path, sizeof path, "%s", write_file("t.ivecs", truth, sizeof truth));
    expect_says(KITH("--json", "bench", "bench", "--queries", queries, "--truth", path, "--ids", ids, "-k",
                     "5", "--ef", "200,600", "--threads", "2", "--seconds", "0.1"),
                "{\"ef\":200,\"recall\":1.000000,\"qps\":", ",\"p50_us\":", ",\"p99_us\":", ",\"p999_us\":",
                "\n{\"ef\":600,\"recall\":1.000000,", NULL);
    expect_says(KITH("bench", "bench", "--queries", queries, "--truth", path, "--ids", ids, "-k", "5", "--ef",
                     "200", "--seconds", "0.1"),
                "RECALL", "1.0000", NULL);
    expect_fail(KITH("bench", "bench", "--queries", queries, "--truth", path, "-k", "5"), 1,
                "was the same file loaded, without --ids?");
    expect_fail(KITH("bench", "bench", "--queries", queries, "--truth", path, "--ids", ids), 1,
                "row 0 knows 5 neighbours; -k 10");
    snprintf(path, sizeof path, "%s", write_file("t.ivecs", truth, sizeof truth[0]));
    expect_fail(KITH("bench", "bench", "--queries", queries, "--truth", path, "--ids", ids, "-k", "5"), 1,
                "has 1 rows, but there are 20 queries");
    expect_says(KITH("--json", "search", "bench", "--queries", queries, "-k", "1"),
                "{\"query\":0,\"hits\":[{\"id\":\"id-0\",\"distance\":0}]}\n"
                "{\"query\":1,\"hits\":[{\"id\":\"id-1\",\"distance\":0}]}\n",
                NULL);
    drop("bench");
}

/* ---- bad input ------------------------------------------------------------------------------ */

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

static struct result run_at(const char *run, const char *command)
{
    struct result r;
    const char *argv[] = { getenv("KITH_TEST_KITH"), "--run", run, command, "x", NULL };
    run_argv(&r, argv);
    return r;
}

static void run_directories_that_cannot_be_used_are_named(void **state)
{
    (void)state;
    char path[TEST_PATH_SIZE], name[121], deep[TEST_PATH_SIZE + sizeof name];
    snprintf(path, sizeof path, "%s", test_path(&files, "no-such-run"));
    expect_fail(run_at(path, "count"), 1, path);
    expect_fail(run_at(path, "drop"), 1, path);
    snprintf(path, sizeof path, "%s", write_text("a-file", ""));
    expect_fail(run_at(path, "count"), 1, "not a directory");
    snprintf(path, sizeof path, "%s", test_path(&files, "dangling"));
    assert_int_equal(symlink("no-such-run", path), 0);
    expect_fail(run_at(path, "count"), 1, path);
    snprintf(path, sizeof path, "%s", test_path(&files, "open"));
    assert_int_equal(mkdir(path, 0700), 0);
    expect_fail(run_at(path, "count"), 1, "x");
    expect_fail(run_at(path, "drop"), 1, "kithd");
    assert_int_equal(chmod(path, 0707), 0);
    expect_fail(run_at(path, "count"), 1, "everybody may write");
    /* A path that leaves no room for the socket's name. */
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(deep, sizeof deep, "%s/%s", path, name);
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(mkdir(deep, 0700), 0);
    expect_fail(run_at(deep, "drop"), 1, "use a shorter run directory");
}

static void files_that_are_no_segments_are_refused(void **state)
{
    (void)state;
    static unsigned char bytes[KITHI_HEADER_SIZE];
    create("real", "2", "l2");
    FILE *f = fopen(test_daemon_segment(&daemon_, "real"), "rb");
    assert_non_null(f);
    assert_int_equal(fread(bytes, 1, sizeof bytes, f), sizeof bytes);
    fclose(f);
    const char *path = write_file("short", bytes, 100);
    expect_fail(KITH("count", path), 1, path);
    path = write_file("header-only", bytes, sizeof bytes);
    expect_fail(KITH("count", path), 1, path);
    expect_fail(KITH("inspect", path), 1, path);
    expect_fail(KITH("verify", path), 1, path);
    ((struct kithi_header *)(void *)bytes)->version = 99;
    path = write_file("newer", bytes, sizeof bytes);
    expect_fail(KITH("count", path), 1, "99");
    memset(bytes, 'z', sizeof bytes);
    path = write_file("garbage", bytes, sizeof bytes);
    expect_fail(KITH("count", path), 1, "not a kith segment");
    drop("real");
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

static void without_a_daemon_reads_go_on_and_writes_say_why_not(void **state)
{
    (void)state;
    create("alone", "2", "l2");
    expect(KITH("put", "alone", "a", "--vector", "[1,2]"), 0, NULL, "");
    test_daemon_kill(&daemon_);
    expect_ok(KITH("get", "alone", "a"), "[1,2]\n");
    expect_ok(KITH("count", "alone"), "1\n");
    expect_says(KITH("list"), "alone", NULL);
    expect_says(KITH("--json", "stats", "alone"), "\"daemon\":false,\"state\":null,\"daemon_stats\":null}",
                NULL);
    expect_verified("alone");
    expect_says(KITH("search", "alone", "--vector", "[1,2]"), "a", NULL);
    expect_fail(KITH("put", "alone", "b", "--vector", "[1,2]"), 1, "no daemon answers");
    expect_fail(KITH("delete", "alone", "a"), 1, "no daemon answers");
    expect_fail(KITH("drop", "alone"), 1, "kithd");
    expect_fail(KITH("create", "other", "--dim", "2", "--metric", "l2"), 1, "kithd");
    expect_fail(KITH("load", "alone", write_text("l.jsonl", "{\"id\":1,\"vector\":[1,2]}\n")), 1,
                "no daemon answers");
    assert_int_equal(test_daemon_start(&daemon_), 0);
    expect(KITH("put", "alone", "b", "--vector", "[1,2]"), 0, NULL, "");
    expect_count("alone", "2\n");
    expect_verified("alone");
    drop("alone");
}

/* As many rows as fill 64 MiB, of the widest vectors there are. */
static const char *write_wide_rows(void)
{
    static unsigned char row[4 + 4096] = { 0, 16 };
    struct test_rand r;
    const char *path = test_path(&files, "wide.bvecs");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    test_rand_seed(&r, 3);
    for (size_t i = 0; i < 4500; i++) {
        for (size_t j = 4; j < sizeof row; j++)
            row[j] = (unsigned char)test_rand_below(&r, 256);
        assert_int_equal(fwrite(row, 1, sizeof row, f), sizeof row);
    }
    assert_int_equal(fclose(f), 0);
    return path;
}

static void a_full_run_directory_is_an_error_and_nothing_is_lost(void **state)
{
    (void)state;
    static const uint64_t SIZES[] = { UINT64_C(64) << 20, UINT64_C(1) << 20 };
    char usual_path[sizeof run_path], path[TEST_PATH_SIZE], count[32];
    memcpy(usual_path, run_path, sizeof usual_path);
    snprintf(path, sizeof path, "%s", write_wide_rows());
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        struct test_daemon small;
        test_daemon_init(&small);
        test_dir_remove(&small.run);
        if (!test_dir_mount(&small.run, SIZES[i])) {
            test_daemon_fini(&small);
            skip();
        }
        snprintf(run_path, sizeof run_path, "%s/run", small.run.path);
        snprintf(small.sock, sizeof small.sock, "%.230s/run/kithd.sock", small.run.path);
        assert_int_equal(mkdir(run_path, 0750), 0);
        assert_int_equal(test_daemon_start(&small), 0);
        struct result r =
            KITH("create", "wide", "--dim", "4096", "--metric", "l2", "--m", "4", "--ef-construction", "8");
        if (r.status != 0) { /* too small for a collection at all: then it says so */
            expect_fail(r, 1, "enlarge the tmpfs");
        } else {
            done(&r);
            r = KITH("--json", "load", "wide", path);
            const char *at = strstr(r.out, "\"loaded\":");
            if (r.status != 1 || at == NULL || strstr(r.err, "enlarge the tmpfs") == NULL)
                fail_msg("status %d, stdout %s, stderr %s", r.status, r.out, r.err);
            snprintf(count, sizeof count, "%lu\n", strtoul(at + strlen("\"loaded\":"), NULL, 10));
            done(&r);
            expect_count("wide", count);
            expect_verified("wide");
            if (strcmp(count, "0\n") != 0) {
                expect_says(KITH("search", "wide", "--like", "0"), "DISTANCE", NULL);
                expect(KITH("delete", "wide", "0"), 0, NULL, "");
            }
            drop("wide");
        }
        expect_ok(KITH("list"), "no collections\n");
        assert_int_equal(test_daemon_stop(&small), 0);
        test_daemon_fini(&small);
    }
    memcpy(run_path, usual_path, sizeof run_path);
}

static void a_read_only_mount_is_enough_for_reading(void **state)
{
    (void)state;
    struct test_dir bound;
    create("mounted", "2", "l2");
    expect(KITH("put", "mounted", "a", "--vector", "[1,2]"), 0, NULL, "");
    if (test_dir_bind_read_only(&daemon_.run, &bound)) {
        char usual_path[sizeof run_path];
        memcpy(usual_path, run_path, sizeof usual_path);
        snprintf(run_path, sizeof run_path, "%s/run", bound.path);
        expect_ok(KITH("get", "mounted", "a"), "[1,2]\n");
        expect_says(KITH("search", "mounted", "--vector", "[1,2]"), "DISTANCE", NULL);
        expect_says(KITH("inspect", "mounted"), "REGION", NULL);
        expect_verified("mounted");
        /* Connecting works there, too: what is allowed is the daemon's to decide. */
        expect(KITH("put", "mounted", "b", "--vector", "[3,4]"), 0, NULL, "");
        expect_count("mounted", "2\n");
        memcpy(run_path, usual_path, sizeof run_path);
    }
    test_dir_remove(&bound);
    drop("mounted");
}

static int set_up(void **state)
{
    (void)state;
    if (getenv("KITH_TEST_KITH") == NULL)
        test_die("KITH_TEST_KITH does not name the program; run this test through ctest, or set it");
    test_dir_make(&files);
    test_daemon_init(&daemon_);
    snprintf(run_path, sizeof run_path, "%s/run", daemon_.run.path);
    return test_daemon_start(&daemon_);
}

static int tear_down(void **state)
{
    (void)state;
    int status = test_daemon_stop(&daemon_);
    test_daemon_fini(&daemon_);
    test_dir_remove(&files);
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_vectors_are_put_found_and_deleted),
        cmocka_unit_test(views_have_the_keys_of_the_manual),
        cmocka_unit_test(ids_are_scrolled_through_and_earlier_epochs_looked_at),
        cmocka_unit_test(deletes_tell_of_ids_that_are_not_there),
        cmocka_unit_test(collections_are_laid_out_in_another_way_and_anew),
        cmocka_unit_test(exit_status_two_is_bad_usage_or_not_in_this_version),
        cmocka_unit_test(help_and_version_are_answered),
        cmocka_unit_test(every_format_loads_the_same_vectors),
        cmocka_unit_test(what_is_exported_loads_again),
        cmocka_unit_test(every_quantization_with_everything_kept),
        cmocka_unit_test(codes_that_do_not_go_together_are_bad_usage),
        cmocka_unit_test(a_wrong_line_is_named_and_all_before_it_is_kept),
        cmocka_unit_test(wrong_vector_files_are_refused),
        cmocka_unit_test(a_full_collection_says_so_and_keeps_what_was_acknowledged),
        cmocka_unit_test(bench_counts_recall_as_the_contract_says),
        cmocka_unit_test(a_back_up_is_a_file_and_a_collection_again),
        cmocka_unit_test(bad_ids_names_and_vectors_are_refused),
        cmocka_unit_test(run_directories_that_cannot_be_used_are_named),
        cmocka_unit_test(files_that_are_no_segments_are_refused),
        cmocka_unit_test(results_that_cannot_be_written_are_an_error),
        cmocka_unit_test(a_full_run_directory_is_an_error_and_nothing_is_lost),
        cmocka_unit_test(a_read_only_mount_is_enough_for_reading),
        cmocka_unit_test(without_a_daemon_reads_go_on_and_writes_say_why_not),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
