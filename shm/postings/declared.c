/*
 * declared.c - see declared.h.
 */
#include "shm/postings/declared.h"

#include <string.h>

#include "shm/base/utf8.h"

/* The first of a type is what it is called, the others what it is called elsewhere. */
static const struct {
    const char *name;
    enum kithi_declared_type type;
} types[] = {
    { "keyword", KITHI_DECLARED_KEYWORD }, { "integer", KITHI_DECLARED_INTEGER },
    { "number", KITHI_DECLARED_NUMBER },   { "bool", KITHI_DECLARED_BOOL },
    { "float", KITHI_DECLARED_NUMBER },    { "boolean", KITHI_DECLARED_BOOL },
};
#define TYPE_COUNT (sizeof types / sizeof types[0])

const char *kithi_declared_type_name(uint32_t type)
{
    for (size_t i = 0; i < TYPE_COUNT; i++)
        if (types[i].type == type)
            return types[i].name;
    return "any";
}

struct reader {
    const char *text, *at;
    struct kithi_declared_field *field;
    struct kithi_errmsg *err;
};

static int fail(struct reader *r, const char *why)
{
    return kithi_error_set(
        r->err, KITHI_E_PARAMETER,
        "index: byte %zu of \"%.100s\": %s; it is auto, none, or fields with their types, as "
        "in lang:keyword,chars:integer,price:number,new:bool",
        (size_t)(r->at - r->text) + 1, r->text, why);
}

static void skip_space(struct reader *r)
{
    while (*r->at == ' ')
        r->at++;
}

static bool is_plain(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           c == '-' || (unsigned char)c >= 0x80;
}

static int put(struct reader *r, char c)
{
    if (r->field->path_len == KITHI_POSTINGS_PATH)
        return fail(r, "the path of this field is longer than 232 bytes");
    r->field->path[r->field->path_len++] = c;
    return 0;
}

/* One key of a path, bare or in quotes. */
static int read_key(struct reader *r)
{
    const bool quoted = *r->at == '"';
    uint32_t before = r->field->path_len;
    int rc = 0;
    for (r->at += quoted; rc == 0 && (quoted ? *r->at != '"' : is_plain(*r->at)); r->at++) {
        if (quoted && *r->at == '\\' && (r->at[1] == '"' || r->at[1] == '\\'))
            r->at++;
        if ((unsigned char)*r->at < ' ')
            return fail(r, *r->at ? "a control character" : "a quote is not closed");
        if (*r->at == '.')
            return fail(r, "a key in quotes has no dots: they join the keys of a path");
        rc = put(r, *r->at);
    }
    if (rc == 0 && r->field->path_len == before)
        return fail(
            r, "the name of a field is missing; one with other characters than letters, digits, _ and - is "
               "written in \"quotes\"");
    r->at += rc == 0 && quoted;
    return rc;
}

static int read_type(struct reader *r)
{
    const char *end = r->at;
    while (*end >= 'a' && *end <= 'z')
        end++;
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (strlen(types[i].name) == (size_t)(end - r->at) &&
            memcmp(types[i].name, r->at, (size_t)(end - r->at)) == 0) {
            r->field->type = types[i].type;
            r->at = end;
            return 0;
        }
    }
    return fail(r, "a type is keyword, integer, number (or float) or bool");
}

static int read_field(struct reader *r)
{
    int rc = read_key(r);
    while (rc == 0 && *r->at == '.') {
        r->at++;
        rc = put(r, '.');
        if (rc == 0)
            rc = read_key(r);
    }
    if (rc < 0)
        return rc;
    if (!kithi_utf8_valid(r->field->path, r->field->path_len))
        return fail(r, "the name of this field is not valid UTF-8");
    skip_space(r);
    if (*r->at != ':')
        return fail(r, "a field is followed by a colon and its type");
    r->at++;
    skip_space(r);
    return read_type(r);
}

static bool is_twice(const struct kithi_declared *d, const struct kithi_declared_field *f)
{
    for (uint32_t i = 0; i < d->count; i++)
        if (d->fields[i].path_len == f->path_len && memcmp(d->fields[i].path, f->path, f->path_len) == 0)
            return true;
    return false;
}

int kithi_declared_read(const char *text, struct kithi_declared *out, struct kithi_errmsg *err)
{
    struct reader r = { .text = text, .at = text, .err = err };
    char again[KITHI_DECLARED_TEXT_MAX + 1];
    memset(out, 0, sizeof *out);
    out->automatic = text[0] == '\0' || strcmp(text, "auto") == 0;
    if (out->automatic || strcmp(text, "none") == 0)
        return 0;
    for (bool more = true; more;) {
        if (out->count == KITHI_POSTINGS_FIELDS)
            return fail(&r, "a collection has postings of 64 fields at most");
        r.field = &out->fields[out->count];
        skip_space(&r);
        int rc = read_field(&r);
        if (rc < 0)
            return rc;
        if (is_twice(out, r.field))
            return fail(&r, "this field is there twice");
        out->count++;
        skip_space(&r);
        more = *r.at == ',';
        r.at += more;
    }
    if (*r.at)
        return fail(&r, "fields are separated by commas");
    return kithi_declared_print(out, again) ? 0 : fail(&r, "all of it is longer than 2047 bytes");
}

struct writer {
    char *out;
    size_t len; /* beyond the end, where there was no room */
};

static void add(struct writer *w, char c)
{
    if (w->len < KITHI_DECLARED_TEXT_MAX)
        w->out[w->len] = c;
    w->len++;
}

/* One key of a path. */
static void add_key(struct writer *w, const char *key, size_t len)
{
    bool plain = true;
    for (size_t i = 0; i < len; i++)
        plain = plain && is_plain(key[i]);
    if (!plain)
        add(w, '"');
    for (size_t i = 0; i < len; i++) {
        if (key[i] == '"' || key[i] == '\\')
            add(w, '\\');
        add(w, key[i]);
    }
    if (!plain)
        add(w, '"');
}

bool kithi_declared_print(const struct kithi_declared *d, char out[KITHI_DECLARED_TEXT_MAX + 1])
{
    struct writer w = { .out = out };
    const char *whole = d->automatic ? "auto" : d->count == 0 ? "none" : "";
    for (; *whole; whole++)
        add(&w, *whole);
    for (uint32_t i = 0; i < d->count; i++) {
        const struct kithi_declared_field *f = &d->fields[i];
        if (i > 0)
            add(&w, ',');
        for (uint32_t from = 0, at = 0; at <= f->path_len; at++) {
            if (at < f->path_len && f->path[at] != '.')
                continue;
            add_key(&w, f->path + from, at - from);
            if (at < f->path_len)
                add(&w, '.');
            from = at + 1;
        }
        add(&w, ':');
        for (const char *name = kithi_declared_type_name(f->type); *name; name++)
            add(&w, *name);
    }
    out[w.len < KITHI_DECLARED_TEXT_MAX ? w.len : KITHI_DECLARED_TEXT_MAX] = '\0';
    return w.len <= KITHI_DECLARED_TEXT_MAX;
}
