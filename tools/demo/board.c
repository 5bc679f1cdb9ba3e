/*
 * board.c - see board.h.
 */
#include "tools/demo/board.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROW_BYTES (4u + DEMO_DIM * sizeof(float))
#define NOISE     0.02f /* of each of 256 numbers: a cosine of about 0.95 to the original */

struct demo_board *demo_board_map(const char *path, uint32_t row_count)
{
    struct stat st;
    void *p = MAP_FAILED;
    int fd = open(path, O_RDWR | O_CLOEXEC | (row_count > 0 ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0)
        return NULL;
    off_t size = (off_t)(sizeof(struct demo_board) + row_count * sizeof(uint32_t));
    if ((row_count == 0 || ftruncate(fd, size) == 0) && fstat(fd, &st) == 0)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return NULL;
    struct demo_board *board = p;
    if (row_count > 0)
        board->row_count = row_count;
    return board;
}

long demo_read_lines(const char *path, char **out_text, char ***out_lines)
{
    struct stat st;
    char *text = NULL, **lines = NULL;
    long count = 0;
    FILE *f = fopen(path, "rbe");
    if (f == NULL)
        return -errno;
    if (fstat(fileno(f), &st) == 0 && (text = malloc((size_t)st.st_size + 1)) != NULL &&
        fread(text, 1, (size_t)st.st_size, f) == (size_t)st.st_size) {
        text[st.st_size] = '\0';
        for (char *p = text; (p = strchr(p, '\n')) != NULL; p++)
            count++;
        lines = malloc(((size_t)count + 1) * sizeof *lines);
    }
    fclose(f);
    if (lines == NULL) {
        free(text);
        return -EIO;
    }
    char *p = text;
    for (long i = 0; i < count; i++) {
        lines[i] = p;
        p = strchr(p, '\n');
        *p++ = '\0';
    }
    *out_text = text;
    *out_lines = lines;
    return count;
}

int demo_input_open(const char *stem, struct demo_input *out)
{
    char path[4096];
    struct stat st;
    void *p = MAP_FAILED;
    memset(out, 0, sizeof *out);
    snprintf(path, sizeof path, "%s.fvecs", stem);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && st.st_size > 0)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return -EIO;
    out->rows = p;
    out->rows_len = (size_t)st.st_size;
    snprintf(path, sizeof path, "%s.ids", stem);
    long count = demo_read_lines(path, &out->text, &out->ids);
    if (count < 0 || (size_t)count * ROW_BYTES != out->rows_len) {
        demo_input_close(out);
        return count < 0 ? (int)count : -EIO;
    }
    out->count = (uint32_t)count;
    return 0;
}

void demo_input_close(struct demo_input *in)
{
    if (in->rows != NULL)
        munmap((void *)(uintptr_t)in->rows, in->rows_len);
    free(in->text);
    free(in->ids);
    memset(in, 0, sizeof *in);
}

void demo_vector(const struct demo_input *in, uint32_t row, uint32_t version, float *out)
{
    memcpy(out, in->rows + (size_t)row * ROW_BYTES + 4, DEMO_DIM * sizeof(float));
    uint64_t state = (uint64_t)row << 32 | version;
    float sum = 0;
    for (uint32_t i = 0; i < DEMO_DIM && version > 0; i++) {
        state = (state ^ state >> 29) * UINT64_C(0xbf58476d1ce4e5b9) + i;
        out[i] += NOISE * ((float)(state >> 40) * 0x1p-23f - 1);
    }
    for (uint32_t i = 0; i < DEMO_DIM; i++)
        sum += out[i] * out[i];
    for (uint32_t i = 0; i < DEMO_DIM; i++)
        out[i] /= sqrtf(sum);
}
