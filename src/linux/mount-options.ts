/** The MOUNT_ATTR_* bits of fsmount(2) and mount_setattr(2). */
export const MOUNT_ATTR = {
  RDONLY: 0x1,
  NOSUID: 0x2,
  NODEV: 0x4,
  NOEXEC: 0x8,
  NOATIME: 0x10,
  STRICTATIME: 0x20,
  NODIRATIME: 0x80,
  IDMAP: 0x100000,
  NOSYMFOLLOW: 0x200000,
  /**
   * Access time is one field of three values, not bits: relatime (0), noatime, strictatime. To change it,
   * mount_setattr(2) wants all of the field in attr_clr.
   */
  ATIME_FIELD: 0x70,
} as const;

/** The propagation types, for mount_attr.propagation; they are the MS_* numbers of mount(2). */
export const PROPAGATION = {
  unbindable: 1 << 17,
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
} as const;

export type PropagationType = keyof typeof PROPAGATION;

/** `leaveAtime: v` undoes an earlier (or the source's) access time v and leaves any other as it is. */
interface Attribute {
  set?: number;
  clear?: number;
  atime?: number;
  leaveAtime?: number;
}

const { RDONLY, NOSUID, NODEV, NOEXEC, NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW, ATIME_FIELD } = MOUNT_ATTR;

/** Options that are attributes of one mount. Each also exists with a leading "r": for all mounts below, too. */
const ATTRIBUTES: ReadonlyMap<string, Attribute> = new Map(
  Object.entries({
    ro: { set: RDONLY },
    rw: { clear: RDONLY },
    nosuid: { set: NOSUID },
    suid: { clear: NOSUID },
    nodev: { set: NODEV },
    dev: { clear: NODEV },
    noexec: { set: NOEXEC },
    exec: { clear: NOEXEC },
    nosymfollow: { set: NOSYMFOLLOW },
    symfollow: { clear: NOSYMFOLLOW },
    nodiratime: { set: NODIRATIME },
    diratime: { clear: NODIRATIME },
    relatime: { atime: 0 },
    noatime: { atime: NOATIME },
    strictatime: { atime: STRICTATIME },
    atime: { leaveAtime: NOATIME },
    nostrictatime: { leaveAtime: STRICTATIME },
    // Relatime is where the kernel lands when nothing else is asked, so there is nothing to leave for.
    norelatime: {},
  }),
);

/**
 * Options that belong to the file system (its superblock), and what fsconfig(2) FSCONFIG_SET_FLAG calls them.
 * null: accepted and without effect, as fsconfig has no word for it: `silent` only ever quietened the kernel's log,
 * file systems with a change counter (`iversion`) keep it always, and the others are defaults.
 */
const SUPER_FLAGS: ReadonlyMap<string, string | null> = new Map(
  Object.entries({
    sync: "sync",
    async: "async",
    dirsync: "dirsync",
    mand: "mand",
    nomand: "nomand",
    lazytime: "lazytime",
    nolazytime: "nolazytime",
    iversion: null,
    noiversion: null,
    silent: null,
    loud: null,
    defaults: null,
  }),
);

const PROPAGATIONS: ReadonlyMap<string, Propagation> = new Map(
  Object.entries(PROPAGATION).flatMap(([name, flag]): [string, Propagation][] => [
    [name, { flag, recursive: false }],
    [`r${name}`, { flag, recursive: true }],
  ]),
);

/** A propagation by its name, "rshared" with all below it. @returns undefined for no such name */
export function parsePropagation(name: string): Propagation | undefined {
  return PROPAGATIONS.get(name);
}

const OTHERS = [
  "bind",
  "rbind",
  "remount",
  "idmap",
  "ridmap",
  "tmpcopyup",
  "copy-symlink",
  "src-nofollow",
  "dest-nofollow",
] as const;

/** One change of a mount's propagation; recursive changes all mounts below, too. */
export interface Propagation {
  flag: number;
  recursive: boolean;
}

/** What the options of one mount ask for. attr* are MOUNT_ATTR_* bits. */
export interface MountOptions {
  bind: "bind" | "rbind" | undefined;
  remount: boolean;
  /** For fsmount(2); with `attrClear` for mount_setattr(2) on a bind mount, whose other attributes stay. */
  attrSet: number;
  attrClear: number;
  /** The same with AT_RECURSIVE, afterwards. */
  recursiveSet: number;
  recursiveClear: number;
  /** In order. */
  propagation: Propagation[];
  /** For FSCONFIG_SET_FLAG. */
  superFlags: string[];
  /** What the file system itself understands, as written: "size=64k" or "newinstance". */
  data: string[];
  idmap: "idmap" | "ridmap" | undefined;
  /** crun's extension: what stands behind "idmap=", see idmap.ts; undefined without "=". */
  idmapRanges: string | undefined;
  /** runc's extension: a tmpfs starts as a copy of the directory it covers. */
  tmpcopyup: boolean;
  /** crun's extensions, for a bind mount whose source is a link: a link like it is made, or the link itself mounted. */
  copySymlink: boolean;
  sourceNofollow: boolean;
  /** crun's extension: where the destination is a link, the link itself is covered. */
  destinationNofollow: boolean;
}

