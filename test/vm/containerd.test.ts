import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Containerd } from "../clients/containerd.ts";
import { until } from "../support/bundle.ts";

// containerd's checkpoints, which its shim asks our runtime for: images of a task alone, and a container that is made
// anew of its image, its layer and its memory.

let containerd: Containerd;

beforeAll(async () => {
  containerd = await Containerd.start();
});
afterEach(() => containerd.removeAll());
afterAll(() => containerd?.close());

/** Counts in a variable of its shell's, and writes down each number. */
const COUNT = "n=0; while :; do n=$((n + 1)); echo $n >>/counted; usleep 50000; done";

function counting(): { id: string; pid: number } {
  const id = containerd.fresh();
  containerd.succeeds(containerd.run(id, ["--detach"], "sh", "-c", COUNT));
  const pid = pidOf(id);
  until("it counts", () => counted(pid).length > 3);
  return { id, pid };
}

const pidOf = (id: string) => containerd.task(id)?.pid ?? 0;
/** What the kernel says of a container's first process. */
const ofProcess = (pid: number, name: string) => containerd.host.path(`/proc/${pid}/${name}`);

/** All numbers, as they are in the root of a container's first process. */
function counted(pid: number): number[] {
  const file = ofProcess(pid, "root/counted");
  return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").map(Number) : [];
}

/** That it has counted on since, and left nothing out, nor begun anew. */
function expectGoesOn(pid: number, since: number): void {
  until("it counts on", () => counted(pid).length > since + 3);
  const numbers = counted(pid);
  expect(numbers).toEqual(numbers.map((_, at) => at + 1));
}

test("a task is written down while it runs on, and ends with a checkpoint that asks for it", () => {
  const { id, pid } = counting();
  const [first, last] = [containerd.file("first"), containerd.file("last")];
  containerd.succeeds(["task", "checkpoint", "--image-path", first, id]);
  expect(existsSync(join(first, "inventory.img"))).toBe(true);
  expect(containerd.task(id)).toEqual({ pid, status: "RUNNING" });
  expectGoesOn(pid, counted(pid).length);
  containerd.succeeds(["task", "checkpoint", "--exit", "--image-path", last, id]);
  expect(existsSync(join(last, "inventory.img"))).toBe(true);
  until("its process has ended", () => !existsSync(ofProcess(pid, "stat")));
  until("its shim knows", () => containerd.task(id)?.status === "STOPPED");
  expect(containerd.host.cgroups()).toEqual([]);
});

test("a container that was removed is restored, and goes on where it was", () => {
  const { id, pid: before } = counting();
  const command = readFileSync(ofProcess(before, "cmdline"), "utf8");
  containerd.succeeds(["container", "checkpoint", "--rw", "--image", "--task", id, "moment"]);
  const since = counted(before).length;
  containerd.removeAll();
  const other = containerd.fresh();
  containerd.succeeds(["container", "restore", "--rw", "--live", other, "moment"]);
  const pid = pidOf(other);
  expect(containerd.task(other)).toEqual({ pid, status: "RUNNING" });
  expect(readFileSync(ofProcess(pid, "cmdline"), "utf8")).toBe(command);
  // its definition is the first one's, and so is its cgroup
  expect(readFileSync(ofProcess(pid, "cgroup"), "utf8")).toBe(`0::${containerd.host.cgroupParent}/${id}\n`);
  // what it wrote behind the checkpoint's back is not in its layer
  expect(counted(pid).length).toBeGreaterThan(3);
  expectGoesOn(pid, Math.min(counted(pid).length, since));
  // it is ours: the shim restored it by our runtime
  const runtime = containerd.host.runtimeCalled("caisson-runtime");
  const { stdout } = containerd.host.run([runtime, "--root", "/run/containerd/runc/default", "list", "--quiet"]);
  expect(stdout).toBe(`${other}\n`);
});
