/*
 * jsontext.h - a text as a JSON string, for answers that are put together by printf. (The reader and writer of JSON is the library's,
 * which kithd does without.)
 */
#ifndef KITHI_SERVER_JSONTEXT_H
#define KITHI_SERVER_JSONTEXT_H

#include <stddef.h>

/* Bytes that a text of at most len bytes takes, with quotes and NUL. */
#define KITHI_JSON_TEXT_SIZE(len) (6u * (len) + 3u)

/* text with quotes and a NUL behind, into KITHI_JSON_TEXT_SIZE(strlen(text)) bytes. Where it is not UTF-8, or longer than an id may
 * be, what is not ASCII becomes '?'. Returns the length. */
size_t kithi_json_text(char *out, const char *text);

#endif
