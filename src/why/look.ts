import { fstatSync, readdirSync, readFileSync, readlinkSync, type Stats, statfsSync } from "node:fs";
import { release } from "node:os";
import { diagnoseExecutable } from "../execute/diagnosis.ts";
import { lookAtCaller } from "../host/caller.ts";
import { AT_FDCWD, close, O, open, RESOLVE, tryOpenIn } from "../kernel/file.ts";
import { errnoName, type SyscallName, tryCall } from "../kernel/syscall.ts";
import { type MountEntry, parseMountinfo } from "../linux/mountinfo.ts";
import type { Facts, Space, Walk } from "./question.ts";

const EPIPE = 32;

/** Looks at this host as it is now. Nothing is changed, and nothing of a container's is followed out of its root. */
export function lookAround(): Facts {
  let mounts: MountEntry[] | undefined;
  return {
    self: lookAtCaller(),
    text: (path) => attempt(() => readFileSync(path, "utf8").trim()),
    list: (path) => attempt(() => readdirSync(path)),
    mounts: () => {
      mounts ??= attempt(() => parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"))) ?? [];
      return mounts;
    },
    walk,
    space: (path) => attempt(() => spaceOf(path)),
    objection,
    answerTo,
    namespaces: countNamespaces,
    defect: (root, path) =>
      attempt(() => {
        const directory = open(root, O.PATH | O.DIRECTORY);
        try {
          return diagnoseExecutable(directory, path);
        } finally {
          close(directory);
        }
      }),
    log: (word) => messagesWith(word),
    release: release(),
  };
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return; // not there, or not for us: who asks knows what that means
  }
}

/** Each beginning of the path is looked up by itself, from the root's descriptor, so that links stay beneath it. */
function walk(path: string, root?: string): Walk {
  const start = tryCall("openat", AT_FDCWD, root ?? "/", O.PATH | O.DIRECTORY | O.CLOEXEC, 0);
  if (start < 0) return { found: undefined, parts: [], stopped: { path: root ?? "/", code: errnoName(-start) } };
  try {
    return walkFrom(start, path, root === undefined ? 0 : RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS);
  } finally {
    close(start);
  }
}

function walkFrom(start: number, path: string, resolve: number): Walk {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  const parts: { path: string; stats: Stats }[] = [{ path: "/", stats: fstatSync(start) }];
  let real = "/";
  for (let length = 1; length <= names.length; length++) {
    const head = names.slice(0, length).join("/");
    // what must be a directory is opened as one, as the kernel's own walk would
    const flags = O.PATH | (length < names.length ? O.DIRECTORY : 0);
    const fd = tryOpenIn(start, head, flags, resolve);
    if (fd < 0) {
      const link = linkAt(start, head, resolve);
      return {
        found: undefined,
        parts,
        stopped: { path: `/${head}`, code: errnoName(-fd), ...(link === undefined ? {} : { link }) },
      };
    }
    parts.push({ path: `/${head}`, stats: fstatSync(fd) });
    real = attempt(() => readlinkSync(`/proc/self/fd/${fd}`)) ?? real;
    close(fd);
  }
  return { found: parts.at(-1)?.stats, parts, real };
}

/** Where a symbolic link leads; undefined for what is none. */
function linkAt(start: number, path: string, resolve: number): string | undefined {
  const fd = tryOpenIn(start, path, O.PATH | O.NOFOLLOW, resolve);
  if (fd < 0) return;
  const target = Buffer.alloc(4096);
  const length = tryCall("readlinkat", fd, "", target, target.length);
  close(fd);
  return length < 0 ? undefined : target.toString("utf8", 0, length);
}

function spaceOf(path: string): Space {
  const { bavail, bsize, ffree, files } = statfsSync(path);
  return { freeBytes: bavail * bsize, freeFiles: ffree, files };
}

/** Filesystems that nothing but memory is behind: making one and letting it go has no effect. */
const HARMLESS: ReadonlySet<string> = new Set(["tmpfs", "ramfs", "proc", "sysfs", "mqueue", "devpts", "cgroup2"]);

