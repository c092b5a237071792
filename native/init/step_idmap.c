/* Idmapped mounts: whose files these are, seen through this one mount. mount_setattr(2), "ID-mapped mounts". */
#include <asm/unistd.h>
#include <linux/sched.h>

#include "init.h"

#define SIGCHLD 17

/* "/proc/PID/FILE", as long as a pid is a number of at most ten digits. */
static void name_in_proc(char path[64], long pid, const char *file)
{
	char digits[12];
	size_t count = 0, at = 0;
	for (; pid > 0; pid /= 10)
		digits[count++] = (char)('0' + pid % 10);
	for (const char *from = "/proc/"; *from != 0; from++)
		path[at++] = *from;
	while (count > 0)
		path[at++] = digits[--count];
	path[at++] = '/';
	for (; *file != 0; file++)
		path[at++] = *file;
	path[at] = 0;
}

static long write_map(struct run *run, long pid, const char *file, const char *text)
{
	char path[64];
	name_in_proc(path, pid, file);
	long map = sys(run, __NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
	RESULT(map);
	long wrote = sys(run, __NR_write, map, text, text_length(text)); /* all at once: user_namespaces(7) */
	sys(run, __NR_close, map);
	return wrote;
}

/* It lives until nobody holds the other end of the pipe: it dies with its maker, too. */
static void hold_namespace(const int pipe[2])
{
	char byte;
	sys(NULL, __NR_close, pipe[1]);
	sys(NULL, __NR_read, pipe[0], &byte, 1);
	for (;;)
		sys(NULL, __NR_exit_group, 0);
}

static long open_mapped(struct run *run, long pid, const char *uids, const char *gids)
{
	char path[64];
	name_in_proc(path, pid, "ns/user");
	RESULT(write_map(run, pid, "uid_map", uids));
	RESULT(write_map(run, pid, "gid_map", gids));
	return sys(run, __NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
}

/* A mapping can be given to the kernel only as a user namespace, and that only comes with a process. */
long step_make_user_namespace(struct run *run, const union plan_arg *arg)
{
	int pipe[2];
	struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
	RESULT(sys(run, __NR_pipe2, pipe, O_CLOEXEC));
	long pid = sys(run, __NR_clone3, &args, sizeof args);
	if (pid == 0)
		hold_namespace(pipe);
	sys(run, __NR_close, pipe[0]);
	long namespace = pid < 0 ? pid : open_mapped(run, pid, arg[0].string, arg[1].string);
	sys(run, __NR_close, pipe[1]);
	if (pid > 0)
		sys(run, __NR_wait4, pid, NULL, 0, NULL);
	RESULT(namespace);
	run->slots[arg[2].slot] = (int)namespace;
	return namespace;
}

long step_map_mount(struct run *run, const union plan_arg *arg)
{
	struct mount_attr attributes = {
	    .attr_set = MOUNT_ATTR_IDMAP,
	    .userns_fd = (unsigned)run->slots[arg[1].slot],
	};
	return set_attributes(run, run->slots[arg[0].slot], &attributes, arg[2].number != 0);
}
