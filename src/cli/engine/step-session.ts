import { attend, takeTerminal } from "../../container/foreground.ts";
import { visit } from "../../container/visit.ts";
import type { ContainerJson } from "../../engine/config.ts";
import type { Engine } from "../../engine/engine.ts";
import { findRecording } from "../../engine/recordings.ts";
import { type Standing, Walk } from "../../engine/walk.ts";
import { ContainerError } from "../../error.ts";
import { launchOn } from "../../execute/init.ts";
import type { Signals } from "../../execute/signals.ts";
import { close } from "../../kernel/file.ts";
import { type Explanation, explain, pointerOf, renderExplanation, shortened } from "../../plan/explain.ts";
import { PHASES } from "../../plan/phase.ts";
import { backgroundOf } from "../../plan/reference.ts";
import { isStepName } from "../../plan/step.ts";
import { harmWithout, lastHalt, leftOut } from "../../plan/stepwise.ts";
import { join } from "../../trace/join.ts";
import { tell } from "../../trace/line.ts";
import { renderTrace } from "../../trace/render.ts";
import { AREAS, type Area, type Change, changes, factsOf, isArea } from "../../verify/area.ts";
import { print, printRaw, sayError } from "../print.ts";
import { inWords, statusOf } from "./failure.ts";
import type { Lines } from "./lines.ts";

/** How many steps `list` shows before and after the next one. */
const AROUND = 5;
/** How many changes of one area are told at once; info has them all. */
const TOLD = 6;

interface Command {
  words: string;
  help: string;
  /** @returns false to leave */
  run: (session: Session, words: string[]) => unknown;
}

const COMMANDS: { readonly [name: string]: Command } = {
  list: {
    words: "[all | PHASE | STEP]",
    help: "the plan: around the next step, or all of it, or one phase",
    run: (session, words) => session.list(words[0]),
  },
  next: {
    words: "[COUNT]",
    help: "carry out the next step, or as many",
    run: (session, words) => session.next(words[0]),
  },
  continue: {
    words: "",
    help: "go on to the next breakpoint, or until the container's program has ended",
    run: (session) => session.go(() => false),
  },
  break: {
    words: "[STEP | PHASE]",
    help: "halt before a step, by its number or name, or before a phase; alone: which there are",
    run: (session, words) => session.halt(words[0]),
  },
  clear: {
    words: "[STEP | PHASE]",
    help: "forget a breakpoint, or all",
    run: (session, words) => session.clear(words[0]),
  },
  info: {
    words: "[AREA]",
    help: `what is to be seen: ${Object.keys(AREAS).join(", ")}; alone: all that changed since it stood last`,
    run: (session, words) => session.info(words[0]),
  },
  show: {
    words: "[STEP]",
    help: "why there is such a step, where to read about it, and what it needs",
    run: (session, words) => session.show(words[0]),
  },
  calls: {
    words: "",
    help: "the system calls of the step that was carried out last",
    run: (session) => session.calls(),
  },
  shell: {
    words: "[COMMAND…]",
    help: "a shell inside, as what init is at this moment; or one command there",
    run: (session, words) => session.shell(words.join(" ")),
  },
  skip: {
    words: "STEP",
    help: "begin again without this step, and go on to where it would be; only in a user namespace that can do no harm",
    run: (session, words) => session.skip(words[0]),
  },
  restart: {
    words: "",
    help: "undo everything, and begin again with every step",
    run: (session) => session.restart(),
  },
  help: {
    words: "",
    help: "this list; any beginning of a command will do, and Enter alone is next",
    run: () => {
      const width = Math.max(...Object.entries(COMMANDS).map(([name, { words }]) => `${name} ${words}`.length));
      for (const [name, { words, help }] of Object.entries(COMMANDS))
        print(`  ${`${name} ${words}`.padEnd(width)}  ${help}`);
    },
  },
  quit: {
    words: "",
    help: "undo everything, and leave",
    run: () => false,
  },
};

/** What can be typed to complete a line. */
export function complete(line: string): string[] {
  const [, command] = /^\s*(\S+)\s/.exec(line) ?? [];
  const candidates =
    command === undefined
      ? Object.keys(COMMANDS)
      : { break: PHASES, clear: PHASES, list: PHASES, info: AREAS }[command] === undefined
        ? []
        : Object.keys(command === "info" ? AREAS : PHASES).map((word) => `${command} ${word}`);
  return candidates.filter((each) => each.startsWith(line.trimStart()));
}

