import { execFileSync, spawn, spawnSync } from "node:child_process";
import { closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, rmdirSync, writeSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  cleanUp,
  cleanUpFile,
  create,
  execDetached,
  makeBundle,
  remove,
  run,
  runtime,
  runtimeCommand,
  scratchDirectory,
  start,
  startRuntime,
  state,
  stateRoot,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";
import { PATIENCE } from "../support/patience.ts";

// Whoever does not answer, read or live any more: nobody waits for them without end.

afterEach(cleanUp);
afterAll(cleanUpFile);

test("a container whose init is killed between create and start is told to have stopped", () => {
  const bundle = makeBundle();
  expect(create(bundle).status).toBe(0);
  process.kill(state(bundle).pid, "SIGKILL");
  until("it has stopped", () => state(bundle).status === "stopped");
  expect(start(bundle)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("cannot start a container that has stopped"),
  });
  expect(remove(bundle)).toEqual({ status: 0, stdout: "", stderr: "" });
});

test("a container whose directory cannot be made is refused, not tried again", () => {
  const bundle = makeBundle();
  const createIn = (root: string, id: string) => {
    const words = [...runtimeCommand(), "--root", root, "create", "--bundle", bundle.path, id];
    const { status, stderr } = spawnSync("timeout", ["--signal=KILL", `${20 * PATIENCE}`, ...words], {
      encoding: "utf8",
      stdio: ["ignore", "ignore", "pipe"],
    });
    return { status, stderr };
  };
  const long = "a".repeat(256);
  for (const [root, id, why] of [
    [stateRoot(), long, "ENAMETOOLONG"],
    // where nobody makes directories
    ["/proc", "one", "ENOENT"],
    ["/sys", "one", "EPERM"],
  ] as const)
    expect(createIn(root, id)).toEqual({
      status: 1,
      stderr: expect.stringContaining(`${why} from mkdirat of ${root}/${id}`),
    });
});

test("whoever keeps a container's lock is named by start and delete, which give up", () => {
  const bundle = makeBundle();
  expect(create(bundle).status).toBe(0);
  const script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX); sys.stdin.read()";
  const holder = spawn("python3", ["-c", script, join(stateRoot(), bundle.id)]);
  try {
    until("it has the lock", () => readFileSync("/proc/locks", "latin1").includes(` ${holder.pid} `));
    const words = `container ${bundle.id} is in use: process ${holder.pid} (python3) has been at work on it for 10 s`;
    expect(start(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining(words) });
    expect(state(bundle).status).toBe("created");
    expect(remove(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining(words) });
  } finally {
    holder.kill();
  }
});

test("a container that is being started is not waited for to start it again", () => {
  const bundle = makeBundle(
    (spec) => {
      spec.hooks = { startContainer: [{ path: "/bin/sleep", args: ["sleep", "60"] }] };
    },
    { root: "shell" },
  );
  expect(create(bundle).status).toBe(0);
  const starting = startRuntime(["start", bundle.id]);
  until("the hook runs", () => state(bundle).status === "running");
  const { status, stderr } = start(bundle);
  expect(status).toBe(1);
  expect(stderr).toContain("cannot start an already running container");
  expect(alive(starting.pid ?? 0)).toBe(true);
  expect(remove(bundle, "--force")).toMatchObject({ status: 0 });
  until("start has ended", () => !alive(starting.pid ?? 0));
});

test("a terminal's output that nobody reads keeps no signal, and not the end", async () => {
  const bundle = makeBundle(
    (spec) => {
      spec.process.terminal = true;
      // in a pid namespace of its own the kernel would keep from it what it does not handle
      spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "pid") ?? [];
      spec.process.args = ["/bin/sh", "-c", "while :; do echo 0123456789; done"];
    },
    { root: "shell" },
  );
  const [command = "", ...words] = runtimeCommand();
  const child = spawn(command, [...words, "--root", stateRoot(), "run", "--bundle", bundle.path, bundle.id], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = new Promise((resolve) => child.once("exit", (code) => resolve(code)));
  until("it runs", () => runtime(["state", bundle.id]).stdout.includes('"running"'));
  const { pid } = state(bundle);
  const written = () => /^wchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1];
  let before: string | undefined;
  until("it is kept from writing", () => {
    const same = before === written();
    before = written();
    if (!same) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    return same && before !== undefined && before !== "0";
  });
  child.kill("SIGTERM");
  until("the container has ended", () => !alive(pid));
  expect(child.exitCode).toBe(null);
  child.kill("SIGTERM");
  expect(await ended).toBe(128 + 15);
});

test("all that a terminal's program has written arrives, however late it is read", () => {
  const count = 6600;
  const bundle = makeBundle(
    (spec) => {
      spec.process.terminal = true;
      spec.process.args = ["/bin/sh", "-c", `i=0; while [ $i -lt ${count} ]; do echo line $i; i=$((i+1)); done`];
    },
    { root: "shell" },
  );
  // more than a pipe holds, and less than that and a terminal: the program ends before anything is read
  const late = ["sh", "-c", '"$@" | { sleep 4; cat; }', "sh"];
  const { status, stdout } = run(bundle, { through: late });
  expect(status).toBe(0);
  expect(stdout.split("\r\n")).toEqual([...Array.from({ length: count }, (_, i) => `line ${i}`), ""]);
});

