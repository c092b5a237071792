#!/usr/bin/env node
/**
 * Builds the fixtures into .build/, remaking what is out of date: `node rootfs-fixtures/build.mjs`.
 * Needs gcc, zstd where zlib has none, and Debian's busybox-static.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { archive, dockerFiles, ociFiles, writeDirectory } from "./images/image.mjs";
import { writeTar } from "./tar.mjs";
import { makeTree, resolveEntries } from "./tree.mjs";

export { archive, digest, dockerFiles, ociFiles, writeDirectory } from "./images/image.mjs";
export { MALICIOUS_ARCHIVES, MALICIOUS_LAYERS, maliciousArchive } from "./images/malicious.mjs";
export { writeTar } from "./tar.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const BUILD = join(HERE, ".build");
const BUSYBOX = "/bin/busybox";
const CFLAGS = [
  ..."-std=c17 -D_GNU_SOURCE -O2 -static -s -Wl,--build-id=none -Wall -Wextra -Wconversion -Wshadow".split(" "),
  ..."-Wswitch-enum -Wmissing-prototypes -Wstrict-prototypes -Wvla -Werror".split(" "),
];
const PROGRAMS = {
  probe: { sources: ["probe.c", "report.c", "action.c", "file.c", "json.c"], flags: [] },
  true: {
    sources: ["true.c"],
    flags: ["-nostdlib", "-ffreestanding", "-fno-stack-protector", "-Wl,-z,noseparate-code"],
  },
};
const ROOTS = ["minimal", "shell", "hostile"];
const IMAGES = ["fixture", "quickstart", "sparse", "variants"];
const image = (name) => ({
  docker: join(BUILD, "images", `${name}.docker.tar`),
  ociGzip: join(BUILD, "images", `${name}.oci-gzip.tar`),
  ociZstd: join(BUILD, "images", `${name}.oci-zstd.tar`),
  layout: join(BUILD, "images", `${name}.layout`),
});

/** Where everything is, once build() has been called. */
export const fixtures = {
  probe: join(BUILD, "bin/probe"),
  true: join(BUILD, "bin/true"),
  roots: Object.fromEntries(ROOTS.map((name) => [name, join(BUILD, name)])),
  /** What the links of the hostile root point at. */
  canary: join(BUILD, "canary"),
  images: Object.fromEntries(IMAGES.map((name) => [name, image(name)])),
};

const sources = { probe: fixtures.probe, true: fixtures.true, busybox: BUSYBOX };

/** Makes what is missing or older than what it is made of; say is told of each thing made. */
export function build(say = () => {}) {
  requireStaticBusybox();
  const compiler = compilerOf();
  for (const [name, program] of Object.entries(PROGRAMS)) {
    // a machine without a compiler takes what another has built
    if (compiler === undefined && existsSync(fixtures[name])) continue;
    const files = readdirSync(join(HERE, "probe"))
      .sort()
      .map((file) => join(HERE, "probe", file));
    const options = [...CFLAGS, ...program.flags];
    make(fixtures[name], [compiler ?? "", options.join(" "), ...files.map(content)], say, (path) =>
      execFileSync("gcc", [...options, "-o", path, ...program.sources.map((file) => join(HERE, "probe", file))], {
        stdio: ["ignore", "inherit", "inherit"],
      }),
    );
  }
  const programs = Object.values(sources).map(content);
  for (const name of ROOTS) {
    const description = content(join(HERE, name, "manifest.json"));
    // The canary's own path is in the links: a tree that was moved is out of date.
    const inputs = [description, fixtures.canary, content(join(HERE, "tree.mjs")), ...programs];
    make(fixtures.roots[name], inputs, say, (path) => makeRoot(name, path, fixtures.canary));
    if (name === "hostile") make(fixtures.canary, inputs, say, makeCanary);
  }
  const code = ["tar.mjs", "tree.mjs", "images/image.mjs"].map((file) => content(join(HERE, file)));
  const manifests = ROOTS.map((name) => content(join(HERE, name, "manifest.json")));
  for (const name of IMAGES) {
    const inputs = [content(join(HERE, "images", `${name}.json`)), ...code, ...manifests, ...programs];
    const paths = fixtures.images[name];
    let images;
    const once = () => {
      images ??= readImages(name);
      return images;
    };
    make(paths.docker, inputs, say, (path) => writeFileSync(path, archive(dockerFiles(once()))));
    make(paths.ociGzip, inputs, say, (path) => writeFileSync(path, archive(ociFiles(once(), "gzip"))));
    make(paths.ociZstd, inputs, say, (path) => writeFileSync(path, archive(ociFiles(once(), "zstd"))));
    make(paths.layout, inputs, say, (path) => writeDirectory(path, ociFiles(once(), "gzip")));
  }
  return fixtures;
}

