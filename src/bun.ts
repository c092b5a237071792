/** What the engine of the single executable has beyond Node's. */
interface Bun {
  CryptoHasher: new (algorithm: "sha256") => Digest;
  unsafe: {
    /** How many times later than usual code is compiled; 1 is as usual. */
    setJITPolicy(scale: number): void;
  };
}

/** An unfinished digest. */
export interface Digest {
  update(bytes: string | Uint8Array): Digest;
  digest(): Buffer;
  digest(encoding: "hex" | "base64"): string;
}

/** undefined under Node. */
export const { Bun: bun } = globalThis as { Bun?: Bun };
