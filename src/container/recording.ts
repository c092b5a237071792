import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { randomHex } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import { makeAnonymousTrace, makeTrace, readTrace } from "../execute/trace-file.ts";
import { type Caller, lookAtCaller } from "../host/caller.ts";
import { close, O, open } from "../kernel/file.ts";
import { tryCall } from "../kernel/syscall.ts";
import { compile, compileExec } from "../plan/compile.ts";
import type { Definition, ExecDefinition } from "../plan/definition.ts";
import type { Host } from "../plan/host.ts";
import type { Plan } from "../plan/step.ts";
import type { Hook } from "../spec/spec.ts";
import { decodeReports, epochOf, type Report, usedBytes } from "../trace/report.ts";

/*
 * What is kept of how containers were made: the definition, from which the plan is compiled again, and the trace.
 *
 *   <container>/definition.json, trace             how it was made, and what of it was taken back
 *   <container>/exec-N/definition.json, trace      the last processes that were added to it
 *   failed/<time>/definition.json, trace, failure.json   the last creations that failed; there is nothing else of them
 */

/** Processes added to a container whose traces are kept. */
export const KEPT_EXECS = 5;
/** Failed creations that are kept. */
export const KEPT_FAILURES = 20;
/** Where an OCI state root has them; no id begins with a dot. */
export const FAILURES = ".failed";

const VERSION = 1;
const EEXIST = 17;

/** One conversation with init, as it was. */
export interface Recording {
  kind: "create" | "exec";
  /** The container's id. */
  container: string;
  /** Of an exec: which one, from 1. */
  exec?: number;
  /** The machine it was recorded on. */
  machine: Host["machine"];
  /** All that its plan was made for. */
  host: Host;
  plan: Plan;
  reports: Report[];
  /** CLOCK_REALTIME less CLOCK_MONOTONIC then. */
  epochNs: bigint | undefined;
  failure?: Failure;
}

/** "create", or "exec-2" for the second process that was added. */
export function traceName({ exec }: Recording): string {
  return exec === undefined ? "create" : `exec-${exec}`;
}

/** Of a creation, or of an exec, that failed. */
export interface Failure {
  version: 1;
  id: string;
  /** As people know it, where it has a name. */
  name?: string;
  /** RFC 3339. */
  at: string;
  message: string;
  code?: string;
  step?: string;
  index?: number;
  from?: string;
  hint?: string;
  /** The system call that refused, where the host made it, and what it was about. */
  syscall?: string;
  path?: string;
  /** Who asked for it. */
  caller?: Caller;
}

type KeptExec = Omit<ExecDefinition, "spec">;
type Kept = { host: Host } & ({ definition: Definition } | { exec: KeptExec });

/** A definition as it is kept. */
export function printDefinition(kept: Kept): string {
  return printExactly(kept);
}

/** Parts of a spec as JSON. They seldom have an integer that JSON cannot carry; those that do are kept exactly. */
export function printExactly(value: object): string {
  try {
    return JSON.stringify(value);
  } catch {
    return JSON.stringify(value, (_, value: unknown) =>
      typeof value === "bigint" ? { $integer: [value.toString()] } : value,
    );
  }
}

function readKept(directory: string): Kept | undefined {
  const path = `${directory}/definition.json`;
  if (!existsSync(path)) return;
  try {
    return JSON.parse(readFileSync(path, "utf8"), (_, value: unknown) =>
      isLongInteger(value) ? BigInt(value.$integer[0]) : value,
    );
  } catch (cause) {
    throw new ContainerError({ message: `${path} is damaged`, code: "ERR_DAMAGED", path, cause });
  }
}

/** A list: a spec's own names lead to strings and objects alone, so none of those is mistaken for this. */
function isLongInteger(value: unknown): value is { $integer: [string] } {
  return typeof value === "object" && value !== null && "$integer" in value && Array.isArray(value.$integer);
}

/** The definition kept in a container's directory. */
export function readDefinition(directory: string): { definition: Definition; host: Host } | undefined {
  const kept = readKept(directory);
  return kept !== undefined && "definition" in kept ? kept : undefined;
}

