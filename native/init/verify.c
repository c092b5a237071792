/*
 * The verifier: after it, no handler checks anything. One forward pass, in time proportional to the plan; lengths and
 * offsets are u64 and compared by subtraction from the end, so nothing wraps.
 */
#include "init.h"

enum kind { NONE, NUMBER, STRING, STRINGS, BYTES, READS, WRITES, CLOSES };

struct signature {
	uint16_t opcode;
	uint8_t kinds[PLAN_ARGS];
};

static const struct signature SIGNATURES[] = {
#define STEP(number, name, ...) {number, {__VA_ARGS__}},
#include "../plan/steps.def"
#undef STEP
};

static const struct signature *signature_of(uint16_t opcode)
{
	for (size_t i = 0; i < sizeof SIGNATURES / sizeof *SIGNATURES; i++)
		if (SIGNATURES[i].opcode == opcode)
			return &SIGNATURES[i];
	return NULL;
}

struct proof {
	unsigned char *bytes;
	uint64_t size;
	uint64_t pool;
	uint64_t free;                    /* behind the vectors and blobs proven so far */
	unsigned char filled[PLAN_SLOTS]; /* 1 while a slot holds a descriptor */
};

/* The plan's last byte is NUL, so a string that starts in the pool ends in it. */
static bool in_pool(const struct proof *proof, uint64_t offset)
{
	return offset >= proof->pool && offset < proof->size;
}

static uint64_t word_at(const struct proof *proof, uint64_t offset)
{
	uint64_t word;
	__builtin_memcpy(&word, proof->bytes + offset, sizeof word);
	return word;
}

/*
 * Vectors and blobs lie in the order of their use and share no byte: what has been proven of one cannot be changed by
 * relocating another. Strings may lie anywhere, even in them: all that is said of a string is that it ends.
 */
static bool is_next(const struct proof *proof, uint64_t offset)
{
	return in_pool(proof, offset) && offset >= proof->free && offset % 8 == 0;
}

/* A zero-ended vector of string offsets, which become addresses. Its zero is never written, so a NUL at the end stays. */
static bool relocate_vector(struct proof *proof, uint64_t offset)
{
	if (!is_next(proof, offset))
		return false;
	for (; proof->size - offset >= 8; offset += 8) {
		uint64_t string = word_at(proof, offset);
		if (string == 0) {
			proof->free = offset + 8;
			return true;
		}
		if (!in_pool(proof, string))
			return false;
		uint64_t address = (uint64_t)(uintptr_t)(proof->bytes + string);
		__builtin_memcpy(proof->bytes + offset, &address, sizeof address);
	}
	return false;
}

static bool is_blob(struct proof *proof, uint64_t offset)
{
	if (!is_next(proof, offset) || proof->size - offset < 8 || word_at(proof, offset) > proof->size - offset - 8)
		return false;
	proof->free = offset + 8 + word_at(proof, offset);
	return true;
}

static bool prove_turn(struct proof *proof, const uint64_t *arg)
{
	uint64_t first = arg[0], count = arg[1];
	if (first > PLAN_SLOTS || count > PLAN_SLOTS - first)
		return false;
	for (uint64_t slot = first; slot < first + count; slot++) {
		if (proof->filled[slot])
			return false;
		proof->filled[slot] = 1;
	}
	return true;
}

static bool prove_argument(struct proof *proof, enum kind kind, uint64_t value)
{
	switch (kind) {
	case NONE:
		return value == 0;
	case NUMBER:
		return true;
	case STRING:
		return in_pool(proof, value);
	case STRINGS:
		return relocate_vector(proof, value);
	case BYTES:
		return is_blob(proof, value);
	case READS:
		return value < PLAN_SLOTS && proof->filled[value];
	case WRITES:
		if (value >= PLAN_SLOTS || proof->filled[value])
			return false;
		proof->filled[value] = 1;
		return true;
	case CLOSES:
		if (value >= PLAN_SLOTS || !proof->filled[value])
			return false;
		proof->filled[value] = 0;
		return true;
	}
	return false;
}

bool verify_plan(unsigned char *bytes, uint64_t size)
{
	struct plan_header header;
	struct proof proof = {.bytes = bytes, .size = size};
	if (size < sizeof header || size > PLAN_MAX_SIZE)
		return false;
	__builtin_memcpy(&header, bytes, sizeof header);
	uint64_t steps_size = (uint64_t)header.step_count * sizeof(struct plan_step);
	if (header.magic != PLAN_MAGIC || header.version != PLAN_VERSION || header.size != size || header.zero != 0 ||
	    header.inherited > PLAN_SLOTS || header.step_count == 0 || steps_size > size - sizeof header ||
	    header.pool_offset != sizeof header + steps_size || header.pool_offset >= size || bytes[size - 1] != 0)
		return false;
	proof.pool = proof.free = header.pool_offset;
	for (uint32_t slot = 0; slot < header.inherited; slot++)
		proof.filled[slot] = 1;

	struct plan_step *steps = (struct plan_step *)(void *)(bytes + sizeof header);
	uint32_t next_index = 0;
	for (uint32_t i = 0; i < header.step_count; i++) {
		struct plan_step *step = &steps[i];
		const struct signature *signature = signature_of(step->opcode);
		if (signature == NULL || step->zero != 0 || step->index < next_index)
			return false;
		next_index = (uint32_t)step->index + 1;
		for (int a = 0; a < PLAN_ARGS; a++) {
			enum kind kind = (enum kind)signature->kinds[a];
			if (!prove_argument(&proof, kind, step->arg[a]))
				return false;
			if (kind == STRING || kind == STRINGS || kind == BYTES)
				step->arg[a] += (uint64_t)(uintptr_t)bytes;
		}
		if (step->opcode == OPCODE_turn && !prove_turn(&proof, step->arg))
			return false;
	}
	return true;
}
