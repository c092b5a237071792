import { capabilityMask } from "../linux/capabilities.ts";
import type { FilterSource } from "../seccomp/compile.ts";
import type { Capabilities, Process, Seccomp } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import type { Step } from "./step.ts";

const SYS_ADMIN = 1n << 21n;

interface Masks {
  effective: bigint;
  permitted: bigint;
  inheritable: bigint;
  ambient: bigint;
}

function masks({ effective = [], permitted = [], inheritable = [], ambient = [] }: Capabilities): Masks {
  return {
    effective: capabilityMask(effective),
    permitted: capabilityMask(permitted),
    inheritable: capabilityMask(inheritable),
    ambient: capabilityMask(ambient),
  };
}

/**
 * Loading a filter wants no_new_privs or CAP_SYS_ADMIN. Without the former, that capability is kept until the filter
 * is loaded, and one more capset removes it.
 */
function keepsAdmin({ capabilities = {}, noNewPrivileges }: Process, seccomp: Seccomp | undefined): boolean {
  return seccomp !== undefined && noNewPrivileges !== true && (masks(capabilities).effective & SYS_ADMIN) === 0n;
}

/** User, groups and capabilities; what is dropped here can never come back. */
export function dropPrivileges(process: Process, seccomp: Seccomp | undefined, groupsDenied: boolean): Step[] {
  const { user = {}, capabilities = {}, noNewPrivileges } = process;
  const { uid = 0, gid = 0, umask, additionalGids = [] } = user;
  const from = "/spec/process/user";
  const asked = "/spec/process/capabilities";
  const bounding = capabilityMask(capabilities.bounding ?? []);
  const held = masks(capabilities);
  const extra = keepsAdmin(process, seccomp) ? SYS_ADMIN : 0n;
  const now = { ...held, effective: held.effective | extra, permitted: held.permitted | extra };
  return [
    ...(noNewPrivileges === true
      ? [{ name: "setNoNewPrivileges" as const, args: {}, from: "/spec/process/noNewPrivileges" }]
      : []),
    { name: "dropBounding", args: { keep: bounding }, from: `${asked}/bounding` },
    { name: "keepCapabilities", args: {}, from: asked },
    // where that is forbidden, no group was asked for, and the caller's cannot be left
    ...(groupsDenied
      ? []
      : [{ name: "setGroups" as const, args: { gids: gidBytes(additionalGids) }, from: `${from}/additionalGids` }]),
    ...(uid === 0 ? [] : [{ name: "ownStreams" as const, args: { uid }, from }]),
    { name: "setIds", args: { uid, gid }, from },
    ...(umask === undefined ? [] : [{ name: "setUmask" as const, args: { umask }, from: `${from}/umask` }]),
    { name: "setCapabilities", args: now, from: asked },
    { name: "checkCapabilities", args: { ...now, bounding }, from: asked },
  ];
}

/**
 * The last steps before startContainer hooks, which are the container's own programs, and execve: after the filter init
 * makes no call but what these take.
 * @param status what the container's state says when an agent gets the filter's listener
 */
export function filterSyscalls(
  process: Process,
  seccomp: Seccomp | undefined,
  host: Host,
  status: "creating" | "created" | "running",
  filterOf: FilterSource,
): Step[] {
  if (seccomp === undefined) return [];
  const { program, flags, notify } = filterOf(seccomp, host.machine);
  const from = "/spec/linux/seccomp";
  const { listenerPath = "", listenerMetadata } = seccomp;
  const load: Step[] = notify
    ? [
        { name: "loadNotifier", args: { program, flags, listener: "listener" }, from },
        { name: "offerListener", args: { listener: "listener" }, from: `${from}/listenerPath` },
        {
          name: "sendListener",
          args: {
            path: listenerPath,
            ...(listenerMetadata === undefined ? {} : { metadata: listenerMetadata }),
            status,
            listener: "listener",
          },
          from: `${from}/listenerPath`,
        },
      ]
    : [{ name: "loadSeccomp", args: { program, flags }, from }];
  if (!keepsAdmin(process, seccomp)) return load;
  // ambient capabilities are kept by capset; raising them again would be a call that the filter may refuse
  return [
    ...load,
    {
      name: "setCapabilities",
      args: { ...masks(process.capabilities ?? {}), ambient: 0 },
      from: "/spec/process/capabilities",
    },
  ];
}

function gidBytes(gids: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(gids.length * 4);
  gids.forEach((gid, i) => {
    bytes.writeUInt32LE(gid, i * 4);
  });
  return bytes;
}
