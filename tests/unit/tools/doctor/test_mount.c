/*
 * test_mount.c - which mount a path is on, and its options.
 */
#include "tests/unit/tools/doctor/found.h"

#include "tools/doctor/mount_priv.h"

static const char INFO[] =
    "21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "22 21 0:20 / /dev/shm rw,nosuid shared:2 master:3 - tmpfs tmpfs rw,size=65536k,huge=advise\n"
    "23 21 0:21 / /mnt/with\\040blank rw - tmpfs tmpfs rw\n"
    "24 22 0:22 / /dev/shm/kith ro - tmpfs kith rw,huge=always,size=1g\n"
    "25 21 0:23 / /over rw - ext4 /dev/a rw\n"
    "26 21 0:24 / /over rw - tmpfs second rw\n"
    "broken line\n"
    "27 21 0:25 / /cut rw -\n";

static void expect(const char *path, const char *point, const char *type)
{
    static struct kithi_mount m;
    assert_true(kithi_mount_find(INFO, path, &m));
    assert_string_equal(m.point, point);
    assert_string_equal(m.type, type);
}

static void the_nearest_and_last_mount_counts(void **state)
{
    (void)state;
    expect("/", "/", "ext4");
    expect("/var/lib", "/", "ext4");
    expect("/dev/shm", "/dev/shm", "tmpfs");
    expect("/dev/shm/other", "/dev/shm", "tmpfs");
    expect("/dev/shmother", "/", "ext4");
    expect("/dev/shm/kith/docs", "/dev/shm/kith", "tmpfs");
    expect("/mnt/with blank/x", "/mnt/with blank", "tmpfs");
    expect("/over/x", "/over", "tmpfs");
    static struct kithi_mount m;
    assert_false(kithi_mount_find("", "/", &m));
    assert_false(kithi_mount_find("garbage\n\n 1 2\n", "/", &m));
}

static void options_are_those_of_the_file_system(void **state)
{
    (void)state;
    static struct kithi_mount m;
    char value[16];
    assert_true(kithi_mount_find(INFO, "/dev/shm", &m));
    assert_true(kithi_mount_option(&m, "huge", value, sizeof value));
    assert_string_equal(value, "advise");
    assert_true(kithi_mount_option(&m, "size", value, sizeof value));
    assert_string_equal(value, "65536k");
    assert_false(kithi_mount_option(&m, "hug", value, sizeof value));
    assert_false(kithi_mount_option(&m, "rw", value, sizeof value));
    assert_false(kithi_mount_option(&m, "size", value, 6));
    assert_true(kithi_mount_option(&m, "size", value, 7));
}

static void long_options_do_not_hide_a_mount(void **state)
{
    (void)state;
    static char line[8192];
    static struct kithi_mount m;
    int n = snprintf(line, sizeof line, "1 0 0:1 / / rw - overlay overlay rw,lowerdir=");
    memset(line + n, 'l', 6000);
    snprintf(line + n + 6000, 200, ",upperdir=/u\n2 1 0:2 / /x rw - tmpfs t rw\n");
    assert_true(kithi_mount_find(line, "/y", &m));
    assert_string_equal(m.type, "overlay");
    assert_true(kithi_mount_find(line, "/x", &m));
    assert_string_equal(m.type, "tmpfs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_and_last_mount_counts),
        cmocka_unit_test(options_are_those_of_the_file_system),
        cmocka_unit_test(long_options_do_not_hide_a_mount),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
