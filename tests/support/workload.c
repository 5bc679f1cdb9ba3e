/*
 * workload.c - writers, readers, and the account of acknowledged batches.
 */
#include "tests/support/workload.h"

#include <inttypes.h>
#include <kith/kith.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/graph/payload.h"
#include "shm/graph/scan.h"
#include "shm/payload/payload.h"
#include "tests/support/codes.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define RING      32u /* batches in flight of a writer */
#define BATCH_MAX 48u
#define DEPTH     8u /* of the pipe */
#define DIM_MAX   1024u
#define LOAD_STEP 250u
#define K         10u
#define NOBODY    UINT32_MAX /* a vector that no version has */
#define END_MS    60000u

enum writer_kind { WRITER_SINGLE, WRITER_BATCH, WRITER_PIPE };
enum writer_state { STATE_REST, STATE_RUN, STATE_FAILED };

struct item {
    uint32_t id, version; /* version 0: deleted */
};

struct batch {
    uint32_t n;
    _Atomic uint32_t acked;
    struct item items[BATCH_MAX];
};

struct writer_shared {
    _Atomic uint32_t state;
    _Atomic uint32_t round;       /* the one it has seen */
    _Atomic uint64_t first, last; /* batches [first, last) are open */
    struct batch ring[RING];
    _Atomic uint64_t acked_batches, acked_items, acked_epoch;
    char text[400];
};

struct reader_shared {
    _Atomic uint32_t failed;
    _Atomic uint64_t searches, gets, moves;
    char text[400];
};

struct workload_shared {
    uint64_t seed;
    uint32_t id_count, dim;
    char run[TEST_PATH_SIZE];
    _Atomic uint32_t round; /* writers run while theirs is this one */
    _Atomic uint32_t rest;  /* they are asked to rest */
    _Atomic uint32_t stop;
    struct writer_shared writers[WORKLOAD_WRITERS];
    struct reader_shared readers[WORKLOAD_READERS];
    uint32_t *acked;        /* version of each id; stored by its writer, or by the parent while all rest */
    _Atomic uint32_t *sent; /* highest version of each id that was ever sent */
};

struct role {
    struct workload_shared *s;
    unsigned number;
};

static void vector_of(const struct workload_shared *s, uint32_t id, uint32_t version, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, s->seed ^ ((uint64_t)id << 32 | version) * UINT64_C(0xd1342543de82ef95));
    test_rand_floats(&r, out, s->dim);
}

/* What comes back of it. */
static void kept_of(const struct workload_shared *s, uint32_t id, uint32_t version, float *out)
{
    vector_of(s, id, version, out);
    test_codes_decoded(test_codes_kept(), false, out, s->dim);
}

static void id_name(uint32_t id, char out[24])
{
    snprintf(out, 24, "v%u", id);
}

static uint32_t id_number(const struct workload_shared *s, const char *name)
{
    char *end;
    unsigned long n = *name == 'v' ? strtoul(name + 1, &end, 10) : ULONG_MAX;
    return n < s->id_count && !*end ? (uint32_t)n : NOBODY;
}

/* ---- writers ---- */

static int failed(struct writer_shared *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int failed(struct writer_shared *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->text, sizeof w->text, fmt, ap);
    va_end(ap);
    atomic_store(&w->state, STATE_FAILED);
    return 1;
}

/* Choose and note the next batch; it may reach the daemon from now on. */
static struct batch *note(struct role *role, struct test_rand *r, enum writer_kind kind)
{
    struct workload_shared *s = role->s;
    struct writer_shared *w = &s->writers[role->number];
    uint64_t last = atomic_load(&w->last);
    struct batch *b = &w->ring[last % RING];
    uint32_t own = s->id_count / WORKLOAD_WRITERS; /* ids number, number + WRITERS, ... */
    b->n = kind == WRITER_SINGLE ? 1 : 1 + test_rand_below(r, BATCH_MAX);
    /* Neighbouring places of a small window now and then: the same ids again and again. */
    uint32_t at = test_rand_below(r, test_rand_below(r, 4) ? own : 64);
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t id = (at + i) % own * WORKLOAD_WRITERS + role->number;
        bool gone = test_rand_below(r, 6) == 0;
        b->items[i] = (struct item){ .id = id, .version = 0 };
        if (!gone)
            b->items[i].version = atomic_fetch_add(&s->sent[id], 1) + 1;
    }
    atomic_store(&b->acked, 0);
    atomic_store(&w->last, last + 1);
    return b;
}

