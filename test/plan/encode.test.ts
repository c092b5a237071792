import { describe, expect, test } from "vitest";
import { type Encoded, encode, takeTurns } from "../../src/plan/encode.ts";
import { filledSlot, INIT_STEPS, type InitStep, isInit, type Kind, type Plan, type Step } from "../../src/plan/step.ts";
import { examplePlans } from "./examples.ts";

const HEADER_BYTES = 32;
const STEP_BYTES = 48;

type Decoded = { opcode: number; index: number; args: unknown[] };

/** The wire read back by its definition in native/plan/plan.h, with no code of the encoder's. */
function decode({ bytes }: Encoded): { inherited: number; steps: Decoded[] } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number) => Number(view.getBigUint64(at, true));
  const string = (at: number) => Buffer.from(bytes.subarray(at, bytes.indexOf(0, at))).toString();
  expect(Buffer.from(bytes.subarray(0, 8)).toString()).toBe("CisPlan\0".padEnd(8, "\0"));
  expect([view.getUint32(8, true), view.getUint32(12, true)]).toEqual([1, bytes.length]);
  const count = view.getUint32(16, true);
  expect(view.getUint32(20, true)).toBe(HEADER_BYTES + count * STEP_BYTES);
  expect(bytes.at(-1)).toBe(0);
  const steps = Array.from({ length: count }, (_, i) => {
    const at = HEADER_BYTES + i * STEP_BYTES;
    const opcode = view.getUint16(at, true);
    const definition = Object.values(INIT_STEPS).find((step) => step.opcode === opcode);
    const kinds: Kind[] = Object.values(definition?.args ?? {});
    const args = Array.from({ length: 5 }, (__, n) => {
      const value = view.getBigUint64(at + 8 + n * 8, true);
      const offset = Number(value);
      if (kinds[n] === "string") return string(offset);
      if (kinds[n] === "bytes") return [...bytes.subarray(offset + 8, offset + 8 + word(offset))];
      if (kinds[n] !== "strings") return value;
      const strings: string[] = [];
      for (let entry = offset; word(entry) !== 0; entry += 8) strings.push(string(word(entry)));
      return strings;
    });
    return { opcode, index: view.getUint16(at + 2, true), args };
  });
  return { inherited: view.getUint32(24, true), steps };
}

const setHostname = (name: string): Step => ({ name: "setHostname", args: { name }, from: "/spec/hostname" });
const openRoot: Step = { name: "openRoot", args: { path: "/r", propagation: 0, slot: "root" }, from: "/spec/root" };
const startInit: Step = { name: "startInit", args: { preserved: 0 }, from: "/spec" };
const attachRoot: Step = { name: "attachRoot", args: { root: "root", at: "/" }, from: "/spec/root" };
const openNamespace = (slot: string): Step => ({
  name: "openNamespace",
  args: { path: `/${slot}`, slot },
  from: "/spec",
});
const record: Step = { name: "recordCreated", args: {}, from: "/spec" };
const close = (file: string): Step => ({ name: "closeSlot", args: { file }, from: "/spec" });

describe.each(Object.entries(examplePlans()))("the plan of %s on the wire", (_, plan) => {
  test("has init's steps with their places in the whole plan, and their arguments", () => {
    const encoded = encode(plan);
    const slots = slotNumbers(plan);
    const wanted = plan.flatMap((step, index) => (isInit(step) ? [{ step, index }] : []));
    const { steps, inherited } = decode(encoded);
    expect(inherited).toBe(encoded.inherited.length);
    expect(steps.map(({ opcode, index }) => [opcode, index])).toEqual(
      wanted.map(({ step, index }) => [INIT_STEPS[step.name].opcode, index]),
    );
    wanted.forEach(({ step }, i) => {
      if (step.name !== "turn") expect(steps[i]?.args).toEqual(argumentsOf(step, slots));
    });
  });

  test("has an empty slot filled before it is read, by whoever the plan says", () => {
    const filled = new Set(encode(plan).inherited.map((_slot, i) => BigInt(i)));
    for (const { opcode, args } of decode(encode(plan)).steps) {
      const [name, definition] = Object.entries(INIT_STEPS).find(([, step]) => step.opcode === opcode) ?? [];
      if (name === "turn") for (let i = 0n; i < Number(args[1]); i++) filled.add(BigInt(Number(args[0])) + i);
      const kinds: Kind[] = Object.values(definition?.args ?? {});
      kinds.forEach((kind, i) => {
        const slot = args[i] as bigint; // of these kinds only
        if (kind === "reads" || kind === "closes") expect(filled.has(slot), `${name} ${slot}`).toBe(true);
        if (kind === "closes") filled.delete(slot);
        if (kind === "writes") filled.add(slot);
      });
    }
  });
});

