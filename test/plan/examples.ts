import { parseCgroupLayout } from "../../src/plan/cgroup-layout.ts";
import { compile, compileExec } from "../../src/plan/compile.ts";
import type { Definition } from "../../src/plan/definition.ts";
import type { Host } from "../../src/plan/host.ts";
import type { Plan } from "../../src/plan/step.ts";
import { defaultProfile } from "../../src/seccomp/default-profile.ts";
import type { Seccomp, Spec } from "../../src/spec/spec.ts";
import { engineTemplate, template } from "../../src/spec/template.ts";
import { everything } from "../spec/everything.ts";

/** Hosts as plans see them. */
export const HOSTS = {
  v2: {
    machine: "x86_64",
    lacking: [],
    apparmor: true,
    selinux: true,
    resctrl: "/sys/fs/resctrl",
    cgroups: parseCgroupLayout(
      "25 20 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
      "0::/session\n",
      "cpu memory pids",
    ),
  },
  rootless: {
    machine: "x86_64",
    lacking: [],
    apparmor: false,
    selinux: false,
    cgroups: {
      mode: "v2",
      hierarchies: [
        {
          controllers: ["memory", "pids"],
          version: 2,
          mountPoint: "/sys/fs/cgroup",
          ownPath: "/user.slice",
          delegated: false,
        },
      ],
    },
    rootless: { uid: 1000, gid: 1000, mapper: false, setgroups: "allow" },
  },
  v1: {
    machine: "x86_64",
    lacking: [],
    apparmor: false,
    selinux: false,
    cgroups: parseCgroupLayout(
      "41 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n42 31 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n43 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n",
      "3:memory:/\n2:pids:/\n1:devices:/\n",
      "",
    ),
  },
} satisfies Record<string, Host>;

/** The least that runs: no namespaces, mounts or limits. */
export function smallest(): Spec {
  return {
    ociVersion: "1.3.0",
    root: { path: "rootfs" },
    process: { args: ["/bin/true"], cwd: "/", user: { uid: 0, gid: 0 } },
    linux: { cgroupsPath: "/c" },
  };
}

function withoutTerminal(spec: Spec): Spec {
  return { ...spec, process: { ...spec.process, cwd: "/", terminal: false } };
}

function inUserNamespace(): Spec {
  const spec = withoutTerminal(template());
  const ids = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
  const { namespaces = [], ...linux } = spec.linux ?? {};
  return {
    ...spec,
    linux: { ...linux, namespaces: [...namespaces, { type: "user" }], uidMappings: ids, gidMappings: ids },
  };
}

function without<T extends object, K extends keyof T & string>(whole: T, ...keys: K[]): Omit<T, K> {
  const rest = Object.entries(whole).filter(([key]) => !keys.some((left) => left === key));
  return Object.fromEntries(rest) as Omit<T, K>; // by the line above
}

/** All that is supported, but for limits, which need controllers. */
export function allSteps(): Spec {
  const { linux = {}, process = { cwd: "/" }, ...spec } = everything();
  return {
    ...spec,
    process,
    linux: {
      ...without(linux, "resources"),
      cgroupsPath: "/c",
    },
  };
}

/** A filter that asks an agent. */
function withListener(): Spec {
  const { linux, ...spec } = smallest();
  const seccomp: Seccomp = {
    defaultAction: "SCMP_ACT_ALLOW",
    listenerPath: "/run/agent.sock",
    listenerMetadata: "mounts",
    syscalls: [{ names: ["mount"], action: "SCMP_ACT_NOTIFY" }],
  };
  return { ...spec, linux: { ...linux, seccomp } };
}

function ofManyMounts(): Spec {
  const mounts = Array.from({ length: 100 }, (_, i) => ({
    destination: `/data/${i}`,
    type: "tmpfs",
    source: "tmpfs",
    options: [`size=${i}k`],
  }));
  return { ...smallest(), mounts, linux: { cgroupsPath: "/c", namespaces: [{ type: "mount" }] } };
}

