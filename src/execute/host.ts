import { basename, dirname } from "node:path";
import { applyWrite, createDirectory, removeDirectories, removeEmptyDirectories } from "../cgroup/cgroup.ts";
import { startUnit, stopUnit } from "../cgroup/systemd.ts";
import { ContainerError } from "../error.ts";
import { attachDeviceProgram } from "../kernel/bpf.ts";
import { AT_FDCWD, AT_REMOVEDIR, close, O, open, sealedFile } from "../kernel/file.ts";
import { cloneTree, setAttributes } from "../kernel/mount.ts";
import { awaitEnd, endDeadline, wait } from "../kernel/process.ts";
import { connectStream, listenIn, send, socketPair } from "../kernel/socket.ts";
import { call, kernelError, tryCall } from "../kernel/syscall.ts";
import { MOUNT_ATTR } from "../linux/mount-options.ts";
import type { EndpointArgs, HostArgs, HostStep, HostStepName, RootArgs } from "../plan/step.ts";
import type { Status } from "../spec/spec.ts";
import { OCI_VERSION } from "../spec/template.ts";
import { runHook } from "./hook.ts";
import { mapByHelper, writeIdFile } from "./id-map.ts";
import { enterClass, makeClass, monitorClass, removeClass } from "./resctrl.ts";
import type { Signals } from "./signals.ts";

const EPIPE = 32;

/** What host steps need to know beyond their arguments, and where they leave descriptors. */
export interface HostContext {
  id: string;
  /** Descriptor of the container's state directory. */
  directory: number;
  /** The container's first process, or before that exists init's first stage; exec: init of the process to be added. */
  process: { readonly pid: number; readonly pidfd: number } | undefined;
  /** The container that a process is added to. */
  container?: { pid: number };
  slots: Map<string, number>;
  /** OCI state as JSON, for hooks. */
  state: (status: Status, pid: number) => string;
  /** Is told of what went wrong and does not end the operation. */
  warn?: ((message: string) => void) | undefined;
  /** Makes the container visible to other commands. */
  record: (pid: number) => void;
  /** What ends our waiting while the plan runs; what takes it back is not to be ended so. */
  signals?: Signals;
  /** Our end of the socket that the terminal's master arrives on, for "creator" consoles. */
  terminal?: number;
  /** Moves a network device into a network namespace; its code is loaded only for who names devices. */
  moveDevice?: DeviceMover;
  /** What brings devices back, by their names. */
  returns: Map<string, () => void>;
  /** What only containers of the engine need; its code is not loaded for others. */
  services?: EngineServices;
}

/** @returns what brings the device back */
export type DeviceMover = (device: string, name: string, netns: number) => () => void;

/** Layers and networks: effects that the engine brings along. */
export interface EngineServices {
  /** Makes what the root needs on the disk. */
  prepareRoot: (root: RootArgs) => void;
  /** The layers' union as a mount that is attached nowhere. */
  mountUnion: (root: RootArgs, userns: number | undefined) => number;
  makeEndpoint: (endpoint: EndpointArgs, pid: number) => void;
  publishPorts: (endpoint: EndpointArgs) => void;
  /** Takes both back; can be repeated. */
  removeEndpoint: (endpoint: EndpointArgs) => void;
}

interface Handler<N extends HostStepName> {
  run: (args: HostArgs<N>, context: HostContext) => void;
  /** Idempotent: it runs after a failure, and again at delete. */
  undo?: (args: HostArgs<N>, context: HostContext, deadline: number) => void;
}

