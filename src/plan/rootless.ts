import { ContainerError } from "../error.ts";
import type { IdMapping, Mount, NamespaceType, Process, Spec } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import { setgroupsDenied } from "./identity.ts";
import { cloneByInit, fromOf, isBind } from "./mounts.ts";
import { isShared } from "./namespaces.ts";
import type { Step } from "./step.ts";

/**
 * What a caller without privileges cannot have, whatever the plan: said before anything is done, in runc's words.
 * @throws ContainerError ERR_SPEC with the pointer of what asks for it
 */
export function refuseUnmapped(spec: Spec, process: Process, host: Host): void {
  const { rootless } = host;
  if (rootless === undefined) return;
  const refuse = (message: string, from: string) => {
    throw new ContainerError({ message, code: "ERR_SPEC", from });
  };
  if (!rootless.mapper && isShared(spec, "user"))
    refuse("rootless container requires user namespaces", "/spec/linux/namespaces");
  const { uid = 0, gid = 0, additionalGids = [] } = process.user ?? {};
  const { uidMappings = [], gidMappings = [] } = spec.linux ?? {};
  // without mappings the ids are those of a namespace that somebody else made
  const unmapped = (mappings: readonly IdMapping[], id: number) => mappings.length > 0 && !isMapped(mappings, id);
  if (unmapped(uidMappings, uid)) refuse("cannot set uid to unmapped user in user namespace", "/spec/process/user/uid");
  if (unmapped(gidMappings, gid)) refuse("cannot set gid to unmapped user in user namespace", "/spec/process/user/gid");
  if (additionalGids.length > 0 && setgroupsDenied(spec, host))
    refuse("cannot set any additional groups in a rootless container", "/spec/process/user/additionalGids");
  for (const [at, { options = [] }] of (spec.mounts ?? []).entries())
    for (const option of options) {
      const [, kind, id = ""] = /^([ug]id)=(\d+)$/.exec(option) ?? [];
      if (kind !== undefined && unmapped(kind === "uid" ? uidMappings : gidMappings, Number(id)))
        refuse(`cannot specify ${kind}= mount options for unmapped ${kind} in rootless containers`, fromOf(at));
    }
}

function isMapped(mappings: readonly IdMapping[], id: number): boolean {
  return mappings.some(({ containerID, size }) => id >= containerID && id - containerID < size);
}

/** Filesystems that show a namespace: who does not own that cannot mount them. [namespace, where the host has one] */
const VIEWS: ReadonlyMap<string | undefined, readonly [NamespaceType, string]> = new Map([
  ["sysfs", ["network", "/sys"]],
  ["proc", ["pid", "/proc"]],
  ["mqueue", ["ipc", "/dev/mqueue"]],
]);

/** What holds for the view holds for what the host has mounted below it. */
const RESTRICTIONS: ReadonlySet<string> = new Set(["ro", "nosuid", "nodev", "noexec"]);

/** The spec with the host's own view bound where the container shares the host's namespace, as crun does it. */
export function bindSharedViews(spec: Spec, { rootless }: Host): Spec {
  if ((rootless === undefined && isShared(spec, "user")) || spec.mounts === undefined) return spec;
  const bound = (mount: Mount): Mount => {
    const [namespace, source] = VIEWS.get(mount.type) ?? [];
    if (namespace === undefined || source === undefined || isBind(mount) || !isShared(spec, namespace)) return mount;
    // what is mounted beneath it is locked to it
    const deep = (mount.options ?? []).filter((option) => RESTRICTIONS.has(option)).map((option) => `r${option}`);
    return { ...mount, type: "bind", source, options: [...(mount.options ?? []), ...deep, "rbind"] };
  };
  return { ...spec, mounts: spec.mounts.map(bound) };
}

/**
 * The steps of the host that clone mounts, done by init instead: only in a mount namespace that belongs to the user
 * namespace it is root of may it, and there all of the host's tree is still to be seen.
 */
export function cloneInside(steps: readonly Step[]): Step[] {
  return steps.flatMap((step): Step[] => {
    const { from } = step;
    if (step.name === "openRoot")
      return [
        { name: "cloneOwn", args: { path: step.args.path, recursive: 1, follow: 1, mount: step.args.slot }, from },
        {
          name: "setMountAttributes",
          args: { mount: step.args.slot, set: 0, clear: 0, propagation: step.args.propagation, recursive: 1 },
          from,
        },
      ];
    if (step.name !== "openSource") return [step];
    const { path, recursive, follow, slot } = step.args;
    return cloneByInit(
      { name: "cloneOwn", args: { path, recursive: recursive ? 1 : 0, follow: follow ? 1 : 0, mount: slot }, from },
      step.args,
    );
  });
}
