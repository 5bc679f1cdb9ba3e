/*
 * kith-gateway.c - HTTP and gRPC for programs that cannot link libkith: puts the parts together, and takes them apart at SIGTERM.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/base/notify.h"
#include "server/gateway/body.h"
#include "server/gateway/handles.h"
#include "server/gateway/lanes.h"
#include "server/gateway/metrics.h"
#include "server/gateway/options.h"
#include "server/gateway/secrets.h"
#include "server/gateway/server.h"

#define FILES_BESIDE 512u /* descriptors for segments, kithd's socket and the like, beside connections */
#define STUCK_MS     2000u

static int failed(const struct kithi_errmsg *err)
{
    kithi_log(KITHI_LOG_ERROR, "start-failed", "status=%s msg=%s", kithi_error_name(err->code), err->text);
    return 1;
}

/* SIGTERM, SIGINT and SIGHUP as a descriptor, in every thread that comes. */
static int signals(struct kithi_errmsg *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        kithi_error_set(err, -errno, "signalfd: %s", strerror(errno));
    }
    return fd;
}

static int raise_files(const struct kithi_gateway_options *o, struct kithi_errmsg *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return 0;
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < (rlim_t)o->connections + FILES_BESIDE) {
        return kithi_error_set(
            err, -EMFILE,
            "connections = %lld takes %lld open files, and the limit is %llu; raise it (ulimit -n) or lower that",
            (long long)o->connections, (long long)o->connections + FILES_BESIDE,
            (unsigned long long)limit.rlim_max);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct kithi_gateway_options o;
    static struct kithi_gateway gateway;
    static struct kithi_metrics metrics;
    struct kithi_errmsg err = { .text = "" };
    struct kithi_lanes *lanes = NULL;
    struct kithi_server *server = NULL;
    int status = kithi_gateway_options(argc, argv, &o);
    if (status >= 0) {
        return status;
    }
    /* Before anything that takes time: a SIGHUP that comes early is kept, and ends nothing. */
    int stop = signals(&err);
    struct kithi_secrets secrets = {
        .keys_path = o.keys[0] ? o.keys : NULL,
        .tls_files = { .certificate = o.tls_cert[0] ? o.tls_cert : NULL,
                       .key = o.tls_key,
                       .client_ca = o.tls_client_ca[0] ? o.tls_client_ca : NULL },
        .alpn = o.grpc == KITHI_GRPC_OFF ? KITHI_ALPN_HTTP1 : KITHI_ALPN_HTTP1 | KITHI_ALPN_H2,
    };
    if (stop < 0 || kithi_secrets_load(&secrets, &err) < 0 || raise_files(&o, &err) < 0) {
        return failed(&err);
    }
    gateway = (struct kithi_gateway){
        .run_dir = o.run[0] ? o.run : NULL,
        .metrics = &metrics,
        .bodies = { 0, (size_t)o.bodies_mib << 20 },
        .answers = { 0, (size_t)o.answers_mib << 20 },
        .answer_max = (size_t)o.answer_mib << 20,
        .top_k_max = (uint32_t)o.top_k_max,
        .ef_max = (uint32_t)o.ef_max,
        .batch_max = (uint32_t)o.batch_max,
        .points_max = (uint32_t)o.points_max,
        .version = KITH_VERSION,
    };
    kithi_body_bound(&gateway.bodies);
    int rc = kithi_handles_open(gateway.run_dir, &gateway.handles);
    const unsigned threads[KITHI_LANE_COUNT] = {
        [KITHI_LANE_SEARCH] = (unsigned)o.threads,
        [KITHI_LANE_WIDE] = o.threads > 3 ? (unsigned)o.threads / 2 : 1,
        [KITHI_LANE_WRITE] = (unsigned)o.write_threads,
        [KITHI_LANE_ADMIN] = 2,
        [KITHI_LANE_WATCH] = 2,
    };
    rc = rc < 0 ? rc : kithi_lanes_open(threads, kithi_server_release, &lanes);
    if (rc < 0) {
        kithi_error_set(&err, rc, "cannot start threads: %s", strerror(-rc));
        return failed(&err);
    }
    metrics.lanes = lanes;
    const struct kithi_server_options options = {
        .listen = o.listen,
        .port = (uint16_t)o.port,
        .grpc_port = (uint16_t)o.grpc_port,
        .grpc = (enum kithi_grpc)o.grpc,
        .connections = (uint32_t)o.connections,
        .requests = (uint32_t)o.requests,
        .tls_listen = o.tls_listen,
        .tls_port = (uint16_t)o.tls_port,
        .handshakes = (uint32_t)o.handshakes,
        .handshake_ms = (uint32_t)o.handshake_ms,
        .body_max = (uint64_t)o.body_mib << 20,
        .idle_ms = (uint32_t)o.idle_ms,
        .receive_ms = (uint32_t)o.receive_ms,
        .send_ms = (uint32_t)o.send_ms,
        .request_ms = (uint32_t)o.request_ms,
        .admin_ms = (uint32_t)o.admin_ms,
        .drain_ms = (uint32_t)o.drain_ms,
        .access_log = o.access_log,
        .secrets = &secrets,
    };
    rc = kithi_server_open(&options, &gateway, lanes, stop, &server, &err);
    if (rc < 0) {
        status = failed(&err);
    } else {
        kithi_log(KITHI_LOG_INFO, "listening", "address=%s port=%u grpc_port=%u keys=%zu", o.listen,
                  kithi_server_port(server), kithi_server_grpc_port(server),
                  secrets.keyring ? kithi_keyring_keys(secrets.keyring)->count : 0);
        if (secrets.tls) {
            kithi_log(KITHI_LOG_INFO, "listening-tls", "address=%s port=%u clients=%s", o.tls_listen,
                      kithi_server_tls_port(server),
                      kithi_tls_knows_clients(secrets.tls) ? "certified" : "any");
        }
        kithi_notify("READY=1\nSTATUS=listening on %s, port %u", o.listen, kithi_server_port(server));
        rc = kithi_server_run(server);
        kithi_notify("STOPPING=1");
        status = rc < 0;
        if (rc < 0) {
            kithi_log(KITHI_LOG_ERROR, "loop-failed", "msg=%s", strerror(-rc));
        }
    }
    kithi_server_close(server);
    if (!kithi_lanes_close(lanes, STUCK_MS)) {
        /* A kithd that hangs keeps them; what they do was given up, and said to be of unknown outcome. */
        kithi_log(KITHI_LOG_WARN, "stopped", "msg=some threads still wait for kithd and were left");
        _exit(status);
    }
    kithi_handles_close(gateway.handles);
    kithi_secrets_fini(&secrets);
    close(stop);
    kithi_log(KITHI_LOG_INFO, "stopped", "status=%d", status);
    return status;
}
