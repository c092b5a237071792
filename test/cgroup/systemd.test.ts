import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Bus } from "../../src/cgroup/bus.ts";
import { setUnitProperties, startUnit, stopUnit } from "../../src/cgroup/systemd.ts";
import { until } from "../support/bundle.ts";

// The conversation with systemd, byte by byte understood by a codec that is not ours (test/support/fake_systemd.py).

let directory = "";
let fake: ChildProcess | undefined;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "caisson-systemd-"));
});

afterEach(() => {
  fake?.kill("SIGKILL");
  fake = undefined;
  vi.unstubAllEnvs();
  rmSync(directory, { recursive: true, force: true });
});

/** Starts a systemd of the user's, on its private socket or behind a bus. */
function listen(outcome: string, { broker = false } = {}): void {
  const socket = join(directory, broker ? "bus" : "systemd/private");
  mkdirSync(dirname(socket), { recursive: true });
  const words = [socket, join(directory, "log"), "/user.slice", outcome, ...(broker ? ["broker"] : [])];
  fake = spawn("python3", [join(import.meta.dirname, "../support/fake_systemd.py"), ...words], { stdio: "ignore" });
  until("the fake listens", () => existsSync(socket));
  vi.stubEnv("XDG_RUNTIME_DIR", directory);
  vi.stubEnv("DBUS_SESSION_BUS_ADDRESS", "");
}

interface Said {
  member: string;
  body: unknown[];
  error?: string;
}

function said(): Said[] {
  return readFileSync(join(directory, "log"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

const PROPERTIES = [
  { name: "Slice", value: { signature: "s", value: "system.slice" } },
  { name: "MemoryMax", value: { signature: "t", value: 2n ** 63n } },
  { name: "DeviceAllow", value: { signature: "a(ss)", value: [["/dev/char/1:3", "rwm"]] } },
  { name: "AllowedCPUs", value: { signature: "ay", value: Uint8Array.from([5]) } },
];

test("a unit is started with its properties and its process, and waited for", () => {
  listen("done");
  startUnit("web.scope", PROPERTIES, 4711, true);
  expect(said().map(({ member }) => member)).toEqual(["Subscribe", "StartTransientUnit"]);
  expect(said().at(-1)?.body).toEqual([
    "web.scope",
    "replace",
    [
      ["Slice", ["s", "system.slice"]],
      ["MemoryMax", ["t", 2 ** 63]],
      ["DeviceAllow", ["a(ss)", [["/dev/char/1:3", "rwm"]]]],
      ["AllowedCPUs", ["ay", [5]]],
      ["PIDs", ["au", [4711]]],
    ],
    [],
  ]);
});

test("behind a bus one says hello, and asks for the signals", () => {
  listen("done", { broker: true });
  startUnit("web.scope", PROPERTIES, 4711, true);
  expect(said().map(({ member }) => member)).toEqual(["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]);
});

test("a slice has no process of its own", () => {
  listen("done");
  startUnit("pod.slice", [], 4711, true);
  expect(said().at(-1)?.body).toEqual(["pod.slice", "replace", [], []]);
});

test("a job that fails is told, and forgotten by systemd", () => {
  listen("failed");
  expect(() => startUnit("web.scope", [], 1, true)).toThrow("error creating systemd unit `web.scope`: got `failed`");
  expect(said().at(-1)?.member).toBe("ResetFailedUnit");
});

test("what is left of an earlier unit is cleared away, once", () => {
  listen("exists");
  startUnit("web.scope", [], 1, true);
  expect(said().map(({ member }) => member)).toEqual([
    "Subscribe",
    "StartTransientUnit",
    "ResetFailedUnit",
    "StartTransientUnit",
  ]);
});

test("systemd's refusal is told in its own words", () => {
  listen("refused");
  expect(() => startUnit("web.scope", [], 1, true)).toThrow(
    'unable to start unit "web.scope": Cannot set property, or unknown property.',
  );
});

test("a unit is stopped, properties are changed until the next boot", () => {
  listen("done");
  setUnitProperties("web.scope", PROPERTIES.slice(0, 1), true);
  expect(said().at(-1)).toMatchObject({
    member: "SetUnitProperties",
    body: ["web.scope", true, [["Slice", ["s", "system.slice"]]]],
  });
  stopUnit("web.scope", true);
  expect(said().slice(-2)).toMatchObject([
    { member: "StopUnit", body: ["web.scope", "replace"] },
    { member: "ResetFailedUnit", body: ["web.scope"] },
  ]);
});

test("nobody is waited for without end", () => {
  listen("silent");
  const bus = Bus.open([{ path: join(directory, "systemd/private"), shared: false }], 200);
  try {
    expect(() => bus.await("a signal", () => true)).toThrow("timeout waiting for a signal on the bus");
  } finally {
    bus.close();
  }
});

test("where nobody listens, the reason is the kernel's", () => {
  vi.stubEnv("XDG_RUNTIME_DIR", directory);
  vi.stubEnv("DBUS_SESSION_BUS_ADDRESS", "");
  expect(() => stopUnit("web.scope", true)).toThrow(/ENOENT from connect/);
  vi.stubEnv("XDG_RUNTIME_DIR", "");
  expect(() => stopUnit("web.scope", true)).toThrow(/could not find the user's systemd/);
});
