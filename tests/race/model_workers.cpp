/*
 * model_workers.cpp - [P2 birth] and [P3 unlinked] when one thread stores the word and another one does
 * what the word guards: the owner frees a slot or raises a mark, a worker fills or unlinks.
 *
 *   owner                        worker                        reader
 *     word          relaxed        hand-over     acquire         guarded            relaxed
 *     hand-over     release        fence         release (w)     fence              acquire (r)
 *                                  guarded       relaxed         word               relaxed
 *
 * The fence has to be the worker's: what a release fence says, it says about the later stores of its own
 * thread. The hand-over (a lock of the pool, in the code) puts the owner's word before it.
 */
#include "tests/race/model.hpp"

enum {
    NO_WORKER_FENCE = 1,
    FENCE_BY_OWNER,
    HAND_OVER_STORED_RELAXED,
    HAND_OVER_LOADED_RELAXED,
    NO_READER_FENCE,
    MUTANT_COUNT = NO_READER_FENCE
};

static const char *const names[] = {
    "",
    "no fence in the worker",
    "fence by the owner, before the hand-over, instead",
    "hand-over stored relaxed",
    "hand-over loaded relaxed",
    "no fence before the word is loaded",
};

struct workers_model : rl::test_suite<workers_model, 3> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> word, hand_over, guarded;

    void before()
    {
        word($).store(0, rl::mo_relaxed);
        guarded($).store(0, rl::mo_relaxed);
        hand_over($).store(0, rl::mo_release);
    }

    void owner()
    {
        word($).store(1, rl::mo_relaxed);
        if (mutant == FENCE_BY_OWNER)
            rl::atomic_thread_fence(rl::mo_release, $);
        hand_over($).store(1, order_unless(HAND_OVER_STORED_RELAXED, rl::mo_release));
    }

    void worker()
    {
        if (hand_over($).load(order_unless(HAND_OVER_LOADED_RELAXED, rl::mo_acquire)) == 0)
            return; /* schedules in which it comes too early show nothing */
        if (mutant != FENCE_BY_OWNER)
            fence_unless(NO_WORKER_FENCE, rl::mo_release);
        guarded($).store(1, rl::mo_relaxed);
    }

    void reader()
    {
        unsigned seen = guarded($).load(rl::mo_relaxed);

        fence_unless(NO_READER_FENCE, rl::mo_acquire);
        RL_ASSERT(seen == 0 || word($).load(rl::mo_relaxed) == 1);
    }

    void thread(unsigned index)
    {
        if (index == 0)
            owner();
        else if (index == 1)
            worker();
        else
            reader();
    }
};

int main()
{
    return model_main<workers_model>("[P2 birth] [P3 unlinked] by owner and worker", names, MUTANT_COUNT);
}
