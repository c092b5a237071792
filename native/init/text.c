/* What is left of a libc. The compiler itself may call the two memory functions. */
#include "init.h"

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int value, size_t size);

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
	unsigned char *out = to;
	const unsigned char *in = from;
	while (size-- > 0)
		*out++ = *in++;
	return to;
}

void *memset(void *to, int value, size_t size)
{
	unsigned char *out = to;
	while (size-- > 0)
		*out++ = (unsigned char)value;
	return to;
}

size_t text_length(const char *text)
{
	size_t length = 0;
	while (text[length] != 0)
		length++;
	return length;
}

bool text_equal(const char *one, const char *other)
{
	while (*one != 0 && *one == *other)
		one++, other++;
	return *one == *other;
}
