/*
 * Look-ups inside a root: every one starts at the root's descriptor and stays beneath it, whatever links the image
 * has. Magic links (/proc/PID/fd, /proc/PID/root) are refused: they leave the root without a "..".
 */
#include <asm/unistd.h>
#include <linux/openat2.h>

#include "init.h"

#define PATH_MAX 4096

long open_in_root(struct run *run, int root, const char *path, uint64_t flags)
{
	struct open_how how = {
	    .flags = flags | O_CLOEXEC,
	    .mode = 0,
	    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	return sys(run, __NR_openat2, root, path, &how, sizeof how);
}

/*
 * Opens the directory that a path's last component is in, making what is missing (0755) on the way.
 * At most one mkdir and one open a component.
 */
long open_parent(struct run *run, int root, const char *path, const char **last)
{
	char head[PATH_MAX];
	size_t length = text_length(path);
	while (length > 1 && path[length - 1] == '/')
		return -EINVAL; /* compile sends normal paths */
	size_t split = length;
	while (split > 0 && path[split - 1] != '/')
		split--;
	*last = path + split;
	if (split >= sizeof head)
		return -ENAMETOOLONG;
	if (**last == 0)
		return -EINVAL;
	if (split <= 1)
		return open_in_root(run, root, ".", O_PATH | O_DIRECTORY);
	__builtin_memcpy(head, path, split - 1);
	head[split - 1] = 0;
	long whole = open_in_root(run, root, head, O_PATH | O_DIRECTORY);
	if (whole != -ENOENT)
		return whole;
	long parent = open_in_root(run, root, ".", O_PATH | O_DIRECTORY);
	for (size_t at = 0; at < split - 1 && parent >= 0;) {
		while (head[at] == '/')
			at++;
		size_t end = at;
		while (head[end] != '/' && head[end] != 0)
			end++;
		/* the part of the path up to here is looked up from the root again: a link in it may be absolute */
		char saved = head[end];
		head[end] = 0;
		long made = sys(run, __NR_mkdirat, parent, head + at, 0755);
		long next = made < 0 && made != -EEXIST ? made : open_in_root(run, root, head, O_PATH | O_DIRECTORY);
		head[end] = saved;
		sys(run, __NR_close, parent);
		parent = next;
		at = end;
	}
	return parent;
}

/* What the path's last component itself is, be it a link; made where it is missing. */
static long make_unfollowed(struct run *run, int root, const char *path, bool file)
{
	const char *last;
	uint64_t flags = O_PATH | O_NOFOLLOW | O_CLOEXEC | (file ? 0 : O_DIRECTORY);
	long parent = open_parent(run, root, path, &last);
	RESULT(parent);
	long target = sys(run, __NR_openat, parent, last, flags);
	if (target == -ENOENT) {
		long made = file ? sys(run, __NR_mknodat, parent, last, S_IFREG | 0644, 0)
				 : sys(run, __NR_mkdirat, parent, last, 0755);
		target = made < 0 ? made : sys(run, __NR_openat, parent, last, flags);
	}
	sys(run, __NR_close, parent);
	return target;
}

/* Opens a mount's target, O_PATH, making it (a directory, or an empty file) where it is missing. */
long make_target(struct run *run, int root, const char *path, bool file, bool follow)
{
	if (!follow)
		return make_unfollowed(run, root, path, file);
	long target = open_in_root(run, root, path, file ? O_PATH : O_PATH | O_DIRECTORY);
	if (target != -ENOENT)
		return target;
	const char *last;
	long parent = open_parent(run, root, path, &last);
	if (parent < 0)
		return parent;
	long made;
	if (file) {
		/* O_EXCL: a dangling link that appeared meanwhile is not followed (CVE-2024-45310) */
		made = sys(run, __NR_openat, parent, last, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (made >= 0)
			sys(run, __NR_close, made);
	} else {
		made = sys(run, __NR_mkdirat, parent, last, 0755);
	}
	sys(run, __NR_close, parent);
	if (made == -EEXIST && file) {
		/* a link whose target is missing, as /etc/resolv.conf often is: the kernel makes that inside the root */
		struct open_how how = {
		    .flags = O_CREAT | O_RDONLY | O_NONBLOCK | O_CLOEXEC,
		    .mode = 0644,
		    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
		};
		made = sys(run, __NR_openat2, root, path, &how, sizeof how);
		if (made >= 0)
			sys(run, __NR_close, made);
	}
	if (made < 0 && made != -EEXIST)
		return made;
	return open_in_root(run, root, path, file ? O_PATH : O_PATH | O_DIRECTORY);
}
