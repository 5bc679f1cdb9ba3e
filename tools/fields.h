/*
 * fields.h - payloads as commands show them: --payload, all of them, or --fields a,b.c, some of their fields.
 */
#ifndef KITHI_TOOLS_FIELDS_H
#define KITHI_TOOLS_FIELDS_H

#include "tools/tool.h"

#define KITHI_FIELDS_MAX 64u

struct kithi_field_list {
    char *text;
    const char *paths[KITHI_FIELDS_MAX];
    uint32_t count;
};

/* The paths of a list with commas, NULL for none. Returns an exit status; what is no such list is bad usage. */
int kithi_fields_parse(const struct kithi_tool *t, const char *text, struct kithi_field_list *out);
void kithi_fields_free(struct kithi_field_list *l);

#endif
