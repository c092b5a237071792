import { mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  cleanUp,
  cleanUpFile,
  type Edit,
  exec,
  idle,
  makeBundle,
  type Outcome,
  remove,
  results,
  run,
  runtime,
  scratchDirectory,
  seenIn,
  startContainer,
  state,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// OCI runtime-spec, config-linux.md "Control groups", on pure version 2: what a limit does, under us and under our peers.

const ROOT = "/sys/fs/cgroup";
/** A disk that nobody uses, which the guest has. */
const DISK = "/dev/vdb";

afterEach(cleanUp);
afterAll(cleanUpFile);

/** What a cgroup of the test's own says. */
function read(pid: number, file: string): string {
  return readFileSync(join(directoryOf(pid), file), "utf8").trim();
}

function directoryOf(pid: number): string {
  const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[1] ?? "";
  return join(ROOT, path);
}

/** A number by its key, in a file such as cpu.stat. */
function field(text: unknown, key: string): number {
  return Number(new RegExp(`^${key} (\\d+)$`, "m").exec(String(text))?.[1]);
}

/** The cgroup as the container's own, at /sys/fs/cgroup. */
const ownCgroup: Edit = (spec) => {
  spec.linux.namespaces?.push({ type: "cgroup" });
};

interface Row {
  edit: Edit;
  actions: string[];
  /** What a run of it comes to: the same for all runtimes. */
  effect: (outcome: Outcome) => unknown;
  expected: unknown;
}

const ended = ({ status, stdout }: Outcome) => ({ status, stdout });
const did = (outcome: Outcome) => results(seenIn(outcome).actions);
const noSwap = { limit: 32 << 20, swap: 32 << 20 };
const loopControl = { path: "/dev/loop-control", type: "c", major: 10, minor: 237, fileMode: 0o600 } as const;

/** What the kernel does about a limit, by what the specification calls it. */
const EFFECTS: { [what: string]: Row } = {
  "memory.limit: who takes more is killed": {
    edit: (spec) => {
      spec.linux.resources = { memory: noSwap };
    },
    actions: ["--allocate", "200"],
    effect: ended,
    expected: { status: 137, stdout: "" },
  },
  "memory.limit: who takes less is not": {
    edit: (spec) => {
      spec.linux.resources = { memory: noSwap };
    },
    actions: ["--allocate", "16"],
    effect: did,
    expected: [16],
  },
  "unified: the kernel's own names do the same": {
    edit: (spec) => {
      spec.linux.resources = { unified: { "memory.max": String(32 << 20), "memory.swap.max": "0" } };
    },
    actions: ["--allocate", "200"],
    effect: ended,
    expected: { status: 137, stdout: "" },
  },
  "pids.limit: a fork too many fails": {
    edit: (spec) => {
      spec.linux.resources = { pids: { limit: 20 } };
    },
    actions: ["--fork", "100"],
    effect: did,
    expected: [{ forks: 19, stoppedBy: "EAGAIN" }],
  },
  "cpu.quota: a fifth of a processor is what it gets": {
    edit: (spec) => {
      ownCgroup(spec);
      spec.linux.resources = { cpu: { quota: 20_000, period: 100_000 } };
    },
    actions: ["--spin", "2000", "--read", `${ROOT}/cpu.stat`],
    effect: (outcome) => {
      const [spin, statistics] = did(outcome);
      const { wallNs, cpuNs } = Object(spin);
      return { slow: cpuNs / wallNs < 0.35, throttled: field(statistics, "nr_throttled") > 3 };
    },
    expected: { slow: true, throttled: true },
  },
  "cpu.cpus: it runs on these processors alone": {
    edit: (spec) => {
      spec.linux.resources = { cpu: { cpus: "1", mems: "0" } };
    },
    actions: [],
    effect: (outcome) => seenIn(outcome).affinity,
    expected: [1],
  },
  "devices: what is not listed is refused": {
    edit: (spec) => {
      spec.linux.devices = [loopControl];
      spec.linux.resources = { devices: [{ allow: false, access: "rwm" }] };
    },
    actions: ["--open-device", "/dev/loop-control", "rw", "--open-device", "/dev/null", "rw"],
    effect: did,
    expected: ["EPERM", "character 1:3"],
  },
  "devices: what is listed is opened, for the access that is listed": {
    edit: (spec) => {
      spec.linux.devices = [loopControl];
      spec.linux.resources = {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, type: "c", major: 10, minor: 237, access: "r" },
        ],
      };
    },
    actions: ["--open-device", "/dev/loop-control", "r", "--open-device", "/dev/loop-control", "rw"],
    effect: did,
    expected: ["character 10:237", "EPERM"],
  },
  "the container sees its own cgroup, read-only": {
    edit: (spec) => {
      ownCgroup(spec);
      spec.linux.resources = { pids: { limit: 33 } };
    },
    actions: ["--read", `${ROOT}/pids.max`, "--write", `${ROOT}/pids.max`, "max", "--mkdir", `${ROOT}/new`],
    effect: did,
    expected: ["33\n", "EROFS", "EROFS"],
  },
};

