import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { makeCanary } from "../../rootfs-fixtures/build.mjs";
import { covers } from "../conformance/covers.ts";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  type Edit,
  exec,
  idle,
  makeBundle,
  probe,
  results,
  rewrite,
  run,
  runtime,
  scratchDirectory,
  seenIn,
  startContainer,
  state,
} from "../support/bundle.ts";
import { digestOf } from "../support/host-snapshot.ts";

// What has broken container runtimes before; README.md has the whole list, and how each test was seen to fail.

const racers: ChildProcess[] = [];

afterEach(() => {
  for (const racer of racers.splice(0)) racer.kill("SIGKILL");
  cleanUp();
});
afterAll(cleanUpFile);

const mapped: Edit = (spec) => {
  spec.linux.namespaces?.push({ type: "user" });
  spec.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
  spec.linux.gidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
};

function canaryDirectory(): string {
  const canary = mkdtempSync(join(scratchDirectory(), "canary-"));
  rmSync(canary, { recursive: true });
  makeCanary(canary);
  return canary;
}

function hashOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** Looks at every process of ours that comes into its pid namespace: writes down what it could get at. */
const SPY = `
init() { read name 2>/dev/null < $1/comm && case "$name" in *caisson-i*) ;; *) false ;; esac; }
# it may have become the container's own program meanwhile
got() { init $p && echo "$* of a process that joins" >> /log/spy; }
while :; do
  for p in /proc/[0-9]*; do
    init $p || continue
    echo "seen" >> /log/spy
    ls $p/fd/ > /log/listing 2>/dev/null && [ -s /log/listing ] && got descriptors
    ls $p/root/ > /dev/null 2>&1 && got root
    ( : < $p/mem ) 2>/dev/null && got memory
    dd if=/dev/zero of=$p/exe bs=1 count=1 conv=notrunc 2>/dev/null && got executable, written
    dd if=$p/exe of=/dev/null bs=1 count=1 2>/dev/null && got executable, read
  done
done`;

test("a container cannot take anything from a process that is joining it, nor write to its executable (CVE-2016-9962, CVE-2019-5736)", () => {
  covers("own binary");
  const every = ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];
  const bundle = makeBundle(
    (spec) => {
      // root in a user namespace, with every capability there that could help
      mapped(spec);
      spec.process.capabilities = { bounding: every, permitted: every, effective: every };
      spec.mounts.push({ destination: "/log", type: "bind", source: "log", options: ["bind"] });
      spec.process.args = ["/bin/sh", "-c", SPY];
    },
    { root: "shell" },
  );
  const log = join(bundle.path, "log");
  for (const path of [log, join(bundle.rootfs, "log")]) mkdirSync(path);
  execFileSync("chown", ["100000:100000", log]);
  const programs = ["dist/native/init", "dist/bin/caisson"].map((path) => resolve(path));
  const before = programs.map(hashOf);
  startContainer(bundle);
  // the last moment before execve, when init is the container's user and has its descriptors still, is made long
  const through = "strace -f -qqq -o /dev/null -e trace=execve -e inject=execve:delay_enter=300000".split(" ");
  for (let round = 0; round < 3; round++) expect(exec(bundle, ["/bin/true"], { through }).status).toBe(0);
  const spied = readFileSync(join(log, "spy"), "utf8").trimEnd().split("\n");
  expect([...new Set(spied)]).toEqual(["seen"]);
  expect(programs.map(hashOf)).toEqual(before);
});

test("what is written to proc reaches the real one, whatever lies in its place (CVE-2019-16884, CVE-2025-52881)", () => {
  covers("own procfs");
  const file = "net/ipv4/ip_default_ttl";
  const without: Edit = (spec) => {
    spec.mounts = spec.mounts.filter(({ destination }) => destination !== "/proc");
    delete spec.linux.maskedPaths;
    delete spec.linux.readonlyPaths;
    // else what is there could not be written to in any case
    spec.root.readonly = false;
    spec.linux.sysctl = { "net.ipv4.ip_default_ttl": "77" };
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  };
  const bundle = makeBundle(without);
  const fake = join(bundle.rootfs, "proc/sys", file);
  mkdirSync(join(fake, ".."), { recursive: true });
  writeFileSync(fake, "64\n");
  startContainer(bundle);
  expect(readFileSync(fake, "utf8")).toBe("64\n");
  const real = execFileSync("nsenter", [`--net=/proc/${state(bundle).pid}/ns/net`, "cat", `/proc/sys/${file}`]);
  expect(real.toString()).toBe("77\n");
});

