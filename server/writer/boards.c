/*
 * boards.c - see boards.h.
 *
 * What may be in the directory is up to anybody in the read group. So a look goes by the names that a board can have, and
 * opens what is a regular file, without following links and without waiting (O_NONBLOCK: a lease that its owner holds
 * would delay an open). What is there besides costs nothing.
 */
#include "server/writer/boards.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/base/pread.h"
#include "server/writer/admin.h"
#include "server/writer/collection.h"
#include "shm/base/assert.h"

/* No reader counts so far, not with a million searches a second for eight years: more is a lie, and sums stay numbers. */
#define COUNT_MAX (UINT64_C(1) << 48)
#define SUM_MAX   (UINT64_C(1) << 60)

/* A file that kithd may not open is one whose reader has not come to the end of making it, or never will. */
#define HALF_MADE_S 60

/* A directory that has not changed for so long shows the next change by its time. */
#define SETTLED_S 2

/* How long statistics wait for a look. */
#define ANSWER_MS 200u

/* ---- the directory ---- */

void kithi_boards_open(struct kithi_boards *b, const char *run_dir, const uint8_t uid[16],
                       const struct kithi_rights_policy *policy, bool on)
{
    char path[KITHI_PATH_MAX];
    struct kithi_errmsg err = { .text = "" };
    struct stat st;
    int fd = -1, status = kithi_path(path, &err, "%s/" KITHI_BOARD_DIR, run_dir);
    if (status) {
        goto out;
    }
    if (!on) {
        status = kithi_boards_remove(run_dir, &err);
        goto out;
    }
    bool shared = policy->read_group != KITHI_NO_GROUP;
    /* Sticky: a reader does not remove another's. */
    mode_t mode = shared ? 01770 : 0700;
    if (mkdir(path, 0700) && errno != EEXIST) {
        status = kithi_error_set(&err, -errno, "cannot make %s: %s", path, strerror(errno));
        goto out;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        status = kithi_error_set(&err, -errno, "cannot open %s: %s", path, strerror(errno));
    } else if (st.st_uid != geteuid()) {
        status = kithi_error_set(&err, -EPERM, "%s belongs to user %u; remove it", path, (unsigned)st.st_uid);
    } else if (shared && st.st_gid != policy->read_group && fchown(fd, (uid_t)-1, policy->read_group)) {
        status = kithi_error_set(&err, -errno, "cannot give %s to the read group: %s", path, strerror(errno));
    } else if ((st.st_mode & 07777) != mode && fchmod(fd, mode)) {
        status = kithi_error_set(&err, -errno, "cannot set the mode of %s: %s", path, strerror(errno));
    }
out:
    if (status) {
        kithi_log(KITHI_LOG_WARN, "no-counters", "dir=%s msg=readers of this collection are not counted: %s",
                  run_dir, err.text);
        if (fd >= 0) {
            close(fd);
            fd = -1;
        }
    }
    if (b->dir_fd >= 0) {
        close(b->dir_fd);
    }
    b->dir_fd = fd;
    memcpy(b->uid, uid, sizeof b->uid);
}

/* Remove the entries that can be removed at once. Not recursive: a tree is as deep as somebody liked. */
static void clear(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        return;
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlinkat(dirfd(dir), e->d_name, 0)) {
            unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
        }
    }
    closedir(dir);
}

int kithi_boards_remove(const char *run_dir, struct kithi_errmsg *err)
{
    char path[KITHI_PATH_MAX], aside[KITHI_PATH_MAX];
    struct stat st;
    int status = kithi_path(path, err, "%s/" KITHI_BOARD_DIR, run_dir);
    if (status) {
        return status;
    }
    if (lstat(path, &st)) {
        return errno == ENOENT ? 0
                               : kithi_error_set(err, -errno, "cannot look at %s: %s", path, strerror(errno));
    }
    if (!S_ISDIR(st.st_mode)) {
        return unlink(path) ? kithi_error_set(err, -errno, "cannot remove %s: %s", path, strerror(errno)) : 0;
    }
    /* Members of the group make no more of them from here on. */
    chmod(path, 0700);
    clear(path);
    if (!rmdir(path) || errno == ENOENT) {
        return 0;
    }
    int e = errno;
    const char *name = strrchr(run_dir, '/');
    status = name ? kithi_path(aside, err, "%.*s/%s%s-readers-%" PRIu64, (int)(name - run_dir), run_dir,
                               KITHI_ASIDE_PREFIX, name + 1, kithi_now_us())
                  : kithi_error_set(err, -e, "cannot remove %s: %s", path, strerror(e));
    if (!status && rename(path, aside)) {
        status = kithi_error_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
    }
    if (!status) {
        kithi_log(KITHI_LOG_WARN, "set-aside",
                  "from=%s to=%s msg=somebody has put into it what kithd cannot remove (%s); "
                  "have it removed",
                  path, aside, strerror(e));
    }
    return status;
}

