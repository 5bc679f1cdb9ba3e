/*
 * notify.c - see notify.h.
 */
#include "server/base/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/base/log.h"

void kithi_notify(const char *fmt, ...)
{
    char text[512];
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len > sizeof address.sun_path) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return;
    }
    memcpy(address.sun_path, path, len);
    if (path[0] == '@') { /* a name that is no file */
        address.sun_path[0] = 0;
    }
    /* Does not block: a manager that takes nothing shall not stop the loop, whose life is what this is about. */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    size_t bytes = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    if (fd < 0 || sendto(fd, text, bytes, MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0) {
        kithi_log(KITHI_LOG_WARN, "manager-not-told", "socket=%s msg=%s", path, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

static int read_number(const char *name, uint64_t *out)
{
    const char *text = getenv(name);
    char *end;
    if (!text || *text < '0' || *text > '9') {
        return text ? -EINVAL : -ENOENT;
    }
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno || *end ? -EINVAL : 0;
}

uint64_t kithi_notify_watchdog_ms(void)
{
    uint64_t usec = 0, pid = 0;
    if (read_number("WATCHDOG_USEC", &usec) || usec == 0) {
        return 0;
    }
    int status = read_number("WATCHDOG_PID", &pid);
    if (status == -EINVAL || (!status && pid != (uint64_t)getpid())) {
        return 0; /* meant for the process that started this one */
    }
    return usec / 1000 ? usec / 1000 : 1;
}
