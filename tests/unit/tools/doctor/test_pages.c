/*
 * test_pages.c - huge pages, by kernel, settings, mount and what segments have got.
 */
#include "tests/unit/tools/doctor/found.h"

#include <stdio.h>
#include <stdlib.h>

#define MIB     (UINT64_C(1) << 20)
#define THP     "/sys/kernel/mm/transparent_hugepage/"
#define COMPACT "echo 1 > /proc/sys/vm/compact_memory"

static struct test_dir tree, run;
static struct kithi_seen seen[2];

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&tree);
    test_dir_make_shm(&run);
    memset(seen, 0, sizeof seen);
    test_tree_write(&tree, "/proc/sys/kernel/osrelease", "6.1.0\n");
    test_tree_write(&tree, THP "shmem_enabled", "always within_size advise [never] deny force\n");
    test_tree_write(&tree, THP "enabled", "always [madvise] never\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&run);
    test_dir_remove(&tree);
    return 0;
}

static void check(enum kithi_doctor_state state, const char *words, const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, run.path);
    d.collections = (struct kithi_seen_list){ .items = seen, .count = 2 };
    assert_check(kithi_check_huge_pages, &d, state, words, fix);
}

static void missing_files_are_told(void **state)
{
    (void)state;
    test_tree_remove(&tree, "/proc/sys/kernel/osrelease");
    check(KITHI_DOCTOR_UNKNOWN, "the version cannot be read; there is no segment to look at", NULL);
    test_tree_write(&tree, "/proc/sys/kernel/osrelease", "6.1.0\n");
    test_tree_remove(&tree, THP "enabled");
    check(KITHI_DOCTOR_UNKNOWN, "No such file", NULL);
}

static void what_segments_have_got_is_counted(void **state)
{
    (void)state;
    check(KITHI_DOCTOR_OK,
          "Linux 6.1 gives huge pages when it is asked (MADV_COLLAPSE; shmem_enabled is never); there is "
          "no segment to look at",
          NULL);
    seen[0].segment = seen[1].segment = true;
    seen[1].status = -1;
    check(KITHI_DOCTOR_OK, "no segment is large enough", NULL);
    seen[0].huge_wanted = 60 * MIB;
    seen[1].huge_wanted = 40 * MIB;
    seen[0].huge = 60 * MIB;
    seen[1].huge = 30 * MIB;
    check(KITHI_DOCTOR_OK, "segments have 90.0 MiB of 100.0 MiB", NULL);
    seen[1].huge = 28 * MIB;
    check(KITHI_DOCTOR_WARN,
          "segments have 88.0 MiB of 100.0 MiB that could have them: memory in one piece is short", COMPACT);
}

static void deny_forbids_them(void **state)
{
    (void)state;
    test_tree_write(&tree, THP "shmem_enabled", "always within_size advise never [deny] force\n");
    check(KITHI_DOCTOR_WARN, "is deny", "echo never > " THP "shmem_enabled");
}

static void a_kithd_that_was_told_to_do_without_is_found(void **state)
{
    (void)state;
    char fix[2 * TEST_PATH_SIZE];
    test_tree_write(&tree, "/proc/self/status", "THP_enabled:\t0\n"); /* not kithd's */
    struct kithi_doctor d = make_doctor(&tree, run.path);
    assert_check(kithi_check_huge_pages, &d, KITHI_DOCTOR_OK, "gives huge pages", NULL);
    d.asked = (struct kithi_asked){ .connected = true, .pid = 17 };
    test_tree_write(&tree, "/proc/17/comm", "kithd\n");
    test_tree_write(&tree, "/proc/17/status", "THP_enabled:\t1\n");
    kithi_doctor_look(&d);
    assert_check(kithi_check_huge_pages, &d, KITHI_DOCTOR_OK, "gives huge pages", NULL);
    test_tree_write(&tree, "/proc/17/status", "THP_enabled:\t0\n");
    snprintf(fix, sizeof fix, "systemd-run --unit=kithd kithd --data /var/lib/kith --run %s", run.path);
    assert_check(kithi_check_huge_pages, &d, KITHI_DOCTOR_WARN, "THP_enabled of /proc/17/status is 0", fix);
}

/* A mount of the run directory's, with these options. */
static void write_mount(const char *options)
{
    char text[2 * TEST_PATH_SIZE], *real = realpath(run.path, NULL);
    assert_non_null(real);
    snprintf(text, sizeof text, "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / %s rw - tmpfs tmpfs %s\n", real,
             options);
    free(real);
    test_tree_write(&tree, "/proc/self/mountinfo", text);
}

static void an_older_kernel_takes_a_mount_option_and_a_setting(void **state)
{
    (void)state;
    struct kithi_finding f = { 0 };
    test_tree_write(&tree, "/proc/sys/kernel/osrelease", "6.0.19\n");
    struct kithi_doctor d = make_doctor(&tree, run.path);
    kithi_check_huge_pages(&d, &f);
    assert_int_equal(f.state, KITHI_DOCTOR_WARN);
    assert_non_null(strstr(f.text, "Linux 6.0 has no MADV_COLLAPSE"));
    assert_non_null(strstr(f.text, "huge=never"));
    assert_int_equal(strncmp(f.fix, "mount -o remount,huge=advise /", 30), 0);
    kithi_finding_free(&f);
    write_mount("rw,size=1g");
    kithi_check_huge_pages(&d, &f);
    assert_int_equal(f.state, KITHI_DOCTOR_WARN);
    kithi_finding_free(&f);
    write_mount("rw,huge=advise,size=1g");
    check(KITHI_DOCTOR_OK,
          "mounted with huge=advise, and " THP "enabled is madvise, so the kernel gives huge pages by and by",
          NULL);
    test_tree_write(&tree, THP "enabled", "always madvise [never]\n");
    check(KITHI_DOCTOR_WARN, "never", "echo madvise > " THP "enabled");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(missing_files_are_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_segments_have_got_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deny_forbids_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_kithd_that_was_told_to_do_without_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_older_kernel_takes_a_mount_option_and_a_setting, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
