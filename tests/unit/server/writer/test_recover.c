/*
 * test_recover.c - does a start bring back what was acknowledged, whatever it finds in the two directories?
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base/log.h"
#include "server/checkpoint/read.h"
#include "server/wal/scan.h"
#include "server/writer/collection.h"
#include "shm/layout/header.h"
#include "shm/layout/record.h"
#include "shm/map/map.h"
#include "tests/unit/server/writer/peer.h"
#include "tests/unit/server/writer/served.h"

#define DIM 8u

static struct served served;
static struct peer peer;

static void begin(void)
{
    struct kithi_errmsg err = { .text = "" };
    int status = served_start(&served, &err);
    if (status) {
        fprintf(stderr, "%s\n", err.text);
    }
    assert_int_equal(status, 0);
    peer_open(&peer, served.run.path);
    memset(peer.uid, 0, sizeof peer.uid);
}

static void end(void)
{
    peer_close(&peer);
    assert_int_equal(served_stop(&served), 0);
}

/* Remove the checkpoints of a collection, so that its log is replayed; returns how many there were. */
static unsigned lose_checkpoints(const char *collection)
{
    uint64_t *epochs = NULL;
    char name[KITHI_CHECKPOINT_NAME_SIZE], path[KITHI_PATH_MAX];
    int64_t n = kithi_checkpoint_list(test_path(&served.data, collection), &epochs, NULL);
    for (int64_t i = 0; i < n; i++) {
        kithi_checkpoint_name(name, epochs[i]);
        snprintf(path, sizeof path, "%s/%s/%s", served.data.path, collection, name);
        assert_int_equal(unlink(path), 0);
    }
    free(epochs);
    return n > 0 ? (unsigned)n : 0;
}

/* A collection "docs" of 300 vectors, its epoch in *out_epoch; the daemon has left. */
static int set_up(void **state)
{
    (void)state;
    kithi_log_set_level(KITHI_LOG_ERROR);
    served_init(&served);
    begin();
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, NULL), 0);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    for (unsigned i = 0; i < 30; i++) {
        assert_int_equal(peer_write(&peer, "d", i * 10, 10, DIM, (float)i, NULL), 0);
    }
    assert_int_equal(peer_write(&peer, "d", 0, 5, 0, 0, NULL), 0);
    end();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    served_fini(&served);
    return 0;
}

static void assert_all_is_back(void)
{
    struct peer_reply r;
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_int_equal(peer_stat(&peer, "epoch"), 31);
    assert_int_equal(peer_stat(&peer, "live"), 295);
    assert_int_equal(peer_write(&peer, "d", 0, 300, 0, 0, &r), 0);
    assert_int_equal(r.reply.found, 295);
    assert_int_equal(r.reply.epoch, 32);
}

static uint64_t generation(void)
{
    struct kithi_segment_peek peek;
    assert_int_equal(kithi_segment_peek(test_path(&served.run, "docs/segment"), &peek, NULL), 0);
    return peek.generation;
}

static void the_segment_that_is_there_is_adopted(void **state)
{
    (void)state;
    uint64_t before = generation();
    begin();
    assert_all_is_back();
    end();
    assert_int_equal(generation(), before);
}

static void without_a_segment_the_log_is_replayed(void **state)
{
    (void)state;
    test_dir_remove(&served.run);
    test_dir_make_shm(&served.run);
    snprintf(served.options.run, sizeof served.options.run, "%s", served.run.path);
    begin();
    assert_all_is_back();
    end();
}

