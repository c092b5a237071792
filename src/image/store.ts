import { randomBytes } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { lock } from "../kernel/file.ts";
import { call } from "../kernel/syscall.ts";
import { listNames, removeTree } from "../storage/tree.ts";
import { Unpacker } from "../storage/unpack.ts";
import { AUFS_WHITEOUTS, OVERLAY_WHITEOUTS } from "../storage/whiteout.ts";
import { type ImageSource, type LayerSource, openArchive } from "./archive.ts";
import { chainIds, type LayerLimits, readLayer } from "./layer.ts";
import { Layout, named, nameOf, sameEntry } from "./layout.ts";
import { type Descriptor, type ImageConfig, type Manifest, MEDIA_TYPE, parseConfig, sha256 } from "./manifest.ts";
import { digestHex } from "./reference.ts";
import { type LayerRecord, Session } from "./session.ts";
import { TAR_LIMITS, TarReader } from "./tar.ts";

/** How whiteouts are stored: what the union file system of this machine understands. */
export type LayerFormat = "overlay" | "aufs";

export interface LoadProgress {
  /** From 1. */
  layer: number;
  layers: number;
  readBytes: number;
  sizeBytes: number;
}

export interface LoadOptions {
  progress?: (progress: LoadProgress) => void;
  limits?: Partial<LayerLimits & { entries: number }>;
}

export interface ImageSummary {
  /** Normalised; undefined for an image whose name went to another. */
  name?: string;
  /** Digest of the configuration, "sha256:…". */
  id: string;
  manifestDigest: string;
  /** RFC 3339 */
  created?: string;
  /** Sum of the files' sizes in all layers. */
  sizeBytes: number;
}

export interface ResolvedImage {
  id: string;
  name?: string;
  manifestDigest: string;
  manifest: Manifest;
  config: ImageConfig;
  /** The bottom one first. */
  chainIds: string[];
  /** Directories with the unpacked layers, the top one first. */
  layerDirectories: string[];
}

const VERSION = 1;

/**
 * The images of a data directory:
 *
 *   oci/       an OCI image layout, which other programs can read
 *   layers/    unpacked layers by chain id: <hex>/diff and <hex>/layer.json
 *   incoming/  one directory a load that is running, locked by it; those of dead ones are removed by the next
 *
 * Blobs and layers are complete, verified and on the disk before they are renamed to their places, index.json last.
 */
export class ImageStore {
  #layout: Layout;
  #layers: string;
  #incoming: string;
  #format: LayerFormat;

  private constructor(dataDirectory: string, format: LayerFormat) {
    this.#layout = Layout.open(`${dataDirectory}/oci`);
    this.#layers = `${dataDirectory}/${format === "overlay" ? "layers" : "layers-aufs"}`;
    this.#incoming = `${dataDirectory}/incoming`;
    this.#format = format;
  }

  /** Opens the store of a data directory (absolute path), which is made where it is missing. @throws Node's errors */
  static open(dataDirectory: string, format: LayerFormat = "overlay"): ImageStore {
    const store = new ImageStore(dataDirectory, format);
    // set-id files of images must not be reached by anybody but root (CVE-2021-41091)
    for (const directory of [store.#layers, store.#incoming]) mkdirSync(directory, { recursive: true, mode: 0o700 });
    return store;
  }

  /**
   * Loads the images of an archive or layout directory (see openArchive): each layer is read once, and verified,
   * stored and unpacked in that pass. Nothing is visible before all is verified; nothing is left where it fails.
   * @throws ContainerError
   */
  async load(path: string, options: LoadOptions = {}): Promise<ImageSummary[]> {
    return this.#withSession(async (session) => {
      const archive = await openArchive(path, () => session.spool());
      try {
        return await this.#add(session, archive.images, options);
      } finally {
        archive.close();
      }
    });
  }

  /** Adds images from elsewhere, a registry for example, as load() does. @throws ContainerError */
  async add(images: readonly ImageSource[], options: LoadOptions = {}): Promise<ImageSummary[]> {
    return this.#withSession((session) => this.#add(session, images, options));
  }