/** The plan of the definition kept in a directory; empty where there is none. */
export function readPlan(directory: string): Plan {
  const kept = readDefinition(directory);
  return kept === undefined ? [] : compile(kept.definition, kept.host);
}

/** Reads how a container was made. @returns undefined where nothing is kept of it */
export function readRecording(directory: string): Recording | undefined {
  const kept = readDefinition(directory);
  if (kept === undefined) return;
  const { definition, host } = kept;
  return recordingIn(directory, {
    kind: "create",
    container: definition.id,
    machine: host.machine,
    host,
    plan: compile(definition, host),
  });
}

/** Which processes added to a container are still known, oldest first. */
export function execsIn(directory: string): number[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .flatMap((name) => /^exec-([1-9][0-9]*)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((one, other) => one - other);
}

/** Reads how a process was added to a container. @returns undefined where nothing is kept of it */
export function readExec(directory: string, number: number): Recording | undefined {
  const own = `${directory}/exec-${number}`;
  const [kept, container] = [readKept(own), readDefinition(directory)];
  if (kept === undefined || !("exec" in kept) || container === undefined) return;
  const plan = compileExec({ ...kept.exec, spec: container.definition.spec }, kept.host);
  const { host, exec } = kept;
  return recordingIn(own, { kind: "exec", container: exec.id, exec: number, machine: host.machine, host, plan });
}

function recordingIn(
  directory: string,
  facts: Pick<Recording, "kind" | "container" | "exec" | "machine" | "host" | "plan">,
): Recording {
  const bytes = readTrace(`${directory}/trace`) ?? new Uint8Array();
  const path = `${directory}/failure.json`;
  return {
    ...facts,
    reports: decodeReports(bytes),
    epochNs: epochOf(bytes),
    ...(existsSync(path) ? { failure: readFailure(path) } : {}),
  };
}

function readFailure(path: string): Failure {
  const failure: Failure = JSON.parse(readFileSync(path, "utf8"));
  if (failure.version === VERSION) return failure;
  throw new ContainerError({
    message: `${path} is of version ${failure.version}, which this Caisson does not know`,
    path,
  });
}

/** The failed creations kept in a directory, the last one first. */
export function failuresIn(directory: string): { directory: string; failure: Failure }[] {
  return kept(directory)
    .reverse()
    .map((name) => `${directory}/${name}`)
    .filter((path) => existsSync(`${path}/failure.json`))
    .map((path) => ({ directory: path, failure: readFailure(`${path}/failure.json`) }));
}

function kept(directory: string): string[] {
  return existsSync(directory)
    ? readdirSync(directory)
        .filter((name) => /^[0-9]{13}-[0-9a-f]{8}$/.test(name))
        .sort()
    : [];
}

/**
 * Begins the recording of a process that is added to a container; older ones than the last few are dropped. Where none
 * can be kept (the container is being deleted, the file system is full) the process is added all the same.
 * @returns the trace's descriptor, the number under which it is kept, and what to do when the process could not be added
 */
export function recordExec(
  directory: string,
  { spec: _, ...exec }: ExecDefinition,
  host: Host,
): { trace: number; number?: number; failed: (error: unknown) => void } {
  try {
    const number = makeExecDirectory(directory);
    const path = `${directory}/exec-${number}`;
    writeFileSync(`${path}/definition.json`, printDefinition({ exec, host }), { mode: 0o600 });
    const descriptor = open(path, O.RDONLY | O.DIRECTORY);
    try {
      return { trace: makeTrace(descriptor, "trace"), number, failed: (error) => writeFailure(path, exec.id, error) };
    } finally {
      close(descriptor);
    }
  } catch {
    return { trace: makeAnonymousTrace(), failed: () => undefined };
  }
}

function makeExecDirectory(directory: string): number {
  const before = execsIn(directory);
  for (const number of before.slice(0, Math.max(0, before.length + 1 - KEPT_EXECS)))
    rmSync(`${directory}/exec-${number}`, { recursive: true, force: true });
  for (let number = (before.at(-1) ?? 0) + 1; ; number++) {
    const result = tryCall("mkdirat", -100, `${directory}/exec-${number}`, 0o700);
    if (result === 0) return number;
    // another process is being added at this moment
    if (result !== -EEXIST) throw new ContainerError({ message: "cannot keep a trace", errno: -result });
  }
}

/** Copies all that is kept of a container to a directory that outlives it. */
export function copyRecordings(from: string, to: string): void {
  for (const name of [".", ...execsIn(from).map((number) => `exec-${number}`)]) {
    mkdirSync(`${to}/${name}`, { recursive: true, mode: 0o700 });
    for (const file of ["definition.json", "failure.json"])
      if (existsSync(`${from}/${name}/${file}`)) copyFileSync(`${from}/${name}/${file}`, `${to}/${name}/${file}`);
    copyTrace(`${from}/${name}`, `${to}/${name}`);
  }
}

/** As much of it as was written: the rest of the file is there for reports that did not come. */
function copyTrace(from: string, to: string): void {
  const trace = readTrace(`${from}/trace`);
  if (trace !== undefined) writeFileSync(`${to}/trace`, usedBytes(trace), { mode: 0o600 });
}

/**
 * Keeps what a failed creation did, without the values of its environment; the oldest ones are dropped. It never throws:
 * what is to be told is the failure.
 * @param from the container's directory, which is about to be removed
 */
export function keepFailure(from: string, failures: string, error: unknown, name: string | undefined): void {
  try {
    const known = readDefinition(from);
    if (known === undefined) return;
    mkdirSync(failures, { recursive: true, mode: 0o700 });
    const path = `${failures}/${String(Date.now()).padStart(13, "0")}-${randomHex(4)}`;
    mkdirSync(path, { mode: 0o700 });
    const definition = withoutSecrets(known.definition);
    writeFileSync(`${path}/definition.json`, printDefinition({ definition, host: known.host }), { mode: 0o600 });
    copyTrace(from, path);
    writeFailure(path, definition.id, error, name);
    for (const old of kept(failures).slice(0, -KEPT_FAILURES))
      rmSync(`${failures}/${old}`, { recursive: true, force: true });
  } catch {
    // nothing that can be done about it is worth more than the failure itself
  }
}

function writeFailure(directory: string, id: string, error: unknown, name?: string): void {
  const failure: Failure = {
    version: VERSION,
    id,
    ...(name === undefined ? {} : { name }),
    at: new Date().toISOString(),
    message: error instanceof Error ? error.message : String(error),
    ...(error instanceof ContainerError ? factsOf(error) : {}),
    caller: lookAtCaller(),
  };
  try {
    writeFileSync(`${directory}/failure.json`, JSON.stringify(failure), { mode: 0o600 });
  } catch {
    // as above: it would hide the failure
  }
}

function factsOf({ code, step, index, from, hint, syscall, path }: ContainerError): Partial<Failure> {
  return {
    ...(code === undefined ? {} : { code }),
    ...(step === undefined ? {} : { step }),
    ...(index === undefined ? {} : { index }),
    ...(from === undefined ? {} : { from }),
    ...(hint === undefined ? {} : { hint }),
    ...(syscall === undefined ? {} : { syscall }),
    ...(path === undefined ? {} : { path }),
  };
}

/** What the plan itself is made with: where to look for the executable, and where home is. */
const NO_SECRETS = new Set(["PATH", "HOME"]);

/**
 * The definition with the values of environment variables blotted out: containers get passwords that way. Each keeps its
 * length, because by the places of its strings in the plan a trace says what calls pointed at.
 */
function withoutSecrets(definition: Definition): Definition {
  const { spec } = definition;
  const { process, hooks } = spec;
  const hidden = (list: readonly Hook[] | undefined) =>
    list?.map((hook) => (hook.env === undefined ? hook : { ...hook, env: hook.env.map(blot) }));
  return {
    ...definition,
    spec: {
      ...spec,
      ...(process?.env === undefined ? {} : { process: { ...process, env: process.env.map(blot) } }),
      ...(hooks === undefined
        ? {}
        : { hooks: Object.fromEntries(Object.entries(hooks).map(([kind, list]) => [kind, hidden(list)])) }),
    },
  };
}

function blot(entry: string): string {
  const [name = "", ...value] = entry.split("=");
  return value.length === 0 || NO_SECRETS.has(name)
    ? entry
    : `${name}=${"*".repeat(Buffer.byteLength(value.join("=")))}`;
}
