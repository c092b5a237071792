/*
 * Attacks the verifier (native/init/verify.c, compiled with the sanitizers).
 *
 *   verify_fuzz check FILE...               prints "accepted" or "refused" for each
 *   verify_fuzz fuzz COUNT SEED FILE...     mutates the plans COUNT times in two processes; prints how many were accepted
 *
 * An accepted plan is walked again here, by other code than the verifier's: every pointer must stay inside the plan,
 * every string and vector end in it, every slot be filled before it is read. A breach aborts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../native/init/init.h"

#define MAX_SEEDS 64
#define WORKERS 2

struct seed {
	unsigned char *bytes;
	size_t size;
};

static struct seed seeds[MAX_SEEDS];
static size_t seed_count;
static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

static void require(bool held, const char *what, const struct plan_step *step)
{
	if (held)
		return;
	fprintf(stderr, "an accepted plan breaks a rule: %s (opcode %u)\n", what, step->opcode);
	abort();
}

/* Reads every byte of it, so that the sanitizer sees where it ends, too. */
static bool string_inside(const unsigned char *plan, size_t size, uint64_t address)
{
	uint64_t base = (uint64_t)(uintptr_t)plan;
	return address >= base && address < base + size &&
	       strnlen((const char *)(uintptr_t)address, base + size - address) < base + size - address;
}

static bool words_inside(const unsigned char *plan, size_t size, uint64_t address, uint64_t length)
{
	uint64_t base = (uint64_t)(uintptr_t)plan;
	return address % 8 == 0 && address >= base && address <= base + size && length <= base + size - address;
}

enum kind { NONE, NUMBER, STRING, STRINGS, BYTES, READS, WRITES, CLOSES };

static const unsigned char *kinds_of(uint16_t opcode)
{
	switch (opcode) {
#define STEP(number, name, ...)                                     \
	case number: {                                              \
		static const unsigned char kinds[] = {__VA_ARGS__}; \
		return kinds;                                       \
	}
#include "../../native/plan/steps.def"
#undef STEP
	}
	return NULL;
}

static void walk_argument(const unsigned char *plan, size_t size, const struct plan_step *step, int a, bool *filled)
{
	uint64_t value = step->arg[a];
	switch ((enum kind)kinds_of(step->opcode)[a]) {
	case NONE:
		require(value == 0, "an unused argument is 0", step);
		break;
	case NUMBER:
		break;
	case STRING:
		require(string_inside(plan, size, value), "a string lies in the plan", step);
		break;
	case STRINGS:
		for (;; value += 8) {
			require(words_inside(plan, size, value, 8), "a vector lies in the plan", step);
			uint64_t string = *(const uint64_t *)(uintptr_t)value;
			if (string == 0)
				break;
			require(string_inside(plan, size, string), "a vector's string lies in the plan", step);
		}
		break;
	case BYTES:
		require(words_inside(plan, size, value, 8), "a blob's length lies in the plan", step);
		require(words_inside(plan, size, value + 8, *(const uint64_t *)(uintptr_t)value),
			"a blob lies in the plan", step);
		break;
	case READS:
	case CLOSES:
		require(value < PLAN_SLOTS && filled[value], "a slot is filled before it is read", step);
		filled[value] = (enum kind)kinds_of(step->opcode)[a] == READS;
		break;
	case WRITES:
		require(value < PLAN_SLOTS && !filled[value], "a slot that is written is empty", step);
		filled[value] = true;
		break;
	}
}

static void walk(const unsigned char *plan, size_t size)
{
	const struct plan_header *header = (const void *)plan;
	const struct plan_step *steps = (const void *)(plan + sizeof *header);
	bool filled[PLAN_SLOTS] = {false};
	for (uint32_t i = 0; i < header->inherited; i++)
		filled[i] = true;
	for (uint32_t i = 0; i < header->step_count; i++) {
		const struct plan_step *step = &steps[i];
		require((const unsigned char *)(step + 1) <= plan + size, "a step lies in the plan", step);
		require(kinds_of(step->opcode) != NULL, "a step has a handler", step);
		require(i == 0 || step->index > steps[i - 1].index, "indices grow", step);
		for (int a = 0; a < PLAN_ARGS; a++)
			walk_argument(plan, size, step, a, filled);
		for (uint64_t n = 0; step->opcode == OPCODE_turn && n < step->arg[1]; n++) {
			require(step->arg[0] + n < PLAN_SLOTS && !filled[step->arg[0] + n], "a turn fills empty slots",
				step);
			filled[step->arg[0] + n] = true;
		}
	}
}

/* In a block of exactly its size: one byte too far is seen. */
static bool accepts(const unsigned char *bytes, size_t size)
{
	unsigned char *plan = malloc(size == 0 ? 1 : size);
	memcpy(plan, bytes, size);
	bool accepted = verify_plan(plan, size);
	if (accepted)
		walk(plan, size);
	free(plan);
	return accepted;
}

