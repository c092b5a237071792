import { type Line, printCall, printResult, printTime, sumUp } from "./line.ts";

const SAYS_WIDTH = 64;
const HEAD = ["#", "side", "step", "what it does", "calls", "at", "took", "result"];
/** Columns of numbers are aligned at the right. */
const NUMBERS = new Set(["#", "calls", "at", "took"]);

/** A trace as a table for people, one line a step; verbose adds a line for every system call, and sentences in full. */
export function renderTrace(lines: readonly Line[], { verbose = false }: { verbose?: boolean } = {}): string {
  const rows = lines.map((line) => [
    String(line.index),
    line.undo === true ? "undo" : line.side,
    line.step,
    verbose ? line.says : cut(line.says, SAYS_WIDTH),
    line.calls.length === 0 ? "" : String(line.calls.length),
    line.startedNs === undefined ? "" : printTime(line.startedNs),
    line.durationNs === undefined ? "" : printTime(line.durationNs),
    printOutcome(line),
  ]);
  const [head = "", ...printed] = table(HEAD, rows);
  const end = ["", summary(lines), ""];
  const body = lines.flatMap((line, row) => [
    ...(line.undo === true && row > 0 && lines[row - 1]?.undo !== true ? [""] : []),
    printed[row] ?? "",
    ...(verbose ? line.calls.map((call) => `      ${callLine(call)}`) : []),
  ]);
  return [head, ...body, ...end].join("\n");
}

/** Of the making; of the taking back where there is nothing else. */
function summary(lines: readonly Line[]): string {
  const { reached, steps, calls, durationNs } = sumUp(lines);
  return steps === 0
    ? `${lines.length} steps taken back, ${lines.flatMap((line) => line.calls).length} system calls`
    : `${reached} of ${steps} steps, ${calls} system calls, ${printTime(durationNs)}`;
}

/** "openat2(6, "/dev/pts", 0x7ffc44d3bc0, 24) = -ENOENT   21 µs" */
function callLine(call: Line["calls"][number]): string {
  return call.durationNs === undefined
    ? `${printCall(call)} …`
    : `${printCall(call)} = ${printResult(call)}   ${printTime(call.durationNs)}`;
}

/** A step that is done although every call was refused had nothing to do, such as to hide a file that is not there. */
export function printOutcome({ outcome, error, calls }: Line): string {
  const refused = calls.length > 0 && calls.every((call) => call.error !== undefined);
  if (outcome === "done") return refused ? `ok (${calls.at(-1)?.error})` : "ok";
  if (outcome === "failed") return error ?? "failed";
  return outcome === "begun" ? "…" : "not reached";
}

function cut(text: string, width: number): string {
  const line = text.replaceAll("\n", " ");
  return line.length <= width ? line : `${line.slice(0, width - 1)}…`;
}

/** Lines, the head first; columns as wide as their widest cell. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  numbers: ReadonlySet<string> = NUMBERS,
): string[] {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, column) =>
        numbers.has(head[column] ?? "") ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd(),
  );
}
