/*
 * fuzz_adopt.c - hostile bytes in a segment that a daemon finds at its start: adoption and the look at every record that it
 * leaves for later may refuse it or condemn it; they never crash, hang or read beyond what is theirs. Where the
 * notes alone lie, what is adopted and passes the look is sound, and is written to and swept.
 *
 * A small segment with living, dead and free slots, long ids and upper levels is made once, and left by its owner in the middle of
 * a commit. An input is a list of words to overwrite in it.
 *
 *   byte 0        flags: besides notes may change 1 words of the header, 2 records and what they refer to, 4 `taken`
 *   byte 1        slots of a piece of the look
 *   then 8 bytes for each word: where, how, index (2), value (4)
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/index/index.h"
#include "shm/base/bytes.h"
#include "shm/layout/notes.h"
#include "shm/layout/record.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM       4u
#define IDS       20u /* and OPS: an input takes as long as there is something to walk through */
#define OPS       5u
#define PATCH_MAX 64u

enum { FLAG_HEADER = 1, FLAG_RECORDS = 2, FLAG_TAKEN = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct test_solo solo; /* its path and identity; the segment is open only while an input runs */
static struct kithi_map rw;
static unsigned char *pristine[KITHI_REGION_COUNT];
static uint64_t taken[KITHI_REGION_COUNT];

static void remove_all(void)
{
    test_dir_remove(&solo.dir);
}

static uint32_t make_ops(struct test_rand *r, struct kithi_op ops[OPS], char names[OPS][64],
                         float vectors[OPS][DIM], float value)
{
    for (uint32_t i = 0; i < OPS; i++) {
        uint32_t id = test_rand_below(r, IDS);
        snprintf(names[i], 64, id % 3 ? "%u" : "an id that is longer than a record has room for %u", id);
        for (uint32_t d = 0; d < DIM; d++)
            vectors[i][d] = d ? (float)test_rand_below(r, 100) : value;
        ops[i] = test_rand_below(r, 4) ? test_upsert(names[i], vectors[i], DIM) : test_delete(names[i]);
        static const unsigned char payload[300] = { 1 };
        uint32_t what = test_rand_below(r, 3);
        if (what == 0 || ops[i].type == KITHI_OP_DELETE)
            continue;
        ops[i].payload = payload;
        ops[i].payload_len = 1 + test_rand_below(r, sizeof payload);
        ops[i].flags = KITHI_OP_PAYLOAD;
        if (what == 2) /* alone */
            ops[i] = (struct kithi_op){ .type = KITHI_OP_SET,
                                        .id = ops[i].id,
                                        .id_len = ops[i].id_len,
                                        .payload = payload,
                                        .payload_len = ops[i].payload_len };
    }
    return OPS;
}

/* A group whose births and deaths are stored, and whose epoch is not: what publishing has done before it stores that. */
static void leave_in_a_commit(struct test_rand *r)
{
    static struct kithi_op ops[OPS];
    static char names[OPS][64];
    static float vectors[OPS][DIM];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    struct kithi_header *h = test_solo_header(&solo);
    if (kithi_group_add(solo.ix, ops, make_ops(r, ops, names, vectors, 999), &result, &err) < 0)
        test_die("%s", err.text);
    test_solo_jobs(&solo);
    const struct kithi_notes *n = kithi_header_notes(h);
    struct kithi_record *records =
        (void *)(kithi_index_map(solo.ix)->base + kithi_index_map(solo.ix)->layout.off[KITHI_REGION_RECORDS]);
    for (uint32_t i = 0; i < n->count; i++) {
        struct kithi_record *rec = &records[n->slots[i]];
        if (rec->birth)
            rec->death = h->epoch + 1;
        else if (i % 2)
            rec->birth = h->epoch + 1;
    }
}

static void prepare(void)
{
    static bool ready;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 1000);
    struct test_rand r;
    struct kithi_errmsg err;
    if (ready)
        return;
    ready = true;
    g.m = 3;
    g.ef_construction = 12;
    test_solo_open(&solo, &g);
    atexit(remove_all);
    test_rand_seed(&r, 7);
    for (unsigned i = 0; i < 40; i++) {
        struct kithi_op ops[OPS];
        char names[OPS][64];
        float vectors[OPS][DIM];
        if (test_solo_commit(&solo, ops, make_ops(&r, ops, names, vectors, (float)i + 1)) < 0)
            test_die("a group is refused");
        if (i < 35)
            test_solo_sweep(&solo, 300);
    }
    leave_in_a_commit(&r);
    test_solo_leave(&solo);
    if (kithi_map_attach_path(solo.path, true, &rw, &err) < 0)
        test_die("%s", err.text);
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
        taken[i] = kithi_map_header(&rw)->taken[i];
        pristine[i] = malloc(taken[i] + 1);
        if (!pristine[i])
            test_die("out of memory");
        memcpy(pristine[i], rw.base + rw.layout.off[i], taken[i]);
    }
}

