import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { parseMountinfo } from "../../src/linux/mountinfo.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  makeBundle,
  remove,
  runtime,
  scratchDirectory,
  start,
  startPiped,
  startRuntime,
  state,
  states,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";
import { CGROUPS, directoryOf, read } from "./effects.ts";

// Checkpoint and restore with the criu of the guest's release: the program goes on with what only its memory knew.

afterEach(cleanUp);
afterAll(cleanUpFile);

interface Counting extends Bundle {
  images: string;
  /** All that it has counted yet. */
  counted: () => number[];
}

/** A container that counts in a variable of its shell's, writes down each number, and ends by SIGTERM with 7. */
function counting(output = "/dev/null"): Counting {
  const bundle = makeBundle(
    (spec) => {
      spec.root.readonly = false;
      spec.linux.resources = { pids: { limit: 20 }, memory: { limit: 64 << 20 } };
      const count = "n=0; while :; do n=$((n + 1)); echo $n >>/counted; usleep 50000; done";
      spec.process.args = ["/bin/sh", "-c", `trap "exit 7" TERM; ${count}`];
    },
    { root: "shell" },
  );
  const through = ["sh", "-c", `exec "$@" >${output} 2>&1`, "sh"];
  expect(create(bundle, { through })).toMatchObject({ status: 0, stderr: "" });
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
  const file = join(bundle.rootfs, "counted");
  const counted = () => (existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").map(Number) : []);
  until("it counts", () => counted().length > 3);
  return { ...bundle, images: join(bundle.path, "images"), counted };
}

function checkpoint({ id, images }: Pick<Counting, "id" | "images">, ...flags: string[]) {
  return runtime(["checkpoint", "--image-path", images, "--work-path", images, ...flags, id]);
}

const restoreWords = ({ id, path, images }: Bundle & { images: string }) => [
  "restore",
  "--image-path",
  images,
  "--bundle",
  path,
  id,
];

/** That it has counted on since, and left nothing out, nor begun anew. */
function expectGoesOn({ counted }: Counting, since: number): void {
  until("it counts on", () => counted().length > since + 3);
  const numbers = counted();
  expect(numbers).toEqual(numbers.map((_, at) => at + 1));
}

/** What the kernel says of a process that a restore must make again. */
function view(pid: number) {
  const file = (name: string) => readFileSync(`/proc/${pid}/${name}`, "utf8");
  const status = file("status").split("\n");
  return {
    cgroup: directoryOf(pid),
    limits: ["pids.max", "memory.max"].map((name) => read(pid, name)),
    command: file("cmdline"),
    privileges: status
      .filter((line) => /^(Uid|Gid|Groups|Cap\w+|NoNewPrivs|Seccomp|NSpid):/.test(line))
      .map(
        // it has another pid outside
        (line) => line.replace(/^(NSpid:\s+)\d+/, "$1"),
      ),
    mounts: file("mountinfo")
      .trim()
      .split("\n")
      .map((line) => line.split(" ")[4] ?? "")
      .sort(),
  };
}

/** What the machine's cgroups are mounted with: criu would have them forgotten, for all. */
function unifiedOptions(): readonly string[] | undefined {
  return parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")).find(({ type }) => type === "cgroup2")
    ?.superOptions;
}

test("a container that was checkpointed is gone, and restored it goes on where it was", () => {
  const container = counting();
  const before = state(container);
  const seen = view(before.pid);
  const options = unifiedOptions();
  expect(options).toContain("nsdelegate");
  expect(checkpoint(container)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(unifiedOptions()).toEqual(options);
  expect(alive(before.pid)).toBe(false);
  expect(states()).toEqual([]);
  expect(cgroupDirectories().filter((path) => path.includes(container.id))).toEqual([]);
  const stopped = container.counted().length;
  expect(runtime(restoreWords(container).toSpliced(1, 0, "--detach"))).toEqual({ status: 0, stdout: "", stderr: "" });
  const after = state(container);
  expect(after).toMatchObject({ status: "running", bundle: container.path });
  expectGoesOn(container, stopped);
  expect(view(after.pid)).toEqual(seen);
  expect(unifiedOptions()).toEqual(options);
  expect(seen.cgroup).toBe(`${CGROUPS}/${container.id}`);
  expect(remove(container, "--force")).toMatchObject({ status: 0, stderr: "" });
  expect(alive(after.pid)).toBe(false);
  expect(cgroupDirectories().filter((path) => path.includes(container.id))).toEqual([]);
});

test("a container that is to run on does, and its images are of the moment", () => {
  const container = counting();
  const { pid } = state(container);
  expect(checkpoint(container, "--leave-running")).toEqual({ status: 0, stdout: "", stderr: "" });
  const since = container.counted().length;
  expect(state(container)).toMatchObject({ status: "running", pid });
  expectGoesOn(container, since);
  // what it was then comes back beside what it has become: a number is written twice
  expect(remove(container, "--force").status).toBe(0);
  const end = container.counted().length;
  expect(runtime(restoreWords(container).toSpliced(1, 0, "--detach"))).toMatchObject({ status: 0, stderr: "" });
  until("it counts on", () => container.counted().length > end);
  expect(container.counted()[end]).toBeLessThanOrEqual(end);
  expect(container.counted()[end]).toBeGreaterThan(3);
});

test("a container that is paused is written down as well, and stays paused", () => {
  const container = counting();
  const { pid } = state(container);
  expect(runtime(["pause", container.id])).toMatchObject({ status: 0, stderr: "" });
  const since = container.counted().length;
  expect(checkpoint(container, "--leave-running")).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(state(container)).toMatchObject({ status: "paused", pid });
  expect(read(pid, "cgroup.events")).toContain("frozen 1");
  expect(runtime(["resume", container.id])).toMatchObject({ status: 0, stderr: "" });
  expectGoesOn(container, since);
  expect(remove(container, "--force").status).toBe(0);
  const end = container.counted().length;
  expect(runtime(restoreWords(container).toSpliced(1, 0, "--detach"))).toMatchObject({ status: 0, stderr: "" });
  until("it counts on", () => container.counted().length > end);
  expect(state(container).status).toBe("running");
});

test("restored in the foreground, it has our signals, and we its status", async () => {
  const container = counting();
  expect(checkpoint(container)).toMatchObject({ status: 0, stderr: "" });
  const stopped = container.counted().length;
  const restore = startRuntime(restoreWords(container));
  const ended = new Promise((resolve) => restore.once("exit", resolve));
  expectGoesOn(container, stopped);
  restore.kill("SIGTERM");
  expect(await ended).toBe(7);
  expect(states()).toEqual([]);
  expect(cgroupDirectories().filter((path) => path.includes(container.id))).toEqual([]);
});

/** Starts a command that stays in the foreground, which can be asked over its standard streams. */
function conversing(words: string[]) {
  // what Node has for pipes are sockets
  const through = ["bash", "-c", 'exec "$@" < <(cat) > >(cat) 2> >(cat >&2)', "bash"];
  const child = startPiped(words, { through });
  let errors = "";
  child.stderr.on("data", (bytes) => {
    errors += bytes;
  });
  const closed = once(child, "close");
  return {
    asks: async (line: string): Promise<string> => {
      child.stdin.write(`${line}\n`);
      return String(await once(child.stdout, "data"));
    },
    ended: async () => {
      child.stdin.end();
      const [status] = await closed;
      return { status, errors };
    },
  };
}

test("its pipes are those of whoever restores it, and who ran it before hears that it has ended", async () => {
  const bundle = makeBundle(
    (spec) => {
      const answer = 'n=0; while read word; do n=$((n + 1)); echo "$word" >&2; echo "$n $word"; done; exit 7';
      spec.process.args = ["/bin/sh", "-c", answer];
    },
    { root: "shell" },
  );
  const container = { ...bundle, images: join(bundle.path, "images") };
  const before = conversing(["run", "--bundle", bundle.path, bundle.id]);
  expect(await before.asks("one")).toBe("1 one\n");
  expect(checkpoint(container)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(await before.ended()).toEqual({ status: 137, errors: "one\n" });
  const after = conversing(restoreWords(container));
  expect(await after.asks("two")).toBe("2 two\n");
  expect(await after.ended()).toEqual({ status: 7, errors: "two\n" });
  expect(states()).toEqual([]);
});

test("what criu cannot write down runs on, and criu's reason is told", () => {
  // no mount of the container's leads to a file of the host's
  const container = counting(join(scratchDirectory(), "outside"));
  const { pid } = state(container);
  const since = container.counted().length;
  const { status, stderr } = checkpoint(container);
  expect(status).toBe(1);
  expect(stderr).toMatch(/criu failed: type DUMP errno 0.*dump\.log: .+/);
  expect(state(container)).toMatchObject({ status: "running", pid });
  expectGoesOn(container, since);
});

test("images that are none make no container", () => {
  const container = counting();
  expect(remove(container, "--force").status).toBe(0);
  mkdirSync(container.images);
  const { status, stderr } = runtime(restoreWords(container));
  expect(status).toBe(1);
  expect(stderr).toMatch(/criu failed: type RESTORE errno 0.*restore\.log: .+/);
  expect(states()).toEqual([]);
  expect(cgroupDirectories().filter((path) => path.includes(container.id))).toEqual([]);
});
