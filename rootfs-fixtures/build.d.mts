/** Paths of one image, in every form. */
export interface ImagePaths {
  docker: string;
  ociGzip: string;
  ociZstd: string;
  /** A directory, the OCI image layout with gzip layers. */
  layout: string;
}

export interface Fixtures {
  /** Static executables. */
  probe: string;
  true: string;
  roots: Record<"minimal" | "shell" | "hostile", string>;
  /** What the links of the hostile root point at. */
  canary: string;
  images: Record<"fixture" | "quickstart" | "sparse" | "variants", ImagePaths>;
}

/** A member of a layer or root, as the manifests write it: see README.md. */
export interface Entry {
  path: string;
  type: "file" | "directory" | "symlink" | "hardlink" | "fifo" | "character" | "block" | "sparse";
  pathHex?: string;
  content?: Buffer;
  target?: string;
  mode?: string;
  uid?: number;
  gid?: number;
  mtime?: string;
  device?: string;
  xattrs?: Record<string, string>;
  format?: "pax" | "gnu" | "ustar";
  sparse?: "1.0" | "0.1" | "old";
  sizeBytes?: number;
  segments?: { offset: number; text: string; lengthBytes?: number }[];
  typeFlag?: string;
  rawSize?: Buffer;
  rawPax?: Buffer;
  rawPaxSize?: Buffer;
  badChecksum?: boolean;
}

export interface Image {
  /** Such as "caisson/fixture:latest". */
  name: string;
  /** The "config" member of an OCI image configuration. */
  config: Record<string, unknown>;
  /** Uncompressed tar, lowest first. */
  layers: Buffer[];
}

/** What the root of an unpacked image must look like, by path; ids as "uid:gid", times as "seconds.nanoseconds". */
export interface Expectation {
  contents: Record<string, string>;
  absent: string[];
  sameInode: [string, string][];
  sizesBytes: Record<string, number>;
  /** Sparse files: what they hold, and zeros elsewhere. */
  segments: Record<string, { offset: number; text: string }[]>;
  modes: Record<string, string>;
  owners: Record<string, string>;
  devices: Record<string, string>;
  targets: Record<string, string>;
  mtimes: Record<string, string>;
  xattrs: Record<string, Record<string, string>>;
}

export type Files = [path: string, bytes: Buffer][];

export const fixtures: Fixtures;
export const MALICIOUS_LAYERS: Record<string, (canary: string) => Buffer[]>;
export const MALICIOUS_ARCHIVES: Record<string, (canary: string) => Buffer>;

export function build(say?: (line: string) => void): Fixtures;
export function makeRoot(name: keyof Fixtures["roots"], directory: string, canary?: string): void;
export function makeCanary(directory: string): void;
export function readImages(name: keyof Fixtures["images"]): Image[];
export function readExpectation(name: "fixture"): Expectation;
export function readExpectation(name: "sparse"): Pick<Expectation, "contents" | "segments" | "sizesBytes">;
export function maliciousArchive(name: string, canary: string): Buffer;
export function writeTar(members: Entry[]): Buffer;
export function archive(files: Files): Buffer;
export function dockerFiles(images: Image[]): Files;
export function ociFiles(images: Image[], compression: "none" | "gzip" | "zstd"): Files;
export function writeDirectory(directory: string, files: Files): void;
export function digest(bytes: Buffer): string;
