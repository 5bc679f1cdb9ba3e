/*
 * memory_file.h - one file that is in memory alone, for code that opens files by their names: most of the time of a small input would
 * go into making a real one.
 *
 * The linker leads the calls of MEMORY_FILE_CALLS (CMakeLists.txt) here. Those that are about something else go on to the C library.
 */
#ifndef KITHI_FUZZ_MEMORY_FILE_H
#define KITHI_FUZZ_MEMORY_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A directory that has this file in it and nothing else. */
#define MEMORY_DIR "/kith-fuzz-memory"

/*
 * The file is there from now on, under MEMORY_DIR/name, and there is no other. data stays the caller's and must not change meanwhile.
 * holes: blocks of 4096 bytes that are zeros are holes of the file, where it is asked for them.
 */
void memory_file_set(const char *name, const uint8_t *data, size_t size, bool holes);

/* How many of its descriptors, streams and directories are open. */
unsigned memory_file_open_count(void);

#endif
