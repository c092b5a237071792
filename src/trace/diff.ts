import { type Line, printTime, sumUp } from "./line.ts";
import { printOutcome, table } from "./render.ts";

/** A step of one trace beside its counterpart in another. */
export interface Difference {
  /** How it differs: it is in one of them alone, says something else or ended in another way, or took another time. */
  kind: "removed" | "added" | "changed" | "slower" | "faster" | "same";
  before?: Line;
  after?: Line;
  /** In words, for a changed step. */
  changes: string[];
}

/** A time differs when it does by so much, and by this factor: less is the machine's mood. */
const NOTABLE_NS = 50_000;
const NOTABLE_RATIO = 1.5;

/** Compares two traces step by step, in their order. */
export function diff(before: readonly Line[], after: readonly Line[]): Difference[] {
  return align(before.map(keyOf), after.map(keyOf)).map(([one, other]): Difference => {
    const [old, now] = [one === undefined ? undefined : before[one], other === undefined ? undefined : after[other]];
    if (old === undefined || now === undefined)
      return now === undefined
        ? { kind: "removed", ...(old === undefined ? {} : { before: old }), changes: [] }
        : { kind: "added", after: now, changes: [] };
    const changes = changesOf(old, now);
    return { kind: changes.length > 0 ? "changed" : pace(old, now), before: old, after: now, changes };
  });
}

/** What makes a step the same step: its kind, and the part of the definition that asks for it. */
function keyOf({ step, from, undo }: Line): string {
  return `${undo === true ? "undo " : ""}${step} ${from}`;
}

/** The longest common sequence, and between its members what is in one list alone: first of the one, then of the other. */
function align(before: readonly string[], after: readonly string[]): [number | undefined, number | undefined][] {
  const [rows, columns] = [before.length, after.length];
  const longest = Array.from({ length: rows + 1 }, () => new Uint32Array(columns + 1));
  const at = (row: number, column: number) => longest[row]?.[column] ?? 0;
  for (let row = rows - 1; row >= 0; row--)
    for (let column = columns - 1; column >= 0; column--) {
      const length =
        before[row] === after[column]
          ? at(row + 1, column + 1) + 1
          : Math.max(at(row + 1, column), at(row, column + 1));
      longest[row]?.fill(length, column, column + 1);
    }
  const pairs: [number | undefined, number | undefined][] = [];
  for (let row = 0, column = 0; row < rows || column < columns; ) {
    if (row < rows && column < columns && before[row] === after[column]) pairs.push([row++, column++]);
    else if (row < rows && (column === columns || at(row + 1, column) >= at(row, column + 1)))
      pairs.push([row++, undefined]);
    else pairs.push([undefined, column++]);
  }
  return pairs;
}

function changesOf(before: Line, after: Line): string[] {
  const changes: string[] = [];
  const [said, says] = [anonymous(before), anonymous(after)];
  if (said !== says) changes.push(`it ${said}`, `it ${says}`);
  const [was, is] = [printOutcome(before), printOutcome(after)];
  if (was !== is) changes.push(was, is);
  const [made, makes] = [callsOf(before), callsOf(after)];
  if (made !== makes) changes.push(made, makes);
  return changes;
}

/** Every container has its own id in its sentences: no difference. */
function anonymous({ says, container }: Line): string {
  return container === undefined || container === "" ? says : says.replaceAll(container, "ID");
}

/** Names and errors; descriptors, pids and addresses differ from time to time. */
function callsOf({ calls }: Line): string {
  return calls.map(({ name, error }) => (error === undefined ? name : `${name} -${error}`)).join(", ");
}

function pace({ durationNs: before }: Line, { durationNs: after }: Line): "slower" | "faster" | "same" {
  if (before === undefined || after === undefined || Math.abs(after - before) < NOTABLE_NS) return "same";
  if (after >= before * NOTABLE_RATIO) return "slower";
  return before >= after * NOTABLE_RATIO ? "faster" : "same";
}

const MARKS = { removed: "-", added: "+", changed: "~", slower: ">", faster: "<", same: " " };
const HEAD = ["", "#", "#'", "step", "what it does", "before", "after", "difference"];
const SAYS_WIDTH = 60;

/** The differences as a table for people; with `all`, what is the same as well. */
export function renderDiff(
  before: readonly Line[],
  after: readonly Line[],
  { all = false }: { all?: boolean } = {},
): string {
  const differences = diff(before, after);
  const shown = differences.filter(({ kind }) => all || kind !== "same");
  const rows = shown.map(({ kind, before: old, after: now }) => {
    const says = (now ?? old)?.says.replaceAll("\n", " ") ?? "";
    return [
      MARKS[kind],
      old === undefined ? "" : String(old.index),
      now === undefined ? "" : String(now.index),
      (now ?? old)?.step ?? "",
      says.length > SAYS_WIDTH ? `${says.slice(0, SAYS_WIDTH - 1)}…` : says,
      old?.durationNs === undefined ? "" : printTime(old.durationNs),
      now?.durationNs === undefined ? "" : printTime(now.durationNs),
      old?.durationNs === undefined || now?.durationNs === undefined ? "" : signed(now.durationNs - old.durationNs),
    ];
  });
  const [head = "", ...printed] = table(HEAD, rows, new Set(["#", "#'", "before", "after", "difference"]));
  const body = shown.flatMap(({ changes }, row) => [
    printed[row] ?? "",
    ...changes.map((words, at) => `          ${at % 2 === 0 ? "before" : "after "}  ${words}`),
  ]);
  const [was, is] = [sumUp(before), sumUp(after)];
  const count = (kind: Difference["kind"]) => differences.filter((each) => each.kind === kind).length;
  const numbers = `${count("same")} steps the same, ${count("changed")} changed (~), ${count("removed")} only before (-), ${count("added")} only after (+), ${count("slower")} slower (>), ${count("faster")} faster (<)`;
  const total = `${printTime(was.durationNs)} before, ${printTime(is.durationNs)} after (${signed(is.durationNs - was.durationNs)}); ${was.calls} and ${is.calls} system calls`;
  return [...(rows.length === 0 ? [] : [head, ...body, ""]), numbers, total, ""].join("\n");
}

/** The differences for programs: one JSON object a line. */
export function diffJson(before: readonly Line[], after: readonly Line[]): string {
  return diff(before, after)
    .map(({ kind, before: old, after: now, changes }) => {
      const brief = (line: Line | undefined) =>
        line === undefined
          ? undefined
          : { index: line.index, says: line.says, outcome: line.outcome, durationNs: line.durationNs };
      const { step, from, side, undo } = now ?? old ?? {};
      return `${JSON.stringify({ kind, step, side, from, undo, before: brief(old), after: brief(now), changes })}\n`;
    })
    .join("");
}

function signed(ns: number): string {
  return ns < 0 ? `-${printTime(-ns)}` : `+${printTime(ns)}`;
}
