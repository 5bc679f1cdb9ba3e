/*
 * test_log.c - a log line says what it was given, as one line that a program can take apart.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base/log.h"

static int out[2];

static int setup(void **state)
{
    (void)state;
    if (pipe(out) != 0)
        return -1;
    kithi_log_set_fd(out[1]);
    kithi_log_set_level(KITHI_LOG_INFO);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kithi_log_set_fd(STDERR_FILENO);
    close(out[0]);
    close(out[1]);
    return 0;
}

/* What was logged, behind the time stamp. */
static const char *line(void)
{
    static char buf[16384];
    ssize_t n = read(out[0], buf, sizeof buf - 1);
    assert_true(n > 34);
    buf[n] = '\0';
    assert_memory_equal(buf, "ts=2", 4);
    assert_int_equal(buf[13], 'T');
    assert_memory_equal(buf + 29, "Z level=", 8);
    return buf + 31;
}

static void a_line_holds_level_event_and_fields(void **state)
{
    (void)state;
    kithi_log(KITHI_LOG_INFO, "collection-open", "name=%s epoch=%" PRIu64 " dim=%u share=%.2f hex=%08x c=%c",
              "docs", UINT64_C(18446744073709551615), 128u, 0.5, 0xabcu, 'x');
    assert_string_equal(line(),
                        "level=info event=collection-open name=docs epoch=18446744073709551615 dim=128 "
                        "share=0.50 hex=00000abc c=x\n");
    kithi_log(KITHI_LOG_ERROR, "e", "a=%d b=%-5ld| c=%5zu d=%hhu e=%lld f=%.*s g=%i%%", -1, 7L, (size_t)3,
              (unsigned char)255, -9LL, 2, "xyz", 50);
    assert_string_equal(line(), "level=error event=e a=-1 b=\"7    |\" c=\"    3\" d=255 e=-9 f=xy g=50%\n");
    kithi_log(KITHI_LOG_WARN, "nothing", "%s", "");
    assert_string_equal(line(), "level=warn event=nothing\n");
}

static void a_message_takes_the_rest_of_the_format(void **state)
{
    (void)state;
    kithi_log(KITHI_LOG_WARN, "torn", "file=%s msg=cut off %d bytes, because %s", "a.wal", 512, "it is torn");
    assert_string_equal(line(),
                        "level=warn event=torn file=a.wal msg=\"cut off 512 bytes, because it is torn\"\n");
}

static void no_value_passes_for_another_field_or_line(void **state)
{
    (void)state;
    kithi_log(KITHI_LOG_INFO, "e", "name=%s other=%s none=%s", "a level=error", "x\nts=1 \"\\\x01", "");
    assert_string_equal(
        line(), "level=info event=e name=\"a level=error\" other=\"x\\nts=1 \\\"\\\\\\x01\" none=\"\"\n");
}

static void a_long_line_is_cut_and_still_one_line(void **state)
{
    (void)state;
    char big[10000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    kithi_log(KITHI_LOG_INFO, "e", "a=%s b=%s", big, big);
    const char *s = line();
    size_t len = strlen(s);
    assert_true(len < 4096);
    assert_string_equal(s + len - 4, "...\n");
    assert_ptr_equal(strchr(s, '\n'), s + len - 1);
}

static void levels_above_the_set_one_are_dropped(void **state)
{
    (void)state;
    enum kithi_log_level level = KITHI_LOG_ERROR;
    kithi_log(KITHI_LOG_DEBUG, "unseen", "a=%d", 1);
    assert_false(kithi_log_enabled(KITHI_LOG_DEBUG));
    assert_int_equal(kithi_log_level_parse("debug", &level), 0);
    kithi_log_set_level(level);
    kithi_log(KITHI_LOG_DEBUG, "seen", "a=%d", 2);
    assert_string_equal(line(), "level=debug event=seen a=2\n");
    assert_int_equal(kithi_log_level_parse("loud", &level), -EINVAL);
}

static void logging_keeps_errno(void **state)
{
    (void)state;
    kithi_log_set_fd(-1);
    errno = ENOSPC;
    kithi_log(KITHI_LOG_INFO, "e", "a=%d", 1);
    assert_int_equal(errno, ENOSPC);
}

static void *log_some(void *arg)
{
    for (int i = 0; i < 50; i++)
        kithi_log(KITHI_LOG_INFO, "thread", "who=%d n=%d msg=a line that is not mixed with another",
                  *(int *)arg, i);
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    (void)state;
    pthread_t threads[4];
    int who[4] = { 0, 1, 2, 3 }, lines = 0;
    char buf[65536];
    size_t len = 0;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_some, &who[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL); /* 200 lines fit into the pipe */
    len = (size_t)read(out[0], buf, sizeof buf - 1);
    buf[len] = '\0';
    for (char *s = buf, *end; (end = strchr(s, '\n')) != NULL; s = end + 1, lines++) {
        assert_memory_equal(s, "ts=2", 4);
        assert_true(end - s > 60 && memcmp(end - 10, "h another\"", 10) == 0);
    }
    assert_int_equal(lines, 200);
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(a_line_holds_level_event_and_fields),
        CLAIM(a_message_takes_the_rest_of_the_format),
        CLAIM(no_value_passes_for_another_field_or_line),
        CLAIM(a_long_line_is_cut_and_still_one_line),
        CLAIM(levels_above_the_set_one_are_dropped),
        CLAIM(logging_keeps_errno),
        CLAIM(lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
