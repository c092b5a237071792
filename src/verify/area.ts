import { CAPABILITIES, capabilityMask, capabilityNames } from "../linux/capabilities.ts";
import { NAMESPACES } from "../linux/namespaces.ts";
import type { Sight } from "./sight.ts";

/** What there is to see of a container that is being made. */
export const AREAS = {
  namespaces: "which namespaces are the host's, and which its own",
  ids: "users, groups, and what they are on the host",
  capabilities: "capabilities, no_new_privs, and filters of system calls",
  mounts: "the mount table",
  process: "its place among processes: session, root and working directory, and what else it hands on",
  limits: "resource limits",
  cgroups: "control groups, and what is written there",
  network: "interfaces, addresses and routes",
  descriptors: "open descriptors",
} as const;

export type Area = keyof typeof AREAS;

export function isArea(word: string): word is Area {
  return Object.hasOwn(AREAS, word);
}

/** What is seen between two steps: the host's side, and init's once it has been started. */
export interface Still {
  /** Absent before there is a process. */
  process?: Seen;
  /** Whoever makes the container: what its process starts as. */
  maker: Seen;
  /** Cgroup directories of the plan that exist. */
  directories: readonly string[];
  /** Contents of the cgroup files that the plan writes, by their path. */
  written: ReadonlyMap<string, string>;
  /** Network devices of the plan's that the host has. */
  devices: readonly string[];
}

/** A process and what is around it. */
export type Seen = Sight & Surroundings;

/** What a verification does not look at. */
export interface Surroundings {
  /** Paths as we would reach them; "(unreachable)/x" for what is in no mount of ours. */
  root: string;
  directory: string;
  /** Names of the interfaces in its network namespace. */
  interfaces: readonly string[];
  /** Its own addresses, without the length of their network: proc has that with the routes alone. */
  addresses: readonly string[];
  /** Such as "10.88.0.0/16 dev eth0". */
  routes: readonly string[];
}

/** One thing that can be seen. */
export interface Fact {
  /** What makes it the same thing at two times. */
  key: string;
  name: string;
  value: string;
}

/** Something that is there and was not, is not and was, or is otherwise. */
export interface Change {
  area: Area;
  name: string;
  before?: string;
  after?: string;
}

/** The facts of one area. Pure. */
export function factsOf(area: Area, still: Still): Fact[] {
  const { process } = still;
  switch (area) {
    case "cgroups":
      return [...(process === undefined ? [] : cgroups(process)), ...written(still)];
    case "network":
      return [...(process === undefined ? [] : network(process)), ...still.devices.map(onHost)];
    default:
      return process === undefined ? [] : FACTS[area](process);
  }
}

/**
 * What differs between two times, area by area. A process that was not there before is compared with its maker, whose
 * descriptors it does not have. Pure.
 */
export function changes(earlier: Still, after: Still): Change[] {
  const { maker } = earlier;
  const before =
    earlier.process === undefined && after.process !== undefined
      ? { ...earlier, process: { ...maker, descriptors: [] } }
      : earlier;
  return Object.keys(AREAS)
    .filter(isArea)
    .flatMap((area) => {
      const [was, is] = [factsOf(area, before), factsOf(area, after)];
      const [from, to] = area === "mounts" && !sameMounts(before, after) ? [byPlace(was), byPlace(is)] : [was, is];
      return differences(area, from, to);
    });
}

function differences(area: Area, before: readonly Fact[], after: readonly Fact[]): Change[] {
  const [was, is] = [new Map(before.map((fact) => [fact.key, fact])), new Map(after.map((fact) => [fact.key, fact]))];
  return [
    ...before.filter(({ key }) => !is.has(key)).map(({ name, value }) => ({ area, name, before: value })),
    ...after.flatMap(({ key, name, value }): Change[] => {
      const known = was.get(key);
      if (known === undefined) return [{ area, name, after: value }];
      return known.value === value && known.name === name
        ? []
        : [{ area, name, before: known.name === name ? known.value : `${known.name} ${known.value}`, after: value }];
    }),
  ];
}

/** The ids of mounts last as long as their namespace: a copy of it has the same mounts under others. */
function sameMounts(before: Still, after: Still): boolean {
  return before.process?.namespaces.get("mnt") === after.process?.namespaces.get("mnt");
}

function byPlace(facts: readonly Fact[]): Fact[] {
  const seen = new Map<string, number>();
  return facts.map((fact) => {
    const count = (seen.get(fact.name) ?? 0) + 1;
    seen.set(fact.name, count);
    return { ...fact, key: `${fact.name}\0${count}` };
  });
}

