import { readFileSync } from "node:fs";
import { ContainerError, tryAll } from "../error.ts";
import { nativeFiles } from "../kernel/addon.ts";
import { close, sealedFile } from "../kernel/file.ts";
import { awaitEnd, openProcess, reap, signal, spawn, wait } from "../kernel/process.ts";
import { type Packet, receive, send, socketPair } from "../kernel/socket.ts";
import type { Signals } from "./signals.ts";

/*
 *  host                                      init (first stage)            init (the container's first process)
 *   │ plan, trace, socket, slots ─────────────▶│
 *   │                                          │ joins, unshares
 *   │ ◀──────────── CHILD pid, pidfd ──────────│ clone3 ────────────────────▶│
 *   │                                          ╵ ends                        │
 *   │ ◀──────────────────────────── WAIT, index of the turn ─────────────────│
 *   │ host steps                                                             │
 *   │ ─────────────── GO, descriptors of the slots they filled ─────────────▶│
 *   │                       …                                                │
 *   │ ◀─────── FAILED, index, -errno   or   end of file: executed, or waiting for start
 */

const WAIT = 1;
const FAILED = 2;
const GO = 3;
const CHILD = 4;
const PACKET_BYTES = 16;

/** What init, or a monitor in its place, is started with. */
export interface Launch {
  /** Sealed executable of init. */
  file: number;
  argv: string[];
  /** Descriptors from 3 on. */
  descriptors: number[];
}

/**
 * Starts init. Where the container's parent is somebody else (the monitor), that one starts it.
 * @returns its pid when it is a child of ours
 */
export type Launcher = (launch: Launch) => number | undefined;

/** A launcher of children of ours, with this standard input and our other standard streams. */
export function launchOn(input: number): Launcher {
  return ({ file, argv, descriptors }) => spawn(file, argv, [], [input, 1, 2, ...descriptors]);
}

/** What init said: it waits, or it has failed, or it has gone. */
export type Said =
  | { kind: "waits"; step: number; descriptor?: number | undefined }
  | { kind: "failed"; step: number; errno: number }
  | { kind: "gone" };

/** The other side while a plan runs. */
export class Init {
  /** Of the container's first process, in our pid namespace; 0 before it exists. */
  pid = 0;
  pidfd = -1;
  /** Of the first stage, when we are its parent. */
  #stage = -1;
  readonly #socket: number;
  readonly #signals: Signals | undefined;
  /** What was heard while the child was waited for. */
  #said: Said | undefined;

  /** Starts init with its plan, its trace and the slots filled so far, in their order; signals end our waiting for it. */
  constructor(
    plan: Uint8Array,
    trace: number,
    slots: readonly number[],
    preserved: readonly number[],
    launcher?: Launcher,
    signals?: Signals,
  ) {
    const [ours, theirs] = socketPair();
    this.#socket = ours;
    this.#signals = signals;
    const file = sealedFile("caisson-init", readFileSync(nativeFiles().init), true);
    const bytes = sealedFile("caisson-plan", plan);
    const launch = {
      file,
      argv: ["caisson-init", String(3 + preserved.length)],
      descriptors: [...preserved, bytes, trace, theirs, ...slots],
    };
    const pid = (launcher ?? launchOn(0))(launch);
    if (pid !== undefined) {
      this.#stage = openProcess(pid);
      this.pid = pid;
    }
    for (const fd of [file, bytes, theirs]) close(fd);
  }

