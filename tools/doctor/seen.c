/*
 * seen.c - the collections that the run directory and the daemon know of, and what their segments say.
 *
 * Segments are looked at directly, because asking for their statistics asks the daemon, too, once for each of them.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shm/base/assert.h"
#include "shm/map/map.h"
#include "tools/doctor/doctor_priv.h"

struct kithi_seen *kithi_seen_get(struct kithi_seen_list *list, const char *name, size_t len)
{
    for (size_t i = 0; i < list->count; i++)
        if (strncmp(list->items[i].name, name, len) == 0 && list->items[i].name[len] == '\0')
            return &list->items[i];
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        list->items = realloc(list->items, list->capacity * sizeof *list->items);
        KITHI_ASSERT(list->items != NULL); /* half a kilobyte a collection */
    }
    struct kithi_seen *c = &list->items[list->count++];
    memset(c, 0, sizeof *c);
    KITHI_ASSERT(len <= KITHI_NAME_MAX);
    memcpy(c->name, name, len);
    return c;
}

static void look_at(struct kithi_seen *c, const char *run_dir)
{
    char path[4096];
    struct stat st;
    struct kithi_map map = { 0 };
    int n = snprintf(path, sizeof path, "%s/%s/segment", run_dir, c->name);
    if (n < 0 || (size_t)n >= sizeof path)
        return;
    c->segment = lstat(path, &st) == 0 || errno == EACCES;
    if (!c->segment)
        return;
    c->status = kithi_map_attach_path(path, false, &map, &c->err);
    if (c->status != 0)
        return;
    const struct kithi_header *h = kithi_map_header(&map);
    /* Relaxed: figures for people, each right by itself. */
    c->huge = atomic_load_explicit(&h->tally_huge, memory_order_relaxed);
    c->huge_wanted = atomic_load_explicit(&h->tally_huge_wanted, memory_order_relaxed);
    kithi_map_detach(&map);
}

static int by_name(const void *a, const void *b)
{
    const struct kithi_seen *x = a, *y = b;
    return strcmp(x->name, y->name);
}

int kithi_seen_look(struct kithi_seen_list *list, const char *run_dir)
{
    DIR *dir = opendir(run_dir);
    int rc = dir != NULL ? 0 : -errno;
    if (dir != NULL) {
        for (struct dirent *e; (e = readdir(dir)) != NULL;) {
            size_t len = strlen(e->d_name);
            bool is_dir = e->d_type == DT_DIR || e->d_type == DT_UNKNOWN;
            if (is_dir && kithi_name_valid(e->d_name, len))
                kithi_seen_get(list, e->d_name, len);
        }
        closedir(dir);
    }
    for (size_t i = 0; i < list->count; i++)
        look_at(&list->items[i], run_dir);
    if (list->count > 1)
        qsort(list->items, list->count, sizeof *list->items, by_name);
    return rc;
}
