import type { IdMapping, Spec } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import { mapText } from "./idmap.ts";
import { isNew, isShared } from "./namespaces.ts";
import type { Step } from "./step.ts";

const FROM = { uid: "/spec/linux/uidMappings", gid: "/spec/linux/gidMappings" } as const;

/**
 * The maps of a new user namespace, written by the host: user_namespaces(7). A user may map nothing but its own ids,
 * one of each kind; newuidmap and newgidmap map those that root has lent it.
 */
export function mapIdentities(spec: Spec, host: Host): Step[] {
  if (!isNew(spec, "user")) return [];
  const { uidMappings = [], gidMappings = [] } = spec.linux ?? {};
  const map = (kind: "uid" | "gid", mappings: readonly IdMapping[]): Step => ({
    name: mapsItself(kind, mappings, host) ? "mapIds" : "mapIdsByHelper",
    args: { kind, map: mapText(mappings) },
    from: FROM[kind],
  });
  return [
    map("uid", uidMappings),
    ...(host.rootless !== undefined && setgroupsDenied(spec, host)
      ? [{ name: "denySetgroups" as const, args: {}, from: FROM.gid }]
      : []),
    map("gid", gidMappings),
  ];
}

/** The files of an init that cannot be traced belong to root, and its maps could be written by nobody else. */
export function offerMaps(spec: Spec, { rootless }: Host): Step[] {
  return rootless === undefined || !isNew(spec, "user")
    ? []
    : [{ name: "setDumpable", args: { dumpable: 1 }, from: FROM.uid }];
}

/** As it was before its maps were offered. */
export function withdrawMaps(spec: Spec, host: Host): Step[] {
  return offerMaps(spec, host).map(({ from }) => ({ name: "setDumpable", args: { dumpable: 0 }, from }));
}

function mapsItself(kind: "uid" | "gid", mappings: readonly IdMapping[], { rootless }: Host): boolean {
  if (rootless === undefined || rootless.mapper) return true;
  const [only, ...more] = mappings;
  return more.length === 0 && only?.size === 1 && only.hostID === rootless[kind];
}

/** Whether the container's processes are kept from changing their additional groups. */
export function setgroupsDenied(spec: Spec, host: Host): boolean {
  const { rootless } = host;
  if (rootless === undefined) return false;
  if (rootless.setgroups === "deny") return true;
  // the price of writing the map of groups oneself
  return isNew(spec, "user") && !rootless.mapper && mapsItself("gid", spec.linux?.gidMappings ?? [], host);
}

/**
 * Until it is root in there, init owns nothing of its new namespaces. Where nobody is root it is the first who is
 * mapped: its capabilities stay, which only an id that leaves 0 loses.
 */
export function becomeRoot(spec: Spec): Step[] {
  if (isShared(spec, "user")) return [];
  const { uidMappings = [], gidMappings = [] } = spec.linux ?? {};
  const args = { uid: rootOf(uidMappings), gid: rootOf(gidMappings) };
  return [{ name: "becomeRoot", args, from: "/spec/linux/namespaces" }];
}

function rootOf(mappings: readonly IdMapping[]): number {
  return mappings.reduce((least, { containerID }) => Math.min(least, containerID), mappings[0]?.containerID ?? 0);
}
