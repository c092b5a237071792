import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { covers } from "../conformance/covers.ts";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  exec,
  idle,
  kill,
  type Outcome,
  runtime,
  seenIn,
  state,
  untilStopped,
} from "../support/bundle.ts";

// Mounts of a container that runs: crun's `mounts add` and `mounts remove`.

afterEach(cleanUp);
afterAll(cleanUpFile);

const DONE = { status: 0, stdout: "", stderr: "" };

function change(verb: string, { id }: Bundle, mounts: unknown): Outcome {
  return runtime(["mounts", verb, id, "-"], { input: JSON.stringify(mounts) });
}

/** Mount points of a process as the kernel tells them, with type and options. */
function mountsOf(pid: number): { [path: string]: string } {
  return Object.fromEntries(
    readFileSync(`/proc/${pid}/mounts`, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" "))
      .map(([, path = "", type = "", options = ""]) => [path, `${type} ${options}`]),
  );
}

test("what is added is there for the running process, and what is removed is not", () => {
  covers("mounts add");
  const bundle = idle();
  const { pid } = state(bundle);
  const before = mountsOf(pid);
  const own = readFileSync("/proc/self/mountinfo", "utf8");
  const source = join(bundle.path, "source");
  writeFileSync(source, "hello");
  const added = [
    { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "size=1m"] },
    { destination: "/tmp/file", type: "bind", source, options: ["bind", "ro"] },
  ];
  expect(change("add", bundle, added)).toEqual(DONE);
  const during = mountsOf(pid);
  expect(
    Object.keys(during)
      .filter((path) => before[path] === undefined)
      .sort(),
  ).toEqual(["/tmp", "/tmp/file"]);
  expect(during["/tmp"]).toMatch(/^tmpfs .*nosuid.*size=1024k/);
  expect(during["/tmp/file"]).toMatch(/ ro/);
  const seen = seenIn(exec(bundle, ["/bin/probe", "--read", "/tmp/file", "--write", "/tmp/file", "--write", "/tmp/x"]));
  expect(seen.actions.map(({ result, error }) => error ?? result)).toEqual(["hello", "EROFS", 6]);
  // the host's table shows none of it
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(own);
  expect(change("remove", bundle, added)).toEqual(DONE);
  expect(mountsOf(pid)).toEqual(before);
});

test("a paused container gets mounts, too, and one with a user namespace has them as its own", () => {
  const bundle = idle((spec) => {
    spec.linux.namespaces?.push({ type: "user" });
    spec.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
    spec.linux.gidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
    spec.mounts.push({ destination: "/tmp", type: "tmpfs", source: "tmpfs" });
  });
  const { pid } = state(bundle);
  const source = join(bundle.path, "source");
  writeFileSync(source, "hello");
  expect(runtime(["pause", bundle.id]).status).toBe(0);
  expect(
    change("add", bundle, [
      { destination: "/tmp/new", type: "tmpfs", source: "tmpfs" },
      { destination: "/tmp/mapped", type: "bind", source, options: ["bind", "idmap"] },
    ]),
  ).toEqual(DONE);
  expect(runtime(["resume", bundle.id]).status).toBe(0);
  expect(mountsOf(pid)["/tmp/new"]).toContain("uid=100000");
  const seen = seenIn(exec(bundle, ["/bin/probe", "--write", "/tmp/new/x", "--stat", "/tmp/mapped"]));
  expect(seen.actions[0]?.error).toBe(null);
  expect(seen.actions[1]?.result).toMatchObject({ uid: 0, gid: 0 });
});

test("a link of the container does not lead a mount out of its root", () => {
  const bundle = idle((spec) => {
    spec.root.readonly = false;
    spec.process.args = ["/bin/probe", "--sleep", "60"];
  });
  const { pid } = state(bundle);
  const made = exec(bundle, ["/bin/probe", "--syscall", "88", "/../../../tmp", "/out"]);
  expect(seenIn(made).actions[0]?.error).toBe(null);
  const own = readFileSync("/proc/self/mountinfo", "utf8");
  const added = [{ destination: "/out/here", type: "tmpfs", source: "tmpfs" }];
  expect(change("add", bundle, added)).toEqual(DONE);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(own);
  expect(mountsOf(pid)["/tmp/here"]).toMatch(/^tmpfs/);
});

test("what cannot be done is said with its reason, and changes nothing", () => {
  const bundle = idle();
  const { pid } = state(bundle);
  const before = mountsOf(pid);
  for (const [verb = "", mounts, says] of [
    ["add", [{ destination: "/tmp", type: "nosuchfs", source: "x" }], /ENODEV.*\/mounts\/0/],
    ["add", [{ destination: "/tmp", type: "bind", source: "/no/such", options: ["bind"] }], /ENOENT/],
    ["remove", [{ destination: "/tmp" }], /EINVAL|ENOENT/],
    ["remove", [{ destination: "/" }], /it is the root/],
    ["add", [{ source: "x" }], /\/0\/destination/],
    ["move", [], /use add or remove/],
  ] as const) {
    const { status, stderr } = change(verb, bundle, mounts);
    expect(status).toBe(1);
    expect(stderr).toMatch(says);
  }
  expect(mountsOf(pid)).toEqual(before);
  kill(bundle, "KILL");
  untilStopped(bundle);
  expect(change("add", bundle, [])).toMatchObject({ stderr: expect.stringContaining("container not running") });
});
