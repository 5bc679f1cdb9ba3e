/*
 * model_unlinked.cpp - [P3 unlinked]: a walk at epoch E that ends with unlinked <= E has missed nothing
 * that was visible at E.
 *
 * One slot holds version 1. It dies at epoch 2, is unlinked, rests, is refilled and linked again for
 * epoch 3. A walk finds it by one link, or does not.
 *
 *   writer                                  walk
 *     death = 2; epoch = 2  release           E = epoch           acquire
 *     unlinked = 2          relaxed           link                relaxed
 *     fence                 release (w)       the slot, by the rule of [P2 birth]
 *     link = 0              relaxed           fence               acquire (r)
 *     reused = 2; refill; link                unlinked > E ?      relaxed: yes, start again
 *     birth = 3             release
 *     epoch = 3             release
 *
 * w with r: whoever reads a link that was taken away (or, by [P2 birth], a slot that was refilled after
 * it) reads the mark. Links are relaxed on both sides, so only fences can say this: w holds the unlinking
 * back behind the mark, which a release store of the mark would not; r holds the mark's load back behind
 * all links that the walk read, and is taken once a walk.
 */
#include "tests/race/model.hpp"

enum {
    MARK_AFTER_UNLINKING = 1,
    NO_WRITER_FENCE,
    MARK_RELEASE_INSTEAD_OF_FENCE,
    NO_READER_FENCE,
    MARK_NOT_READ,
    MARK_READ_FIRST,
    MUTANT_COUNT = MARK_READ_FIRST
};

static const char *const names[] = {
    "",
    "mark stored after the unlinking",
    "no fence between mark and unlinking",
    "mark stored with release instead of the fence",
    "no fence before the mark is loaded",
    "mark not looked at",
    "mark loaded before the walk",
};

struct unlinked_model : rl::test_suite<unlinked_model, 2> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> epoch, unlinked, reused, link, birth, death, id;

    void before()
    {
        unlinked($).store(0, rl::mo_relaxed);
        reused($).store(0, rl::mo_relaxed);
        id($).store(1, rl::mo_relaxed);
        death($).store(0, rl::mo_relaxed);
        birth($).store(1, rl::mo_relaxed);
        link($).store(1, rl::mo_relaxed);
        epoch($).store(1, rl::mo_release);
    }

    void writer()
    {
        death($).store(2, rl::mo_relaxed);
        epoch($).store(2, rl::mo_release);

        if (mutant == MARK_AFTER_UNLINKING)
            link($).store(0, rl::mo_relaxed);
        unlinked($).store(2, mutant == MARK_RELEASE_INSTEAD_OF_FENCE ? rl::mo_release : rl::mo_relaxed);
        if (mutant != MARK_RELEASE_INSTEAD_OF_FENCE)
            fence_unless(NO_WRITER_FENCE, rl::mo_release);
        link($).store(0, rl::mo_relaxed);

        reused($).store(2, rl::mo_relaxed);
        birth($).store(0, rl::mo_release);
        rl::atomic_thread_fence(rl::mo_release, $);
        id($).store(3, rl::mo_relaxed);
        death($).store(0, rl::mo_relaxed);
        link($).store(1, rl::mo_relaxed);
        birth($).store(3, rl::mo_release);
        epoch($).store(3, rl::mo_release);
    }

    /* The id that the slot has at e, or 0: not visible, or dropped because it changed. */
    unsigned candidate(unsigned e)
    {
        unsigned b = birth($).load(rl::mo_acquire);
        unsigned d = death($).load(rl::mo_relaxed);
        unsigned name = id($).load(rl::mo_relaxed);
        rl::atomic_thread_fence(rl::mo_acquire, $);
        if (birth($).load(rl::mo_relaxed) != b)
            return 0;
        return b != 0 && b <= e && (d == 0 || e < d) ? name : 0;
    }

    void reader()
    {
        unsigned found = 0, mark = 0;
        unsigned e = epoch($).load(rl::mo_acquire);

        if (mutant == MARK_READ_FIRST)
            mark = unlinked($).load(rl::mo_acquire);
        if (link($).load(rl::mo_relaxed))
            found = candidate(e);
        fence_unless(NO_READER_FENCE, rl::mo_acquire);
        if (mutant != MARK_READ_FIRST && mutant != MARK_NOT_READ)
            mark = unlinked($).load(rl::mo_relaxed);
        if (mark > e)
            return; /* slept too long: start again */
        RL_ASSERT(found == (e == 1 ? 1u : e == 2 ? 0u : 3u));
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
    return model_main<unlinked_model>("[P3 unlinked] a walk without the mark is complete", names,
                                      MUTANT_COUNT);
}
