/*
 * fuzz_grpc.c - whatever a client of gRPC sends to kith-gateway: frames of HTTP/2, the messages in them, and what is read of these.
 *
 * The first byte says what the rest is. Frames go to a connection in pieces, whose owner finishes, answers or leaves calls as bytes of
 * the input say; messages go to the reader of the wire with all kinds of members, to reflection and to what times and sentences are made of.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/grpc/h2.h"
#include "server/gateway/grpc/reflection.h"
#include "server/gateway/grpc/status.h"
#include "server/gateway/grpc/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGE_MAX 4096u
#define BODIES      (1u << 20)

static void must(bool truth)
{
    if (!truth) {
        abort();
    }
}

/* ---- messages ------------------------------------------------------------------------ */

struct all {
    struct kithi_part string, octets;
    bool truth;
    int32_t number;
    uint64_t large;
    struct kithi_wire_double real;
    size_t floats, list;
};

static void read_message(struct kithi_part message, unsigned depth)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, offsetof(struct all, string), "string" },
        { 2, KITHI_WIRE_FLOATS, offsetof(struct all, floats), "floats" },
        { 3, KITHI_WIRE_INT32, offsetof(struct all, number), "number" },
        { 4, KITHI_WIRE_BOOL, offsetof(struct all, truth), "truth" },
        { 5, KITHI_WIRE_LIST, offsetof(struct all, list), "list" },
        { 6, KITHI_WIRE_OCTETS, offsetof(struct all, octets), "octets" },
        { 7, KITHI_WIRE_UINT64, offsetof(struct all, large), "large" },
        { 8, KITHI_WIRE_DOUBLE, offsetof(struct all, real), "real" },
    };
    struct kithi_refusal refusal = { .status = 0 };
    struct all all = { .list = 0 };
    struct kithi_wire_field field;
    struct kithi_floats floats;
    if (!kithi_wire_read(message, members, 8, depth ? "list[0]" : "", &all, &refusal)) {
        must(refusal.status == 400 && refusal.message[0] &&
             kithi_grpc_code_of(&refusal) == KITHI_GRPC_INVALID_ARGUMENT);
        return;
    }
    must(!all.string.at || !memchr(all.string.at, 0, all.string.len));
    kithi_floats_init(&floats, NULL);
    must(kithi_wire_floats(message, 2, &floats) == (long)all.floats && floats.count == all.floats);
    kithi_floats_fini(&floats);
    struct kithi_part rest = message;
    size_t n = 0;
    while (kithi_wire_each(&rest, 5, &field)) {
        must(field.bytes.at >= message.at && field.bytes.at + field.bytes.len <= message.at + message.len);
        n++;
        if (depth < 8) {
            read_message(field.bytes, depth + 1);
        }
    }
    must(n == all.list);
    /* What is written is read again as it was. */
    struct kithi_text out;
    struct all again = { .list = 0 };
    kithi_text_init(&out, 1u << 20, NULL);
    size_t within = kithi_wire_open(&out, 5);
    kithi_wire_put_bytes(&out, 1, all.string.at, all.string.len);
    kithi_wire_put_uint(&out, 7, all.large);
    kithi_wire_close(&out, within);
    rest = (struct kithi_part){ out.at, out.len };
    must(kithi_wire_each(&rest, 5, &field) && rest.len == 0 &&
         kithi_wire_read(field.bytes, members, 8, "", &again, &refusal) && again.large == all.large &&
         again.string.len == all.string.len);
    kithi_text_fini(&out);
}

static void messages(const char *text, size_t len)
{
    struct kithi_part part = { text, len };
    struct kithi_refusal refusal = { .status = 0 };
    struct kithi_text out;
    uint64_t ns;
    char sentence[sizeof refusal.message], encoded[KITHI_GRPC_MESSAGE_MAX];
    read_message(part, 0);
    kithi_text_init(&out, 1u << 20, NULL);
    must(kithi_reflection_answer(part, &out, &refusal) ? !refusal.status : refusal.status != 0);
    kithi_text_fini(&out);
    kithi_reflection_is_service(part);
    if (kithi_grpc_timeout(part, &ns)) {
        must(len >= 2 && len <= 9);
    }
    size_t n = len < sizeof sentence - 1 ? len : sizeof sentence - 1;
    memcpy(sentence, text, n);
    sentence[n] = 0;
    n = kithi_grpc_message(sentence, encoded);
    must(n <= sizeof encoded);
    for (size_t i = 0; i < n; i++) {
        must(encoded[i] >= 0x20 && encoded[i] < 0x7f);
    }
}

/* ---- frames -------------------------------------------------------------------------- */

