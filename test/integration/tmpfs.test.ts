import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, lutimesSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { makeCanary } from "../../rootfs-fixtures/build.mjs";
import { covers } from "../conformance/covers.ts";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  makeBundle,
  results,
  rewrite,
  run,
  scratchDirectory,
  seenIn,
  type WholeSpec,
} from "../support/bundle.ts";
import { digestOf } from "../support/host-snapshot.ts";

// tmpcopyup, and what else makes a tmpfs resemble the directory it covers: extensions of runc and crun.

afterEach(cleanUp);
afterAll(cleanUpFile);

interface Entry {
  [field: string]: unknown;
  path: string;
  allocatedBytes: number;
}

function setXattr(path: string, name: string, value: string): void {
  execFileSync("python3", [
    "-c",
    "import os,sys; os.setxattr(sys.argv[1], sys.argv[2], sys.argv[3].encode())",
    path,
    name,
    value,
  ]);
}

/** A directory of an image with one of everything in it. */
function fill(directory: string): void {
  mkdirSync(join(directory, "below/deeper"), { recursive: true });
  writeFileSync(join(directory, "file"), "content\n");
  writeFileSync(join(directory, "below/deeper/large"), Buffer.alloc(300_001, "large "));
  writeFileSync(join(directory, "below/empty"), "");
  writeFileSync(join(directory, "set-user-id"), "#!/bin/sh\n");
  symlinkSync("/etc/shadow", join(directory, "link"));
  execFileSync("mkfifo", [join(directory, "queue")]);
  execFileSync("mknod", [join(directory, "null"), "c", "1", "3"]);
  execFileSync("truncate", ["-s", "8M", join(directory, "sparse")]);
  execFileSync("dd", [
    "if=/dev/zero",
    `of=${join(directory, "sparse")}`,
    "bs=1",
    "count=1",
    "seek=5000000",
    "conv=notrunc",
    "status=none",
  ]);
  chownSync(join(directory, "file"), 33, 44);
  chownSync(join(directory, "set-user-id"), 12, 0);
  chmodSync(join(directory, "set-user-id"), 0o4751);
  chmodSync(join(directory, "file"), 0o640);
  chmodSync(join(directory, "queue"), 0o622);
  setXattr(join(directory, "file"), "user.colour", "blue");
  setXattr(join(directory, "below"), "user.directory", "too");
  chownSync(join(directory, "below"), 7, 8);
  chmodSync(join(directory, "below"), 0o1711);
  lutimesSync(join(directory, "link"), 1_000_000, 1_000_000);
  for (const path of ["file", "below/deeper", "below", "sparse"]) lutimesSync(join(directory, path), 86_400, 86_400);
  chownSync(directory, 100, 101);
  chmodSync(directory, 0o2750);
}

/** What is in /srv, as the container sees it. */
function treeIn(bundle: Bundle, edit: (spec: WholeSpec) => void): { top: unknown; entries: Entry[] } {
  rewrite(bundle, (spec) => {
    spec.process.args = ["/bin/probe", "--stat", "/srv", "--tree", "/srv"];
    const every = ["CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"];
    spec.process.capabilities = { bounding: every, permitted: every, effective: every };
    edit(spec);
  });
  const [top, tree] = results(seenIn(run(bundle)).actions);
  return { top, entries: (tree as Entry[]).filter(({ path }) => path !== ".") }; // as the probe's README has it
}

/** Without what a copy has of its own. */
function comparable(entries: readonly Entry[]): unknown[] {
  return entries.map(({ inode, allocatedBytes, links, sizeBytes, ...entry }) => ({
    ...entry,
    ...(entry.type === "directory" ? {} : { sizeBytes }),
  }));
}

