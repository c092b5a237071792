import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { readRecording } from "../../src/container/recording.ts";
import { defaultProfile } from "../../src/seccomp/default-profile.ts";
import type { HookName, Seccomp } from "../../src/spec/spec.ts";
import { join as joinTrace } from "../../src/trace/join.ts";
import { covers } from "../conformance/covers.ts";
import {
  alive,
  type Bundle,
  cleanUp,
  cleanUpFile,
  create,
  type Edit,
  makeBundle,
  remove,
  rewrite,
  run,
  seenIn,
  start,
  state,
  stateRoot,
  until,
} from "../support/bundle.ts";
import { cgroupDirectories } from "../support/host-snapshot.ts";

// OCI runtime-spec, config.md "POSIX-platform Hooks", runtime.md "Lifecycle".

afterEach(cleanUp);
afterAll(cleanUpFile);

const KINDS: HookName[] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

interface Record {
  kind: string;
  state: { id: string; status: string; pid: number; bundle: string; ociVersion: string };
  mnt: string;
  pidNamespace: string;
  argument: string;
  variable: string;
  root: string;
}

/** A bundle of the shell root whose hooks write into a directory that is bound into the container. */
function hookedBundle(edit: Edit = () => undefined): { bundle: Bundle; records: () => Record[] } {
  const bundle = makeBundle(() => undefined, { root: "shell" });
  const log = join(bundle.path, "log");
  mkdirSync(log);
  const script = (directory: string) =>
    `#!/bin/sh\necho "{\\"kind\\":\\"$1\\",\\"argument\\":\\"$2\\",\\"variable\\":\\"$V\\",\\"mnt\\":\\"$(readlink /proc/self/ns/mnt)\\",\\"pidNamespace\\":\\"$(readlink /proc/self/ns/pid)\\",\\"root\\":\\"$(test -e /mark && echo container || echo host)\\",\\"state\\":$(cat)}" >> ${directory}/records\n`;
  writeFileSync(join(bundle.path, "hook"), script(log));
  writeFileSync(join(bundle.rootfs, "hook"), script("/log"));
  writeFileSync(join(bundle.rootfs, "mark"), "");
  for (const path of [join(bundle.path, "hook"), join(bundle.rootfs, "hook")]) chmodSync(path, 0o755);
  const env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "V=val ue"];
  rewrite(bundle, (spec) => {
    spec.process.args = ["/bin/sh", "-c", "echo ran >> /log/order"];
    spec.mounts.push({ destination: "/log", type: "bind", source: "log", options: ["bind"] });
    spec.hooks = Object.fromEntries(
      KINDS.map((kind) => [
        kind,
        [1, 2].map((number) => ({
          path: kind === "startContainer" ? "/hook" : join(bundle.path, "hook"),
          args: ["hook", kind, `${kind} ${number}`],
          env,
        })),
      ]),
    );
    edit(spec);
  });
  const records = () =>
    existsSync(join(log, "records"))
      ? readFileSync(join(log, "records"), "utf8")
          .trimEnd()
          .split("\n")
          .map((line): Record => JSON.parse(line))
      : [];
  return { bundle, records };
}

test("hooks of all kinds run, each at its time, in their order, with the state on standard input", () => {
  covers(
    "hooks.prestart",
    "hooks.createRuntime",
    "hooks.createContainer",
    "hooks.startContainer",
    "hooks.poststart",
    "hooks.poststop",
  );
  const { bundle, records } = hookedBundle();
  const kinds = () => records().map(({ argument }) => argument);
  const both = (kind: string) => [`${kind} 1`, `${kind} 2`];
  expect(create(bundle)).toMatchObject({ status: 0, stderr: "" });
  const { pid } = state(bundle);
  const created = [...both("prestart"), ...both("createRuntime"), ...both("createContainer")];
  expect(kinds()).toEqual(created);
  const mount = readlinkSync(`/proc/${pid}/ns/mnt`);
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
  until("the container has ended", () => state(bundle).status === "stopped");
  const started = [...created, ...both("startContainer"), ...both("poststart")];
  expect(kinds()).toEqual(started);
  expect(remove(bundle)).toMatchObject({ status: 0, stderr: "" });
  expect(kinds()).toEqual([...started, ...both("poststop")]);

  const host = readlinkSync("/proc/self/ns/mnt");
  const inside = ["createContainer", "startContainer"];
  const statuses: { [kind: string]: string[] } = {
    prestart: ["creating"],
    createRuntime: ["creating"],
    createContainer: ["creating"],
    startContainer: ["created"],
    poststart: ["running"],
    poststop: ["stopped"],
  };
  for (const record of records()) {
    expect(record.variable).toBe("val ue");
    expect(record.mnt, record.kind).toBe(inside.includes(record.kind) ? mount : host);
    // createContainer runs before the root is entered: its path is the host's
    expect(record.root, record.kind).toBe(record.kind === "startContainer" ? "container" : "host");
    expect(record.state, record.kind).toMatchObject({
      id: bundle.id,
      bundle: bundle.path,
      ociVersion: expect.stringMatching(/^1\./),
    });
    expect(statuses[record.kind], record.kind).toContain(record.state.status);
    if (record.kind !== "poststop") expect(record.state.pid, record.kind).toBe(pid);
  }
});

