/*
 * options.c - see options.h.
 */
#include "server/gateway/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/conf.h"
#include "server/base/log.h"
#include "server/gateway/server.h"

static const char usage[] =
    "usage: kith-gateway [--run DIR] [--listen ADDRESS] [--port N] [--grpc-port N|same|off]\n"
    "                    [--keys FILE | --no-keys]\n"
    "                    [--tls-cert FILE --tls-key FILE [--tls-client-ca FILE] [--tls-port N] [--tls-listen ADDRESS]]\n"
    "                    [--threads N] [--access-log yes|no] [--config FILE]\n"
    "       kith-gateway --help | --version\n";

static const char help[] =
    "\n"
    "Serves the collections of this machine over HTTP and gRPC: searches them itself, forwards writes to kithd. Runs in\n"
    "the foreground, logs to stderr, stops cleanly on SIGTERM.\n"
    "\n"
    "  --run DIR            where segments and kithd's socket are; default $KITH_RUN, /dev/shm/kith, /run/kith\n"
    "  --listen ADDRESS     default 127.0.0.1; others want keys\n"
    "  --port N             default 8080; 0: one that is free, which the log names\n"
    "  --grpc-port N        default 9090; 0: one that is free; same: that of HTTP; off: no gRPC\n"
    "  --keys FILE          API keys: name, read or write, collections or *, and the key, a line each\n"
    "  --no-keys            everybody who reaches the port may do everything, on any address\n"
    "  --tls-cert FILE      PEM: serve TLS with this certificate (and those that it hangs on), too\n"
    "  --tls-key FILE       PEM: its private key, without a passphrase; others must not be able to read it\n"
    "  --tls-client-ca FILE PEM: clients of TLS need a certificate of one of these\n"
    "  --tls-port N         default 8443; 0: one that is free\n"
    "  --tls-listen ADDRESS default: that of --listen\n"
    "  --threads N          searching threads; default: the CPUs that there are\n"
    "  --access-log yes|no  a line for each request; default yes\n"
    "  --config FILE        key = value for all of these and more, see kith-gateway(8); options win over it\n";

static int bad_usage(const char *what, const char *value)
{
    fprintf(stderr, "kith-gateway: %s%s%s\n%s", what, value ? " " : "", value ? value : "", usage);
    return 2;
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

static bool number(const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || n < min || n > max) {
        return false;
    }
    *out = n;
    return true;
}

/* N, same or off. */
static bool grpc_port(const char *text, struct kithi_gateway_options *out)
{
    out->grpc = !strcmp(text, "same")  ? KITHI_GRPC_SAME
                : !strcmp(text, "off") ? KITHI_GRPC_OFF
                                       : KITHI_GRPC_OWN;
    return out->grpc != KITHI_GRPC_OWN || number(text, 0, 65535, &out->grpc_port);
}

static bool yes_or_no(const char *text, bool *out)
{
    *out = !strcmp(text, "yes");
    return *out || !strcmp(text, "no");
}

