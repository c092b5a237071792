// SPDX-License-Identifier: Apache-2.0
#ifndef PROBE_JSON_H
#define PROBE_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* One JSON text being written; commas are put where they belong. Starts as all zero. */
struct json {
	char *bytes;
	size_t used, size;
	bool comma;
};

void json_open(struct json *json, char bracket);
void json_close(struct json *json, char bracket);
void json_key(struct json *json, const char *key);
void json_null(struct json *json);
void json_bool(struct json *json, bool value);
void json_signed(struct json *json, long long value);
void json_unsigned(struct json *json, unsigned long long value);
void json_string(struct json *json, const char *text); /* NULL becomes null */
void json_format(struct json *json, const char *format, ...) __attribute__((format(printf, 2, 3)));
void json_hex(struct json *json, const void *bytes, size_t count);

/* A string of any bytes: what is not UTF-8 becomes \u00XX, byte by byte, since a file name is only bytes. */
void json_bytes(struct json *json, const void *bytes, size_t count);

#endif
