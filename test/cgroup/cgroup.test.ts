import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  addProcess,
  applyWrite,
  createDirectory,
  currentResources,
  freeze,
  isFrozen,
  killAll,
  oomKilled,
  processes,
  removeDirectories,
  removeEmptyDirectories,
  thaw,
  type Waits,
  writeFile,
} from "../../src/cgroup/cgroup.ts";
import { isMountPoint } from "../../src/cgroup/file.ts";
import { statistics } from "../../src/cgroup/statistics.ts";
import { resourceWrites } from "../../src/plan/cgroup-files.ts";
import {
  type CgroupDirectory,
  type CgroupLayout,
  cgroupDirectories,
  parseCgroupLayout,
} from "../../src/plan/cgroup-layout.ts";
import type { Resources } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";

const MEMORY = 64 * 2 ** 20;
const RESOURCES: Resources = {
  memory: { limit: MEMORY },
  cpu: { shares: 512, quota: 50000, period: 100000, cpus: "0" },
  pids: { limit: 20 },
  devices: [
    { allow: false, access: "rwm" },
    { allow: true, type: "c", major: 10, minor: 229, access: "rwm" },
  ],
};

/** A process that has ended but is not reaped yet counts as ended, as it does for a pidfd. */
function lives(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

function sleep(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

const waits: Waits = {
  exit: (pids) => {
    const deadline = Date.now() + 10_000;
    while (pids.some(lives)) {
      if (Date.now() > deadline) throw new Error(`${pids} do not end`);
      sleep(1);
    }
  },
  change: () => sleep(1),
};

let layout: CgroupLayout;
let refusal: string | undefined;
const children: ChildProcess[] = [];
const made: string[] = [];

beforeAll(() => {
  const unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
    .map((path) => `${path}/cgroup.controllers`)
    .find(existsSync);
  layout = parseCgroupLayout(
    readFileSync("/proc/self/mountinfo", "utf8"),
    readFileSync("/proc/self/cgroup", "utf8"),
    unified === undefined ? "" : readFileSync(unified, "utf8"),
  );
  try {
    for (const { mountPoint } of layout.hierarchies) {
      mkdirSync(`${mountPoint}/caisson-probe-${process.pid}`);
      rmdirSync(`${mountPoint}/caisson-probe-${process.pid}`);
    }
    if (layout.hierarchies.length === 0) refusal = "needs cgroups";
  } catch (error) {
    refusal = `needs writable cgroups: ${error}`;
  }
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  removeDirectories(made, waits);
  removeEmptyDirectories(made.map(dirname));
  expect(made.filter(existsSync)).toEqual([]);
  made.length = 0;
});

function directoriesOf(path = `/caisson-test-${process.pid}/x`): CgroupDirectory[] {
  const directories = cgroupDirectories(layout, path, "x");
  made.push(...directories.map((directory) => directory.path));
  return directories;
}

/** Fresh cgroups with resources in effect. */
function create(resources: Resources): CgroupDirectory[] {
  const directories = directoriesOf();
  for (const { path } of directories) createDirectory(path);
  for (const write of resourceWrites(layout, directories, resources)) applyWrite(write);
  return directories;
}

function start(directories: readonly CgroupDirectory[], command: string, ...args: string[]): number {
  const child = spawn(command, args, { stdio: "ignore" });
  children.push(child);
  if (child.pid === undefined) throw new Error(`cannot start ${command}`);
  addProcess(directories, child.pid);
  return child.pid;
}

function holder(directories: readonly CgroupDirectory[], controller: string): string {
  const directory = directories.find(({ hierarchy }) => hierarchy.controllers.includes(controller));
  if (directory === undefined) throw new Error(`no ${controller}`);
  return directory.path;
}

function read(path: string): string {
  return readFileSync(path, "utf8").trim();
}

/** Every file that says what the resources of a cgroup are, but for cpu.weight, where runc had another curve until 1.3.2. */
function readBack(directories: readonly CgroupDirectory[]): Record<string, string> {
  const files =
    /^(memory\.(memsw\.)?limit_in_bytes|memory\.soft_limit.*|memory\.swappiness|memory\.(max|low|swap\.max)|cpu\.(shares|max|idle|cfs_.*_us)|cpuset\.(cpus|mems)|pids\.max|devices\.list)$/;
  return Object.fromEntries(
    directories.flatMap(({ path }) =>
      readdirSync(path)
        .filter((file) => files.test(file))
        .map((file) => [file, read(`${path}/${file}`).split("\n").sort().join("\n")]),
    ),
  );
}

describe("on the cgroups of this machine", () => {
  test("limits arrive in the kernel", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    skip(layout.mode === "v2", "reads files of cgroup v1");
    const directories = create(RESOURCES);
    const seen = readBack(directories);
    expect(seen).toMatchObject({
      "memory.limit_in_bytes": `${MEMORY}`,
      "cpu.shares": "512",
      "cpu.cfs_quota_us": "50000",
      "cpu.cfs_period_us": "100000",
      "cpuset.cpus": "0",
      "cpuset.mems": read("/sys/fs/cgroup/cpuset/cpuset.mems"),
      "pids.max": "20",
    });
    expect(seen["devices.list"]?.split("\n")).toContain("c 10:229 rwm");
    expect(seen["devices.list"]).not.toContain("a *:*");
  });

  test("a container can use its devices and no other", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    skip(layout.mode === "v2", "the filter is attached by the host's part");
    const directories = create(RESOURCES);
    const scratch = mkdtempSync(join(tmpdir(), "caisson-devices-"));
    try {
      // A device that is not allowed answers EPERM before the kernel asks whether there is a driver for it.
      execFileSync("mknod", [`${scratch}/denied`, "c", "250", "77"]);
      const script = (file: string) => `echo $$ > ${holder(directories, "devices")}/cgroup.procs && : < ${file}`;
      const open = (file: string) => spawnSync("sh", ["-c", script(file)], { encoding: "utf8" }).stderr;
      expect(spawnSync("sh", ["-c", `: < ${scratch}/denied`], { encoding: "utf8" }).stderr).toContain("No such device");
      expect(open(`${scratch}/denied`)).toContain("Operation not permitted");
      expect(open("/dev/null")).toBe("");
    } finally {
      rmSync(scratch, { recursive: true });
    }
  });

  test("an update finds its way past the old limits", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const directories = create({ ...RESOURCES, cpu: { quota: 50000, period: 100000, burst: 20000 } });
    const update = (resources: Resources) => {
      for (const write of resourceWrites(layout, directories, resources, currentResources(directories)))
        applyWrite(write);
    };
    update({ memory: { limit: 2 * MEMORY, swap: 3 * MEMORY }, cpu: { quota: 4000, period: 5000, burst: 1000 } });
    expect(currentResources(directories)).toMatchObject({
      memoryLimitBytes: BigInt(2 * MEMORY),
      cpuQuotaUs: 4000,
      cpuPeriodUs: 5000,
      cpuBurstUs: 1000,
    });
    update({ memory: { limit: MEMORY, swap: MEMORY }, cpu: { quota: 100000, period: 200000, burst: 90000 } });
    expect(currentResources(directories)).toMatchObject({
      memoryLimitBytes: BigInt(MEMORY),
      cpuQuotaUs: 100000,
      cpuPeriodUs: 200000,
      cpuBurstUs: 90000,
    });
    update({ memory: { limit: 4 * MEMORY, swap: 4 * MEMORY } });
    expect(currentResources(directories)).toMatchObject({ memoryLimitBytes: BigInt(4 * MEMORY) });
  });

  test("an optional write may fail, any other may not", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const directories = create({});
    const path = `${holder(directories, "memory")}/memory.nonsense`;
    expect(writeFile(path, "1", { optional: true })).toBe(false);
    expect(() => writeFile(path, "1")).toThrowError(
      expect.objectContaining({ code: "ENOENT", path, syscall: "openat" }),
    );
    expect(() => writeFile(`${holder(directories, "pids")}/pids.max`, "many")).toThrowError(
      expect.objectContaining({ code: "EINVAL", errno: 22, syscall: "write" }),
    );
  });

  test("processes are found, frozen, thawed and killed", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const directories = create(RESOURCES);
    const pid = start(directories, "sh", "-c", "while :; do :; done");
    for (const { path } of directories) expect(processes(path)).toEqual([pid]);
    const ticks = () => Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(" ")[13]);
    freeze(directories, waits);
    expect(isFrozen(directories)).toBe(true);
    const before = ticks();
    sleep(100);
    expect(ticks()).toBe(before);
    thaw(directories, waits);
    expect(isFrozen(directories)).toBe(false);
    const deadline = Date.now() + 10_000;
    while (ticks() === before && Date.now() < deadline) sleep(5);
    expect(ticks()).toBeGreaterThan(before);
    killAll(directories);
    waits.exit([pid]);
    for (const { path } of directories) expect(processes(path)).toEqual([]);
  });

  test("without version 2 the freezer of version 1 does it", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    skip(layout.mode === "v2", "needs cgroup v1");
    const directories = create({}).filter(({ hierarchy }) => hierarchy.version === 1);
    const freezer = holder(directories, "freezer");
    const pid = start(directories, "sleep", "1000");
    freeze(directories, waits);
    expect(read(`${freezer}/freezer.state`)).toBe("FROZEN");
    expect(isFrozen(directories)).toBe(true);
    thaw(directories, waits);
    expect(read(`${freezer}/freezer.state`)).toBe("THAWED");
    freeze(directories, waits);
    killAll(directories);
    waits.exit([pid]);
    expect(lives(pid)).toBe(false);
  });

  test("cgroups are removed with all that a container made and left running in them, and twice does no harm", ({
    skip,
  }) => {
    skip(refusal !== undefined, refusal);
    const directories = create({});
    start(directories, "sleep", "1000");
    for (const { hierarchy, path } of directories) {
      mkdirSync(`${path}/a/b`, { recursive: true });
      // A cpuset without processors takes nobody in; on version 2 the container would enable what it needs.
      if (hierarchy.controllers.includes("cpuset")) continue;
      const child = spawn("sleep", ["1000"], { stdio: "ignore" });
      children.push(child);
      writeFile(`${path}/a/b/cgroup.procs`, `${child.pid}`);
    }
    const pids = children.map(({ pid }) => pid ?? 0);
    const paths = directories.map(({ path }) => path);
    removeDirectories(paths, waits);
    expect(paths.filter(existsSync)).toEqual([]);
    expect(pids.filter(lives)).toEqual([]);
    removeDirectories(paths, waits);
  });

  test("what a frozen container holds is removed too", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const directories = create({});
    start(directories, "sleep", "1000");
    freeze(directories, waits);
    if (layout.mode !== "v2") writeFile(`${holder(directories, "freezer")}/freezer.state`, "FROZEN");
    removeDirectories(
      directories.map(({ path }) => path),
      waits,
    );
    expect(directories.filter(({ path }) => existsSync(path))).toEqual([]);
  });

  test("only what was not there before is reported as ours", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const path = directoriesOf()[0]?.path ?? "";
    expect(createDirectory(path)).toEqual([dirname(path), path]);
    expect(createDirectory(path)).toEqual([]);
    expect(createDirectory(`${dirname(path)}/y`)).toEqual([`${dirname(path)}/y`]);
    removeEmptyDirectories([path, dirname(path)]);
    expect([existsSync(path), existsSync(dirname(path))]).toEqual([false, true]);
    removeEmptyDirectories([`${dirname(path)}/y`, dirname(path)]);
    expect(existsSync(dirname(path))).toBe(false);
  });

  test("the root of a hierarchy is told from a container's cgroup", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    for (const { hierarchy, path } of create({})) {
      expect([isMountPoint(hierarchy.mountPoint), isMountPoint(path)]).toEqual([true, false]);
    }
  });

  test("a cgroup in use by others is not taken over", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const directories = create({});
    start(directories, "sleep", "1000");
    expect(() => createDirectory(directories[0]?.path ?? "")).toThrowError(expect.objectContaining({ code: "EBUSY" }));
  });

  test("statistics are what the kernel counted", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const directories = create(RESOURCES);
    // what it had before it entered is not counted, so it takes memory again and again
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
    start(directories, "sh", "-c", "while :; do s=x; while [ ${#s} -lt 1000000 ]; do s=$s$s; done; done");
    const deadline = Date.now() + 10_000;
    while (Number(statistics(directories).cpu.usage.total) < 50_000_000 && Date.now() < deadline) sleep(10);
    const seen = statistics(directories);
    expect(Number(seen.cpu.usage.total)).toBeGreaterThanOrEqual(50_000_000);
    expect(Number(seen.cpu.usage.total)).toBeLessThan(10_000_000_000);
    expect(seen.pids).toEqual({ current: 1, limit: 20 });
    expect(seen.memory.usage.limit).toBe(MEMORY);
    expect(Number(seen.memory.usage.max)).toBeGreaterThan(0);
    expect(Object.keys(seen.memory.raw)).toContain("pgfault");
  });

  test("killing for want of memory is counted", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    const directories = create({ memory: { limit: 8 * 2 ** 20, swap: 8 * 2 ** 20 } });
    expect(oomKilled(directories)).toBe(0);
    const script = `echo $$ > ${holder(directories, "memory")}/cgroup.procs && exec dd if=/dev/zero of=/dev/null bs=100M count=1`;
    expect(() => execFileSync("sh", ["-c", script], { stdio: "ignore" })).toThrow();
    expect(oomKilled(directories)).toBe(1);
  });

  test("runc reads back the same for the same resources", ({ skip }) => {
    skip(refusal !== undefined, refusal);
    skip(!existsSync("/usr/sbin/runc") || !existsSync("/bin/busybox"), "needs runc and busybox");
    const ours = readBack(create(RESOURCES));
    const bundle = mkdtempSync(join(tmpdir(), "caisson-runc-"));
    const id = basename(bundle);
    const path = `/caisson-test-${process.pid}/runc`;
    const theirs = directoriesOf(path);
    try {
      mkdirSync(`${bundle}/rootfs/bin`, { recursive: true });
      execFileSync("cp", ["/bin/busybox", `${bundle}/rootfs/bin/sleep`]);
      execFileSync("runc", ["spec"], { cwd: bundle });
      const spec = JSON.parse(read(`${bundle}/config.json`));
      spec.process.args = ["/bin/sleep", "1000"];
      spec.process.terminal = false;
      spec.process.rlimits = [];
      spec.linux.cgroupsPath = path;
      spec.linux.resources = RESOURCES;
      writeFileSync(`${bundle}/config.json`, JSON.stringify(spec));
      execFileSync("runc", ["--root", `${bundle}/state`, "create", id], { cwd: bundle, stdio: "ignore" });
      expect(ours).toEqual(readBack(theirs));
      const stats = JSON.parse(
        execFileSync("runc", ["--root", `${bundle}/state`, "events", "--stats", id], { encoding: "utf8" }),
      ).data;
      const seen = statistics(theirs);
      // runc leaves zeros out; it has parts more that are not of cgroups.
      expect(seen).toMatchObject({ pids: stats.pids, memory: { usage: { limit: stats.memory.usage.limit } } });
      expect(Object.keys(seen.memory.raw)).toEqual(expect.arrayContaining(Object.keys(stats.memory.raw)));
      expect(Object.keys(seen.cpu.usage)).toEqual(expect.arrayContaining(Object.keys(stats.cpu.usage)));
      expect(Number(seen.memory.swap.limit)).toBe(stats.memory.swap.limit);
    } finally {
      if (existsSync(`${bundle}/state/${id}`)) execFileSync("runc", ["--root", `${bundle}/state`, "delete", "-f", id]);
      rmSync(bundle, { recursive: true, force: true });
    }
  });
});

