/*
 * life.c - one collection on a simulated disk, from start to end, over and over. See sim.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/io_sim.h"
#include "server/base/log.h"
#include "server/wal/append.h"
#include "server/writer/census.h"
#include "server/writer/collection.h"
#include "tests/crash/sim/sim.h"
#include "tests/crash/start_here.h"

#define STEPS_MAX 260u
#define DRAIN_MAX 200000u
#define LOG_BLOCK 4096u
#define SLOT_MAX  1024u
#define UID_SIZE  16u
#define SOME_US   900000u
#define LAG_STEPS 120u    /* for which the log does not answer, at most */
#define LAG_MS    600000u /* how far writes may be ahead of it, where that is not kithd's default */

static bool one_in(struct sim_world *w, uint32_t n)
{
    return test_rand_below(&w->r, n) == 0;
}

static void must(int status, const struct kithi_errmsg *err)
{
    if (status)
        test_die("%s: %s", kithi_error_name(status), err->text);
}

/* ---- the collection, before its first life ---- */

static void make_collection(struct sim_world *w)
{
    static const uint32_t codes[] = { KITHI_QUANTIZATION_NONE, KITHI_QUANTIZATION_NONE,
                                      KITHI_QUANTIZATION_SQ8, KITHI_QUANTIZATION_BITS };
    struct kithi_geometry g = {
        .dim = SIM_DIM, .metric = KITHI_METRIC_L2, .m = 4, .ef_construction = 16, .slot_max = SLOT_MAX
    };
    struct kithi_wal_report empty = { 0 };
    struct kithi_wal *wal = NULL;
    struct kithi_errmsg err;
    char dir[2 * TEST_PATH_SIZE], wal_dir[3 * TEST_PATH_SIZE];
    kithi_geometry_want(&g, codes[w->seed % 4], KITHI_KEEP_F32);
    must(kithi_settings_new(&w->settings, SIM_NAME, &g, &err), &err);
    w->settings.fixed = true;         /* so that writes wait for room here */
    for (unsigned i = 0; i < 16; i++) /* the same each time */
        w->settings.uid[i] = w->settings.hash_key[i] = (uint8_t)(test_rand_u64(&w->r) | 1);
    w->settings.timeline = test_rand_u64(&w->r) >> 1;
    snprintf(dir, sizeof dir, "%s/" SIM_NAME, w->data.path);
    snprintf(wal_dir, sizeof wal_dir, "%s/wal", dir);
    if (mkdir(dir, 0700) || mkdir(wal_dir, 0700))
        test_die("%s: %s", wal_dir, strerror(errno));
    must(kithi_settings_write(dir, &w->settings, &err), &err);
    struct kithi_wal_open_opts opts = { .dir = wal_dir, .timeline = w->settings.timeline, .report = &empty };
    memcpy(opts.uid, w->settings.uid, sizeof opts.uid);
    must(kithi_wal_open(w->io, &opts, &wal, &err), &err);
    kithi_wal_close(wal);
    if (kithi_sim_stop(w->io))
        test_die("the simulator has failed");
}

/* ---- what clients do ---- */

static struct kithi_request *new_request(struct sim_world *w, uint64_t tag)
{
    struct kithi_request *r = calloc(1, sizeof *r);
    if (!r)
        test_die("out of memory");
    r->frame.tag = tag;
    w->outstanding[w->outstanding_count++] = r;
    return r;
}

static uint8_t some_durability(struct sim_world *w)
{
    if (test_rand_below(&w->r, 8) >= w->less)
        return KITHI_DURABILITY_DURABLE;
    w->asked_less = true;
    w->figures->less++;
    return one_in(w, 3) ? KITHI_DURABILITY_NONE : KITHI_DURABILITY_APPLIED;
}

