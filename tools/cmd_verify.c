/*
 * cmd_verify.c - verify: every structural rule of FORMAT.md, on a live segment; with --reach, whether the graph leads to
 * every vector.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/id.h"
#include "shm/graph/reach.h"
#include "shm/graph/verify.h"
#include "shm/layout/record.h"
#include "tools/args.h"
#include "tools/out.h"

#define SHOWN_MAX 20u /* violations that are printed; the first tell, the rest is counted */
#define MOVED_MAX 8u  /* generations that may replace the segment while it is read */

struct violation {
    char rule[32];
    char text[256];
};

struct violations {
    struct violation first[SHOWN_MAX];
    size_t count; /* of first */
};

static void note(void *arg, const char *rule, const char *text)
{
    struct violations *v = arg;
    if (v->count == SHOWN_MAX)
        return;
    snprintf(v->first[v->count].rule, sizeof v->first[0].rule, "%s", rule);
    snprintf(v->first[v->count].text, sizeof v->first[0].text, "%s", text);
    v->count++;
}

static void print_json(const char *name, const struct kithi_verify_report *r, const struct violations *v)
{
    fputs("{\"name\":", stdout);
    kithi_out_quote(stdout, name);
    printf(",\"clean\":%s,\"epoch\":%" PRIu64 ",\"live\":%" PRIu64 ",\"links\":%" PRIu64
           ",\"unreachable\":%" PRIu64 ",\"violations\":%" PRIu64 ",\"first\":[",
           r->violation_count == 0 ? "true" : "false", r->epoch, r->live_count, r->link_count,
           r->unreachable_count, r->violation_count);
    for (size_t i = 0; i < v->count; i++) {
        fputs(i > 0 ? ",{\"rule\":" : "{\"rule\":", stdout);
        kithi_out_quote(stdout, v->first[i].rule);
        fputs(",\"text\":", stdout);
        kithi_out_quote(stdout, v->first[i].text);
        putchar('}');
    }
    puts("]}");
}

static void print_text(const char *name, const struct kithi_verify_report *r, const struct violations *v)
{
    char live[KITHI_OUT_TEXT_SIZE], links[KITHI_OUT_TEXT_SIZE];
    for (size_t i = 0; i < v->count; i++)
        printf("%s: %s\n", v->first[i].rule, v->first[i].text);
    if (r->violation_count > v->count)
        printf("... and %" PRIu64 " more\n", r->violation_count - v->count);
    printf("%s: %s, epoch %" PRIu64 ", %s vectors, %s links\n", name,
           r->violation_count == 0 ? "every rule holds" : "RULES ARE BROKEN", r->epoch,
           kithi_out_count(live, r->live_count), kithi_out_count(links, r->link_count));
    if (r->unreachable_count > 0)
        printf("%" PRIu64
               " vectors are reached by no walk from the entry point; exact search and get find them\n",
               r->unreachable_count);
}

/* ---- --reach ---- */

struct missed {
    uint32_t slot;
    bool above;
    size_t len; /* of the id; 0: it could not be read */
    char id[KITHI_ID_MAX + 1];
};

struct all_missed {
    struct missed first[SHOWN_MAX];
    size_t count; /* of first */
};

static void note_missed(void *arg, const struct kithi_view *v, uint32_t slot, bool above)
{
    struct all_missed *all = arg;
    if (all->count == SHOWN_MAX)
        return;
    struct missed *m = &all->first[all->count++];
    const struct kithi_record *r = kithi_view_record(v, slot);
    uint64_t birth = kithi_birth_begin(r);
    m->slot = slot;
    m->above = above;
    m->len = kithi_view_id(v, slot, m->id);
    if (!kithi_birth_same(r, birth) || !kithi_id_valid(m->id, m->len))
        m->len = 0;
    m->id[m->len] = 0;
}

