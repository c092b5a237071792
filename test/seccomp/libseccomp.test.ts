import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { compileSeccomp } from "../../src/seccomp/compile.ts";
import { defaultProfile } from "../../src/seccomp/default-profile.ts";
import { type Abi, syscallNumbers } from "../../src/seccomp/syscalls.ts";
import type { Seccomp } from "../../src/spec/spec.ts";
import { fc } from "../support/fuzz.ts";
import { buildHelper, type Helper } from "./compiler.ts";
import { AUDIT, answerTo, type Call } from "./interpreter.ts";
import { agreeingProfiles, calls } from "./profiles.ts";
import { actionAnswer, ENOSYS, KILL_PROCESS } from "./reference.ts";

let helper: Helper;
beforeAll(() => {
  helper = buildHelper("export.c", "-lseccomp");
});
afterAll(() => helper.remove());

const OPERATORS = ["", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map((name) => `SCMP_CMP_${name}`);
const NAMES: Record<string, string> = { SCMP_ARCH_X86: "x86", SCMP_ARCH_X32: "x32" };

/** The filter that libseccomp makes of a profile when it is driven as runc does. */
function libseccomp(path: string, { defaultAction, defaultErrnoRet, architectures = [], syscalls = [] }: Seccomp) {
  const lines = [`default ${actionAnswer(defaultAction, defaultErrnoRet)}`];
  for (const name of architectures) if (NAMES[name] !== undefined) lines.push(`arch ${NAMES[name]}`);
  for (const { names, action, errnoRet, args = [] } of syscalls) {
    if (actionAnswer(action, errnoRet) === actionAnswer(defaultAction, defaultErrnoRet)) continue;
    const words = args.map(
      ({ index, op, value, valueTwo = 0 }) => `${index} ${OPERATORS.indexOf(op)} ${value} ${valueTwo}`,
    );
    const repeats = new Set(args.map(({ index }) => index)).size < args.length;
    for (const name of names) {
      for (const conditions of repeats ? words : [words.join(" ")]) {
        lines.push(`rule ${actionAnswer(action, errnoRet)} ${name} ${conditions}`);
      }
    }
  }
  const { status, stdout, stderr } = spawnSync(path, { input: `${lines.join("\n")}\n` });
  if (status !== 0) throw new Error(`${stderr}`);
  return new Uint8Array(stdout);
}

function highestNamed({ syscalls = [] }: Seccomp, abi: Abi): number {
  return Math.max(-1, ...syscalls.flatMap(({ names }) => names.map((name) => syscallNumbers(abi).get(name) ?? -1)));
}

function expectSameAnswer(ours: Uint8Array, theirs: Uint8Array, call: Call, profile: Seccomp) {
  const [answer, other] = [answerTo(ours, call), answerTo(theirs, call)];
  const isX32 = call.audit === AUDIT.x86_64 && call.number >= 2 ** 30;
  const abi = call.audit === AUDIT.x86 ? "x86" : isX32 ? "x32" : "x86_64";
  if (answer === ENOSYS && other !== ENOSYS) {
    // runc's addition to libseccomp's filter: calls younger than the profile.
    expect(isX32 ? call.number - 2 ** 30 : call.number).toBeGreaterThan(highestNamed(profile, abi));
    return;
  }
  // Of a strange architecture libseccomp kills the thread, we the process.
  if (answer === KILL_PROCESS && other === 0) return;
  if (answer !== other) {
    const words = `${abi} ${call.number} (${call.args})`;
    throw new Error(`${words}: ${answer.toString(16)}, libseccomp ${other.toString(16)}`);
  }
}

test("libseccomp's filter of the same profile gives the same answers", ({ skip }) => {
  const { path, reason } = helper;
  if (path === undefined) return skip(reason);
  const asked = fc.array(calls("x86_64"), { minLength: 100, maxLength: 100 });
  fc.assert(
    fc.property(agreeingProfiles(), asked, (profile, asked) => {
      const theirs = libseccomp(path, profile);
      const ours = compileSeccomp(profile, "x86_64").program;
      for (const call of asked) expectSameAnswer(ours, theirs, call, profile);
    }),
    // Making a profile simpler takes a process for every attempt.
    { numRuns: 150, endOnFailure: true },
  );
});

test.for([{ capabilities: [] }, { capabilities: ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"] }])(
  "libseccomp's filter of the default profile with $capabilities gives the same answers",
  ({ capabilities }, { skip }) => {
    if (helper.path === undefined) return skip(helper.reason);
    const profile = defaultProfile(capabilities, "x86_64");
    // The one call in the range below that Debian 12's libseccomp does not know.
    for (const { names } of profile.syscalls ?? [])
      if (names.includes("uretprobe")) names.splice(names.indexOf("uretprobe"), 1);
    const theirs = libseccomp(helper.path, profile);
    const ours = compileSeccomp(profile, "x86_64").program;
    for (const [audit, base] of [
      [AUDIT.x86_64, 0],
      [AUDIT.x86_64, 2 ** 30],
      [AUDIT.x86, 0],
    ] as const) {
      // Up to the last call that every libseccomp 2.5 knows.
      for (let number = 0; number <= 452; number++) {
        for (const first of [0n, 8n, 38n, 39n, 40n, 41n, 0x10000000n, 0xffffffffn, 2n ** 32n]) {
          const call = { number: base + number, audit, args: [first, 0n, 0n, 0n, 0n, 0n] };
          expectSameAnswer(ours, theirs, call, profile);
        }
      }
    }
  },
);
