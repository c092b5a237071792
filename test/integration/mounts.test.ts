import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import type { Mount } from "../../src/spec/spec.ts";
import { covers } from "../conformance/covers.ts";
import {
  cleanUp,
  cleanUpFile,
  makeBundle,
  probe,
  results,
  rewrite,
  run,
  scratchDirectory,
  seenIn,
  type WholeSpec,
} from "../support/bundle.ts";
import { besideMounts } from "../support/propagation.ts";
import type { Seen, SeenMount } from "../support/seen.ts";

// OCI runtime-spec, config.md "Mounts".

afterEach(cleanUp);
afterAll(cleanUpFile);

function mountAt({ mounts }: Seen, path: string): SeenMount {
  const found = mounts.filter(({ mountPoint }) => mountPoint === path).at(-1);
  if (found === undefined) throw new Error(`nothing is mounted on ${path}`);
  return found;
}

function optionsAt(seen: Seen, path: string): string[] {
  return mountAt(seen, path).options.split(",");
}

/** Options of the file system; a kernel with CONFIG_TMPFS_INODE64 adds one to every tmpfs. */
function ownOptions({ superOptions }: SeenMount): string[] {
  return superOptions.split(",").filter((option) => option !== "inode64");
}

/** A directory of the host with a file in it, and a mount below. */
function hostDirectory(): string {
  const path = mkdtempSync(join(scratchDirectory(), "bound-"));
  writeFileSync(join(path, "file"), "from the host\n");
  mkdirSync(join(path, "below"));
  return path;
}

test("the mount table has exactly the mounts of the spec, the root, and what is masked or protected", () => {
  const seen = probe(() => undefined);
  const cgroups = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => / - cgroup2? /.test(line))
    .map((line) => line.split(" ")[4] ?? "");
  const there = (path: string) => seen.mounts.some(({ mountPoint }) => mountPoint === path);
  const masked = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
  ];
  const expected = [
    ...["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/proc/sys", "/proc/irq"],
    // of version 1 in a directory, of version 2 itself there
    ...new Set(["/sys/fs/cgroup", ...cgroups]),
    // what this kernel has of them
    ...[...masked, "/proc/bus", "/proc/fs", "/proc/sysrq-trigger"].filter(there),
  ];
  expect(seen.mounts.map(({ mountPoint }) => mountPoint).sort()).toEqual(expected.sort());
  for (const { mountPoint, optionalFields } of seen.mounts) expect(optionalFields, mountPoint).toEqual([]);
  const options = (path: string) => new Set(optionsAt(seen, path));
  expect(options("/dev")).toEqual(new Set(["rw", "nosuid"])); // strictatime is written as no atime option at all
  expect(options("/dev/pts")).toEqual(new Set(["rw", "nosuid", "noexec", "relatime"]));
  expect(options("/dev/shm")).toEqual(new Set(["rw", "nosuid", "nodev", "noexec", "relatime"]));
  expect(options("/sys")).toEqual(new Set(["ro", "nosuid", "nodev", "noexec", "relatime"]));
  expect(options("/proc/sys")).toContain("ro");
  expect(ownOptions(mountAt(seen, "/dev"))).toEqual(["rw", "size=65536k", "mode=755"]);
  expect(mountAt(seen, "/dev/pts").superOptions).toBe("rw,gid=5,mode=620,ptmxmode=666");
});

test("attributes have their effect: ro, nosuid, nodev, noexec, and their opposites", () => {
  covers("mounts.options ro", "mounts.options nosymfollow", "mounts.options data", "mounts.type");
  const seen = probe(
    (spec) => {
      spec.mounts.push(
        { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["ro"] },
        {
          destination: "/home",
          type: "tmpfs",
          source: "tmpfs",
          options: ["nosuid", "nodev", "noexec", "noatime", "nosymfollow", "nodiratime"],
        },
        {
          destination: "/root",
          type: "tmpfs",
          source: "named",
          options: ["ro", "rw", "noexec", "exec", "size=64k", "mode=0711", "nr_inodes=10", "uid=5", "gid=6"],
        },
      );
      const every = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"];
      spec.process.capabilities = { bounding: every, permitted: every, effective: every };
      spec.linux.resources = { devices: [{ allow: true, access: "rwm" }] };
    },
    [
      ...["--write", "/tmp/file", "x"],
      ...["--mknod", "/home/null", "c", "1", "3", "--open-device", "/home/null"],
      ...["--write", "/root/file", "x", "--stat", "/root", "--write", "/root/large", "x".repeat(80000)],
    ],
  );
  expect(seen.actions[0]?.error).toBe("EROFS");
  expect([seen.actions[1]?.error, seen.actions[2]?.error]).toEqual([null, "EACCES"]);
  expect(seen.actions[3]?.error).toBeNull();
  expect(seen.actions[4]?.result).toMatchObject({ mode: "0711", uid: 5, gid: 6 });
  expect(seen.actions[5]?.error === "ENOSPC" || Number(seen.actions[5]?.result) < 80000).toBe(true);
  expect(new Set(optionsAt(seen, "/home"))).toEqual(
    new Set(["rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"]),
  );
  expect(new Set(optionsAt(seen, "/root"))).toEqual(new Set(["rw", "relatime"]));
  expect(mountAt(seen, "/root")).toMatchObject({ source: "named", type: "tmpfs" });
  expect(mountAt(seen, "/root").superOptions).toContain("size=64k");
});

