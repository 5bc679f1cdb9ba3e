/*
 * args.c - see args.h.
 */
#include "tools/args.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/assert.h"

static int set_number(const struct kithi_tool *t, const struct kithi_arg *arg, const char *value)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end != '\0' || errno != 0 || v < arg->min || v > arg->max)
        return kithi_tool_usage(t, "%s takes a whole number from %u to %u, not \"%s\"", arg->name, arg->min,
                                arg->max, value);
    *(uint32_t *)arg->out = (uint32_t)v;
    return KITHI_TOOL_OK;
}

static int set_real(const struct kithi_tool *t, const struct kithi_arg *arg, const char *value)
{
    char *end;
    double v = strtod(value, &end);
    if (*value == '\0' || *end != '\0' || !isfinite(v) || v < arg->min || v > arg->max)
        return kithi_tool_usage(t, "%s takes a number from %u to %u, not \"%s\"", arg->name, arg->min,
                                arg->max, value);
    *(double *)arg->out = v;
    return KITHI_TOOL_OK;
}

static int set_epoch(const struct kithi_tool *t, const struct kithi_arg *arg, const char *value)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end != '\0' || errno != 0 || v == 0)
        return kithi_tool_usage(t, "%s takes the number of an epoch, 1 or more, not \"%s\"", arg->name,
                                value);
    *(uint64_t *)arg->out = v;
    return KITHI_TOOL_OK;
}

static int set_value(const struct kithi_tool *t, const struct kithi_arg *arg, const char *value)
{
    switch (arg->kind) {
    case KITHI_ARG_NUMBER: return set_number(t, arg, value);
    case KITHI_ARG_REAL: return set_real(t, arg, value);
    case KITHI_ARG_EPOCH: return set_epoch(t, arg, value);
    default: break;
    }
    if (*value == '\0')
        return kithi_tool_usage(t, "%s is empty", arg->name);
    *(const char **)arg->out = value;
    return KITHI_TOOL_OK;
}

/* Does text name arg? *out_value is what follows in the same word, or NULL. */
static bool matches(const struct kithi_arg *arg, const char *text, const char **out_value)
{
    size_t len = strlen(arg->name);
    *out_value = NULL;
    if (strncmp(text, arg->name, len) != 0)
        return false;
    if (text[len] == '\0')
        return true;
    if (arg->name[1] != '-') { /* -k10 */
        *out_value = text + len;
        return true;
    }
    if (text[len] != '=')
        return false;
    *out_value = text + len + 1;
    return true;
}

int kithi_args_parse(struct kithi_tool *t, int argc, char **argv, const struct kithi_arg *args, size_t n,
                     int *out_count)
{
    const struct kithi_arg common[] = {
        { "--run", KITHI_ARG_STRING, &t->run_dir, 0, 0 },
        { "--json", KITHI_ARG_FLAG, &t->json, 0, 0 },
    };
    const size_t common_n = sizeof common / sizeof *common;
    int count = 0;
    /* Bit a: option a has its value. A second one would silently win. */
    uint64_t given = t->run_dir != NULL ? UINT64_C(1) << n : 0;
    KITHI_ASSERT(n + common_n <= 64);
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (strcmp(text, "--") == 0) {
            while (++i < argc)
                argv[++count] = argv[i];
            break;
        }
        if (text[0] != '-' || text[1] == '\0') {
            argv[++count] = argv[i];
            continue;
        }
        if (strcmp(text, "--help") == 0) {
            printf("usage: kith [--run DIR] [--json] %s %s\n", t->command, t->usage);
            return -1;
        }
        const struct kithi_arg *arg = NULL;
        uint64_t bit = 0;
        const char *value = NULL;
        for (size_t a = 0; a < n + common_n && arg == NULL; a++) {
            const struct kithi_arg *candidate = a < n ? &args[a] : &common[a - n];
            if (matches(candidate, text, &value)) {
                arg = candidate;
                bit = UINT64_C(1) << a;
            }
        }
        if (arg == NULL)
            return kithi_tool_usage(t, "there is no option %s", text);
        if (arg->kind == KITHI_ARG_LATER)
            return kithi_tool_later(t, arg->name);
        if (arg->kind == KITHI_ARG_FLAG) {
            if (value != NULL)
                return kithi_tool_usage(t, "%s takes no value", arg->name);
            *(bool *)arg->out = true;
            continue;
        }
        if (given & bit)
            return kithi_tool_usage(t, "%s is given twice", arg->name);
        given |= bit;
        if (value == NULL) {
            if (i + 1 == argc)
                return kithi_tool_usage(t, "%s needs a value", arg->name);
            value = argv[++i];
        }
        int status = set_value(t, arg, value);
        if (status != KITHI_TOOL_OK)
            return status;
    }
    *out_count = count;
    return KITHI_TOOL_OK;
}
