/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CAISSON_MONITOR_PROTOCOL_H
#define CAISSON_MONITOR_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

/*
 * What the monitor says and hears. Both its sockets are SOCK_SEQPACKET: one packet is one message.
 *
 *   0        4        8                 16                    16 + n
 *   ┌────────┬────────┬─────────────────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┐
 *   │ type   │ value  │ extra           │ data, n ≤ 32 KiB    │      integers are little-endian
 *   └────────┴────────┴─────────────────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┘
 *
 * The control socket (descriptor 3) belongs to the creator of the container, from the monitor's start on.
 *
 *   creator                                   monitor
 *      │ ◀──────────────── INIT_STARTED pid ──── │   attach.sock is open from here on
 *      │ ──── CONTAINER pid (+ pidfd) ─────────▶ │   as soon as the pid is known
 *      │ ──── TERMINAL (+ master) ─────────────▶ │   with --tty
 *      │ ──── PORT (+ socket), repeated ───────▶ │
 *      │ ──── MEMORY (+ file) ─────────────────▶ │   once the cgroup is there
 *      │ ◀──────────── INIT_EXITED status ────── │   the first stage, at any time
 *      │ ──── STARTED ─────────────────────────▶ │   the command was executed: output is read from here on
 *      │ ◀───────────────── EXITED status ────── │   at any time after CONTAINER, even before STARTED
 *
 * The creator's end before STARTED undoes everything; after STARTED it means nothing. A creator that wants
 * the output subscribes on attach.sock before it sends STARTED: the monitor reads what its clients have
 * sent before it reads the first byte of output.
 *
 * On attach.sock a client is told nothing that it has not subscribed to.
 *
 *   client                                    monitor
 *      │ ──── SUBSCRIBE mask ──────────────────▶ │
 *      │ ◀────────────────── STDIN_READY ─────── │   may send one STDIN; the next after the next READY
 *      │ ──── STDIN data ──────────────────────▶ │   (a client that does not wait for READY is not read
 *      │ ──── STDIN_CLOSE ─────────────────────▶ │    from while the container does not read)
 *      │ ──── RESIZE rows, columns ────────────▶ │
 *      │ ──── SIGNAL number ───────────────────▶ │
 *      │ ◀───────────── STDOUT, STDERR data ──── │
 *      │ ◀───────────────── EXITED status ────── │   always the last; exit.json and log are complete
 *      │ ──── CLEANED ─────────────────────────▶ │   no clean-up program is needed
 *      │ ──── UNPUBLISHED ─────────────────────▶ │   nothing leads to its ports any more: they are closed, and
 *      │ ◀─────────────────── end of file ────── │   so is this socket: whoever sees its end may bind them
 *
 * An end of file without EXITED: the client was too slow and is not in the foreground, or the creation was
 * undone. When one end closes with messages unread, the other end's next call answers ECONNRESET once,
 * before what is still queued for it: read on until the end of file.
 */

enum message_type {
	/* creator to monitor */
	MESSAGE_CONTAINER = 1, /* value: pid; with its pidfd */
	MESSAGE_TERMINAL = 2,  /* with the terminal's master */
	MESSAGE_PORT = 3,      /* with a bound socket, held until UNPUBLISHED or the monitor's end; MAX_PORTS at most */
	MESSAGE_STARTED = 4,
	MESSAGE_MEMORY = 6, /* with the cgroup's file that counts who was killed for want of memory */
	MESSAGE_ABORT = 5,  /* kill all there is and leave without a record or clean-up program */

	/* monitor to creator */
	MESSAGE_INIT_STARTED = 16, /* value: pid of init, extra: pid of the monitor */
	MESSAGE_INIT_EXITED = 17,  /* value: wait status, extra: pid */
	MESSAGE_FAILED = 18,       /* value: errno, extra: enum failure; fatal before INIT_STARTED */

	/* monitor to creator and to clients */
	MESSAGE_EXITED = 19, /* value: wait status as waitpid(2) has it, extra: pid */

	/* client to monitor */
	MESSAGE_SUBSCRIBE = 32, /* value: enum subscription, ORed; replaces the earlier mask */
	MESSAGE_STDIN = 33,     /* data */
	MESSAGE_STDIN_CLOSE = 34,
	MESSAGE_RESIZE = 35,      /* value: rows, extra: columns */
	MESSAGE_SIGNAL = 36,      /* value: signal number */
	MESSAGE_CLEANED = 37,     /* also from the creator, and from one that is not in the foreground */
	MESSAGE_UNPUBLISHED = 38, /* only after EXITED */

	/* monitor to client */
	MESSAGE_STDOUT = 48, /* data */
	MESSAGE_STDERR = 49, /* data */
	MESSAGE_STDIN_READY = 50,
};

enum subscription {
	SUBSCRIBE_OUTPUT = 1,
	SUBSCRIBE_EXIT = 2,
	SUBSCRIBE_STDIN = 4,      /* wants STDIN_READY */
	SUBSCRIBE_FOREGROUND = 8, /* never loses output: the container waits for it; cleans up after EXITED */
};

enum failure {
	FAILURE_ENVIRONMENT = 1, /* signals, descriptors, /dev/null */
	FAILURE_LOG = 2,
	FAILURE_ATTACH = 3, /* attach.sock */
	FAILURE_STDIO = 4,  /* pipes */
	FAILURE_FORK = 5,
	FAILURE_EXECUTE = 6, /* execveat of init; INIT_EXITED with status 127 follows */
	FAILURE_MESSAGE = 7, /* a message of the creator could not be obeyed */
};

#define MAX_DATA ((size_t)32 * 1024)
#define MAX_PORTS 128
#define MAX_CLIENTS 16

struct header {
	uint32_t type;
	uint32_t value;
	uint64_t extra;
};

struct message {
	struct header header;
	uint8_t data[MAX_DATA];
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "integers go to the wire as they are");
_Static_assert(offsetof(struct header, value) == 4 && offsetof(struct header, extra) == 8, "layout of a header");
_Static_assert(sizeof(struct header) == 16, "size of a header");
_Static_assert(offsetof(struct message, data) == 16, "data follows the header");

#endif
