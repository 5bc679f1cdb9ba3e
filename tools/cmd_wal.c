/*
 * cmd_wal.c - wal: files, groups, records and checksums of a collection's log, and whether it is whole.
 *
 * Reads the data directory and changes nothing there. kithd may be writing meanwhile, which makes an end that
 * moves: groups are being written as they are read, and files come and go. What a moving end looks like
 * damage is read once more, and is damage when it is still there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/src/json.h"
#include "server/wal/files.h"
#include "server/wal/salvage.h"
#include "shm/base/id.h"
#include "tools/args.h"
#include "tools/log_place.h"
#include "tools/log_salvage.h"
#include "tools/out.h"

#define TRY_MAX  4                        /* readings of one place while the log is in use */
#define TRY_MS   20                       /* between them; a group is on its way for less */
#define STOPPED  1                        /* of the scan's callback: ops that cannot be read */
#define ID_BYTES (6u * KITHI_ID_MAX + 2u) /* as JSON, at most */

struct view {
    const struct kithi_tool *t;
    const struct kithi_log_place *place;
    bool show_groups, show_records;
    uint64_t from, to;

    bool heading;         /* of the groups was printed */
    uint64_t seen;        /* epoch of the last group that was read */
    uint64_t first, last; /* of the groups that are counted; 0: none */
    uint64_t groups, ops, bytes;

    bool in_use, moving; /* moving: the end was on its way while it was read */
    struct kithi_wal_report report;
    struct kithi_wal_damage damage;
    bool damaged;
};

static void nap(void)
{
    const struct timespec pause = { .tv_nsec = TRY_MS * 1000000L };
    nanosleep(&pause, NULL);
}

/* ---- files ------------------------------------------------------------------------------- */

static const char *verdict_name(enum kithi_wal_verdict v)
{
    switch (v) {
    case KITHI_WAL_OK: return "good";
    case KITHI_WAL_EMPTY: return "zeros";
    case KITHI_WAL_NEWER: return "later version";
    case KITHI_WAL_FOREIGN: return "another collection";
    default: return "bad";
    }
}

static void print_file_json(const struct kithi_wal_file *file, const struct kithi_wal_look *look)
{
    bool known = look->verdict == KITHI_WAL_OK || look->verdict == KITHI_WAL_FOREIGN;
    struct kithi_object o;
    kithi_object_begin(&o, true);
    kithi_object_text(&o, "kind", NULL, "file");
    kithi_object_text(&o, "file", NULL, file->name);
    if (known)
        kithi_object_count(&o, "number", NULL, look->header.number);
    else
        kithi_object_json(&o, "number", NULL);
    kithi_object_count(&o, "first_epoch", NULL, file->first_epoch);
    kithi_object_count(&o, "size", NULL, look->size);
    kithi_object_text(&o, "header", NULL, verdict_name(look->verdict));
    if (known)
        kithi_object_count(&o, "timeline", NULL, look->header.timeline);
    else
        kithi_object_json(&o, "timeline", NULL);
    kithi_object_end(&o);
}

static void print_file(struct kithi_table *table, const struct kithi_wal_file *file,
                       const struct kithi_wal_look *look)
{
    bool known = look->verdict == KITHI_WAL_OK || look->verdict == KITHI_WAL_FOREIGN;
    char text[KITHI_OUT_TEXT_SIZE], number[24] = "-", timeline[24] = "-";
    if (known) {
        snprintf(number, sizeof number, "%" PRIu64, look->header.number);
        snprintf(timeline, sizeof timeline, "%016" PRIx64, look->header.timeline);
    }
    kithi_table_cell(table, "%s", file->name);
    kithi_table_cell(table, "%s", number);
    kithi_table_cell(table, "%" PRIu64, file->first_epoch);
    kithi_table_cell(table, "%s", kithi_out_bytes(text, look->size));
    kithi_table_cell(table, "%s", verdict_name(look->verdict));
    kithi_table_cell(table, "%s", timeline);
}

