/*
 * settings.h - collection.conf: what a collection is, in the data directory.
 *
 * Text, key = value (the configuration syntax of server/base/conf.h), written whole or not at
 * all. Holds the identity that segment, log and later checkpoints repeat.
 */
#ifndef KITHI_WRITER_SETTINGS_H
#define KITHI_WRITER_SETTINGS_H

#include <stdint.h>

#include "shm/base/id.h"
#include "shm/layout/geometry.h"

#define KITHI_SETTINGS_NAME "collection.conf"

struct kithi_settings {
    char name[KITHI_NAME_MAX + 1];
    uint8_t uid[16];
    uint8_t hash_key[16];
    uint64_t timeline;
    uint64_t generation; /* of the newest segment file that was begun */
    struct kithi_geometry geometry;
};

/* A new identity: random uid, hash key and timeline. -errno when the system has no randomness. */
int kithi_settings_new(struct kithi_settings *out, const char *name, const struct kithi_geometry *geometry);

/* Read and check dir/collection.conf. -errno, KITHI_E_FORMAT, KITHI_E_VERSION, or what the geometry's check says. */
int kithi_settings_read(const char *dir, struct kithi_settings *out, struct kithi_errmsg *err);

/* Write dir/collection.conf; file and directory are synced on return. */
int kithi_settings_write(const char *dir, const struct kithi_settings *s, struct kithi_errmsg *err);

/* 32 hex digits and a NUL. */
void kithi_uid_text(const uint8_t uid[16], char out[33]);

#endif
