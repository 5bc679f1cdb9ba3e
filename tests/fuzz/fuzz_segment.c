/*
 * fuzz_segment.c - hostile bytes in a segment, also bytes that change under the reader: attach, search, look up, all of it at a
 * moment in the past, scan, scroll and verify may give bad answers, and never crash, hang or read beyond what is theirs.
 *
 * A small valid segment of each quantization is made once, with living, dead, unlinked and free slots, long ids and upper
 * levels. An input is a list of words to overwrite in one of them. The reader's mapping lies between pages that cannot be read,
 * and so does each region in it: beyond its size, or, unless the input lies about `taken`, beyond the memory that
 * is taken. Some inputs are written over and over again while the reader reads: by a second thread, which is another CPU's if one is
 * free, or by a signal that interrupts the reader, which changes bytes under it on a single one as well.
 *
 *   byte 0        flags: 1 words change while the reader reads, 2 `taken` may change, 4 the other metric, 8 and 16 the quantization,
 *                 all of 32, 64, 128: bytes 1 and 2 are other codes, and the sum of the layout is made to fit
 *   bytes 1, 2    k, ef; with flag 1, 192 of the second: a second thread changes them, else a signal to this one
 *   then 8 bytes for each word: where, how, index (2), value (4)
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "shm/base/bytes.h"
#include "shm/graph/account.h"
#include "shm/graph/facet.h"
#include "shm/graph/lookup.h"
#include "shm/graph/payload.h"
#include "shm/graph/recall.h"
#include "shm/graph/scan.h"
#include "shm/graph/scroll.h"
#include "shm/graph/search.h"
#include "shm/graph/verify.h"
#include "shm/layout/notes.h"
#include "tests/support/index.h"
#include "tests/support/model.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define DIM         6u
#define ID_COUNT    40u /* an input takes as long as there is something to walk through */
#define OPS         10u
#define STORM_NS    100000
#define STORM_TURNS 2000u
#define PATCH_MAX   256u
#define PAGE        4096u
#define PAGE_IDS    8u /* of a scroll */
#define PAGES_MAX   100000u
#define HOP_WALKS   32u /* widths that hops alone double through, at most */
/* Of the header's region, behind the header: what readers look at there. */
#define BEHIND_WORDS ((KITHI_LEDGER_OFF + sizeof(struct kithi_ledger) - sizeof(struct kithi_header)) / 8)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FLAG_STORM = 1, FLAG_TAKEN = 2, FLAG_SUM = 224, TARGET_SHIFT = 2, TARGETS = 8 };

struct patch {
    uint64_t off; /* multiple of 8 */
    uint64_t old, new;
};

struct target {
    int fd;
    struct kithi_map rw;     /* where the words are written */
    struct kithi_map strict; /* readable up to what is taken */
    struct kithi_map loose;  /* readable up to the size of each region */
    uint64_t taken[KITHI_REGION_COUNT];
    uint32_t slots;
};

/* The bytes of {"n":1} (shm/payload/payload.h), which longer ones may begin with. */
static const unsigned char n_is_1[] = { 1, 0, 1, 0, 12, 0, 1, 3, 1, 0, 0, 0, 'n' };

static struct target targets[TARGETS];
static struct patch patches[PATCH_MAX];
static uint32_t patch_count;
static struct kithi_scratch scratch;
static struct kithi_results results;

/* Whether words change, and how the thread that changes them is woken, says that it is awake, and that it is at rest. */
static _Atomic bool storm;
static sem_t storm_call, storm_here;
static struct target *storm_target;
static timer_t storm_timer;

static _Atomic uint64_t *word_at(const struct kithi_map *m, uint64_t off)
{
    return (_Atomic uint64_t *)(void *)(m->base + off);
}

static void blow(bool new)
{
    for (uint32_t i = 0; i < patch_count; i++)
        atomic_store_explicit(word_at(&storm_target->rw, patches[i].off),
                              new ? patches[i].new : patches[i].old, memory_order_relaxed);
}

static void wait_for(sem_t *sem)
{
    while (sem_wait(sem) != 0)
        ; /* interrupted */
}

static void *storm_main(void *arg)
{
    (void)arg;
    for (;;) {
        wait_for(&storm_call);
        sem_post(&storm_here);
        /* Not for as long as the reader waits for a CPU. */
        for (unsigned i = 0; i < STORM_TURNS && atomic_load_explicit(&storm, memory_order_acquire); i++)
            blow(i % 2);
        sem_post(&storm_here);
    }
    return NULL;
}

