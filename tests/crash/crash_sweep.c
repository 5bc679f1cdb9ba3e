/*
 * crash_sweep.c - every bit and every length of a log and of a checkpoint: is the damage seen?
 *
 *   crash_sweep [--parts NAME,...] [--range FIRST:COUNT] [--tally FILE]
 *
 *   log-bits            each bit of a log of 1 MiB (16 files) turned, then scanned
 *   log-lengths         each of its files cut to each shorter length
 *   checkpoint-bits     each bit of a checkpoint of 1 MiB turned, then opened and read
 *   checkpoint-lengths  each shorter length, and some longer ones
 *   recovery-flips      20,000 bits of a data directory, chosen by the case's number: of a log of 1 MiB and two checkpoints; then a
 *                       whole start without a segment
 *   recovery-blocks     the same with each block of 4096 bytes: a bit turned, cut off there, zeroed, exchanged with the next
 *                       one, and with another one
 *
 * Damage is detected (refused with the file's name; of a checkpoint: passed over), or harmless: the groups that are
 * delivered, or what a start serves, are all that was acknowledged. One thing cannot be told from a crash and is
 * counted by itself: damage to the last group of a log, or to the last two at once, which then look torn (WAL.md, "What
 * R5 cannot tell"); no group may be missing that was not damaged, and it is refused where somebody knows that it was durable.
 *
 *   --range FIRST:COUNT  these cases only, of each part
 *   --tally FILE         a line for each slice of cases is appended, slices that stand in it are done, and the sum is over all
 *                        of it
 *
 * Without options: cases of all parts for a while, chosen by KITH_SEED; with KITH_TEST_LONG=1 all of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/checkpoint/read.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "server/writer/collection.h"
#include "shm/graph/scan.h"
#include "tests/crash/fail/place.h"
#include "tests/crash/start_here.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"
#include "tests/unit/server/wal/history.h"

#define BLOCK      4096u
#define FILE_BYTES (64u << 10) /* of a file of the scanned log */
#define FILES      16u
#define SALT       11u
#define DIM        1024u
#define GROUPS     23u /* of the recovered log: 254 blocks of 256 */
#define GROUP_IDS  10u
#define IDS        (GROUPS * GROUP_IDS)
#define LARGE_IDS  250u /* of the checkpoint that is read alone: 1 MiB and a bit */
#define DATA_BYTES                                                                                           \
    (48u << 20) /* of the file system for data: no room for a log file of 64 MiB, so it is of 1 MiB */
#define FLIPS       20000u
#define LONGER      4096u
#define SHORT_MS    2200u /* a part, in the short form */
#define DAMAGES     5u
#define DAMAGED_MAX 3u
#define PATH_SIZE   (2 * TEST_PATH_SIZE)

enum part {
    LOG_BITS,
    LOG_LENGTHS,
    CHECKPOINT_BITS,
    CHECKPOINT_LENGTHS,
    RECOVERY_FLIPS,
    RECOVERY_BLOCKS,
    PART_COUNT
};
static const char *const part_names[] = { "log-bits",           "log-lengths",    "checkpoint-bits",
                                          "checkpoint-lengths", "recovery-flips", "recovery-blocks" };
static const uint32_t slices[] = { 65536, 65536, 65536, 65536, 250, 256 };

enum verdict { DETECTED, HARMLESS, TORN, BAD };

struct figures {
    uint64_t of[BAD + 1];
};

struct bytes {
    unsigned char *p;
    size_t len;
    char name[64];
};

static struct world {
    /* The log that is scanned. */
    struct test_dir log;
    struct kithi_wal_file *files;
    struct bytes images[FILES];
    uint64_t last_epoch, last_off, last_size; /* the last group, in the last file */
    bool whole;                               /* scan from the first group on */

    /* The checkpoint that is read. */
    struct test_dir checkpoint;
    struct bytes image;

