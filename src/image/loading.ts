import { closeSync, mkdirSync, openSync } from "node:fs";
import { bun } from "../bun.ts";
import { ContainerError } from "../error.ts";
import { call } from "../kernel/syscall.ts";
import { Unpacker } from "../storage/unpack.ts";
import type { Whiteouts } from "../storage/whiteout.ts";
import type { ImageSource, LayerSource } from "./archive.ts";
import { type LayerLimits, readLayer } from "./layer.ts";
import { chainIds, type Descriptor, MEDIA_TYPE, parseConfig, sha256 } from "./manifest.ts";
import type { LayerRecord, Session } from "./session.ts";
import { TAR_LIMITS, TarReader } from "./tar.ts";

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

/** What the store has, and how it wants what is new. */
export interface Stock {
  hasBlob(digest: string, sizeBytes?: number): boolean;
  layer(chainId: string): LayerRecord | undefined;
  /** Where the layer is unpacked. */
  layerDirectory(chainId: string): string;
  whiteouts: Whiteouts;
}

/** One load: brings what the store lacks of images into the directory of a session, verified. */
export class Loading {
  #session: Session;
  #stock: Stock;
  #options: LoadOptions;

  constructor(session: Session, stock: Stock, options: LoadOptions) {
    // unlike other commands, which run their code once, this one has loops
    bun?.unsafe.setJITPolicy(1);
    this.#session = session;
    this.#stock = stock;
    this.#options = options;
  }

  /** Reads each layer that is missing once. @returns the image's manifest @throws ContainerError */
  async add(image: ImageSource): Promise<Descriptor> {
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
        this.#options.progress?.({ layer: i + 1, layers: image.layers.length, readBytes, sizeBytes: source.sizeBytes });
      };
      const lower = ids.slice(0, i).reverse();
      layers.push(await this.#addLayer(source, { chainId, diffId, lower }, progress));
    }
    this.#addBlob(image.config);
    if (image.manifest !== undefined) {
      const { bytes, mediaType } = image.manifest;
      return { mediaType, ...this.#addBlob(bytes) };
    }
    const config = { mediaType: MEDIA_TYPE.config, digest: sha256(image.config), size: image.config.length };
    const manifest = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE.manifest, config, layers });
    return { mediaType: MEDIA_TYPE.manifest, ...this.#addBlob(Buffer.from(manifest)) };
  }

  #addBlob(bytes: Buffer): { digest: string; size: number } {
    const digest = sha256(bytes);
    if (!this.#stock.hasBlob(digest, bytes.length)) {
      const blob = this.#session.createBlob();
      blob.write(bytes);
      this.#session.keepBlob(blob, digest);
    }
    return { digest, size: bytes.length };
  }

  async #addLayer(
    source: LayerSource,
    { chainId, diffId, lower }: { chainId: string; diffId: string; lower: string[] },
    progress: (bytes: number) => void,
  ): Promise<Descriptor> {
    const session = this.#session;
    const record = session.layers.get(chainId) ?? this.#stock.layer(chainId);
    const digest = source.digest ?? record?.blob.digest;
    const hasBlob = digest !== undefined && (session.blobs.has(digest) || this.#stock.hasBlob(digest));
    if (record !== undefined && hasBlob && (source.digest ?? record.blob.digest) === record.blob.digest)
      return record.blob;

    const blob = hasBlob ? undefined : session.createBlob();
    const layer = record === undefined ? this.#openLayer(chainId, lower) : undefined;
    try {
      const facts = await readLayer(source.open(), {
        limits: this.#options.limits,
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
        session.keepLayer(chainId, { version: 1, diffId, sizeBytes, blob: descriptor });
      }
      return descriptor;
    } finally {
      blob?.close();
      layer?.close();
    }
  }

  /** @param lower chain ids of the layers beneath, the nearest first */
  #openLayer(chainId: string, lower: readonly string[]) {
    const session = this.#session;
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
    const whereIs = (id: string) =>
      session.layers.has(id) ? session.layerDirectory(id) : this.#stock.layerDirectory(id);
    const unpacker = new Unpacker({
      root,
      lower: lower.map((id) => open(whereIs(id))),
      whiteouts: this.#stock.whiteouts,
    });
    const reader = new TarReader(unpacker, { entries: this.#options.limits?.entries ?? TAR_LIMITS.entries });
    const close = () => {
      unpacker.close();
      for (const fd of descriptors) closeSync(fd);
    };
    return { unpacker, reader, close };
  }
}

function verify(what: string, found: string, expected: string | undefined): void {
  if (expected !== undefined && found !== expected)
    throw new ContainerError({
      message: `cannot accept the layer: its ${what} is ${found}, not ${expected}`,
      code: "ERR_DIGEST",
    });
}
