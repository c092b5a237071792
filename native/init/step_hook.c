/* Hooks that run inside the container's namespaces: createContainer and startContainer. */
#include <asm/unistd.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/time.h>

#include "init.h"

#define SIGKILL 9
#define SIGCHLD 17
#define P_PIDFD 3
#define WEXITED 4
#define SEEK_SET 0

/*
 * hook[0] is the path, the rest its arguments; its standard input is the container's state. Hooks of startContainer run
 * behind the seccomp filter, so this makes no call but those that filters let programs start others with: clone3 is not
 * among them.
 */
long step_run_hook(struct run *run, const union plan_arg *arg)
{
	int pidfd = -1, state = run->slots[arg[2].slot];
	int64_t milliseconds = (int64_t)arg[3].number;
	RESULT(sys(run, __NR_lseek, state, 0, SEEK_SET));
	long pid = sys(run, __NR_clone, CLONE_PIDFD | SIGCHLD, 0, &pidfd, 0, 0);
	RESULT(pid);
	if (pid == 0) {
		/* so that what it has started can be killed with it */
		if (milliseconds > 0)
			sys(run, __NR_setpgid, 0, 0);
		sys(run, __NR_dup3, state, 0, 0);
		sys(run, __NR_execve, arg[0].strings[0], arg[0].strings + 1, arg[1].strings);
		for (;;)
			sys(NULL, __NR_exit_group, 127);
	}
	if (milliseconds > 0) {
		struct pollfd ended = {.fd = pidfd, .events = POLLIN};
		struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000};
		long ready = sys(run, __NR_ppoll, &ended, 1, &limit, 0, 8);
		if (ready <= 0) {
			sys(run, __NR_kill, -pid, SIGKILL);
			/* it may have no group of its own yet, or may not have one */
			sys(run, __NR_kill, pid, SIGKILL);
			return ready < 0 ? ready : -ETIME;
		}
	}
	struct {
		int number, error, code, padding;
		int pid, uid, status;
		int rest[25];
	} info = {0};
	RESULT(sys(run, __NR_waitid, P_PIDFD, pidfd, &info, WEXITED, 0));
	RESULT(sys(run, __NR_close, pidfd));
	return info.code == 1 && info.status == 0 ? 0 : -ECHILD;
}