/**
 * Makes the filesystem again, and lets go of it before it is mounted. A filesystem context keeps a log of what it did not
 * like: read(2) of it, see fsopen(2).
 */
function objection(type: string, parameters: readonly string[]): string | undefined {
  const context = tryCall("fsopen", type, 1);
  if (context < 0) return errnoName(-context);
  try {
    const [SET_FLAG, SET_STRING, CREATE] = [0, 1, 6];
    for (const parameter of parameters) {
      const [key = "", ...value] = parameter.split("=");
      const result =
        value.length === 0
          ? tryCall("fsconfig", context, SET_FLAG, key, null, 0)
          : tryCall("fsconfig", context, SET_STRING, key, value.join("="), 0);
      if (result < 0) return `${errnoName(-result)} to ${parameter}${logOf(context)}`;
    }
    if (!HARMLESS.has(type)) return "";
    const created = tryCall("fsconfig", context, CREATE, null, null, 0);
    return created < 0 ? `${errnoName(-created)}${logOf(context)}` : "";
  } finally {
    close(context);
  }
}

/** Messages begin with their weight: "e tmpfs: Unknown parameter 'x'". */
function logOf(context: number): string {
  const said: string[] = [];
  const message = Buffer.alloc(4096);
  for (;;) {
    const length = tryCall("read", context, message, message.length);
    if (length <= 0) return said.map((line) => `: ${line}`).join("");
    said.push(message.toString("utf8", 2, length).trim());
  }
}

/** Arguments that the kernel answers with EBADF, EINVAL, EFAULT or ENOENT, whoever asks; with others it never got so far. */
const WRONG: { readonly [call: string]: readonly (number | string | null)[] } = {
  open_tree: [-1, "", 0x1000],
  move_mount: [-1, "", -1, "", 4 | 0x40],
  mount_setattr: [-1, "", 0x1000, null, 0],
  fsopen: [null, 0],
  fsconfig: [-1, 0, null, null, 0],
  fsmount: [-1, 0, 0],
  openat2: [-1, "", null, 0],
  setns: [-1, 0],
  keyctl: [-1, 0, 0, 0, 0],
  mount: [null, null, null, 0, null],
  umount2: [null, 0],
  mknodat: [-1, "x", 0, 0],
  pidfd_open: [-1, 0],
  memfd_create: [null, 0],
  prlimit64: [0, -1, null, null],
};

function answerTo(name: string): string | undefined {
  const wrong = WRONG[name];
  if (wrong === undefined) return;
  const result = tryCall(name as SyscallName, ...wrong); // a key of WRONG, and those are calls that we know
  return result < 0 ? errnoName(-result) : "success";
}

/** Each read of /dev/kmsg is one message, "level,number,µs,flags;text" (kernel.org, ABI/testing/dev-kmsg). */
function messagesWith(word: string): string[] | undefined {
  const log = tryCall("openat", AT_FDCWD, "/dev/kmsg", O.RDONLY | O.NONBLOCK | O.CLOEXEC, 0);
  if (log < 0) return;
  const found: string[] = [];
  const message = Buffer.alloc(8192);
  for (;;) {
    const length = tryCall("read", log, message, message.length);
    if (length > 0) {
      const [text = ""] = message.toString("utf8", 0, length).split("\n");
      if (text.includes(word)) found.push(text.slice(text.indexOf(";") + 1));
    } else if (length !== -EPIPE) break; // EPIPE: what was next has been written over
  }
  close(log);
  return found;
}

function processes(): string[] {
  return (attempt(() => readdirSync("/proc")) ?? []).filter((name) => /^[0-9]+$/.test(name));
}

function countNamespaces(file: string): number {
  return new Set(processes().flatMap((pid) => attempt(() => readlinkSync(`/proc/${pid}/ns/${file}`)) ?? [])).size;
}
