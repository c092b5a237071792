import { expect, test } from "vitest";
import { encode, HEADER_BYTES, STEP_BYTES } from "../../src/plan/encode.ts";
import { explain, renderExplanation } from "../../src/plan/explain.ts";
import { isInit, type Plan } from "../../src/plan/step.ts";
import { join, type TracedStep } from "../../src/trace/join.ts";
import { parseLines, tell, traceJson } from "../../src/trace/line.ts";
import { renderTrace } from "../../src/trace/render.ts";
import type { Report } from "../../src/trace/report.ts";
import { printArguments, syscallName } from "../../src/trace/syscalls.ts";

const PLAN: Plan = [
  { name: "openRoot", args: { path: "/bundle/rootfs", propagation: 0, slot: "root" }, from: "/spec/root/path" },
  { name: "startInit", args: { preserved: 0 }, from: "/spec" },
  { name: "setHostname", args: { name: "web" }, from: "/spec/hostname" },
  { name: "maskPath", args: { root: "root", path: "/proc/keys", null: "root" }, from: "/spec/linux/maskedPaths/0" },
  { name: "setGroups", args: { gids: new Uint8Array(8) }, from: "/spec/process/user" },
  {
    name: "execute",
    args: { arguments: ["/bin/true", "-x"], environment: ["HOME=/root", "SECRET=1"] },
    from: "/spec/process/args",
  },
];

/** Where init had mapped the plan. */
const BASE = 0x7fc3_92c6_e000n;

/** Address of an argument of a step. */
function addressOf(index: number, argument: number): bigint {
  const { bytes } = encode(PLAN);
  const at = PLAN.filter(isInit).indexOf(PLAN[index] as never); // the test's own index of an init step
  return BASE + Buffer.from(bytes).readBigUInt64LE(HEADER_BYTES + at * STEP_BYTES + 8 + argument * 8);
}

function report(
  step: number,
  nr: number,
  args: readonly bigint[],
  result: number | undefined,
  startedUs: number,
  us: number,
): Report {
  const startedNs = BigInt(Math.round((5_000_000 + startedUs) * 1000));
  const all = Array.from({ length: 6 }, (_, i) => args[i] ?? 0n);
  const endedNs = result === undefined ? 0n : startedNs + BigInt(Math.round(us * 1000));
  return { step, side: step < 2 ? "host" : "init", nr, args: all, result, startedNs, endedNs };
}

const STACK = 0x7ffc_44d3_bc10n;
const REPORTS = [
  report(0, 428, [0xffffffffffffff9cn, 0x16e42180n, 0x89001n], 7, 0, 28),
  report(1, 58, [], 3944, 250, 1160),
  report(2, 170, [addressOf(2, 0), 3n], 0, 1500, 9.94),
  report(3, 437, [6n, addressOf(3, 1), STACK, 24n], -2, 1600, 25),
  report(4, 116, [2n, addressOf(4, 0) + 8n], 0, 1700, 2.5),
  report(5, 59, [addressOf(5, 0) - 0x13n, addressOf(5, 0), addressOf(5, 1)], undefined, 12_500, 0),
];

const TRACED = join(PLAN, REPORTS);
const told = (traced: readonly TracedStep[], more: { secrets?: boolean; epochNs?: bigint } = {}) =>
  tell(traced, { machine: "x86_64", ...more });

test("a trace is a table of steps with their times since the first call", () => {
  expect(renderTrace(told(TRACED))).toBe(
    [
      "#  side  step         what it does                                         calls        at     took  result",
      "0  host  openRoot     clones the mount tree at /bundle/rootfs as the root      1         0    28 µs  ok",
      "1  host  startInit    starts init                                              1    250 µs  1.16 ms  ok",
      "2  init  setHostname  names the machine web                                    1   1.50 ms   9.9 µs  ok",
      "3  init  maskPath     hides /proc/keys                                         1   1.60 ms    25 µs  ok (ENOENT)",
      "4  init  setGroups    takes 2 additional groups                                1   1.70 ms   2.5 µs  ok",
      "5  init  execute      executes /bin/true -x                                    1  12.50 ms           ok",
      "",
      "6 of 6 steps, 6 system calls, 12.50 ms",
      "",
    ].join("\n"),
  );
});

test("the wide form has every call, with the plan's own strings where its pointers point at them", () => {
  const lines = renderTrace(told(TRACED), { verbose: true }).split("\n");
  expect(lines.filter((line) => line.startsWith("      "))).toEqual([
    "      open_tree(AT_FDCWD, 0x16e42180, 0x89001) = 7   28 µs",
    "      vfork() = 3944   1.16 ms",
    '      sethostname("web", 3) = 0   9.9 µs',
    '      openat2(6, "/proc/keys", 0x7ffc44d3bc10, 24) = -ENOENT   25 µs',
    "      setgroups(2, <8 bytes>) = 0   2.5 µs",
    expect.stringMatching(/^ {6}execve\(.+, \["\/bin\/true", "-x"\], <2 variables>\) …$/),
  ]);
});

test("the values of environment variables are not shown", () => {
  expect(renderTrace(told(TRACED), { verbose: true }) + traceJson(told(TRACED))).not.toContain("SECRET");
});

test("the values of environment variables are shown to whoever asks for secrets", () => {
  expect(renderTrace(told(TRACED, { secrets: true }), { verbose: true })).toContain('["HOME=/root", "SECRET=1"]');
});

test("the host's own strings are shown where its pointers are", () => {
  const [opened, ...others] = REPORTS;
  if (opened === undefined) throw new Error("no report");
  const named = { ...opened, texts: [undefined, "/bundle/rootfs"] };
  const text = renderTrace(told(join(PLAN, [named, ...others])), { verbose: true });
  expect(text).toContain('open_tree(AT_FDCWD, "/bundle/rootfs", 0x89001) = 7');
});

