/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CAISSON_MONITOR_H
#define CAISSON_MONITOR_H

#define _GNU_SOURCE
#include <poll.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "protocol.h"

/* Inherited descriptors. */
enum {
	CONTROL_FD = 3,
	INIT_FD = 4,
	DIRECTORY_FD = 5, /* the container's, maybe O_PATH */
	PASSED_FD = 6,    /* the first of those that go on to init, where it is 3 */
};

struct options {
	bool terminal;
	bool keep_stdin;
	uint64_t log_max; /* bytes; 0 is no limit */
	int cleanup_fd;   /* -1 is none */
	int init_fds;
	char **init_argv;
	char **cleanup_argv;
};

/* A process whose end matters. */
struct child {
	pid_t pid; /* 0: not known yet */
	bool exited;
	int status;
	struct timespec exited_at;
};

enum phase {
	PHASE_CREATING, /* until the creator says STARTED */
	PHASE_RUNNING,
	PHASE_DRAINING, /* the container has exited; what it wrote is on its way */
	PHASE_LEAVING,  /* all is told; a foreground client may be cleaning up */
	PHASE_ABORTING, /* creation failed; children are being killed */
	PHASE_CLEANING, /* the clean-up program runs */
	PHASE_DONE,
};

struct monitor {
	const struct options *options;
	enum phase phase;
	struct child init, container, cleanup;
	int container_pidfd;
	int memory_fd; /* memory.oom_control or memory.events; -1 is none */
	bool creator_gone;
	bool aborted; /* by the creator, who cleans up itself */
	bool cleaned; /* by a foreground client */
	int64_t deadline_ms;
};

/* main.c */
void signal_container(const struct monitor *monitor, int signal);

/* start.c: processes are made here */
bool detach(void);
bool claim_descriptors(struct options *options);
pid_t start_init(const struct options *options, const int stdio[3]);
pid_t start_cleanup(const struct options *options);

/* control.c: the creator's messages */
void control_send(enum message_type type, uint32_t value, uint64_t extra);
void control_poll(const struct monitor *monitor, struct pollfd *slot);
void control_serve(struct monitor *monitor);
void close_ports(void);

/* attach.c: the clients */
#define ALL_CLIENTS ((1u << MAX_CLIENTS) - 1)
bool attach_open(void);
void attach_unlink(void);
void attach_poll(struct pollfd slots[1 + MAX_CLIENTS], int64_t *deadline_ms);
void attach_serve(struct monitor *monitor, const struct pollfd slots[1 + MAX_CLIENTS]);
void attach_pay(void);
void attach_receive_all(struct monitor *monitor);
uint32_t attach_deliver(enum message_type type, const void *data, size_t size, uint32_t to);
void attach_announce(const struct child *container, bool drained);
bool attach_has_foreground(void);
bool attach_is_busy(void);

/* console.c: the container's standard streams, pipes or terminal */
enum { CONSOLE_SLOTS = 3 };
bool console_open(const struct options *options, int stdio[3]);
void console_close_stdio(int stdio[3]);
bool console_set_terminal(int fd);
void console_resize(uint16_t rows, uint16_t columns);
void console_begin(void);
bool console_input_wanted(void);
bool console_input_free(void);
void console_input(const void *data, size_t size);
void console_input_close(void);
void console_poll(struct pollfd slots[CONSOLE_SLOTS], int64_t *deadline_ms);
void console_serve(const struct pollfd slots[CONSOLE_SLOTS]);
void console_end(void);
bool console_drain(void);

/* log.c: Docker's json-file */
enum log_stream { LOG_STDOUT, LOG_STDERR };
bool log_open(uint64_t max_bytes);
void log_append(enum log_stream stream, const uint8_t *data, size_t size);
void log_finish(enum log_stream stream);
void log_flush(void);
uint64_t log_dropped(void);

/* reap.c: every end of every child */
void watch_child(struct child *child, pid_t pid);
bool reap_children(void);
void kill_children(void);

/* record.c */
bool write_exit_record(const struct child *container, int memory_fd, uint64_t log_dropped);

/* text.c: writes at `to`, which must have room, and returns the end; nothing is NUL-terminated */
char *put_text(char *to, const char *text);
char *put_number(char *to, uint64_t number, int min_digits);
char *put_time(char *to, const struct timespec *time); /* RFC 3339, 30 bytes */
int64_t now_ms(void);                                  /* of a clock that only goes forward */
void advance_deadline(int64_t *deadline_ms, int64_t candidate_ms);

#endif
