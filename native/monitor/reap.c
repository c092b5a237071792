/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children end in any order: init, the container (which init clones with CLONE_PARENT, so that it is ours),
 * the clean-up program, and orphans, since we are their subreaper. An end that comes before its pid was
 * announced waits in a ring.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_EARLY = 256, MAX_WATCHED = 3 };

static struct child early[MAX_EARLY];
static unsigned int early_count; /* of all times; the ring holds the last MAX_EARLY */
static struct child *watched[MAX_WATCHED];
static unsigned int watched_count;

/* Learn the end of `pid` in `child`, also when it has ended already. */
void watch_child(struct child *child, pid_t pid)
{
	child->pid = pid;
	watched[watched_count++ % MAX_WATCHED] = child;

	/* The oldest first: if the number was used again since, the later one is an orphan's. */
	const unsigned int first = early_count > MAX_EARLY ? early_count - MAX_EARLY : 0;
	for (unsigned int i = first; i < early_count; i++) {
		if (early[i % MAX_EARLY].pid == pid) {
			*child = early[i % MAX_EARLY];
			return;
		}
	}
}

/* Reap all that has ended. False when no child is left at all. */
bool reap_children(void)
{
	for (;;) {
		struct child ended = {.exited = true};
		/* __WALL: a child cloned with another exit signal than SIGCHLD must not stay a zombie */
		ended.pid = waitpid(-1, &ended.status, WNOHANG | __WALL);
		if (ended.pid < 0)
			return errno != ECHILD;
		if (ended.pid == 0)
			return true;
		clock_gettime(CLOCK_REALTIME, &ended.exited_at);
		for (unsigned int i = 0; i < MAX_WATCHED; i++) {
			struct child *child = watched[i];
			if (child != NULL && child->pid == ended.pid && !child->exited)
				*child = ended;
		}
		early[early_count++ % MAX_EARLY] = ended;
	}
}

/*
 * SIGKILL to every child, found by asking the kernel: the creator may have died between the clone and the
 * announcement of the container. The numbers cannot be another's: only we reap them.
 */
void kill_children(void)
{
	char list[4096];
	const int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	const ssize_t size = read(fd, list, sizeof(list));
	close(fd);
	pid_t pid = 0;
	for (ssize_t i = 0; i < size; i++) {
		if (list[i] >= '0' && list[i] <= '9') {
			pid = pid * 10 + (list[i] - '0');
		} else {
			if (pid > 0)
				kill(pid, SIGKILL);
			pid = 0; /* and one that the buffer cut is left for the next time */
		}
	}
}
