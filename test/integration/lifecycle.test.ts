import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  idle,
  kill,
  makeBundle,
  outputOf,
  remove,
  reportOf,
  run,
  runtime,
  runtimeCommand,
  scratchDirectory,
  seenIn,
  start,
  startContainer,
  startRuntime,
  state,
  stateRoot,
  states,
  underNode,
  until,
  untilStopped,
} from "../support/bundle.ts";
import {
  cgroupDirectories,
  differences,
  type HostSnapshot,
  processesNamed,
  snapshotHost,
} from "../support/host-snapshot.ts";

// OCI runtime-spec, runtime.md; and runc's command line, which engines speak.

let before: HostSnapshot;

beforeAll(() => {
  before = snapshotHost();
});

afterEach(cleanUp);
afterAll(cleanUpFile);

/** The message of a log line, without the time. */
function messageOf(stderr: string): string {
  return JSON.parse(/level=error msg=(".*")$/m.exec(stderr)?.[1] ?? '""');
}

/** The processes whose /proc/PID/cgroup names a container. */
function membersOf({ id }: Bundle): string[] {
  return cgroupDirectories()
    .filter((path) => path.endsWith(`/${id}`))
    .flatMap((path) =>
      readFileSync(`${path}/cgroup.procs`, "utf8")
        .split("\n")
        .filter((pid) => pid !== ""),
    );
}

test("created, running, stopped, gone", () => {
  covers("annotations", "start", "state", "kill", "delete", "create --bundle", "create --pid-file");
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--signal-wait"];
    spec.annotations = { "org.example.key": "value" };
  });
  const pidFile = join(bundle.path, "pid");
  expect(create(bundle, {}, "--pid-file", pidFile)).toMatchObject({ status: 0, stderr: "" });
  const created = state(bundle);
  expect(created).toMatchObject({
    ociVersion: expect.stringMatching(/^1\.\d+\.\d+/),
    id: bundle.id,
    status: "created",
    bundle: bundle.path,
    rootfs: bundle.rootfs,
    created: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
    owner: "",
    annotations: { "org.example.key": "value" },
  });
  expect(readFileSync(pidFile, "utf8")).toBe(String(created.pid));
  expect(alive(created.pid)).toBe(true);
  // nothing of the container's own has run
  expect(readFileSync(outputOf(bundle), "utf8")).toBe("");

  expect(start(bundle)).toMatchObject({ status: 0, stdout: "", stderr: "" });
  expect(state(bundle)).toMatchObject({ status: "running", pid: created.pid });
  until("it is ready", () => readFileSync(outputOf(bundle), "utf8").includes("ready"));
  for (const signal of ["HUP", "SIGUSR1", "10", "WINCH"])
    expect(kill(bundle, signal), signal).toMatchObject({ status: 0, stderr: "" });
  expect(kill(bundle, "RTMIN+3")).toMatchObject({ status: 0, stderr: "" });
  until("the signals have come", () => readFileSync(outputOf(bundle), "utf8").includes("RTMIN+"));
  expect(runtime(["kill", bundle.id])).toMatchObject({ status: 0, stderr: "" });
  untilStopped(bundle);
  expect(state(bundle)).toMatchObject({ status: "stopped", pid: 0 });
  const got = reportOf(bundle).actions[0]?.result;
  expect(got).toEqual(expect.arrayContaining(["SIGHUP", "SIGUSR1", "SIGWINCH", "SIGTERM"]));

  expect(remove(bundle)).toMatchObject({ status: 0, stdout: "", stderr: "" });
  expect(runtime(["state", bundle.id]).status).toBe(1);
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
});

