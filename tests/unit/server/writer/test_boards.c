/*
 * test_boards.c - how kithd reads what readers write: sums, the dead, and everything that somebody who may write the
 * directory can put there.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/src/json.h"
#include "server/writer/collection.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

static const uint8_t UID[16] = "a collection's";

static const struct kithi_rights_policy ALONE = { .read_group = KITHI_NO_GROUP,
                                                  .write_group = KITHI_NO_GROUP };

struct world {
    struct test_dir run;
    char collection[TEST_PATH_SIZE + 8], dir[TEST_PATH_SIZE + 16];
    struct kithi_boards *b;
};

static void world_make(struct world *w)
{
    test_dir_make_shm(&w->run);
    snprintf(w->collection, sizeof w->collection, "%s/c", w->run.path);
    snprintf(w->dir, sizeof w->dir, "%s/" KITHI_BOARD_DIR, w->collection);
    assert_int_equal(mkdir(w->collection, 0750), 0);
    w->b = calloc(1, sizeof *w->b);
    assert_non_null(w->b);
    kithi_boards_init(w->b, NULL);
    kithi_boards_open(w->b, w->collection, UID, &ALONE, true);
    assert_true(w->b->dir_fd >= 0);
}

static void world_remove(struct world *w)
{
    struct kithi_errmsg err;
    kithi_boards_fini(w->b);
    free(w->b);
    assert_int_equal(kithi_boards_remove(w->collection, &err), 0);
    test_dir_remove(&w->run);
}

static const char *slot_path(const struct world *w, uint32_t slot)
{
    static char path[TEST_PATH_SIZE + 32];
    char name[KITHI_BOARD_NAME];
    kithi_board_name(slot, name);
    snprintf(path, sizeof path, "%s/%s", w->dir, name);
    return path;
}

struct bytes {
    struct kithi_board_header h;
    struct kithi_board_lane lanes[KITHI_BOARD_LANE_MAX];
};

/* A board as a reader makes it, with counts that follow from n. */
static void fill(struct bytes *x, uint32_t lanes, uint64_t n)
{
    memset(x, 0, sizeof *x);
    atomic_init(&x->h.magic, KITHI_BOARD_MAGIC);
    x->h.version = KITHI_BOARD_VERSION;
    x->h.lane_count = lanes;
    memcpy(x->h.uid, UID, sizeof UID);
    x->h.opened_ns = 5000000000;
    x->h.pid = 17;
    x->h.timed = 1;
    memcpy(x->h.program, "a \"reader\"", 10);
    for (uint32_t i = 0; i < lanes; i++) {
        atomic_init(&x->lanes[i].searches, n);
        atomic_init(&x->lanes[i].failures, 1);
        atomic_init(&x->lanes[i].expansions, 10 * n);
        atomic_init(&x->lanes[i].lag_max, n + i);
        atomic_init(&x->lanes[i].epoch, 40 + i);
        atomic_init(&x->lanes[i].latency[kithi_board_bucket(20000)], n);
    }
}

/* Put it there; the descriptor, whose lock says that the reader lives. */
static int put(const struct world *w, uint32_t slot, const void *bytes, size_t len, bool alive)
{
    int fd = open(slot_path(w, slot), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, 0), len);
    if (alive)
        assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    return fd;
}

static void look(struct world *w)
{
    kithi_boards_look(w->b);
    kithi_boards_take(w->b, 1);
}

static bool there(const struct world *w, uint32_t slot)
{
    struct stat st;
    return lstat(slot_path(w, slot), &st) == 0;
}

static const char *json(const struct world *w)
{
    static char text[KITHI_BOARDS_JSON_SIZE];
    struct kithi_json j;
    int n = kithi_boards_json(w->b, 2, text);
    assert_true(n > 0 && (size_t)n == strlen(text));
    kithi_json_init(&j);
    kithi_json_begin(&j, text, (size_t)n);
    kithi_json_skip(&j);
    assert_int_equal(kithi_json_finish(&j), 0);
    kithi_json_fini(&j);
    return text;
}

