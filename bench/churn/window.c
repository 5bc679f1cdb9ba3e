/*
 * window.c - a sliding window: as many vectors come as go, the oldest ones, at a fixed rate, while a reader searches.
 *
 * Ids are numbers in the order of insertion, and a vector is the row of that number, around the end of the set. The reader keeps some of
 * its answers; afterwards they are compared with the exact neighbours among what was certainly live when the search began and when it
 * had ended.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kith/kith.h>

#include "bench/churn/churn.h"
#include "bench/churn/writer.h"
#include "bench/common/clock.h"
#include "bench/common/histogram.h"
#include "bench/common/truth.h"

#define PERIODS    10u
#define WARM_S     3.0 /* before the first one: until the first places are used again */
#define LIVE_SHARE 0.8
#define TICK_NS    UINT64_C(20000000)
#define EF         100u
#define SAMPLES    300u /* of a period */
#define SAME       1e-6f
#define LOAD_BATCH 256u
/* What the last period may be worse than the first: a p99 moves by a tenth from minute to minute on a machine of its own. */
#define P99_DRIFT 1.25

struct sample {
    uint64_t first, end; /* ids that were live throughout */
    uint32_t query, count;
    float distance[BENCH_K_MAX];
};

struct period {
    struct bench_histogram search, write;
    uint64_t bytes, dead; /* the most of both */
    double late_ms;       /* the writer, behind its time */
    uint32_t sample_count;
    struct sample samples[SAMPLES];
    double recall;
};

struct window {
    const struct bench_options *opts;
    const struct bench_daemon *daemon;
    const struct bench_set *set;
    const struct bench_config *config;
    struct bench_writer writer;
    atomic_uint_fast64_t first,
        end;            /* of what is live: moved before ids are deleted, after they are inserted */
    atomic_uint period; /* PERIODS: it is over */
    struct period *periods;
    uint64_t errors;
};

static const float *vector_of(const struct window *w, uint64_t id)
{
    return bench_set_base(w->set, id % w->set->base_count);
}

static void *search(void *arg)
{
    struct window *w = arg;
    struct kith_search_opts so = KITH_SEARCH_OPTS_INIT;
    struct kith_open_opts oo = KITH_OPEN_OPTS_INIT;
    kith *index;
    kith_results *results = kith_results_new();
    uint32_t k = w->opts->k;
    so.ef = EF > k ? EF : k;
    oo.run_dir = w->daemon->run_dir;
    oo.prefault = 1;
    int rc = kith_open(w->config->name, &oo, &index);
    if (rc < 0 || !results)
        bench_die("open: %s", kith_strerror(rc));
    bench_pin(w->opts->cpu);
    uint64_t sample_ns = (uint64_t)(w->opts->seconds * 1e9) / PERIODS / SAMPLES, next_ns = bench_now_ns();
    unsigned at;
    for (uint32_t q = 0; (at = atomic_load(&w->period)) <= PERIODS; q = (q + 1) % w->set->query_count) {
        struct period *p = &w->periods[at];
        uint64_t end = atomic_load(&w->end), begin = bench_now_ns();
        int n = kith_search(index, bench_set_query(w->set, q), w->set->dim, k, &so, results);
        uint64_t now = bench_now_ns();
        bench_histogram_add(&p->search, now - begin);
        w->errors += n != (int)k;
        if (n <= 0 || now < next_ns || p->sample_count == SAMPLES)
            continue;
        next_ns = now + sample_ns;
        struct sample *s = &p->samples[p->sample_count++];
        *s = (struct sample){ .first = atomic_load(&w->first), .end = end, .query = q, .count = (uint32_t)n };
        for (uint32_t i = 0; i < s->count; i++) {
            uint64_t id = strtoull(kith_results_id(results, i), NULL, 10);
            s->distance[i] = bench_distance(w->set, bench_set_query(w->set, q), vector_of(w, id));
        }
    }
    kith_results_free(results);
    kith_close(index);
    return NULL;
}

static void add(struct window *w, uint64_t id, bool insert)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)id);
    int rc = insert ? kith_batch_upsert(w->writer.batch, text, vector_of(w, id), w->set->dim)
                    : kith_batch_delete(w->writer.batch, text);
    if (rc < 0)
        bench_die("id %s: %s", text, kith_strerror(rc));
}

