import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { AT_EMPTY_PATH, close, O, open, RESOLVE, tryOpenIn } from "../kernel/file.ts";
import { startTime } from "../kernel/process.ts";
import { call } from "../kernel/syscall.ts";
import { parseMountinfo } from "../linux/mountinfo.ts";
import { NAMESPACES } from "../linux/namespaces.ts";
import { parseLimits, parseStatus } from "../linux/process-status.ts";
import type { CgroupLayout } from "../plan/cgroup-layout.ts";
import type { Place, Sight } from "./sight.ts";

/** What to look at beyond what every process has. */
export interface Wanted {
  /** Paths in the container. */
  places: readonly string[];
  /** Namespaces of the specification's that have a path. */
  joined: readonly string[];
  /** Names of files in its cgroups. */
  files: readonly string[];
  /** The container's own cgroups, where they are known; its process may have gone deeper. */
  cgroups?: readonly string[] | undefined;
}

/**
 * Looks at a running process through /proc and cgroupfs; nothing is entered.
 * @throws ContainerError ESRCH when there is no such process, or it ends meanwhile
 */
export function look(pid: number, layout: CgroupLayout, wanted: Wanted): Sight {
  const started = startTime(pid);
  const text = (file: string) => readFileSync(`/proc/${pid}/${file}`, "utf8");
  try {
    const cgroups = cgroupsOf(text("cgroup"), layout);
    const sight: Sight = {
      pid,
      status: parseStatus(text("status")),
      limits: parseLimits(text("limits")),
      namespaces: namespaces(`/proc/${pid}/ns`),
      own: namespaces("/proc/self/ns"),
      joined: new Map(wanted.joined.flatMap((path) => withValue(path, () => namespaceOf(path)))),
      uidMap: text("uid_map"),
      gidMap: text("gid_map"),
      timeOffsets: optional(() => text("timens_offsets")) ?? "",
      oomScoreAdj: text("oom_score_adj").trim(),
      personality: optional(() => text("personality"))?.trim() ?? "",
      label: optional(() => text("attr/current"))?.replace(/\0|\n/g, ""),
      mounts: parseMountinfo(text("mountinfo")),
      places: places(pid, wanted.places),
      descriptors: descriptors(pid),
      cgroups,
      files: new Map(
        (wanted.cgroups ?? [...cgroups.values()])
          .flatMap((directory) => wanted.files.map((file) => `${directory}/${file}`))
          .flatMap((path) => withValue(path, () => readFileSync(path, "utf8"))),
      ),
    };
    if (started !== undefined && startTime(pid) === started) return sight;
  } catch (error) {
    if (started !== undefined && startTime(pid) === started) throw error;
  }
  throw new ContainerError({ message: `cannot look at process ${pid}: it does not run`, code: "ESRCH" });
}

function optional<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return; // this kernel has no such file, or it is empty in a way that answers EINVAL
  }
}

function withValue<K, V>(key: K, read: () => V): [K, V][] {
  const value = optional(read);
  return value === undefined ? [] : [[key, value]];
}

function namespaces(directory: string): Map<string, string> {
  const files = Object.values(NAMESPACES).map(({ file }) => file);
  return new Map(files.flatMap((file) => withValue(file, () => readlinkSync(`${directory}/${file}`))));
}

/** A namespace file may be a bind mount, whose name says nothing: its descriptor's link does. */
function namespaceOf(path: string): string {
  const fd = open(path, O.RDONLY);
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } finally {
    close(fd);
  }
}

function places(pid: number, paths: readonly string[]): Map<string, Place> {
  const root = open(`/proc/${pid}/root`, O.PATH | O.DIRECTORY);
  try {
    return new Map(
      paths.flatMap((path): [string, Place][] => {
        const fd = tryOpenIn(root, path, O.PATH, RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS);
        if (fd < 0) return [];
        try {
          return [[path, placeOf(fd)]];
        } finally {
          close(fd);
        }
      }),
    );
  } finally {
    close(root);
  }
}

const STATX_TYPE = 0x1;
const STATX_MNT_ID = 0x1000;
const STATX_ATTR_MOUNT_ROOT = 0x2000n;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFCHR = 0o020000;

/** statx(2): the offsets are those of struct statx. */
function placeOf(fd: number): Place {
  const buffer = Buffer.alloc(256);
  call("statx", fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_MNT_ID, buffer);
  const type = buffer.readUInt16LE(28) & S_IFMT;
  return {
    mount: Number(buffer.readBigUInt64LE(144)),
    isMountRoot: (buffer.readBigUInt64LE(8) & STATX_ATTR_MOUNT_ROOT) !== 0n,
    isDirectory: type === S_IFDIR,
    isNull: type === S_IFCHR && buffer.readUInt32LE(128) === 1 && buffer.readUInt32LE(132) === 3,
  };
}

function descriptors(pid: number): { number: number; target: string; mount: number }[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((name) => {
    const seen = optional(() => ({
      number: Number(name),
      target: readlinkSync(`/proc/${pid}/fd/${name}`),
      mount: Number(/^mnt_id:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${name}`, "utf8"))?.[1] ?? -1),
    }));
    return seen === undefined ? [] : [seen]; // closed meanwhile
  });
}

/** Where a process is in each hierarchy, seen from here. */
function cgroupsOf(text: string, { hierarchies }: CgroupLayout): Map<string, string> {
  const lines = text.split("\n").map((line) => /^(\d+):([^:]*):(.*)$/.exec(line) ?? []);
  return new Map(
    hierarchies.flatMap(({ version, controllers, mountPoint }): [string, string][] => {
      const [, , , path] =
        lines.find(([, number, names]) =>
          version === 2 ? number === "0" : number !== "0" && names === controllers.join(","),
        ) ?? [];
      return path === undefined ? [] : [[mountPoint, path === "/" ? mountPoint : `${mountPoint}${path}`]];
    }),
  );
}
