/*
 * start.c - see start.h.
 */
#include "server/writer/start.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "server/base/jsontext.h"
#include "server/base/log.h"
#include "server/checkpoint/read.h"
#include "server/wal/files.h"
#include "server/writer/recover.h"
#include "server/writer/refused.h"
#include "shm/base/id.h"

#define THREADS 8u /* as many syncs wait at a time; more gain little on any disk */
/* From so many bytes of checkpoint and log on a collection is a large one. Below that the memory that reading the log takes, some
 * 10 MiB, counts for little beside the segments'. */
#define LARGE_BYTES (160u << 20)
#define LINE_SIZE   320u /* of one collection's status, as JSON, without a reason */
#define REASON_SIZE KITHI_JSON_TEXT_SIZE(sizeof((struct kithi_errmsg *)0)->text)

struct entry {
    struct kithi_settings settings;
    bool warm;      /* there is a segment of it */
    bool anew;      /* it was served, or about to be, when its segment was condemned */
    uint64_t bytes; /* of the newest checkpoint and the log */
    uint64_t began_ms;
    struct kithi_boards_sums readers; /* that it had before */
    struct kithi_recover_progress progress;
    bool taken; /* over by the loop */

    /* Its thread's, until it has ended. */
    struct kithi_collection *collection;
    int status;
    struct kithi_errmsg err;
    struct entry *next_ended;
};

struct kithi_start {
    struct kithi_daemon *daemon;
    bool whole;             /* of kithd itself, and not of collections that come back once more */
    struct entry **entries; /* in the order in which they are begun; changed by the loop, under the lock */
    size_t count, left;     /* left: not taken */
    size_t collections;     /* entries that are no second ones */
    uint64_t began_ms;
    pthread_t threads[THREADS];
    unsigned thread_count;

    pthread_mutex_t lock; /* of what follows */
    size_t next;          /* entries below have been begun */
    bool large;           /* one of the large ones is on its way back */
    struct entry *ended;
    unsigned running; /* threads */
};

/* ---- threads ---- */

static bool is_large(const struct entry *e)
{
    return !e->warm && e->bytes >= LARGE_BYTES;
}

/* The next one for a thread; NULL: it may end. Behind a large one are only large ones, and the thread that has it sees to them.
 * Under the lock. */
static struct entry *take(struct kithi_start *s)
{
    if (s->daemon->stopping || s->next == s->count) {
        return NULL;
    }
    struct entry *e = s->entries[s->next];
    if (is_large(e) && s->large) {
        return NULL;
    }
    s->large |= is_large(e);
    s->next++;
    return e;
}

