import { MOUNT_ATTR } from "../linux/mount-options.ts";
import type { MountEntry } from "../linux/mountinfo.ts";
import { makesNew } from "../plan/namespaces.ts";
import type { NamespaceType } from "../spec/spec.ts";
import { rootPath } from "./paths.ts";
import { type Asked, type Facts, innocent, type Question, refuses } from "./question.ts";

/** The mount that a path is on: the longest mount point that it is beneath, and of those on one place the last. */
function mountUnder(path: string, mounts: readonly MountEntry[]): MountEntry | undefined {
  const within = ({ mountPoint }: MountEntry) =>
    mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`);
  return mounts
    .filter(within)
    .reduce<MountEntry | undefined>(
      (best, mount) => (best === undefined || mount.mountPoint.length >= best.mountPoint.length ? mount : best),
      undefined,
    );
}

const told = ({ mountPoint, type, options }: MountEntry) => `${mountPoint} (${type}, ${options.join(",")})`;

/** A filesystem that this kernel does not have. */
const unknownFilesystem: Question = ({ step, code, call }, facts) => {
  if (step.name !== "makeFilesystem" || code !== "ENODEV" || call?.name !== "fsopen") return [];
  const { type } = step.args;
  const known = (facts.text("/proc/filesystems") ?? "").split("\n").map((line) => line.split("\t").at(-1));
  if (known.includes(type)) return innocent(`/proc/filesystems has ${type} now`);
  const option = configOf(facts, `CONFIG_${type.toUpperCase()}_FS`);
  const built = option === undefined ? "" : `; this kernel's configuration says ${option}`;
  const modules = facts.text(`/lib/modules/${facts.release}/modules.dep`);
  const module = modules?.split("\n").find((line) => new RegExp(`/${quoted(type)}\\.ko[^/]*:`).test(line));
  if (module !== undefined)
    return refuses(
      `/proc/filesystems does not have ${type}; there is a module of that name, ${module.split(":")[0]}, which is not loaded${built}`,
      `modprobe ${type}`,
    );
  return refuses(
    `/proc/filesystems does not have ${type}, and ${modules === undefined ? `there are no modules of Linux ${facts.release} here` : `no module of Linux ${facts.release} is called so`}${built}`,
    "correct the type of the mount, or use a kernel that has it",
  );
};

const quoted = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** Its line in the configuration that was installed with the kernel; /proc/config.gz is not looked into. */
function configOf(facts: Facts, option: string): string | undefined {
  const config = facts.text(`/boot/config-${facts.release}`);
  return config?.split("\n").find((line) => line.startsWith(`${option}=`) || line === `# ${option} is not set`);
}

/** Filesystems that show a namespace, and which. */
const SHOWN: { readonly [type: string]: NamespaceType } = { proc: "pid", sysfs: "network", mqueue: "ipc" };

/** A namespace that somebody else owns. */
const foreignNamespace: Question = (asked) => {
  const { step, code, call } = asked;
  if (step.name !== "makeFilesystem" || code !== "EPERM" || call?.name !== "fsconfig") return [];
  const kind = SHOWN[step.args.type];
  if (kind === undefined) return [];
  const owner = `a ${step.args.type} shows the ${kind} namespace`;
  return makesNew(asked.plan, kind)
    ? innocent(`${owner}, and the container gets a new one, which is its own`)
    : refuses(
        `${owner}, and this container gets no new one: the one that it has belongs to a user namespace in which it is nobody`,
        `add {"type": "${kind}"} to linux.namespaces, or bind the host's ${step.args.type}`,
      );
};

