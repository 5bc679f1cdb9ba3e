/*
 * vectors.c - see vectors.h.
 */
#include "tools/vectors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/src/json.h"
#include "client/src/payload.h"
#include "shm/base/bytes.h"
#include "shm/base/id.h"
#include "shm/kernel/distance.h"

#ifndef KITHI_VECTORS_BUFFER /* fuzz.vectors has buffers that its small files fill */
#define KITHI_VECTORS_BUFFER (1u << 18)
#define KITHI_VECTORS_LINE                                                                                   \
    (1u << 20) /* 4096 numbers of 250 digits; whatever is longer is not a line of vectors */
#endif
#define BUFFER_SIZE    KITHI_VECTORS_BUFFER
#define LINE_BYTES_MAX KITHI_VECTORS_LINE
#define NPY_HEADER_MAX 65536u /* NumPy itself writes a few hundred bytes */
#define IVECS_FILE_MAX (UINT64_C(4) << 30)

enum format { FORMAT_FVECS, FORMAT_BVECS, FORMAT_NPY, FORMAT_JSONL };
enum element { ELEMENT_F4, ELEMENT_F8, ELEMENT_U1 };

struct kithi_vectors {
    FILE *f;
    char *path;
    char *buffer; /* of f */
    enum format format;
    enum element element;
    uint32_t dim;
    uint64_t size;      /* bytes of the file; 0: not a regular file */
    uint64_t position;  /* bytes read */
    uint64_t row;       /* the next */
    uint64_t rows;      /* .npy: of the array */
    uint64_t line;      /* .jsonl: lines read */
    unsigned char *raw; /* one row as in the file */
    float *values;
    char *text; /* .jsonl: one line */
    struct kithi_json json;
    struct kithi_payload_reader *reader; /* .jsonl: NULL until there is a payload */
    unsigned char *payload;
    char *payload_text; /* in text, or NULL */
    char id[KITHI_ID_MAX + 1];
};

bool kithi_has_suffix(const char *text, const char *suffix)
{
    size_t len = strlen(text), n = strlen(suffix);
    return len > n && strcmp(text + len - n, suffix) == 0;
}

const char *kithi_vectors_where(char *buf, const char *path, uint64_t row, uint64_t line)
{
    if (line != 0)
        snprintf(buf, KITHI_WHERE_SIZE, "%.280s: line %" PRIu64, path, line);
    else
        snprintf(buf, KITHI_WHERE_SIZE, "%.280s: row %" PRIu64, path, row);
    return buf;
}

static int fail_read(FILE *f, const char *path, struct kithi_errmsg *err)
{
    int code = ferror(f) && errno != 0 ? errno : EIO;
    return kithi_error_set(err, -code, "%s: cannot be read: %s", path, strerror(code));
}

/* Bytes of f when it is a regular file, else 0. */
static int open_file(const char *path, FILE **out, uint64_t *out_size, struct kithi_errmsg *err)
{
    struct stat st;
    FILE *f = fopen(path, "rbe");
    if (f == NULL || fstat(fileno(f), &st) != 0) {
        int code = errno;
        if (f != NULL)
            fclose(f);
        return kithi_error_set(err, -code, "%s: cannot be opened: %s", path, strerror(code));
    }
    if (S_ISDIR(st.st_mode)) {
        fclose(f);
        return kithi_error_set(err, -EISDIR, "%s: is a directory", path);
    }
    *out = f;
    *out_size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    return 0;
}

/* ---- .fvecs, .bvecs ---------------------------------------------------------------------- */

static size_t row_bytes(const struct kithi_vectors *v)
{
    static const size_t ELEMENT_SIZE[] = { 4, 8, 1 };
    return ELEMENT_SIZE[v->element] * v->dim;
}

static void convert(struct kithi_vectors *v)
{
    switch (v->element) {
    case ELEMENT_F4: memcpy(v->values, v->raw, row_bytes(v)); break;
    case ELEMENT_F8:
        for (uint32_t i = 0; i < v->dim; i++) {
            double d;
            memcpy(&d, v->raw + 8 * (size_t)i, 8);
            v->values[i] = (float)d;
        }
        break;
    case ELEMENT_U1:
        for (uint32_t i = 0; i < v->dim; i++)
            v->values[i] = v->raw[i];
        break;
    }
}

