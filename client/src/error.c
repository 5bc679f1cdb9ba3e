/*
 * error.c - codes, names and texts for callers, and proof that both lists of codes agree.
 */
#include <kith/kith.h>

#include <string.h>

#include "client/src/handle_priv.h"
#include "shm/base/error.h"

#define SAME_CODE(name, number, text)                                                                        \
    _Static_assert((int)KITH_E_##name == -(number), "kith.h and error.h disagree");
KITHI_ERROR_LIST(SAME_CODE)
#undef SAME_CODE

_Static_assert(sizeof((struct kith_error *)0)->text == sizeof((struct kithi_errmsg *)0)->text,
               "texts are copied whole");

#define STRING(x)  #x
#define VERSION(x) STRING(x)

const char *kith_strerror(int code)
{
    return kithi_error_text(code);
}

const char *kith_errname(int code)
{
    return kithi_error_name(code);
}

const char *kith_version(void)
{
    return VERSION(KITH_VERSION_MAJOR) "." VERSION(KITH_VERSION_MINOR) "." VERSION(KITH_VERSION_PATCH);
}

int kithi_report(struct kith_error *out, const struct kithi_errmsg *err, int code)
{
    if (out && code < 0) {
        out->code = code;
        memcpy(out->text, err->text, sizeof out->text);
    }
    return code;
}
