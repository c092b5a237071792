import { ContainerError } from "../error.ts";
import { detectHost } from "../host/host.ts";
import { backgroundOf } from "../plan/reference.ts";
import { isInit, type StepName, says } from "../plan/step.ts";
import { printCall, printResult, tell } from "../trace/line.ts";
import type { Check, Lesson, Look, Question, Stage } from "./lesson.ts";
import type { Session } from "./session.ts";
import { runOnHost, Specimen, type Wanted } from "./specimen.ts";

/** Whoever takes the lesson: a person at a terminal, a file of answers, or nobody. */
export interface Learner {
  /** Whether there is a person who may try again. */
  patient: boolean;
  /** Takes a paragraph, to be broken into lines. */
  say(text: string): void;
  /** Takes what is to stay as it is: lines, or a command's output as it comes. */
  show(text: string): void;
  /** The next line; undefined when there is none any more. */
  hear(): string | undefined;
}

/** What came of a lesson. */
export interface Result {
  lesson: string;
  title: string;
  held: boolean;
  checks: Check[];
  /** Why it was not given. */
  lacks?: string;
  /** Why it came to no end. */
  error?: Error;
}

export const COMMANDS = [
  ["! COMMAND", "runs a command in the container"],
  ["$ COMMAND", "runs one on the host; $PID is the container's first process there"],
  ["=! COMMAND", "the same, and the last line that it prints is the answer; =$ COMMAND on the host"],
  ["=", "runs the command that the question proposes, and answers with what it prints"],
  ["shell", "a shell in the container"],
  ["plan", "the steps by which it was made"],
  ["?", "help with the question"],
  ["skip", "goes on without an answer: the lesson is then not passed"],
  ["quit", "ends the lesson"],
] as const;

/** Of one kind of step, how many are shown. */
const SHOWN = 4;

class Quit extends Error {}

/** Gives a lesson; it ends where a container cannot be made, or has gone. */
export function give(lesson: Lesson, session: Session, learner: Learner, alter?: Alter): Result {
  const facts = { lesson: lesson.name, title: lesson.title };
  const lacks = lesson.lacks?.();
  if (lacks !== undefined) {
    learner.say(`This lesson needs ${lacks}: it cannot be given here.`);
    return { ...facts, held: true, checks: [], lacks };
  }
  const classroom = new Classroom(session, learner, alter);
  const { checks } = classroom;
  try {
    lesson.play(classroom);
    return { ...facts, held: checks.every(({ held }) => held), checks };
  } catch (error) {
    if (error instanceof Quit) return { ...facts, held: false, checks };
    // what it needs cannot be made, or has gone
    if (error instanceof Error && "code" in error) return { ...facts, held: false, checks, error };
    throw error;
  }
}

/** What a test does to a lesson's containers to see that it notices. */
export type Alter = (wanted: Wanted) => Wanted;

class Classroom implements Stage {
  readonly checks: Check[] = [];
  readonly #session: Session;
  readonly #learner: Learner;
  readonly #alter: Alter;

  constructor(session: Session, learner: Learner, alter: Alter = (wanted) => wanted) {
    this.#session = session;
    this.#learner = learner;
    this.#alter = alter;
  }

  tell(text: string): void {
    this.#learner.say(text);
  }

  make(wanted: Wanted = {}): Specimen {
    return Specimen.make(this.#session, this.#session.nextId(), this.#alter(wanted));
  }

  refused(wanted: Wanted): ContainerError | undefined {
    try {
      const { pid } = this.make(wanted);
      this.check("the kernel refuses to make this container", () => ({ held: false, seen: `process ${pid} runs` }));
    } catch (error) {
      if (error instanceof ContainerError && error.syscall !== undefined) return error;
      if (error instanceof ContainerError && error.errno !== undefined) return error;
      throw error;
    }
    return;
  }

  act(specimen: Specimen, line: string): void {
    this.#try(() => specimen.run(line));
  }

  show({ plan }: Specimen, ...kinds: StepName[]): void {
    this.#lines(
      kinds.flatMap((kind) => {
        const { why, read } = backgroundOf(kind);
        const lines = plan.flatMap((step, index) =>
          step.name === kind ? [`${String(index).padStart(5)}  ${isInit(step) ? "init" : "host"}  ${says(step)}`] : [],
        );
        const more = lines.length - SHOWN;
        if (more > 1) lines.splice(SHOWN, more, `             and ${more} more of this kind`);
        return lines.length === 0 ? [] : [...lines, `             ${why}`, `             ${kind}, ${read}`];
      }),
    );
  }