test("noexec keeps a program from being executed", () => {
  const bundle = makeBundle((spec) => {
    spec.mounts.push({ destination: "/home", type: "bind", source: "rootfs/bin", options: ["bind", "noexec"] });
    spec.process.args = ["/home/probe"];
  });
  const { status, stderr } = run(bundle);
  expect(status).toBe(1);
  expect(stderr).toContain("permission denied");
});

describe("bind mounts", () => {
  test("a file and a directory are bound, their targets made, and relative sources count from the bundle", () => {
    covers("mounts.destination", "mounts.source", "mounts.options bind");
    const source = hostDirectory();
    const bundle = makeBundle((spec) => {
      spec.root.readonly = false;
      spec.mounts.push(
        { destination: "/made/for/directory", type: "bind", source, options: ["rbind"] },
        { destination: "/made/for/file", type: "bind", source: join(source, "file"), options: ["bind", "ro"] },
        { destination: "/etc/hosts", source: "relative/hosts", options: ["bind"] },
        { destination: "relative/target", type: "tmpfs", source: "tmpfs" },
      );
      spec.process.args = [
        "/bin/probe",
        ...["--read", "/made/for/directory/file", "--write", "/made/for/directory/new", "written inside"],
        ...["--write", "/made/for/file", "x", "--stat", "/relative/target"],
      ];
    });
    mkdirSync(join(bundle.path, "relative"));
    writeFileSync(join(bundle.path, "relative/hosts"), "127.0.0.9 relative\n");
    const { stderr, ...outcome } = run(bundle);
    expect(stderr).toMatch(/level=warning msg=.*\/mounts\/10\/destination is relative/);
    const seen = seenIn({ ...outcome, stderr: "" });
    expect(seen.actions.map(({ error }) => error)).toEqual([null, null, "EROFS", null]);
    expect(seen.actions[0]?.result).toBe("from the host\n");
    expect(seen.files["/etc/hosts"]).toBe("127.0.0.9 relative\n");
    expect(readFileSync(join(source, "new"), "utf8")).toBe("written inside");
    expect(mountAt(seen, "/relative/target").type).toBe("tmpfs");
  });

  describe.each(["ours", "runc"])("a source beneath an earlier mount shows what that has there (%s)", (whose) => {
    /** What the container finds on /seen, which comes from there in its root. */
    const found = (source: string, options: string[], ...before: Mount[]) => {
      const bundle = makeBundle(() => undefined, { root: "shell" });
      mkdirSync(join(bundle.rootfs, "a/deep"), { recursive: true });
      writeFileSync(join(bundle.rootfs, "a/file"), "covered\n");
      writeFileSync(join(bundle.rootfs, "a/deep/file"), "covered deeply\n");
      rewrite(bundle, (spec) => {
        spec.ociVersion = "1.0.2";
        spec.process.args = ["/bin/sh", "-c", "cd /seen && find . -type f | sort | xargs cat"];
        spec.mounts.push(...before, {
          destination: "/seen",
          type: "bind",
          source: join(bundle.rootfs, source),
          options,
        });
      });
      const { stdout, stderr } = run(bundle, whose === "runc" ? { program: "runc" } : {});
      expect(stderr).toBe("");
      return stdout;
    };
    const volume = (destination: string): Mount => ({
      destination,
      type: "bind",
      source: hostDirectory(),
      options: ["bind"],
    });

    test.each<[string, string[], string]>([
      ["a", ["bind"], "from the host\n"],
      ["a/../a/", ["bind", "ro"], "from the host\n"],
    ])("at %s, %j", (source, options, text) => expect(found(source, options, volume("/a"))).toBe(text));

    test("with rbind also what is mounted below", () => {
      expect(found("a", ["rbind"], volume("/a/deep"))).toBe("from the host\ncovered\n");
      expect(found("a", ["bind"], volume("/a/deep"))).toBe("covered deeply\ncovered\n");
    });

    test("nothing, where that is empty", () => {
      expect(found("a", ["bind"], { destination: "/a", type: "tmpfs", source: "tmpfs" })).toBe("");
    });

    test("but not beneath a later one, nor one beside it", () => {
      expect(found("a", ["bind"], volume("/ab"))).toBe("covered deeply\ncovered\n");
    });
  });

  test("a source beneath an earlier mount has its attributes, and its links lead nowhere out of the root", () => {
    const source = hostDirectory();
    symlinkSync("/etc", join(source, "link"));
    const bundle = makeBundle();
    mkdirSync(join(bundle.rootfs, "mnt"));
    rewrite(bundle, (spec) => {
      spec.process.args = [
        "/bin/probe",
        "--read",
        "/mnt/hostname",
        "--read",
        "/mnt/passwd",
        "--write",
        "/mnt/new",
        "x",
      ];
      const options = ["bind", "ro", "nosuid"];
      spec.mounts.push(
        { destination: "/tmp", type: "bind", source, options: ["bind"] },
        { destination: "/mnt", type: "bind", source: join(bundle.rootfs, "tmp/link"), options },
      );
    });
    const seen = seenIn(run(bundle));
    // the root's own, which has no hostname
    expect(seen.actions.map(({ error }) => error)).toEqual(["ENOENT", null, "EROFS"]);
    expect(seen.actions[1]?.result).toBe(readFileSync(join(bundle.rootfs, "etc/passwd"), "utf8"));
    expect(mountAt(seen, "/mnt").options).toMatch(/^ro,nosuid/);
  });

  test("a missing source is an error that points at the mount and leaves nothing behind", () => {
    const bundle = makeBundle((spec) => {
      spec.mounts.push({ destination: "/tmp", type: "bind", source: "/no/such/source", options: ["bind"] });
    });
    const { status, stderr } = run(bundle);
    expect(status).toBe(1);
    expect(stderr).toMatch(/\/mounts\/7/);
    expect(stderr).toContain("source must exist on the host");
  });

  test("a file is not bound to a directory, nor a directory to a file", () => {
    const source = hostDirectory();
    for (const [destination, from] of [
      ["/tmp", join(source, "file")],
      ["/etc/passwd", source],
    ]) {
      const bundle = makeBundle((spec) => {
        spec.mounts.push({ destination: destination ?? "", type: "bind", source: from ?? "", options: ["bind"] });
      });
      expect(run(bundle).status, destination).toBe(1);
    }
  });

  test("bind takes one mount, rbind those below; recursive attributes reach those, too", () => {
    covers("mounts.options bind", "mounts.options recursive");
    const source = hostDirectory();
    // the mount below lives in a namespace of its own, with the runtime
    const through = [
      "unshare",
      "--mount",
      "sh",
      "-c",
      `mount -t tmpfs below ${source}/below && mkdir ${source}/below/mounted && "$@"`,
      "sh",
    ];
    const seen = probe(
      (spec) => {
        spec.root.readonly = false;
        const bind = (destination: string, ...options: string[]) =>
          spec.mounts.push({ destination, type: "bind", source, options });
        bind("/single", "bind");
        bind("/whole", "rbind");
        bind("/shallow", "rbind", "ro");
        bind("/deep", "rbind", "rro", "rnosuid", "rnodev", "rnoexec");
      },
      ["/single/below/mounted", "/whole/below/mounted", "/shallow/below/mounted", "/deep/below/mounted"]
        .flatMap((path) => ["--stat", path])
        .concat([
          "--write",
          "/whole/below/x",
          "1",
          "--write",
          "/shallow/x",
          "1",
          "--write",
          "/shallow/below/x",
          "1",
          "--write",
          "/deep/x",
          "1",
          "--write",
          "/deep/below/x",
          "1",
        ]),
      { through },
    );
    expect(seen.actions.map(({ error }) => error)).toEqual([
      "ENOENT",
      null,
      null,
      null,
      null,
      "EROFS",
      null,
      "EROFS",
      "EROFS",
    ]);
    for (const path of ["/deep", "/deep/below"])
      expect(optionsAt(seen, path), path).toEqual(expect.arrayContaining(["ro", "nosuid", "nodev", "noexec"]));
  });

  test("attributes of the source that are not named stay", () => {
    const source = hostDirectory();
    const through = [
      "unshare",
      "--mount",
      "sh",
      "-c",
      `mount -t tmpfs -o nosuid,nodev,noatime below ${source}/below && "$@"`,
      "sh",
    ];
    const seen = probe(
      (spec) => {
        spec.mounts.push({ destination: "/tmp", type: "bind", source: join(source, "below"), options: ["bind", "ro"] });
        spec.mounts.push({
          destination: "/home",
          type: "bind",
          source: join(source, "below"),
          options: ["bind", "dev", "relatime"],
        });
      },
      [],
      { through },
    );
    expect(new Set(optionsAt(seen, "/tmp"))).toEqual(new Set(["ro", "nosuid", "nodev", "noatime"]));
    expect(new Set(optionsAt(seen, "/home"))).toEqual(new Set(["rw", "nosuid", "relatime"]));
  });

  test("a link in the root that leads to a directory of the root is followed there", () => {
    const bundle = makeBundle((spec) => {
      spec.mounts.push({ destination: "/link", type: "tmpfs", source: "by-link" });
    });
    symlinkSync("/home/../home/app", join(bundle.rootfs, "link"));
    expect(mountAt(seenIn(run(bundle)), "/home/app").source).toBe("by-link");
  });
});

