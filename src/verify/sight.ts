import type { MountEntry } from "../linux/mountinfo.ts";

/** What the kernel shows of a running process, from outside. Texts are files below /proc/pid as they are. */
export interface Sight {
  pid: number;
  /** Lines of status by their name: "CapBnd", "Uid", …. proc_pid_status(5) */
  status: ReadonlyMap<string, string>;
  /** By resource ("Max open files"): soft and hard as limits has them, "unlimited" or a number. */
  limits: ReadonlyMap<string, readonly [string, string]>;
  /** Names such as "net:[4026531840]" by the file's name below ns: of the process, and of whoever looks. */
  namespaces: ReadonlyMap<string, string>;
  own: ReadonlyMap<string, string>;
  /** Of the namespaces that the specification joins by path. */
  joined: ReadonlyMap<string, string>;
  uidMap: string;
  gidMap: string;
  timeOffsets: string;
  oomScoreAdj: string;
  personality: string;
  /** Label of AppArmor or SELinux, undefined where the kernel has neither. */
  label: string | undefined;
  mounts: readonly MountEntry[];
  /** The places asked for, looked up inside the container's root. */
  places: ReadonlyMap<string, Place>;
  descriptors: readonly Descriptor[];
  /** Its cgroup in each hierarchy, as a directory of ours, by the hierarchy's mount point. */
  cgroups: ReadonlyMap<string, string>;
  /** Contents of cgroup files by their path; one that cannot be read is left out. */
  files: ReadonlyMap<string, string>;
}

/** A path in the container. */
export interface Place {
  /** Id of the mount that it is on, as mountinfo has it. */
  mount: number;
  /** Whether something is mounted just there. */
  isMountRoot: boolean;
  isDirectory: boolean;
  /** Whether it is the null device. */
  isNull: boolean;
}

export interface Descriptor {
  number: number;
  /** What the link says: a path, "pipe:[1]", "mnt:[2]", … */
  target: string;
  mount: number;
}
