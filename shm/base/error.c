/*
 * error.c - texts for error codes. Owns no policy: who reports is decided above.
 */
#include "shm/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *kithi_error_text(int code)
{
    switch (code) {
    case 0: return "success";
    case -EUSERS:
        return "kithd has as many clients as it serves; close some, or raise 'clients' in its configuration";
#define KITHI_ERROR_TEXT(name, number, text)                                                                 \
    case -(number): return text;
        KITHI_ERROR_LIST(KITHI_ERROR_TEXT)
#undef KITHI_ERROR_TEXT
    default: break;
    }
    /* strerror() of glibc returns a constant for every errno it knows. */
    const char *s = code < 0 && code > -4096 ? strerrordesc_np(-code) : NULL;
    return s ? s : "unknown error";
}

const char *kithi_error_name(int code)
{
    switch (code) {
    case 0: return "OK";
#define KITHI_ERROR_NAME(name, number, text)                                                                 \
    case -(number): return "KITH_E_" #name;
        KITHI_ERROR_LIST(KITHI_ERROR_NAME)
#undef KITHI_ERROR_NAME
    default: break;
    }
    const char *s = code < 0 && code > -4096 ? strerrorname_np(-code) : NULL;
    return s ? s : "UNKNOWN";
}

int kithi_error_set(struct kithi_errmsg *err, int code, const char *fmt, ...)
{
    if (err) {
        err->code = code;
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
    }
    return code;
}