describe("crun's options for links", () => {
  test("copy-symlink makes the link that the source is; one that says something else is in the way", () => {
    covers("mounts.options nofollow");
    const source = hostDirectory();
    symlinkSync("/etc/passwd", join(source, "link"));
    const linked = (destination: string, from = "link") => ({
      destination,
      type: "bind",
      source: join(source, from),
      options: ["bind", "copy-symlink"],
    });
    const bundle = makeBundle((spec) => {
      spec.root.readonly = false;
      // the second time the link is there already; what is no link is mounted
      spec.mounts.push(linked("/made/link"), linked("/made/link"), linked("/made/file", "file"));
      spec.process.args = ["/bin/probe", "--stat", "/made/link", "--read", "/made/file"];
    });
    const seen = seenIn(run(bundle));
    expect(seen.actions[0]?.result).toMatchObject({ type: "symlink", target: "/etc/passwd" });
    expect(seen.actions[1]?.result).toBe("from the host\n");
    expect(seen.mounts.filter(({ mountPoint }) => mountPoint === "/made/link")).toEqual([]);
    for (const taken of ["other", "/bin/probe"]) {
      const other = makeBundle((spec) => {
        spec.root.readonly = false;
        spec.mounts.push(linked(taken === "other" ? "/other" : taken));
      });
      if (taken === "other") symlinkSync("/elsewhere", join(other.rootfs, "other"));
      expect(run(other), taken).toMatchObject({ status: 1, stderr: expect.stringContaining("/mounts/7") });
    }
  });

  test("src-nofollow mounts the link itself, dest-nofollow covers the link itself", () => {
    covers("mounts.options nofollow");
    const source = hostDirectory();
    symlinkSync("/etc/passwd", join(source, "link"));
    const bundle = makeBundle((spec) => {
      spec.root.readonly = false;
      const bind = (from: string, destination: string, ...options: string[]) =>
        spec.mounts.push({ destination, type: "bind", source: join(source, from), options: ["bind", ...options] });
      bind("link", "/link", "src-nofollow");
      bind("file", "/covered", "dest-nofollow");
      bind("file", "/followed");
      spec.process.args = ["/bin/probe", "--stat", "/link", "--stat", "/covered", "--stat", "/followed"];
    });
    for (const name of ["covered", "followed"]) symlinkSync("/etc/hostname", join(bundle.rootfs, name));
    const seen = seenIn(run(bundle));
    expect(seen.actions[0]?.result).toMatchObject({ type: "symlink", target: "/etc/passwd" });
    expect(seen.actions[1]?.result).toMatchObject({ type: "file", sizeBytes: 14 });
    expect(seen.actions[2]?.result).toMatchObject({ type: "symlink" });
    expect(mountAt(seen, "/covered").root).toContain("/file");
    expect(mountAt(seen, "/etc/hostname").root).toContain("/file");
  });
});

