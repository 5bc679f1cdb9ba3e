/*
 * decimal.h - doubles and decimal digits, whatever the locale of the host program is.
 */
#ifndef KITHI_BASE_DECIMAL_H
#define KITHI_BASE_DECIMAL_H

#include <stddef.h>

#define KITHI_DECIMAL_DIGITS 17  /* a double has no more */
#define KITHI_DECIMAL_MAX    32u /* bytes that kithi_decimal_write() takes at most */

/* A NUL-terminated number as JSON writes one, correctly rounded; infinite when it is too large. */
double kithi_decimal_read(const char *text);

/* n digits, the last one first, with the point behind so many of them; all far from it with an exponent. Returns the end; no NUL. */
char *kithi_decimal_put(char *at, const char *digits, int n, int point);

/*
 * v, which is finite, with the fewest digits that read back as the same, and with a point or an exponent, so that it does not read
 * as an integer. Returns the length; a NUL follows.
 */
size_t kithi_decimal_write(char out[KITHI_DECIMAL_MAX], double v);

#endif
