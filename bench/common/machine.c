/*
 * machine.c - the machine that figures belong to, as the kernel describes it.
 */
#include "bench/common/machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/common/clock.h"

/* What follows the first "key" and colon in a file of such lines; the fallback when there is none. */
static void read_value(const char *path, const char *key, char *out, size_t size, const char *fallback)
{
    char line[512];
    FILE *f = fopen(path, "r");
    snprintf(out, size, "%s", fallback);
    while (f && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    if (f)
        fclose(f);
}

/* The chosen one of "always [never] madvise". */
static void read_choice(const char *path, char *out, size_t size)
{
    char line[256] = "";
    FILE *f = fopen(path, "r");
    if (f) {
        (void)!fgets(line, sizeof(line), f);
        fclose(f);
    }
    char *from = strchr(line, '[');
    char *to = from ? strchr(from, ']') : NULL;
    if (to)
        *to = 0;
    snprintf(out, size, "%s", to ? from + 1 : "unknown");
}

void bench_machine(char *out, size_t size)
{
    char model[128];
    char huge[32];
    struct utsname u;
    read_value("/proc/cpuinfo", "model name", model, sizeof(model), "unknown processor");
    read_choice("/sys/kernel/mm/transparent_hugepage/shmem_enabled", huge, sizeof(huge));
    if (uname(&u) != 0)
        snprintf(u.release, sizeof(u.release), "unknown");
    double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1u << 30);
    snprintf(out, size, "%s, %u CPUs, %.0f GiB, Linux %s %s, huge pages for shared memory: %s", model,
             bench_cpu_count(), gib, u.release, u.machine, huge);
    for (char *p = out; *p; p++) {
        if (*p == '"' || *p == '\\' || *p < ' ')
            *p = '_';
    }
}
