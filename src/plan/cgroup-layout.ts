import { ContainerError } from "../error.ts";
import { parseMountinfo } from "../linux/mountinfo.ts";
import { isBeneath } from "./path.ts";

/** One mounted hierarchy of cgroups. */
export type CgroupHierarchy = {
  /** Such as ["cpu"], ["cpu", "cpuacct"] or ["name=systemd"]; of version 2 those that its root offers, possibly none. */
  controllers: string[];
  version: 1 | 2;
  /** Such as "/sys/fs/cgroup/memory". */
  mountPoint: string;
  /** Our own cgroup as a path beneath the mount point, "/" for the mount point itself. */
  ownPath: string;
  /** Whether a caller without privileges may make cgroups where relative paths count from; absent for others. */
  delegated?: boolean;
};

/** "hybrid" is version 1 with a version 2 hierarchy beside it. */
export type CgroupLayout = { mode: "v1" | "hybrid" | "v2"; hierarchies: CgroupHierarchy[] };

/** A container's directory in one hierarchy. */
export type CgroupDirectory = { hierarchy: CgroupHierarchy; path: string };

type CgroupMount = { root: string; mountPoint: string; version: 1 | 2; options: readonly string[] };

/**
 * Finds the hierarchies that are mounted, and our place in each (proc_pid_mountinfo(5), cgroups(7)).
 * @param mountinfo text of /proc/self/mountinfo
 * @param procSelfCgroup text of /proc/self/cgroup
 * @param v2Controllers text of cgroup.controllers at the version 2 mount point, "" where there is none
 */
export function parseCgroupLayout(mountinfo: string, procSelfCgroup: string, v2Controllers: string): CgroupLayout {
  const mounts = parseMountinfo(mountinfo).flatMap(({ root, mountPoint, type, superOptions }): CgroupMount[] => {
    if (type !== "cgroup" && type !== "cgroup2") return [];
    return [{ root, mountPoint, version: type === "cgroup2" ? 2 : 1, options: superOptions }];
  });
  const hierarchies = procSelfCgroup.split("\n").flatMap((line): CgroupHierarchy[] => {
    const [, number, names = "", path = ""] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    if (number === undefined) return [];
    const version = number === "0" ? 2 : 1;
    const controllers = (version === 2 ? v2Controllers : names).split(/[\s,]+/).filter((name) => name !== "");
    const candidates = mounts.filter(
      (mount) => mount.version === version && (version === 2 || controllers.every((c) => mount.options.includes(c))),
    );
    // A hierarchy can be mounted many times (into containers, for instance); the usual place is the one meant for us.
    const mount = candidates.find(({ mountPoint }) => isBeneath(mountPoint, "/sys/fs/cgroup")) ?? candidates[0];
    if (mount === undefined) return [];
    return [{ controllers, version, mountPoint: mount.mountPoint, ownPath: ownPath(mount.root, path) }];
  });
  const versions = new Set(hierarchies.map(({ version }) => version));
  return { mode: versions.size === 2 ? "hybrid" : versions.has(2) ? "v2" : "v1", hierarchies };
}

/**
 * The directories of a container, one a hierarchy, chosen as runc does: an absolute path counts from the hierarchy's
 * root, a relative one from our own cgroup, and without a path the id is taken for a relative one (OCI config-linux,
 * cgroupsPath). On version 2 "our own" is the parent of ours, because a cgroup that has processes cannot hand
 * controllers to its children.
 * @throws ContainerError ERR_SPEC for a path with ".." or one that names the root itself
 */
export function cgroupDirectories(
  layout: CgroupLayout,
  cgroupsPath: string | undefined,
  id: string,
): CgroupDirectory[] {
  const wanted = cgroupsPath === undefined || cgroupsPath === "" ? id : cgroupsPath;
  const names = wanted.split("/").filter((name) => name !== "" && name !== ".");
  if (names.length === 0 || names.includes("..") || wanted.includes("\0")) {
    throw new ContainerError({
      message: `cannot use ${JSON.stringify(wanted)} as a cgroup path`,
      code: "ERR_SPEC",
      from: "/linux/cgroupsPath",
    });
  }
  return layout.hierarchies.map((hierarchy) => {
    const base = wanted.startsWith("/") ? hierarchy.mountPoint : startingPoint(layout, hierarchy);
    return { hierarchy, path: [base, ...names].join("/") };
  });
}

/** The directory from which relative paths of cgroups count. */
export function startingPoint({ mode }: Pick<CgroupLayout, "mode">, { mountPoint, ownPath }: CgroupHierarchy): string {
  const own = ownPath.split("/").filter((name) => name !== "");
  return [mountPoint, ...(mode === "v2" ? own.slice(0, -1) : own)].join("/");
}

/** From the mount point (or the child of it) down to the directory itself: outermost first. */
export function ancestry({ hierarchy, path }: CgroupDirectory, withMountPoint: boolean): string[] {
  const names = path.slice(hierarchy.mountPoint.length).split("/").slice(1);
  const paths = names.map((_, index) => [hierarchy.mountPoint, ...names.slice(0, index + 1)].join("/"));
  return withMountPoint ? [hierarchy.mountPoint, ...paths] : paths;
}

/** Inside a container without a cgroup namespace the mount shows only a part of the hierarchy: its root. */
function ownPath(root: string, path: string): string {
  if (root === "/" && !path.startsWith("/..")) return path;
  return root !== "/" && isBeneath(path, root) ? path.slice(root.length) || "/" : "/";
}
