/**
 * The types of config.json and of the state, with the field names of the JSON:
 * OCI runtime-spec 1.3, config.md and config-linux.md. What does not concern Linux is left out.
 */

/**
 * A 64-bit integer. It is a bigint only where a number would lose digits (beyond ±(2^53 − 1)), so
 * `BigInt(x)` and `${x}` are always exact.
 */
export type Integer64 = number | bigint;

export interface Spec {
  /** Semantic version of the specification that the document follows. */
  ociVersion: string;
  root?: Root;
  mounts?: Mount[];
  process?: Process;
  hostname?: string;
  domainname?: string;
  hooks?: Hooks;
  annotations?: Record<string, string>;
  linux?: Linux;
}

export interface Root {
  /** Absolute, or relative to the bundle. */
  path: string;
  readonly?: boolean;
}

export interface Mount {
  destination: string;
  type?: string;
  source?: string;
  options?: string[];
  uidMappings?: IdMapping[];
  gidMappings?: IdMapping[];
}

export interface Process {
  terminal?: boolean;
  consoleSize?: ConsoleSize;
  cwd: string;
  env?: string[];
  args?: string[];
  rlimits?: Rlimit[];
  apparmorProfile?: string;
  selinuxLabel?: string;
  capabilities?: Capabilities;
  noNewPrivileges?: boolean;
  oomScoreAdj?: number;
  scheduler?: Scheduler;
  ioPriority?: IoPriority;
  execCPUAffinity?: ExecCpuAffinity;
  /** Absent means 0:0. */
  user?: User;
}

/** In characters. */
export interface ConsoleSize {
  height: number;
  width: number;
}

export interface User {
  uid?: number;
  gid?: number;
  umask?: number;
  additionalGids?: number[];
  /** For Windows; ignored on Linux. */
  username?: string;
}

/** Names such as "CAP_CHOWN"; an absent set is empty. */
export interface Capabilities {
  bounding?: string[];
  effective?: string[];
  inheritable?: string[];
  permitted?: string[];
  ambient?: string[];
}

export interface Rlimit {
  /** "RLIMIT_NOFILE" and its like. */
  type: string;
  soft: Integer64;
  hard: Integer64;
}

export type SchedulerPolicy =
  | "SCHED_OTHER"
  | "SCHED_FIFO"
  | "SCHED_RR"
  | "SCHED_BATCH"
  | "SCHED_ISO"
  | "SCHED_IDLE"
  | "SCHED_DEADLINE";

export type SchedulerFlag =
  | "SCHED_FLAG_RESET_ON_FORK"
  | "SCHED_FLAG_RECLAIM"
  | "SCHED_FLAG_DL_OVERRUN"
  | "SCHED_FLAG_KEEP_POLICY"
  | "SCHED_FLAG_KEEP_PARAMS"
  | "SCHED_FLAG_UTIL_CLAMP_MIN"
  | "SCHED_FLAG_UTIL_CLAMP_MAX";

/** sched_setattr(2); runtime, deadline and period in nanoseconds. */
export interface Scheduler {
  policy: SchedulerPolicy;
  nice?: number;
  priority?: number;
  flags?: SchedulerFlag[];
  runtime?: number;
  deadline?: number;
  period?: number;
}

export type IoPriorityClass = "IOPRIO_CLASS_RT" | "IOPRIO_CLASS_BE" | "IOPRIO_CLASS_IDLE";

/** ioprio_set(2). */
export interface IoPriority {
  class: IoPriorityClass;
  /** 0 (first) to 7 (last). */
  priority?: number;
}

/** CPU lists such as "0-3,7", for processes that exec adds. */
export interface ExecCpuAffinity {
  /** Before the process is moved into the container's cgroup. */
  initial?: string;
  /** Afterwards. */
  final?: string;
}

export interface Hook {
  /** Absolute. */
  path: string;
  /** As for execv(3): the first is the name. */
  args?: string[];
  env?: string[];
  /** In seconds. */
  timeout?: number;
}

export type HookName = "prestart" | "createRuntime" | "createContainer" | "startContainer" | "poststart" | "poststop";

export type Hooks = { [name in HookName]?: Hook[] };