const HANDLERS: { [N in HostStepName]: Handler<N> } = {
  startUnit: {
    run: ({ unit, properties, user }, { process }) => startUnit(unit, properties, process?.pid ?? 0, user),
    undo: ({ unit, user }) => stopUnit(unit, user),
  },
  makeCgroup: {
    run: ({ path, shared }) => void createDirectory(path, { shared: shared === true }),
    undo: ({ path }, _, deadline) => removeCgroup(path, deadline),
  },
  writeCgroup: { run: (write) => applyWrite(write) },
  filterDevices: { run: ({ path, program }) => attachDeviceProgram(path, program) },
  openCgroup: {
    run: ({ path, slot }, { slots }) =>
      slots.set(slot, open(path, path.endsWith("/tasks") ? O.WRONLY : O.RDONLY | O.DIRECTORY)),
  },
  openRoot: {
    run: ({ path, propagation, slot }, { slots }) => {
      const directory = open(path, O.PATH | O.DIRECTORY);
      const root = cloneTree(directory, "", true);
      slots.set(slot, root);
      close(directory);
      setAttributes(root, { propagation }, true);
    },
  },
  prepareRoot: { run: (root, { services }) => offered(services).prepareRoot(root) },
  writeFile: {
    run: ({ path, text }) => {
      const file = open(path, O.WRONLY | O.CREAT | O.TRUNC | O.NOFOLLOW, 0o600);
      call("fchmod", file, 0o644); // whatever the caller's umask is, the container's users read it
      const bytes = Buffer.from(text);
      call("write", file, bytes, bytes.length);
      close(file);
    },
  },
  mountUnion: {
    run: ({ slot, idmapped, ...union }, { slots, process, services }) => {
      const userns = idmapped ? open(`/proc/${process?.pid}/ns/user`, O.RDONLY) : undefined;
      slots.set(slot, offered(services).mountUnion(union, userns));
      if (userns !== undefined) call("close", userns);
    },
  },
  openSource: {
    run: ({ path, follow, recursive, propagation, set, clear, recursiveSet, recursiveClear, slot }, { slots }) => {
      const tree = cloneTree(AT_FDCWD, path, recursive, follow);
      slots.set(slot, tree);
      if (propagation !== 0) setAttributes(tree, { propagation }, true);
      if (set !== 0 || clear !== 0) setAttributes(tree, { set, clear });
      if (recursiveSet !== 0 || recursiveClear !== 0)
        setAttributes(tree, { set: recursiveSet, clear: recursiveClear }, true);
    },
  },
  idmapSource: {
    run: ({ mount, recursive }, { slots, process }) => {
      const userns = open(`/proc/${process?.pid}/ns/user`, O.RDONLY);
      try {
        setAttributes(slots.get(mount) ?? -1, { set: MOUNT_ATTR.IDMAP, userns }, recursive);
      } finally {
        close(userns);
      }
    },
  },
  openNamespace: { run: ({ path, slot }, { slots }) => slots.set(slot, open(path, O.RDONLY)) },
  openContainer: {
    run: ({ file, slot }, { slots, container }) =>
      slots.set(slot, open(`/proc/${container?.pid}/ns/${file}`, O.RDONLY)),
  },
  openContainerRoot: {
    run: ({ slot }, { slots, container }) =>
      slots.set(slot, open(`/proc/${container?.pid}/root`, O.PATH | O.DIRECTORY)),
  },
  openState: {
    run: ({ status, slot }, { slots, state, process }) =>
      slots.set(slot, sealedFile("caisson-state", Buffer.from(state(status, process?.pid ?? 0)))),
  },
  openConsoleSocket: { run: ({ path, slot }, { slots }) => slots.set(slot, connectStream(path)) },
  openTurns: {
    run: ({ slot }, context) => {
      const [ours, theirs] = socketPair();
      context.terminal = ours;
      context.slots.set(slot, theirs);
    },
  },
  listen: { run: ({ slot }, { slots, directory }) => slots.set(slot, listenIn(directory, "start.sock")) },
  startInit: { run: () => undefined },
  denySetgroups: { run: (_, { process }) => writeIdFile(process?.pid ?? 0, "setgroups", "deny") },
  mapIds: { run: ({ kind, map }, { process }) => writeIdFile(process?.pid ?? 0, `${kind}_map`, map) },
  mapIdsByHelper: { run: ({ kind, map }, { process }) => mapByHelper(process?.pid ?? 0, kind, map) },
  makeEndpoint: {
    run: (args, { process, services }) => offered(services).makeEndpoint(args, process?.pid ?? 0),
    undo: (args, { services }) => services?.removeEndpoint(args),
  },
  moveDevice: {
    run: ({ device, name }, context) => {
      const { process, slots, moveDevice } = context;
      const netns = open(`/proc/${process?.pid}/ns/net`, O.RDONLY);
      slots.set(`netDevices/${device}`, netns); // keeps the namespace until the plan has run or failed
      context.returns.set(device, offered(moveDevice)(device, name, netns));
    },
    // only while the plan runs: at delete a device is where the specification leaves it
    undo: ({ device }, { returns }) => {
      returns.get(device)?.();
      returns.delete(device);
    },
  },
  // its rules go with the endpoint
  publishPorts: { run: (args, { services }) => offered(services).publishPorts(args) },
  runHostHook: {
    run: (hook, { state, process, signals }) =>
      runHook(hook, state(hook.kind === "poststart" ? "running" : "creating", process?.pid ?? 0), signals),
  },
  makeClass: {
    run: ({ path, schemata }) => makeClass(path, schemata),
    undo: ({ path, own }) => {
      if (own) removeClass(path);
    },
  },
  enterClass: { run: ({ path }, { process }) => enterClass(path, process?.pid ?? 0) },
  monitorClass: {
    run: ({ path }, { process }) => monitorClass(path, process?.pid ?? 0),
    undo: ({ path }) => removeClass(path),
  },
  promiseHooks: {
    run: () => undefined,
    undo: ({ hooks }, { state, warn }) => {
      for (const hook of hooks) {
        try {
          runHook(hook, state("stopped", 0));
        } catch (error) {
          // runtime.md, "Lifecycle", 13: the others run as if it had succeeded
          warn?.(error instanceof Error ? error.message : String(error));
        }
      }
    },
  },
  sendListener: {
    run: ({ path, metadata, status, listener }, { state, process, container, slots }) => {
      const pid = process?.pid ?? 0;
      const containerState: unknown = JSON.parse(state(status, container?.pid ?? pid));
      const fields = { ociVersion: OCI_VERSION, fds: ["seccompFd"], pid, metadata, state: containerState };
      const agent = connectAgent(path);
      try {
        if (!send(agent, Buffer.from(JSON.stringify(fields)), [slots.get(listener) ?? -1]))
          throw kernelError("sendmsg", EPIPE, path);
      } finally {
        close(agent);
      }
    },
  },
  confirm: { run: () => undefined },
  recordCreated: { run: (_, { record, process }) => record(process?.pid ?? 0) },
};

