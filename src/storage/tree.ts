import { closeSync, fchmodSync, fchownSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW, O, pathBytes, RESOLVE, tryOpenIn } from "../kernel/file.ts";
import { call, kernelError, tryCall } from "../kernel/syscall.ts";

// File trees by descriptor: every name below is one component, looked up in an open directory without following links,
// so nothing that a tree contains can lead out of it.

export const S = {
  IFMT: 0o170000,
  IFDIR: 0o040000,
  IFREG: 0o100000,
  IFLNK: 0o120000,
  IFCHR: 0o020000,
  IFBLK: 0o060000,
  IFIFO: 0o010000,
} as const;

export const ENOENT = -2;
export const EEXIST = -17;
export const ENOTDIR = -20;
export const ELOOP = -40;
export const EOPNOTSUPP = -95;

export interface Stat {
  /** Type and permission bits. */
  mode: number;
  uid: number;
  gid: number;
  links: number;
  inode: bigint;
  sizeBytes: number;
  mtimeSeconds: number;
  mtimeNanoseconds: number;
  deviceMajor: number;
  deviceMinor: number;
}

/** statx(2) of a name in a directory, links not followed, or of the descriptor itself (name ""). undefined: there is none. */
export function statIn(directory: number, name: Uint8Array | ""): Stat | undefined {
  const raw = Buffer.alloc(256);
  const STATX_BASIC_STATS = 0x7ff;
  const flags = AT_SYMLINK_NOFOLLOW | (name === "" ? AT_EMPTY_PATH : 0);
  const result = tryCall("statx", directory, pathBytes(name), flags, STATX_BASIC_STATS, raw);
  if (result === ENOENT) return;
  if (result < 0) throw kernelError("statx", -result, name === "" ? undefined : Buffer.from(name).toString());
  // struct statx, the same on every architecture
  return {
    mode: raw.readUInt16LE(28),
    links: raw.readUInt32LE(16),
    uid: raw.readUInt32LE(20),
    gid: raw.readUInt32LE(24),
    inode: raw.readBigUInt64LE(32),
    sizeBytes: Number(raw.readBigUInt64LE(40)),
    mtimeSeconds: Number(raw.readBigInt64LE(112)),
    mtimeNanoseconds: raw.readUInt32LE(120),
    deviceMajor: raw.readUInt32LE(128),
    deviceMinor: raw.readUInt32LE(132),
  };
}

/** The kernel's own encoding of a device number for mknodat(2). */
export function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

/** Opens a directory's entry that must be a directory itself. @returns the descriptor, or -errno */
export function tryOpenDirectory(directory: number, name: Uint8Array): number {
  return tryOpenIn(
    directory,
    name,
    O.RDONLY | O.DIRECTORY | O.NOFOLLOW,
    RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS,
  );
}

/** @throws ContainerError */
export function openDirectory(directory: number, name: Uint8Array): number {
  const fd = tryOpenDirectory(directory, name);
  if (fd < 0) throw kernelError("openat2", -fd, Buffer.from(name).toString());
  return fd;
}

/** The names in a directory, "." and ".." left out. Reads from its start whatever was read before. */
export function listNames(directory: number): Buffer[] {
  const names: Buffer[] = [];
  const buffer = Buffer.alloc(64 << 10);
  call("lseek", directory, 0, 0);
  for (;;) {
    const length = call("getdents64", directory, buffer, buffer.length);
    if (length === 0) return names;
    for (let at = 0; at < length; at += buffer.readUInt16LE(at + 16)) {
      const start = at + 19; // behind d_ino, d_off, d_reclen, d_type
      const name = buffer.subarray(start, buffer.indexOf(0, start));
      if (!(name[0] === 0x2e && (name.length === 1 || (name.length === 2 && name[1] === 0x2e))))
        names.push(Buffer.from(name));
    }
  }
}

/** Removes an entry with all that is beneath it; one that is not there is no error. */
export function removeTree(directory: number, name: Uint8Array): void {
  const path = pathBytes(name);
  const EISDIR = -21;
  const EPERM = -1;
  const result = tryCall("unlinkat", directory, path, 0);
  if (result >= 0 || result === ENOENT) return;
  if (result !== EISDIR && result !== EPERM) throw kernelError("unlinkat", -result, Buffer.from(name).toString());
  const inner = tryOpenDirectory(directory, name);
  if (inner >= 0) {
    try {
      for (const entry of listNames(inner)) removeTree(inner, entry);
    } finally {
      closeSync(inner);
    }
  }
  const removed = tryCall("unlinkat", directory, path, AT_REMOVEDIR);
  if (removed < 0 && removed !== ENOENT) throw kernelError("unlinkat", -removed, Buffer.from(name).toString());
}

/** Target of a symbolic link. */
export function readLink(directory: number, name: Uint8Array): Buffer {
  const target = Buffer.alloc(4096);
  return target.subarray(0, call("readlinkat", directory, pathBytes(name), target, target.length));
}

/** struct timespec[2]: access and modification time alike. */
export function timespecs(seconds: number, nanoseconds: number): Uint8Array {
  const time = new BigInt64Array([BigInt(seconds), BigInt(nanoseconds), BigInt(seconds), BigInt(nanoseconds)]);
  return new Uint8Array(time.buffer);
}

const XATTR_BYTES = 64 << 10;

/** Extended attributes of an open file: [name, value, …]; none where the file system has none. */
export function listXattrs(fd: number): (string | Uint8Array)[] {
  const names = Buffer.alloc(XATTR_BYTES);
  const length = tryCall("flistxattr", fd, names, names.length);
  if (length === EOPNOTSUPP) return [];
  if (length < 0) throw kernelError("flistxattr", -length);
  const xattrs: (string | Uint8Array)[] = [];
  for (const name of names.toString("utf8", 0, length).split("\0")) {
    if (name === "") continue;
    const value = Buffer.alloc(XATTR_BYTES);
    const size = tryCall("fgetxattr", fd, name, value, value.length);
    if (size >= 0) xattrs.push(name, value.subarray(0, size));
  }
  return xattrs;
}

