/*
 * kith.c - the command line: finds the command, owns the global options and how a command ends.
 * Each command is in its own cmd_*.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shm/base/assert.h"
#include "shm/postings/declared.h"
#include "tools/out.h"
#include "tools/ready.h"
#include "tools/tool.h"

struct command {
    const char *name;
    kithi_command_fn *run;
    const char *usage;
    const char *what;
};

/* Spelling is a contract: scripts are written against it. */
static const struct command COMMANDS[] = {
    { "create", kithi_cmd_create,
      "NAME --dim D --metric l2|cosine|ip [--m 16] [--ef-construction 200]\n"
      "              [--quantization none|f16|sq8|bits|auto] [--keep f32|f16|none]\n"
      "              [--max-vectors N [--fixed]] [--index auto|none|FIELD:TYPE,...]",
      "make a new collection" },
    { "drop", kithi_cmd_drop, "NAME", "remove a collection and its log for good" },
    { "list", kithi_cmd_list, "", "name all collections" },
    { "stats", kithi_cmd_stats, "NAME | --ready [NAME] | --alive",
      "counts, memory and state of a collection; is kithd's start over; does it answer" },
    { "count", kithi_cmd_count, "NAME [--filter EXPR] [--at EPOCH]", "number of vectors" },
    { "load", kithi_cmd_load, "NAME FILE [--ids FILE] [--payload FILE] [--durability durable|applied|none]",
      "add the vectors of an .fvecs, .bvecs, .npy or .jsonl file" },
    { "put", kithi_cmd_put, "NAME ID --vector '[...]' [--payload JSON] [--durability durable|applied|none]",
      "add or replace one vector" },
    { "get", kithi_cmd_get, "NAME ID [--payload | --fields LIST] [--at EPOCH]", "print one vector" },
    { "payload", kithi_cmd_payload,
      "NAME ID [--set JSON | --merge JSON | --remove LIST]\n"
      "               [--fields LIST] [--at EPOCH] [--durability durable|applied|none]",
      "print or change what belongs to an id beside its vector" },
    { "delete", kithi_cmd_delete, "NAME (ID... | --filter EXPR) [--durability durable|applied|none]",
      "delete vectors" },
    { "export", kithi_cmd_export, "NAME FILE [--at EPOCH]",
      "write all vectors to an .fvecs, .npy or .jsonl file" },
    { "scroll", kithi_cmd_scroll,
      "NAME [--limit N] [--cursor C] [--filter EXPR] [--vectors]\n"
      "              [--payload | --fields LIST] [--at EPOCH]",
      "ids in an order that stays, and where to go on" },
    { "search", kithi_cmd_search,
      "NAME (--vector '[...]' | --like ID | --queries FILE) [-k 10] [--ef N]\n"
      "              [--recall R] [--exact] [--filter EXPR [--strict]]\n"
      "              [--payload | --fields LIST] [--at EPOCH]",
      "nearest neighbours" },
    { "explain", kithi_cmd_explain, "NAME --filter EXPR [-k 10] [--ef N]",
      "how many fulfil a filter, and how a search under it would go" },
    { "facet", kithi_cmd_facet, "NAME FIELD [--filter EXPR] [--limit 100] [--at EPOCH]",
      "values of a field and how many vectors have each" },
    { "bench", kithi_cmd_bench,
      "NAME --queries FILE --truth FILE.ivecs [--ids FILE] [-k 10] [--ef LIST]\n"
      "             [--recall LIST] [--threads N] [--seconds S]",
      "recall, searches a second and latency" },
    { "inspect", kithi_cmd_inspect, "NAME", "header, regions, memory and shape of the graph" },
    { "verify", kithi_cmd_verify, "NAME [--reach]",
      "check every structural rule of the segment, or that all is reached" },
    { "checkpoint", kithi_cmd_checkpoint, "NAME [--to FILE [--force]]",
      "write a checkpoint, which a cold start begins with, or a back-up" },
    { "restore", kithi_cmd_restore, "NAME FILE", "make a collection of a back-up" },
    { "optimize", kithi_cmd_optimize, "NAME",
      "build the segment anew: neighbours beside each other, no empty space" },
    { "alter", kithi_cmd_alter,
      "NAME [--quantization none|f16|sq8|bits|auto] [--keep f32|f16|none] [--m M]\n"
      "             [--ef-construction N] [--max-vectors N] [--index auto|none|FIELD:TYPE,...]",
      "lay a collection out in another way" },
    { "wal", kithi_cmd_wal,
      "NAME [--data DIR] [--groups] [--records] [--from EPOCH] [--to EPOCH]\n"
      "           NAME [--data DIR] --salvage [--yes]",
      "files, groups, records and checksums of the log; what is readable of a damaged one" },
    { "top", kithi_cmd_top, "[NAME...] [--interval SECONDS] [--count N]",
      "live view of collections, writing, readers, repair and checkpoints" },
    { "doctor", kithi_cmd_doctor, "[--data DIR] [--quiet]", "check what kithd needs of this machine" },
};

