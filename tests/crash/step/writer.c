/*
 * writer.c - the process that is stepped through: one thread that does what the daemon does with a collection, by a
 * script that depends on the seed only. Between step_begin() and step_end() it is stopped after each instruction.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/io.h"
#include "server/base/log.h"
#include "server/index/index_priv.h"
#include "server/wal/append.h"
#include "shm/base/id.h"
#include "tests/crash/step/step.h"
#include "tests/support/child.h"
#include "tests/support/rand.h"

#define GROUP_MAX    12u
#define LIVE         14u /* vectors that stand there as the middle of the script begins */
#define TOP_LEVEL    6u
#define SMALL_FILE   (4u * 4096u)         /* of a log that is trimmed: three groups */
#define BRIM_SLOTS   130u                 /* a region that is full by then is made to grow */
#define OPERATION_NO STEP_OPERATION_COUNT /* not stepped through */

struct change {
    uint32_t id;
    bool gone;
};

struct staged {
    struct writer *w;
    const struct kithi_group *group;
    struct kithi_op ops[GROUP_MAX];
    char ids[GROUP_MAX][TEST_ID_SIZE];
    float vectors[GROUP_MAX][64];
    unsigned char payloads[GROUP_MAX][STEP_PAYLOAD_MAX];
    uint32_t n;
    uint64_t epoch;
    bool durable;
};

struct writer {
    const struct step_writer_args *args;
    struct kithi_index *ix;
    struct kithi_io *io;
    struct kithi_wal *wal;
    uint32_t log_count;
    struct kithi_collection *collection; /* has checkpoints; index and log are ours */
    uint64_t now_ms;
    struct test_rand r;

    struct staged first, second; /* groups under way, mostly the first alone */
};

static void must(int rc, const struct kithi_errmsg *err)
{
    if (rc < 0)
        test_die("the writer: %s: %s", kithi_error_name(rc), err->text);
}

static void step_begin(struct writer *w, enum step_operation operation)
{
    if (operation == OPERATION_NO)
        return;
    w->args->shared->operation = operation;
    raise(SIGSTOP); /* the tracer sets `stepping` */
}

static void step_end(struct writer *w)
{
    atomic_store(&w->args->shared->stepping, 0);
}

/* ---- a group ---- */

/* Give op number i of the group another payload. */
static void give_payload(struct writer *w, struct staged *g, uint32_t i, uint64_t *stamp)
{
    *stamp = test_model_version_new(w->args->payloads);
    g->ops[i].payload = g->payloads[i];
    g->ops[i].payload_len = step_payload(*stamp, g->payloads[i]);
    if (g->ops[i].type == KITHI_OP_UPSERT)
        g->ops[i].flags = KITHI_OP_PAYLOAD;
}

/* What the group will do, into the model and for kithi_group_add(); behind another one that is prepared, too, or not. */
static void prepare_behind(struct writer *w, struct staged *g, uint64_t epoch, const struct change *changes,
                           uint32_t n)
{
    struct test_model *m = w->args->model;
    struct test_model *payloads = w->args->payloads;
    uint64_t versions[STEP_ID_COUNT], stamps[STEP_ID_COUNT];
    g->w = w;
    g->n = n;
    g->epoch = epoch;
    g->durable = false;
    for (uint32_t i = 0; i < STEP_ID_COUNT; i++) {
        versions[i] = test_model_now(m, i);
        stamps[i] = test_model_now(payloads, i);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = changes[i].id;
        size_t len = test_model_id_format(id, g->ids[i]);
        versions[id] = changes[i].gone ? 0 : test_model_version_new(m);
        g->ops[i] = (struct kithi_op){ .type = KITHI_OP_DELETE, .id_len = (uint16_t)len, .id = g->ids[i] };
        if (changes[i].gone) {
            stamps[id] = 0;
            continue;
        }
        test_model_vector(m, id, versions[id], g->vectors[i]);
        g->ops[i].type = KITHI_OP_UPSERT;
        g->ops[i].dim = m->dim;
        g->ops[i].vector = g->vectors[i];
        if (test_rand_below(&w->r, 2)) /* else what it has stays */
            give_payload(w, g, i, &stamps[id]);
    }
    /* And one or two that change without their vectors, of this group or others. */
    for (uint32_t id = test_rand_below(&w->r, STEP_ID_WAVES), more = 0, looks = 0;
         looks < STEP_ID_WAVES && more < 2 && g->n < GROUP_MAX; looks++, id = (id + 1) % STEP_ID_WAVES) {
        if (!versions[id])
            continue;
        size_t len = test_model_id_format(id, g->ids[g->n]);
        g->ops[g->n] = (struct kithi_op){ .type = KITHI_OP_SET, .id_len = (uint16_t)len, .id = g->ids[g->n] };
        give_payload(w, g, g->n++, &stamps[id]);
        more++;
    }
    for (uint32_t i = 0; i < STEP_ID_COUNT; i++)
        if (stamps[i] != test_model_now(payloads, i))
            test_model_note(payloads, i, g->epoch, stamps[i]);
    test_model_complete(payloads, g->epoch);
    for (uint32_t i = 0; i < STEP_ID_COUNT; i++)
        if (versions[i] != test_model_now(m, i))
            test_model_note(m, i, g->epoch, versions[i]);
    test_model_complete(m, g->epoch);
    w->args->shared->epoch_before = kithi_index_epoch(w->ix);
    w->args->shared->epoch_after = g->epoch;
}

