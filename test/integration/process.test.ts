import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import type { ExecCpuAffinity, Process } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  type Edit,
  exec,
  idle,
  lastLine,
  makeBundle,
  probe,
  results,
  rewrite,
  run,
  scratchDirectory,
  seenIn,
  startContainer,
} from "../support/bundle.ts";

// OCI runtime-spec, config.md "Process", and "process" of config-linux.md.

afterEach(cleanUp);
afterAll(cleanUpFile);

/** The capabilities' bits, as /proc/self/status writes them. */
function mask(...numbers: number[]): string {
  return numbers
    .reduce((bits, number) => bits | (1n << BigInt(number)), 0n)
    .toString(16)
    .padStart(16, "0");
}

const CHOWN = 0;
const KILL = 5;
const SETUID = 7;
const NET_BIND_SERVICE = 10;
const AUDIT_WRITE = 29;

test("arguments, environment and working directory arrive as they were written", () => {
  covers("process.args", "process.env", "process.cwd");
  const seen = probe((spec) => {
    spec.process.args = ["/bin/probe", "--read", "/with space", "--write", "", 'qu"ote\n$HOME'];
    spec.process.env = ["PATH=/bin", "EMPTY=", "UNICODE=süß", "TWICE=1", "TWICE=2"];
    spec.process.cwd = "/home/app";
  });
  expect(seen.argv).toEqual(["/bin/probe", "--read", "/with space", "--write", "", 'qu"ote\n$HOME']);
  // of one given twice the last counts, as with runc
  expect(seen.env).toEqual(["PATH=/bin", "EMPTY=", "UNICODE=süß", "TWICE=2", "HOME=/root"]);
  expect(seen.cwd).toBe("/home/app");
  expect(seen.cwdUnreachable).toBe(false);
  expect(seen.exe).toBe("/bin/probe");
});

describe("HOME", () => {
  test("comes from the root's passwd where the environment has none", () => {
    covers("process.env");
    const seen = probe((spec) => {
      spec.process.user = { uid: 1000, gid: 1000 };
    });
    expect(seen.env.filter((entry) => entry.startsWith("HOME="))).toEqual(["HOME=/home/app"]);
  });

  test("comes from there, too, where it is empty", () => {
    const seen = probe((spec) => {
      spec.process.env.push("HOME=");
    });
    expect(seen.env.filter((entry) => entry.startsWith("HOME="))).toEqual(["HOME=/root"]);
  });

  test("is / for a user that passwd does not know", () => {
    const seen = probe((spec) => {
      spec.process.user = { uid: 4242, gid: 4242 };
    });
    expect(seen.env.filter((entry) => entry.startsWith("HOME="))).toEqual(["HOME=/"]);
  });

  test("comes from what is mounted over passwd's directory, which may have none", () => {
    const home = (edit: Edit) =>
      probe(
        (spec) => {
          spec.process.env = [];
          spec.process.user = { uid: 1000, gid: 1000 };
          edit(spec);
        },
        [],
        { root: "shell" },
      ).env;
    const etc = mkdtempSync(join(scratchDirectory(), "etc-"));
    writeFileSync(join(etc, "passwd"), "app:x:1000:1000::/from/the/host:/bin/sh\n");
    const bind = { destination: "/etc", type: "bind", source: etc, options: ["bind"] };
    expect(home(() => undefined)).toContain("HOME=/home/app");
    expect(home(({ mounts }) => mounts.push({ destination: "/etc", type: "tmpfs", source: "tmpfs" }))).toContain(
      "HOME=/",
    );
    expect(home(({ mounts }) => mounts.push(bind))).toContain("HOME=/from/the/host");
    const file = { ...bind, destination: "/etc/passwd", source: join(etc, "passwd") };
    expect(home(({ mounts }) => mounts.push(file))).toContain("HOME=/from/the/host");
  });

  test("stays as the environment has it", () => {
    const seen = probe((spec) => {
      spec.process.env.push("HOME=/elsewhere");
    });
    expect(seen.env.filter((entry) => entry.startsWith("HOME="))).toEqual(["HOME=/elsewhere"]);
  });
});

