/*
 * test_geometry.c - the layout is a function of the geometry: regions aligned, disjoint, large enough.
 */
#include "shm/layout/geometry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "shm/kernel/bits.h"
#include "shm/layout/blob.h"
#include "shm/layout/header.h"
#include "shm/layout/ids.h"
#include "shm/layout/record.h"
#include "tests/support/rand.h"

static const struct kithi_geometry usual = {
    .dim = 128, .metric = KITHI_METRIC_L2, .m = 16, .ef_construction = 200, .slot_max = 1u << 20
};

static int check(struct kithi_geometry g, struct kithi_errmsg *err)
{
    memset(err, 0, sizeof *err);
    return kithi_geometry_check(&g, err);
}

static void geometry_within_the_limits_is_accepted(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    assert_int_equal(check(usual, &err), 0);
    struct kithi_geometry least = {
        .dim = 1, .metric = KITHI_METRIC_L2, .m = KITHI_M_MIN, .ef_construction = 1, .slot_max = 1
    };
    struct kithi_geometry most = { .dim = KITHI_DIM_MAX,
                                   .metric = KITHI_METRIC_IP,
                                   .m = KITHI_M_MAX,
                                   .ef_construction = KITHI_EF_CONSTRUCTION_MAX,
                                   .slot_max = KITHI_SLOT_MAX_LIMIT };
    assert_int_equal(check(least, &err), 0);
    assert_int_equal(check(most, &err), 0);
}