test("every access time is as asked for, on what is made and what is bound, alone and with what is below", () => {
  covers("mounts.options atime", "mounts.options recursive atime");
  const source = hostDirectory();
  // what mountinfo says of each; relatime is where the kernel lands
  const expected = {
    noatime: ["noatime"],
    atime: ["relatime"],
    relatime: ["relatime"],
    norelatime: ["relatime"],
    strictatime: [],
    nostrictatime: ["relatime"],
    nodiratime: ["relatime", "nodiratime"],
    diratime: ["relatime"],
  };
  const seen = probe((spec) => {
    spec.root.readonly = false;
    for (const option of Object.keys(expected)) {
      spec.mounts.push({ destination: `/new/${option}`, type: "tmpfs", source: "tmpfs", options: [option] });
      for (const word of [option, `r${option}`])
        spec.mounts.push({ destination: `/bound/${word}`, type: "bind", source, options: ["rbind", word] });
    }
  });
  for (const [option, words] of Object.entries(expected))
    for (const path of [`/new/${option}`, `/bound/${option}`, `/bound/r${option}`])
      expect(
        optionsAt(seen, path)
          .filter((word) => word.includes("atime"))
          .sort(),
        path,
      ).toEqual([...words].sort());
});

test("options of the file system reach it, or are known to have no effect", () => {
  covers("mounts.options super");
  const both = ["sync", "dirsync", "lazytime", "mand"];
  const without = ["async", "nolazytime", "nomand", "silent", "loud", "iversion", "noiversion", "defaults"];
  const seen = probe((spec) => {
    spec.root.readonly = false;
    spec.mounts.push(
      { destination: "/with", type: "tmpfs", source: "tmpfs", options: both },
      { destination: "/without", type: "tmpfs", source: "tmpfs", options: without },
    );
  });
  const at = (path: string) => ownOptions(mountAt(seen, path));
  expect(at("/with")).toEqual(expect.arrayContaining(["sync", "dirsync", "lazytime"]));
  expect(at("/without")).toEqual(["rw"]);
});

