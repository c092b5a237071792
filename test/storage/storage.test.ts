import { execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Entry, readImages, writeTar } from "../../rootfs-fixtures/build.mjs";
import { TarReader } from "../../src/image/tar.ts";
import { aufsOptions } from "../../src/storage/aufs.ts";
import { mountOverlay } from "../../src/storage/overlay.ts";
import { chooseDriver, DRIVERS } from "../../src/storage/storage.ts";
import { Unpacker } from "../../src/storage/unpack.ts";
import { describeTree } from "./tree-digest.ts";

const isRoot = process.getuid?.() === 0;
let directory = "";
let container = "";

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "storage-"));
  container = join(directory, "container");
  mkdirSync(container, { mode: 0o700 });
});
afterEach(() => execFileSync("rm", ["-rf", directory]));

/** Unpacks layers, the bottom one first. @returns their directories, the top one first */
function unpack(layers: Buffer[]): string[] {
  const paths: string[] = [];
  for (const layer of layers) {
    const path = join(directory, `layer-${paths.length}`);
    mkdirSync(path);
    const lower = paths.map((below) => openSync(below, "r"));
    const root = openSync(path, "r");
    const unpacker = new Unpacker({ root, lower });
    const reader = new TarReader(unpacker);
    reader.push(layer);
    reader.finish();
    unpacker.finish();
    unpacker.close();
    for (const fd of [root, ...lower]) closeSync(fd);
    paths.unshift(path);
  }
  return paths;
}

const file = (path: string, text = ""): Entry => ({ path, type: "file", content: Buffer.from(text) });
const seen = (fd: number, path = "") => `/proc/self/fd/${fd}/${path}`;
/** Programs see a detached mount through our descriptor. */
const ours = (fd: number) => `/proc/${process.pid}/fd/${fd}/.`;
const isOnHost = () => readFileSync("/proc/self/mountinfo", "utf8").includes(directory);

test("overlay is chosen where there is one, then aufs, then vfs", () => {
  expect(chooseDriver("nodev\tsysfs\n\text4\nnodev\toverlay\n")).toBe("overlay");
  expect(chooseDriver("nodev\toverlay\nnodev\taufs\n")).toBe("overlay");
  expect(chooseDriver("nodev\tsysfs\nnodev\taufs\n")).toBe("aufs");
  expect(chooseDriver("nodev\toverlay\nnodev\taufs\n", ["overlay"])).toBe("aufs");
  expect(chooseDriver("nodev\toverlay\n", ["overlay"])).toBe("vfs");
  expect(chooseDriver("nodev\tnooverlay\n")).toBe("vfs");
});

test("aufs' options fill one page each, and name every layer once, in order", () => {
  expect(aufsOptions("/c/upper", ["/l/b", "/l/a"])).toEqual([
    "br:/c/upper=rw:/l/b=ro+wh:/l/a=ro+wh,dio,xino=/dev/shm/aufs.xino",
  ]);
  const layers = Array.from({ length: 150 }, (_, i) => `/var/lib/caisson/layers-aufs/${`${i}`.padStart(64, "0")}/diff`);
  const options = aufsOptions("/c/upper", layers);
  for (const option of options) expect(option.length).toBeLessThan(4096);
  for (const option of options.slice(1)) expect(option.startsWith("append:/var")).toBe(true);
  expect(options.join(",").match(/\/var[^=]*/g)).toEqual(layers);
});