/* ---- a look ---- */

/* From a private copy, hence relaxed; as much as a reader can have counted. */
static uint64_t count(const _Atomic uint64_t *w)
{
    uint64_t n = atomic_load_explicit(w, memory_order_relaxed);
    return n < COUNT_MAX ? n : COUNT_MAX;
}

static void add(uint64_t *sum, uint64_t n)
{
    *sum = *sum + n < SUM_MAX ? *sum + n : SUM_MAX;
}

static void counts_add(struct kithi_board_counts *to, const struct kithi_board_counts *from)
{
    add(&to->searches, from->searches);
    add(&to->failures, from->failures);
    add(&to->expansions, from->expansions);
    add(&to->restarts, from->restarts);
    add(&to->lag, from->lag);
    to->lag_max = from->lag_max > to->lag_max ? from->lag_max : to->lag_max;
    for (uint32_t i = 0; i < KITHI_BOARD_BUCKETS; i++) {
        add(&to->latency[i], from->latency[i]);
    }
}

/* Where the part (in thousandths) of all stays below: the middle of its bucket. 0 when nothing was measured. */
static uint64_t quantile_ns(const struct kithi_board_counts *c, uint64_t thousandths)
{
    uint64_t all = 0, seen = 0;
    for (uint32_t i = 0; i < KITHI_BOARD_BUCKETS; i++) {
        add(&all, c->latency[i]);
    }
    uint64_t rank = all / 1000 * thousandths + (all % 1000 * thousandths + 999) / 1000;
    for (uint32_t i = 0; i < KITHI_BOARD_BUCKETS && all; i++) {
        seen += c->latency[i];
        if (seen >= rank) {
            return (kithi_board_bucket_ns(i) + kithi_board_bucket_ns(i + 1)) / 2;
        }
    }
    return 0;
}

static bool read_page(int fd, void *page, size_t size, size_t off)
{
    return kithi_pread(fd, page, size, off) == (int64_t)size;
}

/* Is the file a board of this collection? Then what it says. */
static bool read_board(int fd, const uint8_t uid[16], struct kithi_board_reader *r,
                       struct kithi_board_counts *out)
{
    struct kithi_board_header h;
    struct kithi_board_lane lane;
    memset(out, 0, sizeof *out);
    memset(r, 0, sizeof *r);
    /* [P13 board] acquire in name only: a private copy. Other half: client/src/board.c. */
    if (!read_page(fd, &h, sizeof h, 0) ||
        atomic_load_explicit(&h.magic, memory_order_acquire) != KITHI_BOARD_MAGIC ||
        h.version != KITHI_BOARD_VERSION || memcmp(h.uid, uid, sizeof h.uid) || h.lane_count < 1 ||
        h.lane_count > KITHI_BOARD_LANE_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < h.lane_count; i++) {
        if (!read_page(fd, &lane, sizeof lane, kithi_board_size(i))) {
            return false;
        }
        add(&out->searches, count(&lane.searches));
        add(&out->failures, count(&lane.failures));
        add(&out->expansions, count(&lane.expansions));
        add(&out->restarts, count(&lane.restarts));
        add(&out->lag, count(&lane.lag));
        uint64_t lag_max = count(&lane.lag_max), epoch = count(&lane.epoch);
        out->lag_max = lag_max > out->lag_max ? lag_max : out->lag_max;
        r->epoch = epoch > r->epoch ? epoch : r->epoch;
        for (uint32_t k = 0; k < KITHI_BOARD_BUCKETS; k++) {
            add(&out->latency[k], count(&lane.latency[k]));
        }
    }
    r->pid = h.pid;
    r->timed = h.timed == 1;
    r->opened_ns = h.opened_ns;
    for (size_t i = 0; i + 1 < sizeof r->program && h.program[i]; i++) {
        char ch = h.program[i];
        r->program[i] = ch >= ' ' && ch <= '~' ? ch : '?';
    }
    return true;
}

/* Remove the name, if it still leads to this file. */
static bool remove_name(int dir, const char *name, const struct stat *of)
{
    struct stat now;
    return !fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) && now.st_dev == of->st_dev &&
           now.st_ino == of->st_ino && !unlinkat(dir, name, 0);
}

