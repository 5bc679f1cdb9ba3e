/*
 * test_intake.c - does the daemon answer what is right, name what is wrong, and go on whatever a client does?
 */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base/log.h"
#include "shm/base/bytes.h"
#include "shm/wire/op.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"
#include "tests/unit/server/writer/peer.h"
#include "tests/unit/server/writer/served.h"

#define DIM 4u

static struct served served;
static struct peer good; /* a well-behaved client, connected all the time */

static int set_up(void **state)
{
    (void)state;
    kithi_log_set_level(KITHI_LOG_ERROR);
    served_init(&served);
    if (served_start(&served, NULL)) {
        return -1;
    }
    peer_open(&good, served.run.path);
    peer_create(&good, "docs", DIM, 0, NULL);
    return peer_use(&good, "docs", NULL);
}

static int tear_down(void **state)
{
    (void)state;
    peer_close(&good);
    int status = served_stop(&served);
    served_fini(&served);
    return status;
}

static void assert_daemon_goes_on(void)
{
    assert_int_equal(peer_write(&good, "good", 0, 1, DIM, 1, NULL), 0);
}

static void writes_are_answered_with_epoch_and_found(void **state)
{
    struct peer_reply r;
    (void)state;
    assert_int_equal(peer_write(&good, "w", 0, 10, DIM, 1, &r), 0);
    uint64_t epoch = r.reply.epoch;
    assert_true(epoch > 0);
    assert_int_equal(peer_write(&good, "w", 5, 10, 0, 0, &r), 0);
    assert_int_equal(r.reply.found, 5);
    assert_int_equal(r.reply.epoch, epoch + 1);
    assert_int_equal(peer_write(&good, "nobody", 0, 3, 0, 0, &r), 0);
    assert_int_equal(r.reply.found, 0);
    assert_int_equal(r.reply.epoch, epoch + 1); /* nothing changed */
    assert_int_equal(peer_write(&good, "w", 0, 0, DIM, 0, &r), 0);
    assert_int_equal(peer_call(&good, KITHI_FRAME_FLUSH, good.uid, sizeof good.uid, 0, &r), 0);
    assert_int_equal(r.reply.epoch, epoch + 1);
}

static void pipelined_writes_are_answered_in_order_and_flush_after_them(void **state)
{
    struct peer p;
    struct peer_reply r;
    uint64_t last = 0;
    (void)state;
    peer_open(&p, served.run.path);
    memcpy(p.uid, good.uid, sizeof p.uid);
    uint64_t first_tag = p.tag + 1;
    for (unsigned i = 0; i < 100; i++) {
        peer_send_write(&p, "pipe", i, 3, DIM, (float)i);
    }
    peer_send_frame(&p, KITHI_FRAME_FLUSH, p.uid, sizeof p.uid, 0);
    for (unsigned i = 0; i < 101; i++) {
        assert_true(peer_reply(&p, &r));
        assert_int_equal(r.frame.tag, first_tag + i);
        assert_int_equal(r.reply.status, 0);
        assert_true(r.reply.epoch >= last);
        last = r.reply.epoch;
    }
    peer_close(&p);
}

static void a_refused_write_names_its_item_and_leaves_nothing(void **state)
{
    unsigned char body[512];
    float vector[DIM + 1] = { 1, 2, 3, 4, 5 }, nan[DIM] = { 1, 2, NAN, 4 };
    struct peer_reply r;
    (void)state;
    uint64_t live = peer_stat(&good, "live");
    const struct {
        const char *id;
        size_t id_len;
        const float *vector;
        uint32_t dim;
        int status;
    } bad[] = {
        { "x", 1, vector, DIM + 1, KITHI_E_DIMENSION },
        { "x", 1, nan, DIM, KITHI_E_NOT_FINITE },
        { "", 0, vector, DIM, KITHI_E_ID },
        { "\xff", 1, vector, DIM, KITHI_E_ID },
        { "a\0b", 3, vector, DIM, KITHI_E_ID },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memcpy(body, good.uid, 16);
        size_t len = 16 + kithi_op_encode(body + 16, "fine", 4, vector, DIM);
        len += kithi_op_encode(body + len, bad[i].id, bad[i].id_len, bad[i].vector, bad[i].dim);
        assert_int_equal(peer_call(&good, KITHI_FRAME_WRITE, body, len, 2, &r), bad[i].status);
        assert_int_equal(r.reply.item, 1);
        assert_true(r.reply.text_len > 0);
    }
    assert_int_equal(peer_stat(&good, "live"), live);
}

static void a_change_that_is_none_is_named_with_its_field(void **state)
{
    static const float vector[DIM] = { 1, 2, 3, 4 };
    static const struct {
        size_t off;
        unsigned char byte;
        const char *text;
    } bad[] = {
        { 0, 4, "is not a change: length 4 is not a multiple of 8" },
        { 0, 24,
          "is not a change: length 24 is not that of an id of 1 bytes, 4 dimensions and a payload of 0 bytes" },
        { 4, 9, "is not a change: type 9 is unknown" },
        { 5, 2, "is not a change: flags 02 are unknown" },
        { 8, 0, "is not a change: type 1 with 0 dimensions" },
        { 12, 7, "is not a change: type 1, flags 00, with a payload of 7 bytes: it can have none" },
        { 4, 4, "is not a change: type 4 with 4 dimensions: an upsert has some, all others none" },
    };
    unsigned char body[256];
    struct peer_reply r;
    (void)state;
    memcpy(body, good.uid, 16);
    size_t first = 16 + kithi_op_encode(body + 16, "fine", 4, vector, DIM);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t len = first + kithi_op_encode(body + first, "x", 1, vector, DIM);
        body[first + bad[i].off] = bad[i].byte;
        assert_int_equal(peer_call(&good, KITHI_FRAME_WRITE, body, len, 2, &r), KITHI_E_PROTOCOL);
        assert_int_equal(r.reply.item, 1);
        assert_non_null(strstr(r.text, "item 1, "));
        assert_non_null(strstr(r.text, bad[i].text));
    }
    assert_daemon_goes_on();
}

