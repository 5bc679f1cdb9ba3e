/*
 * test_space.c - room in the run directory, on the data directory's disk, and in memory.
 */
#include "tests/unit/tools/doctor/bare.h"

#include <stdio.h>

#include "tools/doctor/space_priv.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static void run(uint64_t size, uint64_t left, enum kithi_doctor_state state, const char *words,
                const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    struct kithi_space s = { .size = size, .left = left, .tmpfs = true, .point = "/dev/shm" };
    struct kithi_finding f = { 0 };
    kithi_space_judge_run(&d, &s, &f);
    assert_found(&f, state, words, fix);
}

static void a_tmpfs_is_full_below_the_reserve(void **state)
{
    (void)state;
    run(4 * GIB, 4 * GIB, KITHI_DOCTOR_OK, "has 4.0 GiB of 4.0 GiB free, of which kithd leaves 16.0 MiB",
        NULL);
    run(4 * GIB, 500 * MIB, KITHI_DOCTOR_OK, "500.0 MiB of 4.0 GiB", NULL);
    run(4 * GIB, 400 * MIB, KITHI_DOCTOR_WARN, "nearly full: 400.0 MiB of 4.0 GiB",
        "mount -o remount,size=8g /dev/shm");
    run(4 * GIB, 16 * MIB - 1, KITHI_DOCTOR_BAD, "is full", "mount -o remount,size=8g /dev/shm");
    /* A small one has a small reserve, and room for a step matters more than a tenth. */
    run(64 * MIB, 30 * MIB, KITHI_DOCTOR_OK, "of which kithd leaves 1.0 MiB", NULL);
    run(64 * MIB, 16 * MIB, KITHI_DOCTOR_WARN, "nearly full", "mount -o remount,size=256m /dev/shm");
    run(64 * MIB, MIB - 1, KITHI_DOCTOR_BAD, "is full", "mount -o remount,size=256m /dev/shm");
    run(0, 0, KITHI_DOCTOR_WARN, "has no size", "mount -o remount,size=4096m /dev/shm");
}

static void containers_get_their_own_fix(void **state)
{
    (void)state;
    test_tree_write(&tree, "/.dockerenv", "");
    run(64 * MIB, 0, KITHI_DOCTOR_BAD, "is full", "--shm-size=256m");
    struct kithi_doctor d = make_doctor(&tree, "/run/kith");
    struct kithi_space s = { .size = 8 * GIB, .tmpfs = true, .point = "/run/kith" };
    struct kithi_finding f = { 0 };
    kithi_space_judge_run(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_BAD, "is full", "--tmpfs /run/kith:size=16g");
    test_tree_mkdir(&tree, "/var/run/secrets/kubernetes.io");
    run(64 * MIB, 0, KITHI_DOCTOR_BAD, "is full", "emptyDir: { medium: Memory, sizeLimit: 256Mi }");
}

static void a_disk_and_missing_inodes_are_told(void **state)
{
    (void)state;
    struct kithi_doctor d = make_doctor(&tree, "/srv/a b");
    struct kithi_space s = { .size = GIB, .left = GIB, .point = "/srv" };
    struct kithi_finding f = { 0 };
    kithi_space_judge_run(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_WARN, "is not on a tmpfs",
                 "mount -t tmpfs -o size=50%,mode=0750 tmpfs '/srv/a b'");
    s.tmpfs = true;
    s.inodes = 100;
    kithi_space_judge_run(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_BAD, "no inodes left (of 100)", "mount -o remount,nr_inodes=200 /srv");
}

static void a_log_needs_room_on_a_disk(void **state)
{
    (void)state;
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    struct kithi_space s = { .size = 100 * GIB, .left = 50 * GIB, .point = "/" };
    struct kithi_finding f = { 0 };
    d.data = "/var/lib/kith";
    kithi_space_judge_data(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_OK, "(/) has 50.0 GiB of 100.0 GiB free", NULL);
    s.left = GIB - 1;
    kithi_space_judge_data(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_WARN, "nearly full", "du -sm /var/lib/kith/* | sort -n");
    s.left = 64 * MIB - 1;
    kithi_space_judge_data(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_BAD, "is full", "du -sm /var/lib/kith/* | sort -n");
    s.left = 50 * GIB;
    s.inodes = 10;
    kithi_space_judge_data(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_BAD, "0 inodes free", "du -sm /var/lib/kith/* | sort -n");
    s.tmpfs = true;
    kithi_space_judge_data(&d, &s, &f);
    assert_found(&f, KITHI_DOCTOR_WARN, "outlives a reboot", "kithd --data /var/lib/kith");
}