static void geometry_beyond_a_limit_is_refused_with_the_number_and_the_range(void **state)
{
    (void)state;
    static const struct {
        size_t field;
        uint32_t value;
        int code;
        const char *say;
    } bad[] = {
        { offsetof(struct kithi_geometry, dim), 0, KITHI_E_PARAMETER, "dim is 0" },
        { offsetof(struct kithi_geometry, dim), KITHI_DIM_MAX + 1, KITHI_E_PARAMETER, "1 to 4096" },
        { offsetof(struct kithi_geometry, metric), 0, KITHI_E_PARAMETER, "metric 0" },
        { offsetof(struct kithi_geometry, metric), 4, KITHI_E_PARAMETER, "l2, cosine or ip" },
        { offsetof(struct kithi_geometry, m), 1, KITHI_E_PARAMETER, "m is 1" },
        { offsetof(struct kithi_geometry, m), 65, KITHI_E_PARAMETER, "2 to 64" },
        { offsetof(struct kithi_geometry, ef_construction), 0, KITHI_E_PARAMETER, "ef_construction is 0" },
        { offsetof(struct kithi_geometry, ef_construction), 65537, KITHI_E_PARAMETER, "1 to 65536" },
        { offsetof(struct kithi_geometry, quantization), KITHI_QUANTIZATION_AUTO, KITHI_E_UNSUPPORTED,
          "quantization 4" },
        { offsetof(struct kithi_geometry, quantization), KITHI_QUANTIZATION_BITS, KITHI_E_PARAMETER,
          "0 bits an element do not go with quantization bits" },
        { offsetof(struct kithi_geometry, keep), 3, KITHI_E_UNSUPPORTED, "keep 3" },
        { offsetof(struct kithi_geometry, keep), KITHI_KEEP_NONE, KITHI_E_PARAMETER, "with keep none" },
        { offsetof(struct kithi_geometry, code_bits), 1, KITHI_E_PARAMETER,
          "1 bits an element do not go with quantization none" },
        { offsetof(struct kithi_geometry, slot_max), 0, KITHI_E_PARAMETER, "max-vectors is 0" },
        { offsetof(struct kithi_geometry, slot_max), KITHI_SLOT_MAX_LIMIT + 1, KITHI_E_PARAMETER,
          "268435457" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kithi_geometry g = usual;
        struct kithi_errmsg err;
        memcpy((unsigned char *)&g + bad[i].field, &bad[i].value, sizeof bad[i].value);
        assert_int_equal(check(g, &err), bad[i].code);
        assert_int_equal(err.code, bad[i].code);
        if (!strstr(err.text, bad[i].say))
            fail_msg("\"%s\" does not say \"%s\"", err.text, bad[i].say);
    }
}

static void assert_sound(const struct kithi_geometry *g)
{
    struct kithi_layout l;
    kithi_geometry_layout(g, &l);
    uint64_t end = 0, slots = g->slot_max;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        assert_int_equal(l.off[r] % KITHI_REGION_ALIGN, 0);
        assert_true(l.off[r] >= end);
        assert_true(l.unit[r] > 0);
        end = l.off[r] + l.size[r];
    }
    assert_true(l.total >= end && l.total < (UINT64_C(1) << 47));
    assert_int_equal(l.off[KITHI_REGION_HEADER], 0);
    assert_true(l.size[KITHI_REGION_HEADER] >= sizeof(struct kithi_header));
    assert_true(l.size[KITHI_REGION_RECORDS] == slots * sizeof(struct kithi_record));
    assert_true(l.row_stride >= 2 * g->m * sizeof(uint32_t) && l.row_stride % 64 == 0);
    enum kithi_codec kept = kithi_geometry_kept(g), walked = kithi_geometry_walked(g);
    assert_true(l.vector_stride >= kithi_code_size(kept, g->dim));
    assert_true(l.code_stride >= kithi_code_size(walked, g->dim));
    /* Vectors and codes are aligned, or share a line without crossing its end. */
    assert_true(l.vector_stride % 64 == 0 || 64 % l.vector_stride == 0);
    assert_true(l.code_stride % 64 == 0 || 64 % l.code_stride == 0);
    if (g->quantization == KITHI_QUANTIZATION_BITS) {
        uint32_t blocks = (2 * g->m + KITHI_BITS_PLACES - 1) / KITHI_BITS_PLACES;
        assert_true(l.bits_width >= g->dim * g->code_bits && l.bits_width <= KITHI_BITS_WIDTH_MAX);
        assert_true(l.row_code >= 2 * g->m * sizeof(uint32_t) && l.row_code % 64 == 0);
        assert_true(l.row_blocks >= l.row_code + kithi_code_size(walked, g->dim) && l.row_blocks % 64 == 0);
        assert_int_equal(l.row_stride, l.row_blocks + blocks * kithi_bits_block_size(l.bits_width));
        assert_int_equal(l.size[KITHI_REGION_VECTORS], kept == walked ? 0 : slots * l.vector_stride);
        assert_int_equal(l.size[KITHI_REGION_CODES], 0);
    } else {
        assert_int_equal(l.bits_width, 0);
        assert_int_equal(l.row_code, 0);
        assert_int_equal(l.size[KITHI_REGION_VECTORS], slots * l.vector_stride);
        assert_int_equal(l.size[KITHI_REGION_CODES], kept == walked ? 0 : slots * l.code_stride);
    }
    assert_true(l.upper_stride >= 8 + g->m * sizeof(uint32_t) && l.upper_stride % 8 == 0);
    assert_true(l.upper_max >= slots / (g->m - 1));
    assert_true((l.id_capacity_max & (l.id_capacity_max - 1)) == 0 && l.id_capacity_max >= 2 * slots);
    assert_true(l.id_capacity_max >= KITHI_IDS_CAPACITY_MIN);
    assert_true(l.size[KITHI_REGION_DOUBT] * 8 >= slots);
}

