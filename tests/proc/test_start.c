/*
 * test_start.c - a start with several collections: the socket answers at once, each collection is served as soon as it
 * is whole, a probe learns what is missing, and whoever asks for one that is not back gets told so. The daemon is held at places
 * of its start by files (KITH_HOLD, server/base/fault.h), so that nothing here depends on how long a start takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <kith/kith.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define DIM    8u
#define WAIT_S 60u

struct start {
    struct test_daemon d;
    char run[TEST_PATH_SIZE + 8], data[TEST_PATH_SIZE + 8];
};

static int set_up(void **state)
{
    struct start *t = calloc(1, sizeof *t);
    if (!t)
        return -1;
    test_daemon_init(&t->d);
    snprintf(t->run, sizeof t->run, "%s/run", t->d.run.path);
    snprintf(t->data, sizeof t->data, "%s/data", t->d.data.path);
    snprintf(t->d.hold, sizeof t->d.hold, "%.240s/hold", t->d.data.path);
    *state = t;
    return mkdir(t->d.hold, 0700);
}

static int tear_down(void **state)
{
    struct start *t = *state;
    test_daemon_fini(&t->d);
    free(t);
    return 0;
}

/* ---- what is done with collections ---- */

static void vector_of(uint32_t i, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, i + 1);
    test_rand_floats(&r, out, DIM);
}

static void create(const struct start *t, const char *name)
{
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.max_vectors = 100000; /* there are many, and sanitizers have little address space for them */
    opts.run_dir = t->run;
    assert_int_equal(kith_create(name, &opts), 0);
}

static int try_open(const struct start *t, const char *name, kith **out)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = t->run;
    return kith_open(name, &opts, out);
}

static kith *attach(const struct start *t, const char *name)
{
    kith *k = NULL;
    assert_int_equal(try_open(t, name, &k), 0);
    return k;
}

/* Vectors first .. first + n - 1, in batches of 50, each a group of its own. */
static void fill(kith *k, uint32_t first, uint32_t n)
{
    kith_batch *b = kith_batch_new(k);
    for (uint32_t i = first; i < first + n;) {
        kith_batch_clear(b);
        for (uint32_t j = 0; j < 50 && i < first + n; i++, j++) {
            char id[16];
            float v[DIM];
            snprintf(id, sizeof id, "%u", i);
            vector_of(i, v);
            assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
        }
        assert_int_equal(kith_batch_commit(b, NULL), 0);
    }
    kith_batch_free(b);
}

static int put(kith *k, uint32_t i)
{
    char id[16];
    float v[DIM];
    snprintf(id, sizeof id, "%u", i);
    vector_of(i, v);
    return kith_upsert(k, id, v, DIM, NULL);
}

static void expect_nearest(kith *k, uint32_t i)
{
    kith_results *r = kith_results_new();
    char id[16];
    float v[DIM];
    snprintf(id, sizeof id, "%u", i);
    vector_of(i, v);
    assert_int_equal(kith_search(k, v, DIM, 1, NULL, r), 1);
    assert_string_equal(kith_results_id(r, 0), id);
    kith_results_free(r);
}

static uint64_t count(const struct start *t, const char *name)
{
    uint64_t n = 0;
    kith *k = attach(t, name);
    assert_int_equal(kith_count(k, &n), 0);
    kith_close(k);
    return n;
}

/* ---- what is done with the daemon ---- */

static void path_of(const struct start *t, char out[3 * TEST_PATH_SIZE], const char *point, const char *name)
{
    snprintf(out, 3 * TEST_PATH_SIZE, "%s/%s-%s", t->d.hold, point, name);
}