/* Deletes under a condition are asked of what their id has when their turn comes, in the same write, too. */
static void a_delete_under_a_condition_is_one_or_nothing(void **state)
{
    static const float vector[DIM] = { 1, 2, 3, 4 };
    enum { UPSERT = KITHI_OP_UPSERT, IF = KITHI_OP_DELETE_IF, SET = KITHI_OP_SET };
    static const struct {
        uint8_t type;
        const char *id, *text; /* a payload, or a condition */
        bool found;
    } ops[] = {
        { UPSERT, "da", "{\"n\":1}", true }, { IF, "da", "n = 2", false },
        { IF, "da", "n = 1", true },         { IF, "da", "n = 1", false },
        { UPSERT, "db", "{\"n\":1}", true }, { SET, "db", "{\"n\":2}", true },
        { IF, "db", "n = 1", false },        { IF, "db", "n = \"x\"", false },
        { IF, "nobody", "n = 1", false },    { IF, "db", "not n = 1 and exists(n)", true },
        { UPSERT, "db", "{\"n\":3}", true }, { IF, "db", "n < 3", false },
    };
    const uint32_t n = sizeof ops / sizeof ops[0];
    unsigned char body[2048], written[4];
    struct peer_reply r;
    (void)state;
    uint64_t live = peer_stat(&good, "live");
    memcpy(body, good.uid, 16);
    size_t len = 16;
    for (uint32_t i = 0; i < n; i++) {
        struct kithi_payload p = { .bytes = NULL };
        struct kithi_op op = { .type = ops[i].type, .id = ops[i].id, .id_len = (uint16_t)strlen(ops[i].id) };
        if (op.type == IF) {
            op.payload = ops[i].text;
            op.payload_len = (uint32_t)strlen(ops[i].text);
        } else {
            p = test_payload(ops[i].text);
            op.payload = p.bytes;
            op.payload_len = p.len;
        }
        if (op.type == UPSERT) {
            op.flags = KITHI_OP_PAYLOAD;
            op.dim = DIM;
            op.vector = vector;
        }
        len += kithi_op_put(body + len, &op);
        test_payload_free(&p);
    }
    assert_int_equal(peer_call(&good, KITHI_FRAME_WRITE, body, len, n, &r), 0);
    assert_int_equal(r.reply.found, 1 + 1 + 1); /* a delete, a payload that was set, another delete */
    memcpy(written, r.text + sizeof(struct kithi_written), sizeof written);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(written[i / 8] >> i % 8 & 1, !ops[i].found);
    assert_int_equal(peer_stat(&good, "live"), live + 1);

    /* One that is no condition is refused, with its place, and all of its write. */
    struct kithi_op op = {
        .type = KITHI_OP_DELETE_IF, .id = "db", .id_len = 2, .payload = "n = 3", .payload_len = 5
    };
    len = 16 + kithi_op_put(body + 16, &op);
    op.payload = "n = ";
    op.payload_len = 4;
    len += kithi_op_put(body + len, &op);
    assert_int_equal(peer_call(&good, KITHI_FRAME_WRITE, body, len, 2, &r), KITHI_E_FILTER);
    assert_int_equal(r.reply.item, 1);
    op.payload_len = 0;
    len = 16 + kithi_op_put(body + 16, &op);
    assert_int_equal(peer_call(&good, KITHI_FRAME_WRITE, body, len, 1, &r), KITHI_E_PROTOCOL);
    assert_non_null(strstr(r.text, "without a payload"));
    assert_int_equal(peer_stat(&good, "live"), live + 1);
    op = (struct kithi_op){ .type = KITHI_OP_DELETE, .id = "db", .id_len = 2 };
    len = 16 + kithi_op_put(body + 16, &op);
    assert_int_equal(peer_call(&good, KITHI_FRAME_WRITE, body, len, 1, &r), 0);
    assert_daemon_goes_on();
}

/* A write of one REMOVE with these bytes. */
static int write_remove(const void *list, uint32_t len, struct peer_reply *r)
{
    unsigned char *body = calloc(1, 16 + kithi_op_size_with(1, 0, len));
    const struct kithi_op op = {
        .type = KITHI_OP_REMOVE, .id = "x", .id_len = 1, .payload = list, .payload_len = len
    };
    assert_non_null(body);
    memcpy(body, good.uid, 16);
    size_t size = 16 + kithi_op_put(body + 16, &op);
    int status = peer_call(&good, KITHI_FRAME_WRITE, body, size, 1, r);
    free(body);
    return status;
}