test.each([
  ["proc", "/proc"],
  ["sysfs", "/sys"],
])(
  "%s is not mounted through a link, even one to a directory of the root (CVE-2023-27561, CVE-2023-28642)",
  (type, destination) => {
    const bundle = makeBundle((spec) => {
      spec.mounts = [{ destination, type, source: type }];
      delete spec.linux.maskedPaths;
      delete spec.linux.readonlyPaths;
    });
    rmSync(join(bundle.rootfs, destination), { recursive: true, force: true });
    symlinkSync("/home", join(bundle.rootfs, destination));
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("/mounts/0");
  },
);

/** Exchanges names in a volume as fast as it can, until the test is over. */
function race(one: string, other: string): void {
  racers.push(spawn("python3", [resolve(import.meta.dirname, "racer.py"), one, other], { stdio: "inherit" }));
}

test("names that change between a directory and a link out of the root lead nowhere (CVE-2021-30465, CVE-2024-45310)", () => {
  const rounds = Number(process.env.RACES ?? 25);
  const canary = canaryDirectory();
  const before = digestOf(canary);
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  const volume = mkdtempSync(join(scratchDirectory(), "volume-"));
  mkdirSync(join(volume, "name"));
  symlinkSync(canary, join(volume, "link"));
  race(join(volume, "name"), join(volume, "link"));
  const outcomes = { made: 0, refused: 0 };
  for (let round = 0; round < rounds; round++) {
    const bundle = makeBundle((spec) => {
      spec.root.readonly = false;
      spec.mounts.push(
        { destination: "/volume", type: "bind", source: volume, options: ["rbind"] },
        { destination: `/volume/name/mount-${round}/point`, type: "tmpfs", source: "raced" },
        { destination: `/volume/name/file-${round}`, type: "bind", source: "config.json", options: ["bind"] },
      );
      spec.linux.maskedPaths = ["/volume/name/etc/passwd", "/volume/name/volume"];
      spec.linux.readonlyPaths = ["/volume/name/etc"];
      spec.linux.devices = [{ path: `/volume/name/device-${round}`, type: "c", major: 1, minor: 3 }];
      spec.process.cwd = `/volume/name/cwd-${round}/deep`;
      spec.process.args = ["/bin/true"];
    });
    outcomes[run(bundle).status === 0 ? "made" : "refused"]++;
  }
  expect(outcomes.made + outcomes.refused).toBe(rounds);
  expect(digestOf(canary)).toBe(before);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts);
});

test.each(["openat2", "open_tree", "move_mount", "close_range", "mount_setattr"])(
  "a kernel without %s gets an error, not a weaker defence",
  (call) => {
    const canary = canaryDirectory();
    const before = digestOf(canary);
    const bundle = makeBundle(
      (spec) => {
        spec.root.readonly = false;
        spec.mounts = [{ destination: "/volume", type: "tmpfs", source: "tmpfs", options: ["ro"] }];
        spec.process.cwd = "/workdir/new";
      },
      { root: "hostile", canary },
    );
    for (const name of ["dev", "proc", "sys"]) {
      rmSync(join(bundle.rootfs, name));
      mkdirSync(join(bundle.rootfs, name));
    }
    const inject = `strace -f -qqq -o /dev/null -e trace=${call} -e inject=${call}:error=ENOSYS`;
    const { status, stdout, stderr } = run(bundle, { through: inject.split(" ") });
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    // close_range is the first call of init, which says nothing before it
    if (call !== "close_range") expect(stderr).toContain("ENOSYS");
    expect(digestOf(canary)).toBe(before);
  },
);

test("what covers a masked file is the host's null device, not what the container calls so (CVE-2025-31133)", () => {
  const bundle = makeBundle((spec) => {
    // a /dev of the container's making: with the one of a spec the name would be taken by the real device
    spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith("/dev"));
    spec.mounts.push({ destination: "/dev", type: "bind", source: "devices", options: ["bind"] });
    spec.linux.maskedPaths = ["/etc/passwd"];
    spec.process.args = ["/bin/probe", "--stat", "/etc/passwd", "--read", "/etc/passwd"];
  });
  mkdirSync(join(bundle.path, "devices"));
  symlinkSync("/proc/sysrq-trigger", join(bundle.path, "devices/null"));
  const [stat, read] = seenIn(run(bundle)).actions;
  expect(stat?.result).toMatchObject({ type: "character", device: "1:3" });
  expect(read?.result).toBe("");
});

