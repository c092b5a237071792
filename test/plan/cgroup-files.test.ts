import { expect, test } from "vitest";
import {
  type CurrentResources,
  cpuWeight,
  deviceFilterDirectory,
  ioWeight,
  resourceWrites,
} from "../../src/plan/cgroup-files.ts";
import { cgroupDirectories, parseCgroupLayout } from "../../src/plan/cgroup-layout.ts";
import type { Resources } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";

const MOUNTS_V2 = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const MOUNTS_V1 = [
  "cpu,cpuacct",
  "cpuset",
  "memory",
  "devices",
  "freezer",
  "blkio",
  "pids",
  "net_cls,net_prio",
  "hugetlb",
  "rdma",
]
  .map((names, index) => `4${index} 31 0:3${index} / /sys/fs/cgroup/${names} rw,relatime - cgroup cgroup rw,${names}\n`)
  .join("");
const SELF_V1 =
  "10:rdma:/\n9:hugetlb:/\n8:net_cls,net_prio:/\n7:pids:/us\n6:blkio:/us\n5:freezer:/\n4:devices:/us\n3:memory:/us/own\n2:cpuset:/\n1:cpu,cpuacct:/us\n";

const v1 = parseCgroupLayout(MOUNTS_V1, SELF_V1, "");
const v2 = parseCgroupLayout(MOUNTS_V2, "0::/user.slice/session.scope\n", "cpuset cpu io memory hugetlb pids rdma\n");
const hybrid = parseCgroupLayout(
  `${MOUNTS_V1}60 31 0:60 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n`,
  `${SELF_V1}0::/us\n`,
  "\n",
);

function writes(layout: typeof v1, resources: Resources | undefined, current?: CurrentResources) {
  return resourceWrites(layout, cgroupDirectories(layout, "/c/x", "x"), resources, current);
}

/** Only what the resources ask for, as "file=value". */
function lines(layout: typeof v1, resources: Resources, current?: CurrentResources): string[] {
  return writes(layout, resources, current)
    .filter(({ file, value }) => value !== undefined && !/^(devices|cgroup)\./.test(file))
    .map(({ file, value }) => `${file}=${value}`);
}

test("the layout tells version 1, version 2 and both apart", () => {
  expect([v1.mode, hybrid.mode, v2.mode]).toEqual(["v1", "hybrid", "v2"]);
  expect(v2.hierarchies).toEqual([
    {
      controllers: ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"],
      version: 2,
      mountPoint: "/sys/fs/cgroup",
      ownPath: "/user.slice/session.scope",
    },
  ]);
  expect(hybrid.hierarchies.find(({ version }) => version === 2)).toEqual({
    controllers: [],
    version: 2,
    mountPoint: "/sys/fs/cgroup/unified",
    ownPath: "/us",
  });
});

test("a hierarchy mounted elsewhere too, or named, or with spaces in its path, is found where it belongs", () => {
  const layout = parseCgroupLayout(
    "1 0 0:1 / /var/lib/x/cgroup/memory rw - cgroup cgroup rw,memory\n" +
      "2 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
      "3 0 0:2 / /mnt/my\\040groups rw - cgroup cgroup rw,xattr,name=systemd\n",
    "2:memory:/\n1:name=systemd:/init.scope\n5:pids:/\n",
    "",
  );
  expect(layout.hierarchies.map(({ mountPoint }) => mountPoint)).toEqual(["/sys/fs/cgroup/memory", "/mnt/my groups"]);
});

test("inside a container that sees a part of the hierarchy, our own path counts from that part", () => {
  const own = (root: string, path: string) =>
    parseCgroupLayout(`1 0 0:1 ${root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n`, `2:memory:${path}\n`, "")
      .hierarchies[0]?.ownPath;
  expect(own("/docker/abc", "/docker/abc")).toBe("/");
  expect(own("/docker/abc", "/docker/abc/child")).toBe("/child");
  expect(own("/docker/abc", "/docker/abcdef")).toBe("/");
  expect(own("/", "/../outside")).toBe("/");
});

