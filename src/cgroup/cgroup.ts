import { dirname } from "node:path";
import { ContainerError } from "../error.ts";
import type { CurrentResources, ResourceWrite } from "../plan/cgroup-files.ts";
import type { CgroupDirectory } from "../plan/cgroup-layout.ts";
import {
  awaitEvent,
  codeOf,
  exists,
  failure,
  hasFile,
  isCgroup,
  isMountPoint,
  makeDirectory,
  readIfPresent,
  removeDirectory,
  subtree,
  writeExisting,
} from "./file.ts";

/** How to wait for the kernel. Deadlines are the caller's: each may throw. */
export type Waits = {
  /** Returns when none of these processes lives any more (pidfd_open(2), poll(2)). A pid that is gone already is fine. */
  exit: (pids: readonly number[]) => void;
  /** Returns when the file of this descriptor, a cgroup.events, has changed since it was read last (poll(2), POLLPRI). */
  change: (descriptor: number) => void;
};

/** What an optional write may fail with. */
const TOLERATED = ["ENOENT", "EOPNOTSUPP", "ENOTSUP", "EBUSY", "EINVAL", "EACCES", "EPERM"];
/** How often processes that stay are killed once more, and how often version 1, which cannot notify, is asked, 1 ms apart. */
const ROUNDS = 2000;

/**
 * Makes a cgroup and what is missing above it.
 * @param options shared: what it has is ours already, because somebody made it for us
 * @returns the directories that are new, outermost first: those, and no others, are ours to remove
 * @throws ContainerError EBUSY if it exists and has processes: its limits would be theirs too, and so would its end
 */
export function createDirectory(path: string, { shared = false } = {}): string[] {
  const missing: string[] = [];
  let above = path;
  for (; !exists(above); above = dirname(above)) missing.unshift(above);
  // A directory elsewhere would limit nothing.
  if (!hasFile(above, "cgroup.procs")) {
    throw new ContainerError({
      message: `cannot create cgroup ${path}: ${above} is not a cgroup`,
      code: "ENOENT",
      path,
    });
  }
  if (missing.length === 0 && !shared && processes(path).length > 0) {
    // runc's words
    const message = `container's cgroup is not empty: ${path} has ${processes(path).length} process(es)`;
    throw new ContainerError({ message, code: "EBUSY", path });
  }
  if (missing.length === 0 && isFrozenAt(path))
    throw new ContainerError({ message: `container's cgroup unexpectedly frozen: ${path}`, code: "EBUSY", path });
  return missing.filter(makeDirectory);
}

/** Writes a value into a cgroup file. @returns whether it was written: an optional write may fail. */
export function writeFile(path: string, value: string, { optional = false } = {}): boolean {
  return writeExisting(path, value, optional ? TOLERATED : []) === undefined;
}

/** Carries out one write of the plan, with its alternative or inheritance. */
export function applyWrite({ directory, file, value, optional, otherwise }: Omit<ResourceWrite, "from">): void {
  const path = `${directory}/${file}`;
  if (value === undefined) {
    if (readIfPresent(path)?.trim() !== "") return;
    writeFile(path, readIfPresent(`${dirname(directory)}/${file}`)?.trim() ?? "");
  } else if (otherwise === undefined) {
    writeFile(path, value, { optional: optional === true });
  } else if (writeExisting(path, value, ["ENOENT"]) !== undefined) {
    writeFile(`${directory}/${otherwise.file}`, otherwise.value, { optional: optional === true });
  }
}

/** Moves a process, all its threads with it, into each of the cgroups. */
export function addProcess(directories: readonly CgroupDirectory[], pid: number): void {
  for (const { path } of directories) writeFile(`${path}/cgroup.procs`, `${pid}`);
}

/**
 * Where another process joins a container. A cgroup of version 2 that shares out its controllers has no processes of its
 * own (cgroups(7), "no internal processes"): a container that has divided its cgroup is joined where its first process is.
 * @param pid of the container's first process
 */
export function joinableDirectories(directories: readonly CgroupDirectory[], pid: number): CgroupDirectory[] {
  return directories.map((directory) => {
    const { hierarchy, path } = directory;
    if (hierarchy.version === 1 || (readIfPresent(`${path}/cgroup.subtree_control`) ?? "").trim() === "")
      return directory;
    const entered = /^0::(.*)$/m.exec(readIfPresent(`/proc/${pid}/cgroup`) ?? "")?.[1];
    const below = `${hierarchy.mountPoint}${entered}`;
    return below.startsWith(`${path}/`) ? { hierarchy, path: below } : directory;
  });
}

/** The processes of a cgroup and of those beneath it; none if it is gone. Processes of other pid namespaces are left out. */
export function processes(path: string): number[] {
  const pids = subtree(path).flatMap((each) =>
    // A threaded cgroup (v2) has no cgroup.procs to read, only cgroup.threads.
    (readIfPresent(`${each}/cgroup.procs`) ?? readIfPresent(`${each}/cgroup.threads`) ?? "").split("\n").map(Number),
  );
  return [...new Set(pids.filter((pid) => pid > 0))];
}