/* A line for each. Files that are gone again, because kithd is at work, are passed over. */
static int print_files(const struct view *v)
{
    static const char *const HEADING[] = { "FILE", "NUMBER", "FIRST EPOCH", "SIZE", "HEADER", "TIMELINE" };
    struct kithi_wal_file *files = NULL;
    struct kithi_errmsg err = { 0 };
    struct kithi_table table;
    int status = KITHI_TOOL_OK;
    int64_t n = kithi_wal_files_list(v->place->wal, &files, &err);
    if (n < 0)
        return kithi_tool_fail(v->t, "%s%s", err.text,
                               n == -EACCES ? "; run this as the user that kithd runs as" : "");
    kithi_table_begin(&table, "lrrrll");
    for (size_t i = 0; n > 0 && !v->t->json && i < sizeof HEADING / sizeof *HEADING; i++)
        kithi_table_cell(&table, "%s", HEADING[i]);
    for (int64_t i = 0; i < n && status == KITHI_TOOL_OK; i++) {
        struct kithi_wal_look look;
        int r = kithi_wal_look(v->place->wal, files[i].name, v->place->settings.uid, &look, &err);
        if (r == -ENOENT)
            continue;
        if (r < 0)
            status = kithi_tool_fail(v->t, "%s%s", err.text,
                                     r == -EACCES ? "; run this as the user that kithd runs as" : "");
        else if (v->t->json)
            print_file_json(&files[i], &look);
        else
            print_file(&table, &files[i], &look);
    }
    kithi_table_end(&table);
    free(files);
    return status;
}

/* ---- groups and records ------------------------------------------------------------------ */

/* What was logged was checked by kithd; these bytes may have come from anywhere. */
static void print_id(const char *id, size_t len, bool json)
{
    char text[ID_BYTES];
    if (!json && kithi_id_valid(id, len)) {
        memcpy(text, id, len);
        text[len] = '\0';
        kithi_out_plain(stdout, text);
        return;
    }
    size_t n = kithi_json_write_string(text, sizeof text, id, len);
    fwrite(text, 1, n < sizeof text ? n : sizeof text, stdout);
}

struct record {
    const struct view *v;
    uint64_t epoch;
};

/* Does it say what a payload is to be, be it none? */
static bool has_payload(const struct kithi_op *op)
{
    return op->type == KITHI_OP_SET || op->flags & KITHI_OP_PAYLOAD;
}

static void print_record(void *arg, const struct kithi_op *op)
{
    const struct record *r = arg;
    const bool known = kithi_op_is_known(op->type);
    char type[24];
    if (known)
        snprintf(type, sizeof type, "%s", kithi_op_name(op->type));
    else
        snprintf(type, sizeof type, "skipped-%u", op->type);
    if (!r->v->t->json) {
        printf("    %s", type);
        if (known) {
            putchar(' ');
            print_id(op->id, op->id_len, false);
        }
        if (op->type == KITHI_OP_UPSERT)
            printf(" dim %u", op->dim);
        if (known && has_payload(op))
            printf(" payload %u", op->payload_len);
        putchar('\n');
        return;
    }
    printf("{\"kind\":\"record\",\"epoch\":%" PRIu64 ",\"type\":\"%s\",\"id\":", r->epoch, type);
    if (known)
        print_id(op->id, op->id_len, true);
    else
        fputs("null", stdout);
    printf(",\"dim\":%u", known ? op->dim : 0);
    if (known && has_payload(op))
        printf(",\"payload\":%u", op->payload_len);
    puts("}");
}

/* Not a table: a log may have millions of groups, and a table keeps all its cells. */
static void print_group(struct view *v, const struct kithi_wal_group *g)
{
    if (v->t->json) {
        printf("{\"kind\":\"group\",\"epoch\":%" PRIu64 ",\"file\":\"%s\",\"offset\":%" PRIu64
               ",\"bytes\":%zu,\"n_ops\":%u,\"durable_epoch\":%" PRIu64 ",\"timeline\":%" PRIu64
               ",\"checksum\":\"%08x\"}\n",
               g->epoch, g->file, g->off, g->len, g->n_ops, g->durable_epoch, g->timeline, g->crc);
        return;
    }
    if (!v->heading)
        printf("\n%10s  %-24s  %9s  %9s  %7s  %10s  %-16s  %s\n", "EPOCH", "FILE", "OFFSET", "BYTES",
               "CHANGES", "DURABLE", "TIMELINE", "CHECKSUM");
    v->heading = true;
    printf("%10" PRIu64 "  %-24s  %9" PRIu64 "  %9zu  %7u  %10" PRIu64 "  %016" PRIx64 "  %08x\n", g->epoch,
           g->file, g->off, g->len, g->n_ops, g->durable_epoch, g->timeline, g->crc);
}

