import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  type Edit,
  idle,
  kill,
  makeBundle,
  runtime,
  startRuntime,
  state,
  stateRoot,
  until,
} from "../support/bundle.ts";

// What is handed over by sockets: a pidfd to who asks for one, and word of being ready to a service manager.

const listeners: ChildProcess[] = [];

afterEach(() => {
  for (const listener of listeners.splice(0)) listener.kill("SIGKILL");
  cleanUp();
});
afterAll(cleanUpFile);

/** Starts a listener of test/support. @returns a function that reads what it has printed, line by line */
function listen(bundle: Bundle, script: string, ...words: string[]): () => unknown[] {
  const path = join(bundle.path, "heard");
  const output = openSync(path, "w");
  const helper = join(import.meta.dirname, "../support", script);
  listeners.push(spawn("python3", [helper, ...words], { stdio: ["ignore", output, "inherit"] }));
  closeSync(output);
  until("it listens", () => readFileSync(path, "utf8").startsWith("ready\n"));
  return () =>
    readFileSync(path, "utf8")
      .trimEnd()
      .split("\n")
      .slice(1)
      .map((line) => JSON.parse(line));
}

describe("--pidfd-socket", () => {
  test("gets a pidfd of the container's first process from create", () => {
    covers("create --pidfd-socket");
    const bundle = makeBundle();
    const socket = join(bundle.path, "pidfd");
    const heard = listen(bundle, "pidfd.py", socket);
    expect(create(bundle, {}, "--pidfd-socket", socket)).toMatchObject({ status: 0, stderr: "" });
    until("it has come", () => heard().length === 1);
    expect(heard()).toEqual([{ text: "standard", pids: [state(bundle).pid] }]);
  });

  test("gets one of the process that exec adds", () => {
    covers("exec --pidfd-socket");
    const bundle = idle();
    const socket = join(bundle.path, "pidfd");
    const pidFile = join(bundle.path, "pid");
    const heard = listen(bundle, "pidfd.py", socket);
    const running = startRuntime(
      ["exec", "--pidfd-socket", socket, "--pid-file", pidFile, bundle.id, "/bin/probe", "--sleep", "60"],
      {},
    );
    until("it has come", () => heard().length === 1 && existsSync(pidFile));
    expect(heard()).toEqual([{ text: "setns", pids: [Number(readFileSync(pidFile, "utf8"))] }]);
    running.kill("SIGKILL");
  });

  test("that nobody listens on is found before there is a container", () => {
    const bundle = makeBundle();
    expect(create(bundle, {}, "--pidfd-socket", join(bundle.path, "nobody"))).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/ENOENT from connect of .*nobody/),
    });
    expect(runtime(["state", bundle.id]).status).toBe(1);
  });
});

interface Packet {
  text: string;
  descriptors: number;
}

describe("NOTIFY_SOCKET", () => {
  const READY: Edit = (spec) => {
    spec.process.args = ["/bin/probe", "--notify", "STATUS=soon", "--notify", "READY=1\nSTATUS=here", "--sleep", "60"];
    spec.process.user = { uid: 1000, gid: 1000 };
  };
  /** What a manager hears: the word itself, whom to watch, and a barrier that comes with a pipe. */
  const told = (pid: number): Packet[] => [
    { text: "READY=1\n", descriptors: 0 },
    { text: `MAINPID=${pid}\n`, descriptors: 0 },
    { text: "BARRIER=1", descriptors: 1 },
  ];

  test.for(["path", "@abstract"])("start waits until the container is ready, and tells the manager at a %s", (kind) => {
    covers("NOTIFY_SOCKET");
    const bundle = makeBundle(READY);
    const manager = kind === "path" ? join(bundle.path, "manager") : `@caisson-test-${process.pid}`;
    const heard = listen(bundle, "datagram.py", manager, "3");
    const env = { ...process.env, NOTIFY_SOCKET: manager };
    expect(create(bundle, { env })).toMatchObject({ status: 0, stderr: "" });
    const { pid } = state(bundle);
    expect(runtime(["start", bundle.id], { env })).toMatchObject({ status: 0, stderr: "" });
    until("all has come", () => heard().length === 3);
    expect(heard()).toEqual(told(pid));
  });

  test("run in the foreground is itself what the manager is to watch", () => {
    const bundle = makeBundle(READY);
    const manager = join(bundle.path, "manager");
    const heard = listen(bundle, "datagram.py", manager, "3");
    const running = startRuntime(["run", "--bundle", bundle.path, bundle.id], {
      through: ["/usr/bin/env", `NOTIFY_SOCKET=${manager}`],
    });
    until("all has come", () => heard().length === 3);
    expect(heard()).toEqual(told(running.pid ?? 0));
    expect(kill(bundle, "KILL").status).toBe(0);
    until("run has ended", () => !alive(running.pid ?? 0));
    expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
  });

  test("whoever waits for a container that never says so goes when it does", () => {
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--sleep", "0.3"];
    });
    const manager = join(bundle.path, "manager");
    const heard = listen(bundle, "datagram.py", manager, "3");
    const env = { ...process.env, NOTIFY_SOCKET: manager };
    expect(create(bundle, { env }).status).toBe(0);
    expect(runtime(["start", bundle.id], { env })).toMatchObject({ status: 0, stderr: "" });
    expect(heard()).toEqual([]);
  });
});
