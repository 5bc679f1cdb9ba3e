/*
 * bench_churn.c - does a collection that was rewritten again and again answer like a new one?
 *
 * One hundredth of the live rows is replaced at a time, at full speed, until all of them were replaced, many times. After each turnover the
 * exact neighbours of a sample of queries are computed for what is there then, a second collection is built of the same rows, and both
 * are searched in turns: recall and rate at the same ef. Besides: live vectors that the graph does not lead to, before kithd has had the quiet
 * second after which it looks for such itself; memory; how fast a quarter is deleted, repair included, and as many inserted; and what
 * single writes wait beside that. The peers take the same replacements.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/churn/churn.h"
#include "bench/churn/content.h"
#include "bench/churn/writer.h"
#include "bench/common/clock.h"
#include "bench/common/histogram.h"
#include "bench/common/machine.h"
#include "bench/common/reader.h"
#include "bench/peers/peers.h"

#define STEPS       100u /* of a turnover */
#define SPARE_SHARE 10u  /* of the live rows, for the writes beside a mass deletion */
#define QUERY_MAX   1000u
#define QPS_KEPT    0.95
#define DELETE_KEPT 1.0
#define PROBE_MS    5 /* between two of the writes that are timed beside a mass deletion */
#define QUIET_S     2.0

static const uint32_t usual_ef[] = { 32, 64, 128 };

/* What one engine shows after a turnover. */
struct point {
    double recall[BENCH_EF_MAX];
    double qps[BENCH_EF_MAX];
    double ratio[BENCH_EF_MAX]; /* to the fresh collection's rate, median of the rounds */
    double bytes;
    double seconds; /* of the turnover's replacements, and of what it was built anew */
};

/* The same of Kith alone. */
struct state {
    uint64_t unreachable, unreachable_rested;
    double relinked;
    double delete_per_s, deleted_per_s; /* until they were answered, and until nothing dead was linked */
    double insert_per_s;                /* of the same number, behind it */
    double fresh_bytes, fresh_seconds;
    double links[2], gapped[2]; /* of rows, of the changed collection and the fresh one */
};

struct run {
    struct bench_options opts;
    const struct bench_daemon *daemon;
    const struct bench_set *set;
    struct bench_config churned, fresh;
    struct bench_content content;
    struct bench_writer writer;
    uint32_t *gone, *come, *anew; /* anew: live rows, as a fresh collection takes them */
    struct bench_peer peers[BENCH_PEER_MAX];
    uint32_t peer_behind[BENCH_PEER_MAX]; /* rows removed since a peer was built */
    unsigned peer_count;
    unsigned engine_count; /* churned, fresh, the peers */
    char names[2 + BENCH_PEER_MAX][40];
    struct point (*points)[2 + BENCH_PEER_MAX]; /* by turnover */
    struct state *states;
    struct bench_histogram quiet, beside; /* single writes: alone, and beside a mass deletion */
    FILE *json;
    const char *machine;
};

void bench_churn_progress(const char *fmt, ...)
{
    va_list args;
    if (!isatty(STDERR_FILENO))
        return;
    va_start(args, fmt);
    fputs("\r\033[K", stderr);
    vfprintf(stderr, fmt, args);
    fflush(stderr);
    va_end(args);
}

bool bench_churn_verdict(const char *what, bool good, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    printf("- %s: %s; ", what, good ? "kept" : "NOT KEPT");
    vprintf(fmt, args);
    putchar('\n');
    va_end(args);
    return good;
}

/* ---- the peers ---- */

static void peer_fill(struct run *r, unsigned i)
{
    struct bench_peer *peer = &r->peers[i];
    struct bench_set empty = *r->set;
    empty.base_count = r->content.live_count;
    peer->p = bench_peer_new(peer->kind, &empty, &r->opts);
    peer->kind->add(peer->p, r->set->base, r->content.live, r->content.live_count, r->opts.threads);
    r->peer_behind[i] = 0;
}

static void peers_open(struct run *r)
{
    const struct peer_kind *kinds[BENCH_PEER_MAX];
    unsigned n = bench_peers_chosen(&r->opts, kinds);
    r->peer_count = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!kinds[i]->add) {
            printf("Without %s: it has no way to add and remove.\n", kinds[i]->name);
            continue;
        }
        bench_churn_progress("%s is built", kinds[i]->name);
        r->peers[r->peer_count].kind = kinds[i];
        peer_fill(r, r->peer_count++);
    }
}

