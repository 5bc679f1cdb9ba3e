/*
 * test_cli_wal.c - kith wal against a real kithd: what a log is said to hold is what was written, also while it
 * is being written; damage is named; a salvage keeps what is before it, and kithd starts from that.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <kith/kith.h>

#include "server/checkpoint/format.h"
#include "shm/base/bytes.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define BLOCK    4096
#define FILE_1   "00000000000000000001.wal"
#define FILE_4   "00000000000000000004.wal"
#define OUT_SIZE (1u << 20)

static struct test_daemon d;
static char data[TEST_PATH_SIZE + 8], run[TEST_PATH_SIZE + 8];
static char out[OUT_SIZE]; /* stdout and stderr of the last command */

/* kith --run RUN <args>, by the shell. Returns the exit status; 128 + the signal that ended it. */
static int __attribute__((format(printf, 1, 2))) tool(const char *fmt, ...)
{
    char args[1024], line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    snprintf(line, sizeof line, "timeout -s KILL 60 '%s' --run '%s' %s 2>&1", getenv("KITH_TEST_KITH"), run,
             args);
    FILE *p = popen(line, "r");
    if (p == NULL)
        test_die("popen: %s", strerror(errno));
    size_t n = fread(out, 1, sizeof out - 1, p);
    out[n] = '\0';
    while (fgetc(p) != EOF) {
    }
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void says(const char *text)
{
    if (strstr(out, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, out);
}

static void says_not(const char *text)
{
    if (strstr(out, text) != NULL)
        fail_msg("\"%s\" is in: %s", text, out);
}

static void expect(int status, int wanted)
{
    if (status != wanted)
        fail_msg("status %d, not %d: %s", status, wanted, out);
}

/* A new daemon with a collection of `groups` vectors, a group each: epoch e is in block e of the only file. */
static void begin(unsigned groups)
{
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("create docs --dim 2 --metric l2"), 0);
    for (unsigned i = 1; i <= groups; i++)
        expect(tool("put docs id%u --vector '[%u,1]'", i, i), 0);
}

static const char *log_file(void)
{
    static char path[2 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/docs/wal/" FILE_1, data);
    return path;
}

static void flip_in(const char *file, off_t at)
{
    unsigned char byte;
    int fd = open(file, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void flip(off_t at)
{
    flip_in(log_file(), at);
}

/* Of the log file, as its header has it. */
static uint64_t number(void)
{
    unsigned char word[8];
    int fd = open(log_file(), O_RDONLY);
    assert_int_equal(pread(fd, word, sizeof word, 24), sizeof word);
    close(fd);
    return kithi_get64(word);
}

static void remove_segment(void)
{
    assert_int_equal(unlink(test_daemon_segment(&d, "docs")), 0);
}

static bool there(const char *name)
{
    char path[2 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/docs/%s", data, name);
    return access(path, F_OK) == 0;
}

/* kithd does not come up. */
static void refuses(void)
{
    int status = 0;
    test_daemon_spawn(&d);
    for (uint64_t end = test_now_ms() + 30000; test_daemon_alive(&d, &status); test_nap())
        if (test_now_ms() > end || test_daemon_answers(&d))
            fail_msg("kithd starts");
}

static unsigned count_lines(const char *with)
{
    unsigned n = 0;
    for (const char *p = out; (p = strstr(p, with)) != NULL; p++)
        n++;
    return n;
}

/* ---- looking ----------------------------------------------------------------------------- */

static void files_groups_and_records_are_what_was_written(void **state)
{
    (void)state;
    char line[200];
    begin(5);
    expect(tool("delete docs id2"), 0);
    expect(tool("wal docs"), 0); /* kithd says where */
    says("NUMBER");
    says(FILE_1);
    says("good");
    says("1 to 6");
    says("whole");
    says("kithd holds it open for writing");
    says_not("CHECKSUM");
    expect(tool("wal docs --groups"), 0);
    says("CHECKSUM");
    says_not("upsert");
    expect(tool("wal docs --records"), 0);
    says("    upsert id5 dim 2\n");
    says("    delete id2\n");
    assert_int_equal(count_lines("    upsert "), 5);

    expect(tool("--json wal docs --records"), 0);
    assert_int_equal(count_lines("{\"kind\":\"file\""), 1);
    assert_int_equal(count_lines("{\"kind\":\"group\""), 6);
    assert_int_equal(count_lines("{\"kind\":\"record\""), 6);
    snprintf(line, sizeof line,
             "{\"kind\":\"file\",\"file\":\"" FILE_1 "\",\"number\":%" PRIu64
             ",\"first_epoch\":1,\"size\":67108864,\"header\":\"good\",\"timeline\":",
             number());
    says(line);
    says("{\"kind\":\"group\",\"epoch\":3,\"file\":\"" FILE_1 "\",\"offset\":12288,\"bytes\":32,\"n_ops\":1,"
         "\"durable_epoch\":2,\"timeline\":");
    says("{\"kind\":\"record\",\"epoch\":6,\"type\":\"delete\",\"id\":\"id2\",\"dim\":0}\n");
    says("\"state\":\"whole\",\"in_use\":true,\"groups\":6,\"changes\":6,\"bytes\":184,\"first_epoch\":1,"
         "\"last_epoch\":6,\"torn\":null,\"ignored\":null,\"damage\":null,\"spoilt\":null}\n");

    expect(tool("--json wal docs --groups --from 3 --to 4"), 0);
    assert_int_equal(count_lines("{\"kind\":\"group\""), 2);
    says("\"groups\":2,\"changes\":2,\"bytes\":64,\"first_epoch\":3,\"last_epoch\":4");
    expect(tool("--json wal docs --from 7"), 0);
    says("\"groups\":0,\"changes\":0,\"bytes\":0,\"first_epoch\":0,\"last_epoch\":0");

    assert_int_equal(test_daemon_stop(&d), 0);
    expect(tool("wal docs"), 1);
    says("--data DIR");
    expect(tool("wal docs --data '%s'", data), 0);
    says("1 to 6");
    says_not("in use");
}

static void a_log_of_several_lives_counts_each_group_once(void **state)
{
    (void)state;
    begin(3);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(test_daemon_stop(&d), 0);
        assert_int_equal(test_daemon_start(&d), 0);
        expect(tool("put docs more%d --vector '[7,7]'", life), 0);
    }
    expect(tool("--json wal docs --groups"), 0);
    assert_int_equal(count_lines("{\"kind\":\"file\""), 3);
    assert_int_equal(count_lines("{\"kind\":\"group\""), 5);
    says("\"groups\":5,");
    says("\"last_epoch\":5,");
}

/* The writer of the next test: a group after the other, as quickly as they become durable, until it is told to stop. */
static int writer(void *arg)
{
    const volatile int *stop = arg;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    const float vector[2] = { 1, 2 };
    kith *index = NULL;
    opts.run_dir = run;
    if (kith_open("docs", &opts, &index) != 0)
        return 1;
    for (unsigned i = 0; !*stop; i++) {
        char id[16];
        snprintf(id, sizeof id, "m%u", i % 500);
        if (kith_upsert(index, id, vector, 2, NULL) != 0)
            return 2;
    }
    kith_close(index);
    return 0;
}

static void a_log_that_is_being_written_is_whole(void **state)
{
    (void)state;
    struct test_child child = { 0 };
    int *stop = test_shared(sizeof *stop);
    begin(1);
    test_child_start(&child, "writer", writer, stop);
    /* As long as it takes to have seen something on a slow disk, too. */
    const uint64_t begun = test_now_ms(), span = getenv("KITH_TEST_LONG") ? 60000 : 5000;
    uint64_t groups = 0;
    unsigned looks = 0;
    while (test_now_ms() - begun < span || groups <= 100 || looks <= 3) {
        if (test_now_ms() - begun > span + 60000)
            fail_msg("%u looks and %llu groups in more than a minute", looks, (unsigned long long)groups);
        expect(tool("--json wal docs"), 0);
        says("\"state\":\"whole\",\"in_use\":true,");
        says("\"first_epoch\":1,");
        uint64_t now = strtoull(strstr(out, "\"groups\":") + 9, NULL, 10);
        assert_true(now >= groups); /* nothing that was there is missing from a later look */
        groups = now;
        looks++;
    }
    *stop = 1;
    assert_int_equal(test_child_wait(&child, 60000), 0);
    printf("%u looks, %llu groups\n", looks, (unsigned long long)groups);
    /* Damage is found all the same. */
    flip(20 * BLOCK + 130);
    expect(tool("--json wal docs"), 1);
    says("\"state\":\"damaged\",\"in_use\":true,\"groups\":19,");
    says("\"expected_epoch\":20,");
}

static void a_torn_tail_is_no_damage(void **state)
{
    (void)state;
    begin(4);
    test_daemon_kill(&d);
    flip(4 * BLOCK + 130);
    expect(tool("wal docs --data '%s'", data), 0);
    says("1 to 3");
    says("torn tail: " FILE_1 ", bytes 16384 to 20480");
    expect(tool("--json wal docs --data '%s'", data), 0);
    says("\"state\":\"torn\",\"in_use\":false,\"groups\":3,");
    says("\"torn\":{\"file\":\"" FILE_1 "\",\"from\":16384,\"to\":20480,\"reason\":\"");
    expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    says("nothing to salvage");
    assert_false(there("wal.damaged-1"));
}

/* Group 4 stands in the second file, too, where the next start has written it anew. */
static void a_damaged_copy_is_no_damage(void **state)
{
    char second[2 * TEST_PATH_SIZE];
    (void)state;
    begin(4);
    test_daemon_kill(&d);
    remove_segment();
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("put docs id5 --vector '[5,1]'"), 0);
    expect(tool("put docs id6 --vector '[6,1]'"), 0);
    test_daemon_kill(&d);
    snprintf(second, sizeof second, "%s/docs/wal/" FILE_4, data);
    flip_in(second, BLOCK + 130);
    expect(tool("wal docs --data '%s'", data), 0);
    says("1 to 6");
    says("whole");
    says(FILE_4 ", bytes 4096 to 8192");
    says("group 4, which a start has written there anew");
    expect(tool("--json wal docs --data '%s'", data), 0);
    says("\"state\":\"whole\",\"in_use\":false,\"groups\":6,");
    says("\"spoilt\":{\"file\":\"" FILE_4 "\",\"from\":4096,\"to\":8192,\"reason\":\"");
    expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    says("nothing to salvage");
    remove_segment();
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("count docs"), 0);
    says("6");
    test_daemon_kill(&d);
    expect(tool("--json wal docs --data '%s'", data), 0);
    says("\"groups\":6,");
    says("\"spoilt\":null");
}

/* ---- damage ------------------------------------------------------------------------------ */

static void damage_is_named_and_a_salvage_keeps_what_is_before_it(void **state)
{
    (void)state;
    begin(9);
    test_daemon_kill(&d);
    flip(6 * BLOCK + 130);
    expect(tool("wal docs --data '%s'", data), 1);
    says("DAMAGED in " FILE_1 " at byte 24576");
    says("epoch expected there   6");
    says("--salvage");
    expect(tool("--json wal docs --groups --data '%s'", data), 1);
    assert_int_equal(count_lines("{\"kind\":\"group\""), 5);
    says("\"state\":\"damaged\",");
    says("\"damage\":{\"file\":\"" FILE_1 "\",\"byte\":24576,\"expected_epoch\":6,\"reason\":\"");

    expect(tool("wal docs --salvage --data '%s'", data), 1);
    says("epochs 1 to 5: 5 groups, 5 changes");
    says("epochs 6 to 9, at least");
    says("nothing was changed");
    says("--salvage --yes");
    says("holds epoch 9"); /* the segment */
    assert_false(there("wal.damaged-1"));
    refuses();
    assert_true(test_daemon_logged(&d, "kith wal --salvage"));

    expect(tool("--json wal docs --salvage --yes --data '%s'", data), 0);
    says("\"salvaged\":true,\"groups\":5,\"changes\":5,\"first_epoch\":1,\"last_epoch\":5,");
    says("\"lost_first_epoch\":6,\"lost_last_epoch\":9,");
    says("\"damaged_dir\":\"wal.damaged-1\"}");
    assert_true(there("wal.damaged-1/" FILE_1));
    expect(tool("wal docs --data '%s'", data), 0);
    says("1 to 5");

    /* The segment is ahead, which kithd does not take. */
    refuses();
    assert_true(test_daemon_logged(&d, "move the segment away"));
    remove_segment();
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("count docs"), 0);
    says("5\n");
    expect(tool("get docs id5"), 0);
    expect(tool("put docs new --vector '[1,1]'"), 0);
    expect(tool("verify docs"), 0);
    /* Epoch 6 again, with other content: on another timeline. */
    expect(tool("--json wal docs --groups"), 0);
    assert_int_equal(count_lines("\"last_epoch\":6,"), 1);
    const char *five = strstr(out, "\"epoch\":5,"), *six = strstr(out, "\"epoch\":6,");
    assert_non_null(five);
    assert_non_null(six);
    assert_int_not_equal(strtoull(strstr(five, "\"timeline\":") + 11, NULL, 10),
                         strtoull(strstr(six, "\"timeline\":") + 11, NULL, 10));
}

/* ---- checkpoints ------------------------------------------------------------------------- */

/* Groups of epochs up to `epoch`, then a checkpoint, then more up to `last`; the daemon is dead then. */
static void begin_with_checkpoint(unsigned epoch, unsigned last)
{
    begin(epoch);
    expect(tool("checkpoint docs"), 0);
    for (unsigned i = epoch + 1; i <= last; i++)
        expect(tool("put docs id%u --vector '[%u,1]'", i, i), 0);
    test_daemon_kill(&d);
}

static void damage_group(unsigned epoch)
{
    flip((off_t)epoch * BLOCK + 130);
}

/* A start from what is on disk has ids 1 to count, and takes more. */
static void cold_start_has(unsigned count)
{
    unlink(test_daemon_segment(&d, "docs"));
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("count docs"), 0);
    assert_int_equal(strtoul(out, NULL, 10), count);
    for (unsigned i = 1; i <= count; i++)
        expect(tool("get docs id%u", i), 0);
    expect(tool("verify docs"), 0);
    expect(tool("put docs more --vector '[1,1]'"), 0);
    test_daemon_kill(&d);
    unlink(test_daemon_segment(&d, "docs"));
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("get docs more"), 0);
    test_daemon_kill(&d);
}