/** @throws ContainerError in runc's words */
function connectAgent(path: string): number {
  try {
    return connectStream(path);
  } catch (error) {
    if (!(error instanceof ContainerError)) throw error;
    const message = `failed to connect with seccomp agent specified in the seccomp profile: ${path}: ${error.code}`;
    throw new ContainerError({ message, code: error.code, path, cause: error });
  }
}

function offered<T>(service: T | undefined): T {
  if (service === undefined)
    throw new ContainerError({ message: "the caller brings no code for that", code: "ENOSYS" });
  return service;
}

function handlerOf<N extends HostStepName>(step: { name: N }): Handler<N> {
  return HANDLERS[step.name];
}

/** Carries out one host step. @throws ContainerError */
export function runHostStep(step: HostStep, context: HostContext): void {
  handlerOf(step).run(step.args as never, context); // name and args come from the same row of the vocabulary
}

/** Takes back what a host step did; a cleanup that fails must not hide why it was needed. */
export function undoHostStep(step: HostStep, context: HostContext, deadline: number): void {
  handlerOf(step).undo?.(step.args as never, context, deadline);
}

/**
 * Removes a container's cgroup with whatever is in it; can be repeated.
 * @param deadline for its processes to end; one for all cgroups, as the same processes are in each
 */
export function removeCgroup(path: string, deadline = endDeadline()): void {
  // the usual case: nothing is in there any more
  if (tryCall("unlinkat", AT_FDCWD, path, AT_REMOVEDIR) < 0) {
    try {
      removeDirectories([path], { exit: (pids) => awaitExits(pids, deadline), change: awaitChange });
    } catch (error) {
      if (!(error instanceof ContainerError) || error.code !== "ETIMEDOUT") throw error;
      throw new ContainerError({ ...error, message: `cannot remove cgroup ${path}: ${error.message}`, path });
    }
  }
  // the parent of the engine's containers goes with the last of them; other parents are somebody else's
  if (basename(dirname(path)) === "caisson") removeEmptyDirectories([dirname(path)]);
}

/** Waits until none of these processes lives. */
export function awaitExits(pids: readonly number[], deadline = endDeadline()): void {
  for (const pid of pids) {
    const pidfd = tryCall("pidfd_open", pid, 0);
    if (pidfd < 0) continue;
    try {
      awaitEnd(pidfd, pid, deadline);
    } finally {
      close(pidfd);
    }
  }
}

/** Waits until a cgroup.events file has changed: poll(2) says POLLPRI. */
export function awaitChange(descriptor: number): void {
  const POLLPRI = 2;
  const [changed] = wait([descriptor], 10_000, [POLLPRI]);
  if (changed === 0)
    throw new ContainerError({ message: "the cgroup did not change its state within 10 s", code: "ETIMEDOUT" });
}
