/*
 * metrics.c - see metrics.h.
 */
#include "server/gateway/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/gateway/grpc/status.h"
#include "server/gateway/handles.h"
#include "server/gateway/lanes.h"

static const uint64_t bounds_us[KITHI_METRICS_BOUNDS] = { 50,     100,     250,     500,     1000,   2500,
                                                          5000,   10000,   25000,   50000,   100000, 250000,
                                                          500000, 1000000, 5000000, 30000000 };

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void add(_Atomic uint64_t *word, uint64_t n)
{
    atomic_fetch_add_explicit(word, n, memory_order_relaxed);
}

static void answered(struct kithi_metrics_route *r, int status, uint64_t us)
{
    unsigned i = 0, b = 0;
    for (; i < KITHI_METRICS_STATUSES; i++) {
        int there = 0;
        if (atomic_compare_exchange_strong_explicit(&r->statuses[i].status, &there, status,
                                                    memory_order_relaxed, memory_order_relaxed) ||
            there == status) {
            add(&r->statuses[i].count, 1);
            break;
        }
    }
    while (b < KITHI_METRICS_BOUNDS && us > bounds_us[b]) {
        b++;
    }
    add(&r->buckets[b], 1);
    add(&r->sum_us, us);
}

void kithi_metrics_answer(struct kithi_metrics *m, const struct kithi_route *route, int status, uint64_t us)
{
    answered(&m->routes[route ? (unsigned)route->call : KITHI_REST_IDS], status, us);
}

void kithi_metrics_rpc(struct kithi_metrics *m, enum kithi_rpc_id id, int code, uint64_t us)
{
    answered(&m->rpcs[id], code + 1, us);
}

void kithi_metrics_event(struct kithi_metrics *m, enum kithi_metrics_event event)
{
    add(&m->events[event], 1);
}