test("an absolute path counts from the root, a relative one and the id from our own cgroup", () => {
  const paths = (path: string | undefined) => cgroupDirectories(v1, path, "id").map((directory) => directory.path);
  expect(paths("/docker//id")).toContain("/sys/fs/cgroup/memory/docker/id");
  expect(paths("pod/id")).toContain("/sys/fs/cgroup/memory/us/own/pod/id");
  expect(paths(undefined)).toContain("/sys/fs/cgroup/memory/us/own/id");
  expect(paths("")).toContain("/sys/fs/cgroup/cpu,cpuacct/us/id");
  expect(cgroupDirectories(v2, undefined, "id")[0]?.path).toBe("/sys/fs/cgroup/user.slice/id");
});

test.each(["/", "../x", "/a/../../b", "", "."])("a cgroup path cannot be %j", (path) => {
  expect(() => cgroupDirectories(v1, path, "..")).toThrowError(
    expect.objectContaining({ from: "/linux/cgroupsPath", code: "ERR_SPEC" }),
  );
});

test("cpu shares become weights as in runc", () => {
  covers("linux.resources.cpu.shares");
  // [shares, weight], from runc's published table
  for (const [shares, weight] of [
    [1, 1],
    [2, 1],
    [3, 2],
    [1024, 100],
    [262143, 10000],
    [262144, 10000],
    [262145, 10000],
  ] as const) {
    expect([shares, cpuWeight(shares)]).toEqual([shares, weight]);
  }
  const weights = Array.from({ length: 262143 }, (_, index) => cpuWeight(index + 2));
  expect(weights.findIndex((weight, index) => weight < (weights[index - 1] ?? 0))).toBe(-1);
});

test("block weights become io weights as in runc", () => {
  expect([10, 100, 500, 1000].map(ioWeight)).toEqual([1, 910, 4950, 10000]);
});

test("version 1: a cpuset inherits from its parent, from the outermost new directory inwards, where the spec says nothing", () => {
  const inherited = writes(v1, { cpu: { cpus: "0" } }).filter(({ value }) => value === undefined);
  expect(inherited.map(({ directory, file }) => `${directory}/${file}`)).toEqual([
    "/sys/fs/cgroup/cpuset/c/cpuset.cpus",
    "/sys/fs/cgroup/cpuset/c/cpuset.mems",
    "/sys/fs/cgroup/cpuset/c/x/cpuset.mems",
  ]);
});

test("version 1: every write says which part of the spec asks for it", () => {
  const all = writes(v1, { memory: { limit: 4096 }, pids: { limit: 3 } });
  expect(all).toContainEqual({
    directory: "/sys/fs/cgroup/memory/c/x",
    file: "memory.limit_in_bytes",
    value: "4096",
    from: "/linux/resources/memory/limit",
  });
  expect(all).toContainEqual({
    directory: "/sys/fs/cgroup/pids/c/x",
    file: "pids.max",
    value: "3",
    from: "/linux/resources/pids/limit",
  });
});

