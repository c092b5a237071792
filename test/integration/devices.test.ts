import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import type { Device } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  exec,
  idle,
  makeBundle,
  probe,
  results,
  run,
  seenIn,
  type WholeSpec,
} from "../support/bundle.ts";

// OCI runtime-spec, config-linux.md "Devices", "Default Devices", "Device access", "/dev symbolic links".

afterEach(cleanUp);
afterAll(cleanUpFile);

const DEFAULTS = ["full 1:7", "null 1:3", "random 1:8", "tty 5:0", "urandom 1:9", "zero 1:5"];

function withMknod(spec: WholeSpec): void {
  const every = ["CAP_MKNOD", "CAP_SYS_ADMIN"];
  spec.process.capabilities = { bounding: every, permitted: every, effective: every };
}

test("/dev has the default devices, for everybody, and the links beside them", () => {
  covers("linux.devices default");
  const seen = probe(
    (spec) => {
      spec.process.user = { uid: 1000, gid: 1000, umask: 0o77 };
    },
    [
      "--write",
      "/dev/null",
      "x",
      "--open-device",
      "/dev/zero",
      "--open-device",
      "/dev/full",
      "--open-device",
      "/dev/urandom",
      "--open-device",
      "/dev/random",
    ],
  );
  const nodes = seen.devices.filter(({ type }) => type === "character" || type === "block");
  expect(nodes.map(({ name, major, minor }) => `${name} ${major}:${minor}`)).toEqual(DEFAULTS);
  for (const node of nodes) expect(node, node.name).toMatchObject({ mode: "0666", uid: 0, gid: 0 });
  const links = seen.devices.filter(({ type }) => type === "symlink").map(({ name, target }) => [name, target]);
  expect(Object.fromEntries(links)).toEqual({
    fd: "/proc/self/fd",
    stdin: "/proc/self/fd/0",
    stdout: "/proc/self/fd/1",
    stderr: "/proc/self/fd/2",
    ptmx: "pts/ptmx",
  });
  for (const action of seen.actions) expect(action.error, action.arguments.join(" ")).toBeNull();
});

test("devices of the spec are made exactly, whatever the caller's umask", () => {
  covers("linux.devices");
  const devices: Device[] = [
    { path: "/dev/fuse", type: "c", major: 10, minor: 229, fileMode: 0o640, uid: 33, gid: 44 },
    { path: "/dev/block", type: "b", major: 259, minor: 70000, fileMode: 0o600 },
    { path: "/dev/queue", type: "p", fileMode: 0o622, uid: 1 },
    { path: "/dev/deep/er/unbuffered", type: "u", major: 1, minor: 3 },
    { path: "/dev/null", type: "c", major: 1, minor: 3, fileMode: 0o600, uid: 7 },
    { path: "/outside", type: "c", major: 4095, minor: 1048575, fileMode: 0o1666 },
  ];
  const seen = probe(
    (spec) => {
      spec.root.readonly = false;
      spec.linux.devices = devices;
    },
    ["--stat", "/dev/deep/er/unbuffered", "--stat", "/outside"],
    { through: ["sh", "-c", 'umask 077; exec "$@"', "sh"] },
  );
  const at = (name: string) => seen.devices.find((device) => device.name === name);
  expect(at("fuse")).toMatchObject({ type: "character", major: 10, minor: 229, mode: "0640", uid: 33, gid: 44 });
  expect(at("block")).toMatchObject({ type: "block", major: 259, minor: 70000, mode: "0600", uid: 0, gid: 0 });
  expect(at("queue")).toMatchObject({ type: "fifo", mode: "0622", uid: 1 });
  expect(at("null")).toMatchObject({ major: 1, minor: 3, mode: "0600", uid: 7 });
  expect(at("zero")).toMatchObject({ mode: "0666" });
  expect(seen.actions[0]?.result).toMatchObject({ type: "character", device: "1:3", mode: "0666" });
  expect(seen.actions[1]?.result).toMatchObject({ type: "character", device: "4095:1048575", mode: "1666" });
});

test("the device controller refuses what is not allowed, and allows what every container needs", () => {
  covers("linux.resources.devices");
  const seen = probe(
    (spec) => {
      withMknod(spec);
      spec.linux.resources = {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, type: "c", major: 10, minor: 229, access: "r" },
        ],
      };
      spec.linux.devices = [{ path: "/dev/fuse", type: "c", major: 10, minor: 229, fileMode: 0o666 }];
    },
    [
      ...["--mknod", "/dev/mem", "c", "1", "1", "--open-device", "/dev/mem", "r"],
      ...["--mknod", "/dev/loop", "b", "7", "0", "--open-device", "/dev/loop", "r"],
      ...[
        "--open-device",
        "/dev/fuse",
        "w",
        "--open-device",
        "/dev/null",
        "rw",
        "--mknod",
        "/dev/another-null",
        "c",
        "1",
        "3",
      ],
    ],
  );
  const [, memory, , loop, fuseWrite, nullBoth, another] = seen.actions;
  expect(memory?.error).toBe("EPERM");
  expect(loop?.error).toBe("EPERM");
  expect(fuseWrite?.error).toBe("EPERM");
  expect(nullBoth?.result).toBe("character 1:3");
  expect(another?.error).toBeNull();
});

test("an allowed device can be made and opened, with the access allowed", () => {
  covers("linux.resources.devices");
  const seen = probe(
    (spec) => {
      withMknod(spec);
      spec.linux.resources = {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, type: "c", major: 1, minor: 11, access: "rm" },
        ],
      };
    },
    ["--mknod", "/dev/kmsg", "c", "1", "11", "--open-device", "/dev/kmsg", "w"],
  );
  expect(results(seen.actions)).toEqual([true, "EPERM"]);
});

