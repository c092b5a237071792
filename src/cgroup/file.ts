import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmdirSync,
  statfsSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { ContainerError } from "../error.ts";

const CGROUP_SUPER_MAGIC = 0x27e0eb;
const CGROUP2_SUPER_MAGIC = 0x63677270;
/** ENODEV: the cgroup was removed between open and read. */
const GONE = ["ENOENT", "ENODEV"];

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

/** Has this cgroup this file? Some can be written but not read. */
export function hasFile(path: string, file: string): boolean {
  return existsSync(`${path}/${file}`);
}

/** Text of a cgroup file; undefined where the kernel has no such file, or the cgroup is gone. */
export function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    // EOPNOTSUPP: the file does not apply to this cgroup, such as cgroup.procs to a threaded one.
    if ([...GONE, "EOPNOTSUPP", "ENOTSUP"].includes(codeOf(error) ?? "")) return undefined;
    throw failure("read", path, error);
  }
}

/**
 * Writes a value in one write(2), as cgroup files want it, into a file that exists.
 * @returns the errno's name if it is one of `tolerated`, else undefined
 */
export function writeExisting(path: string, value: string, tolerated: readonly string[] = []): string | undefined {
  try {
    // Neither O_CREAT nor O_TRUNC: a file that is missing must not appear on whatever is there instead of cgroupfs.
    const descriptor = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW);
    try {
      writeSync(descriptor, value === "" ? "\n" : value);
    } finally {
      closeSync(descriptor);
    }
    return undefined;
  } catch (error) {
    const code = codeOf(error);
    if (code !== undefined && tolerated.includes(code)) return code;
    throw failure(`write ${JSON.stringify(value)} to`, path, error);
  }
}

/** @returns whether it is new */
export function makeDirectory(path: string): boolean {
  try {
    mkdirSync(path, 0o755);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw failure("create cgroup", path, error);
  }
}

/** @returns the errno's name if it is one of `tolerated`, else undefined, which also means that it was gone already */
export function removeDirectory(path: string, tolerated: readonly string[]): string | undefined {
  try {
    rmdirSync(path);
    return undefined;
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") return undefined;
    if (code !== undefined && tolerated.includes(code)) return code;
    throw failure("remove cgroup", path, error);
  }
}

/**
 * Waits until a cgroup's cgroup.events has this line, or the cgroup is gone.
 * @param change returns when the file has changed since this descriptor read it
 */
export function awaitEvent(directory: string, line: string, change: (descriptor: number) => void): void {
  const path = `${directory}/cgroup.events`;
  const bytes = Buffer.alloc(4096);
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    // Each read marks the descriptor as up to date, so that no change falls between reading and waiting.
    while (
      !bytes
        .toString("latin1", 0, readSync(descriptor, bytes, 0, bytes.length, 0))
        .split("\n")
        .includes(line)
    ) {
      change(descriptor);
    }
  } catch (error) {
    if (error instanceof ContainerError) throw error;
    if (!GONE.includes(codeOf(error) ?? "")) throw failure("read", path, error);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
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