/* Batch number i was acknowledged at epoch: settle what is acknowledged from the front. */
static void acked(struct role *role, uint64_t i, uint64_t epoch)
{
    struct workload_shared *s = role->s;
    struct writer_shared *w = &s->writers[role->number];
    atomic_store(&w->ring[i % RING].acked, 1);
    if (epoch > atomic_load(&w->acked_epoch))
        atomic_store(&w->acked_epoch, epoch);
    uint64_t first = atomic_load(&w->first);
    for (; first < atomic_load(&w->last) && atomic_load(&w->ring[first % RING].acked); first++) {
        const struct batch *b = &w->ring[first % RING];
        for (uint32_t j = 0; j < b->n; j++)
            s->acked[b->items[j].id] = b->items[j].version;
        atomic_fetch_add(&w->acked_batches, 1);
        atomic_fetch_add(&w->acked_items, b->n);
        atomic_store(&w->first, first + 1);
    }
}

/* The daemon died, or is about to, while we wrote: what is open may be there or not. */
static bool is_loss(int rc)
{
    return rc == KITH_E_NO_DAEMON || rc == KITH_E_UNKNOWN_OUTCOME || rc == KITH_E_SHUTDOWN ||
           rc == KITH_E_LOG_FAILED;
}

/* The payload of a version tells whose it is; of several classes of blobs. */
#define PAYLOAD_MAX 1400u
static void payload_of(uint32_t id, uint32_t version, char out[PAYLOAD_MAX])
{
    static const int lens[] = { 1, 40, 150, 400, 1200 };
    snprintf(out, PAYLOAD_MAX, "{\"fill\":\"%0*u\",\"id\":%u,\"version\":%u}", lens[version % 5], version, id,
             version);
}

/* A vector with its payload; one in three gets the end of it in a change of its own, in the same batch. */
static int put(kith_batch *kb, const char *name, uint32_t id, uint32_t version, const float *vector,
               uint32_t dim)
{
    char text[PAYLOAD_MAX], half[64];
    payload_of(id, version, text);
    if (version % 3)
        return kith_batch_upsert_payload(kb, name, vector, dim, text);
    snprintf(half, sizeof half, "{\"id\":%u,\"gone\":{\"a\":1}}", id);
    int rc = kith_batch_upsert_payload(kb, name, vector, dim, half);
    if (rc == 0)
        rc = kith_batch_set_payload(kb, name, KITH_PAYLOAD_MERGE, text);
    return rc == 0 ? kith_batch_set_payload(kb, name, KITH_PAYLOAD_REMOVE, "[\"gone\"]") : rc;
}

static int fill(const struct workload_shared *s, kith_batch *kb, const struct batch *b)
{
    float vector[DIM_MAX];
    char name[24];
    int rc = 0;
    kith_batch_clear(kb);
    for (uint32_t i = 0; i < b->n && rc == 0; i++) {
        id_name(b->items[i].id, name);
        if (b->items[i].version) {
            vector_of(s, b->items[i].id, b->items[i].version, vector);
            rc = put(kb, name, b->items[i].id, b->items[i].version, vector, s->dim);
        } else {
            rc = kith_batch_delete(kb, name);
        }
    }
    return rc;
}

/* Under KITH_TEST_DURABILITY=applied most writes are; the daemon may die, the machine does not. */
static enum kith_durability some_durability(struct test_rand *r)
{
    const char *name = getenv("KITH_TEST_DURABILITY");
    bool applied = name && strcmp(name, "applied") == 0 && test_rand_below(r, 8);
    return applied ? KITH_DURABILITY_APPLIED : KITH_DURABILITY_DURABLE;
}

static int write_single(struct role *role, kith *k, struct test_rand *r)
{
    struct workload_shared *s = role->s;
    struct writer_shared *w = &s->writers[role->number];
    float vector[DIM_MAX];
    char name[24];
    const struct batch *b = note(role, r, WRITER_SINGLE);
    uint64_t number = atomic_load(&w->last) - 1, epoch = 0;
    id_name(b->items[0].id, name);
    kith_set_durability(k, some_durability(r));
    int rc;
    if (b->items[0].version) {
        vector_of(s, b->items[0].id, b->items[0].version, vector);
        char text[PAYLOAD_MAX];
        payload_of(b->items[0].id, b->items[0].version, text);
        rc = kith_upsert_payload(k, name, vector, s->dim, text, &epoch);
    } else {
        rc = kith_delete(k, name, &epoch);
        if (rc == KITH_E_NOT_FOUND)
            rc = 0;
    }
    if (rc == 0)
        acked(role, number, epoch);
    return rc;
}

