/*
 * dir_priv.h - a directory as kithd demands it: a real one, its own, not writable by others.
 */
#ifndef KITHI_TOOLS_DOCTOR_DIR_PRIV_H
#define KITHI_TOOLS_DOCTOR_DIR_PRIV_H

#include <sys/stat.h>

#include "tools/doctor/doctor_priv.h"

/*
 * Is path ("the run directory") there, and a directory? Sets what is wrong and returns false; f is left alone otherwise.
 * what follows its first mention in brackets: by which rule it is this one.
 */
bool kithi_dir_there(const struct kithi_doctor *d, const char *what, const char *path, const char *rule,
                     struct kithi_finding *f);

/*
 * Owner and mode, and that nobody else may write. False when it is bad, or cannot be looked at; *out is what it was judged
 * by.
 */
bool kithi_dir_owned(const struct kithi_doctor *d, const char *what, const char *path,
                     struct kithi_finding *f, struct stat *out);

#endif
