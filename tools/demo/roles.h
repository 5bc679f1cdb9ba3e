/*
 * roles.h - what the processes beside the parent do: search, or write. Each is a program start of its
 * own, which opens the collection like any other program.
 */
#ifndef KITHI_DEMO_ROLES_H
#define KITHI_DEMO_ROLES_H

/* Search until PHASE_STOP. Returns an exit status. */
int demo_reader_main(const char *run_dir, const char *board_path, unsigned number);

/* Replace and delete rows at random, one write at a time, until PHASE_STOP. */
int demo_writer_main(const char *run_dir, const char *board_path, const char *stem);

#endif
