import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { archive, dockerFiles, type Entry, fixtures, writeTar } from "../../rootfs-fixtures/build.mjs";
import { results } from "../support/bundle.ts";
import { expectFailure, lastLine, Machine } from "../support/engine.ts";

let machine: Machine;
const VARIANT = "caisson/variants:bare";
const DATA = "caisson/data";

/** What the image of these tests has in /data: owners, modes, a file capability, links that lead out, nodes. */
const CONTENTS: Entry[] = [
  { path: "data", type: "directory", mode: "0751", uid: 1000, gid: 2000 },
  { path: "data/plain", type: "file", mode: "0640", uid: 7, gid: 8, content: Buffer.from("plain") },
  { path: "data/set-id", type: "file", mode: "6755", uid: 9, gid: 10, content: Buffer.from("x") },
  {
    path: "data/capable",
    type: "file",
    mode: "0755",
    content: Buffer.from("x"),
    xattrs: {
      "security.capability": "0100000200040000000000000000000000000000",
    },
  },
  { path: "data/deep", type: "directory", mode: "1777", uid: 3, gid: 4, mtime: "1000000000" },
  { path: "data/deep/file", type: "file", mode: "0600", uid: 5, gid: 6, content: Buffer.from("deep") },
  { path: "data/out", type: "symlink", target: "../../../../../../../../etc/passwd" },
  { path: "data/up", type: "symlink", target: "/../../../../../../../.." },
  { path: "data/queue", type: "fifo", mode: "0622" },
  { path: "link", type: "symlink", target: "../../../../../../../../data/deep" },
  { path: "not-a-directory", type: "file", content: Buffer.from("x") },
  { path: "tmp", type: "directory", mode: "1777" },
];

beforeAll(async () => {
  machine = await Machine.make({ images: ["quickstart", "variants"] });
  const probe: Entry = { path: "bin/probe", type: "file", mode: "0755", content: readFileSync(fixtures.probe) };
  const layers = [writeTar([probe]), writeTar(CONTENTS)];
  const images = [
    { name: `${DATA}:latest`, config: {}, layers },
    { name: `${DATA}:volumes`, config: { Volumes: { "/data/": {}, "/none/yet": {} } }, layers },
    { name: `${DATA}:odd`, config: { Volumes: { "/link": {}, "/not-a-directory": {} } }, layers },
  ];
  writeFileSync(join(machine.directory, "data.tar"), archive(dockerFiles(images)));
  machine.succeeds(["load", join(machine.directory, "data.tar")]);
});
afterEach(() => machine.expectEmpty());
afterAll(() => machine.close());

const volumes = () => readdirSync(join(machine.data, "volumes")).sort();

/** Every entry beneath a directory as a container of this image sees it, but for what differs between two files alike. */
function treeOf(directory: string, flags: readonly string[], image = DATA): unknown[] {
  const { actions } = machine.seen(flags, ["--tree", directory, "--stat", directory], image);
  expect(results(actions).filter((result) => typeof result === "string")).toEqual([]);
  // the probe was asked for a tree, and this is how it gives one
  const entries = actions[0]?.result as { path: string; type: string; sizeBytes: number }[];
  return entries
    .filter(({ path }) => path !== ".")
    .map((entry) => ({ ...entry, inode: 0, allocatedBytes: 0 }))
    .sort((one, other) => one.path.localeCompare(other.path));
}

const owner = (directory: string, flags: readonly string[], image = DATA) =>
  machine.seen(flags, ["--stat", directory], image).actions[0]?.result;