static void look_at(struct kithi_boards *b, uint32_t slot)
{
    char name[KITHI_BOARD_NAME];
    struct kithi_boards_view *v = &b->next;
    struct kithi_board_counts counts;
    struct kithi_board_reader reader;
    struct stat st;
    kithi_board_name(slot, name);
    if (fstatat(b->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
        return;
    }
    b->empty = false;
    int fd = S_ISREG(st.st_mode)
                 ? openat(b->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
                 : -1;
    if (fd < 0) {
        v->strange++;
        if (S_ISREG(st.st_mode) && time(NULL) - st.st_ctim.tv_sec > HALF_MADE_S) {
            remove_name(b->dir_fd, name, &st);
        }
        return;
    }
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        v->strange++;
        return;
    }
    bool dead = !flock(fd, LOCK_EX | LOCK_NB);
    bool good = read_board(fd, b->uid, &reader, &counts);
    if (dead) {
        /* Under the lock, so that no reader of its user takes the name before. */
        if (remove_name(b->dir_fd, name, &st) && good) {
            counts_add(&b->next_gone, &counts);
            b->next_gone_count++;
        }
    } else if (!good) {
        v->strange++;
    } else {
        v->alive++;
        v->untimed += !reader.timed;
        counts_add(&v->living, &counts);
        if (v->listed < KITHI_BOARDS_LISTED) {
            reader.slot = slot;
            reader.uid = st.st_uid;
            reader.searches = counts.searches;
            reader.failures = counts.failures;
            reader.expansions = counts.expansions;
            reader.restarts = counts.restarts;
            reader.lag = counts.lag;
            reader.lag_max = counts.lag_max;
            reader.p50_ns = quantile_ns(&counts, 500);
            reader.p99_ns = quantile_ns(&counts, 990);
            v->list[v->listed++] = reader;
        }
    }
    close(fd);
}

void kithi_boards_look(struct kithi_boards *b)
{
    struct stat st;
    memset(&b->next, 0, sizeof b->next);
    memset(&b->next_gone, 0, sizeof b->next_gone);
    b->next_gone_count = 0;
    if (b->dir_fd < 0 || fstat(b->dir_fd, &st)) {
        return;
    }
    /* Before the names are looked for: what comes during the look is looked for the next time. */
    if (b->empty && st.st_mtim.tv_sec == b->changed.tv_sec && st.st_mtim.tv_nsec == b->changed.tv_nsec) {
        return;
    }
    /* A change within the same tick of the clock does not show. */
    time_t age_s = time(NULL) - st.st_mtim.tv_sec;
    b->empty = age_s >= SETTLED_S;
    b->changed = st.st_mtim;
    for (uint32_t slot = 0; slot < KITHI_BOARD_SLOTS; slot++) {
        look_at(b, slot);
    }
}

void kithi_boards_take(struct kithi_boards *b, uint64_t now_ms)
{
    b->view = b->next;
    counts_add(&b->gone, &b->next_gone);
    b->gone_count += b->next_gone_count;
    b->looked_ms = now_ms;
    b->look_at_ms = now_ms + KITHI_BOARD_LOOK_MS;
}

void kithi_boards_leave(const struct kithi_boards *b, struct kithi_boards_sums *out)
{
    out->counts = b->gone;
    out->readers = b->gone_count;
}

void kithi_boards_inherit(struct kithi_boards *b, const struct kithi_boards_sums *sums)
{
    counts_add(&b->gone, &sums->counts);
    b->gone_count += sums->readers;
}

/* ---- turns ---- */

static void look_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_collection *c = arg;
    (void)worker;
    (void)i;
    kithi_boards_look(&c->boards);
}

static void answer_all(struct kithi_collection *c, struct kithi_request **list)
{
    while (*list) {
        struct kithi_request *r = *list;
        *list = r->next;
        kithi_admin_stats_answer(c, r);
    }
}

static void look_done(struct kithi_work *work)
{
    struct kithi_collection *c = work->arg;
    struct kithi_boards *b = &c->boards;
    b->looking = false;
    kithi_boards_take(b, kithi_now_ms());
    answer_all(c, &b->served);
}

void kithi_boards_request(struct kithi_collection *c, struct kithi_request *r)
{
    struct kithi_boards *b = &c->boards;
    if (b->dir_fd < 0) {
        kithi_admin_stats_answer(c, r);
        return;
    }
    r->next = b->waiting;
    b->waiting = r;
    if (b->answer_by_ms == KITHI_NEVER) {
        b->answer_by_ms = kithi_now_ms() + ANSWER_MS;
    }
    c->daemon->again = true;
}