test("remount changes what is named and leaves the rest: of a mount, of all below, of the file system", () => {
  covers("mounts.options remount");
  const source = hostDirectory();
  const seen = probe(
    (spec) => {
      spec.mounts.push(
        { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "size=64k"] },
        { destination: "/tmp/inner", type: "bind", source, options: ["rbind"] },
        { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["remount", "noexec", "size=128k"] },
        { destination: "/tmp/inner", options: ["remount", "bind", "ro", "private"] },
        { destination: "/", options: ["remount", "bind", "rnodev"] },
      );
    },
    ["--write", "/tmp/inner/file", "x", "--write", "/tmp/file", "x"],
  );
  expect(results(seen.actions)).toEqual(["EROFS", 1]);
  expect(new Set(optionsAt(seen, "/tmp"))).toEqual(new Set(["rw", "nosuid", "nodev", "noexec", "relatime"]));
  expect(mountAt(seen, "/tmp").superOptions).toContain("size=128k");
  expect(optionsAt(seen, "/tmp/inner")).toEqual(expect.arrayContaining(["ro", "nodev"]));
  expect(optionsAt(seen, "/")).toContain("nodev");
  const nothing = makeBundle((spec) => void spec.mounts.push({ destination: "/none", options: ["remount", "ro"] }));
  expect(run(nothing)).toMatchObject({ status: 1, stderr: expect.stringContaining("/mounts/7") });
});

