/** One change of a source; `from` is there exactly once. */
export interface Change {
  file: string;
  from: string;
  to: string;
}

/** A test: its file beneath test/, and its title as it stands there, or enough of it. */
export interface Shown {
  file: string;
  title: string;
}

/** What the titles of a test match when it runs. */
export function titlesOf({ title }: Shown): string {
  return title.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("%s", ".+");
}

/** A test that fails, and where: that the attack succeeds, and not that something else is broken. */
export interface Failure extends Shown {
  /** Part of the line. */
  at: string;
}

/** A build from which a defence was taken, and the tests that must fail there. */
export interface Weakening {
  /** What was done to the sources, in words. */
  by: string;
  changes: Change[];
  fails: Failure[];
}

/** A flaw that runtimes have had, and what shows that this one does not. */
export interface Flaw {
  flaw: string;
  /** Beside those that fail in a weakened build. */
  tests?: Shown[];
  weakened?: Weakening[];
  /** Why no build can be weakened. */
  reason?: string;
}

/** Words that stand in the title of a test in `<file>.test.ts`; `at`: a part of the line where it fails. */
function test(file: string, title: string): Shown;
function test(file: string, title: string, at: string): Failure;
function test(file: string, title: string, at?: string): Shown {
  return { file: `${file}.test.ts`, title, ...(at === undefined ? {} : { at }) };
}

function change(file: string, from: string, to: string): Change {
  return { file, from, to };
}

const inInit = (name: string, from: string, to: string) => change(`native/init/${name}.c`, from, to);

const RESOLVED_IN_ROOT = `	    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	return sys(run, __NR_openat2, root, path, &how, sizeof how);`;
const RESOLVED_ANYWHERE = `	};
	const char *beneath = path[0] == '/' ? path + 1 : path;
	return sys(run, __NR_openat2, root, *beneath == 0 ? "." : beneath, &how, sizeof how);`;
const RESOLVED_BY_NAME = `	    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	const char *beneath = path[0] == '/' ? path + 1 : path;
	long opened = sys(run, __NR_openat2, root, path, &how, sizeof how);
	return opened == -ENOSYS ? sys(run, __NR_openat, root, *beneath == 0 ? "." : beneath, how.flags) : opened;`;
const HOST_ROOT_LEAKED = `	/* nobody may trace init and take its descriptors (CVE-2016-9962) */
	sys(NULL, __NR_openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY);`;

const CANARY = "expect(digestOf(canary)).toBe(before)";

