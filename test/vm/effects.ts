import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import {
  type Bundle,
  type Edit,
  exec,
  makeBundle,
  type Outcome,
  outputOf,
  results,
  run,
  seenIn,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// OCI runtime-spec, config-linux.md "Control groups", on pure version 2: what a limit does.

export const CGROUPS = "/sys/fs/cgroup";
/** A disk that nobody uses, which the guest has. */
const DISK = "/dev/vdb";

/** What the cgroup of a process says. */
export function read(pid: number, file: string): string {
  return readFileSync(join(directoryOf(pid), file), "utf8").trim();
}

export function directoryOf(pid: number): string {
  const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[1] ?? "";
  return join(CGROUPS, path);
}

/** A number by its key, in a file such as cpu.stat. */
export function field(text: unknown, key: string): number {
  return Number(new RegExp(`^${key} (\\d+)$`, "m").exec(String(text))?.[1]);
}

/** The cgroup as the container's own, at /sys/fs/cgroup. */
export const ownCgroup: Edit = (spec) => {
  spec.linux.namespaces?.push({ type: "cgroup" });
};

/** Divides the cgroup that was delegated to it. */
export const divides: Edit = (spec) => {
  ownCgroup(spec);
  spec.mounts = spec.mounts.map((mount) => (mount.type === "cgroup" ? { ...mount, options: ["rw"] } : mount));
  spec.linux.resources = { pids: { limit: 50 } };
  const script = `cd ${CGROUPS}; mkdir leader child; echo 0 >leader/cgroup.procs; echo +pids >cgroup.subtree_control
    echo 5 >child/pids.max; cat child/pids.max; mkdir child/deeper; sleep 600 & echo $! >child/deeper/cgroup.procs
    echo ready; wait`;
  spec.process.args = ["/bin/sh", "-ec", script];
};

/** That a container which divides its cgroup has done so, and processes still join it. */
export function expectDivided(bundle: Bundle, cgroup: string): void {
  until("it has divided its cgroup", () => readFileSync(outputOf(bundle), "utf8") === "5\nready\n");
  expect(cgroupDirectories().filter((path) => `${path}/`.startsWith(`${cgroup}/`))).toEqual(
    ["", "/child", "/child/deeper", "/leader"].map((path) => `${cgroup}${path}`),
  );
  // the cgroup itself can have no process any more: one that joins goes where the first one has gone
  const joined = exec(bundle, ["/bin/cat", "/proc/self/cgroup"]);
  expect(joined).toMatchObject({ status: 0, stdout: expect.stringMatching(/^0::\/leader$/m), stderr: "" });
}

/** A limit, what is done under it, and what comes of it. */
export interface Row {
  edit: Edit;
  /** The probe's; or `edit` sets another program. */
  actions?: string[];
  /** What a run of it comes to: the same for all runtimes. */
  effect: (outcome: Outcome) => unknown;
  expected: unknown;
  root?: "shell";
}

const ended = ({ status, stdout }: Outcome) => ({ status, stdout });
const did = (outcome: Outcome) => results(seenIn(outcome).actions);
export const noSwap = { limit: 32 << 20, swap: 32 << 20 };
export const loopControl = { path: "/dev/loop-control", type: "c", major: 10, minor: 237, fileMode: 0o600 } as const;

/** What the kernel does about a limit, by what the specification calls it. */
export const EFFECTS: { [what: string]: Row } = {
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
    actions: ["--spin", "2000", "--read", `${CGROUPS}/cpu.stat`],
    effect: (outcome) => {
      const [spin, statistics] = did(outcome);
      const { wallNs, cpuNs } = Object(spin);
      const used = cpuNs / wallNs;
      return { near: used > 0.1 && used < 0.35, throttled: field(statistics, "nr_throttled") > 3 };
    },
    expected: { near: true, throttled: true },
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
    actions: ["--read", `${CGROUPS}/pids.max`, "--write", `${CGROUPS}/pids.max`, "max", "--mkdir", `${CGROUPS}/new`],
    effect: did,
    expected: ["33\n", "EROFS", "EROFS"],
  },
  "blockIO: a writer is as slow as its limit": {
    root: "shell",
    edit: (spec) => {
      const { rdev } = statSync(DISK);
      const [major, minor] = [(rdev >> 8) & 0xfff, rdev & 0xff];
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
      const statistics = `sed -n 's/^${major}:${minor} .* \\(wbytes=[0-9]*\\) .*/\\1/p' ${CGROUPS}/io.stat`;
      spec.process.args = ["/bin/sh", "-ec", `${now}; ${write}; ${now}; ${statistics}`];
    },
    effect: ({ status, stdout, stderr }) => {
      const [began, finished, written] = stdout.trim().split("\n");
      // 4 MiB at 1 MiB/s
      return { status, stderr, slow: Number(finished) - Number(began) > 2.9, written };
    },
    expected: { status: 0, stderr: "", slow: true, written: "wbytes=4194304" },
  },
};

/** What comes of a row under a runtime, which runs the container with these flags of its own. */
export function effectOf({ edit, actions = [], effect, root }: Row, name: string, globalFlags: string[] = []): unknown {
  const bundle = makeBundle(
    (spec) => {
      // the peers know the specification of their time
      spec.ociVersion = "1.0.2";
      spec.process.args = ["/bin/probe", ...actions];
      edit(spec);
    },
    root === undefined ? {} : { root },
  );
  return effect(run(bundle, { globalFlags, ...(name === "caisson" ? {} : { program: name }) }));
}
