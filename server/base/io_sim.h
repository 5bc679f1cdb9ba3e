/*
 * io_sim.h - a loop on a simulated disk, for tests of whatever has to be durable.
 *
 * What reads return lies in a real directory, so that whoever reads need not know; what the disk would hold lies in
 * memory. What is not synced may be lost, in part (512-byte sectors), in any order, and bits of it may turn; names in a
 * directory that is not synced may be lost likewise. Operations fail when told to, bytes that were durable are damaged when told
 * to. Everything follows from the seed.
 *
 * A life ends with kithi_sim_crash() or kithi_sim_stop(), and may be over before that, with kithi_sim_end_at(): from then on
 * nothing it does reaches a file. Ops in flight complete with -ECANCELED, so that their owners can be closed; after that
 * kithi_sim_start() begins the next life on the same simulator. Sockets, timers and polls complete with -ENOSYS.
 *
 * Paths of files begin with the simulator's directory; what is below is up to the caller, who makes the directories.
 */
#ifndef KITHI_SERVER_IO_SIM_H
#define KITHI_SERVER_IO_SIM_H

#include "server/base/io.h"

/* A simulator whose files lie in dir, a real directory, and below; none is there that it should know of. */
int kithi_sim_open(const char *dir, uint64_t seed, struct kithi_io **out_io);

/* Let the n-th file operation from now (1: the next) fail with -error; with `forever` all after it too. n 0: none. */
void kithi_sim_fail_at(struct kithi_io *io, uint64_t n, int error, bool forever);

/* File operations so far. */
uint64_t kithi_sim_ops(const struct kithi_io *io);

/* Let this life be over with the n-th file operation from now, which happens or not: it and all after it get -EIO. n 0: do not. */
void kithi_sim_end_at(struct kithi_io *io, uint64_t n);
bool kithi_sim_ended(const struct kithi_io *io);

/* The power fails: unsynced data and names are lost at the seed's whim. 0 or -errno of the real directory. */
int kithi_sim_crash(struct kithi_io *io);

/* The process is killed, the system lives on: all that was written is seen, in-flight writes happen or not. */
int kithi_sim_stop(struct kithi_io *io);

/* The next life begins. */
void kithi_sim_start(struct kithi_io *io);

/* A slow disk: while on, writes that are to be durable stay in flight, and everything else goes on. Off when a life begins. */
void kithi_sim_hold(struct kithi_io *io, bool on);

/* What syncing each file of dir, and dir, does. */
int kithi_sim_settle(struct kithi_io *io, const char *dir);

/*
 * Damage something that is durable in one of the files: a bit turns, or sectors are as if their write had gone to another place,
 * or had been meant for one. `with`: in a file that has this in its name; NULL: in any. False: nothing has changed.
 */
bool kithi_sim_damage(struct kithi_io *io, const char *with);
/* From now on a power failure, too, may do that, by a write that is under way. */
void kithi_sim_misdirect(struct kithi_io *io, bool on);
/* Put all damaged bytes back. */
void kithi_sim_mend(struct kithi_io *io);
/* The same for a moment: once more without `hide` they are as they were. No life is under way. */
void kithi_sim_hide_damage(struct kithi_io *io, bool hide);
/* Is one of these bytes damaged? */
bool kithi_sim_is_damaged(const struct kithi_io *io, const char *path, uint64_t off, uint64_t len);
/* Files that have a name with this in it (NULL: any), and are damaged. */
unsigned kithi_sim_damaged(const struct kithi_io *io, const char *with);

#endif