/* Between any two instructions of the reader. */
static void storm_signal(int signal)
{
    static bool new;
    (void)signal;
    new = !new;
    if (atomic_load_explicit(&storm, memory_order_relaxed))
        blow(new);
}

static void set_timer(long ns)
{
    const struct itimerspec t = { .it_interval.tv_nsec = ns, .it_value.tv_nsec = ns };
    if (timer_settime(storm_timer, 0, &t, NULL) < 0)
        test_die("timer_settime: %s", strerror(errno));
}

static void storm_begin(struct target *t, bool thread)
{
    storm_target = t;
    atomic_store_explicit(&storm, true, memory_order_release);
    if (thread) {
        sem_post(&storm_call);
        wait_for(&storm_here);
    } else {
        set_timer(STORM_NS);
    }
}

/* It is at rest when this returns: a signal that was pending has come before the call does. */
static void storm_end(bool thread)
{
    if (!thread)
        set_timer(0);
    atomic_store_explicit(&storm, false, memory_order_release);
    if (thread)
        wait_for(&storm_here);
}

static void storm_prepare(void)
{
    struct sigaction act = { .sa_handler = storm_signal, .sa_flags = SA_RESTART };
    struct sigevent to_reader = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };
    pthread_t thread;
    to_reader._sigev_un._tid = gettid();
    if (sigaction(SIGRTMIN, &act, NULL) < 0 || timer_create(CLOCK_MONOTONIC, &to_reader, &storm_timer) < 0 ||
        sem_init(&storm_call, 0, 0) < 0 || sem_init(&storm_here, 0, 0) < 0 ||
        pthread_create(&thread, NULL, storm_main, NULL) != 0)
        test_die("cannot start a timer and a thread");
    pthread_detach(thread);
}

/* A mapping of the same file between guards, with nothing readable beyond limit[] of each region. */
static struct kithi_map guarded(int fd, const struct kithi_map *like, const uint64_t *limit)
{
    struct kithi_map m = *like;
    size_t room = m.len + 2 * KITHI_REGION_ALIGN;
    unsigned char *area = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        test_die("mmap: %s", strerror(errno));
    m.base = area + KITHI_REGION_ALIGN;
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
        uint64_t len = kithi_round_up(limit[i], PAGE);
        if (len && mmap(m.base + m.layout.off[i], len, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
                        (off_t)m.layout.off[i]) == MAP_FAILED)
            test_die("mmap: %s", strerror(errno));
    }
    return m;
}

static void fill(struct test_index *t, struct test_model *model, struct test_rand *r)
{
    struct kithi_errmsg err;
    for (uint32_t step = 0; step < 40; step++) {
        float vectors[OPS][DIM];
        char names[OPS][TEST_ID_SIZE];
        struct kithi_op ops[OPS];
        for (uint32_t i = 0; i < OPS; i++) {
            uint32_t id = test_rand_below(r, ID_COUNT);
            bool gone = test_rand_below(r, 4) == 0;
            test_model_vector(model, id, step + 1, vectors[i]);
            ops[i] = (struct kithi_op){ .type = gone ? KITHI_OP_DELETE : KITHI_OP_UPSERT,
                                        .id_len = (uint16_t)test_model_id_format(id, names[i]),
                                        .dim = gone ? 0 : DIM,
                                        .id = names[i],
                                        .vector = gone ? NULL : vectors[i] };
            /* Two in three come with a payload, and some of these change it alone. */
            static unsigned char payload[2000];
            if (gone || id % 3 == 0)
                continue;
            memset(payload, (int)step, sizeof payload);
            memcpy(payload, n_is_1, sizeof n_is_1);
            payload[8] = (unsigned char)step; /* the number */
            ops[i].payload = payload;
            ops[i].payload_len = 1 + (id * 37 + step * 11) % sizeof payload;
            if (step % 3 == 2) {
                ops[i].type = KITHI_OP_SET;
                ops[i].dim = 0;
                ops[i].vector = NULL;
            } else {
                ops[i].flags = KITHI_OP_PAYLOAD;
            }
        }
        if (test_index_commit(t, ops, OPS, &err) < 0)
            test_die("%s", err.text);
        /* Rest long enough for some to be free again; the last few stay dead or resting. */
        if (step == 20 && !test_index_settle(t, 10000))
            test_die("the dead do not go");
    }
}

