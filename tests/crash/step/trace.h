/*
 * trace.h - run a writer (step.h) under ptrace and judge every state that it goes through.
 */
#ifndef KITHI_TEST_STEP_TRACE_H
#define KITHI_TEST_STEP_TRACE_H

#include "tests/crash/step/judge.h"
#include "tests/support/child.h"

struct step_figures {
    uint64_t stops;  /* instructions after which the writer was stopped */
    uint64_t states; /* of them, those with other bytes in segment or log than the one before */
    uint64_t judged; /* states that were judged: all of them, unless only a share was asked for */
    uint64_t bad;
};

struct step_tracer {
    const struct step_world *world;
    struct step_shared *shared;
    struct test_model *model, *payloads;
    const struct test_dir *dir;
    struct step_frozen frozen;
    struct step_judge judge;
    uint32_t operations;                /* a bit for each that is stepped through */
    uint32_t share;                     /* one state in so many is judged */
    uint32_t phases;                    /* one phase of an operation in so many is stepped through */
    uint32_t met[STEP_OPERATION_COUNT]; /* phases of it so far */
    struct test_rand r;
    struct step_figures figures[STEP_OPERATION_COUNT];

    /* A state of each operation, chosen evenly among those that were judged, for STEP_ADOPT. */
    struct step_crash crashes[STEP_OPERATION_COUNT];
    uint32_t candidates[STEP_OPERATION_COUNT]; /* for that, so far */
    unsigned crash_count;                      /* ever saved */

    uint32_t phase;
    uint64_t step; /* in the phase */
};

/* Where the last judgement was, for whoever has to say it after a signal. */
extern const char *step_position;

/* Whether a child can be stepped through here; false after a message that says why not. */
bool step_permitted(void);

/* Step through the whole script of t->world, or through the adoption of crash. False when the writer died by itself. */
bool step_run(struct step_tracer *t, const struct step_crash *crash);

#endif
