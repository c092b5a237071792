/* SPDX-License-Identifier: Apache-2.0 */
/* Becoming a process of our own, and making the two that we start: init and the clean-up program. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* The creator reaps the process that it started; its child, we, belongs to nobody who could wait for it. */
bool detach(void)
{
	const pid_t pid = fork();
	if (pid != 0)
		_exit(pid < 0 ? 125 : 0);
	/* chdir and umask: part of every path and mode to come; an ignored SIGCHLD, which execve keeps, would
	 * make the kernel throw exit statuses away */
	umask(0);
	return setsid() >= 0 && chdir("/") == 0 && signal(SIGHUP, SIG_IGN) != SIG_ERR &&
	       signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGCHLD, SIG_DFL) != SIG_ERR &&
	       prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 &&
	       prctl(PR_SET_NAME, "caisson-mon", 0, 0, 0) == 0;
}

/*
 * Keep what was given and nothing else, none of it for any program that we execute: what a child gets it
 * gets by dup2. Afterwards the clean-up program's descriptor follows those for init.
 */
bool claim_descriptors(struct options *options)
{
	int end = PASSED_FD + options->init_fds;
	if (options->cleanup_fd >= 0) {
		if (options->cleanup_fd != end && dup2(options->cleanup_fd, end) < 0)
			return false;
		options->cleanup_fd = end++;
	}
	if (close_range((unsigned int)end, ~0U, 0) < 0)
		return false;
	for (int fd = CONTROL_FD; fd < end; fd++) {
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return false;
	}
	for (int fd = 0; fd < CONTROL_FD; fd++)
		close(fd);
	/* our own standard streams are closed: these become 0, 1 and 2 */
	return open("/dev/null", O_RDWR) == 0 && dup(0) == 1 && dup(0) == 2;
}

static void reset_signals(void)
{
	sigset_t none;
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL); /* refused for SIGKILL and SIGSTOP, which have no other */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The error of an execveat: every descriptor that matters was closed by success. */
static _Noreturn void report_failure(int control, int error)
{
	const struct header header = {.type = MESSAGE_FAILED, .value = (uint32_t)error, .extra = FAILURE_EXECUTE};
	send(control, &header, sizeof(header), MSG_NOSIGNAL);
	_exit(127);
}

/* init with `stdio` as 0, 1, 2 and the passed descriptors from 3 on; its pid, or −1. */
pid_t start_init(const struct options *options, const int stdio[3])
{
	char *environment[] = {NULL};
	const pid_t pid = fork();
	if (pid != 0)
		return pid;

	reset_signals();
	/* out of the way: descriptors 3, 4, … are about to become init's own */
	const int control = fcntl(CONTROL_FD, F_DUPFD_CLOEXEC, PASSED_FD + options->init_fds);
	const int executable = fcntl(INIT_FD, F_DUPFD_CLOEXEC, PASSED_FD + options->init_fds);
	if (control < 0 || executable < 0)
		report_failure(CONTROL_FD, errno);
	for (int fd = 0; fd < 3; fd++) {
		if (dup2(stdio[fd], fd) < 0)
			report_failure(control, errno);
	}
	/* upwards, so that nothing is overwritten before it was copied */
	for (int i = 0; i < options->init_fds; i++) {
		if (dup2(PASSED_FD + i, 3 + i) < 0)
			report_failure(control, errno);
	}
	execveat(executable, "", options->init_argv, environment, AT_EMPTY_PATH);
	report_failure(control, errno);
}

/* The clean-up program, with nothing of ours but PATH, in which it finds the host's tools; its pid, or −1. */
pid_t start_cleanup(const struct options *options)
{
	static char default_path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	/* getenv points behind "PATH=" in the very string that execve wants */
	char *path = getenv("PATH");
	char *environment[] = {path != NULL ? path - 5 : default_path, NULL};
	const pid_t pid = fork();
	if (pid != 0)
		return pid;

	reset_signals();
	execveat(options->cleanup_fd, "", options->cleanup_argv, environment, AT_EMPTY_PATH);
	_exit(127);
}
