import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import { type Outcome, until } from "../support/bundle.ts";
import { lastLine } from "../support/engine.ts";
import type { Seen } from "../support/seen.ts";
import { type Daemon, missing, PrivateHost } from "./private-host.ts";

const absent = missing(["dockerd", "docker.io"], ["docker", "docker.io"], ["containerd", "containerd"]);
if (absent !== undefined) console.warn(`docker's tests are skipped: ${absent}`);
const composeAbsent = missing(["docker-compose", "docker-compose"]);
if (composeAbsent !== undefined) console.warn(`docker-compose's test is skipped: ${composeAbsent}`);

/** Debian's client comes before any other, as it has BuildKit's built in. */
const CLIENT = existsSync("/usr/bin/docker") ? "/usr/bin/docker" : "docker";
const IMAGE = "caisson/quickstart";
/** What the daemon keeps for itself. */
const KEPT = { cgroups: ["buildkit"], mounts: ["/run/docker/netns/default"] };

let host: PrivateHost;
let daemon: Daemon;

const file = (name: string) => join(host.directory, name);
const environment = (more: NodeJS.ProcessEnv = {}) => ({ DOCKER_HOST: `unix://${file("docker.sock")}`, ...more });

function docker(words: readonly string[], how: { input?: string; env?: NodeJS.ProcessEnv } = {}): Outcome {
  return host.run([CLIENT, ...words], { ...how, env: environment(how.env) });
}

/** The same, where failure is a failed test. @returns what it printed, without the line's end */
function succeeds(words: readonly string[], how: { input?: string; env?: NodeJS.ProcessEnv } = {}): string {
  const { status, stdout, stderr } = docker(words, how);
  expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: "" });
  return stdout.trimEnd();
}

function run(...words: string[]): string[] {
  return ["run", ...(words.includes("--network") ? [] : ["--network", "none"]), ...words];
}

const inspect = (name: string, format: string) => succeeds(["inspect", "--format", format, name]);

function seen(flags: string[], actions: string[] = []): Seen {
  return lastLine(succeeds(run("--rm", ...flags, IMAGE, "/bin/probe", ...actions)));
}

/** A container called `name` that does nothing. */
function idle(name: string, ...flags: string[]): void {
  succeeds(run("--detach", "--name", name, ...flags, IMAGE, "sleep", "1000"));
}

function cgroupFile(name: string, hierarchy: string, entry: string): string {
  const path = join("/sys/fs/cgroup", hierarchy, host.cgroupParent, inspect(name, "{{.Id}}"), entry);
  return readFileSync(path, "utf8").trim();
}

/** A daemon with our runtime as its default, and under the name of the one that BuildKit takes from PATH. */
function startDaemon(): Daemon {
  const path = `${dirname(host.runtimeCalled("runc"))}:${process.env.PATH}:/usr/sbin:/sbin`;
  writeFileSync(file("daemon.json"), "{}");
  const words = [
    ...["env", `PATH=${path}`, "dockerd", "--config-file", file("daemon.json")],
    ...["--data-root", file("data"), "--exec-root", file("exec"), "--pidfile", file("docker.pid")],
    ...["--host", `unix://${file("docker.sock")}`, "--bip", "10.213.0.1/24", "--storage-driver", "overlay2"],
    ...["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", host.cgroupParent],
    ...["--add-runtime", `caisson=${host.runtimeCalled("caisson-runtime")}`, "--default-runtime", "caisson"],
  ];
  return host.startDaemon("dockerd", words, () => docker(["version"]).status === 0);
}

/** Whether the kernel has frozen a container, by whichever version's freezer. */
function isFrozen(name: string): boolean {
  const events = cgroupFile(name, "unified", "cgroup.events");
  return /^frozen 1$/m.test(events) || cgroupFile(name, "freezer", "freezer.state") === "FROZEN";
}

