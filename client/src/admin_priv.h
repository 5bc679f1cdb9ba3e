/*
 * admin_priv.h - how long calls about collections, and those for a checkpoint, wait for a daemon that does not answer. Tests shorten them.
 */
#ifndef KITHI_CLIENT_ADMIN_PRIV_H
#define KITHI_CLIENT_ADMIN_PRIV_H

#include <stdint.h>
#include <sys/uio.h>

#include "shm/postings/declared.h"

extern uint32_t kithi_admin_hello_ms; /* for the greeting, and for an answer that takes no work */
extern uint32_t
    kithi_admin_answer_ms; /* for a create or a drop, which wait for the disk; for a sign of life */

/* The text of an index as requests carry it: checked, in out, padded to a multiple of 8; *out_len without that. 0 or KITH_E_PARAMETER. */
int kithi_index_part(const char *text, unsigned char out[KITHI_DECLARED_TEXT_MAX + 1], struct iovec *part,
                     uint16_t *out_len, struct kithi_errmsg *err);

#endif
