/*
 * io_sim.h - a loop on a simulated disk, for tests of the log.
 *
 * Files and directory entries live in memory, twice: as the running system sees them and as
 * the disk would hold them. What is not synced may be lost, in part (512-byte sectors), in
 * any order; operations fail when told to. Everything follows from the seed.
 *
 * kithi_sim_crash() and kithi_sim_stop() write what is left into a real directory, where a
 * scan reads it; ops in flight then complete with -ECANCELED, so that their owners can be
 * closed, and the next kithi_wal_open() on the same simulator is the next start. Sockets, timers and polls complete with -ENOSYS.
 */
#ifndef KITHI_SERVER_IO_SIM_H
#define KITHI_SERVER_IO_SIM_H

#include "server/base/io.h"

/* A simulator whose files lie in dir, a real directory that is empty. */
int kithi_sim_open(const char *dir, uint64_t seed, struct kithi_io **out_io);

/* Let the n-th file operation from now (1: the next) fail with -error; with `forever` all after it too. n 0: none. */
void kithi_sim_fail_at(struct kithi_io *io, uint64_t n, int error, bool forever);

/* File operations so far. */
uint64_t kithi_sim_ops(const struct kithi_io *io);

/* The power fails: unsynced data and names are lost at the seed's whim. 0 or -errno of the real directory. */
int kithi_sim_crash(struct kithi_io *io);

/* The process is killed, the system lives on: all that was written is seen, in-flight writes happen or not. */
int kithi_sim_stop(struct kithi_io *io);

#endif