test("a process that joins by exec is under the same controller", () => {
  const bundle = idle((spec) => {
    withMknod(spec);
    spec.linux.resources = { devices: [{ allow: false, access: "rwm" }] };
  });
  const seen = seenIn(
    exec(bundle, [
      "/bin/probe",
      "--mknod",
      "/dev/mem",
      "c",
      "1",
      "1",
      "--open-device",
      "/dev/mem",
      "r",
      "--open-device",
      "/dev/null",
      "r",
    ]),
  );
  // making a node is harmless and allowed, as with runc; opening it is not
  expect(seen.actions[1]?.error).toBe("EPERM");
  expect(seen.actions[2]?.error).toBeNull();
});

test("a device where the root has another kind of file is refused", () => {
  const bundle = makeBundle((spec) => {
    spec.root.readonly = false;
    spec.linux.devices = [{ path: "/etc/passwd", type: "c", major: 1, minor: 3 }];
  });
  const { status, stderr } = run(bundle);
  expect(status).toBe(1);
  expect(stderr).toContain("/linux/devices/0");
});

describe("in a user namespace", () => {
  const ids = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
  const inUserNamespace = (spec: WholeSpec) => {
    spec.linux.namespaces?.push({ type: "user" });
    Object.assign(spec.linux, { uidMappings: ids, gidMappings: ids });
  };

  test("the host's devices are bound and work, a FIFO is made, and a device that was made would not open", () => {
    covers("linux.devices", "linux.devices default");
    const seen = probe(
      (spec) => {
        inUserNamespace(spec);
        withMknod(spec);
        spec.linux.devices = [
          { path: "/dev/kmsg", type: "c", major: 1, minor: 11 },
          { path: "/dev/queue", type: "p", fileMode: 0o622, uid: 5, gid: 6 },
        ];
      },
      ["--write", "/dev/null", "x", "--open-device", "/dev/urandom", "--mknod", "/dev/own", "c", "1", "3"],
    );
    expect(seen.actions.map(({ error }) => error)).toEqual([null, null, "EPERM"]);
    const nodes = seen.devices.filter(({ type }) => type === "character");
    expect(nodes.map(({ name, major, minor }) => `${name} ${major}:${minor}`).sort()).toEqual(
      [...DEFAULTS, "kmsg 1:11"].sort(),
    );
    const queue = seen.devices.find(({ name }) => name === "queue");
    expect(queue).toMatchObject({ type: "fifo", mode: "0622", uid: 5, gid: 6 });
    expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/dev/null")?.type).toBe("devtmpfs");
  });

  test("a device that the host has not, or has as another, is an error with a remedy", () => {
    for (const [device, words] of [
      [{ path: "/dev/null", type: "c", major: 1, minor: 5 }, "the numbers it has there"],
      [{ path: "/dev/null", type: "b", major: 1, minor: 3 }, "the numbers it has there"],
      [{ path: "/dev/no-such-device", type: "c", major: 1, minor: 3 }, "/linux/devices/0"],
    ] as const) {
      const bundle = makeBundle((spec) => {
        inUserNamespace(spec);
        spec.linux.devices = [device];
      });
      expect(run(bundle), device.path).toMatchObject({ status: 1, stderr: expect.stringContaining(words) });
    }
  });

  test("a link of the image under a device's name is covered itself, not followed", () => {
    const bundle = makeBundle((spec) => {
      inUserNamespace(spec);
      spec.root.readonly = false;
      spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith("/dev"));
      spec.process.args = ["/bin/probe", "--read", "/etc/passwd"];
    });
    const before = readFileSync(join(bundle.rootfs, "etc/passwd"), "utf8");
    // the container's root must be able to make the other devices' places
    mkdirSync(join(bundle.rootfs, "dev"), { recursive: true });
    execFileSync("chown", ["-R", "100000:100000", join(bundle.rootfs, "dev")]);
    symlinkSync("/etc/passwd", join(bundle.rootfs, "dev/null"));
    const seen = seenIn(run(bundle));
    expect(results(seen.actions)).toEqual([before]);
  });
});

test("without a mount on /dev devices and links are made in the root, also in one that is read-only then", () => {
  covers("linux.devices default");
  for (const readonly of [true, false]) {
    const seen = probe(
      (spec) => {
        spec.root.readonly = readonly;
        spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith("/dev"));
      },
      ["--write", "/dev/null", "x"],
    );
    const nodes = seen.devices.filter(({ type }) => type === "character");
    expect(nodes.map(({ name, major, minor }) => `${name} ${major}:${minor}`)).toEqual(DEFAULTS);
    expect(seen.devices.filter(({ type }) => type === "symlink").map(({ name }) => name)).toEqual(
      expect.arrayContaining(["fd", "stdin", "stdout", "stderr"]),
    );
    expect(seen.actions[0]?.error).toBeNull();
  }
});

test("the host's /dev, bound, is left as it is, and a device that is named twice is made once", () => {
  const host = readdirSync("/dev").length;
  const seen = probe((spec) => {
    spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith("/dev"));
    spec.mounts.push({ destination: "/dev", type: "bind", source: "/dev", options: ["rbind"] });
  });
  expect(seen.devices.length).toBeGreaterThanOrEqual(host - 2);
  expect(readdirSync("/dev").length).toBe(host);
  const twice = probe((spec) => {
    spec.linux.devices = [1, 2].map(() => ({ path: "/dev/again", type: "c" as const, major: 1, minor: 3 }));
  });
  expect(twice.devices.filter(({ name }) => name === "again")).toHaveLength(1);
});
