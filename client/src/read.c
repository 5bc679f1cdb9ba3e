/*
 * read.c - one vector by its id.
 */
#include <errno.h>
#include <string.h>

#include "client/src/handle_priv.h"
#include "shm/base/id.h"
#include "shm/graph/lookup.h"

int kith_get(kith *index, const char *id, float *out, size_t len, uint64_t *out_epoch)
{
    struct kithi_found found;
    struct kithi_call *c;

    if (!index || !id || (!out && len > 0))
        return -EINVAL;
    size_t id_len = strnlen(id, KITHI_ID_MAX + 1);
    if (!kithi_id_valid(id, id_len))
        return KITHI_E_ID;
    if (out && len != index->geometry.dim)
        return KITHI_E_DIMENSION;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    do
        rc = kithi_lookup(kithi_call_map(c), id, id_len, out, &found);
    while (kithi_call_again(index, c, &rc));
    kithi_call_end(index, c);
    if (rc == 0 && out_epoch)
        *out_epoch = found.epoch;
    return rc;
}

int kith_exists(kith *index, const char *id)
{
    int rc = kith_get(index, id, NULL, 0, NULL);
    return rc == 0 ? 1 : rc == KITHI_E_NOT_FOUND ? 0 : rc;
}