static void send_write(struct sim_world *w, struct kithi_collection *c, struct kithi_backlog *b)
{
    if (w->write_count == SIM_WRITES)
        return;
    struct sim_write *one = &w->writes[w->write_count];
    struct kithi_op ops[SIM_CHANGES];
    size_t len = UID_SIZE;
    *one = (struct sim_write){ .n = 1 + test_rand_below(&w->r, SIM_CHANGES) };
    for (uint32_t i = 0; i < one->n; i++) {
        one->ids[i] = test_rand_below(&w->r, SIM_IDS);
        one->versions[i] = one_in(w, 4) ? 0 : w->next_version++;
        sim_op(i, one->ids[i], one->versions[i], &ops[i]);
        len += kithi_op_size_with(ops[i].id_len, ops[i].dim, ops[i].payload_len);
    }
    struct kithi_request *r = new_request(w, w->write_count++);
    r->frame = (struct kithi_frame){ .magic = KITHI_FRAME_MAGIC,
                                     .type = KITHI_FRAME_WRITE,
                                     .tag = r->frame.tag,
                                     .count = one->n,
                                     .len = (uint32_t)len };
    r->body = aligned_alloc(8, len);
    r->ops = calloc(one->n, sizeof *r->ops);
    if (!r->body || !r->ops)
        test_die("out of memory");
    r->durability = one->durability = some_durability(w);
    memcpy(r->body, w->settings.uid, UID_SIZE);
    size_t at = UID_SIZE;
    for (uint32_t i = 0; i < one->n; i++) {
        size_t n = kithi_op_put(r->body + at, &ops[i]);
        if (kithi_op_decode(r->body + at, n, &r->ops[i]) != (int64_t)n)
            test_die("an op cannot be decoded");
        r->upserts += one->versions[i] != 0;
        at += n;
    }
    w->figures->writes++;
    kithi_pipeline_write(c, b, r);
}

/* The groups under way, before anything of them can be answered; and when the log was handed each. */
static void note_groups(struct sim_world *w, const struct kithi_collection *c)
{
    const struct kithi_pipeline *p = &c->pipeline;
    for (uint32_t i = 0; i < p->under_way + p->log_waits; i++) {
        const struct kithi_commit *k = &p->commits[(p->oldest + i) % (KITHI_GROUPS_SEALED + 1)];
        for (const struct kithi_request *r = k->first; r; r = r->next)
            w->writes[r->frame.tag].epoch = k->epoch;
        if (i < p->under_way && k->epoch > w->handed_epoch) {
            w->handed_epoch = k->epoch;
            w->handed_us[k->epoch % SIM_HANDED] = w->now_us;
        }
    }
}

static void see(struct sim_world *w, const struct kithi_collection *c)
{
    struct sim_words now = sim_words_of(kithi_map_header(kithi_index_map(c->index)));
    sim_see_step(w, &now);
}

static void turn(struct sim_world *w, struct kithi_daemon *d)
{
    do {
        d->again = false;
        for (struct kithi_collection *c = d->collections; c; c = c->next) {
            uint64_t now_ms = kithi_now_ms(), census_ms;
            kithi_old_turn(c, now_ms);
            bool census = kithi_census_turn(c, now_ms, &census_ms);
            if (!census) {
                kithi_relayout_turn(c, now_ms);
                kithi_growth_turn(c, now_ms);
            }
            kithi_pipeline_turn(c, now_ms);
            note_groups(w, c);
            see(w, c);
            if (!census)
                kithi_checkpointer_turn(c, now_ms);
        }
    } while (d->again);
}

/* The log answers, or it does not, for a while. */
static void let_lag(struct sim_world *w)
{
    if (w->less == 0)
        return;
    if (w->lag_steps && --w->lag_steps == 0)
        kithi_sim_hold(w->io, false);
    else if (w->lag_steps == 0 && one_in(w, 16)) {
        w->lag_steps = 1 + test_rand_below(&w->r, LAG_STEPS);
        kithi_sim_hold(w->io, true);
    }
}