export interface Linux {
  namespaces?: Namespace[];
  uidMappings?: IdMapping[];
  gidMappings?: IdMapping[];
  timeOffsets?: TimeOffsets;
  devices?: Device[];
  /** By the name of the interface on the host. */
  netDevices?: Record<string, NetDevice>;
  cgroupsPath?: string;
  resources?: Resources;
  rootfsPropagation?: RootfsPropagation;
  seccomp?: Seccomp;
  sysctl?: Record<string, string>;
  maskedPaths?: string[];
  readonlyPaths?: string[];
  mountLabel?: string;
  intelRdt?: IntelRdt;
  memoryPolicy?: MemoryPolicy;
  personality?: Personality;
}

export type NamespaceType = "mount" | "pid" | "network" | "uts" | "ipc" | "user" | "cgroup" | "time";

export interface Namespace {
  type: NamespaceType;
  /** An existing namespace to join; absent means a new one. Absolute, in the runtime's mount namespace. */
  path?: string;
}

/** user_namespaces(7): `size` ids from `containerID` inside are those from `hostID` outside. */
export interface IdMapping {
  containerID: number;
  hostID: number;
  size: number;
}

export interface TimeOffset {
  secs?: number;
  nanosecs?: number;
}

/** time_namespaces(7). */
export interface TimeOffsets {
  boottime?: TimeOffset;
  monotonic?: TimeOffset;
}

/** "c" and "u" (unbuffered) are character devices, "b" is a block device, "p" a FIFO. */
export type DeviceType = "c" | "b" | "u" | "p";

export interface Device {
  type: DeviceType;
  path: string;
  major?: number;
  minor?: number;
  /** Permission bits. Some clients leave the bits of the file type in: use `fileMode & 0o7777`. */
  fileMode?: number;
  uid?: number;
  gid?: number;
}

export interface NetDevice {
  /** Its name in the container; absent means unchanged. */
  name?: string;
}

export interface Resources {
  /** cgroup v2 files by name, and what to write into them. */
  unified?: Record<string, string>;
  devices?: DeviceRule[];
  memory?: Memory;
  cpu?: Cpu;
  pids?: Pids;
  blockIO?: BlockIo;
  hugepageLimits?: HugepageLimit[];
  network?: Network;
  /** By device name, such as "mlx5_1". */
  rdma?: Record<string, Rdma>;
}

export interface DeviceRule {
  allow: boolean;
  /** "a" (all), "c" or "b"; absent or empty means all. */
  type?: string;
  /** Absent or −1 means all. */
  major?: number;
  minor?: number;
  /** Letters of "rwm"; absent or empty means all. */
  access?: string;
}

/** In bytes; −1 means without limit. */
export interface Memory {
  limit?: Integer64;
  reservation?: Integer64;
  /** Memory and swap together, as cgroup v1 counts. */
  swap?: Integer64;
  kernel?: Integer64;
  kernelTCP?: Integer64;
  /** 0 to 100. */
  swappiness?: number;
  disableOOMKiller?: boolean;
  useHierarchy?: boolean;
  /** Refuse an update below the present usage. */
  checkBeforeUpdate?: boolean;
}

/** Times in microseconds. */
export interface Cpu {
  shares?: number;
  quota?: number;
  burst?: number;
  period?: number;
  realtimeRuntime?: number;
  realtimePeriod?: number;
  cpus?: string;
  mems?: string;
  idle?: number;
}

export interface Pids {
  /** −1 means without limit. */
  limit: number;
}

export interface BlockIo {
  /** 10 to 1000; 0 means unset. */
  weight?: number;
  leafWeight?: number;
  weightDevice?: WeightDevice[];
  throttleReadBpsDevice?: ThrottleDevice[];
  throttleWriteBpsDevice?: ThrottleDevice[];
  throttleReadIOPSDevice?: ThrottleDevice[];
  throttleWriteIOPSDevice?: ThrottleDevice[];
}

export interface WeightDevice {
  major: number;
  minor: number;
  weight?: number;
  leafWeight?: number;
}

export interface ThrottleDevice {
  major: number;
  minor: number;
  /** Bytes or operations a second. */
  rate?: Integer64;
}

export interface HugepageLimit {
  /** Such as "2MB", "64KB", "1GB". */
  pageSize: string;
  /** In bytes. */
  limit: Integer64;
}

/** cgroup v1 only. */
export interface Network {
  classID?: number;
  priorities?: InterfacePriority[];
}

export interface InterfacePriority {
  name: string;
  priority: number;
}

export interface Rdma {
  hcaHandles?: number;
  hcaObjects?: number;
}

export type RootfsPropagation =
  | "private"
  | "shared"
  | "slave"
  | "unbindable"
  | "rprivate"
  | "rshared"
  | "rslave"
  | "runbindable";

