/*
 * app.c - the application beside the sidecar: attaches to a collection and searches it without a pause.
 *
 *   kith-example-app COLLECTION [--run DIR] [--fill N] [--seconds S] [--pause-ms MS] [--wait S] [--report-ms MS]
 *
 * With --fill it makes the collection if there is none, and puts N points into it (it has to be in kithd's write group then);
 * otherwise it only reads: a read-only mount of the run directory and membership of the read group are enough. Attaching is
 * tried for S seconds (--wait, 60), as containers of a pod start in any order. It prints a line of JSON a second
 * (--report-ms), and one at its end. SIGTERM ends it. Exit status 0 when no search failed and each found what it looked for,
 * 1 otherwise, 2 for bad usage.
 *
 * A vector is a function of its id, so that a reader knows by itself what the nearest neighbour is. It searches for those that
 * are there when it begins; others may add what they like.
 */
#include <errno.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIM = 64, BATCH = 200, K = 5 };

struct job {
    const char *collection, *run;
    long fill, seconds, pause_ms, wait_s, report_ms; /* seconds 0: until it is told to stop */
};

struct tally {
    uint64_t searches, failed, odd, slowest_us; /* odd: the vector itself was not the nearest */
    char last_error[256];
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void nap_ms(long ms)
{
    struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
    nanosleep(&t, NULL); /* a signal ends it early, which is as well */
}

static void vector_of(uint64_t id, float v[DIM])
{
    uint64_t x = id * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (int i = 0; i < DIM; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        v[i] = (float)(x >> 40) / (float)(1 << 24) - 0.5f;
    }
}

static int attach(const struct job *job, kith **out)
{
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = job->run;
    opts.error = &error;
    uint64_t deadline = now_us() + (uint64_t)job->wait_s * 1000000u;
    int rc;
    while ((rc = kith_open(job->collection, &opts, out)) < 0 && now_us() < deadline && !stop)
        nap_ms(50);
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", job->collection, error.text);
    return rc;
}

/* Everything is put again, whatever is there: an upsert of the same changes nothing for readers. */
static int fill(const struct job *job)
{
    struct kith_error error = { 0 };
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = job->run;
    create.error = &error;
    kith *index = NULL;
    kith_batch *batch = NULL;
    uint64_t deadline = now_us() + (uint64_t)job->wait_s * 1000000u;
    int rc;
    while ((rc = kith_create(job->collection, &create)) < 0 && rc != KITH_E_EXISTS && rc != KITH_E_DENIED &&
           now_us() < deadline && !stop)
        nap_ms(50);
    if (rc < 0 && rc != KITH_E_EXISTS) {
        fprintf(stderr, "%s: %s\n", job->collection, error.text);
        return rc;
    }
    rc = attach(job, &index);
    if (rc < 0)
        return rc;
    batch = kith_batch_new(index);
    rc = batch ? 0 : -ENOMEM;
    for (long i = 0; rc >= 0 && i < job->fill && !stop;) {
        struct kith_commit commit = KITH_COMMIT_INIT;
        kith_batch_clear(batch);
        for (int n = 0; rc >= 0 && n < BATCH && i < job->fill; n++, i++) {
            char id[24];
            float v[DIM];
            snprintf(id, sizeof id, "%ld", i);
            vector_of((uint64_t)i, v);
            rc = kith_batch_upsert(batch, id, v, DIM);
        }
        if (rc >= 0)
            rc = kith_batch_commit(batch, &commit);
        if (rc < 0)
            fprintf(stderr, "%s: %s\n", job->collection,
                    commit.error.text[0] ? commit.error.text : kith_strerror(rc));
    }
    kith_batch_free(batch);
    kith_close(index);
    return rc;
}

static void print(const char *what, const struct tally *t, uint64_t count)
{
    printf("{\"event\":\"%s\",\"searches\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"odd\":%" PRIu64
           ",\"slowest_us\":%" PRIu64 ",\"vectors\":%" PRIu64 ",\"error\":\"%s\"}\n",
           what, t->searches, t->failed, t->odd, t->slowest_us, count, t->last_error);
    fflush(stdout);
}

/* One search for a vector that is there: it has to come back as its own nearest neighbour, with distance 0. */
static void search(kith *index, uint64_t id, kith_results *hits, struct tally *t)
{
    float v[DIM];
    char name[24];
    vector_of(id, v);
    snprintf(name, sizeof name, "%" PRIu64, id);
    uint64_t began = now_us();
    int n = kith_search(index, v, DIM, K, NULL, hits);
    uint64_t took = now_us() - began;
    t->searches++;
    t->slowest_us = took > t->slowest_us ? took : t->slowest_us;
    if (n < 0) {
        t->failed++;
        snprintf(t->last_error, sizeof t->last_error, "%s", kith_strerror(n));
    } else if (n < 1 || strcmp(kith_results_id(hits, 0), name) != 0) {
        t->odd++;
    }
}

static int read_on(const struct job *job)
{
    struct tally t = { 0 };
    kith *index = NULL;
    kith_results *hits = kith_results_new();
    int rc = hits ? attach(job, &index) : -ENOMEM;
    if (rc < 0) {
        kith_results_free(hits);
        return 1;
    }
    uint64_t began = now_us(), said = began, id = 0, count = 0, known = 0;
    while (!stop && (job->seconds == 0 || now_us() - began < (uint64_t)job->seconds * 1000000u)) {
        int status = known == 0 || t.searches % 256 == 0 ? kith_count(index, &count) : 0;
        if (status < 0) {
            t.failed++;
            snprintf(t.last_error, sizeof t.last_error, "%s", kith_strerror(status));
        }
        known = known > 0 ? known : count;
        if (known == 0) { /* nobody has filled it yet */
            nap_ms(20);
            continue;
        }
        id = (id * 5 + 3) % known;
        search(index, id, hits, &t);
        if (now_us() - said >= (uint64_t)job->report_ms * 1000u || t.searches == 1) {
            said = now_us();
            print("searching", &t, count);
        }
        if (job->pause_ms > 0)
            nap_ms(job->pause_ms);
    }
    print("end", &t, count);
    kith_results_free(hits);
    kith_close(index);
    return t.failed > 0 || t.odd > 0;
}

static bool number(const char *text, long *out)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *out >= 0 && *out <= 100000000;
}