/** A proc or sysfs that would uncover what is covered here. */
const overmounted: Question = ({ step, code, call }, facts) => {
  if (step.name !== "makeFilesystem" || code !== "EPERM" || call?.name !== "fsmount") return [];
  const { type } = step.args;
  const mounts = facts.mounts();
  const places = mounts.filter((mount) => mount.type === type && mount.root === "/");
  if (places.length === 0)
    return refuses(
      `no whole ${type} is mounted here, of which a new one could show as much`,
      `mount ${type} where the caller runs (docker run --privileged does, or --security-opt systempaths=unconfined)`,
    );
  const found = places.map((place) => ({
    place,
    covers: mounts.filter(({ mountPoint }) => mountPoint.startsWith(`${place.mountPoint.replace(/\/$/, "")}/`)),
  }));
  // mount points that belong there by themselves (such as /proc/sys/fs/binfmt_misc) are on directories that are always empty
  const real = found.map(({ place, covers }) => ({
    place,
    covers: covers.filter(
      ({ mountPoint }) => !/\/(sys\/fs\/binfmt_misc|fs\/(?!cgroup\/).*|kernel\/\w+)$/.test(mountPoint),
    ),
  }));
  const [least] = real.sort((one, other) => one.covers.length - other.covers.length);
  if (least === undefined || least.covers.length === 0) {
    const readonly = places.filter(({ options }) => options.includes("ro"));
    return readonly.length === places.length
      ? refuses(
          `the ${type} that is here is read-only: ${readonly.map(told).join("; ")}`,
          "give the container's one the option ro, too",
        )
      : innocent(`nothing is mounted over parts of ${places.map(told).join("; ")}`);
  }
  const covers = least.covers.map(told);
  return refuses(
    `parts of the ${type} on ${least.place.mountPoint} are covered: ${covers.slice(0, 8).join("; ")}${covers.length > 8 ? `; and ${covers.length - 8} more` : ""}. A new one would show what is beneath`,
    `run it where ${least.place.mountPoint} is whole (in a container: docker run --security-opt systempaths=unconfined, podman --security-opt unmask=ALL), or bind the ${type} that is here instead of a new one`,
  );
};

/** An option that the filesystem does not take, in the kernel's own words. */
const option: Question = ({ step, code, call }, facts) => {
  if (call?.name !== "fsconfig" || step.name !== "makeFilesystem") return [];
  if (code === "EPERM" && SHOWN[step.args.type] !== undefined) return [];
  const said = facts.objection(step.args.type, step.args.parameters);
  if (said === undefined || said === "")
    return said === "" ? innocent("made again by us, the kernel has no objection") : [];
  return refuses(
    `asked again, the kernel says ${said}`,
    "correct the options of the mount: the filesystem's page of the manual has them",
  );
};

/** Flags that a user namespace cannot take from a mount. */
const locked: Question = ({ step, code, call, plan, index }, facts) => {
  if (code !== "EPERM" || call?.name !== "mount_setattr") return [];
  const cleared = Number(Reflect.get(step.args, "clear") ?? 0) | Number(Reflect.get(step.args, "recursiveClear") ?? 0);
  const names = Object.entries({
    ro: MOUNT_ATTR.RDONLY,
    nosuid: MOUNT_ATTR.NOSUID,
    nodev: MOUNT_ATTR.NODEV,
    noexec: MOUNT_ATTR.NOEXEC,
  })
    .filter(([, flag]) => (cleared & Number(flag)) !== 0)
    .map(([name]) => name);
  const path = sourceOf(plan.slice(0, index + 1), step);
  if (path === undefined || names.length === 0) return [];
  const mount = mountUnder(facts.walk(path).real ?? path, facts.mounts());
  if (mount === undefined) return [];
  const set = names.filter((name) => mount.options.includes(name));
  return set.length > 0
    ? refuses(
        `${path} is on the mount ${told(mount)}, whose ${set.join(" and ")} ${set.length === 1 ? "is" : "are"} locked here: who made that mount had more privileges`,
        `leave the option that takes ${set.join(", ")} away out of the mount's options, or have ${mount.mountPoint} remounted outside`,
      )
    : innocent(`${path} is on the mount ${told(mount)}, which has none of ${names.join(", ")}`);
};

/** The path that a mount is cloned from. */
function sourceOf(plan: Asked["plan"], step: Asked["step"]): string | undefined {
  const own: unknown = Reflect.get(step.args, "path");
  if (typeof own === "string") return own;
  const mount: unknown = Reflect.get(step.args, "mount");
  const source = plan.find(
    ({ name, args }) =>
      (name === "openSource" && args !== undefined && Reflect.get(args, "slot") === mount) ||
      (name === "cloneOwn" && Reflect.get(args, "mount") === mount),
  );
  const path: unknown = source === undefined ? undefined : Reflect.get(source.args, "path");
  return typeof path === "string" ? path : undefined;
}