test("a container that is only created can be killed, and deleted with and without force", () => {
  const killed = makeBundle();
  expect(create(killed).status).toBe(0);
  expect(kill(killed, "KILL")).toMatchObject({ status: 0, stderr: "" });
  untilStopped(killed);
  expect(start(killed).status).toBe(1);
  expect(remove(killed)).toMatchObject({ status: 0, stderr: "" });
  const deleted = makeBundle();
  expect(create(deleted).status).toBe(0);
  const { pid } = state(deleted);
  expect(remove(deleted)).toMatchObject({ status: 0, stderr: "" });
  expect(alive(pid)).toBe(false);
});

describe("the words of errors are runc's", () => {
  const peer = { program: "runc" };

  test("for what is not there", () => {
    covers("delete --force");
    for (const words of [
      ["state", "absent"],
      ["start", "absent"],
      ["kill", "absent", "KILL"],
      ["delete", "absent"],
      ["exec", "absent", "true"],
    ]) {
      const [ours, theirs] = [runtime(words), runtime(words, peer)];
      expect(messageOf(ours.stderr), words[0]).toBe(messageOf(theirs.stderr));
      expect(ours.status, words[0]).toBe(theirs.status);
    }
    for (const words of [
      ["delete", "--force", "absent"],
      ["delete", "-f", "absent"],
    ])
      expect(runtime(words)).toEqual({ status: 0, stdout: "", stderr: "" });
  });

  test("for what the status does not allow", () => {
    const bundle = idle();
    expect(messageOf(create(bundle).stderr)).toContain("container with given ID already exists");
    expect(messageOf(start(bundle).stderr)).toBe("cannot start an already running container");
    expect(messageOf(remove(bundle).stderr)).toBe(`cannot delete container ${bundle.id} that is not stopped: running`);
    expect(state(bundle).status).toBe("running");
    expect(kill(bundle, "KILL").status).toBe(0);
    untilStopped(bundle);
    expect(messageOf(kill(bundle, "KILL").stderr)).toBe("container not running");
    expect(messageOf(start(bundle).stderr)).toBe("cannot start a container that has stopped");
    expect(runtime(["exec", bundle.id, "true"])).toMatchObject({
      status: 255,
      stderr: expect.stringContaining("cannot exec in a stopped container"),
    });
  });

  test("for ids, signals, bundles and commands that cannot be", () => {
    const bundle = makeBundle();
    for (const id of ["", "a/b", "..", "a b", "-bad/", "ü"]) {
      const { status, stderr } = runtime(["create", "--bundle", bundle.path, "--", id]);
      expect(status, id).toBe(1);
      expect(messageOf(stderr), id).toMatch(/container ID|container id/);
    }
    expect(runtime(["run", "--bundle", "/no/such/bundle", "x"]).status).toBe(1);
    expect(messageOf(runtime(["run", "--bundle", "/tmp", "x"]).stderr)).toContain(
      "JSON specification file config.json not found",
    );
    const running = idle();
    expect(messageOf(kill(running, "NOSUCH").stderr)).toMatch(/signal/);
    expect(runtime(["nosuch"]).status).not.toBe(0);
    expect(states()).toEqual([running.id]);
  });

  test.each([
    { args: ["/no/such"], says: 'exec: "/no/such": stat /no/such: no such file or directory' },
    { args: ["absent"], says: 'exec: "absent": executable file not found in $PATH' },
    { args: ["/bin/not-executable"], says: 'exec: "/bin/not-executable": permission denied' },
    { args: ["/bin"], says: 'exec: "/bin": ' },
    { args: ["/bin/wrong-architecture"], says: "exec format error" },
    { args: ["/bin/no-interpreter"], says: "no such file or directory" },
    { args: ["/bin/carriage-return"], says: "no such file or directory" },
  ])("for $args, which cannot be executed", ({ args, says }) => {
    const bundle = makeBundle((spec) => {
      spec.process.args = args;
    });
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(messageOf(stderr)).toContain("unable to start container process");
    expect(messageOf(stderr)).toContain(says);
    expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
  });

  test("for a command that is missing, already from create, as engines expect", () => {
    for (const args of [["absent"], ["/no/such"], ["/bin/not-executable"]]) {
      const bundle = makeBundle((spec) => {
        spec.process.args = args;
      });
      const theirs = runtime(["create", "--bundle", bundle.path, bundle.id], peer);
      const ours = create(bundle);
      expect(ours.status, args[0]).toBe(theirs.status);
      // ours may say more after it
      expect(messageOf(ours.stderr), args[0]).toContain(
        messageOf(theirs.stderr)
          .replace(/^runc create failed: /, "")
          .replace(/: unknown$/, ""),
      );
    }
  });
});

