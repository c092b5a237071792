import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  idle,
  kill,
  makeBundle,
  runtime,
  startContainer,
  startRuntime,
  state,
  until,
  untilStopped,
} from "../support/bundle.ts";
import { directoryOf, read } from "../support/cgroup.ts";

// What a running container may use, is told to use, and uses: update, ps, events.

afterEach(cleanUp);
afterAll(cleanUpFile);

const version1 = existsSync("/sys/fs/cgroup/memory/memory.limit_in_bytes");

/** The files that an update is to reach, as the kernel has them. */
function limitsOf(bundle: Bundle): { [file: string]: string } {
  const { pid } = state(bundle);
  const files: [string, string][] = [
    ["cpu", "cpu.shares"],
    ["cpu", "cpu.cfs_quota_us"],
    ["cpu", "cpu.cfs_period_us"],
    ["cpuset", "cpuset.cpus"],
    ["memory", "memory.limit_in_bytes"],
    ["memory", "memory.soft_limit_in_bytes"],
    ["pids", "pids.max"],
  ];
  return Object.fromEntries(files.map(([controller, file]) => [file, read(directoryOf(pid, controller), file)]));
}

describe("update", () => {
  test("changes what a flag names, and nothing else", ({ skip }) => {
    covers("update flags");
    skip(!version1, "reads the files of cgroup version 1");
    const bundle = idle((spec) => {
      spec.linux.resources = { cpu: { shares: 700 }, memory: { limit: 128 << 20 } };
    });
    const before = limitsOf(bundle);
    expect(runtime(["update", "--memory", "64m", "--memory-reservation=32MiB", bundle.id])).toEqual({
      status: 0,
      stdout: "",
      stderr: "",
    });
    expect(limitsOf(bundle)).toEqual({
      ...before,
      "memory.limit_in_bytes": String(64 << 20),
      "memory.soft_limit_in_bytes": String(32 << 20),
    });
    expect(
      runtime([
        ...["update", "--cpu-period", "50000", "--cpu-quota", "20000", "--cpu-share", "300"],
        ...["--pids-limit", "33", "--cpuset-cpus", "0", bundle.id],
      ]).status,
    ).toBe(0);
    expect(limitsOf(bundle)).toMatchObject({
      "cpu.cfs_period_us": "50000",
      "cpu.cfs_quota_us": "20000",
      "cpu.shares": "300",
      "pids.max": "33",
      "cpuset.cpus": "0",
    });
    expect(runtime(["update", "--pids-limit", "-1", "--memory", "-1", bundle.id]).status).toBe(0);
    expect(limitsOf(bundle)["pids.max"]).toBe("max");
    expect(Number(limitsOf(bundle)["memory.limit_in_bytes"])).toBeGreaterThan(2 ** 50);
  });

  test("reads a file, or the standard input, in the form of linux.resources", ({ skip }) => {
    covers("update --resources");
    skip(!version1, "reads the files of cgroup version 1");
    const bundle = idle();
    const path = join(bundle.path, "resources.json");
    const resources = { memory: { limit: 48 << 20, swap: 0 }, cpu: { shares: 999, cpus: "" }, pids: { limit: 21 } };
    writeFileSync(path, JSON.stringify(resources));
    expect(runtime(["update", "--resources", path, bundle.id])).toMatchObject({ status: 0, stderr: "" });
    expect(limitsOf(bundle)).toMatchObject({
      "memory.limit_in_bytes": String(48 << 20),
      "cpu.shares": "999",
      "pids.max": "21",
    });
    const input = JSON.stringify({ memory: { limit: 40 << 20 }, pids: { limit: 0 } });
    expect(runtime(["update", "-r", "-", bundle.id], { input })).toMatchObject({ status: 0, stderr: "" });
    expect(limitsOf(bundle)).toMatchObject({ "memory.limit_in_bytes": String(40 << 20), "pids.max": "21" });
    expect(runtime(["update", "-r", "-", bundle.id], { input: '{"memory": {"limit": "much"}}' })).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("/memory/limit"),
    });
  });

  test("changes all or nothing", ({ skip }) => {
    skip(!version1, "reads the files of cgroup version 1");
    const bundle = idle();
    const before = limitsOf(bundle);
    // the processors are changed first; the kernel wants a period of at least 1 ms
    const { status, stderr } = runtime(["update", "--cpuset-cpus", "0", "--cpu-period", "10", bundle.id]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/cpu\.cfs_period_us.*EINVAL.*\/linux\/resources\/cpu\/period/);
    expect(limitsOf(bundle)).toEqual(before);
  });

  test("says what it cannot read, and of what it does not have", () => {
    covers("update rdt");
    const bundle = idle();
    for (const [flag, value, says] of [
      ["--memory", "lots", "invalid value for memory"],
      ["--cpu-quota", "x", "invalid value for cpu-quota"],
      ["--cpu-share", "-3", "invalid value for cpu-share"],
      ["--l3-cache-schema", "L3:0=f", "l3 cache schema is not enabled"],
      ["--mem-bw-schema", "MB:0=20", "memory bandwidth schema is not enabled"],
    ])
      expect(runtime(["update", `${flag}=${value}`, bundle.id])).toMatchObject({
        status: 1,
        stderr: expect.stringContaining(says ?? ""),
      });
    kill(bundle, "KILL");
    untilStopped(bundle);
    expect(runtime(["update", "--memory", "64m", bundle.id])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("container not running"),
    });
  });
});

