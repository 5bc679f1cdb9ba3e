/*
 * demo.c - the main job on real input: every Debian package by its description.
 *
 * Turns descriptions into vectors, starts kithd, loads them, lets four processes search while a
 * fifth writes, kills the daemon with -9 while they search on, and checks after its restart that every
 * acknowledged write is there. Ends with a line that says PASS or FAIL, and the exit status that
 * goes with it. Everything happens in temporary directories, which are removed at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <kith/kith.h>

#include "tools/demo/board.h"
#include "tools/demo/processes.h"
#include "tools/demo/roles.h"
#include "tools/out.h"

#define EMBED_TOO_FEW  3 /* exit status of embed when there is too little to show */
#define SHOWN          8u
#define RECALL_QUERIES 200u
#define RECALL_MIN     0.95
#define PRIVATE_MAX    (UINT64_C(4) << 20) /* what a reader may need of its own */
#define START_MS       15000
#define WITNESS        "the-last-write-before-the-kill"

/* How long the parts take, and how much there is when there are no packages. */
struct pace {
    const char *generated; /* vectors */
    unsigned writing_s, killed_s, back_s;
    bool packages; /* false: generated vectors in any case */
};

static const struct pace FULL = { "20000", 10, 5, 3, true };
static const struct pace SHORT = { "3000", 2, 1, 1, false }; /* --short: for the test */

struct demo {
    const struct pace *pace;
    char *bin;  /* directory of the programs */
    char *run;  /* run directory of kithd */
    char *work; /* its data directory and everything else */
    char *stem, *board_path, *log;
    struct demo_input input;
    char **titles; /* of each row */
    char *titles_text;
    struct demo_board *board;
    kith *index;
    pid_t daemon, readers[DEMO_READERS], writer;
    uint64_t began_ns[PHASE_COUNT]; /* CLOCK_MONOTONIC; 0: not yet */
    bool generated;
    double recall;
    char verdict[400]; /* why it failed; "" so far it did not */
};

/* The first reason stays. */
static int fail(struct demo *d, const char *fmt, ...) KITHI_PRINTF(2, 3);
static int fail(struct demo *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (d->verdict[0] == '\0')
        vsnprintf(d->verdict, sizeof d->verdict, fmt, ap);
    va_end(ap);
    return -1;
}

static void heading(const char *text)
{
    printf("\n== %s\n", text);
    fflush(stdout);
}

/* False: interrupted. */
static bool rest_ms(unsigned ms)
{
    struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };
    return nanosleep(&ts, NULL) == 0 && !demo_interrupted();
}

static char *join(const char *a, const char *b)
{
    char *out = NULL;
    if (asprintf(&out, "%s/%s", a, b) < 0) {
        fprintf(stderr, "demo: out of memory\n");
        exit(1);
    }
    return out;
}

/* ---- vectors ----------------------------------------------------------------------------- */

/* apt-cache dumpavail | embed STEM; exit status of embed. */
static int embed_packages(struct demo *d, char *embed)
{
    int ends[2];
    if (pipe(ends) != 0)
        return 1;
    const char *dump[] = { "apt-cache", "dumpavail", NULL };
    const char *into[] = { embed, d->stem, NULL };
    pid_t apt = demo_spawn(&(struct demo_spawn){ dump, -1, ends[1], d->log });
    close(ends[1]);
    int status = demo_run(&(struct demo_spawn){ into, ends[0], -1, d->log });
    close(ends[0]);
    if (apt > 0 && demo_wait(apt) == 127)
        return EMBED_TOO_FEW; /* no apt-cache: nothing came */
    return status;
}

