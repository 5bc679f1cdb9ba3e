/*
 * fuzz_json.c - the JSON reader on any bytes: never beyond the text, always to an end; what it takes can be written
 * and read again.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static void float_round_trip(float v)
{
    struct kithi_json j;
    char text[KITHI_JSON_FLOAT_MAX];
    float back = NAN;
    size_t len = kithi_json_write_float(text, v);
    must(len < sizeof text && strlen(text) == len);
    kithi_json_init(&j);
    kithi_json_begin(&j, text, len);
    must(kithi_json_float(&j, &back) == 0 && kithi_json_finish(&j) == 0 && memcmp(&back, &v, sizeof v) == 0);
    kithi_json_fini(&j);
}

static void string_round_trip(const char *text, size_t len)
{
    struct kithi_json j;
    size_t size = kithi_json_write_string(NULL, 0, text, len), back_len = SIZE_MAX;
    char *out = malloc(size), *back = malloc(len + 1);
    must(out && back);
    must(kithi_json_write_string(out, size, text, len) == size);
    kithi_json_init(&j);
    kithi_json_begin(&j, out, size);
    must(kithi_json_string(&j, back, len, &back_len) == 0 && kithi_json_finish(&j) == 0);
    must(back_len == len && memcmp(back, text, len) == 0);
    kithi_json_fini(&j);
    free(out);
    free(back);
}

/* As the tools read a line: one object, some keys known. */
static int read_line(struct kithi_json *j, const char *text, size_t len)
{
    float v[16];
    char id[32];
    size_t n = 0;
    kithi_json_begin(j, text, len);
    if (kithi_json_object(j) < 0)
        return j->code;
    while (kithi_json_member(j) == 1) {
        if (kithi_json_key_is(j, "id")) {
            if (kithi_json_string(j, id, sizeof id, &n) == 0)
                string_round_trip(id, n);
        } else if (kithi_json_key_is(j, "vector")) {
            if (kithi_json_floats(j, v, 16, &n) == 0)
                for (size_t i = 0; i < n; i++)
                    float_round_trip(v[i]);
        } else {
            kithi_json_skip(j);
        }
    }
    return kithi_json_finish(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct kithi_json j;
    kithi_json_init(&j);

    int line = read_line(&j, text, size);
    must(j.error_off <= size);
    kithi_json_begin(&j, text, size);
    kithi_json_skip(&j);
    int rc = kithi_json_finish(&j);
    must(j.error_off <= size && (rc == 0) == (j.error == NULL));
    must(!(line == 0 && rc != 0)); /* a line that was taken is JSON */

    kithi_json_begin(&j, text, size);
    float v;
    if (kithi_json_float(&j, &v) == 0)
        float_round_trip(v);
    kithi_json_fini(&j);

    /* Any bytes can be written, and are JSON then. */
    size_t len = kithi_json_write_string(NULL, 0, text, size);
    char *out = malloc(len);
    must(out != NULL);
    must(kithi_json_write_string(out, len, text, size) == len);
    kithi_json_begin(&j, out, len);
    must(kithi_json_skip(&j) == 0 && kithi_json_finish(&j) == 0);
    kithi_json_fini(&j);
    free(out);
    return 0;
}
