/*
 * test_cli_files.c - kith, the command line, against a real kithd: files of vectors, read and written, right and wrong
 * ones, into collections of every layout.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/layout/geometry.h"
#include "tests/proc/cli.h"

static void every_format_loads_the_same_vectors(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    const int32_t dim = DIM;
    char header[128], jsonl[TEST_PATH_SIZE], fvecs[TEST_PATH_SIZE], bvecs[TEST_PATH_SIZE],
        npy[TEST_PATH_SIZE], ids[TEST_PATH_SIZE];
    make_rows(rows);
    snprintf(fvecs, sizeof fvecs, "%s", write_fvecs("v.fvecs", rows, ROWS));
    snprintf(bvecs, sizeof bvecs, "%s", test_path(&files, "v.bvecs"));
    snprintf(npy, sizeof npy, "%s", test_path(&files, "v.npy"));
    snprintf(jsonl, sizeof jsonl, "%s", test_path(&files, "v.jsonl"));
    snprintf(ids, sizeof ids, "%s", test_path(&files, "v.ids"));
    FILE *b = fopen(bvecs, "wb"), *n = fopen(npy, "wb"), *j = fopen(jsonl, "wb"), *i_ = fopen(ids, "wb");
    assert_true(b != NULL && n != NULL && j != NULL && i_ != NULL);
    int len = snprintf(header, sizeof header,
                       "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }\n", ROWS, DIM);
    fwrite("\x93NUMPY\x01\x00", 1, 8, n);
    fputc(len, n);
    fputc(0, n);
    fwrite(header, 1, (size_t)len, n);
    for (size_t i = 0; i < ROWS; i++) {
        fwrite(&dim, 4, 1, b);
        fwrite(rows[i], sizeof(float), DIM, n);
        fprintf(j, "{\"id\":%zu,\"vector\":[", i);
        for (size_t k = 0; k < DIM; k++) {
            fputc((int)rows[i][k], b);
            fprintf(j, "%s%g", k > 0 ? "," : "", (double)rows[i][k]);
        }
        fprintf(j, "]}\n");
        fprintf(i_, "name %zu\n", i);
    }
    assert_true(fclose(b) == 0 && fclose(n) == 0 && fclose(j) == 0 && fclose(i_) == 0);

    char want[256] = "[", *at = want + 1;
    for (size_t k = 0; k < DIM; k++)
        at += sprintf(at, "%s%g", k > 0 ? "," : "", (double)rows[431][k]);
    strcpy(at, "]\n");
    const char *const paths[] = { fvecs, bvecs, npy, jsonl };
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        create("formats", "6", "l2");
        expect_says(KITH("--json", "load", "formats", paths[p]), "{\"name\":\"formats\",\"file\":\"",
                    "\"read\":600,\"loaded\":600,", "\"seconds\":", "\"rate\":", "\"error\":null}\n", NULL);
        expect_count("formats", "600\n");
        expect_ok(KITH("get", "formats", "431"), want);
        expect_verified("formats");
        drop("formats");
    }
    create("formats", "6", "l2");
    expect_says(KITH("load", "formats", fvecs, "--ids", ids), "loaded 600 vectors in ", NULL);
    expect_ok(KITH("get", "formats", "name 431"), want);
    /* Loading it again replaces every vector. */
    expect_says(KITH("load", "formats", fvecs, "--ids", ids), "loaded 600 vectors", NULL);
    expect_count("formats", "600\n");
    expect_verified("formats");
    drop("formats");
}

