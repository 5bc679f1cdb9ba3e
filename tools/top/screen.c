/*
 * screen.c - see screen.h.
 *
 * Signals are blocked but while waiting, so handlers only note them. The alternate screen keeps what was on the terminal
 * before; lines are drawn over each other from the top left and the rest of each is erased.
 *
 * A terminal may take no output for any time: stopped by Ctrl-S, or at the end of a connection that is stuck. So it is written through
 * a file description of our own that does not block (the one that was inherited is the shell's, too), and what waits for it
 * waits for signals as well.
 *
 * In the background nothing is drawn, no key is read and no setting is changed; SIGTTOU and SIGTTIN are ignored, so that it does not stop there,
 * where nothing but SIGKILL would end it.
 */
#include "tools/top/screen.h"

#include <errno.h>
#include <fcntl.h>
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

#define SLICE_NS    UINT64_C(250000000) /* between two looks whether the terminal is ours */
#define PATIENCE_NS UINT64_C(300000000) /* with a terminal that is to be left */
#define FOR_EVER    UINT64_MAX

static const int SIGNALS[] = { SIGINT,  SIGTERM, SIGHUP,   SIGQUIT, SIGALRM,
                               SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT };
static const int IGNORED[] = { SIGTTOU, SIGTTIN };
#define COUNT(list) (sizeof(list) / sizeof *(list))

static struct {
    bool open;
    bool entered; /* the terminal shows what is drawn */
    bool away;    /* ... and was another's since: it is to be entered anew */
    bool raw;     /* the standard input is a terminal, and its settings are changed */
    bool keys;    /* ... and can be read */
    int out;      /* the terminal */
    bool own;     /* `out` does not block, and is nobody else's */
    struct termios found;
    sigset_t mask;    /* as it was found */
    sigset_t waiting; /* while waiting: our signals are open */
    struct sigaction actions[COUNT(SIGNALS)], ignored[COUNT(IGNORED)];
} screen;

static volatile sig_atomic_t ended, resized, stopped, continued;

static void note(int number)
{
    switch (number) {
    case SIGWINCH: resized = 1; break;
    case SIGCONT: continued = 1; break;
    case SIGTSTP: stopped = 1; break;
    default: ended = number; break;
    }
}

/* Is the terminal ours to draw on? It is where there is no job control, too. */
static bool is_ours(void)
{
    pid_t group = tcgetpgrp(STDOUT_FILENO);
    return group < 0 || group == getpgrp();
}

static struct timespec time_of(uint64_t ns)
{
    return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
}

/*
 * Write all of it, at most until until_ns. heed: give up for a signal that ends or stops, or when the terminal is not
 * ours any more. 0; -EINTR: given up; -EAGAIN: the time has come; another error.
 */
static int put(const char *text, size_t len, uint64_t until_ns, bool heed)
{
    bool ready = false;
    while (len) {
        sigset_t before;
        if (heed && (ended || stopped || !is_ours()))
            return -EINTR;
        if (!screen.own) /* it may block: for a signal that comes meanwhile it ends */
            sigprocmask(SIG_SETMASK, &screen.waiting, &before);
        ssize_t n = write(screen.out, text, len);
        int error = errno;
        if (!screen.own)
            sigprocmask(SIG_SETMASK, &before, NULL);
        if (n >= 0) {
            text += n;
            len -= (size_t)n;
            ready = false;
        } else if (error == EAGAIN) {
            uint64_t now = kithi_tool_now_ns(), left = until_ns > now ? until_ns - now : 0;
            struct pollfd p = { .fd = screen.out, .events = POLLOUT };
            /* It may say that it has room and have too little: then it is given time. */
            uint64_t most = ready ? SLICE_NS / 10 : SLICE_NS;
            struct timespec t = time_of(left < most ? left : most);
            if (left == 0)
                return -EAGAIN;
            ready = ppoll(&p, ready ? 0 : 1, &t, &screen.waiting) > 0;
        } else if (error != EINTR || !heed) {
            return -error;
        }
    }
    return 0;
}

