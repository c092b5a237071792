/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients on attach.sock. A client in the foreground gets every byte, and the container waits for it; any
 * other that takes nothing for SLOW_MS is dropped.
 */
#include "monitor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum { SLOW_MS = 2000, MAX_MESSAGES_A_TURN = 16 };

struct client {
	int fd; /* −1: a free place */
	uint32_t mask;
	bool full;  /* its socket takes no more for now */
	bool deaf;  /* it reads no more; what it has sent still counts */
	bool held;  /* it sent input that the container does not take yet */
	bool gone;  /* it left while it was held; poll would say so without end */
	bool ready; /* may send input */
	bool told;  /* has EXITED */
	int64_t full_since_ms;
};

static int listener = -1;
static struct client clients[MAX_CLIENTS];
static struct {
	const struct child *container; /* NULL: has not exited */
	bool drained;
} outcome;

/* By way of the directory's descriptor: sun_path has 108 bytes, paths have 4096. */
static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/proc/self/fd/5/attach.sock"};

bool attach_open(void)
{
	for (int i = 0; i < MAX_CLIENTS; i++)
		clients[i].fd = -1;
	attach_unlink(); /* one that a killed monitor left */
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0)
		return false;
	/* bind makes the file; a chmod afterwards would come too late */
	const mode_t mask = umask(0177);
	const int bound = bind(listener, (const struct sockaddr *)&address, sizeof(address));
	umask(mask);
	return bound == 0 && listen(listener, SOMAXCONN) == 0;
}

void attach_unlink(void)
{
	unlinkat(DIRECTORY_FD, "attach.sock", 0);
}

static void drop(struct client *client)
{
	close(client->fd);
	*client = (struct client){.fd = -1};
}

static bool send_to(struct client *client, const struct header *header, const void *data, size_t size)
{
	struct iovec parts[] = {{.iov_base = (void *)(uintptr_t)header, .iov_len = sizeof(*header)},
				{.iov_base = (void *)(uintptr_t)data, .iov_len = size}};
	const struct msghdr message = {.msg_iov = parts, .msg_iovlen = size > 0 ? 2 : 1};
	if (sendmsg(client->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
		client->full_since_ms = 0;
		return true;
	}
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) {
		client->deaf = true;
		return false;
	}
	client->full = true;
	if (client->full_since_ms == 0)
		client->full_since_ms = now_ms();
	return false;
}

static bool is_open(const struct client *client, uint32_t subscription)
{
	return client->fd >= 0 && !client->deaf && (client->mask & subscription) != 0;
}

/* Send output to the clients in the set `to`; the set of those that have to be tried again. */
uint32_t attach_deliver(enum message_type type, const void *data, size_t size, uint32_t to)
{
	const struct header header = {.type = type};
	uint32_t left = 0;
	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &clients[i];
		if ((to & 1u << i) == 0 || !is_open(client, SUBSCRIBE_OUTPUT))
			continue;
		if (client->full || (!send_to(client, &header, data, size) && client->full))
			left |= 1u << i;
	}
	return left;
}

/* The container has exited: tell those who do not wait for output, and once it is drained, all. */
void attach_announce(const struct child *container, bool drained)
{
	outcome.container = container;
	outcome.drained = drained;
}

static bool is_owed_exit(const struct client *client)
{
	return outcome.container != NULL && is_open(client, SUBSCRIBE_EXIT) && !client->told &&
	       (outcome.drained || (client->mask & SUBSCRIBE_OUTPUT) == 0);
}

bool attach_has_foreground(void)
{
	for (int i = 0; i < MAX_CLIENTS; i++) {
		if (clients[i].fd >= 0 && !clients[i].gone && (clients[i].mask & SUBSCRIBE_FOREGROUND) != 0)
			return true;
	}
	return false;
}

/* Is any client still to be told of the exit? It is, or gets dropped, within SLOW_MS. */
bool attach_is_busy(void)
{
	for (int i = 0; i < MAX_CLIENTS; i++) {
		if (is_owed_exit(&clients[i]))
			return true;
	}
	return false;
}

static void obey(struct monitor *monitor, struct client *client, const struct message *message, size_t size)
{
	const struct header *header = &message->header;
	switch (header->type) {
	case MESSAGE_SUBSCRIBE:
		client->mask = header->value;
		break;
	case MESSAGE_STDIN:
		client->ready = false;
		console_input(message->data, size);
		break;
	case MESSAGE_STDIN_CLOSE:
		console_input_close();
		break;
	case MESSAGE_RESIZE:
		console_resize((uint16_t)header->value, (uint16_t)header->extra);
		break;
	case MESSAGE_SIGNAL:
		signal_container(monitor, (int)header->value);
		break;
	case MESSAGE_CLEANED:
		monitor->cleaned = true;
		break;
	case MESSAGE_UNPUBLISHED:
		if (outcome.container != NULL)
			close_ports();
		drop(client);
		break;
	default:
		drop(client); /* it speaks something else */
	}
}

