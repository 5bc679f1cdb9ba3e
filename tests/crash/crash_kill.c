/*
 * crash_kill.c - kill -9 at random moments: what survives?
 *
 *   crash_kill [--kills N] [--seed S] [--vectors N]
 *
 * Three writers (single writes, batches, a pipe of batches) and four readers work on a collection; the daemon is killed
 * while they do, now and then also while it starts; it and readers are stopped for a while, and readers killed; every few times the segment is made unfit for adoption, so
 * that the log has to bring everything back beside it and readers move over. With KITH_TEST_DURABILITY=applied most of
 * the writes ask to be visible only, and the segment is never taken away: they survive all the same. After each start: every acknowledged
 * write is there, no batch is half there, no id is there twice, no reader has seen an error, and verify is clean.
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

#define KILLS_SHORT  20u
#define KILLS_CODES  8u /* of the short form where collections have codes: it runs beside that without */
#define KILLS_LONG   200u
#define VECTORS      20001u
#define DIM          128u
#define ALIVE_MS_MAX 600u
#define START_MS_MAX 60u
#define REPLAYS      3u /* in a whole run */
#define HALT_MS      60000u

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

/* Start again, killing it on the way up once in a while. */
static bool restart(struct test_daemon *d, struct test_rand *r, unsigned *out_start_kills)
{
    while (test_rand_below(r, 4) == 0) {
        test_daemon_spawn(d);
        usleep(1000 * test_rand_below(r, START_MS_MAX));
        test_daemon_kill(d);
        (*out_start_kills)++;
    }
    return test_daemon_start(d) == 0;
}

static bool run(struct test_daemon *d, struct workload *w, struct test_rand *r, uint32_t kills)
{
    struct workload_tally tally;
    unsigned start_kills = 0;
    uint32_t replay_every = kills / REPLAYS > 3 ? kills / REPLAYS : 3;
    if (test_daemon_start(d) < 0)
        return false;
    workload_load(w);
    /* The log alone does not bring back what did not ask to be in it. */
    bool spoils = getenv("KITH_TEST_DURABILITY") == NULL;
    for (uint32_t i = 1; i <= kills; i++) {
        bool replay = spoils && i % replay_every == replay_every / 2;
        uint32_t alive_ms = test_rand_below(r, ALIVE_MS_MAX);
        workload_go(w);
        workload_disturb(w, r, alive_ms);
        test_daemon_kill(d);
        if (!workload_halted(w, HALT_MS))
            return false;
        if (replay)
            spoil(d);
        uint64_t begun = test_now_ms();
        if (!restart(d, r, &start_kills))
            return false;
        uint64_t ready = test_now_ms();
        if (!workload_check(w, &tally))
            return false;
        printf("kill %u after %u ms, %s in %" PRIu64 " ms: %u live, %" PRIu64
               " batches acked, %u of %u open ones there; "
               "%" PRIu64 " searches\n",
               i, alive_ms, replay ? "rebuilt" : "adopted", ready - begun, tally.live, tally.acked_batches,
               tally.applied, tally.pending, tally.searches);
        fflush(stdout);
    }

    /* And an orderly end: what was accepted is finished. */
    workload_go(w);
    usleep(1000 * ALIVE_MS_MAX);
    int status = test_daemon_stop(d);
    if (!workload_halted(w, HALT_MS) || status != 0) {
        fprintf(stderr, "after SIGTERM kithd ended with status %d\n", status);
        return false;
    }
    if (test_daemon_start(d) < 0 || !workload_check(w, &tally))
        return false;
    bool ok = workload_finish(w, &tally);
    printf("%u kills at work, %u while starting, %u stops, %u readers killed; %" PRIu64
           " writes acked in %" PRIu64 " batches; %" PRIu64 " searches, %" PRIu64 " gets, %" PRIu64
           " moves to another generation\n",
           kills, start_kills, tally.stops, tally.reader_kills, tally.acked_items, tally.acked_batches,
           tally.searches, tally.gets, tally.moves);
    if (ok && spoils && tally.moves == 0) {
        fprintf(stderr, "the readers never moved to a rebuilt segment\n");
        ok = false;
    }
    return ok;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "kills", required_argument, NULL, 'k' },
                                             { "seed", required_argument, NULL, 's' },
                                             { "vectors", required_argument, NULL, 'v' },
                                             { NULL, 0, NULL, 0 } };
    uint32_t vectors = VECTORS, kills = test_long()           ? KILLS_LONG
                                        : test_quantization() ? KILLS_CODES
                                                              : KILLS_SHORT;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'k': kills = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 's': setenv("KITH_SEED", optarg, 1); break;
        case 'v': vectors = (uint32_t)strtoul(optarg, NULL, 0); break;
        default: fprintf(stderr, "usage: crash_kill [--kills N] [--seed S] [--vectors N]\n"); return 2;
        }
    }
    struct test_daemon daemon;
    struct workload work;
    struct test_rand r;
    test_rand_seed(&r, test_seed());
    test_daemon_init(&daemon);
    daemon.ready_s = 300;
    workload_init(&work, &daemon, test_seed(), vectors, DIM);
    bool ok = run(&daemon, &work, &r, kills);
    if (test_daemon_logged(&daemon, "log-completed"))
        printf("the segment was ahead of the log at some of the kills\n");
    if (!ok)
        test_daemon_show_log(&daemon);
    test_daemon_fini(&daemon);
    return ok ? 0 : 1;
}
