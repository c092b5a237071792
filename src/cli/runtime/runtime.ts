import { chmodSync, closeSync, constants, mkdirSync, openSync, writeSync } from "node:fs";
import { ContainerError } from "../../error.ts";
import { inUserNamespace } from "../../host/host.ts";
import { SIGNALS } from "../../linux/signals.ts";
import { print, say } from "../print.ts";
import { type Flags, flagHelp, flagsFirst, parseFlags, type Words } from "./flags.ts";

const { env, geteuid } = process;
const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = constants;

/** What each command gets beside its own words. */
export interface Globals {
  /** State directory. */
  root: string;
  /** Whether the command line named it. */
  rootGiven: boolean;
  systemdCgroup: boolean;
  /** Logs what went wrong and does not end the command. */
  warn: (message: string) => void;
  /** Name or path of criu. */
  criu: string;
  /** Whether containers may do without cgroups; undefined: as who we are suggests. */
  rootless: boolean | undefined;
}

/** One command of the runtime: runc's name, flags and output. */
export interface Command {
  usage: string;
  flags: Flags;
  /** How many words beside its flags: at least, at most; runc's own say for the rest. */
  words: readonly [number, number];
  /** @returns the exit status */
  run: (words: readonly string[], globals: Globals) => number | Promise<number>;
  /** Exit status when it throws, and what the message begins with then; runc's are 1, and 255 and "exec failed" for exec. */
  failure?: { status: number; says: string };
  /** Flags end at the first word that is none: the others are another program's. */
  ordered?: true;
}

const COMMANDS: { [name: string]: { help: string; load: () => Promise<Command> } } = {
  checkpoint: {
    help: "checkpoint a running container",
    load: async () => (await import("./checkpoint.ts")).checkpoint,
  },
  create: { help: "create a container", load: async () => (await import("./create.ts")).create },
  delete: {
    help: "delete any resources held by the container",
    load: async () => (await import("./delete.ts")).remove,
  },
  events: {
    help: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
    load: async () => (await import("./events.ts")).events,
  },
  exec: { help: "execute new process inside the container", load: async () => (await import("./exec.ts")).exec },
  features: { help: "show the enabled features", load: async () => (await import("./features.ts")).features },
  kill: { help: "send a signal to the container's init process", load: async () => (await import("./kill.ts")).kill },
  list: { help: "list containers started with the given root", load: async () => (await import("./list.ts")).list },
  mounts: {
    help: "add mounts to a running container, or remove some",
    load: async () => (await import("./mounts.ts")).mounts,
  },
  pause: {
    help: "suspend all processes inside the container",
    load: async () => (await import("./pause.ts")).pause,
  },
  ps: { help: "display the processes running inside a container", load: async () => (await import("./ps.ts")).ps },
  restore: {
    help: "restore a container from a previous checkpoint",
    load: async () => (await import("./restore.ts")).restore,
  },
  resume: {
    help: "resume all processes that have been previously paused",
    load: async () => (await import("./pause.ts")).resume,
  },
  run: { help: "create and run a container", load: async () => (await import("./run.ts")).run },
  spec: { help: "create a new specification file", load: async () => (await import("./spec.ts")).spec },
  start: {
    help: "execute the user defined process in a created container",
    load: async () => (await import("./start.ts")).start,
  },
  state: { help: "output the state of a container", load: async () => (await import("./state.ts")).state },
  update: {
    help: "update container resource constraints",
    load: async () => (await import("./update.ts")).update,
  },
};

const HELP = { help: { kind: "boolean", short: "h", help: "show help" } } as const;

/** What urfave/cli, which parses runc's words, ends with. */
const NO_SUCH_COMMAND = { status: 3, says: undefined };

const GLOBAL_FLAGS = {
  debug: { kind: "boolean", help: "enable debug logging" },
  log: { kind: "string", help: "set the log file to write logs to (default is the error stream)" },
  "log-format": { kind: "string", help: "set the log format: text or json" },
  root: { kind: "string", help: "root directory for storage of container state" },
  criu: { kind: "string", help: 'path to the criu binary used for checkpoint and restore (default: "criu")' },
  "systemd-cgroup": { kind: "boolean", help: "enable systemd cgroup support" },
  "cgroup-manager": { kind: "string", help: "cgroupfs or systemd, as with crun (default: cgroupfs)" },
  rootless: { kind: "string", help: "ignore cgroup permission errors: true, false or auto" },
  ...HELP,
  version: { kind: "boolean", short: "v", help: "print the version" },
} as const;