static void what_is_exported_loads_again(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    static const char *const SUFFIXES[] = { "jsonl", "fvecs", "npy" };
    make_rows(rows);
    create("from", "6", "l2");
    expect_says(KITH("load", "from", write_fvecs("e.fvecs", rows, ROWS)), "loaded 600", NULL);
    expect_says(KITH("put", "from", "odd \"id\" \xc3\xa4", "--vector", "[0.1,-0.2,3e-9,4,5,6]"), "epoch",
                NULL);
    struct result given = KITH("get", "from", "odd \"id\" \xc3\xa4");
    for (size_t i = 0; i < sizeof SUFFIXES / sizeof *SUFFIXES; i++) {
        char name[32], path[TEST_PATH_SIZE], ids[TEST_PATH_SIZE];
        snprintf(name, sizeof name, "out.%s", SUFFIXES[i]);
        snprintf(path, sizeof path, "%s", test_path(&files, name));
        snprintf(ids, sizeof ids, "%s", test_path(&files, "out.ids"));
        unlink(ids);
        expect_says(KITH("--json", "export", "from", path), "{\"name\":\"from\",\"file\":\"",
                    i == 0 ? "\"ids_file\":null," : "\"ids_file\":\"", "\"exported\":601,\"epoch\":", NULL);
        create("to", "6", "l2");
        if (i == 0)
            expect_says(KITH("load", "to", path), "loaded 601", NULL);
        else
            expect_says(KITH("load", "to", path, "--ids", ids), "loaded 601", NULL);
        expect_count("to", "601\n");
        expect_ok(KITH("get", "to", "odd \"id\" \xc3\xa4"), given.out);
        drop("to");
    }
    done(&given);
    drop("from");
    expect_fail(KITH("export", "from", test_path(&files, "none.npy")), 1, "from");
    assert_int_equal(access(test_path(&files, "none.npy"), F_OK), -1);
    assert_int_equal(access(test_path(&files, "none.npy.partial"), F_OK), -1);
}

static void a_wrong_line_is_named_and_all_before_it_is_kept(void **state)
{
    (void)state;
    static const struct {
        const char *bad, *text;
    } cases[] = {
        { "{\"id\":\"x\",\"vector\":[1,2,}", "line 501, byte " },
        { "{\"id\":\"x\",\"vector\":[1,2,3]}", "line 501: has 3 dimensions, the collection has 2" },
        { "{\"id\":\"\",\"vector\":[1,2]}", "line 501, byte " },
        { "{\"vector\":[1,2]}", "line 501: has no \"id\"" },
        { "{\"id\":\"x\",\"vector\":[0,0]}", "line 501: a zero vector has no direction" },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *path = test_path(&files, "bad.jsonl");
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        for (int i = 1; i <= 700; i++) {
            if (i == 501)
                fprintf(f, "%s\n", cases[c].bad);
            else
                fprintf(f, "{\"id\":%d,\"vector\":[1,%d]}\n", i, i);
        }
        assert_int_equal(fclose(f), 0);
        create("lines", "2", "cosine");
        struct result r = KITH("--json", "load", "lines", path);
        if (r.status != 1 || strstr(r.err, cases[c].text) == NULL ||
            strstr(r.err, "500 vectors were loaded") == NULL || strstr(r.out, "\"loaded\":500,") == NULL ||
            strstr(r.out, "\"error\":\"") == NULL)
            fail_msg("status %d, stdout %s, stderr %s", r.status, r.out, r.err);
        done(&r);
        expect_count("lines", "500\n");
        expect_verified("lines");
        drop("lines");
    }
}

