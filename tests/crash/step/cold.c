/*
 * cold.c - a collection of the daemon without a daemon: what checkpointer and loader need of one, on the loop of here.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/crash/step/step.h"

struct kithi_collection *step_collection(const struct step_world *world, const struct test_dir *dir,
                                         const char *name)
{
    struct kithi_daemon *d = calloc(1, sizeof *d);
    struct kithi_settings settings = { .geometry = world->identity.geometry,
                                       .wanted = world->identity.geometry.quantization,
                                       .keep = world->identity.geometry.keep,
                                       .chosen = true };
    struct kithi_collection *c = NULL;
    struct kithi_errmsg err;
    if (!d)
        test_die("out of memory");
    d->io = step_io_here();
    d->pool = step_pool_here(d->io);
    d->tuning = world->tuning;
    d->policy.read_group = KITHI_NO_GROUP;
    d->checkpoint_log_bytes = UINT64_MAX;
    d->checkpoint_age_ms = UINT32_MAX;
    snprintf(d->data.path, sizeof d->data.path, "%s", dir->path);
    snprintf(d->run.path, sizeof d->run.path, "%s/run", dir->path);
    snprintf(settings.name, sizeof settings.name, "%s", name);
    memcpy(settings.uid, world->identity.uid, sizeof settings.uid);
    memcpy(settings.hash_key, world->identity.hash_key, sizeof settings.hash_key);
    if (kithi_collection_new(d, &settings, &c, &err) < 0)
        test_die("%s", err.text);
    if ((mkdir(d->run.path, 0755) < 0 && errno != EEXIST) || (mkdir(c->run_dir, 0755) < 0 && errno != EEXIST))
        test_die("%s: %s", c->run_dir, strerror(errno));
    return c;
}

void step_collection_free(struct kithi_collection *c)
{
    if (!c)
        return;
    struct kithi_daemon *d = c->daemon;
    kithi_collection_free(c);
    kithi_io_free(d->io);
    free(d);
}

/* ---- who asks for a checkpoint ---- */

void __wrap_kithi_request_answer(struct kithi_request *r, const struct kithi_answer *a);
void __wrap_kithi_request_refuse(struct kithi_request *r, uint32_t item, const struct kithi_errmsg *err);

void __wrap_kithi_request_answer(struct kithi_request *r, const struct kithi_answer *a)
{
    (void)a;
    free(r->written);
    free(r);
}

void __wrap_kithi_request_refuse(struct kithi_request *r, uint32_t item, const struct kithi_errmsg *err)
{
    (void)r;
    (void)item;
    test_die("a checkpoint fails: %s", err->text);
}

void step_ask_for_checkpoint(struct kithi_collection *c)
{
    struct kithi_request *r = calloc(1, sizeof *r);
    if (!r)
        test_die("out of memory");
    kithi_checkpointer_request(c, r);
}
