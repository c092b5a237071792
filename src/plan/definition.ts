import type { Process, Spec } from "../spec/spec.ts";
import type { CgroupDirectory } from "./cgroup-layout.ts";
import type { EndpointArgs, RootArgs } from "./step.ts";

/** What compile turns into a plan: a spec, and what a spec cannot say. Names and addresses are chosen before. */
export interface Definition {
  id: string;
  spec: Spec;
  /** The directory that relative paths of the spec count from; absolute. */
  bundle: string;
  /** The layers of an image; without them the root is spec.root.path. */
  root?: RootArgs;
  /** Files of the container's own, written before they are mounted; absolute paths. Only with an image. */
  files?: readonly { path: string; text: string }[];
  endpoint?: EndpointArgs;
  /** Destinations of binds that start as a copy of what the root has there: volumes in which nothing is yet. */
  copies?: readonly string[];
  /** HOME where the environment has none: from the root's passwd. */
  home?: string;
  /** Whether the process runs at once or waits for start. */
  start: "now" | "later";
  /** Descriptors from 3 on that are the container's. */
  preserved: number;
  /** Who gets the terminal's master: the owner of a socket, or the process that creates. Only with process.terminal. */
  console?: { socket: string } | "creator";
  /** Name of the session keyring; absent: the caller's is kept. */
  keyring?: string;
  /** How cgroups are managed, where that is not as the host suggests. */
  cgroupManager?: CgroupManager;
  /** chroot instead of pivot_root, for a root that is a ramfs. */
  noPivot?: boolean;
  /** That it is made step by step; absent: at once. */
  stepping?: Stepping;
}

/** How a plan is stepped through. */
export interface Stepping {
  /** Steps to leave out, by their places in the plan as it is without stepping. */
  without: readonly number[];
}

export interface CgroupManager {
  /** Whether a container may do without cgroups that its user may not make; as a caller without privileges may. */
  rootless?: boolean;
  /** Whether systemd makes the container's cgroup. */
  systemd?: boolean;
}

/** A further process in a container that runs. */
export interface ExecDefinition {
  id: string;
  process: Process;
  /** The container's own spec: its namespaces, user mappings and seccomp filter hold for the process, too. */
  spec: Spec;
  /** The container's first process, by which its namespaces are found. */
  pid: number;
  cgroups: readonly CgroupDirectory[];
  /** Whether the container's user namespace keeps its processes from changing their additional groups. */
  setgroups: "allow" | "deny";
  home?: string;
  preserved: number;
  console?: { socket: string } | "creator";
  /** Name of the container's session keyring; absent: the caller's is kept. */
  keyring?: string;
}