static int write_batch(struct role *role, kith_batch *kb, struct test_rand *r)
{
    struct workload_shared *s = role->s;
    struct writer_shared *w = &s->writers[role->number];
    struct kith_commit commit = { .struct_size = sizeof commit };
    const struct batch *b = note(role, r, WRITER_BATCH);
    uint64_t number = atomic_load(&w->last) - 1;
    int rc = fill(s, kb, b);
    kith_batch_set_durability(kb, some_durability(r));
    if (rc == 0)
        rc = kith_batch_commit(kb, &commit);
    if (rc == 0)
        acked(role, number, commit.epoch);
    return rc;
}

/* Take answers until at most `left` are outstanding. */
static int take(struct role *role, kith_pipe *pipe, uint32_t left)
{
    while (kith_pipe_pending(pipe) > left) {
        struct kith_commit commit = { .struct_size = sizeof commit };
        uint64_t token;
        int status;
        int rc = kith_pipe_next(pipe, 30000, &token, &status, &commit);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return KITH_E_TIMEOUT;
        if (status)
            return status;
        acked(role, token, commit.epoch);
    }
    return 0;
}

static int write_piped(struct role *role, kith_pipe *pipe, kith_batch *kb, struct test_rand *r)
{
    struct workload_shared *s = role->s;
    struct writer_shared *w = &s->writers[role->number];
    int rc = take(role, pipe, DEPTH - 1);
    if (rc < 0)
        return rc;
    const struct batch *b = note(role, r, WRITER_PIPE);
    rc = fill(s, kb, b);
    kith_batch_set_durability(kb, some_durability(r));
    return rc ? rc : kith_pipe_submit(pipe, kb, atomic_load(&w->last) - 1);
}

/* Write until the daemon dies or rest is asked for. 0, or the error that says why. */
static int write_round(struct role *role, kith *k, struct test_rand *r)
{
    struct workload_shared *s = role->s;
    enum writer_kind kind = (enum writer_kind)(role->number % 3);
    kith_pipe *pipe = NULL;
    kith_batch *kb = kith_batch_new(k);
    int rc = kb ? 0 : -1;
    if (rc == 0 && kind == WRITER_PIPE)
        rc = kith_pipe_open(k, DEPTH, &pipe);
    while (rc == 0 && !atomic_load(&s->rest) && !atomic_load(&s->stop)) {
        switch (kind) {
        case WRITER_SINGLE: rc = write_single(role, k, r); break;
        case WRITER_BATCH: rc = write_batch(role, kb, r); break;
        case WRITER_PIPE: rc = write_piped(role, pipe, kb, r); break;
        }
    }
    if (rc == 0 && pipe)
        rc = take(role, pipe, 0);
    kith_pipe_close(pipe);
    kith_batch_free(kb);
    return rc;
}

static int writer_role(void *arg)
{
    struct role *role = arg;
    struct workload_shared *s = role->s;
    struct writer_shared *w = &s->writers[role->number];
    struct test_rand r;
    kith *k = NULL;
    test_rand_seed(&r, s->seed + 100 + role->number);
    while (!atomic_load(&s->stop)) {
        uint32_t round = atomic_load(&s->round);
        if (round == atomic_load(&w->round)) {
            usleep(500);
            continue;
        }
        if (!k) {
            struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
            struct kith_error error;
            opts.run_dir = s->run;
            opts.error = &error;
            int rc = kith_open(WORKLOAD_NAME, &opts, &k);
            if (rc < 0)
                return failed(w, "kith_open: %s: %s", kith_errname(rc), error.text);
        }
        atomic_store(&w->state, STATE_RUN);
        int rc = write_round(role, k, &r);
        if (rc && !is_loss(rc))
            return failed(w, "a write failed: %s: %s", kith_errname(rc), kith_strerror(rc));
        atomic_store(&w->round, round);
        atomic_store(&w->state, STATE_REST);
    }
    kith_close(k);
    return 0;
}

/* ---- readers ---- */