/** Runs one command of the OCI runtime. @returns the exit status */
export async function runRuntime(words: readonly string[], name: string): Promise<number> {
  let log: Log = { path: undefined, json: false, debug: false };
  let failure: { status: number; says: string | undefined } | undefined;
  try {
    const { flags, rest } = parseFlags(GLOBAL_FLAGS, words);
    log = { path: flags.log, json: flags["log-format"] === "json", debug: flags.debug };
    checkGlobals(flags);
    const [commandName, ...given] = rest;
    if (flags.version) {
      print(`${name} version 0.1.0\nspec: 1.3.0`);
      return 0;
    }
    const asked = commandName === "help" || commandName === "h";
    const wanted = asked ? given[0] : commandName;
    if (wanted === undefined || flags.help) {
      print(help(name));
      return 0;
    }
    const entry = Object.hasOwn(COMMANDS, wanted) ? COMMANDS[wanted] : undefined;
    if (entry === undefined) {
      failure = NO_SUCH_COMMAND;
      throw new ContainerError({ message: `No help topic for '${wanted}'`, code: "ERR_USAGE" });
    }
    const command = await entry.load();
    const own = command.ordered === true ? given : flagsFirst({ ...command.flags, ...HELP }, given);
    const usage = () =>
      `NAME:\n   ${name} ${wanted} - ${entry.help}\n\nUSAGE:\n   ${name} ${wanted} ${command.usage}\n\nOPTIONS:\n${flagHelp(command.flags)}`;
    if (asked || asksForHelp(command, own)) {
      print(usage());
      return 0;
    }
    const warn = (message: string) => writeLog("warning", message, {}, log);
    checkWords(command, own, name, wanted, usage);
    failure = command.failure;
    debug(log, `${name} ${words.join(" ")}`);
    const status = await command.run(own, {
      root: flags.root ?? makeDefaultRoot(),
      rootGiven: flags.root !== undefined,
      systemdCgroup: flags["systemd-cgroup"] || flags["cgroup-manager"] === "systemd",
      rootless: parseRootless(flags.rootless),
      criu: flags.criu ?? "criu",
      warn,
    });
    debug(log, `${wanted} ends with ${status}`);
    return status;
  } catch (error) {
    report(error, log, failure?.says);
    return interrupted(error) ?? failure?.status ?? 1;
  }
}

/** @throws ContainerError in runc's words */
function checkGlobals(flags: Words<typeof GLOBAL_FLAGS>["flags"]): void {
  const format = flags["log-format"] ?? "text";
  if (format !== "text" && format !== "json")
    throw new ContainerError({ message: `invalid log-format: ${format}`, code: "ERR_USAGE" });
  if (!/^(?:auto|true|false|[tTfF10]|TRUE|FALSE|True|False|)$/.test(flags.rootless ?? ""))
    throw new ContainerError({ message: `invalid value for --rootless: ${flags.rootless}`, code: "ERR_USAGE" });
  const manager = flags["cgroup-manager"] ?? "cgroupfs";
  if (manager !== "cgroupfs" && manager !== "systemd")
    throw new ContainerError({ message: `invalid value for --cgroup-manager: ${manager}`, code: "ERR_USAGE" });
  // a log that cannot be written is said before anything is done
  if (flags.log !== undefined) appendLog(flags.log, "");
}

/** Among its flags, not among another program's words. */
function asksForHelp({ flags }: Command, own: readonly string[]): boolean {
  try {
    return parseFlags({ ...flags, ...HELP }, own).flags.help === true;
  } catch {
    return false;
  }
}

/** The status of a command that a signal has ended, as a shell tells it. */
function interrupted(error: unknown): number | undefined {
  const code = error instanceof ContainerError ? error.code : undefined;
  const [, number] = Object.entries(SIGNALS).find(([name]) => name === code) ?? [];
  return number === undefined ? undefined : 128 + number;
}

/** As runc does: help on the output, and what is wrong on the error stream. @throws ContainerError */
function checkWords(command: Command, own: readonly string[], name: string, wanted: string, usage: () => string): void {
  const [least, most] = command.words;
  let count: number;
  try {
    count = parseFlags(command.flags, own).rest.length;
  } catch (error) {
    if (error instanceof ContainerError) print(`Incorrect Usage: ${error.message}\n\n${usage()}`);
    throw error;
  }
  if (count >= least && count <= most) return;
  print(`Incorrect Usage.\n\n${usage()}`);
  const demand = least === most ? `exactly ${least}` : count < least ? `a minimum of ${least}` : `a maximum of ${most}`;
  throw new ContainerError({
    message: `${name}: ${JSON.stringify(wanted)} requires ${demand} argument(s)`,
    code: "ERR_USAGE",
  });
}