test("who may execute anything by a capability may execute the program, too", () => {
  const all = ["CAP_DAC_OVERRIDE"];
  const bundle = makeBundle((spec) => {
    spec.process.user = { uid: 1000, gid: 1000 };
  });
  chmodSync(join(bundle.rootfs, "bin/probe"), 0o700);
  expect(run(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining("permission denied") });
  rewrite(bundle, (spec) => {
    spec.process.user = { uid: 1000, gid: 1000 };
    spec.process.capabilities = { bounding: all, permitted: all, effective: all, inheritable: all, ambient: all };
  });
  expect(seenIn(run(bundle)).uids.real).toBe(1000);
});

test("a name without a slash is looked for in the container's PATH", () => {
  covers("process.args");
  const seen = probe((spec) => {
    spec.process.args = ["probe"];
    spec.process.env = ["PATH=/nowhere:/bin"];
  });
  expect(seen.exe).toBe("/bin/probe");
  expect(seen.argv).toEqual(["probe"]);
});

describe("the working directory", () => {
  test("is made where it is missing, in the order the mounts ask for", () => {
    covers("process.cwd");
    const seen = probe((spec) => {
      spec.mounts.push({ destination: "/tmp", type: "tmpfs", source: "tmpfs" });
      spec.process.cwd = "/tmp/deep/er";
    });
    expect(seen.cwd).toBe("/tmp/deep/er");
  });

  test("may be closed to the container's user, as with docker's --workdir: the runtime enters it", () => {
    const bundle = makeBundle((spec) => {
      spec.process.user = { uid: 1000, gid: 1000 };
      delete spec.process.capabilities;
      spec.process.cwd = "/root";
      spec.process.args = ["/bin/probe", "--stat", "/root/."];
    });
    const seen = seenIn(run(bundle));
    expect(seen.cwd).toBe("/root");
    expect(results(seen.actions)).toEqual(["EACCES"]);
  });

  test("of root, too, may be closed to it: it has no capabilities, and exec enters as create does", () => {
    const bundle = makeBundle((spec) => {
      delete spec.process.capabilities;
      spec.process.cwd = "/home";
      spec.process.args = ["/bin/probe", "--sleep", "60"];
    });
    chownSync(join(bundle.rootfs, "home"), 42, 42);
    chmodSync(join(bundle.rootfs, "home"), 0o700);
    startContainer(bundle);
    expect(seenIn(exec(bundle, ["/bin/probe"], { flags: ["--user", "0"] })).cwd).toBe("/home");
  });

  test.each(["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/fd/8", "/proc/self/cwd"])(
    "%s leads nowhere outside of the root (CVE-2024-21626)",
    (cwd) => {
      const bundle = makeBundle((spec) => {
        spec.process.cwd = cwd;
      });
      const { status, stdout, stderr } = run(bundle);
      // /proc/self/cwd is the root itself by then: allowed, and harmless
      if (status === 0) expect(seenIn({ status, stdout, stderr }).cwdUnreachable).toBe(false);
      if (cwd !== "/proc/self/cwd") expect(status).toBe(1);
    },
  );

  test("a link in the root to a descriptor leads nowhere either", () => {
    const bundle = makeBundle((spec) => {
      spec.process.cwd = "/escape";
    });
    symlinkSync("/proc/self/fd/7", join(bundle.rootfs, "escape"));
    expect(run(bundle).status).toBe(1);
  });
});

