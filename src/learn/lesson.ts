import type { ContainerError } from "../error.ts";
import type { StepName } from "../plan/step.ts";
import type { Specimen, Wanted } from "./specimen.ts";

/** A short lesson on real steps: it makes containers, asks to look at them, and checks what was seen. */
export interface Lesson {
  /** What it is called on the command line. */
  name: string;
  title: string;
  /** The steps that it is about; what is said of them, and what to read, comes from the vocabulary. */
  steps: readonly StepName[];
  /** Which attack those steps stop, in a sentence. */
  attack: string;
  /** What it needs that not every host has, in words for "needs …"; undefined where this host has it. */
  lacks?: () => string | undefined;
  /** The lesson itself, from top to bottom. */
  play: (stage: Stage) => void;
}

/** What a lesson can do. */
export interface Stage {
  /** Says a paragraph; line breaks in it mean nothing. */
  tell(text: string): void;
  /** Makes a container, which lives until the lesson ends. @throws ContainerError */
  make(wanted?: Wanted): Specimen;
  /** Makes a container that the kernel is to refuse; where it does not, that is a check that failed. */
  refused(wanted: Wanted): ContainerError | undefined;
  /** Does something inside, for the learner to look at. */
  act(specimen: Specimen, line: string): void;
  /** Shows the steps of these kinds that a container's plan has, with their reasons. */
  show(specimen: Specimen, ...kinds: StepName[]): void;
  /** Shows the system calls that these steps made, and what the kernel answered. */
  calls(specimen: Specimen, kind: StepName): void;
  /** Asks the learner to look at a container. */
  ask(specimen: Specimen, question: Question): void;
  /** Looks by itself, and says whether it is as the lesson claims. */
  check(claim: string, look: () => Look): void;
}

/** Whether a claim holds, where that was read, and what it says there. */
export interface Look {
  held: boolean;
  seen: string;
}

/** The right answer is nowhere in the lesson: it is read from the kernel when the learner has answered. */
export interface Question {
  asks: string;
  /** A command that shows the answer in the last line of its output; it runs in the container, or on the host. */
  look: { inside: string } | { host: string };
  /** Where the kernel says it, such as "/proc/4711/status". */
  seenIn: string;
  /** What it says there now; undefined where there is nothing yet. @throws Error where it cannot be read */
  truth: () => string | undefined;
  /** For who answered otherwise. */
  help: string;
}

/** What came of one question, or of one look of the lesson's own. */
export interface Check {
  asks: string;
  seenIn: string;
  /** What the learner said; absent where the lesson looked by itself, or no answer came. */
  answer?: string;
  /** What the kernel said; absent where it was not looked for, or could not be. */
  kernel?: string;
  held: boolean;
}
