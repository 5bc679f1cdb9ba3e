/*
 * id.h - what an id and a collection name may be. Both sides check: the client before it
 * sends, the daemon before it logs.
 */
#ifndef KITHI_BASE_ID_H
#define KITHI_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>

#define KITHI_ID_MAX   511u /* bytes of UTF-8, without NUL */
#define KITHI_NAME_MAX 64u  /* characters of a collection name */

/* UTF-8 (no surrogates, no overlong forms), no NUL, 1..511 bytes. */
bool kithi_id_valid(const char *id, size_t len);

/* [A-Za-z0-9][A-Za-z0-9_-]{0,63} */
bool kithi_name_valid(const char *name, size_t len);

#endif
