import { readlinkSync, renameSync, writeFileSync } from "node:fs";
import { Container, type Running, type Start } from "../../container/container.ts";
import { fitProcess } from "../../container/foreground.ts";
import { Notify, notifyDirectory, notifyManager, withNotify } from "../../container/notify.ts";
import { ContainerError } from "../../error.ts";
import { Signals } from "../../execute/signals.ts";
import type { Definition } from "../../plan/definition.ts";
import { readBundle } from "../../spec/bundle.ts";
import type { Process } from "../../spec/spec.ts";
import { openPidfdSocket, PIDFD_SOCKET } from "./pidfd-socket.ts";
import type { Globals } from "./runtime.ts";
import { describe } from "./words.ts";

const { cwd, env, pid } = process;

/** Flags that create and run share. */
export const CREATION_FLAGS = {
  bundle: {
    kind: "string",
    short: "b",
    help: "path to the root of the bundle directory, defaults to the current directory",
  },
  config: { kind: "string", short: "f", help: "the bundle's configuration (default: config.json), as with crun" },
  "console-socket": {
    kind: "string",
    help: "path to an AF_UNIX socket which will receive the master of the console's terminal",
  },
  "pidfd-socket": PIDFD_SOCKET,
  "pid-file": { kind: "string", help: "specify the file to write the process id to" },
  "no-pivot": { kind: "boolean", help: "do not use pivot root to jail process inside rootfs" },
  "no-new-keyring": { kind: "boolean", help: "do not create a new session keyring for the container" },
  "preserve-fds": {
    kind: "string",
    help: "pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)",
  },
} as const;

export interface CreationFlags {
  bundle: string | undefined;
  config: string | undefined;
  "console-socket": string | undefined;
  "pidfd-socket": string | undefined;
  "pid-file": string | undefined;
  "no-pivot": boolean;
  "no-new-keyring": boolean;
  "preserve-fds": string | undefined;
}

/** Creates the container that a bundle and the flags describe. */
export async function createFromBundle(
  id: string | undefined,
  flags: CreationFlags,
  { root, rootless, systemdCgroup, warn }: Globals,
  { start, console, ...more }: Start & { start: Definition["start"]; console?: "creator" },
): Promise<{ container: Container; process: Running; signals: Signals; notify?: Notify }> {
  if (id === undefined || id === "")
    throw new ContainerError({ message: "container id cannot be empty", code: "ERR_USAGE" });
  const { spec, bundle, warnings } = readBundle(flags.bundle ?? cwd(), flags.config);
  for (const { pointer, message } of warnings) warn(`config.json ${pointer} ${message}`);
  const socket = flags["console-socket"];
  const terminal = spec.process?.terminal === true;
  if (terminal && socket === undefined && console === undefined)
    throw new ContainerError({
      message: "cannot allocate tty if runc will detach without setting console socket",
      code: "ERR_USAGE",
    });
  if ((!terminal || console !== undefined) && socket !== undefined)
    throw new ContainerError({
      message: "cannot use console socket if runc will not detach or allocate tty",
      code: "ERR_USAGE",
    });
  const target = socket === undefined ? console : { socket };
  const manager = notifyManager();
  const directory = notifyDirectory(root, id);
  let notify: Notify | undefined;
  const activatedProcess = spec.process === undefined ? undefined : withActivation(spec.process);
  const process =
    activatedProcess !== undefined && target === "creator" ? fitProcess(activatedProcess) : activatedProcess;
  const whole = process === undefined ? spec : { ...spec, process };
  const sendPidfd = openPidfdSocket(flags["pidfd-socket"]);
  const network = spec.linux?.netDevices === undefined ? undefined : await import("../../network/device.ts");
  // before anything is made: what ends us then leaves nothing, and what is for the container waits for it
  const signals = new Signals();
  const created = describe(() =>
    Container.create(
      root,
      {
        id,
        spec: manager === undefined ? whole : withNotify(whole, directory),
        bundle,
        start,
        ...(target === undefined ? {} : { console: target }),
        ...(flags["no-new-keyring"] ? {} : { keyring: `_ses.${id}` }),
        ...(flags["no-pivot"] ? { noPivot: true } : {}),
        cgroupManager: { ...(systemdCgroup ? { systemd: true } : {}), ...(rootless === undefined ? {} : { rootless }) },
      },
      {
        ...more,
        warn,
        signals,
        preserved: preservedDescriptors(flags["preserve-fds"]),
        ...(manager === undefined
          ? {}
          : {
              notify: () => {
                // what waits for start is listened to by whoever starts it
                if (start === "now") notify = new Notify(directory, manager);
              },
            }),
        adopt: ({ pidfd }) => sendPidfd(pidfd, "standard"),
        ...(network && { moveDevice: network.moveDevice }),
      },
    ),
  );
  if (flags["pid-file"] !== undefined) {
    try {
      writePid(flags["pid-file"], created.process.pid);
    } catch (error) {
      created.container.delete({ force: true, warn });
      throw error;
    }
  }
  return { ...created, signals, ...(notify === undefined ? {} : { notify }) };
}

