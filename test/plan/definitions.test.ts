import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { definitions } from "../../src/plan/definitions.ts";
import { backgroundOf, reference } from "../../src/plan/reference.ts";
import { HOST_STEPS, INIT_STEPS, isStepName } from "../../src/plan/step.ts";

const NATIVE = join(import.meta.dirname, "../../native");
const handlers = readdirSync(join(NATIVE, "init"))
  .filter((name) => name.endsWith(".c"))
  .map((name) => readFileSync(join(NATIVE, "init", name), "utf8"))
  .join("\n");

test("steps.def is what the vocabulary says", () => {
  expect(readFileSync(join(NATIVE, "plan/steps.def"), "utf8")).toBe(definitions());
});

test("STEPS.md is what the vocabulary says", () => {
  expect(readFileSync(join(import.meta.dirname, "../../src/plan/STEPS.md"), "utf8")).toBe(reference());
});

test.each([...Object.keys(HOST_STEPS), ...Object.keys(INIT_STEPS)].filter(isStepName))(
  "%s has a reason, and a place to read about it",
  (step) => {
    const { why, read, since } = backgroundOf(step);
    expect(why).toMatch(/^\S.+\.$/);
    expect(read).toMatch(
      /^([\w.-]+\(\d(const)?\)|OCI (config|config-linux|runtime), .+|\w+, in the kernel's documentation)$/,
    );
    expect(since ?? "5.10").toMatch(/^[56]\.\d+$/);
  },
);

test("no two steps have one opcode, and none has 0, which a plan full of zeros would name", () => {
  const opcodes = Object.values(INIT_STEPS).map(({ opcode }) => opcode);
  expect(new Set(opcodes).size).toBe(opcodes.length);
  expect(Math.min(...opcodes)).toBeGreaterThan(0);
  expect(Math.max(...opcodes)).toBeLessThan(0x1_0000);
});

test.each(Object.entries(INIT_STEPS))(
  "%s has one handler, at most five arguments, a sentence and a reason",
  (name, step) => {
    const handler = `long step_${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}(struct run *run`;
    expect(handlers.split(handler)).toHaveLength(2);
    expect(Object.keys(step.args).length).toBeLessThanOrEqual(5);
    expect(step.why).toMatch(/\.$/);
  },
);
