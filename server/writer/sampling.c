/*
 * sampling.c - see sampling.h.
 *
 * A thread of its own, not the pool: a worker that held back would hold up insertions, and one of another priority cannot come
 * back without privileges. Nobody waits for what it measures, so the loop looks for it now and then rather than being woken.
 */
#include "server/writer/sampling.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/writer/collection.h"

/* A collection's share of the thread's time before the next one's turn: results, or wall time. */
#define JOB_RESULTS 64
#define JOB_MS      100u
/* CPU time between two sleeps. */
#define SLICE_NS 2000000u
/* How often the loop looks whether a job has ended. */
#define LOOK_MS    50u
#define LEAVING_MS 5u
/* While changes come, and so long after the last one, it is written to. */
#define BUSY_MS   2000u
#define BUSY_PART 10u
#define AGAIN_MS  5000u
/* The changes of so many-th part of the vectors are worth a pass. */
#define RENEW 4.0
/* Results that replace a curve of an earlier life, which may be of a whole window. */
#define ENOUGH 256u
/* The lowest of all priorities: what is left, and some 1.5 % of a CPU where nothing is. */
#define NICE 19

struct kithi_sampling_thread {
    pthread_t thread;
    pthread_mutex_t lock; /* of the line, of states and of what jobs leave */
    pthread_cond_t more;  /* a job, a cancelled one, or the end */
    struct kithi_sampling *line;
    bool ending;
};

/* ---- the thread ---- */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A job at hand. */
struct job {
    struct kithi_sampling *s;
    uint64_t cpu_ns, wall_ns; /* as of the last sleep */
};

static bool is_cancelled(const struct kithi_sampling *s)
{
    return atomic_load_explicit(&s->cancelled, memory_order_relaxed);
}

/* Sleep until the share is kept, or the job is cancelled. */
static bool pause_job(void *arg)
{
    struct job *j = arg;
    struct kithi_sampling *s = j->s;
    uint64_t cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (is_cancelled(s))
        return false;
    if (cpu_ns - j->cpu_ns < SLICE_NS)
        return true;
    uint32_t share = atomic_load_explicit(&s->share, memory_order_relaxed);
    uint64_t until_ns = j->wall_ns + (cpu_ns - j->cpu_ns) * 1000 / (share ? share : 1);
    struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000u),
                              .tv_nsec = (long)(until_ns % 1000000000u) };
    pthread_mutex_lock(&s->thread->lock);
    while (!is_cancelled(s) && clock_ns(CLOCK_MONOTONIC) < until_ns)
        pthread_cond_timedwait(&s->thread->more, &s->thread->lock, &until);
    pthread_mutex_unlock(&s->thread->lock);
    j->cpu_ns = cpu_ns;
    j->wall_ns = clock_ns(CLOCK_MONOTONIC);
    return !is_cancelled(s);
}

static int run_job(struct kithi_sampling *s, uint64_t *out_cpu_ns)
{
    struct job j = { .s = s,
                     .cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID),
                     .wall_ns = clock_ns(CLOCK_MONOTONIC) };
    uint64_t began_cpu_ns = j.cpu_ns, began_ns = j.wall_ns;
    int added = 0, rc = 0;
    do {
        rc = kithi_sampler_measure(s->sampler, s->segment, s->age, pause_job, &j, &s->err);
        added += rc > 0 ? rc : 0;
    } while (rc > 0 && added < JOB_RESULTS &&
             clock_ns(CLOCK_MONOTONIC) - began_ns < JOB_MS * UINT64_C(1000000));
    *out_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - began_cpu_ns;
    return rc < 0 ? rc : added;
}

static void *thread_main(void *arg)
{
    struct kithi_sampling_thread *t = arg;
    /* Linux knows priorities of threads. Where it is refused, the share alone has to do. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
    pthread_mutex_lock(&t->lock);
    while (!t->ending) {
        struct kithi_sampling *s = t->line;
        if (!s) {
            pthread_cond_wait(&t->more, &t->lock);
            continue;
        }
        t->line = s->next;
        s->state = SAMPLING_RUNS;
        pthread_mutex_unlock(&t->lock);
        uint64_t cpu_ns;
        int status = run_job(s, &cpu_ns);
        pthread_mutex_lock(&t->lock);
        s->status = status;
        s->cpu_ns += cpu_ns;
        s->state = SAMPLING_DONE;
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* 0 or -errno. */
static int thread_open(struct kithi_daemon *d)
{
    struct kithi_sampling_thread *t = calloc(1, sizeof *t);
    pthread_condattr_t attr;
    sigset_t all, before;
    if (!t) {
        return -ENOMEM;
    }
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->more, &attr);
    pthread_condattr_destroy(&attr);
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&t->thread, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        pthread_cond_destroy(&t->more);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return -rc;
    }
    d->sampling = t;
    return 0;
}

