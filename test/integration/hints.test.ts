import { chownSync, closeSync, mkdirSync, openSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { attempt } from "../../src/execute/execute.ts";
import { enterClass } from "../../src/execute/resctrl.ts";
import { hintedFailures } from "../../src/plan/hints.ts";
import {
  type Bundle,
  cleanUp,
  cleanUpFile,
  type Edit,
  exec,
  idle,
  kill,
  makeBundle,
  type Outcome,
  run,
  scratchDirectory,
  type WholeSpec,
} from "../support/bundle.ts";

/* Every hint is given for a failure that the kernel really answers so. */

afterEach(cleanUp);
afterAll(cleanUpFile);

const MAP = [{ containerID: 0, hostID: 100_000, size: 1000 }];
const ALONE = ["unshare", "--mount", "--propagation", "private"];
const WITHOUT_RESOURCE = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"];

const inUserNamespace = (spec: WholeSpec) => {
  spec.linux.namespaces = [...(spec.linux.namespaces ?? []), { type: "user" }];
  spec.linux.uidMappings = MAP;
  spec.linux.gidMappings = MAP;
};

/** One whole proc anywhere is enough for the kernel: others' must not be seen here. */
const COVERED = `while read -r _ at type _; do [ $type != proc ] || [ $at = /proc ] || umount -l $at; done < /proc/self/mounts
mount -t tmpfs none /proc/tty; exec "$@"`;

const bind = (source: string, ...options: string[]): WholeSpec["mounts"][number] => ({
  destination: "/srv",
  type: "bind",
  source,
  options: ["bind", ...options],
});

/** Makes a bundle and runs it in vain; `prepare` works on the root. */
function fails(edit: Edit, how: Parameters<typeof run>[1] = {}, prepare = (_: Bundle) => {}): string {
  const bundle = makeBundle(edit);
  prepare(bundle);
  return stderrOf(run(bundle, how));
}

function stderrOf({ status, stderr }: Outcome): string {
  expect(status).toBe(1);
  return stderr;
}

/** Mounts a directory on another one, its ids mapped. mount(8) of util-linux 2.38 cannot yet. */
const IDMAP = `import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    result = libc.syscall(*args)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    call(272, 0x10000000)
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    os._exit(0)
os.read(ready[0], 1)
for kind in "ug":
    open(f"/proc/{child}/{kind}id_map", "w").write("0 200000 1000")
namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
tree = call(428, -100, sys.argv[1].encode(), 1)
attributes = ctypes.create_string_buffer(struct.pack("QQQQ", 0x100000, 0, 0, namespace))
call(442, tree, b"", 0x1000, attributes, 32)
call(429, tree, b"", -100, sys.argv[2].encode(), 4)
os.write(go[1], b"x")
os.waitpid(child, 0)
os.execvp(sys.argv[3], sys.argv[3:])
`;

/** Words that run the rest where a directory is mounted with mapped ids. */
function mapped(): { source: string; through: string[] } {
  const [plain, source, script] = ["plain", "mapped", "idmap.py"].map((name) => join(scratchDirectory(), name));
  if (plain === undefined || source === undefined || script === undefined) throw new Error("three names");
  for (const directory of [plain, source]) mkdirSync(directory, { recursive: true });
  writeFileSync(script, IDMAP);
  return { source, through: [...ALONE, "python3", script, plain, source] };
}

/** Files that somebody owns whom the container does not know, and much of it, under /srv. */
function foreign({ rootfs }: Bundle): void {
  mkdirSync(join(rootfs, "srv"), { recursive: true });
  writeFileSync(join(rootfs, "srv/file"), "x".repeat(100_000));
  chownSync(join(rootfs, "srv/file"), 777_777, 777_777);
}

/** By step and errno: what is done for it, and words of the hint. */
const PROVOKED: { [failure: string]: [provoke: () => string, hint: RegExp][] } = {
  "setLimit EPERM": [
    [
      () =>
        fails(
          (spec) => {
            spec.process.rlimits = [{ type: "RLIMIT_NOFILE", soft: 64, hard: 1024 }];
          },
          { through: [...WITHOUT_RESOURCE, "prlimit", "--nofile=512:512"] },
        ),
      /raising a hard limit needs CAP_SYS_RESOURCE/,
    ],
  ],
  "setOomScore EACCES": [
    [
      () =>
        fails(
          (spec) => {
            spec.process.oomScoreAdj = -900;
          },
          { through: WITHOUT_RESOURCE },
        ),
      /a score below one's own needs CAP_SYS_RESOURCE/,
    ],
  ],
  "setScheduler EPERM": [
    [
      () =>
        fails(
          (spec) => {
            spec.process.scheduler = { policy: "SCHED_RR", priority: 1 };
          },
          { through: ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"] },
        ),
      /a real-time policy needs CAP_SYS_NICE, and real-time of the cgroup/,
    ],
    [
      () =>
        fails((spec) => {
          spec.linux.resources = { cpu: { cpus: "0" } };
          spec.process.scheduler = { policy: "SCHED_DEADLINE", runtime: 42000, deadline: 1000000, period: 1000000 };
        }),
      /can't be used together with AllowedCPUs .* needs CAP_SYS_NICE/,
    ],
  ],
  "makeFilesystem ENODEV": [
    [
      () => fails(({ mounts }) => void mounts.push({ destination: "/x", type: "nosuchfs" })),
      /this kernel has no filesystem called nosuchfs/,
    ],
  ],
  "makeFilesystem EPERM": [
    ...(
      [
        ["pid", "proc", "/proc", /a new \/proc needs a new pid namespace/],
        ["ipc", "mqueue", "/dev/mqueue", /a new mqueue needs a new ipc namespace/],
        ["network", "sysfs", "/sys", /a new sysfs needs a network namespace/],
      ] as const
    ).map(([type, filesystem, destination, hint]): [() => string, RegExp] => [
      () =>
        fails((spec) => {
          inUserNamespace(spec);
          const others = (spec.linux.namespaces ?? []).filter((each) => each.type !== type);
          const file = { pid: "pid", ipc: "ipc", network: "net" }[type];
          spec.linux.namespaces = [...others, { type, path: `/proc/self/ns/${file}` }];
          spec.mounts = [{ destination, type: filesystem, source: filesystem }];
        }),
      hint,
    ]),
    [
      () =>
        fails(inUserNamespace, {
          through: [...ALONE, "sh", "-ec", COVERED, "sh"],
        }),
      /a new proc may not show more than the one that is here, parts of which are covered: caisson why says which/,
    ],
  ],
  "checkProcTarget ELOOP": [
    [
      () =>
        fails(
          ({ mounts }) => void mounts.push({ destination: "/circle/proc", type: "sysfs", source: "sysfs" }),
          {},
          ({ rootfs }) => symlinkSync("circle", join(rootfs, "circle")),
        ),
      /a link on the way to the target leads in a circle/,
    ],
  ],
  "checkProcTarget ENOTDIR": [
    [
      () =>
        fails(
          () => undefined,
          {},
          ({ rootfs }) => {
            rmSync(join(rootfs, "proc"), { recursive: true, force: true });
            writeFileSync(join(rootfs, "proc"), "");
          },
        ),
      /the target is a link or a file/,
    ],
    [
      () =>
        fails(
          () => undefined,
          {},
          ({ rootfs }) => {
            rmSync(join(rootfs, "proc"), { recursive: true, force: true });
            symlinkSync("/tmp", join(rootfs, "proc"));
          },
        ),
      /the target is a link or a file/,
    ],
  ],
  "checkProcSource EINVAL": [
    [
      () =>
        fails((spec) => {
          spec.mounts = [{ ...bind("/usr"), destination: "/proc" }];
        }),
      /only a proc filesystem can be mounted on \/proc/,
    ],
  ],
  "attachMount EACCES": [
    [
      () =>
        fails(
          ({ mounts }) => void mounts.push({ destination: "/volume/kernel", type: "tmpfs", source: "tmpfs" }),
          {},
          ({ rootfs }) => symlinkSync("/proc/sys", join(rootfs, "volume")),
        ),
      /the destination leads into proc/,
    ],
    [
      () =>
        fails((spec) => {
          inUserNamespace(spec);
          spec.mounts.push({ destination: "/missing", type: "tmpfs", source: "tmpfs" });
        }),
      /the destination is closed to the root of the container's user namespace, or is missing/,
    ],
  ],
  "attachMount ENOTDIR": [
    [
      () =>
        fails(
          ({ mounts }) => void mounts.push(bind("/usr")),
          {},
          ({ rootfs }) => writeFileSync(join(rootfs, "srv"), ""),
        ),
      /a directory is mounted on a directory and a file on a file/,
    ],
  ],
  "matchDirectory EINVAL": [
    [
      () =>
        fails(
          (spec) => {
            inUserNamespace(spec);
            spec.mounts.push({ destination: "/srv", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup"] });
          },
          {},
          foreign,
        ),
      /the owner of the directory is nobody in the container's user namespace/,
    ],
  ],
  "copyUp EINVAL": [
    [
      () =>
        fails(
          (spec) => {
            inUserNamespace(spec);
            spec.mounts.push({ destination: "/srv", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup"] });
          },
          {},
          (bundle) => {
            foreign(bundle);
            chownSync(join(bundle.rootfs, "srv"), 100_000, 100_000);
          },
        ),
      /an owner of what is to be copied is nobody in the container's user namespace/,
    ],
  ],
  "copyUp ENOSPC": [
    [
      () =>
        fails(
          ({ mounts }) =>
            void mounts.push({
              destination: "/srv",
              type: "tmpfs",
              source: "tmpfs",
              options: ["tmpcopyup", "size=4k"],
            }),
          {},
          foreign,
        ),
      /the tmpfs is smaller than what tmpcopyup puts into it/,
    ],
  ],
  "mapMount EINVAL": [
    [
      () =>
        fails(({ mounts }) => void mounts.push({ ...bind("/proc/sys", "idmap"), uidMappings: MAP, gidMappings: MAP })),
      /the source's filesystem cannot map ids/,
    ],
  ],
  "mapMount EPERM": [
    [
      () => {
        const { source, through } = mapped();
        return fails(
          ({ mounts }) => void mounts.push({ ...bind(source, "idmap"), uidMappings: MAP, gidMappings: MAP }),
          { through },
        );
      },
      /the source is mapped already/,
    ],
  ],
  "idmapSource EINVAL": [
    [
      () =>
        fails((spec) => {
          inUserNamespace(spec);
          spec.mounts.push(bind("/proc/sys", "idmap"));
        }),
      /the source's filesystem cannot map ids/,
    ],
  ],
  "idmapSource EPERM": [
    [
      () => {
        const { source, through } = mapped();
        return fails(
          (spec) => {
            inUserNamespace(spec);
            spec.mounts.push(bind(source, "idmap"));
          },
          { through },
        );
      },
      /the source is mapped already/,
    ],
  ],
  "makeUserNamespace EINVAL": [
    [
      () => {
        const option = "idmap=uids=0-1-10#5-100-10;gids=0-1-10#5-100-10";
        return fails(({ mounts }) => void mounts.push(bind("/usr", option)));
      },
      /the kernel does not take these mappings/,
    ],
  ],
  "checkDevice ENODEV": [
    [
      () =>
        fails((spec) => {
          inUserNamespace(spec);
          spec.linux.devices = [{ path: "/dev/zero", type: "c", major: 1, minor: 9 }];
        }),
      /in a user namespace the host's own devices are bound/,
    ],
  ],
  "checkDirectory ENOENT": [
    [
      () => {
        const bundle = idle();
        const host = openSync("/usr", "r");
        try {
          const flags = ["--preserve-fds", "1", "--cwd", "/proc/self/fd/3"];
          const { status, stderr } = exec(bundle, ["/bin/probe"], { flags, descriptors: [host] });
          expect(status).toBe(255);
          return stderr;
        } finally {
          closeSync(host);
          kill(bundle, "KILL");
        }
      },
      /the working directory is outside of the container's root/,
    ],
  ],
  "openRoot ENOENT": [
    [
      () =>
        fails((spec) => {
          spec.root.path = "nowhere";
        }),
      /root\.path of config\.json does not exist/,
    ],
  ],
  "openRoot ENOTDIR": [
    [
      () =>
        fails((spec) => {
          spec.root.path = "config.json";
        }),
      /root\.path of config\.json is not a directory/,
    ],
  ],
  "enterClass ENOENT": [
    [
      () => {
        // no machine of ours has resctrl: the kernel is asked for a class in a directory where there is none
        const path = join(scratchDirectory(), "resctrl/gold");
        const step = { name: "enterClass", args: { path }, from: "/spec/linux/intelRdt" } as const;
        try {
          attempt(step, 0, () => enterClass(path, process.pid));
        } catch (error) {
          return String(Reflect.get(Object(error), "hint"));
        }
        return "";
      },
      /linux\.intelRdt\.closID names a class of service that must exist/,
    ],
  ],
  "openSource ENOENT": [
    [
      () => fails(({ mounts }) => void mounts.push(bind("/no/such/source"))),
      /a bind mount's source must exist on the host/,
    ],
  ],
};

test("each failure that has a hint is brought about below", () => {
  expect(Object.keys(PROVOKED).sort()).toEqual(hintedFailures().sort());
});

test.each(Object.entries(PROVOKED))("%s", (_, provocations) => {
  for (const [provoke, hint] of provocations) expect(provoke()).toMatch(hint);
});
