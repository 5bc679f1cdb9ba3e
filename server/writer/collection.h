/*
 * collection.h - one collection: its settings, files, index, log and pipeline.
 *
 *   data directory                          run directory
 *     .creating-<uid>/   being made           <name>/segment        what readers attach to
 *     <name>/            it exists            <name>/segment.next   being built
 *     .dropped-<uid>/    being removed        <name>/segment.old    replaced, for a grace period
 *                                             <name>/readers/       what readers count (boards.h)
 *
 * The one step that makes a collection exist, and the one that ends it, is a rename in the data
 * directory. A start removes what is named .creating-* and .dropped-*.
 */
#ifndef KITHI_WRITER_COLLECTION_H
#define KITHI_WRITER_COLLECTION_H

#include <stdatomic.h>

#include "server/index/index.h"
#include "server/wal/append.h"
#include "server/writer/audit.h"
#include "server/writer/boards.h"
#include "server/writer/checkpointer.h"
#include "server/writer/daemon.h"
#include "server/writer/growth.h"
#include "server/writer/marker.h"
#include "server/writer/pipeline.h"
#include "server/writer/relayout.h"
#include "server/writer/sampling.h"
#include "server/writer/settings.h"

#define KITHI_CREATING_PREFIX ".creating-"
#define KITHI_DROPPED_PREFIX  ".dropped-"
#define KITHI_ASIDE_PREFIX    ".aside-"

/* Readers look at `moved` with every search; a new attach finds the new segment. */
#define KITHI_OLD_GRACE_MS 10000u

struct kithi_recover_progress;

struct kithi_collection {
    struct kithi_collection *next; /* in the daemon's list */
    struct kithi_daemon *daemon;
    struct kithi_settings settings;
    bool dropping;             /* takes no more requests */
    bool condemned;            /* its segment makes no sense: nothing is begun with it any more (census.h) */
    bool anew;                 /* it was built anew in this process, because the one before was condemned */
    const _Atomic bool *apart; /* not NULL: made by a thread of its own; true: that is told to stop */
    struct kithi_index *index;
    struct kithi_wal *wal;
    struct kithi_pipeline pipeline;
    struct kithi_relayout relayout;
    struct kithi_growth growth;
    struct kithi_checkpointer checkpointer;
    struct kithi_audit audit;
    struct kithi_marker marker;
    struct kithi_boards boards;
    struct kithi_sampling sampling;
    struct kithi_recover_progress *progress; /* while it is brought back (recover.h), else NULL */
    uint64_t census_again_ms;                /* there was no memory for it; not before then */
    uint64_t old_until_ms;                   /* remove segment.old then; KITHI_NEVER: there is none */
    _Atomic bool old_left;                   /* it could not be removed, and keeps its place */
    struct kithi_old *old_kept;              /* it is this one of them; NULL: none of them */
    struct kithi_old *olds;                  /* segments that were replaced (old.h) */
    char data_dir[KITHI_PATH_MAX];
    char wal_dir[KITHI_PATH_MAX];
    char run_dir[KITHI_PATH_MAX];
    char segment[KITHI_PATH_MAX];
    char segment_next[KITHI_PATH_MAX];
    char segment_old[KITHI_PATH_MAX];
};

/* An object for settings, nothing opened. */
int kithi_collection_new(struct kithi_daemon *d, const struct kithi_settings *s,
                         struct kithi_collection **out, struct kithi_errmsg *err);
/* Close log and index; files stay. Accepts NULL and half-opened ones. */
void kithi_collection_free(struct kithi_collection *c);

/*
 * Make the collection's files, index and log. On failure nothing is left behind. Blocks; may run on
 * a helper thread.
 */
int kithi_collection_make(struct kithi_collection *c, struct kithi_errmsg *err);

/* For a thread that brings c back, or makes it: true there means that it is told to stop. */
const _Atomic bool *kithi_collection_stop(const struct kithi_collection *c);
/* Let ms pass. True, at once: told to stop. */
bool kithi_collection_pause(const struct kithi_collection *c, uint32_t ms);

/* Its paths, with directories of these names. 0 or -ENAMETOOLONG. */
int kithi_collection_at(struct kithi_collection *c, const char *name, struct kithi_errmsg *err);

/* Put away whatever stands in the run directory under our name: it is not ours. */
int kithi_collection_clear_run(struct kithi_collection *c, struct kithi_errmsg *err);

/* rename(2) that replaces nothing. */
int kithi_collection_rename(const char *from, const char *to, struct kithi_errmsg *err);

/* Let the read group read the segment at path. */
int kithi_collection_share(const struct kithi_collection *c, const char *path, struct kithi_errmsg *err);

/* Nothing is under way and nothing waits. */
bool kithi_collection_idle(const struct kithi_collection *c);

/*
 * Room for a segment of the next generation: s, with that generation, is in collection.conf on return, and no
 * segment.next is there. s is the collection's settings or a changed copy of them. May run on a helper thread.
 */
int kithi_collection_next(struct kithi_collection *c, struct kithi_settings *s, struct kithi_errmsg *err);

/*
 * Begin a segment of the next generation as segment.next, of geometry g, after s, with that generation, was written to
 * collection.conf. s is the collection's settings or a changed copy of them. May run on a helper thread.
 */
int kithi_collection_build(struct kithi_collection *c, struct kithi_settings *s,
                           const struct kithi_geometry *g, struct kithi_index **out,
                           struct kithi_errmsg *err);
/* Remove the name of segment.old, or note that it is left, for the next generation to try again. May run on a helper thread. */
int kithi_collection_unlink_old(struct kithi_collection *c, struct kithi_errmsg *err);
/* Readers of segment.old have moved over by now, or sleep; these must not hold a second copy in memory. */
void kithi_collection_end_old(struct kithi_collection *c);
/* [P6 moved] Put segment.next in the place of segment, and tell readers of the old one. What was segment.old loses its name. */
int kithi_collection_switch(struct kithi_collection *c, struct kithi_errmsg *err);

/*
 * End its existence: after this returned 0 no start brings it back. When it failed and *out_gone, the
 * files have moved, and whether that lasts is unknown: it must not be written to any more. Blocks; may
 * run on a helper thread.
 */
int kithi_collection_bury(struct kithi_collection *c, bool *out_gone, struct kithi_errmsg *err);
/* Remove what is left in both directories, given the buried one's path; tells readers. Blocks. */
int kithi_collection_remove(struct kithi_daemon *d, const char *buried, struct kithi_errmsg *err);
int kithi_collection_buried_path(const struct kithi_collection *c, char out[KITHI_PATH_MAX],
                                 struct kithi_errmsg *err);

struct kithi_segment_peek {
    uint8_t uid[16];
    uint64_t generation;
    struct kithi_geometry geometry; /* as its header says; unchecked */
};
/*
 * Identity of the segment at path, without mapping it. 0; -ENOENT: nothing is there; KITHI_E_NOT_SEGMENT: something else is;
 * any other -errno: it cannot be looked at, and may be anybody's.
 */
int kithi_segment_peek(const char *path, struct kithi_segment_peek *out, struct kithi_errmsg *err);
/* Is it there, and of this collection? false also when it cannot be looked at: for choices of which either is right. */
bool kithi_segment_is_of(const char *path, const uint8_t uid[16]);

#endif