test("version 1: everything there is, in an order that the kernel accepts", () => {
  covers(
    "linux.resources.blockIO.weight",
    "linux.resources.blockIO.throttle",
    "linux.resources.hugepageLimits",
    "linux.resources.network",
    "linux.resources.rdma",
    "linux.resources.memory.kernel",
    "linux.resources.memory.swappiness",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.memory.useHierarchy",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.realtimeRuntime",
  );
  const resources: Resources = {
    memory: {
      limit: 100,
      reservation: 50,
      swap: 200,
      kernel: 7,
      kernelTCP: 7,
      swappiness: 0,
      disableOOMKiller: true,
      useHierarchy: true,
    },
    cpu: {
      shares: 512,
      quota: 50000,
      period: 100000,
      burst: 1000,
      realtimePeriod: 1000000,
      realtimeRuntime: 10000,
      cpus: "0-1",
      mems: "0",
      idle: 0,
    },
    pids: { limit: 10 },
    blockIO: {
      weight: 100,
      leafWeight: 200,
      weightDevice: [{ major: 8, minor: 0, weight: 500, leafWeight: 300 }],
      throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 600 }],
      throttleWriteIOPSDevice: [{ major: 8, minor: 16, rate: 300 }],
    },
    hugepageLimits: [{ pageSize: "2MB", limit: 9223372036854771712n }],
    network: { classID: 1048577, priorities: [{ name: "eth0", priority: 500 }] },
    rdma: { mlx5_1: { hcaHandles: 3, hcaObjects: 10000 }, mlx5_2: { hcaObjects: 5 } },
  };
  expect(lines(v1, resources)).toEqual([
    "cpuset.cpus=0-1",
    "cpuset.mems=0",
    "cpu.idle=0",
    "cpu.shares=512",
    "cpu.cfs_period_us=100000",
    "cpu.cfs_quota_us=50000",
    "cpu.cfs_burst_us=1000",
    "cpu.rt_period_us=1000000",
    "cpu.rt_runtime_us=10000",
    "memory.use_hierarchy=1",
    "memory.limit_in_bytes=100",
    "memory.memsw.limit_in_bytes=200",
    "memory.soft_limit_in_bytes=50",
    "memory.oom_control=1",
    "memory.swappiness=0",
    "pids.max=10",
    "blkio.bfq.weight=100",
    "blkio.leaf_weight=200",
    "blkio.bfq.weight_device=8:0 500",
    "blkio.leaf_weight_device=8:0 300",
    "blkio.throttle.read_bps_device=8:0 600",
    "blkio.throttle.write_iops_device=8:16 300",
    "hugetlb.2MB.limit_in_bytes=9223372036854771712",
    "hugetlb.2MB.rsvd.limit_in_bytes=9223372036854771712",
    "rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
    "rdma.max=mlx5_2 hca_object=5",
    "net_cls.classid=1048577",
    "net_prio.ifpriomap=eth0 500",
  ]);
  expect(lines(hybrid, resources)).toEqual(lines(v1, resources));
});

test("version 2: everything there is, translated", () => {
  covers(
    "linux.resources v2",
    "linux.resources.unified",
    "linux.resources.rdma",
    "linux.resources.hugepageLimits",
    "linux.resources.blockIO.weight",
    "linux.resources.blockIO.throttle",
  );
  expect(
    lines(v2, {
      memory: { limit: 100, reservation: 50, swap: 300, kernel: 7 },
      cpu: { shares: 1024, quota: 50000, period: 100000, burst: 1000, cpus: "0-1", mems: "0", idle: 0 },
      pids: { limit: -1 },
      blockIO: {
        weight: 100,
        weightDevice: [{ major: 8, minor: 0, weight: 500 }],
        throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 600 }],
        throttleWriteIOPSDevice: [{ major: 8, minor: 16, rate: 0 }],
      },
      hugepageLimits: [{ pageSize: "1GB", limit: 0 }],
      rdma: { mlx5_1: { hcaHandles: 3 } },
      unified: { "memory.high": "80", "io.max": "8:0 rbps=1\n8:16 rbps=2\n", "cgroup.max.depth": "3" },
    }),
  ).toEqual([
    "cpuset.cpus=0-1",
    "cpuset.mems=0",
    "cpu.idle=0",
    "cpu.weight=100",
    "cpu.max=50000 100000",
    "cpu.max.burst=1000",
    "memory.swap.max=200",
    "memory.max=100",
    "memory.low=50",
    "pids.max=max",
    "io.bfq.weight=100",
    "io.bfq.weight=8:0 500",
    "io.max=8:0 rbps=600",
    "io.max=8:16 wiops=max",
    "hugetlb.1GB.max=0",
    "hugetlb.1GB.rsvd.max=0",
    "rdma.max=mlx5_1 hca_handle=3",
    "memory.high=80",
    "io.max=8:0 rbps=1",
    "io.max=8:16 rbps=2",
  ]);
});

test("where BFQ is missing, the kernel's own weight is written instead", () => {
  const weight = (layout: typeof v1) =>
    writes(layout, { blockIO: { weight: 500 } }).find(({ file }) => file.includes("bfq"));
  expect(weight(v2)).toMatchObject({
    file: "io.bfq.weight",
    value: "500",
    otherwise: { file: "io.weight", value: "4950" },
  });
  expect(weight(v1)).toMatchObject({ otherwise: { file: "blkio.weight", value: "500" } });
});

