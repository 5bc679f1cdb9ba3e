/*
 * replay.c - runs a fuzz target without libFuzzer: the files of its corpus, then inputs made with a fixed
 * seed. What it runs is the same every time, so that it belongs to the ordinary tests.
 *
 *   <target> [CORPUS_DIR | FILE ...]
 *
 * KITH_SEED takes another seed, KITH_FUZZ_RUNS another number of inputs. An input that takes longer than
 * HANG_S ends the program by SIGALRM.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define INPUT_MAX    4096u
#define CORPUS_MAX   256u
#define RUNS_DEFAULT 3000u
#define RUN_MS       15000u
#define HANG_S       20u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *corpus[CORPUS_MAX];
static size_t corpus_size[CORPUS_MAX];
static uint32_t corpus_count;

static void run(const uint8_t *data, size_t size)
{
    /* An exact copy on the heap, so that AddressSanitizer sees a read beyond it. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        test_die("out of memory");
    if (size)
        memcpy(copy, data, size);
    alarm(HANG_S);
    LLVMFuzzerTestOneInput(copy, size);
    alarm(0);
    free(copy);
}

static void take_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || corpus_count == CORPUS_MAX) {
        if (f)
            fclose(f);
        return;
    }
    static uint8_t buf[1u << 20];
    size_t n = fread(buf, 1, sizeof buf, f);
    fclose(f);
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        test_die("out of memory");
    memcpy(copy, buf, n);
    corpus[corpus_count] = copy;
    corpus_size[corpus_count++] = n;
    run(copy, n);
}

static void take_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return; /* a target without a corpus */
    if (!S_ISDIR(st.st_mode)) {
        take_file(path);
        return;
    }
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char file[4096];
        if (names[i]->d_name[0] != '.' &&
            (size_t)snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name) < sizeof file)
            take_file(file);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

/* A mutation of a corpus file, or bytes that are mostly small. */
static size_t make_input(struct test_rand *r, uint8_t *out)
{
    size_t n;
    if (corpus_count && test_rand_below(r, 3)) {
        uint32_t pick = test_rand_below(r, corpus_count);
        n = corpus_size[pick] < INPUT_MAX ? corpus_size[pick] : INPUT_MAX;
        memcpy(out, corpus[pick], n);
        if (n && test_rand_below(r, 4) == 0)
            n = test_rand_below(r, (uint32_t)n);
    } else {
        n = test_rand_below(r, test_rand_below(r, 8) ? 160 : INPUT_MAX);
        for (size_t i = 0; i < n; i++)
            out[i] = (uint8_t)test_rand_u64(r);
    }
    for (uint32_t i = test_rand_below(r, 8); n && i > 0; i--) {
        uint8_t *at = &out[test_rand_below(r, (uint32_t)n)];
        switch (test_rand_below(r, 4)) {
        case 0: *at ^= (uint8_t)(1u << test_rand_below(r, 8)); break;
        case 1: *at = 0; break;
        case 2: *at = 0xff; break;
        default: *at = (uint8_t)test_rand_u64(r); break;
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    static uint8_t input[INPUT_MAX];
    struct test_rand r;
    const char *seed = getenv("KITH_SEED"), *runs = getenv("KITH_FUZZ_RUNS");
    uint32_t want = runs ? (uint32_t)strtoul(runs, NULL, 0) : RUNS_DEFAULT, done = 0;
    for (int i = 1; i < argc; i++)
        take_path(argv[i]);
    test_rand_seed(&r, seed ? strtoull(seed, NULL, 0) : 1);
    uint64_t end = test_now_ms() + RUN_MS;
    for (; done < want && (runs || test_now_ms() < end); done++)
        run(input, make_input(&r, input));
    printf("%u files and %u made inputs\n", corpus_count, done);
    for (uint32_t i = 0; i < corpus_count; i++)
        free(corpus[i]);
    return 0;
}
