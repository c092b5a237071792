/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container's standard streams: two pipes out and maybe one in, or a terminal's master for all of it.
 * A stream holds one chunk; it is read again when every client has that chunk, so that a slow foreground
 * client slows the container as a pipe would, and nobody else does for long.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { TERMINAL_RETRY_MS = 100, TERMINAL_DRAIN = 1 << 20 };

struct stream {
	int fd; /* −1: ended, or not there */
	enum message_type type;
	enum log_stream log;
	uint32_t waiting; /* clients that have not got the chunk yet */
	size_t size;
	size_t budget; /* bytes that are still read when the container has exited */
	int64_t asleep_until_ms;
	uint8_t *chunk;
};

/* Apart, so that they are not a part of the executable. */
static uint8_t chunks[3][MAX_DATA];

static struct stream streams[2] = {
    {.fd = -1, .type = MESSAGE_STDOUT, .log = LOG_STDOUT, .chunk = chunks[0]},
    {.fd = -1, .type = MESSAGE_STDERR, .log = LOG_STDERR, .chunk = chunks[1]},
};

static struct {
	int fd; /* −1: no (more) input */
	bool closing;
	size_t start, end;
	uint8_t *chunk;
} input = {.fd = -1, .chunk = chunks[2]};

static struct {
	bool terminal, keep_stdin, begun, ending;
	struct winsize size; /* asked for before the terminal came */
} console;

/* Fill `stdio` with what init gets; the caller closes it with console_close_stdio when init has it. */
bool console_open(const struct options *options, int stdio[3])
{
	console.terminal = options->terminal;
	console.keep_stdin = options->keep_stdin;
	for (int fd = 0; fd < 3; fd++)
		stdio[fd] = fd; /* our own are /dev/null */
	if (options->terminal)
		return true;
	for (int i = 0; i < 2; i++) {
		int ends[2];
		if (pipe2(ends, O_CLOEXEC) < 0)
			return false;
		stdio[1 + i] = ends[1];
		streams[i].fd = ends[0];
		/* of our end only: the container's end is another open file, and stays blocking */
		if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
			return false;
	}
	if (options->keep_stdin) {
		int ends[2];
		if (pipe2(ends, O_CLOEXEC) < 0)
			return false;
		stdio[0] = ends[0];
		input.fd = ends[1];
		return fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0;
	}
	return true;
}

void console_close_stdio(int stdio[3])
{
	for (int i = 0; i < 3; i++) {
		if (stdio[i] >= CONTROL_FD)
			close(stdio[i]);
	}
}

bool console_set_terminal(int fd)
{
	if (!console.terminal || streams[0].fd >= 0 || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		return false;
	streams[0].fd = fd;
	if (console.keep_stdin)
		input.fd = fd;
	if (console.size.ws_row != 0)
		ioctl(fd, TIOCSWINSZ, &console.size);
	return true;
}

void console_resize(uint16_t rows, uint16_t columns)
{
	console.size = (struct winsize){.ws_row = rows, .ws_col = columns};
	if (console.terminal && streams[0].fd >= 0)
		ioctl(streams[0].fd, TIOCSWINSZ, &console.size);
}

/* From now on output is read. What was written before waits in the pipes. */
void console_begin(void)
{
	console.begun = true;
}

/* May clients send input, now or later? */
bool console_input_wanted(void)
{
	return input.fd >= 0 && !input.closing;
}

/* Is there room for a message of input? True, too, when it would be thrown away. */
bool console_input_free(void)
{
	return input.start == input.end;
}

static void end_input(void)
{
	if (input.fd >= 0 && !console.terminal)
		close(input.fd);
	input.fd = -1;
	input.start = input.end = 0;
}

static void write_input(void)
{
	while (input.start < input.end) {
		const ssize_t size = write(input.fd, input.chunk + input.start, input.end - input.start);
		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0 && errno == EAGAIN)
			return;
		if (size < 0 && !console.terminal) {
			end_input(); /* EPIPE: nobody reads any more */
			return;
		}
		/* a terminal that nobody has open at the moment (EIO) loses what is typed, but may come back
		 */
		input.start = size < 0 ? input.end : input.start + (size_t)size;
	}
	input.start = input.end = 0;
	if (input.closing)
		end_input();
}

