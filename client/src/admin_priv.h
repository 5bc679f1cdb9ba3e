/*
 * admin_priv.h - how long calls about collections, and those for a checkpoint, wait for a daemon that does not answer. Tests shorten them.
 */
#ifndef KITHI_CLIENT_ADMIN_PRIV_H
#define KITHI_CLIENT_ADMIN_PRIV_H

#include <stdint.h>

extern uint32_t kithi_admin_hello_ms; /* for the greeting, and for an answer that takes no work */
extern uint32_t
    kithi_admin_answer_ms; /* for a create or a drop, which wait for the disk; for a sign of life */

#endif
