/*
 * args.h - options and arguments of one command, described by a table.
 *
 * Not getopt_long, because that accepts every unambiguous abbreviation: a script that says --ef
 * for --ef-construction would break when a later version adds an option. Here names are
 * exact. --name VALUE, --name=VALUE, -k VALUE and -kVALUE are understood, options and arguments
 * may be mixed, and -- ends the options.
 */
#ifndef KITHI_TOOLS_ARGS_H
#define KITHI_TOOLS_ARGS_H

#include "tools/tool.h"

enum kithi_arg_kind {
    KITHI_ARG_FLAG,   /* out: bool */
    KITHI_ARG_STRING, /* out: const char *; not empty */
    KITHI_ARG_NUMBER, /* out: uint32_t, min..max */
    KITHI_ARG_REAL,   /* out: double, min..max */
    KITHI_ARG_EPOCH,  /* out: uint64_t, 1 and up */
    KITHI_ARG_LATER,  /* known to the contract, not in this version */
};

struct kithi_arg {
    const char *name; /* "--ef", or "-k" */
    enum kithi_arg_kind kind;
    void *out; /* left as it is when the option is not given */
    uint32_t min, max;
};

/*
 * Read argv[1..argc-1]. Positional arguments are moved to the front, argv[1..*out_count]. --run,
 * --json and --help are understood by every command. Returns 0; or a status to exit with, after
 * a message; or -1 when --help was answered and the command is over.
 */
int kithi_args_parse(struct kithi_tool *t, int argc, char **argv, const struct kithi_arg *args, size_t n,
                     int *out_count);

#endif
