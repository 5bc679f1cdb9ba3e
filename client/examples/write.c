/*
 * write.c - create a collection, fill it through a pipe, replace one vector and wait until it is seen.
 *
 *   write COLLECTION COUNT
 *
 * The vectors are points on a circle, so that the neighbours of "10" are "9" and "11".
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <kith/kith.h>

enum { DIM = 2, BATCH = 100, DEPTH = 16 };

static void point(double angle, float v[DIM])
{
    v[0] = (float)cos(angle);
    v[1] = (float)sin(angle);
}

/* Take one answer; 0 or the error of its batch or of the connection. */
static int answer(kith_pipe *pipe)
{
    struct kith_commit commit = KITH_COMMIT_INIT;
    uint64_t token;
    int status = 0, rc = kith_pipe_next(pipe, -1, &token, &status, &commit);
    if (rc < 0)
        return rc;
    if (status < 0)
        fprintf(stderr, "batch %llu: %s\n", (unsigned long long)token, commit.error.text);
    return status;
}

static int fill(kith *index, int count)
{
    kith_pipe *pipe = NULL;
    kith_batch *batch = kith_batch_new(index);
    int rc = kith_pipe_open(index, DEPTH, &pipe);
    for (int i = 0; rc >= 0 && i < count;) {
        kith_batch_clear(batch);
        for (int n = 0; rc >= 0 && n < BATCH && i < count; n++, i++) {
            char id[16];
            float v[DIM];
            snprintf(id, sizeof id, "%d", i);
            point(6.28318530717958648 * i / count, v);
            rc = kith_batch_upsert(batch, id, v, DIM);
        }
        while (rc >= 0 && (rc = kith_pipe_submit(pipe, batch, (uint64_t)i)) == -EAGAIN)
            rc = answer(pipe); /* as many as the pipe holds are on their way */
    }
    while (rc >= 0 && kith_pipe_pending(pipe) > 0)
        rc = answer(pipe);
    kith_pipe_close(pipe);
    kith_batch_free(batch);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s COLLECTION COUNT\n", argv[0]);
        return 2;
    }

    struct kith_error error;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.error = &error;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.error = &error;
    kith *index = NULL;
    if (kith_create(argv[1], &create) < 0 || kith_open(argv[1], &opts, &index) < 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }

    float v[DIM];
    uint64_t epoch = 0;
    point(0.001, v);
    int rc = fill(index, atoi(argv[2]));
    if (rc >= 0)
        rc = kith_upsert(index, "0", v, DIM, &epoch);
    if (rc >= 0)
        rc = kith_wait_epoch(index, epoch, 1000); /* any other process could wait for it as well */
    if (rc < 0)
        fprintf(stderr, "%s\n", kith_strerror(rc));
    else
        printf("'%s' is at epoch %llu\n", argv[1], (unsigned long long)epoch);
    kith_close(index);
    return rc < 0;
}
