/*
 * index.c - making and closing a segment, and staging a group.
 */
#include "server/index/index.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/base/id.h"

#define GRACE_MS_DEFAULT 100u
#define REST_MS_DEFAULT 400u

/* ---- life of an index ---- */

static int init_worker(struct worker *w, const struct kithi_geometry *g)
{
    size_t candidates = (size_t)g->ef_construction + 2u * KITHI_M_MAX + 2;
    size_t bytes = ((size_t)g->dim * sizeof(float) + 63) / 64 * 64;
    kithi_scratch_init(&w->scratch);
    w->candidates = malloc(candidates * sizeof *w->candidates);
    w->chosen = malloc((2u * KITHI_M_MAX + 2) * sizeof *w->chosen);
    w->vector = aligned_alloc(64, bytes);
    if (!w->candidates || !w->chosen || !w->vector) return -ENOMEM;
    return kithi_scratch_prepare(&w->scratch, g->ef_construction, g->dim);
}

int kithi_index_init(struct kithi_index *ix, const struct kithi_index_tuning *tuning)
{
    ix->header = kithi_map_header(&ix->map);
    ix->tuning = *tuning;
    if (!ix->tuning.worker_count) ix->tuning.worker_count = 1;
    if (!ix->tuning.grace_ms) ix->tuning.grace_ms = GRACE_MS_DEFAULT;
    if (!ix->tuning.rest_ms) ix->tuning.rest_ms = REST_MS_DEFAULT;
    if (getrandom(&ix->random, sizeof ix->random, 0) != sizeof ix->random) ix->random = (uint64_t)time(NULL);
    ix->random |= 1;
    pthread_mutex_init(&ix->entry_lock, NULL);
    for (uint32_t i = 0; i < LOCK_COUNT; i++) pthread_mutex_init(&ix->locks[i], NULL);
    ix->workers = calloc(ix->tuning.worker_count, sizeof *ix->workers);
    if (!ix->workers) return -ENOMEM;
    for (unsigned i = 0; i < ix->tuning.worker_count; i++) {
        int rc = init_worker(&ix->workers[i], &ix->map.geometry);
        if (rc < 0) return rc;
    }
    return 0;
}

void kithi_index_close(struct kithi_index *ix)
{
    if (!ix) return;
    for (unsigned i = 0; ix->workers && i < ix->tuning.worker_count; i++) {
        kithi_scratch_fini(&ix->workers[i].scratch);
        free(ix->workers[i].candidates);
        free(ix->workers[i].chosen);
        free(ix->workers[i].vector);
    }
    free(ix->workers);
    kithi_sweep_fini(ix);
    free(ix->group.insertions);
    free(ix->group.deaths.items);
    free(ix->group.touched);
    free(ix->group.overlay);
    free(ix->slots_free.items);
    free(ix->upper_free.items);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) free(ix->blob_free[c].items);
    free(ix->levels);
    kithi_map_detach(&ix->map);
    if (ix->fd >= 0) close(ix->fd);
    free(ix);
}

static void write_identity(struct kithi_header *h, const struct kithi_index_identity *id, uint64_t generation,
                           uint64_t layout_sum)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    h->version = KITHI_FORMAT_VERSION;
    h->header_size = KITHI_HEADER_SIZE;
    memcpy(h->uid, id->uid, sizeof h->uid);
    memcpy(h->hash_key, id->hash_key, sizeof h->hash_key);
    h->dim = id->geometry.dim;
    h->metric = id->geometry.metric;
    h->m = id->geometry.m;
    h->ef_construction = id->geometry.ef_construction;
    h->quantization = id->geometry.quantization;
    h->slot_max = id->geometry.slot_max;
    h->generation = generation;
    h->layout_sum = layout_sum;
    h->created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    uint64_t timeline = 0;
    if (getrandom(&timeline, sizeof timeline, 0) != sizeof timeline) timeline = h->created_ns;
    atomic_store_explicit(&h->timeline, timeline, memory_order_relaxed);
}

