import { closeSync, openSync, readFileSync } from "node:fs";
import { cpus } from "node:os";
import { resolve } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  exec,
  type Invocation,
  idle,
  makeBundle,
  outputOf,
  run,
  runtime,
  seenIn,
  until,
} from "../support/bundle.ts";
import type { Seen } from "../support/seen.ts";

// What a container inherits from whoever starts it, compared with what it does under the peer that engines know.

afterEach(cleanUp);
afterAll(cleanUpFile);

const PRCTL = 157;
/** What only a call or a file tells: prctl(2)'s timer slack, securebits and huge pages, and what a core has in it. */
const ASKED = [
  ...["30", "27", "42"].flatMap((option) => ["--syscall", String(PRCTL), option]),
  ...["--read", "/proc/self/coredump_filter"],
];
const THROUGH = ["python3", resolve(import.meta.dirname, "../support/odd_caller.py")];

/** What is inherited, or must not be. */
function inherited(seen: Seen, { id }: Bundle) {
  const [timerSlackNs, securebits, hugePagesOff, coredumpFilter] = seen.actions.map(({ result }) => result);
  return {
    environment: seen.env.toSorted(),
    umask: seen.umask,
    signals: seen.signals,
    descriptors: seen.descriptors.map(({ fd, cloexec }) => `${fd}${cloexec ? " closed by execve" : ""}`),
    rlimits: seen.rlimits,
    keyring: seen.keyring?.description.replace(/[0-9a-f]{8}/, "").replace(id, "ID"),
    cgroup: seen.cgroup.filter((line) => !line.startsWith("0::")).map((line) => line.replace(id, "ID")),
    session: [seen.sid === seen.pid, seen.pgid === seen.pid, seen.ppid],
    scheduler: { policy: seen.scheduler.policy, nice: seen.scheduler.nice },
    ioPriority: seen.ioPriority,
    affinity: seen.affinity,
    oomScoreAdj: seen.oomScoreAdj,
    personality: seen.personality,
    parentDeathSignal: seen.parentDeathSignal,
    dumpable: seen.dumpable,
    noNewPrivs: seen.noNewPrivs,
    groups: seen.groups,
    ...{ timerSlackNs, securebits, hugePagesOff, coredumpFilter },
  };
}

const bundleFor = () =>
  makeBundle((spec) => {
    spec.ociVersion = "1.0.2";
    delete spec.process.rlimits;
    spec.process.args = ["/bin/probe", ...ASKED];
  });

/** Where we differ on purpose. */
const DIFFERENCES = {
  // since Linux 6.2 a process has the caller's processors even in a cgroup with others: runc 1.2.7 and crun 1.10 reset them
  affinity: Array.from({ length: cpus().length }, (_, processor) => processor),
  // Go leaves some signals as they came blocked; a program may expect to start as the kernel starts one
  signals: { blocked: "0000000000000000", ignored: "0000000000000000", caught: "0000000000000000" },
};

const THEIRS = { through: THROUGH, program: "runc" };

test("by run a container inherits what it does from runc", () => {
  const bundle = bundleFor();
  const ours = inherited(seenIn(run(bundle, { through: THROUGH })), bundle);
  const theirs = inherited(seenIn(run(bundle, THEIRS)), bundle);
  expect(ours).toEqual({ ...theirs, ...DIFFERENCES });
  expect(theirs.signals).not.toEqual(DIFFERENCES.signals);
});

test("by create and start a container inherits what it does from runc", () => {
  const seen = [{ through: THROUGH }, THEIRS].map((how: Invocation) => {
    const bundle = bundleFor();
    // the output of a container that is left behind goes to a file
    const output = openSync(outputOf(bundle), "w+");
    const left = { ...how, through: ["sh", "-c", 'exec "$@" >&3 2>/dev/null 3>&-', "sh", ...(how.through ?? [])] };
    try {
      const words = ["create", "--bundle", bundle.path, bundle.id];
      expect(runtime(words, { ...left, descriptors: [output] })).toMatchObject({ status: 0 });
    } finally {
      closeSync(output);
    }
    expect(runtime(["start", bundle.id], how)).toMatchObject({ status: 0 });
    until("it has reported", () => readFileSync(outputOf(bundle), "utf8").endsWith("\n"));
    const report: Seen = JSON.parse(readFileSync(outputOf(bundle), "utf8"));
    if (how.program !== undefined) runtime(["delete", "--force", bundle.id], { program: how.program });
    return inherited(report, bundle);
  });
  expect(seen[0]).toEqual({ ...seen[1], ...DIFFERENCES });
});

test("by exec a further process inherits what it does from runc", () => {
  covers("keyring");
  const ours = idle((spec) => {
    spec.ociVersion = "1.0.2";
    delete spec.process.rlimits;
  });
  const by = (how: Invocation) => inherited(seenIn(exec(ours, ["/bin/probe", ...ASKED], how)), ours);
  const mine = by({ through: THROUGH });
  const detached = { through: ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh"], program: "runc" };
  expect(runtime(["run", "--detach", "--bundle", ours.path, ours.id], detached).status).toBe(0);
  try {
    // the umask of the container's first process, whoever calls
    expect(mine).toEqual({ ...by(THEIRS), ...DIFFERENCES, umask: "0022" });
  } finally {
    runtime(["delete", "--force", ours.id], { program: "runc" });
  }
});

test("no descriptor of the runtime's own is preserved in the place of one that the caller has not opened", () => {
  for (const count of [1, 2, 5, 8, 12, 20, 40, 100]) {
    for (const ended of [
      run(makeBundle(), {}, "--preserve-fds", String(count)),
      exec(idle(), ["/bin/probe"], { flags: ["--preserve-fds", String(count)] }),
    ])
      expect({ count, stdout: ended.stdout, failed: ended.status !== 0 }).toEqual({ count, stdout: "", failed: true });
  }
});
