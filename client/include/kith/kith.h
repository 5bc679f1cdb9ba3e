/*
 * kith.h - search and update a kith collection from this process.
 *
 * Life cycle:  kith_open -> kith_search / kith_upsert ... -> kith_close
 * Threads:     share a handle freely; scratch memory is kept inside it, one piece for each
 *              call that runs at a time. A kith_results, a kith_batch and a kith_pipe belong
 *              to one thread at a time. Batches and pipes end before their handle does.
 * Fork:        the child may go on reading with the same handle; it opens its own socket at
 *              its first write; its searches are counted with its parent's. A kith_pipe does not
 *              survive a fork.
 * Memory:      results are copied out; nothing points into the segment. A call under a filter takes bitmaps, a bit for
 *              each slot of the collection, one and as many more as `and` and `or` are nested; those of all calls on a
 *              handle take 256 MiB at most. One for which there is no room goes without postings, and looks at all payloads.
 * Reading:     searches run on the mapped segment: no system call, no lock, no wait, and
 *              they go on when the daemon is gone.
 * Writing:     goes to kithd over its socket. A write that was acknowledged is durable and
 *              visible to every process.
 * Errors:      negative return: a KITH_E_* below, or -errno; see kith_strerror. The library
 *              prints nothing, never exits, and never aborts because of bytes it found in
 *              the segment.
 * Ids:         UTF-8 without NUL, 1 to 511 bytes.
 * Vectors:     1 to 4096 finite floats. Under cosine they are normalised inside and come
 *              back, within float rounding, as they were given; zero vectors are refused.
 * Distances:   l2: squared; cosine: 1 - cos; ip: 1 - dot. Smaller is nearer.
 */
#ifndef KITH_KITH_H
#define KITH_KITH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KITH_API __attribute__((visibility("default")))
#else
#define KITH_API
#endif

#define KITH_VERSION_MAJOR 0
#define KITH_VERSION_MINOR 1
#define KITH_VERSION_PATCH 0

/* Error codes. kith_strerror gives the text, kith_errname the name. */
enum {
    KITH_E_CORRUPT = -10001,
    KITH_E_REPLACED = -10002,
    KITH_E_STALE = -10003,
    KITH_E_VERSION = -10004,
    KITH_E_NOT_FOUND = -10005,
    KITH_E_NO_COLLECTION = -10006,
    KITH_E_EXISTS = -10007,
    KITH_E_NAME = -10008,
    KITH_E_ID = -10009,
    KITH_E_DIMENSION = -10010,
    KITH_E_NOT_FINITE = -10011,
    KITH_E_ZERO_VECTOR = -10012,
    KITH_E_FULL = -10013,
    KITH_E_NO_SPACE = -10014,
    KITH_E_DENIED = -10015,
    KITH_E_TOO_LARGE = -10016,
    KITH_E_PROTOCOL = -10017,
    KITH_E_NO_DAEMON = -10018,
    KITH_E_LOG_FAILED = -10019,
    KITH_E_TIMEOUT = -10020,
    KITH_E_K = -10021,
    KITH_E_EF = -10022,
    KITH_E_MOVED = -10023,
    KITH_E_NOT_SEGMENT = -10024,
    KITH_E_LOG_DAMAGED = -10025,
    KITH_E_BUSY = -10026,
    KITH_E_UNKNOWN_OUTCOME = -10027,
    KITH_E_TRUNCATED = -10028,
    KITH_E_FORMAT = -10029,
    KITH_E_UNSUPPORTED = -10030,
    KITH_E_PARAMETER = -10031,
    KITH_E_RUN_DIR = -10032,
    KITH_E_SHUTDOWN = -10033,
    KITH_E_STARTING = -10034,
    KITH_E_RECALL = -10035,
    KITH_E_CURSOR = -10036,
    KITH_E_EPOCH = -10037,
    KITH_E_PAYLOAD = -10038,
    KITH_E_FILTER = -10039
};

enum kith_metric { KITH_METRIC_L2 = 1, KITH_METRIC_COSINE = 2, KITH_METRIC_IP = 3 };

/*
 * What a search walks on, and so what it costs. Its answers are scored by what is kept (below) all the same.
 *
 *   NONE  the vectors themselves: 4 bytes a dimension are read for every distance
 *   F16   half floats, nearly exact: 2 bytes a dimension more in memory, half as many read
 *   SQ8   8-bit integers, fitted to each vector: 1 byte a dimension more, a quarter read
 *   BITS  one or two bits an element for each link, beside the links, and sq8: all distances of a row are estimated
 *         in one go. The fastest, and with 16 links a vector some 5 to 9 bytes a dimension more
 *   AUTO  begins as NONE; the daemon measures on the first vectors, chooses one of the above and says which
 */
enum kith_quantization {
    KITH_QUANTIZATION_NONE = 0,
    KITH_QUANTIZATION_F16 = 1,
    KITH_QUANTIZATION_SQ8 = 2,
    KITH_QUANTIZATION_BITS = 3,
    KITH_QUANTIZATION_AUTO = 4
};

/*
 * What is kept of a vector: what hits are scored by, exact search compares with, and kith_get gives back.
 *
 *   F32   the vector as it was given: 4 bytes a dimension
 *   F16   half floats: 2 bytes a dimension; not without quantization
 *   NONE  the codes alone: vectors come back as these say, and exact search means exact over codes; not
 *         without quantization
 *
 * kith(1) has the bytes that a vector takes under each of them.
 */
enum kith_keep { KITH_KEEP_F32 = 0, KITH_KEEP_F16 = 1, KITH_KEEP_NONE = 2 };

/* What went wrong, in words that say where and what to do. */
struct kith_error {
    int code;       /* the negative return value */
    char text[404]; /* one sentence, NUL-terminated */
};

/* The fixed text of a code; never NULL. Thread-safe. */
KITH_API const char *kith_strerror(int code);
/* The name of a code, "KITH_E_STALE" or "ENOSPC"; never NULL. Thread-safe. */
KITH_API const char *kith_errname(int code);
/* "0.1.0" */
KITH_API const char *kith_version(void);

/*
 * Options structs carry their size, so that they can grow: start from the INIT macro. A
 * larger struct from a newer header is accepted when its unknown tail is zero, else -EINVAL.
 */

/* ---- opening ------------------------------------------------------------------------ */

typedef struct kith kith; /* an open collection */

/*
 * Whether the handle counts its searches, and how long they take, where kithd and kith top see it: in a small file of its
 * own in the run directory, some 8 to 70 KiB of memory. Costs a search some 50 ns and no system call.
 *
 *   AUTO  where kithd has made a directory for that which this user may write to; on a read-only mount not
 *   OFF   no
 */
enum kith_counters { KITH_COUNTERS_AUTO = 0, KITH_COUNTERS_OFF = 1 };

struct kith_open_opts {
    size_t struct_size;
    const char *run_dir;      /* NULL: $KITH_RUN, then /dev/shm/kith, then /run/kith */
    uint32_t attach_wait_ms;  /* wait so long for the collection to appear; 0: do not wait */
    uint32_t prefault;        /* 1: touch every page in use now, so that no search pays for it */
    struct kith_error *error; /* may be NULL; filled on failure */
    uint32_t counters;        /* enum kith_counters */
    uint32_t reserved;        /* 0 */
};
/* clang-format off */
#define KITH_OPEN_OPTS_INIT { sizeof(struct kith_open_opts), NULL, 0, 0, NULL, 0, 0 }
/* clang-format on */

/*
 * Attach to a collection, read-only.
 *   name   a collection of the run directory, or, with a slash in it, the path of a segment;
 *          then writes find the daemon when the path ends in <run directory>/<name>/segment
 *   opts   may be NULL
 * Returns 0, KITH_E_NO_COLLECTION, KITH_E_NAME, KITH_E_NOT_SEGMENT, KITH_E_VERSION,
 * KITH_E_CORRUPT, KITH_E_RUN_DIR, KITH_E_TIMEOUT (attach_wait_ms passed) or -errno.
 * Needs no daemon: a segment whose daemon is gone can be opened and searched.
 */
KITH_API int kith_open(const char *name, const struct kith_open_opts *opts, kith **out);

/* Detach. Accepts NULL. No other thread may be inside a call on the handle. */
KITH_API void kith_close(kith *index);

