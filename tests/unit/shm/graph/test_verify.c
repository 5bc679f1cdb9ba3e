/*
 * test_verify.c - a sound segment is clean, and each rule is found broken when it is broken: one word is changed,
 * the rule has to be named, the word is put back, and the segment is clean again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "shm/graph/verify.h"
#include "shm/graph/view.h"
#include "shm/kernel/bits.h"
#include "shm/layout/curve.h"
#include "shm/layout/notes.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define DIM   5u
#define COUNT 300u

struct fixture {
    struct test_dir dir;
    struct test_index index;
    struct kithi_view v;
};

struct seen {
    const char *rule;
    bool found;
    uint32_t count;
    char first[300];
};

static void note(void *arg, const char *rule, const char *text)
{
    struct seen *s = arg;
    if (!s->count++)
        snprintf(s->first, sizeof s->first, "%s: %s", rule, text);
    s->found |= strcmp(rule, s->rule) == 0;
}

static void name_of(uint32_t n, char id[64])
{
    snprintf(id, 64, n % 3 ? "%u" : "an id that is kept in a blob, number %u", n);
}

static void set_up_coded(struct fixture *f, uint32_t quantization, uint32_t keep)
{
    static char ids[COUNT][64];
    static float vectors[COUNT][DIM];
    static struct kithi_op ops[COUNT];
    struct kithi_geometry g = {
        .dim = DIM, .metric = KITHI_METRIC_COSINE, .m = 4, .ef_construction = 20, .slot_max = 4096
    };
    struct test_rand r;
    struct kithi_errmsg err;
    kithi_geometry_want(&g, quantization, keep);
    test_rand_seed(&r, 11);
    test_dir_make_shm(&f->dir);
    /* Dead slots stay linked for the whole test. */
    test_index_create(&f->index, test_path(&f->dir, "segment"), &g, 1, 1000000, 1000000);
    for (uint32_t i = 0; i < COUNT; i++) {
        name_of(i, ids[i]);
        test_rand_floats(&r, vectors[i], DIM);
        ops[i] = (struct kithi_op){ .type = KITHI_OP_UPSERT,
                                    .id_len = (uint16_t)strlen(ids[i]),
                                    .dim = DIM,
                                    .id = ids[i],
                                    .vector = vectors[i] };
    }
    assert_int_equal(test_index_commit(&f->index, ops, COUNT, &err), 0);
    assert_int_equal(test_index_commit(&f->index, ops, COUNT / 10, &err), 0); /* as many dead */
    kithi_view_begin(test_index_map(&f->index), &f->v);
}

