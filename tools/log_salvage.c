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

#include "server/wal/salvage.h"
#include "server/writer/dirs.h"
#include "tools/out.h"

struct salvage {
    const struct kithi_tool *t;
    const struct kithi_log_place *place;
    struct kithi_wal_plan plan;
    uint32_t number;     /* of the directories */
    uint64_t held_epoch; /* of the segment in the run directory; 0: none */
};

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

/* Would a start take the log as it is? Returns 1 (it would), 0, or an error. */
static int scan_is_whole(const struct salvage *s, struct kithi_errmsg *err)
{
    struct kithi_wal_report report = { 0 };
    struct kithi_wal_scan_opts o = { .dir = s->place->wal, .fn = accept_group };
    memcpy(o.uid, s->place->settings.uid, sizeof o.uid);
    o.after_epoch = s->plan.first_epoch > 0 ? s->plan.first_epoch - 1 : 0;
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
        snprintf(text, sizeof text, "nothing that the log tells of");
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
    return swap(s);
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
    s->number = kithi_wal_salvage_interrupted(p->collection);
    if (s->number > 0)
        return go_on(s, yes);
    int r = kithi_wal_plan(p->wal, p->settings.uid, accept_group, NULL, &s->plan, &err);
    if (r == 0)
        r = scan_is_whole(s, &err);
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
            "nothing of the log of \"%s\" is readable from its beginning; restore %s from a "
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
    struct salvage s = { .t = t, .place = place };
    int fd = -1;
    int status = lock_data(&s, yes, &fd);
    if (status == KITHI_TOOL_OK)
        status = salvage(&s, yes);
    kithi_wal_plan_fini(&s.plan);
    if (fd >= 0)
        close(fd);
    return status;
}
