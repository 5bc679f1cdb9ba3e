/*
 * settings.h - collection.conf: what a collection is, in the data directory.
 *
 * Text, key = value (the configuration syntax of server/base/conf.h), written whole or not at
 * all. Holds the identity that segment, log and later checkpoints repeat.
 */
#ifndef KITHI_WRITER_SETTINGS_H
#define KITHI_WRITER_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/id.h"
#include "shm/layout/geometry.h"
#include "shm/postings/declared.h"
#include "shm/wire/frame.h"

#define KITHI_SETTINGS_NAME "collection.conf"

struct kithi_settings {
    char name[KITHI_NAME_MAX + 1];
    uint8_t uid[16];
    uint8_t hash_key[16];
    uint64_t timeline;
    uint64_t generation; /* of the newest segment file that was begun */
    uint32_t wanted;     /* enum kithi_quantization, as it was asked for: AUTO, too */
    uint32_t keep;       /* enum kithi_keep, as it was asked for */
    bool chosen;         /* false: AUTO that has still to choose */
    bool fixed;          /* geometry.slot_max is the last word: it does not grow */
    struct kithi_geometry
        geometry;       /* of segments that are begun now; of AUTO that has not chosen: plain vectors */
    uint32_t slot_most; /* a ceiling that it had before, if that was higher; else 0 */
    char index[KITHI_DECLARED_TEXT_MAX +
               1]; /* which fields have postings, as kithi_declared_print() has it; "": auto */
};

/*
 * A new identity: random uid, hash key and timeline. asked is a geometry whose quantization may be AUTO, and whose
 * code_bits are set here. What kithi_geometry_check() says, or -errno when the system has no randomness.
 */
int kithi_settings_new(struct kithi_settings *out, const char *name, const struct kithi_geometry *asked,
                       struct kithi_errmsg *err);

/* Another timeline, because visible epochs were lost: their numbers come again with other content. 0 or -errno. */
int kithi_settings_fork(struct kithi_settings *s, struct kithi_errmsg *err);

/*
 * AUTO has chosen quantization (which goes with keep): the geometry follows. Lasts once it is written; a start
 * that still finds a segment of the geometry before takes that over, and lays it out anew.
 */
void kithi_settings_choose(struct kithi_settings *s, uint32_t quantization);

/*
 * What somebody asks for is put into s: what is named in a, the rest as it is. AUTO chooses anew when it is asked for, whatever it has chosen before, or when
 * what is to be kept changes. What kithi_geometry_check() says; then s is of no use.
 */
int kithi_settings_alter(struct kithi_settings *s, const struct kithi_alter *a, struct kithi_errmsg *err);
/* The text of an index, len bytes that are not checked yet, is put into s. KITHI_E_PARAMETER; then s is as it was. */
int kithi_settings_index(struct kithi_settings *s, const void *text, size_t len, struct kithi_errmsg *err);
/* Whether a collection of the one has to be changed in nothing to be one of the other. */
bool kithi_settings_same(const struct kithi_settings *a, const struct kithi_settings *b);
/* The ceiling within which everything fits that was ever written. */
uint32_t kithi_settings_highest(const struct kithi_settings *s);
/* May a segment or a checkpoint of the collection have this geometry? Its layout is then as settings before had it. */
bool kithi_settings_may_lay(const struct kithi_settings *s, const struct kithi_geometry *g);

/* Read and check dir/collection.conf. -errno, KITHI_E_FORMAT, KITHI_E_VERSION, or what the geometry's check says. */
int kithi_settings_read(const char *dir, struct kithi_settings *out, struct kithi_errmsg *err);

/* Write dir/collection.conf; file and directory are synced on return. */
int kithi_settings_write(const char *dir, const struct kithi_settings *s, struct kithi_errmsg *err);

/* 32 hex digits and a NUL. */
void kithi_uid_text(const uint8_t uid[16], char out[33]);

#endif
