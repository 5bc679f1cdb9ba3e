/*
 * handles.c - see handles.h.
 */
#include "server/gateway/handles.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct kithi_handles {
    const char *run_dir;
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t ending_is_set;
    struct kithi_handle *list;
    unsigned count;
    bool ending;
    pthread_t tidier;
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void close_list(struct kithi_handle *list)
{
    while (list) {
        struct kithi_handle *next = list->next;
        kith_close(list->index);
        free(list);
        list = next;
    }
}

/* Unlink those that nobody uses and that are gone, or have not been used since. Under the lock. */
static struct kithi_handle *unlink_idle(struct kithi_handles *h, uint64_t since_ms)
{
    struct kithi_handle *idle = NULL;
    for (struct kithi_handle **at = &h->list; *at;) {
        struct kithi_handle *handle = *at;
        if (handle->users == 0 && (handle->gone || handle->used_ms <= since_ms)) {
            *at = handle->next;
            handle->next = idle;
            idle = handle;
            h->count--;
        } else {
            at = &handle->next;
        }
    }
    return idle;
}

/* A thread of its own, as unmapping a large collection takes its time, and there may be no request for hours. */
static void *tidy(void *arg)
{
    struct kithi_handles *h = arg;
    pthread_mutex_lock(&h->lock);
    while (!h->ending) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&h->ending_is_set, &h->lock, &until);
        uint64_t now = now_ms();
        struct kithi_handle *idle =
            unlink_idle(h, now > KITHI_HANDLES_IDLE_MS ? now - KITHI_HANDLES_IDLE_MS : 0);
        pthread_mutex_unlock(&h->lock);
        close_list(idle);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

int kithi_handles_open(const char *run_dir, struct kithi_handles **out)
{
    struct kithi_handles *h = calloc(1, sizeof *h);
    pthread_condattr_t attr;
    if (!h) {
        return -ENOMEM;
    }
    h->run_dir = run_dir;
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->ending_is_set, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&h->tidier, NULL, tidy, h);
    if (rc) {
        pthread_cond_destroy(&h->ending_is_set);
        pthread_mutex_destroy(&h->lock);
        free(h);
        return -rc;
    }
    *out = h;
    return 0;
}

void kithi_handles_close(struct kithi_handles *h)
{
    if (!h) {
        return;
    }
    pthread_mutex_lock(&h->lock);
    h->ending = true;
    pthread_cond_signal(&h->ending_is_set);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->tidier, NULL);
    close_list(h->list);
    pthread_cond_destroy(&h->ending_is_set);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int kithi_handles_take(struct kithi_handles *h, const char *name, bool alone, struct kithi_handle **out,
                       struct kith_error *error)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kithi_handle *handle;
    error->text[0] = 0;
    pthread_mutex_lock(&h->lock);
    for (handle = h->list; handle; handle = handle->next) {
        if (handle->gone || handle->alone != alone || (alone && handle->users) ||
            strcmp(kith_name(handle->index), name) != 0) {
            continue;
        }
        /* One that was dropped would go on checking vectors by what it was: its timeline is 0, which costs no system call to learn. */
        if (kith_timeline(handle->index)) {
            handle->users++;
            break;
        }
        handle->gone = true;
    }
    pthread_mutex_unlock(&h->lock);
    if (handle) {
        *out = handle;
        return 0;
    }
    /* Opened without the lock: two that come at a time make two, and the second is closed when it has been idle. */
    handle = calloc(1, sizeof *handle);
    if (!handle) {
        return -ENOMEM;
    }
    opts.run_dir = h->run_dir;
    opts.error = error;
    int rc = kith_open(name, &opts, &handle->index);
    if (rc < 0) {
        free(handle);
        return rc;
    }
    handle->alone = alone;
    handle->users = 1;
    pthread_mutex_lock(&h->lock);
    handle->next = h->list;
    h->list = handle;
    h->count++;
    pthread_mutex_unlock(&h->lock);
    *out = handle;
    return 0;
}

void kithi_handles_give(struct kithi_handles *h, struct kithi_handle *handle, bool gone)
{
    if (!handle) {
        return;
    }
    pthread_mutex_lock(&h->lock);
    handle->users--;
    handle->gone = handle->gone || gone;
    handle->used_ms = now_ms();
    struct kithi_handle *idle = unlink_idle(h, 0);
    pthread_mutex_unlock(&h->lock);
    close_list(idle);
}

unsigned kithi_handles_count(struct kithi_handles *h)
{
    pthread_mutex_lock(&h->lock);
    unsigned count = h->count;
    pthread_mutex_unlock(&h->lock);
    return count;
}