static void make_target(struct target *t, unsigned number)
{
    static const uint32_t keeps[TARGETS] = {
        KITHI_KEEP_F32, KITHI_KEEP_F32,  KITHI_KEEP_F32, KITHI_KEEP_F16,
        KITHI_KEEP_F16, KITHI_KEEP_NONE, KITHI_KEEP_F32, KITHI_KEEP_NONE
    };
    uint32_t metric = number % 2 ? KITHI_METRIC_COSINE : KITHI_METRIC_L2;
    struct test_dir dir;
    struct test_index index;
    struct test_rand r;
    struct kithi_errmsg err;
    struct kithi_geometry g = {
        .dim = DIM, .metric = metric, .m = 3, .ef_construction = 20, .slot_max = 2000
    };
    kithi_geometry_want(&g, number / 2, keeps[number]);
    test_rand_seed(&r, 42 + metric);
    test_dir_make_shm(&dir);
    const char *path = test_path(&dir, "segment");
    test_index_create(&index, path, &g, 1, 1, 1);
    fill(&index, test_model_new(7, ID_COUNT, DIM, false), &r);
    if (!test_verify_clean(test_index_map(&index)))
        test_die("the segment is not clean before it is damaged");
    test_index_close(&index);

    if (kithi_map_attach_path(path, true, &t->rw, &err) < 0)
        test_die("%s", err.text);
    FILE *f = fopen(path, "re");
    t->fd = f ? dup(fileno(f)) : -1;
    if (t->fd < 0)
        test_die("%s: %s", path, strerror(errno));
    fclose(f);
    const struct kithi_header *h = kithi_map_header(&t->rw);
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++)
        t->taken[i] = h->taken[i];
    t->slots = (uint32_t)h->slots_used;
    t->strict = guarded(t->fd, &t->rw, t->taken);
    t->loose = guarded(t->fd, &t->rw, t->rw.layout.size);
    test_dir_remove(&dir);
}

static void prepare(void)
{
    static bool ready;
    if (ready)
        return;
    ready = true;
    for (unsigned i = 0; i < TARGETS; i++)
        make_target(&targets[i], i);
    kithi_scratch_init(&scratch);
    kithi_results_init(&results);
    storm_prepare();
}

/* Numbers that stand at some edge. */
static uint64_t special(const struct target *t, unsigned how)
{
    const uint64_t edges[] = {
        0,
        1,
        t->slots - 1,
        t->slots,
        t->slots + 1,
        t->rw.geometry.slot_max,
        t->rw.geometry.slot_max + 1u,
        UINT32_MAX,
        UINT32_MAX - 1u,
        UINT64_C(1) << 31,
        UINT64_C(1) << 32,
        UINT64_C(1) << 63,
        UINT64_MAX,
        UINT64_C(0x7fc000007fc00000), /* NaN twice */
        UINT64_C(0x7f8000007f800000), /* infinity twice */
        UINT64_C(0xff800000ff800000),
        UINT64_C(0x7f7fffffff7fffff), /* the largest floats */
        UINT64_C(0x7c007c00fc007e00), /* half floats: infinities and a NaN */
        UINT64_C(0x00000001ffffffff),
        UINT64_C(0x0000000f00000001),
        UINT64_C(0x0100000000000001),
        UINT64_C(0x03ffffffffffffff),
        UINT64_C(0x001f000000000001),
    };
    return edges[how % (sizeof edges / sizeof edges[0])];
}

/* The word at off is to become this. */
static void put_word(struct target *t, uint64_t off, uint64_t new)
{
    uint64_t old = atomic_load_explicit(word_at(&t->rw, off), memory_order_relaxed);
    for (uint32_t i = 0; i < patch_count; i++)
        if (patches[i].off == off) {
            patches[i].new = new;
            return;
        }
    if (patch_count < PATCH_MAX)
        patches[patch_count++] = (struct patch){ .off = off, .old = old, .new = new };
}

