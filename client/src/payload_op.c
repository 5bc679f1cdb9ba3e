/*
 * payload_op.c - see payload_op.h. Fields to remove go as u16 length and bytes of each path, one behind the other.
 */
#include "client/src/payload_op.h"

#include <errno.h>
#include <string.h>

#include "client/src/payload.h"
#include "shm/base/bytes.h"
#include "shm/payload/change.h"

#define PATH_MAX_BYTES (KITHI_PAYLOAD_DEPTH_MAX * (KITHI_PAYLOAD_KEY_MAX + 1u))

/* The next path of the list, behind count others. Returns the bytes that it takes, 0 behind the last, or an error of j. */
static int next_path(struct kithi_json *j, uint32_t count, unsigned char *out, size_t cap)
{
    char path[PATH_MAX_BYTES];
    size_t len;
    int rc = kithi_json_element(j);
    if (rc <= 0)
        return rc;
    rc = kithi_json_string(j, path, sizeof path, &len);
    if (rc < 0)
        return rc;
    const char *why = kithi_payload_path_wrong(path, len);
    if (why)
        return kithi_json_fail(j, why);
    if (count == KITHI_PAYLOAD_FIELDS_MAX)
        return kithi_json_fail(j, "more than 64 fields for one change");
    if (2 + len > cap)
        return kithi_json_fail(j, "the names of these fields are too long for one change");
    kithi_put16(out, (uint16_t)len);
    memcpy(out + 2, path, len);
    return (int)(2 + len);
}

static int read_paths(const char *text, unsigned char *out, struct kithi_errmsg *err)
{
    struct kithi_json j;
    uint32_t count = 0;
    int len = 0, rc;
    kithi_json_init(&j);
    kithi_json_begin(&j, text, strlen(text));
    rc = kithi_json_array(&j);
    while (rc >= 0 && (rc = next_path(&j, count, out + len, KITHI_PAYLOAD_MAX - (size_t)len)) > 0) {
        len += rc;
        count++;
    }
    if (rc == 0)
        rc = kithi_json_finish(&j);
    if (rc == 0 && len == 0)
        rc = kithi_error_set(err, KITHI_E_PAYLOAD, "no field to remove is named");
    else if (rc == -ENOMEM)
        kithi_error_set(err, rc, "%s", kithi_error_text(rc));
    else if (rc < 0)
        rc = kithi_error_set(err, KITHI_E_PAYLOAD,
                             "fields to remove are a list of dotted paths, as [\"a\",\"b.c\"]: %s (byte %zu)",
                             j.error, j.error_off);
    kithi_json_fini(&j);
    return rc < 0 ? rc : len;
}

int kithi_payload_op(enum kith_payload_change how, const char *text, unsigned char out[KITHI_PAYLOAD_MAX],
                     struct kithi_op *op, struct kithi_errmsg *err)
{
    static const uint8_t types[] = { [KITH_PAYLOAD_REPLACE] = KITHI_OP_SET,
                                     [KITH_PAYLOAD_MERGE] = KITHI_OP_MERGE,
                                     [KITH_PAYLOAD_REMOVE] = KITHI_OP_REMOVE };
    int len = 0;
    if ((unsigned)how > KITH_PAYLOAD_REMOVE || (!text && how != KITH_PAYLOAD_REPLACE))
        return kithi_error_set(err, -EINVAL, "%s", kithi_error_text(-EINVAL));
    if (text)
        len = how == KITH_PAYLOAD_REMOVE ? read_paths(text, out, err)
                                         : kithi_payload_from_json(text, strlen(text), out, err);
    if (len < 0)
        return len;
    op->type = types[how];
    op->payload = out;
    op->payload_len = (uint32_t)len;
    return 0;
}
