import { ContainerError } from "../error.ts";
import { catchSignals, wait } from "../kernel/process.ts";
import { tryCall } from "../kernel/syscall.ts";
import { SIGNALS, signalName } from "../linux/signals.ts";

/** Left as they are: what no handler can catch, our own faults, and the death of our own children. */
const KEPT: ReadonlySet<number> = new Set([4, 8, 9, 11, 17, 19]);
/** By which a terminal, a session's end and a supervisor ask us to end. */
const ENDING: ReadonlySet<number> = new Set([SIGNALS.SIGHUP, SIGNALS.SIGINT, SIGNALS.SIGQUIT, SIGNALS.SIGTERM]);

/**
 * The signals that come from now on. Caught before anything is made, they neither end us with a container half made, nor
 * get lost before there is a process to forward them to.
 */
export class Signals {
  /** Readable when there are some. */
  readonly descriptor = catchSignals(Object.values(SIGNALS).filter((number) => !KEPT.has(number)));
  #come: number[] = [];

  /** Those that have come, in their order. */
  take(): number[] {
    this.#read();
    return this.#come.splice(0);
  }

  /**
   * As `wait`, while something is made: a signal that asks us to end ends that, others stay for the process.
   * @throws ContainerError whose code is the signal's name
   */
  wait(descriptors: number[], timeoutMs = -1): number[] {
    for (const deadline = Date.now() + timeoutMs; ; ) {
      const left = timeoutMs < 0 ? -1 : Math.max(deadline - Date.now(), 0);
      const seen = wait([...descriptors, this.descriptor], this.#ending() === undefined ? left : 0);
      this.#read();
      const own = seen.slice(0, -1);
      // what has happened counts before what came after it: a process that runs by now gets the signal
      if (own.some((events) => events !== 0)) return own;
      const ending = this.#ending();
      if (ending !== undefined) {
        const name = signalName(ending);
        throw new ContainerError({ message: `interrupted by ${name}`, code: name });
      }
      if (left === 0) return own;
    }
  }

  #ending(): number | undefined {
    return this.#come.find((number) => ENDING.has(number));
  }

  #read(): void {
    const bytes = new Uint8Array(64);
    for (let length = 64; length === 64; ) {
      length = tryCall("read", this.descriptor, bytes, bytes.length);
      this.#come.push(...bytes.subarray(0, Math.max(length, 0)));
    }
  }
}