    /* The data directory that is recovered. */
    struct test_daemon d;
    char data[PATH_SIZE], run[PATH_SIZE];
    struct bytes conf, damaged[DAMAGED_MAX]; /* log, newest checkpoint, the one before */
    size_t group_off, group_size;            /* the last group, in the log; all have its size */
    char position[160];
} w;

static void check(bool good, const char *what)
{
    if (!good)
        test_die("%s: %s", what, strerror(errno));
}

static void load(const char *path, const char *name, struct bytes *out)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    check(fd >= 0 && fstat(fd, &st) == 0, path);
    out->len = (size_t)st.st_size;
    out->p = malloc(out->len + 1);
    check(out->p && pread(fd, out->p, out->len, 0) == (ssize_t)out->len, path);
    snprintf(out->name, sizeof out->name, "%s", name);
    close(fd);
}

static void store(const char *path, const struct bytes *b)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    check(fd >= 0 && write(fd, b->p, b->len) == (ssize_t)b->len, path);
    close(fd);
}

static enum verdict bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static enum verdict bad(const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "BAD %s: ", w.position);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    return BAD;
}

/* ---- the log that is scanned ---- */

static void log_make(void)
{
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct history h = { 0 };
    struct history_ack acks = { 0 };
    struct kithi_wal_report report = { 0 };
    struct kithi_errmsg err = { 0 };
    int64_t n = 0;
    test_dir_make_shm(&w.log);
    if (kithi_io_open(KITHI_IO_THREADS, &io, &err) < 0 ||
        history_open(io, w.log.path, FILE_BYTES, &report, &wal, &err) < 0)
        test_die("%s", err.text);
    /* Until the last file is half full: it ends in zeros, as the last file of a log does. */
    for (uint64_t epoch = 1; n < FILES || report.tail_off < FILE_BYTES / 2; epoch++) {
        int r;
        while ((r = history_append(wal, epoch, SALT, &acks)) == -EBUSY)
            kithi_io_run(io, 10000);
        while (kithi_wal_busy(wal))
            kithi_io_run(io, 10000);
        free(w.files);
        n = kithi_wal_files_list(w.log.path, &w.files, &err);
        check(r == 0 && n > 0 && n <= FILES && history_scan(w.log.path, SALT, 0, 0, &h, &report, &err) == 0,
              "the log");
    }
    kithi_wal_close(wal);
    kithi_io_free(io);
    w.last_epoch = report.last_epoch;
    w.last_off = report.tail_off;
    w.last_size = report.tail_size;
    for (unsigned i = 0; i < FILES; i++) {
        load(test_path(&w.log, w.files[i].name), w.files[i].name, &w.images[i]);
        if (w.images[i].len != FILE_BYTES)
            test_die("%s has %zu bytes", w.files[i].name, w.images[i].len);
    }
}

/* The file is as it is on disk now. */
static enum verdict log_judge(unsigned file, bool in_last_group, bool in_zeros)
{
    struct history h = { 0 };
    struct kithi_wal_report report;
    struct kithi_errmsg err;
    uint64_t after = w.whole ? 0 : w.files[file].first_epoch - 1;
    int r = history_scan(w.log.path, SALT, after, 0, &h, &report, &err);
    if (h.wrong)
        return bad("a group was delivered that was never written");
    if (r == KITHI_E_LOG_DAMAGED)
        return strstr(err.text, w.files[file].name) ? DETECTED : bad("the file is not named: %s", err.text);
    if (r != 0)
        return bad("%s: %s", kithi_error_name(r), err.text);
    if (h.last == w.last_epoch && report.last_epoch == w.last_epoch)
        return in_zeros ? HARMLESS : bad("not seen");
    if (h.last + 1 != w.last_epoch || !in_last_group || !report.torn_file[0])
        return bad("the log ends at epoch %" PRIu64 " of %" PRIu64, h.last, w.last_epoch);
    /* Whoever knows that it was durable refuses. */
    r = history_scan(w.log.path, SALT, after, w.last_epoch, &h, &report, &err);
    return r == KITHI_E_LOG_DAMAGED ? TORN : bad("known to be durable, and cut off all the same");
}

