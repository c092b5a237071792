import { ContainerError } from "../error.ts";
import type { BlockIo, Cpu, Integer64, Memory, Resources } from "../spec/spec.ts";
import { ancestry, type CgroupDirectory, type CgroupLayout } from "./cgroup-layout.ts";
import { deviceList, deviceRules, deviceText } from "./device-rules.ts";

/** One write into a file of a cgroup. */
export type ResourceWrite = {
  directory: string;
  file: string;
  /** undefined: what the parent directory's file of this name holds, if this one is still empty. */
  value: string | undefined;
  /** JSON pointer of what asks for it. */
  from: string;
  /** The value is what the kernel does anyway, so a kernel that lacks the file or refuses the write is no fault. */
  optional?: true;
  /** To be written instead where `file` does not exist. */
  otherwise?: { file: string; value: string };
};

/** What an update has to know of the cgroup; a new cgroup has none of it. */
export type CurrentResources = {
  memoryLimitBytes?: Integer64;
  memoryUsageBytes?: Integer64;
  cpuQuotaUs?: number;
  cpuPeriodUs?: number;
  cpuBurstUs?: number;
};

/** A write that has no directory yet. */
type Draft = Omit<ResourceWrite, "directory">;

const RESOURCES = "/linux/resources";
const UNLIMITED = -1;
/** cpu.cfs_period_us of a new cgroup. */
const DEFAULT_PERIOD_US = 100_000;

/**
 * The writes that put resources into effect, in the order the kernel needs, to be done before a process enters.
 * Each controller is served where it is mounted, on version 1 or 2. On version 2 device rules are a program, not files:
 * see deviceFilterDirectory.
 * @param current given when a running container is updated: it decides the order where new and old limits could
 *   contradict each other; device rules are left as they are then
 * @param options devices: whether device rules are wanted; version 1 has some where none are given
 * @throws ContainerError ERR_SPEC for what cannot be expressed or has no controller, with its JSON pointer
 */
export function resourceWrites(
  layout: CgroupLayout,
  directories: readonly CgroupDirectory[],
  resources: Resources = {},
  current?: CurrentResources,
  { devices = true } = {},
): ResourceWrite[] {
  const writes: ResourceWrite[] = [];
  /** Drafts for whichever version has the controller; v2 names it differently in one case (io). */
  const serve = (v1Name: string, v2Name: string, draft: (version: 1 | 2) => Draft[]) => {
    const directory = holderOf(directories, v1Name, 1) ?? holderOf(directories, v2Name, 2);
    const drafts = draft(directory?.hierarchy.version ?? (layout.mode === "v2" ? 2 : 1));
    for (const each of drafts) {
      if (directory !== undefined) writes.push({ directory: directory.path, ...each });
      else if (each.optional === undefined)
        throw layout.hierarchies.some(({ controllers }) => controllers.includes(v1Name) || controllers.includes(v2Name))
          ? notOurs(layout, v1Name, each.from)
          : unsupported(each.from, `there is no cgroup controller for ${each.file}`);
    }
  };
  const { memory = {}, cpu = {}, blockIO = {}, pids, unified } = resources;

  if (current === undefined) {
    writes.push(...cpusetInheritance(directories, cpu));
    if (devices && holderOf(directories, "devices", 1) !== undefined)
      serve("devices", "devices", () => deviceDrafts(resources));
  }
  serve("cpuset", "cpuset", () => cpusetDrafts(cpu));
  serve("cpu", "cpu", (version) => (version === 1 ? cpuDraftsV1(cpu, current) : cpuDraftsV2(cpu, current)));
  serve("memory", "memory", (version) => memoryDrafts(version, memory, current));
  serve("pids", "pids", () => (pids === undefined ? [] : pidsDrafts(pids.limit)));
  serve("blkio", "io", (version) => (version === 1 ? blockDraftsV1(blockIO) : blockDraftsV2(blockIO)));
  serve("hugetlb", "hugetlb", (version) => hugepageDrafts(version, resources));
  serve("rdma", "rdma", () => rdmaDrafts(resources));
  serve("net_cls", "net_cls", () => classDrafts(resources));
  serve("net_prio", "net_prio", () => priorityDrafts(resources));
  if (unified !== undefined) writes.push(...unifiedWrites(layout, directories, unified));
  return [...(current === undefined ? enabledControllers(layout, directories, writes) : []), ...writes];
}