static void a_list_of_fields_to_remove_that_is_cut_off_is_called_that(void **state)
{
    static const struct {
        const char *list;
        uint32_t len;
    } cut[] = {
        { "\1", 1 },                     /* not even a length */
        { "\0", 1 },   { "\1\0a\1", 4 }, /* a path, and one byte more */
        { "\1\0", 2 }, { "\2\0a", 3 },   { "\1\0a\377\377b", 6 },
    };
    struct peer_reply r;
    (void)state;
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        assert_int_equal(write_remove(cut[i].list, cut[i].len, &r), KITHI_E_PAYLOAD);
        assert_int_equal(r.reply.item, 0);
        assert_non_null(strstr(r.text, "the list of fields to remove is cut off"));
    }
    assert_int_equal(write_remove("\0\0", 2, &r), KITHI_E_PAYLOAD); /* whole, but no path */
    assert_int_equal(write_remove("\1\0a", 3, &r), 0);
    assert_int_equal(r.reply.found, 0);
    assert_daemon_goes_on();
}

static void a_change_removes_64_fields_at_most(void **state)
{
    unsigned char list[65 * 3];
    struct peer_reply r;
    (void)state;
    for (size_t i = 0; i < sizeof list; i += 3) {
        memcpy(list + i, "\1\0a", 3);
    }
    assert_int_equal(write_remove(list, sizeof list, &r), KITHI_E_PAYLOAD);
    assert_int_equal(r.reply.item, 0);
    assert_non_null(strstr(r.text, "more than 64 fields to remove in one change"));
    assert_int_equal(write_remove(list, sizeof list - 3, &r), 0);
    assert_daemon_goes_on();
}

static void an_id_of_512_bytes_is_called_that(void **state)
{
    unsigned char body[16 + 16 + 512 + DIM * 4] = { 0 };
    struct peer_reply r;
    (void)state;
    memcpy(body, good.uid, 16);
    kithi_put32(body + 16, sizeof body - 16);
    body[20] = KITHI_OP_UPSERT;
    kithi_put16(body + 22, 512);
    kithi_put32(body + 24, DIM);
    memset(body + 32, 'x', 512);
    assert_int_equal(peer_call(&good, KITHI_FRAME_WRITE, body, sizeof body, 1, &r), KITHI_E_ID);
    assert_non_null(strstr(r.text, "512"));
    assert_int_equal(r.reply.item, 0);
}

static void collections_are_checked_as_they_are_made(void **state)
{
    struct peer_reply r;
    (void)state;
    assert_int_equal(peer_create(&good, "docs", DIM, 0, &r), KITHI_E_EXISTS);
    assert_int_equal(peer_create(&good, "a/b", DIM, 0, &r), KITHI_E_NAME);
    assert_int_equal(peer_create(&good, "..", DIM, 0, &r), KITHI_E_NAME);
    assert_int_equal(peer_create(&good, "", DIM, 0, &r), KITHI_E_NAME);
    assert_int_equal(peer_create(&good, "zero", 0, 0, &r), KITHI_E_PARAMETER);
    assert_int_equal(peer_create(&good, "wide", 4097, 0, &r), KITHI_E_PARAMETER);
    assert_int_equal(peer_use(&good, "absent", &r), KITHI_E_NO_COLLECTION);
    assert_int_equal(peer_drop(&good, "absent", &r), KITHI_E_NO_COLLECTION);
    assert_int_equal(peer_create(&good, "brief", DIM, 0, &r), 0);
    assert_int_equal(peer_call(&good, KITHI_FRAME_LIST, NULL, 0, 0, &r), 0);
    assert_string_equal(r.text, "brief\ndocs\n");
    assert_int_equal(r.frame.count, 2);
    assert_int_equal(peer_drop(&good, "brief", &r), 0);
    assert_int_equal(peer_call(&good, KITHI_FRAME_LIST, NULL, 0, 0, &r), 0);
    assert_string_equal(r.text, "docs\n");
}

/* Send a frame with this header and these bytes; expect one reply of that status, and the end. */
static void assert_refused(bool greeted, struct kithi_frame f, const void *bytes, size_t len, int status)
{
    struct peer p;
    struct peer_reply r;
    if (greeted) {
        peer_open(&p, served.run.path);
    } else {
        peer_connect(&p, served.run.path);
    }
    peer_send(&p, &f, sizeof f);
    peer_send(&p, bytes, len);
    assert_true(peer_reply(&p, &r));
    assert_int_equal(r.reply.status, status);
    assert_true(r.reply.text_len > 0);
    assert_int_equal(r.frame.tag, f.magic == KITHI_FRAME_MAGIC ? f.tag : 0);
    assert_false(peer_reply(&p, &r));
    peer_close(&p);
    assert_daemon_goes_on();
}

static int create_coded(uint32_t quantization, uint32_t keep, struct peer_reply *r)
{
    unsigned char body[sizeof(struct kithi_create) + 8] = { 0 };
    struct kithi_create c = { .dim = DIM,
                              .metric = 1,
                              .slot_max = PEER_SLOT_MAX,
                              .name_len = 5,
                              .quantization = quantization,
                              .keep = keep };
    memcpy(body, &c, sizeof c);
    memcpy(body + sizeof c, "coded", 5);
    return peer_call(&good, KITHI_FRAME_CREATE, body, sizeof body, 0, r);
}

/* With the text of an index, and as many bytes more as are wanted. */
static int create_indexed(const char *text, size_t more, struct peer_reply *r)
{
    unsigned char body[sizeof(struct kithi_create) + 8 + 256] = { 0 };
    struct kithi_create c = {
        .dim = DIM, .metric = 1, .slot_max = PEER_SLOT_MAX, .name_len = 7, .index_len = (uint16_t)strlen(text)
    };
    memcpy(body, &c, sizeof c);
    memcpy(body + sizeof c, "indexed", 7);
    memcpy(body + sizeof c + 8, text, strlen(text));
    return peer_call(&good, KITHI_FRAME_CREATE, body, sizeof c + 8 + (strlen(text) + 7) / 8 * 8 + more, 0, r);
}