/* Facts that never change for a handle. */
KITH_API uint32_t kith_dim(const kith *index);
KITH_API enum kith_metric kith_metric_of(const kith *index);
KITH_API const char *kith_name(const kith *index);

/* The last epoch that is visible; rises by one a commit group; 0 when the collection is gone. Thread-safe. */
KITH_API uint64_t kith_epoch(kith *index);

/*
 * A moment of a collection, to be read again later: every answer that is asked for at it is of that epoch, whatever was written
 * since. It is a value: copy it, keep it, hand it to another thread, to a forked child or to another process, which reads at it
 * through a handle of its own. There is nothing to free.
 *
 * It pins nothing and waits for nothing, so it lasts as long as what it saw: vectors that were replaced or deleted since are unlinked
 * after 0.1 s at the earliest, and their places are used again. From then on calls at it return KITH_E_STALE rather than
 * an answer that has not everything; while nothing that it saw has been replaced or deleted, it stays. What kithd does meanwhile,
 * be it a restart, a new layout or a larger segment, does not end it, unless the new segment holds less of the past; another
 * timeline does (kith_timeline()).
 *
 * A snapshot may be made by hand, of the epoch that a write returned and kith_timeline(). KITH_E_EPOCH: this is not visible
 * yet, kith_wait_epoch() waits for it.
 */
struct kith_snapshot {
    uint64_t epoch;
    uint64_t timeline; /* both 0: now, whenever that is */
};
/* clang-format off */
#define KITH_SNAPSHOT_INIT { 0, 0 }
/* clang-format on */

/* A snapshot of now. 0, KITH_E_REPLACED, -EINVAL, -ENOMEM. Thread-safe; no system call. */
KITH_API int kith_snapshot(kith *index, struct kith_snapshot *out);

/* ---- searching ---------------------------------------------------------------------- */

typedef struct kith_results kith_results; /* reusable; owns copies of ids and distances */

KITH_API kith_results *kith_results_new(void); /* NULL when out of memory */
KITH_API void kith_results_free(kith_results *r);
KITH_API uint32_t kith_results_count(const kith_results *r);
/* Hit i, nearest first, 0 <= i < count; NULL or a NaN beyond, and a NaN for an id of a scroll. Valid until r is used again. */
KITH_API const char *kith_results_id(const kith_results *r, uint32_t i);
KITH_API size_t kith_results_id_len(const kith_results *r, uint32_t i);
KITH_API float kith_results_distance(const kith_results *r, uint32_t i);

/*
 * All hits at once, for callers to whom each call costs, as from other languages. kith_results_distances copies the distances of the first n
 * hits to out and returns how many these are. kith_results_ids copies all ids, nearest first, each with its NUL, to out if size bytes hold them
 * (out may be NULL with size 0), and returns the bytes that they take.
 */
KITH_API uint32_t kith_results_distances(const kith_results *r, float *out, uint32_t n);
KITH_API size_t kith_results_ids(const kith_results *r, char *out, size_t size);

/*
 * Where it was asked for: the payload of hit i as of the epoch of the answer, as JSON text without white space and with keys in the order of their
 * bytes. NULL: the id has none, or it was not asked for. Valid until r is used again.
 */
KITH_API const char *kith_results_payload(const kith_results *r, uint32_t i);
/* Of kith_scroll() and kith_fetch(): the vector of id i, as kith_get() gives it; NULL when it was not asked for. That of i + 1 stands
 * right behind it. Valid until r is used again. */
KITH_API const float *kith_results_vector(const kith_results *r, uint32_t i);
/* Of a search under a filter: what is worth knowing about it, as that nothing has a field that it asks for; NULL: nothing. Valid until r is used again. */
KITH_API const char *kith_results_notice(const kith_results *r);
/* Of kith_scroll(): where the next page begins; NULL: this was the last. Valid until r is used again. */
KITH_API const char *kith_results_cursor(const kith_results *r);

/* What the search that filled r did. */
struct kith_search_info {
    size_t struct_size;
    uint64_t epoch;              /* the snapshot that was searched */
    uint64_t distance_count;     /* distances computed */
    uint64_t expansion_count;    /* rows read */
    uint32_t restart_count;      /* snapshots begun again because the first was overtaken */
    uint32_t deadline_hit;       /* 1: the deadline cut the walk; hits are the best so far */
    uint32_t generation_changed; /* 1: this call re-attached to a newer generation */
    uint32_t
        indexed; /* under a filter: 1: postings know the condition; 0: they do not, and a scan of it is slow */
    /* With BITS: neighbours estimated by the codes beside links. All places of a row that is read so count, empty ones
     * included; distance_count has none of them. */
    uint64_t estimate_count;
    uint32_t ef;       /* breadth of the walk; 0: every vector was compared */
    uint32_t ef_basis; /* enum kith_ef_basis: what it rests on */
    /* Under a filter: */
    uint32_t plan;            /* enum kith_plan: what answered */
    uint32_t plan_reason;     /* enum kith_plan_reason: and why that */
    uint64_t evaluated_count; /* payloads that were looked at */
    uint64_t matched_count;   /* of them those that matched; with a scan all there are */
    double share;             /* of all vectors that match, as a sample of some 500 says; 0: none was asked */
};
/* clang-format off */
#define KITH_SEARCH_INFO_INIT { sizeof(struct kith_search_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0 }
/* clang-format on */
KITH_API int kith_results_info(const kith_results *r, struct kith_search_info *out);

/*
 * How a search under a filter was answered.
 *
 *   WALK       by a walk through the graph, as wide as it takes to meet k matches well inside of what it finds
 *   SCAN       by looking at every payload that postings do not rule out, and comparing the vectors of those that match
 *   WALK_SCAN  by a scan, after a walk or hops that did not meet enough
 *   HOPS       by a walk from match to match, also to those that are two links apart
 *
 * All of them give k hits, or all that match. Walks are 3 times as wide as ef at least, hops 2.5 times, so that the default finds as much as without a
 * filter, or more. Reasons: GIVEN: opts.exact, or no filter; MANY: so many match that a walk
 * meets them; FEW: so few that a scan is cheaper; SOME: between these, hops are cheapest; SHORT: what was cheapest by the estimate did not
 * find enough; KNOWN: it did not a few searches ago, and was left out.
 */
enum kith_plan {
    KITH_PLAN_NONE = 0,
    KITH_PLAN_WALK = 1,
    KITH_PLAN_SCAN = 2,
    KITH_PLAN_WALK_SCAN = 3,
    KITH_PLAN_HOPS = 4
};
enum kith_plan_reason {
    KITH_PLAN_GIVEN = 0,
    KITH_PLAN_MANY = 1,
    KITH_PLAN_FEW = 2,
    KITH_PLAN_SHORT = 3,
    KITH_PLAN_SOME = 4,
    KITH_PLAN_KNOWN = 5
};

/*
 * target_recall asks for a share of the true neighbours, on the average of many queries, and leaves ef to the library, which
 * goes by what kithd has measured on the collection's own vectors (kith_recall_curve()): queries like these get that, or a
 * little more. Queries unlike them need more than it can know. Measured are 1, 10 and 100 neighbours; k between gets an ef between, larger
 * ones as many times the ef, and 5/4 k at least. Together with ef, ef is the most that may be chosen; with exact it changes nothing.
 */
struct kith_search_opts {
    size_t struct_size;
    uint32_t ef;             /* breadth of the walk, k..1048576; 0: max(100, k), or as target_recall says */
    uint32_t exact;          /* 1: compare with every vector instead of walking the graph */
    uint64_t deadline_ns;    /* CLOCK_MONOTONIC at which to stop; 0: none */
    double target_recall;    /* above 0, below 1: recall that ef is chosen for; 0: none */
    struct kith_snapshot at; /* what to search; all zeros: now */
    uint32_t payloads;       /* 1: hits with their payloads, kith_results_payload() */
    uint32_t field_count;    /* of their fields those alone: so many, at most 64; 0: all */
    const char *const
        *fields;        /* dotted paths, as "author.name"; of an id that has none of them the payload is {} */
    const char *filter; /* condition on payloads that hits fulfil, see below; NULL: none */
    struct kith_error *error; /* may be NULL; filled when the call fails because of the filter */
    uint32_t strict;          /* 1: KITH_E_FILTER when nothing that was looked at has a field of the filter */
    uint32_t reserved;        /* 0 */
};
/* clang-format off */
#define KITH_SEARCH_OPTS_INIT { sizeof(struct kith_search_opts), 0, 0, 0, 0.0, { 0, 0 }, 0, 0, NULL, NULL, NULL, 0, 0 }
/* clang-format on */

