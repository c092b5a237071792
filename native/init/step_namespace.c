/* Namespaces: join, leave, clone; and who init is while that happens. */
#include <asm/unistd.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#include "init.h"

#define MSG_PEEK 2
#define MSG_DONTWAIT 0x40

#define SIGKILL 9
#define KEYCTL_JOIN_SESSION_KEYRING 1

long step_join_namespace(struct run *run, const union plan_arg *arg)
{
	int namespace = run->slots[arg[0].slot];
	RESULT(sys(run, __NR_setns, namespace, arg[1].number));
	return sys(run, __NR_close, namespace);
}

long step_unshare(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_unshare, arg[0].number);
}

/* A file of our own in the host's proc, which is still there: only before the clone. */
static long write_own(struct run *run, const char *path, const char *text)
{
	long file = sys(run, __NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
	RESULT(file);
	RESULT(sys(run, __NR_write, file, text, text_length(text)));
	return sys(run, __NR_close, file);
}

long step_set_time_offsets(struct run *run, const union plan_arg *arg)
{
	return write_own(run, "/proc/self/timens_offsets", arg[0].string);
}

long step_set_oom_score(struct run *run, const union plan_arg *arg)
{
	return write_own(run, "/proc/self/oom_score_adj", arg[0].string);
}

/*
 * The child goes on with the next step; this process tells the host who the child is, and ends. The pidfd is made
 * with the child, so it cannot name another process.
 */
static long clone_child(struct run *run, uint64_t flags, int cgroup)
{
	int pidfd = -1;
	struct clone_args args = {
	    .flags = flags | CLONE_PARENT | CLONE_PIDFD,
	    .pidfd = (uint64_t)(uintptr_t)&pidfd,
	    .cgroup = (uint32_t)cgroup,
	};
	long pid = sys(run, __NR_clone3, &args, sizeof args);
	if (pid <= 0)
		return pid;
	bool told = send_turn(run, TURN_CHILD, pid, pidfd);
	for (;;)
		sys(NULL, __NR_exit_group, told ? 0 : 1);
}

long step_clone(struct run *run, const union plan_arg *arg)
{
	return clone_child(run, arg[0].number, 0);
}

long step_clone_into(struct run *run, const union plan_arg *arg)
{
	return clone_child(run, arg[0].number | CLONE_INTO_CGROUP, run->slots[arg[1].slot]);
}

/* "0" is the writing thread itself: cgroups(7). */
long step_enter_cgroup(struct run *run, const union plan_arg *arg)
{
	int tasks = run->slots[arg[0].slot];
	RESULT(sys(run, __NR_write, tasks, "0", 1));
	return sys(run, __NR_close, tasks);
}

long step_die_with_parent(struct run *run, const union plan_arg *arg)
{
	RESULT(sys(run, __NR_prctl, PR_SET_PDEATHSIG, arg[0].number));
	if (arg[0].number == 0)
		return 0;
	/* who has died before, while this process could not run (born into a frozen cgroup), sends no signal any more */
	char nothing;
	long said = sys(run, __NR_recvfrom, run->turns, &nothing, 1, MSG_PEEK | MSG_DONTWAIT, 0, 0);
	return said == 0 ? -ECANCELED : 0;
}

long step_become_root(struct run *run, const union plan_arg *arg)
{
	uint64_t uid = arg[0].number, gid = arg[1].number;
	RESULT(sys(run, __NR_setresgid, gid, gid, gid));
	return sys(run, __NR_setresuid, uid, uid, uid);
}

long step_set_dumpable(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_prctl, PR_SET_DUMPABLE, arg[0].number);
}

long step_new_session(struct run *run, const union plan_arg *arg)
{
	(void)arg;
	return sys(run, __NR_setsid);
}

long step_join_keyring(struct run *run, const union plan_arg *arg)
{
	long keyring = sys(run, __NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, arg[0].string);
	/* a kernel without keyrings has none to share */
	return keyring == -ENOSYS ? 0 : keyring;
}

long step_set_propagation(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_mount, 0, "/", 0, arg[0].number | MS_REC, 0);
}

long step_set_hostname(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_sethostname, arg[0].string, text_length(arg[0].string));
}

long step_set_domainname(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_setdomainname, arg[0].string, text_length(arg[0].string));
}

/* struct ifreq, of which the kernel reads the name and the flags. */
long step_raise_loopback(struct run *run, const union plan_arg *arg)
{
	struct {
		char name[16];
		int16_t flags;
		char rest[22];
	} request = {"lo", 0x1 /* IFF_UP */, {0}};
	(void)arg;
	long socket = sys(run, __NR_socket, 2 /* AF_INET */, 2 /* SOCK_DGRAM */ | O_CLOEXEC, 0);
	RESULT(socket);
	RESULT(sys(run, __NR_ioctl, socket, 0x8914 /* SIOCSIFFLAGS */, &request));
	return sys(run, __NR_close, socket);
}