static int next_vecs(struct kithi_vectors *v, struct kithi_errmsg *err)
{
    char where[KITHI_WHERE_SIZE];
    kithi_vectors_where(where, v->path, v->row, 0);
    unsigned char head[4];
    size_t got = fread(head, 1, sizeof head, v->f);
    if (got == 0 && feof(v->f))
        return 0;
    if (got < sizeof head) {
        if (ferror(v->f))
            return fail_read(v->f, v->path, err);
        return kithi_error_set(err, KITHI_E_TRUNCATED,
                               "%s: the file ends in the middle of it, at byte %" PRIu64, where,
                               v->position + got);
    }
    uint32_t dim = kithi_get32(head);
    if (dim < 1 || dim > KITHI_DIM_MAX)
        return kithi_error_set(err, KITHI_E_FORMAT,
                               "%s: claims %" PRId32 " dimensions at byte %" PRIu64
                               "; vectors have 1 to %u: not a file of this kind, or damaged",
                               where, (int32_t)dim, v->position, KITHI_DIM_MAX);
    if (dim != v->dim)
        return kithi_error_set(err, KITHI_E_DIMENSION, "%s: has %u dimensions, the collection has %u", where,
                               dim, v->dim);
    size_t len = row_bytes(v);
    got = fread(v->raw, 1, len, v->f);
    if (got < len) {
        if (ferror(v->f))
            return fail_read(v->f, v->path, err);
        return kithi_error_set(err, KITHI_E_TRUNCATED,
                               "%s: the file ends in the middle of it: it needs %zu bytes, %zu are there",
                               where, sizeof head + len, sizeof head + got);
    }
    v->position += sizeof head + len;
    convert(v);
    return 1;
}

/* ---- .npy -------------------------------------------------------------------------------- */

/* Where the value of key begins in the header's Python dictionary, or NULL. */
static const char *npy_value(const char *header, const char *key)
{
    const char *p = strstr(header, key);
    if (p == NULL)
        return NULL;
    p += strlen(key);
    while (*p == ' ')
        p++;
    if (*p++ != ':')
        return NULL;
    while (*p == ' ')
        p++;
    return p;
}

static int npy_header(struct kithi_vectors *v, const char *header, struct kithi_errmsg *err)
{
    const char *descr = npy_value(header, "'descr'");
    const char *order = npy_value(header, "'fortran_order'");
    const char *shape = npy_value(header, "'shape'");
    if (descr == NULL || order == NULL || shape == NULL || *shape != '(')
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: the header is not that of a NumPy array", v->path);

    if (strncmp(descr, "'<f4'", 5) == 0) {
        v->element = ELEMENT_F4;
    } else if (strncmp(descr, "'<f8'", 5) == 0) {
        v->element = ELEMENT_F8;
    } else if (strncmp(descr, "'|u1'", 5) == 0) {
        v->element = ELEMENT_U1;
    } else {
        int len = (int)strcspn(descr, ",}");
        return kithi_error_set(
            err, KITHI_E_FORMAT,
            "%s: elements are of dtype %.*s; save it with .astype('<f4') (<f8 and |u1 are read, too)",
            v->path, len > 60 ? 60 : len, descr);
    }
    if (strncmp(order, "False", 5) != 0)
        return kithi_error_set(err, KITHI_E_FORMAT,
                               "%s: the array is in Fortran order; save it with numpy.ascontiguousarray()",
                               v->path);

    int axes = 0;
    uint64_t extent[2] = { 0, 0 };
    for (const char *p = shape + 1; *p != ')';) {
        if (*p < '0' || *p > '9')
            return kithi_error_set(err, KITHI_E_FORMAT, "%s: the shape cannot be read", v->path);
        char *end;
        errno = 0;
        uint64_t n = strtoull(p, &end, 10);
        if (errno != 0)
            return kithi_error_set(err, KITHI_E_FORMAT, "%s: the shape cannot be read", v->path);
        if (axes < 2)
            extent[axes] = n;
        axes++;
        p = end + strspn(end, ", ");
    }
    if (axes != 2)
        return kithi_error_set(err, KITHI_E_FORMAT,
                               "%s: the array has %d axes; it must have two, vectors and dimensions", v->path,
                               axes);
    if (extent[1] != v->dim)
        return kithi_error_set(err, KITHI_E_DIMENSION,
                               "%s: has %" PRIu64 " dimensions, the collection has %u", v->path, extent[1],
                               v->dim);
    v->rows = extent[0];
    return 0;
}