static int make_vectors(struct demo *d)
{
    heading("vectors from package descriptions (apt-cache dumpavail)");
    char *embed = join(d->bin, "kith_demo_embed");
    uint64_t begin = kithi_tool_now_ns();
    int status = d->pace->packages ? embed_packages(d, embed) : EMBED_TOO_FEW;
    if (status == EMBED_TOO_FEW && !demo_interrupted()) {
        printf("%s: going on with %s generated, clustered vectors (fixed seed)\n",
               d->pace->packages ? "apt-cache is missing or knows fewer than 1,000 packages" : "a short run",
               d->pace->generated);
        const char *generate[] = { embed, "--generate", d->pace->generated, d->stem, NULL };
        status = demo_run(&(struct demo_spawn){ generate, -1, -1, d->log });
        d->generated = true;
    }
    free(embed);
    if (status != 0)
        return fail(d, "the vectors could not be made (status %d)", status);

    char *titles = join(d->work, "packages.titles");
    int rc = demo_input_open(d->stem, &d->input);
    if (rc == 0 && demo_read_lines(titles, &d->titles_text, &d->titles) != (long)d->input.count)
        rc = -EIO;
    free(titles);
    if (rc != 0)
        return fail(d, "the vectors cannot be read: %s", kith_strerror(rc));
    char text[KITHI_OUT_TEXT_SIZE];
    printf("%s %s, %u dimensions, in %.1f s\n", kithi_out_count(text, d->input.count),
           d->generated ? "vectors" : "packages", DEMO_DIM, (double)(kithi_tool_now_ns() - begin) / 1e9);
    return 0;
}

/* ---- daemon and command line --------------------------------------------------------------- */

static int start_daemon(struct demo *d)
{
    char *kithd = join(d->bin, "kithd"), *data = join(d->work, "data");
    const char *argv[] = { kithd, "--data", data, "--run", d->run, NULL };
    uint64_t begin = kithi_tool_now_ns();
    d->daemon = demo_spawn(&(struct demo_spawn){ argv, -1, -1, d->log });
    free(kithd);
    free(data);
    if (d->daemon < 0)
        return fail(d, "kithd cannot be started: %s", strerror(-d->daemon));
    while (kith_readiness(NULL, d->run, NULL, NULL) != 0) {
        if (kithi_tool_now_ns() - begin > START_MS * UINT64_C(1000000))
            return fail(d, "kithd did not answer within %d s", START_MS / 1000);
        if (!rest_ms(5))
            return fail(d, "interrupted");
    }
    printf("kithd answers after %.0f ms\n", (double)(kithi_tool_now_ns() - begin) / 1e6);
    return 0;
}

/* Run `kith ARGS` against the demonstration's daemon, and show what is run. */
static int run_kith(struct demo *d, const char *const *args, size_t n)
{
    char *kith_path = join(d->bin, "kith");
    const char *argv[16] = { kith_path, "--run", d->run };
    printf("$ kith");
    for (size_t i = 0; i < n; i++) {
        argv[3 + i] = args[i];
        const char *slash = strrchr(args[i], '/');
        printf(" %s", slash != NULL ? slash + 1 : args[i]);
    }
    putchar('\n');
    int status = demo_run(&(struct demo_spawn){ argv, -1, -1, NULL });
    free(kith_path);
    if (status != 0)
        return fail(d, "kith %s ended with status %d", args[0], status);
    return 0;
}

static int load(struct demo *d)
{
    heading("kithd starts, the collection is created and loaded");
    if (start_daemon(d) != 0)
        return -1;
    char *fvecs = join(d->work, "packages.fvecs"), *ids = join(d->work, "packages.ids");
    const char *create[] = { "create", DEMO_NAME, "--dim", "256", "--metric", "cosine" };
    const char *load_args[] = { "load", DEMO_NAME, fvecs, "--ids", ids };
    int rc = run_kith(d, create, sizeof create / sizeof *create);
    if (rc == 0)
        rc = run_kith(d, load_args, sizeof load_args / sizeof *load_args);
    free(fvecs);
    free(ids);
    if (rc != 0)
        return rc;
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = d->run;
    opts.error = &error;
    if (kith_open(DEMO_NAME, &opts, &d->index) != 0)
        return fail(d, "%s", error.text);
    return 0;
}

/* ---- answers a person can judge --------------------------------------------------------------- */

static const char *title_of(const struct demo *d, const char *id)
{
    for (uint32_t i = 0; i < d->input.count; i++)
        if (strcmp(d->input.ids[i], id) == 0)
            return d->titles[i];
    return "";
}

