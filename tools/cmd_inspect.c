/*
 * cmd_inspect.c - inspect: what is in a segment, read from the mapping as a reader would.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/graph/recall.h"
#include "shm/graph/view.h"
#include "shm/layout/notes.h"
#include "shm/postings/postings.h"
#include "tools/args.h"
#include "tools/memory.h"
#include "tools/out.h"

#define LEVELS      (KITHI_LEVEL_MAX + 1u)
#define DEGREES     (2u * KITHI_M_MAX + 1u)
#define BAR_WIDTH   40u
#define DEGREE_BINS 16u /* lines of the degree histogram for people; JSON has every degree */

struct shape {
    uint64_t linked; /* slots that finders may lead to */
    uint64_t level[LEVELS];
    uint64_t degree[DEGREES];
    uint64_t links;
    unsigned level_top, degree_top; /* highest that occur */
};

/* One pass over records and rows. Numbers from the segment are only counted with, never followed. */
static void measure(const struct kithi_view *v, struct shape *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t slot = 0; slot < v->slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(v, slot);
        if (atomic_load_explicit(&r->linked, memory_order_relaxed) == 0)
            continue;
        unsigned level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
        if (level > KITHI_LEVEL_MAX)
            level = KITHI_LEVEL_MAX;
        const kithi_link *row = kithi_view_row(v, slot);
        unsigned degree = 0;
        for (uint32_t i = 0; i < v->link_count0; i++)
            if (atomic_load_explicit(&row[i], memory_order_relaxed) != 0)
                degree++;
        out->linked++;
        out->level[level]++;
        out->degree[degree]++;
        out->links += degree;
        if (level > out->level_top)
            out->level_top = level;
        if (degree > out->degree_top)
            out->degree_top = degree;
    }
}

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed); /* for people: each number by itself */
}

/* Bytes of a region that hold something now. */
static uint64_t region_used(const struct kithi_view *v, unsigned region)
{
    const struct kithi_layout *l = &v->map->layout;
    const struct kithi_header *h = v->header;
    uint64_t used = 0, word = load(&h->id_table);
    switch (region) {
    case KITHI_REGION_HEADER: used = KITHI_HEADER_SIZE; break;
    case KITHI_REGION_RECORDS: used = (uint64_t)v->slots_used * sizeof(struct kithi_record); break;
    case KITHI_REGION_ROWS: used = (uint64_t)v->slots_used * l->row_stride; break;
    case KITHI_REGION_VECTORS:
    case KITHI_REGION_CODES:
        used = l->size[region] != 0 ? (uint64_t)v->slots_used * l->unit[region] : 0;
        break;
    case KITHI_REGION_DOUBT: used = ((uint64_t)v->slots_used + 7) / 8; break;
    case KITHI_REGION_UPPER: used = load(&h->tally_upper) * l->upper_stride; break;
    case KITHI_REGION_IDS0:
    case KITHI_REGION_IDS1:
        if (word != 0 && kithi_ids_area(word) == region - KITHI_REGION_IDS0 && kithi_ids_log2(word) < 40)
            used = UINT64_C(8) << kithi_ids_log2(word);
        break;
    case KITHI_REGION_DICT: used = load(&h->taken[region]); break;
    case KITHI_REGION_POSTINGS: used = load(&h->tally_cells) * KITHI_POSTINGS_CELL; break;
    case KITHI_REGION_BLOB0:
    case KITHI_REGION_BLOB1:
    case KITHI_REGION_BLOB2:
    case KITHI_REGION_BLOB3:
    case KITHI_REGION_BLOB4:
    case KITHI_REGION_BLOB5:
    case KITHI_REGION_BLOB6:
    case KITHI_REGION_BLOB7: {
        unsigned class = kithi_region_blob_class(region);
        used = load(&h->tally_blob[class]) * l->blob_stride[class];
        break;
    }
    default: break;
    }
    return used;
}

/* What a slot's row and vectors are made of, in bytes. */
struct parts {
    uint32_t links, blocks, block; /* of a level-0 row; blocks of neighbour codes, 0: none */
    uint32_t kept, walked;         /* a vector, without padding */
};

static struct parts parts_of(const struct kithi_view *v)
{
    const struct kithi_layout *l = &v->map->layout;
    struct parts p = { .links = l->row_stride };
    if (v->bits_width) {
        p.links = l->row_code;
        p.block = v->bits_stride;
        p.blocks = (l->row_stride - l->row_blocks) / p.block;
    }
    p.kept = kithi_code_size(v->kept, v->map->geometry.dim);
    p.walked = kithi_code_size(v->walked, v->map->geometry.dim);
    return p;
}

