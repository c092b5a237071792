import { ContainerError } from "../error.ts";

/** Signals by name: signal(7), for x86-64 and arm64, where the numbers agree. */
export const SIGNALS = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGILL: 4,
  SIGTRAP: 5,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGSEGV: 11,
  SIGUSR2: 12,
  SIGPIPE: 13,
  SIGALRM: 14,
  SIGTERM: 15,
  SIGSTKFLT: 16,
  SIGCHLD: 17,
  SIGCONT: 18,
  SIGSTOP: 19,
  SIGTSTP: 20,
  SIGTTIN: 21,
  SIGTTOU: 22,
  SIGURG: 23,
  SIGXCPU: 24,
  SIGXFSZ: 25,
  SIGVTALRM: 26,
  SIGPROF: 27,
  SIGWINCH: 28,
  SIGIO: 29,
  SIGPWR: 30,
  SIGSYS: 31,
} as const;

/** Other names of the same signals. */
const ALIASES = { SIGIOT: 6, SIGCLD: 17, SIGPOLL: 29, SIGUNUSED: 31 } as const;

/** C libraries keep 32 and 33 for their threads, so the real-time signals that programs see begin here. */
export const SIGRTMIN = 34;
export const SIGRTMAX = 64;

const NUMBERS: ReadonlyMap<string, number> = new Map(Object.entries({ ...SIGNALS, ...ALIASES, SIGRTMIN, SIGRTMAX }));

/**
 * The number of a signal: "TERM", "SIGTERM", "15", "RTMIN+3" and "SIGRTMAX-1" in either case, and "0", which only
 * asks whether the process is there. Throws ContainerError for anything else.
 */
export function parseSignal(text: string): number {
  const number = /^[0-9]{1,2}$/.test(text) ? Number(text) : named(text.toUpperCase().replace(/^(?!SIG)/, "SIG"));
  if (number === undefined || number > SIGRTMAX)
    throw new ContainerError({
      message: `unknown signal ${JSON.stringify(text)}`,
    });
  return number;
}

/** "SIGTERM" for 15, "SIGRTMIN+3" for 37; the number itself where it has no name. */
export function signalName(number: number): string {
  if (number === SIGRTMIN || number === SIGRTMAX) return number === SIGRTMIN ? "SIGRTMIN" : "SIGRTMAX";
  if (number > SIGRTMIN && number < SIGRTMAX) return `SIGRTMIN+${number - SIGRTMIN}`;
  return Object.entries(SIGNALS).find(([, value]) => value === number)?.[0] ?? String(number);
}

function named(name: string): number | undefined {
  const realtime = /^SIGRT(MIN\+|MAX-)([0-9]{1,2})$/.exec(name);
  if (!realtime) return NUMBERS.get(name);
  const number = realtime[1] === "MIN+" ? SIGRTMIN + Number(realtime[2]) : SIGRTMAX - Number(realtime[2]);
  return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
}