static int show_neighbours(struct demo *d)
{
    static const char *const PACKAGES[] = { "nginx", "gimp", "python3-numpy" };
    heading("neighbours");
    kith_results *r = kith_results_new();
    if (r == NULL)
        return fail(d, "out of memory");
    for (size_t i = 0; i < sizeof PACKAGES / sizeof *PACKAGES; i++) {
        const char *id = d->generated ? d->input.ids[i] : PACKAGES[i];
        int n = kith_search_id(d->index, id, SHOWN, NULL, r);
        if (n == KITH_E_NOT_FOUND) {
            printf("%s: not among the packages that this machine knows\n", id);
            continue;
        }
        if (n < 0) {
            kith_results_free(r);
            return fail(d, "search for neighbours of %s: %s", id, kith_strerror(n));
        }
        printf("%s%s (%s)\n", i > 0 ? "\n" : "", id, title_of(d, id));
        for (uint32_t h = 0; h < (uint32_t)n; h++) {
            const char *hit = kith_results_id(r, h);
            printf("  %.3f  %-28s %.70s\n", (double)kith_results_distance(r, h), hit, title_of(d, hit));
        }
    }
    kith_results_free(r);
    return 0;
}

/* Hits of an exact search that the walk finds, too; equal distances count as found. */
static int measure_recall(struct demo *d)
{
    kith_results *near = kith_results_new(), *exact = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    uint64_t right = 0, all = 0;
    int rc = near == NULL || exact == NULL ? -ENOMEM : 0;
    opts.exact = 1;
    for (uint32_t q = 0; q < RECALL_QUERIES && rc >= 0 && !demo_interrupted(); q++) {
        const float *query = d->board->queries[q];
        rc = kith_search(d->index, query, DEMO_DIM, DEMO_K, NULL, near);
        if (rc >= 0)
            rc = kith_search(d->index, query, DEMO_DIM, DEMO_K, &opts, exact);
        if (rc <= 0)
            break;
        float limit = kith_results_distance(exact, (uint32_t)rc - 1) + 1e-6f;
        for (uint32_t i = 0; i < kith_results_count(near); i++)
            right += kith_results_distance(near, i) <= limit;
        all += (uint64_t)rc;
    }
    kith_results_free(near);
    kith_results_free(exact);
    if (rc < 0)
        return fail(d, "search: %s", kith_strerror(rc));
    d->recall = all == 0 ? 0 : (double)right / (double)all;
    printf("\nrecall@%u against exact search, ef 100, %u queries: %.4f\n", DEMO_K, RECALL_QUERIES, d->recall);
    if (d->recall < RECALL_MIN)
        return fail(d, "recall@10 is %.4f, below %.2f", d->recall, RECALL_MIN);
    return 0;
}

/* Queries are packages drawn at random, a little moved, so that they are not in the collection. */
static int make_board(struct demo *d)
{
    d->board = demo_board_map(d->board_path, d->input.count);
    if (d->board == NULL)
        return fail(d, "%s: %s", d->board_path, strerror(errno));
    for (uint32_t q = 0; q < DEMO_QUERIES; q++)
        demo_vector(&d->input, (uint32_t)((uint64_t)q * d->input.count / DEMO_QUERIES), 1000000 + q,
                    d->board->queries[q]);
    return 0;
}

/* ---- many processes ------------------------------------------------------------------------ */

static void set_phase(struct demo *d, enum demo_phase phase)
{
    d->began_ns[phase] = kithi_tool_now_ns();
    atomic_store_explicit(&d->board->phase, phase, memory_order_release);
}

static int start_roles(struct demo *d)
{
    char *self = join(d->bin, "kith_demo");
    for (unsigned i = 0; i < DEMO_READERS; i++) {
        char number[8];
        snprintf(number, sizeof number, "%u", i);
        const char *argv[] = { self, "--reader", d->run, d->board_path, number, NULL };
        d->readers[i] = demo_spawn(&(struct demo_spawn){ argv, -1, -1, NULL });
    }
    const char *argv[] = { self, "--writer", d->run, d->board_path, d->stem, NULL };
    d->writer = demo_spawn(&(struct demo_spawn){ argv, -1, -1, NULL });
    free(self);
    uint64_t begin = kithi_tool_now_ns();
    for (unsigned i = 0; i < DEMO_READERS; i++) {
        while (atomic_load_explicit(&d->board->readers[i].ready, memory_order_acquire) == 0) {
            if (kithi_tool_now_ns() - begin > START_MS * UINT64_C(1000000))
                return fail(d, "reader %u does not search", i + 1);
            if (!rest_ms(5))
                return fail(d, "interrupted");
        }
    }
    return 0;
}

