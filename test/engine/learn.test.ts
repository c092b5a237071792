import { type ChildProcess, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { alive, states, until } from "../support/bundle.ts";
import { type EngineOutcome, engineCommand, type How, Machine } from "../support/engine.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

interface Result {
  lesson: string;
  held: boolean;
  lacks?: string;
  checks: { asks: string; seenIn: string; answer?: string; kernel?: string; held: boolean }[];
}

const WEAKENED = resolve(import.meta.dirname, "../support/weakened-lesson.mjs");
const NAMES = [
  "chroot",
  "pivot-root",
  "propagation",
  "overlay",
  "processes",
  "first-process",
  "users",
  "capabilities",
  "seccomp",
  "descriptors",
  "cgroups",
  "network",
  "root",
];

let machine: Machine;

beforeAll(async () => {
  machine = await Machine.make({ images: [] });
});
afterEach(expectNothingLeft);
afterAll(() => machine.close());

/** A lesson's containers, their cgroups and their state are gone, and nobody watches over them any more. */
function expectNothingLeft(): void {
  until("the keepers have ended", () => machine.processes().length === 0);
  expect(states(machine.root)).toEqual([]);
  expect(cgroupDirectories().filter((path) => path.includes("/learn-"))).toEqual([]);
}

function learn(words: readonly string[], how: How = {}): EngineOutcome {
  return machine.caisson(["learn", ...words], how);
}

function results({ stdout, stderr }: EngineOutcome): Result[] {
  expect(stderr).toBe("");
  const given: Result | Result[] = JSON.parse(stdout);
  return Array.isArray(given) ? given : [given];
}

/** A lesson as a conversation: `say` is given all that was printed since the last answer. @returns all of it, and the status */
async function converse(
  words: readonly string[],
  say: (heard: string, lesson: ChildProcess) => string | undefined,
): Promise<{ status: number | null; said: string }> {
  const lesson = machine.start(["learn", ...words], { stdio: ["pipe", "pipe", "inherit"] });
  let said = "";
  let since = "";
  lesson.stdout?.on("data", (data: Buffer) => {
    said += data.toString();
    since += data.toString();
    if (!/(^|\n)> $/.test(since)) return;
    const heard = since;
    since = "";
    const answer = say(heard, lesson);
    if (answer === undefined) lesson.stdin?.end();
    else lesson.stdin?.write(`${answer}\n`);
  });
  lesson.stdin?.on("error", () => undefined); // it has been killed
  const [status] = await once(lesson, "close");
  return { status, said };
}

describe("the list", () => {
  test("names every lesson, with its steps", () => {
    const { status, stdout } = learn([]);
    expect(status).toBe(0);
    for (const name of NAMES) expect(stdout).toMatch(new RegExp(`^\\d+ +${name} `, "m"));
  });

  test("as JSON says what to read, and what is stopped", () => {
    const lessons: { number: number; name: string; steps: string[]; read: string[]; attack: string }[] = JSON.parse(
      learn(["--json"]).stdout,
    );
    expect(lessons.map(({ name }) => name)).toEqual(NAMES);
    for (const [at, { number, steps, read, attack }] of lessons.entries()) {
      expect(number).toBe(at + 1);
      expect(steps.length).toBeGreaterThan(0);
      expect(read.every((page) => page !== "")).toBe(true);
      expect(attack).toMatch(/^[A-Z].*\.$/);
    }
  });

  test("a lesson that is not on it is refused", () => {
    const { status, stderr } = learn(["no-such"]);
    expect(status).toBe(125);
    expect(stderr).toMatch(/^error: there is no lesson no-such\n {2}hint {5}caisson learn shows the lessons\n$/);
  });
});

describe.each(NAMES)("the lesson %s", (name) => {
  test("holds: its own looks, and what its proposals show inside, are what the kernel says", () => {
    const outcome = learn([name, "--no-input", "--json"]);
    const [result] = results(outcome);
    expect(result?.checks.filter(({ held }) => !held)).toEqual([]);
    expect(result).toMatchObject({ lesson: name, held: true });
    expect(result?.checks.length).toBeGreaterThan(2);
    expect(outcome.status).toBe(0);
  });

  test("is passed with a file of right answers, and said in words", () => {
    const answers = join(machine.directory, "answers");
    writeFileSync(answers, "# comments and empty lines are no answers\n\n?\nplan\n".concat("=\n".repeat(20)));
    const { status, stdout, stderr } = learn([String(NAMES.indexOf(name) + 1), "--answers", answers]);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^Passed: (\d+) of \1\.$/m);
    expect(stdout).toMatch(/^What it stops: /m);
    expect(stdout).not.toMatch(/undefined|\[object/);
    // for a terminal of the usual width, but for what the plan and the kernel say
    for (const line of stdout.split("\n").filter((each) => !/^ {2,}|^\S*$/.test(each)))
      expect(line.length).toBeLessThan(110);
  });

  test("fails with wrong answers, and helps", () => {
    const wrong = learn([name], { input: "surely not this\n".repeat(20) });
    expect(wrong.status).toBe(1);
    expect(wrong.stdout).toMatch(/That is not what the kernel says|There is nothing to be seen/);
    expect(wrong.stdout).not.toMatch(/^Right/m);
    expect(wrong.stdout).toMatch(/^Not passed: /m);
  });

  test("fails without answers", () => {
    const outcome = learn([name, "--json"]);
    const [result] = results(outcome);
    expect(outcome.status).toBe(1);
    expect(result?.held).toBe(false);
  });
});

describe("right is what the kernel says at that moment", () => {
  test("a test that looks for itself through /proc passes", async () => {
    let pid = 0;
    const { status, said } = await converse(["users"], (heard) => {
      if (pid === 0 && !heard.includes("pid=")) return "$ echo pid=$PID";
      pid = Number(/pid=(\d+)/.exec(heard)?.[1] ?? pid);
      const [, first = "", other = ""] = /(\d+)\s+(\d+)/.exec(readFileSync(`/proc/${pid}/uid_map`, "utf8")) ?? [];
      const question = heard.includes("pid=") ? "itself?" : heard;
      if (question.includes("itself?")) return first;
      if (question.includes("host sees it?")) return other;
      if (question.includes("User 1000")) return String(Number(other) + 1000);
      return readFileSync("/proc/sys/kernel/overflowuid", "utf8").trim();
    });
    expect(said).toMatch(/^Passed: 5 of 5\.$/m);
    expect(status).toBe(0);
  });

  test("what was right is wrong once the learner has changed it", async () => {
    const changed = "! echo mine > /tmp/file; chown 7 /tmp/file";
    const before = "=! echo mine > /tmp/file; chown 1000 /tmp/file; echo 1000";
    const after = "=! echo mine > /tmp/file; chown 7 /tmp/file; echo 1000";
    for (const [answer, right] of [
      [before, true],
      [after, false],
    ] as const) {
      const [result] = results(
        learn(["capabilities", "--json"], { input: ["=", "=", changed, answer, "="].join("\n") }),
      );
      expect(result?.checks.find(({ asks }) => asks.startsWith("With CAP_CHOWN"))).toMatchObject({
        answer: "1000",
        kernel: right ? "1000" : "7",
        held: right,
      });
    }
  });

  test("what the learner has killed cannot be right", () => {
    const kill =
      "$ kill -9 $PID; while kill -0 $PID 2> /dev/null && ! grep -q '^State:.Z' /proc/$PID/status; do :; done";
    const [result] = results(learn(["processes", "--json"], { input: ["=", kill, "sleep", "1"].join("\n") }));
    expect(result?.held).toBe(false);
  });

  test("a lesson whose next container cannot be made ends, with the reason", () => {
    const input = "$ kill -9 $PID; sleep 0.2\n=\n";
    const { status, stdout, stderr } = learn(["propagation"], { input });
    expect(status).toBe(125);
    expect(stdout).toMatch(/There is nothing to be seen/);
    expect(stdout).toMatch(/^Not passed: 0 of 1\.$/m);
    expect(stderr).toMatch(/^error: cannot .*E[A-Z]+\n$/);
    const [result] = results({ ...learn(["propagation", "--json"], { input }), stderr: "" });
    expect(result).toMatchObject({ held: false, error: { message: expect.stringMatching(/EINVAL/) } });
  });

  test.each([
    ["chroot", "as they are", true],
    ["chroot", "with a jail that is their root", false],
    ["pivot-root", "by the whole plan", false],
    ["propagation", "with a private root", false],
    ["overlay", "without layers", false],
    ["processes", "with the host's /proc", false],
    ["processes", "in the host's pid namespace", false],
    ["first-process", "with a shell as process 1", false],
    ["users", "by the whole plan", false],
    ["capabilities", "with CAP_CHOWN", false],
    ["seccomp", "without a filter", false],
    ["descriptors", "without a leak", false],
    ["descriptors", "with another leak", false],
    ["cgroups", "without limits", false],
    ["network", "without rules of the firewall", false],
    ["root", "with nothing masked", false],
    ["root", "with a writable /proc/sys", false],
  ])("the lesson %s with its containers %s: held is %s", (name, weakness, held) => {
    const words = [process.execPath, WEAKENED, machine.data, machine.root, name, weakness];
    const { stdout, stderr, status } = spawnSync("nsenter", [`--net=${machine.network?.path}`, ...words], {
      encoding: "utf8",
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const result: Result = JSON.parse(stdout);
    expect(result.held).toBe(held);
    if (!held) expect(result.checks.some((check) => !check.held)).toBe(true);
  });
});

describe("without privileges", () => {
  const USER = [
    "setpriv",
    "--reuid=54321",
    "--regid=54322",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
  ];
  const asUser = (home: string) => {
    const [command = "", ...rest] = [...USER, ...engineCommand(), "learn", "--all", "--no-input", "--json"];
    return spawnSync(command, rest, {
      encoding: "utf8",
      env: { PATH: process.env.PATH, ...(home === "" ? {} : { XDG_RUNTIME_DIR: home }) },
    });
  };

  test("lessons that need no root of the host are given, the others say what they need", () => {
    const home = join(machine.directory, "home");
    mkdirSync(home);
    chownSync(home, 54_321, 54_322);
    const { status, stdout, stderr } = asUser(home);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const given: Result[] = JSON.parse(stdout);
    const taken = given.filter(({ lacks }) => lacks === undefined);
    expect(given.map(({ lesson }) => lesson)).toEqual(NAMES);
    expect(taken.map(({ lesson }) => lesson)).toEqual([
      "chroot",
      "pivot-root",
      "processes",
      "first-process",
      "users",
      "seccomp",
      "descriptors",
    ]);
    for (const { checks } of taken) expect(checks.filter(({ held }) => !held)).toEqual([]);
    for (const { lacks } of given) expect(lacks ?? "the host's root").toBe("the host's root");
    expect(states(join(home, "caisson"))).toEqual([]);
  });

  test("a user without a runtime directory is told so", () => {
    const { status, stderr } = asUser("");
    expect(status).toBe(125);
    expect(stderr).toMatch(/^error: cannot learn: XDG_RUNTIME_DIR is not set.*\n {2}hint {5}set it /);
  });
});

describe("at a terminal", () => {
  test("one may look around, be wrong, ask for help, and be right in the end", () => {
    const { status, output } = machine.atTerminal(
      ["learn", "users"],
      [
        ["expect", "itself?"],
        ["send", "4711\r"],
        ["expect", "That is not what the kernel says"],
        ["send", "shell\r"],
        ["expect", "lesson#"],
        ["send", "echo I am $(id -u) in $(hostname); exit\r"],
        ["expect", "I am 0 in lesson"],
        ["expect", "> "],
        ["send", "0\r"],
        ["expect", "host sees it?"],
        ["send", "?\r"],
        ["expect", "Look from the host"],
        ["send", "=\r"],
        ["expect", "User 1000"],
        ["send", "=\r"],
        ["expect", "seem to"],
        ["send", "=\r"],
      ],
    );
    expect(output).toMatch(/Passed: 5 of 5/);
    expect(status).toBe(0);
  });

  test("one may leave", () => {
    const { status, output } = machine.atTerminal(
      ["learn", "users"],
      [
        ["expect", "itself?"],
        ["send", "quit\r"],
      ],
    );
    expect(output).toMatch(/Not passed/);
    expect(status).toBe(1);
  });
});

describe("nothing is left", () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"] as const)("when a lesson is ended by %s", async (signal) => {
    let pid = 0;
    const { status } = await converse(["processes"], (heard, lesson) => {
      if (pid === 0 && !heard.includes("pid=")) return "$ echo pid=$PID";
      pid = Number(/pid=(\d+)/.exec(heard)?.[1]);
      lesson.kill(signal);
      return "?";
    });
    expect(status).toBe(null);
    expect(pid).toBeGreaterThan(1);
    until("the container is dead", () => !alive(pid));
  });

  test("when its keeper is killed with it: the next lesson sweeps", async () => {
    let pid = 0;
    await converse(["processes"], (heard, lesson) => {
      if (pid === 0 && !heard.includes("pid=")) return "$ echo pid=$PID";
      pid = Number(/pid=(\d+)/.exec(heard)?.[1]);
      for (const keeper of keepers()) process.kill(keeper, "SIGKILL");
      lesson.kill("SIGKILL");
      return "?";
    });
    expect(existsSync(`/proc/${pid}/ns/pid`)).toBe(true);
    expect(statSync(join(machine.root, ".learn")).isDirectory()).toBe(true);
    expect(learn(["users", "--no-input"]).status).toBe(0);
    expect(alive(pid)).toBe(false);
  });
});

function keepers(): number[] {
  return machine
    .processes()
    .filter((line) => line.includes("--tidy"))
    .map((line) => Number.parseInt(line, 10));
}
