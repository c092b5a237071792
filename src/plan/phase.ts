/** A step of a plan, or of a trace, which has the taking back as well. */
interface Line {
  step: string;
  /** JSON pointer into the definition. */
  from: string;
  undo?: boolean;
}

/** What a step is about, by the part of the definition that asks for it: what it is coloured by. */
export const SUBJECTS = {
  cgroups: "control groups",
  files: "root and mounts",
  namespaces: "namespaces and identity",
  network: "network",
  privileges: "limits and privileges",
  hooks: "hooks",
  process: "process",
} as const;

export type Subject = keyof typeof SUBJECTS;

const BY_POINTER: readonly [RegExp, Subject][] = [
  [/^\/spec\/linux\/(cgroupsPath|resources|intelRdt)/, "cgroups"],
  [/^\/(spec\/(mounts|root)|root|files)\b/, "files"],
  [/^\/spec\/linux\/(devices|maskedPaths|readonlyPaths|rootfsPropagation)/, "files"],
  [/^\/spec\/(hostname|domainname)/, "namespaces"],
  [/^\/spec\/linux\/(namespaces|uidMappings|gidMappings|timeOffsets|personality)/, "namespaces"],
  [/^\/endpoint|^\/spec\/linux\/netDevices/, "network"],
  [/^\/spec\/linux\/(seccomp|sysctl|memoryPolicy)/, "privileges"],
  [
    /^\/spec\/process\/(capabilities|noNewPrivileges|rlimits|user|oomScoreAdj|apparmorProfile|selinuxLabel)/,
    "privileges",
  ],
  [/^\/spec\/hooks/, "hooks"],
];

export function subjectOf({ from }: Line): Subject {
  return BY_POINTER.find(([pointer]) => pointer.test(from))?.[1] ?? "process";
}

/** The acts of the play, in their order: what one looks for first in a trace. */
export const PHASES = {
  prepare: "The host prepares",
  enter: "Init enters new namespaces",
  build: "The root is built",
  confine: "Privileges are given up",
  start: "The program starts",
  undo: "It is taken back",
} as const;

export type Phase = keyof typeof PHASES;

/** Steps that a phase begins with, where they are in the plan. */
const BEGINNINGS: { readonly [step: string]: Phase } = {
  startInit: "enter",
  newSession: "build",
  attachRoot: "build",
  pivotRoot: "confine",
  changeRoot: "confine",
  awaitStart: "start",
  execute: "start",
};

/** Each line's phase: none begins again once a later one has begun. */
export function phasesOf(lines: readonly Line[]): Phase[] {
  const order = Object.keys(PHASES);
  let phase: Phase = "prepare";
  return lines.map(({ step, undo }) => {
    const next = undo === true ? "undo" : BEGINNINGS[step];
    if (next !== undefined && order.indexOf(next) > order.indexOf(phase)) phase = next;
    return phase;
  });
}

/** Whether a step's time is spent waiting for somebody else: the other side, or whoever calls start. */
export function isWait({ step, undo }: Line): boolean {
  return undo !== true && ["turn", "offerListener", "awaitStart", "standStill"].includes(step);
}