int kithi_index_create(const char *path, const struct kithi_index_identity *id, uint64_t generation,
                       const struct kithi_index_tuning *tuning, struct kithi_index **out, struct kithi_errmsg *err)
{
    int rc = kithi_geometry_check(&id->geometry, err);
    if (rc < 0) return rc;
    struct kithi_index *ix = calloc(1, sizeof *ix);
    if (!ix) return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    ix->map.geometry = id->geometry;
    ix->map.generation = generation;
    memcpy(ix->map.uid, id->uid, sizeof ix->map.uid);
    memcpy(ix->map.hash_key, id->hash_key, sizeof ix->map.hash_key);
    struct kithi_layout *l = &ix->map.layout;
    kithi_geometry_layout(&id->geometry, l);

    ix->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (ix->fd < 0) {
        rc = kithi_error_set(err, -errno, "cannot create %s: %s", path, kithi_error_text(-errno));
        kithi_index_close(ix);
        return rc;
    }
    /* The umask must not decide who may read. */
    if (fchmod(ix->fd, 0640) < 0 || ftruncate(ix->fd, (off_t)l->total) < 0) {
        rc = kithi_error_set(err, errno == EFBIG ? KITHI_E_NO_SPACE : -errno, "cannot size %s to %llu bytes: %s", path,
                             (unsigned long long)l->total, kithi_error_text(-errno));
        goto fail;
    }
    do {
        rc = fallocate(ix->fd, 0, 0, KITHI_HEADER_SIZE) < 0 ? -errno : 0;
    } while (rc == -EINTR);
    if (rc < 0) {
        rc = kithi_error_set(err, rc == -ENOSPC ? KITHI_E_NO_SPACE : rc,
                             "no room for a segment's header in the run directory: %s", kithi_error_text(rc));
        goto fail;
    }
    void *base = mmap(NULL, l->total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ix->fd, 0);
    if (base == MAP_FAILED) {
        rc = kithi_error_set(err, -errno, "cannot map %llu bytes of address space: %s; use a smaller --max-vectors",
                             (unsigned long long)l->total, kithi_error_text(-errno));
        goto fail;
    }
    (void)madvise(base, l->total, MADV_DONTDUMP);
    ix->map.base = base;
    ix->map.len = l->total;
    rc = kithi_index_init(ix, tuning);
    if (rc < 0) {
        kithi_error_set(err, rc, "the daemon is out of memory");
        goto fail;
    }
    write_identity(ix->header, id, generation, l->sum);
    ix->taken[KITHI_REGION_HEADER] = KITHI_HEADER_SIZE;
    atomic_store_explicit(&ix->header->taken[KITHI_REGION_HEADER], KITHI_HEADER_SIZE, memory_order_relaxed);
    rc = kithi_space_reserve(ix, KITHI_REGION_IDS0, KITHI_IDS_CAPACITY_MIN, err);
    if (rc == 0) {
        struct demand none = {.slots = 1}; /* a first step of everything, so that a full tmpfs says so now */
        atomic_store_explicit(&ix->header->id_table, kithi_ids_word(0, KITHI_IDS_CAPACITY_MIN_LOG2, 0),
                              memory_order_relaxed);
        rc = kithi_alloc_reserve(ix, &none, err);
    }
    if (rc < 0) goto fail;
    /* [P0 ready] release: everything above is stored before the magic. Other half: kithi_map_attach(). */
    atomic_store_explicit(&ix->header->magic, KITHI_SEGMENT_MAGIC, memory_order_release);
    *out = ix;
    return 0;

fail:
    unlink(path);
    kithi_index_close(ix);
    return rc;
}

const struct kithi_map *kithi_index_map(const struct kithi_index *ix) { return &ix->map; }
uint64_t kithi_index_epoch(const struct kithi_index *ix) { return ix->epoch; }
uint64_t kithi_index_live(const struct kithi_index *ix) { return ix->live; }

uint64_t kithi_index_durable_epoch(const struct kithi_index *ix)
{
    return atomic_load_explicit(&ix->header->durable_epoch, memory_order_relaxed);
}

/* ---- staging ---- */

static uint64_t next_random(struct kithi_index *ix)
{
    uint64_t x = ix->random; /* xorshift64* */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    ix->random = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* Level l with probability m^-l (1 - 1/m). */
static uint8_t draw_level(struct kithi_index *ix)
{
    double u = ((double)(next_random(ix) >> 11) + 1) / 9007199254740993.0;
    double level = -log(u) / log((double)ix->map.geometry.m);
    return level > KITHI_LEVEL_MAX ? KITHI_LEVEL_MAX : (uint8_t)level;
}

static bool all_zero(const float *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i] != 0) return false;
    return true;
}

static int check_op(const struct kithi_index *ix, const struct kithi_op *op, struct kithi_errmsg *err)
{
    const struct kithi_geometry *g = &ix->map.geometry;
    if (!kithi_id_valid(op->id, op->id_len))
        return kithi_error_set(err, KITHI_E_ID, "%s (this one has %u bytes)", kithi_error_text(KITHI_E_ID), op->id_len);
    if (op->type == KITHI_OP_DELETE) return 0;
    if (op->dim != g->dim)
        return kithi_error_set(err, KITHI_E_DIMENSION, "the vector has %u dimensions, the collection has %u", op->dim,
                               g->dim);
    if (!kithi_floats_finite(op->vector, op->dim))
        return kithi_error_set(err, KITHI_E_NOT_FINITE, "%s", kithi_error_text(KITHI_E_NOT_FINITE));
    if (g->metric == KITHI_METRIC_COSINE && all_zero(op->vector, op->dim))
        return kithi_error_set(err, KITHI_E_ZERO_VECTOR, "%s", kithi_error_text(KITHI_E_ZERO_VECTOR));
    return 0;
}

