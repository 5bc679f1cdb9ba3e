/*
 * roles.c - see roles.h.
 */
#include "tools/demo/roles.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <kith/kith.h>

#include "tools/demo/board.h"
#include "tools/out.h"

#define DELETE_EVERY 10u /* writes; a deleted row is put back at once */

static enum demo_phase phase_of(const struct demo_board *board)
{
    return (enum demo_phase)atomic_load_explicit(&board->phase, memory_order_acquire);
}

static void rest_ms(long ms)
{
    struct timespec ts = { 0, ms * 1000000 };
    nanosleep(&ts, NULL);
}

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = *state;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* The sum of a field, in bytes, over a file of /proc; only within mappings whose name ends with suffix. */
static uint64_t proc_bytes(const char *path, const char *field, const char *suffix)
{
    char line[4352];
    uint64_t sum = 0;
    bool inside = suffix == NULL;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        char *name = strchr(line, '/');
        line[strcspn(line, "\n")] = '\0';
        unsigned long kib = 0;
        if (suffix != NULL && strchr(line, '-') != NULL && strchr(line, ':') > strchr(line, '-')) {
            size_t len = name == NULL ? 0 : strlen(name), n = strlen(suffix);
            inside = len >= n && strcmp(name + len - n, suffix) == 0;
        } else if (inside && strncmp(line, field, strlen(field)) == 0 &&
                   sscanf(line + strlen(field), ": %lu kB", &kib) == 1) {
            sum += (uint64_t)kib * 1024;
        }
    }
    fclose(f);
    return sum;
}

static uint64_t private_bytes(void)
{
    return proc_bytes("/proc/self/smaps_rollup", "Private_Dirty", NULL);
}

static uint64_t table_bytes(void)
{
    return proc_bytes("/proc/self/status", "VmPTE", NULL);
}

static int open_collection(const char *run_dir, kith **out)
{
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run_dir;
    opts.error = &error;
    int rc = kith_open(DEMO_NAME, &opts, out);
    if (rc != 0)
        fprintf(stderr, "demo: %s\n", error.text);
    return rc;
}

int demo_reader_main(const char *run_dir, const char *board_path, unsigned number)
{
    struct demo_board *board = demo_board_map(board_path, 0);
    if (board == NULL)
        return 1;
    struct demo_reader *self = &board->readers[number];
    /* Read once before, so that what reading /proc itself needs is not counted. */
    private_bytes();
    proc_bytes("/proc/self/smaps", "Rss", "/segment");
    uint64_t private_before = private_bytes();
    uint64_t table_before = table_bytes();

    kith *index = NULL;
    if (open_collection(run_dir, &index) != 0)
        return 1;
    kith_results *results = kith_results_new();
    if (results == NULL)
        return 1;
    uint64_t state = number + 1;
    bool measured = false;
    for (enum demo_phase phase; (phase = phase_of(board)) != PHASE_STOP;) {
        if (phase == PHASE_KILLED && !measured) {
            self->private_bytes = private_bytes() - private_before;
            self->table_bytes = table_bytes() - table_before;
            self->shared_bytes = proc_bytes("/proc/self/smaps", "Rss", "/segment");
            measured = true;
        }
        const float *query = board->queries[next_random(&state) % DEMO_QUERIES];
        uint64_t begin = kithi_tool_now_ns();
        int rc = kith_search(index, query, DEMO_DIM, DEMO_K, NULL, results);
        uint64_t end = kithi_tool_now_ns();
        if (rc < 0) {
            int none = 0;
            atomic_compare_exchange_strong(&self->error, &none, rc);
            atomic_fetch_add_explicit(&self->errors, 1, memory_order_relaxed);
            continue;
        }
        kithi_latency_add(&self->latency[phase], end - begin);
        atomic_fetch_add_explicit(&self->searches[phase], 1, memory_order_relaxed);
        atomic_store_explicit(&self->ready, 1, memory_order_release);
    }
    kith_results_free(results);
    kith_close(index);
    return 0;
}

/* Give row its next version, after deleting it when so asked. 0 once that is acknowledged. */
static int write_row(kith *index, const struct demo_input *in, uint32_t row, uint32_t version,
                     bool delete_first)
{
    float vector[DEMO_DIM];
    int rc = delete_first ? kith_delete(index, in->ids[row], NULL) : 0;
    if (rc < 0 && rc != KITH_E_NOT_FOUND) /* a repeated delete finds nothing */
        return rc;
    demo_vector(in, row, version, vector);
    return kith_upsert(index, in->ids[row], vector, DEMO_DIM, NULL);
}

int demo_writer_main(const char *run_dir, const char *board_path, const char *stem)
{
    struct demo_input in;
    struct demo_board *board = demo_board_map(board_path, 0);
    kith *index = NULL;
    if (board == NULL || demo_input_open(stem, &in) != 0 || open_collection(run_dir, &index) != 0)
        return 1;
    struct demo_writer *self = &board->writer;
    uint64_t state = 99;
    for (;;) {
        enum demo_phase phase = phase_of(board);
        if (phase == PHASE_STOP)
            break;
        if (phase != PHASE_WRITING && phase != PHASE_BACK) {
            atomic_store_explicit(&self->paused, phase == PHASE_KILLED, memory_order_release);
            rest_ms(1);
            continue;
        }
        uint64_t draw = next_random(&state);
        uint32_t row = (uint32_t)(draw % in.count);
        bool delete_first = (draw >> 40) % DELETE_EVERY == 0;
        uint32_t version = atomic_load_explicit(&board->version[row], memory_order_relaxed) + 1;
        atomic_store_explicit(&self->busy, row + 1, memory_order_release);
        int rc;
        while ((rc = write_row(index, &in, row, version, delete_first)) < 0) {
            int none = 0;
            atomic_compare_exchange_strong(&self->error, &none, rc);
            atomic_fetch_add_explicit(&self->failed, 1, memory_order_relaxed);
            /* The daemon is gone. What was under way is done again when it is back. */
            do {
                atomic_store_explicit(&self->paused, 1, memory_order_release);
                rest_ms(1);
                phase = phase_of(board);
            } while (phase != PHASE_BACK && phase != PHASE_STOP);
            if (phase == PHASE_STOP)
                goto out;
        }
        atomic_store_explicit(&board->version[row], version, memory_order_release);
        atomic_store_explicit(&self->busy, 0, memory_order_release);
        atomic_fetch_add_explicit(&self->acked, 1, memory_order_relaxed);
    }
out:
    kith_close(index);
    demo_input_close(&in);
    return 0;
}