export const FLAWS: Flaw[] = [
  {
    flaw: "CVE-2016-9962, CVE-2019-5736: a process that joins is looked into, or its executable written to",
    tests: [test("integration/rootfs", "gives nobody a program of ours to run")],
    weakened: [
      {
        by: "init stays dumpable, and is so again before it executes the program: the kernel itself forbids it after a change of credentials",
        changes: [
          inInit("main", "	sys(NULL, __NR_prctl, PR_SET_DUMPABLE, 0);\n", ""),
          inInit(
            "step_process",
            "	return sys(run, __NR_execve,",
            "	sys(run, __NR_prctl, PR_SET_DUMPABLE, 1);\n	return sys(run, __NR_execve,",
          ),
        ],
        fails: [
          test(
            "faults/attacks",
            "a container cannot take anything from a process that is joining it",
            'toEqual(["seen"])',
          ),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2021-30465, CVE-2024-45310, CVE-2026-41579, CVE-2025-52565: names in the root are links, or become links between look-ups",
    tests: [
      test("faults/attacks", "a console that is a link does not lead out of the root"),
      test("integration/rootfs", "masked and read-only paths through links"),
      test("faults/input", "links in place of /proc, /dev, /sys and the files that we write lead nowhere outside"),
    ],
    weakened: [
      {
        by: "look-ups begin at the root, but are not kept in it",
        changes: [inInit("path", RESOLVED_IN_ROOT, RESOLVED_ANYWHERE)],
        fails: [
          test("faults/attacks", "names that change between a directory and a link out of the root", CANARY),
          test(
            "integration/rootfs",
            "stays inside the root, and the canary as it was",
            "expect(stdout).toContain(source)",
          ),
          test("integration/rootfs", "a working directory through a link is not made on the host", CANARY),
          test("integration/rootfs", "/dev as a link: no device is made on the host", "expect("),
        ],
      },
      {
        by: "a kernel without openat2 looks names up as it can",
        changes: [inInit("path", RESOLVED_IN_ROOT, RESOLVED_BY_NAME)],
        fails: [test("faults/attacks", "a kernel without %s gets an error, not a weaker defence", "expect(")],
      },
    ],
  },
  {
    flaw: "CVE-2019-18837, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc or /sys is a link",
    tests: [test("integration/rootfs", "is not mounted through a link (CVE-2019-19921)")],
    weakened: [
      {
        by: "what proc and sysfs are mounted on may be a link",
        changes: [
          inInit(
            "step_mount",
            "	long target = sys(run, __NR_openat, parent, last, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);",
            "	long target = sys(run, __NR_openat, parent, last, O_PATH | O_CLOEXEC);",
          ),
        ],
        fails: [
          test(
            "faults/attacks",
            "is not mounted through a link, even one to a directory of the root",
            "expect(status).toBe(1)",
          ),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2019-16884: a mount hides proc from those who rely on it",
    weakened: [
      {
        by: "anything may be mounted on proc",
        changes: [
          inInit("step_mount", "covered.f_type == PROC_SUPER_MAGIC ? -EACCES : 0", "covered.f_type == 0 ? -EACCES : 0"),
        ],
        fails: [test("integration/mounts", "neither is it reached through a link", "leads into proc")],
      },
      {
        by: "anything may stand for proc",
        changes: [
          inInit("step_mount", "source.f_type == PROC_SUPER_MAGIC ? 0 : -EINVAL", "source.f_type != 0 ? 0 : -EINVAL"),
        ],
        fails: [test("integration/mounts", "neither is it reached through a link", "mount.type).toMatchObject")],
      },
    ],
  },
  {
    flaw: "CVE-2019-16884, CVE-2025-52881: what is written to proc goes elsewhere",
    weakened: [
      {
        by: "kernel parameters are written through the container's /proc",
        changes: [
          change("src/plan/compile.ts", "    ...setSysctls(spec),\n", ""),
          change(
            "src/plan/compile.ts",
            "    ...nameMachine(spec),\n",
            "    ...setSysctls(spec),\n    ...nameMachine(spec),\n",
          ),
          inInit(
            "step_mount",
            '	long proc = make_filesystem(run, "proc", "proc", arg[0].number != 0 ? ALL : PROCESSES, 0);',
            '	long proc = sys(run, __NR_openat, AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);\n	(void)ALL, (void)PROCESSES;',
          ),
        ],
        fails: [
          test(
            "faults/attacks",
            "what is written to proc reaches the real one",
            'expect(readFileSync(fake, "utf8")).toBe',
          ),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2025-31133: the container's /dev/null covers masked files",
    weakened: [
      {
        by: "what covers a file is /dev/null of the root",
        changes: [
          inInit(
            "step_path",
            `		mask = sys(run, __NR_open_tree, run->slots[arg[2].slot], "",
			   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);`,
            `		mask = sys(run, __NR_open_tree, run->slots[arg[0].slot], "dev/null",
			   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);`,
          ),
        ],
        fails: [test("faults/attacks", "what covers a masked file is the host's null device", "expect(")],
      },
    ],
  },
  {
    flaw: "CVE-2021-43784: a namespace's path is longer than its field",
    weakened: [
      {
        by: "a path may have any length",
        changes: [
          change(
            "src/spec/parse.ts",
            "  if (value.length >= PATH_MAX_BYTES)",
            "  if (value.length >= PATH_MAX_BYTES * 1000)",
          ),
        ],
        fails: [
          test("faults/attacks", "a path of a namespace that is too long for its field", "must be shorter than 4096"),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2022-29162, CVE-2022-27650, CVE-2022-24769: inheritable capabilities",
    tests: [test("integration/process", "root has those of the bounding set, and none inheritable")],
    weakened: [
      {
        by: "exec --cap adds to the inheritable set, too",
        changes: [
          change(
            "src/cli/runtime/exec.ts",
            "            bounding: withCaps(capabilities.bounding),\n",
            "            bounding: withCaps(capabilities.bounding),\n            inheritable: withCaps(capabilities.inheritable),\n",
          ),
        ],
        fails: [
          test(
            "faults/attacks",
            "whoever is not root inside has no inheritable capabilities by exec --cap",
            "expect(seen.capabilities)",
          ),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2021-41091, CVE-2021-41103: the state is everybody's",
    weakened: [
      {
        by: "the state directory can be entered by everybody",
        changes: [
          change("src/container/store.ts", "path, 0o700);", "path, 0o755);"),
          change("src/container/store.ts", "recursive: true, mode: 0o700", "recursive: true, mode: 0o755"),
        ],
        fails: [
          test("faults/attacks", "the state of containers is closed to everybody else", "expect(found.toString())"),
          test("integration/lifecycle", "the state directory and what is in it are its owner's alone", "expect("),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2024-21626: descriptors leak into the container",
    tests: [test("integration/inheritance", "no descriptor of the runtime's own is preserved")],
    weakened: [
      {
        by: "init closes no descriptor at execve",
        changes: [
          inInit(
            "main",
            "	if (own < 3 || sys(NULL, __NR_close_range, own, ~0U, CLOSE_RANGE_CLOEXEC) < 0)",
            "	if (own < 3 || CLOSE_RANGE_CLOEXEC < 0)",
          ),
          inInit(
            "step_process",
            "	return sys(run, __NR_close_range, 3 + arg[0].number, ~0U, CLOSE_RANGE_CLOEXEC);",
            "	(void)run, (void)arg;\n	return 0;",
          ),
        ],
        fails: [test("integration/descriptors", "exactly the standard streams are open", "expect(numbers(seen)")],
      },
    ],
  },
  {
    flaw: "CVE-2024-21626: the working directory is a descriptor of the host's tree",
    tests: [test("integration/process", "a link in the root to a descriptor leads nowhere either")],
    weakened: [
      {
        by: "init has the host's root open, and does not look where its working directory is",
        changes: [
          inInit("main", "	/* nobody may trace init and take its descriptors (CVE-2016-9962) */", HOST_ROOT_LEAKED),
          inInit("step_process", "	return path[0] == '/' ? 0 : -ENOENT;", "	return 0;"),
        ],
        fails: [test("faults/attacks", "no descriptor is a working directory outside of the root: by %s", "expect(")],
      },
    ],
  },
  {
    flaw: "CVE-2024-40635, CVE-2026-30892: a user that is another",
    tests: [test("image/users", "is refused")],
    weakened: [
      {
        by: "an id may be larger than the kernel's",
        changes: [
          change("src/cli/runtime/exec.ts", "  return Number(text) <= 0x7fff_ffff;", "  return Number(text) >= 0;"),
        ],
        fails: [
          test("faults/attacks", "exec --user with what is no id, or too large for one", "toEqual({ user, status: 255"),
        ],
      },
    ],
  },
  {
    flaw: "a device of the root under a default device's name",
    weakened: [
      {
        by: "a device that is there already may be any",
        changes: [inInit("step_path", "	return same ? 0 : -EEXIST;", "	return same ? 0 : 0;")],
        fails: [
          test("faults/attacks", "a device that the root has under a default device's name", "expect(status).toBe(1)"),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2020-15257: an abstract socket in the host's network namespace",
    weakened: [
      {
        by: "start is awaited at an abstract address",
        changes: [
          // biome-ignore-start lint/suspicious/noTemplateCurlyInString: it is source text
          change(
            "src/kernel/socket.ts",
            '  const address = unixAddress(`/proc/self/fd/${directory}/${name}`);\n  call("bind", socket, address, address.length);\n  call("listen"',
            '  const address = unixAddress(`@${directory}/${Math.random()}/${name}`);\n  call("bind", socket, address, address.length);\n  call("listen"',
          ),
          // biome-ignore-end lint/suspicious/noTemplateCurlyInString: it is source text
        ],
        fails: [
          test(
            "faults/attacks",
            "nothing of ours listens where a container in the host's network namespace",
            "start\\.sock",
          ),
        ],
      },
    ],
  },
  {
    flaw: "CVE-2022-1227: a helper is run from the container's root",
    weakened: [
      {
        by: "ps is the container's",
        changes: [
          change(
            "src/cli/runtime/ps.ts",
            'spawnSync("ps", options.length === 0 ? ["-ef"] : options, {',
            'spawnSync("nsenter", ["-m", "-r", "-t", String(pids[0]), "ps", ...options], {',
          ),
        ],
        fails: [test("faults/attacks", "nothing of the root is run to show its processes", "expect(")],
      },
    ],
  },
  {
    flaw: "CVE-2022-31030, CVE-2023-25153: what is read takes all memory",
    tests: [
      test("faults/input", "a config.json that is %s is refused"),
      test("image/users", "a passwd larger than 1 MiB is refused"),
    ],
    weakened: [
      {
        by: "a document may have any length",
        changes: [change("src/spec/bundle.ts", "length <= MAX_SIZE_BYTES; )", "length <= MAX_SIZE_BYTES * 1000; )")],
        fails: [test("faults/attacks", "what is read is bounded", "expect(")],
      },
    ],
  },
  {
    flaw: "CVE-2023-25173: groups of the caller's",
    weakened: [
      {
        by: "supplementary groups stay",
        changes: [change("src/plan/privileges.ts", "    ...(groupsDenied\n", "    ...(groupsDenied || uid >= 0\n")],
        fails: [test("integration/process", "without additionalGids no group of the caller's is left", "expect(")],
      },
    ],
  },
  {
    flaw: "CVE-2023-25809: cgroups of the caller can be written to",
    weakened: [
      {
        by: "cgroups that are not the container's own are mounted as asked",
        changes: [
          change(
            "src/plan/mounts.ts",
            "directory === undefined ? asked | MOUNT_ATTR.RDONLY : asked",
            "directory === undefined ? asked : asked",
          ),
        ],
        fails: [test("integration/rootless", "the caller's cgroups are to be seen, but not to be changed", "expect(")],
      },
    ],
  },
  {
    flaw: "CVE-2023-0778, CVE-2024-9341 and the like: passwd of the root is a link, or never ends",
    tests: [
      test("image/users", "a fifo, a directory or a device in place of passwd"),
      test("faults/input", "/etc/passwd as %s is refused at once"),
    ],
    weakened: [
      {
        by: "who a user is, is read by passwd's path",
        changes: [
          change(
            "src/image/users.ts",
            "tryOpenIn(root, path, O.RDONLY | O.NONBLOCK | O.NOCTTY, RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS), path)",
            "tryOpenIn(root, path, O.RDONLY | O.NONBLOCK | O.NOCTTY, 0), path)",
          ),
        ],
        fails: [test("image/users", "links in the root stay in the root", "expect(")],
      },
      {
        by: "where its home is, is read by passwd's path",
        changes: [
          change(
            "src/container/identity.ts",
            '"etc/passwd", O.RDONLY | O.NONBLOCK, RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS)',
            '"etc/passwd", O.RDONLY | O.NONBLOCK, RESOLVE.IN_ROOT & RESOLVE.NO_MAGICLINKS)',
          ),
        ],
        fails: [test("integration/rootfs", "passwd as a link", 'toContain("HOME=/")')],
      },
    ],
  },
  {
    flaw: "CVE-2021-32760, CVE-2025-47290, node-tar's: extraction leaves the tree",
    tests: [test("faults/archives", "taken as it can be, within the tree"), test("storage/unpack", "hostile layers")],
    reason:
      "an extractor that trusts names is led out of the tree by the same layers in every run of `rootfs-fixtures`",
  },
  {
    flaw: "CVE-2021-41190, CVE-2024-3727: a digest that is another's",
    tests: [
      test("image/store", "a layout with a changed blob is refused"),
      test("faults/archives", "refused in plain words"),
    ],
    reason: "there the archives are made wrong, not the build",
  },
];

/** What has no test, and why. */
export const ABSENT =
  "Not here, as there is no such code: files of our own in the root (CVE-2025-24965), helpers that engines run in images (CVE-2026-41567), plug-ins for authorization, labels of images that mean anything.";
