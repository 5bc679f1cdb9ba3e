/*
 * memory.c - is there as much memory as the run directory's tmpfs lets segments take?
 *
 * A full tmpfs is a clean refusal; memory that ends before the tmpfs does is the OOM killer's choice. Swap counts, because
 * pages of a tmpfs may go there. Overcommit matters in mode 2 alone: there the pages of a tmpfs count against CommitLimit,
 * and fallocate fails at it, as on a full tmpfs. Readers' mappings count nowhere: they are shared and read-only.
 */
#include <stdlib.h>
#include <string.h>

#include "server/base/needs.h"
#include "tools/doctor/space_priv.h"
#include "tools/doctor/sysfile_priv.h"
#include "tools/out.h"

static const char MEMINFO[] = "/proc/meminfo";

void kithi_check_memory(const struct kithi_doctor *d, struct kithi_finding *f)
{
    char *text, available_text[KITHI_OUT_TEXT_SIZE], left_text[KITHI_OUT_TEXT_SIZE],
        total_text[KITHI_OUT_TEXT_SIZE];
    uint64_t total, available, swap = 0, limit = 0, committed = 0, overcommit = 0;
    struct kithi_space s;
    int rc = kithi_sysfile_read(d->root, MEMINFO, &text);
    if (rc != 0) {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "%s cannot be read: %s", MEMINFO, strerror(-rc));
        return;
    }
    bool complete = kithi_sysfile_value(text, "MemTotal", &total) &&
                    kithi_sysfile_value(text, "MemAvailable", &available);
    kithi_sysfile_value(text, "SwapFree", &swap);
    bool commits = kithi_sysfile_value(text, "CommitLimit", &limit) &&
                   kithi_sysfile_value(text, "Committed_AS", &committed);
    free(text);
    if (!complete) {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "%s has no MemTotal and MemAvailable", MEMINFO);
        return;
    }
    kithi_out_bytes(total_text, total);
    kithi_out_bytes(available_text, available + swap);
    if (commits && kithi_sysfile_number(d->root, "/proc/sys/vm/overcommit_memory", &overcommit) == 0 &&
        overcommit == 2 && limit < committed + KITHI_NEED_STEP) {
        kithi_out_bytes(left_text, limit > committed ? limit - committed : 0);
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "vm.overcommit_memory is 2, and %s may still be promised: segments cannot grow",
                          left_text);
        kithi_finding_fix(f, "sysctl -w vm.overcommit_memory=0");
        return;
    }
    if (kithi_space_of(d->opts.run_dir, &s) != 0 || !s.tmpfs || s.size == 0) {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "%s of memory (and swap) are available, of %s", available_text,
                          total_text);
        return;
    }
    kithi_out_bytes(left_text, s.left);
    if (s.left <= available + swap) {
        kithi_finding_set(
            f, KITHI_DOCTOR_OK,
            "%s of memory (and swap) are available, of %s; the run directory's tmpfs can take %s of it",
            available_text, total_text, left_text);
        return;
    }
    kithi_finding_set(
        f, KITHI_DOCTOR_WARN,
        "%s of memory (and swap) are available, of %s, and the run directory's tmpfs may still take %s: "
        "memory ends before the tmpfs is full, and then the OOM killer chooses",
        available_text, total_text, left_text);
    kithi_space_fix_tmpfs(d, &s, (s.size > s.left ? s.size - s.left : 0) + (available + swap) / 4 * 3, f);
}
