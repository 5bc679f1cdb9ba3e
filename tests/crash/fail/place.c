/*
 * place.c - see place.h.
 */
#include "tests/crash/fail/place.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/wal/scan.h"
#include "server/writer/settings.h"
#include "shm/base/bytes.h"
#include "shm/map/map.h"

#define PATH_SIZE (3 * TEST_PATH_SIZE)

static void check(bool good, const char *path)
{
    if (!good)
        test_die("%s: %s", path, strerror(errno));
}

static void join(char out[PATH_SIZE], const char *dir, const char *name)
{
    int n = snprintf(out, PATH_SIZE, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= PATH_SIZE)
        test_die("%s/%s: the path is too long", dir, name);
}

/* ---- copies ---- */

/* Blocks of zeros become holes: what was allocated and read counts as data, too. */
static void copy_range(int in, int out, off_t at, off_t end, const char *path)
{
    static const char zeros[4096];
    char buf[4096];
    while (at < end) {
        size_t want = sizeof buf - (size_t)(at % (off_t)sizeof buf);
        want = end - at < (off_t)want ? (size_t)(end - at) : want;
        ssize_t n = pread(in, buf, want, at);
        check(n > 0, path);
        if (memcmp(buf, zeros, (size_t)n) != 0)
            check(pwrite(out, buf, (size_t)n, at) == n, path);
        at += n;
    }
}

/* A page that is taken and was not written yet is a hole in the copy. */
static void take_memory(int fd, const char *path)
{
    struct kithi_map map;
    if (kithi_map_attach(fd, false, &map, NULL) < 0)
        return;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t taken = atomic_load(&kithi_map_header(&map)->taken[r]);
        check(taken == 0 || fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)map.layout.off[r], (off_t)taken) == 0,
              path);
    }
    kithi_map_detach(&map);
}

static void copy_file(const char *from, const char *to, const struct stat *st)
{
    int in = open(from, O_RDONLY | O_CLOEXEC),
        out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, st->st_mode & 0777);
    check(in >= 0, from);
    check(out >= 0 && fchmod(out, st->st_mode & 0777) == 0 && ftruncate(out, st->st_size) == 0, to);
    for (off_t end = 0;;) {
        off_t at = lseek(in, end, SEEK_DATA);
        if (at < 0)
            break;
        end = lseek(in, at, SEEK_HOLE);
        copy_range(in, out, at, end, from);
    }
    const char *slash = strrchr(to, '/');
    if (slash && strcmp(slash, "/segment") == 0)
        take_memory(out, to);
    close(in);
    close(out);
}

void place_copy(const char *from, const char *to)
{
    DIR *d = opendir(from);
    check(d != NULL, from);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char a[PATH_SIZE], b[PATH_SIZE];
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        join(a, from, e->d_name);
        join(b, to, e->d_name);
        check(lstat(a, &st) == 0, a);
        if (S_ISDIR(st.st_mode)) {
            check(mkdir(b, 0700) == 0 && chmod(b, st.st_mode & 0777) == 0, b);
            place_copy(a, b);
        } else if (S_ISREG(st.st_mode)) {
            copy_file(a, b, &st);
        }
    }
    closedir(d);
}

static int remove_below(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    return ftw->level > 0 ? remove(path) : 0;
}

void place_empty(const char *path)
{
    check(nftw(path, remove_below, 16, FTW_DEPTH | FTW_PHYS) == 0, path);
}

/* ---- leftovers ---- */

static void put_file(const char *dir, const char *name, const char *content)
{
    char path[PATH_SIZE];
    join(path, dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t len = strlen(content);
    check(fd >= 0 && write(fd, content, len) == (ssize_t)len, path);
    close(fd);
}

static void put_dir(const char *dir, const char *name)
{
    char path[PATH_SIZE];
    join(path, dir, name);
    check(mkdir(path, 0700) == 0, path);
}

/* Half a group behind the last one. */
static void tear_log(const char *collection)
{
    struct kithi_settings settings;
    struct kithi_wal_report report = { 0 };
    struct kithi_errmsg err = { 0 };
    char wal[PATH_SIZE], path[PATH_SIZE];
    unsigned char half[512];
    join(wal, collection, "wal");
    struct kithi_wal_scan_opts opts = { .dir = wal };
    if (kithi_settings_read(collection, &settings, &err) < 0)
        test_die("%s", err.text);
    memcpy(opts.uid, settings.uid, sizeof opts.uid);
    if (kithi_wal_scan(&opts, &report, &err) < 0)
        test_die("%s", err.text);
    join(path, wal, report.tail_file);
    memset(half, 0xab, sizeof half);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd >= 0 && pwrite(fd, half, sizeof half, (off_t)(report.tail_off + report.tail_size)) ==
                         (ssize_t)sizeof half,
          path);
    close(fd);
}

