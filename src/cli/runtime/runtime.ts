import { appendFileSync } from "node:fs";
import { getuid } from "node:process";
import { ContainerError } from "../../error.ts";
import { print, say } from "../print.ts";
import { type Flags, flagHelp, parseFlags } from "./flags.ts";

/** What each command gets beside its own words. */
export interface Globals {
  /** State directory. */
  root: string;
  systemdCgroup: boolean;
  /** Logs what went wrong and does not end the command. */
  warn: (message: string) => void;
}

/** One command of the runtime: runc's name, flags and output. */
export interface Command {
  usage: string;
  flags: Flags;
  /** @returns the exit status */
  run: (words: readonly string[], globals: Globals) => number | Promise<number>;
  /** Exit status when it throws; runc's is 1, and 255 for exec. */
  failure?: number;
}

const COMMANDS: { [name: string]: { help: string; load: () => Promise<Command> } } = {
  create: { help: "create a container", load: async () => (await import("./create.ts")).create },
  delete: {
    help: "delete any resources held by the container",
    load: async () => (await import("./delete.ts")).remove,
  },
  exec: { help: "execute new process inside the container", load: async () => (await import("./exec.ts")).exec },
  features: { help: "show the enabled features", load: async () => (await import("./features.ts")).features },
  kill: { help: "send a signal to the container's init process", load: async () => (await import("./kill.ts")).kill },
  list: { help: "list containers started with the given root", load: async () => (await import("./list.ts")).list },
  run: { help: "create and run a container", load: async () => (await import("./run.ts")).run },
  spec: { help: "create a new specification file", load: async () => (await import("./spec.ts")).spec },
  start: {
    help: "execute the user defined process in a created container",
    load: async () => (await import("./start.ts")).start,
  },
  state: { help: "output the state of a container", load: async () => (await import("./state.ts")).state },
};

const GLOBAL_FLAGS = {
  debug: { kind: "boolean", help: "enable debug logging" },
  log: { kind: "string", help: "set the log file to write logs to (default is the error stream)" },
  "log-format": { kind: "string", help: "set the log format: text or json" },
  root: { kind: "string", help: "root directory for storage of container state" },
  "systemd-cgroup": { kind: "boolean", help: "enable systemd cgroup support" },
  rootless: { kind: "string", help: "true, false or auto" },
  help: { kind: "boolean", short: "h", help: "show help" },
  version: { kind: "boolean", short: "v", help: "print the version" },
} as const;

/** Runs one command of the OCI runtime. @returns the exit status */
export async function runRuntime(words: readonly string[], name: string): Promise<number> {
  let log: Log = { path: undefined, json: false };
  let failure = 1;
  try {
    const { flags, rest } = parseFlags(GLOBAL_FLAGS, words);
    log = { path: flags.log, json: flags["log-format"] === "json" };
    const [commandName, ...own] = rest;
    if (flags.version) {
      print(`${name} version 0.1.0\nspec: 1.3.0`);
      return 0;
    }
    if (commandName === undefined || commandName === "help" || flags.help) {
      print(help(name));
      return 0;
    }
    const entry = Object.hasOwn(COMMANDS, commandName) ? COMMANDS[commandName] : undefined;
    if (entry === undefined)
      throw new ContainerError({ message: `no such command: ${commandName} (see ${name} --help)`, code: "ERR_USAGE" });
    const command = await entry.load();
    failure = command.failure ?? 1;
    if (own[0] === "--help" || own[0] === "-h") {
      print(
        `NAME:\n   ${name} ${commandName} - ${entry.help}\n\nUSAGE:\n   ${name} ${commandName} ${command.usage}\n\nOPTIONS:\n${flagHelp(command.flags)}`,
      );
      return 0;
    }
    const warn = (message: string) => writeLog("warning", message, {}, log);
    return await command.run(own, { root: flags.root ?? defaultRoot(), systemdCgroup: flags["systemd-cgroup"], warn });
  } catch (error) {
    report(error, log);
    return failure;
  }
}

function defaultRoot(): string {
  return getuid?.() === 0 ? "/run/caisson" : `${process.env.XDG_RUNTIME_DIR ?? "/tmp"}/caisson`;
}

function help(name: string): string {
  const commands = Object.entries(COMMANDS).map(([command, { help: line }]) => `   ${command.padEnd(12)}${line}`);
  return `NAME:\n   ${name} - Open Container Initiative runtime\n\nUSAGE:\n   ${name} [global options] command [command options] [arguments...]\n\nCOMMANDS:\n${commands.join("\n")}\n\nGLOBAL OPTIONS:\n${flagHelp(GLOBAL_FLAGS)}`;
}

interface Log {
  path: string | undefined;
  json: boolean;
}

/** One line that engines read: the message in runc's words first; to the log file and to the error stream. */
function report(error: unknown, log: Log): void {
  const fields =
    error instanceof ContainerError ? { step: error.step, errno: error.code, from: error.from, hint: error.hint } : {};
  writeLog("error", messageOf(error), fields, log);
}

function writeLog(level: "error" | "warning", msg: string, fields: object, { path, json }: Log): void {
  const time = new Date().toISOString();
  const line = json
    ? JSON.stringify({ ...fields, level, msg, time })
    : `time="${time}" level=${level} msg=${JSON.stringify(msg)}`;
  if (path !== undefined) {
    try {
      appendFileSync(path, `${line}\n`);
      if (level === "warning") return;
    } catch {
      // the error stream has it, too
    }
  }
  say(path === undefined ? line : msg);
}

/** runc's words where engines look for them. */
function messageOf(error: unknown): string {
  if (!(error instanceof ContainerError))
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  const detail = [
    error.code !== undefined && error.errno !== undefined ? error.code : undefined,
    error.from === undefined ? undefined : `at ${error.from.replace(/^\/spec/, "") || "/"}`,
  ]
    .filter((word) => word !== undefined)
    .join(" ");
  const tells = detail !== "" && (error.step !== undefined || error.from !== undefined);
  const words = tells ? `${error.message} (${detail})` : error.message;
  return error.hint === undefined ? words : `${words}: ${error.hint}`;
}
