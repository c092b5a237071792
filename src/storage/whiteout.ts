import { pathBytes } from "../kernel/file.ts";
import { call, kernelError, tryCall } from "../kernel/syscall.ts";
import { deviceNumber, EEXIST, listNames, S, statIn } from "./tree.ts";

/** How a stored layer says that something of the layers below is gone: each union file system has its own way. */
export interface Whiteouts {
  /** Hides a name of the layers below. */
  hide(directory: number, name: Buffer): void;
  /** Takes back hide(). */
  reveal(directory: number, name: Buffer): void;
  /** Shows nothing of the layers below in this directory. */
  makeOpaque(directory: number): void;
  isHidden(directory: number, name: Buffer): boolean;
  isOpaque(directory: number): boolean;
  /** Is this entry of a stored layer no file of the image, but a mark of this format? */
  isMark(directory: number, name: Buffer): boolean;
  hiddenNames(directory: number): Buffer[];
}

const OPAQUE = "trusted.overlay.opaque";
const AUFS_PREFIX = ".wh.";
const AUFS_OPAQUE = ".wh..wh..opq";

function isOverlayWhiteout(directory: number, name: Buffer): boolean {
  const stat = statIn(directory, name);
  return stat !== undefined && (stat.mode & S.IFMT) === S.IFCHR && stat.deviceMajor === 0 && stat.deviceMinor === 0;
}

/** overlayfs (Documentation/filesystems/overlayfs.rst): a character device 0:0, and an attribute of the directory. */
export const OVERLAY_WHITEOUTS: Whiteouts = {
  hide: (directory, name) => {
    call("mknodat", directory, pathBytes(name), S.IFCHR, deviceNumber(0, 0));
  },
  reveal: (directory, name) => {
    call("unlinkat", directory, pathBytes(name), 0);
  },
  makeOpaque: (directory) => {
    call("fsetxattr", directory, OPAQUE, Buffer.from("y"), 1, 0);
  },
  isHidden: isOverlayWhiteout,
  isMark: isOverlayWhiteout,
  hiddenNames: (directory) => listNames(directory).filter((name) => isOverlayWhiteout(directory, name)),
  isOpaque: (directory) => {
    const value = Buffer.alloc(1);
    return tryCall("fgetxattr", directory, OPAQUE, value, 1) === 1 && value[0] === 0x79;
  },
};

const aufsName = (name: Buffer) => Buffer.concat([Buffer.from(AUFS_PREFIX), name]);

/** aufs: empty files with the names that image layers use. */
export const AUFS_WHITEOUTS: Whiteouts = {
  hide: (directory, name) => {
    call("mknodat", directory, pathBytes(aufsName(name)), S.IFREG | 0o444, 0);
  },
  reveal: (directory, name) => {
    call("unlinkat", directory, pathBytes(aufsName(name)), 0);
  },
  makeOpaque: (directory) => {
    const result = tryCall("mknodat", directory, AUFS_OPAQUE, S.IFREG | 0o444, 0);
    if (result < 0 && result !== EEXIST) throw kernelError("mknodat", -result, AUFS_OPAQUE);
  },
  isHidden: (directory, name) => statIn(directory, aufsName(name)) !== undefined,
  isOpaque: (directory) => statIn(directory, Buffer.from(AUFS_OPAQUE)) !== undefined,
  isMark: (_, name) => name.toString("latin1").startsWith(AUFS_PREFIX),
  hiddenNames: (directory) =>
    listNames(directory)
      .filter((name) => name.toString("latin1").startsWith(AUFS_PREFIX) && name.toString() !== AUFS_OPAQUE)
      .map((name) => name.subarray(AUFS_PREFIX.length)),
};
