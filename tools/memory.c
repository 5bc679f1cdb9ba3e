/*
 * memory.c - see memory.h.
 */
#include "tools/memory.h"

#include <inttypes.h>

#include "tools/out.h"

void kithi_memory_region(struct kith_memory_region *out, const char *name, const struct kithi_share *s)
{
    *out = (struct kith_memory_region){ .reserved = s->reserved,
                                        .taken = s->taken,
                                        .live = s->live,
                                        .dead = s->dead,
                                        .resting = s->resting,
                                        .pending = s->pending,
                                        .free = s->free,
                                        .slack = s->slack,
                                        .ahead = s->ahead };
    snprintf(out->name, sizeof out->name, "%s", name);
}

void kithi_memory_members(FILE *f, const struct kith_memory_region *r)
{
    fprintf(f,
            "\"taken\":%" PRIu64 ",\"reserved\":%" PRIu64 ",\"live\":%" PRIu64 ",\"dead\":%" PRIu64
            ",\"resting\":%" PRIu64 ",\"pending\":%" PRIu64 ",\"free\":%" PRIu64 ",\"slack\":%" PRIu64
            ",\"ahead\":%" PRIu64,
            r->taken, r->reserved, r->live, r->dead, r->resting, r->pending, r->free, r->slack, r->ahead);
}

static void line(struct kithi_table *table, const struct kith_memory_region *r)
{
    const uint64_t bytes[] = { r->taken, r->live,  r->dead,  r->resting, r->pending,
                               r->free,  r->slack, r->ahead, r->reserved };
    char text[KITHI_OUT_TEXT_SIZE];
    kithi_table_cell(table, "%s", r->name);
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        kithi_table_cell(table, "%s", bytes[i] == 0 ? "-" : kithi_out_bytes(text, bytes[i]));
}

void kithi_memory_table(const struct kith_memory_region *regions, size_t n,
                        const struct kith_memory_region *all)
{
    static const char *const HEADING[] = { "REGION",  "TAKEN", "LIVE",  "DEAD",  "RESTING",
                                           "PENDING", "FREE",  "SLACK", "AHEAD", "RESERVED" };
    struct kithi_table table;
    kithi_table_begin(&table, "lrrrrrrrrr");
    for (size_t i = 0; i < sizeof HEADING / sizeof *HEADING; i++)
        kithi_table_cell(&table, "%s", HEADING[i]);
    for (size_t i = 0; i < n; i++)
        if (regions[i].name[0] != '\0')
            line(&table, &regions[i]);
    line(&table, all);
    kithi_table_end(&table);
}