static int npy_begin(struct kithi_vectors *v, struct kithi_errmsg *err)
{
    unsigned char head[12];
    char *header = NULL;
    int rc;
    if (fread(head, 1, 10, v->f) < 10 || memcmp(head, "\x93NUMPY", 6) != 0) {
        if (ferror(v->f))
            return fail_read(v->f, v->path, err);
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: does not begin as a NumPy file", v->path);
    }
    if (head[6] < 1 || head[6] > 3)
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: is of .npy version %u.%u; 1 to 3 are read", v->path,
                               head[6], head[7]);
    uint64_t len = kithi_get16(head + 8);
    v->position = 10;
    if (head[6] > 1) { /* the length has four bytes since version 2 */
        if (fread(head + 10, 1, 2, v->f) < 2)
            return kithi_error_set(err, KITHI_E_TRUNCATED, "%s: ends inside its header", v->path);
        len = kithi_get32(head + 8);
        v->position = 12;
    }
    if (len > NPY_HEADER_MAX)
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: claims a header of %" PRIu64 " bytes; damaged?",
                               v->path, len);
    header = malloc(len + 1);
    if (header == NULL)
        return kithi_error_set(err, -ENOMEM, "out of memory");
    if (fread(header, 1, len, v->f) < len) {
        rc = kithi_error_set(err, KITHI_E_TRUNCATED, "%s: ends inside its header", v->path);
        goto out;
    }
    header[len] = '\0';
    v->position += len;
    rc = npy_header(v, header, err);
    if (rc != 0 || v->size == 0)
        goto out;
    uint64_t there = v->size - v->position, row = row_bytes(v);
    if (there / row != v->rows || there % row != 0)
        rc = kithi_error_set(err, KITHI_E_TRUNCATED,
                             "%s: the header promises %" PRIu64 " rows of %" PRIu64 " bytes, but %" PRIu64
                             " bytes follow: cut short or damaged",
                             v->path, v->rows, row, there);
out:
    free(header);
    return rc;
}

static int next_npy(struct kithi_vectors *v, struct kithi_errmsg *err)
{
    if (v->row == v->rows)
        return 0;
    size_t len = row_bytes(v);
    if (fread(v->raw, 1, len, v->f) < len) {
        if (ferror(v->f))
            return fail_read(v->f, v->path, err);
        return kithi_error_set(err, KITHI_E_TRUNCATED,
                               "%s: row %" PRIu64 ": the file ends in the middle of it", v->path, v->row);
    }
    v->position += len;
    convert(v);
    return 1;
}

/* ---- .jsonl ------------------------------------------------------------------------------ */

/* The next line without its end; 1, 0 at the end of the file, or an error. */
static int read_line(struct kithi_vectors *v, size_t *out_len, struct kithi_errmsg *err)
{
    size_t len = 0;
    if (v->text == NULL && (v->text = malloc(LINE_BYTES_MAX + 1)) == NULL)
        return kithi_error_set(err, -ENOMEM, "out of memory");
    int c;
    while ((c = getc_unlocked(v->f)) != EOF && c != '\n') {
        if (len == LINE_BYTES_MAX)
            return kithi_error_set(err, KITHI_E_FORMAT, "%s: line %" PRIu64 ": is longer than %u bytes",
                                   v->path, v->line + 1, LINE_BYTES_MAX);
        v->text[len++] = (char)c;
    }
    if (c == EOF && ferror(v->f))
        return fail_read(v->f, v->path, err);
    if (c == EOF && len == 0)
        return 0;
    v->line++;
    v->position += len + (c == '\n');
    v->text[len] = '\0';
    *out_len = len;
    return 1;
}

static bool is_blank(const struct kithi_vectors *v, size_t len)
{
    return strspn(v->text, " \t\r") >= len;
}

/* A string, or a whole number in its own digits. */
static int read_id(struct kithi_vectors *v)
{
    struct kithi_json *j = &v->json;
    size_t len = 0;
    if (kithi_json_peek(j) == KITHI_JSON_NUMBER) {
        const char *from = j->at;
        double ignored;
        int rc = kithi_json_double(j, &ignored);
        if (rc != 0)
            return rc;
        len = (size_t)(j->at - from);
        size_t digits = *from == '-' ? 1 : 0;
        while (digits < len && from[digits] >= '0' && from[digits] <= '9')
            digits++;
        if (digits < len || len > KITHI_ID_MAX)
            return kithi_json_fail(j, "an id is a string or a whole number");
        memcpy(v->id, from, len);
    } else if (kithi_json_peek(j) == KITHI_JSON_STRING) {
        const char *from = j->at;
        int rc = kithi_json_string(j, NULL, 0, &len);
        if (rc == 0 && len > KITHI_ID_MAX)
            rc = kithi_json_fail(j, kithi_error_text(KITHI_E_ID));
        if (rc != 0)
            return rc;
        j->at = from; /* it fits: once more, and now keep it */
        kithi_json_string(j, v->id, KITHI_ID_MAX, &len);
        if (!kithi_id_valid(v->id, len))
            return kithi_json_fail(j, kithi_error_text(KITHI_E_ID));
    } else {
        return kithi_json_fail(j, "an id is a string or a whole number");
    }
    v->id[len] = '\0';
    return 0;
}

