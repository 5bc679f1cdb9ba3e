/*
 * none.c - stands in for the peer where its package is not installed.
 */
#include "bench/peers/peer.h"

#include <stddef.h>

bool peer_available(void)
{
    return false;
}

const char *peer_name(void)
{
    return "none";
}

struct peer *peer_new(const struct peer_params *params)
{
    (void)params;
    return NULL;
}

void peer_free(struct peer *p)
{
    (void)p;
}

void peer_build(struct peer *p, const float *base, uint32_t n, unsigned threads)
{
    (void)p;
    (void)base;
    (void)n;
    (void)threads;
}

bool peer_load(struct peer *p, const char *path)
{
    (void)p;
    (void)path;
    return false;
}

void peer_save(struct peer *p, const char *path)
{
    (void)p;
    (void)path;
}

void peer_search(struct peer *p, const float *query, uint32_t k, uint32_t ef)
{
    (void)p;
    (void)query;
    (void)k;
    (void)ef;
}

uint32_t peer_rows(struct peer *p, uint32_t *out_rows, uint32_t k)
{
    (void)p;
    (void)out_rows;
    (void)k;
    return 0;
}
