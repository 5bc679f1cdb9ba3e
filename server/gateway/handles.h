/*
 * handles.h - the collections that are open, by name.
 *
 * Reads of a collection share one handle, which any number of threads may use at a time. A handle has one socket, on which writes take
 * turns, so that each write has a handle of its own meanwhile: those that are not in use are taken first. What nobody has used for
 * 10 s is closed, as kithd has a limited number of places for clients.
 *
 * Threads: any.
 */
#ifndef KITHI_GATEWAY_HANDLES_H
#define KITHI_GATEWAY_HANDLES_H

#include <stdbool.h>
#include <stdint.h>

#include <kith/kith.h>

#define KITHI_HANDLES_IDLE_MS 10000u

struct kithi_handles;

struct kithi_handle {
    kith *index;
    struct kithi_handle *next;
    unsigned users;
    bool alone;       /* for one user at a time */
    bool gone;        /* its collection was replaced: for nobody any more */
    uint64_t used_ms; /* when the last user left */
};

/* run_dir, NULL or a string that outlives it. 0 or -errno. */
int kithi_handles_open(const char *run_dir, struct kithi_handles **out);
/* Nobody uses a handle any more. Accepts NULL. */
void kithi_handles_close(struct kithi_handles *h);

/* As kith_open(). alone: for a write. */
int kithi_handles_take(struct kithi_handles *h, const char *name, bool alone, struct kithi_handle **out,
                       struct kith_error *error);
/* Accepts NULL. gone: a call said KITH_E_REPLACED. */
void kithi_handles_give(struct kithi_handles *h, struct kithi_handle *handle, bool gone);

/* How many are open. */
unsigned kithi_handles_count(struct kithi_handles *h);

#endif
