/*
 * rest_page.c - GET /: the status page, page.html beside this file, which the build has put into the program with the policy for it.
 */
#include "server/gateway/rest.h"

extern const char kithi_gateway_page[], kithi_gateway_page_policy[];
extern const size_t kithi_gateway_page_size;

enum kithi_next kithi_rest_page(struct kithi_request *r)
{
    if (kithi_rest_query_end(r)) {
        r->type = "text/html; charset=utf-8";
        r->policy = kithi_gateway_page_policy;
        kithi_text_put(&r->answer, kithi_gateway_page, kithi_gateway_page_size);
    }
    return KITHI_DONE;
}
