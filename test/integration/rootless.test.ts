import { spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  type Edit,
  type Invocation,
  type Outcome,
  results,
  runtimeCommand,
  scratchDirectory,
  seenIn,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";
import { GID, rootless, UID, USER } from "../support/ordinary-user.ts";
import type { Seen } from "../support/seen.ts";

// A caller that is nobody special, and root of a user namespace: runc's "rootless containers".

/** What root lends that user in tests that need more than one id. */
const LENT = 700_000;
/** newuidmap is root's program by its set-user-id bit, and needs capabilities in its bounding set. */
const LENDER = USER.slice(0, -1);
const ROOT_OF_NAMESPACE = [...LENDER, "unshare", "--user", "--map-root-user"];
const version1 = existsSync("/sys/fs/cgroup/pids/tasks");

let home = "";

beforeEach(() => {
  home = join(scratchDirectory(), "home");
  mkdirSync(home, { recursive: true });
  chownSync(home, UID, GID);
});
afterEach(cleanUp);
afterAll(cleanUpFile);

/** Runs a command of the runtime as the user, who has a state directory of his own. */
function asUser(words: readonly string[], { through = USER, program, env = {} }: Invocation = {}): Outcome {
  const [command = "", ...rest] = [...through, ...(program === undefined ? runtimeCommand() : [program]), ...words];
  const ended = spawnSync(command, rest, {
    encoding: "utf8",
    timeout: 20_000,
    input: "",
    env: { PATH: process.env.PATH, XDG_RUNTIME_DIR: home, HOME: home, ...env },
  });
  if (ended.error !== undefined) throw ended.error;
  return { status: ended.status ?? -1, stdout: ended.stdout, stderr: ended.stderr };
}

const reachable = () => asUser(["--version"]).status === 0;
const UNREACHABLE = "an ordinary user must be able to execute the build";

function runAsUser(bundle: Bundle, how: Invocation = {}): Outcome {
  return asUser(["run", "--bundle", bundle.path, bundle.id], how);
}

function probeAsUser(edit: Edit, how: Invocation = {}, ids = { uid: UID, gid: GID }): Seen {
  return seenIn(runAsUser(rootless(edit, ids), how));
}

/** Words that run the rest in a mount namespace where root lends the user a range of ids; the host stays as it is. */
function lending(): string[] {
  const lent = join(scratchDirectory(), "lent");
  const lines = {
    passwd: `root:x:0:0::/:/bin/sh\nlodger:x:${UID}:${GID}::/:/bin/sh\n`,
    subuid: `lodger:${LENT}:65536\n`,
    subgid: `lodger:${LENT}:65536\n`,
  };
  mkdirSync(lent, { recursive: true });
  for (const [name, text] of Object.entries(lines)) writeFileSync(join(lent, name), text, { mode: 0o644 });
  // a file that the host lacks cannot be bound over: shadow's programs read /etc/subuid of this namespace's /etc
  const binds = Object.keys(lines).map((name) => `mount --bind ${lent}/${name} /etc/${name}`);
  return ["unshare", "--mount", "sh", "-ec", `${binds.join("; ")}; exec "$@"`, "sh", ...LENDER];
}

const RANGES: Edit = ({ linux }) => {
  linux.uidMappings = [
    { containerID: 0, hostID: UID, size: 1 },
    { containerID: 1, hostID: LENT, size: 1000 },
  ];
  linux.gidMappings = [
    { containerID: 0, hostID: GID, size: 1 },
    { containerID: 1, hostID: LENT, size: 1000 },
  ];
};

test("`spec --rootless` writes what runc writes", ({ skip }) => {
  covers("spec --rootless");
  skip(!reachable(), UNREACHABLE);
  const written = [undefined, "runc"].map((program) => {
    const directory = join(home, program ?? "caisson");
    mkdirSync(directory);
    chownSync(directory, UID, GID);
    const how = program === undefined ? {} : { program };
    expect(asUser(["spec", "--rootless", "--bundle", directory], how)).toMatchObject({ status: 0, stderr: "" });
    return JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
  });
  const [ours, theirs] = written;
  // up to 1.1 it asked for ambient capabilities that the kernel refuses without inheritable ones
  delete theirs.process.capabilities.ambient;
  expect({ ...ours, ociVersion: "" }).toEqual({ ...theirs, ociVersion: "" });
});

test("a user is root inside, and only of what is its own", ({ skip }) => {
  covers("rootless");
  skip(!reachable(), UNREACHABLE);
  const seen = probeAsUser((spec) => {
    spec.process.args = ["/bin/probe", "--write", "/dev/shm/file", "--write", "/proc/sys/kernel/hostname"];
  });
  expect(seen.uids).toEqual({ real: 0, effective: 0, saved: 0, fs: 0 });
  expect(seen.uidMap).toEqual([`0 ${UID} 1`]);
  expect(seen.gidMap).toEqual([`0 ${GID} 1`]);
  expect(seen.setgroups).toBe("deny");
  expect(seen.pid).toBe(1);
  expect(seen.dumpable).toBe(1);
  expect(seen.hostname).toBe("runc");
  expect(seen.capabilities.bounding).toBe(seen.capabilities.effective);
  const at = (path: string) => seen.mounts.findLast(({ mountPoint }) => mountPoint === path);
  expect(at("/sys")?.options).toContain("ro");
  expect(at("/sys/fs/cgroup")?.options).toContain("ro");
  // devices are the host's own nodes, which belong to nobody in here
  for (const name of ["null", "zero", "full", "random", "urandom", "tty"]) {
    expect(at(`/dev/${name}`), name).toBeDefined();
    expect(seen.devices.find((device) => device.name === name)).toMatchObject({ type: "character", uid: 65_534 });
  }
  expect(seen.namespaces.net).toBe(statSync("/proc/self/ns/net").ino);
  for (const name of ["user", "mnt", "pid", "ipc", "uts"] as const)
    expect(seen.namespaces[name], name).not.toBe(statSync(`/proc/self/ns/${name}`).ino);
  // it could make no cgroup, and stays where its caller was
  expect(seen.cgroup).toEqual(readFileSync("/proc/self/cgroup", "utf8").trim().split("\n"));
});

test("the caller's cgroups are to be seen, but not to be changed (CVE-2023-25809)", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const seen = probeAsUser((spec) => {
    spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "cgroup") ?? [];
    spec.mounts = spec.mounts.filter(({ destination }) => destination !== "/sys/fs/cgroup");
    spec.mounts.push({ destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["rw", "nosuid"] });
  });
  // by their mount points: those of the host that came with /sys are covered
  const cgroups = [...new Map(seen.mounts.map((mount) => [mount.mountPoint, mount])).values()].filter(({ type }) =>
    type.startsWith("cgroup"),
  );
  expect(cgroups).not.toEqual([]);
  expect(cgroups.filter(({ options }) => !options.includes("ro"))).toEqual([]);
});

