import { capabilityMask, capabilityNames } from "../linux/capabilities.ts";
import { MOUNT_ATTR, parseMountOptions } from "../linux/mount-options.ts";
import type { MountEntry } from "../linux/mountinfo.ts";
import { NAMESPACES } from "../linux/namespaces.ts";
import { LIMIT_WORDS } from "../linux/process-status.ts";
import { RLIM_INFINITY } from "../linux/rlimits.ts";
import { resourceWrites } from "../plan/cgroup-files.ts";
import type { CgroupDirectory } from "../plan/cgroup-layout.ts";
import type { Definition } from "../plan/definition.ts";
import type { Host } from "../plan/host.ts";
import { isNew } from "../plan/namespaces.ts";
import { normalPath } from "../plan/path.ts";
import type { IdMapping, Mount, Spec } from "../spec/spec.ts";
import type { Wanted } from "./look.ts";
import type { Sight } from "./sight.ts";

/** What is to be compared: a definition, or only the spec of another runtime's bundle. */
export type Expectation = Pick<Definition, "spec" | "preserved"> & {
  /** The container's own cgroups, where they are known. */
  cgroups?: readonly CgroupDirectory[];
};

/** Something that is not as planned. */
export interface Difference {
  /** JSON pointer into the spec of what asks for it. */
  from: string;
  what: string;
  expected: string;
  found: string;
}

export interface Verdict {
  /** How many things were compared. */
  compared: number;
  differences: Difference[];
}

/** What has to be looked at for this expectation. Pure. */
export function wanted({ spec }: Expectation): Wanted {
  const { maskedPaths = [], readonlyPaths = [], namespaces = [] } = spec.linux ?? {};
  const mounts = spec.mounts ?? [];
  return {
    places: ["/", ...mounts.map(({ destination }) => destination), ...maskedPaths, ...readonlyPaths],
    files: [...READABLE, DEVICES_LIST],
    joined: namespaces.flatMap(({ path }) => (path === undefined || path === "" ? [] : [path])),
  };
}

/**
 * Compares a running process with the plan of its container. A program may confine itself further than it was; what is
 * looser than planned, missing, or nobody's, is a difference. Pure.
 */
export function verify(expectation: Expectation, host: Host, sight: Sight): Verdict {
  const comparison = new Comparison();
  compareNamespaces(expectation.spec, sight, comparison);
  compareIdentity(expectation.spec, sight, comparison);
  comparePrivileges(expectation.spec, sight, comparison);
  compareLimits(expectation.spec, sight, comparison);
  compareMounts(expectation.spec, sight, comparison);
  comparePaths(expectation.spec, sight, comparison);
  compareCgroups(expectation, host, sight, comparison);
  compareDescriptors(expectation, sight, comparison);
  return comparison;
}

class Comparison implements Verdict {
  compared = 0;
  readonly differences: Difference[] = [];

  expect(holds: boolean, from: string, what: string, expected: string, found: string): void {
    this.compared++;
    if (!holds) this.differences.push({ from, what, expected, found });
  }

  same(from: string, what: string, expected: string, found: string | undefined): void {
    this.expect(found === expected, from, what, expected, found ?? "nothing");
  }
}

function compareNamespaces({ linux = {} }: Spec, sight: Sight, comparison: Comparison): void {
  const listed = linux.namespaces ?? [];
  for (const [type, { file }] of Object.entries(NAMESPACES)) {
    const at = listed.findIndex((namespace) => namespace.type === type);
    const { path = "" } = listed[at] ?? {};
    const found = sight.namespaces.get(file);
    const ours = sight.own.get(file);
    if (found === undefined || ours === undefined) continue; // this kernel has none, or it is not ours to see
    const from = `/linux/namespaces${at < 0 ? "" : `/${at}`}`;
    const what = `${type} namespace`;
    if (at < 0) comparison.expect(found === ours, from, what, `the host's, ${ours}`, found);
    else if (path !== "") comparison.same(from, what, sight.joined.get(path) ?? `that of ${path}`, found);
    else comparison.expect(found !== ours, from, what, "one of its own", `the host's, ${found}`);
  }
  for (const [clock, { secs = 0, nanosecs = 0 }] of Object.entries(linux.timeOffsets ?? {})) {
    const [, ...found] = sight.timeOffsets.match(new RegExp(`^${clock}\\s+(\\S+)\\s+(\\S+)$`, "m")) ?? [];
    comparison.same(`/linux/timeOffsets/${clock}`, `offset of ${clock}`, `${secs} ${nanosecs}`, found.join(" "));
  }
}

