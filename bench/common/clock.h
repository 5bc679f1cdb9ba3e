/*
 * clock.h - what every benchmark needs: clocks, pinning, medians, a way to give up.
 */
#ifndef KITH_BENCH_CLOCK_H
#define KITH_BENCH_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

uint64_t bench_now_ns(void);         /* CLOCK_MONOTONIC */
uint64_t bench_cpu_ns(void);         /* CPU time of this thread: what it ran, not what it waited */
uint64_t bench_process_cpu_ns(void); /* the same of all threads */

/* The n-th CPU that this process may use; negative n counts from the end, and wraps where there are fewer. */
int bench_cpu(int n);
/* Keep the calling thread on one CPU, or another task and what it starts later. */
void bench_pin(int cpu);
void bench_pin_task(pid_t task, int cpu);
/* Undo bench_pin: every CPU that the process may use. */
void bench_unpin(void);
/* CPUs that this process may use. */
unsigned bench_cpu_count(void);

/* Sorts v; the middle value, or the mean of the middle two. NaN when n is 0. */
double bench_median(double *v, size_t n);

/* Print "bench: ..." to stderr and exit(1). Benchmarks have no caller to report to. */
_Noreturn void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* malloc or bench_die. */
void *bench_alloc(size_t size);

#endif