/* Overwrite bytes of the segment's header. */
static void poke(size_t off, const void *bytes, size_t len)
{
    int fd = open(test_path(&served.run, "docs/segment"), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
    close(fd);
}

static void a_segment_that_cannot_be_adopted_is_replaced_and_its_readers_told(void **state)
{
    uint32_t version = 99;
    struct kithi_header h;
    (void)state;
    uint64_t before = generation();
    poke(offsetof(struct kithi_header, version), &version, sizeof version);
    int reader = open(test_path(&served.run, "docs/segment"), O_RDONLY);
    assert_true(reader >= 0);
    begin();
    assert_all_is_back();
    end();
    assert_true(generation() > before);
    assert_int_equal(pread(reader, &h, sizeof h, 0), (ssize_t)sizeof h);
    assert_int_equal(atomic_load(&h.moved), 1);
    close(reader);
}

static void the_segment_of_another_collection_is_set_aside(void **state)
{
    uint8_t uid[16] = { 0xab, 0xcd };
    (void)state;
    poke(offsetof(struct kithi_header, uid), uid, sizeof uid);
    begin();
    assert_all_is_back();
    end();
    assert_int_equal(
        access(test_path(&served.run, "docs/segment.aside-abcd0000000000000000000000000000"), F_OK), 0);
}

static void half_a_switch_is_undone_or_completed(void **state)
{
    (void)state;
    /* Linked and not yet renamed: the same file twice. */
    assert_int_equal(link(test_path(&served.run, "docs/segment"), test_path(&served.run, "docs/segment.old")),
                     0);
    fclose(fopen(test_path(&served.run, "docs/segment.next"), "w"));
    uint64_t before = generation();
    begin();
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    end();
    assert_int_equal(generation(), before);
    assert_int_not_equal(access(test_path(&served.run, "docs/segment.old"), F_OK), 0);
    assert_int_not_equal(access(test_path(&served.run, "docs/segment.next"), F_OK), 0);
    begin();
    assert_all_is_back();
    end();
}

static void half_a_create_and_half_a_drop_are_finished(void **state)
{
    (void)state;
    mkdir(test_path(&served.data, ".creating-00"), 0700);
    mkdir(test_path(&served.data, ".creating-00/wal"), 0700);
    mkdir(test_path(&served.run, "unborn"), 0750);
    fclose(fopen(test_path(&served.run, "unborn/segment.next"), "w"));
    assert_int_equal(rename(test_path(&served.data, "docs"), test_path(&served.data, ".dropped-00")), 0);
    begin();
    struct peer_reply r;
    assert_int_equal(peer_call(&peer, KITHI_FRAME_LIST, NULL, 0, 0, &r), 0);
    assert_string_equal(r.text, "");
    end();
    assert_int_not_equal(access(test_path(&served.data, ".creating-00"), F_OK), 0);
    assert_int_not_equal(access(test_path(&served.data, ".dropped-00"), F_OK), 0);
    assert_int_not_equal(access(test_path(&served.run, "docs"), F_OK), 0);
    assert_int_not_equal(access(test_path(&served.run, "unborn"), F_OK), 0);
}

/* A copy of the segment under its old name, as a switch just before the daemon died leaves it; opened. */
static int put_old_segment(void)
{
    char from[KITHI_PATH_MAX], to[KITHI_PATH_MAX], buffer[65536];
    snprintf(from, sizeof from, "%s/docs/segment", served.run.path);
    snprintf(to, sizeof to, "%s/docs/segment.old", served.run.path);
    int in = open(from, O_RDONLY), out = open(to, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(in >= 0 && out >= 0);
    ssize_t n = read(in, buffer, sizeof buffer);
    assert_int_equal(n, sizeof buffer);
    assert_int_equal(write(out, buffer, (size_t)n), n);
    close(in);
    return out;
}

static void a_replaced_segment_gets_its_grace_after_a_start(void **state)
{
    struct kithi_header h;
    struct stat st;
    (void)state;
    int reader = put_old_segment();
    begin();
    assert_int_equal(pread(reader, &h, sizeof h, 0), (ssize_t)sizeof h);
    assert_int_equal(atomic_load(&h.moved), 1);
    assert_int_not_equal(atomic_load(&h.unlinked), KITHI_MARK_ALL);
    assert_int_equal(access(test_path(&served.run, "docs/segment.old"), F_OK), 0);
    assert_all_is_back();
    end();
    /* Not when another one has to be built beside it: its memory is given back at once. */
    uint32_t version = 99;
    poke(offsetof(struct kithi_header, version), &version, sizeof version);
    begin();
    assert_int_equal(pread(reader, &h, sizeof h, 0), (ssize_t)sizeof h);
    assert_int_equal(atomic_load(&h.unlinked), KITHI_MARK_ALL);
    assert_int_equal(fstat(reader, &st), 0);
    assert_int_equal(st.st_nlink, 0);
    assert_true(st.st_blocks * 512 <= (blkcnt_t)KITHI_HEADER_SIZE);
    end();
    close(reader);
}

#ifdef KITH_FAULT_POINTS
static void a_drop_of_which_nobody_knows_whether_it_lasts_ends_the_daemon(void **state)
{
    struct peer_reply r;
    (void)state;
    setenv("KITH_FAULT", "drop-sync-eio", 1);
    begin();
    assert_int_equal(peer_drop(&peer, "docs", &r), KITHI_E_UNKNOWN_OUTCOME);
    pthread_join(served.thread, NULL);
    assert_int_equal(served.exit_status, 1);
    peer_close(&peer);
    unsetenv("KITH_FAULT");
    begin();
    assert_int_equal(peer_call(&peer, KITHI_FRAME_LIST, NULL, 0, 0, &r), 0);
    assert_string_equal(r.text, "");
    end();
    assert_int_not_equal(access(test_path(&served.run, "docs"), F_OK), 0);
}

static void what_a_drop_has_left_goes_before_the_name_is_taken_again(void **state)
{
    struct kithi_errmsg err;
    char **names = NULL;
    size_t n = 0;
    (void)state;
    setenv("KITH_FAULT", "drop-remove-eio", 1);
    begin();
    assert_int_equal(peer_drop(&peer, "docs", NULL), 0);
    assert_int_equal(access(test_path(&served.run, "docs/segment"), F_OK), 0);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, NULL), 0);
    unsetenv("KITH_FAULT");
    /* Nothing of it is set aside, or waits for the next start. */
    assert_int_equal(kithi_dir_list(served.run.path, &names, &n, &err), 0);
    for (size_t i = 0; i < n; i++) {
        assert_null(strstr(names[i], "aside"));
    }
    kithi_dir_list_free(names, n);
    assert_int_equal(kithi_dir_list(served.data.path, &names, &n, &err), 0);
    for (size_t i = 0; i < n; i++) {
        assert_null(strstr(names[i], "dropped"));
    }
    kithi_dir_list_free(names, n);
    end();
}

