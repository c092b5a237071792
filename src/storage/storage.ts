import { closeSync, openSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { addon } from "../kernel/addon.ts";
import { AT_FDCWD, O } from "../kernel/file.ts";
import { cloneTree, setAttributes } from "../kernel/mount.ts";
import { call } from "../kernel/syscall.ts";
import { MOUNT_ATTR } from "../linux/mount-options.ts";
import { aufsOptions } from "./aufs.ts";
import { mountOverlay } from "./overlay.ts";
import { removeTree } from "./tree.ts";
import { copyLayers } from "./vfs.ts";

export type DriverName = "overlay" | "aufs" | "vfs";

/** What a container's root is made of. All are absolute paths. */
export interface RootParts {
  /** Directories with unpacked layers, the top one first. */
  layers: readonly string[];
  /** The container's own directory: what prepare() makes is in it. */
  container: string;
  /** What is written is discarded when the mount is gone, and need not reach the disk before. */
  transient?: true;
}

/** A way to make one root of layers and a place for what the container writes. */
export interface Storage {
  name: DriverName;
  /** Makes the directories the root needs, and copies what has to be copied. Once in a container's life. @throws ContainerError */
  prepare(parts: RootParts): void;
  /**
   * The root as a mount that is attached nowhere. As often as the container starts.
   * @param userns descriptor of a user namespace: ids in the layers are ids in it; the same mapping each time
   * @returns the mount's descriptor @throws ContainerError
   */
  mount(parts: RootParts, userns?: number): number;
  /** Removes what prepare() made, with all the container wrote. @throws ContainerError */
  discard(parts: RootParts): void;
}

/** Undoes prepare(): the driver's directories, other files of the container stay. */
function discard(container: string, names: string[]): void {
  const fd = openSync(container, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    for (const name of names) removeTree(fd, Buffer.from(name));
  } finally {
    closeSync(fd);
  }
}

/** With this mode, whatever the caller's umask is. */
function makeDirectory(path: string, mode: number): void {
  call("mkdirat", AT_FDCWD, path, 0o700);
  if (mode !== 0o700) call("fchmodat", AT_FDCWD, path, mode);
}

function makeUpper({ container }: RootParts): void {
  // a root is 0755 as in any image; its parents, the container's directory first, are 0700
  for (const [name, mode] of [
    ["upper", 0o755],
    ["work", 0o700],
  ] as const)
    makeDirectory(`${container}/${name}`, mode);
}

const overlay: Storage = {
  name: "overlay",
  prepare: makeUpper,
  mount: ({ layers, container, transient }, userns) =>
    mountOverlay({ layers, container, volatile: transient === true, ...(userns !== undefined && { userns }) }),
  discard: ({ container }) => discard(container, ["upper", "work"]),
};

/** Only where the kernel has aufs and no overlay; the options are tested, the mount cannot be on mainline kernels. */
const aufs: Storage = {
  name: "aufs",
  prepare: makeUpper,
  mount({ layers, container }, userns) {
    if (userns !== undefined)
      throw new ContainerError({ message: "cannot map a root's ids with aufs", code: "ERR_STORAGE" });
    const MS_REMOUNT = 32;
    const MNT_DETACH = 2;
    const place = `${container}/work`;
    const [first = "", ...rest] = aufsOptions(`${container}/upper`, layers);
    call("mount", "none", place, "aufs", 0, first);
    try {
      for (const options of rest) call("mount", "none", place, "aufs", MS_REMOUNT, options);
      return cloneTree(-1, place, false);
    } finally {
      call("umount2", place, MNT_DETACH);
    }
  },
  discard: ({ container }) => discard(container, ["upper", "work"]),
};

/** A plain copy of the layers, for kernels and file systems without a union mount. */
const vfs: Storage = {
  name: "vfs",
  prepare({ layers, container }) {
    makeDirectory(`${container}/root`, 0o755);
    // a copy takes more calls than a trace has room for
    addon().traceStep(-1);
    copyLayers(layers, `${container}/root`);
  },
  mount({ container }, userns) {
    const fd = openSync(`${container}/root`, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
    try {
      const clone = cloneTree(fd, "", false);
      if (userns !== undefined) setAttributes(clone, { set: MOUNT_ATTR.IDMAP, userns });
      return clone;
    } finally {
      closeSync(fd);
    }
  },
  discard: ({ container }) => discard(container, ["root"]),
};

export const DRIVERS: Record<DriverName, Storage> = { overlay, aufs, vfs };

/**
 * Chooses a driver: overlay, else aufs, else vfs.
 * @param filesystems text of /proc/filesystems
 * @param tried drivers that failed here already, for example because the data directory is on an overlay itself
 */
export function chooseDriver(filesystems: string, tried: readonly DriverName[] = []): DriverName {
  const known = new Set(filesystems.split("\n").map((line) => line.split("\t").at(-1)));
  const candidates = (["overlay", "aufs"] as const).filter((name) => known.has(name));
  return candidates.find((name) => !tried.includes(name)) ?? "vfs";
}