/* What the content has gone through; returns the seconds. */
static double peer_step(struct run *r, unsigned i, uint32_t n)
{
    const struct bench_peer *peer = &r->peers[i];
    uint64_t begin = bench_now_ns();
    peer->kind->remove(peer->p, r->gone, n);
    peer->kind->add(peer->p, r->set->base, r->come, n, r->opts.threads);
    r->peer_behind[i] += n;
    return (double)(bench_now_ns() - begin) / 1e9;
}

/* Build it anew, if it needs that and it is time. */
static double peer_rebuild(struct run *r, unsigned i)
{
    const struct bench_peer *peer = &r->peers[i];
    uint64_t begin = bench_now_ns();
    if (!peer->kind->rebuilt || r->peer_behind[i] < (uint64_t)r->content.live_count * r->opts.rebuild / 100)
        return 0;
    peer->kind->destroy(peer->p);
    peer_fill(r, i);
    return (double)(bench_now_ns() - begin) / 1e9;
}

static void peer_search(void *ctx, const float *query, uint32_t k, uint32_t ef)
{
    const struct bench_peer *peer = ctx;
    peer->kind->search(peer->p, query, k, ef);
}

static uint32_t peer_rows(void *ctx, uint32_t *out_rows, uint32_t k)
{
    const struct bench_peer *peer = ctx;
    return peer->kind->rows(peer->p, out_rows, k);
}

/* ---- single writes beside a mass deletion ---- */

struct probe {
    const struct run *run;
    struct bench_histogram *latency;
    atomic_bool stop;
};

static void nap_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    nanosleep(&t, NULL);
}

/* Rewrite live rows by themselves, one at a time; the last of the live ones are not among those that are deleted meanwhile. */
static void *probe(void *arg)
{
    struct probe *p = arg;
    const struct run *r = p->run;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *index;
    char id[16];
    opts.run_dir = r->daemon->run_dir;
    int rc = kith_open(r->churned.name, &opts, &index);
    uint32_t last = r->content.live_count, spare = last / SPARE_SHARE;
    for (uint32_t i = 0; rc >= 0 && !atomic_load(&p->stop); i++) {
        uint32_t row = r->content.live[last - 1 - i % spare];
        snprintf(id, sizeof(id), "%u", row);
        uint64_t begin = bench_now_ns();
        rc = kith_upsert(index, id, bench_set_base(r->set, row), r->set->dim, NULL);
        bench_histogram_add(p->latency, bench_now_ns() - begin);
        nap_ms(PROBE_MS);
    }
    if (rc < 0)
        bench_die("write: %s", kith_strerror(rc));
    kith_close(index);
    return NULL;
}

/* By the clock, or by what kithd used of the CPUs. */
static double seconds(const struct run *r)
{
    return r->opts.cpu_time ? bench_daemon_cpu(r->daemon) : (double)bench_now_ns() / 1e9;
}

/* As many go at once as the pool holds, a quarter of what is live, and as many come: how long that takes, and with probe() beside it, what that one waits. */
static void replace_mass(struct run *r, struct state *out, struct bench_histogram *latency)
{
    uint32_t n = r->content.pool_count;
    struct probe p = { .run = r, .latency = latency };
    pthread_t thread;
    bench_content_step(&r->content, n, r->gone, r->come);
    if (latency && pthread_create(&thread, NULL, probe, &p) != 0)
        bench_die("cannot start a thread");
    double begin = seconds(r);
    bench_writer_remove(&r->writer, r->gone, n);
    double answered = seconds(r);
    if (latency)
        bench_writer_await_repair_of(&r->writer, bench_now_ns());
    else
        bench_writer_await_repair(&r->writer);
    double repaired = seconds(r);
    if (latency) {
        atomic_store(&p.stop, true);
        pthread_join(thread, NULL);
    }
    double between = seconds(r);
    bench_writer_insert(&r->writer, r->come, n);
    double inserted = seconds(r);
    if (out) {
        out->delete_per_s = n / (answered - begin);
        out->deleted_per_s = n / (repaired - begin);
        out->insert_per_s = n / (inserted - between);
    }
    for (unsigned i = 0; i < r->peer_count; i++)
        peer_step(r, i, n);
}

static void probe_alone(const struct run *r, struct bench_histogram *latency)
{
    struct probe p = { .run = r, .latency = latency };
    pthread_t thread;
    if (pthread_create(&thread, NULL, probe, &p) != 0)
        bench_die("cannot start a thread");
    nap_ms((long)(QUIET_S * 1000));
    atomic_store(&p.stop, true);
    pthread_join(thread, NULL);
}