/* Readers of the segment are still to be told: nothing else takes its place before that could be looked at. */
static void what_a_drop_has_left_and_cannot_be_looked_at_is_in_the_way(void **state)
{
    struct peer_reply r;
    struct kithi_header h;
    (void)state;
    int reader = open(test_path(&served.run, "docs/segment"), O_RDONLY);
    assert_true(reader >= 0);
    setenv("KITH_FAULT", "drop-remove-eio:1,peek-eio:4,peek-eio:6",
           1); /* the start looks twice, the drop once */
    begin();
    assert_int_equal(peer_drop(&peer, "docs", NULL), 0);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, &r), -EIO);
    assert_non_null(strstr(r.text, "cannot look at the segment"));
    assert_int_equal(access(test_path(&served.run, "docs/segment"), F_OK), 0);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, &r),
                     -EIO); /* now what is left of the drop cannot be looked at */
    assert_int_equal(access(test_path(&served.run, "docs/segment"), F_OK), 0);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, &r), 0);
    unsetenv("KITH_FAULT");
    assert_int_equal(pread(reader, &h, sizeof h, 0), (ssize_t)sizeof h);
    assert_int_equal(atomic_load(&h.dropped), 1);
    close(reader);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_int_equal(peer_stat(&peer, "live"), 0);
    end();
}
#endif