describe.each(["caisson", "runc", "crun"])("under %s", (name) => {
  const how = name === "caisson" ? {} : { program: name };

  test.each(Object.entries(EFFECTS))("on pure version 2, %s", (_, { edit, actions, effect, expected }) => {
    covers("linux.resources v2", "linux.resources.unified", "linux.resources.devices v2");
    const bundle = makeBundle((spec) => {
      // the peers know the specification of their time
      spec.ociVersion = "1.0.2";
      spec.process.args = ["/bin/probe", ...actions];
      edit(spec);
    });
    expect(effect(run(bundle, how))).toEqual(expected);
  });

  test("blockIO: a writer is as slow as its limit", () => {
    covers("linux.resources.blockIO.throttle");
    const { rdev } = statSync(DISK);
    const [major, minor] = [(rdev >> 8) & 0xfff, rdev & 0xff];
    const bundle = makeBundle(
      (spec) => {
        spec.ociVersion = "1.0.2";
        ownCgroup(spec);
        spec.linux.devices = [{ path: DISK, type: "b", major, minor }];
        spec.linux.resources = {
          devices: [
            { allow: false, access: "rwm" },
            { allow: true, type: "b", major, minor, access: "rw" },
          ],
          blockIO: { throttleWriteBpsDevice: [{ major, minor, rate: 1 << 20 }] },
        };
        const write = `dd if=/dev/zero of=${DISK} bs=256k count=16 conv=notrunc oflag=direct 2>/dev/null`;
        const now = "cut -d' ' -f1 /proc/uptime";
        spec.process.args = ["/bin/sh", "-ec", `${now}; ${write}; ${now}; cat ${ROOT}/io.stat`];
      },
      { root: "shell" },
    );
    const { status, stdout, stderr } = run(bundle, how);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const [began, finished, ...statistics] = stdout.trim().split("\n");
    // 4 MiB at 1 MiB/s
    expect(Number(finished) - Number(began)).toBeGreaterThan(2.9);
    expect(statistics.find((line) => line.startsWith(`${major}:${minor} `))).toContain(" wbytes=4194304 ");
  });
});

