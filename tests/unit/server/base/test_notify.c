/*
 * What a service manager is told: over a fake socket of its own, by file and by abstract name.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base/log.h"
#include "server/base/notify.h"

/* A manager that listens under a name; '@' begins one that is no file. */
static int listen_as(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t len = strlen(name);
    assert_true(len < sizeof address.sun_path);
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(
        bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void expect(int fd, const char *text)
{
    char got[1024];
    ssize_t n = recv(fd, got, sizeof got - 1, 0);
    assert_int_equal(n, strlen(text));
    got[n] = '\0';
    assert_string_equal(got, text);
}

static void a_file_and_an_abstract_name_get_each_message_as_one_datagram(void **state)
{
    char name[80];
    (void)state;
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s-kith-notify-%d", i ? "@" : "/tmp/", (int)getpid());
        int fd = listen_as(name);
        kithi_notify("READY=1\nSTATUS=%u collections", 3u);
        kithi_notify("STOPPING=1");
        expect(fd, "READY=1\nSTATUS=3 collections");
        expect(fd, "STOPPING=1");
        assert_int_equal(recv(fd, name, sizeof name, 0), -1);
        close(fd);
        if (!i)
            unlink(name);
    }
}

static void a_long_message_is_cut_and_never_overruns(void **state)
{
    char name[80], got[1024], text[900];
    (void)state;
    snprintf(name, sizeof name, "@kith-notify-long-%d", (int)getpid());
    int fd = listen_as(name);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    kithi_notify("STATUS=%s", text);
    assert_int_equal(recv(fd, got, sizeof got, 0), 511);
    close(fd);
}

static void nobody_to_tell_is_silence_and_one_who_is_gone_is_logged(void **state)
{
    int ends[2];
    char line[512] = "";
    (void)state;
    assert_int_equal(pipe(ends), 0);
    kithi_log_set_fd(ends[1]);
    unsetenv("NOTIFY_SOCKET");
    kithi_notify("READY=1");
    setenv("NOTIFY_SOCKET", "@", 1);
    kithi_notify("READY=1");
    memset(line, 'p', 300);
    setenv("NOTIFY_SOCKET", line, 1); /* longer than an address holds */
    kithi_notify("READY=1");
    setenv("NOTIFY_SOCKET", "/nonexistent/manager", 1);
    kithi_notify("READY=1");
    kithi_log_set_fd(2);
    ssize_t n = read(ends[0], line, sizeof line - 1);
    assert_true(n > 0);
    line[n] = '\0';
    assert_non_null(strstr(line, "event=manager-not-told socket=/nonexistent/manager"));
    assert_ptr_equal(strchr(line, '\n'), line + n - 1); /* that one alone */
    close(ends[0]);
    close(ends[1]);
    unsetenv("NOTIFY_SOCKET");
}

static void the_watchdog_is_this_process_only_when_it_is_meant(void **state)
{
    char pid[24];
    (void)state;
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    assert_int_equal(kithi_notify_watchdog_ms(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    assert_int_equal(kithi_notify_watchdog_ms(), 30000);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(kithi_notify_watchdog_ms(), 30000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(kithi_notify_watchdog_ms(), 0);
    setenv("WATCHDOG_PID", "me", 1);
    assert_int_equal(kithi_notify_watchdog_ms(), 0);
    unsetenv("WATCHDOG_PID");
    static const char *const strange[] = { "", "-1", "soon", "0", "5s", "99999999999999999999999" };
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        setenv("WATCHDOG_USEC", strange[i], 1);
        assert_int_equal(kithi_notify_watchdog_ms(), 0);
    }
    setenv("WATCHDOG_USEC", "10", 1);
    assert_int_equal(kithi_notify_watchdog_ms(), 1); /* never "nobody waits" by rounding */
    unsetenv("WATCHDOG_USEC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_and_an_abstract_name_get_each_message_as_one_datagram),
        cmocka_unit_test(a_long_message_is_cut_and_never_overruns),
        cmocka_unit_test(nobody_to_tell_is_silence_and_one_who_is_gone_is_logged),
        cmocka_unit_test(the_watchdog_is_this_process_only_when_it_is_meant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