/**
 * Sorts the options of a mount by who has to act on them. A later option overrides an earlier one.
 * An unknown option is for the file system. Source: runtime-spec config.md, "Linux mount options".
 */
export function parseMountOptions(options: readonly string[]): MountOptions {
  const result: MountOptions = {
    bind: undefined,
    remount: false,
    attrSet: 0,
    attrClear: 0,
    recursiveSet: 0,
    recursiveClear: 0,
    propagation: [],
    superFlags: [],
    data: [],
    idmap: undefined,
    idmapRanges: undefined,
    tmpcopyup: false,
    copySymlink: false,
    sourceNofollow: false,
    destinationNofollow: false,
  };
  for (const option of options) {
    const own = ATTRIBUTES.get(option);
    const recursive = option.startsWith("r") ? ATTRIBUTES.get(option.slice(1)) : undefined;
    const propagation = PROPAGATIONS.get(option);
    const flag = SUPER_FLAGS.get(option);
    if (own) [result.attrSet, result.attrClear] = apply(own, result.attrSet, result.attrClear);
    else if (recursive)
      [result.recursiveSet, result.recursiveClear] = apply(recursive, result.recursiveSet, result.recursiveClear);
    else if (propagation) result.propagation.push(propagation);
    else if (flag !== undefined) flag !== null && result.superFlags.push(flag);
    else if (option === "bind" || option === "rbind") result.bind = option;
    else if (/^r?idmap(=|$)/.test(option)) [result.idmap, result.idmapRanges] = splitIdmap(option);
    else if (option === "remount") result.remount = true;
    else if (option === "tmpcopyup") result.tmpcopyup = true;
    else if (option === "copy-symlink") result.copySymlink = true;
    else if (option === "src-nofollow") result.sourceNofollow = true;
    else if (option === "dest-nofollow") result.destinationNofollow = true;
    else if (option !== "") result.data.push(option);
  }
  return result;
}

function splitIdmap(option: string): ["idmap" | "ridmap", string | undefined] {
  const at = option.indexOf("=");
  return [option.startsWith("r") ? "ridmap" : "idmap", at < 0 ? undefined : option.slice(at + 1)];
}

/** Every option that is not left to the file system, sorted: `mountOptions` of the features document. */
export function knownMountOptions(): string[] {
  const attributes = [...ATTRIBUTES.keys()];
  return [
    ...attributes,
    ...attributes.map((name) => `r${name}`),
    ...PROPAGATIONS.keys(),
    ...SUPER_FLAGS.keys(),
    ...OTHERS,
  ].sort();
}

/** The pair (set, clear) after one more attribute. The kernel clears first, then sets. */
function apply({ set = 0, clear = 0, atime, leaveAtime }: Attribute, oldSet: number, oldClear: number) {
  const asked = (oldClear & ATIME_FIELD) === ATIME_FIELD ? oldSet & ATIME_FIELD : undefined;
  const value = atime ?? (leaveAtime !== undefined && (asked ?? leaveAtime) === leaveAtime ? 0 : undefined);
  if (value !== undefined) return [(oldSet & ~ATIME_FIELD) | value, oldClear | ATIME_FIELD] as const;
  return [(oldSet & ~clear) | set, (oldClear & ~set) | clear] as const;
}

/** What may be mounted in /proc: files that lxcfs and the like emulate. The same as runc's. */
const COVERABLE: ReadonlySet<string> = new Set([
  "/proc/cpuinfo",
  "/proc/diskstats",
  "/proc/meminfo",
  "/proc/stat",
  "/proc/swaps",
  "/proc/uptime",
  "/proc/loadavg",
  "/proc/slabinfo",
  "/proc/sys/kernel/ns_last_pid",
  "/proc/sys/crypto/fips_enabled",
]);

/** Whether something may be mounted on a path of proc's, or on proc itself: everything else there is the kernel's. */
export function mayCoverProc(path: string): boolean {
  return path === "/proc" || COVERABLE.has(path);
}
