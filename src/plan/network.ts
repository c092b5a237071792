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

/** What is in a new network namespace is raised from inside. */
export function raiseLoopback({ spec }: Definition): Step[] {
  return isNew(spec, "network") ? [{ name: "raiseLoopback", args: {}, from: "/spec/linux/namespaces" }] : [];
}
