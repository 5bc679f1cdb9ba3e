/*
 * test_keys.c - what a file of keys may say, and what a key allows; who is a stranger without any.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/gateway/keys.h"

#define KEY "0123456789abcdef"

static struct kithi_keys keys;
static struct kithi_errmsg err;

static int parse(const char *text)
{
    kithi_keys_fini(&keys);
    err = (struct kithi_errmsg){ 0 };
    return kithi_keys_parse("k", text, strlen(text), &keys, &err);
}

static struct kithi_part part(const char *text)
{
    return (struct kithi_part){ text, strlen(text) };
}

static void keys_allow_what_their_line_says(void **state)
{
    (void)state;
    assert_int_equal(parse("# c\n\n one\tread a,b-2 " KEY "1\r\ntwo write * " KEY "2"), 0);
    assert_int_equal(keys.count, 2);
    const struct kithi_key *one = kithi_keys_find(&keys, part(KEY "1")),
                           *two = kithi_keys_find(&keys, part(KEY "2"));
    assert_string_equal(one->name, "one");
    assert_true(kithi_key_allows(one, "a", false) && kithi_key_allows(one, "b-2", false));
    assert_false(kithi_key_allows(one, "a", true) || kithi_key_allows(one, "b", false) ||
                 kithi_key_allows(one, NULL, false));
    assert_false(kithi_key_allows(one, "a,b-2", false) || kithi_key_allows(one, "", false));
    assert_true(kithi_key_allows(two, "any", true) && kithi_key_allows(two, NULL, true));
    static const char *const others[] = { "", KEY, KEY "12", KEY "3", "0" };
    for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_null(kithi_keys_find(&keys, part(others[i])));
    }
    /* The padding of a key is none of it. */
    assert_null(kithi_keys_find(&keys, (struct kithi_part){ KEY "1\0", sizeof KEY + 1 }));
    assert_null(kithi_keys_find(&keys, (struct kithi_part){ NULL, 0 }));
}

static void names_of_certificates_are_no_keys(void **state)
{
    (void)state;
    assert_int_equal(parse("one read a cert:site.example.org\ntwo write * site.example.org0\n"
                           "three read * site.example.org-it\nfour read * cert:x\n"),
                     0);
    assert_int_equal(keys.count, 4);
    const struct kithi_key *one = kithi_keys_certified(&keys, "site.example.org");
    assert_string_equal(one->name, "one");
    assert_true(kithi_key_allows(one, "a", false));
    assert_string_equal(kithi_keys_certified(&keys, "x")->name, "four");
    /* What is presented is never a name, nor a name a key. */
    assert_null(kithi_keys_find(&keys, part("site.example.org")));
    assert_null(kithi_keys_find(&keys, part("cert:site.example.org")));
    assert_null(kithi_keys_certified(&keys, "site.example.org0"));
    assert_null(kithi_keys_certified(&keys, "site.example.or"));
    assert_null(kithi_keys_certified(&keys, "cert:x"));
    assert_null(kithi_keys_certified(&keys, ""));
    /* A name may be what a key is; each is there once. */
    assert_int_equal(parse("a read * cert:" KEY "\nb read * " KEY), 0);
    assert_int_equal(parse("a read * cert:n\nb read * cert:n"), KITHI_E_FORMAT);
    assert_non_null(strstr(err.text, "k:2: its name or its key is there twice"));
    assert_int_equal(parse("a read * cert:"), KITHI_E_FORMAT);
    assert_int_equal(parse("a read * cert:" KEY KEY KEY KEY), 0);
    assert_int_equal(parse("a read * cert:" KEY KEY KEY KEY "1"), KITHI_E_FORMAT);
    assert_non_null(strstr(err.text, "64"));
}

static void wrong_lines_are_named_without_the_key(void **state)
{
    (void)state;
    static const char *const bad[] = { "a read *",
                                       "a read * short",
                                       "a see * " KEY,
                                       "a read a..b " KEY,
                                       "a read a,,b " KEY,
                                       "a read , " KEY,
                                       "a read * " KEY " x",
                                       "a read * \xc3\xa9" KEY,
                                       "",
                                       "#\n",
                                       "a read * " KEY "\nb write * " KEY,
                                       "a read * " KEY "\na write * " KEY "x",
                                       "abcdefghijklmnopqrstuvwxyz0123456789 read * " KEY };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(bad[i]), KITHI_E_FORMAT);
        assert_true(!strncmp(err.text, "k:", 2) && !strstr(err.text, KEY));
    }
}

