import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  exec,
  execDetached,
  idle,
  kill,
  makeBundle,
  outputOf,
  run,
  runtime,
  start,
  startRuntime,
  state,
  stateRoot,
  until,
} from "../support/bundle.ts";
import type { Seen } from "../support/seen.ts";

// OCI runtime-spec, config.md "process.terminal"; runc's docs/terminals.md.

const helper = resolve(import.meta.dirname, "../support/terminal.py");
const receivers: ChildProcess[] = [];

afterEach(() => {
  for (const receiver of receivers.splice(0)) receiver.kill("SIGKILL");
  cleanUp();
});
afterAll(cleanUpFile);

/** Through a terminal of this size, on which this is typed. */
function terminal(typed: string, rows = 33, columns = 77): string[] {
  return ["python3", helper, "foreground", String(rows), String(columns), typed];
}

/** A socket that waits for a terminal, and what it has got so far. */
function consoleSocket({ path }: Bundle): { path: string; said: () => string } {
  const output = join(path, "console-output");
  const socket = join(path, "console.sock");
  const out = openSync(output, "w");
  receivers.push(spawn("python3", [helper, "socket", socket], { stdio: ["ignore", out, "inherit"] }));
  closeSync(out);
  const said = () => readFileSync(output, "utf8");
  until("the console socket listens", () => said().includes("listening"));
  return { path: socket, said };
}

function reportIn(text: string): Seen {
  return JSON.parse(text.split("\n").find((line) => line.startsWith("{")) ?? "");
}

function withTerminal(...args: string[]): Bundle {
  return makeBundle((spec) => {
    spec.process.terminal = true;
    spec.process.args = args;
    spec.process.user = { uid: 1000, gid: 1000 };
  });
}

const TERMINAL = expect.stringMatching(/^\/dev\/(pts\/0|console)$/);

function expectTerminal(seen: Seen): void {
  expect(seen.tty).toMatchObject({ stdin: true, stdout: true, stderr: true, controlling: true });
  expect(seen.descriptors.map(({ fd, target }) => ({ fd, target }))).toEqual(
    [0, 1, 2].map((fd) => ({ fd, target: TERMINAL })),
  );
}

test("run in the foreground gives the container a terminal of its own, as large as the caller's", () => {
  covers("process.terminal");
  const { status, stdout } = run(withTerminal("/bin/probe", "--exit", "5"), { through: terminal("") });
  const seen = reportIn(stdout);
  expectTerminal(seen);
  expect(seen.tty).toMatchObject({ rows: 33, columns: 77 });
  expect(seen.devices.find(({ name }) => name === "console")).toMatchObject({
    type: "character",
    major: 136,
    minor: 0,
    mode: "0620",
    uid: 1000,
  });
  expect(seen.sid).toBe(seen.pid);
  expect(status).toBe(5);
  expect(stdout).toContain("terminal restored");
});

test("what is typed reaches the container, and Ctrl-C is a signal there, not here", () => {
  const bundle = withTerminal("/bin/probe", "--signal-wait");
  const output = outputOf(bundle);
  const child = startRuntime(["run", "--bundle", bundle.path, bundle.id], { through: terminal("\\x03\\x1c"), output });
  const said = () => (existsSync(output) ? readFileSync(output, "utf8") : "");
  until("the signals have come", () => said().includes("SIGINT") && said().includes("SIGQUIT"));
  expect(kill(bundle, "TERM")).toMatchObject({ status: 0, stderr: "" });
  until("the terminal is given back", () => said().includes("terminal restored"));
  until("the runtime has gone", () => !alive(child.pid ?? 0));
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
});

test("consoleSize is the terminal's size for a console socket", () => {
  covers("process.consoleSize", "create --console-socket");
  const bundle = makeBundle((spec) => {
    spec.process.terminal = true;
    spec.process.consoleSize = { height: 11, width: 22 };
    spec.process.args = ["/bin/probe"];
  });
  const socket = consoleSocket(bundle);
  expect(create(bundle, {}, "--console-socket", socket.path)).toMatchObject({ status: 0, stderr: "" });
  expect(socket.said()).toContain("message /dev/");
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
  until("the report has come", () => socket.said().includes('"actions"') && socket.said().trimEnd().endsWith("}"));
  const seen = reportIn(socket.said());
  expectTerminal(seen);
  expect(seen.tty).toMatchObject({ rows: 11, columns: 22 });
});

test("the words about terminals that cannot be had are runc's", () => {
  const wanting = withTerminal("/bin/probe");
  expect(create(wanting).stderr).toContain("cannot allocate tty if runc will detach without setting console socket");
  const notWanting = makeBundle();
  expect(create(notWanting, {}, "--console-socket", "/tmp/x").stderr).toContain(
    "cannot use console socket if runc will not detach or allocate tty",
  );
  expect(create(wanting, {}, "--console-socket", "/no/such/socket").status).toBe(1);
});

test("exec --tty gives the process a terminal, in the foreground and through a console socket", () => {
  covers("exec --tty", "exec --console-socket");
  const bundle = idle();
  const { status, stdout } = exec(bundle, ["/bin/probe", "--exit", "6"], {
    flags: ["--tty", "--user", "1000:1000"],
    through: terminal("", 12, 34),
  });
  const seen = reportIn(stdout);
  expectTerminal(seen);
  expect(seen.tty).toMatchObject({ rows: 12, columns: 34 });
  expect(status).toBe(6);
  expect(stdout).toContain("terminal restored");

  const socket = consoleSocket(bundle);
  expect(execDetached(bundle, ["--tty", "--console-socket", socket.path], ["/bin/probe"])).toMatchObject({
    status: 0,
    stderr: "",
  });
  until("the report has come", () => socket.said().includes('"actions"') && socket.said().trimEnd().endsWith("}"));
  expectTerminal(reportIn(socket.said()));
  expect(runtime(["exec", "--tty", "--detach", bundle.id, "/bin/probe"])).toMatchObject({
    status: 255,
    stderr: expect.stringContaining("cannot allocate tty"),
  });
});

test("a terminal in a user namespace belongs to the user there", () => {
  const bundle = makeBundle((spec) => {
    spec.process.terminal = true;
    spec.process.user = { uid: 7, gid: 7 };
    spec.linux.namespaces?.push({ type: "user" });
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
  });
  const { status, stdout } = run(bundle, { through: terminal("") });
  expect(status, stdout).toBe(0);
  const seen = reportIn(stdout);
  expectTerminal(seen);
  expect(seen.devices.find(({ name }) => name === "console")).toMatchObject({ type: "character", uid: 7 });
});

test("a container with a terminal goes on when nobody holds its other end", () => {
  const bundle = makeBundle((spec) => {
    spec.process.terminal = true;
    spec.process.args = ["/bin/probe", "--signal-wait"];
  });
  const socket = consoleSocket(bundle);
  expect(create(bundle, {}, "--console-socket", socket.path).status).toBe(0);
  expect(start(bundle).status).toBe(0);
  until("it is ready", () => socket.said().includes("ready"));
  const { pid } = state(bundle);
  for (const receiver of receivers.splice(0)) receiver.kill("SIGKILL");
  // the kernel says SIGHUP to the session's leader, which this one takes
  expect(alive(pid)).toBe(true);
  expect(kill(bundle, "KILL").status).toBe(0);
});