const copyUp = (spec: WholeSpec, ...options: string[]) =>
  spec.mounts.push({ destination: "/srv", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", ...options] });

describe("tmpcopyup", () => {
  test("starts a tmpfs as what it covers: contents, kinds, owners, modes, attributes, times and holes", () => {
    covers("mounts.options tmpcopyup");
    const bundle = makeBundle();
    mkdirSync(join(bundle.rootfs, "srv"));
    fill(join(bundle.rootfs, "srv"));
    const below = treeIn(bundle, () => undefined);
    const copy = treeIn(bundle, (spec) => copyUp(spec, "size=2m"));
    expect(below.entries.length).toBe(10);
    expect(comparable(copy.entries)).toEqual(comparable(below.entries));
    expect(copy.top).toMatchObject({ mode: "2750", uid: 100, gid: 101 });
    expect(copy.entries.find(({ path }) => path.endsWith("sparse"))?.allocatedBytes).toBeLessThan(1 << 20);
  });

  test("leaves what it covers as it was, and takes writes", () => {
    const bundle = makeBundle((spec) => {
      copyUp(spec, "nosuid");
      spec.process.args = [
        "/bin/probe",
        "--write",
        "/srv/file",
        "changed",
        "--read",
        "/srv/file",
        "--remove",
        "/srv/kept",
      ];
    });
    mkdirSync(join(bundle.rootfs, "srv"));
    writeFileSync(join(bundle.rootfs, "srv/file"), "before");
    writeFileSync(join(bundle.rootfs, "srv/kept"), "kept");
    const before = digestOf(bundle.rootfs);
    expect(results(seenIn(run(bundle)).actions)).toEqual([7, "changed", true]);
    expect(digestOf(bundle.rootfs)).toBe(before);
  });

  test("its own mode and owner, where the options say them", () => {
    const bundle = makeBundle();
    mkdirSync(join(bundle.rootfs, "srv"));
    fill(join(bundle.rootfs, "srv"));
    const { top, entries } = treeIn(bundle, (spec) => copyUp(spec, "mode=0711", "uid=5"));
    expect(top).toMatchObject({ mode: "0711", uid: 5, gid: 0 });
    expect(entries.length).toBe(10);
  });

  test("read-only, it is filled all the same", () => {
    const bundle = makeBundle((spec) => {
      copyUp(spec, "ro");
      spec.process.args = ["/bin/probe", "--read", "/srv/file", "--write", "/srv/file", "x"];
    });
    mkdirSync(join(bundle.rootfs, "srv"));
    writeFileSync(join(bundle.rootfs, "srv/file"), "there");
    expect(results(seenIn(run(bundle)).actions)).toEqual(["there", "EROFS"]);
  });

  test("over nothing it is an empty tmpfs", () => {
    const bundle = makeBundle((spec) => {
      spec.root.readonly = false;
      copyUp(spec);
      spec.process.args = ["/bin/probe", "--write", "/srv/file", "x"];
    });
    expect(results(seenIn(run(bundle)).actions)).toEqual([1]);
  });

  test("in a user namespace owners stay who they are inside; one who is nobody there is an error that says so", () => {
    const ids = [{ containerID: 0, hostID: 100_000, size: 1000 }];
    const bundle = makeBundle();
    mkdirSync(join(bundle.rootfs, "srv"));
    writeFileSync(join(bundle.rootfs, "srv/file"), "there");
    chownSync(join(bundle.rootfs, "srv/file"), 100_033, 100_044);
    chownSync(join(bundle.rootfs, "srv"), 100_005, 100_000);
    const userns = (spec: WholeSpec) => {
      copyUp(spec);
      spec.linux.namespaces?.push({ type: "user" });
      Object.assign(spec.linux, { uidMappings: ids, gidMappings: ids });
    };
    const { top, entries } = treeIn(bundle, userns);
    expect(top).toMatchObject({ uid: 5, gid: 0 });
    expect(entries).toMatchObject([{ uid: 33, gid: 44 }]);
    chownSync(join(bundle.rootfs, "srv/file"), 5, 5);
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("/mounts/7");
    expect(stderr).toContain("nobody in the container's user namespace");
  });

  test("more than fits is an error that says so, and a tree without end is one", () => {
    const bundle = makeBundle((spec) => copyUp(spec, "size=64k"));
    mkdirSync(join(bundle.rootfs, "srv"));
    writeFileSync(join(bundle.rootfs, "srv/file"), Buffer.alloc(100_000));
    expect(run(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining("larger size=") });
    const deep = makeBundle((spec) => copyUp(spec));
    mkdirSync(join(deep.rootfs, "srv", ...Array.from({ length: 300 }, () => "d")), { recursive: true });
    expect(run(deep)).toMatchObject({ status: 1, stderr: expect.stringContaining("/mounts/7") });
  });

  test("nothing of the host comes in by links, wherever the destination leads", () => {
    const canary = mkdtempSync(join(scratchDirectory(), "canary-"));
    rmSync(canary, { recursive: true });
    makeCanary(canary);
    const before = digestOf(canary);
    const bundle = makeBundle((spec) => {
      spec.root.readonly = false;
      copyUp(spec);
      spec.process.args = ["/bin/probe", "--tree", canary];
    });
    // the destination itself leads out, and what is where it leads inside does, too
    symlinkSync(`../../../../../..${canary}`, join(bundle.rootfs, "srv"));
    const inside = join(bundle.rootfs, canary);
    mkdirSync(inside, { recursive: true });
    symlinkSync(canary, join(inside, "out"));
    symlinkSync("/proc/self/root", join(inside, "magic"));
    const [tree] = results(seenIn(run(bundle)).actions);
    const kinds = (tree as Entry[]).map(({ path, type }) => `${path} ${type}`);
    expect(kinds.join("\n")).toMatch(/out symlink/);
    expect(kinds.join("\n")).toMatch(/magic symlink/);
    expect(kinds.filter((kind) => kind.endsWith(" file"))).toEqual([]);
    expect(digestOf(canary)).toBe(before);
  });

  test("only a tmpfs can have it", () => {
    const bundle = makeBundle((spec) => {
      spec.mounts.push({ destination: "/srv", type: "bind", source: "/usr", options: ["bind", "tmpcopyup"] });
    });
    expect(run(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining("/mounts/7/options") });
  });
});

test("a tmpfs without a mode of its own is as open as the directory it covers, as with runc", () => {
  const bundle = makeBundle((spec) => {
    spec.mounts.push(
      { destination: "/closed", type: "tmpfs", source: "tmpfs" },
      { destination: "/closed-ro", type: "tmpfs", source: "tmpfs", options: ["ro"] },
      { destination: "/home", type: "tmpfs", source: "tmpfs", options: ["mode=0700"] },
    );
    spec.process.args = ["/bin/probe", "--stat", "/closed", "--stat", "/closed-ro", "--stat", "/home"];
  });
  for (const name of ["closed", "closed-ro"]) mkdirSync(join(bundle.rootfs, name), { mode: 0o710 });
  const modes = results(seenIn(run(bundle)).actions).map((seen) => (seen as Entry).mode); // of --stat
  expect(modes).toEqual(["0710", "0710", "0700"]);
});

test("a read-only tmpfs still gets mount points, devices and the working directory into it", () => {
  const bundle = makeBundle((spec) => {
    spec.mounts = spec.mounts.map((mount) =>
      mount.destination === "/dev" ? { ...mount, options: [...(mount.options ?? []), "ro"] } : mount,
    );
    spec.mounts.push(
      { destination: "/home", type: "tmpfs", source: "tmpfs", options: ["ro"] },
      { destination: "/home/inner/most", type: "tmpfs", source: "tmpfs" },
    );
    spec.process.cwd = "/home/work";
    spec.process.args = [
      "/bin/probe",
      ...["--write", "/home/inner/most/file", "x", "--write", "/home/inner/file", "x"],
      ...["--open-device", "/dev/null", "rw", "--mkdir", "/dev/new", "--stat", "/home/work"],
    ];
  });
  const seen = seenIn(run(bundle));
  expect(seen.actions.map(({ error }) => error)).toEqual([null, "EROFS", null, "EROFS", null]);
  expect(seen.cwd).toBe("/home/work");
});
