import type { Note } from "./note.ts";
import { PHASES, type Phase, phasesOf } from "./phase.ts";
import { backgroundOf } from "./reference.ts";
import { isInit, type Plan, type StepName, says as sentence } from "./step.ts";

/** One line of an explanation. */
export interface Explanation {
  index: number;
  side: "host" | "init";
  phase: Phase;
  step: StepName;
  says: string;
  why: string;
  /** JSON pointer into the definition. */
  from: string;
}

/** A plan in sentences, one a step, in order; nothing runs. */
export function explain(plan: Plan): Explanation[] {
  const phases = phasesOf(plan.map(({ name, from }) => ({ step: name, from })));
  return plan.map((step, index) => ({
    index,
    side: isInit(step) ? "init" : "host",
    phase: phases[index] ?? "prepare",
    step: step.name,
    says: sentence(step),
    why: backgroundOf(step.name).why,
    from: step.from,
  }));
}

/** Sentences that are longer push their pointer to the right. */
const TEXT_WIDTH = 72;

/**
 * An explanation for people: one line a step, under whose turn it is, with the place in the definition it comes from
 * (the spec's without "/spec", as config.json has it). With phases, under the part of the work it belongs to. Verbose
 * adds why there are such steps, where to read about them, and what they need.
 */
export function renderExplanation(
  explanations: readonly Explanation[],
  { verbose = false, phases = false }: { verbose?: boolean; phases?: boolean } = {},
): string {
  const width = Math.min(TEXT_WIDTH, Math.max(0, ...explanations.map((line) => shortened(line.says).length)));
  return explanations
    .flatMap(({ index, side, phase, step, says, from }, at) => {
      const before = explanations[at - 1];
      const text = shortened(says);
      const turns = phases && before?.phase !== phase;
      return [
        ...(turns ? [...(at === 0 ? [] : [""]), PHASES[phase].toUpperCase()] : []),
        ...(before?.side === side && !turns
          ? []
          : [...(at === 0 || turns ? [] : [""]), side === "host" ? "the host" : "init"]),
        `${String(index).padStart(5)}  ${text.padEnd(width)}  ${pointerOf(from)}`.trimEnd(),
        ...(verbose && before?.step !== step ? background(step).map((line) => `         ${line}`) : []),
      ];
    })
    .map((line) => `${line}\n`)
    .join("");
}

/** What this host makes of it that another would do otherwise, below the steps. */
export function renderNotes(notes: readonly Note[]): string {
  if (notes.length === 0) return "";
  return [
    "",
    "ON THIS HOST",
    ...notes.flatMap(({ kind, says, because, from, steps }) => [
      `${kind.padStart(10)}  ${shortened(says)}  ${pointerOf(from)}`,
      `            because ${shortened(because)}${steps.length === 0 ? "" : ` (${ranges(steps)})`}`,
    ]),
  ]
    .map((line) => `${line}\n`)
    .join("");
}

/** The same for the page of Markdown. */
export function markdownNotes(notes: readonly Note[]): string {
  if (notes.length === 0) return "";
  return [
    "",
    "## On this host",
    "",
    ...notes.map(
      ({ kind, says, because, from, steps }) =>
        `- **${kind}**: ${escaped(shortened(says))}, because ${escaped(shortened(because))} \`${pointerOf(from)}\`${steps.length === 0 ? "" : ` (${ranges(steps)})`}`,
    ),
  ]
    .map((line) => `${line}\n`)
    .join("");
}

/** "steps 3 to 7, 9" */
function ranges(steps: readonly number[]): string {
  const parts: [number, number][] = [];
  for (const step of steps) {
    const last = parts.at(-1);
    if (last !== undefined && last[1] === step - 1) last[1] = step;
    else parts.push([step, step]);
  }
  const words = parts.map(([first, last]) => (first === last ? `${first}` : `${first} to ${last}`));
  return `${steps.length === 1 ? "step" : "steps"} ${words.join(", ")}`;
}

/** The same as a page of Markdown. */
export function markdownExplanation(explanations: readonly Explanation[], { verbose = false } = {}): string {
  return explanations
    .flatMap(({ index, side, phase, step, says, from }, at) => {
      const before = explanations[at - 1];
      const text = shortened(says);
      return [
        ...(before?.phase === phase ? [] : [...(at === 0 ? [] : [""]), `## ${PHASES[phase]}`, ""]),
        `${index}. ${side === "host" ? "The host" : "Init"} ${escaped(text)} \`${pointerOf(from)}\``,
        ...(verbose && before?.step !== step ? background(step).map((line) => `   ${escaped(line)}  `) : []),
      ];
    })
    .map((line) => `${line}\n`)
    .join("");
}

function background(step: StepName): string[] {
  const { why, read, since, otherwise, undo } = backgroundOf(step);
  const kernel =
    since === undefined ? "" : `; Linux ${since}${otherwise === undefined ? "" : `, before which ${otherwise}`}`;
  return [why, `see ${read}${kernel}${undo === undefined ? "" : `; taken back: ${undo}`}`];
}

/** On one line, and ids as people know them: by their first digits. */
export function shortened(text: string): string {
  return text.replaceAll("\n", " ").replace(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1…");
}

/** What Markdown would take for its own. */
function escaped(text: string): string {
  return text.replace(/[\\`*_<>[\]|#]/g, "\\$&");
}

/** A place in the definition as people know it: the spec's as config.json has it. */
export function pointerOf(from: string): string {
  return from === "/spec" ? "/" : from.replace(/^\/spec(?=\/)/, "");
}
