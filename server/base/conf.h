/*
 * conf.h - configuration files: a strict subset of TOML.
 *
 *   # comment
 *   data = "/var/lib/kith"       basic string with \" \\ \b \t \n \f \r \uXXXX \UXXXXXXXX
 *   run = '/dev/shm/kith'        literal string
 *   threads = 4                  integer: decimal with _ between digits, or 0x, 0o, 0b
 *   verbose = true               boolean
 *
 * What this reads, every TOML reader reads alike. Anything else (tables, dotted keys, arrays,
 * floats, dates, multi-line strings), an unknown key, a key given twice and a value of the wrong
 * type or range is an error that names file and line. Values are stored only once the whole
 * file was read without an error. Not for hostile input of any size: files over 1 MiB are refused.
 */
#ifndef KITHI_SERVER_CONF_H
#define KITHI_SERVER_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/error.h"

enum kithi_conf_type {
    KITHI_CONF_STRING,  /* out: char[size]; no NUL inside, 1..size-1 bytes */
    KITHI_CONF_INTEGER, /* out: int64_t, min..max */
    KITHI_CONF_BOOLEAN, /* out: bool */
};

struct kithi_conf_key {
    const char *name; /* A-Z a-z 0-9 _ - */
    enum kithi_conf_type type;
    void *out;   /* left as it is when the file does not name the key */
    size_t size; /* strings: bytes at out */
    int64_t min; /* integers */
    int64_t max; /* integers */
    bool *given; /* may be NULL; set to true when the file names the key */
    bool required;
};

/* Read a file. Returns 0, -errno (cannot be read) or KITHI_E_FORMAT (err says file, line, what). */
int kithi_conf_read(const char *path, const struct kithi_conf_key *keys, size_t n, struct kithi_errmsg *err);

/* The same from memory; path is for messages. */
int kithi_conf_parse(const char *path, const char *text, size_t len, const struct kithi_conf_key *keys,
                     size_t n, struct kithi_errmsg *err);

#endif
