/*
 * vectors.h - vectors out of files, one at a time, in the memory of one.
 *
 *   .fvecs  rows of int32 dim, dim float32; little-endian
 *   .bvecs  rows of int32 dim, dim bytes
 *   .npy    NumPy arrays, version 1 to 3: two-dimensional, C order, <f4, <f8 or |u1
 *   .jsonl  {"id":"a", "vector":[1,2,3], "payload":{...}} a line; an id that is a whole number is kept as its digits
 *
 * Checks form and number of dimensions; whether the numbers are finite is for whoever takes them.
 * Rows are counted from 0, lines from 1, as the tools that make such files do.
 */
#ifndef KITHI_TOOLS_VECTORS_H
#define KITHI_TOOLS_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shm/base/error.h"

struct kithi_vectors;

struct kithi_vector {
    const float *values; /* valid until the next call */
    const char *id;      /* NULL: the file has none for it */
    const char *payload; /* NULL: the file says nothing of it; "null": none */
    uint64_t row;        /* from 0 */
    uint64_t line;       /* from 1; 0: not a file of lines */
};

/*
 * Open by suffix. Every row must have dim dimensions. Returns 0, -errno, KITHI_E_UNSUPPORTED
 * (another kind of file), KITHI_E_FORMAT, KITHI_E_TRUNCATED or KITHI_E_DIMENSION; err names the file.
 */
int kithi_vectors_open(const char *path, uint32_t dim, struct kithi_vectors **out, struct kithi_errmsg *err);
void kithi_vectors_close(struct kithi_vectors *v);

/* Returns 1, 0 at the end, or an error; err names file and line or row. */
int kithi_vectors_next(struct kithi_vectors *v, struct kithi_vector *out, struct kithi_errmsg *err);

/* How much of the file is read, 0..1; negative when its size is unknown. */
double kithi_vectors_part(const struct kithi_vectors *v);

/* Do lines of this file carry ids? */
bool kithi_vectors_have_ids(const struct kithi_vectors *v);

/* "x.jsonl: line 17" or "x.fvecs: row 5", for messages. */
#define KITHI_WHERE_SIZE 320u
const char *kithi_vectors_where(char *buf, const char *path, uint64_t row, uint64_t line);

/* ---- companions ------------------------------------------------------------------------ */

/* A file of payloads, an object or null a line: that of the next row. Blank lines may stand at its end. */
int kithi_payloads_open(const char *path, struct kithi_vectors **out, struct kithi_errmsg *err);
/* Returns 1, 0 at the end, or an error, as kithi_vectors_next(); the text is valid until the next call. */
int kithi_payloads_next(struct kithi_vectors *v, const char **out, struct kithi_errmsg *err);

/* A file of ids, one a line, read one at a time. */
struct kithi_ids_file {
    FILE *f;
    const char *path;
    char *line;
    size_t capacity;
    uint64_t count; /* lines read */
};
int kithi_ids_open(const char *path, struct kithi_ids_file *out, struct kithi_errmsg *err);
void kithi_ids_close(struct kithi_ids_file *ids);
/* Returns 1 with *out_id valid until the next call, 0 at the end, or an error. */
int kithi_ids_next(struct kithi_ids_file *ids, const char **out_id, struct kithi_errmsg *err);

/* All ids of a file, for truth tables. */
struct kithi_id_list {
    char *text;
    size_t len, capacity;
    size_t *off; /* of id i in text */
    size_t count, off_capacity;
};
int kithi_id_list_read(const char *path, struct kithi_id_list *out, struct kithi_errmsg *err);
void kithi_id_list_free(struct kithi_id_list *l);

/* An .ivecs file as a whole: rows of int32 n, n int32; n may differ from row to row. */
struct kithi_ivecs {
    int32_t *words; /* rows as in the file */
    size_t *off;    /* of row i's n in words */
    size_t count;
};
int kithi_ivecs_read(const char *path, struct kithi_ivecs *out, struct kithi_errmsg *err);
void kithi_ivecs_free(struct kithi_ivecs *iv);

/* text ends with suffix? */
bool kithi_has_suffix(const char *text, const char *suffix);

#endif