describe("proc is the kernel's", () => {
  test("only the files that emulators provide are covered, as with runc", () => {
    const file = join(hostDirectory(), "file");
    const seen = probe(
      (spec) => {
        for (const name of ["cpuinfo", "uptime", "sys/kernel/ns_last_pid"])
          spec.mounts.push({ destination: `/proc/${name}`, type: "bind", source: file, options: ["bind"] });
      },
      ["--read", "/proc/cpuinfo", "--read", "/proc/uptime"],
    );
    expect(results(seen.actions)).toEqual(["from the host\n", "from the host\n"]);
    for (const destination of ["/proc/self/attr", "/proc/../proc//sys/", "/proc/kcore", "proc/1"]) {
      const bundle = makeBundle(
        (spec) => void spec.mounts.push({ destination, type: "tmpfs", source: "tmpfs", options: ["ro"] }),
      );
      const { status, stderr } = run(bundle);
      expect(status, destination).toBe(1);
      expect(stderr, destination).toContain("cannot be mounted because it is inside /proc");
    }
  });

  test("neither is it reached through a link, nor replaced by something that is no proc (CVE-2019-16884)", () => {
    const linked = makeBundle((spec) => {
      spec.mounts.push({ destination: "/volume/kernel", type: "tmpfs", source: "tmpfs" });
    });
    symlinkSync("/proc/sys", join(linked.rootfs, "volume"));
    expect(run(linked)).toMatchObject({ status: 1, stderr: expect.stringContaining("leads into proc") });
    for (const mount of [
      { type: "bind", source: hostDirectory(), options: ["rbind"] },
      { type: "tmpfs", source: "tmpfs" },
    ]) {
      const bundle = makeBundle((spec) => void spec.mounts.push({ destination: "/proc", ...mount }));
      expect(run(bundle), mount.type).toMatchObject({ status: 1, stderr: expect.stringContaining("/mounts/7") });
    }
    // the host's own may stand there, where the container shares its processes
    const seen = probe((spec) => {
      spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "pid") ?? [];
      spec.mounts[0] = { destination: "/proc", type: "bind", source: "/proc", options: ["rbind"] };
    });
    expect(mountAt(seen, "/proc").type).toBe("proc");
  });
});

describe("in a user namespace", () => {
  const ids = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
  const inUserNamespace = (spec: WholeSpec) => {
    spec.linux.namespaces?.push({ type: "user" });
    Object.assign(spec.linux, { uidMappings: ids, gidMappings: ids });
  };

  test("what is made belongs to its root, and cannot be used to make devices", () => {
    const seen = probe(
      inUserNamespace,
      ["/dev", "/dev/mqueue", "/dev/shm", "/dev/pts"].flatMap((path) => ["--stat", path]),
    );
    for (const { result } of seen.actions) expect(result).toMatchObject({ uid: 0, gid: 0 });
    expect(mountAt(seen, "/dev/mqueue").type).toBe("mqueue");
  });

  test("with the host's network, sysfs is the host's, bound read-only with all below", () => {
    const seen = probe(
      (spec) => {
        inUserNamespace(spec);
        spec.linux.namespaces = spec.linux.namespaces?.filter(({ type }) => type !== "network") ?? [];
        spec.mounts = spec.mounts.filter(({ type }) => type !== "cgroup");
      },
      ["--write", "/sys/kernel/mm/ksm/run", "0"],
    );
    expect(seen.mounts.find(({ mountPoint }) => mountPoint === "/sys")).toMatchObject({ type: "sysfs" });
    const below = seen.mounts.filter(({ mountPoint }) => /^\/sys(\/|$)/.test(mountPoint));
    expect(below.length).toBeGreaterThan(2);
    for (const { mountPoint, options } of below) expect(options.split(","), mountPoint).toContain("ro");
    expect(results(seen.actions)[0]).toBeOneOf(["EROFS", "ENOENT"]);
  });
});

test("a bind mount shares nothing with the host unless that is asked for", () => {
  const source = hostDirectory();
  const every = ["CAP_SYS_ADMIN"];
  const bundle = (rootfsPropagation?: "shared", ...options: string[]) =>
    makeBundle((spec) => {
      spec.mounts.push({ destination: "/tmp", type: "bind", source, options: ["rbind", ...options] });
      spec.process.capabilities = { bounding: every, permitted: every, effective: every };
      if (rootfsPropagation !== undefined) spec.linux.rootfsPropagation = rootfsPropagation;
      spec.process.args = ["/bin/probe", "--mount", "from-inside", "/tmp/below", "tmpfs"];
    });
  const script = `mount --bind ${source} ${source} && mount --make-shared ${source} && "$@" && grep -c from-inside /proc/self/mountinfo >&2; true`;
  const through = ["unshare", "--mount", "sh", "-c", script, "sh"];
  expect(run(bundle(), { through }).stderr).toBe("0\n");
  expect(run(bundle(undefined, "rshared"), { through }).stderr).toBe("0\n");
  expect(run(bundle("shared", "rshared"), { through }).stderr).toBe("1\n");
});