static void print_prefix(const struct kithi_tool *t)
{
    if (t->command == NULL)
        fprintf(stderr, "kith: ");
    else
        fprintf(stderr, "kith %s: ", t->command);
}

/* What the caller, a file or the daemon put into a message does not steer the terminal. */
static void KITHI_PRINTF(1, 0) print_message(const char *fmt, va_list ap)
{
    char *text = NULL;
    KITHI_ASSERT(vasprintf(&text, fmt, ap) >= 0);
    kithi_out_plain(stderr, text);
    free(text);
}

int kithi_tool_fail(const struct kithi_tool *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    print_prefix(t);
    print_message(fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return KITHI_TOOL_FAILED;
}

/* Is name in text as a word of its own? */
static bool mentions(const char *text, const char *name)
{
    static const char WORD[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *p = text;
    while ((p = strstr(p, name)) != NULL) {
        char after = p[strlen(name)];
        bool begins = p == text || strchr(WORD, p[-1]) == NULL;
        if (begins && (after == '\0' || strchr(WORD, after) == NULL))
            return true;
        p++;
    }
    return false;
}

int kithi_tool_fail_with(const struct kithi_tool *t, const char *name, int code, const char *text)
{
    if (*text == '\0')
        text = kith_strerror(code);
    if (mentions(text, name))
        return kithi_tool_fail(t, "%s", text);
    return kithi_tool_fail(t, "\"%s\": %s", name, text);
}

void kithi_tool_committed(const struct kithi_tool *t, const char *before, const char *id, const char *after,
                          const struct kith_commit *commit)
{
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "id", NULL, id);
        kithi_object_count(&o, "epoch", NULL, commit->epoch);
        if (commit->lag_ms) /* it asked for less than durable */
            kithi_object_count(&o, "durable_epoch", NULL, commit->durable_epoch);
        kithi_object_end(&o);
        return;
    }
    fputs(before, stdout);
    kithi_out_plain(stdout, id);
    printf("%s, epoch %" PRIu64 "\n", after, commit->epoch);
}

/* The lines of what the library says of a filter, one of them a caret under another. */
static void print_lines(const struct kithi_tool *t, const char *text)
{
    char line[sizeof((struct kith_error *)0)->text];
    fflush(stdout);
    print_prefix(t);
    for (;;) {
        size_t len = strcspn(text, "\n");
        memcpy(line, text, len);
        line[len] = '\0';
        kithi_out_plain(stderr, line);
        fputc('\n', stderr);
        if (text[len] == '\0')
            return;
        text += len + 1;
    }
}

int kithi_tool_filter(const struct kithi_tool *t, const char *text)
{
    struct kith_error error;
    kith_filter *f = NULL;
    if (text == NULL)
        return KITHI_TOOL_OK;
    int rc = kith_filter_parse(text, &f, &error);
    kith_filter_free(f);
    if (rc == 0)
        return KITHI_TOOL_OK;
    print_lines(t, error.text);
    return rc == KITH_E_FILTER ? KITHI_TOOL_USAGE : KITHI_TOOL_FAILED;
}

int kithi_tool_index(const struct kithi_tool *t, const char *text)
{
    struct kithi_declared ignored;
    struct kithi_errmsg err;
    if (text == NULL || kithi_declared_read(text, &ignored, &err) == 0)
        return KITHI_TOOL_OK;
    return kithi_tool_usage(t, "--%s", err.text);
}

int kithi_tool_fail_filter(const struct kithi_tool *t, const char *name, int rc,
                           const struct kith_error *error)
{
    if (rc != KITH_E_FILTER || error->code != rc)
        return kithi_tool_fail_with(t, name, rc, "");
    print_lines(t, error->text);
    return KITHI_TOOL_FAILED;
}

int kithi_tool_usage(const struct kithi_tool *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_prefix(t);
    print_message(fmt, ap);
    if (t->command != NULL)
        fprintf(stderr, "\nusage: kith [--run DIR] [--json] %s %s\n", t->command, t->usage);
    else
        fprintf(stderr, "\nkith --help lists the commands\n");
    va_end(ap);
    return KITHI_TOOL_USAGE;
}

