import { readdirSync } from "node:fs";
import type { CgroupDirectory } from "../plan/cgroup-layout.ts";
import type { Integer64 } from "../spec/spec.ts";
import { readController, readV2 } from "./cgroup.ts";

/** What a container uses, in the shape of the data of `runc events --stats`. Times in nanoseconds, memory in bytes. */
export type Statistics = {
  cpu: {
    usage: {
      total: Integer64;
      percpu?: Integer64[];
      percpu_kernel?: Integer64[];
      percpu_user?: Integer64[];
      kernel: Integer64;
      user: Integer64;
    };
    throttling: { periods: Integer64; throttledPeriods: Integer64; throttledTime: Integer64 };
    psi?: Pressure;
  };
  /** Only version 1 has these; `cpus` and `mems` are those in effect. */
  cpuset: { cpus: number[]; mems: number[] } & { [setting in (typeof CPUSET_SETTINGS)[number]]: Integer64 };
  memory: {
    cache: Integer64;
    usage: MemoryEntry;
    /** Memory and swap together, as version 1 counts. */
    swap: MemoryEntry;
    kernel: MemoryEntry;
    kernelTCP: MemoryEntry;
    /** memory.stat as it is. */
    raw: Record<string, Integer64>;
    psi?: Pressure;
  };
  /** A limit of 0 means none. */
  pids: { current: Integer64; limit: Integer64 };
  blkio: { ioServiceBytesRecursive: BlockEntry[]; ioServicedRecursive: BlockEntry[]; psi?: Pressure };
  /** By page size, such as "2MB". */
  hugetlb: Record<string, { usage: Integer64; max: Integer64; failcnt: Integer64 }>;
  /** By resource, such as "sev"; `events` counts how often its limit was in the way. */
  misc: Record<string, { usage: Integer64; events: Integer64 }>;
};

/** Without a limit `limit` is the greatest number the kernel or 64 bits have. */
export type MemoryEntry = { limit: Integer64; usage: Integer64; max: Integer64; failcnt: Integer64 };
export type BlockEntry = { major: number; minor: number; op: string; value: Integer64 };

/** Time that tasks have waited for want of something: in percent of the last 10, 60 and 300 s, and in all, in µs; PSI. */
export type Pressure = { some: Stall; full: Stall };
export type Stall = { avg10: number; avg60: number; avg300: number; total: Integer64 };

const CPUSET_SETTINGS = [
  "cpu_exclusive",
  "mem_hardwall",
  "mem_exclusive",
  "memory_migrate",
  "memory_spread_page",
  "memory_spread_slab",
  "memory_pressure",
  "sched_load_balance",
  "sched_relax_domain_level",
] as const;
const UNLIMITED = 2n ** 64n - 1n;
/** USER_HZ, in which the kernel reports times to programs, is 100 on every architecture but alpha. */
const TICK_NS = 10_000_000;

/** Reads what the cgroups of a container have counted. Each part comes from the version that has its controller. */
export function statistics(directories: readonly CgroupDirectory[]): Statistics {
  const v1 = (controller: string, file: string) => readController(directories, controller, file);
  const v2 = (file: string) => readV2(directories, file);
  return {
    cpu: { ...cpu(v1, v2), ...pressure(v2("cpu.pressure")) },
    cpuset: cpuset(v1),
    memory: { ...memory(v1, v2), ...pressure(v2("memory.pressure")) },
    pids: pids(v1, v2),
    blkio: { ...blkio(v1, v2), ...pressure(v2("io.pressure")) },
    hugetlb: hugetlb(directories),
    misc: misc(v1, v2),
  };
}

type ReadV1 = (controller: string, file: string) => string | undefined;
type ReadV2 = (file: string) => string | undefined;

