/*
 * call.c - slots for running calls, and moving over to a newer generation. See handle_priv.h.
 *
 * Moving ([P6 moved]): the writer renames the new file over the old name, then marks the old
 * header. A mark whose successor is not there (somebody removed the file, or a copy was put back) is
 * no reason to stop: readers stay where they are and look again now and then.
 *
 * A file that was removed is never marked, because the writer cannot reach it any more. So a call that
 * expects an epoch and does not see it compares the file that has the name with the one that is mapped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "client/src/condition_priv.h"
#include "client/src/handle_priv.h"

/* Between two looks for a successor that is not there yet: often enough that nobody notices the
 * move, seldom enough that the two system calls of a look cost nothing. */
#define LOOK_INTERVAL_NS UINT64_C(20000000)
/* Generations that one call follows. Each costs a rebuild of the whole collection. */
#define ATTEMPT_MAX 4u

/* The slot that this thread used last, so that threads do not compete for one. The number tells
 * a closed handle's leftover from a handle that lies at the same address. */
static _Thread_local struct {
    uint64_t number;
    struct kithi_call *call;
} last;

uint64_t kithi_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Sequentially consistent, as all accesses to hazard and current: a slot that names a generation
 * before it looks at `current` once more is seen by whoever replaced that generation. */
static bool claim_slot(struct kithi_call *c, struct kithi_generation *g)
{
    struct kithi_generation *none = NULL;
    return atomic_compare_exchange_strong(&c->hazard, &none, g);
}

static struct kithi_call *add_slot(struct kith *index, struct kithi_generation *g)
{
    struct kithi_call *c = aligned_alloc(alignof(struct kithi_call), sizeof *c);
    if (!c)
        return NULL;
    memset(c, 0, sizeof *c);
    kithi_scratch_init(&c->scratch);
    atomic_init(&c->hazard, g);
    /* Relaxed: any number will do. */
    c->board_lane = kithi_board_lane(&index->board,
                                     atomic_fetch_add_explicit(&index->call_count, 1, memory_order_relaxed));
    c->bitmaps = &index->bitmaps;
    c->next = atomic_load(&index->calls);
    while (!atomic_compare_exchange_weak(&index->calls, &c->next, c)) {
    }
    return c;
}

static struct kithi_call *claim(struct kith *index, struct kithi_generation *g)
{
    if (KITHI_LIKELY(last.number == index->number) && claim_slot(last.call, g))
        return last.call;
    struct kithi_call *c = atomic_load(&index->calls);
    while (c && !(atomic_load_explicit(&c->hazard, memory_order_relaxed) == NULL && claim_slot(c, g)))
        c = c->next;
    if (!c)
        c = add_slot(index, g);
    if (c) {
        last.number = index->number;
        last.call = c;
    }
    return c;
}

/* The hazard names `g`; repeat until that is what is current. Generations change seldom, so the
 * bound on the loop is how often that can happen while it runs: once, in practice. */
static void protect(struct kith *index, struct kithi_call *c, struct kithi_generation *g)
{
    for (;;) {
        struct kithi_generation *now = atomic_load(&index->current);
        if (KITHI_LIKELY(now == g))
            break;
        g = now;
        atomic_store(&c->hazard, g);
    }
    c->at = g;
}

/* Unmap replaced generations that no slot names. Under attach_lock. */
static void reap(struct kith *index)
{
    struct kithi_generation *newer = NULL, *g = atomic_load_explicit(&index->retired, memory_order_relaxed);
    while (g) {
        struct kithi_generation *older = g->next;
        struct kithi_call *c = atomic_load(&index->calls);
        while (c && atomic_load(&c->hazard) != g)
            c = c->next;
        if (c) {
            newer = g;
        } else {
            if (newer)
                newer->next = older;
            else
                atomic_store_explicit(&index->retired, older, memory_order_relaxed);
            kithi_map_detach(&g->map);
            free(g);
        }
        g = older;
    }
}

/* Attach by name. 0: there is a newer generation, and it is current now; 1: not yet; or why not. Under attach_lock. */
static int move_on(struct kith *index, struct kithi_generation *old)
{
    struct kithi_generation *g = calloc(1, sizeof *g);
    int rc = g ? kithi_map_attach_path(index->segment, false, &g->map, NULL) : -ENOMEM;
    if (rc == 0 && g->map.dev == old->map.dev && g->map.ino == old->map.ino) {
        rc = 1;
    } else if (rc == 0 && (memcmp(g->map.uid, index->uid, sizeof index->uid) != 0 ||
                           g->map.geometry.dim != index->geometry.dim ||
                           g->map.geometry.metric != index->geometry.metric)) {
        atomic_store_explicit(&index->replaced, true, memory_order_relaxed);
        rc = KITHI_E_REPLACED;
    } else if (rc == 0) {
        atomic_store(&index->current, g);
        old->next = atomic_load_explicit(&index->retired, memory_order_relaxed);
        atomic_store_explicit(&index->retired, old, memory_order_relaxed);
        return 0;
    }
    if (g)
        kithi_map_detach(&g->map);
    free(g);
    return rc;
}

/*
 * The call's generation has moved. 0: the call goes on with a newer one; 1: the switch is not
 * complete, the call goes on with the old one; KITH_E_REPLACED; any other error says why nothing
 * could be attached, and the old one is still there to go on with.
 */
