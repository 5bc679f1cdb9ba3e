/*
 * model_place.cpp - [P10 place]: a link stands with its own code or not at all, what codes are made of is filled, and an
 * answer takes nothing from a row but where to look.
 *
 * A place of a row leads to slot 0, which holds version 1. A group puts version 2 into slot 1 and leads the place there. Then
 * the dead slot is swept from the row, filled with version 3, and takes the place. A code is two words, as signs and factors
 * are two; they carry the version that they were made of. The writer is killed after any of its stores, and another one adopts
 * what stands there and goes on.
 *
 *   writer                                     reader
 *     fill the slot: own code, vector            E = epoch             acquire (e)
 *     link = 0            relaxed                signs, factors        relaxed
 *     fence               release (w)            link                  relaxed
 *     signs, factors      relaxed                own code of the slot  relaxed
 *     link = slot         release (l)            its record and vector, by the rule of [P2 birth]
 *     birth, epoch        release              another worker
 *                                                link                  relaxed
 *                                                fence                 acquire (f)
 *                                                own code of the slot  relaxed: makes codes of it
 *
 * Promised, and checked here:
 *   - Killed anywhere, the writer leaves a link with its own code, or no link: w keeps the code behind the emptying, l keeps it
 *     before the link. Both are for the compiler as well, as the bytes are plain ones in the code.
 *   - What codes are made of is filled: l with f. A reader has no f, and does without l: a slot that E shows was filled before
 *     E (e, the acquire load of [P1 commit]), whichever link led there; one that E does not show is no hit.
 *   - What is returned was computed from the slot's own bytes within its birth's window.
 * Not promised: that an estimate is made of the code that the link had. A reader meets old ones beside new ones, and not even w
 * and l could help, as it reads a whole block before it looks at a link. A mutant lets estimates into the answer to show it.
 *
 * A killed process leaves the stores that have reached memory, and whoever adopts the segment sees them all. relacy lets
 * another thread's loads lag instead; so where a mutant takes away what holds two stores in their order, put() plays both.
 */
#include "tests/race/model.hpp"

enum {
    NOT_EMPTIED = 1,
    NO_FENCE,
    RELEASE_INSTEAD_OF_FENCE,
    FENCE_IF_OCCUPIED,
    LINK_BEFORE_CODE,
    LINK_RELAXED,
    LINK_BEFORE_FILLING,
    NO_WORKER_FENCE,
    EPOCH_LOADED_RELAXED,
    NO_READER_FENCE,
    NO_SECOND_LOAD,
    ESTIMATE_ANSWERS,
    MUTANT_COUNT = ESTIMATE_ANSWERS
};

static const char *const names[] = {
    "",
    "place not emptied before its code changes",
    "no fence between emptying and code",
    "place emptied with release instead of the fence",
    "no fence where a sweep has emptied the place",
    "link stored before its code",
    "link stored relaxed",
    "link stored before the slot is filled",
    "no fence before codes are made of what a link led to",
    "epoch loaded relaxed",
    "no fence before the second load of birth",
    "no second load of birth",
    "an estimate taken for the answer",
};

/* Stores of the first group, and of the second with an adoption before it. */
static const unsigned STORES_FIRST = 8, STORES_SECOND = 14;

struct place_model : rl::test_suite<place_model, 2> {
    static bool const exhaustive = false;
    rl::atomic<unsigned> epoch, birth[2], own[2], vector[2]; /* of the slots */
    rl::atomic<unsigned> link, signs, factors;               /* link: slot + 1 */
    bool
        beside_worker; /* the other thread is a worker of the same daemon, not a reader; then nobody is killed */
    unsigned left;     /* stores until the writer is killed; that it is not comes first, and fails soonest */

    void before()
    {
        beside_worker = rl::rand(2) == 0;
        left = STORES_FIRST - (beside_worker ? 0 : rl::rand(STORES_FIRST + 1));
        for (unsigned i = 0; i < 2; i++) {
            birth[i]($).store(1 - i, rl::mo_relaxed);
            own[i]($).store(1 - i, rl::mo_relaxed);
            vector[i]($).store(1 - i, rl::mo_relaxed);
        }
        signs($).store(1, rl::mo_relaxed);
        factors($).store(1, rl::mo_relaxed);
        link($).store(1, rl::mo_relaxed);
        epoch($).store(1, rl::mo_release);
    }

    /* A store of the writer, unless it is dead. */
    void store(rl::atomic<unsigned> &word, unsigned value, rl::memory_order order)
    {
        if (left == 0)
            return;
        left--;
        word($).store(value, order);
    }

