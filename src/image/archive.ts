import { closeSync, constants, fstatSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { basename } from "node:path";
import { ContainerError } from "../error.ts";
import { decompress, detectCompression } from "./compression.ts";
import { LAYER_LIMITS, peek } from "./layer.ts";
import {
  array,
  CONFIG_BYTES,
  type Descriptor,
  forThisMachine,
  MANIFEST_BYTES,
  MEDIA_TYPE,
  object,
  parseConfig,
  parseJson,
  parseManifest,
  parseObject,
  sha256,
  string,
} from "./manifest.ts";
import { digestHex, formatReference, parseReference } from "./reference.ts";
import { type TarEntry, TarReader } from "./tar.ts";

/** A layer that can be read; what is known of it beforehand is still to be verified. */
export interface LayerSource {
  /** As stored: compressed, if it is. */
  sizeBytes: number;
  /** Of the bytes as stored, where the archive says it. */
  digest?: string;
  open(): AsyncIterable<Uint8Array>;
}

/** One image of an archive. Manifest and configuration have been read and agree; layers are verified when they are read. */
export interface ImageSource {
  /** Normalised, "docker.io/library/debian:12". */
  names: string[];
  config: Buffer;
  /** Where the archive has one (OCI); otherwise one is written once the layers are known. */
  manifest?: { bytes: Buffer; mediaType: string };
  /** The bottom one first. */
  layers: LayerSource[];
}

export interface Archive {
  images: ImageSource[];
  close(): void;
}

const CHUNK_BYTES = 1 << 20;
const MEMBERS = 100_000;
const LINKS = 10;
const NAME_ANNOTATIONS = ["io.containerd.image.name", "org.opencontainers.image.ref.name"] as const;

/** Files by name, in a directory or within a tar archive. */
interface Files {
  find(path: string): { sizeBytes: number; open(): AsyncIterable<Uint8Array> } | undefined;
  close(): void;
}

/** The path that means standard input, which may be a socket, and so cannot be opened by a name. */
const STANDARD_INPUT = "-";

function fault(why: string): ContainerError {
  return new ContainerError({ message: `cannot read the archive: ${why}`, code: "ERR_ARCHIVE" });
}

/**
 * Opens what `docker save`, `podman save`, skopeo, buildah or umoci wrote: a docker archive, an OCI archive (either may
 * be compressed as a whole) or the directory of an OCI image layout; "-" is standard input. Members of an archive are read in place, by offset.
 * @param spool opens a file for reading and writing that vanishes when closed, for archives that cannot be read in place
 * (compressed, or from a pipe)
 * @throws ContainerError ERR_ARCHIVE, ERR_IMAGE, ERR_DIGEST, or that of opening the file
 */
export async function openArchive(path: string, spool: () => number): Promise<Archive> {
  const files = isDirectory(path) ? layoutDirectory(path) : await tarArchive(path, spool);
  try {
    const images = await readImages(files, path);
    if (images.length === 0) throw fault("it has no image for Linux on this machine");
    return { images, close: () => files.close() };
  } catch (error) {
    files.close();
    throw error;
  }
}

function opening<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    const { code, errno, syscall } = cause as NodeJS.ErrnoException; // node:fs throws nothing else
    const fields = { code, errno: errno === undefined ? undefined : Math.abs(errno), syscall, path, cause };
    throw new ContainerError({
      message: `cannot open ${path}: ${code === "ENOENT" ? "it does not exist" : code}`,
      ...fields,
    });
  }
}

/** A pipe is an archive too, but a device such as /dev/zero never ends. */
function isDirectory(path: string): boolean {
  const stat = opening(path, () => (path === STANDARD_INPUT ? fstatSync(0) : statSync(path)));
  if (stat.isCharacterDevice() || stat.isBlockDevice()) throw fault(`${path} is a device`);
  return stat.isDirectory();
}

/** A part of a file as chunks; each chunk is memory of its own, because decompression reads it in another thread. */
async function* readPart(fd: number, offset: number, sizeBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < sizeBytes; ) {
    const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, sizeBytes - at));
    const length = readSync(fd, chunk, 0, chunk.length, offset + at);
    if (length === 0) throw fault("it is cut short");
    at += length;
    yield chunk.subarray(0, length);
  }
}

