/*
 * rpc.h - the calls of vectordb.proto, and those of health and reflection: one table, and what the calls share.
 *
 * A call is a route of REST in other words: it has its lane, its access and whether it writes (route.h); what it does is shared
 * (search.h, write.h, rest.h), and what is here reads messages and writes them.
 */
#ifndef KITHI_GATEWAY_GRPC_RPC_H
#define KITHI_GATEWAY_GRPC_RPC_H

#include "server/gateway/grpc/wire.h"
#include "server/gateway/rest.h"

enum kithi_rpc_id {
    KITHI_RPC_UPSERT,
    KITHI_RPC_SEARCH,
    KITHI_RPC_DELETE,
    KITHI_RPC_BATCH_SEARCH,
    KITHI_RPC_UPSERT_STREAM,
    KITHI_RPC_GET,
    KITHI_RPC_COUNT_,
    KITHI_RPC_SCROLL,
    KITHI_RPC_FACET,
    KITHI_RPC_CREATE,
    KITHI_RPC_DROP,
    KITHI_RPC_LIST,
    KITHI_RPC_STATS,
    KITHI_RPC_CHECK,
    KITHI_RPC_WATCH,
    KITHI_RPC_REFLECTION,
    KITHI_RPC_REFLECTION_ALPHA,
    KITHI_RPC_IDS, /* how many; and what is no call */
};

enum kithi_rpc_kind {
    KITHI_RPC_UNARY,
    KITHI_RPC_UPSERTS, /* a stream of messages that are applied one after the other, each with its ack */
    KITHI_RPC_ASKS,    /* a stream of messages, each with its answer, at once */
    KITHI_RPC_WATCHES, /* one message, and answers until somebody ends it */
};

struct kithi_rpc {
    enum kithi_rpc_id id;
    const char *path, *name; /* name: in metrics */
    enum kithi_rest_id route;
    enum kithi_rpc_kind kind;
    kithi_call_fn *call;
};

/* NULL: there is none. */
const struct kithi_rpc *kithi_rpc_find(struct kithi_part path);
const struct kithi_rpc *kithi_rpc_of(enum kithi_rpc_id id);

kithi_call_fn kithi_rpc_upsert, kithi_rpc_upsert_stream, kithi_rpc_search, kithi_rpc_delete,
    kithi_rpc_batch_search, kithi_rpc_get, kithi_rpc_count, kithi_rpc_scroll, kithi_rpc_facet,
    kithi_rpc_create, kithi_rpc_drop, kithi_rpc_list, kithi_rpc_stats, kithi_rpc_check, kithi_rpc_reflect;

/* ---- what the calls share ------------------------------------------------------------ */

/* The body of a request is a message of this kind. Makes room for the frame's prefix in the answer. False: refused. */
bool kithi_rpc_read(struct kithi_request *r, const struct kithi_wire_member *members, unsigned count,
                    void *out);
struct kithi_part kithi_rpc_message(const struct kithi_request *r);

/* Its collection: a name, and one that the key is for. False: refused. */
bool kithi_rpc_collection(struct kithi_request *r, struct kithi_part name);

/* A NUL-terminated copy, to be freed; NULL: refused, there is no memory. */
char *kithi_rpc_string(struct kithi_part text, struct kithi_refusal *refusal);
/* An id into out, of KITHI_ID_MAX + 1 bytes. False: refused. */
bool kithi_rpc_id(struct kithi_part id, const char *where, char *out, struct kithi_refusal *refusal);

/* Within min and max, or 0, which leaves *out as it is. False: refused. */
bool kithi_rpc_range(struct kithi_refusal *refusal, const char *where, const char *name, uint64_t value,
                     uint32_t min, uint32_t max, uint32_t *out);
/* An enum of n values. */
bool kithi_rpc_choice(struct kithi_refusal *refusal, const char *where, const char *name, int32_t value,
                      int32_t n);

/*
 * The filter of a message: an expression, a map in the field of that number (it has `count` entries), both or none. *out is NULL
 * without one, else to be freed. False: refused.
 */
bool kithi_rpc_filter(struct kithi_refusal *refusal, const char *where, struct kithi_part expression,
                      struct kithi_part message, uint32_t number, size_t count, char **out);

/* PayloadForm */
enum { KITHI_FORM_METADATA = 0, KITHI_FORM_JSON = 1, KITHI_FORM_NONE = 2, KITHI_FORMS };
/* A payload (JSON, NULL: none) as that form has it, into the fields for metadata and for JSON. */
void kithi_rpc_put_payload(struct kithi_text *out, int form, uint32_t metadata, uint32_t json,
                           const char *payload);
/* A map of strings as a JSON object. False: refused. */
bool kithi_rpc_metadata(struct kithi_part message, uint32_t number, const char *where, struct kithi_text *out,
                        struct kithi_refusal *refusal);

#endif
