import { parseVariant } from "../dbus/text.ts";
import type { Variant } from "../dbus/value.ts";
import { ContainerError } from "../error.ts";
import type { Integer64, Resources } from "../spec/spec.ts";
import { cpuWeight } from "./cgroup-files.ts";
import { accessLetters, deviceList, deviceRules, type FullDeviceRule } from "./device-rules.ts";
import { listMask } from "./limits.ts";

/** A property of a systemd unit, as systemd.resource-control(5) and org.freedesktop.systemd1(5) name it. */
export interface UnitProperty {
  name: string;
  value: Variant;
}

/** A container's unit: a scope in a slice, or a slice of its own. */
export interface Unit {
  name: string;
  slice: string;
}

/** What compile needs to know of the systemd that makes units. */
export interface Systemd {
  /** Such as 252. */
  version: number;
  /** The manager's own cgroup: "" for that of the whole machine, /user.slice/… for a user's. */
  controlGroup: string;
  /** Whether it is the user's own. */
  user: boolean;
}

const FROM = "/spec/linux/cgroupsPath";
/** USEC_INFINITY, CGROUP_LIMIT_MAX: no limit. */
const INFINITY = (1n << 64n) - 1n;
const DEFAULT_PERIOD_US = 100_000n;
const CPU_IDLE_SINCE = 252;

/**
 * The unit that cgroupsPath means, "slice:prefix:name"; any of them may be empty. A name that ends with ".slice" is a
 * slice itself.
 * @throws ContainerError ERR_SPEC in runc's words
 */
export function unitOf(cgroupsPath: string | undefined, id: string, user: boolean): Unit {
  const parts = cgroupsPath === undefined || cgroupsPath === "" ? ["", "caisson", id] : cgroupsPath.split(":");
  const [slice = "", prefix = "", name = "", ...more] = parts;
  if (parts.length < 3 || more.length > 0)
    throw refused(
      `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got ${JSON.stringify(cgroupsPath)} instead`,
    );
  const unit = name.endsWith(".slice") ? name : `${prefix}-${name}.scope`;
  // systemd's own rule for names; it becomes part of a path here
  if (!/^[A-Za-z0-9:_.\\@-]{1,255}$/.test(unit)) throw refused(`invalid unit name: ${unit}`);
  return { name: unit, slice: slice === "" ? (user ? "user.slice" : "system.slice") : slice };
}

/** Whether the unit has no processes of its own making: systemd puts none into a slice. */
export function isSlice({ name }: Unit): boolean {
  return name.endsWith(".slice");
}

/** Where a slice is beneath its manager's cgroup: "a-b.slice" is /a.slice/a-b.slice. systemd.slice(5) @throws ContainerError */
export function slicePath(slice: string): string {
  const name = slice.endsWith(".slice") ? slice.slice(0, -".slice".length) : "";
  if (name === "-") return "";
  const parts = name.split("-");
  if (name.includes("/") || parts.includes("")) throw refused(`invalid slice name: ${slice}`);
  return parts.map((_, i) => `/${parts.slice(0, i + 1).join("-")}.slice`).join("");
}

/** The path of a unit's cgroup in every hierarchy. */
export function unitPath(unit: Unit, { controlGroup }: Systemd): string {
  const manager = controlGroup === "/" ? "" : controlGroup;
  return isSlice(unit) ? `${manager}${slicePath(unit.name)}` : `${manager}${slicePath(unit.slice)}/${unit.name}`;
}

/** What every container's unit has, but for its processes: as runc has it. */
export function basicProperties(unit: Unit, id: string, version: 1 | 2): UnitProperty[] {
  const { slice } = unit;
  return [
    text("Description", `libcontainer container ${id}`),
    ...(isSlice(unit)
      ? [{ name: "Wants", value: { signature: "as", value: [slice] } }]
      : [text("Slice", slice), flag("Delegate", true)]),
    flag("MemoryAccounting", true),
    flag("CPUAccounting", true),
    flag(version === 2 ? "IOAccounting" : "BlockIOAccounting", true),
    flag("TasksAccounting", true),
    flag("DefaultDependencies", false),
  ];
}

