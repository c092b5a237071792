import { existsSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fixtures } from "../../rootfs-fixtures/build.mjs";
import { type Outcome, until } from "../support/bundle.ts";
import { lastLine } from "../support/engine.ts";
import type { Seen } from "../support/seen.ts";
import { type Daemon, missing, PrivateHost } from "./private-host.ts";

const absent = missing(["containerd", "containerd"], ["ctr", "containerd"]);
if (absent !== undefined) console.warn(`containerd's tests are skipped: ${absent}`);

const IMAGE = "docker.io/caisson/quickstart:latest";

let host: PrivateHost;
let daemon: Daemon;
let serial = 0;

const file = (name: string) => join(host.directory, name);

function commandLine(words: readonly string[]): string[] {
  return ["ctr", "--address", file("containerd.sock"), "--timeout", "40s", ...words];
}

function ctr(words: readonly string[], input = ""): Outcome {
  return host.run(commandLine(words), { input });
}

/** The same, where failure is a failed test. @returns what it printed, without the line's end */
function succeeds(words: readonly string[]): string {
  const { status, stdout, stderr } = ctr(words);
  expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: "" });
  return stdout.trimEnd();
}

/** The words that run a container by our runtime, in a cgroup of the test's. */
function run(id: string, flags: string[], ...command: string[]): string[] {
  const own = ["--runc-binary", host.runtimeCalled("caisson-runtime"), "--cgroup", `${host.cgroupParent}/${id}`];
  return ["run", ...own, ...flags, IMAGE, id, ...command];
}

const fresh = () => `box-${serial++}`;

/** A container that does nothing. @returns its id */
function idle(...flags: string[]): string {
  const id = fresh();
  succeeds(run(id, ["--detach", ...flags], "sleep", "1000"));
  return id;
}

function seen(flags: string[], actions: string[] = []): Seen {
  return lastLine(succeeds(run(fresh(), ["--rm", ...flags], "/bin/probe", ...actions)));
}

/** What `task ls` says of a container: its pid, and its status. */
function task(id: string): { pid: number; status: string } | undefined {
  const row = succeeds(["task", "ls"])
    .split("\n")
    .map((line) => line.split(/\s+/))
    .find(([name]) => name === id);
  return row === undefined ? undefined : { pid: Number(row[1]), status: row[2] ?? "" };
}

function cgroupFile(id: string, hierarchy: string, name: string): string {
  return readFileSync(`/sys/fs/cgroup/${hierarchy}${host.cgroupParent}/${id}/${name}`, "utf8").trim();
}

/** Whether the kernel has frozen a container, by whichever version's freezer. */
function isFrozen(id: string): boolean {
  const events = cgroupFile(id, "unified", "cgroup.events");
  return /^frozen 1$/m.test(events) || cgroupFile(id, "freezer", "freezer.state") === "FROZEN";
}

