import { currentResources, freeze, joinableDirectories, killAll, processes, thaw } from "../cgroup/cgroup.ts";
import { lookAtSystemd, setUnitProperties, stopUnit } from "../cgroup/systemd.ts";
import { applyUpdate } from "../cgroup/update.ts";
import { ContainerError, tryAll, withLeft } from "../error.ts";
import { diagnosed, execute, executeStepwise, type Halt, runThrough, undo } from "../execute/execute.ts";
import {
  awaitChange,
  awaitExits,
  type DeviceMover,
  type EngineServices,
  type HostContext,
  removeCgroup,
} from "../execute/host.ts";
import type { Launcher } from "../execute/init.ts";
import { resume, resumesWithHost } from "../execute/resume.ts";
import type { Signals } from "../execute/signals.ts";
import { makeAnonymousTrace, makeTrace, openTrace, tryOpenTrace } from "../execute/trace-file.ts";
import { detectHost, mayEnter, setgroupsOf } from "../host/host.ts";
import { addon } from "../kernel/addon.ts";
import { AT_FDCWD, close, O } from "../kernel/file.ts";
import { bootId, endDeadline, kin, reap, signal, startTime } from "../kernel/process.ts";
import { connectIn } from "../kernel/socket.ts";
import { tryCall } from "../kernel/syscall.ts";
import { sayWithheld, withheldCapabilities } from "../plan/capabilities.ts";
import { containerCgroups, containerUnit } from "../plan/cgroup.ts";
import { resourceWrites } from "../plan/cgroup-files.ts";
import type { CgroupDirectory } from "../plan/cgroup-layout.ts";
import { resourceProperties } from "../plan/cgroup-unit.ts";
import { compile, compileExec } from "../plan/compile.ts";
import type { Definition, ExecDefinition } from "../plan/definition.ts";
import type { Host } from "../plan/host.ts";
import { compileMountChange } from "../plan/live-mounts.ts";
import { isShared } from "../plan/namespaces.ts";
import { joinPath } from "../plan/path.ts";
import type { Plan } from "../plan/step.ts";
import type { Mount, Process, Resources, Spec, State, Status } from "../spec/spec.ts";
import { keptFilters } from "./filters.ts";
import { userFacts } from "./identity.ts";
import { FAILURES, keepFailure, readDefinition, readPlan, recordExec } from "./recording.ts";
import { requireStatus, statusOf } from "./state.ts";
import { checkId, type Record, readSpec, Store } from "./store.ts";

const { getuid } = process;

const SIGKILL = 9;

/** How a container, or a further process in it, is started beyond what the definition says. */
export interface Start {
  /** Our descriptors that become 3, 4, … inside. */
  preserved?: readonly number[];
  /** Where somebody else than this process is to be the container's parent. */
  launcher?: Launcher;
  /** What containers of the engine need. */
  services?: EngineServices;
  /** Makes the directory for Notify's socket, and calls this when it is there and nothing of the container is yet. */
  notify?: () => void;
  /** What only a spec with linux.netDevices needs. */
  moveDevice?: DeviceMover;
  /** Takes the terminal's master, when the definition's console is "creator". */
  takeTerminal?: (socket: number) => void;
  /** Told of the container's process as soon as it exists, for its parent to wait for. */
  adopt?: (process: Running) => void;
  /** Told of what went wrong and did not end the operation. */
  warn?: Warn;
  /** Leaves steps out of the plan, or adds some, to show what they are for; what is kept of it tells the whole plan. */
  alter?: (plan: Plan) => Plan;
  /** By which the making of it is ended, and taken back. */
  signals?: Signals;
  /** Where a failed creation is kept, and under which name beside its id; by default beneath the state root. */
  failures?: { directory: string; name: string };
}

/** How a container is deleted. */
export interface Deletion {
  /** Kills it first, if it lives. */
  force?: boolean;
  warn?: Warn;
  /** Takes back its place on the network, which only the engine knows. */
  release?: () => void;
  /** A directory that outlives it, for its traces. */
  keep?: string;
}

