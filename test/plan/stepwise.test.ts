import { expect, test } from "vitest";
import { encode, takeTurns } from "../../src/plan/encode.ts";
import type { Plan, Step } from "../../src/plan/step.ts";
import { harmWithout, leftOut, placesOf, stepwise } from "../../src/plan/stepwise.ts";

const from = "/spec";
const start: Step = { name: "startInit", args: { preserved: 0 }, from };
const clone: Step = { name: "clone", args: { namespaces: 0x10000000 }, from };
const session: Step = { name: "newSession", args: {}, from };
const map = (text: string): Step => ({ name: "mapIds", args: { kind: "uid", map: text }, from });
const open: Step = { name: "openOwn", args: { path: "/dev/null", file: "null" }, from };
const mask: Step = { name: "maskPath", args: { root: "null", path: "/proc/keys", null: "null" }, from };
const filter: Step = { name: "loadSeccomp", args: { program: new Uint8Array(8), flags: 0 }, from };
const execute: Step = { name: "execute", args: { arguments: ["true"], environment: [] }, from };
const whole = takeTurns([start, clone, map("0 100000 1"), session, open, mask, filter, session, execute]);

const names = (plan: Plan) => plan.map(({ name }) => name);

test("init stands still before each of its steps, but where it waits for the host anyway, and behind a filter", () => {
  expect(names(stepwise(whole, { without: [] }))).toEqual([
    "startInit",
    ...["standStill", "clone", "turn", "mapIds", "newSession"],
    ...["standStill", "openOwn", "standStill", "maskPath", "standStill", "loadSeccomp"],
    ...["newSession", "execute"],
  ]);
});

test("a stepped plan has the places of the whole one", () => {
  const stepping = { without: [] };
  const places = placesOf(whole, stepping);
  stepwise(whole, stepping).forEach((step, index) => {
    if (step.name !== "standStill") expect(whole[places[index] ?? -1]).toBe(step);
    else expect(places[index]).toBe(places[index + 1]);
  });
});

test("with a step go those that need its descriptor, and what is left is a plan that can be encoded", () => {
  const opens = whole.indexOf(open);
  expect([...leftOut(whole, [opens])]).toEqual([opens, whole.indexOf(mask)]);
  const rest = stepwise(whole, { without: [opens] });
  expect(names(rest)).not.toContain("maskPath");
  expect(() => encode(rest)).not.toThrow();
});

test("what makes a container one cannot be left out, nor what is not there", () => {
  for (const step of [start, clone, execute])
    expect(() => leftOut(whole, [whole.indexOf(step)])).toThrow(`${step.name}, cannot be left out`);
  expect(() => leftOut(whole, [99])).toThrow("the plan has no step 99");
});

test("only in a user namespace in which nobody is root or the caller is a missing step harmless", () => {
  expect(harmWithout(whole, 0)).toBeUndefined();
  expect(harmWithout([start, clone, map("0 0 1")], 0)).toMatch("somebody is uid 0 of the host");
  expect(harmWithout([start, clone, map("0 100000 1\n1 1000 1")], 1000)).toMatch("somebody is uid 1000");
  expect(harmWithout([start, { ...clone, args: { namespaces: 0 } }, map("0 100000 1")], 0)).toMatch(
    "no user namespace",
  );
});
