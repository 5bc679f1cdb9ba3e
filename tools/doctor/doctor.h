/*
 * doctor.h - the checks of the surroundings: what kithd and its readers need of this machine, and what is there.
 *
 * A check looks at one thing and gives one finding. Nothing is changed, no rights are needed, no daemon has to run: what
 * cannot be known is unknown, with the reason. Only the daemon could keep a check waiting, and it is given a second.
 */
#ifndef KITHI_TOOLS_DOCTOR_DOCTOR_H
#define KITHI_TOOLS_DOCTOR_DOCTOR_H

enum kithi_doctor_state {
    KITHI_DOCTOR_OK,
    KITHI_DOCTOR_WARN,    /* works, but worse than it could, or not for long */
    KITHI_DOCTOR_BAD,     /* does not work */
    KITHI_DOCTOR_UNKNOWN, /* cannot be told from here */
    KITHI_DOCTOR_STATE_COUNT
};

/* "ok", "warn", "bad", "unknown": a contract, as the names of checks are. */
const char *kithi_doctor_state_name(enum kithi_doctor_state state);

struct kithi_finding {
    const char *check;
    enum kithi_doctor_state state;
    char *text; /* a sentence with the figures */
    char *fix;  /* a command or a line of configuration, to be pasted; NULL: none */
};

struct kithi_doctor_opts {
    const char *run_dir;
    const char *run_rule; /* by which rule it was found, as a phrase: "from --run" */
    const char *data_dir; /* NULL: ask kithd */
};

/* Takes a finding, which is freed afterwards. */
typedef void kithi_doctor_sink(void *arg, const struct kithi_finding *finding);

/* Make all checks, in the order in which a person would. Each gives one finding. */
void kithi_doctor_run(const struct kithi_doctor_opts *opts, kithi_doctor_sink *sink, void *arg);

#endif