    void put_code(unsigned version)
    {
        store(signs, version, rl::mo_relaxed);
        store(factors, version, rl::mo_relaxed);
    }

    /* Lead the place to slot, which holds version. swept: a sweep has emptied it just before, under the same lock. */
    void put(unsigned slot, unsigned version, bool swept)
    {
        bool occupied = !swept && link($).load(rl::mo_relaxed) != 0;
        bool fence = mutant != NO_FENCE && mutant != RELEASE_INSTEAD_OF_FENCE &&
                     (occupied || mutant != FENCE_IF_OCCUPIED);
        bool early = !fence && rl::rand(2);
        bool late = mutant == LINK_BEFORE_CODE || (mutant == LINK_RELAXED && rl::rand(2));

        if (early)
            put_code(version);
        if (swept || (occupied && mutant != NOT_EMPTIED))
            store(link, 0, swept || mutant == RELEASE_INSTEAD_OF_FENCE ? rl::mo_release : rl::mo_relaxed);
        if (fence)
            rl::atomic_thread_fence(rl::mo_release, $);
        if (!early && !late)
            put_code(version);
        store(link, slot + 1, order_unless(LINK_RELAXED, rl::mo_release));
        if (late)
            put_code(version);
    }

    void insert(unsigned slot, unsigned version)
    {
        if (mutant == LINK_BEFORE_FILLING)
            put(slot, version, false);
        rl::atomic_thread_fence(rl::mo_release, $); /* [P2 birth] */
        store(own[slot], version, rl::mo_relaxed);
        store(vector[slot], version, rl::mo_relaxed);
        if (mutant != LINK_BEFORE_FILLING)
            put(slot, version, false);
        store(birth[slot], version, rl::mo_release);
    }

    /* Whoever comes after a writer that was killed here. */
    void check()
    {
        unsigned l = link($).load(rl::mo_relaxed);

        if (l == 0)
            return;
        unsigned version = own[l - 1]($).load(rl::mo_relaxed);
        RL_ASSERT(signs($).load(rl::mo_relaxed) == version && factors($).load(rl::mo_relaxed) == version);
    }

    void writer()
    {
        insert(1, 2);
        store(epoch, 2, rl::mo_release);
        if (beside_worker)
            return;

        check();
        /* The same writer goes on, or another one, which undoes what was not published. */
        left = STORES_SECOND - rl::rand(STORES_SECOND + 1);
        unsigned e = epoch($).load(rl::mo_relaxed);
        if (birth[1]($).load(rl::mo_relaxed) > e)
            store(birth[1], 0, rl::mo_release);
        unsigned dead = e == 1 ? 1 : 0;
        if (link($).load(rl::mo_relaxed) == dead + 1)
            put(1 - dead, e, true);
        store(birth[dead], 0, rl::mo_release);
        insert(dead, 3);
        store(epoch, 3, rl::mo_release);
        check();
    }

    void reader()
    {
        unsigned e = epoch($).load(order_unless(EPOCH_LOADED_RELAXED, rl::mo_acquire));
        unsigned estimate = signs($).load(rl::mo_relaxed);
        unsigned l = link($).load(rl::mo_relaxed);

        if (l == 0)
            return;
        unsigned code = own[l - 1]($).load(rl::mo_relaxed);
        unsigned b = birth[l - 1]($).load(rl::mo_acquire);
        unsigned answer = mutant == ESTIMATE_ANSWERS ? estimate : vector[l - 1]($).load(rl::mo_relaxed);
        fence_unless(NO_READER_FENCE, rl::mo_acquire);
        unsigned again = mutant == NO_SECOND_LOAD ? b : birth[l - 1]($).load(rl::mo_relaxed);

        if (b == 0 || again != b || b > e)
            return; /* not a hit */
        RL_ASSERT(answer == b);
        RL_ASSERT(code == b); /* the slot was filled when it was walked through */
    }

    void worker()
    {
        unsigned l = link($).load(rl::mo_relaxed);

        if (l == 0)
            return;
        fence_unless(NO_WORKER_FENCE, rl::mo_acquire);
        RL_ASSERT(own[l - 1]($).load(rl::mo_relaxed) == l);
    }

    void thread(unsigned index)
    {
        if (index == 0)
            writer();
        else if (beside_worker)
            worker();
        else
            reader();
    }
};

int main()
{
    return model_main<place_model>("[P10 place] a link has its own code, or is not there", names,
                                   MUTANT_COUNT);
}