struct owner {
    const uint8_t *choices; /* what is done with a call: 64 of them, over and over */
    unsigned at, begun, gone;
    struct kithi_h2_call *kept; /* one that is busy */
};

static unsigned choose(struct owner *o)
{
    return o->choices[o->at++ % 64];
}

static bool room(void *arg)
{
    return choose(arg) != 255;
}

static void end_call(struct kithi_h2_call *call, unsigned choice)
{
    struct kithi_refusal refusal = { .status = 0 };
    if (choice & 1) {
        kithi_refuse(&refusal, 422, "value", "x[1]", "a sentence %% with\n\xff");
    }
    kithi_h2_finish(call, &refusal, true);
}

static void answer(struct kithi_h2_call *call, unsigned choice)
{
    static const char bytes[700] = { 0 };
    struct kithi_text text;
    kithi_text_init(&text, 1u << 20, NULL);
    for (unsigned i = 0; i <= choice; i++) {
        kithi_text_put(&text, bytes, sizeof bytes);
    }
    kithi_h2_answer(call, &text);
    kithi_text_fini(&text);
}

static void begin(void *arg, struct kithi_h2_call *call, const struct kithi_h2_head *head)
{
    struct owner *o = arg;
    unsigned choice = choose(o);
    o->begun++;
    call->data = o;
    call->single = choice & 2;
    must(head->http.path.len < 128);
    if (choice % 16 == 15) {
        end_call(call, choice >> 4);
    }
}

static void message(void *arg, struct kithi_h2_call *call)
{
    struct owner *o = arg;
    unsigned choice = choose(o);
    must(call->body.len <= MESSAGE_MAX);
    switch (choice % 4) {
    case 0:
        answer(call, choice >> 2);
        if (call->single) {
            end_call(call, 0);
        } else {
            kithi_h2_ready(call);
        }
        break;
    case 1: end_call(call, choice >> 2); break;
    case 2: kithi_h2_reset(call); break;
    default: o->kept = call; break;
    }
}

static void ended(void *arg, struct kithi_h2_call *call)
{
    end_call(call, choose(arg));
}

static void refused(void *arg, struct kithi_h2_call *call, const struct kithi_refusal *why)
{
    (void)arg;
    (void)call;
    must(why->status && why->message[0]);
}

static void gone(void *arg, struct kithi_h2_call *call)
{
    struct owner *o = arg;
    o->gone++;
    o->kept = o->kept == call ? NULL : o->kept;
}

static void frames(const uint8_t *data, size_t size)
{
    static const struct kithi_h2_host host = { room, begin, message, ended, refused, gone };
    struct kithi_budget bodies = { 0, BODIES };
    const struct kithi_h2_limits limits = { MESSAGE_MAX, 8, &bodies };
    uint8_t choices[64] = { 0 };
    struct kithi_h2 *h2;
    struct kithi_text out;
    size_t n = size < sizeof choices ? size : sizeof choices;
    memcpy(choices, data, n);
    struct owner owner = { .choices = choices };
    must(kithi_h2_new(&host, &owner, &limits, &h2) == 0);
    kithi_text_init(&out, 1u << 24, NULL);
    bool good = kithi_h2_receive(h2, KITHI_H2_PREFACE, KITHI_H2_PREFACE_LEN, 1);
    for (uint64_t now = 2; good && n < size; now += 1000000) {
        size_t piece = 1 + choose(&owner) * 7u;
        piece = piece < size - n ? piece : size - n;
        good = kithi_h2_receive(h2, data + n, piece, now);
        n += piece;
        if (owner.kept && choose(&owner) & 1) {
            struct kithi_h2_call *call = owner.kept;
            owner.kept = NULL;
            answer(call, 1);
            if (call->single) {
                end_call(call, 0);
            } else {
                kithi_h2_ready(call);
            }
        }
        kithi_text_cut(&out, 0);
        good = kithi_h2_output(h2, &out) && good;
        must(kithi_budget_used(&bodies) <= BODIES && kithi_h2_call_count(h2) <= 8);
    }
    kithi_h2_goaway(h2);
    kithi_text_cut(&out, 0);
    kithi_h2_output(h2, &out);
    kithi_h2_over(h2);
    kithi_h2_free(h2);
    kithi_text_fini(&out);
    must(owner.begun == owner.gone && kithi_budget_used(&bodies) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    if (data[0] & 1) {
        char *text = malloc(size);
        must(text != NULL);
        memcpy(text, data + 1, size - 1);
        text[size - 1] = 0;
        messages(text, size - 1);
        free(text);
    } else {
        frames(data + 1, size - 1);
    }
    return 0;
}