test("user, groups and umask are exactly those asked for, and no id can be taken back", () => {
  covers("process.user", "process.user.umask", "process.user.additionalGids");
  const seen = probe(
    (spec) => {
      spec.process.user = { uid: 1000, gid: 1001, additionalGids: [29, 44, 2000], umask: 0o27 };
      delete spec.process.capabilities;
    },
    ["--setuid", "0", "--setgid", "0"],
  );
  expect(seen.uids).toEqual({ real: 1000, effective: 1000, saved: 1000, fs: 1000 });
  expect(seen.gids).toEqual({ real: 1001, effective: 1001, saved: 1001, fs: 1001 });
  expect([...seen.groups].sort((one, other) => one - other)).toEqual([29, 44, 2000]);
  expect(seen.umask).toBe("0027");
  expect(results(seen.actions)).toEqual(["EPERM", "EPERM"]);
  expect(seen.capabilities).toEqual({
    inheritable: mask(),
    permitted: mask(),
    effective: mask(),
    bounding: mask(),
    ambient: mask(),
  });
});

test("without additionalGids no group of the caller's is left", () => {
  covers("process.user.additionalGids");
  const seen = probe(() => undefined, [], { through: ["setpriv", "--groups", "7,8,9"] });
  expect(seen.groups).toEqual([]);
});

describe("capabilities", () => {
  test("all five sets are exactly those asked for", () => {
    covers("process.capabilities");
    const seen = probe((spec) => {
      spec.process.user = { uid: 1000, gid: 1000 };
      spec.process.capabilities = {
        bounding: ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"],
        permitted: ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        effective: ["CAP_CHOWN", "CAP_KILL"],
        inheritable: ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
        ambient: ["CAP_NET_BIND_SERVICE"],
      };
    });
    // execve(2) computes what a process without file capabilities keeps: the ambient ones (capabilities(7))
    expect(seen.capabilities).toEqual({
      bounding: mask(CHOWN, KILL, SETUID, NET_BIND_SERVICE),
      permitted: mask(NET_BIND_SERVICE),
      effective: mask(NET_BIND_SERVICE),
      inheritable: mask(CHOWN, NET_BIND_SERVICE),
      ambient: mask(NET_BIND_SERVICE),
    });
  });

  test("root has those of the bounding set, and none inheritable (CVE-2022-29162)", () => {
    const seen = probe(() => undefined);
    const held = mask(KILL, NET_BIND_SERVICE, AUDIT_WRITE);
    expect(seen.capabilities).toEqual({
      bounding: held,
      permitted: held,
      effective: held,
      inheritable: mask(),
      ambient: mask(),
    });
  });

  test("with none, even root may do nothing", () => {
    const seen = probe(
      (spec) => {
        spec.process.capabilities = {};
        spec.root.readonly = false;
      },
      ["--chown", "/home/app", "0", "0", "--mount", "--mknod", "/dev/here", "c", "1", "3"],
    );
    expect(seen.capabilities).toEqual({
      bounding: mask(),
      permitted: mask(),
      effective: mask(),
      inheritable: mask(),
      ambient: mask(),
    });
    expect(results(seen.actions)).toEqual(["EPERM", "EPERM", "EPERM"]);
  });
});

test("limits, oom_score_adj and no_new_privs are set", () => {
  covers("process.rlimits", "process.oomScoreAdj", "process.noNewPrivileges");
  const seen = probe((spec) => {
    spec.process.noNewPrivileges = true;
    spec.process.oomScoreAdj = 321;
    spec.process.rlimits = [
      { type: "RLIMIT_NOFILE", soft: 512, hard: 2048 },
      { type: "RLIMIT_CORE", soft: 0, hard: 1 },
      { type: "RLIMIT_STACK", soft: 1048576, hard: 4194304 },
    ];
  });
  expect(seen.noNewPrivs).toBe(true);
  expect(seen.oomScoreAdj).toBe(321);
  expect(seen.rlimits).toMatchObject({
    RLIMIT_NOFILE: { soft: 512, hard: 2048 },
    RLIMIT_CORE: { soft: 0, hard: 1 },
    RLIMIT_STACK: { soft: 1048576, hard: 4194304 },
  });
});

