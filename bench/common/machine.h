/*
 * machine.h - the machine that figures belong to, in one line.
 */
#ifndef KITH_BENCH_MACHINE_H
#define KITH_BENCH_MACHINE_H

#include <stddef.h>

/* Processor, CPUs, memory, kernel, page size of shared memory; without characters that JSON escapes. */
void bench_machine(char *out, size_t size);

#endif