static int on_group(void *arg, const struct kithi_wal_group *g)
{
    struct view *v = arg;
    struct record r = { .v = v, .epoch = g->epoch };
    size_t at = 0;
    if (!kithi_log_ops(g, NULL, NULL, &at)) {
        v->damage = (struct kithi_wal_damage){ .off = g->off, .expected = g->epoch };
        snprintf(v->damage.file, sizeof v->damage.file, "%s", g->file);
        snprintf(v->damage.what, sizeof v->damage.what,
                 "group %" PRIu64
                 " checks, but %zu bytes into its changes there is none that this version can "
                 "read",
                 g->epoch, at);
        return STOPPED;
    }
    v->seen = g->epoch;
    if (g->epoch < v->from || g->epoch > v->to)
        return 0;
    v->first = v->groups ? v->first : g->epoch;
    v->last = g->epoch;
    v->groups++;
    v->ops += g->n_ops;
    v->bytes += g->len;
    if (v->show_groups)
        print_group(v, g);
    if (v->show_records)
        kithi_log_ops(g, print_record, &r, &at);
    return ferror(stdout) ? -EIO : 0; /* a pipe that was closed: kithi_tool_end() says so */
}

/* ---- the whole --------------------------------------------------------------------------- */

/* The epoch before the log's first one: what comes before is in a checkpoint, or was never needed. */
static uint64_t before_first(const char *wal)
{
    struct kithi_wal_file *files = NULL;
    int64_t n = kithi_wal_files_list(wal, &files, NULL);
    uint64_t first = n > 0 ? files[0].first_epoch : 0;
    free(files);
    return first > 0 ? first - 1 : 0;
}

static int scan_once(struct view *v, struct kithi_errmsg *err)
{
    struct kithi_wal_scan_opts o = { .dir = v->place->wal, .fn = on_group, .arg = v, .damage = &v->damage };
    uint64_t base = before_first(v->place->wal);
    memcpy(o.uid, v->place->settings.uid, sizeof o.uid);
    o.after_epoch = v->seen > base ? v->seen : base;
    memset(&v->report, 0, sizeof v->report);
    return kithi_wal_scan(&o, &v->report, err);
}

/*
 * Read the log. While it is written, a group may be half there when its place is read, and its successors
 * before the rest is: that looks as if the successors proved the group lost. But by then the group is there as
 * a whole, so that reading on from it tells: with progress the end was moving, without it is damage.
 */
static int scan(struct view *v, struct kithi_errmsg *err)
{
    int r = scan_once(v, err);
    for (int i = 1; r < 0 && i < TRY_MAX && !ferror(stdout) && kithi_wal_in_use(v->place->wal); i++) {
        const bool claimed = r == KITHI_E_LOG_DAMAGED;
        const uint64_t seen = v->seen;
        v->in_use = true;
        nap();
        r = scan_once(v, err);
        if (claimed && r == KITHI_E_LOG_DAMAGED && v->seen > seen) {
            v->moving = true;
            memset(&v->report, 0, sizeof v->report);
            return 0;
        }
    }
    return r;
}

/* A tail that nobody is about to complete. */
static bool is_torn(const struct view *v)
{
    return !v->damaged && !v->in_use && v->report.torn_file[0] != '\0';
}

/* {"file":...,<key a>:a,<key b>:b,"reason":...}; to be freed. */
static char *place_json(const char *file, const char *key_a, uint64_t a, const char *key_b, uint64_t b,
                        const char *reason)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (f == NULL)
        return NULL;
    fputs("{\"file\":", f);
    if (*file != '\0')
        kithi_out_quote(f, file);
    else
        fputs("null", f);
    fprintf(f, ",\"%s\":%" PRIu64 ",\"%s\":%" PRIu64 ",\"reason\":", key_a, a, key_b, b);
    kithi_out_quote(f, reason);
    fputc('}', f);
    fclose(f);
    return text;
}

