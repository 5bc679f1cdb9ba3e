/*
 * frame.c - see frame.h.
 *
 * Tables, one below the other, a line for each collection: what it holds, what is written, who reads, what is kept up
 * behind. Then the busiest readers. Lines are as long as they are: the screen cuts them.
 */
#include "tools/top/frame.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/out.h"
#include "tools/top/rates.h"

#define READERS_SHOWN 10u

/* ---- values for people ---- */

struct cell {
    char text[KITHI_OUT_TEXT_SIZE];
};

static struct cell rate(double v)
{
    struct cell c = { .text = "-" };
    if (v >= 9.95)
        kithi_out_count(c.text, (uint64_t)(v + 0.5));
    else if (!isnan(v))
        snprintf(c.text, sizeof c.text, v > 0 ? "%.1f" : "%.0f", v);
    return c;
}

static struct cell duration(double us)
{
    struct cell c = { .text = "-" };
    if (isnan(us))
        return c;
    if (us < 999.5)
        snprintf(c.text, sizeof c.text, "%.0f us", us);
    else if (us < 999.5e3)
        snprintf(c.text, sizeof c.text, "%.1f ms", us / 1e3);
    else
        snprintf(c.text, sizeof c.text, "%.1f s", us / 1e6);
    return c;
}

static struct cell age(double s)
{
    struct cell c;
    if (s < 120)
        snprintf(c.text, sizeof c.text, "%.0f s", s > 0 ? s : 0);
    else if (s < 7200)
        snprintf(c.text, sizeof c.text, "%.0f min", s / 60);
    else if (s < 172800)
        snprintf(c.text, sizeof c.text, "%.0f h", s / 3600);
    else
        snprintf(c.text, sizeof c.text, "%.0f d", s / 86400);
    return c;
}

static struct cell number(double v)
{
    struct cell c;
    kithi_out_count(c.text, v > 0 && v < 1.8e19 ? (uint64_t)v : 0);
    return c;
}

static struct cell size(double bytes)
{
    struct cell c;
    kithi_out_bytes(c.text, bytes > 0 && bytes < 1.8e19 ? (uint64_t)bytes : 0);
    return c;
}

static const char *or_dash(bool known, const struct cell *c)
{
    return known ? c->text : "-";
}

/* ---- tables ---- */

static void heading(struct kithi_table *table, const char *format, const char *const *names)
{
    kithi_table_begin(table, format);
    for (size_t i = 0; i < strlen(format); i++)
        kithi_table_cell(table, "%s", names[i]);
}

static void end(struct kithi_table *table, FILE *f)
{
    kithi_table_end_to(table, f);
    fputc('\n', f);
}

static void draw_contents(FILE *f, const struct kithi_top_frame *frame)
{
    static const char *const NAMES[] = { "COLLECTION", "VECTORS", "DEAD",  "RESTING",
                                         "FREE",       "MEMORY",  "EPOCH", "" };
    struct kithi_table table;
    heading(&table, "lrrrrrrl", NAMES);
    for (uint32_t i = 0; i < frame->count; i++) {
        const struct kithi_top_collection *c = &frame->collections[i];
        const struct kithi_top_look *l = &c->now;
        const struct cell live = number((double)l->live), dead = number((double)l->dead),
                          resting = number((double)l->resting), is_free = number((double)l->free),
                          bytes = size((double)l->bytes), epoch = number((double)l->epoch);
        kithi_table_cell(&table, "%s", c->name);
        kithi_table_cell(&table, "%s", or_dash(l->attached, &live));
        kithi_table_cell(&table, "%s", or_dash(l->attached, &dead));
        kithi_table_cell(&table, "%s", or_dash(l->attached, &resting));
        kithi_table_cell(&table, "%s", or_dash(l->attached, &is_free));
        kithi_table_cell(&table, "%s", or_dash(l->attached, &bytes));
        kithi_table_cell(&table, "%s", or_dash(l->attached, &epoch));
        kithi_table_cell(&table, "%s", c->problem);
    }
    end(&table, f);
}

