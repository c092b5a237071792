import { existsSync, readFileSync } from "node:fs";
import { oomFile } from "../cgroup/cgroup.ts";
import { Container, type Running, type Start } from "../container/container.ts";
import { fitProcess, takeTerminal } from "../container/foreground.ts";
import { randomHex } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import type { Halt } from "../execute/execute.ts";
import type { EngineServices } from "../execute/host.ts";
import { detectHost } from "../host/host.ts";
import { resolveUser, type User } from "../image/users.ts";
import { close, O, open } from "../kernel/file.ts";
import { endDeadline, permittedCapabilities, wait } from "../kernel/process.ts";
import { tryCall } from "../kernel/syscall.ts";
import { capabilityNames } from "../linux/capabilities.ts";
import type { BridgeEndpoint } from "../network/bridge.ts";
import {
  endpointOf,
  foreseeEndpoint,
  makeEndpoint,
  publishPorts,
  releaseEndpoint,
  removeEndpoint,
  reservedContainers,
  reserveEndpoint,
  withdrawPorts,
} from "../network/connection.ts";
import { type PortBinding, parsePublish } from "../network/ports.ts";
import { resolvConf } from "../network/resolv.ts";
import { compile } from "../plan/compile.ts";
import type { Definition, Stepping } from "../plan/definition.ts";
import type { EndpointArgs, Plan } from "../plan/step.ts";
import { readBundle } from "../spec/bundle.ts";
import type { Process } from "../spec/spec.ts";
import { DRIVERS } from "../storage/storage.ts";
import type { ContainerJson } from "./config.ts";
import { Containers, type ExitRecord } from "./containers.ts";
import { definitionOf, mergeEnvironment, readSeccompProfile } from "./definition.ts";
import { Attachment, Monitor } from "./monitor.ts";
import { bindPorts } from "./ports.ts";
import { makeVolumes, mountOf, removeAnonymousVolumes, startsAsCopy } from "./volumes.ts";

export type EngineStatus = "created" | "running" | "paused" | "exited";

/** A container that was made step by step; its pidfd is the caller's to close. */
export interface Stepped extends Running {
  /** Ends it, where it still runs, and removes all of it. */
  settle: () => void;
}

/** Where the engine keeps things: images, layers, containers on disk; what runs beneath /run. */
export interface Places {
  data: string;
  root: string;
}

/** Looks at a container while its recordings are there. */
type Look = (id: string) => void;

interface Removal {
  force: boolean;
  volumes: boolean;
  watch?: Look;
  /** Told after a moment who is waited for: whoever is making the container, or removing it. */
  waiting?: (holder: string) => void;
}

/** A container for people: image, root, network, log. The command line is its client. */
export class Engine {
  readonly places: Places;
  readonly containers: Containers;

  constructor(places: Places) {
    this.places = places;
    this.containers = new Containers(places.data);
  }

  /** A new container's record; nothing exists of it yet. */
  describe(
    parts: Omit<ContainerJson, "version" | "id" | "name" | "created"> & { name: string | undefined },
  ): ContainerJson {
    const id = randomHex(32);
    return {
      version: 1,
      ...parts,
      id,
      name: parts.name ?? `caisson-${id.slice(0, 8)}`,
      created: new Date().toISOString(),
    };
  }

  /** The plan of a container that is not made: what explain prints. */
  explain(container: ContainerJson): Plan {
    return compile(this.define(container), detectHost());
  }