function compareIdentity(spec: Spec, sight: Sight, comparison: Comparison): void {
  const { uidMappings, gidMappings } = spec.linux ?? {};
  if (isNew(spec, "user")) {
    comparison.same("/linux/uidMappings", "user ids", mapText(uidMappings), words(sight.uidMap));
    comparison.same("/linux/gidMappings", "group ids", mapText(gidMappings), words(sight.gidMap));
  }
  const { uid = 0, gid = 0, additionalGids = [] } = spec.process?.user ?? {};
  const uids = ids(sight, "Uid");
  const expected = hostId(sight.uidMap, uid);
  // root may become anybody by itself, nobody else may
  if (uid === 0 && !uids.includes(expected)) return;
  const from = "/process/user";
  const only = (found: number[], id: number) => found.every((each) => each === id);
  comparison.expect(only(uids, expected), `${from}/uid`, "user", `${expected} on the host`, uids.join(" "));
  if (uid === 0) return;
  const gids = ids(sight, "Gid");
  const group = hostId(sight.gidMap, gid);
  comparison.expect(only(gids, group), `${from}/gid`, "group", `${group} on the host`, gids.join(" "));
  const allowed = [group, ...additionalGids.map((each) => hostId(sight.gidMap, each))];
  const extra = ids(sight, "Groups").filter((each) => !allowed.includes(each));
  comparison.expect(extra.length === 0, `${from}/additionalGids`, "more groups", "none", extra.join(" "));
}

function comparePrivileges({ process = { cwd: "/" }, linux }: Spec, sight: Sight, comparison: Comparison): void {
  const { capabilities = {}, noNewPrivileges = false, apparmorProfile = "", selinuxLabel = "" } = process;
  const { bounding = [], inheritable = [], ambient = [] } = capabilities;
  const isRoot = ids(sight, "Uid").includes(hostId(sight.uidMap, 0));
  // capabilities(7): what execve can give root, or whoever executes a file with capabilities of its own
  const reach = noNewPrivileges && !isRoot ? capabilityMask(ambient) : capabilityMask([...bounding, ...inheritable]);
  const sets: [name: string, field: string, allowed: bigint][] = [
    ["bounding", "CapBnd", capabilityMask(bounding)],
    ["permitted", "CapPrm", reach],
    ["effective", "CapEff", reach],
    ["inheritable", "CapInh", capabilityMask(inheritable)],
    ["ambient", "CapAmb", capabilityMask(ambient)],
  ];
  for (const [name, field, allowed] of sets) {
    const extra = BigInt(`0x${sight.status.get(field) ?? "0"}`) & ~allowed;
    const from = `/process/capabilities/${name}`;
    comparison.expect(extra === 0n, from, `more ${name} capabilities`, "none", capabilityNames(extra).join(" "));
  }
  if (noNewPrivileges) comparison.same("/process/noNewPrivileges", "no_new_privs", "1", sight.status.get("NoNewPrivs"));
  if (linux?.seccomp !== undefined)
    comparison.same("/linux/seccomp", "seccomp mode", FILTERED, sight.status.get("Seccomp"));
  for (const [name, label] of Object.entries({ apparmorProfile, selinuxLabel }))
    if (label !== "")
      comparison.expect(
        sight.label?.startsWith(label) === true,
        `/process/${name}`,
        "security label",
        label,
        sight.label ?? "none",
      );
}

