import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  type Edit,
  exec,
  idle,
  makeBundle,
  probe,
  remove,
  run,
  runtime,
  seenIn,
  startContainer,
  state,
  until,
} from "../support/bundle.ts";
import { directoryOf, read } from "../support/cgroup.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// OCI runtime-spec, config-linux.md "Control groups".

afterEach(cleanUp);
afterAll(cleanUpFile);

const version1 = existsSync("/sys/fs/cgroup/memory/memory.limit_in_bytes");

const LIMITS: Edit = (spec) => {
  spec.linux.resources = {
    memory: { limit: 64 << 20, reservation: 32 << 20 },
    cpu: { shares: 512, quota: 50_000, period: 100_000, cpus: "0", mems: "0" },
    pids: { limit: 20 },
    devices: [{ allow: false, access: "rwm" }],
  };
};

test("limits are in the kernel before the container runs, and every hierarchy has the process", ({ skip }) => {
  covers(
    "linux.resources v1",
    "linux.resources.memory.limit",
    "linux.resources.memory.reservation",
    "linux.resources.cpu.shares",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.cpus",
    "linux.resources.pids.limit",
  );
  skip(!version1, "reads the files of cgroup version 1");
  const bundle = idle(LIMITS);
  const { pid } = state(bundle);
  for (const line of readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n"))
    expect(line).toMatch(new RegExp(`/${bundle.id}$`));
  expect(read(directoryOf(pid, "memory"), "memory.limit_in_bytes")).toBe(String(64 << 20));
  expect(read(directoryOf(pid, "memory"), "memory.soft_limit_in_bytes")).toBe(String(32 << 20));
  expect(read(directoryOf(pid, "cpu"), "cpu.shares")).toBe("512");
  expect(read(directoryOf(pid, "cpu"), "cpu.cfs_quota_us")).toBe("50000");
  expect(read(directoryOf(pid, "cpu"), "cpu.cfs_period_us")).toBe("100000");
  expect(read(directoryOf(pid, "cpuset"), "cpuset.cpus")).toBe("0");
  expect(read(directoryOf(pid, "cpuset"), "cpuset.mems")).toBe("0");
  expect(read(directoryOf(pid, "pids"), "pids.max")).toBe("20");

  // a process that joins is in the same cgroups, and under the same limits
  const seen = seenIn(exec(bundle, ["/bin/probe", "--fork", "100"]));
  expect(seen.affinity).toEqual([0]);
  expect(seen.cgroup.every((line) => line.endsWith(`/${bundle.id}`))).toBe(true);
  expect(seen.actions[0]?.result).toEqual({ forks: 18, stoppedBy: "EAGAIN" });

  const mine = cgroupDirectories().filter((path) => path.endsWith(bundle.id));
  expect(mine.length).toBeGreaterThan(5);
  expect(remove(bundle, "--force").status).toBe(0);
  expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
});

test("what version 1 alone has, and what is rare, is in the kernel too", ({ skip }) => {
  covers(
    "linux.resources.memory.swappiness",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.memory.useHierarchy",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.idle",
    "linux.resources.blockIO.throttle",
  );
  skip(!version1, "looks at the hierarchies of cgroup version 1");
  const [, major = "", minor = ""] = /^ +(\d+) +(\d+)/m.exec(readFileSync("/proc/partitions", "utf8")) ?? [];
  const device = { major: Number(major), minor: Number(minor) };
  const limited = idle((spec) => {
    spec.linux.resources = {
      memory: { limit: 64 << 20, swappiness: 7, disableOOMKiller: true, useHierarchy: true },
      cpu: { quota: 50_000, period: 100_000, burst: 20_000 },
      blockIO: {
        throttleReadBpsDevice: [{ ...device, rate: 1 << 20 }],
        throttleWriteBpsDevice: [{ ...device, rate: 2 << 20 }],
        throttleReadIOPSDevice: [{ ...device, rate: 300 }],
        throttleWriteIOPSDevice: [{ ...device, rate: 400 }],
      },
    };
  });
  const of = (bundle: Bundle, controller: string, file: string) =>
    read(directoryOf(state(bundle).pid, controller), file);
  expect(of(limited, "memory", "memory.swappiness")).toBe("7");
  expect(of(limited, "memory", "memory.oom_control")).toContain("oom_kill_disable 1");
  expect(of(limited, "memory", "memory.use_hierarchy")).toBe("1");
  expect(of(limited, "cpu", "cpu.cfs_burst_us")).toBe("20000");
  const throttled = (what: string) => of(limited, "blkio", `blkio.throttle.${what}_device`);
  expect(["read_bps", "write_bps", "read_iops", "write_iops"].map(throttled)).toEqual(
    [1 << 20, 2 << 20, 300, 400].map((rate) => `${major}:${minor} ${rate}`),
  );
  const background = idle((spec) => {
    spec.linux.resources = { cpu: { idle: 1 } };
  });
  expect(of(background, "cpu", "cpu.idle")).toBe("1");
});

test("the pids limit stops forks", () => {
  covers("linux.resources.pids.limit");
  const seen = probe(
    (spec) => {
      LIMITS(spec);
    },
    ["--fork", "100"],
  );
  expect(seen.actions[0]?.result).toEqual({ forks: 19, stoppedBy: "EAGAIN" });
});

test("the memory limit ends what exceeds it, and leaves what does not", () => {
  covers("linux.resources.memory.limit", "linux.resources.memory.swap");
  expect(probe(LIMITS, ["--allocate", "20"]).actions[0]?.result).toBe(20);
  const greedy = makeBundle((spec) => {
    LIMITS(spec);
    spec.linux.resources = { ...spec.linux.resources, memory: { limit: 32 << 20, swap: 32 << 20 } };
    spec.process.args = ["/bin/probe", "--allocate", "200"];
  });
  const { status, stdout } = run(greedy);
  expect(status).toBe(137);
  expect(stdout).toBe("");
});

test("the cpu quota slows down what would use more", () => {
  covers("linux.resources.cpu.quota");
  const seen = probe(
    (spec) => {
      spec.linux.resources = { cpu: { quota: 20_000, period: 100_000 } };
    },
    ["--spin", "600"],
  );
  const { wallNs, cpuNs } = Object(seen.actions[0]?.result);
  expect(cpuNs / wallNs).toBeLessThan(0.45);
});

test("cgroupsPath is where the container is; what was there before stays, what was made goes", ({ skip }) => {
  covers("linux.cgroupsPath");
  skip(!version1, "looks at the hierarchies of cgroup version 1");
  const parent = `/caisson-test-${process.pid}`;
  const kept = `/sys/fs/cgroup/pids${parent}`;
  mkdirSync(kept);
  try {
    const bundle = idle((spec) => {
      spec.linux.cgroupsPath = `${parent}/deep/er`;
    });
    const { pid } = state(bundle);
    for (const line of readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n"))
      expect(line).toMatch(new RegExp(`${parent}/deep/er$`));
    expect(remove(bundle, "--force").status).toBe(0);
    expect(cgroupDirectories().filter((path) => path.includes(`${parent}/deep/er`))).toEqual([]);
    expect(existsSync(kept)).toBe(true);
  } finally {
    // parents that were made on the way are left, as runc does: another container may be on its way into them
    for (const path of cgroupDirectories()
      .filter((each) => each.includes(parent))
      .reverse())
      rmdirSync(path);
  }
});

test("a cgroup path that leads out is refused", () => {
  for (const path of ["/../../outside", "a/../../b"]) {
    const { status, stderr } = run(
      makeBundle((spec) => {
        spec.linux.cgroupsPath = path;
      }),
    );
    expect(status, path).toBe(1);
    expect(stderr, path).toContain("/linux/cgroupsPath");
  }
});

test("limits that the kernel refuses are an error that names the file and leaves no directory", () => {
  const bundle = makeBundle((spec) => {
    spec.linux.resources = { cpu: { cpus: "4000" } };
  });
  const { status, stderr } = run(bundle);
  expect(status).toBe(1);
  expect(stderr).toContain("/linux/resources/cpu/cpus");
  expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
});

test("delete ends every process of the container and removes cgroups it made itself", () => {
  const every = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"];
  const bundle = idle((spec) => {
    spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "pid") ?? [];
    spec.linux.namespaces.push({ type: "cgroup" });
    spec.mounts = spec.mounts
      .filter(({ type }) => type !== "proc")
      .map((mount) => (mount.type === "cgroup" ? { ...mount, options: ["rw"] } : mount));
    delete spec.linux.maskedPaths;
    delete spec.linux.readonlyPaths;
    spec.process.capabilities = { bounding: every, permitted: every, effective: every };
    spec.process.args = ["/bin/probe", "--mkdir", `/sys/fs/cgroup/${version1 ? "pids/" : ""}child`, "--sleep", "60"];
  });
  const { pid } = state(bundle);
  until("the container has made a cgroup", () =>
    cgroupDirectories().some((path) => path.endsWith(`${bundle.id}/child`)),
  );
  // a second process that the end of the first does not end: there is no pid namespace
  const second = runtime(
    ["exec", "--detach", "--pid-file", `${bundle.path}/second`, bundle.id, "/bin/probe", "--sleep", "60"],
    { through: ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh"] },
  );
  expect(second.status).toBe(0);
  const other = Number(readFileSync(`${bundle.path}/second`, "utf8"));
  expect(alive(other)).toBe(true);
  expect(remove(bundle, "--force")).toMatchObject({ status: 0, stderr: "" });
  until("all its processes have ended", () => !alive(pid) && !alive(other), 2000);
  expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
});

test("a cgroup that has other processes is not taken", () => {
  const first = idle((spec) => {
    spec.linux.cgroupsPath = `/caisson-taken-${process.pid}`;
  });
  const { status, stderr } = run(
    makeBundle((spec) => {
      spec.linux.cgroupsPath = `/caisson-taken-${process.pid}`;
    }),
  );
  expect(status).toBe(1);
  expect(stderr).toContain("container's cgroup is not empty");
  // the failure must not have touched the one that was there
  expect(state(first).status).toBe("running");
});

test("a cgroup that is frozen already is refused: what enters it could not even be killed", ({ skip }) => {
  skip(!version1, "version 1 is not there");
  const name = `/caisson-frozen-${process.pid}`;
  const directory = `/sys/fs/cgroup/freezer${name}`;
  const bundle = makeBundle((spec) => {
    spec.linux.cgroupsPath = name;
  });
  mkdirSync(directory);
  try {
    writeFileSync(`${directory}/freezer.state`, "FROZEN");
    for (const verb of ["run", "create"])
      expect(runtime([verb, "--bundle", bundle.path, bundle.id])).toMatchObject({
        status: 1,
        stderr: expect.stringContaining("container's cgroup unexpectedly frozen"),
      });
    expect(existsSync(directory)).toBe(true);
  } finally {
    rmdirSync(directory);
  }
  expect(cgroupDirectories().filter((path) => path.includes(name))).toEqual([]);
});

test("the container sees its own cgroups read-only under /sys/fs/cgroup", ({ skip }) => {
  skip(!version1, "looks at the hierarchies of cgroup version 1");
  const bundle = makeBundle((spec) => {
    LIMITS(spec);
    spec.process.args = [
      "/bin/probe",
      "--read",
      "/sys/fs/cgroup/memory/memory.limit_in_bytes",
      "--write",
      "/sys/fs/cgroup/pids/pids.max",
      "max",
      "--mkdir",
      "/sys/fs/cgroup/new",
    ];
  });
  startContainer(bundle);
  until("it has ended", () => state(bundle).status === "stopped");
  const seen = JSON.parse(readFileSync(`${bundle.path}/output`, "utf8").trimEnd());
  expect(seen.actions.map(({ result, error }: { result: unknown; error: string | null }) => error ?? result)).toEqual([
    `${64 << 20}\n`,
    "EROFS",
    "EROFS",
  ]);
});