/*
 * What the ef of a search rests on.
 *
 *   GIVEN   opts.ef, or the default
 *   CURVE   target_recall: the curve reaches it
 *   BEYOND  target_recall: it is beyond what was measured, twice the widest of that was taken
 *   BLIND   target_recall: nothing is measured yet; 128 for 0.90, 200 for 0.95, 400 for 0.99 and so on, which is
 *           more than most collections need
 *   LIMIT   target_recall asked for more than opts.ef permits
 */
enum kith_ef_basis {
    KITH_EF_GIVEN = 0,
    KITH_EF_CURVE = 1,
    KITH_EF_BEYOND = 2,
    KITH_EF_BLIND = 3,
    KITH_EF_LIMIT = 4
};

/*
 * Filters: conditions on payloads, in a language of their own.
 *
 *     lang = "AAA" and chars >= 40 and not (tags in ("x", "y") or prefix(title, "The "))
 *
 * Comparisons are = != < <= > >= of a field with a string, a number, true or false; in and not in, with a list in parentheses;
 * exists(field); prefix(field, "string"); and, or, not, parentheses. Fields are dotted paths; a key that is not made of letters, digits, _ and -
 * is written in quotes, as "odd name".n = 3. Strings stand in double or single quotes, with the escapes of JSON.
 *
 *   - A condition on a field that is absent, or null, is false, != and not in too; only not makes something true of it.
 *   - An array is each of its elements: tags = "x" says that it contains "x". != and not in are true when they are true of all.
 *   - Integers and other numbers are compared exactly. Strings are ordered by their bytes.
 *   - Types do not mix: where a payload that a search looks at holds a string and the filter compares with a number, say, the search fails with
 *     KITH_E_FILTER, and opts.error names the field and both types. and, or look at what is right of them only where it matters.
 *   - A field that nothing has matches nothing, and kith_results_notice() says so; with opts.strict it is an error.
 *
 * A filter is compiled at its first use, and the compiled form kept in the handle by its text (some of the latest for each call that
 * runs at a time), with a guess of how many match; from then on it costs nothing to give it.
 */
typedef struct kith_filter kith_filter;

/*
 * Find up to k nearest neighbours of query.
 *   query  len floats, finite; len must be the collection's dimension; read only during the call
 *   k      1..65536; more than the collection holds gives all it holds
 *   opts   may be NULL
 *   out    nearest first; empty after an error
 * Returns the number of hits (0..k), KITH_E_DIMENSION, KITH_E_NOT_FINITE, KITH_E_ZERO_VECTOR,
 * KITH_E_K, KITH_E_EF, KITH_E_RECALL, KITH_E_FILTER (opts->error says why), KITH_E_CORRUPT when the segment failed a bounds check, KITH_E_STALE
 * when the caller was stopped so long, several times, that what it saw was reused, or opts->at does not show everything any
 * more, KITH_E_EPOCH when it is not visible yet, KITH_E_REPLACED when the collection was dropped or another one took the name, -ENOMEM, -EINVAL.
 * A newer generation of the same collection is re-attached inside the call.
 * Thread-safe. In the steady state it allocates nothing, never blocks, makes no system call.
 * At a snapshot, exact answers are those of that moment. The walk is on the links of today: what was written since takes no place
 * in ef and makes it slower, and where it comes to fewer than k, every vector is compared.
 */
KITH_API int kith_search(kith *index, const float *query, size_t len, uint32_t k,
                         const struct kith_search_opts *opts, kith_results *out);

/*
 * Making filters without text, for programs that would have to put it together. Each call makes a new one, in *out, to be freed;
 * it is used by its text: opts.filter = kith_filter_text(f). All return 0, KITH_E_FILTER with error (may be NULL) filled, -ENOMEM or
 * -EINVAL. Filters are never changed, and belong to any thread.
 */
enum kith_filter_op {
    KITH_FILTER_EQ = 4,
    KITH_FILTER_NE = 5,
    KITH_FILTER_LT = 6,
    KITH_FILTER_LE = 7,
    KITH_FILTER_GT = 8,
    KITH_FILTER_GE = 9
};
enum kith_filter_type {
    KITH_FILTER_STRING = 1,
    KITH_FILTER_INTEGER = 2,
    KITH_FILTER_DOUBLE = 3,
    KITH_FILTER_BOOL = 4
};

struct kith_filter_value {
    enum kith_filter_type type;
    const char *string; /* of STRING: UTF-8, ends with a NUL */
    int64_t integer;    /* of INTEGER, and of BOOL: 0 or 1 */
    double number;      /* of DOUBLE; finite */
};

/* By its text. error shows the place of what is wrong, over three lines. */
KITH_API int kith_filter_parse(const char *text, kith_filter **out, struct kith_error *error);
/* field op value */
KITH_API int kith_filter_compare(const char *field, enum kith_filter_op op,
                                 const struct kith_filter_value *value, kith_filter **out,
                                 struct kith_error *error);
/* field in (values), n of them, 1 at least, of one type; numbers are one */
KITH_API int kith_filter_in(const char *field, const struct kith_filter_value *values, size_t n,
                            kith_filter **out, struct kith_error *error);
KITH_API int kith_filter_exists(const char *field, kith_filter **out, struct kith_error *error);
KITH_API int kith_filter_prefix(const char *field, const char *prefix, kith_filter **out,
                                struct kith_error *error);
/* All of n filters, any of them (1 at least), not this one. What they are made of stays as it is, and may be freed. */
KITH_API int kith_filter_all(const kith_filter *const *filters, size_t n, kith_filter **out,
                             struct kith_error *error);
KITH_API int kith_filter_any(const kith_filter *const *filters, size_t n, kith_filter **out,
                             struct kith_error *error);
KITH_API int kith_filter_not(const kith_filter *filter, kith_filter **out, struct kith_error *error);
/* Each of n fields is the string beside it: a map of strings to strings, as gateways have it. */
KITH_API int kith_filter_equals(const char *const *fields, const char *const *strings, size_t n,
                                kith_filter **out, struct kith_error *error);
/* Its text: the same for the same conditions in the same order. Valid until f is freed. */
KITH_API const char *kith_filter_text(const kith_filter *f);
/* Is it true of this payload, a JSON object (NULL: of none)? 1, 0, KITH_E_FILTER, KITH_E_PAYLOAD, -ENOMEM. */
KITH_API int kith_filter_test(const kith_filter *f, const char *payload, struct kith_error *error);
/* Accepts NULL. */
KITH_API void kith_filter_free(kith_filter *f);

/*
 * n searches in one call: queries holds n rows of len floats, out holds n distinct results. Each search
 * takes its own snapshot, unless opts->at is one for all. Returns 0, or the first error (out up to that query is filled, and
 * *out_failed, when not NULL, is its number).
 */
KITH_API int kith_search_batch(kith *index, const float *queries, size_t len, size_t n, uint32_t k,
                               const struct kith_search_opts *opts, kith_results *const *out,
                               size_t *out_failed);

/* Neighbours of a stored vector, itself excluded. KITH_E_NOT_FOUND when there is no such id. */
KITH_API int kith_search_id(kith *index, const char *id, uint32_t k, const struct kith_search_opts *opts,
                            kith_results *out);

/*
 * Copy the vector of id into out (len floats; len must be the dimension; NULL with len 0 only
 * asks whether it is there). A collection that keeps no float32 (kith_stats says so) gives decoded values: near
 * those that were put, not the same. out_epoch may be NULL. 0 or KITH_E_NOT_FOUND. Thread-safe.
 */
KITH_API int kith_get(kith *index, const char *id, float *out, size_t len, uint64_t *out_epoch);

struct kith_fetch_opts {
    size_t struct_size;
    uint32_t vector;      /* 1: with its vector, kith_results_vector() */
    uint32_t payloads;    /* 1: with its payload */
    uint32_t field_count; /* as in kith_search_opts */
    uint32_t reserved;    /* 0 */
    const char *const *fields;
    struct kith_snapshot at; /* all zeros: now */
};
/* clang-format off */
#define KITH_FETCH_OPTS_INIT { sizeof(struct kith_fetch_opts), 0, 0, 0, 0, NULL, { 0, 0 } }
/* clang-format on */

