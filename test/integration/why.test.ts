import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Spec } from "../../src/spec/spec.ts";
import {
  cleanUp,
  cleanUpFile,
  type Edit,
  exec,
  idle,
  kill,
  makeBundle,
  run,
  scratchDirectory,
  stateRoot,
  underNode,
} from "../support/bundle.ts";
import { engineCommand } from "../support/engine.ts";
import { GID, rootless, UID, USER } from "../support/ordinary-user.ts";
import { causes, only, quoted, whyNot } from "../support/why.ts";

/* `caisson why`: each reason that it knows is brought about for real, and found by looking at the host. */

afterEach(cleanUp);
afterAll(cleanUpFile);

/** Mounts of a test are its own. */
const ALONE = ["unshare", "--mount", "--propagation", "private"];
const ROOT_OF_NAMESPACE = ["unshare", "--user", "--map-root-user"];

test("says all there is to say about a step that failed: what was asked, what is checked, why not, what to do", () => {
  const bundle = makeBundle((spec) => {
    spec.process.env.push("TOKEN=hunter2");
    spec.mounts.push({ destination: "/x", type: "nosuchfs", source: "none" });
  });
  expect(run(bundle).status).toBe(1);
  const [command = "", ...own] = engineCommand();
  const places = ["--root", stateRoot(), "--data", join(scratchDirectory(), "data")];
  const asked = (...words: string[]) => spawnSync(command, [...own, ...places, "why", ...words], { encoding: "utf8" });
  const { stdout, stderr, status } = asked();
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout.split("\n")[0]).toMatch(new RegExp(`^${bundle.id}: cannot `));
  expect(stdout).toMatch(
    /what was asked\n {2}- step \d+ of \d+, makeFilesystem, on the side of init: makes a nosuchfs/,
  );
  expect(stdout).toMatch(/because of config.json \/mounts\/7/);
  expect(stdout).toMatch(/what the kernel was called with\n {2}- fsopen\("nosuchfs", 0x1\) = -ENODEV/);
  expect(stdout).toMatch(/what the kernel checks there\n {2}- a filesystem of that name must be built in/);
  expect(stdout).toMatch(/what makes it refuse, on this host\n {2}- \/proc\/filesystems does not have nosuchfs/);
  expect(stdout).toMatch(/what to do\n {2}- correct the type of the mount/);
  expect(stdout).not.toContain("hunter2");
  expect(asked(bundle.id).stdout).toBe(stdout);
  const json = JSON.parse(asked("--json", bundle.id).stdout);
  expect(json).toMatchObject({
    container: bundle.id,
    code: "ENODEV",
    step: { name: "makeFilesystem", side: "init", from: "/spec/mounts/7", read: "fsopen(2)" },
    causes: [{ says: expect.stringContaining("nosuchfs") }],
    elsewhere: [],
  });
  expect(asked("nobody")).toMatchObject({ status: 125, stderr: expect.stringContaining("no container nobody") });
});

test("an option that a filesystem does not take is told in the kernel's own words", () => {
  const why = only(({ mounts }) => {
    mounts.push({ destination: "/x", type: "tmpfs", source: "tmpfs", options: ["mode=0755", "colour=red"] });
  });
  expect(causes(why)).toMatch(/the kernel says EINVAL to colour=red: tmpfs: Unknown parameter 'colour'/);
});