static void a_collection_is_made_with_the_index_that_was_asked_for(void **state)
{
    struct peer_reply r;
    (void)state;
    assert_int_equal(create_indexed("lang:text", 0, &r), KITHI_E_PARAMETER);
    assert_non_null(strstr(r.text, "a type is keyword"));
    assert_int_equal(create_indexed("lang:keyword", 8, &r), KITHI_E_PROTOCOL);
    assert_int_equal(create_indexed("", 8, &r), KITHI_E_PROTOCOL);
    assert_int_equal(create_indexed("lang:keyword", 0, &r), 0);
    assert_int_equal(peer_call(&good, KITHI_FRAME_DROP, "indexed", 8, 0, &r), 0);
}

static void a_collection_is_opened_with_the_codes_that_were_asked_for(void **state)
{
    struct peer_reply r;
    struct kithi_opened o;
    uint8_t uid[16];
    (void)state;
    memcpy(uid, good.uid, sizeof uid);
    assert_int_equal(create_coded(KITHI_QUANTIZATION_NONE, KITHI_KEEP_F16, &r), KITHI_E_PARAMETER);
    assert_non_null(strstr(r.text, "without quantization"));
    assert_int_equal(create_coded(5, KITHI_KEEP_F32, &r), KITHI_E_UNSUPPORTED);
    assert_int_equal(create_coded(KITHI_QUANTIZATION_AUTO, 3, &r), KITHI_E_UNSUPPORTED);
    for (uint32_t quantization = 1; quantization <= KITHI_QUANTIZATION_AUTO; quantization++) {
        bool chosen = quantization != KITHI_QUANTIZATION_AUTO;
        assert_int_equal(create_coded(quantization, KITHI_KEEP_F16, &r), 0);
        assert_int_equal(peer_use(&good, "coded", &r), 0);
        memcpy(&o, r.text, sizeof o);
        assert_int_equal(o.quantization, quantization);
        assert_int_equal(o.keep, KITHI_KEEP_F16);
        assert_int_equal(o.layout, chosen ? quantization : KITHI_QUANTIZATION_NONE);
        assert_int_equal(o.code_bits != 0, quantization == KITHI_QUANTIZATION_BITS);
        assert_int_equal(o.undecided, !chosen);
        assert_int_equal(peer_drop(&good, "coded", NULL), 0);
    }
    memcpy(good.uid, uid, sizeof uid);
}

static void bytes_that_are_no_frame_get_a_reply_and_the_end(void **state)
{
    static const unsigned char bytes[8192];
    const struct kithi_frame list = { .magic = KITHI_FRAME_MAGIC, .type = KITHI_FRAME_LIST, .tag = 77 };
    struct kithi_frame f;
    uint32_t other_version[2] = { KITHI_WIRE_VERSION + 1, 0 };
    (void)state;

    assert_refused(false, list, NULL, 0, KITHI_E_PROTOCOL); /* no hello */
    f = (struct kithi_frame){ .magic = KITHI_FRAME_MAGIC, .len = 8, .type = KITHI_FRAME_HELLO, .tag = 3 };
    assert_refused(false, f, other_version, sizeof other_version, KITHI_E_VERSION);
    f = list;
    f.magic ^= 1;
    assert_refused(true, f, NULL, 0, KITHI_E_PROTOCOL);
    f = list;
    f.type = 9;
    assert_refused(true, f, NULL, 0, KITHI_E_PROTOCOL);
    f = list;
    f.flags = 1;
    assert_refused(true, f, NULL, 0, KITHI_E_PROTOCOL);
    f = list;
    f.count = 1;
    assert_refused(true, f, NULL, 0, KITHI_E_PROTOCOL);
    f = list;
    f.len = sizeof bytes;
    assert_refused(true, f, bytes, sizeof bytes, KITHI_E_PROTOCOL);
    f.type = KITHI_FRAME_STATS;
    f.len = 8;
    assert_refused(true, f, bytes, 8, KITHI_E_PROTOCOL);
    f.type = KITHI_FRAME_WRITE;
    f.len = 17;
    assert_refused(true, f, bytes, 17, KITHI_E_PROTOCOL);
    f.len = 16;
    f.flags = KITHI_DURABILITY_NONE + 1;
    assert_refused(true, f, bytes, 16, KITHI_E_PROTOCOL);
    f.flags = 0;
    f.type = KITHI_FRAME_DROP;
    f.len = sizeof bytes;
    assert_refused(true, f, bytes, sizeof bytes, KITHI_E_PROTOCOL);
}

