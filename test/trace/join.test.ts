import { expect, test } from "vitest";
import type { Plan } from "../../src/plan/step.ts";
import { join } from "../../src/trace/join.ts";
import type { Report } from "../../src/trace/report.ts";

const PLAN: Plan = [
  { name: "startInit", args: { preserved: 0 }, from: "/spec" },
  { name: "newSession", args: {}, from: "/spec/process" },
  { name: "setHostname", args: { name: "web" }, from: "/spec/hostname" },
  { name: "execute", args: { arguments: ["/bin/true"], environment: [] }, from: "/spec/process/args" },
];

const VFORK = 58;
const SETSID = 112;
const SENDMSG = 46;
const SETHOSTNAME = 170;
const EXECVE = 59;

/** Calls of 10 ns, 100 ns apart, in order. */
function reports(...calls: [step: number, nr: number, result: number | undefined][]): Report[] {
  return calls.map(([step, nr, result], at) => ({
    step,
    side: step === 0 ? "host" : "init",
    nr,
    args: [0n, 0n, 0n, 0n, 0n, 0n],
    result,
    startedNs: BigInt(1000 + at * 100),
    endedNs: result === undefined ? 0n : BigInt(1010 + at * 100),
  }));
}

test("each step has its own calls, from the first one's begin to the last one's end", () => {
  const traced = join(
    PLAN,
    reports([0, VFORK, 7], [0, 3, 0], [1, SETSID, 1], [2, SETHOSTNAME, 0], [3, EXECVE, undefined]),
  );
  expect(
    traced.map(({ index, side, calls, startedNs, durationNs }) => [index, side, calls.length, startedNs, durationNs]),
  ).toEqual([
    [0, "host", 2, 1000n, 110n],
    [1, "init", 1, 1200n, 10n],
    [2, "init", 1, 1300n, 10n],
    [3, "init", 1, 1400n, undefined],
  ]);
  expect(traced.map(({ outcome }) => outcome)).toEqual(["done", "done", "done", "done"]);
});

test("a step that init could not carry out has failed with the kernel's answer, not that of its word to the host", () => {
  const traced = join(PLAN, reports([0, VFORK, 7], [1, SETSID, 1], [2, SETHOSTNAME, -1], [2, SENDMSG, -32]));
  expect(traced.map(({ outcome }) => outcome)).toEqual(["done", "done", "failed", "unreached"]);
  expect(traced[2]?.result).toBe(-1);
});

test("a step that failed although the kernel refused nothing has no errno", () => {
  const traced = join(PLAN, reports([0, VFORK, 7], [1, SETSID, 1], [1, SENDMSG, 16]));
  expect(traced[1]).toMatchObject({ outcome: "failed", result: undefined });
});

test("a host step that fails is the last one reached", () => {
  expect(join(PLAN, reports([0, VFORK, -11])).map(({ outcome, result }) => [outcome, result])).toEqual([
    ["failed", -11],
    ["unreached", undefined],
    ["unreached", undefined],
    ["unreached", undefined],
  ]);
});

test("a step whose call has not returned is under way", () => {
  expect(join(PLAN, reports([0, VFORK, 7], [1, SETSID, undefined]))[1]).toMatchObject({
    outcome: "begun",
    result: undefined,
  });
});

test("an execve that came back has failed", () => {
  const traced = join(PLAN, reports([0, VFORK, 7], [3, EXECVE, -8], [3, SENDMSG, 16]));
  expect(traced.at(-1)).toMatchObject({ outcome: "failed", result: -8 });
});

test("a step without calls between others is done, and reports of no step are left out", () => {
  const traced = join(PLAN, reports([0, VFORK, 7], [2, SETHOSTNAME, 0], [99, 0, 0], [3, EXECVE, undefined]));
  expect(traced[1]).toMatchObject({ outcome: "done", calls: [], startedNs: undefined, durationNs: undefined });
  expect(traced.flatMap(({ calls }) => calls)).toHaveLength(3);
});

test("what took a step back is beside what carried it out, in the order in which it was done", () => {
  const made = reports([0, VFORK, 7], [1, SETSID, 1], [2, SETHOSTNAME, -1], [2, SENDMSG, -32]);
  const undo = reports([0, 424, 0], [0, 95, 0]).map((each) => ({ ...each, undo: true as const }));
  const traced = join(PLAN, [...made, ...undo]);
  expect(traced.map((step) => [step.index, step.undo, step.outcome, step.calls.length])).toEqual([
    [0, false, "done", 1],
    [1, false, "done", 1],
    [2, false, "failed", 2],
    [3, false, "unreached", 0],
    [0, true, "done", 2],
  ]);
});

test("init can fail at a step before those that the host has done meanwhile", () => {
  const plan: Plan = [
    { name: "startInit", args: { preserved: 0 }, from: "/spec" },
    { name: "newSession", args: {}, from: "/spec/process" },
    { name: "setHostname", args: { name: "web" }, from: "/spec/hostname" },
    { name: "turn", args: { first: 0, count: 0 }, from: "/spec" },
    { name: "openNamespace", args: { path: "/ns", slot: "net" }, from: "/spec" },
    { name: "execute", args: { arguments: ["/bin/true"], environment: [] }, from: "/spec/process/args" },
  ];
  const sides = (reports: Report[]) =>
    reports.map((each): Report => ({ ...each, side: each.step === 0 || each.step === 4 ? "host" : "init" }));
  const outcomes = (...calls: Parameters<typeof reports>) =>
    join(plan, sides(reports(...calls))).map(({ outcome }) => outcome);
  // init's word was still under way when it was killed, or not
  for (const said of [16, undefined])
    expect(outcomes([0, VFORK, 7], [4, 257, 9], [1, SETSID, -1], [1, SENDMSG, said])).toEqual([
      "done",
      "failed",
      "unreached",
      "unreached",
      "done",
      "unreached",
    ]);
  // the host failed, and init was where it was
  expect(outcomes([0, VFORK, 7], [1, SETSID, 1], [4, 257, -2])).toEqual([
    "done",
    "done",
    "unreached",
    "unreached",
    "failed",
    "unreached",
  ]);
});
