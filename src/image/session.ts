import { closeSync, mkdirSync, openSync, statfsSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { lock } from "../kernel/file.ts";
import { call } from "../kernel/syscall.ts";
import type { Descriptor } from "./manifest.ts";
import { digestHex } from "./reference.ts";

/** What is kept beside an unpacked layer. */
export interface LayerRecord {
  version: 1;
  diffId: string;
  sizeBytes: number;
  /** The blob it was unpacked from. */
  blob: Descriptor;
}

const SPACE_CHECK_BYTES = 64 << 20;
const SPACE_RESERVE_BYTES = 256 << 20;

/** A file of a session that becomes a blob. */
export class IncomingBlob {
  readonly path: string;
  #fd: number;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, "wx", 0o600);
  }

  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** The directory of one load, locked as long as the process that made it lives. */
export class Session {
  readonly name: string;
  /** Complete and verified: digest to path, chain id to record. */
  readonly blobs = new Map<string, string>();
  readonly layers = new Map<string, LayerRecord>();
  #directory: string;
  #fd: number;
  #files = 0;
  #uncheckedBytes = 0;

  constructor(directory: string) {
    this.name = directory.slice(directory.lastIndexOf("/") + 1);
    this.#directory = directory;
    mkdirSync(`${directory}/layers`, { recursive: true, mode: 0o700 });
    this.#fd = openSync(directory, "r");
    lock(this.#fd, true);
  }

  createBlob(): IncomingBlob {
    return new IncomingBlob(`${this.#directory}/blob-${this.#files++}`);
  }

  keepBlob(blob: IncomingBlob, digest: string): void {
    blob.close();
    this.blobs.set(digest, blob.path);
  }

  layerHome(chainId: string): string {
    return `${this.#directory}/layers/${digestHex(chainId)}`;
  }

  layerDirectory(chainId: string): string {
    return `${this.layerHome(chainId)}/diff`;
  }

  keepLayer(chainId: string, record: LayerRecord): void {
    writeFileSync(`${this.layerHome(chainId)}/layer.json`, JSON.stringify(record), { mode: 0o600 });
    this.layers.set(chainId, record);
  }

  /** A file without a name. */
  spool(): number {
    const path = `${this.#directory}/spool-${this.#files++}`;
    const fd = openSync(path, "wx+", 0o600);
    unlinkSync(path);
    return fd;
  }

  /** Stops before the file system is full, so that a bomb does not take everybody else's space. */
  checkSpace(bytes: number): void {
    this.#uncheckedBytes -= bytes;
    if (this.#uncheckedBytes > 0) return;
    this.#uncheckedBytes = SPACE_CHECK_BYTES;
    const { bavail, blocks, bsize } = statfsSync(this.#directory);
    if (bavail * bsize < Math.min(SPACE_RESERVE_BYTES, (blocks * bsize) / 100))
      throw new ContainerError({
        message: `cannot load the image: the file system of ${this.#directory} is nearly full`,
        code: "ENOSPC",
        errno: 28,
        path: this.#directory,
      });
  }

  sync(): void {
    call("syncfs", this.#fd);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
