import {
  MOUNT_ATTR,
  type MountOptions,
  mayCoverProc,
  PROPAGATION,
  type Propagation,
  parseMountOptions,
} from "../linux/mount-options.ts";
import type { Mount, Spec } from "../spec/spec.ts";
import { containerCgroups } from "./cgroup.ts";
import type { CgroupDirectory, CgroupHierarchy } from "./cgroup-layout.ts";
import type { Definition } from "./definition.ts";
import type { Host } from "./host.ts";
import { isMapped } from "./idmap.ts";
import { mountContext } from "./labels.ts";
import { isNew } from "./namespaces.ts";
import { isBeneath, joinPath, normalPath } from "./path.ts";
import { rootPropagation } from "./rootfs.ts";
import type { SourceArgs, Step } from "./step.ts";

const slotOf = (at: number) => `mounts/${at}`;
export const fromOf = (at: number) => `/spec/mounts/${at}`;

export function isBind({ type, options = [] }: Mount): boolean {
  return type === "bind" || options.includes("bind") || options.includes("rbind");
}

/** Bind sources: paths of the host, cloned there, with their attributes set before anyone can reach them. */
export function openSources(definition: Definition): Step[] {
  return (definition.spec.mounts ?? []).flatMap((mount, at): Step[] => {
    if (!isBind(mount) || parseMountOptions(mount.options ?? []).remount) return [];
    if (pathInside(definition, at) !== undefined) return [];
    return [{ name: "openSource", args: sourceArgs(definition, mount, at), from: fromOf(at) }];
  });
}

function sourceArgs(definition: Definition, mount: Mount, at: number): SourceArgs {
  const options = parseMountOptions(mount.options ?? []);
  const late = startsAsCopy(definition, mount) ? MOUNT_ATTR.RDONLY : 0;
  return {
    path: joinPath(definition.bundle, mount.source ?? ""),
    follow: !options.sourceNofollow && !options.copySymlink,
    recursive: options.bind === "rbind",
    propagation: basePropagation(options.propagation, definition.spec),
    set: options.attrSet & ~late,
    clear: options.attrClear,
    recursiveSet: options.recursiveSet & ~late,
    recursiveClear: options.recursiveClear,
    slot: slotOf(at),
  };
}

/**
 * Where in the root a source is that mounts before it have changed, though it is named by a path of the host: as runc
 * has it, which looks sources up in the container's mount namespace. There is none of ids of its own.
 */
function pathInside(definition: Definition, at: number): string | undefined {
  const { spec, bundle, root } = definition;
  const { mounts = [] } = spec;
  const mount = mounts[at];
  if (mount === undefined || root !== undefined || !isNew(spec, "mount") || isMapped(mount)) return;
  const top = normalPath(joinPath(bundle, spec.root?.path ?? ""));
  const source = normalPath(joinPath(bundle, mount.source ?? ""));
  if (!isBeneath(source, top)) return;
  const path = normalPath(source.slice(top.length));
  const deep = parseMountOptions(mount.options ?? []).bind === "rbind";
  const changed = mounts.slice(0, at).some(({ destination }) => {
    const target = normalPath(destination);
    return isBeneath(path, target) || (deep && isBeneath(target, path));
  });
  return changed ? path : undefined;
}

/** The mount that has been cloned by such a step, with the attributes that one by the host has from the beginning. */
export function cloneByInit(clone: Step, args: SourceArgs): Step[] {
  const { from } = clone;
  const change = (set: number, clear: number, propagation: number, recursive: number): Step[] =>
    set === 0 && clear === 0 && propagation === 0
      ? []
      : [{ name: "setMountAttributes", args: { mount: args.slot, set, clear, propagation, recursive }, from }];
  return [
    clone,
    ...change(0, 0, args.propagation, 1),
    ...change(args.set, args.clear, 0, 0),
    ...change(args.recursiveSet, args.recursiveClear, 0, 1),
  ];
}

function cloneInRoot(definition: Definition, mount: Mount, at: number): Step[] {
  const path = pathInside(definition, at);
  if (path === undefined) return [];
  const args = sourceArgs(definition, mount, at);
  const flags = { recursive: args.recursive ? 1 : 0, follow: args.follow ? 1 : 0 };
  const clone: Step = {
    name: "cloneInRoot",
    args: { root: "root", path, ...flags, mount: args.slot },
    from: fromOf(at),
  };
  return cloneByInit(clone, args);
}