static void a_list_says_which_collections_are_served(void **state)
{
    struct peer p;
    struct peer_reply r;
    uint32_t body[4] = { KITHI_LIST_STATES, 0, 0, 0 };
    (void)state;
    peer_open(&p, served.run.path);
    assert_int_equal(peer_create(&p, "listed", DIM, 0, NULL), 0);
    assert_int_equal(peer_call(&p, KITHI_FRAME_LIST, body, 8, 0, &r), 0);
    assert_int_equal(r.reply.found, 0);
    assert_non_null(strstr(r.text, "{\"ready\":true,"));
    assert_non_null(strstr(r.text, "{\"name\":\"listed\",\"state\":\"served\"}"));
    body[1] = 6;
    memcpy(&body[2], "listed\0\0", 8);
    assert_int_equal(peer_call(&p, KITHI_FRAME_LIST, body, 16, 0, &r), 0);
    assert_string_equal(r.text, "{\"ready\":true,\"served\":1,\"coming\":0,\"collections\":["
                                "{\"name\":\"listed\",\"state\":\"served\"}],\"refused\":0}");
    memcpy(&body[2], "absent\0\0", 8);
    assert_int_equal(peer_call(&p, KITHI_FRAME_LIST, body, 16, 0, &r), KITHI_E_NO_COLLECTION);
    body[1] = 60; /* more than there is */
    assert_int_equal(peer_call(&p, KITHI_FRAME_LIST, body, 16, 0, &r), KITHI_E_PROTOCOL);
    body[0] = 2;
    body[1] = 0;
    assert_int_equal(peer_call(&p, KITHI_FRAME_LIST, body, 8, 0, &r), KITHI_E_UNSUPPORTED);
    assert_int_equal(peer_drop(&p, "listed", NULL), 0);
    peer_close(&p);
}

static void a_frame_above_the_limit_is_refused_though_the_client_goes_on_sending(void **state)
{
    size_t len = KITHI_FRAME_MAX + 8;
    unsigned char *bytes = calloc(1, len);
    (void)state;
    assert_non_null(bytes);
    struct kithi_frame f = {
        .magic = KITHI_FRAME_MAGIC, .len = (uint32_t)len, .type = KITHI_FRAME_WRITE, .tag = 5
    };
    assert_refused(true, f, bytes, len, KITHI_E_TOO_LARGE);
    free(bytes);
}

static void a_client_that_leaves_in_the_middle_hurts_nobody(void **state)
{
    unsigned char bytes[sizeof(struct kithi_frame) + 16 + 64] = { 0 };
    struct kithi_frame f = {
        .magic = KITHI_FRAME_MAGIC, .len = 16 + 64, .type = KITHI_FRAME_WRITE, .count = 1, .tag = 5
    };
    (void)state;
    memcpy(bytes, &f, sizeof f);
    memcpy(bytes + sizeof f, good.uid, 16);
    for (size_t n = 1; n < sizeof bytes; n += 7) {
        struct peer p;
        peer_open(&p, served.run.path);
        peer_send(&p, bytes, n);
        peer_close(&p);
    }
    assert_daemon_goes_on();
}

static void a_write_that_came_whole_is_done_though_its_client_has_left(void **state)
{
    struct peer p;
    struct peer_reply r;
    (void)state;
    peer_open(&p, served.run.path);
    memcpy(p.uid, good.uid, sizeof p.uid);
    peer_send_write(&p, "orphan", 0, 1, DIM, 1);
    shutdown(p.fd, SHUT_WR);
    assert_true(peer_reply(&p, &r)); /* half closed: the answer still comes */
    assert_int_equal(r.reply.status, 0);
    assert_false(peer_reply(&p, &r));
    peer_close(&p);
    assert_int_equal(peer_write(&good, "orphan", 0, 1, 0, 0, &r), 0);
    assert_int_equal(r.reply.found, 1);
}

