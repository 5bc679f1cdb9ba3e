/*
 * bench_wire.c - the two halves of a gateway's cost that are measured without a socket: reading a request's vector, as text, as base64
 * and as bytes, and the search itself in this process.
 *
 *   bench_wire parse DIM                        microseconds a request of each form
 *   bench_wire search RUN COLLECTION FILE K EF  searches a second, and the 99th percentile, for the float32 vectors of FILE
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "server/gateway/body.h"
#include "server/gateway/floats.h"
#include "server/gateway/grpc/wire.h"

#define ROUNDS  7u
#define TURN_NS 200000000u

struct request {
    struct kithi_part collection;
    size_t floats;
};

static const struct kithi_wire_member members[] = {
    { 1, KITHI_WIRE_STRING, offsetof(struct request, collection), "collection" },
    { 2, KITHI_WIRE_FLOATS, offsetof(struct request, floats), "vector" },
};

static size_t read_protobuf(const struct kithi_text *t)
{
    struct kithi_refusal refusal = { .status = 0 };
    struct request read = { .floats = 0 };
    struct kithi_floats floats;
    struct kithi_part message = { t->at, t->len };
    kithi_floats_init(&floats, NULL);
    if (!kithi_wire_read(message, members, 2, "", &read, &refusal) ||
        kithi_wire_floats(message, 2, &floats) < 0)
        bench_die("%s", refusal.message);
    size_t n = floats.count;
    kithi_floats_fini(&floats);
    return n;
}

static size_t read_octets(const struct kithi_text *t)
{
    struct kithi_floats floats;
    kithi_floats_init(&floats, NULL);
    long n = kithi_floats_bytes(&floats, t->at, t->len);
    kithi_floats_fini(&floats);
    return (size_t)n;
}

static size_t read_json(const struct kithi_text *t)
{
    struct kithi_refusal refusal = { .status = 0 };
    struct kithi_floats floats;
    struct kithi_text rest;
    kithi_floats_init(&floats, NULL);
    kithi_text_init(&rest, t->len * 2 + 64, NULL);
    int rc = kithi_floats_lift(&floats, t->at, t->len, 1, &rest);
    json_t *body = rc == 0 ? kithi_body_parse(rest.at, rest.len, &refusal) : NULL;
    json_t *text = json_object_get(body, "vector");
    if (json_is_string(text))
        kithi_floats_base64(&floats, json_string_value(text), json_string_length(text));
    if (!body)
        bench_die("%s", refusal.message);
    size_t n = floats.count;
    json_decref(body);
    kithi_text_fini(&rest);
    kithi_floats_fini(&floats);
    return n;
}

/* Microseconds of CPU time, the best of some rounds. */
static double time_of(size_t (*read)(const struct kithi_text *t), const struct kithi_text *t, size_t dim)
{
    double best = 1e9;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t begin = bench_cpu_ns(), now = begin, n = 0;
        for (; now - begin < TURN_NS / ROUNDS; now = bench_cpu_ns(), n += 16) {
            for (unsigned i = 0; i < 16; i++) {
                if (read(t) != dim)
                    bench_die("a vector of another length was read");
            }
        }
        double us = (double)(now - begin) / 1e3 / (double)n;
        best = us < best ? us : best;
    }
    return best;
}

static void parse(size_t dim)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    float *vector = bench_alloc(dim * sizeof *vector);
    struct kithi_text text, base64, octets, protobuf;
    kithi_text_init(&text, SIZE_MAX / 4, NULL);
    kithi_text_init(&base64, SIZE_MAX / 4, NULL);
    kithi_text_init(&octets, SIZE_MAX / 4, NULL);
    kithi_text_init(&protobuf, SIZE_MAX / 4, NULL);
    srand(1);
    kithi_text_str(&text, "{\"vector\":[");
    for (size_t i = 0; i < dim; i++) {
        vector[i] = (float)rand() / (float)RAND_MAX - 0.5f;
        kithi_text_str(&text, i ? "," : "");
        kithi_text_float(&text, vector[i]);
    }
    kithi_text_str(&text, "]}");
    kithi_text_put(&octets, vector, dim * sizeof *vector);
    kithi_wire_put_string(&protobuf, 1, "c");
    kithi_wire_put_floats(&protobuf, 2, vector, dim);
    kithi_text_str(&base64, "{\"vector\":\"");
    const unsigned char *p = (const unsigned char *)octets.at;
    for (size_t i = 0; i < octets.len; i += 3) {
        size_t left = octets.len - i;
        unsigned w =
            (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        kithi_text_put(&base64,
                       (char[]){ digits[w >> 18], digits[w >> 12 & 63], left > 1 ? digits[w >> 6 & 63] : '=',
                                 left > 2 ? digits[w & 63] : '=' },
                       4);
    }
    kithi_text_str(&base64, "\"}");
    double t = time_of(read_json, &text, dim), b = time_of(read_json, &base64, dim),
           o = time_of(read_octets, &octets, dim), g = time_of(read_protobuf, &protobuf, dim);
    printf("| %zu-d | us | bytes | times cheaper than text |\n|---|---|---|---|\n", dim);
    printf("| JSON, text | %.2f | %zu | 1 |\n| JSON, base64 | %.2f | %zu | %.1f |\n", t, text.len, b,
           base64.len, t / b);
    printf("| octet-stream | %.2f | %zu | %.1f |\n| protobuf | %.2f | %zu | %.1f |\n", o, octets.len, t / o,
           g, protobuf.len, t / g);
    kithi_text_fini(&text);
    kithi_text_fini(&base64);
    kithi_text_fini(&octets);
    kithi_text_fini(&protobuf);
    free(vector);
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void search(char **argv)
{
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    kith *index;
    open.run_dir = argv[0];
    open.prefault = 1;
    int rc = kith_open(argv[1], &open, &index);
    if (rc < 0)
        bench_die("open: %s", kith_strerror(rc));
    size_t dim = kith_dim(index), most = 1u << 20, n = 0;
    uint32_t k = (uint32_t)strtoul(argv[3], NULL, 10);
    opts.ef = (uint32_t)strtoul(argv[4], NULL, 10);
    FILE *f = fopen(argv[2], "rb");
    float *queries = bench_alloc(1000 * dim * sizeof *queries), *us = bench_alloc(most * sizeof *us);
    size_t count = f ? fread(queries, dim * sizeof *queries, 1000, f) : 0;
    if (count == 0)
        bench_die("%s has no vector", argv[2]);
    fclose(f);
    kith_results *hits = kith_results_new();
    uint64_t begin = bench_now_ns(), before = begin, now = begin;
    for (; n < most && now - begin < 2000000000u; n++, before = now) {
        rc = kith_search(index, queries + n % count * dim, dim, k, &opts, hits);
        if (rc < 0)
            bench_die("search: %s", kith_strerror(rc));
        now = bench_now_ns();
        us[n] = (float)(now - before) / 1e3f;
    }
    qsort(us, n, sizeof *us, by_value);
    printf("%.0f %.1f\n", (double)n * 1e9 / (double)(now - begin), (double)us[n * 99 / 100]);
    kith_results_free(hits);
    kith_close(index);
    free(queries);
    free(us);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "parse") && atoi(argv[2]) > 0) {
        parse((size_t)atoi(argv[2]));
    } else if (argc == 7 && !strcmp(argv[1], "search")) {
        search(argv + 2);
    } else {
        bench_die("parse DIM, or search RUN COLLECTION FILE K EF");
    }
    return 0;
}
