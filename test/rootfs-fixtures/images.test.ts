import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  archive,
  build,
  digest,
  dockerFiles,
  type Expectation,
  fixtures,
  MALICIOUS_ARCHIVES,
  MALICIOUS_LAYERS,
  makeCanary,
  makeRoot,
  maliciousArchive,
  ociFiles,
  readExpectation,
  readImages,
} from "../../rootfs-fixtures/build.mjs";

const isRoot = process.getuid?.() === 0;
let directory = "";

beforeAll(() => {
  build();
  directory = mkdtempSync(join(tmpdir(), "fixtures-"));
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

function run(command: string, ...words: string[]): string {
  return execFileSync(command, words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 64 << 20 });
}

/** A tree as the probe sees it, by path. */
function tree(path: string) {
  const seen = JSON.parse(run(fixtures.probe, "--tree", path)).actions[0].result;
  return new Map(seen.map((entry: { path: string }) => [entry.path, entry])) as Map<string, Record<string, unknown>>;
}

function expectRoot(root: string, expected: Partial<Expectation>): void {
  const seen = tree(root);
  const fields = (column: Record<string, unknown> | undefined, name: string, actual: (path: string) => unknown) => {
    for (const [path, value] of Object.entries(column ?? {})) expect(actual(path), `${name} of ${path}`).toEqual(value);
  };
  fields(expected.contents, "content", (path) => readFileSync(join(root, path), "utf8"));
  fields(expected.sizesBytes, "size", (path) => seen.get(path)?.sizeBytes);
  fields(expected.segments, "segments", (path) => segments(readFileSync(join(root, path))));
  fields(expected.modes, "mode", (path) => seen.get(path)?.mode);
  fields(expected.owners, "owner", (path) => `${seen.get(path)?.uid}:${seen.get(path)?.gid}`);
  fields(expected.devices, "device", (path) => seen.get(path)?.device);
  fields(expected.targets, "target", (path) => seen.get(path)?.target);
  fields(expected.mtimes, "mtime", (path) => seen.get(path)?.mtime);
  fields(expected.xattrs, "attributes", (path) => seen.get(path)?.xattrs);
  for (const path of expected.absent ?? []) expect(seen.has(path), `${path} is absent`).toBe(false);
  for (const [a, b] of expected.sameInode ?? []) expect(seen.get(a)?.inode, `${a} is ${b}`).toBe(seen.get(b)?.inode);
  expect([...seen.keys()].filter((path) => path.includes(".wh."))).toEqual([]);
}

/** The runs of bytes in a sparse file that are not zero. */
function segments(bytes: Buffer): { offset: number; text: string }[] {
  const found = [];
  for (let end = 0, at = 0; at < bytes.length; at = end) {
    // Whole zero blocks are skipped by comparison, which is much faster than looking at every byte.
    end = Math.min(at + 4096, bytes.length);
    if (ZEROS.subarray(0, end - at).equals(bytes.subarray(at, end))) continue;
    const text = bytes.toString("utf8", at, end).replace(/\0+$/, "");
    found.push({ offset: at, text });
  }
  return found;
}

const ZEROS = Buffer.alloc(4096);

test("a second build makes nothing, and a missing image is made again as it was", () => {
  const said: string[] = [];
  const { docker } = fixtures.images.variants;
  const before = readFileSync(docker);
  build((line) => said.push(line));
  expect(said).toEqual([]);
  rmSync(docker);
  build((line) => said.push(line));
  expect(said).toEqual([`making ${docker}`]);
  expect(readFileSync(docker).equals(before)).toBe(true);
});

test("images are the same bytes every time", () => {
  const paths = fixtures.images.fixture;
  expect(digest(archive(dockerFiles(readImages("fixture"))))).toBe(digest(readFileSync(paths.docker)));
  expect(digest(archive(ociFiles(readImages("fixture"), "zstd")))).toBe(digest(readFileSync(paths.ociZstd)));
});

test("skopeo reads every image in every form", () => {
  for (const name of ["fixture", "quickstart", "sparse"] as const) {
    const { docker, ociGzip, ociZstd, layout } = fixtures.images[name];
    const layers = readImages(name)[0]?.layers.map(digest);
    const sources = [
      `docker-archive:${docker}`,
      `oci-archive:${ociGzip}`,
      `oci-archive:${ociZstd}`,
      `oci:${layout}:latest`,
    ];
    for (const source of sources)
      expect(JSON.parse(run("skopeo", "inspect", "--config", source)).rootfs.diff_ids, source).toEqual(layers);
  }
  const variant = `docker-archive:${fixtures.images.variants.docker}:docker.io/caisson/variants:user-group`;
  expect(JSON.parse(run("skopeo", "inspect", "--config", variant)).config.User).toBe("1000:video");
});

test("umoci unpacks the layout to the root that is expected: whiteouts, opaque directory, links, attributes", ({
  skip,
}) => {
  skip(!isRoot, "needs root to make devices and owners");
  const { layout } = fixtures.images.fixture;
  expect(run("umoci", "ls", "--layout", layout).trim()).toBe("latest");
  run("umoci", "unpack", "--image", `${layout}:latest`, join(directory, "bundle"));
  expectRoot(join(directory, "bundle/rootfs"), readExpectation("fixture"));
  const { process: started } = JSON.parse(readFileSync(join(directory, "bundle/config.json"), "utf8"));
  expect(started).toMatchObject({
    args: ["/bin/probe", "--stat", "/srv"],
    cwd: "/home/app",
    user: { uid: 1000, gid: 1000 },
  });
  expect(started.env).toContain("FIXTURE=caisson");
});

test("the docker archive and the zstd archive, through skopeo, unpack to the same root", ({ skip }) => {
  skip(!isRoot, "needs root to make devices and owners");
  const { docker, ociZstd } = fixtures.images.fixture;
  for (const [name, source] of [
    ["docker", `docker-archive:${docker}`],
    ["zstd", `oci-archive:${ociZstd}`],
  ] as const) {
    const layout = join(directory, `${name}-layout`);
    // By way of a directory of plain tar, since umoci knows no zstd.
    run("skopeo", "copy", "--dest-decompress", source, `dir:${join(directory, name)}`);
    run("skopeo", "copy", `dir:${join(directory, name)}`, `oci:${layout}:latest`);
    run("umoci", "unpack", "--image", `${layout}:latest`, join(directory, `${name}-bundle`));
    expectRoot(join(directory, `${name}-bundle/rootfs`), readExpectation("fixture"));
  }
});

test("GNU tar unpacks every sparse format to the file that is meant", () => {
  const target = join(directory, "sparse");
  mkdirSync(target);
  const [layer = Buffer.alloc(0)] = readImages("sparse")[0]?.layers ?? [];
  execFileSync("tar", ["-xf", "-", "-C", target], { input: layer });
  expectRoot(target, readExpectation("sparse"));
  const fixture = readImages("fixture")[0]?.layers[0] ?? Buffer.alloc(0);
  execFileSync("tar", ["-xf", "-", "-C", target, "srv/sparse-1.0", "srv/sparse-0.1"], { input: fixture });
  const { "srv/sparse-1.0": newest, "srv/sparse-0.1": older } = readExpectation("fixture").segments;
  expect(segments(readFileSync(join(target, "srv/sparse-1.0")))).toEqual(newest);
  expect(segments(readFileSync(join(target, "srv/sparse-0.1")))).toEqual(older);
});

test("names that are not UTF-8 keep their bytes", () => {
  const layer = readImages("fixture")[0]?.layers[0] ?? Buffer.alloc(0);
  const names = execFileSync("tar", ["-tf", "-", "--quoting-style=literal"], { input: layer });
  expect(names.includes(Buffer.from("srv/long/latin1-\xe9\xff\n", "latin1"))).toBe(true);
});

test("the hostile root reaches the canary from the host, and makes nothing there", () => {
  const canary = join(directory, "canary");
  const root = join(directory, "hostile");
  makeCanary(canary);
  makeRoot("hostile", root, canary);
  for (const name of ["proc", "dev", "sys", "workdir", "volume", "etc/passwd", "etc/hosts", "etc/resolv.conf"])
    expect(realpathSync(join(root, name)), name).toBe(join(realpathSync(canary), name));
  expect(lstatSync(join(root, "etc/group")).isFIFO()).toBe(true);
  expect(realpathSync(join(root, "tmp"))).toBe("/");
  expect(existsSync(join(canary, "made-by-mistake"))).toBe(false);
});

test("the minimal root has its users, modes and programs", () => {
  const seen = tree(fixtures.roots.minimal);
  expect(seen.get("tmp")?.mode).toBe("1777");
  expect(seen.get("home/app")?.uid).toBe(isRoot ? 1000 : process.getuid?.());
  expect(readFileSync(join(fixtures.roots.minimal, "etc/group"), "utf8")).toMatch(/^extra:x:2000:app,root$/m);
  expect(JSON.parse(run(join(fixtures.roots.minimal, "bin/probe"))).actions).toEqual([]);
});

test("the shell root is a system of its own", ({ skip }) => {
  skip(!isRoot, "needs root for chroot");
  const shell = ["chroot", fixtures.roots.shell, "/usr/bin/env", "sh", "-c"] as const;
  expect(run(...shell, "id app; cat /etc/os-release | grep -c Caisson; probe --exit 0 | wc -l")).toBe(
    "uid=1000(app) gid=1000(app) groups=1000(app),29(audio),44(video)\n2\n1\n",
  );
});

test("an extractor that trusts names is led out of the tree by these layers", () => {
  for (const name of [
    "parent member",
    "absolute member",
    "symlink as parent",
    "relative symlink as parent",
    "pax path escapes",
  ]) {
    const place = mkdtempSync(join(directory, "trusting-"));
    const canary = join(place, "canary");
    mkdirSync(canary);
    mkdirSync(join(place, "root"));
    for (const layer of MALICIOUS_LAYERS[name]?.(canary) ?? [])
      spawnSync("tar", ["-xPf", "-", "-C", join(place, "root")], { input: layer });
    expect(readdirSync(canary), name).toEqual(["escaped"]);
  }
});

test("a hard link through a symlink gives away a file of the host to who trusts it", () => {
  const canary = join(directory, "hard-link-canary");
  mkdirSync(canary);
  writeFileSync(join(canary, "kept"), "kept\n");
  chmodSync(canary, 0o755);
  mkdirSync(join(directory, "hard-link-root"));
  const [layer = Buffer.alloc(0)] = MALICIOUS_LAYERS["hard link through symlink"]?.(canary) ?? [];
  // Only up to the link: what follows writes through it.
  spawnSync("tar", ["-xPf", "-", "-C", join(directory, "hard-link-root"), "way", "--occurrence=1", "stolen"], {
    input: layer,
  });
  expect(lstatSync(join(canary, "kept")).nlink).toBe(2);
});

test("skopeo refuses the archives that are broken", () => {
  const broken = {
    "docker-archive": [
      "empty file",
      "cut in the middle",
      "manifest missing",
      "manifest is not JSON",
      "layer path escapes",
    ],
    "oci-archive": [
      "cut in the middle, OCI",
      "compressed layer cut",
      "layer with a flipped bit",
      "config with a flipped bit",
      "layer missing",
      "digest that is a path",
    ],
  };
  for (const [transport, names] of Object.entries(broken))
    for (const name of names) {
      const path = join(directory, "broken.tar");
      writeFileSync(path, maliciousArchive(name, join(directory, "none")));
      rmSync(join(directory, "copied"), { recursive: true, force: true });
      const target = `oci:${join(directory, "copied")}:latest`;
      expect(spawnSync("skopeo", ["copy", `${transport}:${path}`, target]).status, name).not.toBe(0);
    }
});

test("malicious archives are the same bytes every time, and small enough to make in a test", () => {
  for (const name of Object.keys(MALICIOUS_LAYERS))
    expect(digest(maliciousArchive(name, "/canary")), name).toBe(digest(maliciousArchive(name, "/canary")));
  for (const name of Object.keys(MALICIOUS_ARCHIVES))
    expect(maliciousArchive(name, "/canary").length, name).toBeLessThan(65 << 20);
});

test("the gzip bomb unpacks to a thousand times its size", () => {
  const path = join(directory, "bomb");
  mkdirSync(path);
  execFileSync("tar", ["-xf", "-", "-C", path], { input: maliciousArchive("gzip bomb of 16 GiB", "/canary") });
  const read = (name: string) => JSON.parse(readFileSync(join(path, name), "utf8"));
  const blob = (name: string) => `blobs/sha256/${name.slice(7)}`;
  const [layer] = read(blob(read("index.json").manifests[0].digest)).layers;
  expect(digest(readFileSync(join(path, blob(layer.digest))))).toBe(layer.digest);
  // The beginning is enough to believe the rest.
  const count = run("sh", "-c", `gzip -dc ${join(path, blob(layer.digest))} 2>/dev/null | head -c 67108864 | wc -c`);
  expect(Number(count)).toBe(64 << 20);
  expect(layer.size).toBeLessThan((16 * 2 ** 30) / 1000);
});
