/*
 * trace.c - see trace.h.
 *
 * Tracer and writer run in turns, so both are kept on one processor: passing the turn to another one takes four times as
 * long. Where that processor is busy with something else, they move on to the next.
 */
#include "tests/crash/step/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACE_STEPS 1024u
#define PACE_NS    60000u /* a step that takes longer on average means that the processor is not ours */
#define WATCH_MS   20000u
#define STUCK_S    1500u

const char *step_position = "";

extern const char __executable_start[]; /* the linker's */

/* ---- one processor ---- */

struct pace {
    cpu_set_t all;
    int cpu;
    pid_t pid;
    uint64_t steps, began_ns, judged_ns; /* judging does not count */
};

static void move_to(struct pace *p, int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    p->cpu = cpu;
    /* A favour: it goes on without, slower. */
    (void)sched_setaffinity(0, sizeof one, &one);
    (void)sched_setaffinity(p->pid, sizeof one, &one);
}

static void pace_begin(struct pace *p, pid_t pid, const cpu_set_t *all)
{
    memset(p, 0, sizeof *p);
    p->all = *all;
    p->pid = pid;
    p->began_ns = test_now_ns();
    int cpu = sched_getcpu();
    move_to(p, cpu < 0 ? 0 : cpu);
}

static void pace_step(struct pace *p)
{
    if (++p->steps < PACE_STEPS)
        return;
    uint64_t now = test_now_ns();
    if (now - p->began_ns - p->judged_ns > (uint64_t)PACE_STEPS * PACE_NS) {
        int cpu = p->cpu;
        do
            cpu = (cpu + 1) % CPU_SETSIZE;
        while (!CPU_ISSET(cpu, &p->all));
        move_to(p, cpu);
    }
    p->steps = p->judged_ns = 0;
    p->began_ns = now;
}

/* ---- stepping ---- */

/* The next stop of the child; false when it has ended, with its status. */
static bool next_stop(pid_t pid, int *status)
{
    while (waitpid(pid, status, __WALL) < 0)
        if (errno != EINTR)
            test_die("waitpid: %s", strerror(errno));
    return WIFSTOPPED(*status);
}

static uint64_t place_of(pid_t pid)
{
#if defined(__x86_64__)
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0)
        return regs.rip - (uint64_t)(uintptr_t)__executable_start;
#endif
    return 0;
}

static void wait_for_reader(struct step_tracer *t, uint32_t want)
{
    uint64_t end = test_now_ms() + WATCH_MS;
    while (atomic_load(&t->shared->watched) != want) {
        if (test_now_ms() > end)
            test_die("the reader does not answer");
        test_nap();
    }
}

/* Every state may be saved, with the same chance; of a commit those that leave most to undo. */
static void save_crash(struct step_tracer *t, const struct step_promise *p)
{
    const struct kithi_header *h = (const struct kithi_header *)(const void *)t->frozen.segment.image;
    enum step_operation operation = t->shared->operation;
    bool half = atomic_load_explicit(&h->epoch, memory_order_relaxed) < p->epoch_after;
    if (operation == STEP_ADOPT || operation == STEP_CHECKPOINT || (operation == STEP_COMMIT && !half) ||
        test_rand_below(&t->r, ++t->candidates[operation]) != 0)
        return;
    struct step_crash *c = &t->crashes[operation];
    step_frozen_save(&t->frozen, t->crash_count++, &c->place);
    c->epoch_before = p->epoch_before;
    c->epoch_after = p->epoch_after;
    c->durable = p->durable;
    c->acked = p->acked;
    snprintf(c->where, sizeof c->where, "%.159s", t->judge.where);
}

/* What stands there now is a state of its own. */
static void state(struct step_tracer *t, struct step_figures *f, struct pace *pace)
{
    struct step_shared *s = t->shared;
    struct step_promise p = { .epoch_before = s->epoch_before,
                              .epoch_after = s->epoch_after,
                              .durable = atomic_load(&s->durable),
                              .acked = atomic_load(&s->acked) };
    uint64_t began = test_now_ns();
    f->states++;
    if (t->share > 1 && test_rand_below(&t->r, t->share) != 0)
        return;
    f->judged++;
    snprintf(t->judge.where, sizeof t->judge.where,
             "seed %" PRIu64 " (%s), %s, phase %u, instruction %" PRIu64 ", at 0x%" PRIx64, t->world->seed,
             t->world->name, step_operation_names[s->operation], t->phase, t->step, place_of(pace->pid));
    step_position = t->judge.where;
    alarm(STUCK_S);
    f->bad += !step_judge(&t->judge, &p);
    save_crash(t, &p);
    pace->judged_ns += test_now_ns() - began;
}

