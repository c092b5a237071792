import { createSha256 } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import { digestHex } from "./reference.ts";

const { arch } = process;

/** Points to a blob (OCI image specification, descriptor.md). */
export interface Descriptor {
  mediaType: string;
  /** "sha256:…", checked. */
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  platform?: { architecture: string; os: string; variant?: string };
}

export interface Manifest {
  config: Descriptor;
  layers: Descriptor[];
}

/** What an image says about itself and the containers made of it (OCI image specification, config.md). */
export interface ImageConfig {
  architecture: string;
  os: string;
  variant?: string;
  /** RFC 3339 */
  created?: string;
  config: ImageDefaults;
  /** Digests of the uncompressed layers, the bottom one first. */
  diffIds: string[];
}

/** What a container gets when nothing else is said; the names are the format's own. */
export interface ImageDefaults {
  User?: string;
  ExposedPorts?: string[];
  Env?: string[];
  Entrypoint?: string[];
  Cmd?: string[];
  Volumes?: string[];
  WorkingDir?: string;
  Labels?: Record<string, string>;
  StopSignal?: string;
}

export const MEDIA_TYPE = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: {
    none: "application/vnd.oci.image.layer.v1.tar",
    gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
    zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  },
  dockerIndex: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
} as const;

/** What is a layer; how it is compressed its first bytes tell. */
const LAYER_TYPE =
  /^application\/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?|docker\.image\.rootfs\.(diff|foreign\.diff)\.tar(\.gzip|\.zstd)?)$/;

export const MANIFEST_BYTES = 4 << 20;
export const CONFIG_BYTES = 8 << 20;
const LAYERS = 1000;

export function sha256(bytes: Uint8Array | string): string {
  return `sha256:${createSha256().update(bytes).digest("hex")}`;
}

/**
 * Ids of the layer chains (OCI image specification, config.md): the first is the diff id itself, each next the digest of
 * "CHAIN DIFF". Two images share an unpacked layer when all beneath it is the same too.
 */
export function chainIds(diffIds: readonly string[]): string[] {
  const ids: string[] = [];
  for (const diffId of diffIds) {
    const below = ids.at(-1);
    ids.push(below === undefined ? diffId : sha256(`${below} ${diffId}`));
  }
  return ids;
}

type Json = Record<string, unknown>;

function fault(why: string): ContainerError {
  return new ContainerError({ message: `cannot read the image: ${why}`, code: "ERR_IMAGE" });
}

/** Parses JSON that must be an object. @throws ContainerError ERR_IMAGE */
export function parseObject(bytes: Uint8Array, what: string): Json {
  return object(parseJson(bytes, what), what);
}

/** @throws ContainerError ERR_IMAGE */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ContainerError({ message: `cannot read the image: ${what} is not JSON`, code: "ERR_IMAGE", cause });
  }
}

export function object(value: unknown, what: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw fault(`${what} is not an object`);
  return value as Json; // just checked
}

export function array(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) throw fault(`${what} is not an array`);
  return value;
}

export function string(value: unknown, what: string): string {
  if (typeof value !== "string") throw fault(`${what} is not a string`);
  return value;
}

function strings(value: unknown, what: string): string[] {
  return array(value, what).map((item, i) => string(item, `${what}[${i}]`));
}

function stringMap(value: unknown, what: string): Record<string, string> {
  const map: [string, string][] = [];
  for (const [key, item] of Object.entries(object(value, what))) map.push([key, string(item, `${what}.${key}`)]);
  return Object.fromEntries(map);
}

function descriptor(value: unknown, what: string): Descriptor {
  const { mediaType, digest, size, annotations, platform } = object(value, what);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) throw fault(`${what}.size is not a size`);
  const place = platform === undefined ? undefined : object(platform, `${what}.platform`);
  const variant = place?.variant;
  return {
    mediaType: mediaType === undefined ? "" : string(mediaType, `${what}.mediaType`),
    digest: `sha256:${digestHex(digest)}`,
    size,
    ...(annotations !== undefined &&
      annotations !== null && { annotations: stringMap(annotations, `${what}.annotations`) }),
    ...(place !== undefined && {
      platform: {
        architecture: string(place.architecture, `${what}.platform.architecture`),
        os: string(place.os, `${what}.platform.os`),
        ...(typeof variant === "string" && { variant }),
      },
    }),
  };
}

