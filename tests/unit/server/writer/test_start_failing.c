/*
 * test_start_failing.c - a start without memory, descriptors or room, and on a disk that fails: for each call that may fail it
 * brings back everything that was acknowledged, or says why it does not, and then the next start does.
 *
 * A start here is what threads of a start do (tests/crash/start_here.h), in the thread whose calls fail; jobs of the pool, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
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
#include "server/wal/append.h"
#include "server/wal/format.h"
#include "server/wal/scan.h"
#include "server/writer/census.h"
#include "server/writer/collection.h"
#include "server/writer/marker.h"
#include "server/writer/start.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/layout/header.h"
#include "shm/layout/notes.h"
#include "shm/layout/record.h"
#include "shm/map/map.h"
#include "shm/wire/op.h"
#include "tests/crash/start_here.h"
#include "tests/support/failing.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"
#include "tests/unit/server/writer/peer.h"
#include "tests/unit/server/writer/served.h"

#define DIM   8u
#define EPOCH 31u
#define LIVE  295u
#define CALLS 20000u /* more than any start takes */

static struct served served;
static struct kithi_daemon kithd;
static struct kithi_errmsg err;
static uint64_t lost_timeline; /* 0: the timeline goes on */

void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);

void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    (void)pool;
    for (uint32_t i = 0; i < n; i++) {
        fn(arg, 0, i);
    }
}