static void damage_before_a_checkpoint_loses_nothing(void **state)
{
    (void)state;
    begin_with_checkpoint(20, 25);
    damage_group(10);
    refuses();
    assert_true(test_daemon_logged(&d, "event=log-damage-covered"));
    assert_true(test_daemon_logged(&d, "nothing is lost by: kith wal docs"));
    expect(tool("wal docs --salvage --data '%s'", data), 1);
    says("epochs 21 to 25: 5 groups, 5 changes");
    says("of epoch 20, whole: a start begins with it");
    says("nothing that the log tells of, or a checkpoint");
    says("nothing was changed");
    says_not("holds epoch"); /* the segment is not ahead of that */
    assert_false(there("wal.damaged-1"));
    expect(tool("--json wal docs --salvage --yes --data '%s'", data), 0);
    says("\"salvaged\":true,\"groups\":5,\"changes\":5,\"first_epoch\":21,\"last_epoch\":25,");
    says("\"lost_first_epoch\":0,\"lost_last_epoch\":0,");
    says("\"checkpoint_epoch\":20,\"checkpoints_aside\":0,");
    assert_true(there("wal/00000000000000000021.wal"));
    /* The segment is adopted as it is, and a start without it has the same. */
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("count docs"), 0);
    says("25\n");
    test_daemon_kill(&d);
    cold_start_has(25);
}

