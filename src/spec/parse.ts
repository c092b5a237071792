import { ContainerError } from "../error.ts";
import { MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES } from "../linux/memory-policy.ts";
import { NAMESPACES } from "../linux/namespaces.ts";
import { PERSONALITIES } from "../linux/personality.ts";
import { RLIMITS } from "../linux/rlimits.ts";
import { IO_PRIORITY_CLASSES, SCHEDULER_FLAGS, SCHEDULER_POLICIES } from "../linux/scheduling.ts";
import { sysctlPath } from "../linux/sysctls.ts";
import {
  array,
  boolean,
  type Complain,
  check,
  describe,
  type Fault,
  integer,
  integer64,
  LONG_NUMBER,
  map,
  object,
  oneOf,
  pattern,
  read,
  type Shape,
  string,
} from "./shape.ts";
import type * as spec from "./spec.ts";
import { validate } from "./validate.ts";

/** No honest document comes near; one that does must not be able to use up the memory. */
export const MAX_SIZE_BYTES = 16 * 1024 * 1024;

export interface ParseOptions {
  /** What the error calls the document; a path. */
  path?: string;
  /** The container is to be created and started from it: `root` and `process.args` are needed, too. */
  runnable?: boolean;
}

/**
 * A config.json as a Spec: structure as in the official JSON schema, contents as in config.md and config-linux.md of
 * runtime-spec 1.3. Members that the specification does not know, and the parts for other systems, are left out.
 * @throws ContainerError ERR_SPEC with all faults, one a line; see `faultsOf`
 */
export function parse(json: string | Uint8Array, options: ParseOptions = {}): spec.Spec {
  return parseAs(specShape, json, options, (value) => validate(value, options));
}

/** The process of `exec --process FILE`: the same form as `process` in config.json. @throws as `parse` */
export function parseProcess(json: string | Uint8Array, options: ParseOptions = {}): spec.Process {
  return parseAs(processShape, json, options, ({ args = [] }) =>
    args.length > 0 ? [] : [{ pointer: "/args", message: "must name the program to run" }],
  );
}

/** The resources of `update --resources FILE`: the same form as `linux.resources`. @throws as `parse` */
export function parseResources(json: string | Uint8Array, options: ParseOptions = {}): spec.Resources {
  return parseAs(resourcesShape, json, options, () => []);
}

/** The mounts of `mounts add FILE`: the same form as `mounts` in config.json. @throws as `parse` */
export function parseMounts(json: string | Uint8Array, options: ParseOptions = {}): spec.Mount[] {
  return parseAs(array(mount), json, options, () => []);
}

/** What is wrong with the document that an error of `parse` is about; empty for any other error. */
export function faultsOf(error: unknown): readonly Fault[] {
  const isOurs = error instanceof ContainerError && error.code === "ERR_SPEC" && Array.isArray(error.cause);
  return isOurs ? (error.cause as Fault[]) : []; // refuse() is the only one to put an array there
}

function parseAs<T>(
  shape: Shape<T>,
  json: string | Uint8Array,
  { path = "config.json" }: ParseOptions,
  rules: (value: T) => Fault[],
): T {
  const { value, faults } = read(shape, decode(json, path));
  const all = value === undefined ? faults : rules(value);
  if (value === undefined || all.length > 0) throw refuse(path, all);
  return value;
}

function decode(json: string | Uint8Array, path: string): unknown {
  if (json.length > MAX_SIZE_BYTES) throw refuse(path, [{ pointer: "", message: "must be of at most 16 MiB" }]);
  try {
    const text = typeof json === "string" ? json : new TextDecoder("utf-8", { fatal: true }).decode(json);
    return JSON.parse(text.search(/[0-9]{16}/) < 0 ? text : keepLongNumbers(text));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw refuse(path, [{ pointer: "", message: `must be JSON in UTF-8: ${reason}` }]);
  }
}

/**
 * JSON.parse rounds integers beyond 2^53, and the text of RLIM_INFINITY, of a memory limit or of a mask for a system
 * call's argument must not change. So long integers become strings behind a sign that integer64 knows.
 */