describe("a volume in which nothing is yet", () => {
  test("gets what the image has there: owners, modes, times, attributes, links as they are", () => {
    const plain = treeOf("/data", []);
    expect(plain.length).toBe(8);
    expect(treeOf("/data", ["-v", "first:/data"])).toEqual(plain);
    expect(owner("/data", ["-v", "owned:/data"])).toMatchObject({ uid: 1000, gid: 2000, mode: "0751" });
    expect(readdirSync(join(machine.data, "volumes/first")).sort()).toContain("set-id");
    expect(readFileSync(join(machine.data, "volumes/first/plain"), "utf8")).toBe("plain");
  });

  test("gets it read-only, too, and keeps what was written since", () => {
    const seen = machine.seen(
      ["-v", "closed:/data:ro"],
      ["--read", "/data/plain", "--write", "/data/plain", "x", "--write", "/data/new", "x"],
      DATA,
    );
    expect(results(seen.actions)).toEqual(["plain", "EROFS", "EROFS"]);
    machine.seen(["-v", "closed:/data"], ["--remove", "/data/plain", "--write", "/data/new", "x"], DATA);
    const again = machine.seen(["-v", "closed:/data"], ["--stat", "/data/plain", "--stat", "/data/new"], DATA);
    expect(again.actions.map(({ error }) => error)).toEqual(["ENOENT", null]);
  });

  test("stays empty with nocopy, and where the image has nothing", () => {
    expect(treeOf("/data", ["-v", "bare:/data:nocopy"])).toEqual([]);
    expect(owner("/data", ["-v", "bare:/data:nocopy"])).toMatchObject({ uid: 0, gid: 0, mode: "0755" });
    expect(treeOf("/absent", ["-v", "absent:/absent"])).toEqual([]);
  });

  test("gets it from the image, whatever covers that in the container", () => {
    const flags = ["-v", "outer:/data", "-v", "inner:/data/deep", "--tmpfs", "/tmp"];
    machine.seen(["-v", "outer:/data:nocopy"], ["--mkdir", "/data/deep"], DATA);
    machine.seen(["-v", "outer:/data"], ["--write", "/data/deep/other", "x"], DATA);
    expect(treeOf("/data/deep", flags)).toMatchObject([{ path: "file", uid: 5, gid: 6 }]);
  });

  test("belongs to the container's users in a user namespace, and has their ids on the disk", () => {
    const plain = treeOf("/data", []);
    expect(treeOf("/data", ["--userns", "auto", "-v", "mapped:/data"])).toEqual(plain);
    expect(treeOf("/data", ["-v", "mapped:/data"])).toEqual(plain);
    const { uid, gid } = statSync(join(machine.data, "volumes/mapped/plain"));
    expect([uid, gid]).toEqual([7, 8]);
    const seen = machine.seen(
      ["--userns", "auto", "-v", "mapped:/data", "-v", "written:/written"],
      ["--write", "/written/x", "x", "--write", "/data/x", "x"],
      DATA,
    );
    expect(seen.actions.map(({ error }) => error)).toEqual([null, null]);
    expect(statSync(join(machine.data, "volumes/written/x")).uid).toBe(0);
  });

  test("is filled through links of the image only inside of it; a file cannot be covered by one", () => {
    expect(treeOf("/data/deep", ["-v", "linked:/link"])).toMatchObject([{ path: "file", uid: 5 }]);
    expect(readdirSync(join(machine.data, "volumes/linked"))).toEqual(["file"]);
    expectFailure(
      machine.caisson(["run", "--rm", "--network", "none", "-v", "file:/not-a-directory", DATA, "/bin/probe"]),
      /not-a-directory[\s\S]*ENOTDIR/,
    );
  });
});

