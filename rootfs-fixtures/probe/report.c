// SPDX-License-Identifier: Apache-2.0
/*
 * What a process can see of its container. Everything is asked of the kernel directly; what only /proc
 * can tell is null where there is no /proc.
 */
#include "report.h"
#include "file.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <linux/ioprio.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* linux/sched/types.h redefines what glibc's sched.h has, so here is its first version (sched_getattr(2)). */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime_ns, deadline_ns, period_ns;
};

static void strings(struct json *json, const char *key, char **vector)
{
	json_key(json, key);
	json_open(json, '[');
	for (; *vector != NULL; vector++)
		json_string(json, *vector);
	json_close(json, ']');
}

/* A number that is the whole content of a file, or null. */
static void number_file(struct json *json, const char *key, const char *path)
{
	char *text = read_file(path, NULL);
	char *end;
	long long number;

	json_key(json, key);
	if (text != NULL && (number = strtoll(text, &end, 10), end != text))
		json_signed(json, number);
	else
		json_null(json);
	free(text);
}

static void text_file(struct json *json, const char *key, const char *path)
{
	size_t count = 0;
	char *text = read_file(path, &count);

	json_key(json, key);
	if (text != NULL)
		json_bytes(json, text, count);
	else
		json_null(json);
	free(text);
}

static void trimmed_file(struct json *json, const char *key, const char *path)
{
	char *text = read_file(path, NULL);

	json_key(json, key);
	if (text != NULL)
		text[strcspn(text, "\n")] = '\0';
	json_string(json, text);
	free(text);
}

/* The lines of a file, with runs of blanks made one; null if there is no such file. */
static void lines_file(struct json *json, const char *key, const char *path)
{
	char *text = read_file(path, NULL);
	char *rest = text;
	char *line;

	json_key(json, key);
	if (text == NULL) {
		json_null(json);
		return;
	}
	json_open(json, '[');
	while ((line = strsep(&rest, "\n")) != NULL) {
		char *to = line;

		if (*line == '\0')
			continue;
		for (const char *from = line + strspn(line, " \t"); *from != '\0'; from++) {
			bool blank = *from == ' ' || *from == '\t';

			if (blank && (from[1] == ' ' || from[1] == '\t' || from[1] == '\0'))
				continue;
			*to++ = blank ? ' ' : *from;
		}
		*to = '\0';
		json_string(json, line);
	}
	json_close(json, ']');
	free(text);
}

/* The word after "name:" in /proc/self/status, or NULL; valid until the next call with the same status. */
static const char *status_word(const char *status, const char *name, char *word, size_t size)
{
	size_t length = strlen(name);

	for (const char *line = status; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) == 0 && line[length] == ':') {
			const char *from = line + length + 1;

			from += strspn(from, " \t");
			snprintf(word, size, "%.*s", (int)strcspn(from, " \t\n"), from);
			return word;
		}
	}
	return NULL;
}

static void write_identity(struct json *json)
{
	uid_t uid[3];
	gid_t gid[3];
	gid_t groups[1024];
	int count = getgroups(1024, groups);
	mode_t mask = umask(0);

	umask(mask);
	getresuid(&uid[0], &uid[1], &uid[2]);
	getresgid(&gid[0], &gid[1], &gid[2]);
	static const char *const KINDS[] = {"real", "effective", "saved"};

	json_key(json, "uids");
	json_open(json, '{');
	for (int i = 0; i < 3; i++) {
		json_key(json, KINDS[i]);
		json_unsigned(json, uid[i]);
	}
	/* An impossible id changes nothing and returns the present one. */
	json_key(json, "fs");
	json_unsigned(json, (uid_t)setfsuid((uid_t)-1));
	json_close(json, '}');
	json_key(json, "gids");
	json_open(json, '{');
	for (int i = 0; i < 3; i++) {
		json_key(json, KINDS[i]);
		json_unsigned(json, gid[i]);
	}
	json_key(json, "fs");
	json_unsigned(json, (gid_t)setfsgid((gid_t)-1));
	json_close(json, '}');
	json_key(json, "groups");
	json_open(json, '[');
	for (int i = 0; i < count; i++)
		json_unsigned(json, groups[i]);
	json_close(json, ']');
	json_key(json, "umask");
	json_format(json, "%04o", mask);
	lines_file(json, "uidMap", "/proc/self/uid_map");
	lines_file(json, "gidMap", "/proc/self/gid_map");
	trimmed_file(json, "setgroups", "/proc/self/setgroups");
	number_file(json, "loginuid", "/proc/self/loginuid");
}