/** SECCOMP_MODE_FILTER, as status says it. */
const FILTERED = "2";

function compareLimits({ process = { cwd: "/" }, linux }: Spec, sight: Sight, comparison: Comparison): void {
  (process.rlimits ?? []).forEach(({ type, soft, hard }, at) => {
    const [foundSoft = "0", foundHard = "0"] = sight.limits.get(LIMIT_WORDS[type] ?? "") ?? [];
    const pairs = { soft: [BigInt(soft), limit(foundSoft)], hard: [BigInt(hard), limit(foundHard)] } as const;
    for (const [name, [expected, found]] of Object.entries(pairs))
      comparison.expect(
        found <= expected,
        `/process/rlimits/${at}/${name}`,
        `${name} limit ${type}`,
        limitText(expected),
        limitText(found),
      );
  });
  const { oomScoreAdj } = process;
  if (oomScoreAdj !== undefined)
    comparison.expect(
      Number(sight.oomScoreAdj) >= oomScoreAdj,
      "/process/oomScoreAdj",
      "oom_score_adj",
      String(oomScoreAdj),
      sight.oomScoreAdj,
    );
  if (linux?.personality !== undefined) {
    const PER_LINUX32 = 8;
    const expected = linux.personality.domain === "LINUX32" ? PER_LINUX32 : 0;
    const found = Number.parseInt(sight.personality, 16) & 0xff;
    comparison.same("/linux/personality/domain", "personality", String(expected), String(found));
  }
}

const OPTION_NAMES: readonly (readonly [attribute: number, option: string])[] = [
  [MOUNT_ATTR.RDONLY, "ro"],
  [MOUNT_ATTR.NOSUID, "nosuid"],
  [MOUNT_ATTR.NODEV, "nodev"],
  [MOUNT_ATTR.NOEXEC, "noexec"],
];
/** Devices that every container has; in a user namespace they are mounts. */
const DEVICES = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"].map((name) => `/dev/${name}`);

function compareMounts(spec: Spec, sight: Sight, comparison: Comparison): void {
  const mounts = spec.mounts ?? [];
  const root = entryAt(sight, "/");
  if (root !== undefined) {
    if (spec.root?.readonly === true)
      comparison.expect(isReadOnly(root), "/root/readonly", "/", "read-only", "writable");
    const shared = root.propagation.find((field) => field.startsWith("shared:"));
    const { rootfsPropagation = "" } = spec.linux ?? {};
    if (!/shared/.test(rootfsPropagation))
      comparison.expect(shared === undefined, "/linux/rootfsPropagation", "/", "shared with nobody", shared ?? "");
  }
  mounts.forEach((mount, at) => {
    const destination = normalPath(mount.destination);
    if (mounts.slice(at + 1).some((later) => covers(normalPath(later.destination), destination))) return;
    compareMount(mount, `/mounts/${at}`, sight, comparison);
  });
  for (const entry of unplanned(spec, sight))
    comparison.expect(false, "/mounts", entry.mountPoint, "not a mount", `${entry.type} from ${entry.source}`);
}

function compareMount({ destination, type, options = [] }: Mount, from: string, sight: Sight, comparison: Comparison) {
  const { attrSet, recursiveSet, bind, remount } = parseMountOptions(options);
  const place = sight.places.get(destination);
  const entry = entryAt(sight, destination);
  if (remount) return;
  comparison.expect(place?.isMountRoot === true, from, destination, "a mount", place === undefined ? "absent" : "none");
  if (place?.isMountRoot !== true || entry === undefined) return;
  // a hierarchy of version 1 is a tmpfs of many mounts
  if (bind === undefined && type !== undefined && type !== "cgroup" && type !== "bind")
    comparison.same(from, `file system of ${destination}`, type, entry.type);
  for (const [attribute, option] of OPTION_NAMES)
    if (((attrSet | recursiveSet) & attribute) !== 0)
      comparison.expect(has(entry, option), from, destination, option, entry.options.join(","));
}