export type SeccompAction =
  | "SCMP_ACT_KILL"
  | "SCMP_ACT_KILL_PROCESS"
  | "SCMP_ACT_KILL_THREAD"
  | "SCMP_ACT_TRAP"
  | "SCMP_ACT_ERRNO"
  | "SCMP_ACT_TRACE"
  | "SCMP_ACT_ALLOW"
  | "SCMP_ACT_LOG"
  | "SCMP_ACT_NOTIFY";

export type SeccompFlag =
  | "SECCOMP_FILTER_FLAG_TSYNC"
  | "SECCOMP_FILTER_FLAG_LOG"
  | "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
  | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

export type SeccompArchitecture =
  | "SCMP_ARCH_X86"
  | "SCMP_ARCH_X86_64"
  | "SCMP_ARCH_X32"
  | "SCMP_ARCH_ARM"
  | "SCMP_ARCH_AARCH64"
  | "SCMP_ARCH_LOONGARCH64"
  | "SCMP_ARCH_M68K"
  | "SCMP_ARCH_MIPS"
  | "SCMP_ARCH_MIPS64"
  | "SCMP_ARCH_MIPS64N32"
  | "SCMP_ARCH_MIPSEL"
  | "SCMP_ARCH_MIPSEL64"
  | "SCMP_ARCH_MIPSEL64N32"
  | "SCMP_ARCH_PPC"
  | "SCMP_ARCH_PPC64"
  | "SCMP_ARCH_PPC64LE"
  | "SCMP_ARCH_S390"
  | "SCMP_ARCH_S390X"
  | "SCMP_ARCH_SH"
  | "SCMP_ARCH_SHEB"
  | "SCMP_ARCH_PARISC"
  | "SCMP_ARCH_PARISC64"
  | "SCMP_ARCH_RISCV64";

export type SeccompOperator =
  | "SCMP_CMP_NE"
  | "SCMP_CMP_LT"
  | "SCMP_CMP_LE"
  | "SCMP_CMP_EQ"
  | "SCMP_CMP_GE"
  | "SCMP_CMP_GT"
  | "SCMP_CMP_MASKED_EQ";

export interface Seccomp {
  defaultAction: SeccompAction;
  defaultErrnoRet?: number;
  architectures?: SeccompArchitecture[];
  flags?: SeccompFlag[];
  listenerPath?: string;
  listenerMetadata?: string;
  syscalls?: SeccompRule[];
}

export interface SeccompRule {
  names: string[];
  action: SeccompAction;
  errnoRet?: number;
  args?: SeccompArg[];
}

export interface SeccompArg {
  /** 0 to 5. */
  index: number;
  /** With SCMP_CMP_MASKED_EQ the mask, and `valueTwo` is what it is compared with. */
  value: Integer64;
  valueTwo?: Integer64;
  op: SeccompOperator;
}

export interface IntelRdt {
  closID?: string;
  schemata?: string[];
  l3CacheSchema?: string;
  memBwSchema?: string;
  enableMonitoring?: boolean;
}

export type MemoryPolicyMode =
  | "MPOL_DEFAULT"
  | "MPOL_BIND"
  | "MPOL_INTERLEAVE"
  | "MPOL_WEIGHTED_INTERLEAVE"
  | "MPOL_PREFERRED"
  | "MPOL_PREFERRED_MANY"
  | "MPOL_LOCAL";

export type MemoryPolicyFlag = "MPOL_F_NUMA_BALANCING" | "MPOL_F_RELATIVE_NODES" | "MPOL_F_STATIC_NODES";

/** set_mempolicy(2). */
export interface MemoryPolicy {
  mode?: MemoryPolicyMode;
  /** A list such as "0-1,3". */
  nodes?: string;
  flags?: MemoryPolicyFlag[];
}

export type PersonalityDomain = "LINUX" | "LINUX32";

/** personality(2). */
export interface Personality {
  domain?: PersonalityDomain;
  /** The specification defines none. */
  flags?: string[];
}

export type Status = "creating" | "created" | "running" | "paused" | "stopped";

/** What `state` prints and hooks read: runtime.md, State. */
export interface State {
  ociVersion: string;
  id: string;
  status: Status;
  /** As the host sees it; required unless stopped. */
  pid?: number;
  /** Absolute. */
  bundle: string;
  annotations?: Record<string, string>;
}
