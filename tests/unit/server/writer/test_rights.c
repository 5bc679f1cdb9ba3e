/*
 * test_rights.c - who may do what?
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/writer/dirs.h"
#include "server/writer/rights.h"

static const struct kithi_rights_policy policy = {
    .owner = 100, .read_group = 200, .write_group = 300, .read_name = "readers", .write_name = "writers"
};

static void assert_rights(const struct kithi_rights_policy *p, uid_t uid, gid_t gid, gid_t other, bool read,
                          bool write)
{
    struct kithi_rights r = kithi_rights_decide(p, uid, gid, &other, 1);
    assert_int_equal(r.read, read);
    assert_int_equal(r.write, write);
}

static void owner_and_root_may_everything(void **state)
{
    (void)state;
    assert_rights(&policy, 100, 1, 2, true, true);
    assert_rights(&policy, 0, 1, 2, true, true);
}

static void groups_count_as_first_and_as_supplementary_ones(void **state)
{
    (void)state;
    assert_rights(&policy, 7, 200, 2, true, false);
    assert_rights(&policy, 7, 1, 200, true, false);
    assert_rights(&policy, 7, 300, 2, true, true);
    assert_rights(&policy, 7, 1, 300, true, true);
    assert_rights(&policy, 7, 1, 2, false, false);
}

static void without_groups_nobody_else_may_anything(void **state)
{
    struct kithi_rights_policy p = policy;
    (void)state;
    p.read_group = p.write_group = KITHI_NO_GROUP;
    assert_rights(&p, 7, 200, 300, false, false);
    assert_rights(&p, 7, KITHI_NO_GROUP, KITHI_NO_GROUP, false, false);
}

static void the_kernel_tells_who_is_there(void **state)
{
    struct kithi_rights_policy p = policy;
    struct kithi_rights r;
    uid_t uid;
    int pair[2];
    (void)state;
    p.owner = geteuid();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(kithi_rights_of_peer(&p, pair[0], &r, &uid), 0);
    assert_int_equal(uid, geteuid());
    assert_true(r.read && r.write);
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(kithi_rights_of_peer(&p, -1, &r, &uid), -EBADF);
}

static void a_refusal_names_the_group(void **state)
{
    struct kithi_rights_policy p = policy;
    struct kithi_errmsg err;
    (void)state;
    assert_int_equal(kithi_rights_denied(&p, true, "drop", &err), KITHI_E_DENIED);
    assert_non_null(strstr(err.text, "writers"));
    assert_int_equal(kithi_rights_denied(&p, false, "list", &err), KITHI_E_DENIED);
    assert_non_null(strstr(err.text, "readers"));
    p.write_group = KITHI_NO_GROUP;
    assert_int_equal(kithi_rights_denied(&p, true, "drop", &err), KITHI_E_DENIED);
    assert_non_null(strstr(err.text, "--write-group"));
}

static void groups_are_found_by_name_and_number(void **state)
{
    gid_t gid;
    struct kithi_errmsg err;
    (void)state;
    assert_int_equal(kithi_rights_group("4242", &gid, NULL), 0);
    assert_int_equal(gid, 4242);
    assert_int_equal(kithi_rights_group("no such group", &gid, &err), -ENOENT);
    assert_non_null(strstr(err.text, "no such group"));
    assert_int_equal(kithi_rights_group("-1", &gid, &err), -ENOENT);
    assert_int_equal(kithi_rights_group("4294967295", &gid, &err), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owner_and_root_may_everything),
        cmocka_unit_test(groups_count_as_first_and_as_supplementary_ones),
        cmocka_unit_test(without_groups_nobody_else_may_anything),
        cmocka_unit_test(the_kernel_tells_who_is_there),
        cmocka_unit_test(a_refusal_names_the_group),
        cmocka_unit_test(groups_are_found_by_name_and_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
