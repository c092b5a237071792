import type { CgroupLayout } from "./cgroup-layout.ts";
import type { Systemd } from "./cgroup-unit.ts";

/** The facts about this host and its kernel that compile needs. src/host finds them. */
export interface Host {
  machine: "x86_64" | "aarch64";
  cgroups: CgroupLayout;
  /** Capabilities that the caller does not have. */
  lacking: readonly string[];
  /** Whether this security module is there, and on. */
  apparmor: boolean;
  selinux: boolean;
  /** Where the resctrl filesystem is mounted, if it is. */
  resctrl?: string;
  /** The systemd that is to manage cgroups; absent where it is not. */
  systemd?: Systemd;
  /** Who the caller is, unless it is root of the first user namespace. */
  rootless?: Rootless;
}

/** A caller to whom the kernel gives power only inside of user namespaces: user_namespaces(7). */
export interface Rootless {
  uid: number;
  gid: number;
  /** It holds CAP_SETUID and CAP_SETGID: root of a user namespace that somebody made for it, such as podman. */
  mapper: boolean;
  /** What /proc/self/setgroups says; a new user namespace inherits "deny". */
  setgroups: "allow" | "deny";
}