  calls(specimen: Specimen, kind: StepName): void {
    const lines = tell(specimen.trace(), { machine: detectHost().machine });
    const calls = lines.filter(({ step, undo }) => step === kind && undo !== true).flatMap((line) => line.calls);
    this.#lines(calls.map((call) => `             ${printCall(call)} = ${printResult(call)}`));
  }

  check(claim: string, look: () => Look): void {
    const { held, seen } = attempt(look) ?? { held: false, seen: "what there was to look at has gone" };
    this.checks.push({ asks: claim, seenIn: seen, held });
    this.#learner.say(`${held ? "Seen" : "NOT SO"}: ${claim} (${seen}).`);
  }

  ask(specimen: Specimen, question: Question): void {
    const { asks, look, seenIn, help } = question;
    const [mark, command] = "inside" in look ? ["!", look.inside] : ["$", look.host];
    this.#learner.say(`Question: ${asks}`);
    this.#lines([`    try  ${mark} ${command}`]);
    for (;;) {
      const line = this.#learner.hear();
      if (line === undefined || line === "skip") {
        this.#record(question, undefined, undefined, false);
        this.#learner.say(line === undefined ? "No answer." : "Skipped: the lesson is not passed.");
        return;
      }
      const answer = this.#answer(line, specimen, question, `${mark} ${command}`);
      if (answer === undefined) continue;
      const kernel = attempt(question.truth);
      const held = kernel !== undefined && same(answer, kernel);
      if (held) this.#learner.say(`Right: ${seenIn} says ${kernel}.`);
      else if (kernel === undefined) this.#learner.say(`There is nothing to be seen in ${seenIn} yet. ${help}`);
      else this.#learner.say(`That is not what the kernel says in ${seenIn}. ${help}`);
      if (!held && this.#learner.patient) continue;
      this.#record(question, answer, kernel, held);
      return;
    }
  }

  #lines(lines: readonly string[]): void {
    this.#learner.show(`${lines.join("\n")}\n\n`);
  }

  #record({ asks, seenIn }: Question, answer: string | undefined, kernel: string | undefined, held: boolean): void {
    this.checks.push({
      asks,
      seenIn,
      ...(answer === undefined ? {} : { answer }),
      ...(kernel === undefined ? {} : { kernel }),
      held,
    });
  }

  /** What a line answers; undefined where it is something else. */
  #answer(line: string, specimen: Specimen, { help }: Question, proposed: string): string | undefined {
    const text = line.trim();
    const [, answers, mark, command] = /^(=?)([!$])\s*(.*)$/.exec(text === "=" ? `=${proposed}` : text) ?? [];
    if (mark !== undefined && command !== undefined) {
      const output = this.#run(specimen, mark, command);
      return answers === "" ? undefined : (output.trimEnd().split("\n").at(-1) ?? "");
    }
    switch (text) {
      case "":
        return;
      case "?":
        this.#learner.say(help);
        this.#lines(COMMANDS.map(([word, what]) => `    ${word.padEnd(12)}${what}`));
        return;
      case "plan":
        this.#lines(specimen.plan.map((step, index) => `${String(index).padStart(5)}  ${says(step)}`));
        return;
      case "shell":
        if (this.#learner.patient) this.#try(() => specimen.shell());
        else this.#learner.say("A shell needs a terminal.");
        return;
      case "quit":
        throw new Quit();
    }
    return text.startsWith("#") ? undefined : text;
  }

  #run(specimen: Specimen, mark: string, command: string): string {
    const hear = (text: string) => this.#learner.show(text);
    const run = () => (mark === "!" ? specimen.run(command, hear) : runOnHost(command, specimen, hear));
    return this.#try(run)?.output ?? "";
  }

  /** The learner may have killed what a command was to run in. */
  #try<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof ContainerError)) throw error;
      this.#learner.say(`It could not be run: ${error.message}.`);
      return;
    }
  }
}

/** Where the thing to look at has gone (the learner may have killed it), nothing can be right. */
function attempt<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (error instanceof Error && "code" in error) return;
    throw error;
  }
}

/** Numbers are the same with leading zeros and as 0x…; words in either case. */
function same(answer: string, kernel: string): boolean {
  return plain(answer) === plain(kernel);
}

function plain(text: string): string {
  return text
    .trim()
    .toLowerCase()
    .replace(/\s+/g, " ")
    .replace(/^0x(?=[0-9a-f])/, "")
    .replace(/^0+(?=[0-9a-f])/, "");
}