static void prepare(struct writer *w, const struct change *changes, uint32_t n)
{
    prepare_behind(w, &w->first, kithi_index_epoch(w->ix) + 1, changes, n);
}

static void durable(void *arg, int status)
{
    struct staged *g = arg;
    if (status < 0)
        test_die("the writer's log: %s", kithi_error_name(status));
    g->durable = true;
    if (g->w->wal)
        atomic_store(&g->w->args->shared->durable, g->epoch);
}

/* Ask the log to write the group, as the pipeline does before a slot is touched. */
static void append(struct writer *w, struct staged *g)
{
    _Alignas(8) static unsigned char bytes[GROUP_MAX * (512 + STEP_PAYLOAD_MAX)];
    size_t len = 0;
    if (!w->wal) {
        g->durable = true;
        return;
    }
    for (uint32_t i = 0; i < g->n; i++)
        len += kithi_op_put(bytes + len, &g->ops[i]);
    struct iovec v = { bytes, len };
    int rc = kithi_wal_append(w->wal, g->epoch, &v, 1, g->n, durable, g);
    if (rc < 0)
        test_die("the writer's log: %s", kithi_error_name(rc));
}

static void stage_group(struct writer *w, struct staged *g)
{
    struct kithi_group_result result;
    struct kithi_errmsg err;
    must(kithi_group_add(w->ix, g->ops, g->n, &result, &err), &err);
    append(w, g);
    g->group = kithi_group_seal(w->ix);
}

static void insert(struct writer *w, const struct staged *g, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to && i < kithi_group_job_count(g->group); i++)
        kithi_group_job(w->ix, g->group, 0, i);
}

static void flush_group(struct writer *w, const struct staged *g)
{
    while (!g->durable)
        kithi_io_run(w->io, -1);
}

static void publish_group(struct writer *w, const struct staged *g)
{
    kithi_group_publish(w->ix, g->epoch, w->now_ms);
    atomic_store(&w->args->shared->acked, g->epoch);
}

static void stage(struct writer *w)
{
    stage_group(w, &w->first);
}

static void jobs(struct writer *w, uint32_t from, uint32_t to)
{
    insert(w, &w->first, from, to);
}

static void flush_log(struct writer *w)
{
    flush_group(w, &w->first);
}

static void publish(struct writer *w)
{
    publish_group(w, &w->first);
}

/* Two groups under way at once, of which the second changes what the first one does. */
static void commit_two(struct writer *w, const struct change *a, uint32_t a_n, const struct change *b,
                       uint32_t b_n)
{
    struct staged *first = &w->first, *second = &w->second;
    prepare_behind(w, first, kithi_index_epoch(w->ix) + 1, a, a_n);
    prepare_behind(w, second, kithi_index_epoch(w->ix) + 2, b, b_n);
    step_begin(w, STEP_UPSERT);
    stage_group(w, first);
    insert(w, first, 0, 1);
    stage_group(w, second);
    insert(w, second, 0, 1);
    insert(w, first, 1, UINT32_MAX);
    flush_group(w, first);
    step_end(w);
    step_begin(w, STEP_COMMIT);
    publish_group(w, first);
    insert(w, second, 1, UINT32_MAX);
    flush_group(w, second);
    publish_group(w, second);
    step_end(w);
}

