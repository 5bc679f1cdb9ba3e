/*
 * seen.c - what readers and clients have seen of the collection, and may rely on. See sim.h.
 *
 * A reader looks at four words of the segment's header, after every step that kithd takes: `epoch`, `durable_epoch`, `timeline`, and
 * `wake`, without which whoever waits for one of the others sleeps on. What it saw holds from then on, whoever dies:
 *
 *   - durable_epoch, until the end of time: no less is ever there again.
 *   - epoch, as long as the segment is there. Without it less may be there, on another timeline.
 *   - a timeline that was left does not come back: its numbers meant other states.
 *
 * What is ahead of the log is so only while the marker is in the data directory, and nothing gets further ahead when the log
 * has not answered for as long as clients are told.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "server/writer/marker.h"
#include "tests/crash/sim/sim.h"

#define SLACK_US 5000u /* between two looks at the clock in one step */

static void leave_timeline(struct sim_world *w, const struct sim_words *now)
{
    for (unsigned i = 0; i < w->left_count; i++)
        if (w->left[i] == now->timeline)
            sim_wrong(w, "timeline %016" PRIx64 " was left, and is there again", now->timeline);
    if (w->seen.timeline) {
        w->left[w->left_count++] = w->seen.timeline;
        w->figures->forks++;
        w->figures->lost += w->seen.epoch > now->epoch ? w->seen.epoch - now->epoch : 0;
    }
    w->seen.timeline = now->timeline;
    w->seen.epoch = 0;
    w->may_be_lost = false;
}

void sim_see(struct sim_world *w, const struct sim_words *now)
{
    if (now->timeline != w->seen.timeline)
        leave_timeline(w, now);
    if (now->epoch > w->seen.epoch)
        w->seen.epoch = now->epoch;
    if (now->durable_epoch > w->seen.durable_epoch)
        w->seen.durable_epoch = now->durable_epoch;
    w->last = *now;
}

/* A group that is ahead was begun while the oldest that the log owes was not older than kithd says. */
static void see_lag(struct sim_world *w, const struct sim_words *now)
{
    uint64_t oldest_us = w->handed_us[(now->durable_epoch + 1) % SIM_HANDED];
    uint64_t us = w->handed_us[now->epoch % SIM_HANDED];
    uint64_t lag_us = w->collection->daemon->lag_ms * UINT64_C(1000);
    if (us == 0)
        us = w->now_us; /* it was handed over and published in one step */
    if (oldest_us && now->epoch - now->durable_epoch < SIM_HANDED && us > oldest_us + lag_us + SLACK_US)
        sim_wrong(w, "epoch %" PRIu64 " is visible, and the log has not answered for %" PRIu64 " ms",
                  now->epoch, (us - oldest_us) / 1000);
}

void sim_see_step(struct sim_world *w, const struct sim_words *now)
{
    char path[3 * TEST_PATH_SIZE];
    if (now->timeline != w->seen.timeline)
        sim_wrong(w, "the timeline changes under readers");
    if (now->epoch < w->seen.epoch)
        sim_wrong(w, "epoch %" PRIu64 " was visible, now it is %" PRIu64, w->seen.epoch, now->epoch);
    if ((now->epoch > w->last.epoch || now->durable_epoch > w->last.durable_epoch) &&
        now->wake == w->last.wake)
        sim_wrong(w, "epoch %" PRIu64 ", durable up to %" PRIu64 ", and nobody was woken", now->epoch,
                  now->durable_epoch);
    snprintf(path, sizeof path, "%s/" SIM_NAME "/" KITHI_MARKER_NAME, w->data.path);
    if (now->epoch > now->durable_epoch && access(path, F_OK) != 0)
        sim_wrong(w, "epoch %" PRIu64 " is visible, %" PRIu64 " durable, and no marker says so", now->epoch,
                  now->durable_epoch);
    if (now->epoch > w->last.epoch && now->epoch > now->durable_epoch)
        see_lag(w, now);
    sim_see(w, now);
}

struct sim_words sim_words_of(const struct kithi_header *h)
{
    return (struct sim_words){ .epoch = atomic_load(&h->epoch),
                               .durable_epoch = atomic_load(&h->durable_epoch),
                               .timeline = atomic_load(&h->timeline),
                               .wake = atomic_load(&h->wake) };
}

bool sim_words_in(const struct sim_world *w, struct sim_words *out)
{
    char path[3 * TEST_PATH_SIZE];
    struct kithi_header h;
    snprintf(path, sizeof path, "%s/" SIM_NAME "/segment", w->run.path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool whole = pread(fd, &h, sizeof h, 0) == (ssize_t)sizeof h;
    close(fd);
    if (whole)
        *out = sim_words_of(&h);
    return whole;
}

void sim_see_end(struct sim_world *w, bool segment_goes)
{
    struct sim_words now = { 0 };
    bool there = sim_words_in(w, &now);
    /* Only a machine that fails takes it. */
    if (now.epoch < w->segment.epoch || (!there && w->segment.timeline))
        sim_wrong(w, "a segment with epoch %" PRIu64 " was there, and %s", w->segment.epoch,
                  there ? "has less now" : "is gone");
    if (!there)
        return;
    sim_see(w, &now);
    uint64_t ahead = now.epoch > now.durable_epoch ? now.epoch - now.durable_epoch : 0;
    w->figures->ahead += ahead > 0;
    w->figures->far_ahead += ahead > 1;
    w->may_be_lost |= segment_goes && ahead > 0;
}
