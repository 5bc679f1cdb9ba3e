/*
 * peer.h - a client of kithd that can say anything: frames, right and wrong ones, over the socket.
 */
#ifndef KITHI_TEST_WRITER_PEER_H
#define KITHI_TEST_WRITER_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/wire/frame.h"

#define PEER_TEXT_SIZE 4096u

struct peer {
    int fd;
    uint64_t tag;
    uint8_t uid[16]; /* of the collection that was opened */
};

struct peer_reply {
    struct kithi_frame frame;
    struct kithi_reply reply;
    char text[PEER_TEXT_SIZE + 1];
};

/* Connect to the daemon of this run directory and say hello. */
void peer_open(struct peer *p, const char *run_dir);
/* Connect only. */
void peer_connect(struct peer *p, const char *run_dir);
void peer_close(struct peer *p);

void peer_send(struct peer *p, const void *bytes, size_t len);
/* Send a frame with the next tag. */
void peer_send_frame(struct peer *p, unsigned type, const void *body, size_t len, uint32_t count);
/* Read one reply. False at the end of the stream. */
bool peer_reply(struct peer *p, struct peer_reply *out);
/* Send a frame and read its reply: the status. */
int peer_call(struct peer *p, unsigned type, const void *body, size_t len, uint32_t count,
              struct peer_reply *out);

/* Slots without a number of their own: kithd's default is 180 GiB of address space, and qemu keeps notes of each page. */
#define PEER_SLOT_MAX 10000u

/* slot_max 0: PEER_SLOT_MAX. */
int peer_create(struct peer *p, const char *name, uint32_t dim, uint32_t slot_max, struct peer_reply *out);
int peer_drop(struct peer *p, const char *name, struct peer_reply *out);
int peer_use(struct peer *p, const char *name, struct peer_reply *out); /* OPEN; later writes go there */

/* A write of n upserts "<prefix><first + i>", every float being value; or of deletes when dim is 0. */
void peer_send_write(struct peer *p, const char *prefix, unsigned first, unsigned n, uint32_t dim,
                     float value);
int peer_write(struct peer *p, const char *prefix, unsigned first, unsigned n, uint32_t dim, float value,
               struct peer_reply *out);

/* The number behind "key": in the collection's statistics. */
uint64_t peer_stat(struct peer *p, const char *key);

#endif
