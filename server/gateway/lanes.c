/*
 * lanes.c - see lanes.h.
 */
#include "server/gateway/lanes.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct lane {
    struct kithi_lanes *lanes;
    enum kithi_lane number;
    pthread_cond_t todo;
    struct kithi_job *first, **last;
    unsigned queued, running, stuck; /* stuck: running, and dropped */
    unsigned thread_count, thread_max;
    pthread_t *threads;
};

struct kithi_lanes {
    void (*release)(struct kithi_job *);
    int fd;
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t idle;  /* a thread has ended */
    struct lane lanes[KITHI_LANE_COUNT];
    struct kithi_job *ended, **ended_last;
    struct kithi_job *parked;
    unsigned parked_count, awaiting;
    unsigned alive; /* threads */
    bool ending;
};

static void queue(struct kithi_lanes *l, struct kithi_job *job)
{
    struct lane *lane = &l->lanes[job->request->lane];
    job->lane = lane->number;
    job->state = KITHI_JOB_QUEUED;
    job->next = NULL;
    *lane->last = job;
    lane->last = &job->next;
    lane->queued++;
    pthread_cond_signal(&lane->todo);
}

static struct kithi_job *unqueue(struct lane *lane, struct kithi_job **at)
{
    struct kithi_job *job = *at;
    *at = job->next;
    if (!*at) {
        lane->last = at;
    }
    lane->queued--;
    return job;
}

/* It waits for no epoch any more. */
static void forget(struct kithi_lanes *l, struct kithi_job *job)
{
    l->awaiting -= job->awaits;
    job->awaits = false;
}

static void end(struct kithi_lanes *l, struct kithi_job *job)
{
    forget(l, job);
    job->state = KITHI_JOB_ENDED;
    job->next = NULL;
    *l->ended_last = job;
    l->ended_last = &job->next;
    uint64_t one = 1;
    /* Fails only when it is readable for 2^64 reasons already. */
    (void)!write(l->fd, &one, sizeof one);
}

static void park(struct kithi_lanes *l, struct kithi_job *job)
{
    job->state = KITHI_JOB_PARKED;
    job->begun = false; /* it has looked at an epoch and at nothing else */
    l->awaiting += !job->awaits;
    job->awaits = true;
    job->next = l->parked;
    l->parked = job;
    l->parked_count++;
}

static void *work(void *arg)
{
    struct lane *lane = arg;
    struct kithi_lanes *l = lane->lanes;
    pthread_mutex_lock(&l->lock);
    while (!l->ending) {
        if (!lane->first) {
            pthread_cond_wait(&lane->todo, &l->lock);
            continue;
        }
        struct kithi_job *job = unqueue(lane, &lane->first);
        job->state = KITHI_JOB_RUNNING;
        job->begun = true;
        lane->running++;
        pthread_mutex_unlock(&l->lock);
        enum kithi_next next = kithi_request_run(job->request);
        pthread_mutex_lock(&l->lock);
        lane->running--;
        if (job->dropped) {
            lane->stuck--;
            pthread_mutex_unlock(&l->lock);
            l->release(job);
            pthread_mutex_lock(&l->lock);
        } else if (next == KITHI_MOVE) {
            job->begun = false;
            queue(l, job);
        } else if (next == KITHI_AWAIT) {
            park(l, job);
        } else {
            end(l, job);
        }
    }
    l->alive--;
    pthread_cond_signal(&l->idle);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void free_all(struct kithi_lanes *l)
{
    for (unsigned i = 0; i < KITHI_LANE_COUNT; i++) {
        for (unsigned t = 0; t < l->lanes[i].thread_count; t++) {
            pthread_join(l->lanes[i].threads[t], NULL);
        }
        while (l->lanes[i].first) {
            l->release(unqueue(&l->lanes[i], &l->lanes[i].first));
        }
        free(l->lanes[i].threads);
        pthread_cond_destroy(&l->lanes[i].todo);
    }
    for (struct kithi_job *job = l->parked, *next; job; job = next) {
        next = job->next;
        l->release(job);
    }
    for (struct kithi_job *job = l->ended, *next; job; job = next) {
        next = job->next;
        l->release(job);
    }
    pthread_cond_destroy(&l->idle);
    pthread_mutex_destroy(&l->lock);
    if (l->fd >= 0) {
        close(l->fd);
    }
    free(l);
}

int kithi_lanes_open(const unsigned threads[KITHI_LANE_COUNT], void (*release)(struct kithi_job *),
                     struct kithi_lanes **out)
{
    struct kithi_lanes *l = calloc(1, sizeof *l);
    pthread_condattr_t attr;
    if (!l) {
        return -ENOMEM;
    }
    l->release = release;
    l->ended_last = &l->ended;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->idle, &attr);
    pthread_condattr_destroy(&attr);
    for (unsigned i = 0; i < KITHI_LANE_COUNT; i++) {
        struct lane *lane = &l->lanes[i];
        *lane = (struct lane){ .lanes = l, .number = (enum kithi_lane)i, .thread_max = threads[i] };
        lane->last = &lane->first;
        pthread_cond_init(&lane->todo, NULL);
    }
    l->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = l->fd < 0 ? errno : 0;
    pthread_mutex_lock(&l->lock);
    for (unsigned i = 0; i < KITHI_LANE_COUNT && rc == 0; i++) {
        struct lane *lane = &l->lanes[i];
        lane->threads = calloc(lane->thread_max + 1, sizeof *lane->threads);
        rc = lane->threads ? 0 : ENOMEM;
        while (rc == 0 && lane->thread_count < lane->thread_max) {
            rc = pthread_create(&lane->threads[lane->thread_count], NULL, work, lane);
            lane->thread_count += rc == 0;
            l->alive += rc == 0;
        }
    }
    pthread_mutex_unlock(&l->lock);
    if (rc) {
        kithi_lanes_close(l, 60000);
        return -rc;
    }
    *out = l;
    return 0;
}

