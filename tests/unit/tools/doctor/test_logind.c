/*
 * test_logind.c - when logind removes the run directory: configuration in all its places, whose files, and who is spared.
 */
#include "tests/unit/tools/doctor/found.h"

#include <unistd.h>

#include "tools/doctor/logind_priv.h"

static struct test_dir tree;

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&tree);
    test_tree_mkdir(&tree, "/run/systemd/seats");
    test_tree_write(&tree, "/etc/passwd", "root:x:0:0::/:\nalice:x:1001:1001::/:\nkith:x:998:998::/:\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&tree);
    return 0;
}

static void booleans_of_the_login_section_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int value;
    } CASES[] = {
        { "", -1 },
        { "[Login]\n", -1 },
        { "[Login]\n#RemoveIPC=no\n;RemoveIPC=no\n", -1 },
        { "[Login]\nRemoveIPC=no\n", 0 },
        { "[Login]\nRemoveIPC=yes", 1 },
        { " [Login] \r\n \tRemoveIPC \t=  OFF \r\n", 0 },
        { "[Login]\nRemoveIPC=0\nRemoveIPC=on\n", 1 },
        { "[Login]\nRemoveIPC=no\nRemoveIPC=perhaps\n", 0 },
        { "[Login]\nRemoveIPC=no\nRemoveIPC=\n", 0 },
        { "RemoveIPC=no\n[Other]\nRemoveIPC=no\n", -1 },
        { "[Login]\nRemoveIPCX=no\nRemoveIPC no\nRemove=no\n", -1 },
        { "[Other]\nRemoveIPC=yes\n[Login]\nRemoveIPC=f\n[Other]\nRemoveIPC=yes\n", 0 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        if (kithi_logind_parse(CASES[i].text) != CASES[i].value)
            fail_msg("\"%s\" gives %d", CASES[i].text, kithi_logind_parse(CASES[i].text));
}

static void expect_config(bool remove, const char *where)
{
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    struct kithi_logind l;
    kithi_logind_look(&d, &l);
    assert_true(l.running);
    assert_int_equal(l.remove_ipc, remove);
    assert_string_equal(l.where, where);
}

static void files_count_in_the_order_of_systemd(void **state)
{
    (void)state;
    expect_config(true, ""); /* the default */
    test_tree_write(&tree, "/usr/lib/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
    expect_config(false, "/usr/lib/systemd/logind.conf");
    test_tree_write(&tree, "/etc/systemd/logind.conf", "[Login]\n");
    expect_config(true, ""); /* hides the one below /usr */
    test_tree_write(&tree, "/etc/systemd/logind.conf", "[Login]\nRemoveIPC=yes\n");
    expect_config(true, "/etc/systemd/logind.conf");
    test_tree_write(&tree, "/usr/lib/systemd/logind.conf.d/50-a.conf", "[Login]\nRemoveIPC=no\n");
    expect_config(false, "/usr/lib/systemd/logind.conf.d/50-a.conf");
    test_tree_write(&tree, "/etc/systemd/logind.conf.d/40-b.conf", "[Login]\nRemoveIPC=yes\n");
    expect_config(false, "/usr/lib/systemd/logind.conf.d/50-a.conf"); /* by name, whatever the directory */
    test_tree_write(&tree, "/run/systemd/logind.conf.d/60-c.conf", "[Login]\nRemoveIPC=yes\n");
    expect_config(true, "/run/systemd/logind.conf.d/60-c.conf");
    test_tree_write(&tree, "/etc/systemd/logind.conf.d/60-c.conf", "# nothing\n");
    expect_config(false, "/usr/lib/systemd/logind.conf.d/50-a.conf"); /* hidden by its name in /etc */
    test_tree_write(&tree, "/etc/systemd/logind.conf.d/90.config", "[Login]\nRemoveIPC=yes\n");
    expect_config(false, "/usr/lib/systemd/logind.conf.d/50-a.conf"); /* another suffix */
}

static void judge(const char *run, uid_t owner, enum kithi_doctor_state state, const char *words,
                  const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, run);
    struct kithi_logind l;
    struct kithi_finding f = { 0 };
    kithi_logind_look(&d, &l);
    kithi_logind_judge(&d, &l, run, owner, &f);
    assert_found(&f, state, words, fix);
}

static void files_of_users_in_dev_shm_are_removed(void **state)
{
    (void)state;
    judge("/dev/shm/kith", 1001, KITHI_DOCTOR_BAD, "when user alice (1001, above 999) logs out",
          "loginctl enable-linger alice");
    judge("/dev/shm/kith", 1002, KITHI_DOCTOR_BAD, "no file says otherwise", "loginctl enable-linger 1002");
    judge("/run/kith", 1001, KITHI_DOCTOR_OK, "not below /dev/shm", NULL);
    judge("/dev/shmother/kith", 1001, KITHI_DOCTOR_OK, "not below /dev/shm", NULL);
}

static void users_of_the_system_are_spared(void **state)
{
    (void)state;
    judge("/dev/shm/kith", 0, KITHI_DOCTOR_OK, "user root (0, up to 999)", NULL);
    judge("/dev/shm/kith", 998, KITHI_DOCTOR_OK, "user kith (998, up to 999)", NULL);
    test_tree_write(&tree, "/etc/login.defs", "#SYS_UID_MAX  5\nUID_MIN 1000\nSYS_UID_MAX\t\t500\n");
    judge("/dev/shm/kith", 998, KITHI_DOCTOR_BAD, "user kith (998, above 500)",
          "loginctl enable-linger kith");
    judge("/dev/shm/kith", 500, KITHI_DOCTOR_OK, "(500, up to 500)", NULL);
}

static void users_that_linger_are_spared(void **state)
{
    (void)state;
    test_tree_write(&tree, "/var/lib/systemd/linger/alice", "");
    test_tree_write(&tree, "/var/lib/systemd/linger/1002", "");
    judge("/dev/shm/kith", 1001, KITHI_DOCTOR_OK, "user alice, who lingers", NULL);
    /* The file has a user's name: where that is not known it is not found. */
    judge("/dev/shm/kith", 1002, KITHI_DOCTOR_BAD, "1002", "loginctl enable-linger 1002");
}

static void without_logind_or_with_its_leave_nothing_is_removed(void **state)
{
    (void)state;
    test_tree_write(&tree, "/etc/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
    judge("/dev/shm/kith", 1001, KITHI_DOCTOR_OK, "RemoveIPC=no, /etc/systemd/logind.conf", NULL);
    test_tree_remove(&tree, "/etc/systemd/logind.conf");
    test_tree_remove(&tree, "/run/systemd/seats");
    judge("/dev/shm/kith", 1001, KITHI_DOCTOR_OK, "no logind runs here", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(booleans_of_the_login_section_are_read),
        cmocka_unit_test_setup_teardown(files_count_in_the_order_of_systemd, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_of_users_in_dev_shm_are_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(users_of_the_system_are_spared, set_up, tear_down),
        cmocka_unit_test_setup_teardown(users_that_linger_are_spared, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_logind_or_with_its_leave_nothing_is_removed, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
