import { PROPAGATION } from "../linux/mount-options.ts";
import type { Device, Process, Spec } from "../spec/spec.ts";
import type { Host } from "./host.ts";
import { isShared } from "./namespaces.ts";
import { normalPath } from "./path.ts";
import type { Step } from "./step.ts";

/** The devices every container has: OCI config-linux.md, "Default Devices". [path, major, minor] */
const DEFAULT_DEVICES = [
  ["/dev/null", 1, 3],
  ["/dev/zero", 1, 5],
  ["/dev/full", 1, 7],
  ["/dev/random", 1, 8],
  ["/dev/urandom", 1, 9],
  ["/dev/tty", 5, 0],
] as const;

const LINKS = [
  ["/dev/fd", "/proc/self/fd"],
  ["/dev/stdin", "/proc/self/fd/0"],
  ["/dev/stdout", "/proc/self/fd/1"],
  ["/dev/stderr", "/proc/self/fd/2"],
] as const;

const FILE_TYPE = { c: 0o020000, u: 0o020000, b: 0o060000, p: 0o010000 } as const;

interface Wanted {
  device: Device;
  from: string;
}

function wantedDevices({ linux }: Spec): Wanted[] {
  const given = (linux?.devices ?? []).map((device, at) => ({ device, from: `/spec/linux/devices/${at}` }));
  const paths = new Set(given.map(({ device }) => normalPath(device.path)));
  const defaults = DEFAULT_DEVICES.filter(([path]) => !paths.has(path)).map(
    ([path, major, minor]): Wanted => ({
      device: { type: "c", path, major, minor, fileMode: 0o666 },
      from: "/spec/linux/devices",
    }),
  );
  const first = given.filter(
    ({ device: { path } }, at) => given.findIndex((other) => normalPath(other.device.path) === normalPath(path)) === at,
  );
  return [...defaults, ...first];
}

/** A /dev of the host's is taken as it is. */
function hasOwnDev({ mounts = [] }: Spec): boolean {
  return !mounts.some(
    ({ destination, type, options = [] }) =>
      normalPath(destination) === "/dev" && (type === "bind" || options.includes("bind") || options.includes("rbind")),
  );
}

function bindsDevices(spec: Spec, { rootless }: Host): boolean {
  return rootless !== undefined || !isShared(spec, "user");
}

/** In a user namespace no device can be made, so the host's nodes are bound: never those of the container's own tree. */
export function openDevices(spec: Spec, host: Host): Step[] {
  if (!bindsDevices(spec, host) || !hasOwnDev(spec)) return [];
  return wantedDevices(spec).flatMap(({ device: { path, type }, from }): Step[] => {
    if (type === "p") return [];
    const plain = { set: 0, clear: 0, recursiveSet: 0, recursiveClear: 0 };
    const { private: propagation } = PROPAGATION;
    return [
      { name: "openSource", args: { path, follow: true, recursive: false, propagation, ...plain, slot: path }, from },
    ];
  });
}

/** Devices and the links beside them, in the /dev that the spec mounted. */
export function makeDevices(spec: Spec, host: Host): Step[] {
  if (!hasOwnDev(spec)) return [];
  const bound = bindsDevices(spec, host);
  const devices = wantedDevices(spec).flatMap(({ device, from }): Step[] => {
    const path = normalPath(device.path);
    const mode = FILE_TYPE[device.type];
    const number = deviceNumber(device.major ?? 0, device.minor ?? 0);
    if (bound && device.type !== "p")
      return [
        { name: "checkDevice", args: { mount: device.path, mode, device: number }, from },
        { name: "attachMount", args: { mount: device.path, root: "root", target: path, follow: 0, proc: 0 }, from },
      ];
    const { uid = 0, gid = 0, fileMode = 0o666 } = device;
    const owner = (BigInt(uid) << 32n) | BigInt(gid);
    return [
      {
        name: "makeDevice",
        args: { root: "root", path, mode: mode | (fileMode & 0o7777), device: number, owner },
        from,
      },
    ];
  });
  const links = [...LINKS, ...ptmx(spec)].map(
    ([path, target]): Step => ({ name: "makeLink", args: { root: "root", path, target }, from: "/spec/linux/devices" }),
  );
  return [...devices, ...links];
}

/** Streams that lead nowhere lead nowhere inside: as with runc, where the container has a /dev of its own. */
export function reopenNull({ terminal }: Process, spec: Spec): Step[] {
  if (terminal === true || !hasOwnDev(spec)) return [];
  return [{ name: "reopenNull", args: { root: "root", device: deviceNumber(1, 3) }, from: "/spec/process" }];
}

function ptmx({ mounts = [] }: Spec): [string, string][] {
  return mounts.some(({ destination }) => normalPath(destination) === "/dev/pts") ? [["/dev/ptmx", "pts/ptmx"]] : [];
}

/** As the kernel's new_encode_dev: minor 0-7, major 8-19, the rest of the minor above. */
export function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
}
