/* SPDX-License-Identifier: Apache-2.0 */
/*
 * monitor: the parent of an engine's container, from before its first process until after its clean-up.
 *
 *   monitor [--tty] [--stdin] [--log-max BYTES] [--cleanup-fd N] --init-fds COUNT
 *           -- ARGV OF INIT... [-- ARGV OF THE CLEAN-UP PROGRAM...]
 *
 * Descriptors: 3 the creator's socket, 4 init, 5 the container's directory, 6… what init gets as 3….
 * protocol.h says what is spoken. Files in the directory: attach.sock (until the container's end), log,
 * log.1, exit.json. One thread, one poll, no heap.
 */
#include "monitor.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
	SLOT_SIGNALS,
	SLOT_CONTROL,
	SLOT_CONSOLE,
	SLOT_ATTACH = SLOT_CONSOLE + CONSOLE_SLOTS,
	SLOTS = SLOT_ATTACH + 1 + MAX_CLIENTS,
};

enum {
	RECORD_GRACE_MS = 2000, /* how long a stopped foreground client may delay exit.json */
	ABORT_GRACE_MS = 10000, /* how long a child may take to die of SIGKILL */
	ABORT_ROUND_MS = 100,
	MAX_INIT_FDS = 256,
};

static bool parse_number(const char *text, uint64_t max, uint64_t *number)
{
	char *end;
	if (text == NULL || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' && *number <= max;
}

static bool parse(char **argv, struct options *options)
{
	uint64_t number;
	*options = (struct options){.cleanup_fd = -1, .init_fds = -1};
	for (argv++; *argv != NULL && strcmp(*argv, "--") != 0; argv++) {
		if (strcmp(*argv, "--tty") == 0) {
			options->terminal = true;
		} else if (strcmp(*argv, "--stdin") == 0) {
			options->keep_stdin = true;
		} else if (strcmp(*argv, "--log-max") == 0) {
			if (!parse_number(*++argv, UINT64_MAX, &options->log_max))
				return false;
		} else if (strcmp(*argv, "--cleanup-fd") == 0) {
			if (!parse_number(*++argv, INT_MAX, &number))
				return false;
			options->cleanup_fd = (int)number;
		} else if (strcmp(*argv, "--init-fds") == 0) {
			if (!parse_number(*++argv, MAX_INIT_FDS, &number))
				return false;
			options->init_fds = (int)number;
		} else {
			return false;
		}
	}
	if (*argv == NULL || options->init_fds < 0)
		return false;
	options->init_argv = argv + 1;
	for (argv++; *argv != NULL && strcmp(*argv, "--") != 0; argv++)
		;
	if (*argv != NULL) {
		*argv = NULL;
		options->cleanup_argv = argv + 1;
	}
	const bool has_cleanup = options->cleanup_argv != NULL && options->cleanup_argv[0] != NULL;
	return options->init_argv[0] != NULL && has_cleanup == (options->cleanup_fd >= 0) &&
	       (!has_cleanup || options->cleanup_fd >= PASSED_FD + options->init_fds);
}

/* Signals come as readable bytes, between two steps and never within one; −1 on error. */
static int open_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGQUIT);
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Whoever ends the monitor means the container: the end of that is ours, too. */
static void read_signals(const struct monitor *monitor, int signals)
{
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo != SIGCHLD)
			signal_container(monitor, (int)info.ssi_signo);
	}
}

void signal_container(const struct monitor *monitor, int signal)
{
	/* by pidfd: the number may be another's by now */
	if (monitor->container.pid != 0 && !monitor->container.exited)
		pidfd_send_signal(monitor->container_pidfd, signal, NULL, 0);
}

static void tell_creator(struct child *child, bool *told, enum message_type type, bool creator_gone)
{
	if (!child->exited || *told)
		return;
	*told = true;
	if (!creator_gone)
		control_send(type, (uint32_t)child->status, (uint64_t)child->pid);
}

static void record_exit(const struct monitor *monitor, bool drained)
{
	static bool recorded;
	log_flush(); /* whoever sees the record can read all of the log */
	if (!recorded) {
		recorded = true;
		write_exit_record(&monitor->container, monitor->memory_fd, log_dropped());
		/* from here the name is free for the monitor of a restarted container */
		attach_unlink();
	}
	attach_announce(&monitor->container, drained);
}

static enum phase begin_abort(struct monitor *monitor)
{
	attach_unlink();
	monitor->deadline_ms = now_ms() + ABORT_GRACE_MS;
	return PHASE_ABORTING;
}

static enum phase begin_cleanup(struct monitor *monitor)
{
	if (monitor->options->cleanup_fd < 0)
		return PHASE_DONE;
	const pid_t pid = start_cleanup(monitor->options);
	if (pid < 0)
		return PHASE_DONE; /* the next command finds what is left */
	watch_child(&monitor->cleanup, pid);
	return PHASE_CLEANING;
}