static void damage_at_the_very_end_that_a_checkpoint_covers_loses_nothing(void **state)
{
    (void)state;
    begin_with_checkpoint(12, 12);
    damage_group(12); /* would be a torn tail, if the checkpoint did not prove it */
    remove_segment();
    refuses();
    assert_true(test_daemon_logged(&d, "event=log-damage-covered"));
    expect(tool("wal docs --salvage --data '%s'", data), 1);
    says("no group; the log goes on from epoch 13");
    says("of epoch 12, whole");
    says("nothing that the log tells of, or a checkpoint");
    expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    cold_start_has(12);
}

static void damage_on_both_sides_of_a_checkpoint_keeps_what_is_between(void **state)
{
    (void)state;
    begin_with_checkpoint(12, 16);
    damage_group(5);
    damage_group(15);
    refuses();
    assert_false(test_daemon_logged(&d, "event=log-damage-covered"));
    expect(tool("wal docs --salvage --data '%s'", data), 1);
    says("epochs 13 to 14: 2 groups, 2 changes");
    says("epochs 15 to 16, at least");
    says("holds epoch 16");
    expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    remove_segment();
    cold_start_has(14);
}

static void damage_after_a_checkpoint_keeps_the_whole_beginning(void **state)
{
    (void)state;
    begin_with_checkpoint(12, 16);
    damage_group(15);
    expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    says("epochs 1 to 14: 14 groups");
    says("of epoch 12, whole");
    remove_segment();
    cold_start_has(14);
}

