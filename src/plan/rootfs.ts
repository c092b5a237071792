import { PROPAGATION, type Propagation, parsePropagation } from "../linux/mount-options.ts";
import type { Spec } from "../spec/spec.ts";
import type { Definition } from "./definition.ts";
import { isNew } from "./namespaces.ts";
import { joinPath, normalPath } from "./path.ts";
import type { Step } from "./step.ts";

/** What the root is to share with the host, if the spec says anything about it. */
export function rootPropagation({ linux }: Spec): Propagation | undefined {
  return parsePropagation(linux?.rootfsPropagation ?? "");
}

/** What an image's root needs on the disk, and the container's own files that will be mounted into it. */
export function prepareRoot({ root, files = [] }: Definition): Step[] {
  if (root === undefined) return [];
  return [
    { name: "prepareRoot", args: root, from: "/root" },
    ...files.map((file, at): Step => ({ name: "writeFile", args: file, from: `/files/${at}` })),
  ];
}

/** The root as a detached tree: the layers of an image, or a directory of the bundle. */
export function openRoot({ spec, root, bundle }: Definition): Step[] {
  if (root !== undefined)
    return isNew(spec, "user")
      ? []
      : [{ name: "mountUnion", args: { ...root, idmapped: false, slot: "root" }, from: "/root" }];
  return [
    {
      name: "openRoot",
      args: {
        path: joinPath(bundle, spec.root?.path ?? ""),
        // a clone of a shared mount is its peer: what the container mounts would appear on the host
        propagation: rootPropagation(spec)?.flag === PROPAGATION.slave ? PROPAGATION.slave : PROPAGATION.private,
        slot: "root",
      },
      from: "/spec/root/path",
    },
  ];
}

/** Layers are idmapped for a new user namespace, which must exist, with its maps, before that. */
export function openMappedRoot({ spec, root }: Definition): Step[] {
  if (root === undefined || !isNew(spec, "user")) return [];
  return [{ name: "mountUnion", args: { ...root, idmapped: true, slot: "root" }, from: "/root" }];
}

/** The copy of the host's mounts stops passing anything back. */
export function leaveMounts(spec: Spec): Step[] {
  if (!isNew(spec, "mount")) return [];
  // a slave still receives the host's mounts, which rootfsPropagation may ask for
  const propagation = rootPropagation(spec) === undefined ? PROPAGATION.private : PROPAGATION.slave;
  return [{ name: "setPropagation", args: { propagation }, from: "/spec/linux/rootfsPropagation" }];
}

/**
 * The root becomes the newest of its mounts: over the host's, or, for hooks that look into it, where the bundle has it.
 * chroot alone would leave what is beside it within reach.
 */
export function attachRoot({ spec, root, bundle, noPivot }: Definition): Step[] {
  if (!isNew(spec, "mount")) return [];
  const { prestart = [], createRuntime = [], createContainer = [] } = spec.hooks ?? {};
  const hooked = [prestart, createRuntime, createContainer].some(({ length }) => length > 0);
  const at = hooked && root === undefined && noPivot !== true ? joinPath(bundle, spec.root?.path ?? "") : "/";
  return [{ name: "attachRoot", args: { root: "root", at }, from: "/spec/root" }];
}

/** Engines expect a missing working directory to be made. */
export function makeWorkingDirectory({ process }: Spec): Step[] {
  const path = normalPath(process?.cwd ?? "/");
  return path === "/"
    ? []
    : [{ name: "makeWorkingDirectory", args: { root: "root", path }, from: "/spec/process/cwd" }];
}

/** From here on the host's tree cannot be named. */
export function changeRoot({ spec, noPivot }: Definition): Step[] {
  const change: Step =
    noPivot === true || !isNew(spec, "mount")
      ? { name: "changeRoot", args: { root: "root" }, from: "/spec/root" }
      : { name: "pivotRoot", args: { root: "root" }, from: "/spec/root" };
  const propagation = rootPropagation(spec);
  return [
    change,
    ...(propagation === undefined
      ? []
      : [
          {
            name: "setMountPropagation" as const,
            args: {
              root: "root",
              target: "/",
              propagation: propagation.flag,
              recursive: propagation.recursive ? 1 : 0,
            },
            from: "/spec/linux/rootfsPropagation",
          },
        ]),
    ...(spec.root?.readonly === true
      ? [{ name: "makeRootReadonly" as const, args: { root: "root" }, from: "/spec/root/readonly" }]
      : []),
    { name: "closeSlot", args: { file: "root" }, from: "/spec/root" },
  ];
}
