/*
 * server.h - connections: one thread that accepts, reads, checks, hands requests to the lanes, and sends answers.
 *
 * That thread never waits for anything but its sockets, so that nothing which takes long keeps it from others. Each state of a connection
 * has a time by which it ends:
 *
 *   (TLS: SHAKING, handshake_ms, then IDLE or closed)
 *
 *   IDLE --first byte--> READING --whole--> RUNNING --answer--> SENDING --> IDLE
 *    | idle_ms             | receive_ms       | its lane's        | send_ms  \--the last one--> LINGERING (2 s) --> closed
 *    v closed              v 408              v 503, 504          v closed
 *
 * LINGERING: the answer is sent, the client may still be sending a body that nobody reads; closing at once would have the kernel throw
 * away the answer with it.
 */
#ifndef KITHI_GATEWAY_SERVER_H
#define KITHI_GATEWAY_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "server/gateway/request.h"
#include "server/gateway/secrets.h"
#include "shm/base/error.h"

enum kithi_grpc {
    KITHI_GRPC_OWN,
    KITHI_GRPC_SAME,
    KITHI_GRPC_OFF
}; /* a port of its own, that of HTTP, none */

struct kithi_server_options {
    const char *listen; /* an address */
    uint16_t port;      /* 0: any that is free */
    uint16_t grpc_port; /* the same, with KITHI_GRPC_OWN */
    enum kithi_grpc grpc;
    const char *tls_listen; /* as listen, for TLS, where there is a certificate */
    uint16_t tls_port;
    uint32_t connections; /* at a time */
    uint32_t requests;    /* whole ones that are being carried out at a time */
    uint32_t handshakes;  /* of TLS at a time */
    uint64_t body_max;    /* bytes */
    uint32_t handshake_ms;
    uint32_t idle_ms, receive_ms, send_ms;
    uint32_t request_ms; /* of a request, from when it is whole */
    uint32_t admin_ms;   /* the same in the lane for those that take minutes */
    uint32_t drain_ms;   /* for what is under way when it stops */
    bool access_log;
    struct kithi_secrets *secrets; /* loaded; read again at SIGHUP */
};

struct kithi_server;
struct kithi_lanes;

/* Listen. signals: a signalfd(2), which does not wait: SIGHUP has secrets read again, all others stop it. 0, or -errno with err. */
int kithi_server_open(const struct kithi_server_options *options, struct kithi_gateway *gateway,
                      struct kithi_lanes *lanes, int signals, struct kithi_server **out,
                      struct kithi_errmsg *err);
/* The ports that it listens on; that for gRPC and that of TLS, 0: none. */
uint16_t kithi_server_port(const struct kithi_server *s);
uint16_t kithi_server_grpc_port(const struct kithi_server *s);
uint16_t kithi_server_tls_port(const struct kithi_server *s);
/* Serve until told to stop, and what is under way then to its end. 0 or -errno. */
int kithi_server_run(struct kithi_server *s);
void kithi_server_close(struct kithi_server *s);

struct kithi_job;
/* For kithi_lanes_open(). */
void kithi_server_release(struct kithi_job *job);

/* Is it an address of the loopback interface? */
bool kithi_server_is_loopback(const char *address);

#endif