static void print_json(const struct view *v)
{
    const struct kithi_wal_report *r = &v->report;
    const struct kithi_wal_damage *d = &v->damage;
    char *tail =
        is_torn(v) ? place_json(r->torn_file, "from", r->torn_off, "to", r->torn_end, r->torn_reason) : NULL;
    char *damage =
        v->damaged ? place_json(d->file, "byte", d->off, "expected_epoch", d->expected, d->what) : NULL;
    char *spoilt =
        !v->damaged && r->spoilt_file[0] != '\0'
            ? place_json(r->spoilt_file, "from", r->spoilt_off, "to", r->spoilt_end, r->spoilt_reason)
            : NULL;
    const char *ignored = !v->damaged && r->ignored_file[0] != '\0' ? r->ignored_file : NULL;
    struct kithi_object o;
    kithi_object_begin(&o, true);
    kithi_object_text(&o, "kind", NULL, "log");
    kithi_object_text(&o, "name", NULL, v->place->name);
    kithi_object_text(&o, "dir", NULL, v->place->wal);
    kithi_object_text(&o, "state", NULL, v->damaged ? "damaged" : is_torn(v) ? "torn" : "whole");
    kithi_object_bool(&o, "in_use", NULL, v->in_use);
    kithi_object_count(&o, "groups", NULL, v->groups);
    kithi_object_count(&o, "changes", NULL, v->ops);
    kithi_object_count(&o, "bytes", NULL, v->bytes);
    kithi_object_count(&o, "first_epoch", NULL, v->first);
    kithi_object_count(&o, "last_epoch", NULL, v->last);
    kithi_object_json(&o, "torn", tail);
    kithi_object_text(&o, "ignored", NULL, ignored);
    kithi_object_json(&o, "damage", damage);
    kithi_object_json(&o, "spoilt", spoilt);
    kithi_object_end(&o);
    free(tail);
    free(damage);
    free(spoilt);
}

static void print_text(const struct view *v)
{
    const struct kithi_wal_report *r = &v->report;
    char text[512];
    struct kithi_object o;
    if (v->show_groups || v->show_records || v->report.files > 0 || v->damaged)
        putchar('\n');
    kithi_object_begin(&o, false);
    kithi_object_count(&o, "", "groups", v->groups);
    kithi_object_count(&o, "", "changes", v->ops);
    kithi_object_bytes(&o, "", "bytes of changes", v->bytes);
    if (v->groups > 0)
        snprintf(text, sizeof text, "%" PRIu64 " to %" PRIu64, v->first, v->last);
    else
        snprintf(text, sizeof text, "none");
    kithi_object_text(&o, "", "epochs", text);
    if (v->damaged) {
        snprintf(text, sizeof text, "DAMAGED%s%s", v->damage.file[0] != '\0' ? " in " : "", v->damage.file);
        if (v->damage.file[0] != '\0')
            snprintf(text + strlen(text), sizeof text - strlen(text), " at byte %" PRIu64, v->damage.off);
        snprintf(text + strlen(text), sizeof text - strlen(text), ": %s", v->damage.what);
        kithi_object_text(&o, "", "log", text);
        if (v->damage.expected != 0)
            kithi_object_count(&o, "", "epoch expected there", v->damage.expected);
    } else if (is_torn(v)) {
        snprintf(text, sizeof text, "whole up to a torn tail: %s, bytes %" PRIu64 " to %" PRIu64 " (%s)",
                 r->torn_file, r->torn_off, r->torn_end, r->torn_reason);
        kithi_object_text(&o, "", "log", text);
        kithi_object_text(
            &o, "", "",
            "a crash left it, no write of it was acknowledged as durable, and the next start cuts it off");
    } else {
        kithi_object_text(&o, "", "log", "whole");
    }
    if (v->in_use)
        kithi_object_text(&o, "", "in use",
                          v->moving || r->torn_file[0] != '\0'
                              ? "kithd is writing: the last groups are on their way and not shown"
                              : "kithd holds it open for writing");
    if (!v->damaged && r->spoilt_file[0] != '\0') {
        snprintf(text, sizeof text,
                 "%s, bytes %" PRIu64 " to %" PRIu64 " (%s): group %" PRIu64
                 ", which a start has written there anew; it is read from the file before",
                 r->spoilt_file, r->spoilt_off, r->spoilt_end, r->spoilt_reason, r->spoilt_epoch);
        kithi_object_text(&o, "", "damaged, not lost", text);
    }
    if (!v->damaged && r->ignored_file[0] != '\0') {
        snprintf(text, sizeof text, "%s was being made when kithd ended (%s); the next start removes it",
                 r->ignored_file, r->ignored_reason);
        kithi_object_text(&o, "", "ignored", text);
    }
}

