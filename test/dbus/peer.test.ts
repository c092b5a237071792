import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Bus } from "../../src/cgroup/bus.ts";
import { until } from "../support/bundle.ts";

// The reference implementation of D-Bus reads what we write, and writes what we read.

const BROKER = {
  destination: "org.freedesktop.DBus",
  path: "/org/freedesktop/DBus",
  interface: "org.freedesktop.DBus",
};
const present = spawnSync("dbus-daemon", ["--version"]).status === 0;
let directory = "";
let daemon: ChildProcess | undefined;
const socket = () => join(directory, "bus");

beforeAll(() => {
  if (!present) return;
  directory = mkdtempSync(join(tmpdir(), "caisson-dbus-"));
  daemon = spawn("dbus-daemon", ["--session", "--nofork", "--nosyslog", `--address=unix:path=${socket()}`], {
    stdio: "ignore",
  });
  until("dbus-daemon listens", () => existsSync(socket()));
});

afterAll(() => {
  daemon?.kill("SIGKILL");
  if (directory !== "") rmSync(directory, { recursive: true, force: true });
});

test("dbus-daemon lets us in, answers, refuses, and passes signals on", ({ skip }) => {
  skip(!present, "needs dbus-daemon");
  const bus = Bus.open([{ path: socket(), shared: true }], 10_000);
  const other = Bus.open([{ path: socket(), shared: true }], 10_000);
  try {
    expect(bus.call({ ...BROKER, member: "ListNames" })[0]).toEqual(expect.arrayContaining([BROKER.destination]));
    const [credentials] = bus.call({
      ...BROKER,
      member: "GetConnectionCredentials",
      signature: "s",
      body: [BROKER.destination],
    });
    expect(credentials).toEqual(expect.arrayContaining([["ProcessID", { signature: "u", value: daemon?.pid }]]));
    expect(() => bus.call({ ...BROKER, member: "GetNameOwner", signature: "s", body: ["org.nobody"] })).toThrow(
      expect.objectContaining({ code: "org.freedesktop.DBus.Error.NameHasNoOwner" }),
    );
    bus.watch("type='signal',member='NameOwnerChanged',arg0='org.caisson.Test'");
    other.call({ ...BROKER, member: "RequestName", signature: "su", body: ["org.caisson.Test", 0] });
    const { body } = bus.await(
      "the name",
      ({ member, body: [name] }) => member === "NameOwnerChanged" && name === "org.caisson.Test",
    );
    expect(body).toEqual(["org.caisson.Test", "", expect.stringMatching(/^:1\./)]);
  } finally {
    bus.close();
    other.close();
  }
});

test("whatever types an argument has, dbus-daemon finds the message sound", ({ skip }) => {
  skip(!present, "needs dbus-daemon");
  const bus = Bus.open([{ path: socket(), shared: true }], 10_000);
  try {
    // it looks at every byte of a message before it looks for who might answer; a malformed one would end the connection
    expect(() =>
      bus.call({
        destination: "org.nobody",
        path: "/",
        interface: "org.nobody",
        member: "Try",
        signature: "ssa(sv)a(sa(sv))ybnqiuxtdogva{sv}ay",
        body: [
          "a.scope",
          "replace",
          [
            ["DeviceAllow", { signature: "a(ss)", value: [["/dev/char/1:3", "rwm"]] }],
            ["AllowedCPUs", { signature: "ay", value: Uint8Array.from([1, 2, 3]) }],
            ["PIDs", { signature: "au", value: [1] }],
            ["Empty", { signature: "a(ss)", value: [] }],
          ],
          [["aux", []]],
          1,
          true,
          -2,
          3,
          -4,
          5,
          -6n,
          7n,
          8.5,
          "/a/b",
          "a{sv}",
          { signature: "v", value: { signature: "s", value: "é" } },
          [["key", { signature: "(ii)", value: [1, 2] }]],
          Uint8Array.from([]),
        ],
      }),
    ).toThrow(expect.objectContaining({ code: "org.freedesktop.DBus.Error.ServiceUnknown" }));
  } finally {
    bus.close();
  }
});