static void a_client_that_does_not_read_is_not_read_from_and_blocks_nobody(void **state)
{
    struct peer p;
    struct timeval patience = { .tv_usec = 200000 };
    struct kithi_frame f = { .magic = KITHI_FRAME_MAGIC, .len = 16, .type = KITHI_FRAME_STATS };
    unsigned char bytes[sizeof f + 16];
    unsigned sent = 0;
    (void)state;
    peer_open(&p, served.run.path);
    setsockopt(p.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    memcpy(bytes, &f, sizeof f);
    memcpy(bytes + sizeof f, good.uid, 16);
    while (sent < 1000000 && send(p.fd, bytes, sizeof bytes, MSG_NOSIGNAL) == (ssize_t)sizeof bytes) {
        sent++;
    }
    assert_in_range(sent, 1, 999999);
    assert_daemon_goes_on();
    for (unsigned i = 0; i < sent; i++) { /* and it gets every answer once it does */
        struct peer_reply r;
        assert_true(peer_reply(&p, &r));
        assert_int_equal(r.reply.status, 0);
    }
    peer_close(&p);
}

/* Each of them is answered, although the back-up is opened on a helper thread meanwhile. */
static void a_backup_and_its_pieces_may_be_asked_for_in_one_go(void **state)
{
    enum { PIECES = 2, HEAD = sizeof(struct kithi_frame) };
    unsigned char bytes[HEAD + 16 + PIECES * HEAD];
    struct kithi_frame f = { .magic = KITHI_FRAME_MAGIC, .len = 16, .type = KITHI_FRAME_BACKUP, .tag = 70 };
    struct timeval patience = { .tv_sec = 60 };
    struct peer_reply r;
    struct peer p;
    (void)state;
    for (int round = 0; round < 3; round++) {
        peer_open(&p, served.run.path);
        assert_int_equal(setsockopt(p.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
        f.len = 16;
        f.type = KITHI_FRAME_BACKUP;
        f.tag = 70;
        memcpy(bytes, &f, HEAD);
        memcpy(bytes + HEAD, good.uid, 16);
        f.len = 0;
        f.type = KITHI_FRAME_BACKUP_NEXT;
        for (unsigned i = 0; i < PIECES; i++) {
            f.tag = 71 + i;
            memcpy(bytes + HEAD + 16 + i * HEAD, &f, HEAD);
        }
        peer_send(&p, bytes, sizeof bytes);
        /* Pieces that are asked for while a checkpoint is being made are refused; behind one that is there they wait. */
        for (unsigned i = 0, seen = 0; i <= PIECES; i++) {
            assert_true(peer_reply(&p, &r));
            assert_in_range(r.frame.tag, 70, 70 + PIECES);
            assert_int_equal(seen >> (r.frame.tag - 70) & 1, 0);
            seen |= 1u << (r.frame.tag - 70);
            assert_true(r.reply.status == 0 || (round == 0 && r.reply.status == KITHI_E_PROTOCOL));
        }
        peer_close(&p);
    }
    assert_daemon_goes_on();
}

static void transfers_of_back_ups_are_held_to_their_order(void **state)
{
    struct peer p;
    struct peer_reply r;
    struct kithi_backup_begun begun;
    (void)state;
    peer_open(&p, served.run.path);
    assert_int_equal(peer_call(&p, KITHI_FRAME_BACKUP_NEXT, NULL, 0, 0, &r), KITHI_E_PROTOCOL);
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_DATA, "12345678", 8, 0, &r), KITHI_E_PROTOCOL);
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_END, NULL, 0, 0, &r), KITHI_E_PROTOCOL);
    assert_int_equal(peer_call(&p, KITHI_FRAME_BACKUP, "no uid of a coll", 16, 0, &r), KITHI_E_NO_COLLECTION);

    /* One on a connection; the first piece is the header. */
    assert_int_equal(peer_call(&p, KITHI_FRAME_BACKUP, good.uid, 16, 0, &r), 0);
    assert_int_equal(r.reply.text_len, sizeof begun);
    memcpy(&begun, r.text, sizeof begun);
    assert_int_equal(peer_call(&p, KITHI_FRAME_BACKUP, good.uid, 16, 0, &r), KITHI_E_PROTOCOL);
    assert_int_equal(peer_call(&p, KITHI_FRAME_BACKUP_NEXT, NULL, 0, 0, &r), 0);
    assert_int_equal(r.reply.text_len, KITHI_RESTORE_HEAD);

    struct {
        struct kithi_restore head;
        char name[8];
    } restore = { .head = { .size = begun.bytes, .name_len = 5 }, .name = "again" };
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0, &r), KITHI_E_FORMAT);
    peer_close(&p);
    peer_open(&p, served.run.path);
    assert_int_equal(peer_call(&p, KITHI_FRAME_BACKUP, good.uid, 16, 0, &r), 0);
    assert_int_equal(peer_call(&p, KITHI_FRAME_BACKUP_NEXT, NULL, 0, 0, &r), 0);
    memcpy(restore.head.head, r.text, KITHI_RESTORE_HEAD);
    peer_close(&p);

    peer_open(&p, served.run.path);
    restore.head.reserved = 1;
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0, &r), KITHI_E_PROTOCOL);
    restore.head.reserved = 0;
    restore.name[0] = '.';
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0, &r), KITHI_E_NAME);
    restore.name[0] = 'a';
    restore.head.size += 8;
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0, &r), KITHI_E_TRUNCATED);
    restore.head.size -= 8;
    /* Neither bytes nor end wait for the answer of the beginning. */
    peer_send_frame(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0);
    peer_send_frame(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0);
    unsigned begins = 0;
    for (unsigned i = 0; i < 2; i++) {
        assert_true(peer_reply(&p, &r));
        begins += r.reply.status == 0;
        assert_true(r.reply.status == 0 || r.reply.status == KITHI_E_PROTOCOL);
    }
    assert_int_equal(begins, 1);

    /* Too little, too early. */
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_END, NULL, 0, 0, &r), KITHI_E_TRUNCATED);
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_DATA, "12345678", 8, 0, &r), KITHI_E_PROTOCOL);
    /* Too much. */
    static const unsigned char zeros[KITHI_RESTORE_PIECE_MAX];
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0, &r), 0);
    for (uint64_t sent = 0; sent < begun.bytes - KITHI_RESTORE_HEAD; sent += 4096) {
        assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_DATA, zeros, 4096, 0, &r), 0);
    }
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_DATA, zeros, 8, 0, &r), KITHI_E_PROTOCOL);
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_DATA, zeros, 8, 0, &r), KITHI_E_PROTOCOL);
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_END, NULL, 0, 0, &r), KITHI_E_PROTOCOL);
    /* As many as there are, and no back-up at all. */
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0, &r), 0);
    for (uint64_t sent = 0; sent < begun.bytes - KITHI_RESTORE_HEAD; sent += 4096) {
        assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_DATA, zeros, 4096, 0, &r), 0);
    }
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE_END, NULL, 0, 0, &r), KITHI_E_CORRUPT);
    /* In the middle of it, the peer leaves. */
    assert_int_equal(peer_call(&p, KITHI_FRAME_RESTORE, &restore, sizeof restore, 0, &r), 0);
    peer_send_frame(&p, KITHI_FRAME_RESTORE_DATA, zeros, 4096, 0);
    peer_close(&p);
    assert_daemon_goes_on();
}