/* Check every op, draw levels, and add up what applying them needs. */
static int survey(struct kithi_index *ix, const struct kithi_op *ops, uint32_t n, struct demand *d,
                  struct kithi_group_result *out, struct kithi_errmsg *err)
{
    if (ix->levels_capacity < n) {
        uint8_t *p = realloc(ix->levels, n);
        if (!p) return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
        ix->levels = p;
        ix->levels_capacity = n;
    }
    memset(d, 0, sizeof *d);
    uint32_t uppers = kithi_alloc_upper_available(ix);
    for (uint32_t i = 0; i < n; i++) {
        int rc = check_op(ix, &ops[i], err);
        if (rc < 0) {
            out->failed_item = i;
            return rc;
        }
        d->deaths++;
        if (ops[i].type == KITHI_OP_DELETE) continue;
        uint8_t level = draw_level(ix);
        if (d->uppers + level > uppers) level = 0; /* geometry.c: costs a little speed, no correctness */
        ix->levels[i] = level;
        d->slots++;
        d->ids++;
        d->uppers += level;
        if (ops[i].id_len > KITHI_ID_INLINE) d->blobs[kithi_blob_class(&ix->map.layout, ops[i].id_len)]++;
    }
    return 0;
}

static int reserve_group(struct group *g, uint32_t insertions, uint32_t touched)
{
    if (g->insertion_capacity - g->insertion_count < insertions) {
        uint32_t capacity = (g->insertion_count + insertions) * 2;
        struct insertion *p = realloc(g->insertions, capacity * sizeof *p);
        if (!p) return -ENOMEM;
        g->insertions = p;
        g->insertion_capacity = capacity;
    }
    if (g->touched_capacity - g->touched_count < touched) {
        uint32_t capacity = (g->touched_count + touched) * 2;
        struct touched *p = realloc(g->touched, capacity * sizeof *p);
        if (!p) return -ENOMEM;
        g->touched = p;
        g->touched_capacity = capacity;
    }
    uint32_t places = g->overlay ? g->overlay_mask + 1 : 0, want = places ? places : 64;
    while (want < 2 * (g->touched_count + touched)) want *= 2;
    if (want > places) {
        uint32_t *p = calloc(want, sizeof *p);
        if (!p) return -ENOMEM;
        free(g->overlay);
        g->overlay = p;
        g->overlay_mask = want - 1;
        for (uint32_t i = 0; i < g->touched_count; i++) {
            uint32_t at = (uint32_t)g->touched[i].hash & g->overlay_mask;
            while (p[at]) at = (at + 1) & g->overlay_mask;
            p[at] = i + 1;
        }
    }
    return 0;
}

/* What the group has done to this id; a new entry when nothing yet (*out_new). */
static struct touched *touch(struct group *g, uint64_t hash, const struct kithi_op *op, bool *out_new)
{
    uint32_t at = (uint32_t)hash & g->overlay_mask;
    for (; g->overlay[at]; at = (at + 1) & g->overlay_mask) {
        struct touched *t = &g->touched[g->overlay[at] - 1];
        if (t->hash == hash && t->id_len == op->id_len && memcmp(t->id, op->id, op->id_len) == 0) {
            *out_new = false;
            return t;
        }
    }
    struct touched *t = &g->touched[g->touched_count++];
    *t = (struct touched){.hash = hash, .id = op->id, .id_len = op->id_len, .insertion = NO_SLOT};
    g->overlay[at] = g->touched_count;
    *out_new = true;
    return t;
}

/* Stage one op; everything it needs has been reserved. Returns true when the id was there before. */
static bool stage(struct kithi_index *ix, const struct kithi_op *op, uint8_t level)
{
    struct group *g = &ix->group;
    uint64_t hash = kithi_ids_hash(ix, op->id, op->id_len);
    bool fresh, existed = false;
    struct touched *t = touch(g, hash, op, &fresh);
    uint32_t entry = kithi_ids_find(ix, hash, op->id, op->id_len);

    if (!fresh && t->insertion != NO_SLOT) {
        g->insertions[t->insertion].superseded = true;
        existed = true;
    } else if (fresh && entry) {
        const struct kithi_record *r = kithi_view_record(&ix->view, entry - 1);
        if (atomic_load_explicit(&r->death, memory_order_relaxed) == 0) {
            g->deaths.items[g->deaths.count++] = entry - 1;
            existed = true;
        }
    }
    t->insertion = NO_SLOT;
    if (op->type == KITHI_OP_DELETE) return existed;

    if (!entry) g->new_ids++;
    uint32_t slot = kithi_alloc_slot(ix);
    t->insertion = g->insertion_count;
    g->insertions[g->insertion_count++] = (struct insertion){
        .id = op->id,
        .vector = op->vector,
        .hash = hash,
        .blob = op->id_len > KITHI_ID_INLINE
                    ? kithi_alloc_blob(ix, kithi_blob_class(&ix->map.layout, op->id_len))
                    : 0,
        .upper = kithi_alloc_upper(ix, slot, level),
        .slot = slot,
        /* Past what this group supersedes: no epoch sees that, and a look-up goes back few steps. */
        .prev = entry,
        .id_len = op->id_len,
        .level = level,
    };
    return existed;
}