static void add_patch(struct target *t, uint8_t flags, const uint8_t *p)
{
    static const unsigned regions[] = { KITHI_REGION_HEADER,  KITHI_REGION_HEADER, KITHI_REGION_RECORDS,
                                        KITHI_REGION_RECORDS, KITHI_REGION_ROWS,   KITHI_REGION_ROWS,
                                        KITHI_REGION_VECTORS, KITHI_REGION_DOUBT,  KITHI_REGION_UPPER,
                                        KITHI_REGION_IDS0,    KITHI_REGION_IDS1,   KITHI_REGION_BLOB0,
                                        KITHI_REGION_BLOB1,   KITHI_REGION_BLOB2,  KITHI_REGION_BLOB3,
                                        KITHI_REGION_BLOB4,   KITHI_REGION_BLOB5,  KITHI_REGION_CODES };
    unsigned region = regions[p[0] % (sizeof regions / sizeof regions[0])], how = p[1];
    uint64_t index = kithi_get16(p + 2), value = kithi_get32(p + 4), span = t->taken[region] / 8;
    if (region == KITHI_REGION_HEADER)
        span = 1024 / 8;
    else if (region == KITHI_REGION_RECORDS)
        span = (uint64_t)t->slots * sizeof(struct kithi_record) / 8;
    else if (region == KITHI_REGION_ROWS)
        span = (uint64_t)t->slots * t->rw.layout.row_stride / 8;
    if (span == 0 || patch_count == PATCH_MAX)
        return;
    uint64_t off = t->rw.layout.off[region] + index % span * 8;
    if (region == KITHI_REGION_HEADER && index >> 15) /* the writer's notes, which verify looks at */
        off = KITHI_NOTES_OFF + index % 64 * 8;
    else if (region == KITHI_REGION_HEADER && index >> 14) /* curves and ledger */
        off = sizeof(struct kithi_header) + index % BEHIND_WORDS * 8;
    if (region == KITHI_REGION_HEADER && !(flags & FLAG_TAKEN) &&
        off >= offsetof(struct kithi_header, taken) && off < offsetof(struct kithi_header, tally_dead))
        return;
    uint64_t old = atomic_load_explicit(word_at(&t->rw, off), memory_order_relaxed), new;
    switch (how & 7) {
    case 0: new = special(t, (unsigned)value); break;
    case 1: new = (old & UINT64_C(0xffffffff00000000)) | (uint32_t)special(t, (unsigned)value); break;
    case 2: new = (old & UINT64_C(0xffffffff)) | special(t, (unsigned)value) << 32; break;
    case 3: new = old ^ UINT64_C(1) << (value % 64); break;
    case 4: new = (old & UINT64_C(0xffffffff00000000)) | value % (t->slots + 2); break;
    case 5: new = (old & UINT64_C(0xffffffff)) | (value % (t->slots + 2)) << 32; break;
    case 6: new = value | value << 32; break;
    default: new = old + (uint64_t)(int64_t)(int32_t)value; break;
    }
    put_word(t, off, new);
}

/* A header that lies about the geometry is refused for its sum, unless it lies about that as well. */
static void lie_about_codes(struct target *t, uint32_t quantization, uint32_t keep, uint32_t code_bits)
{
    struct kithi_header h;
    uint64_t slot_max = t->rw.geometry.slot_max;
    put_word(t, offsetof(struct kithi_header, quantization), slot_max << 32 | quantization);
    put_word(t, offsetof(struct kithi_header, keep), (uint64_t)code_bits << 32 | keep);
    struct kithi_layout l;
    struct kithi_errmsg err;
    memcpy(&h, t->rw.base, sizeof h);
    for (uint32_t i = 0; i < patch_count; i++)
        if (patches[i].off < sizeof h)
            memcpy((char *)&h + patches[i].off, &patches[i].new, sizeof patches[i].new);
    struct kithi_geometry g = { .dim = h.dim,
                                .metric = h.metric,
                                .m = h.m,
                                .ef_construction = h.ef_construction,
                                .quantization = h.quantization,
                                .keep = h.keep,
                                .code_bits = h.code_bits,
                                .slot_max = h.slot_max };
    if (kithi_geometry_check(&g, &err) < 0)
        return;
    kithi_geometry_layout(&g, &l);
    put_word(t, offsetof(struct kithi_header, layout_sum), l.sum);
}

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "a promise is broken: %s\n", what);
        abort();
    }
}

