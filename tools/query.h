/*
 * query.h - a vector as it is typed: --vector '[0.1, 0.2]'.
 */
#ifndef KITHI_TOOLS_QUERY_H
#define KITHI_TOOLS_QUERY_H

#include "tools/tool.h"

/*
 * Read a JSON array of dim numbers into *out (malloc'ed). Returns an exit status; a text that is no
 * such array is bad usage, another number of dimensions a failure.
 */
int kithi_query_parse(const struct kithi_tool *t, const char *text, uint32_t dim, float **out);

#endif
