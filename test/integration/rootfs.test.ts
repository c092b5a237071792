import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { makeCanary } from "../../rootfs-fixtures/build.mjs";
import { covers } from "../conformance/covers.ts";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  type Edit,
  makeBundle,
  probe,
  results,
  run,
  scratchDirectory,
  seenIn,
} from "../support/bundle.ts";
import { digestOf } from "../support/host-snapshot.ts";
import { besideMounts } from "../support/propagation.ts";

// OCI runtime-spec, config.md "Root", config-linux.md "Masked Paths", "Readonly Paths", "Rootfs Mount Propagation";
// and roots that were made to deceive the runtime.

afterEach(cleanUp);
afterAll(cleanUpFile);

test("a read-only root refuses writes, a writable one keeps them", () => {
  covers("root.readonly");
  const readOnly = probe(
    () => undefined,
    ["--write", "/file", "x", "--mkdir", "/directory", "--write", "/bin/probe", "x", "--remove", "/etc/passwd"],
  );
  expect(results(readOnly.actions)).toEqual(["EROFS", "EROFS", "EROFS", "EROFS"]);
  const bundle = makeBundle((spec) => {
    spec.root.readonly = false;
    spec.process.args = ["/bin/probe", "--write", "/file", "kept"];
  });
  seenIn(run(bundle));
  expect(readFileSync(join(bundle.rootfs, "file"), "utf8")).toBe("kept");
});

test("nothing of the host's tree can be reached from the root", () => {
  const seen = probe(
    (spec) => {
      const every = ["CAP_SYS_CHROOT", "CAP_DAC_READ_SEARCH"];
      spec.process.capabilities = { bounding: every, permitted: every, effective: every };
      spec.root.readonly = false;
    },
    // the classic escape: a directory, chroot into it, and up
    [
      "--mkdir",
      "/jail",
      "--syscall",
      "161",
      "/jail",
      "--syscall",
      "80",
      "../../../../../..",
      "--stat",
      "work",
      "--stat",
      "bin/probe",
    ],
  );
  const [made, chrooted, changed, work, probeFile] = seen.actions;
  expect([made?.error, chrooted?.error, changed?.error, work?.error, probeFile?.error]).toEqual([
    null,
    null,
    null,
    "ENOENT",
    null,
  ]);
  expect(seen.mounts.filter(({ parent, mountPoint }) => mountPoint === "/" && parent !== undefined)).toHaveLength(1);
});

test("a root given by an absolute path, and one by a relative path through a link, are found", () => {
  covers("root.path");
  const bundle = makeBundle();
  const absolute = makeBundle((spec) => {
    spec.root.path = bundle.rootfs;
  });
  expect(seenIn(run(absolute)).cwd).toBe("/");
  const linked = makeBundle((spec) => {
    spec.root.path = "link/to";
  });
  mkdirSync(join(linked.path, "link"));
  symlinkSync(bundle.rootfs, join(linked.path, "link/to"));
  expect(seenIn(run(linked)).cwd).toBe("/");
});

test("a missing root is an error that names it", () => {
  covers("root.path");
  const bundle = makeBundle((spec) => {
    spec.root.path = "absent";
  });
  const { status, stderr } = run(bundle);
  expect(status).toBe(1);
  expect(stderr).toContain("/root/path");
});

test("masked paths tell nothing, and read-only ones cannot be changed", () => {
  covers("linux.maskedPaths", "linux.readonlyPaths");
  const seen = probe(
    (spec) => {
      spec.linux.maskedPaths?.push("/etc/passwd", "/home", "/no/such/path", "/etc/passwd/below");
      spec.linux.readonlyPaths?.push("/proc/self", "/no/such/path");
      const every = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO"];
      spec.process.capabilities = { bounding: every, permitted: every, effective: every };
    },
    [
      ...["/proc/kcore", "/proc/keys", "/proc/timer_list", "/etc/passwd"].flatMap((path) => ["--read", path]),
      ...["/home", "/sys/firmware", "/proc/scsi"].flatMap((path) => ["--tree", path]),
      ...[
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/swappiness",
        "/proc/irq/default_smp_affinity",
        "/home/new",
        "/proc/self/comm",
      ].flatMap((path) => ["--write", path, "x"]),
    ],
  );
  const [kcore, keys, timers, passwd, home, firmware, scsi, ...writes] = seen.actions;
  // a file is covered by the null device, which reads as empty; what this kernel does not have is not there at all
  for (const file of [kcore, keys, timers, passwd])
    expect(file?.error ?? file?.result, file?.arguments[0]).toBeOneOf(["", "ENOENT"]);
  expect(passwd?.result).toBe("");
  for (const tree of [home, firmware, scsi])
    if (tree?.error !== "ENOENT") expect(belowRoot(tree?.result), tree?.arguments[0]).toEqual([]);
  expect(home?.error).toBeNull();
  expect(results(writes)).toEqual(["EROFS", "EROFS", "EROFS", "EROFS", "EROFS"]);
});

