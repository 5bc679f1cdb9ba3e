/*
 * start_here.c - see start_here.h.
 */
#include "tests/crash/start_here.h"

#include <string.h>

#include "server/writer/files.h"
#include "server/writer/recover.h"
#include "shm/base/id.h"

static int bring_back(struct kithi_daemon *d, const char *name, struct kithi_errmsg *err)
{
    struct kithi_recover_progress progress = { 0 };
    struct kithi_settings settings;
    struct kithi_collection *c = NULL;
    if (!kithi_name_valid(name, strlen(name)) || !strcmp(name, KITHI_LOCK_NAME))
        return 0;
    int status = kithi_recover_settings(d, name, &settings, err);
    if (status == 0)
        status = kithi_recover(d, &settings, &progress, &c, err);
    if (status == 0)
        kithi_daemon_add(d, c);
    else
        kithi_collection_free(c);
    return status;
}

int test_start_here(struct kithi_daemon *d, struct kithi_errmsg *err)
{
    char **names = NULL;
    size_t n = 0;
    int status = kithi_recover_clear(d, err);
    if (status == 0)
        status = kithi_dir_list(d->data.path, &names, &n, err);
    for (size_t i = 0; i < n && status == 0; i++)
        status = bring_back(d, names[i], err);
    kithi_dir_list_free(names, n);
    return status;
}
