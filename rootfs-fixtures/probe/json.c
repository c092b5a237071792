// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append(struct json *json, const char *bytes, size_t count)
{
	if (json->size - json->used < count) {
		size_t size = (json->used + count) * 2;
		char *grown = realloc(json->bytes, size);

		if (grown == NULL)
			abort();
		json->bytes = grown;
		json->size = size;
	}
	memcpy(json->bytes + json->used, bytes, count);
	json->used += count;
}

static void value(struct json *json, const char *text)
{
	if (json->comma)
		append(json, ",", 1);
	append(json, text, strlen(text));
	json->comma = true;
}

void json_open(struct json *json, char bracket)
{
	value(json, (const char[]){bracket, '\0'});
	json->comma = false;
}

void json_close(struct json *json, char bracket)
{
	append(json, &bracket, 1);
	json->comma = true;
}

void json_key(struct json *json, const char *key)
{
	json_string(json, key);
	append(json, ":", 1);
	json->comma = false;
}

void json_null(struct json *json)
{
	value(json, "null");
}

void json_bool(struct json *json, bool truth)
{
	value(json, truth ? "true" : "false");
}

void json_signed(struct json *json, long long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", number);
	value(json, text);
}

void json_unsigned(struct json *json, unsigned long long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", number);
	value(json, text);
}

void json_string(struct json *json, const char *text)
{
	if (text == NULL)
		json_null(json);
	else
		json_bytes(json, text, strlen(text));
}

void json_format(struct json *json, const char *format, ...)
{
	char text[512];
	va_list list;

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	json_string(json, text);
}

void json_hex(struct json *json, const void *bytes, size_t count)
{
	const unsigned char *byte = bytes;
	char text[3];

	value(json, "\"");
	for (size_t i = 0; i < count; i++) {
		snprintf(text, sizeof(text), "%02x", byte[i]);
		append(json, text, 2);
	}
	append(json, "\"", 1);
}

/* Length of the UTF-8 sequence at the start, 0 if there is none (RFC 3629: no overlong, no surrogate). */
static size_t utf8_length(const unsigned char *byte, size_t count)
{
	size_t length = byte[0] < 0x80   ? 1
			: byte[0] < 0xc2 ? 0
			: byte[0] < 0xe0 ? 2
			: byte[0] < 0xf0 ? 3
			: byte[0] < 0xf5 ? 4
					 : 0;
	uint32_t point = byte[0] & (0x7fU >> length);

	if (length > count)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((byte[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (byte[i] & 0x3f);
	}
	if (length == 3 && (point < 0x800 || (point >= 0xd800 && point < 0xe000)))
		return 0;
	if (length == 4 && (point < 0x10000 || point > 0x10ffff))
		return 0;
	return length;
}

void json_bytes(struct json *json, const void *bytes, size_t count)
{
	const unsigned char *byte = bytes;
	char text[8];

	value(json, "\"");
	for (size_t i = 0; i < count;) {
		size_t length = utf8_length(byte + i, count - i);

		if (length == 0 || byte[i] < 0x20 || byte[i] == 0x7f || byte[i] == '"' || byte[i] == '\\') {
			snprintf(text, sizeof(text), "\\u%04x", byte[i]);
			append(json, text, 6);
			i++;
		} else {
			append(json, (const char *)byte + i, length);
			i += length;
		}
	}
	append(json, "\"", 1);
}
