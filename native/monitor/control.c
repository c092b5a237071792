/* SPDX-License-Identifier: Apache-2.0 */
/* The creator's socket: it tells what it made; we tell what became of it. */
#include "monitor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_RECEIVED = 8 }; /* descriptors in one message; more than one is a mistake, which must not leak */

static int ports[MAX_PORTS];
static unsigned int port_count;

/* Never waits: a creator that does not read its few messages misses them. */
void control_send(enum message_type type, uint32_t value, uint64_t extra)
{
	const struct header header = {.type = type, .value = value, .extra = extra};
	send(CONTROL_FD, &header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void control_poll(const struct monitor *monitor, struct pollfd *slot)
{
	*slot = (struct pollfd){.fd = monitor->creator_gone ? -1 : CONTROL_FD, .events = POLLIN};
}

/* Being open is all: until it is closed nobody else can bind the port. */
static int hold_port(int fd)
{
	if (fd < 0)
		return EBADF;
	if (port_count == MAX_PORTS)
		return EMFILE;
	ports[port_count++] = fd;
	return 0;
}

void close_ports(void)
{
	while (port_count > 0)
		close(ports[--port_count]);
}

/* 0 or an errno. A descriptor that is kept is the callee's, otherwise the caller closes it. */
static int obey(struct monitor *monitor, const struct header *header, int fd)
{
	switch (header->type) {
	case MESSAGE_CONTAINER:
		if (monitor->container.pid != 0)
			return EALREADY;
		if (fd < 0)
			return EBADF;
		monitor->container_pidfd = fd;
		watch_child(&monitor->container, (pid_t)header->value);
		return 0;
	case MESSAGE_TERMINAL:
		return fd < 0 ? EBADF : console_set_terminal(fd) ? 0 : EINVAL;
	case MESSAGE_PORT:
		return hold_port(fd);
	case MESSAGE_MEMORY:
		if (monitor->memory_fd >= 0)
			return EALREADY;
		if (fd < 0)
			return EBADF;
		monitor->memory_fd = fd;
		return 0;
	case MESSAGE_STARTED:
		if (monitor->phase != PHASE_CREATING || monitor->container.pid == 0)
			return EPROTO;
		/* a client that subscribed before this message was sent must not miss the first byte */
		attach_receive_all(monitor);
		monitor->phase = PHASE_RUNNING;
		console_begin();
		return 0;
	case MESSAGE_ABORT:
		monitor->aborted = true;
		return 0;
	case MESSAGE_CLEANED:
		monitor->cleaned = true;
		return 0;
	default:
		return EPROTO;
	}
}

/* The first descriptor of a message or −1; all others are closed. */
static int take_descriptor(struct msghdr *message)
{
	int taken = -1;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= part->cmsg_len; at += sizeof(int)) {
			int fd;
			memcpy(&fd, (char *)part + at, sizeof(fd));
			if (taken < 0)
				taken = fd;
			else
				close(fd);
		}
	}
	return taken;
}

/* Obey all messages that have come, and learn the creator's end only after the last of them. */
void control_serve(struct monitor *monitor)
{
	for (;;) {
		struct header header;
		_Alignas(struct cmsghdr) char descriptors[CMSG_SPACE(MAX_RECEIVED * sizeof(int))];
		struct iovec bytes = {.iov_base = &header, .iov_len = sizeof(header)};
		struct msghdr message = {.msg_iov = &bytes,
					 .msg_iovlen = 1,
					 .msg_control = descriptors,
					 .msg_controllen = sizeof(descriptors)};
		const ssize_t size = recvmsg(CONTROL_FD, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		/* said once when the creator closed without reading all of ours; its own messages follow */
		if (size < 0 && (errno == ECONNRESET || errno == EINTR))
			continue;
		if (size < 0 && errno == EAGAIN)
			return;
		if (size <= 0) {
			monitor->creator_gone = true;
			close(CONTROL_FD);
			return;
		}
		const int fd = take_descriptor(&message);
		const int error = size == sizeof(header) ? obey(monitor, &header, fd) : EPROTO;
		if (error != 0) {
			if (fd >= 0)
				close(fd);
			control_send(MESSAGE_FAILED, (uint32_t)error, FAILURE_MESSAGE);
		} else if (fd >= 0 && header.type != MESSAGE_CONTAINER && header.type != MESSAGE_TERMINAL &&
			   header.type != MESSAGE_PORT && header.type != MESSAGE_MEMORY) {
			close(fd);
		}
	}
}