static void commit(struct window *w)
{
    struct kith_commit c = KITH_COMMIT_INIT;
    int rc = kith_batch_commit(w->writer.batch, &c);
    if (rc < 0)
        bench_die("write: %s", c.error.text[0] ? c.error.text : kith_strerror(rc));
    kith_batch_clear(w->writer.batch);
}

static void fill(struct window *w, uint64_t count)
{
    kith_batch_clear(w->writer.batch);
    for (uint64_t id = 0; id < count; id++) {
        add(w, id, true);
        if (id % LOAD_BATCH == LOAD_BATCH - 1 || id + 1 == count)
            commit(w);
        if (id % (64 * LOAD_BATCH) == 0)
            bench_churn_progress("%llu of %llu vectors are loaded", (unsigned long long)id,
                                 (unsigned long long)count);
    }
    atomic_store(&w->end, count);
}

/* Until ns of the clock. */
static void wait_until(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0) {
    }
}

/* Insert and delete until the time is over. */
static void slide(struct window *w)
{
    const uint64_t warm = (uint64_t)(WARM_S * 1e9), length = (uint64_t)(w->opts->seconds * 1e9);
    uint64_t begin = bench_now_ns(), done = 0;
    for (uint64_t tick = begin; tick - begin < warm + length; tick += TICK_NS) {
        wait_until(tick);
        uint64_t now = bench_now_ns();
        unsigned at = tick - begin < warm ? 0 : 1 + (unsigned)((tick - begin - warm) * PERIODS / length);
        struct period *p = &w->periods[at];
        uint64_t due = (uint64_t)((double)(tick + TICK_NS - begin) / 1e9 * w->opts->rate);
        uint64_t first = atomic_load(&w->first), end = atomic_load(&w->end), n = due - done;
        struct bench_backlog b;
        atomic_store(&w->period, at);
        p->late_ms = fmax(p->late_ms, (double)(now - tick) / 1e6);
        atomic_store(&w->first, first + n);
        for (uint64_t i = 0; i < n; i++) {
            add(w, end + i, true);
            add(w, first + i, false);
        }
        if (n)
            commit(w);
        bench_histogram_add(&p->write, bench_now_ns() - now);
        atomic_store(&w->end, end + n);
        done = due;
        bench_writer_backlog(&w->writer, &b);
        p->bytes = b.bytes > p->bytes ? b.bytes : p->bytes;
        p->dead = b.dead > p->dead ? b.dead : p->dead;
        if (tick / 1000000000u != (tick + TICK_NS) / 1000000000u)
            bench_churn_progress("%.0f of %.0f s", (double)(tick - begin) / 1e9, WARM_S + w->opts->seconds);
    }
    atomic_store(&w->period, PERIODS + 1);
}

/* Share of the exact k nearest of what was certainly there that the answer is not farther than. */
static double share_found(const struct window *w, const struct sample *s, float *near)
{
    uint32_t k = w->opts->k, count = 0, hits = 0;
    const float *query = bench_set_query(w->set, s->query);
    for (uint64_t id = s->first; id < s->end; id++) {
        float d = bench_distance(w->set, query, vector_of(w, id));
        if (count == k && !(d < near[k - 1]))
            continue;
        uint32_t at = count < k ? count++ : k - 1;
        for (; at > 0 && near[at - 1] > d; at--)
            near[at] = near[at - 1];
        near[at] = d;
    }
    if (count < k)
        bench_die("fewer than k vectors were live throughout a search");
    float limit = near[k - 1] + SAME * fabsf(near[k - 1]);
    for (uint32_t i = 0; i < s->count; i++)
        hits += s->distance[i] <= limit;
    return (double)hits / k;
}

static void judge(struct window *w)
{
    float *near = bench_alloc(sizeof(float) * w->opts->k);
    for (unsigned i = 1; i <= PERIODS; i++) {
        struct period *p = &w->periods[i];
        bench_churn_progress("answers are compared, %u of %u", i, PERIODS);
        for (uint32_t j = 0; j < p->sample_count; j++)
            p->recall += share_found(w, &p->samples[j], near) / p->sample_count;
    }
    free(near);
    bench_churn_progress("%s", "");
}

