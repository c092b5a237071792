/* The interpreter: one handler a step, in order, until the last one executes the container or one fails. */
#include <asm/unistd.h>

#include "init.h"

static long run_step(struct run *run, const struct step *step)
{
	switch ((enum opcode)step->opcode) {
#define STEP(number, name, ...) \
	case OPCODE_##name:     \
		return step_##name(run, step->arg);
#include "../plan/steps.def"
#undef STEP
	}
	return -ENOSYS; /* the verifier lets no such step through */
}

void run_plan(struct run *run, const unsigned char *plan)
{
	const struct plan_header *header = (const void *)plan;
	const struct step *steps = (const void *)(plan + sizeof *header);
	for (uint32_t i = 0; i < header->step_count; i++) {
		run->step = &steps[i];
		long result = run_step(run, &steps[i]);
		if (result < 0) {
			send_turn(run, TURN_FAILED, result, -1);
			return;
		}
	}
}
