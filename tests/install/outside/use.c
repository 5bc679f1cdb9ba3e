/*
 * use.c - a first program against the installed library. KITH_RUN names an empty directory.
 */
#include <kith/kith.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    struct kith_error error = { 0, "" };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    char version[32];
    kith *index = NULL;
    int rc;

    snprintf(version, sizeof(version), "%d.%d.%d", KITH_VERSION_MAJOR, KITH_VERSION_MINOR,
             KITH_VERSION_PATCH);
    if (strcmp(version, kith_version()) != 0) {
        fprintf(stderr, "header %s, library %s\n", version, kith_version());
        return 1;
    }
    opts.error = &error;
    rc = kith_open("nobody", &opts, &index);
    if (rc != KITH_E_NO_COLLECTION || index || error.code != rc || error.text[0] == '\0') {
        fprintf(stderr, "kith_open: %s: %s\n", kith_errname(rc), error.text);
        return 1;
    }
    kith_close(index);
    printf("kith %s: %s\n", kith_version(), error.text);
    return 0;
}