function keepLongNumbers(text: string): string {
  return text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|(?<![0-9.eE+-])-?[1-9][0-9]{15,}(?![0-9.eE]|\s*:)/g, (token) =>
    token.startsWith('"') ? token : JSON.stringify(LONG_NUMBER + token),
  );
}

function refuse(path: string, faults: Fault[]): ContainerError {
  // What the document says must not reach the terminal as control characters, through names or JSON.parse's message.
  const lines = faults.map(({ pointer, message }) =>
    `${JSON.stringify(pointer).slice(1, -1)} ${message}`.trim().replace(/\p{Cc}/gu, "\ufffd"),
  );
  const message =
    lines.length === 1
      ? `cannot use ${path}: ${lines[0]}`
      : [`cannot use ${path}, it has ${lines.length} faults:`, ...lines].join("\n  ");
  return new ContainerError({ message, code: "ERR_SPEC", path, cause: faults });
}

/** The words that a table knows, for oneOf. */
function wordsOf<K extends string>(table: Readonly<Record<K, unknown>>): K[] {
  return Object.keys(table) as K[]; // the tables are constants without further members
}

// ---- Scalars

const uint16 = integer(0, 0xffff);
const uint32 = integer(0, 0xffff_ffff);
const int32 = integer(-0x8000_0000, 0x7fff_ffff);
/** 64 bits wide in the schema, where no value that Linux accepts needs more than a double holds. */
const count = integer(0, Number.MAX_SAFE_INTEGER);
const signed = integer(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
const uint64 = integer64(0n, 0xffff_ffff_ffff_ffffn);
const int64 = integer64(-0x8000_0000_0000_0000n, 0x7fff_ffff_ffff_ffffn);

/** A user or group. 2^32 − 1 is −1 to the kernel: "leave it as it is". */
const id = integer(0, 0xffff_fffe);

const strings = array(string);

const PATH_MAX_BYTES = 4096;
const path = check(string, (value, complain) => {
  if (value === "") complain("must not be empty");
  if (value.length >= PATH_MAX_BYTES) complain(`must be shorter than ${PATH_MAX_BYTES} bytes`);
});
const absolutePath = check(path, (value, complain) => {
  if (value !== "" && !value.startsWith("/")) complain(`must be an absolute path, not ${describe(value)}`);
});

const environment = check(strings, (entries, complain) => {
  entries.forEach((entry, index) => {
    if (entry.indexOf("=") < 1) complain(`must have the form NAME=value, not ${describe(entry)}`, index);
  });
});

/** __NEW_UTS_LEN of linux/utsname.h. */
const UTS_MAX_BYTES = 64;
const utsName = check(string, (value, complain) => {
  if (value.length > UTS_MAX_BYTES) complain(`must not be longer than ${UTS_MAX_BYTES} bytes`);
});

/** The name of a file in a directory that we know, and no way out of it. */
const fileName = (value: string, complain: Complain, ...tokens: string[]) => {
  if (value === "" || value === "." || value === ".." || /[/\n]/.test(value))
    complain(`must be a file name, not ${describe(value)}`, ...tokens);
};

function unique<T>(items: readonly T[], key: (item: T) => unknown, complain: Complain, member: string): void {
  const seen = new Set<unknown>();
  items.forEach((item, index) => {
    if (seen.has(key(item))) complain(`${describe(key(item))} is there twice`, index, member);
    seen.add(key(item));
  });
}

// ---- Both halves

const idMappings = check(
  array(object<spec.IdMapping>({ containerID: id, hostID: id, size: uint32 }, {})),
  (mappings, complain) => {
    // user_namespaces(7): extents are not empty, do not overlap on either side, and end before 2^32 − 1.
    mappings.forEach((mapping, index) => {
      if (mapping.size === 0) complain("must be at least 1", index, "size");
      for (const side of ["containerID", "hostID"] as const) {
        if (mapping[side] + mapping.size > 0xffff_ffff) complain("must not reach beyond id 4294967294", index, "size");
        const overlaps = mappings
          .slice(0, index)
          .some((other) => mapping[side] < other[side] + other.size && other[side] < mapping[side] + mapping.size);
        if (overlaps) complain("overlaps with an earlier mapping", index, side);
      }
    });
    if (mappings.length > 340) complain("must not be more than 340, the most that the kernel takes");
  },
);

const mount = object<spec.Mount>(
  { destination: path },
  { type: string, source: string, options: strings, uidMappings: idMappings, gidMappings: idMappings },
);

const hook = object<spec.Hook>(
  { path: absolutePath },
  { args: strings, env: environment, timeout: integer(1, 0x7fff_ffff) },
);
const hooks = array(hook);

// ---- process

const capabilities = object<spec.Capabilities>(
  {},
  { bounding: strings, effective: strings, inheritable: strings, permitted: strings, ambient: strings },
);

const rlimits = check(
  array(object<spec.Rlimit>({ type: oneOf(wordsOf(RLIMITS)), soft: uint64, hard: uint64 }, {})),
  (limits, complain) => {
    unique(limits, ({ type }) => type, complain, "type");
    limits.forEach(({ soft, hard }, index) => {
      if (soft > hard) complain(`must not exceed the hard limit ${hard}`, index, "soft");
    });
  },
);

const scheduler = check(
  object<spec.Scheduler>(
    { policy: oneOf(wordsOf(SCHEDULER_POLICIES)) },
    {
      nice: integer(-20, 19),
      priority: int32,
      flags: array(oneOf(wordsOf(SCHEDULER_FLAGS))),
      runtime: count,
      deadline: count,
      period: count,
    },
  ),
  ({ policy, priority = 0, ...times }, complain) => {
    const realtime = policy === "SCHED_FIFO" || policy === "SCHED_RR";
    if (realtime ? priority < 1 || priority > 99 : priority !== 0)
      complain(`must be ${realtime ? "from 1 to 99" : "0"} for ${policy}`, "priority");
    for (const name of ["runtime", "deadline", "period"] as const)
      if (policy !== "SCHED_DEADLINE" && times[name]) complain(`is only for SCHED_DEADLINE, not for ${policy}`, name);
    if (policy !== "SCHED_DEADLINE") return;
    // sched(7): 1024 <= runtime <= deadline <= period, and no period means the deadline
    const { runtime = 0, deadline = 0, period = 0 } = times;
    if (runtime < 1024) complain("must be at least 1024 ns for SCHED_DEADLINE", "runtime");
    if (deadline < runtime) complain(`must be at least the runtime ${runtime}`, "deadline");
    if (period !== 0 && period < deadline) complain(`must be at least the deadline ${deadline}`, "period");
  },
);

/** "0-3, 7", as the kernel writes lists of CPUs and nodes; no kernel numbers them up to here. */
const MOST_NUMBER = 0xffff;
function numberList(what: string): Shape<string> {
  return check(string, (value, complain) => {
    const isRange = (part: string) => {
      const [, first, last = first] = /^ *([0-9]{1,6})(?:-([0-9]{1,6}))? *$/.exec(part) ?? [];
      return part.trim() === "" || (Number(first) <= Number(last) && Number(last) <= MOST_NUMBER);
    };
    if (!value.split(",").every(isRange)) complain(`must be ${what}, not ${describe(value)}`);
  });
}
const cpuList = numberList('a list of CPUs such as "0-3,7"');

const processShape = object<spec.Process>(
  { cwd: absolutePath },
  {
    terminal: boolean,
    // struct winsize has 16 bits for each: ioctl_tty(2).
    consoleSize: object<spec.ConsoleSize>({ height: uint16, width: uint16 }, {}),
    env: environment,
    args: strings,
    rlimits,
    apparmorProfile: string,
    selinuxLabel: string,
    capabilities,
    noNewPrivileges: boolean,
    oomScoreAdj: integer(-1000, 1000),
    scheduler,
    ioPriority: object<spec.IoPriority>({ class: oneOf(wordsOf(IO_PRIORITY_CLASSES)) }, { priority: integer(0, 7) }),
    execCPUAffinity: object<spec.ExecCpuAffinity>({}, { initial: cpuList, final: cpuList }),
    user: object<spec.User>({}, { uid: id, gid: id, umask: uint32, additionalGids: array(id), username: string }),
  },
);

// ---- linux

/** No path may be written as an empty one, as by programs that write every field. */
const namespace: Shape<spec.Namespace> = (value, place) => {
  const read = object<spec.Namespace>(
    { type: oneOf(wordsOf(NAMESPACES)) },
    { path: (text, where) => (text === "" ? "" : absolutePath(text, where)) },
  )(value, place);
  if (read?.path !== "") return read;
  const { type } = read;
  return { type };
};

const namespaces = check(array(namespace), (list, complain) => unique(list, ({ type }) => type, complain, "type"));

const timeOffset = object<spec.TimeOffset>({}, { secs: signed, nanosecs: integer(0, 999_999_999) });

// makedev of the kernel: 12 bits of major, 20 of minor.
const major = integer(0, 0xfff);
const minor = integer(0, 0xf_ffff);

const device = object<spec.Device>(
  { type: oneOf(["c", "b", "u", "p"]), path: absolutePath },
  // Permission bits by the schema, but clients have sent st_mode as it is: 8630 is a character device, 0666.
  { major, minor, fileMode: uint16, uid: id, gid: id },
);

/** dev_valid_name of the kernel, netdevice(7). */
const interfaceName = (value: string, complain: Complain, ...tokens: string[]) => {
  if (!/^[^\s/:]{1,15}$/.test(value) || value === "." || value === "..")
    complain(`must be the name of a network interface, not ${describe(value)}`, ...tokens);
};
const netDevices = check(map(object<spec.NetDevice>({}, { name: string })), (devices, complain) => {
  const names = Object.entries(devices).map(([from, { name = from }]) => ({ from, name: name === "" ? from : name }));
  for (const { from, name } of names) {
    interfaceName(from, complain, from);
    if (name !== from) interfaceName(name, complain, from, "name");
    // a pattern such as "eth%d" becomes another name each time
    if (!name.includes("%d") && names.some((other) => other.from < from && other.name === name))
      complain(`${describe(name)} is there twice`, from, "name");
  }
});

const cgroupsPath = check(string, (value, complain) => {
  if (value.split(/[/:]/).includes("..")) complain(`must not contain "..": ${describe(value)}`);
});

const ruleNumber = integer(-1, 0xffff_ffff);
const deviceRule = object<spec.DeviceRule>(
  { allow: boolean },
  {
    type: pattern(/^[abc]?$/, '"a", "b" or "c"'),
    major: ruleNumber,
    minor: ruleNumber,
    access: pattern(/^[rwm]*$/, 'of the letters "r", "w" and "m"'),
  },
);

const weight = check(uint16, (value, complain) => {
  if (value !== 0 && (value < 10 || value > 1000)) complain(`must be from 10 to 1000, not ${value}`);
});
const throttles = array(object<spec.ThrottleDevice>({ major, minor }, { rate: uint64 }));

const resourcesShape = object<spec.Resources>(
  {},
  {
    unified: check(map(string), (files, complain) => {
      for (const name of Object.keys(files)) fileName(name, complain, name);
    }),
    devices: array(deviceRule),
    memory: object<spec.Memory>(
      {},
      {
        limit: int64,
        reservation: int64,
        swap: int64,
        kernel: int64,
        kernelTCP: int64,
        swappiness: integer(0, 100),
        disableOOMKiller: boolean,
        useHierarchy: boolean,
        checkBeforeUpdate: boolean,
      },
    ),
    cpu: object<spec.Cpu>(
      {},
      {
        shares: count,
        quota: signed,
        burst: count,
        period: count,
        realtimeRuntime: signed,
        realtimePeriod: count,
        cpus: string,
        mems: string,
        idle: signed,
      },
    ),
    pids: object<spec.Pids>({ limit: signed }, {}),
    blockIO: object<spec.BlockIo>(
      {},
      {
        weight,
        leafWeight: weight,
        weightDevice: array(object<spec.WeightDevice>({ major, minor }, { weight, leafWeight: weight })),
        throttleReadBpsDevice: throttles,
        throttleWriteBpsDevice: throttles,
        throttleReadIOPSDevice: throttles,
        throttleWriteIOPSDevice: throttles,
      },
    ),
    hugepageLimits: array(
      object<spec.HugepageLimit>(
        { pageSize: pattern(/^[1-9][0-9]*[KMG]B$/, 'a page size such as "2MB"'), limit: uint64 },
        {},
      ),
    ),
    network: object<spec.Network>(
      {},
      { classID: uint32, priorities: array(object<spec.InterfacePriority>({ name: string, priority: uint32 }, {})) },
    ),
    rdma: map(object<spec.Rdma>({}, { hcaHandles: uint32, hcaObjects: uint32 })),
  },
);

const seccompAction = oneOf<spec.SeccompAction>([
  "SCMP_ACT_KILL",
  "SCMP_ACT_KILL_PROCESS",
  "SCMP_ACT_KILL_THREAD",
  "SCMP_ACT_TRAP",
  "SCMP_ACT_ERRNO",
  "SCMP_ACT_TRACE",
  "SCMP_ACT_ALLOW",
  "SCMP_ACT_LOG",
  "SCMP_ACT_NOTIFY",
]);

const seccompArchitecture = oneOf<spec.SeccompArchitecture>([
  "SCMP_ARCH_X86",
  "SCMP_ARCH_X86_64",
  "SCMP_ARCH_X32",
  "SCMP_ARCH_ARM",
  "SCMP_ARCH_AARCH64",
  "SCMP_ARCH_LOONGARCH64",
  "SCMP_ARCH_M68K",
  "SCMP_ARCH_MIPS",
  "SCMP_ARCH_MIPS64",
  "SCMP_ARCH_MIPS64N32",
  "SCMP_ARCH_MIPSEL",
  "SCMP_ARCH_MIPSEL64",
  "SCMP_ARCH_MIPSEL64N32",
  "SCMP_ARCH_PPC",
  "SCMP_ARCH_PPC64",
  "SCMP_ARCH_PPC64LE",
  "SCMP_ARCH_S390",
  "SCMP_ARCH_S390X",
  "SCMP_ARCH_SH",
  "SCMP_ARCH_SHEB",
  "SCMP_ARCH_PARISC",
  "SCMP_ARCH_PARISC64",
  "SCMP_ARCH_RISCV64",
]);

const seccompFlag = oneOf<spec.SeccompFlag>([
  "SECCOMP_FILTER_FLAG_TSYNC",
  "SECCOMP_FILTER_FLAG_LOG",
  "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
  "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]);

const seccompOperator = oneOf<spec.SeccompOperator>([
  "SCMP_CMP_NE",
  "SCMP_CMP_LT",
  "SCMP_CMP_LE",
  "SCMP_CMP_EQ",
  "SCMP_CMP_GE",
  "SCMP_CMP_GT",
  "SCMP_CMP_MASKED_EQ",
]);

const seccompRule = object<spec.SeccompRule>(
  { names: array(string, { min: 1 }), action: seccompAction },
  {
    errnoRet: uint32,
    args: array(
      object<spec.SeccompArg>({ index: integer(0, 5), value: uint64, op: seccompOperator }, { valueTwo: uint64 }),
    ),
  },
);

const seccomp = check(
  object<spec.Seccomp>(
    { defaultAction: seccompAction },
    {
      defaultErrnoRet: uint32,
      architectures: array(seccompArchitecture),
      flags: array(seccompFlag),
      listenerPath: string,
      listenerMetadata: string,
      syscalls: array(seccompRule),
    },
  ),
  ({ defaultAction, defaultErrnoRet, listenerPath, listenerMetadata, syscalls = [] }, complain) => {
    errnoFor(defaultAction, defaultErrnoRet, complain, "defaultErrnoRet");
    syscalls.forEach(({ action, errnoRet }, index) => {
      errnoFor(action, errnoRet, complain, "syscalls", index, "errnoRet");
    });
    if (listenerMetadata !== undefined && !listenerPath)
      complain("must not be there without listenerPath", "listenerMetadata");
    // Without an exception nobody could pass on the descriptor that answers the notifications.
    if (defaultAction === "SCMP_ACT_NOTIFY") complain("must not be SCMP_ACT_NOTIFY", "defaultAction");
    if (!listenerPath && syscalls.some(({ action }) => action === "SCMP_ACT_NOTIFY"))
      complain("is required for SCMP_ACT_NOTIFY", "listenerPath");
  },
);

/** seccomp(2), SECCOMP_RET_DATA: an errno (4095 at most) or 16 bits for the tracer; nothing with other actions. */
function errnoFor(
  action: spec.SeccompAction,
  value: number | undefined,
  complain: Complain,
  ...tokens: (string | number)[]
): void {
  const most = action === "SCMP_ACT_ERRNO" ? 4095 : action === "SCMP_ACT_TRACE" ? 0xffff : undefined;
  if (value !== undefined && (most === undefined || value > most))
    complain(
      most === undefined ? `must not be there with ${action}` : `must be at most ${most}, not ${value}`,
      ...tokens,
    );
}

const sysctls = check(map(string), (settings, complain) => {
  for (const name of Object.keys(settings))
    if (sysctlPath(name) === undefined) complain("must be the name of a setting below /proc/sys", name);
});

const intelRdt = check(
  object<spec.IntelRdt>(
    {},
    {
      closID: string,
      schemata: strings,
      l3CacheSchema: string,
      memBwSchema: pattern(/^MB:[^\n]*$/, 'one line that starts with "MB:"'),
      enableMonitoring: boolean,
    },
  ),
  ({ closID }, complain) => {
    // "/" is the root's own class
    if (closID && closID !== "/") fileName(closID, complain, "closID");
  },
);

const memoryPolicy = check(
  object<spec.MemoryPolicy>(
    {},
    {
      mode: oneOf(wordsOf(MEMORY_POLICY_MODES)),
      nodes: numberList('a list of nodes such as "0-1,3"'),
      flags: array(oneOf(wordsOf(MEMORY_POLICY_FLAGS))),
    },
  ),
  ({ mode, nodes = "", flags = [] }, complain) => {
    // set_mempolicy(2), ERRORS: EINVAL.
    if (mode === undefined) complain("is required", "mode");
    else if (mode === "MPOL_DEFAULT" || mode === "MPOL_LOCAL") {
      if (nodes.trim() !== "") complain(`must be empty for ${mode}`, "nodes");
    } else if (mode !== "MPOL_PREFERRED" && nodes.trim() === "") complain(`is required for ${mode}`, "nodes");
    if (flags.includes("MPOL_F_STATIC_NODES") && flags.includes("MPOL_F_RELATIVE_NODES"))
      complain("must not have both MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES", "flags");
  },
);

const linux = object<spec.Linux>(
  {},
  {
    namespaces,
    uidMappings: idMappings,
    gidMappings: idMappings,
    timeOffsets: object<spec.TimeOffsets>({}, { boottime: timeOffset, monotonic: timeOffset }),
    devices: array(device),
    netDevices,
    cgroupsPath,
    resources: resourcesShape,
    // the recursive ones are not in the specification, but engines write them
    rootfsPropagation: oneOf([
      ...["private", "shared", "slave", "unbindable"],
      ...["rprivate", "rshared", "rslave", "runbindable"],
    ] as const),
    seccomp,
    sysctl: sysctls,
    maskedPaths: array(absolutePath),
    readonlyPaths: array(absolutePath),
    mountLabel: string,
    intelRdt,
    memoryPolicy,
    personality: object<spec.Personality>({}, { domain: oneOf(wordsOf(PERSONALITIES)), flags: strings }),
  },
);

// ---- The whole

const ociVersion = check(string, (value, complain) => {
  const major = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/.exec(value)?.[1];
  if (major !== "1") complain(`must be a version from 1.0.0 to before 2.0.0, not ${describe(value)}`);
});

const specShape = object<spec.Spec>(
  { ociVersion },
  {
    root: object<spec.Root>({ path }, { readonly: boolean }),
    mounts: array(mount),
    process: processShape,
    hostname: utsName,
    domainname: utsName,
    hooks: object<spec.Hooks>(
      {},
      {
        prestart: hooks,
        createRuntime: hooks,
        createContainer: hooks,
        startContainer: hooks,
        poststart: hooks,
        poststop: hooks,
      },
    ),
    annotations: check(map(string), (annotations, complain) => {
      if (Object.hasOwn(annotations, "")) complain("must have a key that is not empty", "");
    }),
    linux,
  },
);