static void hold(const struct start *t, const char *point, const char *name)
{
    char path[3 * TEST_PATH_SIZE];
    path_of(t, path, point, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void let_go(const struct start *t, const char *point, const char *name)
{
    char path[3 * TEST_PATH_SIZE];
    path_of(t, path, point, name);
    assert_int_equal(unlink(path), 0);
}

static void lose_segment(const struct start *t, const char *name)
{
    assert_int_equal(unlink(test_daemon_segment(&t->d, name)), 0);
}

static void listens(struct start *t)
{
    test_daemon_spawn(&t->d);
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; !test_daemon_listens(&t->d); test_nap())
        if (test_now_ms() > end || !test_daemon_alive(&t->d, NULL)) {
            test_daemon_show_log(&t->d);
            fail_msg("kithd does not listen");
        }
}

static bool says(const struct start *t, const char *name, const char *text)
{
    char *json = NULL;
    bool found = kith_readiness(name, t->run, &json, NULL) >= 0 && strstr(json, text) != NULL;
    free(json);
    return found;
}

static void wait_until(struct start *t, const char *name, const char *text)
{
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; !says(t, name, text); test_nap())
        if (test_now_ms() > end || !test_daemon_alive(&t->d, NULL)) {
            test_daemon_show_log(&t->d);
            fail_msg("%s never was %s", name, text);
        }
}

#define SERVED "\"state\":\"served\""

/* Run kith and return its exit status; what it says is in out. */
static char said[8192];
static int kith_says(const struct start *t, const char *args)
{
    char command[1024 + 3 * TEST_PATH_SIZE];
    const char *program = getenv("KITH_TEST_KITH");
    assert_non_null(program);
    snprintf(command, sizeof command, "'%s' --run '%s' %s 2>&1", program, t->run, args);
    FILE *f = popen(command, "re");
    assert_non_null(f);
    size_t n = fread(said, 1, sizeof said - 1, f);
    said[n] = '\0';
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect_said(const char *text)
{
    if (!strstr(said, text))
        fail_msg("\"%s\" is not in: %s", text, said);
}

static int exit_status(struct start *t)
{
    int status = 0;
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; test_daemon_alive(&t->d, &status); test_nap())
        if (test_now_ms() > end) {
            test_daemon_show_log(&t->d);
            fail_msg("kithd does not leave");
        }
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* ---- tests ---- */

static void a_collection_is_served_while_another_comes_back(void **state)
{
    struct start *t = *state;
    struct kith_error error = { 0 };
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    kith_pipe *pipe = NULL;
    assert_int_equal(test_daemon_start(&t->d), 0);
    create(t, "large");
    create(t, "small");
    kith *large = attach(t, "large"), *small = attach(t, "small");
    fill(large, 0, 3000);
    fill(small, 0, 100);
    assert_int_equal(kith_checkpoint(large, NULL, NULL), 0);
    fill(large, 3000, 500);
    test_daemon_kill(&t->d);
    lose_segment(t, "large"); /* this one has to be read, the other one is taken over */
    hold(t, "load", "large");
    hold(t, "replay", "large");
    listens(t);
    wait_until(t, "small", SERVED);
    wait_until(t, "large", "\"state\":\"loading\",\"unit\":\"bytes\",\"done\":");

    /* The one that is back. */
    assert_int_equal(put(small, 100), 0);
    expect_nearest(small, 100);
    assert_int_equal(count(t, "small"), 101);
    assert_int_equal(kith_readiness("small", t->run, NULL, NULL), 0);
    assert_int_equal(kith_says(t, "stats --ready small"), 0);
    assert_int_equal(kith_checkpoint(small, NULL, NULL), 0);
    create(t, "new"); /* others come and go */
    assert_int_equal(kith_drop("new", t->run, NULL), 0);

    /* The one that is not. */
    assert_int_equal(kith_readiness("large", t->run, NULL, NULL), 1);
    assert_int_equal(kith_readiness(NULL, t->run, NULL, NULL), 1);
    assert_int_equal(kith_readiness("none", t->run, NULL, &error), KITH_E_NO_COLLECTION);
    assert_int_equal(put(large, 1), KITH_E_STARTING);
    assert_int_equal(kith_flush(large, NULL), KITH_E_STARTING);
    assert_int_equal(kith_checkpoint(large, NULL, NULL), KITH_E_STARTING);
    assert_int_equal(kith_pipe_open(large, 1, &pipe), KITH_E_STARTING);
    char *json = NULL;
    assert_int_equal(kith_daemon_stats(large, &json), KITH_E_STARTING);
    expect_nearest(large, 17); /* who has the segment that is gone searches on in it */
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.run_dir = t->run;
    opts.error = &error;
    assert_int_equal(kith_create("large", &opts), KITH_E_EXISTS);
    assert_non_null(strstr(error.text, "still bringing back"));
    assert_int_equal(kith_drop("large", t->run, &error), KITH_E_STARTING);
    assert_non_null(strstr(error.text, "% of its checkpoint is loaded"));
    assert_int_equal(kith_says(t, "stats --ready"), 1);
    expect_said("1 not served yet\nlarge: loading, ");
    assert_int_equal(kith_says(t, "stats --alive"),
                     0); /* it answers, which is all that a liveness probe may ask */
    expect_said("1 not served yet\nlarge: loading, ");
    assert_int_equal(kith_says(t, "stats --alive large"), 2);
    assert_int_equal(kith_says(t, "--json stats --ready large"), 1);
    expect_said("{\"ready\":false,\"served\":0,\"coming\":1,\"collections\":[{\"name\":\"large\",\"state\":");
    assert_int_equal(kith_says(t, "stats large"), 1);
    expect_said("still bringing large back (loading, ");
    assert_int_equal(kith_says(t, "list"), 0);
    expect_said("STATE");
    expect_said("loading, ");
    assert_int_equal(kith_says(t, "--json list"), 0);
    expect_said("{\"name\":\"large\",\"state\":\"loading\"}");
    expect_said("\"state\":\"served\"}");
    assert_int_equal(kith_says(t, "top --interval 0.1"), 0);
    expect_said("kithd is bringing it back");
    assert_int_equal(kith_says(t, "--json top --interval 0.1"), 0);
    expect_said("{\"name\":\"large\",\"daemon\":false,\"problem\":\"kithd is bringing it back\",");

    let_go(t, "load", "large");
    wait_until(t, "large", "\"state\":\"replaying\",\"unit\":\"groups\",\"done\":");
    assert_int_equal(put(large, 1), KITH_E_STARTING);
    let_go(t, "replay", "large");
    assert_int_equal(test_daemon_wait_ready(&t->d), 0);
    assert_int_equal(kith_says(t, "stats --ready"), 0);
    expect_said("ready\n");
    assert_int_equal(put(large, 3500), 0);
    expect_nearest(large, 3500);
    expect_nearest(large, 3333);
    assert_int_equal(count(t, "large"), 3501);
    kith_close(large);
    kith_close(small);
    assert_int_equal(test_daemon_stop(&t->d), 0);
    assert_int_equal(kith_says(t, "stats --ready"), 1); /* nobody there is not ready */
    assert_int_equal(kith_says(t, "stats --alive"), 1);
}

/* A message with this in it comes, and none with the other until then. */
static void told(int fd, const char *what, const char *not_before)
{
    char text[600];
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S;; test_nap()) {
        ssize_t n = recv(fd, text, sizeof text - 1, 0);
        assert_true(n >= 0 || test_now_ms() < end);
        text[n < 0 ? 0 : n] = '\0';
        assert_null(strstr(text, not_before));
        if (strstr(text, what))
            return;
    }
}

