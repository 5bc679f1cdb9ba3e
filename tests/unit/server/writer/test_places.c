/*
 * test_places.c - can one user shut out the others by holding connections?
 */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base/log.h"
#include "tests/unit/server/writer/peer.h"
#include "tests/unit/server/writer/served.h"

#define STRANGER 65534u
#define CLIENTS  24u
#define OWN      8u /* places that are kept for kithd's own user and root */

static struct served served;

/* Run by another user: takes all it gets, tells how many that were, and holds them until told. */
static void take_all(uid_t uid, int tell, int until)
{
    struct peer peers[CLIENTS + 1];
    struct peer_reply r;
    unsigned n = 0;
    char byte;
    if (setgroups(0, NULL) || setgid(STRANGER) || setuid(uid)) {
        _exit(1);
    }
    for (; n <= CLIENTS; n++) {
        peer_connect(&peers[n], served.run.path);
        uint32_t hello[2] = { KITHI_WIRE_VERSION, 0 };
        peer_send_frame(&peers[n], KITHI_FRAME_HELLO, hello, sizeof hello, 0);
        if (!peer_reply(&peers[n], &r) || r.reply.status) {
            break;
        }
    }
    bool told = n <= CLIENTS && r.reply.status == -EUSERS && strstr(r.text, " connections, as many as ");
    byte = (char)(told ? n : 0);
    _exit(write(tell, &byte, 1) == 1 && read(until, &byte, 1) >= 0 ? 0 : 1);
}

static pid_t stranger(uid_t uid, int until[2], unsigned *out_got)
{
    int tell[2];
    char got = 0;
    assert_int_equal(pipe(tell), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        close(until[1]);
        take_all(uid, tell[1], until[0]);
    }
    close(tell[1]);
    assert_int_equal(read(tell[0], &got, 1), 1);
    close(tell[0]);
    *out_got = (unsigned)got;
    return pid;
}

static void one_user_gets_half_and_strangers_leave_room_for_the_owner(void **state)
{
    struct peer p[OWN];
    int until[2], status;
    unsigned got;
    (void)state;
    if (geteuid() != 0) {
        skip(); /* takes three users */
    }
    assert_int_equal(pipe(until), 0);
    pid_t first = stranger(STRANGER, until, &got);
    assert_int_equal(got, CLIENTS / 2);
    pid_t second = stranger(STRANGER - 1, until, &got);
    assert_int_equal(got, CLIENTS / 2 - OWN);
    for (unsigned i = 0; i < OWN; i++) {
        peer_open(&p[i], served.run.path);
        assert_int_equal(peer_call(&p[i], KITHI_FRAME_LIST, NULL, 0, 0, NULL), 0);
    }
    close(until[0]);
    close(until[1]);
    assert_true(waitpid(first, &status, 0) == first && status == 0);
    assert_true(waitpid(second, &status, 0) == second && status == 0);
    for (unsigned i = 0; i < OWN; i++) {
        peer_close(&p[i]);
    }
}

static int set_up(void **state)
{
    (void)state;
    kithi_log_set_level(KITHI_LOG_ERROR);
    served_init(&served);
    served.options.clients = CLIENTS;
    snprintf(served.options.read_group, sizeof served.options.read_group, "%u",
             geteuid() ? (unsigned)getegid() : STRANGER);
    return served_start(&served, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    int status = served_stop(&served);
    served_fini(&served);
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_user_gets_half_and_strangers_leave_room_for_the_owner),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
