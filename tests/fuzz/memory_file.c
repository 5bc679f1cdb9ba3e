/*
 * memory_file.c - see memory_file.h.
 */
#include "tests/fuzz/memory_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_FD 0x40000000 /* no descriptor of a process is as high as this */
#define BLOCK    4096u

static const char *file_name;
static const uint8_t *file_data;
static size_t file_size;
static bool file_holes;
static unsigned open_count;
static FILE *stream;
static struct dirent entry;
static bool entry_given;

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_close(int fd);
int __wrap_close(int fd);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
ssize_t __real_pread(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off);
off_t __real_lseek(int fd, off_t off, int whence);
off_t __wrap_lseek(int fd, off_t off, int whence);
int __real_posix_fadvise(int fd, off_t off, off_t len, int advice);
int __wrap_posix_fadvise(int fd, off_t off, off_t len, int advice);
DIR *__real_opendir(const char *path);
DIR *__wrap_opendir(const char *path);
struct dirent *__real_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir);
int __real_closedir(DIR *dir);
int __wrap_closedir(DIR *dir);
FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
int __real_fclose(FILE *f);
int __wrap_fclose(FILE *f);
int __real_fileno(FILE *f);
int __wrap_fileno(FILE *f);

void memory_file_set(const char *name, const uint8_t *data, size_t size, bool holes)
{
    file_name = name;
    file_data = data;
    file_size = size;
    file_holes = holes;
}

unsigned memory_file_open_count(void)
{
    return open_count;
}

static bool is_ours(const char *path)
{
    size_t dir = sizeof MEMORY_DIR - 1;
    return file_name && strncmp(path, MEMORY_DIR, dir) == 0 && path[dir] == '/' &&
           strcmp(path + dir + 1, file_name) == 0;
}

/* ---- descriptors ---- */

int __wrap_open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? (mode_t)va_arg(ap, int) : 0;
    va_end(ap);
    if (!is_ours(path))
        return __real_open(path, flags, mode);
    open_count++;
    return FIRST_FD;
}

int __wrap_close(int fd)
{
    if (fd < FIRST_FD)
        return __real_close(fd);
    open_count--;
    return 0;
}

int __wrap_fstat(int fd, struct stat *st)
{
    if (fd < FIRST_FD)
        return __real_fstat(fd, st);
    memset(st, 0, sizeof *st);
    st->st_mode = S_IFREG | 0600;
    st->st_size = (off_t)file_size;
    return 0;
}

ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off)
{
    if (fd < FIRST_FD)
        return __real_pread(fd, buf, len, off);
    if (off < 0) {
        errno = EINVAL;
        return -1;
    }
    size_t left = (uint64_t)off < file_size ? file_size - (size_t)off : 0, n = len < left ? len : left;
    if (n)
        memcpy(buf, file_data + off, n);
    return (ssize_t)n;
}

static bool is_hole(size_t block)
{
    static const uint8_t zeros[BLOCK];
    size_t left = file_size - block * BLOCK;
    return file_holes && memcmp(file_data + block * BLOCK, zeros, left < BLOCK ? left : BLOCK) == 0;
}

off_t __wrap_lseek(int fd, off_t off, int whence)
{
    if (fd < FIRST_FD)
        return __real_lseek(fd, off, whence);
    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
        errno = EINVAL;
        return -1;
    }
    if (off < 0 || (uint64_t)off >= file_size) {
        errno = ENXIO;
        return -1;
    }
    for (size_t block = (size_t)off / BLOCK; block * BLOCK < file_size; block++)
        if (is_hole(block) == (whence == SEEK_HOLE))
            return (off_t)block * BLOCK > off ? (off_t)(block * BLOCK) : off;
    if (whence == SEEK_HOLE) /* the end of a file is one */
        return (off_t)file_size;
    errno = ENXIO;
    return -1;
}

int __wrap_posix_fadvise(int fd, off_t off, off_t len, int advice)
{
    return fd < FIRST_FD ? __real_posix_fadvise(fd, off, len, advice) : 0;
}

/* ---- the directory ---- */

DIR *__wrap_opendir(const char *path)
{
    if (strcmp(path, MEMORY_DIR) != 0)
        return __real_opendir(path);
    open_count++;
    entry_given = !file_name;
    return (DIR *)(void *)&entry;
}

struct dirent *__wrap_readdir(DIR *dir)
{
    if ((void *)dir != (void *)&entry)
        return __real_readdir(dir);
    if (entry_given)
        return NULL;
    entry_given = true;
    snprintf(entry.d_name, sizeof entry.d_name, "%s", file_name);
    return &entry;
}

int __wrap_closedir(DIR *dir)
{
    if ((void *)dir != (void *)&entry)
        return __real_closedir(dir);
    open_count--;
    return 0;
}

/* ---- streams, one at a time ---- */

FILE *__wrap_fopen(const char *path, const char *mode)
{
    if (!is_ours(path))
        return __real_fopen(path, mode);
    FILE *f = fmemopen((void *)(uintptr_t)file_data, file_size, "r");
    if (f) {
        stream = f;
        open_count++;
    }
    return f;
}

int __wrap_fclose(FILE *f)
{
    if (f == stream) {
        stream = NULL;
        open_count--;
    }
    return __real_fclose(f);
}

int __wrap_fileno(FILE *f)
{
    return f == stream ? FIRST_FD : __real_fileno(f);
}