static void any_bytes_at_all_leave_the_daemon_as_it_was(void **state)
{
    struct test_rand rand;
    (void)state;
    test_rand_init(&rand);
    for (unsigned round = 0; round < 300; round++) {
        struct peer p;
        unsigned char body[16 + 256] = { 0 };
        if (test_rand_below(&rand, 4)) {
            peer_open(&p, served.run.path);
        } else {
            peer_connect(&p, served.run.path);
        }
        for (unsigned n = test_rand_below(&rand, 5); n > 0; n--) {
            memcpy(body, good.uid, 16);
            size_t len = 16 + kithi_op_encode(body + 16, "fuzz", 4, (const float[DIM]){ 1, 2, 3, 4 }, DIM);
            len += kithi_op_encode(body + len, "fuzz", 4, NULL, 0);
            for (unsigned flips = test_rand_below(&rand, 4); flips > 0; flips--) {
                body[16 + test_rand_below(&rand, (uint32_t)len - 16)] =
                    (unsigned char)test_rand_below(&rand, 256);
            }
            if (test_rand_below(&rand, 4)) {
                peer_send_frame(&p,
                                test_rand_below(&rand, 2)
                                    ? KITHI_FRAME_WRITE
                                    : 1 + test_rand_below(&rand, KITHI_FRAME_RESTORE_END),
                                body, test_rand_below(&rand, 2) ? len : 8 * test_rand_below(&rand, 4),
                                test_rand_below(&rand, 4));
            } else {
                peer_send(&p, body + 16, test_rand_below(&rand, (uint32_t)len - 16));
            }
        }
        peer_close(&p);
    }
    assert_daemon_goes_on();
}

static void a_full_collection_waits_for_dead_slots_and_refuses_what_can_never_fit(void **state)
{
    struct peer p;
    struct peer_reply r;
    (void)state;
    peer_open(&p, served.run.path);
    assert_int_equal(peer_create(&p, "small", DIM, 100 | KITHI_CREATE_FIXED, NULL), 0);
    assert_int_equal(peer_use(&p, "small", NULL), 0);
    for (unsigned i = 0; i < 50; i++) { /* fifty times the same 40: 2,000 slots if none were reused */
        assert_int_equal(peer_write(&p, "s", 0, 40, DIM, (float)i, &r), 0);
    }
    assert_int_equal(peer_write(&p, "t", 0, 101, DIM, 1, &r), KITHI_E_FULL);
    assert_int_equal(peer_stat(&p, "live"), 40);
    assert_int_equal(peer_drop(&p, "small", &r), 0);
    assert_int_equal(peer_write(&p, "s", 0, 1, DIM, 1, &r), KITHI_E_NO_COLLECTION);
    peer_close(&p);
}

#ifdef KITH_FAULT_POINTS
/* Whoever waits for a checkpoint, during which writes may wait, too, has to be able to tell that from a hang. */
static void a_daemon_that_takes_no_more_writes_still_gives_signs_of_life(void **state)
{
    enum { MANY = 5 };
    struct peer w[MANY], first, p;
    struct peer_reply r;
    const uint32_t hello[2] = { KITHI_WIRE_VERSION, 0 };
    char held[KITHI_PATH_MAX];
    (void)state;
    /* A write that needs what is free has to wait until that is known, which a test can hold. */
    assert_int_equal(peer_create(&good, "tight", DIM, 64 | KITHI_CREATE_FIXED, NULL), 0);
    assert_int_equal(peer_use(&good, "tight", NULL), 0);
    assert_int_equal(peer_write(&good, "t", 0, 64, DIM, 1, NULL), 0);
    assert_int_equal(peer_write(&good, "t", 0, 32, 0, 0, NULL), 0);
    peer_close(&good);
    assert_int_equal(served_stop(&served), 0);
    snprintf(held, sizeof held, "%s/census-tight", served.run.path);
    fclose(fopen(held, "w"));
    setenv("KITH_HOLD", served.run.path, 1);
    assert_int_equal(served_start(&served, NULL), 0);
    peer_open(&good, served.run.path);
    assert_int_equal(peer_use(&good, "tight", NULL), 0);
    peer_open(&first, served.run.path);
    assert_int_equal(peer_use(&first, "tight", NULL), 0);
    assert_int_equal(peer_write(&first, "t", 40, 1, 0, 0, NULL), 0); /* since the last checkpoint */
    peer_send_write(&first, "u", 0, 33, DIM, 2);
    for (unsigned i = 0; i < MANY; i++) { /* 75 MiB */
        peer_open(&w[i], served.run.path);
        assert_int_equal(peer_use(&w[i], "tight", NULL), 0);
        peer_send_write(&w[i], "v", 0, 15000, 256, 1);
    }
    uint64_t end_ms = kithi_now_ms() + 60000;
    while (peer_stat(&good, "waiting") < MANY + 1) {
        assert_true(kithi_now_ms() < end_ms);
    }
    peer_open(&p, served.run.path);
    assert_int_equal(peer_use(&p, "tight", NULL), 0);
    peer_send_frame(&p, KITHI_FRAME_CHECKPOINT, p.uid, sizeof p.uid, 0);
    uint64_t checkpoint = p.tag;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(peer_call(&p, KITHI_FRAME_HELLO, hello, sizeof hello, 0, &r), 0);
    }
    /* But no more of anything else. */
    peer_send_frame(&p, KITHI_FRAME_STATS, p.uid, sizeof p.uid, 0);
    assert_int_equal(unlink(held), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(peer_reply(&p, &r));
        assert_int_equal(r.reply.status, 0);
        assert_true(i || r.frame.tag == checkpoint || r.frame.tag == p.tag);
    }
    assert_true(peer_reply(&first, &r));
    assert_int_equal(r.reply.status, 0);
    for (unsigned i = 0; i < MANY; i++) {
        assert_true(peer_reply(&w[i], &r));
        assert_int_equal(r.reply.status, KITHI_E_DIMENSION);
        peer_close(&w[i]);
    }
    peer_close(&first);
    peer_close(&p);
    unsetenv("KITH_HOLD");
    assert_int_equal(peer_use(&good, "docs", NULL), 0);
    assert_daemon_goes_on();
}