static void cancel(struct kithi_sampling *s)
{
    pthread_mutex_lock(&s->thread->lock);
    atomic_store_explicit(&s->cancelled, true, memory_order_relaxed);
    pthread_cond_broadcast(&s->thread->more);
    pthread_mutex_unlock(&s->thread->lock);
}

void kithi_sampling_stop(struct kithi_daemon *d)
{
    struct kithi_sampling_thread *t = d->sampling;
    if (!t) {
        return;
    }
    for (struct kithi_collection *c = d->collections; c; c = c->next) {
        if (c->sampling.thread) {
            cancel(&c->sampling);
        }
    }
    pthread_mutex_lock(&t->lock);
    t->ending = true;
    pthread_cond_broadcast(&t->more);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->more);
    pthread_mutex_destroy(&t->lock);
    free(t);
    d->sampling = NULL;
    for (struct kithi_collection *c = d->collections; c; c = c->next) {
        c->sampling.thread = NULL;
        c->sampling.state = SAMPLING_REST;
    }
}

/* ---- turns ---- */

static enum kithi_sampling_state state_of(const struct kithi_sampling *s)
{
    if (!s->thread) {
        return SAMPLING_REST;
    }
    pthread_mutex_lock(&s->thread->lock);
    enum kithi_sampling_state state = s->state;
    pthread_mutex_unlock(&s->thread->lock);
    return state;
}

/* Results of a pass: there are no more to be had from fewer vectors. */
static double pass(const struct kithi_collection *c)
{
    uint64_t half = kithi_index_live(c->index) / 2;
    return half < KITHI_SAMPLER_WINDOW ? (double)half : (double)KITHI_SAMPLER_WINDOW;
}

/* A segment that is seen for the first time, or after it changed. */
static void look_at_changes(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_sampling *s = &c->sampling;
    const struct kithi_map *map = kithi_index_map(c->index);
    uint64_t ops = c->pipeline.ops, live = kithi_index_live(c->index);
    if (s->generation != map->generation) {
        struct kithi_recall_curve curve;
        kithi_recall_read(map, 0, &curve);
        bool told = curve.count && curve.samples >= pass(c) - KITHI_SAMPLER_BATCH &&
                    curve.since == kithi_index_epoch(c->index) && curve.epoch == curve.since;
        if (s->sampler) {
            kithi_sampler_forget(s->sampler);
        }
        s->generation = map->generation;
        s->ops = ops;
        s->due = told ? 0 : KITHI_SAMPLER_WINDOW;
        s->published = false;
    }
    if (ops != s->ops) {
        s->due += live ? (double)(ops - s->ops) * RENEW * pass(c) / (double)live : 0;
        s->ops = ops;
        s->busy_by_ms = now_ms + BUSY_MS;
    }
    if (s->due > pass(c)) {
        s->due = pass(c);
    }
    bool busy = now_ms < s->busy_by_ms || !kithi_pipeline_idle(c);
    uint32_t share = 10 * c->daemon->recall_share;
    atomic_store_explicit(&s->share, busy ? share / BUSY_PART : share, memory_order_relaxed);
}

static void publish(struct kithi_collection *c)
{
    struct kithi_sampling *s = &c->sampling;
    struct kithi_recall_curve was, is;
    uint32_t n = kithi_sampler_count(s->sampler);
    kithi_recall_read(kithi_index_map(c->index), 0, &was);
    if (n < KITHI_SAMPLER_LEAST || (was.count && !s->published && n < ENOUGH && n < was.samples)) {
        return;
    }
    for (unsigned number = KITHI_CURVE_COUNT; number-- > 0;) { /* the first, by which it is told, last */
        kithi_sampler_curve(s->sampler, number, &is);
        if (is.samples >= KITHI_SAMPLER_LEAST)
            kithi_curve_publish(c->index, number, &is);
    }
    if (!s->published) {
        kithi_log(KITHI_LOG_INFO, "recall-known", "name=%s samples=%u epoch=%" PRIu64, c->settings.name, n,
                  is.epoch);
    }
    s->published = true;
}

/* A job has ended. */
static void take_results(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_sampling *s = &c->sampling;
    bool mine = s->generation == kithi_index_map(c->index)->generation;
    if (s->status >= 0 && mine) {
        s->taken += (uint32_t)s->status;
        s->due -= s->status ? s->status : 1; /* what is never told comes to an end, too */
        publish(c);
        return;
    }
    if (!mine || s->status == KITHI_E_MOVED) {
        kithi_sampler_forget(s->sampler);
    } else if (s->status != -ECANCELED && s->status != KITHI_E_NOT_FOUND) {
        kithi_log(KITHI_LOG_WARN, "recall-unknown", "name=%s status=%s msg=%s; it is tried again",
                  c->settings.name, kithi_error_name(s->status), s->err.text);
    }
    s->again_at_ms = now_ms + (s->status == -ECANCELED ? 0 : AGAIN_MS);
}