test("a proc that is covered in parts is found, with what covers it", () => {
  const why = whyNot(rootless(), {
    through: ALONE,
    // one whole proc anywhere is enough for the kernel: others' must not be seen here
    before: `while read -r _ at type _; do [ $type != proc ] || [ $at = /proc ] || umount -l $at; done < /proc/self/mounts
      mount -t tmpfs none /proc/tty`,
    asking: quoted(USER),
  });
  expect(why.step?.name).toBe("makeFilesystem");
  expect(causes(why)).toMatch(/parts of the proc on \/proc are covered: \/proc\/tty \(tmpfs,/);
});

test("a proc of somebody else's pid namespace cannot be mounted in a user namespace", () => {
  const bundle = makeBundle((spec) => {
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100_000, size: 1000 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100_000, size: 1000 }];
    spec.linux.namespaces = [
      ...(spec.linux.namespaces ?? []).filter(({ type }) => type !== "pid"),
      { type: "user" },
      { type: "pid", path: "/proc/self/ns/pid" },
    ];
  });
  const why = whyNot(bundle);
  expect(why).toMatchObject({ code: "EPERM", step: { name: "makeFilesystem" } });
  expect(causes(why)).toMatch(/a proc shows the pid namespace, and this container gets no new one/);
});

test("namespaces that are used up are found by the limit", () => {
  const why = whyNot(
    rootless(({ linux }) => {
      linux.uidMappings = [{ containerID: 0, hostID: 0, size: 1 }];
      linux.gidMappings = [{ containerID: 0, hostID: 0, size: 1 }];
    }),
    {
      through: [...USER.slice(0, -1), ...ROOT_OF_NAMESPACE],
      before: "echo 0 > /proc/sys/user/max_uts_namespaces",
    },
  );
  expect(why.code).toBe("ENOSPC");
  expect(causes(why)).toMatch(/user\.max_uts_namespaces is 0: this user namespace may have no more/);
  expect(causes(why)).not.toContain("max_ipc");
});

test("processes that are used up are found by the user's limit", ({ skip }) => {
  skip(underNode, "Node waits for ever for threads that it may not have");
  // how many threads JavaScript takes is its own affair: the first limit that stops what comes after them is meant
  const attempts = `for n in $(seq 2 60); do prlimit --nproc=$n:$n "$@" && exit; test -e "$HOME/.failed" && exit 1; done; exit 1`;
  const why = whyNot(rootless(), { asking: `sh -c '${attempts}' sh ${quoted(USER)}` });
  expect(why.code).toBe("EAGAIN");
  expect(causes(why)).toMatch(
    new RegExp(`RLIMIT_NPROC allowed the caller \\d+ processes and threads of user ${UID}: the caller had \\d+`),
  );
});

test.each([
  ["sys_admin", "write", "CAP_SYS_ADMIN"],
  ["mknod", "mknodat", "CAP_MKNOD"],
  ["setpcap", "prctl", "CAP_SETPCAP"],
])("a caller without %s is told that %s needs %s", (name, call, capability) => {
  const why = only(() => undefined, { asking: `setpriv --bounding-set=-${name} --inh-caps=-${name}` });
  expect(why).toMatchObject({ code: "EPERM", call: expect.stringContaining(call) });
  expect(causes(why)).toMatch(new RegExp(`the caller did not have ${capability}, and could not get it: .*CapEff 0`));
});

test("a filter of the caller's is found by calls that it refuses whatever they say", () => {
  const filter = join(scratchDirectory(), "filter.py");
  // struct sock_filter: load the number; is it mount_setattr (442)? then EPERM, else allow
  writeFileSync(
    filter,
    `import ctypes, os, struct, sys
program = b"".join(struct.pack("HBBI", *each) for each in [(0x20,0,0,0),(0x15,0,1,442),(6,0,0,0x50001),(6,0,0,0x7fff0000)])
buffer = ctypes.create_string_buffer(program)
header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, header) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
`,
  );
  const why = only(() => undefined, { through: ["python3", filter] });
  expect(why.call).toMatch(/^mount_setattr/);
  expect(causes(why)).toMatch(
    /a system call filter of the caller's \(Seccomp 2\) answers EPERM to mount_setattr, whatever/,
  );
  expect(why.looked.join("\n")).toMatch(/the caller had CAP_SYS_ADMIN/);
});