/**
 * Stops every process of the cgroup, and returns when they are all stopped. The freezer of version 2 is preferred,
 * also on a hybrid system: a process frozen by version 1 cannot even be killed.
 * @throws ContainerError EBUSY if version 1 cannot stop them within two seconds; they run again then
 */
export function freeze(directories: readonly CgroupDirectory[], waits: Pick<Waits, "change">): void {
  const freezer = freezerOf(directories);
  if (freezer === undefined)
    throw new ContainerError({ message: "cannot freeze: the container has no cgroup that can", code: "ENOTSUP" });
  const { path, version } = freezer;
  if (version === 2) {
    writeFile(`${path}/cgroup.freeze`, "1");
    awaitEvent(path, "frozen 1", waits.change);
    return;
  }
  const state = `${path}/freezer.state`;
  for (let round = 0; round < ROUNDS; round++) {
    // Reading is what moves the state from FREEZING to FROZEN; writing again reaches processes that have come since.
    writeFile(state, "FROZEN");
    if (readIfPresent(state)?.trim() === "FROZEN") return;
    pause();
  }
  writeFile(state, "THAWED");
  throw new ContainerError({ message: `cannot freeze cgroup ${path}: a process will not stop`, code: "EBUSY", path });
}

/** Lets the processes of a frozen cgroup run again, whichever version somebody has frozen it by. */
export function thaw(directories: readonly CgroupDirectory[], waits: Pick<Waits, "change">): void {
  const frozen = directories.filter((directory) => isFrozen([directory]));
  for (const { hierarchy, path } of frozen) {
    if (hierarchy.version === 1) {
      writeFile(`${path}/freezer.state`, "THAWED");
      continue;
    }
    writeFile(`${path}/cgroup.freeze`, "0");
    awaitEvent(path, "frozen 0", waits.change);
  }
}

/** Is the cgroup frozen, or about to be? */
export function isFrozen(directories: readonly CgroupDirectory[]): boolean {
  return directories.some(({ hierarchy, path }) =>
    hierarchy.version === 2
      ? readIfPresent(`${path}/cgroup.freeze`)?.trim() === "1"
      : hierarchy.controllers.includes("freezer") &&
        (readIfPresent(`${path}/freezer.state`)?.trim() ?? "THAWED") !== "THAWED",
  );
}

/** What is put into a frozen cgroup could neither go on nor, on version 1, be killed. */
function isFrozenAt(path: string): boolean {
  const state = readIfPresent(`${path}/freezer.state`)?.trim() ?? "THAWED";
  return state !== "THAWED" || /^frozen 1$/m.test(readIfPresent(`${path}/cgroup.events`) ?? "");
}

/** Sends SIGKILL to every process of the container and thaws those that are frozen. Does not wait for their end. */
export function killAll(directories: readonly CgroupDirectory[]): void {
  const able = directories.filter(
    ({ hierarchy }) => hierarchy.version === 2 || hierarchy.controllers.includes("freezer"),
  );
  for (const { path } of able.length > 0 ? able : directories.slice(0, 1)) killIn(path);
}

/**
 * Removes cgroups and whatever a container made beneath them, innermost first. Processes still inside are killed.
 * Idempotent: a cgroup that is gone is fine.
 * @throws ContainerError EINVAL for a path that is not on a cgroup file system, EBUSY if it will not become free
 */
export function removeDirectories(paths: readonly string[], waits: Waits): void {
  const busy = paths.filter((path) => !removeIfFree(path) && !removeTree(path));
  // All are killed before any is waited for: one hierarchy may keep frozen what another has killed. Those that can kill
  // without a race go first; the others find nobody left.
  const rank = (path: string) => (hasFile(path, "cgroup.kill") ? 0 : hasFile(path, "freezer.state") ? 1 : 2);
  busy.sort((one, other) => rank(one) - rank(other));
  for (const path of busy) killIn(path);
  for (const path of busy) {
    for (let round = 0; !removeTree(path); round++) {
      if (round === ROUNDS) {
        throw new ContainerError({ message: `cannot remove cgroup ${path}: it stays in use`, code: "EBUSY", path });
      }
      const pids = processes(path);
      if (pids.length > 0) {
        if (round > 0) killIn(path);
        waits.exit(pids);
      } else if (hasFile(path, "cgroup.events")) {
        // The last process has ended, but the kernel has not counted it out yet.
        awaitEvent(path, "populated 0", waits.change);
      } else {
        pause();
      }
    }
  }
}

/** Removes directories of which only empty ones are ours to remove, such as a parent shared by containers, in this order. */
export function removeEmptyDirectories(paths: readonly string[]): void {
  for (const path of paths) removeIfFree(path);
}