test("runc's container is the same", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const [ours, theirs] = [undefined, "runc"].map((program) =>
    probeAsUser(
      (spec) => {
        spec.ociVersion = "1.0.2";
      },
      program === undefined ? {} : { program },
    ),
  );
  const view = (seen: Seen | undefined) => ({
    ids: [seen?.uids, seen?.gids, seen?.groups, seen?.uidMap, seen?.gidMap, seen?.setgroups],
    capabilities: seen?.capabilities,
    devices: seen?.devices.map(({ name, type, mode, uid, gid }) => [name, type, mode, uid, gid]).sort(),
    mounts: seen?.mounts
      .map(({ mountPoint, type, options, root }) => `${mountPoint} ${type} ${root} ${options}`)
      // of cgroups runc shows no version 2 beside version 1, and leaves the directory of hierarchies writable
      .filter((line) => !line.startsWith("/ ") && !line.startsWith("/sys/fs/cgroup"))
      .sort(),
  });
  expect(view(ours)).toEqual(view(theirs));
});

test("a container of a user lives as any other: create, exec, start, state, kill, delete", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const bundle = rootless((spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  const { id, path } = bundle;
  const said = (words: string[]) => {
    // create leaves a process that holds the streams it got
    const quiet = words[0] === "create" ? ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh"] : [];
    const { status, stderr, stdout } = asUser(words, { through: [...USER, ...quiet] });
    expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: "" });
    return stdout;
  };
  said(["create", "--bundle", path, id]);
  // the state directory is the user's own, and kept by its sticky bit
  expect(statSync(join(home, "caisson"))).toMatchObject({ uid: UID, mode: 0o41_700 });
  const created = JSON.parse(said(["state", id]));
  expect(created).toMatchObject({ status: "created", owner: String(UID) });
  try {
    expect(JSON.parse(said(["exec", id, "/bin/probe"])).uids.real).toBe(0);
    said(["start", id]);
    const added: Seen = JSON.parse(said(["exec", id, "/bin/probe"]));
    for (const [name, file] of [
      ["user", "user"],
      ["mnt", "mnt"],
      ["pid", "pid"],
    ] as const)
      expect(added.namespaces[name]).toBe(statSync(`/proc/${created.pid}/ns/${file}`).ino);
    expect(added.uidMap).toEqual([`0 ${UID} 1`]);
    expect(said(["list"])).toMatch(new RegExp(`^${id} +${created.pid} +running `, "m"));
    // without a cgroup its processes are found by their namespace
    expect(JSON.parse(said(["ps", "--format", "json", id]))).toEqual([created.pid]);
    said(["kill", id, "KILL"]);
    expect(spawnSync("tail", [`--pid=${created.pid}`, "-f", "/dev/null"], { timeout: 10_000 }).status).toBe(0);
    expect(JSON.parse(said(["state", id]))).toMatchObject({ status: "stopped" });
  } finally {
    asUser(["delete", "--force", id]);
  }
  expect(said(["list", "-q"])).toBe("");
});

