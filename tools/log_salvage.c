/*
 * log_salvage.c - see log_salvage.h. What is done to the log is in server/wal/salvage.c; here it is decided
 * whether it may be done, and said.
 *
 * The data directory's lock is held from the first look to the last rename: no kithd comes in between.
 */
#include "tools/log_salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/checkpoint/read.h"
#include "server/wal/salvage.h"
#include "server/writer/dirs.h"
#include "tools/out.h"

struct held_checkpoint {
    uint64_t epoch, end_epoch; /* a log that ends before the latter is refused for its sake */
    bool whole;                /* to its last checksum */
};

struct salvage {
    const struct kithi_tool *t;
    const struct kithi_log_place *place;
    struct kithi_wal_plan plan;
    struct held_checkpoint *checkpoints; /* the newest first */
    uint32_t checkpoint_count;
    uint64_t base_epoch; /* of the checkpoint that a start begins with then; NO_BASE: with none */
    uint32_t number;     /* of the directories */
    uint64_t held_epoch; /* of the segment in the run directory; 0: none */
};

#define NO_BASE UINT64_MAX

/* ---- may it be done? --------------------------------------------------------------------- */

/*
 * Hold the data directory against a kithd. *out_fd is -1 when there is nothing to hold: no kithd has ever been
 * there, and nothing will be changed.
 */
