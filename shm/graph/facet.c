/*
 * facet.c - see facet.h.
 */
#include "shm/graph/facet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/error.h"
#include "shm/base/hash.h"
#include "shm/graph/payload.h"
#include "shm/graph/search.h"

/* Times that a payload which was refilled meanwhile is looked for again, before another view is. */
#define AGAIN_MAX   4u
#define ENTRIES_MIN 64u

void kithi_facet_init(struct kithi_facet *f, uint32_t value_max)
{
    *f = (struct kithi_facet){ .value_max = value_max < KITHI_FACET_VALUES ? value_max : KITHI_FACET_VALUES };
}

void kithi_facet_fini(struct kithi_facet *f)
{
    if (!f)
        return;
    free(f->entries);
    free(f->places);
    free(f->text);
    kithi_facet_init(f, f->value_max);
}

/* ---- the table ---- */

/* A value that is looked for: of an entry's types, bytes those of a STRING. */
struct wanted {
    enum kithi_payload_type type;
    int64_t integer;
    double number;
    const unsigned char *bytes;
    uint32_t len;
};

static uint64_t hash_of(const struct kithi_map *map, const struct wanted *w)
{
    if (w->type == KITHI_PAYLOAD_STRING)
        return kithi_hash(map->hash_key, w->bytes, w->len);
    unsigned char bytes[12] = { (unsigned char)w->type };
    memcpy(bytes + 4, w->type == KITHI_PAYLOAD_DOUBLE ? (const void *)&w->number : (const void *)&w->integer,
           8);
    return kithi_hash(map->hash_key, bytes, sizeof bytes);
}

static bool is_it(const struct kithi_facet *f, const struct kithi_facet_entry *e, const struct wanted *w)
{
    if (e->type != w->type)
        return false;
    if (w->type == KITHI_PAYLOAD_STRING)
        return e->len == w->len && memcmp(f->text + e->off, w->bytes, w->len) == 0;
    return w->type == KITHI_PAYLOAD_DOUBLE ? e->number == w->number : e->integer == w->integer;
}

/* The place of w, or where it would be. */
static uint32_t place_of(const struct kithi_map *map, const struct kithi_facet *f, const struct wanted *w)
{
    uint32_t at = (uint32_t)hash_of(map, w) & f->place_mask;
    while (f->places[at] && !is_it(f, &f->entries[f->places[at] - 1], w))
        at = (at + 1) & f->place_mask;
    return at;
}

static struct wanted wanted_of(const struct kithi_facet *f, const struct kithi_facet_entry *e)
{
    struct wanted w = { .type = e->type };
    if (e->type == KITHI_PAYLOAD_STRING) {
        w.bytes = (const unsigned char *)f->text + e->off;
        w.len = e->len;
    } else if (e->type == KITHI_PAYLOAD_DOUBLE) {
        w.number = e->number;
    } else {
        w.integer = e->integer;
    }
    return w;
}

