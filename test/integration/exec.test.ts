import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
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
  remove,
  results,
  runtime,
  seenIn,
  startRuntime,
  state,
  until,
  untilStopped,
} from "../support/bundle.ts";
import { directoryOf } from "../support/cgroup.ts";
import type { Seen } from "../support/seen.ts";

// runc exec, which engines use for further processes in a container.

afterEach(cleanUp);
afterAll(cleanUpFile);

function namespacesOf(pid: number): Partial<Seen["namespaces"]> {
  const names = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] as const;
  return Object.fromEntries(
    names.map((name) => [name, Number(/\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/${name}`))?.[1])]),
  );
}

test("a further process is in the same namespaces, cgroups and root, confined as the first", () => {
  const bundle = idle((spec) => {
    spec.linux.namespaces?.push({ type: "cgroup" }, { type: "time" });
    spec.hostname = "inside";
    spec.process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 100, hard: 200 }];
    spec.process.oomScoreAdj = 55;
  });
  const { pid } = state(bundle);
  const seen = seenIn(exec(bundle, ["/bin/probe", "--write", "/x", "y"]));
  expect(seen.namespaces).toEqual(namespacesOf(pid));
  expect(seen.hostname).toBe("inside");
  expect(seen.exe).toBe("/bin/probe");
  expect(seen.pid).toBeGreaterThan(1);
  expect(seen.sid).toBe(seen.pid);
  expect(seen.rlimits.RLIMIT_NOFILE).toEqual({ soft: 100, hard: 200 });
  expect(seen.oomScoreAdj).toBe(55);
  expect(seen.noNewPrivs).toBe(true);
  expect(seen.capabilities.effective).toBe("0000000020000420");
  expect(seen.capabilities.inheritable).toBe("0000000000000000");
  expect(seen.parentDeathSignal).toBe(0);
  expect(results(seen.actions)).toEqual(["EROFS"]);
  expect(seen.env).toEqual(expect.arrayContaining(["TERM=xterm", "HOME=/root"]));
  expect(seen.descriptors.map(({ fd }) => fd)).toEqual([0, 1, 2]);
  expect(new Set(seen.mounts.map(({ mountPoint }) => mountPoint))).toContain("/sys/fs/cgroup");
});

test("flags change environment, directory, user, groups and capabilities", () => {
  covers("exec --env", "exec --cwd", "exec --user", "exec --additional-gids", "exec --cap");
  const bundle = idle();
  const flags = [
    "--env",
    "ADDED=a=b",
    "-e",
    "TERM=vt100",
    "--cwd",
    "/home/app",
    "--user",
    "1000:1001",
    "--additional-gids",
    "29",
    "-g",
    "44",
    "--cap",
    "CAP_NET_RAW",
    "-c",
    "CAP_CHOWN",
  ];
  const seen = seenIn(exec(bundle, ["/bin/probe"], { flags }));
  expect(seen.env).toEqual(expect.arrayContaining(["ADDED=a=b", "TERM=vt100", "HOME=/home/app"]));
  expect(seen.env).not.toContain("TERM=xterm");
  expect(seen.cwd).toBe("/home/app");
  expect(seen.uids.effective).toBe(1000);
  expect(seen.gids.effective).toBe(1001);
  expect(seen.groups).toEqual([29, 44]);
  expect(seen.capabilities.bounding).toBe((0x20000420n | (1n << 13n) | 1n).toString(16).padStart(16, "0"));
  expect(seen.capabilities.inheritable).toBe("0000000000000000");
  const root = seenIn(exec(bundle, ["/bin/probe"], { flags: ["--cap", "CAP_NET_RAW"] }));
  expect(root.capabilities.effective).toBe("0000000020002420");
});

test("--cap gives ambient ones, too, where the container has inheritable ones", () => {
  covers("exec --cap");
  const two = ["CAP_CHOWN", "CAP_KILL"];
  const bundle = idle((spec) => {
    spec.process.capabilities = { bounding: two, permitted: two, effective: two, inheritable: two };
  });
  const flags = ["--user", "1000", "--cap", "CAP_KILL"];
  expect(seenIn(exec(bundle, ["/bin/probe"], { flags })).capabilities.ambient).toBe("0000000000000020");
});

test("process.json says everything by itself", () => {
  covers("exec --process");
  const bundle = idle();
  const path = join(bundle.path, "process.json");
  writeFileSync(
    path,
    JSON.stringify({
      args: ["probe", "--exit", "9"],
      env: ["PATH=/bin", "FROM=file"],
      cwd: "/tmp",
      user: { uid: 33, gid: 34, umask: 7, additionalGids: [5] },
      capabilities: { bounding: ["CAP_KILL"], permitted: [], effective: [] },
      noNewPrivileges: true,
      rlimits: [{ type: "RLIMIT_CORE", soft: 1, hard: 2 }],
    }),
  );
  const { status, stdout } = runtime(["exec", "--process", path, bundle.id]);
  expect(status).toBe(9);
  const seen: Seen = JSON.parse(stdout);
  expect(seen).toMatchObject({ cwd: "/tmp", umask: "0007", groups: [5], noNewPrivs: true, exe: "/bin/probe" });
  expect(seen.env).toEqual(["PATH=/bin", "FROM=file", "HOME=/"]);
  expect(seen.uids.real).toBe(33);
  expect(seen.rlimits.RLIMIT_CORE).toEqual({ soft: 1, hard: 2 });
  expect(seen.capabilities).toMatchObject({ bounding: "0000000000000020", permitted: "0000000000000000" });
});

test("what process.json does not say of capabilities, limits and umask is as the container's own process has it", () => {
  const bundle = idle((spec) => {
    spec.process.user = { umask: 0o77 };
    spec.process.rlimits = [{ type: "RLIMIT_CORE", soft: 3, hard: 4 }];
  });
  const path = join(bundle.path, "process.json");
  writeFileSync(path, JSON.stringify({ args: ["/bin/probe"], cwd: "/" }));
  const seen = seenIn(runtime(["exec", "--process", path, bundle.id]));
  expect(seen.capabilities).toMatchObject({ bounding: "0000000020000420", effective: "0000000020000420" });
  expect(seen.rlimits.RLIMIT_CORE).toEqual({ soft: 3, hard: 4 });
  expect(seen.umask).toBe("0077");
  // but not its flags
  expect(seen.noNewPrivs).toBe(false);
});

test("flags that make no sense are refused, and capabilities that nobody knows logged", () => {
  const bundle = idle();
  for (const [flags, says] of [
    [["--cwd", "tmp"], "Cwd must be an absolute path"],
    [["--env", "NOTHING"], "invalid environment variable: missing '='"],
    [["--env", "=x"], "invalid environment variable: name cannot be empty"],
    [["--console-socket", "/no/such"], "cannot use console socket if runc will not detach or allocate tty"],
    [["--process", "/no/such"], "open /no/such: no such file or directory"],
  ] as const)
    expect(exec(bundle, ["/bin/true"], { flags: [...flags] })).toMatchObject({
      status: 255,
      stderr: expect.stringContaining(says),
    });
  expect(exec(bundle, ["/bin/true"], { flags: ["--cap", "CAP_BOGUS"] })).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/level=warning msg=.*CAP_BOGUS/),
  });
});

test("a pid file that cannot be written ends the process", () => {
  const bundle = idle();
  const { status, stderr } = exec(bundle, ["/bin/probe", "--sleep", "60"], { flags: ["--pid-file", "/no/such/file"] });
  expect(status).toBe(255);
  expect(stderr).toMatch(/open \/no\/such\/file\S*: no such file or directory/);
  const { pid } = state(bundle);
  until("it has ended", () => runtime(["ps", "--format", "json", bundle.id]).stdout.trim() === `[${pid}]`);
});

test("the status is that of the command; what is wrong with it is told, with 255", () => {
  const bundle = idle();
  expect(exec(bundle, ["/bin/probe", "--exit", "77"]).status).toBe(77);
  for (const [command = "", says] of [
    ["absent", 'exec: "absent": executable file not found in $PATH'],
    ["/no/such", "no such file or directory"],
    ["/bin/not-executable", "permission denied"],
    ["/bin/wrong-architecture", "exec format error"],
  ]) {
    const { status, stderr } = exec(bundle, [command]);
    expect(status, command).toBe(255);
    expect(JSON.parse(/msg=(".*")$/m.exec(stderr)?.[1] ?? '""'), command).toContain(says);
  }
  expect(exec(bundle, ["/bin/true"], { flags: ["--cwd", "/no/such"] })).toMatchObject({
    status: 255,
    stderr: expect.stringContaining("no such file or directory"),
  });
  expect(exec(bundle, ["/bin/true"], { flags: ["--user", "root"] }).status).toBe(255);
  expect(exec(bundle, []).status).toBe(255);
  expect(state(bundle).status).toBe("running");
});

test("CVE-2024-21626: no working directory leads out of the root", () => {
  const bundle = idle();
  for (let fd = 3; fd < 12; fd++) {
    const { status, stdout } = exec(bundle, ["/bin/probe", "--stat", "../../../work"], {
      flags: ["--cwd", `/proc/self/fd/${fd}`],
    });
    expect(status, `descriptor ${fd}`).toBe(255);
    expect(stdout, `descriptor ${fd}`).toBe("");
  }
});

test("--detach leaves it running, with its pid in a file; it ends with the container", () => {
  covers("exec --detach", "exec --pid-file");
  const bundle = idle();
  const pidFile = join(bundle.path, "exec-pid");
  expect(execDetached(bundle, ["--pid-file", pidFile], ["/bin/probe", "--sleep", "60"])).toMatchObject({
    status: 0,
    stderr: "",
  });
  const pid = Number(readFileSync(pidFile, "utf8"));
  expect(alive(pid)).toBe(true);
  expect(namespacesOf(pid)).toEqual(namespacesOf(state(bundle).pid));
  expect(kill(bundle, "KILL").status).toBe(0);
  until("it has ended with the container", () => !alive(pid), 2000);
  untilStopped(bundle);
  expect(remove(bundle)).toMatchObject({ status: 0, stderr: "" });
});

test("signals to exec reach the process", () => {
  const bundle = idle();
  const output = outputOf(bundle);
  const child = startRuntime(["exec", bundle.id, "/bin/probe", "--signal-wait"], { output });
  until("it is ready", () => readFileSync(output, "utf8").includes("ready"));
  child.kill("SIGUSR1");
  until("the signal has come", () => readFileSync(output, "utf8").includes("SIGUSR1"));
  child.kill("SIGTERM");
  until("exec has ended", () => !alive(child.pid ?? 0));
  expect(readFileSync(output, "utf8")).toContain("SIGTERM");
  expect(state(bundle).status).toBe("running");
});

test("input is passed on, and a process that is killed says so by its status", () => {
  const bundle = idle();
  const seen = seenIn(exec(bundle, ["/bin/probe", "--report"], { input: "typed\n" }));
  expect(seen.actions).toHaveLength(1);
  expect(exec(bundle, ["/bin/probe", "--syscall", "62", "0", "9"]).status).toBe(137);
});

test("in a user namespace the process is a user of that namespace", () => {
  const bundle = idle((spec) => {
    spec.linux.namespaces?.push({ type: "user" });
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 1000 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100000, size: 1000 }];
  });
  const seen = seenIn(exec(bundle, ["/bin/probe"], { flags: ["--user", "5:6"] }));
  expect(seen.namespaces).toEqual(namespacesOf(state(bundle).pid));
  expect([seen.uids.real, seen.gids.real]).toEqual([5, 6]);
  expect(seen.uidMap).toEqual(["0 100000 1000"]);
  expect(exec(bundle, ["/bin/true"], { flags: ["--user", "5000"] }).status).toBe(255);
});

test("a container that is only created takes a further process, too", () => {
  const bundle: Bundle = makeBundle();
  expect(create(bundle).status).toBe(0);
  expect(seenIn(exec(bundle, ["/bin/probe"])).exe).toBe("/bin/probe");
  expect(state(bundle).status).toBe("created");
  expect(existsSync(outputOf(bundle))).toBe(true);
});

test("a container without a mount namespace of its own keeps its further processes in its root", () => {
  const bundle = idle((spec) => {
    spec.linux.namespaces = [{ type: "pid" }, { type: "uts" }, { type: "ipc" }, { type: "network" }];
    spec.mounts = [];
    delete spec.linux.maskedPaths;
    delete spec.linux.readonlyPaths;
  });
  const seen = seenIn(exec(bundle, ["/bin/probe", "--stat", "/work", "--stat", "/../../bin/probe"]));
  expect(seen.actions.map(({ error }) => error)).toEqual(["ENOENT", null]);
});

test("--cgroup puts the process beneath the container's cgroups: one, or those of named controllers", ({ skip }) => {
  covers("exec --cgroup");
  skip(!existsSync("/sys/fs/cgroup/memory/memory.limit_in_bytes"), "divides cgroups of version 1");
  const bundle = idle();
  const { pid } = state(bundle);
  for (const controller of ["memory", "pids"]) mkdirSync(`${directoryOf(pid, controller)}/sub`);
  const cgroupsIn = (...flags: string[]) =>
    Object.fromEntries(
      seenIn(exec(bundle, ["/bin/probe"], { flags })).cgroup.map((line) => {
        const [, names = "", path = ""] = line.split(":");
        return [names, path.slice(path.lastIndexOf("/") + 1)];
      }),
    );
  expect(cgroupsIn("--cgroup", "memory,pids:sub")).toMatchObject({ memory: "sub", pids: "sub", cpu: bundle.id });
  expect(cgroupsIn("--cgroup", "memory:sub")).toMatchObject({ memory: "sub", pids: bundle.id });
  for (const [argument = "", says = ""] of [
    ["memory:absent", "error adding pid to cgroups: "],
    ["nosuch:sub", "unknown controller nosuch in SubCgroupPaths"],
    ["memory:../other", "bad sub cgroup path: ../other is not a sub cgroup path"],
    [":sub", "empty <controller> prefix"],
    ["sub", "/sub: no such file or directory"],
  ])
    expect(exec(bundle, ["/bin/true"], { flags: ["--cgroup", argument] })).toMatchObject({
      status: 255,
      stderr: expect.stringContaining(says),
    });
});
