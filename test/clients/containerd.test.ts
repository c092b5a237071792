import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { until } from "../support/bundle.ts";
import { lastLine } from "../support/engine.ts";
import type { Seen } from "../support/seen.ts";
import { Containerd } from "./containerd.ts";
import { missing } from "./private-host.ts";

const absent = missing(["containerd", "containerd"], ["ctr", "containerd"]);
if (absent !== undefined) console.warn(`containerd's tests are skipped: ${absent}`);

let containerd: Containerd;

/** A container that does nothing. @returns its id */
function idle(...flags: string[]): string {
  const id = containerd.fresh();
  containerd.succeeds(containerd.run(id, ["--detach", ...flags], "sleep", "1000"));
  return id;
}

function seen(flags: string[], actions: string[] = []): Seen {
  return lastLine(
    containerd.succeeds(containerd.run(containerd.fresh(), ["--rm", ...flags], "/bin/probe", ...actions)),
  );
}

function cgroupFile(id: string, hierarchy: string, name: string): string {
  return readFileSync(`/sys/fs/cgroup/${hierarchy}${containerd.host.cgroupParent}/${id}/${name}`, "utf8").trim();
}

/** Whether the kernel has frozen a container, by whichever version's freezer. */
function isFrozen(id: string): boolean {
  const events = cgroupFile(id, "unified", "cgroup.events");
  return /^frozen 1$/m.test(events) || cgroupFile(id, "freezer", "freezer.state") === "FROZEN";
}

describe.skipIf(absent !== undefined)("containerd", { timeout: 60_000 }, () => {
  beforeAll(async () => {
    containerd = await Containerd.start();
  });

  afterEach(() => containerd.removeAll());

  afterAll(() => containerd?.close());

  test("a container's output and exit status are the command's", () => {
    const ended = containerd.ctr(
      containerd.run(containerd.fresh(), ["--rm"], "sh", "-c", "echo out; echo err >&2; exit 7"),
    );
    expect(ended).toEqual({ status: 7, stdout: "out\n", stderr: "err\n" });
  });

  test("a command that is not there is told in runc's words, in run and in exec", () => {
    const message = 'unable to start container process: exec: "nosuch": executable file not found in $PATH';
    const ended = containerd.ctr(containerd.run(containerd.fresh(), ["--rm"], "nosuch"));
    expect({ status: ended.status, stdout: ended.stdout }).toEqual({ status: 1, stdout: "" });
    expect(ended.stderr).toMatch(/OCI runtime create failed: /);
    expect(ended.stderr).toContain(message);
    const inside = containerd.ctr(["task", "exec", "--exec-id", "e", idle(), "nosuch"]);
    expect(inside.status).toBe(1);
    expect(inside.stderr).toMatch(/OCI runtime exec failed: /);
    expect(inside.stderr).toContain(message);
  });

  test("exec has the container's namespaces and its own status, output and input", () => {
    const id = idle();
    const ended = containerd.ctr([
      "task",
      "exec",
      "--exec-id",
      "one",
      "--cwd",
      "/tmp",
      id,
      "/bin/probe",
      "--exit",
      "9",
    ]);
    expect(ended.status).toBe(9);
    const report = lastLine(ended.stdout);
    const { pid } = containerd.task(id) ?? {};
    for (const name of ["pid", "mnt", "net", "ipc", "uts"] as const)
      expect(readlinkSync(containerd.host.path(`/proc/${pid}/ns/${name}`))).toBe(
        `${name}:[${report.namespaces[name]}]`,
      );
    expect(report.cwd).toBe("/tmp");
    expect(containerd.ctr(["task", "exec", "--exec-id", "three", id, "cat"], "typed\n")).toEqual({
      status: 0,
      stdout: "typed\n",
      stderr: "",
    });
  });

  test("pause freezes the container's processes, and resume lets them go on", () => {
    const id = idle();
    containerd.succeeds(["task", "pause", id]);
    expect(isFrozen(id)).toBe(true);
    expect(containerd.task(id)?.status).toBe("PAUSED");
    containerd.succeeds(["task", "resume", id]);
    expect(isFrozen(id)).toBe(false);
    expect(containerd.task(id)?.status).toBe("RUNNING");
  });

  test("ps lists the container's processes, by the pids of containerd's namespace", () => {
    const id = idle();
    const lines = containerd.succeeds(["task", "ps", id]).split("\n").slice(1);
    expect(lines.map((line) => Number.parseInt(line, 10))).toEqual([containerd.task(id)?.pid]);
    expect(readFileSync(containerd.host.path(`/proc/${containerd.task(id)?.pid}/comm`), "utf8")).toBe("sleep\n");
  });

  test("metrics are the cgroup's, and limits are in it", () => {
    const id = idle("--memory-limit", String(64 << 20), "--cpus", "0.5");
    const { memory, pids } = JSON.parse(containerd.succeeds(["task", "metrics", "--format", "json", id]));
    expect({ limit: memory.usage.limit, pids: pids.current }).toEqual({ limit: 64 << 20, pids: 1 });
    expect(cgroupFile(id, "memory", "memory.limit_in_bytes")).toBe(String(64 << 20));
    expect(cgroupFile(id, "cpu", "cpu.cfs_quota_us")).toBe("50000");
  });

  test("kill sends the signal that is asked for; delete then removes what has ended", () => {
    const id = idle();
    const { pid = 0 } = containerd.task(id) ?? {};
    containerd.succeeds(["task", "kill", "--signal", "SIGKILL", id]);
    until("it has ended", () => containerd.task(id)?.status === "STOPPED");
    expect(existsSync(containerd.host.path(`/proc/${pid}`))).toBe(false);
    expect(containerd.ctr(["task", "delete", id]).stderr).toContain("exit code 137");
    expect(containerd.task(id)).toBeUndefined();
    expect(containerd.host.cgroups()).toEqual([]);
  });

  test("delete --force ends what still runs", () => {
    const id = idle();
    const { pid = 0 } = containerd.task(id) ?? {};
    expect(containerd.ctr(["task", "rm", "--force", id]).status).toBe(0);
    expect(existsSync(containerd.host.path(`/proc/${pid}`))).toBe(false);
    expect(containerd.task(id)).toBeUndefined();
  });

  test("kill --all reaches every process of the container", () => {
    const id = idle();
    expect(containerd.ctr(["task", "exec", "--detach", "--exec-id", "more", id, "sleep", "999"]).status).toBe(0);
    until("both run", () => cgroupFile(id, "pids", "pids.current") === "2");
    containerd.succeeds(["task", "kill", "--all", "--signal", "SIGKILL", id]);
    until("both have ended", () => cgroupFile(id, "pids", "pids.current") === "0");
  });

  test("a terminal has the size of the client's, and hands on what is typed", () => {
    const { status, output } = containerd.host.atTerminal(
      containerd.commandLine(containerd.run(containerd.fresh(), ["--rm", "--tty", "--env", "PS1=> "], "sh")),
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
    const bind = `type=bind,src=${containerd.host.directory},dst=/host,options=rbind:ro`;
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
    expect(containerd.host.run(["readlink", "/proc/1/ns/net"]).stdout.trim()).toBe(`net:[${report.namespaces.net}]`);
  });
});
