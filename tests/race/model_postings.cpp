/*
 * model_postings.cpp - [P19 postings]: a reader that may rely on postings has met every slot that its epoch sees.
 *
 * A slot has value A at epoch 1, and value B from epoch 2 on. The container of A becomes a larger one, with the slot copied into it. Two eras after the change the slot goes from
 * A, and the container that A had at first is filled with something else.
 *
 *   writer                                        reader
 *     copied into the larger container relaxed      w = era            acquire (r)
 *     A leads to that      release (w1)             e = epoch          acquire (e)
 *     slot into B          relaxed                  container of A     acquire (c)
 *     epoch = 2            release (w2)             slot in it, in B   relaxed
 *     era = 2, era = 3     release (w3)             fence              acquire (f)
 *     fence                release (w4), each       era again          relaxed: less than two later?
 *     gone from both       relaxed
 *
 * w1 with c: who finds the larger container finds what was copied into it. w2 with e: B has the slot before epoch 2 shows that it has the value. w3 with r: who
 * meets an era meets the epochs before it, so a snapshot that A still belongs to has begun in the first era. w4 with f: who meets that
 * something is gone meets the era behind which it went.
 */
#include "tests/race/model.hpp"

enum {
    COPY_RELAXED = 1,
    COPY_LATE,
    EPOCH_RELAXED,
    ADDED_LATE,
    ERA_RELAXED,
    NO_WRITER_FENCE,
    ONE_ERA,
    ERA_LOAD_RELAXED,
    ERA_LOADED_LATE,
    EPOCH_LOAD_RELAXED,
    CONTAINER_LOAD_RELAXED,
    NO_READER_FENCE,
    NO_SECOND_LOAD,
    ERAS_IGNORED,
    MUTANT_COUNT = ERAS_IGNORED
};

static const char *const names[] = {
    "",
    "the word that leads to the larger container stored relaxed",
    "the word stored before the container is filled",
    "epoch stored relaxed",
    "slot added after the epoch",
    "eras stored relaxed",
    "no fence between an era and what goes",
    "what goes does so after one era",
    "era loaded relaxed",
    "era loaded after the epoch",
    "epoch loaded relaxed",
    "the word of the container loaded relaxed",
    "no fence before the second load of the era",
    "no second load of the era",
    "an era that is two later taken for good",
};

struct postings_model : rl::test_suite<postings_model, 2> {
    static bool const exhaustive = false;
    rl::atomic<unsigned> epoch, era, container;
    rl::atomic<unsigned> in_a[2], in_b;

    void before()
    {
        epoch($).store(1, rl::mo_relaxed);
        era($).store(1, rl::mo_relaxed);
        container($).store(0, rl::mo_relaxed);
        in_a[0]($).store(1, rl::mo_relaxed);
        in_a[1]($).store(0, rl::mo_relaxed);
        in_b($).store(0, rl::mo_relaxed);
    }

    void next_era(unsigned number)
    {
        era($).store(number, order_unless(ERA_RELAXED, rl::mo_release));
        fence_unless(NO_WRITER_FENCE, rl::mo_release);
    }

    void writer()
    {
        if (mutant == COPY_LATE)
            container($).store(1, rl::mo_release);
        in_a[1]($).store(1, rl::mo_relaxed);
        container($).store(1, order_unless(COPY_RELAXED, rl::mo_release));
        if (mutant != ADDED_LATE)
            in_b($).store(1, rl::mo_relaxed);
        epoch($).store(2, order_unless(EPOCH_RELAXED, rl::mo_release));
        if (mutant == ADDED_LATE)
            in_b($).store(1, rl::mo_relaxed);
        next_era(2);
        if (mutant != ONE_ERA)
            next_era(3);
        in_a[0]($).store(0, rl::mo_relaxed); /* something else by now */
        in_a[1]($).store(0, rl::mo_relaxed);
    }

    void reader()
    {
        unsigned w, e;
        if (mutant == ERA_LOADED_LATE) {
            e = epoch($).load(rl::mo_acquire);
            w = era($).load(rl::mo_acquire);
        } else {
            w = era($).load(order_unless(ERA_LOAD_RELAXED, rl::mo_acquire));
            e = epoch($).load(order_unless(EPOCH_LOAD_RELAXED, rl::mo_acquire));
        }
        unsigned at = container($).load(order_unless(CONTAINER_LOAD_RELAXED, rl::mo_acquire));
        bool a = in_a[at]($).load(rl::mo_relaxed) != 0, b = in_b($).load(rl::mo_relaxed) != 0;
        fence_unless(NO_READER_FENCE, rl::mo_acquire);
        unsigned now = mutant == NO_SECOND_LOAD ? w : era($).load(rl::mo_relaxed);
        if (now - w >= 2 && mutant != ERAS_IGNORED)
            return; /* too slow: it looks at all payloads */
        RL_ASSERT(e == 1 ? a : b);
    }

    void thread(unsigned index)
    {
        if (index == 0)
            writer();
        else
            reader();
    }
};

int main()
{
    return model_main<postings_model>(
        "[P19 postings] candidates are all that the epoch sees, or it is known that they may not be", names,
        MUTANT_COUNT);
}