test.each(["prestart", "createRuntime", "createContainer", "startContainer"] as const)(
  "a %s hook that fails ends the container before its command runs",
  (kind) => {
    const { bundle } = hookedBundle((spec) => {
      spec.hooks = { [kind]: [{ path: kind === "startContainer" ? "/bin/false" : "/bin/false", args: ["false"] }] };
    });
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain(`/hooks/${kind}/0`);
    expect(existsSync(join(bundle.path, "log/order"))).toBe(false);
    expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
  },
);

test.each(["createRuntime", "createContainer", "startContainer"] as const)(
  "a %s hook that takes too long is killed, and the container with it",
  (kind) => {
    covers("hooks timeout");
    const { bundle } = hookedBundle((spec) => {
      spec.hooks = { [kind]: [{ path: "/bin/sleep", args: ["sleep", "20"], timeout: 1 }] };
    });
    const before = Date.now();
    const { status, stderr } = run(bundle);
    expect(Date.now() - before).toBeLessThan(5000);
    expect(status).toBe(1);
    expect(stderr).toContain(`/hooks/${kind}/0`);
    expect(existsSync(join(bundle.path, "log/order"))).toBe(false);
  },
);

test("a hook that does not exist is an error", () => {
  for (const kind of ["createRuntime", "createContainer", "startContainer"] as const) {
    const { bundle } = hookedBundle((spec) => {
      spec.hooks = { [kind]: [{ path: "/no/such/hook" }] };
    });
    const { status, stderr } = run(bundle);
    expect(status, kind).toBe(1);
    expect(stderr, kind).toContain(`/hooks/${kind}/0`);
    // runc's words
    expect(stderr, kind).toContain(`error running ${kind} hook #0: `);
  }
});

test("poststop hooks that fail are logged, and keep neither the others from running nor the container from being deleted", () => {
  covers("hooks.poststop");
  const { bundle, records } = hookedBundle((spec) => {
    const { poststop = [] } = spec.hooks ?? {};
    spec.hooks = { poststop: [{ path: "/bin/false" }, { path: "/no/such/hook" }, ...poststop] };
  });
  expect(create(bundle).status).toBe(0);
  expect(start(bundle)).toMatchObject({ status: 0, stderr: "" });
  until("it has ended", () => state(bundle).status === "stopped");
  const { status, stderr } = remove(bundle);
  expect(status).toBe(0);
  expect(stderr).toMatch(/level=warning msg="error running poststop hook #0: \/bin\/false ended with exit status 1"/);
  expect(stderr).toMatch(/level=warning msg="error running poststop hook #1: \/no\/such\/hook/);
  expect(records().map(({ argument }) => argument)).toEqual(["poststop 1", "poststop 2"]);
  expect(existsSync(join(bundle.path, "..", "state", bundle.id))).toBe(false);
  expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
});

describe("a poststart hook that fails stops the container", () => {
  const failing: Edit = (spec) => {
    const { poststart = [], poststop = [] } = spec.hooks ?? {};
    spec.process.args = ["/bin/sh", "-c", "echo ran >> /log/order; exec sleep 60"];
    spec.hooks = { poststart: [...poststart.slice(0, 1), { path: "/bin/false" }, ...poststart.slice(1)], poststop };
  };

  test("with start, which leaves it to be deleted", () => {
    covers("hooks.poststart");
    const { bundle, records } = hookedBundle(failing);
    expect(create(bundle).status).toBe(0);
    const { pid } = state(bundle);
    expect(start(bundle)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("error running poststart hook #1: /bin/false ended with exit status 1"),
    });
    expect(alive(pid)).toBe(false);
    expect(state(bundle).status).toBe("stopped");
    expect(remove(bundle)).toMatchObject({ status: 0, stderr: "" });
    expect(records().map(({ argument }) => argument)).toEqual(["poststart 1", "poststop 1", "poststop 2"]);
  });

  test("with run, which takes it back", () => {
    const { bundle, records } = hookedBundle(failing);
    const { status, stderr } = run(bundle, {}, "--detach");
    expect(status).toBe(1);
    expect(stderr).toContain("/hooks/poststart/1");
    expect(records().map(({ argument }) => argument)).toEqual(["poststart 1", "poststop 1", "poststop 2"]);
    expect(existsSync(join(bundle.path, "..", "state", bundle.id))).toBe(false);
    expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([]);
  });
});