describe("ps", () => {
  test("shows the container's processes alone, as ps(1) is asked to", () => {
    covers("ps flags");
    const bundle = makeBundle(
      (spec) => {
        spec.process.args = ["/bin/sh", "-c", "sleep 50 & sleep 60 & wait"];
      },
      { root: "shell" },
    );
    startContainer(bundle);
    const pids = (): number[] => JSON.parse(runtime(["ps", "--format", "json", bundle.id]).stdout);
    until("both sleep", () => pids().length === 3);
    expect(pids()).toContain(state(bundle).pid);
    const [head = "", ...lines] = runtime(["ps", bundle.id]).stdout.trimEnd().split("\n");
    expect(head).toMatch(/^UID +PID +PPID/);
    expect(lines.map((line) => Number(line.split(/\s+/)[1])).sort()).toEqual(pids().sort());
    expect(lines.filter((line) => line.includes("sleep"))).toHaveLength(3);
    const chosen = runtime(["ps", bundle.id, "-o", "pid,args", "-e"]).stdout.trimEnd().split("\n");
    expect(chosen[0]?.trim().split(/\s+/)).toEqual(["PID", "COMMAND"]);
    expect(chosen).toHaveLength(4);
    expect(runtime(["ps", "--format", "xml", bundle.id])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("invalid format option"),
    });
    expect(runtime(["ps", bundle.id, "-e", "-o", "args"])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("couldn't find PID field in ps output"),
    });
    expect(runtime(["ps", bundle.id, "--no-such-option"])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("exit status 1: "),
    });
  });
});

/** Whether a process's main thread waits in poll(2): proc_pid_syscall(5). */
function sleepsInPoll(pid: number): boolean {
  const POLL = ["7", "73"]; // x86-64; ppoll of arm64
  return POLL.includes(readFileSync(`/proc/${pid}/syscall`, "utf8").split(" ")[0] ?? "");
}

interface Event {
  type: string;
  id: string;
  data?: { cpu: { usage: { total: number } }; memory: { usage: { limit: number } }; pids: { current: number } };
}

