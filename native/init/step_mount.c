/* The root and what is mounted in it: every mount is made or cloned detached, then moved to a descriptor. */
#include <asm/statfs.h>
#include <asm/unistd.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>

#include "init.h"

#define MNT_DETACH 2
#define PATH_MAX 4096
#define UMOUNT_NOFOLLOW 8

/*
 * Where it is not over the host's root, hooks are to find it, and work in it, as runc has it. Above it may be what is
 * closed to the root of a user namespace: then they find what lies beneath its mounts.
 */
long step_attach_root(struct run *run, const union plan_arg *arg)
{
	int root = run->slots[arg[0].slot];
	const char *at = arg[1].string;
	unsigned int flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
	long attached = sys(run, __NR_move_mount, root, "", AT_FDCWD, at, flags);
	if (attached == -EACCES)
		attached = sys(run, __NR_move_mount, root, "", AT_FDCWD, "/", flags);
	RESULT(attached);
	return at[1] == 0 ? 0 : sys(run, __NR_fchdir, root);
}

/* A parameter is "key" or "key=value"; values keep their own '='. */
static long set_parameter(struct run *run, long context, const char *parameter)
{
	char key[64];
	size_t length = 0;
	while (parameter[length] != 0 && parameter[length] != '=') {
		if (length == sizeof key - 1)
			return -EINVAL;
		key[length] = parameter[length];
		length++;
	}
	key[length] = 0;
	if (parameter[length] == 0)
		return sys(run, __NR_fsconfig, context, FSCONFIG_SET_FLAG, key, 0, 0);
	return sys(run, __NR_fsconfig, context, FSCONFIG_SET_STRING, key, parameter + length + 1, 0);
}

long make_filesystem(struct run *run, const char *type, const char *source, char *const *parameters,
		     uint64_t attributes)
{
	long context = sys(run, __NR_fsopen, type, FSOPEN_CLOEXEC);
	RESULT(context);
	if (*source != 0)
		RESULT(sys(run, __NR_fsconfig, context, FSCONFIG_SET_STRING, "source", source, 0));
	for (; *parameters != NULL; parameters++)
		RESULT(set_parameter(run, context, *parameters));
	RESULT(sys(run, __NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0));
	long mount = sys(run, __NR_fsmount, context, FSMOUNT_CLOEXEC, attributes);
	sys(run, __NR_close, context);
	return mount;
}

long step_make_filesystem(struct run *run, const union plan_arg *arg)
{
	long mount = make_filesystem(run, arg[0].string, arg[1].string, arg[2].strings, arg[3].number);
	RESULT(mount);
	run->slots[arg[4].slot] = (int)mount;
	return mount;
}

