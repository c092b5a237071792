import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { expect } from "vitest";
import type { Machine } from "./engine.ts";

const PROMPT = "(step) ";

/** A program that drives `caisson step` over pipes: it asks, and reads the answer before it asks again. */
export class Debugger {
  static readonly #started = new Set<Debugger>();
  readonly #child: ChildProcess;
  #output = "";
  #complaints = "";
  #answered: (() => void) | undefined;

  private constructor(child: ChildProcess) {
    this.#child = child;
    Debugger.#started.add(this);
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#output += text;
      if (this.#output.endsWith(PROMPT)) this.#answered?.();
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#complaints += text;
    });
    child.on("exit", () => this.#answered?.());
  }

  /** Starts it with these words, and waits until it asks for the first time. */
  static async start(machine: Machine, words: readonly string[]): Promise<Debugger> {
    const self = new Debugger(machine.start(["step", ...words], { stdio: "pipe" }));
    await self.#answer();
    return self;
  }

  /** A test that failed may have left one, whose container nobody else could remove. */
  static async endAll(): Promise<void> {
    for (const each of Debugger.#started) {
      each.kill("SIGTERM");
      await each.end();
    }
    Debugger.#started.clear();
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** What it answers to a command, without the prompt. */
  async ask(command: string): Promise<string> {
    this.#child.stdin?.write(`${command}\n`);
    return await this.#answer();
  }

  /** One column of what is to be seen, by the first: what `info` says of an area, without its marks. */
  async info(area: string): Promise<Map<string, string>> {
    const lines = (await this.ask(`info ${area}`)).split("\n").flatMap((line) => {
      const [, name, value] = /^ {2}[ +~] (.+?) {2,}(.*?)(?: {3}\(was .*\))?$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value] as const];
    });
    return new Map(lines);
  }

  /** The process that stands still, as the host knows it. */
  async process(): Promise<number> {
    return Number.parseInt((await this.info("process")).get("pid") ?? "", 10);
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Leaves it, or waits until it has left. */
  async end(command?: string): Promise<{ status: number | null; complaints: string }> {
    const ended = once(this.#child, "exit");
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      if (command !== undefined) this.#child.stdin?.write(`${command}\n`);
      await ended;
    }
    return { status: this.#child.exitCode, complaints: this.#complaints };
  }

  async #answer(): Promise<string> {
    await new Promise<void>((resolve) => {
      this.#answered = resolve;
    });
    this.#answered = undefined;
    const output = this.#output;
    this.#output = "";
    expect({ answer: output.slice(-PROMPT.length), complaints: this.#complaints }).toEqual({
      answer: PROMPT,
      complaints: "",
    });
    return output.slice(0, -PROMPT.length);
  }
}
