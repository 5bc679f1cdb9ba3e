/*
 * rest_openapi.c - GET /openapi.json: the file beside this one, which the build has put into the program.
 */
#include "server/gateway/rest.h"

extern const char kithi_gateway_openapi[];
extern const size_t kithi_gateway_openapi_size;

enum kithi_next kithi_rest_openapi(struct kithi_request *r)
{
    if (kithi_rest_query_end(r)) {
        kithi_text_put(&r->answer, kithi_gateway_openapi, kithi_gateway_openapi_size);
    }
    return KITHI_DONE;
}
