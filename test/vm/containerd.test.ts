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

function counting(): string {
  const id = containerd.fresh();
  containerd.succeeds(containerd.run(id, ["--detach"], "sh", "-c", COUNT));
  until("it counts", () => counted(id).length > 3);
  return id;
}

const pidOf = (id: string) => containerd.task(id)?.pid ?? 0;
/** What the kernel says of a container's first process. */
const ofProcess = (pid: number, name: string) => containerd.host.path(`/proc/${pid}/${name}`);

/** All numbers, as they are in the root of a container's first process. */
function counted(id: string): number[] {
  const file = ofProcess(pidOf(id), "root/counted");
  return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").map(Number) : [];
}

/** That it has counted on since, and left nothing out, nor begun anew. */
function expectGoesOn(id: string, since: number): void {
  until("it counts on", () => counted(id).length > since + 3);
  const numbers = counted(id);
  expect(numbers).toEqual(numbers.map((_, at) => at + 1));
}

test("a task is written down while it runs on, and ends with a checkpoint that asks for it", () => {
  const id = counting();
  const pid = pidOf(id);
  const [first, last] = [containerd.file("first"), containerd.file("last")];
  containerd.succeeds(["task", "checkpoint", "--image-path", first, id]);
  expect(existsSync(join(first, "inventory.img"))).toBe(true);
  expect(containerd.task(id)).toEqual({ pid, status: "RUNNING" });
  expectGoesOn(id, counted(id).length);
  containerd.succeeds(["task", "checkpoint", "--exit", "--image-path", last, id]);
  expect(existsSync(join(last, "inventory.img"))).toBe(true);
  until("its process has ended", () => !existsSync(ofProcess(pid, "stat")));
  until("its shim knows", () => containerd.task(id)?.status === "STOPPED");
  expect(containerd.host.cgroups()).toEqual([]);
});

test("a container that was removed is restored, and goes on where it was", () => {
  const id = counting();
  const command = readFileSync(ofProcess(pidOf(id), "cmdline"), "utf8");
  containerd.succeeds(["container", "checkpoint", "--rw", "--image", "--task", id, "moment"]);
  const since = counted(id).length;
  containerd.removeAll();
  const other = containerd.fresh();
  containerd.succeeds(["container", "restore", "--rw", "--live", other, "moment"]);
  const pid = pidOf(other);
  expect(containerd.task(other)).toEqual({ pid, status: "RUNNING" });
  expect(readFileSync(ofProcess(pid, "cmdline"), "utf8")).toBe(command);
  // its definition is the first one's, and so is its cgroup
  expect(readFileSync(ofProcess(pid, "cgroup"), "utf8")).toBe(`0::${containerd.host.cgroupParent}/${id}\n`);
  // what it wrote behind the checkpoint's back is not in its layer
  expect(counted(other).length).toBeGreaterThan(3);
  expectGoesOn(other, Math.min(counted(other).length, since));
  // it is ours: the shim restored it by our runtime
  const runtime = containerd.host.runtimeCalled("caisson-runtime");
  const { stdout } = containerd.host.run([runtime, "--root", "/run/containerd/runc/default", "list", "--quiet"]);
  expect(stdout).toBe(`${other}\n`);
});
