import { closeSync, constants, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { parseMountinfo } from "../../src/linux/mountinfo.ts";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  create,
  exec,
  type Invocation,
  idle,
  makeBundle,
  reportOf,
  run,
  scratchDirectory,
  seenIn,
  start,
  state,
  untilStopped,
  type WholeSpec,
} from "../support/bundle.ts";
import type { Seen } from "../support/seen.ts";

// What a container must not inherit: CVE-2016-9962, CVE-2024-21626; and what it must.

afterEach(cleanUp);
afterAll(cleanUpFile);

function numbers({ descriptors }: Seen): number[] {
  return descriptors.map(({ fd }) => fd);
}

/** The probe's report by each way a process comes into a container. */
function everyWay(how: Invocation = {}): { [way: string]: Seen } {
  const created = makeBundle();
  expect(create(created, how).status).toBe(0);
  expect(start(created).status).toBe(0);
  untilStopped(created);
  return {
    run: seenIn(run(makeBundle(), how)),
    create: reportOf(created),
    exec: seenIn(exec(idle(), ["/bin/probe"], how)),
  };
}

test("standard streams block, as whoever gave them has it: a program that reads would fail otherwise", () => {
  for (const [way, seen] of Object.entries(everyWay())) {
    const flags = seen.descriptors.filter(({ fd }) => fd <= 2).map(({ flags }) => Number.parseInt(flags, 16));
    expect({ way, nonBlocking: flags.filter((word) => (word & constants.O_NONBLOCK) !== 0) }).toEqual({
      way,
      nonBlocking: [],
    });
  }
});

test("exactly the standard streams are open, by run, create and exec, whatever the caller had open", () => {
  const file = join(scratchDirectory(), "open-file");
  writeFileSync(file, "x");
  const leaked = [file, "/", "/proc/self/ns/mnt", "/sys/fs/cgroup"].map((path) => openSync(path, "r"));
  try {
    for (const [way, seen] of Object.entries(everyWay({ descriptors: leaked })))
      expect(numbers(seen), way).toEqual([0, 1, 2]);
  } finally {
    for (const fd of leaked) closeSync(fd);
  }
});

