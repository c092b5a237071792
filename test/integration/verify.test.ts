import { spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import {
  cleanUp,
  cleanUpFile,
  create,
  type Edit,
  idle,
  makeBundle,
  rewrite,
  runtime,
  scratchDirectory,
  start,
  stateRoot,
} from "../support/bundle.ts";
import { engineCommand } from "../support/engine.ts";

afterEach(cleanUp);
afterAll(cleanUpFile);

interface Verdict {
  compared: number;
  differences: { from: string; what: string; expected: string; found: string }[];
}

function verify(...words: string[]): Verdict {
  const [command = "", ...rest] = [...engineCommand(), "--root", stateRoot(), "verify", "--json", ...words];
  const { status, stdout, stderr } = spawnSync(command, rest, { encoding: "utf8" });
  expect(stderr).toBe("");
  const verdict: Verdict = JSON.parse(stdout);
  expect(status).toBe(verdict.differences.length === 0 ? 0 : 1);
  return verdict;
}

function pidOf(id: string, program?: string): string {
  return String(JSON.parse(runtime(["state", id], program === undefined ? {} : { program }).stdout).pid);
}

/** A container made as `made` says, compared with a bundle that says `claimed`. */
function claim(made: Edit, claimed: Edit): Verdict["differences"] {
  const container = idle(made);
  const other = makeBundle();
  rewrite(other, (spec) => {
    spec.process.args = ["/bin/probe", "--sleep", "60"];
    claimed(spec);
  });
  return verify("--bundle", other.path, "--pid", pidOf(container.id)).differences;
}

const nothing: Edit = () => undefined;
const limited: Edit = ({ linux }) => {
  linux.resources = { memory: { limit: 64 << 20 }, pids: { limit: 20 }, cpu: { quota: 50_000, period: 100_000 } };
};
const mapped: Edit = ({ linux }) => {
  linux.namespaces = [...(linux.namespaces ?? []), { type: "user" }];
  linux.uidMappings = [{ containerID: 0, hostID: 200_000, size: 65_536 }];
  linux.gidMappings = [{ containerID: 0, hostID: 300_000, size: 65_536 }];
};
const user: Edit = ({ process }) => {
  process.user = { uid: 1000, gid: 1000, additionalGids: [7, 8] };
};

describe("finds nothing on a container that is as planned", () => {
  test.each<[string, Edit]>([
    ["the template's", nothing],
    ["limited", limited],
    ["in a user namespace", mapped],
    ["of another user", user],
    [
      "with mounts of every kind",
      ({ mounts, root }) => {
        root.readonly = true;
        mounts.push(
          { destination: "/mnt", type: "tmpfs", source: "tmpfs", options: ["nosuid", "noexec"] },
          { destination: "/mnt/host", type: "bind", source: "/usr/share", options: ["rbind", "ro", "nodev"] },
        );
      },
    ],
    [
      "without namespaces but its mounts",
      (spec) => {
        spec.linux.namespaces = [{ type: "mount" }, { type: "pid" }];
        delete spec.hostname;
      },
    ],
  ])("%s", (_, edit) => {
    const { compared, differences } = verify(idle(edit).id);
    expect(differences).toEqual([]);
    expect(compared).toBeGreaterThan(40);
  });

  test("with descriptors that its creator gave it", () => {
    const bundle = makeBundle(({ process }) => {
      process.args = ["/bin/probe", "--sleep", "60"];
    });
    const through = ["python3", "-c", KEEP];
    expect(create(bundle, { through }, "--preserve-fds", "1")).toMatchObject({ status: 0, stderr: "" });
    expect(start(bundle).status).toBe(0);
    expect(verify(bundle.id).differences).toEqual([]);
    expect(verify("--bundle", bundle.path, "--pid", pidOf(bundle.id)).differences).toEqual([
      { from: "/process", what: "descriptor 3", expected: "of the container's own", found: "/usr" },
    ]);
  });
});

/** Makes descriptor 3 a directory of the host, for whoever comes next. */
const KEEP = `
import os, sys
os.dup2(os.open("/usr", os.O_RDONLY), 3); os.set_inheritable(3, True)
os.execvp(sys.argv[1], sys.argv[1:])
`;

describe("finds what was planted", () => {
  const found = (differences: Verdict["differences"]) =>
    differences.map(({ from, what, found }) => [from, what, found]);

  test.each<[string, Edit, Edit, [from: string, what: string, found: unknown][]]>([
    [
      "a missing mask",
      nothing,
      ({ linux }) => {
        linux.maskedPaths = [...(linux.maskedPaths ?? []), "/proc/uptime"];
      },
      [[expect.stringMatching(/^\/linux\/maskedPaths\/\d+$/), "/proc/uptime", "in view"]] as never,
    ],
    [
      "a path that can be written",
      nothing,
      ({ linux }) => {
        linux.readonlyPaths = ["/dev/shm", ...(linux.readonlyPaths ?? [])];
      },
      [["/linux/readonlyPaths/0", "/dev/shm", "writable"]],
    ],
    [
      "a capability too many",
      ({ process }) => {
        for (const set of ["bounding", "permitted", "effective"] as const)
          process.capabilities = { ...process.capabilities, [set]: ["CAP_KILL", "CAP_SYS_CHROOT"] };
      },
      ({ process }) => {
        for (const set of ["bounding", "permitted", "effective"] as const)
          process.capabilities = { ...process.capabilities, [set]: ["CAP_KILL"] };
      },
      ["bounding", "permitted", "effective"].map((set) => [
        `/process/capabilities/${set}`,
        `more ${set} capabilities`,
        "CAP_SYS_CHROOT",
      ]),
    ],
    [
      "a shared namespace",
      ({ linux }) => {
        linux.namespaces = (linux.namespaces ?? []).filter(({ type }) => type !== "ipc");
      },
      ({ linux }) => {
        linux.namespaces = [...(linux.namespaces ?? []).filter(({ type }) => type !== "ipc"), { type: "ipc" }];
      },
      [[expect.stringMatching(/namespaces\/\d/), "ipc namespace", expect.stringContaining("the host's")]] as never,
    ],
    [
      "a looser limit",
      ({ process }) => {
        process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 200, hard: 300 }];
      },
      ({ process }) => {
        process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 100, hard: 300 }];
      },
      [["/process/rlimits/0/soft", "soft limit RLIMIT_NOFILE", "200"]],
    ],
    [
      "more memory and processes",
      limited,
      ({ linux }) => {
        linux.resources = { memory: { limit: 32 << 20 }, pids: { limit: 10 } };
      },
      [
        ["/linux/resources/memory/limit", expect.any(String), String(64 << 20)],
        ["/linux/resources/pids/limit", "pids.max", "20"],
      ] as never,
    ],
    [
      "a root that can be written",
      ({ root }) => {
        root.readonly = false;
      },
      ({ root }) => {
        root.readonly = true;
      },
      [["/root/readonly", "/", "writable"]],
    ],
    [
      "a mount that nobody asked for, and one that is not there",
      ({ mounts }) => void mounts.push({ destination: "/mnt", type: "bind", source: "/usr", options: ["bind"] }),
      ({ mounts }) => void mounts.push({ destination: "/tmp", type: "tmpfs", source: "tmpfs" }),
      [
        [expect.stringMatching(/^\/mounts\/\d+$/), "/tmp", expect.stringMatching(/none|absent/)],
        ["/mounts", "/mnt", expect.stringContaining("from")],
      ] as never,
    ],
    [
      "a mount without its attributes",
      ({ mounts }) => void mounts.push({ destination: "/mnt", type: "tmpfs", source: "x", options: ["nosuid"] }),
      ({ mounts }) =>
        void mounts.push({ destination: "/mnt", type: "tmpfs", source: "x", options: ["nosuid", "noexec"] }),
      [[expect.stringMatching(/^\/mounts\/\d+$/), "/mnt", expect.stringContaining("nosuid")]] as never,
    ],
    [
      "no filter, and privileges to be had",
      ({ process, linux }) => {
        process.noNewPrivileges = false;
        delete linux.seccomp;
      },
      ({ process, linux }) => {
        process.noNewPrivileges = true;
        linux.seccomp = { defaultAction: "SCMP_ACT_ALLOW" };
      },
      [
        ["/process/noNewPrivileges", "no_new_privs", "0"],
        ["/linux/seccomp", "seccomp mode", "0"],
      ],
    ],
    [
      "another user, and a group too many",
      user,
      ({ process }) => {
        process.user = { uid: 1001, gid: 1000, additionalGids: [7] };
      },
      [
        ["/process/user/uid", "user", expect.stringMatching(/^1000 /)],
        ["/process/user/additionalGids", "more groups", "8"],
      ] as never,
    ],
  ])("%s", (_, made, claimed, expected) => {
    expect(found(claim(made, claimed))).toEqual(expected);
  });
});

