/*
 * index.c - the life of an open index: its private state, making a segment, closing it.
 */
#include "server/index/index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/index/index_priv.h"
#include "shm/base/bytes.h"

#define GRACE_MS_DEFAULT 100u
#define REST_MS_DEFAULT  400u

static void *floats(uint32_t count)
{
    return aligned_alloc(64, ((size_t)count * sizeof(float) + 63) / 64 * 64);
}

static int init_worker(struct worker *w, struct kithi_index *ix)
{
    const struct kithi_map *map = &ix->map;
    const struct kithi_geometry *g = &map->geometry;
    const struct kithi_layout *l = &map->layout;
    size_t candidates = (size_t)g->ef_construction + 2u * KITHI_M_MAX + 2;
    kithi_scratch_init(&w->scratch);
    w->ix = ix;
    w->scratch.kernel = kithi_kernel_pick();
    w->candidates = malloc(candidates * sizeof *w->candidates);
    w->chosen = malloc((2u * KITHI_M_MAX + 2) * sizeof *w->chosen);
    w->vector = floats(g->dim);
    w->code = aligned_alloc(64, kithi_round_up(l->vector_stride + l->code_stride, 64));
    if (!w->candidates || !w->chosen || !w->vector || !w->code)
        return -ENOMEM;
    if (l->bits_width) {
        w->near_end = floats(l->bits_width);
        w->far_end = floats(l->bits_width);
        w->edges = malloc(2 * (size_t)g->m * sizeof *w->edges);
        if (!w->near_end || !w->far_end || !w->edges)
            return -ENOMEM;
    }
    int rc = kithi_query_reserve(&w->scratch.query, g->dim, l->bits_width);
    return rc < 0 ? rc : kithi_scratch_prepare(&w->scratch, g->ef_construction);
}

void kithi_index_tune(struct kithi_index *ix, uint32_t grace_ms, uint32_t rest_ms)
{
    ix->tuning.grace_ms = grace_ms ? grace_ms : GRACE_MS_DEFAULT;
    ix->tuning.rest_ms = rest_ms ? rest_ms : REST_MS_DEFAULT;
}

