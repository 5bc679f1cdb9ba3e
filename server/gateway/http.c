/*
 * http.c - see http.h.
 */
#include "server/gateway/http.h"

#include <string.h>
#include <strings.h>

#define LENGTH_DIGITS 18u /* of Content-Length: below 2^63 */
#define CHUNK_DIGITS  15u /* of a chunk's size */

static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" };

const char *kithi_http_method_name(enum kithi_http_method m)
{
    return m < KITHI_HTTP_OTHER ? methods[m] : "other";
}

static int refuse(struct kithi_http_head *out, int status, const char *why)
{
    out->status = status;
    out->why = why;
    return -1;
}

long kithi_http_end(const char *text, size_t len, size_t *scanned, struct kithi_http_head *out)
{
    size_t i = *scanned;
    for (; i < len; i++) {
        char c = text[i];
        if (c == 0) {
            return refuse(out, 400, "there is a NUL in the head of the request");
        }
        if (c == '\n') {
            if (i == 0 || text[i - 1] != '\r') {
                return refuse(out, 400, "a line of the head ends in LF alone; lines end in CR LF");
            }
            if (i == 1) {
                return refuse(out, 400, "there is an empty line where a request should begin");
            }
            if (i >= 3 && text[i - 2] == '\n') {
                return i < KITHI_HTTP_HEAD_MAX ? (long)i + 1
                                               : refuse(out, 431, "the headers are longer than 16 KiB");
            }
        } else if (i && text[i - 1] == '\r') {
            return refuse(out, 400, "there is a CR in the head that no LF follows");
        }
    }
    *scanned = i;
    /* The longest method and version that there are, and the blanks, beside the target. */
    if (len > KITHI_HTTP_TARGET_MAX + 32 && !memchr(text, '\n', len)) {
        return refuse(out, 414, "the target is longer than 8 KiB");
    }
    if (len >= KITHI_HTTP_HEAD_MAX) {
        return refuse(out, 431, "the headers are longer than 16 KiB");
    }
    return 0;
}

/* tchar of RFC 9110 */
static bool is_token(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool kithi_part_is(struct kithi_part part, const char *text)
{
    return part.at && strlen(text) == part.len && !strncasecmp(part.at, text, part.len);
}

static int request_line(const char *text, size_t len, struct kithi_http_head *out, bool *out_old)
{
    size_t method = 0;
    while (method < len && is_token(text[method])) {
        method++;
    }
    if (method == 0 || method == len || text[method] != ' ') {
        return refuse(out, 400, "the request does not begin with a method and one blank");
    }
    out->method = KITHI_HTTP_OTHER;
    for (unsigned m = 0; m < sizeof methods / sizeof methods[0]; m++) {
        if (strlen(methods[m]) == method && !memcmp(methods[m], text, method)) {
            out->method = (enum kithi_http_method)m;
        }
    }
    const char *target = text + method + 1, *end = text + len;
    size_t n = 0, query = SIZE_MAX;
    while (target + n < end && target[n] > 0x20 && target[n] < 0x7f && target[n] != '#') {
        if (target[n] == '?' && query == SIZE_MAX) {
            query = n;
        }
        n++;
    }
    if (n > KITHI_HTTP_TARGET_MAX) {
        return refuse(out, 414, "the target is longer than 8 KiB");
    }
    if (n == 0 || target + n == end || target[n] != ' ') {
        return refuse(
            out, 400,
            "the target is no printable ASCII without # between one blank on either side; others are "
            "written as %XX");
    }
    if (target[0] != '/') {
        return refuse(out, 400, "the target does not begin with /");
    }
    const char *version = target + n + 1;
    size_t left = (size_t)(end - version);
    if (left != 8 || memcmp(version, "HTTP/", 5) != 0 || !is_digit(version[5]) || version[6] != '.' ||
        !is_digit(version[7])) {
        return refuse(out, 400, "the request line does not end in HTTP/1.1");
    }
    if (version[5] != '1' || version[7] > '1') {
        return refuse(out, 505, "this is a server of HTTP/1.1");
    }
    *out_old = version[7] == '0';
    out->path = (struct kithi_part){ target, query == SIZE_MAX ? n : query };
    if (query != SIZE_MAX) {
        out->query = (struct kithi_part){ target + query + 1, n - query - 1 };
    }
    return 0;
}

/* The tokens of Connection. */
static void connection(struct kithi_part value, struct kithi_http_head *out, bool *close, bool *keep)
{
    (void)out;
    for (size_t at = 0; at < value.len;) {
        const char *comma = memchr(value.at + at, ',', value.len - at);
        size_t end = comma ? (size_t)(comma - value.at) : value.len, begin = at, last = end;
        while (begin < last && (value.at[begin] == ' ' || value.at[begin] == '\t')) {
            begin++;
        }
        while (last > begin && (value.at[last - 1] == ' ' || value.at[last - 1] == '\t')) {
            last--;
        }
        struct kithi_part token = { value.at + begin, last - begin };
        *close = *close || kithi_part_is(token, "close");
        *keep = *keep || kithi_part_is(token, "keep-alive");
        at = end + 1;
    }
}

static int content_length(struct kithi_part value, struct kithi_http_head *out)
{
    if (value.len == 0 || value.len > LENGTH_DIGITS) {
        return refuse(out, value.len ? 413 : 400, "the Content-Length is no number of bytes that can be");
    }
    out->length = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (!is_digit(value.at[i])) {
            return refuse(out, 400, "the Content-Length is not a number");
        }
        out->length = out->length * 10 + (uint64_t)(value.at[i] - '0');
    }
    out->has_length = true;
    return 0;
}