static void regions_are_aligned_disjoint_and_large_enough_for_any_geometry(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    assert_sound(&usual);
    for (unsigned i = 0; i < 5000; i++) {
        struct kithi_geometry g = { .dim = 1 + test_rand_below(&r, KITHI_DIM_MAX),
                                    .metric = 1 + test_rand_below(&r, 3),
                                    .m = KITHI_M_MIN + test_rand_below(&r, KITHI_M_MAX - KITHI_M_MIN + 1),
                                    .ef_construction = 1 + test_rand_below(&r, KITHI_EF_CONSTRUCTION_MAX),
                                    .slot_max =
                                        1 + (uint32_t)(test_rand_u64(&r) >> (36 + test_rand_below(&r, 28))) };
        if (i == 0)
            g = (struct kithi_geometry){ .dim = KITHI_DIM_MAX,
                                         .metric = 1,
                                         .m = 2,
                                         .ef_construction = 1,
                                         .slot_max = KITHI_SLOT_MAX_LIMIT };
        if (i == 1)
            g = (struct kithi_geometry){ .dim = 1, .metric = 1, .m = 2, .ef_construction = 1, .slot_max = 1 };
        uint32_t quantization = test_rand_below(&r, KITHI_QUANTIZATION_AUTO);
        uint32_t keep = quantization ? test_rand_below(&r, KITHI_KEEP_NONE + 1) : KITHI_KEEP_F32;
        kithi_geometry_want(&g, quantization, keep);
        if (g.code_bits)
            g.code_bits = 1 + i % 2;
        struct kithi_errmsg err;
        assert_int_equal(kithi_geometry_check(&g, &err), 0);
        assert_sound(&g);
    }
}

static void layout_sum_differs_when_any_number_of_the_layout_differs(void **state)
{
    (void)state;
    struct kithi_layout a, b;
    struct kithi_geometry g = usual;
    kithi_geometry_layout(&g, &a);
    kithi_geometry_layout(&g, &b);
    assert_memory_equal(&a, &b, sizeof a);
    for (unsigned i = 0; i < 3; i++) {
        g = usual;
        g.dim += i == 0;
        g.m += i == 1;
        g.slot_max += i == 2;
        kithi_geometry_layout(&g, &b);
        assert_true(a.sum != b.sum);
    }

    /* Of all codes, too, those with equal regions among them: keep none and keep f16 of f16. */
    uint64_t sums[16];
    unsigned n = 0;
    for (uint32_t quantization = 0; quantization < KITHI_QUANTIZATION_AUTO; quantization++)
        for (uint32_t keep = 0; keep <= (quantization ? KITHI_KEEP_NONE : KITHI_KEEP_F32); keep++) {
            kithi_geometry_want(&g, quantization, keep);
            kithi_geometry_layout(&g, &b);
            for (unsigned i = 0; i < n; i++)
                assert_true(sums[i] != b.sum);
            sums[n++] = b.sum;
        }
    assert_int_equal(n, 10);
}

static void what_is_wanted_becomes_a_geometry(void **state)
{
    (void)state;
    struct kithi_geometry g = usual;
    struct kithi_errmsg err;
    kithi_geometry_want(&g, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F16);
    assert_int_equal(g.quantization, KITHI_QUANTIZATION_BITS);
    assert_int_equal(g.keep, KITHI_KEEP_F16);
    assert_int_equal(g.code_bits, kithi_geometry_code_bits(g.dim));
    assert_int_equal(check(g, &err), 0);
    kithi_geometry_want(&g, KITHI_QUANTIZATION_AUTO, KITHI_KEEP_NONE);
    assert_memory_equal(&g, &usual, sizeof g);
    kithi_geometry_want(&g, KITHI_QUANTIZATION_AUTO, 7);
    assert_int_equal(check(g, &err), KITHI_E_UNSUPPORTED);
    kithi_geometry_want(&g, 7, KITHI_KEEP_F32);
    assert_int_equal(check(g, &err), KITHI_E_UNSUPPORTED);
}

static void what_is_kept_and_what_is_walked(void **state)
{
    (void)state;
    static const enum kithi_codec kept[4][3] = {
        { KITHI_CODEC_F32 },
        { KITHI_CODEC_F32, KITHI_CODEC_F16, KITHI_CODEC_F16 },
        { KITHI_CODEC_F32, KITHI_CODEC_F16, KITHI_CODEC_SQ8 },
        { KITHI_CODEC_F32, KITHI_CODEC_F16, KITHI_CODEC_SQ8 },
    };
    static const enum kithi_codec walked[4] = { KITHI_CODEC_F32, KITHI_CODEC_F16, KITHI_CODEC_SQ8,
                                                KITHI_CODEC_SQ8 };
    for (uint32_t quantization = 0; quantization < 4; quantization++)
        for (uint32_t keep = 0; keep <= (quantization ? KITHI_KEEP_NONE : KITHI_KEEP_F32); keep++) {
            struct kithi_geometry g = usual;
            kithi_geometry_want(&g, quantization, keep);
            assert_int_equal(kithi_geometry_kept(&g), kept[quantization][keep]);
            assert_int_equal(kithi_geometry_walked(&g), walked[quantization]);
        }
}

