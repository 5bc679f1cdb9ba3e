/*
 * judge.h - is what a dead writer left good? Looks at a frozen state (frozen.h) as readers, the next daemon, and the one
 * after that would.
 */
#ifndef KITHI_TEST_STEP_JUDGE_H
#define KITHI_TEST_STEP_JUDGE_H

#include "shm/graph/results.h"
#include "shm/graph/scratch.h"
#include "tests/crash/step/frozen.h"
#include "tests/support/rand.h"

/* What may be there: promises that were made before the writer died. */
struct step_promise {
    uint64_t epoch_before; /* nothing less is visible */
    uint64_t epoch_after;  /* and nothing more, by way of the log either */
    uint64_t durable;      /* what the log has said is there after recovery */
    uint64_t acked;        /* and so is what was published */
};

struct step_judge {
    const struct step_world *world;
    const struct test_model *model, *payloads;
    struct step_frozen *frozen;
    struct kithi_scratch scratch;
    struct kithi_results results;
    struct test_rand r;
    char where[192];               /* of the state at hand, for messages */
    unsigned told;                 /* messages so far */
    uint64_t searches;             /* of readers, in frozen states */
    uint64_t found, least;         /* hits of walks, and how many there were to be found */
    struct kithi_collection *cold; /* as the loader takes it */
    uint64_t trials;               /* states judged */
    int64_t untaken;               /* step_untaken_bytes() of a segment from the beginning */
};

void step_judge_init(struct step_judge *j, const struct step_world *w, const struct test_model *m,
                     const struct test_model *payloads, struct step_frozen *f);
void step_judge_fini(struct step_judge *j);

/*
 * Judge the image of j->frozen: false after a message that says what is wrong.
 *
 *   1  readers, before anybody has taken it over: verify, content, searches and look-ups at the epoch that it shows
 *   2  adopted: the same once more, through the mapping that was there before; what an adoption leaves for later (the
 *      census) is done between the steps that follow
 *   3  recovered: the log is replayed; all that was promised is there, and the group is there whole or not at all
 *   4  it goes on: writes and deletes are possible
 *   5  adopted once more, as if that had died at its end; swept, until nothing is left to sweep and nothing has leaked
 *   6  2, 4 and 5 from the beginning, without the log; every other time without the notes of the dead owner
 *   7  where there are checkpoints: 3 and 4 without the segment, from the newest one, and once more from the one before it
 */
bool step_judge(struct step_judge *j, const struct step_promise *p);

#endif
