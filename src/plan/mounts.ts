import { MOUNT_ATTR, PROPAGATION, parseMountOptions } from "../linux/mount-options.ts";
import type { Mount } from "../spec/spec.ts";
import { containerCgroups } from "./cgroup.ts";
import type { CgroupDirectory, CgroupHierarchy } from "./cgroup-layout.ts";
import type { Definition } from "./definition.ts";
import type { Host } from "./host.ts";
import { mountContext } from "./labels.ts";
import { isNew } from "./namespaces.ts";
import { joinPath, normalPath } from "./path.ts";
import type { Step } from "./step.ts";

const slotOf = (at: number) => `mounts/${at}`;
export const fromOf = (at: number) => `/spec/mounts/${at}`;

export function isBind({ type, options = [] }: Mount): boolean {
  return type === "bind" || options.includes("bind") || options.includes("rbind");
}

/** Bind sources: paths of the host, cloned there, with their attributes set before anyone can reach them. */
export function openSources({ spec, bundle }: Definition): Step[] {
  return (spec.mounts ?? []).flatMap((mount, at): Step[] => {
    if (!isBind(mount)) return [];
    const options = parseMountOptions(mount.options ?? []);
    return [
      {
        name: "openSource",
        args: {
          path: joinPath(bundle, mount.source ?? ""),
          recursive: options.bind === "rbind",
          set: options.attrSet,
          clear: options.attrClear,
          recursiveSet: options.recursiveSet,
          recursiveClear: options.recursiveClear,
          slot: slotOf(at),
        },
        from: fromOf(at),
      },
    ];
  });
}

/** All mounts of the spec, in its order. */
export function mountFilesystems(definition: Definition, host: Host): Step[] {
  const { spec } = definition;
  return (spec.mounts ?? []).flatMap((mount, at): Step[] => {
    const target = normalPath(mount.destination);
    const options = parseMountOptions(mount.options ?? []);
    const from = fromOf(at);
    const propagate = options.propagation.map(
      ({ flag, recursive }): Step => ({
        name: "setMountPropagation",
        args: { root: "root", target, propagation: flag, recursive: recursive ? 1 : 0 },
        from,
      }),
    );
    const attach: Step = { name: "attachMount", args: { mount: slotOf(at), root: "root", target }, from };
    if (isBind(mount)) return [attach, ...propagate];
    if (mount.type === "cgroup") return [...mountCgroups(mount, at, definition, host), ...propagate];
    const check: Step[] =
      mount.type === "proc" || mount.type === "sysfs"
        ? [{ name: "checkProcTarget", args: { root: "root", target }, from }]
        : [];
    return [
      ...check,
      makeFilesystem(
        mount.type ?? "",
        mount.source ?? "",
        [...options.superFlags, ...options.data, ...mountContext(mount.type ?? "", spec.linux?.mountLabel)],
        options.attrSet,
        at,
      ),
      ...recursively(options.recursiveSet, options.recursiveClear, at),
      attach,
      ...propagate,
    ];
  });
}

function makeFilesystem(type: string, source: string, parameters: string[], attributes: number, at: number): Step {
  return {
    name: "makeFilesystem",
    args: { type, source, parameters, attributes, mount: slotOf(at) },
    from: fromOf(at),
  };
}

function recursively(set: number, clear: number, at: number): Step[] {
  if (set === 0 && clear === 0) return [];
  return [
    {
      name: "setMountAttributes",
      args: { mount: slotOf(at), set, clear, propagation: 0, recursive: 1 },
      from: fromOf(at),
    },
  ];
}

/**
 * The container's view of its cgroups: on version 2 one mount, on version 1 a directory of them. In a cgroup
 * namespace each shows the container's own cgroup as its root; without one that is made so by binding.
 */
function mountCgroups(mount: Mount, at: number, definition: Definition, host: Host): Step[] {
  const from = fromOf(at);
  const target = normalPath(mount.destination);
  const { attrSet } = parseMountOptions(mount.options ?? []);
  const directories = containerCgroups(definition, host);
  const own = isNew(definition.spec, "cgroup");
  const [only] = host.cgroups.hierarchies;
  if (host.cgroups.mode === "v2")
    return only === undefined ? [] : mountCgroup(only, directories, target, attrSet, own, slotOf(at), from);
  const readOnly = (attrSet & MOUNT_ATTR.RDONLY) !== 0;
  return [
    makeFilesystem("tmpfs", "tmpfs", ["mode=755"], attrSet & ~MOUNT_ATTR.RDONLY, at),
    { name: "attachMount", args: { mount: slotOf(at), root: "root", target }, from },
    ...host.cgroups.hierarchies.flatMap((hierarchy, i) =>
      mountCgroup(
        hierarchy,
        directories,
        `${target}/${baseName(hierarchy.mountPoint)}`,
        attrSet,
        own,
        `${slotOf(at)}/${i}`,
        from,
      ),
    ),
    ...(readOnly
      ? [
          {
            name: "remount" as const,
            args: { root: "root", target, set: MOUNT_ATTR.RDONLY, clear: 0, recursive: 0 },
            from,
          },
        ]
      : []),
  ];
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function mountCgroup(
  hierarchy: CgroupHierarchy,
  directories: readonly CgroupDirectory[],
  target: string,
  asked: number,
  own: boolean,
  slot: string,
  from: string,
): Step[] {
  const directory = directories.find((each) => each.hierarchy === hierarchy);
  // it stayed in the caller's cgroup, which is to be seen, but not to be changed (CVE-2023-25809)
  const attributes = directory === undefined ? asked | MOUNT_ATTR.RDONLY : asked;
  const path = directory?.path ?? `${hierarchy.mountPoint}${hierarchy.ownPath}`;
  const attach: Step = { name: "attachMount", args: { mount: slot, root: "root", target }, from };
  if (!own)
    return [
      { name: "cloneOwn", args: { path, recursive: 0, mount: slot }, from },
      {
        name: "setMountAttributes",
        args: { mount: slot, set: attributes, clear: 0, propagation: PROPAGATION.private, recursive: 0 },
        from,
      },
      attach,
    ];
  const named = hierarchy.controllers.find((controller) => controller.startsWith("name="));
  const parameters = hierarchy.version === 2 ? [] : named === undefined ? hierarchy.controllers : ["none", named];
  const type = hierarchy.version === 2 ? "cgroup2" : "cgroup";
  return [
    { name: "makeFilesystem", args: { type, source: "cgroup", parameters, attributes, mount: slot }, from },
    attach,
  ];
}
