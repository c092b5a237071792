import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { freezerOf } from "../cgroup/cgroup.ts";
import { ContainerError, withLeft } from "../error.ts";
import { undo } from "../execute/execute.ts";
import { type HostContext, runHostStep } from "../execute/host.ts";
import { detectHost } from "../host/host.ts";
import { AT_FDCWD, close } from "../kernel/file.ts";
import { attach, cloneTree, reconfigureFilesystem, setAttributes } from "../kernel/mount.ts";
import { bootId, openProcess, startTime } from "../kernel/process.ts";
import { tryCall } from "../kernel/syscall.ts";
import { PROPAGATION } from "../linux/mount-options.ts";
import { parseMountinfo } from "../linux/mountinfo.ts";
import { containerCgroups } from "../plan/cgroup.ts";
import { compile } from "../plan/compile.ts";
import { type CriuOptions, cgroupViews, dumpWords, restoreWords } from "../plan/criu.ts";
import type { Definition } from "../plan/definition.ts";
import { isBind } from "../plan/mounts.ts";
import { joinPath, normalPath } from "../plan/path.ts";
import { isInit } from "../plan/step.ts";
import type { Spec } from "../spec/spec.ts";
import { Container, type Running } from "./container.ts";
import { checkId, type Record, Store } from "./store.ts";

const { getuid } = process;

/** Beside criu's images: where the standard streams led to (runc's name and form), and which mounts came from the host. */
const DESCRIPTORS = "descriptors.json";
const MOUNTS = "external-mounts.json";
const MNT_DETACH = 2;
/** Our standard error, where criu's own is a pipe on which we listen for its complaints. */
const OUR_STDERR = 3;
/** Shown with a file system's own options, by the kernel and SELinux. */
const NOT_OF_CGROUPS: ReadonlySet<string> = new Set(["rw", "ro", "seclabel"]);
const CGROUP_STEPS: ReadonlySet<string> = new Set(["makeCgroup", "writeCgroup", "filterDevices"]);

/**
 * Writes a running container into files, by criu(8), and ends it unless it is to run on.
 * @throws ContainerError with criu's own reason
 */
export function checkpoint(container: Container, options: CriuOptions, criu: string): void {
  const { status, spec, record } = container;
  if (status === "created" || status === "stopped" || status === "creating")
    throw new ContainerError({ message: `Container cannot be checkpointed in ${status} state`, code: "ERR_STATUS" });
  for (const directory of [options.images, options.work]) mkdirSync(directory, { recursive: true, mode: 0o700 });
  const { pid, bundle, rootfs } = record;
  const external = externalMounts(spec, record);
  if (options.preDump !== true) {
    const streams = [0, 1, 2].map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    writeFileSync(`${options.images}/${DESCRIPTORS}`, JSON.stringify(streams), { mode: 0o600 });
    writeFileSync(`${options.images}/${MOUNTS}`, JSON.stringify(external), { mode: 0o600 });
  }
  // what is paused is thawed for criu, which has the processes write down their own memory, and is frozen again
  const freezer = freezerOf(record.cgroups)?.path;
  const words = dumpWords(
    { pid, root: joinPath(bundle, rootfs), external, ...(freezer === undefined ? {} : { freezer }) },
    options,
  );
  runCriu(criu, words, options, "dump.log");
  if (options.preDump !== true && options.leaveRunning !== true) container.delete({ force: true });
}

/**
 * Makes a container of the files that checkpoint wrote; it runs on where it was, and is a child of ours. Its hooks are
 * not run again. @throws ContainerError with criu's own reason; nothing is left then
 */
export function restore(
  root: string,
  definition: Definition,
  options: CriuOptions,
  criu: string,
): { container: Container; process: Running } {
  const { id, spec, bundle } = definition;
  checkId(id);
  if (!existsSync(options.images))
    throw new ContainerError({ message: `criu failed: no images in ${options.images}`, code: "ENOENT" });
  mkdirSync(options.work, { recursive: true, mode: 0o700 });
  const host = detectHost();
  const plan = compile(definition, host).filter((step) => !isInit(step) && CGROUP_STEPS.has(step.name));
  const store = Store.make(root, id);
  if (store === undefined)
    throw new ContainerError({ message: "container with given ID already exists", code: "EEXIST" });
  const record: Record = {
    ...{ version: 1, id, status: "creating", bundle, rootfs: spec.root?.path ?? "", pid: 0, startTime: "" },
    ...{ bootId: bootId(), createdAt: new Date().toISOString(), uid: getuid?.() ?? 0 },
    ...{ annotations: spec.annotations ?? {}, promises: (spec.hooks?.poststop ?? []).length > 0, resumes: false },
    steps: { process: -1, endpoint: -1, unit: -1, cgroups: {} },
    cgroups: containerCgroups(definition, host),
  };
  const context = cgroupContext(id, store.directory);
  try {
    store.write(record);
    store.writeDefinition(definition, host);
    for (const step of plan) if (!isInit(step)) runHostStep(step, context);
    const pid = restoreProcesses(store.path, record, spec, options, criu);
    store.write({ ...record, status: "created", pid, startTime: startTime(pid) ?? "" });
    return { container: Container.open(root, id), process: { pid, pidfd: openProcess(pid) } };
  } catch (error) {
    const left = undo(plan, context);
    store.remove();
    throw withLeft(error, left);
  } finally {
    store.close();
  }
}