/* ---- a turnover ---- */

static void replace_all(struct run *r, unsigned turnover)
{
    uint32_t n = r->content.live_count / STEPS;
    struct point *points = r->points[turnover];
    for (unsigned step = 0; step < STEPS; step++) {
        bench_churn_progress("turnover %u of %u: %u %%", turnover, r->opts.turnovers, step);
        bench_content_step(&r->content, n, r->gone, r->come);
        points[0].seconds += bench_writer_remove(&r->writer, r->gone, n);
        points[0].seconds += bench_writer_insert(&r->writer, r->come, n);
        for (unsigned i = 0; i < r->peer_count; i++) {
            points[2 + i].seconds += peer_step(r, i, n);
            if (step + 1 < STEPS) /* what it has become is looked at first */
                points[2 + i].seconds += peer_rebuild(r, i);
        }
    }
}

/* The live rows in the order that is asked for. */
static void arrange(const struct run *r)
{
    const struct bench_content *c = &r->content;
    memcpy(r->anew, c->live, sizeof(*r->anew) * c->live_count);
    if (r->opts.fresh_order == BENCH_FRESH_RANDOM)
        bench_content_shuffle(r->anew, c->live_count);
    else if (r->opts.fresh_order == BENCH_FRESH_SLOTS &&
             bench_writer_slots(&r->writer, r->anew, c->live_count) != c->live_count)
        bench_die("the changed collection holds fewer than %u vectors", c->live_count);
}

static void build_fresh(struct run *r, struct state *out)
{
    struct bench_writer w;
    struct bench_backlog b;
    arrange(r);
    bench_churn_progress("the same rows in a new collection");
    bench_daemon_create(r->daemon, r->set, &r->opts, &r->fresh);
    bench_writer_open(&w, r->daemon, r->set, &r->fresh);
    out->fresh_seconds = bench_writer_insert(&w, r->anew, r->content.live_count);
    bench_writer_await_rest(&w);
    bench_writer_backlog(&w, &b);
    out->fresh_bytes = (double)b.bytes;
    bench_writer_links(&w, &out->links[1], &out->gapped[1]);
    bench_writer_close(&w);
}

static void measure(struct run *r, const struct bench_set *now, struct point *points)
{
    struct bench_engine engines[2 + BENCH_PEER_MAX];
    struct bench_reader readers[2];
    struct bench_curve curve;
    bench_reader_open(&readers[0], r->daemon, &r->churned, &engines[0]);
    bench_reader_open(&readers[1], r->daemon, &r->fresh, &engines[1]);
    for (unsigned i = 0; i < r->peer_count; i++) {
        engines[2 + i] =
            (struct bench_engine){ .ctx = &r->peers[i], .search = peer_search, .rows = peer_rows };
        snprintf(engines[2 + i].name, sizeof(engines[0].name), "%s", r->peers[i].kind->name);
    }
    r->engine_count = 2 + r->peer_count;
    /* Its recall compares places of now with rows; recall is measured below. */
    bench_curve_measure(now, &r->opts, engines, r->engine_count, &curve);
    double *ratios = bench_alloc(sizeof(double) * curve.rounds);
    for (unsigned j = 0; j < r->engine_count; j++) {
        memcpy(r->names[j], engines[j].name, sizeof(r->names[j]));
        for (uint32_t i = 0; i < curve.ef_count; i++) {
            for (unsigned round = 0; round < curve.rounds; round++)
                ratios[round] = curve.qps[j][i][round] / curve.qps[1][i][round];
            points[j].recall[i] = bench_content_recall(&r->content, now, &engines[j], r->opts.k, curve.ef[i]);
            points[j].qps[i] = bench_curve_median(&curve, j, i, NULL, NULL);
            points[j].ratio[i] = bench_median(ratios, curve.rounds);
        }
    }
    free(ratios);
    bench_curve_free(&curve);
    for (unsigned i = 0; i < r->peer_count; i++)
        points[2 + i].bytes = (double)r->peers[i].kind->bytes(r->peers[i].p);
    bench_reader_close(&readers[0]);
    bench_reader_close(&readers[1]);
}

static void write_list(FILE *f, const char *key, const double *v, uint32_t n, int decimals)
{
    fprintf(f, ", \"%s\": [", key);
    for (uint32_t i = 0; i < n; i++) {
        fputs(i ? ", " : "", f);
        fprintf(f, "%.*f", decimals, v[i]);
    }
    fputc(']', f);
}