/* A collection "docs", and an empty one; their daemon has left, and a checkpoint with it. */
static int set_up(void **state)
{
    struct peer peer;
    (void)state;
    kithi_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    lost_timeline = 0;
    served_init(&served);
    assert_int_equal(served_start(&served, &err), 0);
    peer_open(&peer, served.run.path);
    memset(peer.uid, 0, sizeof peer.uid);
    assert_int_equal(peer_create(&peer, "empty", DIM, 0, NULL), 0);
    assert_int_equal(peer_create(&peer, "docs", DIM, 0, NULL), 0);
    assert_int_equal(peer_use(&peer, "docs", NULL), 0);
    for (unsigned i = 0; i < 30; i++) {
        assert_int_equal(peer_write(&peer, i % 7 ? "d" : "an id that has no room in its record ", i * 10, 10,
                                    DIM, (float)i, NULL),
                         0);
    }
    assert_int_equal(peer_write(&peer, "d", 10, 5, 0, 0, NULL), 0);
    peer_close(&peer);
    assert_int_equal(served_stop(&served), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    served_fini(&served);
    return 0;
}

/* ---- what a start finds ---- */

static void lose_segments(void)
{
    assert_int_equal(kithi_tree_remove(test_path(&served.run, "docs"), NULL), 0);
    assert_int_equal(kithi_tree_remove(test_path(&served.run, "empty"), NULL), 0);
}

static void touch(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void nothing_is_missing(void)
{
}

static void segments_are_missing(void)
{
    lose_segments();
}

/* And some writes were not durable when they were answered, as a mark says: another timeline has to begin. */
static void segments_and_checkpoints_are_missing(void)
{
    struct kithi_settings settings;
    uint64_t *epochs = NULL;
    char name[KITHI_CHECKPOINT_NAME_SIZE], path[KITHI_PATH_MAX];
    lose_segments();
    int64_t n = kithi_checkpoint_list(test_path(&served.data, "docs"), &epochs, NULL);
    for (int64_t i = 0; i < n; i++) {
        kithi_checkpoint_name(name, epochs[i]);
        snprintf(path, sizeof path, "%s/docs/%s", served.data.path, name);
        assert_int_equal(unlink(path), 0);
    }
    free(epochs);
    touch(test_path(&served.data, "docs/" KITHI_MARKER_NAME));
    assert_int_equal(kithi_settings_read(test_path(&served.data, "docs"), &settings, &err), 0);
    lost_timeline = settings.timeline;
}

/* A segment of another version, and all that a daemon may leave that died in the middle of something. */
static void much_is_left_over(void)
{
    uint32_t version = 99;
    const char *segment = test_path(&served.run, "docs/segment");
    int fd = open(segment, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &version, sizeof version, offsetof(struct kithi_header, version)),
                     (ssize_t)sizeof version);
    close(fd);
    (void)link(segment, test_path(&served.run, "docs/segment.old"));
    touch(test_path(&served.run, "docs/segment.next"));
    touch(test_path(&served.data, "docs/collection.conf.new"));
    touch(test_path(&served.data, "docs/checkpoint.new"));
    mkdir(test_path(&served.data, ".creating-00"), 0700);
    mkdir(test_path(&served.data, ".creating-00/wal"), 0700);
    mkdir(test_path(&served.data, ".dropped-00"), 0700);
    mkdir(test_path(&served.run, ".creating-01"), 0750);
    mkdir(test_path(&served.run, "unborn"), 0750);
    touch(test_path(&served.run, "unborn/segment.next"));
    mkdir(test_path(&served.run, "stranger"), 0750);
    touch(test_path(&served.run, "stranger/segment"));
    touch(test_path(&served.run, "no-directory"));
}

/* ---- starts ---- */

static void init(void)
{
    int status = kithi_daemon_init(&kithd, &served.options, &err);
    if (status) {
        fail_msg("%s", err.text);
    }
    err = (struct kithi_errmsg){ 0 };
}

static void assert_all_is_back(void)
{
    const struct kithi_collection *c = kithi_daemon_find(&kithd, "docs");
    assert_non_null(c);
    assert_non_null(kithi_daemon_find(&kithd, "empty"));
    if (kithi_index_epoch(c->index) != EPOCH) {
        fail_msg("%s: epoch %u", test_failing_what(), (unsigned)kithi_index_epoch(c->index));
    }
    assert_int_equal(kithi_index_durable_epoch(c->index), EPOCH);
    if (kithi_index_live(c->index) != LIVE) {
        fail_msg("%s: %u are alive", test_failing_what(), (unsigned)kithi_index_live(c->index));
    }
    if (lost_timeline && c->settings.timeline == lost_timeline) {
        fail_msg("%s: the timeline goes on", test_failing_what());
    }
    assert_true(test_verify_clean(kithi_index_map(c->index)));
    assert_non_null(c->wal);
}

/* Every so-manieth call fails: KITH_TEST_EVERY=<number>, or in the long form each, in the short one few. */
static uint64_t stride_of_calls(void)
{
    const char *text = getenv("KITH_TEST_EVERY");
    uint64_t n = text ? strtoull(text, NULL, 10) : 0;
    return n ? n : test_long() ? 1 : 37;
}

/* In one way. Returns how many starts failed. */
static unsigned start_again_and_again(void (*prepare)(void), enum test_way way, uint64_t stride)
{
    unsigned failures = 0;
    bool met = true;
    for (uint64_t k =
             1 + test_rand_below(&(struct test_rand){ .state = test_seed() + way }, (uint32_t)stride);
         met && k < CALLS; k += stride) {
        prepare();
        init();
        test_failing_begin(k, way);
        int status = test_start_here(&kithd, &err);
        met = test_failing_end();
        if (status == 0) {
            assert_all_is_back();
        } else if (!met || way == TEST_INTERRUPTED || !err.text[0] || err.code != status) {
            fail_msg("%s: %d, told as %d: %s", test_failing_what(), status, err.code, err.text);
        }
        kithi_daemon_fini(&kithd);
        failures += status != 0;
        if (status && k / stride % 4 == 0) {
            init();
            if (test_start_here(&kithd, &err)) {
                fail_msg("after %s: %s", test_failing_what(), err.text);
            }
            assert_all_is_back();
            kithi_daemon_fini(&kithd);
        }
    }
    assert_false(met);
    return failures;
}

static void start_in_all_ways(void (*prepare)(void), unsigned ways)
{
    const uint64_t stride = stride_of_calls();
    unsigned failures = 0;
    for (enum test_way way = 0; way < TEST_WAYS; way++) {
        if (ways >> way & 1) {
            failures += start_again_and_again(prepare, way, stride);
        }
    }
    assert_true(failures > 100 / stride);
}

#define ALL_WAYS 15u

static void an_adoption_fails_with_a_reason_or_loses_nothing(void **state)
{
    (void)state;
    start_in_all_ways(nothing_is_missing, ALL_WAYS);
}

static void loading_a_checkpoint_fails_with_a_reason_or_loses_nothing(void **state)
{
    (void)state;
    start_in_all_ways(segments_are_missing, ALL_WAYS);
}

/* A file that ends early is not tried: that a log does is what nobody can tell here (WAL.md, R5). */
static void replaying_a_log_fails_with_a_reason_or_loses_nothing(void **state)
{
    (void)state;
    start_in_all_ways(segments_and_checkpoints_are_missing, ALL_WAYS & ~(1u << TEST_FAILS_OTHERWISE));
}

static void tidying_up_fails_with_a_reason_or_loses_nothing(void **state)
{
    (void)state;
    start_in_all_ways(much_is_left_over, ALL_WAYS);
}

/* Below both directories are names of several lengths: wherever the longest path ends, nothing is lost. */
static void directories_with_paths_that_are_too_long_are_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        char *const option = i ? served.options.run : served.options.data;
        char kept[KITHI_PATH_MAX];
        unsigned refused = 0, good = 0;
        memcpy(kept, option, sizeof kept);
        for (size_t len = KITHI_PATH_MAX - 130; len<KITHI_PATH_MAX; len += stride_of_calls()> 7 ? 7 : 1) {
            size_t n = strlen(kept);
            memcpy(option, kept, n);
            for (; n < len; n++) {
                option[n] = n == strlen(kept) || n % 2 ? '/' : '.';
            }
            option[n] = 0;
            much_is_left_over();
            int status = kithi_daemon_init(&kithd, &served.options, &err);
            bool begun = status == 0;
            if (status == 0) {
                status = test_start_here(&kithd, &err);
            }
            if (status == 0) {
                assert_all_is_back();
            } else {
                assert_int_equal(err.code, status);
                assert_true(err.text[0] != 0);
            }
            refused += status != 0;
            good += status == 0;
            if (begun) {
                kithi_daemon_fini(&kithd);
            }
        }
        memcpy(option, kept, sizeof kept);
        assert_true(refused > 0 && good > 0);
        init();
        assert_int_equal(test_start_here(&kithd, &err), 0);
        assert_all_is_back();
        kithi_daemon_fini(&kithd);
    }
}

