/* Single paths in the root: devices, links, directories; what is hidden and what is write-protected. */
#include <asm/unistd.h>

#include "init.h"

long step_mask_path(struct run *run, const union plan_arg *arg)
{
	struct stat seen;
	static char *const SMALL[] = {(char *)"nr_blocks=1", (char *)"nr_inodes=1", NULL};
	long target = open_in_root(run, run->slots[arg[0].slot], arg[1].string, O_PATH);
	if (target == -ENOENT || target == -ENOTDIR)
		return 0; /* what is not there needs no mask */
	RESULT(target);
	RESULT(sys(run, __NR_newfstatat, target, "", &seen, AT_EMPTY_PATH));
	long mask;
	if (S_ISDIR(seen.st_mode))
		mask = make_filesystem(run, "tmpfs", "tmpfs", SMALL, MOUNT_ATTR_RDONLY);
	else
		mask = sys(run, __NR_open_tree, run->slots[arg[2].slot], "",
			   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	RESULT(mask);
	RESULT(move_onto(run, mask, target));
	sys(run, __NR_close, mask);
	return sys(run, __NR_close, target);
}

long step_protect_path(struct run *run, const union plan_arg *arg)
{
	struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
	long target = open_in_root(run, run->slots[arg[0].slot], arg[1].string, O_PATH);
	if (target == -ENOENT || target == -ENOTDIR)
		return 0;
	RESULT(target);
	long tree =
	    sys(run, __NR_open_tree, target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
	RESULT(tree);
	RESULT(set_attributes(run, tree, &attributes, true));
	RESULT(move_onto(run, tree, target));
	sys(run, __NR_close, tree);
	return sys(run, __NR_close, target);
}

/* An engine may have made the device already: it must be the same one, not a link, a file, or another device. */
static long check_device(struct run *run, long parent, const char *name, uint64_t mode, uint64_t device)
{
	struct stat seen;
	RESULT(sys(run, __NR_newfstatat, parent, name, &seen, AT_SYMLINK_NOFOLLOW));
	bool same = (seen.st_mode & S_IFMT) == (mode & S_IFMT) && (S_ISFIFO(mode) || seen.st_rdev == device);
	return same ? 0 : -EEXIST;
}

long step_make_device(struct run *run, const union plan_arg *arg)
{
	const char *name;
	uint64_t mode = arg[2].number, owner = arg[4].number;
	long parent = open_parent(run, run->slots[arg[0].slot], arg[1].string, &name);
	RESULT(parent);
	long made = sys(run, __NR_mknodat, parent, name, mode, arg[3].number);
	if (made == -EEXIST) {
		RESULT(check_device(run, parent, name, mode, arg[3].number));
	} else {
		RESULT(made);
		RESULT(sys(run, __NR_fchownat, parent, name, owner >> 32, owner & 0xffffffff, AT_SYMLINK_NOFOLLOW));
		/* mknod obeys the umask */
		RESULT(sys(run, __NR_fchmodat, parent, name, mode & 07777));
	}
	return sys(run, __NR_close, parent);
}

/* A device that is bound from the host has the numbers that it has there. */
long step_check_device(struct run *run, const union plan_arg *arg)
{
	struct stat seen;
	RESULT(sys(run, __NR_newfstatat, run->slots[arg[0].slot], "", &seen, AT_EMPTY_PATH));
	return (seen.st_mode & S_IFMT) == arg[1].number && seen.st_rdev == arg[2].number ? 0 : -ENODEV;
}

long step_make_link(struct run *run, const union plan_arg *arg)
{
	const char *name;
	long parent = open_parent(run, run->slots[arg[0].slot], arg[1].string, &name);
	RESULT(parent);
	long made = sys(run, __NR_symlinkat, arg[2].string, parent, name);
	sys(run, __NR_close, parent);
	return made == -EEXIST ? 0 : made;
}

long step_make_working_directory(struct run *run, const union plan_arg *arg)
{
	long directory = make_target(run, run->slots[arg[0].slot], arg[1].string, false, true);
	RESULT(directory);
	return sys(run, __NR_close, directory);
}
