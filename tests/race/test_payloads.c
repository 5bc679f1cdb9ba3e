/*
 * test_payloads.c - [P18 payload] on the real code: readers of payloads beside a writer that changes payloads alone, whose blobs are used again as soon as it
 * likes, since time is what the test says. A reader that gets a payload has the one of its epoch, whole; else it is told to begin again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/graph/lookup.h"
#include "shm/graph/payload.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

enum { IDS = 7, READERS = 3, RUN_MS = 3000, WORDS = 700 };

static struct test_solo solo;
static _Atomic bool stop;
static _Atomic uint64_t reads, again, late;

/* Epoch e changes the payload of id e % IDS, to words that are e: of two classes of blobs. */
static uint32_t words_of(uint64_t epoch)
{
    return epoch / IDS % 3 ? 1 + (uint32_t)(epoch % 5) : WORDS - (uint32_t)(epoch % 100);
}

static uint64_t version_at(uint32_t id, uint64_t epoch)
{
    uint64_t back = (epoch + IDS - id) % IDS;
    return epoch - back;
}

static void *reader(void *arg)
{
    static _Thread_local uint64_t words[KITHI_PAYLOAD_BYTES / 8];
    const struct kithi_map *map = test_solo_map(&solo);
    struct test_rand r;
    test_rand_seed(&r, (uintptr_t)arg);
    while (!atomic_load(&stop)) {
        struct kithi_found found;
        struct kithi_view v;
        char name[8];
        uint32_t id = test_rand_below(&r, IDS), len;
        snprintf(name, sizeof name, "%u", id);
        if (kithi_lookup(map, name, strlen(name), NULL, &found) < 0)
            test_die("id %u is not there", id);
        kithi_view_begin(map, &v);
        v.epoch = found.epoch;
        if (test_rand_below(&r, 8) == 0)
            test_nap(); /* long enough to be overtaken */
        enum kithi_payload_seen seen = kithi_view_payload(&v, found.slot, found.birth, words, &len);
        if (seen == KITHI_PAYLOAD_AGAIN) {
            atomic_fetch_add(&again, 1);
            continue;
        }
        uint64_t want = version_at(id, v.epoch);
        if (seen != KITHI_PAYLOAD_FOUND || len != 8 * words_of(want))
            test_die("id %u at epoch %llu: seen as %d, %u bytes", id, (unsigned long long)v.epoch, (int)seen,
                     len);
        for (uint32_t i = 0; i < len / 8; i++)
            if (words[i] != want)
                test_die("id %u at epoch %llu: word %u is of %llu", id, (unsigned long long)v.epoch, i,
                         (unsigned long long)words[i]);
        atomic_fetch_add(&reads, 1);
        if (atomic_load_explicit(&kithi_map_header(map)->epoch, memory_order_relaxed) > v.epoch + IDS)
            atomic_fetch_add(&late, 1);
    }
    return NULL;
}

static void change(uint64_t epoch, bool with_vector)
{
    static uint64_t words[WORDS];
    char name[8];
    float vector[2] = { (float)(epoch % IDS), 1 };
    snprintf(name, sizeof name, "%u", (unsigned)(epoch % IDS));
    struct kithi_op op = test_upsert(name, vector, 2);
    if (with_vector) {
        op.flags = KITHI_OP_PAYLOAD;
    } else {
        op.type = KITHI_OP_SET;
        op.dim = 0;
        op.vector = NULL;
    }
    for (uint32_t i = 0; i < WORDS; i++)
        words[i] = epoch;
    op.payload = words;
    op.payload_len = 8 * words_of(epoch);
    assert_int_equal(test_solo_commit(&solo, &op, 1), 0);
}

static void a_reader_gets_the_payload_of_its_epoch_or_begins_again(void **state)
{
    (void)state;
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, 1000);
    pthread_t threads[READERS];
    struct test_rand r;
    uint64_t epoch = 0;
    test_rand_init(&r);
    test_solo_open(&solo, &g);
    while (epoch < IDS)
        change(++epoch, true);
    for (uintptr_t i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, (void *)(i + 1)), 0);
    for (uint64_t end = test_now_ms() + RUN_MS; test_now_ms() < end;) {
        change(++epoch, test_rand_below(&r, 50) == 0);
        /* What was replaced is free at once, and taken by the next one, or a while later. */
        if (test_rand_below(&r, 3) == 0)
            (void)test_solo_sweep(&solo, test_rand_below(&r, 2) ? 10000 : 20);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    print_message("%llu epochs, %llu payloads read, %llu of them late, %llu begun again\n",
                  (unsigned long long)epoch, (unsigned long long)atomic_load(&reads),
                  (unsigned long long)atomic_load(&late), (unsigned long long)atomic_load(&again));
    assert_true(atomic_load(&reads) > 0);
    assert_true(test_solo_clean(&solo));
    test_solo_close(&solo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_gets_the_payload_of_its_epoch_or_begins_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