/* ---- a log whose checksums are right, and whose changes are not ---- */

#define CHANGED 16u /* the epoch of the group that is changed */

struct place {
    char file[KITHI_WAL_NAME_SIZE];
    uint64_t off, size;
};

static int find_changed(void *arg, const struct kithi_wal_group *g)
{
    struct place *p = arg;
    if (g->epoch == CHANGED) {
        memcpy(p->file, g->file, strlen(g->file) + 1);
        p->off = g->off;
        p->size = g->size;
    }
    return 0;
}

/* Put bytes into the group's ops (at counted from their beginning) and its header (header_at; 0: nothing), with good checksums. */
static void change_group(const struct place *p, size_t at, const void *bytes, size_t len, size_t header_at,
                         uint32_t value)
{
    char path[KITHI_PATH_MAX];
    unsigned char *group = malloc(p->size);
    assert_non_null(group);
    snprintf(path, sizeof path, "%s/docs/wal/%s", served.data.path, p->file);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, group, p->size, (off_t)p->off), (ssize_t)p->size);
    memcpy(group + KITHI_WAL_GROUP_HEADER + at, bytes, len);
    if (header_at) {
        kithi_put32(group + header_at, value);
    }
    kithi_put32(group + 64,
                kithi_crc32c(0, group + KITHI_WAL_GROUP_HEADER, p->size - KITHI_WAL_GROUP_HEADER));
    kithi_put32(group + KITHI_WAL_GROUP_HEADER - 4, kithi_crc32c(0, group, KITHI_WAL_GROUP_HEADER - 4));
    assert_int_equal(pwrite(fd, group, p->size, (off_t)p->off), (ssize_t)p->size);
    close(fd);
    free(group);
}

static void changes_that_cannot_be_applied_are_refused_with_their_place(void **state)
{
    (void)state;
    struct kithi_settings settings;
    struct kithi_wal_report report;
    struct place place = { .off = 0 };
    assert_int_equal(kithi_settings_read(test_path(&served.data, "docs"), &settings, &err), 0);
    struct kithi_wal_scan_opts scan = { .dir = test_path(&served.data, "docs/wal"),
                                        .fn = find_changed,
                                        .arg = &place };
    memcpy(scan.uid, settings.uid, sizeof scan.uid);
    assert_int_equal(kithi_wal_scan(&scan, &report, &err), 0);
    assert_true(place.size > 0);
    const unsigned char upsert[] = { KITHI_OP_UPSERT, 0 }, unknown[] = { 0x6f, 0 },
                        skippable[] = { 0x6f, KITHI_OP_SKIPPABLE };
    const float nan = NAN;
    /* Behind a header of 16 bytes and an id of up to four. */
    const size_t vector_at = KITHI_OP_HEADER + 4;
    unsigned char kept[4];
    char path[KITHI_PATH_MAX];
    snprintf(path, sizeof path, "%s/docs/wal/%s", served.data.path, place.file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, kept, 4, (off_t)(place.off + KITHI_WAL_GROUP_HEADER + vector_at)), 4);
    close(fd);
    for (unsigned i = 0; i < 4; i++) {
        switch (i) {
        case 0: change_group(&place, 4, unknown, 2, 0, 0); break;
        case 1: change_group(&place, 4, upsert, 2, 60, 9); break; /* one change less than there are */
        case 2: change_group(&place, vector_at, &nan, sizeof nan, 60, 10); break;
        default: /* a later version's, and one that may be passed over */
            change_group(&place, vector_at, kept, 4, 60, 10);
            change_group(&place, 4, skippable, 2, 0, 0);
        }
        segments_and_checkpoints_are_missing();
        init();
        int status = test_start_here(&kithd, &err);
        if (i < 2) {
            assert_int_equal(status, KITHI_E_LOG_DAMAGED);
            assert_non_null(strstr(err.text, "the group of epoch 16 at offset"));
            assert_non_null(strstr(err.text, "there is no change that this kithd can read"));
        } else if (i == 2) {
            assert_int_equal(status, KITHI_E_NOT_FINITE);
            assert_non_null(strstr(err.text, "collection \"docs\": cannot apply epochs 1 to "));
        } else {
            assert_int_equal(status, 0);
            const struct kithi_collection *c = kithi_daemon_find(&kithd, "docs");
            assert_int_equal(kithi_index_epoch(c->index), EPOCH);
            assert_int_equal(kithi_index_live(c->index), LIVE - 1);
        }
        kithi_daemon_fini(&kithd);
    }
}

