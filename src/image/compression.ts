import { pipeline, Readable, type Transform } from "node:stream";
import zlib from "node:zlib";
import { ContainerError } from "../error.ts";

export type Compression = "none" | "gzip" | "zstd";

const GZIP = Buffer.from([0x1f, 0x8b]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const CHUNK_BYTES = 1 << 20;

/** Told by the first bytes, four at least: media types and file names are often wrong. Zstd's skippable frames count as zstd. */
export function detectCompression(head: Uint8Array): Compression {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (bytes.subarray(0, 2).equals(GZIP)) return "gzip";
  const isSkippable = bytes.length >= 4 && bytes.readUInt32LE(0) >>> 4 === 0x184d2a5;
  return isSkippable || bytes.subarray(0, 4).equals(ZSTD) ? "zstd" : "none";
}

/**
 * Decompresses chunks and hands what comes out to `take`, piece by piece, as it comes: nothing is gathered, so that a
 * bomb meets the limits of `take` before it fills the memory. An input cut short is an error.
 * @throws ContainerError ERR_COMPRESSION; what chunks or `take` throw passes through
 */
export async function decompress(
  chunks: AsyncIterable<Uint8Array>,
  compression: Compression,
  take: (bytes: Uint8Array) => void,
): Promise<void> {
  if (compression === "none") {
    for await (const chunk of chunks) take(chunk);
    return;
  }
  const decoder = compression === "gzip" ? zlib.createGunzip({ chunkSize: CHUNK_BYTES }) : zstdDecoder();
  if (decoder === undefined) return decompressZstd(chunks, take);
  let sourceError: unknown;
  const source = Readable.from(
    (async function* () {
      try {
        yield* chunks;
      } catch (error) {
        sourceError = error;
        throw error;
      }
    })(),
  );
  let taking = false;
  // inflating happens in a thread of the engine's pool, at the same time as what take() does here
  pipeline(source, decoder, () => {});
  try {
    for await (const bytes of decoder) {
      taking = true;
      take(bytes);
      taking = false;
    }
  } catch (error) {
    throw taking || error === sourceError ? error : fault(compression, error);
  }
}

/** Newer engines have zstd built in. */
function zstdDecoder(): Transform | undefined {
  const { createZstdDecompress } = zlib as { createZstdDecompress?: (options: object) => Transform }; // not in Node 20's types
  return createZstdDecompress?.({ chunkSize: CHUNK_BYTES });
}

async function decompressZstd(chunks: AsyncIterable<Uint8Array>, take: (bytes: Uint8Array) => void): Promise<void> {
  const { Decompress } = await import("fzstd");
  let taking = false;
  const decoder = new Decompress((bytes) => {
    taking = true;
    if (bytes.length > 0) take(bytes);
    taking = false;
  });
  const push = (bytes: Uint8Array, isLast: boolean) => {
    try {
      decoder.push(bytes, isLast);
    } catch (error) {
      throw taking ? error : fault("zstd", error);
    }
  };
  for await (const chunk of chunks) push(chunk, false);
  push(new Uint8Array(0), true);
}

function fault(compression: Compression, cause: unknown): ContainerError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new ContainerError({ message: `cannot decompress ${compression}: ${why}`, code: "ERR_COMPRESSION", cause });
}
