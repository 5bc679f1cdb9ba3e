/*
 * test_map.c - what attach accepts and refuses, and that readers cannot store.
 */
#include "shm/map/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/graph/view.h"
#include "tests/support/solo.h"

static struct test_solo solo; /* one good segment; tests work on copies of its header */

static int set_up(void **state)
{
    (void)state;
    struct kithi_geometry g = test_geometry(4, KITHI_METRIC_L2, 1000);
    test_solo_open(&solo, &g);
    float v[4] = { 1, 2, 3, 4 };
    return test_solo_put(&solo, "a", v);
}

static int tear_down(void **state)
{
    (void)state;
    test_solo_close(&solo);
    return 0;
}

/* A sparse file of size bytes that begins with the first len bytes of the good one. */
static const char *copy(const char *name, size_t len, uint64_t size)
{
    const char *path = test_path(&solo.dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(pwrite(fd, test_solo_map(&solo)->base, len, 0), len);
    close(fd);
    return path;
}

static const char *whole(const char *name)
{
    return copy(name, KITHI_HEADER_SIZE, test_solo_map(&solo)->len);
}

static void put(const char *path, size_t off, const void *bytes, size_t len)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)off), len);
    close(fd);
}

static void put32(const char *path, size_t off, uint32_t v)
{
    put(path, off, &v, sizeof v);
}

static void put64(const char *path, size_t off, uint64_t v)
{
    put(path, off, &v, sizeof v);
}

static void assert_refused(const char *path, int code, const char *say)
{
    struct kithi_map map;
    struct kithi_errmsg err = { 0 };
    int rc = kithi_map_attach_path(path, false, &map, &err);
    if (rc == 0)
        fail_msg("%s was attached", path);
    if (rc != code || err.code != code || !strstr(err.text, say))
        fail_msg("%s: %s (%s), expected %s and \"%s\"", path, kithi_error_name(rc), err.text,
                 kithi_error_name(code), say);
}

static void attach_copies_what_identifies_the_segment(void **state)
{
    (void)state;
    struct kithi_map map;
    struct kithi_errmsg err;
    struct stat st;
    assert_int_equal(kithi_map_attach_path(solo.path, false, &map, &err), 0);
    assert_int_equal(stat(solo.path, &st), 0);
    assert_memory_equal(map.uid, solo.identity.uid, 16);
    assert_memory_equal(map.hash_key, solo.identity.hash_key, 16);
    assert_memory_equal(&map.geometry, &solo.identity.geometry, sizeof map.geometry);
    assert_int_equal(map.generation, 1);
    assert_int_equal(map.len, map.layout.total);
    assert_int_equal(map.ino, st.st_ino);
    assert_int_equal(map.dev, st.st_dev);
    kithi_map_prefault(&map);
    kithi_map_detach(&map);
    assert_null(map.base);
    kithi_map_detach(&map);
    kithi_map_detach(NULL);
}

static void a_mapping_outlives_its_descriptor(void **state)
{
    (void)state;
    struct kithi_map map;
    struct kithi_errmsg err;
    int fd = open(solo.path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(kithi_map_attach(fd, false, &map, &err), 0);
    close(fd);
    struct kithi_view v;
    kithi_view_begin(&map, &v);
    assert_int_equal(v.epoch, 1);
    kithi_map_detach(&map);
}

static void writer_and_readers_map_at_a_boundary_of_huge_pages(void **state)
{
    (void)state;
    struct kithi_map maps[3];
    struct kithi_errmsg err;
    assert_int_equal((uintptr_t)test_solo_map(&solo)->base % KITHI_REGION_ALIGN, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(kithi_map_attach_path(solo.path, i == 1, &maps[i], &err), 0);
        assert_int_equal((uintptr_t)maps[i].base % KITHI_REGION_ALIGN, 0);
    }
    for (unsigned i = 0; i < 3; i++)
        kithi_map_detach(&maps[i]);
}

/* Bytes of address space that are mapped. Not those of statm: an emulator's own notes of each page would count. */
static uint64_t address_space(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[4096];
    uint64_t bytes = 0, from, to;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        assert_int_equal(sscanf(line, "%" SCNx64 "-%" SCNx64, &from, &to), 2);
        bytes += to - from;
    }
    fclose(f);
    return bytes;
}