static void draw_writing(FILE *f, const struct kithi_top_frame *frame)
{
    static const char *const NAMES[] = { "WRITING",   "GROUPS/s",  "CHANGES/s", "A GROUP",
                                         "FLUSH p50", "FLUSH p99", "FLUSH MAX", "WAITING" };
    struct kithi_table table;
    heading(&table, "lrrrrrrr", NAMES);
    for (uint32_t i = 0; i < frame->count; i++) {
        const struct kithi_top_collection *c = &frame->collections[i];
        struct kithi_top_rates r;
        if (!c->now.daemon)
            continue;
        kithi_top_rates(c, &r);
        kithi_table_cell(&table, "%s", c->name);
        kithi_table_cell(&table, "%s", rate(r.groups).text);
        kithi_table_cell(&table, "%s", rate(r.ops).text);
        kithi_table_cell(&table, "%s", rate(r.ops_per_group).text);
        kithi_table_cell(&table, "%s", duration(r.flush_p50_us).text);
        kithi_table_cell(&table, "%s", duration(r.flush_p99_us).text);
        kithi_table_cell(&table, "%s", duration(c->now.sync_us_max > 0 ? c->now.sync_us_max : NAN).text);
        kithi_table_cell(&table, "%s", number(c->now.waiting).text);
    }
    end(&table, f);
}

static void draw_reading(FILE *f, const struct kithi_top_frame *frame)
{
    static const char *const NAMES[] = { "READING", "READERS", "SEARCHES/s", "p50",
                                         "p99",     "p99.9",   "ROWS EACH",  "LAG" };
    struct kithi_table table;
    heading(&table, "lrrrrrrr", NAMES);
    for (uint32_t i = 0; i < frame->count; i++) {
        const struct kithi_top_collection *c = &frame->collections[i];
        struct kithi_top_rates r;
        if (!c->now.daemon)
            continue;
        const struct cell alive = number(c->now.alive);
        kithi_top_rates(c, &r);
        kithi_table_cell(&table, "%s", c->name);
        kithi_table_cell(&table, "%s", or_dash(c->now.counted, &alive));
        kithi_table_cell(&table, "%s", rate(r.searches).text);
        kithi_table_cell(&table, "%s", duration(r.p50_us).text);
        kithi_table_cell(&table, "%s", duration(r.p99_us).text);
        kithi_table_cell(&table, "%s", duration(r.p999_us).text);
        kithi_table_cell(&table, "%s", rate(r.expansions).text);
        kithi_table_cell(&table, "%s", rate(r.lag).text);
    }
    end(&table, f);
}

static void draw_upkeep(FILE *f, const struct kithi_top_frame *frame)
{
    static const char *const NAMES[] = { "UPKEEP", "SWEEPS/s",   "REPAIRED/s", "BACKLOG",    "OLDEST",
                                         "REPAIR", "CHECKPOINT", "AGE",        "CHECKPOINT", "LOG SINCE" };
    struct kithi_table table;
    heading(&table, "lrrrrlrrlr", NAMES);
    for (uint32_t i = 0; i < frame->count; i++) {
        const struct kithi_top_collection *c = &frame->collections[i];
        const struct kithi_top_look *l = &c->now;
        struct kithi_top_rates r;
        if (!l->daemon)
            continue;
        const struct cell old = age((double)frame->time_ms / 1e3 - l->checkpoint_time),
                          epoch = number(l->checkpoint_epoch);
        bool known = l->checkpoint_epoch > 0;
        kithi_top_rates(c, &r);
        kithi_table_cell(&table, "%s", c->name);
        const struct cell backlog = number(l->repair_waiting + l->repair_running),
                          oldest = duration(l->repair_oldest_ms * 1e3);
        kithi_table_cell(&table, "%s", rate(r.sweeps).text);
        kithi_table_cell(&table, "%s", rate(r.repaired).text);
        kithi_table_cell(&table, "%s", backlog.text);
        kithi_table_cell(&table, "%s", or_dash(l->repair_waiting + l->repair_running > 0, &oldest));
        kithi_table_cell(&table, "%s",
                         l->sweeping             ? "sweeping"
                         : l->dead || l->resting ? "waiting"
                                                 : "nothing to do");
        kithi_table_cell(&table, "%s", or_dash(known, &epoch));
        kithi_table_cell(&table, "%s", or_dash(known && l->checkpoint_time > 0, &old));
        kithi_table_cell(&table, "%s", l->checkpoint_running ? "running" : known ? "there" : "none yet");
        kithi_table_cell(&table, "%s", size(l->checkpoint_log_bytes).text);
    }
    end(&table, f);
}