static void a_service_manager_is_told_once_all_are_served(void **state)
{
    struct start *t = *state;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char text[64] = "";
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/n", t->d.run.path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    assert_int_equal(test_daemon_start(&t->d), 0);
    create(t, "one");
    test_daemon_kill(&t->d);
    while (recv(fd, text, sizeof text, 0) > 0) {
    }
    setenv("WATCHDOG_USEC", "300000", 1);
    hold(t, "adopt", "one");
    listens(t);
    wait_until(t, "one", "adopting");
    told(fd, "STATUS=starting; 0 of 1 collections are served", "READY=1");
    told(fd, "EXTEND_TIMEOUT_USEC=", "READY=1");
    told(fd, "EXTEND_TIMEOUT_USEC=", "READY=1"); /* again: the loop turns, though nothing happens */
    let_go(t, "adopt", "one");
    told(fd, "READY=1", "STOPPING=1");
    told(fd, "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=");
    told(fd, "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=");
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    assert_true(test_daemon_answers(&t->d));
    assert_int_equal(test_daemon_stop(&t->d), 0);
    told(fd, "STOPPING=1", "READY=1");
    close(fd);
}

static void searches_begin_before_the_log_is_open(void **state)
{
    struct start *t = *state;
    kith *k = NULL;
    uint64_t n = 0;
    assert_int_equal(test_daemon_start(&t->d), 0);
    create(t, "one");
    k = attach(t, "one");
    fill(k, 0, 500);
    uint64_t epoch = kith_epoch(k);
    kith_close(k);
    test_daemon_kill(&t->d);
    lose_segment(t, "one");
    hold(t, "open", "one");
    listens(t);
    wait_until(t, "one", "\"state\":\"opening\"");
    k = attach(t, "one");
    /* The last group may not be on the disk for sure, and waits until it has been written anew. */
    assert_int_equal(kith_epoch(k), epoch - 1);
    assert_int_equal(kith_count(k, &n), 0);
    assert_int_equal(n, 450);
    expect_nearest(k, 123);
    assert_int_equal(put(k, 1000), KITH_E_STARTING);
    assert_int_equal(kith_wait_epoch(k, epoch, 50), KITH_E_TIMEOUT);
    let_go(t, "open", "one");
    assert_int_equal(kith_wait_epoch(k, epoch, 1000 * (int)WAIT_S), 0);
    assert_int_equal(test_daemon_wait_ready(&t->d), 0);
    assert_int_equal(put(k, 1000), 0);
    assert_int_equal(kith_count(k, &n), 0);
    assert_int_equal(n, 501);
    kith_close(k);

    /* What a checkpoint proves to be durable is there at once. */
    assert_int_equal(test_daemon_stop(&t->d), 0);
    lose_segment(t, "one");
    hold(t, "open", "one");
    listens(t);
    wait_until(t, "one", "\"state\":\"opening\"");
    assert_int_equal(count(t, "one"), 501);
    let_go(t, "open", "one");
    assert_int_equal(test_daemon_wait_ready(&t->d), 0);
}