/*
 * Everything of one id, of one epoch: out has it as its only hit, with a NaN for the distance. opts may be NULL. 0, KITH_E_NOT_FOUND,
 * KITH_E_STALE, KITH_E_EPOCH and the rest as kith_get_at(); KITH_E_PAYLOAD: a field is no dotted path; KITH_E_PARAMETER: more than 64. Thread-safe.
 */
KITH_API int kith_fetch(kith *index, const char *id, const struct kith_fetch_opts *opts, kith_results *out);

/* 1 when id is there, 0 when not, or an error. */
KITH_API int kith_exists(kith *index, const char *id);

/* Vectors visible now. */
KITH_API int kith_count(kith *index, uint64_t *out_count);

/*
 * The same at a snapshot (NULL: now); KITH_E_STALE and KITH_E_EPOCH, too. A vector that is found as it was then is given back also
 * after others have gone. Counting at a snapshot reads 64 bytes of each vector. Thread-safe.
 */
KITH_API int kith_get_at(kith *index, const struct kith_snapshot *at, const char *id, float *out, size_t len);
KITH_API int kith_exists_at(kith *index, const struct kith_snapshot *at, const char *id);
KITH_API int kith_count_at(kith *index, const struct kith_snapshot *at, uint64_t *out_count);

/*
 * How many vectors fulfil a filter, at a snapshot or now (NULL): exactly, by looking at every payload that postings do not rule out; at a
 * snapshot, or for a field without postings, at every one. KITH_E_FILTER, -ENOMEM and error (may
 * be NULL), too. Thread-safe.
 */
KITH_API int kith_count_filter(kith *index, const char *filter, const struct kith_snapshot *at,
                               uint64_t *out_count, struct kith_error *error);

struct kith_count_opts {
    size_t struct_size;
    const char *filter;       /* NULL: all */
    struct kith_snapshot at;  /* all zeros: now */
    uint64_t deadline_ns;     /* CLOCK_MONOTONIC at which to give up, under a filter; 0: none */
    struct kith_error *error; /* may be NULL; filled when the call fails because of the filter */
};
/* clang-format off */
#define KITH_COUNT_OPTS_INIT { sizeof(struct kith_count_opts), NULL, { 0, 0 }, 0, NULL }
/* clang-format on */

/* The same, in options. KITH_E_TIMEOUT: it was not done by deadline_ns, and *out_count says nothing. Thread-safe. */
KITH_API int kith_count_with(kith *index, const struct kith_count_opts *opts, uint64_t *out_count);

/* How searches under a filter would be answered, and what is known of how many match. */
struct kith_explanation {
    size_t struct_size;
    uint64_t epoch;
    uint64_t vectors; /* of the collection */
    uint64_t matches, low,
        high; /* the likely number of matches; it lies between low and high with a probability of 99 % */
    uint32_t exact; /* 1: matches is the number itself */
    uint32_t plan,
        plan_reason; /* enum kith_plan: WALK, HOPS or SCAN, what a search begins with; enum kith_plan_reason */
    uint32_t walk_ef, hops_ef; /* how wide a walk and hops would be; 0: that cannot answer */
    uint32_t indexed;          /* 1: postings know the condition */
    uint64_t looks;            /* payloads that a scan looks at: those that postings leave, or all */
    /* What each costs, in payloads that a scan looks at, some 50 ns each; INFINITY: it cannot answer. */
    double walk_cost, hops_cost, scan_cost;
    uint32_t fields;          /* different ones that the filter has, ... */
    uint32_t fields_unknown;  /* ... of them those without postings: not declared, or no payload has them, */
    uint32_t fields_given_up; /* and those of which they were given up, as memory was short */
    uint32_t reserved;
};
/* clang-format off */
#define KITH_EXPLANATION_INIT { sizeof(struct kith_explanation), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, 0 }
/* clang-format on */

/*
 * What a search for k hits (1..65536) with this ef (k..1048576; 0: the default) under a filter would do now, by a sample that is taken for
 * it. 0; KITH_E_K, KITH_E_EF, KITH_E_FILTER with error (may be NULL) filled, KITH_E_REPLACED, -ENOMEM, -EINVAL. Thread-safe.
 */
KITH_API int kith_explain(kith *index, const char *filter, uint32_t k, uint32_t ef,
                          struct kith_explanation *out, struct kith_error *error);

struct kith_facet_opts {
    size_t struct_size;
    uint32_t limit;           /* values that are told apart in the answer, 1..65536; 0: 100 */
    uint32_t reserved;        /* 0 */
    const char *filter;       /* vectors whose payload fulfils it; NULL: all */
    struct kith_snapshot at;  /* all zeros: now */
    struct kith_error *error; /* may be NULL; filled when the call fails because of the filter */
    uint64_t deadline_ns;     /* CLOCK_MONOTONIC at which to give up; 0: none */
};
/* clang-format off */
#define KITH_FACET_OPTS_INIT { sizeof(struct kith_facet_opts), 0, 0, NULL, { 0, 0 }, NULL, 0 }
/* clang-format on */

/* How often values occur in a field. */
typedef struct kith_facet kith_facet;

struct kith_facet_info {
    size_t struct_size;
    uint64_t epoch;   /* the snapshot that was counted */
    uint64_t vectors; /* that fulfil the filter */
    uint64_t with; /* of them those that have a value in the field: not null, an object or an empty array */
    uint64_t
        distinct; /* different values that were told apart, 65536 at most; more than the limit are counted and not given */
    uint64_t other; /* occurrences of values beyond those, which were not told apart; 0: there are none */
};
/* clang-format off */
#define KITH_FACET_INFO_INIT { sizeof(struct kith_facet_info), 0, 0, 0, 0, 0 }
/* clang-format on */

/*
 * Count the values of a field (a dotted path) over all vectors that fulfil a filter, exactly and at one snapshot, by looking at every payload.
 * An array counts each of its values once; 5.0 is 5. At most 65536 different values, and 16 MiB of strings, are told apart: the counts of
 * those are exact all the same, and info.other says how often others came that were met later.
 * *out is freed with kith_facet_free(). 0; KITH_E_TIMEOUT: it was not done by opts->deadline_ns; KITH_E_PAYLOAD: field is no path; KITH_E_PARAMETER: limit; KITH_E_FILTER; KITH_E_STALE,
 * KITH_E_EPOCH, KITH_E_REPLACED; -ENOMEM, -EINVAL. Thread-safe.
 */
KITH_API int kith_facet_of(kith *index, const char *field, const struct kith_facet_opts *opts,
                           kith_facet **out);
/* Values in it, the most frequent first; of equally frequent ones booleans, integers, other numbers and strings, rising. */
KITH_API uint32_t kith_facet_count(const kith_facet *f);
/* Value i < count and how many vectors have it. A string lives as long as f; one with a NUL in it reads as far as that. 0 or -EINVAL. */
KITH_API int kith_facet_value(const kith_facet *f, uint32_t i, struct kith_filter_value *out,
                              uint64_t *out_count);
KITH_API int kith_facet_info(const kith_facet *f, struct kith_facet_info *out);
/* Accepts NULL. */
KITH_API void kith_facet_free(kith_facet *f);

struct kith_scroll_opts {
    size_t struct_size;
    uint32_t limit;          /* ids of a page, 1..65536; 0: 1000 */
    uint32_t vectors;        /* 1: with their vectors */
    struct kith_snapshot at; /* of this page; all zeros: now */
    uint32_t payloads;       /* 1: with their payloads; pages then have at most 1024 ids */
    uint32_t field_count;    /* as in kith_search_opts */
    const char *const *fields;
    const char *filter;       /* ids whose payload fulfils it; NULL: all */
    struct kith_error *error; /* may be NULL; filled when the call fails because of the filter */
};
/* clang-format off */
#define KITH_SCROLL_OPTS_INIT { sizeof(struct kith_scroll_opts), 0, 0, { 0, 0 }, 0, 0, NULL, NULL, NULL }
/* clang-format on */

