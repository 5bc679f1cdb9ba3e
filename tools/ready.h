/*
 * ready.h - reading what kith_readiness() answers.
 */
#ifndef KITHI_TOOLS_READY_H
#define KITHI_TOOLS_READY_H

#include <stdbool.h>
#include <stddef.h>

/* What kithd says of a collection that it brings back after its start, or serves: kithd(8), READINESS. */
struct kithi_ready_state {
    char name[65];
    char state[16]; /* "served", "loading", ... */
    bool counts;    /* the rest is there */
    char unit[8];   /* "bytes" or "groups" */
    unsigned long long done, total;
    unsigned percent;
    char reason[512]; /* of state "refused"; else "" */
};

/* The next one of the answer of kith_readiness(), *at being that answer at first. False: that was all. */
bool kithi_ready_next(const char **at, struct kithi_ready_state *out);
/* "loading, 45 % of 312.0 MiB" */
const char *kithi_ready_text(const struct kithi_ready_state *s, char *buf, size_t size);

#endif
