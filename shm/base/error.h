/*
 * error.h - every error code of Kith, its name and its text: one list.
 *
 * System failures travel as -errno, ours as numbers below -10000, so that one int
 * carries both. kith.h repeats the numbers for its callers; client/src/error.c
 * asserts that the two lists agree.
 */
#ifndef KITHI_BASE_ERROR_H
#define KITHI_BASE_ERROR_H

#include <stdint.h>

#include "shm/base/compiler.h"

/* clang-format off */
#define KITHI_ERROR_LIST(X)                                                                        \
    X(CORRUPT,     10001, "the segment failed a bounds check")                                     \
    X(REPLACED,    10002, "the collection was dropped or replaced; open it again")                      \
    X(STALE,       10003, "what was visible at its epoch is not all there any more; ask again, with a new snapshot if it had one") \
    X(VERSION,     10004, "another format version; use the kith that belongs to this daemon")      \
    X(NOT_FOUND,   10005, "no such id")                                                            \
    X(NO_COLLECTION, 10006, "no such collection")                                                  \
    X(EXISTS,      10007, "a collection of this name exists")                                      \
    X(NAME,        10008, "not a collection name: [A-Za-z0-9][A-Za-z0-9_-]{0,63}")                 \
    X(ID,          10009, "not an id: UTF-8 without NUL, 1 to 511 bytes")                          \
    X(DIMENSION,   10010, "wrong number of dimensions")                                            \
    X(NOT_FINITE,  10011, "a vector holds NaN or infinity")                                        \
    X(ZERO_VECTOR, 10012, "a zero vector has no direction; cosine refuses it")                     \
    X(FULL,        10013, "the collection is at its --max-vectors")                                \
    X(NO_SPACE,    10014, "no room in the run directory's file system")                            \
    X(DENIED,      10015, "the daemon does not allow this to your user or groups")                 \
    X(TOO_LARGE,   10016, "the request is larger than a frame may be; send smaller batches")       \
    X(PROTOCOL,    10017, "the peer sent bytes that are not a request")                            \
    X(NO_DAEMON,   10018, "no daemon answers; reads go on, writes need kithd")                     \
    X(LOG_FAILED,  10019, "the write-ahead log failed; nothing more is acknowledged")              \
    X(TIMEOUT,     10020, "the time given has passed")                                             \
    X(K,           10021, "k must be 1 or more and at most 65536")                                 \
    X(EF,          10022, "ef must be at least k and at most 1048576")                             \
    X(MOVED,       10023, "the segment has moved to its next generation")                          \
    X(NOT_SEGMENT, 10024, "not a kith segment")                                                    \
    X(LOG_DAMAGED, 10025, "the write-ahead log is damaged before its end")                         \
    X(BUSY,        10026, "another daemon owns this directory")                                    \
    X(UNKNOWN_OUTCOME, 10027, "the daemon went away before it answered; the write may or may not have happened") \
    X(TRUNCATED,   10028, "the file ends in the middle of a vector")                               \
    X(FORMAT,      10029, "the file is not in the format its name says")                           \
    X(UNSUPPORTED, 10030, "not in this version")                                                   \
    X(PARAMETER,   10031, "a parameter is out of range")                                           \
    X(RUN_DIR,     10032, "the run directory cannot be used")                                      \
    X(SHUTDOWN,    10033, "the daemon is stopping")                                                \
    X(STARTING,    10034, "the daemon is still bringing this collection back; try again") \
    X(RECALL,      10035, "a target for recall lies between 0 and 1, as 0.95 does")                \
    X(CURSOR,      10036, "not a cursor of this collection; scroll from the beginning, without one") \
    X(EPOCH,       10037, "the epoch of the snapshot is not visible yet; wait for it")             \
    X(PAYLOAD,     10038, "not a payload: a JSON object of up to 64 KiB, 16 levels deep")          \
    X(FILTER,      10039, "not a filter, or one that does not fit the payloads")
/* clang-format on */

#define KITHI_ERROR_ENUM(name, number, text) KITHI_E_##name = -(number),
enum kithi_error { KITHI_ERROR_LIST(KITHI_ERROR_ENUM) };
#undef KITHI_ERROR_ENUM

/* What went wrong, in words that say where and what to do. Filled on request. */
struct kithi_errmsg {
    int code;       /* the negative return value */
    char text[404]; /* one sentence, NUL-terminated */
};

/* The fixed text of a code (ours or -errno); never NULL. Thread-safe. */
const char *kithi_error_text(int code);

/* "KITH_E_STALE", "ENOSPC", ...; never NULL. */
const char *kithi_error_name(int code);

/* Fill err (may be NULL) with a formatted text and return code, so that a failure is one line. */
int kithi_error_set(struct kithi_errmsg *err, int code, const char *fmt, ...) KITHI_PRINTF(3, 4);

#endif
