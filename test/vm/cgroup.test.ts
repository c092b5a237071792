import { mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { readRecording } from "../../src/container/recording.ts";
import { join as joinTrace } from "../../src/trace/join.ts";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  cleanUp,
  cleanUpFile,
  exec,
  idle,
  makeBundle,
  remove,
  results,
  run,
  runtime,
  scratchDirectory,
  seenIn,
  startContainer,
  startRuntime,
  state,
  stateRoot,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";
import { CGROUPS, directoryOf, divides, EFFECTS, effectOf, expectDivided, field, noSwap, read } from "./effects.ts";

// OCI runtime-spec, config-linux.md "Control groups", on pure version 2: what a limit does, under us and under our peers,
// and the life of a cgroup.

const CLONE3 = 435;

afterEach(cleanUp);
afterAll(cleanUpFile);

/** Peers are compared on one kernel: what the older one lacks is told by ourselves. */
const RUNTIMES = release().startsWith("6.1.") ? ["caisson"] : ["caisson", "runc", "crun"];

describe.each(RUNTIMES)("under %s", (name) => {
  test.each(Object.entries(EFFECTS))("on pure version 2, %s", (_, row) => {
    covers(
      "linux.resources v2",
      "linux.resources.unified",
      "linux.resources.devices v2",
      "linux.resources.blockIO.throttle",
    );
    expect(effectOf(row, name)).toEqual(row.expected);
  });
});

describe("a container's cgroup", () => {
  test("is where its first process is born: no step moves it there", () => {
    covers("CLONE_INTO_CGROUP");
    const log = join(scratchDirectory(), "strace");
    const witness = ["strace", "-f", "-qq", "-e", "trace=clone3,write", "-o", log];
    expect(run(makeBundle(), { through: witness }).status).toBe(0);
    const calls = readFileSync(log, "utf8");
    expect(calls).toMatch(/clone3\(\{flags=[^}]*CLONE_INTO_CGROUP[^}]*cgroup=\d+/);
    // the trace says the same: one call made the process there, and nothing was written to move it
    const bundle = idle();
    const { plan = [], reports = [] } = readRecording(join(stateRoot(), bundle.id)) ?? {};
    const traced = joinTrace(plan, reports);
    const [birth] = traced.filter(({ step }) => step.name === "cloneInto");
    expect(birth).toMatchObject({ outcome: "done", step: { args: { cgroup: `${CGROUPS}/${bundle.id}` } } });
    expect(birth?.calls.some(({ nr, result }) => nr === CLONE3 && Number(result) > 0)).toBe(true);
    expect(traced.filter(({ step }) => step.name === "enterCgroup")).toEqual([]);
    expect(directoryOf(state(bundle).pid)).toBe(`${CGROUPS}/${bundle.id}`);
  });

  test("says that memory ran out, and so do events", () => {
    // a child is killed, and its parent goes on
    const bundle = idle((spec) => {
      spec.linux.resources = { memory: noSwap };
    });
    expect(exec(bundle, ["/bin/probe", "--allocate", "200"]).status).toBe(137);
    expect(field(read(state(bundle).pid, "memory.events"), "oom_kill")).toBe(1);
    const { stdout } = runtime(["events", "--stats", bundle.id]);
    const { usage, psi } = JSON.parse(stdout).data.memory;
    expect(usage.failcnt).toBeGreaterThan(0);
    // what it had was tried to be taken back first, and it waited for that
    expect(psi.some.total).toBeGreaterThan(0);
  });

  test("tells who listens that memory has run out", () => {
    const bundle = idle((spec) => {
      spec.linux.resources = { memory: noSwap };
    });
    const output = join(scratchDirectory(), "events");
    const listener = startRuntime(["events", "--interval", "100ms", bundle.id], { output });
    const told = () =>
      readFileSync(output, "utf8")
        .trim()
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line));
    try {
      // it has begun to watch once it has told of something
      until("it listens", () => told().length > 0);
      expect(told().filter(({ type }) => type === "oom")).toEqual([]);
      expect(exec(bundle, ["/bin/probe", "--allocate", "200"]).status).toBe(137);
      until("it is told", () => told().some(({ type, id }) => type === "oom" && id === bundle.id));
      expect(remove(bundle, "--force").status).toBe(0);
      until("the listener has ended with the container", () => listener.exitCode !== null || !alive(listener.pid ?? 0));
    } finally {
      listener.kill("SIGKILL");
      rmSync(output, { force: true });
    }
  });

  test("changes while the container runs", () => {
    const bundle = idle();
    const { pid } = state(bundle);
    const flags = ["--pids-limit", "10", "--cpu-quota", "30000", "--cpu-period", "100000", "--cpuset-cpus", "1"];
    const update = runtime(["update", ...flags, "--memory", String(64 << 20), bundle.id]);
    expect(update).toMatchObject({ status: 0, stderr: "" });
    expect(read(pid, "cpu.max")).toBe("30000 100000");
    expect(read(pid, "memory.max")).toBe(String(64 << 20));
    const seen = seenIn(exec(bundle, ["/bin/probe", "--fork", "100"]));
    expect(seen.affinity).toEqual([1]);
    expect(results(seen.actions)).toEqual([{ forks: 8, stoppedBy: "EAGAIN" }]);
  });

  test("has what few ask for, in the kernel's own files", () => {
    covers("linux.resources.memory.reservation", "linux.resources.cpu.burst", "linux.resources.cpu.idle");
    const bundle = idle((spec) => {
      spec.linux.resources = {
        memory: { limit: 64 << 20, reservation: 16 << 20 },
        cpu: { quota: 50_000, period: 100_000, burst: 20_000 },
        unified: { "memory.high": String(48 << 20) },
      };
    });
    const { pid } = state(bundle);
    expect(read(pid, "memory.low")).toBe(String(16 << 20));
    expect(read(pid, "memory.high")).toBe(String(48 << 20));
    expect(read(pid, "cpu.max")).toBe("50000 100000");
    expect(read(pid, "cpu.max.burst")).toBe("20000");
    const background = idle((spec) => {
      spec.linux.resources = { cpu: { idle: 1 } };
    });
    expect(read(state(background).pid, "cpu.idle")).toBe("1");
  });

  test("is killed as a whole where it asks for that", () => {
    covers("memory.oom.group");
    const bundle = idle((spec) => {
      spec.linux.resources = { memory: noSwap, unified: { "memory.oom.group": "1" } };
    });
    const { pid } = state(bundle);
    expect(exec(bundle, ["/bin/probe", "--allocate", "200"]).status).toBe(137);
    until("its first process has ended, too", () => !alive(pid));
  });

  test("is given no limit below what it uses, if asked to look", () => {
    covers("linux.resources.memory.checkBeforeUpdate");
    const bundle = idle();
    const { pid } = state(bundle);
    const update = (memory: object) =>
      runtime(["update", "--resources", "-", bundle.id], { input: JSON.stringify({ memory }) });
    const refused = update({ limit: 4096, checkBeforeUpdate: true });
    expect({ refused: refused.status !== 0, limit: read(pid, "memory.max") }).toEqual({ refused: true, limit: "max" });
    expect(update({ limit: 256 << 20, checkBeforeUpdate: true })).toMatchObject({ status: 0, stderr: "" });
    expect(read(pid, "memory.max")).toBe(String(256 << 20));
    expect(alive(pid)).toBe(true);
  });

  test("is frozen and thawed, and what is frozen can be ended", () => {
    covers("cgroup.kill");
    const bundle = idle((spec) => {
      spec.process.args = ["/bin/probe", "--spin", "600000"];
    });
    const { pid } = state(bundle);
    const used = () => field(read(pid, "cpu.stat"), "usage_usec");
    expect(runtime(["pause", bundle.id])).toMatchObject({ status: 0, stderr: "" });
    expect(state(bundle).status).toBe("paused");
    expect(read(pid, "cgroup.events")).toContain("frozen 1");
    const frozen = used();
    expect(state(bundle).status).toBe("paused");
    expect(used()).toBe(frozen);
    expect(runtime(["resume", bundle.id])).toMatchObject({ status: 0, stderr: "" });
    until("it uses time again", () => used() > frozen);
    expect(runtime(["pause", bundle.id]).status).toBe(0);
    const log = join(scratchDirectory(), "strace");
    const through = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", log];
    expect(runtime(["delete", "--force", bundle.id], { through })).toMatchObject({ status: 0, stderr: "" });
    expect(alive(pid)).toBe(false);
    expect(readFileSync(log, "utf8")).toContain(`${CGROUPS}/${bundle.id}/cgroup.kill`);
  });

  test("can be divided by the container it was delegated to, and goes with all that was made in it", () => {
    const bundle = makeBundle(divides, { root: "shell" });
    startContainer(bundle);
    expectDivided(bundle, `${CGROUPS}/${bundle.id}`);
    expect(remove(bundle, "--force")).toMatchObject({ status: 0, stderr: "" });
    expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
  });

  test("may be deep in another's, whose limits hold for it too", () => {
    const parent = `/caisson-test-${process.pid}`;
    mkdirSync(join(CGROUPS, parent));
    try {
      writeFileSync(join(CGROUPS, parent, "pids.max"), "10");
      const bundle = makeBundle((spec) => {
        spec.linux.cgroupsPath = `${parent}/middle/leaf`;
        spec.linux.resources = { pids: { limit: 40 } };
        spec.process.args = ["/bin/probe", "--fork", "100"];
      });
      expect(results(seenIn(run(bundle)).actions)).toEqual([{ forks: 9, stoppedBy: "EAGAIN" }]);
      expect(cgroupDirectories().filter((path) => path.endsWith("/leaf"))).toEqual([]);
    } finally {
      for (const path of cgroupDirectories()
        .filter((each) => each.includes(parent))
        .reverse())
        rmdirSync(path);
    }
  });
});