static void memory(const char *run_dir, enum kithi_doctor_state state, const char *words, const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, run_dir);
    assert_check(kithi_check_memory, &d, state, words, fix);
}

static void memory_has_to_do_for_the_tmpfs(void **state)
{
    (void)state;
    struct test_dir shm;
    struct kithi_space s;
    test_dir_make_shm(&shm);
    if (kithi_space_of(shm.path, &s) != 0 || !s.tmpfs || s.left < 2 * MIB) {
        print_message("skipped: there is no /dev/shm with room\n");
        test_dir_remove(&shm);
        skip();
    }
    memory("/nowhere", KITHI_DOCTOR_UNKNOWN, "/proc/meminfo cannot be read: No such file", NULL);
    test_tree_write(&tree, "/proc/meminfo", "MemTotal: 1 kB\n");
    memory("/nowhere", KITHI_DOCTOR_UNKNOWN, "no MemTotal and MemAvailable", NULL);
    test_tree_write(&tree, "/proc/meminfo",
                    "MemTotal:  8388608 kB\nMemAvailable:  2097152 kB\nSwapFree:  1048576 kB\n");
    memory("/nowhere", KITHI_DOCTOR_OK, "3.0 GiB of memory (and swap) are available, of 8.0 GiB", NULL);
    test_tree_write(&tree, "/proc/meminfo",
                    "MemTotal:  1125899906842624 kB\nMemAvailable:  1125899906842624 kB\n");
    memory(shm.path, KITHI_DOCTOR_OK, "the run directory's tmpfs can take", NULL);
    test_tree_write(&tree, "/proc/meminfo", "MemTotal:  8192 kB\nMemAvailable:  1024 kB\nSwapFree: 0 kB\n");
    struct kithi_doctor d = make_doctor(&tree, shm.path);
    struct kithi_finding f = { 0 };
    kithi_check_memory(&d, &f);
    assert_int_equal(f.state, KITHI_DOCTOR_WARN);
    assert_non_null(strstr(f.text, "1.0 MiB of memory (and swap) are available, of 8.0 MiB"));
    assert_int_equal(strncmp(f.fix, "mount -o remount,size=", 22), 0);
    kithi_finding_free(&f);
    test_dir_remove(&shm);
}

static void overcommit_matters_when_it_is_forbidden(void **state)
{
    (void)state;
    test_tree_write(
        &tree, "/proc/meminfo",
        "MemTotal:  8388608 kB\nMemAvailable:  8388608 kB\nCommitLimit: 1048576 kB\nCommitted_AS: 1040384 kB\n");
    memory("/nowhere", KITHI_DOCTOR_OK, "8.0 GiB of memory", NULL);
    test_tree_write(&tree, "/proc/sys/vm/overcommit_memory", "1\n");
    memory("/nowhere", KITHI_DOCTOR_OK, "8.0 GiB of memory", NULL);
    test_tree_write(&tree, "/proc/sys/vm/overcommit_memory", "2\n");
    memory("/nowhere", KITHI_DOCTOR_BAD, "8.0 MiB may still be promised", "sysctl -w vm.overcommit_memory=0");
    test_tree_write(
        &tree, "/proc/meminfo",
        "MemTotal:  8388608 kB\nMemAvailable:  8388608 kB\nCommitLimit: 1048576 kB\nCommitted_AS: 1024 kB\n");
    memory("/nowhere", KITHI_DOCTOR_OK, "8.0 GiB of memory", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_tmpfs_is_full_below_the_reserve, set_up, tear_down),
        cmocka_unit_test_setup_teardown(containers_get_their_own_fix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_disk_and_missing_inodes_are_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_log_needs_room_on_a_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_has_to_do_for_the_tmpfs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(overcommit_matters_when_it_is_forbidden, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
