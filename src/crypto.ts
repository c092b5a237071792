import { bun, type Digest } from "./bun.ts";

/** SHA-256 of FIPS 180-4. node:crypto takes bun as long to load as its own start, for which every command would wait. */
export function createSha256(): Digest {
  return bun === undefined
    ? process.getBuiltinModule("node:crypto").createHash("sha256")
    : new bun.CryptoHasher("sha256");
}

/** Twice as many letters as bytes, for a name that nobody else has, or can foresee. */
export function randomHex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("hex");
}
