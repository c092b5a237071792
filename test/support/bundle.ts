import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect } from "vitest";
import { build, makeRoot } from "../../rootfs-fixtures/build.mjs";
import type { Linux, Mount, Process, Root, Spec } from "../../src/spec/spec.ts";
import { template } from "../../src/spec/template.ts";
import { PATIENCE } from "./patience.ts";
import type { Seen, SeenAction } from "./seen.ts";

/** A spec with everything that tests edit in place. */
export type WholeSpec = Spec & {
  process: Process & { args: string[]; env: string[] };
  root: Root;
  mounts: Mount[];
  linux: Linux;
};
export type Edit = (spec: WholeSpec) => void;

/** A bundle in a directory of its own. */
export interface Bundle {
  id: string;
  path: string;
  rootfs: string;
}

/** How a program ended, and what it said. */
export interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

export interface Invocation {
  /** Words before the runtime's own: a program that changes what it inherits. */
  through?: string[];
  /** Instead of Caisson: "runc". */
  program?: string;
  /** The runtime's own, which come before the command. */
  globalFlags?: string[];
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Descriptors 3, 4, … */
  descriptors?: number[];
  input?: string;
}

const TIMEOUT_MS = 20_000 * PATIENCE;
const project = resolve(import.meta.dirname, "../..");
let scratch = "";
let serial = 0;
const bundles: Bundle[] = [];

/** A directory for this file's tests; cleanUp removes it. */
export function scratchDirectory(): string {
  if (scratch === "") {
    build();
    scratch = mkdtempSync(join(tmpdir(), "caisson-test-"));
    // a container's user must be able to reach what is bound from here
    chmodSync(scratch, 0o755);
  }
  return scratch;
}

/** The state directory that all calls use. */
export function stateRoot(): string {
  return join(scratchDirectory(), "state");
}

/** The containers in a state directory: what is kept there beside them begins with a dot. */
export function states(root = stateRoot()): string[] {
  return existsSync(root) ? readdirSync(root).filter((name) => !name.startsWith(".")) : [];
}

/** The runtime's command line: CAISSON_BIN, or with CAISSON_BIN=node the JavaScript under Node; a name chooses the face. */
export function runtimeCommand(): string[] {
  const chosen = process.env.CAISSON_BIN ?? join(project, "dist/bin/caisson-runtime");
  if (chosen !== "node") return [chosen];
  const link = join(scratchDirectory(), "caisson-runtime");
  if (!existsSync(link)) symlinkSync(join(project, "dist/js/cli/main.js"), link);
  return [process.execPath, link];
}

/** Whether the tests drive the runtime under Node. */
export const underNode = process.env.CAISSON_BIN === "node";

function commandLine(
  words: readonly string[],
  { through = [], program, globalFlags = [] }: Invocation,
): [string, string[]] {
  const own = program === undefined ? runtimeCommand() : [program];
  const state = program === undefined ? stateRoot() : join(scratchDirectory(), program);
  const [command = "", ...rest] = [...through, ...own, "--root", state, ...globalFlags, ...words];
  return [command, rest];
}

/** Runs a command of the runtime to its end. */
export function runtime(words: readonly string[], how: Invocation = {}): Outcome {
  const [command, rest] = commandLine(words, how);
  const ended = spawnSync(command, rest, {
    encoding: "utf8",
    timeout: TIMEOUT_MS,
    maxBuffer: 1 << 26,
    input: how.input ?? "",
    stdio: ["pipe", "pipe", "pipe", ...(how.descriptors ?? [])],
    ...(how.cwd === undefined ? {} : { cwd: how.cwd }),
    ...(how.env === undefined ? {} : { env: how.env }),
  });
  if (ended.error !== undefined) throw ended.error;
  return { status: ended.status ?? -1, stdout: ended.stdout, stderr: ended.stderr };
}

/** Starts a command of the runtime with pipes for its streams. */
export function startPiped(words: readonly string[], how: Invocation = {}): ChildProcessWithoutNullStreams {
  return spawn(...commandLine(words, how));
}

/** Starts a command of the runtime and leaves it alone. */
export function startRuntime(words: readonly string[], how: Invocation & { output?: string } = {}): ChildProcess {
  const [command, rest] = commandLine(words, how);
  const output = how.output === undefined ? "ignore" : openSync(how.output, "a");
  const child = spawn(command, rest, { stdio: ["ignore", output, output] });
  if (output !== "ignore") closeSync(output);
  return child;
}

/** Makes a bundle: what `spec` writes, with the probe in place of a shell, and edited. */
export function makeBundle(
  edit: Edit = () => undefined,
  { root = "minimal" as "minimal" | "shell" | "hostile", canary = "" } = {},
): Bundle {
  const id = `test-${process.pid}-${serial++}`;
  const path = join(scratchDirectory(), id);
  const bundle = { id, path, rootfs: join(path, "rootfs") };
  mkdirSync(path);
  if (canary === "") makeRoot(root, bundle.rootfs);
  else makeRoot(root, bundle.rootfs, canary);
  bundles.push(bundle);
  rewrite(bundle, edit);
  return bundle;
}

/** Writes a bundle's config.json anew. */
export function rewrite(bundle: Bundle, edit: Edit): WholeSpec {
  const spec = wholeSpec();
  edit(spec);
  writeFileSync(join(bundle.path, "config.json"), JSON.stringify(spec));
  return spec;
}