/* Say that the copy of the checkpoint ended at this epoch only, as under writers. */
static void end_checkpoint_at(unsigned epoch, unsigned end)
{
    char path[2 * TEST_PATH_SIZE];
    static unsigned char bytes[4 << 20];
    static uint32_t sums[1024];
    struct kithi_checkpoint_header h;
    struct kithi_checkpoint_plan plan;
    const uint32_t *have;
    uint64_t old;
    snprintf(path, sizeof path, "%s/docs/checkpoint-%020u", data, epoch);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t len = read(fd, bytes, sizeof bytes);
    assert_int_equal(kithi_checkpoint_header_decode(bytes, NULL, &h), KITHI_CHECKPOINT_OK);
    assert_true(kithi_checkpoint_plan(&h, &plan) && plan.file_size == (uint64_t)len &&
                plan.chunk_count <= 1024);
    assert_true(kithi_checkpoint_table_decode(bytes + plan.table_off, &h, &plan, &have, &old));
    memcpy(sums, have, plan.chunk_count * sizeof *sums);
    kithi_checkpoint_table_encode(bytes + plan.table_off, &h, &plan, sums, end);
    assert_int_equal(pwrite(fd, bytes, (size_t)len, 0), len);
    close(fd);
}

static void a_checkpoint_that_needs_more_of_the_log_is_set_aside(void **state)
{
    (void)state;
    begin_with_checkpoint(12, 16);
    end_checkpoint_at(12, 14);
    damage_group(14);
    remove_segment();
    refuses();
    expect(tool("wal docs --salvage --data '%s'", data), 1);
    says("epochs 1 to 13: 13 groups");
    says("the checkpoint of epoch 12: it needs the log up to epoch 14");
    says("epochs 14 to 16, at least");
    assert_true(there("checkpoint-00000000000000000012"));
    expect(tool("--json wal docs --salvage --yes --data '%s'", data), 0);
    says("\"checkpoint_epoch\":0,\"checkpoints_aside\":1,");
    assert_false(there("checkpoint-00000000000000000012"));
    assert_true(there("checkpoint-00000000000000000012.aside-1"));
    cold_start_has(13);
}

