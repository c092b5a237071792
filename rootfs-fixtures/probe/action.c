// SPDX-License-Identifier: Apache-2.0
/*
 * What a process can try in its container. Each action writes its result, one JSON value, and returns true;
 * or writes nothing and returns false with errno. Lines that a test waits for go to stdout at once.
 */
#include "action.h"
#include "file.h"
#include "report.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 8, FORKS_MAX = 65536 };

/* Missing arguments are NULL. */
typedef bool action_function(struct json *json, char **argument, struct context *context);

static bool done(struct json *json, long result)
{
	if (result < 0)
		return false;
	json_bool(json, true);
	return true;
}

static unsigned int id(const char *text)
{
	return (unsigned int)strtoul(text, NULL, 10);
}

static void say(const char *line)
{
	printf("%s\n", line);
	fflush(stdout);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool do_report(struct json *json, char **argument, struct context *context)
{
	(void)argument;
	json_open(json, '{');
	write_report(json, context->argv, context->environment);
	json_close(json, '}');
	return true;
}

static bool do_write(struct json *json, char **argument, struct context *context)
{
	const char *text = argument[1] != NULL ? argument[1] : "probe\n";
	int fd = open(argument[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
	ssize_t count;
	int error;

	(void)context;
	if (fd < 0)
		return false;
	count = write(fd, text, strlen(text));
	error = errno;
	/* A file system may keep its refusal for close (quota). */
	if (close(fd) < 0 && count >= 0)
		return false;
	errno = error;
	if (count < 0)
		return false;
	json_signed(json, count);
	return true;
}

static bool do_read(struct json *json, char **argument, struct context *context)
{
	size_t count;
	char *content = read_file(argument[0], &count);

	(void)context;
	if (content == NULL)
		return false;
	json_bytes(json, content, count);
	free(content);
	return true;
}

/* Waits at a FIFO until somebody has opened it and closed it again. */
static bool do_gate(struct json *json, char **argument, struct context *context)
{
	int fd = open(argument[0], O_RDONLY | O_CLOEXEC);
	char byte;
	ssize_t got;

	(void)context;
	if (fd < 0)
		return false;
	while ((got = read(fd, &byte, 1)) > 0)
		;
	close(fd);
	return done(json, (int)got);
}

static bool do_mkdir(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, mkdir(argument[0], 0777));
}

static bool do_remove(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, remove(argument[0]));
}

static bool do_mknod(struct json *json, char **argument, struct context *context)
{
	mode_t type = *argument[1] == 'c' ? S_IFCHR : *argument[1] == 'b' ? S_IFBLK : S_IFIFO;
	unsigned int major_number = argument[2] == NULL ? 0 : id(argument[2]);
	unsigned int minor_number = argument[3] == NULL ? 0 : id(argument[3]);

	(void)context;
	return done(json, mknod(argument[0], type | 0666, makedev(major_number, minor_number)));
}

/* Access is r, w or rw (as without it): the device controller decides about each at open. */
static bool do_open_device(struct json *json, char **argument, struct context *context)
{
	const char *access_mode = argument[1] == NULL ? "rw" : argument[1];
	int flags = strcmp(access_mode, "r") == 0 ? O_RDONLY : strcmp(access_mode, "w") == 0 ? O_WRONLY : O_RDWR;
	int fd = open(argument[0], flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat stat;

	(void)context;
	if (fd < 0 || fstat(fd, &stat) < 0)
		return false;
	json_format(json, "%s %u:%u", file_type(stat.st_mode), major(stat.st_rdev), minor(stat.st_rdev));
	close(fd);
	return true;
}

static bool do_mount(struct json *json, char **argument, struct context *context)
{
	const char *source = argument[0] != NULL ? argument[0] : "tmpfs";
	const char *target = argument[1] != NULL ? argument[1] : "/tmp";
	const char *type = argument[2] != NULL ? argument[2] : "tmpfs";
	unsigned long flags = argument[3] != NULL ? strtoul(argument[3], NULL, 0) : 0;

	(void)context;
	return done(json, mount(source, target, type, flags, argument[4]));
}

static bool do_umount(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, umount2(argument[0], UMOUNT_NOFOLLOW | MNT_DETACH));
}

/* What is not a number is passed as a pointer to the word. */
static bool do_syscall(struct json *json, char **argument, struct context *context)
{
	long value[ARGUMENTS_MAX] = {0};
	long result;

	(void)context;
	for (int i = 0; i < ARGUMENTS_MAX && argument[i] != NULL; i++) {
		char *end;

		value[i] = (long)strtoull(argument[i], &end, 0);
		if (*end != '\0')
			value[i] = (long)(intptr_t)argument[i];
	}
	result = syscall(value[0], value[1], value[2], value[3], value[4], value[5], value[6]);
	if (result < 0)
		return false;
	json_signed(json, result);
	return true;
}

static bool do_allocate(struct json *json, char **argument, struct context *context)
{
	size_t size = (size_t)strtoul(argument[0], NULL, 10) << 20;
	volatile char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)context;
	if (memory == MAP_FAILED)
		return false;
	for (size_t i = 0; i < size; i += 4096)
		memory[i] = 1;
	munmap((void *)(uintptr_t)memory, size);
	json_unsigned(json, size >> 20);
	return true;
}