/* Bring the file of b to len bytes; the next call, of whatever file, goes on from there. NULL: all files are whole again. */
static void set_length(const struct bytes *b, const char *path, size_t len)
{
    static const struct bytes *cut;
    static char cut_path[PATH_SIZE];
    static int fd = -1;
    static size_t now;
    if (b != cut && cut) {
        check(now >= cut->len ||
                  pwrite(fd, cut->p + now, cut->len - now, (off_t)now) == (ssize_t)(cut->len - now),
              cut_path);
        check(ftruncate(fd, (off_t)cut->len) == 0, cut_path);
        close(fd);
    }
    if (b != cut && b) {
        snprintf(cut_path, sizeof cut_path, "%s", path);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        check(fd >= 0, path);
        now = b->len;
    }
    cut = b;
    if (!b)
        return;
    if (now < len && now < b->len) {
        size_t end = len < b->len ? len : b->len;
        check(pwrite(fd, b->p + now, end - now, (off_t)now) == (ssize_t)(end - now), path);
    }
    check(ftruncate(fd, (off_t)len) == 0, path);
    now = len;
}

static bool all_zeros(const unsigned char *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static enum verdict log_bit(uint64_t bit)
{
    unsigned file = (unsigned)(bit / 8 / FILE_BYTES);
    size_t at = bit / 8 % FILE_BYTES;
    const char *path = test_path(&w.log, w.files[file].name);
    unsigned char turned = w.images[file].p[at] ^ (unsigned char)(1u << bit % 8);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd >= 0 && pwrite(fd, &turned, 1, (off_t)at) == 1, path);
    bool last = file + 1 == FILES;
    enum verdict v =
        log_judge(file, last && at >= w.last_off && at < w.last_off + w.last_size,
                  all_zeros(w.images[file].p + at / BLOCK * BLOCK, FILE_BYTES - at / BLOCK * BLOCK));
    check(pwrite(fd, &w.images[file].p[at], 1, (off_t)at) == 1, path);
    close(fd);
    return v;
}

static enum verdict log_length(uint64_t number)
{
    unsigned file = (unsigned)(number / FILE_BYTES);
    size_t len = number % FILE_BYTES;
    set_length(&w.images[file], test_path(&w.log, w.files[file].name), len);
    return log_judge(file, false, false);
}

/* ---- the checkpoint that is read ---- */

/* Open, and read what holds byte `at`; UINT64_MAX: all of it. 0, or the first error. */
static int checkpoint_read(uint64_t at, struct kithi_errmsg *err)
{
    static void *to;
    static size_t room;
    struct kithi_checkpoint c;
    int rc = kithi_checkpoint_open(test_path(&w.checkpoint, "checkpoint"), NULL, &c, err);
    if (rc < 0)
        return rc;
    if (c.plan.chunk_max > room) {
        free(to);
        room = c.plan.chunk_max;
        to = aligned_alloc(BLOCK, room);
        check(to != NULL, "memory");
    }
    for (uint32_t i = 0; i < c.plan.chunk_count && rc == 0; i++) {
        struct kithi_checkpoint_chunk chunk = kithi_checkpoint_chunk_at(&c.header, &c.plan, i);
        if (at == UINT64_MAX || (at >= chunk.file_off && at < chunk.file_off + chunk.size))
            rc = kithi_checkpoint_read(&c, i, to, err);
    }
    kithi_checkpoint_close(&c);
    return rc;
}

static enum verdict checkpoint_verdict(int rc, const struct kithi_errmsg *err)
{
    return rc == KITHI_E_CORRUPT && strstr(err->text, "checkpoint") ? DETECTED
                                                                    : bad("%s", rc ? err->text : "not seen");
}