/* A line of each engine. */
static void write_json(const struct run *r, unsigned turnover)
{
    for (unsigned j = 0; r->json && j < r->engine_count; j++) {
        const struct point *p = &r->points[turnover][j];
        const struct state *s = &r->states[turnover];
        fprintf(r->json,
                "{\"set\": \"%s\", \"engine\": \"%s\", \"order\": \"%s\", \"turnover\": %u, \"live\": %u, "
                "\"ef\": [",
                r->set->name, r->names[j], r->content.clusters ? "clusters" : "random", turnover,
                r->content.live_count);
        for (uint32_t i = 0; i < r->opts.ef_count; i++)
            fprintf(r->json, "%s%u", i ? ", " : "", r->opts.ef[i]);
        fputc(']', r->json);
        write_list(r->json, "recall", p->recall, r->opts.ef_count, 5);
        write_list(r->json, "qps", p->qps, r->opts.ef_count, 0);
        write_list(r->json, "qps_to_fresh", p->ratio, r->opts.ef_count, 3);
        fprintf(r->json, ", \"bytes\": %.0f, \"seconds\": %.2f", p->bytes, p->seconds);
        if (j < 2)
            fprintf(r->json, ", \"links\": %.2f, \"gapped\": %.3f", s->links[j], s->gapped[j]);
        if (j == 0)
            fprintf(
                r->json,
                ", \"unreachable\": %llu, \"unreachable_rested\": %llu, \"relinked\": %.0f, "
                "\"delete_answered_per_s\": %.0f, \"delete_repaired_per_s\": %.0f, \"insert_per_s\": %.0f",
                (unsigned long long)s->unreachable, (unsigned long long)s->unreachable_rested, s->relinked,
                s->delete_per_s, s->deleted_per_s, s->insert_per_s);
        fprintf(r->json, ", \"rounds\": %u, \"machine\": \"%s\"}\n", r->opts.rounds, r->machine);
    }
    if (r->json)
        fflush(r->json);
}

static void print_head(const struct run *r)
{
    printf("\n%s, %s, %u of %u rows live, 1 %% replaced at a time, %s; k = %u, %u queries, medians of %u "
           "rounds%s, ef",
           r->set->name, r->churned.name, r->content.live_count, r->set->base_count,
           r->content.clusters ? "those nearest to a vector drawn by chance" : "drawn by chance", r->opts.k,
           r->set->query_count < QUERY_MAX ? r->set->query_count : QUERY_MAX, r->opts.rounds,
           r->opts.cpu_time ? ", all rates by CPU time" : "");
    for (uint32_t i = 0; i < r->opts.ef_count; i++)
        printf("%s %u", i ? "," : "", r->opts.ef[i]);
    printf("\n\n| turnovers | | recall | recall of a fresh build | QPS to it | MiB | to the first turnover | "
           "unreachable | deleted/s, repaired | inserted/s | replaced/s |\n"
           "|---:|---|---|---|---|---:|---:|---:|---:|---:|---:|\n");
}

static void print_slashes(const double *v, uint32_t n, int decimals)
{
    for (uint32_t i = 0; i < n; i++) {
        fputs(i ? " / " : " ", stdout);
        printf("%.*f", decimals, v[i]);
    }
    fputs(" |", stdout);
}

static void print_turnover(const struct run *r, unsigned turnover)
{
    bench_churn_progress("%s", "");
    for (unsigned j = 0; j < r->engine_count; j++) {
        const struct point *p = &r->points[turnover][j];
        const struct state *s = &r->states[turnover];
        if (j == 1)
            continue;
        printf("| %u | %s |", turnover, r->names[j]);
        print_slashes(p->recall, r->opts.ef_count, 4);
        if (j == 0)
            print_slashes(r->points[turnover][1].recall, r->opts.ef_count, 4);
        else
            fputs(" |", stdout);
        print_slashes(p->ratio, r->opts.ef_count, 2);
        printf(" %.0f |", p->bytes / (1u << 20));
        if (turnover)
            printf(" %.3f |", p->bytes / r->points[1][j].bytes);
        else
            printf(" |");
        if (j == 0)
            printf(" %llu |", (unsigned long long)s->unreachable);
        else
            printf(" |");
        if (j == 0 && turnover)
            printf(" %.0f | %.0f |", s->deleted_per_s, s->insert_per_s);
        else
            printf(" | |");
        if (turnover)
            printf(" %.0f |\n", r->content.live_count / STEPS * STEPS / p->seconds);
        else
            printf(" |\n");
    }
    fflush(stdout);
}

