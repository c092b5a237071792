import type { Spec } from "../spec/spec.ts";
import type { Definition } from "./definition.ts";
import { isNew } from "./namespaces.ts";
import type { Step } from "./step.ts";

/** A cable to the bridge, and rules for its ports. */
export function connectNetwork({ spec, endpoint }: Definition): Step[] {
  if (!isNew(spec, "network")) return [];
  const from = "/endpoint";
  if (endpoint === undefined) return [];
  return [
    { name: "makeEndpoint", args: endpoint, from },
    { name: "publishPorts", args: endpoint, from },
  ];
}

/** Devices of the host that become the container's, in a namespace that is new or joined: OCI config-linux.md. */
export function moveDevices({ linux }: Spec): Step[] {
  return Object.entries(linux?.netDevices ?? {}).map(([device, { name }]) => ({
    name: "moveDevice",
    args: { device, name: name === undefined || name === "" ? device : name },
    from: pointerTo(device),
  }));
}

/** RFC 6901 */
function pointerTo(device: string): string {
  return `/spec/linux/netDevices/${device.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

/** What is in a new network namespace is raised from inside. */
export function raiseLoopback({ spec }: Definition): Step[] {
  return isNew(spec, "network") ? [{ name: "raiseLoopback", args: {}, from: "/spec/linux/namespaces" }] : [];
}