test("version 2: a user asks for controllers above as well, but need not get them there", () => {
  const hierarchies = v2.hierarchies.map((each) => ({ ...each, delegated: true }));
  const enabled = writes({ ...v2, hierarchies }, { memory: { limit: 1 } }).filter(
    ({ file }) => file === "cgroup.subtree_control",
  );
  expect(enabled.length).toBeGreaterThan(0);
  expect(enabled.filter(({ optional }) => optional !== true)).toEqual([]);
});

test("version 2: controllers are enabled from the mount point down, and only the needed ones must be", () => {
  const enabled = writes(v2, { memory: { limit: 1 } }).filter(({ file }) => file === "cgroup.subtree_control");
  expect([...new Set(enabled.map(({ directory }) => directory))]).toEqual(["/sys/fs/cgroup", "/sys/fs/cgroup/c"]);
  expect(enabled.filter(({ optional }) => optional === undefined).map(({ value, from }) => [value, from])).toEqual([
    ["+memory", "/linux/resources/memory/limit"],
    ["+memory", "/linux/resources/memory/limit"],
  ]);
  expect(enabled).toHaveLength(14);
});

test("swap is what the kernel's version counts", () => {
  expect(lines(v2, { memory: { limit: 100, swap: 100 } })).toEqual(["memory.swap.max=0", "memory.max=100"]);
  expect(lines(v2, { memory: { limit: -1 } })).toEqual(["memory.swap.max=max", "memory.max=max"]);
  expect(lines(v2, { memory: { limit: 100, swap: -1 } })).toEqual(["memory.swap.max=max", "memory.max=100"]);
  expect(lines(v1, { memory: { limit: 100, swap: -1 } })).toEqual([
    "memory.memsw.limit_in_bytes=-1",
    "memory.limit_in_bytes=100",
  ]);
  expect(lines(v1, { memory: { limit: 0, swap: 0, reservation: 0 } })).toEqual([]);
  const big = { memory: { limit: 2n ** 60n, swap: 2n ** 60n + 1n } };
  expect(lines(v2, big)).toEqual(["memory.swap.max=1", `memory.max=${2n ** 60n}`]);
});

test("an update writes first what leaves the cgroup consistent", () => {
  const grown = lines(v1, { memory: { limit: 300, swap: 400 } }, { memoryLimitBytes: 100 });
  expect(grown).toEqual(["memory.memsw.limit_in_bytes=400", "memory.limit_in_bytes=300"]);
  const shrunk = lines(v1, { memory: { limit: 50, swap: 60 } }, { memoryLimitBytes: 100 });
  expect(shrunk).toEqual(["memory.limit_in_bytes=50", "memory.memsw.limit_in_bytes=60"]);
  const shorter = lines(v1, { cpu: { quota: 1000, period: 10000 } }, { cpuQuotaUs: 50000, cpuPeriodUs: 100000 });
  expect(shorter).toEqual(["cpu.cfs_quota_us=1000", "cpu.cfs_period_us=10000"]);
  const longer = lines(v1, { cpu: { quota: 1000, period: 200000 } }, { cpuQuotaUs: 50000, cpuPeriodUs: 100000 });
  expect(longer).toEqual(["cpu.cfs_period_us=200000", "cpu.cfs_quota_us=1000"]);
  const lessBurst = lines(v2, { cpu: { quota: 1000, burst: 0 } }, { cpuQuotaUs: 5000, cpuBurstUs: 4000 });
  expect(lessBurst).toEqual(["cpu.max.burst=0", "cpu.max=1000"]);
  expect(lines(v2, { cpu: { period: 20000 } }, { cpuQuotaUs: 5000 })).toEqual(["cpu.max=5000 20000"]);
});

test("an update leaves devices, inheritance and controllers alone", () => {
  for (const layout of [v1, v2]) expect(writes(layout, { pids: { limit: 5 } }, {})).toHaveLength(1);
});

