/*
 * cmd_doctor.c - doctor: prints what the checks of tools/doctor find, and what to do about it.
 */
#include <stdio.h>

#include "tools/args.h"
#include "tools/doctor/doctor.h"
#include "tools/out.h"

struct report {
    bool json, quiet;
    unsigned counts[KITHI_DOCTOR_STATE_COUNT], total;
};

static void print_finding(void *arg, const struct kithi_finding *f)
{
    struct report *r = arg;
    r->total++;
    r->counts[f->state]++;
    if (r->quiet && f->state == KITHI_DOCTOR_OK)
        return;
    if (r->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "check", NULL, f->check);
        kithi_object_text(&o, "state", NULL, kithi_doctor_state_name(f->state));
        kithi_object_text(&o, "text", NULL, f->text);
        kithi_object_text(&o, "fix", NULL, f->fix);
        kithi_object_end(&o);
        return;
    }
    printf("%-7s  %-15s  ", kithi_doctor_state_name(f->state), f->check);
    kithi_out_plain(stdout, f->text);
    if (f->fix != NULL) {
        printf("\n%24s%s", "", "  fix: ");
        kithi_out_plain(stdout, f->fix);
    }
    putchar('\n');
}

int kithi_cmd_doctor(struct kithi_tool *t, int argc, char **argv)
{
    struct report r = { 0 };
    struct kithi_doctor_opts opts = { 0 };
    const struct kithi_arg args[] = {
        { "--data", KITHI_ARG_STRING, &opts.data_dir, 0, 0 },
        { "--quiet", KITHI_ARG_FLAG, &r.quiet, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 0)
        return kithi_tool_usage(t, "doctor takes no arguments");
    opts.run_dir = kithi_tool_run_dir(t, &opts.run_rule);
    r.json = t->json;
    kithi_doctor_run(&opts, print_finding, &r);
    if (r.counts[KITHI_DOCTOR_BAD] > 0)
        return kithi_tool_fail(t, "%u of %u checks are bad", r.counts[KITHI_DOCTOR_BAD], r.total);
    return KITHI_TOOL_OK;
}
