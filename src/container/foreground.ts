import { ContainerError } from "../error.ts";
import type { Signals } from "../execute/signals.ts";
import { close, O } from "../kernel/file.ts";
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
const PIPE_BUF = 4096;
const F_SETFL = 4;
const EINTR = 4;
const EAGAIN = 11;

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

/** Neither side's reader may be slow: who does not read, stops what would fill its pipe, and nothing else. */
function copyTerminal(pidfd: number, signals: Signals, master: number, notify: Notify | undefined): Ending {
  const buffer = Buffer.alloc(CHUNK_BYTES);
  const [shown, typed] = [new Outlet(1), new Outlet(master)];
  let [input, over] = [true, false];
  tryCall("fcntl", master, F_SETFL, O.RDWR | O.NONBLOCK);
  fitTerminal(master);
  for (;;) {
    const listening = !shown.full;
    const asked: [fd: number, events: number][] = [
      [over ? -1 : pidfd, POLLIN],
      [signals.descriptor, POLLIN],
      [shown.full && !typed.full ? -1 : master, (shown.full ? 0 : POLLIN) | (typed.full ? POLLOUT : 0)],
      [notify?.descriptor ?? -1, POLLIN],
      [input && !typed.full ? 0 : -1, POLLIN],
      [shown.full ? 1 : -1, POLLOUT],
    ];
    const [ended = 0, told = 0, inside = 0, said = 0, keys = 0, room = 0] = wait(
      asked.map(([fd]) => fd),
      over && !shown.full ? 0 : -1,
      asked.map(([, events]) => events),
    );
    // nobody waits for a reader longer than for the container itself
    if (over && told !== 0) return reap(pidfd) ?? { status: 0, signal: 0 };
    forward(signals, pidfd, master);
    if (said !== 0) notify?.take(pid);
    if (room !== 0) shown.flush();
    if (typed.full && inside !== 0) typed.flush();
    if (keys !== 0) input = typed.fill(0, buffer);
    if (!shown.full && (inside & POLLIN) !== 0) shown.fill(master, buffer);
    over ||= ended !== 0;
    // what it wrote before it ended is still in the terminal
    if (!listening || shown.full || (inside & POLLIN) !== 0) continue;
    const ending = over && ended === 0 ? reap(pidfd) : undefined;
    if (ending !== undefined) return ending;
    if (!over && (inside & POLLHUP) !== 0) return awaitEnding(pidfd, signals, notify);
  }
}

/** Bytes on their way into a descriptor that may be full. */
class Outlet {
  readonly #fd: number;
  #bytes = new Uint8Array();

  constructor(fd: number) {
    this.#fd = fd;
  }

  get full(): boolean {
    return this.#bytes.length > 0;
  }

  /** Takes what can be read from a descriptor. @returns whether there was something */
  fill(from: number, buffer: Uint8Array): boolean {
    const length = tryCall("read", from, buffer, buffer.length);
    if (length > 0) this.#bytes = buffer.slice(0, length);
    return length > 0;
  }

  /** Writes no more than a pipe that is said to have room surely takes: pipe(7), PIPE_BUF. */
  flush(): void {
    const wrote = tryCall("write", this.#fd, this.#bytes, Math.min(this.#bytes.length, PIPE_BUF));
    if (wrote > 0) this.#bytes = this.#bytes.subarray(wrote);
    else if (wrote !== -EAGAIN && wrote !== -EINTR) this.#bytes = new Uint8Array(); // nobody reads any more
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