  /** What the plan of a container that is not made is compiled from. */
  define(container: ContainerJson): Definition {
    const { id, hostConfig } = container;
    const endpoint =
      hostConfig.NetworkMode === "bridge"
        ? foreseeEndpoint(this.places.data, id, hostConfig.PortBindings.flatMap(parsePublish))
        : undefined;
    return { ...this.#definition(container, this.containers.directory(id), endpoint), preserved: 0 };
  }

  /**
   * Makes a container and runs it under a monitor.
   * @param watch gets the id when all is recorded: one that has ended cannot remove itself before
   * @returns the attachment asked for, connected before the first output @throws ContainerError; nothing is left then
   */
  run(
    container: ContainerJson,
    { attach, watch }: { attach?: { input: boolean; foreground: boolean }; watch?: Look },
  ): Attachment | undefined {
    this.recover();
    const directory = this.#make(container);
    const { id, config } = container;
    const monitor = new Monitor({
      directory,
      tty: config.Tty,
      stdin: config.OpenStdin,
      cleanup: this.#words("cleanup", id),
    });
    try {
      const { definition, bound } = this.#prepare(container, attach !== undefined);
      const start: Start = {
        services: this.#services,
        launcher: (launch) => {
          monitor.launch(launch);
          this.containers.writeMonitor(id, monitor.pid);
          for (const { socket } of bound.splice(0)) monitor.holdPort(socket);
          return undefined;
        },
        takeTerminal: (socket) => monitor.giveTerminal(takeTerminal(socket)),
        adopt: ({ pid, pidfd }: Running) => monitor.announce(pid, pidfd),
        failures: { directory: `${this.places.data}/failed`, name: container.name },
      };
      const { process, container: oci } = Container.create(this.places.root, definition, start);
      const memory = oomFile(oci.record.cgroups);
      if (memory !== undefined) monitor.watchMemory(open(memory, O.RDONLY));
      close(process.pidfd);
      const attachment = attach === undefined ? undefined : Attachment.open(directory, { output: true, ...attach });
      this.containers.markStarted(id);
      monitor.started();
      watch?.(id);
      return attachment;
    } catch (error) {
      monitor.abort();
      this.#discard(container);
      throw error;
    } finally {
      close(directory);
    }
  }

  /**
   * Makes a container as run does, but as a child of ours without a monitor, and with a halt before each step. What it
   * returns is over when settle has been called.
   * @throws ContainerError; nothing is left then
   */
  *step(
    container: ContainerJson,
    stepping: Stepping,
    start: Pick<Start, "launcher" | "takeTerminal">,
  ): Generator<Halt, Stepped, void> {
    this.recover();
    const directory = this.#make(container);
    const sockets: number[] = [];
    const letGo = () => {
      for (const fd of [directory, ...sockets]) close(fd);
    };
    try {
      const { definition, bound } = this.#prepare(container, true);
      sockets.push(...bound.map(({ socket }) => socket));
      const { process } = yield* Container.createStepwise(
        this.places.root,
        { ...definition, stepping },
        {
          ...start,
          services: this.#services,
          failures: { directory: `${this.places.data}/failed`, name: container.name },
        },
      );
      const settle = () => {
        letGo();
        this.cleanup(container.id);
      };
      return { ...process, settle };
    } catch (error) {
      this.#discard(container);
      letGo();
      throw error;
    }
  }

  /** running, paused or exited; "created" for one that never got further. */
  status({ id }: ContainerJson): EngineStatus {
    const status = ifThere(() => this.#oci(id)?.status);
    if (status === "running" || status === "paused") return status;
    return this.containers.exit(id) === undefined && status !== "stopped" ? "created" : "exited";
  }

  exit({ id }: ContainerJson): ExitRecord | undefined {
    return this.containers.exit(id);
  }

  /** The OCI container of one that runs. @throws ContainerError when it does not */
  running(container: ContainerJson): Container {
    const oci = this.#alive(container);
    if (oci === undefined)
      throw new ContainerError({ message: `container ${container.name} is not running`, code: "ERR_STATUS" });
    return oci;
  }

  #alive({ id }: ContainerJson): Container | undefined {
    const oci = this.#oci(id);
    return ["running", "paused"].includes(ifThere(() => oci?.status) ?? "gone") ? oci : undefined;
  }

  /** Adds a process to a running container; it is our own child. */
  exec(container: ContainerJson, { user, env, cwd, args, tty }: ExecOptions, start: Start): Running {
    const oci = this.running(container);
    const spec = oci.spec;
    const identity = user === undefined ? undefined : this.#userIn(`/proc/${oci.record.pid}/root`, user);
    const { consoleSize: _, ...own } = spec.process ?? { cwd: "/" };
    const process: Process = {
      ...own,
      args,
      terminal: tty,
      env: mergeEnvironment([...(tty ? ["TERM=xterm"] : []), ...(own.env ?? []), ...env]),
      cwd: cwd ?? own.cwd,
      ...(identity === undefined
        ? {}
        : { user: { uid: identity.uid, gid: identity.gid, additionalGids: identity.additionalGids } }),
    };
    return oci.exec(fitProcess(process), { ...start, console: "creator" });
  }

  /** Its place on the bridge, with the ports that were really bound; undefined when it has none. */
  endpoint({ id }: ContainerJson): BridgeEndpoint | undefined {
    return endpointOf(this.places.data, id);
  }

  /** Connects to a running container. @throws ContainerError when it does not run */
  attach(container: ContainerJson, wanted: { output?: boolean; input?: boolean }): Attachment {
    const attachment = this.tryAttach(container, wanted);
    if (attachment === undefined)
      throw new ContainerError({ message: `container ${container.name} is not running`, code: "ERR_STATUS" });
    return attachment;
  }

  tryAttach({ id }: ContainerJson, wanted: { output?: boolean; input?: boolean }): Attachment | undefined {
    const directory = tryCall("openat", -100, this.containers.directory(id), 0o200000 | 0o2000000, 0);
    if (directory < 0) return;
    const attachment = Attachment.open(directory, wanted);
    close(directory);
    return attachment;
  }

  /** Frees the ports of a container that has ended; the rest is its monitor's to clean up. */
  freePorts({ id }: ContainerJson, attachment: Attachment): void {
    withdrawPorts(id, this.places.data);
    attachment.closePorts();
  }

  /** Takes back what a container that has ended leaves on the host; with AutoRemove, all of it. Can be repeated. */
  cleanup(id: string): void {
    const lock = this.containers.lock(id, true);
    if (lock === undefined) return;
    try {
      this.#takeBack(id);
    } finally {
      close(lock);
    }
  }

  #takeBack(id: string): void {
    const container = this.containers.read(id);
    const kept = container !== undefined && !container.hostConfig.AutoRemove;
    const oci = this.#oci(id);
    const release = () => releaseEndpoint(this.places.data, id);
    if (oci === undefined) release();
    else oci.delete({ force: true, release, ...(kept ? { keep: this.containers.directory(id) } : {}) });
    if (!kept) this.#forget(id, true);
  }

