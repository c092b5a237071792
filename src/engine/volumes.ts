import { existsSync, lstatSync, mkdirSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { randomHex } from "../crypto.ts";
import { ContainerError } from "../error.ts";
import { close, O, open } from "../kernel/file.ts";
import { normalPath } from "../plan/path.ts";
import type { Mount } from "../spec/spec.ts";
import { removeTree } from "../storage/tree.ts";
import type { ContainerJson, MountPoint } from "./config.ts";

/** What a container's flags and image say about its volumes. */
export interface VolumeWishes {
  /** As for -v: "[source:]destination[:options]". */
  binds: readonly string[];
  /** The image's own: destinations. */
  image: readonly string[];
  /** Destinations of tmpfs mounts, which take the place of an image's volume. */
  tmpfs: readonly string[];
}

/**
 * Every volume and bind of a container, chosen but not made. What has no name gets one of its own, which lives and ends
 * with the container. @throws ContainerError
 */
export function chooseMounts(
  data: string,
  { binds, image, tmpfs }: VolumeWishes,
): Pick<ContainerJson, "mounts" | "anonymousVolumes"> {
  const anonymousVolumes: string[] = [];
  const anonymous = () => {
    const name = randomHex(32);
    anonymousVolumes.push(name);
    return name;
  };
  const mounts = binds.map((text) => parseVolume(data, text, anonymous));
  const taken = new Set(tmpfs.map(normalPath));
  if (taken.has("/"))
    throw new ContainerError({
      message: "cannot use a tmpfs on /: it would be no container of the image",
      code: "EINVAL",
    });
  for (const [at, { Destination }] of mounts.entries()) {
    if (taken.has(Destination)) throw refusal(binds[at] ?? "", "its destination is used twice");
    taken.add(Destination);
  }
  for (const path of image) {
    const destination = normalPath(path);
    if (destination === "/" || taken.has(destination)) continue;
    taken.add(destination);
    mounts.push(volumeAt(data, anonymous(), destination, ""));
  }
  return { mounts, anonymousVolumes };
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
/** Docker's options for volumes and binds, and podman's for the mount's attributes. */
const OPTION =
  /^(r[ow]|z|Z|r?(private|shared|slave)|r?bind|(no)?copy|(no)?(exec|dev|suid)|consistent|cached|delegated)$/;
/** Labels for SELinux, and hints for file systems of other machines: nothing here. */
const MEANINGLESS = /^(z|Z|copy|consistent|cached|delegated)$/;

function refusal(text: string, why: string): ContainerError {
  return new ContainerError({ message: `cannot use volume ${text}: ${why}`, code: "EINVAL" });
}

function parseVolume(data: string, text: string, anonymous: () => string): MountPoint {
  const parts = text.split(":");
  const [source = "", given = "", mode = ""] = parts.length === 1 ? [undefined, text] : parts;
  if (!given.startsWith("/") || parts.length > 3 || (parts.length > 1 && source === ""))
    throw refusal(text, "it must be [SOURCE:]DESTINATION[:OPTIONS] with an absolute destination");
  const destination = normalPath(given);
  if (destination === "/") throw refusal(text, "its destination cannot be the root");
  const words = mode.split(",").filter((word) => word !== "");
  const unknown = words.find((word) => !OPTION.test(word));
  if (unknown !== undefined) throw refusal(text, `the option ${unknown} is unknown`);
  if (words.includes("ro") && words.includes("rw")) throw refusal(text, "it cannot be read-only and writable");
  if (parts.length === 1) return volumeAt(data, anonymous(), destination, "");
  if (/^\.{0,2}\/|^\.{1,2}$/.test(source)) {
    if (words.some((word) => /copy$/.test(word))) throw refusal(text, "a path of the host is never copied to");
    return { Type: "bind", Source: resolve(source), ...mountedAs(destination, mode) };
  }
  if (!NAME.test(source))
    throw refusal(
      text,
      `${source} is no volume's name: it must be letters, digits, _ . - (a path begins with / or ./)`,
    );
  return volumeAt(data, source, destination, mode);
}

function volumeAt(data: string, name: string, destination: string, mode: string): MountPoint {
  return {
    Type: "volume",
    Name: name,
    Source: join(resolve(data), "volumes", name),
    Driver: "local",
    ...mountedAs(destination, mode),
  };
}

function mountedAs(destination: string, mode: string) {
  const words = mode.split(",");
  const Propagation = words.find((word) => /^r?(private|shared|slave)$/.test(word)) ?? "rprivate";
  return { Destination: destination, Mode: mode, RW: !words.includes("ro"), Propagation };
}

/** A volume or a bind as the spec's mount. @param mapped whether the container has ids of its own: a volume's are the container's */
export function mountOf({ Type, Source, Destination, Mode, Propagation }: MountPoint, mapped: boolean): Mount {
  const words = Mode.split(",").filter(
    (word) => word !== "" && word !== "nocopy" && word !== Propagation && !MEANINGLESS.test(word),
  );
  return {
    destination: Destination,
    type: "bind",
    source: Source,
    options: [
      ...(words.some((word) => /^r?bind$/.test(word)) ? [] : ["rbind"]),
      Propagation,
      ...words.map((word) => (word === "ro" ? "rro" : word)),
      ...(mapped && Type === "volume" ? ["idmap"] : []),
    ],
  };
}

/** Makes what a container's mounts need and is missing: volumes, and as other engines do, directories to bind. */
export function makeVolumes(data: string, mounts: readonly MountPoint[]): void {
  if (mounts.some(({ Type }) => Type === "volume")) mkdirSync(`${data}/volumes`, { recursive: true, mode: 0o700 });
  for (const { Source } of mounts) if (!existsSync(Source)) mkdirSync(Source, { recursive: true, mode: 0o755 });
}

/** Whether a mount starts as a copy of what the image has in its place: a volume in which nothing is yet. */
export function startsAsCopy({ Type, Source, Mode }: MountPoint): boolean {
  if (Type !== "volume" || Mode.split(",").includes("nocopy")) return false;
  return !existsSync(Source) || (lstatSync(Source).isDirectory() && readdirSync(Source).length === 0);
}

/** Removes a container's own volumes, but for those that another container has by their names. */
export function removeAnonymousVolumes(
  data: string,
  { id, anonymousVolumes }: ContainerJson,
  containers: readonly ContainerJson[],
): void {
  if (anonymousVolumes.length === 0 || !existsSync(`${data}/volumes`)) return;
  const used = new Set(
    containers.filter((other) => other.id !== id).flatMap(({ mounts }) => mounts.map(({ Name }) => Name)),
  );
  const directory = open(`${data}/volumes`, O.RDONLY | O.DIRECTORY);
  try {
    for (const name of anonymousVolumes) if (!used.has(name)) removeTree(directory, Buffer.from(name));
  } finally {
    close(directory);
  }
}