  /** Every name, and every image without one. */
  list(): ImageSummary[] {
    const summaries: ImageSummary[] = [];
    for (const descriptor of this.#layout.read()) {
      const image = this.#layout.image(descriptor);
      if (image !== undefined) summaries.push(this.#summary(descriptor, image));
    }
    return summaries;
  }

  /**
   * Finds an image by its name or its id, whole or the first hexadecimal digits of it, if they fit one image alone.
   * @throws ContainerError ERR_NO_IMAGE, ERR_AMBIGUOUS
   */
  resolve(nameOrId: string): ResolvedImage {
    const descriptor = this.#layout.find(nameOrId)[0];
    const image = descriptor && this.#layout.image(descriptor);
    if (descriptor === undefined || image === undefined)
      throw new ContainerError({ message: `cannot find image ${nameOrId}`, code: "ERR_NO_IMAGE" });
    const ids = chainIds(image.config.diffIds);
    const layerDirectories = ids.map((id) => this.layerDirectory(id)).reverse();
    for (const directory of layerDirectories)
      if (!existsSync(directory))
        throw new ContainerError({
          message: `cannot use image ${nameOrId}: a layer is not unpacked`,
          code: "ERR_NO_LAYER",
          path: directory,
          hint: "load the image again",
        });
    const name = nameOf(descriptor);
    return {
      id: image.manifest.config.digest,
      ...(name !== undefined && { name }),
      manifestDigest: descriptor.digest,
      manifest: image.manifest,
      config: image.config,
      chainIds: ids,
      layerDirectories,
    };
  }

  /**
   * Takes a name away, or every name of an image given by its id; what no image needs any more is deleted.
   * @param keepLayers chain ids that containers use
   * @returns the names taken away and the ids of the images that are gone @throws ContainerError ERR_NO_IMAGE
   */
  remove(nameOrId: string, keepLayers: ReadonlySet<string> = new Set()): { names: string[]; ids: string[] } {
    return this.#locked(() => {
      const found = this.#layout.find(nameOrId);
      if (found.length === 0)
        throw new ContainerError({ message: `cannot find image ${nameOrId}`, code: "ERR_NO_IMAGE" });
      const before = this.#layout.read();
      const after = before.filter((entry) => !found.some((other) => sameEntry(entry, other)));
      const idsOf = (entries: Descriptor[]) =>
        entries.map((entry) => this.#layout.image(entry)?.manifest.config.digest);
      const left = new Set(idsOf(after));
      const gone = new Set(idsOf(found).filter((id) => id !== undefined && !left.has(id)));
      this.#layout.write(after);
      this.#collect(after, keepLayers);
      return {
        names: found.map(nameOf).filter((name) => name !== undefined),
        ids: [...gone].filter((id) => id !== undefined),
      };
    });
  }

  /** Where the layer with this chain id is unpacked. */
  layerDirectory(chainId: string): string {
    return `${this.#layers}/${digestHex(chainId)}/diff`;
  }