/* The result is how many of the children could be had at the same time, and what stopped the next. */
static bool do_fork(struct json *json, char **argument, struct context *context)
{
	static pid_t children[FORKS_MAX];
	unsigned int wanted = id(argument[0]);
	unsigned int count = 0;
	int error = 0;

	(void)context;
	while (count < wanted && count < FORKS_MAX) {
		pid_t child = fork();

		if (child == 0)
			for (;;)
				pause();
		if (child < 0) {
			error = errno;
			break;
		}
		children[count++] = child;
	}
	for (unsigned int i = 0; i < count; i++)
		kill(children[i], SIGKILL);
	for (unsigned int i = 0; i < count; i++)
		waitpid(children[i], NULL, 0);
	json_open(json, '{');
	json_key(json, "forks");
	json_unsigned(json, count);
	json_key(json, "stoppedBy");
	json_string(json, error == 0 ? NULL : strerrorname_np(error));
	json_close(json, '}');
	return true;
}

static bool do_spin(struct json *json, char **argument, struct context *context)
{
	uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
	uint64_t start_cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t wanted_ns = strtoull(argument[0], NULL, 10) * 1000000;
	uint64_t now_ns;

	(void)context;
	do
		now_ns = clock_ns(CLOCK_MONOTONIC);
	while (now_ns - start_ns < wanted_ns);
	json_open(json, '{');
	json_key(json, "wallNs");
	json_unsigned(json, now_ns - start_ns);
	json_key(json, "cpuNs");
	json_unsigned(json, clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start_cpu_ns);
	json_close(json, '}');
	return true;
}

/* TERM, SIGTERM or 15. */
static int signal_number(const char *name)
{
	if (strncmp(name, "SIG", 3) == 0)
		name += 3;
	for (int number = 1; number < NSIG; number++)
		if (sigabbrev_np(number) != NULL && strcmp(sigabbrev_np(number), name) == 0)
			return number;
	return atoi(name);
}

static bool do_kill(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, kill(atoi(argument[0]), signal_number(argument[1])));
}

static bool do_signal_wait(struct json *json, char **argument, struct context *context)
{
	sigset_t all, before;
	char name[32];
	int number;

	(void)argument;
	(void)context;
	/* Blocked, a signal is kept even for pid 1, which otherwise never gets one that it does not handle.
	 */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	say("ready");
	json_open(json, '[');
	do {
		number = sigwaitinfo(&all, NULL);
		if (number < 0)
			continue;
		if (number >= SIGRTMIN)
			snprintf(name, sizeof(name), "SIGRTMIN+%d", number - SIGRTMIN);
		else
			snprintf(name, sizeof(name), "SIG%s", sigabbrev_np(number));
		say(name);
		json_string(json, name);
	} while (number != SIGTERM);
	json_close(json, ']');
	sigprocmask(SIG_SETMASK, &before, NULL);
	return true;
}

