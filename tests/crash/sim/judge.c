/*
 * judge.c - what a start may find after the life before it. See sim.h.
 *
 *   - It succeeds, at an epoch that is not below the last one that was seen to be durable or is visible in the segment that is
 *     there, and serves exactly the writes that had their place in a group up to that epoch: what is missing is the last groups,
 *     whole. All that is there is durable then.
 *   - It is on another timeline if an epoch that readers saw is missing, or may be: the segment went while something was
 *     ahead of the log. It is on the same one if the segment was adopted, and as long as nothing is ahead.
 *   - A checkpoint that has its name is whole. With one damaged checkpoint it succeeds as well. With damage in the log it may refuse, saying why; when the bytes are
 *     put back, the next start succeeds.
 *   - One thing damage may do: last groups that were acknowledged, from a damaged one on, on a machine that lost its segment,
 *     look like what a crash has left (WAL.md, R5), and are cut off, if none that is whole was written when they were durable.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/io_sim.h"
#include "server/wal/files.h"
#include "server/wal/scan.h"
#include "shm/graph/payload.h"
#include "shm/graph/scan.h"
#include "shm/graph/verify.h"
#include "tests/crash/sim/sim.h"

#define ID_SIZE 64u
#define LOG_MAX (1u << 20)

static char log_text[LOG_MAX];

static void read_log(const struct sim_world *w)
{
    ssize_t n = pread(w->log_fd, log_text, sizeof log_text - 1, 0);
    log_text[n > 0 ? n : 0] = '\0';
}

bool sim_wrong(struct sim_world *w, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (w->bad)
        return false;
    w->bad = true;
    fprintf(
        stderr,
        "BAD seed %" PRIu64
        ", life %u: %s\n  damaged: %u of the log, %u checkpoints; the life before ended by %s; kithd says:\n",
        w->seed, w->life, text, w->logs_damaged, w->checkpoints_damaged,
        w->segment_lives ? "a kill" : "a power failure");
    read_log(w);
    fputs(log_text, stderr);
    return false;
}

/* Every fourth is too long for a record. */
static size_t id_format(uint32_t id, char out[ID_SIZE])
{
    return (size_t)snprintf(out, ID_SIZE, "%0*u", id % 4 ? 3 : 40, id);
}

static void vector_of(uint32_t id, uint32_t version, float out[SIM_DIM])
{
    for (uint32_t i = 0; i < SIM_DIM; i++)
        out[i] = i == 0   ? (float)id + 1
                 : i == 1 ? (float)version
                          : (float)((id * 7 + version * (i + 3)) % 31);
}

/* Two versions in three have a payload, of three classes of blobs; the others have none. Returns its bytes. */
static uint32_t payload_of(uint32_t version, unsigned char out[SIM_PAYLOAD])
{
    static const uint32_t lens[] = { 0, 30, 150, 0, 400, 80 };
    uint32_t len = lens[version % 6];
    memset(out, (int)(version % 255) + 1, len);
    return len;
}

void sim_op(uint32_t place, uint32_t id, uint32_t version, struct kithi_op *out)
{
    static char ids[SIM_CHANGES][ID_SIZE];
    static float vectors[SIM_CHANGES][SIM_DIM];
    static unsigned char payloads[SIM_CHANGES][SIM_PAYLOAD];
    *out = (struct kithi_op){ .type = KITHI_OP_DELETE,
                              .id_len = (uint16_t)id_format(id, ids[place]),
                              .id = ids[place] };
    if (version == 0)
        return;
    vector_of(id, version, vectors[place]);
    out->type = KITHI_OP_UPSERT;
    out->dim = SIM_DIM;
    out->vector = vectors[place];
    out->flags = KITHI_OP_PAYLOAD;
    out->payload_len = payload_of(version, payloads[place]);
    out->payload = out->payload_len ? payloads[place] : NULL;
}

bool sim_logged(const struct sim_world *w, const char *event)
{
    char field[64];
    read_log(w);
    snprintf(field, sizeof field, "event=%s ", event);
    return strstr(log_text, field) != NULL;
}

