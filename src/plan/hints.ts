import type { Step, StepName } from "./step.ts";

type Hint = string | ((step: Step) => string | undefined);

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
    EPERM: (step) =>
      step.name === "makeFilesystem" && step.args.type === "proc"
        ? 'a new /proc needs a new pid namespace: add {"type": "pid"} to linux.namespaces'
        : undefined,
  },
  checkProcTarget: {
    ELOOP: "the target is a symbolic link in the root: an image must not redirect proc or sysfs",
    ENOTDIR: "the target is not an ordinary directory: an image must not redirect proc or sysfs",
  },
  checkDirectory: { ENOENT: "the working directory is outside of the container's root: choose one inside" },
  openRoot: { ENOENT: "root.path of config.json does not exist: make the root or correct the path" },
  enterClass: {
    ENOENT: "linux.intelRdt.closID names a class of service that must exist, unless schemata are given to make it with",
  },
  openSource: { ENOENT: "a bind mount's source must exist on the host" },
};

/** Advice for a step that failed, where there is any. */
export function hintFor(name: StepName, code: string, step: Step): string | undefined {
  const hint = HINTS[name]?.[code];
  return typeof hint === "function" ? hint(step) : hint;
}
