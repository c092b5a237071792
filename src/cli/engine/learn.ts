import { readFileSync } from "node:fs";
import type { Places } from "../../engine/engine.ts";
import { ContainerError } from "../../error.ts";
import { detectHost } from "../../host/host.ts";
import { tryCall } from "../../kernel/syscall.ts";
import { isTerminal } from "../../kernel/terminal.ts";
import { COMMANDS, give, type Learner, type Result } from "../../learn/classroom.ts";
import type { Lesson } from "../../learn/lesson.ts";
import { LESSONS } from "../../learn/lessons.ts";
import { keep, Session } from "../../learn/session.ts";
import { backgroundOf } from "../../plan/reference.ts";
import { print, printJson, printRaw, printTable, sayError } from "../print.ts";
import type { Define } from "./engine.ts";

interface Options {
  all?: boolean;
  answers?: string;
  input: boolean;
  json?: boolean;
  tidy?: string;
}

export const defineLearn: Define = (program, { engine, exit }) => {
  const command = program.command("learn");
  command
    .description("lessons on what a container is: each makes some, asks you to look, and checks what you saw")
    .option("--all", "every lesson, one after the other")
    .option("--answers <file>", "take what would be typed from a file")
    .option("--no-input", "ask nobody: the commands that the lesson proposes are run and give the answers")
    .option("--json", "the outcome as JSON, and nothing else")
    .argument("[lesson]", "name or number; without one, the lessons there are")
    .addHelpText(
      "after",
      `\nWhat can be typed at a question, beside the answer:\n${COMMANDS.map(([word, what]) => `  ${word.padEnd(12)}${what}`).join("\n")}` +
        "\n\nA right answer is read from the kernel when yours has come. Status 0: every answer and check held; 1: some did not.",
    );
  command
    .addOption(command.createOption("--tidy <directory>").hideHelp())
    .action((word: string | undefined, options: Options) => {
      const places = placesOf(engine().places);
      if (options.tidy !== undefined) return keep(options.tidy, places);
      const chosen = choose(word, options.all === true);
      if (chosen === undefined) return list(options.json === true);
      const session = Session.open(places);
      const results: Result[] = [];
      try {
        const learner = learnerOf(options);
        for (const lesson of chosen) results.push(teach(lesson, session, learner));
      } finally {
        session.close();
      }
      if (options.json === true) printJson(options.all === true ? results.map(plain) : results.map(plain)[0], 2);
      if (results.some(({ error }) => error !== undefined)) exit(OURS);
      else if (!results.every(({ held }) => held)) exit(1);
    });
};

/** Without privileges the state of lessons is a user's own, as that of any rootless container. */
function placesOf({ data, root }: Places): Places {
  const { XDG_RUNTIME_DIR: own = "" } = process.env;
  if (root !== "/run/caisson" || detectHost().rootless === undefined) return { data, root };
  if (own !== "") return { data, root: `${own}/caisson` };
  throw new ContainerError({
    message: "cannot learn: XDG_RUNTIME_DIR is not set, where a user's containers are kept",
    code: "ENOENT",
    hint: "set it to a directory of yours, or give one by --root",
  });
}

function choose(word: string | undefined, all: boolean): readonly Lesson[] | undefined {
  if (all && word === undefined) return LESSONS;
  if (word === undefined) return;
  const lesson = LESSONS.find(({ name }, at) => name === word || String(at + 1) === word);
  if (all || lesson === undefined)
    throw new ContainerError({
      message: all ? "cannot learn: give a lesson, or --all" : `there is no lesson ${word}`,
      code: "EINVAL",
      hint: "caisson learn shows the lessons",
    });
  return [lesson];
}

function list(json: boolean): void {
  if (json) {
    printJson(
      LESSONS.map(({ name, title, steps, attack }, at) => ({
        number: at + 1,
        name,
        title,
        steps,
        read: pages(steps),
        attack,
      })),
      2,
    );
    return;
  }
  printTable(
    ["", "LESSON", "ABOUT", "STEPS"],
    LESSONS.map(({ name, title, steps }, at) => [String(at + 1), name, title, steps.join(", ")]),
  );
}

function pages(steps: Lesson["steps"]): string[] {
  return [...new Set(steps.map((step) => backgroundOf(step).read))];
}

function teach(lesson: Lesson, session: Session, learner: Learner): Result {
  const number = LESSONS.indexOf(lesson) + 1;
  const title = `${number}. ${lesson.title}`;
  learner.show(`${title}\n${"=".repeat(title.length)}\n\n`);
  const result = give(lesson, session, learner);
  const { checks, held, lacks, error } = result;
  if (lacks !== undefined) return result;
  if (error !== undefined) sayError(error);
  const flaws = [...new Set(lesson.steps.flatMap((step) => backgroundOf(step).flaws))];
  learner.say(`What it stops: ${lesson.attack}${flaws.length === 0 ? "" : ` (${flaws.join(", ")})`}`);
  learner.say(`Steps: ${lesson.steps.join(", ")}. To read: ${pages(lesson.steps).join(", ")}.`);
  const right = checks.filter((check) => check.held).length;
  learner.say(`${held ? "Passed" : "Not passed"}: ${right} of ${checks.length}.`);
  return result;
}

/** A result as JSON has it. */
function plain({ error, ...result }: Result): object {
  if (error === undefined) return result;
  const { message } = error;
  const { code, step, hint } = error instanceof ContainerError ? error : {};
  return { ...result, error: { message, code, step, hint } };
}

/** Where the answers come from: a person, a file, a pipe, or the lesson's own proposals. */
function learnerOf({ answers, input, json }: Options): Learner {
  const patient = input && answers === undefined && isTerminal(0) && json !== true;
  const lines = answers === undefined ? undefined : readAnswers(answers);
  const hear = !input ? () => "=" : lines === undefined ? readLine : () => lines.shift();
  if (json === true) return { patient, say: () => undefined, show: () => undefined, hear };
  return {
    patient,
    say: (text) => print(`${paragraph(text)}\n`),
    show: printRaw,
    hear: () => {
      printRaw("> ");
      const line = hear();
      if (!patient || line === undefined) print(line ?? "");
      return line;
    },
  };
}

function readAnswers(path: string): string[] {
  try {
    return readFileSync(path, "utf8").replace(/\n$/, "").split("\n");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new ContainerError({ message: `cannot read answers from ${path}: ${code}`, code, path, cause: error });
  }
}

/** One line of our input and no byte more: the next ones may be for a shell. */
function readLine(): string | undefined {
  const bytes: number[] = [];
  const byte = Buffer.alloc(1);
  for (;;) {
    const length = tryCall("read", 0, byte, 1);
    if (length === -4) continue;
    if (length <= 0) return bytes.length === 0 ? undefined : Buffer.from(bytes).toString();
    if (byte[0] === 10) return Buffer.from(bytes).toString();
    bytes.push(byte[0] ?? 0);
  }
}

/** As with any command of the engine's that fails. */
const OURS = 125;
const COLUMNS = 80;

/** Sentences in lines of a readable width. */
function paragraph(text: string): string {
  const lines: string[] = [];
  for (const word of text.trim().split(/\s+/)) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > COLUMNS) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines.join("\n");
}