/**
 * What a clone of the host's mounts starts as. Only who asks to share or receive keeps a tie to the host, and passing
 * something back takes a shared root, too, as engines say it.
 */
function basePropagation(asked: readonly Propagation[], spec: Spec): number {
  if (!asked.some(({ flag }) => flag === PROPAGATION.shared || flag === PROPAGATION.slave)) return PROPAGATION.private;
  return rootPropagation(spec)?.flag === PROPAGATION.shared ? 0 : PROPAGATION.slave;
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
    const args = {
      mount: slotOf(at),
      root: "root",
      target,
      follow: options.destinationNofollow ? 0 : 1,
      proc: mayCoverProc(target) ? 1 : 0,
    };
    const attach: Step = { name: options.copySymlink ? "attachOrLink" : "attachMount", args, from };
    if (options.remount) return [...changeMount(mount, options, target, from), ...propagate];
    const isProc: Step[] =
      target === "/proc" && mount.type !== "proc"
        ? [{ name: "checkProcSource", args: { mount: slotOf(at) }, from }]
        : [];
    if (isBind(mount)) {
      const close = startsAsCopy(definition, mount) ? closeCopy(options, target, from) : [];
      return [...cloneInRoot(definition, mount, at), ...isProc, attach, ...close, ...propagate];
    }
    if (mount.type === "cgroup") return [...mountCgroups(mount, at, definition, host), ...propagate];
    const check: Step[] =
      mount.type === "proc" || mount.type === "sysfs"
        ? [{ name: "checkProcTarget", args: { root: "root", target }, from }]
        : [];
    const filled = mount.type === "tmpfs" ? fillTmpfs(options, target, at) : [];
    const late = staysWritable(spec, at) ? MOUNT_ATTR.RDONLY : 0;
    // what is to be filled must be writable until then
    const afterwards = filled.length > 0 ? options.attrSet & MOUNT_ATTR.RDONLY & ~late : 0;
    const make = makeFilesystem(
      mount.type ?? "",
      mount.source ?? "",
      [...superFlagsOf(mount, options), ...options.data, ...mountContext(mount.type ?? "", spec.linux?.mountLabel)],
      options.attrSet & ~late & ~afterwards,
      at,
    );
    return [
      ...check,
      make,
      ...isProc,
      ...filled,
      ...setAttributes(afterwards, 0, false, at),
      ...setAttributes(options.recursiveSet, options.recursiveClear, true, at),
      attach,
      ...propagate,
    ];
  });
}

function startsAsCopy({ copies = [] }: Definition, { destination }: Mount): boolean {
  return copies.includes(destination);
}

/** Volumes in which nothing is yet get what the root has in their places; before anything else covers that. */
export function fillVolumes(definition: Definition): Step[] {
  return (definition.spec.mounts ?? []).flatMap((mount, at): Step[] => {
    if (!startsAsCopy(definition, mount)) return [];
    const args = { mount: slotOf(at), root: "root", target: normalPath(mount.destination) };
    return [
      { name: "matchDirectory", args: { ...args, what: MODE | OWNER }, from: fromOf(at) },
      { name: "copyUp", args, from: fromOf(at) },
    ];
  });
}

/** A read-only volume had to be writable until it was filled. */
function closeCopy({ attrSet, recursiveSet }: MountOptions, target: string, from: string): Step[] {
  return ((attrSet | recursiveSet) & MOUNT_ATTR.RDONLY) === 0
    ? []
    : [
        {
          name: "remount",
          args: {
            root: "root",
            target,
            set: MOUNT_ATTR.RDONLY,
            clear: 0,
            recursive: (recursiveSet & MOUNT_ATTR.RDONLY) === 0 ? 0 : 1,
          },
          from,
        },
      ];
}

/** A medium that cannot be written can only be mounted read-only as a whole, not by one mount of it. */
function superFlagsOf({ source = "" }: Mount, { superFlags, attrSet }: MountOptions): string[] {
  return (attrSet & MOUNT_ATTR.RDONLY) !== 0 && source.startsWith("/") ? ["ro", ...superFlags] : superFlags;
}

