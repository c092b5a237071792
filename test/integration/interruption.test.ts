import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  idle,
  makeBundle,
  runtime,
  startRuntime,
  stateRoot,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// A signal can come at any moment: before there is a process it is not lost, and does not leave half a container.

afterEach(cleanUp);
afterAll(cleanUpFile);

interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  says: string;
}

/** Runs a bundle, sends a signal to the runtime as soon as the file `mark` of the bundle is there. */
async function interrupt(bundle: Bundle, words: string[], signal: NodeJS.Signals): Promise<Ending> {
  const output = join(bundle.path, "said");
  const child = startRuntime(words, { output });
  const ended = new Promise<Omit<Ending, "says">>((resolve) => {
    child.once("exit", (code, by) => resolve({ code, signal: by }));
  });
  until("the mark is there", () => existsSync(join(bundle.path, "mark")));
  child.kill(signal);
  return { ...(await ended), says: readFileSync(output, "utf8") };
}

function readPid(bundle: Bundle): number {
  return Number(readFileSync(join(bundle.path, "mark"), "utf8"));
}

/** A hook that says it is there, and stays. */
function staying({ path }: Bundle): { path: string; args: string[] } {
  return { path: "/bin/sh", args: ["sh", "-c", `echo $$ > ${path}/new; mv ${path}/new ${path}/mark; exec sleep 30`] };
}

test.each([
  ["run", "createRuntime", {}],
  ["run", "createRuntime", { timeout: 20 }],
  ["run", "createContainer", {}],
  ["run", "poststart", {}],
  ["create", "prestart", {}],
] as const)("%s is ended while a %s hook runs (%j), and leaves nothing", async (command, kind, more) => {
  const bundle = makeBundle();
  const edited = JSON.parse(readFileSync(join(bundle.path, "config.json"), "utf8"));
  const config = { ...edited, hooks: { [kind]: [{ ...staying(bundle), ...more }] } };
  writeFileSync(join(bundle.path, "config.json"), JSON.stringify(config));
  const ended = await interrupt(bundle, [command, "--bundle", bundle.path, bundle.id], "SIGTERM");
  expect(ended).toEqual({ code: 143, signal: null, says: expect.stringContaining("interrupted by SIGTERM") });
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
  expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
  // one in the container has a pid of the container's, and ends with it
  if (kind !== "createContainer") until("the hook has ended", () => !alive(readPid(bundle)));
});

test("what comes before the process is there, and does not ask for an end, is the process's", async () => {
  const bundle = makeBundle((spec) => {
    // in a pid namespace of its own the kernel would keep from it what it does not handle
    spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "pid") ?? [];
    spec.process.args = ["/bin/probe", "--sleep", "60"];
    spec.hooks = { createRuntime: [] };
  });
  const config = JSON.parse(readFileSync(join(bundle.path, "config.json"), "utf8"));
  const hook = { path: "/bin/sh", args: ["sh", "-c", `echo $$ > ${bundle.path}/mark; kill -USR1 $PPID`] };
  config.hooks = { createRuntime: [hook] };
  writeFileSync(join(bundle.path, "config.json"), JSON.stringify(config));
  const ended = await interrupt(bundle, ["run", "--bundle", bundle.path, bundle.id], "SIGCONT");
  expect(ended).toMatchObject({ code: 128 + 10, signal: null });
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
});

test("exec that waits for a paused container is ended by a signal, and leaves no process", async () => {
  const bundle = idle();
  const count = () => runtime(["ps", "--format", "json", bundle.id]).stdout.split(",").length;
  expect(count()).toBe(1);
  expect(runtime(["pause", bundle.id]).status).toBe(0);
  const output = join(bundle.path, "said");
  const child = startRuntime(["exec", "--ignore-paused", bundle.id, "/bin/probe", "--sleep", "60"], { output });
  const ended = new Promise((resolve) => {
    child.once("exit", (code) => resolve(code));
  });
  until("it waits inside", () => count() === 2);
  child.kill("SIGTERM");
  expect(await ended).toBe(143);
  expect(readFileSync(output, "utf8")).toContain("exec failed: interrupted by SIGTERM");
  expect(runtime(["resume", bundle.id]).status).toBe(0);
  expect(count()).toBe(1);
});
