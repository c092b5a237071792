import { afterAll, afterEach, expect, test } from "vitest";
import { defaultProfile } from "../../src/seccomp/default-profile.ts";
import type { Seccomp } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import { cleanUp, cleanUpFile, exec, idle, makeBundle, probe, results, run, seenIn } from "../support/bundle.ts";

// OCI runtime-spec, config-linux.md "Seccomp".

afterEach(cleanUp);
afterAll(cleanUpFile);

const ALL = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"] as const;

/** Allows everything but these. */
function denying(...syscalls: NonNullable<Seccomp["syscalls"]>): Seccomp {
  return { defaultAction: "SCMP_ACT_ALLOW", architectures: [...ALL], syscalls };
}

const NR = { getpid: 39, mkdir: 83, kexec: 246, personality: 135, newer: 5000 };

test.each([true, false])(
  "a filter is in force with noNewPrivileges %s, with the errno asked for",
  (noNewPrivileges) => {
    covers("linux.seccomp actions", "linux.seccomp args");
    const seen = probe(
      (spec) => {
        spec.root.readonly = false;
        spec.process.noNewPrivileges = noNewPrivileges;
        spec.linux.seccomp = denying(
          { names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 95 },
          { names: ["kexec_load"], action: "SCMP_ACT_ERRNO" },
          {
            names: ["personality"],
            action: "SCMP_ACT_ERRNO",
            errnoRet: 5,
            args: [{ index: 0, value: 8, op: "SCMP_CMP_EQ" }],
          },
        );
      },
      [
        "--mkdir",
        "/new",
        "--syscall",
        `${NR.kexec}`,
        "--syscall",
        `${NR.personality}`,
        "8",
        "--syscall",
        `${NR.personality}`,
        "0",
      ],
    );
    expect(seen.seccomp).toEqual({ mode: 2, filters: 1 });
    expect(seen.noNewPrivs).toBe(noNewPrivileges);
    expect(results(seen.actions)).toEqual(["EOPNOTSUPP", "EPERM", "EIO", 0]);
    // the capability that loading needed has not stayed
    expect(seen.capabilities.effective).toBe("0000000020000420");
    expect(seen.capabilities.permitted).toBe("0000000020000420");
  },
);

test("an allow-list answers ENOSYS to system calls newer than itself, and its own errno to the others", () => {
  covers("linux.seccomp newer");
  const seen = probe(
    (spec) => {
      spec.process.user = { uid: 1000, gid: 1000 };
      spec.process.noNewPrivileges = false;
      delete spec.process.capabilities;
      spec.linux.seccomp = defaultProfile([], "x86_64");
    },
    ["--syscall", `${NR.newer}`, "--syscall", `${NR.kexec}`, "--mount", "--syscall", `${NR.getpid}`],
  );
  expect(seen.seccomp).toEqual({ mode: 2, filters: 1 });
  expect(results(seen.actions)).toEqual(["ENOSYS", "EPERM", "EPERM", 1]);
  expect(seen.capabilities).toMatchObject({
    effective: "0000000000000000",
    permitted: "0000000000000000",
    ambient: "0000000000000000",
  });
});

test("a user without capabilities keeps its ambient ones through the filter's loading", () => {
  const seen = probe((spec) => {
    const one = ["CAP_NET_BIND_SERVICE"];
    spec.process.user = { uid: 1000, gid: 1000 };
    spec.process.noNewPrivileges = false;
    spec.process.capabilities = { bounding: one, permitted: one, effective: one, inheritable: one, ambient: one };
    spec.linux.seccomp = defaultProfile(one, "x86_64");
  });
  const mask = "0000000000000400";
  expect(seen.capabilities).toEqual({
    bounding: mask,
    permitted: mask,
    effective: mask,
    inheritable: mask,
    ambient: mask,
  });
  expect(seen.seccomp.mode).toBe(2);
});

test("SCMP_ACT_KILL_PROCESS ends the process by SIGSYS", () => {
  covers("linux.seccomp actions");
  const bundle = makeBundle((spec) => {
    spec.linux.seccomp = denying({ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_KILL_PROCESS" });
    spec.process.args = ["/bin/probe", "--mkdir", "/tmp/x"];
  });
  expect(run(bundle)).toMatchObject({ status: 128 + 31, stdout: "" });
});

test("a process that joins by exec is under the same filter", () => {
  const bundle = idle((spec) => {
    spec.linux.seccomp = denying({ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 95 });
  });
  const seen = seenIn(exec(bundle, ["/bin/probe", "--mkdir", "/tmp/x"]));
  expect(seen.seccomp).toEqual({ mode: 2, filters: 1 });
  expect(results(seen.actions)).toEqual(["EOPNOTSUPP"]);
});

test("a filter that even execve does not pass is an error, not a container", () => {
  const bundle = makeBundle((spec) => {
    spec.linux.seccomp = denying({ names: ["execve"], action: "SCMP_ACT_ERRNO", errnoRet: 1 });
  });
  const { status, stderr } = run(bundle);
  expect(status).toBe(1);
  expect(stderr).toContain("operation not permitted");
});

test("without a filter there is none", () => {
  expect(probe(() => undefined).seccomp).toEqual({ mode: 0, filters: 0 });
});