/** A filesystem whose ids cannot be mapped. */
const idmapped: Question = ({ step, code, call, plan }, facts) => {
  if (call?.name !== "mount_setattr" || !["mapMount", "idmapSource"].includes(step.name)) return [];
  if (code !== "EINVAL") return [];
  const path = sourceOf(plan, step);
  const real = path === undefined ? undefined : (facts.walk(path).real ?? path);
  if (path === undefined || real === undefined) return [];
  const mounts = facts.mounts();
  const below =
    Number(Reflect.get(step.args, "recursive")) === 0
      ? []
      : mounts.filter(({ mountPoint }) => mountPoint.startsWith(`${real}/`));
  const types = [mountUnder(real, mounts), ...below].flatMap((mount) => (mount === undefined ? [] : [told(mount)]));
  return refuses(
    `the ids of this cannot be mapped: ${path} is on ${types.join("; below it is ")}. Linux ${facts.release} must know how to map those of each of these kinds`,
    "leave out idmap, use ridmap only where every mount below can be mapped, or give a source on another filesystem (ext4, xfs, btrfs, tmpfs)",
  );
};

/** A root, or a place in it, that cannot be written. */
const readonly: Question = ({ step, code, plan, path: about }, facts) => {
  if (code !== "EROFS") return [];
  const own: unknown = Reflect.get(step.args, "path");
  const path = rootPath(plan) ?? about ?? (typeof own === "string" ? own : undefined);
  if (path === undefined) return [];
  const mount = mountUnder(facts.walk(path).real ?? path, facts.mounts());
  if (mount === undefined) return [];
  const by = mount.options.includes("ro")
    ? "the mount"
    : mount.superOptions.includes("ro")
      ? "the filesystem"
      : undefined;
  return by === undefined
    ? innocent(`${path} is on ${told(mount)}, which is not read-only`)
    : refuses(
        `${by} of ${path} is read-only: ${told(mount)}. What is mounted in the root needs a place there, and one is missing`,
        `make the mount points in the image (${targetOf(step) ?? "those of mounts"}), or remount ${mount.mountPoint} rw`,
      );
};

function targetOf({ args }: Asked["step"]): string | undefined {
  const target: unknown = Reflect.get(args, "target") ?? Reflect.get(args, "path");
  return typeof target === "string" ? target : undefined;
}

/** Devices that may not be opened, programs that may not be executed: flags of the mount that they are on. */
const flags: Question = ({ step, code, plan }, facts) => {
  if (code !== "EACCES") return [];
  if (step.name === "openTerminal") {
    const devpts = plan.find(({ name, args }) => name === "makeFilesystem" && Reflect.get(args, "type") === "devpts");
    const attributes = devpts?.name === "makeFilesystem" ? Number(devpts.args.attributes) : 0;
    return (attributes & MOUNT_ATTR.NODEV) !== 0
      ? refuses(
          "the devpts of the container is mounted nodev, and a terminal is a device: it cannot be opened there",
          "leave nodev out of the options of the mount on /dev/pts",
        )
      : innocent("the devpts of the container is not mounted nodev");
  }
  if (step.name !== "findExecutable" && step.name !== "execute") return [];
  const root = rootPath(plan);
  if (root === undefined) return [];
  const mount = mountUnder(facts.walk(root).real ?? root, facts.mounts());
  if (mount === undefined) return [];
  return mount.options.includes("noexec")
    ? refuses(
        `the root ${root} is on the mount ${told(mount)}: nothing may be executed from there`,
        `mount -o remount,exec ${mount.mountPoint}, or put the root elsewhere`,
      )
    : innocent(`the root is on the mount ${told(mount)}, which is not noexec`);
};

export const MOUNTS: readonly Question[] = [
  unknownFilesystem,
  foreignNamespace,
  overmounted,
  option,
  locked,
  idmapped,
  readonly,
  flags,
];