static void hex(char *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* What the owner has written down for the next one; NULL: it keeps no notes. */
static const struct kithi_notes *notes_of(const struct kithi_view *v)
{
    const struct kithi_notes *n = (const struct kithi_notes *)(const void *)(v->map->base + KITHI_NOTES_OFF);
    bool kept = atomic_load_explicit(&n->magic, memory_order_acquire) == KITHI_NOTES_MAGIC;
    return kept ? n : NULL;
}

/* Slots of the open group; -1: more than there is room for. */
static int64_t noted(const struct kithi_notes *n)
{
    uint32_t count = atomic_load_explicit(&n->count, memory_order_relaxed);
    return count > KITHI_NOTES_MAX ? -1 : (int64_t)count;
}

static bool is_condemned(const struct kithi_notes *n)
{
    return atomic_load_explicit(&n->condemned, memory_order_relaxed) != 0;
}

struct memory {
    struct kith_memory_region regions[KITHI_REGION_COUNT], all;
};

static void memory_of(const struct kithi_map *map, struct memory *out)
{
    struct kithi_account account;
    long page = sysconf(_SC_PAGESIZE);
    kithi_account_read(map, page > 0 ? (uint64_t)page : 4096, &account);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) /* the others are kept for a later version */
        kithi_memory_region(&out->regions[r], map->layout.size[r] ? kithi_region_name(r) : "",
                            &account.regions[r]);
    kithi_memory_region(&out->all, "all", &account.all);
}

/* A path as a text: what stands in a segment may hold anything. */
static void path_of(const struct kithi_field_seen *f, char out[KITHI_POSTINGS_PATH + 1])
{
    size_t len = strnlen(f->path, f->path_len);
    memcpy(out, f->path, len);
    out[len] = '\0';
}

static bool is_declared(const struct kithi_view *v)
{
    return atomic_load_explicit(&v->header->declared, memory_order_relaxed) != 0;
}

static void print_fields_json(const struct kithi_view *v)
{
    struct kithi_field_seen f;
    char path[KITHI_POSTINGS_PATH + 1];
    printf(",\"postings\":{\"whole\":%s,\"declared\":%s,\"generation\":%u,\"era\":%u,\"fields\":[",
           kithi_postings_whole(v->postings) ? "true" : "false", is_declared(v) ? "true" : "false",
           kithi_postings_generation(v->postings), kithi_postings_era(v->postings));
    for (uint32_t i = 0; kithi_postings_field(v, i, &f); i++) {
        path_of(&f, path);
        printf("%s{\"field\":", i > 0 ? "," : "");
        kithi_out_quote(stdout, path);
        printf(",\"type\":\"%s\",\"kept\":%s,\"terms\":%u,\"slots\":%" PRIu64 ",\"misfits\":%" PRIu64
               ",\"bytes\":%" PRIu64 "}",
               kithi_declared_type_name(f.declared), f.state == KITHI_POSTINGS_KEPT ? "true" : "false",
               f.terms, f.slots, f.misfits, f.bytes);
    }
    fputs("]}", stdout);
}