/**
 * Where the caller is being traced (TRACEPARENT), what was done to the container becomes a part of that.
 * @param directory where it is recorded
 * @param part the process that was added, by its number; or the command that did a part of what is recorded
 */
export async function joinCallersTrace(directory: string, part?: number | "start" | "delete"): Promise<void> {
  if (env.TRACEPARENT === undefined) return;
  const { readExec, readRecording } = await import("../../container/recording.ts");
  const { joinCallersTrace: send } = await import("../spans.ts");
  if (typeof part === "number") await send(() => readExec(directory, part));
  else await send(() => readRecording(directory), part);
}

/** Descriptors 3 and up: those of socket activation, then as many as asked for. @throws ContainerError for a closed one */
export function preservedDescriptors(asked: string | undefined): number[] {
  const word = asked ?? "0";
  const count = Number(word);
  const first = 3 + activated();
  // runc's words, here and below
  if (!/^\d+$/.test(word) || first + count > 1000)
    throw new ContainerError({
      message: `invalid value ${JSON.stringify(word)} for flag -preserve-fds: parse error`,
      code: "ERR_USAGE",
    });
  const descriptors = Array.from({ length: first - 3 + count }, (_, i) => 3 + i);
  const closed = descriptors.find((fd) => !isInherited(fd));
  if (closed === undefined) return descriptors;
  const which = closed < first ? "descriptor of $LISTEN_FDS" : `preserved-fd ${closed - first} (of ${count})`;
  throw new ContainerError({
    message: `unable to stat ${which}: stat /proc/self/fd/${closed}: no such file or directory`,
    code: "EBADF",
  });
}

/**
 * Whether the caller has opened it. JavaScript engines mark all descriptors to be closed by execve, their own and the
 * caller's; but what they open first, and so at the lowest number that the caller left free, is an event poll.
 */
function isInherited(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) !== "anon_inode:[eventpoll]";
  } catch {
    return false;
  }
}

/** How many descriptors are ours for socket activation: sd_listen_fds(3). */
function activated(): number {
  return env.LISTEN_PID === String(pid) ? Number(env.LISTEN_FDS ?? 0) : 0;
}

/** The process, told of the descriptors of socket activation: it is pid 1 of its namespace, as runc has it. */
export function withActivation(process: Process): Process {
  const count = activated();
  return count === 0 ? process : { ...process, env: [...(process.env ?? []), `LISTEN_FDS=${count}`, "LISTEN_PID=1"] };
}

/** Written as a whole: whoever waits for the file must not read half a number. */
export function writePid(path: string, pid: number): void {
  writeFileSync(`${path}.new`, String(pid));
  renameSync(`${path}.new`, path);
}