/** One debugging of a creation: what was asked, and what was answered. */
export class Session {
  readonly #engine: Engine;
  readonly #container: ContainerJson;
  readonly #walk: Walk;
  readonly #lines: Lines;
  readonly #signals: Signals;
  readonly #input: number;
  #without: readonly number[] = [];
  readonly #breaks = new Set<number>();
  #explanations: Explanation[] = [];
  #master: number | undefined;
  /** What the command line exits with: the container's status, once there is one. */
  status = 0;

  /** @param input what the container's program has for its standard input */
  constructor(
    engine: Engine,
    container: ContainerJson,
    lines: Lines,
    { input, signals }: { input: number; signals: Signals },
  ) {
    this.#signals = signals;
    this.#input = input;
    this.#engine = engine;
    this.#container = container;
    this.#lines = lines;
    this.#walk = new Walk(engine, container, {
      launcher: launchOn(input),
      takeTerminal: (socket) => {
        this.#master = takeTerminal(socket);
      },
    });
  }

  /** Asks for commands until it is left, or there are no more. Whatever happens, nothing is left of the container. */
  async run(): Promise<void> {
    try {
      this.#walk.begin();
      this.#explanations = explain(this.#walk.plan);
      const init = this.#explanations.filter(({ side }) => side === "init").length;
      print(
        `${this.#explanations.length} steps, ${init} of them init's; nothing is done yet. help says what can be asked.`,
      );
      this.#tellNext();
      for (;;) {
        const line = await this.#lines.next("(step) ");
        if (line === undefined || !this.#obey(line)) return;
      }
    } finally {
      this.#walk.abandon();
    }
  }

  /** A script ends with the first thing that cannot be done; a person is told, and asked again. */
  #obey(line: string): boolean {
    const [typed = "", ...words] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (typed === "" && !this.#lines.interactive) return true;
    const wanted = typed === "" ? "next" : typed;
    const names = Object.keys(COMMANDS).filter((name) => name.startsWith(wanted));
    const command = COMMANDS[names.length === 1 || names[0] === wanted ? (names[0] ?? "") : wanted];
    try {
      if (command === undefined) throw usage(`there is no command ${wanted}: help lists them`);
      return command.run(this, words) !== false;
    } catch (error) {
      if (!(error instanceof ContainerError)) throw error;
      if (!this.#lines.interactive) throw error;
      sayError(inWords(error));
      return true;
    }
  }

  list(word: string | undefined): void {
    const { at } = this.#walk;
    const numbers =
      word === undefined
        ? undefined
        : word === "all"
          ? this.#explanations.map(({ index }) => index)
          : this.#places(word);
    const [first = 0, last = 0] =
      numbers === undefined
        ? [at - AROUND, at + AROUND]
        : numbers.length === 1
          ? [(numbers[0] ?? 0) - AROUND, (numbers[0] ?? 0) + AROUND]
          : [numbers[0], numbers.at(-1)];
    for (const explanation of this.#explanations)
      if (explanation.index >= first && explanation.index <= last) this.#tellStep(explanation);
  }

  next(word: string | undefined): void {
    const count = Number(word ?? 1);
    if (!Number.isSafeInteger(count) || count < 1) throw usage(`cannot take ${word} steps`);
    let left = count;
    this.go(() => --left <= 0);
  }

  /** Goes on to a breakpoint, or to a step that is wanted. */
  go(isWanted: (place: number) => boolean): void {
    if (!this.#walk.halts) throw usage("there is nothing to go on with: restart begins again");
    const begun = this.#walk.at;
    let standing: Standing;
    try {
      standing = this.#walk.go((place) => isWanted(place) || this.#breaks.has(place));
    } catch (error) {
      if (!(error instanceof ContainerError)) throw error;
      this.status = statusOf(error);
      sayError(inWords(error));
      print("everything has been undone");
      return;
    }
    if (standing.kind === "runs") this.#attend(standing);
    if (standing.kind !== "halts") return;
    this.#tellDone(begun);
    this.#tellChanges(standing.changes);
    this.#tellNext();
  }

  halt(word: string | undefined): void {
    if (word === undefined) {
      for (const explanation of this.#explanations)
        if (this.#breaks.has(explanation.index)) this.#tellStep(explanation);
      if (this.#breaks.size === 0) print("there is no breakpoint");
      return;
    }
    const places = this.#places(word);
    const chosen = word in PHASES ? places.slice(0, 1) : places;
    const last = lastHalt(this.#walk.plan);
    if (chosen.every((place) => place > last)) {
      const runs = this.#walk.plan[last]?.name === "execute";
      const why = runs
        ? "the container's program runs by then"
        : `the filter of step ${last} may refuse the calls for it`;
      throw usage(`nothing stands still before step ${chosen[0]}: ${why}`);
    }
    for (const place of chosen) {
      this.#breaks.add(place);
      const explanation = this.#explanations[place];
      if (explanation !== undefined) this.#tellStep(explanation);
    }
  }

  clear(word: string | undefined): void {
    for (const place of word === undefined ? [...this.#breaks] : this.#places(word)) this.#breaks.delete(place);
  }

  info(word: string | undefined): void {
    const { still, before } = this.#walk;
    const changed = changes(before, still);
    if (word === undefined) {
      if (changed.length === 0) print("nothing that can be seen has changed");
      this.#tellChanges(changed, Number.POSITIVE_INFINITY);
      return;
    }
    const area = this.#area(word);
    const facts = factsOf(area, still);
    const untold = changed.filter((each) => each.area === area);
    const width = Math.max(0, ...[...facts, ...untold].map(({ name }) => name.length));
    if (facts.length === 0) print(this.#walk.pid === undefined ? "there is no process yet" : `${area}: none`);
    for (const { name, value } of facts) {
      // two mounts can be on one place
      const at = untold.findIndex((each) => each.name === name && each.after === value);
      const [change] = at < 0 ? [] : untold.splice(at, 1);
      const sign = change === undefined ? " " : change.before === undefined ? "+" : "~";
      const was = sign === "~" ? `   (was ${change?.before})` : "";
      print(shortened(`  ${sign} ${name.padEnd(width)}  ${value}${was}`));
    }
    for (const { name, before: was } of untold) print(shortened(`  - ${name.padEnd(width)}  ${was}`));
  }

  show(word: string | undefined): void {
    const places = word === undefined ? [this.#walk.at] : this.#places(word);
    printRaw(
      renderExplanation(
        this.#explanations.filter(({ index }) => places.includes(index)),
        { verbose: true },
      ),
    );
  }

  calls(): void {
    const { done } = this.#walk;
    if (done === undefined) throw usage("nothing has been carried out");
    const { container, machine, epochNs, plan, reports } = findRecording(this.#engine.places, this.#container.id);
    const lines = tell(join(plan, reports), { container, trace: "create", machine, epochNs, secrets: false })
      .filter(({ index, undo }) => index === done && undo !== true)
      .map((line) => ({ ...line, index: this.#walk.placeOf(line.index) }));
    printRaw(renderTrace(lines, { verbose: true }));
  }

  /** A shell that looks around, or one line for it. */
  shell(line: string): void {
    const { process: seen } = this.#walk.still;
    if (seen === undefined || this.#walk.pid === undefined)
      throw usage("there is no process to be beside: startInit starts it");
    const asks = line === "" && this.#lines.interactive;
    if (line === "" && !asks) throw usage("a script has to say what the shell is to do");
    const { process, master } = visit(seen, {
      args: asks ? ["/bin/sh"] : ["/bin/sh", "-c", line],
      terminal: asks,
      launcher: launchOn(this.#input),
    });
    try {
      const { status } = this.#lines.aside(() => attend(process, this.#signals, master));
      if (status !== 0) print(`status ${status}`);
    } finally {
      for (const fd of [process.pidfd, master ?? -1]) if (fd >= 0) close(fd);
    }
    this.#tellChanges(this.#walk.lookAgain());
  }

  /** Without the steps left out already, and these. */
  skip(word: string | undefined): void {
    const { plan } = this.#walk;
    if (word === undefined) throw usage("which step is to be left out?");
    const harm = harmWithout(plan, process.getuid?.() ?? 0);
    if (harm !== undefined)
      throw new ContainerError({
        message: `cannot leave out a step of this container: ${harm}`,
        code: USAGE,
        hint: "with --userns auto nobody in it is anybody outside",
      });
    const asked = [...this.#without, ...this.#places(word)];
    const gone = leftOut(plan, asked);
    const first = Math.min(...this.#places(word));
    this.#without = asked;
    this.#walk.begin(asked);
    print("everything has been undone, and begins again without");
    for (const explanation of this.#explanations) if (gone.has(explanation.index)) this.#tellStep(explanation);
    print(`why there is such a step: ${backgroundOf(this.#explanations[first]?.step ?? "turn").why}`);
    if (this.#walk.at <= first) this.go((place) => place > first);
    else this.#tellNext();
  }

  restart(): void {
    this.#without = [];
    this.#walk.begin();
    this.#tellNext();
  }

  /** The program has the terminal until it ends. */
  #attend({ process }: Extract<Standing, { kind: "runs" }>): void {
    print("the container's program runs");
    try {
      const { status } = this.#lines.aside(() => attend(process, this.#signals, this.#master));
      this.status = status;
      print(`it has ended with status ${status}; everything has been undone`);
    } finally {
      if (this.#master !== undefined) close(this.#master);
      this.#master = undefined;
      process.settle();
      close(process.pidfd);
    }
  }

  /** Places of a step by its number or name, or of all steps of a phase. */
  #places(word: string): number[] {
    const places = this.#explanations.filter(({ index, step, phase }) =>
      /^\d+$/.test(word) ? index === Number(word) : step === word || phase === word,
    );
    if (places.length === 0)
      throw usage(
        isStepName(word) || word in PHASES
          ? `this plan has no ${word}`
          : `there is no step ${word}: give its number or name as list has them, or a phase: ${Object.keys(PHASES).slice(0, -1).join(", ")}`,
      );
    return places.map(({ index }) => index);
  }

  #area(word: string): Area {
    const found = Object.keys(AREAS).filter((area) => area.startsWith(word));
    const [area] = found;
    if (area === undefined || found.length > 1 || !isArea(area))
      throw usage(`there is no ${word} to be seen; there is ${Object.keys(AREAS).join(", ")}`);
    return area;
  }

  #tellNext(): void {
    const next = this.#explanations[this.#walk.at];
    if (next !== undefined) this.#tellStep(next);
  }

  /** Turns between the sides are nobody's steps: init stands at them, too. */
  #tellDone(begun: number): void {
    const done = this.#explanations.filter(
      ({ index, step }) => index >= begun && index < this.#walk.at && step !== "turn" && !this.#walk.without.has(index),
    );
    const [first, last] = [done[0], done.at(-1)];
    if (first === undefined || last === undefined) return;
    print(done.length === 1 ? `done: ${first.step}` : `done: ${done.length} steps, ${first.step} to ${last.step}`);
  }

  #tellStep({ index, side, step, says, phase, from }: Explanation): void {
    const mark = index === this.#walk.at && this.#walk.halts ? ">" : " ";
    const gone = this.#walk.without.has(index);
    const stop = gone ? "-" : this.#breaks.has(index) ? "*" : " ";
    print(
      `${mark}${stop}${String(index).padStart(4)}  ${phase.padEnd(7)}  ${side}  ${step.padEnd(18)}  ${shortened(says)}  ${pointerOf(from)}`,
    );
  }

  #tellChanges(changed: readonly Change[], limit = TOLD): void {
    for (const area of Object.keys(AREAS)) {
      const own = changed.filter((each) => each.area === area);
      for (const [at, { name, before, after }] of own.slice(0, limit).entries()) {
        const sign = before === undefined ? "+" : after === undefined ? "-" : "~";
        const value = before === undefined ? after : after === undefined ? before : `${before} → ${after}`;
        print(shortened(`      ${(at === 0 ? area : "").padEnd(12)} ${sign} ${name}  ${value}`));
      }
      if (own.length > limit) print(`      ${"".padEnd(12)}   and ${own.length - limit} more: info ${area}`);
    }
  }
}

const USAGE = "ERR_USAGE";

function usage(message: string): ContainerError {
  return new ContainerError({ message, code: USAGE });
}
