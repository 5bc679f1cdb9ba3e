/*
 * sampler.c - see sampler.h.
 *
 * Neighbours of a moving collection are of no one epoch: the pass over its vectors looks at what is visible when it comes by, so
 * that it has to be begun anew for nobody's sake, and a few neighbours to spare stand in for those that die before its end.
 * What the truth is off by is the share of the collection that changes during one pass.
 */
#include "server/index/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/graph/search.h"

/* Neighbours that are kept of each vector, beyond those that are compared with. */
#define SPARE     6u
#define TRUTH_MAX (KITHI_SAMPLER_K_MOST + SPARE)
/* One vector in so many is searched for with the most neighbours, which takes the longest; each of them tells more. */
#define MOST_EACH 4u
/* Slots of one piece of the pass: their vectors stay in the second-level cache while the whole batch is compared with them. */
#define PIECE_BYTES (256u << 10)
#define PIECE_MIN   32u
#define PIECE_MAX   1024u
/* Of several neighbours at the same distance any is right; what is computed twice may differ by this. */
#define SLACK 1e-6f
/* Slots looked at for one that can be searched for. */
#define LOOK_MAX 4096u
/* Of the confidence interval, in standard errors: 95 %. */
#define CONFIDENCE 1.96
/* Visits all of a window's parts in an order in which the first few are from everywhere: odd, and about the golden part. */
#define STRIDE 633u

/* Recall rises steeply at first. By the number of the curve. */
enum { EFS = 28 };
static const uint16_t efs[KITHI_CURVE_COUNT][EFS] = {
    { 10, 11, 12, 13,  14,  16,  18,  20,  24,  28,  32,   40,   48,   56,
      64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096 },
    { 1,  2,  3,  4,  5,  6,  7,  8,  10,  12,  14,  16,  18,  20,
      24, 28, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512, 1024 },
    { 100, 102, 105, 110, 116, 124, 132, 144, 160, 176,  192,  224,  256,  288,
      320, 352, 384, 448, 512, 576, 640, 768, 896, 1024, 1536, 2048, 3072, 4096 },
};
static const uint8_t ks[KITHI_CURVE_COUNT] = { KITHI_SAMPLER_K, 1, KITHI_SAMPLER_K_MOST };
_Static_assert(EFS <= KITHI_CURVE_POINTS, "there is room for all of them");
_Static_assert(KITHI_SAMPLER_K == KITHI_CURVE_K, "it is what curve 0 is of");
_Static_assert((KITHI_SAMPLER_WINDOW & (KITHI_SAMPLER_WINDOW - 1)) == 0, "STRIDE visits all parts");

struct result {
    uint64_t epoch, age;
    uint8_t right[KITHI_CURVE_COUNT][EFS];              /* of ks[] */
    bool told[KITHI_CURVE_COUNT];                       /* that curve's are there */
    float kept[KITHI_CURVE_COUNT][KITHI_CURVE_TARGETS]; /* shares found with the ef of the curve before it */
    bool judged[KITHI_CURVE_COUNT];                     /* these are there */
};

/* A vector that is searched for. */
struct sample {
    uint32_t slot;
    uint64_t birth;
    struct kithi_scratch scratch; /* for the pass; the first one's searches, too */
    float *query;
    uint32_t truth_max; /* neighbours to look for */
    uint32_t truth[TRUTH_MAX];
    float distance[TRUTH_MAX];
    uint32_t truth_count;
};

struct kithi_sampler {
    struct kithi_map map;
    bool attached;
    uint32_t turn; /* vectors that were looked for, of all windows */
    uint32_t count, next;
    uint64_t random;
    struct result window[KITHI_SAMPLER_WINDOW]; /* the last `count` before `next` */
    struct sample samples[KITHI_SAMPLER_BATCH];
    struct kithi_results results;
    struct kithi_heirs heirs; /* of the vector at hand */
    /* Of the piece at hand. */
    uint32_t slots[PIECE_MAX];
    uint64_t births[PIECE_MAX];
};

int kithi_sampler_new(struct kithi_sampler **out, struct kithi_errmsg *err)
{
    struct kithi_sampler *s = calloc(1, sizeof *s);
    if (!s)
        return kithi_error_set(err, -ENOMEM, "no memory to measure recall with");
    for (uint32_t i = 0; i < KITHI_SAMPLER_BATCH; i++)
        kithi_scratch_init(&s->samples[i].scratch);
    kithi_results_init(&s->results);
    s->random = UINT64_C(0x9e3779b97f4a7c15);
    *out = s;
    return 0;
}