/** @returns the pid of the first process */
function restoreProcesses(state: string, record: Record, spec: Spec, options: CriuOptions, criu: string): number {
  const root = `${state}/criu-root`;
  const pidFile = `${state}/criu-pid`;
  const streams = readList(`${options.images}/${DESCRIPTORS}`);
  // criu wants a mount point for its root
  mkdirSync(root, { mode: 0o700 });
  const tree = cloneTree(AT_FDCWD, joinPath(record.bundle, record.rootfs), true);
  setAttributes(tree, { propagation: PROPAGATION.private }, true);
  try {
    attach(tree, root);
    const words = restoreWords(
      {
        root,
        external: readList(`${options.images}/${MOUNTS}`),
      },
      options,
      {
        pidFile,
        spec,
        bundle: record.bundle,
        cgroups: record.cgroups,
        // a pipe that the checkpoint cut off is ours now
        inherited: streams.flatMap((key, fd) =>
          key.startsWith("pipe:[") ? [[fd === 2 ? OUR_STDERR : fd, key] as const] : [],
        ),
      },
    );
    runCriu(criu, words, options, "restore.log", "inherit");
    return Number(readFileSync(pidFile, "utf8"));
  } finally {
    close(tree);
    tryCall("umount2", root, MNT_DETACH);
    rmSync(pidFile, { force: true });
    rmdirSync(root);
  }
}

/** Runs criu to its end. @throws ContainerError in runc's words, with the first of criu's own errors as its reason */
function runCriu(
  criu: string,
  words: readonly string[],
  { work, statusDescriptor }: CriuOptions,
  log: string,
  streams: "ignore" | "inherit" = "ignore",
): void {
  const path = `${work}/${log}`;
  rmSync(path, { force: true });
  const options = unifiedOptions();
  const { status, stderr, error } = spawnSync(criu, words, {
    encoding: "utf8",
    stdio: [
      ...(streams === "inherit" ? (["inherit", "inherit", "pipe", 2] as const) : (["ignore", "pipe", "pipe"] as const)),
      ...(statusDescriptor === undefined ? [] : [statusDescriptor]),
    ],
  });
  keepUnifiedOptions(options);
  if (error !== undefined)
    throw new ContainerError({
      message: `criu failed: exec: ${JSON.stringify(criu)}: ${error.message}`,
      code: "ENOENT",
      hint: "install criu, or name it by --criu",
      cause: error,
    });
  if (status === 0) return;
  const said = `${existsSync(path) ? readFileSync(path, "utf8") : ""}\n${stderr}`;
  const reason = /Error \([^)]*\): (.*)/.exec(said)?.[1]?.trim();
  throw new ContainerError({
    message: `criu failed: type ${log === "dump.log" ? "DUMP" : "RESTORE"} errno 0\nlog file: ${path}`,
    code: "ECRIU",
    hint: reason,
  });
}

/** What the machine's hierarchy of version 2 was mounted with, such as nsdelegate. */
function unifiedOptions(): { mountPoint: string; own: string[] } | undefined {
  const unified = parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")).find(({ type }) => type === "cgroup2");
  if (unified === undefined) return;
  const { mountPoint, superOptions } = unified;
  return { mountPoint, own: superOptions.filter((option) => !NOT_OF_CGROUPS.has(option)) };
}

/**
 * criu mounts the hierarchy for itself, without options, and they are the whole machine's: without nsdelegate, who was
 * handed a cgroup may change its own limits (https://github.com/checkpoint-restore/criu/issues/3029).
 */
function keepUnifiedOptions(before: ReturnType<typeof unifiedOptions>): void {
  const now = new Set(unifiedOptions()?.own);
  if (before === undefined || before.own.every((option) => now.has(option))) return;
  const { mountPoint, own } = before;
  reconfigureFilesystem(
    mountPoint,
    own.map((option) => [option]),
  );
}

/** The mounts inside that came from the host, of those that are there: binds, cgroups, and what hides files. */
function externalMounts(spec: Spec, { pid, cgroups }: Record): string[] {
  const { mounts = [], linux } = spec;
  const types = new Map(
    parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`, "utf8")).map(({ mountPoint, type }) => [mountPoint, type]),
  );
  const binds = mounts.filter(isBind).map(({ destination }) => normalPath(destination));
  // directories are hidden by a tmpfs, which criu can make again; what hides a file is the host's null device
  const hidden = (linux?.maskedPaths ?? []).filter((path) => types.get(path) !== "tmpfs");
  const views = cgroupViews(spec, cgroups).map(([inside]) => inside);
  return [...binds, ...views, ...hidden].filter((path) => types.has(path));
}

function readList(path: string): string[] {
  const list: unknown = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : [];
  return Array.isArray(list) ? list.filter((each) => typeof each === "string") : [];
}

function cgroupContext(id: string, directory: number): HostContext {
  const none = () => undefined;
  return { id, directory, process: undefined, slots: new Map(), state: () => "{}", record: none, returns: new Map() };
}