static void a_log_that_ends_before_its_checkpoint_goes_on_behind_it(void **state)
{
    (void)state;
    char line[4 * TEST_PATH_SIZE];
    begin_with_checkpoint(12, 12);
    remove_segment();
    /* What an older kith left: the log salvaged to before the checkpoint, whole in itself. */
    for (unsigned i = 9; i <= 12; i++) {
        snprintf(line, sizeof line,
                 "dd if=/dev/zero of='%s' bs=4096 seek=%u count=1 conv=notrunc status=none", log_file(), i);
        assert_int_equal(system(line), 0);
    }
    refuses();
    expect(tool("wal docs --data '%s'", data), 0); /* by itself */
    expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    says("of epoch 12, whole");
    cold_start_has(12);
}

/* A checkpoint that is damaged itself is nothing to go on from. */
static void a_damaged_checkpoint_saves_no_log(void **state)
{
    (void)state;
    char path[2 * TEST_PATH_SIZE];
    unsigned char byte;
    begin_with_checkpoint(12, 14);
    snprintf(path, sizeof path, "%s/docs/checkpoint-%020u", data, 12);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, 4096 + 100), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 4096 + 100), 1);
    close(fd);
    damage_group(5);
    remove_segment();
    refuses();
    expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    says("epochs 1 to 4: 4 groups");
    says("the checkpoint of epoch 12: it is damaged, and proves epoch 12");
    says_not("whole: a start begins");
    assert_true(there("checkpoint-00000000000000000012.aside-1"));
    cold_start_has(4);
}

/* The crash points one by one, each with a collection of its own. */
static void killed_at(const char *point, bool swapped)
{
    begin(9);
    test_daemon_kill(&d);
    remove_segment();
    flip(5 * BLOCK + 130);
    setenv("KITH_FAULT", point, 1);
    int status = tool("wal docs --salvage --yes --data '%s'", data);
    unsetenv("KITH_FAULT");
    expect(status, 128 + SIGKILL);
    expect(tool("wal docs --data '%s'", data), swapped ? 0 : 1);
    if (!swapped) {
        refuses();
        expect(tool("wal docs --salvage --data '%s'", data), 1);
        says("epochs 1 to 4");
        expect(tool("wal docs --salvage --yes --data '%s'", data), 0);
    }
    expect(tool("wal docs --data '%s'", data), 0);
    says("1 to 4");
    assert_int_equal(test_daemon_start(&d), 0);
    expect(tool("count docs"), 0);
    says("4\n");
}