test("looks at runc's containers, too: its tmpfs over cgroups of version 1 can be written", () => {
  const bundle = makeBundle(({ process }) => {
    process.args = ["/bin/probe", "--sleep", "60"];
  });
  mkdirSync(join(scratchDirectory(), "runc"), { recursive: true });
  const log = openSync(join(bundle.path, "output"), "w");
  try {
    const started = spawnSync(
      "runc",
      ["--root", join(scratchDirectory(), "runc"), "run", "--detach", "--bundle", bundle.path, bundle.id],
      { stdio: ["ignore", log, log] },
    );
    expect({ status: started.status, log: readFileSync(join(bundle.path, "output"), "utf8") }).toEqual({
      status: 0,
      log: "",
    });
    const { differences } = verify("--bundle", bundle.path, "--pid", pidOf(bundle.id, "runc"));
    expect(differences.filter(({ what }) => what !== "/sys/fs/cgroup")).toEqual([]);
  } finally {
    closeSync(log);
    runtime(["delete", "--force", bundle.id], { program: "runc" });
  }
});

test("says why it cannot look", () => {
  const words = (...rest: string[]) => {
    const [command = "", ...before] = [...engineCommand(), "--root", stateRoot(), "verify"];
    const { status, stderr } = spawnSync(command, [...before, ...rest], { encoding: "utf8" });
    return [status, stderr.split("\n")[0]];
  };
  const waiting = makeBundle();
  expect(create(waiting).status).toBe(0);
  expect(words(waiting.id)).toEqual([
    125,
    `error: container ${waiting.id} is created: only what runs can be compared with its plan`,
  ]);
  expect(words("nobody")).toEqual([125, "error: there is no container nobody"]);
  expect(words("--pid", "1")).toEqual([
    125,
    "error: cannot verify: give a container, or --bundle DIRECTORY and --pid PID",
  ]);
  const bundle = makeBundle();
  expect(words("--bundle", bundle.path, "--pid", "4194304")).toEqual([
    125,
    "error: cannot look at process 4194304: it does not run",
  ]);
});