test.each([
  ["", () => undefined],
  [
    ", also where a user namespace has the host's bound",
    (spec: WholeSpec) => {
      const ids = [{ containerID: 0, hostID: 100_000, size: 1000 }];
      Object.assign(spec.linux, { uidMappings: ids, gidMappings: ids });
      spec.linux.namespaces?.push({ type: "user" });
    },
  ],
])("streams that lead nowhere are of the container's own /dev%s", (_, edit) => {
  const bundle = makeBundle((spec) => {
    edit(spec);
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  const through = ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh"];
  expect(create(bundle, { through }).status).toBe(0);
  expect(start(bundle).status).toBe(0);
  const { pid } = state(bundle);
  const mounts = parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`, "utf8"));
  const places = [0, 1, 2].map((fd) => {
    const id = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1];
    return mounts.find((mount) => mount.id === Number(id))?.mountPoint;
  });
  const own = mounts.some(({ mountPoint }) => mountPoint === "/dev/null") ? "/dev/null" : "/dev";
  expect(places).toEqual([own, own, own]);
  expect(statSync(`/proc/${pid}/fd/0`).rdev).toBe(statSync("/dev/null").rdev);
});

test("descriptors are preserved as asked for, with --preserve-fds and $LISTEN_FDS, and no others", () => {
  covers("create --preserve-fds", "exec --preserve-fds", "LISTEN_FDS");
  const paths = ["one", "two", "three", "four"].map((name) => join(scratchDirectory(), name));
  const given = paths.map((path) => {
    writeFileSync(path, path);
    return openSync(path, "r");
  });
  try {
    const two = seenIn(run(makeBundle(), { descriptors: given }, "--preserve-fds", "2"));
    expect(two.descriptors.slice(3).map(({ fd, target, cloexec }) => ({ fd, target, cloexec }))).toEqual([
      { fd: 3, target: paths[0], cloexec: false },
      { fd: 4, target: paths[1], cloexec: false },
    ]);
    expect(numbers(two)).toEqual([0, 1, 2, 3, 4]);
    const activating = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh"];
    const three = seenIn(run(makeBundle(), { descriptors: given, through: activating }, "--preserve-fds", "2"));
    expect(numbers(three)).toEqual([0, 1, 2, 3, 4, 5]);
    // the container is told of those that are for socket activation
    expect(three.env.filter((entry) => entry.startsWith("LISTEN_"))).toEqual(["LISTEN_FDS=1", "LISTEN_PID=1"]);
    // those meant for another process are not the container's
    const none = seenIn(
      run(makeBundle(), { descriptors: given, env: { ...process.env, LISTEN_FDS: "1", LISTEN_PID: "1" } }),
    );
    expect(numbers(none)).toEqual([0, 1, 2]);
    expect(none.env.join()).not.toContain("LISTEN");
    const joined = seenIn(exec(idle(), ["/bin/probe"], { descriptors: given, flags: ["--preserve-fds", "1"] }));
    expect(joined.descriptors.slice(3).map(({ target }) => target)).toEqual([paths[0]]);
  } finally {
    for (const fd of given) closeSync(fd);
  }
});

test("asking for descriptors that are not there is an error, in runc's words", () => {
  const refusals: { [count: string]: string } = {
    // an engine of JavaScript has descriptors of its own there, which are nobody's to give away
    1: "unable to stat preserved-fd 0 (of 1): stat /proc/self/fd/3: no such file or directory",
    90: "unable to stat preserved-fd 0 (of 90): stat /proc/self/fd/3: no such file or directory",
    "-1": 'invalid value \\"-1\\" for flag -preserve-fds: parse error',
    x: 'invalid value \\"x\\" for flag -preserve-fds: parse error',
    "": 'invalid value \\"\\" for flag -preserve-fds: parse error',
  };
  for (const [count, says] of Object.entries(refusals)) {
    const { status, stdout, stderr } = run(makeBundle(), {}, "--preserve-fds", count);
    expect({ status, stdout }, count).toEqual({ status: 1, stdout: "" });
    expect(stderr, count).toContain(says);
  }
  const activating = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3< /dev/null', "sh"];
  expect(run(makeBundle(), { through: activating }, "--preserve-fds", "2").stderr).toContain(
    "unable to stat preserved-fd 0 (of 2): stat /proc/self/fd/4: no such file or directory",
  );
});

test("signals are as the kernel starts with: none blocked, none ignored", () => {
  // the runtime itself is started with some blocked and ignored
  const through = [
    "python3",
    "-c",
    "import os,signal,sys; signal.pthread_sigmask(signal.SIG_BLOCK,{10,12,34}); [signal.signal(n,signal.SIG_IGN) for n in (1,2,13,17)]; os.execvp(sys.argv[1],sys.argv[1:])",
  ];
  for (const [way, seen] of Object.entries(everyWay({ through })))
    expect(seen.signals, way).toEqual({
      blocked: "0000000000000000",
      ignored: "0000000000000000",
      caught: "0000000000000000",
    });
});

test("limits, umask and niceness are the caller's where the spec says nothing", () => {
  const through = ["sh", "-c", 'umask 031; ulimit -Sn 345; ulimit -Ss 4321; nice -n 3 "$@"', "sh"];
  const bundle = () =>
    makeBundle((spec) => {
      delete spec.process.rlimits;
    });
  const seen = seenIn(run(bundle(), { through }));
  expect(seen.rlimits.RLIMIT_NOFILE?.soft).toBe(345);
  expect(seen.rlimits.RLIMIT_STACK?.soft).toBe(4321 * 1024);
  // runc starts containers with the usual umask, whatever its own is
  expect(seen.umask).toBe("0022");
  expect(seen.scheduler.nice).toBe(3);
  const theirs = seenIn(run(bundle(), { through, program: "runc" }));
  expect(theirs.umask).toBe(seen.umask);
  expect(theirs.scheduler.nice).toBe(seen.scheduler.nice);
  expect(theirs.rlimits.RLIMIT_STACK).toEqual(seen.rlimits.RLIMIT_STACK);
});

test("nothing of the caller's environment is passed on", () => {
  const seen = seenIn(run(makeBundle(), { env: { ...process.env, SECRET: "of-the-host", LD_BIND_NOW: "1" } }));
  expect(seen.env.map((entry) => entry.split("=")[0]).sort()).toEqual(["HOME", "PATH", "TERM"]);
});

test("a closed standard stream of the caller's is no way for another descriptor to take its place", () => {
  for (const closing of ["0<&-", "2>&-"]) {
    const { status, stdout } = run(makeBundle(), { through: ["sh", "-c", `exec "$@" ${closing}`, "sh"] });
    expect(status, closing).toBe(0);
    const seen: Seen = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
    for (const { fd, target } of seen.descriptors) {
      expect(fd, closing).toBeLessThan(3);
      expect(target, closing).toMatch(/^(pipe:|socket:|\/dev\/null)/);
    }
  }
});