/* Whether the phase that begins is one of those to be stepped through. */
static bool is_chosen(struct step_tracer *t)
{
    uint32_t n = t->met[t->shared->operation]++, phases = t->phases;
    /* Those of a checkpoint are the longest, and half as many do where not all are asked for. */
    if (t->shared->operation == STEP_CHECKPOINT && phases > 1)
        phases *= 2;
    if (!(t->operations >> t->shared->operation & 1))
        return false;
    return t->shared->operation == STEP_ADOPT || (n + t->shared->operation + t->world->seed) % phases == 0;
}

/* Between step_begin() and step_end(). */
static bool phase(struct step_tracer *t, pid_t pid, struct pace *pace, int *status)
{
    struct step_shared *s = t->shared;
    struct step_figures *f = &t->figures[s->operation];
    bool alive = true;
    t->phase++;
    t->step = 0;
    step_frozen_follow(&t->frozen, &s->place);
    t->judge.untaken = step_untaken_bytes(&t->frozen, s->place.segment);
    atomic_store(&s->watching, t->phase);
    wait_for_reader(t, t->phase);
    atomic_store(&s->stepping, 1);
    step_frozen_look(&t->frozen);
    state(t, f, pace);
    while (alive && atomic_load(&s->stepping)) {
        alive = ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 && next_stop(pid, status);
        if (!alive || WSTOPSIG(*status) != SIGTRAP)
            break;
        t->step++;
        f->stops++;
        if (step_frozen_look(&t->frozen))
            state(t, f, pace);
        pace_step(pace);
    }
    atomic_store(&s->watching, 0);
    wait_for_reader(t, 0);
    int64_t untaken = step_untaken_bytes(&t->frozen, s->place.segment);
    if (alive && untaken > t->judge.untaken) {
        fprintf(stderr,
                "BAD seed %" PRIu64 ", phase %u: the writer has touched %" PRId64 " bytes not taken\n",
                t->world->seed, t->phase, untaken);
        f->bad++;
    }
    return alive;
}

bool step_run(struct step_tracer *t, const struct step_crash *crash)
{
    struct step_writer_args args = { .world = t->world,
                                     .shared = t->shared,
                                     .model = t->model,
                                     .payloads = t->payloads,
                                     .dir = t->dir,
                                     .crash = crash };
    struct test_child child;
    struct pace pace;
    cpu_set_t all;
    int status;
    t->shared->finished = false;
    CPU_ZERO(&all);
    if (sched_getaffinity(0, sizeof all, &all) < 0)
        CPU_SET(0, &all);
    test_child_start(&child, "writer", step_writer, &args);
    pace_begin(&pace, child.pid, &all);
    alarm(STUCK_S);
    bool alive = next_stop(child.pid, &status);
    if (crash)
        t->met[STEP_ADOPT] =
            (uint32_t)(t->phases - t->world->seed % t->phases); /* that of a crash always is */
    while (alive) {
        int signal = WSTOPSIG(status);
        if (signal == SIGSTOP && !is_chosen(t)) {
            signal = 0;
        } else if (signal == SIGSTOP) {
            alive = phase(t, child.pid, &pace, &status);
            signal = alive && WSTOPSIG(status) != SIGTRAP ? WSTOPSIG(status) : 0;
        }
        alarm(STUCK_S);
        if (alive)
            alive = ptrace(PTRACE_CONT, child.pid, NULL, signal) == 0 && next_stop(child.pid, &status);
    }
    alarm(0);
    (void)sched_setaffinity(0, sizeof all, &all);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && t->shared->finished)
        return true;
    fprintf(stderr,
            "BAD seed %" PRIu64 " (%s): the writer ended with status 0x%x in phase %u, instruction %" PRIu64
            "\n",
            t->world->seed, t->world->name, status, t->phase, t->step);
    t->figures[t->shared->operation].bad++;
    return false;
}

/* ---- is it permitted ---- */

static int try_role(void *arg)
{
    (void)arg;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        return 1;
    raise(SIGSTOP);
    return 0;
}

bool step_permitted(void)
{
#if !defined(__x86_64__)
    /* Elsewhere a pair of load-exclusive and store-exclusive never succeeds while every instruction is a stop. */
    puts("skipped: stepping through a writer is for x86-64");
    return false;
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(KITH_TEST_SANITIZED)
    puts("skipped: a sanitizer's instructions are most of what would be stepped through");
    return false;
#else
    struct test_child child;
    int status;
    test_child_start(&child, "probe", try_role, NULL);
    bool good = next_stop(child.pid, &status) && WSTOPSIG(status) == SIGSTOP;
    for (unsigned i = 0; good && i < 3; i++)
        good = ptrace(PTRACE_SINGLESTEP, child.pid, NULL, NULL) == 0 && next_stop(child.pid, &status) &&
               WSTOPSIG(status) == SIGTRAP;
    if (!WIFEXITED(status) && !WIFSIGNALED(status)) {
        kill(child.pid, SIGKILL);
        while (next_stop(child.pid, &status))
            continue;
    }
    if (!good)
        puts("skipped: stepping through another process (ptrace) is not permitted here");
    return good;
#endif
}
