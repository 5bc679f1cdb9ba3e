/*
 * cmd_top.c - top: look, wait, look again, show what happened in between. On a terminal that goes on until somebody ends
 * it; elsewhere one frame is printed, or as many as were asked for.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/args.h"
#include "tools/out.h"
#include "tools/top/frame.h"
#include "tools/top/screen.h"

#define INTERVAL_MIN 0.1
#define COUNT_MAX    1000000000u

struct top {
    struct kithi_tool *t;
    struct kithi_top_collection *collections;
    uint32_t count;
    bool all; /* the collections that there are, not those that were named */
    double interval;
    char note[200];
};

static struct kithi_top_collection *find(struct top *top, const char *name)
{
    for (uint32_t i = 0; i < top->count; i++)
        if (strcmp(top->collections[i].name, name) == 0)
            return &top->collections[i];
    return NULL;
}

static int add(struct top *top, const char *name)
{
    struct kithi_top_collection *more =
        realloc(top->collections, (top->count + 1) * sizeof *top->collections);
    if (!more)
        return -ENOMEM;
    top->collections = more;
    int rc = kithi_top_collection_init(&more[top->count], top->t, name);
    if (rc == 0)
        more[top->count++].listed = true;
    return rc;
}

static void forget(struct top *top)
{
    for (uint32_t i = 0; i < top->count; i++)
        kithi_top_collection_fini(&top->collections[i]);
    free(top->collections);
    top->collections = NULL;
    top->count = 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct kithi_top_collection *)a)->name,
                  ((const struct kithi_top_collection *)b)->name);
}

/* The collections that there are now. What is known of those that stay is kept. 0 or an error in note. */
static int list(struct top *top)
{
    struct kith_error error = { 0 };
    char *names = NULL;
    int n = kith_list(top->t->run_dir, &names, &error), rc = 0;
    if (n < 0) {
        snprintf(top->note, sizeof top->note, "%.190s", error.text[0] ? error.text : kith_strerror(n));
        return n;
    }
    for (uint32_t i = 0; i < top->count; i++)
        top->collections[i].listed = false;
    const char *name = names;
    for (int i = 0; i < n && rc == 0; i++, name += strlen(name) + 1) {
        struct kithi_top_collection *c = find(top, name);
        if (c)
            c->listed = true;
        else
            rc = add(top, name);
    }
    free(names);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < top->count; i++) {
        if (top->collections[i].listed)
            top->collections[kept++] = top->collections[i];
        else
            kithi_top_collection_fini(&top->collections[i]);
    }
    top->count = kept;
    if (top->count)
        qsort(top->collections, top->count, sizeof *top->collections, by_name);
    return rc;
}

static int look(struct top *top)
{
    int rc = 0;
    top->note[0] = '\0';
    if (top->all)
        rc = list(top);
    bool ask = true;
    for (uint32_t i = 0; i < top->count; i++)
        ask &= kithi_top_look(&top->collections[i], top->t, ask);
    return rc;
}

/* The frame as text, malloc'ed; NULL: no memory. */
static char *compose(const struct top *top, size_t *out_len)
{
    struct timespec now;
    char *text = NULL;
    FILE *f = open_memstream(&text, out_len);
    if (!f)
        return NULL;
    clock_gettime(CLOCK_REALTIME, &now);
    const struct kithi_top_frame frame = {
        .run_dir = kithi_tool_run_dir(top->t, NULL),
        .collections = top->collections,
        .count = top->count,
        .interval = top->interval,
        .time_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
        .note = top->note[0] ? top->note : NULL,
    };
    if (top->t->json)
        kithi_top_json(f, &frame);
    else
        kithi_top_draw(f, &frame);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    /* No empty line behind the last table. */
    while (*out_len > 1 && text[*out_len - 1] == '\n' && text[*out_len - 2] == '\n')
        --*out_len;
    return text;
}

static uint64_t interval_ns(const struct top *top)
{
    return (uint64_t)(top->interval * 1e9);
}

