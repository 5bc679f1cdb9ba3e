/*
 * server_priv.h - what the two halves of the server share: connections as such, and HTTP/1 (server.c); gRPC (server_grpc.c).
 */
#ifndef KITHI_GATEWAY_SERVER_PRIV_H
#define KITHI_GATEWAY_SERVER_PRIV_H

#include <netinet/in.h>
#include <sys/types.h>
#include <time.h>

#include "server/gateway/grpc/h2.h"
#include "server/gateway/lanes.h"
#include "server/gateway/server.h"
#include "server/gateway/stream.h"

/* In the log and metrics, of a request whose client went away, or was left at the end of a stop, before it was answered. Never sent. */
#define STATUS_GONE 499

/* What a connection of a port may speak. */
enum front { FRONT_HTTP, FRONT_GRPC, FRONT_BOTH };

enum state { SHAKING, IDLE, READING, RUNNING, SENDING, LINGERING, CALLING };

struct conn {
    struct kithi_stream stream;
    enum state state;
    bool loopback;                            /* its listener's */
    char certificate[KITHI_TLS_NAME_MAX + 1]; /* the common name of the client's; "": none */
    struct conn *previous, *next;             /* list of all, the latest use last */
    char peer[INET6_ADDRSTRLEN + 8];
    uint64_t deadline_ns;
    uint32_t interest; /* epoll events that are asked for */
    bool half_closed;  /* the peer sends nothing more */

    char *in; /* IN_SIZE bytes, or NULL: nothing is kept */
    size_t in_len, scanned;
    bool head_done; /* request holds it, in holds what came behind */
    bool keep_alive, head_only, old;
    bool chunked, body_over;
    uint64_t body_left; /* with a length */
    struct kithi_http_chunks chunks;
    char path[128]; /* for the log */

    struct kithi_request *request;
    struct kithi_job *job; /* while RUNNING */
    struct kithi_text out; /* the head of the answer, or all of a refusal */
    size_t sent;           /* of both */
    int status;
    uint64_t received;

    /* HTTP/2, from its preface on (server_grpc.c): */
    enum front front;
    struct kithi_h2 *h2; /* NULL: it speaks HTTP/1 */
    struct kithi_server *server;
    bool touched; /* it may have something to send, and is in the list of such */
    struct conn *next_touched;
    uint64_t blocked_ns; /* since when it takes no bytes; 0: it does */
    uint64_t noticed_ns; /* when it was told that it ends; 0: it was not */
    bool told;           /* and for good */
};

/* Where connections come from. */
struct listener {
    int fd; /* -1: none */
    bool tls, loopback;
    uint16_t port;
    enum front front; /* over TLS: FRONT_HTTP, until ALPN says gRPC */
};
enum { LISTENER_HTTP, LISTENER_GRPC, LISTENER_TLS, LISTENERS };

struct kithi_server {
    struct kithi_server_options options;
    struct kithi_gateway *gateway;
    struct kithi_lanes *lanes;
    struct kithi_secrets *secrets;
    int epoll, signals;
    struct listener listeners[LISTENERS];
    struct conn *first, *last;
    uint32_t count;                     /* connections */
    uint32_t shaking;                   /* of them, in handshakes */
    uint32_t shaken;                    /* steps of handshakes in this turn */
    uint64_t failures_second, failures; /* lines about handshakes in that second, or left out */
    uint32_t running;                   /* requests */
    uint32_t calls;                     /* of gRPC that are open, with a message or without */
    struct conn *touched;
    bool pipelined;    /* some connection has bytes that no socket tells of */
    uint64_t drain_ns; /* 0: it serves; else when it gives up what is under way */
    uint64_t id_seed, id_count;
    time_t date_of;
    char date[40];
};

/* Another state, which ends so many milliseconds from now. */
void kithi_peer_enter(struct kithi_server *s, struct conn *c, enum state state, uint64_t ms);
/* Ask for these events of epoll. */
void kithi_peer_watch(struct kithi_server *s, struct conn *c, uint32_t interest);
void kithi_peer_close(struct kithi_server *s, struct conn *c);

/* The bytes of a connection: how many, 0: the peer sends no more, -EAGAIN, or -errno: it is lost. */
ssize_t kithi_peer_receive(struct conn *c, void *to, size_t size);
ssize_t kithi_peer_send(struct conn *c, const void *bytes, size_t len);

struct kithi_request *kithi_server_request(struct kithi_server *s);
void kithi_server_request_free(struct kithi_request *r);
/* The client's own id of a request, if it is one that may be logged. */
void kithi_server_request_id(struct kithi_request *r, struct kithi_part given);
/* Is the sender of this head one whom the route of the request is for? Whether its key is for the collection is another question. False:
 * refused. */
bool kithi_server_known(struct kithi_server *s, const struct conn *c, struct kithi_request *r,
                        const struct kithi_http_head *head);
/* Hand a request to its lane. False: refused, and the job is the caller's again. */
bool kithi_server_submit(struct kithi_server *s, struct kithi_job *job);
/* Refuse for what kithi_lanes_drop() has said of a request that was not carried out in time. */
void kithi_server_refuse_dropped(struct kithi_request *owed, enum kithi_drop drop);

/* ---- gRPC ---------------------------------------------------------------------------- */

/* The connection speaks HTTP/2: what has come of it is in c->in. It may be closed when this returns. */
void kithi_grpc_begin(struct kithi_server *s, struct conn *c);
void kithi_grpc_handle(struct kithi_server *s, struct conn *c, uint32_t events);
/* Read what TLS has already taken from the socket, if it has. */
void kithi_grpc_more(struct kithi_server *s, struct conn *c);
/* A job whose owner is a call. */
void kithi_grpc_ended(struct kithi_server *s, struct kithi_job *job);
/* What has its time has it; the connection may be closed. */
void kithi_grpc_look(struct kithi_server *s, struct conn *c, uint64_t now_ns);
/* It ends: tell the client, and those who watch. */
void kithi_grpc_drain(struct kithi_server *s, struct conn *c);
/* Send what connections have to send; some may be closed. */
void kithi_grpc_flush(struct kithi_server *s);
/* Of a connection that is being closed. */
void kithi_grpc_free(struct kithi_server *s, struct conn *c);

#endif