/* What should be there at an epoch. */
static void state_at(const struct sim_world *w, uint64_t epoch, uint32_t out[SIM_IDS])
{
    memset(out, 0, SIM_IDS * sizeof *out);
    for (uint32_t i = 0; i < w->write_count; i++) {
        const struct sim_write *one = &w->writes[i];
        if (one->answer == SIM_REFUSED || one->epoch == 0 || one->epoch > epoch)
            continue;
        for (uint32_t j = 0; j < one->n; j++)
            if (!one->gone[j])
                out[one->ids[j]] = one->versions[j];
    }
}

/*
 * The log was completed from the segment: in these epochs it has the last one that has changed an id, and none before that one. What
 * changed nothing, such as the deletion of an id that is gone, is no change. It shows only where the last of these groups are
 * damaged, and cut off.
 */
static void complete(struct sim_world *w, uint64_t from, uint64_t to)
{
    uint32_t before[SIM_IDS], after[SIM_IDS];
    uint64_t last[SIM_IDS] = { 0 };
    state_at(w, from - 1, before);
    for (uint64_t epoch = from; epoch <= to; epoch++) {
        state_at(w, epoch, after);
        for (uint32_t id = 0; id < SIM_IDS; id++)
            if (after[id] != before[id])
                last[id] = epoch;
        memcpy(before, after, sizeof before);
    }
    for (uint32_t i = 0; i < w->write_count; i++) {
        struct sim_write *one = &w->writes[i];
        for (uint32_t j = 0; j < one->n && one->epoch >= from && one->epoch <= to; j++)
            one->gone[j] |= last[one->ids[j]] != one->epoch;
    }
}

/* kithd says that it has completed the log, or begun to. */
static void note_completion(struct sim_world *w)
{
    uint64_t from, to;
    const char *line;
    if (!sim_logged(w, "log-completed"))
        return;
    line = strstr(strstr(log_text, "event=log-completed "), "from=");
    if (!line || sscanf(line, "from=%" SCNu64 " to=%" SCNu64, &from, &to) != 2) {
        sim_wrong(w, "kithd does not say which epochs it has completed the log with");
        return;
    }
    w->completed = true;
    w->figures->completed++;
    complete(w, from, to);
}

static bool has_payload(const struct kithi_view *v, const struct kithi_item *item, uint32_t version)
{
    static unsigned char have[KITHI_PAYLOAD_BYTES];
    unsigned char want[SIM_PAYLOAD];
    uint32_t len = 0, wanted = payload_of(version, want);
    enum kithi_payload_seen seen = kithi_view_payload(v, item->slot, item->birth, have, &len);
    return seen == (wanted ? KITHI_PAYLOAD_FOUND : KITHI_PAYLOAD_NONE) && len == wanted &&
           memcmp(have, want, len) == 0;
}

static bool read_content(struct sim_world *w, const struct kithi_map *map, uint32_t out[SIM_IDS])
{
    struct kithi_scan scan;
    struct kithi_item item;
    float have[SIM_DIM], want[SIM_DIM];
    char text[ID_SIZE];
    int rc;
    memset(out, 0, SIM_IDS * sizeof *out);
    kithi_scan_begin(map, &scan);
    while ((rc = kithi_scan_next(&scan, &item, have)) == 1) {
        uint32_t id = (uint32_t)strtoul(item.id, NULL, 10);
        if (id >= SIM_IDS || id_format(id, text) != item.id_len || strcmp(text, item.id) != 0)
            return sim_wrong(w, "\"%s\" is served, which nobody has written", item.id);
        if (out[id])
            return sim_wrong(w, "id %u is served twice", id);
        out[id] = (uint32_t)have[1];
        vector_of(id, out[id], want);
        if (out[id] == 0 || memcmp(have, want, sizeof have) != 0)
            return sim_wrong(w, "id %u is served with a vector that nobody has written", id);
        if (!has_payload(&scan.view, &item, out[id]))
            return sim_wrong(w, "id %u is served with a payload that is not that of its vector", id);
    }
    return rc == 0 || sim_wrong(w, "a scan ends with %s", kithi_error_name(rc));
}

static void tell_violation(void *arg, const char *rule, const char *text)
{
    sim_wrong(arg, "verify: %s: %s", rule, text);
}

/* Less is there than was durable: is it what damage may do? */
static bool may_be_cut(const struct sim_world *w, uint64_t epoch)
{
    return (w->logs_damaged && epoch >= w->intact_epoch && epoch >= w->segment.durable_epoch) ||
           epoch >= w->cut_epoch;
}

