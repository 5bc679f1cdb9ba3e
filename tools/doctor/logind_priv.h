/*
 * logind_priv.h - does systemd's logind remove a user's files from /dev/shm when he logs out?
 */
#ifndef KITHI_TOOLS_DOCTOR_LOGIND_PRIV_H
#define KITHI_TOOLS_DOCTOR_LOGIND_PRIV_H

#include "tools/doctor/doctor_priv.h"

struct kithi_logind {
    bool running;
    bool remove_ipc;      /* RemoveIPC of its configuration; yes where that says nothing */
    char where[4096];     /* the file that says so; "": none does */
    uint64_t sys_uid_max; /* users up to this one are the system's, whose files stay */
};

void kithi_logind_look(const struct kithi_doctor *d, struct kithi_logind *out);

/* Would files of this user be removed? */
void kithi_logind_judge(const struct kithi_doctor *d, const struct kithi_logind *l, const char *run_real,
                        uid_t owner, struct kithi_finding *f);

/* The value that a file of systemd's syntax gives RemoveIPC in [Login]: 1, 0, or -1 when it says nothing. The last one
 * counts, and what is no boolean is ignored. */
int kithi_logind_parse(const char *text);

#endif