static enum verdict checkpoint_bit(uint64_t bit)
{
    struct kithi_errmsg err = { 0 };
    const char *path = test_path(&w.checkpoint, "checkpoint");
    unsigned char turned = w.image.p[bit / 8] ^ (unsigned char)(1u << bit % 8);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd >= 0 && pwrite(fd, &turned, 1, (off_t)(bit / 8)) == 1, path);
    enum verdict v = checkpoint_verdict(checkpoint_read(w.whole ? UINT64_MAX : bit / 8, &err), &err);
    check(pwrite(fd, &w.image.p[bit / 8], 1, (off_t)(bit / 8)) == 1, path);
    close(fd);
    return v;
}

static enum verdict checkpoint_length(uint64_t number)
{
    struct kithi_errmsg err = { 0 };
    set_length(&w.image, test_path(&w.checkpoint, "checkpoint"), number < w.image.len ? number : number + 1);
    int rc = checkpoint_read(UINT64_MAX, &err);
    return checkpoint_verdict(rc, &err);
}

/* ---- the data directory that is recovered ---- */

static void vector_of(uint32_t id, uint32_t version, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, (uint64_t)id << 32 | version);
    test_rand_floats(&r, out, DIM);
    out[0] = (float)version;
}

/* The ids of a group: new ones, or for every fifth those of two groups before anew. */
static uint32_t group_first(uint32_t g, uint32_t *version)
{
    *version = g % 5 == 4 ? 2 : 1;
    return (g % 5 == 4 ? g - 2 : g) * GROUP_IDS;
}

/* What there is after the first `groups`. */
static void versions_after(uint32_t groups, uint32_t out[IDS])
{
    memset(out, 0, IDS * sizeof *out);
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t version, first = group_first(g, &version);
        for (uint32_t i = first; i < first + GROUP_IDS; i++)
            out[i] = version;
    }
}

static void put(kith *k, uint32_t first, uint32_t count, uint32_t version)
{
    float vector[DIM];
    char id[16];
    struct kith_commit commit = KITH_COMMIT_INIT;
    kith_batch *b = kith_batch_new(k);
    for (uint32_t i = first; i < first + count; i++) {
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, version, vector);
        if (kith_batch_upsert(b, id, vector, DIM) < 0)
            test_die("a batch does not take %s", id);
    }
    if (kith_batch_commit(b, &commit) < 0)
        test_die("%s", commit.error.text);
    kith_batch_free(b);
}

static void checkpoint(kith *k)
{
    struct kith_error error = { 0 };
    uint64_t epoch;
    if (kith_checkpoint(k, &epoch, &error) < 0)
        test_die("%s", error.text);
}

static kith *make_collection(const char *name)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_error error = { 0 };
    kith *k = NULL;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.m = 4;
    create.ef_construction = 8;
    create.max_vectors = 2048;
    create.run_dir = opts.run_dir = w.run;
    create.error = opts.error = &error;
    if (kith_create(name, &create) < 0 || kith_open(name, &opts, &k) < 0)
        test_die("%s", error.text);
    return k;
}

static void in_data(const char *collection, const char *name, char out[PATH_SIZE])
{
    snprintf(out, PATH_SIZE, "%.200s/%s/%s", w.data, collection, name);
}

static void load_checkpoint(const char *collection, uint64_t epoch, struct bytes *out)
{
    char name[KITHI_CHECKPOINT_NAME_SIZE], path[PATH_SIZE];
    kithi_checkpoint_name(name, epoch);
    in_data(collection, name, path);
    load(path, name, out);
}

/* Where the last group of the recovered log is. */
static void find_last_group(void)
{
    struct kithi_settings settings;
    struct kithi_wal_report report = { 0 };
    struct kithi_errmsg err = { 0 };
    char dir[PATH_SIZE], path[PATH_SIZE], name[TEST_PATH_SIZE];
    in_data("main", "", dir);
    if (kithi_settings_read(dir, &settings, &err) < 0)
        test_die("%s", err.text);
    in_data("main", "wal", path);
    struct kithi_wal_scan_opts opts = { .dir = path };
    memcpy(opts.uid, settings.uid, sizeof opts.uid);
    if (kithi_wal_scan(&opts, &report, &err) < 0)
        test_die("%s", err.text);
    if (report.files != 1 || report.last_epoch != GROUPS)
        test_die("the log has %u files and ends at %" PRIu64, report.files, report.last_epoch);
    w.group_off = report.tail_off;
    w.group_size = report.tail_size;
    snprintf(name, sizeof name, "wal/%s", report.tail_file);
    in_data("main", name, path);
    load(path, name, &w.damaged[0]);
}

