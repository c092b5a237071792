import { HOST_STEPS, INIT_STEPS, isInit, type Plan, type Step } from "./step.ts";

/** One step in words, without a subject: "names the machine web". */
export function says(step: Step): string {
  const definition: { says: (args: never) => string } = isInit(step) ? INIT_STEPS[step.name] : HOST_STEPS[step.name];
  return definition.says(step.args as never); // name and args come from the same row of the vocabulary
}

/** Why there is such a step. */
export function whyOf(step: Step): string {
  return isInit(step) ? INIT_STEPS[step.name].why : HOST_STEPS[step.name].why;
}

/** One line of an explanation. */
export interface Explanation {
  index: number;
  side: "host" | "init";
  step: string;
  says: string;
  why: string;
  /** JSON pointer into the definition. */
  from: string;
}

/** A plan in sentences, one a step, in order; nothing runs. */
export function explain(plan: Plan): Explanation[] {
  return plan.map((step, index) => ({
    index,
    side: isInit(step) ? "init" : "host",
    step: step.name,
    says: says(step),
    why: whyOf(step),
    from: step.from,
  }));
}

/** Sentences that are longer push their pointer to the right. */
const TEXT_WIDTH = 72;

/**
 * An explanation for people: one line a step, under whose turn it is, with the place in the definition it comes from
 * (the spec's without "/spec", as config.json has it). Verbose adds why there are such steps.
 */
export function renderExplanation(
  explanations: readonly Explanation[],
  { verbose = false }: { verbose?: boolean } = {},
): string {
  const width = Math.min(TEXT_WIDTH, Math.max(0, ...explanations.map((line) => line.says.length)));
  return explanations
    .flatMap(({ index, side, step, says: text, why, from }, at) => [
      ...(explanations[at - 1]?.side === side
        ? []
        : [...(at === 0 ? [] : [""]), side === "host" ? "the host" : "init"]),
      `${String(index).padStart(5)}  ${text.replaceAll("\n", " ").padEnd(width)}  ${pointerOf(from)}`.trimEnd(),
      ...(verbose && explanations[at - 1]?.step !== step ? [`         ${why}`] : []),
    ])
    .map((line) => `${line}\n`)
    .join("");
}

function pointerOf(from: string): string {
  return from === "/spec" ? "/" : from.replace(/^\/spec(?=\/)/, "");
}
