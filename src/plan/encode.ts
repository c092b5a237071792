import { ContainerError } from "../error.ts";
import { filledSlot, INIT_STEPS, type InitStep, isInit, type Kind, type Plan, type Step } from "./step.ts";

/** native/plan/plan.h */
const MAGIC = 0x006e616c50736943n;
const VERSION = 1;
export const HEADER_BYTES = 32;
export const STEP_BYTES = 48;
const SLOTS = 256;

export interface Encoded {
  /** What init maps, verifies and runs. */
  bytes: Uint8Array;
  /** Slots that the host fills before startInit, in order: slot i is init's i-th inherited descriptor. */
  inherited: readonly string[];
}

/**
 * Where the host works while init exists, init must wait: the plan with those turns in it. Host steps up to startInit
 * need none.
 */
export function takeTurns(plan: Plan): Plan {
  const turned: Step[] = [];
  const start = plan.findIndex((step) => step.name === "startInit");
  plan.forEach((step, at) => {
    const before = plan[at - 1];
    if (at > start && !isInit(step) && before !== undefined && (isInit(before) || before.name === "startInit"))
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
        if (kind === "writes") number(slots, String(Reflect.get(step.args, argument)));
      continue;
    }
    const slot = filledSlot(step);
    if (slot === undefined) continue;
    const index = number(slots, slot);
    if (!started) inherited.push(slot);
    else if (turn !== undefined) {
      const filled = fills.get(turn);
      fills.set(turn, { first: filled?.first ?? index, count: (filled?.count ?? 0) + 1 });
    }
  }

  const pool = new Pool();
  const records: { step: InitStep; index: number; args: bigint[] }[] = [];
  plan.forEach((step, index) => {
    if (!isInit(step)) return;
    const { first, count } = fills.get(step) ?? { first: 0, count: 0 };
    const values: Record<string, unknown> = step.name === "turn" ? { first, count } : step.args;
    const kinds: [string, Kind][] = Object.entries(INIT_STEPS[step.name].args);
    records.push({
      step,
      index,
      args: kinds.map(([argument, kind]) => word(kind, values[argument], pool, slots, step)),
    });
  });

  const poolOffset = HEADER_BYTES + records.length * STEP_BYTES;
  const size = poolOffset + pool.length + 1;
  const bytes = Buffer.alloc(size);
  bytes.writeBigUInt64LE(MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(size, 12);
  bytes.writeUInt32LE(records.length, 16);
  bytes.writeUInt32LE(poolOffset, 20);
  bytes.writeUInt32LE(inherited.length, 24);
  records.forEach(({ step, index, args }, at) => {
    const offset = HEADER_BYTES + at * STEP_BYTES;
    bytes.writeUInt16LE(INIT_STEPS[step.name].opcode, offset);
    bytes.writeUInt16LE(index, offset + 2);
    const kinds = Object.values(INIT_STEPS[step.name].args);
    args.forEach((value, i) => {
      const kind = kinds[i];
      const pooled = kind === "string" || kind === "strings" || kind === "bytes";
      bytes.writeBigUInt64LE(pooled ? value + BigInt(poolOffset) : value, offset + 8 + i * 8);
    });
  });
  pool.write(bytes, poolOffset);
  return { bytes, inherited };
}

function number(slots: Map<string, number>, slot: string): number {
  const known = slots.get(slot);
  if (known !== undefined) return known;
  if (slots.size >= SLOTS)
    throw new ContainerError({ message: `the plan needs more than ${SLOTS} descriptors`, code: "E2BIG" });
  slots.set(slot, slots.size);
  return slots.size - 1;
}

function word(kind: Kind, value: unknown, pool: Pool, slots: Map<string, number>, step: Step): bigint {
  if (kind === "number" && (typeof value === "number" || typeof value === "bigint"))
    return BigInt.asUintN(64, BigInt(value));
  if (kind === "string" && typeof value === "string") return BigInt(pool.string(value, step));
  if (kind === "bytes" && value instanceof Uint8Array) return BigInt(pool.blob(value));
  if (kind === "strings" && Array.isArray(value)) return BigInt(pool.vector(value.map(String), step));
  const slot = typeof value === "string" ? slots.get(value) : undefined;
  if (slot !== undefined) return BigInt(slot);
  throw new ContainerError({
    message: `step ${step.name} has no valid argument of kind ${kind}`,
    step: step.name,
    from: step.from,
  });
}

/** Strings, vectors and blobs. Offsets in vectors are from the plan's start, so they are written last. */
class Pool {
  length = 0;
  readonly #parts: { at: number; bytes: Uint8Array | number[] }[] = [];
  readonly #known = new Map<string, number>();

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
    const bytes = Buffer.from(`${text}\0`);
    const at = this.#add(bytes, bytes.length);
    this.#known.set(text, at);
    return at;
  }

  vector(strings: string[], step: Step): number {
    const offsets = strings.map((text) => this.string(text, step));
    this.#align();
    return this.#add(offsets, (offsets.length + 1) * 8);
  }

  blob(bytes: Uint8Array): number {
    this.#align();
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(bytes.length));
    return this.#add(Buffer.concat([length, bytes]), 8 + bytes.length);
  }

  write(plan: Buffer, poolOffset: number): void {
    for (const { at, bytes } of this.#parts) {
      if (bytes instanceof Uint8Array) plan.set(bytes, poolOffset + at);
      else
        bytes.forEach((offset, i) => {
          plan.writeBigUInt64LE(BigInt(poolOffset + offset), poolOffset + at + i * 8);
        });
    }
  }

  #align(): void {
    this.length = (this.length + 7) & ~7;
  }

  #add(bytes: Uint8Array | number[], length: number): number {
    const at = this.length;
    this.#parts.push({ at, bytes });
    this.length += length;
    return at;
  }
}
