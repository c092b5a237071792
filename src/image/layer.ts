import { createSha256 } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import { type Compression, decompress, detectCompression } from "./compression.ts";

export interface LayerLimits {
  /** Of one layer, uncompressed. */
  uncompressedBytes: number;
  /** Uncompressed bytes for one stored, asked only beyond ratioFromBytes: files full of zeros are no crime. */
  ratio: number;
  ratioFromBytes: number;
}

export const LAYER_LIMITS: LayerLimits = { uncompressedBytes: 64 * 2 ** 30, ratio: 200, ratioFromBytes: 2 ** 30 };

/** What one pass over a layer found out. */
export interface LayerFacts {
  /** "sha256:…" of the stored bytes. */
  digest: string;
  /** "sha256:…" of the uncompressed bytes. */
  diffId: string;
  storedBytes: number;
  uncompressedBytes: number;
  compression: Compression;
}

/** Who wants to see a layer's bytes go by. */
export interface LayerReaders {
  stored?: ((bytes: Uint8Array) => void) | undefined;
  uncompressed?: ((bytes: Uint8Array) => void) | undefined;
  limits?: Partial<LayerLimits> | undefined;
}

/**
 * Reads a layer once: both digests, and the bytes before and after decompression for whoever wants them.
 * @throws ContainerError ERR_LIMIT for a bomb, ERR_COMPRESSION; what the readers throw passes through
 */
export async function readLayer(chunks: AsyncIterable<Uint8Array>, readers: LayerReaders): Promise<LayerFacts> {
  const limits = { ...LAYER_LIMITS, ...readers.limits };
  const storedHash = createSha256();
  const uncompressedHash = createSha256();
  let storedBytes = 0;
  let uncompressedBytes = 0;
  async function* observe(rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of rest) {
      storedHash.update(chunk);
      storedBytes += chunk.length;
      readers.stored?.(chunk);
      yield chunk;
    }
  }
  const { head, rest } = await peek(chunks);
  const compression = detectCompression(head);
  await decompress(observe(rest), compression, (bytes) => {
    uncompressedBytes += bytes.length;
    if (uncompressedBytes > limits.uncompressedBytes)
      throw limit(`it has more than ${limits.uncompressedBytes} bytes uncompressed`);
    if (uncompressedBytes > limits.ratioFromBytes && uncompressedBytes > limits.ratio * storedBytes)
      throw limit(`it grows to more than ${limits.ratio} times its size`);
    if (compression !== "none") uncompressedHash.update(bytes);
    readers.uncompressed?.(bytes);
  });
  const digest = `sha256:${storedHash.digest("hex")}`;
  const diffId = compression === "none" ? digest : `sha256:${uncompressedHash.digest("hex")}`;
  return { digest, diffId, storedBytes, uncompressedBytes, compression };
}

/** The first bytes, enough to tell the compression (or all there is), and the whole input again. */
export async function peek(
  chunks: AsyncIterable<Uint8Array>,
): Promise<{ head: Uint8Array; rest: AsyncIterable<Uint8Array> }> {
  const iterator = chunks[Symbol.asyncIterator]();
  let head: Uint8Array = new Uint8Array(0);
  let isDone = false;
  while (head.length < 4 && !isDone) {
    const next = await iterator.next();
    if (next.done === true) isDone = true;
    else head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    try {
      if (head.length > 0) yield head;
      for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
    } finally {
      await iterator.return?.();
    }
  }
  return { head, rest: all() };
}

function limit(why: string): ContainerError {
  return new ContainerError({ message: `cannot accept the layer: ${why}`, code: "ERR_LIMIT" });
}
