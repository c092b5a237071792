import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { definitions } from "../../src/plan/definitions.ts";
import { INIT_STEPS } from "../../src/plan/step.ts";

const NATIVE = join(import.meta.dirname, "../../native");
const handlers = readdirSync(join(NATIVE, "init"))
  .filter((name) => name.endsWith(".c"))
  .map((name) => readFileSync(join(NATIVE, "init", name), "utf8"))
  .join("\n");

test("steps.def is what the vocabulary says", () => {
  expect(readFileSync(join(NATIVE, "plan/steps.def"), "utf8")).toBe(definitions());
});

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