/* What is there now, beside a new collection of the same rows. */
static void judge(struct run *r, unsigned turnover)
{
    struct point *points = r->points[turnover];
    struct state *s = &r->states[turnover];
    struct bench_backlog b;
    struct bench_set now;
    bench_churn_progress("turnover %u: judged", turnover);
    bench_writer_await_repair(&r->writer);
    s->unreachable = bench_writer_unreachable(&r->writer);
    bench_writer_await_rest(&r->writer);
    bench_writer_backlog(&r->writer, &b);
    if (b.live != r->content.live_count)
        bench_die("%llu vectors are live, not %u", (unsigned long long)b.live, r->content.live_count);
    points[0].bytes = (double)b.bytes;
    bench_writer_links(&r->writer, &s->links[0], &s->gapped[0]);
    build_fresh(r, s);
    points[1].bytes = s->fresh_bytes;
    points[1].seconds = s->fresh_seconds;
    bench_content_now(&r->content, QUERY_MAX, r->opts.k, &now);
    s->unreachable_rested = bench_writer_unreachable(&r->writer);
    s->relinked = bench_writer_told(&r->writer, "relinked");
    measure(r, &now, points);
    bench_set_close(&now);
    bench_daemon_drop(r->daemon, &r->fresh);
}

static bool verdicts(struct run *r)
{
    double lost = 0, slowest = INFINITY, growth = 0, delete_least = INFINITY;
    uint64_t unreachable = 0, rested = 0;
    for (unsigned t = 0; t <= r->opts.turnovers; t++) {
        const struct point *p = r->points[t];
        const struct state *s = &r->states[t];
        for (uint32_t i = 0; i < r->opts.ef_count; i++) {
            lost = fmax(lost, p[1].recall[i] - p[0].recall[i]);
            slowest = t ? fmin(slowest, p[0].ratio[i]) : slowest;
        }
        if (t) {
            growth = fmax(growth, p[0].bytes / r->points[1][0].bytes);
            delete_least = fmin(delete_least, s->deleted_per_s / s->insert_per_s);
        }
        unreachable = s->unreachable > unreachable ? s->unreachable : unreachable;
        rested = s->unreachable_rested > rested ? s->unreachable_rested : rested;
    }
    printf("\n%s, %s, %s:\n", r->set->name, r->names[0], r->content.clusters ? "clusters" : "random");
    bool good = bench_churn_verdict("recall at most 0.005 below a fresh build",
                                    lost <= BENCH_CHURN_RECALL_LOST, "%.4f below at most", lost);
    good &= bench_churn_verdict("nothing unreachable when kithd is at rest", rested == 0,
                                "%llu at most then, %llu before it has looked", (unsigned long long)rested,
                                (unsigned long long)unreachable);
    bool fast = bench_churn_verdict("rate at least 0.95 of a fresh build", slowest >= QPS_KEPT,
                                    "%.3f at least", slowest);
    good &= bench_churn_verdict("memory flat after the first turnover, within 2 %",
                                growth <= BENCH_CHURN_GROWTH, "%.3f of it at most", growth);
    fast &= bench_churn_verdict("deletion, repair included, at least as fast as insertion",
                                delete_least >= DELETE_KEPT, "%.2f of it at least", delete_least);
    const struct state *last = &r->states[r->opts.turnovers];
    printf(
        "- rows: %.1f links, %.2f of the rows with an empty place before a link; of a fresh build %.1f and %.2f\n",
        last->links[0], last->gapped[0], last->links[1], last->gapped[1]);
    printf(
        "- single writes every %u ms: p50 %.1f, p99 %.1f, at most %.1f ms alone; %.1f, %.1f and %.1f ms beside "
        "the deletion of a quarter\n",
        PROBE_MS, (double)bench_histogram_at(&r->quiet, 0.5) / 1e6,
        (double)bench_histogram_at(&r->quiet, 0.99) / 1e6, (double)r->quiet.max / 1e6,
        (double)bench_histogram_at(&r->beside, 0.5) / 1e6, (double)bench_histogram_at(&r->beside, 0.99) / 1e6,
        (double)r->beside.max / 1e6);
    fflush(stdout);
    return good && (fast || r->opts.no_rates);
}