static void head(struct kithi_text *out, const char *name, const char *type, const char *help)
{
    kithi_text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static const char *route_name(unsigned i)
{
    const struct kithi_route *route = kithi_route_of((enum kithi_rest_id)i);
    return route ? route->name : "none";
}

static const char *method_name(unsigned i)
{
    const struct kithi_route *route = kithi_route_of((enum kithi_rest_id)i);
    return route ? kithi_http_method_name(route->method) : "any";
}

/* Nothing of what was never asked for. */
static void histogram(const struct kithi_metrics_route *r, const char *metric, const char *label,
                      const char *value, struct kithi_text *out)
{
    uint64_t count = 0;
    if (!atomic_load_explicit(&r->statuses[0].status, memory_order_relaxed)) {
        return;
    }
    for (unsigned b = 0; b < KITHI_METRICS_BOUNDS; b++) {
        count += load(&r->buckets[b]);
        kithi_text_printf(out, "%s_bucket{%s=\"%s\",le=\"%g\"} %" PRIu64 "\n", metric, label, value,
                          (double)bounds_us[b] / 1e6, count);
    }
    count += load(&r->buckets[KITHI_METRICS_BOUNDS]);
    kithi_text_printf(out,
                      "%s_bucket{%s=\"%s\",le=\"+Inf\"} %" PRIu64 "\n"
                      "%s_sum{%s=\"%s\"} %.6f\n"
                      "%s_count{%s=\"%s\"} %" PRIu64 "\n",
                      metric, label, value, count, metric, label, value, (double)load(&r->sum_us) / 1e6,
                      metric, label, value, count);
}

static void requests(const struct kithi_metrics *m, struct kithi_text *out)
{
    head(out, "kith_gateway_requests_total", "counter",
         "Requests answered, by route, method and status; 499: those that nobody waited for any more.");
    for (unsigned i = 0; i <= KITHI_REST_IDS; i++) {
        for (unsigned s = 0; s < KITHI_METRICS_STATUSES; s++) {
            int status = atomic_load_explicit(&m->routes[i].statuses[s].status, memory_order_relaxed);
            if (status) {
                kithi_text_printf(
                    out,
                    "kith_gateway_requests_total{route=\"%s\",method=\"%s\",status=\"%d\"} %" PRIu64 "\n",
                    route_name(i), method_name(i), status, load(&m->routes[i].statuses[s].count));
            }
        }
    }
    head(out, "kith_gateway_request_seconds", "histogram",
         "From a whole request to the beginning of its answer, by route.");
    for (unsigned i = 0; i <= KITHI_REST_IDS; i++) {
        histogram(&m->routes[i], "kith_gateway_request_seconds", "route", route_name(i), out);
    }
}

static const char *rpc_name(unsigned i)
{
    const struct kithi_rpc *rpc = kithi_rpc_of((enum kithi_rpc_id)i);
    return rpc ? rpc->name : "none";
}

static void rpcs(const struct kithi_metrics *m, struct kithi_text *out)
{
    head(
        out, "kith_gateway_grpc_calls_total", "counter",
        "Calls of gRPC that have ended, by method and code; CANCELLED: those that nobody waited for any more, too.");
    for (unsigned i = 0; i <= KITHI_RPC_IDS; i++) {
        for (unsigned s = 0; s < KITHI_METRICS_STATUSES; s++) {
            int status = atomic_load_explicit(&m->rpcs[i].statuses[s].status, memory_order_relaxed);
            if (status) {
                kithi_text_printf(out,
                                  "kith_gateway_grpc_calls_total{method=\"%s\",code=\"%s\"} %" PRIu64 "\n",
                                  rpc_name(i), kithi_grpc_code_name((unsigned)status - 1),
                                  load(&m->rpcs[i].statuses[s].count));
            }
        }
    }
    head(out, "kith_gateway_grpc_call_seconds", "histogram",
         "From a whole message, or the beginning of a stream, to the last word, by method.");
    for (unsigned i = 0; i <= KITHI_RPC_IDS; i++) {
        histogram(&m->rpcs[i], "kith_gateway_grpc_call_seconds", "method", rpc_name(i), out);
    }
}

/* By the names that Prometheus' own libraries give them. */
static void process(struct kithi_text *out)
{
    struct rusage usage = { 0 };
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    getrusage(RUSAGE_SELF, &usage);
    head(out, "process_cpu_seconds_total", "counter", "CPU time of kith-gateway.");
    kithi_text_printf(out, "process_cpu_seconds_total %.6f\n",
                      (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                          (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    head(out, "process_resident_memory_bytes", "gauge",
         "Memory of kith-gateway, that of mapped segments included.");
    if (statm && fscanf(statm, "%*u %lu", &pages) == 1) {
        kithi_text_printf(out, "process_resident_memory_bytes %llu\n",
                          (unsigned long long)pages * (unsigned long long)sysconf(_SC_PAGESIZE));
    }
    if (statm) {
        fclose(statm);
    }
}

void kithi_metrics_write(const struct kithi_gateway *gateway, struct kithi_text *out)
{
    static const char *const events[] = {
        "slow_sender", "slow_receiver", "given_up",         "peer_gone",
        "too_many",    "crowded",       "handshake_failed", "reload_refused"
    };
    static const char *const plans[] = { NULL, "walk", "scan", "walk_scan", "hops" };
    _Static_assert(KITH_PLAN_HOPS + 1 == KITHI_METRICS_PLANS, "a count for each plan");
    const struct kithi_metrics *m = gateway->metrics;
    struct kithi_lanes_load lanes;
    kithi_lanes_load(m->lanes, &lanes);

    head(out, "kith_gateway_build_info", "gauge", "1; the label is the version.");
    kithi_text_printf(out, "kith_gateway_build_info{version=\"%s\"} 1\n", gateway->version);
    requests(m, out);
    rpcs(m, out);
    head(out, "kith_gateway_events_total", "counter",
         "What ended requests or connections before their time, by kind.");
    for (unsigned i = 0; i < KITHI_EVENT_COUNT; i++) {
        kithi_text_printf(out, "kith_gateway_events_total{kind=\"%s\"} %" PRIu64 "\n", events[i],
                          load(&m->events[i]));
    }
    head(out, "kith_gateway_filter_plans_total", "counter",
         "Searches under a filter, by what answered them.");
    for (unsigned i = 1; i < KITHI_METRICS_PLANS; i++) {
        kithi_text_printf(out, "kith_gateway_filter_plans_total{plan=\"%s\"} %" PRIu64 "\n", plans[i],
                          load(&m->plans[i]));
    }
    head(out, "kith_gateway_lane_requests", "gauge",
         "Requests in a lane: waiting for a thread, running, or given up and still holding their thread.");
    for (unsigned i = KITHI_LANE_SEARCH; i < KITHI_LANE_COUNT; i++) {
        const char *name = kithi_lane_name((enum kithi_lane)i);
        kithi_text_printf(out,
                          "kith_gateway_lane_requests{lane=\"%s\",state=\"queued\"} %u\n"
                          "kith_gateway_lane_requests{lane=\"%s\",state=\"running\"} %u\n"
                          "kith_gateway_lane_requests{lane=\"%s\",state=\"stuck\"} %u\n",
                          name, lanes.queued[i], name, lanes.running[i], name, lanes.stuck[i]);
    }
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } single[] = {
        { "kith_gateway_waiting_for_epoch", "gauge", "Requests that wait for an epoch.", lanes.awaiting },
        { "kith_gateway_connections", "gauge", "Open connections.", load(&m->connections) },
        { "kith_gateway_connections_total", "counter", "Connections accepted.", load(&m->accepted) },
        { "kith_gateway_tls_handshakes_total", "counter", "Handshakes of TLS that were done.",
          load(&m->handshakes) },
        { "kith_gateway_tls_certificate_end_seconds", "gauge",
          "When the certificate ends, in seconds since 1970; 0: there is none.", load(&m->certificate_ends) },
        { "kith_gateway_received_bytes_total", "counter", "Bytes of requests.", load(&m->bytes_in) },
        { "kith_gateway_sent_bytes_total", "counter", "Bytes of answers.", load(&m->bytes_out) },
        { "kith_gateway_body_memory_bytes", "gauge", "Memory of bodies and the vectors in them.",
          kithi_budget_used(&gateway->bodies) },
        { "kith_gateway_answer_memory_bytes", "gauge", "Memory of answers.",
          kithi_budget_used(&gateway->answers) },
        { "kith_gateway_open_collections", "gauge", "Handles of collections that are open.",
          kithi_handles_count(gateway->handles) },
    };
    for (unsigned i = 0; i < sizeof single / sizeof single[0]; i++) {
        head(out, single[i].name, single[i].type, single[i].help);
        kithi_text_printf(out, "%s %" PRIu64 "\n", single[i].name, single[i].value);
    }
    process(out);
}