function cpu(v1: ReadV1, v2: ReadV2): Statistics["cpu"] {
  const total = v1("cpuacct", "cpuacct.usage");
  if (total === undefined) {
    const stat = table(v2("cpu.stat"));
    const nanoseconds = (key: string) => compact(BigInt(stat[key] ?? 0) * 1000n);
    return {
      usage: { total: nanoseconds("usage_usec"), kernel: nanoseconds("system_usec"), user: nanoseconds("user_usec") },
      throttling: {
        periods: stat.nr_periods ?? 0,
        throttledPeriods: stat.nr_throttled ?? 0,
        throttledTime: nanoseconds("throttled_usec"),
      },
    };
  }
  const stat = table(v1("cpu", "cpu.stat"));
  const ticks = table(v1("cpuacct", "cpuacct.stat"));
  // A header line, then "<processor> <user> <system>".
  const rows = (v1("cpuacct", "cpuacct.usage_all") ?? "")
    .trim()
    .split("\n")
    .slice(1)
    .map((line) => line.split(" "));
  return {
    usage: {
      total: integer(total),
      percpu: (v1("cpuacct", "cpuacct.usage_percpu") ?? "").trim().split(/\s+/).map(integer),
      percpu_kernel: rows.map(([, , system]) => integer(system)),
      percpu_user: rows.map(([, user]) => integer(user)),
      kernel: compact(BigInt(ticks.system ?? 0) * BigInt(TICK_NS)),
      user: compact(BigInt(ticks.user ?? 0) * BigInt(TICK_NS)),
    },
    throttling: {
      periods: stat.nr_periods ?? 0,
      throttledPeriods: stat.nr_throttled ?? 0,
      throttledTime: stat.throttled_time ?? 0,
    },
  };
}

function cpuset(v1: ReadV1): Statistics["cpuset"] {
  const settings = CPUSET_SETTINGS.map((setting) => [setting, integer(v1("cpuset", `cpuset.${setting}`))]);
  const list = (file: string) => numbers(v1("cpuset", `cpuset.effective_${file}`) ?? v1("cpuset", `cpuset.${file}`));
  return { cpus: list("cpus"), mems: list("mems"), ...Object.fromEntries(settings) };
}