describe("events", () => {
  const eventsIn = (path: string): Event[] =>
    readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line));

  test("--stats says once what the kernel has counted", ({ skip }) => {
    covers("events --stats");
    skip(!version1, "reads the files of cgroup version 1");
    const bundle = idle((spec) => {
      spec.linux.resources = { memory: { limit: 64 << 20 } };
    });
    const { status, stdout, stderr } = runtime(["events", "--stats", bundle.id]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const event: Event = JSON.parse(stdout);
    expect(event).toMatchObject({
      type: "stats",
      id: bundle.id,
      data: { memory: { usage: { limit: 64 << 20 } }, pids: { current: 1 } },
    });
    const counted = Number(read(directoryOf(state(bundle).pid, "cpuacct"), "cpuacct.usage"));
    expect(event.data?.cpu.usage.total).toBeGreaterThan(0);
    expect(event.data?.cpu.usage.total).toBeLessThanOrEqual(counted);
    // without a limit the kernel says 2^63 − 4096, which a JavaScript number would round
    expect(runtime(["update", "--memory", "-1", bundle.id]).status).toBe(0);
    expect(runtime(["events", "--stats", bundle.id]).stdout).toContain('"usage":{"limit":9223372036854771712,');
  });

  test("tell how long processes had to wait, as the kernel counts it", ({ skip }) => {
    covers("events pressure");
    const bundle = idle();
    const { pid } = state(bundle);
    const unified = readFileSync(`/proc/${pid}/cgroup`, "utf8").match(/^0::(\/.+)$/m)?.[1];
    const file = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
      .map((mount) => `${mount}${unified}/cpu.pressure`)
      .find((path) => existsSync(path));
    if (file === undefined) return skip("needs a cgroup of version 2, and a kernel with PSI");
    const totalUs = () => Number(/^some .*total=(\d+)$/m.exec(readFileSync(file, "utf8"))?.[1]);
    const before = totalUs();
    const { data } = JSON.parse(runtime(["events", "--stats", bundle.id]).stdout);
    expect(data.cpu.psi.some.total).toBeGreaterThanOrEqual(before);
    expect(data.cpu.psi.some.total).toBeLessThanOrEqual(totalUs());
    expect(Object.keys(data.cpu.psi.full)).toEqual(expect.arrayContaining(["avg10", "avg60", "avg300", "total"]));
    expect(data).toMatchObject({ memory: { psi: {} }, blkio: { psi: {} } });
  });

  test("come at an interval until the container ends", () => {
    covers("events --interval");
    const bundle = idle();
    const path = join(bundle.path, "events");
    const watching = startRuntime(["events", "--interval", "50ms", bundle.id], { output: path });
    until("three have come", () => existsSync(path) && eventsIn(path).length >= 3);
    expect(eventsIn(path).every(({ type, id }) => type === "stats" && id === bundle.id)).toBe(true);
    expect(kill(bundle, "KILL").status).toBe(0);
    until("they have ended", () => !alive(watching.pid ?? 0));
    expect(runtime(["events", bundle.id])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(`container with id ${bundle.id} is not running`),
    });
  });

  test("tell that the container has run out of memory", ({ skip }) => {
    covers("events --interval");
    skip(!version1, "limits swap by cgroup version 1");
    const bundle = makeBundle(
      (spec) => {
        spec.linux.resources = { memory: { limit: 16 << 20, swap: 16 << 20 } };
        // dd's buffer is its own memory; the shell stays to tell of it
        spec.process.args = [
          "/bin/sh",
          "-c",
          "while ! [ -e /go ]; do sleep 0.05; done; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 60",
        ];
        spec.root.readonly = false;
      },
      { root: "shell" },
    );
    startContainer(bundle);
    const path = join(bundle.path, "events");
    const watching = startRuntime(["events", "--interval", "1h", bundle.id], { output: path });
    until("somebody listens", () => sleepsInPoll(watching.pid ?? 0));
    writeFileSync(join(bundle.rootfs, "go"), "");
    until("it is told", () => eventsIn(path).some(({ type }) => type === "oom"));
    const control = `${directoryOf(state(bundle).pid, "memory")}/memory.oom_control`;
    until("the kernel has counted it", () => readFileSync(control, "utf8").includes("oom_kill 1"));
    until("all is told", () => sleepsInPoll(watching.pid ?? 0));
    // the kernel signals each time that memory is wanted, so more than once if dying takes its time
    const told = eventsIn(path);
    expect([...new Set(told.map((event) => JSON.stringify(event)))]).toEqual([
      JSON.stringify({ type: "oom", id: bundle.id }),
    ]);
    kill(bundle, "KILL");
    until("they have ended", () => !alive(watching.pid ?? 0));
    // the kernel signals once more when the cgroup goes; that is nobody's lack of memory
    expect(eventsIn(path)).toEqual(told);
  });

  test("end when nobody reads them", () => {
    const bundle = idle();
    const { status } = runtime([], {
      through: ["/bin/sh", "-c", '"$@" events --interval 20ms "$ID" | head -n 1 > /dev/null; exit 0', "sh"],
      env: { ...process.env, ID: bundle.id },
    });
    expect(status).toBe(0);
  });

  test("want an interval that is one", () => {
    const bundle = idle();
    for (const interval of ["0s", "-1s"])
      expect(runtime(["events", "--interval", interval, bundle.id])).toMatchObject({
        status: 1,
        stderr: expect.stringContaining("duration interval must be greater than 0"),
      });
    expect(runtime(["events", "--interval", "soon", bundle.id]).status).toBe(1);
  });
});
