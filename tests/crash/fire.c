/*
 * fire.c - see fire.h.
 */
#include "tests/crash/fire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>

#define VECTORS 3000u

struct test_daemon kithd;
struct workload work;
struct test_rand r;

int fire_set_up(void **state)
{
    (void)state;
    test_rand_seed(&r, test_seed());
    test_daemon_init(&kithd);
    workload_init(&work, &kithd, test_seed(), VECTORS, FIRE_DIM);
    if (test_daemon_start(&kithd) < 0)
        return -1;
    workload_load(&work);
    return 0;
}

int fire_tear_down(void **state)
{
    (void)state;
    struct workload_tally tally;
    test_daemon_kill(&kithd);
    bool ok = workload_finish(&work, &tally);
    test_daemon_fini(&kithd);
    return ok ? 0 : -1;
}

void fire_check(const char *what)
{
    struct workload_tally tally;
    if (!workload_check(&work, &tally)) {
        test_daemon_show_log(&kithd);
        fail_msg("after %s", what);
    }
    fprintf(stderr, "%s: %u of %u open batches are there\n", what, tally.applied, tally.pending);
}

void fire_start_with_fault(const char *point, uint32_t passage)
{
    test_daemon_kill(&kithd);
    snprintf(kithd.fault, sizeof kithd.fault, "%s:%u", point, passage);
    test_daemon_spawn(&kithd);
}

int fire_wait_for_death(const char *point)
{
    uint64_t end = test_now_ms() + FIRE_DEATH_MS;
    int status = -1;
    while (test_daemon_alive(&kithd, &status)) {
        if (test_now_ms() > end) {
            test_daemon_show_log(&kithd);
            fail_msg("kithd never came to %s", point);
        }
        test_nap();
    }
    return status;
}

void fire_start_again(void)
{
    kithd.fault[0] = '\0';
    if (test_daemon_start(&kithd) < 0) {
        test_daemon_show_log(&kithd);
        fail_msg("kithd does not start again");
    }
}
