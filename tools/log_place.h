/*
 * log_place.h - where the log of a collection is, and what is in its groups: for the commands that read
 * the data directory instead of shared memory.
 */
#ifndef KITHI_TOOLS_LOG_PLACE_H
#define KITHI_TOOLS_LOG_PLACE_H

#include "server/wal/scan.h"
#include "server/writer/settings.h"
#include "shm/wire/op.h"
#include "tools/tool.h"

#define KITHI_LOG_PATH 4096u

struct kithi_log_place {
    const char *name;
    char data[KITHI_LOG_PATH];       /* the data directory */
    char collection[KITHI_LOG_PATH]; /* <data>/<name> */
    char wal[KITHI_LOG_PATH];        /* <data>/<name>/wal */
    struct kithi_settings settings;
};

/*
 * data is --data; NULL: the kithd that serves name says where it is. Returns an exit status, after a message
 * that says what to do.
 */
int kithi_log_find(const struct kithi_tool *t, const char *name, const char *data,
                   struct kithi_log_place *out);

typedef void kithi_log_op_fn(void *arg, const struct kithi_op *op);

/*
 * Call fn (may be NULL) for every op of a group. False when its bytes are not the ops that its header
 * announces, as far as this version knows ops; *out_at is then the byte where that was seen.
 */
bool kithi_log_ops(const struct kithi_wal_group *g, kithi_log_op_fn *fn, void *arg, size_t *out_at);

#endif