static void print_json(const char *name, const struct kithi_view *v, const struct shape *s)
{
    const struct kithi_map *map = v->map;
    const struct kithi_geometry *g = &map->geometry;
    const struct kithi_header *h = v->header;
    const struct parts p = parts_of(v);
    char uid[33];
    hex(uid, map->uid, sizeof map->uid);
    fputs("{\"name\":", stdout);
    kithi_out_quote(stdout, name);
    printf(",\"uid\":\"%s\",\"format\":%u,\"generation\":%" PRIu64 ",\"dim\":%u,\"metric\":\"%s\",\"m\":%u"
           ",\"ef_construction\":%u,\"slots_max\":%u",
           uid, KITHI_FORMAT_VERSION, map->generation, g->dim, kithi_metric_name(g->metric), g->m,
           g->ef_construction, g->slot_max);
    printf(",\"quantization\":\"%s\",\"keep\":\"%s\",\"code_bits\":%u,\"vector_bytes\":%u,\"code_bytes\":%u"
           ",\"row\":{\"bytes\":%u,\"links\":%u,\"blocks\":%u,\"block_bytes\":%u,\"signs\":%u}",
           kithi_quantization_name(g->quantization), kithi_keep_name(g->keep), g->code_bits, p.kept, p.walked,
           v->row_stride, p.links, p.blocks, p.block, v->bits_width);
    printf(",\"epoch\":%" PRIu64 ",\"durable_epoch\":%" PRIu64 ",\"timeline\":%" PRIu64 ",\"live\":%" PRIu64
           ",\"dead\":%" PRIu64 ",\"resting\":%" PRIu64 ",\"free\":%" PRIu64 ",\"slots\":%u",
           v->epoch, load(&h->durable_epoch), load(&h->timeline), load(&h->live), load(&h->tally_dead),
           load(&h->tally_resting), load(&h->tally_free), v->slots_used);
    printf(",\"unlinked\":%" PRIu64 ",\"reused\":%" PRIu64 ",\"moved\":%s,\"dropped\":%s,\"commits\":%" PRIu64
           ",\"sweeps\":%" PRIu64 ",\"huge\":%" PRIu64 ",\"huge_wanted\":%" PRIu64,
           load(&h->unlinked), load(&h->reused), kithi_view_moved(v) ? "true" : "false",
           atomic_load_explicit(&h->dropped, memory_order_relaxed) != 0 ? "true" : "false",
           load(&h->tally_commits), load(&h->tally_sweeps), load(&h->tally_huge),
           load(&h->tally_huge_wanted));
    printf(",\"payloads\":%" PRIu64 ",\"payload_bytes\":%" PRIu64 ",\"payloads_resting\":%" PRIu64,
           load(&h->tally_payloads), load(&h->tally_payload_bytes), load(&h->tally_versions));

    uint64_t entry = load(&h->entry), word = load(&h->id_table);
    if (entry == 0)
        fputs(",\"entry\":null", stdout);
    else
        printf(",\"entry\":{\"slot\":%u,\"level\":%u}", kithi_entry_link(entry) - 1u,
               kithi_entry_level(entry));
    if (word == 0)
        fputs(",\"id_table\":null", stdout);
    else
        printf(",\"id_table\":{\"area\":%u,\"capacity\":%" PRIu64 ",\"filled\":%" PRIu64
               ",\"rebuilds\":%" PRIu64 "}",
               kithi_ids_area(word), UINT64_C(1) << (kithi_ids_log2(word) & 63u), load(&h->tally_ids),
               kithi_ids_rebuilds(word));

    const struct kithi_notes *n = notes_of(v);
    if (n)
        printf(",\"notes\":{\"epoch\":%" PRIu64 ",\"live\":%" PRIu64 ",\"slots\":%" PRId64
               ",\"condemned\":%s}",
               load(&n->epoch), load(&n->live), noted(n), is_condemned(n) ? "true" : "false");
    else
        fputs(",\"notes\":null", stdout);

    struct kithi_recall_curve c;
    kithi_recall_read(map, 0, &c);
    if (c.count)
        printf(",\"curve\":{\"k\":%u,\"points\":%u,\"samples\":%u,\"epoch\":%" PRIu64 ",\"since\":%" PRIu64
               "}",
               c.k, c.count, c.samples, c.epoch, c.since);
    else
        fputs(",\"curve\":null", stdout);

    struct memory m;
    memory_of(map, &m);
    fputs(",\"regions\":[", stdout);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        printf("%s{\"region\":\"%s\",\"offset\":%" PRIu64 ",\"used\":%" PRIu64 ",", r > 0 ? "," : "",
               kithi_region_name(r), map->layout.off[r], region_used(v, r));
        kithi_memory_members(stdout, &m.regions[r]);
        putchar('}');
    }
    fputs("]", stdout);
    print_fields_json(v);
    fputs(",\"levels\":[", stdout);
    for (unsigned i = 0; i <= s->level_top; i++)
        printf("%s%" PRIu64, i > 0 ? "," : "", s->level[i]);
    fputs("],\"degrees\":[", stdout);
    for (unsigned i = 0; i <= s->degree_top; i++)
        printf("%s%" PRIu64, i > 0 ? "," : "", s->degree[i]);
    puts("]}");
}

