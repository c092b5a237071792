import { arch, constants } from "node:os";
import { says } from "../plan/explain.ts";
import type { TracedStep } from "./join.ts";
import { planMemory } from "./memory.ts";
import type { Report } from "./report.ts";
import { type Machine, printArguments, syscallName } from "./syscalls.ts";

export interface Rendering {
  /** Every system call with its arguments, and sentences in full. */
  verbose?: boolean;
  /** Where the trace was made. */
  machine?: Machine;
}

const SAYS_WIDTH = 64;
const HEAD = ["#", "side", "step", "what it does", "calls", "at", "took", "result"];
/** Columns of numbers are aligned at the right. */
const NUMBERS = new Set(["#", "calls", "at", "took"]);

/** A trace as a table for people, one line a step; verbose adds a line for every system call. */
export function renderTrace(
  traced: readonly TracedStep[],
  { verbose = false, machine = thisMachine() }: Rendering = {},
): string {
  const originNs = startOf(traced);
  const rows = traced.map((each) => [
    String(each.index),
    each.side,
    each.step.name,
    verbose ? says(each.step) : cut(says(each.step), SAYS_WIDTH),
    each.calls.length === 0 ? "" : String(each.calls.length),
    each.startedNs === undefined ? "" : printTime(each.startedNs - originNs),
    each.durationNs === undefined ? "" : printTime(each.durationNs),
    printOutcome(each),
  ]);
  const lines = table(HEAD, rows);
  const end = ["", summary(traced, originNs), ""];
  if (!verbose) return [...lines, ...end].join("\n");
  const pointed = planMemory(traced);
  const detailed = traced.flatMap(({ calls, side }, row) => [
    lines[row + 1] ?? "",
    ...calls.map((call) => `      ${printCall(call, machine, side === "init" ? pointed : () => undefined)}`),
  ]);
  return [lines[0], ...detailed, ...end].join("\n");
}

/** A trace for programs: one JSON object a line and step. Times in ns since the first call; arguments in hexadecimal. */
export function traceJson(traced: readonly TracedStep[], { machine = thisMachine() }: Rendering = {}): string {
  const originNs = startOf(traced);
  const since = (ns: bigint | undefined) => (ns === undefined ? undefined : Number(ns - originNs));
  const duration = (ns: bigint | undefined) => (ns === undefined ? undefined : Number(ns));
  const lines = traced.map(({ index, side, step, calls, outcome, result, startedNs, durationNs }) => ({
    index,
    side,
    step: step.name,
    says: says(step),
    from: step.from,
    outcome,
    error: outcome === "failed" && result !== undefined ? errnoOf(result) : undefined,
    startedNs: since(startedNs),
    durationNs: duration(durationNs),
    calls: calls.map(({ nr, args, result, startedNs, endedNs }) => ({
      name: syscallName(nr, machine),
      nr,
      args: args.map((arg) => `0x${arg.toString(16)}`),
      result,
      startedNs: since(startedNs),
      durationNs: result === undefined ? undefined : duration(endedNs - startedNs),
    })),
  }));
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

/** "openat2(6, "/dev/pts", 0x7ffc44d3bc0, 24) = -ENOENT   21 µs" */
function printCall(call: Report, machine: Machine, pointed: (address: bigint) => string | undefined): string {
  const { nr, args, result, startedNs, endedNs } = call;
  const name = syscallName(nr, machine);
  const called = `${name}(${printArguments(name, args, pointed).join(", ")})`;
  if (result === undefined) return `${called} …`;
  return `${called} = ${result < 0 ? `-${errnoOf(result)}` : result}   ${printTime(endedNs - startedNs)}`;
}

/** A step that is done although every call was refused had nothing to do, such as to hide a file that is not there. */
function printOutcome({ outcome, result, calls }: TracedStep): string {
  const refused = calls.length > 0 && calls.every((call) => call.result !== undefined && call.result < 0);
  if (outcome === "done") return refused && result !== undefined ? `ok (${errnoOf(result)})` : "ok";
  if (outcome === "failed") return result === undefined ? "failed" : errnoOf(result);
  return outcome === "begun" ? "…" : "not reached";
}

function summary(traced: readonly TracedStep[], originNs: bigint): string {
  const calls = traced.flatMap((step) => step.calls);
  const endNs = calls.reduce((end, { startedNs, endedNs }) => max(end, max(startedNs, endedNs)), originNs);
  const steps = traced.filter(({ outcome }) => outcome !== "unreached").length;
  return `${steps} of ${traced.length} steps, ${calls.length} system calls, ${printTime(endNs - originNs)}`;
}

function startOf(traced: readonly TracedStep[]): bigint {
  return traced.find(({ startedNs }) => startedNs !== undefined)?.startedNs ?? 0n;
}

const max = (one: bigint, other: bigint) => (one > other ? one : other);

/** Three digits or so: "8.2 µs", "312 µs", "4.21 ms", "1.20 s". */
function printTime(ns: bigint): string {
  const us = Number(ns) / 1000;
  if (us === 0) return "0";
  if (Math.abs(us) < 9.95) return `${us.toFixed(1)} µs`;
  if (Math.abs(us) < 999.5) return `${us.toFixed(0)} µs`;
  if (Math.abs(us) < 999_500) return `${(us / 1000).toFixed(us < 99_500 ? 2 : 0)} ms`;
  return `${(us / 1_000_000).toFixed(2)} s`;
}

function errnoOf(result: number): string {
  for (const [name, number] of Object.entries(constants.errno)) if (number === -result) return name;
  return `E${-result}`;
}

function thisMachine(): Machine {
  return arch() === "arm64" ? "aarch64" : "x86_64";
}

function cut(text: string, width: number): string {
  const line = text.replaceAll("\n", " ");
  return line.length <= width ? line : `${line.slice(0, width - 1)}…`;
}

/** Lines, the head first; columns as wide as their widest cell. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, column) =>
        NUMBERS.has(head[column] ?? "") ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd(),
  );
}