/* A group from its beginning to its end; the log's write comes after the first job. */
static void commit(struct writer *w, const struct change *changes, uint32_t n, enum step_operation staging,
                   enum step_operation inserting, enum step_operation publishing)
{
    prepare(w, changes, n);
    step_begin(w, staging);
    stage(w);
    step_end(w);
    step_begin(w, inserting);
    jobs(w, 0, 1);
    flush_log(w);
    jobs(w, 1, UINT32_MAX);
    step_end(w);
    step_begin(w, publishing);
    publish(w);
    step_end(w);
}

static void commit_unseen(struct writer *w, const struct change *changes, uint32_t n)
{
    commit(w, changes, n, OPERATION_NO, OPERATION_NO, OPERATION_NO);
}

/* Deleting allots nothing and has no jobs: it is the group that is of interest. */
static void commit_deletes(struct writer *w, const struct change *changes, uint32_t n)
{
    prepare(w, changes, n);
    step_begin(w, STEP_DELETE);
    stage(w);
    flush_log(w);
    publish(w);
    step_end(w);
}

/* No group is under way: nothing becomes visible in what comes next. */
static void between_groups(struct writer *w)
{
    w->args->shared->epoch_before = w->args->shared->epoch_after = kithi_index_epoch(w->ix);
}

/* Let ms pass, and do what is due. */
static uint32_t sweep(struct writer *w, uint32_t ms)
{
    uint32_t wait_ms, n;
    w->now_ms += ms;
    n = kithi_sweep_begin(w->ix, w->now_ms, &wait_ms);
    for (uint32_t i = 0; i < n; i++)
        kithi_sweep_job(w->ix, 0, i);
    if (n)
        kithi_sweep_end(w->ix, w->now_ms);
    return n;
}

static void sweep_seen(struct writer *w, uint32_t ms)
{
    between_groups(w);
    step_begin(w, STEP_REUSE);
    sweep(w, ms);
    step_end(w);
}

static void settle(struct writer *w)
{
    const struct kithi_header *h = kithi_map_header(kithi_index_map(w->ix));
    do
        sweep(w, 1000);
    while (atomic_load(&h->tally_dead) || atomic_load(&h->tally_resting));
}

/* ---- the log ---- */

static int open_log(struct writer *w, uint64_t file_size, struct kithi_errmsg *err)
{
    struct kithi_wal_report report = { .last_epoch = kithi_index_epoch(w->ix), .last_number = 1 };
    struct kithi_wal_open_opts opts = { .dir = w->args->shared->place.log_dir,
                                        .file_size = file_size,
                                        .report = &report };
    memcpy(opts.uid, w->args->world->identity.uid, sizeof opts.uid);
    return kithi_wal_open(w->io, &opts, &w->wal, err);
}

/* Begin a log that goes on from the present epoch, in a directory of its own. */
static void begin_log(struct writer *w)
{
    struct step_place *p = &w->args->shared->place;
    struct kithi_wal_stats stats;
    struct kithi_errmsg err;
    kithi_wal_close(w->wal);
    w->wal = NULL;
    snprintf(p->log_dir, sizeof p->log_dir, "%s/log-%u", w->args->dir->path, w->log_count++);
    if (mkdir(p->log_dir, 0755) < 0)
        test_die("%s: %s", p->log_dir, strerror(errno));
    p->data_dir[0] = '\0';
    must(open_log(w, STEP_LOG_SIZE, &err), &err);
    kithi_wal_stats(w->wal, &stats);
    snprintf(p->log_name, sizeof p->log_name, "%s", stats.file);
    atomic_store(&w->args->shared->durable, kithi_index_epoch(w->ix));
}

/* ---- the script ---- */

/* One of the ids below STEP_ID_WAVES that are there, or are not there. */
static uint32_t pick(struct writer *w, bool there)
{
    for (;;) {
        uint32_t id = test_rand_below(&w->r, STEP_ID_WAVES);
        if ((test_model_now(w->args->model, id) != 0) == there)
            return id;
    }
}

/* Different ids, all there or all not. */
static void pick_some(struct writer *w, bool there, struct change *out, uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        out[i] = (struct change){ .id = pick(w, there) };
        bool fresh = true;
        for (uint32_t j = 0; j < i; j++)
            fresh &= out[j].id != out[i].id;
        i += fresh;
    }
}