/** The directory that deviceFilter(deviceRules(…)) is to be attached to; undefined where version 1 has device files. */
export function deviceFilterDirectory(directories: readonly CgroupDirectory[]): string | undefined {
  if (holderOf(directories, "devices", 1) !== undefined) return undefined;
  return directories.find(({ hierarchy }) => hierarchy.version === 2)?.path;
}

/**
 * cpu.shares of version 1 (2 to 262144, usually 1024) as cpu.weight of version 2 (1 to 10000, usually 100): a curve
 * through both ends and the usual value, as runc has it since 1.3.2 and crun since 1.23.
 */
export function cpuWeight(shares: number): number {
  if (shares <= 2) return 1;
  if (shares >= 262144) return 10000;
  const log = Math.log2(shares);
  return Math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34));
}

/** blkio.weight of version 1 (10 to 1000) as io.weight of version 2 (1 to 10000), linear. */
export function ioWeight(weight: number): number {
  return 1 + Math.floor(((weight - 10) * 9999) / 990);
}

function holderOf(directories: readonly CgroupDirectory[], controller: string, version: 1 | 2) {
  return directories.find(
    ({ hierarchy }) => hierarchy.version === version && hierarchy.controllers.includes(controller),
  );
}

/**
 * On version 2 a controller works in a directory only after every directory above has handed it down. What the
 * resources need must be there; the rest is asked for too, so that there is something to count.
 */
function enabledControllers(
  layout: CgroupLayout,
  directories: readonly CgroupDirectory[],
  writes: readonly ResourceWrite[],
): ResourceWrite[] {
  const directory = directories.find(({ hierarchy }) => hierarchy.version === 2);
  if (directory === undefined) return [];
  const first = new Map<string, ResourceWrite>();
  for (const write of writes.filter((each) => each.directory === directory.path && each.optional === undefined)) {
    const controller = controllerOf(write.file);
    if (!first.has(controller)) first.set(controller, write);
  }
  return ancestry(directory, true)
    .slice(0, -1)
    .flatMap((path) =>
      directory.hierarchy.controllers.flatMap((controller): ResourceWrite[] => {
        const need = first.get(controller);
        // where version 1 does the work, the version 2 tree stays as it is: nobody would turn a controller off again
        if (need === undefined && layout.mode === "hybrid") return [];
        const write = { directory: path, file: "cgroup.subtree_control", value: `+${controller}` };
        // what is above a part of the tree that was handed to a user is not his: root has enabled what it handed over
        const optional = need === undefined || directory.hierarchy.delegated !== undefined;
        return [{ ...write, from: need?.from ?? "/linux/cgroupsPath", ...(optional ? { optional: true } : {}) }];
      }),
    );
}

function controllerOf(file: string): string {
  return file.slice(0, Math.max(file.indexOf("."), 0));
}

/** Version 1 makes cpusets empty, and a cpuset without processors or memory nodes accepts no process. */
function cpusetInheritance(directories: readonly CgroupDirectory[], cpu: Cpu): ResourceWrite[] {
  const directory = holderOf(directories, "cpuset", 1);
  if (directory === undefined) return [];
  const inherit = (path: string, file: string): ResourceWrite => ({
    directory: path,
    file,
    value: undefined,
    from: "/linux/cgroupsPath",
  });
  return ancestry(directory, false).flatMap((path) => [
    ...(path === directory.path && cpu.cpus ? [] : [inherit(path, "cpuset.cpus")]),
    ...(path === directory.path && cpu.mems ? [] : [inherit(path, "cpuset.mems")]),
  ]);
}