test("a chroot makes no user namespaces", ({ skip }) => {
  skip(underNode, "Node is not in the chroot");
  const jail = mkdtempSync(join(scratchDirectory(), "jail-"));
  const top = `/${scratchDirectory().split("/")[1]}`;
  const binds = [
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/bin",
    "/dev",
    "/sys",
    top,
    `/${import.meta.dirname.split("/")[1]}`,
  ];
  const before = [
    ...[...new Set(binds)].map((path) => `mkdir -p ${jail}${path}; mount --rbind ${path} ${jail}${path}`),
    `cd /`,
  ].join("\n");
  const bundle = rootless(({ linux }) => {
    linux.uidMappings = [{ containerID: 0, hostID: 0, size: 1 }];
    linux.gidMappings = [{ containerID: 0, hostID: 0, size: 1 }];
  });
  const through = [...ALONE, "sh", "-ec", `${before}\nexec chroot ${jail} "$@"`, "sh"];
  const why = whyNot(bundle, { through });
  expect(why).toMatchObject({ code: "EPERM", step: { name: expect.stringMatching(/^clone/) } });
  expect(causes(why)).toMatch(/the caller is in a chroot/);
  rmSync(jail, { recursive: true });
});

test("limits above one's own are found, and those above everybody's", () => {
  const nofile =
    (hard: number): Edit =>
    (spec) => {
      spec.process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 64, hard }];
    };
  const asking = "setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource prlimit --nofile=512:512";
  expect(causes(only(nofile(1024), { asking }))).toMatch(
    /RLIMIT_NOFILE of 1024 is asked for, and the caller's own hard limit was 512/,
  );
  expect(causes(only(nofile(2_000_000_000)))).toMatch(
    /2000000000 open files are asked for, and fs.nr_open of this host/,
  );
});

test("a score below one's own is found", () => {
  const why = only(
    (spec) => {
      spec.process.oomScoreAdj = -900;
    },
    { asking: "setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource" },
  );
  expect(causes(why)).toMatch(/-900 is below our own score, \d+ .*CAP_SYS_RESOURCE/);
});

test("a filesystem that is full is found", () => {
  const bundle = makeBundle((spec) => {
    spec.root = { path: "small" };
    spec.mounts = [{ destination: "/no/place/for/this", type: "tmpfs", source: "tmpfs" }];
  });
  mkdirSync(join(bundle.path, "small"));
  const small = join(bundle.path, "small");
  const before = `mount -t tmpfs -o nr_inodes=3 none ${small}; touch ${small}/a ${small}/b`;
  expect(causes(whyNot(bundle, { through: ALONE, before }))).toMatch(
    /the filesystem of .*small has no inode left, of 3/,
  );
});

test("a root that is read-only is found", () => {
  const bundle = makeBundle(({ mounts }) => {
    mounts.push({ destination: "/not/there", type: "tmpfs", source: "tmpfs" });
  });
  const before = `mount --bind ${bundle.rootfs} ${bundle.rootfs}; mount -o remount,ro,bind ${bundle.rootfs}`;
  const why = whyNot(bundle, { through: ALONE, before });
  expect(why.code).toBe("EROFS");
  expect(causes(why)).toMatch(/the mount of .*rootfs is read-only/);
});

test("a mount that is noexec is found", () => {
  const bundle = makeBundle();
  const before = `mount --bind ${bundle.rootfs} ${bundle.rootfs}; mount -o remount,noexec,bind ${bundle.rootfs}`;
  const why = whyNot(bundle, { through: ALONE, before });
  expect(why).toMatchObject({ code: "EACCES", step: { name: "findExecutable" } });
  expect(causes(why)).toMatch(/the root .*rootfs is on the mount .*noexec.*: nothing may be executed from there/);
});

test("a devpts that is nodev is found", () => {
  const why = only((spec) => {
    spec.process.terminal = true;
    const devpts = spec.mounts.find(({ type }) => type === "devpts");
    devpts?.options?.push("nodev");
  });
  expect(why).toMatchObject({ code: "EACCES", step: { name: "openTerminal" } });
  expect(causes(why)).toMatch(/the devpts of the container is mounted nodev/);
});

