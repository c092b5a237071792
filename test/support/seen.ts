/** What the probe reports: see rootfs-fixtures/README.md. Null where it could not know. */
export interface Seen {
  argv: string[];
  env: string[];
  cwd: string;
  cwdUnreachable: boolean;
  exe: string;
  pid: number;
  ppid: number;
  sid: number;
  pgid: number;
  parentDeathSignal: number;
  dumpable: number;
  uids: Ids;
  gids: Ids;
  groups: number[];
  umask: string;
  uidMap: string[];
  gidMap: string[];
  setgroups: string;
  cgroup: string[];
  timeOffsets: string[] | null;
  capabilities: Record<"inheritable" | "permitted" | "effective" | "bounding" | "ambient", string>;
  noNewPrivs: boolean;
  seccomp: { mode: number; filters: number };
  signals: { blocked: string; ignored: string; caught: string };
  namespaces: Record<"cgroup" | "ipc" | "mnt" | "net" | "pid" | "time" | "user" | "uts", number>;
  hostname: string;
  domainname: string;
  personality: string;
  oomScoreAdj: number;
  rlimits: Record<string, { soft: number | "unlimited"; hard: number | "unlimited" }>;
  descriptors: { fd: number; target: string; type: string; flags: string; cloexec: boolean }[];
  mounts: SeenMount[];
  devices: SeenDevice[];
  tty: {
    stdin: boolean;
    stdout: boolean;
    stderr: boolean;
    rows: number | null;
    columns: number | null;
    controlling: boolean;
  };
  network: { name: string; up: boolean; mac: string; addresses: string[]; mtu: number }[];
  routes: { interface: string; destination: string; gateway: string }[];
  scheduler: {
    policy: string | number;
    priority: number;
    nice: number;
    runtimeNs: number;
    deadlineNs: number;
    periodNs: number;
  };
  ioPriority: { class: string | number; level: number };
  affinity: number[];
  keyring: { id: number; description: string } | null;
  clocks: { monotonic: string; boottime: string };
  files: Record<string, string | null>;
  sysctls: Record<string, string | null>;
  actions: SeenAction[];
}

export interface Ids {
  real: number;
  effective: number;
  saved: number;
  fs: number;
}

export interface SeenMount {
  id: number;
  parent: number;
  device: string;
  root: string;
  mountPoint: string;
  options: string;
  optionalFields: string[];
  type: string;
  source: string;
  superOptions: string;
}

export interface SeenDevice {
  name: string;
  type: string;
  major: number | null;
  minor: number | null;
  mode: string;
  uid: number;
  gid: number;
  target: string | null;
}

export interface SeenAction {
  action: string;
  arguments: string[];
  /** As the action has it. */
  result: unknown;
  /** Name of errno. */
  error: string | null;
}
