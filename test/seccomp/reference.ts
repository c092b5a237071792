import { type Abi, syscallNumbers } from "../../src/seccomp/syscalls.ts";
import type { Seccomp, SeccompAction, SeccompArg } from "../../src/spec/spec.ts";
import { AUDIT, type Call } from "./interpreter.ts";

/** The kernel's answers, written out (linux/seccomp.h). */
export const KILL_PROCESS = 0x80000000;
export const ENOSYS = 0x00050026;
export const EPERM = 0x00050001;
export const ALLOW = 0x7fff0000;

const ABIS: Record<string, Abi> = {
  SCMP_ARCH_X86_64: "x86_64",
  SCMP_ARCH_X86: "x86",
  SCMP_ARCH_X32: "x32",
  SCMP_ARCH_AARCH64: "aarch64",
  SCMP_ARCH_ARM: "arm",
};

// net/compat.c and ipc/syscall.c
const SOCKETCALLS = [
  "",
  "socket",
  "bind",
  "connect",
  "listen",
  "accept",
  "getsockname",
  "getpeername",
  "socketpair",
].concat(
  ["send", "recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4"],
  ["recvmmsg", "sendmmsg"],
);
const IPC: Record<number, string> = {
  1: "semop",
  2: "semget",
  3: "semctl",
  4: "semtimedop",
  11: "msgsnd",
  12: "msgrcv",
};
Object.assign(IPC, { 13: "msgget", 14: "msgctl", 21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl" });

export function actionAnswer(action: SeccompAction, errnoRet = 1): number {
  switch (action) {
    case "SCMP_ACT_KILL":
    case "SCMP_ACT_KILL_THREAD":
      return 0;
    case "SCMP_ACT_KILL_PROCESS":
      return KILL_PROCESS;
    case "SCMP_ACT_TRAP":
      return 0x00030000;
    case "SCMP_ACT_ERRNO":
      return 0x00050000 + errnoRet;
    case "SCMP_ACT_NOTIFY":
      return 0x7fc00000;
    case "SCMP_ACT_TRACE":
      return 0x7ff00000 + errnoRet;
    case "SCMP_ACT_LOG":
      return 0x7ffc0000;
    case "SCMP_ACT_ALLOW":
      return ALLOW;
  }
}

/** From the strictest to the most permissive. */
const STRICTNESS = ["KILL_PROCESS", "KILL_THREAD", "KILL", "TRAP", "ERRNO", "NOTIFY", "TRACE", "LOG", "ALLOW"];

/** What a profile means for one call, rule by rule, without any cleverness. */
export function expectedAnswer(seccomp: Seccomp, native: "x86_64" | "aarch64", call: Call): number {
  const abis = new Set([native, ...(seccomp.architectures ?? []).map((name) => ABIS[name])]);
  const { number, abi } = decode(call, native === "x86_64" && !abis.has("x32"));
  const fallback = actionAnswer(seccomp.defaultAction, seccomp.defaultErrnoRet);
  if (abi === undefined) return fallback;
  if (!abis.has(abi)) return KILL_PROCESS;

  const table = syscallNumbers(abi);
  const isNamed = (name: string) => table.get(name) === number;
  const multiplexed = abi === "x86" ? throughMultiplexer(table, number, call.args[0] ?? 0n) : undefined;
  const rules = (seccomp.syscalls ?? [])
    .map((rule) => ({ ...rule, answer: actionAnswer(rule.action, rule.errnoRet) }))
    .filter((rule) => rule.answer !== fallback);
  const always = rules.find(({ names, args = [] }) => args.length === 0 && names.some(isNamed));
  if (always !== undefined) return always.answer;
  for (const { names, args = [], answer, action } of rules) {
    if (names.some(isNamed) && args.length > 0 && holds(args, call.args, abi)) return answer;
    const stricter = strictness(action) < strictness(seccomp.defaultAction);
    if (multiplexed !== undefined && names.includes(multiplexed) && (args.length === 0 || stricter)) return answer;
  }
  const named = (seccomp.syscalls ?? []).flatMap(({ names }) => names.map((name) => table.get(name) ?? -1));
  if (abi === "x86") {
    // A call that i386 has through socketcall or ipc is as old as these.
    const all = (seccomp.syscalls ?? []).flatMap(({ names }) => names);
    if (all.some((name) => SOCKETCALLS.includes(name))) named.push(table.get("socketcall") ?? 0);
    if (all.some((name) => Object.values(IPC).includes(name))) named.push(table.get("ipc") ?? 0);
  }
  const last = Math.max(-1, ...named.filter((number) => number < 0xf0000));
  const patched = !["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"].includes(seccomp.defaultAction);
  // Calls of arm's own, which have no age.
  const isPrivate = abi === "arm" && number >= 0xf0000;
  return patched && last >= 0 && number > last && !isPrivate ? ENOSYS : fallback;
}

function strictness(action: SeccompAction): number {
  return STRICTNESS.indexOf(action.replace("SCMP_ACT_", ""));
}

function decode({ audit, number }: Call, isSkipKnown: boolean): { abi: Abi | undefined; number: number } {
  if (audit === AUDIT.x86) return { abi: "x86", number };
  if (audit === AUDIT.arm) return { abi: "arm", number };
  if (audit === AUDIT.aarch64) return { abi: "aarch64", number };
  if (audit !== AUDIT.x86_64) return { abi: "never" as Abi, number };
  // A number of −1 is a call that a tracer skips.
  if (number === 0xffffffff && isSkipKnown) return { abi: undefined, number };
  return number >= 2 ** 30 ? { abi: "x32", number: number - 2 ** 30 } : { abi: "x86_64", number };
}

function throughMultiplexer(table: ReadonlyMap<string, number>, number: number, first: bigint): string | undefined {
  const low = Number(first & 0xffffffffn);
  if (number === table.get("socketcall")) return SOCKETCALLS[low];
  return number === table.get("ipc") ? IPC[low & 0xffff] : undefined;
}

function holds(conditions: readonly SeccompArg[], args: readonly bigint[], abi: Abi): boolean {
  const width = abi === "x86_64" || abi === "aarch64" ? 64 : 32;
  const results = conditions.map(({ index, op, value, valueTwo = 0 }) => {
    const [arg, one, two] = [args[index] ?? 0n, value, valueTwo].map((number) => BigInt.asUintN(width, BigInt(number)));
    return compare(op, arg ?? 0n, one ?? 0n, two ?? 0n);
  });
  const repeats = conditions.some((a, i) => conditions.some((b, j) => i !== j && a.index === b.index));
  return repeats ? results.includes(true) : !results.includes(false);
}

function compare(op: SeccompArg["op"], arg: bigint, one: bigint, two: bigint): boolean {
  switch (op) {
    case "SCMP_CMP_EQ":
      return arg === one;
    case "SCMP_CMP_NE":
      return arg !== one;
    case "SCMP_CMP_LT":
      return arg < one;
    case "SCMP_CMP_LE":
      return arg <= one;
    case "SCMP_CMP_GT":
      return arg > one;
    case "SCMP_CMP_GE":
      return arg >= one;
    case "SCMP_CMP_MASKED_EQ":
      return (arg & one) === (two & one);
  }
}