/** What a deletion does when the container has ended. */
type Finish = Omit<Deletion, "force">;

export type Warn = (message: string) => void;

/** How a further process is added. */
export interface Exec extends Start {
  console?: Definition["console"];
  /** Add it to a paused container, too: it waits there to be resumed. */
  ignorePaused?: boolean;
  /** Where it goes instead of the container's own cgroups. */
  cgroups?: readonly CgroupDirectory[];
}

/** A process in a container, alive or about to be; its pidfd is the caller's to close. */
export interface Running {
  pid: number;
  pidfd: number;
  /** Under which number it is recorded how it was added. */
  exec?: number;
}

/** An OCI container through time; OCI runtime.md. */
export class Container {
  readonly id: string;
  readonly #root: string;

  private constructor(root: string, id: string) {
    this.#root = root;
    this.id = id;
  }

  /**
   * Creates a container: afterwards its process waits for start, or (start "now") runs.
   * @throws ContainerError of the first step that failed; nothing is left then
   */
  static create(
    root: string,
    definition: Omit<Definition, "preserved">,
    start: Start = {},
  ): { container: Container; process: Running } {
    return runThrough(Container.createStepwise(root, definition, start));
  }

  /** The same, which halts between the steps of a definition that is stepped through; see executeStepwise. */
  static *createStepwise(
    root: string,
    definition: Omit<Definition, "preserved">,
    start: Start,
  ): Generator<Halt, { container: Container; process: Running }, void> {
    const { id, spec, bundle } = definition;
    checkId(id);
    const host = hostFor(definition);
    const preserved = start.preserved ?? [];
    const whole = { ...userFacts(definition), ...definition, preserved: preserved.length };
    const plan = altered(compile(whole, host, keptFilters(root)), start);
    for (const each of withheldCapabilities(spec.process ?? { cwd: "/" }, spec, host)) start.warn?.(sayWithheld(each));
    const store = Store.make(root, id) ?? remake(root, id);
    const container = new Container(root, id);
    const record: Record = {
      version: 1,
      id,
      status: "creating",
      bundle,
      rootfs: spec.root?.path ?? "",
      pid: 0,
      startTime: "",
      bootId: bootId(),
      createdAt: new Date().toISOString(),
      uid: getuid?.() ?? 0,
      annotations: spec.annotations ?? {},
      promises: plan.some(({ name }) => name === "promiseHooks" || name === "makeClass" || name === "monitorClass"),
      resumes: resumesWithHost(plan),
      cgroups: containerCgroups(whole, host),
      steps: takenBackAtTheEnd(plan),
      ...unitOfRecord(whole, host),
    };
    try {
      store.write(record);
      store.writeDefinition(whole, host);
      if (start.notify !== undefined) {
        store.makeNotify();
        start.notify();
      }
      const context = container.#context(store.directory, record, start);
      const trace = makeTrace(store.directory, "trace");
      context.record = (pid) => {
        Object.assign(record, { status: "created", pid, startTime: startTime(pid) ?? "" });
        store.write(record);
        if (context.process !== undefined) start.adopt?.(context.process);
      };
      let process: Running;
      try {
        process = yield* executeStepwise(plan, { trace, context, preserved, ...launcherOf(start) });
      } finally {
        close(trace);
      }
      if (context.terminal !== undefined) start.takeTerminal?.(context.terminal);
      return { container, process };
    } catch (error) {
      if (!isAbandonment(error))
        keepFailure(store.path, start.failures?.directory ?? `${root}/${FAILURES}`, error, start.failures?.name);
      store.remove();
      throw error;
    } finally {
      store.close();
    }
  }

  /** @throws ContainerError when there is none */
  static open(root: string, id: string): Container {
    checkId(id);
    if (!Store.has(root, id)) {
      Store.sweep(root, id);
      throw missing();
    }
    return new Container(root, id);
  }

  /** All containers beneath a state root, by id; what is recorded of one may be damaged. */
  static list(root: string): Container[] {
    return Store.list(root)
      .filter((id) => Store.has(root, id))
      .map((id) => new Container(root, id));
  }

