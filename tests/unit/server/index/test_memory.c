/*
 * test_memory.c - what a vector costs: the sums that FORMAT.md and README.md state, worked out here from the text and
 * compared with the memory that a segment took.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/layout/record.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

enum { N = 500, M = 16, RECORD = 64, UPPER = 8 + 4 * M, PLACE = 8 };

/*
 * Places of the id table for each vector: it doubles when 3/5 are filled, and the area of the one before, half as large,
 * stays for the next. So there are 3/2 times 5/3 to 10/3 of them.
 */
static const double PLACES_LEAST = 2.5, PLACES_MOST = 5.5;
static const uint32_t dims[] = { 128, 384, 768, 784 };
enum { DIMS = sizeof dims / sizeof *dims };

/* A vector's bytes in each region. */
struct cost {
    uint32_t row, vector, code;
};

static uint32_t up64(uint32_t n)
{
    return (n + 63) / 64 * 64;
}

static uint32_t code_bytes(uint32_t codec, uint32_t dim)
{
    return codec == KITHI_CODEC_F32 ? 4 * dim : codec == KITHI_CODEC_F16 ? 16 + 2 * dim : 16 + dim;
}

/* By the tables of FORMAT.md; codes of more than 32 bytes. */
static struct cost cost_of(const struct kithi_geometry *g)
{
    uint32_t links = up64(2 * M * 4);
    uint32_t walked = g->quantization == KITHI_QUANTIZATION_NONE  ? KITHI_CODEC_F32
                      : g->quantization == KITHI_QUANTIZATION_F16 ? KITHI_CODEC_F16
                                                                  : KITHI_CODEC_SQ8;
    uint32_t kept = g->keep == KITHI_KEEP_F32   ? KITHI_CODEC_F32
                    : g->keep == KITHI_KEEP_F16 ? KITHI_CODEC_F16
                                                : walked;
    struct cost c = { .row = links, .vector = up64(code_bytes(kept, g->dim)) };
    if (g->quantization == KITHI_QUANTIZATION_BITS) {
        c.row += up64(code_bytes(walked, g->dim)) + 2 * M / 32 * (256 + 4 * up64(g->dim * g->code_bits));
        c.vector = kept == walked ? 0 : c.vector;
    } else if (kept != walked) {
        c.code = up64(code_bytes(walked, g->dim));
    }
    return c;
}

/* All but the id table; upper rows are as many as are drawn on average. */
static double sum(const struct cost *c)
{
    return c->row + c->vector + c->code + RECORD + 1.0 / 8 + (double)UPPER / (M - 1);
}

/* The format itself has the sizes that the text says. */
static void assert_layout(const struct kithi_geometry *g, const struct cost *c)
{
    struct kithi_layout l;
    kithi_geometry_layout(g, &l);
    assert_int_equal(l.unit[KITHI_REGION_RECORDS], RECORD);
    assert_int_equal(l.unit[KITHI_REGION_ROWS], c->row);
    assert_int_equal(l.unit[KITHI_REGION_UPPER], UPPER);
    assert_int_equal(l.unit[KITHI_REGION_IDS0], PLACE);
    assert_int_equal(l.size[KITHI_REGION_VECTORS] ? l.unit[KITHI_REGION_VECTORS] : 0, c->vector);
    assert_int_equal(l.size[KITHI_REGION_CODES] ? l.unit[KITHI_REGION_CODES] : 0, c->code);
}

/* What is taken is what the vectors need, and at most an eighth and a few pages ahead of it. */
static void assert_taken(const struct test_solo *t, unsigned region, uint64_t item)
{
    uint64_t taken = atomic_load(&test_solo_header(t)->taken[region]), need = item * N;
    if (taken < need || taken > need + need / 8 + (24u << 10))
        fail_msg("%s, keep %s, %u dimensions: %s took %" PRIu64 " bytes for %u vectors of %" PRIu64,
                 kithi_quantization_name(t->identity.geometry.quantization),
                 kithi_keep_name(t->identity.geometry.keep), t->identity.geometry.dim,
                 kithi_region_name(region), taken, (unsigned)N, item);
}