  /**
   * Removes a container and what it wrote, with `volumes` also the volumes made for it alone.
   * @param watch gets the id when all but its records is gone
   * @throws ContainerError when it runs and force is not given
   */
  remove(container: ContainerJson, { force, volumes, watch, waiting = () => undefined }: Removal): void {
    const { id } = container;
    const lock = this.#lockEnded(container, force, waiting);
    if (lock === undefined) return;
    try {
      this.#takeBack(id);
      if (this.containers.read(id) === undefined) return;
      watch?.(id);
      this.#forget(id, volumes);
    } finally {
      close(lock);
    }
  }

  /** The lock of a container that does not run; undefined when it is gone. */
  #lockEnded(container: ContainerJson, force: boolean, waiting: (holder: string) => void): number | undefined {
    for (;;) {
      this.#end(container, force);
      this.awaitEndings();
      const lock = this.containers.lock(container.id, waiting);
      if (lock === undefined || this.#alive(container) === undefined) return lock;
      // who had it was making the container, which has begun to run
      close(lock);
    }
  }

  /** Kills it, if it runs, and waits for its end. @throws ContainerError when that was not asked for */
  #end(container: ContainerJson, force: boolean): void {
    const oci = this.#alive(container);
    if (oci === undefined) return;
    if (!force)
      throw new ContainerError({
        message: `container ${container.name} is running: stop it, or remove it with rm -f`,
        code: "ERR_STATUS",
      });
    const attachment = this.tryAttach(container, {});
    try {
      oci.kill(SIGKILL);
    } catch (error) {
      if (this.#alive(container) !== undefined) throw error; // it has ended by itself
    }
    while (attachment !== undefined && !["exited", "gone"].includes(attachment.hear().kind));
    attachment?.close();
  }