static void *thread_main(void *arg)
{
    struct kithi_start *s = arg;
    struct entry *e;
    pthread_mutex_lock(&s->lock);
    while ((e = take(s)) != NULL) {
        pthread_mutex_unlock(&s->lock);
        e->status = kithi_recover(s->daemon, &e->settings, &e->progress, &e->collection, &e->err);
        pthread_mutex_lock(&s->lock);
        if (is_large(e)) {
            s->large = false;
        }
        e->next_ended = s->ended;
        s->ended = e;
        kithi_io_wake(s->daemon->io);
    }
    s->running--;
    kithi_io_wake(s->daemon->io);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the list ---- */

static uint64_t file_size(const char *dir, const char *name)
{
    char path[KITHI_PATH_MAX];
    struct stat st;
    return !kithi_path(path, NULL, "%s/%s", dir, name) && !stat(path, &st) ? (uint64_t)st.st_size : 0;
}

/* What a cold start has to read, about. */
static uint64_t bytes_of(const char *data_dir)
{
    uint64_t *epochs = NULL, bytes = 0;
    struct kithi_wal_file *files = NULL;
    char wal[KITHI_PATH_MAX], name[KITHI_CHECKPOINT_NAME_SIZE];
    if (kithi_checkpoint_list(data_dir, &epochs, NULL) > 0) {
        kithi_checkpoint_name(name, epochs[0]);
        bytes = file_size(data_dir, name);
    }
    int64_t n = kithi_path(wal, NULL, "%s/wal", data_dir) ? 0 : kithi_wal_files_list(wal, &files, NULL);
    for (int64_t i = 0; i < n; i++) {
        bytes += file_size(wal, files[i].name);
    }
    free(epochs);
    free(files);
    return bytes;
}

static int no_memory(struct kithi_errmsg *err)
{
    return kithi_error_set(err, -ENOMEM, "no memory for the list of collections");
}

static struct kithi_start *start_new(struct kithi_daemon *d)
{
    struct kithi_start *s = calloc(1, sizeof *s);
    if (s) {
        s->daemon = d;
        s->began_ms = kithi_now_ms();
        pthread_mutex_init(&s->lock, NULL);
        d->start = s;
    }
    return s;
}

/* Under the lock, or before there are threads. */
static int append(struct kithi_start *s, struct entry *e)
{
    struct entry **more = realloc(s->entries, (s->count + 1) * sizeof *more);
    if (!more) {
        return -ENOMEM;
    }
    s->entries = more;
    s->entries[s->count++] = e;
    s->left++;
    s->collections += !e->anew;
    return 0;
}

/* Fill in what is known of a collection before it is begun. */
static void judge(const struct kithi_daemon *d, struct entry *e)
{
    char path[KITHI_PATH_MAX];
    e->began_ms = kithi_now_ms();
    if (!kithi_path(path, NULL, "%s/%s", d->data.path, e->settings.name)) {
        e->bytes = bytes_of(path);
    }
    if (!e->anew && !kithi_path(path, NULL, "%s/%s/segment", d->run.path, e->settings.name)) {
        e->warm = kithi_segment_is_of(path, e->settings.uid);
    }
}

static int look_at(struct kithi_start *s, const char *name, struct kithi_errmsg *err)
{
    const struct kithi_daemon *d = s->daemon;
    char path[KITHI_PATH_MAX];
    struct stat st;
    if (name[0] == '.' || !strcmp(name, KITHI_LOCK_NAME)) {
        return 0; /* kithi_recover_clear() */
    }
    int status = kithi_path(path, err, "%s/%s", d->data.path, name);
    /* What cannot be looked at may be a collection: to start without it would be to set its segment aside. */
    if (!status && lstat(path, &st)) {
        int number = errno;
        status = kithi_error_set(err, -number, "cannot look at %s: %s", path, strerror(number));
    }
    if (!status && (!kithi_name_valid(name, strlen(name)) || !S_ISDIR(st.st_mode))) {
        kithi_log(KITHI_LOG_WARN, "not-ours", "path=%s msg=left alone", path);
        return 0;
    }
    struct entry *e = status ? NULL : calloc(1, sizeof *e);
    if (!status && !e) {
        status = no_memory(err);
    }
    if (!status) {
        status = kithi_recover_settings(d, name, &e->settings, err);
    }
    if (!status) {
        judge(d, e);
        status = append(s, e) ? no_memory(err) : 0;
    }
    if (status) {
        free(e);
    }
    return status;
}

/* The order of start.h; names for what is equal, so that two starts do the same. */
static int compare(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    if (x->warm != y->warm) {
        return x->warm ? -1 : 1;
    }
    if (x->bytes != y->bytes) {
        return x->bytes < y->bytes ? -1 : 1;
    }
    return strcmp(x->settings.name, y->settings.name);
}

/* A collection that others do without. 0, or the error if there is no memory for that. */
static int refuse(struct kithi_daemon *d, const char *name, const uint8_t *uid, int status, const char *why)
{
    int rc = kithi_refused_add(d, name, uid, status, why);
    if (!rc) {
        kithi_log(
            KITHI_LOG_ERROR, "collection-refused",
            "name=%s dir=%s/%s status=%s msg=%s; it is not served, the others are, and the next start tries again; "
            "nothing of it was changed",
            name, d->data.path, name, kithi_error_name(status), why);
    }
    return rc;
}

/* Is it the fault of this collection alone, so that the others can do without it? Its configuration is missing, or cannot be read. */
static bool is_own(int status)
{
    return status == -ENOENT || kithi_refused_fits(status);
}

int kithi_start_begin(struct kithi_daemon *d, struct kithi_errmsg *err)
{
    char **names = NULL;
    size_t n = 0, refused = 0, first = 0;
    struct kithi_errmsg why = { .code = 0 };
    struct kithi_start *s = start_new(d);
    if (!s) {
        return no_memory(err);
    }
    s->whole = true;
    int status = kithi_dir_list(d->data.path, &names, &n, err);
    for (size_t i = 0; i < n && !status; i++) {
        struct kithi_errmsg one = { .code = 0 };
        status = look_at(s, names[i], &one);
        if (is_own(status) && !refuse(d, names[i], NULL, status, one.text)) {
            first = refused++ ? first : i;
            why = refused == 1 ? one : why;
            status = 0;
        } else if (status) {
            why = one;
            first = i;
        }
    }
    if (!status && refused && !s->count) { /* there are no others */
        status = why.code;
    }
    if (status && why.code) {
        *err = why;
        kithi_log(KITHI_LOG_ERROR, "collection-refused",
                  "name=%s dir=%s/%s msg=kithd does not start because of this one", names[first],
                  d->data.path, names[first]);
    }
    kithi_dir_list_free(names, n);
    if (!status) {
        status = kithi_recover_clear(d, err);
    }
    if (!status && s->count) {
        qsort(s->entries, s->count, sizeof *s->entries, compare);
    }
    return status;
}

/* One more thread. Under the lock. 0 or -errno. */
static int start_thread(struct kithi_start *s)
{
    int status = -pthread_create(&s->threads[s->thread_count], NULL, thread_main, s);
    s->thread_count += !status;
    s->running += !status;
    return status;
}

int kithi_start_go(struct kithi_daemon *d, struct kithi_errmsg *err)
{
    struct kithi_start *s = d->start;
    int status = 0;
    pthread_mutex_lock(&s->lock);
    while (!status && s->thread_count < THREADS && s->thread_count < s->count) {
        status = start_thread(s);
    }
    pthread_mutex_unlock(&s->lock);
    if (status && s->thread_count) {
        status = 0; /* those that there are do the work of all */
    }
    d->again = true;
    return status ? kithi_error_set(err, status, "cannot start a thread to bring collections back: %s",
                                    kithi_error_text(status))
                  : 0;
}

/* ---- the loop's part ---- */

static void leave(struct kithi_daemon *d, const struct kithi_settings *s, int status, const char *why)
{
    kithi_log(
        KITHI_LOG_ERROR, "collection-refused",
        "name=%s dir=%s/%s status=%s msg=%s; kithd leaves because of this one; to start the others, move "
        "its directory out of the data directory",
        s->name, d->data.path, s->name, kithi_error_name(status), why);
    /* What is served is stopped as by SIGTERM: what was accepted is finished. */
    d->stopping = true;
    d->exit_status = 1;
    d->again = true;
}

/* A thread that comes by the last entry, now or later. Under the lock. 0 or -errno. */
static int see_to_thread(struct kithi_start *s)
{
    if (s->thread_count == THREADS && !s->running) {
        for (unsigned i = 0; i < s->thread_count; i++) {
            pthread_join(s->threads[i], NULL); /* they have let go of the lock, which was the last they did */
        }
        s->thread_count = 0;
    }
    int status = s->thread_count < THREADS ? start_thread(s) : 0;
    return s->running ? 0 : status;
}

/* c, of which nothing is under way, is closed, and comes back behind what is coming already. On failure it is as it was. */
static int come_back(struct kithi_daemon *d, struct kithi_collection *c, bool listed)
{
    struct kithi_start *s = d->start ? d->start : start_new(d);
    struct entry *e = s ? calloc(1, sizeof *e) : NULL;
    if (!e) {
        return -ENOMEM; /* without entries the start ends with the next turn */
    }
    e->settings = c->settings;
    e->anew = true;
    kithi_boards_leave(&c->boards, &e->readers);
    judge(d, e);
    pthread_mutex_lock(&s->lock);
    int status = append(s, e);
    if (!status) {
        status = see_to_thread(s);
        if (status) {
            s->count--;
            s->left--;
        }
    }
    if (!status) {
        /* Under the lock, so that the thread finds everything closed. */
        if (listed) {
            kithi_daemon_remove(d, c);
        }
        kithi_collection_free(c);
    }
    pthread_mutex_unlock(&s->lock);
    if (status) {
        free(e);
    }
    d->again = true;
    return status;
}

void kithi_start_anew(struct kithi_daemon *d, struct kithi_collection *c)
{
    if (d->stopping || !kithi_collection_idle(c) || kithi_wal_preparing(c->wal)) {
        return;
    }
    kithi_log(KITHI_LOG_INFO, "collection-away",
              "name=%s epoch=%" PRIu64
              " msg=what was accepted is finished; it is built anew from checkpoint and log",
              c->settings.name, kithi_index_epoch(c->index));
    kithi_marker_clear(c); /* all that was visible is durable: nothing goes with the segment */
    int status = come_back(d, c, true);
    if (status) {
        leave(d, &c->settings, status, kithi_error_text(status));
    }
}

/* The census was due while the log was replayed, and the segment makes no sense: once more, without it. */
static bool is_condemned(const struct entry *e)
{
    return e->status == KITHI_E_CORRUPT && e->collection && e->collection->condemned && !e->anew;
}

/* Its thread has done with it. */
static void take_over(struct kithi_start *s, struct entry *e)
{
    struct kithi_daemon *d = s->daemon;
    const char *name = e->settings.name;
    e->taken = true;
    s->left--;
    if (!e->status && !d->stopping) {
        kithi_log(KITHI_LOG_INFO, "collection-ready",
                  "name=%s epoch=%" PRIu64 " live=%" PRIu64 " ms=%" PRIu64 " left=%zu", name,
                  kithi_index_epoch(e->collection->index), kithi_index_live(e->collection->index),
                  kithi_now_ms() - e->began_ms, s->left);
        if (e->anew) {
            e->collection->anew = true;
            kithi_boards_inherit(&e->collection->boards, &e->readers);
        }
        kithi_daemon_add(d, e->collection);
        d->again = true;
        return;
    }
    if (is_condemned(e) && d->stopping) {
        e->status = -ECANCELED; /* the next start does not adopt it */
    } else if (is_condemned(e)) {
        kithi_log(KITHI_LOG_ERROR, "segment-condemned",
                  "name=%s path=%s msg=%s; it is built anew from checkpoint and log: no write is lost, and "
                  "readers go on",
                  name, e->collection->segment, e->err.text);
        e->status = come_back(d, e->collection, false);
        if (!e->status) {
            return;
        }
        kithi_error_set(&e->err, e->status, "%s", kithi_error_text(e->status));
    }
    kithi_collection_free(e->collection);
    if (!e->status || e->status == -ECANCELED) {
        return;
    }
    /* With others there, it is seen at the end of the start whether any of them is served. */
    bool others = d->collections || s->left;
    if (kithi_refused_fits(e->status) && !d->stopping && others &&
        !refuse(d, name, e->settings.uid, e->status, e->err.text)) {
        d->again = true;
        return;
    }
    if (!d->start_err.code && !e->anew) {
        d->start_err = e->err;
        d->start_err.code = e->status;
    }
    leave(d, &e->settings, e->status, e->err.text);
}

/* All are refused, and nobody has made another collection meanwhile: with nothing to serve kithd leaves, as it does because of one alone. */
static bool nothing_served(const struct kithi_start *s)
{
    const struct kithi_daemon *d = s->daemon;
    return s->whole && d->refused && !d->collections && !d->admin && !d->revives && !d->stopping;
}

void kithi_start_turn(struct kithi_daemon *d)
{
    struct kithi_start *s = d->start;
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    struct entry *e = s->ended;
    s->ended = NULL;
    bool over = !s->running;
    pthread_mutex_unlock(&s->lock);
    size_t count = s->count;
    for (; e; e = e->next_ended) {
        take_over(s, e);
    }
    if (!over || s->count != count) {
        return;
    }
    if (!s->left && nothing_served(s)) {
        kithi_log(KITHI_LOG_ERROR, "nothing-served",
                  "data=%s msg=no collection can be brought back: kithd leaves", d->data.path);
        d->start_err = d->refused->why;
        d->stopping = true;
        d->exit_status = 1;
        d->again = true;
    }
    bool ready = !s->left && !d->stopping && s->whole;
    if (ready) {
        size_t refused = 0;
        for (const struct kithi_refused *r = d->refused; r; r = r->next) {
            refused++;
        }
        kithi_log(KITHI_LOG_INFO, "ready", "socket=%s/%s collections=%zu refused=%zu clients=%u ms=%" PRIu64,
                  d->run.path, KITHI_SOCKET_NAME, s->collections, refused, d->session_max,
                  kithi_now_ms() - s->began_ms);
    } else if (s->left || s->whole) {
        kithi_log(KITHI_LOG_INFO, "start-stopped",
                  "left=%zu msg=kithd leaves before these collections are back; nothing of them is lost",
                  s->left);
    }
    kithi_start_fini(d);
    if (ready) {
        kithi_manager_ready(d);
        if (d->on_ready) {
            d->on_ready(d->ready_arg);
        }
    }
}

void kithi_start_fini(struct kithi_daemon *d)
{
    struct kithi_start *s = d->start;
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->next = s->count; /* whoever looks for another one ends */
    bool running = s->running;
    pthread_mutex_unlock(&s->lock);
    if (running) {
        d->stopping = true;
    }
    for (unsigned i = 0; i < s->thread_count; i++) {
        pthread_join(s->threads[i], NULL);
    }
    for (struct entry *e = s->ended; e; e = e->next_ended) {
        kithi_collection_free(e->collection);
    }
    for (size_t i = 0; i < s->count; i++) {
        free(s->entries[i]);
    }
    pthread_mutex_destroy(&s->lock);
    free(s->entries);
    free(s);
    d->start = NULL;
}

/* ---- questions ---- */

size_t kithi_start_count(const struct kithi_daemon *d)
{
    return d->start ? d->start->left : 0;
}

const char *kithi_start_next(const struct kithi_daemon *d, size_t *at)
{
    const struct kithi_start *s = d->start;
    while (s && *at < s->count) {
        const struct entry *e = s->entries[(*at)++];
        if (!e->taken) {
            return e->settings.name;
        }
    }
    const struct kithi_refused *r = d->refused;
    for (size_t i = s ? s->count : 0; r && i < *at; i++) {
        r = r->next;
    }
    *at += r != NULL;
    return r ? r->name : NULL;
}

static const char *const step_names[] = { "waiting", "adopting", "loading", "replaying", "opening" };

struct figures {
    enum kithi_recover_step step;
    uint64_t done, total;
    unsigned percent; /* of this step */
};

/* Relaxed: each is right by itself, which is enough for people. */
static struct figures figures_of(const struct entry *e)
{
    struct figures f = { .step = atomic_load_explicit(&e->progress.step, memory_order_relaxed),
                         .done = atomic_load_explicit(&e->progress.done, memory_order_relaxed),
                         .total = atomic_load_explicit(&e->progress.total, memory_order_relaxed) };
    f.done = f.done < f.total ? f.done : f.total;
    f.percent = f.total ? (unsigned)((double)f.done / (double)f.total * 100) : 0;
    return f;
}

static int tell(const struct entry *e, struct kithi_errmsg *err)
{
    char how[160] = "";
    struct figures f = figures_of(e);
    switch (f.step) {
    case RECOVER_WAITING: snprintf(how, sizeof how, "others come first"); break;
    case RECOVER_ADOPTING: snprintf(how, sizeof how, "its segment is looked at"); break;
    case RECOVER_LOADING:
        snprintf(how, sizeof how, "%u %% of its checkpoint is loaded, %" PRIu64 " of %" PRIu64 " MiB",
                 f.percent, f.done >> 20, f.total >> 20);
        break;
    case RECOVER_REPLAYING:
        snprintf(how, sizeof how, "%" PRIu64 " of at least %" PRIu64 " groups of its log are replayed",
                 f.done, f.total);
        break;
    case RECOVER_OPENING: snprintf(how, sizeof how, "its log is being opened, searches go on already"); break;
    }
    return kithi_error_set(err, KITHI_E_STARTING,
                           "kithd is still bringing \"%s\" back: %s; try again, or wait for 'kith stats %s "
                           "--ready'",
                           e->settings.name, how, e->settings.name);
}

/* Between the last thing that is finished with its segment and the first that is done for another one. */
static int refuse_condemned(const struct kithi_collection *c, struct kithi_errmsg *err)
{
    return kithi_error_set(err, KITHI_E_STARTING,
                           "kithd is bringing \"%s\" back: its segment makes no sense and is built anew; try "
                           "again, or wait for 'kith stats %s --ready'",
                           c->settings.name, c->settings.name);
}

int kithi_start_find(const struct kithi_daemon *d, const char *name, struct kithi_errmsg *err)
{
    const struct kithi_start *s = d->start;
    for (size_t i = 0; s && i < s->count; i++) {
        const struct entry *e = s->entries[i];
        if (!e->taken && !strcmp(e->settings.name, name)) {
            return tell(e, err);
        }
    }
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        if (c->condemned && !strcmp(c->settings.name, name)) {
            return refuse_condemned(c, err);
        }
    }
    return kithi_refused_find(d, name, err);
}

