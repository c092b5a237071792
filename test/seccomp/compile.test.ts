import { describe, expect, test } from "vitest";
import { ContainerError } from "../../src/error.ts";
import { absentFrom, compileSeccomp } from "../../src/seccomp/compile.ts";
import { syscallNumbers } from "../../src/seccomp/syscalls.ts";
import type { Seccomp, SeccompArg } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import { fc } from "../support/fuzz.ts";
import { AUDIT, answerTo, programLength } from "./interpreter.ts";
import { calls, profiles } from "./profiles.ts";
import { ALLOW, ENOSYS, EPERM, expectedAnswer, KILL_PROCESS } from "./reference.ts";

const NO_ARGS = [0n, 0n, 0n, 0n, 0n, 0n];
const EQ_1: SeccompArg = { index: 0, value: 1, op: "SCMP_CMP_EQ" };

function ask(seccomp: Seccomp, name: string | number, args: bigint[] = [], abi: "x86_64" | "x86" | "x32" = "x86_64") {
  const number = typeof name === "number" ? name : (syscallNumbers(abi).get(name) ?? Number.NaN);
  const call = {
    number: abi === "x32" ? 2 ** 30 + number : number,
    audit: abi === "x86" ? AUDIT.x86 : AUDIT.x86_64,
    args: [...args, ...NO_ARGS].slice(0, 6),
  };
  return answerTo(compileSeccomp(seccomp, "x86_64").program, call);
}

describe.each(["x86_64", "aarch64"] as const)("on %s", (machine) => {
  test("a program answers every call as its rules say", () => {
    covers("linux.seccomp actions", "linux.seccomp args");
    fc.assert(
      fc.property(profiles(machine), fc.array(calls(machine), { minLength: 30, maxLength: 30 }), (profile, asked) => {
        const { program } = compileSeccomp(profile, machine);
        for (const call of asked) {
          const [answer, expected] = [answerTo(program, call), expectedAnswer(profile, machine, call)];
          if (answer !== expected) {
            const words = `${call.audit.toString(16)} ${call.number} (${call.args})`;
            throw new Error(`${words}: ${answer.toString(16)} instead of ${expected.toString(16)}`);
          }
        }
      }),
      { numRuns: 1000 },
    );
  });
});

test("a program of more than 255 instructions still reaches every rule", () => {
  const names = [...syscallNumbers("x86_64").keys()].slice(0, 150);
  const args: SeccompArg[] = [1, 2].map((index) => ({ index, value: 0x1_0000_0002, op: "SCMP_CMP_EQ" }));
  const profile: Seccomp = {
    defaultAction: "SCMP_ACT_ERRNO",
    architectures: ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    syscalls: names.map((name, i) => ({ names: [name], action: "SCMP_ACT_TRACE", errnoRet: i, args })),
  };
  expect(programLength(compileSeccomp(profile, "x86_64").program)).toBeGreaterThan(1500);
  names.forEach((name, i) => {
    expect(ask(profile, name, [0n, 0x1_0000_0002n, 0x1_0000_0002n])).toBe(0x7ff00000 + i);
    expect(ask(profile, name, [0n, 0x1_0000_0002n, 0x2n])).toBe(EPERM);
  });
});

test("a profile with too many rules is refused, not cut off", () => {
  const args = [0, 1, 2, 3, 4, 5].map((index): SeccompArg => ({ index, value: 2n ** 40n, op: "SCMP_CMP_LT" }));
  const names = [...syscallNumbers("x86_64").keys()];
  const profile: Seccomp = { defaultAction: "SCMP_ACT_ERRNO", syscalls: [{ names, action: "SCMP_ACT_ALLOW", args }] };
  expect(() => compileSeccomp(profile, "x86_64")).toThrow("more than 4096 instructions");
});