test("a directory that is no cgroup is never removed, and none is made where there are no cgroups", () => {
  const directory = mkdtempSync(join(tmpdir(), "caisson-no-cgroup-"));
  try {
    expect(() => removeDirectories([directory], waits)).toThrowError(expect.objectContaining({ code: "EINVAL" }));
    expect(() => removeEmptyDirectories([directory])).toThrowError(expect.objectContaining({ code: "EINVAL" }));
    expect(() => createDirectory(`${directory}/x`)).toThrowError(expect.objectContaining({ code: "ENOENT" }));
    expect(statSync(directory).isDirectory()).toBe(true);
    expect(readdirSync(directory)).toEqual([]);
  } finally {
    rmdirSync(directory);
  }
});

test.each([1, 2] as const)("what the misc controller has counted is told by resource, on version %i", (version) => {
  covers("events misc");
  const path = mkdtempSync(join(tmpdir(), "caisson-misc-"));
  try {
    const hierarchy = { controllers: ["misc"], version, mountPoint: path, ownPath: "/" };
    expect(statistics([{ path, hierarchy }]).misc).toEqual({});
    writeFileSync(join(path, "misc.current"), "res_a 3\nres_b 0\n");
    writeFileSync(join(path, "misc.events"), "res_a.max 7\nres_b.max 0\n");
    expect(statistics([{ path, hierarchy }]).misc).toEqual({
      res_a: { usage: 3, events: 7 },
      res_b: { usage: 0, events: 0 },
    });
  } finally {
    rmSync(path, { recursive: true });
  }
});
