import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  type Edit,
  exec,
  makeBundle,
  remove,
  results,
  rewrite,
  run,
  runtime,
  seenIn,
  start,
  state,
  until,
  untilStopped,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";
import { CGROUPS, divides, EFFECTS, effectOf, expectDivided, loopControl, noSwap, read } from "./effects.ts";

// --systemd-cgroup with a systemd that runs: systemd.scope(5), systemd.resource-control(5).

const SLICE = "caissontest-deep.slice";
const BENEATH = "/caissontest.slice/caissontest-deep.slice";
const DRIVER = { globalFlags: ["--systemd-cgroup"] };

afterEach(cleanUp);
afterAll(() => {
  cleanUpFile();
  // slices stay until they are stopped, with no unit in them
  systemctl("stop", "caissontest.slice");
});

function systemctl(...words: string[]): string {
  return execFileSync("systemctl", words, { encoding: "utf8" });
}

/** Properties of a unit as systemd shows them. */
function shown(unit: string, ...properties: string[]): { [property: string]: string } {
  const lines = systemctl("show", `--property=${properties.join(",")}`, "--", unit)
    .trim()
    .split("\n");
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

/** A container that is to be in a scope of its own. */
function inScope(edit: Edit = () => undefined, root: "minimal" | "shell" = "minimal"): Bundle & { unit: string } {
  const bundle = makeBundle(undefined, { root });
  rewrite(bundle, (spec) => {
    spec.linux.cgroupsPath = `${SLICE}:probe:${bundle.id}`;
    spec.process.args = ["/bin/probe", "--sleep", "600"];
    edit(spec);
  });
  return { ...bundle, unit: `probe-${bundle.id}.scope` };
}

/** The same, running. */
function idleInScope(edit?: Edit): Bundle & { unit: string; pid: number } {
  const bundle = inScope(edit);
  expect(create(bundle, DRIVER)).toMatchObject({ status: 0, stderr: "" });
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
  return { ...bundle, pid: state(bundle).pid };
}

const cgroupOf = (pid: number) => readFileSync(`/proc/${pid}/cgroup`, "utf8").trim();
/** Whether systemd knows nothing of it, and the kernel has no such cgroup. */
const isGone = (unit: string) =>
  shown(unit, "LoadState").LoadState === "not-found" && !cgroupDirectories().some((path) => path.endsWith(`/${unit}`));

describe("what a limit does where systemd has made the cgroup", () => {
  test.each(Object.entries(EFFECTS))("%s", (_, row) => {
    expect(effectOf(row, "caisson", DRIVER.globalFlags)).toEqual(row.expected);
  });
});

test("a container is in the scope and the slice that were asked for, and the scope goes with it", () => {
  covers("--systemd-cgroup", "linux.cgroupsPath systemd");
  const bundle = idleInScope((spec) => {
    spec.linux.resources = {
      pids: { limit: 33 },
      memory: { limit: 1 << 26, reservation: 1 << 25, swap: 3 << 25 },
      cpu: { quota: 30_000, period: 100_000, cpus: "1", mems: "0" },
    };
  });
  expect(cgroupOf(bundle.pid)).toBe(`0::${BENEATH}/${bundle.unit}`);
  expect(
    shown(
      bundle.unit,
      ...["ActiveState", "Slice", "Delegate", "TasksMax", "MemoryMax", "MemoryLow", "MemorySwapMax", "AllowedCPUs"],
      ...["CPUQuotaPerSecUSec", "ControlGroup", "Transient"],
    ),
  ).toEqual({
    ActiveState: "active",
    Slice: SLICE,
    Delegate: "yes",
    TasksMax: "33",
    MemoryMax: String(1 << 26),
    MemoryLow: String(1 << 25),
    MemorySwapMax: String(1 << 25),
    AllowedCPUs: "1",
    CPUQuotaPerSecUSec: "300ms",
    ControlGroup: `${BENEATH}/${bundle.unit}`,
    Transient: "yes",
  });
  expect(remove(bundle, "--force")).toMatchObject({ status: 0, stderr: "" });
  expect(alive(bundle.pid)).toBe(false);
  expect(isGone(bundle.unit)).toBe(true);
});

test.each([
  ["caissontest-a-b.slice:own:ID", "/caissontest.slice/caissontest-a.slice/caissontest-a-b.slice/own-ID.scope"],
  ["caissontest.slice::ID", "/caissontest.slice/-ID.scope"],
  [":own:ID", "/system.slice/own-ID.scope"],
  ["-.slice:own:ID", "/own-ID.scope"],
  // the prefix is then the runtime's name
  ["", "/system.slice/NAME-ID.scope"],
])("cgroupsPath leads where it leads with runc: %j is %s", (path, place) => {
  covers("linux.cgroupsPath systemd");
  const bundle = makeBundle();
  rewrite(bundle, (spec) => {
    spec.ociVersion = "1.0.2";
    spec.linux.cgroupsPath = path.replace("ID", bundle.id);
  });
  for (const name of ["caisson", "runc"]) {
    const how = name === "caisson" ? DRIVER : { ...DRIVER, program: name };
    const expected = `0::${place.replace("NAME", name).replace("ID", bundle.id)}`;
    expect(seenIn(run(bundle, how)).cgroup).toEqual([expected]);
    expect(isGone(expected.slice(expected.lastIndexOf("/") + 1))).toBe(true);
  }
});

test("a name that is a slice's makes a slice, and the container is in it", () => {
  const unit = "caissontest-pod.slice";
  const bundle = idleInScope((spec) => {
    spec.linux.cgroupsPath = `caissontest.slice:ignored:${unit}`;
    spec.linux.resources = { pids: { limit: 20 } };
  });
  expect(cgroupOf(bundle.pid)).toBe(`0::/caissontest.slice/${unit}`);
  expect(shown(unit, "ActiveState", "Wants", "TasksMax")).toEqual({
    ActiveState: "active",
    Wants: "caissontest.slice",
    TasksMax: "20",
  });
  expect(remove(bundle, "--force")).toMatchObject({ status: 0, stderr: "" });
  expect(alive(bundle.pid)).toBe(false);
  // systemd knows every slice by its name
  expect(shown(unit, "ActiveState")).toEqual({ ActiveState: "inactive" });
  expect(cgroupDirectories().filter((path) => path.endsWith(`/${unit}`))).toEqual([]);
});

test("a scope of somebody else's lives on, and its name is refused", () => {
  const bundle = inScope((spec) => {
    spec.ociVersion = "1.0.2";
  });
  const words = ["--scope", "--quiet", "--unit", bundle.unit, "--slice", SLICE, "sleep", "600"];
  const other = spawn("systemd-run", words, { stdio: "ignore" });
  try {
    const processes = () => read(other.pid ?? 0, "cgroup.procs");
    until("it is in its scope", () => cgroupOf(other.pid ?? 0) === `0::${BENEATH}/${bundle.unit}`);
    for (const program of [undefined, "runc", "crun"]) {
      const { status, stderr } = run(bundle, program === undefined ? DRIVER : { ...DRIVER, program });
      expect(status).toBe(1);
      if (program === undefined)
        expect(stderr).toMatch(/unable to start unit \\"probe-test-.*\.scope\\": Unit .* was already loaded/);
      expect(processes()).toBe(String(other.pid));
      expect(shown(bundle.unit, "ActiveState")).toEqual({ ActiveState: "active" });
    }
    expect(runtime(["list", "-q"]).stdout).toBe("");
  } finally {
    systemctl("stop", bundle.unit);
  }
});

test("a scope can be divided by the container it was delegated to, and goes with all that was made in it", () => {
  const bundle = inScope(divides, "shell");
  expect(create(bundle, DRIVER)).toMatchObject({ status: 0, stderr: "" });
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
  const cgroup = `${CGROUPS}${BENEATH}/${bundle.unit}`;
  expectDivided(bundle, cgroup);
  // what was delegated is not systemd's to put in order
  systemctl("daemon-reload");
  expectDivided(bundle, cgroup);
  expect(remove(bundle, "--force")).toMatchObject({ status: 0, stderr: "" });
  expect(isGone(bundle.unit)).toBe(true);
});

test("a limit of a slice holds for all the scopes in it", () => {
  const first = idleInScope();
  systemctl("set-property", "--runtime", SLICE, "TasksMax=10");
  try {
    const second = inScope((spec) => {
      spec.linux.resources = { pids: { limit: 40 } };
      spec.process.args = ["/bin/probe", "--fork", "100"];
    });
    const [{ forks, stoppedBy }] = results(seenIn(run(second, DRIVER)).actions).map(Object);
    expect(stoppedBy).toBe("EAGAIN");
    // each container has a process there; init, which systemd put into the second's scope, counts until it is reaped
    expect([7, 8]).toContain(forks);
    expect(alive(first.pid)).toBe(true);
  } finally {
    systemctl("set-property", "--runtime", SLICE, "TasksMax=infinity");
  }
});

test("annotations become properties of the unit", () => {
  covers("org.systemd.property");
  const bundle = idleInScope((spec) => {
    spec.annotations = {
      "org.systemd.property.TimeoutStopSec": "uint64 7",
      "org.systemd.property.CollectMode": "'inactive-or-failed'",
      "org.systemd.property.After": "['dbus.service']",
    };
  });
  const { After = "", ...others } = shown(bundle.unit, "TimeoutStopUSec", "CollectMode", "After");
  expect(others).toEqual({ TimeoutStopUSec: "7s", CollectMode: "inactive-or-failed" });
  expect(After.split(" ")).toContain("dbus.service");
});

test("what systemd refuses is told in its own words, and nothing is left", () => {
  const bundle = inScope((spec) => {
    spec.annotations = { "org.systemd.property.CollectMode": "'sometimes'" };
  });
  const { status, stderr } = run(bundle, DRIVER);
  expect(status).toBe(1);
  expect(stderr).toMatch(/unable to start unit .*probe-test-.*CollectMode/);
  expect(isGone(bundle.unit)).toBe(true);
  expect(runtime(["list", "-q"]).stdout).toBe("");
});

test("limits and rules of devices outlive systemd's reading of its configuration", () => {
  const bundle = idleInScope((spec) => {
    spec.linux.devices = [loopControl];
    spec.linux.resources = {
      pids: { limit: 20 },
      memory: noSwap,
      unified: { "memory.high": String(24 << 20) },
      devices: [
        { allow: false, access: "rwm" },
        { allow: true, type: "c", major: 10, minor: 237, access: "r" },
      ],
    };
  });
  const open = ["--open-device", "/dev/loop-control"];
  const tried = () => [
    ...results(seenIn(exec(bundle, ["/bin/probe", ...open, "r", ...open, "rw", "--fork", "50"])).actions),
    ...["pids.max", "memory.max", "memory.high", "memory.swap.max"].map((file) => read(bundle.pid, file)),
  ];
  const expected = [
    ...["character 10:237", "EPERM", { forks: 18, stoppedBy: "EAGAIN" }],
    ...["20", String(32 << 20), String(24 << 20), "0"],
  ];
  expect(tried()).toEqual(expected);
  systemctl("daemon-reload");
  // another unit of the slice has systemd go through its cgroups again
  const other = idleInScope();
  expect(tried()).toEqual(expected);
  expect(remove(other, "--force").status).toBe(0);
});

test("rules of devices are the unit's own, too: systemd refuses what they do not list", () => {
  const bundle = idleInScope((spec) => {
    spec.linux.resources = {
      devices: [
        { allow: false, access: "rwm" },
        { allow: true, type: "c", major: 10, minor: 237, access: "r" },
      ],
    };
  });
  const { DevicePolicy, DeviceAllow } = shown(bundle.unit, "DevicePolicy", "DeviceAllow");
  expect(DevicePolicy).toBe("strict");
  expect(DeviceAllow).toContain("/dev/char/10:237 r");
});

test("limits that change while it runs are the unit's, too", () => {
  const bundle = idleInScope();
  const flags = ["--pids-limit", "10", "--cpu-quota", "20000", "--cpu-period", "100000", "--memory", String(48 << 20)];
  expect(runtime(["update", ...flags, bundle.id])).toMatchObject({ status: 0, stderr: "" });
  const properties = { TasksMax: "10", CPUQuotaPerSecUSec: "200ms", MemoryMax: String(48 << 20) };
  expect(shown(bundle.unit, ...Object.keys(properties))).toEqual(properties);
  systemctl("daemon-reload");
  expect(results(seenIn(exec(bundle, ["/bin/probe", "--fork", "50"])).actions)).toEqual([
    { forks: 8, stoppedBy: "EAGAIN" },
  ]);
  expect(read(bundle.pid, "cpu.max")).toBe("20000 100000");
  expect(read(bundle.pid, "memory.max")).toBe(String(48 << 20));
});

test("it is paused and resumed, and ends when systemd stops its scope", () => {
  const bundle = idleInScope();
  expect(runtime(["pause", bundle.id])).toMatchObject({ status: 0, stderr: "" });
  expect(state(bundle).status).toBe("paused");
  expect(read(bundle.pid, "cgroup.events")).toContain("frozen 1");
  expect(runtime(["resume", bundle.id])).toMatchObject({ status: 0, stderr: "" });
  expect(seenIn(exec(bundle, ["/bin/probe"])).cgroup).toEqual([`0::${BENEATH}/${bundle.unit}`]);
  systemctl("kill", "--signal=KILL", bundle.unit);
  untilStopped(bundle);
  expect(state(bundle).status).toBe("stopped");
  expect(remove(bundle)).toMatchObject({ status: 0, stderr: "" });
  until("systemd has collected the scope", () => isGone(bundle.unit));
});

test("what ran out of memory leaves no failed unit behind", () => {
  const bundle = inScope((spec) => {
    spec.linux.resources = { memory: noSwap };
    spec.process.args = ["/bin/probe", "--allocate", "200"];
  });
  expect(run(bundle, DRIVER)).toMatchObject({ status: 137, stdout: "", stderr: "" });
  expect(isGone(bundle.unit)).toBe(true);
});