int kithi_index_init(struct kithi_index *ix, const struct kithi_index_tuning *tuning)
{
    ix->header = kithi_map_header(&ix->map);
    ix->tuning = *tuning;
    if (!ix->tuning.worker_count)
        ix->tuning.worker_count = 1;
    kithi_index_tune(ix, tuning->grace_ms, tuning->rest_ms);
    if (getrandom(&ix->random, sizeof ix->random, 0) != sizeof ix->random)
        ix->random = (uint64_t)time(NULL);
    ix->random |= 1;
    pthread_mutex_init(&ix->entry_lock, NULL);
    ix->lock_count = 1;
    while (ix->lock_count < LOCK_MAX && ix->lock_count < ix->map.geometry.slot_max)
        ix->lock_count *= 2;
    ix->locks = malloc(ix->lock_count * sizeof *ix->locks);
    ix->workers = calloc(ix->tuning.worker_count, sizeof *ix->workers);
    if (!ix->locks || !ix->workers || kithi_postings_init(ix) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < ix->lock_count; i++)
        pthread_mutex_init(&ix->locks[i], NULL);
    for (unsigned i = 0; i < ix->tuning.worker_count; i++) {
        int rc = init_worker(&ix->workers[i], ix);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void kithi_index_close(struct kithi_index *ix)
{
    if (!ix)
        return;
    for (unsigned i = 0; ix->workers && i < ix->tuning.worker_count; i++) {
        kithi_scratch_fini(&ix->workers[i].scratch);
        free(ix->workers[i].candidates);
        free(ix->workers[i].chosen);
        free(ix->workers[i].vector);
        free(ix->workers[i].code);
        free(ix->workers[i].near_end);
        free(ix->workers[i].far_end);
        free(ix->workers[i].edges);
    }
    free(ix->workers);
    free(ix->locks);
    kithi_sweep_fini(ix);
    kithi_census_fini(ix);
    kithi_audit_end(ix);
    kithi_journal_end(ix);
    for (uint32_t i = 0; i < KITHI_GROUPS_SEALED + 1; i++)
        kithi_group_fini(&ix->groups[i]);
    free(ix->slots_free.items);
    free(ix->upper_free.items);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        free(ix->blob_free[c].items);
    free(ix->levels);
    free(ix->missing);
    free(ix->places);
    free(ix->payload_lens);
    free(ix->same_ids);
    kithi_payload_fini(ix);
    kithi_postings_fini(ix);
    kithi_map_detach(&ix->map);
    if (ix->fd >= 0)
        close(ix->fd);
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
    h->keep = id->geometry.keep;
    h->code_bits = id->geometry.code_bits;
    h->slot_max = id->geometry.slot_max;
    h->generation = generation;
    h->layout_sum = layout_sum;
    h->created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    uint64_t timeline = 0;
    if (getrandom(&timeline, sizeof timeline, 0) != sizeof timeline)
        timeline = h->created_ns;
    atomic_store_explicit(&h->timeline, timeline, memory_order_relaxed);
}

int kithi_index_create(const char *path, const struct kithi_index_identity *id, uint64_t generation,
                       const struct kithi_index_tuning *tuning, struct kithi_index **out,
                       struct kithi_errmsg *err)
{
    int rc = kithi_geometry_check(&id->geometry, err);
    if (rc < 0)
        return rc;
    struct kithi_index *ix = calloc(1, sizeof *ix);
    if (!ix)
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    ix->map.geometry = id->geometry;
    ix->map.generation = generation;
    memcpy(ix->map.uid, id->uid, sizeof ix->map.uid);
    memcpy(ix->map.hash_key, id->hash_key, sizeof ix->map.hash_key);
    struct kithi_layout *l = &ix->map.layout;
    kithi_geometry_layout(&id->geometry, l);

    const char *name = path ? path : "a segment without a name";
    ix->fd = path ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640)
                  : memfd_create("kith", MFD_CLOEXEC);
    if (ix->fd < 0) {
        rc = kithi_error_set(err, -errno, "cannot create %s: %s", name, kithi_error_text(-errno));
        kithi_index_close(ix);
        return rc;
    }
    /* The umask must not decide who may read. */
    if (fchmod(ix->fd, 0640) < 0 || ftruncate(ix->fd, (off_t)l->total) < 0) {
        rc = kithi_error_set(err, errno == EFBIG ? KITHI_E_NO_SPACE : -errno,
                             "cannot size %s to %llu bytes: %s", name, (unsigned long long)l->total,
                             kithi_error_text(-errno));
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
    rc = kithi_map_file(ix->fd, l->total, true, &ix->map.base);
    if (rc < 0) {
        kithi_error_set(err, rc, "cannot map %llu bytes of address space: %s; use a smaller --max-vectors",
                        (unsigned long long)l->total, kithi_error_text(rc));
        goto fail;
    }
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
        struct demand none = { .slots =
                                   1 }; /* a first step of everything, so that a full tmpfs says so now */
        atomic_store_explicit(&ix->header->id_table, kithi_ids_word(0, KITHI_IDS_CAPACITY_MIN_LOG2, 0),
                              memory_order_relaxed);
        rc = kithi_alloc_reserve(ix, &none, err);
    }
    if (rc < 0)
        goto fail;
    kithi_ledger_begin(ix);
    kithi_notes_begin(ix);
    kithi_postings_restart(ix);
    /* [P0 ready] release: everything above is stored before the magic. Other half: kithi_map_attach(). */
    atomic_store_explicit(&ix->header->magic, KITHI_SEGMENT_MAGIC, memory_order_release);
    *out = ix;
    return 0;

fail:
    if (path)
        unlink(path);
    kithi_index_close(ix);
    return rc;
}

const struct kithi_map *kithi_index_map(const struct kithi_index *ix)
{
    return &ix->map;
}
bool kithi_index_is_at(const struct kithi_index *ix, const char *path)
{
    struct stat mine, theirs;
    return fstat(ix->fd, &mine) == 0 && lstat(path, &theirs) == 0 && mine.st_ino == theirs.st_ino &&
           mine.st_dev == theirs.st_dev;
}
uint64_t kithi_index_epoch(const struct kithi_index *ix)
{
    return ix->epoch;
}
uint64_t kithi_index_live(const struct kithi_index *ix)
{
    return ix->live;
}

uint64_t kithi_index_durable_epoch(const struct kithi_index *ix)
{
    return atomic_load_explicit(&ix->header->durable_epoch, memory_order_relaxed);
}

void kithi_index_set_timeline(struct kithi_index *ix, uint64_t timeline)
{
    atomic_store_explicit(&ix->header->timeline, timeline, memory_order_relaxed); /* it stands for itself */
}
