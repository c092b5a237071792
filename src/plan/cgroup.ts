import { ContainerError } from "../error.ts";
import { deviceFilterDirectory, resourceWrites } from "./cgroup-files.ts";
import { type CgroupDirectory, cgroupDirectories } from "./cgroup-layout.ts";
import {
  annotatedProperties,
  basicProperties,
  deviceProperties,
  isSlice,
  resourceProperties,
  type Unit,
  unitOf,
  unitPath,
} from "./cgroup-unit.ts";
import type { Definition } from "./definition.ts";
import { deviceFilter } from "./device-filter.ts";
import { deviceRules } from "./device-rules.ts";
import type { Host } from "./host.ts";
import { newNamespaces } from "./namespaces.ts";
import type { Step } from "./step.ts";

const FROM = "/spec/linux/cgroupsPath";

/**
 * The container's directories. Without privileges those that may not be made are left out, unless a path was asked
 * for; what needs limits fails later, for want of them: as runc has it.
 */
export function containerCgroups(definition: Definition, host: Host): CgroupDirectory[] {
  const { spec, id, cgroupManager } = definition;
  const unit = containerUnit(definition, host);
  if (unit !== undefined && host.systemd !== undefined) {
    if (unit.user && host.cgroups.mode !== "v2")
      throw new ContainerError({
        message: "cannot use rootless systemd cgroups manager on cgroup v1",
        code: "ENOTSUP",
        from: FROM,
      });
    return cgroupDirectories(host.cgroups, unitPath(unit, host.systemd), id);
  }
  const directories = cgroupDirectories(host.cgroups, spec.linux?.cgroupsPath, id);
  const lenient = cgroupManager?.rootless ?? host.rootless !== undefined;
  if (!lenient || (spec.linux?.cgroupsPath ?? "") !== "") return directories;
  return directories.filter(({ hierarchy }) => hierarchy.delegated !== false);
}

/** The unit that systemd is to make for the container, if it is to. */
export function containerUnit({ spec, id }: Definition, { systemd }: Host): (Unit & { user: boolean }) | undefined {
  if (systemd === undefined) return;
  return { ...unitOf(spec.linux?.cgroupsPath, id, systemd.user), user: systemd.user };
}

/** The container's cgroup in every hierarchy, with its limits set before anything is in there. */
export function createCgroup(definition: Definition, host: Host): Step[] {
  return host.systemd === undefined ? fillCgroup(definition, host) : [];
}

/**
 * The same by systemd's hand, who wants to know of a process that is to be in there: init, which enters the hierarchies
 * that systemd leaves alone by itself, before it is anybody.
 */
export function startUnit(definition: Definition, host: Host): Step[] {
  const unit = containerUnit(definition, host);
  if (unit === undefined || host.systemd === undefined) return [];
  const { spec, id } = definition;
  const resources = spec.linux?.resources ?? {};
  const version = host.cgroups.mode === "v2" ? 2 : 1;
  const directories = containerCgroups(definition, host);
  return [
    {
      name: "startUnit",
      args: {
        unit: unit.name,
        slice: unit.slice,
        properties: [
          ...basicProperties(unit, id, version),
          ...(host.rootless === undefined ? deviceProperties(resources) : []),
          ...resourceProperties(resources, version, host.systemd),
          ...annotatedProperties(spec.annotations),
        ],
        user: unit.user,
      },
      from: FROM,
    },
    ...fillCgroup(definition, host),
    ...openDirectories(directories.filter(({ hierarchy }) => hierarchy.version === 1 || isSlice(unit))),
    ...enterDirectories(directories),
  ];
}

function fillCgroup(definition: Definition, host: Host): Step[] {
  const directories = containerCgroups(definition, host);
  const resources = definition.spec.linux?.resources ?? {};
  // only root of the first user namespace may restrict devices; the others' containers can make none
  const devices = host.rootless === undefined;
  const filtered = devices ? deviceFilterDirectory(directories) : undefined;
  const shared = host.systemd === undefined ? {} : { shared: true };
  return [
    ...directories.map(({ path }): Step => ({ name: "makeCgroup", args: { path, ...shared }, from: FROM })),
    ...resourceWrites(host.cgroups, directories, resources, undefined, { devices })
      // who may have which controllers is systemd's to decide, and a unit's properties tell it
      .filter(({ file }) => host.systemd === undefined || file !== "cgroup.subtree_control")
      .map(({ from, ...write }): Step => ({ name: "writeCgroup", args: write, from: `/spec${from}` })),
    ...(filtered === undefined
      ? []
      : [
          {
            name: "filterDevices" as const,
            args: { path: filtered, program: deviceFilter(deviceRules(resources.devices)) },
            from: "/spec/linux/resources/devices",
          },
        ]),
  ];
}

/** The ways into the cgroups: version 1's file of threads, version 2's directory. */
export function openCgroups(definition: Definition, host: Host): Step[] {
  return host.systemd === undefined ? openDirectories(containerCgroups(definition, host)) : [];
}

export function openDirectories(directories: readonly CgroupDirectory[]): Step[] {
  return directories.map(({ hierarchy, path }) => ({
    name: "openCgroup",
    args: { path: hierarchy.version === 1 ? `${path}/tasks` : path, slot: path },
    from: FROM,
  }));
}

/** The first process: born in its cgroup of version 2, and entering those of version 1 itself. */
export function cloneIntoCgroups(namespaces: number, directories: readonly CgroupDirectory[], from: string): Step[] {
  const unified = directories.find(({ hierarchy }) => hierarchy.version === 2);
  return [
    unified === undefined
      ? { name: "clone", args: { namespaces }, from }
      : { name: "cloneInto", args: { namespaces, cgroup: unified.path }, from },
    { name: "dieWithParent", args: { signal: 9 }, from },
    ...enterDirectories(directories),
  ];
}

function enterDirectories(directories: readonly CgroupDirectory[]): Step[] {
  return directories
    .filter(({ hierarchy }) => hierarchy.version === 1)
    .map(({ path }) => ({ name: "enterCgroup", args: { tasks: path }, from: FROM }));
}

/** One clone for all new namespaces but those that must be left first. */
export function cloneProcess(definition: Definition, host: Host): Step[] {
  const unit = containerUnit(definition, host);
  // where systemd has put init, its child is as well; into a slice it puts nobody
  const directories = containerCgroups(definition, host).filter(
    ({ hierarchy }) => unit === undefined || (hierarchy.version === 2 && isSlice(unit)),
  );
  return cloneIntoCgroups(newNamespaces(definition.spec), directories, "/spec/linux/namespaces");
}