static bool judge_epoch(struct sim_world *w, const struct sim_words *now)
{
    uint64_t epoch = now->epoch, last = 0;
    for (uint32_t i = 0; i < w->write_count; i++)
        if (w->writes[i].answer != SIM_REFUSED && w->writes[i].epoch > last)
            last = w->writes[i].epoch;
    if (now->durable_epoch != epoch)
        return sim_wrong(w, "a start ends at epoch %" PRIu64 " with %" PRIu64 " durable", epoch,
                         now->durable_epoch);
    if (epoch < w->proven_epoch)
        return sim_wrong(w, "epoch %" PRIu64 " was durable, as a checkpoint says, %" PRIu64 " is there",
                         w->proven_epoch, epoch);
    if (epoch < w->segment.epoch)
        return sim_wrong(w, "epoch %" PRIu64 " was visible in the segment that is there, %" PRIu64 " is now",
                         w->segment.epoch, epoch);
    if (epoch < w->seen.durable_epoch) {
        if (!may_be_cut(w, epoch))
            return sim_wrong(w, "epoch %" PRIu64 " was durable, %" PRIu64 " is there", w->seen.durable_epoch,
                             epoch);
        w->figures->cut++;
    }
    if (epoch > last)
        return sim_wrong(w, "epoch %" PRIu64 " is there, nothing after %" PRIu64 " was begun", epoch, last);
    return true;
}

static bool judge_timeline(struct sim_world *w, const struct sim_words *now)
{
    if (now->timeline == w->seen.timeline) {
        /* No more than was durable: that is judged as such. */
        if (now->epoch < w->seen.epoch && w->seen.epoch > w->seen.durable_epoch)
            return sim_wrong(w, "epoch %" PRIu64 " was visible, %" PRIu64 " is there, on the same timeline",
                             w->seen.epoch, now->epoch);
        return !w->may_be_lost ||
               sim_wrong(w, "the segment went with epochs that were not durable, and the timeline stays");
    }
    if (w->seen.timeline && !w->asked_less)
        return sim_wrong(w, "another timeline, and every write was durable");
    if (w->at_rest)
        return sim_wrong(w, "another timeline after an orderly end");
    return !sim_logged(w, "adopted") || !sim_logged(w, "timeline") ||
           sim_wrong(w, "another timeline, though the segment was adopted");
}

static bool judge_served(struct sim_world *w, const struct kithi_collection *c)
{
    uint32_t have[SIM_IDS], want[SIM_IDS];
    const struct kithi_map *map = kithi_index_map(c->index);
    struct kithi_verify_report report;
    struct sim_words now = sim_words_of(kithi_map_header(map));
    uint64_t epoch = now.epoch;
    if (!judge_epoch(w, &now) || !judge_timeline(w, &now) || !read_content(w, map, have))
        return false;
    state_at(w, epoch, want);
    for (uint32_t id = 0; id < SIM_IDS; id++)
        if (have[id] != want[id])
            return sim_wrong(w, "id %u has version %u at epoch %" PRIu64 ", not %u", id, have[id], epoch,
                             want[id]);
    int rc = kithi_verify_within(map, 0, tell_violation, w, &report);
    if (rc < 0 || report.violation_count)
        return sim_wrong(w, "verify ends with %s", kithi_error_name(rc));
    /* Whatever is there now is seen, and durable. */
    sim_see(w, &now);
    w->seen.epoch = w->seen.durable_epoch = epoch;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w->write_count; i++)
        if (w->writes[i].answer != SIM_REFUSED && w->writes[i].epoch != 0 && w->writes[i].epoch <= epoch) {
            w->writes[kept] = w->writes[i];
            w->writes[kept++].answer = SIM_ACKED;
        }
    w->write_count = kept;
    w->cut_epoch = UINT64_MAX;
    return !w->bad;
}

/* What the groups that are whole prove: themselves, up to the first damaged one; behind it, what was durable when they were written,
 * which is not what came with the same write. */
struct proof {
    struct sim_world *w;
    bool broken;
};

