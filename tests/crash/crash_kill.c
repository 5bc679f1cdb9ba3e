/*
 * crash_kill.c - kill -9 at random moments: what survives?
 *
 *   crash_kill [--kills N] [--alive MS] [--seed S] [--vectors N] [--tally FILE]
 *
 * Three writers (single writes, batches, a pipe of batches) and four readers work on a collection; the daemon is killed
 * while they do, at most MS milliseconds after they began, now and then also while it starts; it and readers are stopped for
 * a while, and readers killed; every few times the segment is made unfit for adoption, so that the log has to bring
 * everything back beside it and readers move over. After each start: every acknowledged write is there, no batch is half
 * there, no id is there twice, no reader has seen an error, and verify is clean.
 *
 * With KITH_TEST_DURABILITY=applied most of the writes ask to be visible only, and the segment is never taken away: they
 * survive all the same. In most lives the log stops answering at some write, so that what is visible gets ahead of it: a
 * kill by itself leaves to the disk what the disk was told, which on a quick one is all of it.
 *
 *   --tally FILE  figures of every so many kills are appended to it, those of this seed that stand in it are done, and the sum is
 *                 over all of it; the seed is 1 unless it is given. Several processes may share one, each with a seed of its own
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/layout/header.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"
#include "tests/support/workload.h"

#define KILLS_SHORT   20u
#define KILLS_CODES   8u /* of the short form where collections have codes: it runs beside that without */
#define KILLS_LONG    200u
#define VECTORS       20001u
#define DIM           128u
#define ALIVE_MS      600u
#define ALIVE_MS_MOST 20000u /* below what a writer waits for an answer */
#define START_MS_MAX  60u
#define REPLAYS       3u   /* in a whole run */
#define REPLAY_MOST   100u /* kills between two of them */
#define TALLY_KILLS   20u  /* of a line of the tally */
#define STALL_MAX     30u  /* the log answers to fewer writes of a life than this; a busy machine makes few */
#define MEET_KILLS    100u /* after so many the segment was ahead of the log, or this test does not see that */
#define HALT_MS       60000u
#define LINE_MAX_SIZE 512u

/* What is added up over runs. */
struct figures {
    uint64_t kills, start_kills, rebuilt, ahead, stops, reader_kills, acked_items, acked_batches, searches,
        gets, moves, bad;
};
#define FIGURES (sizeof(struct figures) / sizeof(uint64_t))

static const char *const figure_names[FIGURES] = {
    "kills-at-work", "kills-starting", "rebuilt",  "ahead-of-log", "stops", "readers-killed",
    "acked-writes",  "acked-batches",  "searches", "gets",         "moves", "bad",
};

struct options {
    uint64_t seed;
    uint32_t kills, alive_ms, vectors;
    const char *tally;
    bool applied; /* most writes ask for no more than that */
};

struct run {
    const struct options *o;
    struct test_daemon *d;
    struct workload *w;
    struct test_rand r;
    struct figures told; /* those that stand in the tally */
    struct figures now;  /* of this run, those of told among them */
    uint64_t logged;     /* bytes of kithd's log that were looked at */
};

/* ---- the tally ---- */

static uint64_t *figures_of(struct figures *f)
{
    return (uint64_t *)(void *)f;
}

static const char *mode_name(const struct options *o)
{
    return o->applied ? "applied" : "durable";
}

/* What has come since the last line. */
static void tally_add(struct run *run)
{
    char line[LINE_MAX_SIZE];
    int n = snprintf(line, sizeof line, "%s seed %" PRIu64, mode_name(run->o), run->o->seed);
    for (size_t i = 0; i < FIGURES; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, " %" PRIu64,
                      figures_of(&run->now)[i] - figures_of(&run->told)[i]);
    n += snprintf(line + n, sizeof line - (size_t)n, "\n");
    run->told = run->now;
    if (!run->o->tally)
        return;
    FILE *f = fopen(run->o->tally, "a");
    if (!f || fwrite(line, 1, (size_t)n, f) != (size_t)n || fclose(f) != 0)
        test_die("%s: %s", run->o->tally, strerror(errno));
}

