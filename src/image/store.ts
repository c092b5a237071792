import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync } from "node:fs";
import { randomHex } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import { lock } from "../kernel/file.ts";
import { listNames, removeTree } from "../storage/tree.ts";
import { AUFS_WHITEOUTS, OVERLAY_WHITEOUTS } from "../storage/whiteout.ts";
import type { ImageSource } from "./archive.ts";
import { Layout, named, nameOf, sameEntry } from "./layout.ts";
import type { LoadOptions } from "./loading.ts";
import { chainIds, type Descriptor, type ImageConfig, type Manifest } from "./manifest.ts";
import { digestHex } from "./reference.ts";
import { type LayerRecord, Session } from "./session.ts";

/** How whiteouts are stored: what the union file system of this machine understands. */
export type LayerFormat = "overlay" | "aufs";

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
    const { openArchive } = await import("./archive.ts");
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
    if (descriptor === undefined || image === undefined) throw noImage(nameOrId);
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
      if (found.length === 0) throw noImage(nameOrId);
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
    // who runs a container from an image that is here does not wait for decompression to be loaded
    const { Loading } = await import("./loading.ts");
    const stock = {
      hasBlob: (digest: string, size?: number) => {
        const found = this.#layout.blobSize(digest);
        return found !== undefined && (size === undefined || found === size);
      },
      layer: (chainId: string) => this.#readLayer(chainId),
      layerDirectory: (chainId: string) => this.layerDirectory(chainId),
      whiteouts: this.#format === "overlay" ? OVERLAY_WHITEOUTS : AUFS_WHITEOUTS,
    };
    const loading = new Loading(session, stock, options);
    const entries: Descriptor[] = [];
    for (const image of images) {
      const manifest = await loading.add(image);
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
      return new Session(`${this.#incoming}/${randomHex(8)}`);
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

function removeOthers(directory: string, kept: ReadonlySet<string>): void {
  const fd = openSync(directory, "r");
  for (const name of listNames(fd)) if (!kept.has(name.toString())) removeTree(fd, name);
  closeSync(fd);
}

function noImage(nameOrId: string): ContainerError {
  return new ContainerError({
    message: `cannot find image ${nameOrId}`,
    code: "ERR_NO_IMAGE",
    hint: "load it from an archive, which docker save writes, with caisson load; caisson images says what there is",
  });
}
