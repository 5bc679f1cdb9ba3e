/*
 * out.h - what commands print: an object as JSON or as aligned lines, tables, a progress bar.
 *
 * Keys of JSON objects are a contract, listed in kith(1) and never renamed; labels are for people
 * and may change.
 */
#ifndef KITHI_TOOLS_OUT_H
#define KITHI_TOOLS_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shm/base/compiler.h"

/* ---- values --------------------------------------------------------------------------- */

/* text as a JSON string, quotes included; text is UTF-8. */
void kithi_out_quote(FILE *f, const char *text);

/* text for people: control characters, which could steer a terminal, become \u001b and the like. */
void kithi_out_plain(FILE *f, const char *text);

/* The shortest decimal that reads back as the same float. */
void kithi_out_float(FILE *f, float value);

/* n floats as a JSON array. */
void kithi_out_vector(FILE *f, const float *v, size_t n);

#define KITHI_OUT_TEXT_SIZE 32u                         /* bytes that the two below need at most */
const char *kithi_out_count(char *buf, uint64_t n);     /* "63,666" */
const char *kithi_out_bytes(char *buf, uint64_t bytes); /* "12.3 MiB" */

/* ---- one object: {"key":value,...} or a label and a value a line ---------------------- */

struct kithi_object {
    bool json;
    bool begun;
};

void kithi_object_begin(struct kithi_object *o, bool json);
/* label NULL: in JSON only. value NULL: null, or not printed for people. */
void kithi_object_text(struct kithi_object *o, const char *key, const char *label, const char *value);
void kithi_object_count(struct kithi_object *o, const char *key, const char *label, uint64_t value);
void kithi_object_bytes(struct kithi_object *o, const char *key, const char *label, uint64_t value);
void kithi_object_real(struct kithi_object *o, const char *key, const char *label, double value);
void kithi_object_bool(struct kithi_object *o, const char *key, const char *label, bool value);
/* In JSON only; json is a whole value, NULL: null. */
void kithi_object_json(struct kithi_object *o, const char *key, const char *json);
void kithi_object_end(struct kithi_object *o);

/* ---- tables --------------------------------------------------------------------------- */

#define KITHI_TABLE_COLUMNS 10u

struct kithi_table {
    const char *format; /* a letter a column: l left, r right */
    char **cells;
    size_t count, capacity;
};

void kithi_table_begin(struct kithi_table *t, const char *format);
/* The next cell, row by row; the first row is the heading. */
void kithi_table_cell(struct kithi_table *t, const char *fmt, ...) KITHI_PRINTF(2, 3);
/* Print with columns as wide as needed, and release; to the standard output, or to f. */
void kithi_table_end(struct kithi_table *t);
void kithi_table_end_to(struct kithi_table *t, FILE *f);

/* ---- progress ------------------------------------------------------------------------- */

/* A bar with rate and time left on stderr when that is a terminal; silent otherwise. */
struct kithi_progress {
    bool active;
    const char *unit;  /* "vectors" */
    uint64_t begin_ns; /* CLOCK_MONOTONIC */
    uint64_t drawn_ns;
};

void kithi_progress_begin(struct kithi_progress *p, const char *unit);
/* items are done, the fraction part (0..1; negative: unknown) of all. Draws at most 10 times a second. */
void kithi_progress_update(struct kithi_progress *p, uint64_t items, double part);
/* Take the bar away, so that what is printed next has the line. */
void kithi_progress_end(struct kithi_progress *p);

uint64_t kithi_tool_now_ns(void); /* CLOCK_MONOTONIC */

#endif