function wholeSpec(): WholeSpec {
  const { process: own, root, mounts, linux, ...more } = template();
  if (own === undefined || root === undefined || mounts === undefined || linux === undefined)
    throw new Error("the template lacks what every container has");
  return {
    ...more,
    process: { ...own, terminal: false, args: ["/bin/probe"], env: own.env ?? [] },
    root,
    mounts,
    linux,
  };
}

/** Runs a bundle in the foreground, and removes it. */
export function run(bundle: Bundle, how: Invocation = {}, ...flags: string[]): Outcome {
  return runtime(["run", "--bundle", bundle.path, ...flags, bundle.id], how);
}

/** What the probe sees in a container of this spec, having done these actions. */
export function probe(
  edit: Edit,
  actions: string[] = [],
  how: Invocation & { flags?: string[]; root?: "minimal" | "shell" } = {},
): Seen {
  const bundle = makeBundle(
    (spec) => {
      spec.process.args = ["/bin/probe", ...actions];
      edit(spec);
    },
    { root: how.root ?? "minimal" },
  );
  return seenIn(run(bundle, how, ...(how.flags ?? [])));
}

/** The probe's report, which is the last line of its output. */
export function seenIn({ status, stdout, stderr }: Outcome): Seen {
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return lastLine(stdout);
}

export function lastLine(text: string): Seen {
  const seen: Seen = JSON.parse(text.trimEnd().split("\n").at(-1) ?? "");
  return seen;
}

/** What came of each action: its result, or the name of its error. */
export function results(actions: readonly SeenAction[]): unknown[] {
  return actions.map(({ result, error }) => error ?? result);
}

/** Runs a command that leaves a process behind: its output goes to a file, as a pipe would never end. */
function leave(words: readonly string[], output: string, how: Invocation = {}): Outcome {
  const [command, rest] = commandLine(words, how);
  const out = openSync(output, "a");
  const errors = openSync(`${output}.err`, "w+");
  try {
    const { status, error } = spawnSync(command, rest, {
      timeout: TIMEOUT_MS,
      stdio: ["ignore", out, errors, ...(how.descriptors ?? [])],
      ...(how.env === undefined ? {} : { env: how.env }),
    });
    if (error !== undefined) throw error;
    return { status: status ?? -1, stdout: "", stderr: readFileSync(`${output}.err`, "utf8") };
  } finally {
    closeSync(out);
    closeSync(errors);
  }
}

export function create(bundle: Bundle, how: Invocation = {}, ...flags: string[]): Outcome {
  return leave(["create", "--bundle", bundle.path, ...flags, bundle.id], outputOf(bundle), how);
}

export function start({ id }: Bundle): Outcome {
  return runtime(["start", id]);
}

/** Creates and starts a container whose process stays. */
export function startContainer(bundle: Bundle): void {
  expect(create(bundle)).toMatchObject({ status: 0, stderr: "" });
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
}

/** A running container in which nothing happens, for exec and the like. */
export function idle(edit: Edit = () => undefined): Bundle {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
    edit(spec);
  });
  startContainer(bundle);
  return bundle;
}

export function exec({ id }: Bundle, words: string[], how: Invocation & { flags?: string[] } = {}): Outcome {
  return runtime(["exec", ...(how.flags ?? []), id, ...words], how);
}

export function execDetached(bundle: Bundle, flags: string[], words: string[]): Outcome {
  return leave(["exec", "--detach", ...flags, bundle.id, ...words], outputOf(bundle));
}

export function kill({ id }: Bundle, signal: string): Outcome {
  return runtime(["kill", id, signal]);
}

export function remove({ id }: Bundle, ...flags: string[]): Outcome {
  return runtime(["delete", ...flags, id]);
}

/** The state as the runtime tells it. */
export function state({ id }: Bundle): { [field: string]: unknown; status: string; pid: number } {
  const { status, stdout, stderr } = runtime(["state", id]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout);
}

/** Where a container that was created writes. */
export function outputOf({ path }: Bundle): string {
  return join(path, "output");
}

/** The report of a created container that has ended. */
export function reportOf(bundle: Bundle): Seen {
  return lastLine(readFileSync(outputOf(bundle), "utf8"));
}

/** Waits for a condition that the kernel or another process makes true. */
export function until(what: string, condition: () => boolean, timeoutMs = 10_000): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  for (const deadline = Date.now() + timeoutMs * PATIENCE; !condition(); Atomics.wait(cell, 0, 0, 5))
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs * PATIENCE} ms in vain until ${what}`);
}

export function untilStopped(bundle: Bundle): void {
  const { pid } = state(bundle);
  if (pid !== 0) until(`process ${pid} has ended`, () => !alive(pid));
}

/** Whether a process lives; a zombie does not, unless other threads of it still hold what it had open. */
export function alive(pid: number): boolean {
  try {
    const ended = /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    return !ended || readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}

/** Deletes the containers of the test that has ended: for afterEach. */
export function cleanUp(): void {
  for (const { id, path } of bundles.splice(0)) {
    if (existsSync(join(stateRoot(), id))) runtime(["delete", "--force", id]);
    rmSync(path, { recursive: true, force: true });
  }
}

/** Removes what the file's tests shared, which must be empty by now: for afterAll. */
export function cleanUpFile(): void {
  const left = scratch === "" ? [] : states();
  rmSync(scratch, { recursive: true, force: true });
  scratch = "";
  expect(left).toEqual([]);
}