static void wrong_vector_files_are_refused(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    make_rows(rows);
    create("files", "6", "l2");
    write_fvecs("cut.fvecs", rows, 10);
    assert_int_equal(truncate(test_path(&files, "cut.fvecs"), 10 * (4 + DIM * 4) - 1), 0);
    expect_fail(KITH("load", "files", test_path(&files, "cut.fvecs")), 1,
                "row 9: the file ends in the middle");
    expect_count("files", "9\n");
    FILE *f = fopen(write_fvecs("mixed.fvecs", rows, 10), "ab");
    const int32_t five = 5;
    assert_non_null(f);
    fwrite(&five, 4, 1, f);
    fwrite(rows[0], 4, 5, f);
    fclose(f);
    expect_fail(KITH("load", "files", test_path(&files, "mixed.fvecs")), 1,
                "row 10: has 5 dimensions, the collection has 6");
    rows[3][2] = NAN;
    expect_fail(KITH("load", "files", write_fvecs("nan.fvecs", rows, 10)), 1,
                "row 3: a vector holds NaN or infinity");
    expect_fail(KITH("load", "files", test_path(&files, "none.fvecs")), 1, "none.fvecs: cannot be opened");
    expect_fail(KITH("load", "files", write_text("v.txt", "1 2 3")), 1,
                "are read from .fvecs, .bvecs, .npy and .jsonl");
    char ids[TEST_PATH_SIZE];
    rows[3][2] = 1;
    snprintf(ids, sizeof ids, "%s", write_text("short.ids", "a\nb\n"));
    expect_fail(KITH("load", "files", write_fvecs("ten.fvecs", rows, 10), "--ids", ids), 1,
                "ends after 2 ids");
    expect_ok(KITH("count", "files"), "12\n");
    snprintf(ids, sizeof ids, "%s", write_text("long.ids", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n"));
    expect(KITH("load", "files", test_path(&files, "ten.fvecs"), "--ids", ids), 1, NULL,
           "has more lines than");
    snprintf(ids, sizeof ids, "%s", write_text("bad.ids", "a\n\xff\n"));
    expect_fail(KITH("load", "files", test_path(&files, "ten.fvecs"), "--ids", ids), 1,
                "bad.ids: line 2: not an id");
    snprintf(ids, sizeof ids, "%s", write_text("some.ids", "a\n"));
    expect_fail(KITH("load", "files", write_text("x.jsonl", ""), "--ids", ids), 2,
                "--ids does not go with a .jsonl file");
    expect_says(KITH("--json", "load", "files", write_text("none.jsonl", "")),
                "\"loaded\":0,\"epoch\":", "\"first_missing\":null,\"error\":null}", NULL);
    expect_verified("files");
    drop("files");
}

static void a_full_collection_says_so_and_keeps_what_was_acknowledged(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    make_rows(rows);
    expect(KITH("create", "full", "--dim", "6", "--metric", "l2", "--max-vectors", "300", "--fixed"), 0, NULL,
           "");
    struct result r = KITH("--json", "load", "full", write_fvecs("full.fvecs", rows, ROWS));
    unsigned long loaded = 0;
    const char *at = strstr(r.out, "\"loaded\":");
    if (r.status != 1 || at == NULL || strstr(r.err, "--max-vectors") == NULL ||
        strstr(r.out, "\"first_missing\":256,") == NULL ||
        strstr(r.err, "the first that is missing is ") == NULL)
        fail_msg("status %d, stdout %s, stderr %s", r.status, r.out, r.err);
    loaded = strtoul(at + strlen("\"loaded\":"), NULL, 10);
    done(&r);
    char count[32];
    snprintf(count, sizeof count, "%lu\n", loaded);
    expect_count("full", count);
    assert_true(loaded > 0 && loaded <= 300);
    expect_verified("full");
    drop("full");
}

static void bench_counts_recall_as_the_contract_says(void **state)
{
    (void)state;
    static float rows[ROWS][DIM];
    enum { QUERIES = 20, K = 5 };
    int32_t truth[QUERIES][K + 1];
    char queries[TEST_PATH_SIZE], path[TEST_PATH_SIZE], ids[TEST_PATH_SIZE];
    make_rows(rows);
    create("bench", "6", "l2");
    FILE *f = fopen(test_path(&files, "b.ids"), "wb");
    assert_non_null(f);
    for (size_t i = 0; i < ROWS; i++)
        fprintf(f, "id-%zu\n", i);
    fclose(f);
    snprintf(ids, sizeof ids, "%s", test_path(&files, "b.ids"));
    expect_says(KITH("load", "bench", write_fvecs("b.fvecs", rows, ROWS), "--ids", ids), "loaded", NULL);
    /* Truth by counting, for each query, the K nearest rows. */
    for (size_t q = 0; q < QUERIES; q++) {
        bool taken[ROWS] = { false };
        truth[q][0] = K;
        for (size_t k = 1; k <= K; k++) {
            size_t best = ROWS;
            float best_distance = INFINITY;
            for (size_t i = 0; i < ROWS; i++) {
                float d = 0;
                for (size_t j = 0; j < DIM; j++)
                    d += (rows[i][j] - rows[q][j]) * (rows[i][j] - rows[q][j]);
                if (!taken[i] && d < best_distance) {
                    best = i;
                    best_distance = d;
                }
            }
            taken[best] = true;
            truth[q][k] = (int32_t)best;
        }
    }
    snprintf(queries, sizeof queries, "%s", write_fvecs("q.fvecs", rows, QUERIES));
    snprintf(path, sizeof path, "%s", write_file("t.ivecs", truth, sizeof truth));
    expect_says(KITH("--json", "bench", "bench", "--queries", queries, "--truth", path, "--ids", ids, "-k",
                     "5", "--ef", "200,600", "--threads", "2", "--seconds", "0.1"),
                "{\"ef\":200,\"recall\":1.000000,\"qps\":", ",\"p50_us\":", ",\"p99_us\":", ",\"p999_us\":",
                "\n{\"ef\":600,\"recall\":1.000000,", NULL);
    expect_says(KITH("bench", "bench", "--queries", queries, "--truth", path, "--ids", ids, "-k", "5", "--ef",
                     "200", "--seconds", "0.1"),
                "RECALL", "1.0000", NULL);
    expect_fail(KITH("bench", "bench", "--queries", queries, "--truth", path, "-k", "5"), 1,
                "was the same file loaded, without --ids?");
    expect_fail(KITH("bench", "bench", "--queries", queries, "--truth", path, "--ids", ids), 1,
                "row 0 knows 5 neighbours; -k 10");
    snprintf(path, sizeof path, "%s", write_file("t.ivecs", truth, sizeof truth[0]));
    expect_fail(KITH("bench", "bench", "--queries", queries, "--truth", path, "--ids", ids, "-k", "5"), 1,
                "has 1 rows, but there are 20 queries");
    expect_says(KITH("--json", "search", "bench", "--queries", queries, "-k", "1"),
                "{\"query\":0,\"hits\":[{\"id\":\"id-0\",\"distance\":0}]}\n"
                "{\"query\":1,\"hits\":[{\"id\":\"id-1\",\"distance\":0}]}\n",
                NULL);
    drop("bench");
}

static void every_quantization_with_everything_kept(void **state)
{
    (void)state;
    static const struct {
        const char *quantization, *keep, *decoded;
    } ALL[] = {
        { "none", "f32", NULL },   { "f16", "f32", NULL },  { "f16", "f16", "f16" },
        { "f16", "none", "f16" },  { "sq8", "f32", NULL },  { "sq8", "f16", "f16" },
        { "sq8", "none", "sq8" },  { "bits", "f32", NULL }, { "bits", "f16", "f16" },
        { "bits", "none", "sq8" },
    };
    static float rows[ROWS][DIM];
    static const char *const METRICS[] = { "l2", "cosine", "ip" };
    char data[TEST_PATH_SIZE], text[200], file[TEST_PATH_SIZE];
    make_rows(rows);
    snprintf(data, sizeof data, "%s", write_fvecs("codes.fvecs", rows, ROWS));
    snprintf(file, sizeof file, "%s", test_path(&files, "codes.jsonl"));
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++) {
        const char *decoded = ALL[i].decoded;
        snprintf(text, sizeof text, "quantization %s, keep %s\n", ALL[i].quantization, ALL[i].keep);
        expect_says(KITH("create", "codes", "--dim", "6", "--metric", METRICS[i % 3], "--quantization",
                         ALL[i].quantization, "--keep", ALL[i].keep),
                    text, NULL);
        expect(KITH("load", "codes", data), 0, NULL, "");
        expect_verified("codes");
        snprintf(
            text, sizeof text,
            "\"quantization\":\"%s\",\"quantization_wanted\":\"%s\",\"keep\":\"%s\",\"keep_wanted\":\"%s\","
            "\"undecided\":false,\"code_bits\":%u,\"decoded\":%s,",
            ALL[i].quantization, ALL[i].quantization, ALL[i].keep, ALL[i].keep,
            strcmp(ALL[i].quantization, "bits") ? 0 : kithi_geometry_code_bits(DIM),
            decoded ? "true" : "false");
        expect_says(KITH("--json", "stats", "codes"), text, NULL);
        snprintf(text, sizeof text, "values decoded from %s codes", decoded ? decoded : "");
        if (decoded)
            expect_says(KITH("stats", "codes"), text, NULL);
        snprintf(text, sizeof text, "\"quantization\":\"%s\",\"keep\":\"%s\"", ALL[i].quantization,
                 ALL[i].keep);
        expect_says(KITH("--json", "list"), text, NULL);
        expect_says(KITH("--json", "inspect", "codes"), text, NULL);
        expect_says(KITH("inspect", "codes"), ALL[i].quantization, ALL[i].keep,
                    strcmp(ALL[i].quantization, "bits")
                        ? "128 B: links"
                        : "704 B: links, the code, 1 x 512 B for neighbours with 64 signs",
                    NULL);

        /* Whoever is given decoded values is told. */
        snprintf(text, sizeof text, "values are decoded from %s codes", decoded ? decoded : "");
        expect(KITH("get", "codes", "431"), 0, NULL, decoded ? text : "");
        expect(KITH("export", "codes", file), 0, NULL, decoded ? text : "");
        snprintf(text, sizeof text, "\"decoded\":%s}\n", decoded ? "true" : "false");
        expect_says(KITH("--json", "get", "codes", "431"), text, NULL);
        expect_says(KITH("--json", "export", "codes", file), text, NULL);
        drop("codes");
    }

    /* A daemon that starts again finds the same. */
    expect(
        KITH("create", "codes", "--dim", "6", "--metric", "l2", "--quantization", "bits", "--keep", "none"),
        0, NULL, "");
    expect(KITH("load", "codes", data), 0, NULL, "");
    assert_int_equal(test_daemon_stop(&daemon_), 0);
    assert_int_equal(test_daemon_start(&daemon_), 0);
    expect_says(KITH("--json", "stats", "codes"), "\"live\":600,", "\"generation\":1,",
                "\"quantization\":\"bits\",\"quantization_wanted\":\"bits\",\"keep\":\"none\"", NULL);
    expect_verified("codes");
    drop("codes");
}

/* By the command itself, which asks no daemon. */
static void codes_that_do_not_go_together_are_bad_usage(void **state)
{
    (void)state;
    static const char *const KEEP[] = { "f16", "none" };
    for (size_t i = 0; i < 2; i++) {
        char text[100];
        struct result r;
        snprintf(text, sizeof text,
                 "--keep %s needs codes: use --quantization f16, sq8, bits or auto, or --keep f32", KEEP[i]);
        expect_fail(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--quantization", "none",
                         "--keep", KEEP[i]),
                    2, text);
        run_argv(&r, (const char *[]){ getenv("KITH_TEST_KITH"), "--run", test_path(&files, "no-such-run"),
                                       "create", "codes", "--dim", "2", "--metric", "l2", "--keep", KEEP[i],
                                       "--quantization=none", NULL });
        expect_fail(r, 2, text);
        /* auto will choose one that goes with it. */
        expect(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--keep", KEEP[i]), 0, NULL, "");
        snprintf(text, sizeof text, "\"keep\":\"f32\",\"keep_wanted\":\"%s\"", KEEP[i]);
        expect_says(KITH("--json", "stats", "codes"), text, NULL);
        expect_says(KITH("stats", "codes"), "auto has still to choose", "until auto has chosen", NULL);
        drop("codes");
    }
    expect_ok(KITH("list"), "no collections\n");

    /* Names that are none. */
    static const char *const WRONG[] = { "F16", "f32", "sq", "bits2" };
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++)
        expect_fail(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--quantization", WRONG[i]), 2,
                    "--quantization is none, f16, sq8, bits or auto");
    static const char *const UNKEPT[] = { "sq8", "auto", "F32", "bits" };
    for (size_t i = 0; i < sizeof UNKEPT / sizeof *UNKEPT; i++)
        expect_fail(KITH("create", "codes", "--dim", "2", "--metric", "l2", "--keep", UNKEPT[i]), 2,
                    "--keep is f32, f16 or none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_loads_the_same_vectors),
        cmocka_unit_test(what_is_exported_loads_again),
        cmocka_unit_test(a_wrong_line_is_named_and_all_before_it_is_kept),
        cmocka_unit_test(wrong_vector_files_are_refused),
        cmocka_unit_test(a_full_collection_says_so_and_keeps_what_was_acknowledged),
        cmocka_unit_test(bench_counts_recall_as_the_contract_says),
        cmocka_unit_test(every_quantization_with_everything_kept),
        cmocka_unit_test(codes_that_do_not_go_together_are_bad_usage),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