/* Add up what stands in it of this mode; returns how many kills of this seed are among that. */
static uint64_t tally_read(const struct options *o, struct figures *sum)
{
    char line[LINE_MAX_SIZE];
    uint64_t done = 0;
    FILE *f = o->tally ? fopen(o->tally, "r") : NULL;
    memset(sum, 0, sizeof *sum);
    while (f && fgets(line, sizeof line, f)) {
        struct figures one;
        char mode[16];
        uint64_t seed;
        int at = 0, n = 0;
        bool good = sscanf(line, "%15s seed %" SCNu64 "%n", mode, &seed, &at) == 2;
        for (size_t i = 0; i < FIGURES && good; i++, at += n)
            good = sscanf(line + at, " %" SCNu64 "%n", &figures_of(&one)[i], &n) == 1;
        if (!good)
            test_die("%s: this is not a line of a tally: %s", o->tally, line);
        if (strcmp(mode, mode_name(o)) != 0)
            continue;
        for (size_t i = 0; i < FIGURES; i++)
            figures_of(sum)[i] += figures_of(&one)[i];
        done += seed == o->seed ? one.kills : 0;
    }
    if (f)
        fclose(f);
    return done;
}

/* ---- kills ---- */

/* A region that this format does not use has bytes taken: adoption refuses that, and no reader looks at it. */
static void spoil(const struct test_daemon *d)
{
    uint64_t nonsense = 1;
    int fd = open(test_daemon_segment(d, WORKLOAD_NAME), O_RDWR | O_CLOEXEC);
    off_t off = (off_t)(offsetof(struct kithi_header, taken) + KITHI_REGION_WRITER * sizeof(uint64_t));
    if (fd < 0 || pwrite(fd, &nonsense, sizeof nonsense, off) != (ssize_t)sizeof nonsense)
        test_die("cannot spoil the segment: %s", strerror(errno));
    close(fd);
}

/* How often kithd has said since the last look that the segment was ahead of its log. */
static uint64_t count_ahead(struct run *run)
{
    FILE *f = fopen(run->d->log, "re");
    char *line = NULL;
    size_t size = 0;
    uint64_t n = 0;
    ssize_t len;
    if (!f || fseeko(f, (off_t)run->logged, SEEK_SET))
        test_die("%s: %s", run->d->log, strerror(errno));
    while ((len = getline(&line, &size, f)) > 0 && line[len - 1] == '\n') {
        n += strstr(line, "event=log-completed ") != NULL;
        run->logged += (uint64_t)len;
    }
    free(line);
    fclose(f);
    return n;
}

/* Start again, killing it on the way up once in a while. */
static bool restart(struct run *run, bool last)
{
    struct test_daemon *d = run->d;
    /* One that is asked to stop needs a log that answers. */
    d->fault[0] = '\0';
    if (run->o->applied && !last && test_rand_below(&run->r, 4))
        snprintf(d->fault, sizeof d->fault, "wal-stalls:%u",
                 1 + test_rand_below(&run->r, 1 + test_rand_below(&run->r, STALL_MAX)));
    while (test_rand_below(&run->r, 4) == 0) {
        test_daemon_spawn(d);
        usleep(1000 * test_rand_below(&run->r, START_MS_MAX));
        test_daemon_kill(d);
        run->now.start_kills++;
    }
    return test_daemon_start(d) == 0;
}

static void take_tally(struct run *run, const struct workload_tally *t)
{
    run->now.acked_items = t->acked_items;
    run->now.acked_batches = t->acked_batches;
    run->now.searches = t->searches;
    run->now.gets = t->gets;
    run->now.moves = t->moves;
    run->now.stops = run->w->stops;
    run->now.reader_kills = run->w->reader_kills;
    run->now.ahead += count_ahead(run);
}

static bool kill_once(struct run *run, uint32_t i, uint32_t kills, bool rebuild)
{
    struct workload_tally tally;
    uint32_t alive_ms = test_rand_below(&run->r, run->o->alive_ms);
    workload_go(run->w);
    workload_disturb(run->w, &run->r, alive_ms);
    test_daemon_kill(run->d);
    run->now.kills++;
    run->now.rebuilt += rebuild;
    if (!workload_halted(run->w, HALT_MS))
        return false;
    if (rebuild)
        spoil(run->d);
    uint64_t begun = test_now_ms(), ahead = run->now.ahead;
    if (!restart(run, i == kills))
        return false;
    uint64_t ready = test_now_ms();
    if (!workload_check(run->w, &tally))
        return false;
    take_tally(run, &tally);
    printf("kill %u after %u ms, %s%s in %" PRIu64 " ms: %u live, %" PRIu64
           " batches acked, %u of %u open ones there; "
           "%" PRIu64 " searches\n",
           i, alive_ms, rebuild ? "rebuilt" : "adopted", run->now.ahead > ahead ? ", log completed," : "",
           ready - begun, tally.live, tally.acked_batches, tally.applied, tally.pending, tally.searches);
    fflush(stdout);
    return true;
}