/*
 * All ids, a page a call, in an order that is the collection's own and never changes: neither by writes, nor by a new layout, a
 * larger segment or a restart.
 *   cursor  NULL: from the beginning; else what kith_results_cursor() said of the page before, in this process or any other, then
 *           or a year ago: 48 letters and digits. It holds nothing up, and there is nothing to end
 *   opts    may be NULL
 *   out     ids in kith_results_id(), vectors in kith_results_vector(); empty after an error
 * Every id that is there from the first page to the last comes exactly once. One that is written or deleted meanwhile comes
 * once or not at all. Each page is a snapshot of its own, unless opts->at is one for all of them.
 * Returns the number of ids. A page may have fewer than limit, even none, before the end: a call never looks at more
 * than so many places, nor hands out more than 64 MiB of vectors; under a filter that few fulfil most pages are short. Only the
 * cursor says whether there is more.
 * KITH_E_CURSOR: cursor is none of this collection; KITH_E_PARAMETER: limit; KITH_E_FILTER: opts->error says why; KITH_E_STALE, KITH_E_EPOCH, KITH_E_REPLACED as
 * kith_search(); -ENOMEM, -EINVAL. Thread-safe. Makes no system call but to allocate.
 */
KITH_API int kith_scroll(kith *index, const char *cursor, const struct kith_scroll_opts *opts,
                         kith_results *out);

struct kith_stats {
    size_t struct_size;
    uint64_t epoch;          /* last visible commit group */
    uint64_t live_count;     /* vectors visible */
    uint64_t dead_count;     /* replaced or deleted, not yet unlinked */
    uint64_t resting_count;  /* unlinked, not yet free */
    uint64_t free_count;     /* slots ready for reuse */
    uint64_t slot_count;     /* slots ever used: live + dead + resting + free + being filled */
    uint64_t slot_max;       /* ceiling */
    uint64_t bytes_taken;    /* memory of the segment */
    uint64_t bytes_reserved; /* address space of the segment */
    uint64_t generation;
    uint32_t dim;
    uint32_t metric; /* enum kith_metric */
    uint32_t m;
    uint32_t ef_construction;
    uint32_t level_max;           /* top level of the graph */
    uint32_t daemon_alive;        /* 1: kithd holds the collection now (asks the socket) */
    uint32_t quantization;        /* enum kith_quantization, of the segment that is mapped: never AUTO */
    uint32_t keep;                /* enum kith_keep, likewise */
    uint32_t quantization_wanted; /* what create asked for; without a daemon to ask, as quantization */
    uint32_t keep_wanted;         /* likewise; differs from keep while AUTO has not chosen */
    uint32_t code_bits;           /* bits an element of the codes beside links; 0: there are none */
    uint32_t undecided;           /* 1: AUTO has still to choose; 2: it has, and the segment is still to be
                                     copied, which kithd may lack memory for; 0 without a daemon to ask */
    uint64_t huge_bytes;          /* memory that kithd asked huge pages for, and got */
    uint64_t huge_wanted_bytes;   /* memory that they could back */
    uint64_t durable_epoch;       /* every epoch up to this one is on stable storage */
    uint64_t timeline;            /* see kith_timeline() */
    uint64_t payload_count;       /* vectors that have a payload */
    uint64_t
        payload_bytes; /* in these, as they are kept; the regions of blobs (kith_memory()) have the memory of them */
    /* Which fields of payloads have postings; kith_index_text() names them. As of the last commit, or some time after it. */
    uint32_t index_declared; /* 1: by kith_create_opts.index or kith_alter_opts.index; 0: auto */
    uint32_t index_fields;   /* fields that have */
    uint32_t
        index_given_up; /* fields that have none any more, as memory was short; theirs was given back. Filters on them look at payloads */
    uint32_t index_whole;   /* 0: they are being made anew; filters look at payloads until then */
    uint64_t index_misfits; /* payloads, for each declared field, whose value in it is of another type */
};
/* clang-format off */
#define KITH_STATS_INIT { sizeof(struct kith_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/* clang-format on */
KITH_API int kith_stats(kith *index, struct kith_stats *out);

/*
 * Which fields of payloads have postings, as kith_create_opts.index has it: "auto", "none", or the fields with their types. Writes at most cap bytes to
 * out (may be NULL if cap is 0), NUL included; returns the length of the whole, up to 2047, or KITH_E_CORRUPT, KITH_E_REPLACED, -ENOMEM. Of the segment: no
 * daemon is asked. Thread-safe.
 */
KITH_API int kith_index_text(kith *index, char *out, size_t cap);

#define KITH_MEMORY_REGIONS 20

/*
 * What the memory of one region of the segment is used for. taken is the sum of the six members behind it, and the file has memory
 * for taken + ahead.
 */
struct kith_memory_region {
    char name[16];     /* "records", "rows", ...; "" where the collection has no such region */
    uint64_t reserved; /* address space */
    uint64_t taken;
    uint64_t live;    /* of vectors that are visible */
    uint64_t dead;    /* of vectors that were replaced or deleted and are not unlinked yet */
    uint64_t resting; /* of those that are unlinked and not yet free */
    uint64_t
        pending; /* of writes under way; for a while after a start of kithd also what it has not looked at yet */
    uint64_t free;  /* used before, and used again before anything new is */
    uint64_t slack; /* taken ahead of use and never used */
    uint64_t ahead; /* filled by huge pages before it is taken, and the rest of a last page */
};

/* What all memory of a collection is used for, by words of its header: it needs no daemon, and takes as long for a large collection. */
struct kith_memory {
    size_t struct_size;
    uint64_t
        file_bytes; /* memory that the segment's file has, as the file system says: taken + ahead of all regions; 0: unknown */
    uint64_t next_bytes;           /* the same of the next generation, while one is built beside it, */
    uint64_t old_bytes;            /* and of the one before, until its readers have had time to move over */
    uint64_t live_count;           /* vectors */
    struct kith_memory_region all; /* the sum of the regions; its name is "all" */
    struct kith_memory_region regions[KITH_MEMORY_REGIONS];
};
/* clang-format off */
#define KITH_MEMORY_REGION_NONE { { 0 }, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define KITH_MEMORY_INIT { sizeof(struct kith_memory), 0, 0, 0, 0, KITH_MEMORY_REGION_NONE, { KITH_MEMORY_REGION_NONE } }
/* clang-format on */
/* While kithd is at work, one figure may be of a moment before another; the sums of each region hold all the same. 0 or an error. */
KITH_API int kith_memory(kith *index, struct kith_memory *out);

#define KITH_RECALL_POINTS 32

/* One point of the curve. */
struct kith_recall_point {
    uint32_t ef;
    float recall;
    float low, high; /* 95 % confidence */
};

/*
 * How well searches of the collection find, as kithd measures it beside its other work: a sample of the collection's own
 * vectors is searched for with several ef, each as if it were not there itself, and compared with exact search.
 */
struct kith_recall {
    size_t struct_size;
    uint32_t k;           /* neighbours that were asked for */
    uint32_t point_count; /* 0: nothing is measured yet, or kithd does not measure */
    uint64_t samples;     /* vectors that were searched for */
    uint64_t epoch;       /* visible when the last of them was, */
    uint64_t since;       /* and when the first of them was */
    struct kith_recall_point points[KITH_RECALL_POINTS]; /* by rising ef; recall does not fall */
    /* How well it is kept: what vectors that the curve did not rest on then found with the ef that it gives for a recall of 0.90, 0.95 and
     * 0.99, and how many these were. 0: nobody has looked. */
    float kept[3];
    uint32_t kept_samples;
};
/* clang-format off */
#define KITH_RECALL_INIT { sizeof(struct kith_recall), 0, 0, 0, 0, 0, { { 0, 0, 0, 0 } }, { 0, 0, 0 }, 0 }
/* clang-format on */
/*
 * The curve of now, from the segment: needs no daemon. Returns the points, 0 for none, or an error. It is that of 10 neighbours, or of
 * k: 1, 10 and 100 are measured, and for other k there are no points, but an ef between, by those of both sides.
 */
KITH_API int kith_recall_curve(kith *index, struct kith_recall *out);
KITH_API int kith_recall_curve_of(kith *index, uint32_t k, struct kith_recall *out);

/*
 * What the daemon itself knows of the collection: *out_json is one JSON object as malloc'ed text, to be freed
 * by the caller; kithd(8) lists its members, later versions add to them. Waits a second at most. 0, KITH_E_NO_DAEMON,
 * KITH_E_TIMEOUT, KITH_E_DENIED, KITH_E_REPLACED, KITH_E_RUN_DIR, -ENOMEM, -errno.
 */
KITH_API int kith_daemon_stats(kith *index, char **out_json);

/* ---- writing ------------------------------------------------------------------------ */

