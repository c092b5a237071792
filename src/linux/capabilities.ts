/** The capabilities in the order of their numbers, from 0: capabilities(7), linux/capability.h of Linux 5.9 and newer. */
export const CAPABILITIES = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
] as const;

export type Capability = (typeof CAPABILITIES)[number];

/** What Docker leaves to a container that asks for nothing. */
export const DEFAULT_CAPABILITIES: readonly Capability[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];

/** The number of a capability such as "CAP_KILL", or undefined if there is none of that name. */
export function capabilityNumber(name: string): number | undefined {
  const number = (CAPABILITIES as readonly string[]).indexOf(name); // widened: any string may be asked for
  return number < 0 ? undefined : number;
}

/** The set as bits (1 << number), as capset(2) and /proc/pid/status have it. Unknown names are left out. */
export function capabilityMask(names: readonly string[]): bigint {
  return names.reduce((mask, name) => mask | bit(name), 0n);
}

/** The names in a set of bits, in the order of their numbers; bits without a name are left out. */
export function capabilityNames(mask: bigint): Capability[] {
  return CAPABILITIES.filter((_, number) => (mask >> BigInt(number)) & 1n);
}

function bit(name: string): bigint {
  const number = capabilityNumber(name);
  return number === undefined ? 0n : 1n << BigInt(number);
}