describe("a container's cgroup", () => {
  test("is where its first process is born: no step moves it there", () => {
    covers("CLONE_INTO_CGROUP");
    const log = join(scratchDirectory(), "strace");
    const witness = ["strace", "-f", "-qq", "-e", "trace=clone3,write", "-o", log];
    expect(run(makeBundle(), { through: witness }).status).toBe(0);
    const calls = readFileSync(log, "utf8");
    expect(calls).toMatch(/clone3\(\{flags=[^}]*CLONE_INTO_CGROUP[^}]*cgroup=\d+/);
  });

  test("says that memory ran out, and so do events", () => {
    // a child is killed, and its parent goes on
    const bundle = idle((spec) => {
      spec.linux.resources = { memory: noSwap };
    });
    expect(exec(bundle, ["/bin/probe", "--allocate", "200"]).status).toBe(137);
    expect(field(read(state(bundle).pid, "memory.events"), "oom_kill")).toBe(1);
    const { stdout } = runtime(["events", "--stats", bundle.id]);
    expect(JSON.parse(stdout).data.memory.usage.failcnt).toBeGreaterThan(0);
  });

  test("changes while the container runs", () => {
    const bundle = idle();
    const { pid } = state(bundle);
    const flags = ["--pids-limit", "10", "--cpu-quota", "30000", "--cpu-period", "100000", "--cpuset-cpus", "1"];
    const update = runtime(["update", ...flags, "--memory", String(64 << 20), bundle.id]);
    expect(update).toMatchObject({ status: 0, stderr: "" });
    expect(read(pid, "cpu.max")).toBe("30000 100000");
    expect(read(pid, "memory.max")).toBe(String(64 << 20));
    const seen = seenIn(exec(bundle, ["/bin/probe", "--fork", "100"]));
    expect(seen.affinity).toEqual([1]);
    expect(results(seen.actions)).toEqual([{ forks: 8, stoppedBy: "EAGAIN" }]);
  });

  test("has what few ask for, in the kernel's own files", () => {
    covers("linux.resources.memory.reservation", "linux.resources.cpu.burst", "linux.resources.cpu.idle");
    const bundle = idle((spec) => {
      spec.linux.resources = {
        memory: { limit: 64 << 20, reservation: 16 << 20 },
        cpu: { quota: 50_000, period: 100_000, burst: 20_000 },
        unified: { "memory.high": String(48 << 20) },
      };
    });
    const { pid } = state(bundle);
    expect(read(pid, "memory.low")).toBe(String(16 << 20));
    expect(read(pid, "memory.high")).toBe(String(48 << 20));
    expect(read(pid, "cpu.max")).toBe("50000 100000");
    expect(read(pid, "cpu.max.burst")).toBe("20000");
    const background = idle((spec) => {
      spec.linux.resources = { cpu: { idle: 1 } };
    });
    expect(read(state(background).pid, "cpu.idle")).toBe("1");
  });

  test("is killed as a whole where it asks for that", () => {
    covers("memory.oom.group");
    const bundle = idle((spec) => {
      spec.linux.resources = { memory: noSwap, unified: { "memory.oom.group": "1" } };
    });
    const { pid } = state(bundle);
    expect(exec(bundle, ["/bin/probe", "--allocate", "200"]).status).toBe(137);
    until("its first process has ended, too", () => !alive(pid));
  });

  test("is given no limit below what it uses, if asked to look", () => {
    covers("linux.resources.memory.checkBeforeUpdate");
    const bundle = idle();
    const { pid } = state(bundle);
    const update = (memory: object) =>
      runtime(["update", "--resources", "-", bundle.id], { input: JSON.stringify({ memory }) });
    const refused = update({ limit: 4096, checkBeforeUpdate: true });
    expect({ refused: refused.status !== 0, limit: read(pid, "memory.max") }).toEqual({ refused: true, limit: "max" });
    expect(update({ limit: 256 << 20, checkBeforeUpdate: true })).toMatchObject({ status: 0, stderr: "" });
    expect(read(pid, "memory.max")).toBe(String(256 << 20));
    expect(alive(pid)).toBe(true);
  });

  test("is frozen and thawed, and what is frozen can be ended", () => {
    const bundle = idle((spec) => {
      spec.process.args = ["/bin/probe", "--spin", "600000"];
    });
    const { pid } = state(bundle);
    const used = () => field(read(pid, "cpu.stat"), "usage_usec");
    expect(runtime(["pause", bundle.id])).toMatchObject({ status: 0, stderr: "" });
    expect(state(bundle).status).toBe("paused");
    expect(read(pid, "cgroup.events")).toContain("frozen 1");
    const frozen = used();
    expect(state(bundle).status).toBe("paused");
    expect(used()).toBe(frozen);
    expect(runtime(["resume", bundle.id])).toMatchObject({ status: 0, stderr: "" });
    until("it uses time again", () => used() > frozen);
    expect(runtime(["pause", bundle.id]).status).toBe(0);
    expect(remove(bundle, "--force")).toMatchObject({ status: 0, stderr: "" });
    expect(alive(pid)).toBe(false);
  });

  test("can be divided by the container it was delegated to, and goes with all that was made in it", () => {
    const bundle = makeBundle(
      (spec) => {
        ownCgroup(spec);
        spec.mounts = spec.mounts.map((mount) => (mount.type === "cgroup" ? { ...mount, options: ["rw"] } : mount));
        spec.linux.resources = { pids: { limit: 50 } };
        const script = `cd ${ROOT}; mkdir leader child; echo 0 >leader/cgroup.procs; echo +pids >cgroup.subtree_control
          echo 5 >child/pids.max; cat child/pids.max; mkdir child/deeper; sleep 60 & echo $! >child/deeper/cgroup.procs
          echo ready; wait`;
        spec.process.args = ["/bin/sh", "-ec", script];
      },
      { root: "shell" },
    );
    startContainer(bundle);
    until("it has divided its cgroup", () => readFileSync(join(bundle.path, "output"), "utf8") === "5\nready\n");
    const mine = () => cgroupDirectories().filter((path) => path.includes(bundle.id));
    expect(mine()).toEqual(["", "/child", "/child/deeper", "/leader"].map((path) => `${ROOT}/${bundle.id}${path}`));
    // the cgroup itself can have no process any more: one that joins goes where the first one has gone
    const joined = exec(bundle, ["/bin/cat", "/proc/self/cgroup"]);
    expect(joined).toMatchObject({ status: 0, stdout: expect.stringMatching(/^0::\/leader$/m), stderr: "" });
    expect(remove(bundle, "--force")).toMatchObject({ status: 0, stderr: "" });
    expect(mine()).toEqual([]);
  });

  test("may be deep in another's, whose limits hold for it too", () => {
    const parent = `/caisson-test-${process.pid}`;
    mkdirSync(join(ROOT, parent));
    try {
      writeFileSync(join(ROOT, parent, "pids.max"), "10");
      const bundle = makeBundle((spec) => {
        spec.linux.cgroupsPath = `${parent}/middle/leaf`;
        spec.linux.resources = { pids: { limit: 40 } };
        spec.process.args = ["/bin/probe", "--fork", "100"];
      });
      expect(results(seenIn(run(bundle)).actions)).toEqual([{ forks: 9, stoppedBy: "EAGAIN" }]);
      expect(cgroupDirectories().filter((path) => path.endsWith("/leaf"))).toEqual([]);
    } finally {
      for (const path of cgroupDirectories()
        .filter((each) => each.includes(parent))
        .reverse())
        rmdirSync(path);
    }
  });
});
