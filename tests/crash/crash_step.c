/*
 * crash_step.c - the writer dies after any instruction: what does it leave?
 *
 *   crash_step [--seeds FIRST:COUNT] [--operation NAME] [--phases N] [--share N] [--crashes N] [--tally FILE]
 *
 * A seed is a small collection (27 in a row have every quantization, what is kept, and metric) and a script of writes.
 * The process that runs the script is single-stepped through each of the operations of step/step.h. Whenever an
 * instruction has changed a byte of the segment or of the log, both are copied as they are, and the copy is judged
 * (step/judge.h): searched, verified, adopted, recovered from its log, compared with what was visible and acknowledged,
 * written to, adopted again. Another process searches the running one all the time. Then some of the stops are taken as
 * crashes, and their adoption is single-stepped in the same way.
 *
 *   --operation NAME  step through this operation only
 *   --phases N   step through one phase of each operation in N, chosen by the seed; 1: all of them
 *   --share N    judge one changed state in N, chosen by the seed; 1: all of them
 *   --crashes N  adoptions to step through for each seed
 *   --tally FILE figures of each seed are appended to it, seeds that stand in it are done, and the sum is over all of it
 *
 * Without options: a fixed share of two seeds, or with KITH_TEST_LONG=1 all of 27 seeds, and two adoptions each. Exit
 * status 77 where stepping is not possible.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

#include "tests/crash/step/trace.h"

#define SKIPPED       77
#define SHORT_FIRST   1u /* these two and this share meet every operation where it changes most */
#define SHORT_SEEDS   2u
#define SHORT_PHASES  4u
#define LONG_SEEDS    STEP_KINDS
#define LONG_CRASHES  2u
#define LINE_MAX_SIZE 1024u

const char *const step_operation_names[STEP_OPERATION_COUNT] = {
    [STEP_INSERT] = "insert", [STEP_UPSERT] = "upsert",         [STEP_DELETE] = "delete",
    [STEP_GROWTH] = "growth", [STEP_REUSE] = "reuse",           [STEP_COMMIT] = "commit",
    [STEP_ADOPT] = "adopt",   [STEP_CHECKPOINT] = "checkpoint",
};

struct options {
    uint64_t first, count;
    uint32_t operations; /* a bit each */
    uint32_t phases, share, crashes;
    uint32_t crashes_first; /* of the first seed, besides */
    const char *tally;
};

struct totals {
    struct step_figures of[STEP_OPERATION_COUNT];
    uint64_t worlds, live_searches, searches, found, least;
};

/* ---- worlds ---- */

void step_world_init(struct step_world *w, uint64_t seed)
{
    static const struct {
        uint32_t quantization, keep;
    } codes[] = {
        { KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32 }, { KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32 },
        { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_NONE }, { KITHI_QUANTIZATION_BITS, KITHI_KEEP_NONE },
        { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32 },  { KITHI_QUANTIZATION_F16, KITHI_KEEP_F32 },
        { KITHI_QUANTIZATION_BITS, KITHI_KEEP_F16 }, { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F16 },
        { KITHI_QUANTIZATION_F16, KITHI_KEEP_NONE },
    };
    /* Rows with neighbour codes take most of the instructions, and few vectors fill them. */
    static const uint32_t dims[] = { 40, 7, 16, 33, 12 }, dims_bits[] = { 12, 7 };
    struct kithi_geometry *g = &w->identity.geometry;
    memset(w, 0, sizeof *w);
    w->seed = seed;
    uint64_t kind = seed % STEP_KINDS;
    *g = (struct kithi_geometry){ .metric = KITHI_METRIC_L2 + (uint32_t)(kind + kind / 9) % 3,
                                  .m = 4,
                                  .ef_construction = 8,
                                  .slot_max = 1024 };
    bool bits = codes[kind % 9].quantization == KITHI_QUANTIZATION_BITS;
    g->dim = bits ? dims_bits[seed % 2] : dims[seed % 5];
    kithi_geometry_want(g, codes[kind % 9].quantization, codes[kind % 9].keep);
    for (unsigned i = 0; i < 16; i++) {
        w->identity.uid[i] = (uint8_t)(0x30 + i);
        w->identity.hash_key[i] = (uint8_t)(seed >> (i % 8) ^ 29 * i);
    }
    w->tuning = (struct kithi_index_tuning){ .worker_count = 1, .small_pages = true };
    snprintf(w->name, sizeof w->name, "%s-%s %s %u-d", kithi_quantization_name(g->quantization),
             kithi_keep_name(g->keep), kithi_metric_name(g->metric), g->dim);
}

