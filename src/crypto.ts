/** An unfinished digest. */
export interface Digest {
  update(bytes: string | Uint8Array): Digest;
  digest(): Buffer;
  digest(encoding: "hex" | "base64"): string;
}

// node:crypto takes bun as long to load as its own start, and every command would wait for that; its own digests, nothing.
const { Bun: bun } = globalThis as { Bun?: { CryptoHasher: new (algorithm: "sha256") => Digest } };

/** SHA-256 of FIPS 180-4. */
export function createSha256(): Digest {
  return bun === undefined
    ? process.getBuiltinModule("node:crypto").createHash("sha256")
    : new bun.CryptoHasher("sha256");
}

/** Twice as many letters as bytes, for a name that nobody else has, or can foresee. */
export function randomHex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("hex");
}