const FACTS: { [A in Exclude<Area, "cgroups" | "network">]: (seen: Seen) => Fact[] } = {
  namespaces: ({ namespaces, own }) =>
    Object.entries(NAMESPACES).flatMap(([type, { file }]) => {
      const name = namespaces.get(file);
      return name === undefined ? [] : [fact(type, `${name === own.get(file) ? "the host's" : "its own"}, ${name}`)];
    }),
  ids: ({ status, uidMap, gidMap }) => [
    fact("user", idText(status.get("Uid"), uidMap)),
    fact("group", idText(status.get("Gid"), gidMap)),
    fact("additional groups", (status.get("Groups") ?? "").trim() || "none"),
    fact("user map", mapText(uidMap)),
    fact("group map", mapText(gidMap)),
  ],
  capabilities: ({ status }) => [
    ...CAPABILITY_SETS.map(([name, field]) => fact(name, capabilityText(status.get(field)))),
    fact("no_new_privs", status.get("NoNewPrivs") === "1" ? "set" : "not set"),
    fact("seccomp", ["none", "strict", "filter"][Number(status.get("Seccomp") ?? 0)] ?? "unknown"),
  ],
  mounts: ({ mounts }) =>
    mounts.map(({ id, mountPoint, root, type, source, options, propagation, superOptions }) => ({
      key: String(id),
      name: mountPoint,
      value: [
        type,
        source,
        ...(root === "/" ? [] : [`its ${root}`]),
        [...options, ...(superOptions.includes("ro") && !options.includes("ro") ? ["ro (all of it)"] : [])].join(","),
        // the number of a peer group says nothing
        ...propagation.map((each) => each.replace(/:\d+$/, "").replace("master", "slave")),
      ].join(" "),
    })),
  process: ({ status, root, directory, oomScoreAdj, personality, label }) => [
    fact(
      "pid",
      (status.get("NSpid") ?? "")
        .split(/\s+/)
        .join(" on the host, ")
        .concat(" inside")
        .replace(/^(\d+) inside$/, "$1"),
    ),
    fact("session", (status.get("NSsid") ?? "").split(/\s+/).at(-1) ?? ""),
    fact("root", root),
    fact("working directory", directory),
    fact("umask", status.get("Umask") ?? ""),
    fact("oom_score_adj", oomScoreAdj),
    ...(personality === "" ? [] : [fact("personality", personality)]),
    ...(label === undefined ? [] : [fact("security label", label)]),
  ],
  limits: ({ limits }) =>
    [...limits].map(([name, [soft, hard]]) => fact(name, soft === hard ? soft : `${soft}, at most ${hard}`)),
  descriptors: ({ descriptors }) =>
    descriptors
      .toSorted((one, other) => one.number - other.number)
      .map(({ number, target }) => fact(String(number), target)),
};

const CAPABILITY_SETS = [
  ["effective", "CapEff"],
  ["permitted", "CapPrm"],
  ["inheritable", "CapInh"],
  ["bounding", "CapBnd"],
  ["ambient", "CapAmb"],
] as const;

const ALL = capabilityMask(CAPABILITIES);

function cgroups({ cgroups: own }: Sight): Fact[] {
  return [...own].map(([hierarchy, path]) =>
    fact(hierarchy, path === hierarchy ? "at its top" : path.slice(hierarchy.length)),
  );
}

function written({ directories, written: files }: Still): Fact[] {
  return [
    ...directories.map((path) => fact(path, "exists")),
    ...[...files].map(([path, text]) => fact(path, text.trim().replaceAll("\n", ", ") || "empty")),
  ];
}

function network({ interfaces, addresses, routes }: Surroundings): Fact[] {
  return [
    ...interfaces.map((name) => fact(`interface ${name}`, "there")),
    ...addresses.map((address) => fact(`address ${address}`, "its own")),
    ...routes.map((route) => fact(`route ${route}`, "set")),
  ];
}

function onHost(name: string): Fact {
  return fact(`the host's ${name}`, "there");
}

function fact(name: string, value: string): Fact {
  return { key: name, name, value };
}

/** Real, effective, saved and of the file system: mostly all the same. */
function idText(field: string | undefined, map: string): string {
  const ids = (field ?? "").split(/\s+/).filter((word) => word !== "");
  const distinct = [...new Set(ids)];
  const [only] = distinct;
  if (distinct.length !== 1 || only === undefined)
    return `${ids.join(" ")} (real, effective, saved, of the file system)`;
  const inside = insideOf(map, Number(only));
  return inside === Number(only) ? only : `${only} on the host, ${inside ?? "nobody"} inside`;
}

/** A host's id as the user namespace has it; undefined for nobody. */
export function insideOf(map: string, id: number): number | undefined {
  for (const line of map.split("\n")) {
    const [inside = 0, outside = 0, count = 0] = line.trim().split(/\s+/).map(Number);
    if (id >= outside && id < outside + count) return inside + id - outside;
  }
  return;
}

function mapText(map: string): string {
  const lines = map.split("\n").flatMap((line) => {
    const [inside, outside, count] = line.trim().split(/\s+/);
    return count === undefined ? [] : [`${inside} is ${outside} (${count})`];
  });
  return lines.join(", ") || "none";
}

function capabilityText(hex: string | undefined): string {
  const mask = BigInt(`0x${hex ?? "0"}`);
  const [held, lacking] = [capabilityNames(mask), capabilityNames(~mask & ALL)].map((names) =>
    names.map((name) => name.replace("CAP_", "")),
  );
  if (held === undefined || lacking === undefined || held.length === 0) return "none";
  if (lacking.length === 0) return "all";
  return lacking.length < held.length / 2 ? `all but ${lacking.join(" ")}` : held.join(" ");
}
