import { MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES } from "../linux/memory-policy.ts";
import { PERSONALITIES } from "../linux/personality.ts";
import { rlimitNumber } from "../linux/rlimits.ts";
import { ioPriorityValue, SCHEDULER_FLAGS, SCHEDULER_POLICIES } from "../linux/scheduling.ts";
import type { MemoryPolicy, Process, Scheduler, Spec } from "../spec/spec.ts";
import type { Step } from "./step.ts";

/** What a process inherits and cannot exceed: prlimit(2). */
export function limitResources({ rlimits = [] }: Process): Step[] {
  return rlimits.map(({ type, soft, hard }, at) => ({
    name: "setLimit",
    args: { resource: rlimitNumber(type) ?? -1, soft, hard },
    from: `/spec/process/rlimits/${at}`,
  }));
}

/**
 * When it gets the processor and the disk: sched_setattr(2), ioprio_set(2). Behind the hooks of createContainer: they
 * are the host's programs, and a process of SCHED_DEADLINE could not even start them.
 */
export function schedule({ scheduler, ioPriority }: Process): Step[] {
  const steps: Step[] = [];
  if (scheduler !== undefined)
    steps.push({
      name: "setScheduler",
      args: { attributes: schedulerBytes(scheduler) },
      from: "/spec/process/scheduler",
    });
  if (ioPriority !== undefined)
    steps.push({
      name: "setIoPriority",
      args: { priority: ioPriorityValue(ioPriority.class, ioPriority.priority) },
      from: "/spec/process/ioPriority",
    });
  return steps;
}

/**
 * Set while init still has the host's proc and is root of the host's user namespace: in a new one, its proc file would
 * belong to somebody else. The process inherits it.
 */
export function setOomScore({ oomScoreAdj }: Process): Step[] {
  if (oomScoreAdj === undefined) return [];
  return [{ name: "setOomScore", args: { adjustment: String(oomScoreAdj) }, from: "/spec/process/oomScoreAdj" }];
}

/** Execution domain and NUMA policy: for the whole container. */
export function setMachineView({ linux }: Spec): Step[] {
  const steps: Step[] = [];
  if (linux?.personality !== undefined)
    steps.push({
      name: "setPersonality",
      args: { persona: PERSONALITIES[linux.personality.domain ?? "LINUX"] },
      from: "/spec/linux/personality",
    });
  if (linux?.memoryPolicy !== undefined) steps.push(memoryPolicy(linux.memoryPolicy));
  return steps;
}

/** struct sched_attr of sched_setattr(2), 48 bytes. */
function schedulerBytes({
  policy,
  nice = 0,
  priority = 0,
  flags = [],
  runtime = 0,
  deadline = 0,
  period = 0,
}: Scheduler): Uint8Array {
  const bytes = Buffer.alloc(48);
  bytes.writeUInt32LE(48, 0);
  bytes.writeUInt32LE(SCHEDULER_POLICIES[policy], 4);
  bytes.writeBigUInt64LE(BigInt(flags.reduce((sum, flag) => sum | SCHEDULER_FLAGS[flag], 0)), 8);
  bytes.writeInt32LE(nice, 16);
  bytes.writeUInt32LE(priority, 20);
  bytes.writeBigUInt64LE(BigInt(runtime), 24);
  bytes.writeBigUInt64LE(BigInt(deadline), 32);
  bytes.writeBigUInt64LE(BigInt(period), 40);
  return bytes;
}

function memoryPolicy({ mode, nodes = "", flags = [] }: MemoryPolicy): Step {
  const mask = listMask(nodes);
  return {
    name: "setMemoryPolicy",
    args: {
      mode: flags.reduce(
        (sum, flag) => sum | MEMORY_POLICY_FLAGS[flag],
        Number(MEMORY_POLICY_MODES[mode ?? "MPOL_DEFAULT"]),
      ),
      nodes: mask,
      bits: mask.length === 0 ? 0 : mask.length * 8 + 1,
    },
    from: "/spec/linux/memoryPolicy",
  };
}

/** "0-3,7" as a bit mask in whole 64-bit words, as the kernel's interfaces want it; empty for "". */
export function listMask(list: string): Uint8Array {
  const numbers = list.split(",").flatMap((part) => {
    const [first = "", last = first] = part.trim().split("-");
    if (first === "") return [];
    return Array.from({ length: Number(last) - Number(first) + 1 }, (_, i) => Number(first) + i);
  });
  if (numbers.length === 0) return new Uint8Array(0);
  const mask = new Uint8Array(Math.ceil((Math.max(...numbers) + 1) / 64) * 8);
  for (const number of numbers) mask[number >> 3] = (mask[number >> 3] ?? 0) | (1 << (number & 7));
  return mask;
}
