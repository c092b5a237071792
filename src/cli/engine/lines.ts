import { createInterface, type Interface } from "node:readline";
import type { Signals } from "../../execute/signals.ts";
import { close } from "../../kernel/file.ts";
import { wait } from "../../kernel/process.ts";
import { tryCall } from "../../kernel/syscall.ts";
import { SIGNALS } from "../../linux/signals.ts";
import { printRaw } from "../print.ts";

/** Where commands come from, line by line. */
export interface Lines {
  /** Whether somebody sits there. */
  interactive: boolean;
  /** The next line; undefined at the end, or when whoever types them wants to leave. */
  next: (prompt: string) => Promise<string | undefined>;
  /** Leaves the terminal to somebody else while that works. */
  aside: <T>(work: () => T) => T;
  close: () => void;
}

const ENDINGS: readonly number[] = [SIGNALS.SIGHUP, SIGNALS.SIGINT, SIGNALS.SIGTERM];
const CHUNK_BYTES = 4096;
const EINTR = 4;
/** How often a terminal's lines look whether a signal has come: nobody waits for one elsewhere. */
const WATCH_MS = 100;

/**
 * Lines of a file or a pipe. A signal that asks us to end is the end of them.
 * @param descriptor it is closed with the lines
 */
export function linesOf(descriptor: number, signals: Signals): Lines {
  let text = "";
  let ended = false;
  const read = (): string | undefined => {
    while (!ended && !text.includes("\n")) {
      const [ready = 0, signalled = 0] = wait([descriptor, signals.descriptor]);
      if (signalled !== 0 && isEnding(signals)) return;
      if (ready === 0) continue;
      const bytes = Buffer.alloc(CHUNK_BYTES);
      const length = tryCall("read", descriptor, bytes, bytes.length);
      if (length > 0) text += bytes.toString("utf8", 0, length);
      else if (length !== -EINTR) ended = true;
    }
    if (text === "") return;
    const [line = ""] = text.split("\n", 1);
    text = text.slice(line.length + 1);
    return line;
  };
  return {
    interactive: false,
    // what a script has done is read with what it was told
    next: (prompt) => {
      printRaw(prompt);
      const line = read();
      printRaw(`${line ?? ""}\n`);
      return Promise.resolve(line);
    },
    aside: (work) => work(),
    close: () => close(descriptor),
  };
}

/** Whether one of those that have come asks us to end. */
function isEnding(signals: Signals): boolean {
  return signals.take().some((number) => ENDINGS.includes(number));
}

/** Lines that are typed at our terminal, with editing and a history. Ctrl-C and Ctrl-D end them. */
export function linesOfTerminal(complete: (line: string) => string[], signals: Signals): Lines {
  const { stdin, stdout } = process;
  const reader = createInterface({
    input: stdin,
    output: stdout,
    terminal: true,
    completer: (line: string) => [complete(line), line],
  });
  const queue = new Queue(reader);
  const leave = () => reader.close();
  reader.on("SIGINT", () => {
    printRaw("^C\n");
    leave();
  });
  const watch = setInterval(() => {
    if (isEnding(signals)) leave();
  }, WATCH_MS);
  return {
    interactive: true,
    next: (prompt) => {
      reader.setPrompt(prompt);
      reader.prompt();
      return queue.next();
    },
    aside: (work) => {
      reader.pause();
      stdin.setRawMode(false);
      try {
        return work();
      } finally {
        stdin.setRawMode(true);
        reader.resume();
      }
    },
    close: () => {
      clearInterval(watch);
      queue.close();
      stdin.unref();
    },
  };
}

/** Lines are said when they come, and asked for when they are needed. */
class Queue {
  readonly #lines: string[] = [];
  readonly #reader: Interface;
  #waiting: ((line: string | undefined) => void) | undefined;
  #ended = false;

  constructor(reader: Interface) {
    this.#reader = reader;
    reader.on("line", (line) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting === undefined) this.#lines.push(line);
      else waiting(line);
    });
    reader.on("close", () => {
      this.#ended = true;
      this.#waiting?.(undefined);
    });
  }

  next(): Promise<string | undefined> {
    const line = this.#lines.shift();
    if (line !== undefined || this.#ended) return Promise.resolve(line);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  close(): void {
    this.#reader.close();
  }
}
