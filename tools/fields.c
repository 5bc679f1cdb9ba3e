/*
 * fields.c - see fields.h.
 */
#include "tools/fields.h"

#include <stdlib.h>
#include <string.h>

#include "shm/payload/payload.h"

int kithi_fields_parse(const struct kithi_tool *t, const char *text, struct kithi_field_list *out)
{
    *out = (struct kithi_field_list){ .text = NULL };
    if (text == NULL)
        return KITHI_TOOL_OK;
    out->text = strdup(text);
    if (out->text == NULL)
        return kithi_tool_fail(t, "out of memory");
    for (char *path = out->text, *next; path != NULL; path = next) {
        next = strchr(path, ',');
        if (next != NULL)
            *next++ = '\0';
        const char *why = kithi_payload_path_wrong(path, strlen(path));
        if (why != NULL || out->count == KITHI_FIELDS_MAX) {
            int status = why != NULL ? kithi_tool_usage(t, "field \"%.80s\": %s", path, why)
                                     : kithi_tool_usage(t, "more than %u fields", KITHI_FIELDS_MAX);
            kithi_fields_free(out);
            return status;
        }
        out->paths[out->count++] = path;
    }
    return KITHI_TOOL_OK;
}

void kithi_fields_free(struct kithi_field_list *l)
{
    free(l->text);
    *l = (struct kithi_field_list){ .text = NULL };
}