test.each(["createRuntime", "createContainer"] as const)(
  "after a %s hook that fails, all is taken back, and the poststop hooks run",
  (kind) => {
    const { bundle, records } = hookedBundle((spec) => {
      spec.hooks = { [kind]: [{ path: "/bin/false" }], poststop: spec.hooks?.poststop ?? [] };
    });
    expect(create(bundle).status).toBe(1);
    expect(records().map(({ argument }) => argument)).toEqual(["poststop 1", "poststop 2"]);
    expect(records()[0]?.state).toMatchObject({ status: "stopped", id: bundle.id });
    expect(existsSync(join(bundle.path, "..", "state", bundle.id))).toBe(false);
  },
);

test.each(["createRuntime", "createContainer", "startContainer"] as const)(
  "what a %s hook has started is killed with it when its time is up",
  (kind) => {
    covers("hooks timeout");
    const { bundle } = hookedBundle((spec) => {
      const log = kind === "startContainer" ? "/log" : join(dirname(spec.hooks?.poststop?.[0]?.path ?? ""), "log");
      const script = `sleep 30 & readlink /proc/self >/dev/null; grep -h ^NSpid /proc/$!/status > ${log}/child; wait`;
      spec.hooks = { [kind]: [{ path: "/bin/sh", args: ["sh", "-c", script], env: ["PATH=/bin"], timeout: 1 }] };
    });
    // the child would hold these streams, and whoever reads them would wait for it
    const before = Date.now();
    expect(run(bundle).status).toBe(1);
    expect(Date.now() - before).toBeLessThan(8000);
    const [, pid = ""] = readFileSync(join(bundle.path, "log/child"), "utf8").trim().split(/\s+/);
    expect(Number(pid)).toBeGreaterThan(0);
    if (kind === "createRuntime") expect(alive(Number(pid))).toBe(false);
  },
);

test("a hook has the environment it was given, and no other", () => {
  const { bundle } = hookedBundle((spec) => {
    const log = join(dirname(spec.hooks?.poststop?.[0]?.path ?? ""), "log");
    const script = (to: string) => ["sh", "-c", `env > ${to}`];
    spec.hooks = {
      createRuntime: [{ path: "/bin/sh", args: script(`${log}/outside`), env: ["ONLY=1", "PATH=/bin:/usr/bin"] }],
      createContainer: [{ path: "/bin/sh", args: script(`${log}/between`), env: ["ONLY=2", "PATH=/bin:/usr/bin"] }],
      startContainer: [{ path: "/bin/sh", args: script("/log/inside"), env: ["ONLY=3", "PATH=/bin:/usr/bin"] }],
    };
  });
  expect(run(bundle)).toMatchObject({ status: 0, stderr: "" });
  // what shells add by themselves does not count
  const seen = (name: string) =>
    readFileSync(join(bundle.path, "log", name), "utf8")
      .trim()
      .split("\n")
      .filter((line) => !/^(PWD|OLDPWD|SHLVL|_)=/.test(line))
      .sort();
  expect(["outside", "between", "inside"].map(seen)).toEqual(
    [1, 2, 3].map((number) => [`ONLY=${number}`, "PATH=/bin:/usr/bin"]),
  );
});

