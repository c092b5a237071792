import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";
import { build, fixtures, makeRoot } from "../../rootfs-fixtures/build.mjs";

const isRoot = process.getuid?.() === 0;
let directory = "";

beforeAll(() => {
  build();
  directory = mkdtempSync(join(tmpdir(), "probe-"));
  chmodSync(directory, 0o755);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What the probe printed last, when started through a command line that ends in its path and arguments. */
function probe(words: string[], through: string[] = [], path = fixtures.probe) {
  const [command = "", ...rest] = [...through, path, ...words];
  const lines = execFileSync(command, rest, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] })
    .trimEnd()
    .split("\n");
  return JSON.parse(lines.at(-1) ?? "");
}

/** What another program says in the same place: a child of this process too. */
function cat(path: string): string {
  return execFileSync("cat", [path], { encoding: "utf8" });
}

function statusField(status: string, name: string): string | undefined {
  return new RegExp(`^${name}:[\\t ]*(.*)$`, "m").exec(status)?.[1];
}

test("the probe reports the process it is", () => {
  const seen = probe(["--exit", "0"]);
  expect(seen.argv).toEqual([fixtures.probe, "--exit", "0"]);
  expect(seen.exe).toBe(fixtures.probe);
  expect(seen.ppid).toBe(process.pid);
  expect(seen.cwd).toBe(process.cwd());
  expect(seen.cwdUnreachable).toBe(false);
  expect(new Set(seen.env)).toEqual(new Set(Object.entries(process.env).map(([name, value]) => `${name}=${value}`)));
  expect(seen.hostname).toBe(cat("/proc/sys/kernel/hostname").trim());
  expect(seen.cgroup.join("\n")).toBe(cat("/proc/self/cgroup").trim());
  expect(seen.files["/etc/hosts"]).toBe(readFileSync("/etc/hosts", "utf8"));
});

test("the probe's identity, capabilities and signals agree with /proc/self/status", () => {
  const seen = probe([]);
  const status = cat("/proc/self/status");
  const { real, effective, saved, fs } = seen.uids;
  expect([real, effective, saved, fs].join("\t")).toBe(statusField(status, "Uid"));
  expect([seen.gids.real, seen.gids.effective, seen.gids.saved, seen.gids.fs].join("\t")).toBe(
    statusField(status, "Gid"),
  );
  expect(seen.groups.join(" ")).toBe(statusField(status, "Groups")?.trim() ?? "");
  expect(seen.umask).toBe(statusField(status, "Umask"));
  for (const [set, field] of Object.entries({
    inheritable: "CapInh",
    permitted: "CapPrm",
    effective: "CapEff",
    bounding: "CapBnd",
    ambient: "CapAmb",
  }))
    expect(seen.capabilities[set], field).toBe(statusField(status, field));
  for (const [set, field] of Object.entries({ blocked: "SigBlk", ignored: "SigIgn", caught: "SigCgt" }))
    expect(seen.signals[set], field).toBe(statusField(status, field));
  expect(String(seen.seccomp.mode)).toBe(statusField(status, "Seccomp"));
  expect(seen.noNewPrivs).toBe(statusField(status, "NoNewPrivs") === "1");
});

test("the probe sees what setpriv took away", ({ skip }) => {
  skip(!isRoot, "needs root");
  const copy = join(directory, "probe");
  copyFileSync(fixtures.probe, copy);
  const seen = probe(
    ["--setuid", "0", "--report"],
    "setpriv --reuid 1000 --regid 1001 --groups 29,44 --no-new-privs --inh-caps=-all --bounding-set -mknod".split(" "),
    copy,
  );
  expect(seen.uids).toEqual({ real: 1000, effective: 1000, saved: 1000, fs: 1000 });
  expect(seen.gids).toEqual({ real: 1001, effective: 1001, saved: 1001, fs: 1001 });
  expect(seen.groups).toEqual([29, 44]);
  expect(seen.noNewPrivs).toBe(true);
  expect(seen.capabilities.effective).toBe("0000000000000000");
  expect(BigInt(`0x${seen.capabilities.bounding}`) & (1n << 27n)).toBe(0n);
  expect(seen.actions[0]).toMatchObject({ result: null, error: "EPERM" });
  expect(seen.actions[1].result.uids).toEqual(seen.uids);
});

