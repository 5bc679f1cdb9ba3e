/*
 * cmd_explain.c - explain: how many fulfil a filter, and how a search under it would be answered.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "shm/graph/search.h"
#include "tools/args.h"
#include "tools/out.h"

static const char *const WHYS[] = {
    [KITH_PLAN_MANY] = "so many match that a walk meets them",
    [KITH_PLAN_FEW] = "so few match that a scan is cheapest",
    [KITH_PLAN_SOME] = "a walk would meet few that match, and a scan would look at many others",
};

static void print_json(const struct kith_explanation *e, uint32_t k, uint32_t ef)
{
    struct kithi_object o;
    const struct {
        const char *name;
        double cost;
        uint32_t ef;
    } plans[] = { { "walk", e->walk_cost, e->walk_ef },
                  { "hops", e->hops_cost, e->hops_ef },
                  { "scan", e->scan_cost, 0 } };
    kithi_object_begin(&o, true);
    kithi_object_count(&o, "epoch", NULL, e->epoch);
    kithi_object_count(&o, "vectors", NULL, e->vectors);
    kithi_object_count(&o, "matches", NULL, e->matches);
    kithi_object_count(&o, "matches_low", NULL, e->low);
    kithi_object_count(&o, "matches_high", NULL, e->high);
    kithi_object_bool(&o, "exact", NULL, e->exact != 0);
    kithi_object_bool(&o, "indexed", NULL, e->indexed != 0);
    kithi_object_count(&o, "looks", NULL, e->looks);
    kithi_object_count(&o, "fields", NULL, e->fields);
    kithi_object_count(&o, "fields_unknown", NULL, e->fields_unknown);
    kithi_object_count(&o, "fields_given_up", NULL, e->fields_given_up);
    kithi_object_count(&o, "k", NULL, k);
    kithi_object_count(&o, "ef", NULL, ef);
    kithi_object_text(&o, "plan", NULL, kithi_tool_plan(e->plan));
    kithi_object_text(&o, "plan_reason", NULL, kithi_tool_plan_reason(e->plan_reason));
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        char key[16];
        snprintf(key, sizeof key, "%s_cost", plans[i].name);
        if (isinf(plans[i].cost))
            kithi_object_json(&o, key, NULL);
        else
            kithi_object_real(&o, key, NULL, plans[i].cost);
    }
    kithi_object_count(&o, "walk_ef", NULL, e->walk_ef);
    kithi_object_count(&o, "hops_ef", NULL, e->hops_ef);
    kithi_object_end(&o);
}

static void print_plan(struct kithi_table *t, const struct kith_explanation *e, uint32_t plan, uint32_t ef,
                       double cost)
{
    kithi_table_cell(t, "%s", kithi_tool_plan(plan));
    if (isinf(cost)) {
        kithi_table_cell(t, "-");
        kithi_table_cell(t, "-");
        kithi_table_cell(t, "cannot answer");
        return;
    }
    if (ef > 0)
        kithi_table_cell(t, "%u", ef);
    else
        kithi_table_cell(t, "-");
    kithi_table_cell(t, "%.0f", cost);
    kithi_table_cell(t, "%s", plan == e->plan && plan <= KITH_PLAN_HOPS ? WHYS[e->plan_reason] : "");
}

static void print_text(const struct kith_explanation *e)
{
    char text[4][KITHI_OUT_TEXT_SIZE];
    struct kithi_table t;
    if (e->exact)
        printf("%s of %s vectors match\n", kithi_out_count(text[0], e->matches),
               kithi_out_count(text[1], e->vectors));
    else
        printf("about %s of %s vectors match (%s to %s)\n", kithi_out_count(text[0], e->matches),
               kithi_out_count(text[1], e->vectors), kithi_out_count(text[2], e->low),
               kithi_out_count(text[3], e->high));
    if (e->indexed)
        printf("postings leave %s payloads that a scan looks at\n", kithi_out_count(text[0], e->looks));
    else
        printf("postings do not know the condition: a scan looks at all payloads\n");
    if (e->fields_given_up > 0)
        printf("of %u of its %u fields postings were given up, as memory was short\n", e->fields_given_up,
               e->fields);
    if (e->fields_unknown > 0)
        printf(
            "%u of its %u fields have no postings: they were not declared (--index), or no payload has them\n",
            e->fields_unknown, e->fields);
    kithi_table_begin(&t, "lrrl");
    kithi_table_cell(&t, "PLAN");
    kithi_table_cell(&t, "EF");
    kithi_table_cell(&t, "COST");
    kithi_table_cell(&t, "CHOSEN");
    print_plan(&t, e, KITH_PLAN_WALK, e->walk_ef, e->walk_cost);
    print_plan(&t, e, KITH_PLAN_HOPS, e->hops_ef, e->hops_cost);
    print_plan(&t, e, KITH_PLAN_SCAN, 0, e->scan_cost);
    kithi_table_end(&t);
}

int kithi_cmd_explain(struct kithi_tool *t, int argc, char **argv)
{
    const char *filter = NULL;
    uint32_t k = 10, ef = 0;
    struct kith_error error = { 0 };
    struct kith_explanation e = KITH_EXPLANATION_INIT;
    const struct kithi_arg args[] = {
        { "--filter", KITHI_ARG_STRING, &filter, 0, 0 },
        { "-k", KITHI_ARG_NUMBER, &k, 1, KITHI_K_MAX },
        { "--ef", KITHI_ARG_NUMBER, &ef, 1, KITHI_EF_MAX },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if (filter == NULL)
        return kithi_tool_usage(t, "give --filter: a search without one has nothing to choose");
    if (ef != 0 && ef < k)
        return kithi_tool_usage(t, "--ef %u is below -k %u: no room for k hits", ef, k);
    status = kithi_tool_filter(t, filter);
    if (status != KITHI_TOOL_OK)
        return status;
    kith *index = NULL;
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    if (ef == 0)
        ef = k > KITHI_EF_DEFAULT ? k : KITHI_EF_DEFAULT;
    int rc = kith_explain(index, filter, k, ef, &e, &error);
    if (rc != 0)
        status = kithi_tool_fail_filter(t, argv[1], rc, &error);
    else if (t->json)
        print_json(&e, k, ef);
    else
        print_text(&e);
    kith_close(index);
    return status;
}
