/*
 * init: verifies a plan's bytes, runs its steps, reports every system call of each.
 * Static and freestanding: no libc, no heap, no stdio, no words.
 */
#ifndef CAISSON_INIT_H
#define CAISSON_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <asm/errno.h>
#include <asm/stat.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/stat.h>

#include "../plan/plan.h"

enum opcode {
#define STEP(number, name, ...) OPCODE_##name = number,
#include "../plan/steps.def"
#undef STEP
};

union plan_arg {
	uint64_t number;
	const char *string;
	char *const *strings; /* a vector *is* what execve takes */
	const struct blob *bytes;
	uint32_t slot;
};

struct blob {
	uint64_t length;
	unsigned char data[];
};

/* A step once it has been verified: the offsets in its arguments are addresses now. */
struct step {
	uint16_t opcode;
	uint16_t index;
	uint32_t zero;
	union plan_arg arg[PLAN_ARGS];
};

struct run {
	const struct step *step;    /* the one that runs */
	struct trace_header *trace; /* shared with the host; execve removes the mapping */
	int turns;                  /* socket to the host, later to start */
	int preserved;              /* descriptors 3..2+preserved belong to the container */
	const char *executable;     /* found by find_executable */
	int slots[PLAN_SLOTS];
};

/* verify.c: proves every record and offset of a plan, then turns offsets into addresses in place. */
bool verify_plan(unsigned char *bytes, uint64_t size);

/* run.c: runs the steps in order. Returns only when one has failed: its index and -errno have been sent. */
void run_plan(struct run *run, const unsigned char *plan);

/* report.c: the one function through which handlers call the kernel; it stamps the time and leaves a report. */
long report_call(struct run *run, long nr, const uint64_t args[6]);
#define CALL_6(run, nr, a, b, c, d, e, f, ...)                                                                     \
	report_call(run, nr,                                                                                       \
		    (const uint64_t[6]){(uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), \
					(uint64_t)(f)})
#define sys(run, ...) CALL_6(run, __VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* turn.c: the conversation with the host. */
bool send_turn(struct run *run, enum turn_kind kind, int64_t result, int descriptor);
long take_turn(struct run *run, uint64_t first, uint64_t count, int descriptor);
long send_with_descriptor(struct run *run, int socket, const void *bytes, size_t length, int descriptor);

/* path.c: look-ups inside a root, never outside. */
long open_in_root(struct run *run, int root, const char *path, uint64_t flags);
long open_parent(struct run *run, int root, const char *path, const char **last);
long make_target(struct run *run, int root, const char *path, bool file, bool follow);

/* step_mount.c: a filesystem that is mounted nowhere yet; moving one to a target; its attributes. */
long make_filesystem(struct run *run, const char *type, const char *source, char *const *parameters,
		     uint64_t attributes);
long move_onto(struct run *run, long mount, long target);
long set_attributes(struct run *run, long mount, const struct mount_attr *attributes, bool recursive);

/* text.c: what is left of a libc. */
size_t text_length(const char *text);
bool text_equal(const char *one, const char *other);

#define RESULT(expression)                   \
	do {                                 \
		long result_ = (expression); \
		if (result_ < 0)             \
			return result_;      \
	} while (0)

/* The handlers, one a step: >= 0 or -errno. */
#define STEP(number, name, ...) long step_##name(struct run *run, const union plan_arg *arg);
#include "../plan/steps.def"
#undef STEP

#endif