static uint64_t searches(const struct demo *d, unsigned reader, enum demo_phase phase)
{
    return atomic_load_explicit(&d->board->readers[reader].searches[phase], memory_order_relaxed);
}

/* Let a phase run, with a line a second. */
static int watch(struct demo *d, enum demo_phase phase, unsigned seconds)
{
    uint64_t before[DEMO_READERS] = { 0 }, acked_before = atomic_load(&d->board->writer.acked);
    uint64_t last = kithi_tool_now_ns();
    for (unsigned i = 0; i < DEMO_READERS; i++)
        before[i] = searches(d, i, phase);
    for (unsigned s = 1; s <= seconds; s++) {
        if (!rest_ms(1000))
            return fail(d, "interrupted");
        uint64_t now = kithi_tool_now_ns(), acked = atomic_load(&d->board->writer.acked);
        double span = (double)(now - last) / 1e9;
        printf("  %2u s  searches/s of the readers", s);
        for (unsigned i = 0; i < DEMO_READERS; i++) {
            uint64_t n = searches(d, i, phase);
            printf(" %6.0f", (double)(n - before[i]) / span);
            before[i] = n;
        }
        printf("   writes/s %5.0f\n", (double)(acked - acked_before) / span);
        fflush(stdout);
        acked_before = acked;
        last = now;
    }
    return 0;
}

/* Readers go on: none of them erred, and each of them searched in this phase. */
static int check_readers(struct demo *d, enum demo_phase phase)
{
    for (unsigned i = 0; i < DEMO_READERS; i++) {
        const struct demo_reader *r = &d->board->readers[i];
        if (atomic_load(&r->errors) > 0)
            return fail(d, "reader %u: %" PRIu64 " searches failed: %s", i + 1, atomic_load(&r->errors),
                        kith_strerror(atomic_load(&r->error)));
        if (searches(d, i, phase) == 0)
            return fail(d, "reader %u did not search", i + 1);
    }
    return 0;
}

static void print_readers(const struct demo *d, enum demo_phase phase, bool memory)
{
    char text[KITHI_OUT_TEXT_SIZE];
    struct kithi_table t;
    kithi_table_begin(&t, memory ? "lrrrrrrr" : "lrrrr");
    static const char *const HEADING[] = { "",       "SEARCHES/S", "P50 us",      "P99 us",
                                           "ERRORS", "OWN MEMORY", "PAGE TABLES", "SHARED" };
    size_t columns = memory ? 8 : 5;
    uint64_t end = d->began_ns[phase + 1] != 0 ? d->began_ns[phase + 1] : kithi_tool_now_ns();
    double seconds = (double)(end - d->began_ns[phase]) / 1e9;
    for (size_t c = 0; c < columns; c++)
        kithi_table_cell(&t, "%s", HEADING[c]);
    for (unsigned i = 0; i < DEMO_READERS; i++) {
        const struct demo_reader *r = &d->board->readers[i];
        kithi_table_cell(&t, "reader %u", i + 1);
        kithi_table_cell(&t, "%s",
                         kithi_out_count(text, (uint64_t)((double)searches(d, i, phase) / seconds)));
        kithi_table_cell(&t, "%.0f", kithi_latency_us(&r->latency[phase], 0.5));
        kithi_table_cell(&t, "%.0f", kithi_latency_us(&r->latency[phase], 0.99));
        kithi_table_cell(&t, "%" PRIu64, atomic_load(&r->errors));
        if (!memory)
            continue;
        kithi_table_cell(&t, "%s", kithi_out_bytes(text, r->private_bytes));
        kithi_table_cell(&t, "%s", kithi_out_bytes(text, r->table_bytes));
        kithi_table_cell(&t, "%s", kithi_out_bytes(text, r->shared_bytes));
    }
    kithi_table_end(&t);
}

/* ---- the kill -------------------------------------------------------------------------------- */

static void witness_vector(float *out)
{
    for (uint32_t i = 0; i < DEMO_DIM; i++)
        out[i] = (float)((int)(i * i % 23) - 11);
}

static bool same(const float *a, const float *b)
{
    double dot = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < DEMO_DIM; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return dot / sqrt(aa * bb) > 1 - 1e-6;
}