  /** What is recorded of it. @throws ContainerError with the code DAMAGED when nobody can read it any more */
  get record(): Record {
    const record = Store.read(this.#root, this.id);
    if (record === undefined) throw missing();
    return record;
  }

  get status(): Status {
    return statusOf(this.record, Store.waits(this.#root, this.id));
  }

  /** The OCI state. */
  get state(): State {
    const { pid, bundle, annotations } = this.record;
    const status = this.status;
    return {
      ociVersion: "1.3.0",
      id: this.id,
      ...(status === "stopped" || status === "creating" ? { pid: 0 } : { pid }),
      status,
      bundle,
      ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    };
  }

  /** Never changed once written, so that nobody has to wait for the lock. */
  get spec(): Spec {
    return readSpec(`${this.#root}/${this.id}`);
  }

  /** How many descriptors of its creator's it was given, from 3 on. */
  get preserved(): number {
    return readDefinition(`${this.#root}/${this.id}`)?.definition.preserved ?? 0;
  }

  /**
   * Lets the waiting process go on to the container's program.
   * @throws ContainerError of the step that failed; the container has stopped then
   */
  start(): void {
    // whoever has the lock may be starting it, or making it: that is no reason to wait
    requireStatus("start", this.id, this.status);
    this.#locked((store) => {
      requireStatus("start", this.id, this.status);
      const { record } = this;
      // before init goes on: its program may have ended, and been reaped, by the time that we look
      const pidfd = this.#tryOpenProcess();
      const socket = pidfd === undefined ? -1 : connectIn(store.directory, "start.sock");
      if (pidfd === undefined || socket < 0) {
        if (pidfd !== undefined) close(pidfd);
        throw new ContainerError({ message: "cannot start a container that has stopped", code: "ERR_STATUS" });
      }
      store.stopWaiting();
      const trace = openTrace(store.directory, "trace");
      const context = this.#context(store.directory, record, {});
      context.process = { pid: record.pid, pidfd };
      try {
        resume({ socket, trace, context, plan: () => store.plan(), hostSteps: record.resumes });
      } catch (error) {
        // its program may be running already: the specification wants it stopped
        signal(pidfd, SIGKILL);
        awaitExits([record.pid]);
        const failure = this.#diagnosed(error, store);
        // its creator deletes it next, as a rule
        keepFailure(store.path, `${this.#root}/${FAILURES}`, failure, undefined);
        throw failure;
      } finally {
        for (const fd of [socket, trace, pidfd]) close(fd);
      }
    });
  }

  /**
   * Sends a signal to the container's first process, or to all of them. SIGKILL ends all in any case: where they have no
   * pid namespace, whose end would be theirs, through the cgroup. @throws ContainerError when it is not running
   */
  kill(number: number, { all = false }: { all?: boolean } = {}): void {
    const { status } = this;
    const { cgroups } = this.record;
    if (number === SIGKILL && (all || isShared(this.spec, "pid")) && this.processes().length > 0) {
      killAll(cgroups);
      return;
    }
    requireStatus("kill", this.id, status);
    if (all) {
      signalEach(() => this.processes(), number);
    } else {
      const pidfd = this.openProcess();
      try {
        signal(pidfd, number);
      } finally {
        close(pidfd);
      }
    }
    // what version 1 has frozen does not even die
    if (number === SIGKILL && status === "paused") thaw(cgroups, { change: awaitChange });
  }

  /** Stops all processes where they are. @throws ContainerError when it is not running; they run on where one will not stop */
  pause(): void {
    requireStatus("pause", this.id, this.status);
    const { cgroups } = this.record;
    try {
      freeze(cgroups, { change: awaitChange });
    } catch (error) {
      thaw(cgroups, { change: awaitChange });
      throw error;
    }
  }

  /** Lets them run again. @throws ContainerError when it is not paused */
  resume(): void {
    requireStatus("resume", this.id, this.status);
    thaw(this.record.cgroups, { change: awaitChange });
  }

  /** All processes of the container, by their pids here; none once it has stopped. */
  processes(): number[] {
    const { cgroups, pid } = this.record;
    const counted = cgroups.length > 0 ? cgroups.flatMap(({ path }) => processes(path)) : this.#alive ? kin(pid) : [];
    return [...new Set(counted)].sort((one, other) => one - other);
  }

  get #alive(): boolean {
    const pidfd = this.#tryOpenProcess();
    if (pidfd !== undefined) close(pidfd);
    return pidfd !== undefined;
  }