int kithi_tool_later(const struct kithi_tool *t, const char *what)
{
    print_prefix(t);
    fprintf(stderr, "%s is not in this version (%s)\n", what, kith_version());
    return KITHI_TOOL_USAGE;
}

uint32_t kithi_tool_metric(const char *name)
{
    for (uint32_t m = KITH_METRIC_L2; m <= KITH_METRIC_IP; m++)
        if (strcmp(name, kithi_metric_name(m)) == 0)
            return m;
    return 0;
}

bool kithi_tool_quantization(const char *name, uint32_t *out)
{
    for (*out = KITH_QUANTIZATION_NONE; *out <= KITH_QUANTIZATION_AUTO; ++*out)
        if (strcmp(name, kithi_quantization_name(*out)) == 0)
            return true;
    return false;
}

bool kithi_tool_keep(const char *name, uint32_t *out)
{
    for (*out = KITH_KEEP_F32; *out <= KITH_KEEP_NONE; ++*out)
        if (strcmp(name, kithi_keep_name(*out)) == 0)
            return true;
    return false;
}

const char *kithi_tool_plan(uint32_t plan)
{
    static const char *const names[] = { [KITH_PLAN_NONE] = "none",
                                         [KITH_PLAN_WALK] = "walk",
                                         [KITH_PLAN_SCAN] = "scan",
                                         [KITH_PLAN_WALK_SCAN] = "walk-scan",
                                         [KITH_PLAN_HOPS] = "hops" };
    return plan < sizeof names / sizeof *names ? names[plan] : "unknown";
}

const char *kithi_tool_plan_reason(uint32_t reason)
{
    static const char *const names[] = {
        [KITH_PLAN_GIVEN] = "given", [KITH_PLAN_MANY] = "many", [KITH_PLAN_FEW] = "few",
        [KITH_PLAN_SHORT] = "short", [KITH_PLAN_SOME] = "some", [KITH_PLAN_KNOWN] = "known"
    };
    return reason < sizeof names / sizeof *names ? names[reason] : "unknown";
}

const char *kithi_tool_basis(uint32_t basis)
{
    static const char *const names[] = { "given", "curve", "beyond", "blind", "limit" };
    return basis < sizeof names / sizeof *names ? names[basis] : "unknown";
}

int kithi_tool_durability(const struct kithi_tool *t, const char *name, kith *index)
{
    static const char *const names[] = { "durable", "applied", "none" };
    for (unsigned i = 0; name != NULL && i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            kith_set_durability(index, (enum kith_durability)i);
            return KITHI_TOOL_OK;
        }
    }
    return name == NULL ? KITHI_TOOL_OK
                        : kithi_tool_usage(t, "--durability is durable, applied or none, not \"%s\"", name);
}

struct kith_snapshot kithi_tool_snapshot(kith *index, uint64_t epoch)
{
    return (struct kith_snapshot){ .epoch = epoch, .timeline = epoch ? kith_timeline(index) : 0 };
}

const char *kithi_tool_decoded(uint32_t quantization, uint32_t keep)
{
    static const char *const NAMES[KITHI_CODEC_COUNT] = { NULL, "f16", "sq8" };
    const struct kithi_geometry g = { .quantization = quantization, .keep = keep };
    return NAMES[kithi_geometry_kept(&g)];
}

void kithi_tool_tell_decoded(const struct kithi_tool *t, const char *codec)
{
    if (codec == NULL || t->json)
        return;
    print_prefix(t);
    fprintf(stderr, "values are decoded from %s codes; those that were put are not kept\n", codec);
}

int kithi_tool_open(const struct kithi_tool *t, const char *name, kith **out)
{
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = t->run_dir;
    opts.error = &error;
    opts.counters = t->searches ? KITH_COUNTERS_AUTO : KITH_COUNTERS_OFF;
    int rc = kith_open(name, &opts, out);
    if (rc == 0)
        return KITHI_TOOL_OK;
    /* There is no segment yet when kithd has just been started. */
    char *json = NULL;
    if (rc == KITH_E_NO_COLLECTION && strchr(name, '/') == NULL &&
        kith_readiness(name, t->run_dir, &json, NULL) > 0) {
        struct kithi_ready_state s;
        const char *at = json;
        char text[80];
        rc = kithi_ready_next(&at, &s) && s.reason[0] != '\0'
                 ? kithi_tool_fail(t, "kithd does not serve %s: %s", name, s.reason)
             : s.name[0] != '\0'
                 ? kithi_tool_fail(t, "kithd is still bringing %s back (%s); wait for kith stats %s --ready",
                                   name, kithi_ready_text(&s, text, sizeof text), name)
                 : kithi_tool_fail(t, "kithd is still bringing %s back", name);
        free(json);
        return rc;
    }
    return kithi_tool_fail_with(t, name, rc, error.text);
}