describe.skipIf(absent !== undefined)("docker", { timeout: 60_000 }, () => {
  beforeAll(async () => {
    host = await PrivateHost.make();
    daemon = startDaemon();
    succeeds(["load", "--quiet", "--input", fixtures.images.quickstart.docker]);
  });

  afterEach(() => {
    const left = succeeds(["ps", "--all", "--quiet"]).split("\n").filter(Boolean);
    if (left.length > 0) succeeds(["rm", "--force", "--volumes", ...left]);
    until("no cgroup is left", () => host.cgroups().every((path) => KEPT.cgroups.includes(path)));
  });

  afterAll(async () => {
    try {
      await daemon?.end();
      host?.expectEmpty(KEPT);
    } finally {
      await host?.close();
    }
  });

  test("the daemon's default runtime is ours", () => {
    expect(succeeds(["info", "--format", "{{.DefaultRuntime}} {{.CgroupDriver}}"])).toBe("caisson cgroupfs");
    idle("idle");
    expect(inspect("idle", "{{.HostConfig.Runtime}}")).toBe("caisson");
  });

  test("a container's output and exit status are the command's", () => {
    const ended = docker(run("--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"));
    expect(ended).toEqual({ status: 7, stdout: "out\n", stderr: "err\n" });
  });

  test.each([
    ["a command that is not there is 127", ["nosuch"], 127, /"nosuch": executable file not found in \$PATH/],
    ["a path that is not there is 127", ["/no/such"], 127, /no such file or directory/],
    ["a file that cannot be executed is 126", ["/etc/passwd"], 126, /permission denied/],
    ["a directory is 126", ["/tmp"], 126, /permission denied/],
  ])("%s, in run and in exec", (_, command, status, message) => {
    const ended = docker(run("--rm", IMAGE, ...command));
    expect({ status: ended.status, stdout: ended.stdout }).toEqual({ status, stdout: "" });
    expect(ended.stderr).toMatch(message);
    idle("idle");
    const inside = docker(["exec", "idle", ...command]);
    // before Docker 23 there was no 127 in exec
    expect([status, 126]).toContain(inside.status);
    expect(inside.stdout + inside.stderr).toMatch(message);
  });

  test("a directory that is mounted on a file, or a file on a directory, is told as what may have been mixed up", () => {
    for (const [source, target] of [
      [host.directory, "/bin/probe"],
      [process.execPath, "/bin"],
    ]) {
      const { status, stderr } = docker(run("--rm", "--volume", `${source}:${target}`, IMAGE, "/bin/true"));
      expect({ target, status }).toEqual({ target, status: 125 });
      expect(stderr).toContain("Are you trying to mount a directory onto a file (or vice-versa)?");
    }
  });

  test("exec has the container's namespaces, its own user, and the status of its command", () => {
    idle("idle");
    const ended = docker([
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
    const report = lastLine(ended.stdout);
    expect(report).toMatchObject({ uids: { effective: 1000 }, groups: expect.arrayContaining([29, 44]), cwd: "/tmp" });
    expect(report.env).toContain("A=b");
    const pid = inspect("idle", "{{.State.Pid}}");
    for (const name of ["pid", "mnt", "net", "ipc", "uts"] as const)
      expect(readlinkSync(host.path(`/proc/${pid}/ns/${name}`))).toBe(`${name}:[${report.namespaces[name]}]`);
  });

  test("logs has what a detached container wrote, to both streams; input reaches one that is attached", () => {
    succeeds(run("--detach", "--name", "writer", IMAGE, "sh", "-c", "echo one; echo two >&2; exit 3"));
    expect(succeeds(["wait", "writer"])).toBe("3");
    expect(docker(["logs", "writer"])).toEqual({ status: 0, stdout: "one\n", stderr: "two\n" });
    expect(succeeds(run("--rm", "--interactive", IMAGE, "cat"), { input: "typed\n" })).toBe("typed");
  });

  test("stop sends the stop signal, and its end is the container's status", () => {
    succeeds(run("--detach", "--name", "waiter", IMAGE, "/bin/probe", "--signal-wait"));
    until("it waits", () => docker(["logs", "waiter"]).stdout.includes("ready"));
    succeeds(["kill", "--signal", "USR1", "waiter"]);
    until("it has heard of it", () => docker(["logs", "waiter"]).stdout.includes("SIGUSR1"));
    succeeds(["stop", "--time", "20", "waiter"]);
    expect(inspect("waiter", "{{.State.Status}} {{.State.ExitCode}}")).toBe("exited 0");
  });

  test("kill ends what does not listen, and start begins it anew", () => {
    idle("idle");
    succeeds(["kill", "idle"]);
    expect(succeeds(["wait", "idle"])).toBe("137");
    succeeds(["start", "idle"]);
    expect(docker(["exec", "idle", "true"]).status).toBe(0);
    succeeds(["restart", "--time", "0", "idle"]);
    expect(inspect("idle", "{{.State.Running}}")).toBe("true");
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
    const [, ...processes] = succeeds(["top", "idle", "-o", "pid,comm"]).split("\n");
    expect(processes.map((line) => line.trim().split(/\s+/))).toEqual([[inspect("idle", "{{.State.Pid}}"), "sleep"]]);
    expect(succeeds(["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "idle"])).toBe("idle 1");
  });

  test("resources are what the cgroup has, and update changes them while it runs", () => {
    idle(
      "idle",
      "--memory",
      "64m",
      "--memory-swap",
      "64m",
      "--pids-limit",
      "77",
      "--cpus",
      "0.5",
      "--cpuset-cpus",
      "0",
    );
    expect(cgroupFile("idle", "memory", "memory.limit_in_bytes")).toBe(String(64 << 20));
    expect(cgroupFile("idle", "pids", "pids.max")).toBe("77");
    expect(cgroupFile("idle", "cpu", "cpu.cfs_quota_us")).toBe("50000");
    expect(cgroupFile("idle", "cpuset", "cpuset.cpus")).toBe("0");
    succeeds([
      "update",
      "--memory",
      "96m",
      "--memory-swap",
      "96m",
      "--pids-limit",
      "55",
      "--cpu-shares",
      "256",
      "idle",
    ]);
    expect(cgroupFile("idle", "memory", "memory.limit_in_bytes")).toBe(String(96 << 20));
    expect(cgroupFile("idle", "pids", "pids.max")).toBe("55");
    expect(cgroupFile("idle", "cpu", "cpu.shares")).toBe("256");
  });

  test("what takes more memory than it may is killed, and the daemon hears of it", () => {
    idle("idle", "--memory", "32m", "--memory-swap", "32m");
    expect(docker(["exec", "idle", "/bin/probe", "--allocate", "256"]).status).toBe(137);
    const heard = () => succeeds(["events", "--since", "0", "--until", "0s", "--filter", "event=oom"]);
    until("the daemon has heard of it", () => heard().includes("name=idle"));
    succeeds(["kill", "idle"]);
    expect(inspect("idle", "{{.State.OOMKilled}}")).toBe("true");
  });

  test("a restart policy begins anew what has failed, as often as it says", () => {
    succeeds(
      run("--detach", "--name", "failing", "--restart", "on-failure:2", IMAGE, "sh", "-c", "echo began; exit 1"),
    );
    until("it has given up", () => inspect("failing", "{{.RestartCount}} {{.State.Status}}") === "2 exited", 30_000);
    expect(succeeds(["logs", "failing"])).toBe("began\nbegan\nbegan");
    idle("always", "--restart", "always");
    const first = inspect("always", "{{.State.Pid}}");
    expect(host.run(["kill", "-KILL", first]).status).toBe(0);
    until(
      "it runs again",
      () =>
        /^true [1-9]/.test(inspect("always", "{{.State.Running}} {{.State.Pid}}")) &&
        inspect("always", "{{.State.Pid}}") !== first,
      30_000,
    );
    expect(docker(["exec", "always", "true"]).status).toBe(0);
  });

  test("--init reaps for the command, which is its child", () => {
    const { pid, ppid } = seen(["--init"]);
    expect({ pid: pid > 1, ppid }).toEqual({ pid: true, ppid: 1 });
    expect(succeeds(run("--rm", "--init", IMAGE, "cat", "/proc/1/comm"))).toMatch(/docker-init|tini/);
  });

  test("a terminal has the size of the client's, follows it, and hands on what is typed", () => {
    const { status, output } = host.atTerminal(
      [
        "env",
        `DOCKER_HOST=unix://${file("docker.sock")}`,
        CLIENT,
        ...run("--rm", "-it", "--env", "PS1=> ", IMAGE, "sh"),
      ],
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

  test("a read-only root, a tmpfs, a bind and a volume are what docker asks for", () => {
    const flags = [
      "--read-only",
      "--tmpfs",
      "/scratch:size=1m",
      "--volume",
      `${host.directory}:/host:ro`,
      "--volume",
      "data:/srv/www",
    ];
    const paths = ["/file", "/scratch/file", "/host/file", "/srv/www/file"];
    const { actions, mounts } = seen(
      flags,
      paths.flatMap((path) => ["--write", path, "kept"]),
    );
    expect(actions.map(({ error }) => error)).toEqual(["EROFS", null, "EROFS", null]);
    expect(mounts.find(({ mountPoint }) => mountPoint === "/scratch")?.superOptions).toContain("size=1024k");
    const again = seen(["--volume", "data:/data"], ["--read", "/data/file", "--read", "/data/index.html"]).actions;
    expect(again.map(({ result }) => result)).toEqual(["kept", expect.stringContaining("Served from a caisson")]);
    succeeds(["volume", "rm", "data"]);
  });

  test("the identity, the capabilities and the rest of the process are what docker asks for", () => {
    const security = ["--cap-drop", "all", "--cap-add", "net_bind_service", "--security-opt", "no-new-privileges"];
    const report = seen([
      ...security,
      "--hostname",
      "box",
      "--user",
      "app",
      "--sysctl",
      "net.ipv4.ip_forward=0",
      "--ulimit",
      "nofile=512:1024",
    ]);
    expect(report).toMatchObject({
      hostname: "box",
      uids: { real: 1000, effective: 1000 },
      groups: expect.arrayContaining([29, 44]),
      noNewPrivs: true,
      seccomp: { mode: 2 },
      capabilities: { bounding: "0000000000000400" },
      rlimits: { RLIMIT_NOFILE: { soft: 512, hard: 1024 } },
    });
  });

  test("--privileged sees the host's devices, and no filter", ({ skip }) => {
    const lacking = /^CapBnd:\t(.*)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] !== "000001ffffffffff";
    skip(lacking, "docker asks for every capability, and this host has not all of them");
    const report = seen(["--privileged"]);
    expect(report.seccomp.mode).toBe(0);
    expect(report.devices.length).toBeGreaterThan(20);
  });

  test("containers on the bridge reach each other, and a published port is reached from outside", () => {
    const flags = ["--network", "bridge", "--publish", "127.0.0.1:8123:8080"];
    succeeds(
      run(
        "--detach",
        "--name",
        "server",
        ...flags,
        "--hostname",
        "server",
        IMAGE,
        "/bin/probe",
        "--listen",
        "8080",
        "2",
      ),
    );
    until("it listens", () => docker(["logs", "server"]).stdout.includes("listening"));
    const address = inspect("server", "{{.NetworkSettings.IPAddress}}");
    const [answer] = seen(["--network", "bridge"], ["--connect", address, "8080"]).actions;
    expect(answer?.result).toMatch(/^probe server /);
    const { stdout } = host.run([fixtures.probe, "--connect", "127.0.0.1", "8123"]);
    expect(lastLine(stdout).actions[0]?.result).toMatch(/^probe server /);
    expect(succeeds(["wait", "server"])).toBe("0");
  });

  test("a health check is an exec whose status the daemon keeps", () => {
    idle("idle", "--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "1");
    until("it is unwell", () => inspect("idle", "{{.State.Health.Status}}") === "unhealthy", 30_000);
    succeeds(["exec", "idle", "touch", "/tmp/well"]);
    until("it is well", () => inspect("idle", "{{.State.Health.Status}}") === "healthy", 30_000);
  });

  describe.each([
    ["the classic builder", "0"],
    ["BuildKit, which looks for runc in PATH", "1"],
  ])("%s", (_, buildkit) => {
    test("runs the steps of a Dockerfile, and one that fails is told with its status", () => {
      const context = file(`context-${buildkit}`);
      mkdirSync(context, { recursive: true });
      writeFileSync(join(context, "note"), "copied\n");
      const dockerfile = (...lines: string[]) =>
        writeFileSync(join(context, "Dockerfile"), [`FROM ${IMAGE}`, ...lines, ""].join("\n"));
      const build = (...words: string[]) =>
        docker(["build", "--network", "none", "--tag", `built-${buildkit}`, ...words, context], {
          env: { DOCKER_BUILDKIT: buildkit },
        });
      dockerfile(
        "COPY note /srv/note",
        "RUN mkdir /made && tr a-z A-Z < /srv/note > /made/file",
        "USER app",
        "RUN id -u > /tmp/user",
        'CMD ["cat", "/made/file", "/tmp/user"]',
      );
      const built = build();
      expect({ status: built.status, output: built.stdout + built.stderr }).toMatchObject({ status: 0 });
      expect(succeeds(run("--rm", `built-${buildkit}`))).toBe("COPIED\n1000");
      dockerfile("RUN exit 42");
      const failed = build();
      expect(failed.status).not.toBe(0);
      expect(failed.stdout + failed.stderr).toMatch(/(returned a non-zero code|exit code): 42/);
    });
  });

  test.skipIf(composeAbsent !== undefined)("docker-compose brings up two services that know each other by name", () => {
    const directory = file("project");
    mkdirSync(directory, { recursive: true });
    const own = { image: IMAGE, cgroup_parent: host.cgroupParent };
    const services = {
      web: { ...own, command: ["httpd", "-f", "-p", "8080", "-h", "/srv/www"] },
      client: { ...own, command: ["sleep", "1000"], depends_on: ["web"], environment: { GREETING: "hello" } },
    };
    writeFileSync(join(directory, "docker-compose.yml"), JSON.stringify({ version: "3.8", services }));
    const compose = (...words: string[]) =>
      host.run(
        ["docker-compose", "--project-directory", directory, "--file", join(directory, "docker-compose.yml"), ...words],
        {
          env: environment({ COMPOSE_PROJECT_NAME: "project" }),
        },
      );
    const up = compose("up", "--detach");
    expect({ status: up.status, stderr: up.stderr }).toMatchObject({ status: 0 });
    const inside = (...words: string[]) => compose("exec", "-T", "client", ...words);
    expect(inside("sh", "-c", "echo $GREETING").stdout).toBe("hello\n");
    expect(inside("nslookup", "web").stdout).toMatch(/Name:\s+web\nAddress/);
    const web = succeeds(["ps", "--quiet", "--filter", "label=com.docker.compose.service=web"]);
    const address = inspect(web, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    expect(inside("wget", "-q", "-O", "-", `http://${address}:8080/`).stdout).toContain("Served from a caisson");
    expect(compose("stop", "--timeout", "0").status).toBe(0);
    expect(compose("down", "--volumes").status).toBe(0);
    expect(succeeds(["ps", "--all", "--quiet"])).toBe("");
  });

  test("swarm mode runs a service's replicas, as many as it is scaled to, and replaces one that dies", () => {
    host.run(["ip", "link", "add", "swarm0", "type", "bridge"]);
    host.run(["ip", "address", "add", "10.214.0.1/24", "dev", "swarm0"]);
    host.run(["ip", "link", "set", "swarm0", "up"]);
    succeeds(["swarm", "init", "--advertise-addr", "10.214.0.1", "--listen-addr", "10.214.0.1"]);
    try {
      const flags = [
        "--endpoint-mode",
        "dnsrr",
        "--no-resolve-image",
        "--restart-delay",
        "0s",
        "--stop-grace-period",
        "0s",
      ];
      succeeds([
        "service",
        "create",
        "--quiet",
        "--detach",
        "--name",
        "replicated",
        "--replicas",
        "2",
        ...flags,
        IMAGE,
        "sleep",
        "1000",
      ]);
      const pids = () => {
        const ids = succeeds(["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=replicated"])
          .split("\n")
          .filter(Boolean);
        return ids.map((id) => inspect(id, "{{.State.Pid}}"));
      };
      const replicas = () => succeeds(["service", "ls", "--format", "{{.Replicas}}"]);
      until("two run", () => replicas() === "2/2", 30_000);
      succeeds(["service", "scale", "--detach", "replicated=5"]);
      until("five run", () => replicas() === "5/5", 30_000);
      const before = pids();
      expect(new Set(before).size).toBe(5);
      const namespaces = before.map((pid) => readlinkSync(host.path(`/proc/${pid}/ns/mnt`)));
      expect(new Set(namespaces).size).toBe(5);
      expect(host.run(["kill", "-KILL", before[0] ?? ""]).status).toBe(0);
      until(
        "another takes its place",
        () => replicas() === "5/5" && pids().length === 5 && !pids().includes(before[0] ?? ""),
        30_000,
      );
      succeeds(["service", "rm", "replicated"]);
      until("all are gone", () => succeeds(["ps", "--quiet"]) === "", 30_000);
    } finally {
      succeeds(["swarm", "leave", "--force"]);
      host.run(["ip", "link", "delete", "swarm0"]);
    }
  });
});