static bool is_host(struct kithi_part value)
{
    for (size_t i = 0; i < value.len; i++) {
        char c = value.at[i];
        if (!is_token(c) && c != ':' && c != '[' && c != ']') {
            return false;
        }
    }
    return value.len > 0;
}

struct heads {
    struct kithi_part length, coding, expect, encoding;
    bool close, keep;
};

/* One header line, without its end. */
static int header(const char *line, size_t len, struct kithi_http_head *out, struct heads *seen)
{
    size_t name_len = 0;
    if (line[0] == ' ' || line[0] == '\t') {
        return refuse(out, 400, "a header line is continued; that is obsolete and refused");
    }
    while (name_len < len && is_token(line[name_len])) {
        name_len++;
    }
    if (name_len == 0 || name_len == len || line[name_len] != ':') {
        return refuse(out, 400, "a header line does not begin with a name and a colon right behind it");
    }
    struct kithi_part name = { line, name_len }, value = { line + name_len + 1, len - name_len - 1 };
    while (value.len && (value.at[0] == ' ' || value.at[0] == '\t')) {
        value.at++;
        value.len--;
    }
    while (value.len && (value.at[value.len - 1] == ' ' || value.at[value.len - 1] == '\t')) {
        value.len--;
    }
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.at[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return refuse(out, 400, "there is a control character in a header");
        }
    }
    if (kithi_part_is(name, "Connection")) {
        connection(value, out, &seen->close, &seen->keep);
        return 0;
    }
    const struct {
        const char *name;
        struct kithi_part *out;
    } once[] = {
        { "Host", &out->host },
        { "Content-Length", &seen->length },
        { "Transfer-Encoding", &seen->coding },
        { "Content-Type", &out->content_type },
        { "Content-Encoding", &seen->encoding },
        { "Authorization", &out->authorization },
        { "X-API-Key", &out->api_key },
        { "Origin", &out->origin },
        { "Sec-Fetch-Site", &out->fetch_site },
        { "X-Request-Id", &out->request_id },
        { "Expect", &seen->expect },
    };
    for (unsigned i = 0; i < sizeof once / sizeof once[0]; i++) {
        if (kithi_part_is(name, once[i].name)) {
            if (once[i].out->at) {
                return refuse(out, 400, "a header that counts once is there twice");
            }
            *once[i].out = value;
        }
    }
    return 0;
}

