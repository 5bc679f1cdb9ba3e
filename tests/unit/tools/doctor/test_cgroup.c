/*
 * test_cgroup.c - which memory limit comes first, of both versions, and what is said about it.
 */
#include "tests/unit/tools/doctor/bare.h"

#include "tools/doctor/cgroup_priv.h"
#include "tools/doctor/space_priv.h"

#define MIB (UINT64_C(1) << 20)

static void write_group(const char *dir, const char *max, unsigned used_mib, unsigned idle_mib)
{
    char path[128], text[128];
    snprintf(path, sizeof path, "%s/memory.max", dir);
    test_tree_write(&tree, path, max);
    snprintf(path, sizeof path, "%s/memory.current", dir);
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)(used_mib * MIB));
    test_tree_write(&tree, path, text);
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    snprintf(text, sizeof text, "anon 1\nshmem %llu\ninactive_file %llu\n", (unsigned long long)(100 * MIB),
             (unsigned long long)(idle_mib * MIB));
    test_tree_write(&tree, path, text);
}

static void check(enum kithi_doctor_state state, const char *words, const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, "/nowhere");
    assert_check(kithi_check_cgroup, &d, state, words, fix);
}

static void without_files_it_is_unknown(void **state)
{
    (void)state;
    check(KITHI_DOCTOR_UNKNOWN, "/proc/self/cgroup", NULL);
    test_tree_write(&tree, "/proc/self/cgroup", "0::/\n");
    check(KITHI_DOCTOR_UNKNOWN, "are not there", NULL);
}

static void no_limit_is_fine(void **state)
{
    (void)state;
    test_tree_write(&tree, "/proc/self/cgroup", "0::/system.slice/kithd.service\n");
    test_tree_write(&tree, "/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    check(KITHI_DOCTOR_OK, "no cgroup limits", NULL);
    write_group("/sys/fs/cgroup/system.slice/kithd.service", "max\n", 300, 0);
    check(KITHI_DOCTOR_OK, "no cgroup limits", NULL);
}

static void the_least_room_on_the_way_up_counts(void **state)
{
    (void)state;
    struct kithi_cgroup c;
    test_tree_write(&tree, "/proc/self/cgroup", "0::/system.slice/kithd.service\n");
    test_tree_write(&tree, "/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    write_group("/sys/fs/cgroup/system.slice/kithd.service", "1073741824\n", 300, 100);
    write_group("/sys/fs/cgroup/system.slice", "2147483648\n", 1948, 0);
    struct kithi_doctor d = make_doctor(&tree, "/nowhere");
    assert_int_equal(kithi_cgroup_find(&d, &c), 0);
    assert_string_equal(c.dir, "/sys/fs/cgroup/system.slice");
    assert_int_equal(kithi_cgroup_room(&c), 100 * MIB);
    check(KITHI_DOCTOR_WARN, "less than a tenth", "systemctl set-property system.slice MemoryMax=4096M");
    write_group("/sys/fs/cgroup/system.slice", "max\n", 1948, 0);
    assert_int_equal(kithi_cgroup_find(&d, &c), 0);
    assert_string_equal(c.dir, "/sys/fs/cgroup/system.slice/kithd.service");
    assert_int_equal(kithi_cgroup_room(&c), 824 * MIB);
    assert_int_equal(c.shmem, 100 * MIB);
    check(KITHI_DOCTOR_OK,
          "limit of this process is 1.0 GiB (cgroup version 2, "
          "/sys/fs/cgroup/system.slice/kithd.service): 200.0 MiB in use, 100.0 MiB of it",
          NULL);
}

static void a_container_has_its_limit_at_the_root(void **state)
{
    (void)state;
    struct kithi_cgroup c;
    /* A path of the host, of which nothing is mounted here. */
    test_tree_write(&tree, "/proc/self/cgroup", "0::/../../docker/abc\n");
    write_group("/sys/fs/cgroup", "1073741824\n", 1020, 0);
    struct kithi_doctor d = make_doctor(&tree, "/nowhere");
    assert_int_equal(kithi_cgroup_find(&d, &c), 0);
    check(KITHI_DOCTOR_BAD, "room for 4.0 MiB", "echo 2147483648 > /sys/fs/cgroup/memory.max");
    test_tree_write(&tree, "/.dockerenv", "");
    check(KITHI_DOCTOR_BAD, "less than a segment takes at once", "--memory=2048m --memory-swap=2048m");
    test_tree_mkdir(&tree, "/run/secrets/kubernetes.io");
    check(KITHI_DOCTOR_BAD, "room for 4.0 MiB", "resources: { limits: { memory: 2048Mi } }");
}

static void idle_file_pages_make_room(void **state)
{
    (void)state;
    test_tree_write(&tree, "/proc/self/cgroup", "0::/\n");
    write_group("/sys/fs/cgroup", "1073741824\n", 1020, 600);
    check(KITHI_DOCTOR_OK, "room for 604.0 MiB", NULL);
    write_group("/sys/fs/cgroup", "1073741824\n", 100, 600); /* they do not make more than all of it */
    check(KITHI_DOCTOR_OK, "room for 1.0 GiB", NULL);
}

static void version_one_is_read_where_the_memory_controller_is_its(void **state)
{
    (void)state;
    static const char DIR[] = "/sys/fs/cgroup/memory/app";
    char path[96];
    test_tree_write(&tree, "/proc/self/cgroup",
                    "9:cpu,cpuacct:/wrong\n4:hugetlb,memory:/app\n0::/also-wrong\n");
    snprintf(path, sizeof path, "%s/memory.limit_in_bytes", DIR);
    test_tree_write(&tree, path, "9223372036854771712\n");
    snprintf(path, sizeof path, "%s/memory.usage_in_bytes", DIR);
    test_tree_write(&tree, path, "524288000\n");
    snprintf(path, sizeof path, "%s/memory.stat", DIR);
    test_tree_write(&tree, path, "inactive_file 1\ntotal_inactive_file 104857600\ntotal_shmem 1048576\n");
    check(KITHI_DOCTOR_OK, "no cgroup limits", NULL);
    snprintf(path, sizeof path, "%s/memory.limit_in_bytes", DIR);
    test_tree_write(&tree, path, "1073741824\n");
    check(KITHI_DOCTOR_OK, "(cgroup version 1, /sys/fs/cgroup/memory/app): 400.0 MiB in use, 1.0 MiB of it",
          NULL);
    test_tree_write(&tree, path, "440401920\n");
    check(KITHI_DOCTOR_WARN, "less than a tenth",
          "echo 880803840 > /sys/fs/cgroup/memory/app/memory.limit_in_bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_files_it_is_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_limit_is_fine, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_least_room_on_the_way_up_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_container_has_its_limit_at_the_root, set_up, tear_down),
        cmocka_unit_test_setup_teardown(idle_file_pages_make_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(version_one_is_read_where_the_memory_controller_is_its, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
