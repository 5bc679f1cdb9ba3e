/*
 * query.c - see query.h.
 */
#include "tools/query.h"

#include <stdlib.h>
#include <string.h>

#include "client/src/json.h"

int kithi_query_parse(const struct kithi_tool *t, const char *text, uint32_t dim, float **out)
{
    struct kithi_json j;
    size_t n = 0;
    int status = KITHI_TOOL_OK;
    float *vector = malloc(KITHI_DIM_MAX * sizeof *vector); /* any width, to be able to name it */
    if (vector == NULL)
        return kithi_tool_fail(t, "out of memory");
    kithi_json_init(&j);
    kithi_json_begin(&j, text, strlen(text));
    kithi_json_floats(&j, vector, KITHI_DIM_MAX, &n);
    if (kithi_json_finish(&j) != 0)
        status =
            kithi_tool_usage(t, "--vector is a JSON array of numbers, such as '[0.5, -1, 2]'; byte %zu: %s",
                             j.error_off + 1, j.error);
    else if (n != dim)
        status = kithi_tool_fail(t, "--vector has %zu dimensions, the collection has %u", n, dim);
    kithi_json_fini(&j);
    if (status == KITHI_TOOL_OK)
        *out = vector;
    else
        free(vector);
    return status;
}
