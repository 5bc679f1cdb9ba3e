/*
 * fuzz_vectors.c - files of vectors, ids and truth made of any bytes: read to the end or refused with a message that
 * names the file, in bounded memory. The first byte picks the format, the rest is the file.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/id.h"
#include "tests/fuzz/memory_file.h"
#include "tools/vectors.h"

#define DIM 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static void read_vectors(const char *path)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_vectors *v = NULL;
    struct kithi_vector item;
    uint64_t rows = 0;
    volatile float seen = 0; /* every value is read */
    int rc = kithi_vectors_open(path, DIM, &v, &err);
    if (rc == 0) {
        while ((rc = kithi_vectors_next(v, &item, &err)) == 1) {
            must(item.row == rows++);
            must(item.id == NULL || kithi_id_valid(item.id, strlen(item.id)));
            for (uint32_t i = 0; i < DIM; i++)
                seen = item.values[i];
        }
        kithi_vectors_close(v);
    }
    (void)seen;
    must(rc == 0 || (rc < 0 && err.code == rc && strstr(err.text, path) != NULL));
}

static void read_companions(const char *path)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_id_list list;
    struct kithi_ivecs iv;
    volatile int32_t seen = 0;
    if (kithi_id_list_read(path, &list, &err) == 0) {
        for (size_t i = 0; i < list.count; i++)
            must(kithi_id_valid(list.text + list.off[i], strlen(list.text + list.off[i])));
        kithi_id_list_free(&list);
    }
    if (kithi_ivecs_read(path, &iv, &err) == 0) {
        for (size_t i = 0; i < iv.count; i++)
            for (int32_t k = 0; k < iv.words[iv.off[i]]; k++)
                seen = iv.words[iv.off[i] + 1 + (size_t)k];
        kithi_ivecs_free(&iv);
    }
    (void)seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const NAMES[] = { "x.fvecs", "x.bvecs", "x.npy", "x.jsonl", "x.ivecs" };
    if (size == 0)
        return 0;
    size_t kind = data[0] % (sizeof NAMES / sizeof *NAMES);
    char path[64];
    snprintf(path, sizeof path, "%s/%s", MEMORY_DIR, NAMES[kind]);
    memory_file_set(NAMES[kind], data + 1, size - 1, false);
    if (kind + 1 < sizeof NAMES / sizeof *NAMES)
        read_vectors(path);
    else
        read_companions(path);
    must(memory_file_open_count() == 0);
    return 0;
}