test("a hook that names no environment has the runtime's; inside of the container, that of its process", () => {
  const { bundle } = hookedBundle((spec) => {
    const log = join(dirname(spec.hooks?.poststop?.[0]?.path ?? ""), "log");
    const script = (to: string) => ["sh", "-c", `echo $OUTER/$INNER/$HOME > ${to}`];
    spec.process.env = ["PATH=/bin", "INNER=of the process"];
    spec.hooks = {
      createRuntime: [{ path: "/bin/sh", args: script(`${log}/outside`) }],
      startContainer: [{ path: "/bin/sh", args: script("/log/inside") }],
    };
  });
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", HOME: "/somewhere", OUTER: "of the runtime" };
  expect(run(bundle, { env })).toMatchObject({ status: 0, stderr: "" });
  const [outside, inside] = ["outside", "inside"].map((name) => readFileSync(join(bundle.path, "log", name), "utf8"));
  expect(outside).toBe("of the runtime///somewhere\n");
  expect(inside).toBe("/of the process//root\n");
});

test("hooks before the root is entered find it where the bundle has it, with its mounts, and mount into it", () => {
  const { bundle, records } = hookedBundle((spec) => {
    const directory = dirname(spec.hooks?.poststop?.[0]?.path ?? "");
    const hook = (script: string) => [{ path: "/bin/sh", args: ["sh", "-c", `set -e; ${script}`] }];
    const gift = `${directory}/gift`;
    spec.process.args = ["/bin/sh", "-c", "cat /of-runtime /of-container > /log/order"];
    spec.root.readonly = true;
    spec.hooks = {
      // a hook of the host's namespaces enters the container's
      createRuntime: hook(
        `pid=$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/'); nsenter -m -t $pid mount --bind ${gift} ${directory}/rootfs/of-runtime`,
      ),
      // libraries are put beside the image's from the directory that runc's hooks work in
      createContainer: hook(
        `test -e ${directory}/rootfs/proc/self; test $(pwd) = ${directory}/rootfs; mount --bind ${gift} ./of-container`,
      ),
      poststop: spec.hooks?.poststop ?? [],
    };
  });
  writeFileSync(join(bundle.path, "gift"), "a gift\n");
  for (const name of ["of-runtime", "of-container"]) writeFileSync(join(bundle.rootfs, name), "nothing\n");
  const before = readFileSync("/proc/self/mountinfo", "utf8");
  expect(run(bundle)).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(join(bundle.path, "log", "order"), "utf8")).toBe("a gift\na gift\n");
  expect(records()).toHaveLength(2);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(before);
});

test("a root above which all is closed to its user namespace has its hooks all the same", () => {
  const ids = [{ containerID: 0, hostID: 200000, size: 65536 }];
  const bundle = makeBundle((spec) => {
    spec.linux.namespaces?.push({ type: "user" });
    Object.assign(spec.linux, { uidMappings: ids, gidMappings: ids });
    spec.hooks = { createContainer: [{ path: "/bin/true" }] };
  });
  chmodSync(bundle.path, 0o700);
  expect(seenIn(run(bundle)).pid).toBe(1);
});

test("the trace has the hooks that run after start", () => {
  const { bundle } = hookedBundle();
  expect(create(bundle).status).toBe(0);
  expect(start(bundle).status).toBe(0);
  const { plan, reports } = readRecording(join(stateRoot(), bundle.id)) ?? { plan: [], reports: [] };
  const traced = joinTrace(plan, reports).filter(({ step }) => step.from.startsWith("/spec/hooks/poststart"));
  expect(traced.map(({ outcome, calls }) => [outcome, calls.length > 0])).toEqual([
    ["done", true],
    ["done", true],
  ]);
});