/*
 * What an answered write is. A single write takes that of its handle, a batch its own.
 *
 *               answered when it is              lost when, once answered
 *   DURABLE     on stable storage and visible    the disk is lost
 *   APPLIED     visible to every reader          the machine loses power, or reboots, before it is on stable storage; not
 *                                                by a kithd that dies: the next one finds it in the segment
 *   NONE        checked, and handed to the log   the same, and kithd dies before it is visible, some milliseconds later
 *
 * All are logged in the order of their epochs, and what was answered is never refused afterwards. The log writes without a pause,
 * so a write is on stable storage once the log has written twice: what it is at, and what gathers meanwhile. When it is
 * behind for longer than kith_commit.lag_ms, kithd lets nothing more get ahead of it: writes wait as DURABLE ones do.
 * kith_flush() and kith_wait_durable() wait for what was written before. Where visible epochs may have been lost
 * the collection gets another timeline (kith_timeline()), on which the same numbers mean other states: who keeps an
 * epoch keeps its timeline beside it.
 */
enum kith_durability { KITH_DURABILITY_DURABLE = 0, KITH_DURABILITY_APPLIED = 1, KITH_DURABILITY_NONE = 2 };

/* For later single writes through this handle, and for batches made later. 0 or -EINVAL. Thread-safe. */
KITH_API int kith_set_durability(kith *index, enum kith_durability durability);

/*
 * Writes return 0 when they are what they asked for (above), else durable and visible; *out_epoch (may be NULL) is the first
 * epoch at which every reader sees it. KITH_E_NO_DAEMON: nothing was sent, try again when kithd is back.
 * KITH_E_UNKNOWN_OUTCOME: the daemon went away before it answered; upserts and deletes of single
 * ids may simply be repeated. KITH_E_LOG_FAILED: likewise, for nobody knows what a disk holds that has failed. KITH_E_DENIED,
 * KITH_E_FULL, KITH_E_NO_SPACE, -ENOSPC, -ENOMEM and the checks of id and vector refuse the write whole.
 * KITH_E_STARTING: kithd was started, or found the segment damaged, and is still bringing the collection back (kith_readiness);
 * nothing was done, try again.
 * Thread-safe: a handle has one socket, calls take turns.
 */
KITH_API int kith_upsert(kith *index, const char *id, const float *vector, size_t len, uint64_t *out_epoch);

/*
 * Payloads: a JSON object that belongs to an id beside its vector, of up to 64 KiB (in the form in which it is kept, which is about as long as
 * its text). Its members are strings, integers of 64 bits, numbers, true, false, null, arrays of strings or of integers, and objects,
 * 16 levels deep. Keys are 1 to 255 bytes without dots: a dotted path names a field, "author.name" is the member "name" of "author". A number with
 * a point or an exponent is a double, others are integers, and both come back as they were given.
 *
 * A payload is visible with the vector that it was given with, and changes of it alone are visible as whole as other writes:
 * who reads at an epoch sees the payload of that epoch. kith_upsert() leaves the payload of an id as it is, kith_delete() takes it along.
 *
 *   REPLACE  text is the payload from now on; NULL: there is none
 *   MERGE    text is a JSON merge patch (RFC 7396): its members take the place of those that are there, null takes one away, and objects
 *            are merged member by member. Merges of several writers are done one after the other: none is lost
 *   REMOVE   text is a list of dotted paths of fields that go, as ["a","b.c"], at most 64; those that are not there stay so
 */
enum kith_payload_change { KITH_PAYLOAD_REPLACE = 0, KITH_PAYLOAD_MERGE = 1, KITH_PAYLOAD_REMOVE = 2 };

/*
 * Is text, which ends with a NUL, something that may be given so? 0, or KITH_E_PAYLOAD, and error (may be NULL) says what is wrong, and at
 * which byte; -EINVAL, -ENOMEM. Asks nobody.
 */
KITH_API int kith_payload_check(enum kith_payload_change how, const char *text, struct kith_error *error);

/* As kith_upsert(), with a payload that takes the place of the one before; NULL: the id has none from now on. KITH_E_PAYLOAD, too. */
KITH_API int kith_upsert_payload(kith *index, const char *id, const float *vector, size_t len,
                                 const char *payload, uint64_t *out_epoch);
/*
 * Change the payload of id, whose vector stays. KITH_E_NOT_FOUND: there is no such id; KITH_E_PAYLOAD: text is not what it should be, or the merge would make
 * a payload too large; KITH_E_FULL: there is no room for so many payloads of that size, and the collection cannot grow. Thread-safe.
 */
KITH_API int kith_set_payload(kith *index, const char *id, enum kith_payload_change how, const char *text,
                              uint64_t *out_epoch);

/* KITH_E_NOT_FOUND when there was nothing to delete. */
KITH_API int kith_delete(kith *index, const char *id, uint64_t *out_epoch);
/*
 * Delete every vector that fulfils a filter: those that are found as the collection is gone through once, in batches of up to 1000, each of them
 * visible whole. The daemon asks each once more when it deletes it: one that has ceased to fulfil the filter stays, whoever changed it; one that begins to fulfil it
 * meanwhile may be met before or after. Gives how many were deleted, and the
 * epoch of the last (both may be NULL), also when the call fails in the middle: what was deleted until then stays so. 0, KITH_E_FILTER with
 * error (may be NULL) filled, or as kith_scroll() and kith_batch_commit(). Thread-safe.
 */
KITH_API int kith_delete_filter(kith *index, const char *filter, uint64_t *out_count, uint64_t *out_epoch,
                                struct kith_error *error);

typedef struct kith_batch kith_batch; /* changes that become visible together or not at all */

KITH_API kith_batch *kith_batch_new(kith *index);
KITH_API void kith_batch_free(kith_batch *b);
KITH_API void kith_batch_clear(kith_batch *b);
KITH_API uint32_t kith_batch_count(const kith_batch *b);
KITH_API size_t kith_batch_bytes(const kith_batch *b); /* a commit takes at most 32 MiB of them */
/*
 * Checked here as far as possible. Changes of a batch count in their order: of the same id twice the last wins, be it an upsert or a
 * delete, and no reader ever sees the others; a delete finds what the batch itself has put before. KITH_E_TOO_LARGE, with the batch
 * as it was, when a commit could not take it any more: commit, clear and go on.
 */
KITH_API int kith_batch_upsert(kith_batch *b, const char *id, const float *vector, size_t len);
KITH_API int kith_batch_delete(kith_batch *b, const char *id);
/* As kith_upsert_payload() and kith_set_payload(). A change of a payload counts as found, or not, like a delete: kith_batch_found(). */
KITH_API int kith_batch_upsert_payload(kith_batch *b, const char *id, const float *vector, size_t len,
                                       const char *payload);
KITH_API int kith_batch_set_payload(kith_batch *b, const char *id, enum kith_payload_change how,
                                    const char *text);
/* For its commits from now on; at first that of the handle. 0 or -EINVAL. */
KITH_API int kith_batch_set_durability(kith_batch *b, enum kith_durability durability);

struct kith_commit {
    size_t struct_size;
    uint64_t epoch;       /* first epoch at which it is visible */
    uint32_t found;       /* deletes, and changes of payloads, that found their id */
    uint32_t failed_item; /* on error: number of the item at fault, or UINT32_MAX */
    struct kith_error error;
    uint64_t durable_epoch; /* when it was answered: every epoch up to this one was durable */
    uint32_t lag_ms;        /* of a write that asked for less than DURABLE: see there; else 0 */
    uint32_t reserved;
};
/* clang-format off */
#define KITH_COMMIT_INIT { sizeof(struct kith_commit), 0, 0, 0, { 0, { 0 } }, 0, 0, 0 }
/* clang-format on */
/* Send and wait for the answer. out may be NULL. The batch stays as it is. An empty one is a success, with the epochs that are visible
 * and durable now. */
KITH_API int kith_batch_commit(kith_batch *b, struct kith_commit *out);
/*
 * Of the last kith_batch_commit() that returned 0: was there anything to delete for item (from 0, in the order in which
 * they were added)? 1, 0 for a delete whose id was not there, -EINVAL without such an item or commit. Upserts are 1. A batch
 * that is changed has forgotten.
 */
KITH_API int kith_batch_found(const kith_batch *b, uint32_t item);

/* Wait until all that the daemon accepted before for this collection is durable and visible. */
KITH_API int kith_flush(kith *index, uint64_t *out_epoch);

