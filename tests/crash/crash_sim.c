/*
 * crash_sim.c - a collection lives on a simulated disk: is what was acknowledged there after every end of a life, and is what
 * is damaged never served?
 *
 *   crash_sim [--seeds FIRST:COUNT] [--tally FILE]
 *
 * A seed is SIM_LIVES lives of one small collection (sim/sim.h): each begins with kithd's own recovery, writes, takes
 * checkpoints, trims its log, and ends by a power failure, a kill or a stop, at any operation on a file. In some lives all
 * writes are durable, in the others most ask for less, and the log lags behind what is visible. See sim/judge.c for what has
 * to hold.
 *
 *   --tally FILE  figures of each hundred seeds are appended to it, hundreds that stand in it are done, and the sum is over
 *                 all of it; several processes may share one
 *
 * Without options: 400 seeds, or with KITH_TEST_LONG=1 100,000; KITH_SEED is the first.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "server/base/log.h"
#include "tests/crash/sim/sim.h"

#define BLOCK         100u
#define SHORT_SEEDS   400u
#define LONG_SEEDS    100000u
#define STUCK_S       120 /* of a processor; of the clock it may be many times that, on what others leave of one */
#define WAITS_S       3600
#define LINE_MAX_SIZE 1024u
#define BAD_MAX       20u
#define MEET_SEEDS    100u /* after so many a life has ended ahead of its log, and so on */

const char *const sim_figure_names[SIM_FIGURES] = {
    "seeds",
    "lives",
    "kills",
    "power",
    "clean",
    "writes",
    "asked-less",
    "acked",
    "flushes",
    "checkpoints",
    "checkpoints-failed",
    "cold",
    "passed-over",
    "adopted",
    "died-ahead",
    "died-far-ahead",
    "completed",
    "timelines",
    "epochs-lost",
    "cut",
    "faults",
    "damages",
    "refusals",
    "bad",
};

static uint64_t seed_now;

static void died(int signal)
{
    static char text[80];
    int n = snprintf(text, sizeof text, "\ncrash_sim: stuck, or died, in seed %" PRIu64 "\n", seed_now);
    ssize_t written = write(STDERR_FILENO, text, (size_t)n);
    (void)written;
    _exit(128 + signal);
}

static void watch(int cpu_s, unsigned clock_s)
{
    struct itimerval t = { .it_value = { .tv_sec = cpu_s } };
    setitimer(ITIMER_PROF, &t, NULL);
    alarm(clock_s);
}

static void add(struct sim_figures *sum, const struct sim_figures *more)
{
    uint64_t *to = (uint64_t *)(void *)sum;
    const uint64_t *from = (const uint64_t *)(const void *)more;
    for (size_t i = 0; i < SIM_FIGURES; i++)
        to[i] += from[i];
}

/* ---- the tally: a line for each hundred ---- */

static void tally_add(const char *path, uint64_t block, const struct sim_figures *one)
{
    const uint64_t *figures = (const uint64_t *)(const void *)one;
    char line[LINE_MAX_SIZE];
    int n = snprintf(line, sizeof line, "block %" PRIu64, block);
    for (size_t i = 0; i < SIM_FIGURES; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, " %" PRIu64, figures[i]);
    n += snprintf(line + n, sizeof line - (size_t)n, "\n");
    FILE *f = fopen(path, "a");
    if (!f || fwrite(line, 1, (size_t)n, f) != (size_t)n || fclose(f) != 0)
        test_die("%s: %s", path, strerror(errno));
}

/* Add up what stands in it; whether block is among that. */
static bool tally_read(const char *path, uint64_t block, struct sim_figures *sum)
{
    char line[LINE_MAX_SIZE];
    bool known = false;
    FILE *f = fopen(path, "r");
    memset(sum, 0, sizeof *sum);
    while (f && fgets(line, sizeof line, f)) {
        struct sim_figures one;
        uint64_t number, *figures = (uint64_t *)(void *)&one;
        int at = 0, n = 0;
        bool good = sscanf(line, "block %" SCNu64 "%n", &number, &at) == 1;
        for (size_t i = 0; i < SIM_FIGURES && good; i++, at += n)
            good = sscanf(line + at, " %" SCNu64 "%n", &figures[i], &n) == 1;
        if (!good)
            test_die("%s: this is not a line of a tally: %s", path, line);
        add(sum, &one);
        known |= number == block;
    }
    if (f)
        fclose(f);
    return known;
}

/* ---- the program ---- */

/* Whoever never died ahead of his log has not shown what becomes of that. */
static bool has_met(const struct sim_figures *sum)
{
    bool met = sum->far_ahead && sum->completed && sum->forks && sum->lost;
    if (sum->seeds < MEET_SEEDS || met)
        return true;
    fputs("no life has ended several groups ahead of its log, or none of those was completed, or lost\n",
          stderr);
    return false;
}

static void usage(void)
{
    fputs("usage: crash_sim [--seeds FIRST:COUNT] [--tally FILE]\n", stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "seeds", required_argument, NULL, 's' },
                                             { "tally", required_argument, NULL, 't' },
                                             { NULL, 0, NULL, 0 } };
    struct sim_figures sum = { 0 };
    const char *tally = NULL;
    uint64_t first = 0, count = 0;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 's' && sscanf(optarg, "%" SCNu64 ":%" SCNu64, &first, &count) == 2 && count > 0)
            continue;
        if (c != 't')
            usage();
        tally = optarg;
    }
    if (count == 0) {
        first = getenv("KITH_SEED") || !test_long() ? test_seed() % 1000000000u / BLOCK * BLOCK : 0;
        count = test_long() ? LONG_SEEDS : SHORT_SEEDS;
        printf("seeds %" PRIu64 " to %" PRIu64 "\n", first, first + count - 1);
    }
    if (tally && (first % BLOCK || count % BLOCK))
        test_die("a tally counts by hundreds: FIRST and COUNT have to be multiples of %u", BLOCK);
    signal(SIGALRM, died);
    signal(SIGPROF, died);
    signal(SIGSEGV, died);
    signal(SIGBUS, died);
    signal(SIGABRT, died);
    kithi_log_set_level(KITHI_LOG_INFO);
    for (uint64_t seed = first; seed < first + count && sum.bad < BAD_MAX;) {
        struct sim_figures one = { 0 };
        uint64_t block = seed / BLOCK;
        if (tally && tally_read(tally, block, &sum)) {
            seed = (block + 1) * BLOCK;
            continue;
        }
        for (; seed < first + count && seed / BLOCK == block; seed++) {
            seed_now = seed;
            watch(STUCK_S, WAITS_S);
            sim_live(seed, &one);
        }
        if (tally)
            tally_add(tally, block, &one);
        else
            add(&sum, &one);
    }
    watch(0, 0);
    if (tally)
        tally_read(tally, UINT64_MAX, &sum);
    for (size_t i = 0; i < SIM_FIGURES; i++)
        printf("%-19s %10" PRIu64 "\n", sim_figure_names[i], ((const uint64_t *)(const void *)&sum)[i]);
    return sum.bad || !has_met(&sum) ? 1 : 0;
}
