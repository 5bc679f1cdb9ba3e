/*
 * memory.c - what a collection's memory is used for, by its header and by what the file system says of its files.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/src/handle_priv.h"
#include "client/src/opts_priv.h"
#include "shm/graph/account.h"

#define PAGE_DEFAULT 4096u
#define BLOCK_UNIT   512u /* of st_blocks, whatever the file system's own blocks are */

/* Memory of the file at path, 0 when there is none, or when it is not the one of map (may be NULL). */
static uint64_t file_bytes(const char *path, const struct kithi_map *map)
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    if (map && ((uint64_t)st.st_dev != map->dev || (uint64_t)st.st_ino != map->ino))
        return 0;
    return (uint64_t)st.st_blocks * BLOCK_UNIT;
}

/* What stands beside the segment: its next generation, or the one before. */
static int beside(const struct kith *index, const char *suffix, uint64_t *out)
{
    size_t len = strlen(index->segment) + strlen(suffix) + 1;
    char *path = malloc(len);
    if (!path)
        return -ENOMEM;
    snprintf(path, len, "%s%s", index->segment, suffix);
    *out = file_bytes(path, NULL);
    free(path);
    return 0;
}

static void fill(struct kith_memory_region *to, const char *name, const struct kithi_share *s)
{
    snprintf(to->name, sizeof to->name, "%s", name);
    to->reserved = s->reserved;
    to->taken = s->taken;
    to->live = s->live;
    to->dead = s->dead;
    to->resting = s->resting;
    to->pending = s->pending;
    to->free = s->free;
    to->slack = s->slack;
    to->ahead = s->ahead;
}

int kith_memory(kith *index, struct kith_memory *out)
{
    struct kith_memory m = KITH_MEMORY_INIT;
    struct kithi_account account;
    struct kithi_call *c;
    if (!index || !out)
        return -EINVAL;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    (void)kithi_call_recheck(index, c); /* the generation that is there now is the one to tell of */
    long page = sysconf(_SC_PAGESIZE);
    const struct kithi_map *map = kithi_call_map(c);
    kithi_account_read(map, page > 0 ? (uint64_t)page : PAGE_DEFAULT, &account);
    m.live_count = atomic_load_explicit(&kithi_call_header(c)->live, memory_order_relaxed);
    m.file_bytes = file_bytes(index->segment, map);
    fill(&m.all, "all", &account.all);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        fill(&m.regions[r], map->layout.size[r] ? kithi_region_name(r) : "", &account.regions[r]);
    kithi_call_end(index, c);
    rc = beside(index, ".next", &m.next_bytes);
    if (rc == 0)
        rc = beside(index, ".old", &m.old_bytes);
    return rc < 0 ? rc : kithi_opts_out(out, &m, sizeof m, sizeof m);
}
_Static_assert(KITH_MEMORY_REGIONS == KITHI_REGION_COUNT, "kith.h and geometry.h disagree");