test("a limit of no processes means one, and without limit is no fault where nothing counts", () => {
  covers("linux.resources.pids.limit");
  expect(lines(v1, { pids: { limit: 0 } })).toEqual(["pids.max=1"]);
  const bare = parseCgroupLayout(MOUNTS_V2, "0::/\n", "cpu");
  expect(lines(bare, { pids: { limit: -1 } })).toEqual([]);
});

test("an idle cgroup is given no weight", () => {
  covers("linux.resources.cpu.idle");
  expect(lines(v2, { cpu: { idle: 1, shares: 1024 } })).toEqual(["cpu.idle=1"]);
});

test.each<[string, typeof v1, Resources]>([
  ["/linux/resources/memory/swap", v1, { memory: { swap: 100 } }],
  ["/linux/resources/memory/swap", v2, { memory: { limit: 200, swap: 100 } }],
  ["/linux/resources/memory/swappiness", v1, { memory: { swappiness: 101 } }],
  ["/linux/resources/memory/swappiness", v2, { memory: { swappiness: 1 } }],
  ["/linux/resources/memory/disableOOMKiller", v2, { memory: { disableOOMKiller: true } }],
  ["/linux/resources/cpu/realtimeRuntime", v2, { cpu: { realtimeRuntime: 1 } }],
  ["/linux/resources/cpu/shares", v1, { cpu: { shares: 1 } }],
  ["/linux/resources/network/classID", v2, { network: { classID: 1 } }],
  ["/linux/resources/blockIO/leafWeight", v2, { blockIO: { leafWeight: 100 } }],
  ["/linux/resources/hugepageLimits/0", v1, { hugepageLimits: [{ pageSize: "../2MB", limit: 1 }] }],
  ["/linux/resources/unified/memory.high", v1, { unified: { "memory.high": "1" } }],
  ["/linux/resources/unified/memory.high", hybrid, { unified: { "memory.high": "1" } }],
  ["/linux/resources/unified/..~1memory.max", v2, { unified: { "../memory.max": "1" } }],
  ["/linux/resources/unified/..", v2, { unified: { "..": "1" } }],
  ["/linux/resources/unified/misc.max", v2, { unified: { "misc.max": "1" } }],
])("what cannot be done is refused at %s", (from, layout, resources) => {
  expect(() => writes(layout, resources)).toThrowError(expect.objectContaining({ from, code: "ERR_SPEC" }));
});

test("a limit without its controller is refused, not forgotten", () => {
  const bare = parseCgroupLayout(MOUNTS_V2, "0::/\n", "cpu");
  expect(() => writes(bare, { memory: { limit: 1 } })).toThrowError(
    expect.objectContaining({ message: "cannot set memory limit: there is no cgroup controller for memory.max" }),
  );
});

test("an update below the present usage is refused when asked to check", () => {
  covers("linux.resources.memory.checkBeforeUpdate");
  const update = (usage: number) =>
    lines(v2, { memory: { limit: 100, checkBeforeUpdate: true } }, { memoryUsageBytes: usage });
  expect(update(100)).toEqual(["memory.max=100"]);
  expect(() => update(101)).toThrowError(expect.objectContaining({ from: "/linux/resources/memory/limit" }));
});

test("device rules are files on version 1 and a program on version 2", () => {
  expect(deviceFilterDirectory(cgroupDirectories(v1, "/x", "x"))).toBeUndefined();
  expect(deviceFilterDirectory(cgroupDirectories(hybrid, "/x", "x"))).toBeUndefined();
  expect(deviceFilterDirectory(cgroupDirectories(v2, "/x", "x"))).toBe("/sys/fs/cgroup/x");
  const devices = writes(v1, undefined).filter(({ file }) => file.startsWith("devices."));
  expect(devices[0]).toMatchObject({ file: "devices.deny", value: "a" });
  expect(devices.slice(1).map(({ value }) => value)).toEqual([
    "c *:* m",
    "b *:* m",
    ...["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2", "10:200", "136:*"].map((device) => `c ${device} rwm`),
  ]);
});