/* 0; -EINTR when that was given up, and is to be done again or left; or an error. */
static int enter(void)
{
    /* Where it was another's it has our settings, or the shell's for its own line; what was found first stays. */
    if (screen.raw && !screen.entered)
        tcgetattr(STDIN_FILENO, &screen.found);
    screen.entered = true;
    if (screen.raw) {
        struct termios raw = screen.found;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    int rc = put(ENTER, strlen(ENTER), FOR_EVER, true);
    screen.away = rc == -EINTR;
    return rc;
}

/* It takes nothing. What still waits there is given up, and a Ctrl-S with it: without IXON the kernel lets output go on. */
static void leave_stuck(void)
{
    struct termios now, flowing;
    bool known = tcgetattr(screen.out, &now) == 0;
    if (known) {
        flowing = now;
        flowing.c_iflag &= ~(tcflag_t)IXON;
        tcsetattr(screen.out, TCSANOW, &flowing);
    }
    tcflush(screen.out, TCOFLUSH);
    put(LEAVE, strlen(LEAVE), kithi_tool_now_ns() + PATIENCE_NS, false);
    if (known)
        tcsetattr(screen.out, TCSANOW, &now);
}

/* As it was found. Settings are the shell's by now where the terminal is not ours; what is shown is not. */
static void leave(void)
{
    if (!screen.entered)
        return;
    bool ours = is_ours();
    screen.entered = false;
    if (put(LEAVE, strlen(LEAVE), kithi_tool_now_ns() + PATIENCE_NS, false) < 0 && ours)
        leave_stuck();
    if (screen.raw && ours)
        tcsetattr(STDIN_FILENO, TCSANOW, &screen.found);
}

bool kithi_screen_usable(void)
{
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* The standard output opened once more. Its device may be another user's; that of /dev/tty is nobody's. */
static void open_out(void)
{
    const int flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    screen.out = open("/proc/self/fd/1", flags);
    if (screen.out < 0 && tcgetpgrp(STDOUT_FILENO) >= 0) /* it is the terminal that controls us */
        screen.out = open("/dev/tty", flags);
    screen.own = screen.out >= 0;
    if (!screen.own)
        screen.out = STDOUT_FILENO;
}

int kithi_screen_open(void)
{
    struct sigaction act = { .sa_handler = note }, ignore = { .sa_handler = SIG_IGN };
    sigset_t ours;
    ended = resized = stopped = continued = 0;
    sigfillset(&act.sa_mask);
    sigemptyset(&ours);
    for (size_t i = 0; i < COUNT(SIGNALS); i++)
        sigaddset(&ours, SIGNALS[i]);
    sigprocmask(SIG_BLOCK, &ours, &screen.mask);
    screen.waiting = screen.mask;
    for (size_t i = 0; i < COUNT(SIGNALS); i++) {
        sigdelset(&screen.waiting, SIGNALS[i]);
        sigaction(SIGNALS[i], NULL, &screen.actions[i]);
        /* What nohup and shells without job control ignore stays ignored. */
        if (screen.actions[i].sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &act, NULL);
    }
    for (size_t i = 0; i < COUNT(IGNORED); i++)
        sigaction(IGNORED[i], &ignore, &screen.ignored[i]);
    screen.raw = screen.keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &screen.found) == 0;
    screen.entered = screen.away = false;
    screen.open = true;
    open_out();
    return 0;
}

void kithi_screen_close(void)
{
    if (!screen.open)
        return;
    leave();
    if (screen.own)
        close(screen.out);
    for (size_t i = 0; i < COUNT(SIGNALS); i++)
        sigaction(SIGNALS[i], &screen.actions[i], NULL);
    for (size_t i = 0; i < COUNT(IGNORED); i++)
        sigaction(IGNORED[i], &screen.ignored[i], NULL);
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
    if (!is_ours()) {
        screen.away = screen.entered;
        return 0;
    }
    int rc = screen.entered && !screen.away ? 0 : enter();
    if (rc < 0)
        return rc == -EINTR ? 0 : rc;
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
    rc = fclose(f) == 0 ? put(out, out_len, FOR_EVER, true) : -ENOMEM;
    free(out);
    return rc == -EINTR ? 0 : rc; /* kithi_screen_wait() says what came in between */
}

/* To the background and back: the next draw enters the terminal, if that is ours then. */
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
}

/* A key came, or what looks like one. False: there is nothing to do. */
static bool read_key(enum kithi_screen_event *out)
{
    char key;
    ssize_t got = read(STDIN_FILENO, &key, 1);
    if (got == 1 && (key == 'q' || key == 'Q')) {
        *out = KITHI_SCREEN_END;
        return true;
    }
    if (got == 1 && key == ' ') {
        *out = KITHI_SCREEN_NOW;
        return true;
    }
    /* Hung up, or closed: no more keys. In the background an error says no more than that. */
    bool gone = got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN);
    if (gone && is_ours())
        screen.keys = false;
    return false;
}

enum kithi_screen_event kithi_screen_wait(uint64_t until_ns)
{
    for (;;) {
        enum kithi_screen_event event;
        if (ended)
            return KITHI_SCREEN_END;
        if (stopped) {
            stopped = 0;
            stop();
            return KITHI_SCREEN_REDRAW;
        }
        if (continued) { /* a shell has had it meanwhile */
            continued = 0;
            screen.away = screen.entered;
            return KITHI_SCREEN_REDRAW;
        }
        if (resized) {
            resized = 0;
            return KITHI_SCREEN_REDRAW;
        }
        const bool ours = is_ours();
        if (ours && (!screen.entered || screen.away))
            return KITHI_SCREEN_REDRAW;
        screen.away |= screen.entered && !ours;
        struct pollfd p = { .fd = screen.keys && ours ? STDIN_FILENO : -1, .events = POLLIN };
        uint64_t now = kithi_tool_now_ns(), left = until_ns > now ? until_ns - now : 0;
        /* Nobody tells when a terminal becomes ours, or another's: look now and then. */
        struct timespec t = time_of(left < SLICE_NS ? left : SLICE_NS);
        int n = ppoll(&p, 1, &t, &screen.waiting);
        if (n == 0 && left <= SLICE_NS)
            return KITHI_SCREEN_TIME;
        if (n > 0 && read_key(&event))
            return event;
    }
}

int kithi_screen_signal(void)
{
    return ended == SIGINT ? 0 : ended;
}