/*
 * Have the daemon write a checkpoint that holds all that is visible now, and wait until it is durable: a start after a
 * reboot then begins with it and replays what was written afterwards only. *out_epoch (may be NULL) is the epoch that it
 * holds. Where nothing has changed since the last one, that is the answer. Waits as long as the disk takes, but not for a
 * daemon that is stopped or hangs: after 5 s without a greeting, or 30 s without a sign of life, which it is asked for meanwhile,
 * this returns KITH_E_TIMEOUT; error says which: without a greeting nothing was asked. (A daemon that was told to stop writes the
 * checkpoints that were asked of it before, and gives signs until it leaves.) Makes a connection of its own; other
 * calls on the handle go on meanwhile. error (may be NULL) is filled on failure. 0, -ENOSPC (the collection goes on
 * without), KITH_E_NO_DAEMON, KITH_E_DENIED, KITH_E_REPLACED, KITH_E_STARTING, KITH_E_SHUTDOWN, KITH_E_TIMEOUT,
 * KITH_E_UNKNOWN_OUTCOME (the daemon went away before it answered), -errno. Thread-safe.
 */
KITH_API int kith_checkpoint(kith *index, uint64_t *out_epoch, struct kith_error *error);

/*
 * What a back-up is, and how one is written and brought back. The file is self-contained: what the collection is, its vectors,
 * its graph and its ids; kithd's data directory is not needed for it, nor the name that the collection had.
 */
struct kith_backup_opts {
    size_t struct_size;
    uint32_t replace;    /* kith_backup, 1: a file that is there may be replaced; kith_restore: 0 */
    uint32_t reserved;   /* 0 */
    const char *run_dir; /* kith_restore: as in kith_open_opts; kith_backup: NULL */
    /* Called now and then by the calling thread, with the bytes that are done and those that there are; NULL: not. A value
     * other than 0 ends the call with -ECANCELED. */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    struct kith_error *error; /* may be NULL; filled on failure */
};
/* clang-format off */
#define KITH_BACKUP_OPTS_INIT { sizeof(struct kith_backup_opts), 0, 0, NULL, NULL, NULL, NULL }
/* clang-format on */

struct kith_backup_info {
    size_t struct_size;
    uint64_t epoch; /* the last one that it holds */
    uint64_t bytes; /* of the file */
    uint64_t
        live_count;    /* kith_restore: vectors; kith_backup: of its checkpoint, a few commits before epoch */
    uint64_t timeline; /* kith_restore: of the new collection; kith_backup: 0 */
};
/* clang-format off */
#define KITH_BACKUP_INFO_INIT { sizeof(struct kith_backup_info), 0, 0, 0, 0 }
/* clang-format on */

/*
 * Write a back-up of a collection to a file, while everybody goes on reading and writing. It holds all that was visible
 * before the call, and some of what came after: whole commits up to info's epoch.
 *   path  made by this process, with its rights, mode 0600. The daemon sends the bytes; it needs no access to the file, nor
 *         this process any to the daemon's. They go to <path>.new, which takes the name once it is synced; a failure
 *         leaves nothing but what was there before.
 *   opts, out   may be NULL
 * Takes the right to write to the collection. Makes a connection of its own; other calls on the handle go on meanwhile. Waits
 * as long as the daemon's checkpoint takes, but not for a daemon that is stopped or hangs: as kith_checkpoint. 0; -EEXIST: path is there, and opts->replace is not 1; -EBUSY: another back-up is
 * being written to it; -ENOSPC, on this side or the daemon's, error says which; -ECANCELED; KITH_E_NO_DAEMON, KITH_E_DENIED,
 * KITH_E_REPLACED; KITH_E_CORRUPT: the daemon's checkpoint was damaged, or KITH_E_LOG_DAMAGED: the log after it, try again, it writes
 * another; KITH_E_TIMEOUT; KITH_E_SHUTDOWN; -errno. Thread-safe.
 */
KITH_API int kith_backup(kith *index, const char *path, const struct kith_backup_opts *opts,
                         struct kith_backup_info *out);

/*
 * Make a new collection of a back-up: with everything that was in it, under this name, which must be free, a new uid and
 * another timeline. When this returns 0 it is durable, was checked as a whole, and is being served. Interrupted at any point it leaves the
 * whole collection or nothing.
 *   path  read by this process, with its rights, and sent to the daemon
 *   opts, out   may be NULL
 * Waits as long as the daemon takes to load and verify it, but not for one that is stopped or hangs: as kith_checkpoint.
 * 0; KITH_E_EXISTS, KITH_E_NAME; KITH_E_FORMAT: no back-up; KITH_E_TRUNCATED: cut off, or half copied; KITH_E_CORRUPT: damaged, error
 * says where; KITH_E_VERSION: of a later version; -ENOSPC: no room in the data directory; KITH_E_NO_SPACE: none in the run
 * directory; KITH_E_NO_DAEMON; KITH_E_DENIED; KITH_E_UNKNOWN_OUTCOME: the daemon went away when it had everything, kith_list tells;
 * KITH_E_TIMEOUT: error says whether the daemon had everything, so that it may be made yet, or nothing was made; KITH_E_SHUTDOWN, -ECANCELED, -errno: nothing was made.
 */
KITH_API int kith_restore(const char *name, const char *path, const struct kith_backup_opts *opts,
                          struct kith_backup_info *out);

/*
 * Wait until epoch is visible, at most timeout_ms (-1: for ever). 0, KITH_E_TIMEOUT or KITH_E_REPLACED.
 * Sleeps on a futex of the read-only mapping: no daemon is asked, none is needed.
 */
KITH_API int kith_wait_epoch(kith *index, uint64_t epoch, int timeout_ms);

/*
 * Wait until epoch is on stable storage, at most timeout_ms (-1: for ever). 0, KITH_E_TIMEOUT or KITH_E_REPLACED. Sleeps as
 * kith_wait_epoch() does; while kithd is away nothing becomes durable.
 */
KITH_API int kith_wait_durable(kith *index, uint64_t epoch, int timeout_ms);

/*
 * On which epochs have their meaning: another number after visible epochs were, or may have been, lost: by a reboot after writes
 * that did not ask to be DURABLE, by a log that was salvaged, by a back-up that was restored. Never 0, but when the collection
 * is gone. Thread-safe.
 */
KITH_API uint64_t kith_timeline(kith *index);

/*
 * A pipe sends batches without waiting for each answer. It has a socket of its own.
 * kith_pipe_submit returns as soon as the bytes are handed over, or have gathered; it takes answers in between while its socket is
 * full. A batch is pending from kith_pipe_submit until kith_pipe_next has given its answer; at most `depth`
 * (1..4096) are.
 *
 * Answers come many at a time. While some of those that kith_pipe_next has met are still to be taken, small batches that are
 * submitted gather, up to 64 KiB, and leave together when the last of these answers is taken: a caller that answers each
 * kith_pipe_next with a kith_pipe_submit makes one system call for many. So do not stop calling kith_pipe_next as long as
 * kith_pipe_pending() says that something is pending. Of what has gathered kith_pipe_close sends as much as there is room for.
 */
typedef struct kith_pipe kith_pipe;

KITH_API int kith_pipe_open(kith *index, uint32_t depth, kith_pipe **out);
KITH_API void kith_pipe_close(kith_pipe *p); /* does not wait for answers */
/*
 * Send b, which may be changed or freed afterwards; token comes back with the answer. 0; -EAGAIN: take
 * an answer first; -EINVAL: empty, or of another handle; KITH_E_NO_DAEMON: the connection is lost and b was not
 * carried out.
 */
KITH_API int kith_pipe_submit(kith_pipe *p, kith_batch *b, uint64_t token);
/*
 * Take one answer. Returns 1 and fills *out_status (0 or the error of that batch), *out_token and
 * out (may be NULL); 0 when nothing is pending or timeout_ms passed (-1: never); negative when the
 * connection is lost: what is still pending has an unknown outcome. Open another pipe then.
 */
KITH_API int kith_pipe_next(kith_pipe *p, int timeout_ms, uint64_t *out_token, int *out_status,
                            struct kith_commit *out);
/* As kith_batch_found(), of the batch whose answer, 0, kith_pipe_next() has given last. */
KITH_API int kith_pipe_found(const kith_pipe *p, uint32_t item);
KITH_API uint32_t kith_pipe_pending(const kith_pipe *p);

