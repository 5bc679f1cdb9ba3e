/*
 * query.c - see query.h.
 */
#include "server/gateway/query.h"

#include <string.h>

#include "server/gateway/route.h"

int kithi_query_parse(struct kithi_part query, struct kithi_query *out, const char **out_why)
{
    size_t used = 0;
    out->count = 0;
    while (query.len) {
        const char *end = memchr(query.at, '&', query.len);
        struct kithi_part pair = { query.at, end ? (size_t)(end - query.at) : query.len };
        size_t step = pair.len + (end != NULL);
        query = (struct kithi_part){ query.at + step, query.len - step };
        const char *equals = memchr(pair.at, '=', pair.len);
        struct kithi_part name = { pair.at, equals ? (size_t)(equals - pair.at) : pair.len };
        struct kithi_part value = { equals ? equals + 1 : "", equals ? pair.len - name.len - 1 : 0 };
        if (out->count == KITHI_QUERY_MAX) {
            *out_why = "there are more than 16 parameters";
            return -1;
        }
        long name_len =
            kithi_percent_decode(name, true, out->items[out->count].name, sizeof out->items[0].name);
        if (name_len <= 0) {
            *out_why = "the name of a parameter is none";
            return -1;
        }
        for (unsigned i = 0; i < out->count; i++) {
            if (!strcmp(out->items[i].name, out->items[out->count].name)) {
                *out_why = "a parameter is there twice";
                return -1;
            }
        }
        long len = kithi_percent_decode(value, true, out->text + used, sizeof out->text - used);
        if (len < 0) {
            *out_why = "the value of a parameter is not percent-encoded UTF-8";
            return -1;
        }
        out->items[out->count].value = out->text + used;
        out->items[out->count].taken = false;
        used += (size_t)len + 1;
        out->count++;
    }
    return 0;
}

const char *kithi_query_get(struct kithi_query *q, const char *name)
{
    for (unsigned i = 0; i < q->count; i++) {
        if (!strcmp(q->items[i].name, name)) {
            q->items[i].taken = true;
            return q->items[i].value;
        }
    }
    return NULL;
}

const char *kithi_query_unknown(const struct kithi_query *q)
{
    for (unsigned i = 0; i < q->count; i++) {
        if (!q->items[i].taken) {
            return q->items[i].name;
        }
    }
    return NULL;
}
