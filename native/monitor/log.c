/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container's output as Docker's json-file driver keeps it, one object a line:
 *
 *   {"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}
 *
 * A line longer than 16 KiB becomes several records, all but the last without "\n". At max_bytes `log`
 * becomes `log.1`. A full disk costs records (they are counted), never the container's progress.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h> /* renameat */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LINE ((size_t)16 * 1024)
#define MAX_ESCAPE ((size_t)6) /* \u0000 */
#define MAX_RECORD (MAX_LINE * MAX_ESCAPE + 128)

struct line {
	size_t size;
	uint8_t bytes[MAX_LINE];
};

static struct line lines[2];
static const char *const stream_names[2] = {[LOG_STDOUT] = "stdout", [LOG_STDERR] = "stderr"};

static struct {
	int fd;
	uint64_t max_bytes, size;
	uint64_t dropped;
	size_t used, records;
} log_file = {.fd = -1};

static char batch[2 * MAX_RECORD]; /* apart, so that it is not a part of the executable */

static bool open_file(void)
{
	struct stat status;
	log_file.fd = openat(DIRECTORY_FD, "log", O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (log_file.fd < 0)
		return false;
	log_file.size = fstat(log_file.fd, &status) == 0 ? (uint64_t)status.st_size : 0;
	return true;
}

bool log_open(uint64_t max_bytes)
{
	log_file.max_bytes = max_bytes;
	return open_file();
}

static bool write_batch(void)
{
	if (log_file.fd < 0 && !open_file())
		return false;
	for (size_t done = 0; done < log_file.used;) {
		const ssize_t size = write(log_file.fd, batch + done, log_file.used - done);
		if (size < 0 && errno == EINTR)
			continue;
		if (size <= 0) {
			/* the disk is full: take half a record back, or the file is no longer JSON lines */
			if (ftruncate(log_file.fd, (off_t)log_file.size) < 0)
				log_file.size += done;
			return false;
		}
		done += (size_t)size;
	}
	log_file.size += log_file.used;
	return true;
}

/* One write for all records since the last. */
void log_flush(void)
{
	if (log_file.records > 0 && !write_batch())
		log_file.dropped += log_file.records;
	log_file.used = 0;
	log_file.records = 0;
}

uint64_t log_dropped(void)
{
	return log_file.dropped;
}

static void rotate(void)
{
	if (renameat(DIRECTORY_FD, "log", DIRECTORY_FD, "log.1") < 0)
		return; /* go on in the old one: better a long log than none */
	if (log_file.fd >= 0)
		close(log_file.fd);
	if (!open_file())
		log_file.size = 0; /* the next batch tries again */
}

/* The size of the UTF-8 character at `at` (RFC 3629), 0 if there is none. */
static size_t character_size(const uint8_t *at, size_t left)
{
	const uint8_t lead = at[0];
	const size_t size = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
	if (size == 0 || size > left)
		return 0;
	if (size == 1)
		return 1;
	/* the second byte also excludes overlong forms, surrogates and what is beyond U+10FFFF */
	const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < size; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	}
	return size;
}

static char *put_escape(char *to, unsigned int code)
{
	static const char hex[] = "0123456789abcdef";
	to = put_text(to, "\\u");
	for (int shift = 12; shift >= 0; shift -= 4)
		*to++ = hex[code >> shift & 15];
	return to;
}

/* As Go's encoding/json writes strings, which is what readers of Docker's logs are used to. */
static char *put_json(char *to, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size;) {
		const uint8_t byte = bytes[i];
		const size_t length = character_size(bytes + i, size - i);
		if (length == 0) {
			to = put_escape(to, 0xfffd);
			i++;
			continue;
		}
		if (length > 1) {
			/* U+2028 and U+2029 end a line in JavaScript */
			if (length == 3 && byte == 0xe2 && bytes[i + 1] == 0x80 && (bytes[i + 2] & 0xfe) == 0xa8) {
				to = put_escape(to, 0x2000u | (bytes[i + 2] & 0x3fu));
			} else {
				memcpy(to, bytes + i, length);
				to += length;
			}
			i += length;
			continue;
		}
		if (byte == '"' || byte == '\\') {
			*to++ = '\\';
			*to++ = (char)byte;
		} else if (byte == '\n') {
			to = put_text(to, "\\n");
		} else if (byte == '\r') {
			to = put_text(to, "\\r");
		} else if (byte == '\t') {
			to = put_text(to, "\\t");
		} else if (byte < 0x20 || byte == '<' || byte == '>' || byte == '&') {
			to = put_escape(to, byte);
		} else {
			*to++ = (char)byte;
		}
		i++;
	}
	return to;
}

static void add_record(enum log_stream stream, const char *time, size_t time_size, size_t size)
{
	struct line *line = &lines[stream];
	if (sizeof(batch) - log_file.used < MAX_RECORD)
		log_flush();

	char *const start = batch + log_file.used;
	char *end = put_text(start, "{\"log\":\"");
	end = put_json(end, line->bytes, size);
	end = put_text(end, "\",\"stream\":\"");
	end = put_text(end, stream_names[stream]);
	end = put_text(end, "\",\"time\":\"");
	memcpy(end, time, time_size);
	end = put_text(end + time_size, "\"}\n");
	const size_t added = (size_t)(end - start);

	const uint64_t before = log_file.size + log_file.used;
	if (log_file.max_bytes > 0 && before > 0 && before + added > log_file.max_bytes) {
		log_flush();
		rotate();
		memmove(batch, start, added);
	}
	log_file.used += added;
	log_file.records++;

	line->size -= size;
	memmove(line->bytes, line->bytes + size, line->size);
}

/* How many bytes at the end begin a character that is not complete. */
static size_t cut_character(const uint8_t *bytes, size_t size)
{
	for (size_t back = 1; back <= 3 && back <= size; back++) {
		const uint8_t byte = bytes[size - back];
		if ((byte & 0xc0) == 0x80)
			continue;
		const size_t whole = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
		return whole > back ? back : 0;
	}
	return 0;
}

/* Add output to the log's batch; a line without its end waits for it, as it does with Docker. */
void log_append(enum log_stream stream, const uint8_t *data, size_t size)
{
	struct line *line = &lines[stream];
	struct timespec now;
	char time[32];
	clock_gettime(CLOCK_REALTIME, &now);
	const size_t time_size = (size_t)(put_time(time, &now) - time);

	while (size > 0) {
		const size_t room = MAX_LINE - line->size;
		const size_t seen = size < room ? size : room;
		const uint8_t *const newline = memchr(data, '\n', seen);
		const size_t taken = newline != NULL ? (size_t)(newline - data) + 1 : seen;
		memcpy(line->bytes + line->size, data, taken);
		line->size += taken;
		data += taken;
		size -= taken;
		if (newline != NULL)
			add_record(stream, time, time_size, line->size);
		else if (line->size == MAX_LINE)
			add_record(stream, time, time_size, MAX_LINE - cut_character(line->bytes, MAX_LINE));
	}
}

/* The stream has ended: what is left has no newline. */
void log_finish(enum log_stream stream)
{
	struct timespec now;
	char time[32];
	if (lines[stream].size == 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	add_record(stream, time, (size_t)(put_time(time, &now) - time), lines[stream].size);
}
