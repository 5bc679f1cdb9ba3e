/*
 * test_prefetch.c - prefetch distances are tried on the live segment, published, and clamped by whoever reads them.
 */
#include "server/index/prefetch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "shm/graph/view.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM 200u

static struct test_rand r;

static void fill(struct test_solo *t, uint32_t quantization, uint32_t count)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, count);
    kithi_geometry_want(&g, quantization, KITHI_KEEP_F32);
    test_solo_open(t, &g);
    for (uint32_t i = 0; i < count; i++) {
        char id[16];
        float v[DIM];
        snprintf(id, sizeof id, "%u", i);
        test_rand_floats(&r, v, DIM);
        assert_int_equal(test_solo_put(t, id, v), 0);
    }
}

static void what_was_measured_is_published_and_lies_within_rows_and_codes(void **state)
{
    (void)state;
    static const uint32_t layouts[] = { KITHI_QUANTIZATION_NONE, KITHI_QUANTIZATION_BITS };
    for (unsigned i = 0; i < 2; i++) {
        struct test_solo t;
        struct kithi_errmsg err = { 0 };
        struct kithi_prefetch p;
        struct kithi_view v;
        _Atomic bool cancel = false;
        fill(&t, layouts[i], 1500);
        if (kithi_prefetch_measure(t.path, &cancel, &p, &err) < 0)
            fail_msg("%s", err.text);
        kithi_view_begin(test_solo_map(&t), &v);
        assert_true(p.row >= 1 && p.code >= 1 && p.after_us > 0 && p.before_us > 0);
        kithi_prefetch_publish(t.ix, &p);
        assert_int_equal(atomic_load(&test_solo_header(&t)->prefetch_row), p.row);
        assert_int_equal(atomic_load(&test_solo_header(&t)->prefetch_code), p.code);
        kithi_view_begin(test_solo_map(&t), &v);
        assert_true(v.prefetch_row <= p.row && v.prefetch_code <= p.code);
        assert_true(test_solo_clean(&t));
        test_solo_close(&t);
    }
}

static void a_reader_clamps_whatever_stands_in_the_header(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_view v;
    float q[DIM] = { 0 };
    fill(&t, KITHI_QUANTIZATION_BITS, 100);
    const struct kithi_layout *l = &test_solo_map(&t)->layout;
    atomic_store(&test_solo_header(&t)->prefetch_row, UINT32_MAX);
    atomic_store(&test_solo_header(&t)->prefetch_code, UINT32_MAX);
    kithi_view_begin(test_solo_map(&t), &v);
    assert_int_equal(v.prefetch_row, l->row_stride / KITHI_CACHE_LINE);
    assert_int_equal(v.prefetch_code, l->code_stride / KITHI_CACHE_LINE);
    assert_int_equal(test_solo_search(&t, q, 10, 64, false), 10);
    test_solo_close(&t);
}

static void few_vectors_and_a_cancelled_measurement_say_so(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err = { 0 };
    struct kithi_prefetch p;
    _Atomic bool cancel = false;
    fill(&t, KITHI_QUANTIZATION_NONE, 100);
    assert_int_equal(kithi_prefetch_measure(t.path, &cancel, &p, &err), KITHI_E_NOT_FOUND);
    test_solo_close(&t);
    fill(&t, KITHI_QUANTIZATION_NONE, 1500);
    cancel = true;
    assert_int_equal(kithi_prefetch_measure(t.path, &cancel, &p, &err), -ECANCELED);
    test_solo_close(&t);
}

int main(void)
{
    test_rand_init(&r);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_measured_is_published_and_lies_within_rows_and_codes),
        cmocka_unit_test(a_reader_clamps_whatever_stands_in_the_header),
        cmocka_unit_test(few_vectors_and_a_cancelled_measurement_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
