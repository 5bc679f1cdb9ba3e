/*
 * test_uring.c - why io_uring is not used, by what the kernel answered and what is configured.
 */
#include "tests/unit/tools/doctor/found.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "tools/doctor/uring_priv.h"

#define COST "searches cost the same, a commit takes two switches of threads more"

static struct test_dir tree;

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&tree);
    test_tree_write(&tree, "/proc/sys/kernel/osrelease", "6.1.0-13-amd64\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&tree);
    return 0;
}

/* io: what kithd said. status: of making a ring, where it is complete if it was made. */
static void judge(const char *io, int status, enum kithi_doctor_state state, const char *words,
                  const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    struct kithi_uring u;
    struct kithi_finding f = { 0 };
    snprintf(d.asked.io, sizeof d.asked.io, "%s", io);
    kithi_uring_look(&d, &u);
    u.status = status;
    u.complete = status == 0;
    kithi_uring_judge(&d, &u, &f);
    if (state == KITHI_DOCTOR_WARN)
        assert_non_null(strstr(f.text, COST));
    assert_found(&f, state, words, fix);
}

static void what_kithd_uses_counts_most(void **state)
{
    (void)state;
    judge("uring", -EPERM, KITHI_DOCTOR_OK, "kithd uses io_uring", NULL);
    judge("", 0, KITHI_DOCTOR_OK, "is permitted", NULL);
    judge("threads", 0, KITHI_DOCTOR_WARN, "kithd does without io_uring, though",
          "KITH_IO=uring kithd --data /var/lib/kith --run /dev/shm/kith");
}

static void the_setting_that_forbids_it_is_named(void **state)
{
    (void)state;
    char fix[80];
    test_tree_write(&tree, "/proc/sys/kernel/io_uring_disabled", "2\n");
    judge("threads", -EPERM, KITHI_DOCTOR_WARN, "forbidden to all by kernel.io_uring_disabled = 2",
          "sysctl -w kernel.io_uring_disabled=0");
    test_tree_write(&tree, "/proc/sys/kernel/io_uring_disabled", "1\n");
    test_tree_write(&tree, "/proc/sys/kernel/io_uring_group", "-1\n");
    snprintf(fix, sizeof fix, "sysctl -w kernel.io_uring_group=%u", (unsigned)getegid());
    judge("", -EPERM, KITHI_DOCTOR_WARN, "kernel.io_uring_group, which is -1", fix);
    test_tree_write(&tree, "/proc/sys/kernel/io_uring_group", "990\n");
    judge("", -EPERM, KITHI_DOCTOR_WARN, "kernel.io_uring_group, which is 990",
          "setpriv --regid 990 --clear-groups kithd --data /var/lib/kith --run /dev/shm/kith");
    /* Then it was something else. */
    test_tree_write(&tree, "/proc/sys/kernel/io_uring_disabled", "0\n");
    judge("", -EPERM, KITHI_DOCTOR_WARN, "by a security module",
          "KITH_IO=threads kithd --data /var/lib/kith --run /dev/shm/kith");
}

static void a_filter_is_told_from_a_kernel_without(void **state)
{
    (void)state;
    judge("", -ENOSYS, KITHI_DOCTOR_WARN, "this kernel (6.1) has no io_uring", "CONFIG_IO_URING=y");
    test_tree_write(&tree, "/proc/self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n");
    judge("", -ENOSYS, KITHI_DOCTOR_WARN, "by a seccomp filter (Function not implemented)",
          "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register");
    judge("", -EPERM, KITHI_DOCTOR_WARN, "by a seccomp filter (Operation not permitted)",
          "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register");
    test_tree_write(&tree, "/run/.containerenv", "");
    judge("threads", -EPERM, KITHI_DOCTOR_WARN, "by a seccomp filter",
          "{ \"names\": [\"io_uring_setup\", \"io_uring_enter\", \"io_uring_register\"], \"action\": "
          "\"SCMP_ACT_ALLOW\" }");
    test_tree_write(&tree, "/proc/self/status", "Seccomp:\t0\n");
    judge("", -ENOSYS, KITHI_DOCTOR_WARN, "this kernel (6.1) has no io_uring", "CONFIG_IO_URING=y");
}

static void too_little_locked_memory_and_old_kernels_are_told(void **state)
{
    (void)state;
    judge("", -ENOMEM, KITHI_DOCTOR_WARN, "memory that may be locked", "LimitMEMLOCK=8M");
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    struct kithi_uring u = { .status = 0, .complete = false };
    struct kithi_finding f = { 0 };
    kithi_uring_judge(&d, &u, &f);
    assert_found(&f, KITHI_DOCTOR_WARN, "lacks what kithd needs",
                 "apt-get install linux-image-$(dpkg --print-architecture)");
}

static void a_ring_is_made_and_let_go_of(void **state)
{
    (void)state;
    struct kithi_uring u;
    int before = dup(0), after;
    close(before);
    for (unsigned i = 0; i < 3; i++)
        kithi_uring_try(&u);
    after = dup(0);
    close(after);
    assert_int_equal(before, after); /* no descriptor is left */
    assert_true(u.status == 0 || u.status == -EPERM || u.status == -ENOSYS || u.status == -ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_kithd_uses_counts_most, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_setting_that_forbids_it_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_filter_is_told_from_a_kernel_without, set_up, tear_down),
        cmocka_unit_test_setup_teardown(too_little_locked_memory_and_old_kernels_are_told, set_up, tear_down),
        cmocka_unit_test(a_ring_is_made_and_let_go_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