/* Kills, and an orderly end: what was accepted is finished. */
static bool live(struct run *run, uint32_t kills)
{
    struct workload_tally tally;
    uint32_t every = kills / REPLAYS > 3 ? kills / REPLAYS : 3;
    if (every > REPLAY_MOST)
        every = REPLAY_MOST;
    if (test_daemon_start(run->d) < 0)
        return false;
    workload_load(run->w);
    for (uint32_t i = 1; i <= kills; i++) {
        /* The log alone does not bring back what did not ask to be in it. */
        if (!kill_once(run, i, kills, !run->o->applied && i % every == every / 2))
            return false;
        if (i % TALLY_KILLS == 0 && i < kills)
            tally_add(run);
    }
    workload_go(run->w);
    usleep(1000 * ALIVE_MS);
    int status = test_daemon_stop(run->d);
    if (!workload_halted(run->w, HALT_MS) || status != 0) {
        fprintf(stderr, "after SIGTERM kithd ended with status %d\n", status);
        return false;
    }
    if (test_daemon_start(run->d) < 0 || !workload_check(run->w, &tally))
        return false;
    bool ok = workload_finish(run->w, &tally);
    take_tally(run, &tally);
    if (ok && run->now.rebuilt && run->now.moves == 0) {
        fprintf(stderr, "the readers never moved to a rebuilt segment\n");
        ok = false;
    }
    return ok;
}

/* With a collection of its own. The figures of what came before `done` stand in the tally. */
static struct figures run_from(const struct options *o, uint64_t done)
{
    struct test_daemon daemon;
    struct workload work;
    struct run run = { .o = o, .d = &daemon, .w = &work };
    uint64_t seed = o->seed + done * UINT64_C(0x9e3779b97f4a7c15); /* not the same kills again */
    test_rand_seed(&run.r, seed);
    test_daemon_init(&daemon);
    daemon.ready_s = 300;
    workload_init(&work, &daemon, seed, o->vectors, DIM);
    bool ok = live(&run, (uint32_t)(o->kills - done));
    run.now.bad += !ok;
    tally_add(&run);
    if (!ok)
        test_daemon_show_log(&daemon);
    test_daemon_fini(&daemon);
    return run.now;
}

static void usage(void)
{
    fputs("usage: crash_kill [--kills N] [--alive MS] [--seed S] [--vectors N] [--tally FILE]\n", stderr);
    exit(2);
}

static uint32_t number(const char *text, uint32_t most)
{
    char *end;
    unsigned long n = strtoul(text, &end, 0);
    if (!*text || *end || n == 0 || n > most)
        usage();
    return (uint32_t)n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "kills", required_argument, NULL, 'k' },   { "alive", required_argument, NULL, 'a' },
        { "seed", required_argument, NULL, 's' },    { "tally", required_argument, NULL, 't' },
        { "vectors", required_argument, NULL, 'v' }, { NULL, 0, NULL, 0 }
    };
    const char *durability = getenv("KITH_TEST_DURABILITY");
    struct options o = { .kills = test_long()           ? KILLS_LONG
                                  : test_quantization() ? KILLS_CODES
                                                        : KILLS_SHORT,
                         .alive_ms = ALIVE_MS,
                         .vectors = VECTORS,
                         .applied = durability && strcmp(durability, "applied") == 0 };
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'k': o.kills = number(optarg, UINT32_MAX / 2); break;
        case 'a': o.alive_ms = number(optarg, ALIVE_MS_MOST); break;
        case 's': setenv("KITH_SEED", optarg, 1); break;
        case 't': o.tally = optarg; break;
        case 'v': o.vectors = number(optarg, 1u << 20); break;
        default: usage();
        }
    }
    if (optind < argc)
        usage();
    if (o.tally)
        setenv("KITH_SEED", "1", 0);
    o.seed = test_seed();
    struct figures sum = { 0 };
    uint64_t done = tally_read(&o, &sum);
    if (done < o.kills) {
        sum = run_from(&o, done);
        if (o.tally)
            tally_read(&o, &sum);
    }
    for (size_t i = 0; i < FIGURES; i++)
        printf("%-19s %10" PRIu64 "\n", figure_names[i], figures_of(&sum)[i]);
#ifdef KITH_FAULT_POINTS /* else the log never stops answering */
    if (o.applied && sum.kills >= MEET_KILLS && sum.ahead == 0) {
        fprintf(stderr, "the segment was never ahead of its log\n");
        return 1;
    }
#endif
    return sum.bad ? 1 : 0;
}