test("the largest 64-bit limit means unlimited", () => {
  covers("process.rlimits");
  const bundle = makeBundle((spec) => {
    spec.process.rlimits = [{ type: "RLIMIT_FSIZE", soft: 4096, hard: 4242424242424242 }];
  });
  // JavaScript cannot write this number
  const config = join(bundle.path, "config.json");
  writeFileSync(config, readFileSync(config, "utf8").replace("4242424242424242", "18446744073709551615"));
  expect(seenIn(run(bundle)).rlimits.RLIMIT_FSIZE).toEqual({ soft: 4096, hard: "unlimited" });
});

test("without noNewPrivileges the flag is not set", () => {
  covers("process.noNewPrivileges");
  const seen = probe((spec) => {
    spec.process.noNewPrivileges = false;
  });
  expect(seen.noNewPrivs).toBe(false);
});

test("scheduling policy and I/O priority are set", () => {
  covers("process.scheduler", "process.ioPriority");
  const seen = probe((spec) => {
    spec.process.scheduler = { policy: "SCHED_BATCH", nice: 7 };
    spec.process.ioPriority = { class: "IOPRIO_CLASS_BE", priority: 6 };
  });
  expect(seen.scheduler).toMatchObject({ policy: "SCHED_BATCH", nice: 7 });
  expect(seen.ioPriority).toEqual({ class: "IOPRIO_CLASS_BE", level: 6 });
});

test("SCHED_DEADLINE is set with its times, hooks before it notwithstanding", () => {
  covers("process.scheduler deadline");
  const seen = probe((spec) => {
    spec.hooks = { createContainer: [{ path: "/bin/true" }] };
    spec.process.scheduler = {
      policy: "SCHED_DEADLINE",
      runtime: 10_000_000,
      deadline: 20_000_000,
      period: 30_000_000,
      flags: ["SCHED_FLAG_RESET_ON_FORK"],
    };
  });
  expect(seen.scheduler).toMatchObject({
    policy: "SCHED_DEADLINE",
    runtimeNs: 10_000_000,
    deadlineNs: 20_000_000,
    periodNs: 30_000_000,
  });
});

test.each(["SCHED_FIFO", "SCHED_RR"] as const)("%s is set, with its priority", (policy) => {
  covers("process.scheduler");
  const seen = probe((spec) => {
    spec.process.scheduler = { policy, priority: 7 };
    // version 1 gives a new cgroup no real time
    if (existsSync("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"))
      spec.linux.resources = { ...spec.linux.resources, cpu: { realtimeRuntime: 10_000, realtimePeriod: 1_000_000 } };
  });
  expect(seen.scheduler).toMatchObject({ policy, priority: 7 });
});

test.runIf(cpus().length > 1)("the caller's processors are not the container's, only those of its cpuset are", () => {
  const caller = ["taskset", "--cpu-list", "0"];
  const all = seenIn(run(makeBundle())).affinity;
  const last = all.at(-1) ?? 0;
  expect(seenIn(run(makeBundle(), { through: caller })).affinity).toEqual(all);
  for (const [list, expected] of [
    [`0,${last}`, [0, last]],
    [`${last}`, [last]],
  ] as const) {
    const bundle = idle((spec) => {
      spec.linux.resources = { cpu: { cpus: list } };
    });
    expect(seenIn(exec(bundle, ["/bin/probe"], { through: caller })).affinity).toEqual(expected);
  }
});