describe.skipIf(!isRoot)("an overlay (needs root)", () => {
  test.each(["descriptors", "names", "page"] as const)(
    "of 150 layers through %s shows them all and is on no mount table",
    (how) => {
      const layers = unpack(
        Array.from({ length: 150 }, (_, i) =>
          writeTar([file(`own/${i}`, `${i}`), file("last", `${i}`), ...(i > 0 ? [file(`own/.wh.${i - 1}`)] : [])]),
        ),
      );
      mkdirSync(join(container, "upper"));
      mkdirSync(join(container, "work"));
      const cwd = process.cwd();
      const fd = mountOverlay({ layers, container, interface: how });
      try {
        expect(process.cwd()).toBe(cwd);
        expect(readFileSync(seen(fd, "last"), "utf8")).toBe("149");
        expect(execFileSync("ls", [`${ours(fd)}/own`], { encoding: "utf8" })).toBe("149\n");
        writeFileSync(seen(fd, "written"), "x");
        expect(readFileSync(join(container, "upper/written"), "utf8")).toBe("x");
        expect(isOnHost()).toBe(false);
      } finally {
        closeSync(fd);
      }
    },
  );

  test("shows the image as its manifest describes it, and the plain copy shows the same", () => {
    for (const image of ["fixture", "variants"] as const) {
      const layers = unpack(readImages(image)[0]?.layers ?? []);
      const [one, two] = [join(container, `${image}-1`), join(container, `${image}-2`)];
      mkdirSync(one);
      mkdirSync(two);
      const trees: string[] = [];
      for (const [driver, home] of [
        [DRIVERS.overlay, one],
        [DRIVERS.vfs, two],
      ] as const) {
        const parts = { layers, container: home };
        driver.prepare(parts);
        const fd = driver.mount(parts);
        trees.push(describeTree(ours(fd)));
        closeSync(fd);
        driver.discard(parts);
        expect(execFileSync("ls", ["-A", home], { encoding: "utf8" })).toBe("");
      }
      expect(trees[0]?.length).toBeGreaterThan(500);
      // an overlay shows a root directory of its own time and no merged link counts
      const comparable = (tree: string | undefined) => tree?.replace(/^\.\|.*\n/m, "");
      expect(comparable(trees[1])).toBe(comparable(trees[0]));
      execFileSync("bash", ["-c", `rm -rf "$1"/layer-*`, "-", directory]);
    }
  });

  test.each(["overlay", "vfs"] as const)(
    "with a user namespace the ids on the disk are ids in it (%s)",
    async (name) => {
      const layers = unpack([writeTar([{ ...file("f"), uid: 5, gid: 6 }]), writeTar([file("g")])]);
      const child = spawn("unshare", ["--user", "sleep", "60"], { stdio: "ignore" });
      try {
        await new Promise((resolve) => setTimeout(resolve, 300));
        writeFileSync(`/proc/${child.pid}/uid_map`, "0 100000 65536");
        writeFileSync(`/proc/${child.pid}/gid_map`, "0 200000 65536");
        const userns = openSync(`/proc/${child.pid}/ns/user`, "r");
        const parts = { layers, container };
        DRIVERS[name].prepare(parts);
        const fd = DRIVERS[name].mount(parts, userns);
        const stat = (path: string) =>
          execFileSync("stat", ["-c", "%u:%g", `${ours(fd)}/${path}`], { encoding: "utf8" }).trim();
        expect([stat("f"), stat("g"), stat("")]).toEqual(["100005:200006", "100000:200000", "100000:200000"]);
        // what the namespace's root writes: of the disk's root in an idmapped copy, of its own id in an upper directory
        const asUser = ["--reuid=100000", "--regid=200000", "--clear-groups", "touch", "/proc/self/fd/3/by-user"];
        execFileSync("setpriv", asUser, { stdio: ["ignore", "pipe", "pipe", fd] });
        const home = join(container, name === "vfs" ? "root" : "upper");
        expect(execFileSync("stat", ["-c", "%u:%g", join(home, "by-user")], { encoding: "utf8" })).toBe(
          name === "vfs" ? "0:0\n" : "100000:200000\n",
        );
        closeSync(fd);
        closeSync(userns);
      } finally {
        child.kill("SIGKILL");
      }
    },
  );

  test("without layers, or with more than overlayfs takes, is refused by name", () => {
    expect(() => mountOverlay({ layers: [], container })).toThrowError("cannot join 0 layers");
    expect(() => mountOverlay({ layers: Array(501).fill("/"), container })).toThrowError("cannot join 501 layers");
    expect(existsSync(join(container, "upper"))).toBe(false);
  });
});
