import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  exec,
  idle,
  kill,
  makeBundle,
  remove,
  runtime,
  start,
  startContainer,
  startRuntime,
  state,
  stateRoot,
  until,
  untilStopped,
} from "../support/bundle.ts";
import { directoryOf, read } from "../support/cgroup.ts";

// What is stopped in its tracks can still be looked at, ended and removed; nobody waits for it without end.

afterEach(cleanUp);
afterAll(cleanUpFile);

/** Whether the kernel has every process of the container frozen, by either version. */
function frozen(pid: number): boolean {
  const unified = readFileSync(`/proc/${pid}/cgroup`, "utf8")
    .split("\n")
    .find((line) => line.startsWith("0::"))
    ?.slice(3);
  const events = `/sys/fs/cgroup/unified${unified}/cgroup.events`;
  if (existsSync(events) && readFileSync(events, "utf8").includes("frozen 1")) return true;
  return existsSync("/sys/fs/cgroup/freezer") && read(directoryOf(pid, "freezer"), "freezer.state") === "FROZEN";
}

function pause({ id }: Bundle): void {
  expect(runtime(["pause", id])).toEqual({ status: 0, stdout: "", stderr: "" });
}

test("pause stops every process, and resume lets them go on", () => {
  covers("pause");
  const bundle = idle();
  const { pid } = state(bundle);
  expect(frozen(pid)).toBe(false);
  pause(bundle);
  expect(frozen(pid)).toBe(true);
  expect(state(bundle)).toMatchObject({ status: "paused", pid });
  expect(runtime(["list"]).stdout).toMatch(new RegExp(`${bundle.id} +${pid} +paused`));
  expect(runtime(["pause", bundle.id])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("container not running"),
  });
  expect(runtime(["resume", bundle.id])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(frozen(pid)).toBe(false);
  expect(state(bundle).status).toBe("running");
  expect(runtime(["resume", bundle.id])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("container not paused"),
  });
});

test("a paused container can be killed", () => {
  const bundle = idle();
  const { pid } = state(bundle);
  pause(bundle);
  // whatever else is sent waits for it to be resumed
  expect(kill(bundle, "TERM")).toMatchObject({ status: 0, stderr: "" });
  expect(alive(pid)).toBe(true);
  expect(kill(bundle, "KILL")).toMatchObject({ status: 0, stderr: "" });
  untilStopped(bundle);
  expect(remove(bundle)).toEqual({ status: 0, stdout: "", stderr: "" });
});

test("a paused container can be deleted by force, and by force alone", () => {
  const bundle = idle();
  const { pid } = state(bundle);
  pause(bundle);
  expect(remove(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining("that is not stopped: paused") });
  expect(remove(bundle, "--force")).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(alive(pid)).toBe(false);
  expect(remove(bundle, "--force")).toEqual({ status: 0, stdout: "", stderr: "" });
});

test.for(["kill", "delete"])("what somebody else froze by version 1 can be ended by %s", (verb, { skip }) => {
  skip(!existsSync("/sys/fs/cgroup/freezer"), "needs the freezer of cgroup version 1");
  const bundle = idle();
  const { pid } = state(bundle);
  writeFileSync(`${directoryOf(pid, "freezer")}/freezer.state`, "FROZEN");
  expect(state(bundle).status).toBe("paused");
  if (verb === "kill") {
    expect(kill(bundle, "KILL")).toMatchObject({ status: 0, stderr: "" });
    untilStopped(bundle);
  }
  expect(remove(bundle, "--force")).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(alive(pid)).toBe(false);
});

test("a container that is paused before it was started is not started", () => {
  const bundle = makeBundle();
  expect(create(bundle).status).toBe(0);
  pause(bundle);
  expect(state(bundle).status).toBe("paused");
  expect(start(bundle)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("cannot start a container in the paused state"),
  });
  expect(runtime(["resume", bundle.id]).status).toBe(0);
  expect(state(bundle).status).toBe("created");
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
});

test("exec in a paused container is refused, or waits for it to be resumed if asked to", () => {
  covers("exec --ignore-paused");
  const bundle = idle();
  pause(bundle);
  expect(exec(bundle, ["/bin/probe", "--exit", "7"])).toMatchObject({
    status: 255,
    stderr: expect.stringContaining("exec failed: cannot exec in a paused container (use --ignore-paused to override)"),
  });
  const pidFile = join(bundle.path, "exec-pid");
  const waiting = startRuntime(
    ["exec", "--ignore-paused", "--pid-file", pidFile, bundle.id, "/bin/probe", "--exit", "7"],
    {},
  );
  until("it is in there", () => JSON.parse(runtime(["ps", "--format", "json", bundle.id]).stdout).length === 2);
  expect(alive(waiting.pid ?? 0)).toBe(true);
  expect(runtime(["resume", bundle.id]).status).toBe(0);
  until("it has ended", () => !alive(waiting.pid ?? 0));
  expect(existsSync(pidFile)).toBe(true);
});

