/*
 * mount_priv.h - the mount that a path is on, by /proc/PID/mountinfo.
 */
#ifndef KITHI_TOOLS_DOCTOR_MOUNT_PRIV_H
#define KITHI_TOOLS_DOCTOR_MOUNT_PRIV_H

#include <stdbool.h>

struct kithi_mount {
    char point[4096];
    char type[32];
    char options[256]; /* of the file system, such as "rw,size=65536k,huge=advise" */
};

/* The last mount whose point is path or the nearest directory above it. path is absolute and has no links. */
bool kithi_mount_find(const char *mountinfo, const char *path, struct kithi_mount *out);

/* The value of an option, "advise" of "huge"; false: it is not there. */
bool kithi_mount_option(const struct kithi_mount *m, const char *name, char *out, unsigned size);

#endif
