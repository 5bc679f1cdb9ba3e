/*
 * model_copied.cpp - [P16 copied]: a segment that is stored to while it is copied is the same as its copy in the end.
 *
 * One place of one block. It is stored to twice, and copied twice meanwhile; then nobody stores any more, and whatever the
 * flag says is left is copied. A copy that was torn is a copy of an older value here.
 *
 *   who stores                               who copies
 *     the place             relaxed            flag taken back      exchange, seq_cst (f)
 *     bit set               or, seq_cst (b)    any bits?            seq_cst (l)
 *     flag set?             seq_cst (s)        bits taken           exchange, seq_cst (t)
 *     flag = set            release            the place            relaxed, into the copy
 *
 * b with t: the copy sees the store of whoever set the bit before it was taken. The one order of f, l or t, and b, s: bits that
 * were looked at before b were looked at after f, which s then sees. So the flag stands, and there is another pass.
 */
#include "tests/race/model.hpp"

enum {
    TOLD_BEFORE = 1,
    BIT_RELAXED,
    BIT_ONLY_IF_CLEAR,
    FLAG_TAKEN_LAST,
    TAKEN_AFTER_COPY,
    NO_FLAG,
    ACQUIRE_AND_RELEASE,
    MUTANT_COUNT = ACQUIRE_AND_RELEASE
};

static const char *const names[] = {
    "",
    "told before it is stored",
    "bit set relaxed",
    "bit not set where it is seen to be set",
    "flag taken back behind the bits",
    "bits taken behind the copy",
    "flag not set",
    "acquire and release instead of one order",
};

struct copied_model : rl::test_suite<copied_model, 2> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> place, bits, flag, copy;

    void before()
    {
        place($).store(0, rl::mo_relaxed);
        copy($).store(9, rl::mo_relaxed);
        /* What was in use before is copied whatever was told. */
        bits($).store(1, rl::mo_relaxed);
        flag($).store(1, rl::mo_relaxed);
    }

    static rl::memory_order load_order()
    {
        return mutant == ACQUIRE_AND_RELEASE ? rl::mo_acquire : rl::mo_seq_cst;
    }

    static rl::memory_order change_order()
    {
        return mutant == ACQUIRE_AND_RELEASE ? rl::mo_acq_rel : rl::mo_seq_cst;
    }

    void tell()
    {
        rl::memory_order order = mutant == BIT_RELAXED ? rl::mo_relaxed : change_order();
        if (mutant != BIT_ONLY_IF_CLEAR || !bits($).load(load_order()))
            bits($).fetch_or(1, order);
        if (mutant != NO_FLAG && !flag($).load(load_order()))
            flag($).store(1, rl::mo_release);
    }

    void storer(unsigned value)
    {
        if (mutant == TOLD_BEFORE)
            tell();
        place($).store(value, rl::mo_relaxed);
        if (mutant != TOLD_BEFORE)
            tell();
    }

    void take_place()
    {
        copy($).store(place($).load(rl::mo_relaxed), rl::mo_relaxed);
    }

    void pass()
    {
        if (mutant == FLAG_TAKEN_LAST ? !flag($).load(load_order()) : !flag($).exchange(0, change_order()))
            return;
        if (bits($).load(load_order())) {
            if (mutant == TAKEN_AFTER_COPY)
                take_place();
            bits($).exchange(0, change_order());
            if (mutant != TAKEN_AFTER_COPY)
                take_place();
        }
        if (mutant == FLAG_TAKEN_LAST)
            flag($).store(0, rl::mo_seq_cst);
    }

    void thread(unsigned index)
    {
        if (index == 0) {
            storer(1);
            storer(2);
        } else {
            pass();
            pass();
        }
    }

    /* No job runs any more, and its end was seen. */
    void after()
    {
        pass();
        RL_ASSERT(copy($).load(rl::mo_relaxed) == place($).load(rl::mo_relaxed));
    }
};

int main()
{
    return model_main<copied_model>("[P16 copied] no store is missed", names, MUTANT_COUNT);
}