/* Values of the file go straight to out, and the command line is read after it. */
static int read_config(const char *path, struct kithi_gateway_options *out)
{
    struct kithi_errmsg err = { .text = "" };
    enum kithi_log_level level;
    char log_level[16] = "", grpc[8] = "";
    const struct kithi_conf_key keys[] = {
        { "run", KITHI_CONF_STRING, out->run, sizeof out->run, 0, 0, NULL, false },
        { "listen", KITHI_CONF_STRING, out->listen, sizeof out->listen, 0, 0, NULL, false },
        { "port", KITHI_CONF_INTEGER, &out->port, 0, 0, 65535, NULL, false },
        { "grpc", KITHI_CONF_STRING, grpc, sizeof grpc, 0, 0, NULL, false },
        { "grpc_port", KITHI_CONF_INTEGER, &out->grpc_port, 0, 0, 65535, NULL, false },
        { "tls_listen", KITHI_CONF_STRING, out->tls_listen, sizeof out->tls_listen, 0, 0, NULL, false },
        { "tls_port", KITHI_CONF_INTEGER, &out->tls_port, 0, 0, 65535, NULL, false },
        { "tls_cert", KITHI_CONF_STRING, out->tls_cert, sizeof out->tls_cert, 0, 0, NULL, false },
        { "tls_key", KITHI_CONF_STRING, out->tls_key, sizeof out->tls_key, 0, 0, NULL, false },
        { "tls_client_ca", KITHI_CONF_STRING, out->tls_client_ca, sizeof out->tls_client_ca, 0, 0, NULL,
          false },
        { "handshakes", KITHI_CONF_INTEGER, &out->handshakes, 0, 1, 100000, NULL, false },
        { "handshake_ms", KITHI_CONF_INTEGER, &out->handshake_ms, 0, 1, 3600000, NULL, false },
        { "keys", KITHI_CONF_STRING, out->keys, sizeof out->keys, 0, 0, NULL, false },
        { "no_keys", KITHI_CONF_BOOLEAN, &out->no_keys, 0, 0, 0, NULL, false },
        { "access_log", KITHI_CONF_BOOLEAN, &out->access_log, 0, 0, 0, NULL, false },
        { "threads", KITHI_CONF_INTEGER, &out->threads, 0, 1, 256, NULL, false },
        { "write_threads", KITHI_CONF_INTEGER, &out->write_threads, 0, 1, 256, NULL, false },
        { "connections", KITHI_CONF_INTEGER, &out->connections, 0, 1, 100000, NULL, false },
        { "requests", KITHI_CONF_INTEGER, &out->requests, 0, 1, 100000, NULL, false },
        { "body_mib", KITHI_CONF_INTEGER, &out->body_mib, 0, 1, 1024, NULL, false },
        { "bodies_mib", KITHI_CONF_INTEGER, &out->bodies_mib, 0, 1, 1 << 20, NULL, false },
        { "answer_mib", KITHI_CONF_INTEGER, &out->answer_mib, 0, 1, 1024, NULL, false },
        { "answers_mib", KITHI_CONF_INTEGER, &out->answers_mib, 0, 1, 1 << 20, NULL, false },
        { "idle_ms", KITHI_CONF_INTEGER, &out->idle_ms, 0, 1, 3600000, NULL, false },
        { "receive_ms", KITHI_CONF_INTEGER, &out->receive_ms, 0, 1, 3600000, NULL, false },
        { "send_ms", KITHI_CONF_INTEGER, &out->send_ms, 0, 1, 3600000, NULL, false },
        { "request_ms", KITHI_CONF_INTEGER, &out->request_ms, 0, 1, 3600000, NULL, false },
        { "admin_ms", KITHI_CONF_INTEGER, &out->admin_ms, 0, 1, 86400000, NULL, false },
        { "drain_ms", KITHI_CONF_INTEGER, &out->drain_ms, 0, 1, 3600000, NULL, false },
        { "top_k_max", KITHI_CONF_INTEGER, &out->top_k_max, 0, 1, 65536, NULL, false },
        { "ef_max", KITHI_CONF_INTEGER, &out->ef_max, 0, 1, 1048576, NULL, false },
        { "batch_max", KITHI_CONF_INTEGER, &out->batch_max, 0, 1, 100000, NULL, false },
        { "points_max", KITHI_CONF_INTEGER, &out->points_max, 0, 1, 1000000, NULL, false },
        { "log_level", KITHI_CONF_STRING, log_level, sizeof log_level, 0, 0, NULL, false },
    };
    if (kithi_conf_read(path, keys, sizeof keys / sizeof keys[0], &err)) {
        fprintf(stderr, "kith-gateway: %s\n", err.text);
        return 2;
    }
    if (grpc[0] && strcmp(grpc, "own") != 0) {
        if (strcmp(grpc, "same") != 0 && strcmp(grpc, "off") != 0) {
            fprintf(stderr, "kith-gateway: %s: grpc \"%s\" is none of own, same, off\n", path, grpc);
            return 2;
        }
        grpc_port(grpc, out);
    }
    if (log_level[0]) {
        if (kithi_log_level_parse(log_level, &level)) {
            fprintf(stderr, "kith-gateway: %s: log_level \"%s\" is none of error, warn, info, debug\n", path,
                    log_level);
            return 2;
        }
        kithi_log_set_level(level);
    }
    return -1;
}

enum {
    RUN = 256,
    LISTEN,
    PORT,
    GRPC_PORT,
    TLS_LISTEN,
    TLS_PORT,
    TLS_CERT,
    TLS_KEY,
    TLS_CLIENT_CA,
    KEYS,
    NO_KEYS,
    THREADS,
    ACCESS_LOG,
    CONFIG,
    HELP,
    VERSION_
};

static const struct option list[] = {
    { "run", required_argument, NULL, RUN },
    { "listen", required_argument, NULL, LISTEN },
    { "port", required_argument, NULL, PORT },
    { "grpc-port", required_argument, NULL, GRPC_PORT },
    { "tls-listen", required_argument, NULL, TLS_LISTEN },
    { "tls-port", required_argument, NULL, TLS_PORT },
    { "tls-cert", required_argument, NULL, TLS_CERT },
    { "tls-key", required_argument, NULL, TLS_KEY },
    { "tls-client-ca", required_argument, NULL, TLS_CLIENT_CA },
    { "keys", required_argument, NULL, KEYS },
    { "no-keys", no_argument, NULL, NO_KEYS },
    { "threads", required_argument, NULL, THREADS },
    { "access-log", required_argument, NULL, ACCESS_LOG },
    { "config", required_argument, NULL, CONFIG },
    { "help", no_argument, NULL, HELP },
    { "version", no_argument, NULL, VERSION_ },
    { NULL, 0, NULL, 0 },
};

