import { readdirSync, readFileSync, statSync } from "node:fs";
import { ContainerError } from "../error.ts";
import type { User } from "../image/users.ts";
import { CAPABILITIES } from "../linux/capabilities.ts";
import { hostnameFile, hostsFile } from "../network/resolv.ts";
import type { Definition } from "../plan/definition.ts";
import { normalPath } from "../plan/path.ts";
import type { EndpointArgs } from "../plan/step.ts";
import { defaultProfile } from "../seccomp/default-profile.ts";
import { parse } from "../spec/parse.ts";
import type { Device, Mount, Namespace, Resources, Seccomp, Spec } from "../spec/spec.ts";
import { engineTemplate } from "../spec/template.ts";
import type { ContainerJson, HostConfig } from "./config.ts";

/** What is chosen or looked up before a container can be compiled. */
export interface Circumstances {
  /** The container's own directory: upper, work, and the files mounted over resolv.conf and its like. */
  directory: string;
  user: User;
  machine: "x86_64" | "aarch64";
  endpoint?: EndpointArgs;
  /** The container whose network is shared, and the directory of its files about names where it has some. */
  networkOf?: { pid: number; files?: string };
  /** Capabilities that we hold: no container can get others. */
  permitted: readonly string[];
  /** Volumes and binds, as mounts. */
  volumes: readonly Mount[];
  /** Destinations of those that start as a copy of what the image has there. */
  copies: readonly string[];
  /** What its resolv.conf is to say. */
  resolvConf: string;
  /** What its hosts is to say; its own names, where that is left out. */
  hosts?: string;
  /** A seccomp profile of the caller's own. */
  seccomp?: Seccomp;
}

/** A container of the engine as a definition: its spec, its layers and its endpoint. Pure, but for a privileged container's list of the host's devices. */
export function definitionOf(container: ContainerJson, circumstances: Circumstances): Omit<Definition, "preserved"> {
  const { id, root, config, hostConfig } = container;
  if (root.kind !== "image")
    throw new ContainerError({ message: `container ${container.name} has no image`, code: "EINVAL" });
  const { directory, endpoint, user, copies } = circumstances;
  return {
    id,
    spec: specOf(container, circumstances),
    bundle: directory,
    root: {
      layers: root.layers,
      container: directory,
      driver: root.driver,
      ...(hostConfig.AutoRemove ? { transient: true as const } : {}),
    },
    files: networkFiles(container, circumstances),
    ...(copies.length === 0 ? {} : { copies }),
    home: user.home,
    start: "now",
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(config.Tty ? { console: "creator" as const } : {}),
    keyring: `_ses.${id.slice(0, 12)}`,
  };
}

/** What Docker's containers have; ours, which they would inherit, depends on who calls. */
const UMASK = 0o022;

function specOf(
  { id, config, hostConfig }: ContainerJson,
  { directory, user, machine, networkOf, volumes, seccomp: profile, permitted }: Circumstances,
): Spec {
  const spec = engineTemplate();
  const { Privileged } = hostConfig;
  const capabilities = capabilitiesOf(hostConfig, permitted);
  const options = securityOptions(hostConfig.SecurityOpt);
  const seccomp = seccompOf(options, Privileged, capabilities, machine, profile);
  const { maskedPaths, readonlyPaths, ...linux } = spec.linux ?? {};
  const devices = Privileged ? hostDevices("/dev") : [];
  return {
    ...spec,
    hostname: config.Hostname,
    root: { path: directory, readonly: hostConfig.ReadonlyRootfs },
    process: {
      args: [...config.Entrypoint, ...config.Cmd],
      cwd: config.WorkingDir === "" ? "/" : config.WorkingDir,
      env: config.Env,
      terminal: config.Tty,
      user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids, umask: UMASK },
      // a user other than root holds nothing at first, and gets what a set-user-id program may have from the bounding set
      capabilities:
        user.uid === 0
          ? { bounding: capabilities, effective: capabilities, permitted: capabilities }
          : { bounding: capabilities },
      noNewPrivileges: options.has("no-new-privileges"),
      ...(options.has("apparmor") ? { apparmorProfile: options.get("apparmor") ?? "" } : {}),
    },
    mounts: [
      ...mountsOf(spec.mounts ?? [], hostConfig),
      ...outermostFirst([
        ...fileMounts(networkOf?.files ?? directory, hostConfig),
        ...tmpfsMounts(hostConfig),
        ...volumes,
      ]),
    ],
    linux: {
      ...linux,
      cgroupsPath: `/caisson/${id}`,
      namespaces: namespacesOf(hostConfig, networkOf),
      resources: resourcesOf(hostConfig, linux.resources),
      ...mappingsOf(hostConfig.UsernsMode),
      ...(Privileged ? { devices } : {}),
      ...(Privileged || options.has("systempaths")
        ? {}
        : { maskedPaths: maskedPaths ?? [], readonlyPaths: readonlyPaths ?? [] }),
      ...(seccomp === undefined ? {} : { seccomp }),
    },
  };
}