test("the probe's namespaces, mounts and limits are the kernel's", () => {
  const seen = probe([]);
  for (const [name, inode] of Object.entries(seen.namespaces))
    expect(readlinkSync(`/proc/self/ns/${name}`)).toBe(`${name}:[${inode}]`);
  const mountinfo = cat("/proc/self/mountinfo").trimEnd().split("\n");
  expect(seen.mounts.map((mount: { id: number }) => mount.id)).toEqual(
    mountinfo.map((line) => Number.parseInt(line, 10)),
  );
  const proc = seen.mounts.find((mount: { mountPoint: string }) => mount.mountPoint === "/proc");
  expect(proc).toMatchObject({ type: "proc", root: "/" });
  const open = /^Max open files\s+(\S+)\s+(\S+)/m.exec(cat("/proc/self/limits"));
  expect(seen.rlimits.RLIMIT_NOFILE).toEqual({ soft: Number(open?.[1]), hard: Number(open?.[2]) });
  const changed = probe([], ["prlimit", "--nofile=123:456", "--cpu=unlimited", "--core=0:0"]);
  expect(changed.rlimits.RLIMIT_NOFILE).toEqual({ soft: 123, hard: 456 });
  expect(changed.rlimits.RLIMIT_CPU).toEqual({ soft: "unlimited", hard: "unlimited" });
});

test("the probe sees a changed umask, priority, affinity and descriptor", () => {
  const seen = probe([], ["sh", "-c", 'umask 0137; exec 7</dev/null; exec nice -n 5 taskset -c 0 "$0" "$@"']);
  expect(seen.umask).toBe("0137");
  expect(seen.scheduler).toMatchObject({ policy: "SCHED_OTHER", nice: 5 });
  expect(seen.affinity).toEqual([0]);
  expect(seen.descriptors.find(({ fd }: { fd: number }) => fd === 7)).toMatchObject({
    target: "/dev/null",
    type: "character",
    cloexec: false,
  });
  expect(probe([]).descriptors.some(({ fd }: { fd: number }) => fd === 7)).toBe(false);
});