void place_leave(const char *data, const char *run)
{
    char main_dir[PATH_SIZE], run_dir[PATH_SIZE], wal[PATH_SIZE], segment[PATH_SIZE], old[PATH_SIZE];
    join(main_dir, data, "main");
    join(run_dir, run, "main");
    join(wal, data, "main/wal");
    join(segment, run_dir, "segment");
    join(old, run_dir, "segment.old");
    tear_log(main_dir);
    put_dir(data, ".creating-00112233445566778899aabbccddeeff");
    put_dir(data, ".creating-00112233445566778899aabbccddeeff/wal");
    put_dir(data, ".dropped-0123456789abcdef0123456789abcdef");
    put_dir(data, ".dropped-0123456789abcdef0123456789abcdef/wal");
    put_file(data, ".dropped-0123456789abcdef0123456789abcdef/wal/00000000000000000001.wal", "x");
    put_file(main_dir, "checkpoint.new", "half a checkpoint");
    put_file(main_dir, "collection.conf.new", "half a configuration");
    put_file(wal, "new", "");
    put_file(wal, "spare", "");
    put_file(run_dir, "segment.next", "half a segment");
    check(link(segment, old) == 0, old);
}

/* ---- tidiness ---- */

static bool digits(const char *s, unsigned n, const char *then)
{
    for (unsigned i = 0; i < n; i++)
        if (!isdigit((unsigned char)s[i]))
            return false;
    return strcmp(s + n, then) == 0;
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

static bool belongs_in_data(const char *parent, const char *name, bool dir)
{
    static const char *const top[] = { "main", "side", NULL };
    static const char *const files[] = { "collection.conf", NULL };
    if (strcmp(parent, "data") == 0)
        return dir ? is_one_of(name, top) : strstr(name, "lock") != NULL;
    if (strcmp(parent, "wal") == 0)
        return !dir && (digits(name, 20, ".wal") || strcmp(name, "spare") == 0);
    if (dir)
        return strcmp(name, "wal") == 0;
    return is_one_of(name, files) || (strncmp(name, "checkpoint-", 11) == 0 && digits(name + 11, 20, ""));
}

static bool belongs_in_run(const char *parent, const char *name, bool dir)
{
    static const char *const top[] = { "main", "side", NULL };
    static const char *const files[] = { "segment", "segment.old", NULL };
    if (strcmp(parent, "run") == 0)
        return dir ? is_one_of(name, top) : strstr(name, "lock") != NULL || strcmp(name, "kithd.sock") == 0;
    if (strcmp(parent, "readers") == 0) /* their boards */
        return !dir;
    return dir ? strcmp(name, "readers") == 0 : is_one_of(name, files);
}

static bool tidy(const char *path, bool belongs(const char *parent, const char *name, bool dir))
{
    const char *parent = strrchr(path, '/') + 1;
    bool ok = true;
    DIR *d = opendir(path);
    check(d != NULL, path);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char below[PATH_SIZE];
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        join(below, path, e->d_name);
        if (lstat(below, &st) < 0)
            continue; /* it was just being removed */
        if (!belongs(parent, e->d_name, S_ISDIR(st.st_mode))) {
            fprintf(stderr, "  %s is left over\n", below);
            ok = false;
        } else if (S_ISDIR(st.st_mode)) {
            ok &= tidy(below, belongs);
        }
    }
    closedir(d);
    return ok;
}

bool place_tidy(const char *data, const char *run)
{
    bool ok = tidy(data, belongs_in_data);
    return tidy(run, belongs_in_run) && ok;
}
