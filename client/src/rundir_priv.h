/*
 * rundir_priv.h - from names to paths: the run directory, a collection's segment, the socket.
 */
#ifndef KITHI_CLIENT_RUNDIR_PRIV_H
#define KITHI_CLIENT_RUNDIR_PRIV_H

#include <stdbool.h>

#include "shm/base/error.h"

/* *out (malloc'ed) = dir/a or, when b is not NULL, dir/a/b. 0 or -ENOMEM. */
int kithi_path_join(const char *dir, const char *a, const char *b, char **out);

/* The run directory to use: given, or the default when NULL. Constant or the caller's or the environment's. */
const char *kithi_run_dir(const char *given);

/*
 * May a reader rely on dir? It is there, a directory, not one that everybody can write to, and not
 * reached by somebody else's symbolic link. 0 or KITH_E_RUN_DIR.
 */
int kithi_run_dir_check(const char *dir, struct kithi_errmsg *err);

#endif
