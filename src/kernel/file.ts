import { fstatSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { call, tryCall } from "./syscall.ts";

/** The kernel's current directory marker for *at calls. */
export const AT_FDCWD = -100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;

export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  // these two differ between x86-64 and arm64
  DIRECTORY: process.arch === "arm64" ? 0o40000 : 0o200000,
  NOFOLLOW: process.arch === "arm64" ? 0o100000 : 0o400000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
} as const;

/** How openat2(2) may resolve a path. */
export const RESOLVE = { NO_XDEV: 1, NO_MAGICLINKS: 2, NO_SYMLINKS: 4, BENEATH: 8, IN_ROOT: 16 } as const;

/** A NUL-terminated copy: what a path of raw bytes must be before the kernel sees it. */
export function pathBytes(path: string | Uint8Array): Uint8Array | string {
  if (typeof path === "string") return path;
  const copy = new Uint8Array(path.length + 1);
  copy.set(path);
  return copy;
}

function openHow(flags: number, mode: number, resolve: number): Uint8Array {
  const how = new BigUint64Array([BigInt(flags), BigInt(mode), BigInt(resolve)]);
  return new Uint8Array(how.buffer);
}

/** openat2(2), close-on-exec. @throws ContainerError */
export function openIn(directory: number, path: string | Uint8Array, flags: number, resolve: number, mode = 0): number {
  return call("openat2", directory, pathBytes(path), openHow(flags | O.CLOEXEC, mode, resolve), 24);
}

/** openat2(2), close-on-exec; -errno where it fails. */
export function tryOpenIn(
  directory: number,
  path: string | Uint8Array,
  flags: number,
  resolve: number,
  mode = 0,
): number {
  return tryCall("openat2", directory, pathBytes(path), openHow(flags | O.CLOEXEC, mode, resolve), 24);
}

/** openat(2), close-on-exec. @throws ContainerError */
export function open(path: string, flags: number, mode = 0): number {
  return call("openat", AT_FDCWD, path, flags | O.CLOEXEC, mode);
}

/** close(2); EBADF would be a fault of ours, and is not hidden. */
export function close(fd: number): void {
  call("close", fd);
}

/** An anonymous file with these bytes, sealed against every change. @throws ContainerError */
export function sealedFile(name: string, bytes: Uint8Array, executable = false): number {
  const MFD_CLOEXEC = 1;
  const MFD_ALLOW_SEALING = 2;
  const MFD_NOEXEC_SEAL = 8;
  const MFD_EXEC = 16;
  // kernels before 6.3 know neither of the last two flags
  let fd = tryCall(
    "memfd_create",
    name,
    executable ? MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC : MFD_CLOEXEC | MFD_NOEXEC_SEAL,
  );
  if (fd < 0) fd = call("memfd_create", name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  for (let done = 0; done < bytes.length; ) done += call("write", fd, bytes.subarray(done), bytes.length - done);
  const F_ADD_SEALS = 1033;
  const SEALS = 1 | 2 | 4 | 8; // SEAL, SHRINK, GROW, WRITE
  call("fcntl", fd, F_ADD_SEALS, SEALS);
  return fd;
}

/** Does something while standard streams of ours are /dev/null: what is started meanwhile inherits that. */
export function withoutStreams<T>(streams: readonly number[], action: () => T): T {
  const F_DUPFD_CLOEXEC = 1030;
  const saved = streams.map((fd) => tryCall("fcntl", fd, F_DUPFD_CLOEXEC, 3));
  const nothing = open("/dev/null", O.RDWR);
  for (const fd of streams) call("dup3", nothing, fd, 0);
  close(nothing);
  try {
    return action();
  } finally {
    for (const [at, fd] of streams.entries()) {
      const before = saved[at] ?? -1;
      if (before < 0) continue; // it was closed
      call("dup3", before, fd, 0);
      close(before);
    }
  }
}

/** flock(2), exclusive. @returns false when `wait` is false and somebody else holds it */
export function lock(fd: number, wait: boolean): boolean {
  const result = tryCall("flock", fd, wait ? 2 : 2 | 4);
  if (result === -11) return false;
  if (result < 0) call("flock", fd, 2);
  return true;
}

/** As lock, for so long at most: flock(2) has no deadline. @returns false when somebody else still holds it */
export function lockWithin(fd: number, patienceMs: number): boolean {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  for (const deadline = Date.now() + patienceMs; !lock(fd, false); Atomics.wait(cell, 0, 0, 5))
    if (Date.now() > deadline) return false;
  return true;
}

/** Who has the lock of an open file, in words, as far as /proc tells: proc_locks(5). */
export function lockHolder(fd: number): string {
  const { dev, ino } = fstatSync(fd);
  const hex = (number: number) => number.toString(16).padStart(2, "0");
  // makedev(3), as far as the kernel's own numbers go
  const device = `${hex((dev >>> 8) & 0xfff)}:${hex((dev & 0xff) | ((dev >>> 12) & 0xfff00))}`;
  const [, pid] = new RegExp(` FLOCK .* (\\d+) ${device}:${ino} `).exec(readFileSync("/proc/locks", "latin1")) ?? [];
  if (pid === undefined) return "another command";
  try {
    // its name alone: words may be secret, and neither may tell a terminal what to do
    const name = readFileSync(`/proc/${pid}/comm`, "latin1")
      .trimEnd()
      .replaceAll(/[^ -~]/g, "?");
    return `process ${pid} (${name})`;
  } catch {
    return `process ${pid}`;
  }
}

/** RENAME_EXCHANGE of linux/fs.h. */
const EXCHANGE = 2;

/**
 * Writes a file of a directory that is ours alone: at any moment there is the old one or the new one, for readers without
 * a lock, and after we are killed. After a loss of power it may be empty.
 * @throws Node's errors
 */
export function replaceFile(path: string, text: string): void {
  const fresh = `${path}.new`;
  writeFileSync(fresh, text, { mode: 0o600 });
  // What is renamed over a file, ext4 sends to the disk at once (auto_da_alloc), and whoever replaces or removes it next
  // waits for the disk. What changes places with the old one is not, and neither is the old one.
  if (tryCall("renameat2", AT_FDCWD, fresh, AT_FDCWD, path, EXCHANGE) === 0) unlinkSync(fresh);
  else renameSync(fresh, path);
}