/* Flip a byte in the middle of what the log holds. */
static void damage_log(void)
{
    char **names, path[KITHI_PATH_MAX];
    size_t n;
    assert_int_equal(kithi_dir_list(test_path(&served.data, "docs/wal"), &names, &n, NULL), 0);
    assert_true(n > 0);
    snprintf(path, sizeof path, "%s/docs/wal/%s", served.data.path, names[0]);
    kithi_dir_list_free(names, n);
    int fd = open(path, O_RDWR);
    unsigned char byte;
    off_t at = 40000;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x55;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void a_damaged_log_is_refused_and_left_as_it_is(void **state)
{
    struct kithi_errmsg err;
    struct stat before, after;
    (void)state;
    test_dir_remove(&served.run);
    test_dir_make_shm(&served.run);
    snprintf(served.options.run, sizeof served.options.run, "%s", served.run.path);
    damage_log();
    assert_int_equal(stat(test_path(&served.data, "docs/wal"), &before), 0);
    assert_int_equal(served_start(&served, &err), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, ".wal"));
    assert_int_equal(stat(test_path(&served.data, "docs/wal"), &after), 0);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    assert_int_not_equal(access(test_path(&served.run, "docs/segment"), F_OK), 0);
    assert_int_not_equal(access(test_path(&served.run, "docs/segment.next"), F_OK), 0);
}

static void a_log_that_is_gone_is_not_taken_for_an_empty_one(void **state)
{
    struct kithi_errmsg err;
    (void)state;
    assert_int_equal(kithi_tree_remove(test_path(&served.data, "docs/wal"), NULL), 0);
    mkdir(test_path(&served.data, "docs/wal"), 0700);
    assert_int_equal(served_start(&served, &err), KITHI_E_LOG_DAMAGED);
}

static void without_a_segment_a_log_that_is_gone_or_cut_off_is_noticed(void **state)
{
    struct kithi_errmsg err;
    char **names, path[KITHI_PATH_MAX];
    size_t n;
    (void)state;
    assert_int_equal(kithi_tree_remove(test_path(&served.run, "docs"), NULL), 0);
    assert_int_equal(lose_checkpoints("docs"), 1); /* the daemon left one */
    assert_int_equal(kithi_dir_list(test_path(&served.data, "docs/wal"), &names, &n, NULL), 0);
    assert_int_equal(n, 1);
    snprintf(path, sizeof path, "%s/docs/wal/%s", served.data.path, names[0]);
    kithi_dir_list_free(names, n);
    assert_int_equal(truncate(path, 16384), 0);
    assert_int_equal(served_start(&served, &err), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "it has 16384 bytes, and was made with 67108864"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(served_start(&served, &err), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "/docs/wal holds no log file"));
    assert_int_equal(rmdir(test_path(&served.data, "docs/wal")), 0);
    assert_int_equal(served_start(&served, &err), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "/docs/wal is missing"));
}

/* The copy of a checkpoint went on until a later epoch: the log must reach that one. */
static void a_log_that_ends_before_the_copy_of_a_checkpoint_did_is_noticed(void **state)
{
    struct kithi_errmsg err;
    struct kithi_checkpoint c;
    uint64_t *epochs = NULL;
    char name[KITHI_CHECKPOINT_NAME_SIZE], path[KITHI_PATH_MAX];
    (void)state;
    assert_int_equal(kithi_tree_remove(test_path(&served.run, "docs"), NULL), 0);
    assert_int_equal(kithi_checkpoint_list(test_path(&served.data, "docs"), &epochs, NULL), 1);
    kithi_checkpoint_name(name, epochs[0]);
    free(epochs);
    snprintf(path, sizeof path, "%s/docs/%s", served.data.path, name);
    assert_int_equal(kithi_checkpoint_open(path, NULL, &c, &err), 0);
    assert_int_equal(c.end_epoch, c.header.epoch); /* nobody wrote meanwhile */
    unsigned char *table = malloc(c.plan.table_size);
    assert_non_null(table);
    kithi_checkpoint_table_encode(table, &c.header, &c.plan, c.sums, c.header.epoch + 1);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, table, c.plan.table_size, (off_t)c.plan.table_off), c.plan.table_size);
    close(fd);
    free(table);
    kithi_checkpoint_close(&c);
    assert_int_equal(served_start(&served, &err), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "the newest checkpoint says"));
}

static void overwrite(const char *path, const void *bytes, size_t len, uint64_t off)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)off), len);
    close(fd);
}

