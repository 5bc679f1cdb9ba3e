/*
 * reflection.h - the reflection service: what the descriptors that are part of the program say of files and names.
 *
 * Pure; threads: any.
 */
#ifndef KITHI_GATEWAY_GRPC_REFLECTION_H
#define KITHI_GATEWAY_GRPC_REFLECTION_H

#include "server/gateway/grpc/wire.h"

/*
 * Answer one ServerReflectionRequest. Both versions of the service have the same messages. Without a file or a name that is asked for the
 * answer says so itself. False: refused.
 */
bool kithi_reflection_answer(struct kithi_part request, struct kithi_text *out,
                             struct kithi_refusal *refusal);

/* Is this the full name of a service, as "vectordb.VectorSearch"? */
bool kithi_reflection_is_service(struct kithi_part name);

#endif
