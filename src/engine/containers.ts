import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { ContainerError } from "../error.ts";
import { close, lock, lockHolder, lockWithin, O, open, replaceFile } from "../kernel/file.ts";
import { processState, startTime } from "../kernel/process.ts";
import type { ContainerJson } from "./config.ts";

/** What the monitor leaves: native/monitor/record.c. */
export interface ExitRecord {
  version: 1;
  pid: number;
  /** 0 to 255; 128 + signal for a killed one. */
  status: number;
  signal: number;
  /** Whether the kernel killed a process of it for want of memory; left out where nobody could see. */
  oomKilled?: boolean;
  /** RFC 3339. */
  finishedAt: string;
}

/** How long one waits without a word. */
const MOMENT_MS = 1000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const ID = /^[0-9a-f]{64}$/;

/** The containers of a data directory: containers/<id>/ with container.json, and names/<name>, links to ids. */
export class Containers {
  readonly #containers: string;
  readonly #names: string;

  constructor(data: string) {
    this.#containers = `${data}/containers`;
    this.#names = `${data}/names`;
  }

  directory(id: string): string {
    return `${this.#containers}/${id}`;
  }

  /**
   * Makes a container's directory and takes its name. The directory is locked until the descriptor is closed: an
   * unlocked one without a running container and an exit record was abandoned.
   * @returns its descriptor @throws ContainerError EEXIST when the name is taken
   */
  make(container: ContainerJson): number {
    const { id, name } = container;
    if (!NAME.test(name))
      throw new ContainerError({
        message: `cannot use the name ${JSON.stringify(name)}: it must be letters, digits, _ . - and begin with a letter or digit`,
        code: "EINVAL",
      });
    for (const directory of [this.#containers, this.#names]) mkdirSync(directory, { recursive: true, mode: 0o700 });
    let descriptor: number | undefined;
    // somebody who cleans up may come upon it before it is locked, and take it for one that was left half made
    while (descriptor === undefined) {
      mkdirSync(this.directory(id), { recursive: true, mode: 0o700 });
      descriptor = this.lock(id, true);
    }
    try {
      symlinkSync(id, `${this.#names}/${name}`);
    } catch (cause) {
      rmSync(this.directory(id), { recursive: true });
      close(descriptor);
      throw new ContainerError({
        message: `the container name ${name} is already in use: remove that container or choose another name`,
        code: "EEXIST",
        cause,
      });
    }
    this.write(container);
    return descriptor;
  }

  write(container: ContainerJson): void {
    replaceFile(`${this.directory(container.id)}/container.json`, JSON.stringify(container, undefined, 2));
  }

  read(id: string): ContainerJson | undefined {
    const path = `${this.directory(id)}/container.json`;
    if (!existsSync(path)) return;
    const container: ContainerJson = {
      mounts: [],
      anonymousVolumes: [],
      ...JSON.parse(readFileSync(path, "utf8")),
    };
    if (container.version !== 1)
      throw new ContainerError({
        message: `${path} is of version ${container.version}, which this Caisson does not know`,
        path,
      });
    return container;
  }

  exit(id: string): ExitRecord | undefined {
    const path = `${this.directory(id)}/exit.json`;
    return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
  }

  /** The exit record of a container whose monitor could not write one. */
  writeExit(id: string, status: number): void {
    const record: ExitRecord = { version: 1, pid: 0, status, signal: 0, finishedAt: new Date().toISOString() };
    replaceFile(`${this.directory(id)}/exit.json`, JSON.stringify(record));
  }

  /** From here on a container has run: whatever becomes of it, it is not thrown away as half made. */
  markStarted(id: string): void {
    closeSync(openSync(`${this.directory(id)}/started`, "w", 0o600));
  }

  wasStarted(id: string): boolean {
    return existsSync(`${this.directory(id)}/started`);
  }

  /** Remembers a container's monitor, with its start time: the pid alone may be another process's by tomorrow. */
  writeMonitor(id: string, pid: number): void {
    writeFileSync(`${this.directory(id)}/monitor.pid`, `${pid} ${startTime(pid)}`, { mode: 0o600 });
  }

  /** The pid of a container's monitor, if that lives. */
  monitor(id: string): number | undefined {
    const path = `${this.directory(id)}/monitor.pid`;
    if (!existsSync(path)) return;
    const [pid, started] = readFileSync(path, "utf8").split(" ");
    const state = processState(Number(pid));
    return state !== undefined && state !== "Z" && startTime(Number(pid)) === started ? Number(pid) : undefined;
  }

  /** Every id with a directory, whether complete or not. */
  ids(): string[] {
    try {
      return readdirSync(this.#containers).filter((id) => ID.test(id));
    } catch (error) {
      // where nothing has been made yet there are none; what may not be read is another matter
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
      throw error;
    }
  }

  list(): ContainerJson[] {
    return this.ids()
      .map((id) => this.read(id))
      .filter((container) => container !== undefined)
      .sort((one, other) => other.created.localeCompare(one.created));
  }

  /** By name, also as inspect has it ("/name"), id, or the beginning of an id that fits only one. @throws ContainerError ENOENT */
  find(word: string): ContainerJson {
    const named = this.#named(word.replace(/^\//, ""));
    const ids =
      named === undefined ? this.ids().filter((id) => /^[0-9a-f]+$/.test(word) && id.startsWith(word)) : [named];
    const [id] = ids;
    if (ids.length > 1)
      throw new ContainerError({ message: `more than one container's id begins with ${word}`, code: "EINVAL" });
    const container = id === undefined ? undefined : this.read(id);
    if (container === undefined) throw new ContainerError({ message: `there is no container ${word}`, code: "ENOENT" });
    return container;
  }

  /**
   * Takes the container's lock.
   * @param wait whether to wait for who has it; as a function, it is told after a moment who that is
   * @returns its descriptor, or undefined when it is gone, or busy and `wait` is false
   */
  lock(id: string, wait: boolean | ((holder: string) => void)): number | undefined {
    let descriptor: number;
    try {
      descriptor = open(this.directory(id), O.RDONLY | O.DIRECTORY);
    } catch (error) {
      if (error instanceof ContainerError && error.code === "ENOENT") return;
      throw error;
    }
    if (typeof wait === "function" && !lockWithin(descriptor, MOMENT_MS)) wait(lockHolder(descriptor));
    if (lock(descriptor, wait !== false) && existsSync(this.directory(id))) return descriptor;
    close(descriptor);
    return;
  }

  /** Removes a container's directory and frees its name, which half-made ones have not written down yet. */
  remove(id: string): void {
    const name = this.read(id)?.name;
    const names = name === undefined && existsSync(this.#names) ? readdirSync(this.#names) : [name ?? ""];
    for (const candidate of names)
      if (this.#named(candidate) === id) rmSync(`${this.#names}/${candidate}`, { force: true });
    rmSync(this.directory(id), { recursive: true, force: true });
  }

  #named(name: string): string | undefined {
    try {
      return NAME.test(name) ? readlinkSync(`${this.#names}/${name}`) : undefined;
    } catch {
      return; // nobody is called that
    }
  }
}
