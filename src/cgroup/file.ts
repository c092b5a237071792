import { lstatSync, readdirSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { ContainerError } from "../error.ts";
import { AT_FDCWD, AT_REMOVEDIR, close, O } from "../kernel/file.ts";
import { errnoName, type SyscallName, tryCall } from "../kernel/syscall.ts";

// What host steps do goes through src/kernel, so that a trace has it; looking around for removal need not.

const CGROUP_SUPER_MAGIC = 0x27e0eb;
const CGROUP2_SUPER_MAGIC = 0x63677270;
/** ENODEV: the cgroup was removed between open and read. */
const GONE = ["ENOENT", "ENODEV"];
/** EOPNOTSUPP: the file does not apply to this cgroup, such as cgroup.procs to a threaded one. */
const UNREADABLE = [...GONE, "EOPNOTSUPP", "ENOTSUP"];
const READ_BYTES = 4096;
/** One for all reads: a new one is dearer than the read. */
let buffer: Buffer | undefined;

/**
 * Is this directory on a cgroup file system, whose directories are cgroups and where rmdir cannot lose data?
 * @returns undefined if there is no such directory
 */
export function isCgroup(path: string): boolean | undefined {
  try {
    const { type } = statfsSync(path);
    return type === CGROUP_SUPER_MAGIC || type === CGROUP2_SUPER_MAGIC;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw failure("look at", path, error);
  }
}

/** A hierarchy's root (or a container's view of one) has other people's processes in it: nobody's to remove. */
export function isMountPoint(path: string): boolean {
  return lstatSync(path).dev !== lstatSync(dirname(path)).dev;
}

/** A cgroup and those beneath it, outermost first. Not recursive: how deep they go is the container's choice. */
export function subtree(path: string): string[] {
  const found = [path];
  for (const directory of found) {
    try {
      for (const entry of readdirSync(directory, { withFileTypes: true })) {
        if (entry.isDirectory()) found.push(`${directory}/${entry.name}`);
      }
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw failure("list", directory, error);
    }
  }
  return found;
}

/** Is there anything at this path? */
export function exists(path: string): boolean {
  return tryCall("faccessat", AT_FDCWD, path, 0) >= 0;
}

/** Has this cgroup this file? Some can be written but not read. */
export function hasFile(path: string, file: string): boolean {
  return exists(`${path}/${file}`);
}

/** Text of a cgroup file; undefined where the kernel has no such file, or the cgroup is gone. */
export function readIfPresent(path: string): string | undefined {
  const descriptor = openFile(path, O.RDONLY);
  if (descriptor < 0) return void tolerate(UNREADABLE, "read", path, "openat", descriptor);
  try {
    let text = "";
    buffer ??= Buffer.alloc(READ_BYTES);
    const bytes = buffer;
    for (;;) {
      const length = tryCall("read", descriptor, bytes, bytes.length);
      if (length < 0) return void tolerate(UNREADABLE, "read", path, "read", length);
      if (length === 0) return text;
      text += bytes.toString("latin1", 0, length);
    }
  } finally {
    close(descriptor);
  }
}

/**
 * Writes a value in one write(2), as cgroup files want it, into a file that exists.
 * @returns the errno's name if it is one of `tolerated`, else undefined
 */
export function writeExisting(path: string, value: string, tolerated: readonly string[] = []): string | undefined {
  const verb = `write ${JSON.stringify(value)} to`;
  // Neither O_CREAT nor O_TRUNC: a file that is missing must not appear on whatever is there instead of cgroupfs.
  const descriptor = openFile(path, O.WRONLY);
  if (descriptor < 0) return tolerate(tolerated, verb, path, "openat", descriptor);
  const text = value === "" ? "\n" : value;
  const written = tryCall("write", descriptor, text, Buffer.byteLength(text));
  close(descriptor);
  return written < 0 ? tolerate(tolerated, verb, path, "write", written) : undefined;
}

/** @returns whether it is new */
export function makeDirectory(path: string): boolean {
  const made = tryCall("mkdirat", AT_FDCWD, path, 0o755);
  if (made < 0) tolerate(["EEXIST"], "create cgroup", path, "mkdirat", made);
  return made >= 0;
}

/** @returns the errno's name if it is one of `tolerated`, else undefined, which also means that it was gone already */
export function removeDirectory(path: string, tolerated: readonly string[]): string | undefined {
  const removed = tryCall("unlinkat", AT_FDCWD, path, AT_REMOVEDIR);
  if (removed >= 0) return undefined;
  const code = tolerate([...tolerated, "ENOENT"], "remove cgroup", path, "unlinkat", removed);
  return code === "ENOENT" ? undefined : code;
}

/**
 * Waits until a cgroup's cgroup.events has this line, or the cgroup is gone.
 * @param change returns when the file has changed since this descriptor read it
 */
export function awaitEvent(directory: string, line: string, change: (descriptor: number) => void): void {
  const path = `${directory}/cgroup.events`;
  const descriptor = openFile(path, O.RDONLY);
  if (descriptor < 0) return void tolerate(GONE, "read", path, "openat", descriptor);
  try {
    const bytes = Buffer.alloc(READ_BYTES);
    for (;;) {
      // Each read marks the descriptor as up to date, so that no change falls between reading and waiting.
      const length = tryCall("pread64", descriptor, bytes, bytes.length, 0);
      if (length < 0) return void tolerate(GONE, "read", path, "pread64", length);
      if (bytes.toString("latin1", 0, length).split("\n").includes(line)) return;
      change(descriptor);
    }
  } finally {
    close(descriptor);
  }
}

function openFile(path: string, flags: number): number {
  return tryCall("openat", AT_FDCWD, path, flags | O.NOFOLLOW | O.CLOEXEC, 0);
}

/** The errno's name, where it is one of `tolerated`. @throws ContainerError otherwise */
function tolerate(
  tolerated: readonly string[],
  verb: string,
  path: string,
  syscall: SyscallName,
  result: number,
): string {
  const code = errnoName(-result);
  if (tolerated.includes(code)) return code;
  throw new ContainerError({ message: `cannot ${verb} ${path}`, code, errno: -result, syscall, path });
}

export function failure(verb: string, path: string, error: unknown): ContainerError {
  const { code, errno, syscall } = error instanceof Error ? (error as NodeJS.ErrnoException) : {}; // node:fs throws these
  return new ContainerError({
    message: `cannot ${verb} ${path}`,
    code,
    errno: errno === undefined ? undefined : Math.abs(errno),
    syscall,
    path,
    cause: error,
  });
}

export function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined; // node:fs throws these
}
