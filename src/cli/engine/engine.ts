import { Command, CommanderError, Help, Option } from "commander";
import { Engine } from "../../engine/engine.ts";
import { sayError } from "../print.ts";
import { inWords, OURS, statusOf } from "./failure.ts";

/** How a command adds itself; its own code is loaded only when it is the one asked for. */
export type Define = (program: Command, context: Context) => void;

export interface Context {
  engine: () => Engine;
  /** A command says here what the program exits with. */
  exit: (status: number) => void;
}

const COMMANDS: { [name: string]: () => Promise<Define> } = {
  run: async () => (await import("./run.ts")).defineRun,
  exec: async () => (await import("./exec.ts")).defineExec,
  ps: async () => (await import("./ps.ts")).definePs,
  logs: async () => (await import("./logs.ts")).defineLogs,
  attach: async () => (await import("./attach.ts")).defineAttach,
  stop: async () => (await import("./stop.ts")).defineStop,
  kill: async () => (await import("./kill.ts")).defineKill,
  wait: async () => (await import("./wait.ts")).defineWait,
  rm: async () => (await import("./rm.ts")).defineRm,
  inspect: async () => (await import("./inspect.ts")).defineInspect,
  load: async () => (await import("./load.ts")).defineLoad,
  images: async () => (await import("./images.ts")).defineImages,
  explain: async () => (await import("./explain.ts")).defineExplain,
  trace: async () => (await import("./trace.ts")).defineTrace,
  why: async () => (await import("./why.ts")).defineWhy,
  verify: async () => (await import("./verify.ts")).defineVerify,
  learn: async () => (await import("./learn.ts")).defineLearn,
  step: async () => (await import("./step.ts")).defineStep,
  completion: async () => (await import("./completion.ts")).defineCompletion,
  __complete: async () => (await import("./completion.ts")).defineComplete,
  cleanup: async () => (await import("./cleanup.ts")).defineCleanup,
};

/** An option that can be given more than once has nothing by default, which goes without saying. */
function optionDescription(option: Option): string {
  return Array.isArray(option.defaultValue) ? option.description : Help.prototype.optionDescription(option);
}

/** Docker's switches can be given with what they are to be: --rm=true. */
function acceptValues(command: Command): void {
  for (const option of command.options.filter(({ required, optional }) => !required && !optional))
    for (const value of [true, false]) {
      const spelled = new Option(`${option.long}=${value}`).hideHelp();
      command.addOption(spelled);
      command.on(`option:${spelled.name()}`, () => {
        command.setOptionValue(option.attributeName(), option.negate ? !value : value);
      });
    }
}

/** Flags before the command that take the next word with them. */
const WITH_VALUE: ReadonlySet<string> = new Set(["--data", "--root"]);

/** Runs one command of the engine. @returns the exit status */
export async function runEngine(words: readonly string[]): Promise<number> {
  let status = 0;
  const program = new Command("caisson")
    .description("Run containers, and see how they are made")
    .version("0.1.0", "-v, --version")
    .option("--data <directory>", "images, layers and containers", "/var/lib/caisson")
    .option("--root <directory>", "state of what runs", "/run/caisson")
    .enablePositionalOptions()
    .configureHelp({ optionDescription })
    .showHelpAfterError("(caisson --help shows the commands)")
    .exitOverride();
  const context: Context = {
    engine: () => {
      const { data, root } = program.opts<{ data: string; root: string }>();
      return new Engine({ data, root });
    },
    exit: (given) => {
      status = given;
    },
  };
  try {
    const wanted = commandOf(words);
    const alone = wanted !== undefined && wanted !== "__complete" && Object.hasOwn(COMMANDS, wanted);
    const loaders = alone ? [COMMANDS[wanted]] : Object.values(COMMANDS);
    for (const load of loaders) (await load?.())?.(program, context);
    if (words.some((word) => /^--[^=]+=(true|false)$/.test(word))) program.commands.forEach(acceptValues);
    await program.parseAsync(words, { from: "user" });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : OURS;
    sayError(inWords(error));
    return statusOf(error);
  }
}

/** The word that names the command: the first that is neither a flag nor a flag's value. */
function commandOf(words: readonly string[]): string | undefined {
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (!word.startsWith("-")) return word;
    if (WITH_VALUE.has(word)) at++;
  }
  return;
}
