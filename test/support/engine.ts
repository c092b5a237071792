import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { expect } from "vitest";
import { build, fixtures } from "../../rootfs-fixtures/build.mjs";
import { Namespace } from "../network/namespace.ts";
import { alive, type Outcome, until } from "./bundle.ts";
import { PATIENCE } from "./patience.ts";
import type { Seen } from "./seen.ts";

const project = resolve(import.meta.dirname, "../..");
const TIMEOUT_MS = 60_000 * PATIENCE;
const TYPIST = join(import.meta.dirname, "typist.py");

/** The engine's command line: beside CAISSON_BIN, or with CAISSON_BIN=node the JavaScript under Node. */
export function engineCommand(): string[] {
  const chosen = process.env.CAISSON_BIN ?? join(project, "dist/bin/caisson");
  return chosen === "node"
    ? [process.execPath, join(project, "dist/js/cli/main.js")]
    : [join(dirname(chosen), "caisson")];
}

export interface How {
  env?: NodeJS.ProcessEnv;
  input?: string | Buffer;
  cwd?: string;
  /** Words before the engine's own: a program that changes what it inherits. */
  through?: string[];
  timeoutMs?: number;
}

/** What came of an engine's command; `bytes` is its standard output as it was. */
export interface EngineOutcome extends Outcome {
  bytes: Buffer;
}

/** One thing a person does at a terminal: see typist.py. */
export type Keystroke =
  | ["expect", string]
  | ["send", string]
  | ["resize", number, number]
  | ["signal", string]
  | ["run", string[]];

/**
 * A machine for a file's tests: directories of its own, and by default a network namespace that stands for the host's, so
 * that nothing of this computer's network is touched.
 */
export class Machine {
  readonly directory: string;
  readonly data: string;
  readonly root: string;
  readonly network: Namespace | undefined;

  private constructor(network: Namespace | undefined) {
    this.directory = mkdtempSync(join(tmpdir(), "caisson-engine-"));
    // a container's user must be able to reach what is bound from here
    chmodSync(this.directory, 0o755);
    this.data = join(this.directory, "data");
    this.root = join(this.directory, "run");
    this.network = network;
  }

  static async make({
    ownNetwork = true,
    images = ["quickstart"] as (keyof typeof fixtures.images)[],
  } = {}): Promise<Machine> {
    build();
    const network = ownNetwork ? await Namespace.make() : undefined;
    network?.run(["ip", "link", "set", "lo", "up"]);
    const machine = new Machine(network);
    for (const image of images) machine.succeeds(["load", fixtures.images[image].docker]);
    return machine;
  }

  /** Removes every container, and everything else of it; nothing may still run. */
  close(): void {
    const ids = this.containers();
    if (ids.length > 0) this.caisson(["rm", "-f", ...ids]);
    this.network?.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** The words that run a command of the engine here. */
  commandLine(words: readonly string[], through: readonly string[] = []): string[] {
    const enter = this.network === undefined ? [] : ["nsenter", `--net=${this.network.path}`];
    return [...enter, ...through, ...engineCommand(), "--data", this.data, "--root", this.root, ...words];
  }

  #line(words: readonly string[], { through = [] }: How): [string, string[]] {
    const [command = "", ...rest] = this.commandLine(words, through);
    return [command, rest];
  }

  /** Runs a command of the engine to its end. */
  caisson(words: readonly string[], how: How = {}): EngineOutcome {
    const [command, rest] = this.#line(words, how);
    const ended = spawnSync(command, rest, {
      input: how.input ?? "",
      timeout: how.timeoutMs ?? TIMEOUT_MS,
      maxBuffer: 1 << 27,
      ...(how.cwd === undefined ? {} : { cwd: how.cwd }),
      ...(how.env === undefined ? {} : { env: how.env }),
    });
    if (ended.error !== undefined) throw ended.error;
    return {
      status: ended.status ?? -1,
      stdout: ended.stdout.toString(),
      stderr: ended.stderr.toString(),
      bytes: ended.stdout,
    };
  }

