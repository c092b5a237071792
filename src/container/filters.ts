import { fstatSync, lstatSync, mkdirSync, readdirSync, readFileSync, type Stats, writeFileSync } from "node:fs";
import { createSha256, randomHex } from "../crypto.ts";
import { AT_FDCWD, close, O } from "../kernel/file.ts";
import { call, tryCall } from "../kernel/syscall.ts";
import { compileSeccomp, type Filter, type FilterSource, type Machine } from "../seccomp/compile.ts";
import { COMPILER_DIGEST } from "../seccomp/digest.ts";
import type { Seccomp } from "../spec/spec.ts";
import { printExactly } from "./recording.ts";

/*
 * Compiled seccomp profiles, for the next container that has the same one: reading one takes a fifth of the time that
 * compiling it does. A file is named by what it was made from, and begins with a digest of that and of itself:
 *
 *   <state root>/.seccomp/<key>   32 B digest · u32 flags · u32 notify · struct sock_filter[]
 *
 * A filter is what keeps a container in, so one that is not believed is no error: it is compiled again, and replaced.
 */

/** No id begins with a dot. */
const FILTERS = ".seccomp";
/** Engines have a handful of profiles; one with arguments of its own for every container must not fill the disk. */
const KEPT_FILTERS = 64;
const DIGEST_BYTES = 32;
const HEADER_BYTES = DIGEST_BYTES + 8;
/** BPF_MAXINSNS of linux/bpf_common.h, at 8 bytes each. */
const MOST_BYTES = HEADER_BYTES + 8 * 4096;

const { geteuid } = process;

/** compileSeccomp, with a memory beneath a state root; where there can be none, or none that is ours alone, without. */
export function keptFilters(root: string): FilterSource {
  return (seccomp, machine) => {
    const key = keyOf(seccomp, machine);
    const path = `${root}/${FILTERS}`;
    return within(path, (directory) => read(directory, key)) ?? keep(path, key, compileSeccomp(seccomp, machine));
  };
}

/** Who listens, and what it is told, is no part of the program. */
function keyOf(seccomp: Seccomp, machine: Machine): string {
  const { listenerPath: _path, listenerMetadata: _metadata, ...filtering } = seccomp;
  return createSha256().update(`${COMPILER_DIGEST} ${machine} `).update(printExactly(filtering)).digest("hex");
}

function digestOf(key: string, content: Uint8Array): Buffer {
  return createSha256().update(key).update(content).digest();
}

/** Never in a directory to which somebody else could add a weaker filter. */
function within<T>(path: string, action: (directory: number) => T): T | undefined {
  const directory = tryCall("openat", AT_FDCWD, path, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC, 0);
  if (directory < 0) return;
  try {
    return isOurs(fstatSync(directory)) ? action(directory) : undefined;
  } finally {
    close(directory);
  }
}

function isOurs({ uid, mode }: Stats): boolean {
  return uid === geteuid?.() && (mode & 0o077) === 0;
}

function read(directory: number, key: string): Filter | undefined {
  // without O_NONBLOCK, a FIFO would be waited for
  const fd = tryCall("openat", directory, key, O.RDONLY | O.NOFOLLOW | O.NONBLOCK | O.CLOEXEC, 0);
  if (fd < 0) return;
  try {
    const file = fstatSync(fd);
    if (!file.isFile() || !isOurs(file) || file.size < HEADER_BYTES || file.size > MOST_BYTES) return;
    const bytes = readFileSync(fd);
    const content = bytes.subarray(DIGEST_BYTES);
    if (!digestOf(key, content).equals(bytes.subarray(0, DIGEST_BYTES))) return;
    return {
      flags: bytes.readUInt32LE(DIGEST_BYTES),
      notify: bytes.readUInt32LE(DIGEST_BYTES + 4) === 1,
      program: bytes.subarray(HEADER_BYTES),
    };
  } finally {
    close(fd);
  }
}

/** Containers do without it where it cannot be kept. */
function keep(path: string, key: string, filter: Filter): Filter {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    within(path, (directory) => {
      makeRoom(directory);
      write(directory, key, filter);
    });
  } catch {
    // a full disk, a state root that cannot be written to
  }
  return filter;
}

/** The old one or the new one, whenever it is read. */
function write(directory: number, key: string, { program, flags, notify }: Filter): void {
  const content = Buffer.alloc(HEADER_BYTES - DIGEST_BYTES + program.length);
  content.writeUInt32LE(flags, 0);
  content.writeUInt32LE(notify ? 1 : 0, 4);
  content.set(program, HEADER_BYTES - DIGEST_BYTES);
  const name = `${key}.${randomHex(4)}`;
  const fd = call("openat", directory, name, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW | O.CLOEXEC, 0o600);
  try {
    writeFileSync(fd, Buffer.concat([digestOf(key, content), content]));
    call("renameat2", directory, name, directory, key, 0);
  } catch (error) {
    tryCall("unlinkat", directory, name, 0);
    throw error;
  } finally {
    close(fd);
  }
}

/** The oldest go, and with them what killed processes of ours have left. */
function makeRoom(directory: number): void {
  const here = `/proc/self/fd/${directory}`;
  const names = readdirSync(here);
  if (names.length < KEPT_FILTERS) return;
  const files = names.map((name) => ({
    name,
    at: lstatSync(`${here}/${name}`, { throwIfNoEntry: false })?.mtimeMs ?? 0,
  }));
  files.sort((one, other) => one.at - other.at);
  for (const { name } of files.slice(0, files.length - KEPT_FILTERS + 1)) tryCall("unlinkat", directory, name, 0);
}
