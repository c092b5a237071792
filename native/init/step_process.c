/* What the container's process is: user, groups, capabilities, limits, filter; and the last step, execve. */
#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

#include "init.h"

#define CLOSE_RANGE_CLOEXEC 4
#define SOCK_CLOEXEC 02000000
/* with the capabilities that it will have: the real ids alone know of none */
#define AT_EACCESS 0x200
#define X_OK 1
#define LAST_CAPABILITY 63

long step_set_limit(struct run *run, const union plan_arg *arg)
{
	struct {
		uint64_t soft, hard;
	} limit = {arg[1].number, arg[2].number};
	return sys(run, __NR_prlimit64, 0, arg[0].number, &limit, 0);
}

long step_set_personality(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_personality, arg[0].number);
}

long step_set_scheduler(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_sched_setattr, 0, arg[0].bytes->data, 0);
}

long step_set_io_priority(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, arg[0].number);
}

/* The kernel takes those away that do not exist, or are not in the cpuset. */
long step_set_affinity(struct run *run, const union plan_arg *arg)
{
	unsigned char every[8192 / 8 /* more it cannot be built for */];

	if (arg[0].bytes->length != 0)
		return sys(run, __NR_sched_setaffinity, 0, arg[0].bytes->length, arg[0].bytes->data);
	__builtin_memset(every, 0xff, sizeof every);
	return sys(run, __NR_sched_setaffinity, 0, sizeof every, every);
}

long step_set_memory_policy(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_set_mempolicy, arg[0].number, arg[1].bytes->length == 0 ? NULL : arg[1].bytes->data,
		   arg[2].number);
}

long step_keep_capabilities(struct run *run, const union plan_arg *arg)
{
	(void)arg;
	return sys(run, __NR_prctl, PR_SET_KEEPCAPS, 1);
}

/* The kernel says by EINVAL where its capabilities end. */
long step_drop_bounding(struct run *run, const union plan_arg *arg)
{
	for (unsigned int capability = 0; capability <= LAST_CAPABILITY; capability++) {
		if ((arg[0].number >> capability & 1) != 0)
			continue;
		long dropped = sys(run, __NR_prctl, PR_CAPBSET_DROP, capability);
		if (dropped == -EINVAL)
			break;
		RESULT(dropped);
	}
	return 0;
}

long step_set_groups(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_setgroups, arg[0].bytes->length / 4, arg[0].bytes->data);
}

long step_set_ids(struct run *run, const union plan_arg *arg)
{
	RESULT(sys(run, __NR_setresgid, arg[1].number, arg[1].number, arg[1].number));
	return sys(run, __NR_setresuid, arg[0].number, arg[0].number, arg[0].number);
}

static bool is_device(struct run *run, long descriptor, uint64_t device)
{
	struct stat seen;
	return sys(run, __NR_fstat, descriptor, &seen) == 0 && S_ISCHR(seen.st_mode) && seen.st_rdev == device;
}

/* Where the container's own cannot be opened, or is something else, the host's does as well. */
long step_reopen_null(struct run *run, const union plan_arg *arg)
{
	long own = open_in_root(run, run->slots[arg[0].slot], "dev/null", O_RDWR | O_NOCTTY | O_NOFOLLOW);
	if (own < 0)
		return 0;
	if (is_device(run, own, arg[1].number))
		for (int stream = 0; stream < 3; stream++)
			if (is_device(run, stream, arg[1].number))
				RESULT(sys(run, __NR_dup3, own, stream, 0));
	return sys(run, __NR_close, own);
}

/* The null device is everybody's, and a stream that cannot be given away can still be used. */
long step_own_streams(struct run *run, const union plan_arg *arg)
{
	for (int stream = 0; stream < 3; stream++) {
		struct stat seen;
		if (sys(run, __NR_fstat, stream, &seen) < 0 || S_ISCHR(seen.st_mode) || seen.st_uid == arg[0].number)
			continue;
		sys(run, __NR_fchown, stream, arg[0].number, (uint32_t)-1);
	}
	return 0;
}

long step_set_umask(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_umask, arg[0].number);
}

static const struct __user_cap_header_struct SELF = {_LINUX_CAPABILITY_VERSION_3, 0};

long step_set_capabilities(struct run *run, const union plan_arg *arg)
{
	struct __user_cap_data_struct sets[2];
	for (int half = 0; half < 2; half++) {
		sets[half].effective = (uint32_t)(arg[0].number >> (32 * half));
		sets[half].permitted = (uint32_t)(arg[1].number >> (32 * half));
		sets[half].inheritable = (uint32_t)(arg[2].number >> (32 * half));
	}
	RESULT(sys(run, __NR_capset, &SELF, sets));
	for (unsigned int capability = 0; capability <= LAST_CAPABILITY; capability++)
		if ((arg[3].number >> capability & 1) != 0)
			RESULT(sys(run, __NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0));
	return 0;
}

