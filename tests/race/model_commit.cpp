/*
 * model_commit.cpp - [P1 commit] and [P5 taken]: a group is seen whole or not at all, finders included, and
 * nobody touches memory that was not taken.
 *
 * A group replaces slot 0 by slot 1 and adds slot 2, for which memory had to be taken first.
 *
 *   writer                                  reader
 *     allocate; taken = 3   release (t)       E = epoch           acquire (e)
 *     fill, link            relaxed           limit = taken       acquire (l)
 *     births = 2            release           links               relaxed
 *     death = 2             relaxed           births, deaths of slots < limit
 *     epoch = 2             release (c)
 *
 * c with e: at E = 2 every birth, death, link and taken of the group is there; at E = 1 those that are
 * seen early do not count, because they are 2. t with l: the memory of a slot below the limit exists.
 * The limit is loaded after the epoch: loaded before, it may leave out slots that E shows.
 */
#include "tests/race/model.hpp"

enum {
    EPOCH_STORED_RELAXED = 1,
    EPOCH_LOADED_RELAXED,
    BIRTH_AFTER_EPOCH,
    DEATH_AFTER_EPOCH,
    LINK_AFTER_EPOCH,
    TAKEN_STORED_RELAXED,
    TAKEN_LOADED_RELAXED,
    TAKEN_BEFORE_MEMORY,
    LIMIT_BEFORE_EPOCH,
    MUTANT_COUNT = LIMIT_BEFORE_EPOCH
};

static const char *const names[] = {
    "",
    "epoch stored relaxed",
    "epoch loaded relaxed",
    "a birth stored after the epoch",
    "a death stored after the epoch",
    "a link stored after the epoch",
    "taken stored relaxed",
    "taken loaded relaxed",
    "taken stored before the memory is there",
    "taken loaded before the epoch",
};

struct commit_model : rl::test_suite<commit_model, 2> {
    static bool const exhaustive = true;
    rl::atomic<unsigned> epoch, taken, link, birth[3], death[3];
    rl::var<unsigned> memory; /* of slot 2; reading it unallocated is an error */

    void before()
    {
        for (unsigned i = 0; i < 3; i++) {
            birth[i]($).store(0, rl::mo_relaxed);
            death[i]($).store(0, rl::mo_relaxed);
        }
        birth[0]($).store(1, rl::mo_relaxed);
        link($).store(0, rl::mo_relaxed);
        taken($).store(2, rl::mo_relaxed);
        epoch($).store(1, rl::mo_release);
    }

    void writer()
    {
        if (mutant == TAKEN_BEFORE_MEMORY)
            taken($).store(3, rl::mo_release);
        memory($) = 1;
        if (mutant != TAKEN_BEFORE_MEMORY)
            taken($).store(3, order_unless(TAKEN_STORED_RELAXED, rl::mo_release));
        if (mutant != LINK_AFTER_EPOCH)
            link($).store(2, rl::mo_relaxed);
        birth[1]($).store(2, rl::mo_release);
        if (mutant != BIRTH_AFTER_EPOCH)
            birth[2]($).store(2, rl::mo_release);
        if (mutant != DEATH_AFTER_EPOCH)
            death[0]($).store(2, rl::mo_relaxed);
        epoch($).store(2, order_unless(EPOCH_STORED_RELAXED, rl::mo_release));
        if (mutant == LINK_AFTER_EPOCH)
            link($).store(2, rl::mo_relaxed);
        if (mutant == BIRTH_AFTER_EPOCH)
            birth[2]($).store(2, rl::mo_release);
        if (mutant == DEATH_AFTER_EPOCH)
            death[0]($).store(2, rl::mo_relaxed);
    }

    bool visible(unsigned slot, unsigned limit, unsigned e)
    {
        if (slot >= limit)
            return false;
        if (slot == 2)
            RL_ASSERT(memory($) == 1);
        unsigned b = birth[slot]($).load(rl::mo_acquire);
        unsigned d = death[slot]($).load(rl::mo_relaxed);
        return b != 0 && b <= e && (d == 0 || e < d);
    }

    void reader()
    {
        unsigned limit = 0;

        if (mutant == LIMIT_BEFORE_EPOCH)
            limit = taken($).load(rl::mo_acquire);
        unsigned e = epoch($).load(order_unless(EPOCH_LOADED_RELAXED, rl::mo_acquire));
        if (mutant != LIMIT_BEFORE_EPOCH)
            limit = taken($).load(order_unless(TAKEN_LOADED_RELAXED, rl::mo_acquire));
        unsigned l = link($).load(rl::mo_relaxed);

        RL_ASSERT(visible(0, limit, e) == (e == 1));
        RL_ASSERT(visible(1, limit, e) == (e == 2));
        RL_ASSERT(visible(2, limit, e) == (e == 2));
        RL_ASSERT(l == 2 || e == 1);
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
    return model_main<commit_model>("[P1 commit] [P5 taken] a group is seen whole", names, MUTANT_COUNT);
}