describe.skipIf(absent !== undefined)("containerd", { timeout: 60_000 }, () => {
  beforeAll(async () => {
    host = await PrivateHost.make();
    writeFileSync(
      file("containerd.toml"),
      [
        "version = 2",
        `root = "${file("root")}"`,
        `state = "${file("state")}"`,
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]',
        `[grpc]\naddress = "${file("containerd.sock")}"`,
        `[ttrpc]\naddress = "${file("containerd.sock.ttrpc")}"`,
      ].join("\n"),
    );
    const answers = () => existsSync(file("containerd.sock")) && ctr(["version"]).status === 0;
    daemon = host.startDaemon("containerd", ["containerd", "--config", file("containerd.toml")], answers);
    succeeds(["image", "import", fixtures.images.quickstart.docker]);
  });

  afterEach(() => {
    for (const id of succeeds(["task", "ls", "--quiet"]).split("\n").filter(Boolean))
      ctr(["task", "rm", "--force", id]);
    for (const id of succeeds(["container", "ls", "--quiet"]).split("\n").filter(Boolean))
      succeeds(["container", "rm", id]);
    until("no container is left", () => host.cgroups().length === 0);
  });

  afterAll(async () => {
    try {
      await daemon?.end();
      host?.expectEmpty();
    } finally {
      await host?.close();
    }
  });

  test("a container's output and exit status are the command's", () => {
    const ended = ctr(run(fresh(), ["--rm"], "sh", "-c", "echo out; echo err >&2; exit 7"));
    expect(ended).toEqual({ status: 7, stdout: "out\n", stderr: "err\n" });
  });

  test("a command that is not there is told in runc's words, in run and in exec", () => {
    const message = 'unable to start container process: exec: "nosuch": executable file not found in $PATH';
    const ended = ctr(run(fresh(), ["--rm"], "nosuch"));
    expect({ status: ended.status, stdout: ended.stdout }).toEqual({ status: 1, stdout: "" });
    expect(ended.stderr).toMatch(/OCI runtime create failed: /);
    expect(ended.stderr).toContain(message);
    const inside = ctr(["task", "exec", "--exec-id", "e", idle(), "nosuch"]);
    expect(inside.status).toBe(1);
    expect(inside.stderr).toMatch(/OCI runtime exec failed: /);
    expect(inside.stderr).toContain(message);
  });

  test("exec has the container's namespaces and its own status, output and input", () => {
    const id = idle();
    const ended = ctr(["task", "exec", "--exec-id", "one", "--cwd", "/tmp", id, "/bin/probe", "--exit", "9"]);
    expect(ended.status).toBe(9);
    const report = lastLine(ended.stdout);
    const { pid } = task(id) ?? {};
    for (const name of ["pid", "mnt", "net", "ipc", "uts"] as const)
      expect(readlinkSync(host.path(`/proc/${pid}/ns/${name}`))).toBe(`${name}:[${report.namespaces[name]}]`);
    expect(report.cwd).toBe("/tmp");
    expect(ctr(["task", "exec", "--exec-id", "three", id, "cat"], "typed\n")).toEqual({
      status: 0,
      stdout: "typed\n",
      stderr: "",
    });
  });

  test("pause freezes the container's processes, and resume lets them go on", () => {
    const id = idle();
    succeeds(["task", "pause", id]);
    expect(isFrozen(id)).toBe(true);
    expect(task(id)?.status).toBe("PAUSED");
    succeeds(["task", "resume", id]);
    expect(isFrozen(id)).toBe(false);
    expect(task(id)?.status).toBe("RUNNING");
  });

  test("ps lists the container's processes, by the pids of containerd's namespace", () => {
    const id = idle();
    const lines = succeeds(["task", "ps", id]).split("\n").slice(1);
    expect(lines.map((line) => Number.parseInt(line, 10))).toEqual([task(id)?.pid]);
    expect(readFileSync(host.path(`/proc/${task(id)?.pid}/comm`), "utf8")).toBe("sleep\n");
  });

  test("metrics are the cgroup's, and limits are in it", () => {
    const id = idle("--memory-limit", String(64 << 20), "--cpus", "0.5");
    const { memory, pids } = JSON.parse(succeeds(["task", "metrics", "--format", "json", id]));
    expect({ limit: memory.usage.limit, pids: pids.current }).toEqual({ limit: 64 << 20, pids: 1 });
    expect(cgroupFile(id, "memory", "memory.limit_in_bytes")).toBe(String(64 << 20));
    expect(cgroupFile(id, "cpu", "cpu.cfs_quota_us")).toBe("50000");
  });

  test("kill sends the signal that is asked for; delete then removes what has ended", () => {
    const id = idle();
    const { pid = 0 } = task(id) ?? {};
    succeeds(["task", "kill", "--signal", "SIGKILL", id]);
    until("it has ended", () => task(id)?.status === "STOPPED");
    expect(existsSync(host.path(`/proc/${pid}`))).toBe(false);
    expect(ctr(["task", "delete", id]).stderr).toContain("exit code 137");
    expect(task(id)).toBeUndefined();
    expect(host.cgroups()).toEqual([]);
  });

  test("delete --force ends what still runs", () => {
    const id = idle();
    const { pid = 0 } = task(id) ?? {};
    expect(ctr(["task", "rm", "--force", id]).status).toBe(0);
    expect(existsSync(host.path(`/proc/${pid}`))).toBe(false);
    expect(task(id)).toBeUndefined();
  });

  test("kill --all reaches every process of the container", () => {
    const id = idle();
    expect(ctr(["task", "exec", "--detach", "--exec-id", "more", id, "sleep", "999"]).status).toBe(0);
    until("both run", () => cgroupFile(id, "pids", "pids.current") === "2");
    succeeds(["task", "kill", "--all", "--signal", "SIGKILL", id]);
    until("both have ended", () => cgroupFile(id, "pids", "pids.current") === "0");
  });

  test("a terminal has the size of the client's, and hands on what is typed", () => {
    const { status, output } = host.atTerminal(
      commandLine(run(fresh(), ["--rm", "--tty", "--env", "PS1=> "], "sh")),
      [
        ["expect", "> "],
        ["send", "until [ \"$(stty size)\" = '30 90' ]; do :; done; tty; echo end-$((1+1))\n"],
        ["expect", "end-2"],
        ["send", "exit 5\n"],
      ],
      { rows: 30, columns: 90 },
    );
    expect(status).toBe(5);
    expect(output).toContain("/dev/pts/0");
  });

  test("mounts, devices and a read-only root are what ctr asks for", () => {
    const bind = `type=bind,src=${host.directory},dst=/host,options=rbind:ro`;
    const flags = ["--read-only", "--mount", bind, "--device", "/dev/ptmx"];
    const report = seen(flags, ["--write", "/file", "x", "--write", "/host/file", "x"]);
    expect(report.actions.map(({ error }) => error)).toEqual(["EROFS", "EROFS"]);
    expect(report.devices.map(({ name }) => name)).toEqual(expect.arrayContaining(["null", "zero", "ptmx"]));
  });

  test("a container has namespaces of its own, the default capabilities and the default seccomp filter", () => {
    const report = seen(["--seccomp"]);
    for (const [name, inode] of Object.entries(report.namespaces).filter(([kind]) =>
      ["mnt", "pid", "net", "ipc", "uts"].includes(kind),
    ))
      expect(readlinkSync(`/proc/self/ns/${name}`)).not.toBe(`${name}:[${inode}]`);
    expect(report.capabilities.bounding).toBe("00000000a80425fb");
    expect(report.seccomp.mode).toBe(2);
  });

  test("--privileged and the host's network are the host's", () => {
    const report = seen(["--privileged", "--net-host"]);
    expect(report.seccomp.mode).toBe(0);
    expect(host.run(["readlink", "/proc/1/ns/net"]).stdout.trim()).toBe(`net:[${report.namespaces.net}]`);
  });
});
