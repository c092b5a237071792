import { deviceFilterDirectory, resourceWrites } from "./cgroup-files.ts";
import { type CgroupDirectory, cgroupDirectories } from "./cgroup-layout.ts";
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
export function containerCgroups({ spec, id, cgroupManager }: Definition, host: Host): CgroupDirectory[] {
  const directories = cgroupDirectories(host.cgroups, spec.linux?.cgroupsPath, id);
  const lenient = cgroupManager?.rootless ?? host.rootless !== undefined;
  if (!lenient || (spec.linux?.cgroupsPath ?? "") !== "") return directories;
  return directories.filter(({ hierarchy }) => hierarchy.delegated !== false);
}

/** The container's cgroup in every hierarchy, with its limits set before anything is in there. */
export function createCgroup(definition: Definition, host: Host): Step[] {
  const directories = containerCgroups(definition, host);
  const resources = definition.spec.linux?.resources ?? {};
  // only root of the first user namespace may restrict devices; the others' containers can make none
  const devices = host.rootless === undefined;
  const filtered = devices ? deviceFilterDirectory(directories) : undefined;
  return [
    ...directories.map(({ path }): Step => ({ name: "makeCgroup", args: { path }, from: FROM })),
    ...resourceWrites(host.cgroups, directories, resources, undefined, { devices }).map(
      ({ from, ...write }): Step => ({ name: "writeCgroup", args: write, from: `/spec${from}` }),
    ),
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
  return openDirectories(containerCgroups(definition, host));
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
    ...directories
      .filter(({ hierarchy }) => hierarchy.version === 1)
      .map(({ path }): Step => ({ name: "enterCgroup", args: { tasks: path }, from: FROM })),
  ];
}

/** One clone for all new namespaces but those that must be left first. */
export function cloneProcess(definition: Definition, host: Host): Step[] {
  return cloneIntoCgroups(newNamespaces(definition.spec), containerCgroups(definition, host), "/spec/linux/namespaces");
}