/* ---- a long log, all but its first group by one write ---- */

enum { WRITE_GROUPS = 40, WRITE_OPS = 300 };

static void count_done(void *arg, int status)
{
    unsigned *done = arg;
    assert_int_equal(status, 0);
    ++*done;
}

/* Ops of the group of epoch: upserts of new ids, but in one group a single op that changes nothing. */
static size_t make_ops(uint64_t epoch, unsigned char *out, uint32_t *out_n)
{
    size_t len = 0;
    *out_n = 1;
    if (epoch == 20) {
        return kithi_op_encode_nothing(out);
    }
    for (uint32_t i = 0; i < WRITE_OPS; i++) {
        char id[24];
        float v[DIM] = { (float)epoch, (float)i, (float)(i * 7 % 31), 1 };
        size_t id_len = (size_t)snprintf(id, sizeof id, "%u-%u", (unsigned)epoch, i);
        len += kithi_op_encode(out + len, id, id_len, v, DIM);
    }
    *out_n = WRITE_OPS;
    return len;
}

/*
 * Nothing says of the groups of the last write that they are durable: they are gathered beyond what is applied at once, and
 * applied when the log is open again.
 */
static void groups_of_a_long_last_write_are_all_replayed(void **state)
{
    (void)state;
    static unsigned char ops[WRITE_OPS * 96];
    struct kithi_settings settings;
    struct kithi_wal_report report = { 0 };
    struct kithi_io *io = NULL;
    struct kithi_wal *log = NULL;
    unsigned done = 0;
    const uint64_t last = 1 + WRITE_GROUPS;
    segments_and_checkpoints_are_missing();
    const char *wal = test_path(&served.data, "docs/wal");
    assert_int_equal(kithi_settings_read(test_path(&served.data, "docs"), &settings, &err), 0);
    assert_int_equal(kithi_tree_remove(wal, &err), 0);
    assert_int_equal(mkdir(wal, 0700), 0);
    assert_int_equal(kithi_io_open(KITHI_IO_THREADS, &io, &err), 0);
    struct kithi_wal_open_opts o = { .dir = wal, .timeline = settings.timeline, .report = &report };
    memcpy(o.uid, settings.uid, sizeof o.uid);
    assert_int_equal(kithi_wal_open(io, &o, &log, &err), 0);
    for (uint64_t epoch = 1; epoch <= last; epoch++) { /* while the first is on its way, the others gather */
        uint32_t n;
        struct iovec v = { ops, make_ops(epoch, ops, &n) };
        assert_int_equal(kithi_wal_append(log, epoch, &v, 1, n, count_done, &done), 0);
    }
    while (done < last) {
        assert_true(kithi_io_run(io, 10000) >= 0);
    }
    kithi_wal_close(log);
    kithi_io_free(io);
    for (unsigned stop = 0; stop < 2; stop++) {
        init();
        kithd.stopping = stop == 0; /* and told to stop meanwhile it comes back the next time */
        int status = test_start_here(&kithd, &err);
        if (stop == 0) {
            assert_int_equal(status, -ECANCELED);
        } else {
            if (status) {
                fail_msg("%s", err.text);
            }
            const struct kithi_collection *c = kithi_daemon_find(&kithd, "docs");
            assert_int_equal(kithi_index_epoch(c->index), last);
            assert_int_equal(kithi_index_durable_epoch(c->index), last);
            assert_int_equal(kithi_index_live(c->index), (last - 1) * WRITE_OPS);
            assert_true(test_verify_clean(kithi_index_map(c->index)));
        }
        kithi_daemon_fini(&kithd);
    }
}

/* Another word for the geometry in the header of the segment. */
static void forge(size_t off, uint32_t word)
{
    int fd = open(test_path(&served.run, "docs/segment"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &word, sizeof word, (off_t)off), sizeof word);
    close(fd);
}