static void data_make(void)
{
    char path[PATH_SIZE];
    test_daemon_init(&w.d);
    test_dir_remove(&w.d.data);
    if (!test_dir_mount(&w.d.data, DATA_BYTES))
        fprintf(stderr, "log files are of 64 MiB, then: this takes longer\n");
    snprintf(w.data, sizeof w.data, "%.240s/data", w.d.data.path);
    snprintf(w.run, sizeof w.run, "%.240s/run", w.d.run.path);
    snprintf(w.d.log, sizeof w.d.log, "%.240s/kithd.log", w.d.data.path);
    check(mkdir(w.data, 0700) == 0, w.data);
    if (test_daemon_start(&w.d) < 0)
        exit(1);
    kith *k = make_collection("main");
    uint64_t checkpoints[2] = { 12, 21 };
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint32_t version, first = group_first(g, &version);
        put(k, first, GROUP_IDS, version);
        if (g + 1 == checkpoints[0] || g + 1 == checkpoints[1])
            checkpoint(k);
    }
    kith_close(k);
    k = make_collection("large");
    put(k, 0, LARGE_IDS / 2, 1);
    put(k, LARGE_IDS / 2, LARGE_IDS / 2, 1);
    checkpoint(k);
    kith_close(k);
    test_daemon_kill(&w.d);

    find_last_group();
    load_checkpoint("main", checkpoints[1], &w.damaged[1]);
    load_checkpoint("main", checkpoints[0], &w.damaged[2]);
    in_data("main", KITHI_SETTINGS_NAME, path);
    load(path, KITHI_SETTINGS_NAME, &w.conf);
    load_checkpoint("large", 2, &w.image);
    test_dir_make_shm(&w.checkpoint);
    store(test_path(&w.checkpoint, "checkpoint"), &w.image);
}

static void data_lay(void)
{
    char path[PATH_SIZE];
    place_empty(w.data);
    place_empty(w.run);
    in_data("main", "", path);
    check(mkdir(path, 0700) == 0, path);
    in_data("main", "wal", path);
    check(mkdir(path, 0700) == 0, path);
    in_data("main", w.conf.name, path);
    store(path, &w.conf);
    for (unsigned i = 0; i < DAMAGED_MAX; i++) {
        in_data("main", w.damaged[i].name, path);
        store(path, &w.damaged[i]);
    }
}

/* What the segment holds, as versions of ids. */
static bool read_versions(const struct kithi_map *map, uint32_t out[IDS])
{
    struct kithi_scan scan;
    struct kithi_item item;
    float vector[DIM], want[DIM];
    int rc;
    memset(out, 0, IDS * sizeof *out);
    kithi_scan_begin(map, &scan);
    while ((rc = kithi_scan_next(&scan, &item, vector)) == 1) {
        unsigned long id = strtoul(item.id, NULL, 10);
        uint32_t version = vector[0] == 2.0f ? 2 : 1;
        vector_of((uint32_t)id, version, want);
        if (id >= IDS || out[id] || memcmp(vector, want, sizeof vector) != 0)
            return false;
        out[id] = version;
    }
    return rc == 0 && test_verify_clean(map);
}

#define REFUSED      (-1)
#define SERVED_WRONG (-2)