static void killed_with_half_a_copy_a_salvage_begins_anew(void **state)
{
    (void)state;
    killed_at("crash-in-salvage-copied", false);
    assert_true(there("wal.salvaging-1"));
    assert_true(there("wal.damaged-2"));
}

static void killed_before_the_swap_a_salvage_begins_anew(void **state)
{
    (void)state;
    killed_at("crash-in-salvage-complete", false);
    assert_true(there("wal.salvaged-1"));
    assert_true(there("wal.damaged-2"));
}

static void killed_within_the_swap_a_salvage_goes_on(void **state)
{
    (void)state;
    killed_at("crash-in-salvage-moved", false);
    assert_false(there("wal.salvaged-1"));
    assert_true(there("wal.damaged-1"));
    assert_false(there("wal.damaged-2"));
}

static void killed_after_the_swap_a_salvage_is_done(void **state)
{
    (void)state;
    killed_at("crash-in-salvage-swapped", true);
    assert_true(there("wal.damaged-1"));
}

static void a_salvage_keeps_away_from_a_daemon(void **state)
{
    (void)state;
    begin(3);
    expect(tool("wal docs --salvage"), 1);
    says("a kithd owns the data directory");
    expect(tool("wal docs --salvage --yes --data '%s'", data), 1);
    says("stop it");
    assert_false(there("wal.salvaging-1"));
}

static void a_log_of_which_nothing_is_readable_is_left_alone(void **state)
{
    (void)state;
    char line[1024];
    begin(3);
    test_daemon_kill(&d);
    flip(BLOCK + 130);
    expect(tool("wal docs --salvage --yes --data '%s'", data), 1);
    says("nothing of the log of \"docs\" is readable");
    assert_true(there("wal/" FILE_1));
    assert_false(there("wal.damaged-1"));
    snprintf(line, sizeof line, "rm -r '%s/docs/wal'", data);
    assert_int_equal(system(line), 0);
    expect(tool("wal docs --data '%s'", data), 1);
    says("there is no log file");
    expect(tool("wal docs --salvage --yes --data '%s'", data), 1);
    says("nothing of the log");
}

static void hostile_bytes_are_an_answer_and_not_a_crash(void **state)
{
    (void)state;
    static unsigned char bytes[40 * BLOCK];
    struct test_rand r;
    const char *seed = getenv("KITH_SEED");
    uint64_t s = seed ? strtoull(seed, NULL, 10) : 11;
    unsigned rounds = getenv("KITH_TEST_LONG") ? 2000 : 60;
    printf("KITH_SEED=%llu\n", (unsigned long long)s);
    test_rand_seed(&r, s);
    begin(20);
    test_daemon_kill(&d);
    int fd = open(log_file(), O_RDWR);
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
    for (unsigned i = 0; i < rounds; i++) {
        unsigned char hurt[sizeof bytes];
        memcpy(hurt, bytes, sizeof hurt);
        for (unsigned n = (unsigned)test_rand_below(&r, 40) + 1; n > 0; n--)
            hurt[test_rand_below(&r, i % 2 ? sizeof hurt : 2 * BLOCK)] =
                (unsigned char)test_rand_below(&r, 256);
        assert_int_equal(pwrite(fd, hurt, sizeof hurt, 0), sizeof hurt);
        int status = tool("wal docs --records --data '%s'", data);
        assert_true(status == 0 || status == 1);
        status = tool("wal docs --salvage --data '%s'", data);
        assert_true(status == 0 || status == 1);
    }
    close(fd);
}

/* ---- bad input --------------------------------------------------------------------------- */