/* The phase that follows from what is known now. */
static enum phase next_phase(struct monitor *monitor, bool has_children)
{
	switch (monitor->phase) {
	case PHASE_CREATING:
		return monitor->aborted || monitor->creator_gone ? begin_abort(monitor) : PHASE_CREATING;
	case PHASE_RUNNING:
		if (monitor->aborted)
			return begin_abort(monitor);
		if (!monitor->container.exited)
			return PHASE_RUNNING;
		console_end();
		monitor->deadline_ms = now_ms() + RECORD_GRACE_MS;
		return PHASE_DRAINING;
	case PHASE_DRAINING:
		if (console_drain()) {
			record_exit(monitor, true);
			return PHASE_LEAVING;
		}
		if (now_ms() >= monitor->deadline_ms)
			record_exit(monitor, false);
		return PHASE_DRAINING;
	case PHASE_LEAVING:
		if (monitor->cleaned)
			return PHASE_DONE;
		return attach_has_foreground() ? PHASE_LEAVING : begin_cleanup(monitor);
	case PHASE_ABORTING:
		if (has_children && now_ms() < monitor->deadline_ms) {
			signal_container(monitor, SIGKILL);
			kill_children();
			return PHASE_ABORTING;
		}
		return monitor->aborted ? PHASE_DONE : begin_cleanup(monitor);
	case PHASE_CLEANING:
		return monitor->cleanup.exited ? PHASE_DONE : PHASE_CLEANING;
	case PHASE_DONE:
		return PHASE_DONE;
	}
	return PHASE_DONE;
}

static void wait_for_events(const struct monitor *monitor, int signals, struct pollfd slots[SLOTS])
{
	int64_t deadline_ms = -1;
	slots[SLOT_SIGNALS] = (struct pollfd){.fd = signals, .events = POLLIN};
	control_poll(monitor, &slots[SLOT_CONTROL]);
	console_poll(&slots[SLOT_CONSOLE], &deadline_ms);
	attach_poll(&slots[SLOT_ATTACH], &deadline_ms);
	if (monitor->phase == PHASE_ABORTING)
		advance_deadline(&deadline_ms, now_ms() + ABORT_ROUND_MS);
	if (monitor->phase == PHASE_DRAINING && now_ms() < monitor->deadline_ms)
		advance_deadline(&deadline_ms, monitor->deadline_ms);

	const int64_t left_ms = deadline_ms < 0 ? -1 : deadline_ms - now_ms();
	const int timeout_ms = deadline_ms < 0 ? -1 : left_ms < 0 ? 0 : (int)left_ms;
	if (poll(slots, SLOTS, timeout_ms) < 0) {
		for (int i = 0; i < SLOTS; i++)
			slots[i].revents = 0;
	}
}

static void serve(struct monitor *monitor, int signals)
{
	bool init_told = false, container_told = false;
	while (monitor->phase != PHASE_DONE || attach_is_busy()) {
		struct pollfd slots[SLOTS];
		wait_for_events(monitor, signals, slots);

		read_signals(monitor, signals);
		const bool has_children = reap_children();
		attach_serve(monitor, &slots[SLOT_ATTACH]);
		if (slots[SLOT_CONTROL].revents != 0)
			control_serve(monitor);
		tell_creator(&monitor->init, &init_told, MESSAGE_INIT_EXITED, monitor->creator_gone);
		tell_creator(&monitor->container, &container_told, MESSAGE_EXITED, monitor->creator_gone);
		console_serve(&slots[SLOT_CONSOLE]);
		log_flush();

		enum phase before;
		do {
			before = monitor->phase;
			monitor->phase = next_phase(monitor, has_children);
		} while (monitor->phase != before);
		attach_pay(); /* last: what has just happened is news for clients */
	}
}

static int fail(enum failure failure)
{
	control_send(MESSAGE_FAILED, (uint32_t)errno, failure);
	attach_unlink();
	return 125;
}

int main(int argc, char **argv)
{
	struct options options;
	int stdio[3];
	if (argc < 1 || !parse(argv, &options))
		return 125;
	if (!detach() || !claim_descriptors(&options))
		return fail(FAILURE_ENVIRONMENT);
	const int signals = open_signals();
	if (signals < 0)
		return fail(FAILURE_ENVIRONMENT);
	if (!log_open(options.log_max))
		return fail(FAILURE_LOG);
	if (!attach_open())
		return fail(FAILURE_ATTACH);
	if (!console_open(&options, stdio))
		return fail(FAILURE_STDIO);

	struct monitor monitor = {.options = &options, .container_pidfd = -1, .memory_fd = -1};
	const pid_t init = start_init(&options, stdio);
	if (init < 0)
		return fail(FAILURE_FORK);
	watch_child(&monitor.init, init);
	control_send(MESSAGE_INIT_STARTED, (uint32_t)init, (uint64_t)getpid());
	/* ours would keep init's conversations and the container's streams open beyond their end */
	console_close_stdio(stdio);
	close(INIT_FD);
	for (int i = 0; i < options.init_fds; i++)
		close(PASSED_FD + i);

	serve(&monitor, signals);
	return 0;
}