uint64_t kithi_boards_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_boards *b = &c->boards;
    bool leaving = c->daemon->stopping || c->dropping || c->condemned;
    if (b->dir_fd < 0) {
        return KITHI_NEVER;
    }
    if (now_ms >= b->answer_by_ms) { /* the pool has other things to do */
        answer_all(c, &b->served);
        answer_all(c, &b->waiting);
    }
    if (!b->looking && (b->waiting || (!leaving && now_ms >= b->look_at_ms))) {
        b->looking = true;
        b->served = b->waiting;
        b->waiting = NULL;
        kithi_pool_submit(c->daemon->pool, &b->work);
    }
    if (!b->waiting && !b->served) {
        b->answer_by_ms = KITHI_NEVER;
    }
    uint64_t again_ms = leaving || b->looking ? KITHI_NEVER : b->look_at_ms;
    return b->answer_by_ms < again_ms ? b->answer_by_ms : again_ms;
}

bool kithi_boards_idle(const struct kithi_boards *b)
{
    return !b->looking && !b->waiting && !b->served;
}

void kithi_boards_init(struct kithi_boards *b, struct kithi_collection *c)
{
    b->dir_fd = -1;
    b->answer_by_ms = KITHI_NEVER;
    b->work = (struct kithi_work){ .fn = look_job, .done = look_done, .arg = c, .n = 1 };
}

void kithi_boards_fini(struct kithi_boards *b)
{
    if (b->dir_fd >= 0) {
        close(b->dir_fd);
        b->dir_fd = -1;
    }
}

/* ---- JSON ---- */

struct text {
    char *out;
    size_t at;
};

static void KITHI_PRINTF(2, 3) put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->out + t->at, KITHI_BOARDS_JSON_SIZE - t->at, fmt, ap);
    va_end(ap);
    KITHI_ASSERT(n >= 0 &&
                 (size_t)n < KITHI_BOARDS_JSON_SIZE - t->at); /* its size is for the most of everything */
    t->at += (size_t)n;
}

static void put_reader(struct text *t, const struct kithi_board_reader *r, bool first)
{
    char program[2 * sizeof r->program];
    size_t n = 0;
    for (const char *p = r->program; *p; p++) {
        if (*p == '"' || *p == '\\') {
            program[n++] = '\\';
        }
        program[n++] = *p;
    }
    program[n] = 0;
    put(t,
        "%s{\"slot\":%u,\"uid\":%u,\"pid\":%u,\"program\":\"%s\",\"opened\":%" PRIu64 ",\"epoch\":%" PRIu64
        ",\"searches\":%" PRIu64 ",\"failures\":%" PRIu64 ",\"expansions\":%" PRIu64 ",\"restarts\":%" PRIu64
        ",\"lag\":%" PRIu64 ",\"lag_max\":%" PRIu64 ",\"p50_ns\":%" PRIu64 ",\"p99_ns\":%" PRIu64 "}",
        first ? "" : ",", r->slot, r->uid, r->pid, program, r->opened_ns / 1000000000u, r->epoch, r->searches,
        r->failures, r->expansions, r->restarts, r->lag, r->lag_max, r->p50_ns, r->p99_ns);
}

int kithi_boards_json(const struct kithi_boards *b, uint64_t now_ms, char out[KITHI_BOARDS_JSON_SIZE])
{
    struct text t = { .out = out };
    if (b->dir_fd < 0) {
        put(&t, "null");
        return (int)t.at;
    }
    struct kithi_board_counts sum = b->gone;
    counts_add(&sum, &b->view.living);
    put(&t,
        "{\"alive\":%u,\"gone\":%" PRIu64 ",\"strange\":%u,\"untimed\":%u,\"age_ms\":%" PRIu64
        ",\"searches\":%" PRIu64 ",\"failures\":%" PRIu64 ",\"expansions\":%" PRIu64 ",\"restarts\":%" PRIu64
        ",\"lag\":%" PRIu64 ",\"lag_max\":%" PRIu64 ",\"latency_ns\":[",
        b->view.alive, b->gone_count, b->view.strange, b->view.untimed, now_ms - b->looked_ms, sum.searches,
        sum.failures, sum.expansions, sum.restarts, sum.lag, sum.lag_max);
    bool first = true;
    for (uint32_t i = 0; i < KITHI_BOARD_BUCKETS; i++) {
        if (sum.latency[i]) {
            put(&t, "%s[%" PRIu64 ",%" PRIu64 "]", first ? "" : ",", kithi_board_bucket_ns(i),
                sum.latency[i]);
            first = false;
        }
    }
    put(&t, "],\"list\":[");
    for (uint32_t i = 0; i < b->view.listed; i++) {
        put_reader(&t, &b->view.list[i], !i);
    }
    put(&t, "]}");
    return (int)t.at;
}