static void a_mapping_takes_its_length_of_address_space_and_gives_it_back(void **state)
{
    (void)state;
    enum { MAPS = 16 };
    struct kithi_map maps[MAPS];
    struct kithi_errmsg err;
    int fd = open(solo.path, O_RDONLY | O_CLOEXEC);
    uint64_t before = address_space();
    for (unsigned i = 0; i < MAPS; i++)
        assert_int_equal(kithi_map_attach(fd, false, &maps[i], &err), 0);
    uint64_t mapped = address_space();
    for (unsigned i = 0; i < MAPS; i++)
        kithi_map_detach(&maps[i]);
    /* What the allocator takes meanwhile; a mapping that keeps what it was aligned in takes more. */
    uint64_t slack = MAPS * (uint64_t)KITHI_REGION_ALIGN / 2;
    assert_in_range(mapped - before, MAPS * maps[0].len, MAPS * maps[0].len + slack);
    assert_true(address_space() < before + slack);
    close(fd);
}

static void what_cannot_be_mapped_says_why(void **state)
{
    (void)state;
    unsigned char *base = NULL;
    int fd = open(solo.path, O_RDONLY | O_CLOEXEC);
    uint64_t before = address_space();
    assert_int_equal(kithi_map_file(fd, KITHI_REGION_ALIGN, true, &base), -EACCES);
    assert_int_equal(kithi_map_file(fd, (size_t)1 << 62, false, &base), -ENOMEM);
    assert_null(base);
    assert_true(address_space() < before + KITHI_REGION_ALIGN);
    close(fd);
}

static sigjmp_buf after_fault;

static void on_fault(int number)
{
    (void)number;
    siglongjmp(after_fault, 1);
}

static void the_mapping_of_a_reader_cannot_be_stored_to(void **state)
{
    (void)state;
    struct kithi_map map;
    struct kithi_errmsg err;
    assert_int_equal(kithi_map_attach_path(solo.path, false, &map, &err), 0);
    struct sigaction act = { .sa_handler = on_fault }, old;
    sigaction(SIGSEGV, &act, &old);
    volatile bool faulted = true;
    if (sigsetjmp(after_fault, 1) == 0) {
        *(volatile unsigned char *)(map.base + 4096) = 1;
        faulted = false;
    }
    sigaction(SIGSEGV, &old, NULL);
    assert_true(faulted);
    kithi_map_detach(&map);
}

static void a_read_only_file_can_be_attached_for_reading(void **state)
{
    (void)state;
    struct kithi_map map;
    struct kithi_errmsg err;
    const char *path = whole("read-only");
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(kithi_map_attach_path(path, false, &map, &err), 0);
    kithi_map_detach(&map);
}

static void a_missing_file_is_no_collection(void **state)
{
    (void)state;
    assert_refused(test_path(&solo.dir, "missing"), KITHI_E_NO_COLLECTION, "there is no segment");
    assert_refused(test_path(&solo.dir, "segment/below"), KITHI_E_NO_COLLECTION, "there is no segment");
}

