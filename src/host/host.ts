import { existsSync, readFileSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { AT_FDCWD } from "../kernel/file.ts";
import { permittedCapabilities } from "../kernel/process.ts";
import { tryCall } from "../kernel/syscall.ts";
import { CAPABILITIES, capabilityNames } from "../linux/capabilities.ts";
import { type CgroupDirectory, type CgroupLayout, parseCgroupLayout, startingPoint } from "../plan/cgroup-layout.ts";
import type { Host, Rootless } from "../plan/host.ts";

const { arch, getegid, geteuid } = process;

const W_OK = 2;
/** CAP_SETGID and CAP_SETUID. */
const MAPPER = (1n << 6n) | (1n << 7n);

let known: Host | undefined;

/** What compile needs to know of this host, looked at once a process. @throws ContainerError on an unknown machine */
export function detectHost(): Host {
  known ??= lookAtHost();
  return known;
}

function lookAtHost(): Host {
  if (arch !== "x64" && arch !== "arm64")
    throw new ContainerError({ message: `Caisson does not know the architecture ${arch}`, code: "ENOEXEC" });
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  const cgroups = parseCgroupLayout(mounts, readFileSync("/proc/self/cgroup", "utf8"), v2Controllers());
  // mountinfo of proc(5): the mount point is the fifth field, the type the first behind the dash
  const resctrl = / (\S+) \S+(?: \S+:\S+)* - resctrl /.exec(mounts)?.[1];
  const rootless = lookAtCaller();
  return {
    machine: arch === "x64" ? "x86_64" : "aarch64",
    cgroups: rootless === undefined ? cgroups : markDelegated(cgroups),
    lacking: lackingNames(permittedCapabilities()),
    apparmor: startsWith("/sys/module/apparmor/parameters/enabled", "Y"),
    // the file is there once a policy can be loaded: selinuxfs is mounted by nobody else
    selinux: existsSync("/sys/fs/selinux/enforce"),
    ...(resctrl === undefined ? {} : { resctrl }),
    ...(rootless === undefined ? {} : { rootless }),
  };
}

function lackingNames(held: bigint): string[] {
  const names: readonly string[] = capabilityNames(held);
  return CAPABILITIES.filter((name) => !names.includes(name));
}

function startsWith(path: string, text: string): boolean {
  return existsSync(path) && readFileSync(path, "utf8").startsWith(text);
}

/** Whether we are root of a user namespace other than the first: its map leaves ids out, or the kernel has none. */
export function inUserNamespace(): boolean {
  try {
    return !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "latin1"));
  } catch {
    return false;
  }
}

function lookAtCaller(): Rootless | undefined {
  const uid = geteuid?.() ?? 0;
  if (uid === 0 && !inUserNamespace()) return;
  const held = permittedCapabilities();
  return {
    uid,
    gid: getegid?.() ?? 0,
    mapper: (held & MAPPER) === MAPPER,
    setgroups: setgroupsOf("self"),
  };
}

/** Whether processes of a process's user namespace may call setgroups(2): user_namespaces(7). */
export function setgroupsOf(pid: number | "self"): "allow" | "deny" {
  try {
    return readFileSync(`/proc/${pid}/setgroups`, "latin1").trim() === "deny" ? "deny" : "allow";
  } catch {
    return "allow";
  }
}

/**
 * Whether a process of ours may be moved into a cgroup: cgroups(7), "Delegation containment" for version 2, where the
 * nearest cgroup above both places has to be ours, too.
 */
export function mayEnter({ hierarchy, path }: CgroupDirectory, { hierarchies }: CgroupLayout): boolean {
  if (hierarchy.version === 1) return writable(`${path}/tasks`);
  const ours = hierarchies.find(({ version }) => version === 2);
  if (ours === undefined) return false;
  const from = `${ours.mountPoint}${ours.ownPath}`.split("/");
  const to = path.split("/");
  const apart = to.findIndex((name, i) => name !== from[i]);
  const common = (apart < 0 ? to : to.slice(0, apart)).join("/");
  return writable(`${path}/cgroup.procs`) && writable(`${common}/cgroup.procs`);
}

function writable(path: string): boolean {
  return tryCall("faccessat", AT_FDCWD, path, W_OK) >= 0;
}

/** Where we may make cgroups, and move a process of ours there: on version 2 the common ancestor decides, too. */
function markDelegated(layout: CgroupLayout): CgroupLayout {
  return {
    ...layout,
    hierarchies: layout.hierarchies.map((hierarchy) => {
      const start = startingPoint(layout, hierarchy);
      return {
        ...hierarchy,
        delegated: writable(start) && (hierarchy.version === 1 || writable(`${start}/cgroup.procs`)),
      };
    }),
  };
}

function v2Controllers(): string {
  for (const mountPoint of ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]) {
    try {
      return readFileSync(`${mountPoint}/cgroup.controllers`, "utf8");
    } catch {
      // not the mount point of version 2, or there is none
    }
  }
  return "";
}