/**
 * The part of resources that systemd has properties for; it would undo what was written behind its back. All of it is
 * written into the cgroup's files, too.
 * @param periodUs of an update: the period that holds where resources have none
 * @throws ContainerError ERR_SPEC
 */
export function resourceProperties(
  resources: Resources,
  version: 1 | 2,
  { version: systemdVersion }: Pick<Systemd, "version">,
  periodUs?: number,
): UnitProperty[] {
  const { memory = {}, cpu = {}, pids, blockIO } = resources;
  const properties: UnitProperty[] = [];
  if (version === 2) {
    properties.push(...limit("MemoryMax", memory.limit), ...limit("MemoryLow", memory.reservation));
    // here nothing is nothing: as much swap and memory as memory alone
    const swap = swapAlone(memory.swap, memory.limit);
    if (swap !== undefined) properties.push(number("MemorySwapMax", isUnlimited(swap) ? INFINITY : BigInt(swap)));
    // weight 0 is systemd's word for idle
    if (cpu.idle === 1 && systemdVersion >= CPU_IDLE_SINCE) properties.push(number("CPUWeight", 0n));
    else if (cpu.shares) properties.push(number("CPUWeight", BigInt(cpuWeight(cpu.shares))));
  } else {
    properties.push(...limit("MemoryLimit", memory.limit));
    if (cpu.shares) properties.push(number("CPUShares", BigInt(cpu.shares)));
    if (blockIO?.weight) properties.push(number("BlockIOWeight", BigInt(blockIO.weight)));
  }
  properties.push(...quotaProperties(cpu.quota, cpu.period, periodUs));
  if (pids !== undefined) properties.push(...limit("TasksMax", pids.limit === 0 ? 1 : pids.limit));
  for (const [name, list] of [
    ["AllowedCPUs", cpu.cpus],
    ["AllowedMemoryNodes", cpu.mems],
  ] as const)
    if (list) properties.push({ name, value: { signature: "ay", value: maskOf(list) } });
  return version === 2 ? [...properties, ...unifiedProperties(resources.unified)] : properties;
}

/**
 * Which devices systemd lets be opened. It knows lists of what is allowed alone: where the rules are something else, it
 * allows all of them, and the rules themselves decide, which are in force beside systemd's.
 */
export function deviceProperties(resources: Resources): UnitProperty[] {
  const everything: UnitProperty[] = [text("DevicePolicy", "auto"), devices([])];
  const list = deviceList(deviceRules(resources.devices));
  if (list.allow) return everything;
  return [
    text("DevicePolicy", "strict"),
    // an array is added to what is there, unless it is emptied
    devices([]),
    devices(list.exceptions.flatMap(deviceEntry)),
  ];
}

/** Annotations such as "org.systemd.property.TimeoutStopUSec": "uint64 5". @throws ContainerError ERR_SPEC in runc's words */
export function annotatedProperties(annotations: { [key: string]: string } = {}): UnitProperty[] {
  const prefix = "org.systemd.property.";
  return Object.entries(annotations).flatMap(([key, words]): UnitProperty[] => {
    if (!key.startsWith(prefix)) return [];
    const name = key.slice(prefix.length);
    const from = `/spec/annotations/${key}`;
    if (!/^[A-Za-z]{3,}$/.test(name)) throw refused(`annotation ${key} name incorrect: ${name}`, from);
    let value: Variant;
    try {
      value = parseVariant(words);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : "";
      throw refused(`annotation ${key}=${words} value parse error: ${reason}`, from);
    }
    // unit files have seconds, the bus has microseconds
    if (!/[a-z]Sec$/.test(name)) return [{ name, value }];
    return [number(`${name.slice(0, -"Sec".length)}USec`, microseconds(value, key, from))];
  });
}

function microseconds({ signature, value }: Variant, key: string, from: string): bigint {
  if (!"ynqiuxtd".includes(signature) || (typeof value !== "number" && typeof value !== "bigint"))
    throw refused(`annotation ${key} is not a number of seconds`, from);
  if (value < 0) throw refused(`annotation ${key} is negative`, from);
  return typeof value === "bigint" ? value * 1_000_000n : BigInt(Math.round(value * 1_000_000));
}