int kithi_http_head(const char *text, size_t len, struct kithi_http_head *out)
{
    struct heads seen = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 }, { NULL, 0 }, false, false };
    bool old = false;
    unsigned count = 0;
    *out = (struct kithi_http_head){ .method = KITHI_HTTP_OTHER };
    const char *end = memchr(text, '\r', len);
    if (!end || request_line(text, (size_t)(end - text), out, &old) < 0) {
        return end ? -1 : refuse(out, 400, "the head has no end");
    }
    out->old = old;
    out->keep_alive = !old;
    for (const char *line = end + 2; line < text + len;) {
        end = memchr(line, '\r', (size_t)(text + len - line));
        if (!end || end == line) {
            break;
        }
        if (++count > KITHI_HTTP_HEADERS_MAX) {
            return refuse(out, 431, "there are more than 64 headers");
        }
        if (header(line, (size_t)(end - line), out, &seen) < 0) {
            return -1;
        }
        line = end + 2;
    }
    if (!out->host.at && !old) {
        return refuse(out, 400, "there is no Host header");
    }
    if (out->host.at && !is_host(out->host)) {
        return refuse(out, 400, "the Host header is no host");
    }
    if (seen.coding.at && (seen.length.at || old)) {
        return refuse(out, 400,
                      "a body has a Content-Length or a Transfer-Encoding, not both, and in HTTP/1.0 "
                      "never the latter");
    }
    if (seen.coding.at && !kithi_part_is(seen.coding, "chunked")) {
        return refuse(out, 501, "no Transfer-Encoding but chunked is known");
    }
    if (seen.encoding.at && !kithi_part_is(seen.encoding, "identity")) {
        return refuse(out, 415, "bodies are taken without a Content-Encoding");
    }
    if (seen.expect.at && !kithi_part_is(seen.expect, "100-continue")) {
        return refuse(out, 417, "no Expect but 100-continue is known");
    }
    if (seen.length.at && content_length(seen.length, out) < 0) {
        return -1;
    }
    out->chunked = seen.coding.at != NULL;
    out->expects = seen.expect.at != NULL && !old;
    out->keep_alive = seen.close ? false : old ? seen.keep : true;
    return 0;
}

/*
 *   SIZE --hex digits, CR--> SIZE_LF --> DATA --all bytes--> DATA_CR --> DATA_LF --> SIZE
 *                               \__ size 0 __> LAST_CR --> LAST_LF --> over
 */
enum { SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF, LAST_CR, LAST_LF, OVER };

static int hex_digit(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One byte that is not data. False: it does not belong there. */
static bool chunk_byte(struct kithi_http_chunks *c, char byte)
{
    int digit = hex_digit(byte);
    switch (c->state) {
    case SIZE:
        if (digit >= 0 && c->digits < CHUNK_DIGITS) {
            c->left = c->left * 16 + (unsigned)digit;
            c->digits++;
            return true;
        }
        c->state = SIZE_LF;
        return byte == '\r' && c->digits > 0;
    case SIZE_LF:
        c->state = c->left ? DATA : LAST_CR;
        c->digits = 0;
        return byte == '\n';
    case DATA_CR: c->state = DATA_LF; return byte == '\r';
    case DATA_LF: c->state = SIZE; return byte == '\n';
    case LAST_CR: c->state = LAST_LF; return byte == '\r';
    case LAST_LF: c->state = OVER; return byte == '\n';
    default: return false;
    }
}

int kithi_http_chunk(struct kithi_http_chunks *c, const char *text, size_t len, size_t *used,
                     struct kithi_part *out_part)
{
    *out_part = (struct kithi_part){ text, 0 };
    for (*used = 0; *used < len;) {
        if (c->state == DATA) {
            size_t n = len - *used < c->left ? len - *used : (size_t)c->left;
            *out_part = (struct kithi_part){ text + *used, n };
            *used += n;
            c->left -= n;
            c->state = c->left ? DATA : DATA_CR;
            return 0;
        }
        if (!chunk_byte(c, text[(*used)++])) {
            return -1;
        }
        if (c->state == OVER) {
            return 1;
        }
    }
    return 0;
}

struct kithi_part kithi_http_media(struct kithi_part type)
{
    const char *semicolon = type.at ? memchr(type.at, ';', type.len) : NULL;
    if (semicolon) {
        type.len = (size_t)(semicolon - type.at);
    }
    while (type.len && (type.at[type.len - 1] == ' ' || type.at[type.len - 1] == '\t')) {
        type.len--;
    }
    return type;
}

const char *kithi_http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } list[] = {
        { 200, "OK" },
        { 201, "Created" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" },
        { 421, "Misdirected Request" },
        { 422, "Unprocessable Content" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 507, "Insufficient Storage" },
    };
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (list[i].status == status) {
            return list[i].reason;
        }
    }
    return "Unknown";
}
