/*
 * journal.c - what changes in an index while a copy of it is made (copy.h): deaths, births and payloads, in the order in which
 * they become visible.
 *
 * Of a death the id is noted, since the slot may be another one's by the time somebody asks; of a birth, and of another payload, the slot and its
 * epoch of birth, which tell whether it still is what was born. So a copy keeps no slot from being used again, however long it
 * takes, and a change costs some tens of bytes until the copy has it.
 *
 * Entries lie in blocks, one behind the other; blocks that were read are freed once nothing points into them any more. When memory
 * is short the journal says that it is not whole, and the copy comes to an end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/base/bytes.h"
#include "shm/base/id.h"

#define BLOCK_BYTES (64u << 10)

struct journal_block {
    struct journal_block *next;
    uint32_t used; /* bytes */
    alignas(8) unsigned char bytes[BLOCK_BYTES - 2 * sizeof(void *)];
};

struct entry {
    uint32_t id_len; /* 0: a birth, or another payload */
    uint32_t slot;   /* of these */
    uint64_t birth;
    uint64_t payload; /* 1: of the payload alone */
    /* then the id, rounded up to 8 bytes */
};

void kithi_journal_begin(struct kithi_index *ix)
{
    KITHI_ASSERT(!ix->journal.on);
    ix->journal = (struct journal){ .on = true };
}

void kithi_journal_end(struct kithi_index *ix)
{
    while (ix->journal.first) {
        struct journal_block *b = ix->journal.first;
        ix->journal.first = b->next;
        free(b);
    }
    ix->journal = (struct journal){ .on = false };
}

static void put(struct journal *j, const struct entry *e, const char *id)
{
    size_t size = sizeof *e + kithi_round_up(e->id_len, 8);
    struct journal_block *b = j->last;
    j->noted++;
    if (j->lost)
        return;
    if (!b || sizeof b->bytes - b->used < size) {
        b = malloc(sizeof *b);
        if (!b) {
            j->lost = true;
            return;
        }
        j->bytes += sizeof *b;
        b->next = NULL;
        b->used = 0;
        if (j->last)
            j->last->next = b;
        else
            j->first = j->at = b;
        j->last = b;
    }
    memcpy(b->bytes + b->used, e, sizeof *e);
    if (e->id_len)
        memcpy(b->bytes + b->used + sizeof *e, id, e->id_len);
    b->used += (uint32_t)size;
}

void kithi_journal_group(struct kithi_index *ix, const struct kithi_group *g, uint64_t epoch)
{
    struct journal *j = &ix->journal;
    char id[KITHI_ID_MAX];
    if (!j->on)
        return;
    /* Deaths first: of an id that was replaced the birth has the last word. */
    for (uint32_t i = 0; i < g->deaths.count; i++) {
        struct entry e = { .id_len = (uint32_t)kithi_view_id(&ix->view, g->deaths.items[i], id) };
        if (e.id_len)
            put(j, &e, id);
        else
            j->lost = true; /* a record that makes no sense */
    }
    for (uint32_t i = 0; i < g->insertion_count; i++) {
        struct entry e = { .slot = g->insertions[i].slot, .birth = epoch };
        if (!g->insertions[i].superseded)
            put(j, &e, NULL);
    }
    for (uint32_t i = 0; i < g->change_count; i++) {
        const struct kithi_record *r = kithi_view_record(&ix->view, g->changes[i].slot);
        struct entry e = { .slot = g->changes[i].slot,
                           .birth = atomic_load_explicit(&r->birth, memory_order_relaxed),
                           .payload = 1 };
        if (g->changes[i].ref)
            put(j, &e, NULL);
    }
}

bool kithi_journal_next(struct kithi_index *ix, struct noted_change *out)
{
    struct journal *j = &ix->journal;
    while (j->at && j->read == j->at->used && j->at->next) {
        j->at = j->at->next;
        j->read = 0;
    }
    if (!j->at || j->read == j->at->used)
        return false;
    struct entry e;
    memcpy(&e, j->at->bytes + j->read, sizeof e);
    *out = (struct noted_change){ .id = (const char *)j->at->bytes + j->read + sizeof e,
                                  .id_len = e.id_len,
                                  .slot = e.slot,
                                  .birth = e.birth,
                                  .payload = e.payload != 0 };
    j->read += (uint32_t)(sizeof e + kithi_round_up(e.id_len, 8));
    j->taken++;
    return true;
}

void kithi_journal_forget_taken(struct kithi_index *ix)
{
    struct journal *j = &ix->journal;
    while (j->first != j->at) {
        struct journal_block *b = j->first;
        j->first = b->next;
        j->bytes -= sizeof *b;
        free(b);
    }
}
