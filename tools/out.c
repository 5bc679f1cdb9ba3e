/*
 * out.c - see out.h.
 */
#include "tools/out.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "client/src/json.h"
#include "shm/base/assert.h"

#define LABEL_WIDTH      22
#define PROGRESS_STEP_NS UINT64_C(100000000) /* 10 Hz: smooth to the eye, nothing to the terminal */
#define PROGRESS_BAR_MAX 30

uint64_t kithi_tool_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- values --------------------------------------------------------------------------- */

void kithi_out_quote(FILE *f, const char *text)
{
    char small[1024];
    char *buf = small;
    size_t len = strlen(text);
    size_t need = kithi_json_write_string(small, sizeof small, text, len);
    if (need > sizeof small) {
        buf = malloc(need);
        KITHI_ASSERT(buf != NULL); /* a few kilobytes for a long name */
        kithi_json_write_string(buf, need, text, len);
    }
    fwrite(buf, 1, need, f);
    if (buf != small)
        free(buf);
}

/* Bytes of the control character that text begins with, C0, DEL or C1 in UTF-8, and its number; 0: it is none. */
static size_t control(const char *text, unsigned *out)
{
    const unsigned char *p = (const unsigned char *)text;
    bool second = p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;
    *out = second ? p[1] : p[0];
    return second ? 2 : p[0] < 0x20 || p[0] == 0x7f;
}

/* As kithi_out_plain() writes it; to be freed. */
static char *plain(const char *text)
{
    char *out = malloc(6 * strlen(text) + 1), *at = out;
    KITHI_ASSERT(out != NULL); /* a few kilobytes for a long name */
    while (*text != '\0') {
        unsigned c;
        size_t n = control(text, &c);
        if (n > 0)
            at += sprintf(at, "\\u%04x", c);
        else
            *at++ = *text;
        text += n > 0 ? n : 1;
    }
    *at = '\0';
    return out;
}

void kithi_out_plain(FILE *f, const char *text)
{
    char *out = plain(text);
    fputs(out, f);
    free(out);
}

void kithi_out_float(FILE *f, float value)
{
    char text[KITHI_JSON_FLOAT_MAX];
    fwrite(text, 1, kithi_json_write_float(text, value), f);
}

void kithi_out_vector(FILE *f, const float *v, size_t n)
{
    fputc('[', f);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            fputc(',', f);
        kithi_out_float(f, v[i]);
    }
    fputc(']', f);
}

const char *kithi_out_count(char *buf, uint64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, n);
    char *p = buf;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            *p++ = ',';
        *p++ = digits[i];
    }
    *p = '\0';
    return buf;
}

const char *kithi_out_bytes(char *buf, uint64_t bytes)
{
    static const char *const UNITS[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double v = (double)bytes;
    unsigned u = 0;
    while (v >= 1024 && u + 1 < sizeof UNITS / sizeof *UNITS) {
        v /= 1024;
        u++;
    }
    snprintf(buf, KITHI_OUT_TEXT_SIZE, u == 0 ? "%.0f %s" : "%.1f %s", v, UNITS[u]);
    return buf;
}

/* ---- objects -------------------------------------------------------------------------- */

void kithi_object_begin(struct kithi_object *o, bool json)
{
    o->json = json;
    o->begun = false;
}

/* Everything before the value; false: nothing is to be printed. */
static bool object_key(struct kithi_object *o, const char *key, const char *label)
{
    if (o->json)
        printf("%c\"%s\":", o->begun ? ',' : '{', key);
    else if (label != NULL)
        printf("%-*s ", LABEL_WIDTH, label);
    else
        return false;
    o->begun = true;
    return true;
}

/* The value in the two spellings, and the end of the line for people. */
static void object_value(const struct kithi_object *o, const char *json, const char *text)
{
    if (o->json)
        fputs(json, stdout);
    else
        puts(text);
}

void kithi_object_text(struct kithi_object *o, const char *key, const char *label, const char *value)
{
    if (value == NULL && !o->json)
        return;
    if (!object_key(o, key, label))
        return;
    if (value == NULL)
        fputs("null", stdout);
    else if (o->json)
        kithi_out_quote(stdout, value);
    else {
        kithi_out_plain(stdout, value);
        putchar('\n');
    }
}

void kithi_object_count(struct kithi_object *o, const char *key, const char *label, uint64_t value)
{
    char json[KITHI_OUT_TEXT_SIZE], text[KITHI_OUT_TEXT_SIZE];
    if (!object_key(o, key, label))
        return;
    snprintf(json, sizeof json, "%" PRIu64, value);
    object_value(o, json, kithi_out_count(text, value));
}

void kithi_object_bytes(struct kithi_object *o, const char *key, const char *label, uint64_t value)
{
    char json[KITHI_OUT_TEXT_SIZE], text[KITHI_OUT_TEXT_SIZE];
    if (!object_key(o, key, label))
        return;
    snprintf(json, sizeof json, "%" PRIu64, value);
    object_value(o, json, kithi_out_bytes(text, value));
}

void kithi_object_real(struct kithi_object *o, const char *key, const char *label, double value)
{
    char text[48];
    if (!object_key(o, key, label))
        return;
    snprintf(text, sizeof text, "%.3f", value);
    object_value(o, text, text);
}

void kithi_object_bool(struct kithi_object *o, const char *key, const char *label, bool value)
{
    if (!object_key(o, key, label))
        return;
    object_value(o, value ? "true" : "false", value ? "yes" : "no");
}

void kithi_object_json(struct kithi_object *o, const char *key, const char *json)
{
    if (object_key(o, key, NULL))
        fputs(json != NULL ? json : "null", stdout);
}

void kithi_object_end(struct kithi_object *o)
{
    if (o->json)
        puts(o->begun ? "}" : "{}");
}

/* ---- tables --------------------------------------------------------------------------- */

void kithi_table_begin(struct kithi_table *t, const char *format)
{
    KITHI_ASSERT(strlen(format) <= KITHI_TABLE_COLUMNS);
    memset(t, 0, sizeof *t);
    t->format = format;
}

void kithi_table_cell(struct kithi_table *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity == 0 ? 64 : 2 * t->capacity;
        char **cells = realloc(t->cells, capacity * sizeof *cells);
        KITHI_ASSERT(cells != NULL); /* a few kilobytes for a screen of text */
        t->cells = cells;
        t->capacity = capacity;
    }
    char *text = NULL;
    KITHI_ASSERT(vasprintf(&text, fmt, ap) >= 0);
    t->cells[t->count++] = plain(text);
    free(text);
    va_end(ap);
}

