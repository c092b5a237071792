import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Entry, MALICIOUS_LAYERS, makeCanary, writeTar } from "../../rootfs-fixtures/build.mjs";
import { ContainerError } from "../../src/error.ts";
import { TarReader } from "../../src/image/tar.ts";
import { Unpacker } from "../../src/storage/unpack.ts";
import { AUFS_WHITEOUTS, OVERLAY_WHITEOUTS } from "../../src/storage/whiteout.ts";
import { describeTree } from "./tree-digest.ts";

const isRoot = process.getuid?.() === 0;
let directory = "";

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "unpack-"));
});
afterEach(() => execFileSync("rm", ["-rf", directory]));

/** Unpacks layers, the bottom one first, each over those before. @returns their directories */
function unpack(layers: Buffer[], { pieceBytes = 1 << 16, whiteouts = OVERLAY_WHITEOUTS } = {}): string[] {
  const paths: string[] = [];
  for (const layer of layers) {
    const path = mkdtempSync(join(directory, "layer-"));
    chmodSync(path, 0o755);
    const lower = [...paths].reverse().map((below) => openSync(below, "r"));
    const root = openSync(path, "r");
    const before = readdirSync("/proc/self/fd").length;
    const unpacker = new Unpacker({ root, lower, whiteouts });
    try {
      const reader = new TarReader(unpacker);
      for (let at = 0; at < layer.length; at += pieceBytes) reader.push(layer.subarray(at, at + pieceBytes));
      reader.finish();
      unpacker.finish();
    } finally {
      unpacker.close();
      const after = readdirSync("/proc/self/fd").length;
      for (const fd of [root, ...lower]) closeSync(fd);
      expect(after, "open descriptors").toBe(before);
    }
    paths.push(path);
  }
  return paths;
}

const file = (path: string, text = "", more: Partial<Entry> = {}): Entry => ({
  path,
  type: "file",
  content: Buffer.from(text),
  ...more,
});
const folder = (path: string, more: Partial<Entry> = {}): Entry => ({ path, type: "directory", ...more });
const link = (path: string, target: string): Entry => ({ path, type: "symlink", target });
const hard = (path: string, target: string): Entry => ({ path, type: "hardlink", target });
const text = (...path: string[]) => readFileSync(join(...path), "utf8");
const isWhiteout = (path: string) => lstatSync(path).isCharacterDevice() && lstatSync(path).rdev === 0;
const xattrs = (path: string) =>
  describeTree(path)
    .split("\n")
    .filter((line) => line.includes("overlay."));
const layer = (...entries: Entry[]) => writeTar(entries);
const names = (path: string) => readdirSync(path).sort();

