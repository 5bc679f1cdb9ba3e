/*
 * model_emptied.cpp - [P9 emptied]: a walk that stands on a dead slot while its row is emptied begins again.
 *
 * Dead slot D leads to dead slot C, which leads to the living L. The sweep has led the entry point to L and
 * then empties the rows of its batch; later D is refilled. The dead died at or before the walk's epoch, so
 * that the marks say nothing about them.
 *
 *   writer                                walk
 *     entry = L         release             before = emptied   acquire (a)
 *     emptied = 1       release (s)         entry              acquire
 *     fence             release (w)         D: its link        relaxed
 *     D's link = 0      relaxed             fence              acquire (r)
 *     D's link = other  relaxed             emptied == before? relaxed: no, start again
 *
 * s with a: who begins with the new count begins at L. w with r: who met the emptied row meets the count. The
 * fence cannot stand for s, nor s for the fence: one holds back what precedes, the other what follows.
 */
#include "tests/race/model.hpp"

enum {
    COUNT_RELAXED = 1,
    NO_WRITER_FENCE,
    COUNT_AFTER_EMPTYING,
    FIRST_LOAD_RELAXED,
    NO_READER_FENCE,
    COUNT_NOT_READ,
    MUTANT_COUNT = COUNT_NOT_READ
};

static const char *const names[] = {
    "",
    "count stored relaxed",
    "no fence between count and emptying",
    "count stored after the emptying",
    "first load of the count relaxed",
    "no fence before the second load of the count",
    "count not looked at again",
};

enum { SLOT_D = 1, SLOT_C = 2, SLOT_L = 3, SLOT_OTHER = 4 };

struct emptied_model : rl::test_suite<emptied_model, 2> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> emptied, entry, link;

    void before()
    {
        emptied($).store(0, rl::mo_relaxed);
        link($).store(SLOT_C, rl::mo_relaxed);
        entry($).store(SLOT_D, rl::mo_release);
    }

    void writer()
    {
        entry($).store(SLOT_L, rl::mo_release);
        if (mutant == COUNT_AFTER_EMPTYING)
            link($).store(0, rl::mo_relaxed);
        emptied($).store(1, order_unless(COUNT_RELAXED, rl::mo_release));
        fence_unless(NO_WRITER_FENCE, rl::mo_release);
        link($).store(0, rl::mo_relaxed);
        link($).store(SLOT_OTHER, rl::mo_relaxed);
    }

    void reader()
    {
        unsigned before = emptied($).load(order_unless(FIRST_LOAD_RELAXED, rl::mo_acquire));
        unsigned at = entry($).load(rl::mo_acquire);
        bool found = at == SLOT_L;

        if (!found) {
            found = link($).load(rl::mo_relaxed) == SLOT_C;
            fence_unless(NO_READER_FENCE, rl::mo_acquire);
            if (mutant != COUNT_NOT_READ && emptied($).load(rl::mo_relaxed) != before)
                return; /* start again */
        }
        RL_ASSERT(found);
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
    return model_main<emptied_model>("[P9 emptied] a walk does not end on an emptied row", names,
                                     MUTANT_COUNT);
}