bool kithi_lanes_close(struct kithi_lanes *l, unsigned patience_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += patience_ms / 1000;
    until.tv_nsec += (long)(patience_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&l->lock);
    l->ending = true;
    for (unsigned i = 0; i < KITHI_LANE_COUNT; i++) {
        pthread_cond_broadcast(&l->lanes[i].todo);
    }
    while (l->alive && pthread_cond_timedwait(&l->idle, &l->lock, &until) != ETIMEDOUT) {
    }
    bool all = l->alive == 0;
    pthread_mutex_unlock(&l->lock);
    if (all) {
        free_all(l);
    }
    return all;
}

int kithi_lanes_fd(const struct kithi_lanes *l)
{
    return l->fd;
}

bool kithi_lanes_submit(struct kithi_lanes *l, struct kithi_job *job)
{
    struct lane *lane = &l->lanes[job->request->lane];
    pthread_mutex_lock(&l->lock);
    bool good = lane->stuck < lane->thread_count;
    if (good) {
        queue(l, job);
    }
    pthread_mutex_unlock(&l->lock);
    return good;
}

struct kithi_job *kithi_lanes_ended(struct kithi_lanes *l)
{
    uint64_t count;
    (void)!read(l->fd, &count, sizeof count);
    pthread_mutex_lock(&l->lock);
    struct kithi_job *list = l->ended;
    l->ended = NULL;
    l->ended_last = &l->ended;
    pthread_mutex_unlock(&l->lock);
    return list;
}

enum kithi_drop kithi_lanes_drop(struct kithi_lanes *l, struct kithi_job *job)
{
    pthread_mutex_lock(&l->lock);
    enum kithi_drop drop = job->awaits ? KITHI_DROP_AWAITING : KITHI_DROP_UNBEGUN;
    if (job->state == KITHI_JOB_QUEUED) {
        struct lane *lane = &l->lanes[job->lane];
        struct kithi_job **at = &lane->first;
        while (*at != job) {
            at = &(*at)->next;
        }
        unqueue(lane, at);
    } else if (job->state == KITHI_JOB_PARKED) {
        struct kithi_job **at = &l->parked;
        while (*at != job) {
            at = &(*at)->next;
        }
        *at = job->next;
        l->parked_count--;
    } else if (job->state == KITHI_JOB_RUNNING) {
        job->dropped = true;
        l->lanes[job->lane].stuck++;
        drop = KITHI_DROP_BEGUN;
    } else {
        drop = KITHI_DROP_ENDED;
    }
    forget(l, job);
    pthread_mutex_unlock(&l->lock);
    if (drop == KITHI_DROP_UNBEGUN || drop == KITHI_DROP_AWAITING) {
        l->release(job);
    }
    return drop;
}

unsigned kithi_lanes_unpark(struct kithi_lanes *l)
{
    pthread_mutex_lock(&l->lock);
    unsigned count = l->parked_count;
    for (struct kithi_job *job = l->parked, *next; job; job = next) {
        next = job->next;
        queue(l, job);
    }
    l->parked = NULL;
    l->parked_count = 0;
    pthread_mutex_unlock(&l->lock);
    return count;
}

bool kithi_lanes_parked(struct kithi_lanes *l, const struct kithi_job *job)
{
    pthread_mutex_lock(&l->lock);
    bool parked = job->state == KITHI_JOB_PARKED || (job->state != KITHI_JOB_ENDED && !job->begun);
    pthread_mutex_unlock(&l->lock);
    return parked;
}

void kithi_lanes_load(struct kithi_lanes *l, struct kithi_lanes_load *out)
{
    pthread_mutex_lock(&l->lock);
    for (unsigned i = 0; i < KITHI_LANE_COUNT; i++) {
        out->queued[i] = l->lanes[i].queued;
        out->running[i] = l->lanes[i].running;
        out->stuck[i] = l->lanes[i].stuck;
    }
    out->awaiting = l->awaiting;
    pthread_mutex_unlock(&l->lock);
}
