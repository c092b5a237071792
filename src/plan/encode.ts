import { ContainerError } from "../error.ts";
import { filledSlot, INIT_STEPS, type InitStep, isInit, isTurn, type Kind, type Plan, type Step } from "./step.ts";

/** native/plan/plan.h */
const MAGIC = 0x006e616c50736943n;
const VERSION = 1;
export const HEADER_BYTES = 32;
export const STEP_BYTES = 48;
const SLOTS = 256;
/** Enough for most plans; a seccomp filter is a few thousand bytes of it. */
const FIRST_POOL_BYTES = 16 * 1024;

export interface Encoded {
  /** What init maps, verifies and runs. */
  bytes: Uint8Array;
  /** Slots that the host fills before startInit, in order: slot i is init's i-th inherited descriptor. */
  inherited: readonly string[];
}

/**
 * Where the host works while init exists, init must wait: the plan with those turns in it. Host steps up to startInit
 * need none, nor do those after execute: init is the container's program then.
 */
export function takeTurns(plan: Plan): Plan {
  const turned: Step[] = [];
  const start = plan.findIndex((step) => step.name === "startInit");
  plan.forEach((step, at) => {
    const before = plan[at - 1];
    const waits = before !== undefined && (isTurn(before) || before.name === "execute");
    if (
      at > start &&
      !isInit(step) &&
      before !== undefined &&
      !waits &&
      (isInit(before) || before.name === "startInit")
    )
      turned.push({ name: "turn", args: { first: 0, count: 0 }, from: step.from });
    turned.push(step);
  });
  return turned;
}

/**
 * The init side of a plan (with its turns in it) as bytes: header, steps, pool.
 * @throws ContainerError E2BIG when it needs more slots than init has
 */
export function encode(plan: Plan): Encoded {
  const slots = new Map<string, number>();
  const inherited: string[] = [];
  const fills = new Map<Step, { first: number; count: number }>();
  let turn: Step | undefined;
  let started = false;
  for (const step of plan) {
    if (step.name === "startInit") started = true;
    if (isInit(step)) {
      if (step.name === "turn") turn = step;
      for (const [argument, kind] of Object.entries(INIT_STEPS[step.name].args))
        if (kind === "writes") number(slots, String(Reflect.get(step.args, argument)), step);
      continue;
    }
    const slot = filledSlot(step);
    if (slot === undefined) continue;
    const index = number(slots, slot, step);
    if (!started) inherited.push(slot);
    else if (turn !== undefined) {
      const filled = fills.get(turn);
      fills.set(turn, { first: filled?.first ?? index, count: (filled?.count ?? 0) + 1 });
    }
  }

  const steps = plan.reduce((count, step) => (isInit(step) ? count + 1 : count), 0);
  const poolOffset = HEADER_BYTES + steps * STEP_BYTES;
  const pool = new Pool(poolOffset);
  let at = HEADER_BYTES;
  plan.forEach((step, index) => {
    if (!isInit(step)) return;
    const { opcode, args } = INIT_STEPS[step.name];
    const values: Record<string, unknown> =
      step.name === "turn" ? (fills.get(step) ?? { first: 0, count: 0 }) : step.args;
    pool.bytes.writeUInt16LE(opcode, at);
    pool.bytes.writeUInt16LE(index, at + 2);
    let argumentAt = at + 8;
    for (const [argument, kind] of Object.entries(args)) {
      const value = word(kind, values[argument], pool, slots, step);
      pool.writeWord(value, argumentAt);
      argumentAt += 8;
    }
    at += STEP_BYTES;
  });

  const bytes = pool.finish();
  bytes.writeBigUInt64LE(MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(bytes.length, 12);
  bytes.writeUInt32LE(steps, 16);
  bytes.writeUInt32LE(poolOffset, 20);
  bytes.writeUInt32LE(inherited.length, 24);
  return { bytes, inherited };
}

function number(slots: Map<string, number>, slot: string, { from }: Step): number {
  const known = slots.get(slot);
  if (known !== undefined) return known;
  if (slots.size >= SLOTS)
    throw new ContainerError({ message: `the plan needs more than ${SLOTS} descriptors`, code: "E2BIG", from });
  slots.set(slot, slots.size);
  return slots.size - 1;
}

/** The 64 bits of an argument: a number itself, an offset into the plan, or a slot's index. */
function word(kind: Kind, value: unknown, pool: Pool, slots: Map<string, number>, step: InitStep): number | bigint {
  if (kind === "number" && (typeof value === "number" || typeof value === "bigint")) return value;
  if (kind === "string" && typeof value === "string") return pool.string(value, step);
  if (kind === "bytes" && value instanceof Uint8Array) return pool.blob(value);
  if (kind === "strings" && Array.isArray(value)) return pool.vector(value.map(String), step);
  const slot = typeof value === "string" ? slots.get(value) : undefined;
  if (slot !== undefined) return slot;
  throw new ContainerError({
    message: `step ${step.name} has no valid argument of kind ${kind}`,
    step: step.name,
    from: step.from,
  });
}

/** The plan's bytes, and behind its steps the strings, vectors and blobs that they point to. */
class Pool {
  /** Replaced by a larger one as it fills; ask again after each word. */
  bytes: Buffer;
  #end: number;
  readonly #known = new Map<string, number>();

  constructor(offset: number) {
    this.bytes = Buffer.alloc(offset + FIRST_POOL_BYTES);
    this.#end = offset;
  }

  string(text: string, step: Step): number {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    // the kernel would see only what is before the NUL, which nobody checked
    if (text.includes("\0"))
      throw new ContainerError({
        message: `a string of step ${step.name} contains a NUL byte`,
        code: "EINVAL",
        step: step.name,
        from: step.from,
      });
    // UTF-8 takes at most three bytes for each unit of UTF-16
    const at = this.#reserve(text.length * 3 + 1);
    this.#end = at + this.bytes.write(text, at) + 1;
    this.#known.set(text, at);
    return at;
  }

  vector(strings: string[], step: Step): number {
    const offsets = strings.map((text) => this.string(text, step));
    const at = this.#reserve(8 + (offsets.length + 1) * 8, 8);
    for (const [i, offset] of offsets.entries()) this.bytes.writeUInt32LE(offset, at + i * 8);
    this.#end = at + (offsets.length + 1) * 8;
    return at;
  }

  blob(bytes: Uint8Array): number {
    const at = this.#reserve(16 + bytes.length, 8);
    this.bytes.writeUInt32LE(bytes.length, at);
    this.bytes.set(bytes, at + 8);
    this.#end = at + 8 + bytes.length;
    return at;
  }

  /** A word as two halves where that is possible: bigints are slow. */
  writeWord(value: number | bigint, at: number): void {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) {
      this.bytes.writeUInt32LE(value % 2 ** 32, at);
      this.bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
    } else {
      this.bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), at);
    }
  }

  /** The whole plan; its last byte is NUL, so that every string in it ends in it. */
  finish(): Buffer {
    this.#reserve(1);
    return this.bytes.subarray(0, this.#end + 1);
  }

  #reserve(length: number, alignment = 1): number {
    const at = Math.ceil(this.#end / alignment) * alignment;
    if (at + length > this.bytes.length) {
      const larger = Buffer.alloc(2 * (at + length));
      larger.set(this.bytes);
      this.bytes = larger;
    }
    return at;
  }
}
