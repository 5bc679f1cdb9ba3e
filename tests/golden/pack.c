/*
 * pack.c - packing and unpacking of sparse files.
 */
#include "tests/golden/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GRAIN 64u /* a run ends where so many bytes are zero */
#define CHUNK (1u << 16)

static const char magic[8] = { 'K', 'I', 'T', 'H', 'P', 'A', 'C', 'K' };

static bool is_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static bool put_run(FILE *out, uint64_t off, const unsigned char *bytes, uint64_t len)
{
    return fwrite(&off, sizeof off, 1, out) == 1 && fwrite(&len, sizeof len, 1, out) == 1 &&
           fwrite(bytes, 1, len, out) == len;
}

/* The runs of one chunk; a run does not go across chunks. */
static bool put_chunk(FILE *out, uint64_t off, const unsigned char *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t step = n - at < GRAIN ? n - at : GRAIN, end = at;
        while (end < n && !is_zero(p + end, n - end < GRAIN ? n - end : GRAIN))
            end += n - end < GRAIN ? n - end : GRAIN;
        if (end > at && !put_run(out, off + at, p + at, end - at))
            return false;
        at = end > at ? end : at + step;
    }
    return true;
}

int test_pack(const char *file, const char *packed)
{
    static unsigned char buf[CHUNK];
    struct stat st;
    FILE *out = NULL;
    int rc = -EIO, fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || !(out = fopen(packed, "wbe"))) {
        rc = -errno;
        goto out;
    }
    uint64_t size = (uint64_t)st.st_size;
    if (fwrite(magic, sizeof magic, 1, out) != 1 || fwrite(&size, sizeof size, 1, out) != 1)
        goto out;
    for (off_t at = 0; (at = lseek(fd, at, SEEK_DATA)) >= 0 && at < st.st_size;) {
        off_t hole = lseek(fd, at, SEEK_HOLE);
        while (at < hole) {
            size_t want = hole - at < (off_t)sizeof buf ? (size_t)(hole - at) : sizeof buf;
            ssize_t n = pread(fd, buf, want, at);
            if (n <= 0 || !put_chunk(out, (uint64_t)at, buf, (size_t)n))
                goto out;
            at += n;
        }
    }
    rc = 0;
out:
    if (out && fclose(out) != 0 && rc == 0)
        rc = -EIO;
    close(fd);
    return rc;
}

int test_unpack(const char *packed, const char *file)
{
    char head[sizeof magic];
    uint64_t size, off, len;
    int rc = -EIO, fd = -1;
    FILE *in = fopen(packed, "rbe");
    if (!in)
        return -errno;
    fd = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0) {
        rc = -errno;
        goto out;
    }
    if (fread(head, sizeof head, 1, in) != 1 || memcmp(head, magic, sizeof magic) != 0 ||
        fread(&size, sizeof size, 1, in) != 1 || ftruncate(fd, (off_t)size) < 0)
        goto out;
    while (fread(&off, sizeof off, 1, in) == 1) {
        if (fread(&len, sizeof len, 1, in) != 1 || len > size || off > size - len)
            goto out;
        unsigned char *bytes = malloc(len ? len : 1);
        bool ok =
            bytes && fread(bytes, 1, len, in) == len && pwrite(fd, bytes, len, (off_t)off) == (ssize_t)len;
        free(bytes);
        if (!ok)
            goto out;
    }
    rc = feof(in) ? 0 : -EIO;
out:
    if (fd >= 0)
        close(fd);
    fclose(in);
    return rc;
}
