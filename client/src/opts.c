/*
 * opts.c - see opts_priv.h.
 */
#include "client/src/opts_priv.h"

#include <errno.h>
#include <string.h>

static int check(const void *theirs, size_t known, size_t first, size_t *out_size)
{
    size_t size;
    memcpy(&size, theirs, sizeof size);
    if (size < first)
        return -EINVAL;
    const unsigned char *p = theirs;
    for (size_t i = known; i < size; i++) {
        if (p[i] != 0)
            return -EINVAL;
    }
    *out_size = size < known ? size : known;
    return 0;
}

int kithi_opts_in(void *to, const void *from, size_t known, size_t first)
{
    size_t size;
    if (check(from, known, first, &size) < 0)
        return -EINVAL;
    memset(to, 0, known);
    memcpy(to, from, size);
    return 0;
}

int kithi_opts_out(void *to, const void *from, size_t known, size_t first)
{
    size_t size, head = sizeof(size_t);
    if (check(to, known, first, &size) < 0)
        return -EINVAL;
    memcpy((unsigned char *)to + head, (const unsigned char *)from + head, size - head);
    return 0;
}