static uint64_t joined(uint32_t low, uint32_t high)
{
	return (uint64_t)high << 32 | low;
}

long step_check_capabilities(struct run *run, const union plan_arg *arg)
{
	struct __user_cap_data_struct sets[2] = {{0, 0, 0}, {0, 0, 0}};
	RESULT(sys(run, __NR_capget, &SELF, sets));
	if (joined(sets[0].effective, sets[1].effective) != arg[0].number ||
	    joined(sets[0].permitted, sets[1].permitted) != arg[1].number ||
	    joined(sets[0].inheritable, sets[1].inheritable) != arg[2].number)
		return -EPERM;
	for (unsigned int capability = 0; capability <= LAST_CAPABILITY; capability++) {
		long bounding = sys(run, __NR_prctl, PR_CAPBSET_READ, capability);
		if (bounding == -EINVAL)
			break;
		long ambient = sys(run, __NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0);
		/* the bounding set may be smaller than asked: what our caller lacked cannot be given */
		if ((bounding > 0 && (arg[4].number >> capability & 1) == 0) ||
		    ambient != (long)(arg[3].number >> capability & 1))
			return -EPERM;
	}
	return 0;
}

long step_set_no_new_privileges(struct run *run, const union plan_arg *arg)
{
	(void)arg;
	return sys(run, __NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static long load_filter(struct run *run, const struct blob *instructions, uint64_t flags)
{
	struct {
		uint16_t length;
		uint16_t padding[3];
		const void *filter;
	} program = {(uint16_t)(instructions->length / 8), {0, 0, 0}, instructions->data};
	return sys(run, __NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

long step_load_seccomp(struct run *run, const union plan_arg *arg)
{
	return load_filter(run, arg[0].bytes, arg[1].number);
}

long step_load_notifier(struct run *run, const union plan_arg *arg)
{
	long listener = load_filter(run, arg[0].bytes, arg[1].number);
	RESULT(listener);
	run->slots[arg[2].slot] = (int)listener;
	return 0;
}

/* A user's directory on a network filesystem can be closed to root: then permission is asked for as the user. */
long step_change_directory(struct run *run, const union plan_arg *arg)
{
	long changed = sys(run, __NR_chdir, arg[0].string);
	if (changed != -EACCES)
		return changed;
	sys(run, __NR_setfsgid, arg[2].number);
	sys(run, __NR_setfsuid, arg[1].number);
	changed = sys(run, __NR_chdir, arg[0].string);
	sys(run, __NR_setfsuid, 0);
	sys(run, __NR_setfsgid, 0);
	return changed;
}

long step_check_directory(struct run *run, const union plan_arg *arg)
{
	char path[4096];
	(void)arg;
	RESULT(sys(run, __NR_getcwd, path, sizeof path));
	/* "(unreachable)/…": the directory is not beneath our root */
	return path[0] == '/' ? 0 : -ENOENT;
}

/* The first candidate that is a file the user may execute; else EACCES if one was there at all, else ENOENT. */
long step_find_executable(struct run *run, const union plan_arg *arg)
{
	long verdict = -ENOENT;
	for (char *const *candidate = arg[0].strings; *candidate != NULL; candidate++) {
		struct stat seen;
		long found = sys(run, __NR_newfstatat, AT_FDCWD, *candidate, &seen, 0);
		if (found >= 0)
			found = S_ISDIR(seen.st_mode) ? -EISDIR
				: !S_ISREG(seen.st_mode)
				    ? -EACCES
				    : sys(run, __NR_faccessat2, AT_FDCWD, *candidate, X_OK, AT_EACCESS);
		if (found >= 0) {
			run->executable = *candidate;
			return 0;
		}
		if (found != -ENOENT && found != -ENOTDIR)
			verdict = found;
	}
	return verdict;
}

long step_keep_descriptors(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_close_range, 3 + arg[0].number, ~0U, CLOSE_RANGE_CLOEXEC);
}

/* From here on the one to be told about failures is whoever started the container. */
long step_await_start(struct run *run, const union plan_arg *arg)
{
	int listener = run->slots[arg[0].slot];
	sys(run, __NR_close, run->turns);
	long connection = sys(run, __NR_accept4, listener, 0, 0, SOCK_CLOEXEC);
	RESULT(connection);
	run->turns = (int)connection;
	run->slots[arg[1].slot] = (int)connection;
	return sys(run, __NR_close, listener);
}

long step_execute(struct run *run, const union plan_arg *arg)
{
	if (run->executable == NULL)
		return -ENOENT;
	return sys(run, __NR_execve, run->executable, arg[0].strings, arg[1].strings);
}
