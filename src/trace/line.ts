import { constants } from "node:os";
import { backgroundOf } from "../plan/reference.ts";
import { says, undoOf } from "../plan/step.ts";
import type { Outcome, TracedStep } from "./join.ts";
import { planMemory } from "./memory.ts";
import type { Report } from "./report.ts";
import { type Machine, printArguments, syscallName } from "./syscalls.ts";

/** One system call, for people and programs. Times in ns since the trace's first call. */
export interface Call {
  name: string;
  nr: number;
  /** As the kernel got them, in hexadecimal. */
  args: string[];
  /** As many as the call takes, in words: a pointer is what it points at, where that is known. */
  shown: string[];
  /** >= 0 or -errno; absent while the call has not returned, as execve never does. */
  result?: number;
  /** The name of that errno. */
  error?: string;
  startedNs: number;
  durationNs?: number;
}

/** One step of a trace and what the kernel answered: what all of its forms are made of, and one line of its JSON. */
export interface Line {
  /** Id of the container. */
  container?: string;
  /** "create", or "exec-N" for the Nth process that was added to it. */
  trace?: string;
  index: number;
  side: "host" | "init";
  step: string;
  /** One sentence without its subject. */
  says: string;
  /** Why there is such a step. */
  why: string;
  /** JSON pointer into the definition. */
  from: string;
  /** Whether this is how the step was taken back; such lines follow all others. */
  undo?: true;
  outcome: Outcome;
  /** The errno's name that a failed step failed with, or a refusal that was no failure. */
  error?: string;
  /** RFC 3339 with ns, where the trace knows the time of day. */
  at?: string;
  startedNs?: number;
  durationNs?: number;
  calls: Call[];
}

/** What of a recording one command did: start what follows the wait for it, delete what takes back. */
export type Part = "start" | "delete";

const PARTS: { readonly [P in Part]: (lines: readonly Line[]) => readonly Line[] } = {
  start: (lines) => {
    const waits = lines.findIndex(({ step }) => step === "awaitStart");
    return waits < 0 ? [] : lines.slice(waits + 1).filter(({ undo }) => undo !== true);
  },
  delete: (lines) => lines.filter(({ undo }) => undo === true),
};

/** The lines of a part; all of them without one. */
export function partOf(lines: readonly Line[], part?: Part): readonly Line[] {
  return part === undefined ? lines : PARTS[part](lines);
}

export interface Telling {
  container?: string;
  trace?: string;
  machine: Machine;
  /** CLOCK_REALTIME less CLOCK_MONOTONIC when the trace was made. */
  epochNs?: bigint | undefined;
  /** Shows the values of environment variables: they may be secrets, and traces are shown around. */
  secrets?: boolean;
}

/** A trace, told: names for numbers, words for pointers. */
export function tell(traced: readonly TracedStep[], telling: Telling): Line[] {
  const { container, trace, machine, epochNs, secrets = false } = telling;
  const originNs = traced.find(({ startedNs }) => startedNs !== undefined)?.startedNs ?? 0n;
  const pointed = planMemory(traced, secrets);
  return traced.map(({ index, step, side, undo, calls, outcome, result, startedNs, durationNs }): Line => {
    const error = result !== undefined && result < 0 && outcome === "failed" ? errnoOf(result) : undefined;
    return {
      ...(container === undefined ? {} : { container }),
      ...(trace === undefined ? {} : { trace }),
      index,
      side,
      step: step.name,
      says: undo ? `${undoOf(step) ?? "takes it back"} (${says(step)})` : says(step),
      why: backgroundOf(step.name).why,
      from: step.from,
      ...(undo ? { undo } : {}),
      outcome,
      ...(error === undefined ? {} : { error }),
      ...(epochNs === undefined || startedNs === undefined ? {} : { at: printInstant(startedNs + epochNs) }),
      ...(startedNs === undefined ? {} : { startedNs: Number(startedNs - originNs) }),
      ...(durationNs === undefined ? {} : { durationNs: Number(durationNs) }),
      calls: calls.map((call) =>
        tellCall(call, originNs, machine, side === "init" ? (address) => pointed(address, index) : () => undefined),
      ),
    };
  });
}