static void layout_of_format_version_2_stays_what_it_is(void **state)
{
    (void)state;
    struct kithi_layout l;
    kithi_geometry_layout(&usual, &l);
    assert_int_equal(l.off[KITHI_REGION_RECORDS], 2u << 20);
    assert_int_equal(l.off[KITHI_REGION_ROWS], 66u << 20);
    assert_int_equal(l.off[KITHI_REGION_VECTORS], 194u << 20);
    assert_int_equal(l.row_stride, 128);
    assert_int_equal(l.vector_stride, 512);
    assert_int_equal(l.upper_stride, 72);
    assert_int_equal(l.id_capacity_max, 1u << 21);
    assert_int_equal(l.size[KITHI_REGION_CODES], 0);

    struct kithi_geometry g = usual;
    kithi_geometry_want(&g, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
    g.code_bits = 1;
    kithi_geometry_layout(&g, &l);
    assert_int_equal(l.row_code, 128);
    assert_int_equal(l.row_blocks, 128 + 192);
    assert_int_equal(l.bits_width, 128);
    assert_int_equal(l.row_stride, 128 + 192 + 256 + 4 * 128);
    assert_int_equal(l.vector_stride, 512);
    g.code_bits = 2;
    g.m = 17;
    kithi_geometry_layout(&g, &l);
    assert_int_equal(l.row_stride, 192 + 192 + 2 * (256 + 4 * 256));
    kithi_geometry_want(&g, KITHI_QUANTIZATION_F16, KITHI_KEEP_NONE);
    kithi_geometry_layout(&g, &l);
    assert_int_equal(l.vector_stride, 320);
    assert_int_equal(l.code_stride, 320);
    assert_int_equal(l.size[KITHI_REGION_CODES], 0);
}

static void memory_of_a_vector_is_what_the_readme_says(void **state)
{
    (void)state;
    static const uint32_t dims[4] = { 128, 384, 768, 784 };
    static const struct {
        uint32_t quantization, keep, bytes[4]; /* the table of README.md: record, row, vector, code */
    } table[] = {
        { KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32, { 704, 1728, 3264, 3328 } },
        { KITHI_QUANTIZATION_F16, KITHI_KEEP_F32, { 1024, 2560, 4864, 4928 } },
        { KITHI_QUANTIZATION_F16, KITHI_KEEP_F16, { 512, 1024, 1792, 1792 } },
        { KITHI_QUANTIZATION_F16, KITHI_KEEP_NONE, { 512, 1024, 1792, 1792 } },
        { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32, { 896, 2176, 4096, 4160 } },
        { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F16, { 704, 1472, 2624, 2624 } },
        { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_NONE, { 384, 640, 1024, 1024 } },
        { KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32, { 2176, 3968, 7424, 7744 } },
        { KITHI_QUANTIZATION_BITS, KITHI_KEEP_F16, { 1984, 3264, 5952, 6208 } },
        { KITHI_QUANTIZATION_BITS, KITHI_KEEP_NONE, { 1664, 2432, 4352, 4608 } },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (size_t j = 0; j < 4; j++) {
            struct kithi_geometry g = usual;
            struct kithi_layout l;
            g.dim = dims[j];
            kithi_geometry_want(&g, table[i].quantization, table[i].keep);
            kithi_geometry_layout(&g, &l);
            uint64_t bytes = l.size[KITHI_REGION_RECORDS] + l.size[KITHI_REGION_ROWS] +
                             l.size[KITHI_REGION_VECTORS] + l.size[KITHI_REGION_CODES];
            assert_int_equal(bytes / g.slot_max, table[i].bytes[j]);
        }
}

static void the_smallest_class_of_blobs_that_fits_is_taken(void **state)
{
    (void)state;
    struct kithi_layout l;
    kithi_geometry_layout(&usual, &l);
    assert_int_equal(kithi_blob_class(&l, 25), 0);
    assert_int_equal(kithi_blob_class(&l, 48), 0);
    assert_int_equal(kithi_blob_class(&l, 49), 1);
    assert_int_equal(kithi_blob_class(&l, 112), 1);
    assert_int_equal(kithi_blob_class(&l, 113), 2);
    assert_int_equal(kithi_blob_class(&l, 511), 3);
    assert_int_equal(kithi_blob_class(&l, 561), 4);
    assert_int_equal(kithi_blob_class(&l, 1009), 5);
    assert_int_equal(kithi_blob_class(&l, 4081), 6);
    assert_int_equal(kithi_blob_class(&l, 16369), 7);
    assert_int_equal(kithi_blob_class(&l, KITHI_PAYLOAD_BYTES + sizeof(struct kithi_payload_head)), 7);
    assert_int_equal(kithi_blob_class(&l, KITHI_PAYLOAD_BYTES + 64), KITHI_BLOB_CLASS_COUNT);
}

static void numbers_have_names(void **state)
{
    (void)state;
    assert_string_equal(kithi_region_name(KITHI_REGION_ROWS), "rows");
    assert_string_equal(kithi_region_name(KITHI_REGION_WRITER), "writer");
    assert_string_equal(kithi_region_name(KITHI_REGION_COUNT), "?");
    assert_string_equal(kithi_metric_name(KITHI_METRIC_L2), "l2");
    assert_string_equal(kithi_metric_name(KITHI_METRIC_COSINE), "cosine");
    assert_string_equal(kithi_metric_name(KITHI_METRIC_IP), "ip");
    assert_string_equal(kithi_metric_name(0), "?");
    assert_string_equal(kithi_quantization_name(KITHI_QUANTIZATION_NONE), "none");
    assert_string_equal(kithi_quantization_name(KITHI_QUANTIZATION_AUTO), "auto");
    assert_string_equal(kithi_quantization_name(5), "?");
    assert_string_equal(kithi_keep_name(KITHI_KEEP_F32), "f32");
    assert_string_equal(kithi_keep_name(KITHI_KEEP_NONE), "none");
    assert_string_equal(kithi_keep_name(3), "?");
}

/* Ids that do not fit into records, and payloads of the same size: each slot may have one of both. */
static void a_class_that_takes_ids_has_room_for_as_many_payloads(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots <= 1u << 24; slots = slots * 3 + 1) {
        struct kithi_geometry g = usual;
        struct kithi_layout l;
        g.slot_max = slots;
        kithi_geometry_layout(&g, &l);
        for (uint32_t len = 25; len <= 511; len++)
            assert_true(l.blob_max[kithi_blob_class(&l, len)] >= 2 * slots + slots / 4);
    }
    /* No more than a payload's reference can name. */
    struct kithi_geometry most = usual;
    struct kithi_layout l;
    most.slot_max = KITHI_SLOT_MAX_LIMIT;
    kithi_geometry_layout(&most, &l);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        assert_int_equal(kithi_payload_number(kithi_payload_ref(c, l.blob_max[c] - 1)), l.blob_max[c] - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geometry_within_the_limits_is_accepted),
        cmocka_unit_test(geometry_beyond_a_limit_is_refused_with_the_number_and_the_range),
        cmocka_unit_test(regions_are_aligned_disjoint_and_large_enough_for_any_geometry),
        cmocka_unit_test(layout_sum_differs_when_any_number_of_the_layout_differs),
        cmocka_unit_test(what_is_wanted_becomes_a_geometry),
        cmocka_unit_test(what_is_kept_and_what_is_walked),
        cmocka_unit_test(layout_of_format_version_2_stays_what_it_is),
        cmocka_unit_test(memory_of_a_vector_is_what_the_readme_says),
        cmocka_unit_test(the_smallest_class_of_blobs_that_fits_is_taken),
        cmocka_unit_test(numbers_have_names),
        cmocka_unit_test(a_class_that_takes_ids_has_room_for_as_many_payloads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