static void sigterm_ends_a_start_at_any_point(void **state)
{
    struct start *t = *state;
    static const char *const points[] = { "adopt", "load", "replay", "open" };
    assert_int_equal(test_daemon_start(&t->d), 0);
    create(t, "one");
    create(t, "two");
    kith *k = attach(t, "one");
    fill(k, 0, 500);
    assert_int_equal(kith_checkpoint(k, NULL, NULL), 0);
    fill(k, 500, 200);
    kith_close(k);
    for (unsigned i = 0; i < sizeof points / sizeof *points; i++) {
        test_daemon_kill(&t->d);
        lose_segment(t, "one");
        hold(t, points[i], "one");
        listens(t);
        wait_until(t, "two", SERVED);
        wait_until(t, "one", i == 0 ? "adopting" : i == 1 ? "loading" : i == 2 ? "replaying" : "opening");
        assert_int_equal(test_daemon_stop(&t->d), 0);
        let_go(t, points[i], "one");
        assert_int_equal(test_daemon_start(&t->d), 0);
        assert_int_equal(count(t, "one"), 700);
        assert_int_equal(count(t, "two"), 0);
    }
}

/* Somebody holds a file of the log, as the ring of a killed daemon does for a moment. */
static void sigterm_is_heard_while_a_predecessors_writes_are_waited_for(void **state)
{
    struct start *t = *state;
    char log[4 * TEST_PATH_SIZE];
    assert_int_equal(test_daemon_start(&t->d), 0);
    create(t, "one");
    create(t, "two");
    kith *k = attach(t, "one");
    fill(k, 0, 100);
    kith_close(k);
    test_daemon_kill(&t->d);
    snprintf(log, sizeof log, "%s/one/wal/%020u.wal", t->data, 1);
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; flock(fd, LOCK_EX | LOCK_NB) != 0; test_nap())
        assert_true(test_now_ms() < end);
    listens(t);
    wait_until(t, "two", SERVED);
    wait_until(t, "one", "adopting");
    assert_int_equal(test_daemon_stop(&t->d), 0);
    assert_true(test_daemon_logged(&t->d, "event=start-stopped"));
    assert_false(
        test_daemon_logged(&t->d, "event=collection-refused")); /* which is how the wait ends by itself */
    close(fd);
    assert_int_equal(test_daemon_start(&t->d), 0);
    assert_int_equal(count(t, "one"), 100);
}

