/*
 * model_birth.cpp - [P2 birth]: a candidate that is kept is of one piece and of the birth that was read.
 *
 * One slot is refilled twice while a reader copies it. The slot's bytes are two words that carry the
 * number of their birth, the death is a third one.
 *
 *   writer                               reader
 *     birth = 0           relaxed          b = birth             acquire   (a)
 *     fence               release (w1)     bytes, death          relaxed
 *     bytes, death        relaxed          fence                 acquire   (r)
 *     birth = new         release (w2)     birth == b ?          relaxed
 *
 * w2 with a: whoever reads the new birth reads its bytes. w1 with r: whoever reads bytes of a later
 * filling reads, in its second load, the 0 that came before them or something newer. An order on the
 * word cannot replace w1 (a release store does not hold back what follows it) nor r (an acquire load
 * does not hold back what precedes it): the mutants try both.
 */
#include "tests/race/model.hpp"

enum {
    NO_WRITER_FENCE = 1,
    WRITER_RELEASE_INSTEAD_OF_FENCE,
    WRITER_FILLS_FIRST,
    NEW_BIRTH_RELAXED,
    FIRST_LOAD_RELAXED,
    NO_READER_FENCE,
    READER_ACQUIRE_INSTEAD_OF_FENCE,
    NO_SECOND_LOAD,
    MUTANT_COUNT = NO_SECOND_LOAD
};

static const char *const names[] = {
    "",
    "no fence between birth = 0 and the filling",
    "birth = 0 stored with release instead of the fence",
    "birth = 0 stored after the first bytes",
    "new birth stored relaxed",
    "first load of birth relaxed",
    "no fence before the second load of birth",
    "second load of birth with acquire instead of the fence",
    "no second load of birth",
};

struct birth_model : rl::test_suite<birth_model, 2> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> birth, death, low, high;

    void before()
    {
        low($).store(1, rl::mo_relaxed);
        high($).store(1, rl::mo_relaxed);
        death($).store(2, rl::mo_relaxed); /* the first version has died already */
        birth($).store(1, rl::mo_release);
    }

    void refill(unsigned number)
    {
        if (mutant == WRITER_FILLS_FIRST)
            low($).store(number, rl::mo_relaxed);
        birth($).store(0, mutant == WRITER_RELEASE_INSTEAD_OF_FENCE ? rl::mo_release : rl::mo_relaxed);
        if (mutant != WRITER_RELEASE_INSTEAD_OF_FENCE)
            fence_unless(NO_WRITER_FENCE, rl::mo_release);
        low($).store(number, rl::mo_relaxed);
        death($).store(0, rl::mo_relaxed);
        high($).store(number, rl::mo_relaxed);
        birth($).store(number, order_unless(NEW_BIRTH_RELAXED, rl::mo_release));
    }

    void reader()
    {
        unsigned b = birth($).load(order_unless(FIRST_LOAD_RELAXED, rl::mo_acquire));
        unsigned a = low($).load(rl::mo_relaxed);
        unsigned d = death($).load(rl::mo_relaxed);
        unsigned c = high($).load(rl::mo_relaxed);
        rl::memory_order second = rl::mo_relaxed;

        if (mutant == READER_ACQUIRE_INSTEAD_OF_FENCE)
            second = rl::mo_acquire;
        else
            fence_unless(NO_READER_FENCE, rl::mo_acquire);
        unsigned again = mutant == NO_SECOND_LOAD ? b : birth($).load(second);

        if (b == 0 || again != b)
            return; /* dropped, not waited for */
        RL_ASSERT(a == b && c == b);
        RL_ASSERT(b != 1 || d == 2); /* the death of an old version never reads as the new one's */
    }

    void thread(unsigned index)
    {
        if (index == 0) {
            refill(3);
            refill(4);
        } else {
            reader();
        }
    }
};

int main()
{
    return model_main<birth_model>("[P2 birth] kept candidates are whole", names, MUTANT_COUNT);
}