/**
 * Reads an image manifest or an index, whichever it is. A document that could be read as either, or calls itself
 * something else than its descriptor does, is refused: two programs would see two images under one digest.
 * @throws ContainerError ERR_IMAGE, ERR_DIGEST
 */
export function parseManifest(
  bytes: Uint8Array,
  mediaType?: string,
): { manifest: Manifest } | { manifests: Descriptor[] } {
  const document = parseObject(bytes, "the manifest");
  const { mediaType: own, config, layers, manifests, fsLayers } = document;
  if (document.schemaVersion !== 2) throw fault("schemaVersion is not 2");
  if (own !== undefined && mediaType !== undefined && mediaType !== "" && own !== mediaType)
    throw fault(`the manifest calls itself ${JSON.stringify(own)}, its descriptor says ${mediaType}`);
  const type = own ?? mediaType;
  const isIndex = manifests !== undefined;
  if (isIndex && (config !== undefined || layers !== undefined)) throw fault("it is a manifest and an index at once");
  if (fsLayers !== undefined) throw fault("schema 1 manifests are not supported");
  const allowed: unknown[] = isIndex
    ? [MEDIA_TYPE.index, MEDIA_TYPE.dockerIndex]
    : [MEDIA_TYPE.manifest, MEDIA_TYPE.dockerManifest];
  if (type !== undefined && type !== "" && !allowed.includes(type))
    throw fault(`media type ${JSON.stringify(type)} is unknown`);
  if (isIndex)
    return { manifests: array(manifests, "manifests").map((item, i) => descriptor(item, `manifests[${i}]`)) };
  const list = array(layers, "layers");
  if (list.length > LAYERS) throw fault(`it has ${list.length} layers`);
  const manifest = {
    config: descriptor(config, "config"),
    layers: list.map((item, i) => descriptor(item, `layers[${i}]`)),
  };
  for (const { mediaType: layerType } of manifest.layers)
    if (!LAYER_TYPE.test(layerType)) throw fault(`media type ${JSON.stringify(layerType)} of a layer is unknown`);
  return { manifest };
}

/** Go's name for this machine's architecture, as images use it. */
export function machineArchitecture(): string {
  return { x64: "amd64", ia32: "386" }[arch as string] ?? arch;
}

/** Of an index's manifests, those for Linux on this machine; entries that name no platform count. */
export function forThisMachine(manifests: readonly Descriptor[]): Descriptor[] {
  const wanted = machineArchitecture();
  return manifests.filter(
    ({ platform }) => platform === undefined || (platform.os === "linux" && platform.architecture === wanted),
  );
}

/** Reads an image's configuration. @throws ContainerError ERR_IMAGE, ERR_DIGEST with the field's name */
export function parseConfig(bytes: Uint8Array): ImageConfig {
  const document = parseObject(bytes, "the configuration");
  const rootfs = object(document.rootfs, "rootfs");
  const diffIds = strings(rootfs.diff_ids ?? [], "rootfs.diff_ids");
  for (const diffId of diffIds) digestHex(diffId);
  if (diffIds.length > LAYERS) throw fault(`it has ${diffIds.length} layers`);
  const { variant, created } = document;
  return {
    architecture: string(document.architecture, "architecture"),
    os: string(document.os, "os"),
    ...(typeof variant === "string" && variant !== "" && { variant }),
    ...(typeof created === "string" && { created }),
    config: parseDefaults(document.config),
    diffIds,
  };
}

function parseDefaults(value: unknown): ImageDefaults {
  if (value === undefined || value === null) return {};
  const given = object(value, "config");
  const defaults: ImageDefaults = {};
  // null and "" are how Go programs write what is not set
  const set = <T>(key: string, use: (value: unknown, what: string) => T): T | undefined =>
    given[key] === undefined || given[key] === null || given[key] === "" ? undefined : use(given[key], `config.${key}`);
  const keys = (of: unknown, what: string) => Object.keys(object(of, what));
  for (const key of ["User", "WorkingDir", "StopSignal"] as const) {
    const text = set(key, string);
    if (text !== undefined) defaults[key] = text;
  }
  for (const key of ["Env", "Entrypoint", "Cmd"] as const) {
    const list = set(key, strings);
    if (list !== undefined) defaults[key] = list;
  }
  for (const key of ["ExposedPorts", "Volumes"] as const) {
    const list = set(key, keys);
    if (list !== undefined) defaults[key] = list;
  }
  const labels = set("Labels", stringMap);
  if (labels !== undefined) defaults.Labels = labels;
  return defaults;
}
