/*
 * condition.c - see condition_priv.h.
 */
#include "client/src/condition_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct known {
    char *text;
    size_t len;
    struct kithi_filter *filter;
    struct kithi_condition condition;
    uint64_t used; /* the turn of its last use */
};

struct kithi_conditions {
    uint64_t turn;
    struct known *user;              /* of the bitmaps, whose condition has them; NULL: they are here */
    struct kithi_candidates bitmaps; /* one for all: a call has one condition at a time */
    struct known known[KITHI_CONDITIONS];
    unsigned char payload[KITHI_PAYLOAD_MAX]; /* of whichever is used */
};

uint64_t kithi_bitmap_bytes = UINT64_C(256) << 20;

static void take_bitmaps(struct kithi_conditions *all)
{
    if (all->user)
        all->bitmaps = all->user->condition.candidates;
    all->user = NULL;
}

static void give_bitmaps(struct kithi_conditions *all, struct known *k)
{
    take_bitmaps(all);
    k->condition.candidates = all->bitmaps;
    all->user = k;
}

static void forget(struct kithi_conditions *all, struct known *k)
{
    if (all->user == k)
        take_bitmaps(all);
    free(k->text);
    kithi_filter_free(k->filter);
    *k = (struct known){ 0 };
}

void kithi_conditions_end(struct kithi_conditions *all)
{
    take_bitmaps(all);
    uint64_t left = atomic_load_explicit(&all->bitmaps.budget->left, memory_order_relaxed);
    if (all->bitmaps.capacity && left < kithi_bitmap_bytes / 2)
        kithi_candidates_fini(&all->bitmaps);
}

void kithi_conditions_free(struct kithi_conditions *all)
{
    if (!all)
        return;
    for (uint32_t i = 0; i < KITHI_CONDITIONS; i++)
        forget(all, &all->known[i]);
    kithi_candidates_fini(&all->bitmaps);
    free(all);
}

/* The one of this text, or the one that was not used for longest. */
static struct known *find(struct kithi_conditions *all, const char *text, size_t len)
{
    struct known *oldest = &all->known[0];
    for (uint32_t i = 0; i < KITHI_CONDITIONS; i++) {
        struct known *k = &all->known[i];
        if (k->text && k->len == len && memcmp(k->text, text, len) == 0)
            return k;
        if (k->used < oldest->used)
            oldest = k;
    }
    return oldest;
}

static int compile(struct kithi_conditions *all, struct known *k, const char *text, size_t len,
                   struct kithi_errmsg *err)
{
    struct kithi_filter *f;
    int rc = kithi_filter_parse(text, len, &f, err);
    if (rc < 0)
        return rc;
    char *copy = malloc(len ? len : 1);
    if (!copy) {
        kithi_filter_free(f);
        return -ENOMEM;
    }
    forget(all, k);
    *k = (struct known){ .text = memcpy(copy, text, len), .len = len, .filter = f };
    k->condition.filter = f;
    k->condition.payload = all->payload;
    return 0;
}

int kithi_condition_of(struct kithi_call *c, const char *text, struct kithi_errmsg *err,
                       struct kithi_condition **out)
{
    size_t len = strnlen(text, KITHI_FILTER_TEXT_MAX + 1);
    if (!c->conditions) {
        c->conditions = calloc(1, sizeof *c->conditions);
        if (!c->conditions)
            return -ENOMEM;
        c->conditions->bitmaps.budget = c->bitmaps;
    }
    struct known *k = find(c->conditions, text, len);
    bool is_known = k->text && k->len == len && memcmp(k->text, text, len) == 0;
    int rc = is_known ? 0 : compile(c->conditions, k, text, len, err);
    if (rc < 0)
        return rc;
    give_bitmaps(c->conditions, k);
    k->used = ++c->conditions->turn;
    k->condition.look.holds = (enum kithi_payload_type)0;
    k->condition.plan = KITHI_PLAN_NONE;
    k->condition.share = 0;
    *out = &k->condition;
    return 0;
}

/* Says which field nothing has; 0: all were met. */
static size_t unseen(const struct kithi_condition *c, char *out, size_t cap)
{
    uint64_t left = kithi_filter_unseen(c->filter, &c->look);
    if (!left || c->look.count == 0)
        return 0;
    const struct kithi_filter_field *f = &c->filter->fields[__builtin_ctzll(left)];
    return (size_t)snprintf(out, cap, "filter: no payload that was looked at has a field \"%.*s\"",
                            (int)(f->len < 128 ? f->len : 128), c->filter->text + f->off);
}

int kithi_condition_end(struct kithi_condition *c, int rc, bool strict, struct kith_error *error,
                        kith_results *out)
{
    struct kithi_errmsg err;
    char text[KITHI_NOTICE_MAX];
    if (rc == KITHI_E_FILTER) {
        kithi_filter_mixed(c->filter, &c->look, &err);
        return kithi_report(error, &err, rc);
    }
    if (rc < 0 || unseen(c, text, sizeof text) == 0)
        return rc;
    if (strict) {
        kithi_error_set(&err, KITHI_E_FILTER, "%s", text);
        return kithi_report(error, &err, KITHI_E_FILTER);
    }
    if (out)
        memcpy(out->notice, text, sizeof text);
    return rc;
}
