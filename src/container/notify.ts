import { resolve } from "node:path";
import { close, O, open } from "../kernel/file.ts";
import { POLLIN, wait } from "../kernel/process.ts";
import { bindDatagramIn, connectDatagram, receive, send } from "../kernel/socket.ts";
import { pipe } from "../kernel/syscall.ts";
import type { Spec } from "../spec/spec.ts";
import { NOTIFY } from "./store.ts";

const { env } = process;

/*
 * sd_notify(3): a service tells its manager through the socket in $NOTIFY_SOCKET that it is ready. The manager accepts
 * that from processes it knows, and its socket is not in the container: so the container has one of ours, and what it
 * says of being ready is passed on, with the process to watch. As runc does it.
 */

const SOCKET = "notify.sock";
const INSIDE = "/run/notify";
const MESSAGE_BYTES = 4096;
/** How long the manager may take to say that it has read what was sent. */
const BARRIER_MS = 30_000;

/** The socket of whoever wants to know when the container is ready. */
export function notifyManager(): string | undefined {
  return env.NOTIFY_SOCKET === "" ? undefined : env.NOTIFY_SOCKET;
}

/** The directory of a container in which its socket is, and which the container sees. */
export function notifyDirectory(root: string, id: string): string {
  return `${resolve(root)}/${id}/${NOTIFY}`;
}

/** The spec with that directory in it, and its process told of the socket. */
export function withNotify(spec: Spec, directory: string): Spec {
  return {
    ...spec,
    mounts: [
      ...(spec.mounts ?? []),
      {
        destination: INSIDE,
        type: "bind",
        source: directory,
        options: ["bind", "nosuid", "noexec", "nodev", "ro"],
      },
    ],
    ...(spec.process === undefined
      ? {}
      : { process: { ...spec.process, env: [...(spec.process.env ?? []), `NOTIFY_SOCKET=${INSIDE}/${SOCKET}`] } }),
  };
}

/** Listens to a container on behalf of a manager. */
export class Notify {
  /** Readable when the container has said something; -1 once it has said what counts. */
  descriptor: number;
  readonly #manager: string;

  /** Before the container's program runs. @param manager value of our own $NOTIFY_SOCKET */
  constructor(directory: string, manager: string) {
    this.#manager = manager;
    const at = open(directory, O.PATH | O.DIRECTORY);
    this.descriptor = bindDatagramIn(at, SOCKET);
    close(at);
  }

  /** Takes what has been said. When the container is ready, the manager is told so, and to watch this process. */
  take(mainPid: number): void {
    const packet = receive(this.descriptor, MESSAGE_BYTES, 0x40 /* MSG_DONTWAIT */);
    for (const fd of packet?.descriptors ?? []) close(fd);
    const ready = Buffer.from(packet?.bytes ?? [])
      .toString()
      .split("\n")
      .find((line) => line.startsWith("READY="));
    if (ready === undefined) return;
    this.close();
    tell(this.#manager, ready, mainPid);
  }

  /** Returns when the container is ready, or has ended. */
  await(pidfd: number, mainPid: number): void {
    while (this.descriptor >= 0) {
      const [ended = 0, said = 0] = wait([pidfd, this.descriptor]);
      if (said !== 0) this.take(mainPid);
      else if (ended !== 0) this.close();
    }
  }

  close(): void {
    if (this.descriptor >= 0) close(this.descriptor);
    this.descriptor = -1;
  }
}

/** A manager that has gone is told nothing. */
function tell(manager: string, ready: string, mainPid: number): void {
  const socket = connectDatagram(manager);
  if (socket < 0) return;
  send(socket, Buffer.from(`${ready}\n`));
  send(socket, Buffer.from(`MAINPID=${mainPid}\n`));
  // sd_notify_barrier(3): what we sent must have been read while we are still there to be looked at
  const [theirs, ours] = pipe();
  const sent = send(socket, Buffer.from("BARRIER=1"), [ours]);
  close(ours);
  if (sent) wait([theirs], BARRIER_MS, [POLLIN]);
  close(theirs);
  close(socket);
}
