/*
 * reflection.c - see reflection.h. The descriptors are a FileDescriptorSet that protoc has made of the .proto files of this folder.
 */
#include "server/gateway/grpc/reflection.h"

#include <stddef.h>
#include <string.h>

#include "server/gateway/grpc/status.h"

extern const char kithi_gateway_descriptors[];
extern const size_t kithi_gateway_descriptors_size;

/* Of FileDescriptorSet, FileDescriptorProto, DescriptorProto, ServiceDescriptorProto (descriptor.proto). */
enum { SET_FILE = 1, FILE_NAME = 1, FILE_PACKAGE = 2, FILE_MESSAGE = 4, FILE_ENUM = 5, FILE_SERVICE = 6 };
enum { ANY_NAME = 1, MESSAGE_NESTED = 3, MESSAGE_ENUM = 4, SERVICE_METHOD = 2 };

static bool same(struct kithi_part a, struct kithi_part b)
{
    return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

/* The first of a field of bytes; empty when there is none. */
static struct kithi_part first(struct kithi_part message, uint32_t number)
{
    struct kithi_wire_field field;
    return kithi_wire_each(&message, number, &field) ? field.bytes : (struct kithi_part){ "", 0 };
}

/* Does name begin with this part, and either end there or go on after a dot? Then *name is what follows. */
static bool strip(struct kithi_part *name, struct kithi_part part)
{
    if (name->len < part.len || memcmp(name->at, part.at, part.len) != 0 ||
        (name->len > part.len && name->at[part.len] != '.')) {
        return false;
    }
    size_t n = part.len + (name->len > part.len);
    *name = (struct kithi_part){ name->at + n, name->len - n };
    return true;
}

/* Is name one of those in this list of messages, enums, services or methods, or within one? */
static bool holds(struct kithi_part owner, uint32_t number, uint32_t nested, uint32_t nested_too,
                  struct kithi_part name)
{
    struct kithi_wire_field field;
    while (kithi_wire_each(&owner, number, &field)) {
        struct kithi_part rest = name;
        if (!strip(&rest, first(field.bytes, ANY_NAME))) {
            continue;
        }
        if (rest.len == 0 ||
            (nested && holds(field.bytes, nested, nested == SERVICE_METHOD ? 0 : nested, nested_too, rest)) ||
            (nested_too && holds(field.bytes, nested_too, 0, 0, rest))) {
            return true;
        }
    }
    return false;
}

static bool file_holds(struct kithi_part file, struct kithi_part name)
{
    if (!strip(&name, first(file, FILE_PACKAGE)) || name.len == 0) {
        return false;
    }
    return holds(file, FILE_MESSAGE, MESSAGE_NESTED, MESSAGE_ENUM, name) ||
           holds(file, FILE_ENUM, 0, 0, name) || holds(file, FILE_SERVICE, SERVICE_METHOD, 0, name);
}

static struct kithi_part descriptors(void)
{
    return (struct kithi_part){ kithi_gateway_descriptors, kithi_gateway_descriptors_size };
}

bool kithi_reflection_is_service(struct kithi_part name)
{
    struct kithi_part set = descriptors();
    struct kithi_wire_field file;
    while (kithi_wire_each(&set, SET_FILE, &file)) {
        struct kithi_part rest = name;
        if (strip(&rest, first(file.bytes, FILE_PACKAGE)) && rest.len &&
            holds(file.bytes, FILE_SERVICE, 0, 0, rest)) {
            return true;
        }
    }
    return false;
}

enum { BY_NAME = 3, BY_SYMBOL = 4, BY_EXTENSION = 5, EXTENSIONS_OF = 6, LIST_SERVICES = 7 };
enum {
    VALID_HOST = 1,
    ORIGINAL = 2,
    FILE_ANSWER = 4,
    EXTENSIONS_ANSWER = 5,
    LIST_ANSWER = 6,
    ERROR_ANSWER = 7
};

static void put_error(struct kithi_text *out, const char *message)
{
    size_t error = kithi_wire_open(out, ERROR_ANSWER);
    kithi_wire_put_uint(out, 1, KITHI_GRPC_NOT_FOUND);
    kithi_wire_put_string(out, 2, message);
    kithi_wire_close(out, error);
}

/* The file of that name, or that has that name in it. */
static void put_file(struct kithi_text *out, struct kithi_part wanted, bool by_symbol)
{
    struct kithi_part set = descriptors();
    struct kithi_wire_field file;
    while (kithi_wire_each(&set, SET_FILE, &file)) {
        if (by_symbol ? file_holds(file.bytes, wanted) : same(first(file.bytes, FILE_NAME), wanted)) {
            size_t answer = kithi_wire_open(out, FILE_ANSWER);
            kithi_wire_put_item(out, 1, file.bytes.at, file.bytes.len);
            kithi_wire_close(out, answer);
            return;
        }
    }
    put_error(out, by_symbol ? "there is no such name" : "there is no such file");
}

static void put_services(struct kithi_text *out)
{
    struct kithi_part set = descriptors();
    struct kithi_wire_field file, service;
    size_t answer = kithi_wire_open(out, LIST_ANSWER);
    while (kithi_wire_each(&set, SET_FILE, &file)) {
        struct kithi_part package = first(file.bytes, FILE_PACKAGE), rest = file.bytes;
        while (kithi_wire_each(&rest, FILE_SERVICE, &service)) {
            struct kithi_part name = first(service.bytes, ANY_NAME);
            char full[128];
            if (package.len + name.len + 1 > sizeof full) {
                continue;
            }
            memcpy(full, package.at, package.len);
            full[package.len] = '.';
            memcpy(full + package.len + 1, name.at, name.len);
            size_t item = kithi_wire_open(out, 1);
            kithi_wire_put_bytes(out, 1, full, package.len + 1 + name.len);
            kithi_wire_close(out, item);
        }
    }
    kithi_wire_close(out, answer);
}

struct request {
    struct kithi_part host;
};

bool kithi_reflection_answer(struct kithi_part request, struct kithi_text *out, struct kithi_refusal *refusal)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, offsetof(struct request, host), "host" },
    };
    struct request read = { { NULL, 0 } };
    struct kithi_wire_field field, asked = { .number = 0 };
    struct kithi_part rest = request;
    if (!kithi_wire_read(request, members, 1, "", &read, refusal)) {
        return false;
    }
    while (kithi_wire_next(&rest, &field) == 1) { /* of a oneof the last counts */
        if (field.number >= BY_NAME && field.number <= LIST_SERVICES) {
            asked = field;
        }
    }
    if (asked.number && asked.type != KITHI_WIRE_BYTES) {
        kithi_refuse(refusal, 400, "protobuf", NULL, "the request is no ServerReflectionRequest");
        return false;
    }
    kithi_wire_put_bytes(out, VALID_HOST, read.host.at, read.host.len);
    kithi_wire_put_item(out, ORIGINAL, request.at, request.len);
    switch (asked.number) {
    case BY_NAME: put_file(out, asked.bytes, false); break;
    case BY_SYMBOL: put_file(out, asked.bytes, true); break;
    case LIST_SERVICES: put_services(out); break;
    case BY_EXTENSION:
    case EXTENSIONS_OF: put_error(out, "there are no extensions"); break;
    default:
        kithi_refuse(refusal, 400, "protobuf", NULL, "the request asks for nothing that reflection knows");
        return false;
    }
    return true;
}