static void bad_input_is_named_with_what_to_do(void **state)
{
    (void)state;
    begin(2);
    expect(tool("wal"), 2);
    says("give one name");
    expect(tool("wal a b"), 2);
    expect(tool("wal docs --yes"), 2);
    says("--yes belongs to --salvage");
    expect(tool("wal docs --salvage --groups"), 2);
    says("does not go with");
    expect(tool("wal docs --salvage --to 4"), 2);
    expect(tool("wal docs --from 5 --to 4"), 2);
    says("--from 5 is above --to 4");
    expect(tool("wal docs --from 0"), 2);
    says("1 or more");
    expect(tool("wal docs --from 18446744073709551616"), 2);
    expect(tool("wal docs --from x"), 2);
    expect(tool("wal docs --data ''"), 2);
    expect(tool("wal nowhere"), 1);
    says("nowhere");
    says("--data DIR");
    expect(tool("wal nowhere --data '%s'", data), 1);
    says("there is no collection \"nowhere\" in the data directory");
    expect(tool("wal ../docs --data '%s'", data), 1);
    says("not a collection name");
    expect(tool("wal docs --data '%s/none'", data), 1);
    says("there is no data directory");
    expect(tool("wal docs --data '%s'", log_file()), 1);
    says("is not a directory");
    /* A FIFO in the way hangs nobody. */
    char path[2 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/docs/wal/00000000000000000099.wal", data);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect(tool("wal docs"), 1);
    says("00000000000000000099.wal");
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/docs/collection.conf", data);
    assert_int_equal(unlink(path), 0);
    expect(tool("wal docs"), 1);
    says("collection.conf is missing");
}

/* As another user, who may come as far as the data directory. */
static int as_nobody(void *arg)
{
    (void)arg;
    if (setgid(65534) != 0 || setuid(65534) != 0)
        return 3;
    int status = tool("wal docs --data '%s'", data);
    if (status != 1 || strstr(out, "run this as the user that kithd runs as") == NULL) {
        printf("status %d: %s\n", status, out);
        return 1;
    }
    status = tool("wal docs --salvage --yes --data '%s'", data);
    return status == 1 && strstr(out, "run this as the user that kithd runs as") != NULL ? 0 : 2;
}

static void without_permission_it_says_whose_it_takes(void **state)
{
    (void)state;
    struct test_child child = { 0 };
    if (geteuid() != 0) {
        printf("only root can become somebody else\n");
        skip();
    }
    begin(2);
    chmod(d.data.path, 0755);
    test_child_start(&child, "nobody", as_nobody, NULL);
    assert_int_equal(test_child_wait(&child, 60000), 0);
}

static int set_up(void **state)
{
    (void)state;
    test_daemon_init(&d);
    snprintf(data, sizeof data, "%s/data", d.data.path);
    snprintf(run, sizeof run, "%s/run", d.run.path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unsetenv("KITH_FAULT");
    test_daemon_fini(&d);
    return 0;
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, set_up, tear_down)

int main(void)
{
    if (getenv("KITH_TEST_KITH") == NULL)
        test_die("KITH_TEST_KITH does not name the program; run this test through ctest, or set it");
    const struct CMUnitTest tests[] = {
        CLAIM(files_groups_and_records_are_what_was_written),
        CLAIM(a_log_of_several_lives_counts_each_group_once),
        CLAIM(a_log_that_is_being_written_is_whole),
        CLAIM(a_torn_tail_is_no_damage),
        CLAIM(a_damaged_copy_is_no_damage),
        CLAIM(damage_is_named_and_a_salvage_keeps_what_is_before_it),
        CLAIM(damage_before_a_checkpoint_loses_nothing),
        CLAIM(damage_at_the_very_end_that_a_checkpoint_covers_loses_nothing),
        CLAIM(damage_on_both_sides_of_a_checkpoint_keeps_what_is_between),
        CLAIM(damage_after_a_checkpoint_keeps_the_whole_beginning),
        CLAIM(a_checkpoint_that_needs_more_of_the_log_is_set_aside),
        CLAIM(a_log_that_ends_before_its_checkpoint_goes_on_behind_it),
        CLAIM(a_damaged_checkpoint_saves_no_log),
#ifdef KITH_FAULT_POINTS
        CLAIM(killed_with_half_a_copy_a_salvage_begins_anew),
        CLAIM(killed_before_the_swap_a_salvage_begins_anew),
        CLAIM(killed_within_the_swap_a_salvage_goes_on),
        CLAIM(killed_after_the_swap_a_salvage_is_done),
#endif
        CLAIM(a_salvage_keeps_away_from_a_daemon),
        CLAIM(a_log_of_which_nothing_is_readable_is_left_alone),
        CLAIM(hostile_bytes_are_an_answer_and_not_a_crash),
        CLAIM(bad_input_is_named_with_what_to_do),
        CLAIM(without_permission_it_says_whose_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