int kithi_group_add(struct kithi_index *ix, const struct kithi_op *ops, uint32_t n, struct kithi_group_result *out,
                    struct kithi_errmsg *err)
{
    struct demand d;
    *out = (struct kithi_group_result){.failed_item = UINT32_MAX};
    int rc = survey(ix, ops, n, &d, out, err);
    if (rc == 0) rc = kithi_alloc_reserve(ix, &d, err);
    if (rc == 0 && reserve_group(&ix->group, d.slots, n) < 0)
        rc = kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    if (rc < 0) return rc;
    for (uint32_t i = 0; i < n; i++) {
        bool existed = stage(ix, &ops[i], ix->levels[i]);
        if (ops[i].type == KITHI_OP_DELETE) out->found += existed;
    }
    return 0;
}

void kithi_group_clear(struct group *g)
{
    /* The last comes first: whoever it had to go round still stands, so the way to it is whole. */
    for (uint32_t i = g->touched_count; i-- > 0;) {
        uint32_t at = (uint32_t)g->touched[i].hash & g->overlay_mask;
        while (g->overlay[at] != i + 1) at = (at + 1) & g->overlay_mask;
        g->overlay[at] = 0;
    }
    g->insertion_count = g->touched_count = g->deaths.count = g->new_ids = 0;
}

void kithi_group_abort(struct kithi_index *ix)
{
    for (uint32_t i = ix->group.insertion_count; i-- > 0;) {
        const struct insertion *in = &ix->group.insertions[i];
        kithi_alloc_return(ix, in->slot, in->blob, in->upper);
    }
    kithi_group_clear(&ix->group);
}

uint32_t kithi_group_job_count(const struct kithi_index *ix) { return ix->group.insertion_count; }

/* ---- replacing a segment ---- */

void kithi_index_mark_moved(struct kithi_index *ix)
{
    /* [P6 moved] release: the next generation is in place. Other half: kithi_view_moved(). */
    atomic_store_explicit(&ix->header->moved, 1, memory_order_release);
    kithi_publish_wake(ix);
}

/* Map the header of the segment at path. 1: *out is it; 0: the file is no segment, so no reader has it. */
static int map_header(const char *path, int *out_fd, struct kithi_header **out, uint64_t *out_size)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc = 0;
    if (fd < 0) return -errno;
    if (fstat(fd, &st) < 0) {
        rc = -errno;
        goto fail;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)KITHI_HEADER_SIZE) goto fail;
    void *base = mmap(NULL, KITHI_HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        rc = -errno;
        goto fail;
    }
    *out_fd = fd;
    *out = base;
    *out_size = (uint64_t)st.st_size;
    return 1;
fail:
    close(fd);
    return rc;
}

int kithi_segment_mark_moved(const char *path, bool dropped)
{
    struct kithi_index ix = {.fd = -1};
    uint64_t size;
    int rc = map_header(path, &ix.fd, &ix.header, &size);
    if (rc <= 0) return rc;
    if (dropped) atomic_store_explicit(&ix.header->dropped, 1, memory_order_relaxed);
    kithi_index_mark_moved(&ix);
    munmap(ix.header, KITHI_HEADER_SIZE);
    close(ix.fd);
    return 0;
}

int kithi_segment_retire(const char *path)
{
    struct kithi_header *h;
    uint64_t size;
    int fd, rc = map_header(path, &fd, &h, &size);
    if (rc <= 0) return rc;
    /* Whatever a search that slept through the grace period still finds here, these send it away. */
    atomic_store_explicit(&h->unlinked, KITHI_MARK_ALL, memory_order_relaxed);
    atomic_store_explicit(&h->reused, KITHI_MARK_ALL, memory_order_relaxed);
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++)
        atomic_store_explicit(&h->taken[r], 0, memory_order_relaxed);
    /* Release fence: a search that meets a page without its bytes meets the marks. */
    atomic_thread_fence(memory_order_release);
    rc = 0;
    if (size > KITHI_HEADER_SIZE && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, KITHI_HEADER_SIZE,
                                              (off_t)(size - KITHI_HEADER_SIZE)) < 0)
        rc = -errno;
    munmap(h, KITHI_HEADER_SIZE);
    close(fd);
    return rc;
}