async function* readAll(fd: number): AsyncGenerator<Uint8Array> {
  for (;;) {
    const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    const length = readSync(fd, chunk, 0, chunk.length, null);
    if (length === 0) return;
    yield chunk.subarray(0, length);
  }
}

function layoutDirectory(directory: string): Files {
  const open = (path: string) => {
    // a fifo must not make us wait
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    if (fstatSync(fd).isFile()) return fd;
    closeSync(fd);
    throw fault(`${path} is not a file`);
  };
  return {
    find(name) {
      const path = `${directory}/${name}`;
      const stat = statSync(path, { throwIfNoEntry: false });
      if (stat === undefined) return;
      return {
        sizeBytes: stat.size,
        async *open() {
          const fd = opening(path, () => open(path));
          try {
            yield* readPart(fd, 0, stat.size);
          } finally {
            closeSync(fd);
          }
        },
      };
    },
    close() {},
  };
}

async function tarArchive(path: string, spool: () => number): Promise<Files> {
  let fd = opening(path, () => (path === STANDARD_INPUT ? 0 : openSync(path, "r")));
  try {
    const isFile = fstatSync(fd).isFile();
    const head = Buffer.alloc(4);
    if (isFile) readSync(fd, head, 0, 4, 0);
    if (!isFile || detectCompression(head) !== "none") {
      const plain = spool();
      try {
        await copyPlain(readAll(fd), plain);
      } catch (error) {
        closeSync(plain);
        throw error;
      }
      closeSync(fd);
      fd = plain;
    }
    const members = indexMembers(fd);
    return {
      find(name) {
        const member = follow(members, name);
        return member && { sizeBytes: member.sizeBytes, open: () => readPart(fd, member.offset, member.sizeBytes) };
      },
      close: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

async function copyPlain(chunks: AsyncIterable<Uint8Array>, to: number): Promise<void> {
  const { head, rest } = await peek(chunks);
  let stored = 0;
  let written = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const chunk of rest) {
      stored += chunk.length;
      yield chunk;
    }
  }
  const { ratio, ratioFromBytes, uncompressedBytes } = LAYER_LIMITS;
  await decompress(counted(), detectCompression(head), (bytes) => {
    for (let done = 0; done < bytes.length; ) done += writeSync(to, bytes, done);
    written += bytes.length;
    if (written > uncompressedBytes || (written > ratioFromBytes && written > ratio * stored))
      throw new ContainerError({ message: "cannot accept the archive: it grows without measure", code: "ERR_LIMIT" });
  });
}

interface Member {
  offset: number;
  sizeBytes: number;
  /** Path of the member it stands for: old docker archives have links between equal layers. */
  link?: string;
}

/** Where each member's contents are. Goes from header to header; the contents themselves are not read. */
function indexMembers(fd: number): Map<string, Member> {
  const members = new Map<string, Member>();
  const sizeBytes = fstatSync(fd).size;
  let current: TarEntry | undefined;
  const reader = new TarReader(
    {
      begin(entry) {
        current = entry;
        const path = cleanPath(entry.path.toString());
        if (entry.type === "file" && !entry.sparse)
          members.set(path, { offset: reader.positionBytes, sizeBytes: entry.sizeBytes });
        else if (entry.type === "hardlink")
          members.set(path, { offset: 0, sizeBytes: 0, link: cleanPath(entry.link.toString()) });
        else if (entry.type === "symlink")
          members.set(path, { offset: 0, sizeBytes: 0, link: cleanPath(`${path}/../${entry.link}`) });
      },
      data() {},
      end() {
        current = undefined;
      },
    },
    { entries: MEMBERS },
  );
  const chunk = Buffer.allocUnsafe(4096);
  while (reader.positionBytes < sizeBytes) {
    // one block at a time, so that a member's header does not come together with its contents
    const length = readSync(fd, chunk, 0, current === undefined ? 512 : chunk.length, reader.positionBytes);
    if (length === 0) break;
    reader.push(chunk.subarray(0, length));
    if (reader.skippableBytes > 0) reader.skip(Math.min(reader.skippableBytes, sizeBytes - reader.positionBytes));
  }
  reader.finish();
  return members;
}

function follow(members: Map<string, Member>, path: string): Member | undefined {
  let member = members.get(cleanPath(path));
  for (let links = 0; member?.link !== undefined; links++) {
    if (links > LINKS) throw fault(`too many links lead to ${path}`);
    member = members.get(member.link);
  }
  return member;
}

/** "./a/../b" is "b"; it only ever is a key of the index, never a path of this machine. */
function cleanPath(path: string): string {
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "..") names.pop();
    else if (name !== "" && name !== ".") names.push(name);
  }
  return names.join("/");
}

