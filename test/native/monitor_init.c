/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for init that drives the monitor's tests: it clones the "container" as the monitor's child, as
 * init does, and leaves. Descriptor 3 is a SOCK_SEQPACKET to the driver.
 *
 *   monitor_init pipe|tty|orphan COMMAND...
 *
 * To the driver: the container's pid as text, with tty also the terminal's master. From the driver: one
 * packet, which lets the container execute COMMAND. The driver's end ends the container. With orphan, the
 * pid of a process whose parents have left follows.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(long pid, int fd)
{
	char text[32];
	struct iovec bytes = {text, (size_t)snprintf(text, sizeof(text), "%ld", pid)};
	_Alignas(struct cmsghdr) char descriptor[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
	if (fd >= 0) {
		message.msg_control = descriptor;
		message.msg_controllen = sizeof(descriptor);
		struct cmsghdr *part = CMSG_FIRSTHDR(&message);
		part->cmsg_level = SOL_SOCKET;
		part->cmsg_type = SCM_RIGHTS;
		part->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(part), &fd, sizeof(fd));
	}
	if (sendmsg(3, &message, MSG_NOSIGNAL) < 0)
		_exit(99);
}

static int open_terminal(void)
{
	const int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	int locked = 0;
	setsid();
	ioctl(master, TIOCSPTLCK, &locked);
	const int terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	if (terminal < 0 || ioctl(terminal, TIOCSCTTY, 0) < 0)
		_exit(98);
	for (int fd = 0; fd < 3; fd++)
		dup2(terminal, fd);
	close(terminal);
	return master;
}

static _Noreturn void contain(const char *mode, char **command)
{
	char go;
	const int master = strcmp(mode, "tty") == 0 ? open_terminal() : -1;
	say(getpid(), master);
	if (strcmp(mode, "orphan") == 0) {
		if (fork() == 0) {
			if (fork() == 0) {
				sleep(1);
				_exit(0);
			}
			_exit(0);
		}
		wait(NULL);
	}
	if (recv(3, &go, 1, 0) != 1)
		_exit(97);
	close(3);
	close(master);
	execv(command[0], command);
	_exit(127);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 96;
	/* exactly 0, 1, 2 and 3 are open, no variable is set, no signal is blocked or ignored */
	sigset_t mask;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	if (fcntl(3, F_GETFD) < 0 || fcntl(4, F_GETFD) >= 0 || environ[0] != NULL || !sigisemptyset(&mask) ||
	    signal(SIGPIPE, SIG_DFL) != SIG_DFL || signal(SIGHUP, SIG_DFL) != SIG_DFL)
		return 95;
	for (int fd = 4; fd < 64; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			return 94;
	}
	/* as fork, but the child's parent is ours */
	struct clone_args args = {.flags = CLONE_PARENT};
	const long pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		contain(argv[1], argv + 2);
	return pid > 0 ? 7 : 93;
}
