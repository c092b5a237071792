import { readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import { type Outcome, until } from "../support/bundle.ts";
import { lastLine } from "../support/engine.ts";
import type { Seen } from "../support/seen.ts";
import { missing, PrivateHost } from "./private-host.ts";

const absent = missing(["podman", "podman"], ["catatonit", "catatonit"]);
if (absent !== undefined) console.warn(`podman's tests are skipped: ${absent}`);

const IMAGE = "caisson/quickstart";
/** podman raises limits by default, which takes CAP_SYS_RESOURCE; and no test needs a network. */
const LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];

let host: PrivateHost;

/** podman with a runtime called `runtime`. */
function podman(words: readonly string[], runtime = "crun", input = ""): Outcome {
  return host.run(commandLine(words, runtime), { input });
}

function commandLine(words: readonly string[], runtime = "crun"): string[] {
  const directory = (name: string) => join(host.directory, "podman", name);
  return [
    "podman",
    ...["--root", directory("root"), "--runroot", directory("run"), "--tmpdir", directory("tmp")],
    ...["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"],
    ...["--runtime", host.runtimeCalled(runtime)],
    ...words,
  ];
}

/** The same, where failure is a failed test. @returns what it printed, without the line's end */
function succeeds(words: readonly string[], input = ""): string {
  const { status, stdout, stderr } = podman(words, "crun", input);
  expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: "" });
  return stdout.trimEnd();
}

function run(...words: string[]): string[] {
  const network = words.includes("--network") ? [] : ["--network", "none"];
  return ["run", ...LIMITS, ...network, "--cgroup-parent", host.cgroupParent, ...words];
}

const inspect = (name: string, format: string) => succeeds(["inspect", "--format", format, name]);

function seen(flags: string[], actions: string[] = []): Seen {
  return lastLine(succeeds(run("--rm", ...flags, IMAGE, "/bin/probe", ...actions)));
}

/** A container called `name` that does nothing. */
function idle(name: string, ...flags: string[]): void {
  succeeds(run("--detach", "--name", name, ...flags, IMAGE, "sleep", "1000"));
}

/** A file of a container's cgroup. */
function cgroupFile(name: string, hierarchy: string, file: string): string {
  const id = inspect(name, "{{.Id}}");
  return readFileSync(`/sys/fs/cgroup/${hierarchy}${host.cgroupParent}/libpod-${id}/${file}`, "utf8").trim();
}

/** Whether the kernel has frozen a container, by whichever version's freezer. */
function isFrozen(name: string): boolean {
  const events = cgroupFile(name, "unified", "cgroup.events");
  return /^frozen 1$/m.test(events) || cgroupFile(name, "freezer", "freezer.state") === "FROZEN";
}