  /** Changes limits; what is not given stays as it is. All of it, or nothing. @throws ContainerError */
  update(resources: Resources): void {
    requireStatus("update", this.id, this.status);
    const { cgroups, unit } = this.record;
    const { cgroups: layout } = detectHost();
    const current = currentResources(cgroups);
    const writes = resourceWrites(layout, cgroups, resources, current);
    // systemd first: it would take back what it does not know of
    if (unit !== undefined) {
      const version = layout.mode === "v2" ? 2 : 1;
      const systemd = lookAtSystemd(unit.user);
      setUnitProperties(unit.name, resourceProperties(resources, version, systemd, current.cpuPeriodUs), unit.user);
    }
    applyUpdate(writes);
  }

  /** A pidfd of the container's first process. @throws ContainerError when it is gone */
  openProcess(): number {
    const pidfd = this.#tryOpenProcess();
    if (pidfd === undefined) throw new ContainerError({ message: "container not running", code: "ERR_STATUS" });
    return pidfd;
  }

  #tryOpenProcess(): number | undefined {
    const { pid, startTime: started } = this.record;
    const pidfd = tryCall("pidfd_open", pid, 0);
    if (pidfd < 0) return;
    if (startTime(pid) === started) return pidfd;
    close(pidfd);
    return;
  }

  /** Removes what is left of a stopped container; with force, kills it first. Can be repeated. */
  delete({ force = false, ...deletion }: Deletion = {}): void {
    try {
      this.#delete(force, deletion);
    } catch (error) {
      // whoever else waited for its end may be first, such as the runtime that ran it in the foreground
      if (!(force && error instanceof ContainerError && error.code === "ENOENT") || Store.has(this.#root, this.id))
        throw error;
    }
  }

  #delete(force: boolean, finish: Finish): void {
    if (force && Store.isDamaged(this.#root, this.id)) {
      this.#locked((store) => this.#finish(store, store.rebuilt(this.id), finish));
      return;
    }
    const trace = tryOpenTrace(`${this.#root}/${this.id}/trace`);
    addon().traceTo(trace);
    try {
      // before the lock is ours: who holds it may be waiting for what only the container's end can give
      this.#end(force);
      this.#locked((store) => {
        this.#end(force);
        this.#finish(store, this.record, finish);
      });
    } finally {
      addon().traceTo(-1);
      if (trace >= 0) close(trace);
    }
  }

  /** Takes everything back, the record last. @throws ContainerError */
  #finish(store: Store, record: Record, { warn, release, keep }: Finish): void {
    const [failure, ...others] = this.#takeBack(store, record, release, warn);
    // what is recorded stays, for delete to be repeated
    if (failure !== undefined) throw withLeft(failure, others);
    if (keep !== undefined) store.copyRecordings(keep);
    store.remove();
  }

  /** @returns what went wrong; all of it is tried, and hooks run once nothing is left */
  #takeBack(store: Store, record: Record, release: Deletion["release"], warn: Warn | undefined): unknown[] {
    const { steps, cgroups, unit } = record;
    const deadline = endDeadline();
    const failures = tryAll([
      () => {
        addon().traceStep(steps.endpoint, true);
        release?.();
      },
      ...cgroups.map(({ path }) => () => {
        addon().traceStep(steps.cgroups[path] ?? -1, true);
        removeCgroup(path, deadline);
      }),
      () => {
        if (unit === undefined) return;
        addon().traceStep(steps.unit, true);
        stopUnit(unit.name, unit.user);
      },
    ]);
    if (failures.length > 0 || !record.promises) return failures;
    let plan: Plan;
    try {
      plan = readPlan(store.path);
    } catch (error) {
      // nobody will ever know more: it must not stay for that
      warn?.(`nothing is known of the hooks of ${this.id}, and none is run: ${String(error)}`);
      return [];
    }
    return undo(plan, this.#context(store.directory, record, warn === undefined ? {} : { warn }));
  }

  /** Kills what must not live when it is deleted. @throws ContainerError when that was not asked for */
  #end(force: boolean): void {
    const { status } = this;
    if (status === "stopped") return;
    if (!force && status !== "created") requireStatus("delete", this.id, status);
    if (status === "creating") return;
    const { pid, cgroups, steps } = this.record;
    const pidfd = this.#tryOpenProcess();
    if (pidfd === undefined) return;
    addon().traceStep(steps.process, true);
    signal(pidfd, SIGKILL);
    if (status === "paused") killAll(cgroups);
    awaitExits([pid]);
    close(pidfd);
    addon().traceStep(-1);
  }

  /** Adds a process to a container that runs. It is a child of ours and outlives nothing of it. */
  exec(process: Process, { console, ignorePaused = false, cgroups, ...start }: Exec = {}): Running {
    const { record, status } = this;
    const { spec, keyring } = readDefinition(`${this.#root}/${this.id}`)?.definition ?? { spec: this.spec };
    if (!(ignorePaused && status === "paused")) requireStatus("exec", this.id, status);
    const preserved = start.preserved ?? [];
    const definition: ExecDefinition = {
      id: this.id,
      pid: record.pid,
      process,
      spec,
      cgroups: cgroups ?? enterable(joinableDirectories(record.cgroups, record.pid)),
      preserved: preserved.length,
      setgroups: setgroupsOf(record.pid),
      ...(keyring === undefined ? {} : { keyring }),
      ...userFacts({ spec: { ...spec, process }, bundle: record.bundle, pid: record.pid }),
      ...(console === undefined ? {} : { console }),
    };
    const host = detectHost();
    for (const each of withheldCapabilities(process, spec, host)) start.warn?.(sayWithheld(each));
    const plan = altered(compileExec(definition, host, keptFilters(this.#root)), start);
    const { trace, number, failed } = recordExec(`${this.#root}/${this.id}`, definition, host);
    const context = this.#context(-1, record, start);
    context.container = { pid: record.pid };
    try {
      const running = execute(plan, { trace, context, preserved, ...launcherOf(start) });
      if (context.terminal !== undefined) start.takeTerminal?.(context.terminal);
      return number === undefined ? running : { ...running, exec: number };
    } catch (error) {
      failed(error);
      throw error;
    } finally {
      close(trace);
    }
  }

  /** Mounts something in a container that runs, or takes mounts away. @throws ContainerError of the step that failed */
  changeMounts(change: "add" | "remove", mounts: readonly Mount[]): void {
    requireStatus("change the mounts of", this.id, this.status);
    const { record } = this;
    const host = detectHost();
    const definition = readDefinition(`${this.#root}/${this.id}`)?.definition;
    if (definition === undefined) throw missing();
    const plan = compileMountChange(definition, change, mounts, host);
    const trace = makeAnonymousTrace();
    const context = this.#context(-1, record, {});
    context.container = { pid: record.pid };
    try {
      const { pidfd } = execute(plan, { trace, context, preserved: [] });
      reap(pidfd);
      close(pidfd);
    } finally {
      close(trace);
    }
  }

  #context(directory: number, record: Record, { services, moveDevice, warn, signals }: Start): HostContext {
    return {
      id: this.id,
      directory,
      process: undefined,
      slots: new Map(),
      returns: new Map(),
      state: (status, pid) =>
        JSON.stringify({
          ociVersion: "1.3.0",
          id: this.id,
          status,
          pid,
          bundle: record.bundle,
          annotations: record.annotations,
        }),
      record: () => undefined,
      warn,
      ...(services === undefined ? {} : { services }),
      ...(moveDevice === undefined ? {} : { moveDevice }),
      ...(signals === undefined ? {} : { signals }),
    };
  }

  /** The root of a bundle can be looked at after its container is gone. */
  #diagnosed(error: unknown, store: Store): unknown {
    if (!(error instanceof ContainerError) || error.step !== "execute") return error;
    const { bundle, rootfs } = this.record;
    const root = tryCall("openat", AT_FDCWD, joinPath(bundle, rootfs), O.PATH | O.DIRECTORY | O.CLOEXEC, 0);
    if (root < 0) return error;
    try {
      return diagnosed(error, root, store.plan());
    } finally {
      close(root);
    }
  }

  #locked<T>(work: (store: Store) => T): T {
    const store = Store.open(this.#root, this.id);
    if (store === undefined) throw missing();
    try {
      return work(store);
    } finally {
      store.close();
    }
  }
}