/* An acknowledged write, and at once SIGKILL, while the writer's own write is under way. */
static int kill_daemon(struct demo *d)
{
    float vector[DEMO_DIM];
    uint64_t epoch = 0;
    witness_vector(vector);
    int rc = kith_upsert(d->index, WITNESS, vector, DEMO_DIM, &epoch);
    demo_kill(d->daemon);
    set_phase(d, PHASE_KILLED);
    d->daemon = 0;
    if (rc != 0)
        return fail(d, "the write before the kill: %s", kith_strerror(rc));
    printf("wrote \"" WITNESS "\", acknowledged with epoch %" PRIu64 "; kithd killed with -9\n", epoch);
    uint64_t begin = kithi_tool_now_ns();
    while (atomic_load_explicit(&d->board->writer.paused, memory_order_acquire) == 0) {
        if (kithi_tool_now_ns() - begin > START_MS * UINT64_C(1000000))
            return fail(d, "the writer did not notice that the daemon is gone");
        if (!rest_ms(1))
            return fail(d, "interrupted");
    }
    int error = atomic_load(&d->board->writer.error);
    if (error != 0)
        printf("the writer was told: %s\n", kith_strerror(error));
    return 0;
}

/* Every row has the version that was acknowledged last; the one write under way may have happened or not. */
static int check_rows(struct demo *d)
{
    uint64_t count = 0, writes = 0;
    uint32_t busy = atomic_load(&d->board->writer.busy);
    float stored[DEMO_DIM], wanted[DEMO_DIM];
    int rc = kith_get(d->index, WITNESS, stored, DEMO_DIM, NULL);
    witness_vector(wanted);
    if (rc != 0 || !same(stored, wanted))
        return fail(d, "the write acknowledged before the kill is lost: %s",
                    rc != 0 ? kith_strerror(rc) : "other values");
    bool busy_there = true;
    for (uint32_t row = 0; row < d->input.count; row++) {
        uint32_t version = atomic_load_explicit(&d->board->version[row], memory_order_relaxed);
        writes += version;
        rc = kith_get(d->index, d->input.ids[row], stored, DEMO_DIM, NULL);
        if (row + 1 == busy) {
            busy_there = rc == 0;
            continue;
        }
        demo_vector(&d->input, row, version, wanted);
        if (rc != 0)
            return fail(d, "%s is lost: %s", d->input.ids[row], kith_strerror(rc));
        if (!same(stored, wanted))
            return fail(d, "%s does not have its last acknowledged vector (version %u)", d->input.ids[row],
                        version);
    }
    rc = kith_count(d->index, &count);
    uint64_t expected = (uint64_t)d->input.count + busy_there;
    if (rc != 0 || count != expected)
        return fail(d, "the collection holds %" PRIu64 " vectors, not %" PRIu64, count, expected);
    char a[KITHI_OUT_TEXT_SIZE], b[KITHI_OUT_TEXT_SIZE];
    printf(
        "%s vectors are there: each has its last acknowledged value (%s writes), the witness is among them\n",
        kithi_out_count(a, count), kithi_out_count(b, writes));
    return 0;
}

/* ---- the show -------------------------------------------------------------------------------- */