void kithi_sampler_rest(struct kithi_sampler *s)
{
    if (s->attached)
        kithi_map_detach(&s->map);
    s->attached = false;
    for (uint32_t i = 0; i < KITHI_SAMPLER_BATCH; i++) {
        kithi_scratch_fini(&s->samples[i].scratch);
        free(s->samples[i].query);
        s->samples[i].query = NULL;
    }
    kithi_results_fini(&s->results);
    kithi_results_init(&s->results);
}

void kithi_sampler_free(struct kithi_sampler *s)
{
    if (!s)
        return;
    kithi_sampler_rest(s);
    free(s);
}

void kithi_sampler_forget(struct kithi_sampler *s)
{
    kithi_sampler_rest(s);
    s->count = 0;
}

/* The i-th before the next, from 0. */
static const struct result *nth(const struct kithi_sampler *s, uint32_t i)
{
    return &s->window[(s->next + KITHI_SAMPLER_WINDOW - 1 - i) % KITHI_SAMPLER_WINDOW];
}

static const struct result *oldest(const struct kithi_sampler *s)
{
    return nth(s, s->count - 1);
}

void kithi_sampler_expire(struct kithi_sampler *s, uint64_t age)
{
    while (s->count && oldest(s)->age < age)
        s->count--;
}

uint32_t kithi_sampler_count(const struct kithi_sampler *s)
{
    return s->count;
}

/* ---- choosing ---- */

static uint64_t draw(struct kithi_sampler *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random >> 11;
}

/*
 * Take slot's vector as a query if it is visible, and stands on level 0 alone, as all but one in m do: the levels above are
 * too thin to do without anybody, and who stands on them was drawn. Returns 1, or 0.
 */
static int take(const struct kithi_view *v, struct sample *x, uint32_t slot)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    if (!kithi_view_visible(v, r, &x->birth) ||
        kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed)) != 0)
        return 0;
    x->slot = slot;
    kithi_view_decode_vector(v, slot, x->query);
    return kithi_birth_same(r, x->birth);
}

/* The next of the batch: a slot of the part of the segment whose turn it is, or one of those behind it. */
static bool choose(struct kithi_sampler *s, const struct kithi_view *v, struct sample *x)
{
    for (uint32_t part = 0; part < 8; part++) {
        uint64_t at = (uint64_t)(s->turn++ * STRIDE % KITHI_SAMPLER_WINDOW) * v->slots_used;
        uint64_t wide = v->slots_used / KITHI_SAMPLER_WINDOW + 1;
        uint32_t slot = (uint32_t)(at / KITHI_SAMPLER_WINDOW + draw(s) % wide);
        for (uint32_t i = 0; i < LOOK_MAX && i < v->slots_used; i++) {
            if (take(v, x, (slot + i) % v->slots_used)) {
                x->truth_max = ks[s->turn % MOST_EACH ? 0 : 2] + SPARE;
                return true;
            }
        }
    }
    return false;
}

/* ---- the truth ---- */

/* Compare the batch with the visible slots of a piece. */
static void compare(struct kithi_sampler *s, const struct kithi_view *v, uint32_t n, uint32_t from,
                    uint32_t count)
{
    uint32_t visible = 0;
    for (uint32_t slot = from; slot < from + count; slot++) {
        s->slots[visible] = slot;
        visible += kithi_view_visible(v, kithi_view_record(v, slot), &s->births[visible]);
    }
    for (uint32_t q = 0; q < n; q++) {
        struct sample *x = &s->samples[q];
        struct kithi_scratch *c = &x->scratch;
        for (uint32_t i = 0; i < visible; i++) {
            uint32_t slot = s->slots[i];
            if (slot == x->slot)
                continue;
            float d = kithi_walk_exact(v, c, slot);
            if (c->near_count == c->near_max && d >= c->near[c->near_count - 1].distance)
                continue;
            if (kithi_birth_same(kithi_view_record(v, slot), s->births[i]))
                kithi_near_insert(c, d, slot);
        }
    }
}