/** Through descriptors, and to those that are still listed once they are open: a pid alone may be a stranger's by then. */
function signalEach(list: () => number[], number: number): void {
  const opened = list().map((pid) => ({ pid, pidfd: tryCall("pidfd_open", pid, 0) }));
  const still = new Set(list());
  for (const { pid, pidfd } of opened) {
    if (pidfd < 0) continue;
    if (still.has(pid)) signal(pidfd, number);
    close(pidfd);
  }
}

/** Indices of the steps whose effects delete takes back, for its calls to be reported with them. */
function takenBackAtTheEnd(plan: Plan): Record["steps"] {
  const cgroups: Record["steps"]["cgroups"] = {};
  for (const [index, step] of plan.entries()) if (step.name === "makeCgroup") cgroups[step.args.path] = index;
  return {
    process: plan.findIndex(({ name }) => name === "startInit"),
    endpoint: plan.findIndex(({ name }) => name === "makeEndpoint"),
    unit: plan.findIndex(({ name }) => name === "startUnit"),
    cgroups,
  };
}

/** A process of a caller without privileges stays outside of cgroups that it may not enter, as with runc. */
function enterable(directories: readonly CgroupDirectory[]): readonly CgroupDirectory[] {
  const { cgroups, rootless } = detectHost();
  return rootless === undefined ? directories : directories.filter((directory) => mayEnter(directory, cgroups));
}

