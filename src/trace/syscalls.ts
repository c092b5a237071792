import { type Abi, syscallNumbers } from "../seccomp/syscalls.ts";

/** Machines that Caisson runs on. */
export type Machine = Extract<Abi, "x86_64" | "aarch64">;

const names: Partial<Record<Machine, ReadonlyMap<number, string>>> = {};

/** A system call's name by its number; "syscall_N" for one that is newer than our tables. */
export function syscallName(nr: number, machine: Machine): string {
  names[machine] ??= new Map([...syscallNumbers(machine)].map(([name, number]) => [number, name]));
  return names[machine].get(nr) ?? `syscall_${nr}`;
}

/**
 * What the kernel takes each argument for, one letter each: d descriptor, n number, x flags, o mode, p pointer.
 * These are the calls that steps make; section 2 of the manual has them.
 */
const PARAMETERS: { readonly [name: string]: string } = {
  accept4: "dppx",
  bind: "dpn",
  bpf: "npn",
  capget: "pp",
  capset: "pp",
  chdir: "p",
  chroot: "p",
  clone: "xpppp",
  clone3: "pn",
  close: "d",
  close_range: "dxx",
  connect: "dpn",
  dup3: "ddx",
  execve: "ppp",
  execveat: "dpppx",
  faccessat: "dpo",
  fchdir: "d",
  fchmod: "do",
  fchmodat: "dpo",
  fchown: "dnn",
  fchownat: "dpnnx",
  fcntl: "dnx",
  flock: "dx",
  fsconfig: "dnppn",
  fsmount: "dxx",
  fsopen: "px",
  fstat: "dp",
  fstatfs: "dp",
  ftruncate: "dn",
  getcwd: "pn",
  ioctl: "dxp",
  ioprio_set: "nnx",
  keyctl: "npppp",
  listen: "dn",
  lseek: "dnn",
  memfd_create: "px",
  mkdirat: "dpo",
  mknodat: "dpox",
  mount: "pppxp",
  mount_setattr: "dpxpn",
  move_mount: "dpdpx",
  newfstatat: "dppx",
  open_tree: "dpx",
  openat: "dpxo",
  openat2: "dppn",
  personality: "x",
  pidfd_open: "nx",
  pidfd_send_signal: "dnpx",
  pivot_root: "pp",
  ppoll: "pnppn",
  prctl: "nxxxx",
  pread64: "dpnn",
  prlimit64: "nnpp",
  read: "dpn",
  readlinkat: "dppn",
  recvfrom: "dpnxpp",
  recvmsg: "dpx",
  sched_setaffinity: "nnp",
  sched_setattr: "npx",
  seccomp: "nxp",
  sendmsg: "dpx",
  sendto: "dpnxpn",
  set_mempolicy: "npn",
  setdomainname: "pn",
  setgroups: "np",
  sethostname: "pn",
  setns: "dx",
  setresgid: "nnn",
  setresuid: "nnn",
  setsid: "",
  setsockopt: "dnnpn",
  socket: "nxn",
  socketpair: "nxnp",
  statx: "dpxxp",
  symlinkat: "pdp",
  umask: "o",
  umount2: "px",
  unlinkat: "dpx",
  unshare: "x",
  vfork: "",
  waitid: "ndpxp",
  write: "dpn",
};

const AT_FDCWD = -100n;

/**
 * A call's arguments, as many as it takes, for people.
 * @param pointed what the pointer at this place points at, where that is known
 */
export function printArguments(
  name: string,
  args: readonly bigint[],
  pointed: (at: number, address: bigint) => string | undefined,
): string[] {
  const parameters = PARAMETERS[name] ?? "xxxxxx";
  return [...parameters].map((parameter, at) =>
    printArgument(parameter, args[at] ?? 0n, (address) => pointed(at, address)),
  );
}

function printArgument(parameter: string, value: bigint, pointed: (address: bigint) => string | undefined): string {
  // the kernel itself looks at the lower half of these only
  const word = BigInt.asIntN(32, value);
  if (parameter === "d") return word === AT_FDCWD ? "AT_FDCWD" : `${word}`;
  if (parameter === "n") return `${BigInt.asIntN(64, value)}`;
  if (parameter === "o") return value === 0n ? "0" : `0${BigInt.asUintN(32, value).toString(8)}`;
  if (parameter === "p") return value === 0n ? "NULL" : (pointed(value) ?? `0x${value.toString(16)}`);
  return value === 0n ? "0" : `0x${value.toString(16)}`;
}
