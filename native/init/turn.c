/* The conversation with the host: one packet each way, descriptors by SCM_RIGHTS. */
#include <asm/unistd.h>
#include <linux/types.h>

#include "init.h"

#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define MSG_NOSIGNAL 0x4000
#define MSG_CMSG_CLOEXEC 0x40000000

struct kernel_iovec {
	const void *base;
	uint64_t length;
};

struct kernel_msghdr {
	void *name;
	int name_length;
	struct kernel_iovec *iov;
	uint64_t iov_length;
	void *control;
	uint64_t control_length;
	unsigned int flags;
};

struct rights {
	uint64_t length;
	int level;
	int type;
	int descriptors[PLAN_SLOTS];
};

/* Sends bytes with one descriptor (or none: -1). */
long send_with_descriptor(struct run *run, int socket, const void *bytes, size_t length, int descriptor)
{
	struct {
		uint64_t length;
		int level, type;
		int descriptor, padding;
	} rights = {20, SOL_SOCKET, SCM_RIGHTS, descriptor, 0};
	struct kernel_iovec iov = {bytes, length};
	struct kernel_msghdr message = {.iov = &iov, .iov_length = 1};
	if (descriptor >= 0) {
		message.control = &rights;
		message.control_length = sizeof rights;
	}
	return sys(run, __NR_sendmsg, socket, &message, MSG_NOSIGNAL);
}

bool send_turn(struct run *run, enum turn_kind kind, int64_t result, int descriptor)
{
	struct turn turn = {(uint32_t)kind, run->step->index, result};
	return send_with_descriptor(run, run->turns, &turn, sizeof turn, descriptor) == sizeof turn;
}

/*
 * Waits for the host to have done its steps, and takes the descriptors it hands over into their slots. The host gets a
 * descriptor for it, if there is one (not: -1).
 */
long take_turn(struct run *run, uint64_t first, uint64_t count, int descriptor)
{
	struct turn turn = {0, 0, 0};
	struct rights rights;
	struct kernel_iovec iov = {&turn, sizeof turn};
	struct kernel_msghdr message = {
	    .iov = &iov, .iov_length = 1, .control = &rights, .control_length = sizeof rights};
	if (!send_turn(run, TURN_WAIT, 0, descriptor))
		return -EPROTO;
	long got = sys(run, __NR_recvmsg, run->turns, &message, MSG_CMSG_CLOEXEC);
	/* nothing: the host has died, and so does what it was making */
	if (got != sizeof turn || turn.kind != TURN_GO)
		return got < 0 ? got : -EPROTO;
	if (count == 0)
		return 0;
	if (message.control_length < 16 || rights.level != SOL_SOCKET || rights.type != SCM_RIGHTS ||
	    rights.length != 16 + count * sizeof(int))
		return -EPROTO;
	for (uint64_t i = 0; i < count; i++)
		run->slots[first + i] = rights.descriptors[i];
	return 0;
}

long step_turn(struct run *run, const union plan_arg *arg)
{
	return take_turn(run, arg[0].number, arg[1].number, -1);
}

long step_stand_still(struct run *run, const union plan_arg *arg)
{
	(void)arg;
	return take_turn(run, 0, 0, -1);
}

/* The kernel made the listener close-on-exec: no further call that the filter would have to allow. */
long step_offer_listener(struct run *run, const union plan_arg *arg)
{
	return take_turn(run, 0, 0, run->slots[arg[0].slot]);
}