test("what was taken back follows the plan's steps, under its own head", () => {
  const undone = { ...report(1, 424, [9n, 9n], 0, 20_000, 5), undo: true as const };
  const lines = renderTrace(told(join(PLAN, [...REPORTS, undone]))).split("\n");
  expect(lines.slice(7, 9)).toEqual(["", expect.stringMatching(/^1 {2}undo {2}startInit {4}kills it \(starts init\)/)]);
  expect(lines.at(-2)).toBe("6 of 6 steps, 6 system calls, 12.50 ms");
});

test("a trace that was saved as JSON reads as the same trace, and nothing else reads as one", () => {
  const lines = told(TRACED, { epochNs: 1_700_000_000_000_000_123n });
  expect(parseLines(traceJson(lines))).toEqual(lines);
  expect(lines[0]?.at).toBe("2023-11-14T22:13:25.000000123Z");
  for (const text of ["", "{}", "no", '{"index":1}', `${traceJson(lines)}{`, "[1]", "null"])
    expect(parseLines(text), text).toBeUndefined();
});

test("a pointer into the middle of a string shows the rest of it", () => {
  const [, , , masked, ...others] = REPORTS;
  if (masked === undefined) throw new Error("no report");
  const last = { ...masked, args: [3n, addressOf(3, 1) + 6n, 0n, 0n, 0n, 0n] };
  const text = renderTrace(told(join(PLAN, [...REPORTS.slice(0, 4), last, ...others])), { verbose: true });
  expect(text).toContain('openat2(3, "keys", NULL, 0)');
});

test("a failed step says its errno, and those behind it that they were not reached", () => {
  const traced = join(PLAN, [
    ...REPORTS.slice(0, 2),
    report(2, 170, [], -1, 1500, 3),
    report(2, 46, [5n], 16, 1510, 3),
  ]);
  const lines = renderTrace(told(traced)).split("\n");
  expect(lines[3]).toMatch(/setHostname .* EPERM$/);
  expect(lines[4]).toMatch(/maskPath .* not reached$/);
  expect(
    traceJson(told(traced))
      .split("\n")
      .map((line) => (line === "" ? "" : JSON.parse(line).error)),
  ).toEqual([undefined, undefined, "EPERM", undefined, undefined, undefined, ""]);
});

test("a sentence that is long or has line ends stays on one line of the table, but for the wide form", () => {
  const long = `/${"x".repeat(100)}`;
  const traced = join(
    [{ name: "openRoot", args: { path: long, propagation: 0, slot: "root" }, from: "/spec/root" }],
    [],
  );
  expect(renderTrace(told(traced))).not.toContain(long);
  expect(renderTrace(told(traced))).toContain("…");
  expect(renderTrace(told(traced), { verbose: true })).toContain(long);
});

test("a trace as JSON is one object a line, with the calls' names and arguments", () => {
  const lines = traceJson(told(TRACED))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines).toHaveLength(PLAN.length);
  expect(lines[0]).toEqual({
    index: 0,
    side: "host",
    step: "openRoot",
    says: "clones the mount tree at /bundle/rootfs as the root",
    why: "The root travels as a descriptor; its path is never looked up again.",
    from: "/spec/root/path",
    outcome: "done",
    startedNs: 0,
    durationNs: 28_000,
    calls: [
      {
        name: "open_tree",
        nr: 428,
        args: ["0xffffffffffffff9c", "0x16e42180", "0x89001", "0x0", "0x0", "0x0"],
        shown: ["AT_FDCWD", "0x16e42180", "0x89001"],
        result: 7,
        startedNs: 0,
        durationNs: 28_000,
      },
    ],
  });
  expect(lines[5].calls[0]).not.toHaveProperty("result");
});

test("a trace without reports has no times", () => {
  expect(renderTrace(told(join(PLAN, [])))).toContain("0 of 6 steps, 0 system calls, 0\n");
});

test("system calls have the names of their machine", () => {
  expect([syscallName(59, "x86_64"), syscallName(221, "aarch64"), syscallName(99_999, "x86_64")]).toEqual([
    "execve",
    "execve",
    "syscall_99999",
  ]);
});

test("arguments are shown as what the call takes them for", () => {
  const show = (name: string, ...args: bigint[]) => printArguments(name, args, () => undefined).join(", ");
  expect(show("close", 0n)).toBe("0");
  expect(show("mkdirat", 3n, 0xffn, 0o755n)).toBe("3, 0xff, 0755");
  expect(show("openat", 0xffffffffffffff9cn, 0n, 0x80000n, 0n)).toBe("AT_FDCWD, NULL, 0x80000, 0");
  expect(show("dup3", 0xffffffffffffffffn, 1n, 0n)).toBe("-1, 1, 0");
  expect(show("newcall", 1n)).toBe("0x1, 0, 0, 0, 0, 0");
});

test("an explanation is grouped by whose turn it is, with pointers as config.json has them", () => {
  expect(renderExplanation(explain(PLAN.slice(0, 3)))).toBe(
    [
      "the host",
      "    0  clones the mount tree at /bundle/rootfs as the root  /root/path",
      "    1  starts init                                          /",
      "",
      "init",
      "    2  names the machine web                                /hostname",
      "",
    ].join("\n"),
  );
});

test("a verbose explanation says why, once for steps of a kind that follow each other", () => {
  const [root] = PLAN;
  if (root === undefined) throw new Error("no step");
  const text = renderExplanation(explain([root, root]), { verbose: true });
  expect(text.match(/The root travels as a descriptor/g)).toHaveLength(1);
});