int kithi_start_find_uid(const struct kithi_daemon *d, const uint8_t uid[16], struct kithi_errmsg *err)
{
    const struct kithi_start *s = d->start;
    for (size_t i = 0; s && i < s->count; i++) {
        const struct entry *e = s->entries[i];
        if (!e->taken && !memcmp(e->settings.uid, uid, sizeof e->settings.uid)) {
            return tell(e, err);
        }
    }
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        if (c->condemned && !memcmp(c->settings.uid, uid, sizeof c->settings.uid)) {
            return refuse_condemned(c, err);
        }
    }
    return kithi_refused_find_uid(d, uid, err);
}

struct text {
    char *bytes;
    size_t len, capacity;
    uint32_t served, missing, refused;
};

static const char *comma(const struct text *t)
{
    return t->served + t->missing + t->refused ? "," : "";
}

static void put_refused(struct text *t, const struct kithi_refused *r)
{
    char reason[REASON_SIZE];
    kithi_json_text(reason, r->why.text);
    t->len += (size_t)snprintf(t->bytes + t->len, t->capacity - t->len,
                               "%s{\"name\":\"%s\",\"state\":\"refused\",\"status\":\"%s\",\"reason\":%s}",
                               comma(t), r->name, kithi_error_name(r->why.code), reason);
    t->refused++;
}

