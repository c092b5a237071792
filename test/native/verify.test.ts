import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encode } from "../../src/plan/encode.ts";
import { INIT_STEPS, type Plan } from "../../src/plan/step.ts";
import { examplePlans } from "../plan/examples.ts";
import { FUZZ_SEED } from "../support/fuzz.ts";

const ROOT = join(import.meta.dirname, "../..");
const MUTATIONS = 1_200_000;
const work = mkdtempSync(join(tmpdir(), "caisson-verify-"));
const harness = join(work, "verify_fuzz");
const environment = { ...process.env, ASAN_OPTIONS: "quarantine_size_mb=1:detect_leaks=0" };

beforeAll(() => {
  const warnings = ["-Wall", "-Wextra", "-Werror"];
  const sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
  const sources = ["test/native/verify_fuzz.c", "native/init/verify.c"];
  execFileSync("clang", ["-std=gnu17", "-g", "-O1", ...warnings, ...sanitizers, ...sources, "-o", harness], {
    cwd: ROOT,
    stdio: "inherit",
  });
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

function keep(name: string, bytes: Uint8Array): string {
  const path = join(work, `${name.replaceAll(/\W/g, "-")}.plan`);
  writeFileSync(path, bytes);
  return path;
}

function verdict(bytes: Uint8Array): string {
  return execFileSync(harness, ["check", keep("one", bytes)], { encoding: "utf8", env: environment }).trim();
}

const HEADER = { magic: 0, version: 8, size: 12, stepCount: 16, poolOffset: 20, inherited: 24, zero: 28 };
const FIRST_STEP = 32;
const STEP_BYTES = 48;

/** One step of each kind of argument, in a plan that is accepted. */
const PLAN: Plan = [
  { name: "openRoot", args: { path: "/r", propagation: 0, slot: "root" }, from: "/spec/root" },
  { name: "startInit", args: { preserved: 0 }, from: "/spec" },
  { name: "setHostname", args: { name: "web" }, from: "/spec" },
  { name: "setGroups", args: { gids: new Uint8Array([1, 0, 0, 0, 2, 0, 0, 0]) }, from: "/spec" },
  {
    name: "makeFilesystem",
    args: { type: "t", source: "s", parameters: ["a", "b=c"], attributes: 0, mount: "m" },
    from: "/spec",
  },
  { name: "attachMount", args: { mount: "m", root: "root", target: "/t", follow: 1, proc: 0 }, from: "/spec" },
  { name: "turn", args: { first: 0, count: 0 }, from: "/spec" },
  { name: "openNamespace", args: { path: "/n", slot: "n" }, from: "/spec" },
  { name: "closeSlot", args: { file: "n" }, from: "/spec" },
  { name: "setGroups", args: { gids: new Uint8Array(0) }, from: "/spec" },
  { name: "execute", args: { arguments: ["sh"], environment: ["A=1"] }, from: "/spec" },
];

/** Where things are in that plan: the n-th step of init's, its arguments, and the words in its pool. */
class Bytes {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  constructor(bytes = Uint8Array.from(encode(PLAN).bytes)) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
  }
  step(n: number): number {
    return FIRST_STEP + n * STEP_BYTES;
  }
  get(n: number, argument: number): bigint {
    return this.view.getBigUint64(this.step(n) + 8 + argument * 8, true);
  }
  set(n: number, argument: number, value: bigint): void {
    this.view.setBigUint64(this.step(n) + 8 + argument * 8, value, true);
  }
  word(at: bigint, value: bigint): void {
    this.view.setBigUint64(Number(at), value, true);
  }
  get size(): bigint {
    return BigInt(this.bytes.length);
  }
}

const [HOSTNAME, GROUPS, FILESYSTEM, ATTACH, TURN, CLOSE, NO_GROUPS, EXECUTE] = [0, 1, 2, 3, 4, 5, 6, 7];

/** A plan of another length, with the header to match. */
function resized(bytes: Uint8Array, size: number): Uint8Array {
  const other = new Uint8Array(size);
  other.set(bytes.subarray(0, size));
  new DataView(other.buffer).setUint32(HEADER.size, size, true);
  return other;
}

/** Every rule, by the one change that breaks it: in place, or as other bytes. */
const BREACHES: { [rule: string]: (plan: Bytes) => unknown } = {
  "an empty file": () => new Uint8Array(0),
  "half a header": ({ bytes }) => resized(bytes, 16),
  "another magic": ({ view }) => view.setUint8(HEADER.magic, 0x44),
  "another version": ({ view }) => view.setUint32(HEADER.version, 2, true),
  "a size that is not the file's": ({ view, size }) => view.setUint32(HEADER.size, Number(size) + 1, true),
  "a file cut short": ({ bytes }) => bytes.slice(0, -1),
  "a plan cut short": ({ bytes }) => resized(bytes, bytes.length - 16),
  "more than 16 MiB": ({ bytes }) => resized(bytes, (16 << 20) + 8),
  "no steps": ({ view }) => {
    view.setUint32(HEADER.stepCount, 0, true);
    view.setUint32(HEADER.poolOffset, FIRST_STEP, true);
  },
  "more steps than there is room for": ({ view }) => {
    view.setUint32(HEADER.stepCount, 0x0555_5556, true); // times 48 is 32 in 32 bits
    view.setUint32(HEADER.poolOffset, 64, true);
  },
  "a pool that is not behind the steps": ({ view }) => view.setUint32(HEADER.poolOffset, 40, true),
  "more inherited slots than there are": ({ view }) => view.setUint32(HEADER.inherited, 257, true),
  "something in the header's zero": ({ view }) => view.setUint32(HEADER.zero, 1, true),
  "a last byte other than NUL": ({ bytes }) => bytes.fill(1, -1),
  "an unknown opcode": (plan) => plan.view.setUint16(plan.step(HOSTNAME), 999, true),
  "opcode 0": (plan) => plan.view.setUint16(plan.step(HOSTNAME), 0, true),
  "something in a step's zero": (plan) => plan.view.setUint32(plan.step(HOSTNAME) + 4, 1, true),
  "two steps of one index": (plan) => plan.view.setUint16(plan.step(GROUPS) + 2, 2, true),
  "steps out of order": (plan) => plan.view.setUint16(plan.step(HOSTNAME) + 2, 9, true),
  "an argument that the step does not have": (plan) => plan.set(HOSTNAME, 1, 1n),
  "a string behind the plan": (plan) => plan.set(HOSTNAME, 0, plan.size),
  "a string far behind the plan": (plan) => plan.set(HOSTNAME, 0, 2n ** 64n - 1n),
  "a string in front of the pool": (plan) => plan.set(HOSTNAME, 0, BigInt(plan.step(EXECUTE) + STEP_BYTES - 1)),
  "a vector that is not aligned": (plan) => plan.set(EXECUTE, 1, plan.get(EXECUTE, 1) + 4n),
  "a vector behind the plan": (plan) => plan.set(EXECUTE, 1, (plan.size + 7n) & ~7n),
  "a vector without an end": (plan) => {
    const last = (plan.size - 8n) & ~7n;
    for (let at = plan.get(EXECUTE, 1); at <= last; at += 8n) plan.word(at, plan.get(HOSTNAME, 0));
    plan.bytes.fill(0, -1);
  },
  "a vector whose string is outside": (plan) => plan.word(plan.get(EXECUTE, 0), plan.size),
  "a vector that points into the steps": (plan) => plan.word(plan.get(EXECUTE, 0), 32n),
  "a vector that holds an address already": (plan) => plan.word(plan.get(EXECUTE, 0), 0x7fff_0000_0000n),
  "a vector used twice": (plan) => plan.set(EXECUTE, 1, plan.get(EXECUTE, 0)),
  "a vector inside another": (plan) => plan.set(EXECUTE, 0, plan.get(FILESYSTEM, 2) + 8n),
  "a blob that is not aligned": (plan) => plan.set(GROUPS, 0, plan.get(GROUPS, 0) + 1n),
  "a blob longer than the plan": (plan) => plan.word(plan.get(GROUPS, 0), plan.size - plan.get(GROUPS, 0) - 7n),
  "a blob whose end wraps around": (plan) => plan.word(plan.get(GROUPS, 0), 2n ** 64n - 8n),
  "a blob whose length lies behind the plan": (plan) => plan.set(NO_GROUPS, 0, (plan.size - 1n) & ~7n),
  "a blob over a vector, whose relocation would change its length": (plan) =>
    plan.set(NO_GROUPS, 0, plan.get(FILESYSTEM, 2)),
  "a vector over a blob": (plan) => plan.set(FILESYSTEM, 2, plan.get(GROUPS, 0) + 8n),
  "an empty slot that is read": (plan) => plan.set(ATTACH, 1, 5n),
  "an empty slot that is closed": (plan) => plan.set(CLOSE, 0, 5n),
  "a slot that is closed twice": (plan) => plan.set(CLOSE, 0, plan.get(ATTACH, 0)),
  "a slot read and closed in one step, in the wrong order": (plan) => plan.set(ATTACH, 1, plan.get(ATTACH, 0)),
  "a full slot that is written": (plan) => plan.set(FILESYSTEM, 4, plan.get(ATTACH, 1)),
  "slot 256": (plan) => plan.set(FILESYSTEM, 4, 256n),
  "a slot whose number is one of the table modulo 2^32": (plan) => plan.set(ATTACH, 1, plan.get(ATTACH, 1) + 2n ** 32n),
  "a turn that fills a full slot": (plan) => plan.set(TURN, 0, 0n),
  "a turn that fills slots behind the table": (plan) => plan.set(TURN, 1, 256n),
  "a turn whose count wraps around": (plan) => plan.set(TURN, 1, 2n ** 64n - 1n),
};

describe("the verifier", () => {
  test("accepts the plan that the next tests break", () => {
    expect(verdict(encode(PLAN).bytes)).toBe("accepted");
    const opcodes = [HOSTNAME, GROUPS, FILESYSTEM, ATTACH, TURN, CLOSE, NO_GROUPS, EXECUTE].map((n) =>
      new Bytes().view.getUint16(new Bytes().step(n ?? 0), true),
    );
    const { setHostname, setGroups, makeFilesystem, attachMount, turn, closeSlot, execute } = INIT_STEPS;
    const wanted = [setHostname, setGroups, makeFilesystem, attachMount, turn, closeSlot, setGroups, execute];
    expect(opcodes).toEqual(wanted.map(({ opcode }) => opcode));
  });

  test.each(Object.entries(BREACHES))("refuses %s", (_, breach) => {
    const plan = new Bytes();
    const other = breach(plan);
    expect(verdict(other instanceof Uint8Array ? other : plan.bytes)).toBe("refused");
  });

  test("refuses a vector over a blob's length, which relocation would turn into an address", () => {
    const gids = new Uint8Array(1200); // long enough for its length to look like an offset of a string
    const { bytes } = encode([
      { name: "startInit", args: { preserved: 0 }, from: "/spec" },
      { name: "setGroups", args: { gids }, from: "/spec" },
      { name: "execute", args: { arguments: ["sh"], environment: [] }, from: "/spec" },
    ]);
    expect(verdict(bytes)).toBe("accepted");
    const plan = new Bytes(Uint8Array.from(bytes));
    plan.set(1, 0, plan.get(0, 0));
    expect(verdict(plan.bytes)).toBe("refused");
  });

  test("refuses what is not a plan at all", () => {
    expect(verdict(new Uint8Array(4096))).toBe("refused");
    expect(verdict(new Uint8Array(4096).fill(0xff))).toBe("refused");
  });

  test.each(Object.entries(examplePlans()))("accepts the plan of %s", (_, plan) => {
    expect(verdict(encode(plan).bytes)).toBe("accepted");
  });

  test(`keeps its word on ${MUTATIONS} mutated plans, under the sanitizers`, { timeout: 180_000 }, () => {
    const seeds = [...Object.entries(examplePlans()), ["each kind", PLAN] as const];
    const paths = seeds.map(([name, plan]) => keep(`seed ${name}`, encode(plan).bytes));
    let said: string;
    try {
      said = execFileSync(harness, ["fuzz", String(MUTATIONS), String(FUZZ_SEED), ...paths], {
        encoding: "utf8",
        env: environment,
      });
    } catch (error) {
      throw new Error(`the fuzzer found something; to see it again: FUZZ_SEED=${FUZZ_SEED}`, { cause: error });
    }
    const workers = [...said.matchAll(/(\d+) of (\d+) accepted/g)].map(([, accepted, of]) => [
      Number(accepted),
      Number(of),
    ]);
    expect(workers.reduce((sum, [, of = 0]) => sum + of, 0)).toBe(MUTATIONS);
    // mutations that are all refused, or all harmless, would test nothing
    for (const [accepted = 0, of = 0] of workers) {
      expect(accepted / of).toBeGreaterThan(0.02);
      expect(accepted / of).toBeLessThan(0.9);
    }
  });
});