/** This host, and its systemd where that is to manage the container's cgroup. */
function hostFor({ cgroupManager }: Omit<Definition, "preserved">): Host {
  const host = detectHost();
  if (cgroupManager?.systemd !== true) return host;
  return { ...host, systemd: lookAtSystemd(cgroupManager.rootless ?? host.rootless !== undefined) };
}

function unitOfRecord(definition: Definition, host: Host): Pick<Record, "unit"> {
  const unit = containerUnit(definition, host);
  return unit === undefined ? {} : { unit: { name: unit.name, user: unit.user } };
}

/** What is thrown at a halt by whoever does not want to go on: nothing has failed. */
export function abandonment(): ContainerError {
  return new ContainerError({ message: "the creation was given up", code: ABANDONED });
}

function isAbandonment(error: unknown): boolean {
  return error instanceof ContainerError && error.code === ABANDONED;
}

const ABANDONED = "ERR_ABANDONED";

function missing(): ContainerError {
  return new ContainerError({ message: "container does not exist", code: "ENOENT" });
}

/** The id is taken, unless what has it was abandoned by a creator that was killed: then it is removed first. */
function remake(root: string, id: string): Store {
  const record = Store.isDamaged(root, id) ? undefined : Store.read(root, id);
  if (record?.status === "creating" && !Store.busy(root, id)) {
    Container.open(root, id).delete({ force: true });
    const store = Store.make(root, id);
    if (store !== undefined) return store;
  }
  throw new ContainerError({ message: "container with given ID already exists", code: "EEXIST" });
}

function altered(plan: Plan, { alter }: Start): Plan {
  return alter === undefined ? plan : alter(plan);
}

function launcherOf({ launcher }: Start): { launcher?: Launcher } {
  return launcher === undefined ? {} : { launcher };
}