static bool distance_known(const struct workload_shared *s, uint32_t id, const float *query, double found)
{
    float vector[DIM_MAX];
    for (uint32_t version = atomic_load(&s->sent[id]); version > 0; version--) {
        double sum = 0;
        kept_of(s, id, version, vector);
        for (uint32_t i = 0; i < s->dim; i++)
            sum += ((double)vector[i] - (double)query[i]) * ((double)vector[i] - (double)query[i]);
        if (fabs(sum - found) <= 1e-4 * sum)
            return true;
    }
    return false;
}

static int reader_error(struct reader_shared *me, const char *what, int rc, const char *detail)
{
    snprintf(me->text, sizeof me->text, "%s: %s%s%s", what, rc ? kith_errname(rc) : "", rc ? ": " : "",
             detail);
    atomic_store(&me->failed, 1);
    return 1;
}

/* Is text the payload of some version of id that was sent? */
static bool payload_known(struct workload_shared *s, uint32_t id, const char *text)
{
    char want[PAYLOAD_MAX];
    const char *at = text ? strstr(text, "\"version\":") : NULL;
    unsigned version;
    if (!at || sscanf(at, "\"version\":%u", &version) != 1 || version == 0 ||
        version > atomic_load(&s->sent[id]))
        return false;
    payload_of(id, version, want);
    return strcmp(text, want) == 0;
}

static int read_some(struct workload_shared *s, struct reader_shared *me, kith *k, kith_results *results,
                     struct test_rand *r)
{
    float query[DIM_MAX];
    char name[24], text[200];
    test_rand_floats(r, query, s->dim);
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.payloads = test_rand_below(r, 2);
    int n = kith_search(k, query, s->dim, K, &opts, results);
    if (n < 0)
        return reader_error(me, "search", n, kith_strerror(n));
    atomic_fetch_add(&me->searches, 1);
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    if (kith_results_info(results, &info) == 0 && info.generation_changed)
        atomic_fetch_add(&me->moves, 1);
    for (uint32_t i = 0; i < (uint32_t)n; i++) {
        uint32_t id = id_number(s, kith_results_id(results, i));
        snprintf(text, sizeof text, "hit %u is \"%s\" at distance %g, epoch %" PRIu64, i,
                 kith_results_id(results, i), (double)kith_results_distance(results, i), info.epoch);
        if (id == NOBODY)
            return reader_error(me, "an id that was never written", 0, text);
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(kith_results_id(results, i), kith_results_id(results, j)) == 0)
                return reader_error(me, "an id twice", 0, text);
        if (!distance_known(s, id, query, (double)kith_results_distance(results, i)))
            return reader_error(me, "a vector that was never written", 0, text);
        if (opts.payloads && !payload_known(s, id, kith_results_payload(results, i)))
            return reader_error(me, "a payload that was never written", 0, text);
    }
    id_name(test_rand_below(r, s->id_count), name);
    int rc = kith_get(k, name, query, s->dim, NULL);
    if (rc && rc != KITH_E_NOT_FOUND)
        return reader_error(me, "get", rc, kith_strerror(rc));
    atomic_fetch_add(&me->gets, 1);
    return 0;
}

static int reader_role(void *arg)
{
    struct role *role = arg;
    struct workload_shared *s = role->s;
    struct reader_shared *me = &s->readers[role->number];
    struct test_rand r;
    test_rand_seed(&r, s->seed + 200 + role->number);
    while (atomic_load(&s->round) == 0 && !atomic_load(&s->stop))
        usleep(500);
    if (atomic_load(&s->stop))
        return 0;
    kith *k = NULL;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_error error;
    opts.run_dir = s->run;
    opts.error = &error;
    int rc = kith_open(WORKLOAD_NAME, &opts, &k);
    if (rc < 0)
        return reader_error(me, "kith_open", rc, error.text);
    kith_results *results = kith_results_new();
    rc = results ? 0 : 1;
    while (rc == 0 && !atomic_load(&s->stop)) {
        rc = read_some(s, me, k, results, &r);
        usleep(500); /* leaves the processors to the writers, of whom this workload is about */
    }
    kith_results_free(results);
    kith_close(k);
    return rc;
}

/* ---- the parent ---- */

