/*
 * space_priv.h - how much room a file system has, and how a tmpfs is made larger.
 */
#ifndef KITHI_TOOLS_DOCTOR_SPACE_PRIV_H
#define KITHI_TOOLS_DOCTOR_SPACE_PRIV_H

#include "tools/doctor/doctor_priv.h"

struct kithi_space {
    uint64_t size, left; /* bytes; size 0: no limit of its own */
    uint64_t inodes, inodes_left;
    bool tmpfs;
    bool read_only;   /* as seen from here */
    char point[4096]; /* where it is mounted, as far as that can be told */
};

/* Of the file system that dir is on. 0 or -errno. */
int kithi_space_of(const char *dir, struct kithi_space *out);

/* What is to be said about the run directory's and the data directory's. */
void kithi_space_judge_run(const struct kithi_doctor *d, const struct kithi_space *s,
                           struct kithi_finding *f);
void kithi_space_judge_data(const struct kithi_doctor *d, const struct kithi_space *s,
                            struct kithi_finding *f);

/* A fix: the tmpfs shall have bytes of room in all. */
void kithi_space_fix_tmpfs(const struct kithi_doctor *d, const struct kithi_space *s, uint64_t bytes,
                           struct kithi_finding *f);

#endif