test("the probe tells a terminal from a pipe", () => {
  expect(probe([]).tty).toEqual({
    stdin: false,
    stdout: false,
    stderr: expect.any(Boolean),
    rows: null,
    columns: null,
    controlling: expect.any(Boolean),
  });
  const command = `stty rows 24 cols 81; ${fixtures.probe}`;
  const output = execFileSync("script", ["-qec", command, "/dev/null"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const seen = JSON.parse(output.slice(output.indexOf("{"), output.lastIndexOf("}") + 1));
  expect(seen.tty).toEqual({ stdin: true, stdout: true, stderr: true, rows: 24, columns: 81, controlling: true });
});

test("the probe's network agrees with /sys", () => {
  const lo = probe([]).network.find(({ name }: { name: string }) => name === "lo");
  expect(lo.mtu).toBe(Number(readFileSync("/sys/class/net/lo/mtu", "utf8")));
  expect(lo.addresses).toContain("127.0.0.1/8");
  expect(lo.up).toBe(true);
});

test("the probe's devices agree with the file system", () => {
  const { mode, uid, gid } = lstatSync("/dev/null");
  const seen = probe([]).devices.find(({ name }: { name: string }) => name === "null");
  expect(seen).toEqual({
    name: "null",
    type: "character",
    major: 1,
    minor: 3,
    mode: (mode & 0o7777).toString(8).padStart(4, "0"),
    uid,
    gid,
    target: null,
  });
});

test("without /proc and /dev the probe still reports what system calls can tell", ({ skip }) => {
  skip(!isRoot, "needs root");
  const root = join(directory, "bare");
  makeRoot("minimal", root);
  const seen = probe([], ["chroot", root], "/bin/probe");
  expect(seen).toMatchObject({
    exe: null,
    seccomp: null,
    mounts: null,
    cgroup: null,
    uidMap: null,
    devices: [],
    cwd: "/",
  });
  expect(seen.namespaces.pid).toBeNull();
  expect(seen.uids.real).toBe(0);
  expect(seen.capabilities.bounding).toBe(statusField(cat("/proc/self/status"), "CapBnd"));
  expect(seen.descriptors.map(({ fd }: { fd: number }) => fd)).toEqual(expect.arrayContaining([0, 1, 2]));
});

test("a working directory outside the root shows as unreachable", ({ skip }) => {
  skip(!isRoot, "needs root");
  const root = join(directory, "leaked");
  makeRoot("minimal", root);
  // chroot alone, without chdir, is the mistake that a runtime must not make.
  const script = `import os,sys\nos.chdir("/")\nos.chroot(sys.argv[1])\nos.execv("bin/probe" if 0 else sys.argv[2], ["probe"])`;
  const output = execFileSync("python3", ["-c", script, root, "/bin/probe"], { encoding: "utf8" });
  expect(JSON.parse(output)).toMatchObject({ cwd: "(unreachable)/", cwdUnreachable: true });
});

test("bytes that are not UTF-8 come as \\u00XX, everything else as itself", () => {
  // An octal escape each: a ship in UTF-8, then half a surrogate pair, which is none.
  const bytes = '/é/\\377\\n"\\\\\\360\\237\\232\\242\\355\\240\\200';
  const output = execFileSync("sh", ["-c", 'exec "$0" --read "$(printf "$1")"', fixtures.probe, bytes], {
    encoding: "utf8",
  });
  const seen = JSON.parse(output);
  expect(seen.argv[2]).toBe('/é/\u00ff\n"\\🚢\u00ed\u00a0\u0080');
  expect(seen.actions[0].error).toBe("ENOENT");
});

test("actions report what the kernel answered", ({ skip }) => {
  skip(!isRoot, "needs root for mknod");
  const at = (name: string) => join(directory, name);
  const words = [
    ["--write", at("a"), "hello"],
    ["--read", at("a")],
    ["--mkdir", at("d")],
    ["--mkdir", at("d")],
    ["--mknod", at("null"), "c", "1", "3"],
    ["--open-device", at("null")],
    ["--open-device", at("missing"), "r"],
    ["--chown", at("a"), "12", "34"],
    ["--chmod", at("a"), "4711"],
    ["--stat", at("a")],
    ["--remove", at("a")],
    ["--stat", at("a")],
    ["--allocate", "3"],
    ["--fork", "4"],
    ["--spin", "30"],
    ["--kill", "999999999", "TERM"],
    ["--syscall", "39"],
    ["--syscall", "83", at("e"), "0700"],
    ["--mount", "none", at("missing"), "tmpfs"],
    ["--sleep", "0.01"],
  ];
  skip(process.arch !== "x64", "has x86-64 system call numbers");
  const seen = probe(words.flat());
  const results = seen.actions.map(({ result, error }: { result: unknown; error: unknown }) => error ?? result);
  expect(seen.actions.map(({ action }: { action: string }) => action)).toEqual(words.map(([name]) => name));
  expect(results).toMatchObject([
    5,
    "hello",
    true,
    "EEXIST",
    true,
    "character 1:3",
    "ENOENT",
    true,
    true,
    { type: "file", mode: "4711", uid: 12, gid: 34, sizeBytes: 5 },
    true,
    "ENOENT",
    3,
    { forks: 4, stoppedBy: null },
    { wallNs: expect.any(Number), cpuNs: expect.any(Number) },
    "ESRCH",
    seen.pid,
    0,
    "ENOENT",
    true,
  ]);
  expect(lstatSync(at("e")).isDirectory()).toBe(true);
});

test("forks end where the limit is", ({ skip }) => {
  skip(!isRoot, "needs root");
  const copy = join(directory, "forking");
  copyFileSync(fixtures.probe, copy);
  // A uid that nobody has, since the limit counts all of a user's processes.
  const through = "setpriv --reuid 54321 --regid 54321 --clear-groups prlimit --nproc=3".split(" ");
  expect(probe(["--fork", "10"], through, copy).actions[0].result).toEqual({ forks: 2, stoppedBy: "EAGAIN" });
});

test("--exit sets the status, and an unknown action is refused", () => {
  expect(() => probe(["--exit", "42", "--write", "/never"])).toThrow(expect.objectContaining({ status: 42 }));
  expect(() => probe(["--nonsense"])).toThrow(expect.objectContaining({ status: 64 }));
  expect(() => probe(["--mkdir"])).toThrow(expect.objectContaining({ status: 64 }));
});

test("--tree lists type, mode, owner, times, links, attributes and content", () => {
  const root = join(directory, "tree");
  mkdirSync(join(root, "sub"), { recursive: true });
  writeFileSync(join(root, "file"), "caisson\n", { mode: 0o640 });
  linkSync(join(root, "file"), join(root, "sub/again"));
  symlinkSync("../file", join(root, "sub/link"));
  execFileSync("touch", ["-d", "@1500000000.123456789", join(root, "file")]);
  execFileSync("python3", [
    "-c",
    "import os,sys; os.setxattr(sys.argv[1], 'user.x', b'\\x00\\xff')",
    join(root, "file"),
  ]);
  const seen = probe(["--tree", root, "--xattr", join(root, "file")]);
  const [top, file, sub, again, link] = seen.actions[0].result;
  expect([top, file, sub, again, link].map(({ path }) => path)).toEqual([".", "file", "sub", "sub/again", "sub/link"]);
  expect(file).toMatchObject({
    type: "file",
    mode: "0640",
    sizeBytes: 8,
    links: 2,
    mtime: "1500000000.123456789",
    xattrs: { "user.x": "00ff" },
  });
  expect(again.inode).toBe(lstatSync(join(root, "file")).ino);
  expect(again.checksum).toBe(fnv1a64(Buffer.from("caisson\n")));
  expect(link).toMatchObject({ type: "symlink", target: "../file", checksum: null });
  expect(seen.actions[1].result).toEqual({ "user.x": "00ff" });
});

function fnv1a64(bytes: Buffer): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, "0");
}