/* After how many groups what is served was right; GROUPS: all of it. */
static int recover(struct kithi_errmsg *err)
{
    static struct kithi_daemon daemon;
    static struct kithi_options options;
    uint32_t there[IDS], want[IDS];
    snprintf(options.data, sizeof options.data, "%s", w.data);
    snprintf(options.run, sizeof options.run, "%s", w.run);
    options.threads = 1;
    options.small_pages = true;
    if (kithi_daemon_init(&daemon, &options, err))
        test_die("%s", err->text);
    int served = REFUSED;
    if (test_start_here(&daemon, err) == 0) {
        served = SERVED_WRONG;
        if (daemon.collections && read_versions(kithi_index_map(daemon.collections->index), there)) {
            for (served = GROUPS; served >= 0; served--) {
                versions_after((uint32_t)served, want);
                if (memcmp(there, want, sizeof want) == 0)
                    break;
            }
            served = served < 0 ? SERVED_WRONG : served;
        }
    }
    kithi_daemon_fini(&daemon);
    return served;
}

/* Number of the group that a byte of the log belongs to, from 1; they are of one size. 0: of none. */
static unsigned group_at(unsigned file, size_t at)
{
    size_t first = w.group_off - (GROUPS - 1) * w.group_size;
    unsigned g = at < first ? 0 : (unsigned)((at - first) / w.group_size) + 1;
    return file != 0 || g > GROUPS ? 0 : g;
}

/* A file was damaged at two places, or one. Groups that are missing at the end have to be among the damaged ones. */
static enum verdict recovery_judge(unsigned file, size_t at, size_t other)
{
    struct kithi_errmsg err = { 0 };
    const char *slash = strrchr(w.damaged[file].name, '/');
    int served = recover(&err);
    if (served == GROUPS)
        return file == 0 ? HARMLESS : DETECTED;
    if (served == SERVED_WRONG)
        return bad("something else is served than was acknowledged");
    if (served == REFUSED && file != 0)
        return bad("a damaged checkpoint stops the start: %s", err.text);
    if (served == REFUSED)
        return strstr(err.text, slash ? slash + 1 : w.damaged[file].name)
                   ? DETECTED
                   : bad("the file is not named: %s", err.text);
    for (unsigned g = (unsigned)served + 1; g <= GROUPS; g++)
        if (group_at(file, at) != g && group_at(file, other) != g)
            return bad("%d of %u groups are served, and group %u was not damaged", served, GROUPS, g);
    return TORN;
}