test("whoever waits to be let into a paused container can be killed, and nothing of it stays", () => {
  const bundle = idle();
  const { pid } = state(bundle);
  pause(bundle);
  const waiting = startRuntime(["exec", "--ignore-paused", bundle.id, "/bin/probe", "--sleep", "60"]);
  const members = () => JSON.parse(runtime(["ps", "-f", "json", bundle.id]).stdout);
  until("it is in there", () => members().length === 2);
  waiting.kill("SIGKILL");
  until("it has gone", () => !alive(waiting.pid ?? 0));
  expect(runtime(["resume", bundle.id]).status).toBe(0);
  until("only the container's own process is left", () => members().length === 1);
  expect(members()).toEqual([pid]);
});

test("deletion by force does not wait for a start that does not end", () => {
  const bundle = makeBundle(
    (spec) => {
      spec.hooks = { startContainer: [{ path: "/bin/sleep", args: ["sleep", "60"] }] };
    },
    { root: "shell" },
  );
  expect(create(bundle).status).toBe(0);
  const { pid } = state(bundle);
  const starting = startRuntime(["start", bundle.id]);
  until("the hook runs", () => state(bundle).status === "running");
  expect(remove(bundle, "--force")).toEqual({ status: 0, stdout: "", stderr: "" });
  until("start has ended", () => !alive(starting.pid ?? 0));
  expect(alive(pid)).toBe(false);
  expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
});

test("kill --all reaches every process, and is content when there is none", () => {
  covers("kill --all");
  const bundle = makeBundle(
    (spec) => {
      spec.process.args = ["/bin/sh", "-c", "sleep 50 & sleep 60 & wait"];
    },
    { root: "shell" },
  );
  startContainer(bundle);
  const members = () => JSON.parse(runtime(["ps", "-f", "json", bundle.id]).stdout) ?? [];
  until("both sleep", () => members().length === 3);
  // the first process of a pid namespace ignores what it has no handler for; its children do not
  expect(runtime(["kill", "--all", bundle.id, "TERM"])).toEqual({ status: 0, stdout: "", stderr: "" });
  untilStopped(bundle);
  expect(runtime(["kill", "--all", bundle.id, "TERM"])).toEqual({ status: 0, stdout: "", stderr: "" });
});

test("without a pid namespace SIGKILL ends every process", () => {
  const bundle = makeBundle(
    (spec) => {
      spec.linux.namespaces = (spec.linux.namespaces ?? []).filter(({ type }) => type !== "pid");
      spec.mounts = spec.mounts.filter(({ type }) => type !== "proc");
      spec.linux.maskedPaths = [];
      spec.linux.readonlyPaths = [];
      spec.process.args = ["/bin/sh", "-c", "sleep 50 & sleep 60 & wait"];
    },
    { root: "shell" },
  );
  startContainer(bundle);
  const members = (): number[] => JSON.parse(runtime(["ps", "-f", "json", bundle.id]).stdout) ?? [];
  until("both sleep", () => members().length === 3);
  const pids = members();
  expect(kill(bundle, "KILL")).toMatchObject({ status: 0, stderr: "" });
  until("all have ended", () => pids.every((pid) => !alive(pid)));
});

test("processes that fork on and on are killed by one write, where the kernel has it", ({ skip }) => {
  covers("cgroup.kill");
  const bundle = makeBundle(
    (spec) => {
      spec.linux.namespaces = (spec.linux.namespaces ?? []).filter(({ type }) => type !== "pid");
      spec.mounts = spec.mounts.filter(({ type }) => type !== "proc");
      spec.linux.maskedPaths = [];
      spec.linux.readonlyPaths = [];
      spec.linux.resources = { pids: { limit: 40 } };
      // each is replaced by its child before anybody has read of it
      const chain = 'sh -c "$0" "$0" & exit';
      spec.process.args = ["/bin/sh", "-c", `for i in 1 2 3 4; do sh -c '${chain}' '${chain}' & done; sleep 60`];
    },
    { root: "shell" },
  );
  startContainer(bundle);
  const { pid } = state(bundle);
  const unified = readFileSync(`/proc/${pid}/cgroup`, "utf8").match(/^0::(\/.+)$/m)?.[1];
  const cgroup = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
    .map((mount) => `${mount}${unified}`)
    .find((path) => existsSync(`${path}/cgroup.kill`));
  skip(cgroup === undefined, "needs a cgroup of version 2, and Linux 5.14");
  const log = join(bundle.path, "strace");
  const witness = ["strace", "-f", "-qq", "-y", "-e", "trace=write,kill,pidfd_send_signal", "-o", log];
  expect(runtime(["kill", bundle.id, "KILL"], { through: witness })).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(log, "utf8")).toMatch(/write\(\d+<[^>]*\/cgroup\.kill>, "1"/);
  until("the cgroup is empty", () => readFileSync(`${cgroup}/cgroup.events`, "utf8").includes("populated 0"));
  expect(alive(pid)).toBe(false);
});