const char *kithi_tool_run_dir(const struct kithi_tool *t, const char **out_rule)
{
    const char *unasked;
    out_rule = out_rule ? out_rule : &unasked;
    *out_rule = "from --run";
    if (t->run_dir != NULL)
        return t->run_dir;
    const char *env = secure_getenv("KITH_RUN");
    *out_rule = "from KITH_RUN";
    if (env != NULL && *env != '\0')
        return env;
    struct stat st;
    *out_rule = "the default";
    if (lstat("/dev/shm/kith", &st) == 0 || lstat("/run/kith", &st) < 0)
        return "/dev/shm/kith";
    *out_rule = "the default where there is no /dev/shm/kith";
    return "/run/kith";
}

int kithi_tool_attach(const struct kithi_tool *t, const char *name, struct kithi_map *out)
{
    kith *index = NULL;
    char *path = NULL;
    struct kithi_errmsg err = { 0 };
    int rc = kithi_tool_open(t, name, &index); /* so that every command refuses in the same words */
    if (rc != KITHI_TOOL_OK)
        return rc;
    kith_close(index);
    if (strchr(name, '/') != NULL) {
        rc = kithi_map_attach_path(name, false, out, &err);
    } else if (asprintf(&path, "%s/%s/segment", kithi_tool_run_dir(t, NULL), name) < 0) {
        path = NULL;
        rc = -ENOMEM;
    } else {
        rc = kithi_map_attach_path(path, false, out, &err);
    }
    free(path);
    if (rc == 0)
        return KITHI_TOOL_OK;
    return kithi_tool_fail_with(t, name, rc, err.text);
}

int kithi_tool_end(const struct kithi_tool *t, int status)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return kithi_tool_fail(t, "the result could not be written to the standard output: %s",
                               strerror(errno));
    return status;
}

static void print_help(void)
{
    printf("kith - nearest-neighbour search in shared memory\n"
           "\n"
           "usage: kith [--run DIR] [--json] COMMAND\n"
           "\n"
           "  --run DIR   run directory of kithd (default: $KITH_RUN, /dev/shm/kith, /run/kith)\n"
           "  --json      machine-readable output; the manual page kith(1) lists the keys\n"
           "  --version   print the version\n"
           "  --help      this text; kith COMMAND --help: arguments of a command\n"
           "\n");
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        printf("  %-8s  %s\n", COMMANDS[i].name, COMMANDS[i].what);
    printf("\nExit status: 0 success, 1 the operation failed, 2 bad usage or not in this version.\n");
}

int main(int argc, char **argv)
{
    struct kithi_tool t = { 0 };
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strncmp(argv[i], "--run", 5) == 0 && t.run_dir != NULL)
            return kithi_tool_usage(&t, "--run is given twice");
        if (strcmp(argv[i], "--json") == 0) {
            t.json = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            print_help();
            return kithi_tool_end(&t, KITHI_TOOL_OK);
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("kith %s\n", kith_version());
            return kithi_tool_end(&t, KITHI_TOOL_OK);
        } else if (strncmp(argv[i], "--run=", 6) == 0 && argv[i][6] != '\0') {
            t.run_dir = argv[i] + 6;
        } else if (strcmp(argv[i], "--run") == 0) {
            if (i + 1 == argc || argv[i + 1][0] == '\0')
                return kithi_tool_usage(&t, "--run needs a directory");
            t.run_dir = argv[++i];
        } else {
            return kithi_tool_usage(&t, "there is no option %s", argv[i]);
        }
    }
    if (i == argc)
        return kithi_tool_usage(&t, "which command?");

    for (size_t c = 0; c < sizeof COMMANDS / sizeof *COMMANDS; c++) {
        const struct command *command = &COMMANDS[c];
        if (strcmp(argv[i], command->name) != 0)
            continue;
        t.command = command->name;
        t.usage = command->usage;
        int status = command->run(&t, argc - i, argv + i);
        return kithi_tool_end(&t, status < 0 ? KITHI_TOOL_OK : status);
    }
    return kithi_tool_usage(&t, "there is no command %s", argv[i]);
}