/* What the pass has found, as it is now. */
static void take_truth(const struct kithi_view *v, struct sample *x)
{
    struct kithi_scratch *c = &x->scratch;
    uint32_t found[TRUTH_MAX], n = c->near_count;
    for (uint32_t i = 0; i < n; i++)
        found[i] = c->near[i].slot;
    c->near_count = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t birth;
        const struct kithi_record *r = kithi_view_record(v, found[i]);
        if (!kithi_view_visible(v, r, &birth))
            continue;
        float d = kithi_walk_exact(v, c, found[i]);
        if (kithi_birth_same(r, birth))
            kithi_near_insert(c, d, found[i]);
    }
    x->truth_count = c->near_count;
    for (uint32_t i = 0; i < c->near_count; i++) {
        x->truth[i] = c->near[i].slot;
        x->distance[i] = c->near[i].distance;
    }
}

/* The nearest of each of the batch among all vectors. 0, KITHI_E_MOVED, -ECANCELED, -ENOMEM. */
static int find_truth(struct kithi_sampler *s, uint32_t n, kithi_sampler_pause *pause, void *arg)
{
    struct kithi_view v;
    kithi_view_begin(&s->map, &v);
    uint32_t piece = PIECE_BYTES / v.vector_stride;
    piece = piece < PIECE_MIN ? PIECE_MIN : piece < PIECE_MAX ? piece : PIECE_MAX;
    for (uint32_t q = 0; q < n; q++) {
        struct sample *x = &s->samples[q];
        x->scratch.left_out = 0;
        int rc = kithi_walk_query(&v, &x->scratch, x->query);
        if (rc == 0)
            rc = kithi_walk_begin(&v, &x->scratch, x->truth_max, 0, KITHI_EYES_READER);
        if (rc < 0)
            return rc;
    }
    for (uint32_t from = 0; from < v.slots_used; from += piece) {
        uint32_t left = v.slots_used - from;
        if (!pause(arg))
            return -ECANCELED;
        if (kithi_view_moved(&v))
            return KITHI_E_MOVED;
        compare(s, &v, n, from, left < piece ? left : piece);
        kithi_view_begin(&s->map, &v); /* of no one epoch; it never knows less than before */
    }
    for (uint32_t q = 0; q < n; q++)
        take_truth(&v, &s->samples[q]);
    return 0;
}

/* ---- searches ---- */

static uint32_t count_right(const struct kithi_results *r, float limit, uint32_t k)
{
    uint32_t right = 0;
    limit += SLACK * fabsf(limit);
    for (uint32_t i = 0; i < r->count; i++)
        right += r->hits[i].distance <= limit;
    return right < k ? right : k;
}

/*
 * Search for x with all ef of a curve. Who has found everything twice in a row finds it with all that are wider. 0;
 * KITHI_E_STALE: it cannot be told; -errno, KITHI_E_MOVED, -ECANCELED.
 */
static int search_all(struct kithi_sampler *s, const struct sample *x, unsigned number, struct result *out,
                      kithi_sampler_pause *pause, void *arg)
{
    const uint8_t k = ks[number];
    struct kithi_search_params p = { .k = k, .left_out = x->slot + 1, .heirs = &s->heirs };
    bool whole = false;
    for (uint32_t i = 0; i < EFS; i++) {
        p.ef = efs[number][i];
        if (!pause(arg))
            return -ECANCELED;
        int rc = kithi_search(&s->map, &s->samples[0].scratch, x->query, &p, &s->results);
        if (rc < 0)
            return rc;
        out->right[number][i] = (uint8_t)count_right(&s->results, x->distance[k - 1], k);
        if (whole && out->right[number][i] == k) {
            memset(out->right[number] + i, k, EFS - i);
            break;
        }
        whole = out->right[number][i] == k;
    }
    return 0;
}

/*
 * Search for x, by all curves that it has neighbours enough for. 1: there is a result; 0: it cannot be told, as too much has
 * changed; -errno, KITHI_E_MOVED, -ECANCELED.
 */
