/*
 * replay.c - runs a fuzz target without libFuzzer.
 *
 * Owns: main() of the fuzz targets in the presets that have no libFuzzer. It hands every file of the
 * corpus directory to the target, then a fixed number of mutations of each, so that the targets are
 * built and tried by every compiler and sanitizer. KITH_SEED changes the mutations.
 * Leaves to the fuzz preset: looking for new paths.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX          ((size_t)1 << 20)
#define MUTATIONS_PER_FILE 64

static uint64_t seed = 1;

/* splitmix64: any seed is good, equal seeds give equal runs. */
static uint64_t next_random(void)
{
    uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The target gets an exact-size heap copy, so that a read behind the input is an error under ASan. */
static void run(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy) {
        perror("replay");
        exit(1);
    }
    if (len)
        memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static size_t mutate(uint8_t *data, size_t len)
{
    size_t change_count = 1 + next_random() % 8;

    if (len && next_random() % 4 == 0)
        len = next_random() % len;
    for (size_t i = 0; len && i < change_count; i++)
        data[next_random() % len] = (uint8_t)next_random();
    return len;
}

static int replay_file(const char *path)
{
    static uint8_t data[INPUT_MAX], changed[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    size_t len;

    if (!f) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        return -1;
    }
    len = fread(data, 1, sizeof(data), f);
    fclose(f);

    run(data, len);
    for (int i = 0; i < MUTATIONS_PER_FILE; i++) {
        memcpy(changed, data, len);
        run(changed, mutate(changed, len));
    }
    return 0;
}

/* Returns the number of files, -1 when one cannot be read; a directory that is not there has none. */
static int replay_directory(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int file_count = 0;

    if (!dir)
        return errno == ENOENT ? 0 : -1;
    while ((entry = readdir(dir))) {
        char name[4096];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (replay_file(name)) {
            file_count = -1;
            break;
        }
        file_count++;
    }
    closedir(dir);
    return file_count;
}

int main(int argc, char **argv)
{
    const char *seed_text = getenv("KITH_SEED");
    uint8_t noise[512];
    int file_count = 0;

    if (seed_text)
        seed = strtoull(seed_text, NULL, 0);
    printf("seed %" PRIu64 " (KITH_SEED)\n", seed);

    if (argc > 1)
        file_count = replay_directory(argv[1]);
    if (file_count < 0) {
        fprintf(stderr, "replay: cannot read the corpus %s\n", argv[1]);
        return 1;
    }
    run(noise, 0);
    for (int i = 0; i < 1000; i++) {
        size_t len = next_random() % sizeof(noise);

        for (size_t j = 0; j < len; j++)
            noise[j] = (uint8_t)next_random();
        run(noise, len);
    }
    printf("%d files, %d mutations of each, 1000 random inputs\n", file_count, MUTATIONS_PER_FILE);
    return 0;
}