/* A log that has lost its end looks like one that a crash has torn, but the name of the checkpoint tells, whatever is in it. */
static void a_log_that_ends_before_a_damaged_checkpoint_is_refused(void **state)
{
    struct kithi_errmsg err;
    struct kithi_settings settings;
    struct kithi_wal_report report;
    uint64_t *epochs = NULL;
    char name[KITHI_CHECKPOINT_NAME_SIZE], checkpoint[KITHI_PATH_MAX], log[KITHI_PATH_MAX];
    static const unsigned char zeros[65536];
    (void)state;
    assert_int_equal(kithi_tree_remove(test_path(&served.run, "docs"), NULL), 0);
    assert_int_equal(kithi_settings_read(test_path(&served.data, "docs"), &settings, &err), 0);
    struct kithi_wal_scan_opts scan = { .dir = test_path(&served.data, "docs/wal") };
    memcpy(scan.uid, settings.uid, sizeof scan.uid);
    assert_int_equal(kithi_wal_scan(&scan, &report, &err), 0);
    assert_in_range(report.tail_size, 1, sizeof zeros);
    snprintf(log, sizeof log, "%s/docs/wal/%s", served.data.path, report.tail_file);
    overwrite(log, zeros, report.tail_size, report.tail_off);

    assert_int_equal(kithi_checkpoint_list(test_path(&served.data, "docs"), &epochs, NULL), 1);
    assert_int_equal(epochs[0], report.last_epoch);
    kithi_checkpoint_name(name, epochs[0]);
    free(epochs);
    snprintf(checkpoint, sizeof checkpoint, "%s/docs/%s", served.data.path, name);
    overwrite(checkpoint, zeros, 100, 0);

    assert_int_equal(served_start(&served, &err), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "checkpoint says"));
    /* What the message says one may do instead. */
    assert_int_equal(unlink(checkpoint), 0);
    begin();
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_int_equal(peer_stat(&peer, "epoch"), report.last_epoch - 1);
    end();
}

#ifdef KITH_FAULT_POINTS
/* What cannot be looked at was not replaced: its readers are told nothing, and the next start finds it as it was. */
static void half_a_switch_that_cannot_be_looked_at_ends_the_start(void **state)
{
    struct kithi_errmsg err = { .text = "" };
    struct kithi_header h;
    static const char *const faults[] = { "switch-look-eio:1", "switch-look-eio:2" };
    (void)state;
    assert_int_equal(link(test_path(&served.run, "docs/segment"), test_path(&served.run, "docs/segment.old")),
                     0);
    uint64_t before = generation();
    for (unsigned i = 0; i < 2; i++) {
        setenv("KITH_FAULT", faults[i], 1);
        assert_int_equal(served_start(&served, &err), -EIO);
        assert_non_null(strstr(err.text, i ? "docs/segment:" : "docs/segment.old:"));
        unsetenv("KITH_FAULT");
        assert_int_equal(access(test_path(&served.run, "docs/segment.old"), F_OK), 0);
        int fd = open(test_path(&served.run, "docs/segment"), O_RDONLY);
        assert_int_equal(pread(fd, &h, sizeof h, 0), (ssize_t)sizeof h);
        assert_int_equal(atomic_load(&h.moved), 0);
        close(fd);
    }
    begin();
    assert_all_is_back();
    end();
    assert_int_equal(generation(), before);
    assert_int_not_equal(access(test_path(&served.run, "docs/segment.old"), F_OK), 0);
}

/* A disk that does not take the configuration has nothing to do with the checkpoint, which stays the one to begin with. */
static void a_configuration_that_cannot_be_written_is_not_taken_for_a_damaged_checkpoint(void **state)
{
    struct kithi_errmsg err = { .text = "" };
    (void)state;
    assert_int_equal(kithi_tree_remove(test_path(&served.run, "docs"), NULL), 0);
    setenv("KITH_FAULT", "settings-write-eio", 1);
    assert_int_equal(served_start(&served, &err), -EIO);
    assert_non_null(strstr(err.text, "/docs/collection.conf"));
    unsetenv("KITH_FAULT");
    begin();
    assert_all_is_back();
    end();
}