static int show(struct demo *d)
{
    if (make_vectors(d) != 0 || load(d) != 0 || make_board(d) != 0 || show_neighbours(d) != 0 ||
        measure_recall(d) != 0)
        return -1;

    heading("four processes search, a fifth writes");
    printf("they and kithd share %ld processors\n", sysconf(_SC_NPROCESSORS_ONLN));
    if (start_roles(d) != 0)
        return -1;
    set_phase(d, PHASE_WRITING);
    if (watch(d, PHASE_WRITING, d->pace->writing_s) != 0)
        return -1;

    heading("the daemon is killed, the readers search on");
    if (kill_daemon(d) != 0 || check_readers(d, PHASE_WRITING) != 0 ||
        watch(d, PHASE_KILLED, d->pace->killed_s) != 0)
        return -1;
    if (check_readers(d, PHASE_KILLED) != 0)
        return -1;
    printf("\nwhile the fifth process was writing:\n");
    print_readers(d, PHASE_WRITING, true);
    printf("\nwithout a daemon:\n");
    print_readers(d, PHASE_KILLED, false);
    for (unsigned i = 0; i < DEMO_READERS; i++)
        if (d->board->readers[i].private_bytes > PRIVATE_MAX)
            return fail(d, "reader %u needed more than 4 MiB of its own", i + 1);

    heading("the daemon is restarted");
    if (start_daemon(d) != 0 || check_rows(d) != 0)
        return -1;
    uint64_t acked = atomic_load(&d->board->writer.acked);
    set_phase(d, PHASE_BACK);
    if (watch(d, PHASE_BACK, d->pace->back_s) != 0 || check_readers(d, PHASE_BACK) != 0)
        return -1;
    if (atomic_load(&d->board->writer.acked) == acked)
        return fail(d, "the writer did not recover");
    set_phase(d, PHASE_STOP);
    for (unsigned i = 0; i < DEMO_READERS; i++)
        if (demo_wait(d->readers[i]) != 0)
            return fail(d, "reader %u did not end well", i + 1);
    if (demo_wait(d->writer) != 0)
        return fail(d, "the writer did not end well");
    const char *verify[] = { "verify", DEMO_NAME };
    if (run_kith(d, verify, 2) != 0)
        return -1;
    kill(d->daemon, SIGTERM);
    int status = demo_wait(d->daemon);
    d->daemon = 0;
    return status == 0 ? 0 : fail(d, "kithd ended with status %d at SIGTERM", status);
}

static void print_log(const struct demo *d)
{
    char *text = NULL, **lines = NULL;
    long n = demo_read_lines(d->log, &text, &lines);
    if (n > 0)
        printf("\nlast lines of the daemon's log:\n");
    for (long i = n > 20 ? n - 20 : 0; i < n; i++)
        printf("  %s\n", lines[i]);
    free(text);
    free(lines);
}

static const char *temp_parent(void)
{
    const char *env = getenv("TMPDIR");
    return env != NULL && *env != '\0' ? env : "/tmp";
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "--reader") == 0)
        return demo_reader_main(argv[2], argv[3], (unsigned)strtoul(argv[4], NULL, 10) % DEMO_READERS);
    if (argc == 5 && strcmp(argv[1], "--writer") == 0)
        return demo_writer_main(argv[2], argv[3], argv[4]);
    bool is_short = argc == 2 && strcmp(argv[1], "--short") == 0;
    if (argc != 1 && !is_short) {
        fprintf(stderr, "usage: kith_demo [--short]\n");
        return 2;
    }

    struct demo d = { .pace = is_short ? &SHORT : &FULL };
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len < 0) {
        fprintf(stderr, "demo: /proc/self/exe: %s\n", strerror(errno));
        return 1;
    }
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    d.bin = self;
    demo_processes_begin();
    uint64_t begin = kithi_tool_now_ns();
    d.run = demo_directory(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : temp_parent());
    d.work = demo_directory(temp_parent());
    if (d.run == NULL || d.work == NULL) {
        fprintf(stderr, "demo: no temporary directory: %s\n", strerror(errno));
        demo_processes_end();
        return 1;
    }
    d.stem = join(d.work, "packages");
    d.board_path = join(d.work, "board");
    d.log = join(d.work, "log");

    int rc = show(&d);
    if (rc != 0 && demo_interrupted())
        snprintf(d.verdict, sizeof d.verdict, "interrupted");
    else if (rc != 0)
        print_log(&d);
    kith_close(d.index);
    double seconds = (double)(kithi_tool_now_ns() - begin) / 1e9;
    if (rc == 0) {
        char text[KITHI_OUT_TEXT_SIZE];
        printf("\nKith demo: PASS: %s %s, recall@10 %.3f, no search failed, no acknowledged write lost "
               "(%.0f s)\n",
               kithi_out_count(text, d.input.count), d.generated ? "generated vectors" : "packages", d.recall,
               seconds);
    } else {
        printf("\nKith demo: FAIL: %s\n", d.verdict);
    }
    fflush(stdout);
    demo_processes_end();
    demo_input_close(&d.input);
    free(d.titles);
    free(d.titles_text);
    free(d.stem);
    free(d.board_path);
    free(d.log);
    return rc == 0 ? 0 : 1;
}