static int lock_data(const struct salvage *s, bool yes, int *out_fd)
{
    char path[KITHI_LOG_PATH + sizeof KITHI_LOCK_NAME + 1];
    snprintf(path, sizeof path, "%s/" KITHI_LOCK_NAME, s->place->data);
    int fd = open(path, (yes ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    *out_fd = fd;
    if (fd < 0 && errno == ENOENT && !yes)
        return KITHI_TOOL_OK;
    if (fd < 0)
        return kithi_tool_fail(s->t, "%s cannot be opened: %s%s", path, strerror(errno),
                               errno == EACCES ? "; run this as the user that kithd runs as" : "");
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return KITHI_TOOL_OK;
    int e = errno;
    close(fd);
    *out_fd = -1;
    if (e != EWOULDBLOCK)
        return kithi_tool_fail(s->t, "%s cannot be locked: %s", path, strerror(e));
    return kithi_tool_fail(s->t, "a kithd owns the data directory %s; stop it before you salvage",
                           s->place->data);
}

/* Files that another user makes are files that kithd cannot open. */
static int check_user(const struct salvage *s)
{
    struct stat st;
    if (stat(s->place->collection, &st) != 0)
        return kithi_tool_fail(s->t, "%s: %s", s->place->collection, strerror(errno));
    if (st.st_uid != geteuid())
        return kithi_tool_fail(s->t, "%s belongs to user %u, and this is user %u; run it as that user",
                               s->place->collection, (unsigned)st.st_uid, (unsigned)geteuid());
    return KITHI_TOOL_OK;
}

/* ---- what there is ----------------------------------------------------------------------- */

static int accept_group(void *arg, const struct kithi_wal_group *g)
{
    size_t at;
    (void)arg;
    return kithi_log_ops(g, NULL, NULL, &at) ? 0 : 1;
}

/* Compare all of a checkpoint with its checksums. false: it is another collection's, and says nothing. */
static bool look_at_checkpoint(const char *path, uint64_t epoch, const uint8_t uid[16],
                               struct held_checkpoint *out)
{
    struct kithi_checkpoint c;
    void *chunk = NULL;
    int r = kithi_checkpoint_open(path, uid, &c, NULL);
    /* It got its name when its epoch was durable, so that of one that cannot be read the name counts. */
    *out = (struct held_checkpoint){ .epoch = epoch, .end_epoch = epoch };
    if (r != 0)
        return r != KITHI_E_REPLACED;
    bool whole = posix_memalign(&chunk, KITHI_CHECKPOINT_BLOCK,
                                (size_t)c.plan.chunk_max + KITHI_CHECKPOINT_BLOCK) == 0;
    for (uint32_t i = 0; i < c.plan.chunk_count && whole; i++)
        whole = kithi_checkpoint_read(&c, i, chunk, NULL) == 0;
    out->whole = whole && c.header.epoch == epoch;
    out->end_epoch = c.end_epoch > epoch ? c.end_epoch : epoch;
    free(chunk);
    kithi_checkpoint_close(&c);
    return true;
}

static int checkpoint_path(const struct salvage *s, uint64_t epoch, char **out)
{
    char name[KITHI_CHECKPOINT_NAME_SIZE];
    kithi_checkpoint_name(name, epoch);
    return asprintf(out, "%s/%s", s->place->collection, name) < 0 ? -ENOMEM : 0;
}

static int look_at_checkpoints(struct salvage *s, struct kithi_errmsg *err)
{
    uint64_t *epochs;
    int64_t n = kithi_checkpoint_list(s->place->collection, &epochs, err);
    if (n < 0)
        return (int)n;
    if (n == 0) {
        free(epochs);
        return 0;
    }
    s->checkpoints = calloc((size_t)n, sizeof *s->checkpoints);
    int r = s->checkpoints ? 0 : kithi_error_set(err, -ENOMEM, "out of memory");
    for (int64_t i = 0; i < n && r == 0; i++) {
        char *path = NULL;
        struct held_checkpoint *c = &s->checkpoints[s->checkpoint_count];
        r = checkpoint_path(s, epochs[i], &path);
        if (r == 0 && look_at_checkpoint(path, epochs[i], s->place->settings.uid, c))
            s->checkpoint_count++;
        free(path);
    }
    free(epochs);
    return r;
}

/* The newest checkpoint that a log from first_epoch to last_epoch makes whole. */
static uint64_t base_of(const struct salvage *s, uint64_t first_epoch, uint64_t last_epoch)
{
    for (uint32_t i = 0; i < s->checkpoint_count; i++)
        if (s->checkpoints[i].whole && s->checkpoints[i].epoch + 1 >= first_epoch &&
            s->checkpoints[i].end_epoch <= last_epoch)
            return s->checkpoints[i].epoch;
    return NO_BASE;
}

/*
 * What loses least: the readable beginning of the log, or what is readable after a checkpoint, damage before that being of no
 * concern. The one that reaches furthest; of two that do, the one with more of the log, so that a checkpoint that is
 * damaged later costs no more than a longer replay. s->plan is the beginning; lost_epoch is what anything tells of.
 */
static int choose(struct salvage *s, struct kithi_errmsg *err)
{
    uint64_t told = s->plan.lost_epoch;
    int r = 0;
    s->base_epoch = base_of(s, s->plan.first_epoch, s->plan.last_epoch);
    bool usable = kithi_wal_plan_useful(&s->plan) && (s->plan.first_epoch <= 1 || s->base_epoch != NO_BASE);
    for (uint32_t i = s->checkpoint_count; i-- > 0 && r == 0;) {
        const struct held_checkpoint *c = &s->checkpoints[i];
        struct kithi_wal_plan other;
        told = c->end_epoch > told ? c->end_epoch : told;
        if (!c->whole)
            continue;
        r = kithi_wal_plan_after(s->place->wal, s->place->settings.uid, c->epoch, accept_group, NULL, &other,
                                 err);
        told = c->end_epoch > told ? c->end_epoch : told;
        told = r == 0 && other.lost_epoch > told ? other.lost_epoch : told;
        if (r == 0 && other.last_epoch >= c->end_epoch &&
            (!usable || other.last_epoch > s->plan.last_epoch)) {
            struct kithi_wal_plan before = s->plan;
            s->plan = other;
            other = before;
            s->base_epoch = base_of(s, c->epoch + 1, s->plan.last_epoch);
            usable = true;
        }
        kithi_wal_plan_fini(&other);
    }
    s->plan.lost_epoch = told;
    return r;
}

static bool is_ahead(const struct salvage *s, uint32_t i)
{
    return s->checkpoints[i].end_epoch > s->plan.last_epoch;
}

static uint32_t ahead_count(const struct salvage *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->checkpoint_count; i++)
        n += is_ahead(s, i);
    return n;
}

/* Would a start take the log as it is? Returns 1 (it would), 0, or an error. */
static int scan_is_whole(const struct salvage *s, struct kithi_errmsg *err)
{
    struct kithi_wal_report report = { 0 };
    struct kithi_wal_scan_opts o = { .dir = s->place->wal, .fn = accept_group };
    memcpy(o.uid, s->place->settings.uid, sizeof o.uid);
    o.after_epoch = s->plan.first_epoch > 0 ? s->plan.first_epoch - 1 : 0;
    /* As a start without a segment would: after the newest checkpoint that is whole, to what any of them proves. */
    bool any = false;
    for (uint32_t i = 0; i < s->checkpoint_count; i++) {
        const struct held_checkpoint *c = &s->checkpoints[i];
        if (c->end_epoch > o.known_durable_epoch)
            o.known_durable_epoch = c->end_epoch;
        if (c->whole && !any)
            o.after_epoch = c->epoch;
        any |= c->whole;
    }
    int r = kithi_wal_scan(&o, &report, err);
    if (r == KITHI_E_LOG_DAMAGED || r == 1)
        return 0;
    return r < 0 ? r : report.files > 0;
}

/* The epoch that the segment in the run directory holds, when there is one and it is this collection's. */
static void look_at_segment(struct salvage *s)
{
    struct kithi_map map = { 0 };
    char *path = NULL;
    if (asprintf(&path, "%s/%s/segment", kithi_tool_run_dir(s->t, NULL), s->place->name) < 0)
        return;
    if (kithi_map_attach_path(path, false, &map, NULL) == 0) {
        /* Relaxed: no slot is looked at, and no kithd is there to store another. */
        if (memcmp(map.uid, s->place->settings.uid, sizeof map.uid) == 0)
            s->held_epoch = atomic_load_explicit(&kithi_map_header(&map)->epoch, memory_order_relaxed);
        kithi_map_detach(&map);
    }
    free(path);
}

/* ---- saying it --------------------------------------------------------------------------- */

static void print_plan(const struct salvage *s, bool done)
{
    const struct kithi_wal_plan *p = &s->plan;
    const bool useful = kithi_wal_plan_useful(p), lost = p->lost_epoch > p->last_epoch;
    char text[512], size[KITHI_OUT_TEXT_SIZE];
    struct kithi_object o;
    kithi_object_begin(&o, s->t->json);
    if (s->t->json) {
        kithi_object_text(&o, "kind", NULL, "salvage");
        kithi_object_text(&o, "name", NULL, s->place->name);
        kithi_object_bool(&o, "salvaged", NULL, done);
        kithi_object_count(&o, "groups", NULL, p->groups);
        kithi_object_count(&o, "changes", NULL, p->ops);
        kithi_object_count(&o, "first_epoch", NULL, p->groups > 0 ? p->first_epoch : 0);
        kithi_object_count(&o, "last_epoch", NULL, p->groups > 0 ? p->last_epoch : 0);
        kithi_object_count(&o, "files", NULL, p->file_count);
        kithi_object_count(&o, "headers_rebuilt", NULL, p->rebuilt);
        kithi_object_count(&o, "bytes", NULL, p->bytes);
        kithi_object_count(&o, "lost_first_epoch", NULL, lost ? p->last_epoch + 1 : 0);
        kithi_object_count(&o, "lost_last_epoch", NULL, lost ? p->lost_epoch : 0);
        kithi_object_text(&o, "end_file", NULL, p->end_file[0] != '\0' ? p->end_file : NULL);
        kithi_object_count(&o, "end_byte", NULL, p->end_off);
        kithi_object_text(&o, "end_reason", NULL, p->end_reason);
        kithi_object_count(&o, "checkpoint_epoch", NULL, s->base_epoch == NO_BASE ? 0 : s->base_epoch);
        kithi_object_count(&o, "checkpoints_aside", NULL, useful ? ahead_count(s) : 0);
        snprintf(text, sizeof text, KITHI_WAL_DAMAGED "%u", s->number);
        kithi_object_text(&o, "damaged_dir", NULL, done ? text : NULL);
        kithi_object_end(&o);
        return;
    }
    if (p->groups > 0)
        snprintf(text, sizeof text,
                 "epochs %" PRIu64 " to %" PRIu64 ": %" PRIu64 " groups, %" PRIu64 " changes", p->first_epoch,
                 p->last_epoch, p->groups, p->ops);
    else if (useful)
        snprintf(text, sizeof text, "no group; the log goes on from epoch %" PRIu64, p->first_epoch);
    else
        snprintf(text, sizeof text, "nothing");
    kithi_object_text(&o, "", done ? "kept" : "readable", text);
    if (useful && s->base_epoch != NO_BASE) {
        snprintf(text, sizeof text, "of epoch %" PRIu64 ", whole: a start begins with it", s->base_epoch);
        kithi_object_text(&o, "", "checkpoint", text);
    }
    for (uint32_t i = 0; useful && i < s->checkpoint_count; i++)
        if (is_ahead(s, i)) {
            snprintf(text, sizeof text, "the checkpoint of epoch %" PRIu64 ": it %s epoch %" PRIu64,
                     s->checkpoints[i].epoch,
                     s->checkpoints[i].whole ? "needs the log up to" : "is damaged, and proves",
                     s->checkpoints[i].end_epoch);
            kithi_object_text(&o, "", done ? "set aside" : "to be set aside", text);
        }
    if (useful && !done)
        kithi_object_text(&o, "", "needs", kithi_out_bytes(size, p->bytes));
    if (p->rebuilt > 0)
        kithi_object_count(&o, "", "file headers rebuilt", p->rebuilt);
    snprintf(text, sizeof text, "%s at byte %" PRIu64 ": %s", p->end_file, p->end_off, p->end_reason);
    kithi_object_text(&o, "", "readable up to", p->end_file[0] != '\0' ? text : p->end_reason);
    if (lost)
        snprintf(text, sizeof text, "epochs %" PRIu64 " to %" PRIu64 ", at least", p->last_epoch + 1,
                 p->lost_epoch);
    else
        snprintf(text, sizeof text, "nothing that the log tells of%s",
                 s->checkpoint_count > 0 ? ", or a checkpoint" : "");
    kithi_object_text(&o, "", "lost", text);
    if (s->held_epoch > p->last_epoch) {
        snprintf(text, sizeof text, "holds epoch %" PRIu64 ", with what the log has lost up to there",
                 s->held_epoch);
        kithi_object_text(&o, "", "segment", text);
        snprintf(text, sizeof text, "kith export %s FILE.jsonl saves it, also without a kithd",
                 s->place->name);
        kithi_object_text(&o, "", "", text);
    }
}

static void print_next(const struct salvage *s)
{
    if (s->t->json)
        return;
    printf("\nThe damaged log is %s/" KITHI_WAL_DAMAGED "%u now; remove it when nobody needs it.\n",
           s->place->collection, s->number);
    printf("Start kithd: it goes on after epoch %" PRIu64
           ". A segment that is ahead of that makes it refuse;\n"
           "move %s/%s/segment away then, and it is built from the log.\n",
           s->plan.last_epoch, kithi_tool_run_dir(s->t, NULL), s->place->name);
}

/* ---- doing it ---------------------------------------------------------------------------- */

/* Checkpoints that need more of the log than is kept: kithd would refuse the log for their sake. */
static int set_aside(const struct salvage *s)
{
    for (uint32_t i = 0; i < s->checkpoint_count; i++) {
        char *from = NULL, *to = NULL;
        if (!is_ahead(s, i))
            continue;
        int r = checkpoint_path(s, s->checkpoints[i].epoch, &from);
        if (r == 0 && asprintf(&to, "%s.aside-%u", from, s->number) < 0)
            r = -ENOMEM;
        if (r == 0 && rename(from, to) != 0)
            r = -errno;
        int status = r == 0
                         ? KITHI_TOOL_OK
                         : kithi_tool_fail(s->t, "%s cannot be set aside: %s; the damaged log is as it was",
                                           from, kithi_error_text(r));
        free(from);
        free(to);
        if (status != KITHI_TOOL_OK)
            return status;
    }
    return KITHI_TOOL_OK;
}

/* The copy is complete; where this fails halfway, the next salvage goes on. */
static int swap(struct salvage *s)
{
    struct kithi_errmsg err = { 0 };
    int r = kithi_wal_salvage_swap(s->place->collection, s->number, &err);
    if (r < 0)
        return kithi_tool_fail(s->t, "%s; nothing is lost: mend that, and salvage again", err.text);
    print_plan(s, true);
    print_next(s);
    return KITHI_TOOL_OK;
}

static int keep(struct salvage *s)
{
    const struct kithi_log_place *p = s->place;
    struct kithi_settings settings = p->settings;
    struct kithi_errmsg err = { 0 };
    int r = kithi_wal_salvage_number(p->collection, &s->number, &err);
    if (r == 0)
        r = kithi_wal_salvage_copy(p->collection, settings.uid, &s->plan, s->number, &err);
    if (r == -ENOSPC || r == -EDQUOT) { /* the copy was removed */
        char text[KITHI_OUT_TEXT_SIZE];
        return kithi_tool_fail(s->t, "no room in %s for the copy, which takes %s; nothing was changed",
                               p->collection, kithi_out_bytes(text, s->plan.bytes));
    }
    /* Before the log is another one, so that none goes on under the old timeline; too early is harmless. */
    if (r == 0)
        r = kithi_settings_fork(&settings, &err);
    if (r == 0)
        r = kithi_settings_write(p->collection, &settings, &err);
    if (r < 0)
        return kithi_tool_fail(s->t, "%s; the damaged log is as it was: mend that, and salvage again",
                               err.text);
    /* Before the swap as well, whose directory syncs make it last: with the damaged log they are of no use either. */
    int status = set_aside(s);
    return status == KITHI_TOOL_OK ? swap(s) : status;
}

/* The log was moved away, and a complete copy has still to take its place. */
static int go_on(struct salvage *s, bool yes)
{
    struct kithi_log_place copy = *s->place;
    struct kithi_errmsg err = { 0 };
    int n = snprintf(copy.wal, sizeof copy.wal, "%s/" KITHI_WAL_SALVAGED "%u", copy.collection, s->number);
    if (n < 0 || n >= (int)sizeof copy.wal)
        return kithi_tool_fail(s->t, "%s: the path is too long", copy.collection);
    int r = kithi_wal_plan(copy.wal, copy.settings.uid, accept_group, NULL, &s->plan, &err);
    if (r == 0) {
        s->base_epoch = base_of(s, s->plan.first_epoch, s->plan.last_epoch);
        struct salvage of_copy = { .t = s->t, .place = &copy, .plan = s->plan };
        r = scan_is_whole(&of_copy, &err);
    }
    if (r < 0)
        return kithi_tool_fail(s->t, "%s", err.text);
    if (r == 0)
        return kithi_tool_fail(
            s->t, "%s was to take the place of the log and is damaged, too; restore %s from a back-up",
            copy.wal, s->place->data);
    if (!yes) {
        print_plan(s, false);
        return kithi_tool_fail(s->t,
                               "a salvage was interrupted; nothing was changed now. To put %s in its place: "
                               "kith wal %s --data %s --salvage --yes",
                               copy.wal, copy.name, copy.data);
    }
    return swap(s);
}

static int salvage(struct salvage *s, bool yes)
{
    const struct kithi_log_place *p = s->place;
    struct kithi_errmsg err = { 0 };
    int status = yes ? check_user(s) : KITHI_TOOL_OK;
    if (status != KITHI_TOOL_OK)
        return status;
    look_at_segment(s);
    int r = look_at_checkpoints(s, &err);
    if (r < 0)
        return kithi_tool_fail(s->t, "%s", err.text);
    s->number = kithi_wal_salvage_interrupted(p->collection);
    if (s->number > 0)
        return go_on(s, yes);
    r = kithi_wal_plan(p->wal, p->settings.uid, accept_group, NULL, &s->plan, &err);
    if (r == 0)
        r = scan_is_whole(s, &err);
    if (r == 0)
        r = choose(s, &err);
    if (r < 0)
        return kithi_tool_fail(s->t, "%s", err.text);
    if (r > 0) {
        if (s->t->json)
            printf("{\"kind\":\"salvage\",\"name\":\"%s\",\"salvaged\":false,\"whole\":true}\n", p->name);
        else
            printf(
                "nothing to salvage: the log is whole, a torn tail apart, which a start cuts off by itself\n");
        return KITHI_TOOL_OK;
    }
    if (!kithi_wal_plan_useful(&s->plan)) {
        print_plan(s, false);
        return kithi_tool_fail(
            s->t,
            "nothing of the log of \"%s\" is readable from its beginning, and no checkpoint is whole without it; restore %s from a "
            "back-up, or move %s out of it to start without the collection",
            p->name, p->data, p->collection);
    }
    if (yes)
        return keep(s);
    print_plan(s, false);
    return kithi_tool_fail(
        s->t,
        "the log of \"%s\" is damaged, and nothing was changed. To go on with what is readable, "
        "the damaged log being kept beside: kith wal %s --data %s --salvage --yes",
        p->name, p->name, p->data);
}

int kithi_log_salvage(const struct kithi_tool *t, const struct kithi_log_place *place, bool yes)
{
    struct salvage s = { .t = t, .place = place, .base_epoch = NO_BASE };
    int fd = -1;
    int status = lock_data(&s, yes, &fd);
    if (status == KITHI_TOOL_OK)
        status = salvage(&s, yes);
    kithi_wal_plan_fini(&s.plan);
    free(s.checkpoints);
    if (fd >= 0)
        close(fd);
    return status;
}
