/*
 * kithd.c - the daemon's command line: kithd --data DIR [--run DIR] [--threads N] [--config FILE]
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/conf.h"
#include "server/base/log.h"
#include "server/writer/collection.h"
#include "server/writer/intake.h"
#include "server/writer/start.h"

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
};

static const char usage[] = "usage: kithd --data DIR [--run DIR] [--threads N] [--config FILE]\n"
                            "             [--read-group GROUP] [--write-group GROUP] [--huge-pages yes|no]\n"
                            "             [--counters yes|no]\n"
                            "       kithd --help | --version\n";

static const char help[] =
    "\n"
    "Keeps collections of vectors in shared memory for other processes to search, and makes writes\n"
    "to them durable. Runs in the foreground, logs to stderr, stops cleanly on SIGTERM.\n"
    "\n"
    "  --data DIR           where logs and settings are kept; made (0700) if missing\n"
    "  --run DIR            where segments and the socket are; default $KITH_RUN, /dev/shm/kith, /run/kith\n"
    "  --threads N          worker threads; default: the CPUs that kithd may use\n"
    "  --config FILE        key = value for all of these and more, see kithd(8); options win over it\n"
    "  --read-group GROUP   whose members may read\n"
    "  --write-group GROUP  whose members may write, too\n"
    "  --huge-pages yes|no  ask the kernel for huge pages, which makes searches quicker; default: yes\n"
    "  --counters yes|no    let readers count their searches, for kith top; default: yes\n";

struct options {
    struct kithi_options o;
    char config[KITHI_PATH_MAX];
    char log_level[16];
    bool huge_pages_given, counters_given;
};

static int bad_usage(const char *what, const char *value)
{
    fprintf(stderr, "kithd: %s%s%s\n%s", what, value ? " " : "", value ? value : "", usage);
    return EXIT_USAGE;
}

static bool copy(char *out, size_t size, const char *value)
{
    size_t len = strlen(value);
    if (len == 0 || len >= size) {
        return false;
    }
    memcpy(out, value, len + 1);
    return true;
}

static bool parse_count(const char *text, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || n < 1 || n > max) {
        return false;
    }
    *out = n;
    return true;
}

/* "yes" or "no", of which the latter is remembered. */
static bool parse_yes(const char *text, bool *out_given, bool *out_no)
{
    *out_given = true;
    *out_no = !strcmp(text, "no");
    return *out_no || !strcmp(text, "yes");
}

/* Returns -1 to go on, or the exit status. */
static int parse_options(int argc, char **argv, struct options *out)
{
    enum { DATA = 256, RUN, THREADS, CONFIG, READ_GROUP, WRITE_GROUP, HUGE_PAGES, COUNTERS, HELP, VERSION_ };
    static const struct option list[] = {
        { "data", required_argument, NULL, DATA },
        { "run", required_argument, NULL, RUN },
        { "threads", required_argument, NULL, THREADS },
        { "config", required_argument, NULL, CONFIG },
        { "read-group", required_argument, NULL, READ_GROUP },
        { "write-group", required_argument, NULL, WRITE_GROUP },
        { "huge-pages", required_argument, NULL, HUGE_PAGES },
        { "counters", required_argument, NULL, COUNTERS },
        { "help", no_argument, NULL, HELP },
        { "version", no_argument, NULL, VERSION_ },
        { NULL, 0, NULL, 0 },
    };
    struct kithi_options *o = &out->o;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "+:", list, NULL)) != -1;) {
        bool good = true;
        switch (c) {
        case DATA: good = copy(o->data, sizeof o->data, optarg); break;
        case RUN: good = copy(o->run, sizeof o->run, optarg); break;
        case THREADS: good = parse_count(optarg, KITHI_THREADS_MAX, &o->threads); break;
        case CONFIG: good = copy(out->config, sizeof out->config, optarg); break;
        case READ_GROUP: good = copy(o->read_group, sizeof o->read_group, optarg); break;
        case WRITE_GROUP: good = copy(o->write_group, sizeof o->write_group, optarg); break;
        case HUGE_PAGES: good = parse_yes(optarg, &out->huge_pages_given, &o->small_pages); break;
        case COUNTERS: good = parse_yes(optarg, &out->counters_given, &o->no_counters); break;
        case HELP: printf("%s%s", usage, help); return 0;
        case VERSION_: printf("kithd " KITH_VERSION "\n"); return 0;
        case ':': return bad_usage("a value is missing after", argv[optind - 1]);
        default: return bad_usage("unknown option", argv[optind - 1]);
        }
        if (!good) {
            fprintf(stderr, "kithd: \"%s\" is not a value for %s%s\n%s", optarg, argv[optind - 2],
                    c == THREADS                       ? ", which takes 1 to 256"
                    : c == HUGE_PAGES || c == COUNTERS ? ", which takes yes or no"
                                                       : "",
                    usage);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        return bad_usage("unexpected argument", argv[optind]);
    }
    return -1;
}