/* ---- a seed ---- */

static void died(int signal)
{
    static const char text[] = "\ncrash_step: stuck, or died of a bad state, after: ";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    n += write(STDERR_FILENO, step_position, strlen(step_position));
    n += write(STDERR_FILENO, "\n", 1);
    (void)n;
    _exit(128 + signal);
}

static void tell(const struct step_tracer *t, uint64_t ms)
{
    printf("seed %" PRIu64 " (%s):", t->world->seed, t->world->name);
    for (unsigned i = 0; i < STEP_OPERATION_COUNT; i++)
        printf(" %s %" PRIu64 "/%" PRIu64, step_operation_names[i], t->figures[i].stops,
               t->figures[i].states);
    printf("; %" PRIu64 " s\n", ms / 1000);
    fflush(stdout);
}

static void add(struct totals *sum, const struct totals *more)
{
    for (unsigned i = 0; i < STEP_OPERATION_COUNT; i++) {
        sum->of[i].stops += more->of[i].stops;
        sum->of[i].states += more->of[i].states;
        sum->of[i].judged += more->of[i].judged;
        sum->of[i].bad += more->of[i].bad;
    }
    sum->worlds += more->worlds;
    sum->live_searches += more->live_searches;
    sum->searches += more->searches;
    sum->found += more->found;
    sum->least += more->least;
}

/* Of the stops that were saved: one in a commit first, for there is most to undo, then others in turns. */
static void step_through_adoptions(struct step_tracer *t, uint32_t count)
{
    static const enum step_operation others[] = { STEP_REUSE, STEP_UPSERT, STEP_INSERT, STEP_DELETE,
                                                  STEP_GROWTH };
    const uint32_t other_count = sizeof others / sizeof *others;
    for (uint32_t i = 0; i < count && i <= other_count; i++) {
        const struct step_crash *c = &t->crashes[STEP_COMMIT];
        if (i)
            c = &t->crashes[others[(t->world->seed + i) % other_count]];
        if (!c->place.segment[0])
            continue;
        printf("  adoption after %s\n", c->where);
        step_run(t, c);
    }
}

static void run_seed(uint64_t seed, const struct options *o, struct totals *out)
{
    struct step_world world;
    struct test_dir dir;
    struct test_child reader;
    struct step_tracer *t = calloc(1, sizeof *t);
    uint64_t began = test_now_ms();
    if (!t)
        test_die("out of memory");
    step_world_init(&world, seed);
    test_dir_make_shm(&dir);
    t->world = &world;
    t->dir = &dir;
    t->phases = o->phases;
    t->share = o->share;
    t->operations = o->operations;
    t->shared = test_shared(sizeof *t->shared);
    t->model = test_model_new(seed, STEP_ID_COUNT, world.identity.geometry.dim,
                              world.identity.geometry.metric == KITHI_METRIC_COSINE);
    t->payloads = test_model_new(seed, STEP_ID_COUNT, world.identity.geometry.dim, false);
    t->model->ip = world.identity.geometry.metric == KITHI_METRIC_IP;
    t->model->kept = kithi_geometry_kept(&world.identity.geometry);
    test_rand_seed(&t->r, seed + 3);
    step_frozen_init(&t->frozen, &world.identity.geometry, &dir);
    step_judge_init(&t->judge, &world, t->model, t->payloads, &t->frozen);
    struct step_reader_args reader_args = {
        .shared = t->shared, .model = t->model, .payloads = t->payloads, .world = &world
    };
    test_child_start(&reader, "reader", step_reader, &reader_args);

    if (step_run(t, NULL))
        step_through_adoptions(t, o->crashes);
    atomic_store(&t->shared->done, true);
    if (test_child_wait(&reader, 10000) != 0 || atomic_load(&t->shared->reader_errors)) {
        fprintf(stderr, "BAD seed %" PRIu64 " (%s): the reader saw %" PRIu64 " errors: %s\n", seed,
                world.name, atomic_load(&t->shared->reader_errors), t->shared->reader_text);
        t->figures[STEP_INSERT].bad++;
    }
    memset(out, 0, sizeof *out);
    memcpy(out->of, t->figures, sizeof out->of);
    out->worlds = 1;
    out->live_searches = atomic_load(&t->shared->searches);
    out->searches = t->judge.searches;
    out->found = t->judge.found;
    out->least = t->judge.least;
    tell(t, test_now_ms() - began);
    step_judge_fini(&t->judge);
    step_frozen_fini(&t->frozen);
    test_dir_remove(&dir);
    step_position = "";
    free(t);
}