/* Of another ef it may be, by settings before these: it is adopted, and laid out anew later. Of another metric it is not the collection's. */
static void a_segment_of_another_geometry_is_adopted_or_built_anew(void **state)
{
    (void)state;
    struct kithi_segment_peek before, after;
    assert_int_equal(kithi_segment_peek(test_path(&served.run, "docs/segment"), &before, NULL), 0);
    forge(offsetof(struct kithi_header, ef_construction), 77);
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0);
    assert_all_is_back();
    const struct kithi_collection *c = kithi_daemon_find(&kithd, "docs");
    assert_int_equal(kithi_index_map(c->index)->geometry.ef_construction, 77);
    assert_int_not_equal(c->settings.geometry.ef_construction, 77);
    kithi_daemon_fini(&kithd);
    assert_int_equal(kithi_segment_peek(test_path(&served.run, "docs/segment"), &after, NULL), 0);
    assert_int_equal(after.generation, before.generation);
    forge(offsetof(struct kithi_header, metric), KITHI_METRIC_IP);
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0);
    assert_all_is_back();
    kithi_daemon_fini(&kithd);
    assert_int_equal(kithi_segment_peek(test_path(&served.run, "docs/segment"), &after, NULL), 0);
    assert_true(after.generation > before.generation);
    /* And what is no file at all is in the way. */
    assert_int_equal(unlink(test_path(&served.run, "docs/segment")), 0);
    assert_int_equal(mkfifo(test_path(&served.run, "docs/segment"), 0600), 0);
    init();
    assert_int_equal(test_start_here(&kithd, &err), KITHI_E_NOT_SEGMENT);
    assert_non_null(strstr(err.text, "is something else and not a file; remove it"));
    kithi_daemon_fini(&kithd);
}

/* ---- the census that an adoption leaves for later ---- */

static void a_census_is_put_off_for_want_of_memory_and_not_made_of_what_goes(void **state)
{
    (void)state;
    uint64_t ms = 0;
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0);
    struct kithi_collection *c = kithi_daemon_find(&kithd, "docs");
    assert_true(kithi_index_census_due(c->index));
    bool *const reasons[] = { &c->dropping, &kithd.failing };
    for (unsigned i = 0; i < 2; i++) {
        *reasons[i] = true;
        assert_false(kithi_census_turn(c, 1000, &ms));
        *reasons[i] = false;
    }
    c->condemned = true; /* it never ends, and wants no turn */
    assert_true(kithi_census_turn(c, 1000, &ms));
    assert_true(ms == KITHI_NEVER);
    c->condemned = false;
    test_failing_begin(1, TEST_FAILS);
    assert_true(kithi_census_turn(c, 1000, &ms));
    assert_true(test_failing_end());
    assert_int_equal(ms, 1500);
    assert_true(kithi_census_turn(c, 1499, &ms)); /* not yet */
    assert_int_equal(ms, 1500);
    assert_true(kithi_index_census_due(c->index));
    c->pipeline.sweep_at_ms = 77;
    while (kithi_census_turn(c, 2000, &ms)) {
        assert_int_equal(ms, 2000);
    }
    assert_false(kithi_index_census_due(c->index));
    assert_int_equal(c->pipeline.sweep_at_ms, 0);
    assert_all_is_back();
    assert_false(kithi_census_turn(c, 2000, &ms));
    kithi_daemon_fini(&kithd);
}

static void a_count_that_is_wrong_is_put_right_by_the_census(void **state)
{
    (void)state;
    uint64_t ms = 0;
    struct kithi_map map;
    assert_int_equal(kithi_map_attach_path(test_path(&served.run, "docs/segment"), true, &map, &err), 0);
    kithi_header_notes(kithi_map_header(&map))->live = LIVE - 10;
    kithi_map_header(&map)->live = LIVE - 10;
    kithi_map_detach(&map);
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0);
    struct kithi_collection *c = kithi_daemon_find(&kithd, "docs");
    assert_int_equal(kithi_index_live(c->index), LIVE - 10);
    while (kithi_census_turn(c, 2000, &ms)) {
    }
    assert_all_is_back();
    kithi_daemon_fini(&kithd);
}

static void a_segment_whose_records_make_no_sense_is_condemned_and_not_adopted_again(void **state)
{
    (void)state;
    uint64_t ms = 0;
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0);
    struct kithi_collection *c = kithi_daemon_find(&kithd, "docs");
    const struct kithi_map *map = kithi_index_map(c->index);
    struct kithi_record *records = (void *)(map->base + map->layout.off[KITHI_REGION_RECORDS]);
    uint32_t slot = 0;
    while (!records[slot].linked) {
        slot++;
    }
    records[slot].upper = 0xffffff;
    while (!c->condemned && kithi_census_turn(c, 2000, &ms)) {
    }
    assert_true(c->condemned && ms == KITHI_NEVER);
    assert_false(kithd.stopping); /* it is built anew beside its readers */
    kithi_daemon_fini(&kithd);
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0); /* which makes another one */
    assert_all_is_back();
    kithi_daemon_fini(&kithd);
}

/* ---- what stands in the place of a checkpoint ---- */

