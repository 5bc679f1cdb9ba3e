/*
 * sim.h - the daemon's own code in one thread, on a simulated disk (server/base/io_sim.h), with a clock and workers that
 * follow from a seed.
 *
 *     crash_sim.c   seeds, figures                 life.c    a life: recovery, writes, checkpoints, its end
 *     judge.c       what may be there afterwards   wrap.c    what the linker puts in the place of clock, workers, ...
 *
 * kithi_daemon_init(), kithi_recover(), pipeline, checkpointer, log and index are those of kithd. The linker (--wrap)
 * leads their calls of a few functions here: kithi_io_open() gives the simulator, a pool's jobs run one at a time from
 * kithi_io_run(), the clock goes on by a little with each look at it, a file of the log is a few blocks long, replies are
 * noted, and reading fails when it is told to.
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
#define SIM_CHANGES 6u /* of a write */
#define SIM_WRITES  (SIM_LIVES * 256u)
#define SIM_LIVES   6u
#define SIM_NAME    "docs"

/* A request for a checkpoint has this tag; that of a write is its number. */
#define SIM_TAG_CHECKPOINT UINT64_MAX

enum sim_answer {
    SIM_UNANSWERED,
    SIM_ACKED,
    SIM_REFUSED, /* nothing of it was done */
    SIM_UNKNOWN, /* the log failed */
};

struct sim_write {
    uint32_t n;
    uint32_t ids[SIM_CHANGES], versions[SIM_CHANGES]; /* 0: deleted */
    enum sim_answer answer;
    uint64_t epoch; /* that it has, or would have got; 0: it was in no group */
};

/* What is added up over seeds. */
struct sim_figures {
    uint64_t seeds, lives, kills, power, clean, writes, acked, checkpoints, checkpoints_failed, cold,
        passed_over, adopted, cut, faults, damages, refusals, bad;
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

    /* What is known to be there, and may be. */
    uint64_t acked_epoch; /* or seen */
    uint32_t next_version;
    struct sim_write writes[SIM_WRITES]; /* from the beginning; those that were lost are none any more */
    uint32_t write_count;

    struct kithi_request *outstanding[2 * SIM_WRITES];
    uint32_t outstanding_count;
    /* As the life begins. */
    unsigned logs_damaged, checkpoints_damaged; /* files */
    uint64_t intact_epoch;  /* groups after it that the log has are damaged, all of them */
    uint64_t segment_epoch; /* was durable, as the segment says that is there; 0: there is none */
    uint64_t proven_epoch;  /* was durable, as checkpoints say: by what is in them, or by their names */
    uint64_t
        cut_epoch; /* as it was when an earlier start cut the log, and did not come to its end; UINT64_MAX: none did */
    bool segment_lives; /* there is one: the last life was a process that died, not a machine */
    bool reads_fail;    /* one of them will, or has */
    bool faulty;        /* something may fail in this life that is nobody's damage */
    struct sim_figures *figures;
    bool bad;
};

/* The one at hand: for what is called instead of the daemon's own. */
extern struct sim_world *sim_world;

/* ---- wrap.c ---- */

/* End the simulator itself. */
void sim_io_free(struct kithi_io *io);

/* ---- life.c ---- */

/* SIM_LIVES lives; false after a message. */
bool sim_live(uint64_t seed, struct sim_figures *figures);

/* ---- judge.c ---- */

bool KITHI_PRINTF(2, 3) sim_wrong(struct sim_world *w, const char *fmt, ...);
/* The change of id to version, as an op; text and vector are the op's until the next call with the same place. */
void sim_op(uint32_t place, uint32_t id, uint32_t version, struct kithi_op *out);
/* Before that: what is damaged? */
void sim_look(struct sim_world *w);
/* kithi_recover() came to this: is it right? On success what is there is the new base. */
bool sim_judge(struct sim_world *w, struct kithi_daemon *d, int status, const struct kithi_errmsg *err);
/* Does kithd's log of this life have that event? */
bool sim_logged(const struct sim_world *w, const char *event);

#endif