/** Sets extended attributes; a file system without them is no error, as with other engines. @throws ContainerError */
export function setXattrs(fd: number, xattrs: (string | Uint8Array)[]): void {
  for (let i = 0; i + 1 < xattrs.length; i += 2) {
    const [name, value] = [xattrs[i], xattrs[i + 1]];
    if (typeof name !== "string" || value === undefined || typeof value === "string") continue;
    const result = tryCall("fsetxattr", fd, name, value, value.length, 0);
    if (result < 0 && result !== EOPNOTSUPP) throw kernelError("fsetxattr", -result, name);
  }
}

export interface Attributes {
  uid: number;
  gid: number;
  /** Only the permission bits count. */
  mode: number;
  /** [name, value, …] */
  xattrs: (string | Uint8Array)[];
}

/** Owner, permissions and attributes of an open file, in the order in which none undoes another. */
export function setAttributesOf(fd: number, { uid, gid, mode, xattrs }: Attributes): void {
  // chown clears set-id bits and capabilities, so mode and xattrs come after it
  fchownSync(fd, uid, gid);
  fchmodSync(fd, mode & 0o7777);
  setXattrs(fd, xattrs);
}

/** Is it a name of one component that stays in its directory? */
export function isPlainName(name: Uint8Array): boolean {
  const text = Buffer.from(name.buffer, name.byteOffset, name.byteLength);
  return (
    text.length > 0 &&
    text.length <= 255 &&
    !text.includes(0x2f) &&
    !text.includes(0) &&
    !text.equals(DOT) &&
    !text.equals(DOTDOT)
  );
}

export const DOT = Buffer.from(".");
export const DOTDOT = Buffer.from("..");

/** Names and values in turn, as listXattrs has them; those that an image may set. */
export function keptXattrs(xattrs: (string | Uint8Array)[]): (string | Uint8Array)[] {
  return xattrs.length === 0 ? xattrs : xattrs.filter((_, i) => keepsXattr(String(xattrs[i - (i % 2)])));
}

/** The union file system's own would let an image redirect look-ups or forge whiteouts; security labels are the host's policy. */
function keepsXattr(name: string): boolean {
  if (name.startsWith("trusted.overlay.") || name.startsWith("user.overlay.")) return false;
  return !name.startsWith("security.") || name === "security.capability";
}

/**
 * Copies one entry that is no directory into another directory: contents (holes kept, shared where the file system can),
 * owner, mode, kept attributes, time. @throws ContainerError
 */
export function copyEntry(from: number, name: Uint8Array, to: number, newName: Uint8Array): void {
  const stat = statIn(from, name);
  if (stat === undefined)
    throw new ContainerError({ message: `cannot copy ${Buffer.from(name)}: it is not there`, code: "ENOENT" });
  const target = pathBytes(newName);
  const type = stat.mode & S.IFMT;
  if (type === S.IFREG) {
    const source = openFile(from, name, O.RDONLY | O.NOFOLLOW | O.NONBLOCK, 0);
    try {
      const copy = openFile(to, newName, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, 0o600);
      try {
        copyContents(source, copy, stat.sizeBytes);
        setAttributesOf(copy, { ...stat, xattrs: keptXattrs(listXattrs(source)) });
        call("utimensat", copy, null, timespecs(stat.mtimeSeconds, stat.mtimeNanoseconds), 0);
      } finally {
        closeSync(copy);
      }
    } finally {
      closeSync(source);
    }
    return;
  }
  if (type === S.IFLNK) call("symlinkat", pathBytes(readLink(from, name)), to, target);
  else {
    call("mknodat", to, target, stat.mode, deviceNumber(stat.deviceMajor, stat.deviceMinor));
    call("fchmodat", to, target, stat.mode & 0o7777);
  }
  call("fchownat", to, target, stat.uid, stat.gid, AT_SYMLINK_NOFOLLOW);
  if (type !== S.IFLNK) call("fchmodat", to, target, stat.mode & 0o7777);
  call("utimensat", to, target, timespecs(stat.mtimeSeconds, stat.mtimeNanoseconds), AT_SYMLINK_NOFOLLOW);
}

function openFile(directory: number, name: Uint8Array, flags: number, mode: number): number {
  const fd = tryOpenIn(directory, name, flags, RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS, mode);
  if (fd < 0) throw kernelError("openat2", -fd, Buffer.from(name).toString());
  return fd;
}

function copyContents(source: number, copy: number, sizeBytes: number): void {
  const FICLONE = 0x40049409;
  if (sizeBytes === 0 || tryCall("ioctl", copy, FICLONE, source) === 0) return;
  const SEEK_SET = 0;
  const SEEK_DATA = 3;
  const SEEK_HOLE = 4;
  call("ftruncate", copy, sizeBytes);
  for (let at = 0; at < sizeBytes; ) {
    const start = tryCall("lseek", source, at, SEEK_DATA);
    if (start < 0) return; // ENXIO: only a hole is left
    const end = call("lseek", source, start, SEEK_HOLE);
    call("lseek", source, start, SEEK_SET);
    call("lseek", copy, start, SEEK_SET);
    for (let left = end - start; left > 0; ) {
      // sendfile works between any two file systems; copy_file_range does not
      let done = tryCall("copy_file_range", source, null, copy, null, left, 0);
      if (done < 0) done = call("sendfile", copy, source, null, left);
      if (done === 0) return;
      left -= done;
    }
    at = end;
  }
}