/**
 * The state directory as runc chooses it: a user's own beneath $XDG_RUNTIME_DIR, also for root of a user namespace
 * unless it is called root there (a container in a container). The sticky bit keeps it from being tidied up: XDG Base
 * Directory Specification.
 */
function makeDefaultRoot(): string {
  const { XDG_RUNTIME_DIR: runtime = "", USER: user } = env;
  if (runtime === "" || (geteuid?.() === 0 && (!inUserNamespace() || user === "root"))) return "/run/caisson";
  const root = `${runtime}/caisson`;
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    chmodSync(root, 0o1700);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException; // node:fs throws nothing else
    throw new ContainerError({
      message: `cannot make the state directory ${root}`,
      code,
      path: root,
      hint: "the path in $XDG_RUNTIME_DIR must be writable by the user",
      cause,
    });
  }
  return root;
}

/** strconv.ParseBool, and "auto", which leaves it to who we are. */
function parseRootless(word = "auto"): boolean | undefined {
  return word === "auto" || word === "" ? undefined : /^[t1]/i.test(word);
}

function help(name: string): string {
  const commands = Object.entries(COMMANDS).map(([command, { help: line }]) => `   ${command.padEnd(12)}${line}`);
  return `NAME:\n   ${name} - Open Container Initiative runtime\n\nUSAGE:\n   ${name} [global options] command [command options] [arguments...]\n\nCOMMANDS:\n${commands.join("\n")}\n\nGLOBAL OPTIONS:\n${flagHelp(GLOBAL_FLAGS)}`;
}

interface Log {
  path: string | undefined;
  json: boolean;
  debug: boolean;
}

function debug({ path, json, debug: wanted }: Log, msg: string): void {
  if (!wanted) return;
  const line = logLine(json, "debug", msg);
  try {
    if (path === undefined) say(line);
    else appendLog(path, `${line}\n`);
  } catch {
    // what is told for its own sake stops nothing
  }
}

/** A log can be a pipe that nobody reads: what finds no room in it goes to the error stream, where that says why. */
function appendLog(path: string, text: string): void {
  try {
    const file = openSync(path, O_APPEND | O_CREAT | O_NONBLOCK | O_WRONLY, 0o666);
    try {
      writeSync(file, text);
    } finally {
      closeSync(file);
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException; // node:fs throws nothing else
    const hint = code === "ENXIO" ? "it is a pipe, or a socket, that nobody reads" : undefined;
    throw new ContainerError({ message: `cannot write to the log ${path}: ${code}`, code, path, hint, cause });
  }
}

function logLine(json: boolean, level: string, msg: string, fields = {}): string {
  const time = new Date().toISOString();
  return json
    ? JSON.stringify({ ...fields, level, msg, time })
    : `time="${time}" level=${level} msg=${JSON.stringify(msg)}`;
}

/** One line that engines read: the message in runc's words first; to the log file and to the error stream. */
function report(error: unknown, log: Log, says?: string): void {
  const msg = says === undefined ? messageOf(error) : `${says}: ${messageOf(error)}`;
  const fields =
    error instanceof ContainerError
      ? { step: error.step, errno: error.code, from: error.from, hint: error.hint, left: error.left }
      : {};
  writeLog("error", msg, fields, log);
}

function writeLog(level: "error" | "warning", msg: string, fields: object, { path, json }: Log): void {
  const line = logLine(json, level, msg, fields);
  if (path !== undefined) {
    try {
      appendLog(path, `${line}\n`);
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
    return error instanceof Error ? (wordsOfFile(error) ?? error.stack ?? error.message) : String(error);
  const detail = [
    error.code !== undefined && error.errno !== undefined ? error.code : undefined,
    error.from === undefined ? undefined : `at ${error.from.replace(/^\/spec/, "") || "/"}`,
  ]
    .filter((word) => word !== undefined)
    .join(" ");
  const tells = detail !== "" && (error.step !== undefined || error.from !== undefined);
  const words = tells ? `${error.message} (${detail})` : error.message;
  const advised = error.hint === undefined ? words : `${words}: ${error.hint}`;
  return [advised, ...(error.left ?? []).map((each) => `could not be taken back: ${each}`)].join("; ");
}

/** A file operation of Node's that was refused, in the words of Go: "open /x: no such file or directory". */
function wordsOfFile(error: Error): string | undefined {
  if (!("syscall" in error && "path" in error)) return;
  const [, words = error.message] = /^[A-Z0-9]+: (.*?), /.exec(error.message) ?? [];
  return `${error.syscall} ${error.path}: ${words}`;
}
