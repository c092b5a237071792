import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
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
  stateRoot,
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

describe("compiled filters", () => {
  const directory = () => join(stateRoot(), ".seccomp");
  const names = () => readdirSync(directory()).sort();
  /** Refuses mkdir so, and nothing else. */
  const refusing = (errnoRet: number) =>
    denying({ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet, args: [] });
  /** What mkdir says under that profile. */
  const mkdirUnder = (seccomp: Seccomp) =>
    results(
      probe(
        (spec) => {
          spec.root.readonly = false;
          spec.linux.seccomp = seccomp;
        },
        ["--mkdir", "/new"],
      ).actions,
    )[0];
  /** The file of a profile that no container has had yet. */
  const fileOf = (errnoRet: number): string => {
    rmSync(directory(), { recursive: true, force: true });
    mkdirUnder(refusing(errnoRet));
    const [name = ""] = names();
    expect(names()).toEqual([name]);
    return join(directory(), name);
  };
  const EOPNOTSUPP = 95;
  const EIO = 5;
  const DIGEST_BYTES = 32;
  /** As if that content had been compiled for this file's profile. */
  const vouchFor = (file: string, content: Buffer) => {
    const key = file.slice(-64);
    writeFileSync(file, Buffer.concat([createHash("sha256").update(key).update(content).digest(), content]));
  };

  test("are kept for the next container with the same profile, whoever listens", () => {
    covers("linux.seccomp cache");
    const other = readFileSync(fileOf(EIO)).subarray(DIGEST_BYTES);
    const file = fileOf(EOPNOTSUPP);
    expect(lstatSync(file).mode & 0o777).toBe(0o600);
    expect(lstatSync(directory()).mode & 0o777).toBe(0o700);
    const { ino } = lstatSync(file);
    expect(mkdirUnder({ ...refusing(EOPNOTSUPP), listenerPath: "/nobody" })).toBe("EOPNOTSUPP");
    expect([names().length, lstatSync(file).ino]).toEqual([1, ino]);
    // that it is used, and not only left alone, is seen by what nobody would compile from this profile
    vouchFor(file, other);
    expect(mkdirUnder(refusing(EOPNOTSUPP))).toBe("EIO");
    const bundle = idle((spec) => {
      spec.linux.seccomp = refusing(EOPNOTSUPP);
    });
    expect(results(seenIn(exec(bundle, ["/bin/probe", "--mkdir", "/new"])).actions)).toEqual(["EIO"]);
  });

  test.each<[string, (file: string, weaker: Buffer) => void]>([
    ["of which a bit has changed", (file) => flip(file, 150)],
    ["whose flags have changed", (file) => flip(file, DIGEST_BYTES)],
    ["cut short", (file) => writeFileSync(file, readFileSync(file).subarray(0, -8))],
    ["of no length", (file) => writeFileSync(file, "")],
    ["too long", (file) => writeFileSync(file, Buffer.alloc(1 << 20))],
    ["of another profile", (file, weaker) => writeFileSync(file, weaker)],
    [
      "that others may read",
      (file, weaker) => {
        vouchFor(file, weaker.subarray(DIGEST_BYTES));
        chmodSync(file, 0o644);
      },
    ],
    [
      "of somebody else",
      (file, weaker) => {
        vouchFor(file, weaker.subarray(DIGEST_BYTES));
        chownSync(file, 1000, 0);
      },
    ],
    [
      "behind a link",
      (file, weaker) => {
        vouchFor(file, weaker.subarray(DIGEST_BYTES));
        renameSync(file, `${file}.moved`);
        symlinkSync(`${file}.moved`, file);
      },
    ],
    [
      "that is a FIFO",
      (file) => {
        rmSync(file);
        expect(spawnSync("mkfifo", ["-m", "600", file]).status).toBe(0);
      },
    ],
  ])("one %s is not believed, but replaced", (_, damage) => {
    const weaker = readFileSync(fileOf(EIO));
    const file = fileOf(EOPNOTSUPP);
    const compiled = readFileSync(file);
    damage(file, weaker);
    expect(mkdirUnder(refusing(EOPNOTSUPP))).toBe("EOPNOTSUPP");
    expect(lstatSync(file)).toMatchObject({ uid: 0, nlink: 1 });
    expect(lstatSync(file).mode).toBe(0o100600);
    expect(readFileSync(file).equals(compiled)).toBe(true);
  });

  test.each<[string, (path: string) => void]>([
    ["that others may enter", (path) => chmodSync(path, 0o755)],
    ["of somebody else", (path) => chownSync(path, 1000, 0)],
    [
      "behind a link",
      (path) => {
        renameSync(path, `${path}-moved`);
        symlinkSync(`${path}-moved`, path);
      },
    ],
    [
      "in whose place a file is",
      (path) => {
        rmSync(path, { recursive: true });
        writeFileSync(path, "x");
      },
    ],
  ])("of a directory %s are not believed, and none is put there", (_, damage) => {
    const other = readFileSync(fileOf(EIO)).subarray(DIGEST_BYTES);
    vouchFor(fileOf(EOPNOTSUPP), other);
    damage(directory());
    expect(mkdirUnder(refusing(EOPNOTSUPP))).toBe("EOPNOTSUPP");
    expect(mkdirUnder(refusing(EIO + 1))).toBe("ENXIO");
    if (lstatSync(directory()).isDirectory()) expect(names()).toHaveLength(1);
    rmSync(directory(), { recursive: true });
    rmSync(`${directory()}-moved`, { recursive: true, force: true });
  });

  test("are few: the oldest go", () => {
    const file = fileOf(EOPNOTSUPP);
    for (let i = 0; i < 100; i++) {
      writeFileSync(join(directory(), `old-${i}`), "");
      utimesSync(join(directory(), `old-${i}`), i, i);
    }
    expect(mkdirUnder(refusing(EIO))).toBe("EIO");
    expect(names()).toHaveLength(64);
    expect(names()).toContain(file.slice(-64));
    expect(names()).not.toContain("old-37");
    expect(names()).toContain("old-38");
  });

  test("are not needed: a state root that takes none will do", () => {
    mkdirSync(stateRoot(), { recursive: true, mode: 0o700 });
    rmSync(directory(), { recursive: true, force: true });
    symlinkSync("/nowhere", directory());
    expect(mkdirUnder(refusing(EIO))).toBe("EIO");
    rmSync(directory());
  });
});

function flip(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  writeFileSync(file, bytes);
}