/* What a start refuses though the files that are there are in order: there are none. */
static bool nothing_there(struct view *v)
{
    const struct kithi_wal_report *r = &v->report;
    if (r->files > 0 || v->moving)
        return false;
    v->damage = (struct kithi_wal_damage){ 0 };
    uint32_t n = kithi_wal_salvage_interrupted(v->place->collection);
    if (n > 0)
        snprintf(v->damage.what, sizeof v->damage.what,
                 "the directory is missing: a salvage was interrupted before " KITHI_WAL_SALVAGED
                 "%u took its place",
                 n);
    else
        snprintf(v->damage.what, sizeof v->damage.what,
                 "there is no log file, though a collection has a log before it has its name");
    return true;
}

static int show(struct view *v)
{
    const struct kithi_log_place *p = v->place;
    struct kithi_errmsg err = { 0 };
    v->in_use = kithi_wal_in_use(p->wal);
    int status = print_files(v);
    if (status != KITHI_TOOL_OK)
        return status;
    int r = scan(v, &err);
    if (ferror(stdout))
        return KITHI_TOOL_FAILED;
    v->damaged = r == STOPPED || r == KITHI_E_LOG_DAMAGED || (r == 0 && nothing_there(v));
    if (r < 0 && !v->damaged)
        return kithi_tool_fail(v->t, "%s", err.text);
    if (v->t->json)
        print_json(v);
    else
        print_text(v);
    if (!v->damaged)
        return KITHI_TOOL_OK;
    return kithi_tool_fail(v->t,
                           "the log of \"%s\" is damaged; restore %s from a back-up, or look at what is "
                           "readable: kith wal %s --data %s --salvage",
                           p->name, p->data, p->name, p->data);
}

int kithi_cmd_wal(struct kithi_tool *t, int argc, char **argv)
{
    struct kithi_log_place place;
    struct view v = { .t = t, .place = &place, .from = 0, .to = UINT64_MAX };
    const char *data = NULL;
    bool salvage = false, yes = false;
    const struct kithi_arg args[] = {
        { "--data", KITHI_ARG_STRING, &data, 0, 0 },
        { "--groups", KITHI_ARG_FLAG, &v.show_groups, 0, 0 },
        { "--records", KITHI_ARG_FLAG, &v.show_records, 0, 0 },
        { "--from", KITHI_ARG_EPOCH, &v.from, 0, 0 },
        { "--to", KITHI_ARG_EPOCH, &v.to, 0, 0 },
        { "--salvage", KITHI_ARG_FLAG, &salvage, 0, 0 },
        { "--yes", KITHI_ARG_FLAG, &yes, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if (yes && !salvage)
        return kithi_tool_usage(t, "--yes belongs to --salvage");
    if (salvage && (v.show_groups || v.show_records || v.from != 0 || v.to != UINT64_MAX))
        return kithi_tool_usage(t, "--salvage keeps all that is readable: it does not go with --groups, "
                                   "--records, --from and --to");
    if (v.from > v.to)
        return kithi_tool_usage(t, "--from %" PRIu64 " is above --to %" PRIu64, v.from, v.to);
    v.show_groups |= v.show_records;
    status = kithi_log_find(t, argv[1], data, &place);
    if (status != KITHI_TOOL_OK)
        return status;
    return salvage ? kithi_log_salvage(t, &place, yes) : show(&v);
}