static void submit(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_sampling *s = &c->sampling;
    struct kithi_daemon *d = c->daemon;
    int status = s->sampler ? 0 : kithi_sampler_new(&s->sampler, &s->err);
    if (!status && !d->sampling) {
        status = thread_open(d);
    }
    if (status) {
        s->again_at_ms = now_ms + AGAIN_MS;
        return;
    }
    uint64_t half = kithi_index_live(c->index) / 2; /* what is older is of another collection, as good as */
    kithi_sampler_expire(s->sampler, s->ops > half ? s->ops - half : 0);
    atomic_store_explicit(&s->cancelled, false, memory_order_relaxed);
    s->thread = d->sampling;
    s->age = s->ops;
    s->next = NULL;
    pthread_mutex_lock(&s->thread->lock);
    struct kithi_sampling **at = &s->thread->line;
    while (*at) {
        at = &(*at)->next;
    }
    *at = s;
    s->state = SAMPLING_WAITS;
    pthread_cond_broadcast(&s->thread->more);
    pthread_mutex_unlock(&s->thread->lock);
}

/* Somebody wants it to end: out of the line, or out of the job. */
static void leave(struct kithi_sampling *s)
{
    struct kithi_sampling **at = &s->thread->line;
    pthread_mutex_lock(&s->thread->lock);
    if (s->state == SAMPLING_WAITS) {
        while (*at != s) {
            at = &(*at)->next;
        }
        *at = s->next;
        s->state = SAMPLING_REST;
    }
    pthread_mutex_unlock(&s->thread->lock);
    cancel(s);
}

uint64_t kithi_sampling_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_sampling *s = &c->sampling;
    bool leaving = c->dropping || c->condemned || c->daemon->failing || c->daemon->stopping;
    enum kithi_sampling_state state = state_of(s);
    const bool had = state != SAMPLING_REST;
    if (!c->daemon->recall_share) {
        return KITHI_NEVER;
    }
    if (leaving && state != SAMPLING_REST && state != SAMPLING_DONE) {
        leave(s);
        state = state_of(s);
    }
    if (state == SAMPLING_DONE) {
        s->state = state = SAMPLING_REST; /* the thread has done with it */
        if (!leaving) {
            take_results(c, now_ms);
        }
    }
    if (leaving) {
        c->daemon->again |= had && state == SAMPLING_REST; /* somebody may have waited for that */
        return state == SAMPLING_REST ? KITHI_NEVER : now_ms + LEAVING_MS;
    }
    if (state != SAMPLING_REST) {
        if (s->generation != kithi_index_map(c->index)->generation) {
            leave(s); /* of a segment that has moved */
        } else {
            look_at_changes(c, now_ms);
        }
        return now_ms + LOOK_MS;
    }
    look_at_changes(c, now_ms);
    if (s->due < KITHI_SAMPLER_BATCH || kithi_index_live(c->index) < KITHI_SAMPLER_VECTORS) {
        if (s->sampler) {
            kithi_sampler_rest(s->sampler);
        }
        return KITHI_NEVER;
    }
    if (now_ms < s->again_at_ms) {
        return s->again_at_ms;
    }
    if (c->relayout.step == RELAYOUT_MEASURE) {
        return KITHI_NEVER; /* which wants the processors for itself; its end brings the next turn */
    }
    submit(c, now_ms);
    return now_ms + LOOK_MS;
}

bool kithi_sampling_idle(const struct kithi_sampling *s)
{
    return state_of(s) == SAMPLING_REST;
}

void kithi_sampling_init(struct kithi_sampling *s, struct kithi_collection *c)
{
    s->segment = c->segment;
}

void kithi_sampling_fini(struct kithi_sampling *s)
{
    kithi_sampler_free(s->sampler);
    s->sampler = NULL;
}

int kithi_sampling_json(const struct kithi_collection *c, char out[KITHI_SAMPLING_JSON_SIZE])
{
    const struct kithi_sampling *s = &c->sampling;
    bool off = !c->daemon->recall_share;
    bool due = s->due >= KITHI_SAMPLER_BATCH && kithi_index_live(c->index) >= KITHI_SAMPLER_VECTORS;
    uint64_t cpu_ns = 0;
    if (s->thread) {
        pthread_mutex_lock(&s->thread->lock);
        cpu_ns = s->cpu_ns;
        pthread_mutex_unlock(&s->thread->lock);
    }
    return snprintf(out, KITHI_SAMPLING_JSON_SIZE,
                    "{\"state\":\"%s\",\"share\":%u,\"due\":%.0f,\"taken\":%" PRIu64 ",\"cpu_ms\":%" PRIu64
                    "}",
                    off                              ? "off"
                    : due || !kithi_sampling_idle(s) ? "measuring"
                                                     : "resting",
                    c->daemon->recall_share, off || s->due < 0 ? 0.0 : s->due, s->taken, cpu_ns / 1000000u);
}
