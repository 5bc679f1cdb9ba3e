/*
 * search.c - open a collection and print the neighbours of one of its vectors.
 *
 *   search COLLECTION ID [K]
 */
#include <stdio.h>
#include <stdlib.h>

#include <kith/kith.h>

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s COLLECTION ID [K]\n", argv[0]);
        return 2;
    }
    uint32_t k = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 10;

    struct kith_error error;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.error = &error;
    kith *index = NULL;
    if (kith_open(argv[1], &opts, &index) < 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }

    kith_results *hits = kith_results_new();
    int n = hits ? kith_search_id(index, argv[2], k, NULL, hits) : KITH_E_NOT_FOUND;
    if (n < 0)
        fprintf(stderr, "%s: %s\n", argv[2], kith_strerror(n));
    for (int i = 0; i < n; i++)
        printf("%-40s %g\n", kith_results_id(hits, (uint32_t)i),
               (double)kith_results_distance(hits, (uint32_t)i));

    kith_results_free(hits);
    kith_close(index);
    return n < 0;
}