describe.skipIf(!isRoot)("unpacking (needs root)", () => {
  test.each([
    ["pax", 1 << 16],
    ["pax", 700],
    ["gnu", 1 << 16],
  ] as const)("gives the tree that GNU tar gives (%s, pieces of %i)", (format, pieceBytes) => {
    const source = join(directory, "source");
    execFileSync("bash", [
      "-ec",
      `
      mkdir -p "$1"/deep/er "$1"/sticky "$1"/empty; cd "$1"
      cp /bin/busybox busybox; chmod 4755 busybox; ln busybox deep/hard; ln -s ../busybox deep/soft; ln -s /nowhere dangling
      ln -P dangling hard-to-link
      head -c 3000000 /dev/urandom > large; chown 1234:4321 large; chmod 2640 large
      truncate -s 5000000 holes; printf end >> holes; truncate -s 9000000 holes
      mknod null c 1 3; mknod block b 8 300; mkfifo -m 600 pipe; chmod 1777 sticky; chmod 000 empty
      printf x > deep/er/$(printf 'latin\\344name'); printf y > "$(printf 'n%.0s' {1..255})"
      setcap cap_net_raw+ep large || true; touch -d '1969-12-31 23:59:58.25 UTC' large; touch -h -d @1000000000.123456789 dangling
      python3 -c 'import os; os.setxattr("deep", b"user.note", b"a\\0b\\n"); os.setxattr("busybox", b"security.capability", bytes.fromhex("0100000200200000000000000000000000000000")); os.setxattr("sticky", b"trusted.other", b"1")'
      touch -d @1234567890.5 deep/er deep empty .`,
      "-",
      source,
    ]);
    const archive = execFileSync(
      "tar",
      [
        `--format=${format}`,
        "-S",
        ...(format === "pax" ? ["--xattrs", "--xattrs-include=*"] : []),
        "-C",
        source,
        "-cf",
        "-",
        ".",
      ],
      { maxBuffer: 1 << 28 },
    );
    const [root = ""] = unpack([archive], { pieceBytes });
    const expected = join(directory, "expected");
    mkdirSync(expected);
    execFileSync("tar", ["--xattrs", "--xattrs-include=*", "-xpf", "-", "-C", expected], { input: archive });
    expect(describeTree(root)).toBe(describeTree(expected));
    expect(lstatSync(join(root, "holes")).blocks * 512).toBeLessThan(1 << 20);
  });

  test("missing parents get 0755, or what the layer below says of them", () => {
    const [, upper = ""] = unpack([
      layer(folder("tmp", { mode: "1777", uid: 7, xattrs: { "user.a": "31" } })),
      layer(file("tmp/x"), file("new/y")),
    ]);
    expect(lstatSync(join(upper, "tmp"))).toMatchObject({ mode: 0o41777, uid: 7 });
    expect(lstatSync(join(upper, "new"))).toMatchObject({ mode: 0o40755, uid: 0 });
    expect(
      execFileSync("python3", ["-c", "import os,sys; print(os.getxattr(sys.argv[1], 'user.a'))", join(upper, "tmp")], {
        encoding: "utf8",
      }),
    ).toContain("b'1'");
  });

  test("a path through a link of a layer below ends where the link leads", () => {
    const paths = unpack([
      layer(folder("usr"), folder("usr/lib"), link("lib", "usr/lib"), link("abs", "/usr"), link("chain", "abs/lib")),
      layer(file("lib/a", "A"), file("abs/lib/b", "B"), file("chain/c", "C")),
      layer(hard("lib/d", "chain/a")),
    ]);
    expect(names(paths[1] ?? "")).toEqual(["usr"]);
    expect(names(join(paths[1] ?? "", "usr/lib"))).toEqual(["a", "b", "c"]);
    expect(names(join(paths[2] ?? "", "usr/lib"))).toEqual(["a", "d"]);
    expect(text(paths[2] ?? "", "usr/lib/d")).toBe("A");
  });

  test("a hard link into a layer below brings the file up, as one file with two names", () => {
    const [, upper = ""] = unpack([
      layer(file("etc/old", "text", { mode: "4711", uid: 5, xattrs: { "user.k": "76" } })),
      layer(hard("bin/new", "etc/old")),
    ]);
    expect(lstatSync(join(upper, "bin/new"))).toMatchObject({
      ino: lstatSync(join(upper, "etc/old")).ino,
      mode: 0o104711,
      uid: 5,
      nlink: 2,
    });
    expect(text(upper, "bin/new")).toBe("text");
  });

  test("a hard link to what a layer above removed is an error", () => {
    expect(() => unpack([layer(file("a")), layer(file(".wh.a")), layer(hard("b", "a"))])).toThrowError(
      "does not exist",
    );
    expect(() =>
      unpack([layer(file("d/a")), layer(folder("d"), file("d/.wh..wh..opq"), hard("b", "d/a"))]),
    ).toThrowError("does not exist");
  });

  test("an entry takes the place of an earlier one of any kind", () => {
    const [root = ""] = unpack([
      layer(
        folder("a"),
        file("a/in"),
        file("a", "file"),
        file("b"),
        folder("b"),
        file("b/in", "b"),
        link("c", "b"),
        file("c", "c"),
        link("d", "b"),
        folder("d"),
        file("d/in", "d"),
        folder("e"),
        link("e", "b"),
        file("e/more", "e"),
        folder("f", { mode: "0700" }),
        file("f/in", "f"),
        folder("f", { mode: "0711" }),
        hard("b/same", "b/in"),
        hard("b/same", "b/in"),
        hard("b/in", "b/in"),
      ),
    ]);
    expect([text(root, "a"), text(root, "b/in"), text(root, "c"), text(root, "d/in"), text(root, "f/in")]).toEqual([
      "file",
      "b",
      "c",
      "d",
      "f",
    ]);
    expect(readlinkSync(join(root, "e"))).toBe("b");
    expect(text(root, "b/more")).toBe("e");
    expect(lstatSync(join(root, "f")).mode & 0o777).toBe(0o711);
  });

  test("whiteouts and opaque directories become overlay's own", () => {
    const [bottom = "", upper = ""] = unpack([
      layer(file("a"), file("d/x"), file("e/x"), file("f/x"), file("g/x"), file(".wh.nothing"), file("d/.wh..wh..opq")),
      layer(
        file(".wh.a"),
        file("d/new"),
        file("d/.wh..wh..opq"),
        file(".wh.e"),
        file("e/y"),
        file("f/y"),
        file(".wh.f"),
        file(".wh.g"),
        file("g", "again"),
      ),
    ]);
    expect(names(bottom)).toEqual(["a", "d", "e", "f", "g"]);
    expect(xattrs(bottom)).toEqual([]);
    expect(isWhiteout(join(upper, "a"))).toBe(true);
    expect(text(upper, "g")).toBe("again");
    expect(xattrs(upper)).toEqual(["d", "e", "f"].map((name) => `b'${name}' trusted.overlay.opaque 79`));
    expect(names(join(upper, "e"))).toEqual(["y"]);
  });

  test("for aufs whiteouts stay files", () => {
    const [, upper = ""] = unpack(
      [
        layer(file("a"), file("d/x"), file("e/x")),
        layer(file(".wh.a"), file("d/.wh..wh..opq"), file(".wh.e"), file("e", "again")),
      ],
      { whiteouts: AUFS_WHITEOUTS },
    );
    expect(names(upper)).toEqual([".wh.a", "d", "e"]);
    expect(names(join(upper, "d"))).toEqual([".wh..wh..opq"]);
    expect(() => unpack([layer(hard("b", "a"))], { whiteouts: AUFS_WHITEOUTS })).toThrowError();
  });

  test("an image cannot set the union file system's attributes or security labels", () => {
    const given = {
      "trusted.overlay.opaque": "79",
      "trusted.overlay.redirect": "2f",
      "user.overlay.opaque": "79",
      "security.selinux": "61",
      "user.kept": "62",
    };
    const [root = ""] = unpack([layer(folder("d", { xattrs: given }), file("f", "", { xattrs: given }))]);
    const lines = describeTree(root)
      .split("\n")
      .filter((line) => line.startsWith("b'"));
    expect(lines).toEqual(["b'd' user.kept 62", "b'f' user.kept 62"]);
  });

  test("'./' sets the root's own mode and time", () => {
    const [root = ""] = unpack([layer(folder(".", { mode: "0711", mtime: "1000.5" }), file("x"))]);
    expect(lstatSync(root)).toMatchObject({ mode: 0o40711, mtimeMs: 1000500 });
  });
});

