/*
 * generate.c - makes golden files of the current format: golden.generate DIRECTORY QUANTIZATION KEEP. The directory
 * exists.
 *
 * To be run once for each directory that test_golden.c lists, and never again: the point of the files is that they
 * are old.
 */
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "server/checkpoint/backup.h"
#include "shm/layout/geometry.h"
#include "tests/golden/pack.h"
#include "tests/golden/sample.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"

static void commit(kith_batch *b)
{
    struct kith_commit out = { .struct_size = sizeof out };
    if (kith_batch_count(b) && kith_batch_commit(b, &out) < 0)
        test_die("%s", out.error.text);
    kith_batch_clear(b);
}

static void write_sample(const char *run, uint32_t quantization, uint32_t keep)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    struct kith_error error = { 0 };
    kith *k = NULL;
    char id[80];
    float vector[SAMPLE_DIM];
    create.dim = SAMPLE_DIM;
    create.metric = KITH_METRIC_COSINE;
    create.m = 4;
    create.ef_construction = 40;
    create.max_vectors = 2000;
    create.quantization = quantization;
    create.keep = keep;
    create.run_dir = open.run_dir = run;
    create.error = open.error = &error;
    if (kith_create(SAMPLE_NAME, &create) < 0 || kith_open(SAMPLE_NAME, &open, &k) < 0)
        test_die("%s", error.text);
    kith_batch *b = kith_batch_new(k);
    for (uint32_t version = SAMPLE_FIRST; version <= SAMPLE_FINAL; version++)
        for (uint32_t n = 0; n < SAMPLE_COUNT; n++) {
            sample_id(n, id);
            sample_vector(n, version, vector);
            char payload[41000];
            bool alone = n % 2 == 0 && version == SAMPLE_FINAL;
            sample_payload(n, alone ? SAMPLE_FIRST : version, payload, sizeof payload);
            int rc = alone || !payload[0] ? kith_batch_upsert(b, id, vector, SAMPLE_DIM)
                                          : kith_batch_upsert_payload(b, id, vector, SAMPLE_DIM, payload);
            sample_payload(n, version, payload, sizeof payload);
            if (rc == 0 && alone && payload[0])
                rc = kith_batch_set_payload(b, id, KITH_PAYLOAD_REPLACE, payload);
            if (rc < 0)
                test_die("a batch does not take %s", id);
            if (n % 50 == 49)
                commit(b);
        }
    for (uint32_t n = 0; n < SAMPLE_COUNT; n++) {
        sample_id(n, id);
        if (!sample_is_there(n) && kith_batch_delete(b, id) < 0)
            test_die("a batch does not take %s", id);
    }
    commit(b);
    kith_batch_free(b);
    kith_close(k);
}

static uint32_t number(const char *name, const char *(*name_of)(uint32_t), uint32_t last)
{
    for (uint32_t i = 0; i <= last; i++)
        if (strcmp(name, name_of(i)) == 0)
            return i;
    test_die("what is %s?", name);
}

/* The checkpoint that kithd left as it stopped. */
static int pack_checkpoint(const struct test_daemon *d, const char *to)
{
    char pattern[2 * TEST_PATH_SIZE], packed[1024];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/data/%s/checkpoint-*", d->data.path, SAMPLE_NAME);
    snprintf(packed, sizeof packed, "%s/checkpoint.pack", to);
    if (glob(pattern, 0, NULL, &found) != 0)
        return -ENOENT;
    int rc = found.gl_pathc == 1 ? test_pack(found.gl_pathv[0], packed) : -EEXIST;
    globfree(&found);
    return rc;
}