/* Without completions there is no tidy end, and none is needed. */
static void a_loop_that_fails_ends_the_daemon_as_a_kill_does(void **state)
{
    struct start *t = *state;
    static const char *const ops[] = { "loop-eio:60", "loop-eio:61", "loop-eio:160", "loop-eio:300" };
    assert_int_equal(test_daemon_start(&t->d), 0);
    create(t, "one");
    assert_int_equal(test_daemon_stop(&t->d), 0);
    uint32_t n = 0;
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
        int status = 0;
        kith *k = attach(t, "one");
        snprintf(t->d.fault, sizeof t->d.fault, "%s", ops[i]);
        test_daemon_spawn(&t->d);
        for (uint64_t end = test_now_ms() + 1000 * WAIT_S; test_daemon_alive(&t->d, &status);) {
            int rc = put(k, n);
            n += rc == 0;
            assert_true(rc == 0 || rc == KITH_E_NO_DAEMON || rc == KITH_E_STARTING ||
                        rc == KITH_E_UNKNOWN_OUTCOME);
            assert_true(test_now_ms() < end);
        }
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
        assert_true(test_daemon_logged(&t->d, "event=loop-failed"));
        assert_int_equal(truncate(t->d.log, 0), 0);
        t->d.fault[0] = '\0';
        assert_int_equal(test_daemon_start(&t->d), 0);
        assert_true(count(t, "one") == n || count(t, "one") == n + 1);
        assert_int_equal(put(k, n), 0);
        n++;
        assert_int_equal(count(t, "one"), n);
        kith_close(k);
        assert_int_equal(test_daemon_stop(&t->d), 0);
    }
}

/* Turn a bit of the first group of a collection's log. */
static void hurt(const struct start *t, const char *name)
{
    char log[4 * TEST_PATH_SIZE];
    unsigned char byte = 0;
    snprintf(log, sizeof log, "%s/%s/wal/%020u.wal", t->data, name, 1);
    int fd = open(log, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, 4096 + 300), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 4096 + 300), 1);
    close(fd);
}

/* What kithd says of a collection that it does not serve. */
static void expect_refused(const struct start *t, const char *name, const char *status, const char *reason)
{
    char *json = NULL, words[200];
    assert_int_equal(kith_readiness(name, t->run, &json, NULL), 1);
    snprintf(words, sizeof words, "\"coming\":0,\"collections\":[{\"name\":\"%s\",\"state\":\"refused\"",
             name);
    assert_non_null(strstr(json, words));
    snprintf(words, sizeof words, "\"status\":\"%s\",\"reason\":\"", status);
    assert_non_null(strstr(json, words));
    assert_non_null(strstr(json, reason));
    free(json);
}

static void a_damaged_collection_is_refused_and_the_others_are_served(void **state)
{
    struct start *t = *state;
    char conf[4 * TEST_PATH_SIZE], away[4 * TEST_PATH_SIZE], *names = NULL;
    struct kith_create_opts o = KITH_CREATE_OPTS_INIT;
    struct kith_error err = { 0 };
    static const char *const all[] = { "bad", "good", "lost" };
    assert_int_equal(test_daemon_start(&t->d), 0);
    for (unsigned i = 0; i < 3; i++)
        create(t, all[i]);
    kith *bad = attach(t, "bad"), *good = attach(t, "good"), *lost = attach(t, "lost");
    fill(bad, 0, 200);
    fill(good, 0, 100);
    fill(lost, 0, 50);
    test_daemon_kill(&t->d);
    lose_segment(t, "bad");
    hurt(t, "bad");
    snprintf(conf, sizeof conf, "%s/lost/collection.conf", t->data);
    snprintf(away, sizeof away, "%s/lost/conf.away", t->data);
    assert_int_equal(rename(conf, away), 0);

    for (unsigned i = 0; i < 2; i++) { /* whatever is there once more comes to the same */
        hold(t, "replay", "bad");
        listens(t);
        wait_until(t, "good", SERVED);
        assert_int_equal(put(good, 100 + i), 0);
        let_go(t, "replay", "bad");
        wait_until(t, "bad", "\"state\":\"refused\"");
        assert_true(test_daemon_logged(&t->d, "event=collection-refused name=bad"));
        assert_true(test_daemon_logged(&t->d, "event=collection-refused name=lost"));
        assert_false(test_daemon_logged(&t->d, "event=collection-refused name=good"));
        assert_true(test_daemon_logged(&t->d, "event=ready")); /* for whoever manages it */
        expect_refused(t, "bad", "KITH_E_LOG_DAMAGED", "kith wal --salvage");
        expect_refused(t, "lost", "ENOENT", "collection.conf is missing; restore it from a copy");
        assert_int_equal(kith_readiness(NULL, t->run, NULL, NULL), 2);
        assert_int_equal(kith_readiness("good", t->run, NULL, NULL), 0);
        assert_int_equal(kith_list(t->run, &names, NULL), 3);
        assert_memory_equal(names, "bad\0good\0lost\0", 14);
        free(names);
        /* Nobody takes their names, and who writes to one hears why that does not go; what is mapped is searched. */
        assert_int_equal(put(bad, 0), KITH_E_LOG_DAMAGED);
        expect_nearest(lost, 49);
        o.run_dir = t->run;
        o.dim = 8;
        o.metric = KITH_METRIC_L2;
        o.error = &err;
        assert_int_equal(kith_create("bad", &o), KITH_E_EXISTS);
        assert_non_null(strstr(err.text, "kithd does not serve \"bad\""));
        assert_int_equal(kith_drop("lost", t->run, &err), -ENOENT);
        assert_int_equal(put(good, 110 + i), 0);
        assert_int_equal(test_daemon_stop(&t->d), 0);
        assert_int_equal(truncate(t->d.log, 0), 0);
    }
    kith_close(bad);
    kith_close(good);
    kith_close(lost);

    /* They were left as they are: put back what was damaged, and all is there. */
    hurt(t, "bad");
    assert_int_equal(rename(away, conf), 0);
    assert_int_equal(test_daemon_start(&t->d), 0);
    assert_int_equal(kith_readiness(NULL, t->run, NULL, NULL), 0);
    assert_int_equal(count(t, "good"), 104);
    assert_int_equal(count(t, "bad"), 200);
    assert_int_equal(count(t, "lost"), 50);
}