describe("system calls that the profile does not know", () => {
  const profile: Seccomp = {
    defaultAction: "SCMP_ACT_ERRNO",
    architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
    syscalls: [
      { names: ["read", "statx"], action: "SCMP_ACT_ALLOW" },
      { names: ["openat2"], action: "SCMP_ACT_ERRNO" },
    ],
  };

  test("answer the default up to the highest number that a rule names, even a rule without effect", () => {
    expect(ask(profile, "openat2")).toBe(EPERM);
    expect(ask(profile, "openat2", [], "x32")).toBe(EPERM);
  });

  test("answer ENOSYS above it", () => {
    expect(ask(profile, "pidfd_getfd")).toBe(ENOSYS);
    expect(ask(profile, "pidfd_getfd", [], "x32")).toBe(ENOSYS);
    expect(ask(profile, 9999)).toBe(ENOSYS);
  });

  test.each(["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] as const)(
    "answer the default if that is %s",
    (action) => {
      const syscalls: Seccomp["syscalls"] = [{ names: ["read"], action: "SCMP_ACT_KILL" }];
      expect(ask({ defaultAction: action, syscalls }, 9999)).not.toBe(ENOSYS);
    },
  );
});

test("calls of an architecture that the profile does not name kill the process", () => {
  const profile: Seccomp = { defaultAction: "SCMP_ACT_ALLOW" };
  expect(ask(profile, "getpid", [], "x86")).toBe(KILL_PROCESS);
  expect(ask(profile, "getpid", [], "x32")).toBe(KILL_PROCESS);
  expect(ask(profile, "getpid")).toBe(ALLOW);
});

test("a rule that names an argument twice holds if one of its comparisons does", () => {
  const args: SeccompArg[] = [EQ_1, { ...EQ_1, value: 2 }];
  const profile: Seccomp = {
    defaultAction: "SCMP_ACT_ERRNO",
    syscalls: [{ names: ["dup"], action: "SCMP_ACT_ALLOW", args }],
  };
  expect([1n, 2n, 3n].map((first) => ask(profile, "dup", [first]))).toEqual([ALLOW, ALLOW, EPERM]);
});

test("denying a socket call denies it through socketcall too", () => {
  const denied: Seccomp = {
    defaultAction: "SCMP_ACT_ALLOW",
    architectures: ["SCMP_ARCH_X86"],
    syscalls: [{ names: ["socket"], action: "SCMP_ACT_ERRNO", args: [EQ_1] }],
  };
  expect(ask(denied, "socketcall", [1n], "x86")).toBe(EPERM);
  expect(ask(denied, "socketcall", [2n], "x86")).toBe(ALLOW);
});

test("allowing some sockets does not allow all of them through socketcall", () => {
  const rule = { names: ["socket"], action: "SCMP_ACT_ALLOW" as const };
  const some: Seccomp = {
    defaultAction: "SCMP_ACT_ERRNO",
    architectures: ["SCMP_ARCH_X86"],
    syscalls: [{ ...rule, args: [EQ_1] }],
  };
  expect(ask(some, "socketcall", [1n], "x86")).toBe(EPERM);
  expect(ask({ ...some, syscalls: [rule] }, "socketcall", [1n], "x86")).toBe(ALLOW);
});

test("calls that the filtered interfaces lack are known, and those that i386 makes through others are not among them", () => {
  const names = ["read", "s390_runtime_instr", "cacheflush", "no_such_call", "send"];
  const profile: Seccomp = { defaultAction: "SCMP_ACT_ERRNO", syscalls: [{ names, action: "SCMP_ACT_ALLOW" }] };
  expect(absentFrom("x86_64", profile)).toEqual({ architectures: [], calls: names.slice(1) });
  const both: Seccomp = { ...profile, architectures: ["SCMP_ARCH_X86"] };
  expect(absentFrom("x86_64", both)).toEqual({ architectures: [], calls: names.slice(1, 4) });
});

test("an architecture of another machine is reported and left out", () => {
  const profile: Seccomp = { defaultAction: "SCMP_ACT_ALLOW", architectures: ["SCMP_ARCH_S390X"] };
  expect(absentFrom("x86_64", profile)).toEqual({ architectures: ["SCMP_ARCH_S390X"], calls: [] });
});

describe("flags", () => {
  const notify: Seccomp["syscalls"] = [{ names: ["mkdir"], action: "SCMP_ACT_NOTIFY" }];

  test.each<[string, Partial<Seccomp>, number, boolean]>([
    ["none given: speculation stays allowed", {}, 4, false],
    ["an empty list", { flags: [] }, 0, false],
    ["logging", { flags: ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"] }, 2, false],
    ["a listener", { flags: [], syscalls: notify }, 8, true],
    ["a killable wait", { flags: ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], syscalls: notify }, 40, true],
    ["a killable wait without a listener", { flags: ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] }, 0, false],
  ])("%s", (_, part, flags, hasListener) => {
    const filter = compileSeccomp({ defaultAction: "SCMP_ACT_ALLOW", ...part }, "x86_64");
    expect([filter.flags, filter.notify]).toEqual([flags, hasListener]);
  });
});

test.each<[string, Partial<Seccomp>, string]>([
  ["an errno for an action without one", { defaultErrnoRet: 1 }, "/defaultErrnoRet"],
  [
    "an errno out of range",
    { syscalls: [{ names: ["read"], action: "SCMP_ACT_ERRNO", errnoRet: 4096 }] },
    "/syscalls/0/errnoRet",
  ],
  [
    "a seventh argument",
    { syscalls: [{ names: ["read"], action: "SCMP_ACT_KILL", args: [{ ...EQ_1, index: 6 }] }] },
    "/syscalls/0/args/0/index",
  ],
  [
    "a value that lost precision",
    { syscalls: [{ names: ["read"], action: "SCMP_ACT_KILL", args: [{ ...EQ_1, value: 2 ** 60 }] }] },
    "/syscalls/0/args/0/value",
  ],
  [
    "a value of more than 64 bits",
    { syscalls: [{ names: ["read"], action: "SCMP_ACT_KILL", args: [{ ...EQ_1, value: 2n ** 64n }] }] },
    "/syscalls/0/args/0/value",
  ],
  ["asking a listener about everything", { defaultAction: "SCMP_ACT_NOTIFY" }, "/defaultAction"],
  [
    "asking a listener about the call that hands it over",
    { syscalls: [{ names: ["read", "sendmsg"], action: "SCMP_ACT_NOTIFY" }] },
    "/syscalls/0",
  ],
])("%s is refused with its place", (_, part, pointer) => {
  try {
    compileSeccomp({ defaultAction: "SCMP_ACT_ALLOW", ...part }, "x86_64");
  } catch (error) {
    expect(error).toBeInstanceOf(ContainerError);
    expect(error).toMatchObject({ code: "ERR_SPEC", from: `/spec/linux/seccomp${pointer}` });
    return;
  }
  expect.unreachable("the profile was taken");
});