test("a console that is a link does not lead out of the root (CVE-2025-52565)", () => {
  const canary = canaryDirectory();
  const before = digestOf(canary);
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  const bundle = makeBundle((spec) => {
    spec.mounts = spec.mounts.filter(({ destination }) => destination !== "/dev");
    spec.root.readonly = false;
    spec.process.terminal = true;
    spec.process.args = ["/bin/probe", "--write", "/dev/console", "x"];
  });
  mkdirSync(join(bundle.rootfs, "dev"), { recursive: true });
  rmSync(join(bundle.rootfs, "dev/console"), { force: true });
  symlinkSync(`${canary}/etc/hosts`, join(bundle.rootfs, "dev/console"));
  const helper = resolve(import.meta.dirname, "../support/terminal.py");
  const { stdout } = run(bundle, { through: ["python3", helper, "foreground", "24", "80", ""] });
  expect(stdout).not.toBe("");
  expect(digestOf(canary)).toBe(before);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts);
});

test.each(["run", "exec"])(
  "no descriptor is a working directory outside of the root: by %s (CVE-2024-21626)",
  (way) => {
    const bundle = way === "run" ? makeBundle() : idle();
    const host = openSync("/", "r");
    try {
      for (let fd = 3; fd <= 40; fd++) {
        const cwd = `/proc/self/fd/${fd}`;
        if (way === "run") rewrite(bundle, ({ process }) => void Object.assign(process, { cwd }));
        const how = { descriptors: [host, host] };
        const ended =
          way === "run" ? run(bundle, how) : exec(bundle, ["/bin/probe"], { ...how, flags: ["--cwd", cwd] });
        expect({ cwd, stdout: ended.stdout, failed: ended.status !== 0 }).toEqual({ cwd, stdout: "", failed: true });
      }
    } finally {
      closeSync(host);
    }
  },
);

/** Runs a program, and adds to what it says how much memory it took at most, in KiB. */
const MEASURED = [
  "python3",
  "-c",
  "import resource, subprocess, sys; status = subprocess.call(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(status)",
];

test("what is read is bounded: config.json, process.json, resources and mounts (CVE-2022-31030)", () => {
  const bundle = idle();
  const large = join(bundle.path, "large.json");
  writeFileSync(large, "[");
  truncateSync(large, 1 << 28);
  const bounded = (...words: string[]) => {
    const { status, stderr } = runtime(words, { through: MEASURED });
    expect(status, words.join(" ")).not.toBe(0);
    expect(stderr, words.join(" ")).toContain("larger than 16 MiB");
    expect(Number(stderr.trimEnd().split("\n").at(-1)), words.join(" ")).toBeLessThan(250_000);
  };
  for (const path of [large, "/dev/zero"]) {
    bounded("exec", "--process", path, bundle.id);
    bounded("update", "--resources", path, bundle.id);
    bounded("mounts", "add", bundle.id, path);
  }
  const other = makeBundle();
  renameSync(large, join(other.path, "config.json"));
  bounded("create", "--bundle", other.path, other.id);
});

test("nothing of the root is run to show its processes (CVE-2022-1227)", () => {
  const bundle = makeBundle(
    (spec) => {
      spec.root.readonly = false;
      spec.process.args = ["/bin/probe", "--sleep", "60"];
    },
    { root: "shell" },
  );
  for (const path of ["bin", "usr/bin", "usr/sbin", "sbin"]) {
    mkdirSync(join(bundle.rootfs, path), { recursive: true });
    rmSync(join(bundle.rootfs, path, "ps"), { force: true });
    writeFileSync(join(bundle.rootfs, path, "ps"), "#!/bin/sh\necho PID; echo trojan > /trojan\n", { mode: 0o755 });
  }
  startContainer(bundle);
  const { status, stdout } = runtime(["ps", bundle.id]);
  expect({ status, ran: existsSync(join(bundle.rootfs, "trojan")) }).toEqual({ status: 0, ran: false });
  expect(stdout).toContain("/bin/probe");
});