static void put_collection(struct text *t, const struct kithi_collection *c)
{
    t->len +=
        (size_t)snprintf(t->bytes + t->len, t->capacity - t->len, "%s{\"name\":\"%s\",\"state\":\"%s\"}",
                         comma(t), c->settings.name, c->condemned ? step_names[RECOVER_WAITING] : "served");
    t->served += !c->condemned;
    t->missing += c->condemned;
}

static void put_entry(struct text *t, const struct entry *e)
{
    struct figures f = figures_of(e);
    t->len += (size_t)snprintf(t->bytes + t->len, t->capacity - t->len, "%s{\"name\":\"%s\",\"state\":\"%s\"",
                               comma(t), e->settings.name, step_names[f.step]);
    if (f.step == RECOVER_LOADING || f.step == RECOVER_REPLAYING) {
        t->len +=
            (size_t)snprintf(t->bytes + t->len, t->capacity - t->len,
                             ",\"unit\":\"%s\",\"done\":%" PRIu64 ",\"total\":%" PRIu64 ",\"percent\":%u",
                             f.step == RECOVER_LOADING ? "bytes" : "groups", f.done, f.total, f.percent);
    }
    t->len += (size_t)snprintf(t->bytes + t->len, t->capacity - t->len, "}");
    t->missing++;
}