/* As SIGTERM does. */
static void stop(struct sim_world *w, struct kithi_daemon *d)
{
    struct kithi_collection *c = d->collections;
    bool idle = false;
    d->stopping = true;
    kithi_sim_hold(w->io, false);
    for (uint32_t i = 0; i < DRAIN_MAX && !idle; i++) {
        turn(w, d);
        idle = kithi_collection_idle(c);
        if (!idle && kithi_io_run(d->io, 0) == 0)
            w->now_us += SOME_US;
    }
    if (!idle)
        sim_wrong(w, "a stop does not come to its end");
    w->figures->clean++;
    if (d->failing)
        return;
    /* All that was accepted is visible, and durable. */
    struct sim_words now = sim_words_of(kithi_map_header(kithi_index_map(c->index)));
    for (uint32_t i = 0; i < w->write_count; i++)
        if (w->writes[i].answer == SIM_UNANSWERED ||
            (w->writes[i].answer == SIM_ACKED && w->writes[i].epoch > now.epoch))
            sim_wrong(w, "a stop leaves write %u behind", i);
    if (now.durable_epoch != now.epoch)
        sim_wrong(w, "a stop leaves epochs that are not durable");
    kithi_marker_clear(c); /* as kithi_daemon_run() ends */
    w->at_rest = !w->faulty && c->marker.state == MARKER_ABSENT;
    if (!w->faulty && c->marker.state != MARKER_ABSENT)
        sim_wrong(w, "a stop leaves the marker");
}

static void live_some_steps(struct sim_world *w, struct kithi_daemon *d)
{
    struct kithi_collection *c = d->collections;
    struct kithi_backlog backlog = { 0 };
    uint32_t steps = test_rand_below(&w->r, STEPS_MAX), pace = 2 + test_rand_below(&w->r, 8);
    if (w->less)
        pace = 2 * pace; /* many small groups */
    w->collection = c;
    for (uint32_t i = 0; i < steps && !w->bad; i++) {
        let_lag(w);
        if (one_in(w, pace)) {
            send_write(w, c, &backlog);
        } else if (one_in(w, 24)) {
            if (!c->checkpointer.waiting)
                kithi_checkpointer_request(c, new_request(w, SIM_TAG_CHECKPOINT));
        } else if (one_in(w, 24)) {
            kithi_pipeline_flush(c, new_request(w, SIM_TAG_FLUSH | w->write_count));
        } else if (one_in(w, 30)) {
            w->now_us += test_rand_below(&w->r, SOME_US);
        } else {
            kithi_io_run(d->io, 0);
        }
        turn(w, d);
    }
    if (one_in(w, 5))
        stop(w, d);
}

/* ---- lives ---- */

/* What may go wrong beside the end: an operation, all of them from one on, a read; or the end comes in the middle of it. */
static void plan_trouble(struct sim_world *w)
{
    uint32_t soon = one_in(w, 2) ? 16 : 140; /* while it starts, or later */
    w->faulty = w->reads_fail = false;
    w->read_fail = 0;
    switch (test_rand_below(&w->r, 9)) {
    case 0:
    case 1:
        kithi_sim_fail_at(w->io, 1 + test_rand_below(&w->r, soon), one_in(w, 2) ? EIO : ENOSPC, one_in(w, 3));
        break;
    case 2:
    case 3:
    case 4: kithi_sim_end_at(w->io, 1 + test_rand_below(&w->r, soon)); break;
    case 5:
        w->read_fail = 1 + test_rand_below(&w->r, soon / 4);
        w->reads_fail = true;
        break;
    default: return;
    }
    w->figures->faults++;
    w->faulty = true;
}

static void empty_run_dir(const struct sim_world *w)
{
    static const char *const names[] = { "segment", "segment.next", "segment.old" };
    char path[3 * TEST_PATH_SIZE];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/" SIM_NAME "/%s", w->run.path, names[i]);
        unlink(path);
    }
}