/* ---- the tally: a line a seed ---- */

static void tally_add(const char *path, uint64_t seed, const struct options *o, const struct totals *one)
{
    FILE *f = fopen(path, "a");
    if (!f)
        test_die("%s: %s", path, strerror(errno));
    fprintf(f, "seed %" PRIu64 " share %u searches %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, seed,
            o->share, one->live_searches, one->searches, one->found, one->least);
    for (unsigned i = 0; i < STEP_OPERATION_COUNT; i++)
        fprintf(f, " %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, step_operation_names[i],
                one->of[i].stops, one->of[i].states, one->of[i].judged, one->of[i].bad);
    if (fprintf(f, "\n") < 0 || fclose(f) != 0)
        test_die("%s: %s", path, strerror(errno));
}

static bool tally_line(const char *line, uint64_t *seed, struct totals *out)
{
    int at = 0, n = 0;
    memset(out, 0, sizeof *out);
    out->worlds = 1;
    if (sscanf(line, "seed %" SCNu64 " share %*u searches %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n",
               seed, &out->live_searches, &out->searches, &out->found, &out->least, &at) != 5)
        return false;
    for (unsigned i = 0; i < STEP_OPERATION_COUNT; i++, at += n)
        if (sscanf(line + at, " %*s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n", &out->of[i].stops,
                   &out->of[i].states, &out->of[i].judged, &out->of[i].bad, &n) != 4)
            return false;
    return true;
}

/* Add up what stands in it; whether seed is among that. */
static bool tally_read(const char *path, uint64_t seed, struct totals *sum)
{
    char line[LINE_MAX_SIZE];
    struct totals one;
    uint64_t number;
    bool known = false;
    FILE *f = fopen(path, "r");
    memset(sum, 0, sizeof *sum);
    while (f && fgets(line, sizeof line, f)) {
        if (!tally_line(line, &number, &one))
            test_die("%s: this is not a line of a tally: %s", path, line);
        add(sum, &one);
        known |= number == seed;
    }
    if (f)
        fclose(f);
    return known;
}

static uint64_t print_totals(const struct totals *sum)
{
    struct step_figures all = { 0 };
    printf("%-10s %12s %10s %10s %5s\n", "", "stop points", "states", "judged", "bad");
    for (unsigned i = 0; i < STEP_OPERATION_COUNT; i++) {
        const struct step_figures *f = &sum->of[i];
        printf("%-10s %12" PRIu64 " %10" PRIu64 " %10" PRIu64 " %5" PRIu64 "\n", step_operation_names[i],
               f->stops, f->states, f->judged, f->bad);
        all.stops += f->stops;
        all.states += f->states;
        all.judged += f->judged;
        all.bad += f->bad;
    }
    printf("%-10s %12" PRIu64 " %10" PRIu64 " %10" PRIu64 " %5" PRIu64 "\n", "all", all.stops, all.states,
           all.judged, all.bad);
    printf("%" PRIu64 " collections; readers: %" PRIu64 " searches beside the writer, %" PRIu64
           " in states as they were left or adopted, which found %" PRIu64 " of %" PRIu64 "\n",
           sum->worlds, sum->live_searches, sum->searches, sum->found, sum->least);
    return all.bad;
}