/* ---- readers ---- */

struct one {
    const struct kithi_top_collection *c;
    const struct kithi_top_reader *r;
    struct kithi_top_reader_rates rates;
};

/* The busiest first; without rates yet, by all that they have counted. */
static int by_rate(const void *x, const void *y)
{
    const struct one *a = x, *b = y;
    double ra = isnan(a->rates.searches) ? 0 : a->rates.searches,
           rb = isnan(b->rates.searches) ? 0 : b->rates.searches;
    if (ra == rb)
        return (a->r->searches < b->r->searches) - (a->r->searches > b->r->searches);
    return (ra < rb) - (ra > rb);
}

static void draw_readers(FILE *f, const struct kithi_top_frame *frame)
{
    static const char *const NAMES[] = { "READER", "COLLECTION", "SEARCHES/s", "p50",
                                         "p99",    "ROWS EACH",  "LAG",        "LAG MAX" };
    size_t n = 0, all = 0;
    for (uint32_t i = 0; i < frame->count; i++)
        all += frame->collections[i].now.reader_count;
    struct one *list = all ? calloc(all, sizeof *list) : NULL;
    if (!list)
        return;
    for (uint32_t i = 0; i < frame->count; i++) {
        const struct kithi_top_collection *c = &frame->collections[i];
        for (uint32_t k = 0; k < c->now.reader_count; k++) {
            list[n] = (struct one){ .c = c, .r = &c->now.readers[k] };
            kithi_top_reader_rates(c, list[n].r, &list[n].rates);
            n++;
        }
    }
    qsort(list, n, sizeof *list, by_rate);
    struct kithi_table table;
    heading(&table, "llrrrrrr", NAMES);
    for (size_t i = 0; i < n && i < READERS_SHOWN; i++) {
        const struct one *o = &list[i];
        kithi_table_cell(&table, "%.0f %s (user %.0f)", o->r->pid, o->r->program, o->r->uid);
        kithi_table_cell(&table, "%s", o->c->name);
        kithi_table_cell(&table, "%s", rate(o->rates.searches).text);
        kithi_table_cell(&table, "%s", duration(o->r->p50_ns > 0 ? o->r->p50_ns / 1e3 : NAN).text);
        kithi_table_cell(&table, "%s", duration(o->r->p99_ns > 0 ? o->r->p99_ns / 1e3 : NAN).text);
        kithi_table_cell(&table, "%s", rate(o->rates.expansions).text);
        kithi_table_cell(&table, "%s", rate(o->rates.lag).text);
        kithi_table_cell(&table, "%s", number(o->r->lag_max).text);
    }
    end(&table, f);
    free(list);
}

/* ---- the whole ---- */

/* A look in which kithd answered; NULL: it did in none. */
static const struct kithi_top_look *answered(const struct kithi_top_frame *frame)
{
    for (uint32_t i = 0; i < frame->count; i++)
        if (frame->collections[i].now.daemon)
            return &frame->collections[i].now;
    return NULL;
}