static int take_group(void *arg, const struct kithi_wal_group *g)
{
    struct proof *proof = arg;
    struct sim_world *w = proof->w;
    char path[3 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/" SIM_NAME "/wal/%s", w->data.path, g->file);
    if (kithi_sim_is_damaged(w->io, path, g->off, g->size)) {
        proof->broken = true;
        return 0;
    }
    uint64_t epoch = proof->broken ? g->durable_epoch : g->epoch;
    if (epoch > w->intact_epoch)
        w->intact_epoch = epoch;
    return 0;
}

static uint64_t proven_by_checkpoints(const struct sim_world *w)
{
    char dir[2 * TEST_PATH_SIZE], name[KITHI_CHECKPOINT_NAME_SIZE], path[3 * TEST_PATH_SIZE];
    struct kithi_checkpoint checkpoint;
    struct kithi_errmsg err;
    uint64_t *epochs = NULL, proven = 0;
    snprintf(dir, sizeof dir, "%s/" SIM_NAME, w->data.path);
    int64_t n = kithi_checkpoint_list(dir, &epochs, &err);
    for (int64_t i = 0; i < n; i++) {
        uint64_t epoch = epochs[i];
        kithi_checkpoint_name(name, epoch);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        if (kithi_checkpoint_open(path, w->settings.uid, &checkpoint, &err) == 0) {
            epoch = checkpoint.end_epoch;
            kithi_checkpoint_close(&checkpoint);
        }
        if (proven < epoch)
            proven = epoch;
    }
    free(epochs);
    return proven;
}

void sim_look(struct sim_world *w)
{
    char dir[2 * TEST_PATH_SIZE];
    struct kithi_wal_file *files = NULL;
    struct kithi_wal_report report;
    struct kithi_errmsg err;
    w->intact_epoch = 0;
    w->proven_epoch = proven_by_checkpoints(w);
    if (!sim_words_in(w, &w->segment))
        w->segment = (struct sim_words){ 0 };
    w->logs_damaged = kithi_sim_damaged(w->io, "/wal/");
    w->checkpoints_damaged = kithi_sim_damaged(w->io, "checkpoint-");
    if (!w->logs_damaged)
        return;
    snprintf(dir, sizeof dir, "%s/" SIM_NAME "/wal", w->data.path);
    kithi_sim_hide_damage(w->io, true);
    int64_t n = kithi_wal_files_list(dir, &files, &err);
    struct proof proof = { .w = w };
    struct kithi_wal_scan_opts opts = { .dir = dir, .fn = take_group, .arg = &proof };
    memcpy(opts.uid, w->settings.uid, sizeof opts.uid);
    /* What was trimmed may be there in part. */
    int status = -1;
    for (int64_t i = 0; i < n && status; i++) {
        opts.after_epoch = w->intact_epoch = files[i].first_epoch - 1;
        proof.broken = false;
        status = kithi_wal_scan(&opts, &report, &err);
    }
    if (status)
        sim_wrong(w, "before it was damaged the log was not good: %s", err.text);
    kithi_sim_hide_damage(w->io, false);
    free(files);
}

bool sim_judge(struct sim_world *w, struct kithi_daemon *d, int status, const struct kithi_errmsg *err)
{
    note_completion(w);
    w->figures->cold += sim_logged(w, "loaded");
    w->figures->adopted += sim_logged(w, "adopted");
    w->figures->passed_over += sim_logged(w, "checkpoint-refused");
    /* One that has its name is whole, if nobody damages it. */
    if (sim_logged(w, "checkpoint-refused") && w->checkpoints_damaged == 0 && !w->reads_fail)
        return sim_wrong(w, "a checkpoint that nobody has damaged is not good");
    if (status == 0)
        return d->collections ? judge_served(w, d->collections) : sim_wrong(w, "the collection is gone");
    w->figures->refusals++;
    if (!w->faulty && w->logs_damaged == 0 && w->checkpoints_damaged < 2)
        return sim_wrong(w, "a start is refused, and %s: %s: %s",
                         w->checkpoints_damaged ? "one checkpoint alone is damaged" : "nothing is damaged",
                         kithi_error_name(status), err->text);
    if (!strstr(err->text, w->data.path) && !kithi_sim_ended(w->io))
        return sim_wrong(w, "a start is refused, and it does not say where the reason is: %s: %s",
                         kithi_error_name(status), err->text);
    uint64_t least = w->intact_epoch > w->segment.durable_epoch ? w->intact_epoch : w->segment.durable_epoch;
    if (w->logs_damaged && least < w->cut_epoch)
        w->cut_epoch = least;
    return true;
}
