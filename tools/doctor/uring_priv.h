/*
 * uring_priv.h - is io_uring permitted, and why not?
 */
#ifndef KITHI_TOOLS_DOCTOR_URING_PRIV_H
#define KITHI_TOOLS_DOCTOR_URING_PRIV_H

#include "tools/doctor/doctor_priv.h"

/* What was found out. */
struct kithi_uring {
    int status;      /* of making a ring like kithd's: 0 or -errno */
    bool complete;   /* it has all that kithd asks of it */
    int64_t setting; /* kernel.io_uring_disabled; -1: not there */
    int64_t group;   /* kernel.io_uring_group; -1: none */
    bool filtered;   /* this process is under a seccomp filter */
};

/* Make a ring like kithd's, and let go of it. */
void kithi_uring_try(struct kithi_uring *u);

/* The settings around it. */
void kithi_uring_look(const struct kithi_doctor *d, struct kithi_uring *u);

void kithi_uring_judge(const struct kithi_doctor *d, const struct kithi_uring *u, struct kithi_finding *f);

#endif