test("a flag that is locked is found, with the mount that has it", () => {
  const bundle = rootless(({ mounts }) => {
    mounts.push({ destination: "/mnt", type: "bind", source: "/mnt", options: ["bind", "dev"] });
  });
  const why = whyNot(bundle, {
    through: ALONE,
    before: "mount -t tmpfs -o nodev none /mnt",
    asking: quoted(USER),
  });
  expect(why).toMatchObject({ code: "EPERM" });
  expect(causes(why)).toMatch(/\/mnt is on the mount \/mnt \(tmpfs,.*nodev.*\), whose nodev is locked here/);
});

test("a root that is not there is followed to the part that is missing", () => {
  const bundle = makeBundle((spec) => {
    spec.root = { path: "there/not/here" };
  });
  mkdirSync(join(bundle.path, "there"));
  expect(causes(whyNot(bundle))).toMatch(/there\/not does not exist: .*there is there, and has no entry of that name/);
});

test("a source that is a dangling link, or no directory on the way, is found", () => {
  const link = join(scratchDirectory(), "dangling");
  symlinkSync("/no/such/place", link);
  const source =
    (path: string): Edit =>
    ({ mounts }) => {
      mounts.push({ destination: "/mnt", type: "bind", source: path, options: ["bind"] });
    };
  expect(causes(only(source(link)))).toContain(`${link} is a symbolic link to /no/such/place, and that does not exist`);
  expect(causes(only(source("/etc/passwd/x")))).toMatch(/the path leads through it/);
});

test("a file that is to be mounted on a directory is found", () => {
  const why = only(({ mounts }) => {
    mounts.push({ destination: "/etc", type: "bind", source: "/etc/hostname", options: ["bind"] });
  });
  expect(why.step?.name).toBe("attachMount");
  expect(causes(why)).toMatch(
    /\/etc in the root is a directory, and what is to be mounted there, \/etc\/hostname, is a file/,
  );
});

test("a program that is nowhere is looked for in all of PATH", () => {
  const why = only((spec) => {
    spec.process.args = ["nosuchprogram"];
    spec.process.env = ["PATH=/bin:/no/bin"];
  });
  expect(causes(why)).toMatch(
    /nosuchprogram is nowhere in the root .*: \/bin\/nosuchprogram is not there; \/no\/bin\/nosuchprogram: \/no is not there/,
  );
});

test("a program and a directory that the user may not use are found by owner and mode", () => {
  const bundle = makeBundle((spec) => {
    spec.process.user = { uid: 1000, gid: 1000 };
    spec.process.args = ["/bin/mine"];
  });
  writeFileSync(join(bundle.rootfs, "bin/mine"), "#!/bin/sh\n");
  chmodSync(join(bundle.rootfs, "bin/mine"), 0o700);
  expect(causes(whyNot(bundle))).toMatch(
    /\/bin\/mine in the root .* belongs to 0:0 with mode 0700, which lets user 1000:1000 not execute/,
  );
  // root of a user namespace has no power over a directory whose owner it does not know
  const other = rootless((spec) => {
    spec.process.cwd = "/private/here";
  });
  mkdirSync(join(other.rootfs, "private/here"), { recursive: true });
  chmodSync(join(other.rootfs, "private"), 0o700);
  chownSync(join(other.rootfs, "private"), 7, 7);
  const why = whyNot(other, { asking: quoted(USER) });
  expect(why).toMatchObject({ code: "EACCES", step: { name: "makeWorkingDirectory" } });
  expect(causes(why)).toMatch(
    new RegExp(`/private in the root .* belongs to 7:7 with mode 0700, which lets user ${UID}:${GID} not search`),
  );
});