/* ---- the program ---- */

/*
 * Where things lie in memory decides a few branches: without chance in it, a seed is the same instructions each time. And
 * without string instructions, which stop after every byte: to clear what a search keeps for itself was 8192 stops.
 */
static void begin_anew_without_chance(char **argv)
{
    int now = personality(0xffffffff);
    setenv("KITH_KERNEL", "scalar", 1);
    setenv("GLIBC_TUNABLES",
           "glibc.cpu.x86_rep_stosb_threshold=0x40000000:glibc.cpu.x86_rep_movsb_threshold=0x40000000", 1);
    if (now < 0 || now & ADDR_NO_RANDOMIZE || getenv("KITH_STEP_AGAIN"))
        return;
    setenv("KITH_STEP_AGAIN", "1", 1);
    if (personality((unsigned long)now | ADDR_NO_RANDOMIZE) >= 0)
        execv("/proc/self/exe", argv);
}

static void parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = { { "seeds", required_argument, NULL, 's' },
                                             { "phases", required_argument, NULL, 'f' },
                                             { "share", required_argument, NULL, 'p' },
                                             { "operation", required_argument, NULL, 'o' },
                                             { "crashes", required_argument, NULL, 'c' },
                                             { "tally", required_argument, NULL, 't' },
                                             { NULL, 0, NULL, 0 } };
    int c;
    *o = (struct options){ .first = test_long() ? 0 : SHORT_FIRST,
                           .count = test_long() ? LONG_SEEDS : SHORT_SEEDS,
                           .phases = test_long() ? 1 : SHORT_PHASES,
                           .share = 1,
                           .operations = UINT32_MAX,
                           .crashes = test_long() ? LONG_CRASHES : 0 };
    o->crashes_first = test_long() ? 0 : 1;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        bool good = true;
        switch (c) {
        case 's': good = sscanf(optarg, "%" SCNu64 ":%" SCNu64, &o->first, &o->count) == 2; break;
        case 'f': good = sscanf(optarg, "%u", &o->phases) == 1 && o->phases > 0; break;
        case 'p': good = sscanf(optarg, "%u", &o->share) == 1 && o->share > 0; break;
        case 'c':
            good = sscanf(optarg, "%u", &o->crashes) == 1;
            o->crashes_first = 0;
            break;
        case 'o':
            o->operations = 0;
            for (unsigned i = 0; i < STEP_OPERATION_COUNT; i++)
                o->operations |= (uint32_t)(strcmp(optarg, step_operation_names[i]) == 0) << i;
            good = o->operations != 0;
            break;
        case 't': o->tally = optarg; break;
        default: good = false;
        }
        if (!good) {
            fputs(
                "usage: crash_step [--seeds FIRST:COUNT] [--operation NAME] [--phases N] [--share N] [--crashes N] "
                "[--tally FILE]\n",
                stderr);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o;
    struct totals sum = { 0 }, one;
    parse(argc, argv, &o);
    if (!step_permitted())
        return SKIPPED;
    begin_anew_without_chance(argv);
    signal(SIGALRM, died);
    signal(SIGSEGV, died);
    signal(SIGBUS, died);
    signal(SIGABRT, died);
    for (uint64_t seed = o.first; seed < o.first + o.count; seed++) {
        struct options this = o;
        this.crashes += seed == o.first ? o.crashes_first : 0;
        if (o.tally && tally_read(o.tally, seed, &sum))
            continue;
        run_seed(seed, &this, &one);
        if (o.tally)
            tally_add(o.tally, seed, &o, &one);
        else
            add(&sum, &one);
    }
    if (o.tally)
        tally_read(o.tally, UINT64_MAX, &sum);
    return print_totals(&sum) ? 1 : 0;
}