/* As long as a stop takes: that of a large checkpoint, on a slow disk. */
static void a_daemon_that_stops_gives_signs_of_life_to_who_waits_and_begins_nothing(void **state)
{
    struct peer p, b;
    struct peer_reply r;
    const uint32_t hello[2] = { KITHI_WIRE_VERSION, 0 };
    char held[KITHI_PATH_MAX], sock[KITHI_PATH_MAX];
    (void)state;
    peer_open(&b, served.run.path);
    assert_int_equal(peer_use(&b, "docs", NULL), 0);
    assert_int_equal(peer_call(&b, KITHI_FRAME_BACKUP, b.uid, sizeof b.uid, 0, &r), 0);
    assert_daemon_goes_on();
    snprintf(held, sizeof held, "%s/checkpoint-docs", served.run.path);
    snprintf(sock, sizeof sock, "%s/kithd.sock", served.run.path);
    fclose(fopen(held, "w"));
    setenv("KITH_HOLD", served.run.path, 1);
    peer_open(&p, served.run.path);
    assert_int_equal(peer_use(&p, "docs", NULL), 0);
    peer_send_frame(&p, KITHI_FRAME_CHECKPOINT, p.uid, sizeof p.uid, 0);
    uint64_t checkpoint = p.tag;
    assert_int_equal(peer_call(&p, KITHI_FRAME_HELLO, hello, sizeof hello, 0, &r), 0);
    kill(getpid(), SIGTERM);
    for (uint64_t end_ms = kithi_now_ms() + 60000; access(sock, F_OK) == 0; test_nap()) {
        assert_true(kithi_now_ms() < end_ms);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(peer_call(&p, KITHI_FRAME_HELLO, hello, sizeof hello, 0, &r), 0);
        assert_int_equal(r.frame.tag, p.tag);
    }
    /* Who is in the middle of a back-up hears that there is no more of it; for a flush it is too late. */
    assert_int_equal(peer_call(&b, KITHI_FRAME_BACKUP_NEXT, NULL, 0, 0, &r), KITHI_E_SHUTDOWN);
    peer_send_frame(&p, KITHI_FRAME_FLUSH, p.uid, sizeof p.uid, 0);
    assert_int_equal(unlink(held), 0);
    assert_true(peer_reply(&p, &r));
    assert_int_equal(r.frame.tag, checkpoint);
    assert_int_equal(r.reply.status, 0);
    assert_false(peer_reply(&p, &r));
    assert_int_equal(served_wait(&served), 0);
    peer_close(&p);
    peer_close(&b);
    peer_close(&good);
    unsetenv("KITH_HOLD");
    assert_int_equal(served_start(&served, NULL), 0);
    peer_open(&good, served.run.path);
    assert_int_equal(peer_use(&good, "docs", NULL), 0);
    assert_daemon_goes_on();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_are_answered_with_epoch_and_found),
        cmocka_unit_test(pipelined_writes_are_answered_in_order_and_flush_after_them),
        cmocka_unit_test(a_refused_write_names_its_item_and_leaves_nothing),
        cmocka_unit_test(a_change_that_is_none_is_named_with_its_field),
        cmocka_unit_test(a_delete_under_a_condition_is_one_or_nothing),
        cmocka_unit_test(a_list_of_fields_to_remove_that_is_cut_off_is_called_that),
        cmocka_unit_test(a_change_removes_64_fields_at_most),
        cmocka_unit_test(an_id_of_512_bytes_is_called_that),
        cmocka_unit_test(collections_are_checked_as_they_are_made),
        cmocka_unit_test(a_collection_is_made_with_the_index_that_was_asked_for),
        cmocka_unit_test(a_collection_is_opened_with_the_codes_that_were_asked_for),
        cmocka_unit_test(bytes_that_are_no_frame_get_a_reply_and_the_end),
        cmocka_unit_test(a_list_says_which_collections_are_served),
        cmocka_unit_test(a_frame_above_the_limit_is_refused_though_the_client_goes_on_sending),
        cmocka_unit_test(a_client_that_leaves_in_the_middle_hurts_nobody),
        cmocka_unit_test(a_write_that_came_whole_is_done_though_its_client_has_left),
        cmocka_unit_test(a_client_that_does_not_read_is_not_read_from_and_blocks_nobody),
        cmocka_unit_test(transfers_of_back_ups_are_held_to_their_order),
        cmocka_unit_test(a_backup_and_its_pieces_may_be_asked_for_in_one_go),
        cmocka_unit_test(any_bytes_at_all_leave_the_daemon_as_it_was),
        cmocka_unit_test(a_full_collection_waits_for_dead_slots_and_refuses_what_can_never_fit),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_daemon_that_takes_no_more_writes_still_gives_signs_of_life),
        cmocka_unit_test(a_daemon_that_stops_gives_signs_of_life_to_who_waits_and_begins_nothing),
#endif
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
