/*
 * tool.h - what the commands of kith share: the global options, how a command ends, how it
 * comes to a collection.
 *
 * A command prints its result on stdout (JSON with --json) and what went wrong on stderr, and
 * returns the exit status: 0 success, 1 the operation failed, 2 bad usage or not in this version.
 */
#ifndef KITHI_TOOLS_TOOL_H
#define KITHI_TOOLS_TOOL_H

#include <stdbool.h>

#include <kith/kith.h>

#include "shm/map/map.h"

enum { KITHI_TOOL_OK = 0, KITHI_TOOL_FAILED = 1, KITHI_TOOL_USAGE = 2 };

struct kithi_tool {
    const char *command; /* name of the command that runs; NULL before it is known */
    const char *usage;   /* its line of arguments */
    const char *run_dir; /* --run; NULL: let the library choose */
    bool json;
    bool searches; /* the command is a reader like any other: it counts its searches */
};

typedef int kithi_command_fn(struct kithi_tool *t, int argc, char **argv);

/* argv[0] is the command's name. */
kithi_command_fn kithi_cmd_create, kithi_cmd_drop, kithi_cmd_list, kithi_cmd_stats, kithi_cmd_count;
kithi_command_fn kithi_cmd_load, kithi_cmd_export;
kithi_command_fn kithi_cmd_put, kithi_cmd_get, kithi_cmd_delete, kithi_cmd_payload;
kithi_command_fn kithi_cmd_search, kithi_cmd_scroll, kithi_cmd_bench, kithi_cmd_inspect, kithi_cmd_verify;
kithi_command_fn kithi_cmd_explain, kithi_cmd_facet;
kithi_command_fn kithi_cmd_optimize, kithi_cmd_alter;
kithi_command_fn kithi_cmd_checkpoint, kithi_cmd_restore, kithi_cmd_wal, kithi_cmd_top, kithi_cmd_doctor;

/* "kith load: ..." on stderr; returns KITHI_TOOL_FAILED. */
int kithi_tool_fail(const struct kithi_tool *t, const char *fmt, ...) KITHI_PRINTF(2, 3);

/*
 * An operation on name failed with code. text is what the library or the daemon said, or "": then the
 * code's own words are used. Names what it is about, unless the text does.
 */
int kithi_tool_fail_with(const struct kithi_tool *t, const char *name, int code, const char *text);

/* As kithi_tool_fail with the command's usage below; returns KITHI_TOOL_USAGE. */
int kithi_tool_usage(const struct kithi_tool *t, const char *fmt, ...) KITHI_PRINTF(2, 3);

/* Is text (NULL: it was not given) a filter? Returns an exit status; what is none is bad usage, and is shown with its place. */
int kithi_tool_filter(const struct kithi_tool *t, const char *text);
/* The same of an --index. */
int kithi_tool_index(const struct kithi_tool *t, const char *text);

/* A call under a filter failed with rc: because of the filter when error says so, else as kithi_tool_fail_with() puts it. */
int kithi_tool_fail_filter(const struct kithi_tool *t, const char *name, int rc,
                           const struct kith_error *error);

/* That one id was written: before, the id, after and the epoch in words, or an object of id and epochs with --json. */
void kithi_tool_committed(const struct kithi_tool *t, const char *before, const char *id, const char *after,
                          const struct kith_commit *commit);

/* What a later version will do; returns KITHI_TOOL_USAGE. */
int kithi_tool_later(const struct kithi_tool *t, const char *what);

/* "cosine" -> KITH_METRIC_COSINE; 0: no such metric. */
uint32_t kithi_tool_metric(const char *name);

/* Numbers of the format by their names; false: there is no such name. */
bool kithi_tool_quantization(const char *name, uint32_t *out);
bool kithi_tool_keep(const char *name, uint32_t *out);

/* "durable", "applied" or "none" for all that is written through index from now on; NULL: it was not given. Returns an exit status. */
int kithi_tool_durability(const struct kithi_tool *t, const char *name, kith *index);

/* What --at asks for: an epoch of the collection's timeline of now; 0, it was not given: now. */
struct kith_snapshot kithi_tool_snapshot(kith *index, uint64_t epoch);

/* "f16" or "sq8" when vectors come back decoded from such codes; NULL when they come back as they were put. */
const char *kithi_tool_decoded(uint32_t quantization, uint32_t keep);
/* Say so on stderr; with --json, where a key says it, and for NULL nothing. */
void kithi_tool_tell_decoded(const struct kithi_tool *t, const char *codec);

/* "hops", "some", ...: what answers under a filter, and why, as kith(1) lists. */
const char *kithi_tool_plan(uint32_t plan);
const char *kithi_tool_plan_reason(uint32_t reason);

/* "curve", "beyond", ...: what an ef rests on, as kith(1) lists. */
const char *kithi_tool_basis(uint32_t basis);

/* Open a collection by name or path; prints what went wrong. Returns an exit status. */
int kithi_tool_open(const struct kithi_tool *t, const char *name, kith **out);

/* The run directory, by the choice that kith_open() makes, and a phrase that says how it came about (out_rule may be NULL). */
const char *kithi_tool_run_dir(const struct kithi_tool *t, const char **out_rule);

/* Map the segment of a collection, for views that look at the bytes. Returns an exit status. */
int kithi_tool_attach(const struct kithi_tool *t, const char *name, struct kithi_map *out);

/*
 * stdout is a result, too: returns status, or KITHI_TOOL_FAILED with a message when what was
 * printed could not be written (a full disk, a closed pipe).
 */
int kithi_tool_end(const struct kithi_tool *t, int status);

#endif
