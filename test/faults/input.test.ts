import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { archive, dockerFiles, type Entry, fixtures, makeCanary, writeTar } from "../../rootfs-fixtures/build.mjs";
import { template } from "../../src/spec/template.ts";
import { results } from "../support/bundle.ts";
import { engineCommand, expectFailure, expectPlainWords, lastLine, Machine } from "../support/engine.ts";
import { digestOf } from "../support/host-snapshot.ts";

let machine: Machine;
let canary = "";
let untouched = "";
const IMAGE = "caisson/quickstart";
const PROBE: Entry = { path: "bin/probe", type: "file", mode: "0755" };

beforeAll(async () => {
  machine = await Machine.make();
  canary = mkdtempSync(join(tmpdir(), "canary-"));
  makeCanary(canary);
  writeFileSync(join(canary, "kept"), "kept");
  untouched = digestOf(canary);
});
afterEach(() => {
  machine.expectEmpty();
  expect(digestOf(canary)).toBe(untouched);
});
afterAll(() => {
  rmSync(canary, { recursive: true, force: true });
  machine.close();
});

/** An image of one layer with the probe and these entries. @returns its archive */
function image(name: string, entries: Entry[], config: Record<string, unknown> = {}): string {
  const path = join(machine.directory, `${name}.tar`);
  const layer = writeTar([{ ...PROBE, content: readFileSync(fixtures.probe) }, ...entries]);
  writeFileSync(path, archive(dockerFiles([{ name: `caisson/${name}:latest`, config, layers: [layer] }])));
  return path;
}

function run(...words: string[]) {
  return machine.caisson(["run", "--rm", "--network", "none", ...words], { timeoutMs: 15_000 });
}

function bundle(config: string): string {
  const path = mkdtempSync(join(machine.directory, "bundle-"));
  mkdirSync(join(path, "rootfs"));
  writeFileSync(join(path, "config.json"), config);
  return path;
}

test("a config.json that is impossible is refused with every fault and its place", () => {
  const spec = {
    ...template(),
    ociVersion: 1,
    hostname: 7,
    mounts: [{ destination: 5 }, { type: "tmpfs" }],
    process: { cwd: "relative", args: [], user: { uid: -1 } },
  };
  const outcome = machine.caisson(["run", "--bundle", bundle(JSON.stringify(spec))]);
  expectFailure(outcome, /config\.json/);
  for (const pointer of [
    "/ociVersion",
    "/hostname",
    "/mounts/0/destination",
    "/mounts/1/destination",
    "/process/cwd",
    "/process/user/uid",
  ])
    expect(outcome.stderr).toContain(pointer);
});

test.each([
  ["no JSON", "{", /config\.json.*JSON/],
  ["empty", "", /config\.json/],
  ["another thing", "[]", /config\.json/],
  ["null", "null", /config\.json/],
  ["no process", JSON.stringify({ ociVersion: "1.3.0", root: { path: "rootfs" } }), /process/],
  ["deep", "[".repeat(100_000), /config\.json/],
])("a config.json that is %s is refused", (_, config, words) => {
  expectFailure(machine.caisson(["run", "--bundle", bundle(config)]), words);
});

test("a bundle without a root, or without a config.json, is refused", () => {
  const path = bundle(JSON.stringify({ ...template(), root: { path: "nowhere" } }));
  expectFailure(machine.caisson(["run", "--bundle", path]), /nowhere/);
  rmSync(join(path, "config.json"));
  expectFailure(machine.caisson(["run", "--bundle", path]), /config\.json/);
});

test("links in place of /proc, /dev, /sys and the files that we write lead nowhere outside", () => {
  const links: Entry[] = [
    ["proc", `${canary}/proc`],
    ["dev", `${canary}/dev`],
    ["sys", `../../../../../../../..${canary}/sys`],
    ["tmp", "/"],
  ].map(([path = "", target = ""]) => ({ path, type: "symlink", target }));
  const etc: Entry[] = ["hosts", "hostname", "resolv.conf", "passwd"].map((name) => ({
    path: `etc/${name}`,
    type: "symlink",
    target: `../../../../../../..${canary}/etc/${name}`,
  }));
  const outcome = run(image("links", links), "/bin/probe");
  if (outcome.status === 0) expect(lastLine(outcome.stdout).mounts.find(({ type }) => type === "proc")).toBeDefined();
  else expectFailure(outcome, /^error: /);
  const files = run(image("files", etc), "/bin/probe", "--read", "/etc/hosts");
  if (files.status === 0) expect(results(lastLine(files.stdout).actions)[0]).not.toBe("canary\n");
  else expectFailure(files, /^error: /);
  // what the host's passwd says of a name must not count
  expectFailure(run("-u", "app", image("files", etc), "/bin/probe"), /unable to find user app/);
});

test.each<[string, Entry]>([
  ["a FIFO", { path: "etc/passwd", type: "fifo", mode: "0666" }],
  ["a device", { path: "etc/passwd", type: "character", device: "1:5", mode: "0666" }],
  ["a directory", { path: "etc/passwd", type: "directory" }],
  ["a large file", { path: "etc/passwd", type: "file", content: Buffer.alloc(2 << 20, "x") }],
])("/etc/passwd as %s is refused at once, where a name has to be looked up", (kind, entry) => {
  expectFailure(run("-u", "app", image("passwd", [entry]), "/bin/probe"), /etc\/passwd|passwd file/);
  expect(kind).toBeTruthy();
});

