import { ContainerError } from "../error.ts";
import type { Signals } from "../execute/signals.ts";
import { close } from "../kernel/file.ts";
import { type Ending, POLLHUP, POLLIN, POLLOUT, reap, signal, wait } from "../kernel/process.ts";
import { receive } from "../kernel/socket.ts";
import { tryCall } from "../kernel/syscall.ts";
import { isTerminal, makeRaw, resizeTerminal, terminalSize } from "../kernel/terminal.ts";
import type { Process } from "../spec/spec.ts";
import type { Running } from "./container.ts";
import type { Notify } from "./notify.ts";

const { pid } = process;

const SIGWINCH = 28;
const CHUNK_BYTES = 32 * 1024;

/** Takes the master of the container's terminal from the socket that init sends it on. */
export function takeTerminal(socket: number): number {
  const packet = receive(socket, 64);
  close(socket);
  const master = packet?.descriptors[0];
  if (master === undefined) throw new ContainerError({ message: "init did not send its terminal", code: "EPROTO" });
  return master;
}

/**
 * Stays with a child of ours until it ends: signals are forwarded, and with a terminal its input and output copied.
 * @returns how it ended
 */
export function attend({ pidfd }: Running, signals: Signals, master?: number, notify?: Notify): Ending {
  // those that came while it was made
  forward(signals, pidfd, master);
  if (master === undefined) return awaitEnding(pidfd, signals, notify);
  const restore = isTerminal(0) ? makeRaw(0) : () => undefined;
  try {
    return copyTerminal(pidfd, signals, master, notify);
  } finally {
    restore();
  }
}

function awaitEnding(pidfd: number, signals: Signals, notify: Notify | undefined): Ending {
  for (;;) {
    const [ended = 0, , said = 0] = wait([pidfd, signals.descriptor, notify?.descriptor ?? -1]);
    // our own end is the container's, so it is us whom the manager is to watch
    if (said !== 0) notify?.take(pid);
    forward(signals, pidfd, undefined);
    const ending = ended === 0 ? undefined : reap(pidfd);
    if (ending !== undefined) return ending;
  }
}

function copyTerminal(pidfd: number, signals: Signals, master: number, notify: Notify | undefined): Ending {
  const buffer = Buffer.alloc(CHUNK_BYTES);
  let input = true;
  fitTerminal(master);
  for (;;) {
    const [ended = 0, , output = 0, said = 0, typed = 0] = wait([
      ...[pidfd, signals.descriptor, master, notify?.descriptor ?? -1],
      ...(input ? [0] : []),
    ]);
    forward(signals, pidfd, master);
    if (said !== 0) notify?.take(pid);
    if (typed !== 0) {
      const length = tryCall("read", 0, buffer, buffer.length);
      if (length > 0) writeAll(master, buffer.subarray(0, length));
      else input = false;
    }
    if ((output & POLLIN) !== 0) {
      const length = tryCall("read", master, buffer, buffer.length);
      if (length > 0) writeAll(1, buffer.subarray(0, length));
    }
    // what it wrote before it ended is still in the terminal
    if (ended !== 0 && (output & POLLIN) === 0) {
      const ending = reap(pidfd);
      if (ending !== undefined) return ending;
    }
    if (ended === 0 && (output & POLLHUP) !== 0 && (output & POLLIN) === 0) return awaitEnding(pidfd, signals, notify);
  }
}

function forward(signals: Signals, pidfd: number, master: number | undefined): void {
  for (const number of signals.take()) {
    if (number === SIGWINCH && master !== undefined) fitTerminal(master);
    else signal(pidfd, number);
  }
}

/** The process with the size of our own terminal, so that its terminal has it before anything runs there. */
export function fitProcess<P extends Process>(process: P): P {
  if (process.terminal !== true || process.consoleSize !== undefined) return process;
  const size = terminalSize(0) ?? terminalSize(1);
  return size === undefined ? process : { ...process, consoleSize: { height: size.rows, width: size.columns } };
}

/** Gives the container's terminal the size of ours. */
function fitTerminal(master: number): void {
  const size = terminalSize(0) ?? terminalSize(1);
  if (size !== undefined) resizeTerminal(master, size);
}

/** Writes all of it, whether the descriptor blocks or not. */
function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    const wrote = tryCall("write", fd, bytes.subarray(done), bytes.length - done);
    if (wrote > 0) done += wrote;
    else if (wrote === -11) wait([fd], -1, [POLLOUT]);
    else if (wrote !== -4) return; // nobody reads any more
  }
}
