/*
 * cgroup_priv.h - the memory limit of a cgroup, version 1 or 2.
 */
#ifndef KITHI_TOOLS_DOCTOR_CGROUP_PRIV_H
#define KITHI_TOOLS_DOCTOR_CGROUP_PRIV_H

#include "tools/doctor/doctor_priv.h"

struct kithi_cgroup {
    bool limited; /* what follows is set */
    unsigned version;
    char dir[4096];                  /* of the group whose limit comes first */
    uint64_t max, used, idle, shmem; /* bytes; idle: file pages that give way, part of used */
};

/* The limit with the least room, of the process's group and those above it. 0, or -errno: there is nothing to look at. */
int kithi_cgroup_find(const struct kithi_doctor *d, struct kithi_cgroup *out);

/* Bytes that may still be taken. */
uint64_t kithi_cgroup_room(const struct kithi_cgroup *c);

#endif
