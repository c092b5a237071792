/*
 * A tmpfs that starts as the directory it covers: its mode, its owner, a copy of what is in it. The tree is the
 * image's, and so may be hostile: every entry is one name in a directory that is held open; links are copied, never
 * followed.
 */
#include <asm/unistd.h>
#include <linux/time.h>

#include "init.h"

#define PATH_MAX 4096
#define XATTR_LIST_MAX 65536
#define XATTR_SIZE_MAX 65536
/* two descriptors a level, of the 1024 that a process has by default; and as many frames on the stack */
#define DEPTH_MAX 200
#define ENTRIES_SIZE 2048
#define SEEK_SET 0
#define SEEK_DATA 3
#define SEEK_HOLE 4

struct entry { /* struct linux_dirent64, getdents(2) */
	uint64_t inode;
	int64_t next;
	uint16_t length;
	unsigned char type;
	char name[];
};

static long open_directory(struct run *run, long directory, const char *name)
{
	return sys(run, __NR_openat, directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The directory that a mount is to cover; -ENOENT where the mount will make it. */
static long open_covered(struct run *run, int root, const char *path, struct stat *seen)
{
	long directory = open_in_root(run, root, path, O_RDONLY | O_DIRECTORY);
	RESULT(directory);
	RESULT(sys(run, __NR_newfstatat, directory, "", seen, AT_EMPTY_PATH));
	return directory;
}

long step_match_directory(struct run *run, const union plan_arg *arg)
{
	struct stat seen;
	uint64_t what = arg[3].number;
	long covered = open_covered(run, run->slots[arg[1].slot], arg[2].string, &seen);
	if (covered == -ENOENT)
		return 0;
	RESULT(covered);
	sys(run, __NR_close, covered);
	/* what fsmount gave is a place, not an open directory */
	long own = open_directory(run, run->slots[arg[0].slot], ".");
	RESULT(own);
	if ((what & 2) != 0)
		RESULT(sys(run, __NR_fchown, own, seen.st_uid, seen.st_gid));
	if ((what & 1) != 0)
		RESULT(sys(run, __NR_fchmod, own, seen.st_mode & 07777));
	return sys(run, __NR_close, own);
}

static long set_times(struct run *run, long directory, const char *name, const struct stat *seen)
{
	struct timespec times[2] = {
	    {(__kernel_old_time_t)seen->st_atime, (long)seen->st_atime_nsec},
	    {(__kernel_old_time_t)seen->st_mtime, (long)seen->st_mtime_nsec},
	};
	return sys(run, __NR_utimensat, directory, name, times, name == NULL ? 0 : AT_SYMLINK_NOFOLLOW);
}

/* What a tmpfs cannot hold, or only the host's root may set, is left out, as cp does. */
static long copy_xattrs(struct run *run, long from, long to)
{
	static char names[XATTR_LIST_MAX];
	static unsigned char value[XATTR_SIZE_MAX];
	long length = sys(run, __NR_flistxattr, from, names, sizeof names);
	if (length == -EOPNOTSUPP)
		return 0;
	RESULT(length);
	for (const char *name = names; name < names + length; name += text_length(name) + 1) {
		long size = sys(run, __NR_fgetxattr, from, name, value, sizeof value);
		RESULT(size);
		long set = sys(run, __NR_fsetxattr, to, name, value, size, 0);
		if (set != -EOPNOTSUPP && set != -EPERM && set != -EACCES)
			RESULT(set);
	}
	return 0;
}

/* In this order: a new owner takes set-user-id bits and file capabilities away. */
static long copy_attributes(struct run *run, long from, long to, const struct stat *seen)
{
	RESULT(sys(run, __NR_fchown, to, seen->st_uid, seen->st_gid));
	RESULT(copy_xattrs(run, from, to));
	RESULT(sys(run, __NR_fchmod, to, seen->st_mode & 07777));
	return set_times(run, to, NULL, seen);
}

/* Holes stay holes: a file of a terabyte that holds nothing must not fill the memory. */
static long copy_data(struct run *run, long from, long to, int64_t size)
{
	int64_t at = 0;
	while (at < size) {
		int64_t data = sys(run, __NR_lseek, from, at, SEEK_DATA);
		if (data == -ENXIO)
			break;
		RESULT(data);
		int64_t hole = sys(run, __NR_lseek, from, data, SEEK_HOLE);
		RESULT(hole);
		RESULT(sys(run, __NR_lseek, to, data, SEEK_SET));
		while (data < hole) {
			long sent = sys(run, __NR_sendfile, to, from, &data, hole - data); /* moves data on */
			RESULT(sent);
			if (sent == 0)
				return 0; /* it became shorter meanwhile */
		}
		at = hole;
	}
	return at < size ? sys(run, __NR_ftruncate, to, size) : 0;
}

static long copy_file(struct run *run, long from, long to, const char *name)
{
	struct stat seen;
	/* O_NONBLOCK: what was a file when it was looked at may be a FIFO when it is opened */
	long source = sys(run, __NR_openat, from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	RESULT(source);
	RESULT(sys(run, __NR_newfstatat, source, "", &seen, AT_EMPTY_PATH));
	if (!S_ISREG(seen.st_mode))
		return -EAGAIN;
	long copy = sys(run, __NR_openat, to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	RESULT(copy);
	RESULT(copy_data(run, source, copy, (int64_t)seen.st_size));
	RESULT(copy_attributes(run, source, copy, &seen));
	RESULT(sys(run, __NR_close, copy));
	return sys(run, __NR_close, source);
}

static long copy_link(struct run *run, long from, long to, const char *name, const struct stat *seen)
{
	char target[PATH_MAX];
	long length = sys(run, __NR_readlinkat, from, name, target, sizeof target - 1);
	RESULT(length);
	target[length] = 0;
	RESULT(sys(run, __NR_symlinkat, target, to, name));
	RESULT(sys(run, __NR_fchownat, to, name, seen->st_uid, seen->st_gid, AT_SYMLINK_NOFOLLOW));
	return set_times(run, to, name, seen);
}

/* Devices, FIFOs and sockets. */
static long copy_node(struct run *run, long to, const char *name, const struct stat *seen)
{
	RESULT(sys(run, __NR_mknodat, to, name, seen->st_mode, seen->st_rdev));
	RESULT(sys(run, __NR_fchownat, to, name, seen->st_uid, seen->st_gid, AT_SYMLINK_NOFOLLOW));
	/* mknod obeys the umask; nobody else is in this file system, so the name is still the node */
	RESULT(sys(run, __NR_fchmodat, to, name, seen->st_mode & 07777));
	return set_times(run, to, name, seen);
}

static long copy_directory(struct run *run, long from, long to, int depth);

static long copy_below(struct run *run, long from, long to, const char *name, int depth)
{
	struct stat seen;
	long source = open_directory(run, from, name);
	RESULT(source);
	RESULT(sys(run, __NR_newfstatat, source, "", &seen, AT_EMPTY_PATH));
	RESULT(sys(run, __NR_mkdirat, to, name, 0700));
	long copy = open_directory(run, to, name);
	RESULT(copy);
	RESULT(copy_directory(run, source, copy, depth + 1));
	RESULT(copy_attributes(run, source, copy, &seen));
	RESULT(sys(run, __NR_close, copy));
	return sys(run, __NR_close, source);
}

static long copy_entry(struct run *run, long from, long to, const char *name, int depth)
{
	struct stat seen;
	if (text_equal(name, ".") || text_equal(name, ".."))
		return 0;
	RESULT(sys(run, __NR_newfstatat, from, name, &seen, AT_SYMLINK_NOFOLLOW));
	switch (seen.st_mode & S_IFMT) {
	case S_IFDIR:
		return copy_below(run, from, to, name, depth);
	case S_IFREG:
		return copy_file(run, from, to, name);
	case S_IFLNK:
		return copy_link(run, from, to, name, &seen);
	default:
		return copy_node(run, to, name, &seen);
	}
}

static long copy_directory(struct run *run, long from, long to, int depth)
{
	union {
		struct entry first;
		unsigned char bytes[ENTRIES_SIZE];
	} entries;
	if (depth == DEPTH_MAX)
		return -ENAMETOOLONG;
	for (;;) {
		long length = sys(run, __NR_getdents64, from, &entries, sizeof entries);
		RESULT(length);
		if (length == 0)
			return 0;
		for (long at = 0; at < length;) {
			const struct entry *entry = (const void *)(entries.bytes + at);
			RESULT(copy_entry(run, from, to, entry->name, depth));
			at += entry->length;
		}
	}
}

long step_copy_up(struct run *run, const union plan_arg *arg)
{
	struct stat seen;
	long from = open_covered(run, run->slots[arg[1].slot], arg[2].string, &seen);
	if (from == -ENOENT)
		return 0;
	RESULT(from);
	long to = open_directory(run, run->slots[arg[0].slot], ".");
	RESULT(to);
	RESULT(copy_directory(run, from, to, 0));
	RESULT(copy_xattrs(run, from, to));
	RESULT(set_times(run, to, NULL, &seen));
	sys(run, __NR_close, from);
	return sys(run, __NR_close, to);
}
