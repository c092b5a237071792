import type { ContainerJson } from "../../engine/config.ts";
import type { Attachment } from "../../engine/monitor.ts";
import { ContainerError } from "../../error.ts";
import { catchSignals, POLLOUT, wait } from "../../kernel/process.ts";
import { tryCall } from "../../kernel/syscall.ts";
import { isTerminal, makeRaw, terminalSize } from "../../kernel/terminal.ts";
import { SIGNALS } from "../../linux/signals.ts";
import { say } from "../print.ts";

const EPIPE = -32;
const SIGWINCH = 28;
/** 128 + SIGPIPE: what ends a program of a pipeline that nobody reads any more. */
export const UNREAD = 141;
/** Not forwarded: what no handler can catch, faults of our own, the death of children, and job control of our shell. */
const KEPT = new Set([4, 8, 9, 11, 13, 17, 18, 19, 20, 21, 22]);
/** Ctrl-P Ctrl-Q leaves the container running. */
const DETACH = [16, 17];

/** @throws ContainerError where our terminal is to be the container's and our input is none: its end would not come to an end inside */
export function checkInput(terminal: boolean): void {
  if (terminal && !isTerminal(0))
    throw new ContainerError({
      message: "the input device is not a TTY: leave -t out to pass on what is no terminal",
      code: "ERR_USAGE",
    });
}

/**
 * Stays with a container: its output to our streams, our input and signals to it.
 * @returns its exit status, 0 when it was left running, or UNREAD when nobody reads its output here any more
 */
export function attend(
  attachment: Attachment,
  { name, config: { Tty: tty, OpenStdin: input, StdinOnce: once } }: ContainerJson,
): number {
  const signals = catchSignals(Object.values(SIGNALS).filter((number) => !KEPT.has(number)));
  const restore = tty && input && isTerminal(0) ? makeRaw(0) : () => undefined;
  if (tty) fit(attachment);
  const keys = new KeyWatch(tty && input);
  let credit = false;
  let open = input;
  try {
    for (;;) {
      const reads = open && credit;
      const [heard = 0, caught = 0, typed = 0] = wait([attachment.socket, signals, ...(reads ? [0] : [])]);
      if (caught !== 0) forward(attachment, signals, tty);
      if (typed !== 0) {
        const bytes = Buffer.alloc(32 * 1024);
        const length = tryCall("read", 0, bytes, bytes.length);
        if (length <= 0) {
          open = false;
          if (once) attachment.endInput();
        } else if (keys.leaves(bytes.subarray(0, length))) {
          return 0;
        } else {
          credit = false;
          attachment.input(bytes.subarray(0, length));
        }
      }
      if (heard === 0) continue;
      const said = attachment.hear();
      if (said.kind === "output") {
        if (writeAll(tty ? 1 : said.stream, said.data)) continue;
        say(`nobody reads here any more what container ${name} writes: it runs on`);
        return UNREAD;
      }
      if (said.kind === "ready") credit = true;
      else return said.kind === "exited" ? said.status : 125;
    }
  } finally {
    restore();
  }
}

class KeyWatch {
  readonly #on: boolean;
  #seen = 0;

  constructor(on: boolean) {
    this.#on = on;
  }

  leaves(bytes: Uint8Array): boolean {
    if (!this.#on) return false;
    for (const byte of bytes) {
      this.#seen = byte === DETACH[this.#seen] ? this.#seen + 1 : byte === DETACH[0] ? 1 : 0;
      if (this.#seen === DETACH.length) return true;
    }
    return false;
  }
}

function forward(attachment: Attachment, signals: number, tty: boolean): void {
  const bytes = new Uint8Array(64);
  const length = tryCall("read", signals, bytes, bytes.length);
  for (const number of bytes.subarray(0, Math.max(length, 0))) {
    if (number === SIGWINCH) tty && fit(attachment);
    else attachment.signal(number);
  }
}

/** @param more another size than ours, which makes a program draw anew when it becomes ours */
function fit(attachment: Attachment, more = 0): void {
  const size = terminalSize(0) ?? terminalSize(1);
  if (size !== undefined) attachment.resize(size.rows + more, size.columns + more);
}

/** Whoever comes later has not seen what is on the container's terminal. To be followed by attend. */
export function redraw(attachment: Attachment): void {
  fit(attachment, 1);
}

/**
 * Whether the stream blocks or not: a pipe of ours may have been made non-blocking by somebody else.
 * @returns whether somebody reads it still
 */
export function writeAll(stream: number, bytes: Uint8Array): boolean {
  for (let done = 0; done < bytes.length; ) {
    const wrote = tryCall("write", stream, bytes.subarray(done), bytes.length - done);
    if (wrote > 0) done += wrote;
    else if (wrote === -11) wait([stream], -1, [POLLOUT]);
    else if (wrote === EPIPE) return false;
    else if (wrote !== -4) return true; // a full disk, a terminal that is gone: the container is not to suffer
  }
  return true;
}