/* Pages are bounded, each goes on behind the one before, and there is a last one. */
static void scroll_all(const struct kithi_map *m, uint32_t limit, const struct kithi_moment *at)
{
    static struct kithi_scroll_scratch pages;
    static float vectors[PAGE_IDS * KITHI_DIM_MAX];
    struct kithi_scroll_params p = { .at = *at, .limit = limit, .vectors = limit % 2 ? vectors : NULL };
    for (uint32_t n = 0;; n++) {
        int rc = kithi_scroll(m, &p, &pages, &results);
        check(rc <= (int)limit, "at most as many ids as a page may have");
        check(n < PAGES_MAX, "a scroll ends");
        struct kithi_place last = p.from;
        for (int i = 0; i < rc; i++) {
            const struct kithi_hit *hit = &results.hits[i];
            check(hit->id_len >= 1 && hit->id_len <= KITHI_ID_MAX, "ids have 1 to 511 bytes");
            struct kithi_place place =
                kithi_scroll_place(m->hash_key, results.ids + hit->id_off, hit->id_len);
            check(place.hash > last.hash || (place.hash == last.hash && place.tie >= last.tie), "in order");
            last = place;
        }
        if (rc < 0 || !pages.more)
            break;
        check(pages.next.hash > last.hash || (pages.next.hash == last.hash && pages.next.tie > last.tie) ||
                  rc == 0,
              "a page begins behind the one before");
        check(pages.next.hash > p.from.hash ||
                  (pages.next.hash == p.from.hash && pages.next.tie > p.from.tie),
              "a page comes farther");
        p.from = pages.next;
    }
}

/* Whatever the words say, a payload ends, and is no longer than one may be. */
static void read_payload(const struct kithi_map *m, const struct kithi_found *found)
{
    static unsigned char payload[KITHI_PAYLOAD_BYTES];
    struct kithi_view v;
    uint32_t len = 0;
    kithi_view_begin(m, &v);
    v.epoch = found->epoch;
    if (kithi_view_payload(&v, found->slot, found->birth, payload, &len) == KITHI_PAYLOAD_FOUND)
        check(len >= 1 && len <= KITHI_PAYLOAD_BYTES, "payloads have 1 to 65536 bytes");
}

/* Values of a field: as many vectors as there are slots at most, and no value more often than there are vectors. */
static void read_facet(const struct kithi_map *m, const struct kithi_moment *at, struct kithi_condition *c)
{
    static unsigned char payload[KITHI_PAYLOAD_MAX];
    struct kithi_facet f;
    kithi_facet_init(&f, 50);
    if (kithi_facet_count(m, at, "n", 1, payload, c, 0, &f) == 0) {
        check(f.vectors <= m->geometry.slot_max && f.with <= f.vectors && f.count <= 50,
              "a facet has bounds");
        for (uint32_t i = 0; i < f.count; i++)
            check(f.entries[i].count >= 1 && f.entries[i].count <= f.with,
                  "a value is counted once a vector");
    }
    kithi_facet_fini(&f);
}

/* Under a filter: whatever the words say, at most k hits, counts and pages that end; by the plan that is chosen, and by hops. */
static void read_filtered(const struct kithi_map *m, const struct kithi_search_params *params,
                          const float *query)
{
    static unsigned char payload[KITHI_PAYLOAD_MAX];
    static const char text[] = "n < 3 or n in (4, 6.5) or not exists(n)";
    struct kithi_filter *f;
    struct kithi_search_params p = *params;
    uint64_t count = 0;
    check(kithi_filter_parse(text, sizeof text - 1, &f, NULL) == 0, "the filter is one");
    struct kithi_condition c = { .filter = f, .payload = payload };
    p.condition = &c;
    int n = kithi_search(m, &scratch, query, &p, &results);
    check(n <= (int)p.k && (n < 0 || c.plan != KITHI_PLAN_NONE), "at most k hits, by some plan");
    c.only = KITHI_PLAN_HOPS;
    n = kithi_search(m, &scratch, query, &p, &results);
    check(n <= (int)p.k &&
              c.evaluated <= (uint64_t)(KITHI_RESTART_MAX + 1) * HOP_WALKS * m->geometry.slot_max,
          "hops ask each slot once");
    c.only = KITHI_PLAN_NONE;
    read_facet(m, &p.at, &c);
    if (kithi_match_count(m, &p.at, &c, 0, &count) == 0)
        check(count <= m->geometry.slot_max, "as many match as there are slots at most");
    kithi_candidates_fini(&c.candidates);
    kithi_filter_free(f);
}

