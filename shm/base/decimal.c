/*
 * decimal.c - see decimal.h. The C library rounds correctly, in the "C" locale; of what its printf() writes only the byte for the
 * point depends on the locale of the host program, and that byte is passed over.
 */
#include "shm/base/decimal.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Any fifteen digits are told apart by a double, but by the smallest ones, which have fewer bits. */
#define DIGITS_TOLD    15
#define SMALLEST_WHOLE 1e-300

/* glibc gives out a constant for the "C" locale, which is not to be freed. */
double kithi_decimal_read(const char *text)
{
    return strtod_l(text, NULL, newlocale(LC_ALL_MASK, "C", (locale_t)0));
}

static char *put_exponent(char *at, int e)
{
    *at++ = 'e';
    *at++ = e < 0 ? '-' : '+';
    if (e < 0)
        e = -e;
    if (e >= 100)
        *at++ = (char)('0' + e / 100);
    if (e >= 10)
        *at++ = (char)('0' + e / 10 % 10);
    *at++ = (char)('0' + e % 10);
    return at;
}

char *kithi_decimal_put(char *at, const char *digits, int n, int point)
{
    if (point > 16 || point < -4) {
        *at++ = digits[n - 1];
        if (n > 1)
            *at++ = '.';
        for (int i = n - 2; i >= 0; i--)
            *at++ = digits[i];
        return put_exponent(at, point - 1);
    }
    if (point <= 0) {
        *at++ = '0';
        *at++ = '.';
        for (int i = point; i < 0; i++)
            *at++ = '0';
    }
    for (int i = 0; i < n; i++) {
        if (i == point && i > 0)
            *at++ = '.';
        *at++ = digits[n - 1 - i];
    }
    for (int i = n; i < point; i++)
        *at++ = '0';
    return at;
}

/* v (finite, positive) in so many digits, the first one first; returns where the point is. */
static int digits_of(double v, int precision, char digits[KITHI_DECIMAL_DIGITS])
{
    char text[48];
    int n = 0;
    snprintf(text, sizeof text, "%.*e", precision - 1, v);
    const char *e = strchr(text, 'e');
    for (const char *p = text; p < e && n < precision; p++) {
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    }
    return (int)strtol(e + 1, NULL, 10) + 1;
}

static int reads_back(const char *digits, int n, int point, double v)
{
    char text[48];
    snprintf(text, sizeof text, "%.*se%d", n, digits, point - n);
    return kithi_decimal_read(text) == v;
}

size_t kithi_decimal_write(char out[KITHI_DECIMAL_MAX], double v)
{
    char digits[KITHI_DECIMAL_DIGITS], *at = out;
    if (signbit(v))
        *at++ = '-';
    v = fabs(v);
    if (v == 0 || !isfinite(v)) {
        memcpy(at, "0.0", 4);
        return (size_t)(at - out) + 3;
    }
    int n = v < SMALLEST_WHOLE ? 1 : DIGITS_TOLD, point = digits_of(v, n, digits);
    while (n < KITHI_DECIMAL_DIGITS && !reads_back(digits, n, point, v))
        point = digits_of(v, ++n, digits);
    while (n > 1 && digits[n - 1] == '0')
        n--;
    for (int i = 0; i < n / 2; i++) {
        char c = digits[i];
        digits[i] = digits[n - 1 - i];
        digits[n - 1 - i] = c;
    }
    at = kithi_decimal_put(at, digits, n, point);
    if (point >= n && point <= 16) {
        *at++ = '.';
        *at++ = '0';
    }
    *at = '\0';
    return (size_t)(at - out);
}
