import { watchOom } from "../../cgroup/oom.ts";
import { type Statistics, statistics } from "../../cgroup/statistics.ts";
import { Container } from "../../container/container.ts";
import { ContainerError } from "../../error.ts";
import { close } from "../../kernel/file.ts";
import { POLLIN, wait } from "../../kernel/process.ts";
import { printJson } from "../print.ts";
import { parseFlags } from "./flags.ts";
import type { Command } from "./runtime.ts";

const FLAGS = {
  interval: { kind: "string", help: "set the stats collection interval (default: 5s)" },
  stats: { kind: "boolean", help: "display the container's stats then exit" },
} as const;

const POLLERR = 8;

export const events: Command = {
  usage: "[command options] <container-id>",
  flags: FLAGS,
  words: [1, 1],
  run(words, { root }) {
    const { flags, rest } = parseFlags(FLAGS, words);
    const intervalMs = parseDuration(flags.interval ?? "5s");
    const container = Container.open(root, rest[0] ?? "");
    if (intervalMs <= 0)
      throw new ContainerError({ message: "duration interval must be greater than 0", code: "ERR_USAGE" });
    if (container.status === "stopped")
      throw new ContainerError({ message: `container with id ${container.id} is not running`, code: "ERR_STATUS" });
    if (flags.stats) printJson(statisticsOf(container));
    else follow(container, intervalMs);
    return 0;
  },
};

/** Until the container ends, or nobody reads any more. */
function follow(container: Container, intervalMs: number): void {
  const pidfd = container.openProcess();
  const oom = watchOom(container.record.cgroups);
  for (let next = Date.now() + intervalMs; ; ) {
    const left = Math.max(next - Date.now(), 0);
    // the output is asked for nothing: poll says by itself that its reader has gone
    const [ended = 0, short = 0, output = 0] = wait([pidfd, oom.descriptor, 1], left, [POLLIN, oom.events, 0]);
    if (short !== 0) for (let times = oom.take(); times > 0; times--) printJson({ type: "oom", id: container.id });
    if (ended !== 0 || (output & POLLERR) !== 0) break;
    if (Date.now() < next) continue;
    printJson(statisticsOf(container));
    next += intervalMs;
  }
  oom.close();
  close(pidfd);
}

/** In the shape of runc's events: of most members, one that is 0 is left out. */
function statisticsOf({ id, record }: Container): unknown {
  const { cpu, cpuset, memory, pids, blkio, hugetlb, misc } = statistics(record.cgroups);
  const { cpus, mems, ...settings } = cpuset;
  return {
    type: "stats",
    id,
    data: {
      cpu: {
        usage: { ...filled(cpu.usage), kernel: cpu.usage.kernel, user: cpu.usage.user },
        throttling: filled(cpu.throttling),
        ...pressureOf(cpu),
      },
      cpuset: { ...filled({ cpus, mems }), ...settings },
      memory: {
        ...filled({ cache: memory.cache }),
        usage: memoryEntry(memory.usage),
        swap: memoryEntry(memory.swap),
        kernel: memoryEntry(memory.kernel),
        kernelTCP: memoryEntry(memory.kernelTCP),
        ...filled({ raw: memory.raw }),
        ...pressureOf(memory),
      },
      pids: filled(pids),
      blkio: {
        ...filled({
          ioServiceBytesRecursive: blkio.ioServiceBytesRecursive.map(filled),
          ioServicedRecursive: blkio.ioServicedRecursive.map(filled),
        }),
        ...pressureOf(blkio),
      },
      hugetlb: Object.fromEntries(
        Object.entries(hugetlb).map(([size, { failcnt, ...entry }]) => [size, { ...filled(entry), failcnt }]),
      ),
      // runc counts this, too, but its events do not tell it
      ...filled({ misc }),
      intel_rdt: {},
      network_interfaces: null,
    },
  };
}

function memoryEntry({ limit, usage, max, failcnt }: Statistics["memory"]["usage"]): object {
  return { limit, ...filled({ usage, max }), failcnt };
}

function pressureOf({ psi }: { psi?: unknown }): object {
  return psi === undefined ? {} : { psi };
}

/** Without the members that are 0 or empty. */
function filled(value: object): object {
  const isEmpty = (each: unknown) =>
    each === 0 || each === undefined || (typeof each === "object" && each !== null && Object.keys(each).length === 0);
  return Object.fromEntries(Object.entries(value).filter(([, each]) => !isEmpty(each)));
}

const UNITS_MS: { [unit: string]: number } = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Such as "5s", "1m30s", "100ms", as Go writes it. @returns milliseconds */
function parseDuration(text: string): number {
  if (text === "0") return 0;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map(([part]) => part).join("") !== text.replace(/^[+-]/, ""))
    throw new ContainerError({
      message: `invalid value ${JSON.stringify(text)} for flag -interval: time: invalid duration ${JSON.stringify(text)}`,
      code: "ERR_USAGE",
    });
  const sum = parts.reduce((ms, [, number = "", unit = ""]) => ms + Number(number) * (UNITS_MS[unit] ?? 0), 0);
  return text.startsWith("-") ? -sum : sum;
}
