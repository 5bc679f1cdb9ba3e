/*
 * json.h - reading and writing JSON (RFC 8259): the one reader of library and tools.
 *
 * The reader is pulled: the caller asks for what it expects, in the order of the text, and
 * nothing is built in memory. Strict: no trailing commas, no comments, no NaN, no leading
 * zeros, strings are valid UTF-8 without lone surrogates, a key occurs once in an object,
 * nothing follows the value. Arrays of numbers are read straight into floats.
 *
 *     kithi_json_begin(&j, line, len);
 *     if (kithi_json_object(&j) == 0)
 *         while (kithi_json_member(&j) == 1) {
 *             if (kithi_json_key_is(&j, "vector"))
 *                 kithi_json_floats(&j, vector, dim, &n);
 *             else
 *                 kithi_json_skip(&j);
 *         }
 *     if (kithi_json_finish(&j) < 0)
 *         ... j.error at byte j.error_off
 *
 * The first error stays, and every later call returns it, so that a caller may check once.
 */
#ifndef KITHI_CLIENT_JSON_H
#define KITHI_CLIENT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_JSON_DEPTH_MAX 64u
#define KITHI_JSON_FLOAT_MAX 24u /* bytes that kithi_json_write_float takes at most */

enum kithi_json_kind {
    KITHI_JSON_NONE, /* nothing that begins a value */
    KITHI_JSON_NULL,
    KITHI_JSON_BOOL,
    KITHI_JSON_NUMBER,
    KITHI_JSON_STRING,
    KITHI_JSON_ARRAY,
    KITHI_JSON_OBJECT,
};

/* A key as it stands in the text, between its quotes. */
struct kithi_json_key {
    const char *at;
    size_t len;
};

struct kithi_json {
    const char *begin, *at, *end;
    const char *error; /* what is wrong, a constant; NULL while all is well */
    size_t error_off;  /* where, in bytes from the beginning */
    int code;          /* KITH_E_FORMAT or -ENOMEM; 0 while all is well */

    uint32_t depth;
    bool fresh; /* the innermost array or object has just been entered */
    struct {
        bool object;
        size_t first_key; /* of this object, in keys */
    } levels[KITHI_JSON_DEPTH_MAX];
    struct kithi_json_key *keys; /* of all objects that are open */
    size_t key_count, key_capacity;
};

void kithi_json_init(struct kithi_json *j);
void kithi_json_fini(struct kithi_json *j);

/* Read text from its start; it stays in place meanwhile. Keeps the memory of earlier texts. */
void kithi_json_begin(struct kithi_json *j, const char *text, size_t len);

/* What kind of value comes next. */
enum kithi_json_kind kithi_json_peek(struct kithi_json *j);

/* Enter the object or array that comes next. 0 or an error. */
int kithi_json_object(struct kithi_json *j);
int kithi_json_array(struct kithi_json *j);

/* Go to the value of the next member, or to the next element: 1; 0 past the last one, which leaves
 * the object or array; or an error. */
int kithi_json_member(struct kithi_json *j);
int kithi_json_element(struct kithi_json *j);

/* Is the key of this member name? */
bool kithi_json_key_is(const struct kithi_json *j, const char *name);
/* The key of this member, unescaped into out (cap bytes, no NUL is added). False: it is longer. */
bool kithi_json_key(const struct kithi_json *j, char *out, size_t cap, size_t *out_len);

/* Values. A string is unescaped into out (cap bytes, no NUL is added); longer ones are an error. out NULL: passed over,
 * for its length. */
int kithi_json_string(struct kithi_json *j, char *out, size_t cap, size_t *out_len);
int kithi_json_bool(struct kithi_json *j, bool *out);
int kithi_json_null(struct kithi_json *j);
/* Correctly rounded; a number beyond the largest double or float is an error. */
int kithi_json_double(struct kithi_json *j, double *out);
int kithi_json_float(struct kithi_json *j, float *out);
/*
 * Any number: 1 and *out_integer when it is written as an integer (no point, no exponent), 0 and *out_number when it is not,
 * or an error. Integers have 64 bits and a sign; others are an error, and none is rounded.
 */
int kithi_json_number(struct kithi_json *j, int64_t *out_integer, double *out_number);
/* An array of numbers; more than cap of them are an error. */
int kithi_json_floats(struct kithi_json *j, float *out, size_t cap, size_t *out_n);

/* Pass over one value of any kind, checking it as strictly. */
int kithi_json_skip(struct kithi_json *j);

/* Report an error of the caller's own at the place reached. text is a constant. */
int kithi_json_fail(struct kithi_json *j, const char *text);
/* The same at the key of this member. */
int kithi_json_fail_key(struct kithi_json *j, const char *text);

/* 0 when the value was read whole and nothing but white space follows; or the first error. */
int kithi_json_finish(struct kithi_json *j);

/* v as a number that reads back as the same float, few digits; "null" when it is not finite. Returns
 * the length; a NUL follows. Does not depend on the locale. */
size_t kithi_json_write_float(char out[KITHI_JSON_FLOAT_MAX], float v);

/*
 * len bytes as a JSON string, with quotes; bytes that are not UTF-8 become U+FFFD. Writes at most
 * cap bytes and no NUL; returns the length of the whole, so that more than cap means: too small.
 */
size_t kithi_json_write_string(char *out, size_t cap, const char *text, size_t len);

#endif