function deviceDrafts(resources: Resources): Draft[] {
  const list = deviceList(deviceRules(resources.devices));
  return [
    { file: list.allow ? "devices.allow" : "devices.deny", value: "a", from: `${RESOURCES}/devices` },
    ...list.exceptions.map((rule) => ({
      file: list.allow ? "devices.deny" : "devices.allow",
      value: deviceText(rule),
      from: rule.from,
    })),
  ];
}

function cpusetDrafts({ cpus, mems }: Cpu): Draft[] {
  return [
    ...(cpus ? [{ file: "cpuset.cpus", value: cpus, from: `${RESOURCES}/cpu/cpus` }] : []),
    ...(mems ? [{ file: "cpuset.mems", value: mems, from: `${RESOURCES}/cpu/mems` }] : []),
  ];
}

function cpuDraftsV1(cpu: Cpu, current: CurrentResources = {}): Draft[] {
  if (cpu.shares && (cpu.shares < 2 || cpu.shares > 262144)) {
    throw unsupported(`${RESOURCES}/cpu/shares`, "cpu shares go from 2 to 262144");
  }
  const quota = draft("cpu.cfs_quota_us", cpu.quota, `${RESOURCES}/cpu/quota`);
  const period = draft("cpu.cfs_period_us", cpu.period, `${RESOURCES}/cpu/period`);
  // Between the two writes the share of time, quota / period, must not exceed both the old one and the new one, or the
  // parent's limit could be exceeded and the kernel refuse.
  const grows = (cpu.period ?? 0) >= (current.cpuPeriodUs ?? DEFAULT_PERIOD_US);
  const bandwidth =
    grows || !cpu.quota || current.cpuQuotaUs === undefined ? [...period, ...quota] : [...quota, ...period];
  return [
    ...idleDrafts(cpu),
    ...sharesDrafts(cpu, "cpu.shares", (shares) => shares),
    ...inBurstOrder(draft("cpu.cfs_burst_us", cpu.burst, `${RESOURCES}/cpu/burst`, true), bandwidth, cpu, current),
    // A runtime greater than the period is refused, so the period goes first.
    ...draft("cpu.rt_period_us", cpu.realtimePeriod, `${RESOURCES}/cpu/realtimePeriod`),
    ...draft("cpu.rt_runtime_us", cpu.realtimeRuntime, `${RESOURCES}/cpu/realtimeRuntime`),
  ];
}

function cpuDraftsV2(cpu: Cpu, current: CurrentResources = {}): Draft[] {
  for (const name of ["realtimeRuntime", "realtimePeriod"] as const) {
    if (cpu[name]) throw unsupported(`${RESOURCES}/cpu/${name}`, "cgroup v2 has no limits on realtime processes");
  }
  const quota = cpu.quota || current.cpuQuotaUs || UNLIMITED;
  const bandwidth: Draft[] =
    cpu.quota || cpu.period
      ? [
          {
            file: "cpu.max",
            // Without a period the kernel keeps the one it has.
            value: `${quota > 0 ? quota : "max"}${cpu.period ? ` ${cpu.period}` : ""}`,
            from: `${RESOURCES}/cpu/${cpu.quota ? "quota" : "period"}`,
          },
        ]
      : [];
  return [
    ...idleDrafts(cpu),
    ...sharesDrafts(cpu, "cpu.weight", cpuWeight),
    ...inBurstOrder(draft("cpu.max.burst", cpu.burst, `${RESOURCES}/cpu/burst`, true), bandwidth, cpu, current),
  ];
}

/** idle goes before shares: leaving idleness sets the shares to their usual value. */
function idleDrafts({ idle }: Cpu): Draft[] {
  // Zero is what every cgroup has, and kernels before 5.15 lack the file.
  if (idle === 0) return [{ file: "cpu.idle", value: "0", from: `${RESOURCES}/cpu/idle`, optional: true }];
  return draft("cpu.idle", idle, `${RESOURCES}/cpu/idle`);
}

