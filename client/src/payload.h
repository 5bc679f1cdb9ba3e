/*
 * payload.h - JSON text to the bytes of a payload (shm/payload/payload.h) and back.
 *
 * What a payload may be: an object of strings, integers of 64 bits, numbers, true, false, null, arrays of strings or of
 * integers, and objects, 16 levels deep and 65536 bytes in its form as bytes. A number with a point or an exponent is a double,
 * any other an integer; both come back as they went in, doubles with the fewest digits that read back as the same.
 */
#ifndef KITHI_CLIENT_PAYLOAD_H
#define KITHI_CLIENT_PAYLOAD_H

#include "client/src/json.h"
#include "shm/base/error.h"
#include "shm/payload/payload.h"

/* Memory for reading, used for one text after the other. Some 1 MiB of addresses, touched as far as payloads are large. */
struct kithi_payload_reader;

struct kithi_payload_reader *kithi_payload_reader_new(void); /* NULL: out of memory */
void kithi_payload_reader_free(struct kithi_payload_reader *r);

/*
 * The object that comes next in a text. Returns its bytes in out, or the error of j, whose place is that of what is wrong.
 */
int kithi_payload_read(struct kithi_payload_reader *r, struct kithi_json *j,
                       unsigned char out[KITHI_PAYLOAD_MAX]);

/*
 * A text that is one object. Returns its bytes in out, KITHI_E_PAYLOAD with a text of err (may be NULL) that says what is wrong
 * and at which byte, or -ENOMEM.
 */
int kithi_payload_from_json(const char *text, size_t len, unsigned char out[KITHI_PAYLOAD_MAX],
                            struct kithi_errmsg *err);

/*
 * A payload that was checked as JSON, members by the bytes of their keys, without white space. Writes at most cap bytes and no NUL;
 * returns the length of the whole, so that more than cap means: too small.
 */
size_t kithi_payload_to_json(const struct kithi_payload *p, char *out, size_t cap);

#endif
