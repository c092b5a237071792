import { expect, test } from "vitest";
import {
  annotatedProperties,
  basicProperties,
  deviceProperties,
  resourceProperties,
  slicePath,
  type UnitProperty,
  unitOf,
  unitPath,
} from "../../src/plan/cgroup-unit.ts";
import { compile } from "../../src/plan/compile.ts";
import type { Resources } from "../../src/spec/spec.ts";
import { defined, HOSTS, smallest } from "./examples.ts";

// systemd.resource-control(5), systemd.slice(5); the values are runc's.

const SYSTEMD = { version: 252, controlGroup: "", user: false };
const INFINITY = 2n ** 64n - 1n;

function named(properties: readonly UnitProperty[]) {
  return Object.fromEntries(properties.map(({ name, value }) => [name, value.value]));
}

function resources(asked: Resources, version: 1 | 2 = 2, systemd = SYSTEMD) {
  return named(resourceProperties(asked, version, systemd));
}

test("cgroupsPath is slice:prefix:name", () => {
  expect(unitOf(undefined, "web", false)).toEqual({ name: "caisson-web.scope", slice: "system.slice" });
  expect(unitOf("", "web", true)).toEqual({ name: "caisson-web.scope", slice: "user.slice" });
  expect(unitOf("machine.slice:libpod:abc", "web", false)).toEqual({
    name: "libpod-abc.scope",
    slice: "machine.slice",
  });
  expect(unitOf(":crio:abc", "web", false)).toEqual({ name: "crio-abc.scope", slice: "system.slice" });
  expect(unitOf("a.slice::pod.slice", "web", false)).toEqual({ name: "pod.slice", slice: "a.slice" });
});

test.each(["/a/b", "a:b", "a:b:c:d"])("%s is refused as runc refuses it", (path) => {
  expect(() => unitOf(path, "web", false)).toThrow(
    `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got ${JSON.stringify(path)} instead`,
  );
});

test.each([":x:../../escape", ":x:a/b", ":x:a b", `:x:${"a".repeat(300)}`])("the unit of %s is refused", (path) => {
  expect(() => unitOf(path, "web", false)).toThrow(/invalid unit name/);
});

