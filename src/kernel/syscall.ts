import { ContainerError } from "../error.ts";
import { ERRNO_NAMES } from "../linux/errno.ts";
import { type Argument, addon } from "./addon.ts";

const { arch } = process;

/** System call numbers, [x86-64, arm64]; -1 where the architecture has no such call. Source: the kernel's unistd headers. */
const NUMBERS = {
  read: [0, 63],
  write: [1, 64],
  close: [3, 57],
  execve: [59, 221],
  lseek: [8, 62],
  ioctl: [16, 29],
  pread64: [17, 67],
  dup3: [292, 24],
  fcntl: [72, 25],
  flock: [73, 32],
  ftruncate: [77, 46],
  fchdir: [81, 50],
  fchmod: [91, 52],
  fchown: [93, 55],
  prctl: [157, 167],
  umount2: [166, 39],
  socket: [41, 198],
  connect: [42, 203],
  getsockname: [51, 204],
  bind: [49, 200],
  listen: [50, 201],
  accept4: [288, 242],
  socketpair: [53, 199],
  setsockopt: [54, 208],
  getsockopt: [55, 209],
  sendto: [44, 206],
  recvfrom: [45, 207],
  kill: [62, 129],
  fsetxattr: [190, 7],
  fgetxattr: [193, 10],
  flistxattr: [196, 13],
  openat: [257, 56],
  mkdirat: [258, 34],
  mknodat: [259, 33],
  fchownat: [260, 54],
  newfstatat: [262, 79],
  unlinkat: [263, 35],
  linkat: [265, 37],
  symlinkat: [266, 36],
  readlinkat: [267, 78],
  fchmodat: [268, 53],
  faccessat: [269, 48],
  utimensat: [280, 88],
  fallocate: [285, 47],
  prlimit64: [302, 261],
  syncfs: [306, 267],
  setns: [308, 268],
  finit_module: [313, 273],
  renameat2: [316, 276],
  eventfd2: [290, 19],
  pipe2: [293, 59],
  memfd_create: [319, 279],
  bpf: [321, 280],
  statx: [332, 291],
  pidfd_send_signal: [424, 424],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  pidfd_open: [434, 434],
  close_range: [436, 436],
  openat2: [437, 437],
  mount_setattr: [442, 442],
  clock_gettime: [228, 113],
  mount: [165, 40],
  waitid: [247, 95],
  getdents64: [217, 61],
  fstatfs: [138, 44],
  copy_file_range: [326, 285],
  keyctl: [250, 219],
  sendfile: [40, 71],
} as const;

export type SyscallName = keyof typeof NUMBERS;

const COLUMN = arch === "arm64" ? 1 : 0;

/** The call's number on this machine. */
export function syscallNumber(name: SyscallName): number {
  return NUMBERS[name][COLUMN];
}

/** "EPERM" for 1; "E999" for a number this system has no name for. */
export function errnoName(errno: number): string {
  return ERRNO_NAMES[errno] ?? `E${errno}`;
}

/** Calls the kernel; the result, or -errno. For calls whose failure is an answer. */
export function tryCall(name: SyscallName, ...args: Argument[]): number {
  return addon().syscall(NUMBERS[name][COLUMN], ...args);
}

/** Calls the kernel. @throws ContainerError with code, errno, syscall, and path where one of the arguments was one. */
export function call(name: SyscallName, ...args: Argument[]): number {
  const result = tryCall(name, ...args);
  if (result < 0)
    throw kernelError(
      name,
      -result,
      args.find((arg) => typeof arg === "string" && arg !== ""),
    );
  return result;
}

/** pipe2(2), close-on-exec: the end to read from, the end to write to. @throws ContainerError */
export function pipe(): [number, number] {
  const O_CLOEXEC = 0o2000000;
  const ends = new Int32Array(2);
  call("pipe2", new Uint8Array(ends.buffer), O_CLOEXEC);
  return [ends[0] ?? -1, ends[1] ?? -1];
}

/** The error for a system call that failed. */
export function kernelError(syscall: string, errno: number, path?: unknown): ContainerError {
  const code = errnoName(errno);
  const where = typeof path === "string" ? path : undefined;
  return new ContainerError({
    message: where === undefined ? `${code} from ${syscall}` : `${code} from ${syscall} of ${where}`,
    code,
    errno,
    syscall,
    path: where,
  });
}