  /** The same, where failure is a failed test. @returns what it printed, without the line's end */
  succeeds(words: readonly string[], how: How = {}): string {
    const { status, stdout, stderr } = this.caisson(words, how);
    expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: "" });
    return stdout.trimEnd();
  }

  /** Starts a command of the engine and returns at once. */
  start(words: readonly string[], how: How & Pick<SpawnOptions, "stdio"> = {}): ChildProcess {
    const [command, rest] = this.#line(words, how);
    return spawn(command, rest, { stdio: how.stdio ?? "ignore" });
  }

  /** What the probe sees in a container that is run with these flags and removed. */
  seen(flags: readonly string[], actions: readonly string[] = [], image = "caisson/quickstart"): Seen {
    return lastLine(this.succeeds(["run", "--rm", "--network", "none", ...flags, image, "/bin/probe", ...actions]));
  }

  /** A command of the engine under a terminal of this size, and what a person does there. */
  atTerminal(
    words: readonly string[],
    keystrokes: readonly Keystroke[],
    size = { rows: 24, columns: 80 },
  ): { status: number; output: string } {
    return atTerminal(this.commandLine(words), keystrokes, size);
  }

  /** A script of bash under a terminal. */
  atShell(script: string, keystrokes: readonly Keystroke[]): { status: number; output: string } {
    return atTerminal(["bash", "-c", script], keystrokes, { rows: 24, columns: 80 });
  }

  /** Runs a script of bash. */
  shell(script: string): Outcome {
    const { status, stdout, stderr } = spawnSync("bash", ["-c", script], { encoding: "utf8", timeout: TIMEOUT_MS });
    return { status: status ?? -1, stdout, stderr };
  }

  /** The ids of the containers whose directory exists. */
  containers(): string[] {
    return existsSync(join(this.data, "containers")) ? readdirSync(join(this.data, "containers")) : [];
  }

  /** What `inspect` says of one container. */
  inspect(name: string): Inspected {
    const [inspected]: Inspected[] = JSON.parse(this.succeeds(["inspect", name]));
    if (inspected === undefined) throw new Error(`inspect ${name} printed an empty list`);
    return inspected;
  }

  /** Processes that belong to this machine's containers: monitors, clean-up programs, and what runs in their cgroups. */
  processes(): string[] {
    return readdirSync("/proc").flatMap((pid) => {
      if (!/^\d+$/.test(pid)) return [];
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        const ours = words.includes(this.data) && alive(Number(pid)) && Number(pid) !== process.pid;
        return ours ? [`${pid} ${words}`] : [];
      } catch {
        return [];
      }
    });
  }

  /** Waits until what has ended is cleaned up. */
  settle(): void {
    until("clean-up has ended", () => this.processes().length === 0 && !this.monitors().some(alive), 5_000);
  }

  /** A test that is over has left no container; if it has, the next one shall not suffer for it. */
  expectEmpty(): void {
    try {
      this.settle();
    } finally {
      const left = this.containers();
      if (left.length > 0) this.caisson(["rm", "-f", ...left]);
      expect(left).toEqual([]);
    }
  }

  /** Pids of the monitors of all containers here. */
  monitors(): number[] {
    return this.containers().flatMap((id) => {
      const path = join(this.data, "containers", id, "monitor.pid");
      return existsSync(path) ? [Number.parseInt(readFileSync(path, "utf8"), 10)] : [];
    });
  }
}

function atTerminal(
  command: string[],
  keystrokes: readonly Keystroke[],
  size: { rows: number; columns: number },
): { status: number; output: string } {
  const { status, stdout, stderr } = spawnSync("/usr/bin/python3", [TYPIST], {
    encoding: "utf8",
    timeout: TIMEOUT_MS,
    maxBuffer: 1 << 27,
    input: JSON.stringify({ command, keystrokes, ...size }),
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout);
}

export interface Inspected {
  Id: string;
  Name: string;
  State: { Status: string; Running: boolean; Pid: number; OOMKilled: boolean; ExitCode: number; FinishedAt: string };
  Config: { Env: string[]; Hostname: string; Image: string; Cmd: string[]; User: string };
  HostConfig: { AutoRemove: boolean; Memory: number; NetworkMode: string };
  NetworkSettings: { IPAddress: string };
}

/** The probe's report, which is the last line of its output. */
export function lastLine(text: string): Seen {
  const seen: Seen = JSON.parse(text.trimEnd().split("\n").at(-1) ?? "");
  return seen;
}

/** A command has failed before any container ran: an error that a person understands, and no traces of ours in it. */
export function expectFailure(outcome: Outcome, message: RegExp, status = 125): void {
  expect(outcome.stderr).toMatch(message);
  expect({ status: outcome.status, stdout: outcome.stdout }).toEqual({ status, stdout: "" });
  expectPlainWords(outcome.stderr);
}

/** An error's first line says all; the others are labelled facts. */
export function expectPlainWords(stderr: string): void {
  expect(stderr).not.toMatch(/^\s+at |\.[jt]s:\d+|bunfs|undefined|\[object/m);
  for (const line of stderr.trimEnd().split("\n").slice(1))
    expect(line).toMatch(/^ {2}(kernel|because|hint) |^\(|^\s|^- /);
}