describe("an image's volumes", () => {
  const run = (flags: readonly string[], ...actions: string[]) =>
    machine.caisson(["run", "--network", "none", ...flags, `${DATA}:volumes`, "/bin/probe", ...actions]);

  test("are made for each container, filled, and stay with it until rm -v", () => {
    const before = volumes();
    expect(run(["--name", "keeper"], "--write", "/data/kept", "x", "--write", "/none/yet/kept", "x").status).toBe(0);
    const made = volumes().filter((name) => !before.includes(name));
    expect(made).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/), expect.stringMatching(/^[0-9a-f]{64}$/)]);
    const [inspected] = JSON.parse(machine.succeeds(["inspect", "keeper"]));
    expect(inspected.Mounts).toMatchObject([
      { Type: "volume", Destination: "/data", RW: true, Driver: "local" },
      { Type: "volume", Destination: "/none/yet", RW: true },
    ]);
    const [{ Name, Source }] = inspected.Mounts;
    expect(made).toContain(Name);
    expect(readFileSync(join(Source, "kept"), "utf8")).toBe("x");
    expect(readFileSync(join(Source, "deep/file"), "utf8")).toBe("deep");
    // another container has one of them by its name, and so keeps it
    machine.succeeds(["run", "--name", "heir", "--network", "none", "-v", `${Name}:/data`, DATA, "/bin/probe"]);
    machine.settle();
    machine.succeeds(["rm", "-v", "keeper"]);
    expect(volumes().filter((name) => !before.includes(name))).toEqual([Name]);
    machine.succeeds(["rm", "-v", "heir"]);
    expect(volumes()).toContain(Name);
    execFileSync("rm", ["-r", Source]);
  });

  test("go with --rm, with a container that cannot be made, and stay at rm without -v", () => {
    const before = volumes();
    expect(treeOf("/data", [], `${DATA}:volumes`)).toEqual(treeOf("/data", []));
    expect(run(["--rm", "-v", "/own"], "--write", "/own/x", "x").status).toBe(0);
    machine.settle();
    expect(machine.caisson(["run", "--network", "none", `${DATA}:volumes`, "/no/such"]).status).toBe(127);
    expectFailure(machine.caisson(["run", "--rm", "--network", "none", `${DATA}:odd`, "/bin/probe"]), /ENOTDIR/);
    expect(volumes()).toEqual(before);
    run(["--name", "leaves"]);
    machine.settle();
    machine.succeeds(["rm", "leaves"]);
    expect(volumes().length).toBe(before.length + 2);
  });

  test("give way to what the caller mounts there", () => {
    const before = volumes();
    const { mounts } = lastLine(run(["--rm", "-v", "instead:/data", "--tmpfs", "/none/yet/"]).stdout);
    const at = (path: string) =>
      mounts.filter((mount) => mount.mountPoint === path).map(({ root, type }) => [root, type]);
    expect(at("/data")).toEqual([[expect.stringContaining("/volumes/instead"), expect.anything()]]);
    expect(at("/none/yet")).toEqual([["/", "tmpfs"]]);
    machine.settle();
    expect(volumes()).toEqual([...before, "instead"].sort());
  });

  test("what an image calls a volume can be written, as its owner", () => {
    const seen = machine.seen(
      ["-u", "app"],
      ["--write", "/home/app/file", "x", "--stat", "/home/app"],
      "caisson/variants:volume",
    );
    expect(seen.actions.map(({ error }) => error)).toEqual([null, null]);
    expect(seen.actions[1]?.result).toMatchObject({ uid: 1000, gid: 1000 });
  });
});