/** Which gcc this is; undefined where there is none. */
function compilerOf() {
  try {
    return execFileSync("gcc", ["-dumpfullversion", "-dumpmachine"]);
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
}

/** A fresh copy of a root, for a test that changes it. The hostile one's links point into canary. */
export function makeRoot(name, directory, canary = fixtures.canary) {
  makeTree(directory, resolveEntries(readManifest(join(name, "manifest.json")).entries, { sources, canary }));
}

/** A fresh canary for the hostile root: a stand-in for the host's files. */
export function makeCanary(directory) {
  makeTree(directory, resolveEntries(readManifest("hostile/manifest.json").canary, { sources }));
}

/** The images of a manifest with their layers as uncompressed tar: [{ name, config, layers }]. */
export function readImages(name) {
  const manifest = readManifest(join("images", `${name}.json`));
  const layers = manifest.layers.map((layer) => {
    const entries = Array.isArray(layer) ? layer : readManifest(join(layer.root, "manifest.json")).entries;
    return writeTar(resolveEntries(entries, { sources }));
  });
  return manifest.images.map((entry) => ({ ...entry, layers }));
}

/** What the root of an image (fixture, sparse) must look like once it is unpacked. */
export function readExpectation(name) {
  return readManifest(join("images", `${name}.json`)).expect;
}

function readManifest(path) {
  return JSON.parse(readFileSync(join(HERE, path), "utf8"));
}

function content(path) {
  return readFileSync(path);
}

/** Makes path through a name beside it, so that there is only ever a whole one; a stamp says of what. */
function make(path, inputs, say, write) {
  const hash = createHash("sha256");
  for (const input of inputs) hash.update(createHash("sha256").update(input).digest());
  const key = hash.digest("hex");
  const stamp = join(BUILD, "stamps", basename(path));
  if (existsSync(path) && existsSync(stamp) && readFileSync(stamp, "utf8") === key) return;
  say(`making ${path}`);
  mkdirSync(dirname(path), { recursive: true });
  mkdirSync(dirname(stamp), { recursive: true });
  const fresh = join(dirname(path), `.new-${process.pid}-${basename(path)}`);
  try {
    rmSync(fresh, { recursive: true, force: true });
    write(fresh);
    rmSync(path, { recursive: true, force: true });
    renameSync(fresh, path);
  } catch (error) {
    // Another build put the same directory there in between: it is as good.
    if (error.code !== "ENOTEMPTY") throw error;
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
  writeFileSync(stamp, key);
}

function requireStaticBusybox() {
  const advice = "install Debian's busybox-static";
  if (!existsSync(BUSYBOX)) throw new Error(`${BUSYBOX} is missing: ${advice}`);
  const elf = readFileSync(BUSYBOX);
  const [start, size, count] = [Number(elf.readBigUInt64LE(32)), elf.readUInt16LE(54), elf.readUInt16LE(56)];
  const interpreter = 3; // PT_INTERP of elf(5): only a dynamic executable has it
  for (let i = 0; i < count; i++)
    if (elf.readUInt32LE(start + i * size) === interpreter) throw new Error(`${BUSYBOX} is not static: ${advice}`);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  let made = 0;
  build((line) => {
    made++;
    console.log(line);
  });
  console.log(made === 0 ? `fixtures are up to date in ${BUILD}` : `fixtures made in ${BUILD}`);
}