/** A list such as "0-2,7", written out. */
function numbers(list = ""): number[] {
  return list
    .trim()
    .split(",")
    .filter((part) => part !== "")
    .flatMap((part) => {
      const [first = 0, last = first] = part.split("-").map(Number);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
}

/** Lines of "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"; none where the kernel does not count. */
function pressure(text: string | undefined): { psi?: Pressure } {
  if (text === undefined || text === "") return {};
  const stall = (kind: string): Stall => {
    const line = new RegExp(`^${kind} (.*)$`, "m").exec(text)?.[1] ?? "";
    const field = (name: string) => new RegExp(`\\b${name}=([0-9.]+)`).exec(line)?.[1];
    return {
      avg10: Number(field("avg10") ?? 0),
      avg60: Number(field("avg60") ?? 0),
      avg300: Number(field("avg300") ?? 0),
      total: integer(field("total")),
    };
  };
  return { psi: { some: stall("some"), full: stall("full") } };
}

function memory(v1: ReadV1, v2: ReadV2): Statistics["memory"] {
  const stat = v1("memory", "memory.stat");
  const none: MemoryEntry = { limit: 0, usage: 0, max: 0, failcnt: 0 };
  if (stat !== undefined) {
    const entry = (name: string): MemoryEntry => ({
      limit: integer(v1("memory", `memory.${name}limit_in_bytes`)),
      usage: integer(v1("memory", `memory.${name}usage_in_bytes`)),
      max: integer(v1("memory", `memory.${name}max_usage_in_bytes`)),
      failcnt: integer(v1("memory", `memory.${name}failcnt`)),
    });
    const raw = table(stat);
    return {
      cache: raw.cache ?? 0,
      usage: entry(""),
      swap: entry("memsw."),
      kernel: entry("kmem."),
      kernelTCP: entry("kmem.tcp."),
      raw,
    };
  }
  const raw = table(v2("memory.stat"));
  const usage: MemoryEntry = {
    limit: integer(v2("memory.max")),
    usage: integer(v2("memory.current")),
    max: integer(v2("memory.peak")),
    failcnt: table(v2("memory.events")).max ?? 0,
  };
  const swapMax = v2("memory.swap.max");
  const unlimited = integer(swapMax) === UNLIMITED || usage.limit === UNLIMITED;
  const swap: MemoryEntry =
    swapMax === undefined
      ? none
      : {
          limit: unlimited ? UNLIMITED : compact(BigInt(integer(swapMax)) + BigInt(usage.limit)),
          usage: compact(BigInt(integer(v2("memory.swap.current"))) + BigInt(usage.usage)),
          // The peaks of two counters need not have been at the same time.
          max: 0,
          failcnt: table(v2("memory.swap.events")).fail ?? 0,
        };
  return { cache: raw.file ?? 0, usage, swap, kernel: none, kernelTCP: none, raw };
}

function pids(v1: ReadV1, v2: ReadV2): Statistics["pids"] {
  const read = (file: string) => v1("pids", file) ?? v2(file);
  const limit = integer(read("pids.max"));
  return { current: integer(read("pids.current")), limit: limit === UNLIMITED ? 0 : limit };
}

function blkio(v1: ReadV1, v2: ReadV2): Statistics["blkio"] {
  // Which files count depends on the scheduler of each disk; throttling counts for all.
  const first = (name: string) =>
    [`blkio.bfq.${name}_recursive`, `blkio.throttle.${name}_recursive`, `blkio.throttle.${name}`]
      .map((file) => blockEntries(v1("blkio", file)))
      .find((entries) => entries.length > 0);
  const unified = v2("io.stat") ?? "";
  return {
    ioServiceBytesRecursive: first("io_service_bytes") ?? unifiedEntries(unified, { rbytes: "Read", wbytes: "Write" }),
    ioServicedRecursive: first("io_serviced") ?? unifiedEntries(unified, { rios: "Read", wios: "Write" }),
  };
}

function hugetlb(directories: readonly CgroupDirectory[]): Statistics["hugetlb"] {
  const directory = directories.find(({ hierarchy }) => hierarchy.controllers.includes("hugetlb"));
  if (directory === undefined) return {};
  const { version } = directory.hierarchy;
  const read = (file: string) =>
    version === 1 ? readController([directory], "hugetlb", file) : readV2([directory], file);
  const sizes = readdirSync(directory.path).flatMap(
    (file) => /^hugetlb\.(\d+[KMG]B)\.(?:limit_in_bytes|max)$/.exec(file)?.[1] ?? [],
  );
  return Object.fromEntries(
    sizes.map((size) => [
      size,
      version === 1
        ? {
            usage: integer(read(`hugetlb.${size}.usage_in_bytes`)),
            max: integer(read(`hugetlb.${size}.max_usage_in_bytes`)),
            failcnt: integer(read(`hugetlb.${size}.failcnt`)),
          }
        : {
            usage: integer(read(`hugetlb.${size}.current`)),
            max: 0,
            failcnt: table(read(`hugetlb.${size}.events`)).max ?? 0,
          },
    ]),
  );
}

function misc(v1: ReadV1, v2: ReadV2): Statistics["misc"] {
  const read = (file: string) => table(v1("misc", file) ?? v2(file));
  const events = read("misc.events");
  return Object.fromEntries(
    Object.entries(read("misc.current")).map(([name, usage]) => [name, { usage, events: events[`${name}.max`] ?? 0 }]),
  );
}

/** Lines of "<major>:<minor> <operation> <value>"; the line "Total <value>" is left out. */
function blockEntries(text = ""): BlockEntry[] {
  return [...text.matchAll(/^(\d+):(\d+) (\w+) (\d+)$/gm)].map(([, major, minor, op = "", value]) => ({
    major: Number(major),
    minor: Number(minor),
    op,
    value: integer(value),
  }));
}

/** Lines of "<major>:<minor> rbytes=<value> wbytes=<value> …". */
function unifiedEntries(text: string, names: Record<string, string>): BlockEntry[] {
  return [...text.matchAll(/^(\d+):(\d+) (.*)$/gm)].flatMap(([, major, minor, fields = ""]) =>
    fields.split(" ").flatMap((field) => {
      const [key = "", value] = field.split("=");
      const op = names[key];
      return op === undefined ? [] : [{ major: Number(major), minor: Number(minor), op, value: integer(value) }];
    }),
  );
}

/** Lines of "<name> <number>". */
function table(text = ""): Record<string, Integer64> {
  return Object.fromEntries([...text.matchAll(/^(\S+) (\d+)$/gm)].map(([, name, value]) => [name, integer(value)]));
}

function integer(text: string | undefined): Integer64 {
  if (text === undefined || text.trim() === "") return 0;
  const word = text.trim();
  return word === "max" ? UNLIMITED : compact(BigInt(word));
}

/** A number where it is exact. */
function compact(value: bigint): Integer64 {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
