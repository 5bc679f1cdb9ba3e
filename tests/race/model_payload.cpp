/*
 * model_payload.cpp - [P18 payload]: what a reader keeps is the version of its epoch, of one piece.
 *
 * The payload of one slot is changed twice. The first change takes another blob; then the first blob is freed and the second change
 * takes that. Bytes are two words that carry the number of their version, which is its epoch.
 *
 *   writer                                      reader
 *     birth = 0              release              E = epoch              acquire (e)
 *     fence                  release (w1)         ref = record           acquire (p)
 *     bytes, prev            relaxed              b = birth              acquire (a)
 *     birth = new            release (w2)         prev, bytes            relaxed
 *     record = ref           release (w3)         fence                  acquire (r)
 *     epoch = new            release (w4)         birth == b ?           relaxed
 *                                                 b > E: on to prev
 *
 * w1 with r and w2 with a are those of P2. w3 with p: who finds a blob by the record reads the birth with which it was put there, and not
 * that of its time before, which would say that it is the version of an older epoch. For the bytes of the newest version either of the two pairs is enough, and
 * a birth of two stores ago is beyond what is searched here, so the mutants take both pairs away. w4 with e: the record leads to the version of E or to a later one.
 */
#include "tests/race/model.hpp"

enum {
    NO_WRITER_FENCE = 1,
    STORES_RELAXED,
    EPOCH_RELAXED,
    EPOCH_FIRST,
    LOADS_RELAXED,
    NO_READER_FENCE,
    NO_SECOND_LOAD,
    MUTANT_COUNT = NO_SECOND_LOAD
};

static const char *const names[] = {
    "",
    "no fence between birth = 0 and the filling",
    "new birth and record stored relaxed",
    "epoch stored relaxed",
    "epoch stored before the record",
    "record and birth loaded relaxed",
    "no fence before the second load of birth",
    "no second load of birth",
};

struct payload_model : rl::test_suite<payload_model, 2> {
    static bool const exhaustive = false;
    rl::atomic<unsigned> epoch, record;
    rl::atomic<unsigned> birth[2], prev[2], low[2], high[2];

    void before()
    {
        for (unsigned i = 0; i < 2; i++) {
            birth[i]($).store(i ? 0 : 1, rl::mo_relaxed);
            prev[i]($).store(0, rl::mo_relaxed);
            low[i]($).store(1, rl::mo_relaxed);
            high[i]($).store(1, rl::mo_relaxed);
        }
        record($).store(1, rl::mo_relaxed); /* blob + 1 */
        epoch($).store(1, rl::mo_relaxed);
    }

    void change(unsigned blob, unsigned number)
    {
        birth[blob]($).store(0, rl::mo_release);
        fence_unless(NO_WRITER_FENCE, rl::mo_release);
        low[blob]($).store(number, rl::mo_relaxed);
        prev[blob]($).store(2 - blob, rl::mo_relaxed);
        high[blob]($).store(number, rl::mo_relaxed);
        birth[blob]($).store(number, order_unless(STORES_RELAXED, rl::mo_release));
        if (mutant == EPOCH_FIRST)
            epoch($).store(number, rl::mo_release);
        record($).store(blob + 1, order_unless(STORES_RELAXED, rl::mo_release));
        if (mutant != EPOCH_FIRST)
            epoch($).store(number, order_unless(EPOCH_RELAXED, rl::mo_release));
    }

    void reader()
    {
        unsigned e = epoch($).load(rl::mo_acquire);
        unsigned ref = record($).load(order_unless(LOADS_RELAXED, rl::mo_acquire));
        unsigned newer = 100;
        for (unsigned n = 0; n < 3 && ref; n++) {
            unsigned blob = ref - 1;
            unsigned b = birth[blob]($).load(order_unless(LOADS_RELAXED, rl::mo_acquire));
            unsigned before = prev[blob]($).load(rl::mo_relaxed);
            unsigned x = low[blob]($).load(rl::mo_relaxed), y = high[blob]($).load(rl::mo_relaxed);
            if (b == 0 || b >= newer)
                return; /* begins again */
            fence_unless(NO_READER_FENCE, rl::mo_acquire);
            if (mutant != NO_SECOND_LOAD && birth[blob]($).load(rl::mo_relaxed) != b)
                return;
            if (b <= e) {
                RL_ASSERT(b == e);
                RL_ASSERT(x == b && y == b);
                return;
            }
            newer = b;
            ref = before;
        }
        RL_ASSERT(ref != 0); /* the slot has had a payload all the time */
    }

    void thread(unsigned index)
    {
        if (index == 0) {
            change(1, 2);
            change(0, 3);
        } else {
            reader();
        }
    }
};

int main()
{
    return model_main<payload_model>("[P18 payload] a version that is kept is that of the epoch", names,
                                     MUTANT_COUNT);
}