static void a_key_is_presented_in_two_ways(void **state)
{
    (void)state;
    struct kithi_http_head head = { .status = 0 };
    struct kithi_part out;
    assert_true(kithi_keys_presented(&head, &out) && !out.at);
    head.api_key = part("k");
    assert_true(kithi_keys_presented(&head, &out) && kithi_part_is(out, "k"));
    head.authorization = part("Bearer k");
    assert_true(kithi_keys_presented(&head, &out) && kithi_part_is(out, "k"));
    head.authorization = part("Bearer l");
    assert_false(kithi_keys_presented(&head, &out));
    head.authorization = part("Basic k");
    assert_false(kithi_keys_presented(&head, &out));
}

static void strangers_are_seen_by_origin_site_and_host(void **state)
{
    (void)state;
    static const char *const own[] = { "localhost",   "LocalHost:8080", "127.0.0.1",
                                       "127.9.9.9:1", "[::1]",          "[::1]:8080" };
    static const char *const foreign[] = { "example.org", "localhost.", "127.0.0.1.example.org",
                                           "127.a",       "[::1].x",    "[::2]",
                                           "10.0.0.1",    "127." };
    struct kithi_http_head head = { .status = 0 };
    for (unsigned i = 0; i < sizeof own / sizeof own[0]; i++) {
        head.host = part(own[i]);
        assert_null(kithi_keys_stranger(&head, true, true));
    }
    for (unsigned i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        head.host = part(foreign[i]);
        assert_non_null(kithi_keys_stranger(&head, true, true));
        assert_null(kithi_keys_stranger(&head, false, true));
    }
    head.host = part("localhost");
    head.fetch_site = part("same-origin");
    assert_null(kithi_keys_stranger(&head, true, true));
    head.fetch_site = part("cross-site");
    assert_non_null(kithi_keys_stranger(&head, false, true));
    head.fetch_site.at = NULL;
    head.origin = part("null");
    assert_non_null(kithi_keys_stranger(&head, true, true));
}

static void the_page_of_the_gateway_itself_reads_and_does_not_write(void **state)
{
    (void)state;
    static const char *const foreign[] = { "null",
                                           "http://",
                                           "http://localhost",
                                           "http://localhost:8080.",
                                           "http://localhost:80801",
                                           "http://localhost:8081",
                                           "http://a.localhost:8080",
                                           "ftp://localhost:8080",
                                           "localhost:8080",
                                           "http://example.org" };
    struct kithi_http_head head = { .host = part("localhost:8080"), .origin = part("http://localhost:8080") };
    assert_null(kithi_keys_stranger(&head, true, false));
    assert_non_null(kithi_keys_stranger(&head, true, true));
    head.origin = part("https://LOCALHOST:8080");
    assert_null(kithi_keys_stranger(&head, true, false));
    for (unsigned i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        head.origin = part(foreign[i]);
        assert_non_null(kithi_keys_stranger(&head, true, false));
    }
    /* A name that a page has made to mean this address is still no loopback name. */
    head.host = part("example.org");
    head.origin = part("http://example.org");
    assert_non_null(kithi_keys_stranger(&head, true, false));
    assert_null(kithi_keys_stranger(&head, false, false));
    head.host = (struct kithi_part){ NULL, 0 };
    assert_non_null(kithi_keys_stranger(&head, true, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_allow_what_their_line_says),
        cmocka_unit_test(names_of_certificates_are_no_keys),
        cmocka_unit_test(wrong_lines_are_named_without_the_key),
        cmocka_unit_test(a_key_is_presented_in_two_ways),
        cmocka_unit_test(strangers_are_seen_by_origin_site_and_host),
        cmocka_unit_test(the_page_of_the_gateway_itself_reads_and_does_not_write),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kithi_keys_fini(&keys);
    return failed;
}