/** Mounts in the container that nothing in the spec asks for. */
function unplanned({ mounts = [], linux }: Spec, sight: Sight): MountEntry[] {
  const planned = new Set<string>();
  for (const { mount, isMountRoot } of sight.places.values()) {
    const entry = sight.mounts.find(({ id }) => id === mount);
    if (entry !== undefined && isMountRoot) planned.add(entry.mountPoint);
  }
  const devices = new Set([...DEVICES, ...(linux?.devices ?? []).map(({ path }) => normalPath(path))]);
  // what was bound may have brought its own mounts along
  const trees = mounts.flatMap(({ destination, type, options = [] }) => {
    const entry = entryAt(sight, destination);
    const many = type === "cgroup" || parseMountOptions(options).bind !== undefined;
    return entry !== undefined && many ? [entry.mountPoint] : [];
  });
  return sight.mounts.filter(
    ({ mountPoint }) =>
      !planned.has(mountPoint) && !devices.has(mountPoint) && !trees.some((tree) => covers(tree, mountPoint)),
  );
}

function comparePaths({ linux = {} }: Spec, sight: Sight, comparison: Comparison): void {
  (linux.maskedPaths ?? []).forEach((path, at) => {
    const place = sight.places.get(path);
    if (place === undefined) return; // there is nothing to hide
    const entry = entryAt(sight, path);
    const masked = place.isMountRoot && (place.isNull || (place.isDirectory && entry?.type === "tmpfs"));
    comparison.expect(masked, `/linux/maskedPaths/${at}`, path, "hidden", "in view");
  });
  (linux.readonlyPaths ?? []).forEach((path, at) => {
    const entry = sight.places.has(path) ? entryAt(sight, path) : undefined;
    if (entry !== undefined)
      comparison.expect(isReadOnly(entry), `/linux/readonlyPaths/${at}`, path, "read-only", "writable");
  });
}

/** Files whose contents can be read back as they were written. */
const READABLE = new Set([
  "memory.limit_in_bytes",
  "memory.memsw.limit_in_bytes",
  "memory.soft_limit_in_bytes",
  "memory.max",
  "memory.high",
  "memory.low",
  "memory.swap.max",
  "pids.max",
  "cpu.shares",
  "cpu.weight",
  "cpu.cfs_quota_us",
  "cpu.cfs_period_us",
  "cpu.max",
  "cpuset.cpus",
  "cpuset.mems",
]);

interface Limit {
  path: string;
  file: string;
  value: string;
  from: string;
}

function limitsIn(
  host: Host,
  directories: readonly CgroupDirectory[],
  resources: NonNullable<Spec["linux"]>["resources"],
): Limit[] {
  return resourceWrites(host.cgroups, directories, resources).flatMap(({ directory, file, value, from }) =>
    READABLE.has(file) && value !== undefined && from.startsWith("/linux/resources")
      ? [{ path: `${directory}/${file}`, file, value, from }]
      : [],
  );
}

function compareCgroups({ spec, cgroups }: Expectation, host: Host, sight: Sight, comparison: Comparison): void {
  for (const { hierarchy, path } of cgroups ?? []) {
    const found = sight.cgroups.get(hierarchy.mountPoint);
    comparison.expect(
      found === path || found?.startsWith(`${path}/`) === true,
      "/linux/cgroupsPath",
      `cgroup of ${hierarchy.controllers.join(",") || "version 2"}`,
      path,
      found ?? "none",
    );
  }
  const resources = spec.linux?.resources;
  for (const { path, file, value, from } of limitsIn(host, directoriesOf(cgroups, host, sight), resources)) {
    const found = sight.files.get(path);
    if (found !== undefined) comparison.expect(sameSetting(value, found), from, file, value, found.trim());
  }
  const [first] = resources?.devices ?? [];
  if (first?.allow !== false || (first.type ?? "a") !== "a") return;
  for (const { path } of directoriesOf(cgroups, host, sight)) {
    const list = sight.files.get(`${path}/${DEVICES_LIST}`);
    if (list !== undefined)
      comparison.expect(!/^a \*:\* /m.test(list), "/linux/resources/devices", "devices", "only those allowed", "all");
  }
}

