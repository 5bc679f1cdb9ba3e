/*
 * sim.h - the daemon's own code in one thread, on a simulated disk (server/base/io_sim.h), with a clock and workers that
 * follow from a seed.
 *
 *     crash_sim.c   seeds, figures                 life.c    a life: recovery, writes, checkpoints, its end
 *     judge.c       what may be there afterwards   wrap.c    what the linker puts in the place of clock, workers, ...
 *     seen.c        what readers have seen         sim.h     this
 *
 * kithi_daemon_init(), kithi_recover(), pipeline, checkpointer, log and index are those of kithd. The linker (--wrap)
 * leads their calls of a few functions here: kithi_io_open() gives the simulator, a pool's jobs run one at a time from
 * kithi_io_run(), the clock goes on by a little with each look at it, a file of the log is a few blocks long, the
 * configuration and the marker `ahead` are written to the simulator, replies are noted, and reading fails when it is told to.
 *
 * Lives are of two kinds: in some every write asks to be durable, in the others most ask for less, and the log does not answer
 * for long stretches, so that what is visible gets ahead of it.
 */
#ifndef KITHI_TEST_CRASH_SIM_H
#define KITHI_TEST_CRASH_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "server/writer/collection.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define SIM_IDS     40u
#define SIM_DIM     8u
#define SIM_CHANGES 6u   /* of a write */
#define SIM_PAYLOAD 400u /* bytes of a payload, at most */
#define SIM_WRITES  (SIM_LIVES * 256u)
#define SIM_LIVES   6u
#define SIM_NAME    "docs"
#define SIM_HANDED  256u /* groups whose time is known */

/* Tags of requests: of a checkpoint; of a flush, with the number of the next write; that of a write is its number. */
#define SIM_TAG_CHECKPOINT UINT64_MAX
#define SIM_TAG_FLUSH      (UINT64_C(1) << 32)

enum sim_answer {
    SIM_UNANSWERED,
    SIM_ACKED,
    SIM_REFUSED, /* nothing of it was done */
    SIM_UNKNOWN, /* the log failed */
};

struct sim_write {
    uint32_t n;
    uint32_t ids[SIM_CHANGES], versions[SIM_CHANGES]; /* 0: deleted */
    bool gone
        [SIM_CHANGES]; /* the log has no more of it: it was completed, and a later change was there already */
    uint8_t durability;
    enum sim_answer answer;
    uint64_t epoch;       /* that it has, or would have got; 0: it was in no group */
    uint64_t flush_epoch; /* of a flush that came after it, and was answered before it; 0: none */
};

/* Words of the segment's header. */
struct sim_words {
    uint64_t epoch, durable_epoch, timeline;
    uint32_t wake;
};

/* What is added up over seeds. */
struct sim_figures {
    uint64_t seeds, lives, kills, power, clean, writes, less, acked, flushes, checkpoints, checkpoints_failed,
        cold, passed_over, adopted, ahead, far_ahead, completed, forks, lost, cut, faults, damages, refusals,
        bad;
};
#define SIM_FIGURES (sizeof(struct sim_figures) / sizeof(uint64_t))
extern const char *const sim_figure_names[SIM_FIGURES];

struct sim_world {
    uint64_t seed;
    unsigned life;
    struct test_rand r;
    struct kithi_io *io;
    struct test_dir data, run;
    struct kithi_settings settings;
    uint64_t now_us;
    uint64_t file_size; /* of the log's next files */
    uint32_t read_fail; /* the so many-th read fails; 0: none */
    int log_fd;         /* what kithd has to say in this life */
    bool disk_unlinks;  /* unlink() is called by the simulator, for the real directory */

    /* What is known to be there, and may be. */
    struct sim_words
        seen; /* the highest epochs: durable_epoch ever, or told to be; epoch on this timeline, 0: none */
    struct sim_words last;        /* when they were looked at */
    uint64_t left[2 * SIM_LIVES]; /* timelines */
    unsigned left_count;
    bool may_be_lost; /* on this timeline: something was ahead of the log, and the segment is gone */
    bool asked_less;  /* some write, in some life */
    bool at_rest;     /* the last life came to a good end: nothing is ahead of the log, and nothing says so */
    uint32_t next_version;
    struct sim_write writes[SIM_WRITES]; /* from the beginning; those that were lost are none any more */
    uint32_t write_count;

    struct kithi_collection *collection; /* while kithd lives */
    struct kithi_request *outstanding[2 * SIM_WRITES];
    uint32_t outstanding_count;
    /* As the life begins. */
    unsigned logs_damaged, checkpoints_damaged; /* files */
    uint64_t intact_epoch;    /* was durable, as those groups of the log say that are whole */
    struct sim_words segment; /* as they stand in the one that is there; 0: there is none */
    uint64_t proven_epoch;    /* was durable, as checkpoints say: by what is in them, or by their names */
    uint64_t
        cut_epoch; /* as it was when an earlier start cut the log, and did not come to its end; UINT64_MAX: none did */
    bool segment_lives;             /* there is one: the last life was a process that died, not a machine */
    bool reads_fail;                /* one of them will, or has */
    bool faulty;                    /* something may fail in this life that is nobody's damage */
    uint32_t less;                  /* of 8 writes of this life so many ask for less than durable */
    bool completed;                 /* this life began by completing the log, or tried to */
    uint64_t handed_epoch;          /* the last group that was seen to be handed to the log */
    uint64_t handed_us[SIM_HANDED]; /* when, by epoch; 0: that was not seen */
    uint32_t lag_steps;             /* for which the log does not answer yet; 0: it does */
    struct sim_figures *figures;
    bool bad;
};

/* The one at hand: for what is called instead of the daemon's own. */
extern struct sim_world *sim_world;

/* ---- wrap.c ---- */

/* End the simulator itself. */
void sim_io_free(struct kithi_io *io);

/* ---- seen.c ---- */

struct sim_words sim_words_of(const struct kithi_header *h);
/* Those of the segment that is there; false: there is none. */
bool sim_words_in(const struct sim_world *w, struct sim_words *out);
/* A reader looks, at the beginning; after a step of kithd; and at the end of a life, which may take the segment along. */
void sim_see(struct sim_world *w, const struct sim_words *now);
void sim_see_step(struct sim_world *w, const struct sim_words *now);
void sim_see_end(struct sim_world *w, bool segment_goes);

/* ---- life.c ---- */

/* SIM_LIVES lives; false after a message. */
bool sim_live(uint64_t seed, struct sim_figures *figures);

/* ---- judge.c ---- */

bool KITHI_PRINTF(2, 3) sim_wrong(struct sim_world *w, const char *fmt, ...);
/* The change of id to version, as an op; text and vector are the op's until the next call with the same place. */
void sim_op(uint32_t place, uint32_t id, uint32_t version, struct kithi_op *out);
/* Before that: what is damaged? */
void sim_look(struct sim_world *w);
/* kithi_recover() came to this: is it right? On success what is there is the new base, and is seen. */
bool sim_judge(struct sim_world *w, struct kithi_daemon *d, int status, const struct kithi_errmsg *err);
/* Does kithd's log of this life have that event? */
bool sim_logged(const struct sim_world *w, const char *event);

#endif
