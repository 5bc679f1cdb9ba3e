/*
 * sysfile.c - see sysfile_priv.h.
 */
#include "tools/doctor/sysfile_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (256u << 10)

static int open_below(const char *root, const char *path)
{
    char full[4096];
    struct stat st;
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    if (n < 0 || (size_t)n >= sizeof full)
        return -ENAMETOOLONG;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return -EINVAL;
}

int kithi_sysfile_read(const char *root, const char *path, char **out)
{
    int rc = 0;
    size_t len = 0;
    *out = NULL;
    int fd = open_below(root, path);
    if (fd < 0)
        return fd;
    char *text = malloc(FILE_MAX + 1);
    if (text == NULL)
        rc = -ENOMEM;
    while (rc == 0 && len < FILE_MAX) {
        ssize_t n = read(fd, text + len, FILE_MAX - len);
        if (n == 0)
            break;
        if (n > 0)
            len += (size_t)n;
        else if (errno != EINTR)
            rc = -errno;
    }
    close(fd);
    if (rc != 0) {
        free(text);
        return rc;
    }
    text[len] = '\0';
    *out = text;
    return 0;
}

bool kithi_sysfile_exists(const char *root, const char *path)
{
    char full[4096];
    struct stat st;
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    return n > 0 && (size_t)n < sizeof full && stat(full, &st) == 0;
}

int kithi_sysfile_number(const char *root, const char *path, uint64_t *out)
{
    char *text;
    int rc = kithi_sysfile_read(root, path, &text);
    if (rc != 0)
        return rc;
    char *end = text;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (strncmp(text, "max", 3) == 0)
        *out = UINT64_MAX;
    else if (*text >= '0' && *text <= '9' && errno == 0)
        *out = v;
    else
        rc = -EINVAL;
    free(text);
    return rc;
}

/* The next line that begins with key, which is followed by ':' or white space; behind these. */
static const char *find_key(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, key, len) != 0 || strchr(": \t", at[len]) == NULL || at[len] == '\0')
            continue;
        at += len;
        return at + strspn(at, ": \t");
    }
    return NULL;
}

bool kithi_sysfile_value(const char *text, const char *key, uint64_t *out)
{
    char *end;
    const char *at = find_key(text, key);
    if (at == NULL || *at < '0' || *at > '9')
        return false;
    *out = strtoull(at, &end, 10);
    if (strncmp(end, " kB", 3) == 0)
        *out *= 1024;
    return true;
}

bool kithi_sysfile_chosen(const char *text, char *out, size_t size)
{
    const char *begin = strchr(text, '['), *end = begin != NULL ? strchr(begin, ']') : NULL;
    if (end == NULL || (size_t)(end - begin) > size)
        return false;
    size_t len = (size_t)(end - begin) - 1;
    memcpy(out, begin + 1, len);
    out[len] = '\0';
    return true;
}

/* A limit: a number or "unlimited". */
static bool take_limit(const char **at, uint64_t *out)
{
    char *end;
    *at += strspn(*at, " \t");
    if (strncmp(*at, "unlimited", 9) == 0) {
        *out = UINT64_MAX;
        *at += 9;
        return true;
    }
    if (**at < '0' || **at > '9')
        return false;
    *out = strtoull(*at, &end, 10);
    *at = end;
    return true;
}

bool kithi_sysfile_limit(const char *text, const char *name, uint64_t *out_soft, uint64_t *out_hard)
{
    const char *at = find_key(text, name);
    return at != NULL && take_limit(&at, out_soft) && take_limit(&at, out_hard);
}

/* "NAME:x:NUMBER:...", a line each, as passwd and group have it. */
static bool find_name(const char *root, const char *path, unsigned number, char out[KITHI_NAME_TEXT_SIZE])
{
    char *text;
    bool found = false;
    snprintf(out, KITHI_NAME_TEXT_SIZE, "%u", number);
    if (kithi_sysfile_read(root, path, &text) != 0)
        return false;
    for (char *line = text, *next; !found && *line != '\0'; line = next) {
        next = line + strcspn(line, "\n");
        next += *next == '\n';
        char *name_end = memchr(line, ':', (size_t)(next - line));
        char *word_end = name_end != NULL ? memchr(name_end + 1, ':', (size_t)(next - name_end - 1)) : NULL;
        if (word_end == NULL || name_end == line || name_end - line >= KITHI_NAME_TEXT_SIZE)
            continue;
        char *end;
        unsigned long n = strtoul(word_end + 1, &end, 10);
        if (end == word_end + 1 || n != number || (*end != ':' && *end != '\n'))
            continue;
        memcpy(out, line, (size_t)(name_end - line));
        out[name_end - line] = '\0';
        found = true;
    }
    free(text);
    return found;
}

bool kithi_sysfile_user(const char *root, uid_t uid, char out[KITHI_NAME_TEXT_SIZE])
{
    return find_name(root, "/etc/passwd", uid, out);
}

bool kithi_sysfile_group(const char *root, gid_t gid, char out[KITHI_NAME_TEXT_SIZE])
{
    return find_name(root, "/etc/group", gid, out);
}
