/*
 * fuzz_checkpoint.c - hostile bytes as a checkpoint: kithd's own loader refuses them, or makes an index of them that may hold
 * nonsense, and never crashes, hangs, or reads or writes beyond what is its own: when it is loaded, verified, searched, written
 * to, and swept.
 *
 * A small good checkpoint of each quantization is made once. An input is a list of words to overwrite in one of them; what it
 * damages is summed anew afterwards, as nothing would get past the checksums otherwise, unless it asks that they stay as they were.
 *
 *   byte 0        flags: 3 the checkpoint, 4 the sums stay, 8 the file is cut off, 16 the table's end epoch is changed
 *   byte 1, 2     where it is cut, in blocks of 512; the end epoch
 *   then 8 bytes for each word: where, how, index (2), value (4)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/writer/load.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/graph/lookup.h"
#include "shm/graph/scan.h"
#include "shm/graph/search.h"
#include "shm/graph/verify.h"
#include "tests/crash/step/step.h"

#define DIM      6u
#define IDS      20u /* an input takes as long as there is something to walk through */
#define TARGETS  4u
#define NAME     "docs"
#define SLOT_MAX 512u
#define SWEEPS   6u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FLAG_TARGET = 3, FLAG_UNSUMMED = 4, FLAG_CUT = 8, FLAG_END = 16 };

struct target {
    struct step_world world;
    struct kithi_collection *collection;
    struct kithi_checkpoint_header header;
    struct kithi_checkpoint_plan plan;
    unsigned char *file, *scratch; /* as it is, and with an input's words */
    char path[KITHI_PATH_MAX];
};

static struct target targets[TARGETS];
static struct test_dir dirs[TARGETS];
static struct kithi_scratch scratch;
static struct kithi_results results;

uint64_t __wrap_kithi_cgroup_left(const char *root);

/* How much memory this machine has left is not the subject, and takes most of the time. */
uint64_t __wrap_kithi_cgroup_left(const char *root)
{
    (void)root;
    return UINT64_MAX;
}

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "a promise is broken: %s\n", what);
        abort();
    }
}

static size_t id_of(uint32_t id, char out[64])
{
    return (size_t)snprintf(out, 64, "%0*u", id % 4 ? 2 : 40, id);
}

/* A group of one change. */
static int change(struct kithi_index *ix, uint32_t id, bool gone, float value)
{
    char text[64];
    float vector[DIM];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    struct kithi_op op = { .type = gone ? KITHI_OP_DELETE : KITHI_OP_UPSERT,
                           .id_len = (uint16_t)id_of(id, text),
                           .id = text,
                           .dim = gone ? 0 : DIM,
                           .vector = gone ? NULL : vector };
    for (uint32_t i = 0; i < DIM; i++)
        vector[i] = value + (float)(id * (i + 3) % 17);
    int rc = kithi_group_add(ix, &op, 1, &result, &err);
    if (rc < 0) {
        kithi_group_abort(ix);
        return rc;
    }
    for (uint32_t i = 0; i < kithi_group_job_count(kithi_group_open(ix)); i++)
        kithi_group_job(ix, kithi_group_open(ix), 0, i);
    kithi_group_publish(ix, kithi_index_epoch(ix) + 1, 1000);
    return 0;
}

static void sweep(struct kithi_index *ix, uint64_t now_ms)
{
    uint32_t wait_ms, jobs = kithi_sweep_begin(ix, now_ms, &wait_ms);
    for (uint32_t i = 0; i < jobs; i++)
        kithi_sweep_job(ix, 0, i);
    if (jobs)
        kithi_sweep_end(ix, now_ms);
}

/* Living, dead, resting and free slots, long ids, upper rows. */
static struct kithi_index *make_index(const struct target *t)
{
    struct kithi_index *ix = NULL;
    struct kithi_errmsg err;
    if (kithi_index_create(NULL, &t->world.identity, 1, &t->world.tuning, &ix, &err) < 0)
        test_die("%s", err.text);
    for (uint32_t i = 0; i < 2 * IDS; i++) {
        check(change(ix, i % IDS, i % 5 == 4, 1 + (float)i) == 0, "a good group is taken");
        if (i == IDS)
            for (uint32_t s = 0; s < SWEEPS; s++)
                sweep(ix, 2000 + 1000 * s);
    }
    return ix;
}

