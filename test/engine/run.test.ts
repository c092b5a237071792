import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  archive,
  dockerFiles,
  type Entry,
  fixtures,
  makeRoot,
  readExpectation,
  readImages,
  writeTar,
} from "../../rootfs-fixtures/build.mjs";
import { engineTemplate, template } from "../../src/spec/template.ts";
import { results, until } from "../support/bundle.ts";
import { expectFailure, expectPlainWords, lastLine, Machine } from "../support/engine.ts";
import type { Seen } from "../support/seen.ts";

let machine: Machine;
const VARIANT = "caisson/variants:bare";
const DOCKER_CAPABILITIES = 0xa80425fbn;
const [NET_ADMIN, SYS_ADMIN, NET_RAW, CHOWN] = [1n << 12n, 1n << 21n, 1n << 13n, 1n];

beforeAll(async () => {
  machine = await Machine.make({ images: ["quickstart", "fixture", "variants"] });
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

interface TreeEntry {
  path: string;
  mode: string;
  uid: number;
  gid: number;
  inode: number;
  target: string | null;
  device: string | null;
  mtime: string;
  sizeBytes: number;
  allocatedBytes: number;
  checksum: string;
  xattrs: Record<string, string>;
}

/** FNV-1a of bytes given as runs; a run of zeros is one multiplication by a power of the prime. */
function checksum(runs: readonly (Buffer | number)[]): string {
  const [prime, mask] = [0x100000001b3n, (1n << 64n) - 1n];
  let hash = 0xcbf29ce484222325n;
  for (const run of runs) {
    if (typeof run !== "number") for (const byte of run) hash = ((hash ^ BigInt(byte)) * prime) & mask;
    else
      for (let left = run, power = prime; left > 0; left = Math.floor(left / 2), power = (power * power) & mask)
        if (left % 2 === 1) hash = (hash * power) & mask;
  }
  return hash.toString(16).padStart(16, "0");
}

function sparseChecksum(segments: { offset: number; text: string }[], sizeBytes: number): string {
  const runs: (Buffer | number)[] = [];
  let at = 0;
  for (const { offset, text } of segments) {
    runs.push(offset - at, Buffer.from(text));
    at = offset + Buffer.byteLength(text);
  }
  return checksum([...runs, sizeBytes - at]);
}

function treeIn(flags: string[], image = "caisson/fixture"): Map<string, TreeEntry> {
  const seen = machine.seen(["--entrypoint", "", "-u", "0", ...flags], ["--tree", "/"], image);
  // the probe was asked for a tree, and this is how it gives one
  const entries = seen.actions[0]?.result as TreeEntry[];
  return new Map(entries.map((entry) => [entry.path.replace(/^\//, ""), entry]));
}

function expectFixture(tree: Map<string, TreeEntry>): void {
  const expected = readExpectation("fixture");
  const column = <T>(
    values: Record<string, T>,
    actual: (entry: TreeEntry | undefined, path: string) => unknown,
    wanted: (value: T, path: string) => unknown = (value) => value,
  ) => {
    for (const [path, value] of Object.entries(values))
      expect(actual(tree.get(path), path), path).toEqual(wanted(value, path));
  };
  column(
    expected.contents,
    (entry) => entry?.checksum,
    (text) => checksum([Buffer.from(text)]),
  );
  column(
    expected.segments,
    (entry) => entry?.checksum,
    (segments, path) => sparseChecksum(segments, expected.sizesBytes[path] ?? 0),
  );
  column(expected.sizesBytes, (entry) => entry?.sizeBytes);
  column(expected.modes, (entry) => entry?.mode);
  column(expected.owners, (entry) => `${entry?.uid}:${entry?.gid}`);
  column(expected.devices, (entry) => entry?.device);
  column(expected.targets, (entry) => entry?.target);
  column(expected.mtimes, (entry) => entry?.mtime);
  column(expected.xattrs, (entry) => entry?.xattrs);
  for (const path of expected.absent) expect(tree.has(path), path).toBe(false);
  for (const [one, other] of expected.sameInode) expect(tree.get(one)?.inode, one).toBe(tree.get(other)?.inode);
  for (const path of Object.keys(expected.sizesBytes)) expect(tree.get(path)?.allocatedBytes).toBeLessThan(1 << 20);
  expect([...tree.keys()].filter((path) => path.includes(".wh."))).toEqual([]);
}

describe("the root", () => {
  test("is the union of the image's layers: from a docker archive, by name", () => {
    expectFixture(treeIn([]));
  });

  test.each([
    ["an OCI archive with gzip", "ociGzip"],
    ["an OCI archive with zstd", "ociZstd"],
    ["a layout directory", "layout"],
  ] as const)("is the same from %s, by path", async (_, form) => {
    const fresh = await Machine.make({ images: [] });
    try {
      const words = ["run", "--rm", "--network", "none", "-u", "0", fixtures.images.fixture[form], "--tree", "/"];
      const seen = lastLine(fresh.succeeds(words));
      expectFixture(
        new Map(
          ((seen.actions[0]?.result ?? []) as TreeEntry[]).map((entry) => [entry.path.replace(/^\//, ""), entry]),
        ),
      );
      expect(fresh.succeeds(["images", "-q"])).toMatch(/^[0-9a-f]{12}$/);
    } finally {
      fresh.settle();
      fresh.close();
    }
  });

  test("is the host's nowhere: what a container writes is in its own directory, and no mount of it on the host", () => {
    const mounts = readFileSync("/proc/self/mountinfo", "utf8");
    const id = machine.succeeds([
      "run",
      "-d",
      "--network",
      "none",
      "caisson/quickstart",
      "/bin/probe",
      "--write",
      "/srv/new",
      "text",
      "--mkdir",
      "/made",
      "--sleep",
      "60",
    ]);
    const upper = join(machine.data, "containers", id, "upper");
    until("the file is written", () => existsSync(join(upper, "made")));
    expect(readFileSync(join(upper, "srv/new"), "utf8")).toMatch(/^text/);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts);
    expect(machine.seen([], ["--stat", "/made"]).actions[0]).toMatchObject({ error: "ENOENT" });
    machine.succeeds(["rm", "-f", id]);
    expect(existsSync(upper)).toBe(false);
  });

  test("has 150 layers, each over those before", () => {
    const layers = Array.from({ length: 150 }, (_, i) => {
      const entries: Entry[] = [
        { path: "top", type: "file", content: Buffer.from(`${i}`) },
        { path: `layer-${i}`, type: "file", content: Buffer.from("") },
      ];
      return writeTar(
        i === 0
          ? [...entries, { path: "bin/probe", type: "file", mode: "0755", content: readFileSync(fixtures.probe) }]
          : entries,
      );
    });
    const path = join(machine.directory, "many.tar");
    writeFileSync(path, archive(dockerFiles([{ name: "caisson/many:latest", config: {}, layers }])));
    const seen = machine.seen([], ["--read", "/top", "--stat", "/layer-0", "--stat", "/layer-149"], path);
    expect(seen.actions.map(({ error }) => error)).toEqual([null, null, null]);
    expect(seen.actions[0]?.result).toBe("149");
  });

  test("can be read-only, with places to write: --read-only, --tmpfs", () => {
    const seen = machine.seen(
      ["--read-only", "--tmpfs", "/tmp:size=1m,mode=1777", "--tmpfs", "/run"],
      [
        "--write",
        "/srv/new",
        "x",
        "--write",
        "/tmp/new",
        "x",
        "--write",
        "/run/new",
        "x",
        "--stat",
        "/tmp",
        "--write",
        "/etc/hosts",
        "x",
      ],
    );
    expect(results(seen.actions).slice(0, 3)).toEqual(["EROFS", expect.anything(), expect.anything()]);
    expect(seen.actions[3]?.result).toMatchObject({ mode: "1777" });
    expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/tmp")).toMatchObject({
      type: "tmpfs",
      superOptions: expect.stringContaining("size=1024k"),
    });
  });

  test("is a bundle's own with --bundle", () => {
    const bundle = join(machine.directory, "bundle");
    mkdirSync(bundle);
    makeRoot("minimal", join(bundle, "rootfs"));
    const spec = template();
    writeFileSync(
      join(bundle, "config.json"),
      JSON.stringify({
        ...spec,
        hostname: "from-bundle",
        process: { ...spec.process, terminal: false, args: ["/bin/probe", "--stat", "/bin/true"] },
      }),
    );
    const seen = lastLine(machine.succeeds(["run", "--rm", "--bundle", bundle]));
    expect(seen).toMatchObject({
      hostname: "from-bundle",
      argv: ["/bin/probe", "--stat", "/bin/true"],
      actions: [{ error: null }],
    });
  });
});

describe("what the image says, and the command line over it", () => {
  test.each([
    ["an entrypoint", "entrypoint", [], ["/bin/probe"]],
    ["an entrypoint and words", "entrypoint", ["--stat", "/"], ["/bin/probe", "--stat", "/"]],
    ["words in place of a command", "cmd", ["/bin/probe", "--stat", "/"], ["/bin/probe", "--stat", "/"]],
    ["a command found in PATH", "relative", [], ["probe"]],
  ])("%s", (_, variant, words, argv) => {
    expect(
      lastLine(machine.succeeds(["run", "--rm", "--network", "none", `caisson/variants:${variant}`, ...words])),
    ).toMatchObject({ argv });
  });

  test("what --rm will remove does not have the whole disk written out at its end; what is kept does", () => {
    const optionsOfRoot = (...words: string[]) => {
      const mounts = machine.succeeds([
        "run",
        "--network",
        "none",
        ...words,
        "caisson/quickstart",
        "cat",
        "/proc/mounts",
      ]);
      return mounts.split("\n").find((line) => line.includes(" / overlay "));
    };
    expect(optionsOfRoot("--rm")).toMatch(/[,=]volatile[, ]/);
    expect(optionsOfRoot("--rm", "--userns", "auto")).toMatch(/[,=]volatile[, ]/);
    expect(optionsOfRoot("--name", "kept")).not.toMatch(/[,=]volatile[, ]/);
    machine.succeeds(["rm", "kept"]);
  });

  test("statuses of a command, of an entrypoint with a command, and of an entrypoint replaced", () => {
    const run = (...words: string[]) => machine.caisson(["run", "--rm", "--network", "none", ...words]).status;
    expect([run("caisson/variants:cmd"), run("caisson/variants:both"), run("caisson/variants:both", "9")]).toEqual([
      7, 8, 9,
    ]);
    expect(run("--entrypoint", "/bin/true", "caisson/variants:both")).toBe(0);
    expect(run("--entrypoint", "", "caisson/variants:both", "/bin/probe", "--exit", "11")).toBe(11);
  });

  test("environment: ours, the image's, the caller's, in that order and each name once", () => {
    const { env } = machine.seen(
      ["-h", "box", "-e", "PLAIN=2", "-e", "NEW=a=b", "-e", "FROM_CALLER", "-e", "NOT_SET"],
      [],
      "caisson/variants:environment",
    );
    const caller = lastLine(
      machine.succeeds(["run", "--rm", "--network", "none", "-e", "FROM_CALLER", VARIANT, "/bin/probe"], {
        env: { ...process.env, FROM_CALLER: "here" },
      }),
    );
    expect(env.sort()).toEqual([
      "EMPTY=",
      "EQUALS=a=b=c",
      "HOME=/root",
      "HOSTNAME=box",
      "NEW=a=b",
      "PATH=/bin",
      "PLAIN=2",
      "SPACES= a b ",
    ]);
    expect(caller.env).toContain("FROM_CALLER=here");
  });

  test("users by name, id and group, with their groups and home", () => {
    const of = (flags: string[], image = VARIANT) => {
      const { uids, gids, groups, env, capabilities } = machine.seen(flags, [], image);
      const home = env.find((entry) => entry.startsWith("HOME="));
      return [
        uids.real,
        gids.real,
        groups.sort((a, b) => a - b),
        home,
        capabilities.effective,
        BigInt(`0x${capabilities.bounding}`),
      ];
    };
    const none = "0000000000000000";
    expect(of([], "caisson/variants:user")).toEqual([
      1000,
      1000,
      [29, 44, 1000, 2000],
      "HOME=/home/app",
      none,
      DOCKER_CAPABILITIES,
    ]);
    expect(of([], "caisson/variants:user-group")).toEqual([
      1000,
      44,
      [44],
      "HOME=/home/app",
      none,
      DOCKER_CAPABILITIES,
    ]);
    expect(of(["-u", "app:audio"])).toEqual([1000, 29, [29], "HOME=/home/app", none, DOCKER_CAPABILITIES]);
    expect(of(["-u", "4321"])).toEqual([4321, 0, [0], "HOME=/", none, DOCKER_CAPABILITIES]);
    expect(of(["-u", "4321:1234"])).toEqual([4321, 1234, [1234], "HOME=/", none, DOCKER_CAPABILITIES]);
  });

  test("the working directory is made when it is missing, and -w goes before it", () => {
    expect(machine.seen([], [], "caisson/variants:workdir").cwd).toBe("/made/when/missing");
    expect(machine.seen(["-w", "/tmp"], [], "caisson/variants:workdir").cwd).toBe("/tmp");
  });
});

describe("limits", () => {
  test("are in the container's cgroups", () => {
    const id = machine.succeeds([
      "run",
      "-d",
      "--network",
      "none",
      "--memory",
      "48m",
      "--cpus",
      "0.5",
      "--cpuset-cpus",
      "0",
      "--pids-limit",
      "23",
      "caisson/quickstart",
      "/bin/probe",
      "--sleep",
      "60",
    ]);
    const { Pid } = machine.inspect(id).State;
    expect(cgroupValue(Pid, "memory", "memory.limit_in_bytes", "memory.max")).toBe(String(48 << 20));
    expect(cgroupValue(Pid, "pids", "pids.max", "pids.max")).toBe("23");
    expect(cgroupValue(Pid, "cpuset", "cpuset.cpus", "cpuset.cpus")).toBe("0");
    expect(cgroupValue(Pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split(" ")[0]).toBe("50000");
    expect(readFileSync(`/proc/${Pid}/cgroup`, "utf8")).toContain(`/caisson/${id}`);
    machine.succeeds(["rm", "-f", id]);
  });

  test("hold: memory, processes, processors and their time", () => {
    const limited = (flags: string[], ...actions: string[]) =>
      machine.caisson(["run", "--rm", "--network", "none", ...flags, "caisson/quickstart", "/bin/probe", ...actions]);
    expect(limited(["--memory", "32m"], "--allocate", "128").status).toBe(137);
    const image = ["--network", "none", "caisson/quickstart", "/bin/probe"];
    machine.caisson(["run", "--name", "short", "--memory", "32m", ...image, "--allocate", "128"]);
    expect(machine.inspect("short").State).toMatchObject({ ExitCode: 137, OOMKilled: true });
    machine.caisson(["run", "--name", "enough", "--memory", "32m", ...image, "--allocate", "4", "--exit", "137"]);
    expect(machine.inspect("enough").State).toMatchObject({ ExitCode: 137, OOMKilled: false });
    machine.succeeds(["rm", "short", "enough"]);
    expect(lastLine(limited(["--pids-limit", "8"], "--fork", "40").stdout).actions[0]?.result).toEqual({
      forks: 7,
      stoppedBy: "EAGAIN",
    });
    const seen = lastLine(limited(["--cpus", "0.25", "--cpuset-cpus", "1"], "--spin", "600").stdout);
    // the probe was asked to spin, and this is how it says how long
    const { wallNs, cpuNs } = (seen.actions[0]?.result ?? {}) as { wallNs: number; cpuNs: number };
    expect(cpuNs / wallNs).toBeLessThan(0.5);
    expect(seen.affinity).toEqual([1]);
  });

  test("that are impossible are refused with the flag's name", () => {
    const run = (...flags: string[]) =>
      machine.caisson(["run", "--rm", "--network", "none", ...flags, VARIANT, "/bin/true"]);
    expectFailure(run("--memory", "many"), /--memory/);
    expectFailure(run("--memory", "1"), /--memory.*6m/);
    expectFailure(run("--cpus", "0.001"), /--cpus/);
    expectFailure(run("--cpus", String(cpus().length + 1)), /--cpus/);
    expectFailure(run("--pids-limit", "x"), /--pids-limit/);
    expectFailure(run("--cpuset-cpus", "99"), /cpuset/);
  });
});

describe("privileges", () => {
  const all = (seen: Seen) => BigInt(`0x${seen.capabilities.bounding}`);

  test("are Docker's by default: capabilities, filter, masks, devices, umask", () => {
    const seen = machine.seen(
      [],
      [
        "--read",
        "/proc/keys",
        "--write",
        "/proc/sys/kernel/hostname",
        "x",
        "--stat",
        "/sys/firmware/x",
        "--mount",
        "--syscall",
        "246",
        "0",
        "0",
        "0",
        "0",
      ],
    );
    expect({ ...seen.capabilities }).toEqual({
      inheritable: "0000000000000000",
      permitted: "00000000a80425fb",
      effective: "00000000a80425fb",
      bounding: "00000000a80425fb",
      ambient: "0000000000000000",
    });
    expect(seen.seccomp).toMatchObject({ mode: 2 });
    expect(seen).toMatchObject({ noNewPrivs: false, umask: "0022", pid: 1, cwd: "/", oomScoreAdj: 0 });
    expect(results(seen.actions)).toEqual(["", "EROFS", "ENOENT", "EPERM", "EPERM"]);
    const { maskedPaths, readonlyPaths } = engineTemplate().linux ?? {};
    const covered = seen.mounts.map(({ mountPoint }) => mountPoint);
    const missing = [...(maskedPaths ?? []), ...(readonlyPaths ?? [])].filter(
      (path) => existsSync(path) && !covered.includes(path),
    );
    expect(missing).toEqual([]);
    expect(seen.devices.map(({ name }) => name).sort()).toEqual([
      "fd",
      "full",
      "mqueue",
      "null",
      "ptmx",
      "pts",
      "random",
      "shm",
      "stderr",
      "stdin",
      "stdout",
      "tty",
      "urandom",
      "zero",
    ]);
    expect(seen.descriptors.map(({ fd }) => fd)).toEqual([0, 1, 2]);
  });

  test("capabilities are added and dropped by name, with or without CAP_, and ALL", () => {
    expect(all(machine.seen(["--cap-add", "NET_ADMIN", "--cap-drop", "cap_net_raw"]))).toBe(
      (DOCKER_CAPABILITIES | NET_ADMIN) & ~NET_RAW,
    );
    const few = machine.seen(["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"]);
    expect([all(few), few.capabilities.effective]).toEqual([CHOWN, "0000000000000001"]);
    expect(all(machine.seen(["--cap-add", "ALL"]))).toBe(
      BigInt(`0x${/^CapPrm:\t(\w+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]}`),
    );
    expect(all(machine.seen(["--cap-drop", "ALL", "--cap-add", "ALL", "--cap-drop", "CHOWN"]))).toBe(
      all(machine.seen(["--cap-add", "ALL"])) & ~CHOWN,
    );
    expectFailure(machine.caisson(["run", "--rm", "--cap-add", "FLY", VARIANT, "/bin/true"]), /no capability FLY/);
  });

  test("--security-opt: no new privileges, no filter, a filter of one's own", () => {
    expect(machine.seen(["--security-opt", "no-new-privileges"])).toMatchObject({
      noNewPrivs: true,
      seccomp: { mode: 2 },
    });
    expect(machine.seen(["--security-opt", "seccomp=unconfined"])).toMatchObject({
      noNewPrivs: false,
      seccomp: { mode: 0, filters: 0 },
    });
    const profile = join(machine.directory, "profile.json");
    writeFileSync(
      profile,
      JSON.stringify({
        defaultAction: "SCMP_ACT_ALLOW",
        architectures: ["SCMP_ARCH_X86_64"],
        syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 95 }],
      }),
    );
    expect(
      results(
        machine.seen(["--security-opt", `seccomp=${profile}`], ["--mkdir", "/made", "--write", "/srv/x", "x"]).actions,
      ),
    ).toEqual(["EOPNOTSUPP", expect.anything()]);
  });

  test("a profile that is missing, is no JSON or says nonsense is refused by its name", () => {
    const run = (option: string) => machine.caisson(["run", "--rm", "--security-opt", option, VARIANT, "/bin/true"]);
    expectFailure(run("seccomp=/no/such/profile"), /cannot read .*\/no\/such\/profile/);
    const profile = join(machine.directory, "bad.json");
    writeFileSync(profile, "{");
    expectFailure(run(`seccomp=${profile}`), /bad\.json.*JSON/);
    writeFileSync(profile, JSON.stringify({ defaultAction: "SCMP_ACT_SING" }));
    expectFailure(run(`seccomp=${profile}`), /bad\.json.*defaultAction/s);
    expectFailure(run("selinux=off"), /cannot use security option selinux=off/);
  });

  test("--privileged gives all there is: capabilities, the host's devices, no filter, no masks", () => {
    const seen = machine.seen(["--privileged"], ["--mount", "--write", "/proc/sys/kernel/domainname", "inside"]);
    expect(all(seen) & SYS_ADMIN).toBe(SYS_ADMIN);
    expect(seen.seccomp.mode).toBe(0);
    expect(results(seen.actions)).toEqual([true, expect.anything()]);
    const names = seen.devices.map(({ name }) => name);
    for (const device of ["kmsg", "mem"]) if (existsSync(`/dev/${device}`)) expect(names).toContain(device);
    expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/sys")?.options).not.toMatch(/\bro\b/);
  });

  test("--userns auto maps ids, and the image's files belong to whom they should inside", () => {
    const flags = ["--userns", "auto", "--entrypoint", "", "-u", "0"];
    const words = [
      "--stat",
      "/home/app",
      "--stat",
      "/srv/same-a",
      "--write",
      "/srv/made",
      "x",
      "--stat",
      "/srv/made",
      "--chown",
      "/srv/made",
      "1000",
      "5",
      "--sleep",
      "60",
    ];
    const id = machine.succeeds([
      "run",
      "-d",
      "--network",
      "none",
      ...flags,
      "caisson/fixture",
      "/bin/probe",
      ...words,
    ]);
    const { Pid } = machine.inspect(id).State;
    const upper = join(machine.data, "containers", id, "upper");
    until(
      "the file has its owner",
      () => existsSync(join(upper, "srv/made")) && statSync(join(upper, "srv/made")).uid === 101_000,
    );
    expect(readFileSync(`/proc/${Pid}/uid_map`, "utf8").trim().split(/\s+/)).toEqual(["0", "100000", "65536"]);
    expect(/^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${Pid}/status`, "utf8"))?.[1]).toBe("100000");
    // the layers are shared with containers without a user namespace; what this one writes is its own
    expect(statSync(join(upper, "srv/made"))).toMatchObject({ uid: 101_000, gid: 100_005 });
    machine.succeeds(["kill", id]);
    machine.succeeds(["wait", id]);
    const seen = machine.seen(flags, words.slice(0, -2), "caisson/fixture");
    expect(seen.uids).toMatchObject({ real: 0, effective: 0 });
    expect(seen.actions.map(({ error }) => error)).toEqual(seen.actions.map(() => null));
    expect(seen.actions.filter(({ action }) => action === "--stat").map(({ result }) => result)).toMatchObject([
      { uid: 1000, gid: 1000 },
      { uid: 0, gid: 0 },
      { uid: 0, gid: 0 },
    ]);
    expect(machine.seen(["--userns", "200000:1000"]).uidMap).toEqual(["0 200000 1000"]);
    expect(machine.seen(["--userns", "host"]).uidMap).toEqual(["0 0 4294967295"]);
    machine.succeeds(["rm", id]);
  });
});

describe("networks without a bridge", () => {
  test("none has a loopback of its own, host has the host's, container:ID shares another's", () => {
    const none = machine.seen([]);
    expect(none.network.map(({ name, up }) => [name, up])).toEqual([["lo", true]]);
    const host = lastLine(machine.succeeds(["run", "--rm", "--network", "host", "caisson/quickstart", "/bin/probe"]));
    expect(host.namespaces.net).toBe(
      Number(/\d+/.exec(machine.network?.run(["readlink", "/proc/self/ns/net"]) ?? "")?.[0]),
    );
    const id = machine.succeeds([
      "run",
      "-d",
      "--network",
      "none",
      "-h",
      "first",
      "caisson/quickstart",
      "/bin/probe",
      "--sleep",
      "60",
    ]);
    const shared = lastLine(
      machine.succeeds(["run", "--rm", "--network", `container:${id}`, "caisson/quickstart", "/bin/probe"]),
    );
    expect(shared.namespaces.net).toBe(statSync(`/proc/${machine.inspect(id).State.Pid}/ns/net`).ino);
    machine.succeeds(["rm", "-f", id]);
    const run = (...flags: string[]) => machine.caisson(["run", "--rm", ...flags, VARIANT, "/bin/true"]);
    expectFailure(run("--network", "container:nobody"), /no container nobody/);
    expectFailure(run("--network", "overlay"), /cannot use network overlay/);
    expectFailure(run("--network", "none", "-p", "80:80"), /bridge network only/);
  });

  test("-h names the machine, for itself and in its files", () => {
    const seen = machine.seen(["-h", "caisson.example"]);
    expect(seen.hostname).toBe("caisson.example");
    expect(seen.files["/etc/hostname"]).toBe("caisson.example\n");
    expect(seen.env).toContain("HOSTNAME=caisson.example");
  });
});

describe("exit statuses", () => {
  test("are the command's, from 0 to 255", () => {
    const id = machine.succeeds([
      "run",
      "-d",
      "--network",
      "none",
      "caisson/quickstart",
      "/bin/probe",
      "--sleep",
      "60",
    ]);
    for (const status of [0, 1, 2, 125, 126, 127, 128, 137, 255]) {
      expect(
        machine.caisson(["run", "--rm", "--network", "none", VARIANT, "/bin/probe", "--exit", String(status)]).status,
      ).toBe(status);
    }
    for (const status of [0, 42, 255])
      expect(machine.caisson(["exec", id, "/bin/probe", "--exit", String(status)]).status).toBe(status);
    machine.succeeds(["rm", "-f", id]);
  });

  test.each([
    ["/bin/none", 127, /cannot run \/bin\/none: there is no such file/],
    ["none", 127, /cannot run none: it is not in the container's PATH/],
    ["/bin/not-executable", 126, /not executable/],
    ["/bin", 126, /cannot run \/bin: it is a directory/],
    ["/bin/no-interpreter", 126, /interpreter \/no\/such\/interpreter is not in the image/],
    ["/bin/carriage-return", 126, /carriage return/],
    ["/bin/wrong-architecture", 126, /for s390x/],
  ])("%s is %i, with the reason", (command, status, reason) => {
    expectFailure(machine.caisson(["run", "--rm", "--network", "none", VARIANT, command]), reason, status);
  });

  test("125 is ours, for what cannot be made, and nothing is left of it", () => {
    const run = (...words: string[]) => machine.caisson(["run", "--rm", ...words]);
    expectFailure(run("caisson/nowhere"), /cannot find image caisson\/nowhere\n.*hint.*caisson load/);
    expectFailure(run("Not/A reference"), /image|reference/i);
    expectFailure(run(VARIANT), /has no command/);
    expectFailure(run("caisson/variants:unknown-user"), /unable to find user nobody-knows/);
    expectFailure(run("caisson/variants:huge-user"), /uid 4294967296/);
    expectFailure(run("-w", "relative", VARIANT, "/bin/true"), /relative.*absolute/);
    expectFailure(run("--tmpfs", "relative", VARIANT, "/bin/true"), /relative.*absolute/);
    expectFailure(run("--stop-signal", "SIGNOTHING", VARIANT, "/bin/true"), /SIGNOTHING/);
    expectFailure(run("--name", "../x", VARIANT, "/bin/true"), /cannot use the name/);
    expectFailure(run("-h", "n".repeat(65), VARIANT, "/bin/true"), /host ?name.*64/i);
    expectFailure(run("--userns", "sometimes", VARIANT, "/bin/true"), /user namespace/);
    expectFailure(run("--no-such-flag", VARIANT), /unknown option/);
    expectFailure(run(), /an image, or --bundle/);
    expectFailure(run("--bundle", "/no/such/bundle"), /\/no\/such\/bundle/);
    machine.settle();
    expect(machine.containers()).toEqual([]);
    expect(readdirSync(join(machine.data, "names"))).toEqual([]);
  });

  test("the caller's umask is none of the container's", () => {
    const words = ["run", "--rm", "-u", "1000", "caisson/quickstart", "sh", "-c", "stat -c %a / /etc/hosts; umask"];
    const { stdout, stderr } = machine.caisson(words, { through: ["sh", "-c", 'umask 077; exec "$@"', "sh"] });
    expect({ stdout, stderr }).toEqual({ stdout: "755\n644\n0022\n", stderr: "" });
  });

  test("--trace shows every step on the error stream, and the command's own output stays alone", () => {
    const { status, stdout, stderr } = machine.caisson([
      "run",
      "--rm",
      "--trace",
      "--network",
      "none",
      VARIANT,
      "/bin/probe",
      "--exit",
      "4",
    ]);
    expect(status).toBe(4);
    expect(lastLine(stdout).pid).toBe(1);
    for (const word of ["startInit", "pivotRoot", "execute"]) expect(stderr).toContain(word);
  });

  test("explain says the plan and runs nothing", () => {
    const before = readdirSync(machine.data).sort();
    const text = machine.succeeds(["explain", "--memory", "64m", "caisson/quickstart", "/bin/true"]);
    expect(text).toContain(String(64 << 20));
    expect(machine.containers()).toEqual([]);
    expect(readdirSync(machine.data).sort()).toEqual(before);
    expectPlainWords(machine.caisson(["explain", "caisson/nowhere"]).stderr);
  });

  test("explain has the steps of a run, those of the network too", () => {
    const words = ["--network", "bridge", "-p", "8080:80", "-p", "81", "caisson/quickstart", "/bin/true"];
    const { steps }: { steps: { step: string; says: string }[] } = JSON.parse(
      machine.succeeds(["explain", "--json", ...words]),
    );
    machine.succeeds(["run", "--name", "explained", ...words]);
    const traced = machine
      .succeeds(["trace", "--json", "explained"])
      .split("\n")
      .map((line): { step: string; undo?: boolean } => JSON.parse(line));
    machine.succeeds(["rm", "explained"]);
    expect(steps.map(({ step }) => step)).toEqual(traced.filter(({ undo }) => undo !== true).map(({ step }) => step));
    expect(steps.find(({ step }) => step === "publishPorts")?.says).toContain("8080→80/tcp, a free port→81/tcp");
  });
});

/** A value in a cgroup of a process, in version 1's hierarchies or version 2's. */
function cgroupValue(pid: number, controller: string, version1: string, version2: string): string {
  const places = readFileSync(`/proc/${pid}/cgroup`, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(":"));
  const old = places.find(([, controllers]) => controllers?.split(",").includes(controller));
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" "));
  const mount = mounts.find((fields) => {
    const [type, , options] = fields.slice(fields.indexOf("-") + 1);
    return old === undefined ? type === "cgroup2" : type === "cgroup" && options?.split(",").includes(controller);
  });
  const path = old?.[2] ?? places.find(([hierarchy]) => hierarchy === "0")?.[2] ?? "";
  return readFileSync(join(mount?.[4] ?? "", path, old === undefined ? version2 : version1), "utf8").trim();
}

test("images are made once, however they come", () => {
  const before = readdirSync(join(machine.data, "layers")).sort();
  for (const form of [fixtures.images.quickstart.ociGzip, fixtures.images.quickstart.layout])
    machine.succeeds(["load", form]);
  expect(readdirSync(join(machine.data, "layers")).sort()).toEqual(before);
  expect(readImages("quickstart")).toHaveLength(1);
});