static const char *checkpoint_path(uint64_t epoch)
{
    static char path[KITHI_PATH_MAX];
    char name[KITHI_CHECKPOINT_NAME_SIZE];
    kithi_checkpoint_name(name, epoch);
    snprintf(path, sizeof path, "%s/docs/%s", served.data.path, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

/* A copy of checkpoint c, with another header, under its checksums. */
static void put_checkpoint(uint64_t name_epoch, const struct kithi_checkpoint *c,
                           const struct kithi_checkpoint_header *h, unsigned char *bytes)
{
    kithi_checkpoint_header_encode(bytes, h);
    kithi_checkpoint_table_encode(bytes + c->plan.table_off, h, &c->plan, c->sums, EPOCH);
    write_file(checkpoint_path(name_epoch), bytes, c->plan.file_size);
}

/* All of them are passed over, whatever they are, and left as they are; the log alone has everything. */
static void what_is_no_checkpoint_is_passed_over(void **state)
{
    (void)state;
    struct kithi_checkpoint c;
    assert_int_equal(kithi_checkpoint_open(checkpoint_path(EPOCH), NULL, &c, &err), 0);
    void *aligned = NULL;
    assert_int_equal(posix_memalign(&aligned, 4096, c.plan.file_size), 0);
    unsigned char *bytes = aligned;
    assert_int_equal(pread(c.fd, bytes, c.plan.file_size, 0), (ssize_t)c.plan.file_size);
    struct kithi_checkpoint_header h = c.header;
    put_checkpoint(30, &c, &h, bytes); /* of another epoch than its name says */
    h.epoch = 29;
    h.uid[0] ^= 1;
    put_checkpoint(29, &c, &h, bytes); /* another collection's */
    h.uid[0] ^= 1;
    for (uint64_t epoch = 24; epoch < 29; epoch++) { /* made for other vectors */
        h = c.header;
        h.epoch = epoch;
        h.geometry.dim += epoch == 24;
        h.geometry.metric = epoch == 25 ? KITHI_METRIC_IP : h.geometry.metric;
        h.geometry.m += epoch == 26;
        h.geometry.ef_construction += epoch == 27;
        h.geometry.slot_max += epoch == 28;
        put_checkpoint(epoch, &c, &h, bytes);
    }
    h = c.header;
    h.epoch = 23;
    h.geometry.code_bits = 77;
    put_checkpoint(23, &c, &h, bytes); /* of codes that there are not */
    h = c.header;
    h.epoch = 22;
    h.live++;
    put_checkpoint(22, &c, &h, bytes); /* of more vectors than are in it */
    h.live--;
    h.segment_version = 99;
    h.epoch = 21;
    put_checkpoint(21, &c, &h, bytes);
    h = c.header;
    h.epoch = 20;
    put_checkpoint(20, &c, &h, bytes);
    assert_int_equal(truncate(checkpoint_path(20), 4096), 0);
    assert_int_equal(symlink("/etc/passwd", checkpoint_path(19)), 0);
    assert_int_equal(mkfifo(checkpoint_path(18), 0600), 0);
    assert_int_equal(mkdir(checkpoint_path(17), 0700), 0);
    /* And the good one is damaged: one chunk of it does not match its checksum. */
    assert_true(c.plan.chunk_count > 0);
    struct kithi_checkpoint_chunk chunk = kithi_checkpoint_chunk_at(&c.header, &c.plan, 0);
    h = c.header;
    kithi_checkpoint_header_encode(bytes, &h);
    kithi_checkpoint_table_encode(bytes + c.plan.table_off, &h, &c.plan, c.sums, EPOCH);
    bytes[chunk.file_off + 9] ^= 4;
    write_file(checkpoint_path(EPOCH), bytes, c.plan.file_size);
    bytes[chunk.file_off + 9] ^= 4;
    lose_segments();
    init();
    if (test_start_here(&kithd, &err)) {
        fail_msg("%s", err.text);
    }
    assert_all_is_back();
    for (uint64_t epoch = 17; epoch <= EPOCH; epoch++) {
        struct stat st;
        assert_int_equal(lstat(checkpoint_path(epoch), &st), 0);
    }
    kithi_daemon_fini(&kithd);
    /* With a good one behind all of these it is that one. */
    h = c.header;
    h.epoch = EPOCH;
    write_file(checkpoint_path(EPOCH), bytes, c.plan.file_size);
    lose_segments();
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0);
    assert_all_is_back();
    kithi_daemon_fini(&kithd);
    free(bytes);
    kithi_checkpoint_close(&c);
}

/* ---- the list ---- */

static void a_list_that_cannot_be_made_ends_the_start(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (enum test_way way = 0; way < TEST_WAYS; way++) {
        bool met = true;
        for (uint64_t k = 1; met && k < CALLS; k++) {
            init();
            test_failing_begin(k, way);
            int status = kithi_start_begin(&kithd, &err);
            met = test_failing_end();
            failures += status != 0;
            if (status == 0) {
                assert_int_equal(kithi_start_count(&kithd), 2);
            } else if (!err.text[0] || err.code != status) {
                fail_msg("%s: %d, told as %d: %s", test_failing_what(), status, err.code, err.text);
            }
            kithi_daemon_fini(&kithd);
        }
        assert_false(met);
    }
    assert_true(failures > 30);
}

static void wait_until_over(void)
{
    uint64_t end_ms = kithi_now_ms() + 60000;
    while (kithd.start) {
        assert_true(kithi_now_ms() < end_ms);
        kithi_start_turn(&kithd);
        assert_true(kithi_io_run(kithd.io, 10) >= 0);
    }
}

static void threads_that_there_are_do_the_work_of_all(void **state)
{
    (void)state;
    for (uint64_t k = 1; k <= 2; k++) {
        init();
        assert_int_equal(kithi_start_begin(&kithd, &err), 0);
        test_failing_begin(k, TEST_LASTS);
        int status = kithi_start_go(&kithd, &err);
        assert_true(test_failing_end());
        if (k == 1) {
            assert_int_equal(status, -EAGAIN);
            assert_non_null(strstr(err.text, "cannot start a thread to bring collections back"));
        } else {
            assert_int_equal(status, 0);
            wait_until_over();
            assert_all_is_back();
        }
        kithi_daemon_fini(&kithd);
    }
}

/* From a size on, collections that have to be read come back one at a time. */
static void large_collections_come_back_one_after_the_other(void **state)
{
    (void)state;
    const char *const paths[] = { test_path(&served.data, "docs/checkpoint-00000000000000000031"),
                                  test_path(&served.data, "empty/checkpoint-00000000000000000000") };
    for (unsigned i = 0; i < 2; i++) {
        touch(paths[i]);
        assert_int_equal(truncate(paths[i], 200 << 20), 0); /* damaged, so that the log alone counts */
    }
    lose_segments();
    init();
    assert_int_equal(kithi_start_begin(&kithd, &err), 0);
    assert_int_equal(kithi_start_go(&kithd, &err), 0);
    wait_until_over();
    assert_false(kithd.stopping);
    assert_all_is_back();
    kithi_daemon_fini(&kithd);
}

/* The loop is told to stop, and that is not the fault of what is not back yet. */
static void a_start_that_is_told_to_stop_loses_nothing(void **state)
{
    (void)state;
    init();
    assert_int_equal(kithi_start_begin(&kithd, &err), 0);
    kithd.stopping = true;
    assert_int_equal(kithi_start_go(&kithd, &err), 0);
    wait_until_over();
    assert_null(kithd.collections);
    assert_int_equal(kithd.start_err.code, 0);
    assert_int_equal(kithd.exit_status, 0);
    kithi_daemon_fini(&kithd);
    init();
    kithd.stopping = true;
    lose_segments();
    assert_int_equal(test_start_here(&kithd, &err), -ECANCELED);
    kithi_daemon_fini(&kithd);
    init();
    assert_int_equal(test_start_here(&kithd, &err), 0);
    assert_all_is_back();
    kithi_daemon_fini(&kithd);
}

static void the_first_collection_that_is_not_back_is_the_reason(void **state)
{
    (void)state;
    static const char *const logs[] = { "docs/wal/00000000000000000001.wal",
                                        "empty/wal/00000000000000000001.wal" };
    for (unsigned i = 0; i < 2; i++) {
        int fd = open(test_path(&served.data, logs[i]), O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, "damage", 6, 40), 6);
        close(fd);
    }
    init();
    assert_int_equal(kithi_start_begin(&kithd, &err), 0);
    assert_int_equal(kithi_start_go(&kithd, &err), 0);
    wait_until_over();
    assert_int_equal(kithd.start_err.code, KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(kithd.start_err.text, "/wal"));
    assert_int_equal(kithd.exit_status, 1);
    assert_true(kithd.stopping);
    assert_null(kithd.collections);
    kithi_daemon_fini(&kithd);
}