/** What --security-opt knows, and which values; a name alone means true. */
const SECURITY_OPTIONS: { [name: string]: RegExp } = {
  seccomp: /./,
  "no-new-privileges": /^(true|false)$/,
  apparmor: /./,
  // labels are the host's policy's to give: nothing here chooses one
  label: /^disable$/,
  systempaths: /^unconfined$/,
};

/** "seccomp=unconfined", "no-new-privileges[=true]": name → value. */
function securityOptions(given: readonly string[]): Map<string, string> {
  const options = new Map<string, string>();
  for (const option of given) {
    const [, name = "", value = "true"] = /^([^=:]+)(?:[=:](.*))?$/s.exec(option) ?? [];
    if (!Object.hasOwn(SECURITY_OPTIONS, name) || SECURITY_OPTIONS[name]?.test(value) !== true)
      throw new ContainerError({
        message: `cannot use security option ${option}: known are seccomp=unconfined|builtin|FILE, no-new-privileges, apparmor=PROFILE, label=disable and systempaths=unconfined`,
        code: "EINVAL",
      });
    if (value !== "false") options.set(name, value);
  }
  return options;
}

/** The profile that seccomp=FILE asks for. @throws ContainerError when the file cannot be read or is no profile */
export function readSeccompProfile(given: readonly string[]): Seccomp | undefined {
  const path = securityOptions(given).get("seccomp");
  if (path === undefined || path === "unconfined" || path === "builtin") return;
  const fault = (why: string, cause: unknown) =>
    new ContainerError({ message: `cannot use seccomp profile ${path}: ${why}`, code: "EINVAL", path, cause });
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new ContainerError({
      message: `cannot read seccomp profile ${path}: ${codeOf(error)}`,
      code: codeOf(error),
      path,
      cause: error,
    });
  }
  let profile: unknown;
  try {
    profile = JSON.parse(text);
  } catch (error) {
    throw fault("it is not JSON", error);
  }
  try {
    return parse(JSON.stringify({ ociVersion: "1.3.0", linux: { seccomp: profile } })).linux?.seccomp;
  } catch (error) {
    throw error instanceof ContainerError ? fault(error.message.replaceAll("/linux/seccomp", ""), error) : error;
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

function seccompOf(
  options: Map<string, string>,
  privileged: boolean,
  capabilities: string[],
  machine: "x86_64" | "aarch64",
  profile: Seccomp | undefined,
): Seccomp | undefined {
  const asked = options.get("seccomp");
  if (asked === "unconfined") return;
  return profile ?? (privileged && asked !== "builtin" ? undefined : defaultProfile(capabilities, machine));
}

function capabilitiesOf({ CapAdd, CapDrop, Privileged }: HostConfig, permitted: readonly string[]): string[] {
  const add = CapAdd.map(capabilityName);
  const drop = new Set(CapDrop.map(capabilityName));
  const base: readonly string[] =
    Privileged || add.includes("ALL") ? permitted : (engineTemplate().process?.capabilities?.bounding ?? []);
  // to add all is to say which are dropped by name
  const start = drop.has("ALL") && !add.includes("ALL") ? [] : base.filter((name) => !drop.has(name));
  return [...new Set([...start, ...add.filter((name) => name !== "ALL")])];
}

function capabilityName(given: string): string {
  const name = given.toUpperCase();
  if (name === "ALL") return name;
  const full = name.startsWith("CAP_") ? name : `CAP_${name}`;
  if (CAPABILITIES.some((known) => known === full)) return full;
  throw new ContainerError({ message: `there is no capability ${given}`, code: "EINVAL" });
}

function namespacesOf({ NetworkMode, UsernsMode }: HostConfig, networkOf: { pid: number } | undefined): Namespace[] {
  const namespaces: Namespace[] = (["mount", "uts", "pid", "ipc", "cgroup"] as const).map((type) => ({ type }));
  if (networkOf !== undefined) namespaces.push({ type: "network", path: `/proc/${networkOf.pid}/ns/net` });
  else if (NetworkMode !== "host") namespaces.push({ type: "network" });
  if (UsernsMode !== "" && UsernsMode !== "host") namespaces.push({ type: "user" });
  return namespaces;
}

/** The first id of the range that "auto" maps; the size is what a container expects: 65536 users. */
const AUTO_FIRST_ID = 100_000;
const AUTO_SIZE = 65_536;

/** A user namespace's maps, the same for users and groups. */
function mappingsOf(mode: string): {
  uidMappings?: { containerID: number; hostID: number; size: number }[];
  gidMappings?: { containerID: number; hostID: number; size: number }[];
} {
  if (mode === "" || mode === "host") return {};
  const [, first, size] = /^(\d+):(\d+)$/.exec(mode) ?? [];
  if (mode !== "auto" && first === undefined)
    throw new ContainerError({
      message: `cannot use ${mode} as a user namespace: it must be host, auto or FIRST:SIZE`,
      code: "EINVAL",
    });
  const mapping = { containerID: 0, hostID: Number(first ?? AUTO_FIRST_ID), size: Number(size ?? AUTO_SIZE) };
  return { uidMappings: [mapping], gidMappings: [mapping] };
}

function resourcesOf(
  { Memory, NanoCpus, CpusetCpus, PidsLimit, Privileged }: HostConfig,
  base: Resources = {},
): Resources {
  const cpu = {
    ...(NanoCpus > 0 ? { quota: Math.round(NanoCpus / 10_000), period: 100_000 } : {}),
    ...(CpusetCpus === "" ? {} : { cpus: CpusetCpus }),
  };
  return {
    ...base,
    ...(Privileged ? { devices: [{ allow: true, access: "rwm" }] } : {}),
    ...(Memory > 0 ? { memory: { limit: Memory } } : {}),
    ...(Object.keys(cpu).length > 0 ? { cpu } : {}),
    ...(PidsLimit > 0 ? { pids: { limit: PidsLimit } } : {}),
  };
}

/** A privileged container may write to sysfs and its cgroups. With the host's network, sysfs must be bound: it shows the network's owner. */
function mountsOf(mounts: readonly Mount[], { Privileged, UsernsMode, NetworkMode }: HostConfig): Mount[] {
  const foreign =
    UsernsMode !== "" && UsernsMode !== "host" && (NetworkMode === "host" || NetworkMode.startsWith("container:"));
  return mounts.map((mount) => {
    if (mount.type === "sysfs" && foreign)
      return {
        destination: mount.destination,
        type: "bind",
        source: "/sys",
        options: ["rbind", "ro", "nosuid", "noexec", "nodev"],
      };
    if (!Privileged || (mount.type !== "sysfs" && mount.type !== "cgroup")) return mount;
    return { ...mount, options: (mount.options ?? []).filter((option) => option !== "ro") };
  });
}

/** Files about names: those that are mounted from the container's own directory. */
function networkFiles(
  { config }: ContainerJson,
  { directory, networkOf, endpoint, resolvConf, hosts }: Circumstances,
): { path: string; text: string }[] {
  if (networkOf?.files !== undefined) return [];
  return [
    { path: `${directory}/resolv.conf`, text: resolvConf },
    { path: `${directory}/hostname`, text: hostnameFile(config.Hostname) },
    { path: `${directory}/hosts`, text: hosts ?? hostsFile(config.Hostname, endpoint?.address) },
  ];
}

/** "NAME=value" each: every name once, with its last value. */
export function mergeEnvironment(entries: readonly string[]): string[] {
  return [...new Map(entries.map((entry) => [entry.split("=")[0], entry])).values()];
}

/** Whatever the order of the flags, none covers another that is to be beneath it. */
function outermostFirst(mounts: readonly Mount[]): Mount[] {
  const depth = ({ destination }: Mount) => normalPath(destination).split("/").length;
  return mounts.toSorted((one, other) => depth(one) - depth(other));
}

/** Copies, also with the host's network: what is written to them is the container's own. */
function fileMounts(directory: string, { ReadonlyRootfs }: HostConfig): Mount[] {
  return ["resolv.conf", "hostname", "hosts"].map((name) => ({
    destination: `/etc/${name}`,
    type: "bind",
    source: `${directory}/${name}`,
    options: ["bind", ...(ReadonlyRootfs ? ["ro"] : [])],
  }));
}

function tmpfsMounts({ Tmpfs }: HostConfig): Mount[] {
  return Object.entries(Tmpfs).map(([destination, options]) => ({
    destination,
    type: "tmpfs",
    source: "tmpfs",
    options: ["nosuid", "nodev", "noexec", ...options.split(",").filter((option) => option !== "")],
  }));
}

/** Every device node beneath a directory of the host's /dev, for a privileged container. */
function hostDevices(directory: string): Device[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry): Device[] => {
    const path = `${directory}/${entry.name}`;
    if (entry.isDirectory()) return ["pts", "shm", "mqueue", "fd"].includes(entry.name) ? [] : hostDevices(path);
    if (!entry.isCharacterDevice() && !entry.isBlockDevice()) return [];
    if (path === "/dev/console") return [];
    const { rdev, mode, uid, gid } = statSync(path);
    return [
      {
        path,
        type: entry.isBlockDevice() ? "b" : "c",
        major: (rdev >> 8) & 0xfff,
        minor: (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
        fileMode: mode & 0o7777,
        uid,
        gid,
      },
    ];
  });
}