test("a working directory by a descriptor of ours is none (CVE-2024-21626)", () => {
  for (let fd = 3; fd < 12; fd++) {
    const outcome = run("-w", `/proc/self/fd/${fd}`, IMAGE, "/bin/probe");
    if (outcome.status === 0) expect(lastLine(outcome.stdout)).toMatchObject({ cwdUnreachable: false });
    else expectFailure(outcome, /^error: /, outcome.status);
  }
  const linked = image("cwd", [{ path: "here", type: "symlink", target: "/proc/self/fd/7" }]);
  const outcome = run("-w", "/here", linked, "/bin/probe");
  if (outcome.status === 0) expect(lastLine(outcome.stdout)).toMatchObject({ cwdUnreachable: false });
  else expectPlainWords(outcome.stderr);
});

test("a volume whose destination is a link in the image stays inside; a source that is a link is followed on the host", () => {
  const volume = join(machine.directory, "volume");
  mkdirSync(volume);
  writeFileSync(join(volume, "own"), "of the volume");
  symlinkSync(volume, join(machine.directory, "link"));
  // the same path as the canary's, but in the image: there the link leads to
  const parts = `${canary}/volume`.slice(1).split("/");
  const directories: Entry[] = parts.map((_, i) => ({ path: parts.slice(0, i + 1).join("/"), type: "directory" }));
  const path = image("volume", [
    ...directories,
    { path: "data", type: "symlink", target: `../../../../../..${canary}/volume` },
    { path: "loop", type: "symlink", target: "loop" },
  ]);
  const seen = lastLine(
    machine.succeeds([
      "run",
      "--rm",
      "--network",
      "none",
      "-v",
      `${join(machine.directory, "link")}:/data`,
      path,
      "/bin/probe",
      "--read",
      "/data/own",
      "--write",
      "/data/new",
      "x",
    ]),
  );
  expect(results(seen.actions)[0]).toBe("of the volume");
  expect(existsSync(join(volume, "new"))).toBe(true);
  expectFailure(run("-v", `${volume}:/loop`, path, "/bin/probe"), /ELOOP|loop/);
  expectFailure(run("-v", `${volume}:/bin/probe/below`, path, "/bin/probe"), /ENOTDIR|directory/);
  expectFailure(run("-v", `${join(volume, "own")}/x:/y`, path, "/bin/probe"), /ENOTDIR|directory/);
});

test("odd environment, words and names are passed on as they are, or refused", () => {
  const seen = lastLine(
    machine.succeeds([
      "run",
      "--rm",
      "--network",
      "none",
      "-e",
      "A=line\nbreak",
      "-e",
      "B=ünï",
      "-e",
      "C=",
      IMAGE,
      "/bin/probe",
      "--stat",
      "/ü",
    ]),
  );
  expect(seen.env).toEqual(expect.arrayContaining(["A=line\nbreak", "B=ünï", "C="]));
  expectFailure(run("-e", "=x", IMAGE, "/bin/true"), /environment/);
  const zero = image("zero", [], { Env: ["A=b\0c"], Cmd: ["/bin/probe"] });
  expectFailure(run(zero), /NUL|\\u0000|zero byte/i);
  expectFailure(run(image("zero-cmd", [], { Cmd: ["/bin/probe\0x"] })), /NUL|\\u0000|zero byte/i);
  expectFailure(run("-h", "a b", IMAGE, "/bin/true"), /host ?name/);
  expectFailure(run("--name", "-", IMAGE, "/bin/true"), /cannot use the name/);
});

test("without permission that is said, and nothing else", () => {
  const command = engineCommand();
  const unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", ...command];
  for (const words of [
    ["--data", machine.data, "--root", machine.root, "ps"],
    ["--data", machine.data, "--root", machine.root, "run", "--rm", IMAGE, "/bin/true"],
    ["--data", "/dev/null/data", "--root", machine.root, "run", "--rm", fixtures.images.quickstart.docker, "/bin/true"],
    ["--data", machine.data, "--root", machine.root, "load", fixtures.images.quickstart.docker],
    ["--data", machine.data, "--root", machine.root, "images"],
    ["--data", machine.data, "--root", machine.root, "inspect", "x"],
  ]) {
    const { status, stdout, stderr } = machine.shell([...unprivileged, ...words].map((word) => `'${word}'`).join(" "));
    expect({ words, status, stdout, stderr }).toMatchObject({
      status: 125,
      stdout: "",
      stderr: expect.stringMatching(/^error: /),
    });
    expectPlainWords(stderr);
  }
});

test("a data directory that is a file, or full of rubbish, is said", () => {
  const file = join(machine.directory, "file");
  writeFileSync(file, "");
  for (const words of [["ps"], ["images"], ["load", fixtures.images.quickstart.docker], ["run", IMAGE]]) {
    const { status, stderr } = machine.shell(
      [...engineCommand(), "--data", file, "--root", machine.root, ...words].join(" "),
    );
    expect({ words, status, stderr }).toMatchObject({ status: 125, stderr: expect.stringMatching(/^error: /) });
    expectPlainWords(stderr);
  }
});
