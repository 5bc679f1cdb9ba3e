/*
 * daemon.c - does kithd answer, does it belong to this tool, and are its collections ready?
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kith/kith.h>

#include "tools/doctor/doctor_priv.h"
#include "tools/doctor/sysfile_priv.h"

/* The state of the process by /proc/PID/stat: 'T' when it is stopped; 0: not known. */
static char process_state(const struct kithi_doctor *d)
{
    char path[64], *text, state = '\0';
    snprintf(path, sizeof path, "%s/stat", d->proc);
    if (!d->proc_kithd || kithi_sysfile_read(d->root, path, &text) != 0)
        return '\0';
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    if (at != NULL && at[1] == ' ')
        state = at[2];
    free(text);
    return state;
}

static void judge_silence(const struct kithi_doctor *d, struct kithi_finding *f)
{
    const int pid = (int)d->asked.pid;
    char state = process_state(d);
    if (state == 'T' || state == 't') {
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "kithd (process %d) is stopped, by a signal or a debugger; readers go on", pid);
        kithi_finding_fix(f, "kill -CONT %d", pid);
        return;
    }
    kithi_finding_set(
        f, KITHI_DOCTOR_BAD,
        "kithd takes the connection and does not answer within a second: it is stopped, or stuck on its "
        "disk; readers go on");
    if (d->proc_kithd)
        kithi_finding_fix(f, "cat /proc/%d/wchan; kill -CONT %d", pid, pid);
    else
        kithi_finding_fix(f, "journalctl -u kithd -n 50");
}

void kithi_check_daemon(const struct kithi_doctor *d, struct kithi_finding *f)
{
    const struct kithi_asked *a = &d->asked;
    char user[KITHI_NAME_TEXT_SIZE], *command = kithi_kithd_command(d);
    kithi_sysfile_user(d->root, a->uid, user);
    switch (a->status) {
    case 0:
        kithi_finding_set(f, KITHI_DOCTOR_OK, "kithd answers, within %llu us, as user %s",
                          (unsigned long long)a->took_us, user);
        if (a->pid > 0)
            kithi_finding_add(f, ", process %d", (int)a->pid);
        if (a->version[0] == '\0') {
            kithi_finding_add(f, "; it speaks this tool's protocol");
        } else if (strcmp(a->version, kith_version()) == 0) {
            kithi_finding_add(f, ", and is version %s, as this tool", a->version);
        } else {
            kithi_finding_set(f, KITHI_DOCTOR_WARN,
                              "kithd is version %s and this tool is version %s; they understand each other, "
                              "but belong to two installations",
                              a->version, kith_version());
            kithi_finding_fix(f, "systemctl restart kithd");
        }
        break;
    case KITHI_E_NO_DAEMON:
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "no kithd answers at %s/kithd.sock: reads go on, writes need it", d->opts.run_dir);
        kithi_finding_fix(f, "%s", command);
        break;
    case KITHI_E_TIMEOUT: judge_silence(d, f); break;
    case KITHI_E_VERSION:
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "kithd speaks another protocol than this tool (version %s): %s", kith_version(),
                          a->text);
        kithi_finding_fix(f, "systemctl restart kithd");
        break;
    case KITHI_E_DENIED: {
        char mine[KITHI_NAME_TEXT_SIZE];
        kithi_sysfile_group(d->root, getegid(), mine);
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          "kithd does not admit this user, who may read segments and not write: %s",
                          a->text[0] != '\0' ? a->text : "the socket cannot be reached");
        kithi_finding_fix(f, "%s --read-group %s", command, mine);
        break;
    }
    default:
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "kithd at %s/kithd.sock gives no good answer: %s",
                          d->opts.run_dir, a->text[0] != '\0' ? a->text : kithi_error_text(a->status));
        kithi_finding_fix(f, "journalctl -u kithd -n 50");
    }
    free(command);
}

/* Collections of which something is to be said, by name, three at most. */
struct names {
    char text[512];
    size_t count;
};

/* With what is to be said of it; "": nothing. */
static void add_said(struct names *n, const char *name, const char *said)
{
    size_t len = strlen(n->text);
    if (n->count++ < 3)
        snprintf(n->text + len, sizeof n->text - len, "%s%s%s%s", n->count > 1 ? "; " : "", name,
                 said[0] ? ": " : "", said);
    else if (n->count == 4)
        snprintf(n->text + len, sizeof n->text - len, "; ...");
}