/* Answers COUNT callers, 1 by default, with one line each: "probe HOSTNAME CALLER". */
static bool do_listen(struct json *json, char **argument, struct context *context)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)id(argument[0]))};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = six.sin6_port};
	unsigned int count = argument[1] == NULL ? 1 : id(argument[1]);
	char host[65] = "", caller[INET6_ADDRSTRLEN], line[256];
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool is_six = fd >= 0;
	int option;

	(void)context;
	if (!is_six)
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	option = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &option, sizeof(option));
	option = 0;
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &option, sizeof(option));
	if ((is_six ? bind(fd, (const void *)&six, sizeof(six)) : bind(fd, (const void *)&four, sizeof(four))) < 0 ||
	    listen(fd, 16) < 0) {
		option = errno;
		close(fd);
		errno = option;
		return false;
	}
	say("listening");
	gethostname(host, sizeof(host) - 1);
	json_open(json, '[');
	for (unsigned int i = 0; i < count; i++) {
		struct sockaddr_in6 peer;
		socklen_t size = sizeof(peer);
		int connection = accept4(fd, (void *)&peer, &size, SOCK_CLOEXEC);

		if (connection < 0)
			break;
		if (peer.sin6_family == AF_INET6)
			inet_ntop(AF_INET6, &peer.sin6_addr, caller, sizeof(caller));
		else
			inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)&peer)->sin_addr, caller,
				  sizeof(caller));
		snprintf(line, sizeof(line), "probe %s %s\n", host,
			 strncmp(caller, "::ffff:", 7) == 0 ? caller + 7 : caller);
		if (send(connection, line, strlen(line), MSG_NOSIGNAL) < 0)
			json_null(json);
		else
			json_string(json, strncmp(caller, "::ffff:", 7) == 0 ? caller + 7 : caller);
		close(connection);
	}
	json_close(json, ']');
	close(fd);
	return true;
}

/* The address of a name in /etc/hosts; resolving further is the C library's, which is not here. */
static const char *host_address(const char *name, char *address, size_t size)
{
	char *text = read_file("/etc/hosts", NULL);
	char *rest = text;
	const char *found = NULL;
	char *line;

	while (found == NULL && rest != NULL && (line = strsep(&rest, "\n")) != NULL) {
		char *words = line;
		const char *first = strsep(&words, " \t");
		char *word;

		while ((word = strsep(&words, " \t")) != NULL) {
			if (strcmp(word, name) == 0) {
				snprintf(address, size, "%s", first);
				found = address;
			}
		}
	}
	free(text);
	return found;
}

static bool do_connect(struct json *json, char **argument, struct context *context)
{
	const struct timeval patience = {.tv_sec = 5};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)id(argument[1]))};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = four.sin_port};
	char found[INET6_ADDRSTRLEN], answer[4096];
	const char *address = host_address(argument[0], found, sizeof(found));
	size_t used = 0;
	ssize_t got;
	bool is_four;
	int fd, error;

	(void)context;
	if (address == NULL)
		address = argument[0];
	is_four = inet_pton(AF_INET, address, &four.sin_addr) == 1;
	if (!is_four && inet_pton(AF_INET6, address, &six.sin6_addr) != 1) {
		errno = EADDRNOTAVAIL;
		return false;
	}
	fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	got = is_four ? connect(fd, (const void *)&four, sizeof(four)) : connect(fd, (const void *)&six, sizeof(six));
	if (got == 0)
		while ((got = read(fd, answer + used, sizeof(answer) - used)) > 0)
			used += (size_t)got;
	error = errno;
	close(fd);
	errno = error;
	if (got < 0)
		return false;
	json_bytes(json, answer, used);
	return true;
}

static bool do_sleep(struct json *json, char **argument, struct context *context)
{
	double seconds = strtod(argument[0], NULL);
	struct timespec time = {.tv_sec = (time_t)seconds};

	(void)context;
	time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
	while (nanosleep(&time, &time) < 0 && errno == EINTR)
		;
	json_bool(json, true);
	return true;
}

