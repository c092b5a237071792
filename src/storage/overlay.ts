import { closeSync, fchownSync, fstatSync, openSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { O, openIn, RESOLVE } from "../kernel/file.ts";
import { cloneTree, makeFilesystem, type Parameter, setAttributes } from "../kernel/mount.ts";
import { call } from "../kernel/syscall.ts";
import { MOUNT_ATTR } from "../linux/mount-options.ts";

/**
 * How the directories are told to the kernel: as descriptors (Linux 6.13), as names one by one (6.5), or all in one
 * page of mount options, which the mount has to appear on the host for (before that).
 */
export type OverlayInterface = "descriptors" | "names" | "page";

export interface OverlayMount {
  /** Directories of the layers, the top one first; one at least. */
  layers: readonly string[];
  /** Directory with an `upper` and a `work` directory in it. */
  container: string;
  /** Descriptor of a user namespace: ids in the layers are ids in it. */
  userns?: number;
  /** Nothing is to be on the disk when it is unmounted: otherwise all of that disk's file system is written out then. */
  volatile?: boolean;
  interface?: OverlayInterface;
}

/** What overlayfs takes in one mount (OVL_MAX_STACK). */
const MAX_LAYERS = 500;
const EINVAL = 22;

/**
 * Joins layers in an overlay mount that is attached nowhere. With a user namespace every layer is given as an idmapped
 * clone, because an overlay itself cannot be idmapped. The upper directory is not: overlayfs works in it as who made the
 * mount, the host's root, who has no id in the namespace and so could not write there (the mount would be read-only).
 * What the container writes has the host's ids on the disk, and goes with this mapping alone.
 * @returns its descriptor @throws ContainerError
 */
export function mountOverlay(mount: OverlayMount): number {
  if (mount.layers.length === 0 || mount.layers.length > MAX_LAYERS)
    throw new ContainerError({
      message: `cannot join ${mount.layers.length} layers in an overlay mount: 1 to ${MAX_LAYERS} are possible`,
      code: "ERR_LAYERS",
    });
  const descriptors: number[] = [];
  const kept = (fd: number) => {
    descriptors.push(fd);
    return fd;
  };
  try {
    const layers = mount.layers.map((path) => openLayer(path, mount.userns, kept));
    const container = kept(openSync(mount.container, O.RDONLY | O.DIRECTORY | O.NOFOLLOW));
    const inside = (name: string) =>
      kept(openIn(container, name, O.RDONLY | O.DIRECTORY, RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS));
    const directories = { layers, container, upper: inside("upper"), work: inside("work") };
    if (mount.userns !== undefined) giveToRoot(directories.upper, container, mount.userns);
    return makeOverlay(directories, mount.volatile === true, mount.interface);
  } finally {
    for (const fd of descriptors) closeSync(fd);
  }
}

function openLayer(path: string, userns: number | undefined, kept: (fd: number) => number): number {
  const fd = kept(openSync(path, O.RDONLY | O.DIRECTORY | O.NOFOLLOW));
  return userns === undefined ? fd : kept(cloneMapped(fd, userns));
}

function cloneMapped(fd: number, userns: number): number {
  const clone = cloneTree(fd, "", false);
  setAttributes(clone, { set: MOUNT_ATTR.IDMAP, userns });
  return clone;
}

/** The namespace's root owns the directory; who that is, an idmapped view of a directory of ours shows. */
function giveToRoot(directory: number, ours: number, userns: number): void {
  const mapped = cloneMapped(ours, userns);
  const owner = fstatSync(mapped);
  closeSync(mapped);
  fchownSync(directory, owner.uid, owner.gid);
}

interface Directories {
  layers: number[];
  container: number;
  upper: number;
  work: number;
}

function makeOverlay(directories: Directories, volatile: boolean, forced?: OverlayInterface): number {
  if (forced === "page") return mountByPage(directories, volatile);
  const { layers, upper, work } = directories;
  const attempts: OverlayInterface[] = forced === undefined ? ["descriptors", "names"] : [forced];
  for (const attempt of attempts) {
    const value = (fd: number) => (attempt === "descriptors" ? fd : `/proc/self/fd/${fd}`);
    const parameters: Parameter[] = layers.map((fd) => ["lowerdir+", value(fd)]);
    parameters.push(["upperdir", value(upper)], ["workdir", value(work)]);
    // a container's upper directory is used again over other mounts of its layers: an index would refuse it
    parameters.push(["index", "off"]);
    if (volatile) parameters.push(["volatile"]);
    try {
      return makeFilesystem("overlay", parameters);
    } catch (error) {
      // an unknown parameter, or one that takes no descriptor
      const isUnknown = error instanceof ContainerError && error.syscall === "fsconfig" && error.errno === EINVAL;
      if (!isUnknown || forced !== undefined) throw error;
    }
  }
  return mountByPage(directories, volatile);
}

/**
 * mount(2) takes one page of options and only names, so the names are as short as can be: descriptor numbers, seen from
 * /proc/self/fd. The mount is on the host, on the work directory, for the moment until its clone is made.
 * (A stack of smaller overlays is no way out: whiteouts do not show through an overlay.)
 */
function mountByPage({ layers, container, upper, work }: Directories, volatile: boolean): number {
  const MNT_DETACH = 2;
  const options = `lowerdir=${layers.join(":")},upperdir=${upper},workdir=${work},index=off${volatile ? ",volatile" : ""}`;
  if (options.length > 4095)
    throw new ContainerError({
      message: `cannot join ${layers.length} layers: this kernel takes one page of options`,
      code: "ERR_LAYERS",
    });
  const home = openSync(".", O.RDONLY | O.DIRECTORY);
  try {
    const numbers = openSync("/proc/self/fd", O.RDONLY | O.DIRECTORY);
    call("fchdir", numbers);
    closeSync(numbers);
    call("mount", "overlay", `${container}/work`, "overlay", 0, options);
    try {
      return cloneTree(container, "work", false);
    } finally {
      call("umount2", `${container}/work`, MNT_DETACH);
    }
  } finally {
    call("fchdir", home);
    closeSync(home);
  }
}
