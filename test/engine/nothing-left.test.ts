import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { alive, underNode, until } from "../support/bundle.ts";
import { lastLine, Machine } from "../support/engine.ts";
import { snapshotHost } from "../support/host-snapshot.ts";

let machine: Machine;
const IMAGE = "caisson/quickstart";

beforeAll(async () => {
  machine = await Machine.make();
  for (const table of ["filter", "nat"])
    machine.network?.run(["sh", "-c", `iptables -t ${table} -N X && iptables -t ${table} -X X`]);
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

/** All of the host that a container could change, and the data directory but for images, a line each. */
function snapshot(): string[] {
  const below = (directory: string, options?: { recursive: boolean }) =>
    existsSync(directory)
      ? readdirSync(directory, { ...options, encoding: "utf8" }).map((name) => join(directory, name))
      : [];
  const kept = new RegExp(`^${machine.data}/(layers|oci|networks|volumes|failed)(/|$)`);
  return [
    ...snapshotHost().lines,
    ...(machine.network?.snapshot().split("\n") ?? []).map((line) => `in the network: ${line}`),
    ...["/run", "/dev/shm", "/tmp", machine.root].flatMap((directory) => below(directory)),
    ...below(machine.data, { recursive: true }).filter((path) => !kept.test(path)),
  ];
}

/** Waits until nothing is there that was not before; what others on this computer take away in between is their affair. */
function expectNothingAdded(before: string[]): void {
  const was = new Set(before);
  const added = () => snapshot().filter((line) => !was.has(line));
  try {
    until("nothing is left", () => added().length === 0, 10_000);
  } catch {
    expect(added()).toEqual([]);
  }
}

test("after a mixed lot of containers the host is as before", () => {
  machine.succeeds(["run", "--rm", IMAGE, "/bin/true"]);
  machine.settle();
  const before = snapshot();
  machine.succeeds([
    "run",
    "--rm",
    "-p",
    "8080:80",
    "--memory",
    "64m",
    "-v",
    `${machine.directory}:/host:ro`,
    "--tmpfs",
    "/t",
    IMAGE,
    "/bin/true",
  ]);
  machine.succeeds(["run", "--rm", "--userns", "auto", IMAGE, "/bin/true"]);
  machine.succeeds(["run", "--rm", "--privileged", "--network", "host", IMAGE, "/bin/true"]);
  machine.caisson(["run", "--rm", "-p", "8080:80", IMAGE, "/bin/none"]);
  machine.caisson(["run", "--rm", "-p", "8080:80", "-p", "8080:81", IMAGE, "/bin/true"]);
  machine.caisson(["run", "--rm", "--memory", "16m", IMAGE, "/bin/probe", "--allocate", "64"]);
  machine.atTerminal(["run", "--rm", "-it", "-p", "8080:80", IMAGE, "sh", "-c", "exit 3"], []);
  const ids = ["a", "b"].map((name) =>
    machine.succeeds([
      "run",
      "-d",
      "--name",
      name,
      "-p",
      `${name === "a" ? 8080 : 8081}:80`,
      IMAGE,
      "sh",
      "-c",
      "mkdir /sys/fs/cgroup/pids/x; sleep 60 & sleep 60",
    ]),
  );
  machine.succeeds(["exec", "a", "/bin/true"]);
  machine.succeeds(["stop", "-t", "0", "a"]);
  machine.succeeds(["kill", "b"]);
  machine.succeeds(["wait", "b"]);
  machine.succeeds(["rm", ...ids]);
  expectNothingAdded(before);
  expect(machine.network?.run(["cat", "/proc/sys/net/ipv4/ip_forward"])).toBe("0\n");
});

test("a run that is killed at any moment leaves nothing that the next command does not find", async () => {
  const before = snapshot();
  const moments = [5, 10, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 46, 50, 55, 60, 70, 85, 110, 150, 200].map((ms) =>
    underNode ? ms * 4 : ms,
  );
  let halves = 0;
  for (const ms of moments) {
    const client = machine.start([
      "run",
      "--name",
      "killed",
      "-p",
      "8080:80",
      "--memory",
      "64m",
      IMAGE,
      "/bin/probe",
      "--sleep",
      "60",
    ]);
    await new Promise((resolve) => setTimeout(resolve, ms));
    client.kill("SIGKILL");
    if (client.exitCode === null && client.signalCode === null) await once(client, "exit");
    if (machine.containers().length > 0) halves++;
    // one that had got far enough runs on, as if started with -d: then it is listed, and can be removed
    until(`what was killed after ${ms} ms is gone or listed`, () => {
      const listed = machine.caisson(["ps", "-aq"]).stdout.trim();
      if (listed !== "") machine.caisson(["rm", "-f", listed]);
      return machine.containers().length === 0;
    });
    expect(readdirSync(join(machine.data, "names")), `names after ${ms} ms`).toEqual([]);
  }
  expect(halves).toBeGreaterThan(0);
  expectNothingAdded(before);
  // name and port are free
  expect(
    lastLine(machine.succeeds(["run", "--rm", "--name", "killed", "-p", "8080:80", IMAGE, "/bin/probe"])).pid,
  ).toBe(1);
});

test("a container whose monitor is killed is ended by the next command, and kept with what it wrote", () => {
  const before = snapshot();
  const flags = (name: string, ...more: string[]) => [
    "run",
    "-d",
    "--name",
    name,
    ...more,
    IMAGE,
    "sh",
    "-c",
    "echo kept > /srv/file; echo ready; sleep 60",
  ];
  const kept = machine.succeeds(flags("kept", "-p", "8080:80"));
  machine.succeeds(flags("gone", "--rm", "-p", "8081:80"));
  until("both have written", () =>
    ["kept", "gone"].every((name) => machine.caisson(["logs", name]).stdout === "ready\n"),
  );
  const pids = ["kept", "gone"].map((name) => machine.inspect(name).State.Pid);
  for (const pid of machine.monitors()) process.kill(pid, "SIGKILL");
  until("the monitors are gone", () => !machine.monitors().some(alive));
  expect(machine.succeeds(["ps", "-q"])).toBe("");
  expect(pids.map(alive)).toEqual([false, false]);
  expect(machine.containers()).toEqual([kept]);
  expect(machine.inspect("kept").State).toMatchObject({ Status: "exited", ExitCode: 255 });
  expect(readFileSync(join(machine.data, "containers", kept, "upper/srv/file"), "utf8")).toBe("kept\n");
  machine.succeeds(["rm", "kept"]);
  expectNothingAdded(before);
});

test("a clean-up that is killed is done by the next command", async () => {
  const before = snapshot();
  for (let round = 0; round < 5; round++) {
    machine.succeeds(["run", "-d", "--rm", "-p", "8080:80", IMAGE, "/bin/true"]);
    await new Promise((resolve) => setTimeout(resolve, round * 5));
    for (const line of machine.processes())
      if (/ cleanup /.test(line)) process.kill(Number.parseInt(line, 10), "SIGKILL");
    until(
      "the next command has removed it",
      () => machine.succeeds(["ps", "-aq"]) === "" && machine.containers().length === 0,
    );
  }
  expectNothingAdded(before);
});
