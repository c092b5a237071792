import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { constants, tmpdir } from "node:os";
import { join as joinPath, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build, makeRoot } from "../../rootfs-fixtures/build.mjs";
import { readExec, readRecording } from "../../src/container/recording.ts";
import type { Spec } from "../../src/spec/spec.ts";
import { template } from "../../src/spec/template.ts";
import { join, type TracedStep } from "../../src/trace/join.ts";
import type { Report } from "../../src/trace/report.ts";

/*
 * An independent witness: strace sees every system call of every process and thread from outside, through ptrace, and
 * prints numbers, arguments and results raw. Our own trace must say the same.
 */

const BUILDS = { executable: [resolve("dist/bin/caisson-runtime")], node: [process.execPath, "caisson-runtime"] };
const ID = "traced";
const IDS = 65536;

/** A system call as strace and as we saw it. */
interface Call {
  nr: number;
  args: bigint[];
  /** >= 0 or -errno; undefined where the process ended in it. */
  result: number | undefined;
}

let directory = "";

beforeAll(() => {
  build();
  directory = mkdtempSync(joinPath(tmpdir(), "caisson-trace-"));
  chmodSync(directory, 0o755); // root of a user namespace is somebody else here
  makeRoot("minimal", joinPath(directory, "rootfs"));
  mkdirSync(joinPath(directory, "data"));
  // the name it is called by makes it the runtime
  symlinkSync(resolve("dist/js/cli/main.js"), joinPath(directory, "caisson-runtime"));
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A spec with something of most kinds of steps in it. */
function specOf(user: boolean): Spec {
  const spec = template();
  const ids = [{ containerID: 0, hostID: 100_000, size: IDS }];
  return {
    ...spec,
    process: {
      ...spec.process,
      cwd: "/",
      terminal: false,
      args: ["/bin/true"],
      user: { uid: 1000, gid: 1000, additionalGids: [7, 8], umask: 0o27 },
      oomScoreAdj: 100,
    },
    mounts: [
      ...(spec.mounts ?? []),
      { destination: "/tmp", type: "bind", source: joinPath(directory, "data"), options: ["rbind", "ro"] },
    ],
    linux: {
      ...spec.linux,
      namespaces: [...(spec.linux?.namespaces ?? []), ...(user ? [{ type: "user" as const }] : [])],
      ...(user ? { uidMappings: ids, gidMappings: ids } : {}),
      sysctl: { "net.ipv4.ip_default_ttl": "63" },
      seccomp: { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["acct"], action: "SCMP_ACT_ERRNO" }] },
    },
  };
}

/** What is watched: the whole of run; create, and what its init does when start lets it go on; exec in what runs. */
const WAYS = ["run", "create and start", "exec"] as const;

interface Witnessed {
  /** Our trace. */
  traced: TracedStep[];
  /** What strace saw of each thread, by thread id. */
  seen: Map<number, string[]>;
}

/** Does something under strace. @returns its trace, and what strace saw */
async function witness(called: readonly string[], spec: Spec, way: (typeof WAYS)[number]): Promise<Witnessed> {
  const sleeping = { ...spec, process: { ...spec.process, cwd: "/", args: ["/bin/probe", "--sleep", "60"] } };
  writeFileSync(joinPath(directory, "config.json"), JSON.stringify(way === "exec" ? sleeping : spec));
  const root = joinPath(directory, "state");
  const witnessed = mkdtempSync(joinPath(directory, "strace-"));
  const runtime = [...called, "--root", root];
  const plainly = (...words: string[]) => {
    const [command = "", ...own] = runtime;
    const { status } = spawnSync(command, [...own, ...words], { cwd: directory, stdio: "ignore" });
    expect({ words, status }).toEqual({ words, status: 0 });
  };
  const watched = {
    run: ["run", "--keep", ID],
    "create and start": ["create", ID],
    exec: ["exec", ID, "/bin/true"],
  };
  try {
    if (way === "exec") plainly("run", "--detach", ID);
    const strace = "-ff -n -qqq -X raw -e raw=all -e signal=none".split(" ");
    const child = spawn("strace", [...strace, "-o", joinPath(witnessed, "thread"), ...runtime, ...watched[way]], {
      cwd: directory,
      stdio: ["ignore", "ignore", "inherit"],
    });
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    if (way === "create and start") {
      // it stays with init, which stays until it is started
      const created = () => readStatus(root) === "created" || child.exitCode !== null;
      while (!created()) await new Promise((resolve) => setTimeout(resolve, 10));
      plainly("start", ID);
    }
    expect(await ended).toBe(0);
    const path = joinPath(root, ID);
    const recording = way === "exec" ? readExec(path, 1) : readRecording(path);
    const threads = readdirSync(witnessed).map((name): [number, string[]] => [
      Number(name.split(".")[1]),
      readFileSync(joinPath(witnessed, name), "utf8").trimEnd().split("\n"),
    ]);
    return { traced: join(recording?.plan ?? [], recording?.reports ?? []), seen: new Map(threads) };
  } finally {
    execFileSync(runtime[0] ?? "", [...runtime.slice(1), "delete", "--force", ID], { cwd: directory });
  }
}

function readStatus(root: string): string {
  try {
    return JSON.parse(readFileSync(joinPath(root, ID, "state.json"), "utf8")).status;
  } catch {
    return ""; // not yet
  }
}

