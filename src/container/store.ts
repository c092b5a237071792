import { existsSync, fstatSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { AT_FDCWD, AT_REMOVEDIR, close, lock, lockHolder, lockWithin, O, replaceFile } from "../kernel/file.ts";
import { call, kernelError, tryCall } from "../kernel/syscall.ts";
import type { CgroupDirectory } from "../plan/cgroup-layout.ts";
import type { Definition } from "../plan/definition.ts";
import type { Host } from "../plan/host.ts";
import type { Plan } from "../plan/step.ts";
import type { Spec } from "../spec/spec.ts";
import { OCI_VERSION } from "../spec/template.ts";
import { copyRecordings, printDefinition, readDefinition, readPlan } from "./recording.ts";

/** What is kept of a container; the status is derived from it and from the kernel. */
export interface Record {
  version: 1;
  id: string;
  status: "creating" | "created";
  bundle: string;
  rootfs: string;
  /** Of the container's first process; 0 while creating. */
  pid: number;
  /** Field 22 of its /proc/PID/stat, and the boot it belongs to: a pid alone may come again. */
  startTime: string;
  bootId: string;
  /** RFC 3339. */
  createdAt: string;
  /** User who asked for it. */
  uid: number;
  annotations: { [key: string]: string };
  /** Whether its plan has more to take back at the end than cgroups: hooks to run, a class of service. */
  promises: boolean;
  /** Whether start has more to do than to let init go on. */
  resumes: boolean;
  cgroups: readonly CgroupDirectory[];
  /** Where the plan has the steps that are taken back at the end, cgroups by their paths; -1: nowhere. */
  steps: { process: number; endpoint: number; unit: number; cgroups: { [path: string]: number } };
  /** The unit that systemd made for it. */
  unit?: { name: string; user: boolean };
}

const VERSION = 1;
/** How long a command waits for another one to be done with the container. */
const PATIENCE_MS = 10_000;
/** The code of errors about a record that nobody can read any more. */
const DAMAGED = "ERR_DAMAGED";
/** For records of builds that did not know these fields yet: as if there were everything to do. */
const UNKNOWN = {
  annotations: {},
  promises: true,
  resumes: true,
  cgroups: [],
  steps: { process: -1, endpoint: -1, unit: -1, cgroups: {} },
};
const FILES = ["state.json", "definition.json", "trace", "start.sock"];
const ENOENT = 2;
const EEXIST = 17;
/** Where the socket of Notify is. */
export const NOTIFY = "notify";

/** One container's directory beneath the state root: state.json, definition.json, trace, start.sock. */
export class Store {
  readonly path: string;
  /** Descriptor of the directory; locked while it is open here. */
  readonly directory: number;

  private constructor(path: string, directory: number) {
    this.path = path;
    this.directory = directory;
  }

  /**
   * Makes a container's directory, locked; takes over one in which there is nothing yet: whoever made it was killed.
   * @returns undefined when there is a container already, or about to be
   */
  static make(root: string, id: string): Store | undefined {
    const path = `${root}/${id}`;
    for (;;) {
      const made = tryCall("mkdirat", -100, path, 0o700);
      if (made === -ENOENT && !existsSync(root)) {
        mkdirSync(root, { recursive: true, mode: 0o700 });
        continue;
      }
      if (made < 0 && made !== -EEXIST) throw kernelError("mkdirat", -made, path);
      const directory = tryCall("openat", -100, path, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC, 0);
      if (directory === -ENOENT) continue; // deleted in between
      if (directory < 0) throw kernelError("openat", -directory, path);
      if (lock(directory, false) && isStill(path, directory) && !Store.has(root, id)) return new Store(path, directory);
      close(directory);
      if (existsSync(path)) return;
    }
  }

  /** Removes a directory in which its maker was killed before anything was recorded: nothing else of it exists. */
  static sweep(root: string, id: string): void {
    const path = `${root}/${id}`;
    const directory = tryCall("openat", -100, path, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC, 0);
    if (directory < 0) return;
    if (lock(directory, false) && isStill(path, directory) && !Store.has(root, id))
      rmSync(path, { recursive: true, force: true });
    close(directory);
  }

  /**
   * Opens a container's directory and locks it. @returns undefined when there is none
   * @throws ContainerError EBUSY when somebody else keeps the lock for long
   */
  static open(root: string, id: string): Store | undefined {
    const path = `${root}/${id}`;
    const directory = tryCall("openat", -100, path, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC, 0);
    if (directory < 0) return;
    if (!lockWithin(directory, PATIENCE_MS)) {
      const holder = lockHolder(directory);
      close(directory);
      throw new ContainerError({
        message: `container ${id} is in use: ${holder} has been at work on it for ${PATIENCE_MS / 1000} s`,
        code: "EBUSY",
      });
    }
    // it may have been deleted while we waited
    if (existsSync(`${path}/.`)) return new Store(path, directory);
    close(directory);
    return;
  }

  /** Whether some other process holds the lock: it is at work on the container. */
  static busy(root: string, id: string): boolean {
    const directory = tryCall("openat", -100, `${root}/${id}`, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC, 0);
    if (directory < 0) return false;
    const free = lock(directory, false);
    close(directory);
    return !free;
  }

  /** The ids there are. */
  static list(root: string): string[] {
    return existsSync(root)
      ? readdirSync(root)
          .filter((id) => ID.test(id))
          .sort()
      : [];
  }

  /** Whether there is a record, readable or not. */
  static has(root: string, id: string): boolean {
    return existsSync(`${root}/${id}/state.json`);
  }

  /** Whether there is a record that nobody can read any more. */
  static isDamaged(root: string, id: string): boolean {
    try {
      Store.read(root, id);
      return false;
    } catch (error) {
      if (error instanceof ContainerError && error.code === DAMAGED) return true;
      throw error;
    }
  }

  /** In place of a damaged record: all that the plan has made is to be taken back. */
  rebuilt(id: string): Record {
    let definition: Definition | undefined;
    try {
      definition = readDefinition(this.path)?.definition;
    } catch {
      // then nothing is known
    }
    return {
      ...UNKNOWN,
      ...{ version: VERSION, id, status: "creating", pid: 0, startTime: "", bootId: "", createdAt: "", uid: 0 },
      bundle: definition?.bundle ?? "",
      rootfs: definition?.spec.root?.path ?? "",
      annotations: definition?.spec.annotations ?? {},
    };
  }

  /**
   * A container's record, without the lock: it is replaced as a whole. @returns undefined when there is none yet
   * @throws ContainerError with the code DAMAGED
   */
  static read(root: string, id: string): Record | undefined {
    const path = `${root}/${id}/state.json`;
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch {
      return;
    }
    return parseRecord(text, path);
  }

  /** Replaces the record: at any moment there is the old one or the new one. */
  write(record: Record): void {
    replaceFile(`${this.path}/state.json`, JSON.stringify(record));
  }

  /** Keeps what the plan is compiled from: with it, explanations and errors can be made again at any time. */
  writeDefinition(definition: Definition, host: Host): void {
    replaceFile(`${this.path}/definition.json`, printDefinition({ definition, host }));
  }

  plan(): Plan {
    return readPlan(this.path);
  }

  copyRecordings(directory: string): void {
    copyRecordings(this.path, directory);
  }

  /** Whether a container still waits for start. */
  static waits(root: string, id: string): boolean {
    return existsSync(`${root}/${id}/start.sock`);
  }

  /** The directory that the container will see; see Notify. */
  makeNotify(): void {
    call("mkdirat", this.directory, NOTIFY, 0o755);
    // whatever our umask is, the container's user has to get to the socket
    call("fchmodat", this.directory, NOTIFY, 0o755);
  }

  /** From here on it is running, or has stopped. */
  stopWaiting(): void {
    rmSync(`${this.path}/start.sock`, { force: true });
  }

  remove(): void {
    for (const name of FILES) tryCall("unlinkat", this.directory, name, 0);
    // what a killed process of ours left beside them
    if (tryCall("unlinkat", AT_FDCWD, this.path, AT_REMOVEDIR) < 0) rmSync(this.path, { recursive: true, force: true });
  }

  close(): void {
    close(this.directory);
  }
}

/** @throws ContainerError with the code DAMAGED, or for one of a newer build */
function parseRecord(text: string, path: string): Record {
  const record = parseObject(text);
  if (record?.version !== undefined && record.version !== VERSION)
    throw new ContainerError({
      message: `${path} is of version ${record.version}, which this Caisson does not know`,
      path,
    });
  const { status, pid, bundle, startTime, bootId } = record ?? {};
  const isWhole =
    (status === "creating" || status === "created") &&
    Number.isSafeInteger(pid) &&
    [bundle, startTime, bootId].every((field) => typeof field === "string");
  if (!isWhole)
    throw new ContainerError({
      message: `${path} is damaged`,
      code: DAMAGED,
      path,
      hint: "delete --force removes what can be found of the container",
    });
  // the fields that decide are there; the others are as we wrote them
  return { ...UNKNOWN, ...record, steps: { ...UNKNOWN.steps, ...record?.steps } } as Record;
}

function parseObject(text: string): Partial<Record> | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null ? parsed : undefined;
  } catch {
    return;
  }
}

/** The spec of the definition kept in a directory. */
export function readSpec(directory: string): Spec {
  return readDefinition(directory)?.definition.spec ?? { ociVersion: OCI_VERSION };
}

/** Whether the path still leads to an open directory: it may have been deleted, and another made, before it was locked. */
function isStill(path: string, directory: number): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  return there !== undefined && there.ino === fstatSync(directory).ino;
}

/** What an id may look like: it becomes a path and a cgroup's name. */
const ID = /^[A-Za-z0-9_+-][A-Za-z0-9_+.-]{0,1023}$/;

/** @throws ContainerError in runc's words */
export function checkId(id: string): void {
  if (id === "") throw new ContainerError({ message: "container id cannot be empty", code: "EINVAL" });
  if (!ID.test(id))
    throw new ContainerError({ message: `invalid container ID format: ${JSON.stringify(id)}`, code: "EINVAL" });
}