static double p99_us(const struct bench_histogram *h)
{
    return (double)bench_histogram_at(h, 0.99) / 1e3;
}

static bool report(const struct window *w, uint64_t live, FILE *json)
{
    const struct period *first = &w->periods[1], *last = &w->periods[PERIODS];
    printf(
        "\n%s, %s: a window of %llu vectors, %u inserted and the %u oldest deleted a second for %.0f s; k = %u, "
        "ef = %u, one reader on CPU %d\n\n"
        "| period | recall | searches/s | p50 us | p99 us | MiB | dead at most | writes: p99 ms | late ms at most |\n"
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        w->set->name, w->config->name, (unsigned long long)live, w->opts->rate, w->opts->rate,
        w->opts->seconds, w->opts->k, EF > w->opts->k ? EF : w->opts->k, w->opts->cpu);
    for (unsigned i = 1; i <= PERIODS; i++) {
        const struct period *p = &w->periods[i];
        printf("| %u | %.4f | %.0f | %.0f | %.0f | %.1f | %llu | %.1f | %.0f |\n", i, p->recall,
               (double)p->search.count / (w->opts->seconds / PERIODS),
               (double)bench_histogram_at(&p->search, 0.5) / 1e3, p99_us(&p->search),
               (double)p->bytes / (1u << 20), (unsigned long long)p->dead, p99_us(&p->write) / 1e3,
               p->late_ms);
        if (json)
            fprintf(
                json,
                "{\"set\": \"%s\", \"engine\": \"Kith %s\", \"window\": %llu, \"rate\": %u, \"seconds\": %.0f, "
                "\"period\": %u, \"recall\": %.5f, \"samples\": %u, \"searches\": %llu, \"p50_us\": %.1f, "
                "\"p99_us\": %.1f, \"bytes\": %llu, \"dead\": %llu, \"write_p99_us\": %.0f, \"late_ms\": %.1f}\n",
                w->set->name, w->config->name, (unsigned long long)live, w->opts->rate, w->opts->seconds, i,
                p->recall, p->sample_count, (unsigned long long)p->search.count,
                (double)bench_histogram_at(&p->search, 0.5) / 1e3, p99_us(&p->search),
                (unsigned long long)p->bytes, (unsigned long long)p->dead, p99_us(&p->write), p->late_ms);
    }
    printf("\nThe last period beside the first (drift is recall lower by more than 0.005, memory above 1.02 "
           "times, p99 above 1.25 times):\n");
    bool good =
        bench_churn_verdict("no drift of recall", last->recall >= first->recall - BENCH_CHURN_RECALL_LOST,
                            "%.4f, then %.4f", first->recall, last->recall);
    good &= bench_churn_verdict("no drift of memory",
                                (double)last->bytes <= BENCH_CHURN_GROWTH * (double)first->bytes,
                                "%.3f times", (double)last->bytes / (double)first->bytes);
    bool fast =
        bench_churn_verdict("no drift of p99", p99_us(&last->search) <= P99_DRIFT * p99_us(&first->search),
                            "%.0f us, then %.0f", p99_us(&first->search), p99_us(&last->search));
    good &= bench_churn_verdict("every search has k hits", w->errors == 0, "%llu had not",
                                (unsigned long long)w->errors);
    fflush(stdout);
    return good && (fast || w->opts->no_rates);
}

bool bench_churn_window(const struct bench_daemon *d, const struct bench_set *set,
                        const struct bench_options *opts, const struct bench_config *config, FILE *json)
{
    uint64_t live = (uint64_t)(LIVE_SHARE * set->base_count);
    struct window w = { .opts = opts, .daemon = d, .set = set, .config = config };
    pthread_t reader;
    w.periods = calloc(PERIODS + 1, sizeof(*w.periods));
    if (!w.periods)
        bench_die("out of memory");
    bench_daemon_create(d, set, opts, config);
    bench_writer_open(&w.writer, d, set, config);
    fill(&w, live);
    bench_daemon_settle(d);
    if (pthread_create(&reader, NULL, search, &w) != 0)
        bench_die("cannot start a thread");
    slide(&w);
    pthread_join(reader, NULL);
    judge(&w);
    bool good = report(&w, live, json);
    bench_writer_close(&w.writer);
    bench_daemon_drop(d, config);
    free(w.periods);
    return good;
}