/** What resourceWrites needs to know for an update. */
export function currentResources(directories: readonly CgroupDirectory[]): CurrentResources {
  const read = (v1Controller: string, v1File: string, v2File: string, v2Field = 0) => {
    const word =
      readController(directories, v1Controller, v1File)?.trim() ??
      readV2(directories, v2File)?.trim().split(/\s+/)[v2Field];
    if (word === undefined || word === "") return undefined;
    return word === "max" ? -1n : BigInt(word);
  };
  const limit = read("memory", "memory.limit_in_bytes", "memory.max");
  const usage = read("memory", "memory.usage_in_bytes", "memory.current");
  const quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
  const period = read("cpu", "cpu.cfs_period_us", "cpu.max", 1);
  const burst = read("cpu", "cpu.cfs_burst_us", "cpu.max.burst");
  return {
    ...(limit === undefined ? {} : { memoryLimitBytes: limit }),
    ...(usage === undefined ? {} : { memoryUsageBytes: usage }),
    ...(quota === undefined ? {} : { cpuQuotaUs: Number(quota) }),
    ...(period === undefined ? {} : { cpuPeriodUs: Number(period) }),
    ...(burst === undefined ? {} : { cpuBurstUs: Number(burst) }),
  };
}

/** How many processes the kernel has killed for want of memory in this cgroup. */
export function oomKilled(directories: readonly CgroupDirectory[]): number {
  const file = oomFile(directories);
  const text = file === undefined ? undefined : readIfPresent(file);
  return text === undefined ? 0 : oomKills(text);
}

/** The file whose line "oom_kill" counts them; undefined where no hierarchy limits memory. */
export function oomFile(directories: readonly CgroupDirectory[]): string | undefined {
  const files = directories.map(({ hierarchy, path }) =>
    hierarchy.version === 2
      ? `${path}/memory.events`
      : hierarchy.controllers.includes("memory")
        ? `${path}/memory.oom_control`
        : undefined,
  );
  return files.find((file) => file !== undefined && exists(file));
}

function oomKills(text: string): number {
  return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
}

/** Text of a file in the version 1 hierarchy that has this controller. */
export function readController(
  directories: readonly CgroupDirectory[],
  controller: string,
  file: string,
): string | undefined {
  const directory = directories.find(
    ({ hierarchy }) => hierarchy.version === 1 && hierarchy.controllers.includes(controller),
  );
  return directory === undefined ? undefined : readIfPresent(`${directory.path}/${file}`);
}

/** Text of a file in the version 2 hierarchy. */
export function readV2(directories: readonly CgroupDirectory[], file: string): string | undefined {
  const directory = directories.find(({ hierarchy }) => hierarchy.version === 2);
  return directory === undefined ? undefined : readIfPresent(`${directory.path}/${file}`);
}

/** The directory by which freeze stops the processes; undefined where none can. */
export function freezerOf(directories: readonly CgroupDirectory[]): { path: string; version: 1 | 2 } | undefined {
  const unified = directories.find(({ hierarchy }) => hierarchy.version === 2);
  // The mount point itself and kernels before 5.2 have no such file.
  if (unified !== undefined && hasFile(unified.path, "cgroup.freeze")) {
    return { path: unified.path, version: 2 };
  }
  const freezer = directories.find(({ hierarchy }) => hierarchy.controllers.includes("freezer"));
  return freezer === undefined ? undefined : { path: freezer.path, version: 1 };
}

function killIn(path: string): void {
  // cgroup.kill (Linux 5.14) is one write that no fork outruns. Otherwise what runs can fork between our reading its pid
  // and killing it, or end and leave its pid to a stranger; what is frozen can do neither, and dies once it is thawed.
  if (writeExisting(`${path}/cgroup.kill`, "1", ["ENOENT", "EOPNOTSUPP", "ENOTSUP"]) === undefined) return;
  writeExisting(`${path}/freezer.state`, "FROZEN", TOLERATED);
  for (const pid of processes(path)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      if (codeOf(error) !== "ESRCH") throw failure("kill the processes of", path, error);
    }
  }
  // A container can have frozen cgroups of its own beneath.
  for (const each of subtree(path)) writeExisting(`${each}/freezer.state`, "THAWED", TOLERATED);
}

/** Innermost first. @returns whether everything is gone */
function removeTree(path: string): boolean {
  return subtree(path).reverse().map(tryRemove).every(Boolean);
}

/** @returns whether the directory is gone */
function removeIfFree(path: string): boolean {
  const kind = isCgroup(path);
  if (kind === undefined) return true;
  if (kind && !isMountPoint(path)) return tryRemove(path);
  throw new ContainerError({ message: `cannot remove ${path}: it is not a container's cgroup`, code: "EINVAL", path });
}

function tryRemove(path: string): boolean {
  return removeDirectory(path, ["EBUSY", "ENOTEMPTY"]) === undefined;
}

/** One millisecond: for the places where version 1 has nothing to wait for. */
function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
}