/* configs: only look for --config; otherwise all but that. */
static int parse(int argc, char **argv, bool configs, struct kithi_gateway_options *out)
{
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "+:", list, NULL)) != -1;) {
        bool good = true;
        switch (c) {
        case CONFIG:
            if (configs) {
                int status = read_config(optarg, out);
                if (status >= 0) {
                    return status;
                }
            }
            continue;
        case HELP: printf("%s%s", usage, help); return 0;
        case VERSION_: printf("kith-gateway " KITH_VERSION "\n"); return 0;
        case ':': return bad_usage("a value is missing after", argv[optind - 1]);
        case '?': return bad_usage("unknown option", argv[optind - 1]);
        default: break;
        }
        if (configs) {
            continue;
        }
        switch (c) {
        case RUN: good = copy(out->run, sizeof out->run, optarg); break;
        case LISTEN: good = copy(out->listen, sizeof out->listen, optarg); break;
        case PORT: good = number(optarg, 0, 65535, &out->port); break;
        case TLS_LISTEN: good = copy(out->tls_listen, sizeof out->tls_listen, optarg); break;
        case TLS_PORT: good = number(optarg, 0, 65535, &out->tls_port); break;
        case TLS_CERT: good = copy(out->tls_cert, sizeof out->tls_cert, optarg); break;
        case TLS_KEY: good = copy(out->tls_key, sizeof out->tls_key, optarg); break;
        case TLS_CLIENT_CA: good = copy(out->tls_client_ca, sizeof out->tls_client_ca, optarg); break;
        case GRPC_PORT: good = grpc_port(optarg, out); break;
        case KEYS: good = copy(out->keys, sizeof out->keys, optarg); break;
        case NO_KEYS: out->no_keys = true; break;
        case THREADS: good = number(optarg, 1, 256, &out->threads); break;
        case ACCESS_LOG: good = yes_or_no(optarg, &out->access_log); break;
        default: break;
        }
        if (!good) {
            fprintf(stderr, "kith-gateway: \"%s\" is not a value for %s\n%s", optarg, argv[optind - 2],
                    usage);
            return 2;
        }
    }
    return optind < argc ? bad_usage("unexpected argument", argv[optind]) : -1;
}

int kithi_gateway_options(int argc, char **argv, struct kithi_gateway_options *out)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    *out = (struct kithi_gateway_options){
        .listen = "127.0.0.1",
        .access_log = true,
        .port = 8080,
        .tls_port = 8443,
        .grpc = KITHI_GRPC_OWN,
        .grpc_port = 9090,
        .threads = cpus < 2     ? 2
                   : cpus > 256 ? 256
                                : cpus,
        .write_threads = 16,
        .connections = 1024,
        .requests = 256,
        .handshakes = 256,
        .body_mib = 64,
        .bodies_mib = 512,
        .answer_mib = 64,
        .answers_mib = 512,
        .handshake_ms = 10000,
        .idle_ms = 60000,
        .receive_ms = 30000,
        .send_ms = 30000,
        .request_ms = 30000,
        .admin_ms = 600000,
        .drain_ms = 10000,
        .top_k_max = 10000,
        .ef_max = 100000,
        .batch_max = 1000,
        .points_max = 10000,
    };
    int status = parse(argc, argv, true, out);
    status = status >= 0 ? status : parse(argc, argv, false, out);
    if (status >= 0) {
        return status;
    }
    if (out->keys[0] && out->no_keys) {
        return bad_usage("there is either --keys or --no-keys", NULL);
    }
    if (!out->tls_cert[0] != !out->tls_key[0]) {
        return bad_usage("--tls-cert and --tls-key (tls_cert, tls_key) go together", NULL);
    }
    if (!out->tls_cert[0] && (out->tls_client_ca[0] || out->tls_listen[0])) {
        return bad_usage(
            "--tls-client-ca and --tls-listen (tls_client_ca, tls_listen) say how TLS is served: give --tls-cert and --tls-key, too",
            NULL);
    }
    if (!out->tls_listen[0]) {
        memcpy(out->tls_listen, out->listen, sizeof out->tls_listen);
    }
    if (out->tls_cert[0] && !out->keys[0] && !out->no_keys && !out->tls_client_ca[0] &&
        !kithi_server_is_loopback(out->tls_listen)) {
        fprintf(
            stderr,
            "kith-gateway: --tls-listen %s lets other machines in: give --keys FILE, --tls-client-ca FILE, or "
            "--no-keys to let everybody do everything\n",
            out->tls_listen);
        return 2;
    }
    if (!out->keys[0] && !out->no_keys && !kithi_server_is_loopback(out->listen)) {
        fprintf(
            stderr,
            "kith-gateway: --listen %s lets other machines in: give --keys FILE, or --no-keys to let everybody do everything\n",
            out->listen);
        return 2;
    }
    if (out->answer_mib > out->answers_mib || out->body_mib > out->bodies_mib) {
        return bad_usage(
            "one answer (answer_mib) or body (body_mib) is larger than all together may be (answers_mib, bodies_mib)",
            NULL);
    }
    return -1;
}
