import { ContainerError } from "../error.ts";
import { NAMESPACES } from "../linux/namespaces.ts";
import type { Mount } from "../spec/spec.ts";
import type { Definition } from "./definition.ts";
import { takeTurns } from "./encode.ts";
import type { Host } from "./host.ts";
import { becomeRoot } from "./identity.ts";
import { mapMounts, mapMountsAsContainer } from "./idmap.ts";
import { mountFilesystems, openSources } from "./mounts.ts";
import { userPlace } from "./namespaces.ts";
import { normalPath } from "./path.ts";
import type { Plan, Step } from "./step.ts";

const FROM = "/spec/linux/namespaces";

/**
 * Adds mounts to a container that runs, or takes some away: init joins its namespaces and does there what it does when
 * a container is made. It stays out of the container's cgroups, so that this works while they are frozen.
 * @param definition the container's own
 * @throws ContainerError for a container in the caller's mount namespace
 */
export function compileMountChange(
  definition: Definition,
  change: "add" | "remove",
  mounts: readonly Mount[],
  host: Host,
): Plan {
  const changed: Definition = { ...definition, spec: { ...definition.spec, mounts: [...mounts] } };
  const types = userPlace(definition.spec.linux?.namespaces ?? [], host).map(({ type }) => type);
  if (!types.includes("mount"))
    throw new ContainerError({
      message: `cannot ${change} mounts: the container has no mount namespace of its own`,
      code: "ENOTSUP",
      from: FROM,
    });
  return takeTurns([
    ...types.map(
      (type): Step => ({ name: "openContainer", args: { slot: type, file: NAMESPACES[type].file }, from: FROM }),
    ),
    { name: "openContainerRoot", args: { slot: "root" }, from: "/spec/root" },
    ...(change === "add" ? openSources(changed) : []),
    { name: "startInit", args: { preserved: 0 }, from: "/spec/mounts" },
    ...(change === "add" ? mapMounts(changed.spec, host) : []),
    ...types.map(
      (type): Step => ({ name: "joinNamespace", args: { namespace: type, type: NAMESPACES[type].flag }, from: FROM }),
    ),
    { name: "clone", args: { namespaces: 0 }, from: "/spec/mounts" },
    { name: "dieWithParent", args: { signal: 9 }, from: "/spec/mounts" },
    ...(change === "add" ? mapMountsAsContainer(changed.spec) : []),
    ...becomeRoot(definition.spec),
    ...(change === "add" ? mountFilesystems(changed, host) : mounts.toReversed().map(detach)),
    { name: "confirm", args: {}, from: "/spec/mounts" },
  ]);
}

function detach({ destination }: Mount): Step {
  const target = normalPath(destination);
  if (target === "/")
    throw new ContainerError({ message: "cannot remove the mount on /: it is the root", code: "EBUSY" });
  const split = target.lastIndexOf("/");
  return {
    name: "detachMount",
    args: { root: "root", directory: target.slice(0, split) || "/", name: target.slice(split + 1) },
    from: "/spec/mounts",
  };
}
