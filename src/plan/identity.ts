import type { IdMapping, Spec } from "../spec/spec.ts";
import { isNew, isShared } from "./namespaces.ts";
import type { Step } from "./step.ts";

/** The maps of a new user namespace, written by the host: user_namespaces(7). */
export function mapIdentities(spec: Spec): Step[] {
  if (!isNew(spec, "user")) return [];
  const { uidMappings = [], gidMappings = [] } = spec.linux ?? {};
  return [
    { name: "mapIds", args: { kind: "uid", map: mapText(uidMappings) }, from: "/spec/linux/uidMappings" },
    { name: "mapIds", args: { kind: "gid", map: mapText(gidMappings) }, from: "/spec/linux/gidMappings" },
  ];
}

function mapText(mappings: readonly IdMapping[]): string {
  return mappings.map(({ containerID, hostID, size }) => `${containerID} ${hostID} ${size}\n`).join("");
}

/** Until it is root in there, init owns nothing of its new namespaces. */
export function becomeRoot(spec: Spec): Step[] {
  return isShared(spec, "user") ? [] : [{ name: "becomeRoot", args: {}, from: "/spec/linux/namespaces" }];
}
