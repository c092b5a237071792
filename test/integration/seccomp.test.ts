import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { defaultProfile } from "../../src/seccomp/default-profile.ts";
import type { Seccomp, State } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  cleanUp,
  cleanUpFile,
  create,
  exec,
  idle,
  kill,
  makeBundle,
  probe,
  results,
  run,
  scratchDirectory,
  seenIn,
  start,
  state,
  until,
} from "../support/bundle.ts";

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

test("a filter that refuses everything, exit too, ends the container all the same", () => {
  const bundle = makeBundle((spec) => {
    spec.linux.seccomp = { defaultAction: "SCMP_ACT_ERRNO" };
  });
  expect(run(bundle)).toMatchObject({ status: 128 + 4, stdout: "" });
});

test("without a filter there is none", () => {
  expect(probe(() => undefined).seccomp).toEqual({ mode: 0, filters: 0 });
});

describe("with a listener", () => {
  const agents: ChildProcess[] = [];
  afterEach(() => {
    for (const agent of agents.splice(0)) agent.kill();
  });

  interface Said {
    ready?: true;
    state?: { ociVersion: string; fds: string[]; pid: number; metadata?: string; state: State };
    descriptors?: number;
    pid?: number;
    call?: number;
  }

  /** Starts an agent that answers with errno, or 4242 for 0, and tells what it has seen once it has ended. */
  function startAgent(connections: number, errno: number): { path: string; said: () => Said[]; ended: () => Said[] } {
    const path = join(scratchDirectory(), `agent-${agents.length}-${Date.now()}`);
    const log = `${path}.log`;
    const out = openSync(log, "w");
    const script = join(import.meta.dirname, "../support/seccomp_agent.py");
    const words = [script, path, String(connections), String(errno)];
    const agent = spawn("python3", words, { stdio: ["ignore", out, "inherit"] });
    closeSync(out);
    agents.push(agent);
    const said = () =>
      readFileSync(log, "utf8")
        .split("\n")
        .slice(0, -1)
        .map((line): Said => JSON.parse(line));
    until("the agent listens", () => said().length > 0);
    const ended = () => {
      until("the agent has ended", () => !alive(agent.pid ?? 0));
      return said().slice(1);
    };
    return { path, said, ended };
  }

  function asking(path: string, ...names: string[]): Seccomp {
    return {
      ...denying({ names, action: "SCMP_ACT_NOTIFY" }),
      listenerPath: path,
      listenerMetadata: "what the agent needs to know",
    };
  }

  test.each([true, false])("the agent decides what a system call answers, noNewPrivileges %s", (noNewPrivileges) => {
    for (const [errno, result] of [
      [95, "EOPNOTSUPP"],
      [0, 4242],
    ] as const) {
      const agent = startAgent(1, errno);
      const seen = probe(
        (spec) => {
          spec.process.noNewPrivileges = noNewPrivileges;
          spec.linux.seccomp = asking(agent.path, "kexec_load");
        },
        ["--syscall", `${NR.kexec}`],
      );
      expect(results(seen.actions)).toEqual([result]);
      expect(seen.capabilities.effective).toBe("0000000020000420");
      expect(seen.descriptors.map(({ fd }) => fd)).not.toContain(4);
      const [first, ...calls] = agent.ended();
      expect(first).toMatchObject({
        descriptors: 1,
        state: {
          ociVersion: "1.3.0",
          fds: ["seccompFd"],
          metadata: "what the agent needs to know",
          state: { status: "creating", ociVersion: "1.3.0" },
        },
      });
      expect(first?.state?.pid).toBe(first?.state?.state.pid);
      expect(calls).toEqual([{ pid: first?.state?.pid, call: NR.kexec }]);
    }
  });

  test("start hands it over, not create; exec hands over one of its own", () => {
    covers("linux.seccomp.listenerPath");
    const agent = startAgent(2, 5);
    const bundle = makeBundle((spec) => {
      spec.process.args = ["/bin/probe", "--sleep", "60"];
      spec.annotations = { "org.example": "kept" };
      spec.linux.seccomp = asking(agent.path, "kexec_load");
    });
    expect(create(bundle)).toMatchObject({ status: 0, stderr: "" });
    const { pid } = state(bundle);
    expect(agent.said()).toHaveLength(1);
    expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
    until("the agent has the listener", () => agent.said().length > 1);
    expect(agent.said()[1]).toMatchObject({
      descriptors: 1,
      state: {
        pid,
        state: { pid, id: bundle.id, bundle: bundle.path, status: "created", annotations: { "org.example": "kept" } },
      },
    });
    const seen = seenIn(exec(bundle, ["/bin/probe", "--syscall", `${NR.kexec}`]));
    expect(results(seen.actions)).toEqual(["EIO"]);
    const second = agent.said()[2];
    expect(second).toMatchObject({ descriptors: 1, state: { state: { pid, status: "running" } } });
    expect(second?.state?.pid).not.toBe(pid);
    kill(bundle, "KILL");
    expect(agent.ended().map(({ call }) => call)).toEqual([undefined, undefined, NR.kexec]);
  });

  test("execve itself can be asked about", () => {
    const agent = startAgent(1, 13);
    const bundle = makeBundle((spec) => {
      spec.linux.seccomp = asking(agent.path, "execve");
    });
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("permission denied");
    expect(agent.ended().map(({ call }) => call)).toEqual([undefined, 59]);
  });

  test("without an agent nothing runs, with run, start and exec", () => {
    const path = join(scratchDirectory(), "nobody.sock");
    const bundle = makeBundle((spec) => {
      spec.linux.seccomp = asking(path, "kexec_load");
    });
    const ended = run(bundle);
    expect(ended).toMatchObject({ status: 1, stdout: "" });
    expect(ended.stderr).toContain("/linux/seccomp/listenerPath");
    expect(ended.stderr).toContain("ENOENT");
    expect(create(bundle)).toMatchObject({ status: 0, stderr: "" });
    const { pid } = state(bundle);
    const started = start(bundle);
    expect(started.status).toBe(1);
    expect(started.stderr).toContain("/linux/seccomp/listenerPath");
    expect(alive(pid)).toBe(false);
    expect(state(bundle).status).toBe("stopped");
  });

  test("where nothing is asked the listener's path means nothing", () => {
    const seen = probe((spec) => {
      spec.linux.seccomp = { ...denying(), listenerPath: "/no/such/socket" };
    });
    expect(seen.seccomp.mode).toBe(2);
  });

  test("a filter that keeps its listener from being handed over is an error that says so", () => {
    const agent = startAgent(1, 1);
    const bundle = makeBundle((spec) => {
      spec.linux.seccomp = {
        ...denying(
          { names: ["kexec_load"], action: "SCMP_ACT_NOTIFY" },
          { names: ["sendmsg"], action: "SCMP_ACT_ERRNO" },
        ),
        listenerPath: agent.path,
      };
    });
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("must allow sendmsg and recvmsg");
  });
});

test.each([
  ["SECCOMP_FILTER_FLAG_TSYNC", "0"],
  ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_LOG"],
  ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
  ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "0"],
] as const)("%s is accepted, and the kernel gets %s", (flag, kernel) => {
  covers("linux.seccomp.flags");
  const bundle = makeBundle((spec) => {
    spec.process.noNewPrivileges = true;
    spec.linux.seccomp = { ...denying(), flags: [flag] };
  });
  const log = join(bundle.path, "strace");
  const ended = run(bundle, { through: ["strace", "-f", "-e", "trace=seccomp", "-o", log] });
  expect(seenIn(ended).seccomp.mode).toBe(2);
  expect(readFileSync(log, "utf8")).toContain(`seccomp(SECCOMP_SET_MODE_FILTER, ${kernel}, `);
});
