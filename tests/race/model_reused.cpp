/*
 * model_reused.cpp - [P4 reused]: a scan of records at epoch E that ends with reused <= E has missed
 * nothing that was visible at E.
 *
 * A scan needs no finder, so unlinking does not matter to it; it misses a version only when the slot was
 * refilled before it came by.
 *
 *   writer                                  scan
 *     death = 2; epoch = 2  release           E = epoch           acquire
 *     reused = 2            relaxed           the slot, by the rule of [P2 birth]
 *     birth = 0             release (w)       fence               acquire (r)
 *     fence                 release           reused > E ?        relaxed: yes, start again
 *     fill                  of [P2 birth]
 *     birth = 3             release
 *     epoch = 3             release
 *
 * w with r: whoever reads birth 0 reads the mark. The fence of [P2 birth] comes too late for that, and a
 * release store of the mark does not hold back a relaxed 0.
 */
#include "tests/race/model.hpp"

enum {
    MARK_AFTER_BIRTH = 1,
    BIRTH_RELAXED,
    MARK_RELEASE_INSTEAD_OF_BIRTH,
    NO_READER_FENCE,
    MARK_NOT_READ,
    MUTANT_COUNT = MARK_NOT_READ
};

static const char *const names[] = {
    "",
    "mark stored after birth = 0",
    "birth = 0 stored relaxed",
    "mark stored with release instead of birth = 0",
    "no fence before the mark is loaded",
    "mark not looked at",
};

struct reused_model : rl::test_suite<reused_model, 2> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> epoch, reused, birth, death, id;

    void before()
    {
        reused($).store(0, rl::mo_relaxed);
        id($).store(1, rl::mo_relaxed);
        death($).store(0, rl::mo_relaxed);
        birth($).store(1, rl::mo_relaxed);
        epoch($).store(1, rl::mo_release);
    }

    void writer()
    {
        death($).store(2, rl::mo_relaxed);
        epoch($).store(2, rl::mo_release);

        if (mutant == MARK_AFTER_BIRTH)
            birth($).store(0, rl::mo_relaxed);
        reused($).store(2, mutant == MARK_RELEASE_INSTEAD_OF_BIRTH ? rl::mo_release : rl::mo_relaxed);
        birth($).store(0, mutant == MARK_RELEASE_INSTEAD_OF_BIRTH
                              ? rl::mo_relaxed
                              : order_unless(BIRTH_RELAXED, rl::mo_release));
        rl::atomic_thread_fence(rl::mo_release, $);
        id($).store(3, rl::mo_relaxed);
        death($).store(0, rl::mo_relaxed);
        birth($).store(3, rl::mo_release);
        epoch($).store(3, rl::mo_release);
    }

    void reader()
    {
        unsigned found = 0, mark = 0;
        unsigned e = epoch($).load(rl::mo_acquire);
        unsigned b = birth($).load(rl::mo_acquire);

        if (b != 0 && b <= e) {
            unsigned d = death($).load(rl::mo_relaxed);
            unsigned name = id($).load(rl::mo_relaxed);
            rl::atomic_thread_fence(rl::mo_acquire, $);
            if (birth($).load(rl::mo_relaxed) == b && (d == 0 || e < d))
                found = name;
        }
        fence_unless(NO_READER_FENCE, rl::mo_acquire);
        if (mutant != MARK_NOT_READ)
            mark = reused($).load(rl::mo_relaxed);
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
    return model_main<reused_model>("[P4 reused] a scan without the mark is complete", names, MUTANT_COUNT);
}