test("a log that nobody reads stops nothing: the error stream has it", () => {
  covers("--log");
  const pipe = join(scratchDirectory(), "log");
  execFileSync("mkfifo", [pipe]);
  const unread = runtime(["--log", pipe, "state", "absent"]);
  expect(unread).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("a pipe, or a socket, that nobody reads"),
  });
  const reader = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    expect(() => {
      for (;;) writeSync(reader, Buffer.alloc(4096));
    }).toThrow("EAGAIN");
    const full = runtime(["--log", pipe, "--debug", "state", "absent"]);
    expect(full).toMatchObject({ status: 1, stderr: expect.stringContaining("container does not exist") });
  } finally {
    closeSync(reader);
  }
});

test("a console socket that takes no connection is given up, and nothing is left", () => {
  const bundle = makeBundle((spec) => {
    spec.process.terminal = true;
  });
  const path = join(bundle.path, "console");
  const busy = spawn("python3", [
    "-c",
    `import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(0)
callers = []
try:
  while True:
    callers.append(socket.socket(socket.AF_UNIX))
    callers[-1].setblocking(False)
    callers[-1].connect(sys.argv[1])
except BlockingIOError:
  open(sys.argv[1] + ".full", "w").write("yes")
time.sleep(60)`,
    path,
  ]);
  try {
    until("nobody else gets in", () => {
      try {
        return readFileSync(`${path}.full`, "utf8") === "yes";
      } catch {
        return false;
      }
    });
    const { status, stderr } = run(bundle, {}, "--detach", "--console-socket", path);
    expect(status).toBe(1);
    expect(stderr).toContain(`cannot connect to ${path}: who listens there has taken no connection within 10 s`);
    expect(runtime(["list", "--quiet"]).stdout).not.toContain(bundle.id);
  } finally {
    busy.kill("SIGKILL");
  }
});

// /dev/fuse is for a file system that does not answer
test.skipIf(!existsSync("/dev/fuse")).each(["with", "without"])(
  "a process that the kernel does not let go is named, %s a pid namespace, and can be deleted later",
  (how) => {
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--sleep", "60"];
      // where init does not wait for the others, all cgroups do
      if (how === "without") spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "pid") ?? [];
      spec.mounts.push({ destination: "/mute", type: "bind", source: "mute", options: ["bind"] });
    });
    const [directory, asked] = [join(bundle.path, "mute"), join(bundle.path, "asked")];
    mkdirSync(directory);
    const files = spawn("python3", [join(import.meta.dirname, "../support/mute-files.py"), directory, asked]);
    try {
      until("the file system is there", () => existsSync(asked));
      expect(create(bundle, { through: ["nsenter", `--mount=/proc/${files.pid}/ns/mnt`] }).status).toBe(0);
      expect(start(bundle).status).toBe(0);
      expect(execDetached(bundle, [], ["/bin/probe", "--read", "/mute/file"]).status).toBe(0);
      until("somebody looks for a file", () => !existsSync(asked));
      const began = Date.now();
      const { status, stderr } = remove(bundle, "--force");
      expect(status).toBe(1);
      expect(Date.now() - began).toBeLessThan(18_000 * PATIENCE);
      expect(stderr).toMatch(/process \d+ did not end within 10 s of being killed: process \d+ .* \(state D\)/);
      expect(runtime(["list", "--quiet"]).stdout).toContain(bundle.id);
    } finally {
      files.kill("SIGKILL");
    }
    until("the kernel lets it go", () => state(bundle).status === "stopped");
    expect(remove(bundle, "--force")).toEqual({ status: 0, stdout: "", stderr: "" });
  },
);

// what init itself waits for, nobody else does: a directory of that file system, which it is to work in
test.skipIf(!existsSync("/dev/fuse"))(
  "a creation that is ended while init is stuck waits for it once, and says what is left",
  () => {
    const bundle = makeBundle((spec) => {
      spec.process.cwd = "/mute/nowhere";
      spec.mounts.push({ destination: "/mute", type: "bind", source: "mute", options: ["bind"] });
    });
    const [directory, asked, output] = ["mute", "asked", "output"].map((name) => join(bundle.path, name)) as [
      string,
      string,
      string,
    ];
    mkdirSync(directory);
    const files = spawn("python3", [join(import.meta.dirname, "../support/mute-files.py"), directory, asked]);
    const left = () => cgroupDirectories().filter((path) => path.endsWith(`/${bundle.id}`));
    try {
      until("the file system is there", () => existsSync(asked));
      const through = ["nsenter", `--mount=/proc/${files.pid}/ns/mnt`];
      const creating = startRuntime(["create", "--bundle", bundle.path, bundle.id], { through, output });
      until("init looks for a directory", () => !existsSync(asked));
      const began = Date.now();
      creating.kill("SIGTERM");
      until("it has been given up", () => !alive(creating.pid ?? 0), 120_000);
      expect(Date.now() - began).toBeLessThan(18_000 * PATIENCE);
      const said = readFileSync(output, "utf8");
      expect(said).toMatch(/process \d+ did not end within 10 s of being killed: process \d+ .* \(state D\)/);
      expect(left()).not.toEqual([]);
      for (const path of left()) expect(said).toContain(path);
    } finally {
      files.kill("SIGKILL");
    }
    until("the kernel lets it go", () =>
      left().every((path) => readFileSync(join(path, "cgroup.procs"), "utf8") === ""),
    );
    for (const path of left()) rmdirSync(path);
  },
);
