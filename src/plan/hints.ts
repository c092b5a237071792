import { SCHEDULER_POLICIES } from "../linux/scheduling.ts";
import type { NamespaceType } from "../spec/spec.ts";
import { makesNew } from "./namespaces.ts";
import type { Plan, Step, StepName } from "./step.ts";

type Hint = string | ((step: Step, plan: Plan) => string | undefined);

/** Filesystems that show a namespace can be mounted only by who has power over it. */
const NEEDED_NAMESPACE: Partial<Record<string, [NamespaceType, string]>> = {
  proc: ["pid", 'a new /proc needs a new pid namespace: add {"type": "pid"} to linux.namespaces'],
  mqueue: ["ipc", 'a new mqueue needs a new ipc namespace: add {"type": "ipc"} to linux.namespaces'],
  sysfs: [
    "network",
    "a new sysfs needs a network namespace of the container's own user namespace: make one, or bind the host's /sys",
  ],
};

function filesystemRefused(step: Step, plan: Plan): string | undefined {
  if (step.name !== "makeFilesystem") return;
  const { type } = step.args;
  const [namespace, hint] = NEEDED_NAMESPACE[type] ?? [];
  if (namespace === undefined) return;
  if (!makesNew(plan, namespace)) return hint;
  return makesNew(plan, "user")
    ? `in a user namespace a new ${type} may not show more than the one that is here, parts of which are covered: caisson why says which`
    : undefined;
}

function schedulerRefused(step: Step): string | undefined {
  if (step.name !== "setScheduler") return;
  const policy = step.args.attributes[4]; // the lowest byte of sched_attr.sched_policy
  return policy === SCHEDULER_POLICIES.SCHED_DEADLINE
    ? "process scheduler can't be used together with AllowedCPUs (cpuset.cpus) unless they are all of them, and needs CAP_SYS_NICE"
    : "a real-time policy needs CAP_SYS_NICE, and real-time of the cgroup where version 1 shares it out: linux.resources.cpu.realtimeRuntime";
}

const CANNOT_MAP: Record<string, string> = {
  EINVAL: "the source's filesystem cannot map ids, or one below it with ridmap: leave out idmap, or use another source",
  EPERM: "the source is mapped already, or its filesystem belongs to another user namespace: give the original path",
};

/** (step, errno) → a condition and a remedy. There is none where it would be a guess; each has a test that provokes it. */
const HINTS: Partial<Record<StepName, Record<string, Hint>>> = {
  setLimit: {
    EPERM: "raising a hard limit needs CAP_SYS_RESOURCE: ask for at most the hard limit that you have (ulimit -H)",
  },
  setOomScore: {
    EACCES: "a score below one's own needs CAP_SYS_RESOURCE: ask for at least what /proc/self/oom_score_adj says",
  },
  makeFilesystem: {
    ENODEV: (step) =>
      step.name === "makeFilesystem"
        ? `this kernel has no filesystem called ${step.args.type}: see /proc/filesystems`
        : undefined,
    EPERM: filesystemRefused,
  },
  checkProcTarget: {
    ELOOP: "a link on the way to the target leads in a circle: an image must not redirect proc or sysfs",
    ENOTDIR: "the target is a link or a file: proc and sysfs are mounted on ordinary directories alone",
  },
  checkProcSource: {
    EINVAL: "only a proc filesystem can be mounted on /proc: bind the host's /proc, or use type proc",
  },
  attachMount: {
    EACCES: (_, plan) =>
      makesNew(plan, "user")
        ? "the destination is closed to the root of the container's user namespace, or is missing where that may make nothing: make it, or give the root's owner"
        : "the destination leads into proc, where nothing may be mounted: an image must not redirect mounts there",
    ENOTDIR:
      "a directory is mounted on a directory and a file on a file: look what is at both ends, and on the way there",
  },
  matchDirectory: {
    EINVAL:
      "the owner of the directory is nobody in the container's user namespace: map it, or give mode=, uid= and gid=",
  },
  copyUp: {
    EINVAL:
      "an owner of what is to be copied is nobody in the container's user namespace: map it, or omit tmpcopyup (nocopy for a volume)",
    ENOSPC: "the tmpfs is smaller than what tmpcopyup puts into it: give it a larger size=",
  },
  mapMount: CANNOT_MAP,
  idmapSource: CANNOT_MAP,
  makeUserNamespace: {
    EINVAL: "the kernel does not take these mappings: each id may be mapped once, in at most 340 ranges",
  },
  checkDevice: {
    ENODEV: "in a user namespace the host's own devices are bound: name one by the path and the numbers it has there",
  },
  setScheduler: { EPERM: schedulerRefused },
  checkDirectory: { ENOENT: "the working directory is outside of the container's root: choose one inside" },
  openRoot: {
    ENOENT: "root.path of config.json does not exist: make the root or correct the path",
    ENOTDIR: "root.path of config.json is not a directory: unpack the root, or correct the path",
  },
  enterClass: {
    ENOENT: "linux.intelRdt.closID names a class of service that must exist, unless schemata are given to make it with",
  },
  openSource: { ENOENT: "a bind mount's source must exist on the host" },
};

/** The failures that there are hints for: step and errno. */
export function hintedFailures(): string[] {
  return Object.entries(HINTS).flatMap(([step, hints]) => Object.keys(hints).map((code) => `${step} ${code}`));
}

/** Advice for a step of a plan that failed, where there is any. */
export function hintFor(code: string, step: Step, plan: Plan): string | undefined {
  const hint = HINTS[step.name]?.[code];
  return typeof hint === "function" ? hint(step, plan) : hint;
}