/* ---- collections -------------------------------------------------------------------- */

struct kith_create_opts {
    size_t struct_size;
    uint32_t dim;
    uint32_t metric;          /* enum kith_metric */
    uint32_t m;               /* 2..64, 0: 16 */
    uint32_t ef_construction; /* 1..65536, 0: 200 */
    uint32_t quantization;    /* enum kith_quantization */
    uint32_t max_vectors;     /* slots that it begins with, dead ones included; 0: 16,777,216 */
    const char *run_dir;      /* as in kith_open_opts */
    struct kith_error *error; /* may be NULL */
    uint32_t keep;            /* enum kith_keep */
    uint32_t fixed;           /* 1: it is full with max_vectors; 0: it grows before it is */
    const char *index;        /* which fields of payloads have postings, see below; NULL: auto */
};
/* clang-format off */
#define KITH_CREATE_OPTS_INIT { sizeof(struct kith_create_opts), 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0, NULL }
/* clang-format on */

/*
 * Postings lead from a value to the vectors whose payload has it, so that filters do not look at every payload. What a filter finds does not
 * depend on them, only what it costs. An index says which fields have postings:
 *
 *   auto                          every field that a payload has, with values of any type; the first 64
 *   none                          no field
 *   lang:keyword,chars:integer    these fields, 64 at most, and no other: a dotted path, a colon, and what its values are:
 *
 *     keyword   strings         =, !=, in, not in, exists; <, <=, >, >= and prefix go by the first five bytes
 *     integer   whole numbers   =, !=, in, not in, <, <=, >, >=, exists
 *     number    any numbers     the same; float is another name for it. In both, numbers beyond 2^53 share postings with their neighbours
 *     bool      true and false  =, !=, in, not in, exists; boolean is another name for it
 *
 * A key with other characters than letters, digits, _ and - is written in "quotes", with \" and \\ for these two. Arrays have the type of their
 * elements. A value of another type than its field was declared with is stored like any other, and has no postings of its own: all such vectors of a
 * field are in one set, which is looked at under every condition on it; kith_stats.index_misfits counts them. The text has up to 2047 bytes; what is wrong with it is
 * KITH_E_PARAMETER.
 */

/*
 * Calls about collections do not wait for ever on a daemon that is stopped or hangs: after 5 s without a greeting, or 30 s
 * without the answer of a create or a drop, they return KITH_E_TIMEOUT. error says which: without a greeting nothing was asked;
 * after it the outcome is unknown, and the daemon may still do what was asked once it goes on. kith_list tells then.
 */

/* Ask the daemon for a new collection. 0 when it is there and synced. KITH_E_EXISTS, KITH_E_NAME, KITH_E_TIMEOUT, ... */
KITH_API int kith_create(const char *name, const struct kith_create_opts *opts);

#define KITH_AS_IS 0xffffffffu /* what kith_alter() leaves as it is */

/* What a collection shall be from now on. What it is not named for stays: dimension and metric are for ever. */
struct kith_alter_opts {
    size_t struct_size;
    uint32_t m;               /* 2..64, 0: as it is */
    uint32_t ef_construction; /* 1..65536, 0: as it is */
    uint32_t quantization;    /* enum kith_quantization, or KITH_AS_IS */
    uint32_t keep;            /* enum kith_keep, or KITH_AS_IS */
    uint32_t max_vectors;     /* ceiling of slots, no lower than the vectors that are there; 0: as it is */
    uint32_t reserved;        /* 0 */
    struct kith_error *error; /* may be NULL; filled on failure */
    const char *index;        /* as in kith_create_opts; NULL: as it is */
};
/* clang-format off */
#define KITH_ALTER_OPTS_INIT { sizeof(struct kith_alter_opts), 0, 0, KITH_AS_IS, KITH_AS_IS, 0, 0, NULL, NULL }
/* clang-format on */

/*
 * What came of it.
 *
 *   NOTHING   it was so already
 *   SETTINGS  what was asked for is noted, and the segment goes on: what AUTO had chosen was asked for by name, or other fields are to have
 *             postings, which are being made of the payloads when this returns. Searches go on, and look at payloads until they are there
 *   COPIED    the collection has another segment
 */
enum kith_alter_done { KITH_ALTER_NOTHING = 0, KITH_ALTER_SETTINGS = 1, KITH_ALTER_COPIED = 2 };

struct kith_alter_info {
    size_t struct_size;
    uint64_t epoch;        /* visible when the new segment took its place */
    uint64_t generation;   /* of the segment that there is now */
    uint64_t live_count;   /* vectors in it */
    uint64_t bytes_before; /* memory of the segment before; it is given back some seconds later, */
    uint64_t bytes_after;  /* and of the one that there is now */
    uint64_t took_ms;
    uint64_t held_us; /* for which writes waited at the end */
    uint32_t done;    /* enum kith_alter_done */
    uint32_t reserved;
};
/* clang-format off */
#define KITH_ALTER_INFO_INIT { sizeof(struct kith_alter_info), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/* clang-format on */

/*
 * Have the daemon lay the collection out as opts says, and wait until it is. It builds another segment beside the one that is used,
 * inserting every vector anew, while everybody goes on reading and writing; then that takes the place of the first one. Searches move over by
 * themselves and none fails; writes wait for some milliseconds at the end, and are slowed before where they come
 * faster than they can be copied. Vectors that were kept as less than float32 do not get better by keep F32.
 *
 * Memory is needed for both segments at a time: without it the call is refused, with the figures. A failure, or a kithd that dies, leaves the
 * collection as it was, or (once opts stand in its configuration) with its next start going on. opts, out: out may be NULL. Takes the right
 * to write to the collection. Makes a connection of its own. Waits as long as it takes, but not for a daemon that is stopped
 * or hangs: as kith_checkpoint. 0; KITH_E_PARAMETER: what cannot be, and why: max_vectors below what is there, m out of its range; KITH_E_UNSUPPORTED;
 * KITH_E_NO_SPACE; -EBUSY: another segment is being built, by kith_optimize, kith_alter or AUTO; KITH_E_FULL: more was written meanwhile than max_vectors takes;
 * KITH_E_NO_DAEMON, KITH_E_DENIED, KITH_E_REPLACED, KITH_E_STARTING, KITH_E_SHUTDOWN, KITH_E_TIMEOUT, KITH_E_UNKNOWN_OUTCOME, -errno. Thread-safe.
 */
KITH_API int kith_alter(kith *index, const struct kith_alter_opts *opts, struct kith_alter_info *out);

/*
 * The same without another layout: the segment is built anew, with vectors that are near each other in the graph near each other in
 * memory, codes made anew, and no room that nothing needs. For a collection that was written for long, or has lost many vectors.
 */
KITH_API int kith_optimize(kith *index, struct kith_alter_info *out, struct kith_error *error);

/* Remove a collection and its log for good. Readers that have it open get KITH_E_REPLACED. KITH_E_TIMEOUT as above. */
KITH_API int kith_drop(const char *name, const char *run_dir, struct kith_error *error);
/*
 * Names of all collections, sorted: *out_names is one malloc'ed block of NUL-terminated names, to
 * be freed by the caller; returns their number. Asks the daemon; without one it lists the segments
 * of the run directory. KITH_E_TIMEOUT after 5 s when there is one that does not answer.
 */
KITH_API int kith_list(const char *run_dir, char **out_names, struct kith_error *error);
/*
 * After a start kithd serves each collection as soon as it has brought it back; until then writes to it are KITH_E_STARTING. One that it
 * cannot bring back, as its log is damaged, is never served; writes to it get the reason, such as KITH_E_LOG_DAMAGED.
 * How far is it, with the collection name, or with all (NULL)? Returns how many of them are not served yet: 0 is ready.
 * *out_json (out_json may be NULL) is one JSON object, to be freed by the caller; kithd(8) lists its members, later versions
 * add to them. Waits a second at most. KITH_E_NO_DAEMON, KITH_E_NO_COLLECTION, KITH_E_TIMEOUT, KITH_E_DENIED,
 * KITH_E_UNSUPPORTED (by an older kithd), KITH_E_NAME, KITH_E_RUN_DIR, -ENOMEM, -errno.
 */
KITH_API int kith_readiness(const char *name, const char *run_dir, char **out_json, struct kith_error *error);

#ifdef __cplusplus
}
#endif
#endif
