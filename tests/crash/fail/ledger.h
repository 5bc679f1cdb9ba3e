/*
 * ledger.h - an exact account of what one client asked for and was told, for when any call of the daemon may fail.
 *
 * Two collections. A request is noted before it is sent and again with its outcome: done; refused, and then it must
 * never be seen; or unknown, when it may be there whole or not at all. What a segment holds is right when it follows
 * from all that was done and some of what is unknown, in the order in which it was sent.
 *
 * The account lies in memory that the client, which may hang or be killed, shares with its parent.
 */
#ifndef KITHI_TEST_FAIL_LEDGER_H
#define KITHI_TEST_FAIL_LEDGER_H

#include <kith/kith.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/support/tmp.h"

#define LEDGER_DIM    512u
#define LEDGER_IDS    720u
#define LEDGER_OPS    96u
#define LEDGER_LOGGED 200u

enum ledger_collection { LEDGER_MAIN, LEDGER_SIDE, LEDGER_COLLECTIONS };
extern const char *const ledger_names[LEDGER_COLLECTIONS];

enum ledger_kind { LEDGER_CREATE, LEDGER_DROP, LEDGER_WRITE };
enum ledger_outcome { LEDGER_UNKNOWN, LEDGER_DONE, LEDGER_REFUSED };

struct ledger_op {
    enum ledger_kind kind;
    enum ledger_collection collection;
    uint32_t first, count; /* ids of a write */
    uint32_t version;      /* which they get; 0: they are deleted */
    _Atomic int outcome;
    int code; /* what the client was told */
    char text[LEDGER_LOGGED];
};

struct ledger {
    _Atomic uint32_t count;
    struct ledger_op ops[LEDGER_OPS];
    char bad[2 * LEDGER_LOGGED]; /* what the client itself found wrong; "": nothing */
};

/* One client of the daemon behind run, which can look into the daemon's data directory. */
struct ledger_client {
    struct ledger *ledger;
    char run[TEST_PATH_SIZE], data[TEST_PATH_SIZE];
    kith *handles[LEDGER_COLLECTIONS];
};

void ledger_client_init(struct ledger_client *c, struct ledger *ledger, const char *run, const char *data);
void ledger_client_fini(struct ledger_client *c);

/* Do it and note it. What the client was told: 0 or a code. */
int ledger_create(struct ledger_client *c, enum ledger_collection which);
int ledger_drop(struct ledger_client *c, enum ledger_collection which);
int ledger_put(struct ledger_client *c, enum ledger_collection which, uint32_t first, uint32_t count,
               uint32_t version);
int ledger_delete(struct ledger_client *c, enum ledger_collection which, uint32_t first, uint32_t count);
/* Not noted: it changes nothing that is seen. Once it is acknowledged its file has to be there. */
int ledger_checkpoint(struct ledger_client *c, enum ledger_collection which);

/*
 * Does the run directory hold what it may? Verifies the segments besides. False after messages. run: where segments are;
 * data: where collections are, or NULL to go by the segments.
 */
bool ledger_holds(struct ledger *ledger, const char *run, const char *data);

#endif