/** An idle cgroup has the least weight there is, and the kernel refuses to be told another. */
function sharesDrafts({ shares, idle }: Cpu, file: string, weight: (shares: number) => number): Draft[] {
  return shares && idle !== 1 ? draft(file, weight(shares), `${RESOURCES}/cpu/shares`) : [];
}

/** The burst may never be greater than the quota: it goes down before it and up after it. */
function inBurstOrder(burst: Draft[], bandwidth: Draft[], cpu: Cpu, current: CurrentResources): Draft[] {
  return (cpu.burst ?? 0) < (current.cpuBurstUs ?? 0) ? [...burst, ...bandwidth] : [...bandwidth, ...burst];
}

function memoryDrafts(version: 1 | 2, memory: Memory, current: CurrentResources = {}): Draft[] {
  const { reservation, swappiness, disableOOMKiller } = memory;
  // Memory without limit means swap without limit too, unless swap is limited by name.
  const unlimitedSwap = isUnlimited(memory.limit) && !memory.swap;
  const swap = unlimitedSwap ? UNLIMITED : memory.swap;
  const limit = memory.limit || current.memoryLimitBytes;
  if (swap && swap > 0) {
    if (!limit) throw unsupported(`${RESOURCES}/memory/swap`, "memory and swap together need a limit on memory too");
    if (limit > swap)
      throw unsupported(`${RESOURCES}/memory/swap`, "memory and swap together are less than memory alone");
  }
  const pointer = (name: keyof Memory) => `${RESOURCES}/memory/${name}`;
  const swapFrom = pointer(unlimitedSwap ? "limit" : "swap");
  if (version === 2) {
    if (swappiness !== undefined) throw unsupported(pointer("swappiness"), "cgroup v2 has no swappiness");
    if (disableOOMKiller) throw unsupported(pointer("disableOOMKiller"), "cgroup v2 cannot switch the OOM killer off");
    const { memoryUsageBytes } = current;
    if (memory.checkBeforeUpdate && memory.limit && memory.limit > 0 && (memoryUsageBytes ?? 0) > memory.limit) {
      throw unsupported(pointer("limit"), `${memoryUsageBytes} bytes are in use, more than the new limit`);
    }
    // v2 counts swap alone. No swap at all is also what a kernel without swap accounting gives.
    const swapAlone = swap && swap > 0 && limit && limit > 0 ? BigInt(swap) - BigInt(limit) : swap;
    const tolerant = swap && (isUnlimited(swap) || swapAlone === 0n) ? { optional: true as const } : {};
    return [
      ...(swap ? [{ file: "memory.swap.max", value: maxText(swapAlone ?? 0), from: swapFrom, ...tolerant }] : []),
      ...(memory.limit ? [{ file: "memory.max", value: maxText(memory.limit), from: pointer("limit") }] : []),
      ...(reservation ? [{ file: "memory.low", value: maxText(reservation), from: pointer("reservation") }] : []),
    ];
  }
  if (swappiness !== undefined && swappiness > 100)
    throw unsupported(pointer("swappiness"), "swappiness goes from 0 to 100");
  const limits = draft("memory.limit_in_bytes", memory.limit, pointer("limit"));
  // Swap accounting can be switched off at boot, and is then without limit.
  const both = draft("memory.memsw.limit_in_bytes", swap, swapFrom).map(
    (each): Draft => (isUnlimited(swap) ? { ...each, optional: true } : each),
  );
  // memory ≤ memory and swap, always: the upper one goes first if memory grows beyond what it is.
  const grows =
    isUnlimited(swap) || (swap && current.memoryLimitBytes !== undefined && current.memoryLimitBytes < swap);
  return [
    ...(memory.useHierarchy
      ? [{ file: "memory.use_hierarchy", value: "1", from: pointer("useHierarchy"), optional: true as const }]
      : []),
    ...(grows ? [...both, ...limits] : [...limits, ...both]),
    ...draft("memory.soft_limit_in_bytes", reservation, pointer("reservation")),
    ...(disableOOMKiller ? [{ file: "memory.oom_control", value: "1", from: pointer("disableOOMKiller") }] : []),
    ...draft("memory.swappiness", swappiness, pointer("swappiness"), true),
  ];
}