/** Slots are numbered as they are first filled: the host's before startInit come first. */
function slotNumbers(plan: Plan): Map<string, bigint> {
  const names = plan.flatMap((step) => {
    if (!isInit(step)) return filledSlot(step) ?? [];
    const kinds: [string, Kind][] = Object.entries(INIT_STEPS[step.name].args);
    return kinds.filter(([, kind]) => kind === "writes").map(([argument]) => String(Reflect.get(step.args, argument)));
  });
  return new Map([...new Set(names)].map((name, i) => [name, BigInt(i)]));
}

function argumentsOf(step: InitStep, slots: Map<string, bigint>): unknown[] {
  const kinds: [string, Kind][] = Object.entries(INIT_STEPS[step.name].args);
  const args = kinds.map(([argument, kind]) => {
    const value: unknown = Reflect.get(step.args, argument);
    if (kind === "number") return BigInt.asUintN(64, BigInt(value as number | bigint)); // of that kind only
    if (value instanceof Uint8Array) return [...value];
    return kind === "string" || kind === "strings" ? value : slots.get(String(value));
  });
  return [...args, ...Array<bigint>(5 - args.length).fill(0n)];
}

test("before a host step that follows one of init's there is a turn, and only there", () => {
  const plan = takeTurns([openRoot, startInit, attachRoot, record, record, attachRoot, attachRoot, record]);
  expect(plan.map(({ name }) => name)).toEqual([
    "openRoot",
    "startInit",
    "attachRoot",
    "turn",
    "recordCreated",
    "recordCreated",
    "attachRoot",
    "attachRoot",
    "turn",
    "recordCreated",
  ]);
});

test("a host step right after startInit has its turn, too", () => {
  expect(takeTurns([startInit, record]).map(({ name }) => name)).toEqual(["startInit", "turn", "recordCreated"]);
});

test("a turn says which slots the host's steps fill while init waits", () => {
  const plan = takeTurns([
    openRoot,
    startInit,
    attachRoot,
    openNamespace("a"),
    record,
    openNamespace("b"),
    close("b"),
    openNamespace("c"),
    close("c"),
  ]);
  const turns = decode(encode(plan)).steps.filter(({ opcode }) => opcode === INIT_STEPS.turn.opcode);
  expect(turns.map(({ args }) => args.slice(0, 2))).toEqual([
    [1n, 2n],
    [3n, 1n],
  ]);
});

test("numbers are two's complement of 64 bits", () => {
  const limit: Step = { name: "setLimit", args: { resource: -1, soft: 2n ** 64n - 1n, hard: 2 ** 40 }, from: "/spec" };
  expect(decode(encode([startInit, limit])).steps[0]?.args.slice(0, 3)).toEqual([
    2n ** 64n - 1n,
    2n ** 64n - 1n,
    2n ** 40n,
  ]);
});

test("equal strings lie in the plan once", () => {
  const once = encode([startInit, setHostname("x".repeat(100))]).bytes.length;
  expect(encode([startInit, setHostname("x".repeat(100)), setHostname("x".repeat(100))]).bytes.length).toBe(
    once + STEP_BYTES,
  );
});

test("a string with a NUL is refused: the kernel would see only its beginning", () => {
  expect(() => encode([startInit, setHostname("a\0b")])).toThrowError(/NUL/);
  const words: Step = {
    name: "execute",
    args: { arguments: ["a", "b\0"], environment: [] },
    from: "/spec/process/args",
  };
  expect(() => encode([startInit, words])).toThrowError(
    expect.objectContaining({ code: "EINVAL", from: "/spec/process/args" }),
  );
});

test("a slot that nobody fills is an error of the plan, not of init", () => {
  expect(() => encode([startInit, attachRoot])).toThrowError(/attachRoot has no valid argument/);
});

test("more descriptors than init has places for are refused", () => {
  const many = Array.from({ length: 257 }, (_, i) => openNamespace(String(i)));
  expect(() => encode([...many, startInit])).toThrowError(expect.objectContaining({ code: "E2BIG" }));
});