/* Open a file of the directory that was just laid. */
static int open_damaged(unsigned file)
{
    char path[PATH_SIZE];
    in_data("main", w.damaged[file].name, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    check(fd >= 0, path);
    return fd;
}

static enum verdict recovery_flip(uint64_t number)
{
    struct test_rand r;
    unsigned file = 0;
    size_t all = w.damaged[0].len + w.damaged[1].len + w.damaged[2].len;
    test_rand_seed(&r, number * UINT64_C(0x9e3779b97f4a7c15) + 5);
    size_t at = test_rand_u64(&r) % all;
    unsigned char bit = (unsigned char)(1u << test_rand_below(&r, 8));
    for (; at >= w.damaged[file].len; file++)
        at -= w.damaged[file].len;
    data_lay();
    int fd = open_damaged(file);
    unsigned char turned = w.damaged[file].p[at] ^ bit;
    check(pwrite(fd, &turned, 1, (off_t)at) == 1, "flip");
    close(fd);
    return recovery_judge(file, at, at);
}

static uint64_t block_cases(unsigned file)
{
    return w.damaged[file].len / BLOCK * DAMAGES;
}

static void put_block(int fd, size_t block, const unsigned char *bytes)
{
    check(pwrite(fd, bytes, BLOCK, (off_t)(block * BLOCK)) == (ssize_t)BLOCK, "block");
}

static enum verdict recovery_block(uint64_t number)
{
    static const unsigned char zeros[BLOCK];
    struct test_rand r;
    unsigned file = 0;
    test_rand_seed(&r, number + 77);
    uint64_t i = number;
    for (; i >= block_cases(file); file++)
        i -= block_cases(file);
    const struct bytes *b = &w.damaged[file];
    size_t blocks = b->len / BLOCK, block = i / DAMAGES, other = block;
    unsigned char turned[BLOCK];
    bool same = false;
    data_lay();
    int fd = open_damaged(file);
    switch (i % DAMAGES) {
    case 0:
        memcpy(turned, b->p + block * BLOCK, BLOCK);
        turned[test_rand_below(&r, BLOCK)] ^= (unsigned char)(1u << test_rand_below(&r, 8));
        put_block(fd, block, turned);
        break;
    case 1: check(ftruncate(fd, (off_t)(block * BLOCK)) == 0, "cut"); break;
    case 2:
        same = memcmp(b->p + block * BLOCK, zeros, BLOCK) == 0;
        put_block(fd, block, zeros);
        break;
    default:
        other = i % DAMAGES == 3 ? (block + 1) % blocks : test_rand_below(&r, (uint32_t)blocks);
        same = memcmp(b->p + block * BLOCK, b->p + other * BLOCK, BLOCK) == 0;
        put_block(fd, block, b->p + other * BLOCK);
        put_block(fd, other, b->p + block * BLOCK);
    }
    close(fd);
    enum verdict v = recovery_judge(file, block * BLOCK, other * BLOCK);
    return same && v == DETECTED && file != 0 ? HARMLESS : v;
}

/* ---- cases ---- */

static uint64_t cases_of(enum part p)
{
    switch (p) {
    case LOG_BITS: return (uint64_t)FILES * FILE_BYTES * 8;
    case LOG_LENGTHS: return (uint64_t)FILES * FILE_BYTES;
    case CHECKPOINT_BITS: return (uint64_t)w.image.len * 8;
    case CHECKPOINT_LENGTHS: return w.image.len + LONGER;
    case RECOVERY_FLIPS: return FLIPS;
    default: return block_cases(0) + block_cases(1) + block_cases(2);
    }
}

static enum verdict try_case(enum part p, uint64_t number)
{
    static enum verdict (*const tries[])(uint64_t) = { log_bit,           log_length,    checkpoint_bit,
                                                       checkpoint_length, recovery_flip, recovery_block };
    if (p != LOG_LENGTHS && p != CHECKPOINT_LENGTHS)
        set_length(NULL, NULL, 0);
    snprintf(w.position, sizeof w.position, "%s %" PRIu64, part_names[p], number);
    return tries[p](number);
}

static void died(int signal)
{
    static const char text[] = "\ncrash_sweep died in case ";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    n += write(STDERR_FILENO, w.position, strlen(w.position));
    n += write(STDERR_FILENO, "\n", 1);
    (void)n;
    _exit(128 + signal);
}

static void add(struct figures *to, const struct figures *f)
{
    for (unsigned i = 0; i <= BAD; i++)
        to->of[i] += f->of[i];
}

/* ---- the tally: a line a slice ---- */

static bool tally_read(const char *path, enum part p, uint64_t first, struct figures sums[PART_COUNT])
{
    char line[256], name[32];
    bool known = false;
    FILE *f = fopen(path, "r");
    memset(sums, 0, PART_COUNT * sizeof *sums);
    while (f && fgets(line, sizeof line, f)) {
        uint64_t from;
        struct figures one;
        if (sscanf(line,
                   "%31s %" SCNu64 " detected %" SCNu64 " harmless %" SCNu64 " torn %" SCNu64 " bad %" SCNu64,
                   name, &from, &one.of[DETECTED], &one.of[HARMLESS], &one.of[TORN], &one.of[BAD]) != 6)
            test_die("%s: this is not a line of a tally: %s", path, line);
        for (unsigned i = 0; i < PART_COUNT; i++)
            if (strcmp(name, part_names[i]) == 0) {
                add(&sums[i], &one);
                known |= i == p && from == first;
            }
    }
    if (f)
        fclose(f);
    return known;
}

static void tally_add(const char *path, enum part p, uint64_t first, const struct figures *one)
{
    FILE *f = fopen(path, "a");
    check(f != NULL, path);
    fprintf(f, "%s %" PRIu64 " detected %" PRIu64 " harmless %" PRIu64 " torn %" PRIu64 " bad %" PRIu64 "\n",
            part_names[p], first, one->of[DETECTED], one->of[HARMLESS], one->of[TORN], one->of[BAD]);
    check(fclose(f) == 0, path);
}

static uint64_t print_sums(const struct figures sums[PART_COUNT])
{
    uint64_t all_bad = 0;
    printf("%-20s %10s %10s %10s %10s %5s\n", "", "cases", "detected", "harmless", "torn", "bad");
    for (unsigned i = 0; i < PART_COUNT; i++) {
        const uint64_t *f = sums[i].of;
        printf("%-20s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %5" PRIu64 "\n", part_names[i],
               f[DETECTED] + f[HARMLESS] + f[TORN] + f[BAD], f[DETECTED], f[HARMLESS], f[TORN], f[BAD]);
        all_bad += f[BAD];
    }
    return all_bad;
}

/* ---- the forms ---- */

struct options {
    const char *parts, *tally;
    uint64_t first, count;
};

static void all_cases(const struct options *o, struct figures sums[PART_COUNT])
{
    for (enum part p = 0; p < PART_COUNT; p++) {
        uint64_t end = cases_of(p);
        if (o->parts && !strstr(o->parts, part_names[p]))
            continue;
        end = o->count < end - (o->first < end ? o->first : end) ? o->first + o->count : end;
        for (uint64_t at = o->first; at < end; at += slices[p]) {
            struct figures one = { { 0 } };
            if (o->tally && tally_read(o->tally, p, at, sums))
                continue;
            for (uint64_t i = at; i < end && i < at + slices[p]; i++)
                one.of[try_case(p, i)]++;
            if (o->tally)
                tally_add(o->tally, p, at, &one);
            else
                add(&sums[p], &one);
        }
        printf("%s: %" PRIu64 " cases\n", part_names[p], end > o->first ? end - o->first : 0);
        fflush(stdout);
    }
    if (o->tally)
        tally_read(o->tally, PART_COUNT, 0, sums);
}

static void some_cases(const struct options *o, struct figures sums[PART_COUNT])
{
    struct test_rand r;
    test_rand_seed(&r, test_seed());
    w.whole = true;
    for (enum part p = 0; p < PART_COUNT; p++) {
        uint64_t end = test_now_ms() + SHORT_MS;
        if (o->parts && !strstr(o->parts, part_names[p]))
            continue;
        do
            sums[p].of[try_case(p, test_rand_u64(&r) % cases_of(p))]++;
        while (test_now_ms() < end);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "parts", required_argument, NULL, 'p' },
                                             { "range", required_argument, NULL, 'r' },
                                             { "tally", required_argument, NULL, 't' },
                                             { NULL, 0, NULL, 0 } };
    struct options o = { .count = UINT64_MAX };
    static struct figures sums[PART_COUNT];
    bool whole = test_long();
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        bool good = true;
        switch (c) {
        case 'p': o.parts = optarg; break;
        case 'r':
            good = sscanf(optarg, "%" SCNu64 ":%" SCNu64, &o.first, &o.count) == 2;
            whole = true;
            break;
        case 't':
            o.tally = optarg;
            whole = true;
            break;
        default: good = false;
        }
        if (!good) {
            fprintf(stderr, "usage: crash_sweep [--parts NAME,...] [--range FIRST:COUNT] [--tally FILE]\n");
            return 2;
        }
    }
    setenv("KITH_IO", "threads", 1);
    log_make();
    data_make();
    kithi_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    signal(SIGSEGV, died);
    signal(SIGBUS, died);
    signal(SIGABRT, died);
    if (whole)
        all_cases(&o, sums);
    else
        some_cases(&o, sums);
    uint64_t all_bad = print_sums(sums);
    test_dir_remove(&w.log);
    test_dir_remove(&w.checkpoint);
    test_daemon_fini(&w.d);
    return all_bad ? 1 : 0;
}