static void make_file(struct target *t, struct kithi_index *ix)
{
    struct kithi_image *image;
    struct kithi_errmsg err;
    if (kithi_image_begin(ix, &image, &err) < 0)
        test_die("%s", err.text);
    const struct kithi_image_shape *s = kithi_image_shape(image);
    struct kithi_checkpoint_header *h = &t->header;
    *h = (struct kithi_checkpoint_header){ .epoch = s->epoch,
                                           .timeline = s->timeline,
                                           .live = s->live,
                                           .layout_sum = kithi_index_map(ix)->layout.sum,
                                           .geometry = t->world.identity.geometry,
                                           .segment_version = KITHI_FORMAT_VERSION,
                                           .slots = s->slots,
                                           .uppers = s->uppers };
    memcpy(h->uid, t->world.identity.uid, sizeof h->uid);
    memcpy(h->blobs, s->blobs, sizeof h->blobs);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        h->regions[r].bytes = s->regions[r].bytes;
        h->regions[r].chunk = s->regions[r].chunk;
    }
    check(kithi_checkpoint_plan(h, &t->plan), "an image has a plan");
    t->file = calloc(1, t->plan.file_size);
    t->scratch = malloc(t->plan.file_size);
    if (!t->file || !t->scratch)
        test_die("out of memory");
    kithi_checkpoint_header_encode(t->file, h);
    for (uint32_t i = 0; i < t->plan.chunk_count; i++) {
        struct kithi_checkpoint_chunk c = kithi_checkpoint_chunk_at(h, &t->plan, i);
        kithi_image_copy(image, c.region, c.off, c.len, t->file + c.file_off);
    }
    kithi_image_end(image);
}

static void prepare(void)
{
    static const uint32_t codes[TARGETS] = { KITHI_QUANTIZATION_NONE, KITHI_QUANTIZATION_F16,
                                             KITHI_QUANTIZATION_SQ8, KITHI_QUANTIZATION_BITS };
    static bool done;
    if (done)
        return;
    done = true;
    kithi_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    kithi_scratch_init(&scratch);
    kithi_results_init(&results);
    for (unsigned i = 0; i < TARGETS; i++) {
        struct target *t = &targets[i];
        struct kithi_geometry *g = &t->world.identity.geometry;
        char name[KITHI_CHECKPOINT_NAME_SIZE];
        struct kithi_errmsg err;
        *g = (struct kithi_geometry){ .dim = DIM,
                                      .metric = i % 2 ? KITHI_METRIC_COSINE : KITHI_METRIC_L2,
                                      .m = 4,
                                      .ef_construction = 12,
                                      .slot_max = SLOT_MAX };
        kithi_geometry_want(g, codes[i], i == 2 ? KITHI_KEEP_NONE : KITHI_KEEP_F32);
        memset(t->world.identity.uid, 0x41 + (int)i, sizeof t->world.identity.uid);
        memset(t->world.identity.hash_key, 0x21, sizeof t->world.identity.hash_key);
        t->world.tuning = (struct kithi_index_tuning){ .worker_count = 1, .small_pages = true };
        struct kithi_index *ix = make_index(t);
        make_file(t, ix);
        kithi_index_close(ix);
        test_dir_make_shm(&dirs[i]);
        t->collection = step_collection(&t->world, &dirs[i], NAME);
        kithi_checkpoint_name(name, t->header.epoch);
        if (mkdir(t->collection->data_dir, 0700) < 0 ||
            kithi_path(t->path, &err, "%s/%s", t->collection->data_dir, name))
            test_die("%s: %s", t->collection->data_dir, strerror(errno));
    }
}

/* Numbers that stand at some edge. */
static uint64_t special(const struct target *t, uint32_t how)
{
    const uint64_t edges[] = {
        0,
        1,
        t->header.slots - 1,
        t->header.slots,
        t->header.slots + 1,
        SLOT_MAX,
        SLOT_MAX + 1u,
        UINT32_MAX,
        UINT64_C(1) << 31,
        UINT64_C(1) << 32,
        UINT64_C(1) << 63,
        UINT64_MAX,
        t->header.epoch,
        t->header.epoch + 1,
        t->header.uppers,
        UINT64_C(0x7fc000007fc00000), /* NaN twice */
        UINT64_C(0x7f7fffffff7fffff), /* the largest floats */
        UINT64_C(0x0100000000000001),
    };
    return edges[how % (sizeof edges / sizeof edges[0])];
}

/* A word of the header, or of a region's bytes in use. */
static void overwrite(struct target *t, const uint8_t *p)
{
    unsigned where = p[0] % (KITHI_REGION_COUNT + 4), how = p[1];
    uint64_t index = kithi_get16(p + 2), value = kithi_get32(p + 4), off, old, new;
    if (where >= KITHI_REGION_COUNT) { /* what the header says comes often */
        off = 8 + index % ((448 - 8) / 4) * 4;
    } else if (t->header.regions[where].bytes >= 8) {
        off = t->plan.file_off[where] + index * 8 % (t->header.regions[where].bytes / 8 * 8);
    } else {
        return;
    }
    memcpy(&old, t->scratch + off, sizeof old);
    switch (how & 7) {
    case 0: new = special(t, (uint32_t)value); break;
    case 1: new = (old & UINT64_C(0xffffffff00000000)) | (uint32_t)special(t, (uint32_t)value); break;
    case 2: new = (old & UINT64_C(0xffffffff)) | special(t, (uint32_t)value) << 32; break;
    case 3: new = old ^ UINT64_C(1) << (value % 64); break;
    case 4: new = (old & UINT64_C(0xffffffff00000000)) | value % (t->header.slots + 2); break;
    case 5: new = (old & UINT64_C(0xffffffff)) | (value % (t->header.slots + 2)) << 32; break;
    case 6: new = value | value << 32; break;
    default: new = old + (uint64_t)(int64_t)(int32_t)value; break;
    }
    memcpy(t->scratch + off, &new, sizeof new);
}