test("what cannot be taken back is told beside the error, and does not keep the rest", () => {
  const { bundle } = hookedBundle();
  // a mount on one of its cgroups, which is not ours to take away
  const cover = join(bundle.path, "cover");
  const named = `/sys/fs/cgroup/*/${bundle.id} /sys/fs/cgroup/*/*/${bundle.id} /sys/fs/cgroup/${bundle.id}`;
  writeFileSync(
    cover,
    `#!/bin/sh\nset -- $(ls -d ${named} 2>/dev/null)\nmount -t tmpfs cover "$1" && echo "$1" > ${bundle.path}/covered\nexit 3\n`,
  );
  chmodSync(cover, 0o755);
  rewrite(bundle, (spec) => {
    spec.linux.cgroupsPath = `/${bundle.id}`;
    spec.hooks = { createRuntime: [{ path: cover, env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }] };
  });
  const { status, stderr } = run(bundle);
  const covered = readFileSync(join(bundle.path, "covered"), "utf8").trim();
  try {
    expect(status).toBe(1);
    expect(stderr).toMatch(/\/hooks\/createRuntime\/0.*could not be taken back: cannot remove \S+: it is not a/);
    expect(stderr).toContain(covered);
    expect(cgroupDirectories().filter((path) => path.includes(bundle.id))).toEqual([covered]);
    expect(existsSync(join(stateRoot(), bundle.id))).toBe(false);
  } finally {
    execFileSync("umount", [covered]);
    rmdirSync(covered);
  }
});

describe("a startContainer hook is under the container's filter", () => {
  const denying = (names: string[], errnoRet = 95): Seccomp => ({
    defaultAction: "SCMP_ACT_ALLOW",
    syscalls: [{ names, action: "SCMP_ACT_ERRNO", errnoRet }],
  });
  /** Tries to make a directory, and says what it is; the container's program does nothing. */
  const watched = (seccomp: Seccomp, noNewPrivileges: boolean, timeout?: number) =>
    hookedBundle((spec) => {
      spec.ociVersion = "1.0.2";
      spec.process.args = ["/bin/true"];
      spec.process.noNewPrivileges = noNewPrivileges;
      spec.linux.seccomp = seccomp;
      const script = "mkdir /log/made 2> /log/refused; grep -E '^(Seccomp|CapEff):' /proc/self/status > /log/status";
      const hook = { path: "/bin/sh", args: ["sh", "-c", script], env: ["PATH=/bin"] };
      spec.hooks = { startContainer: [timeout === undefined ? hook : { ...hook, timeout }] };
    }).bundle;
  const said = (bundle: Bundle, name: string) => readFileSync(join(bundle.path, "log", name), "utf8");

  test.each([
    ["ours", true],
    ["ours", false],
    ["runc", true],
    ["runc", false],
  ] as const)("as with runc: %s, noNewPrivileges %s", (whose, noNewPrivileges) => {
    covers("hooks.startContainer");
    const bundle = watched(denying(["mkdir", "mkdirat"]), noNewPrivileges);
    expect(run(bundle, whose === "runc" ? { program: "runc" } : {})).toMatchObject({ status: 0, stderr: "" });
    expect(said(bundle, "refused")).toContain("Operation not supported");
    expect(said(bundle, "status")).toMatch(/^Seccomp:\s2$/m);
    // nor has it the capability that the filter was loaded with
    expect(said(bundle, "status")).toMatch(/^CapEff:\s0000000020000420$/m);
    expect(existsSync(join(bundle.path, "log/made"))).toBe(false);
  });

  test("of what the default profile refuses, nothing is needed to run it, whatever time it has", () => {
    for (const timeout of [undefined, 10]) {
      const bundle = watched(defaultProfile([], "x86_64"), true, timeout);
      expect(run(bundle)).toMatchObject({ status: 0, stderr: "" });
      expect(existsSync(join(bundle.path, "log/made"))).toBe(true);
    }
  });

  test.each([["clone"], ["waitid"], ["execve"]])("where that refuses %s the container does not start", (call) => {
    const bundle = watched(denying([call]), true);
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("error running startContainer hook #0: ");
    expect(existsSync(join(bundle.path, "..", "state", bundle.id))).toBe(false);
  });

  test("where that refuses to wait for a while, a hook that must not take long is killed", () => {
    const { status, stderr } = run(watched(denying(["ppoll"]), true, 10));
    expect(status).toBe(1);
    expect(stderr).toContain("(EOPNOTSUPP at /hooks/startContainer/0)");
  });
});