static bool next_is_input(const struct client *client)
{
	struct header header;
	return recv(client->fd, &header, sizeof(header), MSG_PEEK | MSG_DONTWAIT) == sizeof(header) &&
	       header.type == MESSAGE_STDIN;
}

static void receive(struct monitor *monitor, struct client *client)
{
	static struct message message;
	for (int turn = 0; turn < MAX_MESSAGES_A_TURN && client->fd >= 0; turn++) {
		client->held = !console_input_free() && next_is_input(client);
		if (client->held)
			return;
		const ssize_t size = recv(client->fd, &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);
		/* said once when it closed with messages of ours unread; its own follow */
		if (size < 0 && (errno == ECONNRESET || errno == EINTR))
			continue;
		if (size < 0 && errno == EAGAIN)
			return;
		if (size < (ssize_t)sizeof(message.header) || size > (ssize_t)sizeof(message))
			drop(client); /* end of file, or too long */
		else
			obey(monitor, client, &message, (size_t)size - sizeof(message.header));
	}
}

static void accept_clients(void)
{
	for (;;) {
		const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			return;
		int place = 0;
		while (place < MAX_CLIENTS && clients[place].fd >= 0)
			place++;
		if (place == MAX_CLIENTS)
			close(fd); /* an end of file is clearer than a wait without end */
		else
			clients[place] = (struct client){.fd = fd};
	}
}

/* Accept and read, whatever poll has said. */
void attach_receive_all(struct monitor *monitor)
{
	accept_clients();
	for (int i = 0; i < MAX_CLIENTS; i++) {
		if (clients[i].fd >= 0)
			receive(monitor, &clients[i]);
	}
}

void attach_poll(struct pollfd slots[1 + MAX_CLIENTS], int64_t *deadline_ms)
{
	slots[0] = (struct pollfd){.fd = listener, .events = POLLIN};
	for (int i = 0; i < MAX_CLIENTS; i++) {
		const struct client *client = &clients[i];
		const bool waits = client->held && !console_input_free();
		short events = waits ? 0 : POLLIN;
		if (client->full)
			events |= POLLOUT;
		slots[1 + i] = (struct pollfd){.fd = waits && client->gone ? -1 : client->fd, .events = events};
		if (client->fd >= 0 && client->full && (client->mask & SUBSCRIBE_FOREGROUND) == 0)
			advance_deadline(deadline_ms, client->full_since_ms + SLOW_MS);
	}
}

/* Send what the client is owed, other than output. */
static void pay(struct client *client)
{
	if (!client->full && !client->ready && is_open(client, SUBSCRIBE_STDIN) && console_input_wanted() &&
	    console_input_free()) {
		const struct header header = {.type = MESSAGE_STDIN_READY};
		client->ready = send_to(client, &header, NULL, 0);
	}
	if (!client->full && is_owed_exit(client)) {
		const struct header header = {.type = MESSAGE_EXITED,
					      .value = (uint32_t)outcome.container->status,
					      .extra = (uint64_t)outcome.container->pid};
		client->told = send_to(client, &header, NULL, 0);
	}
}

void attach_serve(struct monitor *monitor, const struct pollfd slots[1 + MAX_CLIENTS])
{
	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &clients[i];
		const short events = slots[1 + i].revents;
		if (client->fd < 0)
			continue;
		if ((events & (POLLOUT | POLLHUP | POLLERR)) != 0)
			client->full = false;
		if (client->held && (events & POLLHUP) != 0)
			client->gone = client->deaf = true; /* its input still counts */
		if (client->held ? console_input_free() : (events & (POLLIN | POLLHUP | POLLERR)) != 0) {
			client->gone = false;
			receive(monitor, client);
		}
	}
	if (slots[0].revents != 0)
		accept_clients();
	for (int i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &clients[i];
		if (client->fd >= 0 && client->full && (client->mask & SUBSCRIBE_FOREGROUND) == 0 &&
		    now_ms() - client->full_since_ms >= SLOW_MS)
			drop(client);
	}
}

/* Send all clients what they are owed, other than output. */
void attach_pay(void)
{
	for (int i = 0; i < MAX_CLIENTS; i++) {
		if (clients[i].fd >= 0)
			pay(&clients[i]);
	}
}