const OWNER = 2;
const MODE = 1;

/** A tmpfs is as open as the directory it covers, unless its options say otherwise; with tmpcopyup it is a copy. */
function fillTmpfs({ data, tmpcopyup }: MountOptions, target: string, at: number): Step[] {
  const says = (name: string) => data.some((option) => option.startsWith(`${name}=`));
  const what = (says("mode") ? 0 : MODE) | (tmpcopyup && !says("uid") && !says("gid") ? OWNER : 0);
  const args = { mount: slotOf(at), root: "root", target };
  const from = fromOf(at);
  return [
    ...(what === 0 ? [] : [{ name: "matchDirectory" as const, args: { ...args, what }, from }]),
    ...(tmpcopyup ? [{ name: "copyUp" as const, args, from }] : []),
  ];
}

/** An earlier mount with other options; what is not named stays. */
function changeMount(mount: Mount, options: MountOptions, target: string, from: string): Step[] {
  const { attrSet, attrClear, recursiveSet, recursiveClear, superFlags, data } = options;
  const parameters = isBind(mount) ? [] : [...superFlags, ...data];
  const remount = (set: number, clear: number, recursive: number): Step[] =>
    set === 0 && clear === 0 ? [] : [{ name: "remount", args: { root: "root", target, set, clear, recursive }, from }];
  return [
    ...(parameters.length === 0
      ? []
      : [{ name: "reconfigure" as const, args: { root: "root", target, parameters }, from }]),
    ...remount(attrSet, attrClear, 0),
    ...remount(recursiveSet, recursiveClear, 1),
  ];
}

/** Whether a read-only tmpfs is still to get something into it: a mount point, a device, the working directory. */
function staysWritable(spec: Spec, at: number): boolean {
  const { mounts = [], process, linux } = spec;
  const mount = mounts[at];
  const target = normalPath(mount?.destination ?? "/");
  const later = mounts
    .slice(at + 1)
    .filter(({ options = [] }) => !options.includes("remount"))
    .map(({ destination }) => normalPath(destination));
  if (mount?.type !== "tmpfs" || later.includes(target)) return false;
  const paths = [...later, ...(linux?.devices ?? []).map(({ path }) => normalPath(path)), "/dev/null"];
  return [...paths, normalPath(process?.cwd ?? "/")].some((path) => path.startsWith(`${target}/`));
}

/** A tmpfs that had to stay writable until everything in it was there. */
export function closeFilesystems(spec: Spec): Step[] {
  return (spec.mounts ?? []).flatMap(({ destination, options = [] }, at): Step[] =>
    staysWritable(spec, at) && (parseMountOptions(options).attrSet & MOUNT_ATTR.RDONLY) !== 0
      ? [
          {
            name: "remount",
            args: { root: "root", target: normalPath(destination), set: MOUNT_ATTR.RDONLY, clear: 0, recursive: 0 },
            from: fromOf(at),
          },
        ]
      : [],
  );
}

function makeFilesystem(type: string, source: string, parameters: string[], attributes: number, at: number): Step {
  return {
    name: "makeFilesystem",
    args: { type, source, parameters, attributes, mount: slotOf(at) },
    from: fromOf(at),
  };
}

function setAttributes(set: number, clear: number, recursive: boolean, at: number): Step[] {
  if (set === 0 && clear === 0) return [];
  return [
    {
      name: "setMountAttributes",
      args: { mount: slotOf(at), set, clear, propagation: 0, recursive: recursive ? 1 : 0 },
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
  // without a mount namespace nobody may change a mount that is attached; with runc this one is always writable
  const readOnly = (attrSet & MOUNT_ATTR.RDONLY) !== 0 && isNew(definition.spec, "mount");
  return [
    makeFilesystem("tmpfs", "tmpfs", ["mode=755"], attrSet & ~MOUNT_ATTR.RDONLY, at),
    { name: "attachMount", args: { mount: slotOf(at), root: "root", target, follow: 1, proc: 0 }, from },
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
  const attach: Step = { name: "attachMount", args: { mount: slot, root: "root", target, follow: 1, proc: 0 }, from };
  if (!own)
    return [
      { name: "cloneOwn", args: { path, recursive: 0, follow: 1, mount: slot }, from },
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
