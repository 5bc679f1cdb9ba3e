/*
 * test_dirs.c - which directories does kithd refuse, and is a claimed one its own?
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/writer/dirs.h"
#include "tests/support/tmp.h"

static struct test_dir tmp;

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&tmp);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&tmp);
    return 0;
}

static void assert_claim(const char *path, int status, const char *word)
{
    struct kithi_dir dir;
    struct kithi_errmsg err = { .text = "" };
    assert_int_equal(kithi_dir_claim(&dir, "run", path, 0750, KITHI_NO_GROUP, &err), status);
    if (status) {
        assert_non_null(strstr(err.text, path));
        assert_non_null(strstr(err.text, word));
        assert_int_equal(dir.lock_fd, -1);
    }
    kithi_dir_release(&dir);
}

static void a_missing_directory_is_made_with_its_mode(void **state)
{
    struct stat st;
    (void)state;
    mode_t before = umask(0077);
    assert_claim(test_path(&tmp, "made"), 0, NULL);
    umask(before);
    assert_int_equal(lstat(test_path(&tmp, "made"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0750);
}

static void what_cannot_be_used_is_refused_with_the_reason(void **state)
{
    (void)state;
    mkdir(test_path(&tmp, "real"), 0755);
    assert_int_equal(symlink(test_path(&tmp, "real"), test_path(&tmp, "link")), 0);
    assert_claim(test_path(&tmp, "link"), KITHI_E_RUN_DIR, "symbolic link");
    fclose(fopen(test_path(&tmp, "file"), "w"));
    assert_claim(test_path(&tmp, "file"), KITHI_E_RUN_DIR, "not a directory");
    assert_claim(test_path(&tmp, "absent/run"), KITHI_E_RUN_DIR, "parent");
    mkdir(test_path(&tmp, "open"), 0755);
    chmod(test_path(&tmp, "open"), 0775);
    assert_claim(test_path(&tmp, "open"), KITHI_E_RUN_DIR, "chmod");
    if (geteuid() == 0) {
        mkdir(test_path(&tmp, "other"), 0755);
        assert_int_equal(chown(test_path(&tmp, "other"), 12345, 12345), 0);
        assert_claim(test_path(&tmp, "other"), KITHI_E_RUN_DIR, "user 12345");
    } else {
        mkdir(test_path(&tmp, "mine"), 0500);
        assert_claim(test_path(&tmp, "mine"), KITHI_E_RUN_DIR, "cannot be written");
    }
}

static void a_trailing_slash_does_not_hide_a_link(void **state)
{
    struct kithi_dir dir;
    char path[TEST_PATH_SIZE + 1];
    (void)state;
    snprintf(path, sizeof path, "%s/", test_path(&tmp, "link"));
    assert_int_equal(kithi_dir_claim(&dir, "run", path, 0750, KITHI_NO_GROUP, NULL), KITHI_E_RUN_DIR);
}

static void a_claimed_directory_is_refused_to_a_second_daemon(void **state)
{
    struct kithi_dir first;
    const char *path = test_path(&tmp, "claimed");
    (void)state;
    assert_int_equal(kithi_dir_claim(&first, "run", path, 0750, KITHI_NO_GROUP, NULL), 0);
    assert_claim(path, KITHI_E_BUSY, "another kithd");
    kithi_dir_release(&first);
    assert_claim(path, 0, NULL);
}

static void the_run_directory_comes_from_option_environment_or_default(void **state)
{
    char path[KITHI_PATH_MAX];
    (void)state;
    setenv("KITH_RUN", "/from/environment", 1);
    assert_int_equal(kithi_dir_find_run("/from/option", path, NULL), 0);
    assert_string_equal(path, "/from/option");
    assert_int_equal(kithi_dir_find_run(NULL, path, NULL), 0);
    assert_string_equal(path, "/from/environment");
    unsetenv("KITH_RUN");
    assert_int_equal(kithi_dir_find_run(NULL, path, NULL), 0);
    assert_true(!strcmp(path, "/dev/shm/kith") || !strcmp(path, "/run/kith"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_directory_is_made_with_its_mode),
        cmocka_unit_test(what_cannot_be_used_is_refused_with_the_reason),
        cmocka_unit_test(a_trailing_slash_does_not_hide_a_link),
        cmocka_unit_test(a_claimed_directory_is_refused_to_a_second_daemon),
        cmocka_unit_test(the_run_directory_comes_from_option_environment_or_default),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