static void print_fields(const struct kithi_view *v)
{
    struct kithi_field_seen f;
    char path[KITHI_POSTINGS_PATH + 1], terms[KITHI_OUT_TEXT_SIZE], slots[KITHI_OUT_TEXT_SIZE];
    char bytes[KITHI_OUT_TEXT_SIZE], misfits[KITHI_OUT_TEXT_SIZE];
    if (!kithi_postings_whole(v->postings)) {
        puts("postings: being made anew of the payloads; filters look at payloads until then\n");
        return;
    }
    if (!kithi_postings_field(v, 0, &f)) {
        if (is_declared(v))
            puts("postings: none, as was asked for (--index none); filters look at all payloads\n");
        return;
    }
    if (is_declared(v))
        puts("postings of declared fields; MISFITS: payloads whose value is of another type than TYPE");
    printf("%10s %14s %12s %12s  %-8s  FIELD\n", "TERMS", "SLOTS", "MEMORY", "MISFITS", "TYPE");
    for (uint32_t i = 0; kithi_postings_field(v, i, &f); i++) {
        path_of(&f, path);
        if (f.state == KITHI_POSTINGS_KEPT)
            printf("%10s %14s %12s %12s  ", kithi_out_count(terms, f.terms), kithi_out_count(slots, f.slots),
                   kithi_out_bytes(bytes, f.bytes), kithi_out_count(misfits, f.misfits));
        else
            printf("%10s %14s %12s %12s  ", "-", "-", "given up", "-");
        printf("%-8s  ", kithi_declared_type_name(f.declared));
        kithi_out_plain(stdout, path);
        putchar('\n');
    }
    putchar('\n');
}

static void print_regions(const struct kithi_view *v)
{
    struct memory m;
    memory_of(v->map, &m);
    kithi_memory_table(m.regions, KITHI_REGION_COUNT, &m.all);
}

static void histogram_line(struct kithi_table *table, uint64_t n, uint64_t max)
{
    char text[KITHI_OUT_TEXT_SIZE], bar[BAR_WIDTH + 1];
    size_t width = max == 0 ? 0 : (size_t)((n * BAR_WIDTH + max - 1) / max);
    memset(bar, '#', width);
    bar[width] = '\0';
    kithi_table_cell(table, "%s", kithi_out_count(text, n));
    kithi_table_cell(table, "%s", bar);
}

static void print_shape(const struct shape *s, uint32_t link_count0)
{
    struct kithi_table table;
    kithi_table_begin(&table, "rrl");
    kithi_table_cell(&table, "LEVEL");
    kithi_table_cell(&table, "SLOTS");
    kithi_table_cell(&table, "%s", "");
    for (unsigned i = 0; i <= s->level_top; i++) {
        kithi_table_cell(&table, "%u", i);
        histogram_line(&table, s->level[i], s->linked);
    }
    kithi_table_end(&table);

    printf("\nlinks at level 0: %.1f of %u places on average\n", (double)s->links / (double)s->linked,
           link_count0);
    uint64_t bins[DEGREE_BINS] = { 0 }, max = 0;
    unsigned width = link_count0 / DEGREE_BINS + 1;
    for (unsigned d = 0; d <= s->degree_top; d++)
        bins[d / width] += s->degree[d];
    for (unsigned b = 0; b < DEGREE_BINS; b++)
        if (bins[b] > max)
            max = bins[b];
    kithi_table_begin(&table, "rrl");
    kithi_table_cell(&table, "LINKS");
    kithi_table_cell(&table, "SLOTS");
    kithi_table_cell(&table, "%s", "");
    for (unsigned b = 0; b <= link_count0 / width; b++) {
        unsigned last = (b + 1) * width - 1;
        if (width == 1)
            kithi_table_cell(&table, "%u", b);
        else
            kithi_table_cell(&table, "%u-%u", b * width, last > link_count0 ? link_count0 : last);
        histogram_line(&table, bins[b], max);
    }
    kithi_table_end(&table);
}

