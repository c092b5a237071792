/*
 * The wire between the two sides, and the only header they share.
 *
 *   plan    header 32 B | steps, 48 B each | pool (strings, vectors, blobs; the last byte is NUL)
 *   trace   header 80 B | reports, 80 B each: init's calls in the order in which they began, the host's as they ended
 *
 * A plan is written by src/plan/encode.ts and proven by native/init/verify.c before any of it runs.
 * A trace is a file that both sides map shared and append to; src/trace reads it.
 */
#ifndef CAISSON_PLAN_H
#define CAISSON_PLAN_H

#include <assert.h>
#include <stdint.h>

#define PLAN_MAGIC UINT64_C(0x006e616c50736943) /* "CisPlan\0" */
#define PLAN_VERSION 1
#define PLAN_ARGS 5
#define PLAN_SLOTS 256
#define PLAN_MAX_SIZE (16u << 20)

struct plan_header {
	uint64_t magic;
	uint32_t version;
	uint32_t size; /* of the whole plan, bytes */
	uint32_t step_count;
	uint32_t pool_offset; /* right behind the last step */
	uint32_t inherited;   /* slots 0..inherited-1 are filled before init starts */
	uint32_t zero;
};

struct plan_step {
	uint16_t opcode;
	uint16_t index; /* its place in the whole plan, host steps counted: what reports are joined by */
	uint32_t zero;
	uint64_t arg[PLAN_ARGS];
};

#define TRACE_MAGIC UINT64_C(0x0065636172547343) /* "CsTrace\0" */
#define TRACE_VERSION 1

struct trace_header {
	uint64_t magic;
	uint32_t version;
	uint32_t capacity; /* reports that fit */
	uint64_t count;    /* reports begun; atomic, and past capacity when some were lost */
	int64_t epoch_ns;  /* CLOCK_REALTIME less CLOCK_MONOTONIC when the trace was made */
	uint64_t zero[6];
};

enum report_kind {
	REPORT_HOST = 1,
	REPORT_INIT = 2,
	REPORT_UNDO = 3, /* the host's, when it takes back what the step did */
	REPORT_TEXT = 4, /* no call: a string that the report before it points at; struct report_text */
};

struct report {
	uint64_t started_ns; /* CLOCK_MONOTONIC */
	uint64_t ended_ns;   /* 0 while the call has not returned */
	int64_t result;      /* >= 0 or -errno */
	uint64_t args[6];    /* as the kernel got them: pointers are addresses */
	uint16_t step;       /* plan_step.index */
	uint16_t kind;
	uint32_t nr;
};

/* Addresses of the host's process mean nothing to whoever reads the trace: its strings follow their report, in pieces. */
struct report_text {
	char text[72];
	uint16_t arg; /* which argument */
	uint16_t kind;
	uint32_t length; /* bytes of the string from here on; fewer may follow */
};

static_assert(sizeof(struct plan_header) == 32, "wire format");
static_assert(sizeof(struct plan_step) == 48, "wire format");
static_assert(sizeof(struct trace_header) == 80, "wire format");
static_assert(sizeof(struct report) == 80, "wire format");
static_assert(sizeof(struct report_text) == 80, "wire format");

/* What init says on the turn socket, and what the host answers: one packet each, with SCM_RIGHTS when slots travel. */
enum turn_kind {
	TURN_WAIT = 1,   /* init: "the host's turn"; step is the index of the wait step; with its listener, if any */
	TURN_FAILED = 2, /* init: the step failed with -result; nothing follows */
	TURN_GO = 3,     /* host: "go on", with the descriptors of the slots this turn fills */
	TURN_CHILD = 4,  /* init: the container's first process exists; result is its pid, with its pidfd */
	TURN_SLOT = 5,   /* init: a descriptor for the host (the terminal's master) */
};

struct turn {
	uint32_t kind;
	uint32_t step;
	int64_t result;
};

static_assert(sizeof(struct turn) == 16, "wire format");

#endif