/* By its name and by its uid, as long as it is not served. */
static void who_asks_for_what_is_not_back_is_told_how_far_it_is(void **state)
{
    (void)state;
    struct kithi_settings settings;
    uint8_t nobody[16] = { 0 };
    init();
    assert_int_equal(kithi_settings_read(test_path(&served.data, "docs"), &settings, &err), 0);
    assert_int_equal(kithi_start_find(&kithd, "docs", &err), 0);
    assert_int_equal(kithi_start_find_uid(&kithd, settings.uid, &err), 0);
    assert_int_equal(kithi_start_count(&kithd), 0);
    assert_int_equal(kithi_start_begin(&kithd, &err), 0);
    assert_int_equal(kithi_start_find_uid(&kithd, settings.uid, &err), KITHI_E_STARTING);
    assert_non_null(strstr(err.text, "still bringing \"docs\" back: others come first"));
    assert_int_equal(kithi_start_find_uid(&kithd, nobody, &err), 0);
    assert_int_equal(kithi_start_find(&kithd, "nobody", &err), 0);
    assert_int_equal(kithi_start_go(&kithd, &err), 0);
    wait_until_over();
    assert_int_equal(kithi_start_find(&kithd, "docs", &err), 0);
    char *text = NULL;
    uint32_t missing;
    assert_int_equal(kithi_start_status(&kithd, NULL, &text, &missing, &err), 0);
    assert_string_equal(text,
                        "{\"ready\":true,\"served\":2,\"coming\":0,\"collections\":[{\"name\":\"docs\","
                        "\"state\":\"served\"},{\"name\":\"empty\",\"state\":\"served\"}],\"refused\":0}");
    free(text);
    kithi_daemon_fini(&kithd);
}