static void draw_head(FILE *f, const struct kithi_top_frame *frame)
{
    const struct kithi_top_look *l = answered(frame);
    time_t s = (time_t)(frame->time_ms / 1000);
    struct tm tm;
    char clock[16] = "";
    if (localtime_r(&s, &tm))
        strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    fprintf(f, "kith top  %s  ", clock);
    kithi_out_plain(f, frame->run_dir);
    if (l) {
        fputs("  kithd ", f);
        kithi_out_plain(f, l->version);
        fprintf(f, ", up %s, %.0f workers, ", age(l->up_ms / 1e3).text, l->workers);
        kithi_out_plain(f, l->io);
        fprintf(f, "  every %g s", frame->interval);
    }
    fputc('\n', f);
    if (frame->note) {
        kithi_out_plain(f, frame->note);
        fputc('\n', f);
    } else if (!l && frame->count) {
        bool starting = false;
        for (uint32_t i = 0; i < frame->count; i++)
            starting |= frame->collections[i].now.starting;
        fprintf(f, "kithd %s: this is what the segments themselves say\n",
                starting ? "is starting" : "does not answer");
    }
    fputc('\n', f);
}

void kithi_top_draw(FILE *f, const struct kithi_top_frame *frame)
{
    bool daemon = answered(frame) != NULL, counted = false;
    draw_head(f, frame);
    if (frame->count == 0) {
        fputs("no collections\n", f);
        return;
    }
    draw_contents(f, frame);
    if (!daemon)
        return;
    draw_writing(f, frame);
    draw_reading(f, frame);
    draw_upkeep(f, frame);
    for (uint32_t i = 0; i < frame->count; i++)
        counted |= frame->collections[i].now.counted;
    if (counted)
        draw_readers(f, frame);
    else
        fputs(
            "readers are not counted: kithd was told not to (--counters no), or could not make the directory\n",
            f);
}

/* ---- JSON ---- */

static void put(FILE *f, const char *key, double v, bool known)
{
    if (!known || isnan(v))
        fprintf(f, "\"%s\":null", key);
    else if (v == floor(v) && fabs(v) < 1e15)
        fprintf(f, "\"%s\":%.0f", key, v);
    else
        fprintf(f, "\"%s\":%.3f", key, v);
}

struct member {
    const char *key;
    double value;
    bool known;
};

static void put_all(FILE *f, const struct member *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i)
            fputc(',', f);
        put(f, m[i].key, m[i].value, m[i].known);
    }
}

static void json_readers(FILE *f, const struct kithi_top_collection *c, const struct kithi_top_rates *r)
{
    const struct kithi_top_look *l = &c->now;
    if (!l->counted) {
        fputs(",\"readers\":null", f);
        return;
    }
    const struct member members[] = {
        { "alive", l->alive, true },
        { "gone", l->gone, true },
        { "searches", l->searches, true },
        { "failures", l->failures, true },
        { "searches_per_s", r->searches, true },
        { "failures_per_s", r->failures, true },
        { "restarts_per_s", r->restarts, true },
        { "p50_us", r->p50_us, true },
        { "p99_us", r->p99_us, true },
        { "p999_us", r->p999_us, true },
        { "expansions_per_search", r->expansions, true },
        { "lag_per_search", r->lag, true },
        { "lag_max", l->lag_max, true },
    };
    fputs(",\"readers\":{", f);
    put_all(f, members, sizeof members / sizeof *members);
    fputs(",\"list\":[", f);
    for (uint32_t i = 0; i < l->reader_count; i++) {
        const struct kithi_top_reader *o = &l->readers[i];
        struct kithi_top_reader_rates rates;
        kithi_top_reader_rates(c, o, &rates);
        const struct member of_one[] = {
            { "slot", o->slot, true },
            { "uid", o->uid, true },
            { "pid", o->pid, true },
            { "opened", o->opened, true },
            { "epoch", o->epoch, true },
            { "searches", o->searches, true },
            { "failures", o->failures, true },
            { "searches_per_s", rates.searches, true },
            { "p50_us", o->p50_ns / 1e3, o->p50_ns > 0 },
            { "p99_us", o->p99_ns / 1e3, o->p99_ns > 0 },
            { "expansions_per_search", rates.expansions, true },
            { "lag_per_search", rates.lag, true },
            { "lag_max", o->lag_max, true },
        };
        fputs(i ? ",{\"program\":" : "{\"program\":", f);
        kithi_out_quote(f, o->program);
        fputc(',', f);
        put_all(f, of_one, sizeof of_one / sizeof *of_one);
        fputc('}', f);
    }
    fputs("]}", f);
}