static void living_boards_are_added_up(void **state)
{
    (void)state;
    struct world w;
    static struct bytes x;
    world_make(&w);
    fill(&x, 2, 100);
    int a = put(&w, 3, &x, kithi_board_size(2), true);
    fill(&x, KITHI_BOARD_LANE_MAX, 1);
    int b = put(&w, 511, &x, kithi_board_size(KITHI_BOARD_LANE_MAX), true);
    look(&w);
    const struct kithi_boards_view *v = &w.b->view;
    assert_int_equal(v->alive, 2);
    assert_int_equal(v->strange, 0);
    assert_int_equal(v->living.searches, 216);
    assert_int_equal(v->living.failures, 18);
    assert_int_equal(v->living.expansions, 2160);
    assert_int_equal(v->living.lag_max, 101);
    assert_int_equal(v->living.latency[kithi_board_bucket(20000)], 216);
    assert_int_equal(v->listed, 2);
    assert_int_equal(v->list[0].slot, 3);
    assert_int_equal(v->list[0].uid, geteuid());
    assert_int_equal(v->list[0].epoch, 41);
    assert_true(v->list[0].p50_ns > 18000 && v->list[0].p50_ns < 22000);
    assert_non_null(strstr(json(&w), "\"alive\":2,\"gone\":0,\"strange\":0,\"untimed\":0,\"age_ms\":1,"
                                     "\"searches\":216,\"failures\":18,\"expansions\":2160,"));
    assert_non_null(strstr(json(&w), "\"program\":\"a \\\"reader\\\"\""));
    /* Again: the same, and nothing was added twice. */
    look(&w);
    assert_int_equal(v->living.searches, 216);
    assert_int_equal(w.b->gone.searches, 0);
    close(a);
    close(b);
    world_remove(&w);
}

static void a_dead_readers_counts_stay_and_its_board_goes(void **state)
{
    (void)state;
    struct world w;
    static struct bytes x;
    world_make(&w);
    fill(&x, 1, 7);
    int fd = put(&w, 0, &x, kithi_board_size(1), true);
    look(&w);
    assert_int_equal(w.b->view.alive, 1);
    close(fd);
    for (int i = 0; i < 3; i++) {
        look(&w);
        assert_int_equal(w.b->view.alive, 0);
        assert_int_equal(w.b->gone_count, 1);
        assert_int_equal(w.b->gone.searches, 7);
        assert_false(there(&w, 0));
    }
    assert_non_null(strstr(json(&w), "\"alive\":0,\"gone\":1,"));
    assert_non_null(strstr(json(&w), "\"searches\":7,"));
    /* An empty directory is looked at again when something is in it. */
    fd = put(&w, 9, &x, kithi_board_size(1), true);
    look(&w);
    assert_int_equal(w.b->view.alive, 1);
    close(fd);
    world_remove(&w);
}

static void what_is_no_board_is_not_counted(void **state)
{
    (void)state;
    struct world w;
    static struct bytes x;
    int fds[16];
    uint32_t n = 0;
    world_make(&w);
    for (uint32_t i = 0; i < 8; i++) {
        size_t len = kithi_board_size(2);
        fill(&x, 2, 100);
        switch (i) {
        case 0: atomic_init(&x.h.magic, 0); break;
        case 1: x.h.version++; break;
        case 2: x.h.uid[3] ^= 1; break;
        case 3: x.h.lane_count = 0; break;
        case 4: x.h.lane_count = KITHI_BOARD_LANE_MAX + 1; break;
        case 5: x.h.lane_count = UINT32_MAX; break;
        case 6: len = 0; break;
        default: len--; break; /* the last lane is cut off */
        }
        fds[n++] = put(&w, 10 + i, &x, len, true);
    }
    look(&w);
    assert_int_equal(w.b->view.alive, 0);
    assert_int_equal(w.b->view.strange, 8);
    assert_int_equal(w.b->view.living.searches, 0);
    json(&w);
    while (n)
        close(fds[--n]);
    /* Their owners are gone: they go, too, and count for nothing. */
    look(&w);
    assert_int_equal(w.b->gone_count, 0);
    for (uint32_t i = 0; i < 8; i++)
        assert_false(there(&w, 10 + i));
    world_remove(&w);
}

