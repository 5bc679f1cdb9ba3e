/*
 * sysfile_priv.h - small text files of the system: /proc, /sys, /etc, below a root that tests choose.
 *
 * In a container any of them may be missing: a reader gets -errno, and says so.
 */
#ifndef KITHI_TOOLS_DOCTOR_SYSFILE_PRIV_H
#define KITHI_TOOLS_DOCTOR_SYSFILE_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The first 256 KiB of a file as a string; malloc'ed. 0 or -errno, *out is NULL then. What is no regular file, and could
 * keep its reader waiting, is -EINVAL. */
int kithi_sysfile_read(const char *root, const char *path, char **out);
bool kithi_sysfile_exists(const char *root, const char *path);

/* The number that a file begins with; "max" is UINT64_MAX. 0, -errno, or -EINVAL when it begins with something else. */
int kithi_sysfile_number(const char *root, const char *path, uint64_t *out);

/* The number after a key that begins a line: "shmem 4096", "MemTotal:  1 kB" (times 1024). */
bool kithi_sysfile_value(const char *text, const char *key, uint64_t *out);

/* The word in brackets: "always [madvise] never". false: there is none. */
bool kithi_sysfile_chosen(const char *text, char *out, size_t size);

/* The soft and the hard limit of a line of /proc/PID/limits; UINT64_MAX: unlimited. */
bool kithi_sysfile_limit(const char *text, const char *name, uint64_t *out_soft, uint64_t *out_hard);

/* Names by /etc/passwd and /etc/group alone: name services may wait for a network. The number where there is none; the
 * return value says whether there is. */
#define KITHI_NAME_TEXT_SIZE 64u
bool kithi_sysfile_user(const char *root, uid_t uid, char out[KITHI_NAME_TEXT_SIZE]);
bool kithi_sysfile_group(const char *root, gid_t gid, char out[KITHI_NAME_TEXT_SIZE]);

#endif