static void json_collection(FILE *f, const struct kithi_top_collection *c)
{
    const struct kithi_top_look *l = &c->now;
    struct kithi_top_rates r;
    kithi_top_rates(c, &r);
    const struct member header[] = {
        { "epoch", (double)l->epoch, l->attached },
        { "live", (double)l->live, l->attached },
        { "dead", (double)l->dead, l->attached },
        { "resting", (double)l->resting, l->attached },
        { "free", (double)l->free, l->attached },
        { "bytes_taken", (double)l->bytes, l->attached },
        { "generation", (double)l->generation, l->attached },
        { "sweeps", (double)l->sweeps, l->attached },
        { "seconds", r.seconds, true },
        { "durable_epoch", l->durable_epoch, l->daemon },
        { "waiting", l->waiting, l->daemon },
        { "groups", l->groups, l->daemon },
        { "ops", l->ops, l->daemon },
        { "groups_per_s", r.groups, true },
        { "ops_per_s", r.ops, true },
        { "op_bytes_per_s", r.bytes, true },
        { "refused_per_s", r.refused, true },
        { "ops_per_group", r.ops_per_group, true },
        { "flush_p50_us", r.flush_p50_us, true },
        { "flush_p99_us", r.flush_p99_us, true },
        { "flush_max_us", l->sync_us_max, l->daemon },
        { "sweeps_per_s", r.sweeps, true },
        { "repaired_per_s", r.repaired, true },
        { "repair_waiting", l->repair_waiting, l->daemon },
        { "repair_running", l->repair_running, l->daemon },
        { "repair_oldest_ms", l->repair_oldest_ms, l->daemon },
        { "checkpoint_epoch", l->checkpoint_epoch, l->daemon },
        { "checkpoint_time", l->checkpoint_time, l->daemon },
        { "checkpoints", l->checkpoints, l->daemon },
        { "checkpoint_failures", l->checkpoint_failures, l->daemon },
        { "checkpoint_log_bytes", l->checkpoint_log_bytes, l->daemon },
    };
    fputs("{\"name\":", f);
    kithi_out_quote(f, c->name);
    fprintf(f, ",\"daemon\":%s,\"problem\":", l->daemon ? "true" : "false");
    if (c->problem[0])
        kithi_out_quote(f, c->problem);
    else
        fputs("null", f);
    fputc(',', f);
    put_all(f, header, sizeof header / sizeof *header);
    fprintf(f, ",\"checkpoint_running\":%s,\"sweeping\":%s",
            !l->daemon              ? "null"
            : l->checkpoint_running ? "true"
                                    : "false",
            !l->daemon    ? "null"
            : l->sweeping ? "true"
                          : "false");
    json_readers(f, c, &r);
    fputc('}', f);
}

void kithi_top_json(FILE *f, const struct kithi_top_frame *frame)
{
    fprintf(f, "{\"time_ms\":%" PRId64 ",\"daemon\":%s,\"collections\":[", frame->time_ms,
            answered(frame) ? "true" : "false");
    for (uint32_t i = 0; i < frame->count; i++) {
        if (i)
            fputc(',', f);
        json_collection(f, &frame->collections[i]);
    }
    fputs("]}\n", f);
}
