/*
 * opts_priv.h - structs that carry their size, so that programs and libraries of different
 * releases go together. The first member of each is `size_t struct_size`.
 */
#ifndef KITHI_CLIENT_OPTS_PRIV_H
#define KITHI_CLIENT_OPTS_PRIV_H

#include <stddef.h>

/*
 * Copy the caller's struct `from` into `to`, known bytes of it; what an older caller did not have
 * becomes zero. first is the size of the struct in the first release that had it. Returns 0, or
 * -EINVAL when struct_size is below first, or when the caller set something that this release
 * does not know.
 */
int kithi_opts_in(void *to, const void *from, size_t known, size_t first);

/* Fill the caller's struct `to` from ours, as much as it has room for; its struct_size stays. 0 or -EINVAL. */
int kithi_opts_out(void *to, const void *from, size_t known, size_t first);

#endif