describe.skipIf(absent !== undefined)("podman", { timeout: 60_000 }, () => {
  beforeAll(async () => {
    // the parent of pods, whose cgroups podman forgets in the hierarchies that it does not know
    host = await PrivateHost.make({ cgroupParents: ["/libpod_parent"] });
    const loaded = podman(["load", "--quiet", "--input", fixtures.images.quickstart.docker]);
    expect(loaded).toMatchObject({ status: 0 });
  });

  afterEach(() => {
    succeeds(["rm", "--all", "--force", "--time", "0"]);
    // podman's own: a cgroup for all its monitors, and its storage bound to itself
    host.expectEmpty({ cgroups: ["conmon"], mounts: [join(host.directory, "podman/root/overlay")] });
  });

  afterAll(async () => {
    await host?.close();
  });

  describe.each([
    ["crun", "as JSON"],
    ["caisson-runtime", "as text"],
  ])("with a runtime called %s, whose errors it reads %s", (runtime) => {
    const podmanWith = (words: readonly string[]) => podman(words, runtime);

    test("a container's output and exit status are the command's", () => {
      const ended = podmanWith(run("--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"));
      expect(ended).toEqual({ status: 7, stdout: "out\n", stderr: "err\n" });
    });

    test.each([
      ["a command that is not there is 127", ["nosuch"], 127, /\\?"nosuch\\?": executable file not found in \$PATH/],
      ["a path that is not there is 127", ["/no/such"], 127, /no such file or directory/],
      ["a file that cannot be executed is 126", ["/etc/passwd"], 126, /permission denied/],
      ["a directory is 126", ["/tmp"], 126, /permission denied/],
    ])("%s, in run and in exec", (_, command, status, message) => {
      const ended = podmanWith(run("--rm", IMAGE, ...command));
      expect({ status: ended.status, stdout: ended.stdout }).toEqual({ status, stdout: "" });
      expect(ended.stderr).toMatch(message);
      idle("idle");
      const inside = podmanWith(["exec", "idle", ...command]);
      expect({ status: inside.status, stdout: inside.stdout }).toEqual({ status, stdout: "" });
      expect(inside.stderr).toMatch(message);
    });

    test("what the kernel refuses is 126, and one line that says where it comes from", () => {
      const ended = podmanWith(run("--rm", "--sysctl", "kernel.msgmax=none", IMAGE, "true"));
      expect({ status: ended.status, stdout: ended.stdout }).toEqual({ status: 126, stdout: "" });
      expect(ended.stderr).toMatch(/msgmax \(EINVAL at \/linux\/sysctl\/kernel\.msgmax\)/);
      expect(ended.stderr.trimEnd().split("\n")).toHaveLength(1);
    });

    test("exec has the container's namespaces, its own user, and the status of its command", () => {
      idle("idle");
      const report = lastLine(podmanWith(["exec", "idle", "/bin/probe"]).stdout);
      const pid = inspect("idle", "{{.State.Pid}}");
      for (const name of ["pid", "mnt", "net", "ipc", "uts"] as const)
        expect(readlinkSync(host.path(`/proc/${pid}/ns/${name}`))).toBe(`${name}:[${report.namespaces[name]}]`);
      const ended = podmanWith([
        "exec",
        "--user",
        "app",
        "--env",
        "A=b",
        "--workdir",
        "/tmp",
        "idle",
        "/bin/probe",
        "--exit",
        "9",
      ]);
      expect(ended).toMatchObject({ status: 9, stderr: "" });
      expect(lastLine(ended.stdout)).toMatchObject({ uids: { effective: 1000 }, groups: [29, 44], cwd: "/tmp" });
      expect(lastLine(ended.stdout).env).toContain("A=b");
    });
  });

  test("logs has what a detached container wrote, to both streams", () => {
    succeeds(run("--detach", "--name", "writer", IMAGE, "sh", "-c", "echo one; echo two >&2; exit 3"));
    expect(succeeds(["wait", "writer"])).toBe("3");
    expect(podman(["logs", "writer"])).toEqual({ status: 0, stdout: "one\n", stderr: "two\n" });
    expect(inspect("writer", "{{.State.ExitCode}}")).toBe("3");
  });

  test("standard input reaches the container", () => {
    expect(succeeds(run("--rm", "--interactive", IMAGE, "cat"), "typed\n")).toBe("typed");
  });

  test("stop sends the stop signal, and its end is the container's status", () => {
    succeeds(run("--detach", "--name", "waiter", IMAGE, "/bin/probe", "--signal-wait"));
    until("it waits", () => podman(["logs", "waiter"]).stdout.includes("ready"));
    succeeds(["kill", "--signal", "USR1", "waiter"]);
    until("it has heard of it", () => podman(["logs", "waiter"]).stdout.includes("SIGUSR1"));
    succeeds(["stop", "--time", "20", "waiter"]);
    expect(inspect("waiter", "{{.State.Status}} {{.State.ExitCode}}")).toBe("exited 0");
  });

  test("kill ends what does not listen, and start begins it anew", () => {
    idle("idle");
    succeeds(["kill", "idle"]);
    expect(succeeds(["wait", "idle"])).toBe("137");
    succeeds(["start", "idle"]);
    expect(inspect("idle", "{{.State.Status}}")).toBe("running");
    expect(podman(["exec", "idle", "true"]).status).toBe(0);
  });

  test("pause freezes the container's processes, and unpause lets them go on", () => {
    idle("idle");
    succeeds(["pause", "idle"]);
    expect(isFrozen("idle")).toBe(true);
    expect(inspect("idle", "{{.State.Status}}")).toBe("paused");
    succeeds(["unpause", "idle"]);
    expect(isFrozen("idle")).toBe(false);
    expect(inspect("idle", "{{.State.Status}}")).toBe("running");
  });

  test("top and stats see the container's processes", () => {
    idle("idle");
    const lines = succeeds(["top", "idle", "pid", "comm"]).split("\n");
    expect(lines.slice(1).map((line) => line.split(/\s+/).slice(0, 2))).toEqual([["1", "sleep"]]);
    const [stats] = JSON.parse(succeeds(["stats", "--no-stream", "--format", "json", "idle"]));
    expect(stats).toMatchObject({ name: "idle", pids: "1" });
    expect(stats.mem_usage).toMatch(/^[1-9]/);
  });

  test("resources are what the cgroup has", () => {
    const limits = ["--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "77", "--cpu-shares", "512"];
    idle("idle", ...limits, "--cpus", "0.5", "--cpuset-cpus", "0");
    expect(cgroupFile("idle", "memory", "memory.limit_in_bytes")).toBe(String(64 << 20));
    expect(cgroupFile("idle", "memory", "memory.soft_limit_in_bytes")).toBe(String(32 << 20));
    expect(cgroupFile("idle", "pids", "pids.max")).toBe("77");
    expect(cgroupFile("idle", "cpu", "cpu.shares")).toBe("512");
    expect(cgroupFile("idle", "cpu", "cpu.cfs_quota_us")).toBe("50000");
    expect(cgroupFile("idle", "cpuset", "cpuset.cpus")).toBe("0");
  });

  test("what takes more memory than it may is killed by the kernel", () => {
    idle("idle", "--memory", "32m", "--memory-swap", "32m");
    expect(podman(["exec", "idle", "/bin/probe", "--allocate", "256"]).status).toBe(137);
    expect(cgroupFile("idle", "memory", "memory.oom_control")).toContain("oom_kill 1");
  });

  test("update changes the limits of a running container", () => {
    idle("idle", "--cpu-shares", "512");
    succeeds(["update", "--cpu-shares", "256", "--memory", "96m", "idle"]);
    expect(cgroupFile("idle", "cpu", "cpu.shares")).toBe("256");
    expect(cgroupFile("idle", "memory", "memory.limit_in_bytes")).toBe(String(96 << 20));
  });

  test("--init reaps for the command, which is its child", () => {
    const { pid, ppid } = seen(["--init"]);
    expect({ pid: pid > 1, ppid }).toEqual({ pid: true, ppid: 1 });
    expect(succeeds(run("--rm", "--init", IMAGE, "cat", "/proc/1/comm"))).toMatch(/^(catatonit|podman-init)$/);
  });

  test("a user namespace maps the container's root to somebody else, and its mounts are writable to him", () => {
    const { uidMap, uids, actions } = seen(
      ["--uidmap", "0:100000:2000", "--gidmap", "0:100000:2000"],
      ["--write", "/tmp/file", "x"],
    );
    expect(uidMap).toEqual(["0 100000 2000"]);
    expect(uids.effective).toBe(0);
    expect(actions.map(({ error }) => error)).toEqual([null]);
  });

  test("--read-only leaves only what is mounted writable", () => {
    const { mounts, actions } = seen(
      ["--read-only", "--tmpfs", "/scratch:size=1m,mode=1777"],
      ["--write", "/file", "x", "--write", "/scratch/file", "x"],
    );
    expect(actions.map(({ error }) => error)).toEqual(["EROFS", null]);
    expect(mounts.find(({ mountPoint }) => mountPoint === "/")?.options).toMatch(/^ro\b/);
    expect(mounts.find(({ mountPoint }) => mountPoint === "/scratch")).toMatchObject({
      type: "tmpfs",
      superOptions: expect.stringContaining("size=1024k"),
    });
  });

  test("volumes and binds keep what a container writes", () => {
    const flags = ["--volume", "data:/data", "--volume", `${host.directory}:/host:ro`];
    const first = seen(flags, ["--write", "/data/file", "kept", "--write", "/host/file", "x"]);
    expect(first.actions.map(({ error }) => error)).toEqual([null, "EROFS"]);
    const second = seen(flags, ["--read", "/data/file"]);
    expect(second.actions.map(({ result }) => result)).toEqual(["kept"]);
    succeeds(["volume", "rm", "data"]);
  });

  test("a volume takes what the image has at its place", () => {
    const { actions } = seen(["--volume", "pages:/srv/www"], ["--read", "/srv/www/index.html"]);
    expect(actions[0]?.result).toContain("Served from a caisson");
    succeeds(["volume", "rm", "pages"]);
  });

  test("a terminal has the size of the client's, follows it, and hands on what is typed", () => {
    const { status, output } = host.atTerminal(
      commandLine(run("--rm", "-it", "--env", "PS1=> ", IMAGE, "sh")),
      [
        ["expect", "> "],
        ["send", "until [ \"$(stty size)\" = '30 90' ]; do :; done; tty; echo end-$((1+1))\n"],
        ["expect", "end-2"],
        ["resize", 33, 101],
        ["send", "until [ \"$(stty size)\" = '33 101' ]; do :; done; echo seen-$((2+2))\n"],
        ["expect", "seen-4"],
        ["send", "exit 5\n"],
      ],
      { rows: 30, columns: 90 },
    );
    expect(status).toBe(5);
    expect(output).toContain("/dev/pts/0");
  });

  test("exec has a terminal of its own", () => {
    idle("idle");
    const { status, output } = host.atTerminal(
      // podman sets the size when the process is there already
      commandLine(["exec", "-it", "idle", "sh", "-c", "until stty size; do :; done 2>/dev/null; tty; exit 6"]),
      [],
      {
        rows: 31,
        columns: 91,
      },
    );
    expect(status).toBe(6);
    expect(output).toContain("31 91");
    expect(output).toContain("/dev/pts/0");
  });

  test("the identity, the capabilities and the rest of the process are what podman asks for", () => {
    const flags = [
      "--hostname",
      "box",
      "--user",
      "app",
      "--cap-drop",
      "all",
      "--cap-add",
      "net_bind_service",
      "--security-opt",
      "no-new-privileges",
    ];
    const report = seen([...flags, "--oom-score-adj", "500", "--sysctl", "net.ipv4.ip_forward=1", "--umask", "0027"]);
    expect(report).toMatchObject({
      hostname: "box",
      uids: { real: 1000, effective: 1000 },
      groups: expect.arrayContaining([29, 44]),
      noNewPrivs: true,
      oomScoreAdj: 500,
      umask: expect.stringMatching(/27$/),
      seccomp: { mode: 2 },
      capabilities: { bounding: "0000000000000400", effective: "0000000000000400" },
      rlimits: { RLIMIT_NOFILE: { soft: 1024, hard: 1024 } },
    });
  });

  test("--privileged sees the host's devices and no filter", () => {
    const report = seen(["--privileged"]);
    expect(report.seccomp.mode).toBe(0);
    expect(report.devices.length).toBeGreaterThan(20);
    expect(report.mounts.find(({ mountPoint }) => mountPoint === "/sys")?.options).toMatch(/^rw\b/);
  });

  test("namespaces of another container and of the host are joined", () => {
    idle("first", "--ipc", "shareable");
    const first = lastLine(succeeds(["exec", "first", "/bin/probe"])).namespaces;
    const joined = seen(["--network", "--ipc", "--pid"].flatMap((flag) => [flag, "container:first"])).namespaces;
    expect({ net: joined.net, ipc: joined.ipc, pid: joined.pid }).toEqual({
      net: first.net,
      ipc: first.ipc,
      pid: first.pid,
    });
    expect(joined.mnt).not.toBe(first.mnt);
    expect(seen(["--uts", "host"]).hostname).toBe(hostname());
  });

  test("a health check is an exec whose status podman keeps", () => {
    idle("idle", "--health-cmd", "test -e /tmp/well", "--health-interval", "disable", "--health-retries", "1");
    expect(podman(["healthcheck", "run", "idle"]).status).toBe(1);
    succeeds(["exec", "idle", "touch", "/tmp/well"]);
    expect(podman(["healthcheck", "run", "idle"])).toMatchObject({ status: 0 });
    expect(inspect("idle", "{{.State.Health.Status}}")).toBe("healthy");
  });

  test("a pod's containers share its namespaces; play kube makes one of a manifest", () => {
    const manifest = join(host.directory, "pod.yaml");
    const container = (name: string, command: string[]) => ({
      name,
      image: `localhost/${IMAGE}:latest`,
      imagePullPolicy: "Never",
      command,
    });
    writeFileSync(
      manifest,
      JSON.stringify({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "pod" },
        spec: {
          hostNetwork: true,
          containers: [
            container("one", ["sleep", "1000"]),
            { ...container("two", ["sleep", "1000"]), resources: { limits: { memory: "64Mi" } } },
          ],
        },
      }),
    );
    const played = podman(["play", "kube", "--quiet", manifest]);
    expect({ status: played.status, stderr: played.stderr }).toEqual({ status: 0, stderr: "" });
    const report = (name: string) => lastLine(succeeds(["exec", name, "/bin/probe"]));
    const [one, two] = [report("pod-one"), report("pod-two")];
    expect({ ipc: one.namespaces.ipc, uts: one.namespaces.uts }).toEqual({
      ipc: two.namespaces.ipc,
      uts: two.namespaces.uts,
    });
    expect(one.namespaces.mnt).not.toBe(two.namespaces.mnt);
    expect(podman(["play", "kube", "--down", manifest]).status).toBe(0);
  });
});
