/*
 * watch.c - react to new vectors: sleep until something is written, and say what is nearest to a point from then on.
 *
 *   watch COLLECTION ID COUNT [SECONDS]
 *
 * Prints the nearest neighbour of ID whenever it has become another one, COUNT times, and ends; or with status 1 after SECONDS (default 60)
 * without any write. The wait is a futex on the mapped segment: it asks no daemon, and costs nothing while nothing is written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kith/kith.h>

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s COLLECTION ID COUNT [SECONDS]\n", argv[0]);
        return 2;
    }
    int wait_ms = 1000 * (argc > 4 ? atoi(argv[4]) : 60);

    struct kith_error error;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.error = &error;
    opts.attach_wait_ms = 10000; /* the collection may be made a moment later */
    kith *index = NULL;
    if (kith_open(argv[1], &opts, &index) < 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }

    char nearest[512] = "";
    kith_results *hits = kith_results_new();
    int left = atoi(argv[3]), rc = hits ? 0 : KITH_E_NO_SPACE;
    while (rc >= 0) {
        /* The epoch first: what is written during the search ends the wait for the next one at once. */
        uint64_t seen = kith_epoch(index);
        rc = kith_search_id(index, argv[2], 1, NULL, hits);
        if (rc == KITH_E_NOT_FOUND)
            rc = 0; /* it may come yet */
        if (rc == 1 && strcmp(nearest, kith_results_id(hits, 0)) != 0) {
            snprintf(nearest, sizeof nearest, "%s", kith_results_id(hits, 0));
            printf("%s\n", nearest);
            fflush(stdout);
            if (--left <= 0)
                break;
        }
        if (rc >= 0)
            rc = kith_wait_epoch(index, seen + 1, wait_ms);
    }
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", argv[1], kith_strerror(rc));
    kith_results_free(hits);
    kith_close(index);
    return rc < 0;
}
