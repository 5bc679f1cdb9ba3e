/*
 * screen.c - see screen.h.
 *
 * Signals are blocked but while waiting, so handlers only note them. The alternate screen keeps what was on the terminal
 * before; lines are drawn over each other from the top left and the rest of each is erased.
 */
#include "tools/top/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "tools/out.h"

#define ENTER "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J" /* alternate screen, no cursor, empty */
#define LEAVE "\x1b[?25h\x1b[?1049l"

static const int SIGNALS[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT };

static struct {
    bool open;
    bool raw;  /* the standard input is a terminal, and its settings are changed */
    bool keys; /* ... and can be read */
    struct termios found;
    sigset_t mask; /* as it was found */
    struct sigaction actions[sizeof SIGNALS / sizeof *SIGNALS];
} screen;

static volatile sig_atomic_t ended, resized, stopped;

static void note(int number)
{
    switch (number) {
    case SIGWINCH:
    case SIGCONT: resized = 1; break;
    case SIGTSTP: stopped = 1; break;
    default: ended = number; break;
    }
}

static int write_all(const char *text, size_t len)
{
    while (len) {
        ssize_t n = write(STDOUT_FILENO, text, len);
        if (n < 0 &&
            errno == EAGAIN) { /* somebody made the terminal non-blocking: wait for it, or for the end */
            struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };
            poll(&p, 1, 100);
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static int enter(void)
{
    if (screen.raw) {
        struct termios raw = screen.found;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    return write_all(ENTER, strlen(ENTER));
}

static void leave(void)
{
    write_all(LEAVE, strlen(LEAVE));
    if (screen.raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &screen.found);
}

bool kithi_screen_usable(void)
{
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

int kithi_screen_open(void)
{
    struct sigaction act = { .sa_handler = note };
    sigset_t ours;
    ended = resized = stopped = 0;
    sigfillset(&act.sa_mask);
    sigemptyset(&ours);
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++)
        sigaddset(&ours, SIGNALS[i]);
    sigprocmask(SIG_BLOCK, &ours, &screen.mask);
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) {
        sigaction(SIGNALS[i], NULL, &screen.actions[i]);
        /* What nohup and shells without job control ignore stays ignored. */
        if (screen.actions[i].sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &act, NULL);
    }
    screen.raw = screen.keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &screen.found) == 0;
    screen.open = true;
    int rc = enter();
    if (rc < 0)
        kithi_screen_close();
    return rc;
}

void kithi_screen_close(void)
{
    if (!screen.open)
        return;
    leave();
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++)
        sigaction(SIGNALS[i], &screen.actions[i], NULL);
    sigprocmask(SIG_SETMASK, &screen.mask, NULL);
    screen.open = false;
}

/* Room for text, with the size of the terminal as it is now. */
static void measure(unsigned *rows, unsigned *columns)
{
    struct winsize w = { 0 };
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
    *rows = w.ws_row ? w.ws_row : 24;
    *columns = w.ws_col ? w.ws_col : 80;
}

int kithi_screen_draw(const char *text, size_t len)
{
    unsigned rows, columns, lines = 0, row = 0;
    char *out = NULL;
    size_t out_len = 0;
    measure(&rows, &columns);
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    FILE *f = open_memstream(&out, &out_len);
    if (!f)
        return -ENOMEM;
    fputs("\x1b[H", f);
    for (const char *p = text, *end = text + len; p < end && row < rows; row++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = nl ? (size_t)(nl - p) : (size_t)(end - p), kept;
        if (row)
            fputc('\n', f);
        if (row + 1 == rows && lines > rows) {
            char more[64];
            int m = snprintf(more, sizeof more, "(%u more lines: a higher window has room for them)",
                             lines - row);
            kept = (size_t)m < columns ? (size_t)m : columns;
            fwrite(more, 1, kept, f);
        } else {
            kept = n < columns ? n : columns; /* a byte is a column: what is drawn is ASCII */
            fwrite(p, 1, kept, f);
        }
        if (kept < columns) /* behind the last column it would erase that */
            fputs("\x1b[K", f);
        p += n + 1;
    }
    fputs("\x1b[J", f);
    int rc = fclose(f) == 0 ? write_all(out, out_len) : -ENOMEM;
    free(out);
    return rc;
}

/* To the background and back. */
static void stop(void)
{
    struct sigaction act = { .sa_handler = SIG_DFL }, ours;
    sigset_t tstp, before;
    leave();
    sigaction(SIGTSTP, &act, &ours);
    raise(SIGTSTP);
    sigemptyset(&tstp);
    sigaddset(&tstp, SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &tstp, &before); /* here it stops, and goes on */
    sigprocmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGTSTP, &ours, NULL);
    enter();
}

enum kithi_screen_event kithi_screen_wait(uint64_t until_ns)
{
    sigset_t open_mask = screen.mask;
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++)
        sigdelset(&open_mask, SIGNALS[i]);
    for (;;) {
        struct pollfd p = { .fd = screen.keys ? STDIN_FILENO : -1, .events = POLLIN };
        uint64_t now = kithi_tool_now_ns(), left = until_ns > now ? until_ns - now : 0;
        struct timespec t = { .tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u) };
        int n = ppoll(&p, 1, &t, &open_mask);
        if (ended)
            return KITHI_SCREEN_END;
        if (stopped) {
            stopped = 0;
            stop();
            return KITHI_SCREEN_REDRAW;
        }
        if (resized) {
            resized = 0;
            return KITHI_SCREEN_REDRAW;
        }
        if (n == 0)
            return KITHI_SCREEN_TIME;
        if (n > 0) {
            char key;
            ssize_t got = read(STDIN_FILENO, &key, 1);
            if (got == 1 && (key == 'q' || key == 'Q'))
                return KITHI_SCREEN_END;
            if (got == 1 && key == ' ')
                return KITHI_SCREEN_NOW;
            if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
                screen.keys = false; /* hung up, or closed: no more keys */
        }
    }
}

int kithi_screen_signal(void)
{
    return ended == SIGINT ? 0 : ended;
}