/* Sums and table of whatever the file says it holds, as far as that lies in it. */
static void sum_anew(struct target *t, uint64_t end_epoch)
{
    struct kithi_checkpoint_header h;
    struct kithi_checkpoint_plan plan;
    uint32_t sums[64] = { 0 };
    kithi_put32(t->scratch + KITHI_CHECKPOINT_BLOCK - 4,
                kithi_crc32c(0, t->scratch, KITHI_CHECKPOINT_BLOCK - 4));
    enum kithi_checkpoint_verdict v = kithi_checkpoint_header_decode(t->scratch, NULL, &h);
    if (v != KITHI_CHECKPOINT_OK || !kithi_checkpoint_plan(&h, &plan) ||
        plan.file_size != t->plan.file_size || plan.chunk_count > 64)
        return;
    for (uint32_t i = 0; i < plan.chunk_count; i++) {
        struct kithi_checkpoint_chunk c = kithi_checkpoint_chunk_at(&h, &plan, i);
        sums[i] = kithi_crc32c(0, t->scratch + c.file_off, c.size);
    }
    kithi_checkpoint_table_encode(t->scratch + plan.table_off, &h, &plan, sums, end_epoch);
}

static void put_file(const struct target *t, size_t len)
{
    int fd = open(t->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, t->scratch, len) != (ssize_t)len)
        test_die("%s: %s", t->path, strerror(errno));
    close(fd);
}

static void read_all(const struct kithi_map *m)
{
    float query[DIM] = { 1, 2, 3, 4, 5, 6 }, vector[DIM];
    struct kithi_verify_report report;
    struct kithi_scan scan;
    struct kithi_item item;
    uint32_t count = 0;
    (void)kithi_verify_within(m, 0, NULL, NULL, &report);
    for (unsigned exact = 0; exact < 2; exact++) {
        struct kithi_search_params p = { .k = 10, .ef = 40, .exact = exact };
        check(kithi_search(m, &scratch, query, &p, &results) <= 10, "at most k hits");
    }
    for (uint32_t id = 0; id < IDS; id += 7) {
        char text[64];
        struct kithi_found found;
        size_t len = id_of(id, text);
        (void)kithi_lookup(m, text, len, vector, &found);
    }
    kithi_scan_begin(m, &scan);
    while (kithi_scan_next(&scan, &item, vector) == 1)
        count++;
    check(count <= SLOT_MAX, "a scan ends");
}

/* What a start does with it next: the log is replayed, and it is served. */
static void live_with(struct kithi_index *ix)
{
    read_all(kithi_index_map(ix));
    for (uint32_t i = 0; i < 12; i++) {
        (void)change(ix, i * 5 % (IDS + 8), i % 3 == 2, 7 + (float)i);
        if (i % 4 == 3)
            sweep(ix, 10000 + 1000 * i);
    }
    read_all(kithi_index_map(ix));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    if (size < 3)
        return 0;
    struct target *t = &targets[data[0] & FLAG_TARGET];
    struct kithi_collection *c = t->collection;
    struct kithi_errmsg err = { .text = "" };
    uint64_t end_epoch = t->header.epoch + (data[0] & FLAG_END ? data[2] : 0);
    size_t len = t->plan.file_size;
    memcpy(t->scratch, t->file, len);
    if (data[0] & FLAG_UNSUMMED)
        sum_anew(t, end_epoch);
    for (size_t at = 3; at + 8 <= size && at < 3 + 8 * 64; at += 8)
        overwrite(t, data + at);
    if (!(data[0] & FLAG_UNSUMMED))
        sum_anew(t, end_epoch);
    if (data[0] & FLAG_CUT)
        len -= (size_t)data[1] * 512 % len;
    put_file(t, len);

    uint64_t said = 0;
    int status = kithi_load_checkpoint(c, &said, &err);
    check(status == 0 || status == 1 || err.text[0], "a refusal says why");
    check(status != 1 || kithi_index_epoch(c->index) == t->header.epoch, "the epoch is that of the name");
    check(status == 1 || !c->index, "what is refused leaves nothing");
    check(status == 1 || access(c->segment_next, F_OK) != 0, "what is refused leaves no file");
    if (status == 1) {
        live_with(c->index);
        kithi_index_close(c->index);
        c->index = NULL;
        unlink(c->segment_next);
    }
    return 0;
}

__attribute__((destructor)) static void clean_up(void)
{
    for (unsigned i = 0; i < TARGETS; i++) {
        step_collection_free(targets[i].collection);
        free(targets[i].file);
        free(targets[i].scratch);
        test_dir_remove(&dirs[i]);
    }
    kithi_scratch_fini(&scratch);
    kithi_results_fini(&results);
}