static void set_up(struct fixture *f)
{
    set_up_coded(f, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
}

static void tear_down(struct fixture *f)
{
    test_index_close(&f->index);
    test_dir_remove(&f->dir);
}

/* A living slot of at least this level; with_blob: whose id is long. */
static uint32_t living(const struct fixture *f, uint32_t level, bool with_blob)
{
    for (uint32_t slot = 0; slot < f->v.slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(&f->v, slot);
        if (r->birth && !r->death && kithi_meta_level(r->meta) >= level &&
            (kithi_meta_id_len(r->meta) > KITHI_ID_INLINE) == with_blob)
            return slot;
    }
    fail_msg("no slot of level %u", level);
    return 0;
}

static void expect(const struct fixture *f, const char *rule)
{
    struct seen seen = { .rule = rule };
    struct kithi_verify_report report;
    assert_int_equal(kithi_verify_within(test_index_map(&f->index), 0, note, &seen, &report), 0);
    assert_int_equal(report.violation_count, seen.count);
    if (!seen.found)
        fail_msg("%s is broken and not named (%u violations, the first: %s)", rule, seen.count, seen.first);
}

static void expect_clean(const struct fixture *f)
{
    struct seen seen = { .rule = "" };
    struct kithi_verify_report report;
    assert_int_equal(kithi_verify_within(test_index_map(&f->index), 0, note, &seen, &report), 0);
    if (report.violation_count)
        fail_msg("%s", seen.first);
}

/* Make *word another value, expect the rule to be named, put it back. */
#define BREAK(f, rule, word, value)                                                                          \
    do {                                                                                                     \
        unsigned char old_[sizeof *(word)];                                                                  \
        void *at_ = (void *)(word);                                                                          \
        memcpy(old_, at_, sizeof old_);                                                                      \
        *(word) = (value);                                                                                   \
        expect((f), (rule));                                                                                 \
        memcpy(at_, old_, sizeof old_);                                                                      \
        expect_clean(f);                                                                                     \
    } while (0)

static void a_sound_segment_is_clean_and_counted(void **state)
{
    (void)state;
    struct fixture f;
    struct kithi_verify_report report;
    uint64_t levels = 0, degrees = 0;
    set_up(&f);
    assert_int_equal(kithi_verify(test_index_map(&f.index), NULL, NULL, &report), 0);
    assert_int_equal(report.violation_count, 0);
    assert_int_equal(report.live_count, COUNT);
    assert_true(report.unreachable_count <= COUNT / 50); /* small graphs may lose one */
    assert_int_equal(report.epoch, 2);
    for (unsigned i = 0; i < 16; i++)
        levels += report.level_histogram[i];
    for (unsigned i = 0; i < 129; i++)
        degrees += report.degree_histogram[i];
    assert_int_equal(levels, COUNT + COUNT / 10);
    assert_int_equal(degrees, COUNT + COUNT / 10);
    assert_true(report.link_count > 2 * COUNT);
    tear_down(&f);
}

static void it_can_be_told_to_stop(void **state)
{
    (void)state;
    struct fixture f;
    struct kithi_verify_report report = { .epoch = 77 };
    _Atomic bool stop = false;
    set_up(&f);
    assert_int_equal(kithi_verify_until(test_index_map(&f.index), 0, &stop, NULL, NULL, &report), 0);
    assert_int_equal(report.live_count, COUNT);
    report.epoch = 77;
    atomic_store(&stop, true);
    assert_int_equal(kithi_verify_until(test_index_map(&f.index), 0, &stop, NULL, NULL, &report), -ECANCELED);
    assert_int_equal(report.epoch, 77);
    tear_down(&f);
}

static void broken_headers_are_named(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    struct kithi_header *h = kithi_map_header(test_index_map(&f.index));
    uint8_t *beyond = test_index_map(&f.index)->base;
    BREAK(&f, "header-identity", &h->dim, DIM + 1);
    BREAK(&f, "header-identity", &h->generation, 7);
    BREAK(&f, "header-reserved", &h->reserved0[9], 1);
    BREAK(&f, "header-reserved", beyond + 4000, 1);
    struct kithi_curve *curve = kithi_header_curve(h, 0);
    BREAK(&f, "header-reserved", &curve->reserved[15], 1);
    curve->k = 10;
    curve->count = 2;
    curve->points[0] = kithi_curve_pack(10, 900000, 1000);
    curve->points[1] = kithi_curve_pack(20, KITHI_CURVE_UNIT, 1000);
    curve->magic = KITHI_CURVE_MAGIC;
    BREAK(&f, "header-curve", &curve->k, 0);
    BREAK(&f, "header-curve", &curve->count, 3); /* a point of zeros */
    BREAK(&f, "header-curve", &curve->count, KITHI_CURVE_POINTS + 1);
    BREAK(&f, "header-curve", &curve->points[1], kithi_curve_pack(10, 950000, 0));
    BREAK(&f, "header-curve", &curve->points[0], kithi_curve_pack(10, KITHI_CURVE_UNIT + 1, 0));
    curve->magic = 0;
    struct kithi_notes *notes = kithi_header_notes(h);
    BREAK(&f, "header-reserved", &notes->reserved[7], 1);
    BREAK(&f, "notes", &notes->count, KITHI_NOTES_MAX + 1);
    BREAK(&f, "notes", &notes->upper_used, f.v.upper_limit + 1);
    BREAK(&f, "notes", &notes->blob_used[2], f.v.blob_limit[2] + 1);
    BREAK(&f, "notes", &notes->epoch, h->epoch + 1);
    BREAK(&f, "header-taken", &h->taken[KITHI_REGION_CODES], 1);
    BREAK(&f, "header-slots", &h->slots_used, 4095);
    BREAK(&f, "header-ids", &h->id_table, kithi_ids_word(1, 40, 0));
    BREAK(&f, "header-live", &h->live, COUNT + 1);
    BREAK(&f, "entry", &h->entry, 0);
    BREAK(&f, "entry", &h->entry, kithi_entry_pack(4000, 0));
    BREAK(&f, "entry", &h->entry,
          kithi_entry_pack(kithi_entry_link(h->entry) - 1, kithi_entry_level(h->entry) + 1));
    tear_down(&f);
}

static void broken_records_are_named(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    uint32_t slot = living(&f, 0, false), with_blob = living(&f, 0, true), capacity;
    struct kithi_record *r = kithi_view_record(&f.v, slot), *long_one = kithi_view_record(&f.v, with_blob);
    struct kithi_blob *b = kithi_view_blob(&f.v, long_one->id[0], &capacity);
    _Atomic uint64_t *doubt = (_Atomic uint64_t *)(void *)f.v.doubt;
    uint32_t norm;
    float bad = NAN;
    memcpy(&norm, &bad, sizeof norm);
    BREAK(&f, "record-state", &r->linked, 0);
    BREAK(&f, "record-state", &r->linked, 2);
    BREAK(&f, "doubt", &r->birth, 0);
    /* Beyond the epoch, and not noted. */
    uint64_t plain = doubt[slot / 64];
    doubt[slot / 64] = plain | UINT64_C(1) << (slot % 64);
    BREAK(&f, "notes", &r->birth, 0);
    BREAK(&f, "notes", &r->birth, f.v.epoch + 1);
    BREAK(&f, "notes", &r->death, f.v.epoch + 1);
    doubt[slot / 64] = plain;
    BREAK(&f, "doubt", &r->birth, f.v.epoch + 1);
    BREAK(&f, "doubt", &r->death, f.v.epoch);
    BREAK(&f, "doubt", &doubt[0], 0); /* of the dead */
    BREAK(&f, "record-level", &r->meta, kithi_meta_pack(16, 3));
    BREAK(&f, "record-prev", &r->prev, 4000);
    BREAK(&f, "record-payload", &r->payload, 1);
    BREAK(&f, "record-id", &r->meta, kithi_meta_pack(0, 512));
    BREAK(&f, "record-id", &r->id[0], 0);
    BREAK(&f, "record-id", &r->id[2], 1);
    BREAK(&f, "record-blob", &long_one->id[0], kithi_blob_ref(3, 4000));
    BREAK(&f, "record-blob", &b->owner, slot + 1);
    BREAK(&f, "record-blob", &b->len, 5);
    BREAK(&f, "norm", &r->norm, 0);
    BREAK(&f, "norm", &r->norm, norm);
    BREAK(&f, "vector", (uint32_t *)(void *)kithi_view_vector(&f.v, slot), norm);
    BREAK(&f, "vector", (uint32_t *)(void *)kithi_view_vector(&f.v, slot), 0x40400000u);
    tear_down(&f);
}

static void broken_links_are_named(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    uint32_t slot = living(&f, 0, false), high = living(&f, 1, false);
    kithi_link *row = kithi_view_row(&f.v, slot);
    struct kithi_upper *u = kithi_view_upper(&f.v, kithi_view_record(&f.v, high)->upper - 1);
    uint32_t low = 0;
    while (kithi_meta_level(kithi_view_record(&f.v, low)->meta) != 0)
        low++;
    uint32_t first = 0, second;
    while (!row[first])
        first++;
    second = first + 1;
    while (second < f.v.link_count0 && !row[second])
        second++;
    assert_true(second < f.v.link_count0);
    BREAK(&f, "row-link", &row[first], 4000);
    BREAK(&f, "row-link", &row[first], slot + 1);
    BREAK(&f, "row-link", &row[first], row[second]);
    BREAK(&f, "upper-link", &u->links[0], low + 1);
    BREAK(&f, "upper-owner", &u->owner, 0);
    BREAK(&f, "upper-chain", &u->up, u->up ? 0 : 1);
    BREAK(&f, "upper-chain", &kithi_view_record(&f.v, high)->upper, 0);
    tear_down(&f);
}

static void broken_id_tables_are_named(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    const struct kithi_map *map = test_index_map(&f.index);
    uint64_t word = kithi_map_header(map)->id_table;
    _Atomic uint64_t *places =
        (_Atomic uint64_t *)(void *)(map->base + map->layout.off[KITHI_REGION_IDS0 + kithi_ids_area(word)]);
    uint32_t at = 0, other;
    while (!places[at])
        at++;
    for (other = at + 1; !places[other];)
        other++;
    BREAK(&f, "id-lookup", &places[at], kithi_ids_entry(places[at] >> 32, KITHI_IDS_TOMBSTONE));
    BREAK(&f, "id-entry", &places[at], kithi_ids_entry(places[at] >> 32, 4000));
    BREAK(&f, "id-entry", &places[at], kithi_ids_entry(places[at] >> 32, kithi_ids_link(places[other])));

    /* Two living slots with one id. */
    uint32_t a = living(&f, 0, false), b = a + 1;
    while (kithi_view_record(&f.v, b)->death || kithi_meta_id_len(kithi_view_record(&f.v, b)->meta) !=
                                                    kithi_meta_id_len(kithi_view_record(&f.v, a)->meta))
        b++;
    BREAK(&f, "id-unique", &kithi_view_record(&f.v, b)->id[0], kithi_view_record(&f.v, a)->id[0]);
    tear_down(&f);
}

static void every_quantization_is_clean(void **state)
{
    (void)state;
    struct fixture f;
    for (uint32_t quantization = KITHI_QUANTIZATION_F16; quantization <= KITHI_QUANTIZATION_BITS;
         quantization++)
        for (uint32_t keep = KITHI_KEEP_F32; keep <= KITHI_KEEP_NONE; keep++) {
            set_up_coded(&f, quantization, keep);
            expect_clean(&f);
            tear_down(&f);
        }
}

static void broken_codes_are_named(void **state)
{
    (void)state;
    struct fixture f;
    const uint32_t slot = 7, nan_half = 0x7e007e00u;

    set_up_coded(&f, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32);
    unsigned char *code = kithi_view_code(&f.v, slot);
    assert_ptr_not_equal(code, kithi_view_vector(&f.v, slot));
    BREAK(&f, "code", &code[sizeof(struct kithi_code_head) + 2],
          (unsigned char)(code[sizeof(struct kithi_code_head) + 2] + 1));
    BREAK(&f, "vector", (uint32_t *)(void *)kithi_view_vector(&f.v, slot), 0x7fc00000u);
    tear_down(&f);

    set_up_coded(&f, KITHI_QUANTIZATION_BITS, KITHI_KEEP_NONE);
    struct kithi_code_head *head = (void *)kithi_view_vector(&f.v, slot);
    assert_ptr_equal(head, kithi_view_code(&f.v, slot));
    BREAK(&f, "code", &head->sum, head->sum + 1);
    BREAK(&f, "code", &head->squares, head->squares + 1);
    BREAK(&f, "vector", &head->scale, 3.0f);
    BREAK(&f, "vector", &head->offset, NAN);
    tear_down(&f);

    set_up_coded(&f, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F16);
    head = (void *)kithi_view_vector(&f.v, slot);
    BREAK(&f, "code", &head->squares, head->squares + 1);
    BREAK(&f, "vector", (uint32_t *)(void *)(head + 1), nan_half);
    head = (void *)kithi_view_code(&f.v, slot);
    BREAK(&f, "code", &head->sum, head->sum + 1);
    BREAK(&f, "code", &head->scale, head->scale * 1.5f);
    BREAK(&f, "code", &head->offset, NAN);
    tear_down(&f);
}

/* A place of slot's row that leads somewhere. */
static uint32_t used_place(const struct fixture *f, uint32_t slot)
{
    uint32_t place = 0;
    while (!kithi_view_row(&f->v, slot)[place])
        place++;
    assert_true(place < f->v.link_count0);
    return place;
}

static void broken_neighbour_codes_are_named(void **state)
{
    (void)state;
    static const uint32_t keep[] = { KITHI_KEEP_F32, KITHI_KEEP_F16, KITHI_KEEP_NONE };
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        struct fixture f;
        set_up_coded(&f, KITHI_QUANTIZATION_BITS, keep[i]);
        uint32_t slot = living(&f, 0, false), place = used_place(&f, slot);
        unsigned char *block = kithi_view_block(&f.v, slot, 0), old[KITHI_BITS_PLACES * 64];
        float *f1 = (float *)(void *)block + place, *f2 = f1 + KITHI_BITS_PLACES;
        assert_true(f.v.bits_stride <= sizeof old);
        BREAK(&f, "neighbour-code", f1, *f1 + *f2 / 8);
        BREAK(&f, "neighbour-code", f2, *f2 * 1.1f);
        BREAK(&f, "neighbour-code", f2, NAN);

        /* The signs that it would have from the other side. */
        struct kithi_bits_edge edge = { .back_f1 = *f1, .back_f2 = *f2 };
        memcpy(old, block, f.v.bits_stride);
        kithi_bits_get(block, f.v.bits_width, place, edge.code);
        kithi_bits_put(block, f.v.bits_width, place, &edge, true);
        expect(&f, "neighbour-code");
        memcpy(block, old, f.v.bits_stride);
        expect_clean(&f);

        /* A link that came without its code. */
        kithi_link *row = kithi_view_row(&f.v, slot);
        uint32_t other = slot == 0 ? 1 : 0;
        for (uint32_t at = 0; at < f.v.link_count0; at++)
            other += row[at] == other + 1 || other == slot;
        BREAK(&f, "neighbour-code", &row[place], other + 1);
        tear_down(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_segment_is_clean_and_counted),
        cmocka_unit_test(it_can_be_told_to_stop),
        cmocka_unit_test(broken_headers_are_named),
        cmocka_unit_test(broken_records_are_named),
        cmocka_unit_test(broken_links_are_named),
        cmocka_unit_test(broken_id_tables_are_named),
        cmocka_unit_test(every_quantization_is_clean),
        cmocka_unit_test(broken_codes_are_named),
        cmocka_unit_test(broken_neighbour_codes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