const DEVICES_LIST = "devices.list";

/** The container's own where they are known, else those that the process is in. */
function directoriesOf(
  known: readonly CgroupDirectory[] | undefined,
  { cgroups }: Host,
  sight: Sight,
): readonly CgroupDirectory[] {
  return (
    known ??
    cgroups.hierarchies.map((hierarchy) => ({
      hierarchy,
      path: sight.cgroups.get(hierarchy.mountPoint) ?? hierarchy.mountPoint,
    }))
  );
}

const PAGE_BYTES = 4096n;

/** Whether the kernel's text means what was written: no limit has many words, and memory is counted in pages. */
function sameSetting(written: string, found: string): boolean {
  const text = found.trim();
  if (text === written) return true;
  if (!/^-?\d+$|^max$/.test(written) || !/^-?\d+$|^max$/.test(text)) return text === written;
  const [one, other] = [written, text].map((each) => (each === "max" ? -1n : BigInt(each)));
  if (one === undefined || other === undefined) return false;
  return one === -1n
    ? other === -1n || other >= 1n << 62n
    : one / PAGE_BYTES === other / PAGE_BYTES && one > PAGE_BYTES;
}

function compareDescriptors({ preserved }: Expectation, sight: Sight, comparison: Comparison): void {
  const mounts = new Set(sight.mounts.map(({ id }) => id));
  const namespaces = Object.values(NAMESPACES).map(({ file }) => `${file}:[`);
  for (const { number, target, mount } of sight.descriptors) {
    if (number < FIRST_DESCRIPTOR + preserved) continue; // the engine's to give
    const outside = target.startsWith("/") && !target.startsWith("/memfd:") && !mounts.has(mount);
    const handle = namespaces.some((name) => target.startsWith(name));
    comparison.expect(!outside && !handle, "/process", `descriptor ${number}`, "of the container's own", target);
  }
}

const FIRST_DESCRIPTOR = 3;

function entryAt(sight: Sight, path: string): MountEntry | undefined {
  const place = sight.places.get(path);
  return sight.mounts.find(({ id }) => id === place?.mount);
}

function isReadOnly(entry: MountEntry): boolean {
  return has(entry, "ro") || entry.superOptions.includes("ro");
}

function has({ options }: MountEntry, option: string): boolean {
  return options.includes(option);
}

function covers(mountPoint: string, path: string): boolean {
  return path === mountPoint || path.startsWith(mountPoint === "/" ? "/" : `${mountPoint}/`);
}

function ids({ status }: Sight, field: string): number[] {
  return (status.get(field) ?? "")
    .split(/\s+/)
    .filter((word) => word !== "")
    .map(Number);
}

/** An id inside as the host knows it; -1 when it is nobody there. */
function hostId(map: string, id: number): number {
  for (const line of map.split("\n")) {
    const [inside = 0, outside = 0, count = 0] = words(line).split(" ").map(Number);
    if (id >= inside && id < inside + count) return outside + id - inside;
  }
  return -1;
}

function mapText(mappings: readonly IdMapping[] = []): string {
  return mappings.map(({ containerID, hostID, size }) => `${containerID} ${hostID} ${size}`).join(" ");
}

function words(text: string): string {
  return text.trim().replace(/\s+/g, " ");
}

function limit(text: string): bigint {
  return text === "unlimited" ? RLIM_INFINITY : BigInt(text);
}

function limitText(value: bigint): string {
  return value === RLIM_INFINITY ? "unlimited" : String(value);
}