static int search(struct kithi_sampler *s, const struct sample *x, struct result *out,
                  kithi_sampler_pause *pause, void *arg)
{
    struct kithi_view v;
    uint64_t birth;
    s->heirs.count = 0;
    if (x->truth_count < KITHI_SAMPLER_K)
        return 0;
    for (unsigned number = 0; number < KITHI_CURVE_COUNT; number++) {
        if (x->truth_max < ks[number] + SPARE || x->truth_count < ks[number])
            continue;
        int rc = search_all(s, x, number, out, pause, arg);
        if (rc < 0)
            return rc == KITHI_E_STALE ? 0 : rc;
        out->told[number] = true;
    }
    /* A neighbour, or the vector itself, that is gone by now was not there for all of these. */
    kithi_view_begin(&s->map, &v);
    out->epoch = v.epoch;
    for (uint32_t i = 0; i < x->truth_count && i < KITHI_SAMPLER_K_MOST; i++) {
        if (kithi_view_visible(&v, kithi_view_record(&v, x->truth[i]), &birth))
            continue;
        if (i < KITHI_SAMPLER_K)
            return 0;
        out->told[2] = false;
    }
    return kithi_view_visible(&v, kithi_view_record(&v, x->slot), &birth) && birth == x->birth;
}

/* The share of right ones that a search with ef would have found, between those that were made. */
static double found_with(const struct result *r, unsigned number, double ef)
{
    const uint16_t *e = efs[number];
    uint32_t i = 0;
    while (i + 1 < EFS && e[i + 1] <= ef)
        i++;
    double right = r->right[number][i];
    if (i + 1 < EFS && ef > e[i])
        right += (r->right[number][i + 1] - right) * (ef - e[i]) / (e[i + 1] - e[i]);
    return right / ks[number];
}

/* How well the curves so far tell what this one finds, which they do not rest on. */
static void judge(const struct kithi_recall_curve *curves, struct result *r)
{
    for (unsigned number = 0; number < KITHI_CURVE_COUNT; number++) {
        const struct kithi_recall_curve *c = &curves[number];
        r->judged[number] = r->told[number] && c->samples >= KITHI_SAMPLER_LEAST;
        for (unsigned i = 0; i < KITHI_CURVE_TARGETS && r->judged[number]; i++) {
            enum kithi_recall_basis basis;
            uint32_t ef = kithi_recall_choose(c, NULL, c->k, kithi_recall_targets[i], &basis);
            r->kept[number][i] = (float)found_with(r, number, ef);
        }
    }
}

static int prepare(struct kithi_sampler *s, const char *path, struct kithi_errmsg *err)
{
    if (!s->attached) {
        int rc = kithi_map_attach_path(path, false, &s->map, err);
        if (rc < 0)
            return rc;
        s->attached = true;
    }
    for (uint32_t i = 0; i < KITHI_SAMPLER_BATCH; i++) {
        struct sample *x = &s->samples[i];
        if (!x->query)
            x->query = malloc(s->map.geometry.dim * sizeof *x->query);
        if (!x->query)
            return -ENOMEM;
    }
    return 0;
}

int kithi_sampler_measure(struct kithi_sampler *s, const char *path, uint64_t age, kithi_sampler_pause *pause,
                          void *arg, struct kithi_errmsg *err)
{
    struct kithi_view v;
    uint32_t n = 0;
    int added = 0, rc = prepare(s, path, err);
    if (rc == 0) {
        kithi_view_begin(&s->map, &v);
        if (atomic_load_explicit(&v.header->live, memory_order_relaxed) < KITHI_SAMPLER_VECTORS)
            rc = KITHI_E_NOT_FOUND;
    }
    while (rc == 0 && n < KITHI_SAMPLER_BATCH && choose(s, &v, &s->samples[n]))
        n++;
    if (rc == 0)
        rc = n ? find_truth(s, n, pause, arg) : KITHI_E_NOT_FOUND;
    struct kithi_recall_curve curves[KITHI_CURVE_COUNT];
    for (unsigned i = 0; i < KITHI_CURVE_COUNT; i++)
        kithi_sampler_curve(s, i, &curves[i]);
    for (uint32_t i = 0; i < n && rc >= 0; i++) {
        struct result r = { .age = age };
        rc = search(s, &s->samples[i], &r, pause, arg);
        if (rc == 1) {
            judge(curves, &r);
            s->window[s->next] = r;
            s->next = (s->next + 1) % KITHI_SAMPLER_WINDOW;
            s->count += s->count < KITHI_SAMPLER_WINDOW;
            added++;
        }
    }
    /* Of few vectors there are fewer results to be had: more would be the same ones again, and look surer than they are. */
    if (rc >= 0) {
        uint64_t most = atomic_load_explicit(&v.header->live, memory_order_relaxed) / 2;
        s->count = s->count < most ? s->count : (uint32_t)most;
    }
    if (rc < 0)
        return kithi_error_set(err, rc, "recall could not be measured: %s", kithi_error_text(rc));
    return added;
}

