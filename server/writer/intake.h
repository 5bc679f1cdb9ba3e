/*
 * intake.h - the socket: sessions, frames in, replies out.
 */
#ifndef KITHI_WRITER_INTAKE_H
#define KITHI_WRITER_INTAKE_H

#include "server/writer/daemon.h"

/* Listen on the run directory's socket. KITHI_E_RUN_DIR when its path is too long. */
int kithi_intake_open(struct kithi_daemon *d, struct kithi_errmsg *err);

/* Take no more connections and read no more requests. */
void kithi_intake_stop(struct kithi_daemon *d);

/* Send what there is to send, read where there is room again, let go of dead sessions. Returns when it
 * wants to be called again, in ms of the clock. */
uint64_t kithi_intake_turn(struct kithi_daemon *d, uint64_t now_ms);

/* Everything that was answered has been sent. */
bool kithi_intake_drained(const struct kithi_daemon *d);

/* Close all sessions, sent or not, once the loop has ended. */
void kithi_intake_fini(struct kithi_daemon *d);

#endif