static void read_all(const struct kithi_map *m, uint32_t k, uint32_t ef)
{
    float query[KITHI_DIM_MAX], vector[KITHI_DIM_MAX];
    uint32_t dim = m->geometry.dim;
    const struct kithi_header *h = kithi_map_header(m);
    const struct kithi_moment now = { 0 };
    const struct kithi_moment past = { .epoch =
                                           atomic_load_explicit(&h->epoch, memory_order_relaxed) - ef % 8,
                                       .timeline = atomic_load_explicit(&h->timeline, memory_order_relaxed) };
    for (uint32_t i = 0; i < dim; i++)
        query[i] = 0.25f + (float)(i % 3);
    for (unsigned kind = 0; kind < 4; kind++) {
        struct kithi_search_params p = { .k = k, .ef = ef, .exact = kind & 1, .at = kind & 2 ? past : now };
        int n = kithi_search(m, &scratch, query, &p, &results);
        check(n <= (int)k, "at most k hits");
        for (int i = 0; i < n; i++) {
            const struct kithi_hit *hit = &results.hits[i];
            check(hit->id_len >= 1 && hit->id_len <= KITHI_ID_MAX, "ids have 1 to 511 bytes");
            check(hit->id_off + hit->id_len < results.ids_capacity, "ids lie in the results");
            check(!isnan(hit->distance), "a distance is a number");
            check(i == 0 || hit[-1].distance <= hit->distance, "nearest first");
        }
        read_filtered(m, &p, query);
    }
    for (uint32_t id = 0; id < ID_COUNT + 2; id += 5) {
        char name[TEST_ID_SIZE];
        struct kithi_found found;
        size_t len = test_model_id_format(id, name);
        if (kithi_lookup(m, name, len, vector, &found) == 0)
            read_payload(m, &found);
        if (kithi_lookup_at(m, &past, name, len, vector, &found) == 0)
            read_payload(m, &found);
    }
    scroll_all(m, 1 + k % PAGE_IDS, k % 3 ? &now : &past);
    uint64_t counted = 0;
    if (kithi_scan_count(m, &past, &counted) == 0)
        check(counted <= m->geometry.slot_max, "as many as there are slots at most");
    struct kithi_scan scan;
    struct kithi_item item;
    uint32_t count = 0;
    kithi_scan_begin(m, &scan);
    while (kithi_scan_next(&scan, &item, vector) == 1)
        count++;
    check(count <= m->geometry.slot_max, "a scan ends");
    struct kithi_verify_report report;
    (void)kithi_verify_within(m, 0, NULL, NULL, &report);
    struct kithi_account a;
    kithi_account_read(m, 4096, &a);
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
        const struct kithi_share *s = &a.regions[i];
        check(s->live + s->dead + s->resting + s->pending + s->free + s->slack == s->taken,
              "a region's bytes are accounted for");
    }
    for (unsigned target = 1; target < 100; target += 7) {
        enum kithi_recall_basis basis;
        uint32_t wide = kithi_recall_ef(m, k, target / 100.0, &basis);
        check(wide >= k && wide <= KITHI_EF_MAX, "an ef that is chosen may be used");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    if (size < 3)
        return 0;
    uint8_t flags = data[0];
    struct target *t = &targets[(flags >> TARGET_SHIFT) % TARGETS];
    uint32_t k = 1 + data[1] % 40, ef = k + data[2];
    patch_count = 0;
    for (size_t at = 3; at + 8 <= size; at += 8)
        add_patch(t, flags, data + at);
    if ((flags & FLAG_SUM) == FLAG_SUM)
        lie_about_codes(t, data[1] % 5, data[2] % 4, data[2] / 4 % 4);
    for (uint32_t i = 0; i < patch_count; i++)
        atomic_store_explicit(word_at(&t->rw, patches[i].off), patches[i].new, memory_order_relaxed);
    bool thread = (data[2] & 192) == 192;
    if (flags & FLAG_STORM)
        storm_begin(t, thread);

    /* What attach lets through is read through the guarded mapping, if it has the same shape. */
    struct kithi_map m;
    struct kithi_errmsg err;
    if (kithi_map_attach(t->fd, false, &m, &err) == 0) {
        struct kithi_map attached = m;
        if (m.layout.sum == t->rw.layout.sum)
            m.base = flags & FLAG_TAKEN ? t->loose.base : t->strict.base;
        read_all(&m, k, ef);
        kithi_map_detach(&attached);
    } else {
        check(memchr(err.text, '\0', sizeof err.text) && err.text[0], "an error says what is wrong");
    }
    if (flags & FLAG_STORM)
        storm_end(thread);
    for (uint32_t i = 0; i < patch_count; i++)
        atomic_store_explicit(word_at(&t->rw, patches[i].off), patches[i].old, memory_order_relaxed);
    return 0;
}