/* What the file says where the command line said nothing. */
static int read_config(struct options *out, struct kithi_errmsg *err)
{
    struct kithi_options file = { .recall_share = KITHI_RECALL_SHARE_DEFAULT }, *o = &out->o;
    bool huge_pages = true, counters = true;
    const struct kithi_conf_key keys[] = {
        { "data", KITHI_CONF_STRING, file.data, sizeof file.data, 0, 0, NULL, false },
        { "run", KITHI_CONF_STRING, file.run, sizeof file.run, 0, 0, NULL, false },
        { "threads", KITHI_CONF_INTEGER, &file.threads, 0, 1, KITHI_THREADS_MAX, NULL, false },
        { "read_group", KITHI_CONF_STRING, file.read_group, sizeof file.read_group, 0, 0, NULL, false },
        { "write_group", KITHI_CONF_STRING, file.write_group, sizeof file.write_group, 0, 0, NULL, false },
        { "clients", KITHI_CONF_INTEGER, &file.clients, 0, 1, 1000000, NULL, false },
        { "grace_ms", KITHI_CONF_INTEGER, &file.grace_ms, 0, 1, 3600000, NULL, false },
        { "rest_ms", KITHI_CONF_INTEGER, &file.rest_ms, 0, 1, 3600000, NULL, false },
        { "checkpoint_wal_mib", KITHI_CONF_INTEGER, &file.checkpoint_wal_mib, 0, 1, 1 << 30, NULL, false },
        { "checkpoint_age_s", KITHI_CONF_INTEGER, &file.checkpoint_age_s, 0, 1, INT32_MAX, NULL, false },
        { "checkpoint_mib_s", KITHI_CONF_INTEGER, &file.checkpoint_mib_s, 0, 1, 1 << 20, NULL, false },
        { "lag_ms", KITHI_CONF_INTEGER, &file.lag_ms, 0, 1, 600000, NULL, false },
        { "recall_share", KITHI_CONF_INTEGER, &file.recall_share, 0, 0, KITHI_RECALL_SHARE_MAX, NULL, false },
        { "huge_pages", KITHI_CONF_BOOLEAN, &huge_pages, 0, 0, 0, NULL, false },
        { "counters", KITHI_CONF_BOOLEAN, &counters, 0, 0, 0, NULL, false },
        { "log_level", KITHI_CONF_STRING, out->log_level, sizeof out->log_level, 0, 0, NULL, false },
    };
    enum kithi_log_level level;
    int status = kithi_conf_read(out->config, keys, sizeof keys / sizeof keys[0], err);
    if (status) {
        return status;
    }
    if (out->log_level[0] && kithi_log_level_parse(out->log_level, &level)) {
        return kithi_error_set(err, KITHI_E_FORMAT,
                               "%s: log_level \"%s\" is none of error, warn, info, debug", out->config,
                               out->log_level);
    }
    if (out->log_level[0]) {
        kithi_log_set_level(level);
    }
    if (!o->data[0]) {
        memcpy(o->data, file.data, sizeof o->data);
    }
    if (!o->run[0]) {
        memcpy(o->run, file.run, sizeof o->run);
    }
    if (!o->read_group[0]) {
        memcpy(o->read_group, file.read_group, sizeof o->read_group);
    }
    if (!o->write_group[0]) {
        memcpy(o->write_group, file.write_group, sizeof o->write_group);
    }
    o->threads = o->threads ? o->threads : file.threads;
    o->clients = file.clients;
    o->grace_ms = file.grace_ms;
    o->rest_ms = file.rest_ms;
    o->checkpoint_wal_mib = file.checkpoint_wal_mib;
    o->checkpoint_age_s = file.checkpoint_age_s;
    o->checkpoint_mib_s = file.checkpoint_mib_s;
    o->lag_ms = file.lag_ms;
    o->recall_share = file.recall_share;
    o->no_recall = file.recall_share == 0;
    if (!out->huge_pages_given) {
        o->small_pages = !huge_pages;
    }
    if (!out->counters_given) {
        o->no_counters = !counters;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct options options;
    static struct kithi_daemon daemon;
    struct kithi_errmsg err = { .text = "" };
    int status = parse_options(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    if (options.config[0] && read_config(&options, &err)) {
        fprintf(stderr, "kithd: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (!options.o.data[0]) {
        return bad_usage("--data is missing", NULL);
    }
    status = kithi_daemon_init(&daemon, &options.o, &err);
    if (status) {
        kithi_log(KITHI_LOG_ERROR, "start-failed", "status=%s msg=%s", kithi_error_name(status), err.text);
        return EXIT_FAILED;
    }
    status = kithi_start_begin(&daemon, &err);
    if (!status) {
        status = kithi_intake_open(&daemon, &err);
    }
    if (!status) {
        kithi_log(KITHI_LOG_INFO, "listening", "socket=%s/%s collections=%zu", daemon.run.path,
                  KITHI_SOCKET_NAME, kithi_start_count(&daemon));
        status = kithi_start_go(&daemon, &err);
    }
    int exit_status = 0;
    if (!status) {
        exit_status = kithi_daemon_run(&daemon);
        err = daemon.start_err;
        status = err.code;
    }
    if (status) {
        kithi_log(KITHI_LOG_ERROR, "start-failed", "status=%s msg=%s", kithi_error_name(status), err.text);
        exit_status = EXIT_FAILED;
    }
    kithi_daemon_fini(&daemon);
    return exit_status;
}