/* Whoever made it may have died before its name was durable. */
static void a_marker_that_is_found_is_durable_before_anything_relies_on_it(void **state)
{
    struct kithi_errmsg err = { .text = "" };
    char path[KITHI_PATH_MAX];
    (void)state;
    snprintf(path, sizeof path, "%s/docs/" KITHI_MARKER_NAME, served.data.path);
    setenv("KITH_FAULT", "marker-sync-eio", 1);
    begin(); /* there is none */
    end();
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(served_start(&served, &err), -EIO);
    assert_non_null(strstr(err.text, "/docs"));
    unsetenv("KITH_FAULT");
    assert_int_equal(access(path, F_OK), 0);
    begin();
    assert_all_is_back();
    end();
}
#endif

static void what_is_in_the_way_is_named_with_a_way_out(void **state)
{
    struct kithi_errmsg err;
    (void)state;
    assert_int_equal(unlink(test_path(&served.run, "docs/segment")), 0);
    assert_int_equal(symlink("/dev/null", test_path(&served.run, "docs/segment")), 0);
    assert_int_equal(served_start(&served, &err), KITHI_E_NOT_SEGMENT);
    assert_non_null(strstr(err.text, "/docs/segment is a symbolic link"));

    assert_int_equal(truncate(test_path(&served.data, "docs/collection.conf"), 20), 0);
    assert_int_equal(served_start(&served, &err), KITHI_E_FORMAT);
    assert_non_null(strstr(err.text, "/docs/collection.conf"));
    assert_non_null(strstr(err.text, "; restore it from a copy, or move "));
    assert_int_equal(unlink(test_path(&served.data, "docs/collection.conf")), 0);
    assert_int_equal(served_start(&served, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/docs/collection.conf is missing; restore it from a copy, or move "));

    snprintf(served.options.run, sizeof served.options.run, "%s/docs/..", served.data.path);
    assert_int_equal(served_start(&served, &err), KITHI_E_RUN_DIR);
    assert_non_null(strstr(err.text, "as data and as run directory"));
}

static void a_rebuild_waits_for_no_readers(void **state)
{
    (void)state;
    begin();
    assert_int_equal(peer_create(&peer, "tiny", DIM, 11, NULL), 0);
    assert_int_equal(peer_use(&peer, "tiny", NULL), 0);
    for (unsigned i = 0; i < 60; i++) {
        assert_int_equal(peer_write(&peer, "t", i % 10, 1, DIM, (float)i, NULL), 0);
    }
    end();
    assert_int_equal(kithi_tree_remove(test_path(&served.run, "tiny"), NULL), 0);
    assert_int_equal(lose_checkpoints("tiny"), 1);
    served.options.grace_ms = served.options.rest_ms = 600000;
    begin();
    assert_int_equal(peer_use(&peer, "tiny", NULL), 0);
    assert_int_equal(peer_stat(&peer, "epoch"), 60);
    assert_int_equal(peer_stat(&peer, "live"), 10);
    end();
}

static uint64_t bytes_read(void)
{
    unsigned long long n = 0;
    FILE *f = fopen("/proc/self/io", "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "rchar: %llu", &n), 1);
    fclose(f);
    return n;
}

/* Nor does what a start has read make the next one read more. */
static void space_that_the_log_took_ahead_is_not_read(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = bytes_read();
        begin();
        assert_in_range(bytes_read() - before, 0, 16u << 20); /* of a log of 64 MiB */
        assert_int_equal(peer_use(&peer, "docs", NULL), 0);
        assert_int_equal(peer_stat(&peer, "epoch"), 31);
        end();
    }
}

#ifdef KITH_FAULT_POINTS
/* By whatever it is asked for. */
static void a_collection_that_is_not_back_is_told_of(void **state)
{
    struct peer_reply r;
    struct kithi_settings settings;
    uint64_t end_ms = kithi_now_ms() + 60000;
    char path[KITHI_PATH_MAX];
    uint32_t states[2] = { KITHI_LIST_STATES, 0 };
    (void)state;
    assert_int_equal(kithi_settings_read(test_path(&served.data, "docs"), &settings, NULL), 0);
    snprintf(path, sizeof path, "%s/adopt-docs", served.run.path);
    fclose(fopen(path, "w"));
    setenv("KITH_HOLD", served.run.path, 1);
    served.unready = true;
    begin();
    do {
        assert_true(kithi_now_ms() < end_ms);
        assert_int_equal(peer_call(&peer, KITHI_FRAME_LIST, states, sizeof states, 0, &r), 0);
        assert_int_equal(r.reply.found, 1);
    } while (!strstr(r.text, "\"name\":\"docs\",\"state\":\"adopting\""));
    assert_int_equal(peer_use(&peer, "docs", &r), KITHI_E_STARTING);
    assert_non_null(strstr(r.text, "still bringing \"docs\" back: its segment is looked at"));
    memcpy(peer.uid, settings.uid, sizeof peer.uid);
    assert_int_equal(peer_write(&peer, "d", 0, 1, DIM, 1, &r), KITHI_E_STARTING);
    assert_int_equal(peer_call(&peer, KITHI_FRAME_STATS, settings.uid, 16, 0, &r), KITHI_E_STARTING);
    assert_int_equal(peer_call(&peer, KITHI_FRAME_FLUSH, settings.uid, 16, 0, &r), KITHI_E_STARTING);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, &r), KITHI_E_EXISTS);
    assert_int_equal(peer_drop(&peer, "docs", &r), KITHI_E_STARTING);
    assert_int_equal(peer_call(&peer, KITHI_FRAME_LIST, NULL, 0, 0, &r), 0);
    assert_string_equal(r.text, "docs\n");
    assert_int_equal(unlink(path), 0);
    while (peer_use(&peer, "docs", &r) == KITHI_E_STARTING) {
        assert_true(kithi_now_ms() < end_ms);
    }
    unsetenv("KITH_HOLD");
    assert_all_is_back();
    end();
    served.unready = false;
}
#endif