static bool do_exit(struct json *json, char **argument, struct context *context)
{
	context->is_over = true;
	context->status = atoi(argument[0]);
	json_signed(json, context->status);
	return true;
}

static bool do_chown(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, lchown(argument[0], id(argument[1]), id(argument[2])));
}

static bool do_chmod(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, chmod(argument[0], (mode_t)strtoul(argument[1], NULL, 8)));
}

static bool do_setuid(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, setuid(id(argument[0])));
}

static bool do_setgid(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return done(json, setgid(id(argument[0])));
}

static bool do_stat(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return write_stat(json, argument[0]);
}

static bool do_xattr(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return write_xattrs(json, argument[0]);
}

static bool do_tree(struct json *json, char **argument, struct context *context)
{
	(void)context;
	return write_tree(json, argument[0]);
}

/* sd_notify(3): one datagram to $NOTIFY_SOCKET */
static bool do_notify(struct json *json, char **argument, struct context *context)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ssize_t sent;
	int error;

	(void)context;
	if (path == NULL || strlen(path) >= sizeof(address.sun_path)) {
		errno = EDESTADDRREQ;
		return false;
	}
	strcpy(address.sun_path, path);
	sent = sendto(fd, argument[0], strlen(argument[0]), 0, (struct sockaddr *)&address, sizeof(address));
	error = errno;
	close(fd);
	errno = error;
	return done(json, sent);
}

static const struct {
	const char *name;
	int least, most;
	action_function *run;
} ACTIONS[] = {
    {"--allocate", 1, 1, do_allocate}, {"--chmod", 2, 2, do_chmod},
    {"--chown", 3, 3, do_chown},       {"--connect", 2, 2, do_connect},
    {"--exit", 1, 1, do_exit},         {"--fork", 1, 1, do_fork},
    {"--gate", 1, 1, do_gate},         {"--kill", 2, 2, do_kill},
    {"--listen", 1, 2, do_listen},     {"--mkdir", 1, 1, do_mkdir},
    {"--mknod", 2, 4, do_mknod},       {"--mount", 0, 5, do_mount},
    {"--notify", 1, 1, do_notify},     {"--open-device", 1, 2, do_open_device},
    {"--read", 1, 1, do_read},         {"--remove", 1, 1, do_remove},
    {"--report", 0, 0, do_report},     {"--setgid", 1, 1, do_setgid},
    {"--setuid", 1, 1, do_setuid},     {"--signal-wait", 0, 0, do_signal_wait},
    {"--sleep", 1, 1, do_sleep},       {"--spin", 1, 1, do_spin},
    {"--stat", 1, 1, do_stat},         {"--syscall", 1, 7, do_syscall},
    {"--tree", 1, 1, do_tree},         {"--umount", 1, 1, do_umount},
    {"--write", 1, 2, do_write},       {"--xattr", 1, 1, do_xattr},
};

int write_action(struct json *json, char **words, int count, struct context *context)
{
	for (size_t i = 0; i < sizeof(ACTIONS) / sizeof(*ACTIONS); i++) {
		char *argument[ARGUMENTS_MAX] = {NULL};
		int taken = 0;

		if (strcmp(words[0], ACTIONS[i].name) != 0)
			continue;
		while (taken < ACTIONS[i].most && taken + 1 < count && strncmp(words[taken + 1], "--", 2) != 0) {
			argument[taken] = words[taken + 1];
			taken++;
		}
		if (taken < ACTIONS[i].least)
			return 0;
		json_open(json, '{');
		json_key(json, "action");
		json_string(json, words[0]);
		json_key(json, "arguments");
		json_open(json, '[');
		for (int k = 0; k < taken; k++)
			json_string(json, argument[k]);
		json_close(json, ']');
		json_key(json, "result");
		errno = 0;
		bool is_done = ACTIONS[i].run(json, argument, context);
		int error = errno;

		if (!is_done)
			json_null(json);
		json_key(json, "error");
		if (is_done)
			json_null(json);
		else if (strerrorname_np(error) != NULL)
			json_string(json, strerrorname_np(error));
		else
			json_format(json, "%d", error);
		json_close(json, '}');
		return taken + 1;
	}
	return 0;
}
