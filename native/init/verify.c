/*
 * The verifier: after it, no handler checks anything. One forward pass; lengths and offsets are u64 and compared
 * by subtraction from the end, so nothing wraps.
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

/* A zero-ended vector of string offsets, all inside the pool. */
static bool is_vector(const struct proof *proof, uint64_t offset)
{
	if (!in_pool(proof, offset) || offset % 8 != 0)
		return false;
	for (; proof->size - offset >= 8; offset += 8) {
		uint64_t string = word_at(proof, offset);
		if (string == 0)
			return true;
		if (!in_pool(proof, string))
			return false;
	}
	return false;
}

static bool is_blob(const struct proof *proof, uint64_t offset)
{
	return in_pool(proof, offset) && offset % 8 == 0 && proof->size - offset >= 8 &&
	       word_at(proof, offset) <= proof->size - offset - 8;
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
		return is_vector(proof, value);
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

/*
 * A vector is made of addresses once it has been relocated, and two steps may share one: so all steps are proven
 * first, and a vector is relocated at its first use only. What overlaps a vector would change under it.
 */
static bool relocate_vector(struct proof *proof, uint64_t offset, uint64_t *seen, uint64_t *seen_count)
{
	for (uint64_t i = 0; i < *seen_count; i++)
		if (seen[i] == offset)
			return true;
	if (*seen_count == 64)
		return false;
	seen[(*seen_count)++] = offset;
	for (;; offset += 8) {
		uint64_t string = word_at(proof, offset);
		if (string == 0)
			return true;
		if (!in_pool(proof, string))
			return false;
		uint64_t address = (uint64_t)(uintptr_t)(proof->bytes + string);
		__builtin_memcpy(proof->bytes + offset, &address, sizeof address);
	}
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
	proof.pool = header.pool_offset;
	for (uint32_t slot = 0; slot < header.inherited; slot++)
		proof.filled[slot] = 1;

	struct plan_step *steps = (struct plan_step *)(void *)(bytes + sizeof header);
	uint32_t next_index = 0;
	for (uint32_t i = 0; i < header.step_count; i++) {
		const struct plan_step *step = &steps[i];
		const struct signature *signature = signature_of(step->opcode);
		if (signature == NULL || step->zero != 0 || step->index < next_index)
			return false;
		next_index = (uint32_t)step->index + 1;
		for (int a = 0; a < PLAN_ARGS; a++)
			if (!prove_argument(&proof, (enum kind)signature->kinds[a], step->arg[a]))
				return false;
		if (step->opcode == OPCODE_turn && !prove_turn(&proof, step->arg))
			return false;
	}

	uint64_t seen[64], seen_count = 0;
	for (uint32_t i = 0; i < header.step_count; i++) {
		const struct signature *signature = signature_of(steps[i].opcode);
		for (int a = 0; a < PLAN_ARGS; a++) {
			enum kind kind = (enum kind)signature->kinds[a];
			if (kind == STRINGS && !relocate_vector(&proof, steps[i].arg[a], seen, &seen_count))
				return false;
		}
	}
	/* relocating one vector may have changed another that overlaps it, or a blob's length: look again */
	for (uint32_t i = 0; i < header.step_count; i++) {
		const struct signature *signature = signature_of(steps[i].opcode);
		for (int a = 0; a < PLAN_ARGS; a++) {
			enum kind kind = (enum kind)signature->kinds[a];
			if (kind == BYTES && !is_blob(&proof, steps[i].arg[a]))
				return false;
			if (kind == STRINGS) {
				uint64_t base = (uint64_t)(uintptr_t)bytes;
				for (uint64_t at = steps[i].arg[a];; at += 8) {
					if (proof.size - at < 8)
						return false;
					uint64_t address = word_at(&proof, at);
					if (address == 0)
						break;
					if (address - base < proof.pool || address - base >= size)
						return false;
				}
			}
			if (kind == STRING || kind == STRINGS || kind == BYTES)
				steps[i].arg[a] += (uint64_t)(uintptr_t)bytes;
		}
	}
	/* addresses written by a vector could have overwritten the last byte that ends all strings */
	return bytes[size - 1] == 0;
}
