/*
 * query.h - the parameters behind the '?': each known to the call, and there once.
 */
#ifndef KITHI_GATEWAY_QUERY_H
#define KITHI_GATEWAY_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/gateway/http.h"

#define KITHI_QUERY_MAX 16u

struct kithi_query {
    struct {
        char name[32];
        char *value; /* in text */
        bool taken;
    } items[KITHI_QUERY_MAX];
    unsigned count;
    char text[KITHI_HTTP_TARGET_MAX + 1];
};

/* 0, or -1 and a sentence: not percent-encoded UTF-8, a parameter twice, more than 16. */
int kithi_query_parse(struct kithi_part query, struct kithi_query *out, const char **out_why);

/* The value of a parameter, which counts as known from now on; NULL: it is not there. */
const char *kithi_query_get(struct kithi_query *q, const char *name);

/* The name of one that nobody asked for; NULL: there is none. */
const char *kithi_query_unknown(const struct kithi_query *q);

#endif