void workload_init(struct workload *w, struct test_daemon *daemon, uint64_t seed, uint32_t id_count,
                   uint32_t dim)
{
    memset(w, 0, sizeof *w);
    if (dim > DIM_MAX)
        test_die("at most %u dimensions", DIM_MAX);
    w->daemon = daemon;
    w->id_count = id_count - id_count % WORKLOAD_WRITERS;
    w->dim = dim;
    w->actual = calloc(w->id_count, sizeof *w->actual);
    if (!w->actual)
        test_die("out of memory");
    struct workload_shared *s = w->shared = test_shared(sizeof *s);
    s->seed = seed;
    s->id_count = w->id_count;
    s->dim = dim;
    s->acked = test_shared(w->id_count * sizeof *s->acked);
    s->sent = test_shared(w->id_count * sizeof *s->sent);
    snprintf(s->run, sizeof s->run, "%.240s/run", daemon->run.path);
    for (unsigned i = 0; i < WORKLOAD_WRITERS; i++) {
        struct role role = { .s = s, .number = i };
        test_child_start(&w->writers[i], "writer", writer_role, &role);
    }
    for (unsigned i = 0; i < WORKLOAD_READERS; i++) {
        struct role role = { .s = s, .number = i };
        test_child_start(&w->readers[i], "reader", reader_role, &role);
    }
}

void workload_load(struct workload *w)
{
    struct workload_shared *s = w->shared;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_error error;
    kith *k = NULL;
    create.dim = w->dim;
    create.metric = KITH_METRIC_L2;
    create.m = 12;
    create.ef_construction = 60;
    create.max_vectors = 8 * w->id_count;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.run_dir = opts.run_dir = s->run;
    create.error = opts.error = &error;
    if (kith_create(WORKLOAD_NAME, &create) < 0 || kith_open(WORKLOAD_NAME, &opts, &k) < 0)
        test_die("cannot make the collection: %s", error.text);
    kith_batch *kb = kith_batch_new(k);
    float vector[DIM_MAX];
    char name[24];
    for (uint32_t id = 0; id < w->id_count;) {
        struct kith_commit commit = { .struct_size = sizeof commit };
        kith_batch_clear(kb);
        for (uint32_t i = 0; i < LOAD_STEP && id < w->id_count; i++, id++) {
            id_name(id, name);
            vector_of(s, id, 1, vector);
            if (put(kb, name, id, 1, vector, w->dim) < 0)
                test_die("a batch does not take %s", name);
            s->acked[id] = 1;
            atomic_store(&s->sent[id], 1);
        }
        if (kith_batch_commit(kb, &commit) < 0)
            test_die("cannot load: %s", commit.error.text);
    }
    kith_batch_free(kb);
    kith_close(k);
}

static void stop_for(struct workload *w, pid_t pid, uint32_t ms)
{
    if (pid <= 0 || kill(pid, SIGSTOP))
        return;
    w->stops++;
    usleep(1000 * ms);
    kill(pid, SIGCONT);
}

static void replace_reader(struct workload *w, unsigned i)
{
    struct role role = { .s = w->shared, .number = i };
    kill(w->readers[i].pid, SIGKILL);
    if (waitpid(w->readers[i].pid, NULL, 0) != w->readers[i].pid)
        test_die("reader %u is not a child", i);
    w->reader_kills++;
    test_child_start(&w->readers[i], "reader", reader_role, &role);
}

void workload_disturb(struct workload *w, struct test_rand *r, uint32_t ms)
{
    uint64_t end = test_now_ms() + ms;
    for (uint64_t now; (now = test_now_ms()) < end;) {
        unsigned reader = test_rand_below(r, WORKLOAD_READERS);
        uint32_t left = (uint32_t)(end - now), part = 1 + test_rand_below(r, left < 150 ? left : 150);
        switch (test_rand_below(r, 6)) {
        case 0: stop_for(w, w->daemon->pid, part); break;
        case 1:
        case 2: stop_for(w, w->readers[reader].pid, part); break;
        case 3: replace_reader(w, reader); break;
        default: usleep(1000 * part); break;
        }
    }
}

void workload_go(struct workload *w)
{
    atomic_store(&w->shared->rest, 0);
    atomic_fetch_add(&w->shared->round, 1);
}

void workload_rest(struct workload *w)
{
    atomic_store(&w->shared->rest, 1);
}

bool workload_halted(struct workload *w, uint64_t timeout_ms)
{
    struct workload_shared *s = w->shared;
    uint64_t end = test_now_ms() + timeout_ms;
    for (unsigned i = 0; i < WORKLOAD_WRITERS; i++) {
        struct writer_shared *me = &s->writers[i];
        while (atomic_load(&me->round) != atomic_load(&s->round)) {
            if (atomic_load(&me->state) == STATE_FAILED || !test_child_running(&w->writers[i])) {
                fprintf(stderr, "writer %u: %s\n", i, me->text[0] ? me->text : "is gone");
                return false;
            }
            if (test_now_ms() > end) {
                fprintf(stderr, "writer %u does not notice that the daemon is gone\n", i);
                return false;
            }
            test_nap();
        }
    }
    return true;
}