static void check(uint32_t dim, uint32_t quantization, uint32_t keep)
{
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = {
        .dim = dim, .metric = KITHI_METRIC_L2, .m = M, .ef_construction = 8, .slot_max = 100000
    };
    float *v = malloc(dim * sizeof *v);
    assert_non_null(v);
    kithi_geometry_want(&g, quantization, keep);
    test_rand_seed(&r, dim);
    test_solo_open(&t, &g);
    for (unsigned i = 0; i < N; i++) {
        char id[16];
        snprintf(id, sizeof id, "%08u", i);
        test_rand_floats(&r, v, dim);
        assert_int_equal(test_solo_put(&t, id, v), 0);
    }
    struct cost c = cost_of(&g);
    assert_layout(&g, &c);
    assert_taken(&t, KITHI_REGION_RECORDS, RECORD);
    assert_taken(&t, KITHI_REGION_ROWS, c.row);
    assert_taken(&t, KITHI_REGION_VECTORS, c.vector);
    assert_taken(&t, KITHI_REGION_CODES, c.code);
    for (unsigned i = 0; i < KITHI_BLOB_CLASS_COUNT; i++)
        assert_int_equal(atomic_load(&test_solo_header(&t)->tally_blob[i]), 0); /* short ids take none */
    double upper = (double)(atomic_load(&test_solo_header(&t)->tally_upper) * UPPER) / N;
    assert_true(upper < 3.0 * UPPER / (M - 1)); /* levels are drawn */
    test_solo_close(&t);
    free(v);
}

static void a_segment_takes_what_the_format_says(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DIMS; i++) {
        check(dims[i], KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
        for (uint32_t q = KITHI_QUANTIZATION_F16; q <= KITHI_QUANTIZATION_BITS; q++)
            for (uint32_t keep = KITHI_KEEP_F32; keep <= KITHI_KEEP_NONE; keep++)
                check(dims[i], q, keep);
    }
}

static void the_id_table_takes_what_is_said(void **state)
{
    (void)state;
    enum { FROM = 4096, TO = 20000 };
    struct test_solo t;
    struct test_rand r;
    const struct kithi_geometry g = {
        .dim = 2, .metric = KITHI_METRIC_L2, .m = 2, .ef_construction = 1, .slot_max = 2 * TO
    };
    double least = INFINITY, most = 0;
    test_rand_seed(&r, 1);
    test_solo_open(&t, &g);
    for (unsigned n = 1; n <= TO; n++) {
        char id[16];
        float v[2];
        snprintf(id, sizeof id, "%08u", n);
        test_rand_floats(&r, v, 2);
        assert_int_equal(test_solo_put(&t, id, v), 0);
        if (n < FROM) /* the first steps in which memory is taken are larger than the table */
            continue;
        const struct kithi_header *h = test_solo_header(&t);
        double places =
            (double)(atomic_load(&h->taken[KITHI_REGION_IDS0]) + atomic_load(&h->taken[KITHI_REGION_IDS1])) /
            (PLACE * (double)n);
        least = fmin(least, places);
        most = fmax(most, places);
    }
    print_message("%.2f to %.2f places a vector\n", least, most);
    assert_true(least >= PLACES_LEAST && most <= PLACES_MOST);
    test_solo_close(&t);
}

/*
 * Bytes that are kept alone cost at most 1.2 times what they are, their links and their id. Code: a byte an element,
 * without its head of 16. Links: 2m of four bytes, and upper rows. Id: the record, which says whose the vector is and since
 * when, and the places in the id table. The rest is the head and padding to cache lines.
 */
static void bytes_alone_cost_little_more_than_code_links_and_id(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DIMS; i++)
        for (unsigned full = 0; full < 2; full++) {
            struct kithi_geometry g = {
                .dim = dims[i], .metric = KITHI_METRIC_L2, .m = M, .ef_construction = 8, .slot_max = 100000
            };
            kithi_geometry_want(&g, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_NONE);
            struct cost c = cost_of(&g);
            assert_layout(&g, &c);
            double places = PLACE * (full ? PLACES_LEAST : PLACES_MOST);
            double id = RECORD + places, links = 2 * M * 4 + (double)UPPER / (M - 1);
            double all = sum(&c) + places, least = dims[i] + links + id;
            print_message("%u dimensions: %.0f bytes, %.3f of %u (code) + %.0f (links) + %.0f (id)\n",
                          dims[i], all, all / least, dims[i], links, id);
            assert_true(all <= 1.2 * least);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_segment_takes_what_the_format_says),
        cmocka_unit_test(the_id_table_takes_what_is_said),
        cmocka_unit_test(bytes_alone_cost_little_more_than_code_links_and_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
