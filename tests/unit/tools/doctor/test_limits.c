/*
 * test_limits.c - locked memory before and since Linux 5.12, open files for clients and collections.
 */
#include "tests/unit/tools/doctor/bare.h"

#include <stdio.h>

static void write_limits(const char *proc, const char *locked, const char *files)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "%s/limits", proc);
    snprintf(text, sizeof text,
             "Max locked memory         %s               %s               bytes     \n"
             "Max open files            16                   %s               files     \n",
             locked, locked, files);
    test_tree_write(&tree, path, text);
}

static void write_kernel(const char *release)
{
    test_tree_write(&tree, "/proc/sys/kernel/osrelease", release);
}

static void memlock(enum kithi_doctor_state state, const char *words, const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    assert_check(kithi_check_memlock, &d, state, words, fix);
}

static void files(size_t collections, enum kithi_doctor_state state, const char *words, const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    d.collections.count = collections;
    assert_check(kithi_check_open_files, &d, state, words, fix);
}

static void without_the_file_both_are_unknown(void **state)
{
    (void)state;
    memlock(KITHI_DOCTOR_UNKNOWN, "/proc/self/limits cannot be read", NULL);
    files(0, KITHI_DOCTOR_UNKNOWN, "/proc/self/limits cannot be read", NULL);
    test_tree_write(&tree, "/proc/self/limits", "Limit\n");
    memlock(KITHI_DOCTOR_UNKNOWN, "has no line \"Max locked memory\"", NULL);
    files(0, KITHI_DOCTOR_UNKNOWN, "has no line \"Max open files\"", NULL);
}

static void a_ring_is_charged_before_linux_5_12(void **state)
{
    (void)state;
    write_limits("/proc/self", "65536", "524288");
    write_kernel("5.12.0\n");
    memlock(KITHI_DOCTOR_OK, "may lock 64.0 KiB; Linux 5.12 does not charge the ring of 144.0 KiB", NULL);
    write_kernel("6.0.1-x\n");
    memlock(KITHI_DOCTOR_OK, "does not charge", NULL);
    write_kernel("5.11.22\n");
    memlock(KITHI_DOCTOR_WARN, "may lock 64.0 KiB, and Linux 5.11 charges the ring of 144.0 KiB",
            "LimitMEMLOCK=8M");
    write_limits("/proc/self", "147456", "524288");
    memlock(KITHI_DOCTOR_OK, "may lock 144.0 KiB; Linux 5.11 charges", NULL);
    write_limits("/proc/self", "147455", "524288");
    memlock(KITHI_DOCTOR_WARN, "charges", "LimitMEMLOCK=8M");
    test_tree_write(&tree, "/proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n");
    memlock(KITHI_DOCTOR_OK, "and has CAP_IPC_LOCK", NULL);
    test_tree_write(&tree, "/proc/self/status", "Name:\tx\nCapEff:\t0000000000003fff\n");
    memlock(KITHI_DOCTOR_WARN, "charges", "LimitMEMLOCK=8M");
    write_limits("/proc/self", "unlimited", "524288");
    memlock(KITHI_DOCTOR_OK, "may lock unlimited", NULL);
}

static void a_kernel_without_a_number_is_not_guessed(void **state)
{
    (void)state;
    write_limits("/proc/self", "65536", "524288");
    memlock(KITHI_DOCTOR_UNKNOWN, "is not known", NULL);
    write_kernel("linux\n");
    memlock(KITHI_DOCTOR_UNKNOWN, "is not known", NULL);
    write_limits("/proc/self", "unlimited", "524288");
    memlock(KITHI_DOCTOR_OK, "may lock unlimited", NULL);
}

static void files_have_to_do_for_clients_and_collections(void **state)
{
    (void)state;
    write_limits("/proc/self", "65536", "1088"); /* the soft limit is raised by kithd itself */
    files(0, KITHI_DOCTOR_OK, "this process may open 1,088 files; 1088 are enough for 1024 clients and 0",
          NULL);
    files(1, KITHI_DOCTOR_WARN, "with 1 collections leaves kithd 1016 clients of 1024", "LimitNOFILE=1096");
    write_limits("/proc/self", "65536", "70");
    files(1, KITHI_DOCTOR_BAD, "leaves kithd 0 clients", "LimitNOFILE=1096");
    test_tree_write(&tree, "/.dockerenv", "");
    files(1, KITHI_DOCTOR_BAD, "leaves kithd 0 clients", "--ulimit nofile=1096");
    write_limits("/proc/self", "65536", "unlimited");
    files(1000, KITHI_DOCTOR_OK, "may open unlimited files", NULL);
}

static void limits_are_those_of_kithd_where_it_can_be_seen(void **state)
{
    (void)state;
    write_limits("/proc/self", "65536", "524288");
    write_limits("/proc/17", "65536", "100");
    test_tree_write(&tree, "/proc/17/comm", "kithd\n");
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    d.asked = (struct kithi_asked){ .connected = true, .pid = 17 };
    kithi_doctor_look(&d);
    assert_check(kithi_check_open_files, &d, KITHI_DOCTOR_WARN, "kithd may open 100 files",
                 "LimitNOFILE=1088");
    /* The number is another process's here. */
    test_tree_write(&tree, "/proc/17/comm", "other\n");
    kithi_doctor_look(&d);
    assert_check(kithi_check_open_files, &d, KITHI_DOCTOR_OK, "this process may open 524,288 files", NULL);
    d.asked.pid = 0;
    kithi_doctor_look(&d);
    assert_check(kithi_check_open_files, &d, KITHI_DOCTOR_OK, "this process may open 524,288 files", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_the_file_both_are_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_ring_is_charged_before_linux_5_12, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_kernel_without_a_number_is_not_guessed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_have_to_do_for_clients_and_collections, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits_are_those_of_kithd_where_it_can_be_seen, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
