import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  idle,
  makeBundle,
  outputOf,
  runtime,
  startRuntime,
  state,
  stateRoot,
  states,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// Checkpoint and restore are criu's work; what we ask it for, and what becomes of its answer, is ours.

afterEach(cleanUp);
afterAll(cleanUpFile);

/** A program in criu's place, which writes down how it was called. */
function standIn({ path }: Bundle, script: string): { criu: string; calledWith: () => string[] } {
  const criu = join(path, "criu");
  const words = join(path, "words");
  writeFileSync(criu, `#!/bin/sh\nfor word; do echo "$word"; done > ${words}\n${script}\n`);
  chmodSync(criu, 0o755);
  return { criu, calledWith: () => readFileSync(words, "utf8").trimEnd().split("\n") };
}

test("checkpoint asks criu for what its flags say, and removes the container when it is done", () => {
  covers("checkpoint flags", "--criu");
  const bundle = idle((spec) => {
    spec.mounts.push({ destination: "/tmp/bound", type: "bind", source: "/etc/hostname", options: ["bind"] });
    spec.mounts.push({ destination: "/tmp", type: "tmpfs", source: "tmpfs" });
    spec.mounts.reverse();
    spec.mounts.sort((one, other) => one.destination.length - other.destination.length);
  });
  const { pid } = state(bundle);
  const images = join(bundle.path, "images");
  const { criu, calledWith } = standIn(bundle, "exit 0");
  const flags = ["--image-path", images, "--work-path", join(bundle.path, "logs"), "--tcp-established", "--shell-job"];
  const more = ["--file-locks", "--ext-unix-sk", "--manage-cgroups-mode", "full", "--page-server", "[::1]:99"];
  expect(runtime(["--criu", criu, "checkpoint", ...flags, ...more, bundle.id])).toEqual({
    status: 0,
    stdout: "",
    stderr: "",
  });
  expect(calledWith()[0]).toBe("dump");
  expect(calledWith()).toEqual(
    expect.arrayContaining([
      ...[
        "--tree",
        String(pid),
        "--images-dir",
        images,
        "--work-dir",
        join(bundle.path, "logs"),
        "--root",
        bundle.rootfs,
      ],
      ...["--tcp-established", "--shell-job", "--file-locks", "--ext-unix-sk", "--manage-cgroups=full"],
      ...["--page-server", "--address", "::1", "--port", "99", "--empty-ns", "net"],
      "--external=mnt[/tmp/bound]:/tmp/bound",
      "--external=mnt[/proc/keys]:/proc/keys",
    ]),
  );
  expect(JSON.parse(readFileSync(join(images, "descriptors.json"), "utf8"))).toHaveLength(3);
  expect(alive(pid)).toBe(false);
  const unit = runtime(["--systemd-cgroup", "restore", "--image-path", images, "--bundle", bundle.path, bundle.id]);
  expect(unit).toMatchObject({ status: 1, stderr: expect.stringContaining("unit of systemd's") });
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
});

test("a container that is to run on does, and a pre-dump leaves it alone", () => {
  const bundle = idle();
  const images = join(bundle.path, "images");
  const { criu, calledWith } = standIn(bundle, "exit 0");
  const common = ["--criu", criu, "checkpoint", "--image-path", images];
  expect(runtime([...common, "--pre-dump", bundle.id]).status).toBe(0);
  expect(calledWith()).toEqual(expect.arrayContaining(["pre-dump", "--track-mem"]));
  expect(runtime([...common, "--leave-running", bundle.id]).status).toBe(0);
  expect(calledWith()).toContain("--leave-running");
  expect(state(bundle).status).toBe("running");
});

describe("a container that is run in the foreground is removed once,", () => {
  const atWork = () => {
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--sleep", "60"];
    });
    const output = outputOf(bundle);
    const foreground = startRuntime(["run", "--bundle", bundle.path, bundle.id], { output });
    const ended = new Promise((resolve) => foreground.once("exit", resolve));
    until("it runs", () => states().includes(bundle.id) && state(bundle).status === "running");
    const said = () => readFileSync(output, "utf8");
    return { bundle, foreground, ended, said, ends: `kill -KILL ${state(bundle).pid}` };
  };
  const checkpoint = ({ id, path }: Bundle, criu: string) =>
    runtime(["--criu", criu, "checkpoint", "--image-path", join(path, "images"), id]);

  test("also when whoever ran it is faster than the checkpoint", async () => {
    const { bundle, ended, said, ends } = atWork();
    const { criu } = standIn(bundle, `${ends}; while [ -e ${stateRoot()}/${bundle.id} ]; do :; done`);
    expect(checkpoint(bundle, criu)).toEqual({ status: 0, stdout: "", stderr: "" });
    expect({ status: await ended, said: said() }).toEqual({ status: 137, said: "" });
  });

  test("also when the checkpoint is faster", async () => {
    const { bundle, foreground, ended, said, ends } = atWork();
    const { criu } = standIn(bundle, `kill -STOP ${foreground.pid}; ${ends}`);
    expect(checkpoint(bundle, criu)).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(states()).toEqual([]);
    foreground.kill("SIGCONT");
    expect({ status: await ended, said: said() }).toEqual({ status: 137, said: "" });
  });
});

