// SPDX-License-Identifier: Apache-2.0
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { CONTENT_MAX = 1 << 20 };

char *read_file(const char *path, size_t *count)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char *content;
	size_t used = 0;
	ssize_t got;

	if (fd < 0)
		return NULL;
	content = malloc(CONTENT_MAX + 1);
	if (content == NULL)
		abort();
	/* Several reads: /proc hands out a large file a page at a time. */
	while ((got = read(fd, content + used, CONTENT_MAX - used)) > 0)
		used += (size_t)got;
	if (got < 0) {
		int error = errno;

		free(content);
		close(fd);
		errno = error;
		return NULL;
	}
	close(fd);
	content[used] = '\0';
	if (count != NULL)
		*count = used;
	return content;
}

bool read_link(int directory, const char *path, char *target, size_t size)
{
	ssize_t length = readlinkat(directory, path, target, size - 1);

	if (length < 0)
		return false;
	target[length] = '\0';
	return true;
}

const char *file_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symlink";
	case S_IFCHR:
		return "character";
	case S_IFBLK:
		return "block";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	default:
		return "unknown";
	}
}

/* FNV-1a, 64 bits, of a file's bytes: enough to tell files apart, small enough to write by hand. */
static void write_checksum(struct json *json, const char *path)
{
	static unsigned char block[1 << 16];
	uint64_t hash = 0xcbf29ce484222325;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t got;

	if (fd < 0) {
		json_null(json);
		return;
	}
	while ((got = read(fd, block, sizeof(block))) > 0)
		for (ssize_t i = 0; i < got; i++)
			hash = (hash ^ block[i]) * 0x100000001b3;
	close(fd);
	if (got < 0)
		json_null(json);
	else
		json_format(json, "%016llx", (unsigned long long)hash);
}

static void write_fields(struct json *json, const char *path, const struct stat *stat)
{
	char target[PATH_MAX];

	json_key(json, "type");
	json_string(json, file_type(stat->st_mode));
	json_key(json, "mode");
	json_format(json, "%04o", stat->st_mode & 07777);
	json_key(json, "uid");
	json_unsigned(json, stat->st_uid);
	json_key(json, "gid");
	json_unsigned(json, stat->st_gid);
	json_key(json, "sizeBytes");
	json_signed(json, stat->st_size);
	json_key(json, "allocatedBytes");
	json_signed(json, (long long)stat->st_blocks * 512);
	json_key(json, "mtime");
	json_format(json, "%lld.%09ld", (long long)stat->st_mtim.tv_sec, stat->st_mtim.tv_nsec);
	json_key(json, "inode");
	json_unsigned(json, stat->st_ino);
	json_key(json, "links");
	json_unsigned(json, stat->st_nlink);
	json_key(json, "target");
	if (S_ISLNK(stat->st_mode) && read_link(AT_FDCWD, path, target, sizeof(target)))
		json_string(json, target);
	else
		json_null(json);
	json_key(json, "device");
	if (S_ISCHR(stat->st_mode) || S_ISBLK(stat->st_mode))
		json_format(json, "%u:%u", major(stat->st_rdev), minor(stat->st_rdev));
	else
		json_null(json);
}

bool write_stat(struct json *json, const char *path)
{
	struct stat stat;

	if (lstat(path, &stat) < 0)
		return false;
	json_open(json, '{');
	write_fields(json, path, &stat);
	json_close(json, '}');
	return true;
}

bool write_xattrs(struct json *json, const char *path)
{
	static char names[1 << 16];
	static char content[1 << 16];
	ssize_t size = llistxattr(path, names, sizeof(names));

	if (size < 0 && errno != ENOTSUP)
		return false;
	json_open(json, '{');
	for (const char *name = names; name < names + size; name += strlen(name) + 1) {
		ssize_t length = lgetxattr(path, name, content, sizeof(content));

		json_key(json, name);
		if (length < 0)
			json_null(json);
		else
			json_hex(json, content, (size_t)length);
	}
	json_close(json, '}');
	return true;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_dots(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* relative is the path below the start; only directories decide what is another file system, since an
 * overlay gives the device numbers of its layers for everything else. */
static void write_entry(struct json *json, const char *path, const char *relative, const struct stat *stat,
			dev_t device)
{
	char below[PATH_MAX], below_relative[PATH_MAX];
	struct dirent **entries;
	struct stat next;
	int count;

	json_open(json, '{');
	json_key(json, "path");
	json_string(json, relative);
	write_fields(json, path, stat);
	json_key(json, "xattrs");
	if (!write_xattrs(json, path))
		json_null(json);
	json_key(json, "checksum");
	if (S_ISREG(stat->st_mode))
		write_checksum(json, path);
	else
		json_null(json);
	json_close(json, '}');

	if (!S_ISDIR(stat->st_mode) || stat->st_dev != device)
		return;
	count = scandir(path, &entries, not_dots, by_name);
	for (int i = 0; i < count; i++) {
		const char *name = entries[i]->d_name;
		const char *slash = path[strlen(path) - 1] == '/' ? "" : "/";
		int length = snprintf(below, sizeof(below), "%s%s%s", path, slash, name);
		bool is_top = strcmp(relative, ".") == 0;
		int relative_length = snprintf(below_relative, sizeof(below_relative), "%s%s%s", is_top ? "" : relative,
					       is_top ? "" : "/", name);

		if (length < PATH_MAX && relative_length < PATH_MAX && lstat(below, &next) == 0)
			write_entry(json, below, below_relative, &next, device);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

bool write_tree(struct json *json, const char *path)
{
	struct stat stat;

	if (lstat(path, &stat) < 0)
		return false;
	json_open(json, '[');
	write_entry(json, path, ".", &stat, stat.st_dev);
	json_close(json, ']');
	return true;
}
