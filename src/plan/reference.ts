import { SOURCES, type Source } from "./source.ts";
import { HOST_STEPS, INIT_STEPS, isStepName, type StepName } from "./step.ts";

/** What a manual page, a kernel version and the flaws of the past say about a kind of step. */
export interface Background extends Source {
  why: string;
  /** Such as "CVE-2024-21626": flaws of container runtimes that the step prevents. */
  flaws: string[];
  /** What takes its effect back. */
  undo?: string;
}

export function backgroundOf(step: StepName): Background {
  const rows: { [step: string]: { why: string; undo?: string } } = { ...INIT_STEPS, ...HOST_STEPS };
  const { why = "", undo } = rows[step] ?? {};
  return {
    ...SOURCES[step],
    why,
    flaws: why.match(/CVE-\d+-\d+/g) ?? [],
    ...(undo === undefined ? {} : { undo }),
  };
}

/** Every kind of step there is, as the page src/plan/STEPS.md. */
export function reference(): string {
  const table = (steps: object) => [
    "| step | why | read | Linux | taken back |",
    "| --- | --- | --- | --- | --- |",
    ...Object.keys(steps)
      .filter(isStepName)
      .map((step) => {
        const { why, read, since = "", otherwise, undo = "" } = backgroundOf(step);
        const kernel = otherwise === undefined ? since : `${since}; before, ${otherwise}`;
        return `| \`${step}\` | ${why} | ${read} | ${kernel} | ${undo} |`;
      }),
  ];
  return [
    "# The steps",
    "",
    "Every kind of step that a plan can have, from `step.ts` and `source.ts`. `npm run generate` writes this page.",
    "",
    "## On the host",
    "",
    ...table(HOST_STEPS),
    "",
    "## In init",
    "",
    ...table(INIT_STEPS),
    "",
  ].join("\n");
}
