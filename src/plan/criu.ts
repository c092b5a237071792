import type { Spec } from "../spec/spec.ts";
import type { CgroupDirectory } from "./cgroup-layout.ts";
import { joinPath, normalPath } from "./path.ts";

/**
 * What a checkpoint or a restore is asked for: runc's flags.
 * criu(8) does the work; here is only which of its words say the same.
 */
export interface CriuOptions {
  /** Where the images are; absolute. */
  images: string;
  /** Where logs and statistics go; absolute. */
  work: string;
  /** Images of an earlier pre-dump, relative to `images`. */
  parent?: string;
  leaveRunning?: boolean;
  tcpEstablished?: boolean;
  tcpSkipInFlight?: boolean;
  linkRemap?: boolean;
  externalSockets?: boolean;
  shellJob?: boolean;
  fileLocks?: boolean;
  preDump?: boolean;
  autoDedup?: boolean;
  lazyPages?: boolean;
  /** Descriptor of the caller's that criu writes a NUL to once lazy pages can be served. */
  statusDescriptor?: number;
  pageServer?: { address: string; port: number };
  manageCgroups?: "soft" | "full" | "strict" | "ignore";
  emptyNetwork?: boolean;
  lsmProfile?: string;
  lsmMountContext?: string;
}

/** What criu has to know of the container. */
export interface CriuSubject {
  pid: number;
  root: string;
  /** Mount points inside whose mounts came from the host: criu cannot make them again from what it sees. */
  external: readonly string[];
  /** Directory of the freezer that holds all its processes. */
  freezer?: string;
}

/** What a restore needs beside that. */
export interface Restoration {
  /** Where criu is to write the pid of the first process. */
  pidFile: string;
  spec: Spec;
  bundle: string;
  cgroups: readonly CgroupDirectory[];
  /** Our descriptors, each by what the checkpoint called it, such as "pipe:[123]". */
  inherited: readonly (readonly [number, string])[];
}

/** Words for `criu dump` or `criu pre-dump`. */
export function dumpWords(subject: CriuSubject, options: CriuOptions): string[] {
  return [
    options.preDump === true ? "pre-dump" : "dump",
    ...common(options, "dump.log"),
    ...["--tree", String(subject.pid), "--root", subject.root],
    ...(options.leaveRunning === true ? ["--leave-running"] : []),
    ...(options.parent === undefined ? [] : ["--prev-images-dir", options.parent]),
    ...(options.parent === undefined && options.preDump !== true ? [] : ["--track-mem"]),
    ...(options.pageServer === undefined
      ? []
      : ["--page-server", "--address", options.pageServer.address, "--port", String(options.pageServer.port)]),
    ...(options.statusDescriptor === undefined ? [] : ["--status-fd", "3"]),
    ...(subject.freezer === undefined ? [] : ["--freeze-cgroup", subject.freezer]),
    // a pre-dump looks at memory alone
    ...(options.preDump === true ? [] : subject.external.map((path) => `--external=mnt[${path}]:${path}`)),
  ];
}

/** Words for `criu restore`; the bundle's mounts come from the host again. */
export function restoreWords(
  { root, external }: Omit<CriuSubject, "pid">,
  options: CriuOptions,
  { pidFile, spec, bundle, cgroups, inherited }: Restoration,
): string[] {
  const views = new Map(cgroupViews(spec, cgroups));
  // what hides a file is the host's null device
  const source = (path: string) => {
    const view = views.get(path);
    if (view !== undefined) return view;
    const mount = (spec.mounts ?? []).find(({ destination }) => destination === path);
    return mount === undefined ? "/dev/null" : joinPath(bundle, mount.source ?? "");
  };
  return [
    "restore",
    ...common(options, "restore.log"),
    ...["--root", root, "--restore-detached", "--restore-sibling", "--pidfile", pidFile],
    ...cgroups.map(
      ({ hierarchy, path }) =>
        `--cgroup-root=${hierarchy.controllers.join(",")}:${path.slice(hierarchy.mountPoint.length)}`,
    ),
    ...inherited.map(([fd, key]) => `--inherit-fd=fd[${fd}]:${key}`),
    ...external.map((path) => `--external=mnt[${path}]:${source(path)}`),
    ...(options.lsmProfile === undefined ? [] : ["--lsm-profile", options.lsmProfile]),
    ...(options.lsmMountContext === undefined ? [] : ["--lsm-mount-context", options.lsmMountContext]),
  ];
}

/**
 * Where the container sees its cgroups, and where the host has them: each is a part of a hierarchy, whose root criu does
 * not find inside. On version 2 it is one mount, on version 1 a directory of them.
 */
export function cgroupViews({ mounts = [] }: Spec, cgroups: readonly CgroupDirectory[]): [string, string][] {
  const unified = cgroups.every(({ hierarchy }) => hierarchy.version === 2);
  return mounts
    .filter(({ type }) => type === "cgroup")
    .flatMap(({ destination }) =>
      cgroups.map(({ hierarchy: { mountPoint }, path }): [string, string] => {
        const name = mountPoint.slice(mountPoint.lastIndexOf("/"));
        return [`${normalPath(destination)}${unified ? "" : name}`, path];
      }),
    );
}

function common(options: CriuOptions, log: string): string[] {
  const flags: [boolean | undefined, string][] = [
    [options.tcpEstablished, "--tcp-established"],
    [options.tcpSkipInFlight, "--skip-in-flight"],
    [options.linkRemap, "--link-remap"],
    [options.externalSockets, "--ext-unix-sk"],
    [options.shellJob, "--shell-job"],
    [options.fileLocks, "--file-locks"],
    [options.autoDedup, "--auto-dedup"],
    [options.lazyPages, "--lazy-pages"],
  ];
  return [
    ...["--images-dir", options.images, "--work-dir", options.work, "--log-file", log, "-v4"],
    `--manage-cgroups=${options.manageCgroups ?? "soft"}`,
    ...flags.filter(([wanted]) => wanted === true).map(([, word]) => word),
    ...(options.emptyNetwork === true ? ["--empty-ns", "net"] : []),
  ];
}