test("when criu fails, its own reason is told, and all is as it was", () => {
  const bundle = idle();
  const images = join(bundle.path, "images");
  const { criu } = standIn(bundle, `echo "(00.1) Error (criu/x.c:1): vdso: too new" > ${images}/dump.log; exit 1`);
  const failed = runtime(["--criu", criu, "checkpoint", "--image-path", images, bundle.id]);
  expect(failed.status).toBe(1);
  expect(failed.stderr).toContain(`criu failed: type DUMP errno 0\\nlog file: ${images}/dump.log: vdso: too new`);
  expect(state(bundle).status).toBe("running");
  expect(runtime(["--criu", "/no/such/criu", "checkpoint", "--image-path", images, bundle.id]).stderr).toContain(
    "install criu",
  );
});

test("only what runs can be checkpointed, and with flags that make sense", () => {
  const created = makeBundle();
  expect(create(created).status).toBe(0);
  expect(runtime(["checkpoint", created.id])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("Container cannot be checkpointed in created state"),
  });
  for (const [flags, says] of [
    [["--manage-cgroups-mode", "odd"], "Invalid manage-cgroups-mode value"],
    [["--empty-ns", "user"], 'namespace \\"user\\" is not supported'],
    [["--parent-path", "/absolute"], "--parent-path must be relative"],
    [["--parent-path", "absent"], "invalid --parent-path"],
    [["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT"],
    [["--page-server", "host:many"], "Invalid port number"],
  ] as const)
    expect(runtime(["checkpoint", ...flags, created.id])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(says),
    });
});

test("restore gives criu a root and cgroups, and takes its process for the container's", () => {
  covers("restore flags");
  const source = idle();
  const images = join(source.path, "images");
  expect(
    runtime(["--criu", standIn(source, "exit 0").criu, "checkpoint", "--image-path", images, source.id]).status,
  ).toBe(0);
  // in the restored process's place: one that sleeps, with its pid where criu would write it
  const { criu, calledWith } = standIn(
    source,
    'while [ $# -gt 0 ]; do [ "$1" = --pidfile ] && file=$2; [ "$1" = --root ] && root=$2; shift; done\n' +
      'test -x "$root/bin/probe" || exit 9\nsleep 60 < /dev/null > /dev/null 2>&1 3>&- &\necho $! > "$file"',
  );
  const pidFile = join(source.path, "pid");
  const words = ["--criu", criu, "restore", "--detach", "--image-path", images, "--bundle", source.path];
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  expect(runtime([...words, "--pid-file", pidFile, source.id])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(calledWith()).toEqual(
    expect.arrayContaining(["restore", "--restore-detached", "--restore-sibling", "--images-dir", images]),
  );
  expect(calledWith().filter((word) => word.startsWith("--cgroup-root="))[0]).toContain(`/${source.id}`);
  expect(state(source)).toMatchObject({ status: "running", pid: Number(readFileSync(pidFile, "utf8")) });
  expect(cgroupDirectories().some((path) => path.endsWith(`/${source.id}`))).toBe(true);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts);
});

test("pipes that the checkpoint cut off are ours in their places, and criu's own complaints are in none of them", () => {
  const bundle = makeBundle();
  const keys = ["pipe:[10]", "pipe:[11]", "pipe:[12]"];
  writeFileSync(join(bundle.path, "descriptors.json"), JSON.stringify(keys));
  const { criu } = standIn(
    bundle,
    `for word; do case $word in --inherit-fd=*) key=\${word#*]:} word=\${word#*[}; echo "$key" >&\${word%%]*};; esac; done
    echo complaint >&2; exit 1`,
  );
  const streams = ["0", "1", "2"].map((name) => join(bundle.path, name));
  const through = ["sh", "-c", `"$@" 0<>${streams[0]} 1>${streams[1]} 2>${streams[2]}`, "sh"];
  expect(
    runtime(["--criu", criu, "restore", "--image-path", bundle.path, "--bundle", bundle.path, bundle.id], { through })
      .status,
  ).toBe(1);
  const [first = "", second = "", third = ""] = streams.map((path) => readFileSync(path, "utf8"));
  expect([first, second]).toEqual(keys.slice(0, 2).map((key) => `${key}\n`));
  expect(third).toMatch(/^pipe:\[12\]\n.*criu failed/);
  expect(third).not.toContain("complaint");
});

test("a restore that fails leaves nothing", () => {
  const bundle = makeBundle();
  const images = bundle.path;
  const { criu } = standIn(bundle, "echo 'Error (criu/y.c:2): no images' >&2; exit 1");
  const failed = runtime(["--criu", criu, "restore", "--image-path", images, "--bundle", bundle.path, bundle.id]);
  expect(failed).toMatchObject({ status: 1, stderr: expect.stringMatching(/type RESTORE.*no images/) });
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
  expect(cgroupDirectories().filter((path) => path.endsWith(`/${bundle.id}`))).toEqual([]);
});

test("the criu of this machine checkpoints, or says why it cannot", () => {
  const bundle = idle();
  const images = join(bundle.path, "images");
  const { status, stderr } = runtime(["checkpoint", "--image-path", images, bundle.id]);
  if (status === 0) expect(existsSync(join(images, "inventory.img"))).toBe(true);
  else expect(stderr).toMatch(/criu failed: type DUMP errno 0\\nlog file: [^:]*dump\.log: .+|install criu/);
});
