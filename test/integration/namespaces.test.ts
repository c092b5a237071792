import { spawn } from "node:child_process";
import { readFileSync, readlinkSync } from "node:fs";
import { afterAll, afterEach, expect, test } from "vitest";
import type { NamespaceType } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  type Edit,
  exec,
  idle,
  makeBundle,
  probe,
  results,
  run,
  seenIn,
  state,
  until,
  type WholeSpec,
} from "../support/bundle.ts";
import type { Seen } from "../support/seen.ts";

// OCI runtime-spec, config-linux.md "Namespaces", "User namespace mappings", "Offset for Time Namespace".

afterEach(cleanUp);
afterAll(cleanUpFile);

type Name = keyof Seen["namespaces"];

const FILES: Record<NamespaceType, Name> = {
  cgroup: "cgroup",
  ipc: "ipc",
  mount: "mnt",
  network: "net",
  pid: "pid",
  time: "time",
  user: "user",
  uts: "uts",
};

/** Inode number of a process's namespace, as this process sees it. */
function namespaceOf(pid: number | "self", name: Name): number {
  return Number(/\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/${name}`))?.[1]);
}

function withNamespaces(...types: NamespaceType[]): Edit {
  return (spec) => {
    spec.linux.namespaces = types.map((type) => ({ type }));
  };
}

/** A spec for a process that shares the host's mounts: it sees the host's /proc through chroot only if it is mounted. */
function mapped(spec: WholeSpec): void {
  spec.linux.namespaces?.push({ type: "user" });
  spec.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
  spec.linux.gidMappings = [{ containerID: 0, hostID: 200000, size: 65536 }];
}

test("every namespace that is asked for is new, and no other", () => {
  covers(
    "linux.namespaces mount",
    "linux.namespaces pid",
    "linux.namespaces network",
    "linux.namespaces ipc",
    "linux.namespaces uts",
    "linux.namespaces cgroup",
    "linux.namespaces time",
  );
  const all = probe((spec) => {
    withNamespaces("cgroup", "ipc", "mount", "network", "pid", "time", "uts")(spec);
  });
  for (const name of ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"] as const)
    expect(all.namespaces[name], name).not.toBe(namespaceOf("self", name));
  expect(all.namespaces.user).toBe(namespaceOf("self", "user"));

  const few = probe((spec) => {
    withNamespaces("mount", "pid")(spec);
    delete spec.hostname;
  });
  for (const name of ["cgroup", "ipc", "net", "time", "uts", "user"] as const)
    expect(few.namespaces[name], name).toBe(namespaceOf("self", name));
  for (const name of ["mnt", "pid"] as const) expect(few.namespaces[name], name).not.toBe(namespaceOf("self", name));
});

test("a namespace with a path is joined", () => {
  covers("linux.namespaces.path");
  const first = idle((spec) => {
    spec.hostname = "first";
    spec.linux.namespaces?.push({ type: "cgroup" }, { type: "time" });
  });
  const { pid } = state(first);
  const joined = ["ipc", "network", "uts", "pid", "cgroup", "time"] as const;
  const seen = probe((spec) => {
    delete spec.hostname;
    spec.linux.namespaces = [
      { type: "mount" },
      ...joined.map((type) => ({ type, path: `/proc/${pid}/ns/${FILES[type]}` })),
    ];
  });
  for (const type of joined) expect(seen.namespaces[FILES[type]], type).toBe(namespaceOf(pid, FILES[type]));
  expect(seen.namespaces.mnt).not.toBe(namespaceOf(pid, "mnt"));
  expect(seen.hostname).toBe("first");
  // it is a further process there, not the first
  expect(seen.pid).toBeGreaterThan(1);
});

test("in a mount namespace with a path the container has its root, for itself alone", () => {
  covers("linux.namespaces.path");
  const other = spawn("unshare", ["--mount", "sleep", "60"], { stdio: "ignore" });
  const pid = other.pid ?? 0;
  try {
    until("it has its namespace", () => namespaceOf(pid, "mnt") !== namespaceOf("self", "mnt"));
    const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8");
    const bundle = idle((spec) => {
      delete spec.hostname;
      spec.linux.namespaces = [{ type: "mount", path: `/proc/${pid}/ns/mnt` }, { type: "pid" }];
      spec.mounts.push({ destination: "/bound", type: "bind", source: "/etc", options: ["bind", "ro"] });
    });
    expect(namespaceOf(state(bundle).pid, "mnt")).toBe(namespaceOf(pid, "mnt"));
    const seen = seenIn(exec(bundle, ["/bin/probe", "--stat", "/bound/passwd", "--stat", "/work"]));
    expect(seen.namespaces.mnt).toBe(namespaceOf(pid, "mnt"));
    expect(seen.actions.map(({ error }) => error)).toEqual([null, "ENOENT"]);
    expect(readFileSync(`/proc/${pid}/mountinfo`, "utf8")).toBe(mounts);
  } finally {
    other.kill("SIGKILL");
  }
});

test("a path that is no namespace, or one of another type, is refused", () => {
  covers("linux.namespaces.path");
  for (const path of ["/dev/null", "/proc/self/ns/net", "/no/such/file"]) {
    const bundle = makeBundle((spec) => {
      spec.linux.namespaces = [{ type: "mount" }, { type: "pid" }, { type: "uts", path }];
    });
    const { status, stderr } = run(bundle);
    expect(status, path).toBe(1);
    expect(stderr, path).toContain("/linux/namespaces/2");
  }
});

test("host name and domain name are the container's own", () => {
  covers("hostname", "domainname");
  const before = readFileSync("/proc/sys/kernel/hostname", "utf8");
  const seen = probe((spec) => {
    spec.hostname = "box.example";
    spec.domainname = "nis.example";
  });
  expect([seen.hostname, seen.domainname]).toEqual(["box.example", "nis.example"]);
  expect(readFileSync("/proc/sys/kernel/hostname", "utf8")).toBe(before);
});

test("a new network namespace has the loopback interface, up, and nothing else", () => {
  covers("linux.namespaces network");
  const seen = probe(() => undefined);
  expect(seen.network.map(({ name, up, addresses }) => ({ name, up, addresses }))).toEqual([
    { name: "lo", up: true, addresses: ["127.0.0.1/8", "::1/128"] },
  ]);
});

test("the clocks of a time namespace are shifted by the offsets", () => {
  covers("linux.timeOffsets");
  const host = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]);
  const seen = probe((spec) => {
    spec.linux.namespaces?.push({ type: "time" });
    spec.linux.timeOffsets = { monotonic: { secs: 100000, nanosecs: 500000000 }, boottime: { secs: 7000000 } };
  });
  expect(Number(seen.clocks.monotonic) - host).toBeGreaterThan(100000);
  expect(Number(seen.clocks.monotonic) - host).toBeLessThan(100020);
  expect(Number(seen.clocks.boottime) - host).toBeGreaterThan(7000000 - 1);
  expect(Number(seen.clocks.boottime) - host).toBeLessThan(7000020);
});

test("in a user namespace ids are mapped, and root in there is nobody of importance outside", () => {
  covers("linux.namespaces user", "linux.uidMappings");
  const seen = probe(mapped, [
    "--write",
    "/etc/passwd",
    "x",
    "--mknod",
    "/dev/sda",
    "b",
    "8",
    "0",
    "--syscall",
    "170",
    "renamed",
    "7",
    "--mount",
  ]);
  expect(seen.uidMap).toEqual(["0 100000 65536"]);
  expect(seen.gidMap).toEqual(["0 200000 65536"]);
  expect(seen.uids).toEqual({ real: 0, effective: 0, saved: 0, fs: 0 });
  expect(seen.namespaces.user).not.toBe(namespaceOf("self", "user"));
  expect(seen.capabilities.effective).toBe("0000000020000420");
  // the root's files belong to the host's root, who is not mapped; the rest needs capabilities it has not been given
  expect(results(seen.actions)).toEqual(["EROFS", "EPERM", "EPERM", "EPERM"]);
  // devices cannot be made in there: they are the host's, bound
  const found = seen.devices
    .filter(({ type }) => type === "character")
    .map(({ name, major, minor }) => `${name} ${major}:${minor}`);
  expect(found).toEqual(["full 1:7", "null 1:3", "random 1:8", "tty 5:0", "urandom 1:9", "zero 1:5"]);
  expect(seen.network.map(({ name, up }) => `${name} ${up}`)).toEqual(["lo true"]);
});

test("all capabilities in a user namespace rule that namespace, not the host", () => {
  const seen = probe(
    (spec) => {
      mapped(spec);
      const every = [
        "CAP_SYS_ADMIN",
        "CAP_MKNOD",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_NET_ADMIN",
      ];
      spec.process.capabilities = { bounding: every, permitted: every, effective: every };
      spec.root.readonly = false;
    },
    [
      "--mount",
      "--syscall",
      "170",
      "renamed",
      "7",
      "--mknod",
      "/tmp/disk",
      "b",
      "8",
      "0",
      "--write",
      "/etc/passwd",
      "x",
      "--setuid",
      "65535",
    ],
  );
  expect(results(seen.actions)).toEqual([true, 0, "EPERM", "EACCES", true]);
});

test("a user beyond the mapping is refused, and so is a mapping that overlaps", () => {
  const beyond = makeBundle((spec) => {
    mapped(spec);
    spec.process.user = { uid: 70000, gid: 0 };
  });
  expect(run(beyond)).toMatchObject({ status: 1 });
  const overlap = makeBundle((spec) => {
    mapped(spec);
    spec.linux.uidMappings?.push({ containerID: 10, hostID: 5, size: 1 });
  });
  const { status, stderr } = run(overlap);
  expect(status).toBe(1);
  expect(stderr).toContain("/linux/uidMappings");
});

test("a user namespace for which nobody is named has the caller as its root", () => {
  covers("linux.uidMappings");
  const seen = probe((spec) => {
    spec.linux.namespaces?.push({ type: "user" });
    for (const mount of spec.mounts) mount.options = mount.options?.filter((option) => option !== "gid=5") ?? [];
  });
  expect(seen.namespaces.user).not.toBe(namespaceOf("self", "user"));
  expect([seen.uids.real, seen.uidMap, seen.gidMap]).toEqual([0, ["0 0 1"], ["0 0 1"]]);
});

test("a user namespace needs no root", () => {
  covers("linux.uidMappings");
  const bundle = idle((spec) => {
    spec.linux.namespaces?.push({ type: "user" });
    spec.linux.uidMappings = [{ containerID: 1000, hostID: 100000, size: 1 }];
    spec.linux.gidMappings = [{ containerID: 1000, hostID: 200000, size: 1 }];
    spec.process.user = { uid: 1000, gid: 1000 };
    for (const mount of spec.mounts) mount.options = mount.options?.filter((option) => option !== "gid=5") ?? [];
  });
  const status = readFileSync(`/proc/${state(bundle).pid}/status`, "utf8");
  expect(status).toMatch(/^Uid:\t100000\t100000\t100000\t100000\nGid:\t200000\t200000\t200000\t200000$/m);
  const seen = seenIn(exec(bundle, ["/bin/probe"]));
  expect([seen.uids.real, seen.gids.real, seen.uidMap]).toEqual([1000, 1000, ["1000 100000 1"]]);
});

test("the user namespace of another process is joined, last", () => {
  covers("linux.namespaces.path");
  const first = idle(mapped);
  const { pid } = state(first);
  const seen = probe((spec) => {
    delete spec.hostname;
    spec.linux.namespaces = [
      { type: "user", path: `/proc/${pid}/ns/user` },
      { type: "mount" },
      { type: "pid" },
      { type: "ipc" },
      { type: "network", path: `/proc/${pid}/ns/net` },
      { type: "uts", path: `/proc/${pid}/ns/uts` },
    ];
  });
  expect(seen.namespaces.user).toBe(namespaceOf(pid, "user"));
  expect(seen.namespaces.net).toBe(namespaceOf(pid, "net"));
  expect(seen.uidMap).toEqual(["0 100000 65536"]);
  expect(seen.uids.real).toBe(0);
});

test("in a cgroup namespace the container's own cgroup is the root", () => {
  covers("linux.namespaces cgroup");
  const seen = probe((spec) => {
    spec.linux.namespaces?.push({ type: "cgroup" });
  });
  expect(seen.cgroup.map((line) => line.slice(line.indexOf(":", line.indexOf(":") + 1) + 1))).toEqual(
    seen.cgroup.map(() => "/"),
  );
  for (const mount of seen.mounts.filter(({ type }) => type.startsWith("cgroup")))
    expect(mount.root, mount.mountPoint).toBe("/");
});

test("without a mount namespace the container lives in its root, and the host's mounts stay as they are", () => {
  const before = readFileSync("/proc/self/mountinfo", "utf8");
  const bundle = makeBundle((spec) => {
    spec.linux.namespaces = [{ type: "pid" }, { type: "uts" }, { type: "ipc" }, { type: "network" }];
    delete spec.linux.maskedPaths;
    delete spec.linux.readonlyPaths;
    spec.root.readonly = false;
    spec.process.args = ["/bin/probe", "--stat", "/bin/probe", "--stat", "/work"];
  });
  const seen = seenIn(run(bundle));
  expect(seen.cwd).toBe("/");
  expect(seen.actions.map(({ error }) => error)).toEqual([null, "ENOENT"]);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(before);
});

test("the container's mounts do not appear on the host, even where the host's are shared", () => {
  // a namespace of our own, in which everything is shared, stands for such a host
  const bundle = makeBundle((spec) => {
    spec.process.args = ["/bin/probe"];
    spec.mounts.push({ destination: "/tmp", type: "tmpfs", source: "mark-of-the-container" });
  });
  const script = 'mount --make-rshared /; "$@" >/dev/null; grep -c mark-of-the-container /proc/self/mountinfo; true';
  const { status, stdout, stderr } = run(bundle, { through: ["unshare", "--mount", "sh", "-c", script, "sh"] });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "0\n", stderr: "" });
});

test("an empty path is no path: the namespace is a new one", () => {
  const seen = probe((spec) => {
    for (const namespace of spec.linux.namespaces ?? []) namespace.path = "";
  });
  expect(seen.namespaces.net).not.toBe(readlinkSync("/proc/self/ns/net"));
});