/* ---- the curve ---- */

/* What the promise came to, over all results that were judged. */
static void sum_kept(const struct kithi_sampler *s, unsigned number, struct kithi_recall_curve *out)
{
    double sum[KITHI_CURVE_TARGETS] = { 0 };
    for (uint32_t i = 0; i < s->count; i++) {
        const struct result *r = nth(s, i);
        out->kept_samples += r->judged[number];
        for (unsigned t = 0; t < KITHI_CURVE_TARGETS; t++)
            sum[t] += r->judged[number] ? (double)r->kept[number][t] : 0;
    }
    for (unsigned t = 0; t < KITHI_CURVE_TARGETS && out->kept_samples; t++)
        out->kept[t] = sum[t] / out->kept_samples;
}

void kithi_sampler_curve(const struct kithi_sampler *s, unsigned number, struct kithi_recall_curve *out)
{
    const double k = ks[number];
    uint32_t n = 0;
    memset(out, 0, sizeof *out);
    out->k = ks[number];
    out->since = UINT64_MAX;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct result *r = nth(s, i);
        if (!r->told[number])
            continue;
        out->since = r->epoch < out->since ? r->epoch : out->since;
        out->epoch = r->epoch > out->epoch ? r->epoch : out->epoch;
        n++;
    }
    out->samples = n;
    double least = 0;
    for (uint32_t e = 0; n && e < EFS; e++) {
        double sum = 0, squares = 0;
        for (uint32_t i = 0; i < s->count; i++) {
            const struct result *r = nth(s, i);
            double recall = r->told[number] ? r->right[number][e] / k : 0;
            sum += recall;
            squares += recall * recall;
        }
        double mean = sum / n, variance = squares / n - mean * mean;
        /* Not less than if one neighbour of one of them had been missed: that none was may be chance. */
        double unit = 1 / k, floor = unit * unit / n;
        least = mean > least ? mean : least;
        out->points[out->count++] = (struct kithi_recall_point){
            .ef = efs[number][e],
            .recall = least,
            .half = CONFIDENCE * sqrt((variance > floor ? variance : floor) / n),
        };
        if (mean >= 1)
            break; /* wider ones find no more */
    }
    sum_kept(s, number, out);
}

static uint32_t millionths(double share)
{
    return share <= 0 ? 0 : share >= 1 ? KITHI_CURVE_UNIT : (uint32_t)(share * KITHI_CURVE_UNIT + 0.5);
}

void kithi_curve_publish(struct kithi_index *ix, unsigned number, const struct kithi_recall_curve *c)
{
    struct kithi_curve *to = kithi_header_curve(ix->header, number);
    /* Relaxed: any mixture of an old and a new one is a curve, and readers clamp it. */
    for (uint32_t i = 0; i < c->count; i++) {
        const struct kithi_recall_point *p = &c->points[i];
        atomic_store_explicit(&to->points[i],
                              kithi_curve_pack(p->ef, millionths(p->recall), millionths(p->half)),
                              memory_order_relaxed);
    }
    atomic_store_explicit(&to->k, c->k, memory_order_relaxed);
    atomic_store_explicit(&to->count, c->count, memory_order_relaxed);
    atomic_store_explicit(&to->samples, c->samples, memory_order_relaxed);
    atomic_store_explicit(&to->epoch, c->epoch, memory_order_relaxed);
    atomic_store_explicit(&to->since, c->since, memory_order_relaxed);
    for (unsigned i = 0; i < KITHI_CURVE_TARGETS; i++)
        atomic_store_explicit(&to->kept[i], millionths(c->kept[i]), memory_order_relaxed);
    atomic_store_explicit(&to->kept_samples, c->kept_samples, memory_order_relaxed);
    /* [P15 curve] release: who sees that there is one sees one. Other half: kithi_recall_read(). */
    atomic_store_explicit(&to->magic, KITHI_CURVE_MAGIC, memory_order_release);
}