static bool churn(struct run *r, const struct bench_config *config, bool clusters)
{
    bench_content_init(&r->content, r->set, clusters);
    if (r->content.live_count < STEPS || r->content.pool_count < r->content.live_count / STEPS)
        bench_die("%u rows are too few: a hundredth of four fifths is replaced at a time",
                  r->set->base_count);
    size_t most = sizeof(uint32_t) * r->content.live_count;
    r->gone = bench_alloc(most);
    r->come = bench_alloc(most);
    r->anew = bench_alloc(most);
    r->points = calloc(r->opts.turnovers + 1, sizeof(*r->points));
    r->states = calloc(r->opts.turnovers + 1, sizeof(*r->states));
    if (!r->points || !r->states)
        bench_die("out of memory");
    memset(&r->quiet, 0, sizeof(r->quiet));
    memset(&r->beside, 0, sizeof(r->beside));
    r->churned = r->fresh = *config;
    snprintf(r->fresh.name, sizeof(r->fresh.name), "%.15s-fresh", config->name);
    bench_daemon_create(r->daemon, r->set, &r->opts, &r->churned);
    bench_writer_open(&r->writer, r->daemon, r->set, &r->churned);
    bench_churn_progress("%u rows are loaded", r->content.live_count);
    bench_writer_insert(&r->writer, r->content.live, r->content.live_count);
    peers_open(r);
    print_head(r);
    judge(r, 0);
    print_turnover(r, 0);
    write_json(r, 0);
    for (unsigned t = 1; t <= r->opts.turnovers; t++) {
        replace_all(r, t);
        judge(r, t);
        replace_mass(r, &r->states[t], NULL);
        print_turnover(r, t);
        write_json(r, t);
        for (unsigned i = 0; i < r->peer_count; i++)
            peer_rebuild(r, i);
    }
    bench_writer_await_rest(&r->writer);
    probe_alone(r, &r->quiet);
    replace_mass(r, NULL, &r->beside);
    bool good = verdicts(r);
    for (unsigned i = 0; i < r->peer_count; i++)
        r->peers[i].kind->destroy(r->peers[i].p);
    bench_writer_close(&r->writer);
    bench_daemon_drop(r->daemon, &r->churned);
    bench_content_fini(&r->content);
    free(r->gone);
    free(r->come);
    free(r->anew);
    free(r->points);
    free(r->states);
    return good;
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 5, 600 };
    static struct run r;
    bench_options_parse(
        argc, argv,
        "bench_churn [OPTIONS] [SET]: a collection that is rewritten again and again, beside a "
        "fresh one; exit status 1 when a promise is not kept",
        &defaults, &r.opts);
    if (!r.opts.ef_given) {
        r.opts.ef_count = 0;
        for (size_t i = 0; i < sizeof(usual_ef) / sizeof(usual_ef[0]); i++) {
            if (usual_ef[i] >= r.opts.k)
                r.opts.ef[r.opts.ef_count++] = usual_ef[i];
        }
        r.opts.ef_given = true; /* all of them */
    }
    struct bench_set whole, set;
    bench_set_open(&r.opts, &whole);
    if (r.opts.sizes_given)
        bench_set_resize(&whole, r.opts.sizes[r.opts.size_count - 1], QUERY_MAX, &set);
    r.set = r.opts.sizes_given ? &set : &whole;
    r.json = r.opts.json ? fopen(r.opts.json, "w") : NULL;
    if (r.opts.json && !r.json)
        bench_die("%s: %s", r.opts.json, strerror(errno));
    char machine[512];
    bench_machine(machine, sizeof(machine));
    r.machine = machine;
    struct bench_daemon daemon;
    /* It would measure recall for half a minute after each change of everything. */
    bench_daemon_start_with(&daemon, r.opts.threads, r.opts.window ? "" : "recall_share = 0\n");
    r.daemon = &daemon;
    printf("%s\n", machine);
    bool good = true;
    for (unsigned i = 0; i < r.opts.config_count; i++) {
        const struct bench_config *config = &r.opts.configs[i];
        if (r.opts.window)
            good &= bench_churn_window(&daemon, r.set, &r.opts, config, r.json);
        else if (r.opts.random)
            good &= churn(&r, config, false);
        if (!r.opts.window && r.opts.clusters)
            good &= churn(&r, config, true);
    }
    bench_daemon_stop(&daemon);
    if (r.json && fclose(r.json) != 0)
        bench_die("%s: %s", r.opts.json, strerror(errno));
    if (r.opts.sizes_given)
        bench_set_close(&set);
    bench_set_close(&whole);
    return good ? 0 : 1;
}
