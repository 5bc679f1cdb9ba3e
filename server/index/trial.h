/*
 * trial.h - which layout is best for these vectors, on this machine: a sample of them is built and searched in each.
 *
 *     kithi_trial_new(ix, ...)                                      (owner: copies the sample)
 *     while ((n = kithi_trial_stage(trial, &err)) > 0)              (owner)
 *         kithi_trial_job(trial, worker, 0 .. n - 1)                (workers, in parallel)
 *     n == 0: kithi_trial_choice(), kithi_trial_result()
 *     kithi_trial_free(trial)
 *
 * The index that the sample came from may go on changing once it was copied. Segments of a trial have no name.
 */
#ifndef KITHI_INDEX_TRIAL_H
#define KITHI_INDEX_TRIAL_H

#include "server/index/index.h"

#define KITHI_TRIAL_SAMPLE 1024u /* vectors that a trial takes, if so many are there */
#define KITHI_TRIAL_K      10u   /* neighbours that its searches ask for */

struct kithi_trial;

struct kithi_trial_result { /* of one layout; times are CPU time */
    uint32_t quantization;
    bool reached;     /* the target; else search_us and cost_us are 0 */
    uint32_t ef;      /* that is enough for the target, or the largest tried */
    double recall;    /* at that ef */
    double insert_us; /* of one insertion */
    double search_us; /* of one search for the target */
    double cost_us;   /* what layouts are compared by: a search and a share of an insertion */
};

/*
 * Copy a sample of what ix shows. keep is what the collection wants to keep (enum kithi_keep): layouts that do not
 * go with it take no part. Jobs will run on workers 0..worker_count-1. 0, -ENOMEM, or KITHI_E_NOT_FOUND when
 * there are too few vectors to compare anything with.
 */
int kithi_trial_new(const struct kithi_index *ix, uint32_t keep, unsigned worker_count,
                    struct kithi_trial **out, struct kithi_errmsg *err);

/* The next step, once all jobs of the last one have ended. Number of jobs; 0: done; or the error that ended it. */
int kithi_trial_stage(struct kithi_trial *t, struct kithi_errmsg *err);
void kithi_trial_job(struct kithi_trial *t, unsigned worker, uint32_t i);
/* Jobs that begin from now on do nothing; the next stage says -ECANCELED. */
void kithi_trial_cancel(struct kithi_trial *t);

/* After the last step: layouts in order of their simplicity, and which of them it shall be. */
uint32_t kithi_trial_count(const struct kithi_trial *t);
const struct kithi_trial_result *kithi_trial_result(const struct kithi_trial *t, uint32_t i);
uint32_t kithi_trial_choice(const struct kithi_trial *t);
/* recall@10 at which layouts are compared: 0.98, or a little below the best that any of them gets to. */
double kithi_trial_target(const struct kithi_trial *t);

/* Accepts NULL. No job may be running. */
void kithi_trial_free(struct kithi_trial *t);

#endif
