/*
 * model_rebuild.cpp - [P7 id table], rebuilds: "not there" stands only when the table was not switched
 * meanwhile.
 *
 * Two areas take turns. The id is in the table all the time; the second rebuild wipes the area that a
 * slow lookup may still be probing.
 *
 *   writer, each rebuild                     lookup
 *     fence                 release (w)        word                acquire (a)
 *     wipe the other area   relaxed            place in its area   acquire (r)
 *     its entries           relaxed            found: the record decides
 *     word = it             release (s)        else: word as before ? relaxed: no, start again
 *
 * s with a: whoever reads the word reads the entries. w with r: whoever reads a wiped place reads the word
 * that had been stored before the wiping. The word counts rebuilds, because the area alone would be the
 * same again after two of them.
 */
#include "tests/race/model.hpp"

enum {
    NO_WRITER_FENCE = 1,
    WORD_STORED_RELAXED,
    WORD_LOADED_RELAXED,
    PLACE_LOADED_RELAXED,
    WORD_NOT_READ_AGAIN,
    WORD_WITHOUT_COUNT,
    MUTANT_COUNT = WORD_WITHOUT_COUNT
};

static const char *const names[] = {
    "",
    "no fence between the switch and the next wiping",
    "word stored relaxed",
    "word loaded relaxed",
    "place loaded relaxed",
    "word not loaded again",
    "word without the count of rebuilds",
};

struct rebuild_model : rl::test_suite<rebuild_model, 2> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> word; /* number of the rebuild; its lowest bit is the area */
    rl::atomic<unsigned> place[2];

    void before()
    {
        place[0]($).store(1, rl::mo_relaxed);
        place[1]($).store(0, rl::mo_relaxed);
        word($).store(0, rl::mo_release);
    }

    void rebuild(unsigned number)
    {
        fence_unless(NO_WRITER_FENCE, rl::mo_release);
        place[number % 2]($).store(0, rl::mo_relaxed);
        place[number % 2]($).store(1, rl::mo_relaxed);
        word($).store(number, order_unless(WORD_STORED_RELAXED, rl::mo_release));
    }

    void reader()
    {
        unsigned w = word($).load(order_unless(WORD_LOADED_RELAXED, rl::mo_acquire));

        if (place[w % 2]($).load(order_unless(PLACE_LOADED_RELAXED, rl::mo_acquire)))
            return; /* found */
        unsigned again = mutant == WORD_NOT_READ_AGAIN ? w : word($).load(rl::mo_relaxed);
        if (mutant == WORD_WITHOUT_COUNT) {
            w %= 2;
            again %= 2;
        }
        RL_ASSERT(again != w);
    }

    void thread(unsigned index)
    {
        if (index == 0) {
            rebuild(1);
            rebuild(2);
        } else {
            reader();
        }
    }
};

int main()
{
    return model_main<rebuild_model>("[P7 id table] rebuilds lose nobody", names, MUTANT_COUNT);
}
