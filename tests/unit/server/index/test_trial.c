/*
 * test_trial.c - layouts are compared on the collection's own vectors, and the one that is chosen is among the best.
 */
#include "server/index/trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define BATCH   500u
#define CENTRES 40u

static struct test_rand r;

/* count vectors around CENTRES points. */
static void fill(struct test_solo *t, uint32_t dim, uint32_t metric, uint32_t count)
{
    static char ids[BATCH][16];
    struct kithi_op ops[BATCH];
    struct kithi_geometry g = test_geometry(dim, metric, count);
    float *centres = malloc(CENTRES * dim * sizeof *centres), *v = malloc(BATCH * dim * sizeof *v);
    assert_true(centres && v);
    test_rand_floats(&r, centres, (size_t)CENTRES * dim);
    test_solo_open(t, &g);
    for (uint32_t first = 0; first < count; first += BATCH) {
        uint32_t n = count - first < BATCH ? count - first : BATCH;
        for (uint32_t i = 0; i < n; i++) {
            const float *centre = centres + test_rand_below(&r, CENTRES) * dim;
            snprintf(ids[i], sizeof ids[i], "%u", first + i);
            for (uint32_t j = 0; j < dim; j++)
                v[i * dim + j] = centre[j] + 0.5f * test_rand_float(&r);
            ops[i] = test_upsert(ids[i], v + (size_t)i * dim, dim);
        }
        assert_int_equal(test_solo_commit(t, ops, n), 0);
    }
    free(centres);
    free(v);
}

struct job {
    struct kithi_trial *trial;
    unsigned worker;
    int count;
};

/* Every other job. */
static void *run_half(void *arg)
{
    const struct job *j = arg;
    for (int i = (int)j->worker; i < j->count; i += 2)
        kithi_trial_job(j->trial, j->worker, (uint32_t)i);
    return NULL;
}

static void run(struct kithi_trial *t)
{
    struct kithi_errmsg err = { 0 };
    int jobs;
    while ((jobs = kithi_trial_stage(t, &err)) > 0) {
        struct job mine = { t, 0, jobs }, other = { t, 1, jobs };
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, run_half, &other), 0);
        run_half(&mine);
        pthread_join(thread, NULL);
    }
    if (jobs < 0)
        fail_msg("%s", err.text);
}

static const struct kithi_trial_result *chosen(const struct kithi_trial *t)
{
    for (uint32_t i = 0; i < kithi_trial_count(t); i++)
        if (kithi_trial_result(t, i)->quantization == kithi_trial_choice(t))
            return kithi_trial_result(t, i);
    fail_msg("the choice is none of those that were measured");
    return NULL;
}

static void check(const struct kithi_trial *t)
{
    const struct kithi_trial_result *choice = chosen(t);
    assert_true(choice->reached && choice->cost_us > 0 && choice->search_us > 0);
    assert_true(kithi_trial_target(t) > 0.5 && kithi_trial_target(t) <= 0.99);
    for (uint32_t i = 0; i < kithi_trial_count(t); i++) {
        const struct kithi_trial_result *l = kithi_trial_result(t, i);
        fprintf(stderr, "%s: recall %.3f at ef %u, search %.1f us, insertion %.1f us%s\n",
                kithi_quantization_name(l->quantization), l->recall, l->ef, l->search_us, l->insert_us,
                l == choice ? ", chosen" : "");
        assert_true(l->insert_us > 0 && l->recall > 0 && l->recall <= 1);
        assert_true(!l->reached || choice->cost_us <= 1.3 * l->cost_us);
    }
}

static struct kithi_trial *begin(struct test_solo *t, uint32_t keep)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_trial *trial;
    if (kithi_trial_new(t->ix, keep, 2, &trial, &err) < 0)
        fail_msg("%s", err.text);
    return trial;
}

static void short_vectors_are_not_given_neighbour_codes(void **state)
{
    (void)state;
    struct test_solo t;
    fill(&t, 8, KITHI_METRIC_L2, 3000);
    struct kithi_trial *trial = begin(&t, KITHI_KEEP_F32);
    run(trial);
    check(trial);
    assert_int_equal(kithi_trial_count(trial), 2);
    assert_int_not_equal(kithi_trial_choice(trial), KITHI_QUANTIZATION_BITS);
    kithi_trial_free(trial);
    test_solo_close(&t);
}

static void long_vectors_get_what_was_measured_to_be_best(void **state)
{
    (void)state;
    struct test_solo t;
    fill(&t, 784, KITHI_METRIC_COSINE, 2000);
    struct kithi_trial *trial = begin(&t, KITHI_KEEP_F32);
    run(trial);
    check(trial);
    assert_int_equal(kithi_trial_count(trial), 3);
    kithi_trial_free(trial);
    test_solo_close(&t);
}

static void only_layouts_that_keep_what_is_wanted_are_compared(void **state)
{
    (void)state;
    struct test_solo t;
    fill(&t, 64, KITHI_METRIC_IP, 1000);
    for (uint32_t keep = KITHI_KEEP_F16; keep <= KITHI_KEEP_NONE; keep++) {
        struct kithi_trial *trial = begin(&t, keep);
        run(trial);
        check(trial);
        assert_int_equal(kithi_trial_count(trial), 3);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_not_equal(kithi_trial_result(trial, i)->quantization, KITHI_QUANTIZATION_NONE);
        kithi_trial_free(trial);
    }
    test_solo_close(&t);
}

static void the_sample_is_a_copy_and_deleted_vectors_are_not_in_it(void **state)
{
    (void)state;
    struct test_solo t;
    fill(&t, 16, KITHI_METRIC_L2, 2000);
    for (uint32_t i = 0; i < 1900; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_delete(&t, id), 0);
    }
    struct kithi_trial *trial = begin(&t, KITHI_KEEP_F32); /* of the hundred that are left */
    test_solo_close(&t);
    run(trial);
    check(trial);
    kithi_trial_free(trial);
}

static void too_few_vectors_are_refused(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err = { 0 };
    struct kithi_trial *trial;
    fill(&t, 16, KITHI_METRIC_L2, 20);
    assert_int_equal(kithi_trial_new(t.ix, KITHI_KEEP_F32, 2, &trial, &err), KITHI_E_NOT_FOUND);
    assert_true(strlen(err.text) > 10);
    test_solo_close(&t);
}

static void a_cancelled_trial_ends_at_its_next_stage(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err = { 0 };
    fill(&t, 16, KITHI_METRIC_L2, 1000);
    for (int stages = 0; stages < 4; stages++) {
        struct kithi_trial *trial = begin(&t, KITHI_KEEP_F32);
        for (int s = 0; s < stages; s++) {
            int jobs = kithi_trial_stage(trial, &err);
            assert_true(jobs > 0);
            if (s == stages - 1)
                kithi_trial_cancel(trial);
            for (int i = 0; i < jobs; i++)
                kithi_trial_job(trial, 0, (uint32_t)i);
        }
        if (stages)
            assert_int_equal(kithi_trial_stage(trial, &err), -ECANCELED);
        kithi_trial_free(trial);
    }
    test_solo_close(&t);
}

int main(void)
{
    test_rand_init(&r);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_vectors_are_not_given_neighbour_codes),
        cmocka_unit_test(long_vectors_get_what_was_measured_to_be_best),
        cmocka_unit_test(only_layouts_that_keep_what_is_wanted_are_compared),
        cmocka_unit_test(the_sample_is_a_copy_and_deleted_vectors_are_not_in_it),
        cmocka_unit_test(too_few_vectors_are_refused),
        cmocka_unit_test(a_cancelled_trial_ends_at_its_next_stage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