static void what_is_no_regular_file_is_no_segment(void **state)
{
    (void)state;
    const char *path = test_path(&solo.dir, "link");
    assert_int_equal(symlink(solo.path, path), 0);
    assert_refused(path, -ELOOP, "symbolic link");
    path = test_path(&solo.dir, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(path, KITHI_E_NOT_SEGMENT, "not a regular file");
    assert_refused(solo.dir.path, KITHI_E_NOT_SEGMENT, "not a regular file");
    assert_refused("/dev/null", KITHI_E_NOT_SEGMENT, "not a regular file");
}

static void a_short_file_is_no_segment_wherever_it_ends(void **state)
{
    (void)state;
    static const size_t cuts[] = { 0, 1, 7, 8, 63, 255, 256, 575, 1023 };
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        assert_refused(copy("short", cuts[i], cuts[i]), KITHI_E_NOT_SEGMENT, "bytes");
    uint64_t total = test_solo_map(&solo)->len;
    static const uint64_t sizes[] = { 1024, 4096, KITHI_HEADER_SIZE };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_refused(copy("short", 1024, sizes[i]), KITHI_E_CORRUPT, "its layout needs");
    assert_refused(copy("short", 1024, total - 1), KITHI_E_CORRUPT, "its layout needs");
}

static void a_segment_that_is_being_built_is_not_attached(void **state)
{
    (void)state;
    const char *path = whole("building");
    put64(path, offsetof(struct kithi_header, magic), 0);
    assert_refused(path, KITHI_E_NOT_SEGMENT, "still being built");
    assert_refused(copy("building", 0, test_solo_map(&solo)->len), KITHI_E_NOT_SEGMENT, "still being built");
}

static void another_magic_is_no_segment(void **state)
{
    (void)state;
    const char *path = whole("magic");
    put64(path, 0, __builtin_bswap64(KITHI_SEGMENT_MAGIC));
    assert_refused(path, KITHI_E_NOT_SEGMENT, "it begins with");
}

static void another_version_is_refused_with_both_numbers(void **state)
{
    (void)state;
    const char *path = whole("version");
    put32(path, offsetof(struct kithi_header, version), 1);
    assert_refused(path, KITHI_E_VERSION, "format version 1, this program reads version 5");
}

static void an_unknown_incompatible_flag_refuses_and_an_unknown_compatible_one_does_not(void **state)
{
    (void)state;
    struct kithi_map map;
    struct kithi_errmsg err;
    const char *path = whole("flags");
    put64(path, offsetof(struct kithi_header, compat_flags), UINT64_C(1) << 63 | 1);
    assert_int_equal(kithi_map_attach_path(path, false, &map, &err), 0);
    kithi_map_detach(&map);
    for (unsigned bit = 0; bit < 64; bit += 21) {
        put64(path, offsetof(struct kithi_header, incompat_flags), UINT64_C(1) << bit);
        assert_refused(path, KITHI_E_VERSION, "incompatible flags");
    }
}

static void a_damaged_geometry_is_corrupt(void **state)
{
    (void)state;
    static const struct {
        size_t off;
        uint32_t value;
        const char *say;
    } bad[] = {
        { offsetof(struct kithi_header, header_size), 4096, "its header has 4096" },
        { offsetof(struct kithi_header, dim), 0, "dim is 0" },
        { offsetof(struct kithi_header, dim), 5, "layout sum" },
        { offsetof(struct kithi_header, dim), UINT32_MAX, "dim is" },
        { offsetof(struct kithi_header, metric), 9, "metric 9" },
        { offsetof(struct kithi_header, m), 0, "m is 0" },
        { offsetof(struct kithi_header, m), 9, "layout sum" },
        { offsetof(struct kithi_header, ef_construction), 0, "ef_construction" },
        { offsetof(struct kithi_header, quantization), 1, "layout sum" },
        { offsetof(struct kithi_header, quantization), 3, "0 bits an element" },
        { offsetof(struct kithi_header, quantization), 4, "quantization 4" },
        { offsetof(struct kithi_header, keep), 1, "without quantization" },
        { offsetof(struct kithi_header, keep), 3, "keep 3" },
        { offsetof(struct kithi_header, code_bits), 1, "1 bits an element" },
        { offsetof(struct kithi_header, slot_max), 0, "max-vectors" },
        { offsetof(struct kithi_header, slot_max), 1001, "layout sum" },
        { offsetof(struct kithi_header, layout_sum), 1, "layout sum" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *path = whole("geometry");
        put32(path, bad[i].off, bad[i].value);
        assert_refused(path, KITHI_E_CORRUPT, bad[i].say);
    }
}

static void a_taken_word_beyond_its_region_is_cut_to_the_region(void **state)
{
    (void)state;
    struct kithi_map map;
    struct kithi_errmsg err;
    const char *path = whole("taken");
    put64(path, offsetof(struct kithi_header, taken) + 8 * KITHI_REGION_RECORDS, UINT64_MAX);
    put64(path, offsetof(struct kithi_header, slots_used), UINT64_MAX);
    put64(path, offsetof(struct kithi_header, taken) + 8 * KITHI_REGION_UPPER, UINT64_MAX);
    assert_int_equal(kithi_map_attach_path(path, false, &map, &err), 0);
    struct kithi_view v;
    kithi_view_begin(&map, &v);
    assert_true(v.slot_limit <= map.geometry.slot_max && v.slots_used <= v.slot_limit);
    assert_true(v.upper_limit <= map.layout.upper_max);
    kithi_map_detach(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attach_copies_what_identifies_the_segment),
        cmocka_unit_test(a_mapping_outlives_its_descriptor),
        cmocka_unit_test(writer_and_readers_map_at_a_boundary_of_huge_pages),
        cmocka_unit_test(a_mapping_takes_its_length_of_address_space_and_gives_it_back),
        cmocka_unit_test(what_cannot_be_mapped_says_why),
        cmocka_unit_test(the_mapping_of_a_reader_cannot_be_stored_to),
        cmocka_unit_test(a_read_only_file_can_be_attached_for_reading),
        cmocka_unit_test(a_missing_file_is_no_collection),
        cmocka_unit_test(what_is_no_regular_file_is_no_segment),
        cmocka_unit_test(a_short_file_is_no_segment_wherever_it_ends),
        cmocka_unit_test(a_segment_that_is_being_built_is_not_attached),
        cmocka_unit_test(another_magic_is_no_segment),
        cmocka_unit_test(another_version_is_refused_with_both_numbers),
        cmocka_unit_test(an_unknown_incompatible_flag_refuses_and_an_unknown_compatible_one_does_not),
        cmocka_unit_test(a_damaged_geometry_is_corrupt),
        cmocka_unit_test(a_taken_word_beyond_its_region_is_cut_to_the_region),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