static void with_nothing_left_to_serve_kithd_leaves(void **state)
{
    struct start *t = *state;
    assert_int_equal(test_daemon_start(&t->d), 0);
    create(t, "one");
    create(t, "two");
    for (unsigned i = 0; i < 2; i++) {
        kith *k = attach(t, i ? "two" : "one");
        fill(k, 0, 100);
        kith_close(k);
    }
    test_daemon_kill(&t->d);
    for (unsigned i = 0; i < 2; i++) {
        lose_segment(t, i ? "two" : "one");
        hurt(t, i ? "two" : "one");
    }
    test_daemon_spawn(&t->d);
    assert_int_equal(exit_status(t), 1);
    assert_true(test_daemon_logged(&t->d, "event=start-failed status=KITH_E_LOG_DAMAGED"));
    hurt(t, "one");
    assert_int_equal(truncate(t->d.log, 0), 0);
    test_daemon_spawn(&t->d);
    wait_until(t, "one", SERVED);
    wait_until(t, "two", "\"state\":\"refused\"");
    assert_int_equal(count(t, "one"), 100);
    expect_refused(t, "two", "KITH_E_LOG_DAMAGED", "two/wal/");
}

/* Warm ones first, small ones beside each other, large ones one by one. */
static void the_order_lets_few_wait(void **state)
{
    struct start *t = *state;
    static const char *const large[] = { "a-large", "b-large", "c-large" };
    char name[16];
    assert_int_equal(test_daemon_start(&t->d), 0);
    for (unsigned i = 0; i < 3; i++)
        create(t, large[i]);
    for (unsigned i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "s%u", i);
        create(t, name);
    }
    test_daemon_kill(&t->d);
    for (unsigned i = 0; i < 3; i++) {
        /* What says that it is a large one is the size of its newest checkpoint, which turns out not to be one. */
        char path[4 * TEST_PATH_SIZE];
        snprintf(path, sizeof path, "%s/%s/checkpoint-%020u", t->data, large[i], 0);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0 && ftruncate(fd, (off_t)(i + 1) << 30) == 0);
        close(fd);
        lose_segment(t, large[i]);
        hold(t, "adopt", large[i]);
    }
    for (unsigned i = 0; i < 12; i += 2) { /* half of the small ones are cold */
        snprintf(name, sizeof name, "s%u", i);
        lose_segment(t, name);
    }
    listens(t);
    for (unsigned i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "s%u", i);
        wait_until(t, name, SERVED);
    }
    for (unsigned i = 0; i < 3; i++) {
        wait_until(t, large[i], "adopting");
        for (unsigned j = i + 1; j < 3; j++)
            assert_true(says(t, large[j], "waiting"));
        let_go(t, "adopt", large[i]);
        wait_until(t, large[i], SERVED);
    }
    assert_int_equal(test_daemon_wait_ready(&t->d), 0);
}