/* The next vector that is staged gets a level above all others, and becomes the entry point: group.c draws levels so. */
static void let_next_be_top(struct writer *w)
{
    const uint64_t high = UINT64_MAX >> (2 * TOP_LEVEL); /* m is 4: two bits a level */
    for (uint64_t state = w->args->world->seed << 20 | 1;; state++) {
        uint64_t x = state;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        if (x * UINT64_C(0x2545f4914f6cdd1d) < high) {
            w->ix->random = state;
            return;
        }
    }
}

/* The id that the entry point has. */
static uint32_t entry_id(const struct writer *w)
{
    struct kithi_view v;
    char id[KITHI_ID_MAX + 1] = "";
    kithi_view_begin(kithi_index_map(w->ix), &v);
    kithi_view_id(&v, kithi_entry_link(atomic_load(&v.header->entry)) - 1, id);
    return test_model_id(w->args->model, id);
}

/* The first vectors of a collection, and the last. */
static void from_empty_to_empty(struct writer *w)
{
    struct change c[2];
    begin_log(w);
    pick_some(w, false, c, 2);
    commit(w, c, 2, STEP_INSERT, STEP_INSERT, STEP_COMMIT);
    c[0].gone = c[1].gone = true;
    commit_deletes(w, c, 2);
    sweep_seen(w, 1000);
    c[0].gone = c[1].gone = false;
    commit(w, c, 1, STEP_INSERT, STEP_INSERT, STEP_COMMIT); /* nobody living all round */
    c[0].gone = true;
    commit_unseen(w, c, 1);
}

/* Fill the id table with tombstones until the next three ids make it grow, while the collection stays small. */
static void fill_id_table(struct writer *w)
{
    const struct kithi_header *h = kithi_map_header(kithi_index_map(w->ix));
    struct change c[5];
    uint32_t id = STEP_ID_WAVES;
    const uint64_t brim = KITHI_IDS_CAPACITY_MIN * 3 / 5;
    for (uint64_t filled; (filled = atomic_load(&h->tally_ids)) + 2 < brim;) {
        uint32_t n = filled + 2 + 5 <= brim ? 5 : 1;
        for (uint32_t i = 0; i < n; i++)
            c[i] = (struct change){ .id = id++ };
        if (id > STEP_ID_COUNT - 4)
            test_die("the id table does not fill");
        commit_unseen(w, c, n);
        for (uint32_t i = 0; i < n; i++)
            c[i].gone = true;
        commit_unseen(w, c, n);
        settle(w);
    }
}

static void live_through_groups(struct writer *w)
{
    struct change c[GROUP_MAX];

    /* The id table is rebuilt, into a region that had no memory yet. */
    pick_some(w, false, c, 3);
    commit(w, c, 3, STEP_GROWTH, STEP_INSERT, STEP_COMMIT);

    pick_some(w, false, c, 2);
    let_next_be_top(w);
    commit(w, c, 2, STEP_INSERT, STEP_INSERT, STEP_COMMIT);

    pick_some(w, true, c, 3);
    c[3] = (struct change){ .id = c[1].id };
    c[4] = (struct change){ .id = c[2].id, .gone = true };
    commit(w, c, 5, STEP_UPSERT, STEP_UPSERT, STEP_COMMIT);

    struct change d[4];
    pick_some(w, false, c, 2);
    pick_some(w, true, c + 2, 2);
    c[3].gone = true;
    d[0] = (struct change){ .id = c[0].id };
    d[1] = (struct change){ .id = c[1].id, .gone = true };
    d[2] = (struct change){ .id = c[3].id };
    d[3] = (struct change){ .id = c[2].id, .gone = true };
    commit_two(w, c, 4, d, 4);

    /* The entry point goes, too, if it is one of the living. */
    uint32_t top = entry_id(w);
    do
        pick_some(w, true, c, 3);
    while (c[1].id == top || c[2].id == top);
    if (top < STEP_ID_WAVES && test_model_now(w->args->model, top))
        c[0].id = top;
    for (uint32_t i = 0; i < 3; i++)
        c[i].gone = true;
    c[3] = (struct change){ .id = pick(w, false), .gone = true };
    commit_deletes(w, c, 4);

    /* One group with everything in it; a deleted id comes back. */
    pick_some(w, true, c, 5);
    c[2].gone = c[3].gone = true;
    c[5] = (struct change){ .id = c[2].id };
    pick_some(w, false, c + 6, 3);
    commit(w, c, 9, OPERATION_NO, OPERATION_NO, STEP_COMMIT);
}

