/** Layers and configurations → the archives that docker save, skopeo and others write. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import * as zlib from "node:zlib";
import { writeTar } from "../tar.mjs";

const CREATED = "2023-11-14T22:13:20Z";
const ARCHITECTURES = { x64: "amd64", arm64: "arm64" };
const COMPRESSIONS = {
  none: { suffix: "", compress: (bytes) => bytes },
  gzip: { suffix: "+gzip", compress: (bytes) => zlib.gzipSync(bytes) },
  zstd: { suffix: "+zstd", compress: compressZstd },
};

function compressZstd(bytes) {
  if (zlib.zstdCompressSync !== undefined) return zlib.zstdCompressSync(bytes);
  return execFileSync("zstd", ["-q", "-c"], { input: bytes, maxBuffer: 1 << 30 });
}

export function digest(bytes) {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/**
 * Files of a docker archive as docker save wrote it up to version 24, as [path, bytes].
 * images: [{ name: "caisson/fixture:latest", config, layers: [uncompressed tar] }]; layers of equal bytes are
 * stored once.
 */
export function dockerFiles(images) {
  const files = new Map();
  const manifest = [];
  const repositories = {};
  for (const { name, config, layers } of images) {
    const configBytes = writeConfig(config, layers);
    const configPath = `${digest(configBytes).slice(7)}.json`;
    const layerPaths = layers.map((layer) => `${digest(layer).slice(7)}/layer.tar`);
    files.set(configPath, configBytes);
    for (const [i, path] of layerPaths.entries()) files.set(path, layers[i]);
    manifest.push({ Config: configPath, RepoTags: [name], Layers: layerPaths });
    const [repository, tag] = name.split(":");
    repositories[repository] = { ...repositories[repository], [tag]: layerPaths.at(-1)?.split("/")[0] ?? "" };
  }
  files.set("manifest.json", json(manifest));
  files.set("repositories", json(repositories));
  return [...files];
}

/** Files of an OCI image layout (image-spec, image-layout.md), as [path, bytes]; compression: none gzip zstd. */
export function ociFiles(images, compression) {
  const { suffix, compress } = COMPRESSIONS[compression];
  const blobs = new Map();
  const add = (mediaType, bytes, more) => {
    blobs.set(`blobs/sha256/${digest(bytes).slice(7)}`, bytes);
    return { mediaType, digest: digest(bytes), size: bytes.length, ...more };
  };
  const manifests = images.map(({ name, config, layers }) => {
    const manifest = {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: add("application/vnd.oci.image.config.v1+json", writeConfig(config, layers)),
      layers: layers.map((layer) => add(`application/vnd.oci.image.layer.v1.tar${suffix}`, compress(layer))),
    };
    // The names that docker save writes: containerd's is the whole reference, the standard one only the tag.
    const annotations = {
      "io.containerd.image.name": `docker.io/${name}`,
      "org.opencontainers.image.ref.name": name.split(":")[1],
    };
    return add(manifest.mediaType, json(manifest), { annotations });
  });
  return [
    ["oci-layout", json({ imageLayoutVersion: "1.0.0" })],
    ["index.json", json({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests })],
    ...blobs,
  ];
}

/** One tar file of these files, with directories before what they hold. */
export function archive(files) {
  const directories = new Set();
  const members = [];
  for (const [path, content] of files) {
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
      const directory = path.slice(0, at);
      if (!directories.has(directory)) members.push({ path: directory, type: "directory" });
      directories.add(directory);
    }
    members.push({ path, type: "file", content });
  }
  return writeTar(members);
}

export function writeDirectory(directory, files) {
  for (const [path, bytes] of files) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), bytes);
  }
}

function writeConfig(config, layers) {
  return json({
    created: CREATED,
    architecture: ARCHITECTURES[process.arch] ?? process.arch,
    os: "linux",
    config,
    rootfs: { type: "layers", diff_ids: layers.map(digest) },
    history: layers.map((_, i) => ({ created: CREATED, created_by: `layer ${i + 1}` })),
  });
}

function json(value) {
  return Buffer.from(JSON.stringify(value));
}
