/*
 * log.h - what kithd has to say: one line an event on stderr.
 *
 *   ts=2026-11-22T18:02:11.120394Z level=info event=collection-open name=docs epoch=12 msg="..."
 *
 * kithi_log(KITHI_LOG_INFO, "collection-open", "name=%s epoch=%" PRIu64 " msg=adopted %s", ...)
 *
 * The format is printf's, read as fields: spaces in the format separate fields, and the
 * field `msg` goes on to the end of the format. Values that hold spaces, quotes, control
 * characters or nothing are quoted and escaped, so that no value can pass for another
 * field or line. A line is one write(2), at most 4 KiB; a longer one is cut and ends in "...".
 *
 * Threads: log freely from any. Libraries report, programs log: one line a failure, where
 * it is decided.
 */
#ifndef KITHI_SERVER_LOG_H
#define KITHI_SERVER_LOG_H

#include <stdbool.h>

#include "shm/base/compiler.h"

enum kithi_log_level {
    KITHI_LOG_ERROR,
    KITHI_LOG_WARN,
    KITHI_LOG_INFO, /* the default */
    KITHI_LOG_DEBUG,
};

/* Conversions: d i u x X o c s p e f g and %%, with flags, width, precision and length modifiers. */
void kithi_log(enum kithi_log_level level, const char *event, const char *fields, ...) KITHI_PRINTF(3, 4);

/* Lines above this level are dropped. */
void kithi_log_set_level(enum kithi_log_level level);

/* True when a line of this level would be written; for fields that are costly to make. */
bool kithi_log_enabled(enum kithi_log_level level);

/* "error", "warn", "info", "debug" to a level; -EINVAL otherwise. */
int kithi_log_level_parse(const char *name, enum kithi_log_level *out_level);

/* Where lines go; 2 unless a test says otherwise. */
void kithi_log_set_fd(int fd);

#endif