/* Only when console_input_free(). */
void console_input(const void *data, size_t size)
{
	if (!console_input_wanted())
		return;
	memcpy(input.chunk, data, size);
	input.end = size;
	write_input();
}

/* The container's stdin ends after what it has been given. A terminal's does not: its users type ^D. */
void console_input_close(void)
{
	if (console.terminal || input.fd < 0)
		return;
	input.closing = true;
	write_input();
}

static void end_stream(struct stream *stream)
{
	if (console.terminal)
		input.fd = -1;
	close(stream->fd);
	stream->fd = -1;
	log_finish(stream->log);
}

/* Read one chunk to the log and the clients. False when there is no more now. */
static bool read_stream(struct stream *stream)
{
	const ssize_t size = read(stream->fd, stream->chunk, MAX_DATA);
	if (size > 0) {
		stream->size = (size_t)size;
		log_append(stream->log, stream->chunk, stream->size);
		stream->waiting = attach_deliver(stream->type, stream->chunk, stream->size, ALL_CLIENTS);
		return true;
	}
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	/* EIO: no process has the terminal open; while the container lives one may open it again */
	if (size < 0 && console.terminal && !console.ending)
		stream->asleep_until_ms = now_ms() + TERMINAL_RETRY_MS;
	else
		end_stream(stream);
	return false;
}

void console_poll(struct pollfd slots[CONSOLE_SLOTS], int64_t *deadline_ms)
{
	for (int i = 0; i < 2; i++) {
		const struct stream *stream = &streams[i];
		/* a terminal without a user is always "ready" (POLLHUP): do not spin on it */
		const bool asleep = stream->asleep_until_ms > now_ms();
		if (asleep)
			advance_deadline(deadline_ms, stream->asleep_until_ms);
		slots[i] = (struct pollfd){.fd = console.begun && !asleep && stream->waiting == 0 ? stream->fd : -1,
					   .events = POLLIN};
	}
	slots[2] = (struct pollfd){.fd = console_input_free() ? -1 : input.fd, .events = POLLOUT};
}

void console_serve(const struct pollfd slots[CONSOLE_SLOTS])
{
	for (int i = 0; i < 2; i++) {
		struct stream *stream = &streams[i];
		if (stream->waiting != 0)
			stream->waiting = attach_deliver(stream->type, stream->chunk, stream->size, stream->waiting);
		else if (slots[i].revents != 0 && stream->fd >= 0)
			read_stream(stream);
	}
	if (slots[2].revents != 0 && input.fd >= 0)
		write_input();
}

/*
 * The container has exited. What it wrote is in the pipes already; a process that it left behind may go on
 * writing, so no more is read than a pipe can hold.
 */
void console_end(void)
{
	console.ending = true;
	if (!console.terminal)
		end_input();
	for (int i = 0; i < 2; i++) {
		const int size = streams[i].fd < 0 ? 0 : fcntl(streams[i].fd, F_GETPIPE_SZ);
		streams[i].budget = size < 0 ? TERMINAL_DRAIN : (size_t)size;
	}
}

/* True when all that the container wrote is in the log and with the clients. */
bool console_drain(void)
{
	bool drained = true;
	for (int i = 0; i < 2; i++) {
		struct stream *stream = &streams[i];
		while (stream->fd >= 0 && stream->waiting == 0) {
			const bool more = stream->budget > 0 && read_stream(stream);
			if (more)
				stream->budget -= stream->size < stream->budget ? stream->size : stream->budget;
			else if (stream->fd >= 0)
				end_stream(stream);
		}
		drained = drained && stream->fd < 0 && stream->waiting == 0;
	}
	return drained;
}