static void write_capabilities(struct json *json)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	uint64_t bounding = 0, ambient = 0;

	syscall(SYS_capget, &header, data);
	for (unsigned int capability = 0; capability < 64; capability++) {
		if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1)
			bounding |= 1ULL << capability;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0) == 1)
			ambient |= 1ULL << capability;
	}
	const struct {
		const char *name;
		uint64_t set;
	} sets[] = {
	    {"inheritable", data[0].inheritable | (uint64_t)data[1].inheritable << 32},
	    {"permitted", data[0].permitted | (uint64_t)data[1].permitted << 32},
	    {"effective", data[0].effective | (uint64_t)data[1].effective << 32},
	    {"bounding", bounding},
	    {"ambient", ambient},
	};

	json_key(json, "capabilities");
	json_open(json, '{');
	for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
		json_key(json, sets[i].name);
		json_format(json, "%016llx", (unsigned long long)sets[i].set);
	}
	json_close(json, '}');
}

static void write_status(struct json *json)
{
	char *status = read_file("/proc/self/status", NULL);
	static const char *const SIGNALS[][2] = {{"blocked", "SigBlk"}, {"ignored", "SigIgn"}, {"caught", "SigCgt"}};
	char word[64];

	json_key(json, "noNewPrivs");
	json_bool(json, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	json_key(json, "dumpable");
	json_signed(json, prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	/* Not prctl(PR_GET_SECCOMP): under a strict filter that call would be the last. */
	json_key(json, "seccomp");
	if (status_word(status, "Seccomp", word, sizeof(word)) == NULL) {
		json_null(json);
	} else {
		json_open(json, '{');
		json_key(json, "mode");
		json_signed(json, atoi(word));
		json_key(json, "filters");
		if (status_word(status, "Seccomp_filters", word, sizeof(word)) == NULL)
			json_null(json);
		else
			json_signed(json, atoi(word));
		json_close(json, '}');
	}
	json_key(json, "signals");
	json_open(json, '{');
	for (size_t i = 0; i < 3; i++) {
		json_key(json, SIGNALS[i][0]);
		json_string(json, status_word(status, SIGNALS[i][1], word, sizeof(word)));
	}
	json_close(json, '}');
	free(status);
}

static void write_namespaces(struct json *json)
{
	static const char *const NAMES[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
	char path[64], target[64];

	json_key(json, "namespaces");
	json_open(json, '{');
	for (size_t i = 0; i < sizeof(NAMES) / sizeof(*NAMES); i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", NAMES[i]);
		json_key(json, NAMES[i]);
		/* "pid:[4026531836]" */
		if (read_link(AT_FDCWD, path, target, sizeof(target)) && strchr(target, '[') != NULL)
			json_unsigned(json, strtoull(strchr(target, '[') + 1, NULL, 10));
		else
			json_null(json);
	}
	json_close(json, '}');
}

static void write_limits(struct json *json)
{
	static const struct {
		const char *name;
		__rlimit_resource_t resource;
	} LIMITS[] = {
	    {"RLIMIT_AS", RLIMIT_AS},
	    {"RLIMIT_CORE", RLIMIT_CORE},
	    {"RLIMIT_CPU", RLIMIT_CPU},
	    {"RLIMIT_DATA", RLIMIT_DATA},
	    {"RLIMIT_FSIZE", RLIMIT_FSIZE},
	    {"RLIMIT_LOCKS", RLIMIT_LOCKS},
	    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
	    {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
	    {"RLIMIT_NICE", RLIMIT_NICE},
	    {"RLIMIT_NOFILE", RLIMIT_NOFILE},
	    {"RLIMIT_NPROC", RLIMIT_NPROC},
	    {"RLIMIT_RSS", RLIMIT_RSS},
	    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
	    {"RLIMIT_RTTIME", RLIMIT_RTTIME},
	    {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
	    {"RLIMIT_STACK", RLIMIT_STACK},
	};

	json_key(json, "rlimits");
	json_open(json, '{');
	for (size_t i = 0; i < sizeof(LIMITS) / sizeof(*LIMITS); i++) {
		struct rlimit limit;

		json_key(json, LIMITS[i].name);
		if (getrlimit(LIMITS[i].resource, &limit) < 0) {
			json_null(json);
			continue;
		}
		const rlim_t values[] = {limit.rlim_cur, limit.rlim_max};

		json_open(json, '{');
		for (int side = 0; side < 2; side++) {
			json_key(json, side == 0 ? "soft" : "hard");
			/* A JSON reader's number cannot hold 2^64 - 1. */
			if (values[side] == RLIM_INFINITY)
				json_string(json, "unlimited");
			else
				json_unsigned(json, values[side]);
		}
		json_close(json, '}');
	}
	json_close(json, '}');
}

static void write_descriptor(struct json *json, int fd, bool has_proc)
{
	char path[64], target[PATH_MAX];
	int flags = fcntl(fd, F_GETFL);
	int descriptor_flags = fcntl(fd, F_GETFD);
	struct stat stat;

	if (descriptor_flags < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	json_open(json, '{');
	json_key(json, "fd");
	json_signed(json, fd);
	json_key(json, "target");
	if (has_proc && read_link(AT_FDCWD, path, target, sizeof(target)))
		json_string(json, target);
	else
		json_null(json);
	json_key(json, "type");
	json_string(json, fstat(fd, &stat) == 0 ? file_type(stat.st_mode) : NULL);
	json_key(json, "flags");
	json_format(json, "%x", (unsigned int)flags);
	json_key(json, "cloexec");
	json_bool(json, (descriptor_flags & FD_CLOEXEC) != 0);
	json_close(json, '}');
}

static void write_descriptors(struct json *json)
{
	DIR *directory = opendir("/proc/self/fd");

	json_key(json, "descriptors");
	json_open(json, '[');
	if (directory == NULL) {
		for (int fd = 0; fd < 4096; fd++)
			write_descriptor(json, fd, false);
	} else {
		for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
			if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
				write_descriptor(json, atoi(entry->d_name), true);
		closedir(directory);
	}
	json_close(json, ']');
}

/* proc_pid_mountinfo(5): blanks, tabs, line ends and backslashes come as three octal digits. */
static void octal_string(struct json *json, char *text)
{
	char *to = text;

	if (text == NULL) {
		json_null(json);
		return;
	}
	for (const char *from = text; *from != '\0'; from++) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] != '\0' && from[3] != '\0') {
			*to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 3;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
	json_string(json, text);
}

static void write_mounts(struct json *json)
{
	char *text = read_file("/proc/self/mountinfo", NULL);
	char *rest = text;
	char *line;

	json_key(json, "mounts");
	if (text == NULL) {
		json_null(json);
		return;
	}
	json_open(json, '[');
	while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') {
		static const char *const FIRST[] = {"id", "parent", "device", "root", "mountPoint", "options"};
		static const char *const LAST[] = {"type", "source", "superOptions"};
		char *field;

		json_open(json, '{');
		for (size_t i = 0; i < 6; i++) {
			field = strsep(&line, " ");
			json_key(json, FIRST[i]);
			if (i < 2 && field != NULL)
				json_signed(json, atoll(field));
			else
				octal_string(json, field);
		}
		json_key(json, "optionalFields");
		json_open(json, '[');
		while ((field = strsep(&line, " ")) != NULL && strcmp(field, "-") != 0)
			json_string(json, field);
		json_close(json, ']');
		for (size_t i = 0; i < 3; i++) {
			json_key(json, LAST[i]);
			octal_string(json, strsep(&line, " "));
		}
		json_close(json, '}');
	}
	json_close(json, ']');
	free(text);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void write_devices(struct json *json)
{
	struct dirent **entries;
	int count = scandir("/dev", &entries, NULL, by_name);
	int directory = open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	json_key(json, "devices");
	if (count < 0) {
		json_null(json);
		return;
	}
	json_open(json, '[');
	for (int i = 0; i < count; i++) {
		const char *name = entries[i]->d_name;
		char target[PATH_MAX];
		struct stat stat;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		    fstatat(directory, name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		bool is_device = S_ISCHR(stat.st_mode) || S_ISBLK(stat.st_mode);

		json_open(json, '{');
		json_key(json, "name");
		json_string(json, name);
		json_key(json, "type");
		json_string(json, file_type(stat.st_mode));
		json_key(json, "major");
		is_device ? json_unsigned(json, major(stat.st_rdev)) : json_null(json);
		json_key(json, "minor");
		is_device ? json_unsigned(json, minor(stat.st_rdev)) : json_null(json);
		json_key(json, "mode");
		json_format(json, "%04o", stat.st_mode & 07777);
		json_key(json, "uid");
		json_unsigned(json, stat.st_uid);
		json_key(json, "gid");
		json_unsigned(json, stat.st_gid);
		json_key(json, "target");
		json_string(json, read_link(directory, name, target, sizeof(target)) ? target : NULL);
		json_close(json, '}');
		free(entries[i]);
	}
	json_close(json, ']');
	free(entries);
	close(directory);
}

static void write_terminal(struct json *json)
{
	static const char *const NAMES[] = {"stdin", "stdout", "stderr"};
	struct winsize size;
	bool has_size = false, is_controlling = false;
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

	json_key(json, "tty");
	json_open(json, '{');
	for (int i = 0; i < 3; i++) {
		json_key(json, NAMES[i]);
		json_bool(json, isatty(i) == 1);
		has_size = has_size || ioctl(i, TIOCGWINSZ, &size) == 0;
		/* Only its controlling terminal tells a process about the foreground group (tty_ioctl(4)). */
		is_controlling = is_controlling || tcgetpgrp(i) >= 0;
	}
	if (fd >= 0) {
		is_controlling = true;
		close(fd);
	}
	json_key(json, "rows");
	has_size ? json_unsigned(json, size.ws_row) : json_null(json);
	json_key(json, "columns");
	has_size ? json_unsigned(json, size.ws_col) : json_null(json);
	json_key(json, "controlling");
	json_bool(json, is_controlling);
	json_close(json, '}');
}

static void write_address(struct json *json, const struct ifaddrs *entry)
{
	char text[INET6_ADDRSTRLEN];
	const unsigned char *mask;
	size_t length;
	const void *address;
	int bits = 0;

	if (entry->ifa_addr->sa_family == AF_INET) {
		address = &((const struct sockaddr_in *)(const void *)entry->ifa_addr)->sin_addr;
		mask = (const void *)&((const struct sockaddr_in *)(const void *)entry->ifa_netmask)->sin_addr;
		length = 4;
	} else {
		address = &((const struct sockaddr_in6 *)(const void *)entry->ifa_addr)->sin6_addr;
		mask = (const void *)&((const struct sockaddr_in6 *)(const void *)entry->ifa_netmask)->sin6_addr;
		length = 16;
	}
	for (size_t i = 0; i < length; i++)
		bits += __builtin_popcount(mask[i]);
	inet_ntop(entry->ifa_addr->sa_family, address, text, sizeof(text));
	json_format(json, "%s/%d", text, bits);
}

static void write_network(struct json *json)
{
	struct ifaddrs *list;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	json_key(json, "network");
	if (getifaddrs(&list) < 0) {
		json_null(json);
		if (fd >= 0)
			close(fd);
		return;
	}
	json_open(json, '[');
	/* The list has one AF_PACKET entry for every link and one more for every address. */
	for (const struct ifaddrs *link = list; link != NULL; link = link->ifa_next) {
		if (link->ifa_addr == NULL || link->ifa_addr->sa_family != AF_PACKET)
			continue;
		const struct sockaddr_ll *hardware = (const void *)link->ifa_addr;
		const unsigned char *mac = hardware->sll_addr;
		struct ifreq request = {0};

		json_open(json, '{');
		json_key(json, "name");
		json_string(json, link->ifa_name);
		json_key(json, "up");
		json_bool(json, (link->ifa_flags & IFF_UP) != 0);
		json_key(json, "mac");
		if (hardware->sll_halen == 6)
			json_format(json, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
				    mac[5]);
		else
			json_null(json);
		json_key(json, "addresses");
		json_open(json, '[');
		for (const struct ifaddrs *entry = list; entry != NULL; entry = entry->ifa_next)
			if (entry->ifa_addr != NULL && entry->ifa_netmask != NULL &&
			    (entry->ifa_addr->sa_family == AF_INET || entry->ifa_addr->sa_family == AF_INET6) &&
			    strcmp(entry->ifa_name, link->ifa_name) == 0)
				write_address(json, entry);
		json_close(json, ']');
		json_key(json, "mtu");
		snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", link->ifa_name);
		if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &request) == 0)
			json_signed(json, request.ifr_mtu);
		else
			json_null(json);
		json_close(json, '}');
	}
	json_close(json, ']');
	freeifaddrs(list);
	if (fd >= 0)
		close(fd);
}

static void write_routes(struct json *json)
{
	char *text = read_file("/proc/net/route", NULL);
	char *rest = text;
	char *line;

	json_key(json, "routes");
	if (text == NULL) {
		json_null(json);
		return;
	}
	json_open(json, '[');
	while ((line = strsep(&rest, "\n")) != NULL) {
		char name[IFNAMSIZ], to[INET_ADDRSTRLEN], via[INET_ADDRSTRLEN];
		uint32_t destination, gateway, flags, mask;
		long long metric;

		/* The addresses are in network order already, printed as one number of the host's order. */
		if (sscanf(line, "%15s %x %x %x %*d %*d %lld %x", name, &destination, &gateway, &flags, &metric,
			   &mask) != 6)
			continue;
		inet_ntop(AF_INET, &destination, to, sizeof(to));
		inet_ntop(AF_INET, &gateway, via, sizeof(via));
		json_open(json, '{');
		json_key(json, "interface");
		json_string(json, name);
		json_key(json, "destination");
		json_format(json, "%s/%d", to, __builtin_popcount(mask));
		json_key(json, "gateway");
		json_string(json, gateway == 0 ? NULL : via);
		json_key(json, "metric");
		json_signed(json, metric);
		json_close(json, '}');
	}
	json_close(json, ']');
	free(text);
}

static void write_scheduler(struct json *json)
{
	static const char *const POLICIES[] = {"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR",       "SCHED_BATCH",
					       "SCHED_ISO",   "SCHED_IDLE", "SCHED_DEADLINE", "SCHED_EXT"};
	static const char *const CLASSES[] = {"IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE",
					      "IOPRIO_CLASS_IDLE"};
	struct attributes attributes = {.size = sizeof(attributes)};
	long priority = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
	cpu_set_t set;

	json_key(json, "scheduler");
	if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) < 0 ||
	    attributes.policy >= sizeof(POLICIES) / sizeof(*POLICIES)) {
		json_null(json);
	} else {
		json_open(json, '{');
		json_key(json, "policy");
		json_string(json, POLICIES[attributes.policy]);
		json_key(json, "priority");
		json_unsigned(json, attributes.priority);
		json_key(json, "nice");
		json_signed(json, attributes.nice);
		json_key(json, "flags");
		json_format(json, "%llx", (unsigned long long)attributes.flags);
		json_key(json, "runtimeNs");
		json_unsigned(json, attributes.runtime_ns);
		json_key(json, "deadlineNs");
		json_unsigned(json, attributes.deadline_ns);
		json_key(json, "periodNs");
		json_unsigned(json, attributes.period_ns);
		json_close(json, '}');
	}
	json_key(json, "ioPriority");
	if (priority < 0) {
		json_null(json);
	} else {
		json_open(json, '{');
		json_key(json, "class");
		json_string(json, CLASSES[(priority >> IOPRIO_CLASS_SHIFT) & 3]);
		json_key(json, "level");
		json_signed(json, priority & 7);
		json_close(json, '}');
	}
	json_key(json, "affinity");
	if (sched_getaffinity(0, sizeof(set), &set) < 0) {
		json_null(json);
		return;
	}
	json_open(json, '[');
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			json_unsigned(json, cpu);
	json_close(json, ']');
}

static void write_keyring(struct json *json)
{
	char description[256] = "";
	long id = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);

	json_key(json, "keyring");
	if (id < 0 || syscall(SYS_keyctl, KEYCTL_DESCRIBE, id, description, sizeof(description) - 1) < 0) {
		json_null(json);
		return;
	}
	json_open(json, '{');
	json_key(json, "id");
	json_signed(json, id);
	json_key(json, "description");
	json_string(json, description);
	json_close(json, '}');
}

static void write_clocks(struct json *json)
{
	static const struct {
		const char *name;
		clockid_t clock;
	} CLOCKS[] = {{"monotonic", CLOCK_MONOTONIC}, {"boottime", CLOCK_BOOTTIME}};
	struct timespec now;

	json_key(json, "clocks");
	json_open(json, '{');
	for (size_t i = 0; i < 2; i++) {
		clock_gettime(CLOCKS[i].clock, &now);
		json_key(json, CLOCKS[i].name);
		json_format(json, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
	}
	json_close(json, '}');
	lines_file(json, "timeOffsets", "/proc/self/timens_offsets");
}

static void write_files(struct json *json)
{
	static const char *const FILES[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"};
	static const char *const SYSCTLS[][2] = {
	    {"kernel.hostname", "/proc/sys/kernel/hostname"},
	    {"kernel.domainname", "/proc/sys/kernel/domainname"},
	    {"kernel.shmmax", "/proc/sys/kernel/shmmax"},
	    {"kernel.msgmax", "/proc/sys/kernel/msgmax"},
	    {"kernel.sem", "/proc/sys/kernel/sem"},
	    {"fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max"},
	    {"net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"},
	    {"net.ipv4.ping_group_range", "/proc/sys/net/ipv4/ping_group_range"},
	    {"net.ipv4.ip_unprivileged_port_start", "/proc/sys/net/ipv4/ip_unprivileged_port_start"},
	};

	json_key(json, "files");
	json_open(json, '{');
	for (size_t i = 0; i < sizeof(FILES) / sizeof(*FILES); i++)
		text_file(json, FILES[i], FILES[i]);
	json_close(json, '}');
	json_key(json, "sysctls");
	json_open(json, '{');
	for (size_t i = 0; i < sizeof(SYSCTLS) / sizeof(*SYSCTLS); i++)
		trimmed_file(json, SYSCTLS[i][0], SYSCTLS[i][1]);
	json_close(json, '}');
}

static void write_process(struct json *json)
{
	char path[PATH_MAX];
	struct utsname names;
	/* The system call: glibc's getcwd hides "(unreachable)" behind ENOENT. */
	bool has_cwd = syscall(SYS_getcwd, path, sizeof(path)) > 0;
	int signal = 0;

	json_key(json, "cwd");
	json_string(json, has_cwd ? path : NULL);
	json_key(json, "cwdUnreachable");
	json_bool(json, has_cwd && path[0] != '/');
	json_key(json, "exe");
	json_string(json, read_link(AT_FDCWD, "/proc/self/exe", path, sizeof(path)) ? path : NULL);
	json_key(json, "pid");
	json_signed(json, getpid());
	json_key(json, "ppid");
	json_signed(json, getppid());
	json_key(json, "sid");
	json_signed(json, getsid(0));
	json_key(json, "pgid");
	json_signed(json, getpgrp());
	uname(&names);
	json_key(json, "hostname");
	json_string(json, names.nodename);
	json_key(json, "domainname");
	json_string(json, names.domainname);
	json_key(json, "machine");
	json_string(json, names.machine);
	json_key(json, "personality");
	json_format(json, "%x", (unsigned int)personality(0xffffffff));
	prctl(PR_GET_PDEATHSIG, &signal, 0, 0, 0);
	json_key(json, "parentDeathSignal");
	json_signed(json, signal);
	number_file(json, "oomScoreAdj", "/proc/self/oom_score_adj");
	number_file(json, "oomScore", "/proc/self/oom_score");
	trimmed_file(json, "securityLabel", "/proc/self/attr/current");
	lines_file(json, "cgroup", "/proc/self/cgroup");
}

void write_report(struct json *json, char **argv, char **environment)
{
	/* First, before this program has opened anything. */
	write_descriptors(json);
	strings(json, "argv", argv);
	strings(json, "env", environment);
	write_process(json);
	write_identity(json);
	write_capabilities(json);
	write_status(json);
	write_namespaces(json);
	write_limits(json);
	write_mounts(json);
	write_devices(json);
	write_terminal(json);
	write_network(json);
	write_routes(json);
	write_scheduler(json);
	write_keyring(json);
	write_clocks(json);
	write_files(json);
}