/** "[ 437] openat2(0x6, 0x406088, 0x7ffcc44d2c70, 0x18) = -1 ENOENT (No such file or directory)" */
function parse(line: string): Call[] {
  const [, nr, args, result = "", errno = ""] = /^\[ *(\d+)\] \w+\((.*)\) += (\S+)(?: (E\w+))?/.exec(line) ?? [];
  if (nr === undefined || args === undefined) throw new Error(`strace printed ${line}`);
  // a call that a signal interrupts and the kernel begins again returns to its caller once
  if (errno.startsWith("ERESTART")) return [];
  const errnos: { [name: string]: number } = constants.errno;
  const returned = result === "-1" ? -(errnos[errno] ?? Number.NaN) : Number(result);
  return [
    {
      nr: Number(nr),
      args: args === "" ? [] : args.split(", ").map(BigInt),
      result: result === "?" ? undefined : returned,
    },
  ];
}

function nameOf(line: string): string | undefined {
  return /^\[ *\d+\] (\w+)/.exec(line)?.[1];
}

/** A report in strace's terms, which prints as many arguments as the call has: there must be no more than those. */
function callOf(report: Report, like: Call | undefined): Call {
  const args = [...report.args];
  while (args.length > (like?.args.length ?? 0) && args.at(-1) === 0n) args.pop();
  return { nr: report.nr, args, result: report.result };
}

/** The first call with this name and result. @returns the thread that made it */
function threadThat(
  seen: ReadonlyMap<number, string[]>,
  name: string,
  result?: number,
): { thread: number; at: number } {
  for (const [thread, lines] of seen) {
    const at = lines.findIndex(
      (line) => nameOf(line) === name && (result === undefined || parse(line).some((call) => call.result === result)),
    );
    if (at >= 0) return { thread, at };
  }
  throw new Error(`no thread called ${name}`);
}

describe.each(Object.entries(BUILDS))("with the %s build", (_, command) => {
  describe.each(
    WAYS.flatMap((way) => [
      { way, place: "without a user namespace", user: false },
      { way, place: "in a user namespace", user: true },
    ]),
  )("$way $place", ({ way, user }) => {
    let traced: TracedStep[] = [];
    let seen = new Map<number, string[]>();
    const reports = (side: "host" | "init", from: number, to: number) =>
      traced
        .filter((step) => step.side === side && step.index >= from && step.index < to)
        .flatMap(({ calls }) => calls);

    beforeAll(async () => {
      ({ traced, seen } = await witness(command, specOf(user), way));
    });

    test("strace saw init's calls one to one: numbers, arguments, results", () => {
      const clone = traced.findIndex(({ step }) => step.name === "clone" || step.name === "cloneInto") + 1;
      const { thread: stage, at: start } = threadThat(seen, "execveat");
      const first = seen.get(stage)?.slice(start + 1) ?? [];
      // Reports begin with the first step. Before it init takes over what the host gave it: closes what is not its own
      // at execve, becomes untraceable, maps and verifies the plan, maps the trace, and closes both; see native/init/main.c.
      const before = ["close_range", "prctl", "lseek", "mmap", "mprotect", "lseek", "mmap", "close", "close"];
      expect(first.slice(0, before.length).map(nameOf)).toEqual(before);
      // The first stage is over with the clone step; what it does then is no step's: it ends.
      expect(nameOf(first.at(-1) ?? "")).toBe("exit_group");
      const firstSeen = first.slice(before.length, -1).flatMap(parse);
      const firstReports = reports("init", 0, clone);
      expect(firstReports.map((report, at) => callOf(report, firstSeen[at]))).toEqual(firstSeen);

      // The clone goes on with the next step, up to the execve that does not come back: it has no result of its own.
      const child = firstReports.find(({ nr }) => nr === 435)?.result ?? -1;
      const lines = seen.get(child) ?? [];
      const executed = lines.findIndex((line) => nameOf(line) === "execve");
      const second = lines.slice(0, executed + 1).flatMap(parse);
      expect(second.at(-1)?.result).toBe(0);
      const expected = second.map((call, at) => (at === second.length - 1 ? { ...call, result: undefined } : call));
      const secondReports = reports("init", clone, traced.length);
      expect(secondReports.map((report, at) => callOf(report, expected[at]))).toEqual(expected);
      expect(secondReports.length).toBeGreaterThan(way === "exec" ? 150 : 300);
    });

    test("strace saw the host steps' calls in the same order", () => {
      const { thread: stage } = threadThat(seen, "execveat");
      const { thread } = threadThat(seen, "vfork", stage);
      const calls = (seen.get(thread) ?? []).flatMap((line) => (nameOf(line) === undefined ? [] : parse(line)));
      const host = reports("host", 0, traced.length);
      let at = 0;
      for (const report of host) {
        const from = at;
        while (at < calls.length && !sameCall(callOf(report, calls[at]), calls[at])) at++;
        expect(at, `call ${report.nr} of step ${report.step} is not among strace's calls from ${from} on`).toBeLessThan(
          calls.length,
        );
        at++;
      }
      const silent = traced
        .filter(({ side, calls }) => side === "host" && calls.length === 0)
        .map(({ step }) => step.name);
      expect(silent).toEqual([]);
    });

    test("every step was carried out", () => {
      expect(traced.filter(({ outcome }) => outcome !== "done")).toEqual([]);
    });
  });
});

function sameCall(one: Call, other: Call | undefined): boolean {
  return (
    other !== undefined &&
    one.nr === other.nr &&
    one.result === other.result &&
    one.args.length === other.args.length &&
    one.args.every((arg, at) => arg === other.args[at])
  );
}