test("list shows all containers as a table, as JSON, and by id alone", () => {
  covers("list --format", "list --quiet");
  rmSync(stateRoot(), { recursive: true, force: true });
  expect(runtime(["list"])).toMatchObject({ status: 1, stderr: expect.stringContaining("no such file or directory") });
  mkdirSync(stateRoot());
  expect(runtime(["list", "--format", "json"]).stdout.trim()).toBe("null");
  const running = idle();
  const created = makeBundle();
  expect(create(created).status).toBe(0);
  const table = runtime(["list"])
    .stdout.trimEnd()
    .split("\n")
    .map((line) => line.split(/\s{2,}/));
  expect(table[0]).toEqual(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
  expect(table.slice(1).map(([id, pid, status, bundle, , owner]) => ({ id, pid, status, bundle, owner }))).toEqual(
    [running, created]
      .sort((one, other) => (one.id < other.id ? -1 : 1))
      .map((each) => ({
        id: each.id,
        pid: String(state(each).pid),
        status: state(each).status,
        bundle: each.path,
        owner: "root",
      })),
  );
  expect(runtime(["list", "-q"]).stdout.trimEnd().split("\n").sort()).toEqual([running.id, created.id].sort());
  const text = runtime(["list", "-f", "json"]).stdout;
  // some read it with regular expressions
  expect(text).toMatch(
    /^\[\{"ociVersion":"[\d.]+","id":"[^"]+","pid":\d+,"status":"[a-z]+","bundle":"[^"]+","rootfs":/,
  );
  const json: unknown = JSON.parse(text);
  expect(json).toEqual(
    expect.arrayContaining([expect.objectContaining({ id: running.id, status: "running", owner: "root" })]),
  );
});

test("run --detach leaves a running container, run --keep a stopped one", () => {
  covers("run --detach", "run --keep");
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  const child = startRuntime(
    ["run", "--detach", "--pid-file", join(bundle.path, "pid"), "--bundle", bundle.path, bundle.id],
    { output: outputOf(bundle) },
  );
  until("the pid file is there", () => existsSync(join(bundle.path, "pid")));
  until("the runtime has gone", () => !alive(child.pid ?? 0));
  expect(state(bundle)).toMatchObject({
    status: "running",
    pid: Number(readFileSync(join(bundle.path, "pid"), "utf8")),
  });
  const kept = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--exit", "3"];
  });
  expect(run(kept, {}, "--keep").status).toBe(3);
  expect(state(kept).status).toBe("stopped");
});

/** Adopts what a command leaves, and reaps it at once: engines do. Arguments: create's command line as JSON, start's. */
const REAPER = `
import ctypes, json, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
for words in map(json.loads, sys.argv[1:]):
    child = os.posix_spawnp(words[0], words, os.environ)
    ended = status = None
    while ended != child:
        ended, status = os.wait()
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
`;

test("run takes no orphans of others, with --no-subreaper and without", () => {
  covers("run --no-subreaper");
  const log = join(scratchDirectory(), "subreaper");
  for (const flags of [["--no-subreaper"], []]) {
    const witness = ["strace", "-f", "-qq", "-e", "trace=prctl", "-o", log];
    seenIn(run(makeBundle(), { through: witness }, ...flags));
    const calls = readFileSync(log, "utf8");
    expect(calls).toContain("PR_SET_DUMPABLE");
    expect(calls).not.toContain("PR_SET_CHILD_SUBREAPER");
  }
});

test("a program that is over, and reaped, before start has looked at it was started all the same", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/true"];
  });
  const words = (...own: string[]) => [...runtimeCommand(), "--root", stateRoot(), ...own];
  const creates = words("create", "--bundle", bundle.path, bundle.id);
  const starts = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "inject=pidfd_open:delay_enter=500000"];
  const commands = [creates, [...starts, ...words("start", bundle.id)]].map((command) => JSON.stringify(command));
  const { status, stderr } = spawnSync("/usr/bin/python3", ["-c", REAPER, ...commands], {
    encoding: "utf8",
    stdio: ["ignore", "ignore", "pipe"],
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(state(bundle).status).toBe("stopped");
  expect(remove(bundle).status).toBe(0);
});