static void strangers_in_the_run_directory_are_set_aside(void **state)
{
    (void)state;
    mkdir(test_path(&served.run, "stranger"), 0750);
    fclose(fopen(test_path(&served.run, "stranger/segment"), "w"));
    begin();
    end();
    assert_int_not_equal(access(test_path(&served.run, "stranger"), F_OK), 0);
}

static void a_write_that_needs_what_is_free_waits_until_that_is_known(void **state)
{
    struct peer_reply r;
    (void)state;
    begin();
    assert_int_equal(peer_create(&peer, "tight", DIM, 64 | KITHI_CREATE_FIXED, NULL), 0);
    assert_int_equal(peer_use(&peer, "tight", NULL), 0);
    assert_int_equal(peer_write(&peer, "t", 0, 64, DIM, 1, NULL), 0);
    assert_int_equal(peer_write(&peer, "t", 0, 32, 0, 0, NULL), 0);
    end();
    setenv("KITH_FAULT", "census-enomem:1", 1);
    begin();
    assert_int_equal(peer_use(&peer, "tight", NULL), 0);
    assert_int_equal(peer_write(&peer, "t", 40, 1, 0, 0, &r), 0); /* others do not wait */
    assert_int_equal(r.reply.found, 1);
    assert_int_equal(peer_write(&peer, "u", 0, 33, DIM, 2, NULL), 0);
    assert_int_equal(peer_stat(&peer, "live"), 64);
    end();
    unsetenv("KITH_FAULT");
}

/* The upper row of a vector of docs, led nowhere. */
static void damage_a_record(void)
{
    const struct kithi_header *h;
    int fd = open(test_path(&served.run, "docs/segment"), O_RDWR);
    assert_true(fd >= 0);
    struct kithi_map map;
    assert_int_equal(kithi_map_attach(fd, true, &map, NULL), 0);
    h = kithi_map_header(&map);
    struct kithi_record *r = (void *)(map.base + map.layout.off[KITHI_REGION_RECORDS]);
    uint64_t slot = 0;
    while (slot < h->slots_used && !(r[slot].birth && !r[slot].death && r[slot].upper)) {
        slot++;
    }
    assert_true(slot < h->slots_used);
    r[slot].upper = 0xffffff;
    kithi_map_detach(&map);
    close(fd);
}

/* Wait until what the daemon has made stands there. */
static void wait_for_generation(uint64_t above)
{
    uint64_t end_ms = kithi_now_ms() + 60000;
    while (generation() <= above) {
        usleep(1000);
        assert_true(kithi_now_ms() < end_ms);
    }
}