  /**
   * Waits for init's next word that is not about its child.
   * @param cloned whether that word is the child's: it can overtake the first stage's word about the child, and what the
   * host does next needs to know who the child is
   */
  listen(cloned: boolean): Said {
    while (this.#said === undefined || (cloned && this.pidfd < 0)) if (!this.#hear()) break;
    const said = this.#said ?? { kind: "gone" };
    this.#said = undefined;
    return said;
  }

  /** Waits until the container's first process is known. @returns false when init has failed, or gone, before it was */
  awaitChild(): boolean {
    while (this.pidfd < 0 && this.#said?.kind !== "failed") if (!this.#hear()) break;
    return this.pidfd >= 0;
  }

  /** @returns false when there is nothing more to hear */
  #hear(): boolean {
    this.#signals?.wait([this.#socket]);
    const packet = receive(this.#socket, PACKET_BYTES);
    if (packet === undefined) return false;
    const { kind, step, result } = decode(packet);
    if (kind === WAIT) this.#said = { kind: "waits", step, descriptor: packet.descriptors[0] };
    else if (kind === FAILED) this.#said = { kind: "failed", step, errno: -result };
    else if (kind === CHILD) this.#adopt(result, packet.descriptors[0]);
    else throw new ContainerError({ message: `init said ${kind}, which means nothing`, code: "EPROTO" });
    return true;
  }

  /** Ends the host's turn. @returns false when init has gone */
  go(step: number, descriptors: number[]): boolean {
    return sendGo(this.#socket, step, descriptors);
  }

  /**
   * Kills what there is of it, and reaps it if it is ours.
   * @param graceMs for it to end by itself, when it said it would
   * @param deadline for it to have ended
   * @throws ContainerError ETIMEDOUT when the kernel does not let go of it
   */
  kill(graceMs: number, deadline: number): void {
    const [failure] = tryAll(
      [this.#stage, this.pidfd]
        .filter((pidfd) => pidfd >= 0)
        .map((pidfd) => () => {
          if (graceMs > 0) wait([pidfd], graceMs);
          signal(pidfd, 9);
          awaitEnd(pidfd, this.pid, deadline);
          reapOwn(pidfd);
        }),
    );
    if (failure !== undefined) throw failure;
  }

  close(): void {
    close(this.#socket);
    if (this.#stage >= 0) close(this.#stage);
    this.#stage = -1;
  }

  #adopt(pid: number, pidfd: number | undefined): void {
    this.pid = pid;
    this.pidfd = pidfd ?? openProcess(pid);
    if (this.#stage < 0) return;
    reap(this.#stage);
    close(this.#stage);
    this.#stage = -1;
  }
}

/** Reaps a process that may be somebody else's to reap. */
function reapOwn(pidfd: number): void {
  try {
    reap(pidfd, false);
  } catch (error) {
    if (!(error instanceof ContainerError && error.code === "ECHILD")) throw error;
  }
}

function decode({ bytes }: Packet): { kind: number; step: number; result: number } {
  if (bytes.length !== PACKET_BYTES) throw new ContainerError({ message: "init's word is cut short", code: "EPROTO" });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { kind: view.getUint32(0, true), step: view.getUint32(4, true), result: Number(view.getBigInt64(8, true)) };
}

function sendGo(socket: number, step: number, descriptors: number[]): boolean {
  const packet = Buffer.alloc(PACKET_BYTES);
  packet.writeUInt32LE(GO, 0);
  packet.writeUInt32LE(step, 4);
  return send(socket, packet, descriptors);
}

/** An init that waited for start, at the other end of start.sock. */
export class StartedInit {
  readonly #socket: number;

  constructor(socket: number) {
    this.#socket = socket;
  }

  /** Waits for its next word: it waits again, has failed, or is gone (executed, or killed). */
  listen(): Said {
    const packet = receive(this.#socket, PACKET_BYTES);
    if (packet === undefined) return { kind: "gone" };
    const { kind, step, result } = decode(packet);
    if (kind === FAILED) return { kind: "failed", step, errno: -result };
    if (kind === WAIT) return { kind: "waits", step, descriptor: packet.descriptors[0] };
    throw new ContainerError({ message: `init said ${kind} after start`, code: "EPROTO" });
  }

  /** Ends the host's turn. */
  go(step: number): void {
    sendGo(this.#socket, step, []);
  }
}