test("ids that root has lent are mapped by newuidmap and newgidmap, and groups can be chosen", ({ skip }) => {
  covers("linux.uidMappings lent");
  skip(!reachable(), UNREACHABLE);
  skip(!existsSync("/etc/subuid") || !existsSync("/etc/subgid"), "needs /etc/subuid and /etc/subgid to bind over");
  const seen = probeAsUser(
    (spec) => {
      RANGES(spec);
      spec.process.user = { uid: 7, gid: 8, additionalGids: [9] };
    },
    { through: lending() },
  );
  expect(seen.uidMap).toEqual([`0 ${UID} 1`, `1 ${LENT} 1000`]);
  expect(seen.gidMap).toEqual([`0 ${GID} 1`, `1 ${LENT} 1000`]);
  expect(seen.setgroups).toBe("allow");
  expect(seen.uids.real).toBe(7);
  expect(seen.groups).toEqual([9]);
});

test("ids that nobody has lent are refused, and nothing is left", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const bundle = rootless(RANGES);
  const { status, stderr } = runAsUser(bundle, { through: LENDER });
  expect(status).toBe(1);
  expect(stderr).toMatch(/failed to use newuid map on \d+: .*\/etc\/subuid must lend this user/);
  expect(asUser(["list", "-q"]).stdout).toBe("");
});

test("what a user cannot have is refused in runc's words", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const refusals: [string, Edit][] = [
    [
      "rootless container requires user namespaces",
      ({ linux }) => {
        linux.namespaces = linux.namespaces?.filter(({ type }) => type !== "user") ?? [];
        linux.uidMappings = [];
        linux.gidMappings = [];
      },
    ],
    [
      "cannot set any additional groups in a rootless container",
      ({ process }) => {
        process.user = { uid: 0, gid: 0, additionalGids: [5] };
      },
    ],
    [
      "cannot set uid to unmapped user in user namespace",
      ({ process }) => {
        process.user = { uid: 5, gid: 0 };
      },
    ],
    [
      "cannot set gid to unmapped user in user namespace",
      ({ process }) => {
        process.user = { uid: 0, gid: 5 };
      },
    ],
    [
      "a score below one's own needs CAP_SYS_RESOURCE",
      ({ process }) => {
        process.oomScoreAdj = -500;
      },
    ],
  ];
  for (const [words, edit] of refusals) {
    const { status, stderr } = runAsUser(rootless(edit));
    expect({ words, status }).toEqual({ words, status: 1 });
    expect(stderr).toContain(words);
  }
});

test("limits without a cgroup of one's own, or a path where none may be made, are refused", ({ skip }) => {
  covers("--rootless");
  skip(!reachable(), UNREACHABLE);
  skip(!version1, "runc's words are others on cgroup version 2");
  const limited = runAsUser(
    rootless(({ linux }) => {
      linux.resources = { pids: { limit: 5 } };
    }),
  );
  expect(limited.status).toBe(1);
  expect(limited.stderr).toContain("cannot set pids limit: container could not join or create cgroup");
  const placed = runAsUser(
    rootless(({ linux }) => {
      linux.cgroupsPath = "/caisson-nowhere";
    }),
  );
  expect(placed.status).toBe(1);
  expect(placed.stderr).toMatch(/makes the cgroup .*EACCES at \/linux\/cgroupsPath/);
  // who insists on cgroups is refused, too
  const bundle = rootless();
  const strict = asUser(["--rootless=false", "run", "--bundle", bundle.path, bundle.id]);
  expect(strict.status).toBe(1);
  expect(strict.stderr).toMatch(/makes the cgroup .*EACCES/);
  expect(asUser(["--rootless=perhaps", "list"]).stderr).toContain("invalid value for --rootless: perhaps");
});