/* The payload that comes next, or null; its text ends with a NUL once the line has been read. Sets *out_end to where. */
static int read_payload(struct kithi_vectors *v, char **out_end)
{
    struct kithi_json *j = &v->json;
    int rc;
    if (v->reader == NULL) {
        v->reader = kithi_payload_reader_new();
        v->payload = malloc(KITHI_PAYLOAD_MAX);
    }
    if (v->reader == NULL || v->payload == NULL) {
        j->code = -ENOMEM;
        return kithi_json_fail(j, "out of memory");
    }
    bool null = kithi_json_peek(j) == KITHI_JSON_NULL;
    v->payload_text = v->text + (j->at - j->begin);
    rc = null ? kithi_json_null(j) : kithi_payload_read(v->reader, j, v->payload);
    *out_end = v->text + (j->at - j->begin);
    return rc;
}

static int next_jsonl(struct kithi_vectors *v, const char **out_id, struct kithi_errmsg *err)
{
    struct kithi_json *j = &v->json;
    size_t len = 0, n = 0;
    bool has_id = false, has_vector = false;
    char *payload_end = NULL;
    v->payload_text = NULL;
    do {
        int rc = read_line(v, &len, err);
        if (rc != 1)
            return rc;
    } while (is_blank(v, len)); /* blank lines are passed over */

    if (v->line == 1 && strncmp(v->text, "\xef\xbb\xbf", 3) == 0)
        return kithi_error_set(
            err, KITHI_E_FORMAT,
            "%s: line 1: begins with a byte order mark; save the file as UTF-8 without one", v->path);
    kithi_json_begin(j, v->text, len);
    if (kithi_json_object(j) == 0) {
        while (kithi_json_member(j) == 1) {
            if (kithi_json_key_is(j, "id")) {
                has_id = read_id(v) == 0;
            } else if (kithi_json_key_is(j, "vector")) {
                has_vector = kithi_json_floats(j, v->values, KITHI_DIM_MAX, &n) == 0;
            } else if (kithi_json_key_is(j, "payload")) {
                (void)read_payload(v, &payload_end);
            } else {
                /* Passing over what a later version keeps would lose it without a word. */
                kithi_json_fail(j, "only \"id\", \"vector\" and \"payload\" are known in this version");
            }
        }
    }
    if (kithi_json_finish(j) != 0)
        return kithi_error_set(err, j->code == -ENOMEM ? -ENOMEM : KITHI_E_FORMAT,
                               "%s: line %" PRIu64 ", byte %zu: %s", v->path, v->line, j->error_off + 1,
                               j->error);
    if (!has_vector)
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: line %" PRIu64 ": has no \"vector\"", v->path,
                               v->line);
    if (n != v->dim)
        return kithi_error_set(err, KITHI_E_DIMENSION,
                               "%s: line %" PRIu64 ": has %zu dimensions, the collection has %u", v->path,
                               v->line, n, v->dim);
    *out_id = has_id ? v->id : NULL;
    if (payload_end != NULL)
        *payload_end = '\0';
    return 1;
}

int kithi_payloads_next(struct kithi_vectors *v, const char **out, struct kithi_errmsg *err)
{
    size_t len = 0;
    uint64_t blank = 0;
    char *end = NULL;
    int rc;
    while ((rc = read_line(v, &len, err)) == 1 && is_blank(v, len))
        blank = blank ? blank : v->line;
    if (rc != 1)
        return rc;
    /* Lines and rows go together, so that blank ones are passed over at the end only. */
    if (blank)
        return kithi_error_set(err, KITHI_E_FORMAT,
                               "%s: line %" PRIu64 ": is empty; a row without a payload has null", v->path,
                               blank);
    kithi_json_begin(&v->json, v->text, len);
    (void)read_payload(v, &end);
    if (kithi_json_finish(&v->json) != 0)
        return kithi_error_set(err, v->json.code == -ENOMEM ? -ENOMEM : KITHI_E_FORMAT,
                               "%s: line %" PRIu64 ", byte %zu: %s", v->path, v->line, v->json.error_off + 1,
                               v->json.error);
    *end = '\0';
    *out = v->payload_text;
    return 1;
}