async function readFile(files: Files, path: string, limitBytes: number): Promise<Buffer | undefined> {
  const file = files.find(path);
  if (file === undefined) return;
  if (file.sizeBytes > limitBytes) throw fault(`${path} has ${file.sizeBytes} bytes`);
  const chunks: Uint8Array[] = [];
  for await (const chunk of file.open()) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function readImages(files: Files, path: string): Promise<ImageSource[]> {
  const layout = await readFile(files, "oci-layout", MANIFEST_BYTES);
  const index = await readFile(files, "index.json", MANIFEST_BYTES);
  const docker = await readFile(files, "manifest.json", MANIFEST_BYTES);
  if (layout !== undefined && index !== undefined) {
    const version = parseObject(layout, "oci-layout").imageLayoutVersion;
    if (version !== "1.0.0") throw fault(`version ${JSON.stringify(version)} of the image layout is unknown`);
    const images = await readLayout(files, index, path);
    // newer docker writes both; names are then in both, or in manifest.json alone
    if (docker !== undefined) addNames(images, docker);
    if (images.length > 0) return images;
  }
  if (docker !== undefined) return readDocker(files, docker);
  throw fault(
    files.find("repositories") === undefined
      ? "it has neither manifest.json (docker) nor oci-layout and index.json (OCI)"
      : "it is from docker before 1.10, which wrote no manifest.json",
  );
}

/** A blob of a layout, verified. */
async function readBlob(files: Files, { digest, size }: Descriptor, limitBytes: number): Promise<Buffer> {
  const bytes = await readFile(files, `blobs/sha256/${digestHex(digest)}`, limitBytes);
  if (bytes === undefined) throw fault(`blob ${digest} is missing`);
  if (bytes.length !== size || sha256(bytes) !== digest)
    throw new ContainerError({
      message: `cannot accept blob ${digest}: its contents have another digest`,
      code: "ERR_DIGEST",
    });
  return bytes;
}

async function readLayout(files: Files, index: Buffer, path: string): Promise<ImageSource[]> {
  const images = new Map<string, ImageSource>();
  const visit = async (found: Descriptor[], names: string[], depth: number): Promise<void> => {
    for (const descriptor of found) {
      // signatures, attestations and the like stand in indexes too
      const known: string[] = [
        MEDIA_TYPE.index,
        MEDIA_TYPE.manifest,
        MEDIA_TYPE.dockerIndex,
        MEDIA_TYPE.dockerManifest,
      ];
      if (!known.includes(descriptor.mediaType)) continue;
      const all = [...new Set([...names, ...annotatedNames(descriptor, path)])];
      const bytes = await readBlob(files, descriptor, MANIFEST_BYTES);
      const read = parseManifest(bytes, descriptor.mediaType);
      if ("manifests" in read) {
        if (depth > 3) throw fault("indexes are nested too deeply");
        // an index is one image in several builds: the first for this machine is the image
        await visit(forThisMachine(read.manifests).slice(0, 1), all, depth + 1);
        continue;
      }
      const existing = images.get(descriptor.digest);
      if (existing !== undefined) existing.names = [...new Set([...existing.names, ...all])];
      else images.set(descriptor.digest, await readOciImage(files, { bytes, mediaType: descriptor.mediaType }, all));
    }
  };
  const read = parseManifest(index);
  if (!("manifests" in read)) throw fault("index.json is not an index");
  await visit(forThisMachine(read.manifests), [], 0);
  return [...images.values()];
}

async function readOciImage(
  files: Files,
  manifest: { bytes: Buffer; mediaType: string },
  names: string[],
): Promise<ImageSource> {
  const read = parseManifest(manifest.bytes, manifest.mediaType);
  if ("manifests" in read) throw fault("an index stands where a manifest should");
  const config = await readBlob(files, read.manifest.config, CONFIG_BYTES);
  const { diffIds } = parseConfig(config);
  if (diffIds.length !== read.manifest.layers.length)
    throw fault(`the manifest has ${read.manifest.layers.length} layers, the configuration ${diffIds.length}`);
  const layers = read.manifest.layers.map(({ digest, size }) => {
    const file = files.find(`blobs/sha256/${digestHex(digest)}`);
    if (file === undefined) throw fault(`blob ${digest} is missing`);
    if (file.sizeBytes !== size) throw fault(`blob ${digest} has ${file.sizeBytes} bytes instead of ${size}`);
    return { sizeBytes: size, digest, open: () => file.open() };
  });
  return { names, config, manifest, layers };
}

/** Names of an image in a layout: a whole reference, or a tag alone, which belongs to the name of the file or directory. */
function annotatedNames({ annotations }: Descriptor, path: string): string[] {
  for (const key of NAME_ANNOTATIONS) {
    const value = annotations?.[key];
    if (value === undefined) continue;
    const stem = basename(path)
      .replace(/\.(tar|tgz|gz|zst|oci)\b.*$/, "")
      .toLowerCase();
    const name = normalise(/[/:]/.test(value) ? value : `${stem}:${value}`);
    if (name !== undefined) return [name];
  }
  return [];
}

function normalise(name: string): string | undefined {
  try {
    return formatReference(parseReference(name));
  } catch {
    // what other programs call their images need not be a name for us; the image keeps its id
    return;
  }
}

interface DockerImage {
  config: string;
  names: string[];
  layers: string[];
}

function parseDocker(bytes: Buffer): DockerImage[] {
  return array(parseJson(bytes, "manifest.json"), "manifest.json").map((item, i) => {
    const { Config, RepoTags, Layers } = object(item, `manifest.json[${i}]`);
    const names = array(RepoTags ?? [], "RepoTags").map((name) => normalise(string(name, "RepoTags")));
    return {
      config: string(Config, "Config"),
      names: names.filter((name) => name !== undefined),
      layers: array(Layers ?? [], "Layers").map((layer) => string(layer, "Layers")),
    };
  });
}

function addNames(images: ImageSource[], docker: Buffer): void {
  for (const { config, names } of parseDocker(docker)) {
    const hex = /([a-f0-9]{64})(\.json)?$/.exec(config)?.[1];
    const image = images.find((candidate) => sha256(candidate.config) === `sha256:${hex}`);
    if (image !== undefined) image.names = [...new Set([...image.names, ...names])];
  }
}

async function readDocker(files: Files, docker: Buffer): Promise<ImageSource[]> {
  const images: ImageSource[] = [];
  for (const { config: configPath, names, layers } of parseDocker(docker)) {
    const config = await readFile(files, configPath, CONFIG_BYTES);
    if (config === undefined) throw fault(`${configPath} is missing`);
    const hex = /^([a-f0-9]{64})\.json$|^blobs\/sha256\/([a-f0-9]{64})$/.exec(configPath);
    if (hex !== null && sha256(config) !== `sha256:${hex[1] ?? hex[2]}`)
      throw new ContainerError({
        message: `cannot accept ${configPath}: its contents have another digest`,
        code: "ERR_DIGEST",
      });
    const { diffIds } = parseConfig(config);
    if (diffIds.length !== layers.length)
      throw fault(`manifest.json has ${layers.length} layers, the configuration ${diffIds.length}`);
    images.push({
      names,
      config,
      layers: layers.map((path) => {
        const file = files.find(path);
        if (file === undefined) throw fault(`${path} is missing`);
        return file;
      }),
    });
  }
  return images;
}
