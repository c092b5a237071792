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

/* As many as the kernel follows in one look-up. */
#define MAX_LINKS 40

/* Puts what a link says in its place in a path: the component from start to end. */
static long follow_link(struct run *run, long directory, char path[PATH_MAX], size_t start, size_t end)
{
	char name[PATH_MAX], link[PATH_MAX], rest[PATH_MAX];
	__builtin_memcpy(name, path + start, end - start);
	name[end - start] = 0;
	long length = sys(run, __NR_readlinkat, directory, name, link, sizeof link);
	RESULT(length);
	size_t kept = length > 0 && link[0] == '/' ? 0 : start;
	size_t more = text_length(path + end) + 1;
	while (length > 0 && link[length - 1] == '/')
		length--;
	if (kept + (size_t)length + more > PATH_MAX)
		return -ENAMETOOLONG;
	__builtin_memcpy(rest, path + end, more);
	__builtin_memcpy(path + kept, link, (size_t)length);
	__builtin_memcpy(path + kept + (size_t)length, rest, more);
	return 0;
}

/*
 * Opens a directory, making what is missing (0755) on the way, also where links lead that lead nowhere yet.
 * At most one mkdir and one open a component, and as many again for each link.
 */
static long make_directories(struct run *run, int root, char path[PATH_MAX])
{
	long whole = open_in_root(run, root, path, O_PATH | O_DIRECTORY);
	if (whole != -ENOENT)
		return whole;
	long parent = open_in_root(run, root, ".", O_PATH | O_DIRECTORY);
	size_t at = 0;
	for (int links = 0; parent >= 0;) {
		while (path[at] == '/')
			at++;
		if (path[at] == 0)
			return parent;
		size_t end = at;
		while (path[end] != '/' && path[end] != 0)
			end++;
		/* the part of the path up to here is looked up from the root again: a link in it may be absolute */
		char saved = path[end];
		path[end] = 0;
		long made = sys(run, __NR_mkdirat, parent, path + at, 0755);
		long next = made < 0 && made != -EEXIST ? made : open_in_root(run, root, path, O_PATH | O_DIRECTORY);
		path[end] = saved;
		if (next == -ENOENT && made == -EEXIST) {
			/* a link whose target is missing: from the start, with what it says */
			next = links++ < MAX_LINKS ? follow_link(run, parent, path, at, end) : -ELOOP;
			if (next >= 0)
				next = open_in_root(run, root, ".", O_PATH | O_DIRECTORY);
			end = 0;
		}
		sys(run, __NR_close, parent);
		parent = next;
		at = end;
	}
	return parent;
}

/* Opens the directory that a path's last component is in, making what is missing on the way. */
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
	return make_directories(run, root, head);
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

/* Makes what is missing of a path, the last component, too; -EEXIST where that is there, or is a link. */
static long make_last(struct run *run, int root, char path[PATH_MAX], bool file, bool *link)
{
	const char *last;
	long parent = open_parent(run, root, path, &last);
	RESULT(parent);
	long made;
	if (file) {
		/* O_EXCL: a link is followed here, step by step, and by nobody else (CVE-2024-45310) */
		made = sys(run, __NR_openat, parent, last, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (made >= 0)
			sys(run, __NR_close, made);
	} else {
		made = sys(run, __NR_mkdirat, parent, last, 0755);
	}
	*link = made == -EEXIST && follow_link(run, parent, path, (size_t)(last - path), text_length(path)) >= 0;
	sys(run, __NR_close, parent);
	return made;
}

/* Opens a mount's target, O_PATH, making it (a directory, or an empty file) where it is missing. */
long make_target(struct run *run, int root, const char *path, bool file, bool follow)
{
	if (!follow)
		return make_unfollowed(run, root, path, file);
	uint64_t flags = file ? O_PATH : O_PATH | O_DIRECTORY;
	long target = open_in_root(run, root, path, flags);
	if (target != -ENOENT)
		return target;
	char whole[PATH_MAX];
	size_t length = text_length(path);
	if (length >= sizeof whole)
		return -ENAMETOOLONG;
	__builtin_memcpy(whole, path, length + 1);
	/* a link whose target is missing, as /etc/resolv.conf often is: that is made, inside the root */
	bool link = true;
	for (int links = 0; link; links++) {
		if (links > MAX_LINKS)
			return -ELOOP;
		long made = make_last(run, root, whole, file, &link);
		if (made < 0 && made != -EEXIST)
			return made;
	}
	return open_in_root(run, root, whole, flags);
}