int kithi_payloads_open(const char *path, struct kithi_vectors **out, struct kithi_errmsg *err)
{
    if (!kithi_has_suffix(path, ".jsonl"))
        return kithi_error_set(err, KITHI_E_UNSUPPORTED, "%s: payloads are read from .jsonl files", path);
    return kithi_vectors_open(path, 1, out, err);
}

/* ---- all kinds ----------------------------------------------------------------------------- */

int kithi_vectors_open(const char *path, uint32_t dim, struct kithi_vectors **out, struct kithi_errmsg *err)
{
    static const struct {
        const char *suffix;
        enum format format;
        enum element element;
    } KINDS[] = {
        { ".fvecs", FORMAT_FVECS, ELEMENT_F4 },
        { ".bvecs", FORMAT_BVECS, ELEMENT_U1 },
        { ".npy", FORMAT_NPY, ELEMENT_F4 },
        { ".jsonl", FORMAT_JSONL, ELEMENT_F4 },
    };
    const size_t kinds = sizeof KINDS / sizeof *KINDS;
    size_t kind = 0;
    while (kind < kinds && !kithi_has_suffix(path, KINDS[kind].suffix))
        kind++;
    if (kind == kinds)
        return kithi_error_set(err, KITHI_E_UNSUPPORTED,
                               "%s: vectors are read from .fvecs, .bvecs, .npy and .jsonl files", path);

    struct kithi_vectors *v = calloc(1, sizeof *v);
    if (v == NULL)
        return kithi_error_set(err, -ENOMEM, "out of memory");
    v->format = KINDS[kind].format;
    v->element = KINDS[kind].element;
    v->dim = dim;
    v->path = strdup(path);
    v->buffer = malloc(BUFFER_SIZE);
    v->raw = malloc((size_t)dim * 8);                  /* 8: the widest element */
    v->values = malloc(KITHI_DIM_MAX * sizeof(float)); /* .jsonl reads any width, to be able to name it */
    kithi_json_init(&v->json);
    int rc = v->path == NULL || v->buffer == NULL || v->raw == NULL || v->values == NULL
                 ? kithi_error_set(err, -ENOMEM, "out of memory")
                 : open_file(path, &v->f, &v->size, err);
    if (rc == 0) {
        setvbuf(v->f, v->buffer, _IOFBF, BUFFER_SIZE);
        if (v->format == FORMAT_NPY)
            rc = npy_begin(v, err);
    }
    if (rc != 0)
        kithi_vectors_close(v);
    else
        *out = v;
    return rc;
}

void kithi_vectors_close(struct kithi_vectors *v)
{
    if (v == NULL)
        return;
    if (v->f != NULL)
        fclose(v->f);
    free(v->buffer); /* after fclose(), which may use it */
    free(v->path);
    free(v->raw);
    free(v->values);
    free(v->text);
    kithi_json_fini(&v->json);
    kithi_payload_reader_free(v->reader);
    free(v->payload);
    free(v);
}

int kithi_vectors_next(struct kithi_vectors *v, struct kithi_vector *out, struct kithi_errmsg *err)
{
    int rc;
    const char *id = NULL;
    switch (v->format) {
    case FORMAT_NPY: rc = next_npy(v, err); break;
    case FORMAT_JSONL: rc = next_jsonl(v, &id, err); break;
    default: rc = next_vecs(v, err);
    }
    if (rc != 1)
        return rc;
    out->values = v->values;
    out->id = id;
    out->payload = v->payload_text;
    out->row = v->row++;
    out->line = v->line;
    return 1;
}

double kithi_vectors_part(const struct kithi_vectors *v)
{
    return v->size == 0 ? -1 : (double)v->position / (double)v->size;
}

bool kithi_vectors_have_ids(const struct kithi_vectors *v)
{
    return v->format == FORMAT_JSONL;
}

/* ---- companions ---------------------------------------------------------------------------- */

int kithi_ids_open(const char *path, struct kithi_ids_file *out, struct kithi_errmsg *err)
{
    uint64_t size;
    memset(out, 0, sizeof *out);
    out->path = path;
    return open_file(path, &out->f, &size, err);
}