describe.skipIf(!isRoot)("hostile layers (needs root)", () => {
  const refused =
    /^(parent member|dot-dot|root as symlink|empty name|zero byte|hard link to (parent|nothing|directory)|relative symlink as parent$|symlink chain|whiteout of|file as parent|negative|huge|size|pax|long name|path of 8000|name of 300)/;

  let canary = "";
  let before = "";
  beforeAll(() => {
    canary = mkdtempSync(join(tmpdir(), "canary-"));
    makeCanary(canary);
    writeFileSync(join(canary, "kept"), "kept");
    before = describeTree(canary);
  });
  afterAll(() => rmSync(canary, { recursive: true }));

  test.each(Object.keys(MALICIOUS_LAYERS))(
    "%s: nothing outside is touched, and it ends in a layer or in an error of ours",
    (name) => {
      let error: unknown;
      try {
        unpack(MALICIOUS_LAYERS[name]?.(canary) ?? []);
      } catch (caught) {
        error = caught;
      }
      if (error !== undefined) expect(error).toBeInstanceOf(ContainerError);
      expect(describeTree(canary)).toBe(before);
      expect(existsSync(join(canary, "escaped"))).toBe(false);
      if (refused.test(name)) expect(error, "must be refused").toBeDefined();
    },
  );
});