  async #add(session: Session, images: readonly ImageSource[], options: LoadOptions): Promise<ImageSummary[]> {
    const entries: Descriptor[] = [];
    for (const image of images) {
      const manifest = await this.#addImage(session, image, options);
      for (const name of image.names.length === 0 ? [undefined] : image.names) entries.push(named(manifest, name));
    }
    this.#commit(session, entries);
    return entries.map((entry) => {
      const image = this.#layout.image(entry);
      if (image === undefined)
        throw new ContainerError({ message: `cannot find manifest ${entry.digest}`, code: "ERR_NO_IMAGE" });
      return this.#summary(entry, image);
    });
  }

  /** Brings an image's blobs and layers into the session, as far as the store has them not yet. @returns its manifest */
  async #addImage(session: Session, image: ImageSource, options: LoadOptions): Promise<Descriptor> {
    const { diffIds } = parseConfig(image.config);
    const ids = chainIds(diffIds);
    const layers: Descriptor[] = [];
    for (const [i, source] of image.layers.entries()) {
      const [chainId, diffId] = [ids[i], diffIds[i]];
      if (chainId === undefined || diffId === undefined)
        throw new ContainerError({
          message: "cannot load the image: it has more layers than diff ids",
          code: "ERR_IMAGE",
        });
      let readBytes = 0;
      const progress = (length: number) => {
        readBytes += length;
        options.progress?.({ layer: i + 1, layers: image.layers.length, readBytes, sizeBytes: source.sizeBytes });
      };
      const lower = ids.slice(0, i).reverse();
      layers.push(await this.#addLayer(session, source, { chainId, diffId, lower }, { ...options.limits }, progress));
    }
    this.#addBlob(session, image.config);
    if (image.manifest !== undefined) {
      const { bytes, mediaType } = image.manifest;
      return { mediaType, ...this.#addBlob(session, bytes) };
    }
    const config = { mediaType: MEDIA_TYPE.config, digest: sha256(image.config), size: image.config.length };
    const manifest = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE.manifest, config, layers });
    return { mediaType: MEDIA_TYPE.manifest, ...this.#addBlob(session, Buffer.from(manifest)) };
  }

  #addBlob(session: Session, bytes: Buffer): { digest: string; size: number } {
    const digest = sha256(bytes);
    if (this.#layout.blobSize(digest) !== bytes.length) {
      const blob = session.createBlob();
      blob.write(bytes);
      session.keepBlob(blob, digest);
    }
    return { digest, size: bytes.length };
  }

  async #addLayer(
    session: Session,
    source: LayerSource,
    { chainId, diffId, lower }: { chainId: string; diffId: string; lower: string[] },
    limits: Partial<LayerLimits & { entries: number }>,
    progress: (bytes: number) => void,
  ): Promise<Descriptor> {
    const record = session.layers.get(chainId) ?? this.#readLayer(chainId);
    const digest = source.digest ?? record?.blob.digest;
    const hasBlob = digest !== undefined && (session.blobs.has(digest) || this.#layout.blobSize(digest) !== undefined);
    if (record !== undefined && hasBlob && (source.digest ?? record.blob.digest) === record.blob.digest)
      return record.blob;

    const blob = hasBlob ? undefined : session.createBlob();
    const lowerDirectories = lower.map((id) =>
      session.layers.has(id) ? session.layerDirectory(id) : this.layerDirectory(id),
    );
    const layer =
      record === undefined ? this.#openLayer(session, chainId, lowerDirectories, limits.entries) : undefined;
    try {
      const facts = await readLayer(source.open(), {
        limits,
        stored: (bytes) => {
          progress(bytes.length);
          blob?.write(bytes);
        },
        uncompressed: (bytes) => {
          session.checkSpace(bytes.length);
          layer?.reader.push(bytes);
        },
      });
      verify("digest", facts.digest, source.digest);
      verify("diff id", facts.diffId, diffId);
      const descriptor = {
        mediaType: MEDIA_TYPE.layer[facts.compression],
        digest: facts.digest,
        size: facts.storedBytes,
      };
      if (blob !== undefined) session.keepBlob(blob, facts.digest);
      if (layer !== undefined) {
        layer.reader.finish();
        const { sizeBytes } = layer.unpacker.finish();
        session.keepLayer(chainId, { version: VERSION, diffId, sizeBytes, blob: descriptor });
      }
      return descriptor;
    } finally {
      blob?.close();
      layer?.close();
    }
  }

  #openLayer(session: Session, chainId: string, lowerDirectories: string[], entries = TAR_LIMITS.entries) {
    const descriptors: number[] = [];
    const open = (path: string) => {
      const fd = openSync(path, "r");
      descriptors.push(fd);
      return fd;
    };
    const directory = session.layerDirectory(chainId);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const root = open(directory);
    // a layer that says nothing of its root leaves it as that of any image
    call("fchmod", root, 0o755);
    const whiteouts = this.#format === "overlay" ? OVERLAY_WHITEOUTS : AUFS_WHITEOUTS;
    const unpacker = new Unpacker({ root, lower: lowerDirectories.map(open), whiteouts });
    const reader = new TarReader(unpacker, { entries });
    const close = () => {
      unpacker.close();
      for (const fd of descriptors) closeSync(fd);
    };
    return { unpacker, reader, close };
  }

  /** Makes what the session brought visible. Everything is on the disk before the first rename. */
  #commit(session: Session, entries: Descriptor[]): void {
    session.sync();
    this.#locked(() => {
      for (const [digest, path] of session.blobs) renameSync(path, this.#layout.blobPath(digest));
      for (const chainId of session.layers.keys()) {
        const target = `${this.#layers}/${digestHex(chainId)}`;
        // another load may have been faster with the same layer
        if (!existsSync(target)) renameSync(session.layerHome(chainId), target);
      }
      this.#layout.add(entries);
    });
  }

  /** Deletes blobs and layers that no image has. While a load is running nothing is: it may count on them. */
  #collect(entries: Descriptor[], keepLayers: ReadonlySet<string>): void {
    if (this.#sweep() > 0) return;
    const needed = this.#layout.needed(entries);
    if (needed === undefined) return;
    removeOthers(this.#layout.blobs, needed.blobs);
    removeOthers(this.#layers, new Set([...needed.layers, ...keepLayers].map(digestHex)));
  }

  #summary(entry: Descriptor, { manifest, config }: { manifest: Manifest; config: ImageConfig }): ImageSummary {
    const name = nameOf(entry);
    let sizeBytes = 0;
    for (const id of chainIds(config.diffIds)) sizeBytes += this.#readLayer(id)?.sizeBytes ?? 0;
    return {
      ...(name !== undefined && { name }),
      id: manifest.config.digest,
      manifestDigest: entry.digest,
      ...(config.created !== undefined && { created: config.created }),
      sizeBytes,
    };
  }

  #readLayer(chainId: string): LayerRecord | undefined {
    const path = `${this.#layers}/${digestHex(chainId)}/layer.json`;
    if (!existsSync(path)) return;
    const record = JSON.parse(readFileSync(path, "utf8")) as LayerRecord; // written by us, in a directory of root's alone
    if (record.version !== VERSION)
      throw new ContainerError({
        message: `cannot read ${path}: version ${record.version} is newer than this program`,
        code: "ERR_VERSION",
      });
    return record;
  }

  async #withSession<T>(act: (session: Session) => Promise<T>): Promise<T> {
    const session = this.#locked(() => {
      this.#sweep();
      return new Session(`${this.#incoming}/${randomBytes(8).toString("hex")}`);
    });
    try {
      return await act(session);
    } finally {
      const fd = openSync(this.#incoming, "r");
      removeTree(fd, Buffer.from(session.name));
      closeSync(fd);
      session.close();
    }
  }

  /** Removes what killed loads left behind. To be called under the lock. @returns how many loads are running */
  #sweep(): number {
    let running = 0;
    const incoming = openSync(this.#incoming, "r");
    for (const name of listNames(incoming)) {
      if (name.toString() === LOCK) continue;
      const fd = openSync(`${this.#incoming}/${name}`, "r");
      if (lock(fd, false)) removeTree(incoming, name);
      else running++;
      closeSync(fd);
    }
    closeSync(incoming);
    return running;
  }

  #locked<T>(act: () => T): T {
    const fd = openSync(`${this.#incoming}/${LOCK}`, "a", 0o600);
    try {
      lock(fd, true);
      return act();
    } finally {
      closeSync(fd);
    }
  }
}

const LOCK = "lock";

function verify(what: string, found: string, expected: string | undefined): void {
  if (expected !== undefined && found !== expected)
    throw new ContainerError({
      message: `cannot accept the layer: its ${what} is ${found}, not ${expected}`,
      code: "ERR_DIGEST",
    });
}

function removeOthers(directory: string, kept: ReadonlySet<string>): void {
  const fd = openSync(directory, "r");
  for (const name of listNames(fd)) if (!kept.has(name.toString())) removeTree(fd, name);
  closeSync(fd);
}
