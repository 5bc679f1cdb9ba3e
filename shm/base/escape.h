/*
 * escape.h - the escapes that strings of JSON and of filters have in common: \uXXXX, and pairs of them beyond the basic plane.
 */
#ifndef KITHI_BASE_ESCAPE_H
#define KITHI_BASE_ESCAPE_H

#include <stddef.h>

/*
 * The character of the escape at *at, which is its backslash, before end: its UTF-8 to out, 4 bytes at most. Returns how many, and moves
 * *at behind the escape; 0 when no `u` with four hexadecimal digits follows; -1 when it is half of a surrogate pair.
 */
int kithi_escape_unicode(const char **at, const char *end, char out[4]);

#endif
