/*
 * refused.c - see refused.h.
 */
#include "server/writer/refused.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool kithi_refused_fits(int status)
{
    return status == KITHI_E_LOG_DAMAGED || status == KITHI_E_VERSION || status == KITHI_E_FORMAT ||
           status == KITHI_E_CORRUPT || status == KITHI_E_NOT_SEGMENT;
}

int kithi_refused_add(struct kithi_daemon *d, const char *name, const uint8_t *uid, int status,
                      const char *why)
{
    struct kithi_refused *r = calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    snprintf(r->name, sizeof r->name, "%s", name);
    if (uid) {
        memcpy(r->uid, uid, sizeof r->uid);
    }
    kithi_error_set(&r->why, status, "%s", why);
    struct kithi_refused **at = &d->refused;
    while (*at && strcmp((*at)->name, name) < 0) {
        at = &(*at)->next;
    }
    r->next = *at;
    *at = r;
    return 0;
}

static int tell(const struct kithi_refused *r, struct kithi_errmsg *err)
{
    return kithi_error_set(err, r->why.code, "kithd does not serve \"%s\": %s", r->name, r->why.text);
}

int kithi_refused_find(const struct kithi_daemon *d, const char *name, struct kithi_errmsg *err)
{
    const struct kithi_refused *r = d->refused;
    while (r && strcmp(r->name, name)) {
        r = r->next;
    }
    return r ? tell(r, err) : 0;
}

int kithi_refused_find_uid(const struct kithi_daemon *d, const uint8_t uid[16], struct kithi_errmsg *err)
{
    static const uint8_t unknown[16];
    const struct kithi_refused *r = memcmp(uid, unknown, sizeof unknown) ? d->refused : NULL;
    while (r && memcmp(r->uid, uid, sizeof r->uid)) {
        r = r->next;
    }
    return r ? tell(r, err) : 0;
}

void kithi_refused_fini(struct kithi_daemon *d)
{
    while (d->refused) {
        struct kithi_refused *r = d->refused;
        d->refused = r->next;
        free(r);
    }
}