/** The paths of a --tree, without the directory itself. */
function belowRoot(tree: unknown): unknown[] {
  return Array.isArray(tree)
    ? tree.filter((entry: { path?: string }) => entry.path !== "" && entry.path !== "." && entry.path !== "/")
    : [tree];
}

describe("a hostile root", () => {
  /**
   * A bundle of the hostile root and a canary of its own, and what the canary looks like. Of /dev, /proc and /sys only
   * what is named stays a link, so that a test gets as far as what it is about.
   */
  function hostile(edit: Edit, ...links: string[]): { bundle: Bundle; canary: string; before: string } {
    const canary = mkdtempSync(join(scratchDirectory(), "canary-"));
    rmSync(canary, { recursive: true });
    makeCanary(canary);
    const bundle = makeBundle(
      (spec) => {
        spec.root.readonly = false;
        // one thing at a time: what the test is about comes by edit
        spec.mounts = [];
        delete spec.linux.maskedPaths;
        delete spec.linux.readonlyPaths;
        edit(spec);
      },
      { root: "hostile", canary },
    );
    for (const name of ["dev", "proc", "sys"].filter((each) => !links.includes(each))) {
      rmSync(join(bundle.rootfs, name));
      mkdirSync(join(bundle.rootfs, name));
    }
    return { bundle, canary, before: digestOf(canary) };
  }

  test.each([
    ["proc", "/proc"],
    ["sysfs", "/sys"],
  ])("%s is not mounted through a link (CVE-2019-19921)", (type, destination) => {
    const { bundle, canary, before } = hostile(
      (spec) => {
        spec.mounts = [{ destination, type, source: type }];
      },
      type === "proc" ? "proc" : "sys",
    );
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toContain("/mounts/0");
    expect(stderr).toContain("must be mounted on ordinary directory"); // runc's words
    expect(digestOf(canary)).toBe(before);
  });

  test.each([
    { destination: "/etc/resolv.conf", file: true },
    { destination: "/etc/hosts", file: true },
    { destination: "/etc/hostname", file: true },
    { destination: "/dangling", file: true },
    { destination: "/loop-a", file: true },
    { destination: "/workdir-fd", file: true },
    { destination: "/volume/kept", file: true },
    { destination: "/volume", file: false },
    { destination: "/workdir/deep/er", file: false },
    { destination: "/chain/made", file: false },
    { destination: "/tmp/made", file: false },
    { destination: "/dangling-inside", file: false },
  ])(
    "what is bound to $destination stays inside the root, and the canary as it was (CVE-2021-30465)",
    ({ destination, file }) => {
      covers("openat2", "mount API");
      const source = mkdtempSync(join(scratchDirectory(), "source-"));
      writeFileSync(join(source, "file"), "from the host\n");
      const mounts = readFileSync("/proc/self/mountinfo", "utf8");
      const { bundle, canary, before } = hostile((spec) => {
        spec.mounts = [
          { destination: "/proc", type: "proc", source: "proc" },
          { destination, type: "bind", source: file ? join(source, "file") : source, options: ["rbind"] },
        ];
        spec.process.args = ["/bin/probe", "--write", file ? destination : `${destination}/file`, "changed"];
      });
      const { status, stdout } = run(bundle);
      // whether a link within the root is followed or refused is the runtime's choice; that it stays inside is not
      if (status === 0) expect(stdout).toContain(source);
      expect(digestOf(canary)).toBe(before);
      expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts);
    },
  );

  test("a working directory through a link is not made on the host", () => {
    const { bundle, canary, before } = hostile((spec) => {
      spec.process.cwd = "/workdir/new";
    });
    run(bundle);
    expect(digestOf(canary)).toBe(before);
  });

  test("/dev as a link: no device is made on the host (CVE-2026-41579)", () => {
    const { bundle, canary } = hostile((spec) => {
      spec.linux.devices = [{ path: "/dev/extra", type: "c", major: 1, minor: 3 }];
    }, "dev");
    // nothing is in the way of one
    rmSync(join(canary, "dev/null"));
    const before = digestOf(canary);
    // where the link leads is made inside of the root
    expect(run(bundle)).toMatchObject({ status: 0, stderr: "" });
    expect(digestOf(canary)).toBe(before);
  });

  test("masked and read-only paths through links do not change the host's mounts", () => {
    const mounts = readFileSync("/proc/self/mountinfo", "utf8");
    const { bundle, canary, before } = hostile((spec) => {
      spec.linux.maskedPaths = ["/proc/self", "/etc/hosts", "/volume"];
      spec.linux.readonlyPaths = ["/etc/resolv.conf", "/workdir"];
      spec.mounts = [{ destination: "/proc", type: "proc", source: "proc" }];
    });
    expect(run(bundle)).toMatchObject({ status: 0, stderr: "" });
    expect(digestOf(canary)).toBe(before);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).toBe(mounts);
  });

  test("passwd as a link does not tell the host's users, as a FIFO it does not stop the runtime", () => {
    const { bundle, canary, before } = hostile((spec) => {
      spec.process.user = { uid: 4242, gid: 4242 };
    });
    const seen = seenIn(run(bundle));
    expect(seen.env).toContain("HOME=/");
    expect(seen.groups).toEqual([]);
    expect(digestOf(canary)).toBe(before);
  });

  test.each([
    ["/bin/self", "the interpreter is the runtime's own executable (CVE-2019-5736)"],
    ["/bin/exe", "the command is a link to it"],
    ["/bin/fifo", "the command is a FIFO"],
    ["/loop-a", "the command is a loop of links"],
  ])("%s gives nobody a program of ours to run: %s", (command) => {
    covers("own binary");
    const { bundle } = hostile((spec) => {
      spec.mounts = [{ destination: "/proc", type: "proc", source: "proc" }];
      spec.process.args = [command];
    });
    const { status, stdout } = run(bundle);
    // 126: it was init's sealed copy, which does nothing without a plan
    expect([1, 126]).toContain(status);
    expect(stdout).toBe("");
  });
});

