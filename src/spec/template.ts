import { DEFAULT_CAPABILITIES } from "../linux/capabilities.ts";
import type { DeviceRule, Mount, NamespaceType, Spec } from "./spec.ts";

/** The version of the runtime specification that Caisson implements. */
export const OCI_VERSION = "1.3.0";

const PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DENY_ALL: DeviceRule = { allow: false, access: "rwm" };

export interface TemplateOptions {
  /** For a user without privileges: whom root in the container is outside. */
  rootless?: { uid: number; gid: number };
  /** The host has cgroup v2 alone, where a container gets a cgroup namespace. */
  cgroup2?: boolean;
}

/** The spec that `spec` writes: a shell in a bundle's "rootfs", the same as runc's. */
export function template({ rootless, cgroup2 = false }: TemplateOptions = {}): Spec {
  const capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
  // Without privileges there is no group 5 to own terminals, and sysfs belongs to the network namespace, which is
  // the host's: it can be bound, not mounted.
  const sys: Mount = rootless
    ? { destination: "/sys", type: "none", source: "/sys", options: ["rbind", "nosuid", "noexec", "nodev", "ro"] }
    : { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] };
  const terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
  const namespaces: NamespaceType[] = rootless
    ? ["pid", "ipc", "uts", "mount", "user"]
    : ["pid", "network", "ipc", "uts", "mount"];
  return {
    ociVersion: OCI_VERSION,
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ["sh"],
      env: [PATH, "TERM=xterm"],
      cwd: "/",
      capabilities: {
        bounding: [...capabilities],
        effective: [...capabilities],
        permitted: [...capabilities],
      },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: true },
    hostname: "runc",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
      },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: rootless ? terminals : [...terminals, "gid=5"],
      },
      {
        destination: "/dev/shm",
        type: "tmpfs",
        source: "shm",
        options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
      },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
      sys,
      {
        destination: "/sys/fs/cgroup",
        type: "cgroup",
        source: "cgroup",
        options: ["nosuid", "noexec", "nodev", "relatime", "ro"],
      },
    ],
    linux: {
      ...(rootless
        ? {
            uidMappings: [{ containerID: 0, hostID: rootless.uid, size: 1 }],
            gidMappings: [{ containerID: 0, hostID: rootless.gid, size: 1 }],
          }
        : { resources: { devices: [{ ...DENY_ALL }] } }),
      namespaces: [...namespaces, ...(cgroup2 ? (["cgroup"] as const) : [])].map((type) => ({ type })),
      maskedPaths: [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
      ],
      readonlyPaths: [...READONLY_PATHS],
    },
  };
}

const READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/**
 * What every container of the engine starts from: Docker's defaults. The engine fills in root, args, env, user and
 * host name; all capability sets but the inheritable and the ambient one, which stay empty (CVE-2022-24769).
 */
export function engineTemplate(): Spec {
  return {
    ociVersion: OCI_VERSION,
    process: {
      user: { uid: 0, gid: 0 },
      env: [PATH],
      cwd: "/",
      capabilities: {
        bounding: [...DEFAULT_CAPABILITIES],
        effective: [...DEFAULT_CAPABILITIES],
        permitted: [...DEFAULT_CAPABILITIES],
      },
      oomScoreAdj: 0,
    },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
      },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
      },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
      {
        destination: "/sys/fs/cgroup",
        type: "cgroup",
        source: "cgroup",
        options: ["ro", "nosuid", "noexec", "nodev"],
      },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
      {
        destination: "/dev/shm",
        type: "tmpfs",
        source: "shm",
        options: ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
      },
    ],
    linux: {
      namespaces: [
        { type: "mount" },
        { type: "network" },
        { type: "uts" },
        { type: "pid" },
        { type: "ipc" },
        { type: "cgroup" },
      ],
      resources: {
        devices: [
          { ...DENY_ALL },
          ...characterDevices(true, [
            [1, 5],
            [1, 3],
            [1, 9],
            [1, 8],
            [5, 0],
            [5, 1],
          ]),
          ...characterDevices(false, [[10, 229]]),
        ],
      },
      maskedPaths: [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
      ],
      readonlyPaths: [...READONLY_PATHS],
    },
  };
}

function characterDevices(allow: boolean, numbers: readonly (readonly [number, number])[]): DeviceRule[] {
  return numbers.map(([major, minor]) => ({ allow, type: "c", major, minor, access: "rwm" }));
}