test("a further process has the processors it is to have, before and after it enters the cgroup", () => {
  covers("process.execCPUAffinity");
  const bundle = idle();
  const [first = 0] = seenIn(exec(bundle, ["/bin/probe"])).affinity;
  const all = seenIn(exec(bundle, ["/bin/probe"])).affinity;
  const last = all.at(-1) ?? 0;
  const file = join(bundle.path, "process.json");
  const affinityOf = (execCPUAffinity: ExecCpuAffinity, through: string[] = []) => {
    const own: Process = { cwd: "/", args: ["/bin/probe"], execCPUAffinity };
    writeFileSync(file, JSON.stringify(own));
    return seenIn(exec(bundle, [], { flags: ["--process", file], through })).affinity;
  };
  expect(affinityOf({ final: `${last}` })).toEqual([last]);
  expect(affinityOf({ initial: `${first}` })).toEqual([first]);
  expect(affinityOf({ initial: `${first}`, final: ` ${last}, ,` })).toEqual([last]);
  expect(affinityOf({ initial: "", final: "" })).toEqual(all);
  const log = join(bundle.path, "strace");
  affinityOf({ initial: `${first}`, final: `${last}` }, ["strace", "-f", "-o", log, "-e", "sched_setaffinity,clone3"]);
  // a call that another thread's interrupts is on two lines
  const calls = readFileSync(log, "utf8").match(/sched_setaffinity\(0, |clone3\(.*CLONE_PARENT\b/g) ?? [];
  expect(calls.map((call) => call.slice(0, 6))).toEqual(["sched_", "clone3", "sched_"]);
});

test("memory comes from the nodes of the policy", () => {
  covers("linux.memoryPolicy");
  const seen = probe(
    (spec) => {
      spec.linux.memoryPolicy = { mode: "MPOL_BIND", nodes: "0", flags: ["MPOL_F_STATIC_NODES"] };
    },
    ["--read", "/proc/self/numa_maps"],
  );
  expect(String(seen.actions[0]?.result)).toMatch(/ bind=static:0 /);
  const beyond = makeBundle((spec) => {
    spec.linux.memoryPolicy = { mode: "MPOL_BIND", nodes: "1000" };
  });
  const { status, stderr } = run(beyond);
  expect(status).toBe(1);
  expect(stderr).toContain("(EINVAL at /linux/memoryPolicy)");
});

describe("capabilities that cannot be granted are logged, and the rest is", () => {
  const one = ["CAP_KILL"];
  const two = ["CAP_KILL", "CAP_CHOWN"];
  const sets = { bounding: one, permitted: one, effective: one, inheritable: one };

  test.each([
    ["effective", { ...sets, effective: two }, "it is not permitted"],
    ["inheritable", { ...sets, inheritable: two }, "it is not in the bounding set"],
  ] as const)("%s", (set, capabilities, why) => {
    covers("process.capabilities");
    const bundle = makeBundle((spec) => {
      spec.process.user = { uid: 1000, gid: 1000 };
      spec.process.capabilities = JSON.parse(JSON.stringify(capabilities));
    });
    const ended = run(bundle);
    const seen = lastLine(ended.stdout);
    expect(ended.stderr).toContain(`/process/capabilities/${set}/1 CAP_CHOWN cannot be granted: ${why}`);
    expect(ended.stderr).toContain("level=warning");
    expect(seen.capabilities.inheritable).toBe(mask(KILL));
    expect(seen.capabilities.bounding).toBe(mask(KILL));
  });

  test("ambient ones that are not inheritable, in runc's words", () => {
    covers("process.capabilities");
    const bundle = makeBundle((spec) => {
      spec.process.user = { uid: 1000, gid: 1000 };
      spec.process.capabilities = { ...sets, ambient: two };
    });
    const { stdout, stderr } = run(bundle);
    expect(stderr).toContain("can't raise ambient capability CAP_CHOWN: ");
    expect(lastLine(stdout).capabilities.ambient).toBe(mask(KILL));
  });

  test("what the runtime itself lacks", () => {
    covers("process.capabilities");
    const bundle = makeBundle((spec) => {
      spec.process.capabilities = { bounding: two, permitted: two, effective: two };
    });
    const ended = run(bundle, { through: ["capsh", "--drop=cap_chown", "--", "-c", '"$@"', "sh"] });
    expect(ended.stderr).toContain("/process/capabilities/bounding/1 CAP_CHOWN cannot be granted: the runtime itself");
    expect(lastLine(ended.stdout).capabilities).toMatchObject({ bounding: mask(KILL), effective: mask(KILL) });
  });
});

test("the idle classes are set", () => {
  covers("process.scheduler", "process.ioPriority");
  const seen = probe((spec) => {
    spec.process.scheduler = { policy: "SCHED_IDLE" };
    spec.process.ioPriority = { class: "IOPRIO_CLASS_IDLE", priority: 0 };
  });
  expect(seen.scheduler).toMatchObject({ policy: "SCHED_IDLE" });
  expect(seen.ioPriority.class).toBe("IOPRIO_CLASS_IDLE");
});

test("it is the leader of a session of its own, and has a session keyring of its own", () => {
  covers("keyring");
  const seen = probe(() => undefined);
  expect([seen.pid, seen.sid, seen.pgid, seen.ppid]).toEqual([1, 1, 1, 0]);
  expect(seen.parentDeathSignal).toBe(0);
  expect(seen.dumpable).toBe(1);
  expect(seen.keyring?.description).toContain("_ses.");
});

test("the personality is set", () => {
  covers("linux.personality.domain");
  const seen = probe((spec) => {
    spec.linux.personality = { domain: "LINUX32" };
  });
  expect(seen.personality).toBe("8");
});

test("the exit status of the command is that of run, and 128 more than the signal that ended it", () => {
  const exits = makeBundle((spec) => {
    spec.process.args = ["/bin/probe", "--exit", "42"];
  });
  expect(run(exits).status).toBe(42);
  const killed = makeBundle((spec) => {
    // a process that is not pid 1 can kill itself
    spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "pid") ?? [];
    spec.mounts = spec.mounts.filter(({ type }) => type !== "proc");
    delete spec.linux.maskedPaths;
    delete spec.linux.readonlyPaths;
    spec.process.args = ["/bin/probe", "--syscall", "62", "0", "9"];
  });
  expect(run(killed).status).toBe(137);
});

test("a profile or label of a security module that is not there is refused, all of them at once", () => {
  covers("process.apparmorProfile", "process.selinuxLabel", "linux.mountLabel", "linux.intelRdt");
  const apparmor = existsSync("/sys/module/apparmor");
  const selinux = existsSync("/sys/fs/selinux/enforce");
  const bundle = makeBundle((spec) => {
    if (!apparmor) spec.process.apparmorProfile = "cage";
    if (!selinux) Object.assign(spec, { process: { ...spec.process, selinuxLabel: "label" } });
    if (!selinux) spec.linux.mountLabel = "label";
    spec.linux.intelRdt = { closID: "no-such-class" };
  });
  const { status, stdout, stderr } = run(bundle);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  if (!apparmor) expect(stderr).toContain("apparmor: config provided but apparmor not supported");
  if (!selinux) expect(stderr).toContain("/linux/mountLabel: selinux label is specified in config, but selinux is");
  expect(stderr).toContain("intelRdt is specified in config, but Intel RDT is not supported or enabled");
});

test("exec refuses a profile or label of a security module that is not there", ({ skip }) => {
  covers("exec --apparmor", "exec --process-label");
  const apparmor = existsSync("/sys/module/apparmor");
  const selinux = existsSync("/sys/fs/selinux/enforce");
  skip(apparmor && selinux, "needs a kernel without one of the two");
  const bundle = idle();
  const refused = (flag: string, words: string) =>
    expect(exec(bundle, ["/bin/probe"], { flags: [flag, "cage"] }), flag).toMatchObject({
      status: 255,
      stdout: "",
      stderr: expect.stringContaining(words),
    });
  if (!apparmor) refused("--apparmor", "apparmor: config provided but apparmor not supported");
  if (!selinux) refused("--process-label", "selinux");
});

test("unconfined can be asked for where nothing confines", () => {
  const seen = probe((spec) => {
    spec.process.apparmorProfile = "unconfined";
  });
  expect(seen.pid).toBe(1);
});
