/*
 * text.c - see text.h.
 */
#include "server/gateway/text.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/utf8.h"

#define FIRST_CAPACITY 512u

static char nothing[1] = "";

void kithi_text_init(struct kithi_text *t, size_t max, struct kithi_budget *budget)
{
    *t = (struct kithi_text){ .at = nothing, .max = max, .budget = budget };
}

void kithi_text_fini(struct kithi_text *t)
{
    if (t->capacity) {
        if (t->budget) {
            kithi_budget_give(t->budget, t->capacity);
        }
        free(t->at);
    }
    kithi_text_init(t, t->max, t->budget);
}

static bool fail(struct kithi_text *t, int code)
{
    t->failed = t->failed ? t->failed : code;
    return false;
}

bool kithi_text_room(struct kithi_text *t, size_t bytes)
{
    if (t->failed) {
        return false;
    }
    if (bytes > t->max - t->len) {
        return fail(t, -EFBIG);
    }
    size_t needed = t->len + bytes + 1, capacity = t->capacity ? t->capacity : FIRST_CAPACITY;
    if (needed <= t->capacity) {
        return true;
    }
    while (capacity < needed) {
        capacity *= 2;
    }
    capacity = capacity > t->max + 1 ? t->max + 1 : capacity;
    if (t->budget && !kithi_budget_take(t->budget, capacity - t->capacity)) {
        return fail(t, -EDQUOT);
    }
    char *at = realloc(t->capacity ? t->at : NULL, capacity);
    if (!at) {
        if (t->budget) {
            kithi_budget_give(t->budget, capacity - t->capacity);
        }
        return fail(t, -ENOMEM);
    }
    t->at = at;
    t->capacity = capacity;
    t->at[t->len] = 0;
    return true;
}

void kithi_text_cut(struct kithi_text *t, size_t len)
{
    if (len < t->len) {
        t->len = len;
        t->at[len] = 0;
    }
}

void kithi_text_put(struct kithi_text *t, const void *bytes, size_t n)
{
    if (n && kithi_text_room(t, n)) {
        memcpy(t->at + t->len, bytes, n);
        t->len += n;
        t->at[t->len] = 0;
    }
}

void kithi_text_str(struct kithi_text *t, const char *text)
{
    kithi_text_put(t, text, strlen(text));
}

void kithi_text_printf(struct kithi_text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        fail(t, -EINVAL);
        return;
    }
    if (kithi_text_room(t, (size_t)n)) {
        va_start(args, fmt);
        vsnprintf(t->at + t->len, (size_t)n + 1, fmt, args);
        va_end(args);
        t->len += (size_t)n;
    }
}

void kithi_text_json(struct kithi_text *t, const char *text, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *p = (const unsigned char *)text;
    kithi_text_put(t, "\"", 1);
    for (size_t i = 0, step; i < len; i += step) {
        size_t plain = i;
        while (plain < len && p[plain] >= 0x20 && p[plain] < 0x7f && p[plain] != '"' && p[plain] != '\\') {
            plain++;
        }
        step = plain - i;
        if (step) {
            kithi_text_put(t, p + i, step);
            continue;
        }
        step = kithi_utf8_step(p + i, len - i);
        if (p[i] == '"' || p[i] == '\\') {
            kithi_text_put(t, (char[]){ '\\', (char)p[i] }, 2);
        } else if (p[i] == '\n') {
            kithi_text_put(t, "\\n", 2);
        } else if (p[i] < 0x20 || p[i] == 0x7f) {
            kithi_text_put(t, (char[]){ '\\', 'u', '0', '0', hex[p[i] >> 4], hex[p[i] & 15] }, 6);
        } else if (step) {
            kithi_text_put(t, p + i, step);
        } else {
            kithi_text_put(t, "?", 1);
            step = 1;
        }
    }
    kithi_text_put(t, "\"", 1);
}

void kithi_text_float(struct kithi_text *t, float v)
{
    char digits[32];
    if (!isfinite(v)) {
        kithi_text_put(t, "null", 4);
        return;
    }
    /* The program never leaves the locale C, so that the point is one. Nine digits always do. */
    for (int precision = 6; precision <= 9; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, (double)v);
        if (strtof(digits, NULL) == v) {
            break;
        }
    }
    kithi_text_str(t, digits);
}

void kithi_text_u64(struct kithi_text *t, uint64_t v)
{
    kithi_text_printf(t, "%" PRIu64, v);
}