/** Processor time in microseconds a second, rounded up to whole percents, as systemd would round it down. */
function quotaProperties(
  quota: Integer64 | undefined,
  period: Integer64 | undefined,
  current?: number,
): UnitProperty[] {
  if (!quota && !period) return [];
  const properties = period ? [number("CPUQuotaPeriodUSec", BigInt(period))] : [];
  let perSecond = INFINITY;
  if (quota && quota > 0) {
    const per = period ? BigInt(period) : current === undefined ? DEFAULT_PERIOD_US : BigInt(current);
    const exact = (BigInt(quota) * 1_000_000n) / per;
    perSecond = ((exact + 9_999n) / 10_000n) * 10_000n;
  }
  return [...properties, number("CPUQuotaPerSecUSec", perSecond)];
}

/** Version 2 counts swap without memory. */
function swapAlone(swap: Integer64 | undefined, memory: Integer64 | undefined): Integer64 | undefined {
  // memory without limit means swap without limit, too
  if (!swap) return isUnlimited(memory) ? -1 : undefined;
  if (isUnlimited(swap) || !memory || isUnlimited(memory)) return swap;
  return BigInt(swap) - BigInt(memory);
}

const UNIFIED_LIMITS: { [file: string]: string } = {
  "memory.max": "MemoryMax",
  "memory.high": "MemoryHigh",
  "memory.low": "MemoryLow",
  "memory.min": "MemoryMin",
  "memory.swap.max": "MemorySwapMax",
  "pids.max": "TasksMax",
};

/** Files of linux.resources.unified that are properties, too; the others are none of systemd's. */
function unifiedProperties(unified: { [file: string]: string } = {}): UnitProperty[] {
  return Object.entries(unified).flatMap(([file, whole]): UnitProperty[] => {
    const words = whole.trim();
    const property = UNIFIED_LIMITS[file];
    const count = words === "max" ? -1n : /^\d+$/.test(words) ? BigInt(words) : undefined;
    if (property !== undefined && count !== undefined) return [number(property, count === -1n ? INFINITY : count)];
    if (file === "cpu.weight" && count !== undefined) return [number("CPUWeight", count)];
    if (file === "cpuset.cpus" && words !== "")
      return [{ name: "AllowedCPUs", value: { signature: "ay", value: maskOf(words) } }];
    if (file === "cpuset.mems" && words !== "")
      return [{ name: "AllowedMemoryNodes", value: { signature: "ay", value: maskOf(words) } }];
    const [, quota, period] = file === "cpu.max" ? (/^(max|\d+)(?: (\d+))?$/.exec(words) ?? []) : [];
    if (quota === undefined) return [];
    return quotaProperties(quota === "max" ? -1 : Number(quota), Number(period ?? DEFAULT_PERIOD_US));
  });
}

/** systemd's ways to name devices: a path of one, or a kind with a major number, or with all. */
function deviceEntry({ type, major, minor, access }: FullDeviceRule): [string, string][] {
  const kind = type === "b" ? "block" : "char";
  const letters = accessLetters(access);
  if (major === undefined) return minor === undefined ? [[`${kind}-*`, letters]] : [];
  return [[minor === undefined ? `${kind}-${major}` : `/dev/${kind}/${major}:${minor}`, letters]];
}

/** As few bytes as it takes, lowest processor first. */
function maskOf(list: string): Uint8Array {
  const mask = listMask(list);
  return mask.subarray(0, mask.findLastIndex((byte) => byte !== 0) + 1);
}

function limit(name: string, value: Integer64 | undefined): UnitProperty[] {
  if (!value) return [];
  return [number(name, isUnlimited(value) ? INFINITY : BigInt(value))];
}

function isUnlimited(value: Integer64 | undefined): boolean {
  return value !== undefined && BigInt(value) < 0n;
}

function text(name: string, value: string): UnitProperty {
  return { name, value: { signature: "s", value } };
}

function flag(name: string, value: boolean): UnitProperty {
  return { name, value: { signature: "b", value } };
}

function number(name: string, value: bigint): UnitProperty {
  return { name, value: { signature: "t", value } };
}

function devices(entries: [string, string][]): UnitProperty {
  return { name: "DeviceAllow", value: { signature: "a(ss)", value: entries } };
}

function refused(message: string, from = FROM): ContainerError {
  return new ContainerError({ message, code: "ERR_SPEC", from });
}