/* Which version is this? The acknowledged one and those in flight are the likely ones. */
static uint32_t version_of(const struct workload_shared *s, uint32_t id, const float *vector)
{
    float expected[DIM_MAX];
    if (s->acked[id]) {
        kept_of(s, id, s->acked[id], expected);
        if (memcmp(vector, expected, s->dim * sizeof *vector) == 0)
            return s->acked[id];
    }
    for (uint32_t version = atomic_load(&s->sent[id]); version > 0; version--) {
        kept_of(s, id, version, expected);
        if (memcmp(vector, expected, s->dim * sizeof *vector) == 0)
            return version;
    }
    return NOBODY;
}

static bool payload_is(const struct kithi_view *v, const struct kithi_item *item, uint32_t version)
{
    static unsigned char bytes[KITHI_PAYLOAD_BYTES];
    struct kithi_payload p = { .bytes = bytes };
    struct kithi_value value;
    return kithi_view_payload(v, item->slot, item->birth, bytes, &p.len) == KITHI_PAYLOAD_FOUND &&
           kithi_payload_check(p.bytes, p.len, NULL) == 0 && kithi_payload_find(&p, "version", 7, &value) &&
           value.integer == (int64_t)version && !kithi_payload_find(&p, "gone", 4, &value);
}

/* Read the whole segment into w->actual. */
static bool scan_all(struct workload *w, uint64_t *out_epoch, uint32_t *out_live)
{
    struct kithi_map map;
    struct kithi_errmsg err;
    struct kithi_scan scan;
    struct kithi_item item;
    float vector[DIM_MAX];
    bool ok = true;
    int rc;
    if (kithi_map_attach_path(test_daemon_segment(w->daemon, WORKLOAD_NAME), false, &map, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    uint64_t end = test_now_ms() + END_MS;
    do { /* a sweep may free what a scan wants to see, only while the epoch moves: it does not */
        memset(w->actual, 0, w->id_count * sizeof *w->actual);
        *out_live = 0;
        kithi_scan_begin(&map, &scan);
        while ((rc = kithi_scan_next(&scan, &item, vector)) == 1) {
            uint32_t id = id_number(w->shared, item.id);
            (*out_live)++;
            if (id == NOBODY || w->actual[id]) {
                fprintf(stderr, "id \"%s\" is %s\n", item.id, id == NOBODY ? "unknown" : "there twice");
                ok = false;
                continue;
            }
            w->actual[id] = version_of(w->shared, id, vector);
            if (!payload_is(&scan.view, &item, w->actual[id])) {
                fprintf(stderr, "id \"%s\" has not the payload of its version %u\n", item.id, w->actual[id]);
                ok = false;
            }
        }
    } while (rc == KITHI_E_STALE && ok && test_now_ms() < end);
    *out_epoch = scan.view.epoch;
    if (rc < 0) {
        fprintf(stderr, "scan: %s\n", kithi_error_text(rc));
        ok = false;
    }
    ok &= test_verify_clean(&map);
    kithi_map_detach(&map);
    return ok;
}

/* Does the segment hold, of this writer's open batches, exactly the first n? Leaves that state in acked[] if so. */
static bool open_batches_are(struct workload *w, struct writer_shared *me, uint64_t n)
{
    uint32_t *acked = w->shared->acked;
    uint64_t first = atomic_load(&me->first), last = atomic_load(&me->last);
    /* What the open batches touch must be as after n of them. */
    struct item undo[RING * BATCH_MAX];
    uint32_t undo_count = 0;
    for (uint64_t i = first; i < first + n; i++) {
        const struct batch *b = &me->ring[i % RING];
        for (uint32_t j = 0; j < b->n; j++) {
            undo[undo_count++] = (struct item){ b->items[j].id, acked[b->items[j].id] };
            acked[b->items[j].id] = b->items[j].version;
        }
    }
    bool same = true;
    for (uint64_t i = first; i < last && same; i++) {
        const struct batch *b = &me->ring[i % RING];
        for (uint32_t j = 0; j < b->n && same; j++)
            same = w->actual[b->items[j].id] == acked[b->items[j].id];
    }
    while (!same && undo_count) {
        undo_count--;
        acked[undo[undo_count].id] = undo[undo_count].version;
    }
    return same;
}

static bool settle_writer(struct workload *w, unsigned number, struct workload_tally *out)
{
    struct writer_shared *me = &w->shared->writers[number];
    uint64_t first = atomic_load(&me->first), last = atomic_load(&me->last), least = 0;
    for (uint64_t i = first; i < last; i++)
        if (atomic_load(&me->ring[i % RING].acked))
            least = i - first + 1;
    for (uint64_t n = least; n <= last - first; n++) {
        if (!open_batches_are(w, me, n))
            continue;
        out->pending += (uint32_t)(last - first);
        out->applied += (uint32_t)n;
        atomic_store(&me->first, last);
        return true;
    }
    fprintf(stderr,
            "writer %u: what is there of its %" PRIu64
            " open batches is not some first ones of them, each whole\n",
            number, last - first);
    for (uint64_t i = first; i < last; i++) {
        const struct batch *b = &me->ring[i % RING];
        uint32_t there = 0;
        for (uint32_t j = 0; j < b->n; j++)
            there += w->actual[b->items[j].id] == b->items[j].version;
        fprintf(stderr, "  batch %" PRIu64 "%s: %u of %u items are there\n", i,
                atomic_load(&b->acked) ? " (acknowledged)" : "", there, b->n);
    }
    return false;
}

bool workload_check(struct workload *w, struct workload_tally *out)
{
    struct workload_shared *s = w->shared;
    uint64_t epoch;
    memset(out, 0, sizeof *out);
    bool ok = scan_all(w, &epoch, &out->live);
    for (unsigned i = 0; i < WORKLOAD_WRITERS; i++) {
        struct writer_shared *me = &s->writers[i];
        ok &= settle_writer(w, i, out);
        out->acked_batches += atomic_load(&me->acked_batches);
        out->acked_items += atomic_load(&me->acked_items);
        if (atomic_load(&me->acked_epoch) > epoch) {
            fprintf(stderr, "epoch %" PRIu64 " was acknowledged, the segment is at %" PRIu64 "\n",
                    atomic_load(&me->acked_epoch), epoch);
            ok = false;
        }
    }
    uint32_t wrong = 0;
    for (uint32_t id = 0; id < w->id_count; id++)
        if (w->actual[id] != s->acked[id] && wrong++ < 10)
            fprintf(stderr, "id v%u: version %d is there, %d was acknowledged last\n", id, (int)w->actual[id],
                    (int)s->acked[id]);
    if (wrong)
        fprintf(stderr, "%u ids are not as acknowledged\n", wrong);
    for (unsigned i = 0; i < WORKLOAD_READERS; i++) {
        struct reader_shared *me = &s->readers[i];
        out->searches += atomic_load(&me->searches);
        out->gets += atomic_load(&me->gets);
        out->moves += atomic_load(&me->moves);
        if (atomic_load(&me->failed) || !test_child_running(&w->readers[i])) {
            fprintf(stderr, "reader %u: %s\n", i, me->text[0] ? me->text : "is gone");
            ok = false;
        }
    }
    return ok && wrong == 0;
}

bool workload_finish(struct workload *w, struct workload_tally *out)
{
    struct workload_shared *s = w->shared;
    bool ok = true;
    atomic_store(&s->stop, 1);
    for (unsigned i = 0; i < WORKLOAD_WRITERS; i++)
        if (test_child_wait(&w->writers[i], END_MS) != 0) {
            fprintf(stderr, "writer %u: %s\n", i, s->writers[i].text);
            ok = false;
        }
    for (unsigned i = 0; i < WORKLOAD_READERS; i++)
        if (test_child_wait(&w->readers[i], END_MS) != 0) {
            fprintf(stderr, "reader %u: %s\n", i, s->readers[i].text);
            ok = false;
        }
    if (out) {
        out->stops = w->stops;
        out->reader_kills = w->reader_kills;
        out->searches = out->gets = out->moves = 0;
        for (unsigned i = 0; i < WORKLOAD_READERS; i++) {
            out->searches += atomic_load(&s->readers[i].searches);
            out->gets += atomic_load(&s->readers[i].gets);
            out->moves += atomic_load(&s->readers[i].moves);
        }
    }
    free(w->actual);
    return ok;
}