static void a_segment_with_a_record_that_makes_no_sense_is_replaced_by_itself(void **state)
{
    struct kithi_header h;
    (void)state;
    uint64_t before = generation();
    damage_a_record();
    int reader = open(test_path(&served.run, "docs/segment"), O_RDONLY);
    assert_true(reader >= 0);
    begin(); /* it is served until that is found, and comes back */
    wait_for_generation(before);
    uint64_t end_ms = kithi_now_ms() + 60000;
    while (peer_use(&peer, "docs", NULL)) {
        assert_true(kithi_now_ms() < end_ms);
    }
    assert_all_is_back();
    assert_int_equal(pread(reader, &h, sizeof h, 0), (ssize_t)sizeof h);
    assert_int_equal(atomic_load(&h.moved), 1);
    close(reader);
    uint64_t made = generation();
    assert_true(made > before);
    end();
    begin(); /* the new one is as good as any */
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    assert_int_equal(peer_stat(&peer, "epoch"), 32);
    end();
    assert_int_equal(generation(), made);
}

static void more_rewrites_than_slots_are_replayed(void **state)
{
    (void)state;
    begin();
    assert_int_equal(peer_create(&peer, "tight", DIM, 120, NULL), 0);
    assert_int_equal(peer_use(&peer, "tight", NULL), 0);
    for (unsigned i = 0; i < 60; i++) {
        assert_int_equal(peer_write(&peer, "t", 0, 50, DIM, (float)i, NULL), 0);
    }
    end();
    assert_int_equal(lose_checkpoints("tight"), 1);
    test_dir_remove(&served.run);
    test_dir_make_shm(&served.run);
    snprintf(served.options.run, sizeof served.options.run, "%s", served.run.path);
    begin();
    assert_int_equal(peer_use(&peer, "tight", NULL), 0);
    assert_int_equal(peer_stat(&peer, "epoch"), 60);
    assert_int_equal(peer_stat(&peer, "live"), 50);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_segment_that_is_there_is_adopted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_segment_the_log_is_replayed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_segment_that_cannot_be_adopted_is_replaced_and_its_readers_told,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_segment_of_another_collection_is_set_aside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(half_a_switch_is_undone_or_completed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_replaced_segment_gets_its_grace_after_a_start, set_up, tear_down),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test_setup_teardown(a_drop_of_which_nobody_knows_whether_it_lasts_ends_the_daemon, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_a_drop_has_left_goes_before_the_name_is_taken_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_a_drop_has_left_and_cannot_be_looked_at_is_in_the_way, set_up,
                                        tear_down),
#endif
        cmocka_unit_test_setup_teardown(half_a_create_and_half_a_drop_are_finished, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_log_is_refused_and_left_as_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_log_that_is_gone_is_not_taken_for_an_empty_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_log_that_ends_before_a_damaged_checkpoint_is_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_log_that_ends_before_the_copy_of_a_checkpoint_did_is_noticed,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_segment_a_log_that_is_gone_or_cut_off_is_noticed, set_up,
                                        tear_down),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test_setup_teardown(half_a_switch_that_cannot_be_looked_at_ends_the_start, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            a_configuration_that_cannot_be_written_is_not_taken_for_a_damaged_checkpoint, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_marker_that_is_found_is_durable_before_anything_relies_on_it,
                                        set_up, tear_down),
#endif
        cmocka_unit_test_setup_teardown(what_is_in_the_way_is_named_with_a_way_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_rebuild_waits_for_no_readers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(space_that_the_log_took_ahead_is_not_read, set_up, tear_down),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test_setup_teardown(a_collection_that_is_not_back_is_told_of, set_up, tear_down),
#endif
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test_setup_teardown(a_write_that_needs_what_is_free_waits_until_that_is_known, set_up,
                                        tear_down),
#endif
        cmocka_unit_test_setup_teardown(a_segment_with_a_record_that_makes_no_sense_is_replaced_by_itself,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(strangers_in_the_run_directory_are_set_aside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(more_rewrites_than_slots_are_replayed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
