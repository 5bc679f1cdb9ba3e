/*
 * test_steady.c - the steady state: once a thread has searched a collection, searching it again allocates nothing and makes
 * no system call, whatever the collection walks on and keeps; and each search is counted all the same (board.c).
 *
 * Both are shown in a child. Its allocations are counted by the functions below, which take the place of the C
 * library's in this program; any system call but exit is its death by seccomp.
 */
#include <kith/kith.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/base/compiler.h"
#include "shm/layout/board.h"
#include "tests/support/boards.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

enum { DIM = 40, COUNT = 400, QUERIES = 40, K = 10, NO_SECCOMP = 77 };

/* ---- counting ---- */

/* What the C library's own functions are built on. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);

static _Atomic uint64_t allocations;

#pragma GCC visibility push(default) /* for the C library itself, too */

void *malloc(size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_realloc(p, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    *out = __libc_memalign(align, size);
    return *out ? 0 : ENOMEM;
}

#pragma GCC visibility pop

static void what_is_allocated_is_counted(void **state)
{
    (void)state;
    uint64_t before = atomic_load(&allocations);
    void *volatile p = malloc(1);
    p = realloc(p, 2);
    free(p);
    p = calloc(1, 1);
    free(p);
    p = aligned_alloc(64, 64);
    free(p);
    p = strdup("by the C library");
    free(p);
    assert_int_equal(atomic_load(&allocations) - before, 5);
}

/* ---- searching ---- */

struct answer {
    char id[16];
    float distance;
};

/* Everything that a program does over and over: the first hits, one after the other. */
static int search_all(kith *index, const float *queries, kith_results *const *results, struct answer *out)
{
    struct kith_search_opts wide = KITH_SEARCH_OPTS_INIT, exact = KITH_SEARCH_OPTS_INIT,
                            filtered = KITH_SEARCH_OPTS_INIT;
    float v[DIM];
    uint32_t n = 0;
    wide.ef = 300;
    exact.exact = 1;
    filtered.filter = "not exists(a)"; /* there are no payloads */
    for (uint32_t i = 0; i < QUERIES; i++) {
        const struct kith_search_opts *const opts[] = { NULL, &wide, &exact, &filtered };
        if (kith_search(index, queries + i * DIM, DIM, K, opts[i % 4], results[0]) != K)
            return 1;
        memcpy(out[n].id, kith_results_id(results[0], 0), kith_results_id_len(results[0], 0) + 1);
        out[n++].distance = kith_results_distance(results[0], 0);
    }
    if (kith_search_batch(index, queries, DIM, QUERIES, K, NULL, results, NULL) != 0)
        return 1;
    for (uint32_t i = 0; i < QUERIES; i++) {
        memcpy(out[n].id, kith_results_id(results[i], 0), kith_results_id_len(results[i], 0) + 1);
        out[n++].distance = kith_results_distance(results[i], 0);
    }
    return kith_search_id(index, "7", K, NULL, results[0]) != K || kith_get(index, "7", v, DIM, NULL) != 0 ||
           kith_exists(index, "none") != 0 || kith_epoch(index) == 0;
}

/* The child's exit status. */
static int search_steadily(kith *index, const float *queries)
{
    static struct answer first[2 * QUERIES], again[2 * QUERIES];
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = { .len = sizeof rules / sizeof rules[0], .filter = rules };
    kith_results *results[QUERIES];
    for (uint32_t i = 0; i < QUERIES; i++)
        results[i] = kith_results_new();
    if (search_all(index, queries, results, first))
        return 1;
    bool confined = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
    uint64_t before = atomic_load(&allocations);
    for (uint32_t turn = 0; turn < 3; turn++)
        if (search_all(index, queries, results, again) || memcmp(first, again, sizeof first) != 0)
            return 2;
    if (atomic_load(&allocations) != before)
        return 3;
    return confined ? 0 : NO_SECCOMP;
}

static void check(uint32_t metric, uint32_t quantization, uint32_t keep)
{
    static const char *const verdicts[] = { "", "the first searches fail", "later answers differ",
                                            "searches allocate" };
    struct test_dir run;
    struct test_index index;
    struct test_rand r;
    struct kithi_errmsg err;
    struct test_boards counted;
    char path[2 * TEST_PATH_SIZE], boards[2 * TEST_PATH_SIZE];
    float queries[QUERIES * DIM], v[DIM];
    struct kithi_geometry g = {
        .dim = DIM, .metric = metric, .m = 8, .ef_construction = 50, .slot_max = 4096
    };
    kithi_geometry_want(&g, quantization, keep);
    test_rand_seed(&r, 3 + metric);
    test_dir_make_shm(&run);
    snprintf(path, sizeof path, "%s/c", run.path);
    assert_int_equal(mkdir(path, 0750), 0);
    snprintf(boards, sizeof boards, "%s/c/" KITHI_BOARD_DIR, run.path);
    assert_int_equal(mkdir(boards, 0700), 0);
    snprintf(path, sizeof path, "%s/c/segment", run.path);
    test_index_create(&index, path, &g, 1, 50, 50);
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[16];
        struct kithi_op op = { .type = KITHI_OP_UPSERT, .id = id, .dim = DIM, .vector = v };
        op.id_len = (uint16_t)snprintf(id, sizeof id, "%u", i);
        test_rand_floats(&r, v, DIM);
        assert_int_equal(test_index_commit(&index, &op, 1, &err), 0);
    }
    test_rand_floats(&r, queries, QUERIES * DIM);

    kith *k = NULL;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run.path;
    assert_int_equal(kith_open("c", &opts, &k), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(search_steadily(k, queries));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    test_boards_read(boards, &counted);
    kith_close(k);
    test_index_close(&index);
    test_dir_remove(&run);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        /* All of them on the board that the child has from its parent: single ones, a batch and one by id, four times. */
        assert_int_equal(counted.searches, 4 * (2 * QUERIES + 1));
        assert_true(counted.untimed || counted.timed >= counted.searches / 4);
        return;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_SECCOMP) {
        print_message("skipped: no seccomp here; nothing was allocated\n");
        skip();
    }
    fail_msg("%s, quantization %s, keep %s: %s", kithi_metric_name(metric),
             kithi_quantization_name(quantization), kithi_keep_name(keep),
             WIFEXITED(status) && WEXITSTATUS(status) < 4        ? verdicts[WEXITSTATUS(status)]
             : WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? "searches make system calls"
                                                                 : "the child died");
}

