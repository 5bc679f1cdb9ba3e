/*
 * doctor_priv.h - what the checks share: facts that several of them go by, and how a finding is made.
 */
#ifndef KITHI_TOOLS_DOCTOR_DOCTOR_PRIV_H
#define KITHI_TOOLS_DOCTOR_DOCTOR_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/base/compiler.h"
#include "shm/base/error.h"
#include "shm/base/id.h"
#include "tools/doctor/doctor.h"

/* ---- the daemon ------------------------------------------------------------------------ */

enum kithi_yes { KITHI_YES_UNKNOWN, KITHI_YES_NO, KITHI_YES };

/* A collection, as the run directory and the daemon know it. */
struct kithi_seen {
    char name[KITHI_NAME_MAX + 1];
    bool listed;   /* by the daemon */
    bool answered; /* the daemon has told of it */
    bool coming;   /* the daemon was started, and is still bringing it back */
    char how_far[64];
    int refused;   /* the daemon does not serve it, though it is its own: why; 0: it does, or was not asked */
    char why[404]; /* in its words */
    bool segment;  /* there is a segment */
    int status;    /* of attaching to it; 0: well */
    struct kithi_errmsg err;
    uint64_t huge, huge_wanted; /* bytes */
};

struct kithi_seen_list {
    struct kithi_seen *items;
    size_t count, capacity;
};

/* The one of that name, made if it is not there. */
struct kithi_seen *kithi_seen_get(struct kithi_seen_list *list, const char *name, size_t len);

/* What a daemon said about itself. */
struct kithi_asked {
    int status; /* 0: it answers; KITH_E_NO_DAEMON, KITH_E_TIMEOUT, KITH_E_DENIED, KITH_E_VERSION, other errors */
    char text[404];
    bool connected; /* somebody listens: pid and uid are set */
    pid_t pid;      /* 0: in another container */
    uid_t uid;
    uint64_t took_us;
    char version[32]; /* from here on of the statistics of a collection; "": not told */
    char io[16];
    char data[4096];
    enum kithi_yes direct; /* the log is written with O_DIRECT */
};

/* Ask whoever listens in run_dir; adds the collections that it knows to list. Takes three seconds at most. */
void kithi_asked_ask(struct kithi_asked *a, const char *run_dir, struct kithi_seen_list *list);

/* Take what the statistics of a collection tell; a text that is no JSON object tells nothing. */
void kithi_asked_take(struct kithi_asked *a, const char *json, size_t len);

/* The same of how far a start is, for the collections of list that are coming back. */
void kithi_asked_take_states(struct kithi_seen_list *list, const char *json, size_t len);

/* Add the collections whose segments are in run_dir, and look at those of all. 0, or -errno when run_dir cannot be read. */
int kithi_seen_look(struct kithi_seen_list *list, const char *run_dir);

/* ---- what is common to all checks -------------------------------------------------------- */

struct kithi_doctor {
    struct kithi_doctor_opts opts;
    const char *root; /* stands before /proc, /sys and /etc; "" but in tests */
    const char *data; /* data directory; NULL: not known */
    bool data_asked;  /* the daemon said it */
    struct kithi_asked asked;
    struct kithi_seen_list collections;
    int look_status;       /* of looking for them in the run directory */
    char proc[32];         /* "/proc/17": of kithd where that is to be seen, else "/proc/self" */
    bool proc_kithd;       /* it is kithd's */
    unsigned major, minor; /* of the kernel; 0: not known */
    enum kithi_container { KITHI_CONTAINER_NONE, KITHI_CONTAINER_PLAIN, KITHI_CONTAINER_POD } container;
};

/* Kernel, container and process, from the files under d->root; d->asked is there already. */
void kithi_doctor_look(struct kithi_doctor *d);

bool kithi_doctor_kernel_is(const struct kithi_doctor *d, unsigned major, unsigned minor);
/* "kithd", or "this process": whose limits are looked at. */
const char *kithi_doctor_whose(const struct kithi_doctor *d);

typedef void kithi_check_fn(const struct kithi_doctor *d, struct kithi_finding *f);

kithi_check_fn kithi_check_run_dir, kithi_check_run_rights, kithi_check_run_space;
kithi_check_fn kithi_check_data_dir, kithi_check_data_rights, kithi_check_data_space, kithi_check_data_direct;
kithi_check_fn kithi_check_memory, kithi_check_cgroup;
kithi_check_fn kithi_check_huge_pages;
kithi_check_fn kithi_check_io_uring;
kithi_check_fn kithi_check_memlock, kithi_check_open_files;
kithi_check_fn kithi_check_ipc;
kithi_check_fn kithi_check_daemon, kithi_check_collections;

/* ---- findings -------------------------------------------------------------------------- */

/* What is found; what was said before is replaced. */
void kithi_finding_set(struct kithi_finding *f, enum kithi_doctor_state state, const char *fmt, ...)
    KITHI_PRINTF(3, 4);
/* One more sentence or clause. */
void kithi_finding_add(struct kithi_finding *f, const char *fmt, ...) KITHI_PRINTF(2, 3);
void kithi_finding_fix(struct kithi_finding *f, const char *fmt, ...) KITHI_PRINTF(2, 3);
void kithi_finding_free(struct kithi_finding *f);

/* text as one word of a shell; in quotes where it needs them. malloc'ed. */
char *kithi_quote(const char *text);
/* "kithd --data DIR --run DIR", with the directories of d. malloc'ed. */
char *kithi_kithd_command(const struct kithi_doctor *d);

#endif
