/*
 * options.h - the command line of kith-gateway and its configuration file.
 */
#ifndef KITHI_GATEWAY_OPTIONS_H
#define KITHI_GATEWAY_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define KITHI_GATEWAY_PATH_MAX 512u

struct kithi_gateway_options {
    char listen[64], run[KITHI_GATEWAY_PATH_MAX], keys[KITHI_GATEWAY_PATH_MAX];
    char tls_listen[64], tls_cert[KITHI_GATEWAY_PATH_MAX], tls_key[KITHI_GATEWAY_PATH_MAX],
        tls_client_ca[KITHI_GATEWAY_PATH_MAX];
    bool no_keys, access_log;
    int grpc; /* enum kithi_grpc */
    int64_t port, grpc_port, tls_port, threads, write_threads, connections, requests, handshakes;
    int64_t body_mib, bodies_mib, answer_mib, answers_mib;
    int64_t handshake_ms, idle_ms, receive_ms, send_ms, request_ms, admin_ms, drain_ms;
    int64_t top_k_max, ef_max, batch_max, points_max;
};

/* -1: go on; else the exit status: what there was to say is said. */
int kithi_gateway_options(int argc, char **argv, struct kithi_gateway_options *out);

#endif
