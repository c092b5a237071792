import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { readDocument } from "../../spec/bundle.ts";
import { parseResources } from "../../spec/parse.ts";
import type { Integer64, Resources } from "../../spec/spec.ts";
import { parseFlags, type Words } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  resources: {
    kind: "string",
    short: "r",
    help: "path to a JSON file in the form of config.json's linux.resources, or '-' for the standard input; other options are ignored then",
  },
  "blkio-weight": { kind: "string", help: "weight of block I/O, from 10 to 1000" },
  "cpu-period": {
    kind: "string",
    help: "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default",
  },
  "cpu-quota": { kind: "string", help: "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period" },
  "cpu-burst": {
    kind: "string",
    help: "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst in a given period",
  },
  "cpu-share": { kind: "string", help: "CPU shares (relative weight vs. other containers)" },
  "cpu-rt-period": { kind: "string", help: "CPU realtime period (in usecs). 0 to use system default" },
  "cpu-rt-runtime": { kind: "string", help: "CPU realtime limit (in usecs). Allowed cpu time in a given period" },
  "cpu-idle": { kind: "string", help: "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE" },
  "cpuset-cpus": { kind: "string", help: "CPU(s) to use" },
  "cpuset-mems": { kind: "string", help: "Memory node(s) to use" },
  "kernel-memory": { kind: "string", help: "(obsoleted; ignored)" },
  "kernel-memory-tcp": { kind: "string", help: "(obsoleted; ignored)" },
  memory: { kind: "string", help: "Memory limit (in bytes)" },
  "memory-reservation": { kind: "string", help: "Memory reservation or soft_limit (in bytes)" },
  "memory-swap": { kind: "string", help: "Total memory usage (memory + swap); set '-1' to enable unlimited swap" },
  "pids-limit": { kind: "string", help: "Maximum number of pids allowed in the container; 0: unchanged" },
  "l3-cache-schema": { kind: "string", help: "The string of Intel RDT/CAT L3 cache schema" },
  "mem-bw-schema": { kind: "string", help: "The string of Intel RDT/MBA memory bandwidth schema" },
} as const;

type UpdateFlags = Words<typeof FLAGS>["flags"];

export const update: Command = {
  usage: "[command options] <container-id>",
  flags: FLAGS,
  words: [1, 1],
  run(words, { root }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    const container = Container.open(root, rest[0] ?? "");
    refuseRdt(flags);
    // what a file asks for is asked for in the words of the flags
    container.update(flags.resources === undefined ? resourcesOf(flags) : readResources(flags.resources));
    return 0;
  },
};

function readResources(path: string): Resources {
  const resources = parseResources(readDocument(path === "-" ? 0 : path), { path });
  // a program that writes every field leaves 0 in those that it does not mean
  const { pids, devices, ...more } = resources;
  return pids === undefined || pids.limit === 0 ? more : { ...more, pids };
}

function refuseRdt(flags: UpdateFlags): void {
  if (flags["l3-cache-schema"] !== undefined)
    throw new ContainerError({ message: "Intel RDT/CAT: l3 cache schema is not enabled", code: "ENOTSUP" });
  if (flags["mem-bw-schema"] !== undefined)
    throw new ContainerError({ message: "Intel RDT/MBA: memory bandwidth schema is not enabled", code: "ENOTSUP" });
}

function resourcesOf(flags: UpdateFlags): Resources {
  const number = (name: keyof UpdateFlags & string, negative = false) => {
    const text = textOf(flags, name);
    if (text === undefined) return;
    if (!(negative ? /^-?\d{1,15}$/ : /^\d{1,15}$/).test(text)) throw invalid(name, text);
    return Number(text);
  };
  const bytes = (name: keyof UpdateFlags & string) => {
    const text = textOf(flags, name);
    return text === undefined ? undefined : parseBytes(name, text);
  };
  const weight = number("blkio-weight");
  const limit = number("pids-limit", true);
  return {
    ...(weight === undefined ? {} : { blockIO: { weight } }),
    ...(limit === undefined || limit === 0 ? {} : { pids: { limit } }),
    cpu: given({
      period: number("cpu-period"),
      quota: number("cpu-quota", true),
      burst: number("cpu-burst"),
      shares: number("cpu-share"),
      realtimePeriod: number("cpu-rt-period"),
      realtimeRuntime: number("cpu-rt-runtime", true),
      idle: number("cpu-idle"),
      cpus: textOf(flags, "cpuset-cpus"),
      mems: textOf(flags, "cpuset-mems"),
    }),
    memory: given({
      limit: bytes("memory"),
      reservation: bytes("memory-reservation"),
      swap: bytes("memory-swap"),
    }),
  };
}

function textOf(flags: UpdateFlags, name: keyof UpdateFlags): string | undefined {
  return flags[name] === "" ? undefined : flags[name];
}

/** Without the members that are undefined. */
function given<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  }; // the same members, but those that are undefined
}

/** "64m", "1.5GiB", "1073741824", "-1": units are powers of 1024, as engines write them. */
function parseBytes(name: string, text: string): Integer64 {
  if (text === "-1") return -1;
  const [, digits = "", unit = ""] = /^(\d{1,15}(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text) ?? [];
  if (digits === "") throw invalid(name, text);
  return Math.trunc(Number(digits) * 1024 ** "_kmgtp".indexOf(unit === "" ? "_" : unit.toLowerCase()));
}

function invalid(name: string, text: string): ContainerError {
  return new ContainerError({ message: `invalid value for ${name}: ${JSON.stringify(text)}`, code: "ERR_USAGE" });
}
