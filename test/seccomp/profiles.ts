import { type Abi, syscallNumbers } from "../../src/seccomp/syscalls.ts";
import type { Seccomp, SeccompAction, SeccompArchitecture, SeccompArg, SeccompRule } from "../../src/spec/spec.ts";
import { fc } from "../support/fuzz.ts";
import { AUDIT, type Call } from "./interpreter.ts";

const NAMES = "read write getpid socket bind recv accept4 clone clone3 mount personality semop shmget socketcall ipc"
  .concat(" mmap2 arch_prctl cacheflush set_tls rt_sigaction futex_waitv statx no_such_call openat execveat")
  .split(" ");

const value = fc.oneof(
  fc.constantFrom(
    0n,
    1n,
    2n,
    7n,
    0x20000n,
    0xffffffffn,
    2n ** 32n,
    2n ** 32n + 1n,
    2n ** 33n + 1n,
    2n ** 63n,
    2n ** 64n - 1n,
  ),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
const number64 = value.map((value) => (value < 2n ** 53n ? Number(value) : value));
const argument = fc.record({
  index: fc.constantFrom(0, 0, 1, 5),
  value: number64,
  valueTwo: number64,
  op: fc.constantFrom(
    ...(["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT"] as const),
    "SCMP_CMP_MASKED_EQ" as const,
  ),
});

export const ACTIONS: readonly SeccompAction[] = [
  ...(["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO"] as const),
  ...(["SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] as const),
];

function rule(action: fc.Arbitrary<SeccompAction>, names: readonly string[]): fc.Arbitrary<SeccompRule> {
  return fc
    .record({
      names: fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 5 }),
      action,
      errnoRet: fc.constantFrom(undefined, 0, 13, 38),
      args: fc.oneof(fc.constant<SeccompArg[]>([]), fc.array(argument, { maxLength: 3 })),
    })
    .map(({ errnoRet, ...rule }) => (takesErrno(rule.action) && errnoRet !== undefined ? { ...rule, errnoRet } : rule));
}

function takesErrno(action: SeccompAction): boolean {
  return action === "SCMP_ACT_ERRNO" || action === "SCMP_ACT_TRACE";
}

export const ARCHITECTURES: Record<"x86_64" | "aarch64", SeccompArchitecture[]> = {
  x86_64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  aarch64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
};

/** Profiles of a few rules over a few names, so that rules meet. */
export function profiles(machine: "x86_64" | "aarch64"): fc.Arbitrary<Seccomp> {
  return fc.record({
    defaultAction: fc.constantFrom(...ACTIONS),
    architectures: fc.subarray(ARCHITECTURES[machine]),
    syscalls: fc
      .array(rule(fc.constantFrom(...ACTIONS, "SCMP_ACT_NOTIFY" as const), NAMES), { maxLength: 12 })
      .map((rules) =>
        rules.map((rule) =>
          rule.action === "SCMP_ACT_NOTIFY"
            ? { ...rule, names: rule.names.map((n) => (n === "write" ? "read" : n)) }
            : rule,
        ),
      ),
  });
}

/**
 * Profiles that libseccomp can be asked about: one action, one rule a call, and only calls that all architectures have
 * in one form (of several rules for a call, and of calls that an architecture lacks, libseccomp 2.5 makes wrong filters).
 */
export function agreeingProfiles(): fc.Arbitrary<Seccomp> {
  const names = "read write getpid clone clone3 mount personality rt_sigaction futex_waitv statx openat execveat".split(
    " ",
  );
  const actions = fc.constantFrom(...ACTIONS);
  return fc
    .record({ action: actions, rules: fc.array(rule(actions, names), { maxLength: 8 }), defaultAction: actions })
    .chain(({ action, rules, defaultAction }) => {
      const seen = new Set<string>();
      const syscalls = rules.flatMap(({ names, args = [] }) => {
        const fresh = names.filter((name) => !seen.has(name));
        for (const name of fresh) seen.add(name);
        const repeats = new Set(args.map(({ index }) => index)).size < args.length;
        const plain = repeats ? args.map((arg) => ({ ...arg, op: "SCMP_CMP_EQ" as const })) : args;
        return fresh.length === 0 ? [] : [{ names: fresh, action, args: plain }];
      });
      return fc.subarray(ARCHITECTURES.x86_64).map((architectures) => ({ defaultAction, architectures, syscalls }));
    });
}

/** Calls near the numbers and values that the profiles above have. */
export function calls(machine: "x86_64" | "aarch64"): fc.Arbitrary<Call> {
  const abis: Abi[] = machine === "x86_64" ? ["x86_64", "x86", "x32"] : ["aarch64", "arm"];
  const numbers = abis.flatMap((abi) =>
    NAMES.flatMap((name) => {
      const number = syscallNumbers(abi).get(name);
      const base = abi === "x32" ? 2 ** 30 : 0;
      return number === undefined ? [] : [base + number, base + number + 1];
    }),
  );
  return fc.record({
    number: fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom(...numbers) },
      fc.constantFrom(0, 999, 2 ** 30 - 1, 2 ** 30, 2 ** 30 + 999, 2 ** 31, 0xfffffffe, 0xffffffff),
      fc.integer({ min: 0, max: 0xffffffff }),
    ),
    audit: fc.constantFrom(AUDIT.x86_64, AUDIT.x86, AUDIT.aarch64, AUDIT.arm, AUDIT.riscv64),
    args: fc.array(value, { minLength: 6, maxLength: 6 }),
  });
}
