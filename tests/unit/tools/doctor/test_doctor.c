/*
 * test_doctor.c - findings, words of a shell, what a daemon's statistics tell, directories, daemons and collections.
 */
#include "tests/unit/tools/doctor/found.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct test_dir tree, dirs;

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&tree);
    test_dir_make(&dirs);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&dirs);
    test_dir_remove(&tree);
    return 0;
}

static void expect_word(const char *text, const char *word)
{
    char *quoted = kithi_quote(text);
    assert_string_equal(quoted, word);
    free(quoted);
}

static void words_are_quoted_where_a_shell_would_read_them(void **state)
{
    (void)state;
    expect_word("/dev/shm/kith-1_x.y", "/dev/shm/kith-1_x.y");
    expect_word("", "''");
    expect_word("/a b", "'/a b'");
    expect_word("/it's;rm", "'/it'\\''s;rm'");
    expect_word("$(x)`y`", "'$(x)`y`'");
    expect_word("''''", "''\\'''\\'''\\'''\\'''");
}

static void a_finding_is_said_anew_and_added_to(void **state)
{
    (void)state;
    struct kithi_finding f = { 0 };
    kithi_finding_set(&f, KITHI_DOCTOR_WARN, "%u of %u", 1u, 2u);
    kithi_finding_fix(&f, "do %s", "this");
    kithi_finding_add(&f, ", and %s", "more");
    assert_string_equal(f.text, "1 of 2, and more");
    assert_string_equal(f.fix, "do this");
    kithi_finding_set(&f, KITHI_DOCTOR_OK, "fine");
    assert_found(&f, KITHI_DOCTOR_OK, "fine", NULL); /* what was to be done went with it */
    assert_string_equal(kithi_doctor_state_name(KITHI_DOCTOR_UNKNOWN), "unknown");
}

static void take(struct kithi_asked *a, const char *json)
{
    *a = (struct kithi_asked){ .io = "before" };
    kithi_asked_take(a, json, strlen(json));
}

static void statistics_tell_what_they_know(void **state)
{
    (void)state;
    static struct kithi_asked a;
    take(
        &a,
        "{\"name\":\"x\",\"version\":\"0.1.0\",\"io\":\"uring\",\"wal_direct\":true,\"data_dir\":\"/d\\u0041\",\"new\":[1]}");
    assert_string_equal(a.version, "0.1.0");
    assert_string_equal(a.io, "uring");
    assert_string_equal(a.data, "/dA");
    assert_int_equal(a.direct, KITHI_YES);
    take(&a, "{\"wal_direct\":false}");
    assert_int_equal(a.direct, KITHI_YES_NO);
    assert_string_equal(a.io, "");
    take(&a, "{\"wal_direct\":null,\"data_dir\":null,\"io\":7,\"version\":[]}");
    assert_int_equal(a.direct, KITHI_YES_UNKNOWN);
    assert_string_equal(a.data, "");
    take(&a, "{\"data\":\"data/of/kithd\"}");
    assert_string_equal(a.data, "");
    static const char *const WRONG[] = { "",
                                         "{",
                                         "null",
                                         "{\"io\":\"uring\"",
                                         "{\"io\":\"uring\"} x",
                                         "{\"io\":\"a-name-that-is-too-long-for-it\"}" };
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        take(&a, WRONG[i]);
        assert_string_equal(a.io, "before");
    }
}

static void expect_run(const char *path, enum kithi_doctor_state state, const char *words, const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, path);
    assert_check(kithi_check_run_dir, &d, state, words, fix);
}