static void plain_searches_are_steady(void **state)
{
    (void)state;
    for (uint32_t metric = KITHI_METRIC_L2; metric <= KITHI_METRIC_IP; metric++)
        check(metric, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
}

static void searches_over_half_floats_are_steady(void **state)
{
    (void)state;
    check(KITHI_METRIC_L2, KITHI_QUANTIZATION_F16, KITHI_KEEP_F32);
    check(KITHI_METRIC_COSINE, KITHI_QUANTIZATION_F16, KITHI_KEEP_NONE);
}

static void searches_over_bytes_are_steady(void **state)
{
    (void)state;
    check(KITHI_METRIC_L2, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32);
    check(KITHI_METRIC_COSINE, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F16);
    check(KITHI_METRIC_IP, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_NONE);
}

static void searches_over_neighbour_codes_are_steady(void **state)
{
    (void)state;
    check(KITHI_METRIC_L2, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
    check(KITHI_METRIC_COSINE, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F16);
    check(KITHI_METRIC_IP, KITHI_QUANTIZATION_BITS, KITHI_KEEP_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_allocated_is_counted),
        cmocka_unit_test(plain_searches_are_steady),
        cmocka_unit_test(searches_over_half_floats_are_steady),
        cmocka_unit_test(searches_over_bytes_are_steady),
        cmocka_unit_test(searches_over_neighbour_codes_are_steady),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