void kithi_ids_close(struct kithi_ids_file *ids)
{
    if (ids->f != NULL)
        fclose(ids->f);
    free(ids->line);
    memset(ids, 0, sizeof *ids);
}

int kithi_ids_next(struct kithi_ids_file *ids, const char **out_id, struct kithi_errmsg *err)
{
    errno = 0;
    ssize_t len = getline(&ids->line, &ids->capacity, ids->f);
    if (len < 0)
        return feof(ids->f) ? 0 : fail_read(ids->f, ids->path, err);
    ids->count++;
    if (len > 0 && ids->line[len - 1] == '\n')
        ids->line[--len] = '\0';
    if (!kithi_id_valid(ids->line, (size_t)len))
        return kithi_error_set(err, KITHI_E_ID, "%s: line %" PRIu64 ": %s (this one has %zd bytes)",
                               ids->path, ids->count, kithi_error_text(KITHI_E_ID), len);
    *out_id = ids->line;
    return 1;
}

int kithi_id_list_read(const char *path, struct kithi_id_list *out, struct kithi_errmsg *err)
{
    struct kithi_ids_file ids;
    struct kithi_id_list l = { 0 };
    const char *id;
    int rc = kithi_ids_open(path, &ids, err);
    if (rc != 0)
        return rc;
    while ((rc = kithi_ids_next(&ids, &id, err)) == 1) {
        size_t len = strlen(id) + 1;
        if (l.len + len > l.capacity) {
            size_t capacity = 2 * l.capacity + len + 4096;
            char *text = realloc(l.text, capacity);
            if (text == NULL)
                break;
            l.text = text;
            l.capacity = capacity;
        }
        if (l.count == l.off_capacity) {
            size_t capacity = 2 * l.off_capacity + 1024;
            size_t *off = realloc(l.off, capacity * sizeof *off);
            if (off == NULL)
                break;
            l.off = off;
            l.off_capacity = capacity;
        }
        l.off[l.count++] = l.len;
        memcpy(l.text + l.len, id, len);
        l.len += len;
    }
    kithi_ids_close(&ids);
    if (rc == 1)
        rc = kithi_error_set(err, -ENOMEM, "%s: out of memory", path);
    if (rc != 0)
        kithi_id_list_free(&l);
    else
        *out = l;
    return rc;
}

void kithi_id_list_free(struct kithi_id_list *l)
{
    free(l->text);
    free(l->off);
    memset(l, 0, sizeof *l);
}

int kithi_ivecs_read(const char *path, struct kithi_ivecs *out, struct kithi_errmsg *err)
{
    struct kithi_ivecs iv = { 0 };
    FILE *f = NULL;
    uint64_t size = 0;
    size_t capacity = 0;
    int rc = open_file(path, &f, &size, err);
    if (rc != 0)
        return rc;
    if (size % 4 != 0 || size > IVECS_FILE_MAX) {
        rc = kithi_error_set(err, KITHI_E_FORMAT, "%s: %" PRIu64 " bytes are not an .ivecs file", path, size);
        goto out;
    }
    size_t words = size / 4;
    iv.words = malloc(size + 1);
    if (iv.words == NULL) {
        rc = kithi_error_set(err, -ENOMEM, "%s: out of memory", path);
        goto out;
    }
    if (fread(iv.words, 4, words, f) < words) {
        rc = fail_read(f, path, err);
        goto out;
    }
    for (size_t at = 0; at < words; at += 1 + (size_t)iv.words[at]) {
        if (iv.words[at] < 0 || (size_t)iv.words[at] > words - at - 1) {
            rc = kithi_error_set(err, KITHI_E_TRUNCATED,
                                 "%s: row %zu claims %" PRId32 " numbers, the file has %zu more", path,
                                 iv.count, iv.words[at], words - at - 1);
            goto out;
        }
        if (iv.count == capacity) {
            capacity = 2 * capacity + 1024;
            size_t *off = realloc(iv.off, capacity * sizeof *off);
            if (off == NULL) {
                rc = kithi_error_set(err, -ENOMEM, "%s: out of memory", path);
                goto out;
            }
            iv.off = off;
        }
        iv.off[iv.count++] = at;
    }
out:
    if (rc != 0)
        kithi_ivecs_free(&iv);
    else
        *out = iv;
    fclose(f);
    return rc;
}

void kithi_ivecs_free(struct kithi_ivecs *iv)
{
    free(iv->words);
    free(iv->off);
    memset(iv, 0, sizeof *iv);
}