int main(int argc, char **argv)
{
    static const char usage[] = "usage: kith-example-app COLLECTION [--run DIR] [--fill N] [--seconds S]\n"
                                "                        [--pause-ms MS] [--wait S] [--report-ms MS]\n"
                                "       kith-example-app --help\n";
    struct job job = { .wait_s = 60, .report_ms = 1000 };
    for (int i = 1; i < argc; i++) {
        const struct {
            const char *name;
            long *out;
        } numbers[] = { { "--fill", &job.fill },
                        { "--seconds", &job.seconds },
                        { "--pause-ms", &job.pause_ms },
                        { "--wait", &job.wait_s },
                        { "--report-ms", &job.report_ms } };
        bool known = false;
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        if (strcmp(argv[i], "--run") == 0 && i + 1 < argc) {
            job.run = argv[++i];
            continue;
        }
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers && !known; n++)
            known =
                strcmp(argv[i], numbers[n].name) == 0 && i + 1 < argc && number(argv[i + 1], numbers[n].out);
        if (known) {
            i++;
        } else if (argv[i][0] != '-' && job.collection == NULL) {
            job.collection = argv[i];
        } else {
            fprintf(stderr, "kith-example-app: %s is no option, or its value is none\n%s", argv[i], usage);
            return 2;
        }
    }
    if (job.collection == NULL) {
        fputs(usage, stderr);
        return 2;
    }
    /* Process 1 of a container ignores signals that it has no handler for. */
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (job.fill > 0 && fill(&job) < 0)
        return 1;
    return read_on(&job);
}