static void turn_over(struct writer *w)
{
    struct change c[GROUP_MAX];
    sweep_seen(w, 1000); /* unlinks what has died so far */
    sweep_seen(w, 1000); /* frees it */
    pick_some(w, true, c, 1);
    pick_some(w, false, c + 1, 1);
    commit(w, c, 2, STEP_REUSE, STEP_REUSE, STEP_REUSE);

    pick_some(w, true, c, 4);
    for (uint32_t i = 0; i < 4; i++)
        c[i].gone = true;
    commit_deletes(w, c, 4);

    /* A sweep beside a group: unlinking between the insertions. */
    pick_some(w, false, c, 1);
    pick_some(w, true, c + 1, 1);
    prepare(w, c, 2);
    step_begin(w, STEP_REUSE);
    stage(w);
    uint32_t wait_ms;
    w->now_ms += 1000;
    uint32_t n = kithi_sweep_begin(w->ix, w->now_ms, &wait_ms);
    jobs(w, 0, 1);
    for (uint32_t i = 0; i < n; i++)
        kithi_sweep_job(w->ix, 0, i);
    jobs(w, 1, UINT32_MAX);
    if (n)
        kithi_sweep_end(w->ix, w->now_ms);
    flush_log(w);
    publish(w);
    step_end(w);
}

/* ---- checkpoints ---- */

static void begin_checkpoint(struct writer *w)
{
    struct kithi_collection *c = w->collection;
    c->index = w->ix;
    c->wal = w->wal;
    step_ask_for_checkpoint(c);
    kithi_checkpointer_turn(c, w->now_ms);
}

/* Do so many things for it, or whatever is left to be done. */
static void go_on_with_checkpoint(struct writer *w, uint32_t n)
{
    for (uint32_t i = 0; i < n && step_io_one(w->collection->daemon->io); i++)
        continue;
}

static void take_checkpoint(struct writer *w)
{
    begin_checkpoint(w);
    go_on_with_checkpoint(w, UINT32_MAX);
    if (w->collection->checkpointer.step != CHECKPOINTER_REST)
        test_die("a checkpoint does not come to its end");
}

/* Some that change, some that come, one that goes. */
static uint32_t mix(struct writer *w, struct change *out)
{
    pick_some(w, true, out, 3);
    out[2].gone = true;
    pick_some(w, false, out + 3, 2);
    return 5;
}

/* A group, and of the checkpoint `n` things before each of its parts. */
static void commit_beside(struct writer *w, uint32_t n)
{
    struct change c[GROUP_MAX];
    prepare(w, c, mix(w, c));
    step_begin(w, STEP_CHECKPOINT);
    stage(w);
    go_on_with_checkpoint(w, n);
    jobs(w, 0, 1);
    flush_log(w);
    go_on_with_checkpoint(w, n);
    jobs(w, 1, UINT32_MAX);
    publish(w);
    step_end(w);
}

static void sweep_beside(struct writer *w, uint32_t n)
{
    between_groups(w);
    step_begin(w, STEP_CHECKPOINT);
    sweep(w, 1000);
    go_on_with_checkpoint(w, n);
    step_end(w);
}

/* Two checkpoints are there, and groups after each of them, when the one begins that is stepped through. */
static void write_checkpoints(struct writer *w)
{
    struct step_place *p = &w->args->shared->place;
    struct change c[GROUP_MAX];
    struct kithi_errmsg err;
    snprintf(p->data_dir, sizeof p->data_dir, "%s/data", w->args->dir->path);
    snprintf(p->log_dir, sizeof p->log_dir, "%s/data/wal", w->args->dir->path);
    if (mkdir(p->data_dir, 0755) < 0 || mkdir(p->log_dir, 0755) < 0)
        test_die("%s: %s", p->log_dir, strerror(errno));
    must(open_log(w, SMALL_FILE, &err), &err);
    w->collection = step_collection(w->args->world, w->args->dir, "data");
    atomic_store(&w->args->shared->durable, kithi_index_epoch(w->ix));
    take_checkpoint(w);
    for (uint32_t i = 0; i < 9; i++) {
        commit_unseen(w, c, mix(w, c));
        if (i == 4)
            take_checkpoint(w);
    }
    sweep(w, 1000);

    between_groups(w);
    step_begin(w, STEP_CHECKPOINT);
    begin_checkpoint(w);
    go_on_with_checkpoint(w, 1);
    step_end(w);
    /* Nothing of it is copied yet, and much of it dies, is swept, and would be refilled. */
    commit_beside(w, 0);
    sweep_beside(w, 0);
    sweep_beside(w, 0);
    commit_beside(w, 1);
    commit_beside(w, 2);
    sweep_beside(w, 2);
    between_groups(w);
    step_begin(w, STEP_CHECKPOINT);
    go_on_with_checkpoint(w, UINT32_MAX);
    step_end(w);
    w->collection->index = NULL;
    w->collection->wal = NULL;
    step_collection_free(w->collection);
    w->collection = NULL;
}