long move_onto(struct run *run, long mount, long target)
{
	return sys(run, __NR_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* Nothing of proc may be hidden from those who rely on it, but for the files that the step says (CVE-2019-16884). */
static long check_covers(struct run *run, long target, bool proc)
{
	struct statfs covered;
	if (proc)
		return 0;
	RESULT(sys(run, __NR_fstatfs, target, &covered));
	return covered.f_type == PROC_SUPER_MAGIC ? -EACCES : 0;
}

long step_attach_mount(struct run *run, const union plan_arg *arg)
{
	int mount = run->slots[arg[0].slot];
	struct stat seen;
	/* a file can only be mounted on a file, a directory on a directory */
	RESULT(sys(run, __NR_newfstatat, mount, "", &seen, AT_EMPTY_PATH));
	long target =
	    make_target(run, run->slots[arg[1].slot], arg[2].string, !S_ISDIR(seen.st_mode), arg[3].number != 0);
	RESULT(target);
	struct stat covered;
	if (!S_ISDIR(seen.st_mode)) {
		/* what mount(2) says, and who reads errors looks for; move_mount says EINVAL */
		RESULT(sys(run, __NR_newfstatat, target, "", &covered, AT_EMPTY_PATH));
		if (S_ISDIR(covered.st_mode))
			return -ENOTDIR;
	}
	RESULT(check_covers(run, target, arg[4].number != 0));
	RESULT(move_onto(run, mount, target));
	sys(run, __NR_close, target);
	return sys(run, __NR_close, mount);
}

/* The link is there already: it must say the same. */
static long check_link(struct run *run, long parent, const char *name, const char *target)
{
	char there[PATH_MAX];
	long length = sys(run, __NR_readlinkat, parent, name, there, sizeof there - 1);
	if (length == -EINVAL)
		return -EEXIST; /* not a link */
	RESULT(length);
	there[length] = 0;
	return text_equal(there, target) ? 0 : -EEXIST;
}

long step_attach_or_link(struct run *run, const union plan_arg *arg)
{
	int mount = run->slots[arg[0].slot];
	struct stat seen;
	char target[PATH_MAX];
	const char *name;
	RESULT(sys(run, __NR_newfstatat, mount, "", &seen, AT_EMPTY_PATH));
	if (!S_ISLNK(seen.st_mode))
		return step_attach_mount(run, arg);
	long length = sys(run, __NR_readlinkat, mount, "", target, sizeof target - 1);
	RESULT(length);
	target[length] = 0;
	long parent = open_parent(run, run->slots[arg[1].slot], arg[2].string, &name);
	RESULT(parent);
	long made = sys(run, __NR_symlinkat, target, parent, name);
	if (made == -EEXIST)
		made = check_link(run, parent, name, target);
	RESULT(made);
	sys(run, __NR_close, parent);
	return sys(run, __NR_close, mount);
}

/* A filesystem that is to stand for proc must be one: what writes to it relies on that (CVE-2019-16884). */
long step_check_proc_source(struct run *run, const union plan_arg *arg)
{
	struct statfs source;
	RESULT(sys(run, __NR_fstatfs, run->slots[arg[0].slot], &source));
	return source.f_type == PROC_SUPER_MAGIC ? 0 : -EINVAL;
}

/* What belongs to the file system, not to one mount of it. */
long step_reconfigure(struct run *run, const union plan_arg *arg)
{
	char *const *parameters = arg[2].strings;
	long target = open_in_root(run, run->slots[arg[0].slot], arg[1].string, O_PATH);
	RESULT(target);
	long context = sys(run, __NR_fspick, target, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
	RESULT(context);
	for (; *parameters != NULL; parameters++)
		RESULT(set_parameter(run, context, *parameters));
	RESULT(sys(run, __NR_fsconfig, context, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0));
	sys(run, __NR_close, context);
	return sys(run, __NR_close, target);
}

/* ELOOP, or ENOTDIR on kernels that find the type first, says that a component is a link. */
long step_check_proc_target(struct run *run, const union plan_arg *arg)
{
	const char *last;
	long parent = open_parent(run, run->slots[arg[0].slot], arg[1].string, &last);
	RESULT(parent);
	long target = sys(run, __NR_openat, parent, last, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	sys(run, __NR_close, parent);
	if (target == -ENOENT)
		return 0;
	RESULT(target);
	return sys(run, __NR_close, target);
}

long set_attributes(struct run *run, long mount, const struct mount_attr *attributes, bool recursive)
{
	return sys(run, __NR_mount_setattr, mount, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), attributes,
		   sizeof *attributes);
}

long step_set_mount_attributes(struct run *run, const union plan_arg *arg)
{
	struct mount_attr attributes = {
	    .attr_set = arg[1].number, .attr_clr = arg[2].number, .propagation = arg[3].number};
	return set_attributes(run, run->slots[arg[0].slot], &attributes, arg[4].number != 0);
}

long step_clone_own(struct run *run, const union plan_arg *arg)
{
	unsigned int flags = (arg[1].number != 0 ? AT_RECURSIVE : 0) | (arg[2].number != 0 ? 0 : AT_SYMLINK_NOFOLLOW);
	long mount = sys(run, __NR_open_tree, AT_FDCWD, arg[0].string, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
	RESULT(mount);
	run->slots[arg[3].slot] = (int)mount;
	return mount;
}

long step_clone_in_root(struct run *run, const union plan_arg *arg)
{
	unsigned int flags = arg[2].number != 0 ? AT_RECURSIVE : 0;
	uint64_t look = O_PATH | (arg[3].number != 0 ? 0 : O_NOFOLLOW);
	long source = open_in_root(run, run->slots[arg[0].slot], arg[1].string, look);
	RESULT(source);
	long mount = sys(run, __NR_open_tree, source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags);
	RESULT(mount);
	run->slots[arg[4].slot] = (int)mount;
	return sys(run, __NR_close, source);
}

static long change_target(struct run *run, int root, const char *path, const struct mount_attr *attributes,
			  bool recursive)
{
	long target = open_in_root(run, root, path, O_PATH);
	RESULT(target);
	RESULT(set_attributes(run, target, attributes, recursive));
	return sys(run, __NR_close, target);
}

long step_remount(struct run *run, const union plan_arg *arg)
{
	struct mount_attr attributes = {.attr_set = arg[2].number, .attr_clr = arg[3].number};
	return change_target(run, run->slots[arg[0].slot], arg[1].string, &attributes, arg[4].number != 0);
}

long step_set_mount_propagation(struct run *run, const union plan_arg *arg)
{
	struct mount_attr attributes = {.propagation = arg[2].number};
	return change_target(run, run->slots[arg[0].slot], arg[1].string, &attributes, arg[3].number != 0);
}

long step_make_root_readonly(struct run *run, const union plan_arg *arg)
{
	struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
	return set_attributes(run, run->slots[arg[0].slot], &attributes, false);
}

/* Opens a path of the host's, which is still there: only before the root is pivoted. */
long step_open_own(struct run *run, const union plan_arg *arg)
{
	long file = sys(run, __NR_openat, AT_FDCWD, arg[0].string, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	RESULT(file);
	run->slots[arg[1].slot] = (int)file;
	return file;
}

/* The old root lands on top of the new one (both are "."), and is detached: pivot_root(2), "pivot_root(".", ".")". */
long step_pivot_root(struct run *run, const union plan_arg *arg)
{
	RESULT(sys(run, __NR_fchdir, run->slots[arg[0].slot]));
	RESULT(sys(run, __NR_pivot_root, ".", "."));
	RESULT(sys(run, __NR_umount2, ".", MNT_DETACH));
	return sys(run, __NR_chdir, "/");
}

long step_detach_mount(struct run *run, const union plan_arg *arg)
{
	long directory = open_in_root(run, run->slots[arg[0].slot], arg[1].string, O_PATH | O_DIRECTORY);
	RESULT(directory);
	RESULT(sys(run, __NR_fchdir, directory));
	RESULT(sys(run, __NR_close, directory));
	return sys(run, __NR_umount2, arg[2].string, MNT_DETACH | UMOUNT_NOFOLLOW);
}

long step_change_root(struct run *run, const union plan_arg *arg)
{
	RESULT(sys(run, __NR_fchdir, run->slots[arg[0].slot]));
	RESULT(sys(run, __NR_chroot, "."));
	return sys(run, __NR_chdir, "/");
}

long step_open_proc(struct run *run, const union plan_arg *arg)
{
	static char *const PROCESSES[] = {(char *)"subset=pid", NULL}, *const ALL[] = {NULL};
	long proc = make_filesystem(run, "proc", "proc", arg[0].number != 0 ? ALL : PROCESSES, 0);
	RESULT(proc);
	run->slots[arg[1].slot] = (int)proc;
	return proc;
}

long step_write_proc(struct run *run, const union plan_arg *arg)
{
	struct open_how how = {
	    .flags = O_WRONLY | O_CLOEXEC,
	    .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH,
	};
	long file = sys(run, __NR_openat2, run->slots[arg[0].slot], arg[1].string, &how, sizeof how);
	RESULT(file);
	long wrote = sys(run, __NR_write, file, arg[2].string, text_length(arg[2].string));
	sys(run, __NR_close, file);
	return wrote;
}

long step_close_slot(struct run *run, const union plan_arg *arg)
{
	return sys(run, __NR_close, run->slots[arg[0].slot]);
}