describe("what -v binds", () => {
  test("bind directories and files, writable or not, and named ones stay", () => {
    const host = join(machine.directory, "host");
    mkdirSync(host);
    writeFileSync(join(host, "file"), "of the host");
    const volumes = [
      "-v",
      `${host}:/rw`,
      "-v",
      `${host}:/ro:ro`,
      "-v",
      `${host}/file:/etc/one-file:ro`,
      "-v",
      "things:/things",
    ];
    const seen = machine.seen(volumes, [
      "--write",
      "/rw/written",
      "inside",
      "--write",
      "/ro/refused",
      "x",
      "--read",
      "/etc/one-file",
      "--write",
      "/etc/one-file",
      "x",
      "--write",
      "/things/kept",
      "kept",
      "--mount",
    ]);
    const [, refused, read, readOnly] = results(seen.actions);
    expect([refused, read, readOnly]).toEqual(["EROFS", "of the host", "EROFS"]);
    expect(readFileSync(join(host, "written"), "utf8")).toMatch(/^inside/);
    expect(readdirSync(host).sort()).toEqual(["file", "written"]);
    expect(machine.seen(["-v", "things:/again"], ["--read", "/again/kept"]).actions[0]?.result).toMatch(/^kept/);
  });

  test("a read-only one is read-only below, where another file system is mounted", () => {
    const host = join(machine.directory, "deep");
    mkdirSync(join(host, "mounted"), { recursive: true });
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", join(host, "mounted")]);
    try {
      expect(results(machine.seen(["-v", `${host}:/deep:ro`], ["--write", "/deep/mounted/x", "x"]).actions)).toEqual([
        "EROFS",
      ]);
    } finally {
      execFileSync("umount", [join(host, "mounted")]);
    }
  });

  test("a path that begins with . counts from where the command is given; a missing one is made", () => {
    mkdirSync(join(machine.directory, "here"), { recursive: true });
    const words = ["run", "--rm", "--network", "none", "-v", "./made:/made", "-v", ".:/here", VARIANT];
    const how = { cwd: join(machine.directory, "here") };
    const seen = lastLine(
      machine.succeeds([...words, "/bin/probe", "--write", "/made/x", "x", "--stat", "/made"], how),
    );
    expect(seen.actions[1]?.result).toMatchObject({ uid: 0, gid: 0, mode: "0755" });
    expect(readFileSync(join(machine.directory, "here/made/x"), "utf8")).toBe("x");
    expectFailure(machine.caisson(["run", "--rm", "-v", "here/made:/x", VARIANT, "/bin/true"], how), /begins with/);
    expect(
      machine.succeeds(["explain", "-v", "./not-made:/x", "-v", "not-made:/y", VARIANT, "/bin/true"], how),
    ).toMatch(/here\/not-made/);
    expect(existsSync(join(machine.directory, "here/not-made"))).toBe(false);
    expect(volumes()).not.toContain("not-made");
  });

  test("is seen whatever the order of the flags: none covers another that is beneath it", () => {
    const [upper, lower] = ["upper", "lower"].map((name) => {
      const directory = join(machine.directory, name);
      mkdirSync(directory);
      writeFileSync(join(directory, name), `of ${name}`);
      return directory;
    });
    const flags = ["-v", `${lower}:/m/x/lower`, "-v", `${upper}:/m/`, "--tmpfs", "/m/x/tmp", "-v", `${upper}:/etc`];
    const reads = ["/m/upper", "/m/x/lower/lower", "/etc/hostname"].flatMap((path) => ["--read", path]);
    const seen = machine.seen(["-h", "named", ...flags], reads);
    expect(results(seen.actions)).toEqual(["of upper", "of lower", "named\n"]);
    const mounted = seen.mounts.map(({ mountPoint }) => mountPoint).filter((path) => path.startsWith("/m"));
    expect(mounted.sort()).toEqual(["/m", "/m/x/lower", "/m/x/tmp"]);
  });

  test("what cannot be meant is refused", () => {
    const refused = (why: RegExp, ...flags: string[]) =>
      expectFailure(
        machine.caisson(["run", "--rm", ...flags.flatMap((flag) => ["-v", flag]), VARIANT, "/bin/true"]),
        why,
      );
    for (const volume of ["a", "a:relative", "a:/b:ro:c", "../name:/x/y:ro:", ":/x", ""]) refused(/cannot use/, volume);
    refused(/cannot be the root/, "a:/");
    refused(/cannot be the root/, "/tmp:/x/..");
    refused(/option sideways is unknown/, "a:/x:ro,sideways");
    refused(/read-only and writable/, "a:/x:ro,rw");
    refused(/never copied to/, "/tmp:/x:nocopy");
    refused(/used twice/, "/tmp:/x", "a:/x/");
    const tmpfs = (...flags: string[]) => machine.caisson(["run", "--rm", ...flags, VARIANT, "/bin/true"]);
    expectFailure(tmpfs("--tmpfs", "/x/", "-v", "a:/x"), /volume a:\/x: its destination is used twice/);
    expectFailure(tmpfs("--tmpfs", "/."), /cannot use a tmpfs on \//);
    refused(/no volume's name/, "-a:/x");
    const file = join(machine.directory, "data.tar");
    refused(
      /cannot carry out: mounts it on \/tmp\n[\s\S]*hint +a directory is mounted on a directory and a file/,
      `${file}:/tmp`,
    );
    refused(/hint +a directory is mounted on a directory and a file/, `${machine.directory}:/bin/probe`);
  });
});
