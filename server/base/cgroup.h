/*
 * cgroup.h - how much memory the control groups of this process leave it.
 *
 * A limit may stand at any level between the process's own group and the root, and that of a systemd unit stands far from
 * the root of the hierarchy; inside a container with a namespace of its own the two are the same. Pages of a tmpfs count
 * against the group that wrote them first.
 */
#ifndef KITHI_SERVER_CGROUP_H
#define KITHI_SERVER_CGROUP_H

#include <stdint.h>

/*
 * Bytes below the nearest limit, file pages that nobody has used lately counted as room; UINT64_MAX where there is no
 * limit or no cgroup. root is put before /proc and /sys: "" but in tests. Reads a few small files; any thread.
 */
uint64_t kithi_cgroup_left(const char *root);

#endif
