import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { ContainerError } from "../error.ts";
import { addon } from "./addon.ts";
import { call, kernelError, tryCall } from "./syscall.ts";

const { ppid } = process;

export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLHUP = 16;

/**
 * Starts an executable by descriptor (vfork, execveat), or by path where it may be a script: default signal dispositions, empty mask, our caller's soft
 * RLIMIT_NOFILE. The child's descriptor i is descriptors[i]; -1 leaves it closed; all others are closed.
 * @param leads whether it leads a process group of its own
 * @returns its pid @throws ContainerError
 */
export function spawn(
  file: number | string,
  argv: string[],
  env: string[],
  descriptors: number[],
  leads = false,
): number {
  const pid = addon().spawn(file, argv, env, descriptors, callerNofile(), leads);
  if (pid < 0) throw kernelError("vfork", -pid);
  return pid;
}

/** JavaScript engines raise their own soft RLIMIT_NOFILE at start; the process that called us still has the one we got. */
function callerNofile(): number {
  const limits = new BigUint64Array(2);
  if (tryCall("prlimit64", ppid, 7, null, new Uint8Array(limits.buffer)) < 0) return -1;
  const soft = limits[0] ?? 0n;
  return soft > 0xffffffffn ? -1 : Number(soft);
}

/** pidfd_open(2). @throws ContainerError; ESRCH when there is no such process */
export function openProcess(pid: number): number {
  return call("pidfd_open", pid, 0);
}

/** pidfd_send_signal(2). @returns false when the process has ended @throws ContainerError */
export function signal(pidfd: number, number: number): boolean {
  const result = tryCall("pidfd_send_signal", pidfd, number, null, 0);
  if (result < 0 && result !== -3) throw kernelError("pidfd_send_signal", -result);
  return result >= 0;
}

/** Kills a child that leads a process group, and the group with it; before it is reaped, so that its id is still its own. */
export function killGroup(leader: number): void {
  const result = tryCall("kill", -leader, 9);
  if (result < 0 && result !== -3) throw kernelError("kill", -result);
}

/** How a process ended: its exit status, or 128 + the signal that killed it, as a shell says it. */
export interface Ending {
  status: number;
  signal: number;
}

/**
 * Reaps our child. @returns undefined when it has not ended and `wait` is false
 * @throws ContainerError ECHILD when it is not ours
 */
export function reap(pidfd: number, wait = true): Ending | undefined {
  const info = new Int32Array(32);
  const P_PIDFD = 3;
  const WEXITED = 4;
  const WNOHANG = 1;
  let result: number;
  do result = tryCall("waitid", P_PIDFD, pidfd, new Uint8Array(info.buffer), wait ? WEXITED : WEXITED | WNOHANG, null);
  while (result === -4);
  if (result < 0) throw kernelError("waitid", -result);
  const code = info[2] ?? 0; // si_code
  if ((info[4] ?? 0) === 0) return; // si_pid: nothing had ended
  const status = info[6] ?? 0; // si_status (behind si_pid, si_uid at offset 16)
  const CLD_EXITED = 1;
  return code === CLD_EXITED ? { status, signal: 0 } : { status: 128 + status, signal: status };
}

/** Waits until one of the descriptors is ready; revents of each, all 0 after the deadline. -1 waits without limit. */
export function wait(descriptors: number[], timeoutMs = -1, events?: number[]): number[] {
  for (;;) {
    const seen = addon().poll(descriptors, events ?? descriptors.map(() => POLLIN), timeoutMs);
    if (typeof seen !== "number") return seen;
    if (seen !== -4) throw kernelError("poll", -seen);
  }
}

/** How long a process that was killed may take to end: in the kernel's hands it cannot be hurried. */
const END_MS = 10_000;

/** By when a process that is killed now has to have ended. */
export function endDeadline(): number {
  return Date.now() + END_MS;
}

/** Waits for the end of a process that was killed. @throws ContainerError ETIMEDOUT, with what keeps it */
export function awaitEnd(pidfd: number, pid: number, deadline = endDeadline()): void {
  const [ended] = wait([pidfd], Math.max(deadline - Date.now(), 0));
  if (ended !== 0) return;
  // the first process of a pid namespace ends after all others
  const stuck = kin(pid).find((each) => processState(each) === "D");
  const why = stuck === undefined ? "" : `: process ${stuck} is in an uninterruptible system call (state D)`;
  throw new ContainerError({
    message: `process ${pid} did not end within ${END_MS / 1000} s of being killed${why}`,
    code: "ETIMEDOUT",
    hint: stuck === undefined ? undefined : "a file system that does not answer keeps processes until it does",
  });
}

/** From now on each of these signals arrives as one byte (its number) on the descriptor returned. */
export function catchSignals(numbers: number[]): number {
  const fd = addon().catchSignals(numbers);
  if (fd < 0) throw kernelError("pipe2", -fd);
  return fd;
}

/**
 * A process with those of its pid namespace (unless that is ours), and with their descendants, some of which may have
 * namespaces of their own. Where there is no cgroup, it is the best that can be known; who has been orphaned among
 * strangers is lost.
 */
export function kin(pid: number): number[] {
  const namespace = pidNamespace(pid);
  const near = namespace !== undefined && namespace !== pidNamespace("self");
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const [, parent] = /^(?:\d+) \(.*\) . (\d+) /s.exec(/^\d+$/.test(name) ? (statOf(Number(name)) ?? "") : "") ?? [];
    if (parent !== undefined) parents.set(Number(name), Number(parent));
  }
  const found = new Set([pid]);
  if (near) for (const each of parents.keys()) if (pidNamespace(each) === namespace) found.add(each);
  for (let size = 0; size < found.size; ) {
    size = found.size;
    for (const [each, parent] of parents) if (found.has(parent)) found.add(each);
  }
  return [...found];
}

/** undefined where it is not ours to know, or the process is gone. */
function pidNamespace(pid: number | "self"): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return;
  }
}

function statOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return;
  }
}

/** Field 22 of /proc/PID/stat: with the boot id it names a process for good, as a pid alone does not. undefined: gone. */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return;
  }
}

/** "Z" for a zombie; undefined when there is no such process. */
export function processState(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat[stat.lastIndexOf(")") + 2];
  } catch {
    return;
  }
}

let boot: string | undefined;

/** The kernel's id of this boot; empty where /proc/sys is covered, as inside another container. */
export function bootId(): string {
  boot ??= readBootId();
  return boot;
}

function readBootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  } catch {
    return "";
  }
}

/** Whether something was recorded in this boot; where that cannot be told, a process's start time alone says which it is. */
export function isThisBoot(recorded: string): boolean {
  return recorded === bootId() || recorded === "" || bootId() === "";
}

/** Our own permitted capabilities as a mask: /proc/self/status CapPrm. */
export function permittedCapabilities(): bigint {
  const [, mask = "0"] = /^CapPrm:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "latin1")) ?? [];
  return BigInt(`0x${mask}`);
}