/* Room for one more entry: half of the places stay empty. 0 or -ENOMEM. */
static int grow(const struct kithi_map *map, struct kithi_facet *f)
{
    if (f->count < f->capacity)
        return 0;
    uint32_t capacity = f->capacity ? 2 * f->capacity : ENTRIES_MIN;
    struct kithi_facet_entry *entries = realloc(f->entries, capacity * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    f->entries = entries;
    uint32_t *places = calloc(2 * (size_t)capacity, sizeof *places);
    if (!places)
        return -ENOMEM;
    free(f->places);
    f->places = places;
    f->place_mask = 2 * capacity - 1;
    f->capacity = capacity;
    for (uint32_t i = 0; i < f->count; i++) {
        struct wanted w = wanted_of(f, &f->entries[i]);
        f->places[place_of(map, f, &w)] = i + 1;
    }
    return 0;
}

/* Keep a string's bytes. 0 or -ENOMEM. */
static int keep_text(struct kithi_facet *f, const struct wanted *w)
{
    size_t need = f->text_len + w->len + 1;
    if (need > f->text_capacity) {
        size_t capacity = f->text_capacity ? f->text_capacity : 4096;
        while (capacity < need)
            capacity *= 2;
        char *text = realloc(f->text, capacity);
        if (!text)
            return -ENOMEM;
        f->text = text;
        f->text_capacity = capacity;
    }
    memcpy(f->text + f->text_len, w->bytes, w->len);
    f->text[f->text_len + w->len] = '\0';
    f->text_len = need;
    return 0;
}

static bool is_full(const struct kithi_facet *f, const struct wanted *w)
{
    return f->count == f->value_max ||
           (w->type == KITHI_PAYLOAD_STRING && f->text_len + w->len + 1 > KITHI_FACET_BYTES);
}

static int count_value(const struct kithi_map *map, struct kithi_facet *f, uint32_t slot,
                       const struct wanted *w)
{
    if (grow(map, f) < 0)
        return -ENOMEM;
    uint32_t at = place_of(map, f, w);
    if (!f->places[at]) {
        if (is_full(f, w)) {
            f->other++;
            return 0;
        }
        struct kithi_facet_entry e = { .type = w->type, .len = w->len };
        if (w->type == KITHI_PAYLOAD_STRING) {
            e.off = f->text_len;
            if (keep_text(f, w) < 0)
                return -ENOMEM;
        } else if (w->type == KITHI_PAYLOAD_DOUBLE) {
            e.number = w->number;
        } else {
            e.integer = w->integer;
        }
        f->entries[f->count++] = e;
        f->places[at] = f->count;
    }
    struct kithi_facet_entry *e = &f->entries[f->places[at] - 1];
    e->count += e->last != slot + 1;
    e->last = slot + 1;
    return 0;
}

/* ---- the pass ---- */

/* A value of a payload, which is of one piece. 0 or -ENOMEM. */
static int count_found(const struct kithi_map *map, struct kithi_facet *f, uint32_t slot,
                       const struct kithi_payload *p, const struct kithi_value *v)
{
    struct wanted w = { .type = v->type, .integer = v->integer };
    if (v->type == KITHI_PAYLOAD_STRING) {
        w.bytes = p->bytes + v->off;
        w.len = v->len;
    } else if (v->type == KITHI_PAYLOAD_DOUBLE) {
        /* Numbers are compared by what they are worth: 5.0 is 5. 2^63 is no integer of 64 bits. */
        if (v->number >= -0x1p63 && v->number < 0x1p63 && (double)(int64_t)v->number == v->number) {
            w.type = KITHI_PAYLOAD_INT64;
            w.integer = (int64_t)v->number;
        } else {
            w.number = v->number;
        }
    }
    return count_value(map, f, slot, &w);
}

static int count_payload(const struct kithi_map *map, struct kithi_facet *f, uint32_t slot,
                         const struct kithi_payload *p, const char *path, size_t path_len)
{
    struct kithi_value v, element;
    if (p->len == 0 || !kithi_payload_find(p, path, path_len, &v) || v.type == KITHI_PAYLOAD_NULL ||
        v.type == KITHI_PAYLOAD_OBJECT)
        return 0;
    if (!kithi_payload_is_array(v.type)) {
        f->with++;
        return count_found(map, f, slot, p, &v);
    }
    int rc = 0;
    f->with += v.len > 0;
    for (uint32_t i = 0; rc == 0 && i < v.len; i++)
        if (kithi_payload_element(p, &v, i, &element))
            rc = count_found(map, f, slot, p, &element);
    return rc;
}

/* The payload of a visible slot that fulfils the condition, in *out. As kithi_match(). */
static int look(const struct kithi_view *v, uint32_t slot, uint64_t birth, unsigned char *payload,
                struct kithi_condition *c, struct kithi_payload *out)
{
    enum kithi_payload_seen seen = KITHI_PAYLOAD_AGAIN;
    *out = (struct kithi_payload){ .bytes = payload };
    if (c) {
        int rc = kithi_match(v, slot, birth, c);
        if (rc != KITHI_MATCH_YES)
            return rc;
    }
    for (uint32_t tries = 0; seen == KITHI_PAYLOAD_AGAIN; tries++) {
        if (tries == AGAIN_MAX)
            return KITHI_MATCH_AGAIN;
        seen = kithi_view_payload(v, slot, birth, payload, &out->len);
    }
    if (seen == KITHI_PAYLOAD_NONE)
        out->len = 0;
    return KITHI_MATCH_YES;
}

static void clear(struct kithi_facet *f)
{
    if (f->places)
        memset(f->places, 0, ((size_t)f->place_mask + 1) * sizeof *f->places);
    f->count = 0;
    f->text_len = 0;
    f->vectors = f->with = f->other = 0;
}

/* One pass. As kithi_facet_count(), or KITHI_MATCH_AGAIN. */
static int count_once(const struct kithi_map *map, const struct kithi_moment *at, const char *path,
                      size_t path_len, unsigned char *payload, struct kithi_condition *c,
                      uint64_t deadline_ns, struct kithi_facet *f)
{
    struct kithi_view v;
    int rc = kithi_view_begin_at(map, at, &v);
    if (rc < 0)
        return rc;
    clear(f);
    f->epoch = v.epoch;
    struct kithi_pass pass;
    rc = kithi_pass_begin(&v, c, true, &pass);
    if (rc < 0)
        return rc;
    pass.deadline_ns = deadline_ns;
    for (uint32_t slot; (slot = kithi_pass_next(&v, &pass)) != UINT32_MAX;) {
        struct kithi_payload p;
        uint64_t birth;
        if (kithi_pass_late(&pass))
            return KITHI_E_TIMEOUT;
        if (!kithi_view_visible(&v, kithi_view_record(&v, slot), &birth))
            continue;
        rc = look(&v, slot, birth, payload, c, &p);
        if (rc == KITHI_MATCH_NO)
            continue;
        if (rc == KITHI_MATCH_YES) {
            f->vectors++;
            rc = count_payload(map, f, slot, &p, path, path_len);
        }
        if (rc != 0)
            break;
    }
    if (kithi_view_moved(&v))
        return KITHI_E_MOVED;
    if (kithi_view_reused(&v))
        return v.pinned ? KITHI_E_STALE : KITHI_MATCH_AGAIN;
    return rc == KITHI_MATCH_NO ? 0 : rc;
}

/* ---- the order ---- */

/* Does a come before b? No two entries are equal. */
static bool is_before(const struct kithi_facet *f, const struct kithi_facet_entry *a,
                      const struct kithi_facet_entry *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    if (a->type != b->type)
        return a->type < b->type;
    if (a->type == KITHI_PAYLOAD_DOUBLE)
        return a->number < b->number;
    if (a->type != KITHI_PAYLOAD_STRING)
        return a->integer < b->integer;
    int order = memcmp(f->text + a->off, f->text + b->off, a->len < b->len ? a->len : b->len);
    return order ? order < 0 : a->len < b->len;
}

/* Let the entry at `at` of the first n sink until none below it comes after it. */
static void sink(struct kithi_facet *f, uint32_t at, uint32_t n)
{
    struct kithi_facet_entry *e = f->entries, it = e[at];
    for (uint32_t below = 2 * at + 1; below < n; below = 2 * at + 1) {
        if (below + 1 < n && is_before(f, &e[below], &e[below + 1]))
            below++;
        if (!is_before(f, &it, &e[below]))
            break;
        e[at] = e[below];
        at = below;
    }
    e[at] = it;
}

/* A heap, because qsort() tells its comparison nothing of the text. */
static void sort(struct kithi_facet *f)
{
    for (uint32_t i = f->count / 2; i > 0; i--)
        sink(f, i - 1, f->count);
    for (uint32_t n = f->count; n > 1; n--) {
        struct kithi_facet_entry last = f->entries[n - 1];
        f->entries[n - 1] = f->entries[0];
        f->entries[0] = last;
        sink(f, 0, n - 1);
    }
}

int kithi_facet_count(const struct kithi_map *map, const struct kithi_moment *at, const char *path,
                      size_t path_len, unsigned char *payload, struct kithi_condition *c,
                      uint64_t deadline_ns, struct kithi_facet *f)
{
    int rc = KITHI_MATCH_AGAIN;
    for (uint32_t attempt = 0; rc == KITHI_MATCH_AGAIN && attempt < KITHI_RESTART_MAX; attempt++)
        rc = count_once(map, at, path, path_len, payload, c, deadline_ns, f);
    if (rc == 0)
        sort(f);
    return rc == KITHI_MATCH_AGAIN ? KITHI_E_STALE : rc;
}
