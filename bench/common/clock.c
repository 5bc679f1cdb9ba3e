/*
 * clock.c - clocks, pinning, medians, and giving up.
 */
#include "bench/common/clock.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t bench_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t bench_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t bench_process_cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

/* The CPUs allowed before the first pin; a pinned thread can no longer be asked. */
static const cpu_set_t *allowed(void)
{
    static cpu_set_t set;
    static int known;
    if (!known) {
        if (sched_getaffinity(0, sizeof(set), &set) != 0)
            bench_die("sched_getaffinity: %s", strerror(errno));
        known = 1;
    }
    return &set;
}

int bench_cpu(int n)
{
    const cpu_set_t *set = allowed();
    int count = CPU_COUNT(set);
    int wanted = (n % count + count) % count;
    int cpu = 0;
    while (!CPU_ISSET((size_t)cpu, set) || wanted-- > 0)
        cpu++;
    return cpu;
}

void bench_pin_task(pid_t task, int cpu)
{
    cpu_set_t one;
    allowed();
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    if (sched_setaffinity(task, sizeof(one), &one) != 0)
        bench_die("cannot pin to CPU %d: %s", cpu, strerror(errno));
}

void bench_pin(int cpu)
{
    bench_pin_task(0, cpu);
}

void bench_unpin(void)
{
    (void)sched_setaffinity(0, sizeof(cpu_set_t), allowed());
}

unsigned bench_cpu_count(void)
{
    return (unsigned)CPU_COUNT(allowed());
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *v, size_t n)
{
    if (n == 0)
        return NAN;
    qsort(v, n, sizeof(*v), by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

void bench_die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fflush(stdout);
    fputs("bench: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void *bench_alloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (!p)
        bench_die("out of memory (%zu bytes)", size);
    return p;
}