void kithi_table_end(struct kithi_table *t)
{
    kithi_table_end_to(t, stdout);
}

void kithi_table_end_to(struct kithi_table *t, FILE *f)
{
    const size_t columns = strlen(t->format);
    int width[KITHI_TABLE_COLUMNS] = { 0 };
    for (size_t i = 0; i < t->count; i++) {
        int len = (int)strlen(t->cells[i]);
        if (len > width[i % columns])
            width[i % columns] = len;
    }
    for (size_t i = 0; i < t->count; i++) {
        size_t c = i % columns;
        bool last = c + 1 == columns;
        if (c > 0 && !(last && *t->cells[i] == '\0'))
            fputs("  ", f);
        if (t->format[c] == 'r')
            fprintf(f, "%*s", width[c], t->cells[i]);
        else
            fprintf(f, "%-*s", last ? 0 : width[c], t->cells[i]);
        if (last)
            fputc('\n', f);
        free(t->cells[i]);
    }
    free(t->cells);
    memset(t, 0, sizeof *t);
}

/* ---- progress ------------------------------------------------------------------------- */

void kithi_progress_begin(struct kithi_progress *p, const char *unit)
{
    p->active = isatty(STDERR_FILENO) == 1;
    p->unit = unit;
    p->begin_ns = kithi_tool_now_ns();
    p->drawn_ns = 0;
}

static void progress_draw(const struct kithi_progress *p, uint64_t items, double part, double seconds)
{
    char count[KITHI_OUT_TEXT_SIZE], rate[KITHI_OUT_TEXT_SIZE], bar[PROGRESS_BAR_MAX + 1] = "";
    kithi_out_count(count, items);
    kithi_out_count(rate, seconds > 0 ? (uint64_t)((double)items / seconds) : 0);

    struct winsize size;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    if (part < 0) {
        fprintf(stderr, "\r\033[K%s %s  %s/s", count, p->unit, rate);
        return;
    }
    int width = columns < 100 ? 16 : PROGRESS_BAR_MAX;
    int full = (int)(part * width);
    for (int i = 0; i < width; i++)
        bar[i] = i < full ? '#' : '.';
    fprintf(stderr, "\r\033[K[%s] %3.0f %%  %s %s  %s/s", bar, part * 100, count, p->unit, rate);
    if (part > 0 && seconds > 0.5) {
        uint64_t left = (uint64_t)(seconds / part * (1 - part) + 0.5);
        fprintf(stderr, "  %" PRIu64 ":%02" PRIu64 " left", left / 60, left % 60);
    }
}

void kithi_progress_update(struct kithi_progress *p, uint64_t items, double part)
{
    if (!p->active)
        return;
    uint64_t now = kithi_tool_now_ns();
    if (now - p->drawn_ns < PROGRESS_STEP_NS)
        return;
    p->drawn_ns = now;
    progress_draw(p, items, part > 1 ? 1 : part, (double)(now - p->begin_ns) / 1e9);
}

void kithi_progress_end(struct kithi_progress *p)
{
    if (p->active && p->drawn_ns != 0)
        fprintf(stderr, "\r\033[K");
    p->active = false;
}