test("signals to run in the foreground reach the container", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--signal-wait"];
  });
  const child = startRuntime(["run", "--bundle", bundle.path, bundle.id], { output: outputOf(bundle) });
  until("it is ready", () => existsSync(outputOf(bundle)) && readFileSync(outputOf(bundle), "utf8").includes("ready"));
  for (const signal of ["SIGHUP", "SIGINT", "SIGUSR2", "SIGTERM"] as const) {
    child.kill(signal);
    until(`${signal} has come`, () => readFileSync(outputOf(bundle), "utf8").includes(signal));
  }
  until("the runtime has gone", () => !alive(child.pid ?? 0));
  expect(reportOf(bundle).actions[0]?.result).toEqual(["SIGHUP", "SIGINT", "SIGUSR2", "SIGTERM"]);
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
});

test("a signal that comes when the program runs is the program's, also where run has not noticed yet", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--signal-wait"];
  });
  const late = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", "inject=poll,ppoll:delay_enter=300000"];
  const child = startRuntime(["run", "--bundle", bundle.path, bundle.id], { output: outputOf(bundle), through: late });
  until("it is ready", () => existsSync(outputOf(bundle)) && readFileSync(outputOf(bundle), "utf8").includes("ready"));
  child.kill("SIGTERM");
  until("the runtime has gone", () => !alive(child.pid ?? 0));
  expect(reportOf(bundle).actions[0]?.result).toEqual(["SIGTERM"]);
});

test("the state directory and what is in it are its owner's alone", () => {
  const bundle = idle();
  const directory = join(stateRoot(), bundle.id);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  for (const name of readdirSync(directory)) expect(statSync(join(directory, name)).mode & 0o077, name).toBe(0);
});

test("a log file gets the error as JSON, with what the step was", () => {
  covers("--log", "--log-format", "--root");
  const log = join(mkdtempSync(join(scratchDirectory(), "log-")), "log");
  const bundle = makeBundle((spec) => {
    spec.mounts.push({ destination: "/tmp", type: "nosuchfs", source: "x" });
  });
  const { status } = runtime(["--log", log, "--log-format", "json", "create", "--bundle", bundle.path, bundle.id]);
  expect(status).toBe(1);
  expect(JSON.parse(readFileSync(log, "utf8"))).toMatchObject({
    level: "error",
    msg: expect.stringContaining("nosuchfs"),
    time: expect.any(String),
    from: "/spec/mounts/7",
    errno: "ENODEV",
  });
});