static void many_collections_come_back(void **state)
{
    struct start *t = *state;
    /* The log of each begins with a file of 64 MiB. */
    struct statvfs fs;
    bool roomy = statvfs(t->d.data.path, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize > 40ull << 30;
    unsigned n = !roomy ? 40 : test_long() ? 400 : 200;
    char name[16];
    assert_int_equal(test_daemon_start(&t->d), 0);
    for (unsigned i = 0; i < n; i++) {
        snprintf(name, sizeof name, "c%03u", i);
        create(t, name);
    }
    kith *k = attach(t, "c007");
    fill(k, 0, 10);
    kith_close(k);
    for (unsigned cold = 0; cold < 2; cold++) {
        test_daemon_kill(&t->d);
        for (unsigned i = 0; cold && i < n; i++) {
            snprintf(name, sizeof name, "c%03u", i);
            lose_segment(t, name);
        }
        assert_int_equal(test_daemon_start(&t->d), 0);
        assert_int_equal(kith_readiness(NULL, t->run, NULL, NULL), 0);
        char *names = NULL;
        assert_int_equal(kith_list(t->run, &names, NULL), (int)n);
        free(names);
        assert_int_equal(count(t, "c007"), 10);
        assert_int_equal(count(t, "c039"), 0);
    }
    test_daemon_kill(&t->d);
}

/* Between any two instructions, as far as chance goes. */
static void a_death_during_a_start_is_harmless(void **state)
{
    struct start *t = *state;
    enum { COUNT = 6 };
    struct test_rand r;
    uint32_t sizes[COUNT];
    char name[16];
    uint64_t seed = test_seed();
    test_rand_seed(&r, seed);
    assert_int_equal(test_daemon_start(&t->d), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "c%u", i);
        create(t, name);
        kith *k = attach(t, name);
        sizes[i] = 50 + test_rand_below(&r, i < 4 ? 300 : 4000);
        fill(k, 0, sizes[i] / 2);
        if (i % 2)
            assert_int_equal(kith_checkpoint(k, NULL, NULL), 0);
        fill(k, sizes[i] / 2, sizes[i] - sizes[i] / 2);
        kith_close(k);
    }
    for (unsigned round = 0; round < (test_long() ? 200 : 20); round++) {
        test_daemon_kill(&t->d);
        for (unsigned i = 0; i < COUNT; i++) {
            snprintf(name, sizeof name, "c%u", i);
            if (test_rand_below(&r, 2))
                (void)unlink(test_daemon_segment(&t->d, name)); /* may be gone from the round before */
        }
        test_daemon_spawn(&t->d);
        for (uint64_t end = test_now_ms() + test_rand_below(&r, 250); test_now_ms() < end;)
            test_nap(); /* where it is by then is what is varied */
        assert_true(test_daemon_alive(&t->d, NULL));
    }
    test_daemon_kill(&t->d);
    assert_int_equal(test_daemon_start(&t->d), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "c%u", i);
        assert_int_equal(count(t, name), sizes[i]);
        kith *k = attach(t, name);
        expect_nearest(k, sizes[i] - 1);
        assert_int_equal(put(k, 100000), 0);
        kith_close(k);
        char command[64];
        snprintf(command, sizeof command, "verify %s", name);
        assert_int_equal(kith_says(t, command), 0);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_collection_is_served_while_another_comes_back),
        TEST(a_service_manager_is_told_once_all_are_served),
        TEST(searches_begin_before_the_log_is_open),
        TEST(sigterm_ends_a_start_at_any_point),
        TEST(sigterm_is_heard_while_a_predecessors_writes_are_waited_for),
        TEST(a_loop_that_fails_ends_the_daemon_as_a_kill_does),
        TEST(a_damaged_collection_is_refused_and_the_others_are_served),
        TEST(with_nothing_left_to_serve_kithd_leaves),
        TEST(the_order_lets_few_wait),
        TEST(many_collections_come_back),
        TEST(a_death_during_a_start_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
