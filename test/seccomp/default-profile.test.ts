import { describe, expect, test } from "vitest";
import { absentFrom, compileSeccomp } from "../../src/seccomp/compile.ts";
import { defaultProfile } from "../../src/seccomp/default-profile.ts";
import { isSyscallName, syscallNumbers } from "../../src/seccomp/syscalls.ts";
import { AUDIT, answerTo, programLength } from "./interpreter.ts";
import { ALLOW, ENOSYS, EPERM } from "./reference.ts";

/** Docker's default capabilities. */
const DOCKER =
  "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT"
    .concat(" KILL AUDIT_WRITE")
    .split(" ")
    .map((name) => `CAP_${name}`);

function ask(capabilities: readonly string[], name: string, ...args: bigint[]): number {
  const { program } = compileSeccomp(defaultProfile(capabilities, "x86_64"), "x86_64");
  const number = syscallNumbers("x86_64").get(name);
  if (number === undefined) throw new Error(`no call ${name}`);
  return answerTo(program, { number, audit: AUDIT.x86_64, args: [...args, 0n, 0n, 0n, 0n, 0n, 0n].slice(0, 6) });
}

describe("with Docker's capabilities", () => {
  test.each<[string, string, bigint[], number]>([
    ["reading is allowed", "read", [], ALLOW],
    ["io_uring is not", "io_uring_setup", [], EPERM],
    ["mounting is not", "mount", [], EPERM],
    ["unsharing is not", "unshare", [], EPERM],
    ["keys are not", "keyctl", [], EPERM],
    ["userfaultfd is not", "userfaultfd", [], EPERM],
    ["tracing is", "ptrace", [], ALLOW],
    ["a thread is", "clone", [0x3d0f00n], ALLOW],
    ["a new user namespace is not", "clone", [0x10000011n], EPERM],
    ["a new cgroup namespace is not", "clone", [0x02000011n], EPERM],
    ["clone3 does not seem to exist", "clone3", [], ENOSYS],
    ["a TCP socket is", "socket", [2n], ALLOW],
    ["a crypto socket is not", "socket", [38n], EPERM],
    ["an NFC socket is", "socket", [39n], ALLOW],
    ["a socket to the host is not", "socket", [40n], EPERM],
    ["an XDP socket is", "socket", [44n], ALLOW],
    ["asking for the personality is", "personality", [0xffffffffn], ALLOW],
    ["switching address randomization off is not", "personality", [0x40000n], EPERM],
    ["chroot is", "chroot", [], ALLOW],
    ["setting the clock is not", "clock_settime", [], EPERM],
    ["a call younger than the profile does not seem to exist", "file_getattr", [], ENOSYS],
  ])("%s", (_, name, args, answer) => {
    expect(ask(DOCKER, name, ...args)).toBe(answer);
  });
});

test.each([
  ["CAP_BPF", "bpf"],
  ["CAP_DAC_READ_SEARCH", "open_by_handle_at"],
  ["CAP_PERFMON", "perf_event_open"],
  ["CAP_SYSLOG", "syslog"],
  ["CAP_SYS_ADMIN", "mount"],
  ["CAP_SYS_ADMIN", "clone3"],
  ["CAP_SYS_BOOT", "reboot"],
  ["CAP_SYS_CHROOT", "chroot"],
  ["CAP_SYS_MODULE", "init_module"],
  ["CAP_SYS_NICE", "mbind"],
  ["CAP_SYS_PACCT", "acct"],
  ["CAP_SYS_PTRACE", "kcmp"],
  ["CAP_SYS_RAWIO", "iopl"],
  ["CAP_SYS_TIME", "clock_settime"],
  ["CAP_SYS_TTY_CONFIG", "vhangup"],
])("%s opens %s", (capability, name) => {
  expect(ask([], name)).not.toBe(ALLOW);
  expect(ask([capability], name)).toBe(ALLOW);
});

test("CAP_SYS_ADMIN opens new namespaces", () => {
  expect(ask(["CAP_SYS_ADMIN"], "clone", 0x10000011n)).toBe(ALLOW);
});

test.each(["x86_64", "aarch64"] as const)("every name in it is a call of some architecture: %s", (machine) => {
  const profile = defaultProfile(["CAP_SYS_ADMIN"], machine);
  const filter = compileSeccomp(profile, machine);
  expect(absentFrom(machine, profile).calls.filter((name) => !isSyscallName(name))).toEqual([]);
  expect(programLength(filter.program)).toBeLessThan(600);
});