static void a_probe_without_memory_is_told_so(void **state)
{
    (void)state;
    char *text = NULL;
    uint32_t missing = 77;
    init();
    assert_int_equal(kithi_start_begin(&kithd, &err), 0);
    for (uint64_t k = 1; k <= 2; k++) {
        test_failing_begin(k, TEST_FAILS);
        int status = kithi_start_status(&kithd, NULL, &text, &missing, &err);
        assert_true(test_failing_end());
        assert_int_equal(status, -ENOMEM);
        assert_null(text);
        assert_int_equal(missing, 77);
    }
    assert_int_equal(kithi_start_status(&kithd, "none", &text, &missing, &err), KITHI_E_NO_COLLECTION);
    assert_null(text);
    assert_int_equal(kithi_start_status(&kithd, "docs", &text, &missing, &err), 0);
    assert_int_equal(missing, 1);
    assert_string_equal(text,
                        "{\"ready\":false,\"served\":0,\"coming\":1,\"collections\":[{\"name\":\"docs\","
                        "\"state\":\"waiting\"}],\"refused\":0}");
    free(text);
    assert_int_equal(kithi_start_find(&kithd, "docs", &err), KITHI_E_STARTING);
    assert_non_null(strstr(err.text, "others come first"));
    kithi_daemon_fini(&kithd);
}

/* A collection of which nothing can be told but its name is refused, and keeps that; what is none is left alone, or set aside. */
static void what_cannot_be_told_from_a_collection_is_not_passed_over(void **state)
{
    (void)state;
    touch(test_path(&served.data, "a file"));
    touch(test_path(&served.data, "no-collection"));
    mkdir(test_path(&served.run, "no-collection"), 0750);
    touch(test_path(&served.run, "no-collection/segment"));
    mkdir(test_path(&served.data, "no-settings"), 0700);
    mkdir(test_path(&served.run, "no-settings"), 0750);
    touch(test_path(&served.run, "no-settings/segment"));
    init();
    assert_int_equal(kithi_start_begin(&kithd, &err), 0);
    assert_int_equal(kithi_start_count(&kithd), 2);
    assert_int_equal(kithi_start_find(&kithd, "no-settings", &err), -ENOENT);
    assert_non_null(strstr(err.text, "no-settings/collection.conf is missing"));
    assert_int_equal(access(test_path(&served.run, "no-settings/segment"), F_OK), 0);
    size_t at = 0;
    assert_string_equal(kithi_start_next(&kithd, &at), "empty"); /* the smaller one first */
    assert_string_equal(kithi_start_next(&kithd, &at), "docs");
    assert_string_equal(kithi_start_next(&kithd, &at), "no-settings");
    assert_null(kithi_start_next(&kithd, &at));
    assert_int_not_equal(access(test_path(&served.run, "no-collection"), F_OK), 0); /* set aside */
    assert_int_equal(access(test_path(&served.data, "no-collection"), F_OK), 0);
    kithi_daemon_fini(&kithd);
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(an_adoption_fails_with_a_reason_or_loses_nothing),
        CLAIM(loading_a_checkpoint_fails_with_a_reason_or_loses_nothing),
        CLAIM(replaying_a_log_fails_with_a_reason_or_loses_nothing),
        CLAIM(tidying_up_fails_with_a_reason_or_loses_nothing),
        CLAIM(directories_with_paths_that_are_too_long_are_refused),
        CLAIM(changes_that_cannot_be_applied_are_refused_with_their_place),
        CLAIM(groups_of_a_long_last_write_are_all_replayed),
        CLAIM(a_segment_of_another_geometry_is_adopted_or_built_anew),
        CLAIM(a_census_is_put_off_for_want_of_memory_and_not_made_of_what_goes),
        CLAIM(a_count_that_is_wrong_is_put_right_by_the_census),
        CLAIM(a_segment_whose_records_make_no_sense_is_condemned_and_not_adopted_again),
        CLAIM(what_is_no_checkpoint_is_passed_over),
        CLAIM(a_list_that_cannot_be_made_ends_the_start),
        CLAIM(threads_that_there_are_do_the_work_of_all),
        CLAIM(large_collections_come_back_one_after_the_other),
        CLAIM(a_start_that_is_told_to_stop_loses_nothing),
        CLAIM(the_first_collection_that_is_not_back_is_the_reason),
        CLAIM(who_asks_for_what_is_not_back_is_told_how_far_it_is),
        CLAIM(a_probe_without_memory_is_told_so),
        CLAIM(what_cannot_be_told_from_a_collection_is_not_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