/* Slots that a region has memory for, of those that few vectors fill; 0: none is. */
static uint32_t brim_of(const struct writer *w)
{
    static const unsigned regions[] = { KITHI_REGION_RECORDS, KITHI_REGION_ROWS, KITHI_REGION_VECTORS,
                                        KITHI_REGION_CODES };
    const struct kithi_layout *l = &kithi_index_map(w->ix)->layout;
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < sizeof regions / sizeof *regions; i++)
        if (l->size[regions[i]] && w->ix->taken[regions[i]] / l->unit[regions[i]] < least)
            least = w->ix->taken[regions[i]] / l->unit[regions[i]];
    return least < BRIM_SLOTS ? (uint32_t)least : 0;
}

static void grow_a_region(struct writer *w)
{
    struct change c[2];
    uint32_t brim = brim_of(w), id = STEP_ID_WAVES;
    if (!brim)
        return;
    settle(w);
    while (w->ix->slots_free.count || w->ix->slots_used < brim) {
        c[0] = (struct change){ .id = id++ };
        commit_unseen(w, c, 1);
    }
    begin_log(w);
    c[0] = (struct change){ .id = id++ };
    c[1] = (struct change){ .id = id++ };
    commit(w, c, 2, STEP_GROWTH, OPERATION_NO, OPERATION_NO);
}

static void write_all(struct writer *w)
{
    struct change c[1];
    from_empty_to_empty(w);
    kithi_wal_close(w->wal);
    w->wal = NULL;
    for (uint32_t i = 0; i < LIVE; i++) {
        c[0] = (struct change){ .id = pick(w, false) };
        commit_unseen(w, c, 1);
    }
    fill_id_table(w);
    begin_log(w);
    live_through_groups(w);
    turn_over(w);
    kithi_wal_close(w->wal);
    w->wal = NULL;
    write_checkpoints(w);
    kithi_wal_close(w->wal);
    w->wal = NULL;
    grow_a_region(w);
}

/* Take over what a crash left. What comes after that is for the judge. */
static void adopt(struct writer *w)
{
    const struct step_crash *crash = w->args->crash;
    struct step_shared *s = w->args->shared;
    struct kithi_errmsg err;
    s->place = crash->place;
    s->epoch_before = crash->epoch_before;
    s->epoch_after = crash->epoch_after;
    atomic_store(&s->durable, crash->durable);
    atomic_store(&s->acked, crash->acked);
    step_begin(w, STEP_ADOPT);
    int64_t miscounted;
    int rc = kithi_index_adopt(s->place.segment, &w->args->world->identity, &w->args->world->tuning, NULL,
                               &w->ix, &err);
    if (rc == 0)
        rc = kithi_index_census(w->ix, UINT32_MAX, &miscounted, &err);
    step_end(w);
    must(rc, &err);
}

int step_writer(void *arg)
{
    const struct step_writer_args *args = arg;
    struct writer *w = calloc(1, sizeof *w);
    if (!w)
        test_die("out of memory");
    w->args = args;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        test_die("PTRACE_TRACEME: %s", strerror(errno));
    if (args->crash) {
        adopt(w);
    } else {
        struct kithi_errmsg err;
        struct step_place *p = &args->shared->place;
        snprintf(p->segment, sizeof p->segment, "%s/segment", args->dir->path);
        kithi_log_set_level(KITHI_LOG_ERROR);
        w->now_ms = 1000;
        w->io = step_io_here();
        test_rand_seed(&w->r, args->world->seed);
        must(kithi_index_create(p->segment, &args->world->identity, 1, &args->world->tuning, &w->ix, &err),
             &err);
        w->ix->random = args->world->seed * UINT64_C(0x9e3779b97f4a7c15) | 1; /* levels, too */
        write_all(w);
        kithi_wal_close(w->wal);
        kithi_io_free(w->io);
    }
    kithi_index_close(w->ix);
    args->shared->finished = true;
    free(w);
    return 0;
}
