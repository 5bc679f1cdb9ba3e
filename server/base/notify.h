/*
 * notify.h - what a service manager is told: the protocol of systemd's sd_notify(3), by hand.
 *
 * One datagram of VARIABLE=value lines to the socket that $NOTIFY_SOCKET names. Without that variable nobody wants to know,
 * and nothing is done. A service manager that cannot be told is logged and is no reason to stop.
 *
 * Threads: any, as long as nobody changes the environment.
 */
#ifndef KITHI_SERVER_NOTIFY_H
#define KITHI_SERVER_NOTIFY_H

#include <stdint.h>

#include "shm/base/compiler.h"

/* printf's format; lines of VARIABLE=value with '\n' between them, 511 bytes together. */
void kithi_notify(const char *fmt, ...) KITHI_PRINTF(1, 2);

/* How often this process has to say WATCHDOG=1, in ms, before it is taken for dead; 0: nobody waits for that. */
uint64_t kithi_notify_watchdog_ms(void);

#endif