test("a creator that is killed at any moment leaves nothing that the next command does not remove", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
    spec.linux.namespaces?.push({ type: "cgroup" });
  });
  const started = Date.now();
  expect(create(bundle).status).toBe(0);
  const typicalMs = Date.now() - started;
  expect(remove(bundle, "--force").status).toBe(0);
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  // spread over the time that a creation takes; Node starts slowly, and most of that is before anything exists
  const rounds = underNode ? 10 : 20;
  for (let round = 0; round < rounds; round++) {
    const child = startRuntime(["create", "--bundle", bundle.path, bundle.id], { output: outputOf(bundle) });
    const pause = new Int32Array(new SharedArrayBuffer(4));
    Atomics.wait(pause, 0, 0, (typicalMs * (round + Math.random())) / rounds);
    child.kill("SIGKILL");
    until("the creator has gone", () => !alive(child.pid ?? 0));
    const left = existsSync(join(stateRoot(), bundle.id, "state.json")) ? state(bundle).status : "nothing";
    // recorded as created; where init had not been told to wait for start, it ended with its creator
    if (left === "created" || left === "stopped") {
      expect(remove(bundle, "--force"), `round ${round}`).toMatchObject({ status: 0, stderr: "" });
    } else {
      // the next create takes the place of what was abandoned
      expect(create(bundle), `round ${round}, ${left}`).toMatchObject({ status: 0, stderr: "" });
      expect(remove(bundle, "--force"), `round ${round}, ${left}`).toMatchObject({ status: 0, stderr: "" });
    }
    expect(
      cgroupDirectories().filter((path) => path.includes(bundle.id)),
      `round ${round}`,
    ).toEqual([]);
    expect(membersOf(bundle)).toEqual([]);
    expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
  }
  until(
    "no init is left",
    () => processesNamed(/^caisson-init/).filter((each) => !before.processes.includes(each)).length === 0,
  );
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts);
});

test("many containers at once do not get in each other's way", () => {
  const bundles = Array.from({ length: 6 }, () =>
    makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--sleep", "0.05"];
    }),
  );
  const children = bundles.map((bundle) =>
    startRuntime(["run", "--bundle", bundle.path, bundle.id], { output: outputOf(bundle) }),
  );
  until("all have ended", () => children.every(({ pid }) => !alive(pid ?? 0)));
  for (const bundle of bundles) expect(reportOf(bundle).cgroup.every((line) => line.endsWith(bundle.id))).toBe(true);
});

test("two creators of one id: one wins, the other is told", () => {
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  const children = [1, 2, 3].map((number) =>
    startRuntime(["create", "--bundle", bundle.path, bundle.id], { output: `${outputOf(bundle)}-${number}` }),
  );
  until("all have ended", () => children.every(({ pid }) => !alive(pid ?? 0)));
  const told = [1, 2, 3].filter((number) =>
    readFileSync(`${outputOf(bundle)}-${number}`, "utf8").includes("container with given ID already exists"),
  );
  expect(told).toHaveLength(2);
  expect(state(bundle).status).toBe("created");
});

test("after the last container the host is as it was before the first", () => {
  const bundle = makeBundle((spec) => {
    spec.linux.namespaces?.push({ type: "cgroup" });
    spec.linux.resources = { memory: { limit: 64 << 20 }, pids: { limit: 50 } };
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  startContainer(bundle);
  const during = differences(before, snapshotHost());
  expect(during.added.filter((line) => line.startsWith("cgroup ") && line.includes(bundle.id))).not.toEqual([]);
  expect(remove(bundle, "--force").status).toBe(0);
  // what other programs do meanwhile comes and goes; what we left would stay
  until("nothing new is on the host", () => differences(before, snapshotHost()).added.length === 0);
  expect(differences(before, snapshotHost()).removed.filter((line) => /^(mount|link|rule)/.test(line))).toEqual([]);
});

test("a container can be made, seen and deleted where /proc/sys is covered, or not covered any more", () => {
  const covered = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc/sys && exec "$@"', "sh"];
  for (const [made, seen] of [
    [covered, covered],
    [covered, []],
    [[], covered],
  ] as const) {
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--sleep", "60"];
    });
    expect(create(bundle, { through: [...made] })).toMatchObject({ status: 0, stderr: "" });
    const { pid } = state(bundle);
    const there = { through: [...seen] };
    expect(runtime(["start", bundle.id], there)).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(runtime(["state", bundle.id], there).stdout)).toMatchObject({ status: "running", pid });
    expect(runtime(["delete", "--force", bundle.id], there)).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(alive(pid)).toBe(false);
  }
});