static void links_pipes_and_directories_do_not_hold_kithd_up(void **state)
{
    (void)state;
    struct world w;
    char target[TEST_PATH_SIZE + 16], name[TEST_PATH_SIZE + 64];
    static struct bytes x;
    world_make(&w);
    /* A link to a board that is not in the directory. */
    snprintf(target, sizeof target, "%s/elsewhere", w.run.path);
    fill(&x, 1, 9);
    int fd = open(target, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, &x, kithi_board_size(1), 0), kithi_board_size(1));
    assert_int_equal(symlink(target, slot_path(&w, 0)), 0);
    assert_int_equal(mkfifo(slot_path(&w, 1), 0666), 0);
    assert_int_equal(mkdir(slot_path(&w, 2), 0700), 0);
    /* An owner's lease makes others wait who open the file; its holder is told by a signal. */
    signal(SIGIO, SIG_IGN);
    int lease = put(&w, 3, &x, kithi_board_size(1), true);
    close(lease);
    lease = open(slot_path(&w, 3), O_RDONLY | O_CLOEXEC);
    bool leased = fcntl(lease, F_SETLEASE, F_WRLCK) == 0 || fcntl(lease, F_SETLEASE, F_RDLCK) == 0;
    if (!leased)
        print_message("no leases here\n");
    for (uint32_t i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "%s/another name %u", w.dir, i);
        int other = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(other >= 0);
        close(other);
    }
    uint64_t began = test_now_ms();
    look(&w);
    assert_true(test_now_ms() - began < 20000); /* a lease is 45 s */
    assert_int_equal(w.b->view.alive, 0);
    assert_true(w.b->view.strange >= 3);
    assert_int_equal(w.b->view.living.searches, 0);
    close(lease);
    close(fd);
    world_remove(&w);
}