static uint64_t interesting(const unsigned char *bytes, size_t size)
{
	const struct plan_header *header = (const void *)bytes;
	uint64_t word;
	memcpy(&word, bytes + draw(size / 8) * 8, sizeof word);
	const uint64_t values[] = {0,
				   1,
				   7,
				   8,
				   255,
				   256,
				   257,
				   size,
				   size - 1,
				   size - 8,
				   size - 9,
				   header->pool_offset,
				   header->pool_offset - 1,
				   (size - 8) & ~UINT64_C(7),
				   UINT32_MAX,
				   UINT64_C(1) << 31,
				   UINT64_C(1) << 32,
				   UINT64_C(1) << 63,
				   UINT64_MAX,
				   UINT64_MAX - 7,
				   UINT64_MAX - size,
				   word,
				   word + 8,
				   word - 8,
				   word + (UINT64_C(1) << 32),
				   draw(size),
				   draw(size) & ~UINT64_C(7)};
	return values[draw(sizeof values / sizeof *values)];
}

static size_t mutate(unsigned char *bytes, size_t size, size_t capacity)
{
	struct plan_header *header = (void *)bytes;
	size_t steps = (size - sizeof *header) / sizeof(struct plan_step);
	if (steps > header->step_count)
		steps = header->step_count;
	struct plan_step *step = steps == 0 ? NULL : (struct plan_step *)(void *)(header + 1) + draw(steps);
	uint64_t value = interesting(bytes, size);
	switch (draw(9)) {
	case 0: /* one bit, anywhere */
		bytes[draw(size)] ^= (unsigned char)(1u << draw(8));
		break;
	case 1: /* one word of the pool or of the steps */
		memcpy(bytes + draw(size / 8) * 8, &value, sizeof value);
		break;
	case 2:
	case 3: /* one argument */
		if (step != NULL)
			step->arg[draw(PLAN_ARGS)] = value;
		break;
	case 4: /* another opcode, with arguments that were meant otherwise */
		if (step != NULL)
			step->opcode = (uint16_t)draw(70);
		break;
	case 5: /* a field of the header */
		((uint32_t *)(void *)bytes)[draw(sizeof *header / 4)] = (uint32_t)value;
		break;
	case 6: /* cut short, as if it had been made so, or not */
		size = sizeof *header + draw(size - sizeof *header + 1);
		if (draw(4) != 0)
			header->size = (uint32_t)size;
		if (draw(4) != 0)
			bytes[size - 1] = 0;
		break;
	case 7: { /* a piece of another plan, or of this one */
		const struct seed *other = &seeds[draw(seed_count)];
		size_t length = 1 + draw(200), from = draw(other->size), to = draw(size);
		if (draw(2) == 0)
			from &= ~(size_t)7, to &= ~(size_t)7;
		if (length > other->size - from)
			length = other->size - from;
		if (length > size - to)
			length = size - to;
		memcpy(bytes + to, other->bytes + from, length);
		break;
	}
	case 8: /* a longer plan */
		if (size + 8 <= capacity) {
			memset(bytes + size, 0, 8);
			size += 8;
			header->size = (uint32_t)size;
		}
		break;
	}
	return size;
}

static int fuzz(uint64_t count, uint64_t seed)
{
	uint64_t accepted = 0;
	random_state = seed;
	for (uint64_t i = 0; i < count; i++) {
		/* aligned as a mapping is */
		static uint64_t room[1 << 16];
		unsigned char *bytes = (unsigned char *)room;
		const struct seed *origin = &seeds[draw(seed_count)];
		size_t size = origin->size;
		memcpy(bytes, origin->bytes, size);
		for (uint64_t times = 1 + draw(4); times > 0 && size > sizeof(struct plan_header); times--)
			size = mutate(bytes, size, sizeof room);
		accepted += accepts(bytes, size);
	}
	printf("%lu of %lu accepted\n", (unsigned long)accepted, (unsigned long)count);
	return 0;
}

static int fuzz_in_parallel(uint64_t count, uint64_t seed)
{
	int failed = 0;
	for (uint64_t worker = 0; worker < WORKERS; worker++) {
		fflush(stdout);
		if (fork() == 0)
			exit(fuzz(count / WORKERS, seed + worker * 0x9e3779b97f4a7c15u));
	}
	for (int status, worker = 0; worker < WORKERS; worker++)
		if (wait(&status) < 0 || status != 0)
			failed = 1;
	return failed;
}

static void load(const char *path)
{
	FILE *file = fopen(path, "rb");
	if (file == NULL || seed_count == MAX_SEEDS) {
		fprintf(stderr, "cannot take %s\n", path);
		exit(2);
	}
	struct seed *seed = &seeds[seed_count++];
	seed->bytes = malloc(1 << 19);
	seed->size = fread(seed->bytes, 1, 1 << 19, file);
	fclose(file);
}

/* Plans on the standard input, each behind its size in 32 bits: says the numbers of those that are refused. */
static int check_all(void)
{
	uint32_t size;
	for (unsigned int number = 0; fread(&size, sizeof size, 1, stdin) == 1; number++) {
		unsigned char *bytes = malloc(size);
		if (bytes == NULL || fread(bytes, 1, size, stdin) != size)
			return 2;
		if (!accepts(bytes, size))
			printf("%u\n", number);
		free(bytes);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "check-all") == 0)
		return check_all();
	bool check = argc > 2 && strcmp(argv[1], "check") == 0;
	if (!check && (argc < 5 || strcmp(argv[1], "fuzz") != 0))
		return 2;
	for (int i = check ? 2 : 4; i < argc; i++)
		load(argv[i]);
	if (!check)
		return fuzz_in_parallel(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
	for (size_t i = 0; i < seed_count; i++)
		puts(accepts(seeds[i].bytes, seeds[i].size) ? "accepted" : "refused");
	return 0;
}