/* Writes the same vectors again until it is killed, so that the log grows and the content does not change. */
static int write_again(void *run)
{
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    kith *k = NULL;
    char id[80];
    float vector[SAMPLE_DIM];
    open.run_dir = run;
    if (kith_open(SAMPLE_NAME, &open, &k) < 0)
        return 1;
    for (uint32_t n = 0;; n = (n + 1) % SAMPLE_COUNT) {
        sample_id(n, id);
        sample_vector(n, SAMPLE_FINAL, vector);
        if (sample_is_there(n) && kith_upsert(k, id, vector, SAMPLE_DIM, NULL) < 0)
            return 1;
    }
}

/* A back-up that has groups of the log in it. */
static int pack_backup(const struct test_daemon *d, char *run, const char *packed)
{
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
    struct kithi_backup_header h = { 0 };
    struct test_child writer = { 0 };
    unsigned char head[KITHI_BACKUP_BLOCK];
    char file[2 * TEST_PATH_SIZE];
    struct stat st;
    kith *k = NULL;
    snprintf(file, sizeof file, "%s/backup", d->data.path);
    open.run_dir = run;
    opts.replace = 1;
    test_child_start(&writer, "writer", write_again, run);
    int rc = kith_open(SAMPLE_NAME, &open, &k);
    for (unsigned i = 0; i < 1000 && rc == 0 && h.log_bytes == 0; i++) {
        rc = kith_backup(k, file, &opts, NULL);
        FILE *f = fopen(file, "rbe");
        if (rc == 0 && (!f || fread(head, 1, sizeof head, f) != sizeof head || stat(file, &st) < 0))
            rc = -EIO;
        if (f)
            fclose(f);
        if (rc == 0)
            rc = kithi_backup_header_decode(head, (uint64_t)st.st_size, &h, NULL);
    }
    kith_close(k);
    kill(writer.pid, SIGKILL);
    test_child_wait(&writer, 10000);
    return rc < 0 ? rc : h.log_bytes == 0 ? -EAGAIN : test_pack(file, packed);
}

int main(int argc, char **argv)
{
    struct test_daemon d;
    const bool backup = argc == 5 && strcmp(argv[4], "backup") == 0;
    char run[TEST_PATH_SIZE + 8], command[4096], packed[1024];
    if (argc != 4 && !backup) {
        fprintf(stderr, "usage: golden.generate DIRECTORY QUANTIZATION KEEP [backup]\n");
        return 2;
    }
    uint32_t quantization = number(argv[2], kithi_quantization_name, KITHI_QUANTIZATION_BITS);
    uint32_t keep = number(argv[3], kithi_keep_name, KITHI_KEEP_NONE);
    test_daemon_init(&d);
    snprintf(run, sizeof run, "%s/run", d.run.path);
    if (test_daemon_start(&d) < 0)
        return 1;
    write_sample(run, quantization, keep);
    if (backup) {
        snprintf(packed, sizeof packed, "%s/backup.pack", argv[1]);
        int made = pack_backup(&d, run, packed);
        test_daemon_fini(&d);
        if (made < 0)
            test_die("cannot pack: %s", kith_strerror(made));
        return 0;
    }
    if (test_daemon_stop(&d) != 0)
        test_die("kithd did not stop cleanly");

    snprintf(packed, sizeof packed, "%s/segment.pack", argv[1]);
    int rc = test_pack(test_daemon_segment(&d, SAMPLE_NAME), packed);
    char wal[2 * TEST_PATH_SIZE];
    snprintf(wal, sizeof wal, "%s/data/%s/wal/00000000000000000001.wal", d.data.path, SAMPLE_NAME);
    snprintf(packed, sizeof packed, "%s/wal.pack", argv[1]);
    if (rc == 0)
        rc = test_pack(wal, packed);
    if (rc == 0)
        rc = pack_checkpoint(&d, argv[1]);
    snprintf(command, sizeof command, "cp '%s/data/%s/collection.conf' '%s/'", d.data.path, SAMPLE_NAME,
             argv[1]);
    if (rc == 0 && system(command) != 0)
        rc = -1;
    test_daemon_fini(&d);
    if (rc < 0)
        test_die("cannot pack: %s", strerror(-rc));
    return 0;
}