/** A limit of 0 would forbid even the first process; as in runc it means 1. */
function pidsDrafts(limit: number): Draft[] {
  const from = `${RESOURCES}/pids/limit`;
  if (limit < 0) return [{ file: "pids.max", value: "max", from, optional: true }];
  return [{ file: "pids.max", value: `${Math.max(limit, 1)}`, from }];
}

const THROTTLES = [
  ["throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"],
  ["throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"],
  ["throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"],
  ["throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"],
] as const;

/** The weight files belong to a scheduler: CFQ until Linux 4.20, BFQ since. */
function blockDraftsV1(block: BlockIo): Draft[] {
  const pointer = `${RESOURCES}/blockIO`;
  const weight = (name: string, value: string, from: string): Draft => ({
    file: `blkio.bfq.${name}`,
    value,
    from,
    otherwise: { file: `blkio.${name}`, value },
  });
  return [
    ...(block.weight ? [weight("weight", `${block.weight}`, `${pointer}/weight`)] : []),
    ...draft("blkio.leaf_weight", block.leafWeight, `${pointer}/leafWeight`),
    ...(block.weightDevice ?? []).flatMap((device, index) => {
      const from = `${pointer}/weightDevice/${index}`;
      const number = `${device.major}:${device.minor}`;
      return [
        ...(device.weight ? [weight("weight_device", `${number} ${device.weight}`, from)] : []),
        ...(device.leafWeight ? draft("blkio.leaf_weight_device", `${number} ${device.leafWeight}`, from) : []),
      ];
    }),
    ...THROTTLES.flatMap(([name, file]) =>
      (block[name] ?? []).flatMap(({ major, minor, rate = 0 }, index) =>
        draft(file, `${major}:${minor} ${rate}`, `${pointer}/${name}/${index}`),
      ),
    ),
  ];
}

function blockDraftsV2(block: BlockIo): Draft[] {
  const pointer = `${RESOURCES}/blockIO`;
  const leaf = block.leafWeight || block.weightDevice?.some(({ leafWeight }) => leafWeight);
  if (leaf) throw unsupported(`${pointer}/leafWeight`, "cgroup v2 has no leaf weights");
  const weight = (prefix: string, value: number, from: string): Draft => ({
    file: "io.bfq.weight",
    value: `${prefix}${value}`,
    from,
    otherwise: { file: "io.weight", value: `${prefix}${ioWeight(value)}` },
  });
  return [
    ...(block.weight ? [weight("", block.weight, `${pointer}/weight`)] : []),
    ...(block.weightDevice ?? []).flatMap((device, index) =>
      device.weight
        ? [weight(`${device.major}:${device.minor} `, device.weight, `${pointer}/weightDevice/${index}`)]
        : [],
    ),
    ...THROTTLES.flatMap(([name, , key]) =>
      (block[name] ?? []).flatMap(({ major, minor, rate = 0 }, index) =>
        // 0 takes a limit away on version 1; on version 2 that is "max".
        draft("io.max", `${major}:${minor} ${key}=${rate || "max"}`, `${pointer}/${name}/${index}`),
      ),
    ),
  ];
}