  /** Finds and removes what killed processes left: half-made containers, and endpoints without a container. */
  recover(): void {
    for (const id of this.containers.ids()) {
      const oci = this.#oci(id);
      if (this.containers.monitor(id) !== undefined || (oci === undefined && this.#isCleanedUp(id))) continue;
      const lock = this.containers.lock(id, false);
      if (lock === undefined) continue; // somebody is at work on it
      try {
        // what has run is kept, with what it wrote: it was lost to a crash, or to the end of its monitor
        if (this.containers.exit(id) === undefined && this.containers.wasStarted(id))
          this.containers.writeExit(id, LOST_STATUS);
        this.#takeBack(id); // one that still runs is killed: its output, terminal and ports have gone with its monitor
        if (this.containers.exit(id) === undefined) this.#forget(id, true);
      } finally {
        close(lock);
      }
    }
    for (const id of reservedContainers(this.places.data))
      if (!existsSync(this.containers.directory(id))) releaseEndpoint(this.places.data, id);
  }

  /** Whether a container has ended and only what is to stay of it is there. */
  #isCleanedUp(id: string): boolean {
    if (this.containers.exit(id) === undefined || endpointOf(this.places.data, id) !== undefined) return false;
    return this.containers.read(id)?.hostConfig.AutoRemove === false;
  }

  /** Waits for containers that have ended and are being cleaned up: until then they hold names and ports. @returns whether there were any */
  awaitEndings(): boolean {
    let found = false;
    const deadline = endDeadline();
    for (const id of this.containers.ids()) {
      if (this.containers.exit(id) === undefined) continue;
      const pid = this.containers.monitor(id);
      if (pid === undefined) continue;
      const pidfd = tryCall("pidfd_open", pid, 0);
      if (pidfd < 0) continue;
      found = true;
      wait([pidfd], Math.max(deadline - Date.now(), 0));
      close(pidfd);
    }
    return found;
  }

  get #services(): EngineServices {
    const { data } = this.places;
    return {
      prepareRoot: (root) => DRIVERS[root.driver].prepare(root),
      mountUnion: (root, userns) => DRIVERS[root.driver].mount(root, userns),
      makeEndpoint: (endpoint, pid) => makeEndpoint(endpoint, pid, data),
      publishPorts: (endpoint) => publishPorts(endpoint, data),
      removeEndpoint: (endpoint) => removeEndpoint(endpoint, data),
    };
  }

