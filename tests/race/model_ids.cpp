/*
 * model_ids.cpp - [P7 id table]: a lookup at epoch E finds the version of an id that E shows, and when it
 * finds none or is led astray, the mark says that it slept too long.
 *
 * Slot 0 holds version 1 of an id, slot 1 takes version 2. Slot 0 is then refilled: by version 3 of the
 * same id, or by another id.
 *
 *   writer                                   lookup
 *     fill slot 1, prev = slot 0  relaxed      E = epoch          acquire
 *     birth of slot 1 = 2         release      entry              acquire (a)
 *     entry = slot 1              release (w)  the slot, by the rule of [P2 birth], with its prev
 *     death of slot 0 = 2         relaxed      born after E: on to prev, a bounded number of times
 *     epoch = 2                   release      nothing found: fence acquire, unlinked > E ?
 *     unlinked = 2; fence; refill slot 0 as in [P4 reused]; its entry; epoch = 3
 *
 * w with a: whoever reads the entry reads the record behind it, its birth above all. A lookup at E = 1
 * that is led to version 2 goes on to version 1 by prev; therefore prev is filled, and birth is stored,
 * before the entry leaves the old version. A prev that leads to a refilled slot is found out by its birth,
 * and slots are refilled only after [P3 unlinked] said so. (The id in the record is compared, too: that is
 * for ids that share a tag, and not part of the hand-over.)
 */
#include "tests/race/model.hpp"

enum {
    ENTRY_BEFORE_BIRTH = 1,
    ENTRY_STORED_RELAXED,
    ENTRY_LOADED_RELAXED,
    PREV_AFTER_ENTRY,
    NO_PREV,
    NO_BIRTH_CHECK,
    MARK_NOT_READ,
    REFILL_WITHOUT_MARK,
    MUTANT_COUNT = REFILL_WITHOUT_MARK
};

static const char *const names[] = {
    "",
    "entry stored before the birth of the slot",
    "entry stored relaxed",
    "entry loaded relaxed",
    "prev stored after the entry",
    "prev not followed",
    "birth not checked again",
    "mark not looked at",
    "slot refilled without the mark",
};

enum { ID = 7, OTHER_ID = 8, VERSIONS_MAX = 3 };

struct ids_model : rl::test_suite<ids_model, 2> {
    static bool const exhaustive = false;
    rl::atomic<unsigned> epoch, unlinked, reused, entry; /* entry: slot + 1 */
    rl::atomic<unsigned> birth[2], death[2], prev[2], id[2], bytes[2];
    bool same_id;

    void before()
    {
        same_id = rl::rand(2) != 0;
        unlinked($).store(0, rl::mo_relaxed);
        reused($).store(0, rl::mo_relaxed);
        for (unsigned i = 0; i < 2; i++) {
            birth[i]($).store(0, rl::mo_relaxed);
            death[i]($).store(0, rl::mo_relaxed);
            prev[i]($).store(0, rl::mo_relaxed);
            id[i]($).store(0, rl::mo_relaxed);
            bytes[i]($).store(0, rl::mo_relaxed);
        }
        fill(0, ID, 1, 0);
        birth[0]($).store(1, rl::mo_relaxed);
        entry($).store(1, rl::mo_relaxed);
        epoch($).store(1, rl::mo_release);
    }

    void fill(unsigned slot, unsigned name, unsigned version, unsigned before)
    {
        id[slot]($).store(name, rl::mo_relaxed);
        bytes[slot]($).store(version, rl::mo_relaxed);
        prev[slot]($).store(before, rl::mo_relaxed);
        death[slot]($).store(0, rl::mo_relaxed);
    }

    void writer()
    {
        fill(1, ID, 2, mutant == PREV_AFTER_ENTRY ? 0 : 1);
        if (mutant == ENTRY_BEFORE_BIRTH)
            entry($).store(2, rl::mo_release);
        birth[1]($).store(2, rl::mo_release);
        if (mutant != ENTRY_BEFORE_BIRTH)
            entry($).store(2, order_unless(ENTRY_STORED_RELAXED, rl::mo_release));
        if (mutant == PREV_AFTER_ENTRY)
            prev[1]($).store(1, rl::mo_relaxed);
        death[0]($).store(2, rl::mo_relaxed);
        epoch($).store(2, rl::mo_release);

        if (mutant != REFILL_WITHOUT_MARK)
            unlinked($).store(2, rl::mo_relaxed);
        rl::atomic_thread_fence(rl::mo_release, $);
        reused($).store(2, rl::mo_relaxed);
        birth[0]($).store(0, rl::mo_release);
        rl::atomic_thread_fence(rl::mo_release, $);
        fill(0, same_id ? ID : OTHER_ID, 3, same_id ? 2 : 0);
        birth[0]($).store(3, rl::mo_release);
        if (same_id) {
            entry($).store(1, rl::mo_release);
            death[1]($).store(3, rl::mo_relaxed);
        }
        epoch($).store(3, rl::mo_release);
    }

    /* The version found, or 0: not there, or again with a newer snapshot. */
    unsigned lookup(unsigned e)
    {
        unsigned slot = entry($).load(order_unless(ENTRY_LOADED_RELAXED, rl::mo_acquire)) - 1;

        for (unsigned n = 0; n < VERSIONS_MAX; n++) {
            unsigned b = birth[slot]($).load(rl::mo_acquire);
            unsigned d = death[slot]($).load(rl::mo_relaxed);
            unsigned before = prev[slot]($).load(rl::mo_relaxed);
            unsigned name = id[slot]($).load(rl::mo_relaxed);
            unsigned version = bytes[slot]($).load(rl::mo_relaxed);
            rl::atomic_thread_fence(rl::mo_acquire, $);
            if (b == 0 || (mutant != NO_BIRTH_CHECK && birth[slot]($).load(rl::mo_relaxed) != b))
                return 0;
            if (name != ID)
                return 0;
            if (b <= e)
                return d == 0 || e < d ? version : 0;
            if (before == 0 || mutant == NO_PREV)
                return 0;
            slot = before - 1;
        }
        return 0;
    }

    void reader()
    {
        unsigned e = epoch($).load(rl::mo_acquire);
        unsigned found = lookup(e);

        if (found == 0 && mutant != MARK_NOT_READ) {
            rl::atomic_thread_fence(rl::mo_acquire, $);
            if (unlinked($).load(rl::mo_relaxed) > e)
                return; /* slept too long: start again */
        }
        RL_ASSERT(found == (e == 3 && !same_id ? 2 : e));
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
    return model_main<ids_model>("[P7 id table] lookups find their version", names, MUTANT_COUNT);
}
