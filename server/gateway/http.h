/*
 * http.h - requests of HTTP/1.1 and 1.0, read strictly: what two readers could understand in two ways is refused.
 *
 * That is: lines end in CR LF; one blank between the parts of the request line, and no control character in it; no blank
 * before a colon, no continued header lines; one Content-Length of digits, or Transfer-Encoding: chunked, never both; no chunk
 * extensions and no trailers; headers that this reader goes by occur once; Host is there. A proxy in front and this reader so
 * agree on where a request ends.
 *
 * Nothing here reads a socket or allocates: the caller holds the bytes, and the parts that come out point into them.
 */
#ifndef KITHI_GATEWAY_HTTP_H
#define KITHI_GATEWAY_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_HTTP_HEAD_MAX    16384u /* bytes of request line and headers */
#define KITHI_HTTP_TARGET_MAX  8192u
#define KITHI_HTTP_HEADERS_MAX 64u

enum kithi_http_method {
    KITHI_HTTP_GET,
    KITHI_HTTP_HEAD,
    KITHI_HTTP_POST,
    KITHI_HTTP_PUT,
    KITHI_HTTP_PATCH,
    KITHI_HTTP_DELETE,
    KITHI_HTTP_OTHER, /* a method that nothing here takes */
};
const char *kithi_http_method_name(enum kithi_http_method m);

/* Some of the caller's bytes; at is NULL for what is not there. */
struct kithi_part {
    const char *at;
    size_t len;
};

struct kithi_http_head {
    enum kithi_http_method method;
    struct kithi_part path, query; /* as they stand in the target, without '?' */
    bool old;                      /* HTTP/1.0 */
    bool keep_alive;
    bool chunked;
    bool has_length;
    uint64_t length; /* of the body, with has_length */
    bool expects;    /* Expect: 100-continue */
    struct kithi_part host, content_type, authorization, api_key, origin, fetch_site, request_id;

    /* Of what is refused: */
    int status;      /* 400, 414, 415, 417, 431, 501, 505 */
    const char *why; /* a sentence, constant */
};

/*
 * Where does the head end? Its bytes with the empty line; 0: not whole yet; -1: refused, out says why. *scanned is 0 at first and kept
 * by the caller between calls with more bytes, so that nothing is looked at twice.
 */
long kithi_http_end(const char *text, size_t len, size_t *scanned, struct kithi_http_head *out);

/* A whole head, len bytes with the empty line. 0, or -1 and status and why. */
int kithi_http_head(const char *text, size_t len, struct kithi_http_head *out);

/* A chunked body on its way. All zeros at first. */
struct kithi_http_chunks {
    int state;
    uint64_t left; /* bytes of this chunk, or its size as far as it is read */
    unsigned digits;
};

/*
 * Go on with len bytes: *used of them were read, and *out_part of these is data of the body (len 0: none). To be called again until it has
 * used all or says that the body is over. 1: it is; 0: more is to come; -1: not chunks, 400.
 */
int kithi_http_chunk(struct kithi_http_chunks *c, const char *text, size_t len, size_t *used,
                     struct kithi_part *out_part);

/* Is the part this text, with letters of either case? */
bool kithi_part_is(struct kithi_part part, const char *text);

/* The media type without its parameters. */
struct kithi_part kithi_http_media(struct kithi_part content_type);

/* 404 -> "Not Found" */
const char *kithi_http_reason(int status);

#endif