test("a cgroup that was handed to the user is used, with its limits, and removed", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  skip(!version1, "hands over a cgroup of version 1");
  const own = `/sys/fs/cgroup/pids/caisson-lodging-${process.pid}`;
  mkdirSync(own);
  chownSync(own, UID, GID);
  try {
    const through = ["sh", "-c", `echo $$ > ${own}/cgroup.procs; exec "$@"`, "sh", ...USER];
    const bundle = rootless(({ linux, process }) => {
      linux.resources = { pids: { limit: 33 } };
      linux.namespaces?.push({ type: "cgroup" });
      process.args = ["/bin/probe", "--read", "/sys/fs/cgroup/pids/pids.max"];
    });
    // a cgroup namespace shows the container's own cgroup as the root
    expect(results(seenIn(runAsUser(bundle, { through })).actions)).toEqual(["33\n"]);
    expect(cgroupDirectories().filter((path) => path.startsWith(`${own}/`))).toEqual([]);
    const refused = runAsUser(
      rootless(({ linux }) => {
        linux.resources = { pids: { limit: 33 }, memory: { limit: 1 << 26 } };
      }),
      { through },
    );
    expect(refused.stderr).toContain("cannot set memory limit: container could not join or create cgroup");
    expect(cgroupDirectories().filter((path) => path.startsWith(`${own}/`))).toEqual([]);
  } finally {
    rmdirSync(own);
  }
});

test("exec enters the cgroups that it may, and stays outside of others", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  skip(!version1 || !existsSync("/sys/fs/cgroup/unified/cgroup.procs"), "hands over cgroups of both versions");
  const hierarchies = ["pids", "unified"] as const;
  const [first, second] = hierarchies.map((name) => `/sys/fs/cgroup/${name}/caisson-exec-${process.pid}`);
  const owned = [`${first}`, `${second}`, `${second}/cgroup.procs`];
  for (const path of [first, second]) mkdirSync(`${path}`);
  for (const path of owned) chownSync(path, UID, GID);
  const inside = [
    "sh",
    "-c",
    `for d in ${first} ${second}; do echo $$ > $d/cgroup.procs; done; exec "$@"`,
    "sh",
    ...USER,
  ];
  const bundle = rootless((spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  const quiet = ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh"];
  try {
    const run = asUser(["run", "--detach", "--bundle", bundle.path, bundle.id], { through: [...inside, ...quiet] });
    expect(run.status).toBe(0);
    const { cgroup } = seenIn(asUser(["exec", bundle.id, "/bin/probe"]));
    const own = (line: string) => line.endsWith(`/caisson-exec-${process.pid}/${bundle.id}`);
    expect(cgroup.filter(own).map((line) => line.split(":")[1])).toEqual(["pids"]);
    const near = seenIn(asUser(["exec", bundle.id, "/bin/probe"], { through: inside }));
    expect(near.cgroup.filter(own).map((line) => line.split(":")[1])).toEqual(["pids", ""]);
  } finally {
    asUser(["delete", "--force", bundle.id]);
    for (const path of [first, second]) rmdirSync(`${path}`);
  }
});

test("a clock of its own begins with the program", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const seen = probeAsUser(({ linux }) => {
    linux.namespaces?.push({ type: "time" });
    linux.timeOffsets = { boottime: { secs: 1_000_000 } };
  });
  expect(seen.namespaces.time).not.toBe(statSync("/proc/self/ns/time").ino);
  expect(Number(seen.clocks.boottime.split(".")[0])).toBeGreaterThan(1_000_000);
});

test("root of a user namespace runs containers in it, with one of their own and without", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const how = { through: ROOT_OF_NAMESPACE };
  const own = probeAsUser(() => undefined, how, { uid: 0, gid: 0 });
  expect(own.uidMap).toEqual(["0 0 1"]);
  const shared = probeAsUser(({ linux }) => {
    linux.namespaces = linux.namespaces?.filter(({ type }) => type !== "user") ?? [];
    linux.uidMappings = [];
    linux.gidMappings = [];
  }, how);
  expect(shared.uidMap).toEqual([`0 ${UID} 1`]);
  expect(shared.pid).toBe(1);
  // no device can be made in there, so they are bound
  expect(shared.mounts.some(({ mountPoint }) => mountPoint === "/dev/null")).toBe(true);
  expect(shared.devices.find(({ name }) => name === "null")).toMatchObject({ major: 1, minor: 3, uid: 65_534 });
});

test("sysfs and proc of a namespace that is the host's are bound instead of mounted", ({ skip }) => {
  skip(!reachable(), UNREACHABLE);
  const seen = probeAsUser(({ linux, mounts, ...spec }) => {
    linux.namespaces = linux.namespaces?.filter(({ type }) => type !== "pid") ?? [];
    const sys = mounts.findIndex(({ destination }) => destination === "/sys");
    mounts[sys] = { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] };
    spec.process.args = ["/bin/probe"];
  });
  expect(seen.pid).toBeGreaterThan(1);
  expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/sys")).toMatchObject({ type: "sysfs" });
  expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/sys")?.options).toContain("ro");
  expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/proc")).toMatchObject({ type: "proc" });
});
