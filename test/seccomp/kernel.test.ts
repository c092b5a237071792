import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { compileSeccomp } from "../../src/seccomp/compile.ts";
import { defaultProfile } from "../../src/seccomp/default-profile.ts";
import { syscallNumbers } from "../../src/seccomp/syscalls.ts";
import type { Seccomp, SeccompArg } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import { buildHelper, type Helper } from "./compiler.ts";
import { programLength } from "./interpreter.ts";

const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
const [EPERM, EFAULT, ENOSYS] = [-1, -14, -38];

let helper: Helper;
beforeAll(() => {
  helper = buildHelper("confine.c");
});
afterAll(() => helper.remove());

/** The kernel's results of some calls, each "name argument…", under a profile. */
function call(profile: Seccomp | undefined, lines: string[]) {
  if (helper.path === undefined) throw new Error(helper.reason);
  const filter = join(helper.directory, "filter");
  if (profile !== undefined) writeFileSync(filter, compileSeccomp(profile, machine).program);
  const numbers = syscallNumbers(machine);
  const input = lines.map((line) => line.replace(/^(?!i386)\w*[a-z_]\w*/, (name) => `${numbers.get(name) ?? name}`));
  const { status, signal, stdout } = spawnSync(helper.path, profile === undefined ? [] : [filter], {
    input: `${input.join("\n")}\n`,
    encoding: "utf8",
  });
  return { status, signal, results: stdout.trim().split("\n").map(Number) };
}

describe("under the default profile", () => {
  test("forbidden calls answer EPERM, before the kernel looks at them", ({ skip }) => {
    if (helper.path === undefined) return skip(helper.reason);
    const lines = ["mount 1 1 1", "setns 0 0", "socket 40 1 0", "socket 38 5 0", "keyctl 0 0", "personality 0x40000"];
    expect(call(defaultProfile([], machine), lines)).toMatchObject({ status: 0, results: lines.map(() => EPERM) });
    // Without the filter the same program gets further.
    if (process.getuid?.() === 0) expect(call(undefined, ["mount 1 1 1"]).results).toEqual([EFAULT]);
  });

  test("allowed calls work", ({ skip }) => {
    if (helper.path === undefined) return skip(helper.reason);
    const { results } = call(defaultProfile([], machine), ["getpid", "socket 1 1 0", "personality 0xffffffff"]);
    expect(results.every((result) => result >= 0)).toBe(true);
    expect(results[0]).toBeGreaterThan(1);
  });

  test("clone3 and calls that are not invented yet answer ENOSYS", ({ skip }) => {
    if (helper.path === undefined) return skip(helper.reason);
    expect(call(defaultProfile([], machine), ["clone3 0 0", "9999"]).results).toEqual([ENOSYS, ENOSYS]);
  });

  test("32-bit calls obey it as well", ({ skip }) => {
    if (helper.path === undefined) return skip(helper.reason);
    const [getpid = 0] = machine === "x86_64" ? call(undefined, ["i386 20"]).results : [];
    if (getpid <= 0) return skip("needs a kernel with 32-bit emulation");
    // getpid, mount, clone with CLONE_NEWUSER, number 999
    const { results } = call(defaultProfile([], machine), [
      "i386 20",
      "i386 21 1 1 1",
      "i386 120 0x10000011",
      "i386 999",
    ]);
    expect(results.slice(1)).toEqual([EPERM, EPERM, ENOSYS]);
    expect(results[0]).toBeGreaterThan(1);
  });
});

test("a call of an architecture that the profile does not name kills the process", ({ skip }) => {
  covers("linux.seccomp.architectures");
  if (helper.path === undefined) return skip(helper.reason);
  if (machine !== "x86_64" || (call(undefined, ["i386 20"]).results[0] ?? 0) <= 0) {
    return skip("needs a kernel with 32-bit emulation");
  }
  expect(call({ defaultAction: "SCMP_ACT_ALLOW" }, ["i386 20"]).signal).toBe("SIGSYS");
});

test("the kernel takes a long program, and runs it as meant", ({ skip }) => {
  if (helper.path === undefined) return skip(helper.reason);
  const args: SeccompArg[] = [
    { index: 0, value: 2n ** 32n, op: "SCMP_CMP_GE" },
    { index: 1, value: 0xff_0000_00ff, valueTwo: 0x7f_0000_007f, op: "SCMP_CMP_MASKED_EQ" },
  ];
  // The kernel lets uretprobe pass every filter.
  const names = [...syscallNumbers(machine).keys()].filter((name) => !/^u(ret)?probe$/.test(name)).slice(-250);
  const profile: Seccomp = {
    defaultAction: "SCMP_ACT_ALLOW",
    syscalls: names.map((name, i) => ({ names: [name], action: "SCMP_ACT_ERRNO", errnoRet: 1000 + i, args })),
  };
  expect(programLength(compileSeccomp(profile, machine).program)).toBeGreaterThan(2000);
  const lines = names.map((name) => `${name} 0x100000000 0x7f0000007f`);
  expect(call(profile, lines).results).toEqual(names.map((_, i) => -1000 - i));
});
