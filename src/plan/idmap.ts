import { ContainerError } from "../error.ts";
import { type IdRange, parseIdmap } from "../linux/idmap.ts";
import { parseMountOptions } from "../linux/mount-options.ts";
import type { IdMapping, Mount, Spec } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import { isNew } from "./namespaces.ts";
import type { Step } from "./step.ts";

/** The texts of uid_map and gid_map: user_namespaces(7). */
interface Maps {
  uids: string;
  gids: string;
}

/** Without a user namespace the container's ids are the host's. */
const EVERYBODY: readonly IdMapping[] = [{ containerID: 0, hostID: 0, size: 0xffff_ffff }];

/** A map as the kernel reads it, one line a range. */
export function mapText(mappings: readonly IdMapping[]): string {
  return mappings.map(({ containerID, hostID, size }) => `${containerID} ${hostID} ${size}\n`).join("");
}

/**
 * Mappings that mounts bring themselves, done while init is still the host's root: afterwards nobody has power over
 * both the file system and the mount. @throws ContainerError EPERM for a caller without privileges
 */
export function mapMounts(spec: Spec, { rootless }: Host): Step[] {
  const asked = (spec.mounts ?? []).findIndex(isMapped);
  if (rootless !== undefined && asked >= 0)
    throw new ContainerError({
      message: "cannot map the ids of a mount in a rootless container",
      code: "EPERM",
      from: `/spec/mounts/${asked}`,
      hint: "the kernel maps ids of a filesystem only for who has power over all of it: run as root, or leave out idmap",
    });
  const slots = new Map<string, string>();
  const steps = (spec.mounts ?? []).flatMap((mount, at): Step[] => {
    const maps = ownMaps(mount, spec);
    if (maps === undefined) return [];
    const from = `/spec/mounts/${at}`;
    const known = slots.get(JSON.stringify(maps));
    const namespace = known ?? `idmap/${slots.size}`;
    slots.set(JSON.stringify(maps), namespace);
    return [
      ...(known === undefined ? [{ name: "makeUserNamespace" as const, args: { ...maps, namespace }, from }] : []),
      { name: "mapMount", args: { mount: `mounts/${at}`, namespace, recursive: isRecursive(mount) ? 1 : 0 }, from },
    ];
  });
  const close = [...slots.values()].map((file): Step => ({ name: "closeSlot", args: { file }, from: "/spec/mounts" }));
  return [...steps, ...close];
}

/** Mounts that are mapped as the container is, once its user namespace has its maps. */
export function mapMountsAsContainer(spec: Spec): Step[] {
  return (spec.mounts ?? []).flatMap((mount, at): Step[] =>
    parseMountOptions(mount.options ?? []).idmap === undefined || ownMaps(mount, spec) !== undefined
      ? []
      : [
          {
            name: "idmapSource",
            args: { mount: `mounts/${at}`, recursive: isRecursive(mount) },
            from: `/spec/mounts/${at}`,
          },
        ],
  );
}

export function isMapped({ options = [], uidMappings = [] }: Mount): boolean {
  return uidMappings.length > 0 || parseMountOptions(options).idmap !== undefined;
}

function isRecursive({ options = [] }: Mount): boolean {
  return parseMountOptions(options).idmap === "ridmap";
}

/** The maps of a mount's own; what the mount's fields say counts before what its option says. */
function ownMaps({ options = [], uidMappings = [], gidMappings = [] }: Mount, spec: Spec): Maps | undefined {
  if (uidMappings.length > 0) return { uids: mapText(uidMappings), gids: mapText(gidMappings) };
  const { idmapRanges } = parseMountOptions(options);
  const ranges = idmapRanges === undefined ? undefined : parseIdmap(idmapRanges);
  if (ranges === undefined) return;
  // a user namespace that is joined keeps its maps to itself
  const known = isNew(spec, "user") ? spec.linux : undefined;
  const { uidMappings: uids = EVERYBODY, gidMappings: gids = EVERYBODY } = known ?? {};
  return { uids: mapText(rangesToMap(ranges.uids, uids)), gids: mapText(rangesToMap(ranges.gids, gids)) };
}

function rangesToMap(ranges: readonly IdRange[] | undefined, container: readonly IdMapping[]): readonly IdMapping[] {
  return (
    ranges?.map(({ disk, shown, size, relative }) => ({
      containerID: disk,
      hostID: relative ? hostId(shown, container) : shown,
      size,
    })) ?? container
  );
}

/** What an id of the container is on the host; one that is not mapped stays as it is, and the kernel says so. */
export function hostId(id: number, container: readonly IdMapping[]): number {
  const range = container.find(({ containerID, size }) => id >= containerID && id - containerID < size);
  return range === undefined ? id : range.hostID + (id - range.containerID);
}