static void a_directory_has_to_be_there_and_a_real_one(void **state)
{
    (void)state;
    char fix[3 * TEST_PATH_SIZE], path[TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s", test_path(&dirs, "run"));
    snprintf(fix, sizeof fix, "kithd --data /var/lib/kith --run %s", path);
    expect_run(path, KITHI_DOCTOR_BAD, "kithd makes it when it starts", fix);
    test_tree_mkdir(&dirs, "/run");
    expect_run(path, KITHI_DOCTOR_OK, "(from --run)", NULL);
    snprintf(fix, sizeof fix, "mkdir -p %s", test_path(&dirs, "a/b"));
    expect_run(test_path(&dirs, "a/b/c"), KITHI_DOCTOR_BAD, "no directory", fix);
    expect_run("no-such-directory", KITHI_DOCTOR_BAD, "kithd makes it",
               "kithd --data /var/lib/kith --run no-such-directory");
    test_tree_write(&dirs, "/file", "");
    snprintf(fix, sizeof fix, "mv %s %s.aside", test_path(&dirs, "file"), test_path(&dirs, "file"));
    expect_run(test_path(&dirs, "file"), KITHI_DOCTOR_BAD, "is not a directory", fix);
    assert_int_equal(symlink(path, test_path(&dirs, "link")), 0);
    char *real = realpath(path, NULL);
    snprintf(fix, sizeof fix, "export KITH_RUN=%s", real);
    free(real);
    expect_run(test_path(&dirs, "link"), KITHI_DOCTOR_BAD, "is a symbolic link to", fix);
    assert_int_equal(symlink("nowhere", test_path(&dirs, "dangling")), 0);
    snprintf(fix, sizeof fix, "rm %s", test_path(&dirs, "dangling"));
    expect_run(test_path(&dirs, "dangling"), KITHI_DOCTOR_BAD, "leads nowhere", fix);
    test_tree_mkdir(
        &dirs, "/long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long");
    expect_run(
        test_path(
            &dirs,
            "long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long"),
        KITHI_DOCTOR_BAD, "leaves room for 96", "export KITH_RUN=/dev/shm/kith");
}

static void expect_rights(mode_t mode, bool connected, uid_t uid, enum kithi_doctor_state state,
                          const char *words, const char *fix)
{
    char path[TEST_PATH_SIZE], full_fix[2 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s", test_path(&dirs, "owned"));
    test_tree_mkdir(&dirs, "/owned");
    assert_int_equal(chmod(path, mode), 0);
    struct kithi_doctor d = make_doctor(&tree, path);
    d.asked.connected = connected;
    d.asked.uid = uid;
    snprintf(full_fix, sizeof full_fix, "%s %s", fix != NULL ? fix : "", path);
    assert_check(kithi_check_run_rights, &d, state, words, fix != NULL ? full_fix : NULL);
}

static void owner_and_mode_are_as_kithd_demands_them(void **state)
{
    (void)state;
    char words[64];
    snprintf(words, sizeof words, "kithd has to run as user %u", (unsigned)geteuid());
    expect_rights(0750, false, 0, KITHI_DOCTOR_OK, words, NULL);
    expect_rights(0755, true, geteuid(), KITHI_DOCTOR_OK, "mode 0755; user", NULL);
    expect_rights(0770, true, geteuid(), KITHI_DOCTOR_BAD,
                  "(mode 0770) can be written by others than its owner", "chmod go-w");
    expect_rights(0707, true, geteuid(), KITHI_DOCTOR_BAD, "readers refuse", "chmod go-w");
    test_tree_write(&tree, "/etc/passwd", "other:x:4711:1::/:\n");
    expect_rights(0750, true, 4711, KITHI_DOCTOR_BAD, "and kithd runs as user other", "chown other");
}

static void expect_daemon(struct kithi_asked asked, enum kithi_doctor_state state, const char *words,
                          const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    d.asked = asked;
    kithi_doctor_look(&d);
    assert_check(kithi_check_daemon, &d, state, words, fix);
}

static void each_answer_of_a_daemon_is_judged(void **state)
{
    (void)state;
    static struct kithi_asked a;
    a = (struct kithi_asked){ .connected = true, .pid = 17, .uid = 3, .took_us = 42, .version = "0.1.0" };
    expect_daemon(a, KITHI_DOCTOR_OK,
                  "within 42 us, as user 3, process 17, and is version 0.1.0, as this tool", NULL);
    strcpy(a.version, "");
    expect_daemon(a, KITHI_DOCTOR_OK, "speaks this tool's protocol", NULL);
    strcpy(a.version, "9.9.9");
    expect_daemon(a, KITHI_DOCTOR_WARN, "kithd is version 9.9.9 and this tool is version 0.1.0",
                  "systemctl restart kithd");
    a.status = KITHI_E_VERSION;
    strcpy(a.text, "protocol 7");
    expect_daemon(a, KITHI_DOCTOR_BAD, "protocol 7", "systemctl restart kithd");
    a.status = -ECONNABORTED;
    expect_daemon(a, KITHI_DOCTOR_BAD, "gives no good answer: protocol 7", "journalctl -u kithd -n 50");
    a.status = KITHI_E_TIMEOUT;
    expect_daemon(a, KITHI_DOCTOR_BAD, "does not answer", "journalctl -u kithd -n 50");
    test_tree_write(&tree, "/proc/17/comm", "kithd\n");
    expect_daemon(a, KITHI_DOCTOR_BAD, "does not answer", "cat /proc/17/wchan; kill -CONT 17");
    test_tree_write(&tree, "/proc/17/stat", "17 (kithd) R) T 1 17\n");
    expect_daemon(a, KITHI_DOCTOR_BAD, "kithd (process 17) is stopped", "kill -CONT 17");
    a = (struct kithi_asked){ .status = KITHI_E_NO_DAEMON };
    expect_daemon(a, KITHI_DOCTOR_BAD, "no kithd answers at /dev/shm/kith/kithd.sock",
                  "kithd --data /var/lib/kith --run /dev/shm/kith");
    a = (struct kithi_asked){ .status = KITHI_E_DENIED };
    char fix[128];
    test_tree_write(&tree, "/etc/group", "");
    snprintf(fix, sizeof fix, "kithd --data /var/lib/kith --run /dev/shm/kith --read-group %u",
             (unsigned)getegid());
    expect_daemon(a, KITHI_DOCTOR_WARN, "the socket cannot be reached", fix);
}

static void expect_collections(struct kithi_seen *items, size_t n, int asked, enum kithi_doctor_state state,
                               const char *words, const char *fix)
{
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    d.asked.status = asked;
    d.collections = (struct kithi_seen_list){ .items = items, .count = n };
    assert_check(kithi_check_collections, &d, state, words, fix);
}

static void collections_that_are_coming_back_are_told_with_how_far_they_are(void **state)
{
    (void)state;
    static const char JSON[] =
        "{\"ready\":false,\"served\":2,\"coming\":3,\"collections\":[{\"name\":\"a\",\"state\":\"served\"},"
        "{\"name\":\"b\",\"state\":\"loading\",\"unit\":\"bytes\",\"done\":1048576,\"total\":4194304,"
        "\"percent\":25},{\"name\":\"c\",\"state\":\"replaying\",\"unit\":\"groups\",\"done\":7,\"total\":90,"
        "\"percent\":7},{\"name\":\"d\",\"state\":\"waiting\",\"later\":[{}]},"
        "{\"name\":\"e\",\"state\":\"served\"}]}";
    struct kithi_seen s[5] = {
        { .name = "a", .segment = true, .listed = true, .answered = true },
        { .name = "b", .listed = true, .coming = true },
        { .name = "c", .listed = true, .coming = true, .segment = true },
        { .name = "d", .listed = true, .coming = true },
        { .name = "e", .listed = true, .coming = true, .segment = true },
    };
    struct kithi_seen_list list = { .items = s, .count = 5 };
    expect_collections(s, 2, 0, KITHI_DOCTOR_WARN, "1 of 2 collections back (b): until then",
                       "kith --run /dev/shm/kith stats --ready");
    kithi_asked_take_states(&list, JSON, sizeof JSON - 1);
    expect_collections(s, 5, 0, KITHI_DOCTOR_WARN,
                       "3 of 5 collections back (b: loading, 25 % of 4.0 MiB; c: replaying, 7 of at least 90 "
                       "groups; d: waiting): until then",
                       "kith --run /dev/shm/kith stats --ready");
    /* A segment that cannot be attached to is not its last one. */
    s[2].status = KITHI_E_VERSION;
    expect_collections(s, 5, 0, KITHI_DOCTOR_WARN, "3 of 5 collections back (b: loading, ",
                       "kith --run /dev/shm/kith stats --ready");
    /* What is worse comes first. */
    s[0].status = KITHI_E_CORRUPT;
    snprintf(s[0].err.text, sizeof s[0].err.text, "why a");
    expect_collections(
        s, 5, 0, KITHI_DOCTOR_BAD,
        "1 of 5 collections cannot be searched (a): why a; kithd is still bringing 3 back (b: ",
        "kith --run /dev/shm/kith verify a");
    /* Nonsense says nothing. */
    for (size_t cut = 0; cut < sizeof JSON - 1; cut += 7)
        kithi_asked_take_states(&list, JSON, cut);
}

static void a_collection_that_is_not_served_is_told_of_with_its_reason(void **state)
{
    (void)state;
    struct kithi_seen s[2] = {
        { .name = "a", .segment = true, .listed = true, .answered = true },
        { .name = "b",
          .segment = true,
          .listed = true,
          .refused = KITHI_E_VERSION,
          .why = "written by a later one" },
    };
    expect_collections(s, 2, 0, KITHI_DOCTOR_BAD,
                       "does not serve 1 of 2 collections (b): written by a later one",
                       "kith --run /dev/shm/kith stats --ready b");
}

static void collections_are_those_of_daemon_and_directory(void **state)
{
    (void)state;
    struct kithi_seen s[5] = {
        { .name = "a" }, { .name = "b" }, { .name = "c" }, { .name = "d" }, { .name = "e" }
    };
    expect_collections(NULL, 0, 0, KITHI_DOCTOR_OK, "no collections yet", NULL);
    expect_collections(s, 5, 0, KITHI_DOCTOR_OK, "no collections yet", NULL); /* empty directories */
    s[0].segment = s[1].segment = true;
    expect_collections(s, 5, KITHI_E_NO_DAEMON, KITHI_DOCTOR_OK,
                       "2 collections can be searched; without kithd", NULL);
    s[0].listed = s[0].answered = true;
    expect_collections(s, 1, 0, KITHI_DOCTOR_OK, "1 collection can be searched, and kithd serves all", NULL);
    expect_collections(s, 5, 0, KITHI_DOCTOR_WARN, "1 of 2 segments belong to no collection of kithd (b)",
                       "kith --run /dev/shm/kith list");
    s[1].listed = true;
    expect_collections(s, 5, 0, KITHI_DOCTOR_WARN, "nothing of 1 of 2 collections in time (b)",
                       "kith --run /dev/shm/kith --json stats b");
    s[2].listed = true;
    expect_collections(s, 5, 0, KITHI_DOCTOR_BAD,
                       "1 of 3 collections cannot be searched (c): kithd has it, and there is no",
                       "kith --run /dev/shm/kith verify c");
    for (size_t i = 0; i < 5; i++) {
        s[i].segment = true;
        s[i].status = KITHI_E_CORRUPT;
        snprintf(s[i].err.text, sizeof s[i].err.text, "why %.8s", s[i].name);
    }
    expect_collections(s, 5, 0, KITHI_DOCTOR_BAD,
                       "5 of 5 collections cannot be searched (a, b, c, ...): why a",
                       "kith --run /dev/shm/kith verify a");
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    d.look_status = -EACCES;
    assert_check(kithi_check_collections, &d, KITHI_DOCTOR_UNKNOWN, "Permission denied", NULL);
    char group[64];
    snprintf(group, sizeof group, "group-of-this-test:x:%u:\n", (unsigned)getegid());
    test_tree_write(&tree, "/etc/group", group);
    s[0].status = -EACCES;
    expect_collections(s, 1, KITHI_E_DENIED, KITHI_DOCTOR_BAD,
                       "1 of 1 collections may not be read by this user (a)",
                       "kithd --data /var/lib/kith --run /dev/shm/kith --read-group "
                       "group-of-this-test");
}

static void a_data_directory_may_be_unknown_or_elsewhere(void **state)
{
    (void)state;
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    assert_check(kithi_check_data_dir, &d, KITHI_DOCTOR_UNKNOWN, "name it by --data", NULL);
    assert_check(kithi_check_data_direct, &d, KITHI_DOCTOR_UNKNOWN, "not known", NULL);
    d.data = "/nowhere/at/all";
    d.data_asked = true;
    assert_check(kithi_check_data_dir, &d, KITHI_DOCTOR_UNKNOWN, "cannot be seen from here", NULL);
    assert_check(kithi_check_data_rights, &d, KITHI_DOCTOR_UNKNOWN, "cannot be seen from here", NULL);
    assert_check(kithi_check_data_space, &d, KITHI_DOCTOR_UNKNOWN, "cannot be seen from here", NULL);
    d.data_asked = false;
    assert_check(kithi_check_data_dir, &d, KITHI_DOCTOR_BAD, "there is no data directory",
                 "mkdir -p /nowhere/at");
}

static void whether_a_disk_takes_direct_writes_is_tried_on_what_is_there(void **state)
{
    (void)state;
    char path[TEST_PATH_SIZE];
    test_tree_mkdir(&dirs, "/data");
    snprintf(path, sizeof path, "%s", test_path(&dirs, "data"));
    struct kithi_doctor d = make_doctor(&tree, "/dev/shm/kith");
    d.data = path;
    assert_check(kithi_check_data_direct, &d, KITHI_DOCTOR_UNKNOWN, "there is none", NULL);
    test_tree_write(&dirs, "/data/docs/collection.conf", "x");
    struct kithi_finding f = { 0 };
    kithi_check_data_direct(&d, &f);
    assert_true(f.state == KITHI_DOCTOR_OK || f.state == KITHI_DOCTOR_WARN); /* as the disk of this test is */
    kithi_finding_free(&f);
    d.data = "/proc/sys/vm"; /* whose files take none */
    assert_check(kithi_check_data_direct, &d, KITHI_DOCTOR_WARN, "takes no O_DIRECT",
                 "findmnt -t ext4,xfs,btrfs -o TARGET,AVAIL");
    d.asked.direct = KITHI_YES_NO;
    assert_check(kithi_check_data_direct, &d, KITHI_DOCTOR_WARN, "kithd does without O_DIRECT",
                 "findmnt -t ext4,xfs,btrfs -o TARGET,AVAIL");
    d.asked.direct = KITHI_YES;
    assert_check(kithi_check_data_direct, &d, KITHI_DOCTOR_OK, "with O_DIRECT", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_quoted_where_a_shell_would_read_them),
        cmocka_unit_test(a_finding_is_said_anew_and_added_to),
        cmocka_unit_test(statistics_tell_what_they_know),
        cmocka_unit_test_setup_teardown(a_directory_has_to_be_there_and_a_real_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(owner_and_mode_are_as_kithd_demands_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_answer_of_a_daemon_is_judged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(collections_are_those_of_daemon_and_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_collection_that_is_not_served_is_told_of_with_its_reason, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(collections_that_are_coming_back_are_told_with_how_far_they_are,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_data_directory_may_be_unknown_or_elsewhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(whether_a_disk_takes_direct_writes_is_tried_on_what_is_there, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
