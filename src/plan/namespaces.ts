import { NAMESPACES } from "../linux/namespaces.ts";
import type { Namespace, NamespaceType, Spec, TimeOffsets } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import type { Plan, Step } from "./step.ts";

const AT_CLONE: readonly NamespaceType[] = ["user", "pid", "mount", "network", "uts", "ipc"];

/** Whether the container gets a new namespace of a type. */
export function isNew(spec: Spec, type: NamespaceType): boolean {
  return spec.linux?.namespaces?.some((namespace) => namespace.type === type && namespace.path === undefined) ?? false;
}

/** Whether the container shares the caller's namespace of a type. */
export function isShared(spec: Spec, type: NamespaceType): boolean {
  return !(spec.linux?.namespaces?.some((namespace) => namespace.type === type) ?? false);
}

/** Namespaces with a path, opened while the host's paths can still be seen. */
export function openNamespaces({ linux }: Spec): Step[] {
  return (linux?.namespaces ?? []).flatMap(({ type, path }, at): Step[] =>
    path === undefined
      ? []
      : [{ name: "openNamespace", args: { path, slot: type }, from: `/spec/linux/namespaces/${at}` }],
  );
}

/**
 * The user namespace is joined last: after it, init has no power over namespaces that belong to the host's. Without
 * privileges it is joined first: before it, init has no power at all. namespaces(7), setns(2).
 */
export function userPlace<N extends { type: NamespaceType }>(namespaces: readonly N[], { rootless }: Host): N[] {
  const user = namespaces.filter(({ type }) => type === "user");
  const others = namespaces.filter(({ type }) => type !== "user");
  return rootless === undefined || rootless.mapper ? [...others, ...user] : [...user, ...others];
}

/**
 * Whether a namespace that exists is entered only once the process is in its cgroups: one of cgroups may be a boundary
 * that nobody inside is moved or born across (cgroups(7), nsdelegate, which systemd asks for). Beside a user namespace
 * one with a path is still joined before, while init has power over it.
 */
export function isJoinedLast({ type, path }: Namespace, namespaces: readonly Namespace[]): boolean {
  return type === "cgroup" && (path === undefined || !namespaces.some((other) => other.type === "user"));
}

/** Namespaces with a path, but for those that are joined last. */
export function joinNamespaces({ linux }: Spec, host: Host): Step[] {
  const all = linux?.namespaces ?? [];
  const joined = all
    .map((namespace, at) => ({ ...namespace, at }))
    .filter((namespace) => namespace.path !== undefined && !isJoinedLast(namespace, all));
  return userPlace(joined, host).map(joinNamespace);
}

function joinNamespace({ type, at }: { type: NamespaceType; at: number }): Step {
  return {
    name: "joinNamespace",
    args: { namespace: type, type: NAMESPACES[type].flag },
    from: `/spec/linux/namespaces/${at}`,
  };
}

/**
 * A time namespace is made by unshare, gets its offsets, and is entered by the next process or program:
 * time_namespaces(7).
 */
export function shiftClocks(spec: Spec): Step[] {
  if (!isNew(spec, "time")) return [];
  const steps: Step[] = [
    { name: "unshare", args: { namespaces: NAMESPACES.time.flag }, from: "/spec/linux/namespaces" },
  ];
  const offsets = offsetLines(spec.linux?.timeOffsets ?? {});
  if (offsets !== "") steps.push({ name: "setTimeOffsets", args: { offsets }, from: "/spec/linux/timeOffsets" });
  return steps;
}

function offsetLines(offsets: TimeOffsets): string {
  return (["monotonic", "boottime"] as const)
    .flatMap((clock) => {
      const offset = offsets[clock];
      return offset === undefined ? [] : [`${clock} ${offset.secs ?? 0} ${offset.nanosecs ?? 0}\n`];
    })
    .join("");
}

/** The flags of clone3(2) for all new namespaces but those that must be left first. */
export function newNamespaces(spec: Spec): number {
  return AT_CLONE.filter((type) => isNew(spec, type) && !(type === "ipc" && ownsQueues(spec))).reduce(
    (flags, type) => flags | NAMESPACES[type].flag,
    0,
  );
}

/**
 * A new ipc namespace brings its queues along, and they belong to who makes it: in a user namespace that must be its
 * root, who is nobody until the maps are there. mq_overview(7)
 */
function ownsQueues(spec: Spec): boolean {
  return isNew(spec, "ipc") && !isShared(spec, "user") && (spec.mounts ?? []).some(({ type }) => type === "mqueue");
}

/** Namespaces that show who the process is, or where: entered once it is in its cgroups, and root of its user namespace. */
export function leaveLast(spec: Spec): Step[] {
  const types = [...(isNew(spec, "cgroup") ? ["cgroup" as const] : []), ...(ownsQueues(spec) ? ["ipc" as const] : [])];
  const namespaces = types.reduce((flags, type) => flags | NAMESPACES[type].flag, 0);
  const all = spec.linux?.namespaces ?? [];
  return [
    ...all.flatMap((namespace, at) =>
      namespace.path !== undefined && isJoinedLast(namespace, all) ? [joinNamespace({ ...namespace, at })] : [],
    ),
    ...(namespaces === 0 ? [] : [{ name: "unshare" as const, args: { namespaces }, from: "/spec/linux/namespaces" }]),
  ];
}

/** The host's names, until it is given others. */
export function nameMachine({ hostname, domainname }: Spec): Step[] {
  const steps: Step[] = [];
  if (hostname !== undefined && hostname !== "")
    steps.push({ name: "setHostname", args: { name: hostname }, from: "/spec/hostname" });
  if (domainname !== undefined && domainname !== "")
    steps.push({ name: "setDomainname", args: { name: domainname }, from: "/spec/domainname" });
  return steps;
}

/** Whether a plan makes a new namespace of a kind. */
export function makesNew(plan: Plan, type: NamespaceType): boolean {
  const { flag } = NAMESPACES[type];
  return plan.some(
    ({ name, args }) =>
      (name === "clone" || name === "cloneInto" || name === "unshare") &&
      (Number(Reflect.get(args, "namespaces")) & flag) !== 0,
  );
}