test("a path of a namespace that is too long for its field is an error (CVE-2021-43784)", () => {
  for (const length of [4096, 65_536 + 20]) {
    const path = `/${"x".repeat(length)}`;
    const bundle = makeBundle((spec) => {
      spec.linux.namespaces = [{ type: "mount" }, { type: "uts", path }];
    });
    const { status, stderr } = create(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("/linux/namespaces/1/path must be shorter than 4096 bytes");
  }
});

test("exec --user with what is no id, or too large for one, is nobody (CVE-2026-30892, CVE-2024-40635)", () => {
  const bundle = idle();
  const odd = ["1000:", "0x1", "  1", "1:1:1", "-1", "+5", "1e3", ":5"];
  const large = ["2147483648", "4294967295", "4294967296", "18446744073709551616", "1:4294967295", "1:4294967296"];
  for (const user of [...odd, ...large]) {
    const { status, stdout, stderr } = exec(bundle, ["/bin/true"], { flags: [`--user=${user}`] });
    expect({ user, status, stdout }).toEqual({ user, status: 255, stdout: "" });
    expect(stderr).toContain("--user");
  }
  expect(exec(bundle, ["/bin/true"], { flags: ["--additional-gids", "4294967296"] }).status).toBe(255);
  expect(exec(bundle, ["/bin/true"], { flags: ["--user", "2147483647:2147483647"] }).status).toBe(0);
});

test("whoever is not root inside has no inheritable capabilities by exec --cap (CVE-2022-29162)", () => {
  const bundle: Bundle = idle();
  const seen = seenIn(exec(bundle, ["/bin/probe"], { flags: ["--user", "1000:1000", "--cap", "CAP_NET_RAW"] }));
  expect(seen.capabilities).toMatchObject({
    inheritable: "0000000000000000",
    effective: "0000000000000000",
    ambient: "0000000000000000",
  });
});

test("nothing of ours listens where a container in the host's network namespace could reach it (CVE-2020-15257)", () => {
  const seen = probe(
    (spec) => {
      spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "network") ?? [];
    },
    ["--read", "/proc/net/unix"],
  );
  const [table] = results(seen.actions);
  expect(String(table)).toContain("Path");
  // abstract names begin with "@": whoever shares the network namespace can connect to them
  expect(String(table).match(/@.*caisson.*/g)).toBeNull();
  const waiting = makeBundle();
  expect(create(waiting).status).toBe(0);
  const host = readFileSync("/proc/net/unix", "utf8");
  expect(host).toContain("start.sock");
  expect(host.match(/@.*(caisson|start\.sock).*/g)).toBeNull();
});

test("a device that the root has under a default device's name is not taken for it", () => {
  const bundle = makeBundle((spec) => {
    spec.mounts = spec.mounts.filter(({ destination }) => destination !== "/dev");
    spec.root.readonly = false;
    spec.process.args = ["/bin/probe", "--stat", "/dev/null"];
  });
  mkdirSync(join(bundle.rootfs, "dev"), { recursive: true });
  rmSync(join(bundle.rootfs, "dev/null"), { force: true });
  execFileSync("mknod", [join(bundle.rootfs, "dev/null"), "c", "1", "1"]);
  const { status, stderr } = run(bundle);
  expect(status).toBe(1);
  expect(stderr).toContain("/linux/devices");
});

test("the state of containers is closed to everybody else (CVE-2021-41091)", () => {
  const bundle = idle();
  const found = execFileSync("find", [scratchDirectory(), "-path", `*/state/${bundle.id}*`, "-perm", "/077"]);
  expect(found.toString()).toBe("");
  expect(existsSync(join(scratchDirectory(), "state", bundle.id))).toBe(true);
});

test("what is kept of a spec is read back as it was, whatever its names are", () => {
  const valid = JSON.parse('{"$integer":"x","constructor":"2","__proto__":"3"}');
  const bundle = makeBundle((spec) => {
    spec.annotations = valid;
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  const config = join(bundle.path, "config.json");
  // a number that JSON.stringify cannot write sends the whole through the other way of keeping it
  const long = '"rlimits":[{"type":"RLIMIT_FSIZE","soft":1,"hard":18446744073709551615}]';
  writeFileSync(config, readFileSync(config, "utf8").replace(/"rlimits":\[[^\]]*\]/, long));
  startContainer(bundle);
  expect(state(bundle).annotations).toEqual(valid);
  expect(exec(bundle, ["/bin/true"])).toMatchObject({ status: 0, stderr: "" });
});