test("rootfsPropagation decides how the root passes mounts on", () => {
  covers("linux.rootfsPropagation");
  const kinds = { private: [], slave: [], shared: [/^shared:/], unbindable: [/^unbindable/] } as const;
  for (const [kind, expected] of Object.entries(kinds)) {
    const seen = probe((spec) => {
      spec.linux.rootfsPropagation = kind as keyof typeof kinds; // of the table above
    });
    const fields = seen.mounts.find(({ mountPoint }) => mountPoint === "/")?.optionalFields ?? ["no root"];
    expect(fields, kind).toEqual(expected.map((pattern) => expect.stringMatching(pattern)));
  }
});

test("rootfsPropagation may be recursive, as engines write it for volumes that receive or share", () => {
  covers("linux.rootfsPropagation");
  for (const [kind, below] of [
    ["rprivate", []],
    ["rslave", []],
    ["rshared", [expect.stringMatching(/^shared:/)]],
  ] as const) {
    const seen = probe((spec) => {
      spec.linux.rootfsPropagation = kind;
    });
    expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/dev/shm")?.optionalFields, kind).toEqual(below);
  }
});

test("a root that is a slave receives what the host mounts in it later, and passes nothing back", () => {
  covers("linux.rootfsPropagation");
  const every = ["CAP_SYS_ADMIN"];
  for (const [kind, received] of [
    ["slave", true],
    ["private", false],
  ] as const) {
    const bundle = makeBundle((spec) => {
      spec.linux.rootfsPropagation = kind;
      spec.process.capabilities = { bounding: every, permitted: every, effective: every };
      spec.process.args = ["/bin/probe", "--gate", "/gate", "--report", "--mount", "from-inside", "/home", "tmpfs"];
    });
    const through = besideMounts(bundle, bundle.rootfs, "tmp");
    const { stdout, stderr, status } = run(bundle, { through });
    expect({ status, stderr }, kind).toEqual({ status: 0, stderr: "0\n" });
    const [, later, mounted] = seenIn({ status, stdout, stderr: "" }).actions;
    expect(JSON.stringify(later?.result).includes("from-outside"), kind).toBe(received);
    expect(mounted?.error, kind).toBeNull();
  }
});

test("an unbindable root cannot be bound again, a shared one shares with what is bound from it", () => {
  covers("linux.rootfsPropagation");
  const every = ["CAP_SYS_ADMIN"];
  const bound = (kind: "unbindable" | "shared") =>
    probe(
      (spec) => {
        spec.linux.rootfsPropagation = kind;
        spec.process.capabilities = { bounding: every, permitted: every, effective: every };
      },
      ["--mount", "/", "/home", "none", "4096", "", "--mount", "x", "/home/etc", "tmpfs", "--report"],
    );
  expect(bound("unbindable").actions[0]?.error).toBe("EINVAL");
  const [first, second, report] = bound("shared").actions;
  expect([first?.error, second?.error]).toEqual([null, null]);
  const points = JSON.stringify(report?.result);
  for (const path of ["/home/etc", "/etc"]) expect(points).toContain(`"mountPoint":"${path}"`);
});

test("a root that is a file, or a directory's path through a file, is an error that names it", () => {
  for (const path of ["rootfs/etc/passwd", "rootfs/etc/passwd/below"]) {
    const bundle = makeBundle((spec) => {
      spec.root.path = path;
    });
    expect(run(bundle), path).toMatchObject({ status: 1, stderr: expect.stringContaining("/root/path") });
  }
});