function hugepageDrafts(version: 1 | 2, { hugepageLimits = [] }: Resources): Draft[] {
  return hugepageLimits.flatMap(({ pageSize, limit }, index) => {
    const from = `${RESOURCES}/hugepageLimits/${index}`;
    if (!/^[1-9][0-9]*[KMG]B$/.test(pageSize)) throw unsupported(from, `there are no pages of size ${pageSize}`);
    const file = version === 1 ? "limit_in_bytes" : "max";
    return [
      { file: `hugetlb.${pageSize}.${file}`, value: `${limit}`, from },
      // Reserving is counted apart since Linux 5.7; without the limit a process could reserve what it cannot fault in.
      { file: `hugetlb.${pageSize}.rsvd.${file}`, value: `${limit}`, from, optional: true as const },
    ];
  });
}

function rdmaDrafts({ rdma = {} }: Resources): Draft[] {
  return Object.entries(rdma).map(([device, { hcaHandles, hcaObjects }]) => ({
    file: "rdma.max",
    value: [
      device,
      ...(hcaHandles === undefined ? [] : [`hca_handle=${hcaHandles}`]),
      ...(hcaObjects === undefined ? [] : [`hca_object=${hcaObjects}`]),
    ].join(" "),
    from: `${RESOURCES}/rdma/${pointerToken(device)}`,
  }));
}

function classDrafts({ network = {} }: Resources): Draft[] {
  return draft("net_cls.classid", network.classID, `${RESOURCES}/network/classID`);
}

function priorityDrafts({ network = {} }: Resources): Draft[] {
  return (network.priorities ?? []).map(({ name, priority }, index) => ({
    file: "net_prio.ifpriomap",
    value: `${name} ${priority}`,
    from: `${RESOURCES}/network/priorities/${index}`,
  }));
}

function unifiedWrites(
  layout: CgroupLayout,
  directories: readonly CgroupDirectory[],
  unified: Record<string, string>,
): ResourceWrite[] {
  const directory = directories.find(({ hierarchy }) => hierarchy.version === 2);
  return Object.entries(unified).flatMap(([file, value]) => {
    const from = `${RESOURCES}/unified/${pointerToken(file)}`;
    if (layout.mode !== "v2" || directory === undefined)
      // runc's words first
      throw unsupported(from, "invalid configuration: cannot use unified on cgroup v1, which this system runs on");
    // A file name, never a path: "../x" would be another cgroup's.
    if (!/^[^/\0]*\.[^/\0]+$/.test(file) || file.startsWith("."))
      throw unsupported(from, "it is not a cgroup file's name");
    const controller = controllerOf(file);
    if (controller !== "cgroup" && !directory.hierarchy.controllers.includes(controller)) {
      throw unsupported(from, `there is no cgroup controller for ${file}`);
    }
    // Files such as io.max take one line a write.
    const lines = value.split("\n").filter((line) => line !== "");
    return (lines.length === 0 ? [value] : lines).map((line) => ({
      directory: directory.path,
      file,
      value: line,
      from,
    }));
  });
}

/** A write, unless the value is absent or 0, which in these fields means "unset"; `zero` where 0 is a value. */
function draft(file: string, value: Integer64 | string | undefined, from: string, zero = false): Draft[] {
  if (value === undefined || (!value && !zero)) return [];
  return [{ file, value: `${value}`, from }];
}

function isUnlimited(value: Integer64 | undefined): boolean {
  return value !== undefined && BigInt(value) === -1n;
}

function maxText(value: Integer64): string {
  return isUnlimited(value) ? "max" : `${value}`;
}

/** RFC 6901: a slash in a name would end it. */
function pointerToken(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}

/** The controller is there, but its hierarchy was not given to this user: runc's words. */
function notOurs({ mode }: CgroupLayout, controller: string, from: string): ContainerError {
  const message =
    mode === "v2"
      ? "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
      : `cannot set ${controller} limit: container could not join or create cgroup`;
  return new ContainerError({ message, code: "ERR_SPEC", from });
}

function unsupported(from: string, reason: string): ContainerError {
  const name = from.slice(RESOURCES.length + 1).replaceAll("/", " ");
  return new ContainerError({ message: `cannot set ${name}: ${reason}`, code: "ERR_SPEC", from });
}