  #oci(id: string): Container | undefined {
    return ifThere(() => Container.open(this.places.root, id));
  }

  #make(container: ContainerJson): number {
    try {
      return this.containers.make(container);
    } catch (error) {
      // the one that has the name may be on its way out
      if (!(error instanceof ContainerError && error.code === "EEXIST" && this.awaitEndings())) throw error;
      return this.containers.make(container);
    }
  }

  /** Root, ports, address and files of a container that is about to be made. */
  #prepare(
    container: ContainerJson,
    foreground: boolean,
  ): { definition: Omit<Definition, "preserved">; bound: ReturnType<typeof bindPorts> } {
    const { id, hostConfig } = container;
    const path = this.containers.directory(id);
    const bound = this.#bindPorts(container);
    const endpoint =
      hostConfig.NetworkMode === "bridge"
        ? reserveEndpoint(
            this.places.data,
            id,
            bound.map(({ binding }) => binding),
          )
        : undefined;
    const definition = this.#definition(container, path, endpoint);
    makeVolumes(this.places.data, container.mounts);
    const { process: command } = definition.spec;
    if (foreground && command !== undefined) definition.spec = { ...definition.spec, process: fitProcess(command) };
    return { definition, bound };
  }

  #bindPorts({ hostConfig }: ContainerJson): ReturnType<typeof bindPorts> {
    const wanted = hostConfig.PortBindings.flatMap(parsePublish);
    const publisher = ({ hostPort, protocol }: PortBinding) =>
      this.containers
        .list()
        .find((other) =>
          this.endpoint(other)?.ports.some((port) => port.hostPort === hostPort && port.protocol === protocol),
        )?.name;
    try {
      return bindPorts(wanted, publisher);
    } catch (error) {
      if (!(error instanceof ContainerError && error.code === "EADDRINUSE" && this.awaitEndings())) throw error;
      return bindPorts(wanted, publisher);
    }
  }

  #discard({ id }: ContainerJson): void {
    releaseEndpoint(this.places.data, id);
    this.#forget(id, true);
  }

  #forget(id: string, volumes: boolean): void {
    const container = this.containers.read(id);
    if (volumes && container !== undefined && container.anonymousVolumes.length > 0)
      removeAnonymousVolumes(this.places.data, container, this.containers.list());
    this.containers.remove(id);
  }

  #definition(
    container: ContainerJson,
    path: string,
    endpoint: EndpointArgs | undefined,
  ): Omit<Definition, "preserved"> {
    const { root, id, config, hostConfig } = container;
    if (root.kind === "bundle") {
      const { spec, bundle } = readBundle(root.bundle);
      return {
        id,
        spec,
        bundle,
        start: "now",
        keyring: `_ses.${id.slice(0, 12)}`,
        ...(spec.process?.terminal === true ? { console: "creator" as const } : {}),
      };
    }
    const networkOf = /^container:(.+)$/.exec(hostConfig.NetworkMode)?.[1];
    const seccomp = readSeccompProfile(hostConfig.SecurityOpt);
    const mapped = !["", "host"].includes(hostConfig.UsernsMode);
    return definitionOf(container, {
      directory: path,
      user: this.#user(container, config.User),
      machine: detectHost().machine,
      permitted: capabilityNames(permittedCapabilities()),
      // who has the host's network reaches the host's own name servers, too
      ...(hostConfig.NetworkMode === "host"
        ? { resolvConf: hostText(RESOLV_CONF), hosts: hostText("/etc/hosts") }
        : { resolvConf: ownResolvConf() }),
      volumes: container.mounts.map((mount) => mountOf(mount, mapped)),
      copies: container.mounts.filter(startsAsCopy).map(({ Destination }) => Destination),
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(networkOf === undefined ? {} : { networkOf: this.#networkOf(this.containers.find(networkOf)) }),
      ...(seccomp === undefined ? {} : { seccomp }),
    });
  }

  #networkOf(container: ContainerJson): { pid: number; files?: string } {
    const { pid } = this.running(container).record;
    return container.root.kind === "image" ? { pid, files: this.containers.directory(container.id) } : { pid };
  }

  /** The user as the image's passwd and group know it; nothing is mounted for that. */
  #user({ root }: ContainerJson, text: string): User {
    return root.kind === "image"
      ? resolveUser({ layers: root.layers }, text)
      : { uid: 0, gid: 0, additionalGids: [], home: "/" };
  }

  #userIn(path: string, text: string): User {
    const fd = tryCall("openat", -100, path, 0o10000000 | 0o200000 | 0o2000000, 0);
    try {
      return resolveUser(fd, text);
    } finally {
      close(fd);
    }
  }

  #words(...words: string[]): string[] {
    return ["--data", this.places.data, "--root", this.places.root, ...words];
  }
}

/** undefined where there is no such container: its monitor can remove one between two looks at it. */
function ifThere<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (error instanceof ContainerError && error.code === "ENOENT") return;
    throw error;
  }
}

const SIGKILL = 9;
/** Docker's status for a container whose end nobody saw. */
const LOST_STATUS = 255;

export interface ExecOptions {
  args: string[];
  env: string[];
  tty: boolean;
  user: string | undefined;
  cwd: string | undefined;
}

const RESOLV_CONF = "/etc/resolv.conf";

/** A container's resolv.conf, from the host's. */
function ownResolvConf(): string {
  return resolvConf([RESOLV_CONF, "/run/systemd/resolve/resolv.conf"].map(hostText));
}

function hostText(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}
