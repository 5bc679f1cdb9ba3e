/*
 * refusal.h - why a request is not carried out: a status, a code that stays, a sentence, and the place in the request.
 *
 *   {"error": {"code": "dimension", "message": "...", "where": "points[3].vector", "outcome": "nothing_done"}, "request_id": "..."}
 *
 * outcome is there for calls that may change something: nothing_done; unknown (it may have been applied, or may be yet);
 * partial (message says how much).
 */
#ifndef KITHI_GATEWAY_REFUSAL_H
#define KITHI_GATEWAY_REFUSAL_H

#include <stdbool.h>

#include "shm/base/compiler.h"

enum kithi_outcome { KITHI_OUTCOME_NOTHING, KITHI_OUTCOME_UNKNOWN, KITHI_OUTCOME_PARTIAL };

struct kithi_refusal {
    int status;       /* 0: it is none */
    const char *code; /* constant */
    enum kithi_outcome outcome;
    unsigned retry_s; /* Retry-After; 0: none */
    char where[128];
    char message[640];
};

/* Fill r, unless it is filled: the first reason stays. where may be NULL. Returns -1, so that a refusal is one line. */
int kithi_refuse(struct kithi_refusal *r, int status, const char *code, const char *where, const char *fmt,
                 ...) KITHI_PRINTF(5, 6);

/*
 * What libkith returned, where it is not the request's own place to say more. text may be NULL or "": the code's own sentence.
 * Returns -1.
 */
int kithi_refuse_kith(struct kithi_refusal *r, int rc, const char *where, const char *text);

const char *kithi_outcome_name(enum kithi_outcome outcome);

#endif