/** One mount of every kind whose order matters, in a user namespace with the host's network. */
function ofOddMounts(): Spec {
  const ids = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
  const own = { uidMappings: [{ containerID: 1000, hostID: 0, size: 1 }], gidMappings: ids };
  const bind = { type: "bind", source: "/srv" };
  return {
    ...smallest(),
    mounts: [
      { destination: "/proc", type: "bind", source: "/proc", options: ["rbind", "rslave"] },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: ["ro", "nosuid"] },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue" },
      { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["ro", "tmpcopyup", "uid=5"] },
      { destination: "/closed", type: "tmpfs", source: "tmpfs", options: ["ro", "mode=700"] },
      { ...bind, destination: "/closed/mapped", options: ["bind", "idmap"], ...own },
      { ...bind, destination: "/again", options: ["bind", "ridmap"], ...own },
      { ...bind, destination: "/container", options: ["rbind", "ridmap"] },
      { ...bind, destination: "/ranges", options: ["bind", "idmap=uids=@0-1000-1#5-6-7"] },
      { ...bind, destination: "/link", options: ["bind", "copy-symlink"] },
      { ...bind, destination: "/itself", options: ["bind", "src-nofollow", "dest-nofollow"] },
      { ...bind, destination: "/shared", options: ["rbind", "rshared", "rro"] },
      { destination: "/beneath", type: "bind", source: "rootfs/closed/mapped", options: ["rbind", "ro"] },
      { destination: "/disk", type: "squashfs", source: "/dev/vdb", options: ["ro"] },
      { destination: "/tmp", type: "tmpfs", options: ["remount", "noexec", "rnodev", "size=1m"] },
    ],
    linux: {
      cgroupsPath: "/c",
      namespaces: [{ type: "mount" }, { type: "user" }, { type: "ipc" }, { type: "pid" }],
      uidMappings: ids,
      gidMappings: ids,
      devices: [{ path: "/dev/wide", type: "b", major: 259, minor: 70_000 }],
      rootfsPropagation: "slave",
    },
  };
}

/** An engine's container: layers, and a place on a bridge. */
function ofAnImage(): Partial<Definition> & { spec: Spec } {
  const spec = engineTemplate();
  return {
    spec: {
      ...spec,
      process: { ...spec.process, cwd: "/", args: ["sh"], terminal: true },
      mounts: [
        ...(spec.mounts ?? []),
        { destination: "/srv", type: "bind", source: "/v/new", options: ["rbind", "rprivate", "rro"] },
      ],
      linux: { ...spec.linux, seccomp: defaultProfile([], "x86_64") },
    },
    copies: ["/srv"],
    root: { layers: ["/l/2", "/l/1"], container: "/c/web", driver: "overlay" },
    files: [{ path: "/c/web/hosts", text: "10.0.0.2\tweb\n" }],
    endpoint: {
      container: "web",
      bridge: "caisson0",
      subnet: "10.0.0.0/24",
      gateway: "10.0.0.1",
      address: "10.0.0.2",
      mac: "02:42:0a:00:00:02",
      hostName: "veth0",
      ports: [{ protocol: "tcp", hostAddress: "0.0.0.0", hostPort: 8080, containerPort: 80 }],
    },
    console: "creator",
    keyring: "web",
  };
}

export function defined(part: Partial<Definition> & { spec: Spec }): Definition {
  return { id: "web", bundle: "/b", start: "now", preserved: 0, ...part };
}

/** One plan of every kind, by what it is for. */
export function examplePlans(): { [name: string]: Plan } {
  const spec = withoutTerminal(template());
  return {
    smallest: compile(defined({ spec: smallest() }), HOSTS.v2),
    template: compile(defined({ spec }), HOSTS.v2),
    "version 1": compile(defined({ spec }), HOSTS.v1),
    later: compile(defined({ spec, start: "later", preserved: 2 }), HOSTS.v2),
    rootless: compile(
      defined({ spec: withoutTerminal(template({ rootless: { uid: 1000, gid: 1000 } })), start: "later" }),
      HOSTS.rootless,
    ),
    systemd: compile(
      defined({
        spec: {
          ...spec,
          linux: {
            ...spec.linux,
            cgroupsPath: "machine.slice:libpod:web",
            resources: { memory: { limit: 1 << 26 }, devices: [{ allow: false, access: "rwm" }] },
          },
        },
      }),
      { ...HOSTS.v2, systemd: { version: 252, controlGroup: "", user: false } },
    ),
    "rootless range": compile(defined({ spec: inUserNamespace() }), HOSTS.rootless),
    user: compile(defined({ spec: inUserNamespace() }), HOSTS.v2),
    everything: compile(defined({ spec: allSteps(), start: "later", console: { socket: "/s" } }), HOSTS.v2),
    image: compile(defined(ofAnImage()), HOSTS.v2),
    listener: compile(defined({ spec: withListener(), start: "later" }), HOSTS.v2),
    mounts: compile(defined({ spec: ofManyMounts() }), HOSTS.v2),
    "odd mounts": compile(defined({ spec: ofOddMounts() }), HOSTS.v2),
    exec: compileExec(
      {
        id: "web",
        process: { args: ["sh", "-c", "exit"], cwd: "/srv", env: ["A=1"], user: { uid: 5, gid: 6 } },
        spec: inUserNamespace(),
        pid: 1,
        cgroups: HOSTS.v2.cgroups.hierarchies.map((hierarchy) => ({ hierarchy, path: "/sys/fs/cgroup/web" })),
        preserved: 0,
        setgroups: "allow",
        keyring: "_ses.web",
      },
      HOSTS.v2,
    ),
  };
}