/* Frames after each other, count of them (0: without end), each of the time since the one before. */
static int print_frames(struct top *top, uint32_t count)
{
    uint64_t next_ns = kithi_tool_now_ns();
    for (uint32_t i = 0; count == 0 || i < count; i++) {
        next_ns += interval_ns(top);
        for (uint64_t now; (now = kithi_tool_now_ns()) < next_ns;) {
            struct timespec t = { .tv_sec = (time_t)((next_ns - now) / 1000000000u),
                                  .tv_nsec = (long)((next_ns - now) % 1000000000u) };
            nanosleep(&t, NULL);
        }
        look(top);
        size_t len;
        char *text = compose(top, &len);
        if (!text)
            return kithi_tool_fail(top->t, "%s", kith_strerror(-ENOMEM));
        if (i && !top->t->json)
            putchar('\n');
        fwrite(text, 1, len, stdout);
        free(text);
        if (fflush(stdout) != 0)
            break; /* kithi_tool_end() says why */
    }
    return KITHI_TOOL_OK;
}

static int draw(const struct top *top)
{
    size_t len;
    char *text = compose(top, &len);
    int rc = text ? kithi_screen_draw(text, len) : -ENOMEM;
    free(text);
    return rc;
}

/* The live view. */
static int show(struct top *top, uint32_t count)
{
    int rc = kithi_screen_open();
    if (rc < 0)
        return kithi_tool_fail(top->t, "the terminal cannot be used: %s", kith_strerror(rc));
    uint64_t next_ns = kithi_tool_now_ns();
    uint32_t frames = 0;
    rc = draw(top); /* what the first look gave; rates come with the second */
    while (rc == 0) {
        next_ns += interval_ns(top);
        if (next_ns < kithi_tool_now_ns())
            next_ns = kithi_tool_now_ns(); /* it was stopped, or a look took longer: no hurry to catch up */
        enum kithi_screen_event event;
        while (rc == 0 && (event = kithi_screen_wait(next_ns)) == KITHI_SCREEN_REDRAW)
            rc = draw(top);
        if (rc < 0 || event == KITHI_SCREEN_END)
            break;
        if (event == KITHI_SCREEN_NOW)
            next_ns = kithi_tool_now_ns();
        look(top);
        rc = draw(top);
        if (rc == 0 && count && ++frames == count)
            break;
    }
    kithi_screen_close();
    if (rc < 0)
        return kithi_tool_fail(top->t, "the terminal cannot be written: %s", kith_strerror(rc));
    if (kithi_screen_signal()) { /* to end as one does of it */
        forget(top);
        raise(kithi_screen_signal());
    }
    return KITHI_TOOL_OK;
}

/* Those that were named have to be there. Returns an exit status. */
static int open_named(struct top *top, char **names, int n)
{
    for (int i = 0; i < n; i++) {
        kith *index = NULL;
        if (find(top, names[i]))
            return kithi_tool_usage(top->t, "%s is given twice", names[i]);
        int status = kithi_tool_open(top->t, names[i], &index);
        if (status != KITHI_TOOL_OK)
            return status;
        kith_close(index);
        int rc = add(top, names[i]);
        if (rc < 0)
            return kithi_tool_fail_with(top->t, names[i], rc, "");
    }
    return KITHI_TOOL_OK;
}

int kithi_cmd_top(struct kithi_tool *t, int argc, char **argv)
{
    struct top top = { .t = t, .interval = 1 };
    uint32_t count = UINT32_MAX;
    int n = 0;
    const struct kithi_arg args[] = {
        { "--interval", KITHI_ARG_REAL, &top.interval, 0, 86400 },
        { "--count", KITHI_ARG_NUMBER, &count, 0, COUNT_MAX },
    };
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &n);
    if (status != KITHI_TOOL_OK)
        return status;
    if (!(top.interval >= INTERVAL_MIN))
        return kithi_tool_usage(t, "--interval is %g seconds at least", INTERVAL_MIN);
    bool live = !t->json && kithi_screen_usable();
    if (count == UINT32_MAX)
        count = live ? 0 : 1;
    top.all = n == 0;
    status = open_named(&top, argv + 1, n);
    if (status == KITHI_TOOL_OK && look(&top) < 0)
        status = kithi_tool_fail(t, "%s", top.note[0] ? top.note : kith_strerror(-ENOMEM));
    if (status == KITHI_TOOL_OK)
        status = live ? show(&top, count) : print_frames(&top, count);
    forget(&top);
    return status;
}