static void print_text(const char *name, const struct kithi_view *v, const struct shape *s)
{
    const struct kithi_map *map = v->map;
    const struct kithi_geometry *g = &map->geometry;
    const struct kithi_header *h = v->header;
    const struct parts p = parts_of(v);
    uint64_t entry = load(&h->entry), word = load(&h->id_table);
    char uid[33], text[120];
    hex(uid, map->uid, sizeof map->uid);

    struct kithi_object o;
    kithi_object_begin(&o, false);
    kithi_object_text(&o, "", "name", name);
    kithi_object_text(&o, "", "uid", uid);
    kithi_object_count(&o, "", "format version", KITHI_FORMAT_VERSION);
    kithi_object_count(&o, "", "generation", map->generation);
    kithi_object_count(&o, "", "dimensions", g->dim);
    kithi_object_text(&o, "", "metric", kithi_metric_name(g->metric));
    snprintf(text, sizeof text, "%u, ef-construction %u", g->m, g->ef_construction);
    kithi_object_text(&o, "", "m", text);
    kithi_object_text(&o, "", "quantization", kithi_quantization_name(g->quantization));
    kithi_object_text(&o, "", "keep", kithi_keep_name(g->keep));
    if (v->kept == v->walked)
        snprintf(text, sizeof text, "%u B", p.kept);
    else
        snprintf(text, sizeof text, "%u B kept, %u B walked on", p.kept, p.walked);
    kithi_object_text(&o, "", "a vector", text);
    if (p.blocks == 0)
        snprintf(text, sizeof text, "%u B: links", v->row_stride);
    else
        snprintf(text, sizeof text, "%u B: links, the code, %u x %u B for neighbours with %u signs each",
                 v->row_stride, p.blocks, p.block, v->bits_width);
    kithi_object_text(&o, "", "a row", text);
    kithi_object_count(&o, "", "slots at most", g->slot_max);
    kithi_object_count(&o, "", "epoch", v->epoch);
    kithi_object_count(&o, "", "durable epoch", load(&h->durable_epoch));
    kithi_object_count(&o, "", "vectors", load(&h->live));
    kithi_object_count(&o, "", "dead, still linked", load(&h->tally_dead));
    kithi_object_count(&o, "", "resting", load(&h->tally_resting));
    kithi_object_count(&o, "", "free for reuse", load(&h->tally_free));
    kithi_object_count(&o, "", "slots ever used", v->slots_used);
    kithi_object_count(&o, "", "mark unlinked", load(&h->unlinked));
    kithi_object_count(&o, "", "mark reused", load(&h->reused));
    kithi_object_bool(&o, "", "moved", kithi_view_moved(v));
    kithi_object_count(&o, "", "payloads", load(&h->tally_payloads));
    kithi_object_bytes(&o, "", "bytes in them", load(&h->tally_payload_bytes));
    kithi_object_count(&o, "", "replaced, resting", load(&h->tally_versions));
    kithi_object_count(&o, "", "commit groups", load(&h->tally_commits));
    kithi_object_count(&o, "", "sweeps", load(&h->tally_sweeps));
    kithi_object_bytes(&o, "", "huge pages", load(&h->tally_huge));
    kithi_object_bytes(&o, "", "wanted", load(&h->tally_huge_wanted));
    if (entry == 0)
        snprintf(text, sizeof text, "none, the graph is empty");
    else
        snprintf(text, sizeof text, "slot %u, level %u", kithi_entry_link(entry) - 1u,
                 kithi_entry_level(entry));
    kithi_object_text(&o, "", "entry point", text);
    if (word == 0)
        snprintf(text, sizeof text, "none yet");
    else
        snprintf(text, sizeof text, "area %u, %" PRIu64 " of %" PRIu64 " places filled, %" PRIu64 " rebuilds",
                 kithi_ids_area(word), load(&h->tally_ids), UINT64_C(1) << (kithi_ids_log2(word) & 63u),
                 kithi_ids_rebuilds(word));
    kithi_object_text(&o, "", "id table", text);
    const struct kithi_notes *n = notes_of(v);
    if (!n)
        snprintf(text, sizeof text, "none, the next start looks at every record");
    else if (noted(n) < 0)
        snprintf(text, sizeof text, "epoch %" PRIu64 ", and an open group of more than %u slots",
                 load(&n->epoch), KITHI_NOTES_MAX);
    else
        snprintf(text, sizeof text, "epoch %" PRIu64 ", %" PRId64 " slots of an open group%s",
                 load(&n->epoch), noted(n),
                 is_condemned(n) ? "; condemned: kithd builds the segment anew" : "");
    kithi_object_text(&o, "", "notes", text);
    struct kithi_recall_curve c;
    kithi_recall_read(map, 0, &c);
    if (c.count)
        snprintf(text, sizeof text, "%u points of %u samples, epochs %" PRIu64 " to %" PRIu64, c.count,
                 c.samples, c.since, c.epoch);
    else
        snprintf(text, sizeof text, "none, recall is not measured yet");
    kithi_object_text(&o, "", "recall curve", text);
    kithi_object_end(&o);
    putchar('\n');
    print_fields(v);
    print_regions(v);
    if (s->linked > 0) {
        putchar('\n');
        print_shape(s, v->link_count0);
    }
}

int kithi_cmd_inspect(struct kithi_tool *t, int argc, char **argv)
{
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, NULL, 0, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");

    struct kithi_map map = { 0 };
    status = kithi_tool_attach(t, argv[1], &map);
    if (status != KITHI_TOOL_OK)
        return status;
    struct kithi_view view;
    struct shape shape;
    kithi_view_begin(&map, &view);
    measure(&view, &shape);
    if (t->json)
        print_json(argv[1], &view, &shape);
    else
        print_text(argv[1], &view, &shape);
    kithi_map_detach(&map);
    return KITHI_TOOL_OK;
}