/* As it was, however much more was taken meanwhile. */
static void restore(void)
{
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++)
        memcpy(rw.base + rw.layout.off[i], pristine[i], taken[i]);
}

static uint64_t changed(uint64_t old, unsigned how, uint32_t value)
{
    static const uint64_t edges[] = {
        0,    1,    2,          KITHI_NOTES_MAX,   KITHI_NOTES_MAX + 1, 999,
        1000, 1001, UINT32_MAX, UINT64_C(1) << 31, UINT64_MAX,          UINT64_C(1) << 63
    };
    uint64_t edge = edges[value % (sizeof edges / sizeof *edges)];
    switch (how & 7) {
    case 0: return edge;
    case 1: return (old & UINT64_C(0xffffffff00000000)) | (uint32_t)edge;
    case 2: return (old & UINT64_C(0xffffffff)) | edge << 32;
    case 3: return old ^ UINT64_C(1) << (value % 64);
    case 4: return (old & UINT64_C(0xffffffff00000000)) | value % 400;
    case 5: return (old & UINT64_C(0xffffffff)) | (uint64_t)(value % 400) << 32;
    case 6: return value | (uint64_t)value << 32;
    default: return old + (uint64_t)(int64_t)(int32_t)value;
    }
}

static void patch(uint8_t flags, const uint8_t *p)
{
    static const unsigned regions[] = { KITHI_REGION_RECORDS, KITHI_REGION_RECORDS, KITHI_REGION_ROWS,
                                        KITHI_REGION_UPPER,   KITHI_REGION_IDS0,    KITHI_REGION_BLOB0,
                                        KITHI_REGION_BLOB1,   KITHI_REGION_DOUBT };
    uint64_t index = kithi_get16(p + 2), off;
    if (!(flags & FLAG_RECORDS) || p[0] % 4 == 0) {
        off = KITHI_NOTES_OFF + index % 48 * 8; /* with the first slots */
        if (flags & FLAG_HEADER && index % 3 == 0)
            off = 256 + index % 96 * 8;
        if (off >= offsetof(struct kithi_header, taken) && off < offsetof(struct kithi_header, tally_dead) &&
            !(flags & FLAG_TAKEN))
            return;
    } else {
        unsigned region = regions[p[0] % (sizeof regions / sizeof *regions)];
        if (taken[region] < 8)
            return;
        off = rw.layout.off[region] + index % (taken[region] / 8) * 8;
    }
    _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(rw.base + off);
    atomic_store(word, changed(atomic_load(word), p[1], kithi_get32(p + 4)));
}

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "a promise is broken: %s\n", what);
        abort();
    }
}

static void write_and_sweep(void)
{
    struct kithi_op ops[OPS];
    char names[OPS][64];
    float vectors[OPS][DIM];
    struct test_rand r;
    test_rand_seed(&r, 11);
    for (unsigned i = 0; i < 3; i++) {
        (void)test_solo_commit(&solo, ops,
                               make_ops(&r, ops, names, vectors, (float)i + 1)); /* or it is refused */
        test_solo_sweep(&solo, 300);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kithi_errmsg err = { .text = "" };
    int64_t miscounted;
    prepare();
    if (size < 2)
        return 0;
    uint8_t flags = data[0];
    for (size_t at = 2; at + 8 <= size && at < 2 + 8 * PATCH_MAX; at += 8)
        patch(flags, data + at);
    if (test_solo_adopt_only(&solo, &err) < 0) {
        check(err.text[0], "an error says what is wrong");
        solo.ix = NULL;
        restore();
        return 0;
    }
    int rc = 1;
    uint64_t turns = 0;
    while (rc > 0) {
        rc = kithi_index_census(solo.ix, 1u + data[1], &miscounted, &err);
        check(++turns < 1000000, "the look comes to an end");
    }
    if (rc < 0)
        check(err.text[0], "an error says what is wrong");
    else if (!(flags & (FLAG_HEADER | FLAG_RECORDS)))
        write_and_sweep();
    test_solo_leave(&solo);
    if (rc == KITHI_E_CORRUPT) {
        check(test_solo_adopt_only(&solo, &err) == KITHI_E_CORRUPT,
              "what was condemned is not adopted again");
        solo.ix = NULL;
    }
    restore();
    return 0;
}
