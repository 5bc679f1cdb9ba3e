/*
 * test_cgroup.c - the nearest memory limit is found at whatever level it stands.
 */
#include "server/base/cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/tmp.h"

static struct test_dir root;

/* Write text to a file below the root, its directories made. */
static void put(const char *path, const char *text)
{
    char full[2 * TEST_PATH_SIZE];
    snprintf(full, sizeof full, "%s%s", root.path, path);
    for (char *p = full + strlen(root.path) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&root);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&root);
    return 0;
}

static void without_cgroups_there_is_no_limit(void **state)
{
    (void)state;
    assert_true(kithi_cgroup_left(root.path) == UINT64_MAX);
    put("/proc/self/cgroup", "nonsense\n::\n0:\n");
    assert_true(kithi_cgroup_left(root.path) == UINT64_MAX);
}

static void the_limit_of_a_container_stands_at_the_root(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "1000000\n");
    put("/sys/fs/cgroup/memory.current", "400000\n");
    assert_int_equal(kithi_cgroup_left(root.path), 600000);
    put("/sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 100000\nactive_file 5\n");
    assert_int_equal(kithi_cgroup_left(root.path), 700000);
    put("/sys/fs/cgroup/memory.current", "2000000\n");
    assert_int_equal(kithi_cgroup_left(root.path), 0);
    put("/sys/fs/cgroup/memory.max", "max\n");
    assert_true(kithi_cgroup_left(root.path) == UINT64_MAX);
    /* A group outside of the namespace: what is mounted is all that can be seen. */
    put("/proc/self/cgroup", "0::/../../else\n");
    put("/sys/fs/cgroup/memory.max", "2500000\n");
    assert_int_equal(kithi_cgroup_left(root.path), 600000);
}

static void the_limit_of_a_unit_stands_below_and_its_slice_s_may_be_nearer(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "12:cpu,cpuacct:/x\n0::/system.slice/kithd.service\n");
    put("/sys/fs/cgroup/system.slice/kithd.service/memory.max", "5000\n");
    put("/sys/fs/cgroup/system.slice/kithd.service/memory.current", "1000\n");
    assert_int_equal(kithi_cgroup_left(root.path), 4000);
    put("/sys/fs/cgroup/system.slice/memory.max", "9000\n");
    put("/sys/fs/cgroup/system.slice/memory.current", "8500\n");
    assert_int_equal(kithi_cgroup_left(root.path), 500);
    put("/sys/fs/cgroup/memory.max", "100\n");
    put("/sys/fs/cgroup/memory.current", "90\n");
    assert_int_equal(kithi_cgroup_left(root.path), 10);
}

static void the_first_version_has_a_hierarchy_of_its_own(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:cpuset:/a\n4:hugetlb,memory:/docker/c1\n1:name=systemd:/b\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "77\n");
    assert_true(kithi_cgroup_left(root.path) > UINT64_C(1) << 62);
    put("/sys/fs/cgroup/memory/docker/c1/memory.limit_in_bytes", "3000\n");
    put("/sys/fs/cgroup/memory/docker/c1/memory.usage_in_bytes", "2500\n");
    put("/sys/fs/cgroup/memory/docker/c1/memory.stat", "inactive_file 9999\ntotal_inactive_file 500\n");
    assert_int_equal(kithi_cgroup_left(root.path), 1000);
    put("/proc/self/cgroup", "4:hugetlb,memory2:/docker/c1\n");
    assert_true(kithi_cgroup_left(root.path) > UINT64_C(1) << 62);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_cgroups_there_is_no_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_limit_of_a_container_stands_at_the_root, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_limit_of_a_unit_stands_below_and_its_slice_s_may_be_nearer,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_version_has_a_hierarchy_of_its_own, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