test("a slice is within those that its name starts with", () => {
  expect(slicePath("system.slice")).toBe("/system.slice");
  expect(slicePath("a-b-c.slice")).toBe("/a.slice/a-b.slice/a-b-c.slice");
  expect(slicePath("-.slice")).toBe("");
  expect(unitPath({ name: "x.scope", slice: "a-b.slice" }, { ...SYSTEMD, controlGroup: "/user.slice/u.service" })).toBe(
    "/user.slice/u.service/a.slice/a-b.slice/x.scope",
  );
  expect(unitPath({ name: "x.scope", slice: "-.slice" }, { ...SYSTEMD, controlGroup: "/" })).toBe("/x.scope");
  // a slice's place is in its name, whatever it wants
  expect(unitPath({ name: "a-b.slice", slice: "c.slice" }, SYSTEMD)).toBe("/a.slice/a-b.slice");
  for (const wrong of [".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "../a.slice", "a/b.slice", ""])
    expect(() => slicePath(wrong), wrong).toThrow(/invalid slice name/);
});

test("systemd puts the first process into a scope; into a slice it goes by itself, born there", () => {
  const born = (cgroupsPath: string) =>
    compile(defined({ spec: { ...smallest(), linux: { cgroupsPath } } }), { ...HOSTS.v2, systemd: SYSTEMD }).flatMap(
      (step) => (step.name === "clone" || step.name === "cloneInto" ? [{ ...step.args, name: step.name }] : []),
    );
  expect(born("machine.slice:libpod:web")).toMatchObject([{ name: "clone" }]);
  expect(born("machine.slice::pod-web.slice")).toMatchObject([
    { name: "cloneInto", cgroup: "/sys/fs/cgroup/pod.slice/pod-web.slice" },
  ]);
});

test("a scope is delegated and counted, a slice wants its parent", () => {
  expect(named(basicProperties({ name: "a.scope", slice: "b.slice" }, "web", 2))).toEqual({
    Description: "libcontainer container web",
    Slice: "b.slice",
    Delegate: true,
    MemoryAccounting: true,
    CPUAccounting: true,
    IOAccounting: true,
    TasksAccounting: true,
    DefaultDependencies: false,
  });
  const slice = named(basicProperties({ name: "a.slice", slice: "b.slice" }, "web", 1));
  expect(slice).toMatchObject({ Wants: ["b.slice"], BlockIOAccounting: true });
  expect(slice).not.toHaveProperty("Delegate");
});

test("limits of memory, tasks and processors have properties", () => {
  expect(
    resources({
      memory: { limit: 1000, reservation: 500, swap: 1500 },
      cpu: { shares: 1024, quota: 50_000, period: 100_000, cpus: "0-2,9", mems: "0" },
      pids: { limit: 10 },
    }),
  ).toEqual({
    MemoryMax: 1000n,
    MemoryLow: 500n,
    MemorySwapMax: 500n,
    CPUWeight: 100n,
    CPUQuotaPeriodUSec: 100_000n,
    CPUQuotaPerSecUSec: 500_000n,
    TasksMax: 10n,
    AllowedCPUs: Uint8Array.from([0b111, 0b10]),
    AllowedMemoryNodes: Uint8Array.from([1]),
  });
  expect(resources({ memory: { limit: 1000 }, cpu: { shares: 512 }, blockIO: { weight: 300 } }, 1)).toEqual({
    MemoryLimit: 1000n,
    CPUShares: 512n,
    BlockIOWeight: 300n,
  });
  // memory and no swap: systemd would make it any swap again
  expect(resources({ memory: { limit: 1000, swap: 1000 } })).toEqual({ MemoryMax: 1000n, MemorySwapMax: 0n });
  expect(resources({})).toEqual({});
});

test("what has no limit is systemd's infinity", () => {
  expect(resources({ memory: { limit: -1 }, cpu: { quota: -1 }, pids: { limit: -1 } })).toEqual({
    MemoryMax: INFINITY,
    MemorySwapMax: INFINITY,
    CPUQuotaPerSecUSec: INFINITY,
    TasksMax: INFINITY,
  });
  expect(resources({ pids: { limit: 0 } })).toEqual({ TasksMax: 1n });
});

test("a quota is rounded up to a whole percent, of the period that holds", () => {
  expect(resources({ cpu: { quota: 5_001 } })).toEqual({ CPUQuotaPerSecUSec: 60_000n });
  expect(named(resourceProperties({ cpu: { quota: 5_000 } }, 2, SYSTEMD, 10_000))).toEqual({
    CPUQuotaPerSecUSec: 500_000n,
  });
  expect(resources({ cpu: { period: 10_000 } })).toEqual({ CPUQuotaPeriodUSec: 10_000n, CPUQuotaPerSecUSec: INFINITY });
});

test("idle is a weight of 0 where systemd knows it", () => {
  expect(resources({ cpu: { idle: 1, shares: 1024 } })).toEqual({ CPUWeight: 0n });
  expect(resources({ cpu: { idle: 1, shares: 1024 } }, 2, { ...SYSTEMD, version: 249 })).toEqual({ CPUWeight: 100n });
});

test("files of version 2 that are properties are both", () => {
  expect(
    resources({
      unified: {
        "memory.high": "1000",
        "memory.max": "max",
        "pids.max": "5",
        "cpu.weight": "50",
        "cpu.max": "25000 50000",
        "cpuset.cpus": "1",
        "hugetlb.2MB.max": "0",
      },
    }),
  ).toEqual({
    MemoryHigh: 1000n,
    MemoryMax: INFINITY,
    TasksMax: 5n,
    CPUWeight: 50n,
    CPUQuotaPeriodUSec: 50_000n,
    CPUQuotaPerSecUSec: 500_000n,
    AllowedCPUs: Uint8Array.from([2]),
  });
});

test("devices are those that the rules allow, and all where systemd cannot say which", () => {
  const [policy, emptied, allowed, ...more] = deviceProperties({
    devices: [
      { allow: false, access: "rwm" },
      { allow: true, type: "b", major: 8, access: "r" },
    ],
  });
  expect(more).toEqual([]);
  expect(policy?.value.value).toBe("strict");
  expect(emptied?.value).toEqual({ signature: "a(ss)", value: [] });
  expect(allowed?.value.value).toEqual(
    expect.arrayContaining([
      ["block-8", "r"],
      ["char-*", "m"],
      ["block-*", "m"],
      ["/dev/char/1:3", "rwm"],
      ["char-136", "rwm"],
    ]),
  );
  expect(
    deviceProperties({
      devices: [
        { allow: true, access: "rwm" },
        { allow: false, type: "c", major: 10, minor: 200, access: "w" },
      ],
    }).map(({ value }) => value.value),
  ).toEqual(["auto", []]);
});

test("annotations are properties, and seconds become microseconds", () => {
  expect(
    annotatedProperties({
      "org.systemd.property.CollectMode": "'inactive-or-failed'",
      "org.systemd.property.TimeoutStopUSec": "uint64 5",
      "org.systemd.property.TimeoutStartSec": "1.5",
      other: "thing",
    }),
  ).toEqual([
    { name: "CollectMode", value: { signature: "s", value: "inactive-or-failed" } },
    { name: "TimeoutStopUSec", value: { signature: "t", value: 5n } },
    { name: "TimeoutStartUSec", value: { signature: "t", value: 1_500_000n } },
  ]);
  expect(() => annotatedProperties({ "org.systemd.property.A-b": "1" })).toThrow(/name incorrect/);
  expect(() => annotatedProperties({ "org.systemd.property.Abc": "word" })).toThrow(/value parse error/);
  expect(() => annotatedProperties({ "org.systemd.property.StopSec": "-1" })).toThrow(/negative/);
});