static bool has_segment(const struct sim_world *w)
{
    char path[3 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/" SIM_NAME "/segment", w->run.path);
    return access(path, F_OK) == 0;
}

static void end_life(struct sim_world *w, struct kithi_daemon *d)
{
    bool power = test_rand_below(&w->r, w->less ? 2 : 3) != 0;
    power |=
        w->completed && !one_in(w, 4); /* what the log was completed with shows where the segment is gone */
    sim_see_end(w, power);
    w->disk_unlinks = true;
    if (power ? kithi_sim_crash(w->io) : kithi_sim_stop(w->io))
        test_die("the simulator has failed");
    w->disk_unlinks = false;
    w->figures->power += power;
    w->figures->kills += !power;
    kithi_daemon_fini(d);
    w->collection = NULL;
    while (w->outstanding_count) {
        struct kithi_request *r = w->outstanding[--w->outstanding_count];
        free(r->ops);
        free(r->body);
        free(r->written);
        free(r);
    }
    if (power)
        empty_run_dir(w);
    w->segment_lives = has_segment(w);
}

static void do_damage(struct sim_world *w)
{
    if (!one_in(w, 3))
        return;
    for (uint32_t n = 1 + (uint32_t)one_in(w, 4); n > 0; n--)
        w->figures->damages += kithi_sim_damage(w->io, one_in(w, 2) ? "checkpoint-" : NULL);
}

/* The daemon takes these by a descriptor; who runs this test ends it by them. */
static void end_by_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void live(struct sim_world *w)
{
    struct kithi_options options = {
        .threads = 2, .grace_ms = 5, .rest_ms = 5, .small_pages = true, .no_recall = true
    };
    if (!one_in(w, 3))
        options.lag_ms = LAG_MS;
    static struct kithi_daemon d;
    struct kithi_errmsg err = { .text = "" };
    snprintf(options.data, sizeof options.data, "%s", w->data.path);
    snprintf(options.run, sizeof options.run, "%s", w->run.path);
    if (ftruncate(w->log_fd, 0) || lseek(w->log_fd, 0, SEEK_SET))
        test_die("%s", strerror(errno));
    w->read_fail = 0;
    sim_look(w);
    kithi_sim_start(w->io);
    kithi_sim_misdirect(w->io, one_in(w, 4));
    w->file_size = LOG_BLOCK * (3 + test_rand_below(&w->r, one_in(w, 3) ? 16 : 4));
    plan_trouble(w);
    w->less = w->seed % 3 == 0 || one_in(w, 4) ? 0 : one_in(w, 2) ? 8 : 2 + test_rand_below(&w->r, 6);
    w->lag_steps = 0;
    w->completed = false;
    w->handed_epoch = 0;
    memset(w->handed_us, 0, sizeof w->handed_us);
    w->figures->lives++;
    must(kithi_daemon_init(&d, &options, &err), &err);
    end_by_signals();
    int status = test_start_here(&d, &err);
    if (!w->bad && sim_judge(w, &d, status, &err)) {
        /* Whoever runs a machine puts the bytes back after a refusal, and may or may not otherwise. */
        if (status || one_in(w, 2))
            kithi_sim_mend(w->io);
        w->at_rest = false;
        if (status == 0 && !(w->completed && one_in(w, 2)))
            live_some_steps(w, &d);
    }
    end_life(w, &d);
    do_damage(w);
}

bool sim_live(uint64_t seed, struct sim_figures *figures)
{
    struct sim_world *w = calloc(1, sizeof *w);
    if (!w)
        test_die("out of memory");
    w->seed = seed;
    w->figures = figures;
    w->next_version = 1;
    w->cut_epoch = UINT64_MAX;
    w->now_us = 1000000;
    w->file_size = 16 * LOG_BLOCK;
    test_rand_seed(&w->r, seed);
    test_dir_make_shm(&w->data);
    test_dir_make_shm(&w->run);
    sim_world = w;
    w->log_fd = memfd_create("log", MFD_CLOEXEC);
    if (w->log_fd < 0 || kithi_sim_open(w->data.path, seed, &w->io) < 0)
        test_die("%s", strerror(errno));
    kithi_log_set_fd(w->log_fd);
    make_collection(w);
    for (w->life = 0; w->life < SIM_LIVES && !w->bad; w->life++)
        live(w);
    figures->seeds++;
    figures->bad += w->bad;
    bool good = !w->bad;
    sim_io_free(w->io);
    close(w->log_fd);
    kithi_log_set_fd(2);
    test_dir_remove(&w->data);
    test_dir_remove(&w->run);
    free(w);
    return good;
}