/** A running probe and its lines, one at a time. */
function start(words: string[]) {
  const child = spawn(fixtures.probe, words, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { child, ended, line: async (): Promise<string> => (await lines.next()).value };
}

test("--listen answers --connect", async () => {
  const port = String(20_000 + (process.pid % 10_000));
  const server = start(["--listen", port]);
  expect(await server.line()).toBe("listening");
  const client = probe(["--connect", "127.0.0.1", port]);
  expect(client.actions[0].result).toBe(`probe ${client.hostname} 127.0.0.1\n`);
  expect(JSON.parse(await server.line()).actions[0].result).toEqual(["127.0.0.1"]);
  expect(await server.ended).toBe(0);
  expect(probe(["--connect", "127.0.0.1", port]).actions[0].error).toBe("ECONNREFUSED");
});

test("--signal-wait names each signal and ends with SIGTERM", async () => {
  const { child, line, ended } = start(["--signal-wait"]);
  expect(await line()).toBe("ready");
  for (const signal of ["SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM"] as const) {
    child.kill(signal);
    expect(await line()).toBe(signal);
  }
  expect(JSON.parse(await line()).actions[0].result).toEqual(["SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM"]);
  expect(await ended).toBe(0);
});

test("true does nothing, successfully", () => {
  expect(execFileSync(fixtures.true, { encoding: "utf8" })).toBe("");
  expect(lstatSync(fixtures.true).size).toBeLessThan(4096);
});
