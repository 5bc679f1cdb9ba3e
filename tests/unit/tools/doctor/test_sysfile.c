/*
 * test_sysfile.c - what is read from files of the system, and what is not there.
 */
#include "tests/unit/tools/doctor/bare.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tools/doctor/sysfile_priv.h"

static void a_file_is_read_below_the_root_only(void **state)
{
    (void)state;
    char *text;
    test_tree_write(&tree, "/etc/made-up", "one\ntwo\n");
    assert_int_equal(kithi_sysfile_read(tree.path, "/etc/made-up", &text), 0);
    assert_string_equal(text, "one\ntwo\n");
    free(text);
    assert_true(kithi_sysfile_exists(tree.path, "/etc/made-up"));
    assert_int_equal(kithi_sysfile_read(tree.path, "/etc/passwd", &text), -ENOENT);
    assert_null(text);
    assert_false(kithi_sysfile_exists(tree.path, "/etc/passwd"));
    assert_int_equal(kithi_sysfile_read("", "/proc/self/status", &text), 0);
    assert_non_null(strstr(text, "VmRSS"));
    free(text);
}

static void what_would_wait_or_is_no_file_is_refused(void **state)
{
    (void)state;
    char *text, path[TEST_PATH_SIZE + 16];
    snprintf(path, sizeof path, "%s/fifo", tree.path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(kithi_sysfile_read(tree.path, "/fifo", &text), -EINVAL);
    test_tree_mkdir(&tree, "/dir");
    assert_int_equal(kithi_sysfile_read(tree.path, "/dir", &text), -EINVAL);
}

static void a_large_file_is_cut(void **state)
{
    (void)state;
    char *large = malloc((1u << 20) + 1), *text;
    assert_non_null(large);
    memset(large, 'x', 1u << 20);
    large[1u << 20] = '\0';
    test_tree_write(&tree, "/large", large);
    assert_int_equal(kithi_sysfile_read(tree.path, "/large", &text), 0);
    assert_int_equal(strlen(text), 256u << 10);
    free(text);
    free(large);
}

static void numbers_are_numbers_or_max(void **state)
{
    (void)state;
    uint64_t n = 7;
    test_tree_write(&tree, "/n", "18446744073709551614\n");
    assert_int_equal(kithi_sysfile_number(tree.path, "/n", &n), 0);
    assert_true(n == UINT64_MAX - 1);
    test_tree_write(&tree, "/n", "max\n");
    assert_int_equal(kithi_sysfile_number(tree.path, "/n", &n), 0);
    assert_true(n == UINT64_MAX);
    n = 7;
    static const char *const WRONG[] = { "", "\n", "-1\n", "none\n", "99999999999999999999999\n" };
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        test_tree_write(&tree, "/n", WRONG[i]);
        assert_int_equal(kithi_sysfile_number(tree.path, "/n", &n), -EINVAL);
    }
    assert_int_equal(kithi_sysfile_number(tree.path, "/no", &n), -ENOENT);
    assert_int_equal(n, 7);
}

static void values_are_found_by_the_whole_key_at_the_start_of_a_line(void **state)
{
    (void)state;
    static const char TEXT[] =
        "\n\ninactive_file_x 1\nno inactive_file 2\ninactive_file 3\nMemTotal:       4 kB\nlast 5";
    uint64_t n = 0;
    assert_true(kithi_sysfile_value(TEXT, "inactive_file", &n));
    assert_int_equal(n, 3);
    assert_true(kithi_sysfile_value(TEXT, "MemTotal", &n));
    assert_int_equal(n, 4096);
    assert_true(kithi_sysfile_value(TEXT, "last", &n));
    assert_int_equal(n, 5);
    n = 9;
    assert_false(kithi_sysfile_value(TEXT, "Mem", &n));
    assert_false(kithi_sysfile_value(TEXT, "no", &n));
    assert_false(kithi_sysfile_value("", "no", &n));
    assert_false(kithi_sysfile_value("no", "no", &n));
    assert_false(kithi_sysfile_value("no\n", "no", &n));
    assert_int_equal(n, 9);
}

static void the_word_in_brackets_is_the_chosen_one(void **state)
{
    (void)state;
    char word[10];
    assert_true(kithi_sysfile_chosen("always [madvise] never\n", word, sizeof word));
    assert_string_equal(word, "madvise");
    assert_false(kithi_sysfile_chosen("always madvise never\n", word, sizeof word));
    assert_false(kithi_sysfile_chosen("always [never\n", word, sizeof word));
    assert_true(kithi_sysfile_chosen("[123456789]", word, sizeof word));
    assert_false(kithi_sysfile_chosen("[1234567890]", word, sizeof word));
}

static void limits_are_soft_and_hard(void **state)
{
    (void)state;
    static const char TEXT[] =
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            1024                 524288               files     \n"
        "Max locked memory         unlimited            unlimited            bytes     \n"
        "Max nice priority         0                    \n";
    uint64_t soft = 0, hard = 0;
    assert_true(kithi_sysfile_limit(TEXT, "Max open files", &soft, &hard));
    assert_int_equal(soft, 1024);
    assert_int_equal(hard, 524288);
    assert_true(kithi_sysfile_limit(TEXT, "Max locked memory", &soft, &hard));
    assert_true(soft == UINT64_MAX && hard == UINT64_MAX);
    assert_false(kithi_sysfile_limit(TEXT, "Max nice priority", &soft, &hard));
    assert_false(kithi_sysfile_limit(TEXT, "Max file locks", &soft, &hard));
}

static void names_come_from_the_files_of_the_root(void **state)
{
    (void)state;
    char name[KITHI_NAME_TEXT_SIZE];
    test_tree_write(&tree, "/etc/passwd",
                    "broken\nroot:x:0:0::/:/bin/sh\nlong:x:12x:1::/:\nkith:x:998:997:Kith:/:/bin/false\n");
    test_tree_write(&tree, "/etc/group", "root:x:0:\nsearch:x:990:a,b\nlast:x:991");
    assert_true(kithi_sysfile_user(tree.path, 998, name));
    assert_string_equal(name, "kith");
    assert_false(kithi_sysfile_user(tree.path, 12, name));
    assert_string_equal(name, "12");
    assert_true(kithi_sysfile_group(tree.path, 990, name));
    assert_string_equal(name, "search");
    assert_false(kithi_sysfile_group(tree.path, 5, name));
    assert_string_equal(name, "5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_below_the_root_only),
        cmocka_unit_test(what_would_wait_or_is_no_file_is_refused),
        cmocka_unit_test(a_large_file_is_cut),
        cmocka_unit_test(numbers_are_numbers_or_max),
        cmocka_unit_test(values_are_found_by_the_whole_key_at_the_start_of_a_line),
        cmocka_unit_test(the_word_in_brackets_is_the_chosen_one),
        cmocka_unit_test(limits_are_soft_and_hard),
        cmocka_unit_test(names_come_from_the_files_of_the_root),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
