/*
 * text.h - bytes that grow: bodies as they arrive, answers as they are written.
 *
 * A text has a ceiling of its own and may share a budget with others. The first failure stays, later bytes are dropped, and
 * the caller asks once, at the end. A NUL always follows the bytes.
 *
 * Threads: a text belongs to one at a time.
 */
#ifndef KITHI_GATEWAY_TEXT_H
#define KITHI_GATEWAY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/gateway/budget.h"
#include "shm/base/compiler.h"

struct kithi_text {
    char *at; /* NULL while nothing was ever put */
    size_t len, capacity;
    size_t max;                  /* bytes, the NUL not counted */
    struct kithi_budget *budget; /* NULL: none */
    int failed;                  /* 0; -EFBIG: over max; -EDQUOT: the budget is used up; -ENOMEM */
};

void kithi_text_init(struct kithi_text *t, size_t max, struct kithi_budget *budget);
/* Gives memory and budget back; t is empty and may be used again. */
void kithi_text_fini(struct kithi_text *t);

/* Room for so many more bytes at t->at + t->len. False: t->failed says why. */
bool kithi_text_room(struct kithi_text *t, size_t bytes);
/* Forget what follows len. */
void kithi_text_cut(struct kithi_text *t, size_t len);

void kithi_text_put(struct kithi_text *t, const void *bytes, size_t n);
void kithi_text_str(struct kithi_text *t, const char *text);
void kithi_text_printf(struct kithi_text *t, const char *fmt, ...) KITHI_PRINTF(2, 3);
/* As a JSON string, with quotes. Bytes that are not UTF-8 become '?'. */
void kithi_text_json(struct kithi_text *t, const char *text, size_t len);
/* The fewest digits that read back as the same float; null when it is not finite. */
void kithi_text_float(struct kithi_text *t, float v);
void kithi_text_u64(struct kithi_text *t, uint64_t v);

#endif