static void add_name(struct names *n, const char *name)
{
    size_t len = strlen(n->text);
    if (n->count++ < 3)
        snprintf(n->text + len, sizeof n->text - len, "%s%s", n->count > 1 ? ", " : "", name);
    else if (n->count == 4)
        snprintf(n->text + len, sizeof n->text - len, ", ...");
}

void kithi_check_collections(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct names broken = { .text = "" }, shut = broken, silent = broken, strange = broken, coming = broken,
                 refused = broken;
    const struct kithi_seen *first = NULL, *worst = NULL;
    bool answers = d->asked.status == 0;
    size_t total = 0;
    for (size_t i = 0; i < d->collections.count; i++) {
        const struct kithi_seen *c = &d->collections.items[i];
        if (!c->segment && !c->listed)
            continue;
        total++;
        if (c->refused) { /* readers of its segment may go on */
            worst = worst != NULL ? worst : c;
            add_name(&refused, c->name);
        } else if (c->segment && (c->status == -EACCES || c->status == -EPERM)) {
            add_name(&shut, c->name);
        } else if (c->coming) { /* it gets a segment in time, or another one for a bad one */
            add_said(&coming, c->name, c->how_far);
        } else if (!c->segment || c->status != 0) {
            first = first != NULL ? first : c;
            add_name(&broken, c->name);
        } else if (answers && !c->listed) {
            add_name(&strange, c->name);
        } else if (answers && !c->answered) {
            add_name(&silent, c->name);
        }
    }
    char *run = kithi_quote(d->opts.run_dir);
    if (refused.count > 0) {
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "kithd does not serve %zu of %zu collections (%s): %s",
                          refused.count, total, refused.text,
                          worst->why[0] != '\0' ? worst->why : kithi_error_text(worst->refused));
        if (worst->refused == KITHI_E_LOG_DAMAGED && d->asked.data[0] != '\0') {
            char *data = kithi_quote(d->asked.data);
            kithi_finding_fix(
                f,
                "kith wal %s --data %s --salvage   # says what can be kept; again with --yes while kithd is stopped",
                worst->name, data);
            free(data);
        } else {
            kithi_finding_fix(f, "kith --run %s stats --ready %s", run, worst->name);
        }
    } else if (broken.count > 0) {
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "%zu of %zu collections cannot be searched (%s): %s",
                          broken.count, total, broken.text,
                          first->segment ? first->err.text : "kithd has it, and there is no segment yet");
        kithi_finding_fix(f, "kith --run %s verify %s", run, first->name);
    } else if (shut.count > 0) {
        char *command = kithi_kithd_command(d), mine[KITHI_NAME_TEXT_SIZE];
        kithi_sysfile_group(d->root, getegid(), mine);
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "%zu of %zu collections may not be read by this user (%s)",
                          shut.count, total, shut.text);
        kithi_finding_fix(f, "%s --read-group %s", command, mine);
        free(command);
    } else if (coming.count > 0) {
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "kithd was started and is still bringing %zu of %zu collections back (%s): until then they are "
            "not written to, and one without a segment is not searched",
            coming.count, total, coming.text);
        kithi_finding_fix(f, "kith --run %s stats --ready", run);
    } else if (strange.count > 0) {
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "%zu of %zu segments belong to no collection of kithd (%s): they can be searched, and nothing "
            "is written to them",
            strange.count, total, strange.text);
        kithi_finding_fix(f, "kith --run %s list", run);
    } else if (silent.count > 0) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN, "kithd tells nothing of %zu of %zu collections in time (%s)",
                          silent.count, total, silent.text);
        kithi_finding_fix(f, "kith --run %s --json stats %.*s", run, (int)strcspn(silent.text, ","),
                          silent.text);
    } else if (!answers && d->look_status != 0) {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN,
                          "which collections there are is in the run directory, or kithd tells: %s",
                          strerror(-d->look_status));
    } else if (total == 0) {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "there are no collections yet");
    } else {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "%zu collection%s can be searched%s", total,
                          total == 1 ? "" : "s",
                          answers ? ", and kithd serves all" : "; without kithd nothing is written to any");
    }
    if (coming.count > 0 && refused.count + broken.count + shut.count > 0)
        kithi_finding_add(f, "; kithd is still bringing %zu back (%s)", coming.count, coming.text);
    free(run);
}