test("a missing interpreter, and a program for another machine, are found in the file", () => {
  const script = makeBundle((spec) => {
    spec.process.args = ["/bin/script"];
  });
  writeFileSync(join(script.rootfs, "bin/script"), "#!/usr/bin/nosuchlanguage\n", { mode: 0o755 });
  expect(causes(whyNot(script))).toMatch(/the script's interpreter \/usr\/bin\/nosuchlanguage is not in the image/);
  const foreign = makeBundle((spec) => {
    spec.process.args = ["/bin/foreign"];
  });
  const elf = Buffer.alloc(128);
  elf.write("\x7fELF\x02\x01\x01", "latin1");
  elf.writeUInt16LE(2, 16);
  elf.writeUInt16LE(243, 18);
  writeFileSync(join(foreign.rootfs, "bin/foreign"), elf, { mode: 0o755 });
  expect(causes(whyNot(foreign))).toMatch(/the program is for RISC-V/);
});

test("words that are too long are counted", () => {
  const why = only((spec) => {
    spec.process.env.push(`LONG=${"x".repeat(140_000)}`);
  });
  expect(why.code).toBe("E2BIG");
  expect(causes(why)).toMatch(/the longest of 140006/);
  expect(JSON.stringify(why)).not.toContain("xxxxxxxxxx");
});

test("processors that the cgroup above does not have are named", () => {
  const why = only(({ linux }) => {
    linux.resources = { cpu: { cpus: "0,700" } };
  });
  expect(why.step?.name).toBe("writeCgroup");
  expect(causes(why)).toMatch(
    /has the processors [\d,-]+, and 0,700 asks for 700 as well; the host has [\d,-]+ online/,
  );
});

test("values that the cgroup above does not allow, and devices and files that there are not, are found", () => {
  const resources = (resources: NonNullable<NonNullable<Spec["linux"]>["resources"]>) =>
    causes(only(({ linux }) => void Object.assign(linux, { resources })));
  expect(resources({ cpu: { quota: 500, period: 100_000 } })).toMatch(/500 is asked for; .*a quota at least 1000/);
  expect(resources({ blockIO: { throttleReadBpsDevice: [{ major: 250, minor: 77, rate: 1000 }] } })).toMatch(
    /there is no block device 250:77: \/sys\/dev\/block has /,
  );
  if (!existsSync("/sys/fs/cgroup/blkio/tasks")) return;
  expect(resources({ blockIO: { leafWeight: 100 } })).toMatch(/has no file blkio\.leaf_weight/);
});

test("real time that a cgroup does not have is found", ({ skip }) => {
  skip(!existsSync("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"), "needs a kernel that gives cgroups budgets of real time");
  const why = only((spec) => {
    spec.process.scheduler = { policy: "SCHED_FIFO", priority: 10 };
  });
  expect(why.step?.name).toBe("setScheduler");
  expect(causes(why)).toMatch(/a new cgroup in \/sys\/fs\/cgroup\/cpu\S* has no real time at all/);
  const more = only(({ linux }) => {
    linux.resources = { cpu: { realtimeRuntime: 990_000 } };
  });
  expect(causes(more)).toMatch(/990000 is asked for, and \S+ has \d+ µs of real time/);
});

test("a cgroup that is in use, read-only, or not handed over is found", () => {
  const there = idle();
  const path: Edit = ({ linux }) => {
    linux.cgroupsPath = `/${there.id}`;
  };
  expect(causes(only(path))).toMatch(new RegExp(`/${there.id} has processes in it: \\d+`));
  kill(there, "KILL");
  const readonly = whyNot(makeBundle(), {
    through: ALONE,
    before: "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,ro,bind $d 2>/dev/null; done",
  });
  expect(causes(readonly)).toMatch(/\/sys\/fs\/cgroup\S* is mounted read-only/);
  const foreign = rootless(({ linux }) => {
    linux.cgroupsPath = "/nobodys";
  });
  expect(causes(whyNot(foreign, { asking: quoted(USER) }))).toMatch(
    /belongs to 0:0 with mode \d+: it was not handed over/,
  );
});

test("a filesystem whose ids cannot be mapped is found, and what it is", () => {
  const why = only((spec) => {
    spec.linux.namespaces = [...(spec.linux.namespaces ?? []), { type: "user" }];
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100_000, size: 1000 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100_000, size: 1000 }];
    spec.mounts.push({ destination: "/mnt", type: "bind", source: "/proc/sys", options: ["bind", "idmap"] });
  });
  expect(causes(why)).toMatch(/the ids of this cannot be mapped: \/proc\/sys is on \/proc\S* \(proc,/);
});

