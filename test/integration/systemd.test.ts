import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  makeBundle,
  results,
  runtime,
  scratchDirectory,
  seenIn,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// --systemd-cgroup, against a systemd that only listens: what a real one makes of it is tested where there is one.

let fake: ChildProcess | undefined;
const running = existsSync("/run/systemd/system");
const version1 = existsSync("/sys/fs/cgroup/pids/tasks");
const log = () => join(scratchDirectory(), "systemd.log");

beforeEach(() => rmSync(log(), { force: true }));

afterEach(() => {
  fake?.kill("SIGKILL");
  fake = undefined;
  cleanUp();
});
afterAll(cleanUpFile);

/** Starts the fake; the words run the rest in a mount namespace where that is the machine's systemd. */
function machineWithSystemd(outcome: string): string[] {
  const socket = join(scratchDirectory(), `systemd-${outcome}`);
  rmSync(socket, { force: true });
  const script = join(import.meta.dirname, "../support/fake_systemd.py");
  fake = spawn("python3", [script, socket, log(), "", outcome], { stdio: "ignore" });
  until("the fake listens", () => existsSync(socket));
  const prepare = [
    "mount -t tmpfs tmpfs /run",
    "mkdir -p /run/systemd/system",
    "touch /run/systemd/private",
    `mount --bind ${socket} /run/systemd/private`,
  ];
  return ["unshare", "--mount", "sh", "-ec", `${prepare.join("; ")}; exec "$@"`, "sh"];
}

function said(): { member: string; body: unknown[] }[] {
  return readFileSync(log(), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

const ours = () => cgroupDirectories().filter((path) => path.includes("caissontest.slice"));

test("without systemd it is refused in runc's words", ({ skip }) => {
  skip(running, "systemd runs here");
  const bundle = makeBundle();
  for (const flags of [["--systemd-cgroup"], ["--cgroup-manager", "systemd"]]) {
    const { status, stderr } = runtime([...flags, "run", "--bundle", bundle.path, bundle.id]);
    expect(status).toBe(1);
    expect(stderr).toContain("systemd not running on this host, cannot use systemd cgroups manager");
  }
  expect(runtime(["list", "-q"]).stdout).toBe("");
});

test("a container is in the scope that was asked for, with its limits, and the scope is stopped", ({ skip }) => {
  covers("--systemd-cgroup", "linux.cgroupsPath systemd", "org.systemd.property");
  skip(running, "would start a unit of the machine's systemd");
  skip(!version1, "the fake makes no cgroup of version 2");
  const through = machineWithSystemd("done");
  const bundle = makeBundle((spec) => {
    spec.linux.cgroupsPath = "caissontest.slice:probe:1";
    spec.linux.resources = { pids: { limit: 33 } };
    spec.annotations = { "org.systemd.property.CollectMode": "'inactive-or-failed'" };
    spec.process.args = ["/bin/probe", "--read", "/sys/fs/cgroup/pids/pids.max"];
  });
  const seen = seenIn(runtime(["--systemd-cgroup", "run", "--bundle", bundle.path, bundle.id], { through }));
  expect(results(seen.actions)).toEqual(["33\n"]);
  for (const line of seen.cgroup.filter((each) => !each.startsWith("0::")))
    expect(line).toMatch(/:\/caissontest\.slice\/probe-1\.scope$/);
  const calls = said();
  expect(calls.map(({ member }) => member)).toEqual([
    "Subscribe",
    "Get",
    "Get",
    "Subscribe",
    "StartTransientUnit",
    "Subscribe",
    "StopUnit",
    "ResetFailedUnit",
  ]);
  const [unit, mode, properties] = calls[4]?.body ?? [];
  expect([unit, mode]).toEqual(["probe-1.scope", "replace"]);
  expect(properties).toEqual(
    expect.arrayContaining([
      ["Slice", ["s", "caissontest.slice"]],
      ["Delegate", ["b", true]],
      ["TasksMax", ["t", 33]],
      ["DevicePolicy", ["s", "strict"]],
      ["CollectMode", ["s", "inactive-or-failed"]],
      ["PIDs", ["au", [expect.any(Number)]]],
    ]),
  );
  expect(ours().filter((path) => path.endsWith(".scope"))).toEqual([]);
  removeSlices();
});

test("a unit that systemd cannot make ends the creation, and leaves nothing", ({ skip }) => {
  skip(running, "would start a unit of the machine's systemd");
  const through = machineWithSystemd("failed");
  const bundle = makeBundle((spec) => {
    spec.linux.cgroupsPath = "caissontest.slice:probe:2";
  });
  const { status, stderr } = runtime(["--systemd-cgroup", "run", "--bundle", bundle.path, bundle.id], { through });
  expect(status).toBe(1);
  expect(stderr).toContain("error creating systemd unit `probe-2.scope`: got `failed`");
  expect(ours()).toEqual([]);
  expect(runtime(["list", "-q"]).stdout).toBe("");
});

test("a unit of somebody else's is not stopped: its name is refused", ({ skip }) => {
  skip(running, "would ask the machine's systemd");
  const through = machineWithSystemd("taken");
  const bundle = makeBundle((spec) => {
    spec.linux.cgroupsPath = "caissontest.slice:probe:3";
  });
  const { status, stderr } = runtime(["--systemd-cgroup", "run", "--bundle", bundle.path, bundle.id], { through });
  expect(status).toBe(1);
  expect(stderr).toContain('unable to start unit \\"probe-3.scope\\": Unit probe-3.scope already exists.');
  expect(said().map(({ member }) => member)).not.toContain("StopUnit");
  expect(ours()).toEqual([]);
  expect(runtime(["list", "-q"]).stdout).toBe("");
});

test("a path that is none of systemd's is refused", ({ skip }) => {
  skip(running, "would ask the machine's systemd");
  const through = machineWithSystemd("done");
  const bundle = makeBundle((spec) => {
    spec.linux.cgroupsPath = "/some/path";
  });
  const { stderr } = runtime(["--systemd-cgroup", "run", "--bundle", bundle.path, bundle.id], { through });
  expect(stderr).toContain("to be of format");
});

/** A real systemd removes slices by itself. */
function removeSlices(): void {
  for (const path of ours().reverse()) rmdirSync(path);
}