static int follow(struct kith *index, struct kithi_call *c)
{
    struct kithi_generation *old = c->at;
    int rc = 0;
    kithi_lock(&index->attach_lock);
    if (atomic_load(&index->current) == old) {
        rc = move_on(index, old);
        if (rc != 0 && rc != KITHI_E_REPLACED) {
            atomic_store_explicit(&old->look_ns, kithi_now_ns() + LOOK_INTERVAL_NS, memory_order_relaxed);
            atomic_store_explicit(&old->map.stay, true, memory_order_relaxed);
        }
    }
    kithi_unlock(&index->attach_lock);
    if (rc == 0) {
        protect(index, c, old);
        c->changed = true;
    }
    return rc;
}

bool kithi_call_recheck(struct kith *index, struct kithi_call *c)
{
    struct stat st;
    const struct kithi_map *m = kithi_call_map(c);
    if (lstat(index->segment, &st) < 0 || (st.st_dev == m->dev && st.st_ino == m->ino))
        return false;
    return follow(index, c) == 0;
}

void kithi_handle_expect(struct kith *index, uint64_t epoch)
{
    struct kithi_call *c;
    if (kithi_call_begin(index, &c) < 0)
        return;
    if (KITHI_UNLIKELY(atomic_load_explicit(&kithi_call_header(c)->epoch, memory_order_acquire) < epoch))
        kithi_call_recheck(index, c);
    kithi_call_end(index, c);
}

/* What the header says about the whole segment: 0 to go on, or KITH_E_REPLACED. */
static int look(struct kith *index, struct kithi_call *c)
{
    for (; c->attempts < ATTEMPT_MAX; c->attempts++) {
        const struct kithi_header *h = kithi_call_header(c);
        if (KITHI_UNLIKELY(atomic_load_explicit(&h->dropped, memory_order_relaxed) ||
                           atomic_load_explicit(&index->replaced, memory_order_relaxed)))
            return KITHI_E_REPLACED;
        if (KITHI_LIKELY(!atomic_load_explicit(&h->moved, memory_order_acquire)))
            return 0;
        if (atomic_load_explicit(&c->at->map.stay, memory_order_relaxed) &&
            kithi_now_ns() < atomic_load_explicit(&c->at->look_ns, memory_order_relaxed))
            return 0;
        int rc = follow(index, c);
        if (rc == KITHI_E_REPLACED)
            return rc;
        if (rc != 0)
            return 0;
    }
    return 0;
}

int kithi_call_begin(struct kith *index, struct kithi_call **out)
{
    struct kithi_generation *g = atomic_load(&index->current);
    struct kithi_call *c = claim(index, g);
    if (KITHI_UNLIKELY(!c))
        return -ENOMEM;
    c->attempts = 0;
    c->changed = false;
    protect(index, c, g);
    int rc = look(index, c);
    if (rc < 0)
        kithi_call_end(index, c);
    else
        *out = c;
    return rc;
}

bool kithi_call_again(struct kith *index, struct kithi_call *c, int *rc)
{
    if (KITHI_UNLIKELY(*rc == KITHI_E_EPOCH)) /* nobody hears of a file that was removed */
        return c->attempts++ < ATTEMPT_MAX && kithi_call_recheck(index, c);
    if (KITHI_LIKELY(*rc != KITHI_E_MOVED && *rc != KITHI_E_STALE))
        return false;
    const struct kithi_header *h = kithi_call_header(c);
    if (atomic_load_explicit(&h->dropped, memory_order_relaxed)) {
        *rc = KITHI_E_REPLACED;
        return false;
    }
    /* Overtaken, but by the writer of this very generation. A moved one ends with marks that
     * send everybody away. */
    if (*rc == KITHI_E_STALE && !atomic_load_explicit(&h->moved, memory_order_acquire))
        return false;
    bool stale = *rc == KITHI_E_STALE;
    if (c->attempts++ >= ATTEMPT_MAX) {
        *rc = KITHI_E_STALE;
        return false;
    }
    int followed = follow(index, c);
    if (followed == 0 || (!stale && followed != KITHI_E_REPLACED))
        return true; /* with the newer one, or with the old one, which is told to stay */
    if (followed < 0)
        *rc = followed; /* the old one is of no use any more, and this is why there is no new one */
    return false;
}

void kithi_call_end(struct kith *index, struct kithi_call *c)
{
    if (c->conditions)
        kithi_conditions_end(c->conditions);
    /* Release: what this call read from the segment was read before somebody unmaps it. */
    atomic_store_explicit(&c->hazard, NULL, memory_order_release);
    if (KITHI_UNLIKELY(atomic_load_explicit(&index->retired, memory_order_relaxed) != NULL) &&
        kithi_lock_try(&index->attach_lock)) {
        reap(index);
        kithi_unlock(&index->attach_lock);
    }
}

void kithi_calls_fini(struct kith *index)
{
    struct kithi_call *c = atomic_load(&index->calls);
    while (c) {
        struct kithi_call *next = c->next;
        kithi_scratch_fini(&c->scratch);
        for (uint32_t i = 0; c->lanes && i < KITHI_LANES; i++)
            kithi_scratch_fini(&c->lanes[i]);
        free(c->lanes);
        free(c->vector);
        free(c->payload);
        kithi_conditions_free(c->conditions);
        free(c);
        c = next;
    }
    struct kithi_generation *g = atomic_load(&index->retired);
    while (g) {
        struct kithi_generation *older = g->next;
        kithi_map_detach(&g->map);
        free(g);
        g = older;
    }
    g = atomic_load(&index->current);
    if (g)
        kithi_map_detach(&g->map);
    free(g);
}
