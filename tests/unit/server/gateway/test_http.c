/*
 * test_http.c - which bytes are a request, and where they end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/gateway/http.h"

static struct kithi_http_head head;

/* The status of a refusal, or 0. */
static int read_head(const char *text, size_t len)
{
    size_t scanned = 0;
    head = (struct kithi_http_head){ .status = 0 };
    long end = kithi_http_end(text, len, &scanned, &head);
    if (end > 0) {
        assert_true((size_t)end <= len);
        return kithi_http_head(text, (size_t)end, &head) < 0 ? head.status : 0;
    }
    return end < 0 ? head.status : -1;
}

#define READ(text) read_head(text, sizeof(text) - 1)

static void a_request_is_read(void **state)
{
    (void)state;
    assert_int_equal(
        READ("POST /a/b?c=d HTTP/1.1\r\nhost: x:80\r\nCONTENT-LENGTH:  12 \r\nX-Api-Key: k\r\n\r\nrest"), 0);
    assert_int_equal(head.method, KITHI_HTTP_POST);
    assert_true(kithi_part_is(head.path, "/a/b") && kithi_part_is(head.query, "c=d"));
    assert_true(kithi_part_is(head.host, "x:80") && kithi_part_is(head.api_key, "k"));
    assert_true(head.has_length && head.length == 12 && head.keep_alive && !head.chunked && !head.expects);
    assert_int_equal(READ("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo , Close\r\n\r\n"), 0);
    assert_false(head.keep_alive);
    assert_int_equal(READ("GET / HTTP/1.0\r\n\r\n"), 0);
    assert_true(head.old && !head.keep_alive);
    assert_int_equal(READ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), 0);
    assert_true(head.keep_alive);
    assert_int_equal(
        READ("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"), 0);
    assert_true(head.chunked && head.expects && !head.has_length);
}

static void its_end_is_found_however_it_comes(void **state)
{
    (void)state;
    static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    size_t scanned = 0;
    for (size_t len = 0; len + 1 < sizeof text - 1; len++) {
        assert_int_equal(kithi_http_end(text, len, &scanned, &head), 0);
    }
    assert_int_equal(kithi_http_end(text, sizeof text - 1, &scanned, &head), sizeof text - 1);
}

static void what_can_be_understood_in_two_ways_is_refused(void **state)
{
    (void)state;
    assert_int_equal(READ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
    assert_int_equal(READ("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
    assert_int_equal(READ("GET / HTTP/1.1\nHost: x\n\n"), 400);
    assert_int_equal(READ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"), 400);
    assert_int_equal(READ("GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"), 400);
    assert_int_equal(READ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"), 400);
    assert_int_equal(
        READ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    assert_int_equal(READ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
                     400);
    assert_int_equal(READ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"), 501);
    assert_int_equal(READ("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(READ("GET / HTTP/3.0\r\nHost: x\r\n\r\n"), 505);
    assert_int_equal(READ("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

/* The body that chunks of text hold, given step bytes at a time; -1: refused, -2: not over. */
static long chunks(const char *text, size_t len, size_t step, char *out)
{
    struct kithi_http_chunks c = { 0 };
    size_t filled = 0;
    for (size_t at = 0; at < len;) {
        struct kithi_part part;
        size_t used, give = len - at < step ? len - at : step;
        int rc = kithi_http_chunk(&c, text + at, give, &used, &part);
        memcpy(out + filled, part.at, part.len);
        filled += part.len;
        at += used;
        if (rc < 0) {
            return -1;
        }
        if (rc == 1) {
            assert_int_equal(at, len);
            return (long)filled;
        }
    }
    return -2;
}

static void chunks_are_put_together(void **state)
{
    (void)state;
    static const char text[] = "5\r\nhello\r\n00B\r\n, and more.\r\n0\r\n\r\n";
    char out[64];
    for (size_t step = 1; step < sizeof text; step++) {
        assert_int_equal(chunks(text, sizeof text - 1, step, out), 16);
        assert_memory_equal(out, "hello, and more.", 16);
    }
    assert_int_equal(chunks("5;a=b\r\n", 7, 7, out), -1);
    assert_int_equal(chunks("5\n", 2, 2, out), -1);
    assert_int_equal(chunks("\r\n", 2, 2, out), -1);
    assert_int_equal(chunks("0\r\nA: b\r\n\r\n", 11, 11, out), -1);
    assert_int_equal(chunks("1000000000000000\r\n", 18, 18, out), -1);
    assert_int_equal(chunks("2\r\nabc\r\n", 8, 8, out), -1);
    assert_int_equal(chunks("2\r\na", 4, 4, out), -2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_read),
        cmocka_unit_test(its_end_is_found_however_it_comes),
        cmocka_unit_test(what_can_be_understood_in_two_ways_is_refused),
        cmocka_unit_test(chunks_are_put_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
