/*
 * found.h - a doctor in a made-up system, and what one of its checks finds there.
 */
#ifndef KITHI_TEST_DOCTOR_FOUND_H
#define KITHI_TEST_DOCTOR_FOUND_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/tree.h"
#include "tools/doctor/doctor_priv.h"

/* f is this: words in its text, fix word by word (NULL: none). Frees f. */
static inline void assert_found(struct kithi_finding *f, enum kithi_doctor_state state, const char *words,
                                const char *fix)
{
    bool fixed = fix == NULL ? f->fix == NULL : f->fix != NULL && strcmp(f->fix, fix) == 0;
    if (f->state != state || strstr(f->text, words) == NULL || !fixed)
        fail_msg("found %s: %s; fix: %s\nwanted %s: %s; fix: %s", kithi_doctor_state_name(f->state), f->text,
                 f->fix != NULL ? f->fix : "none", kithi_doctor_state_name(state), words,
                 fix != NULL ? fix : "none");
    kithi_finding_free(f);
}

static inline void assert_check(kithi_check_fn *check, const struct kithi_doctor *d,
                                enum kithi_doctor_state state, const char *words, const char *fix)
{
    struct kithi_finding f = { 0 };
    check(d, &f);
    assert_found(&f, state, words, fix);
}

/* Kernel and container are looked at anew: files of the tree have changed. */
static inline struct kithi_doctor make_doctor(const struct test_dir *tree, const char *run_dir)
{
    struct kithi_doctor d = { .root = tree->path,
                              .opts = { .run_dir = run_dir, .run_rule = "from --run" },
                              .asked = { .status = KITHI_E_NO_DAEMON } };
    kithi_doctor_look(&d);
    return d;
}

#endif