test("keys that are all used up are counted", () => {
  const script = join(scratchDirectory(), "keys.py");
  writeFileSync(
    script,
    `import ctypes, os, sys
os.setgroups([]), os.setresgid(*[${GID}] * 3), os.setresuid(*[${UID}] * 3)
libc = ctypes.CDLL(None)
libc.syscall(250, 1, None)
n = 0
while libc.syscall(248, b"user", b"caisson-%d" % n, b"x", 1, -3) >= 0: n += 1
os.execvp(sys.argv[1], sys.argv[1:])
`,
  );
  const why = whyNot(rootless(), { through: ["python3", script] });
  expect(why).toMatchObject({ code: "EDQUOT", step: { name: "joinKeyring" } });
  expect(causes(why)).toMatch(new RegExp(`user ${UID} has \\d+ of \\d+ keys`));
});

test("a value that a kernel parameter does not take is told beside the host's", () => {
  const why = only(({ linux }) => {
    linux.sysctl = { "kernel.shm_rmid_forced": "many" };
  });
  expect(causes(why)).toMatch(
    /\/proc\/sys\/kernel\/shm_rmid_forced does not take "many"; the host's own value is "\d"/,
  );
});

test("a kernel parameter that there is not is found, with those that there are", () => {
  const why = only(({ linux }) => {
    linux.sysctl = { "net.ipv4.nosuchsetting": "1" };
  });
  expect(causes(why)).toMatch(
    /\/proc\/sys\/net\/ipv4\/nosuchsetting does not exist on this host either; \/proc\/sys\/net\/ipv4 has /,
  );
});

test("a device of the network that there is not is found, with those that there are", () => {
  const why = only(({ linux }) => {
    linux.netDevices = { nosuch0: {} };
  });
  expect(causes(why)).toMatch(/the host has no network device nosuch0; it has .*\blo\b/);
});

test("namespaces of who has ended, and of another kind, are found", () => {
  const joined =
    (type: "uts" | "ipc", path: string): Edit =>
    ({ linux }) => {
      linux.namespaces = [...(linux.namespaces ?? []).filter((each) => each.type !== type), { type, path }];
    };
  expect(causes(only(joined("uts", "/proc/4194304/ns/uts")))).toMatch(/there is no process 4194304/);
  expect(causes(only(joined("ipc", "/proc/self/ns/uts")))).toMatch(
    /\/proc\/self\/ns\/uts is the namespace uts:\[\d+\], and a ipc namespace is asked for/,
  );
});

test("an id that is not mapped is found", () => {
  const why = only((spec) => {
    spec.process.user = { uid: 5000, gid: 0 };
    spec.linux.namespaces = [...(spec.linux.namespaces ?? []), { type: "user" }];
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100_000, size: 1000 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100_000, size: 1000 }];
  });
  expect(why).toMatchObject({ code: "EINVAL", step: { name: "setIds" } });
  expect(causes(why)).toMatch(/it has uid 0 100000 1000; gid 0 100000 1000/);
});

test("a process that could not be added is explained as well", () => {
  const bundle = idle();
  expect(exec(bundle, ["/no/such/program"]).status).toBe(255);
  const [command = "", ...own] = engineCommand();
  const places = ["--root", stateRoot(), "--data", join(scratchDirectory(), "data")];
  const { stdout } = spawnSync(command, [...own, ...places, "why", `${bundle.id}:exec`], { encoding: "utf8" });
  expect(stdout).toMatch(/findExecutable, on the side of init: looks for the executable: \/no\/such\/program/);
  kill(bundle, "KILL");
});
