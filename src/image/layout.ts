import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeSync,
} from "node:fs";
import { ContainerError } from "../error.ts";
import {
  chainIds,
  type Descriptor,
  type ImageConfig,
  type Manifest,
  MEDIA_TYPE,
  parseConfig,
  parseManifest,
  parseObject,
} from "./manifest.ts";
import { digestHex, formatReference, parseReference, type Reference } from "./reference.ts";

const NAME = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME = "io.containerd.image.name";

/**
 * An OCI image layout (image-layout.md): blobs, and the images that an index names. Other programs may read it, and
 * write to it while none of ours does.
 */
export class Layout {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Opens the layout in a directory, which is made where it is missing. @throws Node's errors */
  static open(directory: string): Layout {
    const layout = new Layout(directory);
    mkdirSync(layout.blobs, { recursive: true, mode: 0o700 });
    if (!existsSync(`${directory}/oci-layout`))
      writeAtomically(`${directory}/oci-layout`, JSON.stringify({ imageLayoutVersion: "1.0.0" }));
    return layout;
  }

  /** Directory of the blobs, by the hexadecimal digits of their digests. */
  get blobs(): string {
    return `${this.#directory}/blobs/sha256`;
  }

  /** The index. @throws ContainerError */
  read(): Descriptor[] {
    const path = `${this.#directory}/index.json`;
    if (!existsSync(path)) return [];
    const read = parseManifest(readFileSync(path));
    if (!("manifests" in read))
      throw new ContainerError({ message: `cannot read ${path}: it is no index`, code: "ERR_IMAGE", path });
    return read.manifests;
  }

  write(manifests: Descriptor[]): void {
    const path = `${this.#directory}/index.json`;
    // what others wrote into the index beside its manifests stays
    const before = existsSync(path) ? parseObject(readFileSync(path), path) : {};
    writeAtomically(path, JSON.stringify({ ...before, schemaVersion: 2, mediaType: MEDIA_TYPE.index, manifests }));
  }

  blobPath(digest: string): string {
    return `${this.blobs}/${digestHex(digest)}`;
  }

  blobSize(digest: string): number | undefined {
    return statSync(this.blobPath(digest), { throwIfNoEntry: false })?.size;
  }

  /** Adds images; a name that one of them has goes to it. */
  add(entries: readonly Descriptor[]): void {
    const names = new Set(entries.map(nameOf));
    const digests = new Set(entries.map(({ digest }) => digest));
    const kept: Descriptor[] = [];
    for (const entry of this.read()) {
      const name = nameOf(entry);
      if (digests.has(entry.digest) && (name === undefined || names.has(name))) continue;
      if (name === undefined || !names.has(name)) kept.push(entry);
      // its name goes to another image, but the image stays
      else kept.push({ mediaType: entry.mediaType, digest: entry.digest, size: entry.size });
    }
    const all = [...kept, ...entries];
    const held = new Set(all.filter((entry) => nameOf(entry) !== undefined).map(({ digest }) => digest));
    const seen = new Set<string>();
    this.write(
      all.filter((entry) => {
        if (nameOf(entry) !== undefined) return true;
        const isNew = !held.has(entry.digest) && !seen.has(entry.digest);
        seen.add(entry.digest);
        return isNew;
      }),
    );
  }

  /** Entries of a name or an id; of an id also by its first digits. @throws ContainerError ERR_AMBIGUOUS */
  find(nameOrId: string): Descriptor[] {
    const entries = this.read();
    const reference = parseName(nameOrId);
    const byName = reference === undefined ? [] : entries.filter((entry) => isNamed(entry, reference));
    if (byName.length > 0) return reference?.digest === undefined ? byName : byName.slice(0, 1);
    const hex = /^(?:sha256:)?([a-f0-9]{1,64})$/.exec(nameOrId)?.[1];
    if (hex === undefined) return [];
    const found = entries.filter((entry) => this.image(entry)?.manifest.config.digest.startsWith(`sha256:${hex}`));
    const ids = new Set(found.map((entry) => this.image(entry)?.manifest.config.digest));
    if (ids.size > 1)
      throw new ContainerError({
        message: `cannot tell which image ${nameOrId} is: ${ids.size} ids begin so`,
        code: "ERR_AMBIGUOUS",
      });
    return found;
  }

  /** undefined for what is no image for this program: others may keep in a layout what they like. */
  image({ digest, mediaType }: Descriptor): { manifest: Manifest; config: ImageConfig } | undefined {
    try {
      const read = parseManifest(readFileSync(this.blobPath(digest)), mediaType);
      if ("manifests" in read) return;
      return {
        manifest: read.manifest,
        config: parseConfig(readFileSync(this.blobPath(read.manifest.config.digest))),
      };
    } catch {
      return;
    }
  }

  /** Blobs (digits) and unpacked layers (chain ids) that entries need; undefined where that cannot be told. */
  needed(entries: readonly Descriptor[]): { blobs: Set<string>; layers: Set<string> } | undefined {
    const blobs = new Set<string>();
    const layers = new Set<string>();
    const mark = (descriptor: Descriptor): void => {
      blobs.add(digestHex(descriptor.digest));
      if (this.blobSize(descriptor.digest) === undefined) return;
      const read = parseManifest(readFileSync(this.blobPath(descriptor.digest)), descriptor.mediaType);
      if ("manifests" in read) {
        for (const inner of read.manifests) mark(inner);
        return;
      }
      for (const { digest } of [read.manifest.config, ...read.manifest.layers]) blobs.add(digestHex(digest));
      const config = parseConfig(readFileSync(this.blobPath(read.manifest.config.digest)));
      for (const id of chainIds(config.diffIds)) layers.add(id);
    };
    try {
      for (const entry of entries) mark(entry);
    } catch {
      // another program wrote something here that we do not understand: nothing may be deleted then
      return;
    }
    return { blobs, layers };
  }
}

/** An entry with a name, as skopeo, podman and containerd read it. */
export function named(entry: Descriptor, name: string | undefined): Descriptor {
  return name === undefined ? entry : { ...entry, annotations: { [NAME]: name, [CONTAINERD_NAME]: name } };
}

export function nameOf({ annotations }: Descriptor): string | undefined {
  return annotations?.[NAME];
}

export function sameEntry(one: Descriptor, other: Descriptor): boolean {
  return one.digest === other.digest && nameOf(one) === nameOf(other);
}

function parseName(name: string): Reference | undefined {
  try {
    return parseReference(name);
  } catch {
    // an id is no name
    return;
  }
}

function isNamed(entry: Descriptor, wanted: Reference): boolean {
  const name = nameOf(entry);
  if (name === undefined) return false;
  if (wanted.digest === undefined) return name === formatReference(wanted);
  const own = parseName(name);
  return own?.registry === wanted.registry && own.repository === wanted.repository && entry.digest === wanted.digest;
}

/** The old contents or the new, whenever the power fails. */
function writeAtomically(path: string, text: string): void {
  const beside = `${path}.new`;
  const fd = openSync(beside, "w", 0o600);
  writeSync(fd, text);
  fsyncSync(fd);
  closeSync(fd);
  renameSync(beside, path);
  const directory = openSync(path.slice(0, path.lastIndexOf("/")), "r");
  fsyncSync(directory);
  closeSync(directory);
}
