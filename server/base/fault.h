/*
 * fault.h - named places where a test may make the daemon fail or die.
 *
 * KITH_FAULT="wal-write-eio:5,crash-before-publish:3" in the environment: the fifth passage of the
 * first place fails, the third of the second one ends the process by SIGKILL. A place without a
 * number means its first passage. KITH_HOLD names a directory; whoever comes to a place that a file there holds waits until
 * the file is gone. Builds without KITH_FAULT_POINTS (release) hold none of this.
 */
#ifndef KITHI_SERVER_FAULT_H
#define KITHI_SERVER_FAULT_H

#include <stdbool.h>

#ifdef KITH_FAULT_POINTS

/* True when this passage is the one that shall fail. Thread-safe. */
bool kithi_fault(const char *point);
/* True while a test holds this place for name: while there is a file $KITH_HOLD/<point>-<name>. Thread-safe. */
bool kithi_fault_held(const char *point, const char *name);
/* Does not return when this passage is the one at which to die. Thread-safe. */
void kithi_fault_crash(const char *point);
/* Write what a coverage build has counted, for a process that leaves without exit(3); nothing in others. */
void kithi_fault_counts(void);

#define KITHI_FAULT(point)            kithi_fault(point)
#define KITHI_FAULT_CRASH(point)      kithi_fault_crash(point)
#define KITHI_FAULT_HELD(point, name) kithi_fault_held(point, name)
#define KITHI_FAULT_COUNTS()          kithi_fault_counts()

#else

#define KITHI_FAULT(point)            false
#define KITHI_FAULT_CRASH(point)      ((void)0)
#define KITHI_FAULT_HELD(point, name) ((void)(point), (void)(name), false)
#define KITHI_FAULT_COUNTS()          ((void)0)

#endif

#endif
