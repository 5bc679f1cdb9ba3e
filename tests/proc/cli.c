/*
 * cli.c - see cli.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/proc/cli.h"
#include "tests/support/rand.h"

enum { ARG_MAX_COUNT = 24 };

struct test_daemon daemon_;
struct test_dir files;
char run_path[TEST_PATH_SIZE + 8];

static char *read_file(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (f == NULL || fstat(fileno(f), &st) != 0)
        test_die("%s: %s", path, strerror(errno));
    char *text = calloc(1, (size_t)st.st_size + 1);
    if (text == NULL || fread(text, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        test_die("%s: cannot be read", path);
    fclose(f);
    return text;
}

void run_argv(struct result *r, const char *const argv[])
{
    /* Not test_path(), whose few buffers the arguments may be in. */
    char out[TEST_PATH_SIZE + 8], err[TEST_PATH_SIZE + 8];
    snprintf(out, sizeof out, "%s/stdout", files.path);
    snprintf(err, sizeof err, "%s/stderr", files.path);
    pid_t pid = fork();
    if (pid < 0)
        test_die("fork: %s", strerror(errno));
    if (pid == 0) {
        int o = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600),
            e = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(o, STDOUT_FILENO);
        dup2(e, STDERR_FILENO);
        alarm(60); /* a command that hangs fails the test */
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(126);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r->out = read_file(out);
    r->err = read_file(err);
}

void done(struct result *r)
{
    free(r->out);
    free(r->err);
}

struct result run_kith(const char *first, ...)
{
    struct result r;
    const char *argv[ARG_MAX_COUNT] = { getenv("KITH_TEST_KITH"), "--run", run_path };
    size_t n = 3;
    va_list ap;
    va_start(ap, first);
    for (const char *arg = first; arg != NULL && n + 1 < ARG_MAX_COUNT; arg = va_arg(ap, const char *))
        argv[n++] = arg;
    va_end(ap);
    run_argv(&r, argv);
    return r;
}

void expect(struct result r, int status, const char *out, const char *err)
{
    if (r.status != status || (out != NULL && strcmp(r.out, out) != 0) ||
        (err != NULL && (*err == '\0' ? *r.err != '\0' : strstr(r.err, err) == NULL)))
        fail_msg("status %d (wanted %d)\nstdout: %s\n wanted: %s\nstderr: %s\n wanted: %s", r.status, status,
                 r.out, out != NULL ? out : "anything", r.err, err != NULL ? err : "anything");
    if (status != 0 && *r.err == '\0')
        fail_msg("failed without a word");
    done(&r);
}

void expect_ok(struct result r, const char *out)
{
    expect(r, 0, out, "");
}

void expect_fail(struct result r, int status, const char *err)
{
    expect(r, status, "", err);
}

void expect_says(struct result r, ...)
{
    va_list ap;
    va_start(ap, r);
    for (const char *text; (text = va_arg(ap, const char *)) != NULL;)
        if (r.status != 0 || strstr(r.out, text) == NULL)
            fail_msg("status %d, \"%s\" is not in: %s%s", r.status, text, r.out, r.err);
    va_end(ap);
    done(&r);
}

const char *write_file(const char *name, const void *bytes, size_t len)
{
    const char *path = test_path(&files, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(bytes, 1, len, f) != len || fclose(f) != 0)
        test_die("%s: %s", path, strerror(errno));
    return path;
}

const char *write_text(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

void make_rows(float rows[ROWS][DIM])
{
    struct test_rand r;
    test_rand_seed(&r, 7);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < DIM; j++)
            rows[i][j] = (float)(test_rand_below(&r, 200) + 1);
}

const char *write_fvecs(const char *name, float rows[][DIM], size_t n)
{
    const int32_t dim = DIM;
    const char *path = test_path(&files, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL)
        test_die("%s: %s", path, strerror(errno));
    for (size_t i = 0; i < n; i++) {
        fwrite(&dim, 4, 1, f);
        fwrite(rows[i], sizeof(float), DIM, f);
    }
    fclose(f);
    return path;
}

void create(const char *name, const char *dim, const char *metric)
{
    struct result r = KITH("create", name, "--dim", dim, "--metric", metric);
    expect(r, 0, NULL, "");
}

void drop(const char *name)
{
    struct result r = KITH("drop", name);
    expect(r, 0, NULL, "");
}

void expect_count(const char *name, const char *count)
{
    expect_ok(KITH("count", name), count);
}

void expect_verified(const char *name)
{
    expect_says(KITH("verify", name, "--json"), "\"clean\":true", "\"violations\":0,\"first\":[]", NULL);
}

int set_up(void **state)
{
    (void)state;
    if (getenv("KITH_TEST_KITH") == NULL)
        test_die("KITH_TEST_KITH does not name the program; run this test through ctest, or set it");
    test_dir_make(&files);
    test_daemon_init(&daemon_);
    snprintf(run_path, sizeof run_path, "%s/run", daemon_.run.path);
    return test_daemon_start(&daemon_);
}

int tear_down(void **state)
{
    (void)state;
    int status = test_daemon_stop(&daemon_);
    test_daemon_fini(&daemon_);
    test_dir_remove(&files);
    return status;
}