static void print_reach_json(const char *name, const struct kithi_reach_report *r,
                             const struct all_missed *all)
{
    fputs("{\"name\":", stdout);
    kithi_out_quote(stdout, name);
    printf(",\"clean\":%s,\"epoch\":%" PRIu64 ",\"live\":%" PRIu64 ",\"unreachable\":%" PRIu64
           ",\"from_above\":%" PRIu64 ",\"first\":[",
           r->unreachable_count == 0 ? "true" : "false", r->epoch, r->live_count, r->unreachable_count,
           r->above_count);
    for (size_t i = 0; i < all->count; i++) {
        const struct missed *m = &all->first[i];
        printf("%s{\"slot\":%u,\"id\":", i > 0 ? "," : "", m->slot);
        kithi_out_quote(stdout, m->id);
        printf(",\"from_above\":%s}", m->above ? "true" : "false");
    }
    puts("]}");
}

static void print_reach_text(const char *name, const struct kithi_reach_report *r,
                             const struct all_missed *all)
{
    char live[KITHI_OUT_TEXT_SIZE], reached[KITHI_OUT_TEXT_SIZE];
    for (size_t i = 0; i < all->count; i++) {
        const struct missed *m = &all->first[i];
        printf("unreachable: slot %u, id ", m->slot);
        kithi_out_quote(stdout, m->id);
        puts(m->above ? "; upper levels lead to it" : "");
    }
    if (r->unreachable_count > all->count)
        printf("... and %" PRIu64 " more\n", r->unreachable_count - all->count);
    printf("%s: epoch %" PRIu64 ", %s vectors, %s of them reached from the entry point\n", name, r->epoch,
           kithi_out_count(live, r->live_count),
           kithi_out_count(reached, r->live_count - r->unreachable_count));
}

static int verify_reach(struct kithi_tool *t, const char *name)
{
    struct kithi_reach_report report;
    struct all_missed *all = calloc(1, sizeof *all);
    int status = KITHI_TOOL_OK, rc = KITHI_E_MOVED;
    if (all == NULL)
        return kithi_tool_fail(t, "out of memory");
    for (unsigned i = 0; rc == KITHI_E_MOVED && i < MOVED_MAX; i++) {
        struct kithi_map map = { 0 };
        status = kithi_tool_attach(t, name, &map);
        if (status != KITHI_TOOL_OK)
            goto out;
        memset(&report, 0, sizeof report);
        all->count = 0;
        rc = kithi_reach_prove(&map, KITHI_VERIFY_PATIENCE_MS, NULL, note_missed, all, &report);
        kithi_map_detach(&map);
    }
    if (rc != 0) {
        status = kithi_tool_fail_with(t, name, rc, "");
        goto out;
    }
    if (t->json)
        print_reach_json(name, &report, all);
    else
        print_reach_text(name, &report, all);
    if (report.unreachable_count > 0)
        status = kithi_tool_fail(
            t,
            "\"%s\": no walk from the entry point reaches %" PRIu64
            " vectors; exact search and get find them, and kithd links them anew when it is idle",
            name, report.unreachable_count);
out:
    free(all);
    return status;
}

int kithi_cmd_verify(struct kithi_tool *t, int argc, char **argv)
{
    int count = 0;
    bool reach = false;
    const struct kithi_arg args[] = {
        { "--reach", KITHI_ARG_FLAG, &reach, 0, 0 },
    };
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof args[0], &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if (reach)
        return verify_reach(t, argv[1]);

    struct violations *v = calloc(1, sizeof *v);
    if (v == NULL)
        return kithi_tool_fail(t, "out of memory");
    struct kithi_verify_report report;
    int rc = KITHI_E_MOVED;
    for (unsigned i = 0; rc == KITHI_E_MOVED && i < MOVED_MAX; i++) {
        struct kithi_map map = { 0 };
        status = kithi_tool_attach(t, argv[1], &map);
        if (status != KITHI_TOOL_OK)
            goto out;
        memset(&report, 0, sizeof report);
        v->count = 0;
        rc = kithi_verify(&map, note, v, &report);
        kithi_map_detach(&map);
    }
    if (rc != 0) {
        status = kithi_tool_fail_with(t, argv[1], rc, "");
        goto out;
    }
    if (t->json)
        print_json(argv[1], &report, v);
    else
        print_text(argv[1], &report, v);
    if (report.violation_count > 0)
        status = kithi_tool_fail(
            t, "\"%s\": %" PRIu64 " violations; restart kithd without the segment to rebuild it from the log",
            argv[1], report.violation_count);
out:
    free(v);
    return status;
}