int kithi_start_status(const struct kithi_daemon *d, const char *name, char **out, uint32_t *out_missing,
                       struct kithi_errmsg *err)
{
    const struct kithi_start *s = d->start;
    size_t n = s ? s->count : 0;
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        n++;
    }
    struct text list = { .capacity = (n + 1) * LINE_SIZE };
    for (const struct kithi_refused *r = d->refused; r; r = r->next) {
        list.capacity += LINE_SIZE + REASON_SIZE;
    }
    list.bytes = malloc(list.capacity);
    *out = malloc(list.capacity + LINE_SIZE);
    int status = list.bytes && *out ? 0 : kithi_error_set(err, -ENOMEM, "no memory for the answer");
    for (const struct kithi_collection *c = d->collections; c && !status; c = c->next) {
        if (!c->dropping && (!name || !strcmp(name, c->settings.name))) {
            put_collection(&list, c);
        }
    }
    for (size_t i = 0; s && i < s->count && !status; i++) {
        const struct entry *e = s->entries[i];
        if (!e->taken && (!name || !strcmp(name, e->settings.name))) {
            put_entry(&list, e);
        }
    }
    for (const struct kithi_refused *r = d->refused; r && !status; r = r->next) {
        if (!name || !strcmp(name, r->name)) {
            put_refused(&list, r);
        }
    }
    if (!status && name && !list.served && !list.missing && !list.refused) {
        status = kithi_error_set(err, KITHI_E_NO_COLLECTION, "there is no collection \"%s\"", name);
    }
    if (!status) {
        snprintf(*out, list.capacity + LINE_SIZE,
                 "{\"ready\":%s,\"served\":%u,\"coming\":%u,\"collections\":[%.*s],\"refused\":%u}",
                 list.missing + list.refused ? "false" : "true", list.served, list.missing, (int)list.len,
                 list.bytes, list.refused);
        *out_missing = list.missing + list.refused;
    } else {
        free(*out);
        *out = NULL;
    }
    free(list.bytes);
    return status;
}