static void lies_stay_numbers(void **state)
{
    (void)state;
    struct world w;
    static struct bytes x;
    int fds[KITHI_BOARDS_LISTED + 8];
    world_make(&w);
    memset(&x, 0xff, sizeof x);
    atomic_init(&x.h.magic, KITHI_BOARD_MAGIC);
    x.h.version = KITHI_BOARD_VERSION;
    x.h.lane_count = KITHI_BOARD_LANE_MAX;
    memcpy(x.h.uid, UID, sizeof UID);
    memcpy(x.h.program, "\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\", 16);
    for (uint32_t i = 0; i < KITHI_BOARDS_LISTED + 8; i++)
        fds[i] = put(&w, i, &x, sizeof x, true);
    look(&w);
    assert_int_equal(w.b->view.alive, KITHI_BOARDS_LISTED + 8);
    assert_int_equal(w.b->view.listed, KITHI_BOARDS_LISTED);
    assert_non_null(strstr(json(&w), "\"alive\":40,"));
    for (uint32_t i = 0; i < KITHI_BOARDS_LISTED + 8; i++)
        close(fds[i]);
    look(&w);
    assert_int_equal(w.b->gone.searches, (UINT64_C(40) * KITHI_BOARD_LANE_MAX) << 48);
    for (int round = 0; round < 8; round++) {
        for (uint32_t i = 0; i < KITHI_BOARDS_LISTED + 8; i++)
            close(put(&w, i, &x, sizeof x, false));
        look(&w);
    }
    assert_int_equal(w.b->gone.searches, UINT64_C(1) << 60);
    json(&w);
    /* Bytes that would steer a terminal. */
    memcpy(x.h.program, "\x1b[2J\n\xff", 7);
    x.h.program[7] = 0;
    int fd = put(&w, 0, &x, sizeof x, true);
    look(&w);
    assert_non_null(strstr(json(&w), "\"program\":\"?[2J??\""));
    close(fd);
    world_remove(&w);
}

/* Random bytes, and random changes of a good board, also while kithd reads. */
static void any_bytes_will_do(void **state)
{
    (void)state;
    struct world w;
    struct test_rand r;
    static struct bytes x;
    world_make(&w);
    test_rand_init(&r);
    for (uint32_t turn = 0; turn < 400; turn++) {
        uint32_t slot = test_rand_below(&r, KITHI_BOARD_SLOTS);
        fill(&x, 1 + test_rand_below(&r, KITHI_BOARD_LANE_MAX), test_rand_u64(&r));
        unsigned char *p = (unsigned char *)&x;
        uint32_t changes = test_rand_below(&r, 4) ? test_rand_below(&r, 64) : (uint32_t)sizeof x;
        for (uint32_t i = 0; i < changes; i++)
            p[changes == sizeof x ? i : test_rand_below(&r, turn % 2 ? 64 : sizeof x)] =
                (unsigned char)test_rand_u64(&r);
        int fd = put(&w, slot, &x, test_rand_below(&r, sizeof x), test_rand_below(&r, 2));
        if (test_rand_below(&r, 4) == 0)
            assert_int_equal(ftruncate(fd, test_rand_below(&r, 1 << 20)), 0);
        look(&w);
        json(&w);
        close(fd);
        look(&w);
        assert_false(there(&w, slot));
    }
    world_remove(&w);
}

static void the_directory_has_owner_and_mode_each_time(void **state)
{
    (void)state;
    struct world w;
    struct stat st;
    struct kithi_rights_policy shared = ALONE;
    world_make(&w);
    assert_int_equal(lstat(w.dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    shared.read_group = getegid();
    kithi_boards_open(w.b, w.collection, UID, &shared, true);
    assert_int_equal(lstat(w.dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 01770);
    assert_int_equal(st.st_gid, getegid());
    kithi_boards_open(w.b, w.collection, UID, &ALONE, true);
    assert_int_equal(lstat(w.dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    /* Turned off: it goes, with boards in it. */
    close(put(&w, 0, "", 1, false));
    kithi_boards_open(w.b, w.collection, UID, &ALONE, false);
    assert_true(w.b->dir_fd < 0);
    assert_int_equal(lstat(w.dir, &st), -1);
    assert_string_equal(json(&w), "null");
    /* Something else has the name. */
    assert_int_equal(symlink("/", w.dir), 0);
    kithi_boards_open(w.b, w.collection, UID, &ALONE, true);
    assert_true(w.b->dir_fd < 0);
    look(&w);
    world_remove(&w);
}

static void what_cannot_be_removed_is_set_aside(void **state)
{
    (void)state;
    struct world w;
    struct stat st;
    struct kithi_errmsg err;
    char path[8192];
    world_make(&w);
    /* Deeper than any stack: nothing descends into it. */
    int at = open(w.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(mkdirat(at, "d", 0700), 0);
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = next;
    }
    close(at);
    close(put(&w, 0, "", 1, false));
    assert_int_equal(kithi_boards_remove(w.collection, &err), 0);
    assert_int_equal(lstat(w.dir, &st), -1);
    assert_int_equal(rmdir(w.collection), 0);
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(kithi_dir_list(w.run.path, &names, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_memory_equal(names[0], ".aside-c-readers-", strlen(".aside-c-readers-"));
    /* Taken apart from the outside, a part at a time. */
    snprintf(path, sizeof path, "%s/%s", w.run.path, names[0]);
    kithi_dir_list_free(names, n);
    int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 3000; i++) {
        int d = openat(top, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (renameat(d, "d", top, "e") != 0 && errno != ENOENT)
            test_die("rename: %s", strerror(errno));
        close(d);
        assert_int_equal(unlinkat(top, "d", AT_REMOVEDIR), 0);
        if (renameat(top, "e", top, "d") != 0)
            break;
    }
    close(top);
    assert_int_equal(mkdir(w.collection, 0750), 0);
    world_remove(&w);
}

static void a_file_that_kithd_may_not_open_goes_when_it_is_old(void **state)
{
    (void)state;
    struct world w;
    world_make(&w);
    if (geteuid() == 0) { /* who may open everything: a child that may not */
        kithi_boards_fini(w.b);
        assert_int_equal(chmod(w.run.path, 0755), 0);
        assert_int_equal(chown(w.collection, 65534, 65534), 0);
        assert_int_equal(chown(w.dir, 65534, 65534), 0);
        close(put(&w, 5, "", 1, false));
        assert_int_equal(chmod(slot_path(&w, 5), 0600), 0);
        pid_t pid = fork();
        if (pid == 0) {
            if (setgid(65534) < 0 || setuid(65534) < 0)
                _exit(2);
            kithi_boards_init(w.b, NULL);
            kithi_boards_open(w.b, w.collection, UID, &ALONE, true);
            look(&w);
            /* It is young. Old ones are those that changed a minute ago, which cannot be made up. */
            _exit(w.b->view.strange == 1 && there(&w, 5) ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_int_equal(chown(w.dir, 0, 0), 0);
    }
    world_remove(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(living_boards_are_added_up),
        cmocka_unit_test(a_dead_readers_counts_stay_and_its_board_goes),
        cmocka_unit_test(what_is_no_board_is_not_counted),
        cmocka_unit_test(links_pipes_and_directories_do_not_hold_kithd_up),
        cmocka_unit_test(lies_stay_numbers),
        cmocka_unit_test(any_bytes_will_do),
        cmocka_unit_test(the_directory_has_owner_and_mode_each_time),
        cmocka_unit_test(what_cannot_be_removed_is_set_aside),
        cmocka_unit_test(a_file_that_kithd_may_not_open_goes_when_it_is_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
