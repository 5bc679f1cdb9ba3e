/*
 * threads.c - several threads search one handle, each with results of its own, and say how many found the vector that they asked for.
 *
 *   threads COLLECTION THREADS SEARCHES
 *
 * Ids are asked for by number, as write.c makes them: "0", "1", ... A handle is for all threads; a kith_results is for one.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <kith/kith.h>

enum { THREADS_MAX = 64 };

struct worker {
    pthread_t thread;
    kith *index;
    uint64_t count;
    unsigned number, searches, found;
    int error; /* of the first call that failed; 0: none */
};

static void *work(void *arg)
{
    struct worker *w = arg;
    uint32_t dim = kith_dim(w->index);
    kith_results *hits = kith_results_new();
    float *query = malloc(dim * sizeof *query);
    if (!hits || !query)
        w->error = KITH_E_NO_SPACE;
    for (unsigned i = 0; w->error == 0 && i < w->searches; i++) {
        char id[24];
        snprintf(id, sizeof id, "%" PRIu64, (w->number + i * UINT64_C(7919)) % w->count);
        int n = kith_get(w->index, id, query, dim, NULL);
        if (n == 0)
            n = kith_search(w->index, query, dim, 1, NULL, hits);
        if (n < 0)
            w->error = n;
        else if (n == 1 && kith_results_distance(hits, 0) <= 1e-6F)
            w->found++;
    }
    free(query);
    kith_results_free(hits);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned threads = argc == 4 ? (unsigned)atoi(argv[2]) : 0;
    if (threads < 1 || threads > THREADS_MAX) {
        fprintf(stderr, "usage: %s COLLECTION THREADS SEARCHES, with 1 to %d threads\n", argv[0],
                THREADS_MAX);
        return 2;
    }

    struct kith_error error;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.error = &error;
    opts.prefault = 1; /* a service does that at its start, so that no search waits for a page */
    kith *index = NULL;
    if (kith_open(argv[1], &opts, &index) < 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    uint64_t count = 0;
    int rc = kith_count(index, &count);
    if (rc == 0 && count == 0)
        rc = KITH_E_NOT_FOUND;

    struct worker workers[THREADS_MAX] = { 0 };
    unsigned begun = 0, found = 0;
    for (; rc == 0 && begun < threads; begun++) {
        struct worker *w = &workers[begun];
        w->index = index;
        w->count = count;
        w->number = begun;
        w->searches = (unsigned)atoi(argv[3]);
        rc = -pthread_create(&w->thread, NULL, work, w);
        if (rc < 0)
            break;
    }
    for (unsigned i = 0; i < begun; i++) {
        pthread_join(workers[i].thread, NULL);
        found += workers[i].found;
        if (rc == 0)
            rc = workers[i].error;
    }
    kith_close(index); /* no thread is in a call any more */
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", argv[1], kith_strerror(rc));
        return 1;
    }
    printf("%u threads found %u vectors of %u\n", threads, found, threads * (unsigned)atoi(argv[3]));
    return 0;
}
