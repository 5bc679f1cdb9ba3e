/*
 * fault.c - which passage of which place fails, from KITH_FAULT. See fault.h.
 */
#include "server/base/fault.h"

#ifdef KITH_FAULT_POINTS

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef KITHI_COVERAGE
#include <gcov.h>
#endif

#define POINT_MAX 16u

static struct {
    const char *name; /* into the environment */
    size_t len;
    unsigned long left; /* passages until it fails; 0: it has failed */
} points[POINT_MAX];
static unsigned point_count;
static const char *known; /* the setting that points were read from */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A forked child of a test may have another setting than its parent. */
static void read_environment(void)
{
    const char *p = getenv("KITH_FAULT");
    if (p == known)
        return;
    known = p;
    point_count = 0;
    while (p && *p && point_count < POINT_MAX) {
        size_t len = strcspn(p, ":,");
        const char *end = p + len;
        char *after = NULL;
        unsigned long n = *end == ':' ? strtoul(end + 1, &after, 10) : 1;
        points[point_count].name = p;
        points[point_count].len = len;
        points[point_count++].left = n ? n : 1;
        p = strchr(end, ',');
        if (p) {
            p++;
        }
    }
}

bool kithi_fault(const char *point)
{
    bool hit = false;
    pthread_mutex_lock(&lock);
    read_environment();
    for (unsigned i = 0; i < point_count; i++) {
        if (points[i].left && strlen(point) == points[i].len &&
            !memcmp(points[i].name, point, points[i].len)) {
            hit |= --points[i].left == 0;
        }
    }
    pthread_mutex_unlock(&lock);
    return hit;
}

bool kithi_fault_held(const char *point, const char *name)
{
    char path[512];
    const char *dir = getenv("KITH_HOLD");
    if (!dir) {
        return false;
    }
    int n = snprintf(path, sizeof path, "%s/%s-%s", dir, point, name);
    return n > 0 && (size_t)n < sizeof path && access(path, F_OK) == 0;
}

/* Who dies at a point was somewhere before: builds that count branches write their counts first. */
void kithi_fault_counts(void)
{
#ifdef KITHI_COVERAGE
    __gcov_dump();
#endif
}

void kithi_fault_crash(const char *point)
{
    if (kithi_fault(point)) {
        kithi_fault_counts();
        kill(getpid(), SIGKILL);
        pause();
    }
}

#else

/* A translation unit holds at least one declaration. */
extern int kithi_fault_absent;

#endif
