import type { Stats } from "node:fs";
import type { Caller } from "../host/caller.ts";
import type { MountEntry } from "../linux/mountinfo.ts";
import type { Host } from "../plan/host.ts";
import type { Plan, Step } from "../plan/step.ts";

/** A step that failed: what was asked of the kernel, and what it said. */
export interface Asked {
  step: Step;
  index: number;
  plan: Plan;
  /** errno's name. */
  code: string;
  /** The system call that was refused, where there was one. */
  call: AskedCall | undefined;
  /** What it was about, where the host knows. */
  path: string | undefined;
  /** What was known of the host when the plan was made. */
  host: Host;
  /** Who asked. */
  caller: Caller;
}

export interface AskedCall {
  name: string;
  /** As the kernel got them. */
  args: readonly bigint[];
  /** In words. */
  shown: readonly string[];
}

/** What there is to be seen on this host, looked up when it is asked for. */
export interface Facts {
  /** Ourselves, now. */
  self: Caller;
  /** A file's text without space around it; undefined where it cannot be read. */
  text(path: string): string | undefined;
  /** Names in a directory; undefined where there is none. */
  list(path: string): string[] | undefined;
  /** Of our mount namespace. */
  mounts(): readonly MountEntry[];
  /** Looks a path up, part by part; beneath a root as a process of the container would. */
  walk(path: string, root?: string): Walk;
  /** What a filesystem has left. */
  space(path: string): Space | undefined;
  /** What the kernel says when a filesystem of this kind is made; "" when it has no objection. */
  objection(type: string, parameters: readonly string[]): string | undefined;
  /** What the kernel says to a call that no right argument is given to; undefined where it cannot be tried. */
  answerTo(call: string): string | undefined;
  /** Namespaces of a kind that processes are in, by the file's name below /proc/pid/ns. */
  namespaces(file: string): number;
  /** Why the kernel does not execute a file in a root, by its first bytes; undefined when nothing is wrong with it. */
  defect(root: string, path: string): string | undefined;
  /** Messages of the kernel's log that have a word in them, the last one last; undefined where we may not read it. */
  log(word: string): string[] | undefined;
  /** The kernel's release. */
  release: string;
}

export interface Walk {
  /** What the path ends at, where all of it is there. */
  found: Stats | undefined;
  /** Each part that was found, outermost first. */
  parts: readonly { path: string; stats: Stats }[];
  /** The first part that was not, and why not. */
  stopped?: { path: string; code: string; link?: string };
  /** Where it is really, with links followed. */
  real?: string;
}

export interface Space {
  freeBytes: number;
  freeFiles: number;
  files: number;
}

/** What came of looking at one thing. */
export interface Finding {
  /** Whether it makes the kernel refuse; otherwise it was looked at and is not to blame. */
  refuses: boolean;
  says: string;
  /** What to do about it. */
  remedy?: string;
}

/** Something that can be the reason; none of these has an effect. @returns [] where it cannot be the reason at all */
export type Question = (asked: Asked, facts: Facts) => Finding[];

export const refuses = (says: string, remedy?: string): Finding[] => [
  { refuses: true, says, ...(remedy === undefined ? {} : { remedy }) },
];
export const innocent = (says: string): Finding[] => [{ refuses: false, says }];
