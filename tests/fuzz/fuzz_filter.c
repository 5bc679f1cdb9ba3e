/*
 * fuzz_filter.c - any text as a filter, on a payload of any bytes: never beyond either, always to an end; a filter that is taken is
 * printed as one that is the same and worth the same. Any text as an index (postings/declared.h), too.
 *
 * The text ends with the first NUL; the payload is what follows.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shm/filter/filter.h"
#include "shm/postings/declared.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

/* The same text as that of an index, which is one or is told why not; one is written as one that is the same. */
static void read_as_index(const uint8_t *data, size_t len)
{
    static struct kithi_declared d, e;
    char again[KITHI_DECLARED_TEXT_MAX + 1];
    struct kithi_errmsg err = { .code = 0 };
    char *text = malloc(len + 1);
    must(text != NULL);
    memcpy(text, data, len);
    text[len] = '\0';
    int rc = kithi_declared_read(text, &d, &err);
    must(rc == 0 || (rc == KITHI_E_PARAMETER && err.code == rc && err.text[0]));
    if (rc == 0) {
        must(kithi_declared_print(&d, again));
        must(kithi_declared_read(again, &e, NULL) == 0 && memcmp(&d, &e, sizeof d) == 0);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = memchr(data, '\0', size);
    size_t text_len = nul ? (size_t)(nul - data) : size, rest = nul ? size - text_len - 1 : 0;
    char *text = malloc(text_len ? text_len : 1);
    unsigned char *bytes = malloc(rest ? rest : 1);
    must(text && bytes);
    read_as_index(data, text_len);
    memcpy(text, data, text_len);
    if (rest)
        memcpy(bytes, nul + 1, rest);

    struct kithi_filter *f = NULL, *g = NULL;
    struct kithi_errmsg err = { .code = 0 };
    int rc = kithi_filter_parse(text, text_len, &f, &err);
    must(rc == 0 || (rc == KITHI_E_FILTER && err.code == rc && err.text[0] && !f));
    if (rc == 0) {
        size_t len = kithi_filter_print(f, NULL, 0);
        char *out = malloc(len);
        must(out && kithi_filter_print(f, out, len) == len);
        /* Text may grow by its quotes beyond what a text may have. */
        rc = kithi_filter_parse(out, len, &g, &err);
        must(rc == 0 || len > KITHI_FILTER_TEXT_MAX);
        const struct kithi_payload p = { .bytes = bytes,
                                         .len =
                                             rest < KITHI_PAYLOAD_MAX ? (uint32_t)rest : KITHI_PAYLOAD_MAX };
        struct kithi_filter_look look = { 0 }, again = { 0 };
        int worth = kithi_filter_eval(f, &p, &look);
        must(worth == 0 || worth == 1 ||
             (worth == KITHI_E_FILTER && look.holds && look.field < f->field_count));
        if (worth == KITHI_E_FILTER)
            must(kithi_filter_mixed(f, &look, &err) == worth);
        if (rc == 0) {
            must(kithi_filter_same(f, g) && kithi_filter_eval(g, &p, &again) == worth);
            kithi_filter_free(g);
        }
        kithi_filter_see(f, &p, &look);
        must(kithi_filter_eval(f, NULL, &look) >= 0);
        free(out);
        kithi_filter_free(f);
    }
    free(text);
    free(bytes);
    return 0;
}