test("propagation is as asked for, for each mount", () => {
  covers("mounts.options propagation");
  const seen = probe((spec) => {
    const source = hostDirectory();
    spec.root.readonly = false;
    for (const kind of ["private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave"])
      spec.mounts.push({ destination: `/${kind}`, type: "bind", source, options: ["rbind", kind] });
  });
  const fields = (path: string) => mountAt(seen, path).optionalFields.map((field) => field.split(":")[0]);
  expect(fields("/private")).toEqual([]);
  expect(fields("/rprivate")).toEqual([]);
  expect(fields("/shared")).toEqual(["shared"]);
  expect(fields("/rshared")).toEqual(["shared"]);
  expect(fields("/unbindable")).toEqual(["unbindable"]);
});

test("a mount bound rslave receives what the host mounts later, and passes nothing back", () => {
  covers("mounts.options propagation");
  const source = hostDirectory();
  const inside = makeBundle((spec) => {
    spec.mounts.push({ destination: "/tmp", type: "bind", source, options: ["rbind", "rslave"] });
    spec.process.capabilities = {
      bounding: ["CAP_SYS_ADMIN"],
      permitted: ["CAP_SYS_ADMIN"],
      effective: ["CAP_SYS_ADMIN"],
    };
    spec.process.args = ["/bin/probe", "--gate", "/gate", "--report", "--mount", "from-inside", "/tmp/below", "tmpfs"];
  });
  const { status, stdout, stderr } = run(inside, { through: besideMounts(inside, source, "below") });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "0\n" });
  const seen = seenIn({ status, stdout, stderr: "" });
  const later = seen.actions[1]?.result;
  expect(JSON.stringify(later)).toContain("from-outside");
  expect(seen.actions[2]?.error).toBeNull();
});

test("mounts are made in their order: a later one covers an earlier one", () => {
  covers("mounts order");
  const seen = probe(
    (spec) => {
      spec.mounts.push(
        { destination: "/tmp", type: "tmpfs", source: "first" },
        { destination: "/tmp/inner", type: "tmpfs", source: "inner" },
        { destination: "/tmp", type: "tmpfs", source: "second" },
      );
    },
    ["--stat", "/tmp/inner"],
  );
  expect(results(seen.actions)).toEqual(["ENOENT"]);
  expect(mountAt(seen, "/tmp").source).toBe("second");
});

test("an unknown type or option is an error that points at the mount", () => {
  covers("mounts.type", "mounts.options data");
  for (const mount of [
    { destination: "/tmp", type: "nosuchfs", source: "x" },
    { destination: "/tmp", type: "tmpfs", source: "x", options: ["nosuchoption=1"] },
  ]) {
    const { status, stderr } = run(makeBundle((spec) => void spec.mounts.push(mount)));
    expect(status).toBe(1);
    expect(stderr).toContain("/mounts/7");
  }
});

test.each(["file", "directory"] as const)(
  "links that lead nowhere yet are followed inside the root, for a %s",
  (kind) => {
    const bundle = makeBundle((spec) => {
      const source = kind === "file" ? "config.json" : ".";
      spec.mounts.push({ destination: "/etc/hosts", type: "bind", source, options: ["bind"] });
      spec.process.args = ["/bin/probe", "--stat", "/srv/there/deep/hosts"];
    });
    // as /etc/resolv.conf leads into /run, which is empty
    mkdirSync(join(bundle.rootfs, "srv"), { recursive: true });
    rmSync(join(bundle.rootfs, "etc/hosts"), { force: true });
    symlinkSync("../jump/deep/hosts", join(bundle.rootfs, "etc/hosts"));
    symlinkSync("/srv/../../../srv/there/", join(bundle.rootfs, "jump"));
    const seen = seenIn(run(bundle));
    expect(seen.mounts.map(({ mountPoint }) => mountPoint)).toContain("/srv/there/deep/hosts");
    expect(JSON.stringify(results(seen.actions)[0])).toContain(kind === "file" ? "file" : "directory");
    expect(existsSync("/srv/there")).toBe(false);
  },
);

test("links that lead to each other are an error", () => {
  const bundle = makeBundle((spec) => {
    spec.mounts.push({ destination: "/one/x", type: "bind", source: ".", options: ["bind"] });
  });
  symlinkSync("two", join(bundle.rootfs, "one"));
  symlinkSync("one", join(bundle.rootfs, "two"));
  expect(run(bundle)).toMatchObject({ status: 1, stderr: expect.stringContaining("ELOOP at /mounts/") });
});