function tellCall(
  { nr, args, texts, result, startedNs, endedNs }: Report,
  originNs: bigint,
  machine: Machine,
  pointed: (address: bigint) => string | undefined,
): Call {
  const name = syscallName(nr, machine);
  const text = (at: number, address: bigint) => {
    const own = texts?.[at];
    return own === undefined ? pointed(address) : JSON.stringify(own);
  };
  return {
    name,
    nr,
    args: args.map((arg) => `0x${arg.toString(16)}`),
    shown: printArguments(name, args, text),
    ...(result === undefined ? {} : { result }),
    ...(result === undefined || result >= 0 ? {} : { error: errnoOf(result) }),
    startedNs: Number(startedNs - originNs),
    ...(result === undefined ? {} : { durationNs: Number(endedNs - startedNs) }),
  };
}

/** A trace for programs: one JSON object a line and step. */
export function traceJson(lines: readonly Line[]): string {
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

/** Reads what traceJson printed. @returns undefined for text that is no trace */
export function parseLines(text: string): Line[] | undefined {
  const lines: Line[] = [];
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      return;
    }
    if (!isLine(value)) return;
    lines.push(value);
  }
  return lines.length === 0 ? undefined : lines;
}

function isLine(value: unknown): value is Line {
  const has = (object: unknown, fields: { [name: string]: string }) =>
    typeof object === "object" &&
    object !== null &&
    Object.entries(fields).every(([name, type]) => {
      const field: unknown = Reflect.get(object, name.replace("?", ""));
      return typeof field === type || (name.endsWith("?") && field === undefined);
    });
  const texts = { step: "string", side: "string", says: "string", why: "string", from: "string", outcome: "string" };
  if (!has(value, { ...texts, index: "number", "startedNs?": "number", "durationNs?": "number", "at?": "string" }))
    return false;
  const { calls } = value as { calls?: unknown };
  const call = {
    name: "string",
    startedNs: "number",
    "durationNs?": "number",
    "result?": "number",
    "error?": "string",
  };
  const isList = (list: unknown) => Array.isArray(list) && list.every((item) => typeof item === "string");
  return (
    Array.isArray(calls) &&
    calls.every((each) => has(each, call) && isList(Reflect.get(each, "shown")) && isList(Reflect.get(each, "args")))
  );
}

/** "openat2(6, "/dev/pts", 0x7ffc44d3bc0, 24)" */
export function printCall({ name, shown }: Call): string {
  return `${name}(${shown.join(", ")})`;
}

/** "7", "-ENOENT"; "…" for a call that has not returned. */
export function printResult({ result, error }: Call): string {
  return error === undefined ? String(result ?? "…") : `-${error}`;
}

/** Steps, calls and time of a trace: of the making, without what was taken back. */
export function sumUp(lines: readonly Line[]): { reached: number; steps: number; calls: number; durationNs: number } {
  const made = lines.filter(({ undo }) => undo !== true);
  const calls = made.flatMap((line) => line.calls);
  return {
    reached: made.filter(({ outcome }) => outcome !== "unreached").length,
    steps: made.length,
    calls: calls.length,
    durationNs: calls.reduce((end, { startedNs, durationNs = 0 }) => Math.max(end, startedNs + durationNs), 0),
  };
}

/** Three digits or so: "8.2 µs", "312 µs", "4.21 ms", "1.20 s". */
export function printTime(ns: number): string {
  const us = ns / 1000;
  if (us === 0) return "0";
  if (Math.abs(us) < 9.95) return `${us.toFixed(1)} µs`;
  if (Math.abs(us) < 999.5) return `${us.toFixed(0)} µs`;
  if (Math.abs(us) < 999_500) return `${(us / 1000).toFixed(Math.abs(us) < 99_500 ? 2 : 0)} ms`;
  return `${(us / 1_000_000).toFixed(2)} s`;
}

/** RFC 3339, with ns. */
function printInstant(ns: bigint): string {
  const seconds = new Date(Number(ns / 1_000_000n)).toISOString().slice(0, -5);
  return `${seconds}.${String(ns % 1_000_000_000n).padStart(9, "0")}Z`;
}

export function errnoOf(result: number): string {
  for (const [name, number] of Object.entries(constants.errno)) if (number === -result) return name;
  return `E${-result}`;
}
